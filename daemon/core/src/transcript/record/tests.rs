use proptest::prelude::*;
use serde_json::{Value, json};

use super::{parse::BOOKKEEPING, *};

mod answers;
mod bytes;
mod odd;
mod others;
mod prompts;
mod results;
mod torn;
mod typed;

const T: &str = "2026-03-01T10:00:00.250Z";
const T_NANOS: Nanos = 1_772_359_200_250_000_000;

fn read(line: &Value) -> Result<Record, Skip> {
    parse(line.to_string().as_bytes())
}

fn user(content: Value) -> Value {
    json!({"type": "user", "uuid": "u-1", "timestamp": T, "message": {"role": "user", "content": content}})
}

fn answer(content: Value) -> Value {
    json!({"type": "assistant", "uuid": "a-1", "timestamp": T, "requestId": "req-1", "message": {
        "id": "msg-1", "role": "assistant", "model": "claude-haiku-4-5", "content": content,
        "stop_reason": "end_turn", "usage": {"input_tokens": 3, "output_tokens": 5},
    }})
}

/// `line` with `key` set to `value`.
fn with(mut line: Value, key: &str, value: Value) -> Value {
    line[key] = value;
    line
}

fn prompt(line: &Value) -> Prompt {
    match read(line) {
        Ok(Record::Prompt(prompt)) => prompt,
        other => panic!("{line} is {other:?}"),
    }
}

fn assistant(line: &Value) -> Assistant {
    match read(line) {
        Ok(Record::Assistant(answer)) => *answer,
        other => panic!("{line} is {other:?}"),
    }
}

fn results(line: &Value) -> Vec<ToolResult> {
    match read(line) {
        Ok(Record::ToolResults { results, .. }) => results,
        other => panic!("{line} is {other:?}"),
    }
}

/// The usage of an answer whose `usage` is written as `text`.
fn usage(text: &str) -> Option<Usage> {
    let line = format!(r#"{{"type":"assistant","message":{{"id":"m","model":"x","usage":{text},"content":[]}}}}"#);
    match parse(line.as_bytes()) {
        Ok(Record::Assistant(answer)) => answer.usage,
        other => panic!("{text} is {other:?}"),
    }
}
