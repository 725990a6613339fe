use super::*;

fn sizes_only() -> Options {
    Options { capture: Capture::Metadata, ..Options::default() }
}

#[test]
fn in_metadata_mode_sizes_replace_text() {
    let spans = encoded(&conversation(), &sizes_only());
    let [turn, first, tool, second] = &spans[..] else { panic!("{}", spans.len()) };
    assert_eq!(parsed(turn, "langfuse.observation.input"), json!([{"role": "user", "content": "[15 characters]"}]));
    assert_eq!(parsed(turn, "langfuse.trace.output"), json!({"role": "assistant", "content": "[6 characters]"}));
    let call = json!({"id": "t1", "type": "function", "function": {"name": "Bash", "arguments": "[16 characters]"}});
    let thinking = json!({"type": "thinking", "content": "[10 characters]"});
    let said = json!({"role": "assistant", "content": "[13 characters]", "tool_calls": [call], "thinking": [thinking]});
    assert_eq!(parsed(first, "langfuse.observation.output"), said);
    assert_eq!(tool.text("langfuse.observation.input"), Some("[16 characters]"));
    assert_eq!(tool.text("langfuse.observation.output"), Some("[1 characters]"));
    // Everything but text is the same.
    for (spans, full) in spans.iter().zip(encoded(&conversation(), &Options::default())) {
        let meta = |span: &WireSpan| -> Vec<_> {
            let is_text = |key: &str| key.ends_with(".input") || key.ends_with(".output");
            span.attributes.iter().filter(|(key, _)| !is_text(key)).cloned().collect()
        };
        assert_eq!(meta(spans), meta(&full));
        assert_eq!((&spans.name, spans.start_ns, spans.end_ns), (&full.name, full.start_ns, full.end_ns));
    }
    assert!(second.text("langfuse.observation.usage_details").is_some());
}

#[test]
fn in_metadata_mode_errors_and_queued_prompts_are_sizes() {
    let queued = json!({"type": "attachment", "timestamp": "2026-03-01T10:00:01.700Z",
        "attachment": {"type": "queued_command", "prompt": "also the tests"}});
    let mut lines = conversation();
    lines[2] = result("t1", json!("permission denied: /etc/shadow"), true);
    lines.insert(3, queued);
    let spans = encoded(&lines, &sizes_only());
    let queued = spans.iter().find(|span| span.name == "queued prompt").unwrap();
    assert_eq!(queued.text("langfuse.observation.input"), Some(r#"[{"role":"user","content":"[14 characters]"}]"#));
    let failed = spans.iter().find(|span| span.text("langfuse.observation.type") == Some("tool")).unwrap();
    assert_eq!(failed.text("langfuse.observation.level"), Some("ERROR"));
    assert_eq!(failed.text("langfuse.observation.status_message"), Some("[30 characters]"));
    assert_eq!(failed.status.error(), Some("[30 characters]"));
    // Texts of this program stay.
    lines.truncate(2);
    let waiting = encoded(&lines, &sizes_only());
    assert_eq!(waiting[2].text("langfuse.observation.status_message"), Some("no result"));
}

#[test]
fn in_metadata_mode_a_subagent_shows_only_its_type() {
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
    let said = |span: &WireSpan| {
        let keys = ["input", "output", "metadata.description", "metadata.agent_type"];
        keys.map(|key| span.text(&format!("langfuse.observation.{key}")).unwrap_or_default().to_owned())
    };
    assert_eq!(said(&agent(&Options::default()))[2], "Find the leak");
    assert_eq!(
        said(&agent(&sizes_only())),
        [
            r#"[{"role":"user","content":"[14 characters]"}]"#,
            r#"{"role":"assistant","content":"[9 characters]"}"#,
            "[13 characters]",
            "Explore",
        ]
    );
}
