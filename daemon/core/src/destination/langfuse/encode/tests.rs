use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value as Json, json};

use super::{message::reference, *};
use crate::{
    ids::{Role, span_id, trace_id},
    media::Media,
    observation::{Field, MediaRef},
    pipeline::{Outgoing, Pipeline},
    project::{Capture, Options},
    redact::{Counts, Rules},
    transcript::record,
    turn::{Assembler, Scope, Turn},
};

mod given;
mod images;
mod inputs;
mod sizes;
mod spans;

const SESSION: &str = "session-1";

fn prompt() -> Json {
    json!({"type": "user", "uuid": "p1", "timestamp": "2026-03-01T10:00:00Z", "version": "2.1.0", "cwd": "/home/dev/app",
        "gitBranch": "main", "slug": "red-fox", "message": {"content": "count \"a\" & <b>"}})
}

fn answer(id: &str, blocks: Json, usage: Json) -> Json {
    json!({"type": "assistant", "uuid": format!("line-{id}"), "timestamp": "2026-03-01T10:00:01.500Z", "requestId": format!("req-{id}"),
        "message": {"id": id, "model": "claude-haiku-4-5", "stop_reason": "end_turn", "content": blocks, "usage": usage}})
}

fn text(text: &str) -> Json {
    json!([{"type": "text", "text": text}])
}

fn result(tool: &str, content: Json, is_error: bool) -> Json {
    json!({"type": "user", "timestamp": "2026-03-01T10:00:02Z", "message": {"content": [
        {"type": "tool_result", "tool_use_id": tool, "content": content, "is_error": is_error},
    ]}})
}

/// A turn with two answers and one tool.
fn conversation() -> Vec<Json> {
    let asks = json!([
        {"type": "thinking", "thinking": "first look", "signature": "s"},
        {"type": "text", "text": "I will count."},
        {"type": "tool_use", "id": "t1", "name": "Bash", "input": {"command": "wc"}},
    ]);
    let usage = json!({"input_tokens": 10, "output_tokens": 20, "cache_read_input_tokens": 30, "cache_creation_input_tokens": 60,
        "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20}});
    vec![
        prompt(),
        answer("m1", asks, usage),
        result("t1", json!("3"), false),
        answer("m2", text("Three."), json!({"input_tokens": 1, "output_tokens": 2})),
    ]
}

/// The observations of the one turn in `lines`.
fn observed(lines: &[Json], options: &Options) -> Vec<Outgoing> {
    let mut assembler = Assembler::new(SESSION, 0);
    for (line, offset) in lines.iter().zip(0..) {
        assert!(assembler.push(record::parse(line.to_string().as_bytes()).unwrap(), offset).is_none());
    }
    emitted(assembler.open_mut().unwrap(), Scope::Final, options, None, &mut Counts::new())
}

/// What is emitted of `turn`, masked if there are `rules`.
fn emitted(
    turn: &mut Turn,
    scope: Scope,
    options: &Options,
    rules: Option<&Rules>,
    counts: &mut Counts,
) -> Vec<Outgoing> {
    let options = Options { unredacted: rules.is_none(), ..options.clone() };
    let rules = rules.cloned().unwrap_or_default();
    let pipeline = Pipeline { session_id: SESSION, options: &options, rules: &rules };
    pipeline.emit(turn, scope, None, |_| None, counts).observations
}

/// `found` as spans.
fn wire(found: &[Outgoing]) -> Vec<WireSpan> {
    found.iter().map(|out| encode(&out.observation, &out.facts)).collect()
}

/// The spans of the one turn in `lines`.
fn encoded(lines: &[Json], options: &Options) -> Vec<WireSpan> {
    wire(&observed(lines, options))
}

/// The attributes of `span` that not every span has.
fn own(span: &WireSpan) -> BTreeMap<&str, &str> {
    let shared = |key: &str| {
        key.starts_with("langfuse.trace.") && !matches!(key, "langfuse.trace.input" | "langfuse.trace.output")
            || matches!(
                key,
                "session.id" | "user.id" | "langfuse.version" | "langfuse.release" | "langfuse.environment"
            )
    };
    let own = span.attributes.iter().filter(|(key, _)| !shared(key));
    own.map(|(key, _)| (&key[..], span.text(key).unwrap())).collect()
}

fn parsed(span: &WireSpan, key: &str) -> Json {
    serde_json::from_str(span.text(key).unwrap_or_else(|| panic!("no {key}"))).unwrap()
}

fn full() -> Options {
    Options {
        unredacted: false,
        semantics: Semantics::Spec,
        environment: Some("staging".into()),
        release: Some("v7".into()),
        user_id: Some("ada".into()),
        tags: vec!["one".into(), "two".into()],
        metadata: [("team".to_owned(), "tools".to_owned())].into(),
        sample_rate: None,
        unscored: false,
        capture: Capture::Full,
    }
}
