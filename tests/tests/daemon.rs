//! One daemon per user stops and starts again without loss, and keeps its data private.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::{Path, PathBuf},
    sync::mpsc,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tests::{Answer, Home, Server, Story, bins, eventually, home, home::mode, ids, server};

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() { found.extend(files(&entry)) } else { found.push(entry) }
    }
    found
}

#[test]
fn a_second_daemon_exits_and_the_first_one_continues() {
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
fn the_socket_of_a_dead_daemon_is_replaced_but_no_other_file() {
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
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && printed.contains("in the way"), "{printed}");
    assert_eq!(fs::read_to_string(&paths.socket).expect("there"), "precious");
}

#[test]
fn a_stopping_daemon_keeps_unsent_spans() {
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
fn a_stopping_daemon_waits_for_an_answer_in_flight() {
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
fn a_session_without_an_event_is_found_when_the_daemon_starts() {
    let (home, server) = (Home::new(), Server::new());
    home.settings("work", &server.env());
    let mut before = Story::new(&home, "work", "before");
    before.turn("q", "a");
    // Sessions from before its first start are not searched.
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
fn a_damaged_database_is_set_aside_and_the_same_spans_are_emitted_again() {
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
            // The log of another database is not applied.
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
fn only_the_user_can_read_the_daemons_files() {
    let (home, server) = (Home::new(), Server::new());
    let paths = home.paths();
    // Directories that were open to others are made private.
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
fn secrets_are_masked_before_they_are_stored_unless_the_project_opts_out() {
    // Assembled here, so that nobody mistakes this file for a leak.
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
fn the_log_contains_no_text_of_the_conversation() {
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
fn flush_reports_what_is_left() {
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
    let printed = String::from_utf8_lossy(&left.stderr);
    assert_eq!(left.status.code(), Some(1), "{printed}");
    assert!(
        printed.contains("0 hook events, 2 observations") && printed.contains(&server.url) && printed.contains("500"),
        "{printed}"
    );
    server.change(|_| Answer::ok());
    home.flush();
    assert_eq!(server.spans().len(), 2);
}

#[test]
fn status_reports_that_no_daemon_runs() {
    let home = Home::new();
    for args in [&["status"][..], &["status", "--json"], &["flush", "--timeout", "1s"]] {
        let output = home.ctl(args);
        assert_eq!(output.status.code(), Some(3), "{args:?}");
        let printed = String::from_utf8_lossy(&output.stderr);
        assert!(output.stdout.is_empty() && printed.contains("not running"), "{printed}");
    }
    assert_eq!(fs::read_dir(home.path()).expect("the home").count(), 0, "asking leaves nothing behind");
}

#[test]
fn try_works_without_an_account() {
    let home = Home::new();
    let output = home.ctl(&["try"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(printed.contains("arrived") && printed.contains("Turn 1"), "{printed}");
    assert_eq!(fs::read_dir(home.path()).expect("the home").count(), 0, "it leaves nothing behind");
}
