use std::time::{Duration, Instant};

use super::{
    emit::{FAULT, MAX_HELD_BYTES},
    read::{MAX_CHAIN, PANICKED, STEP_BYTES},
    *,
};
use crate::store::{Counts, Store};
use cc_core::{destination::Kind, ids, project::Options, turn::placement};

mod agents;
mod canary;
mod many;
mod permission;
mod switch;
mod totals;

/// A home with a directory for transcripts.
fn home() -> (tempfile::TempDir, PathBuf) {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join(".claude/projects/p");
    std::fs::create_dir_all(&dir).unwrap();
    (base, dir)
}

fn line(kind: &str, id: &str, content: &serde_json::Value) -> serde_json::Value {
    serde_json::json!({"type": kind, "uuid": id, "message": {"id": format!("m-{id}"), "content": content}})
}

fn write(path: &Path, lines: &[serde_json::Value]) {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    std::fs::write(path, text).unwrap(); // Over the old one: the file stays the same.
}

pub(super) fn ended(dir: &Path, id: &str) -> Hint {
    Hint {
        id: format!("e-{id}"),
        source: Source::Hook,
        fired_ns: 1,
        session_id: id.into(),
        transcript: dir.join(format!("{id}.jsonl")),
        event: Event::Ended,
        project_dirs: Vec::new(),
        config_dir: None,
        targets: vec![Destination { kind: Kind::Langfuse, address: "https://a".into(), account: "pk".into() }.into()],
        former: Vec::new(),
        settings_on: false,
        options: Options::default(),
        debug: false,
        totals_follow: false,
    }
}

/// A running engine.
struct Running {
    store: Handle,
    sender: mpsc::Sender<Input>,
    _orders: tokio::sync::mpsc::UnboundedReceiver<Order>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Running {
    fn new(base: &Path) -> Self {
        let store = Handle::new(Store::open(&base.join("state.db")).unwrap().store);
        let (sender, inputs) = mpsc::channel();
        let (orders, _orders) = tokio::sync::mpsc::unbounded_channel();
        let engine = Engine::new(store.clone(), orders, sender.clone(), Config::default(), base);
        Self { store, sender, _orders, thread: Some(std::thread::spawn(move || engine.run(&inputs))) }
    }

    fn hear(&self, hint: Hint) {
        self.store.call(|store| store.accept(std::slice::from_ref(&hint), &[])).unwrap();
        self.sender.send(Input::Hint(hint.into())).unwrap();
    }

    fn until(&self, done: impl Fn(&Counts) -> bool) -> Counts {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let counts = self.store.call(|store| store.counts()).unwrap();
            if done(&counts) {
                return counts;
            }
            assert!(Instant::now() < deadline, "{counts:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.sender.send(Input::Stop);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

#[test]
fn a_fault_of_ours_costs_the_session_it_is_in_its_event_and_no_other_session_anything() {
    let (base, dir) = home();
    for (id, text) in [("bad", FAULT), ("good", "hello")] {
        let user = line("user", &format!("{id}-1"), &"go".into());
        write(&dir.join(format!("{id}.jsonl")), &[user, line("assistant", &format!("{id}-2"), &text.into())]);
    }
    let engine = Running::new(base.path());
    engine.hear(ended(&dir, "bad"));
    engine.hear(ended(&dir, "good"));
    let counts = engine.until(|counts| counts.inbox == 0);
    assert_eq!((counts.outbox, counts.skipped), (2, [(PANICKED.to_owned(), 1)].into()));
}

#[test]
fn history_waits_for_the_end_of_a_pause_and_what_is_said_in_it_is_passed_over() {
    let (base, dir) = home();
    for id in ["old", "live"] {
        let answer = line("assistant", &format!("{id}-2"), &"hello".into());
        write(&dir.join(format!("{id}.jsonl")), &[line("user", &format!("{id}-1"), &"go".into()), answer]);
    }
    let engine = Running::new(base.path());
    engine.store.call(|store| store.pause(None, true)).unwrap();
    engine.hear(Hint { source: Source::Backfill, ..ended(&dir, "old") });
    engine.hear(ended(&dir, "live"));
    engine.until(|counts| counts.inbox == 1);
    engine.store.call(|store| store.pause(None, false)).unwrap();
    engine.until(|counts| counts.inbox == 0);
    let rows = engine.store.call(|store| store.claim(1, 100, usize::MAX)).unwrap();
    assert_eq!(rows.iter().map(|row| row.item.trace_id()).collect::<Vec<_>>(), [ids::trace_id("old-1"); 2]);
}

#[test]
fn a_subagent_finds_its_turn_though_that_was_stored_in_a_step_before() {
    let (base, dir) = home();
    let task = serde_json::json!([{"type": "tool_use", "id": "t1", "name": "Task", "input": {"prompt": "look"}}]);
    let mut launched =
        line("user", "u2", &serde_json::json!([{"type": "tool_result", "tool_use_id": "t1", "content": "begun"}]));
    launched["toolUseResult"] = serde_json::json!({"isAsync": true, "agentId": "a1"});
    let long = "x".repeat(STEP_BYTES);
    let lines = [
        line("user", "u1", &"go".into()),
        line("assistant", "a1", &task),
        launched,
        line("assistant", "a2", &long.as_str().into()),
        line("user", "u3", &"next".into()),
        line("assistant", "a3", &"yes".into()),
        line("user", "u4", &"and this".into()),
        line("assistant", "a4", &long.as_str().into()),
    ];
    let engine = Running::new(base.path());
    write(&dir.join("s.jsonl"), &lines[..3]);
    engine.hear(Hint { id: "e-first".into(), event: Event::Other, ..ended(&dir, "s") });
    engine.until(|counts| counts.inbox == 0);
    let agents = dir.join("s/subagents");
    std::fs::create_dir_all(&agents).unwrap();
    let mut own = [line("user", "s1", &"look".into()), line("assistant", "s2", &"seen".into())];
    own.iter_mut().for_each(|line| (line["isSidechain"], line["agentId"]) = (true.into(), "a1".into()));
    own[1]["message"]["stop_reason"] = "end_turn".into();
    write(&agents.join("agent-a1.jsonl"), &own);
    write(&dir.join("s.jsonl"), &lines);
    engine.hear(ended(&dir, "s"));
    engine.until(|counts| counts.outbox >= 10 || !counts.skipped.is_empty());
    let rows = engine.store.call(|store| store.claim(1, 100, usize::MAX)).unwrap();
    let of = |turn: &str| rows.iter().filter(|row| row.item.trace_id() == ids::trace_id(turn)).count();
    // A root, two answers and a tool, and below that the subagent and its answer; a root and an answer.
    assert_eq!(["u1", "u3", "u4"].map(of), [6, 2, 2]);
}

#[test]
fn the_last_line_of_a_subagent_counts_without_its_newline() {
    let (base, dir) = home();
    let task = serde_json::json!([{"type": "tool_use", "id": "t1", "name": "Task", "input": {"prompt": "look"}}]);
    let back = serde_json::json!([{"type": "tool_result", "tool_use_id": "t1", "content": "seen"}]);
    let lines = [line("user", "u1", &"go".into()), line("assistant", "a1", &task), line("user", "u2", &back)];
    write(&dir.join("s.jsonl"), &lines);
    let agents = dir.join("s/subagents");
    std::fs::create_dir_all(&agents).unwrap();
    let own = [line("user", "s1", &"look".into()), line("assistant", "s2", &"seen".into())];
    std::fs::write(agents.join("agent-a1.jsonl"), own.map(|line| line.to_string()).join("\n")).unwrap();
    std::fs::write(agents.join("agent-a1.meta.json"), r#"{"toolUseId":"t1"}"#).unwrap();
    let engine = Running::new(base.path());
    engine.hear(ended(&dir, "s"));
    // A root, a call and a tool; the subagent and its answer.
    engine.until(|counts| counts.outbox == 5);
}

#[test]
fn sessions_that_begin_with_each_other_are_told_once_each() {
    for count in [2, 400] {
        let (base, dir) = home();
        for n in 0..count {
            let mut prompt = line("user", &format!("{n}-1"), &"go".into());
            prompt["sessionId"] = format!("s-{}", (n + 1) % count).into();
            write(&dir.join(format!("s-{n}.jsonl")), &[prompt, line("assistant", &format!("{n}-2"), &"done".into())]);
        }
        let engine = Running::new(base.path());
        engine.hear(ended(&dir, "s-0"));
        assert_eq!(engine.until(|counts| counts.inbox == 0).outbox, 2 * count.min(MAX_CHAIN as u64 + 1));
    }
}

#[test]
fn a_transcript_that_is_gone_is_not_looked_for_all_the_time() {
    let (base, dir) = home();
    let transcript = dir.join("s.jsonl");
    let mut answer = line("assistant", "a1", &"done".into());
    answer["message"]["stop_reason"] = "end_turn".into();
    write(&transcript, &[line("user", "u1", &"go".into()), answer]);
    let agents = dir.join("s/subagents");
    std::fs::create_dir_all(&agents).unwrap();
    write(&agents.join("agent-a1.jsonl"), &[line("user", "s1", &"look".into())]);
    let store = Handle::new(Store::open(&base.path().join("state.db")).unwrap().store);
    let (orders, _orders) = tokio::sync::mpsc::unbounded_channel();
    let mut engine = Engine::new(store, orders, mpsc::channel().0, Config::default(), base.path());
    engine.take(Hint { event: Event::Other, ..ended(&dir, "s") });
    let session = engine.sessions.get_mut("s").unwrap();
    session.make_due();
    engine.look_at_all();
    std::fs::remove_file(&transcript).unwrap();
    // Everything possible is due.
    let session = engine.sessions.get_mut("s").unwrap();
    assert!(session.looks_finished() && session.agents_poll.is_some());
    let long_ago = Instant::now().checked_sub(QUIET_FINISHED).unwrap();
    session.grown = long_ago;
    session.make_due();
    session.agents_poll.as_mut().unwrap().at = long_ago;
    engine.look_at_all();
    assert!(engine.pause().unwrap() > placement::POLL / 2, "{:?}", engine.pause());
}

#[test]
fn events_wait_in_the_order_in_which_they_happened_and_once() {
    let (base, dir) = home();
    let store = Handle::new(Store::open(&base.path().join("state.db")).unwrap().store);
    let (orders, _orders) = tokio::sync::mpsc::unbounded_channel();
    let mut engine = Engine::new(store, orders, mpsc::channel().0, Config::default(), base.path());
    let events = [("c", 3), ("a", 1), ("b1", 2), ("b2", 2), ("b1", 2), ("c", 3), ("a", 1), ("b3", 2)];
    for (id, fired_ns) in events {
        engine.take(Hint { id: id.into(), fired_ns, ..ended(&dir, "s") });
    }
    let waiting = |engine: &Engine| -> Vec<String> {
        engine.sessions["s"].waiting.iter().map(|(hint, _)| hint.id.clone()).collect()
    };
    assert_eq!(waiting(&engine), ["a", "b1", "b2", "b3", "c"]);
    // A Stop waits for its answer; what came before and after it does not.
    write(&dir.join("s.jsonl"), &[line("user", "u1", &"go".into()), line("assistant", "a1", &"not yet".into())]);
    let session = engine.sessions.get_mut("s").unwrap();
    session.waiting.iter_mut().for_each(|(hint, _)| hint.event = Event::Other);
    session.waiting[2].0.event = Event::Stopped { answer: Some(ids::Fingerprint::of("done")) };
    session.make_due();
    engine.look_at_all();
    assert_eq!(waiting(&engine), ["b2"]);
}

#[test]
fn what_is_heard_later_is_newer_than_what_was_fired_in_a_time_yet_to_come() {
    const NOW: u64 = 1_800_000_000_000;
    let ns = |ms: u64| ms * 1_000_000;
    for (fired, known, newer, case) in [
        (NOW, NOW - 5, true, "the usual"),
        (NOW, NOW, true, "at the same moment"),
        (NOW - 5, NOW, false, "heard late, from the spool"),
        (NOW, NOW + 3_600_000, true, "the clock was ahead by an hour"),
        (NOW - 5, NOW + 400 * 86_400_000, true, "by more than a year"),
        (NOW - 5, NOW + 500, false, "by what clocks are set by"),
        (NOW, NOW - 86_400_000, true, "the clock was behind"),
        (NOW + 3_600_000, NOW, true, "it was ahead, and is not any more"),
    ] {
        assert_eq!(is_newer(ns(fired), ns(known), NOW), newer, "{case}");
    }
}

#[test]
fn settings_that_came_last_win_whatever_the_clock_said_before() {
    for ahead_s in [3_600, 86_400 * 400] {
        let (base, dir) = home();
        let answer = line("assistant", "a1", &"done".into());
        write(&dir.join("s.jsonl"), &[line("user", "u1", &"go".into()), answer]);
        let (orders, _orders) = tokio::sync::mpsc::unbounded_channel();
        let store = Handle::new(Store::open(&base.path().join("state.db")).unwrap().store);
        let mut engine = Engine::new(store, orders, mpsc::channel().0, Config::default(), base.path());
        let now_ns = u64::try_from(now_ms()).unwrap() * 1_000_000;
        engine.take(Hint { fired_ns: now_ns + ahead_s * 1_000_000_000, event: Event::Other, ..ended(&dir, "s") });
        let moved = dir.with_file_name("q").join("s.jsonl");
        let before = ended(&dir, "s").targets.remove(0).destination;
        let destination = Destination { address: "https://b".into(), ..before };
        let options = Options { capture: cc_core::project::Capture::Metadata, ..Options::default() };
        for (id, fired_ns) in [("e-2", now_ns - 5), ("e-3", now_ns - 4)] {
            let hint = Hint { id: id.into(), fired_ns, transcript: moved.clone(), ..ended(&dir, "s") };
            engine.take(Hint { targets: vec![destination.clone().into()], options: options.clone(), ..hint });
        }
        let row = &engine.sessions["s"].row;
        assert_eq!(
            (&row.hint.id[..], &row.transcript, &row.hint.targets[0].destination),
            ("e-3", &moved, &destination)
        );
        assert_eq!(row.hint.options, options);
        // From then on the clock decides: a late event changes nothing.
        engine.take(Hint { id: "e-1".into(), fired_ns: now_ns - 9, ..ended(&dir, "s") });
        assert_eq!(engine.sessions["s"].row.hint.id, "e-3");
    }
}

#[test]
fn a_subagent_that_is_silent_is_looked_at_ever_more_rarely_and_not_read() {
    let (base, dir) = home();
    let task = serde_json::json!([{"type": "tool_use", "id": "t1", "name": "Task", "input": {"prompt": "look"}}]);
    write(&dir.join("s.jsonl"), &[line("user", "u1", &"go".into()), line("assistant", "a1", &task)]);
    let agents = dir.join("s/subagents");
    std::fs::create_dir_all(&agents).unwrap();
    let own = agents.join("agent-a1.jsonl");
    write(&own, &[line("user", "s1", &"look".into())]);
    let (orders, _orders) = tokio::sync::mpsc::unbounded_channel();
    let store = Handle::new(Store::open(&base.path().join("state.db")).unwrap().store);
    let mut engine = Engine::new(store, orders, mpsc::channel().0, Config::default(), base.path());
    engine.take(Hint { event: Event::Other, ..ended(&dir, "s") });
    let session = |engine: &mut Engine| engine.sessions.remove("s").unwrap();
    let mut at = session(&mut engine);
    engine.look(&mut at);
    assert!(!at.agents.get("a1").unwrap().has_changed(), "read to its end");
    let mut looks = 0;
    let (mut silent, hour) = (Duration::ZERO, Duration::from_secs(3600));
    while silent < hour {
        engine.look(&mut at);
        let wait = at.agents_due().unwrap().saturating_duration_since(Instant::now()).max(placement::POLL / 2);
        (silent, looks) = (silent + wait, looks + 1);
        at.agents.backdate(wait);
    }
    assert!((10..40).contains(&looks), "{looks} looks in an hour");
    assert!(silent < hour + placement::POLL_LATER);
    write(&own, &[line("user", "s1", &"look".into()), line("assistant", "s2", &"seen".into())]);
    assert!(at.agents.get("a1").unwrap().has_changed(), "it went on");
}

#[test]
fn of_a_long_subagent_little_is_held_whether_it_is_known_where_it_belongs_or_not() {
    let call = |id: &str, input| {
        line("assistant", id, &serde_json::json!([{"type": "tool_use", "id": id, "name": "Task", "input": input}]))
    };
    let result = |id: &str, text: &str| {
        line(
            "user",
            &format!("r-{id}"),
            &serde_json::json!([{"type": "tool_result", "tool_use_id": id, "content": text}]),
        )
    };
    for is_named in [false, true] {
        let (base, dir) = home();
        let transcript = dir.join("s.jsonl");
        let mut lines = vec![line("user", "u1", &"go".into()), call("t1", serde_json::json!({"prompt": "another"}))];
        write(&transcript, &lines);
        let long = "x".repeat(MAX_HELD_BYTES / 16);
        let mut own = vec![line("user", "s1", &"look".into())];
        own.extend((0..40).map(|n| format!("t-{n}")).flat_map(|id| [call(&id, ().into()), result(&id, &long)]));
        let agents = dir.join("s/subagents");
        std::fs::create_dir_all(&agents).unwrap();
        write(&agents.join("agent-a1.jsonl"), &own);
        let store = Handle::new(Store::open(&base.path().join("state.db")).unwrap().store);
        let (orders, _orders) = tokio::sync::mpsc::unbounded_channel();
        let own = mpsc::channel().0;
        let mut engine = Engine::new(store.clone(), orders, own, Config::default(), base.path());
        let event = Hint { options: Options { unredacted: true, ..Options::default() }, ..ended(&dir, "s") };
        engine.take(Hint { id: "e-first".into(), event: Event::Other, ..event.clone() });
        let look_until = |engine: &mut Engine, enough: &dyn Fn(&Engine) -> bool| {
            let deadline = Instant::now() + Duration::from_secs(30);
            while !enough(engine) {
                assert!(Instant::now() < deadline, "{:?}", store.call(|store| store.counts()));
                std::thread::sleep(Duration::from_millis(5));
                engine.look_at_all();
                let agent = engine.sessions.get_mut("s").and_then(|session| session.agents.get("a1"));
                assert!(agent.is_none_or(|agent| agent.held <= MAX_HELD_BYTES + CHUNK_BYTES + long.len()));
            }
        };
        look_until(&mut engine, &|engine| engine.sessions["s"].waiting.is_empty());
        if is_named {
            let mut back = result("t1", "seen");
            back["toolUseResult"] = serde_json::json!({"agentId": "a1"});
            lines.push(back);
            write(&transcript, &lines);
        }
        engine.take(event);
        // A root, a call and a tool; the subagent, its calls and its tools.
        look_until(&mut engine, &|_| store.call(|store| store.counts()).unwrap().outbox == 3 + 1 + 2 * 40);
    }
}

#[test]
fn a_session_is_not_read_again_for_a_destination_that_was_behind_while_its_project_is_off() {
    for (says, expect) in [("false", 0), ("true", 2)] {
        let (base, dir) = home();
        let answer = line("assistant", "s-2", &"hello".into());
        write(&dir.join("s.jsonl"), &[line("user", "s-1", &"go".into()), answer]);
        let project = base.path().join("work");
        std::fs::create_dir_all(project.join(".claude")).unwrap();
        let settings = format!(r#"{{"env": {{"TRACE_TO_LANGFUSE": "{says}"}}}}"#);
        std::fs::write(project.join(".claude/settings.local.json"), settings).unwrap();
        let hint = Hint { project_dirs: vec![project], ..ended(&dir, "s") };
        let destination = hint.targets[0].destination.clone();
        let session = SessionRow {
            session_id: "s".into(),
            transcript: hint.transcript.clone(),
            cursor: Position::default(),
            closed: 0,
            turns: 0,
            open_turn: false,
            unsettled: 0,
            forked_from: None,
            title: None,
            hint,
        };
        let step = Advance {
            session,
            spans: Vec::new(),
            off: Vec::new(),
            marks: Vec::new(),
            hidden: Vec::new(),
            turns: Vec::new(),
            scores: Vec::new(),
            launches: Vec::new(),
            agents: Vec::new(),
            consumed: Vec::new(),
            kept: None,
            skipped: Default::default(),
            unknown: Default::default(),
            redacted: Default::default(),
            behind: vec![destination],
            now_ms: now_ms(),
        };
        let mut store = Store::open(&base.path().join("state.db")).unwrap().store;
        store.advance(&step).unwrap();
        assert!(store.is_anything_behind().unwrap());
        drop(store);
        let engine = Running::new(base.path());
        let is_left = || {
            let (ask, answer) = oneshot::channel();
            engine.sender.send(Input::Pending(ask)).unwrap();
            answer.blocking_recv().unwrap() > 0
        };
        let deadline = Instant::now() + Duration::from_secs(30);
        while is_left() {
            assert!(Instant::now() < deadline, "{says}");
        }
        assert!(!engine.store.call(|store| store.is_anything_behind()).unwrap());
        let counts = engine.until(|_| true);
        assert_eq!((counts.outbox, counts.skipped.get("project_off")), (expect, (expect == 0).then_some(&1)), "{says}");
    }
}
