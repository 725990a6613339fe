use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response};

use super::*;
use crate::{
    destination::{Destination, Endpoint, Kind, langfuse::SECRET_KEY},
    secret::{Secret, Secrets},
};

fn answered(status: u16, body: &str) -> Answered {
    let answer = Answer::Response {
        status,
        retry_after: (status == 503).then(|| "7".into()),
        date: None,
        rejected: None,
        denial: body.starts_with('<').then(|| "a page".into()),
        body: body.into(),
    };
    let response = Response::builder().status(status).body(Bytes::copy_from_slice(body.as_bytes())).unwrap();
    Answered { answer, response: Some(response), took: Duration::from_millis(40), at_ms: 1_700_000_000_000 }
}

fn lost(answer: Answer) -> Answered {
    Answered { answer, response: None, took: Duration::ZERO, at_ms: 0 }
}

fn upload(tries: u32) -> Upload {
    Upload {
        hash: [7; 32],
        kind: "image/png".into(),
        length: 3,
        trace_id: [1; 16],
        span_id: [2; 8],
        field: "input".into(),
        tries,
    }
}

/// The next step after these answers from a server at `address`.
fn next(address: &str, tries: u32, answers: &[Answered]) -> Next {
    let to = Destination { kind: Kind::Langfuse, address: address.into(), account: "pk".into() };
    let secrets: Secrets = [(SECRET_KEY, Secret::new("sk"))].into_iter().collect();
    let endpoint = Endpoint { url: String::new(), headers: HeaderMap::new() };
    Media.next(&Place { to: &to, secrets: &secrets, endpoint: &endpoint }, &upload(tries), answers)
}

const AWAY: &str = "https://lf.example.org";

fn address(url: &str) -> Answered {
    answered(201, &json!({ "mediaId": "x", "uploadUrl": url }).to_string())
}

#[test]
fn an_upload_asks_then_sends_the_bytes_and_then_reports() {
    let Next::Ask(question) = next(AWAY, 0, &[]) else { panic!() };
    assert_eq!(question.uri(), "https://lf.example.org/api/public/media");
    let body: Value = serde_json::from_slice(question.body()).unwrap();
    assert_eq!(
        (&body["contentLength"], &body["traceId"], &body["field"]),
        (&3.into(), &"01".repeat(16).into(), &"input".into())
    );
    assert!(question.headers()[header::AUTHORIZATION].is_sensitive());

    let storage = || address("https://bucket.example.org/x?y");
    let Next::Store(put) = next(AWAY, 0, &[storage()]) else { panic!() };
    assert_eq!((put.uri().to_string().as_str(), put.method()), ("https://bucket.example.org/x?y", &Method::PUT));
    assert!(put.headers().contains_key("x-ms-blob-type") && !put.headers().contains_key(header::AUTHORIZATION));
    let Next::Store(put) = next(AWAY, 0, &[address("https://storage.googleapis.com/x")]) else { panic!() };
    assert_eq!(put.headers().keys().collect::<Vec<_>>(), ["content-type"], "it refuses headers that were not signed");

    for (status, error) in [(200, Value::Null), (403, "HTTP 403".into())] {
        let Next::Ask(report) = next(AWAY, 0, &[storage(), answered(status, "")]) else { panic!() };
        assert_eq!(report.uri().path(), format!("/api/public/media/{}", media_id(&[7; 32])));
        let body: Value = serde_json::from_slice(report.body()).unwrap();
        assert_eq!((&body["uploadHttpError"], &body["uploadTimeMs"]), (&error, &40.into()));
        assert_eq!(body["uploadedAt"], "2023-11-14T22:13:20Z");
    }
}

#[test]
fn each_answer_has_one_outcome() {
    let at = |url: &str| address(url);
    let fine = || at("https://bucket.example.org/x");
    let refused = |why: &str| Outcome::Never(Reason::Refused, why.into());
    let cases: Vec<(&str, u32, Vec<Answered>, Outcome)> = vec![
        (AWAY, 0, vec![answered(200, r#"{"mediaId":"x","uploadUrl":null}"#)], Outcome::Done),
        (
            AWAY,
            0,
            vec![answered(200, "{}x")],
            Outcome::Never(Reason::Unsupported, "its answer does not come from Langfuse's media API".into()),
        ),
        (AWAY, 0, vec![at("http://bucket.example.org/x")], refused("the address to upload to is not one with https")),
        (AWAY, 0, vec![at("http://127.0.0.1/x")], refused("the address to upload to is not one with https")),
        (AWAY, 0, vec![at("no address")], refused("the address to upload to is not one with https")),
        (AWAY, 0, vec![lost(Answer::Silent("reset".into()))], Outcome::Away("reset".into())),
        (AWAY, 0, vec![fine(), lost(Answer::Unreachable("gone".into()))], Outcome::Away("gone".into())),
        (AWAY, 0, vec![fine(), answered(200, ""), answered(200, "{}")], Outcome::Done),
        (AWAY, 0, vec![fine(), answered(200, ""), lost(Answer::Silent("x".into()))], Outcome::Away("x".into())),
        (
            AWAY,
            0,
            vec![fine(), answered(503, "secret"), answered(200, "{}")],
            Outcome::Later(Some(Duration::from_secs(7)), "the storage: HTTP 503".into()),
        ),
        // Addresses expire: the next try gets a new one.
        (
            AWAY,
            0,
            vec![fine(), answered(403, "secret"), answered(500, "")],
            Outcome::Later(None, "the storage: HTTP 403".into()),
        ),
        (AWAY, 4, vec![fine(), answered(403, "secret"), answered(200, "{}")], refused("the storage: HTTP 403")),
        (
            AWAY,
            0,
            vec![fine(), answered(200, "<html>")],
            Outcome::Later(None, "the storage: HTTP 200, but that is not what a storage says".into()),
        ),
    ];
    for (server, tries, answers, expect) in cases {
        match next(server, tries, &answers) {
            Next::End(outcome) => assert_eq!(outcome, expect, "{answers:?}"),
            other => panic!("{other:?} after {answers:?}"),
        }
    }
    assert!(matches!(next("http://127.0.0.1:1", 0, &[at("http://127.0.0.1:2/x")]), Next::Store(_)));
}

#[test]
fn refusals_by_the_media_api_have_their_own_outcomes() {
    for (status, body, expect) in [
        (404, "", "media_unsupported"),
        (405, "", "media_unsupported"),
        (400, "", "media_refused"),
        (413, "", "media_refused"),
        (410, "", "media_refused"),
        (401, "", "park"),
        (403, "", "park"),
        (307, "", "park"),
        (500, "", "later"),
        (503, "", "later"),
        (200, "<html>", "later"),
    ] {
        let said = match next(AWAY, 0, &[answered(status, body)]) {
            Next::End(Outcome::Never(reason, _)) => reason.name(),
            Next::End(Outcome::Park(_)) => "park",
            Next::End(Outcome::Later(..)) => "later",
            other => panic!("{other:?}"),
        };
        assert_eq!(said, expect, "{status} {body}");
    }
}
