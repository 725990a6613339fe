use super::*;

#[test]
fn all_fields_of_an_answer_are_read() {
    let mut line = answer(json!([
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "text", "text": "Let me look."},
        {"type": "tool_use", "id": "t-1", "name": "Read", "input": {"path": "/a", "n": 1.50}},
        {"type": "redacted_thinking", "data": "x"},
    ]));
    line["requestRef"] = json!("r-1");
    line["slug"] = json!("red-fox");
    let expect = Assistant {
        uuid: Some("a-1".into()),
        at: Some(T_NANOS),
        message_id: Some("msg-1".into()),
        model: "claude-haiku-4-5".into(),
        request_id: Some("req-1".into()),
        request_ref: Some("r-1".into()),
        stop_reason: Some("end_turn".into()),
        usage: Some(Usage { input: 3, output: 5, ..Usage::default() }),
        blocks: vec![
            Block::Thinking("hm".into()),
            Block::Text("Let me look.".into()),
            Block::ToolUse {
                id: "t-1".into(),
                name: "Read".into(),
                input: json!({"path": "/a", "n": 1.50}).to_string(),
            },
            Block::Other { kind: "redacted_thinking".into(), json: String::new() },
        ],
        parent: None,
        block_index: None,
        advice: Vec::new(),
        slug: Some("red-fox".into()),
        forked_from: Some("s-0".into()),
        service: Service::default(),
    };
    line["requestSessionId"] = json!("s-0");
    assert_eq!(assistant(&line), expect);
}

#[test]
fn missing_fields_of_an_answer_have_defaults() {
    for model in ["", " ", "\t"] {
        let line = json!({"type": "assistant", "message": {"model": model, "content": "plain words"}});
        assert_eq!(assistant(&line).model, "unknown", "{model:?}");
    }
    let line = json!({"type": "assistant", "message": {"content": "plain words"}});
    let expect = Assistant {
        uuid: None,
        at: None,
        message_id: None,
        model: "unknown".into(),
        request_id: None,
        request_ref: None,
        stop_reason: None,
        usage: None,
        blocks: vec![Block::Text("plain words".into())],
        parent: None,
        block_index: None,
        advice: Vec::new(),
        slug: None,
        forked_from: None,
        service: Service::default(),
    };
    assert_eq!(assistant(&line), expect);
    let empty = json!({"type": "assistant", "uuid": "", "requestId": "", "message": {"id": "", "model": "", "content": "plain words"}});
    assert_eq!(assistant(&empty), expect, "an empty id is none");
}

#[test]
fn an_answer_may_have_no_content() {
    for line in [json!({"type": "assistant", "message": {"id": "m"}}), answer(json!([])), answer(json!(null))] {
        assert_eq!(assistant(&line).blocks, []);
    }
}

#[test]
fn tool_calls_are_found_among_the_blocks_and_keep_their_arguments_as_written() {
    let calls = |content: &str| -> Vec<(String, String, String)> {
        let line = format!(r#"{{"type":"assistant","message":{{"id":"m","content":{content}}}}}"#);
        let Ok(Record::Assistant(answer)) = parse(line.as_bytes()) else { panic!("{content}") };
        let calls = answer.blocks.into_iter().filter_map(|block| match block {
            Block::ToolUse { id, name, input } => Some((id, name, input)),
            _ => None,
        });
        calls.collect()
    };
    for (content, expect) in [
        ("[]", vec![]),
        (r#"[{"type":"text","text":"no call"}]"#, vec![]),
        (r#"[{"type":"tool_use","name":"Lost","input":{}}]"#, vec![]),
        (
            r#"[{"type":"text","text":"x"},{"type":"tool_use","id":"t","name":"Bash","input":{"b": 1,  "a": 12345678901234567890123}}]"#,
            vec![("t", "Bash", r#"{"b": 1,  "a": 12345678901234567890123}"#)],
        ),
        (
            r#"[{"type":"tool_use","id":"t"},{"type":"tool_use","id":"s","name":"B","input":[]}]"#,
            vec![("t", "unknown", "{}"), ("s", "B", "[]")],
        ),
    ] {
        let expect: Vec<_> = expect.into_iter().map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned())).collect();
        assert_eq!(calls(content), expect, "{content}");
    }
}

#[test]
fn the_role_replaces_a_missing_type() {
    let line = json!({"message": {"role": "assistant", "id": "m", "content": "yes"}});
    assert_eq!(assistant(&line).blocks, [Block::Text("yes".into())]);
    assert_eq!(prompt(&json!({"message": {"role": "user", "content": "hi"}})).text, "hi");
}

#[test]
fn content_at_the_top_level_of_a_line_is_read() {
    assert_eq!(prompt(&json!({"type": "user", "content": "hi"})).text, "hi");
    assert_eq!(assistant(&json!({"type": "assistant", "content": "yes"})).blocks, [Block::Text("yes".into())]);
    let both = json!({"type": "user", "content": "outer", "message": {"content": "inner"}});
    assert_eq!(prompt(&both).text, "inner");
}

#[test]
fn the_time_is_the_lines_or_else_the_messages() {
    let inner = "2026-03-01T10:00:01Z";
    for (line, expect) in [
        (json!({"type": "user", "timestamp": T, "message": {"content": "x", "timestamp": inner}}), Some(T_NANOS)),
        (json!({"type": "user", "message": {"content": "x", "timestamp": T}}), Some(T_NANOS)),
        (json!({"type": "user", "timestamp": null, "message": {"content": "x", "timestamp": T}}), Some(T_NANOS)),
        (json!({"type": "user", "message": {"content": "x"}}), None),
        (json!({"type": "user", "timestamp": "yesterday", "message": {"content": "x"}}), None),
    ] {
        assert_eq!(prompt(&line).at, expect, "{line}");
    }
    assert_eq!(assistant(&json!({"type": "assistant", "message": {"timestamp": T}})).at, Some(T_NANOS));
}

#[test]
fn a_time_is_rfc_3339_between_1970_and_2262() {
    for (text, expect) in [
        (T, Some(T_NANOS)),
        ("2026-03-01T12:00:00.250+02:00", Some(T_NANOS)),
        ("1970-01-01T00:00:00.000000001Z", Some(1)),
        ("1970-01-01T00:00:00Z", None),
        ("1969-12-31T23:59:59Z", None),
        ("2262-04-11T23:47:16.854775807Z", Some(i64::MAX as u64)),
        ("2262-04-11T23:47:16.854775808Z", None),
        ("2026-03-01T10:00:00", None),
        ("1772359200250", None),
        ("", None),
    ] {
        assert_eq!(nanos(text), expect, "{text}");
    }
}

#[test]
fn token_counts_are_read_in_every_number_form() {
    let of = |input, output| Some(Usage { input, output, ..Usage::default() });
    for (text, expect) in [
        ("null", None),
        ("{}", of(0, 0)),
        (r#"{"input_tokens":7,"output_tokens":9}"#, of(7, 9)),
        (r#"{"input_tokens":null,"output_tokens":9.0}"#, of(0, 9)),
        (r#"{"input_tokens":"7","output_tokens":"many"}"#, of(7, 0)),
        (r#"{"input_tokens":-7,"output_tokens":true}"#, of(0, 0)),
        (r#"{"input_tokens":-7.5,"output_tokens":2.9}"#, of(0, 2)),
        (
            r#"{"input_tokens":1,"output_tokens":2,"service_tier":"standard","server_tool_use":{"web_search":1}}"#,
            of(1, 2),
        ),
        (
            r#"{"cache_read_input_tokens":4,"cache_creation_input_tokens":6,"cache_creation":{"ephemeral_5m_input_tokens":1,"ephemeral_1h_input_tokens":2}}"#,
            Some(Usage {
                cache_read: 4,
                cache_creation: 6,
                cache_creation_5m: 1,
                cache_creation_1h: 2,
                ..Usage::default()
            }),
        ),
        (
            r#"{"cache_creation_input_tokens":6,"cache_creation":null}"#,
            Some(Usage { cache_creation: 6, ..Usage::default() }),
        ),
    ] {
        assert_eq!(usage(text), expect, "{text}");
    }
}

#[test]
fn cache_writes_of_unknown_lifetime_are_the_nonnegative_rest() {
    for ((all, short, long), rest) in [((6, 1, 2), 3), ((6, 0, 0), 6), ((6, 2, 4), 0), ((3, 2, 4), 0)] {
        let usage =
            Usage { cache_creation: all, cache_creation_5m: short, cache_creation_1h: long, ..Usage::default() };
        assert_eq!(usage.cache_creation_rest(), rest);
    }
}

#[test]
fn synthetic_text_is_an_error_or_nothing() {
    let mut line = answer(json!([{"type": "text", "text": "API Error: 529 Overloaded"}]));
    line["message"]["model"] = json!("<synthetic>");
    assert_eq!(read(&line), Err(Skip::Bookkeeping), "filler");
    line["isApiErrorMessage"] = json!(false);
    assert_eq!(read(&line), Err(Skip::Bookkeeping), "filler");
    line["isApiErrorMessage"] = json!(true);
    let error = |status| Record::ApiError { at: Some(T_NANOS), text: "API Error: 529 Overloaded".into(), status };
    assert_eq!(read(&line), Ok(error(None)));
    line["apiErrorStatus"] = json!(529);
    assert_eq!(read(&line), Ok(error(Some(529))));
}

#[test]
fn a_meta_answer_is_skipped() {
    assert_eq!(read(&with(answer(json!("x")), "isMeta", json!(true))), Err(Skip::Bookkeeping));
}

#[test]
fn a_subagents_line_is_a_record_with_its_owner() {
    for line in [user(json!("go")), answer(json!("gone"))] {
        let line = with(line, "parentUuid", json!("p-1"));
        let mut side = with(line.clone(), "isSidechain", json!(true));
        side["agentId"] = json!("a-7");
        let Ok(Record::Side(found)) = read(&side) else { panic!("{side}") };
        assert_eq!((found.parent.as_deref(), found.agent_id.as_deref()), (Some("p-1"), Some("a-7")));
        assert_eq!(Ok(found.record), read(&line));
    }
}

#[test]
fn a_result_names_the_subagent_its_call_launched() {
    let launched = |agent: &str, is_async| Some(Launched { agent_id: agent.into(), is_async, wakes: false });
    for (said, expect) in [
        (
            json!({"status": "completed", "agentId": "a-1", "usage": {"input_tokens": 9}, "content": [1, {"x": []}]}),
            launched("a-1", false),
        ),
        (json!({"isAsync": true, "agentId": "a-2"}), launched("a-2", true)),
        (json!({"agentId": null, "isAsync": null}), None),
        (json!({"stdout": "agentId"}), None),
        (json!("Error: agentId"), None),
        (json!(["agentId", 7]), None),
        (json!(null), None),
        (json!(1.5), None),
        (json!(true), None),
    ] {
        let mut line = user(json!([{"type": "tool_result", "tool_use_id": "t-1", "content": "done"}]));
        line["toolUseResult"] = said.clone();
        match read(&line) {
            Ok(Record::ToolResults { results, .. }) => assert_eq!(results[0].agent, expect, "{said}"),
            other => panic!("{said}: {other:?}"),
        }
    }
}

#[test]
fn a_notification_names_the_subagent_that_ended() {
    let text = "<task-notification>\n<task-id>a-1</task-id>\n<status>completed</status></task-notification>";
    assert_eq!(prompt(&user(json!(text))).ended_agent(), Some("a-1"));
    assert_eq!(prompt(&user(json!("what is <task-id>a-1</task-id>?"))).ended_agent(), None);
}
