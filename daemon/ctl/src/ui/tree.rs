//! The tree of a trace, for people.

use super::table;
use cc_core::observation::{Body, Level, Observation};
use cc_langfuse::output::{
    Look::{self, Bold, Dim, Plain, Red, Yellow},
    parts,
};

/// Maximum length of a name and of an event's detail, in characters.
const NAME: usize = 120;
const DETAIL: usize = 200;

/// Prints the observations of one trace as a tree, with tokens and durations.
pub(crate) fn print(found: &[&Observation]) {
    for root in found.iter().filter(|found| found.is_root()) {
        let Body::Turn(turn) = &root.body else { continue };
        let instead = turn.instead_of.map_or_else(String::new, |number| format!("  instead of turn {number}"));
        let gist = clip(gist(&turn.input.text()), 60);
        let (name, time, (look, level)) = (name(root), time(root), level(root));
        let _ = parts(&[(Bold, &name), (Plain, &format!(" {time} ")), (Dim, &gist), (Plain, &instead), (look, &level)]);
        children(found, &mut vec![false; found.len()], root, "");
        let _ = parts(&[(Plain, "   "), (Dim, &clip(&turn.output, 76))]);
    }
}

/// Each observation is shown once, as `shown` records: whatever the ids are, the recursion ends.
fn children(found: &[&Observation], shown: &mut [bool], parent: &Observation, indent: &str) {
    let is_below = |(index, found): &(usize, &&Observation)| {
        found.parent == Some(parent.span_id) && found.trace_id == parent.trace_id && !shown[*index]
    };
    let mut below: Vec<_> = found.iter().enumerate().filter(is_below).collect();
    below.iter().for_each(|(index, _)| shown[*index] = true);
    below.sort_by_key(|(_, found)| found.start);
    let count = below.len();
    for (index, (_, observation)) in below.into_iter().enumerate() {
        let last = index + 1 == count;
        let branch = if last { "└" } else { "├" };
        if matches!(observation.body, Body::Event(_)) {
            let _ = parts(&[(Plain, &format!("{indent}{branch}─• ")), (Dim, &happened(observation))]);
        } else {
            let (before, (look, level)) = (format!("{indent}{branch}── "), level(observation));
            let after = format!(" {}{}", time(observation), details(observation));
            let _ = parts(&[(Plain, &before), (Bold, &name(observation)), (Plain, &after), (look, &level)]);
            children(found, shown, observation, &format!("{indent}{}", if last { "    " } else { "│   " }));
        }
    }
}

/// An event with its details; only the start of a text.
fn happened(observation: &Observation) -> String {
    let Body::Event(event) = &observation.body else { return name(observation) };
    let said = event.said.as_ref().map(|said| clip(gist(&said.text()), 60)).filter(|said| !said.is_empty());
    let timing = observation.estimated.then(|| "timing estimated".to_owned());
    let detail = event.details.iter().map(|(key, value)| clip(&format!("{} {value}", key.replace('_', " ")), DETAIL));
    let all: Vec<_> = said.into_iter().chain(detail).chain(timing).collect();
    format!("{}  {}", name(observation), all.join(" · ")).trim_end().to_owned()
}

fn details(observation: &Observation) -> String {
    let said = match &observation.body {
        Body::Generation(generation) => {
            return generation.usage.map_or_else(String::new, |usage| {
                let written =
                    usage.cache_write_5m.saturating_add(usage.cache_write_1h).saturating_add(usage.cache_write);
                let (input, output, read) = (usage.input, usage.output, usage.cache_read);
                format!("  in {input} · out {output} · cache read {read} · cache write {written}")
            });
        }
        Body::Tool(tool) => Some(&tool.input),
        Body::Agent(agent) => agent.description.as_ref(),
        Body::Turn(_) | Body::Event(_) => None,
    };
    said.map_or_else(String::new, |said| format!("  {}", clip(said, 60)))
}

/// The text of a background task's notification, without its markup; other text is unchanged.
fn gist(text: &str) -> &str {
    let notification = text.trim_start().strip_prefix("<task-notification>");
    let summary = notification.and_then(|text| text.split_once("<summary>")?.1.split_once("</summary>"));
    summary.map_or(text, |(summary, _)| summary)
}

fn time(observation: &Observation) -> String {
    let ms = observation.end.saturating_sub(observation.start) / 1_000_000;
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{:.1} s", ms as f64 / 1e3),
        _ => format!("{} min {} s", ms / 60_000, ms / 1000 % 60),
    }
}

/// At most `width` characters of `text`, and a mark if there are more.
fn clip(text: &str, width: usize) -> String {
    table::clip(text, width + 1)
}

fn name(observation: &Observation) -> String {
    clip(&observation.name, NAME)
}

fn level(observation: &Observation) -> (Look, String) {
    let (look, level) = match observation.level {
        Level::Default => return (Plain, String::new()),
        Level::Warning => (Yellow, "WARNING"),
        Level::Error => (Red, "ERROR"),
    };
    let why = observation.status.as_deref().unwrap_or_default();
    (look, format!("  {level} {}", clip(why, 60)))
}
