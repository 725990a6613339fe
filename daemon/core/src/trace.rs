//! A turn → the spans of its trace: names, parents, times, levels. Knows neither attributes nor a wire format.
//!
//! ```text
//! Turn N            agent       one per trace, the root
//! ├── {what}        event       one for everything else that happened
//! └── {model}       generation  one per message.id
//!     └── {tool}    tool        one per tool_use.id
//!         └── {agent type}      agent   one per subagent, with generations of its own below
//! ```

use std::collections::HashMap;

pub use crate::observation::Level;
use crate::{
    ids::{Call, Role, SpanId, TraceId, span_id, trace_id},
    media::Media,
    observation::Detail,
    project::Semantics,
    transcript::record::{Advice, By, Nanos, Prompt, Usage},
    turn::{Generation, Happening, Past, Place, Scope, Tool, Turn, hash::hash},
};

/// An observation without its attributes.
#[derive(Debug)]
pub struct Span<'t> {
    pub trace_id: TraceId,
    pub span_id: SpanId,
    /// `None` for the root.
    pub parent: Option<SpanId>,
    /// The turn or subagent it belongs to, if a model call is in between.
    pub owner: Option<SpanId>,
    /// The name of the subagent it belongs to; `None` in the turn itself.
    pub agent: Option<&'t str>,
    pub name: String,
    pub start: Nanos,
    /// Never before the start.
    pub end: Nanos,
    pub level: Level,
    /// Explains `level`.
    pub status: Option<String>,
    /// A time was missing in the transcript and was derived from its neighbours.
    pub estimated: bool,
    /// The identity of the model call that it is or belongs to.
    pub call: Option<Call>,
    pub body: Body<'t>,
}

#[derive(Debug)]
pub enum Body<'t> {
    Turn(&'t Turn),
    Agent(&'t Turn),
    Generation {
        generation: &'t Generation,
        /// The turn's prompt, on its first call.
        input: Option<&'t Prompt>,
        /// Input that no earlier call had; in `measured` semantics only.
        given: Vec<Given<'t>>,
        /// The turn, on its last call: the call's output is the turn's.
        closes: Option<&'t Turn>,
        usage: Option<Usage>,
        /// When the first block was complete; in `measured` semantics only.
        completion_start: Option<Nanos>,
    },
    /// The answer of another model that was asked within a call.
    Advice {
        advice: &'t Advice,
        output: Option<&'t str>,
    },
    Tool(&'t Tool),
    /// Something else at one point in time.
    Event {
        /// What the model read of it.
        said: Option<(&'t str, &'t [Media])>,
        /// Numbers, and names of models and triggers; never text of the conversation.
        details: Vec<(&'static str, Detail)>,
    },
}

/// Input of a call: the result of a tool, or the text of an event.
#[derive(Debug)]
pub struct Given<'t> {
    /// The span of the tool or event.
    pub span_id: SpanId,
    /// Its name.
    pub name: &'t str,
    /// A tool, or an event with text.
    pub body: Body<'t>,
}

/// Maximum length of a failed tool's status in bytes.
const STATUS: usize = 32 << 10;

/// The spans of `turn` that are due in `scope`, root first. `fired` is when the Stop hook ran that completed the turn, if one
/// did: in `spec` semantics the last generation ends then.
pub fn spans(turn: &Turn, scope: Scope, semantics: Semantics, fired: Option<Nanos>) -> Vec<Span<'_>> {
    let trace = trace_id(turn.trace_key());
    let root = span_id(trace, Role::Turn, turn.trace_key());
    let (id, parent) = match &turn.place {
        None => (root, None),
        Some(place) => {
            let above = place.tool_id.as_ref().map_or(root, |tool| span_id(trace, Role::Tool, tool));
            (span_id(trace, Role::Agent, &place.source()), Some(above))
        }
    };
    let clock = Clock::of(turn, fired);
    let mut spans = Vec::new();
    // A turn that grew is emitted again with what is new; a subagent is emitted once.
    if scope != Scope::Part && turn.is_answered() && (!turn.root_sent || turn.place.is_none() && turn.has_news(scope)) {
        spans.push(top_span(turn, trace, id, parent, &clock));
    }
    let root = id;
    let agent = turn.place.as_ref().map(agent_name);
    let mut given = match semantics {
        Semantics::Spec => HashMap::new(),
        Semantics::Measured => given(turn, scope, trace),
    };
    for (index, note) in turn.notes.iter().enumerate().filter(|(_, note)| turn.note_due(note, scope)) {
        let at = note.at.unwrap_or(clock.start);
        let (name, level, body) = happened(&note.what);
        let call = turn.generations.get(note.after.saturating_sub(1));
        spans.push(Span {
            trace_id: trace,
            span_id: span_id(trace, Role::Event, &turn.event_source(index)),
            parent: Some(root),
            owner: None,
            agent,
            name: name.to_owned(),
            start: at,
            end: at,
            level,
            status: None,
            estimated: note.at.is_none(),
            // A copy of the call makes this a copy too.
            call: call.map(call_of),
            body,
        });
    }
    for (index, generation) in turn.generations.iter().enumerate() {
        let id = span_id(trace, Role::Generation, &turn.generation_source(generation));
        let call = call_of(generation);
        let (start, end, estimated) = generation_time(turn, index, semantics, &clock, fired);
        if turn.generation_due(index, scope) {
            let last = index + 1 == turn.generations.len();
            let warning = match (&generation.service.cut, generation.stop_reason.as_deref()) {
                _ if turn.is_interrupted && last && generation.stop_reason.is_none() => {
                    Some("interrupted by the user".to_owned())
                }
                (Some(cause), _) if cause == "aborted" => Some("interrupted by the user".to_owned()),
                (Some(cause), _) => Some(format!("the stream was cut: {cause}")),
                (None, Some("refusal")) => Some("the model refused".to_owned()),
                (None, Some("max_tokens")) => Some("stopped at the output limit".to_owned()),
                _ => None,
            };
            spans.push(Span {
                trace_id: trace,
                span_id: id,
                parent: Some(root),
                owner: None,
                agent,
                name: generation.model.clone(),
                start,
                end,
                level: if warning.is_some() { Level::Warning } else { Level::Default },
                status: warning,
                estimated,
                call: Some(call),
                body: Body::Generation {
                    generation,
                    input: (index == 0).then_some(&turn.prompt),
                    given: given.remove(&index).unwrap_or_default(),
                    closes: (last && turn.place.is_none() && scope != Scope::Part).then_some(turn),
                    usage: generation.usage,
                    completion_start: (semantics == Semantics::Measured).then_some(generation.first).flatten(),
                },
            });
            let mut said = generation.tools.iter().filter(|tool| tool.on_server && tool.name == "advisor");
            for (number, advice) in generation.advice.iter().enumerate() {
                let result = said.next().and_then(|tool| tool.result.as_ref());
                let source = format!("{}/advice/{number}", turn.generation_source(generation));
                spans.push(Span {
                    trace_id: trace,
                    span_id: span_id(trace, Role::Generation, &source),
                    parent: Some(id),
                    owner: Some(root),
                    agent,
                    name: advice.model.clone(),
                    start,
                    end,
                    level: Level::Default,
                    status: None,
                    // All that is known is that it was asked within the call.
                    estimated: true,
                    call: Some(call),
                    body: Body::Advice { advice, output: result.map(|(result, _)| result.output.as_str()) },
                });
            }
        }
        let mut free = start;
        for (position, tool) in generation.tools.iter().enumerate() {
            let result = tool.result.as_ref();
            let known = result.and_then(|(_, at)| *at);
            let start = match semantics {
                Semantics::Spec => free,
                Semantics::Measured => tool.called.or(generation.last).unwrap_or(start),
            };
            let end = known.unwrap_or(if tool.on_server { end } else { clock.end }).max(start);
            free = end;
            if turn.tool_due(index, position, scope) {
                let (level, status) = match result {
                    Some((result, _)) if result.is_error => (Level::Error, Some(brief(&result.output))),
                    Some(_) => (Level::Default, None),
                    None if tool.on_server => (Level::Default, None),
                    // When the session is resumed, its transcript says that the tool was interrupted, which is
                    // an error (2.1.329).
                    None => (Level::Error, Some("no result".to_owned())),
                };
                spans.push(Span {
                    trace_id: trace,
                    span_id: span_id(trace, Role::Tool, &turn.tool_source(tool)),
                    parent: Some(id),
                    owner: Some(root),
                    agent,
                    name: tool.name.clone(),
                    start,
                    end,
                    level,
                    status,
                    estimated: known.is_none(),
                    call: Some(call),
                    body: Body::Tool(tool),
                });
            }
        }
    }
    spans.extend(turn.agents.iter().flat_map(|agent| self::spans(agent, scope, semantics, None)));
    spans
}

/// The input of each call that is due, by index: tool results since the call before, then other input. The first call of a turn
/// has the prompt instead.
fn given(turn: &Turn, scope: Scope, trace: TraceId) -> HashMap<usize, Vec<Given<'_>>> {
    let is_due = |index: usize| (1..turn.generations.len()).contains(&index) && turn.generation_due(index, scope);
    let mut given: HashMap<usize, Vec<Given<'_>>> = HashMap::new();
    let tools = turn.generations.iter().flat_map(|generation| &generation.tools);
    for tool in tools.filter(|tool| is_due(tool.given_to)) {
        let span_id = span_id(trace, Role::Tool, &turn.tool_source(tool));
        given.entry(tool.given_to).or_default().push(Given { span_id, name: &tool.name, body: Body::Tool(tool) });
    }
    for (number, note) in turn.notes.iter().enumerate().filter(|(_, note)| is_due(note.after)) {
        let (name, _, body) = happened(&note.what);
        if matches!(body, Body::Event { said: Some(_), .. }) {
            let span_id = span_id(trace, Role::Event, &turn.event_source(number));
            given.entry(note.after).or_default().push(Given { span_id, name, body });
        }
    }
    given
}

/// Content and usage of `generation`, hashed.
fn content(generation: &Generation) -> Option<(u64, [u64; 4])> {
    let counts = generation.usage.filter(|usage| *usage != Usage::default());
    generation.opening.zip(counts).map(|(opening, usage)| {
        let Usage { input, output, cache_read, cache_creation, .. } = usage;
        (opening, [input, output, cache_read, cache_creation])
    })
}

/// What recognises `generation` within one process: like the proofs of [`call_of`] but much cheaper, and never stored.
pub(crate) fn marks(generation: &Generation) -> [Option<u64>; 3] {
    let id = generation.id.as_str();
    let marks = [
        generation.first.map(|at| hash((0, id, at))),
        generation.request_id.as_deref().map(|request| hash((1, id, request))),
        content(generation).map(|content| hash((2, id, content))),
    ];
    if marks.iter().any(Option::is_some) { marks } else { [Some(hash((3, id))), None, None] }
}

/// The identity of `generation`, which recognises copies of it.
pub fn call_of(generation: &Generation) -> Call {
    let content = content(generation).map(|(opening, [input, output, cache_read, cache_creation])| {
        format!("{opening:016x} {input} {output} {cache_read} {cache_creation}")
    });
    Call::of(&generation.id, generation.first, generation.request_id.as_deref(), content.as_deref())
}

/// The event for the trace of `left`, which the user abandoned by going back and giving the prompt of `turn`.
pub fn left_behind(turn: &Turn, left: &Past) -> Span<'static> {
    let trace = trace_id(&left.key);
    let at = turn.prompt.at;
    Span {
        trace_id: trace,
        span_id: span_id(trace, Role::Event, &format!("{}/left", left.key)),
        parent: Some(span_id(trace, Role::Turn, &left.key)),
        owner: None,
        agent: None,
        name: "left behind".to_owned(),
        start: at.unwrap_or(1),
        end: at.unwrap_or(1),
        level: Level::Default,
        status: None,
        estimated: at.is_none(),
        call: None,
        body: Body::Event { said: None, details: vec![("for_turn", Detail::Number(turn.number.into()))] },
    }
}

/// A tool's error message, no longer than Claude Code shows it.
fn brief(text: &str) -> String {
    text[..text.floor_char_boundary(STATUS)].to_owned()
}

/// The turn's times, with gaps filled from their neighbours.
struct Clock {
    start: Nanos,
    end: Nanos,
}

impl Clock {
    fn of(turn: &Turn, fired: Option<Nanos>) -> Self {
        let start = turn
            .prompt
            .at
            .or_else(|| turn.generations.iter().find_map(|g| g.first))
            .or(turn.end)
            .or(fired)
            .unwrap_or(1);
        Self { start, end: turn.end.unwrap_or(start).max(start) }
    }
}

/// The span of the whole turn or subagent.
fn top_span<'t>(turn: &'t Turn, trace_id: TraceId, span_id: SpanId, parent: Option<SpanId>, clock: &Clock) -> Span<'t> {
    let (level, status) = match &turn.error {
        Some(error) => (Level::Error, Some(error.text.clone())),
        None if turn.is_interrupted => (Level::Warning, Some("interrupted by the user".to_owned())),
        None => (Level::Default, None),
    };
    Span {
        trace_id,
        span_id,
        parent,
        owner: None,
        agent: turn.place.as_ref().map(agent_name),
        name: match &turn.place {
            None => format!("Turn {}", turn.number),
            Some(place) => agent_name(place).to_owned(),
        },
        start: clock.start,
        end: clock.end,
        level,
        status,
        estimated: turn.prompt.at.is_none() || turn.end.is_none(),
        call: None,
        body: match turn.place {
            None => Body::Turn(turn),
            Some(_) => Body::Agent(turn),
        },
    }
}

/// The name of a subagent.
pub(crate) fn agent_name(place: &Place) -> &str {
    place.agent_type.as_deref().unwrap_or("agent")
}

/// Name, level and body of an event.
fn happened(what: &Happening) -> (&'static str, Level, Body<'_>) {
    let number = |key: &'static str, number: &Option<u64>| Some((key, Detail::Number((*number)?)));
    let name = |key: &'static str, name: &String| (!name.is_empty()).then(|| (key, Detail::Name(name.clone())));
    let (called, level, said, details) = match what {
        Happening::Queued(text, media) => ("queued prompt", Level::Default, Some((text.as_str(), &media[..])), vec![]),
        Happening::HookFeedback(text) => ("hook feedback", Level::Default, Some((text.as_str(), &[][..])), vec![]),
        Happening::Notification(text) => ("task notification", Level::Default, Some((text.as_str(), &[][..])), vec![]),
        Happening::Aside { by, text } => {
            let (called, details) = match by {
                By::Harness => ("note", vec![]),
                By::Hook(hook) => ("hook context", vec![name("hook", hook)]),
                By::Silent => ("silent input", vec![]),
            };
            (called, Level::Default, Some((text.as_str(), &[][..])), details)
        }
        Happening::Compacted { trigger, tokens: (before, after) } => {
            let details =
                vec![name("trigger", trigger), number("tokens_before", before), number("tokens_after", after)];
            ("compaction", Level::Default, None, details)
        }
        Happening::Fallback { from, to, trigger } => {
            let details = vec![name("from", from), name("to", to), name("trigger", trigger)];
            ("model fallback", Level::Warning, None, details)
        }
        Happening::Retry { status, attempt } => {
            ("API retry", Level::Warning, None, vec![number("status", status), number("attempt", attempt)])
        }
    };
    (called, level, Body::Event { said, details: details.into_iter().flatten().collect() })
}

/// Start, end, and whether either is estimated.
fn generation_time(
    turn: &Turn,
    index: usize,
    semantics: Semantics,
    clock: &Clock,
    fired: Option<Nanos>,
) -> (Nanos, Nanos, bool) {
    let generation = &turn.generations[index];
    let first = generation.first.or(generation.previous).unwrap_or(clock.start);
    let (start, end) = match semantics {
        Semantics::Spec => {
            let next = turn.generations.get(index + 1);
            let end = match next {
                Some(next) => next.first.or(next.previous).unwrap_or(clock.end),
                None => fired.unwrap_or(clock.end),
            };
            (first, end)
        }
        Semantics::Measured => {
            let start = generation.requested.or(generation.previous).unwrap_or(first);
            (start.min(first), generation.last.unwrap_or(first))
        }
    };
    (start, end.max(start), generation.first.is_none())
}

#[cfg(test)]
mod tests;
