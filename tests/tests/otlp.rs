//! Any OTLP receiver gets every session completely, configured by one variable, beside Langfuse or alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::{Value, json};
use tests::{
    Answer, Home, Server, Span, Story,
    flat::{self, Flat, What},
    home, ids,
    real::{self, Real},
    recording::{Mode, Recording, Tokens},
};

/// How many recordings each test plays in parallel.
const AT_ONCE: usize = 3;

/// A made-up key.
const KEY: &str = "hny-8f2c61d09ab34e57";

/// The environment of a project that sends to `server`.
fn env(server: &Server, more: &[(&str, &str)]) -> Vec<(String, String)> {
    let endpoint = format!("{}/v1/traces", server.url);
    let all = [("CC_LANGFUSE_OTLP_ENDPOINT", endpoint.as_str())].into_iter().chain(more.iter().copied());
    all.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Plays every recording, several in parallel. `play` returns what is wrong, and how many spans arrived.
fn each_recording(play: impl Fn(&Recording) -> (Vec<String>, usize) + Sync) {
    let recordings = Recording::all();
    let (next, wrong) = (Mutex::new(recordings.iter()), Mutex::new(Vec::new()));
    let arrived = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(recording) = next.lock().unwrap().next() else { return };
                    let (found, spans) = play(recording);
                    wrong.lock().unwrap().extend(found.into_iter().map(|what| format!("{}: {what}", recording.name)));
                    arrived.fetch_add(spans, Ordering::Relaxed);
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let arrived = arrived.into_inner();
    assert!(arrived > 300, "the recordings are there: {arrived}");
}

/// What is wrong with the spans that `server` has of `recording`.
fn judge(recording: &Recording, server: &Server) -> (Vec<String>, usize) {
    let spans = server.spans();
    let flat: Vec<Flat> = spans.iter().map(Flat::of).collect();
    (flat::judge(&recording.truth(), &flat), spans.len())
}

#[test]
fn every_recorded_session_arrives_completely_at_a_receiver_named_by_one_variable() {
    each_recording(|recording| {
        let server = Server::new();
        recording.play_in(&Home::new(), &env(&server, &[]), Mode::Plain, || {});
        for request in server.requests() {
            assert_eq!(request.path, "/v1/traces");
            assert_eq!(request.header("content-type"), Some("application/x-protobuf"));
            assert_eq!(request.header("content-encoding"), Some("gzip"));
            assert_eq!(request.header("authorization"), None);
        }
        judge(recording, &server)
    });
}

#[test]
fn every_recorded_session_arrives_completely_if_the_daemon_is_killed_after_every_hook() {
    let play = |recording: &Recording| {
        let server = Server::new();
        recording.play_in(&Home::new(), &env(&server, &[]), Mode::Restart, || {});
        // A daemon that was killed between the server's answer and recording it sends the same again.
        let mut seen = BTreeSet::new();
        let spans: Vec<Span> = server.spans();
        let once: Vec<Flat> = spans.iter().filter(|span| seen.insert(span.encoded.clone())).map(Flat::of).collect();
        (flat::judge(&recording.truth(), &once), once.len())
    };
    each_recording(|recording| {
        let (wrong, spans) = play(recording);
        if wrong.is_empty() {
            return (wrong, spans);
        }
        // Recordings are dated in the past: see `corpus`.
        tests::say(&format!("{}: played again, because of {}", recording.name, wrong.join("; ")));
        play(recording)
    });
}

#[test]
fn langfuse_and_a_receiver_do_not_depend_on_each_other() {
    let next = AtomicUsize::new(0);
    each_recording(|recording| {
        let langfuse_is_down = next.fetch_add(1, Ordering::Relaxed).is_multiple_of(2);
        let (langfuse, otlp) = (Server::new(), Server::new());
        let (down, up) = if langfuse_is_down { (&langfuse, &otlp) } else { (&otlp, &langfuse) };
        down.change(|_| Answer::status(503).header("retry-after", "0"));
        let both = [langfuse.env(), env(&otlp, &[("CC_LANGFUSE_OTLP_HEADERS", "x-key=k")])].concat();
        let mut before = 0;
        recording.play_in(&Home::new(), &both, Mode::Plain, || {
            before = ids(&down.spans()).len();
            down.change(|_| Answer::ok());
        });
        let (mut wrong, count) = judge(recording, &otlp);
        if before > 0 || ids(&langfuse.spans()) != ids(&otlp.spans()) {
            wrong.push(format!(
                "{} spans and {}, {before} of {}",
                langfuse.spans().len(),
                otlp.spans().len(),
                down.url
            ));
        }
        assert!(!up.requests().is_empty());
        for request in langfuse.requests() {
            assert_eq!((request.key().as_str(), request.header("x-key")), ("pk-lf-test:sk-lf-test", None));
        }
        for request in otlp.requests() {
            assert_eq!((request.header("authorization"), request.header("x-key")), (None, Some("k")));
        }
        (wrong, count)
    });
}

#[test]
fn an_endpoint_is_used_unchanged_unless_it_has_no_path() {
    for (path, expect) in [
        ("", "/v1/traces"),
        ("/", "/v1/traces"),
        ("/x", "/x"),
        ("/otel/v1/traces/", "/otel/v1/traces/"),
        ("/api/public/otel/v1/traces", "/api/public/otel/v1/traces"),
        ("/opik/api/v1/private/otel/v1/traces", "/opik/api/v1/private/otel/v1/traces"),
        ("/a%20b//c", "/a%20b//c"),
    ] {
        let (home, server) = (Home::new(), Server::new());
        let env = [("CC_LANGFUSE_OTLP_ENDPOINT".to_owned(), format!("{}{path}", server.url))];
        let mut story = Story::new(&home, "work", "s");
        story.turn("q", "a");
        let daemon = home.daemon();
        home.hook(&story.stop("a"), &env);
        home.flush();
        // The stored state is the same afterwards.
        daemon.kill();
        let _daemon = home.daemon();
        story.turn("q2", "a2");
        home.hook(&story.stop("a2"), &env);
        home.flush();
        let paths: BTreeSet<String> = server.requests().into_iter().map(|request| request.path).collect();
        assert_eq!(paths, BTreeSet::from([expect.to_owned()]), "{path:?}");
        let status = home.status();
        let all = status["destinations"].as_array().expect("a list");
        assert_eq!((all.len(), &all[0]["base_url"]), (1, &json!(format!("{}{expect}", server.url))));
    }
}

#[test]
fn an_invalid_endpoint_is_counted_and_does_not_affect_other_kinds() {
    let (home, langfuse) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    story.turn("q", "a");
    for endpoint in ["nonsense", "ftp://127.0.0.1/x", "http://127.0.0.1:1/v1/traces?key=secret"] {
        let env = [("CC_LANGFUSE_OTLP_ENDPOINT".to_owned(), endpoint.to_owned())];
        home.hook(&story.stop("a"), &env);
        home.hook(&story.stop("a"), &[langfuse.env(), env.to_vec()].concat());
    }
    home.flush();
    assert_eq!(ids(&langfuse.spans()).len(), 2);
    let status = home.status();
    assert_eq!(status["skipped_lines"]["hook_otlp_endpoint"], 6, "{status}");
    assert!(!status.to_string().contains("key=secret"), "{status}");
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    let (dirs, files): (Vec<_>, Vec<_>) = entries.filter(|path| !path.is_symlink()).partition(|path| path.is_dir());
    files.into_iter().chain(dirs.iter().flat_map(|dir| self::files(dir))).collect()
}

/// Searches for the key in all written files, except those of the test.
fn is_nowhere(home: &Home, when: &str) {
    let state = home.paths().state;
    let found = files(&state);
    assert!(!found.is_empty(), "{when}");
    for path in found {
        let bytes = fs::read(&path).unwrap_or_default();
        let has = bytes.windows(KEY.len()).any(|window| window == KEY.as_bytes());
        assert!(!has, "{when}: the key is in {}", path.display());
    }
}

#[test]
fn headers_are_sent_with_every_request_and_never_stored_or_shown() {
    let home = Home::new();
    // A server that repeats what it was sent.
    let server =
        Server::answering(|_| Answer::status(401).body(&format!("no Bearer {KEY}, nor {KEY}, nor Bearer%20{KEY}")));
    let headers = format!("authorization=Bearer%20{KEY},X-Team=a%2Cb");
    let env = env(&server, &[("CC_LANGFUSE_OTLP_HEADERS", &headers), ("CC_LANGFUSE_DEBUG", "true")]);
    let mut story = Story::new(&home, "work", "s");
    story.turn("q", "a");
    home.hook(&story.stop("a"), &env);
    is_nowhere(&home, "in the spool");
    let daemon = home.daemon_with(&[("RUST_LOG", "trace"), ("CC_LANGFUSE_DEBUG", "true")]);
    home.hook(&story.stop("a"), &env);
    home.status_until("it to be parked", |status| status["destinations"][0]["state"] == "parked");
    for args in [&["status"][..], &["status", "--json"], &["config", "--json"], &["config"]] {
        let output = home.ctl_with(args, &env);
        let said = [output.stdout, output.stderr].concat();
        assert!(!String::from_utf8_lossy(&said).contains(KEY), "{args:?}");
        assert!(args[0] == "config" || String::from_utf8_lossy(&said).contains("/v1/traces"), "{args:?}");
    }
    assert!(!home.ask("/metrics").contains(KEY));
    is_nowhere(&home, "parked");
    server.change(|_| Answer::ok());
    home.flush();
    is_nowhere(&home, "delivered");
    let last = server.requests().pop().expect("a request");
    assert_eq!(last.header("authorization"), Some(&*format!("Bearer {KEY}")));
    assert_eq!(last.header("x-team"), Some("a,b"));
    assert!(!home.log().contains(KEY));
    drop(daemon);
}

#[test]
fn after_a_restart_headers_are_found_in_the_settings_if_needed() {
    for headers in [Some(format!("x-honeycomb-team={KEY}")), None] {
        let (home, server) = (Home::new(), Server::answering(|_| Answer::status(500)));
        let more: Vec<(&str, &str)> = headers.iter().map(|list| ("CC_LANGFUSE_OTLP_HEADERS", list.as_str())).collect();
        let env = env(&server, &more);
        home.settings("work", &env);
        let mut story = Story::new(&home, "work", "s");
        story.turn("q", "a");
        let daemon = home.daemon();
        home.hook(&story.stop("a"), &env);
        server.wait_for_requests(1);
        daemon.kill();
        server.change(|_| Answer::ok());
        let _daemon = home.daemon();
        home.flush();
        assert_eq!(ids(&server.spans()).len(), 2);
        for request in server.requests() {
            assert_eq!(request.header("x-honeycomb-team"), headers.as_ref().map(|_| KEY));
        }
    }
}

#[test]
fn with_a_preset_the_key_is_enough_and_values_are_limited() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    let more = [
        ("CC_LANGFUSE_OTLP_PRESET", "NewRelic"),
        ("CC_LANGFUSE_OTLP_HEADERS", KEY),
        ("CC_LANGFUSE_OTLP_DIALECT", "genai"),
    ];
    let mut story = Story::new(&home, "work", "s");
    let long = "ä long answer ".repeat(2000);
    story.prompt("q").tool(&long).answer(&long);
    home.hook(&story.stop(&long), &env(&server, &more));
    home.flush();
    let spans = server.spans();
    assert_eq!(spans.len(), 4);
    for span in &spans {
        assert!(span.attrs.values().all(|value| value.len() <= 4095), "{span:?}");
        assert!(!span.attrs.keys().any(|key| key.starts_with("llm.") || key.starts_with("openinference.")), "{span:?}");
    }
    let root = spans.iter().find(|span| span.is_root()).expect("a root");
    let said: Value = serde_json::from_str(root.get("gen_ai.output.messages")).expect("JSON");
    assert!(said[0]["parts"][0]["content"].as_str().expect("text").contains("[cut, "), "{said}");
    assert_eq!(server.requests()[0].header("api-key"), Some(KEY));
}

#[test]
fn an_invalid_header_list_parks_until_it_is_corrected() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    story.turn("q", "a");
    home.hook(&story.stop("a"), &env(&server, &[("CC_LANGFUSE_OTLP_HEADERS", KEY)]));
    let status = home.status_until("it to be parked", |status| status["destinations"][0]["state"] == "parked");
    let why = status["destinations"][0]["last_error"].as_str().expect("a reason");
    assert!(why.contains("CC_LANGFUSE_OTLP_HEADERS") && why.contains("name=value") && !why.contains(KEY), "{why}");
    assert_eq!(server.requests().len(), 0);
    home.hook(&story.stop("a"), &env(&server, &[("CC_LANGFUSE_OTLP_HEADERS", "x-a=b")]));
    home.flush();
    assert_eq!(ids(&server.spans()).len(), 2);
}

#[test]
fn a_root_is_sent_once_even_if_its_turn_grows() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    let env = env(&server, &[]);
    let mut story = Story::new(&home, "work", "s");
    story.prompt("q").tool("x").answer("first");
    home.hook(&story.stop("first"), &env);
    home.flush();
    for answer in ["second", "third"] {
        let feedback = json!({
            "type": "user", "isMeta": true, "uuid": format!("feedback-{answer}"), "sessionId": story.session,
            "timestamp": "2026-11-20T08:30:00.000Z",
            "message": {"role": "user", "content": "Stop hook feedback:\ngo on"},
        });
        story.raw(feedback.to_string().as_bytes());
        story.answer(answer);
        home.hook(&story.stop(answer), &env);
        home.flush();
    }
    let spans = server.spans();
    assert_eq!(spans.iter().filter(|span| span.is_root()).count(), 1);
    assert_eq!((spans.len(), ids(&spans).len()), (8, 8), "three calls more or less would be some too many");
    assert!(spans.iter().all(|span| span.scope == "cc-langfuse" && span.resource["service.name"] == "claude-code"));
}

#[test]
fn a_receiver_named_by_a_shared_file_is_held_until_the_user_trusts_it() {
    let (home, server) = (Home::new(), Server::new());
    let env = env(&server, &[]);
    home::settings(&home.project("work").join(".claude/settings.json"), &env);
    let _daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    story.turn("q", "a");
    home.hook(&story.stop("a"), &env);
    let status = home.status_until("it to be held", |status| status["destinations"][0]["state"] == "held");
    let why = status["destinations"][0]["last_error"].as_str().expect("a reason");
    assert!(why.contains("CC_LANGFUSE_OTLP_ENDPOINT") && why.contains("trust"), "{why}");
    assert_eq!(server.requests().len(), 0);
    let output = home.ctl(&["trust", &env[0].1, "both"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    home.flush();
    assert_eq!(ids(&server.spans()).len(), 2);
}

#[test]
fn the_doctor_names_the_receiver_and_problems_with_its_variables() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    let otlp = |more: &[(&str, &str)]| -> Vec<Value> {
        let mut command = home.command(&tests::bins().ctl);
        command.args(["doctor", "--json", "--no-probe"]).current_dir(home.project("work")).envs(env(&server, more));
        let output = command.output().expect("the doctor");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!text.contains(KEY), "{text}");
        let report: Value = serde_json::from_str(&text).expect("JSON");
        let findings = report["findings"].as_array().expect("findings").iter();
        let wanted = ["otlp", "keys", "base-url", "server"];
        findings.filter(|finding| wanted.iter().any(|check| finding["check"] == *check)).cloned().collect()
    };
    for (more, state, seen) in [
        (&[][..], "ok", "/v1/traces (both), with no headers"),
        (&[("CC_LANGFUSE_OTLP_HEADERS", "x-key=hny-8f2c61d09ab34e57")], "ok", "(both), with x-key"),
        (&[("CC_LANGFUSE_OTLP_HEADERS", KEY)], "problem", "name=value"),
        (&[("CC_LANGFUSE_OTLP_PRESET", "honeycomb")], "problem", "needs a key"),
        (&[("CC_LANGFUSE_OTLP_PRESET", "phoenix"), ("CC_LANGFUSE_OTLP_NAME", "mine")], "ok", "with x-project-name"),
    ] {
        let found = otlp(more);
        assert_eq!(
            (found.len(), &found[0]["check"], &found[0]["state"]),
            (1, &json!("otlp"), &json!(state)),
            "{found:?}"
        );
        assert!(found[0]["seen"].as_str().expect("text").contains(seen), "{found:?}");
    }
    for (name, value) in [("PRESET", "nobody"), ("DIALECT", "french"), ("MAX_VALUE_BYTES", "many")] {
        let name = format!("CC_LANGFUSE_OTLP_{name}");
        let found = otlp(&[(&name, value)]);
        assert_eq!((found.len(), &found[1]["state"]), (2, &json!("warning")), "{found:?}");
        assert!(found[1]["seen"].as_str().expect("text").contains(&name), "{found:?}");
    }
    assert_eq!(server.requests().len(), 0);
}

/// The directory with the programs of a Python environment that has Arize Phoenix.
const PHOENIX: &str = "CC_LANGFUSE_TEST_PHOENIX";

/// US dollars per million tokens, in the order of [`Tokens`], as Phoenix counts them: one-hour cache writes at the
/// price of five minutes.
const AT_PHOENIX: [f64; 5] = [3.0, 15.0, 0.3, 3.75, 3.75];

/// The spans of a project, as Phoenix shows them.
fn shown(real: &Real, project: &str) -> Vec<Flat> {
    let mut found = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = real.ask("GET", &format!("/v1/projects/{project}/spans?limit=100{cursor}"), "");
        found.extend(page["data"].as_array().into_iter().flatten().map(|span| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let get = |key: &str| &span["attributes"][key];
            let number = |key: &str| get(key).as_u64().unwrap_or(0);
            let what = match text(&span["span_kind"]).as_str() {
                "AGENT" => What::Agent,
                "TOOL" => What::Tool(text(get("tool.id")), text(&span["status_code"]) == "ERROR"),
                "LLM" => {
                    let all = number("llm.token_count.prompt");
                    let [read, written] =
                        ["read", "write"].map(|what| number(&format!("llm.token_count.prompt_details.cache_{what}")));
                    let [short, long] =
                        ["5m", "1h"].map(|time| number(&format!("claude_code.usage.cache_write_{time}")));
                    let output = number("llm.token_count.completion");
                    assert_eq!((written, number("llm.token_count.total")), (short + long, all + output), "{span}");
                    What::Call(text(get("claude_code.message_id")), [all - read - written, output, read, short, long])
                }
                _ => What::Other,
            };
            Flat {
                trace: text(&span["context"]["trace_id"]),
                id: text(&span["context"]["span_id"]),
                parent: text(&span["parent_id"]),
                session: text(get("session.id")),
                what,
            }
        }));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return found,
        }
    }
}

#[test]
fn a_real_phoenix_shows_the_tokens_of_the_api() {
    let Ok(programs) = std::env::var(PHOENIX) else {
        return tests::skipped(&format!("{PHOENIX} names no directory with the programs of Arize Phoenix"));
    };
    if !real::is_apart("a_real_phoenix_shows_the_tokens_of_the_api") {
        return;
    }
    let real = real::phoenix(&programs);
    let (sums, priced) = (Mutex::new(BTreeMap::<String, Tokens>::new()), Mutex::new(BTreeSet::new()));
    each_recording(|recording| {
        // The same spans at Langfuse, to compare with.
        let langfuse = Server::new();
        let project = recording.name.replace('@', "-");
        let more = [("CC_LANGFUSE_OTLP_PRESET", "phoenix"), ("CC_LANGFUSE_OTLP_NAME", project.as_str())];
        let endpoint = ("CC_LANGFUSE_OTLP_ENDPOINT".to_owned(), format!("{}/v1/traces", real.url()));
        let own = more.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let all = [langfuse.env(), vec![endpoint], own.to_vec()].concat();
        recording.play_in(&Home::new(), &all, Mode::Plain, || {});
        // It stores spans shortly after it has accepted them.
        let sent = ids(&langfuse.spans());
        let found = tests::until(&format!("{} spans of {project}", sent.len()), || {
            Some(shown(&real, &project)).filter(|found| found.len() >= sent.len())
        });
        let mut sum = Tokens::default();
        for tokens in flat::sums(&found).into_values() {
            sum.iter_mut().zip(tokens).for_each(|(sum, count)| *sum += count);
        }
        if langfuse
            .spans()
            .iter()
            .filter(|span| span.is_generation())
            .all(|span| span.name.starts_with("claude-sonnet-4-5"))
        {
            priced.lock().unwrap().insert(project.clone());
        }
        sums.lock().unwrap().insert(project, sum);
        (flat::judge(&recording.truth(), &found), found.len())
    });
    let query = json!({"query": "{ projects(first: 200) { edges { node { name costSummary { total { cost } } } } } }"});
    let (sums, priced) = (sums.into_inner().unwrap(), priced.into_inner().unwrap());
    let wanted = |project: &str| -> f64 {
        sums[project].iter().zip(AT_PHOENIX).map(|(tokens, price)| *tokens as f64 * price / 1e6).sum()
    };
    let costs = || -> BTreeMap<String, f64> {
        let answer = real.ask("POST", "/graphql", &query.to_string());
        let edges = answer["data"]["projects"]["edges"].as_array().cloned().unwrap_or_default();
        let cost = |edge: Value| {
            let node = &edge["node"];
            Some((node["name"].as_str()?.to_owned(), node["costSummary"]["total"]["cost"].as_f64().unwrap_or(0.0)))
        };
        edges.into_iter().filter_map(cost).collect()
    };
    // It computes costs asynchronously.
    let mut last = String::new();
    tests::until("the costs of all projects", || {
        let costs = costs();
        let wrong = priced.iter().find(|project| (costs.get(*project).unwrap_or(&0.0) - wanted(project)).abs() > 1e-6);
        last =
            wrong.map(|project| format!("{project} {:?} {}", costs.get(project), wanted(project))).unwrap_or_default();
        last.is_empty().then_some(())
    });
    let total: f64 = priced.iter().map(|project| wanted(project)).sum();
    tests::say(&format!(
        "Phoenix shows {} projects with the tokens of the API, {} with a cost, {total:.6} dollars",
        sums.len(),
        priced.len()
    ));
}
