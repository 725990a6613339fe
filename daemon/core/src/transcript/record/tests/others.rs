use super::*;

#[test]
fn fallbacks_hook_feedback_titles_and_denials_are_records() {
    let fallback = json!({"type": "system", "subtype": "model_fallback", "timestamp": T, "originalModel": "a",
        "fallbackModel": "b", "trigger": "overloaded"});
    let expect = Record::Fallback { at: Some(T_NANOS), from: "a".into(), to: "b".into(), trigger: "overloaded".into() };
    assert_eq!(read(&fallback), Ok(expect));
    let feedback = with(user(json!("Stop hook feedback:\n[lint]: fix it")), "isMeta", json!(true));
    let expect = Record::HookFeedback { at: Some(T_NANOS), text: "[lint]: fix it".into() };
    assert_eq!(read(&feedback), Ok(expect));
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
fn a_compaction_has_its_known_details() {
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
fn a_retry_has_its_attempt_number() {
    let line = json!({"type": "system", "subtype": "api_error", "timestamp": T, "retryAttempt": 2, "retryInMs": 900});
    assert_eq!(read(&line), Ok(Record::Retry { at: Some(T_NANOS), status: None, attempt: Some(2) }));
}

#[test]
fn a_retry_has_the_status_of_the_failed_request() {
    let line = json!({"type": "system", "subtype": "api_error", "timestamp": T, "level": "error", "retryAttempt": 1,
        "error": {"message": "529 {}", "status": 529, "formatted": "529 Overloaded", "connection": null}});
    assert_eq!(read(&line), Ok(Record::Retry { at: Some(T_NANOS), status: Some(529), attempt: Some(1) }));
}

#[test]
fn only_id_and_time_of_a_request_are_read() {
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
        format!(r#"{{"type":"api-request","id":[7],"timestamp":"{T}"}}"#),
    ] {
        assert_eq!(parse(line.as_bytes()), Err(Skip::UnexpectedShape), "{line}");
    }
}

#[test]
fn bookkeeping_is_recognised_by_opening_bytes_and_by_type() {
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
        r#"{"parentUuid":null,"isSidechain":false,"attachment":{"type":"prompt_snapshot","x":[1]},"type":"attachment","uuid":"u"}"#,
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
fn every_other_line_is_skipped_with_a_reason() {
    for (line, skip, reason) in [
        ("", Skip::Bookkeeping, None),
        (" \r", Skip::Bookkeeping, None),
        ("\0\0\0", Skip::Bookkeeping, None),
        ("{not json", Skip::NotJson, Some("not_json")),
        (r#"{"type":"user","message":{"content":"cut"#, Skip::NotJson, Some("not_json")),
        ("[1,2]", Skip::UnexpectedShape, Some("unexpected_shape")),
        ("5", Skip::UnexpectedShape, Some("unexpected_shape")),
        (r#"{"type":5}"#, Skip::UnknownKind, Some("unknown_kind")),
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

#[test]
fn unknown_fields_are_named_with_their_path() {
    let new = |line: Value| {
        let line = with(line, "brandNew", json!({"type": "x"}));
        with(line, "n\u{e9}w \u{1b}[31m", json!(1))
    };
    let mut said = new(answer(json!([])));
    said["message"]["also"] = json!(null);
    said["message"]["usage"]["audio_tokens"] = json!(7);
    for (line, expect) in [
        (new(user(json!("hello"))), &["user.brandNew", "user.nw[31m"][..]),
        (
            said,
            &[
                "assistant.brandNew",
                "assistant.nw[31m",
                "assistant.message.also",
                "assistant.message.usage.audio_tokens",
            ],
        ),
        (with(answer(json!([])), "message", json!("odd")), &[]),
        (new(json!({"type": "attachment"})), &[]),
        (json!([1]), &[]),
    ] {
        assert_eq!(unknown_fields(line.to_string().as_bytes()), expect, "{line}");
    }
}

#[test]
fn every_field_of_the_recorded_sessions_is_known() {
    assert!(
        [&fields::LINE[..], &fields::MESSAGE, &fields::USAGE].iter().all(|known| known.is_sorted()),
        "searched by halves"
    );
    fn below(dir: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
        for path in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() { below(&path, found) } else { found.push(path) }
        }
    }
    let mut paths = Vec::new();
    below(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures").as_ref(), &mut paths);
    paths.retain(|path| path.extension().is_some_and(|ext| ext == "jsonl") && !path.ends_with("hooks.jsonl"));
    assert!(paths.len() > 50);
    for path in paths {
        for line in std::fs::read(&path).unwrap().split(|byte| *byte == b'\n') {
            assert_eq!(unknown_fields(line), [""; 0], "{}", path.display());
        }
    }
}
