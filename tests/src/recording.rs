//! Recorded sessions of the real Claude Code against a scripted API, replayed at their own pace.
//!
//! At each hook only the lines are on disk that were there when it fired; the rest of the step follows 90 ms later, as
//! recorded. That delay matters: it is the race that the daemon must win. Other transcripts, of subagents and earlier
//! sessions, have the lines that were written by then according to their own times.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;

use crate::{Answer, Home, Server, Span};

/// How long after a hook Claude Code wrote the missing lines.
const REST_AFTER: Duration = Duration::from_millis(90);

/// The hooks that are run; the others only show how far the transcript had grown.
const CALLED: [&str; 4] = ["Stop", "SessionEnd", "StopFailure", "SubagentStop"];

/// The home in which the recording was made.
const HOME: &str = "/home/dev";

/// What goes wrong during a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Plain,
    /// The daemon is killed after every hook.
    Restart,
    /// The server answers 503 until the recording is over.
    Outage,
    /// The daemon is started only when the recording is over.
    Away,
}

#[derive(Debug)]
pub struct Recording {
    pub name: String,
    files: Vec<File>,
    hooks: Vec<Hook>,
    calls: Vec<Value>,
}

/// A complete transcript.
#[derive(Debug)]
struct File {
    /// Its path below the home.
    relative: PathBuf,
    text: String,
    /// The `.meta.json` beside it.
    meta: Option<String>,
}

#[derive(Debug)]
struct Hook {
    event: String,
    /// The length of the session's transcript.
    lines: Option<usize>,
    at: Option<String>,
    payload: Value,
}

/// Replaces the tool call of a subagent that a prompt launched.
pub const THE_TURN: &str = "the turn";

/// Token counts: input, output, cache read, cache written for 5 minutes, for an hour.
pub type Tokens = [u64; 5];

/// What must arrive of a recording.
#[derive(Debug, Default)]
pub struct Truth {
    /// Every successful model call with a line that a turn or its subagents made.
    pub calls: BTreeMap<String, Call>,
    /// Truncated calls with a line: they may arrive, with the tokens that were known.
    pub cut: Vec<String>,
    /// The purposes of successful calls without a line.
    pub unseen: Vec<String>,
    pub tools: BTreeMap<String, Tool>,
    /// The last answer of each session.
    pub last_answers: Vec<String>,
    /// A complete turn grew: a Stop hook made the model continue, something worked in the background, or the session
    /// was compacted.
    pub grows: bool,
    /// Calls whose lines are in more than one session's transcript.
    pub copied: BTreeSet<String>,
    /// The version of Claude Code.
    pub version: String,
}

/// A model call.
#[derive(Debug)]
pub struct Call {
    /// Its tokens, as the API counted them.
    pub tokens: Tokens,
    /// No line has the final output count that the API sent; `tokens` has the best count of any line.
    pub is_placeholder: bool,
    /// The tool call that launched the subagent that made it; `None` if the turn itself made it.
    pub below: Option<String>,
    /// The session that made it.
    pub session: Option<String>,
    /// The session that `session` was forked from, if the transcript names it.
    pub forked_from: Option<String>,
}

/// A tool call.
#[derive(Debug)]
pub struct Tool {
    /// The model call that asked for it.
    pub message: String,
    /// It failed, or never returned.
    pub failed: bool,
}

/// The facts of one model call in the transcripts.
#[derive(Debug, Default)]
struct Seen {
    tools: Vec<String>,
    output: u64,
    agent: Option<String>,
    /// How many messages had woken the subagent before.
    woken: usize,
    sessions: BTreeSet<String>,
}

impl Truth {
    /// True for versions that write lines before the length of the answer is known.
    pub fn keeps_placeholders(&self) -> bool {
        let parts: Vec<u32> = self.version.split('.').map(|part| part.parse().expect("a number")).collect();
        parts < vec![2, 1, 120]
    }
}

impl File {
    fn lines(&self) -> impl Iterator<Item = Value> {
        self.text.lines().map(|line| serde_json::from_str(line).expect("a line"))
    }

    /// How many lines were written by then. All times have the same form.
    fn lines_at(&self, at: &str) -> usize {
        self.lines().position(|line| text(&line, "timestamp") > at).unwrap_or_else(|| self.text.lines().count())
    }

    fn session(&self) -> String {
        self.relative.file_stem().expect("a name").to_string_lossy().into_owned()
    }

    /// The workflow run it belongs to.
    fn run(&self) -> Option<String> {
        let dir =
            self.relative.parent().filter(|dir| dir.parent().is_some_and(|above| above.ends_with("workflows")))?;
        Some(dir.file_name()?.to_string_lossy().into_owned())
    }

    /// The subagent whose transcript it is.
    fn agent(&self) -> Option<String> {
        self.session().strip_prefix("agent-").map(str::to_owned)
    }
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_default()
}

fn blocks(line: &Value) -> impl Iterator<Item = &Value> {
    line["message"]["content"].as_array().into_iter().flatten()
}

/// The text of a user's line.
fn said(line: &Value) -> String {
    let content = &line["message"]["content"];
    content.as_str().map_or_else(|| blocks(line).map(|block| text(block, "text")).collect(), str::to_owned)
}

impl Recording {
    /// Every recording, by name.
    pub fn all() -> Vec<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
        let entries = fs::read_dir(root).expect("fixtures").map(|entry| entry.expect("an entry"));
        let dirs = entries.filter(|entry| entry.path().is_dir());
        let mut names: Vec<String> = dirs.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names.iter().map(|name| Self::load(name)).collect()
    }

    /// The recording `name`.
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
                    at: hook["at"].as_str().map(str::to_owned),
                    payload: hook["stdin"].take(),
                }
            })
            .collect();
        let mut paths = Vec::new();
        transcripts(&dir.join("projects"), &mut paths);
        paths.sort();
        let files = paths.iter().map(|path| File {
            relative: Path::new(".claude").join(path.strip_prefix(&dir).expect("beneath")),
            text: read(path),
            meta: fs::read_to_string(path.with_extension("meta.json")).ok(),
        });
        let calls: Vec<Value> = serde_json::from_str(&read(&dir.join("calls.json"))).expect("calls");
        Self { name: name.to_owned(), files: files.collect(), hooks, calls }
    }

    /// The complete transcripts of its sessions, each with its path.
    pub fn sessions(&self) -> Vec<PathBuf> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(&self.name);
        let is_own = |file: &&File| file.agent().is_none() && file.run().is_none() && !file.text.is_empty();
        let own = self.files.iter().filter(is_own);
        own.map(|file| dir.join(file.relative.strip_prefix(".claude").expect("in .claude"))).collect()
    }

    /// What must arrive, from what the API sent and the transcripts show.
    pub fn truth(&self) -> Truth {
        let mut truth = Truth::default();
        let mut failed = BTreeMap::new();
        let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
        for file in &self.files {
            // A forked agent's file begins with a line of the conversation that was forked.
            let mut inherits = false;
            let mut woken = 0;
            for line in file.lines() {
                match text(&line, "type") {
                    "fork-context-ref" => inherits = true,
                    "user" => inherits = false,
                    _ if inherits => continue,
                    _ => {}
                }
                woken += usize::from(line["origin"]["kind"] == "coordinator");
                if truth.version.is_empty() {
                    text(&line, "version").clone_into(&mut truth.version);
                }
                for block in blocks(&line).filter(|block| block["type"] == "tool_result") {
                    failed.entry(text(block, "tool_use_id").to_owned()).or_insert(block["is_error"] == true);
                }
                if line["type"] != "assistant" || line["message"]["model"] == "<synthetic>" {
                    continue;
                }
                let message = seen.entry(text(&line["message"], "id").to_owned()).or_default();
                let tools = blocks(&line).filter(|block| block["type"] == "tool_use").map(|block| text(block, "id"));
                for tool in tools {
                    if !message.tools.iter().any(|known| known == tool) {
                        message.tools.push(tool.to_owned());
                    }
                }
                message.output = message.output.max(line["message"]["usage"]["output_tokens"].as_u64().unwrap_or(0));
                message.agent = file.agent();
                message.woken = woken;
                if file.agent().is_none() {
                    message.sessions.insert(file.session());
                }
            }
        }
        let launched_by = self.launches();
        let woken_by = self.messages();
        let inline = self.inline();
        for call in &self.calls {
            let id = text(call, "message_id");
            let Some(message) = seen.get(id) else {
                if call["status"] == "ok" {
                    truth.unseen.push(text(call, "purpose").to_owned());
                }
                continue;
            };
            let below = match &message.agent {
                Some(agent) => match launched_by.get(agent) {
                    // No turn asked for it.
                    None => continue,
                    Some(_) if message.woken > 0 => Some(woken_by[agent][message.woken - 1].clone()),
                    Some(tool) => Some(tool.clone()),
                },
                None => inline.get(id).cloned(),
            };
            for tool in &message.tools {
                // One that never returned has failed, too.
                let failed = failed.get(tool) != Some(&false);
                truth.tools.insert(tool.clone(), Tool { message: id.to_owned(), failed });
            }
            if call["status"] != "ok" {
                truth.cut.push(id.to_owned());
                continue;
            }
            let usage = &call["usage"];
            let mut tokens = [
                &usage["input_tokens"],
                &usage["output_tokens"],
                &usage["cache_read_input_tokens"],
                &usage["cache_creation"]["ephemeral_5m_input_tokens"],
                &usage["cache_creation"]["ephemeral_1h_input_tokens"],
            ]
            .map(|count| count.as_u64().unwrap_or(0));
            let is_placeholder = message.output < tokens[1];
            tokens[1] = message.output;
            let session = call["session_id"].as_str().map(str::to_owned);
            let forked_from = session.as_ref().and_then(|session| self.origin(session));
            if message.sessions.len() > 1 {
                truth.copied.insert(id.to_owned());
            }
            truth.calls.insert(id.to_owned(), Call { tokens, is_placeholder, below, session, forked_from });
        }
        let stops = || self.hooks.iter().filter(|hook| hook.event == "Stop" && hook.payload["agent_id"].is_null());
        truth.grows = stops().any(|hook| {
            let waits = hook.payload["background_tasks"].as_array().is_some_and(|tasks| !tasks.is_empty());
            waits || hook.payload["stop_hook_active"] == true
        }) || self.name == "stopblock"
            || self.hooks.iter().any(|hook| hook.event == "PreCompact");
        let answers: BTreeMap<&str, &str> = stops()
            .filter_map(|hook| {
                Some((text(&hook.payload, "session_id"), hook.payload["last_assistant_message"].as_str()?))
            })
            .collect();
        truth.last_answers = answers.into_values().map(str::to_owned).collect();
        truth
    }

    /// The tool call that launched each subagent with its own transcript.
    fn launches(&self) -> BTreeMap<String, String> {
        let (mut launches, mut runs) = (BTreeMap::new(), BTreeMap::new());
        // Prompts that name a skill, which ran without a model call.
        let mut skills = BTreeSet::new();
        for file in self.files.iter().filter(|file| file.agent().is_none()) {
            let asked: BTreeMap<_, _> = file
                .lines()
                .filter(|line| said(line).starts_with('/'))
                .map(|line| (text(&line, "uuid").to_owned(), text(&line, "promptId").to_owned()))
                .collect();
            let ran = file.lines().filter(|line| line["subtype"] == "local_command");
            skills.extend(ran.filter_map(|line| asked.get(text(&line, "parentUuid")).cloned()));
        }
        for file in &self.files {
            for line in file.lines() {
                let Some(result) = blocks(&line).find(|block| block["type"] == "tool_result") else { continue };
                for (key, found) in [("agentId", &mut launches), ("runId", &mut runs)] {
                    if let Some(id) = line["toolUseResult"][key].as_str() {
                        found.insert(id.to_owned(), text(result, "tool_use_id").to_owned());
                    }
                }
            }
            let meta: Value =
                file.meta.as_deref().map_or(Value::Null, |meta| serde_json::from_str(meta).expect("meta"));
            if let (Some(agent), Some(tool)) = (file.agent(), meta["toolUseId"].as_str()) {
                launches.insert(agent, tool.to_owned());
            }
        }
        for file in &self.files {
            let direct =
                || Some(file.lines().next()?["promptId"].as_str()?.to_owned()).filter(|id| skills.contains(id));
            if let Some(agent) = file.agent().filter(|agent| !launches.contains_key(agent))
                && direct().is_some()
            {
                launches.insert(agent, THE_TURN.to_owned());
            }
            if let (Some(agent), Some(tool)) = (file.agent(), file.run().and_then(|run| runs.get(&run))) {
                launches.insert(agent, tool.clone());
            }
        }
        launches
    }

    /// The calls that woke each subagent by a message, in order.
    fn messages(&self) -> BTreeMap<String, Vec<String>> {
        let mut messages: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in self.files.iter().flat_map(File::lines) {
            if let Some(agent) = line["toolUseResult"]["resumedAgentId"].as_str()
                && let Some(result) = blocks(&line).find(|block| block["type"] == "tool_result")
            {
                messages.entry(agent.to_owned()).or_default().push(text(result, "tool_use_id").to_owned());
            }
        }
        messages
    }

    /// The tool call that launched the subagent of each model call whose lines are in the session's own file.
    fn inline(&self) -> BTreeMap<String, String> {
        let mut orders: Vec<(String, String)> = Vec::new();
        let mut sides: BTreeMap<String, String> = BTreeMap::new();
        let mut inline = BTreeMap::new();
        for line in self.files.iter().filter(|file| file.agent().is_none()).flat_map(File::lines) {
            for block in blocks(&line).filter(|block| block["input"]["prompt"].is_string()) {
                orders.push((text(&block["input"], "prompt").to_owned(), text(block, "id").to_owned()));
            }
            if line["isSidechain"] != true {
                continue;
            }
            let above = sides.get(text(&line, "parentUuid")).cloned();
            let asked = said(&line);
            let order = || orders.iter().find(|(prompt, _)| *prompt == asked).map(|(_, tool)| tool.clone());
            let tool = above.or_else(order).expect("a launched subagent");
            sides.insert(text(&line, "uuid").to_owned(), tool.clone());
            if line["type"] == "assistant" {
                inline.insert(text(&line["message"], "id").to_owned(), tool);
            }
        }
        inline
    }

    /// The session that `session` was forked from, if its transcript names it.
    fn origin(&self, session: &str) -> Option<String> {
        let file = self.files.iter().find(|file| file.session() == session)?;
        file.lines().find_map(|line| {
            let from = line["forkedFrom"]["sessionId"].as_str().or_else(|| line["requestSessionId"].as_str());
            from.filter(|from| *from != session).map(str::to_owned)
        })
    }

    /// Writes all of its files in `home`, as they were in the end. Returns the transcripts of its sessions.
    pub fn write_in(&self, home: &Home) -> Vec<PathBuf> {
        let here = home.path().to_str().expect("UTF-8");
        let mut sessions = Vec::new();
        for file in &self.files {
            let relative = home.path().join(&file.relative);
            grow(
                &File { relative: relative.clone(), text: file.text.replace(HOME, here), meta: file.meta.clone() },
                usize::MAX,
            );
            if file.agent().is_none() && file.run().is_none() && !file.text.is_empty() {
                sessions.push(relative);
            }
        }
        sessions
    }

    /// Plays the recording through the real programs; what the server has stored in the end.
    pub fn play(&self, mode: Mode) -> Vec<Span> {
        let server = match mode {
            Mode::Outage => Server::answering(|_| Answer::status(503).header("retry-after", "0")),
            _ => Server::new(),
        };
        self.play_in(&Home::new(), &server.env(), mode, || server.change(|_| Answer::ok()));
        server.spans()
    }

    /// Replays the recording in `home`, with destinations from `env`. `at_last` runs before the final flush.
    pub fn play_in(&self, home: &Home, env: &[(String, String)], mode: Mode, at_last: impl FnOnce()) {
        let here = home.path().to_str().expect("UTF-8").to_owned();
        home.settings("project", env);
        let there = |file: &File| File {
            relative: home.path().join(&file.relative),
            text: file.text.replace(HOME, &here),
            meta: file.meta.clone(),
        };
        let files: Vec<File> = self.files.iter().map(there).collect();
        let mut daemon = (mode != Mode::Away).then(|| home.daemon());
        for (index, hook) in self.hooks.iter().enumerate() {
            let path = hook.payload["transcript_path"].as_str().expect("a transcript");
            let path = Path::new(path).strip_prefix(HOME).expect("beneath the home");
            let (own, others): (Vec<&File>, _) = files.iter().partition(|file| file.relative.ends_with(path));
            if let Some(lines) = hook.lines {
                own.iter().for_each(|file| grow(file, lines));
            }
            if let Some(at) = &hook.at {
                others.iter().for_each(|file| grow(file, file.lines_at(at)));
            }
            if !CALLED.contains(&hook.event.as_str()) {
                continue;
            }
            let payload = hook.payload.to_string().replace(HOME, &here);
            home.hook_with(payload.as_bytes(), env);
            if mode != Mode::Away {
                std::thread::sleep(REST_AFTER);
            }
            let session =
                |hook: &&Hook| hook.payload["transcript_path"] == self.hooks[index].payload["transcript_path"];
            let later = self.hooks[index + 1..].iter().filter(session).find_map(|hook| hook.lines);
            own.iter().for_each(|file| grow(file, later.unwrap_or(usize::MAX)));
            if mode == Mode::Restart {
                daemon.take().expect("it runs").kill();
                daemon = Some(home.daemon());
            }
        }
        files.iter().for_each(|file| grow(file, usize::MAX));
        at_last();
        let daemon = daemon.unwrap_or_else(|| home.daemon());
        home.flush();
        assert!(daemon.terminate().success(), "{}", home.log());
    }
}

fn transcripts(dir: &Path, found: &mut Vec<PathBuf>) {
    for path in fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path()) {
        if path.is_dir() {
            transcripts(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "jsonl") {
            found.push(path);
        }
    }
}

/// Appends to the file until it has its first `lines` lines, and writes the file beside it.
fn grow(file: &File, lines: usize) {
    use std::io::Write;
    if lines == 0 {
        return;
    }
    let length: usize = file.text.split_inclusive('\n').take(lines).map(str::len).sum();
    fs::create_dir_all(file.relative.parent().expect("a parent")).expect("a directory");
    let mut to = fs::OpenOptions::new().append(true).create(true).open(&file.relative).expect("the transcript");
    let there = to.metadata().expect("metadata").len() as usize;
    if there < length {
        to.write_all(&file.text.as_bytes()[there..length]).expect("written");
    }
    if let Some(meta) = &file.meta {
        // The end of a subagent is written last.
        let meta = if length == file.text.len() { meta.clone() } else { meta.replace(",\"finished\":true", "") };
        fs::write(file.relative.with_extension("meta.json"), meta).expect("written");
    }
}
