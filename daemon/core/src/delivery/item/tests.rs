use serde_json::{Value as Json, json};

use super::*;
use crate::{
    destination::{
        Kind,
        wire::{Status, Value},
    },
    media::Media,
    observation::{
        Agent, Answer, Body, Caller, Closing, Content, Detail, Event, Failure, Field, Generation, Level, Link,
        Measured, MediaRef, Message, Output, Part, Tool, ToolCall, Turn, Usage, Waited,
    },
    project::Semantics,
    redact::{Counts, Redactor},
};

const TOKEN: &str = "sesame";

fn langfuse() -> Destination {
    Destination { kind: Kind::Langfuse, address: "https://lf.example.org".into(), account: "pk".into() }
}

fn some(text: &str) -> Option<String> {
    Some(format!("{text} {TOKEN}"))
}

fn word(text: &str) -> String {
    format!("{text} {TOKEN}")
}

fn medium() -> Media {
    Media::new("image/png", b"ABCD".to_vec(), 3).unwrap()
}

fn parts() -> Content {
    Content::Parts(vec![Part::Text(word("look")), Part::Media(MediaRef::from(&medium()))])
}

/// One observation of each kind, every field set, with one word in each text.
fn bodies() -> Vec<Body> {
    let usage =
        Usage { input: 1, output: 2, cache_read: 3, cache_write_5m: 4, cache_write_1h: 5, cache_write: u64::MAX };
    let call = ToolCall { id: word("t"), name: word("Bash"), arguments: format!(r#"{{"command":"{TOKEN}"}}"#) };
    let given = Message { tool: Some(Caller { id: word("t"), name: word("Read") }), content: parts() };
    let said = Message { tool: None, content: Content::Text(word("so")) };
    vec![
        Body::Turn(Turn {
            input: parts(),
            output: word("out"),
            trigger: some("scheduled"),
            command: some("/x"),
            context: some("around"),
            stands_in: true,
            permission_mode: some("plan"),
            queued_ms: Some(7),
            instead_of: Some(2),
            planned_in: some("s"),
        }),
        Body::Agent(Agent {
            input: Content::Text(word("in")),
            output: word("out"),
            context: some("around"),
            agent_id: some("a"),
            agent_type: some("Explore"),
            workflow_run: some("run"),
            description: some("find"),
        }),
        Body::Generation(Box::new(Generation {
            input: vec![given, said],
            output: Some(Answer { text: word("text"), calls: vec![call], thinking: vec![word("hm")] }),
            closes: Some(Closing::Text(word("end"))),
            model: word("model"),
            usage: Some(usage),
            first_block: Some(u64::MAX),
            tool_count: Some(0),
            message_id: some("m"),
            request_id: some("r"),
            stop_reason: some("end_turn"),
            speed: some("fast"),
            service_tier: some("priority"),
            requested_model: some("other"),
            other_blocks: vec![format!(r#"{{"type":"x","y":"{TOKEN}"}}"#)],
            web_searches: 1,
            web_fetches: 2,
            role: some("advisor"),
            measured: Some(Measured {
                first_token_ms: Some(1),
                duration_ms: Some(2),
                attempts: Some(3),
                is_all: true,
                cost: Some(0.5),
            }),
        })),
        Body::Generation(Box::new(Generation { closes: Some(Closing::Answer), ..Generation::default() })),
        Body::Tool(Tool {
            id: word("t"),
            on_server: true,
            input: format!(r#"{{"a":"{TOKEN}"}}"#),
            output: Some(Output { text: word("so"), media: vec![(2, MediaRef::from(&medium()))] }),
            rewritten: some("b"),
            took_ms: Some(0),
            denied: some("user"),
            waited: Some(Waited {
                ran_ms: Some(1),
                permission_ms: Some(2),
                decision: some("accept"),
                decided_by: some("hook"),
            }),
        }),
        Body::Event(Event {
            said: Some(Content::Text(word("heard"))),
            details: vec![("trigger".into(), Detail::Name(word("auto"))), ("attempt".into(), Detail::Number(7))],
        }),
    ]
}

fn facts() -> TraceFacts {
    TraceFacts {
        session_id: word("s"),
        turn: 3,
        semantics: Semantics::Measured,
        user_id: some("ada"),
        tags: vec![word("one")],
        environment: some("e"),
        release: some("v"),
        metadata: [(word("key"), word("value"))].into(),
        claude_version: some("2.1"),
        slug: some("red-fox"),
        cwd: some("/home"),
        git_branch: some("main"),
        forked_from: some("s0"),
        title: some("title"),
        team: some("team"),
        teammate: some("mate"),
        lead: some("lead"),
        ..TraceFacts::default()
    }
}

fn items() -> Vec<Item> {
    let observation = |body| Observation {
        trace_id: [0xab; 16],
        span_id: [1; 8],
        parent: Some([2; 8]),
        name: word("name"),
        start: 1,
        end: u64::MAX,
        level: Level::Error,
        status: some("no"),
        failure: Some(Failure::Api(Some(529))),
        estimated: true,
        links: vec![Link { trace_id: [3; 16], span_id: [4; 8] }],
        body,
        ..Observation::default()
    };
    let item = |body| Item::Observation(Box::new(Stored { facts: facts().into(), observation: observation(body) }));
    bodies()
        .into_iter()
        .map(item)
        .chain([Item::Observation(Box::new(Stored {
            facts: TraceFacts::default().into(),
            observation: Observation::default(),
        }))])
        .collect()
}

#[test]
fn a_stored_observation_is_read_back_unchanged() {
    for item in items() {
        let body = item.body();
        assert_eq!(Item::parse(body.as_bytes()).unwrap(), item, "{body}");
        let json: Json = serde_json::from_str(&body).unwrap();
        assert_eq!((&json["facts"]["v"], &json["observation"]["v"]), (&json!(1), &json!(1)));
    }
}

#[test]
fn a_batch_is_parsed_as_its_bodies_are_one_by_one() {
    let other = TraceFacts { session_id: "other".into(), ..facts() };
    let mut bodies: Vec<String> = items().iter().map(Item::body).collect();
    bodies.push(super::body(&super::facts(&other), &Observation::default()));
    bodies.push(super::body(&super::facts(&facts()), &Observation::default()));
    // Other forms, and damage behind facts that are known already.
    bodies.push(serde_json::to_string(&crate::destination::wire::WireSpan::default()).unwrap());
    for (from, to) in
        [("}}", "}"), ("}}", "}}}"), ("}}", "},\"x\":1}"), ("\"observation\":{\"v\":1", "\"observation\":{\"v\":2")]
    {
        let whole = bodies[0].clone();
        let at = whole.rfind(from).unwrap();
        bodies.push(format!("{}{to}{}", &whole[..at], &whole[at + from.len()..]));
        bodies.push(whole);
    }
    let mut parser = Parser::default();
    let mut known = 0;
    for body in bodies.iter().chain(bodies.iter().rev()) {
        let before = parser.facts.as_ref().map(|(_, facts)| facts.clone());
        let (found, alone) = (parser.parse(body.as_bytes()), Item::parse(body.as_bytes()));
        assert_eq!(found.as_ref().ok(), alone.as_ref().ok(), "{body}");
        if let (Ok(Item::Observation(stored)), Some(before)) = (&found, before) {
            known += usize::from(Arc::ptr_eq(&stored.facts, &before));
        }
    }
    assert!(known > bodies.len(), "{known} of {} found their facts parsed", 2 * bodies.len());
}

#[test]
fn the_bytes_of_media_are_not_stored() {
    let observation = Observation { media: vec![(Field::Input, medium())], ..Observation::default() };
    let text = body(&super::facts(&TraceFacts::default()), &observation);
    let Item::Observation(stored) = Item::parse(text.as_bytes()).unwrap() else { panic!("{text}") };
    assert_eq!(stored.observation, Observation::default());
}

#[test]
fn bodies_of_unknown_form_are_errors() {
    let good = items().remove(0).body();
    for (from, to) in [
        (r#""observation":{"v":1"#, r#""observation":{"v":2"#),
        (r#""facts":{"v":1"#, r#""facts":{"v":0"#),
        (r#""span_id":"0101"#, r#""span_id":"zz01"#),
        (r#""turn":{"input""#, r#""chapter":{"input""#),
    ] {
        assert!(good.contains(from), "{from}");
        let bad = good.replacen(from, to, 1);
        assert!(Item::parse(bad.as_bytes()).is_err(), "{to}");
    }
    for bad in ["", "{", "{}", "[]", r#"{"facts":{}}"#] {
        assert!(Item::parse(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn a_span_stored_by_an_earlier_version_is_sent_unchanged() {
    let stored = json!({
        "trace_id": "ab".repeat(16), "span_id": "01".repeat(8), "parent_id": "00".repeat(8), "name": "Turn 1",
        "start_ns": 1, "end_ns": 2, "error": "no",
        "attributes": [["langfuse.trace.name", "Turn 1"], ["langfuse.trace.tags", ["a", "b"]]],
    });
    let item = Item::parse(stored.to_string().as_bytes()).unwrap();
    assert_eq!((item.trace_id(), item.span_id()), ([0xab; 16], [1; 8]));
    let span = item.encode(&langfuse());
    assert!(span.is_root() && span.name == "Turn 1" && (span.start_ns, span.end_ns) == (1, 2));
    assert_eq!(span.status, Status::Error("no".into()));
    let tags = Value::List(vec!["a".into(), "b".into()]);
    assert_eq!(span.attributes[1], ("langfuse.trace.tags".into(), tags));
    assert_eq!(serde_json::from_str::<Json>(&item.body()).unwrap(), stored);
    for (key, id) in [("trace_id", "00"), ("span_id", "zz00000000000000"), ("parent_id", "ééééé€")] {
        let mut bad = stored.clone();
        bad[key] = json!(id);
        assert!(Item::parse(bad.to_string().as_bytes()).is_err(), "{key} {id}");
    }
}

#[test]
fn every_text_field_is_masked() {
    let rules = Redactor::with_extra(&[("word".into(), TOKEN.into())]).unwrap();
    for item in items() {
        let Item::Observation(mut stored) = item else { panic!("an observation") };
        let had = Item::Observation(stored.clone()).body().matches(TOKEN).count() as u64;
        let mut counts = Counts::new();
        stored.observation.redact(&rules, &mut counts);
        Arc::make_mut(&mut stored.facts).redact(&rules, &mut counts);
        let body = Item::Observation(stored).body();
        assert!(!body.contains(TOKEN), "{body}");
        assert_eq!(counts.values().sum::<u64>(), had, "each once: {body}");
    }
}

#[test]
fn a_failed_observation_has_an_exception() {
    let mut observation = Observation { status: Some("exit 1".into()), ..Observation::default() };
    assert_eq!(observation.exception(), None);
    for (failure, kind) in
        [(Failure::Tool, "tool_error"), (Failure::NoResult, "no_result"), (Failure::Api(None), "api_error")]
    {
        observation.failure = Some(failure);
        assert_eq!(observation.exception(), Some((kind, "exit 1")));
    }
}
