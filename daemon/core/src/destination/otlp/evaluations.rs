//! Scores by OpenTelemetry's conventions for generative AI: the event `gen_ai.evaluation.result`, a log record in the trace that it
//! judges. They go where the user chose these conventions and nothing else: a receiver of traces need not take logs.
//!
//! A log record has no identity by which a later one replaces it. Each has a `log.record.uid`, by which a receiver may drop one that
//! is sent again after a lost answer; a corrected value is a record of its own, with a later time.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, header};
use serde_json::{Value as Json, json};

use super::{PATH, headers_of};
use crate::{
    destination::{
        Destination,
        pages::request,
        scoring::{Fate, Next, Reply, ScoreApi, denied},
        upload::{Answered, Place},
        wire,
    },
    ids::hex,
    score::{Of, Score, Value},
    verdict::Answer,
};

/// The path of logs, where that of traces is [`PATH`].
const LOGS: &str = "/v1/logs";

/// How many records a request has at most.
const MOST: usize = 50;

/// `SEVERITY_NUMBER_INFO`.
const INFO: u8 = 9;

pub(super) struct Evaluations;

/// Where a receiver of traces takes logs; `None` if its path does not say.
pub(super) fn address(to: &Destination) -> Option<String> {
    to.address.strip_suffix(PATH).map(|base| format!("{base}{LOGS}"))
}

impl ScoreApi for Evaluations {
    fn most(&self) -> usize {
        MOST
    }

    fn next(&self, at: &Place<'_>, scores: &[Score], answers: &[Answered]) -> Next {
        let Some(answered) = answers.first() else {
            return match address(at.to) {
                Some(url) => Next::Ask(Box::new(ask(at, &url, scores))),
                None => Next::End(Reply::Unsupported("its address does not say where logs go".to_owned())),
            };
        };
        Next::End(denied(&answered.answer).unwrap_or_else(|| match rejected(&answered.answer) {
            Some(why) => Reply::Refused(why),
            None => Reply::Each(vec![Fate::Taken; scores.len()]),
        }))
    }
}

/// Why the receiver did not take some of the records, if it says so. Which ones it never says.
fn rejected(answer: &Answer) -> Option<String> {
    let Answer::Response { body, .. } = answer else { return None };
    let said: Json = serde_json::from_str(body).ok()?;
    let partial = &said["partialSuccess"];
    // 64-bit numbers are text in OTLP's JSON.
    let count = &partial["rejectedLogRecords"];
    let is_some = count.as_u64().or_else(|| count.as_str()?.parse().ok()).is_some_and(|count| count > 0);
    is_some.then(|| partial["errorMessage"].as_str().unwrap_or("the receiver rejected it").to_owned())
}

fn ask(at: &Place<'_>, url: &str, scores: &[Score]) -> Request<Bytes> {
    let mut headers = headers_of(at.to, at.secrets).unwrap_or_default();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let records: Vec<Json> = scores.iter().map(record).collect();
    let backend = at.to.kind.backend();
    let resource = backend.resource(at.to).into_iter().filter_map(|(key, value)| match value {
        wire::Value::Text(value) => Some(attribute(&key, text(&value))),
        _ => None,
    });
    let resource = json!({"attributes": resource.collect::<Vec<_>>()});
    let scopes = json!([{"scope": {"name": backend.scope()}, "logRecords": records}]);
    let body = json!({"resourceLogs": [{"resource": resource, "scopeLogs": scopes}]});
    request(Method::POST, url, headers, body.to_string().into())
}

fn record(score: &Score) -> Json {
    let name = |name: &str| format!("gen_ai.evaluation.{name}");
    let mut attributes = vec![
        attribute(&name("name"), text(&score.name)),
        attribute("gen_ai.conversation.id", text(&score.session_id)),
        attribute("log.record.uid", text(&[hex(&score.id[..8]), hex(&score.says()[..8])].concat())),
    ];
    match &score.value {
        Value::Number(number) => attributes.push(attribute(&name("score.value"), json!({"doubleValue": number}))),
        Value::Boolean(yes) => {
            let value = f64::from(u8::from(*yes));
            attributes.push(attribute(&name("score.value"), json!({"doubleValue": value})));
            attributes.push(attribute(&name("score.label"), text(&yes.to_string())));
        }
        Value::Category(word) => attributes.push(attribute(&name("score.label"), text(word))),
    }
    if let Some(comment) = &score.comment {
        attributes.push(attribute(&name("explanation"), text(comment)));
    }
    let (of, span) = match score.of {
        Of::Trace => ("turn", score.root),
        Of::Span(span) => ("subagent", span),
        Of::Session => ("session", score.root),
    };
    attributes.push(attribute("claude_code.score.of", text(of)));
    attributes.push(attribute("claude_code.score.source", text(if score.by_person { "human" } else { "code" })));
    let time = score.at.to_string();
    json!({
        "timeUnixNano": time, "observedTimeUnixNano": time, "severityNumber": INFO,
        "eventName": "gen_ai.evaluation.result", "traceId": hex(&score.trace_id), "spanId": hex(&span), "attributes": attributes,
    })
}

fn attribute(key: &str, value: Json) -> Json {
    json!({"key": key, "value": value})
}

fn text(value: &str) -> Json {
    json!({"stringValue": value})
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{super::annotations::tests::score, *};
    use crate::{
        destination::{Endpoint, Kind},
        secret::Secrets,
    };

    fn next(address: &str, scores: &[Score], answers: &[Answered]) -> Next {
        let to = Destination { kind: Kind::Otlp, address: address.into(), account: "genai".into() };
        let endpoint = Endpoint { url: to.address.clone(), headers: Default::default() };
        Evaluations.next(&Place { to: &to, secrets: &Secrets::default(), endpoint: &endpoint }, scores, answers)
    }

    #[test]
    fn each_kind_of_score_is_an_event_on_the_span_that_it_judges() {
        let scores = [
            score(Of::Trace, Value::Number(2.0)),
            score(Of::Span([3; 8]), Value::Boolean(true)),
            score(Of::Session, Value::Category("completed".into())),
        ];
        let Next::Ask(request) = next("http://a:4318/x/v1/traces", &scores, &[]) else { panic!("no request") };
        assert_eq!(request.uri().to_string(), "http://a:4318/x/v1/logs");
        let body: Json = serde_json::from_slice(request.body()).unwrap();
        let records = body["resourceLogs"][0]["scopeLogs"][0]["logRecords"].as_array().unwrap();
        let said = |record: &Json| -> BTreeMap<String, String> {
            let attributes = record["attributes"].as_array().unwrap().iter();
            let value = |one: &Json| one["value"].as_object().unwrap().values().next().unwrap().to_string();
            attributes.map(|one| (one["key"].as_str().unwrap().replace("gen_ai.evaluation.", ""), value(one))).collect()
        };
        for (record, (span, expect)) in records.iter().zip([
            ([2; 8], vec![("score.value", "2.0"), ("claude_code.score.of", "\"turn\"")]),
            (
                [3; 8],
                vec![("score.value", "1.0"), ("score.label", "\"true\""), ("claude_code.score.of", "\"subagent\"")],
            ),
            ([2; 8], vec![("score.label", "\"completed\""), ("claude_code.score.of", "\"session\"")]),
        ]) {
            assert_eq!(
                (&record["eventName"], &record["traceId"], &record["spanId"], &record["timeUnixNano"]),
                (&json!("gen_ai.evaluation.result"), &json!(hex(&[1; 16])), &json!(hex(&span)), &json!("5"))
            );
            let said = said(record);
            let all = expect.into_iter().chain([("name", "\"n\""), ("explanation", "\"why\"")]);
            all.for_each(|(key, value)| assert_eq!(said.get(key).map(String::as_str), Some(value), "{key}"));
            assert!(said.contains_key("log.record.uid") && said["gen_ai.conversation.id"] == "\"s-1\"");
        }
        assert_eq!(records.len(), 3);
    }

    #[test]
    fn a_record_sent_again_is_the_same_one_and_a_corrected_value_is_another() {
        let uid = |score: &Score| {
            let record = record(score);
            let all = record["attributes"].as_array().unwrap().clone();
            all.into_iter().find(|one| one["key"] == "log.record.uid").unwrap()["value"].clone()
        };
        let one = score(Of::Trace, Value::Number(2.0));
        assert_eq!(uid(&one), uid(&Score { at: 9, ..one.clone() }));
        assert_ne!(uid(&one), uid(&Score { value: Value::Number(3.0), ..one.clone() }));
        assert_ne!(uid(&one), uid(&Score { id: [8; 16], ..one.clone() }));
    }

    #[test]
    fn an_answer_says_whether_the_records_were_taken() {
        let reply = |status, body: &str, count: usize| {
            let (retry_after, date, rejected, denial) = (None, None, None, None);
            let answer = Answer::Response { status, retry_after, date, rejected, denial, body: body.into() };
            let answered = Answered { answer, response: None, took: std::time::Duration::ZERO, at_ms: 0 };
            let scores = vec![score(Of::Trace, Value::Boolean(true)); count];
            match next("http://a:4318/v1/traces", &scores, &[answered]) {
                Next::End(reply) => reply,
                Next::Ask(_) => panic!("it asks again"),
            }
        };
        assert_eq!(reply(200, "{}", 2), Reply::Each(vec![Fate::Taken, Fate::Taken]));
        assert_eq!(reply(200, "", 1), Reply::Each(vec![Fate::Taken]));
        assert_eq!(reply(200, r#"{"partialSuccess": {}}"#, 1), Reply::Each(vec![Fate::Taken]));
        for count in ["1", "\"1\""] {
            let said = format!(r#"{{"partialSuccess": {{"rejectedLogRecords": {count}, "errorMessage": "no"}}}}"#);
            assert_eq!(reply(200, &said, 2), Reply::Refused("no".into()), "{count}");
        }
        assert!(matches!(reply(404, "", 1), Reply::Unsupported(_)));
        assert!(matches!(reply(503, "", 1), Reply::Later(..)));
        assert!(matches!(reply(401, "", 1), Reply::Park(_)));
        let nowhere = next("http://a/ingest", &[score(Of::Trace, Value::Boolean(true))], &[]);
        assert!(matches!(nowhere, Next::End(Reply::Unsupported(_))));
    }
}
