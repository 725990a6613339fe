//! Where subagents belong, and when they have ended.

use std::time::{Duration, Instant};

use super::{
    super::placement::{Meta, Next, POLL, POLL_LATER, Returned, Subagent, next, place_all},
    *,
};

/// An agent call with this prompt.
fn asked(id: &str, at: Nanos, tool: &str, text: &str) -> Record {
    let input = format!(r#"{{"prompt":"{text}","description":"look","subagent_type":"explorer"}}"#);
    let block = Block::ToolUse { id: tool.into(), name: "Task".into(), input };
    Record::Assistant(Box::new(line(id, at, vec![block])))
}

/// The result of a call that names this subagent.
fn named(tool: &str, at: Nanos, agent: &str, is_async: bool, wakes: bool) -> Record {
    let agent = Some(Launched { agent_id: agent.into(), is_async, wakes });
    Record::ToolResults {
        at: Some(at),
        results: vec![ToolResult { tool_use_id: tool.into(), agent, ..ToolResult::default() }],
    }
}

fn done(id: &str, at: Nanos) -> Record {
    let stop_reason = Some("end_turn".into());
    Record::Assistant(Box::new(Assistant { stop_reason, ..line(id, at, vec![Block::Text("seen".into())]) }))
}

fn of_prompt(uuid: &str, at: Nanos, prompt_id: &str) -> Record {
    Record::Prompt(Prompt { prompt_id: Some(prompt_id.into()), ..prompt(uuid, at) })
}

/// A subagent with these records.
fn agent(id: &str, records: Vec<Record>) -> Subagent {
    part_of(id, None, records)
}

fn part_of(id: &str, workflow: Option<&str>, records: Vec<Record>) -> Subagent {
    let mut agent = Subagent::new(id.into(), workflow.map(str::to_owned));
    for (n, record) in records.into_iter().enumerate() {
        agent.runs.push(record, n as u64);
    }
    agent
}

/// Adds a `.meta.json` that names its call.
fn beside(mut agent: Subagent, call: &str) -> Subagent {
    agent.meta.get_or_insert_default().tool_use_id = Some(call.into());
    agent
}

/// Adds a `.meta.json` that names no call.
fn without_call(mut agent: Subagent) -> Subagent {
    agent.meta = Some(Meta::default());
    agent
}

/// A call of a closed turn.
fn stored(turn: &str, tool: &str, called: Nanos, agent: Option<&str>) -> Launch {
    Launch {
        tool_id: tool.into(),
        id: tool.into(),
        message_id: None,
        agent_id: agent.map(str::to_owned),
        turn: (turn.into(), 1),
        returned: false,
        called: Some(called),
        wakes: false,
    }
}

fn wakes(launch: Launch) -> Launch {
    Launch { wakes: true, ..launch }
}

/// The places of its runs: `turn/call`, `-` if unknown.
fn places(agent: &Subagent) -> String {
    let place = |turn: &Turn| match &turn.place {
        None => "-".to_owned(),
        Some(place) => format!("{}/{}", place.turn.0, place.tool_id.as_deref().unwrap_or("-")),
    };
    agent.runs.iter().map(place).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_subagent_belongs_below_the_call_that_launched_it() {
    let twice = || vec![plain("s1", 10), done("x", 11), plain("s2", 20), done("y", 21)];
    let own = || vec![plain("s1", 10), done("x", 11)];
    let command = |agent_id: Option<&str>| {
        let mut turn = only(vec![of_prompt("p1", 1, "prompt-1"), said("a", 2, "hi")]);
        turn.skill = Some(SkillOutput { text: "out".into(), agent_id: agent_id.map(str::to_owned) });
        turn
    };
    let calls = |records: Vec<Record>| {
        let lines = [plain("p1", 1), asked("a", 2, "t1", "look")];
        only(lines.into_iter().chain(records).collect())
    };
    for (name, mut it, open, launches, expect) in [
        ("no result names it yet", agent("g", own()), vec![calls(vec![])], vec![], "-"),
        (
            "the result of a call names it",
            agent("g", own()),
            vec![calls(vec![named("t1", 3, "g", true, false)])],
            vec![],
            "p1/t1",
        ),
        ("it names another one", agent("g", own()), vec![calls(vec![named("t1", 3, "h", true, false)])], vec![], "-"),
        ("the file beside it names the call", beside(agent("g", own()), "t1"), vec![calls(vec![])], vec![], "p1/t1"),
        (
            "the file beside it names the call of another one",
            beside(agent("g", own()), "t1"),
            vec![calls(vec![named("t1", 3, "h", true, false)])],
            vec![],
            "-",
        ),
        (
            "a call that came after it did not launch it",
            beside(agent("g", vec![plain("s1", 1), done("x", 11)]), "t1"),
            vec![calls(vec![])],
            vec![],
            "-",
        ),
        (
            "of several calls of one id the latest before it",
            beside(agent("g", own()), "t1"),
            vec![],
            vec![stored("p1", "t1", 3, None), stored("p2", "t1", 8, None), stored("p3", "t1", 12, None)],
            "p2/t1",
        ),
        (
            "of several that name it the first",
            agent("g", own()),
            vec![],
            vec![stored("p2", "t2", 8, Some("g")), stored("p1", "t1", 3, Some("g"))],
            "p1/t1",
        ),
        (
            "a message that woke it did not launch it",
            agent("g", own()),
            vec![],
            vec![wakes(stored("p1", "t1", 3, Some("g")))],
            "-",
        ),
        (
            "the run of a workflow names it",
            part_of("g", Some("run-1"), own()),
            vec![],
            vec![stored("p1", "t1", 3, Some("run-1"))],
            "p1/t1",
        ),
        (
            "the run of another workflow does not",
            part_of("g", Some("run-2"), own()),
            vec![],
            vec![stored("p1", "t1", 3, Some("run-1"))],
            "-",
        ),
        (
            "a command that ran in a context of its own: no call is above it",
            without_call(agent("g", vec![of_prompt("s1", 10, "prompt-1"), done("x", 11)])),
            vec![command(None)],
            vec![],
            "p1/-",
        ),
        (
            "whether a call is above it is not known while the file beside it is not there, or half there",
            agent("g", vec![of_prompt("s1", 10, "prompt-1"), done("x", 11)]),
            vec![command(None)],
            vec![],
            "-",
        ),
        (
            "a later run, below the message that woke it",
            agent("g", twice()),
            vec![],
            vec![stored("p1", "t1", 3, Some("g")), wakes(stored("p2", "t2", 15, Some("g")))],
            "p1/t1 p2/t2",
        ),
        (
            "a later run, before that message is known",
            agent("g", twice()),
            vec![],
            vec![stored("p1", "t1", 3, Some("g"))],
            "p1/t1 -",
        ),
        (
            "a message that came later woke it later",
            agent("g", twice()),
            vec![],
            vec![stored("p1", "t1", 3, Some("g")), wakes(stored("p2", "t2", 25, Some("g")))],
            "p1/t1 -",
        ),
    ] {
        let open: Vec<&Turn> = open.iter().collect();
        place_all(&mut [&mut it], &open, &launches);
        assert_eq!(places(&it), expect, "{name}");
    }
}

#[test]
fn the_placement_of_a_subagent_leads_to_that_of_its_subagents() {
    let turn = only(vec![plain("p1", 1), asked("a", 2, "t1", "look"), named("t1", 3, "g", true, false)]);
    let mut outer = agent("g", vec![plain("s1", 10), asked("b", 11, "t2", "look"), named("t2", 12, "h", true, false)]);
    let mut inner = agent("h", vec![plain("s2", 20), done("c", 21)]);
    let mut stray = agent("i", vec![plain("s3", 20), done("d", 21)]);
    // In any order.
    place_all(&mut [&mut inner, &mut stray, &mut outer], &[&turn], &[]);
    let own = outer.runs.last().unwrap().launches().next().unwrap();
    assert_eq!((places(&outer), places(&stray)), ("p1/t1".into(), "-".into()));
    assert_eq!(places(&inner), format!("p1/{}", own.tool_id));
    let place = outer.runs.last().unwrap().place.clone().unwrap();
    assert_eq!(
        (place.agent_type.as_deref(), place.description.as_deref(), place.round),
        (Some("explorer"), Some("look"), 1)
    );
}

#[test]
fn without_evidence_the_likeliest_turn_is_chosen() {
    let own = |at| vec![Record::Prompt(Prompt { text: "look".into(), ..prompt("s1", at) }), done("x", at + 1)];
    let turn = |records: Vec<Record>| only([plain("p1", 5)].into_iter().chain(records).collect());
    let asks = || turn(vec![asked("a", 6, "t1", "look")]);
    let asks_other = || turn(vec![asked("a", 6, "t1", "find")]);
    let later = |agent: Vec<Record>| [agent, vec![plain("s2", 30), done("y", 31)]].concat_all();
    for (name, mut it, open, launches, expect) in [
        ("a call asked for the same", agent("g", own(10)), vec![asks()], vec![], Some("p1/t1")),
        ("it did so before the turn, by the clock", agent("g", own(1)), vec![asks()], vec![], Some("p1/t1")),
        ("it began during the turn", agent("g", own(10)), vec![asks_other()], vec![], Some("p1/-")),
        (
            "it began before the turn, with its prompt id",
            agent("g", vec![of_prompt("s1", 1, "prompt-1"), done("x", 2)]),
            vec![only(vec![of_prompt("p1", 5, "prompt-1"), said("a", 6, "hi")])],
            vec![],
            Some("p1/-"),
        ),
        ("it began before the turn", agent("g", own(1)), vec![asks_other()], vec![], None),
        ("no turn is open", agent("g", own(10)), vec![], vec![], None),
        (
            "the turn that launched one last",
            agent("g", own(10)),
            vec![],
            vec![stored("p1", "t1", 3, None), stored("p2", "t2", 8, None), stored("p3", "t3", 12, None)],
            Some("p2/-"),
        ),
        (
            "the turn that launched one with its prompt id",
            agent("g", vec![of_prompt("s1", 10, "prompt-1"), done("x", 11)]),
            vec![],
            vec![stored("p1", "prompt:prompt-1", 3, None), stored("p2", "t2", 8, None)],
            Some("p1/-"),
        ),
        (
            "a later run, in the turn of the one before",
            agent("g", later(own(10))),
            vec![],
            vec![stored("p1", "t1", 3, None)],
            Some("p1/- p1/-"),
        ),
    ] {
        let open: Vec<&Turn> = open.iter().collect();
        assert_eq!(it.guess(&open, &launches), expect.is_some(), "{name}");
        assert_eq!(places(&it), expect.unwrap_or("-"), "{name}");
    }
}

/// Lists, joined.
trait Concat {
    fn concat_all(self) -> Vec<Record>;
}

impl Concat for [Vec<Record>; 2] {
    fn concat_all(self) -> Vec<Record> {
        self.into_iter().flatten().collect()
    }
}

#[test]
fn a_subagent_ends_when_reported_and_its_transcript_is_silent() {
    let grown = Instant::now();
    let (burst, quiet, finished) = (Some(20), Some(2000), Some(5000));
    let at_work = || vec![plain("s1", 10), called("x", 11, &["t9"])];
    let over = || vec![plain("s1", 10), done("x", 11)];
    let woken = || [over(), vec![plain("s2", 20), called("y", 21, &["t8"])]].concat_all();
    let calls = [stored("p1", "t1", 3, Some("g"))];
    let back = [Launch { returned: true, ..stored("p1", "t1", 3, Some("g")) }];
    let none: [Launch; 0] = [];
    for (name, records, launches, is_over, has_ended, says_finished, expect) in [
        ("it works on", at_work(), &calls[..], false, false, false, None),
        ("it looks finished", over(), &calls, false, false, false, finished),
        ("it looks finished and a hook says so", over(), &calls, false, true, false, burst),
        ("it looks finished and the file beside it says so", over(), &calls, false, false, true, burst),
        ("it looks finished and its call has returned", over(), &back, false, false, false, burst),
        ("it looks finished and the session is over", over(), &calls, true, false, false, burst),
        ("a hook says so", at_work(), &calls, false, true, false, quiet),
        ("its call has returned", at_work(), &back, false, false, false, quiet),
        ("the session is over", at_work(), &calls, true, false, false, quiet),
        ("the file beside it says so: it may be woken again", at_work(), &calls, false, false, true, None),
        ("it is not known where it belongs", over(), &none, false, false, false, None),
        ("nor will it be known", over(), &none, true, false, false, quiet),
        ("a hook says so before it is known where it belongs", over(), &none, false, true, false, None),
        ("what woke it again is said nowhere", woken(), &calls, false, true, false, quiet),
        ("what woke it again is not said yet", woken(), &calls, false, false, false, None),
    ] {
        let mut it = agent("g", records);
        it.meta.get_or_insert_default().finished = says_finished;
        place_all(&mut [&mut it], &[], launches);
        let due = it.due(&Returned::of(it.runs.iter(), launches), grown, is_over, has_ended);
        assert_eq!(due.map(|due| due.duration_since(grown).as_millis()), expect, "{name}");
    }
}

#[test]
fn silent_subagents_are_polled_less_and_less_often() {
    let now = Instant::now() + Duration::from_secs(100_000);
    let ago = |s: u64| now.checked_sub(Duration::from_secs(s)).unwrap();
    let within = |s: u64| now + Duration::from_secs(s);
    let poll = |at, is_ending| Next::Poll { at, is_ending };
    for (name, due, silent, is_superseded, expect) in [
        ("it is due", Some(now), 5, false, Next::Emit),
        ("it was due long ago", Some(ago(9)), 5, false, Next::Emit),
        ("it will be due soon", Some(within(2)), 100, false, poll(within(2), true)),
        ("it will be due late: it is polled before", Some(within(60)), 100, false, poll(within(50), true)),
        ("it works on", None, 0, false, poll(now + POLL, false)),
        ("it has been silent", None, 100, false, poll(within(50), false)),
        ("it has been silent for a day", None, 86_400, false, poll(now + POLL_LATER, false)),
        ("nobody writes to its session any more", None, 0, true, Next::Emit),
        ("the same, and it will be due", Some(within(2)), 0, true, Next::Emit),
    ] {
        assert_eq!(next(now, due, ago(silent), is_superseded), expect, "{name}");
    }
}
