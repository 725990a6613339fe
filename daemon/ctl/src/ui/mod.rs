//! Everything a person sees and is asked: tables, trees, bars, the whole screen. Printing goes through
//! [`cc_langfuse::output`], which makes text from outside safe to show.

pub(crate) mod amount;
pub(crate) mod diff;
pub(crate) mod progress;
pub(crate) mod screen;
pub(crate) mod table;
pub(crate) mod terminal;
pub(crate) mod tree;
