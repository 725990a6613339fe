//! Generates transcripts of any size.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
};

/// Which kinds of lines a transcript has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mix {
    /// The line mix of Claude Code 2.1.329: most bytes are `api-request*` and `attachment` lines.
    ClaudeCode,
    /// Prompts, answers and tool results only.
    Conversation,
}

/// Writes a transcript of about `bytes` bytes to `path`; returns the number of its turns.
///
/// # Errors
/// If the file cannot be written.
pub(crate) fn transcript(path: &Path, bytes: u64, mix: Mix) -> io::Result<u32> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let (mut written, mut turns) = (0, 0);
    while written < bytes {
        let text = turn(turns, mix);
        out.write_all(text.as_bytes())?;
        written += text.len() as u64;
        turns += 1;
    }
    out.flush()?;
    Ok(turns)
}

/// One turn of two calls and one tool, numbered from 0.
pub(crate) fn turn(number: u32, mix: Mix) -> String {
    let mut turn = Writer { number, line: 0, parent: "null".into(), out: String::new() };
    let prose = PROSE.replace('"', "\\\"").replace('\n', "\\n");
    turn.envelope(
        "user",
        &format!(
            r#""promptId":"p{number}","message":{{"role":"user","content":"Please look at {}"}}"#,
            prose.repeat(3)
        ),
    );
    if mix == Mix::ClaudeCode {
        turn.attachment("environment", 1200);
        turn.attachment("skill_listing", 9000);
        turn.attachment("prompt_snapshot", 60_000);
    }
    for call in 0..2 {
        if mix == Mix::ClaudeCode {
            if number.is_multiple_of(4) && call == 0 {
                turn.bookkeeping("api-request-shape", 71_000);
            }
            turn.bookkeeping("api-request-blob", 6000);
            let request = format!(
                r#"{{"type":"api-request","sessionId":"s","id":"r{number}-{call}","timestamp":"{}","tail":["{}"]}}"#,
                turn.time(),
                "ab".repeat(1500)
            );
            turn.push(&request);
        }
        let usage = r#"{"input_tokens":12,"output_tokens":214,"cache_read_input_tokens":18230,"cache_creation_input_tokens":3120,"cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":3120},"service_tier":"standard"}"#;
        let answer = |block: &str, stop: &str| {
            format!(
                r#""requestId":"req{number}-{call}","requestRef":"r{number}-{call}","message":{{"id":"msg{number}-{call}","type":"message","role":"assistant","model":"claude-sonnet-4-5-20250929","content":[{block}],"stop_reason":"{stop}","usage":{usage}}}"#
            )
        };
        if call == 0 {
            turn.envelope(
                "assistant",
                &answer(
                    &format!(
                        r#"{{"type":"thinking","thinking":"{}","signature":"{}"}}"#,
                        prose.repeat(4),
                        "c2ln".repeat(90)
                    ),
                    "tool_use",
                ),
            );
            turn.envelope("assistant", &answer(&format!(r#"{{"type":"tool_use","id":"tool{number}","name":"Bash","input":{{"command":"sed -n 1,200p src/slice.rs"}}}}"#), "tool_use"));
            let output = "    pub fn slice_end(&self) -> usize {\\n        self.start + self.len // the end\\n    }\\n"
                .repeat(30);
            turn.envelope("user", &format!(r#""message":{{"role":"user","content":[{{"tool_use_id":"tool{number}","type":"tool_result","content":"{output}","is_error":false}}]}},"toolUseResult":{{"stdout":"{output}","stderr":""}}"#));
        } else {
            turn.envelope(
                "assistant",
                &answer(&format!(r#"{{"type":"text","text":"{}"}}"#, prose.repeat(6)), "end_turn"),
            );
        }
    }
    if mix == Mix::ClaudeCode {
        turn.envelope("system", r#""subtype":"stop_hook_summary","hookCount":1"#);
        turn.bookkeeping("last-prompt", 200);
    }
    turn.out
}

struct Writer {
    number: u32,
    line: u32,
    parent: String,
    out: String,
}

impl Writer {
    fn time(&self) -> String {
        let second = u64::from(self.number) * 20 + u64::from(self.line);
        let (day, rest) = (second / 86_400, second % 86_400);
        format!(
            "2026-{:02}-{:02}T{:02}:{:02}:{:02}.000Z",
            1 + day / 28 % 12,
            1 + day % 28,
            rest / 3600,
            rest / 60 % 60,
            rest % 60
        )
    }

    fn uuid(&self) -> String {
        format!("{:08x}-{:04x}-4000-8000-000000000000", self.number, self.line)
    }

    fn push(&mut self, line: &str) {
        self.out.push_str(line);
        self.out.push('\n');
        self.line += 1;
    }

    fn envelope(&mut self, kind: &str, rest: &str) {
        let uuid = self.uuid();
        let line = format!(
            r#"{{"parentUuid":{},"isSidechain":false,{rest},"type":"{kind}","uuid":"{uuid}","timestamp":"{}","userType":"external","cwd":"/home/you/project","sessionId":"s","version":"2.1.329","gitBranch":"main"}}"#,
            self.parent,
            self.time()
        );
        self.push(&line);
        self.parent = format!("\"{uuid}\"");
    }

    fn attachment(&mut self, kind: &str, bytes: usize) {
        self.envelope(
            "attachment",
            &format!(r#""attachment":{{"type":"{kind}","text":"{}"}}"#, "lorem ipsum ".repeat(bytes / 12)),
        );
    }

    fn bookkeeping(&mut self, kind: &str, bytes: usize) {
        let line = format!(r#"{{"type":"{kind}","sessionId":"s","content":"{}"}}"#, "lorem ipsum ".repeat(bytes / 12));
        self.push(&line);
    }
}

const PROSE: &str = "The range left out the last element, so \"slice_end\" was wrong.\nNow it is right. ";

/// The answer that ends every turn, as Claude Code gives it to a Stop hook.
pub(crate) fn answer() -> String {
    PROSE.repeat(6).trim().to_owned()
}
