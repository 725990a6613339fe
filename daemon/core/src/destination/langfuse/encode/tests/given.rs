//! What surrounds prompts and calls: context, hooks, tools that run in the API, calls to other models.

use super::*;

fn attachment(attachment: Json) -> Json {
    json!({"type": "attachment", "uuid": "x", "timestamp": "2026-03-01T10:00:01Z", "attachment": attachment})
}

fn named<'s>(spans: &'s [WireSpan], name: &str) -> &'s WireSpan {
    spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn an_advisor_is_a_generation_and_a_tool_below_the_asking_call() {
    let usage = json!({"input_tokens": 4, "output_tokens": 100, "iterations": [
        {"type": "message", "input_tokens": 4, "output_tokens": 100},
        {"type": "advisor_message", "model": "model-b[1m]", "input_tokens": 15000, "output_tokens": 800},
        {"type": "compaction", "input_tokens": 9, "output_tokens": 9},
    ]});
    let blocks = json!([
        {"type": "server_tool_use", "id": "s1", "name": "advisor", "input": {}},
        {"type": "advisor_tool_result", "tool_use_id": "s1", "content": {"type": "advisor_result", "text": "two tables"}},
        {"type": "text", "text": "Two."},
    ]);
    // A repeated line with the usage of all of them counts once.
    let again = json!({"type": "assistant", "uuid": "line-2", "timestamp": "2026-03-01T10:00:02Z", "requestId": "req-m1",
        "message": {"id": "m1", "model": "claude-haiku-4-5", "stop_reason": "end_turn", "content": text("Two."), "usage": usage}});
    let spans = encoded(&[prompt(), answer("m1", blocks, usage.clone()), again], &full());
    let call = named(&spans, "claude-haiku-4-5");
    assert_eq!(parsed(call, "langfuse.observation.usage_details"), json!({"input": 4, "output": 100, "total": 104}));
    let advice: Vec<_> = spans.iter().filter(|span| span.name == "model-b[1m]").collect();
    let [advice] = advice[..] else { panic!("{advice:?}") };
    assert_eq!((advice.trace_id, advice.parent_id), (call.trace_id, call.span_id));
    assert_eq!(advice.text("langfuse.observation.model.name"), Some("model-b"));
    assert_eq!(
        parsed(advice, "langfuse.observation.usage_details"),
        json!({"input": 15000, "output": 800, "total": 15800})
    );
    assert!(advice.text("langfuse.observation.output").unwrap().contains("two tables"));
    let tool = named(&spans, "advisor");
    assert_eq!((tool.parent_id, tool.text("langfuse.observation.type")), (call.span_id, Some("tool")));
    assert_eq!(tool.text("langfuse.observation.output"), Some("two tables"));
    assert_eq!(tool.text("langfuse.observation.metadata.runs_on"), Some("server"));
}

#[test]
fn a_server_tool_fails_only_if_its_result_says_so() {
    let call = |id: &str| json!({"type": "server_tool_use", "id": id, "name": id, "input": {"query": "x"}});
    let blocks = json!([
        call("well"), {"type": "web_search_tool_result", "tool_use_id": "well", "content": [{"type": "web_search_result"}]},
        call("ill"), {"type": "web_search_tool_result", "tool_use_id": "ill", "content": {"type": "web_search_tool_result_error", "error_code": "unavailable"}},
        call("open"),
    ]);
    let spans = encoded(&[prompt(), answer("m1", blocks, json!({"output_tokens": 1}))], &full());
    for (name, level) in [("well", None), ("ill", Some("ERROR")), ("open", None)] {
        assert_eq!(named(&spans, name).text("langfuse.observation.level"), level, "{name}");
    }
}

#[test]
fn untyped_text_is_context_and_additions_of_hooks_are_events() {
    let mut typed = prompt();
    typed["message"]["content"] = json!([
        {"type": "text", "text": "<ide_opened_file>notes.md</ide_opened_file>"}, {"type": "text", "text": "make one plan"},
    ]);
    let silent = json!({"type": "user", "uuid": "q", "queueTranscriptOnly": true, "message": {"content": "for later"}});
    let lines = [
        attachment(
            json!({"type": "hook_additional_context", "content": ["from the start"], "hookName": "SessionStart"}),
        ),
        silent,
        typed,
        attachment(
            json!({"type": "hook_additional_context", "content": ["mind the gap"], "hookName": "UserPromptSubmit"}),
        ),
        answer("m1", text("One."), json!({"output_tokens": 1})),
    ];
    let spans = encoded(&lines, &full());
    let root = &spans[0];
    assert_eq!(parsed(root, "langfuse.trace.input")[0]["content"], "make one plan");
    assert_eq!(root.text("langfuse.observation.metadata.context"), Some("<ide_opened_file>notes.md</ide_opened_file>"));
    let events: Vec<_> = spans
        .iter()
        .filter(|span| span.text("langfuse.observation.type") == Some("event"))
        .map(|span| {
            (
                span.name.as_str(),
                parsed(span, "langfuse.observation.input")[0]["content"].clone(),
                span.text("langfuse.observation.metadata.hook"),
            )
        })
        .collect();
    let expect = [
        ("hook context", json!("from the start"), Some("SessionStart")),
        ("silent input", json!("for later"), None),
        ("hook context", json!("mind the gap"), Some("UserPromptSubmit")),
    ];
    assert_eq!(events, expect);
    let sizes = encoded(&lines, &Options { capture: Capture::Metadata, ..full() });
    assert_eq!(sizes[0].text("langfuse.observation.metadata.context"), Some("[43 characters]"));
    assert!(
        sizes
            .iter()
            .all(|span| span.attributes.iter().all(|(_, value)| !format!("{value:?}").contains("mind the gap")))
    );
}

#[test]
fn arguments_rewritten_by_a_hook_are_shown_beside_the_models() {
    let out = json!({"hookSpecificOutput": {"hookEventName": "PreToolUse", "updatedInput": {"command": "wc -l"}}});
    let mut lines = conversation();
    lines.insert(2, attachment(json!({"type": "hook_success", "toolUseID": "t1", "stdout": out.to_string()})));
    let spans = encoded(&lines, &full());
    let tool = named(&spans, "Bash");
    assert_eq!(parsed(tool, "langfuse.observation.input"), json!({"command": "wc"}));
    assert_eq!(parsed(tool, "langfuse.observation.metadata.rewritten_input"), json!({"command": "wc -l"}));
}

#[test]
fn blocks_of_other_kinds_are_listed_with_their_content() {
    let blocks = json!([{"type": "hologram", "depth": 3}, {"type": "redacted_thinking", "data": "x"}, {"type": "text", "text": "so"}]);
    let lines = [prompt(), answer("m1", blocks, json!({"output_tokens": 1}))];
    let of = |capture| {
        let spans = encoded(&lines, &Options { capture, ..full() });
        parsed(named(&spans, "claude-haiku-4-5"), "langfuse.observation.metadata.other_blocks")
    };
    assert_eq!(of(Capture::Full), json!([{"type": "hologram", "depth": 3}, {"type": "redacted_thinking"}]));
    assert_eq!(of(Capture::Metadata), json!([{"type": "hologram"}, {"type": "redacted_thinking"}]));
}
