//! The runs of one subagent: one for its launch, and one for each message that woke it again.

use std::collections::HashSet;

use super::{Turn, memory::Requests};
use crate::transcript::record::{Assistant, Prompt, PromptKind, Record};

/// Builds the runs of one subagent from the records of its own transcript, pushed in file order.
#[derive(Debug, Default)]
pub struct Runs {
    /// Completed runs, oldest first, until they are taken.
    past: Vec<Turn>,
    last: Option<Turn>,
    /// How many runs were taken.
    taken: u32,
    /// The lines up to the prompt are those of the forked conversation.
    inherits: bool,
    /// `uuid`s of answer lines from that conversation.
    inherited: HashSet<String>,
    requests: Requests,
}

impl Runs {
    /// Takes the record of the line at `offset`. False if it belongs to no run.
    pub fn push(&mut self, record: Record, offset: u64) -> bool {
        let record = match record {
            Record::Side(side) => side.record,
            record => record,
        };
        match record {
            Record::Request { id, at } => self.requests.put(id, at),
            Record::Inherits => self.inherits = self.last.is_none(),
            Record::Prompt(prompt) if prompt.kind == PromptKind::StandIn => {
                self.last.iter_mut().for_each(|turn| turn.at_tail = None);
            }
            Record::Prompt(prompt) if self.last.is_some() && prompt.kind == PromptKind::Blank => {}
            Record::Prompt(prompt) if self.last.as_ref().is_none_or(Turn::is_over) || self.was_inherited(&prompt) => {
                self.past.extend(self.last.take().filter(|_| prompt.kind != PromptKind::Fork));
                self.inherits = false;
                self.last = Some(Turn::new(prompt, "", offset));
            }
            Record::Link { .. } => {}
            // It counts where it was given; this is a copy.
            Record::Assistant(line) if self.has_inherited(&line) => {}
            record => {
                if let (None, Record::Assistant(line)) = (&self.last, &record) {
                    let stand_in = Prompt { kind: PromptKind::StandIn, at: line.at, ..Prompt::default() };
                    let turn = Turn::new(stand_in, "", offset);
                    self.last = Some(Turn { key: line.uuid.clone().unwrap_or_else(|| turn.key.clone()), ..turn });
                }
                let Some(turn) = &mut self.last else {
                    return self.inherits || matches!(record, Record::Aside(_));
                };
                let requested = match &record {
                    Record::Assistant(line) => self.requests.sent(line.request_ref.as_deref()),
                    _ => None,
                };
                return turn.take(record, requested);
            }
        }
        true
    }

    fn has_inherited(&mut self, line: &Assistant) -> bool {
        let Some(uuid) = &line.uuid else { return self.inherits };
        if self.inherits {
            self.inherited.insert(uuid.clone());
        }
        self.inherited.contains(uuid)
    }

    /// True if the first answer is in fact the line that launched the fork, in a file that has lost its beginning.
    fn was_inherited(&self, prompt: &Prompt) -> bool {
        let inherited = |turn: &Turn| turn.prompt.kind == PromptKind::StandIn && turn.generations.len() == 1;
        prompt.kind == PromptKind::Fork && self.last.as_ref().is_some_and(inherited)
    }

    pub fn last(&self) -> Option<&Turn> {
        self.last.as_ref()
    }

    /// Like [`last`](Self::last), to mark what was sent.
    pub fn last_mut(&mut self) -> Option<&mut Turn> {
        self.last.as_mut()
    }

    /// All runs in memory, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Turn> {
        self.past.iter().chain(&self.last)
    }

    /// Like [`iter`](Self::iter), to place them.
    pub fn iter_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut Turn> {
        self.past.iter_mut().chain(&mut self.last)
    }

    /// How many runs there were, including those that were taken.
    pub fn count(&self) -> usize {
        self.taken as usize + self.past.len() + usize::from(self.last.is_some())
    }

    /// Takes the completed runs whose place is known, in order: nothing is added to them any more.
    pub fn take_past(&mut self) -> Vec<Turn> {
        let placed = self.past.iter().take_while(|turn| turn.place.is_some()).count();
        self.taken += placed as u32;
        self.past.drain(..placed).collect()
    }

    /// All runs.
    pub fn into_turns(self) -> impl Iterator<Item = Turn> {
        self.past.into_iter().chain(self.last)
    }
}
