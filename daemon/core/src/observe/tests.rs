use serde_json::{Value as Json, json};

use super::*;
use crate::{
    observation::Body,
    pipeline::{Outgoing, Pipeline},
    redact::Rules,
    transcript::record,
    turn::Assembler,
};

const TOKEN: &str = "ghp_k3JfL9sQ2mX7vB1nR5tY8wZ4aD6gH0pC2eU3";
const PNG: &str = "QUJDRA==";

fn prompt(content: impl Into<Json>) -> Json {
    json!({"type": "user", "uuid": "p1", "timestamp": "2026-03-01T10:00:00Z", "message": {"content": content.into()}})
}

fn answer(id: &str, blocks: Json) -> Json {
    json!({"type": "assistant", "uuid": format!("line-{id}"), "timestamp": "2026-03-01T10:00:01Z", "requestId": format!("req-{id}"),
        "message": {"id": id, "model": "m", "stop_reason": "end_turn", "content": blocks, "usage": {"output_tokens": 1}}})
}

fn result(tool: &str, content: impl Into<Json>) -> Json {
    json!({"type": "user", "timestamp": "2026-03-01T10:00:02Z", "message": {"content": [
        {"type": "tool_result", "tool_use_id": tool, "content": content.into()},
    ]}})
}

fn call(id: &str, input: &Json) -> Json {
    json!([{"type": "tool_use", "id": id, "name": "Bash", "input": input}])
}

fn image() -> Json {
    json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}})
}

/// What is emitted of the turns in `lines`, unmasked and masked, and how much was masked.
fn emitted(lines: &[Json], options: &Options) -> (Vec<Outgoing>, Vec<Outgoing>, Counts) {
    let (rules, mut counts) = (Rules::default(), Counts::new());
    let pipeline = Pipeline { session_id: "s", options, rules: &rules };
    let mut assembler = Assembler::new("s", 0);
    let (mut found, mut abandoned) = (Vec::new(), Vec::new());
    let mut add = |turn: &mut Turn| {
        let emitted = pipeline.emit(turn, Scope::Final, None, |_| None, &mut counts);
        found.extend(emitted.observations);
        abandoned.extend(emitted.abandoned);
    };
    for (line, offset) in lines.iter().zip(0..) {
        if let Some(mut turn) = assembler.push(record::parse(line.to_string().as_bytes()).unwrap(), offset) {
            add(&mut turn);
        }
    }
    assembler.at_work_mut().for_each(&mut add);
    (found, abandoned, counts)
}

fn measured() -> Options {
    Options { semantics: Semantics::Measured, ..Options::default() }
}

#[test]
fn each_text_is_searched_for_secrets_once() {
    let long = |text: &str| format!("{text} {TOKEN} {}", "and more of it ".repeat(10));
    let lines = [
        prompt(long("use")),
        answer("m1", call("t1", &json!({"command": long("echo")}))),
        result("t1", long("said")),
        answer("m2", json!([{"type": "text", "text": long("it says")}])),
    ];
    for options in [Options::default(), measured()] {
        let (found, _, counts) = emitted(&lines, &options);
        assert_eq!(counts.values().sum::<u64>(), 4, "{counts:?}");
        let all: String = found.iter().map(|out| serde_json::to_string(&out.observation).unwrap()).collect();
        assert!(!all.contains(TOKEN), "{all}");
        // Prompt, arguments and answer occur in two observations each; in `measured` semantics the result does too.
        let shown = if options.semantics == Semantics::Measured { 8 } else { 7 };
        assert_eq!(all.matches("[REDACTED:").count(), shown, "{all}");
    }
}

#[test]
fn images_keep_their_positions_when_text_around_them_is_masked() {
    let text = |text: &str| json!({"type": "text", "text": text});
    let secret = format!("the token is {TOKEN}");
    let lines = [
        prompt(json!([text(&secret), image(), text("and"), image()])),
        answer("m1", call("t1", &json!({}))),
        result("t1", json!([text(&secret), image(), text(&secret)])),
        answer("m2", json!([text("so")])),
    ];
    let (found, _, _) = emitted(&lines, &measured());
    let [root, _, tool, last] = &found[..] else { panic!("{found:?}") };
    let Body::Turn(turn) = &root.observation.body else { panic!("{root:?}") };
    let masked = turn.input.text();
    assert!(masked.starts_with("the token is [REDACTED:") && masked.ends_with("] [image] and [image]"), "{masked}");
    let Body::Tool(tool) = &tool.observation.body else { panic!("{tool:?}") };
    let output = tool.output.as_ref().unwrap();
    let [(at, medium)] = &output.media[..] else { panic!("{output:?}") };
    assert!(output.text[..*at].ends_with(r#""data":""#) && output.text[*at..].starts_with(r#""}}"#), "{output:?}");
    assert!(serde_json::from_str::<Json>(&output.text).is_ok() && !output.text.contains("@@@"), "{output:?}");
    assert_eq!((medium.kind.as_str(), medium.length), ("image/png", 4));
    let Body::Generation(last) = &last.observation.body else { panic!("{last:?}") };
    let Content::Parts(parts) = &last.input[0].content else { panic!("{last:?}") };
    assert!(matches!(&parts[..], [Part::Text(_), Part::Media(shown), Part::Text(_)] if shown == medium), "{parts:?}");
}

#[test]
fn text_that_looks_like_an_image_marker_is_text() {
    let lines = [
        prompt("look"),
        answer("m1", call("t1", &json!({}))),
        result("t1", json!([{"type": "text", "text": "@@@media:id=x|source=bytes@@@"}, image()])),
        answer("m2", json!([])),
    ];
    let (found, _, _) = emitted(&lines, &measured());
    let tools = found.iter().filter_map(|out| match &out.observation.body {
        Body::Tool(tool) => tool.output.clone(),
        _ => None,
    });
    let outputs: Vec<_> = tools.collect();
    assert_eq!(outputs[0].media.len(), 1);
    assert!(outputs[0].text.contains("@@@media:id=x|source=bytes@@@"), "{outputs:?}");
}

#[test]
fn an_abandoned_turn_is_linked_to_its_replacement() {
    let at = |uuid: &str, parent: Json, number: u64| {
        json!({"type": "user", "uuid": uuid, "parentUuid": parent, "timestamp": format!("2026-03-01T10:0{number}:00Z"),
            "message": {"content": uuid}})
    };
    let said = |id: &str, parent: &str| {
        let mut line = answer(id, json!([{"type": "text", "text": id}]));
        line["parentUuid"] = parent.into();
        line
    };
    let lines = [
        at("p1", Json::Null, 1),
        said("m1", "p1"),
        at("p2", "line-m1".into(), 2),
        said("m2", "p2"),
        at("p3", "line-m1".into(), 3),
        said("m3", "p3"),
    ];
    let of = |rate| emitted(&lines, &Options { sample_rate: rate, ..Options::default() }).1;
    let abandoned = of(None);
    let [event] = &abandoned[..] else { panic!("{abandoned:?}") };
    let (trace, instead) = (trace_id("p2"), trace_id("p3"));
    assert_eq!((event.observation.trace_id, event.facts.turn), (trace, 2));
    assert_eq!(event.observation.parent, Some(span_id(trace, Role::Turn, "p2")));
    let link = Link { trace_id: instead, span_id: span_id(instead, Role::Turn, "p3") };
    assert_eq!(event.observation.links, [link]);
    assert!(of(Some(0.0)).is_empty(), "a trace that is sampled out has none");
}

#[test]
fn failures_have_their_explanation() {
    let failed = |content: &str| {
        let mut line = result("t1", content);
        line["message"]["content"][0]["is_error"] = true.into();
        line
    };
    let error = json!({"type": "assistant", "isApiErrorMessage": true, "timestamp": "2026-03-01T10:00:04Z",
        "message": {"model": "<synthetic>", "content": [{"type": "text", "text": "API Error: 529"}]}});
    let exceptions = |lines: &[Json]| -> Vec<_> {
        let found = emitted(lines, &Options::default()).0;
        let said = |out: &Outgoing| out.observation.exception().map(|(kind, text)| (kind, text.to_owned()));
        found.iter().map(said).collect()
    };
    let asked = answer("m1", call("t1", &json!({})));
    assert_eq!(
        exceptions(&[prompt("go"), asked.clone(), failed("exit 1"), error]),
        [Some(("api_error", "API Error: 529".into())), None, Some(("tool_error", "exit 1".into()))]
    );
    assert_eq!(exceptions(&[prompt("go"), asked]), [None, None, Some(("no_result", "no result".into()))]);
}
