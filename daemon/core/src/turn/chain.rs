//! Which turn each line belongs to, where a session is written to from more than one place.
//!
//! Two terminals that have resumed one session write into one file. Each line names the one it follows; file order says nothing.

use std::collections::VecDeque;

use super::hash::{ByHash, hash};

/// How many lines are remembered. Lines follow one another closely, so that a few would do for nearly all.
const MAX_LINES: usize = 1024;

/// A line and the one it follows, as hashes of their `uuid`s; lines beside the conversation have neither.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    uuid: Option<u64>,
    parent: Option<u64>,
}

impl Link {
    /// Of a line with these fields.
    pub(super) fn new(uuid: Option<&str>, parent: Option<&str>) -> Self {
        let filled = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(hash);
        Self { uuid: filled(uuid), parent: filled(parent) }
    }
}

/// The latest lines of a session, each with the serial number of its turn.
#[derive(Debug, Default)]
pub(super) struct Chain {
    turns: ByHash<u32>,
    order: VecDeque<u64>,
}

impl Chain {
    /// The turn of the line that this one follows, as far as it is known.
    pub(super) fn home(&self, link: &Link) -> Option<u32> {
        self.turns.get(&link.parent?).copied()
    }

    /// The line belongs to this turn.
    pub(super) fn put(&mut self, link: &Link, turn: u32) {
        let Some(line) = link.uuid else { return };
        if self.turns.insert(line, turn).is_none() {
            if self.order.len() == MAX_LINES
                && let Some(oldest) = self.order.pop_front()
            {
                self.turns.remove(&oldest);
            }
            self.order.push_back(line);
        }
    }
}
