//! An invalid field costs that field and nothing else.

use super::*;

/// The records of a line, and the names of the skipped fields.
fn all(line: &Value) -> (Vec<Record>, Vec<&'static str>) {
    let (mut records, mut odd) = (Vec::new(), Vec::new());
    super::super::read(line.to_string().as_bytes(), |at, found| {
        assert_eq!(at, 0);
        match found {
            Ok(Record::Link { .. }) => {}
            Ok(record) => records.push(record),
            Err(Skip::Field(name)) => odd.push(name),
            Err(skip) => panic!("{line} is {skip:?}"),
        }
    });
    (records, odd)
}

/// One value of each type that JSON has.
fn values() -> [Value; 9] {
    [
        json!(null),
        json!(true),
        json!(-7),
        json!(12345),
        json!(2.5),
        json!("odd"),
        json!(""),
        json!([{"a": 1}]),
        json!({"b": {"c": [2]}}),
    ]
}

fn full_answer() -> Value {
    let mut line = answer(
        json!([{"type": "text", "text": "yes"}, {"type": "tool_use", "id": "t-1", "name": "Bash", "input": {"command": "ls"}}]),
    );
    line["parentUuid"] = json!("u-1");
    line["requestRef"] = json!("ref-1");
    line["message"]["usage"] = json!({"input_tokens": 3, "output_tokens": 5, "cache_read_input_tokens": 7, "cache_creation_input_tokens": 9, "cache_creation": {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 5}, "server_tool_use": {"web_search_requests": 0}, "service_tier": "standard", "speed": null, "iterations": []});
    line
}

#[test]
fn an_invalid_field_of_an_answer_loses_only_that_field() {
    let Record::Assistant(whole) = read(&full_answer()).unwrap() else { panic!() };
    // Including fields that only other lines have.
    for field in [
        "uuid",
        "parentUuid",
        "requestId",
        "requestRef",
        "timestamp",
        "slug",
        "version",
        "cwd",
        "gitBranch",
        "summary",
        "title",
        "customTitle",
        "content",
        "attachment",
        "error",
        "trigger",
        "forkedFrom",
        "toolUseResult",
        "origin",
        "turnPosition",
        "turnOrigin",
        "permissionMode",
        "compactMetadata",
        "promptId",
        "retryAttempt",
        "apiBlockIndex",
        "requestedModel",
        "streamCutCause",
        "brandNew",
        "userType",
        "sessionId",
        "planContent",
        "originalModel",
    ] {
        for value in values() {
            let line = with(full_answer(), field, value);
            let (records, _) = all(&line);
            let [Record::Assistant(found)] = &records[..] else { panic!("{line}: {records:?}") };
            assert_eq!(
                (&found.usage, &found.blocks, &found.message_id),
                (&whole.usage, &whole.blocks, &whole.message_id),
                "{line}"
            );
        }
    }
    for field in ["id", "model", "stop_reason", "role", "type", "stop_sequence", "brand_new"] {
        for value in values() {
            let mut line = full_answer();
            line["message"][field] = value;
            let (records, _) = all(&line);
            let [Record::Assistant(found)] = &records[..] else { panic!("{line}: {records:?}") };
            assert_eq!((&found.usage, &found.blocks), (&whole.usage, &whole.blocks), "{line}");
        }
    }
}

#[test]
fn an_invalid_count_loses_only_that_count() {
    for field in [
        "input_tokens",
        "output_tokens",
        "cache_read_input_tokens",
        "cache_creation_input_tokens",
        "cache_creation",
        "server_tool_use",
        "service_tier",
        "speed",
        "iterations",
    ] {
        for value in values().into_iter().chain([json!(1e30), json!(u64::MAX), json!([]), json!({})]) {
            let mut line = full_answer();
            line["message"]["usage"][field] = value;
            let (records, _) = all(&line);
            let [Record::Assistant(found)] = &records[..] else { panic!("{line}: {records:?}") };
            let usage = found.usage.unwrap();
            for (name, count, is) in [
                ("input_tokens", usage.input, 3),
                ("output_tokens", usage.output, 5),
                ("cache_read_input_tokens", usage.cache_read, 7),
                ("cache_creation_input_tokens", usage.cache_creation, 9),
            ] {
                assert!(count == is || name == field && [0, 12345, 2].contains(&count), "{line}: {name} is {count}");
            }
        }
    }
    for value in values().into_iter().chain([json!("n/a"), json!([])]) {
        let mut line = full_answer();
        line["message"]["usage"] = value;
        let (records, _) = all(&line);
        assert!(matches!(&records[..], [Record::Assistant(found)] if found.blocks.len() == 2), "{line}");
    }
}

#[test]
fn an_invalid_field_of_a_block_does_not_affect_other_blocks() {
    for block in [
        json!({"type": "text", "text": "x"}),
        json!({"type": "thinking", "thinking": "x", "signature": "s"}),
        json!({"type": "tool_use", "id": "t-9", "name": "B", "input": {}}),
        json!({"type": "server_tool_use", "id": "t-9", "name": "web_search", "input": {}}),
        json!({"type": "web_search_tool_result", "tool_use_id": "t-9", "content": [{"type": "web_search_result", "title": "x"}]}),
        json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}),
    ] {
        for field in
            ["type", "text", "thinking", "id", "name", "input", "tool_use_id", "content", "source", "is_error", "title"]
        {
            for value in values() {
                let mut line = full_answer();
                line["message"]["content"][0] = with(block.clone(), field, value);
                let (records, _) = all(&line);
                let [Record::Assistant(found)] = &records[..] else { panic!("{line}: {records:?}") };
                assert!(matches!(found.blocks.last(), Some(Block::ToolUse { id, .. }) if id == "t-1"), "{line}");
                assert_eq!(found.usage.unwrap().input, 3, "{line}");
            }
        }
    }
}

#[test]
fn an_invalid_field_of_a_prompt_loses_only_that_field() {
    for field in [
        "uuid",
        "parentUuid",
        "timestamp",
        "version",
        "cwd",
        "gitBranch",
        "slug",
        "permissionMode",
        "promptId",
        "turnPosition",
        "turnOrigin",
        "origin",
        "rowSource",
        "promptSource",
        "forkedFrom",
        "summary",
        "title",
        "error",
        "attachment",
        "content",
        "requestId",
        "toolDenialKind",
        "isSidechain",
        "brandNew",
        "ownNote",
        "isApiErrorMessage",
    ] {
        for value in values() {
            let line = with(user(json!("hello")), field, value);
            let (records, _) = all(&line);
            let record = match &records[..] {
                [Record::Side(side)] => &side.record,
                [record] => record,
                _ => panic!("{line}: {records:?}"),
            };
            assert!(matches!(record, Record::Prompt(prompt) if prompt.text == "hello"), "{line}: {record:?}");
        }
    }
}

#[test]
fn a_tool_result_with_any_output_is_a_result() {
    for (content, expect) in [
        (json!(null), "null"),
        (json!(7), "7"),
        (json!(true), "true"),
        (json!("text"), "text"),
        (json!({"type": "text", "text": "alone"}), "alone"),
        (json!({"stdout": "1", "n": [1, 2]}), r#"{"n":[1,2],"stdout":"1"}"#),
        (json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]), "a\nb"),
        (json!([{"type": "text", "text": {"x": 1}}]), r#"[{"text":{"x":1},"type":"text"}]"#),
        (json!(["a", 7]), r#"["a",7]"#),
    ] {
        let line = user(json!([{"type": "tool_result", "tool_use_id": "t-1", "content": content}]));
        assert_eq!(results(&line)[0].output, expect, "{line}");
    }
    for (said, expect) in
        [(json!("true"), true), (json!(1), true), (json!("no"), false), (json!(null), false), (json!({}), false)]
    {
        let line = user(json!([{"type": "tool_result", "tool_use_id": 9, "content": "x", "is_error": said}]));
        let found = &results(&line)[0];
        assert_eq!((found.tool_use_id.as_str(), found.is_error), ("9", expect), "{line}");
    }
}

#[test]
fn content_is_read_in_every_form() {
    for content in [
        json!("yes"),
        json!(["yes"]),
        json!({"type": "text", "text": "yes"}),
        json!([{"text": "yes"}]),
        json!([7, null, {"type": "text", "text": "yes"}, true]),
    ] {
        assert_eq!(assistant(&answer(content.clone())).blocks, [Block::Text("yes".into())], "{content}");
        assert_eq!(prompt(&user(content.clone())).text, "yes", "{content}");
    }
}

#[test]
fn dropped_fields_are_named() {
    let mut line = with(full_answer(), "uuid", json!({}));
    line["message"]["model"] = json!(["x"]);
    line["message"]["usage"]["input_tokens"] = json!({"text": 12});
    line["message"]["usage"]["cache_creation"]["ephemeral_5m_input_tokens"] = json!(-1);
    line["message"]["content"][0]["text"] = json!([]);
    line["timestamp"] = json!("yesterday");
    let (_, mut odd) = all(&line);
    odd.sort_unstable();
    let expect = [
        "field.block.text",
        "field.message.model",
        "field.timestamp",
        "field.usage.cache_creation.ephemeral_5m_input_tokens",
        "field.usage.input_tokens",
        "field.uuid",
    ];
    assert_eq!(odd, expect);
    assert_eq!(Skip::Field("field.uuid").reason(), Some("field.uuid"));
    assert_eq!(all(&full_answer()).1, [""; 0]);
    let unread = with(json!({"type": "system", "subtype": "turn_duration"}), "title", json!([]));
    assert_eq!(read(&unread), Err(Skip::Bookkeeping));
}

#[test]
fn a_time_in_milliseconds_is_one() {
    for value in [json!(T_NANOS / 1_000_000), json!((T_NANOS / 1_000_000) as f64)] {
        assert_eq!(prompt(&with(user(json!("x")), "timestamp", value)).at, Some(T_NANOS));
    }
    for value in [json!(-1), json!(0), json!(u64::MAX), json!(true)] {
        assert_eq!(prompt(&with(user(json!("x")), "timestamp", value)).at, None);
    }
}

#[test]
fn a_value_that_json_cannot_express_loses_only_its_field() {
    let line = full_answer().to_string();
    for token in ["NaN", "-Infinity", "Infinity", "1e999", "undefined", "None", "0x1F", "+5"] {
        let line = line.replace("\"input_tokens\":3", &format!("\"input_tokens\":{token}"));
        let Ok(Record::Assistant(found)) = parse(line.as_bytes()) else { panic!("{line}") };
        assert_eq!(found.usage.map(|usage| (usage.input, usage.output)), Some((0, 5)), "{token}");
    }
    let line = user(json!("a\u{7}b")).to_string().replace("\\u0007", "\u{7}");
    assert!(matches!(parse(line.as_bytes()), Ok(Record::Prompt(prompt)) if prompt.text == "a b"));
}

#[test]
fn tools_that_the_api_runs_are_calls_with_results() {
    for (kind, content, failed, output) in [
        (
            "web_fetch_tool_result",
            json!({"type": "web_fetch_result", "url": "https://x"}),
            false,
            r#"{"type":"web_fetch_result","url":"https://x"}"#,
        ),
        (
            "web_search_tool_result",
            json!({"type": "web_search_tool_result_error", "error_code": "max_uses_exceeded"}),
            true,
            r#"{"error_code":"max_uses_exceeded","type":"web_search_tool_result_error"}"#,
        ),
        (
            "web_search_tool_result",
            json!([{"type": "web_search_result", "title": "a"}]),
            false,
            r#"[{"title":"a","type":"web_search_result"}]"#,
        ),
        (
            "code_execution_tool_result",
            json!({"type": "code_execution_result", "stdout": "1", "content": []}),
            false,
            r#"{"content":[],"stdout":"1","type":"code_execution_result"}"#,
        ),
        ("advisor_tool_result", json!({"type": "advisor_result", "text": "two tables"}), false, "two tables"),
        ("mcp_tool_result", json!([{"type": "text", "text": "done"}]), false, "done"),
        ("brand_new_tool_result", json!("plain"), false, "plain"),
    ] {
        let line = answer(json!([
            {"type": "server_tool_use", "id": "s-1", "name": "it", "input": {"q": 1}},
            {"type": kind, "tool_use_id": "s-1", "content": content},
            {"type": "text", "text": "so"},
        ]));
        let blocks = assistant(&line).blocks;
        let call = Block::ServerTool { id: "s-1".into(), name: "it".into(), input: r#"{"q":1}"#.into() };
        assert_eq!((&blocks[0], &blocks[2]), (&call, &Block::Text("so".into())));
        let Block::ServerResult(result) = &blocks[1] else { panic!("{blocks:?}") };
        assert_eq!(
            (result.tool_use_id.as_str(), result.is_error, result.output.as_str()),
            ("s-1", failed, output),
            "{kind}"
        );
    }
    let line = answer(json!([{"type": "mcp_tool_use", "id": "m-1", "name": "find", "server_name": "db", "input": {}},
        {"type": "mcp_tool_result", "tool_use_id": "m-1", "is_error": true, "content": [{"type": "text", "text": "no"}]}]));
    assert!(
        matches!(&assistant(&line).blocks[..], [Block::ServerTool { .. }, Block::ServerResult(result)] if result.is_error)
    );
}

#[test]
fn a_block_of_an_unknown_kind_is_kept_as_it_is_written() {
    let line = answer(
        json!([{"type": "text", "text": "a"}, {"type": "hologram", "depth": {"x": [1.50]}}, {"type": "redacted_thinking", "data": "x"}]),
    );
    let expect = [
        Block::Text("a".into()),
        Block::Other { kind: "hologram".into(), json: r#"{"depth":{"x":[1.5]},"type":"hologram"}"#.into() },
        Block::Other { kind: "redacted_thinking".into(), json: String::new() },
    ];
    assert_eq!(assistant(&line).blocks, expect);
}

#[test]
fn usage_of_another_model_within_an_answer_is_separate() {
    let mut line = full_answer();
    line["message"]["usage"]["iterations"] = json!([
        {"type": "message", "input_tokens": 3, "output_tokens": 5},
        {"type": "advisor_message", "model": "model-b", "input_tokens": 15000, "output_tokens": 800, "cache_creation": {"ephemeral_1h_input_tokens": 2}},
        {"type": "compaction", "input_tokens": 9, "output_tokens": 9},
        {"type": "fallback_message", "model": "model-c", "input_tokens": 9},
        7,
        {"type": "advisor_message", "input_tokens": {}, "output_tokens": 1},
    ]);
    let found = assistant(&line);
    assert_eq!(found.usage.map(|usage| usage.input), Some(3));
    let advice = |model: &str, usage| Advice { model: model.into(), usage };
    let expect = [
        advice("model-b", Usage { input: 15000, output: 800, cache_creation_1h: 2, ..Usage::default() }),
        advice("unknown", Usage { output: 1, ..Usage::default() }),
    ];
    assert_eq!(found.advice, expect);
}
