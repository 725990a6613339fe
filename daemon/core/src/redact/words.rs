//! Finds many words in one pass. Every second place is looked at: the two bytes there say which third can go on to a word
//! that begins there or one byte earlier. Only where it does, the same is asked of three bytes and the fourth; and only
//! where that holds too, the words that begin with the three bytes are compared.

/// The words and what each stands for.
pub(super) struct Words<T> {
    /// By hash of the first and second or second and third bytes of words, the bytes that follow. Small enough to stay near.
    pairs: Box<[Set; PAIRS]>,
    /// By hash of the first three bytes of words, the bytes that follow.
    heads: Box<[Set; HEADS]>,
    /// By hash of three bytes, the index of its list and 1.
    index: Vec<u16>,
    lists: Vec<Vec<Word<T>>>,
}

struct Word<T> {
    /// Its first eight bytes, as far as it has them.
    head: u64,
    /// Which of those count.
    mask: u64,
    len: usize,
    /// What follows them.
    rest: Box<[u8]>,
    meaning: T,
}

/// Bytes, by their last six bits.
type Set = u64;

const ALL: Set = Set::MAX;

fn set(b: u8) -> Set {
    1 << (b & 63)
}

fn has(set: Set, b: u8) -> bool {
    set >> (b & 63) & 1 != 0
}

const PAIR_BITS: u32 = 12;

const PAIRS: usize = 1 << PAIR_BITS;

const HEAD_BITS: u32 = 11;

const HEADS: usize = 1 << HEAD_BITS;

/// Pairs of bytes that are looked at in one go.
const CHUNK: usize = 256;

const BITS: u32 = 14;

const SPREAD: u32 = 0x9e37_79b1;

/// Of two bytes.
fn pair(two: [u8; 2]) -> usize {
    (u32::from(u16::from_le_bytes(two)).wrapping_mul(SPREAD) >> (32 - PAIR_BITS)) as usize
}

/// The first four bytes, zeros where there are none.
fn head(text: &[u8]) -> u32 {
    match text.first_chunk() {
        Some(four) => u32::from_le_bytes(*four),
        None => text.iter().rev().fold(0, |head, b| head << 8 | u32::from(*b)),
    }
}

/// The first eight bytes, zeros where there are none.
fn long_head(text: &[u8]) -> u64 {
    match text.first_chunk() {
        Some(eight) => u64::from_le_bytes(*eight),
        None => text.iter().rev().fold(0, |head, b| head << 8 | u64::from(*b)),
    }
}

/// Of the first three of four bytes.
fn hash(head: u32) -> u32 {
    (head << 8).wrapping_mul(SPREAD)
}

impl<T: Copy> Words<T> {
    /// Words of at least three bytes.
    pub(super) fn new(words: impl IntoIterator<Item = (String, T)>) -> Self {
        let mut words: Vec<(String, T)> = words.into_iter().collect();
        // In the order in which those that stand at one place are found.
        words.sort_by(|(a, _), (b, _)| (a.len() > 3, a).cmp(&(b.len() > 3, b)));
        let mut pairs = Box::new([0; PAIRS]);
        let mut heads = Box::new([0; HEADS]);
        let mut index = vec![0; 1 << BITS];
        let mut lists: Vec<Vec<Word<T>>> = Vec::new();
        for (word, meaning) in words {
            let bytes = word.as_bytes();
            let fourth = bytes.get(3).map_or(ALL, |b| set(*b));
            pairs[pair([bytes[0], bytes[1]])] |= set(bytes[2]);
            pairs[pair([bytes[1], bytes[2]])] |= fourth;
            let hash = hash(head(bytes));
            heads[(hash >> (32 - HEAD_BITS)) as usize] |= fourth;
            let list: &mut u16 = &mut index[(hash >> (32 - BITS)) as usize];
            if *list == 0 {
                lists.push(Vec::new());
                *list = lists.len() as u16;
            }
            lists[usize::from(*list) - 1].push(Word {
                head: long_head(bytes),
                mask: u64::MAX >> (64 - 8 * bytes.len().min(8)),
                len: bytes.len(),
                rest: bytes[bytes.len().min(8)..].into(),
                meaning,
            });
        }
        Self { pairs, heads, index, lists }
    }

    /// Calls `at` with the place and the length of each word in `text`, and what it stands for.
    pub(super) fn each(&self, text: &[u8], mut at: impl FnMut(usize, usize, T)) {
        let mut found = [0u16; CHUNK];
        let mut places = [0u16; 2 * CHUNK];
        let (pairs, _) = text.as_chunks();
        let mut follows = 0;
        for (number, chunk) in pairs.chunks(CHUNK).enumerate() {
            let from = number * 2 * CHUNK;
            let count = self.begin(chunk, &mut follows, &mut found);
            let count = self.keep(text, from, &found[..count], &mut places);
            for place in &places[..count] {
                self.compare(text, (from + usize::from(*place)).wrapping_sub(3), &mut at);
            }
        }
        // What was said of the last pair has not been looked at.
        for place in (2 * pairs.len()).saturating_sub(3)..text.len().saturating_sub(2) {
            self.compare(text, place, &mut at);
        }
    }

    /// The numbers of the pairs in a chunk that follow one from which a word can go on: written to `found`, without a
    /// branch for each, and how many there are. `follows` is what may stand behind the last pair.
    #[inline(never)]
    fn begin(&self, chunk: &[[u8; 2]], follows: &mut Set, found: &mut [u16; CHUNK]) -> usize {
        let mut set = *follows;
        let mut count = 0;
        for (number, two) in chunk.iter().enumerate() {
            found[count & (CHUNK - 1)] = number as u16;
            count += usize::from(has(set, two[0]));
            set = self.pairs[pair(*two)];
        }
        *follows = set;
        count
    }

    /// Where words can begin, and 3, from `from` on: before the pairs that were found.
    #[inline(never)]
    fn keep(&self, text: &[u8], from: usize, found: &[u16], places: &mut [u16; 2 * CHUNK]) -> usize {
        let mut count = 0;
        for number in found {
            // The last byte of the three that were looked at.
            let last = 2 * *number;
            // A word that begins one byte earlier, and one that begins with them.
            for place in [last, last + 1] {
                let four = text.get((from + usize::from(place)).wrapping_sub(3)..).and_then(|rest| rest.first_chunk());
                let goes_on = four.is_none_or(|four: &[u8; 4]| {
                    has(self.heads[(hash(u32::from_le_bytes(*four)) >> (32 - HEAD_BITS)) as usize], four[3])
                });
                places[count & (2 * CHUNK - 1)] = place;
                count += usize::from(goes_on);
            }
        }
        count
    }

    fn compare(&self, text: &[u8], place: usize, at: &mut impl FnMut(usize, usize, T)) {
        let Some(text) = text.get(place..) else { return };
        let seen = long_head(text);
        let Some(list) = usize::from(self.index[(hash(seen as u32) >> (32 - BITS)) as usize]).checked_sub(1) else {
            return;
        };
        for word in &self.lists[list] {
            if seen & word.mask == word.head
                && text.len() >= word.len
                && (word.rest.is_empty() || text[8..].starts_with(&word.rest))
            {
                at(place, word.len, word.meaning);
            }
        }
    }
}
