//! What waits to be sent ([`item`]), and what follows from a server's answer ([`policy`]). No HTTP, no database.

pub mod item;
pub mod policy;
pub mod readback;
