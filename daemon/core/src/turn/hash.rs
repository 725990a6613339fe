//! Hashes that recognise lines, blocks and calls: fast, and the same in every build.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasherDefault, Hash, Hasher},
};

/// A map keyed by such hashes.
pub(super) type ByHash<V> = HashMap<u64, V, BuildHasherDefault<Quick>>;

pub(crate) type Hashes = HashSet<u64, BuildHasherDefault<Quick>>;

/// A map keyed by ids of the conversation.
pub(super) type ById<V> = HashMap<String, V, BuildHasherDefault<Quick>>;

/// Multiplies eight bytes at a time to 128 bits and combines the halves. Not collision-resistant, which would gain nobody
/// anything: the ids are those of the user's own conversation.
#[derive(Clone)]
pub(crate) struct Quick(u64);

/// An odd number with half of its bits set.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

impl Default for Quick {
    fn default() -> Self {
        Self(0x243f_6a88_85a3_08d3)
    }
}

impl Hasher for Quick {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.write_u64(u64::from_le_bytes(*word)));
        let last = rest.iter().rev().fold(0, |last, byte| last << 8 | u64::from(*byte));
        // Includes the length, so that trailing zeros count.
        self.write_u64(last | (rest.len() as u64) << 56);
    }

    fn write_u8(&mut self, byte: u8) {
        self.write_u64(byte.into());
    }

    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * u128::from(FACTOR);
        self.0 = (product as u64 ^ (product >> 64) as u64).wrapping_add(FACTOR);
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

pub(crate) fn hash(value: impl Hash) -> u64 {
    let mut hasher = Quick::default();
    value.hash(&mut hasher);
    hasher.finish()
}

/// The hash of `texts`. It is stored, so it must not change.
pub(super) fn stable(texts: &[&str]) -> u64 {
    let mut hasher = Quick::default();
    for text in texts {
        hasher.write_u64(text.len() as u64);
        hasher.write(text.as_bytes());
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn stored_hashes_never_change() {
        assert_eq!(stable(&[]), 0x243f_6a88_85a3_08d3);
        assert_eq!(stable(&["text", "", "Hello, world"]), 15_477_837_971_015_473_827);
    }

    #[test]
    fn counted_ids_and_short_texts_do_not_collide() {
        let ids = (0..100_000).map(|n| format!("msg_{n}"));
        let uuids = (0..100_000).map(|n| format!("00000000-0000-4000-8000-{n:012}"));
        let zeros = (0..64).map(|n| "\0".repeat(n));
        let all: Vec<String> = ids.chain(uuids).chain(zeros).collect();
        let hashes: Hashes = all.iter().map(hash).collect();
        assert_eq!(hashes.len(), all.len());
        let low: HashSet<u64> = hashes.iter().map(|hash| hash % 1024).collect();
        assert_eq!(low.len(), 1024, "the low bits tell them apart as well");
    }

    proptest! {
        #[test]
        fn the_hash_depends_on_every_byte(text in "[a-z0-9-]{1,80}", at: prop::sample::Index, byte in b'A'..=b'Z') {
            let mut other = text.clone().into_bytes();
            let at = at.index(other.len());
            other[at] = byte;
            let other = String::from_utf8(other).expect("ASCII");
            prop_assert_ne!(hash(&text), hash(&other));
            prop_assert_ne!(stable(&[&text]), stable(&[&other]));
        }

        #[test]
        fn the_hash_depends_on_text_boundaries(left in "[a-z]{0,20}", middle in "[a-z]{1,20}", right in "[a-z]{0,20}") {
            let (front, back) = (format!("{left}{middle}"), format!("{middle}{right}"));
            prop_assert_ne!(stable(&[&front, &right]), stable(&[&left, &back]));
        }
    }
}
