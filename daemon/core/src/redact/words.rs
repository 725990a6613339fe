//! Finds many words in one pass. It checks every second position: the two bytes there decide which third byte can
//! continue a word that begins there or one byte earlier. Where it matches, three bytes and the fourth are checked the
//! same way, then the bytes after and before; only where all of that matches are the words that begin with the three
//! bytes compared.
//!
//! None of these steps branches per position: what is rare in one text is common in the next, and a wrong branch
//! prediction costs more than the step.

/// A word to find, of at least three bytes.
pub(super) struct Entry<T> {
    pub(super) word: String,
    /// Whether it counts only at the start of a word.
    pub(super) starts: bool,
    /// What may follow it, byte by byte; any byte is allowed after the end of this list.
    pub(super) follows: Vec<Bytes>,
    pub(super) meaning: T,
}

/// A set of bytes, by their last six bits.
#[derive(Clone, Copy)]
pub(super) struct Bytes(u64);

impl Bytes {
    const ALL: Self = Self(u64::MAX);

    pub(super) fn of(has: impl Fn(u8) -> bool) -> Self {
        Self((0..=u8::MAX).filter(|b| has(*b)).fold(0, |set, b| set | Self::from(b).0))
    }

    pub(super) fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn has(self, b: u8) -> bool {
        self.0 >> (b & 63) & 1 != 0
    }
}

impl From<u8> for Bytes {
    fn from(b: u8) -> Self {
        Self(1 << (b & 63))
    }
}

/// The words, each with the value it stands for.
pub(super) struct Words<T> {
    /// By hash of the first and second or second and third bytes of words, the bytes that follow. Small enough for the
    /// processor's cache.
    pairs: Box<[Bytes; PAIRS]>,
    /// By hash of the first three bytes of words, the bytes that follow.
    heads: Box<[Bytes; HEADS]>,
    /// By hash of three bytes, the index in `lists` of the words that begin with them.
    index: Box<[u16; HEADS]>,
    /// The first list is empty.
    lists: Vec<List<T>>,
}

struct List<T> {
    /// The possible fifth to seventh bytes.
    next: [Bytes; 3],
    /// Whether all of them count only at the start of a word.
    starts: bool,
    words: Vec<Word<T>>,
}

struct Word<T> {
    /// Its first eight bytes, or all if there are fewer.
    head: u64,
    /// Which bits of `head` count.
    mask: u64,
    len: usize,
    /// The bytes after the first eight.
    rest: Box<[u8]>,
    meaning: T,
}

const PAIR_BITS: u32 = 12;

const PAIRS: usize = 1 << PAIR_BITS;

const HEAD_BITS: u32 = 11;

const HEADS: usize = 1 << HEAD_BITS;

/// Pairs of bytes processed in one go.
const CHUNK: usize = 256;

/// The same for a short text, where clearing a larger buffer would take longer than the search.
const SHORT: usize = 32;

const SPREAD: u32 = 0x9e37_79b1;

/// The hash of two bytes.
fn pair(two: [u8; 2]) -> usize {
    (u32::from(u16::from_le_bytes(two)).wrapping_mul(SPREAD) >> (32 - PAIR_BITS)) as usize
}

/// The first eight bytes, padded with zeros.
fn head(text: &[u8]) -> u64 {
    match text.first_chunk() {
        Some(eight) => u64::from_le_bytes(*eight),
        None => text.iter().rev().fold(0, |head, b| head << 8 | u64::from(*b)),
    }
}

/// The hash of the first three of four bytes.
fn hash(head: u32) -> usize {
    ((head << 8).wrapping_mul(SPREAD) >> (32 - HEAD_BITS)) as usize
}

/// Whether a byte is part of a word.
const WORDLY: [bool; 256] = {
    let mut wordly = [false; 256];
    let mut b = 0;
    while b < 128 {
        wordly[b] = (b as u8).is_ascii_alphanumeric() || b as u8 == b'_';
        b += 1;
    }
    wordly
};

/// Whether a word may begin after three bytes; also after a possible escape.
fn may_start(before: &[u8; 3]) -> bool {
    !WORDLY[usize::from(before[2])] | (before[1] == b'\\') | (before[0] == b'%')
}

impl<T: Copy> Words<T> {
    pub(super) fn new(words: impl IntoIterator<Item = Entry<T>>) -> Self {
        let mut entries: Vec<Entry<T>> = words.into_iter().collect();
        // The order in which words at the same position are reported.
        entries.sort_by(|a, b| (a.word.len() > 3, &a.word).cmp(&(b.word.len() > 3, &b.word)));
        let mut pairs = Box::new([Bytes(0); PAIRS]);
        let mut heads = Box::new([Bytes(0); HEADS]);
        let mut index = Box::new([0; HEADS]);
        let mut lists = vec![List { next: [Bytes(0); 3], starts: true, words: Vec::new() }];
        for Entry { word, starts, follows, meaning } in entries {
            let bytes = word.as_bytes();
            let place = |at: usize| match bytes.get(at) {
                Some(b) => Bytes::from(*b),
                None => follows.get(at - bytes.len()).copied().unwrap_or(Bytes::ALL),
            };
            let add = |set: &mut Bytes, at: usize| *set = set.or(place(at));
            let hash = hash(head(bytes) as u32);
            add(&mut pairs[pair([bytes[0], bytes[1]])], 2);
            add(&mut pairs[pair([bytes[1], bytes[2]])], 3);
            add(&mut heads[hash], 3);
            if index[hash] == 0 {
                index[hash] = lists.len() as u16;
                lists.push(List { next: [Bytes(0); 3], starts: true, words: Vec::new() });
            }
            let list = &mut lists[usize::from(index[hash])];
            list.starts &= starts;
            list.next.iter_mut().zip(4..).for_each(|(set, at)| add(set, at));
            list.words.push(Word {
                head: head(bytes),
                mask: u64::MAX >> (64 - 8 * bytes.len().min(8)),
                len: bytes.len(),
                rest: bytes[bytes.len().min(8)..].into(),
                meaning,
            });
        }
        Self { pairs, heads, index, lists }
    }

    /// Calls `at` with the position, the length and the value of each word in `text`. May include words
    /// that do not count.
    pub(super) fn each(&self, text: &[u8], mut at: impl FnMut(usize, usize, T)) {
        if text.len() <= 2 * SHORT {
            self.each_of::<SHORT>(text, &mut at);
        } else {
            self.each_of::<CHUNK>(text, &mut at);
        }
    }

    fn each_of<const CHUNK: usize>(&self, text: &[u8], at: &mut impl FnMut(usize, usize, T)) {
        let mut found = [0u16; CHUNK];
        let mut places = [[0u16; 2]; CHUNK];
        let places = places.as_flattened_mut();
        let (pairs, _) = text.as_chunks();
        let mut follows = Bytes(0);
        for (number, chunk) in pairs.chunks(CHUNK).enumerate() {
            let from = number * 2 * CHUNK;
            let count = self.begin(chunk, &mut follows, &mut found);
            let count = self.keep(text, from, &found[..count], places);
            let count = self.sift(text, from, &mut places[..count]);
            for place in &places[..count] {
                self.compare(text, (from + usize::from(*place)).wrapping_sub(3), at);
            }
        }
        // The bytes that may follow the last pair have not been checked yet.
        for place in (2 * pairs.len()).saturating_sub(3)..text.len().saturating_sub(2) {
            if self.index[hash(head(&text[place..]) as u32)] != 0 {
                self.compare(text, place, at);
            }
        }
    }

    /// Finds the pairs in a chunk that can continue a word: writes their numbers to `found` and returns how many there
    /// are. `follows` is the set of bytes that may follow the last pair.
    #[inline(never)]
    fn begin<const CHUNK: usize>(&self, chunk: &[[u8; 2]], follows: &mut Bytes, found: &mut [u16; CHUNK]) -> usize {
        let mut set = *follows;
        let mut count = 0;
        for (number, two) in chunk.iter().enumerate() {
            found[count & (CHUNK - 1)] = number as u16;
            count += usize::from(set.has(two[0]));
            set = self.pairs[pair(*two)];
        }
        *follows = set;
        count
    }

    /// Records where words can begin: before the pairs that were found.
    #[inline(never)]
    fn keep(&self, text: &[u8], from: usize, found: &[u16], places: &mut [u16]) -> usize {
        let mut count = 0;
        let places = &mut places[..2 * found.len()];
        for number in found {
            // The last of the three bytes that were checked.
            let last = 2 * *number;
            // A word that begins one byte earlier, and one that begins with these bytes.
            let [early, late] =
                match text.get((from + usize::from(last)).wrapping_sub(3)..).and_then(<[u8]>::first_chunk) {
                    Some([a, b, c, d, e]) => {
                        let goes_on = |four: [u8; 4]| self.heads[hash(u32::from_le_bytes(four))].has(four[3]);
                        [goes_on([*a, *b, *c, *d]), goes_on([*b, *c, *d, *e])]
                    }
                    None => [true, true],
                };
            places[count] = last;
            count += usize::from(early);
            places[count] = last + 1;
            count += usize::from(late);
        }
        count
    }

    /// Keeps the positions where a word can be, judged by what is after and before its first four bytes.
    #[inline(never)]
    fn sift(&self, text: &[u8], from: usize, places: &mut [u16]) -> usize {
        let mut count = 0;
        for index in 0..places.len() {
            let place = places[index];
            let around = text.get((from + usize::from(place)).wrapping_sub(6)..).and_then(<[u8]>::first_chunk);
            let fits = around.is_none_or(|[a, b, c, d, e, f, g, h, i, j]: &[u8; 10]| {
                let list = &self.lists[usize::from(self.index[hash(u32::from_le_bytes([*d, *e, *f, *g]))])];
                let [fifth, sixth, seventh] = list.next;
                fifth.has(*h) & sixth.has(*i) & seventh.has(*j) & (!list.starts | may_start(&[*a, *b, *c]))
            });
            places[count] = place;
            count += usize::from(fits);
        }
        count
    }

    fn compare(&self, text: &[u8], place: usize, at: &mut impl FnMut(usize, usize, T)) {
        let Some(text) = text.get(place..) else { return };
        let seen = head(text);
        for word in &self.lists[usize::from(self.index[hash(seen as u32)])].words {
            if seen & word.mask == word.head
                && text.len() >= word.len
                && (word.rest.is_empty() || text[8..].starts_with(&word.rest))
            {
                at(place, word.len, word.meaning);
            }
        }
    }
}
