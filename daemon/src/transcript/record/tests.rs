use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const T: &str = "2026-03-01T10:00:00.250Z";
const T_NANOS: Nanos = 1_772_359_200_250_000_000;

fn read(line: &Value) -> Result<Record, Skip> {
    parse(line.to_string().as_bytes())
}

fn user(content: Value) -> Value {
    json!({"type": "user", "uuid": "u-1", "timestamp": T, "message": {"role": "user", "content": content}})
}

fn answer(content: Value) -> Value {
    json!({"type": "assistant", "uuid": "a-1", "timestamp": T, "requestId": "req-1", "message": {
        "id": "msg-1", "role": "assistant", "model": "claude-haiku-4-5", "content": content,
        "stop_reason": "end_turn", "usage": {"input_tokens": 3, "output_tokens": 5},
    }})
}

/// `line` with `key` set to `value`.
fn with(mut line: Value, key: &str, value: Value) -> Value {
    line[key] = value;
    line
}

fn prompt(line: &Value) -> Prompt {
    match read(line) {
        Ok(Record::Prompt(prompt)) => prompt,
        other => panic!("{line} is {other:?}"),
    }
}

fn assistant(line: &Value) -> Assistant {
    match read(line) {
        Ok(Record::Assistant(answer)) => *answer,
        other => panic!("{line} is {other:?}"),
    }
}

fn results(line: &Value) -> Vec<ToolResult> {
    match read(line) {
        Ok(Record::ToolResults { results, .. }) => results,
        other => panic!("{line} is {other:?}"),
    }
}

/// The usage of an answer whose `usage` is written as `text`.
fn usage(text: &str) -> Option<Usage> {
    let line = format!(r#"{{"type":"assistant","message":{{"id":"m","model":"x","usage":{text},"content":[]}}}}"#);
    match parse(line.as_bytes()) {
        Ok(Record::Assistant(answer)) => answer.usage,
        other => panic!("{text} is {other:?}"),
    }
}

// ---- prompts ----

#[test]
fn a_prompt_is_a_string_or_the_text_blocks_of_a_list() {
    for (content, text) in [
        (json!("hello"), "hello"),
        (json!("  kept as typed \n"), "  kept as typed \n"),
        (json!([{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]), "one\ntwo"),
        (
            json!([{"type": "image", "source": {"data": "AAAA"}}, {"type": "text", "text": "what is this?"}]),
            "what is this?",
        ),
        (json!([{"type": "image", "source": {"data": "AAAA"}}]), ""),
        (json!([{"type": "document", "source": {"data": "AAAA"}}]), ""),
    ] {
        let expect = Prompt {
            uuid: Some("u-1".into()),
            at: Some(T_NANOS),
            text: text.into(),
            media: Vec::new(),
            kind: PromptKind::Plain,
            prompt_id: None,
            permission_mode: None,
            planned_in: None,
            session: SessionFacts::default(),
        };
        assert_eq!(prompt(&user(content)), expect);
    }
}

#[test]
fn a_user_line_that_says_nothing_is_no_prompt() {
    for line in [
        user(json!("")),
        user(json!(" \n\t")),
        user(json!([])),
        user(json!(null)),
        user(json!([{"type": "text", "text": " "}])),
        json!({"type": "user"}),
        json!({"type": "user", "message": {}}),
        with(user(json!("scaffolding")), "isMeta", json!(true)),
        with(user(json!("This session is being continued")), "isCompactSummary", json!(true)),
        with(user(json!("only shown")), "isVisibleInTranscriptOnly", json!(true)),
        user(json!("<local-command-caveat>The command below ran here.</local-command-caveat>")),
    ] {
        assert_eq!(read(&line), Err(Skip::Bookkeeping), "{line}");
    }
}

#[test]
fn flags_that_are_false_or_null_do_not_hide_a_line() {
    for flag in ["isMeta", "isCompactSummary", "isVisibleInTranscriptOnly", "isSidechain"] {
        for value in [json!(false), json!(null)] {
            assert_eq!(prompt(&with(user(json!("hi")), flag, value)).text, "hi", "{flag}");
        }
    }
}

#[test]
fn what_a_user_line_opens_with_tells_how_it_came_about() {
    use PromptKind::{Command, Local, Plain, TaskNotification};
    for (content, kind, text) in [
        (
            "<command-message>review</command-message>\n<command-name>/review</command-name>\n<command-args>src lib</command-args>",
            Command,
            "/review src lib",
        ),
        ("<command-message>plan</command-message>\n<command-name>/plan</command-name>", Command, "/plan"),
        (
            "<command-name>/model</command-name>\n  <command-message>model</command-message>\n  <command-args>haiku</command-args>",
            Local,
            "/model haiku",
        ),
        ("<command-name>/cost</command-name><command-args></command-args>", Local, "/cost"),
        ("\n <command-name>/clear</command-name>", Local, "/clear"),
        ("<command-message>never named</command-message>", Command, "<command-message>never named</command-message>"),
        ("<bash-input> ls -l </bash-input>", Local, "!ls -l"),
        ("<bash-input>never closed", Local, "!"),
        (
            "<task-notification>\n<task-id>t1</task-id>\n</task-notification>",
            TaskNotification,
            "<task-notification>\n<task-id>t1</task-id>\n</task-notification>",
        ),
        ("what does <command-name> mean?", Plain, "what does <command-name> mean?"),
        ("I typed [Request interrupted by user]", Plain, "I typed [Request interrupted by user]"),
    ] {
        let found = prompt(&user(json!(content)));
        assert_eq!((found.kind, found.text.as_str()), (kind, text));
    }
}

#[test]
fn output_of_local_commands_is_no_prompt() {
    for content in [
        "<local-command-stdout>Total cost: $0.01</local-command-stdout>",
        "<local-command-stderr>no such model</local-command-stderr>",
        "  <local-command-stdout></local-command-stdout>",
    ] {
        assert_eq!(read(&user(json!(content))), Ok(Record::LocalOutput), "{content}");
    }
    let line = json!({"type": "system", "subtype": "local_command", "content": "<local-command-stdout>x"});
    assert_eq!(read(&line), Ok(Record::LocalOutput));
    for content in
        ["<bash-stdout>a.txt</bash-stdout><bash-stderr></bash-stderr>", "<bash-stderr>not found</bash-stderr>"]
    {
        assert_eq!(read(&user(json!(content))), Err(Skip::Bookkeeping), "the model may answer it: {content}");
    }
}

#[test]
fn an_interrupt_is_told_from_a_prompt() {
    for content in [
        json!("[Request interrupted by user]"),
        json!([{"type": "text", "text": "[Request interrupted by user]"}]),
        json!([{"type": "text", "text": "[Request interrupted by user for tool use]"}]),
    ] {
        assert_eq!(read(&user(content)), Ok(Record::Interrupted { at: Some(T_NANOS) }));
    }
}

#[test]
fn a_prompt_line_says_what_is_known_of_its_session() {
    let mut line = user(json!("hi"));
    for (key, value) in [("version", "2.1.0"), ("cwd", "/home/dev/app"), ("gitBranch", "main"), ("slug", "red-fox")] {
        line[key] = json!(value);
    }
    let full = SessionFacts {
        version: Some("2.1.0".into()),
        cwd: Some("/home/dev/app".into()),
        git_branch: Some("main".into()),
        slug: Some("red-fox".into()),
        forked_from: Some("s-0".into()),
        title: None,
    };
    line["forkedFrom"] = json!({"sessionId": "s-0", "messageUuid": "u-0"});
    assert_eq!(prompt(&line).session, full);
    line["cwd"] = json!(null);
    assert_eq!(prompt(&line).session, SessionFacts { cwd: None, ..full });
}

#[test]
fn a_queued_prompt_is_told_in_either_order_of_keys() {
    let expect = Record::Queued { at: Some(T_NANOS), text: "also the tests".into() };
    for attachment in [
        r#"{"type":"queued_command","prompt":"also the tests"}"#,
        r#"{"prompt":[{"type":"text","text":"also the tests"}],"type":"queued_command"}"#,
    ] {
        for line in [
            format!(
                r#"{{"parentUuid":"p","isSidechain":false,"attachment":{attachment},"type":"attachment","timestamp":"{T}"}}"#
            ),
            format!(r#"{{"type":"attachment","timestamp":"{T}","attachment":{attachment}}}"#),
        ] {
            assert_eq!(parse(line.as_bytes()).as_ref(), Ok(&expect), "{line}");
        }
    }
}

// ---- tool results ----

#[test]
fn a_user_line_with_a_tool_result_is_no_prompt() {
    let line = user(json!([
        {"type": "text", "text": "a remark"},
        {"type": "tool_result", "tool_use_id": "t-1", "content": "done", "is_error": false},
        {"type": "tool_result", "tool_use_id": "t-2", "content": "Exit code 1", "is_error": true},
        {"type": "tool_result", "tool_use_id": "t-3"},
        {"type": "tool_result", "content": "nobody asked for this"},
    ]));
    let expect =
        [("t-1", "done", false), ("t-2", "Exit code 1", true), ("t-3", "", false)].map(|(id, output, is_error)| {
            ToolResult { tool_use_id: id.into(), output: output.into(), is_error, ..ToolResult::default() }
        });
    assert_eq!(read(&line), Ok(Record::ToolResults { at: Some(T_NANOS), results: expect.into() }));
}

#[test]
fn text_is_no_tool_result() {
    assert_eq!(prompt(&user(json!([{"type": "text", "text": "tool_result"}]))).text, "tool_result");
}

#[test]
fn the_output_of_a_tool_is_its_text_or_its_blocks_without_the_bytes_of_media() {
    let image = json!({"type": "image", "source": {"type": "base64", "media_type": "image/bmp", "data": "QUJDRA=="}});
    let short = json!({"type": "image", "source": {"media_type": "image/bmp", "base64_bytes": 8}});
    for (content, expect) in [
        (json!("plain"), "plain".to_owned()),
        (json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]), "a\nb".to_owned()),
        (json!([]), String::new()),
        (json!(null), String::new()),
        (json!([image]), format!("[{short}]")),
        (json!([{"type": "text", "text": "a"}, image]), format!("[{},{short}]", json!({"type": "text", "text": "a"}))),
        (
            json!([{"type": "tool_reference", "tool_name": "Grep"}]),
            json!([{"type": "tool_reference", "tool_name": "Grep"}]).to_string(),
        ),
        (json!([1, "x"]), "[1,\"x\"]".to_owned()),
        (
            json!([{"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}]),
            json!([{"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}]).to_string(),
        ),
    ] {
        let line = user(json!([{"type": "tool_result", "tool_use_id": "t", "content": content}]));
        assert_eq!(results(&line)[0].output, expect);
    }
}

fn block(kind: &str, media_type: &str, data: &str) -> Value {
    json!({"type": kind, "source": {"type": "base64", "media_type": media_type, "data": data}})
}

#[test]
fn images_and_documents_are_taken_from_a_prompt_with_where_they_stood() {
    let text = |text: &str| json!({"type": "text", "text": text});
    let (png, pdf) = (block("image", "image/png", "QUJDRA=="), block("document", "application/pdf", "RUZH"));
    let (wrong, url) = (block("image", "image/png", "QUJD*A=="), json!({"type": "image", "source": {"type": "url"}}));
    let odd = json!({"type": "image", "source": 7});
    type Found<'a> = &'a [(usize, &'a [u8])];
    let cases: [(Value, &str, Found); 6] = [
        (json!([png]), "", &[(0, b"ABCD")]),
        (json!([png, text("what is this?"), pdf]), "what is this?", &[(0, b"ABCD"), (13, b"EFG")]),
        (json!([text("ü"), png, pdf, text("b")]), "ü\nb", &[(2, b"ABCD"), (2, b"EFG")]),
        (json!([text("a"), wrong, url, odd, png]), "a", &[(1, b"ABCD")]),
        (json!([text(""), text("b"), png]), "\nb", &[(2, b"ABCD")]),
        (
            json!([png, text("<command-message>x</command-message><command-name>/x</command-name>")]),
            "/x",
            &[(2, b"ABCD")],
        ),
    ];
    for (content, said, expect) in cases {
        let prompt = prompt(&user(content));
        let found: Vec<(usize, &[u8])> = prompt.media.iter().map(|media| (media.at, &media.bytes[..])).collect();
        assert_eq!((&*prompt.text, &*found), (said, expect));
    }
}

#[test]
fn images_and_documents_are_taken_from_the_output_of_a_tool_and_an_empty_string_stands_for_each() {
    let parts = |first: &str, second: &str| json!([block("image", "image/png", first), {"type": "text", "text": "t"}, block("document", "application/pdf", second)]);
    let content = parts("QUJDRA==", "RUZH");
    let line = user(json!([{"type": "tool_result", "tool_use_id": "t", "content": content}]));
    let result = results(&line).remove(0);
    assert_eq!(serde_json::from_str::<Value>(&result.output).unwrap(), parts("", ""));
    let [png, pdf] = &result.media[..] else { panic!("{:?}", result.media) };
    assert_eq!(
        (&png.bytes[..], png.kind, &pdf.bytes[..], pdf.kind),
        (&b"ABCD"[..], "image/png", &b"EFG"[..], "application/pdf")
    );
    let mut output = result.output.clone();
    output.insert_str(pdf.at, "two");
    output.insert_str(png.at, "one");
    assert_eq!(serde_json::from_str::<Value>(&output).unwrap(), parts("one", "two"));
}

#[test]
fn an_error_is_one_only_if_the_line_says_true() {
    for (flag, expect) in [(json!(true), true), (json!(false), false), (json!(null), false)] {
        let line = user(json!([{"type": "tool_result", "tool_use_id": "t", "content": "", "is_error": flag}]));
        assert_eq!(results(&line)[0].is_error, expect, "{flag}");
    }
}

// ---- answers ----

#[test]
fn an_answer_is_read_with_all_it_says() {
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
            Block::Other("redacted_thinking".into()),
        ],
        slug: Some("red-fox".into()),
        forked_from: Some("s-0".into()),
        service: Service::default(),
    };
    line["requestSessionId"] = json!("s-0");
    assert_eq!(assistant(&line), expect);
}

#[test]
fn what_an_answer_does_not_say_has_a_default() {
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
fn the_role_stands_in_for_a_missing_type() {
    let line = json!({"message": {"role": "assistant", "id": "m", "content": "yes"}});
    assert_eq!(assistant(&line).blocks, [Block::Text("yes".into())]);
    assert_eq!(prompt(&json!({"message": {"role": "user", "content": "hi"}})).text, "hi");
}

#[test]
fn content_may_stand_at_the_top_of_a_line() {
    assert_eq!(prompt(&json!({"type": "user", "content": "hi"})).text, "hi");
    assert_eq!(assistant(&json!({"type": "assistant", "content": "yes"})).blocks, [Block::Text("yes".into())]);
    let both = json!({"type": "user", "content": "outer", "message": {"content": "inner"}});
    assert_eq!(prompt(&both).text, "inner");
}

#[test]
fn the_time_is_the_lines_own_or_else_its_messages() {
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
fn token_counts_are_read_whatever_they_are_written_as() {
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
fn cache_writes_without_a_lifetime_are_what_is_left_and_never_negative() {
    for ((all, short, long), rest) in [((6, 1, 2), 3), ((6, 0, 0), 6), ((6, 2, 4), 0), ((3, 2, 4), 0)] {
        let usage =
            Usage { cache_creation: all, cache_creation_5m: short, cache_creation_1h: long, ..Usage::default() };
        assert_eq!(usage.cache_creation_rest(), rest);
    }
}

#[test]
fn synthetic_words_are_an_error_or_nothing() {
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
fn a_line_of_a_subagent_says_what_it_would_say_elsewhere_and_whose_it_is() {
    for line in [user(json!("go")), answer(json!("gone"))] {
        let mut side = with(line.clone(), "isSidechain", json!(true));
        side["parentUuid"] = json!("p-1");
        side["agentId"] = json!("a-7");
        let Ok(Record::Side(found)) = read(&side) else { panic!("{side}") };
        assert_eq!((found.parent.as_deref(), found.agent_id.as_deref()), (Some("p-1"), Some("a-7")));
        assert_eq!(Ok(found.record), read(&line));
    }
}

#[test]
fn a_result_names_the_subagent_its_call_launched() {
    let launched = |agent: &str, is_async| Some(Launched { agent_id: agent.into(), is_async });
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

// ---- what else a transcript says ----

#[test]
fn fallbacks_hook_feedback_titles_and_denials_are_told() {
    let fallback = json!({"type": "system", "subtype": "model_fallback", "timestamp": T, "originalModel": "a",
        "fallbackModel": "b", "trigger": "overloaded"});
    let told = Record::Fallback { at: Some(T_NANOS), from: "a".into(), to: "b".into(), trigger: "overloaded".into() };
    assert_eq!(read(&fallback), Ok(told));
    let feedback = with(user(json!("Stop hook feedback:\n[lint]: fix it")), "isMeta", json!(true));
    let told = Record::HookFeedback { at: Some(T_NANOS), text: "[lint]: fix it".into() };
    assert_eq!(read(&feedback), Ok(told));
    for (line, expect) in [
        (json!({"type": "custom-title", "customTitle": "mine"}), Ok(Record::Title("mine".into()))),
        (json!({"type": "summary", "summary": "of old", "leafUuid": "l"}), Ok(Record::Title("of old".into()))),
        (json!({"type": "summary", "summary": " "}), Err(Skip::Bookkeeping)),
        (json!({"type": "custom-title"}), Err(Skip::Bookkeeping)),
    ] {
        assert_eq!(read(&line), expect, "{line}");
    }
    let mut denied = user(json!([{"type": "tool_result", "tool_use_id": "t", "content": "no", "is_error": true}]));
    denied["toolDenialKind"] = json!("user-rejected");
    match read(&denied) {
        Ok(Record::ToolResults { results, .. }) => assert_eq!(results[0].denied.as_deref(), Some("user-rejected")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_compaction_is_told_with_what_is_known_of_it() {
    let line = |meta: Value| json!({"type": "system", "subtype": "compact_boundary", "timestamp": T, "content": "Conversation compacted", "compactMetadata": meta});
    for (meta, trigger, tokens) in [
        (json!({"trigger": "auto", "preTokens": 9000, "postTokens": 800}), "auto", (Some(9000), Some(800))),
        (json!({"trigger": "manual", "preTokens": 9000, "durationMs": 5}), "manual", (Some(9000), None)),
        (json!({}), "", (None, None)),
        (json!(null), "", (None, None)),
    ] {
        let expect = Record::Compacted { at: Some(T_NANOS), trigger: trigger.into(), tokens };
        assert_eq!(read(&line(meta)), Ok(expect));
    }
}

#[test]
fn a_retry_says_which_try_it_was() {
    let line = json!({"type": "system", "subtype": "api_error", "timestamp": T, "retryAttempt": 2, "retryInMs": 900});
    assert_eq!(read(&line), Ok(Record::Retry { at: Some(T_NANOS), status: None, attempt: Some(2) }));
}

#[test]
fn a_retry_says_the_status_it_was_for() {
    let line = json!({"type": "system", "subtype": "api_error", "timestamp": T, "level": "error", "retryAttempt": 1,
        "error": {"message": "529 {}", "status": 529, "formatted": "529 Overloaded", "connection": null}});
    assert_eq!(read(&line), Ok(Record::Retry { at: Some(T_NANOS), status: Some(529), attempt: Some(1) }));
}

#[test]
fn a_request_is_read_no_further_than_its_id_and_time() {
    let expect = Ok(Record::Request { id: "r-1".into(), at: T_NANOS });
    for line in [
        format!(r#"{{"type":"api-request","sessionId":"s","id":"r-1","timestamp":"{T}","messages":[1,2]}}"#),
        format!(r#"{{"type":"api-request","timestamp":"{T}","id":"r-1"}}"#),
        format!(r#"{{"type":"api-request","id":"r-1","timestamp":"{T}","messages":[{{"never":"closed"#),
        format!(r#"{{"type":"api-request","tools":[{{"x":"\ud83d"}}],"id":"r-1","timestamp":"{T}"}}"#),
    ] {
        assert_eq!(parse(line.as_bytes()), expect, "{line}");
    }
    for line in [
        r#"{"type":"api-request"}"#.to_owned(),
        r#"{"type":"api-request","id":"r-1"}"#.to_owned(),
        r#"{"type":"api-request","id":"r-1","timestamp":"never"}"#.to_owned(),
        format!(r#"{{"type":"api-request","id":7,"timestamp":"{T}"}}"#),
    ] {
        assert_eq!(parse(line.as_bytes()), Err(Skip::UnexpectedShape), "{line}");
    }
}

#[test]
fn bookkeeping_is_known_by_its_opening_bytes_and_by_its_type() {
    assert!(BOOKKEEPING.is_sorted(), "a binary search looks for them");
    for kind in BOOKKEEPING.map(|kind| String::from_utf8(kind.to_vec()).unwrap()) {
        for line in [
            format!(r#"{{"type":"{kind}","content":{{"never":"parsed"#),
            format!(r#"{{"sessionId":"s","type":"{kind}"}}"#),
        ] {
            assert_eq!(parse(line.as_bytes()), Err(Skip::Bookkeeping), "{line}");
        }
    }
    for line in [
        r#"{"parentUuid":null,"isSidechain":false,"attachment":{"type":"prompt_snapshot","never":"parsed"#,
        r#"{"parentUuid":"p","isSidechain":true,"attachment":{"type":"date"},"type":"attachment"}"#,
        r#"{"type":"attachment","attachment":{"type":"date","content":"2026-03-01"}}"#,
        r#"{"type":"attachment","attachment":{"type":"queued_command"}}"#,
        r#"{"type":"attachment"}"#,
        r#"{"type":"system","subtype":"turn_duration","durationMs":5}"#,
        r#"{"type":"system","subtype":"stop_hook_summary"}"#,
        r#"{"type":"system"}"#,
    ] {
        assert_eq!(parse(line.as_bytes()), Err(Skip::Bookkeeping), "{line}");
    }
}

#[test]
fn every_other_line_is_passed_over_for_a_reason_of_its_own() {
    for (line, skip, reason) in [
        ("", Skip::Bookkeeping, None),
        (" \r", Skip::Bookkeeping, None),
        ("\0\0\0", Skip::Bookkeeping, None),
        ("{not json", Skip::NotJson, Some("not_json")),
        (r#"{"type":"user","message":{"content":"cut"#, Skip::NotJson, Some("not_json")),
        (r#"{"type":"user"}{"type":"user"}"#, Skip::NotJson, Some("not_json")),
        ("[1,2]", Skip::UnexpectedShape, Some("unexpected_shape")),
        ("5", Skip::UnexpectedShape, Some("unexpected_shape")),
        (r#"{"type":5}"#, Skip::UnexpectedShape, Some("unexpected_shape")),
        (r#"{"type":"user","message":"hi"}"#, Skip::UnexpectedShape, Some("unexpected_shape")),
        (r#"{"type":"user","message":{"content":{"text":"hi"}}}"#, Skip::UnexpectedShape, Some("unexpected_shape")),
        (r#"{"type":"brand-new"}"#, Skip::UnknownKind, Some("unknown_kind")),
        (r#"{"type":"user-ish","message":{"content":"hi"}}"#, Skip::UnknownKind, Some("unknown_kind")),
        (r#"{"message":{"content":"hi"}}"#, Skip::UnknownKind, Some("unknown_kind")),
        ("{}", Skip::UnknownKind, Some("unknown_kind")),
    ] {
        assert_eq!(parse(line.as_bytes()), Err(skip), "{line}");
        assert_eq!(skip.reason(), reason);
    }
    assert_eq!(Skip::TooLong.reason(), Some("too_long"));
}

// ---- bytes that are not what they should be ----

#[test]
fn half_a_surrogate_pair_does_not_cost_the_line() {
    for (escaped, expect) in
        [(r"cut \ud83d", "cut "), (r"\ude00 rest", " rest"), (r"\ud83d\ude00", "\u{1f600}"), (r"\ud83dx", "x")]
    {
        let line = format!(r#"{{"type":"user","message":{{"content":"{escaped}"}}}}"#);
        let Ok(Record::Prompt(prompt)) = parse(line.as_bytes()) else { panic!("{line}") };
        assert_eq!(prompt.text.replace('\u{fffd}', ""), expect, "{line}");
        let line = format!(
            r#"{{"type":"user","toolUseResult":"{escaped}","message":{{"content":[{{"type":"tool_result","tool_use_id":"t","content":[{{"type":"text","text":"{escaped}"}}]}}]}}}}"#
        );
        let Ok(Record::ToolResults { results, .. }) = parse(line.as_bytes()) else { panic!("{line}") };
        assert_eq!(results[0].output.replace('\u{fffd}', ""), expect, "{line}");
    }
}

#[test]
fn bytes_that_are_not_utf_8_are_replaced_and_the_line_kept() {
    let Ok(Record::Prompt(prompt)) = parse(b"{\"type\":\"user\",\"message\":{\"content\":\"caf\xe9!\"}}") else {
        panic!()
    };
    assert_eq!(prompt.text, "caf\u{fffd}!");
    let line = b"{\"type\":\"assistant\",\"message\":{\"content\":[{\"type\":\"tool_use\",\"id\":\"t\",\"name\":\"B\",\"input\":{\"x\":\"\xff\"}}]}}";
    let Ok(Record::Assistant(answer)) = parse(line) else { panic!() };
    let expect = Block::ToolUse { id: "t".into(), name: "B".into(), input: "{\"x\":\"\u{fffd}\"}".into() };
    assert_eq!(answer.blocks, [expect]);
    assert_eq!(parse(b"\xff\xfe"), Err(Skip::NotJson));
}

#[test]
fn a_hole_of_nul_bytes_before_a_line_is_passed_over() {
    for padding in ["\0", "\0\0\0\0\0\0\0\0", " \0\0", "\0\0 "] {
        let line = format!("{padding}{}", user(json!("after the crash")));
        let Ok(Record::Prompt(prompt)) = parse(line.as_bytes()) else { panic!("{padding:?}") };
        assert_eq!(prompt.text, "after the crash");
    }
}

#[test]
fn a_carriage_return_does_not_belong_to_the_line() {
    let line = format!("{}\r", user(json!("from elsewhere")));
    assert!(matches!(parse(line.as_bytes()), Ok(Record::Prompt(prompt)) if prompt.text == "from elsewhere"));
}

#[test]
fn both_spellings_of_the_session_id_may_stand_on_one_line() {
    let line = r#"{"type":"user","sessionId":"s-1","session_id":"s-2","message":{"content":"hi"}}"#;
    assert!(matches!(parse(line.as_bytes()), Ok(Record::Prompt(_))));
    assert_eq!(session_id(line.as_bytes()).as_deref(), Some("s-1"));
}

#[test]
fn the_session_id_of_a_line_is_found_if_it_has_one() {
    for (line, expect) in [
        (r#"{"type":"user","sessionId":"s-1"}"#, Some("s-1")),
        (r#"{"type":"file-history-snapshot","snapshot":{"x":[1]}}"#, None),
        (r#"{"sessionId":null}"#, None),
        (r#"{"sessionId":7}"#, None),
        (r#"{"sessionId":"s-1""#, None),
        ("", None),
    ] {
        assert_eq!(session_id(line.as_bytes()).as_deref(), expect, "{line}");
    }
}

#[test]
fn only_some_lines_can_be_parsed_and_each_stands_alone() {
    let file =
        format!("{}\n{{\"type\":\n\n{}\nnull\n{}", user(json!("one")), answer(json!("two")), user(json!("three")));
    let kept = file.lines().filter(|line| parse(line.as_bytes()).is_ok()).count();
    assert_eq!(kept, 3);
}

/// JSON that is nearly a transcript line: known keys with values of every type.
fn near_line() -> impl Strategy<Value = Value> {
    const KEYS: [&str; 24] = [
        "type",
        "uuid",
        "timestamp",
        "message",
        "content",
        "role",
        "id",
        "model",
        "usage",
        "isMeta",
        "isSidechain",
        "subtype",
        "attachment",
        "prompt",
        "tool_use_id",
        "text",
        "thinking",
        "name",
        "input",
        "source",
        "data",
        "compactMetadata",
        "preTokens",
        "input_tokens",
    ];
    const WORDS: [&str; 14] = [
        "user",
        "assistant",
        "system",
        "attachment",
        "text",
        "tool_use",
        "tool_result",
        "image",
        "queued_command",
        "compact_boundary",
        "api_error",
        "<synthetic>",
        "<command-name>/x",
        T,
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        proptest::sample::select(&WORDS[..]).prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 48, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((proptest::sample::select(&KEYS[..]), inner), 0..8)
                .prop_map(|pairs| pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ]
    })
}

const OPENINGS: [&[u8]; 6] = [
    b"{\"type\":\"",
    b"{\"type\":\"api-request\",",
    b"{\"parentUuid\":null,",
    b"{\"parentUuid\":\"",
    b"{\"parentUuid\":null,\"isSidechain\":false,\"attachment\":{\"type\":\"",
    b"\0\0{",
];

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(&bytes);
        let _ = session_id(&bytes);
    }

    #[test]
    fn bytes_that_open_like_a_line_never_panic(
        opening in proptest::sample::select(&OPENINGS[..]),
        rest in proptest::collection::vec(prop_oneof![any::<u8>(), proptest::sample::select(&b"{}[]\",:\\ud8"[..])], 0..100),
    ) {
        let _ = parse(&[opening, &rest].concat());
    }

    #[test]
    fn json_is_never_called_something_else(line in near_line()) {
        prop_assert_ne!(read(&line), Err(Skip::NotJson));
    }

    #[test]
    fn a_line_cut_anywhere_never_panics_and_is_never_half_an_answer(cut in 0usize..400) {
        let line = answer(json!([{"type": "text", "text": "h\u{e4}lf \u{1f600}"}])).to_string();
        let cut = cut.min(line.len() - 1);
        prop_assert!(parse(&line.as_bytes()[..cut]).is_err());
    }

    #[test]
    fn any_text_comes_through_a_prompt_unchanged(text in "[^<\\[\\s]\\PC*") {
        prop_assert_eq!(prompt(&user(json!(text.clone()))).text, text);
    }
}
