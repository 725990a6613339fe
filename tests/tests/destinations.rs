//! Every project has its own server, key and settings, and nothing is mixed up.

use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

use serde_json::json;
use tests::{Answer, Home, MediaApi, Server, Story, home, ids, raw, say, server, tries};

#[test]
fn two_projects_send_to_their_own_servers_with_their_own_keys() {
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
fn after_a_restart_the_secret_is_found_in_the_projects_settings() {
    let home = Home::new();
    let server = Server::answering(|_| Answer::status(500));
    let mut story = Story::new(&home, "work", "s");
    story.turn("q", "a");
    let daemon = home.daemon();
    home.hook(&story.stop("a"), &server.env());
    server.wait_for_requests(1);
    daemon.kill();
    server.change(|_| Answer::ok());
    // A key for another server or public key is not used for this one.
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
fn after_a_restart_the_secret_is_found_in_a_moved_claude_config_directory() {
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
fn a_project_without_a_secret_is_parked_and_status_gives_the_reason() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    story.turn("q", "a");
    let keyless: Vec<_> = server.env().into_iter().filter(|(name, _)| name != "LANGFUSE_SECRET_KEY").collect();
    home.hook(&story.stop("a"), &keyless);
    let status = parked(&home, 2);
    let destination = &status["destinations"][0];
    assert_eq!((&destination["waiting"], &destination["public_key"]), (&json!(2), &json!("pk-lf-test")));
    assert!(destination["last_error"].as_str().is_some_and(|why| why.contains("no secret key")), "{destination}");
    let printed = home.ctl(&["status"]);
    let printed = String::from_utf8_lossy(&printed.stdout);
    assert!(printed.contains("parked") && printed.contains("no secret key"), "{printed}");
    assert_eq!(server.requests().len(), 0);
    // The next hook of a session with the key makes everything arrive.
    home.hook(&story.event("SessionEnd"), &server.env());
    home.flush();
    assert_eq!(server.spans().len(), 2);
}

#[test]
fn status_lists_sessions_and_destinations() {
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
    let printed = home.ctl(&["status"]);
    assert_eq!(printed.status.code(), Some(0));
    let printed = String::from_utf8_lossy(&printed.stdout);
    let mut rows = printed.lines().map(|line| line.split_whitespace().take(2).collect::<Vec<_>>());
    assert!(rows.any(|row| row == ["s", "2"]) && printed.contains(&server.url), "{printed}");
}

#[test]
fn a_projects_options_are_on_every_span() {
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
fn the_user_id_comes_from_git_if_requested() {
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
fn a_sampled_turn_is_complete_or_absent() {
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
fn all_spellings_of_address_and_keys_are_one_destination() {
    let home = Home::new();
    let _daemon = home.daemon();
    let server = Server::new();
    let (url, port) = (&server.url, server.address.port());
    let spellings = [
        url.clone(),
        format!("{url}/"),
        format!("HTTP://127.1:{port}//"),
        format!("http://0x7f.0.0.1:0{port}"),
        format!("http://2130706433:{port}/?x=1"),
        format!("\"{url}\""),
        format!("{url}/api/public/otel"),
        format!("' {url}/api/public/otel/v1/traces/ '"),
    ];
    for (number, spelling) in spellings.iter().enumerate() {
        let mut story = Story::new(&home, &format!("p{number}"), &format!("s-{number}"));
        story.turn("q", "a");
        let quoted = number % 2 == 1;
        let (public, secret) = if quoted { ("\"pk\"", "' sk '\n") } else { ("pk", "sk") };
        home.hook(&story.stop("a"), &server::env(spelling, public, secret));
    }
    home.flush();
    let status = home.status();
    let all: Vec<_> = status["destinations"].as_array().expect("a list").iter().map(|row| &row["base_url"]).collect();
    assert_eq!(all, [&json!(url)]);
    assert_eq!(server.spans().len(), 2 * spellings.len());
    for request in server.requests() {
        assert_eq!((request.path.as_str(), request.key().as_str()), ("/api/public/otel/v1/traces", "pk:sk"));
    }
}

#[test]
fn a_thousand_destinations_do_not_slow_an_event() {
    let count = tries(200, 1500);
    let home = Home::new();
    let daemon = home.daemon();
    let server = Server::new();
    let mut times = Vec::new();
    for number in 0..count {
        let mut story = Story::new(&home, "work", &format!("s-{number}"));
        story.turn("q", "a");
        let env = server::env(&server.url, &format!("pk-{number}"), "sk");
        let event = raw::frame(&format!("{number:016x}"), &story.event("SessionEnd"), &env).encode();
        let started = Instant::now();
        let status = raw::post(&home.paths().socket, &event, Duration::from_secs(10)).expect("an answer");
        assert_eq!(status, 204);
        times.push(started.elapsed());
    }
    home.flush();
    assert_eq!(server.spans().len(), 2 * count);
    // Compared with the first events of this run, so the machine's load does not matter.
    let median = |times: &[Duration]| {
        let mut times = times.to_vec();
        times.sort();
        times[times.len() / 2]
    };
    let (few, many) = (median(&times[..count / 10]), median(&times[count / 2..]));
    assert!(many < 20 * few.max(Duration::from_millis(2)), "{few:?} at first, {many:?} later");
    let peak = daemon.peak_kib().expect("a figure");
    let most = times.iter().max().expect("some");
    say(&format!(
        "{count} destinations: an event takes {few:?} at first, {many:?} later, at most {most:?}; {peak} KiB"
    ));
    assert!(peak < 150 << 10, "{peak} KiB");
}

/// Waits until the only destination refuses and all these observations wait: it refuses the first turn before the others are read.
fn parked(home: &Home, waiting: u64) -> serde_json::Value {
    home.status_until("all to wait for a destination that refuses", |status| {
        let to = &status["destinations"][0];
        to["state"] == "parked" && to["waiting"] == waiting
    })
}

/// An entry of `destinations --json`: its name, state, and how much waits and was delivered.
fn listed(home: &Home, account: &str) -> (String, String, u64, u64) {
    let output = home.ctl(&["destinations", "--json"]);
    let all: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let row = all.as_array().expect("a list").iter().find(|row| row["account"] == account);
    let row = row.unwrap_or_else(|| panic!("{account} is not in {all}"));
    let keys: BTreeSet<&str> = row.as_object().expect("an object").keys().map(String::as_str).collect();
    let expect = ["name", "kind", "address", "account", "state", "waiting", "delivered", "last_error"];
    assert_eq!(keys, BTreeSet::from(expect));
    let text = |key: &str| row[key].as_str().expect("text").to_owned();
    (
        text("name"),
        text("state"),
        row["waiting"].as_u64().expect("a number"),
        row["delivered"].as_u64().expect("a number"),
    )
}

fn said(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// A server whose old key was revoked: it accepts only `pk-new`.
fn rotated(api: &MediaApi) -> Server {
    let api = api.clone();
    let mut paths = BTreeSet::new();
    Server::answering(move |request| match request.key().starts_with("pk-new") || request.method == "PUT" {
        true => api.answer(request),
        false => {
            paths.insert(request.path.clone());
            Answer::status(401)
        }
    })
}

#[test]
fn spans_waiting_for_a_revoked_key_can_be_moved_to_the_new_one() {
    let (home, api) = (Home::new(), MediaApi::default());
    let server = rotated(&api);
    let daemon = home.daemon();
    let keys = |name: &str| server::env(&server.url, &format!("pk-{name}"), &format!("sk-{name}"));
    let image = json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aW1hZ2U="}});
    let mut story = Story::new(&home, "work", "s");
    story.prompt_of(&json!([{"type": "text", "text": "look"}, image])).tool("x").answer("a1");
    home.hook(&story.stop("a1"), &keys("old"));
    home.status_until("the old key to be refused", |status| status["destinations"][0]["state"] == "parked");
    // The session continues with the new key; another one began with the old.
    story.turn("q2", "a2");
    home.settings("work", &keys("new"));
    home.hook(&story.stop("a2"), &keys("new"));
    server.wait_for(2);
    let mut other = Story::new(&home, "work", "other");
    other.turn("q", "a");
    home.hook(&other.stop("a"), &keys("old"));
    home.status_until("all of it to wait", |status| status["destinations"][0]["waiting"] == 6);
    let (old, state, ..) = listed(&home, "pk-old");
    assert_eq!((&*state, listed(&home, "pk-new").3), ("parked", 2));
    let human = said(&home.ctl(&["destinations"]));
    assert!(human.contains("parked") && human.contains("pk-old") && human.contains(&old), "{human}");

    let moved = home.ctl(&["destinations", "move", &old, "pk-new"]);
    assert_eq!(moved.status.code(), Some(0), "{moved:?}");
    assert!(
        said(&moved).contains("6 observations") && said(&moved).contains("images and documents as well"),
        "{moved:?}"
    );
    home.flush();
    let sent: Vec<_> = server.requests().into_iter().filter(|request| request.key().starts_with("pk-new")).collect();
    assert!(!sent.is_empty());
    let spans = server.spans();
    assert_eq!((spans.len(), ids(&spans).len()), (8, 8), "each once");
    assert_eq!(api.files().len(), 1, "the image too");
    let (_, state, waiting, _) = listed(&home, "pk-old");
    assert_eq!((&*state, waiting), ("ok", 0));
    assert_eq!(listed(&home, "pk-new").3, 8);
    // Nothing more moves or comes again, neither after a restart nor with new turns.
    assert!(said(&home.ctl(&["destinations", "move", "pk-old", "pk-new"])).contains("0 observations"));
    daemon.kill();
    let _daemon = home.daemon();
    other.turn("q3", "a3");
    home.hook(&other.stop("a3"), &keys("new"));
    home.flush();
    let spans = server.spans();
    assert_eq!((spans.len(), ids(&spans).len()), (10, 10));
}

#[test]
fn moved_spans_are_not_sent_again_if_the_new_destination_has_them() {
    let (home, api) = (Home::new(), MediaApi::default());
    let server = rotated(&api);
    let _daemon = home.daemon();
    let keys = |name: &str| server::env(&server.url, &format!("pk-{name}"), &format!("sk-{name}"));
    let mut story = Story::new(&home, "work", "s");
    story.turn("q1", "a1").turn("q2", "a2");
    let path = story.path.to_str().expect("UTF-8").to_owned();
    assert_eq!(home.ctl_with(&["replay", &path], &keys("new")).status.code(), Some(0));
    assert_eq!(server.spans().len(), 4);
    home.settings("work", &keys("old"));
    home.hook(&story.stop("a2"), &keys("old"));
    let mut other = Story::new(&home, "work", "other");
    other.turn("q", "a");
    home.hook(&other.stop("a"), &keys("old"));
    // Of both sessions, two each: what is read after the move waits for the old key again.
    home.status_until("both sessions to wait", |_| {
        listed(&home, "pk-old").1 == "parked" && listed(&home, "pk-old").2 == 4
    });
    let waiting = listed(&home, "pk-old").2;
    home.settings("work", &keys("new"));
    let moved = home.ctl(&["destinations", "move", "pk-old", "pk-new"]);
    assert_eq!(moved.status.code(), Some(0), "{moved:?}");
    home.flush();
    let spans = server.spans();
    assert_eq!((spans.len(), ids(&spans).len()), (6, 6), "{waiting} waited: {moved:?}");
}

#[test]
fn waiting_spans_can_be_moved_to_another_kind_of_destination() {
    let home = Home::new();
    let (refusing, receiver) = (Server::answering(|_| Answer::status(401)), Server::new());
    let _daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    story.prompt("q").tool("x").answer("a");
    home.hook(&story.stop("a"), &refusing.env());
    parked(&home, 4);
    let otlp = [("CC_LANGFUSE_OTLP_ENDPOINT".to_owned(), format!("{}/v1/traces", receiver.url))];
    let mut other = Story::new(&home, "elsewhere", "other");
    other.turn("q", "a");
    home.hook(&other.stop("a"), &otlp);
    receiver.wait_for(2);
    let list = home.ctl(&["destinations", "--json"]);
    let list: serde_json::Value = serde_json::from_slice(&list.stdout).expect("JSON");
    let name = |kind: &str| {
        let row = list.as_array().expect("a list").iter().find(|row| row["kind"] == kind);
        row.expect(kind)["name"].as_str().expect("text").to_owned()
    };
    let moved = home.ctl(&["destinations", "move", &name("langfuse"), &name("otlp")]);
    assert_eq!(moved.status.code(), Some(0), "{moved:?}");
    let spans = receiver.wait_for(6);
    assert_eq!((spans.len(), ids(&spans).len()), (6, 6));
    assert!(spans.iter().all(|span| !span.attrs.keys().any(|key| key.starts_with("langfuse."))), "in its own words");
}

#[test]
fn dropping_waiting_spans_asks_first_and_counts_them() {
    let home = Home::new();
    let server = Server::answering(|_| Answer::status(401));
    let daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    story.turn("q1", "a1").turn("q2", "a2");
    home.settings("work", &server.env());
    home.hook(&story.stop("a2"), &server.env());
    parked(&home, 4);
    let name = listed(&home, "pk-lf-test").0;
    for (args, expect) in [
        (vec!["destinations", "drop", &name], "4 observations"),
        (vec!["destinations", "drop", "--yes", "langfuse-99"], "did you mean"),
        (vec!["destinations", "move", &name, &name], "the same"),
        (vec!["destinations", "move", &name, "nowhere"], "no destination nowhere"),
    ] {
        let refused = home.ctl(&args);
        assert_ne!(refused.status.code(), Some(0), "{args:?}");
        assert!(said(&refused).contains(expect), "{args:?}: {refused:?}");
    }
    assert_eq!(listed(&home, "pk-lf-test").2, 4, "nothing is gone unasked");
    let dropped = home.ctl(&["destinations", "drop", "--yes", &name]);
    assert_eq!(dropped.status.code(), Some(0), "{dropped:?}");
    let status = home.status();
    assert_eq!(status["skipped_lines"]["dropped_spans"], 4, "{status}");
    assert!(said(&home.ctl(&["status"])).contains("4 observations dropped with a destination"));
    daemon.kill();
    server.change(|_| Answer::ok());
    let _daemon = home.daemon();
    story.turn("q3", "a3");
    home.hook(&story.stop("a3"), &server.env());
    home.flush();
    let spans = server.spans();
    assert!(spans.iter().all(|span| !span.content("input").contains("q1") && !span.content("input").contains("q2")));
    assert_eq!((spans.len(), listed(&home, "pk-lf-test").2), (2, 0));
}
