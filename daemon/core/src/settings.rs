//! What `setup` writes into a settings file of Claude Code, and how to remove it again: the hook, and the `env` block
//! that turns tracing on. Comes in: text. Goes out: text. Opens no files.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use edit::{Error, Node, Step};
use rival::Off;
use status_line::Whose;

pub mod block;
pub mod diff;
pub mod edit;
pub mod rival;
pub mod status_line;

/// The hook's file name, which identifies its registrations wherever it is installed.
pub const HOOK: &str = "cc-langfuse-hook";

/// The desired content of a settings file.
#[derive(Clone, Copy, Debug)]
pub struct Desired<'a> {
    /// Absolute path.
    pub hook: &'a str,
    pub events: &'a [&'a str],
    /// Variables to set. If `CC_LANGFUSE_X` exists already, which would override `LANGFUSE_X`, it is set instead.
    pub env: &'a [(&'a str, &'a str)],
    /// Variables that other files set.
    pub elsewhere: &'a BTreeMap<String, String>,
    /// If set, MLflow's own integration is turned off. The value says whether a file that this one overrides turns its plugin
    /// on.
    pub replaces_mlflow: Option<bool>,
    /// The command for the status line, where no other is set.
    pub status_line: Option<&'a str>,
}

/// What this program added to a file: enough to remove it. Contains no values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ours {
    /// Events for which the hook was added or replaced.
    pub events: Vec<String>,
    /// Variables that were set.
    pub env: Vec<String>,
    /// What was turned off of MLflow's own integration.
    #[serde(default, skip_serializing_if = "Off::is_empty")]
    pub off: Off,
    /// The status line was set.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub status_line: bool,
}

/// Adds what is desired to `text`, which may be blank. Returns the new text and what was added.
///
/// # Errors
/// If it is not JSON, or if `hooks`, an event or `env` has a type that Claude Code does not accept.
pub fn apply(text: &str, desired: Desired<'_>) -> Result<(String, Ours), Error> {
    let (mark, text) = split_mark(text);
    let mut text = if text.trim().is_empty() { "{}\n".to_owned() } else { text.to_owned() };
    let mut ours = Ours::default();
    if !matches!(edit::parse(&text)?.children, edit::Children::Members(_)) {
        return Err(Error::Kind { path: "settings".into(), wanted: "an object" });
    }
    for event in desired.events {
        let path = [Step::Key("hooks"), Step::Key(event)];
        let known = registrations(&text, event)?;
        // One that people have made their own, as with a variable before it, stays; a plain one would fail where the program is gone.
        let is_plain = |known: &Registration| words(&known.command) == [desired.hook];
        if known.iter().any(|known| program(&known.command).is_some_and(|program| program == desired.hook))
            && !known.iter().any(is_plain)
        {
            continue;
        }
        let command = guarded(desired.hook);
        text = match known.iter().find(|known| is_plain(known)).or(known.first()) {
            Some(known) => edit::put(&text, &known.path(event, true), &command.into())?,
            None => edit::push(&text, &path, &json!({"hooks": [{"type": "command", "command": command}]}))?,
        };
        ours.events.push((*event).to_owned());
    }
    for (name, value) in desired.env {
        let root = edit::parse(&text)?;
        let get = |name: &str| {
            let node = root.find(&[Step::Key("env"), Step::Key(name)])?;
            serde_json::from_str::<Value>(&text[node.span.clone()]).ok()
        };
        let stronger = format!("CC_{name}");
        let name = match (get(&stronger), desired.elsewhere.get(&stronger)) {
            (Some(Value::String(value)), _) if !value.trim().is_empty() => stronger.as_str(),
            (_, Some(other)) if !other.trim().is_empty() && other != value => stronger.as_str(),
            _ => name,
        };
        if get(name).as_ref().and_then(Value::as_str) != Some(*value) {
            text = edit::put(&text, &[Step::Key("env"), Step::Key(name)], &(*value).into())?;
            ours.env.push(name.to_owned());
        }
    }
    if let Some(is_on_elsewhere) = desired.replaces_mlflow {
        (text, ours.off) = rival::turn_off(&text, is_on_elsewhere)?;
    }
    if let Some(command) = desired.status_line {
        (text, ours.status_line) = status_line::add(&text, command)?;
    }
    Ok((format!("{mark}{text}"), ours))
}

/// `text` without `ours`, as far as it is still there. Values that were replaced are restored from `original`, and containers
/// that became empty are removed. `None` if nothing is left and there was no file before.
///
/// # Errors
/// If `text` is not JSON.
pub fn undo(text: &str, original: Option<&str>, ours: &Ours) -> Result<Option<String>, Error> {
    let (mark, text) = split_mark(text);
    if text.trim().is_empty() {
        return Ok(original.map(|_| format!("{mark}{text}")));
    }
    let before = original.map(|text| split_mark(text).1).filter(|text| !text.trim().is_empty());
    let before = before.and_then(|text| Some((text, edit::parse(text).ok()?)));
    let was = |path: &[Step<'_>]| {
        let (text, root) = before.as_ref()?;
        Some((root.find(path)?, *text))
    };
    let raw = |path: &[Step<'_>]| was(path).map(|(node, text)| text[node.span.clone()].to_owned());
    let mut text = text.to_owned();
    for event in &ours.events {
        let mut old = before.as_ref().and_then(|(text, _)| registrations(text, event).ok()).unwrap_or_default();
        let mut known = registrations(&text, event).unwrap_or_default();
        // Hooks that were there before belong to the user.
        known.retain(|known| {
            let same = old.iter().position(|old| old.command == known.command);
            same.map(|at| old.remove(at)).is_none()
        });
        // Backwards, so that a removal does not shift the others.
        while let Some(known) = known.pop() {
            text = if old.is_empty() {
                let path = known.path(event, false);
                let alone = edit::parse(&text)?.find(&path[..4]).is_some_and(|hooks| hooks.elements().len() == 1);
                edit::cut(&text, if alone { &path[..3] } else { &path[..5] })?
            } else {
                let old = old.remove(0);
                edit::put(&text, &known.path(event, true), &old.command.into())?
            };
        }
        text = tidy(text, &[Step::Key("hooks"), Step::Key(event)], raw(&[Step::Key("hooks"), Step::Key(event)]))?;
    }
    text = tidy(text, &[Step::Key("hooks")], raw(&[Step::Key("hooks")]))?;
    for name in &ours.env {
        let path = [Step::Key("env"), Step::Key(name)];
        let Some(span) = edit::parse(&text)?.find(&path).map(|node| node.span.clone()) else { continue };
        text = match raw(&path) {
            Some(old) => edit::replace(&text, &span, &old),
            None => edit::cut(&text, &path)?,
        };
    }
    text = tidy(text, &[Step::Key("env")], raw(&[Step::Key("env")]))?;
    if !ours.off.is_empty() {
        text = rival::restore(&text, original, &ours.off)?;
    }
    if ours.status_line {
        text = status_line::remove(text)?;
    }
    let empty = edit::parse(&text)?.is_empty();
    Ok(match original {
        None if empty => None,
        Some(original) if empty && before.as_ref().is_none_or(|(_, root)| root.is_empty()) => Some(original.to_owned()),
        _ => Some(format!("{mark}{text}")),
    })
}

/// This program's entries in a file without a record: the hook for every event, the status line, and no variables.
///
/// # Errors
/// If `text` is not JSON.
pub fn registered(text: &str) -> Result<Ours, Error> {
    let text = split_mark(text).1;
    if text.trim().is_empty() {
        return Ok(Ours::default());
    }
    let root = edit::parse(text)?;
    let hooks = root.get(Step::Key("hooks")).map(Node::members).unwrap_or_default();
    let mut events: Vec<String> = hooks.iter().map(|member| member.key.clone()).collect();
    events.dedup();
    events.retain(|event| registrations(text, event).is_ok_and(|known| !known.is_empty()));
    Ok(Ours { events, status_line: Whose::of(text) == Whose::Ours, ..Ours::default() })
}

/// Removes the value at `path` if it is empty, or restores it as it was.
fn tidy(text: String, path: &[Step<'_>], was: Option<String>) -> Result<String, Error> {
    let span = edit::parse(&text)?.find(path).filter(|node| node.is_empty()).map(|node| node.span.clone());
    match (span, was) {
        (None, _) => Ok(text),
        (Some(_), None) => edit::cut(&text, path),
        // It was emptied on purpose since.
        (Some(span), Some(was)) if was[1..was.len() - 1].trim().is_empty() => Ok(edit::replace(&text, &span, &was)),
        (Some(_), Some(_)) => Ok(text),
    }
}

/// A registration of the hook for an event: the index of its group and its index in the group.
struct Registration {
    group: usize,
    at: usize,
    command: String,
}

impl Registration {
    /// The path of the registration, or of its command.
    fn path<'a>(&self, event: &'a str, command: bool) -> Vec<Step<'a>> {
        let mut path =
            vec![Step::Key("hooks"), Step::Key(event), Step::At(self.group), Step::Key("hooks"), Step::At(self.at)];
        path.extend(command.then_some(Step::Key("command")));
        path
    }
}

fn registrations(text: &str, event: &str) -> Result<Vec<Registration>, Error> {
    let root = edit::parse(text)?;
    let mut found = Vec::new();
    let groups = root.find(&[Step::Key("hooks"), Step::Key(event)]).map(Node::elements).unwrap_or_default();
    for (group, node) in groups.iter().enumerate() {
        let hooks = node.get(Step::Key("hooks")).map(Node::elements).unwrap_or_default();
        for (at, hook) in hooks.iter().enumerate() {
            let command = hook.get(Step::Key("command")).map(|node| &text[node.span.clone()]);
            let command = command.and_then(|raw| serde_json::from_str::<String>(raw).ok()).unwrap_or_default();
            if program(&command).is_some() {
                found.push(Registration { group, at, command });
            }
        }
    }
    Ok(found)
}

/// The path under which a shell command runs the hook, if it does.
pub fn program(command: &str) -> Option<String> {
    words(command).into_iter().find(|word| word.rsplit('/').next() == Some(HOOK))
}

/// The words of a shell command, unquoted. Understands quotes only.
pub fn words(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut chars = command.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() || ";&|()".contains(c) => words.extend(word.take()),
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(chars.next()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// The shell command that runs the hook at `path`, and succeeds silently if the hook is gone: Claude Code shows its
/// user every failure.
pub fn guarded(path: &str) -> String {
    let path = quoted(path);
    format!("[ -x {path} ] && exec {path}; :")
}

/// `path` quoted as one shell word.
pub fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%=".contains(c);
    if !path.is_empty() && path.chars().all(plain) {
        return path.to_owned();
    }
    format!("'{}'", path.replace('\'', r"'\''"))
}

/// Just enough of a key to recognise it: `sk-lf-…9f3c`.
pub fn masked(key: &str) -> String {
    let head = ["sk-lf-", "pk-lf-"].into_iter().find(|head| key.starts_with(head)).unwrap_or_default();
    let tail = key.char_indices().rev().nth(3).map(|(at, _)| at).filter(|at| *at >= head.len() + 8);
    format!("{head}…{}", tail.map_or("", |at| &key[at..]))
}

/// The byte order mark, if there is one, and the rest.
pub fn split_mark(text: &str) -> (&str, &str) {
    text.split_at(text.len() - text.trim_start_matches('\u{feff}').len())
}

#[cfg(test)]
mod tests;
