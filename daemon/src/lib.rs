//! Claude Code transcripts → traces, delivered once.
//!
//! ```text
//! hook event ─► intake ─► inbox ─► engine ─► reader ─► lines ─► record ─► turn ─► observation ─► outbox ─► exporter
//!               (committed before                                                                      (gone when the
//!                the hook is answered)                                                                  server said 2xx)
//! ```
//!
//! A hook event is a reason to read; the transcript is the log. It is never copied, only a position in it is kept.
//! Where no hook event came, [`scan`] finds the session. The engine follows the session's own transcript and, by
//! [`agents`], those of its subagents, whose work joins the trace of the turn that launched them. Images go out beside
//! the spans (`delivery::media`). History comes in the same way, as events that a backfill hands over; where another
//! tool sent its beginning, `import_state` knows.
//!
//! What decides is in `cc_core`, which can do no I/O; here is what executes it. The invariants and the layers: `ARCHITECTURE.md`.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests make their own files and measure time"))]

pub mod agents;
pub mod api;
pub mod archive;
pub mod boot;
pub mod clock;
pub mod command;
pub mod config_file;
pub mod configured;
pub mod consent_files;
pub mod copies;
pub mod credentials;
pub mod delivery;
pub mod engine;
pub mod environment;
pub mod files;
pub mod first_start;
pub mod git;
pub mod import_state_file;
pub mod index;
pub mod intake;
pub mod log;
pub mod output;
pub mod reader;
pub mod rebuild;
pub mod scan;
pub mod serve;
pub mod service;
pub mod socket;
pub mod store;
pub mod telemetry;
pub mod threads;
pub mod watch;

/// Version, commit and date of these programs.
pub const VERSION: &str = env!("CC_LANGFUSE_VERSION");
