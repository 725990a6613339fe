use super::*;

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
            position: None,
            initiator: None,
            uuid: Some("u-1".into()),
            parent: None,
            at: Some(T_NANOS),
            queued_ms: None,
            text: text.into(),
            context: String::new(),
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
fn an_empty_or_unreadable_prompt_counts_only_if_answered() {
    for line in [
        user(json!("")),
        user(json!(" \n\t")),
        user(json!([])),
        user(json!(null)),
        user(json!(true)),
        user(json!([{"type": "text", "text": " "}])),
        user(json!([{"type": "text", "text": {"value": "hi"}}])),
        json!({"type": "user"}),
        json!({"type": "user", "message": {}}),
        json!({"type": "user", "message": "hi"}),
    ] {
        let prompt = prompt(&line);
        assert_eq!((prompt.kind, prompt.text.as_str()), (PromptKind::Blank, ""), "{line}");
    }
}

#[test]
fn an_untyped_user_line_is_no_prompt() {
    for line in [
        with(user(json!("scaffolding")), "isMeta", json!(true)),
        with(user(json!("This session is being continued")), "isCompactSummary", json!(true)),
        with(user(json!("only shown")), "isVisibleInTranscriptOnly", json!(true)),
    ] {
        let prompt = prompt(&line);
        assert_eq!((prompt.kind, prompt.text.is_empty()), (PromptKind::StandIn, false), "{line}");
    }
    for line in [
        with(user(json!(" ")), "isMeta", json!(true)),
        with(user(json!(null)), "sourceToolAssistantUUID", json!("a-1")),
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
fn the_start_of_a_user_line_decides_its_kind() {
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
    for (content, text, agent_id) in [
        ("<local-command-stdout>x</local-command-stdout>", "x", None),
        ("<local-command-stdout>cut", "", None),
        ("", "", None),
        (
            "<local-command-stdout>Running</local-command-stdout>\n<forked-skill-launch>{\"agentId\":\"a1\"}</forked-skill-launch>",
            "Running",
            Some("a1".to_owned()),
        ),
        ("<forked-skill-launch>odd</forked-skill-launch>", "", None),
    ] {
        let line = json!({"type": "system", "subtype": "local_command", "parentUuid": "p", "timestamp": T, "content": content});
        let (at, parent) = (Some(T_NANOS), Some("p".to_owned()));
        assert_eq!(read(&line), Ok(Record::CommandOutput { at, parent, text: text.into(), agent_id }), "{content}");
    }
    for content in
        ["<bash-stdout>a.txt</bash-stdout><bash-stderr></bash-stderr>", "<bash-stderr>not found</bash-stderr>"]
    {
        assert_eq!(read(&user(json!(content))), Err(Skip::Bookkeeping), "the model may answer it: {content}");
    }
}

#[test]
fn an_interrupt_is_no_prompt() {
    for content in [
        json!("[Request interrupted by user]"),
        json!([{"type": "text", "text": "[Request interrupted by user]"}]),
        json!([{"type": "text", "text": "[Request interrupted by user for tool use]"}]),
    ] {
        assert_eq!(read(&user(content)), Ok(Record::Interrupted { at: Some(T_NANOS) }));
    }
}

#[test]
fn a_prompt_line_has_the_facts_of_its_session() {
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
        team: Some("session-0a1b2c3d".into()),
        teammate: Some("bob".into()),
        lead: None,
    };
    (line["teamName"], line["agentName"]) = (json!("session-0a1b2c3d"), json!("bob"));
    line["forkedFrom"] = json!({"sessionId": "s-0", "messageUuid": "u-0"});
    assert_eq!(prompt(&line).session, full);
    line["cwd"] = json!(null);
    line["teamName"] = json!({"odd": 1});
    assert_eq!(prompt(&line).session, SessionFacts { cwd: None, team: None, ..full });
}

#[test]
fn a_queued_prompt_is_read_in_either_order_of_keys() {
    let expect = Record::Queued { at: Some(T_NANOS), text: "also the tests".into(), media: Vec::new() };
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

#[test]
fn a_prompt_has_its_position_if_claude_code_counts() {
    for (position, expect) in [
        (json!({"promptIndex": 0, "turnIndex": 3}), Some(3)),
        (json!({"turnIndex": -1}), None),
        (json!({"turnIndex": u64::MAX}), None),
        (json!({"promptIndex": 1}), None),
        (json!(null), None),
        (json!(7), None),
    ] {
        let line = with(user(json!("go on")), "turnPosition", position.clone());
        assert_eq!(prompt(&line).position, expect, "{position}");
    }
    assert_eq!(prompt(&user(json!("go on"))).position, None);
}
