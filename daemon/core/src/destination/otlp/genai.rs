//! OpenTelemetry's conventions for generative AI: attributes below `gen_ai.`.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    destination::own::{self, Put, Sums, json},
    observation::{self, Answer, Body, Content, Generation, Observation, Tool, TraceFacts},
};

/// The provider of every model call.
const PROVIDER: &str = "anthropic";

/// Adds the attributes of `observation`.
pub(super) fn put(put: &mut Put, observation: &Observation, facts: &TraceFacts) {
    let operation = match observation.body {
        Body::Turn(_) | Body::Agent(_) => "invoke_agent",
        Body::Generation(_) => "chat",
        Body::Tool(_) => "execute_tool",
        Body::Event(_) => "event",
    };
    put.text("gen_ai.operation.name", operation);
    put.text("gen_ai.provider.name", PROVIDER);
    put.text("gen_ai.conversation.id", facts.session_id.as_str());
    put.text("gen_ai.agent.name", observation.agent.as_deref().unwrap_or(own::SOURCE));
    match &observation.body {
        Body::Turn(turn) => put.asked(&turn.input, &turn.output, observation.failure.is_some()),
        Body::Agent(agent) => {
            put.some("gen_ai.agent.id", agent.agent_id.as_deref());
            put.some("gen_ai.agent.description", agent.description.as_deref());
            put.asked(&agent.input, &agent.output, observation.failure.is_some());
        }
        Body::Generation(generation) => put.chat(generation, observation.start),
        Body::Tool(tool) => put.execution(tool, &observation.name),
        Body::Event(event) => {
            put.some("gen_ai.input.messages", event.said.as_ref().map(|said| json(&[Message::user(said)])));
        }
    }
    if let Some((kind, _)) = observation.exception() {
        put.text("error.type", kind);
    }
}

impl Put {
    fn asked(&mut self, input: &Content, output: &str, failed: bool) {
        self.text("gen_ai.input.messages", json(&[Message::user(input)]));
        if !output.is_empty() {
            let parts = vec![Part::Text { content: output.to_owned() }];
            let finish_reason = Some(if failed { "error" } else { "stop" });
            self.text("gen_ai.output.messages", json(&[Message { role: "assistant", parts, finish_reason }]));
        }
    }

    fn chat(&mut self, generation: &Generation, start: u64) {
        let model = own::model(&generation.model);
        self.text("gen_ai.request.model", generation.requested_model.as_deref().map_or(model, own::model));
        self.text("gen_ai.response.model", model);
        self.some("gen_ai.response.id", generation.message_id.as_deref());
        if let Some(reason) = &generation.stop_reason {
            self.value("gen_ai.response.finish_reasons", super::Value::List(vec![reason.clone()]));
        }
        if let Some(first) = generation.first_block {
            let seconds = first.saturating_sub(start) as f64 / 1e9;
            self.value("gen_ai.response.time_to_first_chunk", super::Value::Double(seconds));
        }
        let given: Vec<Message<'_>> = generation.input.iter().map(Message::given).collect();
        self.some("gen_ai.input.messages", (!given.is_empty()).then(|| json(&given)));
        let answer =
            generation.output.as_ref().map(|answer| Message::answer(answer, generation.stop_reason.as_deref()));
        let said = answer.filter(|message| !message.parts.is_empty());
        self.some("gen_ai.output.messages", said.map(|message| json(&[message])));
        if let Some(usage) = generation.usage {
            let Sums { input, cache_write, .. } = Sums::of(usage);
            self.int("gen_ai.usage.input_tokens", input);
            self.int("gen_ai.usage.output_tokens", usage.output);
            self.int("gen_ai.usage.cache_read.input_tokens", usage.cache_read);
            self.int("gen_ai.usage.cache_creation.input_tokens", cache_write);
        }
    }

    fn execution(&mut self, tool: &Tool, name: &str) {
        self.text("gen_ai.tool.name", name);
        self.text("gen_ai.tool.type", if tool.on_server { "extension" } else { "function" });
        self.text("gen_ai.tool.call.id", tool.id.as_str());
        self.text("gen_ai.tool.call.arguments", tool.input.as_str());
        self.some("gen_ai.tool.call.result", tool.output.as_ref().map(|output| output.with(own::media)));
    }
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'a str,
    parts: Vec<Part<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finish_reason: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Part<'a> {
    Text { content: String },
    Reasoning { content: &'a str },
    ToolCall { id: &'a str, name: &'a str, arguments: Arguments<'a> },
    ToolCallResponse { id: &'a str, response: String },
}

/// JSON, or the size that replaces it.
#[derive(Serialize)]
#[serde(untagged)]
enum Arguments<'a> {
    Json(&'a RawValue),
    Text(&'a str),
}

impl<'a> Message<'a> {
    fn user(content: &Content) -> Self {
        Self { role: "user", parts: parts(content), finish_reason: None }
    }

    fn given(message: &'a observation::Message) -> Self {
        let Some(tool) = &message.tool else { return Self::user(&message.content) };
        let texts = parts(&message.content).into_iter().map(|part| match part {
            Part::Text { content } => content,
            _ => String::new(),
        });
        let response = texts.collect::<Vec<_>>().join("\n");
        Self { role: "tool", parts: vec![Part::ToolCallResponse { id: &tool.id, response }], finish_reason: None }
    }

    fn answer(answer: &'a Answer, finish_reason: Option<&'a str>) -> Self {
        let thinking = answer.thinking.iter().map(|content| Part::Reasoning { content });
        let text = (!answer.text.is_empty()).then(|| Part::Text { content: answer.text.clone() });
        let calls = answer.calls.iter().map(|call| Part::ToolCall {
            id: &call.id,
            name: &call.name,
            arguments: serde_json::from_str(&call.arguments).map_or(Arguments::Text(&call.arguments), Arguments::Json),
        });
        Self { role: "assistant", parts: thinking.chain(text).chain(calls).collect(), finish_reason }
    }
}

fn parts(content: &Content) -> Vec<Part<'static>> {
    match content {
        Content::Text(text) => vec![Part::Text { content: text.clone() }],
        Content::Parts(parts) => parts
            .iter()
            .map(|part| match part {
                observation::Part::Text(text) => Part::Text { content: text.clone() },
                observation::Part::Media(media) => Part::Text { content: own::media(media) },
            })
            .collect(),
    }
}
