//! OpenInference's conventions, which Phoenix and others read.

use std::collections::BTreeMap;

use crate::{
    destination::{
        own::{self, Pairs, Put, Sums, is_json, json, text},
        wire::Value,
    },
    observation::{Answer, Body, Generation, Message, Observation, TraceFacts},
};

/// The longest list that every receiver keeps.
pub(super) const LIST: usize = 64;

/// Adds the attributes of `observation`. `own` has this program's own attributes for it.
pub(super) fn put(put: &mut Put, observation: &Observation, facts: &TraceFacts, own: &Pairs) {
    let kind = match observation.body {
        Body::Turn(_) | Body::Agent(_) => "AGENT",
        Body::Generation(_) => "LLM",
        Body::Tool(_) => "TOOL",
        Body::Event(_) => "CHAIN",
    };
    put.text("openinference.span.kind", kind);
    match &observation.body {
        Body::Turn(turn) => {
            put.text("agent.name", own::SOURCE);
            put.plain("input", text(&turn.input));
            put.plain("output", turn.output.clone());
            if !facts.tags.is_empty() {
                put.value("tag.tags", Value::List(facts.tags.iter().take(LIST).cloned().collect()));
            }
        }
        Body::Agent(agent) => {
            put.some("agent.name", observation.agent.as_deref());
            put.plain("input", text(&agent.input));
            put.plain("output", agent.output.clone());
        }
        Body::Generation(generation) => put.call(generation),
        Body::Tool(tool) => {
            put.text("tool.name", observation.name.as_str());
            put.text("tool.id", tool.id.as_str());
            put.text("tool.parameters", tool.input.as_str());
            put.plain("input", tool.input.clone());
            if let Some(output) = &tool.output {
                put.plain("output", output.with(own::media));
            }
        }
        Body::Event(event) => {
            if let Some(said) = &event.said {
                put.plain("input", text(said));
            }
        }
    }
    let mut metadata: BTreeMap<&str, String> = own.iter().map(|(key, value)| (&**key, own::shown(value))).collect();
    if observation.is_root() {
        metadata.insert("source", own::SOURCE.to_owned());
        metadata.insert("session_id", facts.session_id.clone());
        for (key, value) in &facts.metadata {
            metadata.entry(key).or_insert_with(|| value.clone());
        }
    }
    put.some("metadata", (!metadata.is_empty()).then(|| json(&metadata)));
}

impl Put {
    /// An input or output with its MIME type.
    fn plain(&mut self, side: &str, text: String) {
        if text.is_empty() {
            return;
        }
        let kind = if is_json(&text) { "application/json" } else { "text/plain" };
        self.text(format!("{side}.value"), text);
        self.text(format!("{side}.mime_type"), kind);
    }

    fn call(&mut self, generation: &Generation) {
        self.text("llm.model_name", own::model(&generation.model));
        self.text("llm.provider", "anthropic");
        self.text("llm.system", "anthropic");
        match &generation.input[..] {
            [] => {}
            [one] => self.plain("input", text(&one.content)),
            several => {
                let said = |message: &Message| {
                    BTreeMap::from([("role", role(message).to_owned()), ("content", text(&message.content))])
                };
                self.plain("input", json(&several.iter().map(said).collect::<Vec<_>>()));
            }
        }
        for (number, message) in generation.input.iter().enumerate() {
            let key = |rest: &str| format!("llm.input_messages.{number}.message.{rest}");
            self.text(key("role"), role(message));
            self.text(key("content"), text(&message.content));
            if let Some(tool) = &message.tool {
                self.text(key("tool_call_id"), tool.id.as_str());
                self.text(key("name"), tool.name.as_str());
            }
        }
        if let Some(answer) = &generation.output {
            self.answer(answer);
        }
        if let Some(usage) = generation.usage {
            let Sums { input, cache_write, total } = Sums::of(usage);
            self.int("llm.token_count.prompt", input);
            self.int("llm.token_count.completion", usage.output);
            self.int("llm.token_count.total", total);
            self.int("llm.token_count.prompt_details.cache_read", usage.cache_read);
            self.int("llm.token_count.prompt_details.cache_write", cache_write);
        }
    }

    fn answer(&mut self, answer: &Answer) {
        self.plain("output", answer.text.clone());
        let key = |rest: &str| format!("llm.output_messages.0.message.{rest}");
        self.text(key("role"), "assistant");
        if answer.thinking.is_empty() {
            self.text(key("content"), answer.text.as_str());
        } else {
            let thinking = answer.thinking.iter().map(|text| ("reasoning", text));
            let contents = thinking.chain([("text", &answer.text)]).filter(|(_, text)| !text.is_empty());
            for (number, (kind, text)) in contents.enumerate() {
                self.text(key(&format!("contents.{number}.message_content.type")), kind);
                self.text(key(&format!("contents.{number}.message_content.text")), text.as_str());
            }
        }
        for (number, call) in answer.calls.iter().enumerate() {
            let key = |rest: &str| key(&format!("tool_calls.{number}.tool_call.{rest}"));
            self.text(key("id"), call.id.as_str());
            self.text(key("function.name"), call.name.as_str());
            self.text(key("function.arguments"), call.arguments.as_str());
        }
    }
}

fn role(message: &Message) -> &'static str {
    if message.tool.is_some() { "tool" } else { "user" }
}
