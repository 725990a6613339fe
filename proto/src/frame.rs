//! The body of `POST /v1/hook`, and the content of a spool file.
//!
//! ```text
//! cc-langfuse-event/1 NUL id NUL unix-nanoseconds NUL flags NUL NAME=VALUE NUL … NUL payload
//! ```
//!
//! `flags` is empty or `cut` (the payload was longer than [`MAX_PAYLOAD`](crate::MAX_PAYLOAD)). The empty field after the
//! last variable ends the head; the payload is Claude Code's JSON, byte for byte. Environment variables cannot contain
//! NUL, so nothing needs escaping.
//!
//! Hook and daemon may be of different versions. A daemon refuses a version it does not know; the hook then spools the
//! frame, and it stays there until a daemon knows the version. So a later version must change the first field, and a
//! reader may rely on nothing else.

use crate::env;

/// How the first field of every version starts.
const NAME: &str = "cc-langfuse-event/";

const MAGIC: &str = "cc-langfuse-event/1";

/// One hook event in transit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Unique per event; a frame that was both accepted and spooled counts once.
    pub id: String,
    /// When the hook ran, in nanoseconds since the Unix epoch.
    pub fired_ns: u64,
    /// The payload was cut at [`MAX_PAYLOAD`](crate::MAX_PAYLOAD).
    pub cut: bool,
    /// Forwarded environment, see [`env::forwarded`].
    pub env: Vec<(String, String)>,
    /// What Claude Code wrote to the hook's stdin.
    pub payload: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// A frame of another version, which a program of that version can read.
    UnknownVersion,
    /// Not a frame, or one whose head has no end or an invalid field.
    Malformed,
}

impl std::fmt::Display for FrameError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::UnknownVersion => "unknown frame version",
            Self::Malformed => "malformed frame",
        })
    }
}

impl std::error::Error for FrameError {}

impl Frame {
    /// The frame as bytes, secrets included: for the socket only.
    pub fn encode(&self) -> Vec<u8> {
        self.encode_with(|_, value| Some(value.to_owned()))
    }

    /// The frame as bytes that may be written to disk: no secret key, no credentials inside URLs.
    pub fn encode_for_disk(&self) -> Vec<u8> {
        self.encode_with(|name, value| {
            // Only an address can have credentials before an `@`; a user id or a name may contain one.
            let is_address = env::is_address(name) || value.contains("://");
            let whole = || if is_address { env::without_userinfo(value) } else { value.to_owned() };
            (!env::is_kept_in_memory(name)).then(whole)
        })
    }

    fn encode_with(&self, keep: impl Fn(&str, &str) -> Option<String>) -> Vec<u8> {
        let flags = if self.cut { "cut" } else { "" };
        let mut out = Vec::with_capacity(self.payload.len() + 1024);
        out.extend_from_slice(format!("{MAGIC}\0{}\0{}\0{flags}\0", self.id, self.fired_ns).as_bytes());
        for (name, value) in &self.env {
            if let Some(value) = keep(name, value) {
                out.extend_from_slice(format!("{name}={value}\0").as_bytes());
            }
        }
        out.push(0);
        out.extend_from_slice(&self.payload);
        out
    }

    /// Reads what [`encode`](Self::encode) or [`encode_for_disk`](Self::encode_for_disk) wrote.
    ///
    /// # Errors
    /// [`FrameError`] if `bytes` is something else; never panics.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let mut rest = bytes;
        let mut field = || -> Option<&[u8]> {
            let end = rest.iter().position(|b| *b == 0)?;
            let (head, tail) = rest.split_at(end);
            rest = &tail[1..];
            Some(head)
        };
        match field() {
            Some(first) if first == MAGIC.as_bytes() => {}
            Some(first) if first.starts_with(NAME.as_bytes()) => return Err(FrameError::UnknownVersion),
            _ => return Err(FrameError::Malformed),
        }
        let mut text = || field().and_then(|f| std::str::from_utf8(f).ok()).ok_or(FrameError::Malformed);
        let id = text()?.to_owned();
        let fired_ns = text()?.parse().map_err(|_| FrameError::Malformed)?;
        let cut = text()? == "cut";
        if id.is_empty() || id.len() > 64 {
            return Err(FrameError::Malformed);
        }
        let mut env = Vec::new();
        loop {
            let entry = text()?;
            if entry.is_empty() {
                break;
            }
            let (name, value) = entry.split_once('=').ok_or(FrameError::Malformed)?;
            env.push((name.to_owned(), value.to_owned()));
        }
        Ok(Self { id, fired_ns, cut, env, payload: rest.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> Frame {
        Frame {
            id: "1f-2a".into(),
            fired_ns: 1_795_204_729_201_000_000,
            cut: false,
            env: vec![
                ("LANGFUSE_SECRET_KEY".into(), "sk-lf-x".into()),
                ("LANGFUSE_BASE_URL".into(), "https://u:p@h=1/\n".into()),
            ],
            payload: b"{\"a\":\"\0\"}".to_vec(),
        }
    }

    #[test]
    fn decode_returns_the_frame_that_was_encoded() {
        assert_eq!(Frame::decode(&frame().encode()), Ok(frame()));
        let cut = Frame { cut: true, env: vec![], payload: vec![], ..frame() };
        assert_eq!(Frame::decode(&cut.encode()), Ok(cut));
    }

    #[test]
    fn the_form_for_disk_contains_no_secret() {
        let bytes = frame().encode_for_disk();
        assert_eq!(
            Frame::decode(&bytes).map(|f| f.env),
            Ok(vec![("LANGFUSE_BASE_URL".into(), "https://h=1/\n".into())])
        );
    }

    #[test]
    fn bytes_that_are_no_frame_are_refused() {
        for (bytes, expect) in [
            (&b""[..], FrameError::Malformed),
            (b"{}", FrameError::Malformed),
            (b"cc-langfuse-event/1", FrameError::Malformed),
            (b"cc-langfuse-event/\0", FrameError::UnknownVersion),
            (b"cc-langfuse-event/2\0a\x001\0\0\0", FrameError::UnknownVersion),
            (b"cc-langfuse-event/1\0a\x001\0\0A=B\0", FrameError::Malformed),
            (b"cc-langfuse-event/1\0a\0x\0\0\0", FrameError::Malformed),
            (b"cc-langfuse-event/1\0\x001\0\0\0", FrameError::Malformed),
            (b"cc-langfuse-event/1\0a\x001\0\0AB\0\0", FrameError::Malformed),
        ] {
            assert_eq!(Frame::decode(bytes), Err(expect), "{bytes:?}");
        }
    }
}
