//! Very many sessions, and very long ones: the cost of a step and the order are counted, not timed.

use super::*;

/// An engine that runs step by step.
struct Stepped {
    engine: Engine,
    store: Handle,
    dir: PathBuf,
    _base: tempfile::TempDir,
    _orders: tokio::sync::mpsc::UnboundedReceiver<Order>,
}

impl Stepped {
    fn new() -> Self {
        let (base, dir) = home();
        Self::of(base, dir)
    }

    fn of(base: tempfile::TempDir, dir: PathBuf) -> Self {
        let store = Handle::new(Store::open(&base.path().join("state.db")).unwrap().store);
        let (engine, _orders) = Self::over(&store, base.path());
        Self { engine, store, dir, _base: base, _orders }
    }

    fn over(store: &Handle, base: &Path) -> (Engine, tokio::sync::mpsc::UnboundedReceiver<Order>) {
        let (orders, receiver) = tokio::sync::mpsc::unbounded_channel();
        let own = mpsc::channel().0;
        (Engine::new(store.clone(), orders, own, Config::default(), base), receiver)
    }

    /// A transcript with this many turns, last written an hour ago.
    fn session(&self, id: &str, turns: usize) -> Hint {
        let path = self.dir.join(format!("{id}.jsonl"));
        let turn = |n: usize| {
            let mut answer = line("assistant", &format!("{id}-a{n}"), &"done".into());
            answer["message"]["stop_reason"] = "end_turn".into();
            [line("user", &format!("{id}-u{n}"), &"go".into()), answer]
        };
        write(&path, &(0..turns).flat_map(turn).collect::<Vec<_>>());
        let then = std::time::SystemTime::now() - Duration::from_secs(3600);
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(then).unwrap();
        Hint { event: Event::Other, ..ended(&self.dir, id) }
    }

    fn found(&self, id: &str, turns: usize) -> Hint {
        Hint { source: Source::Scan, ..self.session(id, turns) }
    }

    /// Runs one pass; returns the number of looks.
    fn pass(&mut self) -> u64 {
        let before = self.engine.looks;
        self.engine.look_at_all();
        self.engine.looks - before
    }

    /// Makes all events old.
    fn make_all_due(&mut self) {
        for session in self.engine.sessions.values_mut() {
            session.make_due();
            session.waiting.iter_mut().for_each(|(_, came)| *came -= QUIET_FINISHED);
        }
    }

    fn spans(&self) -> u64 {
        self.store.call(|store| store.counts()).unwrap().outbox
    }

    fn spans_of(&self, prompt: &str) -> usize {
        let rows = self.store.call(|store| store.claim(1, 100_000, usize::MAX)).unwrap();
        rows.iter().filter(|row| row.item.trace_id() == ids::trace_id(prompt)).count()
    }
}

/// Each of many sessions found by a scan takes one look, and few are in memory at a time.
#[test]
fn sessions_that_were_found_take_one_look_each_and_little_memory_however_many_they_are() {
    for count in [50, 400] {
        let mut at = Stepped::new();
        let hints: Vec<Hint> = (0..count).map(|n| at.found(&format!("s-{n}"), 1)).collect();
        at.engine.later.found(hints, 0, oneshot::channel().0);
        let mut most = 0;
        while !at.engine.later.is_empty() || at.engine.sessions.values().any(Session::is_busy) {
            at.pass();
            most = most.max(at.engine.sessions.len());
        }
        assert_eq!((at.engine.looks, at.spans()), (count, 2 * count));
        assert!(most <= admit::MAX_UNHURRIED, "{most}");
        assert!(at.engine.sessions.is_empty(), "what is emitted whole is let go");
    }
}

/// A live session does not wait for found ones, or for a long one.
#[test]
fn a_live_session_is_looked_at_before_the_next_step_of_any_other() {
    let mut at = Stepped::new();
    let hints: Vec<Hint> = (0..40).map(|n| at.found(&format!("s-{n}"), 30)).collect();
    at.engine.later.found(hints, 0, oneshot::channel().0);
    let long = at.session("long", 20_000);
    at.engine.take(Hint { id: "e-long".into(), fired_ns: 1, ..long });
    at.engine.sessions.get_mut("long").unwrap().make_due();
    while at.engine.sessions["long"].tail.is_none() {
        at.pass();
    }
    let (steps, emitted) = (at.engine.looks, at.spans());
    assert!((1..2 * 20_000).contains(&emitted), "{emitted} after {steps} looks: it is read in steps");
    let live = at.session("live", 1);
    at.engine.take(Hint { id: "e-live".into(), fired_ns: 2, event: Event::Ended, ..live });
    at.engine.sessions.get_mut("live").unwrap().make_due();
    at.engine.sessions.get_mut("live").unwrap().waiting[0].1 -= QUIET;
    at.pass();
    assert_eq!(at.spans_of("live-u0"), 2, "in the first pass");
    assert!(at.spans_of("long-u19999") == 0 && at.engine.sessions["long"].phase.has_more());
}

/// Each step of a long session is bounded, and all of it arrives.
#[test]
fn a_long_session_is_read_in_steps_of_bounded_size() {
    let mut at = Stepped::new();
    let long = at.session("long", 6_000);
    at.engine.take(Hint { event: Event::Ended, ..long });
    at.engine.sessions.get_mut("long").unwrap().waiting[0].1 -= QUIET_FINISHED;
    let deadline = Instant::now() + Duration::from_secs(120);
    let mut before = 0;
    while !at.engine.sessions.is_empty() {
        assert!(Instant::now() < deadline);
        for session in at.engine.sessions.values_mut() {
            session.make_due();
        }
        let looks = at.pass();
        let now = at.spans();
        // As many as a piece of the file holds if all turns are short.
        assert!(now - before <= looks * 4_000, "{before} → {now} in {looks} looks");
        before = now;
    }
    assert_eq!(before, 2 * 6_000);
}

/// A copy waits for the session it was copied from, however many steps that takes; another session does not.
#[test]
fn only_a_copy_waits_for_a_long_session_beside_it() {
    let mut at = Stepped::new();
    let long = at.session("long", 8_000);
    let mut copy = at.session("copy", 1);
    std::fs::copy(&long.transcript, at.dir.join("copy.jsonl")).unwrap();
    copy.fired_ns = 2;
    let other = Hint { fired_ns: 2, ..at.session("other", 1) };
    at.engine.take(Hint { fired_ns: 1, ..long });
    for hint in [copy, other] {
        at.engine.take(Hint { event: Event::Ended, ..hint });
    }
    let deadline = Instant::now() + Duration::from_secs(120);
    let mut others_sent = None;
    while at.engine.sessions.values().any(Session::is_busy) {
        assert!(Instant::now() < deadline);
        at.make_all_due();
        let is_behind = at.engine.sessions.get("long").is_some_and(|long| long.phase.has_more());
        at.pass();
        if is_behind && at.engine.sessions.get("copy").is_some_and(|copy| copy.tail.is_some()) {
            assert!(!at.engine.sessions["long"].phase.has_more(), "the copy was begun before the original was read");
        }
        if others_sent.is_none() && at.spans_of("other-u0") > 0 {
            others_sent = Some(is_behind);
        }
    }
    assert_eq!(others_sent, Some(true), "while the long one was being read");
    assert_eq!(at.spans(), 2 * 8_000 + 2, "all once");
}

/// Of idle sessions, those with the latest events are kept.
#[test]
fn few_sessions_stay_in_memory_of_which_nothing_is_expected() {
    let mut at = Stepped::new();
    for n in 0..MAX_IDLE_SESSIONS + 40 {
        let hint = at.session(&format!("s-{n}"), 1);
        at.engine.take(Hint { id: format!("e-{n}"), ..hint });
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    while at.engine.sessions.values().any(|session| !session.is_idle()) {
        assert!(Instant::now() < deadline);
        for session in at.engine.sessions.values_mut() {
            session.make_due();
            session.grown -= QUIET_FINISHED;
        }
        at.pass();
    }
    let sessions = &at.engine.sessions;
    assert!(
        sessions.len() <= MAX_IDLE_SESSIONS && sessions.contains_key(&format!("s-{}", MAX_IDLE_SESSIONS + 39)),
        "{}",
        sessions.len()
    );
}

/// When the daemon starts, partly read sessions are resumed a few at a time, and emitted once they look finished.
#[test]
fn sessions_left_in_the_middle_do_not_come_all_at_once() {
    let mut at = Stepped::new();
    for n in 0..30 {
        let hint = at.session(&format!("s-{n}"), 1);
        at.engine.take(Hint { id: format!("e-{n}"), ..hint });
    }
    while at.engine.sessions.values().any(Session::is_busy) {
        at.engine.sessions.values_mut().for_each(|session| session.make_due());
        at.pass();
    }
    assert_eq!(at.spans(), 0, "their ends were not seen");
    let base = at._base.path().to_path_buf();
    let (engine, orders) = Stepped::over(&at.store, &base);
    (at.engine, at._orders) = (engine, orders);
    assert_eq!((at.engine.later.len(), at.engine.sessions.len()), (30, 0));
    while !at.engine.later.is_empty() || at.engine.sessions.values().any(Session::is_busy) {
        at.pass();
        assert!(at.engine.sessions.len() <= admit::MAX_UNHURRIED);
    }
    assert_eq!(at.spans(), 60);
}

/// Even for a turn with very many calls, a step stores few of them and memory holds a limited number.
#[test]
fn a_turn_of_very_many_calls_is_told_in_parts() {
    let mut at = Stepped::new();
    let hint = at.session("s", 0);
    let call = |n: usize| {
        let tool = serde_json::json!([{"type": "tool_use", "id": format!("t-{n}"), "name": "Bash", "input": {"command": "c"}}]);
        let result = serde_json::json!([{"type": "tool_result", "tool_use_id": format!("t-{n}"), "content": "r"}]);
        [line("assistant", &format!("a-{n}"), &tool), line("user", &format!("r-{n}"), &result)]
    };
    const CALLS: usize = 6_000;
    let mut lines = vec![line("user", "u1", &"go".into())];
    lines.extend((0..CALLS).flat_map(call));
    write(&hint.transcript, &lines);
    at.engine.take(Hint { event: Event::Ended, ..hint });
    at.engine.sessions.get_mut("s").unwrap().waiting[0].1 -= QUIET_FINISHED;
    let deadline = Instant::now() + Duration::from_secs(120);
    let (mut before, mut steps) = (0, 0);
    // As many spans as lines are held, plus those of one more piece of the file.
    let most = (MAX_HELD_BYTES / super::super::emit::BYTES_PER_LINE + CHUNK_BYTES / 100) as u64;
    while !at.engine.sessions.is_empty() {
        assert!(Instant::now() < deadline);
        at.engine.sessions.values_mut().for_each(|session| session.make_due());
        at.pass();
        let now = at.spans();
        steps += u64::from(now > before);
        assert!(now - before <= most, "{before} → {now}");
        before = now;
    }
    assert_eq!(before, 1 + 2 * CALLS as u64);
    assert!(steps > 4, "{steps}");
}

/// Found sessions are stored together. If the database refuses one of them, the others are stored anyway, and
/// that one later.
#[test]
fn a_session_that_cannot_be_stored_costs_those_beside_it_nothing() {
    let (base, dir) = home();
    let path = base.path().join("state.db");
    drop(Store::open(&path).unwrap());
    let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON session
        WHEN NEW.session_id = 's-2' AND (SELECT count(*) FROM session) < 4 BEGIN SELECT RAISE(ABORT, 'not now'); END";
    rusqlite::Connection::open(&path).unwrap().execute_batch(refuse).unwrap();
    let mut at = Stepped::of(base, dir);
    let hints: Vec<Hint> = (0..5).map(|n| at.found(&format!("s-{n}"), 1)).collect();
    at.engine.later.found(hints, 0, oneshot::channel().0);
    let deadline = Instant::now() + Duration::from_secs(30);
    // On a busy machine a pass may do little.
    while at.spans() < 2 * 4 {
        assert!(Instant::now() < deadline);
        at.pass();
    }
    assert_eq!(at.spans(), 2 * 4);
    assert!(at.engine.sessions.contains_key("s-2"), "it is tried again");
    at.engine.sessions.values_mut().for_each(|session| session.make_due());
    at.pass();
    assert_eq!(at.spans(), 2 * 5);
    assert!(at.engine.sessions.is_empty());
}

/// A session that many others begin with, such as its forks, is read to its end once.
#[test]
fn a_session_with_which_many_begin_is_brought_to_its_end_once() {
    for count in [5, 50] {
        let mut at = Stepped::new();
        at.session("first", 2);
        let text = std::fs::read_to_string(at.dir.join("first.jsonl")).unwrap();
        for n in 0..count {
            // The lines of a fork name the session they were copied from.
            let hint = at.session(&format!("s-{n}"), 1);
            let own = std::fs::read_to_string(&hint.transcript).unwrap();
            let copy = text.lines().map(|line| {
                let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
                line["sessionId"] = "first".into();
                format!("{line}\n")
            });
            std::fs::write(&hint.transcript, copy.collect::<String>() + &own).unwrap();
            at.engine.take(Hint { event: Event::Ended, ..hint });
        }
        let deadline = Instant::now() + Duration::from_secs(60);
        while at.engine.sessions.values().any(Session::is_busy) {
            assert!(Instant::now() < deadline);
            at.make_all_due();
            at.pass();
        }
        assert_eq!(at.spans(), 2 * 2 + 2 * count);
        // One look at the first, two at each that begins with it.
        assert!(at.engine.looks <= 1 + 2 * count, "{} looks for {count}", at.engine.looks);
    }
}
