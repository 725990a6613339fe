//! The plan of `setup`: a line for each file, and on request what changes in it.

use std::path::Path;

use crate::ui::{amount::count, diff, table, terminal};
use cc_core::settings::{block, edit, masked};
use cc_langfuse::output::{self, Look};

use super::{
    apart::MARK,
    files::{Change, Part},
};

/// Shows each change in a line.
pub(super) fn show(changes: &[Change], home: &Path) {
    changes.iter().for_each(|change| out!("{}{}", head(change, home), what(change)));
}

/// What happens to which file.
fn head(change: &Change, home: &Path) -> String {
    let verb = match (&change.current, &change.new) {
        (None, _) => "make",
        (_, None) => "remove",
        _ => "change",
    };
    format!("{verb:<13} {}", table::path(&change.path, home))
}

/// Shows what is written into each file: events, variables without their secrets, lines.
pub(super) fn show_details(changes: &[Change], home: &Path) {
    for change in changes {
        let _ = output::parts(&[(Look::Bold, &head(change, home))]);
        let text = change.new.as_deref().unwrap_or_default();
        let secrets = diff::secrets_in(text);
        for line in details(change, text) {
            out!("                {}", diff::conceal(&line, &secrets));
        }
    }
}

fn details(change: &Change, text: &str) -> Vec<String> {
    match &change.part {
        Part::Settings(ours) => {
            let vars = block::env_block(text.as_bytes()).unwrap_or_default();
            let events = (!ours.events.is_empty()).then(|| format!("hook for {}", ours.events.join(", ")));
            let off = ours.off.hooks.iter().map(|event| format!("without MLflow's own hook for {event}"));
            let shown = |name: &String, value: &String| match proto::env::is_secret(name) || name.ends_with("_HEADERS")
            {
                true => masked(value),
                false => value.clone(),
            };
            let vars = ours.env.iter().filter_map(|name| Some(format!("{name} = {}", shown(name, vars.get(name)?))));
            let line = ours.status_line.then(|| "status line of cc-langfusectl".to_owned());
            events.into_iter().chain(vars).chain(off).chain(line).collect()
        }
        Part::Lines(lines) => lines.iter().map(|line| line.trim_end_matches(MARK).trim_end().to_owned()).collect(),
        Part::Whole => match text.lines().count() {
            lines @ 0..=8 => text.lines().take(lines).map(str::to_owned).collect(),
            lines => vec![format!("{lines} lines")],
        },
    }
}

/// Shows what becomes of each file that `setup` changed.
pub(crate) fn show_undone(changes: &[Change], home: &Path) {
    for Change { path, new, .. } in changes {
        match new {
            None => out!("remove        {}", table::path(path, home)),
            Some(_) => out!("change        {}: without what setup wrote", table::path(path, home)),
        }
    }
}

/// What is added to it.
fn what(change: &Change) -> String {
    match &change.part {
        Part::Settings(ours) => {
            let text = change.new.as_deref().unwrap_or_default();
            let events = edit::parse(text.trim_start_matches('\u{feff}')).ok().map_or(0, |root| {
                root.members()
                    .iter()
                    .filter(|member| member.key == "hooks")
                    .map(|hooks| hooks.value.members().len())
                    .sum()
            });
            let vars = block::env_block(text.as_bytes()).map_or(0, |vars| vars.len());
            let (hooks, vars) = (events.min(ours.events.len()), vars.min(ours.env.len()));
            let line = if ours.status_line { ", the status line" } else { "" };
            format!(": the hook for {}, {}{line}", count(hooks, "event"), count(vars, "variable"))
        }
        Part::Lines(lines) => {
            let is_ours = |line: &&String| line.ends_with(MARK);
            let table = lines.iter().any(|line| is_ours(&line)).then_some("where traces go");
            let others = lines.iter().filter(|line| !is_ours(line)).map(String::as_str);
            format!(": {}", others.chain(table).collect::<Vec<_>>().join(", "))
        }
        Part::Whole => String::new(),
    }
}

/// Shows every changed line.
pub(crate) fn show_whole(changes: &[Change]) {
    changes.iter().for_each(|to| diff::show(&to.path, to.current.as_deref(), to.new.as_deref()));
}

/// Asks whether to carry out the plan, until there is an answer; `details` shows more of it. `with_line` is the change of the settings with a status line; it
/// takes the place of the other if that is wanted.
///
/// # Errors
/// At the end of the input.
pub(crate) fn agrees(
    changes: &mut [Change],
    home: &Path,
    details: fn(&[Change], &Path),
    mut with_line: Option<Change>,
) -> anyhow::Result<bool> {
    terminal::forget_input();
    loop {
        let question = match with_line {
            Some(_) => "Make these changes? y, n, d for details, s for a status line too",
            None => "Make these changes? y, n, or d for details",
        };
        match terminal::ask(question, Some("y"))?.to_lowercase().as_str() {
            "y" | "yes" => return Ok(true),
            "n" | "no" => return Ok(false),
            "d" => details(changes, home),
            "s" => {
                if let Some(change) = with_line.take()
                    && let Some(other) = changes.iter_mut().find(|other| other.path == change.path)
                {
                    *other = change;
                    show(changes, home);
                }
            }
            _ => {}
        }
    }
}
