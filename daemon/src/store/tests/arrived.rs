//! Delivered spans are known by one number per destination, and by rows of their own where that number would be wrong.

use super::*;
use crate::store::observations::HAS_ARRIVED;
use cc_core::status::Fate;

/// The spans that a destination knows, and which of them have arrived.
fn spans(store: &Store, id: DestinationId) -> Vec<(u8, bool)> {
    let sql =
        format!("SELECT span_id, coalesce({HAS_ARRIVED}, 0) FROM exported WHERE destination = ? ORDER BY span_id");
    let mut rows = store.db.prepare(&sql).unwrap();
    let rows = rows.query_map([id], |row| Ok((row.get::<_, Vec<u8>>(0)?[0], row.get(1)?))).unwrap();
    rows.collect::<Result<_>>().unwrap()
}

fn arrived(store: &Store, id: DestinationId) -> Vec<u8> {
    spans(store, id).into_iter().filter(|(_, arrived)| *arrived).map(|(span, _)| span).collect()
}

fn number(store: &Store, id: DestinationId) -> i64 {
    store.db.query_row("SELECT arrived FROM destination WHERE id = ?", [id], |row| row.get(0)).unwrap()
}

fn to(names: &[&str], spans: impl IntoIterator<Item = u8>, behind: &[&str]) -> Advance {
    let mut step = step(spans.into_iter().map(|id| span(1, id, 1)).collect());
    step.session.hint.targets = names.iter().map(|name| server(name).into()).collect();
    step.behind = behind.iter().map(|name| server(name)).collect();
    step
}

#[test]
fn spans_that_arrive_in_their_order_are_not_written_again() {
    let (dir, mut store) = fresh();
    let (id, _) = store.advance_one(&to(&["one"], 2..8, &[])).unwrap();
    for _ in 0..2 {
        let rows = store.claim(id, 2, usize::MAX).unwrap();
        store.delivered(id, &rows, 0, 1).unwrap();
    }
    assert_eq!((arrived(&store, id), count(&store, "exported WHERE delivered = 1")), (vec![2, 3, 4, 5], 0));
    let rows = store.claim(id, 9, usize::MAX).unwrap();
    store.delivered(id, &rows, 0, 1).unwrap();
    let last = number(&store, id);
    drop(store);
    // Nothing waits any more: the next one must not count as delivered.
    let mut store = opened(&dir);
    store.advance_one(&to(&["one"], 9..10, &[])).unwrap();
    assert_eq!(arrived(&store, id), [2, 3, 4, 5, 6, 7]);
    assert!(store.claim(id, 9, usize::MAX).unwrap()[0].seq > last);
}

#[test]
fn what_arrives_before_older_ones_says_so_itself() {
    let (_dir, mut store) = fresh();
    let (id, _) = store.advance_one(&to(&["one"], 2..8, &[])).unwrap();
    let rows = store.claim(id, 9, usize::MAX).unwrap();
    store.delivered(id, &rows[2..4], 0, 1).unwrap();
    assert_eq!((arrived(&store, id), number(&store, id)), (vec![4, 5], 0));
    store.delivered(id, &rows[..2], 0, 1).unwrap();
    assert_eq!((arrived(&store, id), number(&store, id)), (vec![2, 3, 4, 5], rows[1].seq));
    store.delivered(id, &rows[4..], 0, 1).unwrap();
    assert_eq!((arrived(&store, id).len(), number(&store, id)), (6, rows[5].seq));
}

#[test]
fn what_left_without_arriving_has_not_arrived_whatever_came_after_it() {
    let (_dir, mut store) = fresh();
    let (id, _) = store.advance_one(&to(&["one"], 2..6, &[])).unwrap();
    let rows = store.claim(id, 9, usize::MAX).unwrap();
    store.bury(id, rows[0].seq, "400", 1).unwrap();
    store.delivered(id, &rows[1..2], 0, 1).unwrap();
    assert_eq!((arrived(&store, id), number(&store, id)), (vec![3], rows[1].seq));
    store.drop_waiting(id).unwrap();
    store.advance_one(&to(&["one"], 6..7, &[])).unwrap();
    let rows = store.claim(id, 9, usize::MAX).unwrap();
    store.delivered(id, &rows, 0, 1).unwrap();
    assert_eq!(arrived(&store, id), [3, 6]);
    store.settle_dead_letters(None, Fate::Retry, 1).unwrap();
    assert_eq!(arrived(&store, id), [3, 6], "it waits again");
    let rows = store.claim(id, 9, usize::MAX).unwrap();
    store.delivered(id, &rows, 0, 1).unwrap();
    assert_eq!(arrived(&store, id), [2, 3, 6]);
}

#[test]
fn an_older_observation_that_others_wait_for_has_not_arrived_where_it_is_new() {
    let (_dir, mut store) = fresh();
    let all = ["one", "two", "three"];
    store.advance(&to(&all, 2..4, &["two", "three"])).unwrap();
    let stored = store.advance(&to(&all[1..], 4..5, &[])).unwrap();
    for (id, _) in stored {
        let rows = store.claim(id, 9, usize::MAX).unwrap();
        store.delivered(id, &rows, 0, 1).unwrap();
        assert_eq!(arrived(&store, id), [4]);
    }
    // Read again for those that were behind.
    for (id, queued) in store.advance(&to(&all[1..], 2..4, &[])).unwrap() {
        assert_eq!((queued, arrived(&store, id)), (2, vec![4]));
        let rows = store.claim(id, 9, usize::MAX).unwrap();
        assert!(rows[0].seq < number(&store, id), "it is stored once");
        store.delivered(id, &rows, 0, 1).unwrap();
        assert_eq!(arrived(&store, id), [2, 3, 4]);
    }
}

#[test]
fn what_is_moved_to_a_destination_has_not_arrived_there() {
    let (_dir, mut store) = fresh();
    let (from, _) = store.advance_one(&to(&["one"], 2..4, &[])).unwrap();
    let (there, _) = store.advance_one(&to(&["two"], 4..6, &[])).unwrap();
    let rows = store.claim(there, 9, usize::MAX).unwrap();
    store.delivered(there, &rows, 0, 1).unwrap();
    let mut sum = Default::default();
    while let Some(_more) = store.move_spans(from, (there, true), 0, &mut sum).unwrap() {}
    assert_eq!((arrived(&store, from), arrived(&store, there)), (vec![], vec![4, 5]));
    let rows = store.claim(there, 9, usize::MAX).unwrap();
    assert_eq!(rows.len(), 2);
    store.delivered(there, &rows, 0, 1).unwrap();
    assert_eq!(arrived(&store, there), [2, 3, 4, 5]);
}

#[test]
fn a_damaged_database_gives_up_what_arrived_and_nothing_that_waits() {
    let (dir, mut store) = fresh();
    let (id, _) = store.advance_one(&to(&["one"], 2..8, &[])).unwrap();
    let rows = store.claim(id, 9, usize::MAX).unwrap();
    store.delivered(id, &rows[..2], 0, 1).unwrap();
    store.delivered(id, &rows[3..4], 0, 1).unwrap();
    drop(store);
    let taken_over = |name: &str| {
        let mut new = Store::open(&dir.path().join(name)).unwrap().store;
        crate::store::salvage::take_over(&mut new.db, &dir.path().join("state.db")).unwrap();
        spans(&new, id)
    };
    assert_eq!(taken_over("new.db"), [(2, true), (3, true), (5, true)]);
    // Earlier versions had no such number.
    let old = Connection::open(dir.path().join("state.db")).unwrap();
    old.execute_batch("ALTER TABLE destination DROP COLUMN arrived").unwrap();
    drop(old);
    assert_eq!(taken_over("newer.db"), [(5, true)]);
}

#[test]
fn what_became_of_a_trace_is_counted_for_each_destination() {
    let (dir, mut store) = fresh();
    let (id, _) = store.advance_one(&to(&["one", "two"], 2..8, &[])).unwrap();
    let rows = store.claim(id, 9, usize::MAX).unwrap();
    store.delivered(id, &rows[..3], 0, 1).unwrap();
    store.bury(id, rows[3].seq, "refused", 1).unwrap();
    let counts = |found: Vec<crate::store::Arrived>| -> Vec<_> {
        found.into_iter().map(|one| (one.state, one.delivered, one.waiting, one.refused)).collect()
    };
    let expect = [("ok".to_owned(), 3, 2, 1), ("ok".to_owned(), 0, 6, 0)];
    let of = |trace: u8| vec![[trace; 16]];
    let mut groups = store.arrived(&[of(9), of(1), Vec::new(), vec![[9; 16], [1; 16]]]).unwrap();
    assert_eq!((groups.len(), &groups[0][..], &groups[2][..]), (4, &[][..], &[][..]), "an unknown trace, and none");
    assert_eq!(groups[1], groups[3]);
    assert_eq!(counts(groups.swap_remove(1)), expect);
    let path = dir.path().join("state.db");
    assert_eq!(crate::store::arrived_at(&path, &[of(1)]), None, "this process holds it");
    drop(store);
    assert_eq!(counts(crate::store::arrived_at(&path, &[of(1)]).unwrap().remove(0)), expect);
    assert_eq!(crate::store::arrived_at(&dir.path().join("none.db"), &[]), None);
}
