//! This program's own attributes, for facts that a backend's conventions do not cover. Each backend adds its own prefix.

use std::borrow::Cow;

use super::wire::{SpanEvent, SpanKind, Status, Value, WireSpan};
use crate::observation::{
    Agent, Body, Content, Event, Generation, Level, MediaRef, Observation, Part, Tool, TraceFacts, Turn, Usage,
};

pub(super) const SOURCE: &str = "claude-code";

/// In the order they are sent.
pub(super) type Pairs = Vec<(Cow<'static, str>, Value)>;

/// Collects pairs; empty text is left out.
#[derive(Default)]
pub(super) struct Put(pub(super) Pairs);

impl Put {
    pub(super) fn value(&mut self, key: impl Into<Cow<'static, str>>, value: Value) {
        self.0.push((key.into(), value));
    }

    pub(super) fn text(&mut self, key: impl Into<Cow<'static, str>>, text: impl Into<String>) {
        let text = text.into();
        if !text.is_empty() {
            self.value(key, Value::Text(text));
        }
    }

    pub(super) fn some(&mut self, key: impl Into<Cow<'static, str>>, text: Option<impl Into<String>>) {
        if let Some(text) = text {
            self.text(key, text);
        }
    }

    pub(super) fn int(&mut self, key: impl Into<Cow<'static, str>>, number: u64) {
        self.value(key, int(number));
    }

    fn count(&mut self, key: &'static str, number: u64) {
        if number > 0 {
            self.int(key, number);
        }
    }
}

/// OTLP integers are signed.
pub(super) fn int(number: u64) -> Value {
    Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

/// Any value as text, including lists and numbers.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::List(items) => items.join(", "),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Double(value) => value.to_string(),
    }
}

pub(super) fn of_trace(facts: &TraceFacts) -> Pairs {
    let mut put = Put::default();
    put.int("turn_number", facts.turn.into());
    put.some("version", facts.claude_version.as_deref());
    put.some("slug", facts.slug.as_deref());
    put.some("cwd", facts.cwd.as_deref());
    put.some("git_branch", facts.git_branch.as_deref());
    put.some("environment", facts.environment.as_deref());
    put.some("release", facts.release.as_deref());
    put.some("forked_from", facts.forked_from.as_deref());
    put.some("session_title", facts.title.as_deref());
    put.some("agent_team", facts.team.as_deref());
    put.some("agent_name", facts.teammate.as_deref());
    put.some("lead_session", facts.lead.as_deref());
    put.0
}

pub(super) fn of_observation(observation: &Observation) -> Pairs {
    let mut put = Put::default();
    match &observation.body {
        Body::Turn(turn) => put.turn(turn),
        Body::Agent(agent) => put.agent(agent),
        Body::Generation(generation) => put.generation(generation),
        Body::Tool(tool) => put.tool(tool, &observation.name),
        Body::Event(event) => put.event(event),
    }
    if observation.level == Level::Warning {
        put.some("warning", observation.status.as_deref());
    }
    put.some("timing", observation.estimated.then_some("estimated"));
    put.0
}

impl Put {
    fn turn(&mut self, turn: &Turn) {
        self.some("trigger", turn.trigger.as_deref());
        self.some("command", turn.command.as_deref());
        self.some("context", turn.context.as_deref());
        self.some("prompt", turn.stands_in.then_some("stand-in"));
        self.some("permission_mode", turn.permission_mode.as_deref());
        if let Some(ms) = turn.queued_ms {
            self.int("queue_wait_ms", ms);
        }
        if let Some(number) = turn.instead_of {
            self.int("instead_of_turn", number.into());
        }
        self.some("planned_in", turn.planned_in.as_deref());
    }

    fn agent(&mut self, agent: &Agent) {
        self.some("context", agent.context.as_deref());
        self.some("agent_id", agent.agent_id.as_deref());
        self.some("agent_type", agent.agent_type.as_deref());
        self.some("workflow_run", agent.workflow_run.as_deref());
        self.some("description", agent.description.as_deref());
    }

    fn generation(&mut self, generation: &Generation) {
        let name = generation.model.as_str();
        self.some("model", (name != model(name)).then_some(name));
        self.some("message_id", generation.message_id.as_deref());
        self.some("request_id", generation.request_id.as_deref());
        self.some("stop_reason", generation.stop_reason.as_deref());
        if let Some(count) = generation.tool_count {
            self.int("tool_count", count);
        }
        self.some("speed", generation.speed.as_deref());
        self.some("service_tier", generation.service_tier.as_deref());
        self.some("requested_model", generation.requested_model.as_deref());
        let blocks = &generation.other_blocks;
        self.some("other_blocks", (!blocks.is_empty()).then(|| format!("[{}]", blocks.join(","))));
        self.count("web_search_requests", generation.web_searches);
        self.count("web_fetch_requests", generation.web_fetches);
        self.some("role", generation.role.as_deref());
        if let Some(measured) = &generation.measured {
            self.some("measured_by", measured.source());
            measured.details().for_each(|(name, number)| self.int(name, number));
        }
    }

    fn tool(&mut self, tool: &Tool, name: &str) {
        // A tool that ran in the API is not a call that Claude Code answered.
        self.text(if tool.on_server { "server_tool_id" } else { "tool_id" }, tool.id.as_str());
        self.text("tool_name", name);
        self.some("rewritten_input", tool.rewritten.as_deref());
        self.some("runs_on", tool.on_server.then_some("server"));
        if let Some(ms) = tool.ran_ms() {
            self.int("duration_ms", ms);
        }
        self.some("denied", tool.denied.as_deref());
        if let Some(waited) = &tool.waited {
            if let Some(ms) = waited.permission_ms {
                self.int("permission_wait_ms", ms);
            }
            self.some("decision", waited.decision.as_deref());
            self.some("decided_by", waited.decided_by.as_deref());
        }
    }

    fn event(&mut self, event: &Event) {
        use crate::observation::Detail;
        for (key, detail) in &event.details {
            match detail {
                Detail::Number(number) => self.int(key.clone(), *number),
                Detail::Name(name) => self.text(key.clone(), name.as_str()),
            }
        }
    }
}

/// The name in price tables, which has no suffix for the long context window.
pub(super) fn model(name: &str) -> &str {
    name.strip_suffix("[1m]").unwrap_or(name)
}

/// The text that replaces an image or document that is not sent.
pub(crate) fn media(media: &MediaRef) -> String {
    format!("[{}, {} bytes]", media.kind, media.length)
}

/// The text of `content`, with type and size in place of each image and document.
pub(super) fn text(content: &Content) -> String {
    match content {
        Content::Text(text) => text.clone(),
        Content::Parts(parts) => {
            let text = |part: &Part| match part {
                Part::Text(text) => text.clone(),
                Part::Media(media) => self::media(media),
            };
            parts.iter().map(text).collect::<Vec<_>>().join("\n")
        }
    }
}

/// Token sums as most receivers expect them.
pub(super) struct Sums {
    /// Including cache reads and writes.
    pub(super) input: u64,
    /// For both lifetimes.
    pub(super) cache_write: u64,
    pub(super) total: u64,
}

impl Sums {
    pub(super) fn of(usage: Usage) -> Self {
        let sum = |counts: &[u64]| counts.iter().fold(0u64, |sum, count| sum.saturating_add(*count));
        let cache_write = sum(&[usage.cache_write_5m, usage.cache_write_1h, usage.cache_write]);
        let input = sum(&[usage.input, usage.cache_read, cache_write]);
        Self { input, cache_write, total: sum(&[input, usage.output]) }
    }
}

/// The span of `observation` with these attributes. Tools are siblings of the model call that asked for them: some backends sum
/// tokens along the tree and skip everything below a call. A failed span has an `exception` event; all
/// others are marked as successful.
pub(super) fn span(observation: &Observation, attributes: Pairs) -> WireSpan {
    let exception = observation.exception();
    let status = match (exception, observation.level) {
        (Some((_, message)), _) => Status::Error(message.to_owned()),
        (None, Level::Error) => Status::Error(observation.status.clone().unwrap_or_default()),
        (None, Level::Default | Level::Warning) => Status::Ok,
    };
    WireSpan {
        trace_id: observation.trace_id,
        span_id: observation.span_id,
        parent_id: observation.owner.or(observation.parent).unwrap_or_default(),
        name: observation.name.clone(),
        start_ns: observation.start,
        end_ns: observation.end,
        status,
        attributes,
        kind: match observation.body {
            Body::Generation(_) => SpanKind::Client,
            Body::Turn(_) | Body::Agent(_) | Body::Tool(_) | Body::Event(_) => SpanKind::Internal,
        },
        events: exception.map(|(kind, why)| SpanEvent::exception(observation.end, kind, why)).into_iter().collect(),
        links: observation.links.iter().map(|link| (link.trace_id, link.span_id)).collect(),
    }
}

/// True if `text` is a JSON object or array.
pub(super) fn is_json(text: &str) -> bool {
    text.starts_with(['{', '[']) && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// `value` as JSON.
pub(super) fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
