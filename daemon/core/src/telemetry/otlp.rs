//! OTLP/HTTP's JSON → records: log records by the name of their event, spans by their name. A field that is not as it should be
//! costs that field; a record without a name is left out.

use std::collections::HashMap;

use serde_json::Value as Json;

use crate::transcript::record::Nanos;

/// The service name of Claude Code.
const SERVICE: &str = "claude-code";

/// A log record or span of Claude Code.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// Such as `claude_code.api_request`.
    pub name: String,
    /// When it ended, or happened.
    pub end: Nanos,
    /// Of a span: its id and that of its parent, in hexadecimal. Empty otherwise.
    pub id: String,
    pub parent: String,
    pub values: HashMap<String, Value>,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Text(String),
    Number(f64),
}

impl Record {
    /// A log record, named by its `body` or by `event.name`.
    pub fn of_log(body: Option<String>, at: Nanos, values: HashMap<String, Value>) -> Option<Self> {
        let event = || match values.get("event.name") {
            Some(Value::Text(name)) => Some(format!("claude_code.{name}")),
            _ => None,
        };
        let name = body.filter(|body| body.starts_with("claude_code.")).or_else(event)?;
        Some(Self { name, end: at, values, ..Self::default() })
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        match self.values.get(name)? {
            Value::Text(text) => Some(text),
            Value::Number(_) => None,
        }
    }

    /// A number, also where it is written as text: some of Claude Code's are.
    pub fn real(&self, name: &str) -> Option<f64> {
        match self.values.get(name)? {
            Value::Text(text) => text.parse().ok(),
            Value::Number(number) => Some(*number),
        }
    }

    /// A count: whole, from 0, and at most 2⁵³.
    pub fn number(&self, name: &str) -> Option<u64> {
        let number = self.real(name)?;
        (0.0..=9_007_199_254_740_992.0).contains(&number).then_some(number.round() as u64)
    }
}

/// What a request holds.
#[derive(Debug, Default, PartialEq)]
pub struct Request {
    pub records: Vec<Record>,
    /// Log records and spans of other programs.
    pub foreign: u64,
}

/// Reads a request to `/v1/logs` or `/v1/traces`; `None` if it is not JSON.
pub fn read(body: &[u8]) -> Option<Request> {
    let body: Json = serde_json::from_slice(body).ok()?;
    let mut request = Request::default();
    for (resources, scopes, items, is_log) in
        [("resourceLogs", "scopeLogs", "logRecords", true), ("resourceSpans", "scopeSpans", "spans", false)]
    {
        for resource in list(&body[resources]) {
            let of = attributes(&resource["resource"]["attributes"]);
            let all = list(&resource[scopes]).iter().flat_map(|scope| list(&scope[items]));
            if of.get("service.name") != Some(&Value::Text(SERVICE.to_owned())) {
                request.foreign += all.count() as u64;
                continue;
            }
            request.records.extend(all.filter_map(if is_log { log } else { span }));
        }
    }
    Some(request)
}

/// True if a resource with this service name is Claude Code's.
pub fn is_claude_code(service: &str) -> bool {
    service == SERVICE
}

fn log(record: &Json) -> Option<Record> {
    let body = record["body"]["stringValue"].as_str().map(str::to_owned);
    Record::of_log(body, nanos(&record["timeUnixNano"]), attributes(&record["attributes"]))
}

fn span(span: &Json) -> Option<Record> {
    let text = |name: &str| span[name].as_str().unwrap_or_default().to_owned();
    let name = span["name"].as_str().filter(|name| !name.is_empty())?.to_owned();
    Some(Record {
        name,
        end: nanos(&span["endTimeUnixNano"]),
        id: text("spanId"),
        parent: text("parentSpanId"),
        values: attributes(&span["attributes"]),
    })
}

fn list(json: &Json) -> &[Json] {
    json.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// OTLP writes 64-bit numbers as text; some programs write them as numbers.
fn nanos(json: &Json) -> Nanos {
    json.as_u64().or_else(|| json.as_str()?.parse().ok()).unwrap_or_default()
}

fn attributes(json: &Json) -> HashMap<String, Value> {
    let one = |attribute: &Json| {
        let (key, value) = (attribute["key"].as_str()?, attribute["value"].as_object()?);
        let (kind, value) = value.iter().next()?;
        let value = match (kind.as_str(), value) {
            ("stringValue", Json::String(text)) => Value::Text(text.clone()),
            ("intValue" | "doubleValue", Json::Number(number)) => Value::Number(number.as_f64()?),
            ("intValue" | "doubleValue", Json::String(text)) => Value::Number(text.parse().ok()?),
            ("boolValue", Json::Bool(is)) => Value::Text(is.to_string()),
            _ => return None,
        };
        Some((key.to_owned(), value))
    };
    list(json).iter().filter_map(one).collect()
}
