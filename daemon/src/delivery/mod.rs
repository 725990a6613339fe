//! Outbox → servers. All outgoing HTTP is here; `cc_core` decides which requests to make and what an answer means.

mod client;
mod connect;
pub mod erase;
mod exchange;
mod failure;
mod folder;
pub mod forward;
mod gzip;
mod keyring;
mod link;
mod media;
mod proxies;
pub mod readback;
pub mod reply;
mod scores;
mod spans;
pub mod supervisor;
mod tls;
pub mod transport;
mod worker;
