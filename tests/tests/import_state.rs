//! Users who switch from the Node tool get nothing sent twice.

use std::fs;

use serde_json::{Value, json};
use tests::{Home, Server, Span, Story, ids};

fn state(home: &Home, text: &str) {
    let path = home.path().join(".claude/state/cc-langfuse_state.json");
    fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
    fs::write(path, text).expect("the state");
}

fn entry(lines: usize, turns: usize) -> Value {
    json!({"last_line": lines, "turn_count": turns, "updated": "2026-11-20T08:00:00.000Z"})
}

fn roots(spans: &[Span]) -> Vec<String> {
    let mut names: Vec<String> = spans.iter().filter(|span| span.is_root()).map(|span| span.name.clone()).collect();
    names.sort();
    names
}

#[test]
fn at_the_first_start_sessions_continue_where_the_node_tool_stopped() {
    let (home, server) = (Home::new(), Server::new());
    let mut story = Story::new(&home, "work", "s");
    story.turn("q1", "a1").turn("q2", "a2");
    state(&home, &json!({"s": entry(4, 2), "elsewhere": entry(9, 3)}).to_string());
    let daemon = home.daemon();
    assert_eq!(home.status()["imported"], 2);
    assert!(home.log().contains("the Node tool"), "{}", home.log());
    story.turn("q3", "a3");
    home.hook(&story.stop("a3"), &server.env());
    home.flush();
    assert_eq!((server.spans().len(), roots(&server.spans())), (2, vec!["Turn 3".to_owned()]));
    // Neither another start nor a backfill changes that.
    assert!(daemon.terminate().success());
    let _daemon = home.daemon();
    story.turn("q4", "a4");
    home.hook(&story.stop("a4"), &server.env());
    home.flush();
    let output = home.ctl_with(&["backfill", "--yes", "--json"], &server.env());
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((output.status.code(), &report["spans_queued"], &report["turns"]), (Some(0), &json!(0), &json!(2)));
    assert_eq!(roots(&server.spans()), ["Turn 3", "Turn 4"]);
    assert_eq!((server.spans().len(), ids(&server.spans()).len()), (4, 4));
}

#[test]
fn a_turn_that_the_node_tool_sent_partly_is_not_sent_again() {
    for (lines, before, expect) in
        [(3, 1, vec!["Turn 2"]), (5, 2, vec![]), (500, 7, vec!["Turn 8"]), (0, 0, vec!["Turn 1", "Turn 2", "Turn 3"])]
    {
        let (home, server) = (Home::new(), Server::new());
        let mut story = Story::new(&home, "work", "s");
        story.turn("q1", "a1").turn("q2", "a2");
        state(&home, &json!({"s": entry(lines, before)}).to_string());
        let _daemon = home.daemon();
        if lines == 500 {
            home.hook(&story.stop("a2"), &server.env());
            home.flush();
            assert_eq!(server.spans(), []);
        }
        story.turn("q3", "a3");
        home.hook(&story.stop("a3"), &server.env());
        home.flush();
        assert_eq!(roots(&server.spans()), expect, "{lines} lines");
    }
}

#[test]
fn import_state_does_not_change_sessions_that_were_read() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    let (mut known, mut new) = (Story::new(&home, "work", "known"), Story::new(&home, "work", "new"));
    known.turn("q1", "a1");
    home.hook(&known.stop("a1"), &server.env());
    home.flush();
    let file = home.path().join("state.json");
    fs::write(&file, json!({"known": entry(40, 20), "new": entry(2, 1)}).to_string()).expect("written");
    let output = home.ctl(&["import-state", &file.to_string_lossy(), "--json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report, json!({"imported": 1, "known": 1}));
    known.turn("q2", "a2");
    new.turn("q1", "a1").turn("q2", "a2");
    home.hook(&known.stop("a2"), &server.env());
    home.hook(&new.stop("a2"), &server.env());
    home.flush();
    assert_eq!(roots(&server.spans()), ["Turn 1", "Turn 2", "Turn 2"]);
}

#[test]
fn an_invalid_state_file_is_refused_as_a_whole() {
    let home = Home::new();
    let odd = json!({"good": entry(4, 2), "odd": {"last_line": "four", "turn_count": 1}}).to_string();
    state(&home, &odd);
    let daemon = home.daemon();
    assert_eq!(home.status()["imported"], 0);
    assert!(home.log().contains("`last_line` of session odd"), "{}", home.log());
    let output = home.ctl(&["import-state"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("`last_line` of session odd"), "{said}");
    let missing = home.ctl(&["import-state", "/nowhere.json"]);
    assert_eq!(missing.status.code(), Some(1));
    // Once fixed, it is imported at the next start.
    assert!(daemon.terminate().success());
    state(&home, &json!({"good": entry(4, 2)}).to_string());
    let daemon = home.daemon();
    assert_eq!(home.status()["imported"], 1);
    drop(daemon);
    assert_eq!(home.ctl(&["import-state"]).status.code(), Some(3));
}
