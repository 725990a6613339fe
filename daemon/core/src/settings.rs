//! What setting up writes into a settings file of Claude Code, and how to take it out again: the hook, and the `env` block that turns
//! tracing on. Texts in, texts out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use edit::{Error, Node, Step};
use rival::Off;

pub mod block;
pub mod diff;
pub mod edit;
pub mod rival;

/// The hook's file name, by which its registrations are known, wherever it lies.
pub const HOOK: &str = "cc-langfuse-hook";

/// What a settings file should hold.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// Absolute path of the hook.
    pub hook: &'a str,
    /// The events it is to be registered for.
    pub events: &'a [&'a str],
    /// Variables; where a `CC_LANGFUSE_X` is there already, which would win, that one is set instead of `LANGFUSE_X`.
    pub env: &'a [(&'a str, &'a str)],
    /// Variables that are set elsewhere.
    pub elsewhere: &'a BTreeMap<String, String>,
    /// MLflow's own integration is to be turned off; its plugin is on in a file that this one outranks if it says so.
    pub replaces_mlflow: Option<bool>,
}

/// What of a file is ours: enough to take it out. Holds no values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ours {
    /// Events for which the hook was registered, or registered anew.
    pub events: Vec<String>,
    /// Variables that were set.
    pub env: Vec<String>,
    /// What was turned off of MLflow's own integration.
    #[serde(default, skip_serializing_if = "Off::is_empty")]
    pub off: Off,
}

/// `text`, which may be blank, with all that is wished for, and what of it was not there before.
///
/// # Errors
/// If it is no JSON, or `hooks`, an event or `env` is something else than Claude Code takes.
pub fn apply(text: &str, wish: Wish<'_>) -> Result<(String, Ours), Error> {
    let (mark, text) = split_mark(text);
    let mut text = if text.trim().is_empty() { "{}\n".to_owned() } else { text.to_owned() };
    let mut ours = Ours::default();
    if !matches!(edit::parse(&text)?.children, edit::Children::Members(_)) {
        return Err(Error::Kind { path: "settings".into(), wanted: "an object" });
    }
    for event in wish.events {
        let path = [Step::Key("hooks"), Step::Key(event)];
        let known = registrations(&text, event)?;
        if known.iter().any(|known| program(&known.command).is_some_and(|program| program == wish.hook)) {
            continue;
        }
        let command = quoted(wish.hook);
        text = match known.first() {
            Some(known) => edit::put(&text, &known.path(event, true), &command.into())?,
            None => edit::push(&text, &path, &json!({"hooks": [{"type": "command", "command": command}]}))?,
        };
        ours.events.push((*event).to_owned());
    }
    for (name, value) in wish.env {
        let root = edit::parse(&text)?;
        let get = |name: &str| {
            let node = root.find(&[Step::Key("env"), Step::Key(name)])?;
            serde_json::from_str::<Value>(&text[node.span.clone()]).ok()
        };
        let stronger = format!("CC_{name}");
        let name = match (get(&stronger), wish.elsewhere.get(&stronger)) {
            (Some(Value::String(value)), _) if !value.trim().is_empty() => stronger.as_str(),
            (_, Some(other)) if !other.trim().is_empty() && other != value => stronger.as_str(),
            _ => name,
        };
        if get(name).as_ref().and_then(Value::as_str) != Some(*value) {
            text = edit::put(&text, &[Step::Key("env"), Step::Key(name)], &(*value).into())?;
            ours.env.push(name.to_owned());
        }
    }
    if let Some(is_on_elsewhere) = wish.replaces_mlflow {
        (text, ours.off) = rival::turn_off(&text, is_on_elsewhere)?;
    }
    Ok((format!("{mark}{text}"), ours))
}

/// `text` without what is ours, as far as it is still there. What stood in its place in `original` is put back; what holds nothing any
/// more and was not there goes too. `None` if nothing is left, and there was no file.
///
/// # Errors
/// If `text` is no JSON.
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
        // What was there before is not ours.
        known.retain(|known| {
            let same = old.iter().position(|old| old.command == known.command);
            same.map(|at| old.remove(at)).is_none()
        });
        // From the end, so that what is taken out moves none of the others.
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
    let empty = edit::parse(&text)?.is_empty();
    Ok(match original {
        None if empty => None,
        Some(original) if empty && before.as_ref().is_none_or(|(_, root)| root.is_empty()) => Some(original.to_owned()),
        _ => Some(format!("{mark}{text}")),
    })
}

/// All that may be ours in a file of which nothing is known: the hook for whatever event, and no variables.
///
/// # Errors
/// If `text` is no JSON.
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
    Ok(Ours { events, ..Ours::default() })
}

/// Takes out what is at `path` if there is nothing in it; or makes it as it was.
fn tidy(text: String, path: &[Step<'_>], was: Option<String>) -> Result<String, Error> {
    let span = edit::parse(&text)?.find(path).filter(|node| node.is_empty()).map(|node| node.span.clone());
    match (span, was) {
        (None, _) => Ok(text),
        (Some(_), None) => edit::cut(&text, path),
        // Whoever emptied it since wanted that.
        (Some(span), Some(was)) if was[1..was.len() - 1].trim().is_empty() => Ok(edit::replace(&text, &span, &was)),
        (Some(_), Some(_)) => Ok(text),
    }
}

/// One registration of the hook for an event: in which group, as which of its hooks.
struct Registration {
    group: usize,
    at: usize,
    command: String,
}

impl Registration {
    /// Where it stands, or its command does.
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

/// The path by which a shell command names the hook, if it does.
pub fn program(command: &str) -> Option<String> {
    words(command).into_iter().find(|word| word.rsplit('/').next() == Some(HOOK))
}

/// The words of a shell command, as far as quotes go, without these.
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

/// `path` as a shell takes it for one word.
pub fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%=".contains(c);
    if !path.is_empty() && path.chars().all(plain) {
        return path.to_owned();
    }
    format!("'{}'", path.replace('\'', r"'\''"))
}

/// A key for people to recognise it by, and not more: `sk-lf-…9f3c`.
pub fn masked(key: &str) -> String {
    let head = ["sk-lf-", "pk-lf-"].into_iter().find(|head| key.starts_with(head)).unwrap_or_default();
    let tail = key.char_indices().rev().nth(3).map(|(at, _)| at).filter(|at| *at >= head.len() + 8);
    format!("{head}…{}", tail.map_or("", |at| &key[at..]))
}

/// A byte order mark, if there is one, and the rest.
pub fn split_mark(text: &str) -> (&str, &str) {
    text.split_at(text.len() - text.trim_start_matches('\u{feff}').len())
}

#[cfg(test)]
mod tests;
