//! The part of a Langfuse server that takes scores: events in a batch, each with an answer of its own.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::Request;

/// Where events go.
pub const PATH: &str = "/api/public/ingestion";

/// The server's scores.
#[derive(Default)]
pub(crate) struct Scores {
    /// Accepted events in the order in which they came, with the public key they came with.
    events: Vec<(String, Value)>,
    /// MLflow's assessments, by trace and id.
    assessments: BTreeMap<(String, String), Value>,
}

impl Scores {
    /// MLflow's assessments, as they are now.
    pub(crate) fn assessments(&self) -> Vec<Value> {
        self.assessments.values().cloned().collect()
    }

    /// MLflow 3.17.2: an id is taken once, and changed by `PATCH`.
    fn assess(&mut self, request: &Request) -> (u16, String) {
        let absent = (404, json!({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "not found"}).to_string());
        let body: Value = serde_json::from_slice(&request.plain).unwrap_or_default();
        let said = &body["assessment"];
        let (trace, id) = request.path.split_once("/assessments").expect("its path");
        let trace = trace.rsplit('/').next().unwrap_or_default().to_owned();
        let id = id
            .strip_prefix('/')
            .map_or_else(|| said["assessment_id"].as_str().unwrap_or_default().to_owned(), str::to_owned);
        let key = (trace, id);
        match (request.method.as_str(), self.assessments.contains_key(&key)) {
            ("POST", false) => drop(self.assessments.insert(key.clone(), said.clone())),
            ("POST", true) => return (500, json!({"error_code": "INTERNAL_ERROR"}).to_string()),
            (_, false) => return absent,
            ("PATCH", true) => {
                let known = self.assessments.get_mut(&key).expect("there");
                (known["feedback"], known["rationale"]) = (said["feedback"].clone(), said["rationale"].clone());
            }
            _ => {}
        }
        (200, json!({"assessment": self.assessments[&key]}).to_string())
    }

    /// Takes the events that are valid; returns status and body of the answer.
    pub(crate) fn take(&mut self, request: &Request) -> (u16, String) {
        if request.path != PATH {
            return self.assess(request);
        }
        let key = request.key();
        let Some((public_key, _)) = key.split_once(':').filter(|(public, _)| !public.is_empty()) else {
            return (401, json!({"message": "Invalid credentials"}).to_string());
        };
        let body: Value = serde_json::from_slice(&request.plain).unwrap_or_default();
        let Some(batch) = body["batch"].as_array() else {
            return (400, json!({"message": "Invalid request data"}).to_string());
        };
        let (mut successes, mut errors) = (Vec::new(), Vec::new());
        for event in batch {
            match fault(event) {
                None => {
                    self.events.push((public_key.to_owned(), event.clone()));
                    successes.push(json!({"id": event["id"], "status": 201}));
                }
                Some(why) => errors.push(refused(event, 400, why)),
            }
        }
        (207, json!({"successes": successes, "errors": errors}).to_string())
    }

    /// Deletes the score that `path` names. False if it names none.
    pub(crate) fn delete(&mut self, method: &str, path: &str) -> bool {
        let Some(id) = path.strip_prefix("/api/public/scores/").filter(|_| method == "DELETE") else { return false };
        self.events.retain(|(_, event)| event["body"]["id"] != id);
        true
    }

    pub(crate) fn events(&self) -> Vec<Value> {
        self.events.iter().map(|(_, event)| event.clone()).collect()
    }

    /// The scores themselves: of events with the same score the latest, in the order of the first.
    pub(crate) fn all(&self) -> Vec<Value> {
        let mut scores: Vec<Value> = Vec::new();
        for (_, event) in &self.events {
            let body = &event["body"];
            match scores.iter_mut().find(|known| known["id"] == body["id"]) {
                Some(known) => *known = body.clone(),
                None => scores.push(body.clone()),
            }
        }
        scores
    }
}

/// The answer to an event that is refused.
pub fn refused(event: &Value, status: u16, why: &str) -> Value {
    json!({"id": event["id"], "status": status, "message": why, "error": why})
}

/// What is wrong with an event.
fn fault(event: &Value) -> Option<&'static str> {
    let body = &event["body"];
    let is_text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    let is_valued = match body["dataType"].as_str() {
        Some("BOOLEAN") => body["value"] == 0 || body["value"] == 1,
        Some("NUMERIC") => body["value"].is_number(),
        Some("CATEGORICAL") => is_text(&body["value"]),
        _ => false,
    };
    let is_of_one = is_text(&body["traceId"]) != is_text(&body["sessionId"]);
    let time = event["timestamp"].as_str().unwrap_or_default();
    let is_dated = time.len() > 19 && time.ends_with('Z') && time.as_bytes()[10] == b'T';
    [
        (event["type"] == "score-create", "the type of the event"),
        (is_text(&event["id"]) && is_text(&body["id"]), "an id"),
        (is_dated, "the timestamp"),
        (is_text(&body["name"]), "the name"),
        (is_valued, "the value"),
        (is_of_one, "what it is of"),
    ]
    .into_iter()
    .find_map(|(is_right, what)| (!is_right).then_some(what))
}
