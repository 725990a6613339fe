use super::*;

// ---- the tree ----

#[test]
fn a_turn_is_a_root_with_its_answers_below_and_their_tools_below_those() {
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
fn the_users_words_stand_on_the_root_and_the_first_answer_only() {
    let assembler = assembled(&conversation());
    let found = spans(assembler.open().unwrap(), Scope::Final, Semantics::Spec, None);
    let inputs: Vec<_> = found
        .iter()
        .filter_map(|span| match &span.body {
            Body::Turn { input, .. } | Body::Agent { input, .. } => Some(Some(*input)),
            Body::Generation { input, .. } => Some(input.map(|prompt| prompt.text.as_str())),
            Body::Tool(_) => None,
        })
        .collect();
    assert_eq!(inputs, [Some("do it"), Some("do it"), None]);
    assert!(matches!(&found[0].body, Body::Turn { output, .. } if output == "there\ndone"));
}

#[test]
fn each_scope_tells_its_own_spans() {
    let lines = [
        user("p1", 1, "go"),
        calls("a", 2, &["t1"]),
        returns("t1", 3),
        calls("b", 4, &["t2"]),
        says("c", 5, "meanwhile"),
    ];
    let mut assembler = assembled(&lines);
    let turn = assembler.open_mut().unwrap();
    let told =
        |turn: &Turn, scope| -> Vec<String> { spans(turn, scope, Semantics::Spec, None).iter().map(label).collect() };
    assert_eq!(told(turn, Scope::Part), ["a", "t1"]);
    turn.mark_sent(Scope::Part);
    assert_eq!(told(turn, Scope::Settled), ["Turn 1", "b", "c"]);
    turn.mark_sent(Scope::Settled);
    assert_eq!(told(turn, Scope::Final), ["Turn 1", "t2"]);
}

// ---- how it went ----

fn levels(lines: &[Value]) -> Vec<(String, Level, Option<String>)> {
    let assembler = assembled(lines);
    let found = spans(assembler.open().unwrap(), Scope::Final, Semantics::Spec, None);
    found.iter().map(|span| (label(span), span.level, span.status.clone())).collect()
}

#[test]
fn a_tool_that_failed_is_an_error_and_one_that_never_returned_a_warning() {
    let mut bad = returns("t1", 3);
    bad["message"]["content"][0]["is_error"] = json!(true);
    let found = levels(&[user("p1", 1, "go"), calls("a", 2, &["t1", "t2", "t3"]), bad, returns("t2", 4)]);
    let expect = [
        ("Turn 1", Level::Default, None),
        ("a", Level::Default, None),
        ("t1", Level::Error, Some("of t1")),
        ("t2", Level::Default, None),
        ("t3", Level::Warning, Some("no result")),
    ];
    assert_eq!(found, expect.map(|(name, level, status)| (name.to_owned(), level, status.map(str::to_owned))));
}

#[test]
fn an_error_in_place_of_the_answer_is_the_roots() {
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
fn an_interrupt_is_a_warning_on_the_root_and_on_an_answer_cut_short() {
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
fn what_happened_meanwhile_becomes_events_of_the_root() {
    let lines = [
        user("p1", 1, "go"),
        json!({"type": "system", "subtype": "api_error", "timestamp": stamp(2), "retryAttempt": 3}),
        json!({"type": "attachment", "timestamp": stamp(3), "attachment": {"type": "queued_command", "prompt": "also"}}),
        json!({"type": "system", "subtype": "compact_boundary", "compactMetadata": {"trigger": "auto", "preTokens": 900, "postTokens": 80}}),
        says("a", 4, "x"),
    ];
    let assembler = assembled(&lines);
    let found = spans(assembler.open().unwrap(), Scope::Final, Semantics::Spec, None);
    let Body::Turn { events, .. } = &found[0].body else { panic!("the root comes first") };
    let event = |name: &str, at, attributes: &[(&str, &str)]| Event {
        name: name.into(),
        at: nanos(at),
        attributes: attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
    };
    let expect = [
        event("API retry", 2, &[("attempt", "3")]),
        event("queued prompt", 3, &[("text", "also")]),
        event("compaction", 1, &[("trigger", "auto"), ("tokens_before", "900"), ("tokens_after", "80")]),
    ];
    assert_eq!(events[..], expect, "a time that is missing is the turn's start");
}

#[test]
fn the_start_of_a_tool_does_not_depend_on_when_it_is_told() {
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
    assert_eq!((before, start(&assembler)), (None, Some(nanos(10_000))), "told once the tool before it is back");
}
