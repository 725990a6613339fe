//! A session in memory, and the tail of its transcript.

use std::{
    collections::{HashMap, VecDeque},
    ops::RangeInclusive,
    time::Instant,
};

use super::facts::Wait;
use crate::{
    agents::Agents,
    clock,
    store::{Advance, SessionRow, handle::Handle},
};
use cc_core::{
    admit::{self, History},
    complete,
    destination::Destination,
    hook::{Event, Hint},
    ids::Fingerprint,
    phase::Phase,
    redact::Rules,
    transcript::{cursor::Position, lines::Lines, record::Nanos},
    turn::{Assembler, Scope},
};

/// When the transcripts of a session's subagents are read if no file event comes before.
#[derive(Clone, Copy, Debug)]
pub(super) struct AgentsPoll {
    pub(super) at: Instant,
    /// One of them is about to end.
    pub(super) is_ending: bool,
}

pub(super) struct Session {
    pub(super) row: SessionRow,
    /// The masking rules.
    pub(super) rules: Rules,
    pub(super) tail: Option<Tail>,
    /// What was read but is not stored yet.
    pub(super) step: Option<Advance>,
    /// Pending events with the time they arrived, oldest first, including the one that is `kept`.
    pub(super) waiting: Vec<(Hint, Instant)>,
    /// The id of an event that is settled except for subagents that end with it. It stays in the inbox until they are
    /// emitted: if only Claude Code's own environment turns tracing on, nothing else permits reading them, not even
    /// after a restart.
    pub(super) kept: Option<String>,
    pub(super) phase: Phase,
    /// When the transcript last grew.
    pub(super) grown: Instant,
    pub(super) touched: Instant,
    /// Another session continues it, and nobody writes to it any more.
    pub(super) superseded: bool,
    /// The length of the chain of sessions that begin with it and were never emitted.
    pub(super) depth: usize,
    /// The session it begins with, once that is known.
    pub(super) previous: Option<String>,
    /// The `uuid` of the first line that has one, while nothing was read yet.
    pub(super) first_line: Option<String>,
    /// It has no hook event, and nobody waits for its spans.
    pub(super) is_unhurried: bool,
    /// The number of the last read; 0 if there was none.
    pub(super) looked: u64,
    pub(super) agents: Agents,
    /// When its subagents are polled; `None` if none is running.
    pub(super) agents_poll: Option<AgentsPoll>,
    /// The waits of its ended subagents for the facts of their calls, by their ids.
    pub(super) agent_facts: HashMap<String, Wait>,
    /// Destinations without room.
    pub(super) behind: Vec<Destination>,
    /// When tracing was off in its project, in Unix nanoseconds.
    pub(super) off: Vec<RangeInclusive<Nanos>>,
}

impl Session {
    pub(super) fn new(row: SessionRow, rules: Rules) -> Self {
        let now = clock::monotonic();
        Self {
            row,
            rules,
            tail: None,
            step: None,
            waiting: Vec::new(),
            kept: None,
            phase: Phase::LEFT,
            grown: now,
            touched: now,
            superseded: false,
            depth: 0,
            previous: None,
            first_line: None,
            is_unhurried: false,
            looked: 0,
            agents: Agents::default(),
            agents_poll: None,
            agent_facts: HashMap::new(),
            behind: Vec::new(),
            off: Vec::new(),
        }
    }

    /// Makes it read again from the stored position.
    pub(super) fn begin_again(&mut self) {
        (self.tail, self.agents, self.kept) = (None, Agents::default(), None);
    }

    /// Pending events that are not settled, oldest first.
    pub(super) fn to_deal_with(&self) -> impl Iterator<Item = &(Hint, Instant)> {
        self.waiting.iter().filter(|(hint, _)| Some(&hint.id) != self.kept.as_ref())
    }

    /// Returns which events leave the inbox now that these are settled (`handled`), oldest first. The last one that
    /// permits reading is `kept` while subagents `are_ending`.
    pub(super) fn keep_permission(&mut self, handled: Vec<String>, are_ending: bool) -> Vec<String> {
        let mut done: Vec<String> = self.kept.take().into_iter().chain(handled).collect();
        if are_ending {
            let permission = |(hint, _): &&(Hint, Instant)| hint.source.is_permission() && done.contains(&hint.id);
            let last = self.waiting.iter().rev().find(permission).map(|(hint, _)| hint.id.clone());
            done.retain(|id| Some(id) != last.as_ref());
            self.kept = last;
        }
        done
    }

    /// There is nothing to read for now.
    pub(super) fn rest(&mut self, now: Instant) {
        let looks_finished = self.tail.as_ref().is_some_and(Tail::looks_finished);
        let came = self.to_deal_with().map(|(_, came)| *came);
        self.phase = Phase::Read(complete::awaits(now, self.grown, came, looks_finished));
    }

    /// Sends history to the `targets` from now on. If it went elsewhere before, or is to be read `again`, it begins at
    /// the start. False if part of it is still to be emitted to its earlier destination.
    pub(super) fn may_go_to(&mut self, targets: &[cc_core::route::Target], again: bool, store: &Handle) -> bool {
        let known: Vec<_> = self.row.hint.destinations().collect();
        let is_same = targets.iter().all(|target| known.contains(&&target.destination));
        let has_unemitted = || {
            let mut turns = self.tail.iter().flat_map(|tail| tail.assembler.at_work());
            turns.any(|turn| turn.has_news(Scope::Final))
                || self.row.open_turn
                || self.row.unsettled > 0
                || !self.waiting.is_empty()
        };
        match admit::history(is_same, again, has_unemitted) {
            History::GoesOn => return true,
            History::NotNow => return false,
            History::FromStart => {}
        }
        if let Err(error) = store.call(|store| store.forget_agents(&self.row.session_id)) {
            tracing::warn!(%error, "subagents that went elsewhere are not sent again");
        }
        self.begin_again();
        (self.row.cursor, self.row.closed, self.row.forked_from, self.row.title) = (Position::default(), 0, None, None);
        true
    }

    /// True if a turn that began at `start` is left out: tracing was off in its project, and no hook with tracing on ran while
    /// it was the session's last. `next` is when the following turn began.
    pub(super) fn leaves_out(&self, start: Nanos, next: Option<Nanos>) -> bool {
        let hints = self.waiting.iter().map(|(hint, _)| hint).chain([&self.row.hint]);
        admit::leaves_out(&self.off, hints.map(|hint| (hint.source, hint.fired_ns)), start, next)
    }

    /// Any of its files may have changed.
    pub(super) fn look_at_everything(&mut self) {
        self.agents.sweep();
        self.phase.wake();
    }

    /// One of its subagents is about to end.
    pub(super) fn is_agent_ending(&self) -> bool {
        self.agents_poll.is_some_and(|poll| poll.is_ending)
    }

    /// When its subagents are polled.
    pub(super) fn agents_due(&self) -> Option<Instant> {
        self.agents_poll.map(|poll| poll.at)
    }

    /// Pretends that everything it waits for is due, for tests.
    #[cfg(test)]
    pub(super) fn make_due(&mut self) {
        use complete::Awaits;
        let now = clock::monotonic();
        match &mut self.phase {
            Phase::Held { has_more, .. } => self.phase = Phase::Due { has_more: *has_more },
            Phase::Read(Awaits::Events { poll: at } | Awaits::Silence { until: at }) => *at = now,
            Phase::Due { .. } | Phase::Read(Awaits::Nothing) | Phase::Over => {}
        }
    }

    /// Reads again shortly.
    pub(super) fn retry(&mut self) {
        self.phase.hold(clock::monotonic() + admit::RETRY);
    }

    /// When the oldest pending event was fired.
    pub(super) fn first_fired(&self) -> Option<u64> {
        self.waiting.first().map(|(hint, _)| hint.fired_ns)
    }

    /// Nothing of it was ever read.
    pub(super) fn is_new(&self) -> bool {
        self.tail.is_none() && self.row.cursor.offset == 0
    }

    /// There is something to read, or an event is pending.
    pub(super) fn is_busy(&self) -> bool {
        self.phase.is_busy()
    }

    /// There is nothing to do before its next event, or for long.
    pub(super) fn is_idle(&self) -> bool {
        self.phase.is_idle() && !self.is_agent_ending()
    }

    /// It can be dropped from memory: its transcript is complete, or nobody waits for it and all of it is emitted. The
    /// next event finds its position in the store.
    pub(super) fn is_done_with(&self) -> bool {
        let is_over = self.row.hint.event == Event::Ended || self.superseded;
        let is_emitted = || {
            let open = self.tail.as_ref().and_then(|tail| tail.assembler.open());
            open.is_none_or(|turn| !turn.has_news(Scope::Final))
        };
        self.phase == Phase::Over
            || !self.is_busy() && self.agents_poll.is_none() && (is_over || self.is_unhurried && is_emitted())
    }

    /// Claude Code has said that the session has ended.
    pub(super) fn is_over(&self) -> bool {
        self.waiting.iter().any(|(hint, _)| hint.event == Event::Ended)
    }

    /// How much work it has that will be done soon.
    pub(super) fn pending(&self) -> usize {
        let is_unread = matches!(self.phase, Phase::Due { .. } | Phase::Held { .. });
        self.waiting.len() + usize::from(is_unread) + usize::from(self.is_agent_ending())
    }

    /// Part of the last turn is not emitted, no event is pending for it, and the model has said that it is done: its Stop was
    /// lost.
    pub(super) fn looks_finished(&self) -> bool {
        self.to_deal_with().next().is_none() && self.tail.as_ref().is_some_and(Tail::looks_finished)
    }
}

/// The tail of a transcript.
pub(super) struct Tail {
    pub(super) read_to: Position,
    /// The `uuid` of the file's first line that has one.
    pub(super) first_line: Option<String>,
    pub(super) lines: Lines,
    pub(super) assembler: Assembler,
    /// Memory that the open turn takes, in bytes.
    pub(super) held: usize,
    /// Answers of turns that the next prompt closed before their Stop arrived.
    pub(super) unclaimed: VecDeque<Fingerprint>,
    pub(super) totals: Totals,
    /// The wait of a complete turn for the facts of its calls.
    pub(super) facts: Wait,
}

/// Whether Claude Code's totals stand in what was read of a transcript.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Totals {
    #[default]
    None,
    /// The conversation went on after them.
    Earlier,
    /// They are newer than the conversation.
    Latest,
}

impl Tail {
    pub(super) fn looks_finished(&self) -> bool {
        self.assembler.at_work().any(|turn| turn.looks_finished() && turn.has_news(Scope::Settled))
    }
}
