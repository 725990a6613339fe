//! The lines of a session are emitted once, completely, and as soon as they are there.

use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    io::{BufWriter, Write},
    time::Duration,
};

use serde_json::{Value, json};
use tests::{Home, Server, Story, eventually, ids};

#[test]
fn a_session_without_a_stop_is_emitted_before_the_one_that_continues_it() {
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

    // No such transcript, or an invalid name of one: the session itself is not affected.
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
fn a_line_of_100_mb_is_counted_and_skipped_without_being_held_in_memory() {
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
fn invalid_lines_are_counted_by_reason_and_the_rest_is_emitted() {
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
fn show_lists_the_turns_that_a_replay_would_send() {
    let (home, server) = (Home::new(), Server::new());
    let mut story = Story::new(&home, "work", "shown");
    story.prompt("what is here?").tool("Cargo.toml").answer("one file").turn("thanks", "you are welcome");
    let path = story.path.to_str().expect("UTF-8").to_owned();
    for session in ["shown", path.as_str()] {
        let output = home.ctl(&["show", session]);
        let printed = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        for expect in ["Turn 1", "what is here?", "Bash", "one file", "Turn 2", "you are welcome"] {
            assert!(printed.contains(expect), "{expect:?} is not in\n{printed}");
        }
        assert!(!printed.contains('\u{1b}'), "no colours where nobody sees them");
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
fn a_replay_does_not_send_spans_again() {
    let (home, server) = (Home::new(), Server::new());
    let mut story = Story::new(&home, "work", "s");
    story.turn("q1", "a1").turn("q2", "a2");
    let path = story.path.to_str().expect("UTF-8").to_owned();
    let dry = home.ctl(&["replay", "--dry-run", &path]);
    assert_eq!(dry.status.code(), Some(0), "{dry:?}");
    assert!(String::from_utf8_lossy(&dry.stdout).contains("2 turns, 4 observations"), "{dry:?}");
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
    // The session's own hooks do not cause it either, and new spans are sent alone.
    story.turn("q3", "a3");
    home.hook(&story.stop("a3"), &server.env());
    assert_eq!(ids(&server.wait_for(6)).len(), 6);
    home.flush();
    assert_eq!(server.spans().len(), 6);
}

#[test]
fn repeated_turns_in_a_transcript_are_counted_once_by_every_command() {
    let (home, server) = (Home::new(), Server::new());
    let mut story = Story::new(&home, "work", "s");
    story.prompt("q1").tool("x").answer("a1").turn("q2", "a2").turn("q3", "a3");
    let path = story.path.to_str().expect("UTF-8").to_owned();
    let text = fs::read_to_string(&path).expect("the transcript");
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let json = |args: &[&str]| -> Value {
        serde_json::from_slice(&home.ctl(args).stdout).unwrap_or_else(|error| panic!("{args:?}: {error}"))
    };
    let tokens = |model: &Value| model["traced"].clone();
    let whole = json(&["show", &path, "--json"]);
    let reconciled = json(&["reconcile", &path, "--json"]);
    let of_ids = |spans: &Value| -> Vec<(String, String)> {
        let spans = spans.as_array().expect("a list").iter();
        spans.map(|span| (span["trace_id"].to_string(), span["span_id"].to_string())).collect()
    };
    // All of it twice, the last turns, one in the middle, and the start of one before the whole of it.
    for repeated in [
        [&lines[..], &lines[..]].concat(),
        [&lines[..], &lines[4..]].concat(),
        [&lines[..6], &lines[4..6], &lines[6..]].concat(),
        [&lines[..2], &lines[..]].concat(),
    ] {
        fs::write(&path, repeated.concat()).expect("written");
        let shown = json(&["show", &path, "--json"]);
        let (mut ids, mut expect) = (of_ids(&shown), of_ids(&whole));
        ids.sort();
        expect.sort();
        assert_eq!(ids, expect, "{repeated:#?}");
        let said = home.ctl(&["replay", "--dry-run", &path]);
        assert!(String::from_utf8_lossy(&said.stdout).contains("3 turns, 8 observations"), "{said:?}");
        assert_eq!(tokens(&json(&["reconcile", &path, "--json"])), tokens(&reconciled));
        let text = String::from_utf8(home.ctl(&["show", &path]).stdout).expect("text");
        assert_eq!((text.matches("a3").count(), text.matches("── Bash").count()), (1, 1), "{text}");
    }
    // The same through the daemon.
    let _daemon = home.daemon();
    assert_eq!(home.ctl_with(&["replay", &path], &server.env()).status.code(), Some(0));
    let dry: Value = serde_json::from_slice(&home.ctl_with(&["backfill", "--dry-run", "--json"], &server.env()).stdout)
        .expect("JSON");
    assert_eq!((dry["spans_to_add"].as_u64(), dry["spans_already_sent"].as_u64()), (Some(0), Some(8)), "{dry:#}");
    let sent = server.spans().into_iter().filter(|span| span.observation("type") != "event");
    let sent: BTreeSet<_> = sent.map(|span| (span.trace_id, span.span_id)).collect();
    let shown: BTreeSet<_> =
        of_ids(&whole).into_iter().map(|(trace, span)| (trace.replace('"', ""), span.replace('"', ""))).collect();
    assert_eq!(sent, shown);
}

#[test]
fn a_rewritten_or_moved_transcript_is_followed_without_duplicates() {
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
fn an_answer_written_after_its_stop_is_emitted() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    // How late the answer is, as recorded and on a slow disk.
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
fn an_answer_is_emitted_although_its_stop_was_lost() {
    let (home, server) = (Home::new(), Server::new());
    home.settings("work", &server.env());
    let _daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    story.prompt("q");
    home.hook(&story.event("UserPromptSubmit"), &server.env());
    eventually("the session to be known", || home.status()["sessions"][0]["session_id"] == "s");
    story.answer("a");
    assert_eq!(server.wait_for(2).len(), 2);
}

#[test]
fn the_run_time_of_a_tool_comes_from_its_hook() {
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
    let printed: Vec<_> =
        spans.iter().map(|span| span.observation("metadata.duration_ms")).filter(|ms| !ms.is_empty()).collect();
    assert_eq!(printed, ["1234"]);
    home.flush();
    assert_eq!(server.spans().len(), 4);
}

#[test]
fn unknown_kinds_of_lines_are_listed_with_the_version() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    story.prompt("q").raw(br#"{"type":"brand-new","version":"2.1.400"}"#).raw(br#"{"type":"newer","x":1}"#);
    story.raw(br#"{"type":"brand-new","version":"2.1.99"}"#).answer("a");
    home.hook(&story.stop("a"), &server.env());
    server.wait_for(2);
    let printed = home.ctl(&["status"]);
    let printed = String::from_utf8_lossy(&printed.stdout);
    assert!(printed.contains("2 line kinds since Claude Code 2.1.99: brand-new, newer"), "{printed}");
    assert!(printed.contains("a newer cc-langfuse may read them") && !printed.contains("nothing to do"), "{printed}");
    let known: Vec<_> = home.status()["unknown_kinds"].as_array().expect("a list").clone();
    assert!(known.contains(&json!({"kind": "newer", "version": "2.1.329", "lines": 1})), "{known:?}");

    // Fields are checked if the version is newer than the known ones.
    let line = |version: &str| {
        let message = json!({"role": "user", "content": "q"});
        let line = json!({"type": "user", "uuid": version, "version": version, "newThing": 1, "message": message});
        line.to_string().into_bytes()
    };
    let mut later = Story::new(&home, "work", "later");
    later.raw(&line("2.1.329")).answer("a").raw(&line("2.2.0")).answer("b");
    home.hook(&later.stop("b"), &server.env());
    server.wait_for(6);
    let printed = home.ctl(&["status"]);
    let printed = String::from_utf8_lossy(&printed.stdout);
    assert!(printed.contains("1 field since Claude Code 2.2.0: user.newThing"), "{printed}");
    assert!(printed.contains("there is nothing to do") && !printed.contains("reconcile"), "{printed}");
    // Among the counts of tokens it may be one that matters.
    let newer = line("2.2.1");
    let usage = json!({"input_tokens": 1, "output_tokens": 1, "dream_tokens": 9});
    let message = json!({"id": "m", "role": "assistant", "model": "m", "content": [{"type": "text", "text": "c"}],
        "stop_reason": "end_turn", "usage": usage});
    let line = json!({"type": "assistant", "uuid": "u-c", "version": "2.2.0", "message": message});
    later.raw(&newer).raw(line.to_string().as_bytes());
    home.hook(&later.stop("c"), &server.env());
    server.wait_for(8);
    home.flush();
    let printed = home.ctl(&["status"]);
    let printed = String::from_utf8_lossy(&printed.stdout);
    assert!(printed.contains("assistant.message.usage.dream_tokens") && printed.contains("reconcile"), "{printed}");
}
