//! Transcripts that a test writes line by line.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::PathBuf,
};

use serde_json::{Value, json};

use crate::Home;

/// A session whose transcript a test writes.
#[derive(Clone)]
pub struct Story {
    pub session: String,
    pub path: PathBuf,
    /// Its working directory.
    pub cwd: PathBuf,
    lines: u64,
    calls: u64,
}

impl Story {
    /// A session in `project` of `home`, without any lines yet.
    pub fn new(home: &Home, project: &str, session: &str) -> Self {
        let dir = home.path().join(".claude/projects").join(format!("-{project}"));
        fs::create_dir_all(&dir).expect("a directory");
        Self {
            session: session.to_owned(),
            path: dir.join(format!("{session}.jsonl")),
            cwd: home.project(project),
            lines: 0,
            calls: 0,
        }
    }

    /// Adds a line as it is.
    pub fn raw(&mut self, line: &[u8]) -> &mut Self {
        let mut file = OpenOptions::new().append(true).create(true).open(&self.path).expect("the transcript");
        file.write_all(line).and_then(|()| file.write_all(b"\n")).expect("written");
        self
    }

    fn line(&mut self, kind: &str, message: &Value) -> &mut Self {
        self.lines += 1;
        let line = json!({
            "parentUuid": null, "isSidechain": false, "type": kind, "message": message,
            "uuid": format!("{}-line-{}", self.session, self.lines), "sessionId": self.session, "cwd": self.cwd,
            "version": "2.1.329", "gitBranch": "main",
            "timestamp": format!("2026-11-20T{:02}:{:02}:{:02}.000Z", 8 + self.lines / 3600, self.lines / 60 % 60, self.lines % 60),
        });
        self.raw(line.to_string().as_bytes())
    }

    fn assistant(&mut self, block: &Value, stop_reason: &str) -> &mut Self {
        self.calls += 1;
        self.block(block, stop_reason)
    }

    /// Adds a content block to the latest call.
    fn block(&mut self, block: &Value, stop_reason: &str) -> &mut Self {
        let message = json!({
            "id": format!("msg-{}-{}", self.session, self.calls), "type": "message", "role": "assistant",
            "model": "claude-sonnet-4-5-20250929", "content": [block], "stop_reason": stop_reason,
            "usage": {"input_tokens": 10, "output_tokens": self.calls, "cache_read_input_tokens": 7},
        });
        self.line("assistant", &message)
    }

    /// Adds a prompt of the user.
    pub fn prompt(&mut self, text: &str) -> &mut Self {
        self.line("user", &json!({"role": "user", "content": text}))
    }

    /// The same with a list of blocks.
    pub fn prompt_of(&mut self, blocks: &Value) -> &mut Self {
        self.line("user", &json!({"role": "user", "content": blocks}))
    }

    /// Adds a tool call and its result: two spans.
    pub fn tool(&mut self, output: &str) -> &mut Self {
        self.result(&output.into(), false)
    }

    /// The same with a list of blocks.
    pub fn tool_of(&mut self, blocks: &Value) -> &mut Self {
        self.result(blocks, false)
    }

    /// The same with a failed tool.
    pub fn failed_tool(&mut self, output: &str) -> &mut Self {
        self.result(&output.into(), true)
    }

    fn result(&mut self, output: &Value, is_error: bool) -> &mut Self {
        let id = format!("toolu-{}-{}", self.session, self.calls + 1);
        self.assistant(&json!({"type": "tool_use", "id": id, "name": "Bash", "input": {"command": "ls"}}), "tool_use");
        let result = json!({"type": "tool_result", "tool_use_id": id, "content": output, "is_error": is_error});
        self.line("user", &json!({"role": "user", "content": [result]}))
    }

    /// The model answers.
    pub fn answer(&mut self, text: &str) -> &mut Self {
        self.assistant(&json!({"type": "text", "text": text}), "end_turn")
    }

    /// Adds thinking; the answer must follow within the same call.
    pub fn thinking(&mut self, text: &str) -> &mut Self {
        self.assistant(&json!({"type": "thinking", "thinking": text, "signature": "c2ln"}), "end_turn")
    }

    /// The answer after [`thinking`](Self::thinking).
    pub fn rest(&mut self, text: &str) -> &mut Self {
        self.block(&json!({"type": "text", "text": text}), "end_turn")
    }

    /// Prompt and answer: two spans.
    pub fn turn(&mut self, prompt: &str, answer: &str) -> &mut Self {
        self.prompt(prompt).answer(answer)
    }

    /// The payload of a hook.
    pub fn event(&self, name: &str) -> Value {
        json!({
            "session_id": self.session, "transcript_path": self.path, "cwd": self.cwd, "hook_event_name": name,
        })
    }

    /// The payload of the Stop hook.
    pub fn stop(&self, answer: &str) -> Value {
        let mut payload = self.event("Stop");
        payload["last_assistant_message"] = answer.into();
        payload
    }
}
