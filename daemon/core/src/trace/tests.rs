use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    transcript::{
        lines::{Line, Lines},
        record,
    },
    turn::Assembler,
};

mod reading;
mod times;
mod tree;

const MILLI: Nanos = 1_000_000;

/// `at` milliseconds past a fixed hour of 2026.
fn nanos(at: u64) -> Nanos {
    1_772_359_200_000 * MILLI + at * MILLI
}

fn stamp(at: u64) -> String {
    format!("2026-03-01T10:{:02}:{:02}.{:03}Z", at / 60_000, at / 1000 % 60, at % 1000)
}

fn user(uuid: &str, at: u64, text: &str) -> Value {
    json!({"type": "user", "uuid": uuid, "timestamp": stamp(at), "message": {"role": "user", "content": text}})
}

fn answer(id: &str, at: u64, blocks: Value) -> Value {
    json!({"type": "assistant", "uuid": format!("{id}-{at}"), "timestamp": stamp(at), "requestRef": format!("req-{id}"),
        "message": {"id": id, "role": "assistant", "model": "claude-haiku-4-5", "content": blocks,
            "usage": {"input_tokens": 1, "output_tokens": at}}})
}

fn says(id: &str, at: u64, text: &str) -> Value {
    answer(id, at, json!([{"type": "text", "text": text}]))
}

fn calls(id: &str, at: u64, tools: &[&str]) -> Value {
    let blocks: Vec<_> = tools
        .iter()
        .map(|tool| json!({"type": "tool_use", "id": tool, "name": "Bash", "input": {"of": tool}}))
        .collect();
    answer(id, at, json!(blocks))
}

fn returns(tool: &str, at: u64) -> Value {
    json!({"type": "user", "timestamp": stamp(at),
        "message": {"content": [{"type": "tool_result", "tool_use_id": tool, "content": format!("of {tool}")}]}})
}

fn request(id: &str, at: u64) -> Value {
    json!({"type": "api-request", "id": format!("req-{id}"), "timestamp": stamp(at)})
}

/// `line` without its time.
fn untimed(mut line: Value) -> Value {
    line["timestamp"] = Value::Null;
    line
}

/// `line` with its type first, where Claude Code writes it.
fn written(line: &Value) -> String {
    let mut rest = line.clone();
    match rest.as_object_mut().and_then(|fields| fields.remove("type")) {
        Some(kind) => format!("{{\"type\":{kind},{}", &rest.to_string()[1..]),
        None => line.to_string(),
    }
}

fn file(lines: &[Value]) -> Vec<u8> {
    lines.iter().flat_map(|line| format!("{}\n", written(line)).into_bytes()).collect()
}

/// The assembler after `lines`, which are one open turn.
fn assembled(lines: &[Value]) -> Assembler {
    let mut assembler = Assembler::new("session-1", 0);
    for (line, offset) in lines.iter().zip(0..) {
        let record = record::parse(written(line).as_bytes()).unwrap();
        assert!(assembler.push(record, offset).is_none(), "one turn");
    }
    assembler
}

/// Name, start and end in milliseconds of every span of `lines`, emitted after the last line.
fn times(lines: &[Value], semantics: Semantics, fired: Option<u64>) -> Vec<(String, u64, u64)> {
    let assembler = assembled(lines);
    let found = spans(assembler.open().unwrap(), Scope::Final, semantics, fired.map(nanos));
    let milli = |at: Nanos| at.saturating_sub(nanos(0)) / MILLI;
    found.iter().map(|span| (label(span), milli(span.start), milli(span.end))).collect()
}

fn label(span: &Span<'_>) -> String {
    match &span.body {
        Body::Turn { .. } | Body::Agent { .. } | Body::Advice { .. } | Body::Event { .. } => span.name.clone(),
        Body::Generation { generation, .. } => generation.id.clone(),
        Body::Tool(tool) => tool.id.clone(),
    }
}

fn expected(spans: &[(&str, u64, u64)]) -> Vec<(String, u64, u64)> {
    spans.iter().map(|(name, start, end)| ((*name).to_owned(), *start, *end)).collect()
}

/// Two model calls; the first asks for three tools, of which the second returns before the first.
fn conversation() -> Vec<Value> {
    vec![
        user("p1", 1000, "do it"),
        request("a", 1200),
        says("a", 2000, "let me see"),
        calls("a", 2500, &["t1", "t2"]),
        calls("a", 2600, &["t3"]),
        returns("t2", 3000),
        returns("t1", 4000),
        returns("t3", 5000),
        request("b", 5100),
        says("b", 6000, "there"),
        says("b", 7000, "done"),
    ]
}
