//! Phoenix's annotations: what is known of a trace, a span or a session. One with the identifier of an earlier one replaces it, so that
//! a repeat changes nothing.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, header};
use serde_json::{Map, Value as Json, json};

use super::{headers_of, phoenix};
use crate::{
    destination::{
        own::SOURCE,
        pages::request,
        scoring::{Fate, Next, Reply, ScoreApi, denied},
        upload::{Answered, Place},
    },
    ids::hex,
    score::{Of, Score, Value},
    verdict::Answer,
};

/// What Phoenix says of a trace, span or session that it does not have.
const ABSENT: &str = "do not exist";

pub(super) struct Annotations;

impl ScoreApi for Annotations {
    /// It refuses all of a request for one that it cannot place.
    fn most(&self) -> usize {
        1
    }

    fn next(&self, at: &Place<'_>, scores: &[Score], answers: &[Answered]) -> Next {
        let Some(score) = scores.first() else { return Next::End(Reply::Each(Vec::new())) };
        match answers.first() {
            None => Next::Ask(Box::new(ask(at, score))),
            Some(answered) if is_absent(&answered.answer) => {
                Next::End(Reply::Absent("its trace is not there".to_owned()))
            }
            Some(answered) => Next::End(denied(&answered.answer).unwrap_or_else(|| Reply::Each(vec![Fate::Taken]))),
        }
    }
}

/// True if the server lacks what the score is of, rather than the API.
fn is_absent(answer: &Answer) -> bool {
    matches!(answer, Answer::Response { status: 404, body, .. } if body.contains(ABSENT))
}

/// It answers at once, and says whether it has what the score is of, only if it is asked to be synchronous.
fn ask(at: &Place<'_>, score: &Score) -> Request<Bytes> {
    let of = match score.of {
        Of::Trace => "trace",
        Of::Span(_) => "span",
        Of::Session => "session",
    };
    let url = format!("{}/v1/{of}_annotations?sync=true", phoenix::base(at.to));
    let mut headers = headers_of(at.to, at.secrets).unwrap_or_default();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    request(Method::POST, &url, headers, json!({ "data": [annotation(score)] }).to_string().into())
}

fn annotation(score: &Score) -> Json {
    let mut result = Map::new();
    match &score.value {
        Value::Boolean(yes) => {
            result.insert("score".to_owned(), u8::from(*yes).into());
            result.insert("label".to_owned(), yes.to_string().into());
        }
        Value::Number(number) => drop(result.insert("score".to_owned(), json!(number))),
        Value::Category(word) => drop(result.insert("label".to_owned(), word.as_str().into())),
    }
    if let Some(comment) = &score.comment {
        result.insert("explanation".to_owned(), comment.as_str().into());
    }
    let (key, id) = match score.of {
        Of::Trace => ("trace_id", hex(&score.trace_id)),
        Of::Span(span) => ("span_id", hex(&span)),
        Of::Session => ("session_id", score.session_id.clone()),
    };
    json!({
        key: id, "name": score.name, "annotator_kind": if score.by_person { "HUMAN" } else { "CODE" },
        "result": result, "identifier": hex(&score.id), "metadata": { "source": SOURCE },
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{
        destination::{Destination, Endpoint, Kind},
        secret::Secrets,
    };

    pub(in crate::destination::otlp) fn score(of: Of, value: Value) -> Score {
        Score {
            id: [7; 16],
            trace_id: [1; 16],
            root: [2; 8],
            session_id: "s-1".into(),
            of,
            name: "n".into(),
            value,
            comment: Some("why".into()),
            environment: None,
            at: 5,
            by_person: false,
        }
    }

    fn next(score: &Score, answers: &[Answered]) -> Next {
        let account = "openinference,preset=phoenix".into();
        let to = Destination { kind: Kind::Otlp, address: "http://127.0.0.1:6006/v1/traces".into(), account };
        let endpoint = Endpoint { url: to.address.clone(), headers: Default::default() };
        let place = Place { to: &to, secrets: &Secrets::default(), endpoint: &endpoint };
        Annotations.next(&place, std::slice::from_ref(score), answers)
    }

    #[test]
    fn each_kind_of_score_has_an_address_and_a_value_of_its_own() {
        for (of, value, url, id, result) in [
            (Of::Trace, Value::Number(2.0), "trace", ("trace_id", hex(&[1; 16])), json!({"score": 2.0})),
            (
                Of::Span([3; 8]),
                Value::Boolean(true),
                "span",
                ("span_id", hex(&[3; 8])),
                json!({"score": 1, "label": "true"}),
            ),
            (
                Of::Session,
                Value::Category("completed".into()),
                "session",
                ("session_id", "s-1".into()),
                json!({"label": "completed"}),
            ),
        ] {
            let Next::Ask(request) = next(&score(of, value), &[]) else { panic!("{url}: no request") };
            assert_eq!(request.uri().to_string(), format!("http://127.0.0.1:6006/v1/{url}_annotations?sync=true"));
            let body: Json = serde_json::from_slice(request.body()).unwrap();
            let one = &body["data"][0];
            assert_eq!((one[id.0].as_str(), &one["identifier"]), (Some(&*id.1), &json!(hex(&[7; 16]))));
            let mut expect = result;
            expect["explanation"] = "why".into();
            assert_eq!((&one["result"], &one["annotator_kind"]), (&expect, &json!("CODE")));
        }
    }

    #[test]
    fn a_trace_that_is_not_there_yet_is_no_missing_api() {
        let reply = |status, body: &str| {
            let (retry_after, date, rejected, denial) = (None, None, None, None);
            let answer = Answer::Response { status, retry_after, date, rejected, denial, body: body.into() };
            let answered = Answered { answer, response: None, took: std::time::Duration::ZERO, at_ms: 0 };
            match next(&score(Of::Trace, Value::Boolean(true)), &[answered]) {
                Next::End(reply) => reply,
                Next::Ask(_) => panic!("it asks again"),
            }
        };
        assert_eq!(reply(200, r#"{"data": [{"id": "x"}]}"#), Reply::Each(vec![Fate::Taken]));
        assert!(matches!(reply(404, "Traces with IDs 01 do not exist."), Reply::Absent(_)));
        assert!(matches!(reply(404, "Not Found"), Reply::Unsupported(_)));
        assert!(matches!(reply(422, "wrong"), Reply::Refused(_)));
        assert!(matches!(reply(503, ""), Reply::Later(..)));
    }
}
