use std::time::Duration;

use http::{HeaderMap, HeaderValue, Response};

use super::*;
use crate::{
    destination::{Destination, Endpoint, Kind},
    secret::Secrets,
};

fn answered(status: u16, body: &str) -> Answered {
    let body = body.to_owned();
    Answered {
        response: Response::builder().status(status).body(Bytes::from(body.clone())).ok(),
        answer: Answer::Response { status, retry_after: None, date: None, rejected: None, denial: None, body },
        took: Duration::ZERO,
        at_ms: 0,
    }
}

fn at_location(location: &str) -> Answered {
    answered(200, &serde_json::json!({"experiment": {"experiment_id": "7", "artifact_location": location}}).to_string())
}

fn next(answers: &[Answered]) -> Next {
    let to = Destination { kind: Kind::Mlflow, address: "https://ml.example.org/x".into(), account: "7".into() };
    let mut headers = HeaderMap::new();
    headers.insert(EXPERIMENT, HeaderValue::from_static("7"));
    headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Basic eA=="));
    headers.insert("x-mlflow-workspace", HeaderValue::from_static("team"));
    let endpoint = Endpoint { url: "https://ml.example.org/x/v1/traces".into(), headers };
    let upload = Upload {
        hash: [7; 32],
        kind: "image/png".into(),
        length: 3,
        trace_id: [1; 16],
        span_id: [2; 8],
        field: "input".into(),
        tries: 0,
    };
    Attachments.next(&Place { to: &to, secrets: &Secrets::default(), endpoint: &endpoint }, &upload, answers)
}

fn end(answers: &[Answered]) -> Outcome {
    match next(answers) {
        Next::End(outcome) => outcome,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_bytes_are_uploaded_to_the_experiments_artifact_location() {
    let Next::Ask(request) = next(&[]) else { panic!() };
    assert_eq!(request.uri(), "https://ml.example.org/x/api/2.0/mlflow/experiments/get?experiment_id=7");
    assert_eq!((request.method().as_str(), request.headers().len()), ("GET", 2));
    for (location, path) in [
        ("mlflow-artifacts:/7", "7"),
        ("mlflow-artifacts:///7/", "7"),
        ("mlflow-artifacts:/workspaces/team/7", "workspaces/team/7"),
        ("mlflow-artifacts:/a b/ü", "a%20b/%C3%BC"),
    ] {
        let Next::Send(request) = next(&[at_location(location)]) else { panic!("{location}") };
        let (dir, id) = request.uri().path().rsplit_once('/').unwrap();
        let trace = "01".repeat(16);
        let expect = format!("/x/api/2.0/mlflow-artifacts/artifacts/{path}/traces/tr-{trace}/artifacts/attachments");
        assert_eq!((dir, id), (expect.as_str(), attachment(&[7; 32]).as_str()));
        assert_eq!((request.method().as_str(), request.headers().len()), ("PUT", 3), "{:?}", request.headers());
    }
}

#[test]
fn artifacts_outside_the_proxy_are_never_uploaded() {
    for location in [
        "s3://bucket/7",
        "file:///mlruns/7",
        "/mlruns/7",
        "",
        "mlflow-artifacts://other.example.org:5000/7",
        "mlflow-artifacts:/../../mlflow/7",
        "mlflow-artifacts:/%2e%2e/7",
        "mlflow-artifacts:/7?x=",
        "mlflow-artifacts:/7#x",
    ] {
        assert!(matches!(end(&[at_location(location)]), Outcome::Never(Reason::Unsupported, _)), "{location}");
        assert!(!Attachments.takes(&at_location(location)), "{location}");
    }
    for body in ["{}", "<html>", "[]", r#"{"experiment":{"experiment_id":"7"}}"#] {
        assert!(!Attachments.takes(&answered(200, body)), "{body}");
    }
    assert!(!Attachments.takes(&answered(404, "")));
    // These answers decide nothing.
    for status in [429, 500, 502, 503] {
        assert!(Attachments.takes(&answered(status, "")), "{status}");
        assert!(matches!(end(&[answered(status, "")]), Outcome::Later(..)), "{status}");
    }
}

#[test]
fn the_answer_to_the_bytes_ends_the_upload() {
    let put = |status, body: &str| end(&[at_location("mlflow-artifacts:/7"), answered(status, body)]);
    assert_eq!(put(200, "{}"), Outcome::Done);
    assert!(matches!(put(404, ""), Outcome::Never(Reason::Unsupported, _)));
    assert!(matches!(put(503, "started with --no-serve-artifacts"), Outcome::Never(Reason::Unsupported, _)));
    assert!(matches!(put(413, ""), Outcome::Never(Reason::Refused, _)));
    assert!(matches!(put(503, ""), Outcome::Later(..)));
    assert!(matches!(put(403, "Permission denied"), Outcome::Park(_)));
}

#[test]
fn equal_bytes_have_one_id_and_a_reference_has_type_trace_and_size() {
    let id = attachment(&[7; 32]);
    assert_eq!(id.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
    assert_eq!((&id[14..15], attachment(&[7; 32]) == id, attachment(&[8; 32]) == id), ("8", true, false));
    let media = MediaRef { kind: "image/png".into(), hash: [7; 32], length: 68 };
    let expect = format!("mlflow-attachment://{id}?content_type=image%2Fpng&trace_id=tr-{}&size=68", "01".repeat(16));
    assert_eq!(reference(&[1; 16], &media), expect);
}
