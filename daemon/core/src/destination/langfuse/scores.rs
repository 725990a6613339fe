//! Langfuse's scores: `score-create` events for its ingestion API, which answers of each event what became of it. An event with the
//! id of an earlier score replaces that score, so that a repeat changes nothing.

use std::collections::HashMap;

use http::{Method, Request, header};
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

use super::auth;
use crate::{
    destination::{
        scoring::{Fate, Next, Reply, ScoreApi, denied},
        upload::{Answered, Place},
    },
    ids::{fingerprint, hex},
    score::{Of, Score, Value},
    verdict::{Answer, Verdict, judge, words},
};

/// How many scores one request has: enough for a long outage, and small for any proxy.
const MOST: usize = 100;

pub(super) struct Scores;

impl ScoreApi for Scores {
    fn most(&self) -> usize {
        MOST
    }

    fn next(&self, at: &Place<'_>, scores: &[Score], answers: &[Answered]) -> Next {
        if let Some(answer) = answers.first() {
            return Next::End(reply(scores, answer));
        }
        let batch: Vec<Json> = scores.iter().map(event).collect();
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}/api/public/ingestion", at.to.address))
            .header(header::AUTHORIZATION, auth(at.to, at.secrets))
            .header(header::CONTENT_TYPE, "application/json")
            .body(json!({ "batch": batch }).to_string().into());
        request.map_or_else(|error| Next::End(Reply::Park(error.to_string())), |request| Next::Ask(Box::new(request)))
    }
}

/// The id of the event that carries a score. The server stores an event once, so another value is another event.
fn event_id(score: &Score) -> String {
    let said = [&score.id[..], &score.says()].concat();
    hex(&fingerprint(&said))
}

fn event(score: &Score) -> Json {
    let at = i64::try_from(score.at / 1_000_000).unwrap_or(i64::MAX);
    let at = jiff::Timestamp::from_millisecond(at).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let (kind, value) = match &score.value {
        Value::Boolean(yes) => ("BOOLEAN", json!(u8::from(*yes))),
        Value::Number(number) => ("NUMERIC", json!(number)),
        Value::Category(word) => ("CATEGORICAL", json!(word)),
    };
    let mut body = Map::new();
    let mut put = |name: &str, value: Json| body.insert(name.to_owned(), value);
    put("id", hex(&score.id).into());
    match score.of {
        Of::Session => drop(put("sessionId", score.session_id.as_str().into())),
        Of::Trace => drop(put("traceId", hex(&score.trace_id).into())),
        Of::Span(span) => {
            put("traceId", hex(&score.trace_id).into());
            put("observationId", hex(&span).into());
        }
    }
    put("name", score.name.as_str().into());
    put("value", value);
    put("dataType", kind.into());
    if let Some(comment) = &score.comment {
        put("comment", comment.as_str().into());
    }
    if let Some(environment) = &score.environment {
        put("environment", environment.as_str().into());
    }
    json!({ "id": event_id(score), "type": "score-create", "timestamp": at.to_string(), "body": body })
}

/// What the server says of each event.
#[derive(Deserialize)]
struct Said {
    successes: Vec<Json>,
    errors: Vec<Refused>,
}

#[derive(Deserialize)]
struct Refused {
    #[serde(default)]
    id: String,
    #[serde(default)]
    status: u16,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    error: Json,
}

impl Refused {
    fn fate(&self) -> Fate {
        let said = self.message.clone().or_else(|| self.error.as_str().map(str::to_owned));
        let said = said.unwrap_or_else(|| self.error.to_string());
        let why = format!("HTTP {}: {}", self.status, words(&said));
        let answer = Answer::Response {
            status: self.status,
            retry_after: None,
            date: None,
            rejected: None,
            denial: None,
            body: String::new(),
        };
        match judge(&answer) {
            Verdict::Later(..) | Verdict::Silent(_) => Fate::Later(why),
            _ => Fate::Refused(why),
        }
    }
}

fn reply(scores: &[Score], answered: &Answered) -> Reply {
    let body = answered.response.as_ref().filter(|response| response.status().is_success());
    let Some(body) = body else {
        return denied(&answered.answer).unwrap_or_else(|| Reply::Later(None, "no answer".into()));
    };
    // An answer of this form is the API's own, whatever it reports.
    match serde_json::from_slice::<Said>(body.body()) {
        Ok(said) => {
            let known: HashMap<&str, &Refused> = said.errors.iter().map(|error| (&*error.id, error)).collect();
            // An error that names no event of the batch is one of all that are not confirmed.
            let strange = said.errors.iter().find(|error| !scores.iter().any(|score| event_id(score) == error.id));
            let confirmed = |id: &str| said.successes.iter().any(|one| one["id"].as_str() == Some(id));
            let fate = |score: &Score| {
                let id = event_id(score);
                match (known.get(&*id), strange) {
                    (Some(error), _) => error.fate(),
                    (None, Some(error)) if !confirmed(&id) => error.fate(),
                    (None, _) => Fate::Taken,
                }
            };
            Reply::Each(scores.iter().map(fate).collect())
        }
        // A yes in another form: a relay that says so for Langfuse.
        Err(_) => denied(&answered.answer).unwrap_or_else(|| Reply::Each(vec![Fate::Taken; scores.len()])),
    }
}

#[cfg(test)]
mod tests;
