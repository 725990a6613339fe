//! Outbox → servers. What an answer means ([`verdict`]) and what follows from it ([`policy`]) are pure; the rest does HTTP.

mod access;
pub mod exporter;
mod media;
pub mod policy;
pub mod readback;
pub mod transport;
pub mod verdict;
