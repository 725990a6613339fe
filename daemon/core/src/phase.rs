//! Where a session stands in the engine's loop, and when it needs attention next.

use std::time::{Duration, Instant};

use crate::complete::Awaits;

/// How long a session stays in memory after its last event.
const RETIRE: Duration = Duration::from_secs(600);

/// The same while it has a running subagent: how long that may be silent before it is considered lost.
const AGENT_LOST: Duration = Duration::from_secs(24 * 3600);

/// The shortest pause that ends by the clock.
const SHORTEST: Duration = Duration::from_millis(1);

/// An enum, so that a session cannot carry data of a phase it is not in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// There may be something to read. It is read once the sessions before it have had their turn.
    Due {
        /// The last read stopped before the end of the transcript.
        has_more: bool,
    },
    /// Not read before the deadline, whatever happens: the database refused a step, the queue is full, or another session comes
    /// first.
    Held { until: Instant, has_more: bool },
    /// Read to the end.
    Read(Awaits),
    /// Not read before the next event: reading hit a bug in this program, or tracing is off in its project.
    Over,
}

impl Phase {
    /// A session of which nothing is known except that an event may come.
    pub const NEW: Self = Self::Read(Awaits::Nothing);

    /// A session that was left partly read.
    pub const LEFT: Self = Self::Due { has_more: false };

    /// The transcript may have grown.
    pub fn wake(&mut self) {
        if let Self::Read(_) = self {
            *self = Self::Due { has_more: false };
        }
    }

    /// A step ended before the end of the transcript.
    pub fn stop_early(&mut self) {
        *self = Self::Due { has_more: true };
    }

    /// Do not read before the deadline.
    pub fn hold(&mut self, until: Instant) {
        *self = Self::Held { until, has_more: self.has_more() };
    }

    /// An event came; the transcript is to be read at `poll`.
    pub fn event(&mut self, poll: Instant) {
        if let Self::Read(awaits) = self {
            let earlier = match awaits {
                Awaits::Events { poll } => Some(*poll),
                Awaits::Nothing | Awaits::Silence { .. } => None,
            };
            *awaits = Awaits::Events { poll: earlier.map_or(poll, |earlier| earlier.min(poll)) };
        }
    }

    /// Someone asked what is left to do: pending events are polled by then at the latest.
    pub fn hurry(&mut self, by: Instant) {
        if let Self::Read(Awaits::Events { poll }) = self {
            *poll = by.min(*poll);
        }
    }

    /// The last read stopped before the end of the transcript.
    pub fn has_more(&self) -> bool {
        matches!(self, Self::Due { has_more: true } | Self::Held { has_more: true, .. })
    }

    /// Its deadline has not passed yet.
    pub fn is_held(&self, now: Instant) -> bool {
        matches!(self, Self::Held { until, .. } if *until > now)
    }

    /// There is something to read, or an event is pending.
    pub fn is_busy(&self) -> bool {
        match self {
            Self::Due { .. } | Self::Held { .. } | Self::Read(Awaits::Events { .. }) => true,
            Self::Read(Awaits::Nothing | Awaits::Silence { .. }) | Self::Over => false,
        }
    }

    /// Nothing to do before the next event.
    pub fn is_idle(&self) -> bool {
        matches!(self, Self::Read(Awaits::Nothing) | Self::Over)
    }

    /// When to read its transcript if nothing happens before; `None` if never. `agents` is when to read those of its subagents.
    fn deadline(&self, now: Instant, agents: Option<Instant>) -> Option<Instant> {
        let own = match self {
            Self::Due { .. } => return Some(now),
            Self::Held { until, .. } => return Some(*until),
            Self::Over => return None,
            Self::Read(Awaits::Events { poll }) => Some(*poll),
            Self::Read(Awaits::Silence { until }) => Some(*until),
            Self::Read(Awaits::Nothing) => None,
        };
        own.into_iter().chain(agents).min()
    }

    /// True if it is to be read now.
    pub fn is_due(&self, now: Instant, agents: Option<Instant>) -> bool {
        self.deadline(now, agents).is_some_and(|at| at <= now)
    }

    /// When it is dropped from memory if no event comes. `touched` is when its last event arrived.
    fn retires(touched: Instant, agents: Option<Instant>) -> Instant {
        touched + if agents.is_some() { AGENT_LOST } else { RETIRE }
    }

    /// True if it can be dropped from memory now. A session with a pending event stays.
    pub fn is_retired(now: Instant, touched: Instant, agents: Option<Instant>) -> bool {
        now >= Self::retires(touched, agents)
    }

    /// How long until it needs attention if nothing happens before.
    pub fn pause(&self, now: Instant, touched: Instant, agents: Option<Instant>) -> Duration {
        if let Self::Due { .. } = self {
            return Duration::ZERO;
        }
        let next = match self {
            Self::Read(Awaits::Nothing) => {
                let retires = Self::retires(touched, agents);
                self.deadline(now, agents).map_or(retires, |at| at.min(retires))
            }
            _ => self.deadline(now, agents).unwrap_or(now),
        };
        next.saturating_duration_since(now).max(SHORTEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Converts milliseconds to instants of these tests' clock.
    fn clock() -> impl Fn(u64) -> Instant {
        let start = Instant::now();
        move |ms| start + Duration::from_millis(ms)
    }

    fn events(poll: Instant) -> Phase {
        Phase::Read(Awaits::Events { poll })
    }

    fn silence(until: Instant) -> Phase {
        Phase::Read(Awaits::Silence { until })
    }

    #[test]
    fn a_session_is_due_when_its_phase_says_so() {
        let at = clock();
        let now = at(10_000);
        let held = |until| Phase::Held { until, has_more: false };
        let days = 24 * 3_600_000;
        for (name, phase, touched, agents, is_due, pause) in [
            ("there is something to read", Phase::LEFT, 0, None, true, 0),
            ("there is more to read", Phase::Due { has_more: true }, 0, Some(20_000), true, 0),
            ("it is held", held(at(10_500)), 0, None, false, 500),
            ("it is held, whatever its subagents do", held(at(10_500)), 0, Some(9_000), false, 500),
            ("its deadline has come", held(now), 0, None, true, 1),
            ("its deadline has passed", held(at(9_000)), 0, None, true, 1),
            ("events wait", events(at(10_020)), 0, None, false, 20),
            ("events wait, and are polled for", events(now), 0, None, true, 1),
            ("a subagent is polled before", events(at(10_020)), 0, Some(10_005), false, 5),
            ("a subagent is polled now", events(at(10_020)), 0, Some(9_999), true, 1),
            ("silence ends a turn", silence(at(15_000)), 0, None, false, 5_000),
            ("silence has ended a turn", silence(now), 0, None, true, 1),
            ("a subagent is polled before the silence is over", silence(at(15_000)), 0, Some(11_000), false, 1_000),
            ("nothing is awaited: it is kept for a while", Phase::NEW, 10_000, None, false, 600_000),
            ("it was kept for a while", Phase::NEW, 5_000, None, false, 595_000),
            ("a subagent is at work", Phase::NEW, 10_000, Some(12_000), false, 2_000),
            ("a subagent that is silent is lost", Phase::NEW, 10_000, Some(2 * days), false, days),
            ("a subagent is due", Phase::NEW, 10_000, Some(10_000), true, 1),
            ("it is over", Phase::Over, 10_000, Some(9_000), false, 1),
        ] {
            let agents = agents.map(&at);
            assert_eq!(phase.is_due(now, agents), is_due, "{name}");
            assert_eq!(phase.pause(now, at(touched), agents).as_millis(), u128::from(pause), "{name}");
        }
    }

    #[test]
    fn each_event_leads_to_the_expected_phase() {
        let at = clock();
        let (behind, left) = (Phase::Due { has_more: true }, Phase::LEFT);
        let held = |until, has_more| Phase::Held { until: at(until), has_more };
        type Change<'a> = &'a dyn Fn(&mut Phase);
        let wake: Change<'_> = &Phase::wake;
        let event: Change<'_> = &|phase| phase.event(at(20));
        let hurry: Change<'_> = &|phase| phase.hurry(at(20));
        let hold: Change<'_> = &|phase| phase.hold(at(20));
        let stop_early: Change<'_> = &Phase::stop_early;
        for (name, before, change, after) in [
            ("a file changed", Phase::NEW, wake, left),
            ("a file changed while events wait", events(at(50)), wake, left),
            ("a file changed before its turn was complete", silence(at(50)), wake, left),
            ("a file changed that is read in steps", behind, wake, behind),
            ("a file changed of a session that is held", held(9, true), wake, held(9, true)),
            ("a file changed of a session that is over", Phase::Over, wake, Phase::Over),
            ("the first event", Phase::NEW, event, events(at(20))),
            ("an event more", events(at(50)), event, events(at(20))),
            ("an event that can wait longer", events(at(10)), event, events(at(10))),
            ("an event instead of silence", silence(at(10)), event, events(at(20))),
            ("an event of a session that is due", left, event, left),
            ("an event of a session that is held", held(9, false), event, held(9, false)),
            ("a person asks", events(at(50)), hurry, events(at(20))),
            ("a person asks late", events(at(10)), hurry, events(at(10))),
            ("nothing waits when a person asks", silence(at(50)), hurry, silence(at(50))),
            ("the database refused", left, hold, held(20, false)),
            ("its queue is full in the middle of it", behind, hold, held(20, true)),
            ("and still is", held(9, true), hold, held(20, true)),
            ("what was read is not stored", Phase::NEW, hold, held(20, false)),
            ("a step was over", left, stop_early, behind),
        ] {
            let mut phase = before;
            change(&mut phase);
            assert_eq!(phase, after, "{name}");
        }
    }

    #[test]
    fn each_phase_has_its_deadline_and_work() {
        let at = clock();
        let now = at(100);
        let held = |until, has_more| Phase::Held { until: at(until), has_more };
        for (phase, is_busy, is_idle, has_more, is_held) in [
            (Phase::LEFT, true, false, false, false),
            (Phase::Due { has_more: true }, true, false, true, false),
            (held(101, false), true, false, false, true),
            (held(100, true), true, false, true, false),
            (events(at(1)), true, false, false, false),
            (silence(at(1)), false, false, false, false),
            (Phase::NEW, false, true, false, false),
            (Phase::Over, false, true, false, false),
        ] {
            let is = (phase.is_busy(), phase.is_idle(), phase.has_more(), phase.is_held(now));
            assert_eq!(is, (is_busy, is_idle, has_more, is_held), "{phase:?}");
        }
    }

    #[test]
    fn a_silent_session_is_retired_later_if_it_has_a_subagent() {
        let at = clock();
        for (silent_s, agents, expect) in
            [(599, false, false), (600, false, true), (600, true, false), (86_399, true, false), (86_400, true, true)]
        {
            let agents = agents.then(|| at(5));
            assert_eq!(Phase::is_retired(at(silent_s * 1000), at(0), agents), expect, "{silent_s} s");
        }
    }
}
