//! MLflow's own integration in a settings file of Claude Code. It reads the same variables, so both would send every turn.
//! Finds it, turns it off, and on again. Comes in: text. Goes out: text.
//!
//! From MLflow 3.13 on it is a plugin of Claude Code; 3.12 and earlier register a Stop hook.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::edit::{self, Error, Node, Step};

/// The plugin's name in `enabledPlugins`.
pub const PLUGIN: &str = "mlflow-tracing@mlflow-plugins";

const PLUGIN_PATH: [Step<'_>; 2] = [Step::Key("enabledPlugins"), Step::Key(PLUGIN)];

/// What a settings file says about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rival {
    /// Whether the plugin is on; `None` if the file does not say.
    pub plugin: Option<bool>,
    /// Events for which its hook is registered.
    pub hooks: Vec<String>,
}

impl Rival {
    /// Reads a text; empty if it is not JSON.
    pub fn of(text: &str) -> Self {
        serde_json::from_str(super::split_mark(text).1).map(|settings| Self::read(&settings)).unwrap_or_default()
    }

    pub fn read(settings: &Value) -> Self {
        let events = settings["hooks"].as_object().into_iter().flatten();
        let has_hook = |groups: &Value| {
            let hooks = groups.as_array().into_iter().flatten().filter_map(|group| group["hooks"].as_array()).flatten();
            hooks.filter_map(|hook| hook["command"].as_str()).any(is_hook)
        };
        Self {
            plugin: settings["enabledPlugins"][PLUGIN].as_bool(),
            hooks: events.filter(|(_, groups)| has_hook(groups)).map(|(event, _)| event.clone()).collect(),
        }
    }

    /// Whether it is active given these files, weakest first.
    pub fn is_active<'a>(files: impl IntoIterator<Item = &'a Self>) -> bool {
        let (mut plugin, mut hooks) = (false, false);
        for file in files {
            plugin = file.plugin.unwrap_or(plugin);
            hooks |= !file.hooks.is_empty();
        }
        plugin || hooks
    }
}

/// True for a command that sends MLflow traces: `mlflow autolog claude stop-hook`, or the module it was before 3.4.
fn is_hook(command: &str) -> bool {
    let words = super::words(command);
    let names = |name: &str| words.iter().any(|word| word.contains(name));
    (names("mlflow") && names("autolog") && names("claude") && names("stop-hook")) || names("mlflow.claude_code.hooks")
}

/// What was turned off in a file: enough to restore it together with the file's original.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Off {
    #[serde(default)]
    pub plugin: bool,
    /// Events whose hooks were removed.
    #[serde(default)]
    pub hooks: Vec<String>,
}

impl Off {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Removes the hooks and turns the plugin off if it is on here or, by `is_on_elsewhere`, in a file that this one overrides.
///
/// # Errors
/// If `text` is not JSON, or `enabledPlugins` has a type that Claude Code does not accept.
pub fn turn_off(text: &str, is_on_elsewhere: bool) -> Result<(String, Off), Error> {
    let found = Rival::of(text);
    let mut text = text.to_owned();
    let mut off = Off::default();
    if found.plugin.unwrap_or(is_on_elsewhere) {
        text = edit::put(&text, &PLUGIN_PATH, &false.into())?;
        off.plugin = true;
    }
    for event in found.hooks {
        while let Some((group, at, alone)) = first_hook(&text, &event)? {
            let path = [Step::Key("hooks"), Step::Key(&event), Step::At(group), Step::Key("hooks"), Step::At(at)];
            text = edit::cut(&text, if alone { &path[..3] } else { &path[..] })?;
        }
        off.hooks.push(event);
    }
    Ok((text, off))
}

/// Restores what was turned `off` as it was in `original`. Later changes by others stay.
///
/// # Errors
/// If `text` is not JSON.
pub fn restore(text: &str, original: Option<&str>, off: &Off) -> Result<String, Error> {
    let original =
        original.map(|text| super::split_mark(text).1).filter(|text| !text.trim().is_empty()).unwrap_or("{}");
    let (before, was) = (edit::parse(original)?, Rival::of(original));
    let mut text = text.to_owned();
    if off.plugin && Rival::of(&text).plugin == Some(false) {
        text = match before.find(&PLUGIN_PATH) {
            Some(node) => {
                let root = edit::parse(&text)?;
                let span = root.find(&PLUGIN_PATH).map(|node| node.span.clone());
                span.map_or_else(|| text.clone(), |span| edit::replace(&text, &span, &original[node.span.clone()]))
            }
            None => edit::cut(&text, &PLUGIN_PATH)?,
        };
        let plugins = [Step::Key("enabledPlugins")];
        let raw = before.find(&plugins).map(|node| original[node.span.clone()].to_owned());
        text = super::tidy(text, &plugins, raw)?;
    }
    for event in off.hooks.iter().filter(|event| was.hooks.contains(event)) {
        if Rival::of(&text).hooks.contains(event) {
            continue;
        }
        let path = [Step::Key("hooks"), Step::Key(event)];
        let groups: Value = before
            .find(&path)
            .and_then(|node| serde_json::from_str(&original[node.span.clone()]).ok())
            .unwrap_or_default();
        for group in groups.as_array().into_iter().flatten() {
            let mut group = group.clone();
            if let Some(hooks) = group["hooks"].as_array_mut() {
                hooks.retain(|hook| hook["command"].as_str().is_some_and(is_hook));
                if !hooks.is_empty() {
                    text = edit::push(&text, &path, &group)?;
                }
            }
        }
    }
    Ok(text)
}

/// The first hook for `event`: the index of its group, its index in the group, and whether it is the only one there.
fn first_hook(text: &str, event: &str) -> Result<Option<(usize, usize, bool)>, Error> {
    let root = edit::parse(text)?;
    let groups = root.find(&[Step::Key("hooks"), Step::Key(event)]).map(Node::elements).unwrap_or_default();
    for (group, node) in groups.iter().enumerate() {
        let hooks = node.get(Step::Key("hooks")).map(Node::elements).unwrap_or_default();
        for (at, hook) in hooks.iter().enumerate() {
            let command = hook.get(Step::Key("command")).map(|node| &text[node.span.clone()]);
            if command.and_then(|raw| serde_json::from_str::<String>(raw).ok()).is_some_and(|command| is_hook(&command))
            {
                return Ok(Some((group, at, hooks.len() == 1)));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: &[&str] = &[
        "{}",
        "{\n  \"enabledPlugins\": {\"mlflow-tracing@mlflow-plugins\": true}\n}\n",
        "{\n  \"enabledPlugins\": {\n    \"a@b\": true,\n    \"mlflow-tracing@mlflow-plugins\": true\n  }, \"x\": 1\n}\n",
        r#"{"enabledPlugins":{"mlflow-tracing@mlflow-plugins":false}}"#,
        r#"{"hooks":{"Stop":[{"hooks":[{"type":"command","command":"mlflow autolog claude stop-hook"}]}]}}"#,
    ];

    #[test]
    fn restore_turns_the_integration_on_again_unchanged() {
        for file in FILES {
            for elsewhere in [false, true] {
                let (text, off) = turn_off(file, elsewhere).unwrap();
                assert!(
                    !Rival::is_active([&Rival { plugin: Some(elsewhere), ..Rival::default() }, &Rival::of(&text)]),
                    "{text}"
                );
                assert_eq!(turn_off(&text, elsewhere).unwrap(), (text.clone(), Off::default()));
                let restored = restore(&text, Some(file), &off).unwrap();
                let values = [restored.as_str(), file].map(|text| serde_json::from_str::<Value>(text).unwrap());
                assert_eq!(values[0], values[1], "{restored}");
                if off.hooks.is_empty() {
                    assert_eq!(restored, *file);
                }
            }
        }
    }

    #[test]
    fn other_hooks_of_the_same_group_are_kept() {
        let file = r#"{"hooks":{"Stop":[{"hooks":[{"command":"say done"},{"command":"uv run mlflow autolog claude stop-hook"}]},
            {"hooks":[{"command":"python -m mlflow.claude_code.hooks stop"}]}]}}"#;
        let (text, off) = turn_off(file, false).unwrap();
        let hooks = serde_json::from_str::<Value>(&text).unwrap()["hooks"]["Stop"].clone();
        assert_eq!(hooks, serde_json::json!([{"hooks": [{"command": "say done"}]}]));
        let restored = restore(&text, Some(file), &off).unwrap();
        assert_eq!(restored.matches("mlflow").count(), 2, "{restored}");
        assert_eq!(restored.matches("say done").count(), 1, "{restored}");
    }

    #[test]
    fn later_changes_of_the_user_are_kept() {
        let file = FILES[1];
        let (_, off) = turn_off(file, false).unwrap();
        for now in ["{}", r#"{"enabledPlugins":{"mlflow-tracing@mlflow-plugins":true}}"#] {
            assert_eq!(restore(now, Some(file), &off).unwrap(), now);
        }
    }

    #[test]
    fn commands_of_mlflows_integration_are_recognised() {
        for (command, expect) in [
            ("mlflow autolog claude stop-hook", true),
            ("/v/bin/mlflow autolog claude stop-hook", true),
            ("uv run mlflow autolog claude stop-hook 2>/dev/null", true),
            ("python3 -m mlflow.claude_code.hooks stop", true),
            ("cc-langfuse-hook", false),
            ("mlflow server", false),
            ("echo stop-hook", false),
        ] {
            assert_eq!(is_hook(command), expect, "{command}");
        }
    }

    #[test]
    fn the_strongest_file_decides_whether_the_plugin_is_on() {
        let says = |plugin| Rival { plugin, ..Rival::default() };
        for (files, expect) in [
            (vec![], false),
            (vec![says(Some(true))], true),
            (vec![says(Some(true)), says(Some(false))], false),
            (vec![says(Some(true)), says(None)], true),
            (vec![says(Some(false)), says(Some(true))], true),
        ] {
            assert_eq!(Rival::is_active(&files), expect, "{files:?}");
        }
        assert_eq!(Rival::of("no JSON"), Rival::default());
        assert_eq!(Rival::of(r#"{"hooks":[],"enabledPlugins":3}"#), Rival::default());
    }
}
