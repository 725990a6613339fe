use super::*;

// ---- the tree ----

#[test]
fn a_turn_is_a_tree_of_root_calls_and_tools() {
    let assembler = assembled(&conversation());
    let turn = assembler.open().unwrap();
    let found = spans(turn, Scope::Final, Semantics::Spec, None);
    let names: Vec<_> = found.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["Turn 1", "claude-haiku-4-5", "Bash", "Bash", "Bash", "claude-haiku-4-5"]);
    let id = |role, source| span_id(trace_id("p1"), role, source);
    let root = id(Role::Turn, "p1");
    let expect = [
        (root, None),
        (id(Role::Generation, "a"), Some(root)),
        (id(Role::Tool, "t1"), Some(id(Role::Generation, "a"))),
        (id(Role::Tool, "t2"), Some(id(Role::Generation, "a"))),
        (id(Role::Tool, "t3"), Some(id(Role::Generation, "a"))),
        (id(Role::Generation, "b"), Some(root)),
    ];
    assert_eq!(found.iter().map(|span| (span.span_id, span.parent)).collect::<Vec<_>>(), expect);
    assert!(found.iter().all(|span| span.trace_id == trace_id("p1")));
}

#[test]
fn the_prompt_is_on_the_root_and_the_first_call_only() {
    let assembler = assembled(&conversation());
    let found = spans(assembler.open().unwrap(), Scope::Final, Semantics::Spec, None);
    let inputs: Vec<_> = found
        .iter()
        .filter_map(|span| match &span.body {
            Body::Turn(turn) | Body::Agent(turn) => Some(Some(turn.prompt.text.as_str())),
            Body::Generation { input, .. } => Some(input.map(|prompt| prompt.text.as_str())),
            Body::Tool(_) | Body::Advice { .. } | Body::Event { .. } => None,
        })
        .collect();
    assert_eq!(inputs, [Some("do it"), Some("do it"), None]);
    assert!(matches!(&found[0].body, Body::Turn(turn) if turn.output() == "there\ndone"));
}

#[test]
fn each_scope_emits_its_own_spans() {
    let lines = [
        user("p1", 1, "go"),
        calls("a", 2, &["t1"]),
        returns("t1", 3),
        calls("b", 4, &["t2"]),
        says("c", 5, "meanwhile"),
    ];
    let mut assembler = assembled(&lines);
    let turn = assembler.open_mut().unwrap();
    let emitted =
        |turn: &Turn, scope| -> Vec<String> { spans(turn, scope, Semantics::Spec, None).iter().map(label).collect() };
    assert_eq!(emitted(turn, Scope::Part), ["a", "t1"]);
    turn.mark_sent(Scope::Part);
    assert_eq!(emitted(turn, Scope::Settled), ["Turn 1", "b", "c"]);
    turn.mark_sent(Scope::Settled);
    assert_eq!(emitted(turn, Scope::Final), ["Turn 1", "t2"]);
}

// ---- levels ----

fn levels(lines: &[Value]) -> Vec<(String, Level, Option<String>)> {
    let assembler = assembled(lines);
    let found = spans(assembler.open().unwrap(), Scope::Final, Semantics::Spec, None);
    found.iter().map(|span| (label(span), span.level, span.status.clone())).collect()
}

#[test]
fn a_failed_or_unreturned_tool_is_an_error() {
    let mut bad = returns("t1", 3);
    bad["message"]["content"][0]["is_error"] = json!(true);
    let found = levels(&[user("p1", 1, "go"), calls("a", 2, &["t1", "t2", "t3"]), bad, returns("t2", 4)]);
    let expect = [
        ("Turn 1", Level::Default, None),
        ("a", Level::Default, None),
        ("t1", Level::Error, Some("of t1")),
        ("t2", Level::Default, None),
        ("t3", Level::Error, Some("no result")),
    ];
    assert_eq!(found, expect.map(|(name, level, status)| (name.to_owned(), level, status.map(str::to_owned))));
}

#[test]
fn an_error_in_place_of_the_answer_belongs_to_the_root() {
    let error = json!({"type": "assistant", "isApiErrorMessage": true, "timestamp": stamp(3),
        "message": {"model": "<synthetic>", "content": [{"type": "text", "text": "API Error: 529"}]}});
    let found = levels(&[user("p1", 1, "go"), says("a", 2, "x"), error.clone()]);
    let expect = [
        ("Turn 1".to_owned(), Level::Error, Some("API Error: 529".to_owned())),
        ("a".to_owned(), Level::Default, None),
    ];
    assert_eq!(found, expect);
    assert_eq!(levels(&[user("p1", 1, "go"), error, says("a", 4, "back")])[0].1, Level::Default);
}

#[test]
fn an_interrupt_is_a_warning_on_the_root_and_on_a_truncated_answer() {
    let stop = user("i", 9, "[Request interrupted by user]");
    let mut complete = says("a", 2, "x");
    complete["message"]["stop_reason"] = json!("tool_use");
    let why = Some("interrupted by the user".to_owned());
    for (answers, expect) in [
        (vec![says("a", 2, "I was ab")], vec![Level::Warning, Level::Warning]),
        (vec![complete.clone()], vec![Level::Warning, Level::Default]),
        (vec![says("a", 2, "x"), says("b", 3, "I was ab")], vec![Level::Warning, Level::Default, Level::Warning]),
        (vec![], vec![Level::Warning]),
    ] {
        let found = levels(&[vec![user("p1", 1, "go")], answers, vec![stop.clone()]].concat());
        assert_eq!(found.iter().map(|(_, level, _)| *level).collect::<Vec<_>>(), expect);
        for (_, level, status) in found {
            assert_eq!(status, if level == Level::Warning { why.clone() } else { None });
        }
    }
}

#[test]
fn other_records_become_events_below_the_root() {
    let lines = [
        user("p1", 1, "go"),
        json!({"type": "system", "subtype": "api_error", "timestamp": stamp(2), "retryAttempt": 3}),
        json!({"type": "attachment", "timestamp": stamp(3), "attachment": {"type": "queued_command", "prompt": "also"}}),
        json!({"type": "system", "subtype": "compact_boundary", "compactMetadata": {"trigger": "auto", "preTokens": 900, "postTokens": 80}}),
        says("a", 4, "x"),
    ];
    let assembler = assembled(&lines);
    let found = spans(assembler.open().unwrap(), Scope::Final, Semantics::Spec, None);
    let events: Vec<_> = found
        .iter()
        .filter_map(|span| {
            let Body::Event { said, details } = &span.body else { return None };
            assert_eq!((span.parent, span.end), (Some(found[0].span_id), span.start));
            let details = details.iter().map(|(key, value)| (*key, value.clone())).collect::<Vec<_>>();
            Some((span.name.as_str(), span.start, said.map(|(text, _)| text), details))
        })
        .collect();
    let number = Detail::Number;
    let trigger = Detail::Name("auto".into());
    let compaction = vec![("trigger", trigger), ("tokens_before", number(900)), ("tokens_after", number(80))];
    let expect = [
        ("API retry", nanos(2), None, vec![("attempt", number(3))]),
        ("queued prompt", nanos(3), Some("also"), vec![]),
        ("compaction", nanos(1), None, compaction),
    ];
    assert_eq!(events, expect, "a time that is missing is the turn's start");
    let ids: std::collections::HashSet<_> = found.iter().map(|span| span.span_id).collect();
    assert_eq!(ids.len(), found.len());
}

#[test]
fn the_start_of_a_tool_does_not_depend_on_when_it_is_emitted() {
    let mut assembler = assembled(&[
        user("p1", 0, "go"),
        calls("a", 1000, &["t1", "t2"]),
        returns("t2", 2000),
        says("b", 9000, "meanwhile"),
    ]);
    let start = |assembler: &Assembler| {
        let found = spans(assembler.open().unwrap(), Scope::Settled, Semantics::Spec, None);
        found.iter().find(|span| label(span) == "t2").map(|span| span.start)
    };
    let before = start(&assembler);
    assembler.push(record::parse(returns("t1", 10_000).to_string().as_bytes()).unwrap(), 900);
    assert_eq!((before, start(&assembler)), (None, Some(nanos(10_000))), "emitted once the tool before it is back");
}

#[test]
fn events_after_the_root_was_sent_are_emitted_without_it() {
    let compacted = json!({"type": "system", "subtype": "compact_boundary", "timestamp": stamp(9), "compactMetadata": {"trigger": "manual"}});
    let mut assembler = assembled(&[user("p1", 1, "go"), says("a", 4, "x")]);
    assembler.open_mut().unwrap().mark_sent(Scope::Settled);
    let emitted = |assembler: &mut Assembler, line: &serde_json::Value| {
        assembler.push(record::parse(line.to_string().as_bytes()).unwrap(), 900);
        let turn = assembler.open_mut().unwrap();
        assert!(turn.has_notes(Scope::Final) && !turn.has_notes(Scope::Part) && !turn.has_news(Scope::Final));
        let found = spans(turn, Scope::Final, Semantics::Spec, None);
        let found: Vec<_> = found.iter().map(|span| (span.name.clone(), span.span_id)).collect();
        turn.mark_sent(Scope::Final);
        assert!(!turn.has_notes(Scope::Final));
        found
    };
    let (first, second) = (emitted(&mut assembler, &compacted), emitted(&mut assembler, &compacted));
    assert_eq!((first.len(), second.len(), first[0].0.as_str()), (1, 1, "compaction"));
    assert_ne!(first, second);
}
