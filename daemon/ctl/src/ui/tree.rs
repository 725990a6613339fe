//! The tree of a trace, for people.

use super::table;
use cc_core::destination::{wire::OutSpan, wire::Value};
use cc_langfuse::output::{
    Look::{self, Bold, Dim, Plain, Red, Yellow},
    parts,
};

const TYPE: &str = "langfuse.observation.type";
const METADATA: &str = "langfuse.observation.metadata.";

/// How much is shown of a name and of a detail of an event, in characters.
const NAME: usize = 120;
const DETAIL: usize = 200;

/// Prints the spans of one trace as a tree, with tokens and durations.
pub fn print(spans: &[OutSpan]) {
    for root in spans.iter().filter(|span| span.is_root()) {
        let input = content(root, "langfuse.observation.input");
        let instead = root.text("langfuse.observation.metadata.instead_of_turn");
        let instead = instead.map_or_else(String::new, |number| format!("  instead of turn {number}"));
        let (name, time, gist, (look, level)) = (name(root), time(root), clip(gist(&input), 60), level(root));
        let _ = parts(&[(Bold, &name), (Plain, &format!(" {time} ")), (Dim, &gist), (Plain, &instead), (look, &level)]);
        children(spans, &mut vec![false; spans.len()], root, "");
        let output = content(root, "langfuse.observation.output");
        let _ = parts(&[(Plain, "   "), (Dim, &clip(&output, 76))]);
    }
}

/// Each span is shown once, `shown` says which were: whatever their ids say, there is an end.
fn children(spans: &[OutSpan], shown: &mut [bool], parent: &OutSpan, indent: &str) {
    let is_below = |(index, span): &(usize, &OutSpan)| span.parent_id == parent.span_id && !shown[*index];
    let mut below: Vec<_> = spans.iter().enumerate().filter(is_below).collect();
    below.iter().for_each(|(index, _)| shown[*index] = true);
    below.sort_by_key(|(_, span)| span.start_ns);
    let below: Vec<_> = below.into_iter().map(|(_, span)| span).collect();
    let count = below.len();
    for (index, span) in below.into_iter().enumerate() {
        let last = index + 1 == count;
        let branch = if last { "└" } else { "├" };
        if span.text(TYPE) == Some("event") {
            let _ = parts(&[(Plain, &format!("{indent}{branch}─• ")), (Dim, &happened(span))]);
        } else {
            let (before, (look, level)) = (format!("{indent}{branch}── "), level(span));
            let after = format!(" {}{}", time(span), details(span));
            let _ = parts(&[(Plain, &before), (Bold, &name(span)), (Plain, &after), (look, &level)]);
            children(spans, shown, span, &format!("{indent}{}", if last { "    " } else { "│   " }));
        }
    }
}

/// What happened, and its details; of text only the beginning.
fn happened(span: &OutSpan) -> String {
    let said = clip(gist(&content(span, "langfuse.observation.input")), 60);
    let details = span.attributes.iter().filter_map(|(key, value)| match value {
        Value::Text(text) => Some(clip(&format!("{} {text}", key.strip_prefix(METADATA)?.replace('_', " ")), DETAIL)),
        Value::List(_) => None,
    });
    let all: Vec<_> = Some(said).filter(|said| !said.is_empty()).into_iter().chain(details).collect();
    format!("{}  {}", name(span), all.join(" · ")).trim_end().to_owned()
}

fn details(span: &OutSpan) -> String {
    let usage: Option<serde_json::Value> =
        span.text("langfuse.observation.usage_details").and_then(|text| serde_json::from_str(text).ok());
    if let Some(usage) = usage {
        let get = |key: &str| usage[key].as_u64().unwrap_or(0);
        let written = get("input_cache_creation_5m") + get("input_cache_creation_1h") + get("input_cache_creation");
        return format!(
            "  in {} · out {} · cache read {} · cache write {written}",
            get("input"),
            get("output"),
            get("cache_read_input_tokens")
        );
    }
    let said = match span.text(TYPE) {
        Some("tool") => span.text("langfuse.observation.input"),
        Some("agent") => span.text("langfuse.observation.metadata.description"),
        _ => None,
    };
    said.map_or_else(String::new, |input| format!("  {}", clip(input, 60)))
}

/// What Claude Code says of a background task, without the rest of its markup; other text as it is.
fn gist(text: &str) -> &str {
    let notification = text.trim_start().strip_prefix("<task-notification>");
    let summary = notification.and_then(|text| text.split_once("<summary>")?.1.split_once("</summary>"));
    summary.map_or(text, |(summary, _)| summary)
}

/// The text of what stands in an attribute: of a message as JSON its content, of an array of messages that of the first.
/// Earlier versions stored an input as a single message.
pub fn content(span: &OutSpan, key: &str) -> String {
    let text = span.text(key).unwrap_or_default();
    let message = match serde_json::from_str(text) {
        Ok(serde_json::Value::Array(mut messages)) if !messages.is_empty() => Some(messages.swap_remove(0)),
        other => other.ok(),
    };
    match message.and_then(|mut message| Some(message.get_mut("content")?.take())) {
        Some(serde_json::Value::String(text)) => text,
        Some(serde_json::Value::Array(parts)) => {
            let parts: Vec<&str> = parts.iter().map(|part| part["text"].as_str().unwrap_or("[image]")).collect();
            parts.join(" ")
        }
        _ => text.to_owned(),
    }
}

fn time(span: &OutSpan) -> String {
    let ms = span.end_ns.saturating_sub(span.start_ns) / 1_000_000;
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

fn name(span: &OutSpan) -> String {
    clip(&span.name, NAME)
}

fn level(span: &OutSpan) -> (Look, String) {
    let Some(level) = span.text("langfuse.observation.level") else { return (Plain, String::new()) };
    let why = span.text("langfuse.observation.status_message").unwrap_or_default();
    (if level == "ERROR" { Red } else { Yellow }, format!("  {level} {}", clip(why, 60)))
}
