//! What the user typed, as opposed to the text around it.

use super::*;

fn text(text: &str) -> Value {
    json!({"type": "text", "text": text})
}

const FILE: &str = "<ide_opened_file>The user opened /w/notes.md in the IDE.</ide_opened_file>";
const LINES: &str = "<ide_selection file=\"a\">lines 1 to 3:\nplans</ide_selection>";
const REMINDER: &str = "<system-reminder>\nMind the gap.\n</system-reminder>";

#[test]
fn a_prompt_is_what_was_typed_and_the_rest_is_its_context() {
    let review = "<command-message>review</command-message>\n<command-name>/review</command-name>\n<command-args>12</command-args>";
    for (content, kind, typed, context) in [
        (json!([text(FILE), text("one plan")]), PromptKind::Plain, "one plan", FILE.to_owned()),
        (json!([text(FILE), text(LINES), text("shorter")]), PromptKind::Plain, "shorter", format!("{FILE}\n{LINES}")),
        (json!(format!("{FILE}\none plan")), PromptKind::Plain, "one plan", FILE.to_owned()),
        (
            json!(format!("{REMINDER}\n{FILE}\n\none plan\n{REMINDER}")),
            PromptKind::Plain,
            "one plan",
            format!("{REMINDER}\n{FILE}\n{REMINDER}"),
        ),
        (json!([text("one plan"), text(REMINDER)]), PromptKind::Plain, "one plan", REMINDER.to_owned()),
        (json!([text("a"), text(FILE), text("b")]), PromptKind::Plain, "a\nb", FILE.to_owned()),
        (json!([text(FILE), text(review)]), PromptKind::Command, "/review 12", FILE.to_owned()),
        (json!([text(FILE), text("<command-name>/cost</command-name>")]), PromptKind::Local, "/cost", FILE.to_owned()),
        (json!([text(FILE), text("<bash-input>ls</bash-input>")]), PromptKind::Local, "!ls", FILE.to_owned()),
        (
            json!("<post-tool-use-hook><ide_diagnostics>x</ide_diagnostics></post-tool-use-hook>fix it"),
            PromptKind::Plain,
            "fix it",
            "<post-tool-use-hook><ide_diagnostics>x</ide_diagnostics></post-tool-use-hook>".to_owned(),
        ),
        // Tags that the user wrote are part of the text.
        (
            json!("what does <ide_selection>x</ide_selection> mean?"),
            PromptKind::Plain,
            "what does <ide_selection>x</ide_selection> mean?",
            String::new(),
        ),
        (json!("<ide_selection> is never closed"), PromptKind::Plain, "<ide_selection> is never closed", String::new()),
        (json!("<div>x</div>"), PromptKind::Plain, "<div>x</div>", String::new()),
        (json!("  as it is \n"), PromptKind::Plain, "  as it is \n", String::new()),
    ] {
        let prompt = prompt(&user(content.clone()));
        assert_eq!((prompt.kind, prompt.text.as_str(), prompt.context), (kind, typed, context), "{content}");
    }
}

#[test]
fn an_interruption_is_recognised_after_any_text() {
    let line = user(json!([text(FILE), text("[Request interrupted by user]")]));
    assert_eq!(read(&line), Ok(Record::Interrupted { at: Some(T_NANOS) }));
}

#[test]
fn untyped_text_begins_no_turn() {
    let aside = |by, text: &str, ahead| Ok(Record::Aside(Aside { at: Some(T_NANOS), by, text: text.into(), ahead }));
    for (line, expect) in [
        (user(json!(REMINDER)), aside(By::Harness, REMINDER, false)),
        (
            with(user(json!("Remember the rules.")), "rowSource", json!("harness")),
            aside(By::Harness, "Remember the rules.", false),
        ),
        (with(user(json!("Hook says")), "rowSource", json!("hook")), aside(By::Harness, "Hook says", false)),
        (
            with(with(user(json!("Output token limit hit.")), "isMeta", json!(true)), "ownNote", json!(true)),
            aside(By::Harness, "Output token limit hit.", false),
        ),
        (
            with(user(json!("only for your information")), "queueTranscriptOnly", json!(true)),
            aside(By::Silent, "only for your information", true),
        ),
    ] {
        assert_eq!(read(&line), expect, "{line}");
    }
    for by in ["local", "recorded", "", "brand-new"] {
        assert_eq!(prompt(&with(user(json!("typed")), "rowSource", json!(by))).text, "typed", "{by}");
    }
}

#[test]
fn a_prompt_says_how_long_it_waited_after_it_was_typed() {
    let typed_ms = T_NANOS / 1_000_000;
    for (sent, expect) in [
        (json!(typed_ms - 2600), Some(2600)),
        (json!(typed_ms), Some(0)),
        (json!(typed_ms + 1), None),
        (json!(1), None),
        (json!("soon"), None),
        (json!(null), None),
    ] {
        let found = prompt(&with(user(json!("typed")), "sentAtMs", sent.clone()));
        assert_eq!((found.queued_ms, &*found.text), (expect, "typed"), "{sent}");
    }
}

#[test]
fn a_message_of_another_session_is_shown_without_its_wrapper() {
    let wrapped = "Another Claude session sent a message:\n<agent-message from=\"alice\">\nalice is done\n</agent-message>\n\nThat is an agent.";
    let origin = |origin: Value| with(user(json!(wrapped)), "origin", origin);
    for line in [origin(json!({"kind": "peer", "body": "alice is done"})), origin(json!({"kind": "peer"}))] {
        let prompt = prompt(&line);
        assert_eq!((prompt.text.as_str(), prompt.context.as_str()), ("alice is done", wrapped), "{line}");
    }
    assert_eq!(prompt(&origin(json!({"kind": "human", "body": "x"}))).text, wrapped);
}

#[test]
fn hook_output_is_read_as_additions_and_rewritten_arguments() {
    let attachment = |attachment: Value| json!({"parentUuid": "p", "isSidechain": false, "attachment": attachment, "type": "attachment", "uuid": "u", "timestamp": T});
    let added = attachment(
        json!({"type": "hook_additional_context", "content": ["mind this", "and that"], "hookName": "PostToolUse:Bash", "hookEvent": "PostToolUse"}),
    );
    let aside = Aside {
        at: Some(T_NANOS),
        by: By::Hook("PostToolUse:Bash".into()),
        text: "mind this\nand that".into(),
        ahead: false,
    };
    assert_eq!(read(&added), Ok(Record::Aside(aside)));
    let start = attachment(json!({"type": "hook_additional_context", "content": "hello", "hookName": "SessionStart"}));
    assert!(matches!(read(&start), Ok(Record::Aside(Aside { ahead: true, .. }))));
    let out = |out: Value| {
        attachment(
            json!({"type": "hook_success", "toolUseID": "t-1", "hookEvent": "PreToolUse", "stdout": format!("{out}\n")}),
        )
    };
    let changed =
        out(json!({"hookSpecificOutput": {"hookEventName": "PreToolUse", "updatedInput": {"command": "ls -l"}}}));
    assert_eq!(
        read(&changed),
        Ok(Record::Rewritten { tool_use_id: "t-1".into(), input: r#"{"command":"ls -l"}"#.into() })
    );
    assert_eq!(parse(changed.to_string().as_bytes()), read(&changed));
    assert_eq!(
        read(&out(json!({"hookSpecificOutput": {"additionalContext": "updatedInput"}}))),
        Err(Skip::Bookkeeping)
    );
    assert_eq!(read(&attachment(json!({"type": "hook_success", "stdout": "ok"}))), Err(Skip::Bookkeeping));
}

#[test]
fn documents_in_a_prompt_are_shown() {
    let document = |source: Value| json!({"type": "document", "title": "notes.txt", "source": source});
    for (source, expect) in [
        (
            json!({"type": "text", "media_type": "text/plain", "data": "line one"}),
            "read this\n[document: notes.txt]\nline one",
        ),
        (
            json!({"type": "content", "content": [{"type": "text", "text": "part"}]}),
            "read this\n[document: notes.txt]\npart",
        ),
        (json!({"type": "content", "content": "part"}), "read this\n[document: notes.txt]\npart"),
        (json!({"type": "url", "url": "https://x/y.pdf"}), "read this\n[document: notes.txt]"),
        (json!({"type": "base64", "media_type": "text/csv", "data": "QUJD"}), "read this\n[document: notes.txt]"),
    ] {
        let prompt = prompt(&user(json!([text("read this"), document(source.clone())])));
        assert_eq!((prompt.text.as_str(), prompt.media.len()), (expect, 0), "{source}");
    }
    let pdf = document(json!({"type": "base64", "media_type": "application/pdf", "data": "QUJDRA=="}));
    let found = prompt(&user(json!([pdf])));
    assert_eq!((found.text.as_str(), found.kind, found.media.len()), ("", PromptKind::Plain, 1));
    let url = json!([{"type": "document", "source": {"type": "url", "url": "https://x/y.pdf"}}]);
    assert_eq!(prompt(&user(url)).text, "[document: https://x/y.pdf]");
}
