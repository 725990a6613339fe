//! Finds many words in one pass. The words are in 64 groups; for each byte there is a mask of the groups that have it as
//! the first, second, third and fourth of a word. Only where four masks in a row have a group in common, the words that
//! begin with the three bytes that stand there are compared.

/// The words and what each stands for.
pub(super) struct Words<T> {
    /// By byte, the groups with a word of which it is the first, second, third, fourth.
    masks: Box<[[u64; 4]; 256]>,
    /// What words can begin with, by bit of a hash; small enough to stay near.
    heads: Box<[u64; HEADS]>,
    /// By hash of three bytes, the index of its list and 1.
    index: Vec<u16>,
    lists: Vec<Vec<Word<T>>>,
}

struct Word<T> {
    /// Its first four bytes, as far as it has them.
    head: u32,
    /// Which of those count.
    mask: u32,
    /// What follows them.
    rest: Box<[u8]>,
    meaning: T,
}

const GROUPS: usize = 64;

/// Bits of hashes, in words.
const HEADS: usize = (1 << 16) / 64;

/// Bytes that are looked at in one go.
const CHUNK: usize = 512;

const BITS: u32 = 14;

const THREE: u32 = 0x00ff_ffff;

/// The first four bytes, zeros where there are none.
fn head(text: &[u8]) -> u32 {
    match text.first_chunk() {
        Some(four) => u32::from_le_bytes(*four),
        None => text.iter().rev().fold(0, |head, b| head << 8 | u32::from(*b)),
    }
}

/// The bit of the first bytes in `heads`.
fn bit(head: u32) -> (usize, u64) {
    let hash = head.wrapping_mul(0x85eb_ca6b) >> 16;
    (hash as usize / 64, 1 << (hash % 64))
}

/// Of the first three bytes.
fn hash(head: u32) -> usize {
    ((head & THREE).wrapping_mul(0x9e37_79b1) >> (32 - BITS)) as usize
}

impl<T: Copy> Words<T> {
    /// Words of at least three bytes.
    pub(super) fn new(words: impl IntoIterator<Item = (String, T)>) -> Self {
        let mut words: Vec<(String, T)> = words.into_iter().collect();
        // Neighbours begin alike, so that a group has few bytes in each place; those of three bytes are apart, because
        // anything can follow them.
        words.sort_by(|(a, _), (b, _)| (a.len() > 3, a).cmp(&(b.len() > 3, b)));
        let mut masks = Box::new([[0; 4]; 256]);
        let mut index = vec![0; 1 << BITS];
        let mut heads = Box::new([0; HEADS]);
        let mut lists: Vec<Vec<Word<T>>> = Vec::new();
        let size = words.len().div_ceil(GROUPS).max(1);
        for (number, (word, meaning)) in words.into_iter().enumerate() {
            let bit = 1u64 << (number / size);
            let bytes = word.as_bytes();
            for (place, b) in bytes.iter().take(4).enumerate() {
                masks[usize::from(*b)][place] |= bit;
            }
            if bytes.len() < 4 {
                masks.iter_mut().for_each(|masks| masks[3] |= bit);
            }
            let mask = if bytes.len() < 4 { THREE } else { u32::MAX };
            let head = head(bytes) & mask;
            let (place, one) = self::bit(head);
            heads[place] |= one;
            let list: &mut u16 = &mut index[hash(head)];
            if *list == 0 {
                lists.push(Vec::new());
                *list = lists.len() as u16;
            }
            lists[usize::from(*list) - 1].push(Word { head, mask, rest: bytes[bytes.len().min(4)..].into(), meaning });
        }
        Self { masks, heads, index, lists }
    }

    /// Calls `at` with the place and the length of each word in `text`, and what it stands for.
    pub(super) fn each(&self, text: &[u8], mut at: impl FnMut(usize, usize, T)) {
        let mut places = [0u16; CHUNK];
        // The groups that go on after one, two and three bytes.
        let mut state = [0; 3];
        for (number, chunk) in text.chunks(CHUNK).enumerate() {
            let count = self.begin(chunk, &mut state, &mut places);
            let count = self.keep(text, number * CHUNK, &mut places[..count]);
            for place in &places[..count] {
                // The place of the fourth byte.
                if let Some(place) = (number * CHUNK + usize::from(*place)).checked_sub(3) {
                    self.compare(text, place, &mut at);
                }
            }
        }
        // A word may be shorter than four bytes, and the last.
        if let Some(last) = text.len().checked_sub(3) {
            self.compare(text, last, &mut at);
        }
    }

    /// Where in a chunk the fourth byte of a word can stand: written to `places`, without a branch for each byte, and how
    /// many there are.
    #[inline(never)]
    fn begin(&self, chunk: &[u8], state: &mut [u64; 3], places: &mut [u16; CHUNK]) -> usize {
        let [mut one, mut two, mut three] = *state;
        let mut count = 0;
        for (place, b) in chunk.iter().enumerate().take(CHUNK) {
            let [first, second, third, fourth] = self.masks[usize::from(*b)];
            places[count & (CHUNK - 1)] = place as u16;
            count += usize::from(three & fourth != 0);
            (three, two, one) = (two & third, one & second, first);
        }
        *state = [one, two, three];
        count
    }

    /// Keeps the places, of fourth bytes behind `from`, at which the first bytes of a word can stand, again without a
    /// branch, and says how many there are.
    #[inline(never)]
    fn keep(&self, text: &[u8], from: usize, places: &mut [u16]) -> usize {
        let mut count = 0;
        for index in 0..places.len() {
            let place = places[index];
            let seen = text
                .get((from + usize::from(place)).wrapping_sub(3)..)
                .and_then(|rest| rest.first_chunk())
                .map_or(u32::MAX, |four| u32::from_le_bytes(*four));
            let begins = |head: u32| {
                let (place, one) = bit(head);
                self.heads[place] & one != 0
            };
            places[count] = place;
            count += usize::from(begins(seen) | begins(seen & THREE));
        }
        count
    }

    fn compare(&self, text: &[u8], place: usize, at: &mut impl FnMut(usize, usize, T)) {
        let text = &text[place..];
        let seen = head(text);
        let Some(list) = usize::from(self.index[hash(seen)]).checked_sub(1) else { return };
        for word in &self.lists[list] {
            let bytes = if word.mask == u32::MAX { 4 } else { 3 };
            if seen & word.mask == word.head
                && text.get(bytes..).is_some_and(|rest| word.rest.is_empty() || rest.starts_with(&word.rest))
            {
                at(place, bytes + word.rest.len(), word.meaning);
            }
        }
    }
}
