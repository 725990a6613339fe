use super::*;
use crate::transcript::record::SessionFacts;

#[test]
fn the_facts_of_the_trace_are_on_every_span() {
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
fn unknown_facts_are_left_out() {
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
fn every_turn_of_a_file_belongs_to_the_files_session() {
    let mut lines = conversation();
    lines[0]["sessionId"] = json!("session-0");
    for span in encoded(&lines, &full()) {
        assert_eq!(span.text("session.id"), Some(SESSION));
        assert_eq!(span.text("langfuse.trace.metadata.session_id"), Some(SESSION));
    }
}

#[test]
fn the_root_is_an_agent_with_prompt_and_answer() {
    let spans = encoded(&conversation(), &full());
    let user = json!([{"role": "user", "content": "count \"a\" & <b>"}]);
    let model = json!({"role": "assistant", "content": "Three."});
    for (key, expect) in [
        ("langfuse.trace.input", &user),
        ("langfuse.trace.output", &model),
        ("langfuse.observation.input", &user),
        ("langfuse.observation.output", &model),
    ] {
        assert_eq!(parsed(&spans[0], key), *expect, "{key}");
    }
    assert_eq!(own(&spans[0]).len(), 5);
    assert_eq!(spans[0].text("langfuse.observation.type"), Some("agent"));
    assert!(spans[0].is_root());
    for span in &spans[1..] {
        assert!(!span.is_root());
        assert!(span.text("langfuse.trace.input").is_none());
    }
}

#[test]
fn a_message_starts_with_its_role() {
    let spans = encoded(&conversation(), &full());
    assert_eq!(spans[0].text("langfuse.trace.output"), Some(r#"{"role":"assistant","content":"Three."}"#));
}

#[test]
fn a_generation_has_model_usage_and_the_answer_in_the_shape_of_a_chat() {
    let spans = encoded(&conversation(), &full());
    let expect: BTreeMap<&str, Json> = [
        ("langfuse.observation.input", json!([{"role": "user", "content": "count \"a\" & <b>"}])),
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
    assert_eq!((own(tool), tool.name.as_str(), tool.status.error()), (expect.into(), "Bash", None));
}

#[test]
fn a_failed_tool_has_its_error_and_one_without_a_result_has_no_output() {
    let blocks = json!([
        {"type": "tool_use", "id": "t1", "name": "Bash", "input": {}},
        {"type": "tool_use", "id": "t2", "name": "Read", "input": {}},
    ]);
    let lines = [prompt(), answer("m1", blocks, json!({})), result("t1", json!("Exit code 1"), true)];
    let spans = encoded(&lines, &full());
    let of = |span: &WireSpan| {
        let text = |key: &str| span.text(&format!("langfuse.observation.{key}")).map(str::to_owned);
        (
            text("level"),
            text("status_message"),
            text("output"),
            text("metadata.timing"),
            span.status.error().map(str::to_owned),
        )
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(of(&spans[1]).0, None, "the call itself went well");
    assert_eq!(of(&spans[2]), (some("ERROR"), some("Exit code 1"), some("Exit code 1"), None, some("Exit code 1")));
    assert_eq!(of(&spans[3]), (some("ERROR"), some("no result"), None, some("estimated"), some("no result")));
}

#[test]
fn an_error_in_place_of_the_answer_sets_output_and_level_of_the_root() {
    let error = json!({"type": "assistant", "isApiErrorMessage": true, "timestamp": "2026-03-01T10:00:01Z",
        "message": {"model": "<synthetic>", "content": text("API Error: 529")}});
    let spans = encoded(&[prompt(), error], &full());
    assert_eq!(spans.len(), 1);
    assert_eq!(spans[0].text("langfuse.observation.level"), Some("ERROR"));
    assert_eq!(spans[0].text("langfuse.observation.status_message"), Some("API Error: 529"));
    assert_eq!(spans[0].status.error(), Some("API Error: 529"));
    assert_eq!(spans[0].text("langfuse.trace.output"), Some(r#"{"role":"assistant","content":"API Error: 529"}"#));
}

#[test]
fn the_span_keeps_times_ids_and_name() {
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
    let (events, spans): (Vec<_>, Vec<_>) =
        spans.iter().partition(|span| span.text("langfuse.observation.type") == Some("event"));
    assert_eq!(events.len(), 1);
    let (also, id) = (events[0], span_id(trace, Role::Event, "p1/0"));
    assert_eq!((also.name.as_str(), also.span_id, also.parent_id), ("queued prompt", id, root.span_id));
    assert_eq!((also.start_ns, also.end_ns), (start + second, start + second));
    assert_eq!(also.text("langfuse.observation.input"), Some(r#"[{"role":"user","content":"also"}]"#));
    assert_eq!(spans[1].parent_id, root.span_id);
    assert_eq!(spans[2].parent_id, spans[1].span_id);
    assert!(spans[1..].iter().all(|span| span.trace_id == trace));
}

#[test]
fn a_turn_that_nobody_typed_has_its_trigger() {
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
fn every_token_is_in_one_bucket_and_empty_cache_buckets_are_left_out() {
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
            Usage { cache_write: 9, ..usage(1, 2) },
            Semantics::Measured,
            json!({"input": 1, "output": 2, "input_cache_creation": 9}),
        ),
        (
            Usage { cache_write_5m: 9, ..usage(1, 2) },
            Semantics::Measured,
            json!({"input": 1, "output": 2, "input_cache_creation_5m": 9}),
        ),
        (
            Usage { cache_write: 2, cache_write_1h: 7, ..usage(1, 2) },
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
fn without_usage_the_model_name_is_only_metadata() {
    let spans = encoded(&[prompt(), answer("m1", text("x"), json!(null))], &full());
    let found = own(&spans[1]);
    assert!(!found.contains_key("langfuse.observation.model.name"));
    assert!(!found.contains_key("langfuse.observation.usage_details"));
    assert_eq!(found["langfuse.observation.metadata.model"], "claude-haiku-4-5");
    assert_eq!(spans[1].name, "claude-haiku-4-5");
}

#[test]
fn the_long_context_suffix_is_removed_from_the_model_name() {
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
fn no_key_is_sent_twice_in_unusual_cases() {
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
fn measured_semantics_has_the_time_of_the_first_block() {
    let key = "langfuse.observation.completion_start_time";
    let measured = Options { semantics: Semantics::Measured, ..full() };
    assert_eq!(encoded(&conversation(), &measured)[1].text(key), Some("2026-03-01T10:00:01.5Z"));
    assert!(encoded(&conversation(), &full()).iter().all(|span| span.text(key).is_none()));
}

#[test]
fn an_estimated_time_is_marked() {
    let key = "langfuse.observation.metadata.timing";
    assert!(encoded(&conversation(), &full()).iter().all(|span| span.text(key).is_none()));
    let mut lines = conversation();
    for line in &mut lines {
        line["timestamp"] = json!(null);
    }
    assert!(encoded(&lines, &full()).iter().all(|span| span.text(key) == Some("estimated")));
}

#[test]
fn the_environment_is_brought_into_a_form_the_server_accepts() {
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
fn user_session_and_release_ids_are_limited_to_200_characters() {
    let long = "ä".repeat(300);
    let options = Options { user_id: Some(long.clone()), release: Some(long.clone()), ..full() };
    let facts = crate::observe::facts(1, &SessionFacts::default(), &long, &options);
    let span = encode(&Observation::default(), &facts);
    for key in ["session.id", "user.id", "langfuse.release"] {
        assert_eq!(span.text(key).map(|text| text.chars().count()), Some(200), "{key}");
    }
    assert_eq!(span.text("langfuse.trace.metadata.session_id"), Some(long.as_str()), "metadata keeps it whole");
}

#[test]
fn details_of_an_answer_are_metadata_to_filter_by() {
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
fn a_truncated_answer_has_its_cause() {
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
fn a_turn_has_its_command_permission_mode_and_plan() {
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
