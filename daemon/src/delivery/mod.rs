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
