//! `statusline` has the figures of `usage`, before and after the index is up to date, and says nothing where it knows nothing.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Output,
};

use serde_json::{Value, json};
use tests::{
    Answer, Home, Server, Story, bins, eventually,
    home::run,
    recording::Recording,
    setup::{FILES, ctl, json_of, place, setup, succeeds, text},
    until,
};

const FIGURES: [&str; 7] = ["turns", "calls", "input", "output", "cache_read", "cache_write_5m", "cache_write_1h"];

/// Runs it as Claude Code does.
fn given(home: &Home, args: &[&str], input: &[u8]) -> Output {
    let mut command = home.command(&bins().ctl);
    command.arg("statusline").args(args).current_dir("/");
    run(command, input).0
}

fn input(transcript: &Path) -> Value {
    json!({
        "session_id": transcript.file_stem().and_then(|name| name.to_str()), "transcript_path": transcript,
        "model": {"id": "claude-opus-4-6", "display_name": "Opus"}, "cost": {"total_cost_usd": 0.5},
        "context_window": {"context_window_size": 200_000, "used_percentage": 41.6},
    })
}

fn figures(home: &Home, transcript: &Path) -> Value {
    let output = given(home, &["--json"], input(transcript).to_string().as_bytes());
    assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

fn line(home: &Home, transcript: &Path) -> String {
    let mut command = home.command(&bins().ctl);
    command.arg("statusline").env("NO_COLOR", "1");
    succeeds(&run(command, input(transcript).to_string().as_bytes()).0).trim_end().to_owned()
}

/// The row of each session by `usage`.
fn usage(home: &Home) -> Vec<Value> {
    let output = home.ctl(&["usage", "--json", "--by", "session"]);
    let found: Value = serde_json::from_str(&succeeds(&output)).expect("JSON");
    found["rows"].as_array().expect("rows").clone()
}

fn assert_same(found: &Value, row: &Value, what: &str) {
    for figure in FIGURES {
        assert_eq!(found["session"][figure], row[figure], "{figure} of {what}: {found}");
    }
    let (one, other) = (found["session"]["cost_usd"].as_f64(), row["cost_usd"].as_f64());
    let near = one.zip(other).is_none_or(|(one, other)| (one - other).abs() < 1e-9);
    assert!(near && one.is_some() == other.is_some(), "{what}: {one:?} {other:?}");
}

fn session_of(home: &Home, id: &str) -> PathBuf {
    let projects = fs::read_dir(home.path().join(".claude/projects")).expect("projects");
    let all = projects.map(|dir| dir.expect("a directory").path().join(format!("{id}.jsonl")));
    all.into_iter().find(|path| path.exists()).expect("the transcript")
}

#[test]
fn every_recorded_session_has_the_figures_of_usage() {
    for recording in Recording::all() {
        let home = Home::new();
        recording.write_in(&home);
        for row in usage(&home) {
            let id = row["key"].as_str().expect("an id");
            let found = figures(&home, &session_of(&home, id));
            assert_same(&found, &row, &format!("{} {id}", recording.name));
            assert_eq!((&found["is_behind"], &found["context_percent"]), (&json!(false), &json!(41.6)));
        }
    }
}

#[test]
fn a_session_that_no_index_knows_has_its_figures_too() {
    for name in ["bash1", "nested", "subagents_par", "parallel", "compact"] {
        let home = Home::new();
        let paths = Recording::load(name).write_in(&home);
        let transcript = paths.iter().find(|path| path.exists()).expect("a transcript");
        let before = figures(&home, transcript);
        assert!(before["today"].is_null(), "nothing is known of other sessions: {before}");
        // It has begun to read the session into an index.
        let index = home.paths().state.join("index.db");
        eventually("an index with the session", || index.exists() && !figures(&home, transcript)["session"].is_null());
        let row = usage(&home)
            .into_iter()
            .find(|row| transcript.ends_with(format!("{}.jsonl", row["key"].as_str().unwrap_or(""))));
        assert_same(&before, &row.expect("its row"), name);
    }
}

#[test]
fn what_was_written_since_counts_at_once_and_once() {
    let home = Home::new();
    let now = jiff::Timestamp::now();
    let mut story = Story::new(&home, "p", "s");
    story.turn("one", "first answer");
    let transcript = story.path.clone();
    let first = usage(&home);
    assert_same(&figures(&home, &transcript), &first[0], "before");
    story.turn("two", "second answer").turn("three", "third answer");
    // A subagent of which the index knows nothing.
    let dir = transcript.with_extension("").join("subagents");
    fs::create_dir_all(&dir).expect("a directory");
    let mut agent = fs::File::create(dir.join("agent-a1.jsonl")).expect("a file");
    let usage_of = json!({"input_tokens": 5, "output_tokens": 7, "cache_read_input_tokens": 1000});
    for line in [
        json!({"type": "user", "uuid": "g1", "isSidechain": true, "agentId": "a1", "sessionId": "s", "timestamp": now.to_string(),
            "message": {"role": "user", "content": "look"}}),
        json!({"type": "assistant", "uuid": "g2", "parentUuid": "g1", "isSidechain": true, "agentId": "a1", "sessionId": "s",
            "timestamp": now.to_string(), "message": {"id": "msg_g", "model": "claude-sonnet-4-5", "stop_reason": "end_turn",
            "usage": usage_of, "content": [{"type": "text", "text": "done"}]}}),
    ] {
        writeln!(agent, "{line}").expect("written");
    }
    let before = figures(&home, &transcript);
    let row = usage(&home);
    assert_ne!(row[0]["calls"], first[0]["calls"]);
    assert_same(&before, &row[0], "from the end of the transcripts");
    assert_same(&figures(&home, &transcript), &row[0], "from the index");
}

#[test]
fn today_is_the_sum_of_the_sessions_of_today() {
    let home = Home::new();
    let dir = home.path().join(".claude/projects/-p");
    fs::create_dir_all(&dir).expect("a directory");
    let now = jiff::Timestamp::now();
    let long_ago = "2026-01-05T10:00:00Z".parse().expect("a time");
    let call = |id: &str, at: jiff::Timestamp, input: u64| {
        let usage = json!({"input_tokens": input, "output_tokens": 1});
        let lines = [
            json!({"type": "user", "uuid": format!("u{id}"), "timestamp": at.to_string(), "sessionId": id,
                "message": {"role": "user", "content": "go"}}),
            json!({"type": "assistant", "uuid": format!("a{id}"), "parentUuid": format!("u{id}"), "timestamp": at.to_string(),
                "sessionId": id, "message": {"id": format!("m{id}"), "model": "claude-sonnet-4-5", "usage": usage,
                "stop_reason": "end_turn", "content": [{"type": "text", "text": "ok"}]}}),
        ];
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let path = dir.join(format!("{id}.jsonl"));
        fs::write(&path, text).expect("a transcript");
        path
    };
    call("one", now, 1_000_000);
    call("old", long_ago, 5_000_000);
    usage(&home);
    // Not in the index yet.
    let two = call("two", now, 2_000_000);
    assert_eq!(line(&home, &two), "$6.00 session · $9.00 today · cache 0 % · context 42 %");
    assert_eq!(figures(&home, &two)["today"]["input"], 3_000_000);
}

#[test]
fn more_than_a_little_is_not_read_and_the_line_says_so() {
    let home = Home::new();
    let mut story = Story::new(&home, "p", "s");
    story.turn("one", "first answer");
    let transcript = story.path.clone();
    let known = usage(&home);
    story.turn("two", &"x".repeat(3 << 20));
    let found = figures(&home, &transcript);
    assert_eq!(found["is_behind"], true);
    assert_same(&found, &known[0], "what the index has");
    assert!(line(&home, &transcript).contains("+ session"));
    // Meanwhile another process reads it.
    eventually("the index to have it", || usage_without_update(&home, &transcript) > known[0]["calls"].as_u64());
}

/// The calls that the index has of a session.
fn usage_without_update(home: &Home, transcript: &Path) -> Option<u64> {
    figures(home, transcript)["session"]["calls"].as_u64()
}

#[test]
fn nothing_known_is_nothing_said() {
    let home = Home::new();
    let dir = home.project("d");
    let fifo = dir.join("fifo.jsonl");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600), 0)
        .expect("a FIFO");
    let of = |path: &Path| json!({"transcript_path": path}).to_string();
    for input in [
        String::new(),
        "not JSON".into(),
        "[]".into(),
        "{}".into(),
        json!({"transcript_path": 7, "cost": "x", "context_window": null}).to_string(),
        json!({"transcript_path": "relative.jsonl"}).to_string(),
        of(&dir.join("none.jsonl")),
        of(&dir),
        of(&fifo),
        of(Path::new("/dev/zero")),
        "{\"a\":".repeat(100_000),
    ] {
        let output = given(&home, &[], input.as_bytes());
        assert_eq!(output.status.code(), Some(0));
        assert_eq!((&*output.stdout, &*output.stderr), (&b""[..], &b""[..]), "{}", &input[..input.len().min(80)]);
    }
    // What Claude Code says itself is shown where nothing else is known.
    let said = json!({"cost": {"total_cost_usd": 1.234}, "context_window": {"context_window_size": 1000,
        "current_usage": {"input_tokens": 100, "cache_read_input_tokens": 850}}});
    let mut command = home.command(&bins().ctl);
    command.arg("statusline");
    let shown = succeeds(&run(command, said.to_string().as_bytes()).0);
    assert_eq!(shown, "$1.23 session\u{1b}[2m · \u{1b}[0m\u{1b}[31mcontext 95 %\u{1b}[0m\n");
    // Neither a damaged index nor a damaged configuration is an error here.
    let [transcript] = &Recording::load("bash1").write_in(&home)[..] else { panic!("one session") };
    home.configure("nonsense = 1");
    fs::create_dir_all(&home.paths().state).expect("a directory");
    fs::write(home.paths().state.join("index.db"), "no database".repeat(1000)).expect("written");
    assert!(line(&home, transcript).starts_with("$"));
}

#[test]
fn the_line_says_whether_the_session_is_delivered() {
    let (home, server) = (Home::new(), Server::new());
    home.settings("p", &server.env());
    let mut story = Story::new(&home, "p", "s");
    story.turn("q", "a");
    let transcript = story.path.clone();
    let daemon = home.daemon();
    assert!(!line(&home, &transcript).contains("delivered"), "nothing was sent yet");
    home.hook(&story.stop("a"), &server.env());
    server.wait_for(2);
    home.flush();
    // Its answer has a time limit, which a busy machine may exceed.
    until("delivered", || line(&home, &transcript).ends_with("· delivered").then_some(()));
    server.change(|_| Answer::status(401));
    story.turn("q2", "b");
    home.hook(&story.stop("b"), &server.env());
    home.status_until("parked", |status| status["destinations"][0]["state"] == "parked");
    until("parked", || line(&home, &transcript).ends_with(" parked").then_some(()));
    let found = until("the figures", || {
        let found = figures(&home, &transcript);
        found["destinations"][0].is_object().then(|| found["destinations"][0].clone())
    });
    assert_eq!((&found["kind"], &found["state"]), (&json!("langfuse"), &json!("parked")));
    assert!(found["waiting"].as_u64() > Some(0), "{found}");
    drop(daemon);
    assert!(!line(&home, &transcript).contains("delivered"), "no daemon, nothing said");
}

#[test]
fn setup_writes_the_status_line_and_uninstall_takes_it_back() {
    for scope in ["--user", "--project"] {
        for content in FILES.iter().copied().map(Some).chain([None]) {
            let home = Home::new();
            let (dir, file) = place(&home, scope, content);
            succeeds(&setup(&home, &dir, scope, &["--yes", "--no-check", "--no-service"]));
            assert!(json_of(&file)["statusLine"].is_null(), "not unasked");
            for _ in 0..2 {
                succeeds(&setup(&home, &dir, scope, &["--yes", "--no-check", "--no-service", "--statusline"]));
                let command = json_of(&file)["statusLine"]["command"].as_str().expect("a command").to_owned();
                assert!(command.ends_with("cc-langfusectl statusline; :"), "{command}");
            }
            // It stays when `setup` runs again for another reason.
            succeeds(&setup(&home, &dir, scope, &["--yes", "--no-check", "--no-service", "--from-now"]));
            assert!(json_of(&file)["statusLine"]["command"].is_string());
            assert!(home.paths().state.join("index.db").exists(), "it knows of this day from its start");
            succeeds(&ctl(&home, &dir, None, &["uninstall", "--yes", "--purge"]));
            match content {
                Some(content) => assert_eq!(fs::read_to_string(&file).expect("a file"), content),
                None => assert!(!file.exists()),
            }
            assert!(!home.paths().state.exists(), "nothing is left of it");
        }
    }
}

#[test]
fn a_status_line_of_the_users_stays() {
    let theirs = "{\n  \"statusLine\": {\"type\": \"command\", \"command\": \"~/line.sh\"}\n}\n";
    let home = Home::new();
    let (dir, file) = place(&home, "--user", Some(theirs));
    let flags = ["--yes", "--no-check", "--no-service", "--statusline"];
    for scope in ["--user", "--project"] {
        let output = setup(&home, &dir, scope, &flags);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        assert!(text(&output).contains("settings.json has a statusLine already"), "{}", text(&output));
    }
    succeeds(&setup(&home, &dir, "--user", &flags[..3]));
    assert_eq!(json_of(&file)["statusLine"]["command"], "~/line.sh");
    // One that the user set instead stays as well.
    let home = Home::new();
    let (dir, file) = place(&home, "--user", Some("{}\n"));
    succeeds(&setup(&home, &dir, "--user", &flags));
    let mut settings = json_of(&file);
    settings["statusLine"]["command"] = "~/mine.sh".into();
    fs::write(&file, settings.to_string()).expect("written");
    succeeds(&ctl(&home, &dir, None, &["uninstall", "--yes"]));
    assert_eq!(json_of(&file)["statusLine"]["command"], "~/mine.sh");
}
