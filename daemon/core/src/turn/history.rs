//! Closed turns of a session, and which of them the user abandoned by going back.

use std::collections::{VecDeque, hash_map::Entry};

use serde::{Deserialize, Serialize};

use super::{Turn, hash::ById};
use crate::transcript::record::{Prompt, SessionFacts};

/// How many turns are remembered for the user to go back to.
pub const BACK: usize = 256;

/// A closed turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    /// The source of its trace id.
    pub key: String,
    pub number: u32,
    /// Its number by Claude Code's own count.
    pub position: Option<u32>,
    /// The line that its prompt followed.
    pub follows: Option<String>,
    /// Facts about the session at that time, without the title.
    pub session: SessionFacts,
}

impl Past {
    pub fn of(turn: &Turn) -> Self {
        let session = SessionFacts { title: None, ..turn.session.clone() };
        let Prompt { position, parent, .. } = &turn.prompt;
        Self { key: turn.key.clone(), number: turn.number, position: *position, follows: parent.clone(), session }
    }
}

/// The latest closed turns, oldest first.
#[derive(Debug, Default)]
pub(super) struct History {
    /// Each with whether it was abandoned already.
    turns: VecDeque<(Past, bool)>,
    /// The lines that prompts followed, with the number of prompts.
    follows: ById<usize>,
}

impl History {
    pub(super) fn of(turns: Vec<Past>) -> Self {
        let mut history = Self::default();
        turns.into_iter().for_each(|turn| history.push(turn));
        history
    }

    /// The turns, oldest first, each with whether it was abandoned; without facts about the session.
    pub(super) fn turns(&self) -> Vec<(Past, bool)> {
        let bare = |turn: &Past| Past { session: SessionFacts::default(), ..turn.clone() };
        self.turns.iter().map(|(turn, left)| (bare(turn), *left)).collect()
    }

    /// From [`turns`](Self::turns).
    pub(super) fn marked(turns: Vec<(Past, bool)>) -> Self {
        let mut follows: ById<usize> = ById::default();
        turns
            .iter()
            .filter_map(|(turn, _)| turn.follows.clone())
            .for_each(|line| *follows.entry(line).or_default() += 1);
        Self { turns: turns.into(), follows }
    }

    pub(super) fn last(&self) -> Option<&Past> {
        self.turns.back().map(|(turn, _)| turn)
    }

    pub(super) fn push(&mut self, turn: Past) {
        for index in self.left(turn.position, turn.follows.as_deref()) {
            self.turns[index].1 = true;
        }
        if self.turns.len() == BACK
            && let Some(line) = self.turns.pop_front().and_then(|(turn, _)| turn.follows)
            && let Entry::Occupied(mut entry) = self.follows.entry(line)
        {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
        if let Some(line) = &turn.follows {
            *self.follows.entry(line.clone()).or_default() += 1;
        }
        self.turns.push_back((turn, false));
    }

    /// True if an earlier prompt followed this line.
    pub(super) fn has_followed(&self, line: &str) -> bool {
        self.follows.contains_key(line)
    }

    /// The turns that `prompt` abandons.
    pub(super) fn left_by(&self, prompt: &Prompt) -> Vec<Past> {
        let left = self.left(prompt.position, prompt.parent.as_deref());
        left.into_iter().map(|index| self.turns[index].0.clone()).collect()
    }

    /// Indexes of the turns that a prompt with this position and parent abandons: by Claude Code's own count, or, without one,
    /// because the first abandoned prompt followed the same line.
    fn left(&self, position: Option<u32>, parent: Option<&str>) -> Vec<usize> {
        let counted = |turn: &Past| turn.position.zip(position);
        // Nearly every prompt continues from the previous turn.
        let last = self.turns.back().map(|(turn, _)| counted(turn));
        let goes_on = position.is_none() || last.is_none_or(|last| last.is_some_and(|(its, position)| its < position));
        if goes_on && parent.is_none_or(|line| !self.follows.contains_key(line)) {
            return Vec::new();
        }
        let same =
            |(turn, _): &(Past, bool)| counted(turn).is_none() && parent.is_some() && turn.follows.as_deref() == parent;
        let first = self.turns.iter().position(same).unwrap_or(usize::MAX);
        let is_left = |(index, (turn, left)): (usize, &(Past, bool))| {
            let gone = counted(turn).map_or(index >= first, |(its, position)| its >= position);
            (gone && !left).then_some(index)
        };
        self.turns.iter().enumerate().filter_map(is_left).collect()
    }
}
