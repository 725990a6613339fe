use super::*;

// ---- what is a turn ----

#[test]
fn a_turn_is_a_prompt_and_what_follows_up_to_the_next() {
    let turns = turns(vec![
        plain("p1", 1),
        called("a", 2, &["t1"]),
        result("t1", 3, "out"),
        said("b", 4, "first answer"),
        plain("p2", 5),
        said("c", 6, "second answer"),
    ]);
    assert_eq!(keys(&turns), [(1, "p1"), (2, "p2")]);
    assert_eq!((ids(&turns[0]), ids(&turns[1])), (vec!["a", "b"], vec!["c"]));
    assert_eq!((turns[0].output().as_str(), turns[1].output().as_str()), ("first answer", "second answer"));
    assert_eq!((turns[0].offset, turns[1].offset), (0, 400));
    assert_eq!((turns[0].end, turns[1].end), (Some(4), Some(6)));
}

#[test]
fn only_the_next_prompt_closes_a_turn() {
    let mut assembler = Assembler::new(SESSION, 0);
    assert!(push(&mut assembler, vec![plain("p1", 1), said("a", 2, "x"), said("b", 3, "y")]).is_empty());
    assert_eq!(assembler.open().map(|turn| turn.key.as_str()), Some("p1"));
    let closed = assembler.push(plain("p2", 4), 400).unwrap();
    assert_eq!(closed.key, "p1");
    assert!(assembler.open().is_none() && assembler.awaits_answer());
}

#[test]
fn no_records_give_no_turns() {
    let (closed, assembler) = read(vec![]);
    assert!(closed.is_empty() && assembler.open().is_none() && !assembler.awaits_answer());
    assert_eq!((assembler.turns(), assembler.resume()), (0, None));
}

#[test]
fn an_unanswered_prompt_is_no_turn_and_takes_no_number() {
    assert!(turns(vec![plain("p1", 1), plain("p2", 2)]).is_empty());
    let turns = turns(vec![
        plain("p1", 1),
        plain("p2", 2),
        said("a", 3, "x"),
        plain("p3", 4),
        plain("p4", 5),
        said("b", 6, "y"),
    ]);
    assert_eq!(keys(&turns), [(1, "p2"), (2, "p4")]);
}

#[test]
fn numbers_continue_after_earlier_turns() {
    let mut assembler = Assembler::new(SESSION, 7);
    let closed = push(&mut assembler, vec![plain("p1", 1), said("a", 2, "x"), plain("p2", 3), said("b", 4, "y")]);
    assert_eq!(keys(&closed), [(8, "p1")]);
    assert_eq!((assembler.open().unwrap().number, assembler.closed(), assembler.turns()), (9, 8, 9));
}

#[test]
fn a_prompt_without_uuid_has_a_key_from_its_offset() {
    let anonymous = || Record::Prompt(Prompt { uuid: None, ..prompt("x", 1) });
    let turns = turns(vec![anonymous(), said("a", 2, "x"), anonymous(), said("b", 3, "y")]);
    assert_eq!(keys(&turns), [(1, "session-1:0"), (2, "session-1:200")]);
}

#[test]
fn a_local_command_is_a_turn_only_if_the_model_answers_it() {
    use PromptKind::Local;
    let shown = turns(vec![
        plain("p1", 1),
        said("a", 2, "x"),
        typed("/cost", Local, 3),
        Record::LocalOutput,
        said("b", 4, "y"),
    ]);
    assert_eq!((keys(&shown), ids(&shown[0])), (vec![(1, "p1")], vec!["a", "b"]));

    let asked = turns(vec![plain("p1", 1), said("a", 2, "x"), typed("!ls", Local, 3), said("b", 4, "y")]);
    assert_eq!(keys(&asked), [(1, "p1"), (2, "!ls")]);

    let failed_at_once = turns(vec![plain("p1", 1), said("a", 2, "x"), typed("!ls", Local, 3), failed(4)]);
    assert_eq!(keys(&failed_at_once), [(1, "p1"), (2, "!ls")]);
    assert!(failed_at_once[0].error.is_none());

    let two = turns(vec![typed("/cost", Local, 1), typed("!ls", Local, 2), said("a", 3, "x")]);
    assert_eq!(keys(&two), [(1, "!ls")]);

    let (closed, assembler) = read(vec![typed("/cost", Local, 1)]);
    assert!(closed.is_empty() && assembler.open().is_none() && !assembler.awaits_answer());
}

#[test]
fn a_shell_command_whose_output_the_model_answers_is_a_turn() {
    let shell = typed("!ls", PromptKind::Local, 3);
    let turns = turns(vec![plain("p1", 1), said("a", 2, "x"), shell, said("b", 4, "two files")]);
    assert_eq!(keys(&turns), [(1, "p1"), (2, "!ls")]);
}

#[test]
fn a_local_command_does_not_break_the_turn_it_is_typed_into() {
    use PromptKind::Local;
    for between in [vec![typed("/cost", Local, 3)], vec![typed("/cost", Local, 3), Record::LocalOutput]] {
        let mut records = vec![plain("p1", 1), called("a", 2, &["t1"])];
        records.extend(between);
        records.extend([said("a", 4, "still the same answer"), result("t1", 5, "out")]);
        let turn = only(records);
        assert_eq!((turn.key.as_str(), ids(&turn)), ("p1", vec!["a"]));
        assert!(turn.generations[0].tools[0].result.is_some());
    }
    let mut records = vec![plain("p1", 1), called("a", 2, &["t1"]), typed("/cost", Local, 3), Record::LocalOutput];
    records.extend([result("t1", 5, "out"), said("b", 6, "the next answer")]);
    assert_eq!(ids(&only(records)), ["a", "b"]);
}

#[test]
fn every_other_kind_of_prompt_starts_a_turn_at_once() {
    for kind in [PromptKind::Plain, PromptKind::Command, PromptKind::TaskNotification] {
        let (_, assembler) = read(vec![plain("p1", 1), said("a", 2, "x"), typed("p2", kind, 3)]);
        assert!(assembler.awaits_answer(), "{kind:?}");
        assert_eq!(assembler.closed(), 1, "{kind:?}");
    }
}

#[test]
fn a_stopped_turn_continues_until_the_next_prompt() {
    // A Stop hook's feedback is a meta line, not a prompt.
    let mut assembler = Assembler::new(SESSION, 0);
    push(&mut assembler, vec![plain("p1", 1), said("a", 2, "done")]);
    assembler.open_mut().unwrap().mark_sent(Scope::Settled);
    assert!(!assembler.open().unwrap().has_news(Scope::Settled));
    push(&mut assembler, vec![said("b", 3, "now really")]);
    let turn = assembler.open().unwrap();
    assert!(turn.has_news(Scope::Settled));
    assert_eq!((turn.number, ids(turn), turn.output().as_str()), (1, vec!["a", "b"], "now really"));
    assert!(!turn.generation_due(0, Scope::Settled) && turn.generation_due(1, Scope::Settled));
}

#[test]
fn lines_before_any_prompt_are_orphans() {
    let (closed, mut assembler) = read(vec![result("t0", 1, "out"), Record::LocalOutput, failed(3)]);
    assert!(closed.is_empty() && assembler.open().is_none());
    assert_eq!((assembler.take_orphans(), assembler.take_orphans()), (1, 0));
}

#[test]
fn a_result_nobody_asked_for_is_an_orphan() {
    let (_, mut assembler) =
        read(vec![plain("p1", 1), called("a", 2, &["t1"]), result("t9", 9, "out"), result("t1", 3, "out")]);
    assert_eq!(assembler.take_orphans(), 1);
    assert_eq!(assembler.open().unwrap().end, Some(3));
}

#[test]
fn a_late_line_of_the_previous_turn_does_not_count_again() {
    let (closed, mut assembler) =
        read(vec![plain("p1", 1), said("a", 2, "x"), plain("p2", 3), said("a", 4, "late"), said("b", 5, "y")]);
    assert_eq!((closed.len(), ids(&closed[0])), (1, vec!["a"]));
    assert_eq!(ids(assembler.open().unwrap()), ["b"]);
    assert_eq!(assembler.take_orphans(), 1);
}

// ---- where reading starts again ----

#[test]
fn reading_restarts_at_the_prompt_of_the_open_turn() {
    let after_p1 = |prompt| Record::Prompt(Prompt { parent: Some("p1".into()), ..prompt });
    for (records, expect) in [
        (vec![plain("p1", 1)], Some((0, 0))),
        (vec![plain("p1", 1), said("a", 2, "x")], Some((0, 0))),
        (vec![plain("p1", 1), after_p1(prompt("p2", 2))], Some((100, 0))),
        // Two first prompts: two terminals, and either may be answered.
        (vec![plain("p1", 1), plain("p2", 2)], Some((0, 0))),
        (vec![plain("p1", 1), said("a", 2, "x"), plain("p2", 3)], Some((200, 1))),
        (vec![plain("p1", 1), said("a", 2, "x"), typed("!ls", PromptKind::Local, 3)], Some((0, 0))),
        (vec![typed("!ls", PromptKind::Local, 2)], Some((0, 0))),
        (vec![typed("/cost", PromptKind::Local, 2), Record::LocalOutput], None),
        (vec![result("t", 1, "x"), said("a", 1, "x")], Some((100, 0))),
    ] {
        let named = format!("{records:?}");
        assert_eq!(read(records).1.resume(), expect, "{named}");
    }
}

#[test]
fn a_prompt_after_going_back_names_the_abandoned_turns() {
    /// Turns by what their prompts follow and count, and the turns that each abandons.
    type Case = &'static [(&'static str, Option<u32>, &'static [u32])];
    const FOLLOWS: Case = &[
        ("", None, &[]),
        ("1", None, &[]),
        ("2", None, &[]),
        // Back to before the third, to before the second, to there once more, and then forward.
        ("2", None, &[3]),
        ("1", None, &[2, 4]),
        ("1", None, &[5]),
        ("6", None, &[]),
        // A prompt that follows nothing proves nothing.
        ("", None, &[]),
    ];
    // In Claude Code 2.1.329 the first prompt after going back to the beginning follows the latest line.
    const COUNTS: Case = &[
        ("", Some(1), &[]),
        ("1", Some(2), &[]),
        ("2", Some(3), &[]),
        ("1", Some(2), &[2, 3]),
        ("4", Some(1), &[1, 4]),
        ("5", Some(2), &[]),
    ];
    // Begun with a version that does not count, continued with one that does: nothing is known of the earlier turns.
    const BOTH: Case =
        &[("", None, &[]), ("1", None, &[]), ("2", Some(3), &[]), ("3", Some(4), &[]), ("2", Some(3), &[3, 4])];
    for case in [FOLLOWS, COUNTS, BOTH] {
        let prompt_of = |number: usize, follows: &str, position| {
            let parent = (!follows.is_empty()).then(|| format!("{follows}-1"));
            Record::Prompt(Prompt { parent, position, ..prompt(&format!("p{number}"), 1) })
        };
        let records = |from: usize| {
            let turns = case.iter().enumerate().skip(from);
            turns.flat_map(move |(index, (follows, position, _))| {
                // Taken back before it was answered, so nothing happened.
                let never = prompt_of(100 + index, follows, *position);
                [never, prompt_of(index + 1, follows, *position), said(&(index + 1).to_string(), 2, "x")]
            })
        };
        let left = |turn: &Turn| (turn.number, turn.left.iter().map(|left| left.number).collect::<Vec<_>>());
        let all = turns(records(0).collect());
        let expect: Vec<_> = (1..).zip(case).map(|(number, (.., left))| (number, left.to_vec())).collect();
        assert_eq!(all.iter().map(left).collect::<Vec<_>>(), expect);
        assert!(all.iter().all(|turn| turn.instead_of == turn.left.first().map(|left| left.number)));
        // The same wherever reading starts again.
        for from in 0..all.len() {
            let past = all[..from].iter().map(Past::of).collect();
            let mut assembler = Assembler::new("s-1", from as u32).resumed(None, None, past);
            let closed = records(from).enumerate().filter_map(|(at, record)| assembler.push(record, at as u64));
            let mut again: Vec<_> = closed.map(|turn| left(&turn)).collect();
            again.extend(assembler.open().map(left));
            assert_eq!(again, expect[from..], "from turn {}", from + 1);
        }
    }
}
