//! Off means off: turns from while tracing was off in a project are not sent, then or later, unless the user
//! asks for history.

use std::time::UNIX_EPOCH;

use serde_json::json;
use tests::{Daemon, Home, Server, Story, eventually, home::settings, langfuse::time};

/// Adds a turn with the present time.
fn say(story: &mut Story, number: usize, words: &str) {
    let now = || time(u64::try_from(UNIX_EPOCH.elapsed().expect("after 1970").as_nanos()).expect("before 2554"));
    let session = story.path.file_stem().and_then(|name| name.to_str()).expect("a name").to_owned();
    let cwd = story.cwd.clone();
    let ask = json!({"role": "user", "content": format!("q {words}")});
    let say = json!({"id": format!("msg-{session}-{number}"), "role": "assistant", "model": "claude-haiku-4-5",
        "stop_reason": "end_turn", "content": [{"type": "text", "text": words}], "usage": {"input_tokens": 1, "output_tokens": 1}});
    for (kind, message) in [("user", ask), ("assistant", say)] {
        let uuid = format!("{kind}-{session}-{number}");
        let line = json!({"type": kind, "uuid": uuid, "timestamp": now(), "sessionId": session, "cwd": cwd, "message": message});
        story.raw(line.to_string().as_bytes());
    }
}

fn said(server: &Server) -> Vec<String> {
    let mut said: Vec<_> =
        server.spans().iter().filter(|span| span.is_root()).map(|span| span.content("output")).collect();
    said.retain(|said| !said.starts_with(FOUND));
    said.sort();
    said
}

/// A prompt in a project that is always on, so that a test can see the end of the scan at the start: the session
/// written last is found last.
const FOUND: &str = "found";

/// Kills the daemon, starts it again, and waits until it has examined everything.
fn restart(home: &Home, server: &Server, daemon: Daemon, number: usize) -> Daemon {
    // An unacknowledged batch comes again.
    settle(home);
    daemon.kill();
    home.settings("found", &server.env());
    let words = format!("{FOUND} {number}");
    say(&mut Story::new(home, "found", &format!("found-{number}")), 1, &words);
    let daemon = home.daemon();
    eventually("the search", || server.spans().iter().any(|span| span.content("output") == words));
    settle(home);
    daemon
}

fn with(env: &[(String, String)], switch: &str) -> Vec<(String, String)> {
    let set = |(name, value): &(String, String)| {
        let value = if name == "TRACE_TO_LANGFUSE" { switch } else { value };
        (name.clone(), value.to_owned())
    };
    env.iter().map(set).collect()
}

/// Waits twice until the daemon has examined everything: once for known sessions, once for found ones.
fn settle(home: &Home) {
    home.flush();
    home.flush();
}

fn left_out(home: &Home) -> u64 {
    home.status()["skipped_lines"]["turn_while_off"].as_u64().unwrap_or(0)
}

#[test]
fn turns_after_tracing_was_turned_off_are_not_sent() {
    for (how, again, remove) in [("followed", false, false), ("resumed", true, false), ("settings gone", true, true)] {
        let (home, server) = (Home::new(), Server::new());
        home.settings("work", &server.env());
        let mut daemon = home.daemon();
        let mut story = Story::new(&home, "work", "s");
        say(&mut story, 1, "public");
        home.hook(&story.stop("public"), &server.env());
        server.wait_for(2);
        home.flush();
        // Its hooks are ignored from now on.
        home.settings("work", &with(&server.env(), "false"));
        if remove {
            std::fs::remove_file(story.cwd.join(".claude/settings.local.json")).expect("removed");
        }
        say(&mut story, 2, "PRIVATE");
        home.hook(&story.stop("PRIVATE"), &with(&server.env(), "false"));
        if again {
            daemon = restart(&home, &server, daemon, 1);
        }
        home.status_until("the project to be seen off", |status| status["off"] == json!([story.cwd]));
        settle(&home);
        assert_eq!(said(&server), ["public"], "{how}");
        // On again: turns from the time in between stay here, new ones are sent.
        home.settings("work", &server.env());
        say(&mut story, 3, "public again");
        home.hook(&story.stop("public again"), &server.env());
        eventually("what is said now", || said(&server).len() == 2);
        daemon = restart(&home, &server, daemon, 2);
        assert_eq!(said(&server), ["public", "public again"], "{how}");
        assert_eq!(left_out(&home), 1, "{how}");
        // The user asks for history.
        let asked = home.ctl_with(&["backfill", "--yes"], &[]);
        assert_eq!(asked.status.code(), Some(0), "{asked:?}");
        assert_eq!(said(&server), ["PRIVATE", "public", "public again"], "{how}");
        drop(daemon);
    }
}

#[test]
fn turns_from_before_tracing_was_turned_on_are_not_sent_if_it_was_seen_off() {
    for unset in [false, true] {
        let (home, server) = (Home::new(), Server::new());
        if !unset {
            home.settings("work", &with(&server.env(), "false"));
        }
        let mut daemon = home.daemon();
        let (mut one, mut two) = (Story::new(&home, "work", "one"), Story::new(&home, "work", "two"));
        say(&mut one, 1, "PRIVATE one");
        say(&mut two, 1, "PRIVATE two");
        // The scan at the start sees that the project is off.
        daemon = restart(&home, &server, daemon, 1);
        home.settings("work", &server.env());
        daemon = restart(&home, &server, daemon, 2);
        assert_eq!(said(&server), [""; 0], "{unset}");
        say(&mut two, 2, "on now");
        home.hook(&two.stop("on now"), &server.env());
        eventually("what is said now", || said(&server) == ["on now"]);
        settle(&home);
        assert_eq!(said(&server), ["on now"]);
        drop(daemon);
    }
}

#[test]
fn a_project_never_seen_off_is_sent_from_the_start_of_its_transcript() {
    for (from_now, expect) in [(false, &["earlier", "now"][..]), (true, &["now"])] {
        let (home, server) = (Home::new(), Server::new());
        if from_now {
            home.configure("from_now = true\n");
        }
        home.settings("work", &server.env());
        let mut story = Story::new(&home, "work", "s");
        say(&mut story, 1, "earlier");
        let _daemon = home.daemon();
        say(&mut story, 2, "now");
        home.hook(&story.stop("now"), &server.env());
        eventually("the turns", || said(&server) == expect);
        settle(&home);
        assert_eq!(said(&server), expect);
    }
}

#[test]
fn a_session_traced_only_by_its_environment_is_not_read_beyond_its_events() {
    let (home, server) = (Home::new(), Server::new());
    let mut daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    say(&mut story, 1, "by environment");
    home.hook(&story.stop("by environment"), &server.env());
    server.wait_for(2);
    home.flush();
    say(&mut story, 2, "PRIVATE");
    home.status_until("the project to be seen off", |status| status["off"] == json!([story.cwd]));
    daemon = restart(&home, &server, daemon, 1);
    assert_eq!(said(&server), ["by environment"]);
    say(&mut story, 3, "by environment again");
    home.hook(&story.stop("by environment again"), &server.env());
    eventually("the next turn", || said(&server).len() == 2);
    settle(&home);
    assert_eq!(said(&server), ["by environment", "by environment again"]);
    drop(daemon);
}

#[test]
fn a_session_traced_by_its_environment_is_sent_up_to_its_last_event() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    let (mut one, mut two) = (Story::new(&home, "work", "one"), Story::new(&home, "work", "two"));
    say(&mut two, 1, "before");
    say(&mut one, 1, "by environment");
    home.hook(&one.stop("by environment"), &server.env());
    server.wait_for(2);
    say(&mut one, 2, "PRIVATE one");
    home.status_until("the project to be seen off", |status| status["off"] == json!([one.cwd]));
    say(&mut two, 2, "PRIVATE two");
    say(&mut two, 3, "now");
    home.hook(&two.stop("now"), &server.env());
    eventually("the second session", || said(&server) == ["before", "by environment", "now"]);
    settle(&home);
    assert_eq!((said(&server).len(), left_out(&home)), (3, 1));
}

#[test]
fn settings_files_are_resolved_like_in_claude_code() {
    let (home, server) = (Home::new(), Server::new());
    // The user's settings turn tracing on, the project's turn it off.
    settings(&home.path().join(".claude/settings.json"), &server.env());
    let off = [("TRACE_TO_LANGFUSE".to_owned(), "false".to_owned())];
    for (project, file) in [("shared", "settings.json"), ("local", "settings.local.json")] {
        settings(&home.project(project).join(".claude").join(file), &off);
    }
    let mut daemon = home.daemon();
    for project in ["shared", "local", "open"] {
        say(&mut Story::new(&home, project, project), 1, project);
    }
    daemon = restart(&home, &server, daemon, 1);
    assert_eq!(said(&server), ["open"]);
    drop(daemon);
}
