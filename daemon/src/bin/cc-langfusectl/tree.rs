//! The tree of a trace, for people.

use cc_langfuse::{
    dialect::OutSpan,
    trace::{Event, QUEUED_TEXT},
};

use crate::table::{bold, paint};

/// Prints the spans of one trace as a tree, with tokens and durations.
pub fn print(spans: &[OutSpan]) {
    for root in spans.iter().filter(|span| span.is_root()) {
        let input = content(root, "langfuse.observation.input");
        out!("{} {} {}{}", bold(&root.name), time(root), dim(&clip(gist(&input), 60)), level(root));
        children(spans, root, "");
        let output = content(root, "langfuse.observation.output");
        out!("   {}", dim(&clip(&output, 76)));
    }
}

/// What stands below a span, in order of time.
enum Below<'s> {
    Span(&'s OutSpan),
    Event(&'s Event),
}

fn children(spans: &[OutSpan], parent: &OutSpan, indent: &str) {
    let own =
        spans.iter().filter(|span| span.parent_id == parent.span_id).map(|span| (span.start_ns, Below::Span(span)));
    let mut below: Vec<_> = own.chain(parent.events.iter().map(|event| (event.at, Below::Event(event)))).collect();
    below.sort_by_key(|(at, _)| *at);
    let count = below.len();
    for (index, (_, thing)) in below.into_iter().enumerate() {
        let last = index + 1 == count;
        let branch = if last { "└" } else { "├" };
        match thing {
            Below::Event(event) => out!("{indent}{branch}─• {}", dim(&happened(event))),
            Below::Span(span) => {
                let (name, time, details) = (bold(&span.name), time(span), details(span));
                out!("{indent}{branch}── {name} {time}{details}{}", level(span));
                children(spans, span, &format!("{indent}{}", if last { "    " } else { "│   " }));
            }
        }
    }
}

/// What happened, and its details; of text only the beginning.
fn happened(event: &Event) -> String {
    let details = event.attributes.iter().map(|(key, value)| match key.as_str() {
        QUEUED_TEXT => clip(gist(value), 60),
        key => format!("{} {value}", key.replace('_', " ")),
    });
    format!("{}  {}", event.name, details.collect::<Vec<_>>().join(" · ")).trim_end().to_owned()
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
    let said = match span.text("langfuse.observation.type") {
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

/// `content` of a message that stands as JSON in an attribute.
pub fn content(span: &OutSpan, key: &str) -> String {
    let text = span.text(key).unwrap_or_default();
    let message: Option<serde_json::Value> = serde_json::from_str(text).ok();
    message.and_then(|message| message["content"].as_str().map(str::to_owned)).unwrap_or_else(|| text.to_owned())
}

fn time(span: &OutSpan) -> String {
    let ms = span.end_ns.saturating_sub(span.start_ns) / 1_000_000;
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{:.1} s", ms as f64 / 1e3),
        _ => format!("{} min {} s", ms / 60_000, ms / 1000 % 60),
    }
}

fn clip(text: &str, width: usize) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match line.char_indices().nth(width) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

fn dim(text: &str) -> String {
    paint("2", text)
}

fn level(span: &OutSpan) -> String {
    let Some(level) = span.text("langfuse.observation.level") else { return String::new() };
    let why = span.text("langfuse.observation.status_message").unwrap_or_default();
    paint(if level == "ERROR" { "31" } else { "33" }, &format!("  {level} {}", clip(why, 60)))
}
