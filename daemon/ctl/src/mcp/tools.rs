//! The tools: arguments → figures and masked text, in one bounded JSON object.

use std::{borrow::Cow, time::Duration};

use anyhow::{Context, bail};
use jiff::tz::TimeZone;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use crate::{
    history::{History, prompt},
    usage,
    view::{Node, around, read},
};
use cc_core::{
    ids::{from_hex, hex},
    observation::{Body, Observation},
    project::Capture,
    usage::By,
    visible,
};
use cc_langfuse::{
    clock,
    index::{Filter, Listed, ListedTurn},
};

/// The longest answer, in bytes of JSON.
const ANSWER: usize = 24 << 10;

/// How many items an answer has, and at most.
const ITEMS: usize = 20;
const MOST: usize = 200;

/// Lengths of texts, in characters.
const PROMPT: usize = 200;
const TEXT: usize = 400;
const TEXT_MOST: usize = 8000;

/// How long prompts are searched for one answer.
const SEARCH: Duration = Duration::from_secs(2);

/// How many characters around a hit are shown.
const AROUND: usize = 80;

/// A tool as the client sees it.
pub(super) struct Described {
    pub name: &'static str,
    pub title: &'static str,
    pub what: &'static str,
    pub schema: fn() -> Value,
    pub answer: fn(&History, Value, &TimeZone) -> anyhow::Result<Value>,
}

pub(super) const ALL: [Described; 5] = [
    Described {
        name: "usage",
        title: "Tokens and cost",
        what: "Tokens and cost of model calls, summed by day, week, month, project, model, session, tool, skill, agent, mcp or branch. \
               The total covers all rows, also those that are not shown. `telemetry` is what calls without a line in a transcript used, as far as Claude Code's telemetry names them; `untraced` is what it counted beyond.",
        schema: || {
            object(
                &[
                    ("by", json!({"type": "string", "enum": By::ALL.map(|(name, _)| name), "default": "day"})),
                    ("since", since_schema()),
                    ("project", json!({"type": "string", "description": "A directory: only calls in it or below"})),
                    limit_schema(),
                    offset_schema(),
                ],
                &[],
            )
        },
        answer: |history, arguments, zone| usage_of(history, parsed(arguments)?, zone),
    },
    Described {
        name: "sessions",
        title: "Sessions",
        what: "Sessions on this machine, the most recently active first, each with title, project, branch, models, turns, calls, tokens, cost and errors.",
        schema: || {
            object(
                &[
                    (
                        "text",
                        json!({"type": "string", "description": "Only sessions with this in title, project, branch or id"}),
                    ),
                    ("since", since_schema()),
                    limit_schema(),
                    offset_schema(),
                ],
                &[],
            )
        },
        answer: |history, arguments, zone| sessions(history, parsed(arguments)?, zone),
    },
    Described {
        name: "session",
        title: "A session's turns",
        what: "One session with its turns: the beginning of each prompt, when, how long, calls, tools, failed tools, subagents, tokens and cost.",
        schema: || object(&[session_schema(), limit_schema(), offset_schema()], &["session"]),
        answer: |history, arguments, zone| session(history, parsed(arguments)?, zone),
    },
    Described {
        name: "turn",
        title: "What happened in a turn",
        what: "One turn: every model call, tool call, subagent and event in order, with depth, time, tokens, cost, errors and the beginning of its \
               input and output.",
        schema: || {
            object(
                &[
                    session_schema(),
                    (
                        "turn",
                        json!({"type": ["integer", "string"], "description": "Its number in the session, or its trace id"}),
                    ),
                    (
                        "chars",
                        json!({"type": "integer", "minimum": 0, "maximum": TEXT_MOST, "default": TEXT,
                "description": "How much of each input and output"}),
                    ),
                    limit_schema(),
                    offset_schema(),
                ],
                &["session", "turn"],
            )
        },
        answer: |history, arguments, zone| turn(history, parsed(arguments)?, zone),
    },
    Described {
        name: "search",
        title: "Search prompts",
        what: "Prompts that contain a text, in any case, newest sessions first, for at most 2 seconds.",
        schema: || {
            object(
                &[
                    ("text", json!({"type": "string", "minLength": 1})),
                    limit_schema(),
                    (
                        "from",
                        json!({"type": "integer", "minimum": 0, "description": "Go on with this session; an answer says which"}),
                    ),
                ],
                &["text"],
            )
        },
        answer: |history, arguments, zone| search(history, parsed(arguments)?, zone),
    },
];

fn object(properties: &[(&str, Value)], required: &[&str]) -> Value {
    let properties: Map<String, Value> =
        properties.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

fn since_schema() -> Value {
    json!({"type": "string", "description": "12h, 30d, 4w, or a day such as 2026-11-01"})
}

fn limit_schema() -> (&'static str, Value) {
    ("limit", json!({"type": "integer", "minimum": 1, "maximum": MOST, "default": ITEMS}))
}

fn offset_schema() -> (&'static str, Value) {
    ("offset", json!({"type": "integer", "minimum": 0, "default": 0}))
}

fn session_schema() -> (&'static str, Value) {
    ("session", json!({"type": "string", "description": "Its id, or the beginning of it"}))
}

fn parsed<T: DeserializeOwned>(arguments: Value) -> anyhow::Result<T> {
    serde_json::from_value(arguments).context("the arguments are not those of this tool")
}

/// Which part of a list is wanted.
#[derive(Deserialize)]
#[serde(default)]
struct Part {
    limit: usize,
    offset: usize,
}

impl Default for Part {
    fn default() -> Self {
        Self { limit: ITEMS, offset: 0 }
    }
}

/// Adds to `answer`, under `name`, as many of `items` as are wanted and fit, and how to get the rest.
fn list<T>(
    mut answer: Value,
    name: &str,
    items: &[T],
    part: &Part,
    each: impl Fn(&T) -> anyhow::Result<Value>,
) -> anyhow::Result<Value> {
    let limit = part.limit.clamp(1, MOST);
    let (mut shown, mut bytes) = (Vec::new(), answer.to_string().len());
    for item in items.iter().skip(part.offset).take(limit) {
        let value = each(item)?;
        let length = value.to_string().len() + 1;
        // One item is always there: with none, asking for more would not end.
        if bytes + length > ANSWER && !shown.is_empty() {
            break;
        }
        bytes += length;
        shown.push(value);
    }
    let next = part.offset.saturating_add(shown.len());
    if next < items.len() && !shown.is_empty() {
        answer["more"] =
            json!(format!("{} of {} are here: ask again with \"offset\": {next}", shown.len(), items.len()));
    }
    answer[name] = shown.into();
    Ok(answer)
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct UsageOf {
    by: String,
    since: Option<String>,
    project: Option<String>,
    limit: usize,
    offset: usize,
}

impl Default for UsageOf {
    fn default() -> Self {
        Self { by: "day".into(), since: None, project: None, limit: ITEMS, offset: 0 }
    }
}

fn usage_of(history: &History, given: UsageOf, zone: &TimeZone) -> anyhow::Result<Value> {
    let by = By::ALL.iter().find(|(name, _)| *name == given.by).map(|(_, by)| *by);
    let by = by.with_context(|| format!("`by` is one of {}", By::ALL.map(|(name, _)| name).join(", ")))?;
    let filter = Filter { since: since(given.since.as_deref(), zone)?, project: given.project };
    let mut report = history.index.usage(&filter, by, zone)?;
    // The latest day is what people ask for.
    if by.is_time() {
        report.rows.reverse();
    }
    let mut answer = json!({"total": report.total, "telemetry": report.telemetry, "untraced": report.untraced});
    if !report.unpriced.is_empty() {
        answer["unpriced"] = json!(report.unpriced);
    }
    let part = Part { limit: given.limit, offset: given.offset };
    list(answer, "rows", &report.rows, &part, |row| Ok(serde_json::to_value(row)?))
}

fn since(text: Option<&str>, zone: &TimeZone) -> anyhow::Result<Option<u64>> {
    text.map(|text| usage::since_of(text, zone).map_err(|why| anyhow::anyhow!("`since` is {why}"))).transpose()
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Sessions {
    text: Option<String>,
    since: Option<String>,
    limit: usize,
    offset: usize,
}

impl Default for Sessions {
    fn default() -> Self {
        Self { text: None, since: None, limit: ITEMS, offset: 0 }
    }
}

fn sessions(history: &History, given: Sessions, zone: &TimeZone) -> anyhow::Result<Value> {
    let since = since(given.since.as_deref(), zone)?;
    let wanted = given.text.map(|text| text.to_lowercase());
    let mut all = history.index.sessions()?;
    all.retain(|one| {
        since.is_none_or(|since| one.last.is_some_and(|last| last >= since)) && is_meant(one, wanted.as_deref())
    });
    let part = Part { limit: given.limit, offset: given.offset };
    list(json!({"sessions_in_all": all.len()}), "sessions", &all, &part, |one| listed(history, one))
}

fn is_meant(one: &Listed, wanted: Option<&str>) -> bool {
    let Some(wanted) = wanted else { return true };
    let names = [one.title.as_deref(), one.project.as_deref(), one.branch.as_deref(), Some(&one.session_id)];
    names.into_iter().flatten().any(|name| name.to_lowercase().contains(wanted))
}

fn listed(history: &History, one: &Listed) -> anyhow::Result<Value> {
    let mut value = serde_json::to_value(one)?;
    if one.title.is_none()
        && let Some(at) = one.first_prompt
    {
        value["first_prompt"] = said(history, one, at).into();
    }
    Ok(value)
}

/// The beginning of a prompt, or that it is not given.
fn said(history: &History, one: &Listed, at_byte: u64) -> Option<String> {
    if history.config.floor.capture == Capture::Metadata {
        return None;
    }
    prompt(&one.path, at_byte, &history.config.rules).map(|text| visible::glance(&text, PROMPT))
}

/// The session that `name` means.
fn found(history: &History, name: &str) -> anyhow::Result<Listed> {
    let mut all = history.index.sessions()?;
    if let Some(at) = all.iter().position(|one| one.session_id == name) {
        return Ok(all.swap_remove(at));
    }
    all.retain(|one| !name.is_empty() && one.session_id.starts_with(name));
    match all.len() {
        0 => bail!("no session has this id: `sessions` lists them"),
        1 => Ok(all.swap_remove(0)),
        several => bail!("{several} sessions have ids that begin so: give more of it"),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SessionOf {
    session: String,
    #[serde(default = "items")]
    limit: usize,
    #[serde(default)]
    offset: usize,
}

fn items() -> usize {
    ITEMS
}

fn session(history: &History, given: SessionOf, _: &TimeZone) -> anyhow::Result<Value> {
    let one = found(history, &given.session)?;
    let turns = history.index.turns(&one.session_id)?;
    let (filter, id) = (Filter::default(), Some(&*one.session_id));
    let (telemetry, untraced) = (history.index.telemetry(&filter, id)?, history.index.untraced(&filter, id)?);
    let answer = json!({
        "session": listed(history, &one)?, "telemetry": telemetry, "untraced": untraced, "turns_in_all": turns.len(),
    });
    let part = Part { limit: given.limit, offset: given.offset };
    list(answer, "turns", &turns, &part, |turn| Ok(turn_value(turn, said(history, &one, turn.at_byte))))
}

fn turn_value(turn: &ListedTurn, prompt: Option<String>) -> Value {
    let took = turn.end.zip(turn.start).map(|(end, start)| end.saturating_sub(start) / 1_000_000);
    let mut value = json!({
        "turn": turn.number, "trace": turn.id(), "prompt": prompt, "at": moment(turn.start), "took_ms": took,
        "tools": turn.tools, "failed_tools": turn.failed_tools, "subagents": turn.agents,
        "calls": turn.sum.calls, "tokens": turn.sum.tokens, "cost_usd": turn.sum.cost_usd,
    });
    for (name, is_so) in [
        ("interrupted", turn.is_interrupted),
        ("ended_by_an_error", turn.is_error),
        ("not_finished", turn.is_open),
        ("copied_from_another_session", turn.is_copy),
    ] {
        if is_so {
            value[name] = true.into();
        }
    }
    value
}

/// RFC 3339, UTC.
fn moment(at: Option<u64>) -> Option<String> {
    jiff::Timestamp::from_nanosecond(at?.into()).ok().map(|at| at.to_string())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TurnOf {
    session: String,
    turn: Value,
    #[serde(default = "chars")]
    chars: usize,
    #[serde(default = "items")]
    limit: usize,
    #[serde(default)]
    offset: usize,
}

fn chars() -> usize {
    TEXT
}

fn turn(history: &History, given: TurnOf, _: &TimeZone) -> anyhow::Result<Value> {
    let one = found(history, &given.session)?;
    let turns = history.index.turns(&one.session_id)?;
    let number = given.turn.as_u64().or_else(|| given.turn.as_str()?.parse().ok());
    let trace = given.turn.as_str().and_then(from_hex::<16>);
    let is_it =
        |turn: &&ListedTurn| Some(turn.trace) == trace || trace.is_none() && Some(u64::from(turn.number)) == number;
    let turn = turns.iter().find(is_it).context("the session has no such turn: `session` lists them")?;
    let trees = read(&one, turn, 1, &history.config.rules)?;
    let tree = trees.iter().find(|tree| tree.trace == turn.trace).context("the transcript no longer has this turn")?;
    let nodes = tree.flat();
    let has_text = history.config.floor.capture == Capture::Full;
    let most = if has_text { given.chars.min(TEXT_MOST) } else { 0 };
    let answer = json!({"session": one.session_id, "turn": turn_value(turn, said(history, &one, turn.at_byte)), "parts_in_all": nodes.len()});
    let part = Part { limit: given.limit, offset: given.offset };
    list(answer, "parts", &nodes, &part, |(depth, node)| Ok(part_value(*depth, node, most)))
}

fn part_value(depth: usize, node: &Node, most: usize) -> Value {
    let found: &Observation = &node.observation;
    let kind = if matches!(found.body, Body::Turn(_)) { "turn" } else { found.body.kind() };
    let mut value = json!({
        "depth": depth, "kind": kind, "name": visible::clipped(&found.name, PROMPT), "at": moment(Some(found.start)),
        "took_ms": found.end.saturating_sub(found.start) / 1_000_000, "span": hex(&found.span_id),
    });
    if node.below.calls > 0 || !node.below.tokens.is_none() {
        value["calls"] = node.below.calls.into();
        value["tokens"] = json!(node.below.tokens);
        value["cost_usd"] = json!(node.below.cost_usd);
    }
    if let Body::Generation(generation) = &found.body {
        value["model"] = generation.model.as_str().into();
        value["stop_reason"] = json!(generation.stop_reason);
    }
    let (input, output) = texts(&found.body);
    for (name, text) in
        [("input", input), ("output", output), ("error", found.status.as_deref().unwrap_or_default().into())]
    {
        if most > 0 && !text.trim().is_empty() {
            value[name] = visible::glance(&text, most).into();
        }
    }
    if found.status.is_some() {
        value["level"] = json!(found.level);
    }
    value
}

/// Input and output of a part.
fn texts(body: &Body) -> (Cow<'_, str>, Cow<'_, str>) {
    match body {
        Body::Turn(turn) => (turn.input.text(), turn.output.as_str().into()),
        Body::Agent(agent) => (agent.input.text(), agent.output.as_str().into()),
        // What a call was given is the output of parts before it.
        Body::Generation(generation) => {
            ("".into(), generation.output.as_ref().map_or("", |output| output.text.as_str()).into())
        }
        Body::Tool(tool) => {
            (tool.input.as_str().into(), tool.output.as_ref().map_or("", |output| output.text.as_str()).into())
        }
        Body::Event(event) => (event.said.as_ref().map(|said| said.text()).unwrap_or_default(), "".into()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Search {
    text: String,
    #[serde(default = "items")]
    limit: usize,
    #[serde(default)]
    from: usize,
}

fn search(history: &History, given: Search, _: &TimeZone) -> anyhow::Result<Value> {
    let wanted = given.text.to_lowercase();
    if wanted.trim().is_empty() {
        bail!("`text` is empty");
    }
    if history.config.floor.capture == Capture::Metadata {
        bail!("prompts are not given: config.toml says capture_at_most = \"metadata\"");
    }
    let (sessions, limit) = (history.index.sessions()?, given.limit.clamp(1, MOST));
    let until = clock::monotonic() + SEARCH;
    let (mut hits, mut bytes, mut next) = (Vec::new(), 0, None);
    for (at, one) in sessions.iter().enumerate().skip(given.from) {
        if hits.len() >= limit || bytes > ANSWER || clock::monotonic() >= until {
            next = Some(at);
            break;
        }
        for turn in history.index.prompts(&one.session_id)? {
            let text = prompt(&one.path, turn.at_byte, &history.config.rules);
            let Some(text) = text.filter(|text| text.to_lowercase().contains(&wanted)) else { continue };
            // Of one session no more than fit.
            if hits.len() >= MOST || bytes > ANSWER {
                break;
            }
            let hit = json!({
                "session": one.session_id, "title": one.title, "turn": turn.number, "trace": hex(&turn.trace),
                "at": moment(turn.start), "text": around(&text, &wanted, AROUND),
            });
            bytes += hit.to_string().len();
            hits.push(hit);
        }
    }
    let mut answer =
        json!({"hits": hits, "sessions_searched": next.unwrap_or(sessions.len()).saturating_sub(given.from)});
    if let Some(next) = next {
        answer["more"] = json!(format!("{} sessions are left: ask again with \"from\": {next}", sessions.len() - next));
    }
    Ok(answer)
}
