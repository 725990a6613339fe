//! A session in memory, and its transcript as it is followed.

use std::{
    collections::VecDeque,
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use crate::{
    agents::Agents,
    store::{Advance, SessionRow, handle::Handle},
};
use cc_core::{
    complete::{self, Awaits},
    destination::Destination,
    hook::{Event, Hint},
    ids::Print,
    redact::Rules,
    transcript::{cursor::Position, lines::Lines, record::Nanos},
    turn::{Assembler, Scope},
};

/// How long to wait after the database refused a step, or was full.
pub(super) const STORE_RETRY: Duration = Duration::from_secs(1);

pub(super) struct Session {
    pub(super) row: SessionRow,
    /// What masks its secrets.
    pub(super) rules: Rules,
    pub(super) tail: Option<Tail>,
    /// What was read, and is yet to be stored.
    pub(super) step: Option<Advance>,
    /// Events not yet dealt with, oldest first, with when they came.
    pub(super) waiting: Vec<(Hint, Instant)>,
    /// There may be something to read.
    pub(super) dirty: bool,
    /// When the transcript last grew.
    pub(super) grown: Instant,
    pub(super) touched: Instant,
    /// Another session has followed it: nobody writes to it any more.
    pub(super) superseded: bool,
    /// How many sessions follow it of which none was ever told.
    pub(super) depth: usize,
    /// The session it was begun with, once that is known.
    pub(super) previous: Option<String>,
    /// The `uuid` of its first line that has one, while nothing was read of it.
    pub(super) first_line: Option<String>,
    /// No hook is behind it, and nobody waits for what comes of it.
    pub(super) is_unhurried: bool,
    /// The last look did not come to the end of what there was to read.
    pub(super) is_behind: bool,
    /// Which look was the last at it; 0 if none was.
    pub(super) looked: u64,
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
    /// Tracing is off in its project, and no event says otherwise: nothing is read.
    pub(super) is_off: bool,
    /// Destinations that take nothing now.
    pub(super) behind: Vec<Destination>,
    /// When tracing was off in its project, in nanoseconds since the epoch.
    pub(super) off: Vec<RangeInclusive<Nanos>>,
}

impl Session {
    pub(super) fn new(row: SessionRow, rules: Rules) -> Self {
        let now = Instant::now();
        Self {
            row,
            rules,
            tail: None,
            step: None,
            waiting: Vec::new(),
            dirty: true,
            grown: now,
            touched: now,
            superseded: false,
            depth: 0,
            previous: None,
            first_line: None,
            is_unhurried: false,
            is_behind: false,
            looked: 0,
            agents: Agents::default(),
            agents_due: None,
            agents_soon: false,
            next_look: now,
            lost: false,
            not_before: None,
            is_off: false,
            behind: Vec::new(),
            off: Vec::new(),
        }
    }

    /// When it is looked at next while events wait.
    pub(super) fn next_look(&self) -> Instant {
        let now = Instant::now();
        match complete::awaits(now, self.grown, self.waiting.iter().map(|(_, came)| *came), false) {
            Awaits::Events { poll } => poll,
            Awaits::Nothing | Awaits::Silence { .. } => now,
        }
    }

    /// History goes to the `targets` now. If it went elsewhere before, or is to be read `again`, that begins at the start, unless something
    /// of it is still to be told there: then false.
    pub(super) fn may_be_told_to(&mut self, targets: &[cc_core::route::Target], again: bool, store: &Handle) -> bool {
        let known: Vec<_> = self.row.hint.destinations().collect();
        if targets.iter().all(|target| known.contains(&&target.destination)) && !again {
            return true;
        }
        let untold =
            self.tail.as_ref().is_some_and(|tail| tail.assembler.at_work().any(|turn| turn.has_news(Scope::Final)));
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

    /// True if a turn that began at `start` is left out: tracing was off in its project, and no hook with tracing on ran while
    /// it was the session's last. `next` is when the turn after it began.
    pub(super) fn leaves_out(&self, start: Nanos, next: Option<Nanos>) -> bool {
        let is_its = |fired: Nanos| fired >= start && next.is_none_or(|next| fired < next);
        let mut hints = self.waiting.iter().map(|(hint, _)| hint).chain([&self.row.hint]);
        let is_wanted = hints.any(|hint| hint.source.is_asked_for() || hint.source.is_hook() && is_its(hint.fired_ns));
        !is_wanted && self.off.iter().any(|off| off.contains(&start))
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

    /// Nothing of it was read yet, in this run or before.
    pub(super) fn is_new(&self) -> bool {
        self.tail.is_none() && self.row.cursor.offset == 0
    }

    /// Something is to be read, or an event to be dealt with.
    pub(super) fn is_busy(&self) -> bool {
        self.dirty || !self.waiting.is_empty()
    }

    /// It is busy, and that is not over when its step is stored.
    pub(super) fn is_at_work(&self) -> bool {
        self.is_busy() && (self.step.is_none() || self.dirty)
    }

    /// Nothing is to be done before its next event, for long at least.
    pub(super) fn is_idle(&self) -> bool {
        !self.is_busy() && !self.agents_soon && !self.looks_finished()
    }

    /// Its transcript is complete, or nobody follows it and all of it is told: the next event finds where it stands in the store.
    pub(super) fn is_done_with(&self) -> bool {
        let is_over = self.row.hint.event == Event::Ended || self.superseded;
        let is_told = || {
            let open = self.tail.as_ref().and_then(|tail| tail.assembler.open());
            open.is_none_or(|turn| !turn.has_news(Scope::Final))
        };
        self.lost
            || self.is_off
            || !self.is_busy() && self.agents_due.is_none() && (is_over || self.is_unhurried && is_told())
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
    /// The `uuid` of the file's first line that has one.
    pub(super) first_line: Option<String>,
    pub(super) lines: Lines,
    pub(super) assembler: Assembler,
    /// Bytes of the open turn that are held.
    pub(super) held: usize,
    /// Answers of turns that were closed by the next prompt before a Stop was heard.
    pub(super) unclaimed: VecDeque<Print>,
}

impl Tail {
    pub(super) fn looks_finished(&self) -> bool {
        self.assembler.at_work().any(|turn| turn.looks_finished() && turn.has_news(Scope::Settled))
    }
}
