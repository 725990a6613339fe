//! When is a turn complete?
//!
//! Claude Code runs its Stop hooks before it has written the last answer, and runs none if it is killed. So a turn is complete
//! when an event says that the model has stopped *and* the transcript either shows the answer or has been silent for so long
//! that none will come.
//!
//! Comes in: the waiting events and a view of the open turns. Goes out: a [`Decision`], which the engine carries out. Reads no
//! files and no clock.

use std::time::{Duration, Instant};

use crate::{
    hook::Event,
    ids::Fingerprint,
    transcript::record::Nanos,
    turn::{Scope, Turn},
};

pub use crate::turn::silence::{BURST, QUIET, QUIET_FINISHED, QUIET_UNKNOWN};

/// How long events that end nothing are collected: a busy session has many, and one read serves all of them.
const COLLECT: Duration = Duration::from_millis(200);

/// The shortest interval between two polls of a transcript while no file event comes.
const POLL: Duration = Duration::from_millis(10);

/// How long an event of a session that has ended is kept for the totals that Claude Code writes after the hook.
const TOTALS: Duration = Duration::from_secs(1);

/// An event whose announced answer has not been seen yet.
#[derive(Clone, Copy, Debug)]
pub struct Waiting<'a> {
    pub event: &'a Event,
    /// When the hook ran.
    pub fired_ns: Nanos,
    /// When the daemon received it.
    pub came: Instant,
    /// Claude Code writes its totals after the hook, and has not yet.
    pub awaits_totals: bool,
}

/// What the decision needs to know about a turn.
pub trait View {
    /// The turn has work of the model that was not emitted and is no longer running.
    fn has_news(&self) -> bool;
    /// Its last answer has this fingerprint.
    fn ends_with(&self, answer: &Fingerprint) -> bool;
    /// The model has said that it is done, or has failed.
    fn looks_finished(&self) -> bool;
    /// The user interrupted it.
    fn is_interrupted(&self) -> bool;
    /// The model called this tool.
    fn has_call(&self, tool: &str) -> bool;
    /// When it began, if its lines say so.
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
    /// Pending events, oldest first.
    pub waiting: &'a [Waiting<'a>],
    /// When the transcript last grew.
    pub grown: Instant,
    /// Its last line has no newline yet.
    pub is_line_unfinished: bool,
    /// Another session continues this one: nobody writes to it any more.
    pub is_superseded: bool,
    /// The turns in progress that have an answer; two terminals on one session can have several.
    pub turns: &'a [&'a V],
    /// The one that was written to last; `None` if that turn has no answer yet.
    pub open: Option<usize>,
    /// Answers of turns that the next prompt closed before their Stop arrived, oldest first.
    pub unclaimed: &'a [Fingerprint],
}

#[derive(Debug, PartialEq)]
pub struct Decision {
    /// Positions in [`Situation::waiting`] of the events that are settled, ascending.
    pub handled: Vec<usize>,
    /// Positions in [`Situation::unclaimed`] of the answers whose Stop has now arrived.
    pub claimed: Vec<usize>,
    pub emission: Option<Emission>,
    /// What the session waits for next.
    pub awaits: Awaits,
}

/// The turns to emit.
#[derive(Debug, PartialEq)]
pub struct Emission {
    /// How much of them.
    pub scope: Scope,
    /// When the Stop hook ran that ended the turn, if one did.
    pub fired_ns: Option<Nanos>,
    /// Positions in [`Situation::turns`].
    pub turns: Vec<usize>,
}

/// What a session waits for once its transcript has been read to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaits {
    /// The next event.
    Nothing,
    /// What the pending events announce. The transcript is polled meanwhile in case no file event comes.
    Events {
        /// When the transcript is read again if no file event comes before.
        poll: Instant,
    },
    /// A turn that looks finished, without a pending event: it is complete if the transcript has not grown by then.
    Silence { until: Instant },
}

/// Decides which events are settled and which turns are complete.
pub fn decide<V: View>(now: Instant, at: &Situation<'_, V>) -> Decision {
    let mut claimed = Vec::new();
    let mut scope = None;
    let mut fired_ns = None;
    let mut last_fired = None;
    let mut handled = Vec::new();
    for (index, waiting) in at.waiting.iter().enumerate() {
        let quiet = now.saturating_duration_since(at.grown.max(waiting.came));
        // Events are not collected for longer than this, however busy the file is.
        let in_burst = !at.is_superseded && quiet < BURST && now < waiting.came + QUIET;
        let is_done = match waiting.event {
            Event::Other | Event::AgentStopped { .. } => true,
            // A call is written before its tool runs.
            Event::ToolEnded { tool, .. } => at.turns.iter().any(|turn| turn.has_call(tool)) || quiet >= QUIET,
            Event::Ended | Event::Stopped { .. } if in_burst => false,
            // The last line may still get its newline.
            Event::Ended if !at.is_superseded && quiet < QUIET_FINISHED && at.is_line_unfinished => false,
            Event::Ended => {
                scope = Some(Scope::Final);
                last_fired = last_fired.max(Some(waiting.fired_ns));
                // What is complete does not wait for them.
                !waiting.awaits_totals || at.is_superseded || now >= waiting.came + TOTALS
            }
            Event::Stopped { answer } => {
                // With two terminals on one session, the Stop may belong to a turn that was not written to last.
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
            handled.push(index);
        }
    }
    let is_interrupted = at.open.is_some_and(|open| at.turns[open].is_interrupted());
    let is_idle = handled.len() == at.waiting.len();
    let looks_finished = at.turns.iter().any(|turn| turn.looks_finished() && turn.has_news());
    if is_interrupted {
        scope = Some(Scope::Final);
    } else if scope.is_none() && is_idle && looks_finished && now.saturating_duration_since(at.grown) >= QUIET_FINISHED
    {
        scope = Some(Scope::Settled);
    }
    let emission = scope.map(|scope| {
        // A turn that another terminal works on has a Stop of its own, unless the session ends.
        let is_complete = |&index: &usize| {
            at.open == Some(index) || scope == Scope::Final && !is_interrupted || at.turns[index].looks_finished()
        };
        // An event that arrives late, as after a restart, must not end a turn that began later and is in progress.
        let was_there = |&index: &usize| {
            let turn = at.turns[index];
            let is_later = || turn.began().zip(last_fired).is_some_and(|(began, fired)| began > fired);
            is_interrupted || at.is_superseded || turn.looks_finished() || !is_later()
        };
        Emission { scope, fired_ns, turns: (0..at.turns.len()).filter(is_complete).filter(was_there).collect() }
    });
    let mut left = (0..at.waiting.len()).filter(|index| handled.binary_search(index).is_err());
    // A turn that looks finished is part of this emission.
    let awaits =
        awaits(now, at.grown, left.by_ref().map(|index| at.waiting[index].came), emission.is_none() && looks_finished);
    Decision { handled, claimed, emission, awaits }
}

/// What a session waits for while events that `came` at these times are pending. `grown` is when its transcript last grew;
/// `looks_finished` if it has a turn that looks finished and was not emitted.
pub fn awaits(now: Instant, grown: Instant, came: impl IntoIterator<Item = Instant>, looks_finished: bool) -> Awaits {
    match came.into_iter().min() {
        // Polls become rarer with the age of the oldest event, because file events normally come first. Should they get lost,
        // the wait is at most half as long again. Newer events have been polled for already.
        Some(oldest) => {
            let since = now.saturating_duration_since(oldest.max(grown));
            Awaits::Events { poll: now + (since / 2).max(POLL) }
        }
        None if looks_finished => Awaits::Silence { until: grown + QUIET_FINISHED },
        None => Awaits::Nothing,
    }
}

/// When to read the transcript for an event that just came. Events that arrive together until then are served by one read.
/// Nobody waits for an event that is not `hurried`: its session has been silent for long.
pub fn first_poll(now: Instant, event: &Event, is_hurried: bool) -> Instant {
    match event {
        _ if !is_hurried => now,
        Event::Stopped { .. } | Event::Ended => now + BURST,
        Event::AgentStopped { .. } | Event::ToolEnded { .. } | Event::Other => now + COLLECT,
    }
}

/// True if the last line of an ended session counts although it has no newline: none will come. `grown` is when the transcript
/// last grew.
pub fn is_last_line_over(now: Instant, grown: Instant) -> bool {
    now.saturating_duration_since(grown) >= QUIET_FINISHED
}

#[cfg(test)]
mod tests;
