//! The work of subagents, in one run or several.

use super::*;

fn run(records: Vec<Record>) -> (Vec<Turn>, Vec<bool>) {
    let mut runs = Runs::default();
    let taken = records.into_iter().enumerate().map(|(n, record)| runs.push(record, n as u64)).collect();
    (runs.into_turns().collect(), taken)
}

fn stopped(id: &str, at: Nanos, text: &str) -> Record {
    let stop_reason = Some("end_turn".into());
    Record::Assistant(Box::new(Assistant { stop_reason, ..line(id, at, vec![Block::Text(text.into())]) }))
}

fn fork(uuid: &str, at: Nanos) -> Record {
    typed(uuid, PromptKind::Fork, at)
}

fn outputs(turns: &[Turn]) -> Vec<(&str, String)> {
    turns.iter().map(|turn| (turn.key.as_str(), turn.output())).collect()
}

#[test]
fn inherited_lines_of_a_fork_are_not_counted() {
    let (turns, taken) = run(vec![Record::Inherits, called("a", 1, &["t0"]), fork("p", 2), stopped("b", 3, "done")]);
    assert_eq!((outputs(&turns), taken), (vec![("p", "done".to_owned())], vec![true; 4]));
    // The file has lost its first line.
    let (turns, _) = run(vec![called("a", 1, &["t0"]), fork("p", 2), stopped("b", 3, "done")]);
    assert_eq!(outputs(&turns), [("p", "done".to_owned())]);
}

#[test]
fn each_message_to_an_ended_subagent_begins_a_run() {
    let (turns, _) = run(vec![
        plain("p1", 1),
        called("a", 2, &["t1"]),
        plain("while at work", 3),
        result("t1", 4, "x"),
        stopped("b", 5, "one"),
        plain("p2", 100),
        Record::Interrupted { at: Some(101) },
        plain("p3", 200),
        stopped("c", 201, "three"),
    ]);
    assert_eq!(outputs(&turns), [("p1", "one".to_owned()), ("p2", String::new()), ("p3", "three".to_owned())]);
    assert_eq!(turns.iter().map(|turn| turn.end).collect::<Vec<_>>(), [Some(5), Some(101), Some(201)]);
    assert!(matches!(turns[0].notes[0].what, Happening::Queued(..)) && turns[0].notes.len() == 1);
}

#[test]
fn a_subagent_without_a_prompt_gets_a_stand_in() {
    let (turns, taken) = run(vec![result("t0", 1, "x"), called("a", 2, &["t1"]), stopped("b", 3, "done")]);
    assert_eq!(outputs(&turns), [("a-2", "done".to_owned())]);
    assert_eq!((turns[0].prompt.kind, taken), (PromptKind::StandIn, vec![false, true, true]));
}

#[test]
fn counter_ids_are_made_unique_per_subagent() {
    let place = |agent: &str, round| Place {
        turn: ("p".into(), 1),
        tool_id: Some("call_0".into()),
        launch_ids: [Some("toolu_launch".into()), Some("msg_same".into())],
        agent_id: agent.into(),
        agent_type: None,
        description: None,
        run: None,
        round,
    };
    let sources = |agent: &str, round| {
        let (mut turns, _) = run(vec![
            plain("p1", 1),
            called("msg_same", 2, &["call_0", "toolu_launch", "toolu_x"]),
            called("msg_1", 3, &["call_0"]),
            called("msg_other", 4, &[]),
        ]);
        turns[0].place = Some(place(agent, round));
        let turn = &turns[0];
        let calls = turn.generations.iter().map(|generation| turn.generation_source(generation).into_owned());
        let tools = turn.generations.iter().flat_map(|generation| &generation.tools);
        calls.chain(tools.map(|tool| turn.tool_source(tool).into_owned())).collect::<Vec<_>>()
    };
    let expect = ["x/msg_same", "x/msg_1", "msg_other", "x/call_0", "x/toolu_launch", "toolu_x", "x/call_0#2"];
    assert_eq!(sources("x", 1), expect);
    assert_eq!(sources("x", 2)[3], "x#2/call_0");
    assert_ne!(sources("y", 1)[3], expect[3]);
}
