//! What a Langfuse server answers about the spans it holds: the part of its public API that reads and deletes, as both a v3
//! and a v4 server have it. Every key is the key of a project of its own.

use serde_json::{Value, json};

use crate::{Answer, Request, Span};

/// A span and the public key it was sent with.
pub(crate) type Held = (String, Span);

/// What a project is called whose public key is `public_key`.
pub fn project_name(public_key: &str) -> String {
    format!("Project of {public_key}")
}

/// A server of before v4: knows nothing of `/v2/observations`.
pub fn v3(request: &Request) -> Answer {
    let is_new = request.path.starts_with("/api/public/v2/observations");
    if is_new { Answer::status(404).body("<html>This page could not be found</html>") } else { Answer::ok() }
}

/// A server of v4 with nothing older in it: knows nothing of `GET` traces and sessions.
pub fn v4(request: &Request) -> Answer {
    let is_old = ["traces", "sessions"].iter().any(|name| request.path.starts_with(&format!("/api/public/{name}")));
    if is_old && request.method == "GET" {
        let why = "This endpoint is not available on deployments running in Langfuse v4 events_only mode";
        Answer::status(404).body(&error(why))
    } else {
        Answer::ok()
    }
}

/// Status and body; `None` if the request is about something else.
pub(crate) fn answer(request: &Request, held: &mut Vec<Held>) -> Option<(u16, String)> {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let rest = path.strip_prefix("/api/public/")?;
    if (request.method.as_str(), rest) == ("GET", "health") {
        return Some((200, json!({"status": "OK", "version": "4.16.0"}).to_string()));
    }
    let known = matches!(
        (request.method.as_str(), rest.split('/').next()?),
        ("GET", "projects" | "traces" | "sessions" | "v2") | ("DELETE", "traces")
    );
    if !known {
        return None;
    }
    let key = request.key();
    let Some((public_key, _)) = key.split_once(':').filter(|(public, secret)| !public.is_empty() && !secret.is_empty())
    else {
        return Some((401, error("Invalid credentials. Confirm that you've configured the correct host.")));
    };
    let own: Vec<&Span> = latest(held, public_key);
    let of = |what: fn(&Span) -> String, id: &str| -> Vec<&Span> {
        own.iter().copied().filter(|span| what(span) == id).collect()
    };
    let trace_id = |span: &Span| span.trace_id.clone();
    let session_id = |span: &Span| span.get("session.id").to_owned();
    let parts: Vec<&str> = rest.split('/').collect();
    Some(match (request.method.as_str(), parts.as_slice()) {
        ("GET", ["projects"]) => {
            let id = format!("id-of-{public_key}");
            let organization = json!({"id": "organization", "name": "Organization"});
            let name = project_name(public_key);
            let project = json!({"id": id, "name": name, "organization": organization, "metadata": {}});
            (200, json!({ "data": [project] }).to_string())
        }
        ("GET", ["v2", "observations"]) => (200, observations(&own, query).to_string()),
        ("GET", ["traces", id]) => match of(trace_id, id).as_slice() {
            [] => (404, error(&format!("Trace {id} not found within authorized project"))),
            spans => (200, trace(spans).to_string()),
        },
        ("GET", ["sessions", id]) => match of(session_id, id).as_slice() {
            [] => (404, error("Session not found within authorized project")),
            spans => {
                let mut ids: Vec<&str> = spans.iter().map(|span| &*span.trace_id).collect();
                ids.sort_unstable();
                ids.dedup();
                let traces: Vec<Value> = ids.iter().map(|id| trace(&of(trace_id, id))).collect();
                (200, json!({"id": id, "createdAt": time(spans[0].start), "traces": traces}).to_string())
            }
        },
        ("DELETE", ["traces", id]) => {
            held.retain(|(key, span)| key != public_key || span.trace_id != *id);
            (200, json!({"message": "Trace deleted successfully"}).to_string())
        }
        ("DELETE", ["traces"]) => {
            let body: Value = serde_json::from_slice(&request.plain).unwrap_or_default();
            let Some(ids) = body["traceIds"].as_array().cloned() else {
                return Some((400, error("Invalid request data")));
            };
            held.retain(|(key, span)| key != public_key || !ids.contains(&Value::from(&*span.trace_id)));
            (200, json!({"message": "Traces deleted successfully"}).to_string())
        }
        _ => return None,
    })
}

fn error(message: &str) -> String {
    json!({"message": message, "error": "Error"}).to_string()
}

/// The spans of a project; of those that were sent more than once, what was said last.
fn latest<'h>(held: &'h [Held], public_key: &str) -> Vec<&'h Span> {
    let mut spans: Vec<&Span> = Vec::new();
    for (_, span) in held.iter().filter(|(key, _)| key == public_key) {
        match spans.iter_mut().find(|there| there.span_id == span.span_id && there.trace_id == span.trace_id) {
            Some(there) => *there = span,
            None => spans.push(span),
        }
    }
    spans
}

fn observations(own: &[&Span], query: &str) -> Value {
    let get = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let (trace, session) = (get("traceId"), get("sessionId"));
    let groups: Vec<&str> = get("fields").unwrap_or("core,basic").split([',']).collect();
    let from: usize = get("cursor").and_then(|at| at.parse().ok()).unwrap_or(0);
    let limit: usize = get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(50).clamp(1, 1000);
    let found: Vec<&&Span> = own
        .iter()
        .filter(|span| trace.is_none_or(|id| span.trace_id == id))
        .filter(|span| session.is_none_or(|id| span.get("session.id") == id))
        .collect();
    let page: Vec<Value> = found.iter().skip(from).take(limit).map(|span| observation(span, &groups)).collect();
    let next = from + page.len();
    let meta = if next < found.len() { json!({"cursor": next.to_string()}) } else { json!({}) };
    json!({"data": page, "meta": meta})
}

fn observation(span: &Span, groups: &[&str]) -> Value {
    let parent = if span.is_root() { Value::Null } else { span.parent.as_str().into() };
    let mut all = json!({
        "id": span.span_id, "traceId": span.trace_id, "parentObservationId": parent,
        "startTime": time(span.start), "endTime": time(span.end),
        "type": span.observation("type").to_uppercase(),
    });
    let mut add = |group: &str, more: Value| {
        if let (true, Some(all), Value::Object(more)) = (groups.contains(&group), all.as_object_mut(), more) {
            all.extend(more);
        }
    };
    let (level, environment) = (span.observation("level"), span.get("langfuse.environment"));
    add("basic", json!({"name": span.name, "level": level, "environment": environment}));
    add("io", json!({"input": span.observation("input"), "output": span.observation("output")}));
    add("model", json!({"providedModelName": span.observation("model.name")}));
    add(
        "trace_context",
        json!({
            "traceName": span.get("langfuse.trace.name"),
            "sessionId": span.get("session.id"),
            "userId": span.get("user.id"),
        }),
    );
    all
}

/// A trace as its spans tell; there is at least one.
fn trace(spans: &[&Span]) -> Value {
    let root = spans.iter().find(|span| span.is_root()).unwrap_or(&spans[0]);
    let groups = ["basic", "io", "model", "trace_context"];
    let observations: Vec<Value> = spans.iter().map(|span| observation(span, &groups)).collect();
    json!({
        "id": root.trace_id, "name": root.get("langfuse.trace.name"), "timestamp": time(root.start),
        "sessionId": root.get("session.id"), "userId": root.get("user.id"),
        "environment": root.get("langfuse.environment"),
        "input": root.observation("input"), "output": root.observation("output"),
        "observations": observations, "scores": [],
    })
}

/// Nanoseconds since the epoch as RFC 3339, to the millisecond.
pub fn time(nanos: u64) -> String {
    let (seconds, ms) = (nanos / 1_000_000_000, nanos / 1_000_000 % 1000);
    let [year, month, day, hour, minute, second] = civil(seconds);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// Seconds since the epoch as HTTP writes them.
pub fn http_date(seconds: u64) -> String {
    let weekday = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][(seconds / 86400 % 7) as usize];
    let [year, month, day, hour, minute, second] = civil(seconds);
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = months[month as usize - 1];
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

/// Year, month, day, hour, minute, second.
fn civil(seconds: u64) -> [u64; 6] {
    let mut days = seconds / 86400;
    let is_leap = |year: u64| year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let mut month = 0;
    let lengths = [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    while days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    [year, month as u64 + 1, days + 1, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_the_protocols_want_them() {
        for (seconds, http, rfc) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT", "1970-01-01T00:00:00.007Z"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT", "1994-11-06T08:49:37.007Z"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT", "2000-02-29T00:00:00.007Z"),
            (1_798_761_599, "Thu, 31 Dec 2026 23:59:59 GMT", "2026-12-31T23:59:59.007Z"),
        ] {
            assert_eq!((http_date(seconds), time(seconds * 1_000_000_000 + 7_000_000)), (http.into(), rfc.into()));
        }
    }

    fn span(trace_id: &str, span_id: &str, parent: &str, session: &str) -> Span {
        Span {
            trace_id: trace_id.into(),
            span_id: span_id.into(),
            parent: parent.into(),
            name: "turn".into(),
            start: 0,
            end: 1,
            attrs: [("session.id".to_owned(), session.to_owned())].into(),
            scope: String::new(),
            resource: [].into(),
            encoded: vec![],
        }
    }

    fn ask(held: &mut Vec<Held>, method: &str, path: &str, key: &str, body: &str) -> (u16, Value) {
        use base64::Engine;
        let basic = base64::engine::general_purpose::STANDARD.encode(format!("{key}:secret"));
        let request = Request {
            method: method.into(),
            path: path.into(),
            headers: vec![("authorization".into(), format!("Basic {basic}"))],
            raw: vec![],
            plain: body.into(),
            spans: vec![],
            at: std::time::Instant::now(),
            status: 0,
        };
        let (status, body) = answer(&request, held).expect("an answer");
        (status, serde_json::from_str(&body).expect("JSON"))
    }

    #[test]
    fn a_project_reads_and_deletes_what_is_its_own() {
        let held = &mut vec![
            ("a".to_owned(), span("t1", "s1", "", "one")),
            ("a".to_owned(), span("t1", "s2", "s1", "one")),
            ("a".to_owned(), span("t1", "s2", "s1", "one")),
            ("a".to_owned(), span("t2", "s3", "", "one")),
            ("b".to_owned(), span("t1", "s1", "", "one")),
        ];
        assert_eq!(ask(held, "GET", "/api/public/projects", "a", "").1["data"][0]["name"], project_name("a"));
        let (status, page) = ask(held, "GET", "/api/public/v2/observations?traceId=t1&fields=core&limit=1", "a", "");
        assert_eq!((status, &page["data"][0]["id"], page["data"][0].get("name")), (200, &json!("s1"), None));
        let next =
            format!("/api/public/v2/observations?traceId=t1&cursor={}", page["meta"]["cursor"].as_str().unwrap());
        let (_, page) = ask(held, "GET", &next, "a", "");
        assert_eq!((page["data"].as_array().unwrap().len(), &page["meta"]), (1, &json!({})));
        assert_eq!(page["data"][0]["name"], "turn");
        let (status, trace) = ask(held, "GET", "/api/public/traces/t1", "a", "");
        assert_eq!((status, trace["observations"].as_array().unwrap().len()), (200, 2));
        let (_, session) = ask(held, "GET", "/api/public/sessions/one", "a", "");
        assert_eq!(session["traces"].as_array().unwrap().len(), 2);
        assert_eq!(ask(held, "DELETE", "/api/public/traces/t1", "a", "").0, 200);
        assert_eq!(ask(held, "GET", "/api/public/traces/t1", "a", "").0, 404);
        assert_eq!(ask(held, "GET", "/api/public/traces/t1", "b", "").0, 200);
        assert_eq!(ask(held, "DELETE", "/api/public/traces", "a", r#"{"traceIds":["t2"]}"#).0, 200);
        assert_eq!(ask(held, "GET", "/api/public/sessions/one", "a", "").0, 404);
        assert_eq!(ask(held, "DELETE", "/api/public/traces", "a", "{}").0, 400);
        assert_eq!(held.len(), 1);
        assert_eq!(ask(held, "GET", "/api/public/projects", "", "").0, 401);
    }
}
