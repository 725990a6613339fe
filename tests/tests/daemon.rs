//! One daemon per user, that loses nothing, mixes nothing up, and keeps its secrets in memory.

use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    io::{BufWriter, Write},
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::{Path, PathBuf},
    sync::mpsc,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::{Value, json};
use tests::{Answer, Home, Server, Span, Story, bins, eventually, home, server};

fn ids(spans: &[Span]) -> BTreeSet<(String, String)> {
    spans.iter().map(|span| (span.trace_id.clone(), span.span_id.clone())).collect()
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).permissions().mode()
        & 0o7777
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() { found.extend(files(&entry)) } else { found.push(entry) }
    }
    found
}

#[test]
fn a_second_daemon_goes_away_and_the_first_one_goes_on() {
    let (home, server) = (Home::new(), Server::new());
    let first = home.daemon();
    for _ in 0..3 {
        let started = Instant::now();
        assert!(home.spawn_daemon(&[]).ended().success());
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    }
    assert_eq!(home.status()["daemon"]["pid"], first.pid());
    let mut story = Story::new(&home, "work", "s");
    story.turn("q", "a");
    home.hook(&story.stop("a"), &server.env());
    server.wait_for(2);
}

#[test]
fn a_dead_daemons_socket_is_replaced_and_anything_else_in_its_place_is_not() {
    let home = Home::new();
    let paths = home.paths();
    home.daemon().kill();
    assert!(paths.socket.exists(), "a killed daemon leaves its socket");
    assert!(home.daemon().terminate().success());
    assert!(!paths.socket.exists(), "a stopped daemon leaves none");

    drop(UnixListener::bind(&paths.socket).expect("bound"));
    assert!(home.daemon().terminate().success());

    fs::write(&paths.socket, "precious").expect("written");
    let output = home::run(home.command(&bins().daemon), b"").0;
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && told.contains("in the way"), "{told}");
    assert_eq!(fs::read_to_string(&paths.socket).expect("there"), "precious");
}

#[test]
fn a_daemon_that_is_told_to_stop_stops_and_keeps_what_is_unsent() {
    let home = Home::new();
    let server = Server::answering(|_| Answer::status(500));
    home.settings("work", &server.env());
    let mut story = Story::new(&home, "work", "s");
    story.turn("q1", "a1").turn("q2", "a2");
    for signal in ["TERM", "KILL"] {
        let daemon = home.daemon();
        home.hook(&story.stop("a2"), &server.env());
        home.status_until("the spans to wait", |status| status["outbox"]["pending"] == 4);
        match signal {
            "TERM" => assert!(daemon.terminate().success()),
            _ => daemon.kill(),
        }
    }
    assert_eq!(server.spans(), []);
    server.change(|_| Answer::ok());
    let _daemon = home.daemon();
    home.flush();
    assert_eq!((server.spans().len(), ids(&server.spans()).len()), (4, 4));
}

#[test]
fn a_daemon_that_is_told_to_stop_waits_for_the_answer_on_its_way() {
    let home = Home::new();
    let (answer, answers) = mpsc::channel::<()>();
    let (ask, asked) = mpsc::channel();
    let server = Server::answering(move |_| {
        let _ = ask.send(());
        let _ = answers.recv();
        Answer::ok()
    });
    home.settings("work", &server.env());
    let mut daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    story.turn("q", "a");
    home.hook(&story.stop("a"), &server.env());
    asked.recv_timeout(Duration::from_secs(30)).expect("the spans");
    daemon.signal(Signal::TERM);
    eventually("the end to begin", || !home.paths().socket.exists());
    drop(answer);
    assert!(daemon.ended().success());
    assert_eq!(server.spans().len(), 2);
    let _daemon = home.daemon();
    home.flush();
    assert_eq!(server.requests().len(), 1, "what was answered is not sent again");
}

#[test]
fn a_session_no_hook_told_of_is_found_when_the_daemon_starts() {
    let (home, server) = (Home::new(), Server::new());
    home.settings("work", &server.env());
    let mut before = Story::new(&home, "work", "before");
    before.turn("q", "a");
    // What was written before its first start is not looked for.
    let begun = |story: &Story| {
        let file = fs::File::options().write(true).open(&story.path).expect("the transcript");
        file.set_modified(std::time::SystemTime::now() - Duration::from_secs(60)).expect("an earlier time");
    };
    begun(&before);
    assert!(home.daemon().terminate().success());
    let mut away = Story::new(&home, "work", "away");
    away.turn("q", "a");
    Story::new(&home, "private", "elsewhere").turn("q", "a");
    let _daemon = home.daemon();
    let spans = server.wait_for(2);
    home.flush();
    assert_eq!((server.spans().len(), spans.iter().all(|span| span.get("session.id") == "away")), (2, true));
}

#[test]
fn a_damaged_database_is_set_aside_and_the_same_spans_come_out_again() {
    for damage in ["text", "header", "pages", "wal"] {
        let (home, server) = (Home::new(), Server::new());
        let database = home.paths().database;
        let mut story = Story::new(&home, "work", "s");
        story.turn("q", "a");
        let daemon = home.daemon();
        home.hook(&story.stop("a"), &server.env());
        let first = ids(&server.wait_for(2));
        home.flush();
        assert!(daemon.terminate().success());

        let mut bytes = fs::read(&database).expect("a database");
        match damage {
            "text" => bytes = b"this was never a database, however much it looks like one ".repeat(200),
            "header" => bytes[..16].fill(0xff),
            "pages" => bytes[4096..].fill(0xff),
            // A log that belongs to another database is not applied.
            _ => fs::write(database.with_extension("db-wal"), [0x37; 4096]).expect("written"),
        }
        fs::write(&database, &bytes).expect("written");
        let _daemon = home.daemon();
        let state = fs::read_dir(home.paths().state).expect("the state directory");
        let aside: Vec<PathBuf> = state
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("corrupt-")))
            .collect();
        if damage == "wal" {
            assert_eq!(aside, Vec::<PathBuf>::new(), "{damage}");
            continue;
        }
        assert_eq!(aside.len(), 1, "{damage}");
        assert_eq!(fs::read(aside[0].join("state.db")).expect("kept"), bytes, "{damage}");
        home.hook(&story.stop("a"), &server.env());
        assert_eq!(ids(&server.wait_for(4)[2..]), first, "{damage}");
    }
}

#[test]
fn two_projects_at_once_get_each_their_own_and_with_their_own_key() {
    const SESSIONS: usize = 5;
    let home = Home::new();
    let _daemon = home.daemon();
    let servers = [Server::new(), Server::new()];
    std::thread::scope(|scope| {
        for (name, server) in ["one", "two"].into_iter().zip(&servers) {
            let home = &home;
            scope.spawn(move || {
                let env = server::env(&server.url, &format!("pk-{name}"), &format!("sk-{name}"));
                for number in 0..SESSIONS {
                    let mut story = Story::new(home, name, &format!("{name}-{number}"));
                    story.turn("q", name);
                    home.hook(&story.stop(name), &env);
                }
            });
        }
    });
    home.flush();
    for (name, server) in ["one", "two"].into_iter().zip(&servers) {
        let spans = server.spans();
        assert_eq!((spans.len(), ids(&spans).len()), (2 * SESSIONS, 2 * SESSIONS), "{name}");
        assert!(spans.iter().all(|span| span.get("session.id").starts_with(name)), "{name}");
        let keys: BTreeSet<String> = server.requests().iter().map(tests::Request::key).collect();
        assert_eq!(keys, BTreeSet::from([format!("pk-{name}:sk-{name}")]));
    }
}

#[test]
fn after_a_restart_the_secret_is_found_again_in_the_projects_settings() {
    let home = Home::new();
    let server = Server::answering(|_| Answer::status(500));
    let mut story = Story::new(&home, "work", "s");
    story.turn("q", "a");
    let daemon = home.daemon();
    home.hook(&story.stop("a"), &server.env());
    server.wait_for_requests(1);
    daemon.kill();
    server.change(|_| Answer::ok());
    // A key for another server or public key is not this one's.
    home.settings("work", &server::env("http://127.0.0.1:1", "pk-lf-test", "sk-wrong"));
    let daemon = home.daemon();
    home.status_until("the destination to be parked", |status| status["destinations"][0]["state"] == "parked");
    daemon.kill();
    home.settings("work", &server::env(&server.url, "pk-other", "sk-wrong"));
    let daemon = home.daemon();
    home.status_until("the destination to be parked", |status| status["destinations"][0]["state"] == "parked");
    daemon.kill();
    assert_eq!(server.spans(), []);
    home.settings("work", &server.env());
    let _daemon = home.daemon();
    home.flush();
    assert_eq!(server.spans().len(), 2);
    assert_eq!(server.requests().last().map(tests::Request::key).as_deref(), Some("pk-lf-test:sk-lf-test"));
}

#[test]
fn after_a_restart_the_secret_is_found_again_where_claude_codes_own_directory_was_moved() {
    let home = Home::new();
    let server = Server::answering(|_| Answer::status(500));
    let mut story = Story::new(&home, "work", "s");
    story.turn("q", "a");
    let moved = home.project("moved");
    let hook = |env: &[(String, String)]| {
        let dir = ("CLAUDE_CONFIG_DIR".to_owned(), moved.to_str().expect("text").to_owned());
        home.hook(&story.stop("a"), &[env, &[dir]].concat());
    };
    let daemon = home.daemon();
    hook(&server.env());
    server.wait_for_requests(1);
    daemon.kill();
    server.change(|_| Answer::ok());
    let daemon = home.daemon();
    home.status_until("the destination to be parked", |status| status["destinations"][0]["state"] == "parked");
    daemon.kill();
    home::settings(&moved.join("settings.json"), &server.env());
    let _daemon = home.daemon();
    home.flush();
    assert_eq!(server.spans().len(), 2);
}

#[test]
fn a_project_without_a_secret_is_parked_and_status_says_why() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    story.turn("q", "a");
    let keyless: Vec<_> = server.env().into_iter().filter(|(name, _)| name != "LANGFUSE_SECRET_KEY").collect();
    home.hook(&story.stop("a"), &keyless);
    let status =
        home.status_until("the destination to be parked", |status| status["destinations"][0]["state"] == "parked");
    let destination = &status["destinations"][0];
    assert_eq!((&destination["waiting"], &destination["public_key"]), (&json!(2), &json!("pk-lf-test")));
    assert!(destination["last_error"].as_str().is_some_and(|why| why.contains("no secret key")), "{destination}");
    let told = home.ctl(&["status"]);
    let told = String::from_utf8_lossy(&told.stdout);
    assert!(told.contains("parked") && told.contains("no secret key"), "{told}");
    assert_eq!(server.requests().len(), 0);
    // The next hook of a session that has the key brings everything.
    home.hook(&story.event("SessionEnd"), &server.env());
    home.flush();
    assert_eq!(server.spans().len(), 2);
}

#[test]
fn a_session_that_never_stopped_is_told_first_when_the_next_one_begins_with_its_lines() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    let mut lost = Story::new(&home, "work", "lost");
    lost.turn("q0", "a0").turn("q1", "a1");
    let mut next = Story::new(&home, "work", "next");
    next.raw(br#"{"type":"last-prompt","sessionId":"lost"}"#).turn("q2", "a2");
    home.hook(&next.stop("a2"), &server.env());
    let spans = server.wait_for(6);
    let sessions: Vec<&str> = spans.iter().map(|span| span.get("session.id")).collect();
    assert_eq!(sessions, ["lost", "lost", "lost", "lost", "next", "next"]);

    // No such transcript, or no name for one: nothing happens to the session itself.
    for (number, previous) in ["nowhere", "../other/lost", "/etc/passwd", ""].into_iter().enumerate() {
        let session = format!("after-{number}");
        let mut story = Story::new(&home, "work", &session);
        story.raw(json!({"type": "last-prompt", "sessionId": previous}).to_string().as_bytes()).turn("q", "a");
        home.hook(&story.stop("a"), &server.env());
        let spans = server.wait_for(8 + 2 * number);
        assert!(spans[6 + 2 * number..].iter().all(|span| span.get("session.id") == session), "{previous:?}");
    }
}

#[test]
fn a_line_of_100_mb_is_passed_over_and_counted_and_not_held() {
    let (home, server) = (Home::new(), Server::new());
    let daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    story.turn("q1", "a1");
    {
        let mut file = BufWriter::new(OpenOptions::new().append(true).open(&story.path).expect("the transcript"));
        file.write_all(br#"{"type":"user","message":{"role":"user","content":""#).expect("written");
        for _ in 0..100 {
            file.write_all(&vec![b'x'; 1 << 20]).expect("written");
        }
        file.write_all(b"\"}}\n").expect("written");
    }
    story.turn("q2", "a2");
    home.hook(&story.stop("a2"), &server.env());
    assert_eq!(server.wait_for(4).len(), 4);
    home.status_until("the line to be counted", |status| status["skipped_lines"] == json!({"too_long": 1}));
    if let Some(peak) = daemon.peak_kib() {
        assert!(peak < 100 << 10, "the daemon held {peak} KiB");
    }
}

#[test]
fn lines_that_are_none_are_counted_by_reason_and_the_rest_is_told() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    story
        .raw(b"")
        .raw(b"not JSON")
        .raw(b"{\"type\":\"assistant\"")
        .raw(br#"{"type":"never-heard-of"}"#)
        .raw(b"\xff\xfe\0");
    story.turn("q", "a").raw(b"[1,2]").raw(br#"{"type":"summary"}"#);
    home.hook(&story.stop("a"), &server.env());
    server.wait_for(2);
    home.status_until("the lines to be counted", |status| {
        let skipped = &status["skipped_lines"];
        skipped["not_json"] == 3 && skipped["unknown_kind"] == 1 && skipped["unexpected_shape"] == 1
    });
}

#[test]
fn nobody_else_can_read_what_the_daemon_keeps() {
    let (home, server) = (Home::new(), Server::new());
    let paths = home.paths();
    // Directories that were open to others are closed.
    fs::create_dir_all(&paths.spool).expect("made");
    fs::set_permissions(&paths.state, fs::Permissions::from_mode(0o755)).expect("opened");
    fs::set_permissions(&paths.spool, fs::Permissions::from_mode(0o777)).expect("opened");
    let _daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    story.turn("q", "a");
    home.hook(&story.stop("a"), &server.env());
    server.wait_for(2);
    assert_eq!((mode(&paths.state), mode(&paths.spool)), (0o700, 0o700));
    for file in files(&paths.state).iter().chain([&paths.log]) {
        assert_eq!(mode(file), 0o600, "{}", file.display());
    }
    assert!(paths.socket.exists() && paths.database.exists() && paths.log.exists());
}

#[test]
fn secrets_in_a_conversation_are_masked_before_they_are_stored_unless_the_project_says_otherwise() {
    // Put together here, so that nobody mistakes this file for a leak.
    let token = ["gh", "p_", "9fK2xQ7mZ4tR8wL1cV6bN3pD5sH0jG2aYeUo"].concat();
    for (redact, expect) in [(None, "use [REDACTED:github] please"), (Some("off"), &*format!("use {token} please"))] {
        let home = Home::new();
        let server = Server::answering(|_| Answer::status(503));
        let _daemon = home.daemon();
        let mut env = server::env(&server.url, "pk-lf-test", "sk-lf-test");
        env.extend(redact.map(|value| ("CC_LANGFUSE_REDACT".to_owned(), value.to_owned())));
        let mut story = Story::new(&home, "work", "s");
        story.turn(&format!("use {token} please"), &format!("use {token} please"));
        home.hook(&story.event("SessionEnd"), &env);
        let status = home.status_until("spans to wait", |status| status["outbox"]["pending"] == 2);
        assert_eq!(status["redacted"]["github"].as_u64().is_some(), redact.is_none(), "{status}");
        let stored = files(&home.path().join(".claude/state")).into_iter().filter_map(|path| fs::read(path).ok());
        let found = stored.into_iter().any(|bytes| bytes.windows(token.len()).any(|window| window == token.as_bytes()));
        assert_eq!(found, redact.is_some());
        let sent = server.wait_for_requests(1);
        let root = sent[0].spans.iter().find(|span| span.parent.is_empty()).expect("the root");
        assert!(
            root.get("langfuse.observation.output").contains(expect),
            "{}",
            root.get("langfuse.observation.output")
        );
    }
}

#[test]
fn a_log_holds_no_word_of_the_conversation() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon_with(&[("CC_LANGFUSE_DEBUG", "true")]);
    let mut story = Story::new(&home, "work", "s");
    story.prompt("marmalade-q").tool("marmalade-t").answer("marmalade-a");
    home.hook(&story.stop("marmalade-a"), &server.env());
    home.flush();
    let log = home.log();
    assert!(log.contains("delivered") && !log.contains("marmalade"), "{log}");
}

#[test]
fn flush_says_what_is_left() {
    let home = Home::new();
    let server = Server::answering(|_| Answer::status(500));
    assert_eq!(home.ctl(&["flush"]).status.code(), Some(3), "no daemon");
    let _daemon = home.daemon();
    home.flush();
    let mut story = Story::new(&home, "work", "s");
    story.turn("q", "a");
    home.hook(&story.stop("a"), &server.env());
    server.wait_for_requests(1);
    let left = home.ctl(&["flush", "--timeout", "300ms"]);
    let told = String::from_utf8_lossy(&left.stderr);
    assert_eq!(left.status.code(), Some(1), "{told}");
    assert!(told.contains("0 events, 2 spans") && told.contains(&server.url) && told.contains("500"), "{told}");
    server.change(|_| Answer::ok());
    home.flush();
    assert_eq!(server.spans().len(), 2);
}

#[test]
fn status_without_a_daemon_says_so() {
    let home = Home::new();
    for args in [&["status"][..], &["status", "--json"], &["flush", "--timeout", "1s"]] {
        let output = home.ctl(args);
        assert_eq!(output.status.code(), Some(3), "{args:?}");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.stdout.is_empty() && told.contains("not running"), "{told}");
    }
    assert_eq!(fs::read_dir(home.path()).expect("the home").count(), 0, "asking leaves nothing behind");
}

#[test]
fn status_tells_sessions_and_destinations() {
    let (home, server) = (Home::new(), Server::new());
    let daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    story.turn("q", "a").turn("q", "a2");
    home.hook(&story.stop("a2"), &server.env());
    server.wait_for(4);
    home.flush();
    let status = home.status();
    assert_eq!(status["daemon"]["pid"], daemon.pid());
    assert_eq!(status["sessions"][0]["session_id"], "s");
    assert_eq!(status["sessions"][0]["turns"], 2);
    assert_eq!(status["sessions"][0]["open_turn"], false);
    assert_eq!(status["sessions"][0]["transcript"], json!(story.path));
    let destination = &status["destinations"][0];
    assert_eq!((&destination["kind"], &destination["state"]), (&json!("langfuse"), &json!("ok")));
    assert_eq!((&destination["base_url"], &destination["waiting"]), (&json!(server.url), &json!(0)));
    assert!(destination["last_success"].is_string() && destination["last_error"].is_null(), "{destination}");
    let told = home.ctl(&["status"]);
    assert_eq!(told.status.code(), Some(0));
    let told = String::from_utf8_lossy(&told.stdout);
    assert!(told.contains("s 2 turns") && told.contains(&server.url), "{told}");
}

#[test]
fn show_tells_the_turns_a_replay_would_send_without_a_daemon() {
    let (home, server) = (Home::new(), Server::new());
    let mut story = Story::new(&home, "work", "shown");
    story.prompt("what is here?").tool("Cargo.toml").answer("one file").turn("thanks", "you are welcome");
    let path = story.path.to_str().expect("UTF-8").to_owned();
    for session in ["shown", path.as_str()] {
        let output = home.ctl(&["show", session]);
        let told = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        for expect in ["Turn 1", "what is here?", "Bash", "one file", "Turn 2", "you are welcome"] {
            assert!(told.contains(expect), "{expect:?} is not in\n{told}");
        }
        assert!(!told.contains('\u{1b}'), "no colours where nobody sees them");
    }
    assert_eq!(home.ctl(&["show", "unheard-of"]).status.code(), Some(1));
    assert_eq!(home.ctl(&["show", "/nowhere.jsonl"]).status.code(), Some(1));

    let output = home.ctl(&["show", "shown", "--json"]);
    let shown: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let _daemon = home.daemon();
    let replayed = home.ctl_with(&["replay", &path], &server.env());
    assert_eq!(replayed.status.code(), Some(0), "{replayed:?}");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let shown = shown.as_array().expect("a list").iter();
    let shown: BTreeSet<_> =
        shown.map(|span| [&span["trace_id"], &span["span_id"], &span["parent_id"], &span["name"]].map(text)).collect();
    let sent: BTreeSet<_> =
        server.spans().into_iter().map(|span| [span.trace_id, span.span_id, span.parent, span.name]).collect();
    assert_eq!((shown.len(), shown), (6, sent));
}

#[test]
fn what_was_sent_is_not_sent_again_by_a_replay() {
    let (home, server) = (Home::new(), Server::new());
    let mut story = Story::new(&home, "work", "s");
    story.turn("q1", "a1").turn("q2", "a2");
    let path = story.path.to_str().expect("UTF-8").to_owned();
    let dry = home.ctl(&["replay", "--dry-run", &path]);
    assert_eq!(dry.status.code(), Some(0), "{dry:?}");
    assert!(String::from_utf8_lossy(&dry.stdout).contains("2 turns, 4 spans"), "{dry:?}");
    assert_eq!(home.ctl_with(&["replay", &path], &server.env()).status.code(), Some(3), "no daemon");
    let _daemon = home.daemon();
    let keyless = home.ctl(&["replay", &path]);
    assert_eq!(keyless.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&keyless.stderr).contains("LANGFUSE_PUBLIC_KEY"), "{keyless:?}");
    assert_eq!(server.requests().len(), 0);
    for _ in 0..3 {
        let output = home.ctl_with(&["replay", &path], &server.env());
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(server.spans().len(), 4);
    }
    // Nor by the hooks of the session itself, and what is new is sent alone.
    story.turn("q3", "a3");
    home.hook(&story.stop("a3"), &server.env());
    assert_eq!(ids(&server.wait_for(6)).len(), 6);
    home.flush();
    assert_eq!(server.spans().len(), 6);
}

#[test]
fn a_transcript_that_is_rewritten_or_moved_is_followed_and_nothing_doubles() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    story.turn("q1", "a1");
    home.hook(&story.stop("a1"), &server.env());
    server.wait_for(2);
    // Another file under the old name, as an editor or a sync tool leaves it.
    let text = fs::read(&story.path).expect("the transcript");
    fs::remove_file(&story.path).expect("removed");
    fs::write(&story.path, text).expect("written");
    story.turn("q2", "a2");
    home.hook(&story.stop("a2"), &server.env());
    server.wait_for(4);
    // The same file under another name.
    let mut moved = Story::new(&home, "elsewhere", "s");
    fs::rename(&story.path, &moved.path).expect("moved");
    std::mem::swap(&mut story.path, &mut moved.path);
    story.turn("q3", "a3");
    home.hook(&story.stop("a3"), &server.env());
    let spans = server.wait_for(6);
    home.flush();
    assert_eq!((server.spans().len(), ids(&spans).len()), (6, 6));
}

#[test]
fn an_answer_that_is_written_after_its_stop_is_waited_for() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    // How late, as recorded and on a slow disk.
    for (number, late) in [0, 30, 90, 400, 1200].into_iter().enumerate() {
        let mut story = Story::new(&home, "work", &format!("late-{late}"));
        story.prompt("q").thinking("hm");
        home.hook(&story.stop("the answer"), &server.env());
        std::thread::sleep(Duration::from_millis(late));
        story.rest("the answer");
        server.wait_for(2 * (number + 1));
        home.flush();
        let spans = server.spans().split_off(2 * number);
        assert_eq!(spans.len(), 2, "{late} ms late: {:?}", spans.iter().map(|span| &span.name).collect::<Vec<_>>());
        assert!(spans.iter().all(|span| span.content("output") == "the answer"), "{late} ms late: {spans:?}");
        assert!(spans.iter().any(|span| span.observation("output").contains("hm")), "{late} ms late");
    }
}

#[test]
fn an_answer_is_told_though_its_stop_was_lost() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    story.prompt("q");
    home.hook(&story.event("UserPromptSubmit"), &server.env());
    eventually("the session to be known", || home.status()["sessions"][0]["session_id"] == "s");
    story.answer("a");
    assert_eq!(server.wait_for(2).len(), 2);
}

#[test]
fn how_long_a_tool_ran_is_told_where_its_hook_says_so() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    story.prompt("q").tool("t");
    let tool = |took| {
        let mut event = story.event("PostToolUse");
        (event["tool_use_id"], event["duration_ms"]) = (json!("toolu-s-1"), json!(took));
        event
    };
    home.hook(&tool(1234), &server.env());
    let nobodys = |mut event: Value| {
        event["tool_use_id"] = json!("nobody's");
        event
    };
    home.hook(&nobodys(tool(9)), &server.env());
    story.answer("a");
    home.hook(&story.stop("a"), &server.env());
    let spans = server.wait_for(4);
    let told: Vec<_> =
        spans.iter().map(|span| span.observation("metadata.duration_ms")).filter(|ms| !ms.is_empty()).collect();
    assert_eq!(told, ["1234"]);
    home.flush();
    assert_eq!(server.spans().len(), 4);
}

#[test]
fn kinds_of_lines_nobody_knows_are_named_with_the_version_that_writes_them() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    story.prompt("q").raw(br#"{"type":"brand-new","version":"2.1.400"}"#).raw(br#"{"type":"newer","x":1}"#);
    story.raw(br#"{"type":"brand-new","version":"2.1.99"}"#).answer("a");
    home.hook(&story.stop("a"), &server.env());
    server.wait_for(2);
    let told = home.ctl(&["status"]);
    let told = String::from_utf8_lossy(&told.stdout);
    assert!(told.contains("2 line kinds since Claude Code 2.1.99: brand-new, newer"), "{told}");
    let known: Vec<_> = home.status()["unknown_kinds"].as_array().expect("a list").clone();
    assert!(known.contains(&json!({"kind": "newer", "version": "2.1.329", "lines": 1})), "{known:?}");
}

#[test]
fn what_a_project_sets_stands_on_every_span() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    story.prompt("q").tool("t").answer("a");
    let mut env = server.env();
    let set = [
        ("LANGFUSE_TRACING_ENVIRONMENT", " Staging "),
        ("LANGFUSE_RELEASE", "r-old"),
        ("CC_LANGFUSE_RELEASE", "r-7"),
        ("LANGFUSE_USER_ID", "ada"),
        ("CC_LANGFUSE_USER_ID", ""),
        ("CC_LANGFUSE_TAGS", "a, b,,c "),
        ("CC_LANGFUSE_METADATA", r#"{"team":"x","n":7,"source":"mine"}"#),
        ("LANGFUSE_SAMPLE_RATE", "nonsense"),
        ("ANTHROPIC_API_KEY", "not-yours"),
    ];
    env.extend(set.map(|(name, value)| (name.to_owned(), value.to_owned())));
    home.hook(&story.stop("a"), &env);
    let spans = server.wait_for(4);
    for span in &spans {
        for (key, value) in [
            ("langfuse.environment", "staging"),
            ("langfuse.release", "r-7"),
            ("user.id", "ada"),
            ("langfuse.trace.tags", r#"["a","b","c"]"#),
            ("langfuse.trace.metadata.team", "x"),
            ("langfuse.trace.metadata.n", "7"),
            ("langfuse.trace.metadata.source", "claude-code"),
        ] {
            assert_eq!(span.get(key), value, "{key} of {}", span.name);
        }
        assert!(!format!("{span:?}").contains("not-yours"));
    }
}

#[test]
fn the_user_is_whom_git_knows_if_asked_for() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    fs::write(home.path().join(".gitconfig"), "[user]\n\temail = ada@example.org\n").expect("git's settings");
    let mut story = Story::new(&home, "work", "s");
    story.turn("q", "a");
    let env = [server.env(), vec![("CC_LANGFUSE_USER_ID".into(), "git-email".into())]].concat();
    home.hook(&story.stop("a"), &env);
    let expect = if std::process::Command::new("git").output().is_ok() { "ada@example.org" } else { "" };
    assert!(server.wait_for(2).iter().all(|span| span.get("user.id") == expect));
}

#[test]
fn a_sampled_turn_is_whole_or_absent() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    for _ in 0..60 {
        story.prompt("q").tool("t").answer("a");
    }
    let mut env = server.env();
    env.push(("LANGFUSE_SAMPLE_RATE".into(), "0.5".into()));
    home.hook(&story.event("SessionEnd"), &env);
    home.flush();
    let spans = server.spans();
    let traces: BTreeSet<&str> = spans.iter().map(|span| span.trace_id.as_str()).collect();
    assert!((10..50).contains(&traces.len()), "{} of 60 turns", traces.len());
    assert_eq!(spans.len(), 4 * traces.len());
}

#[test]
fn try_works_without_an_account() {
    let home = Home::new();
    let output = home.ctl(&["try"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.contains("arrived") && told.contains("Turn 1"), "{told}");
    assert_eq!(fs::read_dir(home.path()).expect("the home").count(), 0, "it leaves nothing behind");
}
