//! Twelve terminals write, fork and resume sessions while the daemon is killed, frozen and replaced and the server
//! loses its answers: every call and every tool arrives once, in the session that made it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::OpenOptions,
    io::Write,
    path::PathBuf,
    sync::Mutex,
};

use rustix::process::Signal;
use serde_json::{Value, json};
use tests::{Answer, Daemon, Home, Random, Server, Span, tries};

const WRITERS: usize = 12;

/// Every `CHAOS`th turn, a daemon is stopped, frozen or killed.
const CHAOS: u64 = 12;

/// A session from its terminal's point of view.
#[derive(Clone)]
struct Session {
    id: String,
    path: PathBuf,
    cwd: PathBuf,
    lines: Vec<Value>,
    /// Counts through all sessions of a terminal, so that no two calls share an id.
    calls: u64,
}

/// A call as the API answered it: its session, its tokens, and the tool it called.
#[derive(Debug)]
struct Call {
    session: String,
    output: u64,
    tool: Option<String>,
}

impl Session {
    fn new(home: &Home, id: String) -> Self {
        let path = home.path().join(".claude/projects/-work").join(format!("{id}.jsonl"));
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        Self { id, path, cwd: home.project("work"), lines: Vec::new(), calls: 0 }
    }

    fn push(&mut self, kind: &str, message: Value, clock: &mut u64) {
        *clock += 1;
        let parent = self.lines.last().map(|line| line["uuid"].clone());
        let (hour, minute, second) = (*clock / 3_600_000, *clock / 60_000 % 60, *clock / 1000 % 60);
        self.lines.push(json!({
            "parentUuid": parent, "isSidechain": false, "type": kind, "message": message,
            "uuid": format!("{}-{}", self.id, self.lines.len()), "sessionId": self.id, "cwd": self.cwd, "version": "2.1.332",
            "timestamp": format!("2026-11-20T{hour:02}:{minute:02}:{second:02}.{:03}Z", *clock % 1000),
        }));
    }

    /// One answer of the model, which calls a tool unless it is the last of its turn.
    fn answer(&mut self, text: Option<&str>, clock: &mut u64) -> (String, Call) {
        self.calls += 1;
        let id = format!("msg_{}_{}", self.id, self.calls);
        let tool = text.is_none().then(|| format!("toolu_{}_{}", self.id, self.calls));
        let block = match (&tool, text) {
            (Some(tool), _) => json!({"type": "tool_use", "id": tool, "name": "Bash", "input": {"command": "ls"}}),
            (None, text) => json!({"type": "text", "text": text}),
        };
        let output = self.calls % 89 + 1;
        let message = json!({
            "id": id, "type": "message", "role": "assistant", "model": "claude-sonnet-4-5-20250929", "content": [block],
            "stop_reason": if tool.is_some() { "tool_use" } else { "end_turn" },
            "usage": {"input_tokens": 3, "output_tokens": output},
        });
        self.push("assistant", message, clock);
        if let Some(tool) = &tool {
            let result = json!([{"type": "tool_result", "tool_use_id": tool, "content": "a.txt"}]);
            self.push("user", json!({"role": "user", "content": result}), clock);
        }
        (id, Call { session: self.id.clone(), output, tool })
    }

    /// Appends the lines from `from` on to the transcript.
    fn write(&self, from: usize) {
        let mut file = OpenOptions::new().append(true).create(true).open(&self.path).expect("the transcript");
        let text: String = self.lines[from..].iter().map(|line| format!("{line}\n")).collect();
        file.write_all(text.as_bytes()).expect("written");
    }

    /// A new session that begins with a copy of this one.
    fn fork(&self, id: String) -> Self {
        let mut fork = Self { path: self.path.with_file_name(format!("{id}.jsonl")), id, ..self.clone() };
        for line in &mut fork.lines {
            line["forkedFrom"] = json!({"sessionId": line["sessionId"], "messageUuid": line["uuid"]});
            line["sessionId"] = json!(fork.id);
        }
        fork.write(0);
        fork
    }

    fn event(&self, name: &str, answer: Option<&str>) -> Value {
        json!({
            "session_id": self.id, "transcript_path": self.path, "cwd": self.cwd, "hook_event_name": name,
            "last_assistant_message": answer,
        })
    }
}

/// The home's daemon, and what happens to it.
struct Machine<'a> {
    home: &'a Home,
    daemon: Mutex<Option<Daemon>>,
}

impl Machine<'_> {
    fn suffer(&self, dice: &mut Random) {
        let mut place = self.daemon.lock().expect("not poisoned");
        let daemon = place.take().expect("a daemon");
        *place = Some(match dice.below(3) {
            0 => {
                daemon.kill();
                self.home.daemon()
            }
            1 => {
                assert!(daemon.terminate().success());
                self.home.daemon()
            }
            _ => {
                // Frozen while the other terminals continue, and then killed.
                daemon.signal(Signal::STOP);
                daemon.kill();
                self.home.daemon()
            }
        });
    }

    fn freeze(&self, work: impl FnOnce()) {
        let place = self.daemon.lock().expect("not poisoned");
        let daemon = place.as_ref().expect("a daemon");
        daemon.signal(Signal::STOP);
        work();
        daemon.signal(Signal::CONT);
    }
}

/// One terminal's work; returns the calls it made.
fn terminal(
    machine: &Machine<'_>,
    env: &[(String, String)],
    number: usize,
    turns: usize,
    seed: u64,
) -> BTreeMap<String, Call> {
    let mut dice = Random::new(seed * 1000 + number as u64);
    let mut calls = BTreeMap::new();
    let mut clock = 3_600_000 * (1 + number as u64);
    let name = |n: usize| format!("{seed}-{number}-{n}");
    let mut sessions = vec![Session::new(machine.home, name(0))];
    let mut at = 0;
    for turn in 0..turns {
        match dice.below(16) {
            0 => sessions.push(Session::new(machine.home, name(sessions.len()))),
            1 | 2 if !sessions[at].lines.is_empty() => {
                let fork = sessions[at].fork(name(sessions.len()));
                sessions.push(fork);
            }
            3 => {
                machine.home.hook(&sessions[at].event("SessionEnd", None), env);
            }
            _ => {}
        }
        // Sometimes it continues an earlier session.
        at = if dice.below(5) == 0 { dice.below(sessions.len() as u64) as usize } else { sessions.len() - 1 };
        let session = &mut sessions[at];
        let from = session.lines.len();
        let text = format!("answer {number} {turn}");
        session.push("user", json!({"role": "user", "content": format!("prompt {number} {turn}")}), &mut clock);
        for _ in 0..dice.below(5) {
            calls.extend([session.answer(None, &mut clock)]);
        }
        let late = session.lines.len();
        calls.extend([session.answer(Some(&text), &mut clock)]);
        // Claude Code runs its Stop hooks before it has written the last answer.
        let is_late = dice.below(2) == 0;
        let mut session_so_far = session.clone();
        if is_late {
            session_so_far.lines.truncate(late);
        }
        session_so_far.write(from);
        let stop = || {
            machine.home.hook(&session.event("Stop", Some(&text)), env);
        };
        match dice.below(CHAOS * 2) {
            0 | 1 => {
                machine.suffer(&mut dice);
                stop();
            }
            2 => machine.freeze(stop),
            // The hook was not registered, or was killed.
            3 | 4 => {}
            _ => stop(),
        }
        if is_late {
            session.write(late);
        }
    }
    for session in &sessions {
        machine.home.hook(&session.event("SessionEnd", None), env);
    }
    calls
}

#[test]
fn every_call_arrives_once_despite_kills_and_lost_answers() {
    let turns = tries(12, 160);
    let mut all = 0;
    for seed in 0..tries(1, 4) as u64 {
        let home = Home::new();
        let mut weather = Random::new(seed);
        let server = Server::answering(move |request| match weather.below(10) {
            _ if request.spans.is_empty() => Answer::ok(),
            0 => Answer::lost(),
            1 => Answer::broken(),
            2 => Answer::status(503),
            _ => Answer::ok(),
        });
        let env = server.env();
        home.settings("work", &env);
        let machine = Machine { home: &home, daemon: Mutex::new(Some(home.daemon())) };
        let calls: BTreeMap<String, Call> = std::thread::scope(|scope| {
            let write = |number| {
                let (machine, env) = (&machine, &env);
                scope.spawn(move || terminal(machine, env, number, turns, seed))
            };
            let writers: Vec<_> = (0..WRITERS).map(write).collect();
            writers.into_iter().flat_map(|writer| writer.join().expect("a terminal")).collect()
        });
        server.change(|_| Answer::ok());
        let flush = home.ctl(&["flush", "--timeout", "10m"]);
        assert!(flush.status.success(), "{flush:?}\n{}", home.log());
        judge(&calls, &server.spans());
        all += calls.len();
    }
    tests::say(&format!("{all} calls, each once"));
}

fn judge(calls: &BTreeMap<String, Call>, spans: &[Span]) {
    let mut by_id: BTreeMap<(&str, &str), &Span> = BTreeMap::new();
    for span in spans {
        let before = by_id.insert((&span.trace_id, &span.span_id), span);
        // A lost answer makes the same spans come again unchanged; a root comes again when its turn has grown.
        let same = before.is_none_or(|before| before == span || span.is_root());
        assert!(same, "{} was sent twice, and not the same", span.name);
    }
    let mut seen = BTreeSet::new();
    let mut tools = BTreeSet::new();
    for span in by_id.values() {
        assert!(span.is_root() || by_id.contains_key(&(&*span.trace_id, &*span.parent)), "{} is an orphan", span.name);
        match span.observation("type") {
            "generation" => {
                let id = span.observation("metadata.message_id");
                let call = calls.get(id).unwrap_or_else(|| panic!("nobody made {id}"));
                assert!(seen.insert(id), "{id} is there twice");
                assert_eq!(span.get("session.id"), call.session, "{id}");
                let usage: Value = serde_json::from_str(span.observation("usage_details")).expect("usage");
                assert_eq!((usage["input"].as_u64(), usage["output"].as_u64()), (Some(3), Some(call.output)), "{id}");
            }
            "tool" => assert!(tools.insert(span.observation("metadata.tool_id")), "{} is there twice", span.name),
            _ => {}
        }
    }
    let missing: Vec<_> = calls.keys().filter(|id| !seen.contains(id.as_str())).collect();
    assert!(
        missing.is_empty(),
        "{} of {} calls are missing: {:?}",
        missing.len(),
        calls.len(),
        &missing[..missing.len().min(9)]
    );
    let called: BTreeSet<&str> = calls.values().filter_map(|call| call.tool.as_deref()).collect();
    assert_eq!(tools, called);
}
