//! What waits to be sent, and what follows from what a server answers ([`policy`]).

pub mod item;
pub mod policy;
pub mod readback;
