//! Transcript bytes → lines → records. Knows the file format of Claude Code and nothing of sessions, turns or spans.

pub mod cursor;
pub mod lines;
pub mod places;
pub mod reader;
pub mod record;
pub(crate) mod wire;
