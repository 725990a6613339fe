//! Observations → the attributes that Langfuse's OTLP endpoint reads (server v3 and v4).
//!
//! * The facts of the trace are repeated on every span: a v4 server aggregates them over spans, and in a v3 server a span
//!   without them erases what the root said.
//! * The input of a turn, agent, generation or event is an array of messages, its output one message: only then does the server
//!   show a conversation.
//! * Input and output of the turn are on the root observation, and for v3 servers also the trace's input and output.
//! * Objects are JSON in strings, and empty values are left out: the server stores other OTLP value types in their raw
//!   encoding.
//! * Images and documents are uploaded beside the span. A reference takes their place: in a message as a content part of type
//!   `image_url`, in the output of a tool instead of the base64.
//! * Usage keys are those of Langfuse's price table; each token counts in exactly one.

use std::borrow::Cow;

use crate::{
    destination::wire::{SpanKind, Status, Value, WireSpan},
    observation::{Agent, Body, Closing, Event, Generation, Level, Observation, Tool, TraceFacts, Turn, Usage},
    project::Semantics,
    transcript::record::Nanos,
};

mod message;

pub use message::media_id;
use message::{answer, input, message, output};

/// The full name of a metadata key, built at compile time.
macro_rules! meta {
    (trace $key:literal) => {
        concat!("langfuse.trace.metadata.", $key)
    };
    ($key:literal) => {
        concat!("langfuse.observation.metadata.", $key)
    };
}
/// Trace metadata keys that are reserved for this program.
const OWN: [&str; 12] = [
    "source",
    "turn_number",
    "session_id",
    "version",
    "slug",
    "cwd",
    "git_branch",
    "forked_from",
    "session_title",
    "agent_team",
    "agent_name",
    "lead_session",
];

/// The span of an observation, with the facts of its trace.
pub fn encode(observation: &Observation, facts: &TraceFacts) -> WireSpan {
    let mut put = Put(Vec::with_capacity(32));
    match &observation.body {
        Body::Turn(turn) => put.turn(turn),
        Body::Agent(agent) => put.agent(agent),
        Body::Generation(generation) => put.generation(generation, facts.semantics),
        Body::Tool(tool) => put.tool(tool, &observation.name),
        Body::Event(event) => put.event(event),
    }
    let level = match observation.level {
        Level::Default => None,
        Level::Warning => Some("WARNING"),
        Level::Error => Some("ERROR"),
    };
    put.some("langfuse.observation.level", level);
    put.some("langfuse.observation.status_message", observation.status.as_deref());
    put.some(meta!("timing"), observation.estimated.then_some("estimated"));
    put.facts(facts);
    WireSpan {
        trace_id: observation.trace_id,
        span_id: observation.span_id,
        parent_id: observation.parent.unwrap_or_default(),
        name: observation.name.clone(),
        start_ns: observation.start,
        end_ns: observation.end,
        status: match observation.level {
            Level::Error => Status::Error(observation.status.clone().unwrap_or_default()),
            Level::Default | Level::Warning => Status::Unset,
        },
        attributes: put.0,
        kind: SpanKind::Internal,
        // Langfuse keeps no events.
        events: Vec::new(),
        links: Vec::new(),
    }
}

/// The environment name in the form Langfuse accepts: lower case, at most 40 of `a-z0-9-_`, not starting with `langfuse`.
/// `None` if nothing acceptable is left (the server would silently use `default`).
pub fn environment(name: &str) -> Option<String> {
    let name = name.trim().to_lowercase();
    let fits = !name.is_empty()
        && name.len() <= 40
        && !name.starts_with("langfuse")
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
    fits.then_some(name)
}

/// Attributes in the order they were put.
struct Put(Vec<(Cow<'static, str>, Value)>);

impl Put {
    fn text(&mut self, key: impl Into<Cow<'static, str>>, value: impl Into<String>) {
        self.0.push((key.into(), Value::Text(value.into())));
    }

    fn some(&mut self, key: impl Into<Cow<'static, str>>, value: Option<impl Into<String>>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }

    fn number(&mut self, key: &'static str, number: Option<u64>) {
        self.some(key, number.map(|number| number.to_string()));
    }

    /// The facts that every span of a turn carries.
    fn facts(&mut self, facts: &TraceFacts) {
        self.text("session.id", limited(&facts.session_id));
        self.text("langfuse.trace.name", format!("Turn {}", facts.turn));
        self.some("user.id", facts.user_id.as_deref().map(limited));
        self.some("langfuse.version", facts.claude_version.as_deref());
        self.some("langfuse.release", facts.release.as_deref().map(limited));
        self.some("langfuse.environment", facts.environment.as_deref());
        let team = facts.team.iter().map(|team| limited(&format!("team:{team}")).to_owned());
        let tags: Vec<String> = facts.tags.iter().cloned().chain(team).collect();
        if !tags.is_empty() {
            self.0.push(("langfuse.trace.tags".into(), Value::List(tags)));
        }
        for (key, value) in facts.metadata.iter().filter(|(key, _)| !OWN.contains(&key.as_str())) {
            self.text(format!("langfuse.trace.metadata.{key}"), value.as_str());
        }
        self.text(meta!(trace "source"), "claude-code");
        self.text(meta!(trace "turn_number"), facts.turn.to_string());
        self.text(meta!(trace "session_id"), facts.session_id.as_str());
        self.some(meta!(trace "version"), facts.claude_version.as_deref());
        self.some(meta!(trace "slug"), facts.slug.as_deref());
        self.some(meta!(trace "cwd"), facts.cwd.as_deref());
        self.some(meta!(trace "git_branch"), facts.git_branch.as_deref());
        self.some(meta!(trace "forked_from"), facts.forked_from.as_deref());
        self.some(meta!(trace "agent_team"), facts.team.as_deref());
        self.some(meta!(trace "agent_name"), facts.teammate.as_deref());
        self.some(meta!(trace "lead_session"), facts.lead.as_deref());
        self.some(meta!(trace "session_title"), facts.title.as_deref().map(limited));
    }

    fn turn(&mut self, turn: &Turn) {
        self.text("langfuse.observation.type", "agent");
        let (said, answered) = (input(&turn.input), message("assistant", &turn.output));
        self.text("langfuse.trace.input", said.clone());
        self.text("langfuse.trace.output", answered.clone());
        self.text("langfuse.observation.input", said);
        self.text("langfuse.observation.output", answered);
        self.some(meta!("trigger"), turn.trigger.as_deref());
        self.some(meta!("command"), turn.command.as_deref());
        self.some(meta!("context"), turn.context.as_deref());
        self.some(meta!("prompt"), turn.stands_in.then_some("stand-in"));
        self.some(meta!("permission_mode"), turn.permission_mode.as_deref());
        self.number(meta!("queue_wait_ms"), turn.queued_ms);
        self.number(meta!("instead_of_turn"), turn.instead_of.map(u64::from));
        self.some(meta!("planned_in"), turn.planned_in.as_deref());
    }

    fn agent(&mut self, agent: &Agent) {
        self.text("langfuse.observation.type", "agent");
        self.text("langfuse.observation.input", input(&agent.input));
        self.text("langfuse.observation.output", message("assistant", &agent.output));
        self.some(meta!("context"), agent.context.as_deref());
        self.some(meta!("agent_id"), agent.agent_id.as_deref());
        self.some(meta!("agent_type"), agent.agent_type.as_deref());
        self.some(meta!("workflow_run"), agent.workflow_run.as_deref());
        self.some(meta!("description"), agent.description.as_deref());
    }

    fn generation(&mut self, generation: &Generation, semantics: Semantics) {
        self.text("langfuse.observation.type", "generation");
        if !generation.input.is_empty() {
            self.text("langfuse.observation.input", message::given(&generation.input));
        }
        self.some("langfuse.observation.output", generation.output.as_ref().map(answer));
        // A v3 server keeps the output of the span that starts last, and a root that is sent again has the same start as
        // before: without this, either output might stay.
        let said = generation.closes.as_ref().map(|closes| match (closes, &generation.output) {
            (Closing::Text(text), _) => text,
            (Closing::Answer, Some(answer)) => &answer.text,
            (Closing::Answer, None) => "",
        });
        self.some("langfuse.trace.output", said.map(|text| message("assistant", text)));
        let name = generation.model.as_str();
        match generation.usage {
            Some(usage) => {
                self.text("langfuse.observation.model.name", model(name));
                self.text("langfuse.observation.usage_details", usage_details(usage, semantics));
            }
            // Given a model without usage, the server would count tokens by itself and charge for them.
            None => self.text(meta!("model"), name),
        }
        self.some("langfuse.observation.completion_start_time", generation.first_block.and_then(rfc3339));
        if generation.usage.is_some() && generation.role.is_none() && name != model(name) {
            self.text(meta!("model"), name);
        }
        self.number(meta!("tool_count"), generation.tool_count);
        self.some(meta!("message_id"), generation.message_id.as_deref());
        self.some(meta!("request_id"), generation.request_id.as_deref());
        self.some(meta!("stop_reason"), generation.stop_reason.as_deref());
        if let Some(speed) = generation.speed.as_ref().filter(|_| generation.usage.is_some()) {
            // Selects the fast-mode price.
            self.text("langfuse.observation.model.parameters", serde_json::json!({ "speed": speed }).to_string());
        }
        let blocks = &generation.other_blocks;
        self.some(meta!("other_blocks"), (!blocks.is_empty()).then(|| format!("[{}]", blocks.join(","))));
        self.some(meta!("service_tier"), generation.service_tier.as_deref());
        self.some(meta!("requested_model"), generation.requested_model.as_deref());
        self.number(meta!("web_search_requests"), Some(generation.web_searches).filter(|count| *count > 0));
        self.number(meta!("web_fetch_requests"), Some(generation.web_fetches).filter(|count| *count > 0));
        self.some(meta!("role"), generation.role.as_deref());
        if let Some(measured) = &generation.measured {
            self.some(meta!("measured_by"), measured.source());
            for (name, number) in measured.details() {
                self.text(format!("langfuse.observation.metadata.{name}"), number.to_string());
            }
            // With its fees, which no price table of the server has. Any other key would have to be priced too.
            let cost = measured.cost.map(|cost| serde_json::json!({ "total": cost }).to_string());
            self.some("langfuse.observation.cost_details", cost);
        }
    }

    fn tool(&mut self, tool: &Tool, name: &str) {
        self.text("langfuse.observation.type", "tool");
        self.text("langfuse.observation.input", tool.input.as_str());
        self.some("langfuse.observation.output", tool.output.as_ref().map(output));
        self.text(meta!("tool_name"), name);
        // A tool that ran in the API is not a call that Claude Code answered.
        let key = if tool.on_server { meta!("server_tool_id") } else { meta!("tool_id") };
        self.text(key, tool.id.as_str());
        self.some(meta!("rewritten_input"), tool.rewritten.as_deref());
        self.some(meta!("runs_on"), tool.on_server.then_some("server"));
        self.number(meta!("duration_ms"), tool.ran_ms());
        self.some(meta!("denied"), tool.denied.as_deref());
        if let Some(waited) = &tool.waited {
            self.number(meta!("permission_wait_ms"), waited.permission_ms);
            self.some(meta!("decision"), waited.decision.as_deref());
            self.some(meta!("decided_by"), waited.decided_by.as_deref());
        }
    }

    /// Langfuse drops the events of an OpenTelemetry span; its own events are observations.
    fn event(&mut self, event: &Event) {
        self.text("langfuse.observation.type", "event");
        self.some("langfuse.observation.input", event.said.as_ref().map(input));
        for (key, value) in &event.details {
            self.text(format!("langfuse.observation.metadata.{key}"), value.to_string());
        }
    }
}

/// `usage_details`: every token in exactly one price bucket; empty cache buckets are left out. In `spec` semantics `total` is
/// input plus output; otherwise it is left to the server, which sums all buckets.
fn usage_details(usage: Usage, semantics: Semantics) -> String {
    let total = (semantics == Semantics::Spec).then(|| usage.input.saturating_add(usage.output));
    let some = |tokens: u64| (tokens > 0).then_some(tokens);
    let details: serde_json::Map<_, _> = [
        ("input", Some(usage.input)),
        ("output", Some(usage.output)),
        ("total", total),
        ("cache_read_input_tokens", some(usage.cache_read)),
        ("input_cache_creation_5m", some(usage.cache_write_5m)),
        ("input_cache_creation_1h", some(usage.cache_write_1h)),
        ("input_cache_creation", some(usage.cache_write)),
    ]
    .into_iter()
    .filter_map(|(key, tokens)| Some((key.to_owned(), tokens?.into())))
    .collect();
    serde_json::Value::Object(details).to_string()
}

/// The name in Langfuse's price table, which has no suffix for the long context window.
fn model(name: &str) -> &str {
    name.strip_suffix("[1m]").unwrap_or(name)
}

/// Langfuse's SDKs drop ids and names longer than 200 characters.
fn limited(text: &str) -> &str {
    text.char_indices().nth(200).map_or(text, |(end, _)| &text[..end])
}

fn rfc3339(at: Nanos) -> Option<String> {
    jiff::Timestamp::from_nanosecond(i128::from(at)).ok().map(|time| time.to_string())
}

#[cfg(test)]
mod tests;
