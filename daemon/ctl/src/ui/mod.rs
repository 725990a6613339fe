//! All that a person sees and is asked: tables, trees, bars, the whole screen. What is printed goes through
//! [`cc_langfuse::output`], which makes the text of strangers visible.

pub mod amount;
pub mod diff;
pub mod progress;
pub mod screen;
pub mod table;
pub mod terminal;
pub mod tree;
