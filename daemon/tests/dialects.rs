//! What MLflow and OTLP receivers get of recorded sessions: some compared in full with `tests/golden/`, and for every
//! recording the rules that suit every receiver.

#![allow(clippy::disallowed_methods, reason = "tests make and read their own files")]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use cc_core::{
    destination::{
        Destination, Kind,
        wire::{SpanKind, Status, Value, WireSpan},
    },
    ids::hex,
    observation::Body,
    pipeline::Outgoing,
    project::{Options, Semantics},
    redact::Rules,
};
use cc_langfuse::rebuild;
use serde_json::{Map, Value as Json, json};

/// To accept a wanted change: `GOLDEN=write cargo test -p daemon --test dialects`.
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden");

/// Recordings that are compared in full: parallel tools, errors of a tool and of the API, a subagent, an
/// image, a compaction.
const IN_FULL: [&str; 6] = ["parallel", "toolerr", "err529", "subagent_bg", "image", "compact"];

fn options() -> Options {
    Options {
        semantics: Semantics::Measured,
        environment: Some("staging".into()),
        release: Some("v7".into()),
        user_id: Some("ada".into()),
        tags: vec!["one".into(), "two".into()],
        metadata: [("team".to_owned(), "core".to_owned())].into(),
        ..Options::default()
    }
}

fn to(kind: Kind, account: &str) -> Destination {
    Destination { kind, address: "http://127.0.0.1:4318/v1/traces".into(), account: account.into() }
}

fn below(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

/// The observations of each recording, by name.
fn recordings(options: &Options) -> BTreeMap<String, Vec<Outgoing>> {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures");
    let mut found: BTreeMap<String, Vec<Outgoing>> = BTreeMap::new();
    for fixture in below(fixtures.as_ref()).into_iter().filter(|fixture| fixture.is_dir()) {
        let all = found.entry(fixture.file_name().unwrap().to_str().unwrap().to_owned()).or_default();
        let files = below(&fixture.join("projects")).into_iter().flat_map(|project| below(&project));
        for transcript in files.filter(|path| path.extension().is_some_and(|ext| ext == "jsonl")) {
            let session = transcript.file_stem().unwrap().to_str().unwrap();
            rebuild::turns(&transcript, session, options, &Rules::default(), |turn| all.extend(turn)).unwrap();
        }
        // If a root comes again, the last version counts.
        let mut last = BTreeMap::new();
        for (at, out) in all.iter().enumerate() {
            last.insert((out.observation.trace_id, out.observation.span_id), at);
        }
        let mut at = 0..;
        all.retain(|out| at.next().unwrap() == last[&(out.observation.trace_id, out.observation.span_id)]);
    }
    found
}

fn value(value: &Value) -> Json {
    match value {
        Value::Text(text) => json!(text),
        Value::List(items) => json!(items),
        Value::Bool(value) => json!(value),
        Value::Int(value) => json!(value),
        Value::Double(value) => json!(value),
    }
}

/// A span as text for a golden file.
fn shown(span: &WireSpan) -> Json {
    let attributes: Map<String, Json> =
        span.attributes.iter().map(|(key, found)| (key.to_string(), value(found))).collect();
    assert_eq!(attributes.len(), span.attributes.len(), "an attribute stands twice: {span:?}");
    let events: Vec<Json> = span
        .events
        .iter()
        .map(|event| {
            let attributes: Map<String, Json> =
                event.attributes.iter().map(|(key, found)| (key.to_string(), value(found))).collect();
            json!({"name": event.name, "at_ns": event.at_ns, "attributes": attributes})
        })
        .collect();
    let mut shown = json!({
        "trace_id": hex(&span.trace_id),
        "span_id": hex(&span.span_id),
        "parent_id": (!span.is_root()).then(|| hex(&span.parent_id)),
        "name": span.name,
        "kind": if span.kind == SpanKind::Client { "client" } else { "internal" },
        "start_ns": span.start_ns,
        "end_ns": span.end_ns,
        "status": if span.status == Status::Ok { "OK" } else { "ERROR" },
        "attributes": attributes,
    });
    if let Some(message) = span.status.error() {
        shown["message"] = json!(message);
        shown["events"] = json!(events);
    }
    shown
}

fn encoded(out: &Outgoing, to: &Destination) -> WireSpan {
    to.kind.backend().encode(to, &out.observation, &out.facts)
}

#[test]
fn recorded_sessions_reach_a_receiver_unchanged() {
    let recordings = recordings(&options());
    for (kind, account, names) in [
        (Kind::Otlp, "genai", &IN_FULL[..1]),
        (Kind::Otlp, "openinference", &IN_FULL[..1]),
        (Kind::Otlp, "both", &IN_FULL),
        (Kind::Mlflow, "0", &IN_FULL),
    ] {
        for name in names {
            let to = to(kind, account);
            let spans: Vec<Json> = recordings[*name].iter().map(|out| shown(&encoded(out, &to))).collect();
            let found = serde_json::to_string_pretty(&spans).unwrap() + "\n";
            let path = PathBuf::from(format!("{GOLDEN}/{}/{name}-{account}.json", kind.name()));
            if std::env::var("GOLDEN").is_ok_and(|value| value == "write") {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(&path, &found).unwrap();
            }
            let golden = std::fs::read_to_string(&path).unwrap();
            let different = found.lines().zip(golden.lines()).find(|(found, golden)| found != golden);
            assert!(found == golden, "{}: {different:#?}", path.display());
        }
    }
}

#[test]
fn the_rules_that_suit_every_receiver_hold_for_every_recording() {
    let mut seen = [0; 4];
    for semantics in [Semantics::Spec, Semantics::Measured] {
        for (name, found) in recordings(&Options { semantics, ..options() }) {
            let to = to(Kind::Otlp, "both");
            let bodies: BTreeMap<_, _> =
                found.iter().map(|out| (out.observation.span_id, &out.observation.body)).collect();
            for out in &found {
                let (span, observation) = (encoded(out, &to), &out.observation);
                let about = format!("{name}: {}", shown(&span));
                for key in [
                    "gen_ai.operation.name",
                    "gen_ai.conversation.id",
                    "gen_ai.agent.name",
                    "gen_ai.provider.name",
                    "session.id",
                    "openinference.span.kind",
                ] {
                    assert!(span.text(key).is_some_and(|text| !text.is_empty()), "{key} is missing in {about}");
                }
                assert!(span.attributes.iter().all(|(_, value)| *value != Value::Text(String::new())), "{about}");
                assert_eq!(span.status == Status::Ok, span.events.is_empty(), "{about}");
                let has = |key: &str| span.attributes.iter().any(|(found, _)| found.starts_with(key));
                let is_call = matches!(observation.body, Body::Generation(_));
                assert_eq!(has("gen_ai.request.model") && has("llm.model_name"), is_call, "{about}");
                assert!(
                    is_call || !has("gen_ai.usage.") && !has("llm.token_count.") && !has("gen_ai.response."),
                    "{about}"
                );
                assert_eq!(has("gen_ai.tool.name"), matches!(observation.body, Body::Tool(_)), "{about}");
                let above = bodies.get(&span.parent_id);
                assert!(!matches!(above, Some(Body::Generation(_))), "nothing stands below a call: {about}");
                match &observation.body {
                    Body::Turn(_) => {
                        assert!(span.is_root() && span.text("gen_ai.agent.name") == Some("claude-code"), "{about}");
                        seen[0] += 1;
                    }
                    Body::Generation(_) | Body::Event(_) => {
                        assert!(matches!(above, None | Some(Body::Turn(_) | Body::Agent(_))), "{about}")
                    }
                    Body::Tool(_) => {
                        assert!(matches!(above, None | Some(Body::Turn(_) | Body::Agent(_))), "{about}");
                        seen[1] += usize::from(above.is_some());
                    }
                    Body::Agent(_) => {
                        seen[2] += usize::from(matches!(above, Some(Body::Tool(_))));
                        assert!(
                            !span.is_root() && span.text("gen_ai.operation.name") == Some("invoke_agent"),
                            "{about}"
                        );
                    }
                }
                seen[3] += 1;
            }
        }
    }
    let [turns, tools, agents, all] = seen;
    assert!(
        turns > 80 && tools > 80 && agents > 20 && all > 600,
        "{turns} turns, {tools} tools, {agents} agents, {all} spans"
    );
}

#[test]
fn values_are_within_the_receivers_limit() {
    let mut longest = 0;
    for (name, found) in recordings(&options()) {
        for out in &found {
            let whole = encoded(out, &to(Kind::Otlp, "both"));
            let cut = encoded(out, &to(Kind::Otlp, "both,max=300,preset=newrelic,name=a,b"));
            assert_eq!(whole.attributes.len(), cut.attributes.len());
            for ((key, one), (_, other)) in whole.attributes.iter().zip(&cut.attributes) {
                longest = longest.max(one.len());
                assert!(other.len() <= 300 || matches!(other, Value::List(_)), "{name} {key}: {other:?}");
                assert!(one.len() > 300 || one == other, "{name} {key}: {other:?}");
            }
        }
    }
    assert!(longest > 10_000, "there is something to cut: {longest}");
}

#[test]
fn mlflow_gets_tools_beside_their_call_and_tokens_only_on_calls() {
    let (mut calls, mut priced) = (0, 0);
    for (name, found) in recordings(&options()) {
        let bodies: BTreeMap<_, _> = found.iter().map(|out| (out.observation.span_id, &out.observation.body)).collect();
        for out in &found {
            let span = encoded(out, &to(Kind::Mlflow, "0"));
            let about = format!("{name}: {}", shown(&span));
            assert!(
                !matches!(bodies.get(&span.parent_id), Some(Body::Generation(_))),
                "nothing stands below a call: {about}"
            );
            let (is_call, usage) =
                (matches!(out.observation.body, Body::Generation(_)), span.text("mlflow.chat.tokenUsage"));
            assert!(is_call || usage.is_none() && span.text("mlflow.llm.model").is_none(), "{about}");
            let cost = span.text("mlflow.llm.cost");
            assert_eq!(usage.is_some(), cost.is_some(), "every recorded model has a price: {about}");
            calls += usize::from(is_call);
            priced += usize::from(cost.is_some());
            for key in ["mlflow.spanInputs", "mlflow.spanOutputs", "mlflow.chat.tokenUsage", "mlflow.llm.cost"] {
                let is_json = |text: &str| serde_json::from_str::<Json>(text).is_ok();
                assert!(span.text(key).is_none_or(is_json), "{key} is JSON: {about}");
            }
            assert_eq!(span.status == Status::Ok, span.events.is_empty(), "{about}");
            assert!(span.text("session.id").is_some() && span.text("mlflow.spanType").is_some(), "{about}");
        }
    }
    assert!(calls > 100 && priced > 100, "{priced} of {calls}");
}
