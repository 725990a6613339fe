//! What crosses the local socket, and where things live on disk.
//!
//! Shared by the hook (which must start in microseconds) and the daemon, so this crate knows no JSON, no database and no
//! clock: times and environment come in as values.
//!
//! * [`paths`]: the state directory and everything in it, computed from `HOME` by one function on both sides.
//! * [`frame`]: the body of `POST /v1/hook` and of a spool file.
//! * [`mod@env`]: which environment variables a hook forwards, and which of them are secret.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests make their own files"))]

pub mod env;
pub mod frame;
pub mod paths;

/// Request path that delivers a hook event. The answer is `204` once the event is committed.
pub const HOOK_PATH: &str = "/v1/hook";

/// Longest hook payload that is forwarded, in bytes. The rest is read and dropped: the identifying fields come first in
/// every Claude Code payload, and the conversation itself is in the transcript.
pub const MAX_PAYLOAD: usize = 1 << 20;
