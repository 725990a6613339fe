//! Answers whose prompt is unknown.

use super::*;

fn aside(uuid: &str, at: Nanos, text: &str) -> Record {
    let kind = if text.is_empty() { PromptKind::Blank } else { PromptKind::StandIn };
    Record::Prompt(Prompt { kind, text: text.into(), ..prompt(uuid, at) })
}

fn side(uuid: &str, parent: Option<&str>, record: Record) -> Record {
    Record::Side(Box::new(Side { uuid: Some(uuid.into()), parent: parent.map(Into::into), agent_id: None, record }))
}

fn kinds(turns: &[Turn]) -> Vec<(u32, &str, PromptKind, &str)> {
    turns.iter().map(|turn| (turn.number, turn.key.as_str(), turn.prompt.kind, turn.prompt.text.as_str())).collect()
}

#[test]
fn an_answer_without_a_prompt_gets_a_stand_in() {
    use PromptKind::{Blank, Plain, StandIn};
    let answer = || said("a", 5, "x");
    for (records, expect) in [
        (vec![answer()], vec![(1, "a-5", StandIn, "")]),
        (vec![result("t", 1, "x"), answer()], vec![(1, "a-5", StandIn, "")]),
        (vec![aside("m", 1, "Continue."), answer()], vec![(1, "m", StandIn, "Continue.")]),
        (vec![aside("m", 1, ""), answer()], vec![(1, "m", Blank, "")]),
        (
            vec![aside("m", 1, "Continue."), answer(), plain("p1", 6), said("b", 7, "y")],
            vec![(1, "m", StandIn, "Continue."), (2, "p1", Plain, "text of p1")],
        ),
        // A text before a prompt, or within a turn, does not substitute for one.
        (vec![aside("m", 1, "Caveat"), plain("p1", 2), answer()], vec![(1, "p1", Plain, "text of p1")]),
        (
            vec![plain("p1", 2), said("b", 3, "y"), aside("m", 4, "Go on"), answer()],
            vec![(1, "p1", Plain, "text of p1")],
        ),
        // An empty line of the user's after a turn that is over.
        (
            vec![plain("p1", 2), said("b", 3, "y"), aside("m", 4, ""), answer()],
            vec![(1, "p1", Plain, "text of p1"), (2, "m", Blank, "")],
        ),
        (vec![aside("m", 1, "Nobody answers")], vec![]),
    ] {
        let named = format!("{records:?}");
        assert_eq!(kinds(&turns(records)), expect, "{named}");
    }
}

#[test]
fn reading_restarts_at_a_possible_stand_in() {
    let mut assembler = Assembler::new(SESSION, 4);
    push(&mut assembler, vec![aside("m", 1, "Continue.")]);
    assert_eq!(assembler.resume(), Some((0, 4)));
}

#[test]
fn lines_of_only_a_subagent_form_turns() {
    let all = turns(vec![
        side("s1", None, Record::Prompt(prompt("s1", 1))),
        side("s2", Some("s1"), called("a", 2, &["t"])),
        side("s3", Some("s2"), result("t", 3, "x")),
        side("s4", Some("s3"), said("b", 4, "done")),
        side("r1", None, Record::Prompt(prompt("r1", 5))),
        side("r2", Some("r1"), said("c", 6, "other")),
    ]);
    assert_eq!(kinds(&all).iter().map(|kind| kind.1).collect::<Vec<_>>(), ["s1", "r1"]);
    assert_eq!((ids(&all[0]), all[0].output()), (vec!["a", "b"], "done".to_owned()));
}

#[test]
fn a_subagent_without_a_call_is_placed_in_the_turn() {
    let turn = only(vec![
        plain("p1", 1),
        side("s1", None, Record::Prompt(prompt("s1", 2))),
        side("s2", Some("s1"), said("b", 3, "done")),
        said("a", 4, "x"),
    ]);
    let place = turn.agents[0].place.as_ref().unwrap();
    assert_eq!(
        (place.tool_id.as_deref(), place.agent_id.as_str(), turn.agents[0].output()),
        (None, "s1", "done".to_owned())
    );
}
