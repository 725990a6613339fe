//! What went wrong in a turn or session arrives as scores, each once, beside the spans, which never wait for them.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tests::{Answer, Home, Request, Server, Story, eventually, lines::Lines, scores};

/// Names and values of the scores of a trace, or of a session.
fn values(scores: &[Value], of: &str) -> BTreeMap<String, Value> {
    let is_its = |score: &&Value| score["traceId"] == of || score["sessionId"] == of;
    let pair = |score: &Value| (score["name"].as_str().expect("a name").to_owned(), score["value"].clone());
    let found: Vec<_> = scores.iter().filter(is_its).map(pair).collect();
    let map: BTreeMap<_, _> = found.iter().cloned().collect();
    assert_eq!(map.len(), found.len(), "a name twice: {found:?}");
    map
}

/// The trace of the turn whose prompt is `prompt`.
fn trace(server: &Server, prompt: &str) -> String {
    let root = server.spans().into_iter().rfind(|span| span.is_root() && span.content("input") == prompt);
    root.unwrap_or_else(|| panic!("no turn {prompt}")).trace_id
}

fn map(pairs: &[(&str, Value)]) -> BTreeMap<String, Value> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

fn settled(home: &Home) {
    home.status_until("the scores to be settled", |status| status["scores"]["pending"] == 0);
}

fn end(home: &Home, story: &Story, env: &[(String, String)]) {
    home.hook(&story.event("SessionEnd"), env);
    home.flush();
    settled(home);
}

/// A session with one failed tool in its only turn, which is over.
fn one_failure(home: &Home, session: &str) -> Lines {
    let mut lines = Lines::new(home, session);
    lines.prompt(&format!("do {session}")).call().result(true, None).answer("done");
    lines
}

#[test]
fn each_turn_has_the_facts_that_say_something_and_the_session_its_outcome() {
    let (home, server) = (Home::new(), Server::new());
    let mut env = server.env();
    env.push(("LANGFUSE_TRACING_ENVIRONMENT".into(), "staging".into()));
    home.settings("work", &env);
    let daemon = home.daemon();
    let mut lines = Lines::new(&home, "s");
    lines.prompt("fine").call().result(false, None).answer("good");
    lines.prompt("fails").call().result(true, None).call().result(true, None).answer("sorry");
    lines.prompt("denied").call().result(true, Some("user-rejected")).interrupted();
    lines.prompt("stopped").call().result(true, Some("interrupted")).interrupted();
    lines.prompt("retried").retry(1).retry(2).answer("at last");
    lines.prompt("broken").retry(1).failed();
    home.hook(&lines.story.event("StopFailure"), &env);
    home.flush();
    end(&home, &lines.story, &env);
    let scores = server.scores();
    for (prompt, expect) in [
        ("fine", map(&[])),
        ("fails", map(&[("tool_failures", json!(2.0))])),
        ("denied", map(&[("permission_denied", json!(1.0)), ("interrupted", json!(1))])),
        ("stopped", map(&[("interrupted", json!(1))])),
        ("retried", map(&[("retries", json!(2.0))])),
        ("broken", map(&[("retries", json!(1.0)), ("api_error", json!(1))])),
    ] {
        assert_eq!(values(&scores, &trace(&server, prompt)), expect, "{prompt}");
    }
    assert_eq!(values(&scores, "s"), map(&[("outcome", json!("errored"))]));
    assert_eq!(scores.len(), 8);
    for score in &scores {
        assert!(score["environment"] == "staging" && score.get("observationId").is_none(), "{score}");
    }
    let outcome = scores.iter().find(|score| score["name"] == "outcome").expect("one");
    assert_eq!(outcome["comment"], "an API error ended the last turn");
    let event = server.score_events().into_iter().find(|event| event["body"]["name"] == "outcome").expect("one");
    assert_eq!(event["timestamp"], "2026-11-20T08:00:25Z", "the last turn's end");
    assert_eq!(server.score_events().len(), 8);
    let key = server.score_requests()[0].key();
    assert_eq!(key, "pk-lf-test:sk-lf-test");

    // Neither a restart, nor the same end again, nor a replay says it twice.
    daemon.kill();
    let _daemon = home.daemon();
    end(&home, &lines.story, &env);
    let replayed = home.ctl_with(&["replay", lines.story.path.to_str().expect("UTF-8")], &env);
    assert!(replayed.status.success(), "{replayed:?}");
    home.flush();
    settled(&home);
    assert_eq!(server.score_events().len(), 8);
    // The session continues, and ends well: its outcome is another one, with the same id.
    lines.prompt("again").answer("good");
    home.hook(&lines.story.stop("good"), &env);
    end(&home, &lines.story, &env);
    let scores = server.scores();
    assert_eq!((scores.len(), server.score_events().len()), (8, 9));
    assert_eq!(values(&scores, "s"), map(&[("outcome", json!("completed"))]));
}

#[test]
fn a_session_ends_in_one_of_four_ways() {
    let (home, server) = (Home::new(), Server::new());
    home.settings("work", &server.env());
    let _daemon = home.daemon();
    type Tail = fn(&mut Lines) -> &mut Lines;
    let ways: [(&str, Tail, &str); 6] = [
        ("answered", |lines| lines, "completed"),
        ("stopped", |lines| lines.prompt("more").call().interrupted(), "interrupted"),
        ("broken", |lines| lines.prompt("more").failed(), "errored"),
        ("unanswered", |lines| lines.prompt("more"), "abandoned"),
        ("at-work", |lines| lines.prompt("more").call(), "abandoned"),
        ("recovered", |lines| lines.prompt("more").failed().answer("well"), "completed"),
    ];
    for (session, tail, outcome) in ways {
        let mut lines = Lines::new(&home, session);
        tail(lines.prompt("one").answer("first"));
        end(&home, &lines.story, &server.env());
        assert_eq!(values(&server.scores(), session), map(&[("outcome", json!(outcome))]), "{session}");
    }
}

#[test]
fn a_turn_that_the_user_went_back_to_before_is_rewound_and_stays_as_it_was() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    let mut lines = Lines::new(&home, "s");
    lines.prompt("one").answer("first");
    let before = lines.last.clone();
    lines.prompt("two").answer("second");
    home.hook(&lines.story.stop("second"), &server.env());
    server.wait_for(4);
    let two = trace(&server, "two");
    lines.last = before;
    lines.prompt("instead").answer("third");
    home.hook(&lines.story.stop("third"), &server.env());
    let scores = server.wait_for_scores(1);
    home.flush();
    assert_eq!(values(&scores, &two), map(&[("rewound", json!(1))]));
    assert_eq!(server.spans().iter().filter(|span| span.trace_id == two && span.is_root()).count(), 1);
    settled(&home);
    assert_eq!(server.score_events().len(), 1);
}

#[test]
fn what_a_subagent_met_is_said_of_the_subagent() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    let mut lines = Lines::new(&home, "s");
    let task = json!({"description": "look", "prompt": "look around", "subagent_type": "Explore"});
    lines.prompt("go");
    lines.block(&json!({"type": "tool_use", "id": "toolu-task", "name": "Agent", "input": task}), "tool_use");
    let dir = lines.story.path.with_extension("").join("subagents");
    std::fs::create_dir_all(&dir).expect("a directory");
    let mut agent = Lines::new(&home, "s");
    agent.story.path = dir.join("agent-a1.jsonl");
    agent.prompt("look around").call().result(true, None).answer("seen");
    let text = std::fs::read_to_string(&agent.story.path).expect("its transcript");
    let text = text.replace("\"isSidechain\":false", "\"isSidechain\":true,\"agentId\":\"a1\"");
    std::fs::write(&agent.story.path, text.replace("\"s-", "\"agent-")).expect("written");
    let block =
        json!({"type": "tool_result", "tool_use_id": "toolu-task", "content": [{"type": "text", "text": "seen"}]});
    let result = json!({"agentId": "a1", "status": "completed"});
    let message = json!({"role": "user", "content": [block]});
    lines.line(json!({"type": "user", "toolUseResult": result, "message": message})).answer("done");
    home.hook(&lines.story.stop("done"), &server.env());
    home.hook(&lines.story.event("SessionEnd"), &server.env());
    home.flush();
    settled(&home);
    let scores = server.scores();
    let failure = scores.iter().find(|score| score["name"] == "tool_failures").unwrap_or_else(|| panic!("{scores:?}"));
    let span = server.spans().into_iter().find(|span| span.name == "Explore").expect("the subagent");
    assert_eq!((&failure["traceId"], &failure["observationId"]), (&json!(span.trace_id), &json!(span.span_id)));
    assert_eq!((scores.len(), failure["value"].clone()), (2, json!(1.0)), "{scores:?}");
}

#[test]
fn off_means_off() {
    let (home, server) = (Home::new(), Server::new());
    let mut env = server.env();
    env.push(("CC_LANGFUSE_SCORES".into(), "Off".into()));
    home.settings("work", &env);
    let daemon = home.daemon();
    let lines = one_failure(&home, "s");
    home.hook(&lines.story.stop("done"), &env);
    end(&home, &lines.story, &env);
    assert!(server.spans().len() >= 4 && server.score_requests().is_empty(), "{:?}", server.scores());
    // A repository can switch them off, and not on against the user.
    let of_repository = home.project("work").join(".claude/settings.json");
    std::fs::remove_file(home.project("work").join(".claude/settings.local.json")).expect("removed");
    tests::home::settings(&of_repository, &[("CC_LANGFUSE_SCORES".into(), "on".into())]);
    tests::home::settings(&home.path().join(".claude/settings.json"), &env);
    let mut received = server.env();
    received.push(("CC_LANGFUSE_SCORES".into(), "on".into()));
    let lines = one_failure(&home, "t");
    home.hook(&lines.story.stop("done"), &received);
    end(&home, &lines.story, &received);
    assert!(server.score_requests().is_empty(), "{:?}", server.scores());
    daemon.kill();
}

#[test]
fn a_paused_project_and_a_forgotten_turn_have_no_scores() {
    let (home, server) = (Home::new(), Server::new());
    home.settings("work", &server.env());
    let _daemon = home.daemon();
    let dir = home.project("work").canonicalize().expect("a project");
    let dir = dir.to_str().expect("UTF-8");
    assert!(home.ctl(&["pause", dir]).status.success());
    let mut lines = one_failure(&home, "s");
    home.hook(&lines.story.stop("done"), &server.env());
    end(&home, &lines.story, &server.env());
    assert!(home.ctl(&["resume", dir]).status.success());
    assert!(server.score_requests().is_empty() && server.spans().is_empty());

    server.change_scores(|_| Answer::status(503));
    lines.prompt("later").call().result(true, None).answer("so");
    home.hook(&lines.story.stop("so"), &server.env());
    home.status_until("the score to wait", |status| status["scores"]["pending"] == 1);
    home.flush();
    assert!(home.ctl(&["forget", "--yes", "s"]).status.success());
    assert_eq!(home.status()["scores"]["pending"], 0);
    server.change_scores(|_| Answer::ok());
    end(&home, &lines.story, &server.env());
    let replayed = home.ctl_with(&["replay", lines.story.path.to_str().expect("UTF-8")], &server.env());
    assert!(replayed.status.success(), "{replayed:?}");
    home.flush();
    settled(&home);
    assert_eq!(server.scores(), [json!(null); 0]);
}

#[test]
fn the_server_says_of_each_score_what_became_of_it() {
    let (home, server) = (Home::new(), Server::new());
    home.settings("work", &server.env());
    let _daemon = home.daemon();
    // One is refused for good, one fails for now.
    let mut failures = 0;
    server.change_scores(move |request| by_name(request, &mut failures));
    let mut lines = Lines::new(&home, "s");
    lines.prompt("bad").retry(1).call().result(true, None).call().result(true, Some("user-rejected")).interrupted();
    end_without_waiting(&home, &lines.story, &server);
    settled(&home);
    let taken: Vec<Value> = said_yes(&server);
    let names: std::collections::BTreeSet<_> =
        taken.iter().map(|body| body["name"].as_str().expect("a name")).collect();
    assert_eq!(names, ["interrupted", "outcome", "permission_denied", "retries"].into(), "all but the refused one");
    let letters = home.ctl(&["dead-letters"]);
    let shown = String::from_utf8_lossy(&letters.stdout);
    assert!(shown.contains("HTTP 400") && shown.contains("no such name"), "{letters:?}");
    assert_eq!(home.status()["dead_letters"], 1);
    assert_eq!(server.spans().iter().filter(|span| span.is_root()).count(), 1);
    // It can be retried like a span.
    server.change_scores(|_| Answer::ok());
    let retried = home.ctl(&["dead-letters", "--retry", "all"]);
    assert!(retried.status.success(), "{retried:?}");
    let scores = server.wait_for_scores(1);
    assert_eq!(scores[0]["name"], "tool_failures");
    settled(&home);
    assert_eq!(home.status()["dead_letters"], 0);
}

/// Refuses `tool_failures` for good, and `retries` for two tries.
fn by_name(request: &Request, failures: &mut u32) -> Answer {
    let body: Value = serde_json::from_slice(&request.plain).expect("JSON");
    let (mut successes, mut errors) = (Vec::new(), Vec::new());
    for event in body["batch"].as_array().expect("events") {
        match event["body"]["name"].as_str() {
            Some("tool_failures") => errors.push(scores::refused(event, 400, "no such name")),
            Some("retries") if *failures < 2 => {
                *failures += 1;
                errors.push(scores::refused(event, 500, "a moment"));
            }
            _ => successes.push(json!({"id": event["id"], "status": 201})),
        }
    }
    Answer::status(207).unheard().body(&json!({"successes": successes, "errors": errors}).to_string())
}

/// The scores of the requests, each once: what a plan of the test said yes or no to.
fn said_yes(server: &Server) -> Vec<Value> {
    let mut all: BTreeMap<String, Value> = BTreeMap::new();
    for request in server.score_requests() {
        let body: Value = serde_json::from_slice(&request.plain).expect("JSON");
        for event in body["batch"].as_array().expect("events") {
            if event["body"]["name"] != "tool_failures" {
                all.insert(event["body"]["id"].to_string(), event["body"].clone());
            }
        }
    }
    all.into_values().collect()
}

fn end_without_waiting(home: &Home, story: &Story, server: &Server) {
    home.hook(&story.event("SessionEnd"), &server.env());
    home.flush();
}

#[test]
fn a_batch_that_is_refused_as_a_whole_is_sent_one_by_one() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    server.change_scores(|request| {
        let text = String::from_utf8_lossy(&request.plain);
        if text.contains("tool_failures") { Answer::status(400).body(r#"{"message":"odd"}"#) } else { Answer::ok() }
    });
    let mut lines = Lines::new(&home, "s");
    lines.prompt("bad").retry(1).call().result(true, None).interrupted();
    end_without_waiting(&home, &lines.story, &server);
    settled(&home);
    let names: std::collections::BTreeSet<_> =
        server.scores().iter().map(|score| score["name"].as_str().expect("a name").to_owned()).collect();
    assert_eq!(names, ["interrupted".to_owned(), "outcome".to_owned(), "retries".to_owned()].into());
    assert_eq!(home.status()["dead_letters"], 1);
}

#[test]
fn spans_and_flush_do_not_wait_for_scores() {
    type Plan = fn(&Request) -> Answer;
    let plans: [(&str, Plan); 5] = [
        ("a page", |_| {
            Answer::status(200).body("<html><title>Sign in</title></html>").header("content-type", "text/html")
        }),
        ("refused keys", |_| Answer::status(401)),
        ("an error", |_| Answer::status(500)),
        ("a page with the status of a yes", |_| Answer::status(207).body("<html>sign in</html>")),
        ("silence", |_| Answer::never()),
    ];
    for (name, plan) in plans {
        let (home, server) = (Home::new(), Server::new());
        home.settings("work", &server.env());
        server.change_scores(plan);
        let daemon = home.daemon();
        let lines = one_failure(&home, "s");
        home.hook(&lines.story.stop("done"), &server.env());
        home.flush();
        assert_eq!(server.spans().len(), 4, "{name}");
        eventually("the scores to be tried", || !server.score_requests().is_empty());
        let status = home.status();
        assert_eq!(
            (&status["scores"]["pending"], &status["destinations"][0]["state"]),
            (&json!(1), &json!("ok")),
            "{name}"
        );
        // They survive a restart, and arrive once the server takes them.
        daemon.kill();
        server.change_scores(|_| Answer::ok());
        let _daemon = home.daemon();
        let scores = server.wait_for_scores(1);
        assert_eq!(scores[0]["name"], "tool_failures", "{name}");
        settled(&home);
        assert_eq!(server.score_events().len(), 1, "{name}");
    }
}

#[test]
fn a_server_without_scores_is_not_asked_again_and_again() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    server.change_scores(|_| Answer::status(404).body(r#"{"message":"Not Found"}"#));
    let mut lines = one_failure(&home, "s");
    home.hook(&lines.story.stop("done"), &server.env());
    home.flush();
    let status = home.status_until("it to be given up", |status| status["skipped_lines"]["score_unsupported"] == 1);
    // It may be asked before the first spans have shown that it is the right server.
    let asked = server.score_requests().len();
    assert_eq!(status["scores"]["pending"], 0);
    // Only something new to say is a reason to ask.
    lines.prompt("fine").answer("good");
    home.hook(&lines.story.stop("good"), &server.env());
    home.flush();
    assert_eq!(server.score_requests().len(), asked);
    lines.prompt("more").call().result(true, None).answer("well");
    home.hook(&lines.story.stop("well"), &server.env());
    home.status_until("it to be given up", |status| status["skipped_lines"]["score_unsupported"] == 2);
    assert_eq!(server.score_requests().len(), asked + 1);
}

#[test]
fn a_kill_at_any_time_loses_no_score_and_a_repeat_is_the_same_score() {
    let (home, server) = (Home::new(), Server::new());
    home.settings("work", &server.env());
    let mut lines = Lines::new(&home, "s");
    for turn in 0..6 {
        let daemon = home.daemon();
        // The server takes every other batch without an answer.
        server.change_scores(move |_| if turn % 2 == 0 { Answer::lost() } else { Answer::ok() });
        lines.prompt(&format!("turn {turn}")).call().result(true, None).answer("done");
        home.hook(&lines.story.stop("done"), &server.env());
        if turn % 3 == 0 {
            server.wait_for_scores(1);
        }
        daemon.kill();
    }
    server.change_scores(|_| Answer::ok());
    let _daemon = home.daemon();
    end(&home, &lines.story, &server.env());
    let scores = server.scores();
    assert_eq!(scores.iter().filter(|score| score["name"] == "tool_failures").count(), 6);
    assert_eq!((scores.len(), values(&scores, "s")), (7, map(&[("outcome", json!("completed"))])));
    // Whatever came twice came with the same id and the same value.
    let mut known: BTreeMap<String, Value> = BTreeMap::new();
    for event in server.score_events() {
        let before = known.insert(event["body"]["id"].to_string(), event["body"].clone());
        assert!(before.is_none_or(|before| before == event["body"]), "{event}");
    }
}

#[test]
fn scores_that_wait_are_moved_with_their_spans_and_dropped_with_them() {
    let (home, server) = (Home::new(), Server::new());
    let keys = |name: &str| tests::server::env(&server.url, &format!("pk-{name}"), &format!("sk-{name}"));
    let refuse = |request: &Request| match request.key() {
        key if key.starts_with("pk-old") => Answer::status(401),
        _ => Answer::ok(),
    };
    server.change(refuse);
    server.change_scores(refuse);
    let _daemon = home.daemon();
    home.settings("work", &keys("new"));
    let mut lines = Lines::new(&home, "new");
    lines.prompt("fine").answer("good");
    home.hook(&lines.story.stop("good"), &keys("new"));
    server.wait_for(2);
    for session in ["moved", "dropped"] {
        home.settings("work", &keys("old"));
        let lines = one_failure(&home, session);
        home.hook(&lines.story.stop("done"), &keys("old"));
        home.status_until("the score to wait", |status| status["scores"]["pending"] == 1);
        let args: &[&str] = match session {
            "moved" => &["destinations", "move", "pk-old", "pk-new"],
            _ => &["destinations", "drop", "--yes", "pk-old"],
        };
        let done = home.ctl(args);
        assert!(done.status.success(), "{done:?}");
        settled(&home);
    }
    home.flush();
    let scores = server.scores();
    assert_eq!(values(&scores, &trace(&server, "do moved")), map(&[("tool_failures", json!(1.0))]));
    assert_eq!(scores.len(), 1);
    assert_eq!(home.status()["skipped_lines"]["dropped_scores"], 1);
}

fn printed(output: &std::process::Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn forget_takes_back_how_the_session_ended() {
    let (home, server) = (Home::new(), Server::new());
    home.settings("work", &server.env());
    let _daemon = home.daemon();
    let (gone, kept) = (one_failure(&home, "gone"), one_failure(&home, "kept"));
    for lines in [&gone, &kept] {
        end(&home, &lines.story, &server.env());
    }
    assert_eq!(values(&server.scores(), "gone"), map(&[("outcome", json!("completed"))]));
    let done = home.ctl(&["forget", "--yes", "gone"]);
    assert!(done.status.success(), "{done:?}");
    let scores = server.scores();
    assert_eq!((values(&scores, "gone"), values(&scores, "kept").len()), (map(&[]), 1));
}

#[test]
fn a_person_can_give_a_turn_or_a_session_a_score() {
    let (home, server) = (Home::new(), Server::new());
    let mut env = server.env();
    env.push(("LANGFUSE_TRACING_ENVIRONMENT".into(), "staging".into()));
    home.settings("work", &env);
    let daemon = home.daemon();
    let mut lines = Lines::new(&home, "s-one");
    lines.prompt("first").answer("one").prompt("second").answer("two");
    home.hook(&lines.story.stop("two"), &env);
    home.flush();
    let (first, second) = (trace(&server, "first"), trace(&server, "second"));
    let word = ["score", "s-one", "verdict", "so so", "--comment", "key sk-ant-api03-0123456789abcdefghijABCDEFGHIJ"];
    for args in [
        &["score", "s-one", "--turn", "1", "useful", "true"][..],
        &["score", &second, "quality", "0.5"],
        &word,
        // The same again is no news, and another value is.
        &["score", "s-one", "--turn", "1", "useful", "true"],
        &["score", &second, "quality", "-1"],
    ] {
        let done = home.ctl(args);
        assert!(done.status.success() && printed(&done).contains(&server.url), "{args:?}: {done:?}");
        settled(&home);
    }
    let scores = server.scores();
    assert_eq!(values(&scores, &first), map(&[("useful", json!(1))]));
    assert_eq!(values(&scores, &second), map(&[("quality", json!(-1.0))]));
    assert_eq!(values(&scores, "s-one"), map(&[("verdict", json!("so so"))]));
    assert_eq!(server.score_events().len(), 4);
    let verdict = scores.iter().find(|score| score["name"] == "verdict").expect("one");
    assert_eq!(verdict["environment"], "staging");
    let comment = verdict["comment"].as_str().expect("a comment");
    assert!(comment.contains("REDACTED") && !comment.contains("0123456789"), "{comment}");

    for (args, expect) in [
        (&["score", "s-one", "tool_failures", "0"][..], "a fact"),
        (&["score", "s-one", "--turn", "3", "useful", "true"], "1 to 2"),
        (&["score", &"0".repeat(32), "useful", "true"], "no destination"),
        (&["score", "nobody", "useful", "true"], "no session nobody"),
        (&["score", "s-one", "a\nb", "true"], "one line"),
        (&["score", "useful"], "NAME"),
    ] {
        let refused = home.ctl(args);
        assert!(!refused.status.success() && printed(&refused).contains(expect), "{args:?}: {refused:?}");
    }
    // It waits for a server that is away, over a kill.
    server.change_scores(|_| Answer::status(503));
    assert!(home.ctl(&["score", "s-one", "later", "1"]).status.success());
    daemon.kill();
    let refused = home.ctl(&["score", "s-one", "useful", "true"]);
    assert!(refused.status.code() == Some(3), "{refused:?}");
    server.change_scores(|_| Answer::ok());
    let _daemon = home.daemon();
    server.wait_for_scores(4);
    let dir = home.project("work").canonicalize().expect("a project");
    assert!(home.ctl(&["pause", dir.to_str().expect("UTF-8")]).status.success());
    let refused = home.ctl(&["score", &second, "quality", "1"]);
    assert!(!refused.status.success() && printed(&refused).contains("paused"), "{refused:?}");
}
