//! What the user typed, separated from what Claude Code and editors add around it for the model.

/// Tags of text that nobody typed, besides hooks, reminders and those that begin with `ide_`.
const HARNESS: [&str; 5] = [
    "additional-context",
    "new-diagnostics",
    "open_and_recently_viewed_files",
    "session-context",
    "tools-used-before-summary",
];

/// The typed part of `text`, and the sections around it that nobody typed.
pub(super) fn typed(text: &str) -> (&str, Vec<&str>) {
    let (mut left, mut context, mut behind) = (text, Vec::new(), Vec::new());
    while let Some((section, rest)) = leading(left) {
        context.push(section);
        left = rest;
    }
    while let Some((rest, section)) = trailing(left) {
        behind.push(section);
        left = rest;
    }
    if context.is_empty() && behind.is_empty() {
        return (text, context);
    }
    context.extend(behind.into_iter().rev());
    (left.trim(), context)
}

/// The section at the start of `text`, and the rest.
fn leading(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start();
    let name = opened(text)?;
    let end = text.find(&format!("</{name}>"))? + name.len() + 3;
    Some(text.split_at(end))
}

/// The text before the section at the end of `text`, and that section.
fn trailing(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_end();
    let name = text.strip_suffix('>')?.rsplit_once("</").map(|(_, name)| name).filter(|name| is_harness(name))?;
    // The last opening tag: if a section quotes another one, the outer one is left over.
    let tag = format!("<{name}");
    let mut starts = text.rmatch_indices(&tag).map(|(at, _)| at);
    let start = starts.find(|at| opened(&text[*at..]) == Some(name))?;
    Some(text.split_at(start))
}

/// The name of the tag that `text` begins with, unless people type it.
fn opened(text: &str) -> Option<&str> {
    let rest = text.strip_prefix('<')?;
    let name = &rest[..rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-'))?];
    (is_harness(name) && rest[name.len()..].starts_with(['>', ' ', '\n'])).then_some(name)
}

fn is_harness(name: &str) -> bool {
    let ends = ["-hook", "-reminder", "_reminder"].iter().any(|end| name.ends_with(end));
    ends || name.starts_with("ide_") || HARNESS.contains(&name)
}

/// `/name args` as typed, from the tags that Claude Code wraps a command in.
pub(super) fn command(text: &str) -> String {
    let name = tag(text, "command-name").unwrap_or_default();
    let args = tag(text, "command-args").unwrap_or_default();
    match (name, args) {
        ("", _) => text.to_owned(),
        (name, "") => name.to_owned(),
        (name, args) => format!("{name} {args}"),
    }
}

pub(super) fn tag<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    Some(rest.split_once(&format!("</{name}>"))?.0.trim())
}

/// The session whose transcript a plan refers to: the only link between planning and implementation if the context was cleared
/// in between.
pub(super) fn planning_session(text: &str) -> Option<String> {
    let (_, rest) = text.rsplit_once("read the full transcript at: ")?;
    let path = rest.split_whitespace().next()?.trim_end_matches('.');
    let name = std::path::Path::new(path).file_name()?.to_str()?;
    Some(name.strip_suffix(".jsonl")?.to_owned())
}

/// The message of another agent or session, without the line about the sender before it and the advice after it.
pub(super) fn message(text: &str) -> Option<&str> {
    let text = text.trim();
    if let Some(rest) = text.strip_prefix("The coordinator sent a message") {
        let said = rest.split_once('\n')?.1;
        return Some(said.strip_suffix("Address this before completing your current task.").unwrap_or(said).trim());
    }
    ["cross-session-message", "agent-message", "teammate-message"].into_iter().find_map(|name| {
        let (_, rest) = text.split_once(&format!("<{name}"))?;
        Some(rest.split_once('>')?.1.split_once(&format!("</{name}>"))?.0.trim())
    })
}
