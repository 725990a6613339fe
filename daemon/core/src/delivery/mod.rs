//! What a server's answer means ([`verdict`]) and what follows from it ([`policy`]).

pub mod item;
pub mod policy;
pub mod readback;
pub mod verdict;
