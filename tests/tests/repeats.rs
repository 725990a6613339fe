//! Ids that repeat, prompts that two sessions share, and answers without a prompt: every call arrives
//! once, in its place.

use std::{collections::BTreeSet, fs, time::SystemTime};

use serde_json::{Value, json};
use tests::{Home, Server, Span, Story};

/// Lines that Claude Code writes behind a gateway: each follows the one before, and each has its own time.
struct Lines {
    session: String,
    made: Vec<Value>,
    seconds: u64,
}

impl Lines {
    fn new(session: &str) -> Self {
        Self { session: session.to_owned(), made: Vec::new(), seconds: 0 }
    }

    fn add(&mut self, kind: &str, message: &Value) -> &mut Value {
        self.seconds += 1;
        let parent = self.made.last().map(|line| line["uuid"].clone());
        self.made.push(json!({
            "parentUuid": parent, "isSidechain": false, "type": kind, "message": message,
            "uuid": format!("{}-{}", self.session, self.made.len()), "sessionId": self.session, "version": "2.1.329",
            "timestamp": format!("2026-11-20T08:{:02}:{:02}.000Z", self.seconds / 60, self.seconds % 60),
        }));
        self.made.last_mut().expect("a line")
    }

    fn user(&mut self, content: &Value) -> &mut Value {
        self.add("user", &json!({"role": "user", "content": content}))
    }

    fn result(&mut self, tool: &str, output: &str) -> &mut Value {
        self.user(&json!([{"type": "tool_result", "tool_use_id": tool, "content": output}]))
    }

    fn answer(&mut self, id: &str, input: u64, block: &Value, stop: &str) -> &mut Value {
        let usage = json!({"input_tokens": input, "output_tokens": 1});
        let message = json!({
            "id": id, "role": "assistant", "model": "some-model", "content": [block], "stop_reason": stop, "usage": usage,
        });
        self.add("assistant", &message)
    }

    fn call(&mut self, id: &str, input: u64, tool: &str, name: &str, arguments: &Value) -> &mut Value {
        self.answer(id, input, &json!({"type": "tool_use", "id": tool, "name": name, "input": arguments}), "tool_use")
    }

    fn says(&mut self, id: &str, input: u64, text: &str) -> &mut Value {
        self.answer(id, input, &json!({"type": "text", "text": text}), "end_turn")
    }

    fn text(&self) -> String {
        self.made.iter().map(|line| format!("{line}\n")).collect()
    }
}

/// The lines as subagent `agent` would have them in its own file.
fn of_agent(mut lines: Lines, agent: &str) -> String {
    for line in &mut lines.made {
        line["isSidechain"] = json!(true);
        line["agentId"] = json!(agent);
    }
    lines.text()
}

fn input(span: &Span) -> u64 {
    let usage: Value = serde_json::from_str(span.observation("usage_details")).unwrap_or_default();
    usage["input"].as_u64().unwrap_or(0)
}

/// Input tokens of the spans; all come once except roots, which come again when their turn grows.
fn tokens(spans: &[Span]) -> u64 {
    let below: Vec<_> = spans.iter().filter(|span| !span.is_root()).collect();
    let ids: BTreeSet<_> = below.iter().map(|span| (&span.trace_id, &span.span_id)).collect();
    assert_eq!(ids.len(), below.len(), "an id came twice");
    below.into_iter().map(input).sum()
}

#[test]
fn calls_with_counter_ids_in_session_and_subagents_stay_separate() {
    for (message, tool) in [("msg_", "call_"), ("msg_constant", "tool_constant")] {
        let id = |prefix: &str, n: u64| if prefix.ends_with('_') { format!("{prefix}{n}") } else { prefix.to_owned() };
        let home = Home::new();
        let server = Server::new();
        let daemon = home.daemon();
        let story = Story::new(&home, "work", "s");
        let mut lines = Lines::new("s");
        lines.user(&json!("go"));
        for n in [1, 2] {
            let order = json!({"prompt": format!("job {n}"), "subagent_type": "worker", "description": "d"});
            lines.call(&id(message, n), n, &id(tool, 0), "Agent", &order);
            lines.result(&id(tool, 0), "done")["toolUseResult"] =
                json!({"status": "completed", "agentId": format!("a{n}")});
        }
        lines.call(&id(message, 3), 10, &id(tool, 0), "Bash", &json!({"command": "ls"}));
        lines.result(&id(tool, 0), "listing");
        lines.says(&id(message, 4), 20, "All done.");
        fs::write(&story.path, lines.text()).expect("the transcript");
        let dir = story.path.with_extension("").join("subagents");
        fs::create_dir_all(&dir).expect("a directory");
        for n in [1, 2] {
            let mut agent = Lines::new(&format!("a{n}"));
            agent.user(&json!(format!("job {n}")));
            agent.call(&id(message, 1), 100, &id(tool, 0), "Bash", &json!({"command": "pwd"}));
            agent.result(&id(tool, 0), &format!("in agent {n}"));
            agent.says(&id(message, 2), 200, "ready");
            fs::write(dir.join(format!("agent-a{n}.jsonl")), of_agent(agent, &format!("a{n}"))).expect("written");
        }
        home.hook(&story.stop("All done."), &server.env());
        // The root; four calls and three tools; two agents with two calls and a tool each.
        let spans = server.wait_for(16);
        home.flush();
        assert_eq!(tokens(&server.spans()), 33 + 2 * 300, "{message}");
        let outputs: BTreeSet<&str> = spans
            .iter()
            .filter(|span| span.observation("type") == "tool")
            .map(|span| span.observation("output"))
            .collect();
        assert_eq!(outputs, ["done", "in agent 1", "in agent 2", "listing"].into(), "{message}");
        for n in [1, 2] {
            let tool = spans.iter().find(|span| span.observation("output") == format!("in agent {n}")).expect("a tool");
            let above =
                |span: &Span| spans.iter().find(|other| other.span_id == span.parent).expect("a parent").clone();
            let agent = above(&above(tool));
            assert_eq!(agent.get("langfuse.observation.metadata.agent_id"), format!("a{n}"));
        }
        drop(daemon);
        let shown = home.ctl(&["show", story.path.to_str().expect("a path")]);
        let text = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(shown.status.success() && text.lines().count() < 40, "{text}");
    }
}

#[test]
fn a_turn_belongs_to_the_session_that_created_it_whichever_is_read_first() {
    for (marked, fork_is_older) in [(true, true), (true, false), (false, false)] {
        let (home, server) = (Home::new(), Server::new());
        let _daemon = home.daemon();
        let (first, fork) = (Story::new(&home, "work", "first"), Story::new(&home, "work", "fork"));
        let mut lines = Lines::new("first");
        lines.user(&json!("one"));
        lines.says("m1", 1, "answer one");
        lines.user(&json!("two"));
        let mut copy = Lines { session: "fork".into(), made: lines.made.clone(), seconds: 60 };
        for line in &mut copy.made {
            line["sessionId"] = json!("fork");
            if marked && line["type"] == "assistant" {
                line["requestSessionId"] = json!("first");
            }
        }
        lines.says("m2", 10, "the first session's answer");
        copy.says("m3", 100, "the fork's answer");
        copy.user(&json!("three"));
        copy.says("m4", 1000, "the fork's own");
        home.settings("work", &server.env());
        for (story, lines, is_older) in [(&first, &mut lines, !fork_is_older), (&fork, &mut copy, fork_is_older)] {
            lines.made.iter_mut().for_each(|line| line["cwd"] = json!(story.cwd));
            fs::write(&story.path, lines.text()).expect("the transcript");
            let age = std::time::Duration::from_secs(if is_older { 7200 } else { 3600 });
            let file = fs::File::options().append(true).open(&story.path).expect("the transcript");
            file.set_modified(SystemTime::now() - age).expect("a time");
        }
        let all = home.ctl(&["backfill", "--yes"]);
        assert!(all.status.success(), "{}", String::from_utf8_lossy(&all.stderr));
        server.wait_for(8);
        home.flush();
        let spans = server.spans();
        assert_eq!(tokens(&spans), 1111, "marked {marked}, fork is older {fork_is_older}");
        let mut roots: Vec<_> = spans
            .iter()
            .filter(|span| span.is_root())
            .map(|span| {
                (
                    span.get("session.id"),
                    span.name.as_str(),
                    spans.iter().filter(|s| s.trace_id == span.trace_id).map(input).sum::<u64>(),
                )
            })
            .collect();
        roots.sort();
        let expect =
            [("first", "Turn 1", 1), ("first", "Turn 2", 10), ("fork", "Turn 2", 100), ("fork", "Turn 3", 1000)];
        assert_eq!(roots, expect, "marked {marked}, fork is older {fork_is_older}");
    }
}

/// The lines of session `from`, as the fork `to` begins with them; if `marked`, with the field that names each line's
/// origin, else with the field that names the session in which an answer was given.
fn fork(from: &Lines, to: &str, marked: bool) -> Lines {
    let mut copy = Lines { session: to.into(), made: from.made.clone(), seconds: from.seconds + 60 };
    for line in &mut copy.made {
        let was = line["sessionId"].take();
        line["sessionId"] = json!(to);
        if marked {
            line["forkedFrom"] = json!({"sessionId": from.session, "messageUuid": line["uuid"]});
        } else if line["type"] == "assistant" && line["requestSessionId"].is_null() {
            line["requestSessionId"] = was;
        }
    }
    copy
}

#[test]
fn a_fork_of_a_fork_leaves_each_turn_to_its_session_in_any_order() {
    for (n, order) in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]].into_iter().enumerate() {
        let (home, server) = (Home::new(), Server::new());
        let _daemon = home.daemon();
        home.settings("work", &server.env());
        let mut one = Lines::new("one");
        one.user(&json!("first"));
        one.says("m1", 1, "answer one");
        one.user(&json!("second"));
        let mut two = fork(&one, "two", n % 2 == 0);
        one.says("m2", 10, "of one");
        two.says("m3", 100, "of two");
        two.user(&json!("third"));
        let mut three = fork(&two, "three", n % 2 == 0);
        two.says("m4", 1000, "of two");
        three.says("m5", 10_000, "of three");
        let mut all = [one, two, three];
        for (age, session) in order.into_iter().enumerate() {
            let story = Story::new(&home, "work", &all[session].session);
            all[session].made.iter_mut().for_each(|line| line["cwd"] = json!(story.cwd));
            // Other writers put blanks between a name and its value.
            fs::write(&story.path, all[session].text().replace("\":\"", "\": \"")).expect("the transcript");
            let file = fs::File::options().append(true).open(&story.path).expect("the transcript");
            let age = std::time::Duration::from_secs(7200 - 600 * age as u64);
            file.set_modified(SystemTime::now() - age).expect("a time");
        }
        let output = home.ctl(&["backfill", "--yes"]);
        assert!(output.status.success(), "{order:?}: {output:?}");
        server.wait_for(10);
        home.flush();
        let spans = server.spans();
        let calls = spans.iter().filter(|span| span.is_generation());
        let arrived: BTreeSet<_> = calls.map(|span| (span.get("session.id"), input(span), &span.trace_id)).collect();
        let expect = [("one", 1), ("one", 10), ("three", 10_000), ("two", 100), ("two", 1000)];
        assert_eq!(
            arrived.iter().map(|(session, tokens, _)| (*session, *tokens)).collect::<Vec<_>>(),
            expect,
            "{order:?}"
        );
        let traces: BTreeSet<_> = arrived.iter().map(|(.., trace)| trace).collect();
        assert_eq!((traces.len(), spans.iter().filter(|span| span.is_root()).count()), (5, 5), "{order:?}");
    }
}

#[test]
fn an_answer_with_an_unknown_prompt_gets_a_marked_turn() {
    let begun = |begin: &dyn Fn(&mut Lines)| {
        let mut lines = Lines::new("s");
        begin(&mut lines);
        lines.says("m1", 100, "answer");
        lines
    };
    let meta = |field: &str, text: &str| begun(&|lines| lines.user(&json!(text))[field] = json!(true));
    let mut rows = vec![
        ("no line of the user's", begun(&|_| {})),
        (
            "a tool result",
            begun(&|lines| {
                lines.result("t", "cut off");
            }),
        ),
        ("words of Claude Code's own", meta("isMeta", "Continue from where you left off.")),
        ("the summary of a compaction", meta("isCompactSummary", "This session is being continued")),
    ];
    for content in [
        json!(""),
        json!(" \n"),
        Value::Null,
        json!([]),
        json!([{"type": "text", "text": ""}]),
        json!({"a": 1}),
        json!([{"type": "container_upload", "file_id": "f"}]),
    ] {
        let mut lines = Lines::new("s");
        lines.user(&content);
        lines.says("m1", 100, "answer");
        rows.push(("nothing that can be read", lines));
    }
    let mut side = Lines::new("s");
    side.says("m1", 100, "answer");
    side.made[0]["isSidechain"] = json!(true);
    rows.push(("a line of a subagent alone", side));
    let home = Home::new();
    let story = Story::new(&home, "work", "s");
    for (what, mut lines) in rows {
        // What follows is a separate turn.
        lines.user(&json!("next"));
        lines.says("m2", 10, "another");
        fs::write(&story.path, lines.text()).expect("the transcript");
        let shown = home.ctl(&["show", "--json", story.path.to_str().expect("a path")]);
        let spans: Vec<Value> = serde_json::from_slice(&shown.stdout).expect("spans");
        let marks: Vec<_> = spans.iter().filter(|span| span["parent_id"].is_null()).collect();
        let is_marked =
            |span: &&Value| span["attributes"].as_object().is_some_and(|all| all.values().any(|v| v == "stand-in"));
        assert_eq!(marks.iter().map(is_marked).collect::<Vec<_>>(), [true, false], "{what}: {spans:#?}");
        let usage = |span: &Value| -> u64 {
            let usage = span["attributes"]["langfuse.observation.usage_details"].as_str().unwrap_or("{}");
            serde_json::from_str::<Value>(usage).expect("JSON")["input"].as_u64().unwrap_or(0)
        };
        assert_eq!(spans.iter().map(usage).sum::<u64>(), 110, "{what}");
    }
}

#[test]
fn each_of_two_terminals_on_one_session_has_its_own_turn() {
    let (home, server) = (Home::new(), Server::new());
    let daemon = home.daemon();
    let story = Story::new(&home, "work", "s");
    let mut lines = Lines::new("s");
    lines.user(&json!("start"));
    let head = lines.says("m0", 1, "started")["uuid"].clone();
    let mut left = lines.user(&json!("left"))["uuid"].clone();
    let right = lines.user(&json!("right"));
    right["parentUuid"] = head;
    let right = right["uuid"].clone();
    let line = lines.call("l1", 10, "t", "Bash", &json!({"command": "ls"}));
    line["parentUuid"] = left;
    left = line["uuid"].clone();
    let said = lines.says("r1", 100, "right is four");
    said["parentUuid"] = right;
    fs::write(&story.path, lines.text()).expect("the transcript");
    home.hook(&story.stop("right is four"), &server.env());
    server.wait_for(4);
    home.flush();
    // After a restart, the left terminal's lines still belong to the left.
    daemon.kill();
    let _daemon = home.daemon();
    lines.result("t", "a.txt")["parentUuid"] = left;
    lines.says("l2", 1000, "left has one file");
    fs::write(&story.path, lines.text()).expect("the transcript");
    home.hook(&story.stop("left has one file"), &server.env());
    server.wait_for(8);
    home.flush();
    let spans = server.spans();
    assert_eq!(tokens(&spans), 1111);
    let output = |text: &str| {
        let mut roots = spans.iter().filter(|span| span.is_root());
        roots.rfind(|span| span.content("output") == text).expect("a root")
    };
    for (prompt, said, calls) in [("left", "left has one file", 3), ("right", "right is four", 1)] {
        let root = output(said);
        assert!(root.observation("input").contains(prompt), "{}", root.observation("input"));
        let below = spans.iter().filter(|span| span.trace_id == root.trace_id && !span.is_root());
        assert_eq!(below.count(), calls, "{prompt}");
    }
    assert!(spans.iter().all(|span| span.observation("level") != "ERROR"));
}

#[test]
fn show_ends_even_if_ids_form_a_circle() {
    // All ids are the same.
    let home = Home::new();
    let story = Story::new(&home, "work", "s");
    let mut lines = Lines::new("s");
    lines.user(&json!("go"));
    for n in 0..20 {
        lines.call("x", n, "x", "Agent", &json!({"prompt": "go", "subagent_type": "x"}));
        lines.result("x", "ok")["toolUseResult"] = json!({"agentId": "x"});
    }
    fs::write(&story.path, lines.text()).expect("the transcript");
    let dir = story.path.with_extension("").join("subagents");
    fs::create_dir_all(&dir).expect("a directory");
    fs::write(dir.join("agent-x.jsonl"), of_agent(lines, "x")).expect("written");
    let shown = home.ctl(&["show", story.path.to_str().expect("a path")]);
    assert!(shown.status.success() && shown.stdout.len() < 20_000, "{} bytes", shown.stdout.len());
}
