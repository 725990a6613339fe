//! Transcripts whose lines follow each other, with what can go wrong in a turn.

use serde_json::{Value, json};

use crate::{Home, Story};

/// Lines of a session as Claude Code writes them: each follows the one before.
pub struct Lines {
    pub story: Story,
    /// The `uuid` of the line that the next one follows.
    pub last: Value,
    made: usize,
}

impl Lines {
    /// A session in the project `work`, without any lines yet.
    pub fn new(home: &Home, session: &str) -> Self {
        Self { story: Story::new(home, "work", session), last: Value::Null, made: 0 }
    }

    /// Adds a line with what every line has.
    pub fn line(&mut self, mut line: Value) -> &mut Self {
        self.made += 1;
        let id = format!("{}-{}", self.story.session, self.made);
        let common = json!({
            "parentUuid": self.last, "uuid": id, "sessionId": self.story.session, "isSidechain": false,
            "version": "2.1.332", "timestamp": format!("2026-11-20T08:{:02}:{:02}.000Z", self.made / 60, self.made % 60),
        });
        line.as_object_mut().expect("an object").extend(common.as_object().expect("an object").clone());
        self.last = id.into();
        self.story.raw(line.to_string().as_bytes());
        self
    }

    /// Adds a line of the user with this content.
    pub fn user(&mut self, content: &Value) -> &mut Self {
        self.line(json!({"type": "user", "message": {"role": "user", "content": content}}))
    }

    /// Adds a prompt of the user.
    pub fn prompt(&mut self, text: &str) -> &mut Self {
        self.user(&text.into())
    }

    /// Adds a call of the model with one block.
    pub fn block(&mut self, block: &Value, stop: &str) -> &mut Self {
        let message = json!({
            "id": format!("msg-{}-{}", self.story.session, self.made), "role": "assistant", "model": "claude-sonnet-4-5-20250929",
            "content": [block], "stop_reason": stop, "usage": {"input_tokens": 1, "output_tokens": 1},
        });
        self.line(json!({"type": "assistant", "message": message}))
    }

    /// The model answers.
    pub fn answer(&mut self, text: &str) -> &mut Self {
        self.block(&json!({"type": "text", "text": text}), "end_turn")
    }

    /// The model calls a tool.
    pub fn call(&mut self) -> &mut Self {
        let id = format!("toolu-{}", self.made);
        self.block(&json!({"type": "tool_use", "id": id, "name": "Bash", "input": {"command": "ls"}}), "tool_use")
    }

    /// The result of the call before.
    pub fn result(&mut self, is_error: bool, denied: Option<&str>) -> &mut Self {
        let id = format!("toolu-{}", self.made - 1);
        let block =
            json!({"type": "tool_result", "tool_use_id": id, "content": "words of a tool", "is_error": is_error});
        let mut line = json!({"type": "user", "message": {"role": "user", "content": [block]}});
        if let Some(kind) = denied {
            line["toolDenialKind"] = kind.into();
        }
        self.line(line)
    }

    /// The user interrupts the turn.
    pub fn interrupted(&mut self) -> &mut Self {
        self.user(&json!([{"type": "text", "text": "[Request interrupted by user]"}]))
    }

    /// A request failed and is tried again.
    pub fn retry(&mut self, attempt: u64) -> &mut Self {
        let error = json!({"status": 529, "formatted": "529 Overloaded"});
        self.line(json!({"type": "system", "subtype": "api_error", "error": error, "retryAttempt": attempt}))
    }

    /// An API error takes the place of an answer.
    pub fn failed(&mut self) -> &mut Self {
        let content = json!([{"type": "text", "text": "API Error: 529 Overloaded"}]);
        let message = json!({"id": "none", "role": "assistant", "model": "<synthetic>", "content": content});
        self.line(json!({"type": "assistant", "isApiErrorMessage": true, "apiErrorStatus": 529, "message": message}))
    }
}
