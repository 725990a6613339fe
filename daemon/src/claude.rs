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

/// Adds `env`, and `command` for each of `events` that has it not yet, to settings.
///
/// # Errors
/// Which part of the settings has not the form it must have; they are then as they were.
pub fn add(
    settings: &mut Map<String, Value>,
    command: &str,
    events: impl IntoIterator<Item = &'static str>,
    env: &[(&str, &str)],
) -> Result<(), &'static str> {
    let mut new = settings.clone();
    let vars = new.entry("env").or_insert_with(|| json!({})).as_object_mut().ok_or("env is no object")?;
    vars.extend(env.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))));
    let hooks = new.entry("hooks").or_insert_with(|| json!({})).as_object_mut().ok_or("hooks is no object")?;
    for event in events {
        let list = hooks.entry(event).or_insert_with(|| json!([]));
        let list = list.as_array_mut().ok_or("the hooks of an event are no list")?;
        let commands = list.iter().filter_map(|group| group["hooks"].as_array()).flatten();
        if !commands.into_iter().any(|hook| hook["command"] == command) {
            list.push(entry(command));
        }
    }
    *settings = new;
    Ok(())
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

    #[test]
    fn settings_are_added_to_and_nothing_is_taken_away() {
        let ours = || entry("/h");
        let filtered = json!({ "matcher": "x", "hooks": [{ "type": "command", "command": "/other" }] });
        for (before, after) in [
            (json!({}), Ok(json!({ "env": { "A": "1" }, "hooks": { "Stop": [ours()] } }))),
            (
                json!({ "model": "m", "env": { "A": "0", "B": "2" }, "hooks": { "Stop": [filtered], "X": [] } }),
                Ok(
                    json!({ "model": "m", "env": { "A": "1", "B": "2" }, "hooks": { "Stop": [filtered, ours()], "X": [] } }),
                ),
            ),
            (
                json!({ "hooks": { "Stop": [ours()] } }),
                Ok(json!({ "env": { "A": "1" }, "hooks": { "Stop": [ours()] } })),
            ),
            (json!({ "env": [] }), Err("env is no object")),
            (json!({ "hooks": 1 }), Err("hooks is no object")),
            (json!({ "hooks": { "Stop": {} } }), Err("the hooks of an event are no list")),
        ] {
            let Value::Object(mut settings) = before.clone() else { panic!("an object") };
            let added = add(&mut settings, "/h", ["Stop"], &[("A", "1")]);
            let settings = Value::Object(settings);
            match after {
                Ok(after) => assert_eq!((added, settings), (Ok(()), after)),
                Err(why) => assert_eq!((added, settings), (Err(why), before)),
            }
        }
    }
}
