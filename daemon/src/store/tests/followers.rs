use super::*;
use cc_core::destination::Destination;

fn two() -> Vec<cc_core::route::Target> {
    vec![server("one").into(), server("two").into()]
}

/// A step of a session with two destinations that ends at `cursor`; those in `behind` get nothing of it.
fn step_to(cursor: u64, spans: Vec<Observation>, behind: &[Destination]) -> Advance {
    let mut step = step(spans);
    step.session.hint.targets = two();
    step.session.cursor.offset = cursor;
    step.behind = behind.to_vec();
    step
}

/// The ends of the turns whose roots wait.
fn root_ends(rows: &[Row]) -> Vec<u64> {
    let spans = rows.iter().map(|row| row.item.encode(&server("one")));
    spans.filter(|span| span.is_root()).map(|span| span.end_ns).collect()
}

fn queued(store: &Store) -> Vec<u64> {
    store.destinations().unwrap().iter().map(|row| row.waiting).collect()
}

#[test]
fn both_destinations_of_a_session_get_each_span_once() {
    let (_dir, mut store) = fresh();
    let spans = || vec![span(1, 1, 0), span(1, 2, 1)];
    assert_eq!(store.advance(&step_to(10, spans(), &[])).unwrap().len(), 2);
    assert_eq!(queued(&store), [2, 2]);
    store.advance(&step_to(10, spans(), &[])).unwrap();
    assert_eq!(queued(&store), [2, 2]);
    assert!(!store.is_anything_behind().unwrap());
}

#[test]
fn one_that_takes_nothing_falls_behind_and_gets_what_it_missed_from_where_it_stood() {
    let (_dir, mut store) = fresh();
    store.advance(&step_to(10, vec![span(1, 1, 0)], &[])).unwrap();
    let two = server("two");
    for (cursor, trace) in [(20, 2), (30, 3)] {
        let stored = store.advance(&step_to(cursor, vec![span(trace, 1, 0)], std::slice::from_ref(&two))).unwrap();
        assert_eq!(stored.len(), 1, "only the other one");
    }
    assert_eq!(queued(&store), [3, 1]);
    let waiting = store.waiting_bytes(&two).unwrap();
    assert_eq!(store.behind(waiting, 9, "").unwrap(), [], "it has no room");
    let behind = store.behind(waiting + 1, 9, "").unwrap();
    assert_eq!(behind.iter().map(|to| to.cursor.offset).collect::<Vec<_>>(), [10], "where it stood at first");
    assert!(store.go_back(&behind[0]).unwrap());
    assert_eq!(store.session("s-1").unwrap().unwrap().cursor.offset, 10);
    assert!(!store.is_anything_behind().unwrap());
    // What is read from there is new to only one of them.
    store.advance(&step_to(30, vec![span(2, 1, 0), span(3, 1, 0)], &[])).unwrap();
    assert_eq!(queued(&store), [3, 3]);
}

#[test]
fn one_that_never_took_anything_begins_at_the_start() {
    let (_dir, mut store) = fresh();
    store.advance(&step_to(10, vec![span(1, 1, 0)], &[server("two")])).unwrap();
    let behind = store.behind(1, 9, "").unwrap();
    assert_eq!((behind.len(), behind[0].cursor.offset, behind[0].closed), (1, 0, 0));
}

#[test]
fn a_root_that_is_queued_again_waits_once() {
    let (_dir, mut store) = fresh();
    store.advance(&step_to(10, vec![span(1, 1, 0), span(1, 2, 1)], &[])).unwrap();
    let grown = Observation { end: 9, ..span(1, 1, 0) };
    store.advance(&step_to(10, vec![grown.clone(), span(1, 3, 1)], &[])).unwrap();
    assert_eq!(queued(&store), [3, 3]);
    let id = store.destinations().unwrap()[0].id;
    let rows = store.claim(id, 10, 1 << 20).unwrap();
    assert_eq!(root_ends(&rows), [9]);
    let bytes: u64 = rows.iter().map(|row| row.bytes as u64).sum();
    assert_eq!(store.waiting_bytes(&server("one")).unwrap(), bytes, "what was replaced waits no more");
}

#[test]
fn a_root_that_grows_while_it_is_on_its_way_goes_out_again() {
    let (_dir, mut store) = fresh();
    store.advance(&step_to(10, vec![span(1, 1, 0)], &[])).unwrap();
    let id = store.destinations().unwrap()[0].id;
    let in_flight = store.claim(id, 10, 1 << 20).unwrap();
    let grown = Observation { end: 9, ..span(1, 1, 0) };
    store.advance(&step_to(10, vec![grown, span(1, 3, 1)], &[])).unwrap();
    store.delivered(id, &in_flight, 0, 1).unwrap();
    let rows = store.claim(id, 10, 1 << 20).unwrap();
    assert_eq!(root_ends(&rows), [9]);
}

#[test]
fn of_many_sessions_that_are_behind_each_has_its_turn_and_no_more_are_looked_at_than_that_takes() {
    let (_dir, store) = fresh();
    let insert = "INSERT INTO follower VALUES (?, ?, 1, 2, ?, 0, NULL)";
    for session in 0..2000 {
        for destination in [1, 2] {
            store.db.execute(insert, params![format!("s-{session:04}"), destination, 100 * destination]).unwrap();
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    let mut after = String::new();
    for _ in 0..500 {
        let behind = store.behind(1, 4, &after).unwrap();
        assert!(behind.len() == 4 && behind.iter().all(|to| to.cursor.offset == 100), "{behind:?}");
        after.clone_from(&behind[3].session_id);
        seen.extend(behind.into_iter().map(|to| to.session_id));
    }
    assert_eq!(seen.len(), 2000);
    assert_eq!(store.behind(1, 4, &after).unwrap()[0].session_id, "s-0000");
    assert_eq!(store.behind(1, 9999, &after).unwrap().len(), 2000);
    let sql = "EXPLAIN QUERY PLAN SELECT * FROM follower WHERE session_id > ? ORDER BY session_id, cursor";
    let plan: String = store.db.query_row(sql, ["s"], |row| row.get(3)).unwrap();
    assert!(plan.contains("USING PRIMARY KEY"), "{plan}");
}
