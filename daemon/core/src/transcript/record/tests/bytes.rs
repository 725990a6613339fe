use super::*;

#[test]
fn half_a_surrogate_pair_does_not_lose_the_line() {
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
fn nul_bytes_before_a_line_are_skipped() {
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
fn one_line_may_have_both_spellings_of_the_session_id() {
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
    fn valid_json_is_never_reported_as_invalid(line in near_line()) {
        prop_assert_ne!(read(&line), Err(Skip::NotJson));
    }

    #[test]
    fn a_truncated_line_never_panics_and_is_never_half_an_answer(cut in 0usize..400) {
        let line = answer(json!([{"type": "text", "text": "h\u{e4}lf \u{1f600}"}])).to_string();
        let cut = cut.min(line.len() - 1);
        prop_assert!(parse(&line.as_bytes()[..cut]).is_err());
    }

    #[test]
    fn any_text_comes_through_a_prompt_unchanged(text in "[^<\\[\\s]\\PC*") {
        prop_assert_eq!(prompt(&user(json!(text.clone()))).text, text);
    }
}
