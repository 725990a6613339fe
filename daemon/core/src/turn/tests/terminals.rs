//! Lines that name the line they follow: two terminals on one session, and forks.

use super::*;

/// A line with its parent; letters stand for the uuids of lines.
type Linked = (&'static str, &'static str, Record);

fn read_linked(assembler: &mut Assembler, lines: Vec<Linked>) -> Vec<Turn> {
    let mut push = |(n, (uuid, parent, record)): (usize, Linked)| {
        let link = Record::Link { uuid: Some(uuid.into()), parent: Some(parent.into()) };
        let record = match record {
            Record::Prompt(prompt) => {
                let parent = Some(parent.to_owned()).filter(|parent| !parent.is_empty());
                Record::Prompt(Prompt { parent, ..prompt })
            }
            Record::Assistant(line) => {
                let (uuid, parent) = (Some(uuid.into()), Some(parent.into()));
                Record::Assistant(Box::new(Assistant { uuid, parent, ..*line }))
            }
            record => {
                assembler.push(link, 100 * n as u64);
                record
            }
        };
        assembler.push(record, 100 * n as u64)
    };
    lines.into_iter().enumerate().filter_map(&mut push).collect()
}

fn ended(id: &str, at: Nanos, text: &str) -> Record {
    let stop_reason = Some("end_turn".into());
    Record::Assistant(Box::new(Assistant { stop_reason, ..line(id, at, vec![Block::Text(text.into())]) }))
}

fn at_work(assembler: &Assembler) -> Vec<(&str, Vec<&str>, String)> {
    let mut all: Vec<_> = assembler.at_work().map(|turn| (turn.key.as_str(), ids(turn), turn.output())).collect();
    all.sort();
    all
}

fn two_terminals() -> Vec<Linked> {
    vec![
        ("p0", "", plain("p0", 1)),
        ("a0", "p0", ended("a0", 2, "started")),
        ("left", "a0", plain("left", 3)),
        ("right", "a0", plain("right", 4)),
        ("l1", "left", called("l1", 5, &["t"])),
        ("r1", "right", ended("r1", 6, "four")),
        ("t", "l1", result("t", 7, "a.txt")),
        ("l2", "t", ended("l2", 8, "one file")),
    ]
}

#[test]
fn each_call_belongs_to_the_prompt_its_chain_leads_to() {
    let mut assembler = Assembler::new(SESSION, 0);
    assert_eq!(keys(&read_linked(&mut assembler, two_terminals())), [(1, "p0")]);
    let expect = [("left", vec!["l1", "l2"], "one file".to_owned()), ("right", vec!["r1"], "four".to_owned())];
    assert_eq!(at_work(&assembler), expect);
    let left = assembler.at_work().find(|turn| turn.key == "left").unwrap();
    assert_eq!(left.generations[0].tools[0].result.as_ref().unwrap().0.output, "a.txt");
    assert_eq!((assembler.turns(), assembler.closed(), assembler.take_orphans()), (3, 1, 0));
    // Reading starts again where both are complete.
    assert_eq!(assembler.resume(), Some((200, 1)));
    let mut again = Assembler::new(SESSION, 1);
    assert!(read_linked(&mut again, two_terminals().split_off(2)).is_empty());
    assert_eq!((at_work(&again), again.turns()), (expect.into(), 3));
    // A prompt ends the turn that it follows, and no other.
    let next = vec![("p3", "r1", plain("p3", 9)), ("a3", "p3", ended("a3", 10, "five"))];
    assert_eq!(keys(&read_linked(&mut assembler, next)), [(3, "right")]);
    assert_eq!(at_work(&assembler).len(), 2);
}

#[test]
fn each_terminal_has_its_own_turn_from_the_first_line_on() {
    // The uuid of a line, and its prompt.
    let answers = [("x1", "a"), ("y1", "b"), ("z1", "c"), ("y2", "b"), ("z2", "c"), ("x2", "a")];
    for first in ["", "h"] {
        let mut lines = vec![("h", "", plain("h", 1)), ("r", "h", ended("r", 2, "started"))];
        lines.truncate(if first.is_empty() { 0 } else { 2 });
        for prompt in ["a", "b", "c"] {
            lines.push((prompt, if first.is_empty() { "" } else { "r" }, plain(prompt, 3)));
        }
        for (n, (uuid, prompt)) in answers.into_iter().enumerate() {
            let above = answers[..n].iter().rfind(|(_, of)| *of == prompt).map_or(prompt, |(uuid, _)| uuid);
            let is_last = !answers[n + 1..].iter().any(|(_, of)| *of == prompt);
            let record = if is_last { ended(uuid, 9, uuid) } else { called(uuid, 5, &[uuid]) };
            lines.push((uuid, above, record));
        }
        let mut assembler = Assembler::new(SESSION, 0);
        read_linked(&mut assembler, lines);
        let expect = [("a", ["x1", "x2"]), ("b", ["y1", "y2"]), ("c", ["z1", "z2"])];
        let expect = expect.map(|(key, ids)| (key, ids.to_vec(), ids[1].to_owned()));
        assert_eq!(at_work(&assembler), expect, "first line {first:?}");
    }
}

#[test]
fn a_turn_without_new_lines_is_closed_after_a_few_prompts() {
    let mut assembler = Assembler::new(SESSION, 0);
    read_linked(&mut assembler, two_terminals().split_off(2));
    let names = ["p1", "p2", "p3", "p4", "p5", "p6"];
    let mut closed = Vec::new();
    for (n, name) in names.into_iter().enumerate() {
        let follows = if n == 0 { "r1" } else { names[n - 1] };
        closed.extend(read_linked(
            &mut assembler,
            vec![(name, follows, plain(name, 20)), ("", name, ended(name, 21, "x"))],
        ));
    }
    assert!(keys(&closed).iter().any(|(_, key)| *key == "left"), "{:?}", keys(&closed));
}

#[test]
fn going_back_abandons_finished_and_interrupted_turns() {
    let lines = |second: Record| {
        vec![
            ("p0", "", plain("p0", 1)),
            ("a0", "p0", ended("a0", 2, "x")),
            ("p1", "a0", plain("p1", 3)),
            ("a1", "p1", called("a1", 4, &["t"])),
            ("e1", "a1", second),
            ("p2", "a0", plain("p2", 6)),
            ("a2", "p2", ended("a2", 7, "y")),
        ]
    };
    for second in [ended("b1", 5, "z"), Record::Interrupted { at: Some(5) }] {
        let mut assembler = Assembler::new(SESSION, 0);
        assert_eq!(keys(&read_linked(&mut assembler, lines(second))), [(1, "p0"), (2, "p1")]);
    }
}

#[derive(Debug)]
struct Other(bool);

impl Elsewhere for Other {
    fn leaves_copies(&self) -> bool {
        true
    }
    fn has(&mut self, session: &str, uuid: &str) -> bool {
        session == "first" && ["p0", "p1"].contains(&uuid)
    }
    fn claim(&mut self, _: &str) -> bool {
        self.0
    }
    fn begins_with(&mut self, letters: &str) -> Option<String> {
        (letters == "0a1b2c3d").then(|| format!("{letters}-lead"))
    }
}

fn copied(id: &str, at: Nanos) -> Record {
    Record::Assistant(Box::new(Assistant {
        forked_from: Some("first".into()),
        ..line(id, at, vec![Block::Text("copied".into())])
    }))
}

#[test]
fn a_turn_belongs_to_the_session_that_created_it() {
    let lines = || {
        vec![plain("p0", 1), copied("a", 2), plain("p1", 3), said("b", 4, "own"), plain("p2", 5), said("c", 6, "own")]
    };
    let mut assembler = Assembler::new(SESSION, 0).beside(Other(true));
    let mut all = push(&mut assembler, lines());
    all.extend(assembler.open.take());
    assert_eq!(keys(&all), [(1, "p0"), (2, "p1@session-1"), (3, "p2")]);
    assert_eq!(all.iter().map(|turn| turn.has_news(Scope::Final)).collect::<Vec<_>>(), [false, true, true]);
    // Another session has already answered this prompt.
    let mut assembler = Assembler::new(SESSION, 0).beside(Other(false));
    push(&mut assembler, vec![plain("p5", 1), said("a", 2, "own")]);
    assert_eq!(assembler.open().unwrap().key, "p5@session-1");
    // A line that names its origin.
    let mut from = prompt("p6", 1);
    from.session.forked_from = Some("gone".into());
    let mut assembler = Assembler::new(SESSION, 0).beside(Other(true));
    push(&mut assembler, vec![Record::Prompt(from), said("a", 2, "own")]);
    assert_eq!(assembler.open().unwrap().key, "p6@session-1");
}

#[test]
fn a_teammate_names_the_session_that_leads_it() {
    let expect =
        [("session-0a1b2c3d", Some("0a1b2c3d-lead")), ("session-ffffffff", None), ("session-0a", None), ("a", None)];
    for (team, lead) in expect {
        let mut asked = prompt("p0", 1);
        asked.session.team = Some(team.into());
        let mut assembler = Assembler::new(SESSION, 0).beside(Other(true));
        push(&mut assembler, vec![Record::Prompt(asked), said("a", 2, "x")]);
        assert_eq!(assembler.open().unwrap().session.lead.as_deref(), lead, "{team}");
    }
}

#[test]
fn copied_answers_in_an_own_turn_are_not_emitted_again() {
    let mut assembler = Assembler::new(SESSION, 0).beside(Other(true));
    push(&mut assembler, vec![plain("p0", 1), copied("a", 2), said("b", 3, "own")]);
    let turn = assembler.open().unwrap();
    assert_eq!(
        (turn.key.as_str(), turn.generation_due(0, Scope::Final), turn.generation_due(1, Scope::Final)),
        ("p0@session-1", false, true)
    );
}
