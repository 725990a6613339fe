//! At MLflow, images and documents are attachments of their trace, and no span waits for them or carries their bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tests::{Answer, Home, Request, Server, Span, Story, ids, real::Real};

/// The directory with the programs of a Python environment that has MLflow 3.17.2.
const REAL: &str = "CC_LANGFUSE_TEST_MLFLOW";

/// An image of one pixel.
const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

fn env(url: &str) -> Vec<(String, String)> {
    let all = [("MLFLOW_CLAUDE_TRACING_ENABLED", "true"), ("MLFLOW_TRACKING_URI", url)];
    all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn block(kind: &str, media_type: &str, bytes: &[u8]) -> Value {
    json!({"type": kind, "source": {"type": "base64", "media_type": media_type, "data": STANDARD.encode(bytes)}})
}

fn image() -> Vec<u8> {
    STANDARD.decode(PNG).expect("base64")
}

fn document() -> Vec<u8> {
    b"%PDF-1.4\n1 0 obj\n<< >>\nendobj\ntrailer\n<< /Root 1 0 R >>\n%%EOF\n".to_vec()
}

/// A turn with an image and a document in the prompt, and tools that return an image, text beside one, and only text.
fn play(home: &Home, env: &[(String, String)]) -> Story {
    home.settings("work", env);
    let text = |text: &str| json!({"type": "text", "text": text});
    let (png, pdf) = (block("image", "image/png", &image()), block("document", "application/pdf", &document()));
    let mut story = Story::new(home, "work", "s");
    story.prompt_of(&json!([text("look"), png, pdf])).tool_of(&json!([png]));
    story.tool_of(&json!([text("both"), pdf, png])).tool("no media").answer("seen");
    home.hook(&story.stop("seen"), env);
    story
}

/// Makes an answer.
type Say = fn() -> Answer;

/// Uploads to an artifact proxy: type and bytes by path.
type Stored = Arc<Mutex<BTreeMap<String, (String, Vec<u8>)>>>;

/// A server whose experiment keeps its artifacts at `location`; `plan` answers first, if it wants.
fn server(
    location: &str,
    stored: &Stored,
    mut plan: impl FnMut(&Request) -> Option<Answer> + Send + 'static,
) -> Server {
    let (location, stored) = (location.to_owned(), stored.clone());
    Server::answering(move |request| {
        if let Some(answer) = plan(request) {
            return answer;
        }
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/api/2.0/mlflow/experiments/get?experiment_id=0") => Answer::ok()
                .body(&json!({"experiment": {"experiment_id": "0", "artifact_location": location}}).to_string()),
            ("PUT", path) => {
                let kind = request.header("content-type").unwrap_or_default().to_owned();
                stored.lock().unwrap().insert(path.to_owned(), (kind, request.plain.clone()));
                Answer::ok().body("{}")
            }
            _ => Answer::ok(),
        }
    })
}

/// Every text in the inputs and outputs of a span that refers to an attachment.
fn named(span: &Span) -> Vec<String> {
    fn collect(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::String(text) if text.starts_with("mlflow-attachment://") => found.push(text.clone()),
            Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
            Value::Object(fields) => fields.values().for_each(|item| collect(item, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    for key in ["mlflow.spanInputs", "mlflow.spanOutputs"] {
        collect(&serde_json::from_str(span.get(key)).unwrap_or_default(), &mut found);
    }
    found
}

/// Id, type, trace and size of an attachment, from the reference to it.
fn parts(name: &str) -> [String; 4] {
    let (id, rest) = name.trim_start_matches("mlflow-attachment://").split_once('?').expect("a query");
    let values: BTreeMap<&str, &str> = rest.split('&').filter_map(|pair| pair.split_once('=')).collect();
    [id, &values["content_type"].replace("%2F", "/"), values["trace_id"], values["size"]].map(str::to_owned)
}

fn is_without_bytes(spans: &[Span]) {
    for span in spans {
        let all = String::from_utf8_lossy(&span.encoded);
        let encoded = [STANDARD.encode(image()), STANDARD.encode(document())];
        assert!(encoded.iter().all(|bytes| !all.contains(&bytes[..40])), "{} carries bytes", span.name);
    }
}

#[test]
fn each_attachment_is_stored_unchanged_below_its_trace() {
    let (home, stored) = (Home::new(), Stored::default());
    let server = server("mlflow-artifacts:/deep/0", &stored, |_| None);
    let _daemon = home.daemon();
    play(&home, &env(&server.url));
    home.flush();
    let (spans, stored) = (server.spans(), stored.lock().unwrap().clone());
    let named: Vec<[String; 4]> = spans.iter().flat_map(named).map(|name| parts(&name)).collect();
    // Two on the turn and on its first call, one and two on tools.
    assert_eq!(named.len(), 2 + 2 + 1 + 2, "{named:?}");
    let files: BTreeMap<String, (String, Vec<u8>)> = named
        .iter()
        .map(|[id, kind, trace, size]| {
            assert_eq!(*trace, format!("tr-{}", spans[0].trace_id));
            let bytes = if kind == "image/png" { image() } else { document() };
            assert_eq!(*size, bytes.len().to_string());
            let below = format!("deep/0/traces/{trace}/artifacts/attachments/{id}");
            (format!("/api/2.0/mlflow-artifacts/artifacts/{below}"), (kind.clone(), bytes))
        })
        .collect();
    assert_eq!((files.len(), &stored), (2, &files));
    is_without_bytes(&spans);
    let root = spans.iter().find(|span| span.is_root()).expect("a root");
    let asked: Value = serde_json::from_str(root.get("mlflow.spanInputs")).expect("JSON");
    assert_eq!(asked["messages"][0]["content"][0], json!({"type": "text", "text": "look"}));
    let outputs: BTreeSet<String> = spans
        .iter()
        .filter(|span| span.get("mlflow.spanType") == "TOOL")
        .map(|span| {
            let output: Value = serde_json::from_str(span.get("mlflow.spanOutputs")).expect("JSON");
            match &output {
                Value::Object(fields) => format!("{:?} {}", fields.keys().collect::<Vec<_>>(), fields["result"]),
                Value::String(text) => text.split("//").next().unwrap_or_default().to_owned(),
                other => other.to_string(),
            }
        })
        .collect();
    let expect = [r#"["document_1", "image_2", "result"] "both""#, "mlflow-attachment:", "no media"];
    assert_eq!(outputs, expect.map(str::to_owned).into());
    assert_eq!(home.status()["media"]["pending"], 0);
}

#[test]
fn without_an_artifact_proxy_type_and_size_replace_attachments() {
    let places = ["s3://bucket/0", "/srv/mlruns/0", "mlflow-artifacts://other.example.org/0"];
    for location in places {
        let (home, stored) = (Home::new(), Stored::default());
        let server = server(location, &stored, |_| None);
        let _daemon = home.daemon();
        play(&home, &env(&server.url));
        home.flush();
        let spans = server.spans();
        assert_eq!((ids(&spans).len(), stored.lock().unwrap().len()), (8, 0), "{location}");
        assert!(spans.iter().all(|span| named(span).is_empty()), "{location}");
        let size = format!("[image/png, {} bytes]", image().len());
        let showing = spans.iter().filter(|span| {
            [span.get("mlflow.spanInputs"), span.get("mlflow.spanOutputs")].iter().any(|text| text.contains(&size))
        });
        assert_eq!(showing.count(), 4, "{location}");
        is_without_bytes(&spans);
        let status = home.status();
        assert_eq!(status["skipped_lines"]["media_unsupported"], 7, "{location}: {status}");
        assert_eq!((&status["destinations"][0]["state"], &status["media"]["pending"]), (&json!("ok"), &json!(0)));
    }
}

#[test]
fn an_artifact_proxy_that_is_down_or_refuses_delays_no_span() {
    let answers: [(&str, Say); 5] = [
        ("pending", || Answer::status(500)),
        ("pending", Answer::never),
        ("media_refused", || Answer::status(413)),
        ("media_unsupported", || Answer::status(404)),
        ("media_unsupported", || Answer::status(503).body("started with --no-serve-artifacts")),
    ];
    for (became, answer) in answers {
        let (home, stored) = (Home::new(), Stored::default());
        let server = server("mlflow-artifacts:/0", &stored, move |request| (request.method == "PUT").then(answer));
        let daemon = home.daemon();
        play(&home, &env(&server.url));
        let spans = server.wait_for(8);
        assert_eq!(spans.iter().flat_map(named).count(), 7);
        match became {
            "pending" => {
                let left = home.ctl(&["flush", "--timeout", "300ms"]);
                assert!(String::from_utf8_lossy(&left.stderr).contains("0 observations, 7 images"), "{left:?}");
                // Waiting attachments are uploaded when the proxy is back, by another daemon too.
                daemon.kill();
                let again = stored.clone();
                server.change(move |request| {
                    if request.method == "PUT" {
                        again.lock().unwrap().insert(request.path.clone(), (String::new(), request.plain.clone()));
                        return Answer::ok().body("{}");
                    }
                    let found =
                        json!({"experiment": {"artifact_location": "mlflow-artifacts:/0", "experiment_id": "0"}});
                    Answer::ok().body(&found.to_string())
                });
                let _daemon = home.daemon();
                home.flush();
                let files: BTreeSet<Vec<u8>> =
                    stored.lock().unwrap().values().map(|(_, bytes)| bytes.clone()).collect();
                assert_eq!(files, BTreeSet::from([image(), document()]));
            }
            counted => {
                home.flush();
                let status = home.status();
                assert_eq!(status["skipped_lines"][counted], 7, "{status}");
                assert_eq!((&status["destinations"][0]["state"], &status["dead_letters"]), (&json!("ok"), &json!(0)));
            }
        }
    }
}

#[test]
fn an_unknown_artifact_location_delays_no_span() {
    let answers: [Say; 4] =
        [|| Answer::status(500), Answer::never, || Answer::status(405), || Answer::ok().body("<html>")];
    for answer in answers {
        let (home, stored) = (Home::new(), Stored::default());
        let server = server("mlflow-artifacts:/0", &stored, move |request| (request.method == "GET").then(answer));
        let _daemon = home.daemon();
        play(&home, &env(&server.url));
        assert_eq!(ids(&server.wait_for(8)).len(), 8);
        assert_eq!(stored.lock().unwrap().len(), 0);
    }
}

#[test]
fn a_real_server_has_the_bytes_of_each_attachment() {
    let Ok(programs) = std::env::var(REAL) else {
        return tests::skipped(&format!("{REAL} names no directory with the programs of MLflow 3.17.2"));
    };
    let (real, home, otlp) = (Real::mlflow(&programs), Home::new(), Server::new());
    let _daemon = home.daemon();
    let beside = vec![("CC_LANGFUSE_OTLP_ENDPOINT".to_owned(), format!("{}/v1/traces", otlp.url))];
    play(&home, &[env(&real.url()), beside].concat());
    home.flush();
    let trace = otlp.spans()[0].trace_id.clone();
    let artifact = |more: &str| format!("/ajax-api/3.0/mlflow/get-trace-artifact?request_id=tr-{trace}{more}");
    let shown = real.ask("GET", &artifact(""), "").to_string();
    let names: BTreeSet<[String; 4]> = shown
        .split("mlflow-attachment://")
        .skip(1)
        .map(|rest| parts(rest.split(['"', '\\']).next().unwrap_or_default()))
        .collect();
    assert_eq!(names.len(), 2, "{shown}");
    for [id, kind, _, size] in names {
        let bytes = real.bytes(&artifact(&format!("&path={id}"))).unwrap_or_default();
        let expect = if kind == "image/png" { image() } else { document() };
        assert_eq!((bytes.len().to_string(), bytes), (size, expect), "{kind}");
    }
    let status = home.status();
    assert!(status["skipped_lines"].to_string().find("media").is_none(), "{status}");
    tests::say("MLflow has an image and a document as they were, below the trace that names them");
}
