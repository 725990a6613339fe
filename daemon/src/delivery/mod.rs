//! Outbox → servers. What an answer means ([`verdict`]) and what follows from it ([`policy`]) are pure; the rest does HTTP.

pub mod exporter;
pub mod policy;
pub mod transport;
pub mod verdict;
