//! The pure core: Claude Code transcripts → turns → observations → the attributes that a backend reads, and every decision on
//! the way.
//!
//! Nothing in this crate reads files, network, environment or the clock, or starts threads; its dependencies cannot either.
//! Time comes in as a value.
//!
//! ```text
//! transcript::lines ─► transcript::record ─► turn ─► trace ─► observe (masked) ─► destination (a backend's attributes)
//! └──────────────────────────── pipeline ────────────────────────────┘
//! ```

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests make their own time"))]

pub mod admit;
pub mod archive;
pub mod book;
pub mod claude;
pub mod complete;
pub mod config;
pub mod consent;
pub mod delivery;
pub mod destination;
pub mod doctor;
pub mod hook;
pub mod ids;
pub mod import_state;
pub mod media;
pub mod metrics;
pub mod observation;
pub mod observe;
pub mod phase;
pub mod pipeline;
pub mod price;
pub mod project;
pub mod reconcile;
pub mod redact;
pub mod route;
pub mod score;
pub mod secret;
pub mod settings;
pub mod status;
pub mod telemetry;
pub mod trace;
pub mod transcript;
pub mod turn;
pub mod usage;
pub mod vars;
pub mod verdict;
pub mod visible;
