use serde_json::json;

use super::*;
use crate::{
    ids::{Role, span_id, trace_id},
    observation::{Generation, Tool},
};

const SECOND: Nanos = 1_000_000_000;

fn attributes(values: &serde_json::Value) -> serde_json::Value {
    let one = |(key, value): (&String, &serde_json::Value)| {
        let value = match value {
            serde_json::Value::String(text) => json!({ "stringValue": text }),
            serde_json::Value::Number(number) if number.is_u64() => json!({ "intValue": number }),
            number => json!({ "doubleValue": number }),
        };
        json!({"key": key, "value": value})
    };
    values.as_object().unwrap().iter().map(one).collect()
}

/// A request with one log record, as Claude Code 2.1.332 writes it.
fn event(name: &str, values: &serde_json::Value) -> Vec<u8> {
    let record = json!({"timeUnixNano": (9 * SECOND).to_string(), "body": {"stringValue": format!("claude_code.{name}")},
                        "attributes": attributes(values)});
    json!({"resourceLogs": [{"resource": {"attributes": attributes(&json!({"service.name": "claude-code"}))},
                             "scopeLogs": [{"logRecords": [record]}]}]})
    .to_string()
    .into_bytes()
}

/// A request with one span.
fn span(name: &str, id: &str, parent: &str, values: &serde_json::Value) -> Vec<u8> {
    let span = json!({"name": format!("claude_code.{name}"), "spanId": id, "parentSpanId": parent,
                      "endTimeUnixNano": 9 * SECOND, "attributes": attributes(values)});
    json!({"resourceSpans": [{"resource": {"attributes": attributes(&json!({"service.name": "claude-code"}))},
                              "scopeSpans": [{"spans": [span]}]}]})
    .to_string()
    .into_bytes()
}

fn request(id: &str, source: &str) -> Vec<u8> {
    let values = json!({
        "session.id": "s", "prompt.id": "p", "request_id": id, "model": "claude-opus-5-5", "query_source": source,
        "input_tokens": 101, "output_tokens": 11, "cache_read_tokens": 7, "cache_creation_tokens": 6,
        "cache_creation_5m_tokens": 2, "cache_creation_1h_tokens": 3, "cost_usd": 0.0161, "duration_ms": 2000,
        "ttft_ms": 500, "speed": "normal",
    });
    event("api_request", &values)
}

fn facts(requests: &[Vec<u8>]) -> Facts {
    let mut facts = Facts::default();
    for request in requests {
        otlp::read(request).unwrap().records.iter().for_each(|record| drop(facts.add(record, 0)));
    }
    facts
}

fn generation(request_id: &str) -> Observation {
    let generation = Generation { request_id: Some(request_id.into()), ..Generation::default() };
    Observation {
        start: SECOND,
        end: 4 * SECOND,
        body: Body::Generation(Box::new(generation)),
        ..Observation::default()
    }
}

fn measured(facts: &Facts, mut observation: Observation) -> Generation {
    facts.measure("s", &mut observation);
    let Body::Generation(generation) = observation.body else { panic!("a generation") };
    *generation
}

#[test]
fn a_call_gets_the_time_to_its_first_token_its_duration_and_its_attempts_in_any_order() {
    let of_span = span("llm_request", "01", "", &json!({"session.id": "s", "request_id": "r1", "attempt": 3}));
    let of_event = request("r1", "sdk");
    for order in [[of_span.clone(), of_event.clone()], [of_event, of_span]] {
        let facts = facts(&order);
        let generation = measured(&facts, generation("r1"));
        let expect =
            Measured { first_token_ms: Some(500), duration_ms: Some(2000), attempts: Some(3), ..Measured::default() };
        assert_eq!((generation.measured, generation.first_block), (Some(expect), Some(SECOND + SECOND / 2)));
        assert!(facts.has_call("s", "r1") && facts.knows("s") && !facts.knows("t"));
    }
}

#[test]
fn a_call_that_the_telemetry_does_not_know_stays_as_it_is() {
    let facts = facts(&[request("r1", "sdk")]);
    for (session, id) in [("s", "r2"), ("other", "r1")] {
        let mut observation = generation(id);
        facts.measure(session, &mut observation);
        assert_eq!(observation, generation(id), "{session} {id}");
    }
    let advisor = Generation { role: Some("advisor".into()), request_id: Some("r1".into()), ..Generation::default() };
    let mut observation = Observation { body: Body::Generation(Box::new(advisor)), ..Observation::default() };
    let before = observation.clone();
    facts.measure("s", &mut observation);
    assert_eq!(observation, before);
}

#[test]
fn a_tool_gets_its_run_time_its_permission_wait_and_who_decided() {
    let tool = json!({"session.id": "s", "tool_use_id": "t1", "duration_ms": 212});
    let facts = facts(&[
        span("tool.blocked_on_user", "02", "03", &json!({"session.id": "s", "duration_ms": 13})),
        span("tool.execution", "04", "03", &json!({"session.id": "s", "tool_use_id": "t1", "duration_ms": "198"})),
        span("tool", "03", "05", &tool),
        event(
            "tool_decision",
            &json!({"session.id": "s", "tool_use_id": "t1", "decision": "accept", "source": "hook"}),
        ),
    ]);
    let mut observation =
        Observation { body: Body::Tool(Tool { id: "t1".into(), ..Tool::default() }), ..Observation::default() };
    facts.measure("s", &mut observation);
    let Body::Tool(tool) = observation.body else { panic!("a tool") };
    let expect = Waited {
        ran_ms: Some(198),
        permission_ms: Some(13),
        decision: Some("accept".into()),
        decided_by: Some("hook".into()),
    };
    assert_eq!((tool.ran_ms(), tool.waited), (Some(198), Some(expect)));
}

#[test]
fn a_call_without_a_line_is_taken_once_with_all_its_tokens_and_cost() {
    let mut facts = facts(&[
        request("r1", "sdk"),
        request("r2", "web_search_tool"),
        request("r3", "agent:builtin:general-purpose"),
        request("r4", "something_new"),
        request("r5", "something_new"),
    ]);
    assert!(facts.hidden("other", |_| Fate::Hidden).is_empty());
    assert!(facts.hidden("s", |_| Fate::Open).is_empty(), "its turn is in progress");
    let hidden = facts.hidden("s", |call| if call.request_id == "r4" { Fate::HasLine } else { Fate::Hidden });
    assert_eq!(hidden.iter().map(|call| call.request_id.as_str()).collect::<Vec<_>>(), ["r2", "r5"]);
    assert!(facts.hidden("s", |_| Fate::Hidden).is_empty(), "only once");

    let trace = trace_id("turn");
    let observation = hidden[0].observation(trace, "turn");
    assert_eq!(observation.parent, Some(span_id(trace, Role::Turn, "turn")));
    assert_eq!((observation.start, observation.end, &*observation.name), (7 * SECOND, 9 * SECOND, "web search"));
    assert_ne!(observation.span_id, hidden[1].observation(trace, "turn").span_id);
    let Body::Generation(generation) = observation.body else { panic!("a generation") };
    let usage = Usage { input: 101, output: 11, cache_read: 7, cache_write_5m: 2, cache_write_1h: 3, cache_write: 1 };
    assert_eq!((generation.usage, generation.role.as_deref()), (Some(usage), Some("web search")));
    let measured = generation.measured.unwrap();
    assert_eq!((measured.cost, measured.source()), (Some(0.0161), Some("telemetry")));
}

#[test]
fn an_event_that_comes_again_is_not_taken_again() {
    let mut facts = facts(&[request("r2", "compact")]);
    assert_eq!(facts.hidden("s", |_| Fate::Hidden).len(), 1);
    otlp::read(&request("r2", "compact")).unwrap().records.iter().for_each(|record| drop(facts.add(record, 0)));
    assert!(facts.hidden("s", |_| Fate::Hidden).is_empty());
}

#[test]
fn odd_fields_cost_those_fields_and_odd_requests_nothing_else() {
    let odd = json!({
        "session.id": "s", "request_id": "r1", "query_source": 7, "input_tokens": -1, "output_tokens": "eleven",
        "cache_read_tokens": 1e300, "cost_usd": -2.5, "duration_ms": 1.5, "model": "x".repeat(10_000),
    });
    let mut facts = facts(&[event("api_request", &odd), event("api_request", &json!({"request_id": "r2"}))]);
    assert_eq!(facts.nameless, 1, "without a session");
    let call = facts.calls.get("s", "r1").unwrap().clone();
    assert_eq!((call.usage, call.cost, call.duration_ms, &*call.model), (Usage::default(), None, Some(2), ""));
    assert!(facts.hidden("s", |_| Fate::Hidden).is_empty(), "its purpose is not known");
    for text in [
        "",
        "[]",
        "null",
        "{\"resourceLogs\": 1}",
        "{\"resourceLogs\": [{\"scopeLogs\": [{\"logRecords\": [{}, 7]}]}]}",
    ] {
        let records = otlp::read(text.as_bytes()).map_or(0, |request| request.records.len());
        assert_eq!(records, 0, "{text}");
    }
    let foreign = String::from_utf8(request("r1", "sdk")).unwrap().replace("claude-code", "my-service");
    let read = otlp::read(foreign.as_bytes()).unwrap();
    assert_eq!((read.records.len(), read.foreign), (0, 1));
}

#[test]
fn what_is_held_is_bounded_in_number_and_age() {
    let mut facts = Facts::default();
    let add = |facts: &mut Facts, id: usize, now: Nanos| {
        let read = otlp::read(&request(&format!("r{id}"), "compact")).unwrap();
        read.records.iter().for_each(|record| drop(facts.add(record, now)));
    };
    for id in 0..2 * MAX_HELD {
        add(&mut facts, id, 0);
    }
    assert_eq!((facts.calls.by_key.len(), facts.calls.order.len()), (MAX_HELD, MAX_HELD));
    assert!(!facts.has_call("s", "r0") && facts.has_call("s", &format!("r{}", 2 * MAX_HELD - 1)));
    assert!(facts.fresh.len() <= MAX_HELD);
    add(&mut facts, 9 * MAX_HELD, MAX_AGE + 1);
    assert_eq!(facts.calls.by_key.len(), 1, "the rest is too old");
    assert_eq!(facts.hidden("s", |_| Fate::Hidden).len(), 1, "and is not taken any more");
}

#[test]
fn a_call_without_a_line_within_a_subagent_is_one_and_what_was_not_stored_is_offered_again() {
    let of_agent = |id: &str, source: &str| {
        let values = json!({"session.id": "s", "request_id": id, "query_source": source, "agent_id": "a1"});
        event("api_request", &values)
    };
    let mut facts =
        facts(&[of_agent("r1", "web_search_tool"), of_agent("r2", "compact"), of_agent("r3", "something_new")]);
    let taken = |facts: &mut Facts| {
        facts.hidden("s", |_| Fate::Hidden).iter().map(|call| call.request_id.clone()).collect::<Vec<_>>()
    };
    assert_eq!(taken(&mut facts), ["r1", "r2"], "others of a subagent have a line");
    assert!(taken(&mut facts).is_empty());
    facts.offer_again("other", Vec::new(), 0);
    assert!(taken(&mut facts).is_empty());
    facts.offer_again("s", Vec::new(), 0);
    let mut again = taken(&mut facts);
    again.sort();
    assert_eq!(again, ["r1", "r2"]);
}
