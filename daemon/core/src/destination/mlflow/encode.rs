//! Observations → the attributes that MLflow reads (servers 3.12 to 3.18), and its file store.
//!
//! * Tools stand beside their call: totals of a trace leave out what is below a span that has usage.
//! * Attributes are strings, objects JSON in them; messages are Anthropic's.
//! * `input_tokens` includes the cache: what is not in it is priced at nothing.
//! * The cost is ours: it knows the price of an hour in the cache, and stands above what a server would compute.

use serde::Serialize;
use serde_json::{json, value::RawValue};

use crate::{
    destination::{
        own::{self, Put, is_json, json as to_json, shown},
        wire::{Value, WireSpan},
    },
    observation::{Answer, Body, Content, Generation, Level, Message, Observation, Tool, TraceFacts, Usage},
    price,
};

/// Characters of a session's id at most: with more, servers refuse the whole request.
const SESSION: usize = 250;

/// Characters of a tag's value at most.
const TAG: usize = 4096;

/// How servers mark a warning.
const WARNING: i64 = 30;

/// An observation as MLflow is sent it, with what describes its trace.
pub fn encode(observation: &Observation, facts: &TraceFacts) -> WireSpan {
    let mut put = Put(Vec::with_capacity(24));
    put.text("session.id", limited(&facts.session_id, SESSION));
    put.some("user.id", facts.user_id.as_deref());
    match &observation.body {
        Body::Turn(turn) => {
            put.task(&turn.input, &turn.output);
            put.trace(facts);
        }
        Body::Agent(agent) => put.task(&agent.input, &agent.output),
        Body::Generation(generation) => put.llm(generation),
        Body::Tool(tool) => put.ran(tool),
        Body::Event(event) => {
            put.text("mlflow.spanType", "EVENT");
            put.some("mlflow.spanInputs", event.said.as_ref().map(|said| messages("user", &own::text(said))));
        }
    }
    for (key, value) in own::of_observation(observation) {
        put.text(format!("claude_code.{key}"), shown(&value));
    }
    if observation.level == Level::Warning {
        put.value("mlflow.spanLogLevel", Value::Int(WARNING));
    }
    let mut span = own::span(observation, put.0);
    // The database behind a server takes none.
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
    fn task(&mut self, input: &Content, output: &str) {
        self.text("mlflow.spanType", "AGENT");
        self.text("mlflow.spanInputs", messages("user", &own::text(input)));
        self.text("mlflow.spanOutputs", messages("assistant", output));
    }

    /// What becomes tags of the trace: nothing else of a trace can be set from its root.
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

    fn llm(&mut self, generation: &Generation) {
        self.text("mlflow.spanType", "LLM");
        self.text("mlflow.message.format", "anthropic");
        self.text("mlflow.llm.model", own::model(&generation.model));
        self.text("mlflow.llm.provider", "anthropic");
        if !generation.input.is_empty() {
            let given: Vec<_> = generation.input.iter().map(given).collect();
            self.text("mlflow.spanInputs", json!({ "messages": given }).to_string());
        }
        let blocks = generation.output.as_ref().map(blocks).filter(|blocks| !blocks.is_empty());
        self.some(
            "mlflow.spanOutputs",
            blocks.map(|content| to_json(&Messages { messages: [Said { role: "assistant", content }] })),
        );
        let Some(usage) = generation.usage else { return };
        self.text("mlflow.chat.tokenUsage", to_json(&TokenUsage::from(usage)));
        // Another tier has prices that no list has.
        let cost = price::cost(&generation.model, generation.speed.as_deref(), usage);
        if let Some(cost) = cost.filter(|_| generation.service_tier.is_none()) {
            let parts = json!({ "input_cost": cost.input, "output_cost": cost.output, "total_cost": cost.total() });
            self.text("mlflow.llm.cost", parts.to_string());
        }
    }

    fn ran(&mut self, tool: &Tool) {
        self.text("mlflow.spanType", "TOOL");
        self.text("mlflow.spanInputs", if is_json(&tool.input) { tool.input.clone() } else { to_json(&tool.input) });
        if let Some(output) = &tool.output {
            let text = own::output(output, own::media);
            let is_blocks = !output.media.is_empty() || is_list_of_blocks(&text);
            self.text("mlflow.spanOutputs", if is_blocks && is_json(&text) { text } else { to_json(&text) });
        }
    }
}

/// One message of text.
fn messages(role: &str, text: &str) -> String {
    to_json(&Messages { messages: [Said { role, content: text }] })
}

/// A message that a call was given, as Anthropic's API has it.
fn given(message: &Message) -> serde_json::Value {
    let text = own::text(&message.content);
    match &message.tool {
        None => json!({ "role": "user", "content": text }),
        Some(tool) => {
            let result = json!({ "type": "tool_result", "tool_use_id": tool.id, "content": text });
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

/// True if `text` is what a tool put out where that was not all text.
fn is_list_of_blocks(text: &str) -> bool {
    let blocks = text.starts_with('[').then(|| serde_json::from_str::<Vec<serde_json::Value>>(text).ok()).flatten();
    blocks.is_some_and(|blocks| !blocks.is_empty() && blocks.iter().all(|block| block["type"].is_string()))
}

/// The beginning of `text`, in characters.
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

/// JSON as it is, or the size that stands in its place.
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
