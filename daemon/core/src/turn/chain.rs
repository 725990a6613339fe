//! Which turn each line belongs to when several terminals write to one session.
//!
//! Two terminals that have resumed the same session write into one file. Each line names the one it follows; the order in the
//! file says nothing.

use std::collections::VecDeque;

use super::hash::{ByHash, hash};

/// How many lines are remembered. Nearly all lines follow one that is a few lines above.
const MAX_LINES: usize = 1024;

/// A line and the one it follows, as hashes of their `uuid`s. Lines outside the conversation have neither.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    uuid: Option<u64>,
    parent: Option<u64>,
}

impl Link {
    pub(super) fn new(uuid: Option<&str>, parent: Option<&str>) -> Self {
        let filled = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(hash);
        Self { uuid: filled(uuid), parent: filled(parent) }
    }
}

/// The latest lines of a session with the serial numbers of their turns.
#[derive(Debug, Default)]
pub(super) struct Chain {
    turns: ByHash<u32>,
    order: VecDeque<u64>,
}

impl Chain {
    pub(super) fn of(lines: Vec<(u64, u32)>) -> Self {
        Self { order: lines.iter().map(|(line, _)| *line).collect(), turns: lines.into_iter().collect() }
    }

    /// Oldest first.
    pub(super) fn lines(&self) -> impl Iterator<Item = (u64, u32)> {
        self.order.iter().filter_map(|line| Some((*line, *self.turns.get(line)?)))
    }

    /// The turn of the line that this one follows, if known.
    pub(super) fn home(&self, link: &Link) -> Option<u32> {
        self.turns.get(&link.parent?).copied()
    }

    /// Records the turn of a line.
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
