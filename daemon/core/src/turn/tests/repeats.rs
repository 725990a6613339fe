//! Ids that repeat, and blocks that occur twice.

use super::*;

fn counted_line(id: &str, at: Nanos, input: u64, blocks: Vec<Block>) -> Assistant {
    let usage = Some(Usage { input, output: 5, ..Usage::default() });
    Assistant { usage, stop_reason: Some("tool_use".into()), ..line(id, at, blocks) }
}

fn text(text: &str) -> Block {
    Block::Text(text.into())
}

fn answer(line: Assistant) -> Record {
    Record::Assistant(Box::new(line))
}

/// The sources of all tools, with their results.
fn tools(turn: &Turn) -> Vec<(String, String)> {
    let all = turn.generations.iter().flat_map(|generation| &generation.tools);
    let back = |tool: &Tool| tool.result.as_ref().map_or("", |(result, _)| result.output.as_str()).to_owned();
    all.map(|tool| (turn.tool_source(tool).into_owned(), back(tool))).collect()
}

fn pairs(expect: &[(&str, &str)]) -> Vec<(String, String)> {
    expect.iter().map(|(source, back)| ((*source).to_owned(), (*back).to_owned())).collect()
}

#[test]
fn a_result_belongs_to_the_nearest_waiting_call_with_its_id() {
    let turn = only(vec![
        plain("p1", 1),
        called("a", 2, &["call_0"]),
        result("call_0", 3, "first"),
        called("b", 4, &["call_0", "call_1"]),
        result("call_0", 5, "second"),
        result("call_1", 6, "other"),
        result("call_0", 7, "said again"),
        called("c", 8, &["call_0"]),
        called("d", 9, &["call_0"]),
        result("call_0", 10, "of d"),
        result("call_0", 11, "of c"),
    ]);
    let expect =
        [("call_0", "first"), ("call_0#2", "second"), ("call_1", "other"), ("call_0#3", "of c"), ("call_0#4", "of d")];
    assert_eq!(tools(&turn), pairs(&expect));
}

#[test]
fn equal_ids_in_one_line_are_two_calls_and_across_lines_one() {
    let twice = only(vec![plain("p1", 1), called("a", 2, &["t", "t"]), result("t", 3, "x"), result("t", 4, "y")]);
    assert_eq!(tools(&twice), pairs(&[("t", "x"), ("t#2", "y")]));
    let again = only(vec![plain("p1", 1), called("a", 2, &["t"]), called("a", 3, &["t"]), result("t", 4, "x")]);
    assert_eq!(tools(&again), pairs(&[("t", "x")]));
}

#[test]
fn calls_with_one_constant_message_id_stay_separate() {
    let constant = |at, input, block| answer(counted_line("msg", at, input, vec![block]));
    let all = turns(vec![
        plain("p1", 1),
        constant(2, 100, call("t1")),
        result("t1", 3, "x"),
        constant(4, 110, call("t2")),
        result("t2", 5, "y"),
        constant(6, 120, text("done")),
        plain("p2", 7),
        constant(8, 130, text("more")),
    ]);
    let sources = |turn: &Turn| -> Vec<String> {
        turn.generations.iter().map(|generation| turn.generation_source(generation).into_owned()).collect()
    };
    assert_eq!(all.iter().map(sources).collect::<Vec<_>>(), [vec!["msg", "msg#2", "msg#3"], vec!["msg"]]);
    assert_eq!(tools(&all[0]), pairs(&[("t1", "x"), ("t2", "y")]));
    assert_eq!(all[1].output(), "more");
}

#[test]
fn an_answer_below_a_prompt_is_new_even_if_it_equals_an_earlier_one() {
    let ok = |at, parent: &str| {
        answer(Assistant { parent: Some(parent.into()), ..counted_line("msg", at, 7, vec![text("ok")]) })
    };
    for kind in [PromptKind::Plain, PromptKind::Local, PromptKind::Command] {
        let all = turns(vec![plain("p1", 1), ok(2, "p1"), typed("p2", kind, 3), ok(4, "p2")]);
        assert_eq!(all.iter().map(|turn| &*turn.key).collect::<Vec<_>>(), ["p1", "p2"], "{kind:?}");
    }
}

#[test]
fn block_zero_begins_another_answer() {
    let numbered =
        |at, block_index, tool: &str| answer(Assistant { block_index, ..counted_line("msg", at, 7, vec![call(tool)]) });
    for (index, expect) in [(Some(0), 2), (Some(1), 1), (None, 1)] {
        let turn =
            only(vec![plain("p1", 1), numbered(2, Some(0), "t1"), result("t1", 3, "x"), numbered(4, index, "t2")]);
        assert_eq!(turn.generations.len(), expect, "{index:?}");
    }
}

#[test]
fn blocks_of_one_answer_are_merged_across_other_lines() {
    let with = |request: Option<&str>, at, input, block| {
        answer(Assistant { request_id: request.map(Into::into), ..counted_line("msg", at, input, vec![block]) })
    };
    for (request, first, second) in [(None, 10, 10), (Some("r"), 10, 10), (Some("r"), 0, 10)] {
        let turn = only(vec![
            plain("p1", 1),
            with(request, 2, first, call("t1")),
            result("t1", 3, "x"),
            with(request, 4, second, call("t2")),
            result("t2", 5, "y"),
        ]);
        assert_eq!(ids(&turn), ["msg"], "{request:?} {first} {second}");
    }
    // Without a stop reason the counts are placeholders.
    let open = |at, output, block| {
        let usage = Some(Usage { input: 10, output, ..Usage::default() });
        answer(Assistant { usage, stop_reason: None, ..line("msg", at, vec![block]) })
    };
    let turn = only(vec![plain("p1", 1), open(2, 1, call("t1")), result("t1", 3, "x"), open(4, 50, text("y"))]);
    assert_eq!((ids(&turn), turn.generations[0].usage.unwrap().output), (vec!["msg"], 50));
}

#[test]
fn requests_separate_calls_with_one_id_unless_the_content_is_equal() {
    let with = |request: &str, at, input, said: &str| {
        answer(Assistant { request_id: Some(request.into()), ..counted_line("msg", at, input, vec![text(said)]) })
    };
    let apart = only(vec![plain("p1", 1), with("r1", 2, 10, "x"), with("r2", 3, 11, "y")]);
    assert_eq!(ids(&apart), ["msg", "msg"]);
    let copy = only(vec![plain("p1", 1), with("r1", 2, 10, "x"), with("r2", 3, 10, "x")]);
    assert_eq!((ids(&copy), copy.output()), (vec!["msg"], "x".to_owned()));
}

#[test]
fn without_usage_a_call_continues_only_while_a_tool_is_running() {
    let zero = |at, block| answer(counted_line("msg", at, 0, vec![block]));
    let none = |line: Assistant| Assistant { usage: None, ..line };
    let uncounted = |at, block| answer(none(counted_line("msg", at, 0, vec![block])));
    let zero = |at, block| match zero(at, block) {
        Record::Assistant(line) => answer(Assistant { usage: Some(Usage::default()), ..*line }),
        record => record,
    };
    for line in [&zero as &dyn Fn(Nanos, Block) -> Record, &uncounted] {
        let all = |records: Vec<Record>| ids(&only(records)).len();
        let (first, second) = (line(2, call("t1")), line(5, call("t2")));
        assert_eq!(all(vec![plain("p1", 1), first, result("t1", 3, "x"), second]), 2);
        let both = Block::ToolUse { id: "t0".into(), name: "Bash".into(), input: "{}".into() };
        let Record::Assistant(first) = line(2, call("t1")) else { unreachable!() };
        let first = answer(Assistant { blocks: vec![both, call("t1")], ..*first });
        assert_eq!(all(vec![plain("p1", 1), first, result("t1", 3, "x"), line(5, call("t2"))]), 1);
    }
}

#[test]
fn of_a_repeated_block_the_longest_version_counts() {
    let said = |at, blocks: &[&str]| answer(line("a", at, blocks.iter().map(|block| text(block)).collect()));
    for (lines, expect) in [
        (vec![&["x"][..], &["x"]], "x"),
        (vec![&["The"], &["The answer"], &["The answer is 42."]], "The answer is 42."),
        (vec![&["The answer is 42."], &["The ans"]], "The answer is 42."),
        (vec![&["one"], &["one", "two"], &["one", "two and a half"]], "one\ntwo and a half"),
        (vec![&["ok", "ok"]], "ok\nok"),
        (vec![&["ok", "ok"], &["ok", "ok"]], "ok\nok"),
        (vec![&["one"], &["two"]], "one\ntwo"),
    ] {
        let mut records = vec![plain("p1", 1)];
        records.extend(lines.iter().enumerate().map(|(n, blocks)| said(2 + n as u64, blocks)));
        assert_eq!(only(records).output(), expect, "{lines:?}");
    }
    let input = |at, input: &str| {
        let block = Block::ToolUse { id: "t".into(), name: "Bash".into(), input: input.into() };
        answer(line("a", at, vec![block]))
    };
    let turn = only(vec![plain("p1", 1), input(2, "{}"), input(3, r#"{"command":"ls"}"#), input(4, "{}")]);
    assert_eq!(turn.generations[0].tools[0].input, r#"{"command":"ls"}"#);
}
