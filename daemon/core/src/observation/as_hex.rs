//! Serde helpers: ids and hashes as lower-case hexadecimal.

use std::fmt;

use serde::{
    Deserializer, Serializer,
    de::{Error, Visitor},
};

use crate::ids::{from_hex, pair};

/// The longest value, in bytes.
const MAX: usize = 32;

pub(crate) fn serialize<S: Serializer, const N: usize>(bytes: &[u8; N], serializer: S) -> Result<S::Ok, S::Error> {
    const { assert!(N <= MAX) };
    let mut digits = [[0; 2]; MAX];
    digits.iter_mut().zip(bytes).for_each(|(digits, byte)| *digits = pair(*byte));
    let text = std::str::from_utf8(digits[..N].as_flattened()).map_err(serde::ser::Error::custom)?;
    serializer.serialize_str(text)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(deserializer: D) -> Result<[u8; N], D::Error> {
    struct Hex<const N: usize>;

    impl<const N: usize> Visitor<'_> for Hex<N> {
        type Value = [u8; N];

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{} hexadecimal digits", 2 * N)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<[u8; N], E> {
            from_hex(text).ok_or_else(|| E::custom("not an id"))
        }
    }

    deserializer.deserialize_str(Hex)
}

pub(crate) mod optional {
    use super::{Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer, const N: usize>(
        bytes: &Option<[u8; N]>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => super::serialize(bytes, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(
        deserializer: D,
    ) -> Result<Option<[u8; N]>, D::Error> {
        super::deserialize(deserializer).map(Some)
    }
}
