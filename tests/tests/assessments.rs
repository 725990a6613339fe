//! What went wrong in a turn arrives in MLflow as assessments of its trace, each once.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tests::{Answer, Home, Server, lines::Lines};

/// The directory with the programs of a Python environment that has MLflow 3.17.2.
const REAL_MLFLOW: &str = "CC_LANGFUSE_TEST_MLFLOW";

fn settled(home: &Home) {
    home.flush();
    home.status_until("the scores to be settled", |status| status["scores"]["pending"] == 0);
}

/// A turn in which a tool failed, and its Stop.
fn failing(home: &Home, env: &[(String, String)]) -> Lines {
    home.settings("work", env);
    let mut lines = Lines::new(home, "s");
    lines.prompt("do it").call().result(true, None).answer("done");
    home.hook(&lines.story.stop("done"), env);
    lines
}

fn mlflow(url: &str) -> Vec<(String, String)> {
    let all = [("MLFLOW_CLAUDE_TRACING_ENABLED", "true"), ("MLFLOW_TRACKING_URI", url)];
    all.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
}

#[test]
fn mlflow_has_them_as_assessments_each_once_over_lost_answers() {
    let (home, server) = (Home::new(), Server::new());
    let env = mlflow(&server.url);
    home.settings("work", &env);
    let daemon = home.daemon();
    let mut lines = Lines::new(&home, "s");
    lines.prompt("do it").call().result(true, None).answer("done");
    let mut asked = 0;
    // The server takes the first one without an answer.
    server.change_scores(move |request| {
        asked += u32::from(request.method == "POST");
        if request.method == "POST" && asked == 1 { Answer::lost() } else { Answer::ok() }
    });
    home.hook(&lines.story.stop("done"), &env);
    settled(&home);
    let [one] = &server.assessments()[..] else { panic!("one: {:?}", server.assessments()) };
    assert_eq!((&one["assessment_name"], &one["feedback"]["value"]), (&json!("tool_failures"), &json!(1.0)));
    assert_eq!(one["source"], json!({"source_type": "CODE", "source_id": "cc-langfuse"}));
    // A person's word, and then another.
    for value in ["true", "false"] {
        let done = home.ctl(&["score", "s", "--turn", "1", "useful", value]);
        assert!(done.status.success(), "{done:?}");
        settled(&home);
    }
    let all = server.assessments();
    let useful = all.iter().find(|one| one["assessment_name"] == "useful").expect("one");
    assert_eq!(
        (all.len(), &useful["feedback"]["value"], &useful["source"]["source_type"]),
        (2, &json!(false), &json!("HUMAN"))
    );
    // Neither an end nor a restart adds one: MLflow has no place for how a session ended.
    daemon.kill();
    let _daemon = home.daemon();
    lines.prompt("fine").answer("good");
    home.hook(&lines.story.stop("good"), &env);
    home.hook(&lines.story.event("SessionEnd"), &env);
    settled(&home);
    assert_eq!(server.assessments().len(), 2);
}

#[test]
fn a_real_mlflow_server_shows_them() {
    let Ok(programs) = std::env::var(REAL_MLFLOW) else { return };
    let real = tests::real::Real::mlflow(&programs);
    let home = Home::new();
    let env = mlflow(&format!("http://127.0.0.1:{}", real.port));
    home.settings("work", &env);
    let _daemon = home.daemon();
    let mut lines = Lines::new(&home, "s");
    lines.prompt("bad").retry(1).call().result(true, None).call().result(true, Some("user-rejected")).interrupted();
    home.hook(&lines.story.event("SessionEnd"), &env);
    settled(&home);
    for value in ["0.5", "0.75"] {
        assert!(home.ctl(&["score", "s", "--turn", "1", "quality", value]).status.success());
        settled(&home);
    }
    // SHA-256 of the prompt's id, `s-1`.
    let said = real.ask("GET", "/api/3.0/mlflow/traces/get?trace_id=tr-6a840baf5d8c3ff241688aeb14546e65", "");
    let found = said["trace"]["trace_info"]["assessments"].as_array().expect("assessments");
    let found: BTreeMap<_, _> = found
        .iter()
        .map(|one| (one["assessment_name"].as_str().expect("a name"), one["feedback"]["value"].clone()))
        .collect();
    let expect = [
        ("interrupted", json!(true)),
        ("permission_denied", json!(1.0)),
        ("quality", json!(0.75)),
        ("retries", json!(1.0)),
        ("tool_failures", json!(1.0)),
    ];
    assert_eq!(found, expect.into());
}

/// The directory with the programs of a Python environment that has Arize Phoenix.
const REAL_PHOENIX: &str = "CC_LANGFUSE_TEST_PHOENIX";

#[test]
fn a_real_phoenix_shows_them_as_annotations_of_traces_and_sessions() {
    let test = "a_real_phoenix_shows_them_as_annotations_of_traces_and_sessions";
    let Ok(programs) = std::env::var(REAL_PHOENIX) else {
        return tests::skipped(&format!("{REAL_PHOENIX} names no directory with the programs of Arize Phoenix"));
    };
    if !tests::real::is_apart(test) {
        return;
    }
    let (home, real) = (Home::new(), tests::real::phoenix(&programs));
    let env = [
        ("CC_LANGFUSE_OTLP_ENDPOINT", format!("{}/v1/traces", real.url())),
        ("CC_LANGFUSE_OTLP_PRESET", "phoenix".to_owned()),
        ("CC_LANGFUSE_OTLP_NAME", "work".to_owned()),
    ];
    let env = env.map(|(name, value)| (name.to_owned(), value)).to_vec();
    let _daemon = home.daemon();
    let lines = failing(&home, &env);
    home.hook(&lines.story.event("SessionEnd"), &env);
    // Phoenix has a trace a moment after it has taken it: a score that comes before waits.
    settled(&home);
    for value in ["true", "false"] {
        let done = home.ctl(&["score", "s", "--turn", "1", "useful", value]);
        assert!(done.status.success(), "{done:?}");
        settled(&home);
    }
    let query = json!({"query": "{ projects { edges { node { name traces: sessions(first: 5) { edges { node { sessionId
        sessionAnnotations { name label } traces(first: 5) { edges { node { traceAnnotations { name score label annotatorKind } } } } } } } } } } }"});
    let answer = real.ask("POST", "/graphql", &query.to_string());
    let found = answer.to_string();
    for wanted in [
        r#""name":"tool_failures""#,
        r#""score":1.0"#,
        r#""name":"outcome""#,
        r#""label":"completed""#,
        r#""name":"useful""#,
        r#""label":"false""#,
        r#""annotatorKind":"HUMAN""#,
    ] {
        assert!(found.contains(wanted), "{wanted}: {found}");
    }
    assert_eq!(found.matches(r#""name":"useful""#).count(), 1, "{found}");
    assert_eq!(home.status()["dead_letters"], 0);
}

/// The log records that came, in their order.
fn events(server: &Server) -> Vec<Value> {
    let requests = server.requests().into_iter().filter(|request| request.path == "/v1/logs");
    let records = requests.map(|request| {
        let body: Value = serde_json::from_slice(&request.plain).expect("JSON");
        body["resourceLogs"][0]["scopeLogs"][0]["logRecords"].as_array().expect("records").clone()
    });
    records.flatten().collect()
}

fn attribute<'r>(record: &'r Value, key: &str) -> &'r Value {
    let all = record["attributes"].as_array().expect("attributes");
    all.iter().find(|one| one["key"] == key).map_or(&Value::Null, |one| &one["value"])
}

#[test]
fn a_receiver_of_genai_conventions_has_them_as_events_of_the_trace() {
    for (dialect, takes_logs, expect) in [("genai", true, 1), ("both", true, 0), ("genai", false, 0)] {
        let home = Home::new();
        let mut lost = false;
        let server = Server::answering(move |request| match request.path == "/v1/logs" {
            true if !takes_logs => Answer::status(404),
            // The receiver takes the first one without an answer.
            true if !std::mem::replace(&mut lost, true) => Answer::lost(),
            _ => Answer::ok(),
        });
        let env = [
            ("CC_LANGFUSE_OTLP_ENDPOINT", format!("{}/v1/traces", server.url)),
            ("CC_LANGFUSE_OTLP_DIALECT", dialect.to_owned()),
        ];
        let env = env.map(|(name, value)| (name.to_owned(), value)).to_vec();
        let _daemon = home.daemon();
        let _ = failing(&home, &env);
        settled(&home);
        let found = if takes_logs { events(&server) } else { Vec::new() };
        let of = |record: &Value| attribute(record, "log.record.uid").to_string();
        let names: BTreeMap<String, &Value> = found.iter().map(|record| (of(record), record)).collect();
        assert_eq!(names.len(), expect, "{dialect}: {found:?}");
        for record in names.values() {
            let root = server.spans().into_iter().find(tests::Span::is_root).expect("a root");
            assert_eq!(record["eventName"], "gen_ai.evaluation.result");
            assert_eq!((&record["traceId"], &record["spanId"]), (&json!(root.trace_id), &json!(root.span_id)));
            assert_eq!(attribute(record, "gen_ai.evaluation.name"), &json!({"stringValue": "tool_failures"}));
            assert_eq!(attribute(record, "gen_ai.evaluation.score.value"), &json!({"doubleValue": 1.0}));
            assert_eq!(found.len(), 2, "once more after the lost answer");
        }
        let status = home.status();
        let unsupported = status["skipped_lines"]["score_unsupported"].as_u64().unwrap_or_default();
        assert_eq!((unsupported, &status["dead_letters"]), (u64::from(!takes_logs), &json!(0)), "{status}");
        assert_eq!(server.spans().len(), 4, "spans do not wait for them");
    }
}
