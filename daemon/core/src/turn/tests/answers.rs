use super::*;

// ---- merging lines into answers ----

#[test]
fn lines_of_one_answer_are_merged_by_message_id() {
    let turn = only(vec![
        plain("p1", 1),
        Record::Assistant(Box::new(line("a", 2, vec![Block::Thinking("hm".into())]))),
        said("a", 3, "one"),
        called("a", 4, &["t1"]),
        result("t1", 5, "out"),
        called("a", 6, &["t2"]),
        said("a", 7, "two"),
    ]);
    assert_eq!(ids(&turn), ["a"]);
    let answer = &turn.generations[0];
    assert_eq!((answer.text().as_str(), &answer.thinking[..]), ("one\ntwo", &["hm".to_owned()][..]));
    assert_eq!(
        answer.tools.iter().map(|tool| (tool.id.as_str(), tool.called)).collect::<Vec<_>>(),
        [("t1", Some(4)), ("t2", Some(6))]
    );
    assert_eq!((answer.first, answer.last), (Some(2), Some(7)));
}

#[test]
fn answers_may_interleave() {
    let turn = only(vec![plain("p1", 1), said("a", 2, "a1"), said("b", 3, "b1"), said("a", 4, "a2")]);
    assert_eq!(ids(&turn), ["a", "b"]);
    assert_eq!((turn.generations[0].text().as_str(), turn.generations[1].text().as_str()), ("a1\na2", "b1"));
    assert_eq!(turn.output(), "b1");
}

#[test]
fn a_repeated_line_counts_once() {
    let turn = only(vec![
        plain("p1", 1),
        said("a", 2, "x"),
        said("a", 2, "x"),
        called("a", 3, &["t1"]),
        called("a", 4, &["t1"]),
    ]);
    assert_eq!(turn.generations[0].texts, ["x"]);
    assert_eq!(turn.generations[0].tools.len(), 1);
}

#[test]
fn an_answer_without_message_id_is_a_separate_answer() {
    let lone = |uuid: Option<&str>, at| {
        Record::Assistant(Box::new(Assistant {
            uuid: uuid.map(str::to_owned),
            message_id: None,
            ..line("x", at, vec![])
        }))
    };
    let turn = only(vec![plain("p1", 1), lone(Some("u1"), 2), lone(Some("u2"), 3), lone(None, 4), lone(None, 5)]);
    assert_eq!(ids(&turn), ["u1", "u2", "p1#2", "p1#3"]);
}

#[test]
fn usage_and_model_come_from_the_line_with_most_output() {
    for (lines, output, input, model) in [
        (vec![("m", 5)], 5, 10, "m"),
        (vec![("m", 1), ("n", 9)], 9, 11, "n"),
        (vec![("m", 9), ("n", 1)], 9, 10, "m"),
        (vec![("m", 7), ("n", 7)], 7, 11, "n"),
        (vec![("m", 1), ("n", 9), ("o", 2)], 9, 11, "n"),
    ] {
        let mut records = vec![plain("p1", 1)];
        records.extend(lines.iter().zip(10..).map(|((model, output), at)| counted("a", at, model, *output)));
        let turn = only(records);
        let usage = turn.generations[0].usage.unwrap();
        assert_eq!(
            (usage.output, usage.input, turn.generations[0].model.as_str()),
            (output, input, model),
            "{lines:?}"
        );
    }
}

#[test]
fn usage_of_an_earlier_line_is_kept_if_the_last_has_none() {
    let turn = only(vec![plain("p1", 1), counted("a", 2, "m", 5), said("a", 3, "x"), said("b", 4, "y")]);
    assert_eq!(turn.generations[0].usage.map(|usage| usage.output), Some(5));
    assert_eq!(turn.generations[0].model, "m");
    assert_eq!(turn.generations[1].usage, None);
}

#[test]
fn facts_on_only_one_line_of_an_answer_are_kept() {
    let first = Assistant { request_id: Some("r1".into()), slug: Some("fox".into()), ..line("a", 2, vec![]) };
    let last =
        Assistant { request_id: Some("r2".into()), stop_reason: Some("end_turn".into()), ..line("a", 3, vec![]) };
    let after = Assistant { slug: Some("owl".into()), ..line("a", 4, vec![]) };
    let turn = only(
        [vec![plain("p1", 1)], [first, last, after].map(|l| Record::Assistant(Box::new(l))).into()]
            .into_iter()
            .flatten()
            .collect(),
    );
    let answer = &turn.generations[0];
    assert_eq!((answer.request_id.as_deref(), answer.stop_reason.as_deref()), (Some("r1"), Some("end_turn")));
    assert_eq!(turn.session.slug.as_deref(), Some("fox"));
}

#[test]
fn a_turn_keeps_the_session_facts_of_its_prompt() {
    let session = SessionFacts { version: Some("2.1".into()), slug: Some("fox".into()), ..SessionFacts::default() };
    let opening = Record::Prompt(Prompt { session: session.clone(), ..prompt("p1", 1) });
    let named = Assistant { slug: Some("owl".into()), ..line("a", 2, vec![]) };
    assert_eq!(only(vec![opening, Record::Assistant(Box::new(named))]).session, session);
    assert_eq!(only(vec![plain("p1", 1), said("a", 2, "x")]).session, SessionFacts::default());
}

#[test]
fn an_answer_has_the_time_of_its_request() {
    let asking = |id: &str, at| Record::Request { id: id.into(), at };
    let of = |reference: &str, at| {
        Record::Assistant(Box::new(Assistant { request_ref: Some(reference.into()), ..line("a", at, vec![]) }))
    };
    for (records, expect) in [
        (vec![plain("p1", 1), asking("r1", 2), asking("r2", 3), of("r1", 4)], Some(2)),
        (vec![plain("p1", 1), asking("r1", 2), of("r9", 4)], None),
        (vec![plain("p1", 1), asking("r1", 2), said("a", 3, "x")], None),
        (vec![plain("p1", 1), asking("r1", 2), said("a", 3, "x"), of("r1", 4)], Some(2)),
    ] {
        assert_eq!(only(records).generations[0].requested, expect);
    }
    let mut records = vec![plain("p1", 1), asking("r0", 2)];
    records.extend((1..=MAX_OPEN_REQUESTS as u64).map(|n| asking(&format!("r{n}"), 2 + n)));
    records.extend([of("r0", 900)]);
    assert_eq!(only(records).generations[0].requested, None, "too long ago");
}

#[test]
fn an_answer_has_the_latest_time_before_it() {
    let turn = only(vec![plain("p1", 1), called("a", 2, &["t1"]), result("t1", 8, "out"), said("b", 9, "x")]);
    assert_eq!((turn.generations[0].previous, turn.generations[1].previous), (Some(1), Some(8)));
}

// ---- tools ----

#[test]
fn results_find_their_calls_by_id_in_any_order() {
    let both = |at, ids: [&str; 2]| Record::ToolResults {
        at: Some(at),
        results: ids
            .map(|id| ToolResult {
                tool_use_id: id.into(),
                output: id.to_uppercase(),
                is_error: id == "t2",
                ..ToolResult::default()
            })
            .into(),
    };
    let turn = only(vec![
        plain("p1", 1),
        called("a", 2, &["t1", "t2"]),
        called("a", 3, &["t3", "t4"]),
        result("t3", 4, "T3"),
        both(5, ["t2", "t1"]),
        said("b", 6, "x"),
    ]);
    let found: Vec<_> = turn.generations[0]
        .tools
        .iter()
        .map(|tool| tool.result.as_ref().map(|(result, at)| (result.output.as_str(), result.is_error, *at)))
        .collect();
    assert_eq!(found, [Some(("T1", false, Some(5))), Some(("T2", true, Some(5))), Some(("T3", false, Some(4))), None]);
}

#[test]
fn the_first_result_of_a_call_counts() {
    let turn = only(vec![plain("p1", 1), called("a", 2, &["t1"]), result("t1", 3, "first"), result("t1", 9, "again")]);
    let (result, at) = turn.generations[0].tools[0].result.as_ref().unwrap();
    assert_eq!((result.output.as_str(), *at, turn.end), ("first", Some(3), Some(3)));
}

#[test]
fn a_result_may_come_after_the_answers_that_followed_its_call() {
    let turn =
        only(vec![plain("p1", 1), called("a", 2, &["t1"]), said("b", 3, "in the background"), result("t1", 9, "out")]);
    assert!(turn.generations[0].tools[0].result.is_some());
    assert_eq!(turn.end, Some(9));
}
