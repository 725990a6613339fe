//! Finds many words in one pass: a set of the first three bytes of each says at which places the words that begin so are
//! compared at all.

/// The words and what each stands for.
pub(super) struct Words<T> {
    /// Which hashes of three bytes begin a word, by bit.
    set: Vec<u64>,
    /// By hash, the index of its list and 1.
    index: Vec<u16>,
    lists: Vec<List<T>>,
}

/// The words whose first three bytes have one hash.
struct List<T> {
    /// What their fourth byte may be, by its last six bits.
    fourth: u64,
    words: Vec<(Box<[u8]>, T)>,
}

const BITS: u32 = 16;

const SET: usize = (1 << BITS) / 64;

/// Bytes that are looked at in one go.
const CHUNK: usize = 512;

fn hash(three: u32) -> usize {
    (three.wrapping_mul(0x9e37_79b1) >> (32 - BITS)) as usize
}

impl<T: Copy> Words<T> {
    /// Words of at least three bytes.
    pub(super) fn new(words: impl IntoIterator<Item = (String, T)>) -> Self {
        let mut all = Self { set: vec![0; SET], index: vec![0; 1 << BITS], lists: Vec::new() };
        for (word, meaning) in words {
            let three = word.as_bytes()[..3].iter().rev().fold(0, |three, b| three << 8 | u32::from(*b));
            let hash = hash(three);
            all.set[hash / 64] |= 1 << (hash % 64);
            if all.index[hash] == 0 {
                all.lists.push(List { fourth: 0, words: Vec::new() });
                all.index[hash] = all.lists.len() as u16;
            }
            let list = &mut all.lists[usize::from(all.index[hash]) - 1];
            list.fourth |= word.as_bytes().get(3).map_or(u64::MAX, |b| 1 << (b & 63));
            list.words.push((word.into_bytes().into(), meaning));
        }
        all
    }

    /// Calls `at` with the place and the length of each word in `text`, and what it stands for.
    pub(super) fn each(&self, text: &[u8], mut at: impl FnMut(usize, usize, T)) {
        let Some((head, rest)) = text.split_first_chunk::<2>() else { return };
        let mut three = u32::from(head[0]) << 8 | u32::from(head[1]) << 16;
        let mut places = [0u16; CHUNK];
        for (number, chunk) in rest.chunks(CHUNK).enumerate() {
            let count = self.begin(chunk, &mut three, &mut places);
            for place in &places[..count] {
                let place = number * CHUNK + usize::from(*place);
                let hash =
                    hash(u32::from(text[place]) | u32::from(text[place + 1]) << 8 | u32::from(text[place + 2]) << 16);
                let list = &self.lists[usize::from(self.index[hash]) - 1];
                let fourth = text.get(place + 3).copied().unwrap_or_default();
                if list.fourth >> (fourth & 63) & 1 != 0 {
                    list.each(&text[place..], |len, meaning| at(place, len, meaning));
                }
            }
        }
    }

    /// Where in a chunk words can begin: written to `places`, without a branch for each byte, and how many there are.
    #[inline(never)]
    fn begin(&self, chunk: &[u8], three: &mut u32, places: &mut [u16; CHUNK]) -> usize {
        let set: &[u64; SET] = self.set.as_slice().try_into().expect("a set of this size");
        let (mut count, mut last) = (0, *three);
        for (place, b) in chunk.iter().enumerate().take(CHUNK) {
            last = last >> 8 | u32::from(*b) << 16;
            let hash = hash(last);
            places[count & (CHUNK - 1)] = place as u16;
            count += (set[(hash / 64) & (SET - 1)] >> (hash % 64) & 1) as usize;
        }
        *three = last;
        count
    }
}

impl<T: Copy> List<T> {
    #[inline(never)]
    fn each(&self, rest: &[u8], mut at: impl FnMut(usize, T)) {
        for (word, meaning) in &self.words {
            // Shorter than a call of a library is worth.
            if rest.len() >= word.len() && rest.iter().zip(word).all(|(a, b)| a == b) {
                at(word.len(), *meaning);
            }
        }
    }
}
