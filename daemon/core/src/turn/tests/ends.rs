use super::*;

// ---- how a turn ends ----

#[test]
fn the_end_is_the_latest_time_among_answers_and_results() {
    for (records, end) in [
        (vec![plain("p1", 1), said("a", 2, "x")], Some(2)),
        (vec![plain("p1", 1), called("a", 5, &["t1"]), result("t1", 9, "out"), said("b", 7, "x")], Some(9)),
        (vec![plain("p1", 100), said("a", 2, "x")], Some(2)),
        (vec![plain("p1", 1), failed(4)], Some(4)),
        (vec![plain("p1", 1), said("a", 2, "x"), Record::Interrupted { at: Some(6) }], Some(6)),
        (
            vec![
                plain("p1", 1),
                said("a", 2, "x"),
                Record::Queued { at: Some(8), text: "also".into(), media: Vec::new() },
            ],
            Some(2),
        ),
        (vec![plain("p1", 1), Record::Assistant(Box::new(Assistant { at: None, ..line("a", 2, vec![]) }))], None),
    ] {
        assert_eq!(only(records).end, end);
    }
}

#[test]
fn an_error_takes_the_place_of_the_answer() {
    let turn = only(vec![plain("p1", 1), said("a", 2, "let me try"), failed(3)]);
    assert_eq!(turn.output(), "API Error: 529");
    let error = turn.error.unwrap();
    assert_eq!((error.status, error.at), (Some(529), Some(3)));
    let alone = only(vec![plain("p1", 1), failed(2)]);
    assert!(alone.generations.is_empty());
    assert_eq!((alone.number, alone.output().as_str()), (1, "API Error: 529"));
}

#[test]
fn an_answer_after_an_error_removes_the_error() {
    let turn =
        only(vec![plain("p1", 1), called("a", 2, &["t1"]), failed(3), result("t1", 4, "out"), said("b", 5, "fine")]);
    assert!(turn.error.is_none());
    assert_eq!((ids(&turn), turn.output().as_str()), (vec!["a", "b"], "fine"));
    let next = turns(vec![plain("p1", 1), failed(2), plain("p2", 3), said("a", 4, "x")]);
    assert_eq!(keys(&next), [(1, "p1"), (2, "p2")]);
    assert!(next[0].error.is_some() && next[1].error.is_none());
}

#[test]
fn an_interrupt_ends_a_turn_even_before_any_answer() {
    let turn = only(vec![plain("p1", 1), said("a", 2, "I was ab"), Record::Interrupted { at: Some(3) }]);
    assert!(turn.is_interrupted);
    assert_eq!((turn.interrupted, turn.output().as_str()), (Some(3), "I was ab"));
    let silent = only(vec![plain("p1", 1), Record::Interrupted { at: None }]);
    assert!(silent.is_interrupted && silent.is_answered());
    assert_eq!((silent.number, silent.output().as_str()), (1, ""));
    assert!(turns(vec![Record::Interrupted { at: Some(3) }]).is_empty());
    let next = turns(vec![plain("p1", 1), Record::Interrupted { at: Some(2) }, plain("p2", 3), said("a", 4, "x")]);
    assert_eq!(keys(&next), [(1, "p1"), (2, "p2")]);
    assert!(!next[1].is_interrupted);
}

#[test]
fn events_are_kept_in_order() {
    let turn = only(vec![
        Record::Queued { at: Some(0), text: "before anything".into(), media: Vec::new() },
        plain("p1", 1),
        Record::Retry { at: Some(2), status: Some(529), attempt: Some(1) },
        said("a", 3, "x"),
        Record::Queued { at: Some(4), text: "also this".into(), media: Vec::new() },
        Record::Compacted { at: Some(5), trigger: "auto".into(), tokens: (Some(9), None) },
        said("b", 6, "y"),
    ]);
    assert_eq!(turn.notes.iter().map(|note| note.at).collect::<Vec<_>>(), [Some(2), Some(4), Some(5)]);
    assert!(matches!(&turn.notes[0].what, Happening::Retry { status: Some(529), attempt: Some(1) }));
    assert!(matches!(&turn.notes[1].what, Happening::Queued(text, _) if text == "also this"));
    assert!(
        matches!(&turn.notes[2].what, Happening::Compacted { trigger, tokens: (Some(9), None) } if trigger == "auto")
    );
    assert_eq!(ids(&turn), ["a", "b"]);
}

#[test]
fn an_event_alone_does_not_answer_a_prompt() {
    for note in [
        Record::Queued { at: Some(2), text: "x".into(), media: Vec::new() },
        Record::Retry { at: Some(2), status: None, attempt: None },
        Record::Compacted { at: Some(2), trigger: "manual".into(), tokens: (None, None) },
        Record::Request { id: "r".into(), at: 2 },
        Record::LocalOutput,
    ] {
        assert!(read(vec![plain("p1", 1), note]).1.awaits_answer());
    }
}

#[test]
fn ends_with_compares_the_last_text_trimmed_and_joined() {
    let two = |a: &str, b: &str| vec![plain("p1", 1), said("a", 2, "earlier"), said("b", 3, a), said("b", 4, b)];
    for (records, answer, expect) in [
        (vec![plain("p1", 1), said("a", 2, "\n\ndone. ")], "done.", true),
        (vec![plain("p1", 1), said("a", 2, "done.")], "  done.\n", true),
        (vec![plain("p1", 1), said("a", 2, "done.")], "done", false),
        (vec![plain("p1", 1), said("a", 2, "done."), called("b", 3, &["t1"])], "done.", false),
        (two("one", "two"), "two", true),
        (two("one", "two"), "one\ntwo", true),
        (two("one", "two"), "onetwo", true),
        (two("one", "two"), "one\n\ntwo", true),
        (two("one", "two"), "one", false),
        (two("one", "two"), "earlier", false),
        (vec![plain("p1", 1), said("a", 2, "x"), failed(3)], "API Error: 529\n", true),
        (vec![plain("p1", 1), failed(3)], "something else", false),
        (vec![plain("p1", 1), Record::Interrupted { at: None }], "x", false),
    ] {
        let turn = only(records);
        assert_eq!(turn.ends_with(&Fingerprint::of(answer)), expect, "{answer:?} of {:?}", turn.output());
    }
}

// ---- what is due, and what has been sent ----

fn busy() -> Vec<Record> {
    vec![
        plain("p1", 1),
        called("a", 2, &["t1"]),
        result("t1", 3, "out"),
        called("b", 4, &["t2", "t3"]),
        result("t2", 5, "out"),
        said("c", 6, "meanwhile"),
    ]
}

fn due(turn: &Turn, scope: Scope) -> Vec<&str> {
    let mut due = Vec::new();
    for (index, generation) in turn.generations.iter().enumerate() {
        if turn.generation_due(index, scope) {
            due.push(generation.id.as_str());
        }
        for (position, tool) in generation.tools.iter().enumerate() {
            if turn.tool_due(index, position, scope) {
                due.push(tool.id.as_str());
            }
        }
    }
    due
}

#[test]
fn each_scope_is_due_more_than_the_one_before() {
    let turn = only(busy());
    assert!(Scope::Part < Scope::Settled && Scope::Settled < Scope::Final);
    assert_eq!(due(&turn, Scope::Part), ["a", "t1"]);
    assert_eq!(due(&turn, Scope::Settled), ["a", "t1", "b", "t2", "c"]);
    assert_eq!(due(&turn, Scope::Final), ["a", "t1", "b", "t2", "t3", "c"]);
}

#[test]
fn sent_spans_are_not_due_again_but_late_results_are() {
    let (_, mut assembler) = read(busy());
    let turn = assembler.open_mut().unwrap();
    turn.mark_sent(Scope::Part);
    assert!(!turn.root_sent && !turn.has_news(Scope::Part) && turn.has_news(Scope::Settled));
    assert_eq!(due(turn, Scope::Settled), ["b", "t2", "c"]);
    turn.mark_sent(Scope::Settled);
    assert!(turn.root_sent && !turn.has_news(Scope::Settled));
    assert_eq!(due(turn, Scope::Settled), Vec::<&str>::new());
    assert!(turn.has_news(Scope::Final), "one tool still runs");
    assembler.push(result("t3", 9, "late"), 900);
    let turn = assembler.open_mut().unwrap();
    assert!(turn.has_news(Scope::Settled));
    assert_eq!(due(turn, Scope::Settled), ["t3"]);
    turn.mark_sent(Scope::Settled);
    assert!(!turn.has_news(Scope::Final));
}

#[test]
fn an_unreturned_tool_is_due_at_the_final_scope() {
    let (_, mut assembler) = read(vec![plain("p1", 1), called("a", 2, &["t1"])]);
    let turn = assembler.open_mut().unwrap();
    turn.mark_sent(Scope::Settled);
    assert!(!turn.has_news(Scope::Settled) && turn.has_news(Scope::Final));
    turn.mark_sent(Scope::Final);
    assert!(!turn.has_news(Scope::Final));
}

#[test]
fn a_root_without_answers_is_due_once() {
    let (_, mut assembler) = read(vec![plain("p1", 1), failed(2)]);
    let turn = assembler.open_mut().unwrap();
    assert!(!turn.has_news(Scope::Part) && turn.has_news(Scope::Settled) && turn.has_news(Scope::Final));
    turn.mark_sent(Scope::Settled);
    assert!(!turn.has_news(Scope::Settled) && !turn.has_news(Scope::Final));
}

#[test]
fn an_unanswered_turn_has_no_news_and_cannot_be_marked() {
    let (_, mut assembler) = read(vec![plain("p1", 1)]);
    assert!(assembler.open_mut().is_none());
    assert!(!assembler.open.as_ref().unwrap().has_news(Scope::Final));
}

#[test]
fn sent_text_is_freed_except_for_the_last_answer() {
    let (_, mut assembler) = read(busy());
    let turn = assembler.open_mut().unwrap();
    turn.mark_sent(Scope::Settled);
    assert_eq!(turn.output(), "meanwhile");
    let sent = &turn.generations[0].tools[0];
    assert!(sent.input.is_empty() && sent.result.as_ref().unwrap().0.output.is_empty());
    let kept = &turn.generations[1].tools[1];
    assert_eq!(kept.input, "{\"of\":\"t3\"}");
}
