//! Turns from while a project is paused stay on this machine.

use serde_json::json;
use tests::{Home, Server, Story};

fn done(home: &Home, args: &[&str]) -> String {
    let output = home.ctl(args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn turns_during_a_pause_are_never_sent_and_other_projects_continue() {
    let (home, server) = (Home::new(), Server::new());
    home.settings("secret", &server.env());
    home.settings("open", &server.env());
    let daemon = home.daemon();
    let (mut secret, mut open) = (Story::new(&home, "secret", "s"), Story::new(&home, "open", "o"));
    secret.turn("q1", "before");
    home.hook(&secret.stop("before"), &server.env());
    server.wait_for(2);
    let dir = secret.cwd.canonicalize().expect("a project");
    assert!(done(&home, &["pause", dir.to_str().expect("UTF-8")]).contains("paused"));
    assert_eq!(home.status()["paused"], json!([dir]));
    assert!(done(&home, &["status"]).contains("paused"));

    secret.turn("q2", "meanwhile");
    home.hook(&secret.stop("meanwhile"), &server.env());
    open.turn("q", "another");
    home.hook(&open.stop("another"), &server.env());
    server.wait_for(4);
    home.flush();
    // A restart forgets neither the pause nor the skipped turns.
    assert!(daemon.terminate().success());
    let _daemon = home.daemon();
    secret.turn("q3", "meanwhile too");
    home.hook(&secret.stop("meanwhile too"), &server.env());
    home.flush();
    assert_eq!(server.spans().len(), 4);

    done(&home, &["resume", dir.to_str().expect("UTF-8")]);
    secret.turn("q4", "after");
    home.hook(&secret.stop("after"), &server.env());
    server.wait_for(6);
    home.hook(&secret.event("SessionEnd"), &server.env());
    let replayed = home.ctl_with(&["replay", secret.path.to_str().expect("UTF-8")], &server.env());
    assert_eq!(replayed.status.code(), Some(0), "{replayed:?}");
    home.flush();
    let mut roots: Vec<_> = server.spans().into_iter().filter(|span| span.is_root()).collect();
    roots.sort_by_key(|span| (span.get("session.id").to_owned(), span.name.clone()));
    let arrived: Vec<_> = roots.iter().map(|span| (span.name.as_str(), span.content("output"))).collect();
    let arrived: Vec<_> = arrived.iter().map(|(name, output)| (*name, output.as_str())).collect();
    assert_eq!(arrived, [("Turn 1", "another"), ("Turn 1", "before"), ("Turn 4", "after")]);

    let elsewhere = Server::new();
    let output = home.ctl_with(&["backfill", "--yes", "--json"], &elsewhere.env());
    let figures: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&figures["spans_queued"], &figures["spans_withheld"]), (&json!(6), &json!(4)), "{output:?}");
    let outputs: Vec<_> = elsewhere.spans().iter().map(|span| span.content("output")).collect();
    assert!(outputs.len() == 6 && outputs.iter().all(|said| !said.contains("meanwhile")), "{outputs:?}");
}

#[test]
fn pausing_everything_includes_every_project() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    done(&home, &["pause", "--all"]);
    let mut story = Story::new(&home, "work", "s");
    story.turn("q", "a");
    home.hook(&story.stop("a"), &server.env());
    home.flush();
    let one = home.ctl(&["resume", story.cwd.to_str().expect("UTF-8")]);
    assert_eq!(one.status.code(), Some(1), "{one:?}");
    assert!(String::from_utf8_lossy(&one.stdout).contains("resume --all"), "{one:?}");
    // A pause of one project outlives it, and is named.
    let own = home.project("own").canonicalize().expect("there");
    let own = own.to_str().expect("UTF-8");
    done(&home, &["pause", own]);
    let all = home.ctl(&["resume", "--all"]);
    assert!(all.status.code() == Some(1) && String::from_utf8_lossy(&all.stdout).contains(own), "{all:?}");
    done(&home, &["resume", own]);
    done(&home, &["resume", "--all"]);
    story.turn("q2", "b");
    home.hook(&story.stop("b"), &server.env());
    assert_eq!(server.wait_for(2).len(), 2);
    home.flush();
    assert_eq!(server.spans().len(), 2);
    let nowhere = home.ctl(&["pause", "nowhere/at/all"]);
    assert_eq!(nowhere.status.code(), Some(1), "{nowhere:?}");
    let gone = home.project("gone").canonicalize().expect("a directory");
    done(&home, &["pause", gone.to_str().expect("UTF-8")]);
    std::fs::remove_dir(&gone).expect("removed");
    done(&home, &["resume", gone.to_str().expect("UTF-8")]);
    assert_eq!(home.status()["paused"], json!([]));
}

#[test]
fn turns_from_a_pause_that_are_read_later_are_not_sent_either() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    // No event leads to this session before the pause is over.
    let mut story = Story::new(&home, "secret", "s");
    let dir = story.cwd.to_str().expect("UTF-8").to_owned();
    let turn = |story: &mut Story, number: usize, at: &str| {
        let ask = json!({"role": "user", "content": "q"});
        let say = json!({"id": format!("msg-{number}"), "role": "assistant", "model": "claude-haiku-4-5", "stop_reason": "end_turn",
            "content": [{"type": "text", "text": format!("a{number}")}], "usage": {"input_tokens": 1, "output_tokens": 1}});
        for (kind, message) in [("user", ask), ("assistant", say)] {
            let uuid = format!("{kind}-{number}");
            let line = json!({"type": kind, "uuid": uuid, "timestamp": at, "message": message});
            story.raw(line.to_string().as_bytes());
        }
    };
    done(&home, &["pause", &dir]);
    turn(&mut story, 1, "2026-11-01T10:00:00.000Z");
    let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970");
    turn(&mut story, 2, &tests::langfuse::time(u64::try_from(now.as_nanos()).expect("before 2554")));
    done(&home, &["resume", &dir]);
    turn(&mut story, 3, "2099-01-01T10:00:00.000Z");
    home.hook(&story.stop("a3"), &server.env());
    server.wait_for(4);
    home.flush();
    let outputs: std::collections::BTreeSet<_> = server.spans().iter().map(|span| span.content("output")).collect();
    assert_eq!(outputs, ["a1".to_owned(), "a3".to_owned()].into());
}
