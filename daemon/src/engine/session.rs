//! A session in memory, and its transcript as it is followed.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::TICK;
use crate::{
    agents::Agents,
    hook::{Destination, Event, Hint},
    ids::Print,
    redact::Rules,
    store::{SessionRow, handle::Handle},
    transcript::{cursor::Position, lines::Lines},
    turn::{Assembler, Scope},
};

/// How long to wait after the database refused a step, or was full.
const STORE_RETRY: Duration = Duration::from_secs(1);

pub(super) struct Session {
    pub(super) row: SessionRow,
    /// What masks its secrets.
    pub(super) rules: Rules,
    pub(super) tail: Option<Tail>,
    /// Events not yet dealt with, oldest first, with when they came.
    pub(super) waiting: Vec<(Hint, Instant)>,
    /// There may be something to read.
    pub(super) dirty: bool,
    /// When the transcript last grew.
    pub(super) grown: Instant,
    pub(super) touched: Instant,
    /// Another session has followed it: nobody writes to it any more.
    pub(super) superseded: bool,
    pub(super) agents: Agents,
    /// When its subagents are to be looked at; `None` if none is at work.
    pub(super) agents_due: Option<Instant>,
    /// One of them will be told to its end before long.
    pub(super) agents_soon: bool,
    /// When it is looked at without being told, while an event waits.
    pub(super) next_look: Instant,
    /// Reading it met a fault of ours: it is forgotten until its next event.
    pub(super) lost: bool,
    /// Not before: the database refused the last step.
    pub(super) not_before: Option<Instant>,
}

impl Session {
    pub(super) fn new(row: SessionRow, rules: Rules) -> Self {
        let now = Instant::now();
        Self {
            row,
            rules,
            tail: None,
            waiting: Vec::new(),
            dirty: true,
            grown: now,
            touched: now,
            superseded: false,
            agents: Agents::default(),
            agents_due: None,
            agents_soon: false,
            next_look: now,
            lost: false,
            not_before: None,
        }
    }

    /// Often at first, then ever more rarely: file events tell what happens meanwhile, if any are lost the wait is half as long
    /// again at most.
    pub(super) fn next_look(&self) -> Instant {
        let now = Instant::now();
        // Newer events have had a look of their own ordered for them.
        let oldest = self.waiting.iter().map(|(_, came)| *came).min().unwrap_or(now);
        let last = oldest.max(self.grown);
        now + (now.saturating_duration_since(last) / 2).max(TICK)
    }

    /// History goes to `destination` now. If it went elsewhere before, the transcript is read from its start, unless something
    /// of it is still to be told there: then false.
    pub(super) fn may_be_told_to(&mut self, destination: &Destination, store: &Handle) -> bool {
        if self.row.hint.destination == *destination {
            return true;
        }
        let untold =
            self.tail.as_ref().is_some_and(|tail| tail.assembler.open().is_some_and(|t| t.has_news(Scope::Final)));
        if untold || self.row.open_turn || self.row.unsettled > 0 || !self.waiting.is_empty() {
            return false;
        }
        if let Err(error) = store.call(|store| store.forget_agents(&self.row.session_id)) {
            tracing::warn!(%error, "subagents told elsewhere are not told again");
        }
        self.tail = None;
        self.agents = Agents::default();
        (self.row.cursor, self.row.closed, self.row.forked_from, self.row.title) = (Position::default(), 0, None, None);
        true
    }

    /// Looks again in a moment.
    pub(super) fn retry(&mut self) {
        self.dirty = true;
        self.not_before = Some(Instant::now() + STORE_RETRY);
    }

    /// When the oldest event was fired that waits.
    pub(super) fn first_fired(&self) -> Option<u64> {
        self.waiting.first().map(|(hint, _)| hint.fired_ns)
    }

    /// Claude Code has said that it writes no more.
    pub(super) fn is_over(&self) -> bool {
        self.waiting.iter().any(|(hint, _)| hint.event == Event::Ended)
    }

    /// How much there is to do that will be done before long.
    pub(super) fn pending(&self) -> usize {
        self.waiting.len() + usize::from(self.dirty) + usize::from(self.agents_soon)
    }

    /// The last turn has something untold, nobody waits for it, and the model has said that it is done: its Stop was lost.
    pub(super) fn looks_finished(&self) -> bool {
        self.waiting.is_empty() && self.tail.as_ref().is_some_and(Tail::looks_finished)
    }
}

/// A transcript, followed.
pub(super) struct Tail {
    /// How far it was read.
    pub(super) read_to: Position,
    pub(super) lines: Lines,
    pub(super) assembler: Assembler,
    /// Bytes of the open turn that are held.
    pub(super) held: usize,
    /// Answers of turns that were closed by the next prompt before a Stop was heard.
    pub(super) unclaimed: VecDeque<Print>,
}

impl Tail {
    pub(super) fn looks_finished(&self) -> bool {
        self.assembler.open().is_some_and(|turn| turn.looks_finished() && turn.has_news(Scope::Settled))
    }
}
