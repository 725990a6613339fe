use super::*;

// ---- events ----

#[test]
fn an_event_accepted_twice_counts_once() {
    let (_dir, mut store) = fresh();
    let one = store.accept_one(&[hint("e-1", 1)], &[]).unwrap();
    let again = store.accept_one(&[hint("e-1", 1), hint("e-1", 9)], &[]).unwrap();
    assert_eq!(again, [one[0], one[0]]);
    assert_eq!(store.inbox().unwrap(), [hint("e-1", 1)]);
    assert_eq!(store.counts().unwrap().inbox, 1);
}

#[test]
fn events_come_back_oldest_first_and_as_they_were() {
    let (_dir, mut store) = fresh();
    let ended = Hint { event: Event::Ended, ..hint("a", 3) };
    store.accept_one(&[ended.clone(), hint("c", 1)], &[]).unwrap();
    store.accept_one(&[hint("b", 2)], &[]).unwrap();
    assert_eq!(store.inbox().unwrap(), [hint("c", 1), hint("b", 2), ended]);
}

#[test]
fn an_accepted_event_survives_the_process() {
    let (dir, mut store) = fresh();
    store.accept_one(&[hint("e-1", 1)], &["hook_not_json"]).unwrap();
    store.advance_one(&step(vec![span(1, 1, 0)])).unwrap();
    drop(store);
    let store = opened(&dir);
    assert_eq!(store.inbox().unwrap(), [hint("e-1", 1)]);
    assert_eq!(store.session("s-1").unwrap().map(|session| session.cursor.offset), Some(100));
    let counts = store.counts().unwrap();
    assert_eq!((counts.outbox, counts.skipped), (1, [("hook_not_json".to_owned(), 1)].into()));
}

#[test]
fn refused_events_are_counted_by_reason() {
    let (_dir, mut store) = fresh();
    store.accept_one(&[], &["hook_not_json", "hook_base_url", "hook_not_json"]).unwrap();
    store.accept_one(&[], &["hook_not_json"]).unwrap();
    let expect = [("hook_base_url".to_owned(), 1), ("hook_not_json".to_owned(), 3)].into();
    assert_eq!(store.counts().unwrap().skipped, expect);
}

#[test]
fn events_that_came_to_nothing_are_dropped_and_counted() {
    let (_dir, mut store) = fresh();
    store.accept_one(&[hint("e-1", 1), hint("e-2", 2)], &[]).unwrap();
    store.give_up(&["e-1".into()], "transcript_missing").unwrap();
    assert_eq!(store.inbox().unwrap(), [hint("e-2", 2)]);
    assert_eq!(store.counts().unwrap().skipped, [("transcript_missing".to_owned(), 1)].into());
}

#[test]
fn an_event_that_cannot_be_read_does_not_hide_the_others() {
    let (_dir, mut store) = fresh();
    store.accept_one(&[hint("e-1", 1), hint("e-2", 2)], &[]).unwrap();
    store.db.execute("UPDATE inbox SET hint = '{}' WHERE id = 'e-1'", []).unwrap();
    assert_eq!(store.inbox().unwrap(), [hint("e-2", 2)]);
}

// ---- sessions ----

#[test]
fn a_session_comes_back_as_it_was_left() {
    let (_dir, mut store) = fresh();
    assert!(store.session("s-1").unwrap().is_none());
    store.advance_one(&step(Vec::new())).unwrap();
    let shown = |row: SessionRow| format!("{row:?}");
    assert_eq!(store.session("s-1").unwrap().map(shown), Some(shown(session("s-1"))));
    let later = SessionRow {
        transcript: "/home/dev/moved/s-1.jsonl".into(),
        cursor: Position { identity: Identity { dev: 1, ino: u64::MAX }, offset: 900, marker: None },
        closed: 3,
        turns: 3,
        open_turn: false,
        hint: hint("e-2", 2),
        ..session("s-1")
    };
    store.advance_one(&Advance { session: later.clone(), ..step(Vec::new()) }).unwrap();
    assert_eq!(store.session("s-1").unwrap().map(shown), Some(shown(later)));
    assert!(store.session("s-2").unwrap().is_none());
}

#[test]
fn the_sessions_seen_last_come_first() {
    let (_dir, mut store) = fresh();
    for (id, now_ms) in [("a", 1), ("b", 3), ("c", 2), ("a", 4)] {
        store.advance_one(&Advance { session: session(id), now_ms, ..step(Vec::new()) }).unwrap();
    }
    let seen = |limit| -> Vec<String> {
        store.sessions(limit).unwrap().into_iter().map(|session| session.session_id).collect()
    };
    assert_eq!((seen(10), seen(2)), (vec!["a".into(), "b".into(), "c".into()], vec!["a".into(), "b".into()]));
}

#[test]
fn a_session_whose_row_cannot_be_read_starts_again() {
    let (_dir, mut store) = fresh();
    store.advance_one(&step(Vec::new())).unwrap();
    store.db.execute("UPDATE session SET hint = '{}'", []).unwrap();
    assert!(store.session("s-1").unwrap().is_none());
    assert!(store.sessions(10).unwrap().is_empty());
}

#[test]
fn a_step_takes_events_spans_and_counts_along() {
    let (_dir, mut store) = fresh();
    store.accept_one(&[hint("e-1", 1), hint("e-2", 2)], &[]).unwrap();
    let step = Advance {
        consumed: vec!["e-1".into(), "never seen".into()],
        skipped: [("not_json", 2), ("sidechain", 1)].into(),
        ..step(vec![span(1, 1, 0), span(1, 2, 1)])
    };
    assert_eq!(store.advance_one(&step).unwrap(), (1, 2));
    store.advance_one(&Advance { skipped: [("not_json", 3)].into(), ..step }).unwrap();
    let counts = store.counts().unwrap();
    assert_eq!((counts.inbox, counts.outbox, counts.dead_letters), (1, 2, 0));
    assert_eq!(counts.skipped, [("not_json".to_owned(), 5), ("sidechain".to_owned(), 1)].into());
}

#[test]
fn a_step_happens_whole_or_not_at_all() {
    let (_dir, mut store) = fresh();
    store.accept_one(&[hint("e-1", 1)], &[]).unwrap();
    // The last thing a step does is to count what it passed over.
    store.db.execute("DROP TABLE skipped", []).unwrap();
    let step = Advance { consumed: vec!["e-1".into()], skipped: [("not_json", 1)].into(), ..step(vec![span(1, 1, 0)]) };
    assert!(store.advance_one(&step).is_err());
    assert_eq!(["inbox", "outbox", "exported", "session"].map(|table| count(&store, table)), [1, 0, 0, 0]);
}

#[test]
fn turns_that_are_over_come_back_up_to_where_reading_begins() {
    let (dir, mut store) = fresh();
    let turn = |number: u32| Past {
        key: format!("p{number}"),
        number,
        position: (number > 1).then_some(number),
        follows: Some(format!("line {number}")),
        session: SessionFacts { cwd: Some("/home/dev/app".into()), ..SessionFacts::default() },
    };
    store.advance_one(&Advance { turns: vec![turn(1), turn(2)], ..step(Vec::new()) }).unwrap();
    store.advance_one(&Advance { turns: vec![turn(2), turn(3)], ..step(Vec::new()) }).unwrap();
    drop(store);
    let mut store = opened(&dir);
    assert_eq!(store.turns("s-1", 3).unwrap(), [turn(1), turn(2), turn(3)]);
    assert_eq!(store.turns("s-1", 2).unwrap(), [turn(1), turn(2)]);
    assert_eq!(store.turns("s-2", 3).unwrap(), []);
    store.advance_one(&Advance { turns: (4..1000).map(turn).collect(), ..step(Vec::new()) }).unwrap();
    let latest = store.turns("s-1", 999).unwrap();
    assert_eq!((latest.len(), latest.first(), latest.last()), (BACK, Some(&turn(744)), Some(&turn(999))));
    store.forget("s-1", &[]).unwrap();
    assert_eq!(store.turns("s-1", 999).unwrap(), []);
}

#[test]
fn a_mark_goes_only_where_the_root_is_known_that_it_stands_below() {
    let (_dir, mut store) = fresh();
    let mark = |trace| span(trace, 9, 1);
    // In the same step, in a later one, and never.
    let destination = store
        .advance_one(&Advance { marks: vec![outgoing(mark(1)), outgoing(mark(2))], ..step(vec![span(1, 1, 0)]) })
        .unwrap()
        .0;
    assert_eq!(waiting(&mut store, destination), [(1, 1), (1, 9)]);
    store
        .advance_one(&Advance { marks: vec![outgoing(mark(2)), outgoing(mark(1))], ..step(vec![span(2, 1, 0)]) })
        .unwrap();
    let all = [(1, 1), (1, 9), (2, 1), (2, 9)];
    assert_eq!(waiting(&mut store, destination), all, "each once");
    // Of a prompt given in a pause nothing is emitted, and nothing is taken from the turn it left behind.
    store.pause(None, true).unwrap();
    store.advance_one(&Advance { marks: vec![outgoing(span(2, 8, 1))], ..step(vec![span(4, 1, 0)]) }).unwrap();
    store.pause(None, false).unwrap();
    assert_eq!(waiting(&mut store, destination), all);
    store.advance_one(&step(vec![Observation { start: u64::MAX / 2, ..span(2, 7, 1) }])).unwrap();
    let all = [&all[..], &[(2, 7)]].concat();
    assert_eq!(waiting(&mut store, destination), all);
    // What was said in a pause was never emitted.
    store.pause(Some("/home/dev/app".as_ref()), true).unwrap();
    store.advance_one(&step(vec![span(3, 3, 0)])).unwrap();
    store.pause(Some("/home/dev/app".as_ref()), false).unwrap();
    store.advance_one(&Advance { marks: vec![outgoing(span(3, 9, 3))], ..step(Vec::new()) }).unwrap();
    assert_eq!(waiting(&mut store, destination), all);
}

#[test]
fn a_turn_is_the_first_sessions_that_claims_it_and_is_stored_with_what_follows() {
    let (dir, mut store) = fresh();
    let [first, second, third] = [[1; 16], [2; 16], [3; 16]];
    assert!(store.claim_turn(&first, "a").unwrap(), "nobody else's");
    assert!(store.claim_turn(&first, "a").unwrap() && !store.claim_turn(&first, "b").unwrap());
    // No step was stored, and so nothing of it was emitted: the first to claim it next time has it.
    drop(store);
    let mut store = opened(&dir);
    assert!(store.claim_turn(&first, "b").unwrap() && !store.claim_turn(&first, "a").unwrap());
    store.advance(&step(vec![span(1, 1, 0)])).unwrap();
    assert!(store.claim_turn(&first, "b").unwrap() && !store.claim_turn(&first, "a").unwrap(), "known by the database");
    assert!(store.claim_turn(&second, "a").unwrap());
    // A step that is not stored takes no claim along, and loses none.
    store.db.execute_batch("PRAGMA query_only=ON").unwrap();
    assert!(store.advance(&step(vec![span(2, 1, 0)])).is_err());
    store.db.execute_batch("PRAGMA query_only=OFF").unwrap();
    assert!(!store.claim_turn(&second, "b").unwrap());
    store.advance(&step(vec![span(2, 1, 0)])).unwrap();
    // Where no step comes they are stored all the same.
    for n in 0..=u16::MAX >> 7 {
        assert!(store.claim_turn(&[&n.to_be_bytes()[..], &[9; 14]].concat().try_into().unwrap(), "many").unwrap());
    }
    drop(store);
    let mut store = opened(&dir);
    let claimed: Vec<_> = [first, second, third].map(|trace| store.claim_turn(&trace, "c").unwrap()).into();
    assert_eq!(claimed, [false, false, true]);
    assert!(!store.claim_turn(&[&[0; 2][..], &[9; 14]].concat().try_into().unwrap(), "c").unwrap());
}
