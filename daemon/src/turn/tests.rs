use super::*;
use crate::transcript::record::Launched;

const SESSION: &str = "session-1";

fn prompt(uuid: &str, at: Nanos) -> Prompt {
    Prompt { uuid: Some(uuid.into()), at: Some(at), text: format!("text of {uuid}"), ..Prompt::default() }
}

fn plain(uuid: &str, at: Nanos) -> Record {
    Record::Prompt(prompt(uuid, at))
}

fn typed(uuid: &str, kind: PromptKind, at: Nanos) -> Record {
    Record::Prompt(Prompt { kind, ..prompt(uuid, at) })
}

/// A line of the answer `id`. Its uuid is made of id and time.
fn line(id: &str, at: Nanos, blocks: Vec<Block>) -> Assistant {
    Assistant {
        uuid: Some(format!("{id}-{at}")),
        at: Some(at),
        message_id: Some(id.into()),
        model: "model-a".into(),
        request_id: None,
        request_ref: None,
        stop_reason: None,
        usage: None,
        blocks,
        slug: None,
        service: Service::default(),
        forked_from: None,
    }
}

fn said(id: &str, at: Nanos, text: &str) -> Record {
    Record::Assistant(Box::new(line(id, at, vec![Block::Text(text.into())])))
}

fn counted(id: &str, at: Nanos, model: &str, output: u64) -> Record {
    let usage = Some(Usage { input: at, output, ..Usage::default() });
    Record::Assistant(Box::new(Assistant { usage, model: model.into(), ..line(id, at, Vec::new()) }))
}

fn call(tool: &str) -> Block {
    Block::ToolUse { id: tool.into(), name: "Bash".into(), input: format!("{{\"of\":\"{tool}\"}}") }
}

fn called(id: &str, at: Nanos, tools: &[&str]) -> Record {
    Record::Assistant(Box::new(line(id, at, tools.iter().map(|tool| call(tool)).collect())))
}

fn result(tool: &str, at: Nanos, output: &str) -> Record {
    let result =
        ToolResult { tool_use_id: tool.into(), output: output.into(), is_error: false, ..ToolResult::default() };
    Record::ToolResults { at: Some(at), results: vec![result] }
}

fn failed(at: Nanos) -> Record {
    Record::ApiError { at: Some(at), text: "API Error: 529".into(), status: Some(529) }
}

/// Pushes the records, 100 bytes apart. Returns the turns they closed.
fn push(assembler: &mut Assembler, records: Vec<Record>) -> Vec<Turn> {
    records.into_iter().enumerate().filter_map(|(n, record)| assembler.push(record, 100 * n as u64)).collect()
}

fn read(records: Vec<Record>) -> (Vec<Turn>, Assembler) {
    let mut assembler = Assembler::new(SESSION, 0);
    let closed = push(&mut assembler, records);
    (closed, assembler)
}

/// All answered turns, the open one last.
fn turns(records: Vec<Record>) -> Vec<Turn> {
    let (mut turns, assembler) = read(records);
    turns.extend(assembler.open.filter(Turn::is_answered));
    turns
}

fn only(records: Vec<Record>) -> Turn {
    let mut turns = turns(records);
    assert_eq!(turns.len(), 1, "{turns:?}");
    turns.remove(0)
}

fn keys(turns: &[Turn]) -> Vec<(u32, &str)> {
    turns.iter().map(|turn| (turn.number, turn.key.as_str())).collect()
}

fn ids(turn: &Turn) -> Vec<&str> {
    turn.generations.iter().map(|generation| generation.id.as_str()).collect()
}

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
fn a_turn_is_closed_by_the_next_prompt_and_not_before() {
    let mut assembler = Assembler::new(SESSION, 0);
    assert!(push(&mut assembler, vec![plain("p1", 1), said("a", 2, "x"), said("b", 3, "y")]).is_empty());
    assert_eq!(assembler.open().map(|turn| turn.key.as_str()), Some("p1"));
    let closed = assembler.push(plain("p2", 4), 400).unwrap();
    assert_eq!(closed.key, "p1");
    assert!(assembler.open().is_none() && assembler.awaits_answer());
}

#[test]
fn nothing_comes_of_nothing() {
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
fn numbers_go_on_from_the_turns_before() {
    let mut assembler = Assembler::new(SESSION, 7);
    let closed = push(&mut assembler, vec![plain("p1", 1), said("a", 2, "x"), plain("p2", 3), said("b", 4, "y")]);
    assert_eq!(keys(&closed), [(8, "p1")]);
    assert_eq!((assembler.open().unwrap().number, assembler.closed(), assembler.turns()), (9, 8, 9));
}

#[test]
fn a_prompt_without_uuid_is_named_by_its_place() {
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
fn a_stopped_turn_goes_on_where_no_prompt_comes_between() {
    // A Stop hook's feedback is a meta line, which is no record.
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
    let (closed, mut assembler) = read(vec![result("t0", 1, "out"), said("a", 2, "x"), Record::LocalOutput, failed(3)]);
    assert!(closed.is_empty() && assembler.open().is_none());
    assert_eq!((assembler.take_orphans(), assembler.take_orphans()), (2, 0));
}

#[test]
fn a_result_nobody_asked_for_is_an_orphan() {
    let (_, mut assembler) =
        read(vec![plain("p1", 1), called("a", 2, &["t1"]), result("t9", 9, "out"), result("t1", 3, "out")]);
    assert_eq!(assembler.take_orphans(), 1);
    assert_eq!(assembler.open().unwrap().end, Some(3));
}

#[test]
fn a_late_line_of_the_turn_before_does_not_count_again() {
    let (closed, mut assembler) =
        read(vec![plain("p1", 1), said("a", 2, "x"), plain("p2", 3), said("a", 4, "late"), said("b", 5, "y")]);
    assert_eq!((closed.len(), ids(&closed[0])), (1, vec!["a"]));
    assert_eq!(ids(assembler.open().unwrap()), ["b"]);
    assert_eq!(assembler.take_orphans(), 1);
}

// ---- where reading starts again ----

#[test]
fn reading_starts_again_at_the_prompt_of_what_is_open() {
    for (records, expect) in [
        (vec![plain("p1", 1)], Some((0, 0))),
        (vec![plain("p1", 1), said("a", 2, "x")], Some((0, 0))),
        (vec![plain("p1", 1), plain("p2", 2)], Some((100, 0))),
        (vec![plain("p1", 1), said("a", 2, "x"), plain("p2", 3)], Some((200, 1))),
        (vec![plain("p1", 1), said("a", 2, "x"), typed("!ls", PromptKind::Local, 3)], Some((0, 0))),
        (vec![said("a", 1, "x"), typed("!ls", PromptKind::Local, 2)], Some((100, 0))),
        (vec![said("a", 1, "x"), typed("/cost", PromptKind::Local, 2), Record::LocalOutput], None),
    ] {
        let named = format!("{records:?}");
        assert_eq!(read(records).1.resume(), expect, "{named}");
    }
}

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
fn a_line_that_is_there_twice_counts_once() {
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
fn an_answer_without_message_id_is_one_of_its_own() {
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
fn usage_is_that_of_the_line_with_most_output_and_the_model_with_it() {
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
fn usage_of_an_earlier_line_stays_where_the_last_has_none() {
    let turn = only(vec![plain("p1", 1), counted("a", 2, "m", 5), said("a", 3, "x"), said("b", 4, "y")]);
    assert_eq!(turn.generations[0].usage.map(|usage| usage.output), Some(5));
    assert_eq!(turn.generations[0].model, "m");
    assert_eq!(turn.generations[1].usage, None);
}

#[test]
fn what_only_one_line_of_an_answer_says_is_kept() {
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
fn what_the_prompt_says_of_the_session_stays_with_the_turn() {
    let session = SessionFacts { version: Some("2.1".into()), slug: Some("fox".into()), ..SessionFacts::default() };
    let opening = Record::Prompt(Prompt { session: session.clone(), ..prompt("p1", 1) });
    let named = Assistant { slug: Some("owl".into()), ..line("a", 2, vec![]) };
    assert_eq!(only(vec![opening, Record::Assistant(Box::new(named))]).session, session);
    assert_eq!(only(vec![plain("p1", 1), said("a", 2, "x")]).session, SessionFacts::default());
}

#[test]
fn an_answer_knows_when_it_was_asked_for() {
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
    records.extend((1..=REQUESTS as u64).map(|n| asking(&format!("r{n}"), 2 + n)));
    records.extend([of("r0", 900)]);
    assert_eq!(only(records).generations[0].requested, None, "too long ago");
}

#[test]
fn an_answer_knows_the_latest_time_before_it() {
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

// ---- how a turn ends ----

#[test]
fn the_end_is_the_latest_time_among_answers_and_results() {
    for (records, end) in [
        (vec![plain("p1", 1), said("a", 2, "x")], Some(2)),
        (vec![plain("p1", 1), called("a", 5, &["t1"]), result("t1", 9, "out"), said("b", 7, "x")], Some(9)),
        (vec![plain("p1", 100), said("a", 2, "x")], Some(2)),
        (vec![plain("p1", 1), failed(4)], Some(4)),
        (vec![plain("p1", 1), said("a", 2, "x"), Record::Interrupted { at: Some(6) }], Some(6)),
        (vec![plain("p1", 1), said("a", 2, "x"), Record::Queued { at: Some(8), text: "also".into() }], Some(2)),
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
fn an_answer_after_an_error_shows_that_it_was_not_the_end() {
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
fn what_happens_meanwhile_is_noted_in_order() {
    let turn = only(vec![
        Record::Queued { at: Some(0), text: "before anything".into() },
        plain("p1", 1),
        Record::Retry { at: Some(2), status: Some(529), attempt: Some(1) },
        said("a", 3, "x"),
        Record::Queued { at: Some(4), text: "also this".into() },
        Record::Compacted { at: Some(5), trigger: "auto".into(), tokens: (Some(9), None) },
        said("b", 6, "y"),
    ]);
    assert_eq!(turn.notes.iter().map(|note| note.at).collect::<Vec<_>>(), [Some(2), Some(4), Some(5)]);
    assert!(matches!(&turn.notes[0].what, Happening::Retry { status: Some(529), attempt: Some(1) }));
    assert!(matches!(&turn.notes[1].what, Happening::Queued(text) if text == "also this"));
    assert!(
        matches!(&turn.notes[2].what, Happening::Compacted { trigger, tokens: (Some(9), None) } if trigger == "auto")
    );
    assert_eq!(ids(&turn), ["a", "b"]);
}

#[test]
fn a_note_does_not_answer_a_prompt() {
    for note in [
        Record::Queued { at: Some(2), text: "x".into() },
        Record::Retry { at: Some(2), status: None, attempt: None },
        Record::Compacted { at: Some(2), trigger: "manual".into(), tokens: (None, None) },
        Record::Request { id: "r".into(), at: 2 },
        Record::LocalOutput,
    ] {
        assert!(read(vec![plain("p1", 1), note]).1.awaits_answer());
    }
}

#[test]
fn a_turn_ends_with_its_last_text_however_it_was_trimmed_or_joined() {
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
        assert_eq!(turn.ends_with(&Print::of(answer)), expect, "{answer:?} of {:?}", turn.output());
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
fn what_was_sent_is_not_due_again_and_late_results_are_news() {
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
fn a_tool_that_never_came_back_is_told_when_nothing_more_will_come() {
    let (_, mut assembler) = read(vec![plain("p1", 1), called("a", 2, &["t1"])]);
    let turn = assembler.open_mut().unwrap();
    turn.mark_sent(Scope::Settled);
    assert!(!turn.has_news(Scope::Settled) && turn.has_news(Scope::Final));
    turn.mark_sent(Scope::Final);
    assert!(!turn.has_news(Scope::Final));
}

#[test]
fn a_root_without_answers_below_it_is_news_once() {
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
fn the_text_of_what_was_sent_is_let_go_but_for_the_last_answer() {
    let (_, mut assembler) = read(busy());
    let turn = assembler.open_mut().unwrap();
    turn.mark_sent(Scope::Settled);
    assert_eq!(turn.output(), "meanwhile");
    let sent = &turn.generations[0].tools[0];
    assert!(sent.input.is_empty() && sent.result.as_ref().unwrap().0.output.is_empty());
    let kept = &turn.generations[1].tools[1];
    assert_eq!(kept.input, "{\"of\":\"t3\"}");
}

// ---- subagents ----

fn ordered(id: &str, at: Nanos, tools: &[(&str, &str)]) -> Record {
    let block = |(tool, prompt): &(&str, &str)| Block::ToolUse {
        id: (*tool).into(),
        name: "Task".into(),
        input: format!(r#"{{"prompt":"{prompt}","description":"look","subagent_type":"explorer"}}"#),
    };
    Record::Assistant(Box::new(line(id, at, tools.iter().map(block).collect())))
}

fn side(uuid: &str, parent: Option<&str>, record: Record) -> Record {
    Record::Side(Box::new(Side { uuid: Some(uuid.into()), parent: parent.map(Into::into), agent_id: None, record }))
}

#[test]
fn subagents_among_the_turns_own_lines_are_told_apart_by_their_chains() {
    let turn = only(vec![
        plain("p1", 1),
        ordered("a", 2, &[("t1", "do one"), ("t2", "do two")]),
        side("s1", None, Record::Prompt(Prompt { text: "do two".into(), ..prompt("s1", 3) })),
        side("r1", None, Record::Prompt(Prompt { text: "do one".into(), ..prompt("r1", 3) })),
        side("s2", Some("s1"), called("b", 4, &["t3"])),
        side("r2", Some("r1"), said("c", 5, "one is done")),
        side("s3", Some("s2"), result("t3", 6, "ok")),
        side("s4", Some("s3"), said("d", 7, "two is done")),
        result("t2", 8, "two is done"),
        said("e", 9, "both"),
    ]);
    let agents: Vec<_> = turn
        .agents
        .iter()
        .map(|agent| {
            let place = agent.place.as_ref().unwrap();
            let calls: Vec<&str> = agent.generations.iter().map(|generation| generation.id.as_str()).collect();
            (place.tool_id.as_deref().unwrap(), place.agent_type.as_deref().unwrap(), calls, agent.output())
        })
        .collect();
    assert_eq!(
        agents,
        [
            ("t2", "explorer", vec!["b", "d"], "two is done".to_owned()),
            ("t1", "explorer", vec!["c"], "one is done".to_owned()),
        ]
    );
    assert_eq!(turn.generations.iter().map(|generation| &*generation.id).collect::<Vec<_>>(), ["a", "e"]);
}

#[test]
fn a_subagent_nobody_asked_for_is_counted_as_an_orphan() {
    let mut assembler = Assembler::new("s", 0);
    let lines = vec![
        plain("p1", 1),
        side("s1", None, Record::Prompt(Prompt { text: "Warmup".into(), ..prompt("s1", 2) })),
        side("s2", Some("s1"), said("w", 3, "warm")),
        said("a", 4, "hi"),
    ];
    push(&mut assembler, lines);
    assert!(assembler.open().unwrap().agents.is_empty());
    assert_eq!(assembler.take_orphans(), 2);
}

#[test]
fn launches_say_whose_result_has_come() {
    let launched = |tool: &str, agent: &str, is_async| {
        let agent = Some(Launched { agent_id: agent.into(), is_async });
        let result = ToolResult {
            tool_use_id: tool.into(),
            output: String::new(),
            is_error: false,
            agent,
            ..ToolResult::default()
        };
        Record::ToolResults { at: Some(3), results: vec![result] }
    };
    let turn = only(vec![
        plain("p1", 1),
        ordered("a", 2, &[("t1", "x"), ("t2", "y"), ("t3", "z")]),
        called("b", 2, &["t4", "t5"]),
        launched("t1", "g1", false),
        launched("t2", "g2", true),
        launched("t4", "g4", false),
        result("t5", 4, "a file"),
    ]);
    let found: Vec<_> = turn.launches().map(|launch| (launch.tool_id, launch.agent_id, launch.returned)).collect();
    let expect = [("t1", Some("g1"), true), ("t2", Some("g2"), false), ("t3", None, false), ("t4", Some("g4"), true)];
    assert_eq!(found, expect.map(|(tool, agent, done)| (tool.to_owned(), agent.map(str::to_owned), done)));
}

#[test]
fn a_session_that_was_forked_says_so_from_there_on() {
    let mut assembler = Assembler::new("s-2", 0);
    let copy = |id: &str, at| {
        let line = Assistant { forked_from: Some("s-1".into()), ..line(id, at, vec![Block::Text("x".into())]) };
        Record::Assistant(Box::new(line))
    };
    let closed = push(&mut assembler, vec![plain("p1", 1), copy("a", 2), plain("p2", 3), said("b", 4, "new")]);
    assert_eq!(closed[0].session.forked_from, None, "known only behind its prompt; it is a copy anyway");
    assert_eq!(assembler.open().unwrap().session.forked_from.as_deref(), Some("s-1"));
    assert_eq!(assembler.origin().map(String::as_str), Some("s-1"));
    let mut later = Assembler::new("s-2", 2).resumed(assembler.origin().cloned(), None);
    push(&mut later, vec![plain("p3", 5), said("c", 6, "on")]);
    assert_eq!(later.open().unwrap().session.forked_from.as_deref(), Some("s-1"));
}
