//! Observations → the attributes that MLflow's servers (3.12 to 3.18) and file store read.
//!
//! * Tools are siblings of their call: the totals of a trace leave out everything below a span with usage.
//! * Attributes are strings that hold JSON; messages are in Anthropic's format.
//! * Images and documents are referred to as attachments: in parts of a message, or in values of a tool's output.
//! * `input_tokens` includes the cache: MLflow prices only what is in it.
//! * The cost is computed here, because it knows the price of one-hour cache writes; it overrides what a server would compute.

use serde::Serialize;
use serde_json::{Value as Json, json, value::RawValue};

use super::attachments::reference;
use crate::{
    destination::{
        own::{self, Put, is_json, json as to_json, shown},
        wire::{Value, WireSpan},
    },
    ids::TraceId,
    observation::{
        Answer, Body, Content, Generation, Level, Message, Observation, Output, Part, Tool, TraceFacts, Usage,
    },
    price,
};

/// Maximum length of a session id in characters: servers refuse the whole request if it is longer.
const SESSION: usize = 250;

/// Maximum length of a tag's value in characters.
const TAG: usize = 4096;

/// The log level that servers use for a warning.
const WARNING: i64 = 30;

/// The span of an observation, with the facts of its trace.
pub fn encode(observation: &Observation, facts: &TraceFacts) -> WireSpan {
    let mut put = Put(Vec::with_capacity(24));
    put.text("session.id", limited(&facts.session_id, SESSION));
    put.some("user.id", facts.user_id.as_deref());
    let trace = &observation.trace_id;
    match &observation.body {
        Body::Turn(turn) => {
            put.task(asked(trace, &turn.input), &turn.output);
            put.trace(facts);
        }
        Body::Agent(agent) => put.task(asked(trace, &agent.input), &agent.output),
        Body::Generation(generation) => put.llm(trace, generation),
        Body::Tool(tool) => put.ran(trace, tool),
        Body::Event(event) => {
            put.text("mlflow.spanType", "EVENT");
            put.some("mlflow.spanInputs", event.said.as_ref().map(|said| asked(trace, said)));
        }
    }
    for (key, value) in own::of_observation(observation) {
        put.text(format!("claude_code.{key}"), shown(&value));
    }
    if observation.level == Level::Warning {
        put.value("mlflow.spanLogLevel", Value::Int(WARNING));
    }
    let mut span = own::span(observation, put.0);
    // PostgreSQL and others store no NUL characters.
    for (_, value) in &mut span.attributes {
        if let Value::Text(text) = value
            && text.contains('\0')
        {
            *text = text.replace('\0', "\u{fffd}");
        }
    }
    span
}

impl Put {
    fn task(&mut self, input: String, output: &str) {
        self.text("mlflow.spanType", "AGENT");
        self.text("mlflow.spanInputs", input);
        self.text("mlflow.spanOutputs", messages("assistant", output));
    }

    /// Tags of the trace: the only trace properties that can be set from its root span.
    fn trace(&mut self, facts: &TraceFacts) {
        self.text("mlflow.traceTag.mlflow.traceName", format!("Turn {}", facts.turn));
        let is_own = |key: &str| key.starts_with("mlflow.");
        for (key, value) in own::of_trace(facts).into_iter().filter(|(key, _)| key != "turn_number") {
            self.text(format!("mlflow.traceTag.claude_code.{key}"), limited(&shown(&value), TAG));
        }
        for tag in facts.tags.iter().filter(|tag| !is_own(tag)) {
            self.text(format!("mlflow.traceTag.{tag}"), "true");
        }
        for (key, value) in facts.metadata.iter().filter(|(key, _)| !is_own(key) && !facts.tags.contains(key)) {
            self.text(format!("mlflow.traceTag.{key}"), limited(value, TAG));
        }
    }

    fn llm(&mut self, trace: &TraceId, generation: &Generation) {
        self.text("mlflow.spanType", "LLM");
        self.text("mlflow.message.format", "anthropic");
        self.text("mlflow.llm.model", own::model(&generation.model));
        self.text("mlflow.llm.provider", "anthropic");
        if !generation.input.is_empty() {
            let given: Vec<_> = generation.input.iter().map(|message| given(trace, message)).collect();
            self.text("mlflow.spanInputs", json!({ "messages": given }).to_string());
        }
        let blocks = generation.output.as_ref().map(blocks).filter(|blocks| !blocks.is_empty());
        self.some(
            "mlflow.spanOutputs",
            blocks.map(|content| to_json(&Messages { messages: [Said { role: "assistant", content }] })),
        );
        let Some(usage) = generation.usage else { return };
        self.text("mlflow.chat.tokenUsage", to_json(&TokenUsage::from(usage)));
        // No price list has the prices of other service tiers.
        let cost = price::cost(&generation.model, generation.speed.as_deref(), usage);
        if let Some(total) = generation.measured.as_ref().and_then(|measured| measured.cost) {
            // With its fees, which count as input: the parts add up to the total.
            let output = cost.map_or(0.0, |cost| cost.output.min(total));
            let parts = json!({ "input_cost": total - output, "output_cost": output, "total_cost": total });
            return self.text("mlflow.llm.cost", parts.to_string());
        }
        if let Some(cost) = cost.filter(|_| generation.service_tier.is_none()) {
            let parts = json!({ "input_cost": cost.input, "output_cost": cost.output, "total_cost": cost.total() });
            self.text("mlflow.llm.cost", parts.to_string());
        }
    }

    fn ran(&mut self, trace: &TraceId, tool: &Tool) {
        self.text("mlflow.spanType", "TOOL");
        self.text("mlflow.spanInputs", if is_json(&tool.input) { tool.input.clone() } else { to_json(&tool.input) });
        if let Some(output) = &tool.output {
            let text = &output.text;
            self.text(
                "mlflow.spanOutputs",
                match is_list_of_blocks(text) {
                    _ if !output.media.is_empty() => with_attachments(trace, output).to_string(),
                    true => text.clone(),
                    false => to_json(text),
                },
            );
        }
    }
}

/// One message of text.
fn messages(role: &str, text: &str) -> String {
    to_json(&Messages { messages: [Said { role, content: text }] })
}

/// The input of a turn or subagent. No call is shown there, so parts of a message are in OpenAI's format.
fn asked(trace: &TraceId, content: &Content) -> String {
    let url = |url: String| json!({ "type": "image_url", "image_url": { "url": url } });
    match parts(trace, content, url) {
        Some(parts) => json!({ "messages": [{ "role": "user", "content": parts }] }).to_string(),
        None => messages("user", &own::text(content)),
    }
}

/// Text and attachments in order; `None` if there is only text.
fn parts(trace: &TraceId, content: &Content, attached: impl Fn(String) -> Json) -> Option<Vec<Json>> {
    let Content::Parts(parts) = content else { return None };
    let part = |part: &Part| match part {
        Part::Text(text) => json!({ "type": "text", "text": text }),
        Part::Media(media) => attached(reference(trace, media)),
    };
    parts.iter().any(|part| matches!(part, Part::Media(_))).then(|| parts.iter().map(part).collect())
}

/// A tool's output with attachments: the attachment alone, or an object that contains it; MLflow renders only these two forms.
fn with_attachments(trace: &TraceId, output: &Output) -> Json {
    let attached: Vec<String> = output.media.iter().map(|(_, media)| reference(trace, media)).collect();
    let is_attached = |block: &Json| holds(block, &|text| attached.iter().any(|reference| reference == text));
    let whole = output.with(|media| reference(trace, media));
    let blocks: Vec<Json> = serde_json::from_str(&whole).unwrap_or_default();
    let others: Vec<&Json> = blocks.iter().filter(|block| !is_attached(block)).collect();
    let texts: Option<Vec<&str>> = others.iter().map(|block| block["text"].as_str()).collect();
    let result = match texts {
        // The output was not a list of blocks.
        _ if blocks.is_empty() => attached.iter().fold(whole, |text, reference| text.replace(reference, "")).into(),
        Some(texts) => Json::from(texts.join("\n")),
        None => json!(others),
    };
    match &attached[..] {
        [one] if result == "" => json!(one),
        several => {
            let mut object = serde_json::Map::new();
            if result != "" {
                object.insert("result".to_owned(), result);
            }
            for (number, (reference, (_, media))) in several.iter().zip(&output.media).enumerate() {
                let name = if media.kind.starts_with("image/") { "image" } else { "document" };
                let name = if several.len() > 1 { format!("{name}_{}", number + 1) } else { name.to_owned() };
                object.insert(name, json!(reference));
            }
            object.into()
        }
    }
}

/// True if any text in `value` satisfies `is_one`.
fn holds(value: &Json, is_one: &impl Fn(&str) -> bool) -> bool {
    match value {
        Json::String(text) => is_one(text),
        Json::Array(items) => items.iter().any(|item| holds(item, is_one)),
        Json::Object(fields) => fields.values().any(|item| holds(item, is_one)),
        Json::Null | Json::Bool(_) | Json::Number(_) => false,
    }
}

/// A message of a call's input, in the format of Anthropic's API.
fn given(trace: &TraceId, message: &Message) -> Json {
    let source = |url: String| json!({ "type": "image", "source": { "type": "url", "url": url } });
    // MLflow shows no attachments inside tool results; the tool's own span has them.
    let content = match parts(trace, &message.content, source) {
        Some(parts) if message.tool.is_none() => parts.into(),
        _ => Json::from(own::text(&message.content)),
    };
    match &message.tool {
        None => json!({ "role": "user", "content": content }),
        Some(tool) => {
            let result = json!({ "type": "tool_result", "tool_use_id": tool.id, "content": content });
            json!({ "role": "user", "content": [result] })
        }
    }
}

fn blocks(answer: &Answer) -> Vec<Block<'_>> {
    let thinking = answer.thinking.iter().map(|thinking| Block::Thinking { thinking });
    let text = (!answer.text.is_empty()).then_some(Block::Text { text: &answer.text });
    let calls = answer.calls.iter().map(|call| Block::ToolUse {
        id: &call.id,
        name: &call.name,
        input: serde_json::from_str(&call.arguments).map_or(Input::Text(&call.arguments), Input::Json),
    });
    thinking.chain(text).chain(calls).collect()
}

/// True if `text` is a tool's output that consisted of blocks.
fn is_list_of_blocks(text: &str) -> bool {
    let blocks = text.starts_with('[').then(|| serde_json::from_str::<Vec<serde_json::Value>>(text).ok()).flatten();
    blocks.is_some_and(|blocks| !blocks.is_empty() && blocks.iter().all(|block| block["type"].is_string()))
}

/// The first `characters` characters of `text`.
fn limited(text: &str, characters: usize) -> &str {
    text.char_indices().nth(characters).map_or(text, |(end, _)| &text[..end])
}

#[derive(Serialize)]
struct Messages<'a, T> {
    messages: [Said<'a, T>; 1],
}

#[derive(Serialize)]
struct Said<'a, T> {
    role: &'a str,
    content: T,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Block<'a> {
    Thinking { thinking: &'a str },
    Text { text: &'a str },
    ToolUse { id: &'a str, name: &'a str, input: Input<'a> },
}

/// JSON, or the size that replaces it.
#[derive(Serialize)]
#[serde(untagged)]
enum Input<'a> {
    Json(&'a RawValue),
    Text(&'a str),
}

#[derive(Serialize)]
struct TokenUsage {
    input_tokens: u64,
    output_tokens: u64,
    total_tokens: u64,
    cache_read_input_tokens: u64,
    cache_creation_input_tokens: u64,
    cache_creation_input_tokens_above_1hr: u64,
}

impl From<Usage> for TokenUsage {
    fn from(usage: Usage) -> Self {
        let own::Sums { input, cache_write, total } = own::Sums::of(usage);
        Self {
            input_tokens: input,
            output_tokens: usage.output,
            total_tokens: total,
            cache_read_input_tokens: usage.cache_read,
            cache_creation_input_tokens: cache_write,
            cache_creation_input_tokens_above_1hr: usage.cache_write_1h,
        }
    }
}
