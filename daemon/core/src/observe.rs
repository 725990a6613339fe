//! A turn → its observations and the facts of its trace. Replaces text by sizes if the project wants that, and masks secrets.
//! Each text is searched for secrets once, however many observations show it.

use std::{borrow::Cow, collections::HashMap};

use crate::{
    ids::{Role, SpanId, span_id, trace_id},
    media::Media,
    observation::{
        self, Agent, Answer, Caller, Closing, Content, Event, Failure, Field, Generation, Level, Link, Message,
        Observation, Output, Part, Tool, ToolCall, TraceFacts, Version, masked,
    },
    project::{Capture, Options, Semantics},
    redact::{Counts, Redactor},
    trace::{self, Body, Given, Span},
    transcript::record::{Nanos, Prompt, PromptKind, SessionFacts, ToolResult},
    turn::{self, Past, Scope, TEAM_OF, Turn},
};

mod command;
mod media;

/// A text shorter than this is searched again rather than cached, in bytes.
const MIN_REMEMBERED_BYTES: usize = 64;

/// The facts of the trace of turn `number`, not yet masked.
pub fn facts(number: u32, session: &SessionFacts, session_id: &str, options: &Options) -> TraceFacts {
    let SessionFacts { version, cwd, git_branch, slug, forked_from, title, team, teammate, lead } = session.clone();
    let lead = lead.or_else(|| team.as_deref()?.strip_prefix(TEAM_OF).map(str::to_owned));
    TraceFacts {
        version: Version,
        session_id: session_id.to_owned(),
        turn: number,
        semantics: options.semantics,
        user_id: options.user_id.clone(),
        tags: options.tags.clone(),
        environment: options.environment.clone(),
        release: options.release.clone(),
        metadata: options.metadata.clone(),
        claude_version: version,
        slug,
        cwd,
        git_branch,
        forked_from,
        // The title is derived from the conversation.
        title: title.filter(|_| options.capture == Capture::Full),
        team,
        teammate,
        lead,
    }
}

/// The observations of `turn` that are due in `scope`, root first. `fired` is when the Stop hook ran that completed the turn,
/// if one did. Without `redactor` nothing is masked.
pub fn observations(
    turn: &Turn,
    scope: Scope,
    fired: Option<Nanos>,
    options: &Options,
    redactor: Option<&Redactor>,
    counts: &mut Counts,
) -> Vec<Observation> {
    let spans = trace::spans(turn, scope, options.semantics, fired);
    let mut observer = Observer::new(options, redactor, counts);
    observer.found.reserve_exact(spans.len());
    spans.into_iter().for_each(|span| observer.add(span));
    observer.found
}

/// The event for the trace of turn `left`, which the user abandoned by going back and giving the prompt of `turn`.
pub fn abandoned(
    turn: &Turn,
    left: &Past,
    options: &Options,
    redactor: Option<&Redactor>,
    counts: &mut Counts,
) -> Observation {
    let mut event = event(trace::left_behind(turn, left), options, redactor, counts);
    let trace = trace_id(turn.trace_key());
    event.links.push(Link { trace_id: trace, span_id: span_id(trace, Role::Turn, turn.trace_key()) });
    event
}

/// The observation of an event that no turn at hand has.
pub fn event(span: Span<'static>, options: &Options, redactor: Option<&Redactor>, counts: &mut Counts) -> Observation {
    let mut observer = Observer::new(options, redactor, counts);
    observer.add(span);
    observer.found.swap_remove(0)
}

/// Turns spans into observations.
struct Observer<'t, 'r> {
    capture: Capture,
    semantics: Semantics,
    redactor: Option<&'r Redactor>,
    counts: &'r mut Counts,
    /// Texts of the turn that were searched, by address and length, with the masked version of those that had secrets.
    known: HashMap<(*const u8, usize), Option<String>>,
    found: Vec<Observation>,
    /// Indexes in `found` of observations that may be part of a later call's input.
    given: HashMap<SpanId, usize>,
    turn: std::marker::PhantomData<&'t Turn>,
}

impl<'t, 'r> Observer<'t, 'r> {
    fn new(options: &Options, redactor: Option<&'r Redactor>, counts: &'r mut Counts) -> Self {
        Self {
            capture: options.capture,
            semantics: options.semantics,
            redactor,
            counts,
            known: HashMap::new(),
            found: Vec::new(),
            given: HashMap::new(),
            turn: std::marker::PhantomData,
        }
    }

    /// Adds the observation of `span`. Spans come in the order of [`trace::spans`]: a tool before the call that was given its
    /// result.
    fn add(&mut self, span: Span<'t>) {
        let (failure, status) = (failure(&span), self.status(&span));
        let mut observation = Observation {
            version: Version,
            trace_id: span.trace_id,
            span_id: span.span_id,
            parent: span.parent,
            owner: span.owner,
            agent: span.agent.map(str::to_owned),
            name: span.name,
            start: span.start,
            end: span.end,
            level: span.level,
            status,
            failure,
            estimated: span.estimated,
            links: Vec::new(),
            body: self.names(&span.body),
            call: span.call,
            media: Vec::new(),
        };
        if let Some(redactor) = self.redactor {
            observation.redact(redactor, self.counts);
        }
        self.say(&span.body, &mut observation);
        if self.semantics == Semantics::Measured && matches!(span.body, Body::Tool(_) | Body::Event { .. }) {
            self.given.insert(observation.span_id, self.found.len());
        }
        self.found.push(observation);
    }

    /// The explanation of the level. Errors are in the words of a tool or server, everything else in this program's.
    fn status(&self, span: &Span<'t>) -> Option<String> {
        let is_ours = span.level != Level::Error || matches!(&span.body, Body::Tool(tool) if tool.result.is_none());
        span.status.as_deref().map(|text| if is_ours { text.to_owned() } else { self.sized(text).into_owned() })
    }

    /// The body without its long texts, which [`Self::say`] adds, already masked.
    fn names(&self, body: &Body<'t>) -> observation::Body {
        match body {
            Body::Turn(turn) => {
                let prompt = &turn.prompt;
                let is_command = matches!(prompt.kind, PromptKind::Command | PromptKind::Local);
                let trigger = match prompt.kind {
                    PromptKind::Plain | PromptKind::Blank | PromptKind::Fork => prompt.initiator.as_deref(),
                    PromptKind::Command | PromptKind::Local => Some("command"),
                    PromptKind::TaskNotification => Some("task-notification"),
                    PromptKind::StandIn => None,
                };
                observation::Body::Turn(observation::Turn {
                    trigger: trigger.map(str::to_owned),
                    command: is_command.then(|| command::name(&prompt.text)).flatten(),
                    context: self.context(prompt),
                    stands_in: prompt.stands_in(),
                    permission_mode: prompt.permission_mode.clone(),
                    queued_ms: prompt.queued_ms,
                    instead_of: turn.instead_of,
                    planned_in: prompt.planned_in.clone(),
                    ..observation::Turn::default()
                })
            }
            Body::Agent(turn) => {
                let place = turn.place.as_ref();
                observation::Body::Agent(Agent {
                    context: self.context(&turn.prompt),
                    agent_id: place.map(|place| place.agent_id.clone()),
                    agent_type: place.and_then(|place| place.agent_type.clone()),
                    workflow_run: place.and_then(|place| place.run.clone()),
                    description: place.and_then(|place| Some(self.sized(place.description.as_deref()?).into_owned())),
                    ..Agent::default()
                })
            }
            Body::Generation { generation, usage, completion_start, .. } => {
                let service = &generation.service;
                let calls = generation.tools.iter().map(|tool| ToolCall {
                    id: tool.id.clone(),
                    name: tool.name.clone(),
                    arguments: String::new(),
                });
                observation::Body::Generation(Box::new(Generation {
                    output: Some(Answer { calls: calls.collect(), ..Answer::default() }),
                    model: generation.model.clone(),
                    usage: usage.map(Into::into),
                    first_block: *completion_start,
                    tool_count: Some(generation.tools.len() as u64),
                    message_id: Some(generation.id.clone()),
                    request_id: generation.request_id.clone(),
                    stop_reason: generation.stop_reason.clone(),
                    speed: service.speed.clone(),
                    service_tier: service.tier.clone(),
                    requested_model: service.requested_model.clone(),
                    other_blocks: self.other_blocks(generation),
                    web_searches: service.web.0,
                    web_fetches: service.web.1,
                    ..Generation::default()
                }))
            }
            Body::Advice { advice, .. } => observation::Body::Generation(Box::new(Generation {
                model: advice.model.clone(),
                usage: Some(advice.usage.into()),
                role: Some("advisor".to_owned()),
                ..Generation::default()
            })),
            Body::Tool(tool) => observation::Body::Tool(Tool {
                id: tool.id.clone(),
                on_server: tool.on_server,
                rewritten: tool.rewritten.as_deref().map(|input| self.sized(input).into_owned()),
                took_ms: tool.took_ms,
                denied: tool.result.as_ref().and_then(|(result, _)| result.denied.clone()),
                ..Tool::default()
            }),
            Body::Event { details, .. } => {
                let details = details.iter().map(|(key, detail)| ((*key).into(), detail.clone()));
                observation::Body::Event(Event { said: None, details: details.collect() })
            }
        }
    }

    /// Adds the long texts, masked.
    fn say(&mut self, body: &Body<'t>, observation: &mut Observation) {
        match (body, &mut observation.body) {
            (Body::Turn(turn), observation::Body::Turn(Turn_ { input, output, .. }))
            | (Body::Agent(turn), observation::Body::Agent(Agent { input, output, .. })) => {
                *input = self.content(&turn.prompt.text, &turn.prompt.media);
                *output = self.output_of(turn);
                observation.media = self.shown(Field::Input, &turn.prompt.media);
            }
            (Body::Generation { generation, input, given, closes, .. }, observation::Body::Generation(said)) => {
                if let Some(Prompt { text, media, .. }) = input {
                    said.input.push(Message { tool: None, content: self.content(text, media) });
                    observation.media = self.shown(Field::Input, media);
                }
                if let Some(answer) = &mut said.output {
                    answer.text = self.answer(generation);
                    let thoughts = generation.thinking.iter().filter(|text| !text.is_empty());
                    answer.thinking = thoughts.map(|text| self.words(text)).collect();
                    for (call, tool) in answer.calls.iter_mut().zip(&generation.tools) {
                        call.arguments = self.words(&tool.input);
                    }
                }
                said.closes = closes.map(|turn| match &turn.error {
                    Some(error) => Closing::Text(self.words(&error.text)),
                    None => Closing::Answer,
                });
                if !given.is_empty() {
                    said.input = given.iter().filter_map(|given| self.message(given)).collect();
                    let shown = given.iter().flat_map(|given| media_of(&given.body));
                    let leaves = self.capture == Capture::Full;
                    observation.media = shown.filter(|_| leaves).map(|media| (Field::Input, media.clone())).collect();
                }
            }
            (Body::Advice { output: Some(text), .. }, observation::Body::Generation(said)) => {
                said.output = Some(Answer { text: self.words(text), ..Answer::default() });
            }
            (Body::Tool(tool), observation::Body::Tool(said)) => {
                said.input = self.words(&tool.input);
                if let Some((result, _)) = &tool.result {
                    said.output = Some(self.output(result));
                    observation.media = self.shown(Field::Output, &result.media);
                }
            }
            (Body::Event { said: Some((text, media)), .. }, observation::Body::Event(event)) => {
                event.said = Some(self.content(text, media));
                observation.media = self.shown(Field::Input, media);
            }
            _ => {}
        }
    }

    /// The message for a call's input; `None` if it has no text.
    fn message(&mut self, given: &Given<'t>) -> Option<Message> {
        if let Some(observation) = self.given.get(&given.span_id).and_then(|at| self.found.get(*at)) {
            return message_of(observation);
        }
        // Its own observation was emitted in an earlier step.
        match &given.body {
            Body::Tool(tool) => {
                let (result, _) = tool.result.as_ref()?;
                let content = media::content(&self.output(result));
                let tool = Caller { id: self.masked(&tool.id), name: self.masked(given.name) };
                Some(Message { tool: Some(tool), content })
            }
            Body::Event { said: Some((text, media)), .. } => {
                Some(Message { tool: None, content: self.content(text, media) })
            }
            _ => None,
        }
    }

    /// A text of the conversation, or its size if text may not leave.
    fn sized<'s>(&self, text: &'s str) -> Cow<'s, str> {
        match self.capture {
            Capture::Full => text.into(),
            Capture::Metadata if text.is_empty() => text.into(),
            Capture::Metadata => format!("[{} characters]", text.chars().count()).into(),
        }
    }

    /// The same, masked.
    fn words(&mut self, text: &'t str) -> String {
        match self.capture {
            Capture::Full => self.masked(text),
            Capture::Metadata => self.sized(text).into_owned(),
        }
    }

    /// `text` with secrets masked.
    fn masked(&mut self, text: &'t str) -> String {
        let Some(redactor) = self.redactor else { return text.to_owned() };
        if text.len() < MIN_REMEMBERED_BYTES {
            return masked(text, redactor, self.counts).unwrap_or_else(|| text.to_owned());
        }
        // The turn outlives this observer, so the address identifies the text.
        let known = self.known.entry((text.as_ptr(), text.len()));
        let masked = known.or_insert_with(|| masked(text, redactor, self.counts));
        masked.clone().unwrap_or_else(|| text.to_owned())
    }

    /// Like [`words`](Self::words), for a text built here.
    fn made(&mut self, mut text: String) -> String {
        match (self.capture, self.redactor) {
            (Capture::Metadata, _) => self.sized(&text).into_owned(),
            (Capture::Full, None) => text,
            (Capture::Full, Some(redactor)) => {
                observation::mask(&mut text, redactor, self.counts);
                text
            }
        }
    }

    /// The text of an answer.
    fn answer(&mut self, generation: &'t turn::Generation) -> String {
        match &generation.texts[..] {
            [text] => self.words(text),
            _ => self.made(generation.text()),
        }
    }

    /// The turn's output, as in [`Turn::output`].
    fn output_of(&mut self, turn: &'t Turn) -> String {
        match (&turn.error, turn.generations.last(), &turn.skill) {
            (Some(error), ..) => self.words(&error.text),
            (None, Some(generation), _) => self.answer(generation),
            (None, None, Some(skill)) => self.words(&skill.text),
            (None, None, None) => String::new(),
        }
    }

    /// Text with its images and documents.
    fn content(&mut self, text: &'t str, media: &[Media]) -> Content {
        if self.capture == Capture::Metadata || media.is_empty() {
            return Content::Text(media::sized(self.words(text), self.capture, media));
        }
        let mut parts = Vec::new();
        for (before, media) in media::pieces(text, media) {
            if !before.is_empty() {
                parts.push(Part::Text(self.masked(before)));
            }
            parts.extend(media.map(|media| Part::Media(media.into())));
        }
        Content::Parts(parts)
    }

    /// A tool's output: text or blocks.
    fn output(&mut self, result: &'t ToolResult) -> Output {
        if self.capture == Capture::Metadata || result.media.is_empty() {
            let text = media::sized(self.words(&result.output), self.capture, &result.media);
            return Output { text, media: Vec::new() };
        }
        let marked = media::marked(&result.output, result.media.iter().map(|media| (media.at, &media.hash)));
        media::unmarked(&self.made(marked), &result.media)
    }

    fn shown(&self, field: Field, media: &[Media]) -> Vec<(Field, Media)> {
        let leaves = self.capture == Capture::Full;
        media.iter().filter(|_| leaves).map(|media| (field, media.clone())).collect()
    }

    /// Text around a prompt that nobody typed.
    fn context(&self, prompt: &Prompt) -> Option<String> {
        (!prompt.context.is_empty()).then(|| self.sized(&prompt.context).into_owned())
    }

    /// Blocks of an answer other than text, thinking and tools: their type, or the whole block if its kind is known.
    fn other_blocks(&self, generation: &turn::Generation) -> Vec<String> {
        let block = |(kind, json): &(String, String)| {
            if self.capture == Capture::Full && !json.is_empty() {
                return json.clone();
            }
            serde_json::json!({ "type": kind }).to_string()
        };
        generation.other.iter().map(block).collect()
    }
}

use observation::Turn as Turn_;

fn failure(span: &Span<'_>) -> Option<Failure> {
    if span.level != Level::Error {
        return None;
    }
    Some(match &span.body {
        Body::Tool(tool) if tool.result.is_none() => Failure::NoResult,
        Body::Tool(_) => Failure::Tool,
        Body::Turn(turn) | Body::Agent(turn) => Failure::Api(turn.error.as_ref().and_then(|error| error.status)),
        Body::Generation { .. } | Body::Advice { .. } | Body::Event { .. } => Failure::Api(None),
    })
}

/// The message that a tool or event adds to the input of a call.
fn message_of(observation: &Observation) -> Option<Message> {
    match &observation.body {
        observation::Body::Tool(tool) => {
            let caller = Caller { id: tool.id.clone(), name: observation.name.clone() };
            Some(Message { tool: Some(caller), content: media::content(tool.output.as_ref()?) })
        }
        observation::Body::Event(event) => Some(Message { tool: None, content: event.said.clone()? }),
        _ => None,
    }
}

/// The images and documents in an input message.
fn media_of<'t>(body: &Body<'t>) -> &'t [Media] {
    match body {
        Body::Tool(tool) => tool.result.as_ref().map_or(&[], |(result, _)| &result.media),
        Body::Event { said: Some((_, media)), .. } => media,
        _ => &[],
    }
}

#[cfg(test)]
mod tests;
