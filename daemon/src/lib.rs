//! wip
pub mod credentials;
pub mod dialect;
pub mod hook;
pub mod ids;
pub mod trace;
pub mod transcript;
pub mod turn;
