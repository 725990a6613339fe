//! Images and documents in a conversation: base64 → bytes, type and hash.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use sha2::{Digest, Sha256};

/// Larger ones are not uploaded, only named with their size; in bytes.
pub const MAX_BYTES: usize = 20 << 20;

/// The types that Claude accepts.
const KINDS: [&str; 5] = ["image/png", "image/jpeg", "image/gif", "image/webp", "application/pdf"];

/// The type for a file name, if it is one of these.
pub fn kind_of(name: &str) -> Option<&'static str> {
    let (_, extension) = name.rsplit_once('.')?;
    match extension.to_ascii_lowercase().as_str() {
        "png" => Some("image/png"),
        "jpg" | "jpeg" => Some("image/jpeg"),
        "gif" => Some("image/gif"),
        "webp" => Some("image/webp"),
        "pdf" => Some("application/pdf"),
        _ => None,
    }
}

/// SHA-256 of the bytes.
pub type Hash = [u8; 32];

/// An image or a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Media {
    /// Media type.
    pub kind: &'static str,
    /// Its offset in the text it came with, in bytes.
    pub at: usize,
    /// SHA-256 of the bytes.
    pub hash: Hash,
    /// In bytes.
    pub length: usize,
    /// Empty once they are stored.
    pub bytes: Bytes,
}

impl Media {
    /// Decodes base64 `data`; `None` if it is invalid, empty, too large or of another type.
    pub fn decode(kind: &str, data: &str, at: usize) -> Option<Self> {
        let fits = data.len() / 4 * 3 <= MAX_BYTES + 2;
        Self::new(kind, fits.then(|| STANDARD.decode(data).ok()).flatten()?, at)
    }

    /// `None` if there are no bytes, too many, or of another type.
    pub fn new(kind: &str, bytes: Vec<u8>, at: usize) -> Option<Self> {
        let kind = KINDS.into_iter().find(|known| *known == kind)?;
        let hash = Sha256::digest(&bytes).into();
        (1..=MAX_BYTES).contains(&bytes.len()).then(|| Self {
            kind,
            at,
            hash,
            length: bytes.len(),
            bytes: bytes.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_unsupported_and_too_large_media_are_refused() {
        let decode = |kind: &str, data: &str| Media::decode(kind, data, 7);
        let media = decode("image/png", "QUJDRA==").unwrap();
        assert_eq!((media.at, &media.bytes[..], media.length), (7, &b"ABCD"[..], 4));
        for (kind, data) in [
            ("image/png", ""),
            ("image/png", "QUJDRA"),
            ("image/png", "QUJD RA=="),
            ("image/png", "data:image/png;base64,QUJDRA=="),
            ("", "QUJDRA=="),
            ("image/bmp", "QUJDRA=="),
            ("text/html", "QUJDRA=="),
        ] {
            assert_eq!(decode(kind, data), None, "{kind} {data}");
        }
        let encoded = |length: usize| STANDARD.encode(vec![0; length]);
        assert_eq!(decode("application/pdf", &encoded(MAX_BYTES)).map(|media| media.length), Some(MAX_BYTES));
        assert_eq!(decode("application/pdf", &encoded(MAX_BYTES + 1)), None);
    }
}
