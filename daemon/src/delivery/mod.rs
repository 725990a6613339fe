//! Outbox → servers. What an answer means ([`verdict`]) and what follows from it ([`policy`]) are pure; the rest does HTTP.

mod access;
mod client;
mod exchange;
pub mod exporter;
mod media;
pub mod policy;
mod proxies;
pub mod readback;
pub mod reply;
pub mod transport;
pub mod verdict;

use crate::{hook::Destination, settings::quoted};

/// What `status` and the log say of a destination that others chose, as `why` says: it gets nothing yet, and what changes that.
pub fn held(to: &Destination, why: &str) -> String {
    format!("{why}; if spans are to go there: cc-langfusectl trust {} {}", quoted(&to.base_url), quoted(&to.public_key))
}
