//! What may be read, and queued for which destination: back-pressure, pauses, history, and turns from a time when tracing was
//! off.
//!
//! Comes in: how much waits, and what led to the session. Goes out: an [`Admission`]. Knows neither files nor the database.

use std::{ops::RangeInclusive, time::Duration};

use crate::{hook::Source, transcript::record::Nanos};

pub mod outcome;

/// How many sessions are read at the same time when nobody waits for them.
pub const MAX_UNHURRIED: usize = 4;

/// How many more of these may be in memory because their destinations take nothing for now.
const MAX_BLOCKED: usize = 16;

/// How many bytes may wait for a destination before history stops adding to them. Live sessions queue behind these.
const MAX_HISTORY_BYTES: u64 = 16 << 20;

/// How many bytes may wait for a destination that delivers before long sessions, and sessions nobody waits for, stop adding to
/// them. All others queue behind these.
const PACE_BYTES: u64 = 2 << 20;

/// The same for sessions found by a scan. There may be thousands, and reading is faster than most servers. A larger value would
/// fill batches better and cost fewer transactions, but delay the others.
const FOUND_PACE_BYTES: u64 = 256 << 10;

/// The retry interval for sessions that wait for [`Wait::Pace`].
const PACE_RETRY: Duration = Duration::from_millis(50);

/// The retry interval for sessions that wait for a delivery, the end of a pause, or the database.
pub const RETRY: Duration = Duration::from_secs(1);

/// A destination without any delivery for longer than this is not waited for.
pub const DELIVERING: Duration = Duration::from_secs(30);

/// How many sessions may be started that nobody waits for. Of those in memory, `held` are blocked and `busy` are being read.
pub fn room(held: usize, busy: usize) -> usize {
    if held < MAX_BLOCKED { MAX_UNHURRIED.saturating_sub(busy) } else { 0 }
}

/// The session that wants to add to queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reader {
    /// The source of its latest event.
    pub source: Source,
    /// Nobody waits for its spans, or it is long.
    pub can_wait: bool,
}

/// Why a session is not read for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The project is paused. Live sessions pass over what is said meanwhile; history waits for the end of the pause.
    Paused,
    /// None of its destinations has room.
    Full,
    /// A destination that delivers has enough to do; a session nobody waits for can wait.
    Pace,
}

impl Wait {
    /// The retry interval.
    pub fn retry(self) -> Duration {
        match self {
            Self::Paused | Self::Full => RETRY,
            Self::Pace => PACE_RETRY,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub struct Admission {
    /// Positions of the destinations that have no room: they fall behind.
    pub behind: Vec<usize>,
    /// Why the session is not read now; `None` if it is.
    pub wait: Option<Wait>,
}

/// How many bytes may wait for a destination when an event of `source` adds to them. `limit` is the bound for all sources.
pub fn limit(source: Source, limit: u64) -> u64 {
    if source == Source::Backfill { limit.min(MAX_HISTORY_BYTES) } else { limit }
}

/// Decides for which destinations `reader` may queue. `waiting` has the bytes that wait for each; `limit` is their bound.
/// `is_paused` and `is_delivering` (within [`DELIVERING`], by position) are called only where they matter.
pub fn admit(
    reader: Reader,
    limit: u64,
    waiting: &[u64],
    is_paused: impl FnOnce() -> bool,
    is_delivering: impl Fn(usize) -> bool,
) -> Admission {
    let limit = self::limit(reader.source, limit);
    let behind: Vec<usize> = (0..waiting.len()).filter(|&to| waiting[to] >= limit).collect();
    let pace = if reader.source == Source::Scan { FOUND_PACE_BYTES } else { PACE_BYTES };
    let is_ahead = |to: usize| waiting[to] >= pace && is_delivering(to);
    let wait = if reader.source == Source::Backfill && is_paused() {
        Some(Wait::Paused)
    } else if behind.len() == waiting.len() {
        Some(Wait::Full)
    } else if reader.can_wait && (0..waiting.len()).any(is_ahead) {
        Some(Wait::Pace)
    } else {
        None
    };
    Admission { behind, wait }
}

/// Where reading starts when the user hands over a session's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum History {
    /// At its stored position.
    GoesOn,
    /// From its start: it went elsewhere before, or some of it was left out.
    FromStart,
    /// Not yet: part of it is still to be emitted to its earlier destination.
    NotNow,
}

/// At its start: it went to another destination before, or part of it was left out.
pub fn history(is_same: bool, again: bool, has_unemitted: impl FnOnce() -> bool) -> History {
    if is_same && !again {
        History::GoesOn
    } else if has_unemitted() {
        History::NotNow
    } else {
        History::FromStart
    }
}

/// True if a turn that began at `start` is left out because tracing was `off` in its project. It is kept if the user asks for
/// the session's history, or if a hook ran with tracing on while it was the session's last turn. `next` is when the following
/// turn began. `events` has source and time of each event that led to the session.
pub fn leaves_out(
    off: &[RangeInclusive<Nanos>],
    mut events: impl Iterator<Item = (Source, Nanos)>,
    start: Nanos,
    next: Option<Nanos>,
) -> bool {
    let is_its = |fired: Nanos| fired >= start && next.is_none_or(|next| fired < next);
    off.iter().any(|off| off.contains(&start))
        && !events.any(|(source, fired)| source.is_asked_for() || source.is_hook() && is_its(fired))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Source; 6] =
        [Source::Hook, Source::Scan, Source::Recovery, Source::Reread, Source::Backfill, Source::Replay];

    #[test]
    fn few_unhurried_sessions_are_started_at_once() {
        for (held, busy, expect) in [(0, 0, 4), (0, 3, 1), (0, 4, 0), (0, 9, 0), (15, 0, 4), (16, 0, 0), (15, 4, 0)] {
            assert_eq!(room(held, busy), expect, "{held} held, {busy} busy");
        }
    }

    #[test]
    fn reading_stops_when_the_queue_of_a_destination_is_full() {
        const LIMIT: u64 = 512 << 20;
        let (live, patient) = ((Source::Hook, false), (Source::Hook, true));
        let (found, history) = ((Source::Scan, true), (Source::Backfill, true));
        for (name, (source, can_wait), waiting, paused, delivering, expect) in [
            ("nothing waits", live, 0, false, true, None),
            ("much waits", live, LIMIT - 1, false, true, None),
            ("a pause is for what is said in it to be passed over", live, 0, true, true, None),
            ("the queue is full", live, LIMIT, false, true, Some(Wait::Full)),
            ("the queue is full in a pause", live, LIMIT, true, false, Some(Wait::Full)),
            ("a long session", patient, PACE_BYTES - 1, false, true, None),
            ("a long session behind others", patient, PACE_BYTES, false, true, Some(Wait::Pace)),
            ("a long session, nothing is delivered", patient, PACE_BYTES, false, false, None),
            ("what a search found", found, FOUND_PACE_BYTES - 1, false, true, None),
            ("what a search found behind others", found, FOUND_PACE_BYTES, false, true, Some(Wait::Pace)),
            ("what a search found in a pause", found, 0, true, true, None),
            ("what a search found, the queue is full", found, LIMIT, false, true, Some(Wait::Full)),
            ("history", history, 0, false, true, None),
            ("history behind others", history, PACE_BYTES, false, true, Some(Wait::Pace)),
            ("history, nothing is delivered", history, MAX_HISTORY_BYTES - 1, false, false, None),
            (
                "history, nothing is delivered and enough waits",
                history,
                MAX_HISTORY_BYTES,
                false,
                false,
                Some(Wait::Full),
            ),
            ("history in a pause", history, 0, true, true, Some(Wait::Paused)),
            ("history in a pause, the queue is full", history, LIMIT, true, true, Some(Wait::Paused)),
            ("history, the queue is full", history, LIMIT, false, true, Some(Wait::Full)),
        ] {
            let is = admit(Reader { source, can_wait }, LIMIT, &[waiting], || paused, |_| delivering);
            assert_eq!(is.wait, expect, "{name}");
            assert_eq!(is.behind.len(), usize::from(waiting >= limit(source, LIMIT)), "{name}");
        }
        assert_eq!((limit(Source::Backfill, 9), limit(Source::Backfill, LIMIT)), (9, MAX_HISTORY_BYTES));
        assert_eq!([Wait::Paused, Wait::Full, Wait::Pace].map(|wait| wait.retry().as_millis()), [1000, 1000, 50]);
    }

    #[test]
    fn a_full_queue_does_not_delay_other_destinations() {
        for (name, can_wait, waiting, delivering, behind, wait) in [
            ("both take", false, [0, 0], [true, true], vec![], None),
            ("the first falls behind", false, [9, 0], [true, true], vec![0], None),
            ("the second falls behind", false, [0, 9], [true, true], vec![1], None),
            ("neither takes", false, [9, 9], [true, true], vec![0, 1], Some(Wait::Full)),
            ("one waits for what it delivers", true, [PACE_BYTES, 0], [true, false], vec![0], Some(Wait::Pace)),
            ("one that delivers nothing is not waited for", true, [PACE_BYTES, 0], [false, true], vec![0], None),
        ] {
            let reader = Reader { source: Source::Hook, can_wait };
            let is = admit(reader, 9, &waiting, || false, |to| delivering[to]);
            assert_eq!(is, Admission { behind, wait }, "{name}");
        }
        let reader = Reader { source: Source::Hook, can_wait: false };
        assert_eq!(admit(reader, 9, &[], || false, |_| false).wait, Some(Wait::Full), "there is none");
    }

    #[test]
    fn history_is_read_from_the_start_for_a_new_destination() {
        for (is_same, again, has_unemitted, expect) in [
            (true, false, false, History::GoesOn),
            (true, false, true, History::GoesOn),
            (true, true, false, History::FromStart),
            (true, true, true, History::NotNow),
            (false, false, false, History::FromStart),
            (false, false, true, History::NotNow),
            (false, true, false, History::FromStart),
            (false, true, true, History::NotNow),
        ] {
            let is = history(is_same, again, || has_unemitted);
            assert_eq!(is, expect, "same: {is_same}, again: {again}, unemitted: {has_unemitted}");
        }
    }

    #[test]
    fn turns_from_while_tracing_was_off_are_left_out() {
        let off = [100..=200, 300..=400];
        let hook = |fired| vec![(Source::Hook, fired)];
        for (name, events, start, next, expect) in [
            ("tracing was on", vec![], 250, None, false),
            ("it was on before", vec![], 99, None, false),
            ("it was off", vec![], 100, None, true),
            ("it was off again", vec![], 400, None, true),
            ("a hook ran during the turn", hook(250), 150, None, false),
            ("a hook ran when it began", hook(150), 150, Some(300), false),
            ("a hook ran before the turn", hook(149), 150, None, true),
            ("a hook ran during the next turn", hook(300), 150, Some(300), true),
            ("a hook ran at its last moment", hook(299), 150, Some(300), false),
            (
                "one of several hooks ran during the turn",
                [hook(10), hook(160), hook(900)].concat(),
                150,
                Some(300),
                false,
            ),
        ] {
            assert_eq!(leaves_out(&off, events.into_iter(), start, next), expect, "{name}");
        }
        for source in ALL {
            // The user may ask for history at any time; an event from the daemon's own scan proves nothing.
            let during = leaves_out(&off, [(source, 160)].into_iter(), 150, None);
            let before = leaves_out(&off, [(source, 1)].into_iter(), 150, None);
            let expect = match source {
                Source::Hook => (false, true),
                Source::Backfill | Source::Replay => (false, false),
                Source::Scan | Source::Recovery | Source::Reread => (true, true),
            };
            assert_eq!((during, before), expect, "{source:?}");
        }
    }
}
