//! Langfuse: spans → the attributes its OTLP endpoint reads (server v3 and v4).
//!
//! * What describes the trace stands on every span: a v4 server aggregates it over spans, a v3 server lets a span without
//!   it erase what the root said.
//! * The input of a turn, an agent, a generation or an event is an array of messages, its output one message: only then
//!   does the server show a conversation.
//! * Input and output of the turn stand on the root observation; for v3 servers once more as trace input and output.
//! * Objects are JSON in strings, empty values are left out: other OTLP kinds are stored as their raw encoding.
//! * Where a project wants no text to leave, whatever was said, read or written passes `Shared::words` and becomes a size.
//! * An image or document is uploaded beside the span; where it stood, a reference stands alone in its string: in a message as a
//!   content part of type `image_url`, in the output of a tool in the place of the base64.
//! * Usage keys are those of Langfuse's price table, each token in exactly one of them.

use std::borrow::Cow;

use crate::{
    destination::wire::{Field, OutSpan, Value},
    project::{Capture, Options, Semantics},
    redact::{Counts, Redactor},
    trace::{Body, Level, Span},
    transcript::record::{Nanos, Prompt, PromptKind, SessionFacts, Usage},
    turn::{Generation, TEAM_OF, Turn},
};

mod encoder;
mod message;

pub use encoder::Encoder;
pub use message::media_id;

/// The full name of a metadata key, made when this is compiled.
macro_rules! meta {
    (trace $key:literal) => {
        concat!("langfuse.trace.metadata.", $key)
    };
    ($key:literal) => {
        concat!("langfuse.observation.metadata.", $key)
    };
}
/// Trace metadata that is ours to say.
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

/// What is the same on every span of a turn.
#[derive(Debug)]
pub struct Shared {
    attributes: Vec<(Cow<'static, str>, Value)>,
    semantics: Semantics,
    capture: Capture,
}

impl Shared {
    /// For the spans of `turn` in session `session_id`, of a project with `options`.
    pub fn new(turn: &Turn, session_id: &str, options: &Options) -> Self {
        Self::of(turn.number, &turn.session, session_id, options)
    }

    /// For the spans of a turn of which no more is known than its number and what its lines say of the session.
    pub fn of(number: u32, facts: &SessionFacts, session_id: &str, options: &Options) -> Self {
        let mut put = Put::default();
        put.text("session.id", limited(session_id));
        put.text("langfuse.trace.name", format!("Turn {number}"));
        put.some("user.id", options.user_id.as_deref().map(limited));
        put.some("langfuse.version", facts.version.clone());
        put.some("langfuse.release", options.release.as_deref().map(limited));
        put.some("langfuse.environment", options.environment.clone());
        let team = facts.team.iter().map(|team| limited(&format!("team:{team}")));
        let tags: Vec<String> = options.tags.iter().cloned().chain(team).collect();
        if !tags.is_empty() {
            put.0.push(("langfuse.trace.tags".into(), Value::List(tags)));
        }
        for (key, value) in options.metadata.iter().filter(|(key, _)| !OWN.contains(&key.as_str())) {
            put.text(format!("langfuse.trace.metadata.{key}"), value.as_str());
        }
        put.text(meta!(trace "source"), "claude-code");
        put.text(meta!(trace "turn_number"), number.to_string());
        put.text(meta!(trace "session_id"), session_id);
        put.some(meta!(trace "version"), facts.version.as_deref());
        put.some(meta!(trace "slug"), facts.slug.as_deref());
        put.some(meta!(trace "cwd"), facts.cwd.as_deref());
        put.some(meta!(trace "git_branch"), facts.git_branch.as_deref());
        put.some(meta!(trace "forked_from"), facts.forked_from.as_deref());
        put.some(meta!(trace "agent_team"), facts.team.as_deref());
        put.some(meta!(trace "agent_name"), facts.teammate.as_deref());
        let lead = facts.lead.as_deref().or_else(|| facts.team.as_deref()?.strip_prefix(TEAM_OF));
        put.some(meta!(trace "lead_session"), lead);
        if options.capture == Capture::Full {
            // Made of what was said.
            put.some(meta!(trace "session_title"), facts.title.as_deref().map(limited));
        }
        Self { attributes: put.0, semantics: options.semantics, capture: options.capture }
    }

    /// Masks secrets in what is the same on every span.
    fn redact(&mut self, redactor: &Redactor, counts: &mut Counts) {
        for (key, value) in &mut self.attributes {
            crate::destination::wire::mask_key(key, redactor, counts);
            crate::destination::wire::mask(value, redactor, counts);
        }
    }

    /// The number of attributes, at the end of each span's, that are the same on every span.
    fn len(&self) -> usize {
        self.attributes.len()
    }

    /// `span` before it is masked, without the input of a later call: an [`Encoder`] adds that.
    fn encode(&self, span: &Span<'_>) -> OutSpan {
        let mut put = Put(Vec::with_capacity(self.attributes.len() + 12));
        let mut media = Vec::new();
        match &span.body {
            Body::Turn { turn, input, output } => {
                put.text("langfuse.observation.type", "agent");
                let (input, output) = (self.input(input, &turn.prompt.media), self.message("assistant", output, &[]));
                media = self.shown(Field::Input, &turn.prompt.media);
                put.text("langfuse.trace.input", input.clone());
                put.text("langfuse.trace.output", output.clone());
                put.text("langfuse.observation.input", input);
                put.text("langfuse.observation.output", output);
                put.some(
                    meta!("trigger"),
                    match turn.prompt.kind {
                        PromptKind::Plain | PromptKind::Blank | PromptKind::Fork => turn.prompt.begun_by.as_deref(),
                        PromptKind::Command | PromptKind::Local => Some("command"),
                        PromptKind::TaskNotification => Some("task-notification"),
                        PromptKind::StandIn => None,
                    },
                );
                let is_command = matches!(turn.prompt.kind, PromptKind::Command | PromptKind::Local);
                put.some(meta!("command"), is_command.then(|| command_name(&turn.prompt.text)).flatten());
                put.some(meta!("context"), self.context(&turn.prompt));
                put.some(meta!("prompt"), turn.prompt.stands_in().then_some("stand-in"));
                put.some(meta!("permission_mode"), turn.prompt.permission_mode.as_deref());
                put.some(meta!("instead_of_turn"), turn.instead_of.map(|number| number.to_string()));
                put.some(meta!("planned_in"), turn.prompt.planned_in.as_deref());
            }
            Body::Agent { turn, input, output } => {
                put.text("langfuse.observation.type", "agent");
                put.text("langfuse.observation.input", self.input(input, &turn.prompt.media));
                put.text("langfuse.observation.output", self.message("assistant", output, &[]));
                media = self.shown(Field::Input, &turn.prompt.media);
                put.some(meta!("context"), self.context(&turn.prompt));
                if let Some(place) = &turn.place {
                    put.some(meta!("agent_id"), Some(place.agent_id.as_str()));
                    put.some(meta!("agent_type"), place.agent_type.as_deref());
                    put.some(meta!("workflow_run"), place.run.as_deref());
                    put.some(meta!("description"), place.description.as_deref().map(|text| self.words(text)));
                }
            }
            Body::Generation { generation, input, given: _, turn_output, usage, completion_start } => {
                put.text("langfuse.observation.type", "generation");
                if let Some(Prompt { text, media: of_prompt, .. }) = input {
                    put.text("langfuse.observation.input", self.input(text, of_prompt));
                    media = self.shown(Field::Input, of_prompt);
                }
                put.text("langfuse.observation.output", self.answer(generation));
                // A root that is sent again does not start later: a v3 server keeps the output of either. That of the span which
                // starts last it keeps in any case.
                put.some(
                    "langfuse.trace.output",
                    turn_output.as_ref().map(|text| self.message("assistant", text, &[])),
                );
                match usage {
                    Some(usage) => {
                        put.text("langfuse.observation.model.name", model(&generation.model));
                        put.text("langfuse.observation.usage_details", usage_details(*usage, self.semantics));
                    }
                    // A model without usage makes the server count tokens by itself, and charge for them.
                    None => put.some(meta!("model"), Some(generation.model.as_str())),
                }
                put.some("langfuse.observation.completion_start_time", completion_start.and_then(rfc3339));
                if usage.is_some() && generation.model != model(&generation.model) {
                    put.some(meta!("model"), Some(generation.model.as_str()));
                }
                put.some(meta!("tool_count"), Some(generation.tools.len().to_string()));
                put.some(meta!("message_id"), Some(generation.id.as_str()));
                put.some(meta!("request_id"), generation.request_id.as_deref());
                put.some(meta!("stop_reason"), generation.stop_reason.as_deref());
                let service = &generation.service;
                if let Some(speed) = service.speed.as_ref().filter(|_| usage.is_some()) {
                    // Selects the price of fast mode.
                    put.text(
                        "langfuse.observation.model.parameters",
                        serde_json::json!({ "speed": speed }).to_string(),
                    );
                }
                put.some(meta!("other_blocks"), self.other_blocks(generation));
                put.some(meta!("service_tier"), service.tier.as_deref());
                put.some(meta!("requested_model"), service.requested_model.as_deref());
                for (key, count) in
                    [(meta!("web_search_requests"), service.web.0), (meta!("web_fetch_requests"), service.web.1)]
                {
                    put.some(key, (count > 0).then(|| count.to_string()));
                }
            }
            Body::Advice { advice, output } => {
                put.text("langfuse.observation.type", "generation");
                if let Some(text) = output {
                    put.text("langfuse.observation.output", self.message("assistant", text, &[]));
                }
                put.text("langfuse.observation.model.name", model(&advice.model));
                put.text("langfuse.observation.usage_details", usage_details(advice.usage, self.semantics));
                put.some(meta!("role"), Some("advisor"));
            }
            Body::Tool(tool) => {
                put.text("langfuse.observation.type", "tool");
                put.text("langfuse.observation.input", self.words(&tool.input));
                if let Some((result, _)) = &tool.result {
                    put.text("langfuse.observation.output", self.output(result));
                    media = self.shown(Field::Output, &result.media);
                }
                put.some(meta!("tool_name"), Some(tool.name.as_str()));
                // A tool that the API ran is no call that Claude Code answered.
                put.some(meta!("tool_id"), (!tool.on_server).then_some(tool.id.as_str()));
                put.some(meta!("server_tool_id"), tool.on_server.then_some(tool.id.as_str()));
                put.some(meta!("rewritten_input"), tool.rewritten.as_deref().map(|input| self.words(input)));
                put.some(meta!("runs_on"), tool.on_server.then_some("server"));
                put.some(meta!("duration_ms"), tool.took_ms.map(|ms| ms.to_string()));
                put.some(meta!("denied"), tool.result.as_ref().and_then(|(result, _)| result.denied.as_deref()));
            }
            // Langfuse does not keep the events of an OpenTelemetry span; its own are observations.
            Body::Event { said, details } => {
                put.text("langfuse.observation.type", "event");
                if let Some((text, of_text)) = said {
                    put.text("langfuse.observation.input", self.input(text, of_text));
                    media = self.shown(Field::Input, of_text);
                }
                for (key, value) in details {
                    put.text(format!("langfuse.observation.metadata.{key}"), value.as_str());
                }
            }
        }
        let level = match span.level {
            Level::Default => None,
            Level::Warning => Some("WARNING"),
            Level::Error => Some("ERROR"),
        };
        put.some("langfuse.observation.level", level.map(str::to_owned));
        // An error is told in the words of a tool or server, anything else in ours.
        let is_ours = span.level != Level::Error || matches!(&span.body, Body::Tool(tool) if tool.result.is_none());
        let status =
            span.status.as_deref().map(|text| if is_ours { text.to_owned() } else { self.words(text).into_owned() });
        put.some("langfuse.observation.status_message", status.clone());
        put.some(meta!("timing"), span.estimated.then_some("estimated"));
        put.0.extend(self.attributes.iter().cloned());
        OutSpan {
            trace_id: span.trace_id,
            span_id: span.span_id,
            parent_id: span.parent.unwrap_or_default(),
            name: span.name.clone(),
            start_ns: span.start,
            end_ns: span.end,
            error: (span.level == Level::Error).then(|| status.unwrap_or_default()),
            attributes: put.0,
            call: span.call,
            media,
        }
    }

    /// What stood around a prompt and nobody typed.
    fn context<'t>(&self, prompt: &'t Prompt) -> Option<Cow<'t, str>> {
        (!prompt.context.is_empty()).then(|| self.words(&prompt.context))
    }

    /// Blocks of an answer that are neither text nor thinking nor of a tool: what they are, or all of it where that is known.
    fn other_blocks(&self, generation: &Generation) -> Option<String> {
        let block = |(kind, json): &(String, String)| {
            if self.capture == Capture::Full && !json.is_empty() {
                return json.clone();
            }
            serde_json::json!({ "type": kind }).to_string()
        };
        let blocks: Vec<_> = generation.other.iter().map(block).collect();
        (!blocks.is_empty()).then(|| format!("[{}]", blocks.join(",")))
    }
}

/// The environment name as Langfuse takes it: lower case, 40 characters of `a-z0-9-_`, not starting with `langfuse`.
/// `None` if nothing acceptable is left (the server would silently file it under `default`).
pub fn environment(name: &str) -> Option<String> {
    let name = name.trim().to_lowercase();
    let fits = !name.is_empty()
        && name.len() <= 40
        && !name.starts_with("langfuse")
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
    fits.then_some(name)
}

/// Attributes in the order they were put.
#[derive(Default)]
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
}

/// `usage_details`: every token in one price bucket; empty cache buckets are left out. `total` as the specification has it
/// (input plus output), or left to the server, which adds all buckets.
fn usage_details(usage: Usage, semantics: Semantics) -> String {
    let total = (semantics == Semantics::Spec).then(|| usage.input.saturating_add(usage.output));
    let some = |tokens: u64| (tokens > 0).then_some(tokens);
    let details: serde_json::Map<_, _> = [
        ("input", Some(usage.input)),
        ("output", Some(usage.output)),
        ("total", total),
        ("cache_read_input_tokens", some(usage.cache_read)),
        ("input_cache_creation_5m", some(usage.cache_creation_5m)),
        ("input_cache_creation_1h", some(usage.cache_creation_1h)),
        ("input_cache_creation", some(usage.cache_creation_rest())),
    ]
    .into_iter()
    .filter_map(|(key, tokens)| Some((key.to_owned(), tokens?.into())))
    .collect();
    serde_json::Value::Object(details).to_string()
}

/// The name Langfuse's price table knows: the marker of the long context window is not part of it.
fn model(name: &str) -> &str {
    name.strip_suffix("[1m]").unwrap_or(name)
}

/// Langfuse's own SDKs drop ids and names of more than 200 characters.
fn limited(text: &str) -> String {
    text.chars().take(200).collect()
}

fn rfc3339(at: Nanos) -> Option<String> {
    jiff::Timestamp::from_nanosecond(i128::from(at)).ok().map(|time| time.to_string())
}

/// What a command is called. Of a line for the shell (`!…`) that is its first word that assigns nothing, without its
/// directory; nothing if that cannot be known without a shell. All the rest was said.
fn command_name(text: &str) -> Option<String> {
    let Some(line) = text.strip_prefix('!') else { return text.split_whitespace().next().map(str::to_owned) };
    let mut words = shell_words(line);
    let is_assignment = |word: &String| {
        let name = word.split('=').next().unwrap_or_default().trim_end_matches('+');
        word.contains('=') && !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    let word = words.find(|word| !is_assignment(word))?;
    let name = word.rsplit('/').next().unwrap_or_default();
    let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.+-[".contains(&b));
    plain.then(|| format!("!{name}"))
}

/// The words a line begins with, without their quotes, up to one that only a shell understands.
fn shell_words(line: &str) -> impl Iterator<Item = String> + '_ {
    let mut rest = line.chars().peekable();
    std::iter::from_fn(move || {
        while rest.next_if(|c| c.is_whitespace()).is_some() {}
        let mut word = String::new();
        let mut quote = None;
        rest.peek()?;
        while let Some(c) = rest.next_if(|c| quote.is_some() || !c.is_whitespace()) {
            match (quote, c) {
                (Some(open), _) if c == open => quote = None,
                (None, '\'' | '"') => quote = Some(c),
                (Some('\''), _) => word.push(c),
                (_, '\\') => word.push(rest.next()?),
                (_, '`') | (None, '(' | ')' | ';' | '&' | '|' | '<' | '>' | '{' | '}') => return None,
                (_, '$') if rest.peek() == Some(&'(') => return None,
                _ => word.push(c),
            }
        }
        // A quote that nothing closes goes on in no line we have.
        quote.is_none().then_some(word)
    })
}

#[cfg(test)]
mod tests;
