//! Outbox → servers. All HTTP to the outside is here; what an answer means is decided in `cc_core::delivery`.

mod access;
mod client;
mod connect;
mod exchange;
pub mod exporter;
mod folder;
mod link;
mod media;
mod proxies;
pub mod readback;
pub mod reply;
pub mod transport;
