use super::*;

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
fn inline_subagents_are_separated_by_their_chains() {
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
fn launches_show_which_results_have_come() {
    let launched = |tool: &str, agent: &str, is_async| {
        let agent = Some(Launched { agent_id: agent.into(), is_async, wakes: false });
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
fn a_fork_names_its_origin_from_the_fork_on() {
    let mut assembler = Assembler::new("s-2", 0);
    let copy = |id: &str, at| {
        let line = Assistant { forked_from: Some("s-1".into()), ..line(id, at, vec![Block::Text("x".into())]) };
        Record::Assistant(Box::new(line))
    };
    let closed = push(&mut assembler, vec![plain("p1", 1), copy("a", 2), plain("p2", 3), said("b", 4, "new")]);
    assert_eq!(closed[0].session.forked_from, None, "known only behind its prompt; it is a copy anyway");
    assert_eq!(assembler.open().unwrap().session.forked_from.as_deref(), Some("s-1"));
    assert_eq!(assembler.origin().map(String::as_str), Some("s-1"));
    let mut later = Assembler::new("s-2", 2).resumed(assembler.origin().cloned(), None, Vec::new());
    push(&mut later, vec![plain("p3", 5), said("c", 6, "on")]);
    assert_eq!(later.open().unwrap().session.forked_from.as_deref(), Some("s-1"));
}

#[test]
fn a_skill_run_directly_is_a_turn_with_a_subagents_calls() {
    let put_out = |parent: &str, agent_id: Option<&str>| Record::CommandOutput {
        at: Some(5),
        parent: Some(parent.into()),
        text: "done".into(),
        agent_id: agent_id.map(str::to_owned),
    };
    let asked =
        |text: &str| Record::Prompt(Prompt { text: text.into(), prompt_id: Some("pid".into()), ..prompt("p1", 1) });
    for agent_id in [None, Some("a1")] {
        let all = turns(vec![asked("/review it"), put_out("p1", agent_id), plain("p2", 6), said("a", 7, "x")]);
        assert_eq!(keys(&all), [(1, "p1"), (2, "p2")]);
        let turn = &all[0];
        assert_eq!((turn.output().as_str(), turn.end, turn.prompt.kind), ("done", Some(5), PromptKind::Command));
        assert!(
            turn.looks_finished() && turn.ends_with(&Fingerprint::of("done")) && !turn.ends_with(&Fingerprint::of("x"))
        );
        let launch = Launch {
            tool_id: Turn::launch_id("pid"),
            id: Turn::launch_id("pid"),
            message_id: None,
            called: Some(1),
            wakes: false,
            agent_id: agent_id.map(str::to_owned),
            turn: ("p1".into(), 1),
            returned: agent_id.is_none(),
        };
        assert_eq!(turn.launches().collect::<Vec<_>>(), [launch]);
    }
    // Output of another command, of no command, or of one that the model answers.
    for records in [vec![asked("/review it"), put_out("p0", None)], vec![asked("review it"), put_out("p1", None)]] {
        assert!(read(records).1.awaits_answer());
    }
    let answered = only(vec![asked("/review it"), said("a", 2, "x"), put_out("p1", None)]);
    assert_eq!((answered.output().as_str(), answered.launches().count()), ("x", 0));
}
