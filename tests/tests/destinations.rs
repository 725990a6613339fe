//! Every project has its own server, key and settings, and nothing is mixed up.

use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

use serde_json::json;
use tests::{Answer, Home, Server, Story, home, ids, raw, say, server, tries};

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
fn however_its_address_and_keys_are_written_a_server_is_one_destination() {
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
fn a_thousand_destinations_cost_an_event_nothing() {
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
    times.sort();
    let median = times[count / 2];
    assert!(median < Duration::from_millis(100), "{median:?}, at most {:?}", times[count - 1]);
    let peak = daemon.peak_kib().expect("a figure");
    say(&format!("{count} destinations: an event takes {median:?}, at most {:?}; {peak} KiB", times[count - 1]));
    assert!(peak < 150 << 10, "{peak} KiB");
}
