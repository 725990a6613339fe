//! MLflow gets every session completely, configured by its own integration's variables.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use serde_json::{Value, json};
use tests::{
    Answer, Home, Request, Server, Span, Story,
    flat::{self, Flat, What},
    ids,
    real::Real,
    recording::{Mode, Recording, Tokens},
};

/// How many recordings are played in parallel.
const AT_ONCE: usize = 6;

/// US dollars per million tokens of the model in nearly all recordings, in the order of [`Tokens`].
const PRICES: [f64; 5] = [3.0, 15.0, 0.3, 3.75, 6.0];

/// A model of some recordings that has other prices, and those.
const OTHER: (&str, [f64; 5]) = ("claude-opus-5-5", [4.0, 20.0, 0.2, 5.0, 8.0]);

/// The directory with the programs of a Python environment that has MLflow 3.17.2, for `a_real_server_…`.
const REAL: &str = "CC_LANGFUSE_TEST_MLFLOW";

fn env(url: &str, more: &[(&str, &str)]) -> Vec<(String, String)> {
    let all = [("MLFLOW_CLAUDE_TRACING_ENABLED", "true"), ("MLFLOW_TRACKING_URI", url)];
    all.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Plays every recording, several in parallel. `play` returns what is wrong.
fn each_recording(play: impl Fn(&Recording) -> Vec<String> + Sync) {
    let recordings = Recording::all();
    let (next, wrong) = (Mutex::new(recordings.iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(recording) = next.lock().unwrap().next() else { return };
                    let found = play(recording).into_iter().map(|what| format!("{}: {what}", recording.name));
                    wrong.lock().unwrap().extend(found);
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What a server has at the end: the last version of each root, and all other spans except identical repeats.
fn merged(spans: &[Span]) -> Vec<Span> {
    let mut last: BTreeMap<(String, String), Span> = BTreeMap::new();
    let mut twice = Vec::new();
    for span in spans {
        if let Some(before) = last.insert(span.id(), span.clone())
            && !before.is_root()
            && before.encoded != span.encoded
        {
            twice.push(before);
        }
    }
    twice.into_iter().chain(last.into_values()).collect()
}

fn dollars(tokens: Tokens, prices: [f64; 5]) -> f64 {
    tokens.iter().zip(prices).map(|(tokens, price)| *tokens as f64 * price / 1e6).sum()
}

/// What is wrong with the requests.
fn judge(recording: &Recording, requests: &[Request]) -> Vec<String> {
    let mut wrong = Vec::new();
    for request in requests {
        if ids(&request.spans).len() != request.spans.len() {
            wrong.push("a request has a span twice, which a server counts twice".to_owned());
        }
    }
    let taken = requests.iter().filter(|request| request.status == 200 && request.path == "/v1/traces");
    let spans = merged(&taken.flat_map(|request| request.spans.clone()).collect::<Vec<_>>());
    let flat: Vec<Flat> = spans.iter().map(Flat::of_mlflow).collect();
    wrong.extend(flat::judge(&recording.truth(), &flat));
    for (trace, sums) in flat::sums(&flat) {
        let shown = flat::shown(flat.iter().filter(|span| span.trace == trace));
        if shown != sums {
            wrong.push(format!("a server would show {shown:?} tokens of {trace}, not {sums:?}"));
        }
    }
    for (span, flat) in spans.iter().zip(&flat) {
        let cost: Value = serde_json::from_str(span.get("mlflow.llm.cost")).unwrap_or_default();
        let prices = if span.get("mlflow.llm.model") == OTHER.0 { OTHER.1 } else { PRICES };
        match (&flat.what, cost["total_cost"].as_f64()) {
            (What::Call(_, tokens), Some(cost)) if (cost - dollars(*tokens, prices)).abs() < 1e-9 => {}
            (What::Call(_, tokens), None) if *tokens == Tokens::default() => {}
            (What::Agent | What::Tool(..) | What::Other, None) => {}
            (_, cost) => wrong.push(format!("{flat:?} costs {cost:?}")),
        }
        if span.get("openinference.span.kind").len() + span.get("gen_ai.operation.name").len() > 0 {
            wrong.push(format!("{} has attributes of others", span.name));
        }
    }
    wrong
}

#[test]
fn every_recorded_session_arrives_completely_with_two_variables() {
    each_recording(|recording| {
        let server = Server::new();
        recording.play_in(&Home::new(), &env(&server.url, &[]), Mode::Plain, || {});
        // If an image is shown, the server is asked once whether it accepts media. This one does not say so.
        let requests = server.requests().into_iter().filter(|request| !request.path.contains("/experiments/get?"));
        for request in requests {
            assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/v1/traces"));
            assert_eq!(request.header("x-mlflow-experiment-id"), Some("0"));
            assert_eq!(request.header("content-type"), Some("application/x-protobuf"));
            assert_eq!(request.header("content-encoding"), Some("gzip"));
            assert_eq!((request.header("authorization"), request.header("x-mlflow-workspace")), (None, None));
        }
        judge(recording, &server.requests())
    });
}

/// The answer of a server that is down for a moment.
fn busy() -> Answer {
    Answer::status(503).header("retry-after", "0")
}

#[test]
fn every_recorded_session_arrives_completely_if_the_daemon_is_killed_after_every_hook() {
    let play = |recording: &Recording| {
        let server = Server::new();
        recording.play_in(&Home::new(), &env(&server.url, &[]), Mode::Restart, || {});
        judge(recording, &server.requests())
    };
    each_recording(|recording| {
        let wrong = play(recording);
        if wrong.is_empty() {
            return wrong;
        }
        // Recordings are dated in the past: see `corpus`.
        tests::say(&format!("{}: played again, because of {}", recording.name, wrong.join("; ")));
        play(recording)
    });
}

#[test]
fn every_recorded_session_arrives_completely_at_a_server_that_was_down_until_the_end() {
    each_recording(|recording| {
        let server = Server::answering(|_| busy());
        let mut before = usize::MAX;
        recording.play_in(&Home::new(), &env(&server.url, &[]), Mode::Outage, || {
            before = ids(&server.spans()).len();
            server.change(|_| Answer::ok());
        });
        let mut wrong = judge(recording, &server.requests());
        if before > 0 {
            wrong.push(format!("{before} spans were there before the server was"));
        }
        wrong
    });
}

#[test]
fn one_destination_that_is_down_delays_no_other() {
    let next = AtomicUsize::new(0);
    each_recording(|recording| {
        let servers = [Server::new(), Server::new(), Server::new()];
        let [langfuse, mlflow, otlp] = &servers;
        let down = &servers[next.fetch_add(1, Ordering::Relaxed) % 3];
        down.change(|_| busy());
        let otlp_env = [("CC_LANGFUSE_OTLP_ENDPOINT".to_owned(), format!("{}/v1/traces", otlp.url))];
        let all = [langfuse.env(), env(&mlflow.url, &[]), otlp_env.to_vec()].concat();
        recording.play_in(&Home::new(), &all, Mode::Plain, || down.change(|_| Answer::ok()));
        let mut wrong = judge(recording, &mlflow.requests());
        wrong.extend(flat::judge(&recording.truth(), &otlp.spans().iter().map(Flat::of).collect::<Vec<_>>()));
        let sent = servers.each_ref().map(|server| ids(&server.spans()).len());
        if sent[0] != sent[1] || sent[1] != sent[2] {
            wrong.push(format!("{sent:?} spans, while {} was down", down.url));
        }
        wrong
    });
}

#[test]
fn a_named_experiment_is_looked_up_once_and_created_if_missing() {
    for is_there in [true, false] {
        let home = Home::new();
        let server = Server::answering(move |request| {
            let asks = |what: &str| request.path.starts_with(&format!("/prefix/api/2.0/mlflow/experiments/{what}"));
            match request.method.as_str() {
                "GET" if asks("get-by-name?experiment_name=cc+exp") && is_there => Answer::ok()
                    .body(r#"{"experiment":{"experiment_id":"63","lifecycle_stage":"active","name":"cc exp"}}"#),
                "GET" => Answer::status(404).body(r#"{"error_code":"RESOURCE_DOES_NOT_EXIST","message":"none"}"#),
                "POST" if asks("create") => Answer::ok().body(r#"{"experiment_id":"63"}"#),
                _ => Answer::ok(),
            }
        });
        let url = server.url.replace("://", "://ada:s%20p@") + "/prefix/";
        let env = env(&url, &[("MLFLOW_EXPERIMENT_NAME", "cc exp"), ("MLFLOW_WORKSPACE", "team")]);
        let _daemon = home.daemon();
        let mut story = Story::new(&home, "work", "s");
        for answer in ["a", "b"] {
            story.turn("q", answer);
            home.hook(&story.stop(answer), &env);
            home.flush();
        }
        let requests = server.requests();
        let (spans, asked): (Vec<_>, Vec<_>) = requests.iter().partition(|request| request.path == "/prefix/v1/traces");
        assert_eq!(asked.len(), if is_there { 1 } else { 2 }, "{asked:?}");
        assert_eq!(ids(&spans.iter().flat_map(|request| request.spans.clone()).collect::<Vec<_>>()).len(), 4);
        for request in &requests {
            assert_eq!((request.key().as_str(), request.header("x-mlflow-workspace")), ("ada:s p", Some("team")));
        }
        assert!(spans.iter().all(|request| request.header("x-mlflow-experiment-id") == Some("63")));
        let status = home.status();
        assert_eq!(status["destinations"][0]["base_url"], json!(format!("{}/prefix", server.url)));
        assert!(!status.to_string().contains("ada"), "{status}");
    }
}

#[test]
fn mlflows_credentials_file_overrides_a_token_unless_others_can_write_it() {
    use std::{fs, os::unix::fs::PermissionsExt};
    for (mode, expect) in [(0o600, "Basic YWRhOnAgdw=="), (0o666, "Bearer t-1")] {
        let (home, server) = (Home::new(), Server::new());
        let file = home.path().join(".mlflow/credentials");
        fs::create_dir_all(file.parent().expect("a directory")).expect("a directory");
        fs::write(&file, "[mlflow]\nmlflow_tracking_username = ada\nmlflow_tracking_password = p w\n")
            .expect("written");
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("its mode");
        let _daemon = home.daemon();
        let mut story = Story::new(&home, "work", "s");
        story.turn("q", "a");
        home.hook(&story.stop("a"), &env(&server.url, &[("MLFLOW_TRACKING_TOKEN", "t-1")]));
        home.flush();
        let sent: BTreeSet<_> =
            server.requests().iter().map(|request| request.header("authorization").map(str::to_owned)).collect();
        assert_eq!(sent, BTreeSet::from([Some(expect.to_owned())]), "{mode:o}");
        assert!(!home.log().contains("p w"));
    }
}

#[test]
fn a_missing_experiment_is_looked_up_again_at_once() {
    // The id it has now, and the next one that is given.
    let current = Arc::new(AtomicUsize::new(1));
    let known = current.clone();
    let server = Server::answering(move |request| {
        let id = known.load(Ordering::Relaxed).to_string();
        match (request.path.as_str(), request.header("x-mlflow-experiment-id")) {
            ("/v1/traces", Some(sent)) if sent == id => Answer::ok(),
            ("/v1/traces", _) => Answer::status(404).body(r#"{"error_code":"RESOURCE_DOES_NOT_EXIST"}"#),
            _ => Answer::ok()
                .body(&json!({"experiment": {"experiment_id": id, "lifecycle_stage": "active"}}).to_string()),
        }
    });
    let home = Home::new();
    let env = env(&server.url, &[("MLFLOW_EXPERIMENT_NAME", "mine")]);
    let _daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    for answer in ["a", "b"] {
        story.turn("q", answer);
        home.hook(&story.stop(answer), &env);
        home.flush();
        current.store(2, Ordering::Relaxed);
    }
    let asked: Vec<_> = server.requests().into_iter().filter(|request| request.path != "/v1/traces").collect();
    assert_eq!(asked.len(), 2, "once at the beginning, once when it was gone");
    assert_eq!(home.status()["destinations"][0]["state"], "ok");
    // A missing experiment parks; the server is not asked endlessly.
    current.store(0, Ordering::Relaxed);
    let gone = Server::answering(|request| match request.path.as_str() {
        "/v1/traces" => Answer::status(404).body(r#"{"error_code":"RESOURCE_DOES_NOT_EXIST"}"#),
        _ => Answer::ok().body(r#"{"experiment":{"experiment_id":"1","lifecycle_stage":"active"}}"#),
    });
    let env = self::env(&gone.url, &[("MLFLOW_EXPERIMENT_NAME", "mine")]);
    let mut story = Story::new(&home, "work", "other");
    story.turn("q", "a");
    home.hook(&story.stop("a"), &env);
    home.status_until("it to be parked", |status| {
        let all = status["destinations"].as_array().expect("a list");
        all.iter().any(|row| {
            let why = row["last_error"].as_str().unwrap_or_default();
            row["state"] == "parked" && why.contains("MLFLOW_EXPERIMENT_NAME")
        })
    });
    assert!(gone.requests().len() <= 4, "{:?}", gone.requests());
}

#[test]
fn a_trace_in_another_experiment_counts_as_delivered_and_delays_no_other() {
    // A whole request is refused because of one trace, as by servers since 3.18.
    let taken = Arc::new(Mutex::new((None::<String>, BTreeSet::new())));
    let seen = taken.clone();
    let server = Server::answering(move |request| {
        let mut seen = seen.lock().unwrap();
        let traces: BTreeSet<String> = request.spans.iter().map(|span| span.trace_id.clone()).collect();
        let elsewhere = seen.0.get_or_insert_with(|| traces.first().cloned().unwrap_or_default()).clone();
        if traces.contains(&elsewhere) {
            let why = format!("Trace 'tr-{elsewhere}' already exists in another experiment");
            return Answer::status(400).body(&json!({"error_code": "BAD_REQUEST", "message": why}).to_string());
        }
        seen.1.extend(traces);
        Answer::ok()
    });
    let (home, env) = (Home::new(), env(&server.url, &[]));
    let _daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    for turn in 0..4 {
        story.turn("q", &format!("a{turn}"));
    }
    home.hook(&story.stop("a3"), &env);
    home.flush();
    let status = home.status();
    assert_eq!((&status["destinations"][0]["state"], &status["dead_letters"]), (&json!("ok"), &json!(0)), "{status}");
    assert_eq!(status["outbox"]["waiting"].as_u64().unwrap_or(0), 0, "{status}");
    assert_eq!(taken.lock().unwrap().1.len(), 3, "the other turns arrived");
}

#[test]
fn an_unusable_tracking_uri_is_parked_with_a_remedy_or_counted() {
    let home = Home::new();
    let _daemon = home.daemon();
    let story = |name: &str| {
        let mut story = Story::new(&home, "work", name);
        story.turn("q", "a");
        story.stop("a")
    };
    for (uri, remedy) in [
        ("sqlite:///mlflow.db", "mlflow server --backend-store-uri sqlite:///mlflow.db"),
        ("postgresql://me:hidden@db/x", "mlflow server --backend-store-uri postgresql://db/x"),
        ("databricks", "MLFLOW_TRACKING_URI"),
    ] {
        home.hook(&story(&format!("s-{}", remedy.len())), &env(uri, &[]));
        home.status_until("the remedy", |status| {
            let all = status["destinations"].as_array().expect("a list");
            all.iter().any(|row| {
                let why = row["last_error"].as_str().unwrap_or_default();
                row["state"] == "parked" && row["kind"] == "mlflow" && why.contains(remedy)
            })
        });
    }
    home.hook(&story("nowhere"), &env("file://name", &[]));
    let status = home.status_until("it to be counted", |status| status["skipped_lines"]["hook_tracking_uri"] == 1);
    assert!(!status.to_string().contains("hidden"), "{status}");
}

#[test]
fn a_server_named_by_a_shared_file_is_held_until_the_user_trusts_it() {
    let (home, server) = (Home::new(), Server::new());
    let env = env(&server.url, &[]);
    tests::home::settings(&home.project("work").join(".claude/settings.json"), &env);
    let _daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    story.turn("q", "a");
    home.hook(&story.stop("a"), &env);
    home.status_until("it to be held", |status| status["destinations"][0]["state"] == "held");
    assert_eq!(server.requests().len(), 0);
    assert_eq!(home.ctl(&["trust", &server.url]).status.code(), Some(0));
    home.flush();
    assert_eq!(ids(&server.spans()).len(), 2);
}

#[test]
fn a_server_without_tls_on_another_machine_is_held_until_the_user_trusts_it() {
    let server = Server::new();
    // It leads to this machine, but not in a form that is certain to.
    let url = format!("http://0.0.0.0:{}", server.address.port());
    let otlp = vec![("CC_LANGFUSE_OTLP_ENDPOINT".to_owned(), format!("{url}/v1/traces"))];
    for (env, address, account) in [(env(&url, &[]), url.clone(), "0"), (otlp, format!("{url}/v1/traces"), "both")] {
        let home = Home::new();
        let _daemon = home.daemon();
        let mut story = Story::new(&home, "work", account);
        story.turn("q", "a");
        let before = server.requests().len();
        home.hook(&story.stop("a"), &env);
        let status = home.status_until("it to be held", |status| status["destinations"][0]["state"] == "held");
        let why = status["destinations"][0]["last_error"].as_str().expect("a reason");
        assert!(why.contains("unencrypted") && why.contains("trust"), "{why}");
        assert_eq!(server.requests().len(), before);
        assert_eq!(home.ctl(&["trust", &address, account]).status.code(), Some(0));
        home.flush();
        assert_eq!(
            ids(&server.requests().split_off(before).into_iter().flat_map(|one| one.spans).collect::<Vec<_>>()).len(),
            2
        );
    }
}

/// Tokens, cost and session of each trace of an experiment.
fn traces(real: &Real, experiment: &str) -> BTreeMap<String, (Value, f64, String)> {
    let location = json!({"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment}});
    let query = json!({"locations": [location], "max_results": 500}).to_string();
    let found = real.ask("POST", "/api/3.0/mlflow/traces/search", &query);
    let traces = found["traces"].as_array().cloned().unwrap_or_default();
    let each = traces.into_iter().map(|trace| {
        let text = |key: &str| trace["trace_metadata"][key].as_str().unwrap_or_default().to_owned();
        let usage = serde_json::from_str(&text("mlflow.trace.tokenUsage")).unwrap_or_default();
        let cost: Value = serde_json::from_str(&text("mlflow.trace.cost")).unwrap_or_default();
        let id = trace["trace_id"].as_str().expect("an id").trim_start_matches("tr-").to_owned();
        (id, (usage, cost["total_cost"].as_f64().unwrap_or(0.0), text("mlflow.trace.session")))
    });
    each.collect()
}

#[test]
fn a_real_server_shows_the_tokens_and_costs_of_the_api() {
    let Ok(programs) = std::env::var(REAL) else {
        return tests::skipped(&format!("{REAL} names no directory with the programs of MLflow 3.17.2"));
    };
    let real = Real::mlflow(&programs);
    let (seen, dear, started) = (AtomicUsize::new(0), Mutex::new(0.0), Instant::now());
    each_recording(|recording| {
        // Each in an experiment of its own: a fork shares ids with its origin.
        let made =
            real.ask("POST", "/api/2.0/mlflow/experiments/create", &json!({ "name": recording.name }).to_string());
        let experiment = made["experiment_id"].as_str().expect("an experiment").to_owned();
        // The same spans over OTLP, to compare with.
        let otlp = Server::new();
        let env = [
            env(&real.url(), &[("MLFLOW_EXPERIMENT_ID", &experiment)]),
            vec![("CC_LANGFUSE_OTLP_ENDPOINT".to_owned(), format!("{}/v1/traces", otlp.url))],
        ];
        recording.play_in(&Home::new(), &env.concat(), Mode::Plain, || {});
        let spans = otlp.spans();
        let flat: Vec<Flat> = spans.iter().map(Flat::of).collect();
        let is_other = spans.iter().any(|span| span.get("gen_ai.response.model") == OTHER.0);
        let mut wrong = flat::judge(&recording.truth(), &flat);
        let (sums, shown) = (flat::sums(&flat), traces(&real, &experiment));
        if sums.keys().collect::<BTreeSet<_>>() != shown.keys().collect() {
            wrong.push(format!("{} traces, and {} shown", sums.len(), shown.len()));
        }
        for (trace, tokens) in sums {
            let Some((usage, cost, session)) = shown.get(&trace) else { continue };
            let number = |key: &str| usage[key].as_u64().unwrap_or(0);
            let (read, written) = (number("cache_read_input_tokens"), number("cache_creation_input_tokens"));
            let long = number("cache_creation_input_tokens_above_1hr");
            let input = number("input_tokens").saturating_sub(read + written);
            let found = [input, number("output_tokens"), read, written.saturating_sub(long), long];
            if found != tokens || session.is_empty() {
                wrong.push(format!("{trace} has {found:?} tokens in {session:?}, not {tokens:?}"));
            }
            if !is_other && (cost - dollars(tokens, PRICES)).abs() > 1e-9 {
                wrong.push(format!("{trace} costs {cost}, not {}", dollars(tokens, PRICES)));
            }
            seen.fetch_add(1, Ordering::Relaxed);
            *dear.lock().unwrap() += cost;
        }
        wrong
    });
    let (seen, dear) = (seen.into_inner(), dear.into_inner().unwrap());
    tests::say(&format!(
        "MLFlow shows {seen} traces with the tokens of the API, {dear:.6} dollars, in {:?}",
        started.elapsed()
    ));
    assert!(seen > 80, "{seen}");
}
