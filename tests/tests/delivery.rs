//! Whatever the server answers, every span arrives once, and spans that no server accepts are set aside visibly.

use std::time::{Duration, Instant};

use tests::{Answer, Home, Request, Server, Span, Story, ids, server};

/// A session of `turns` turns in `project`, emitted whole: two spans each.
fn play(home: &Home, project: &str, turns: usize, env: &[(String, String)]) -> Story {
    let mut story = Story::new(home, project, &format!("session-{project}"));
    for turn in 1..=turns {
        story.turn(&format!("question {turn}"), &format!("answer {turn}"));
    }
    home.hook(&story.stop(&format!("answer {turns}")), env);
    story
}

fn failed(request: &Request) -> bool {
    !(200..300).contains(&request.status)
}

#[test]
fn requests_to_langfuse_ignore_the_variables_of_other_exporters() {
    let (home, server, other) = (Home::new(), Server::new(), Server::new());
    let elsewhere = other.url.as_str();
    let _daemon = home.daemon_with(&[
        (
            "OTEL_EXPORTER_OTLP_HEADERS",
            "authorization=Basic b3RoZXI6b3RoZXI=,x-leak=leaked,x-langfuse-ingestion-version=1",
        ),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "authorization=Basic b3RoZXI6b3RoZXI=,x-traces-leak=leaked"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", elsewhere),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", elsewhere),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "none"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1"),
        ("OTEL_RESOURCE_ATTRIBUTES", "host.name=leaked,user=leaked"),
        ("OTEL_SERVICE_NAME", "leaked"),
        ("OTEL_SDK_DISABLED", "true"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "1"),
        ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "1"),
        ("OTEL_TRACES_SAMPLER", "always_off"),
    ]);
    play(&home, "work", 1, &server.env());
    let spans = server.wait_for(2);
    home.flush();
    let requests = server.requests();
    let [request] = requests.as_slice() else { panic!("{} requests", requests.len()) };
    assert_eq!(request.path, "/api/public/otel/v1/traces");
    assert_eq!(request.key(), "pk-lf-test:sk-lf-test");
    for (name, value) in [
        ("content-type", "application/x-protobuf"),
        ("content-encoding", "gzip"),
        ("x-langfuse-ingestion-version", "4"),
        ("x-langfuse-sdk-name", "cc-langfuse"),
        ("x-langfuse-public-key", "pk-lf-test"),
    ] {
        assert_eq!(request.header(name), Some(value), "{name}");
    }
    assert_eq!(&request.raw[..2], [0x1f, 0x8b], "gzip");
    assert!(request.headers.iter().all(|(name, value)| !name.contains("leak") && !value.contains("leak")));
    for span in &spans {
        assert!(span.scope.starts_with("langfuse-sdk"), "{}", span.scope);
        let resource: Vec<_> = span.resource.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(resource, [("service.name", "claude-code")]);
        assert_eq!(span.get("session.id"), "session-work");
    }
    assert_eq!(other.requests().len(), 0);
}

#[test]
fn an_unaccepted_batch_is_sent_again_unchanged_and_not_too_early() {
    let home = Home::new();
    let _daemon = home.daemon();
    let cases = [
        ("500", Answer::status(500), 0),
        ("500-again", Answer::status(500).header("retry-after", "3600"), 0),
        ("502", Answer::status(502), 0),
        ("504", Answer::status(504), 0),
        ("408", Answer::status(408), 0),
        ("503", Answer::status(503).header("retry-after", "2"), 2),
        ("429", Answer::status(429).header("retry-after", "3"), 3),
        (
            "429-date",
            Answer::status(429)
                .header("retry-after", "Fri, 20 Nov 2026 20:00:02 GMT")
                .header("date", "Fri, 20 Nov 2026 20:00:00 GMT"),
            2,
        ),
        ("lost", Answer::lost(), 0),
    ];
    let servers = cases.map(|(name, answer, wait)| {
        let mut first = Some(answer);
        let server = Server::answering(move |_| first.take().unwrap_or_else(Answer::ok));
        // One turn, so that all of it is in the first request and the second adds nothing.
        play(&home, name, 1, &server.env());
        (name, server, Duration::from_secs(wait))
    });
    for (_, server, _) in &servers {
        server.wait_for_requests(1);
    }
    // A waiting user does not shorten the wait that the server asked for.
    let left = home.ctl(&["flush", "--timeout", "200ms"]);
    assert_eq!(left.status.code(), Some(1), "{left:?}");
    home.flush();
    for (name, server, wait) in &servers {
        let requests = server.requests();
        let [first, second] = requests.as_slice() else { panic!("{name}: {} requests", requests.len()) };
        assert!(failed(first) && !failed(second), "{name}");
        assert!(first.plain == second.plain, "{name}: {:?}, then {:?}", first.spans, second.spans);
        assert_eq!(ids(&server.spans()).len(), 2, "{name}");
        let waited = second.at - first.at;
        assert!(waited >= *wait, "{name}: only {waited:?} between them");
        assert!(waited < *wait + Duration::from_secs(10), "{name}: {waited:?} between them");
    }
}

#[test]
fn a_project_can_name_its_server_by_each_variable() {
    let home = Home::new();
    let _daemon = home.daemon();
    let nowhere = "http://127.0.0.1:1";
    for (number, names) in [
        &[("LANGFUSE_BASE_URL", "{}")][..],
        &[("LANGFUSE_BASE_URL", " {}/ ")],
        &[("LANGFUSE_BASE_URL", "{}/?a=b#c")],
        &[("LANGFUSE_HOST", "{}")],
        &[("LANGFUSE_BASE_URL", ""), ("LANGFUSE_HOST", "{}")],
        &[("LANGFUSE_BASE_URL", "{}"), ("LANGFUSE_HOST", nowhere)],
        &[("LANGFUSE_BASE_URL", nowhere), ("CC_LANGFUSE_BASE_URL", "{}")],
        &[("LANGFUSE_BASE_URL", "{}"), ("CC_LANGFUSE_BASE_URL", "")],
        &[("LANGFUSE_BASE_URL", nowhere), ("CC_LANGFUSE_HOST", nowhere), ("CC_LANGFUSE_BASE_URL", "{}")],
        &[("LANGFUSE_BASE_URL", "{}"), ("CC_LANGFUSE_PUBLIC_KEY", "pk"), ("CC_LANGFUSE_SECRET_KEY", "sk")],
        &[("LANGFUSE_BASE_URL", "{}/prefix/")],
    ]
    .into_iter()
    .enumerate()
    {
        let server = Server::new();
        let mut env = server.env();
        env.retain(|(name, _)| name != "LANGFUSE_BASE_URL");
        env.extend(names.iter().map(|(name, value)| ((*name).to_owned(), value.replace("{}", &server.url))));
        play(&home, &format!("way-{number}"), 1, &env);
        assert_eq!(server.wait_for(2).len(), 2, "{names:?}");
        let prefix = if names[0].1.contains("prefix") { "/prefix" } else { "" };
        let key = if names.iter().any(|(name, _)| name.ends_with("KEY")) { "pk:sk" } else { "pk-lf-test:sk-lf-test" };
        let request = &server.requests()[0];
        assert_eq!(
            (&*request.path, &*request.key()),
            (&*format!("{prefix}/api/public/otel/v1/traces"), key),
            "{names:?}"
        );
    }
}

#[test]
fn a_refused_key_is_tried_again_when_a_hook_brings_another() {
    let home = Home::new();
    let _daemon = home.daemon();
    let server = Server::answering(|request| Answer::status(if request.key() == "pk:sk-new" { 200 } else { 401 }));
    let story = play(&home, "work", 1, &server::env(&server.url, "pk", "sk-old"));
    home.status_until("the destination to be parked", |status| status["destinations"][0]["state"] == "parked");
    let why = home.status()["destinations"][0]["last_error"].as_str().unwrap_or_default().to_owned();
    assert!(why.contains("401") && why.contains("key"), "{why}");
    home.hook(&story.event("SessionEnd"), &server::env(&server.url, "pk", "sk-new"));
    assert_eq!(server.wait_for(2).len(), 2);
    home.status_until("the destination to be well", |status| status["destinations"][0]["state"] == "ok");
}

#[test]
fn a_refused_key_is_looked_up_again_in_the_settings_on_flush() {
    let home = Home::new();
    let _daemon = home.daemon();
    let server = Server::answering(|request| Answer::status(if request.key() == "pk:sk-new" { 200 } else { 403 }));
    play(&home, "work", 1, &server::env(&server.url, "pk", "sk-old"));
    home.status_until("the destination to be parked", |status| status["destinations"][0]["state"] == "parked");
    home.settings("work", &server::env(&server.url, "pk", "sk-new"));
    home.flush();
    assert_eq!(server.spans().len(), 2);
}

#[test]
fn a_refused_span_becomes_a_dead_letter_and_all_others_arrive() {
    let home = Home::new();
    let daemon = home.daemon();
    let poisonous = |span: &Span| span.is_generation() && span.content("output") == "answer 23";
    let server = Server::answering(move |request| match request.spans.iter().any(poisonous) {
        true => Answer::status(400).body("span 23 is not to my taste"),
        false => Answer::ok(),
    });
    home.settings("work", &server.env());
    play(&home, "work", 40, &server.env());
    home.flush();
    let spans = server.spans();
    assert_eq!((spans.len(), ids(&spans).len()), (79, 79));
    assert!(!spans.iter().any(poisonous));
    assert_eq!(home.status()["dead_letters"], 1);
    assert!(server.requests().len() < 30, "{} requests", server.requests().len());
    // It stays set aside.
    daemon.kill();
    let _daemon = home.daemon();
    home.flush();
    assert_eq!((home.status()["dead_letters"].as_u64(), server.spans().len()), (Some(1), 79));
}

#[test]
fn a_too_large_batch_is_split_and_a_too_large_span_is_cut_visibly() {
    const LIMIT: usize = 24 << 10;
    let home = Home::new();
    let _daemon = home.daemon();
    let server = Server::answering(|request| Answer::status(if request.plain.len() > LIMIT { 413 } else { 200 }));
    let long = "ü".repeat(60_000);
    let mut story = Story::new(&home, "work", "large");
    for turn in 1..=20 {
        story.turn(&format!("question {turn}"), &"x".repeat(2000));
    }
    story.turn("the long one", &long).turn("the last one", "short");
    home.hook(&story.stop("short"), &server.env());
    home.flush();
    let spans = server.spans();
    assert_eq!((spans.len(), ids(&spans).len()), (44, 44));
    assert_eq!(home.status()["dead_letters"], 0);
    let cut: Vec<&Span> =
        spans.iter().filter(|span| span.attrs.values().any(|value| value.contains("[TRUNCATED"))).collect();
    // The long answer is in its generation and in its turn.
    assert_eq!(cut.len(), 2, "{:?}", cut.iter().map(|span| &span.name).collect::<Vec<_>>());
    for span in cut {
        assert!(span.observation("output").contains("üüü"), "what fits is kept");
        assert!(!span.name.is_empty() && span.get("session.id") == "large");
    }
    assert!(server.requests().iter().all(|request| failed(request) || request.plain.len() <= LIMIT));
}

#[test]
fn spans_accepted_with_partial_success_are_not_sent_again() {
    let home = Home::new();
    let _daemon = home.daemon();
    // ExportTraceServiceResponse { partial_success: { rejected_spans: 1, error_message: "no" } }
    let protobuf = "\u{a}\u{6}\u{8}\u{1}\u{12}\u{2}no";
    let json = r#"{"partialSuccess":{"rejectedSpans":"1","errorMessage":"no"}}"#;
    let cases = [
        ("protobuf", Answer::ok().header("content-type", "application/x-protobuf").body(protobuf)),
        ("json", Answer::ok().body(json)),
        ("207", Answer::status(207).body("{\"successes\":[],\"errors\":[]}")),
        ("empty", Answer::status(204).body("")),
    ];
    let servers = cases.map(|(name, answer)| {
        let server = Server::answering(move |_| answer.clone());
        play(&home, name, 1, &server.env());
        (name, server)
    });
    home.flush();
    for (name, server) in &servers {
        assert_eq!((server.requests().len(), server.spans().len()), (1, 2), "{name}");
    }
    assert_eq!(home.log().matches("not all of its spans").count(), 2, "{}", home.log());
}

#[test]
fn a_redirect_is_not_followed() {
    let home = Home::new();
    let _daemon = home.daemon();
    let other = Server::new();
    let servers = [301, 302, 307, 308].map(|status| {
        let to = format!("{}/api/public/otel/v1/traces", other.url);
        let server = Server::answering(move |_| Answer::status(status).header("location", to.clone()));
        play(&home, &format!("redirect-{status}"), 1, &server.env());
        server
    });
    let status = home.status_until("all destinations to be parked", |status| {
        let all = status["destinations"].as_array().expect("a list");
        all.len() == servers.len() && all.iter().all(|destination| destination["state"] == "parked")
    });
    for destination in status["destinations"].as_array().expect("a list") {
        assert!(destination["last_error"].as_str().is_some_and(|why| why.contains("redirect")), "{destination}");
    }
    assert_eq!(other.requests().len(), 0, "the key went to a server it was not meant for");
    for server in &servers {
        server.change(|_| Answer::ok());
    }
    home.flush();
    assert!(servers.iter().all(|server| server.spans().len() == 2));
}

#[test]
fn a_session_arrives_when_the_server_is_up_again() {
    let home = Home::new();
    let address = server::unused();
    let env = server::env(&format!("http://{address}"), "pk", "sk");
    home.settings("work", &env);
    let mut story = Story::new(&home, "work", "s");
    for turn in 1..=6 {
        // Half of the hooks find no daemon.
        let daemon = (turn % 2 == 0).then(|| home.daemon());
        let answer = format!("answer {turn}");
        story.prompt("q").tool("t").answer(&answer);
        home.hook(&story.stop(&answer), &env);
        if let Some(daemon) = daemon {
            home.status_until("the turn to be stored", |status| {
                status["inbox"]["pending"] == 0 && status["outbox"]["pending"] == 4 * turn
            });
            daemon.kill();
        }
    }
    let daemon = home.daemon();
    home.hook(&story.event("SessionEnd"), &env);
    let status = home.status_until("the failure to be seen", |status| status["destinations"][0]["state"] == "retrying");
    assert!(status["destinations"][0]["last_error"].is_string() && status["dead_letters"] == 0, "{status}");
    let server = Server::at(address, |_| Answer::ok());
    home.flush();
    let spans = server.spans();
    assert_eq!((spans.len(), ids(&spans).len()), (24, 24));
    assert!(daemon.terminate().success());
}

#[test]
fn after_an_outage_the_log_names_each_turn_with_its_page_and_the_disk_gets_its_room_back() {
    let home = Home::new();
    let address = server::unused();
    let env = server::env(&format!("http://{address}"), "pk", "sk");
    home.settings("work", &env);
    let daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    let long = |turn: u64| tests::noise(400_000, turn);
    for turn in 1..=30 {
        story.turn(&long(turn), &long(100 + turn));
    }
    home.hook(&story.event("SessionEnd"), &env);
    home.status_until("all turns to wait", |status| status["outbox"]["pending"] == 60);
    assert!(!home.log().contains("turn delivered"));
    let server = Server::at(address, |_| Answer::ok());
    home.flush();
    assert!(daemon.terminate().success());
    let size = || std::fs::metadata(home.paths().database).expect("the database").len();
    let grown = size();
    assert!(grown > 20 << 20, "{grown}");
    let _daemon = home.daemon();
    tests::eventually("the room to be given back", || size() < 2 << 20);
    let log = home.log();
    let roots: Vec<Span> = server.spans().into_iter().filter(Span::is_root).collect();
    assert_eq!((roots.len(), log.matches("turn delivered").count()), (30, 30), "{log}");
    for root in roots {
        let page = format!(" INFO turn delivered url=\"http://{address}/trace/{}\"", root.id().0);
        assert!(log.lines().any(|line| line.ends_with(&page)), "{page}: {log}");
    }
}

#[test]
fn a_server_that_is_down_does_not_delay_another() {
    let home = Home::new();
    let _daemon = home.daemon();
    let away = server::env(&format!("http://{}", server::unused()), "pk", "sk");
    play(&home, "away", 1, &away);
    home.status_until("the failure to be seen", |status| status["destinations"][0]["state"] == "retrying");
    let server = Server::new();
    let started = Instant::now();
    play(&home, "there", 1, &server.env());
    server.wait_for(2);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn a_server_that_never_answers_delays_nothing() {
    let home = Home::new();
    let daemon = home.daemon();
    let stuck = Server::answering(|_| Answer::never());
    home.settings("stuck", &stuck.env());
    play(&home, "stuck", 1, &stuck.env());
    stuck.wait_for_requests(1);
    assert_eq!(home.status()["outbox"]["in_flight"], 2);
    let server = Server::new();
    play(&home, "there", 1, &server.env());
    server.wait_for(2);
    let started = Instant::now();
    let left = home.ctl(&["flush", "--timeout", "300ms"]);
    assert_eq!(left.status.code(), Some(1), "{left:?}");
    assert!(String::from_utf8_lossy(&left.stderr).contains("2 observations"), "{left:?}");
    assert!(daemon.terminate().success());
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    stuck.change(|_| Answer::ok());
    let _daemon = home.daemon();
    home.flush();
    assert_eq!((stuck.spans().len(), server.spans().len()), (2, 2));
}

#[test]
fn many_spans_arrive_in_few_requests() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    play(&home, "work", 600, &server.env());
    home.flush();
    assert_eq!(ids(&server.spans()).len(), 1200);
    let requests = server.requests();
    assert!(requests.len() <= 8, "{} requests", requests.len());
    assert!(requests.iter().all(|request| request.spans.len() <= 512));
}
