//! What each version of Claude Code supports.
//!
//! Before 2.1.120, one unknown event name silently turns off *all* hooks of a settings file.

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

/// Assumed where the version is unknown: the oldest one known to work.
const OLDEST: Version = Version(1, 0, 59);

/// From this version on, an unknown event name does not affect the others.
const TOLERANT: Version = Version(2, 1, 120);

/// The latest version whose transcripts were recorded: everything in its transcripts is known here.
const RECORDED: Version = Version(2, 1, 332);

/// Each event, the lowest version seen to support it, and whether `setup` registers the hook for it. Registered are events that
/// say something the transcript does not, or say it sooner, and that fire only a few times per turn. `SessionStart` announces a
/// session that may never stop; `Stop`, `StopFailure`, `SubagentStop` and `SessionEnd` close turns, subagents and sessions.
const EVENTS: [(&str, Version, bool); 13] = [
    ("Stop", Version(0, 0, 0), true),
    ("PreToolUse", Version(0, 0, 0), false),
    ("PostToolUse", Version(0, 0, 0), false),
    ("Notification", Version(0, 0, 0), false),
    ("SubagentStop", Version(1, 0, 59), true),
    ("UserPromptSubmit", Version(1, 0, 59), false),
    ("PreCompact", Version(1, 0, 59), false),
    ("SessionStart", Version(2, 0, 0), true),
    ("SessionEnd", Version(2, 0, 0), true),
    ("PostToolUseFailure", Version(2, 0, 75), false),
    ("SubagentStart", Version(2, 0, 75), false),
    ("PermissionRequest", Version(2, 0, 75), false),
    ("StopFailure", Version(2, 1, 94), true),
];

impl Version {
    /// Reads what `claude --version` prints, as in `2.1.329 (Claude Code)`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split_whitespace().next()?.trim_start_matches('v').splitn(3, '.');
        let (major, minor, patch) = (numbers.next()?, numbers.next()?, numbers.next()?);
        let patch = patch.split(['-', '+', '.']).next()?;
        Some(Self(major.parse().ok()?, minor.parse().ok()?, patch.parse().ok()?))
    }

    /// True if it may write lines that are unknown here.
    pub fn is_new(self) -> bool {
        self > RECORDED
    }

    /// Whether it supports an event.
    pub fn knows(self, event: &str) -> Knows {
        if self >= TOLERANT {
            return Knows::Yes;
        }
        match EVENTS.iter().find(|(name, ..)| *name == event) {
            Some((_, since, _)) if *since <= self => Knows::Yes,
            // Support may have come in any version between the two that were examined.
            Some(_) if self > Self(2, 1, 71) => Knows::Maybe,
            None if self > Self(2, 1, 3) => Knows::Maybe,
            _ => Knows::No,
        }
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// Whether a version supports an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knows {
    /// It does, or ignores it without harm.
    Yes,
    /// Not examined.
    Maybe,
    /// It does not, and turns all hooks off.
    No,
}

/// The events to register the hook for with Claude Code of this version.
pub fn events(version: Option<Version>) -> Vec<&'static str> {
    let version = version.unwrap_or(OLDEST);
    EVENTS.iter().filter(|(_, since, ours)| *ours && *since <= version).map(|(name, ..)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_parsed_from_the_output_of_claude() {
        for (text, expect) in [
            ("2.1.329 (Claude Code)\n", Some(Version(2, 1, 329))),
            ("1.0.59 (Claude Code)", Some(Version(1, 0, 59))),
            ("v2.0.75", Some(Version(2, 0, 75))),
            ("2.2.0-beta.1 (Claude Code)", Some(Version(2, 2, 0))),
            ("2.1", None),
            ("Claude Code 2.1.329", None),
            ("2.1.x", None),
            ("nonsense", None),
            ("", None),
        ] {
            assert_eq!(Version::parse(text), expect, "{text:?}");
        }
        assert_eq!(Version(2, 1, 9).to_string(), "2.1.9");
        assert!(Version(2, 1, 120) > Version(2, 1, 94));
    }

    #[test]
    fn no_version_gets_an_event_it_does_not_support() {
        // Observed: 7 events in 1.0.59, 12 in 2.0.75 and 2.1.3; StopFailure in 2.1.94 but not in 2.1.71.
        let old = ["Stop", "SubagentStop"];
        let newer = ["Stop", "SubagentStop", "SessionStart", "SessionEnd"];
        let newest = ["Stop", "SubagentStop", "SessionStart", "SessionEnd", "StopFailure"];
        for (version, expect) in [
            (None, &old[..]),
            (Some(Version(1, 0, 38)), &old[..1]),
            (Some(Version(1, 0, 59)), &old),
            (Some(Version(1, 0, 128)), &old),
            (Some(Version(2, 0, 75)), &newer),
            (Some(Version(2, 1, 3)), &newer),
            (Some(Version(2, 1, 71)), &newer),
            (Some(Version(2, 1, 94)), &newest),
            (Some(Version(2, 1, 120)), &newest),
            (Some(Version(2, 1, 329)), &newest),
            (Some(Version(3, 0, 0)), &newest),
        ] {
            assert_eq!(events(version), expect, "{version:?}");
            assert!(events(version).iter().all(|event| version.is_none_or(|v| v.knows(event) == Knows::Yes)));
        }
    }

    /// The table of events in docs/coverage.md.
    fn coverage() -> String {
        let mut table = "| event | known from | registered by `setup` |\n|---|---|---|\n".to_owned();
        for (event, since, registered) in EVENTS {
            let since = if since == Version(0, 0, 0) { "all examined".to_owned() } else { since.to_string() };
            table += &format!("| `{event}` | {since} | {} |\n", if registered { "yes" } else { "–" });
        }
        table
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a page of this repository, and whether it is to be written")]
    fn the_coverage_page_lists_the_events() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/coverage.md");
        let page = std::fs::read_to_string(&path).unwrap();
        let (begin, end) = ("<!-- events:begin -->", "<!-- events:end -->");
        let (before, rest) = page.split_once(begin).unwrap();
        let (block, after) = rest.split_once(end).unwrap();
        if std::env::var_os("CC_LANGFUSE_UPDATE").is_some() {
            std::fs::write(&path, format!("{before}{begin}\n{}{end}{after}", coverage())).unwrap();
        } else {
            assert_eq!(block.trim(), coverage().trim(), "{}", path.display());
        }
    }
}
