//! Recorded sessions of the real Claude Code against a scripted API, played again at their own pace.
//!
//! At each hook only those lines are on disk that were there when it fired; the rest of the step follows 90 ms later, as it
//! did. That delay is part of the recording: it is the race that the daemon has to win.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;

use crate::{Answer, Home, Server, Span};

/// How long after a hook Claude Code wrote what was missing.
const REST_AFTER: Duration = Duration::from_millis(90);

/// Hooks that are called; the others only say how far the transcript had grown.
const CALLED: [&str; 4] = ["Stop", "SessionEnd", "StopFailure", "SubagentStop"];

/// The home the recording was made in.
const HOME: &str = "/home/dev";

/// What goes wrong during a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing.
    Plain,
    /// The daemon is killed after every hook.
    Restart,
    /// The server answers 503 until everything has happened.
    Outage,
}

/// A recording.
#[derive(Debug)]
pub struct Recording {
    /// Its name.
    pub name: String,
    transcript: String,
    relative: PathBuf,
    hooks: Vec<Hook>,
    calls: Vec<Value>,
}

#[derive(Debug)]
struct Hook {
    event: String,
    lines: Option<usize>,
    payload: Value,
}

/// Token counts: input, output, cache read, cache written for 5 minutes, for an hour.
pub type Tokens = [u64; 5];

/// What must arrive.
#[derive(Debug, Default)]
pub struct Truth {
    /// Tokens of every successful model call of the conversation that left a line.
    pub calls: BTreeMap<String, Tokens>,
    /// Calls that were cut short but left a line: they may arrive, with whatever tokens were known.
    pub cut: Vec<String>,
    /// Tool calls, and whether they failed.
    pub tools: BTreeMap<String, bool>,
    /// What the model said last.
    pub last_answer: Option<String>,
    /// A Stop hook made the model go on, so that a turn that was complete is not any more.
    pub grows: bool,
}

impl Recording {
    /// Every recording there is, by name.
    pub fn all() -> Vec<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
        let mut names: Vec<String> = fs::read_dir(root)
            .expect("fixtures")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names.iter().map(|name| Self::load(name)).collect()
    }

    /// The recording called `name`.
    pub fn load(name: &str) -> Self {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name);
        let read = |path: &Path| fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let hooks = read(&dir.join("hooks.jsonl"));
        let hooks: Vec<Hook> = hooks
            .lines()
            .map(|line| {
                let mut hook: Value = serde_json::from_str(line).expect("a hook");
                Hook {
                    event: hook["event"].as_str().expect("an event").to_owned(),
                    lines: hook["transcript_lines"].as_u64().map(|lines| lines as usize),
                    payload: hook["stdin"].take(),
                }
            })
            .collect();
        let path = hooks[0].payload["transcript_path"].as_str().expect("a transcript");
        let relative = Path::new(path).strip_prefix(HOME).expect("beneath the home").to_path_buf();
        let calls: Vec<Value> = serde_json::from_str(&read(&dir.join("calls.json"))).expect("calls");
        Self {
            name: name.to_owned(),
            transcript: read(&dir.join(relative.strip_prefix(".claude").expect("in .claude"))),
            relative,
            hooks,
            calls,
        }
    }

    /// What must arrive, from what the API sent and what the transcript shows of it.
    pub fn truth(&self) -> Truth {
        let mut truth = Truth::default();
        let mut failed = BTreeMap::new();
        let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in self.transcript.lines() {
            let line: Value = serde_json::from_str(line).expect("a line");
            let message = &line["message"];
            for block in message["content"].as_array().into_iter().flatten() {
                let id = |key: &str| block[key].as_str().unwrap_or_default().to_owned();
                if line["type"] == "assistant" {
                    let tools = seen.entry(message["id"].as_str().unwrap_or_default().to_owned()).or_default();
                    if block["type"] == "tool_use" {
                        tools.push(id("id"));
                    }
                } else if block["type"] == "tool_result" {
                    failed.insert(id("tool_use_id"), block["is_error"] == true);
                }
            }
        }
        for call in self.calls.iter().filter(|call| call["purpose"] == "main") {
            let Some((id, tools)) = call["message_id"].as_str().and_then(|id| seen.get_key_value(id)) else { continue };
            truth.tools.extend(tools.iter().map(|tool| (tool.clone(), failed.get(tool) == Some(&true))));
            if call["status"] != "ok" {
                truth.cut.push(id.clone());
                continue;
            }
            let usage = &call["usage"];
            let tokens = [
                &usage["input_tokens"],
                &usage["output_tokens"],
                &usage["cache_read_input_tokens"],
                &usage["cache_creation"]["ephemeral_5m_input_tokens"],
                &usage["cache_creation"]["ephemeral_1h_input_tokens"],
            ];
            truth.calls.insert(id.clone(), tokens.map(|count| count.as_u64().unwrap_or(0)));
        }
        let stops = self.hooks.iter().filter(|hook| hook.event == "Stop" && hook.payload["agent_id"].is_null());
        truth.grows = self.name == "stopblock";
        truth.last_answer =
            stops.filter_map(|hook| hook.payload["last_assistant_message"].as_str()).next_back().map(str::to_owned);
        truth
    }

    /// Plays the recording through the real programs; what the server has stored in the end.
    pub fn play(&self, mode: Mode) -> Vec<Span> {
        let home = Home::new();
        let here = home.path().to_str().expect("UTF-8").to_owned();
        let server = match mode {
            Mode::Outage => Server::answering(|_| Answer::status(503).header("retry-after", "0")),
            _ => Server::new(),
        };
        let env = server.env();
        home.settings("project", &env);
        let transcript = self.transcript.replace(HOME, &here);
        let path = home.path().join(&self.relative);
        let mut daemon = home.daemon();
        for (index, hook) in self.hooks.iter().enumerate() {
            if let Some(lines) = hook.lines {
                grow(&path, &transcript, lines);
            }
            if !CALLED.contains(&hook.event.as_str()) {
                continue;
            }
            let payload = hook.payload.to_string().replace(HOME, &here);
            home.hook_with(payload.as_bytes(), &env);
            std::thread::sleep(REST_AFTER);
            grow(&path, &transcript, self.hooks[index + 1..].iter().find_map(|hook| hook.lines).unwrap_or(usize::MAX));
            if mode == Mode::Restart {
                daemon.kill();
                daemon = home.daemon();
            }
        }
        server.change(|_| Answer::ok());
        home.flush();
        assert!(daemon.terminate().success(), "{}", home.log());
        server.spans()
    }
}

/// Appends to the file until it holds the first `lines` lines of `transcript`.
fn grow(path: &Path, transcript: &str, lines: usize) {
    let length: usize = transcript.split_inclusive('\n').take(lines).map(str::len).sum();
    fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
    let mut file = fs::OpenOptions::new().append(true).create(true).open(path).expect("the transcript");
    let there = file.metadata().expect("metadata").len() as usize;
    if there < length {
        use std::io::Write;
        file.write_all(&transcript.as_bytes()[there..length]).expect("written");
    }
}
