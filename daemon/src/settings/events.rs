//! Which hook events are worth registering, and which of them a version of Claude Code knows.

/// A version of Claude Code.
pub type Version = [u32; 3];

/// Events that say something the transcript does not, or say it sooner, each with the first version that is known to know it. None
/// of them comes more than a few times in a turn.
///
/// An event that Claude Code does not know turns off all hooks before 2.1.120. `SessionStart` makes a session known that never stops;
/// `Stop`, `StopFailure`, `SubagentStop` and `SessionEnd` close turns, agents and sessions.
const EVENTS: [(&str, Version); 5] = [
    ("Stop", [0, 0, 0]),
    ("SubagentStop", [1, 0, 59]),
    ("SessionStart", [2, 0, 0]),
    ("SessionEnd", [2, 0, 0]),
    ("StopFailure", [2, 1, 94]),
];

/// What is assumed where the version cannot be told: the oldest that is known to work.
pub const OLDEST: Version = [1, 0, 59];

/// The events to register for `version`.
pub fn events(version: Option<Version>) -> Vec<&'static str> {
    let version = version.unwrap_or(OLDEST);
    EVENTS.iter().filter(|(_, since)| *since <= version).map(|(name, _)| *name).collect()
}

/// Every event there is a registration for in some version.
pub fn all() -> impl Iterator<Item = &'static str> {
    EVENTS.iter().map(|(name, _)| *name)
}

/// The version in what `claude --version` prints, as in `2.1.329 (Claude Code)`.
pub fn version(printed: &str) -> Option<Version> {
    let mut numbers = printed.split_whitespace().next()?.split(['-', '+']).next()?.split('.');
    let version = [(); 3].map(|()| numbers.next().and_then(|number| number.parse().ok()));
    let [Some(major), Some(minor), Some(patch)] = version else { return None };
    numbers.next().is_none().then_some([major, minor, patch])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_version_is_given_an_event_it_does_not_know() {
        // What was seen to be known: 7 events in 1.0.59, 12 in 2.0.75 and 2.1.3, StopFailure from 2.1.94 and not in 2.1.71.
        let old = ["Stop", "SubagentStop"];
        let newer = ["Stop", "SubagentStop", "SessionStart", "SessionEnd"];
        let newest = ["Stop", "SubagentStop", "SessionStart", "SessionEnd", "StopFailure"];
        for (printed, expect) in [
            ("", &old[..]),
            ("nonsense", &old),
            ("2.1 (Claude Code)", &old),
            ("1.0.38 (Claude Code)", &old[..1]),
            ("1.0.59 (Claude Code)\n", &old),
            ("1.0.128 (Claude Code)", &old),
            ("2.0.75 (Claude Code)", &newer),
            ("2.1.3 (Claude Code)", &newer),
            ("2.1.71 (Claude Code)", &newer),
            ("2.1.94 (Claude Code)", &newest),
            ("2.1.120 (Claude Code)", &newest),
            ("2.1.329 (Claude Code)", &newest),
            ("2.1.330-beta.1 (Claude Code)", &newest),
            ("3.0.0", &newest),
        ] {
            assert_eq!(events(version(printed)), expect, "{printed:?}");
        }
    }
}
