use super::*;

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
fn a_tool_output_is_its_text_or_its_blocks_without_media_bytes() {
    let image = json!({"type": "image", "source": {"type": "base64", "media_type": "image/bmp", "data": "QUJDRA=="}});
    let short = json!({"type": "image", "source": {"media_type": "image/bmp", "base64_bytes": 8}});
    for (content, expect) in [
        (json!("plain"), "plain".to_owned()),
        (json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]), "a\nb".to_owned()),
        (json!([]), String::new()),
        (json!(null), "null".to_owned()),
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
fn media_are_extracted_from_a_prompt_with_their_offsets() {
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
fn media_are_extracted_from_a_tool_output_and_leave_an_empty_string() {
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
fn a_result_is_an_error_only_if_its_flag_is_true() {
    for (flag, expect) in [(json!(true), true), (json!(false), false), (json!(null), false)] {
        let line = user(json!([{"type": "tool_result", "tool_use_id": "t", "content": "", "is_error": flag}]));
        assert_eq!(results(&line)[0].is_error, expect, "{flag}");
    }
}
