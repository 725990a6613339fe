//! Outbox → servers. All HTTP to the outside is here; which requests are made and what an answer means is decided in
//! `cc_core`.

mod client;
mod connect;
pub mod erase;
mod exchange;
mod folder;
mod gzip;
mod keyring;
mod link;
mod media;
mod proxies;
pub mod readback;
pub mod reply;
mod spans;
pub mod supervisor;
mod tls;
pub mod transport;
mod worker;
