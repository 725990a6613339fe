use bytes::Bytes;
use http::{HeaderMap, Response};

use super::*;
use crate::{
    destination::{Destination, Endpoint, Kind},
    secret::Secrets,
};

fn score(name: &str, of: Of, value: Value) -> Score {
    Score {
        id: [name.as_bytes()[0]; 16],
        trace_id: [1; 16],
        root: [2; 8],
        session_id: "s".to_owned(),
        of,
        name: name.to_owned(),
        value,
        comment: None,
        environment: None,
        at: 1_700_000_000_123_456_789,
        by_person: false,
    }
}

/// What is asked, or the end after these answers.
fn next(scores: &[Score], answers: &[Answered]) -> Next {
    let to = Destination { kind: Kind::Langfuse, address: "https://lf.example.org".into(), account: "pk".into() };
    let endpoint = Endpoint { url: String::new(), headers: HeaderMap::new() };
    let place = Place { to: &to, secrets: &Secrets::default(), endpoint: &endpoint };
    Scores.next(&place, scores, answers)
}

fn answered(status: u16, body: &str, denial: Option<&str>) -> Answered {
    let response = Response::builder().status(status).body(Bytes::from(body.to_owned())).unwrap();
    let answer = Answer::Response {
        status,
        retry_after: None,
        date: None,
        rejected: None,
        denial: denial.map(str::to_owned),
        body: body.to_owned(),
    };
    Answered { answer, response: Some(response), took: std::time::Duration::ZERO, at_ms: 0 }
}

fn reply(scores: &[Score], status: u16, body: &str, denial: Option<&str>) -> Reply {
    match next(scores, &[answered(status, body, denial)]) {
        Next::End(reply) => reply,
        Next::Ask(request) => panic!("{request:?}"),
    }
}

#[test]
fn a_request_has_the_events_of_its_scores() {
    let mut outcome = score("outcome", Of::Session, Value::Category("errored".into()));
    (outcome.comment, outcome.environment) = (Some("why".into()), Some("staging".into()));
    let scores = [
        score("interrupted", Of::Trace, Value::Boolean(true)),
        score("retries", Of::Span([3; 8]), Value::Number(2.0)),
        outcome,
    ];
    let Next::Ask(request) = next(&scores, &[]) else { panic!("no request") };
    assert_eq!(
        (request.method().as_str(), request.uri().to_string()),
        ("POST", "https://lf.example.org/api/public/ingestion".to_owned())
    );
    let body: Json = serde_json::from_slice(request.body()).unwrap();
    let bodies: Vec<&Json> = body["batch"].as_array().unwrap().iter().map(|event| &event["body"]).collect();
    let id = |letter: char| hex(&[letter as u8; 16]);
    let trace = hex(&[1; 16]);
    assert_eq!(
        bodies,
        [
            &json!({"id": id('i'), "traceId": trace, "name": "interrupted", "value": 1, "dataType": "BOOLEAN"}),
            &json!({
                "id": id('r'), "traceId": trace, "observationId": hex(&[3; 8]), "name": "retries", "value": 2.0,
                "dataType": "NUMERIC",
            }),
            &json!({
                "id": id('o'), "sessionId": "s", "name": "outcome", "value": "errored", "dataType": "CATEGORICAL",
                "comment": "why", "environment": "staging",
            }),
        ]
    );
    let event = &body["batch"][0];
    assert_eq!((&event["type"], &event["timestamp"]), (&json!("score-create"), &json!("2023-11-14T22:13:20.123Z")));
    // Another value is another event of the same score.
    let other = score("interrupted", Of::Trace, Value::Boolean(false));
    assert_ne!(event_id(&scores[0]), event_id(&other));
}

#[test]
fn the_answer_says_of_each_score_what_became_of_it() {
    let scores = ["a", "b", "c"].map(|name| score(name, Of::Trace, Value::Boolean(true)));
    let [a, b, c] = scores.each_ref().map(event_id);
    let error = |id: &str, status: u16| json!({"id": id, "status": status, "message": "no"});
    let (refused, later) =
        (|status: u16| Fate::Refused(format!("HTTP {status}: no")), Fate::Later("HTTP 500: no".into()));
    let yes = |ids: &[&String]| ids.iter().map(|id| json!({"id": id, "status": 201})).collect::<Vec<_>>();
    for (successes, errors, expect) in [
        (yes(&[&a, &b, &c]), vec![], [Fate::Taken, Fate::Taken, Fate::Taken]),
        (yes(&[&a]), vec![error(&b, 400), error(&c, 500)], [Fate::Taken, refused(400), later.clone()]),
        (vec![], vec![error(&a, 429)], [Fate::Later("HTTP 429: no".into()), Fate::Taken, Fate::Taken]),
        (yes(&[&b]), vec![error("another", 500)], [later.clone(), Fate::Taken, later]),
        (vec![], vec![error("", 404)], [refused(404), refused(404), refused(404)]),
    ] {
        let body = json!({"successes": successes, "errors": errors}).to_string();
        // Whatever the body looks like to one that knows only answers to spans.
        for denial in [None, Some("the answer reports an error")] {
            assert_eq!(reply(&scores, 207, &body, denial), Reply::Each(expect.to_vec()), "{body}");
        }
    }
    assert_eq!(reply(&scores, 200, "{}", None), Reply::Each(vec![Fate::Taken; 3]), "a relay's yes");
}

#[test]
fn other_answers_are_of_the_whole_batch() {
    let scores = [score("a", Of::Trace, Value::Boolean(true))];
    for (status, body, denial) in
        [(200, "<html>", Some("a web page")), (207, "<html>", Some("a web page")), (401, "{}", None), (302, "", None)]
    {
        assert!(matches!(reply(&scores, status, body, denial), Reply::Park(_)), "{status} {body}");
    }
    for status in [500, 502, 503, 429] {
        assert!(matches!(reply(&scores, status, "", None), Reply::Later(..)), "{status}");
    }
    for status in [404, 405] {
        assert!(matches!(reply(&scores, status, "", None), Reply::Unsupported(_)), "{status}");
    }
    for status in [400, 413, 422] {
        assert!(matches!(reply(&scores, status, "", None), Reply::Refused(_)), "{status}");
    }
}
