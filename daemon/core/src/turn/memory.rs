//! What is remembered of closed turns because later lines can refer to it.

use std::{collections::VecDeque, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    Turn,
    answer::Trail,
    hash::{ByHash, hash},
    history::{BACK, Past},
};
use crate::transcript::record::{Assistant, Nanos};

/// How many requests are remembered until their answer comes.
pub(super) const MAX_OPEN_REQUESTS: usize = 64;

/// How many answer lines are remembered.
const MAX_ANSWER_LINES: usize = 4096;

/// How many calls of the previous turn are remembered.
const PREVIOUS_CALLS: usize = 64;

/// What an assembler remembers between two turns: ids and hashes, no text. Only the program that wrote it can read it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Memory {
    pub(super) answered: u32,
    pub(super) begun: u32,
    pub(super) forked_from: Option<String>,
    /// The session's title, which is text: it is kept elsewhere.
    #[serde(skip)]
    pub title: Option<String>,
    /// The session of which no further line is copied.
    pub left: Option<String>,
    /// The latest lines with the serial numbers of their turns, oldest first.
    pub(super) lines: Vec<(u64, u32)>,
    pub(super) requests: Vec<(String, Nanos)>,
    /// The last calls of the turn before, by id, and whether one of its tools has not returned.
    pub(super) before: Vec<(String, Trail, bool)>,
    /// The latest turns, oldest first, and whether they were abandoned.
    pub(super) turns: Vec<(Past, bool)>,
    pub(super) prompts: Vec<u64>,
    pub(super) written: Vec<(u64, u32)>,
}

/// Recent answer lines with the serial number of their turn: a line that was written twice counts once.
#[derive(Debug, Default)]
pub(super) struct Written {
    order: VecDeque<u64>,
    turns: ByHash<u32>,
}

impl Written {
    pub(super) fn of(lines: Vec<(u64, u32)>) -> Self {
        Self { order: lines.iter().map(|(line, _)| *line).collect(), turns: lines.into_iter().collect() }
    }

    /// Oldest first.
    pub(super) fn lines(&self) -> impl Iterator<Item = (u64, u32)> {
        self.order.iter().filter_map(|line| Some((*line, *self.turns.get(line)?)))
    }

    fn key(line: &Assistant) -> Option<u64> {
        Some(hash((line.uuid.as_ref()?, &line.message_id, line.at)))
    }

    pub(super) fn add(&mut self, line: &Assistant, turn: u32) {
        let Some(line) = Self::key(line) else { return };
        if self.turns.insert(line, turn).is_none() {
            self.order.push_back(line);
        }
        if self.order.len() > MAX_ANSWER_LINES
            && let Some(oldest) = self.order.pop_front()
        {
            self.turns.remove(&oldest);
        }
    }

    /// True if the line belongs to another turn than `open`.
    pub(super) fn has(&self, line: &Assistant, open: u32) -> bool {
        Self::key(line).and_then(|line| self.turns.get(&line)).is_some_and(|turn| *turn != open)
    }
}

/// Recent requests, by id, with the time they were sent.
#[derive(Debug, Default)]
pub(super) struct Requests(pub(super) VecDeque<(String, Nanos)>);

impl Requests {
    pub(super) fn put(&mut self, id: String, at: Nanos) {
        if self.0.len() == MAX_OPEN_REQUESTS {
            self.0.pop_front();
        }
        self.0.push_back((id, at));
    }

    pub(super) fn sent(&self, id: Option<&str>) -> Option<Nanos> {
        self.0.iter().find(|(known, _)| Some(known.as_str()) == id).map(|(_, at)| *at)
    }
}

/// Adds the prompt of a turn that is closed.
pub(super) fn remember(prompts: &mut VecDeque<u64>, turn: &Turn) {
    if let Some(uuid) = &turn.prompt.uuid {
        if prompts.len() == BACK {
            prompts.pop_front();
        }
        prompts.push_back(hash(uuid));
    }
}

/// The last calls of a turn that is closed.
pub(super) fn last_calls(turn: &Turn) -> impl Iterator<Item = (String, (Arc<Trail>, bool))> {
    let first = turn.generations.len().saturating_sub(PREVIOUS_CALLS);
    let calls = turn.generations.iter().enumerate().skip(first);
    calls.map(|(index, generation)| (generation.id.clone(), turn.trail(index)))
}
