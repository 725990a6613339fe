//! Claude Code transcripts → traces, delivered once.
//!
//! ```text
//! hook event ─► intake ─► inbox ─► engine ─► reader ─► lines ─► record ─► turn ─► trace ─► dialect, redact ─► outbox ─► exporter
//!               (committed before                                                                      (gone when the
//!                the hook is answered)                                                                  server said 2xx)
//! ```
//!
//! A hook event is a hint; the transcript is the log. It is never copied, only a position in it is kept. Where no hook told,
//! [`scan`] finds the session. The engine follows the session's own transcript and, by [`agents`], those of its subagents, whose
//! work joins the trace of the turn that launched them. Images go out beside the spans (`delivery::media`). History
//! comes in the same way, as events that a backfill hands over; where another tool sent its beginning, `import_state` knows.
//!
//! # Invariants
//!
//! 1. What decides is in `cc_core`, which can do no I/O; here is what executes it.
//! 2. Only [`store`] contains SQL; only [`delivery`] does HTTP out; only [`reader`] opens transcripts.
//! 3. A cursor moves only in the transaction that stores what it passed over; a span id enters the outbox of a destination
//!    at most once, except a root, which enters again with news below it. What is said while its project is paused, or
//!    forgotten, enters none.
//! 4. A 2xx to a hook means committed.
//! 5. Ids and start times depend on transcript content only.
//! 6. No secret value can be printed or serialised, and none is written: not to the database, spool, log or a core.
//! 7. Data is dropped only into `dead_letter`, counted and visible.
//! 8. The hook exits 0 and writes nothing to stdout or stderr, whatever happens.

pub mod agents;
pub mod api;
pub mod begun;
pub mod boot;
pub mod clock;
pub mod config_file;
pub mod consent_files;
pub mod copies;
pub mod credentials;
pub mod delivery;
pub mod engine;
pub mod files;
pub mod git;
pub mod import_state_file;
pub mod intake;
pub mod log;
pub mod offline;
pub mod output;
pub mod reader;
pub mod scan;
pub mod serve;
pub mod service;
pub mod socket;
pub mod store;
pub mod watch;

/// Version, commit and date of these programs.
pub const VERSION: &str = env!("CC_LANGFUSE_VERSION");
