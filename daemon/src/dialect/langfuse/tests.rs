use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value as Json, json};

use super::*;
use crate::{
    ids::{Role, span_id, trace_id},
    offline,
    redact::Rules,
    trace::{Event, spans},
    transcript::record,
    turn::{Assembler, Scope},
};

const SESSION: &str = "session-1";

fn prompt() -> Json {
    json!({"type": "user", "uuid": "p1", "timestamp": "2026-03-01T10:00:00Z", "version": "2.1.0", "cwd": "/home/dev/app",
        "gitBranch": "main", "slug": "red-fox", "message": {"content": "count \"a\" & <b>"}})
}

fn answer(id: &str, blocks: Json, usage: Json) -> Json {
    json!({"type": "assistant", "uuid": format!("line-{id}"), "timestamp": "2026-03-01T10:00:01.500Z", "requestId": format!("req-{id}"),
        "message": {"id": id, "model": "claude-haiku-4-5", "stop_reason": "end_turn", "content": blocks, "usage": usage}})
}

fn text(text: &str) -> Json {
    json!([{"type": "text", "text": text}])
}

fn result(tool: &str, content: Json, is_error: bool) -> Json {
    json!({"type": "user", "timestamp": "2026-03-01T10:00:02Z", "message": {"content": [
        {"type": "tool_result", "tool_use_id": tool, "content": content, "is_error": is_error},
    ]}})
}

/// One turn of two answers and one tool.
fn conversation() -> Vec<Json> {
    let asks = json!([
        {"type": "thinking", "thinking": "first look", "signature": "s"},
        {"type": "text", "text": "I will count."},
        {"type": "tool_use", "id": "t1", "name": "Bash", "input": {"command": "wc"}},
    ]);
    let usage = json!({"input_tokens": 10, "output_tokens": 20, "cache_read_input_tokens": 30, "cache_creation_input_tokens": 60,
        "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20}});
    vec![
        prompt(),
        answer("m1", asks, usage),
        result("t1", json!("3"), false),
        answer("m2", text("Three."), json!({"input_tokens": 1, "output_tokens": 2})),
    ]
}

/// The spans of the one turn in `lines`, as they are sent.
fn encoded(lines: &[Json], options: &Options) -> Vec<OutSpan> {
    let mut assembler = Assembler::new(SESSION, 0);
    for (line, offset) in lines.iter().zip(0..) {
        assert!(assembler.push(record::parse(line.to_string().as_bytes()).unwrap(), offset).is_none());
    }
    let turn = assembler.open().unwrap();
    let shared = Shared::new(turn, SESSION, options);
    spans(turn, Scope::Final, options.semantics, None).iter().map(|span| shared.encode(span)).collect()
}

/// What stands on `span` alone: its attributes without those that every span has.
fn own(span: &OutSpan) -> BTreeMap<&str, &str> {
    let shared = |key: &str| {
        key.starts_with("langfuse.trace.") && !matches!(key, "langfuse.trace.input" | "langfuse.trace.output")
            || matches!(
                key,
                "session.id" | "user.id" | "langfuse.version" | "langfuse.release" | "langfuse.environment"
            )
    };
    let own = span.attributes.iter().filter(|(key, _)| !shared(key));
    own.map(|(key, _)| (&key[..], span.text(key).unwrap())).collect()
}

fn parsed(span: &OutSpan, key: &str) -> Json {
    serde_json::from_str(span.text(key).unwrap_or_else(|| panic!("no {key}"))).unwrap()
}

fn full() -> Options {
    Options {
        unredacted: false,
        semantics: Semantics::Spec,
        environment: Some("staging".into()),
        release: Some("v7".into()),
        user_id: Some("ada".into()),
        tags: vec!["one".into(), "two".into()],
        metadata: [("team".to_owned(), "tools".to_owned())].into(),
        sample_rate: None,
        capture: Capture::Full,
    }
}

#[test]
fn what_describes_the_trace_stands_on_every_span() {
    let spans = encoded(&conversation(), &full());
    assert_eq!(spans.len(), 4);
    let expect = [
        ("session.id", "session-1"),
        ("langfuse.trace.name", "Turn 1"),
        ("user.id", "ada"),
        ("langfuse.version", "2.1.0"),
        ("langfuse.release", "v7"),
        ("langfuse.environment", "staging"),
        ("langfuse.trace.metadata.team", "tools"),
        ("langfuse.trace.metadata.source", "claude-code"),
        ("langfuse.trace.metadata.turn_number", "1"),
        ("langfuse.trace.metadata.session_id", "session-1"),
        ("langfuse.trace.metadata.version", "2.1.0"),
        ("langfuse.trace.metadata.slug", "red-fox"),
        ("langfuse.trace.metadata.cwd", "/home/dev/app"),
        ("langfuse.trace.metadata.git_branch", "main"),
    ];
    for span in &spans {
        for (key, value) in expect {
            assert_eq!(span.text(key), Some(value), "{key} of {}", span.name);
        }
        let tags = ("langfuse.trace.tags".into(), Value::List(vec!["one".into(), "two".into()]));
        assert!(span.attributes.contains(&tags), "{}", span.name);
        assert_eq!(span.attributes.len() - own(span).len(), expect.len() + 1, "{}", span.name);
    }
}

#[test]
fn what_is_not_known_is_left_out() {
    let lines =
        [json!({"type": "user", "message": {"content": "hi"}}), json!({"type": "assistant", "message": {"id": "m"}})];
    for span in encoded(&lines, &Options::default()) {
        let keys: Vec<_> =
            span.attributes.iter().map(|(key, _)| &key[..]).filter(|key| !own(&span).contains_key(key)).collect();
        let expect = [
            "session.id",
            "langfuse.trace.name",
            "langfuse.trace.metadata.source",
            "langfuse.trace.metadata.turn_number",
            "langfuse.trace.metadata.session_id",
        ];
        assert_eq!(keys, expect);
        assert!(span.attributes.iter().all(|(_, value)| *value != Value::List(Vec::new())), "no empty list");
    }
}

#[test]
fn every_turn_of_a_file_belongs_to_its_session_whatever_its_lines_say() {
    let mut lines = conversation();
    lines[0]["sessionId"] = json!("session-0");
    for span in encoded(&lines, &full()) {
        assert_eq!(span.text("session.id"), Some(SESSION));
        assert_eq!(span.text("langfuse.trace.metadata.session_id"), Some(SESSION));
    }
}

#[test]
fn the_root_is_an_agent_with_the_words_of_user_and_model() {
    let spans = encoded(&conversation(), &full());
    let user = json!({"role": "user", "content": "count \"a\" & <b>"}).as_object().cloned();
    let model = json!({"role": "assistant", "content": "Three."}).as_object().cloned();
    for (key, expect) in [
        ("langfuse.trace.input", &user),
        ("langfuse.trace.output", &model),
        ("langfuse.observation.input", &user),
        ("langfuse.observation.output", &model),
    ] {
        assert_eq!(parsed(&spans[0], key).as_object(), expect.as_ref(), "{key}");
    }
    assert_eq!(own(&spans[0]).len(), 5);
    assert_eq!(spans[0].text("langfuse.observation.type"), Some("agent"));
    assert!(spans[0].is_root());
    for span in &spans[1..] {
        assert!(!span.is_root());
        assert!(span.text("langfuse.trace.input").is_none() && span.text("langfuse.trace.output").is_none());
    }
}

#[test]
fn a_message_is_written_role_first() {
    let spans = encoded(&conversation(), &full());
    assert_eq!(spans[0].text("langfuse.trace.output"), Some(r#"{"role":"assistant","content":"Three."}"#));
}

#[test]
fn a_generation_has_model_usage_and_the_answer_in_the_shape_of_a_chat() {
    let spans = encoded(&conversation(), &full());
    let expect: BTreeMap<&str, Json> = [
        ("langfuse.observation.input", json!({"role": "user", "content": "count \"a\" & <b>"})),
        (
            "langfuse.observation.output",
            json!({"role": "assistant", "content": "I will count.",
                "tool_calls": [{"id": "t1", "type": "function", "function": {"name": "Bash", "arguments": "{\"command\":\"wc\"}"}}],
                "thinking": [{"type": "thinking", "content": "first look"}]}),
        ),
        (
            "langfuse.observation.usage_details",
            json!({"input": 10, "output": 20, "total": 30, "cache_read_input_tokens": 30, "input_cache_creation_5m": 10,
                "input_cache_creation_1h": 20, "input_cache_creation": 30}),
        ),
    ]
    .into();
    for (key, value) in &expect {
        assert_eq!(&parsed(&spans[1], key), value, "{key}");
    }
    let mut rest = own(&spans[1]);
    rest.retain(|key, _| !expect.contains_key(key));
    let plain = [
        ("langfuse.observation.type", "generation"),
        ("langfuse.observation.model.name", "claude-haiku-4-5"),
        ("langfuse.observation.metadata.tool_count", "1"),
        ("langfuse.observation.metadata.message_id", "m1"),
        ("langfuse.observation.metadata.request_id", "req-m1"),
        ("langfuse.observation.metadata.stop_reason", "end_turn"),
    ];
    assert_eq!(rest, plain.into());
}

#[test]
fn only_the_first_generation_of_a_turn_has_an_input() {
    let spans = encoded(&conversation(), &full());
    let generations: Vec<_> =
        spans.iter().filter(|span| span.text("langfuse.observation.type") == Some("generation")).collect();
    let inputs: Vec<_> = generations.iter().map(|span| span.text("langfuse.observation.input").is_some()).collect();
    assert_eq!(inputs, [true, false]);
    assert_eq!(generations[1].text("langfuse.observation.output"), Some(r#"{"role":"assistant","content":"Three."}"#));
}

#[test]
fn a_generation_without_text_still_has_an_output() {
    let blocks =
        json!([{"type": "thinking", "thinking": ""}, {"type": "tool_use", "id": "t1", "name": "Bash", "input": {}}]);
    let spans = encoded(&[prompt(), answer("m1", blocks, json!(null))], &full());
    let output = parsed(&spans[1], "langfuse.observation.output");
    assert_eq!(output["content"], json!(""));
    assert_eq!(output.get("thinking"), None, "an empty thought is none");
}

#[test]
fn a_tool_has_its_arguments_and_its_result() {
    let expect = [
        ("langfuse.observation.type", "tool"),
        ("langfuse.observation.input", "{\"command\":\"wc\"}"),
        ("langfuse.observation.output", "3"),
        ("langfuse.observation.metadata.tool_name", "Bash"),
        ("langfuse.observation.metadata.tool_id", "t1"),
    ];
    let tool = &encoded(&conversation(), &full())[2];
    assert_eq!((own(tool), tool.name.as_str(), tool.error.as_deref()), (expect.into(), "Bash", None));
}

#[test]
fn a_tool_that_failed_says_why_and_one_that_never_returned_has_no_output() {
    let blocks = json!([
        {"type": "tool_use", "id": "t1", "name": "Bash", "input": {}},
        {"type": "tool_use", "id": "t2", "name": "Read", "input": {}},
    ]);
    let lines = [prompt(), answer("m1", blocks, json!({})), result("t1", json!("Exit code 1"), true)];
    let spans = encoded(&lines, &full());
    let of = |span: &OutSpan| {
        let text = |key: &str| span.text(&format!("langfuse.observation.{key}")).map(str::to_owned);
        (text("level"), text("status_message"), text("output"), text("metadata.timing"), span.error.clone())
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(of(&spans[1]).0, None, "the call itself went well");
    assert_eq!(of(&spans[2]), (some("ERROR"), some("Exit code 1"), some("Exit code 1"), None, some("Exit code 1")));
    assert_eq!(of(&spans[3]), (some("WARNING"), some("no result"), None, some("estimated"), None));
}

#[test]
fn an_error_in_place_of_the_answer_is_the_roots_output_and_level() {
    let error = json!({"type": "assistant", "isApiErrorMessage": true, "timestamp": "2026-03-01T10:00:01Z",
        "message": {"model": "<synthetic>", "content": text("API Error: 529")}});
    let spans = encoded(&[prompt(), error], &full());
    assert_eq!(spans.len(), 1);
    assert_eq!(spans[0].text("langfuse.observation.level"), Some("ERROR"));
    assert_eq!(spans[0].text("langfuse.observation.status_message"), Some("API Error: 529"));
    assert_eq!(spans[0].error.as_deref(), Some("API Error: 529"));
    assert_eq!(spans[0].text("langfuse.trace.output"), Some(r#"{"role":"assistant","content":"API Error: 529"}"#));
}

#[test]
fn times_ids_name_and_events_are_taken_over() {
    let mut lines = conversation();
    let queued = json!({"type": "attachment", "timestamp": "2026-03-01T10:00:01Z", "attachment": {"type": "queued_command", "prompt": "also"}});
    lines.insert(1, queued);
    let spans = encoded(&lines, &full());
    let root = &spans[0];
    let second = 1_000_000_000;
    let start = 1_772_359_200 * second;
    assert_eq!((root.name.as_str(), root.start_ns, root.end_ns), ("Turn 1", start, start + 2 * second));
    let trace = trace_id("p1");
    assert_eq!((root.trace_id, root.span_id, root.parent_id), (trace, span_id(trace, Role::Turn, "p1"), [0; 8]));
    let also =
        Event { name: "queued prompt".into(), at: start + second, attributes: vec![("text".into(), "also".into())] };
    assert_eq!(root.events, [also]);
    assert_eq!(spans[1].parent_id, root.span_id);
    assert_eq!(spans[2].parent_id, spans[1].span_id);
    assert!(spans[1..].iter().all(|span| span.events.is_empty() && span.trace_id == trace));
}

#[test]
fn how_a_turn_came_about_is_said_if_it_was_not_typed_as_it_stands() {
    for (content, expect) in [
        ("hello", None),
        ("<command-message>plan</command-message><command-name>/plan</command-name>", Some("command")),
        ("<bash-input>ls</bash-input>", Some("command")),
        ("<task-notification>done</task-notification>", Some("task-notification")),
    ] {
        let mut line = prompt();
        line["message"]["content"] = json!(content);
        let spans = encoded(&[line, answer("m1", text("x"), json!({}))], &full());
        assert_eq!(spans[0].text("langfuse.observation.metadata.trigger"), expect, "{content}");
    }
}

#[test]
fn every_token_is_in_one_bucket_and_empty_buckets_of_the_cache_are_left_out() {
    let usage = |input, output| Usage { input, output, ..Usage::default() };
    for (usage, semantics, expect) in [
        (usage(1, 2), Semantics::Spec, json!({"input": 1, "output": 2, "total": 3})),
        (usage(0, 0), Semantics::Spec, json!({"input": 0, "output": 0, "total": 0})),
        (usage(1, 2), Semantics::Measured, json!({"input": 1, "output": 2})),
        (
            Usage { cache_read: 4, ..usage(1, 2) },
            Semantics::Spec,
            json!({"input": 1, "output": 2, "total": 3, "cache_read_input_tokens": 4}),
        ),
        (
            Usage { cache_creation: 9, ..usage(1, 2) },
            Semantics::Measured,
            json!({"input": 1, "output": 2, "input_cache_creation": 9}),
        ),
        (
            Usage { cache_creation: 9, cache_creation_5m: 9, ..usage(1, 2) },
            Semantics::Measured,
            json!({"input": 1, "output": 2, "input_cache_creation_5m": 9}),
        ),
        (
            Usage { cache_creation: 9, cache_creation_1h: 7, ..usage(1, 2) },
            Semantics::Measured,
            json!({"input": 1, "output": 2, "input_cache_creation_1h": 7, "input_cache_creation": 2}),
        ),
        (usage(u64::MAX, 2), Semantics::Spec, json!({"input": u64::MAX, "output": 2, "total": u64::MAX})),
    ] {
        let found: Json = serde_json::from_str(&usage_details(usage, semantics)).unwrap();
        assert_eq!(found, expect);
    }
}

#[test]
fn without_usage_there_is_no_model_name_for_the_server_to_charge_for() {
    let spans = encoded(&[prompt(), answer("m1", text("x"), json!(null))], &full());
    let found = own(&spans[1]);
    assert!(!found.contains_key("langfuse.observation.model.name"));
    assert!(!found.contains_key("langfuse.observation.usage_details"));
    assert_eq!(found["langfuse.observation.metadata.model"], "claude-haiku-4-5");
    assert_eq!(spans[1].name, "claude-haiku-4-5");
}

#[test]
fn the_marker_of_the_long_context_is_no_part_of_the_model_name() {
    for (name, sent, meta) in [
        ("claude-haiku-4-5", "claude-haiku-4-5", None),
        ("claude-haiku-4-5[1m]", "claude-haiku-4-5", Some("claude-haiku-4-5[1m]")),
        ("claude-opus-4-5-20251101", "claude-opus-4-5-20251101", None),
        ("[1m]-odd", "[1m]-odd", None),
    ] {
        let mut line = answer("m1", text("x"), json!({"output_tokens": 1}));
        line["message"]["model"] = json!(name);
        let spans = encoded(&[prompt(), line], &full());
        assert_eq!(spans[1].name, name);
        assert_eq!(spans[1].text("langfuse.observation.model.name"), Some(sent));
        assert_eq!(spans[1].text("langfuse.observation.metadata.model"), meta);
    }
}

#[test]
fn no_key_is_sent_twice() {
    for (lines, options) in
        [(conversation(), full()), (conversation(), Options { semantics: Semantics::Measured, ..Options::default() })]
    {
        for span in encoded(&lines, &options) {
            let mut keys: Vec<_> = span.attributes.iter().map(|(key, _)| key).collect();
            keys.sort_unstable();
            assert!(keys.windows(2).all(|pair| pair[0] != pair[1]), "{keys:?}");
        }
    }
}

#[test]
fn no_key_is_sent_twice_in_odd_cases_either() {
    let mut long = answer("m1", text("x"), json!(null));
    long["message"]["model"] = json!("claude-haiku-4-5[1m]");
    let own_source = Options { metadata: [("source".to_owned(), "mine".to_owned())].into(), ..full() };
    for (lines, options) in [(vec![prompt(), long], full()), (conversation(), own_source)] {
        for span in encoded(&lines, &options) {
            let mut keys: Vec<_> = span.attributes.iter().map(|(key, _)| key).collect();
            keys.sort_unstable();
            assert!(keys.windows(2).all(|pair| pair[0] != pair[1]), "{keys:?}");
        }
    }
}

#[test]
fn measured_says_when_the_first_block_was_there() {
    let key = "langfuse.observation.completion_start_time";
    let measured = Options { semantics: Semantics::Measured, ..full() };
    assert_eq!(encoded(&conversation(), &measured)[1].text(key), Some("2026-03-01T10:00:01.5Z"));
    assert!(encoded(&conversation(), &full()).iter().all(|span| span.text(key).is_none()));
}

#[test]
fn a_guessed_time_is_marked() {
    let key = "langfuse.observation.metadata.timing";
    assert!(encoded(&conversation(), &full()).iter().all(|span| span.text(key).is_none()));
    let mut lines = conversation();
    for line in &mut lines {
        line["timestamp"] = json!(null);
    }
    assert!(encoded(&lines, &full()).iter().all(|span| span.text(key) == Some("estimated")));
}

#[test]
fn an_environment_is_one_the_server_accepts_or_none() {
    let longest = "a".repeat(40);
    for (name, expect) in [
        ("production", Some("production")),
        (" Prod-2_b ", Some("prod-2_b")),
        ("", None),
        ("  ", None),
        ("Prod West!", None),
        ("langfuse-prod", None),
        ("LANGFUSE", None),
        ("my-langfuse", Some("my-langfuse")),
        ("größe", None),
        (longest.as_str(), Some(longest.as_str())),
        (&"a".repeat(41), None),
    ] {
        assert_eq!(environment(name).as_deref(), expect, "{name:?}");
    }
}

#[test]
fn ids_of_users_sessions_and_releases_have_at_most_200_characters() {
    let long = "ä".repeat(300);
    let options = Options { user_id: Some(long.clone()), release: Some(long.clone()), ..full() };
    let mut assembler = Assembler::new(&long, 0);
    for line in &conversation() {
        assembler.push(record::parse(line.to_string().as_bytes()).unwrap(), 0);
    }
    let shared = Shared::new(assembler.open().unwrap(), &long, &options);
    let found = spans(assembler.open().unwrap(), Scope::Final, Semantics::Spec, None);
    let span = shared.encode(&found[0]);
    for key in ["session.id", "user.id", "langfuse.release"] {
        assert_eq!(span.text(key).map(|text| text.chars().count()), Some(200), "{key}");
    }
    assert_eq!(span.text("langfuse.trace.metadata.session_id"), Some(long.as_str()), "metadata keeps it whole");
}

#[test]
fn a_stored_span_comes_back_as_it_was() {
    for span in encoded(&conversation(), &full()) {
        let stored = serde_json::to_string(&span).unwrap();
        // The call matters on the way into the outbox only.
        assert_eq!(
            serde_json::from_str::<OutSpan>(&stored).unwrap(),
            OutSpan { call: None, media: Vec::new(), ..span }
        );
    }
    let good = serde_json::to_value(&encoded(&conversation(), &full())[0]).unwrap();
    for (key, id) in [("trace_id", "00"), ("span_id", "zz00000000000000"), ("parent_id", "ééééé€")] {
        let mut bad = good.clone();
        bad[key] = json!(id);
        assert!(serde_json::from_value::<OutSpan>(bad).is_err(), "{key} {id}");
    }
}

fn sizes_only() -> Options {
    Options { capture: Capture::Metadata, ..Options::default() }
}

#[test]
fn without_text_a_span_says_how_much_was_said() {
    let spans = encoded(&conversation(), &sizes_only());
    let [turn, first, tool, second] = &spans[..] else { panic!("{}", spans.len()) };
    assert_eq!(parsed(turn, "langfuse.observation.input"), json!({"role": "user", "content": "[15 characters]"}));
    assert_eq!(parsed(turn, "langfuse.trace.output"), json!({"role": "assistant", "content": "[6 characters]"}));
    let call = json!({"id": "t1", "type": "function", "function": {"name": "Bash", "arguments": "[16 characters]"}});
    let thinking = json!({"type": "thinking", "content": "[10 characters]"});
    let said = json!({"role": "assistant", "content": "[13 characters]", "tool_calls": [call], "thinking": [thinking]});
    assert_eq!(parsed(first, "langfuse.observation.output"), said);
    assert_eq!(tool.text("langfuse.observation.input"), Some("[16 characters]"));
    assert_eq!(tool.text("langfuse.observation.output"), Some("[1 characters]"));
    // Whatever is no text is the same.
    for (spans, full) in spans.iter().zip(encoded(&conversation(), &Options::default())) {
        let meta = |span: &OutSpan| -> Vec<_> {
            let is_text = |key: &str| key.ends_with(".input") || key.ends_with(".output");
            span.attributes.iter().filter(|(key, _)| !is_text(key)).cloned().collect()
        };
        assert_eq!(meta(spans), meta(&full));
        assert_eq!((&spans.name, spans.start_ns, spans.end_ns), (&full.name, full.start_ns, full.end_ns));
    }
    assert!(second.text("langfuse.observation.usage_details").is_some());
}

#[test]
fn without_text_errors_and_queued_prompts_are_sizes_too() {
    let queued = json!({"type": "attachment", "timestamp": "2026-03-01T10:00:01.700Z",
        "attachment": {"type": "queued_command", "prompt": "also the tests"}});
    let mut lines = conversation();
    lines[2] = result("t1", json!("permission denied: /etc/shadow"), true);
    lines.insert(3, queued);
    let spans = encoded(&lines, &sizes_only());
    let queued = ("text".to_owned(), "[14 characters]".to_owned());
    assert!(spans[0].events.iter().any(|event| event.attributes.contains(&queued)), "{:?}", spans[0].events);
    let failed = &spans[2];
    assert_eq!(failed.text("langfuse.observation.level"), Some("ERROR"));
    assert_eq!(failed.text("langfuse.observation.status_message"), Some("[30 characters]"));
    assert_eq!(failed.error.as_deref(), Some("[30 characters]"));
    // Our own words stay.
    lines.truncate(2);
    let waiting = encoded(&lines, &sizes_only());
    assert_eq!(waiting[2].text("langfuse.observation.status_message"), Some("no result"));
}

#[test]
fn without_text_a_subagent_says_what_kind_it_is_and_no_more() {
    let input = json!({"subagent_type": "Explore", "description": "Find the leak", "prompt": "look for leaks"});
    let order = json!([{"type": "tool_use", "id": "t1", "name": "Task", "input": input}]);
    let side = |mut line: Json, uuid: &str, parent: Json| {
        line["isSidechain"] = true.into();
        line["uuid"] = uuid.into();
        line["parentUuid"] = parent;
        line
    };
    let asked =
        json!({"type": "user", "timestamp": "2026-03-01T10:00:01.600Z", "message": {"content": "look for leaks"}});
    let lines = [
        prompt(),
        answer("m1", order, json!({"input_tokens": 1, "output_tokens": 2})),
        side(asked, "s1", Json::Null),
        side(answer("m2", text("No leaks."), json!({"input_tokens": 1, "output_tokens": 2})), "s2", "s1".into()),
        result("t1", json!("No leaks."), false),
    ];
    let agent = |options: &Options| {
        let spans = encoded(&lines, options);
        spans.into_iter().find(|span| span.name == "Explore").expect("the subagent")
    };
    let said = |span: &OutSpan| {
        let keys = ["input", "output", "metadata.description", "metadata.agent_type"];
        keys.map(|key| span.text(&format!("langfuse.observation.{key}")).unwrap_or_default().to_owned())
    };
    assert_eq!(said(&agent(&Options::default()))[2], "Find the leak");
    assert_eq!(
        said(&agent(&sizes_only())),
        [
            r#"{"role":"user","content":"[14 characters]"}"#,
            r#"{"role":"assistant","content":"[9 characters]"}"#,
            "[13 characters]",
            "Explore",
        ]
    );
}

/// Words of six letters or more.
fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphabetic()).filter(|word| word.chars().count() >= 6).map(str::to_lowercase)
}

fn strings<'j>(json: &'j Json, each: &mut impl FnMut(&'j str)) {
    match json {
        Json::String(text) => each(text),
        Json::Array(items) => items.iter().for_each(|item| strings(item, each)),
        Json::Object(members) => members.iter().for_each(|(key, value)| {
            each(key);
            strings(value, each);
        }),
        _ => {}
    }
}

/// All that a span says, but for the names of its attributes.
fn sent(span: &OutSpan) -> String {
    let mut texts = vec![span.name.as_str(), span.error.as_deref().unwrap_or_default()];
    for (_, value) in &span.attributes {
        match value {
            Value::Text(text) => texts.push(text),
            Value::List(items) => texts.extend(items.iter().map(String::as_str)),
        }
    }
    for event in &span.events {
        texts.push(&event.name);
        texts.extend(event.attributes.iter().map(|(_, value)| value.as_str()));
    }
    texts.join("\n")
}

#[test]
fn without_text_no_word_of_any_recorded_session_leaves() {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures");
    let below = |dir: std::path::PathBuf| std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let transcripts: Vec<_> = below(fixtures.into())
        .filter(|fixture| fixture.is_dir())
        .flat_map(|fixture| below(fixture.join("projects")))
        .flat_map(below)
        .filter(|path| path.extension().is_some_and(|ext| ext == "jsonl"))
        // A session that came to nothing; and up to Claude Code 2.0 subagents are beside their sessions, and told with them.
        .filter(|path| path.metadata().unwrap().len() > 0 && !path.to_str().unwrap().contains("/agent-"))
        .collect();
    assert!(transcripts.len() >= 40, "{transcripts:?}");
    for path in transcripts {
        let (mut said, mut known) = (BTreeSet::new(), BTreeSet::new());
        // The words of the shape itself, and of status messages and events of ours.
        known.extend(words("assistant function thinking arguments content characters interrupted result"));
        known.extend(words(
            "tool_calls output cache_read_input_tokens input_cache_creation queued prompt compaction manual",
        ));
        known.extend(words("claude-code estimated command stop_sequence feedback notification fallback stopped"));
        let agents = std::fs::read_dir(path.with_extension("").join("subagents")).into_iter().flatten();
        let agents = agents.map(|entry| entry.unwrap().path()).filter(|path| path.extension().unwrap() == "jsonl");
        let texts = agents.chain([path.clone()]).map(|path| std::fs::read_to_string(path).unwrap());
        for line in texts.collect::<String>().lines() {
            let line: Json = serde_json::from_str(line).unwrap();
            let mut names = vec![&line["cwd"], &line["gitBranch"], &line["slug"], &line["message"]["model"]];
            names.extend([
                &line["sessionId"],
                &line["requestId"],
                &line["message"]["id"],
                &line["message"]["stop_reason"],
                &line["toolDenialKind"],
                &line["permissionMode"],
            ]);
            let blocks = line["message"]["content"].as_array().into_iter().flatten();
            for block in blocks.clone().filter(|block| block["type"] == "tool_use") {
                names.extend([&block["name"], &block["id"], &block["input"]["subagent_type"]]);
            }
            names.into_iter().filter_map(Json::as_str).for_each(|name| known.extend(words(name)));
            let mut hear = |json| strings(json, &mut |text| said.extend(words(text)));
            blocks.for_each(|block| {
                ["text", "thinking", "input", "content"].iter().for_each(|field| hear(&block[field]));
            });
            [&line["toolUseResult"], &line["attachment"], &line["content"], &line["error"]].into_iter().for_each(hear);
            said.extend(line["message"]["content"].as_str().into_iter().flat_map(words));
        }
        let told: BTreeSet<String> = said.difference(&known).cloned().collect();
        let leaves = |options: &Options| {
            let mut sent_words = BTreeSet::new();
            let tell = |spans: Vec<OutSpan>| {
                assert!(!spans.is_empty());
                spans.iter().for_each(|span| sent_words.extend(words(&sent(span))));
            };
            offline::turns(&path, "s", options, &Rules::default(), tell).unwrap();
            sent_words.intersection(&told).cloned().collect::<Vec<_>>()
        };
        assert_eq!(leaves(&sizes_only()), [""; 0], "{}", path.display());
        assert!(!leaves(&Options::default()).is_empty(), "{}: nothing to leave", path.display());
    }
}

#[test]
fn how_an_answer_came_about_can_be_filtered_by() {
    let mut line = conversation()[1].clone();
    line["requestedModel"] = json!("claude-opus-5");
    line["message"]["usage"]["speed"] = json!("fast");
    line["message"]["usage"]["service_tier"] = json!("priority");
    line["message"]["usage"]["server_tool_use"] = json!({"web_search_requests": 2, "web_fetch_requests": 0});
    let spans = encoded(&[conversation()[0].clone(), line.clone()], &Options::default());
    let said = |key: &str| spans[1].text(&format!("langfuse.observation.{key}")).map(str::to_owned);
    assert_eq!(said("model.parameters").as_deref(), Some(r#"{"speed":"fast"}"#));
    for (key, expect) in [
        ("service_tier", Some("priority")),
        ("requested_model", Some("claude-opus-5")),
        ("web_search_requests", Some("2")),
        ("web_fetch_requests", None),
    ] {
        assert_eq!(said(&format!("metadata.{key}")).as_deref(), expect, "{key}");
    }
    let usual = encoded(&conversation(), &Options::default());
    assert!(usual[1].text("langfuse.observation.model.parameters").is_none());
}

#[test]
fn answers_cut_short_say_by_what() {
    for (field, value, expect) in [
        ("stop_reason", json!("refusal"), "the model refused"),
        ("stop_reason", json!("max_tokens"), "stopped at the output limit"),
        ("streamCutCause", json!("overloaded"), "the stream was cut: overloaded"),
        ("isAbortedMidStream", json!(true), "interrupted by the user"),
    ] {
        let mut line = conversation()[1].clone();
        if field == "stop_reason" {
            line["message"][field] = value
        } else {
            line[field] = value
        }
        let spans = encoded(&[conversation()[0].clone(), line], &Options::default());
        assert_eq!(spans[1].text("langfuse.observation.level"), Some("WARNING"), "{field}");
        assert_eq!(spans[1].text("langfuse.observation.status_message"), Some(expect), "{field}");
    }
}

#[test]
fn a_turn_says_by_what_command_in_what_mode_and_after_what_plan_it_came() {
    let mut prompt = conversation()[0].clone();
    prompt["permissionMode"] = json!("plan");
    prompt["message"]["content"] = json!(
        "<command-message>bar</command-message>\n<command-name>/bar</command-name>\n<command-args>x y</command-args>"
    );
    let title = json!({"type": "custom-title", "customTitle": "A good name", "sessionId": "s"});
    let of = |prompt: &Json| encoded(&[title.clone(), prompt.clone(), conversation()[1].clone()], &Options::default());
    let spans = of(&prompt);
    assert_eq!(spans[0].text("langfuse.observation.metadata.command"), Some("/bar"));
    assert_eq!(spans[0].text("langfuse.observation.metadata.permission_mode"), Some("plan"));
    assert!(spans.iter().all(|span| span.text("langfuse.trace.metadata.session_title") == Some("A good name")));
    prompt["planContent"] = json!("1. do it");
    prompt["message"]["content"] = json!(
        "Implement the following plan: 1. do it … read the full transcript at: /home/dev/.claude/projects/x/s-0.jsonl"
    );
    let spans = of(&prompt);
    assert_eq!(spans[0].text("langfuse.observation.metadata.planned_in"), Some("s-0"));
    assert_eq!(spans[0].text("langfuse.observation.metadata.command"), None);
}

// ---- images and documents ----

fn image(data: &str) -> Json {
    json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}})
}

#[test]
fn an_image_is_known_by_the_hash_of_its_bytes() {
    for (bytes, expect) in [
        // printf ABCD | openssl dgst -sha256 -binary | base64 | tr +/ -_ | cut -c1-22
        (&b"ABCD"[..], "4S4RWs9FUrJWi1XpPL05OU"),
        (b"hello", "LPJNul-wow4m6Dsqxbninh"),
    ] {
        let media = Media::new("image/png", bytes.to_vec(), 0).unwrap();
        assert_eq!(media_id(&media.hash), expect);
    }
}

#[test]
fn a_reference_stands_where_an_image_stood_and_its_bytes_are_handed_on() {
    let (png, id) = ("QUJDRA==", "4S4RWs9FUrJWi1XpPL05OU");
    let reference = format!("@@@langfuseMedia:type=image/png|id={id}|source=bytes@@@");
    let mut lines = conversation();
    lines[0]["message"]["content"] =
        json!([{"type": "text", "text": "a"}, image(png), {"type": "text", "text": "b"}, image(png)]);
    lines[2] = result("t1", json!([image(png)]), false);
    let spans = encoded(&lines, &Options::default());
    let part = json!({"type": "image_url", "image_url": {"url": reference}});
    let said = |text: &str| json!({"type": "text", "text": text});
    let message = json!({"role": "user", "content": [said("a"), part, said("b"), part]});
    for (index, keys) in
        [(0, &["langfuse.trace.input", "langfuse.observation.input"][..]), (1, &["langfuse.observation.input"])]
    {
        keys.iter().for_each(|key| assert_eq!(parsed(&spans[index], key), message));
    }
    assert_eq!(parsed(&spans[2], "langfuse.observation.output"), json!([image(&reference)]));
    let shown = |span: &OutSpan| -> Vec<(Field, Vec<u8>)> {
        span.media.iter().map(|(field, media)| (*field, media.bytes.to_vec())).collect()
    };
    let (input, output) = ((Field::Input, b"ABCD".to_vec()), (Field::Output, b"ABCD".to_vec()));
    let expect = [vec![input.clone(), input.clone()], vec![input.clone(), input], vec![output], vec![]];
    assert_eq!(spans.iter().map(shown).collect::<Vec<_>>(), expect);
    let options = Options { capture: Capture::Metadata, ..Options::default() };
    let spans = encoded(&lines, &options);
    assert!(spans.iter().all(|span| span.media.is_empty()));
    let content = "[3 characters] [image/png, 4 bytes] [image/png, 4 bytes]";
    assert_eq!(parsed(&spans[0], "langfuse.observation.input"), json!({"role": "user", "content": content}));
    assert!(spans[2].text("langfuse.observation.output").unwrap().ends_with("characters] [image/png, 4 bytes]"));
}

#[test]
fn no_reference_is_taken_for_a_secret() {
    let rules = Rules::default();
    for seed in 0..2000u32 {
        let media = Media::new("image/png", seed.to_le_bytes().to_vec(), 0).unwrap();
        let text = json!({"role": "user", "content": [{"type": "image_url", "image_url": {"url": reference(&media)}}]})
            .to_string();
        assert_eq!(rules.scrub_json(&text, &mut Counts::new()), None, "{text}");
    }
}
