//! When is a turn complete?
//!
//! Claude Code runs its Stop hooks before it has written the last answer, and runs none at all where it is killed. So a turn is
//! complete when an event says that the model has stopped *and* the transcript shows the answer, or has been silent for so long
//! that it will not. What is decided here is carried out by the engine.

use std::time::{Duration, Instant};

use crate::{
    hook::Event,
    ids::Fingerprint,
    transcript::record::Nanos,
    turn::{Scope, Turn},
};

pub use crate::turn::silence::{BURST, QUIET, QUIET_FINISHED, QUIET_UNKNOWN};

/// How long events are collected that end nothing: a busy session has many of them, and one look deals with all.
const COLLECT: Duration = Duration::from_millis(200);

/// The shortest time between two polls of a transcript, should no file event come.
const POLL: Duration = Duration::from_millis(10);

/// An event that waits for what it announces.
#[derive(Clone, Copy, Debug)]
pub struct Waiting<'a> {
    /// What it says.
    pub event: &'a Event,
    /// When the hook ran.
    pub fired_ns: Nanos,
    /// When the daemon heard of it.
    pub came: Instant,
}

/// What the decision needs to know of a turn.
pub trait View {
    /// There is work of the model that was not emitted and is not running any more.
    fn has_news(&self) -> bool;
    /// Its last words are these.
    fn ends_with(&self, answer: &Fingerprint) -> bool;
    /// The model has said that it is done, or has failed.
    fn looks_finished(&self) -> bool;
    /// The user interrupted it.
    fn is_interrupted(&self) -> bool;
    /// The model called this tool.
    fn has_call(&self, tool: &str) -> bool;
    /// When it was begun, if its lines say so.
    fn began(&self) -> Option<Nanos>;
}

impl View for Turn {
    fn has_news(&self) -> bool {
        self.has_news(Scope::Settled)
    }

    fn ends_with(&self, answer: &Fingerprint) -> bool {
        self.ends_with(answer)
    }

    fn looks_finished(&self) -> bool {
        self.looks_finished()
    }

    fn is_interrupted(&self) -> bool {
        self.is_interrupted
    }

    fn has_call(&self, tool: &str) -> bool {
        self.has_call(tool)
    }

    fn began(&self) -> Option<Nanos> {
        self.prompt.at
    }
}

/// A session whose transcript was read to its end.
#[derive(Debug)]
pub struct Situation<'a, V> {
    /// Events not yet dealt with, oldest first.
    pub waiting: &'a [Waiting<'a>],
    /// When the transcript last grew.
    pub grown: Instant,
    /// Its last line lacks its newline, and more than that perhaps.
    pub is_line_unfinished: bool,
    /// Another session has followed this one: nobody writes to it any more.
    pub is_superseded: bool,
    /// The answered turns at work; with two terminals on one session there can be several.
    pub turns: &'a [&'a V],
    /// Which of them was written to last; `None` if that is one without an answer.
    pub open: Option<usize>,
    /// Answers of turns that were closed by the next prompt before a Stop was heard, oldest first.
    pub unclaimed: &'a [Fingerprint],
}

/// What is to be done.
#[derive(Debug, PartialEq)]
pub struct Decision {
    /// The events that are dealt with, as positions in [`Situation::waiting`], ascending.
    pub dealt_with: Vec<usize>,
    /// The answers whose Stop came after all, as positions in [`Situation::unclaimed`].
    pub claimed: Vec<usize>,
    /// What is emitted.
    pub emission: Option<Emission>,
    /// What the session waits for afterwards.
    pub awaits: Awaits,
}

/// Turns that are complete.
#[derive(Debug, PartialEq)]
pub struct Emission {
    /// How much of them.
    pub scope: Scope,
    /// When the Stop hook ran that ended the turn, if one did.
    pub fired_ns: Option<Nanos>,
    /// Which, as positions in [`Situation::turns`].
    pub turns: Vec<usize>,
}

/// What a session waits for whose transcript was read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaits {
    /// The next event.
    Nothing,
    /// What the events that wait announce: should no file event come, the transcript is polled then.
    Events {
        /// The transcript is read again then, should no file event come before.
        poll: Instant,
    },
    /// No event waits. A turn looks finished, and is complete if the transcript does not grow until then.
    Silence { until: Instant },
}

/// Decides which events are dealt with and which turns are complete.
pub fn decide<V: View>(now: Instant, at: &Situation<'_, V>) -> Decision {
    let mut claimed = Vec::new();
    let mut scope = None;
    let mut fired_ns = None;
    let mut last_fired = None;
    let mut dealt_with = Vec::new();
    for (index, waiting) in at.waiting.iter().enumerate() {
        let quiet = now.saturating_duration_since(at.grown.max(waiting.came));
        // However busy the file is: a burst is short.
        let in_burst = !at.is_superseded && quiet < BURST && now < waiting.came + QUIET;
        let is_done = match waiting.event {
            Event::Other | Event::AgentStopped { .. } => true,
            // Its call is written before it runs.
            Event::ToolEnded { tool, .. } => at.turns.iter().any(|turn| turn.has_call(tool)) || quiet >= QUIET,
            Event::Ended | Event::Stopped { .. } if in_burst => false,
            // A last line may lack its newline.
            Event::Ended if !at.is_superseded && quiet < QUIET_FINISHED && at.is_line_unfinished => false,
            Event::Ended => {
                scope = Some(Scope::Final);
                last_fired = last_fired.max(Some(waiting.fired_ns));
                true
            }
            Event::Stopped { answer } => {
                // With two terminals on one session it need not be the turn that was written to last.
                let is_shown = |answer| at.turns.iter().any(|turn| turn.has_news() && turn.ends_with(answer));
                let limit = if answer.is_some() { QUIET } else { QUIET_UNKNOWN };
                if answer.as_ref().is_some_and(is_shown) || quiet >= limit {
                    scope = scope.max(Some(Scope::Settled));
                    fired_ns = Some(waiting.fired_ns);
                    last_fired = last_fired.max(fired_ns);
                    true
                } else {
                    let is_its =
                        |&past: &usize| Some(&at.unclaimed[past]) == answer.as_ref() && !claimed.contains(&past);
                    let own = (0..at.unclaimed.len()).find(is_its);
                    claimed.extend(own);
                    own.is_some()
                }
            }
        };
        if is_done {
            dealt_with.push(index);
        }
    }
    let is_interrupted = at.open.is_some_and(|open| at.turns[open].is_interrupted());
    let is_idle = dealt_with.len() == at.waiting.len();
    let looks_finished = at.turns.iter().any(|turn| turn.looks_finished() && turn.has_news());
    if is_interrupted {
        scope = Some(Scope::Final);
    } else if scope.is_none() && is_idle && looks_finished && now.saturating_duration_since(at.grown) >= QUIET_FINISHED
    {
        scope = Some(Scope::Settled);
    }
    let emission = scope.map(|scope| {
        // One at which another terminal works has an end of its own, unless the session ends.
        let is_complete = |&index: &usize| {
            at.open == Some(index) || scope == Scope::Final && !is_interrupted || at.turns[index].looks_finished()
        };
        // An event that is heard late, as after a restart, does not end a turn that was begun since and is at work.
        let was_there = |&index: &usize| {
            let turn = at.turns[index];
            let is_later = || turn.began().zip(last_fired).is_some_and(|(began, fired)| began > fired);
            is_interrupted || at.is_superseded || turn.looks_finished() || !is_later()
        };
        Emission { scope, fired_ns, turns: (0..at.turns.len()).filter(is_complete).filter(was_there).collect() }
    });
    let mut left = (0..at.waiting.len()).filter(|index| dealt_with.binary_search(index).is_err());
    // Whatever looks finished is part of what is emitted.
    let awaits =
        awaits(now, at.grown, left.by_ref().map(|index| at.waiting[index].came), emission.is_none() && looks_finished);
    Decision { dealt_with, claimed, emission, awaits }
}

/// What a session waits for while events that `came` then wait. Its transcript last grew at `grown`, and `looks_finished` if a
/// turn of it does of which something was not emitted.
pub fn awaits(now: Instant, grown: Instant, came: impl IntoIterator<Item = Instant>, looks_finished: bool) -> Awaits {
    match came.into_iter().min() {
        // Often at first, then ever more rarely: file events say what happens meanwhile; if any are lost the wait is half as
        // long again at most. Newer events have had a poll of their own.
        Some(oldest) => {
            let since = now.saturating_duration_since(oldest.max(grown));
            Awaits::Events { poll: now + (since / 2).max(POLL) }
        }
        None if looks_finished => Awaits::Silence { until: grown + QUIET_FINISHED },
        None => Awaits::Nothing,
    }
}

/// When the transcript is to be read for an event that just came. Until then a burst of events is one reason to read. Nobody
/// waits for an event that is not `hurried`: whatever led to it has been silent for long.
pub fn first_poll(now: Instant, event: &Event, is_hurried: bool) -> Instant {
    match event {
        _ if !is_hurried => now,
        Event::Stopped { .. } | Event::Ended => now + BURST,
        Event::AgentStopped { .. } | Event::ToolEnded { .. } | Event::Other => now + COLLECT,
    }
}

/// True if the last line of a session that is over counts although its newline is missing: none will come. The transcript last
/// grew at `grown`.
pub fn is_last_line_over(now: Instant, grown: Instant) -> bool {
    now.saturating_duration_since(grown) >= QUIET_FINISHED
}

#[cfg(test)]
mod tests;
