//! Transcript bytes → lines → records. Knows the file format of Claude Code and nothing of sessions, turns or spans.

pub mod cursor;
pub mod lines;
pub mod record;
pub mod wire;

/// True if `id` is safe as a file name. Ids come from transcripts, which others can write.
pub fn is_name(id: &str) -> bool {
    !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}
