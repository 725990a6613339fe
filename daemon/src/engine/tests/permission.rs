//! How long events permit reading a session whose project's settings do not turn tracing on.

use super::*;

/// A turn with a subagent whose call has returned. The subagent's end is only shown by a silence; for one in the
/// background, only by the end of the session.
fn session_with_a_subagent(dir: &Path, background: bool) {
    let call = |id: &str, input: serde_json::Value| {
        let block = serde_json::json!({"type": "tool_use", "id": id, "name": "Task", "input": input});
        line("assistant", &format!("c-{id}"), &serde_json::json!([block]))
    };
    let back = serde_json::json!([{"type": "tool_result", "tool_use_id": "t1", "content": "seen"}]);
    let mut result = line("user", "r1", &back);
    result["toolUseResult"] = serde_json::json!({"agentId": "a1", "isAsync": background});
    let lines = [
        line("user", "u1", &"go".into()),
        call("t1", serde_json::json!({"prompt": "look"})),
        result,
        line("assistant", "a9", &"done".into()),
    ];
    write(&dir.join("s.jsonl"), &lines);
    let agents = dir.join("s/subagents");
    std::fs::create_dir_all(&agents).unwrap();
    write(&agents.join("agent-a1.jsonl"), &[line("user", "s1", &"look".into()), call("t2", ().into())]);
}

#[test]
fn a_subagent_that_ends_with_an_event_is_read_to_its_end_after_a_restart_too() {
    /// The number of spans of the turn: the root, two calls and a tool.
    const TURN: u64 = 4;
    /// The number of spans of the subagent: itself, its call and its tool.
    const SUBAGENT: u64 = 3;
    let stop = || Event::Stopped { answer: Some(ids::Fingerprint::of("done")) };
    for (event, restarted, background) in [
        (stop(), false, false),
        (stop(), true, false),
        (Event::Ended, false, false),
        (Event::Ended, true, false),
        (Event::Ended, false, true),
        (Event::Ended, true, true),
    ] {
        let (base, dir) = home();
        session_with_a_subagent(&dir, background);
        let project = base.path().join("work");
        std::fs::create_dir_all(&project).unwrap();
        let hint = Hint { event: event.clone(), project_dirs: vec![project], ..ended(&dir, "s") };
        let store = Handle::new(Store::open(&base.path().join("state.db")).unwrap().store);
        let (orders, _orders) = tokio::sync::mpsc::unbounded_channel();
        let engine = || Engine::new(store.clone(), orders.clone(), mpsc::channel().0, Config::default(), base.path());
        let counts = || store.call(|store| store.counts()).unwrap();
        let look_until = |engine: &mut Engine, enough: u64| {
            let deadline = Instant::now() + Duration::from_secs(30);
            while counts().outbox < enough {
                assert!(Instant::now() < deadline, "{event:?}, restarted: {restarted}: {:?}", counts());
                std::thread::sleep(Duration::from_millis(2));
                engine.look_at_all();
            }
        };
        let mut first = engine();
        store.call(|store| store.accept(std::slice::from_ref(&hint), &[])).unwrap();
        first.take(hint);
        look_until(&mut first, TURN);
        assert_eq!((counts().outbox, counts().inbox), (TURN, 1), "{event:?}: the subagent may go on");
        let mut last = if restarted { engine() } else { first };
        look_until(&mut last, TURN + SUBAGENT);
        last.look_at_all();
        assert_eq!((counts().outbox, counts().inbox), (TURN + SUBAGENT, 0), "{event:?}, restarted: {restarted}");
        assert!(last.sessions.get("s").is_none_or(|session| session.waiting.is_empty()));
    }
}

#[test]
fn an_event_that_is_kept_for_a_subagent_ends_no_later_turn_after_a_restart() {
    for event in [Event::Stopped { answer: Some(ids::Fingerprint::of("done")) }, Event::Ended] {
        let (base, dir) = home();
        session_with_a_subagent(&dir, false);
        let hint = Hint { event: event.clone(), ..ended(&dir, "s") };
        let store = Handle::new(Store::open(&base.path().join("state.db")).unwrap().store);
        let (orders, _orders) = tokio::sync::mpsc::unbounded_channel();
        let mut engine = Engine::new(store.clone(), orders, mpsc::channel().0, Config::default(), base.path());
        store.call(|store| store.accept(std::slice::from_ref(&hint), &[])).unwrap();
        engine.take(hint);
        let deadline = Instant::now() + Duration::from_secs(30);
        while store.call(|store| store.counts()).unwrap().outbox < 4 {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(2));
            engine.look_at_all();
        }
        let kept = store.call(|store| store.inbox()).unwrap();
        assert_eq!(kept.iter().map(|hint| &hint.event).collect::<Vec<_>>(), [&Event::Other], "{event:?}");
    }
}
