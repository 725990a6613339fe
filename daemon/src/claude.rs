//! What Claude Code of which version understands, and how hooks are registered with it.
//!
//! Before 2.1.120 an event name that it does not know turns off *all* hooks of a settings file, and says nothing.

use serde_json::{Map, Value, json};

/// A version of Claude Code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

impl Version {
    /// Reads what `claude --version` prints, as in `2.1.329 (Claude Code)`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split_whitespace().next()?.trim_start_matches('v').splitn(3, '.');
        let (major, minor, patch) = (numbers.next()?, numbers.next()?, numbers.next()?);
        let patch = patch.split(['-', '+', '.']).next()?;
        Some(Self(major.parse().ok()?, minor.parse().ok()?, patch.parse().ok()?))
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// The events the hook is registered for, each with the lowest version that is known to have it.
const EVENTS: [(&str, Version); 6] = [
    ("Stop", Version(0, 0, 0)),
    ("SubagentStop", Version(1, 0, 59)),
    ("UserPromptSubmit", Version(1, 0, 59)),
    ("SessionStart", Version(2, 0, 75)),
    ("SessionEnd", Version(2, 0, 75)),
    ("StopFailure", Version(2, 1, 94)),
];

/// The events to register with Claude Code of this version. Where the version is not known, those that every version has that
/// hooks are known of.
pub fn events(version: Option<Version>) -> impl Iterator<Item = &'static str> {
    let version = version.unwrap_or(Version(1, 0, 59));
    EVENTS.iter().filter(move |(_, since)| *since <= version).map(|(name, _)| *name)
}

/// The path of a hook as a command, which Claude Code gives to a shell. Claude Code runs a command once that is registered
/// twice, so it must be spelled the same way everywhere.
pub fn command(hook: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@:,=".contains(c);
    if !hook.is_empty() && hook.chars().all(plain) {
        hook.to_owned()
    } else {
        format!("'{}'", hook.replace('\'', r"'\''"))
    }
}

/// One entry in the list of an event's hooks.
pub fn entry(command: &str) -> Value {
    json!({ "hooks": [{ "type": "command", "command": command }] })
}

/// The `hooks` block of a settings file in which `command` is registered for `events`.
pub fn hooks(command: &str, events: impl IntoIterator<Item = &'static str>) -> Map<String, Value> {
    events.into_iter().map(|event| (event.to_owned(), json!([entry(command)]))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_from_what_claude_code_prints() {
        for (text, expect) in [
            ("2.1.329 (Claude Code)\n", Some(Version(2, 1, 329))),
            ("1.0.59 (Claude Code)", Some(Version(1, 0, 59))),
            ("v2.0.75", Some(Version(2, 0, 75))),
            ("2.2.0-beta.1 (Claude Code)", Some(Version(2, 2, 0))),
            ("2.1", None),
            ("Claude Code 2.1.329", None),
            ("2.1.x", None),
            ("", None),
        ] {
            assert_eq!(Version::parse(text), expect, "{text:?}");
        }
        assert_eq!(Version(2, 1, 9).to_string(), "2.1.9");
        assert!(Version(2, 1, 120) > Version(2, 1, 94));
    }

    #[test]
    fn no_version_is_given_an_event_that_it_was_not_seen_to_have() {
        let oldest = ["Stop", "SubagentStop", "UserPromptSubmit"];
        let second = ["Stop", "SubagentStop", "UserPromptSubmit", "SessionStart", "SessionEnd"];
        let all = ["Stop", "SubagentStop", "UserPromptSubmit", "SessionStart", "SessionEnd", "StopFailure"];
        for (version, expect) in [
            (None, &oldest[..]),
            (Some(Version(1, 0, 38)), &["Stop"]),
            (Some(Version(1, 0, 59)), &oldest),
            (Some(Version(2, 0, 75)), &second),
            (Some(Version(2, 1, 3)), &second),
            (Some(Version(2, 1, 71)), &second),
            (Some(Version(2, 1, 94)), &all),
            (Some(Version(2, 1, 329)), &all),
        ] {
            assert_eq!(events(version).collect::<Vec<_>>(), expect, "{version:?}");
        }
    }

    #[test]
    fn a_command_is_one_word_to_a_shell() {
        for (path, expect) in [
            ("/home/you/.local/bin/cc-langfuse-hook", "/home/you/.local/bin/cc-langfuse-hook"),
            ("/home/a b/hook", "'/home/a b/hook'"),
            ("/home/it's/$x", r"'/home/it'\''s/$x'"),
            ("/home/é/hook", "'/home/é/hook'"),
        ] {
            assert_eq!(command(path), expect);
        }
    }

    #[test]
    fn hooks_are_registered_as_claude_code_reads_them() {
        let expect = json!({ "Stop": [{ "hooks": [{ "type": "command", "command": "/h" }] }] });
        assert_eq!(Value::Object(hooks("/h", ["Stop"])), expect);
    }
}
