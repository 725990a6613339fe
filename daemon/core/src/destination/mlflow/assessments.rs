//! MLflow's assessments: feedback on a trace, or on one of its spans. The server takes an id from outside and refuses it a second
//! time, so that it is asked first: what is sent again after a lost answer finds itself, and a later value changes it.

use bytes::Bytes;
use http::{HeaderName, Method, Request, header};
use serde_json::{Value as Json, json};

use crate::{
    destination::{
        scoring::{Fate, Next, Reply, ScoreApi, denied},
        upload::{Answered, Place},
    },
    ids::hex,
    score::{Of, Score, Value},
    verdict::Answer,
};

/// What MLflow says of an id that it does not have.
const ABSENT: &str = "RESOURCE_DOES_NOT_EXIST";

pub(super) struct Assessments;

impl ScoreApi for Assessments {
    fn most(&self) -> usize {
        1
    }

    /// A session is nothing in MLflow that could have one.
    fn takes(&self, score: &Score) -> bool {
        score.of != Of::Session
    }

    fn next(&self, at: &Place<'_>, scores: &[Score], answers: &[Answered]) -> Next {
        let Some(score) = scores.first() else { return Next::End(Reply::Each(Vec::new())) };
        match answers {
            [] => ask(at, Method::GET, score, &path(score), None),
            [found] if is_absent(&found.answer) => {
                let body = json!({ "assessment": assessment(score) });
                ask(at, Method::POST, score, "", Some(body))
            }
            [found] => match denied(&found.answer) {
                Some(reply) => Next::End(reply),
                None if says(found, score) => Next::End(Reply::Each(vec![Fate::Taken])),
                None => {
                    let body = json!({ "assessment": assessment(score), "update_mask": "feedback,rationale" });
                    ask(at, Method::PATCH, score, &path(score), Some(body))
                }
            },
            // Spans arrive on a way of their own.
            [_, written, ..] if is_absent(&written.answer) => {
                Next::End(Reply::Absent("its trace is not there".to_owned()))
            }
            [_, written, ..] => Next::End(denied(&written.answer).unwrap_or_else(|| Reply::Each(vec![Fate::Taken]))),
        }
    }
}

/// True if the server lacks this assessment or its trace, rather than the API.
fn is_absent(answer: &Answer) -> bool {
    matches!(answer, Answer::Response { status: 404, body, .. } if body.contains(ABSENT))
}

fn id(score: &Score) -> String {
    format!("a-{}", hex(&score.id))
}

fn path(score: &Score) -> String {
    format!("/{}", id(score))
}

fn value(score: &Score) -> Json {
    match &score.value {
        Value::Boolean(yes) => (*yes).into(),
        Value::Number(number) => json!(number),
        Value::Category(word) => word.as_str().into(),
    }
}

fn trace(score: &Score) -> String {
    format!("tr-{}", hex(&score.trace_id))
}

fn assessment(score: &Score) -> Json {
    let at = i64::try_from(score.at / 1_000_000).unwrap_or(i64::MAX);
    let at = jiff::Timestamp::from_millisecond(at).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string();
    let source = if score.by_person { "HUMAN" } else { "CODE" };
    let mut all = json!({
        "assessment_id": id(score), "trace_id": trace(score), "assessment_name": score.name,
        "source": { "source_type": source, "source_id": "cc-langfuse" },
        "create_time": at, "last_update_time": at, "feedback": { "value": value(score) },
    });
    if let Of::Span(span) = score.of {
        all["span_id"] = hex(&span).into();
    }
    if let Some(comment) = &score.comment {
        all["rationale"] = comment.as_str().into();
    }
    all
}

/// True if the server's assessment has this value and comment.
fn says(found: &Answered, score: &Score) -> bool {
    let body = found.response.as_ref().map(|response| &response.body()[..]).unwrap_or_default();
    let known: Json = serde_json::from_slice(body).unwrap_or_default();
    let known = &known["assessment"];
    known["feedback"]["value"] == value(score) && known["rationale"].as_str() == score.comment.as_deref()
}

/// A request about a score's trace, with the same credentials as for spans.
fn ask(at: &Place<'_>, method: Method, score: &Score, path: &str, body: Option<Json>) -> Next {
    let address = format!("{}/api/3.0/mlflow/traces/{}/assessments{path}", at.to.address, trace(score));
    let mut request = Request::builder().method(method).uri(address).header(header::CONTENT_TYPE, "application/json");
    for name in [header::AUTHORIZATION, HeaderName::from_static("x-mlflow-workspace")] {
        if let Some(value) = at.endpoint.headers.get(&name) {
            request = request.header(name, value);
        }
    }
    let body = body.map_or_else(Bytes::new, |body| body.to_string().into());
    request
        .body(body)
        .map_or_else(|error| Next::End(Reply::Park(error.to_string())), |request| Next::Ask(Box::new(request)))
}
