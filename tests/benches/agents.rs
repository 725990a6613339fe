//! What a line costs that one of many subagents at work appends.
//!
//! `cargo bench -p tests --bench agents` prints the daemon's processor time for a line beside 10, 200 and 1,000 subagents.

#![allow(clippy::print_stdout, clippy::expect_used, reason = "a benchmark prints")]

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

#[path = "../src/release.rs"]
#[allow(dead_code, reason = "each benchmark needs a part of it")]
mod release;

use release::Release;

/// How many lines are appended, by one subagent after the other.
const LINES: usize = 400;

/// Claude Code writes a few lines a second; they must not all be read at one look.
const PAUSE: Duration = Duration::from_millis(20);

fn main() {
    if !release::wanted() {
        return;
    }
    let mut first = None;
    for count in [10, 200, 1000] {
        let each = line(count);
        let base = *first.get_or_insert(each);
        println!("a line beside {count:>4} subagents      {each:>8.2} ms CPU × {:.2}", each / base);
    }
}

/// Milliseconds of processor time for a line of one of `count` subagents.
fn line(count: usize) -> f64 {
    let url = release::server(|| ());
    let daemon = Release::start();
    // Where only an event's environment turns tracing on, nothing is read before the next event.
    let env: serde_json::Map<String, Value> =
        release::env(&url).map(|(name, value)| (name, value.into())).into_iter().collect();
    fs::create_dir_all(daemon.home.path().join(".claude")).expect("a directory");
    fs::write(daemon.home.path().join(".claude/settings.json"), json!({"env": env}).to_string()).expect("a file");
    let main = daemon.transcript("main");
    let agents = main.with_extension("").join("subagents");
    fs::create_dir_all(&agents).expect("a directory");
    append(&main, &[entry(0, "user", json!("go"))]);
    for agent in 0..count {
        append(&main, &launch(agent));
        fs::write(
            agents.join(format!("agent-{agent}.meta.json")),
            json!({"toolUseId": format!("t{agent}")}).to_string(),
        )
        .expect("a file");
        append(&transcript(&agents, agent), &[entry(agent, "user", json!(format!("task {agent}")))]);
    }
    let payload = json!({
        "session_id": "main", "transcript_path": main, "cwd": daemon.home.path(), "hook_event_name": "PostToolUse",
    });
    let mut hook = daemon.command("cc-langfuse-hook");
    let mut hook = hook.envs(release::env(&url)).stdin(Stdio::piped()).spawn().expect("the hook");
    hook.stdin.take().expect("stdin").write_all(payload.to_string().as_bytes()).expect("stdin");
    assert!(hook.wait().expect("the hook").success());
    let before = at_rest(&daemon);
    for number in 0..LINES {
        append(&transcript(&agents, number % count), &[call(number)]);
        std::thread::sleep(PAUSE);
    }
    (at_rest(&daemon) - before) * 1e3 / LINES as f64
}

/// The processor time of the daemon once it has had nothing to do for a while.
fn at_rest(daemon: &Release) -> f64 {
    let (mut cpu, mut since) = (daemon.cpu(), Instant::now());
    while since.elapsed() < Duration::from_millis(700) {
        std::thread::sleep(PAUSE);
        if daemon.cpu() > cpu {
            (cpu, since) = (daemon.cpu(), Instant::now());
        }
    }
    cpu
}

fn transcript(dir: &Path, agent: usize) -> PathBuf {
    dir.join(format!("agent-{agent}.jsonl"))
}

fn append(path: &Path, lines: &[Value]) {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let mut file = OpenOptions::new().append(true).create(true).open(path).expect("a file");
    file.write_all(text.as_bytes()).expect("written");
}

fn entry(number: usize, kind: &str, content: Value) -> Value {
    json!({
        "type": kind, "uuid": format!("{kind}-{number}"), "sessionId": "main", "version": "2.1.332",
        "timestamp": "2026-01-01T00:00:00.000Z", "message": {"role": kind, "content": content},
    })
}

/// The call that launches a subagent in the background, and its result.
fn launch(agent: usize) -> [Value; 2] {
    let tool = format!("t{agent}");
    let input = json!({"description": "look", "prompt": format!("task {agent}"), "run_in_background": true});
    let block = json!({"type": "tool_use", "id": tool, "name": "Agent", "input": input});
    let mut call = entry(agent, "assistant", json!([block]));
    call["message"]["id"] = json!(format!("launch-{agent}"));
    let mut result =
        entry(agent + 1_000_000, "user", json!([{"type": "tool_result", "tool_use_id": tool, "content": "started"}]));
    result["toolUseResult"] = json!({"isAsync": true, "status": "async_launched", "agentId": agent.to_string()});
    [call, result]
}

/// A line of a call that has not ended.
fn call(number: usize) -> Value {
    let mut line = entry(number, "assistant", json!([{"type": "text", "text": "still at it"}]));
    line["message"]["id"] = json!(format!("call-{number}"));
    line["message"]["usage"] = json!({"input_tokens": 1, "output_tokens": 2});
    line
}
