//! A turn: what happened when, and every detail of each part.

use maud::{Markup, html};

use super::{
    Site, delivery,
    html::{clean, cost, figure_heads, figures, number, page as frame, span, time},
    markdown::markdown,
    query::encode,
    sessions::title,
};
use cc_core::{
    ids::{SpanId, TraceId, from_hex, hex},
    media::Media,
    observation::{Body, Content, Level, Observation, Part, Tool},
    pipeline::Outgoing,
    project::{Options, Semantics},
    reconcile::Tokens,
    redact::Rules,
    settings::diff::{Line, diff},
    usage, visible,
};
use cc_langfuse::{
    index::{Listed, ListedTurn, Sum},
    rebuild,
};

/// Texts up to this many bytes are shown unfolded.
const OPEN: usize = 1500;

/// Maximum length of a text that is shown, in bytes.
const SHOWN: usize = 200 << 10;

/// Maximum size of an image that is shown, in bytes.
const IMAGE: usize = 1 << 20;

/// Maximum length of a part's summary in a row, in characters.
const GIST: usize = 80;

/// Image types that a browser shows without running anything.
const IMAGES: [&str; 4] = ["image/png", "image/jpeg", "image/gif", "image/webp"];

/// An observation and everything below it.
pub(crate) struct Node {
    pub observation: Observation,
    /// The usage of it and everything below.
    pub below: Sum,
    children: Vec<Self>,
}

/// The tree of a turn's observations.
pub(crate) struct Tree {
    pub trace: TraceId,
    roots: Vec<Node>,
}

/// Reads `count` turns of a session, starting with `first`.
///
/// # Errors
/// If the transcript cannot be read.
pub(crate) fn read(one: &Listed, first: &ListedTurn, count: usize, rules: &Rules) -> anyhow::Result<Vec<Tree>> {
    // With measured times, parallel tools are shown in parallel.
    let options = Options { semantics: Semantics::Measured, ..Options::default() };
    let start = (first.at_byte, first.number.saturating_sub(1));
    let turns = rebuild::turns_from(&one.path, &one.session_id, start, count, &options, rules)?;
    Ok(turns.into_iter().filter_map(Tree::of).collect())
}

impl Tree {
    /// `None` if there are no observations.
    fn of(found: Vec<Outgoing>) -> Option<Self> {
        let trace = found.first()?.observation.trace_id;
        let mut all: Vec<Option<Observation>> = found.into_iter().map(|out| Some(out.observation)).collect();
        let has =
            |id: Option<SpanId>, all: &[Option<Observation>]| all.iter().flatten().any(|one| Some(one.span_id) == id);
        // Observations without a known parent are shown at the top.
        let tops: Vec<usize> = (0..all.len())
            .filter(|at| all[*at].as_ref().is_some_and(|one| one.parent.is_none() || !has(one.parent, &all)))
            .collect();
        let mut roots: Vec<Node> = tops.into_iter().filter_map(|at| node(at, &mut all)).collect();
        roots.sort_by_key(|node| node.observation.start);
        Some(Self { trace, roots })
    }

    /// Every node from the top down, with its depth.
    pub(crate) fn flat(&self) -> Vec<(usize, &Node)> {
        fn walk<'t>(nodes: &'t [Node], depth: usize, found: &mut Vec<(usize, &'t Node)>) {
            for node in nodes {
                found.push((depth, node));
                walk(&node.children, depth + 1, found);
            }
        }
        let mut found = Vec::new();
        walk(&self.roots, 0, &mut found);
        found
    }

    /// The turn as a conversation.
    pub(super) fn conversation(&self) -> Markup {
        html! { @for root in &self.roots { (said(root)) } }
    }
}

/// The node of the observation at index `at`, which is moved out of `all` with everything below it.
fn node(at: usize, all: &mut [Option<Observation>]) -> Option<Node> {
    let observation = all[at].take()?;
    let mut below = Sum::default();
    if let Body::Generation(generation) = &observation.body {
        let usage = generation.usage.unwrap_or_default();
        below.tokens = Tokens {
            input: usage.input,
            output: usage.output,
            cache_read: usage.cache_read,
            cache_write_5m: usage.cache_write_5m.saturating_add(usage.cache_write),
            cache_write_1h: usage.cache_write_1h,
        };
        // The advice of another model is not a call of its own.
        below.calls = u64::from(generation.role.is_none());
        below.cost_usd = usage::cost(&generation.model, generation.speed.as_deref(), below.tokens);
    }
    let mine: Vec<usize> = (0..all.len())
        .filter(|at| all[*at].as_ref().is_some_and(|one| one.parent == Some(observation.span_id)))
        .collect();
    let mut children: Vec<Node> = mine.into_iter().filter_map(|at| node(at, all)).collect();
    children.sort_by_key(|child| child.observation.start);
    for child in &children {
        below.calls += child.below.calls;
        below.tokens += child.below.tokens;
        if let Some(cost) = child.below.cost_usd {
            *below.cost_usd.get_or_insert(0.0) += cost;
        }
    }
    Some(Node { observation, below, children })
}

impl Node {
    /// Cells for the calls, tokens and cost of it and everything below; empty without calls.
    pub(super) fn figures(&self) -> Markup {
        html! {
            @if self.below.calls == 0 && self.below.tokens.is_none() { td .n colspan="7" {} } @else {
                td .n { (number(self.below.calls)) }
                (figures(self.below.tokens, self.below.cost_usd))
            }
        }
    }

    /// A summary in a few words.
    pub(super) fn gist(&self) -> String {
        let text = match &self.observation.body {
            Body::Turn(turn) => turn.input.text().into_owned(),
            Body::Agent(agent) => agent.description.clone().unwrap_or_else(|| agent.input.text().into_owned()),
            Body::Tool(tool) => one_line(tool),
            Body::Event(event) => event.said.as_ref().map(|said| said.text().into_owned()).unwrap_or_default(),
            Body::Generation(generation) => {
                generation.output.as_ref().map(|output| output.text.clone()).unwrap_or_default()
            }
        };
        visible::glance(&text, GIST)
    }
}

/// A part of a conversation, with everything below.
fn said(node: &Node) -> Markup {
    let found = &node.observation;
    match &found.body {
        Body::Turn(turn) => html! {
            div .prompt { (asked(&turn.input)) (images(&found.media)) }
            @for child in &node.children { (said(child)) }
            @if found.level == Level::Error { p .error { (clean(found.status.as_deref().unwrap_or("failed"))) } }
        },
        Body::Agent(agent) => html! {
            details .agent {
                summary { "Subagent " (clean(&found.name)) " " span .dim { (clean(agent.description.as_deref().unwrap_or_default()))
                    " · " (number(node.below.calls)) (if node.below.calls == 1 { " call · " } else { " calls · " }) (cost(node.below.cost_usd)) } }
                div .prompt { (content(&agent.input)) }
                @for child in &node.children { (said(child)) }
            }
        },
        Body::Generation(generation) => html! {
            div .answer {
                @if let Some(output) = &generation.output {
                    @for thought in output.thinking.iter().filter(|thought| !thought.trim().is_empty()) {
                        details .thinking { summary { "Thinking" } (markdown(thought)) }
                    }
                    @if !output.text.trim().is_empty() { (markdown(&output.text)) }
                }
                @if found.level != Level::Default { p .error { (clean(found.status.as_deref().unwrap_or("cut short"))) } }
            }
            @for child in &node.children { (said(child)) }
        },
        Body::Tool(tool) => html! {
            details .tool open[found.level == Level::Error] {
                summary {
                    strong { (clean(&found.name)) } " " span .dim { (visible::glance(&one_line(tool), GIST)) }
                    @if found.level == Level::Error { span .error { " failed" } }
                    span .dim { " " (span(found.end.saturating_sub(found.start))) }
                }
                (input(&found.name, tool))
                @if let Some(output) = &tool.output { h3 { "Result" } (long(&output.text)) }
                (images(&found.media))
                @for child in &node.children { (said(child)) }
            }
        },
        Body::Event(event) => html! {
            p .event { (clean(&found.name))
                @for (name, value) in &event.details { " · " (name.replace('_', " ")) " " (clean(&value.to_string())) }
            }
            @if let Some(said) = &event.said { div .aside { (content(said)) } }
        },
    }
}

/// A prompt; for the report of a background task its summary, with the rest folded.
fn asked(input: &Content) -> Markup {
    let text = input.text();
    let report = text.trim_start().strip_prefix("<task-notification>");
    let summary = report.and_then(|text| Some(text.split_once("<summary>")?.1.split_once("</summary>")?.0));
    match summary {
        None => content(input),
        Some(summary) => {
            html! { p { (clean(summary)) } details { summary { "The whole report" } pre tabindex="0" { (clean(cut(&text))) } } }
        }
    }
}

/// The most significant argument of a tool.
fn one_line(tool: &Tool) -> String {
    let json: serde_json::Value = serde_json::from_str(&tool.input).unwrap_or_default();
    let telling = ["command", "file_path", "path", "pattern", "query", "url", "description", "prompt", "skill"];
    telling.iter().find_map(|name| json[name].as_str()).map_or_else(|| tool.input.clone(), str::to_owned)
}

/// The arguments of a tool; an edit is shown as a diff.
fn input(name: &str, tool: &Tool) -> Markup {
    let json: serde_json::Value = serde_json::from_str(&tool.input).unwrap_or_default();
    let text = |key: &str| json[key].as_str();
    let edits: Vec<(&str, &str)> = match (name, json["edits"].as_array()) {
        ("MultiEdit", Some(edits)) => {
            edits.iter().filter_map(|edit| Some((edit["old_string"].as_str()?, edit["new_string"].as_str()?))).collect()
        }
        ("Edit", _) => text("old_string").zip(text("new_string")).into_iter().collect(),
        ("Write", _) => text("content").map(|content| ("", content)).into_iter().collect(),
        _ => Vec::new(),
    };
    html! {
        @if edits.is_empty() {
            @match text("command").filter(|_| name == "Bash") {
                Some(command) => pre tabindex="0" { code { (clean(command)) } },
                None => (long(&serde_json::to_string_pretty(&json).ok().filter(|_| json.is_object()).unwrap_or_else(|| tool.input.clone()))),
            }
        } @else {
            @if let Some(path) = text("file_path") { p { code { (clean(path)) } } }
            @for (old, new) in edits {
                pre .diff tabindex="0" {
                    @for line in diff(&clean(cut(old)), &clean(cut(new))) {
                        @match line {
                            Line::Same(text) => { "  " (text) "\n" },
                            Line::Old(text) => del { "- " (text) "\n" },
                            Line::New(text) => ins { "+ " (text) "\n" },
                            Line::Gap => { "  …\n" },
                        }
                    }
                }
            }
        }
    }
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(SHOWN)]
}

/// Text, folded if it is long, and cut if it is very long.
fn long(text: &str) -> Markup {
    let shown = clean(cut(text));
    html! {
        @if text.len() <= OPEN { pre tabindex="0" { (shown) } } @else {
            details { summary { (number(text.len() as u64)) " bytes" } pre tabindex="0" { (shown) } }
        }
        @if shown.len() < text.len() { p .dim { "Only the beginning is shown." } }
    }
}

fn content(content: &Content) -> Markup {
    match content {
        Content::Text(text) => markdown(cut(text)),
        Content::Parts(parts) => html! {
            @for part in parts {
                @match part {
                    Part::Text(text) => (markdown(cut(text))),
                    Part::Media(media) => p .dim { "[" (clean(&media.kind)) ", " (number(media.length as u64)) " bytes]" },
                }
            }
        },
    }
}

fn images(media: &[(cc_core::observation::Field, Media)]) -> Markup {
    use base64::Engine;
    let shown = media.iter().filter(|(_, media)| media.bytes.len() <= IMAGE && IMAGES.contains(&media.kind));
    html! {
        @for (_, media) in shown {
            img alt="An image of the conversation"
                src={ "data:" (media.kind) ";base64," (base64::engine::general_purpose::STANDARD.encode(&media.bytes)) };
        }
    }
}

pub(super) fn page(site: &Site, session: &str, trace: &str) -> anyhow::Result<Option<Markup>> {
    let Some(wanted) = from_hex::<16>(trace) else { return Ok(None) };
    let Some(one) = site.session(session) else { return Ok(None) };
    let history = site.history();
    let turns = history.index.turns(session)?;
    let rules = history.config.rules.clone();
    drop(history);
    let Some(at) = turns.iter().position(|turn| turn.trace == wanted) else { return Ok(None) };
    let turn = &turns[at];
    let trees = read(&one, turn, 1, &rules)?;
    let Some(tree) = trees.iter().find(|tree| tree.trace == wanted) else { return Ok(None) };
    let deliveries = delivery::of(site, &[wanted]);
    let link = |turn: Option<&ListedTurn>, text: &str| {
        html! {
            @if let Some(turn) = turn { a href=(turn.id()) { (text) } " " }
        }
    };
    let main = html! {
        nav .up aria-label="Up" {
            a href={ "../../session/" (encode(session)) "#t" (turn.number) } { "‹ " (title(&one, &rules)) } " "
            (link(at.checked_sub(1).map(|at| &turns[at]), "‹ turn before")) (link(turns.get(at + 1), "next turn ›"))
        }
        h1 { "Turn " (turn.number) }
        dl .facts {
            dt { "Began" } dd { (time(turn.start, &site.zone)) }
            dt { "Took" } dd { (span(turn.end.zip(turn.start).map_or(0, |(end, start)| end.saturating_sub(start)))) }
            dt { "Tools" } dd { (number(turn.tools)) @if turn.failed_tools > 0 { ", " (number(turn.failed_tools)) " failed" } }
            dt { "Subagents" } dd { (number(turn.agents)) }
            dt { "Trace" } dd { code .copy { (trace) } }
            dt { "Resume" } dd { code .copy { "claude --resume " (visible::line(session)) } }
            (delivery::links(&deliveries, session, trace))
        }
        @if turn.is_copy { p { "This turn was copied from another session, which counts its calls." } }
        (waterfall(tree))
        h2 { "Parts" }
        div .wide { table .rows .nested {
            thead { tr { th scope="col" { "Part" } th .n scope="col" { "time" } th .n scope="col" { "calls" } (figure_heads()) } }
            tbody { @for (depth, node) in tree.flat() { tr {
                th scope="row" { span .indent { (" · ".repeat(depth)) }
                    a href={ "#" (hex(&node.observation.span_id)) } { (clean(&node.observation.name)) } span .dim { " " (node.gist()) } }
                td .n { (span(node.observation.end.saturating_sub(node.observation.start))) }
                (node.figures())
            } } }
        } }
        h2 { "Conversation" }
        (tree.conversation())
        h2 { "All attributes" }
        @for (_, node) in tree.flat() { (facts(site, node)) }
    };
    Ok(Some(frame(&format!("Turn {}", turn.number), "../../", "", site.version(), &main)))
}

/// The width of the drawing and the height of a row, in its own units.
const WIDTH: f64 = 1000.0;
const ROW: f64 = 22.0;

/// A chart of when each part ran: parallel parts overlap.
fn waterfall(tree: &Tree) -> Markup {
    let rows: Vec<(usize, &Node)> = tree.flat();
    let start = rows.iter().map(|(_, node)| node.observation.start).min().unwrap_or_default();
    let end = rows.iter().map(|(_, node)| node.observation.end).max().unwrap_or_default();
    let whole = (end.saturating_sub(start)).max(1) as f64;
    let x = |at: u64| at.saturating_sub(start) as f64 / whole * WIDTH;
    html! {
        svg .waterfall viewBox={ "0 0 " (WIDTH) " " (rows.len() as f64 * ROW) } role="img"
            aria-label="When each part ran; the table below has the same times" {
            @for (at, (depth, node)) in rows.iter().enumerate() {
                @let found = &node.observation;
                @let (left, right) = (x(found.start), x(found.end));
                @let top = at as f64 * ROW;
                a href={ "#" (hex(&found.span_id)) } {
                    title { (clean(&found.name)) ", " (span(found.end.saturating_sub(found.start)))
                        @if found.estimated { " (estimated)" } }
                    rect .(kind(found)) x=(format!("{left:.1}")) y=(format!("{:.1}", top + 2.0))
                        width=(format!("{:.1}", (right - left).max(2.0))) height=(format!("{:.1}", ROW - 4.0)) {}
                    @let (class, anchor, beside) = label(left, right);
                    text .(class) x=(format!("{beside:.1}")) y=(format!("{:.1}", top + 15.0)) text-anchor=(anchor) {
                        (" ".repeat(*depth)) (visible::glance(&found.name, 40)) " " (span(found.end.saturating_sub(found.start)))
                    }
                }
            }
        }
        p .legend {
            @for (class, what) in LEGEND.iter().filter(|(class, _)| rows.iter().any(|(_, node)| kind(&node.observation) == *class)) {
                span .swatch .(class) {} (what) " "
            }
        }
    }
}

/// What the colours of the bars mean.
const LEGEND: [(&str, &str); 6] = [
    ("agent", "turn or subagent"),
    ("generation", "model call"),
    ("tool", "tool"),
    ("event", "event"),
    ("warning", "warning"),
    ("error", "error"),
];

/// The position of a bar's label: after it, before it, or inside it if there is no room beside it.
fn label(left: f64, right: f64) -> (&'static str, &'static str, f64) {
    if right < WIDTH * 0.7 {
        ("beside", "start", right + 5.0)
    } else if left > WIDTH * 0.3 {
        ("beside", "end", left - 5.0)
    } else {
        ("within", "start", left + 5.0)
    }
}

/// The colour class of a bar.
fn kind(found: &Observation) -> &'static str {
    match (&found.level, found.body.kind()) {
        (Level::Error, _) => "error",
        (Level::Warning, _) => "warning",
        (_, "generation") => "generation",
        (_, "tool") => "tool",
        (_, "event") => "event",
        _ => "agent",
    }
}

/// Every attribute of a part.
fn facts(site: &Site, node: &Node) -> Markup {
    let found = &node.observation;
    let attributes = serde_json::to_value(&found.body).ok();
    let attributes = attributes.as_ref().and_then(|body| body.as_object()?.values().next()?.as_object());
    html! {
        details .facts id=(hex(&found.span_id)) {
            summary { (clean(&found.name)) " " span .dim { (found.body.kind()) } }
            dl {
                dt { "id" } dd { code { (hex(&found.span_id)) } }
                dt { "start" } dd { (time(Some(found.start), &site.zone)) }
                dt { "end" } dd { (time(Some(found.end), &site.zone)) @if found.estimated { " (estimated)" } }
                @if let Some(status) = &found.status { dt { "status" } dd { (clean(status)) } }
                @for (name, value) in attributes.into_iter().flatten() {
                    @if !matches!(name.as_str(), "input" | "output") {
                        dt { (name.replace('_', " ")) }
                        dd { (visible::clipped(&value.as_str().map_or_else(|| value.to_string(), str::to_owned), 500)) }
                    }
                }
            }
        }
    }
}
