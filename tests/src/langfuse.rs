//! A Langfuse server's answers about the spans it holds: the part of its public API that reads and deletes, in v3 and
//! v4. Each key has its own project.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{Answer, Request, Span};

/// Versions of a span that arrive within this time are one row from the start.
const ONE_ROW: Duration = Duration::from_secs(1);

/// The server's content for all keys.
#[derive(Default)]
pub(crate) struct Project {
    held: Vec<Held>,
    /// Traces to be deleted, with the key that asked for it.
    doomed: Vec<(String, String)>,
}

struct Held {
    /// The public key it was sent with.
    key: String,
    span: Span,
    at: Instant,
    /// Earlier copies were merged into it.
    is_merged: bool,
}

impl Project {
    pub(crate) fn take(&mut self, request: &Request) {
        let key = request.key();
        let key = key.split(':').next().unwrap_or_default();
        self.held.extend(request.spans.iter().map(|span| Held {
            key: key.to_owned(),
            span: span.clone(),
            at: request.at,
            is_merged: false,
        }));
    }

    /// Every span that is not deleted, as often as it was sent.
    pub(crate) fn spans(&self) -> Vec<Span> {
        self.held.iter().map(|held| held.span.clone()).collect()
    }

    /// Deletes and merges. A real server does both asynchronously, and deletes within 5 s to 2 min.
    pub(crate) fn work(&mut self) {
        let doomed = std::mem::take(&mut self.doomed);
        self.held.retain(|held| !doomed.iter().any(|(key, trace)| held.key == *key && held.span.trace_id == *trace));
        self.held.iter_mut().for_each(|held| held.is_merged = true);
    }

    /// The rows of a project in v4: versions of a span are several rows until they are merged, except those that came
    /// in quick succession. A version with another start is a separate row for ever.
    fn rows(&self, public_key: &str) -> Vec<&Span> {
        let mut rows: Vec<&Held> = Vec::new();
        let is_same = |a: &Span, b: &Span| (&a.trace_id, &a.span_id, a.start) == (&b.trace_id, &b.span_id, b.start);
        for held in self.held.iter().filter(|held| held.key == public_key) {
            match rows.iter_mut().rev().find(|row| is_same(&row.span, &held.span)) {
                Some(row) if held.is_merged || held.at.saturating_duration_since(row.at) < ONE_ROW => *row = held,
                _ => rows.push(held),
            }
        }
        rows.into_iter().map(|row| &row.span).collect()
    }

    /// The spans of a project in v3: the latest version of each.
    fn latest(&self, public_key: &str) -> Vec<&Span> {
        let mut spans: Vec<&Span> = Vec::new();
        for Held { span, .. } in self.held.iter().filter(|held| held.key == public_key) {
            match spans.iter_mut().find(|there| there.span_id == span.span_id && there.trace_id == span.trace_id) {
                Some(there) => *there = span,
                None => spans.push(span),
            }
        }
        spans
    }

    /// A v3 server's value for a trace under `langfuse.trace.KEY`: it sorts updates by the start of their spans, and of
    /// two with the same start keeps either. Here that is the wrong one: the one that came first.
    pub(crate) fn of_trace<'p>(&'p self, public_key: &str, trace: &str, key: &str) -> &'p str {
        let of = self.held.iter().filter(|held| held.key == public_key && held.span.trace_id == trace);
        let said =
            of.filter_map(|held| Some((held.span.start, held.span.attrs.get(&format!("langfuse.trace.{key}"))?)));
        let mut newest: Option<(u64, &String)> = None;
        for (start, text) in said {
            if newest.is_none_or(|(known, _)| start > known) {
                newest = Some((start, text));
            }
        }
        newest.map_or("", |(_, text)| text)
    }
}

/// The name of the project whose public key is `public_key`.
pub fn project_name(public_key: &str) -> String {
    format!("Project of {public_key}")
}

/// A server older than v4, without `/v2/observations`.
pub fn v3(request: &Request) -> Answer {
    let is_new = request.path.starts_with("/api/public/v2/observations");
    if is_new { Answer::status(404).body("<html>This page could not be found</html>") } else { Answer::ok() }
}

/// A v4 server without the older API: no `GET` of traces and sessions.
pub fn v4(request: &Request) -> Answer {
    let is_old = ["traces", "sessions"].iter().any(|name| request.path.starts_with(&format!("/api/public/{name}")));
    if is_old && request.method == "GET" {
        let why = "This endpoint is not available on deployments running in Langfuse v4 events_only mode";
        Answer::status(404).body(&error(why))
    } else {
        Answer::ok()
    }
}

/// A server whose queue or storage hangs: it does not answer for more than a minute.
pub fn stuck(request: &Request) -> Answer {
    let is_alive = request.path.starts_with("/api/public/health");
    if is_alive { Answer::ok() } else { Answer::ok().late(Duration::from_secs(70)) }
}

/// A server without its PostgreSQL: it accepts spans but knows no projects.
pub fn without_postgres(request: &Request) -> Answer {
    let asks = request.path.starts_with("/api/public/projects");
    if asks { Answer::status(500).body(&json!({"message": "Internal Server Error"}).to_string()) } else { Answer::ok() }
}

/// The body of a refusal with this status, if the server has a special one.
pub(crate) fn refusal(status: u16) -> Option<String> {
    let body = match status {
        401 => unknown_key(),
        429 => json!({"message": "Rate limit exceeded", "code": "rate_limited"}),
        _ => return None,
    };
    Some(body.to_string())
}

/// This is the whole answer.
fn unknown_key() -> Value {
    json!({"message": "Invalid credentials. Confirm that you've configured the correct host."})
}

/// The body of the answer to spans: not OTLP, but the queued job.
fn queued(request: &Request) -> Value {
    if request.spans.is_empty() {
        return json!({});
    }
    let id = &request.spans[0].trace_id;
    let file = format!("otel/project-0123456789/2026/11/28/10/00/{id}-{}.json", "0".repeat(500));
    json!({
        "name": "otel-ingestion-job",
        "data": {
            "timestamp": "2026-11-28T10:00:00.000Z", "id": id, "name": "otel-ingestion-job",
            "payload": {
                "data": {"fileKey": file, "publicKey": request.key().split(':').next()},
                "authCheck": {"validKey": true, "scope": {"projectId": "project-0123456789", "accessLevel": "project"}},
                "propagatedHeaders": {"x-langfuse-ingestion-version": "4"},
            },
        },
        "opts": {
            "attempts": 6, "delay": 0, "removeOnComplete": true, "removeOnFail": 100_000,
            "backoff": {"type": "exponential", "delay": 5000},
        },
        "id": "1", "progress": 0, "returnvalue": null, "stacktrace": null, "delay": 0, "priority": 0, "attemptsStarted": 0,
        "attemptsMade": 0, "stalledCounter": 0, "timestamp": 1_795_946_400_000_u64,
        "queueQualifiedName": "bull:otel-ingestion-queue",
    })
}

/// Status and body; `None` if the request is for something else.
pub(crate) fn answer(request: &Request, project: &mut Project) -> Option<(u16, String)> {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    // Any receiver of OTLP.
    if (request.method.as_str(), path) == ("POST", "/v1/traces") {
        return Some((200, "{}".to_owned()));
    }
    let rest = path.strip_prefix("/api/public/")?;
    if (request.method.as_str(), rest) == ("GET", "health") {
        return Some((200, json!({"status": "OK", "version": "4.16.0"}).to_string()));
    }
    if (request.method.as_str(), rest) == ("POST", "otel/v1/traces") {
        return Some((200, queued(request).to_string()));
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
        return Some((401, unknown_key().to_string()));
    };
    let own = project.latest(public_key);
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
            let known = json!({"id": id, "name": name, "organization": organization, "metadata": {}});
            (200, json!({ "data": [known] }).to_string())
        }
        ("GET", ["v2", "observations"]) => (200, observations(&project.rows(public_key), query).to_string()),
        ("GET", ["traces", id]) => match of(trace_id, id).as_slice() {
            [] => (404, error(&format!("Trace {id} not found within authorized project"))),
            spans => (200, trace(spans, project, public_key).to_string()),
        },
        ("GET", ["sessions", id]) => match of(session_id, id).as_slice() {
            [] => (404, error("Session not found within authorized project")),
            spans => {
                let mut ids: Vec<&str> = spans.iter().map(|span| &*span.trace_id).collect();
                ids.sort_unstable();
                ids.dedup();
                let traces: Vec<Value> = ids.iter().map(|id| trace(&of(trace_id, id), project, public_key)).collect();
                (200, json!({"id": id, "createdAt": time(spans[0].start), "traces": traces}).to_string())
            }
        },
        ("DELETE", ["traces", id]) => {
            let id = (public_key.to_owned(), (*id).to_owned());
            project.doomed.push(id);
            (200, json!({"message": "Trace deleted successfully"}).to_string())
        }
        ("DELETE", ["traces"]) => {
            let body: Value = serde_json::from_slice(&request.plain).unwrap_or_default();
            let Some(ids) = body["traceIds"].as_array() else {
                return Some((400, error("Invalid request data")));
            };
            let ids = ids.iter().filter_map(|id| Some((public_key.to_owned(), id.as_str()?.to_owned())));
            project.doomed.extend(ids);
            (200, json!({"message": "Traces deleted successfully"}).to_string())
        }
        _ => return None,
    })
}

fn error(message: &str) -> String {
    json!({"message": message, "error": "Error"}).to_string()
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

/// A v3 server's trace made of these spans, of which there is at least one.
fn trace(spans: &[&Span], project: &Project, public_key: &str) -> Value {
    let root = spans.iter().find(|span| span.is_root()).unwrap_or(&spans[0]);
    let groups = ["basic", "io", "model", "trace_context"];
    let observations: Vec<Value> = spans.iter().map(|span| observation(span, &groups)).collect();
    json!({
        "id": root.trace_id, "name": root.get("langfuse.trace.name"), "timestamp": time(root.start),
        "sessionId": root.get("session.id"), "userId": root.get("user.id"),
        "environment": root.get("langfuse.environment"),
        "input": project.of_trace(public_key, &root.trace_id, "input"),
        "output": project.of_trace(public_key, &root.trace_id, "output"),
        "observations": observations, "scores": [],
    })
}

/// Nanoseconds since the epoch as RFC 3339 with milliseconds.
pub fn time(nanos: u64) -> String {
    let (seconds, ms) = (nanos / 1_000_000_000, nanos / 1_000_000 % 1000);
    let [year, month, day, hour, minute, second] = civil(seconds);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// Seconds since the epoch as an HTTP date.
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
    fn times_are_formatted_for_http_and_rfc_3339() {
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
            is_error: false,
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

    fn request(method: &str, path: &str, key: &str, body: &str) -> Request {
        use base64::Engine;
        let basic = base64::engine::general_purpose::STANDARD.encode(format!("{key}:secret"));
        Request {
            method: method.into(),
            path: path.into(),
            headers: vec![("authorization".into(), format!("Basic {basic}"))],
            raw: vec![],
            plain: body.into(),
            spans: vec![],
            at: Instant::now(),
            status: 0,
        }
    }

    fn ask(project: &mut Project, method: &str, path: &str, key: &str, body: &str) -> (u16, Value) {
        let (status, body) = answer(&request(method, path, key, body), project).expect("an answer");
        (status, serde_json::from_str(&body).expect("JSON"))
    }

    /// Stores spans of the key `key` that came `ms` after `start`.
    fn send(project: &mut Project, key: &str, (start, ms): (Instant, u64), spans: &[Span]) -> String {
        let mut request = request("POST", "/api/public/otel/v1/traces", key, "");
        (request.spans, request.at) = (spans.to_vec(), start + Duration::from_millis(ms));
        project.take(&request);
        answer(&request, project).expect("an answer").1
    }

    #[test]
    fn a_key_reads_and_deletes_only_its_own_project() {
        let held = &mut Project::default();
        let now = Instant::now();
        let (root, call) = (span("t1", "s1", "", "one"), span("t1", "s2", "s1", "one"));
        send(held, "a", (now, 0), &[root.clone(), call.clone(), call, span("t2", "s3", "", "one")]);
        send(held, "b", (now, 0), &[root]);
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
        assert_eq!(ask(held, "GET", "/api/public/traces/t1", "a", "").0, 200, "not yet");
        held.work();
        assert_eq!(ask(held, "GET", "/api/public/traces/t1", "a", "").0, 404);
        assert_eq!(ask(held, "GET", "/api/public/traces/t1", "b", "").0, 200);
        assert_eq!(ask(held, "DELETE", "/api/public/traces", "a", r#"{"traceIds":["t2"]}"#).0, 200);
        held.work();
        assert_eq!(ask(held, "GET", "/api/public/sessions/one", "a", "").0, 404);
        assert_eq!(ask(held, "DELETE", "/api/public/traces", "a", "{}").0, 400);
        assert_eq!(held.spans().len(), 1);
        let (status, said) = ask(held, "GET", "/api/public/projects", "", "");
        assert_eq!(
            (status, said.as_object().map(|said| said.keys().cloned().collect::<Vec<_>>())),
            (401, Some(vec!["message".to_owned()]))
        );
    }

    #[test]
    fn versions_of_a_span_are_separate_rows_until_merged() {
        let held = &mut Project::default();
        let now = Instant::now();
        let version = |name: &str, start| Span { name: name.into(), start, ..span("t", "s", "", "one") };
        for (ms, name, start) in [(0, "a", 5), (900, "b", 5), (3000, "c", 5), (3100, "d", 6)] {
            send(held, "k", (now, ms), &[version(name, start)]);
        }
        let names = |held: &mut Project| -> Vec<String> {
            let (_, page) = ask(held, "GET", "/api/public/v2/observations?traceId=t", "k", "");
            page["data"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(names(held), ["b", "c", "d"]);
        held.work();
        assert_eq!(names(held), ["c", "d"], "another start is another row for ever");
    }

    #[test]
    fn a_v3_server_takes_the_output_of_a_trace_from_the_span_that_starts_last() {
        let says = |id: &str, start, text: &str| Span {
            start,
            attrs: [("langfuse.trace.output".to_owned(), text.to_owned())].into(),
            ..span("t", id, if id == "root" { "" } else { "root" }, "one")
        };
        let output = |held: &mut Project| ask(held, "GET", "/api/public/traces/t", "k", "").1["output"].clone();
        let held = &mut Project::default();
        let now = Instant::now();
        send(held, "k", (now, 0), &[says("root", 1, "old"), says("call", 2, "old")]);
        send(held, "k", (now, 1), &[says("root", 1, "new")]);
        assert_eq!(output(held), "old", "the root alone does not decide");
        send(held, "k", (now, 2), &[says("later", 3, "new")]);
        assert_eq!(output(held), "new");
    }

    #[test]
    fn spans_are_answered_with_the_queued_job() {
        let held = &mut Project::default();
        let said = send(held, "k", (Instant::now(), 0), &[span("t", "s", "", "one")]);
        assert!(
            (1200..1500).contains(&said.len()) && said.contains("bull:otel-ingestion-queue"),
            "{}: {said}",
            said.len()
        );
        assert_eq!(send(held, "k", (Instant::now(), 0), &[]), "{}");
    }
}
