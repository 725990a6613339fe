//! The position at which reading a transcript continues, and how to tell that it is still valid.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// How many bytes before a position its marker covers at most.
pub const MARKED: usize = 64;

/// The identity of a file on this machine. It survives a rename; a new file under the old name has another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub dev: u64,
    pub ino: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    pub identity: Identity,
    /// In bytes.
    pub offset: u64,
    /// [`marker`] of the bytes before it; `None` if none was stored.
    pub marker: Option<u64>,
}

/// A fingerprint of the bytes before a position. It shows that a file was rewritten even if identity and length did not change.
pub fn marker(before: &[u8]) -> u64 {
    let digest = Sha256::digest(&before[before.len().saturating_sub(MARKED)..]);
    u64::from_le_bytes(digest[..8].try_into().unwrap_or_default())
}

impl Position {
    /// True if reading can continue here in the file `identity` of `length` bytes, in which `before` precedes the position
    /// (`None` if it cannot be read). Otherwise reading starts again from the beginning; what was sent is recognised by its
    /// ids.
    ///
    /// Not detected: a file rewritten to at least the same length with the same bytes before the position.
    pub fn holds(&self, identity: Identity, length: u64, before: Option<&[u8]>) -> bool {
        self.identity == identity
            && self.offset <= length
            && self.marker.is_none_or(|noted| before.is_some_and(|before| marker(before) == noted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FILE: Identity = Identity { dev: 1, ino: 2 };

    fn noted(file: &[u8], offset: usize) -> Position {
        Position { identity: FILE, offset: offset as u64, marker: Some(marker(&file[..offset])) }
    }

    fn holds(position: &Position, identity: Identity, file: &[u8]) -> bool {
        let before = usize::try_from(position.offset).ok().and_then(|offset| file.get(..offset));
        position.holds(identity, file.len() as u64, before)
    }

    #[test]
    fn reading_continues_only_in_the_same_file() {
        let file = b"one\ntwo\nthree\n";
        let position = noted(file, 8);
        let other = Identity { ino: 3, ..FILE };
        for (identity, file, expect, what) in [
            (FILE, &file[..], true, "the same"),
            (FILE, b"one\ntwo\nthree\nfour\n", true, "grown"),
            (FILE, b"one\ntwo\n", true, "cut off behind the position"),
            (FILE, b"one\ntwo", false, "truncated"),
            (FILE, b"", false, "emptied"),
            (FILE, b"one\nTWO\nthree\n", false, "rewritten, same length"),
            (FILE, b"another file, longer than the first\n", false, "rewritten, longer"),
            (other, file, false, "replaced"),
        ] {
            assert_eq!(holds(&position, identity, file), expect, "{what}");
        }
        assert!(Position { marker: None, ..position }.holds(FILE, 100, None), "noted without a marker");
        assert!(!position.holds(FILE, 100, None), "unreadable");
    }

    proptest! {
        #[test]
        fn reading_continues_in_a_grown_file_but_not_in_a_rewritten_one(
            file in proptest::collection::vec(any::<u8>(), 1..300),
            more in proptest::collection::vec(any::<u8>(), 0..100),
            at in any::<prop::sample::Index>(),
            changed in any::<prop::sample::Index>(),
        ) {
            let offset = at.index(file.len() + 1);
            let position = noted(&file, offset);
            prop_assert!(holds(&position, FILE, &[&file[..], &more[..]].concat()));
            prop_assert!(offset == 0 || !holds(&position, FILE, &file[..offset - 1]));
            if offset > 0 {
                let mut other = file.clone();
                other[offset - 1 - changed.index(offset.min(MARKED))] ^= 1;
                prop_assert!(!holds(&position, FILE, &other));
            }
        }
    }
}
