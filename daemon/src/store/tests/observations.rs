//! A waiting observation is stored once, however many destinations wait for it.

use super::*;
use cc_core::{destination::MediaAs, status::Redirected};
use proptest::prelude::*;

const NAMES: [&str; 3] = ["one", "two", "three"];

/// A step whose spans go to the first `count` of [`NAMES`]; those in `behind` get nothing of it.
fn step_to(count: usize, spans: Vec<Observation>, behind: &[&str]) -> Advance {
    let mut step = step(spans);
    step.session.hint.targets = NAMES[..count].iter().map(|name| server(name).into()).collect();
    step.behind = behind.iter().map(|name| server(name)).collect();
    step
}

fn id(store: &mut Store, name: &str) -> DestinationId {
    store.destination_id(&server(name)).unwrap().unwrap()
}

/// Every reference has its observation, every observation is referenced, and the cached byte counts are right.
fn check(store: &Store) {
    assert_eq!(count(store, "outbox WHERE seq NOT IN (SELECT id FROM observation)"), 0);
    assert_eq!(count(store, "observation WHERE id NOT IN (SELECT seq FROM outbox)"), 0);
    let mut waits = HashMap::new();
    for row in store.destinations().unwrap() {
        let sum = "SELECT coalesce(sum(octet_length(coalesce(cut, body))), 0) FROM outbox JOIN observation ON id = seq
                   WHERE destination = ?";
        let sum: i64 = store.db.query_row(sum, [row.id], |row| row.get(0)).unwrap();
        assert_eq!(row.waiting_bytes, sum as u64, "{:?}", row.destination);
        waits.insert(row.id, row.waiting);
    }
    assert_eq!(waits.values().sum::<u64>(), count(store, "outbox"));
}

#[test]
fn it_is_stored_once_and_gone_with_the_last_that_waits() {
    let (_dir, mut store) = fresh();
    let spans = || (1..=4).map(|id| span(1, id, id - 1)).collect::<Vec<_>>();
    let stored = store.advance(&step_to(3, spans(), &[])).unwrap();
    let ids: Vec<_> = stored.iter().map(|(id, _)| *id).collect();
    assert_eq!((count(&store, "outbox"), count(&store, "observation")), (12, 4));
    let rows = store.claim(ids[0], 9, usize::MAX).unwrap();
    store.delivered(ids[0], &rows, 0, 1).unwrap();
    for row in &rows[..2] {
        store.bury(ids[1], row.seq, "400", 1).unwrap();
    }
    check(&store);
    assert_eq!((count(&store, "outbox"), count(&store, "observation")), (6, 4));
    store.drop_waiting(ids[1]).unwrap();
    assert_eq!(count(&store, "observation"), 4, "one of them still waits");
    let last = store.claim(ids[2], 9, usize::MAX).unwrap();
    assert_eq!(
        last.iter().map(|row| &row.item).collect::<Vec<_>>(),
        rows.iter().map(|row| &row.item).collect::<Vec<_>>()
    );
    store.delivered(ids[2], &last[..3], 0, 1).unwrap();
    assert_eq!(count(&store, "observation"), 1);
    store.delivered(ids[2], &last[3..], 0, 1).unwrap();
    assert_eq!((count(&store, "observation"), store.waiting_bytes(&server("three")).unwrap()), (0, 0));
    check(&store);
}

#[test]
fn one_that_was_behind_waits_for_what_is_stored_already() {
    let (_dir, mut store) = fresh();
    let spans = || vec![span(1, 1, 0), span(1, 2, 1), span(2, 1, 0)];
    store.advance(&step_to(2, spans(), &["two"])).unwrap();
    let other = Observation { name: "as it is read now".into(), ..span(2, 1, 0) };
    let again = vec![span(1, 1, 0), span(1, 2, 1), other.clone(), span(3, 1, 0)];
    store.advance(&step_to(2, again, &[])).unwrap();
    let two = id(&mut store, "two");
    let mut found: Vec<_> = store.claim(two, 9, usize::MAX).unwrap().into_iter().map(|row| row.item).collect();
    let mut expect = [span(1, 1, 0), span(1, 2, 1), other, span(3, 1, 0)].map(waits).to_vec();
    for items in [&mut found, &mut expect] {
        items.sort_by_key(|item| (item.trace_id(), item.span_id()));
    }
    assert_eq!(found, expect);
    assert_eq!((count(&store, "outbox"), count(&store, "observation")), (8, 5), "what says something else is another");
    check(&store);
}

#[test]
fn what_is_cut_for_one_server_goes_to_the_others_as_it_is() {
    let (_dir, mut store) = fresh();
    store.advance(&step_to(2, vec![span(1, 1, 0), span(1, 2, 1)], &[])).unwrap();
    let (one, two) = (id(&mut store, "one"), id(&mut store, "two"));
    let row = store.claim(one, 1, usize::MAX).unwrap().remove(0);
    let cut = Observation { status: None, ..span(1, 2, 1) };
    store.replace(one, &Row { item: waits(cut.clone()), ..row }).unwrap();
    check(&store);
    let first = |store: &mut Store, to| store.claim(to, 1, usize::MAX).unwrap().remove(0).item;
    assert_eq!((first(&mut store, one), first(&mut store, two)), (waits(cut.clone()), waits(span(1, 2, 1))));
    // A dead letter has the version that was sent last.
    let first = row_of(&mut store, one);
    store.bury(one, first, "413", 1).unwrap();
    store.settle_dead_letters(None, cc_core::status::Fate::Retry, 2).unwrap();
    check(&store);
    let rows = store.claim(one, 9, usize::MAX).unwrap();
    assert_eq!((rows.len(), &rows[1].item), (2, &waits(cut)));
}

fn row_of(store: &mut Store, to: DestinationId) -> i64 {
    store.claim(to, 1, usize::MAX).unwrap()[0].seq
}

#[test]
fn a_batch_on_its_way_takes_nothing_with_it_that_came_meanwhile() {
    // Its observation was dropped, and another one is found.
    let (_dir, mut store) = fresh();
    store.advance(&step_to(1, vec![span(1, 1, 0), span(1, 2, 1)], &[])).unwrap();
    let one = id(&mut store, "one");
    let batch = store.claim(one, 9, usize::MAX).unwrap();
    store.drop_waiting(one).unwrap();
    store.advance(&step_to(1, vec![span(2, 1, 0), span(2, 2, 1)], &[])).unwrap();
    store.delivered(one, &batch, 0, 1).unwrap();
    assert_eq!(waiting(&mut store, one), [(2, 2), (2, 1)]);
    check(&store);
    // An older observation is moved in between.
    let (_dir, mut store) = fresh();
    let mut of_two = step_to(2, vec![span(5, 1, 0)], &[]);
    of_two.session.hint.targets.remove(0);
    store.advance(&step_to(1, vec![span(1, 1, 0)], &[])).unwrap();
    store.advance(&of_two).unwrap();
    store.advance(&step_to(1, vec![span(2, 1, 0)], &[])).unwrap();
    let (one, two) = (id(&mut store, "one"), id(&mut store, "two"));
    let batch = store.claim(one, 9, usize::MAX).unwrap();
    let mut sum = Redirected::default();
    store.move_spans(two, (one, true), i64::MIN, &mut sum).unwrap();
    store.move_rest(two, (one, MediaAs::Upload, true), &mut sum).unwrap();
    assert_eq!(waiting(&mut store, one), [(1, 1), (5, 1), (2, 1)]);
    store.delivered(one, &batch, 0, 1).unwrap();
    assert_eq!(waiting(&mut store, one), [(5, 1)]);
    check(&store);
}

#[test]
fn a_reference_that_was_lost_or_leads_to_another_is_made_again() {
    for damage in [
        "DELETE FROM outbox WHERE destination = 1 AND seq = 1",
        "UPDATE outbox SET destination = 3 WHERE destination = 1 AND seq = 1",
        "UPDATE outbox SET seq = 77 WHERE destination = 1 AND seq = 1",
        "UPDATE outbox SET seq = 1 WHERE destination = 1 AND seq = 2",
        "UPDATE observation SET id = 77 WHERE id = 1",
        "UPDATE observation SET span_id = x'0909090909090909' WHERE id = 1",
        "DELETE FROM observation WHERE id = 1",
    ] {
        let (dir, mut store) = fresh();
        let mut of_two = step_to(2, vec![span(9, 1, 0)], &[]);
        of_two.session.hint.targets.remove(0);
        let spans = || vec![span(1, 1, 0), span(2, 1, 0)];
        store.advance(&step_to(1, spans(), &[])).unwrap();
        store.advance(&of_two).unwrap();
        store.db.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
        if damage.contains("SET seq = 1 ") {
            store.db.execute("DELETE FROM outbox WHERE destination = 1 AND seq = 1", []).unwrap();
        }
        assert_eq!(store.db.execute(damage, []).unwrap(), 1, "{damage}");
        drop(store);
        let Opened { mut store, damaged, again, .. } = Store::open(&dir.path().join("state.db")).unwrap();
        assert_eq!((damaged, again), (None, true), "{damage}");
        check(&store);
        store.advance(&step_to(1, spans(), &[])).unwrap();
        store.advance(&of_two).unwrap();
        let (one, two) = (id(&mut store, "one"), id(&mut store, "two"));
        let mut found = waiting(&mut store, one);
        found.sort_unstable();
        assert_eq!((found, waiting(&mut store, two)), (vec![(1, 1), (2, 1)], vec![(9, 1)]), "{damage}");
        check(&store);
    }
}

/// Something that happens to waiting spans.
#[derive(Clone, Debug)]
enum Event {
    /// Spans of a trace are found for this number of destinations, less those that are behind.
    Found {
        trace: u8,
        spans: u8,
        end: u64,
        count: usize,
        behind: usize,
    },
    /// A destination accepts some of the spans it is sent.
    Taken {
        at: usize,
        rows: usize,
        skip: usize,
    },
    Buried(usize),
    Cut(usize),
    Retried,
    Moved(usize, usize),
    Dropped(usize),
    Forgotten(u8),
    Restarted,
}

fn events() -> impl Strategy<Value = Event> {
    let found = (1..4u8, 1..4u8, 2..4u64, 1..=3usize, 0..6usize)
        .prop_map(|(trace, spans, end, count, behind)| Event::Found { trace, spans, end, count, behind });
    prop_oneof![
        6 => found,
        4 => (0..3usize, 1..5usize, 0..2usize).prop_map(|(at, rows, skip)| Event::Taken { at, rows, skip }),
        1 => (0..3usize).prop_map(Event::Buried),
        1 => (0..3usize).prop_map(Event::Cut),
        1 => Just(Event::Retried),
        1 => (0..3usize, 0..3usize).prop_map(|(from, to)| Event::Moved(from, to)),
        1 => (0..3usize).prop_map(Event::Dropped),
        1 => (1..4u8).prop_map(Event::Forgotten),
        2 => Just(Event::Restarted),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens to one destination, no other loses or gains anything.
    #[test]
    fn each_destination_waits_for_its_own(happens in prop::collection::vec(events(), 1..25)) {
        let (dir, mut store) = fresh();
        store.advance(&step_to(3, vec![span(9, 1, 0)], &[])).unwrap();
        let ids: Vec<_> = NAMES.iter().map(|name| id(&mut store, name)).collect();
        // A retried root waits beside the newer version of its turn.
        let is_any_buried = happens.iter().any(|event| matches!(event, Event::Buried(_)));
        for event in happens {
            let before: Vec<Vec<Item>> = ids.iter().map(|id| items(&mut store, *id)).collect();
            // The destinations that are not affected.
            let untouched: Vec<usize> = match &event {
                Event::Found { .. } | Event::Retried | Event::Restarted | Event::Forgotten(_) => vec![],
                Event::Taken { at, .. } | Event::Buried(at) | Event::Cut(at) | Event::Dropped(at) => {
                    (0..3).filter(|other| other != at).collect()
                }
                Event::Moved(from, to) => (0..3).filter(|other| other != from && other != to).collect(),
            };
            match event.clone() {
                Event::Found { trace, spans, end, count, behind } => {
                    let root = Observation { end, ..span(trace, 1, 0) };
                    let found = (2..=spans).map(|id| span(trace, id, 1)).chain([root]).collect();
                    let behind: Vec<&str> = NAMES.get(behind).copied().into_iter().collect();
                    store.advance(&step_to(count, found, &behind)).unwrap();
                }
                Event::Taken { at, rows, skip } => {
                    let batch = store.claim(ids[at], rows + skip, usize::MAX).unwrap();
                    let batch = &batch[skip.min(batch.len())..];
                    store.delivered(ids[at], batch, 0, 1).unwrap();
                    prop_assert_eq!(items(&mut store, ids[at]).len(), before[at].len() - batch.len());
                }
                Event::Buried(at) => {
                    if let Some(row) = store.claim(ids[at], 1, usize::MAX).unwrap().first() {
                        store.bury(ids[at], row.seq, "400", 1).unwrap();
                    }
                }
                Event::Cut(at) => {
                    if let Some(Row { seq, item: Item::Observation(mut stored), bytes }) = store.claim(ids[at], 1, usize::MAX).unwrap().pop() {
                        stored.observation.status = None;
                        store.replace(ids[at], &Row { seq, item: Item::Observation(stored), bytes }).unwrap();
                    }
                }
                Event::Retried => {
                    store.settle_dead_letters(None, cc_core::status::Fate::Retry, 1).unwrap();
                }
                Event::Moved(from, to) if from != to => {
                    let mut sum = Redirected::default();
                    store.move_calls(ids[from], ids[to]).unwrap();
                    store.move_spans(ids[from], (ids[to], true), i64::MIN, &mut sum).unwrap();
                    store.move_rest(ids[from], (ids[to], MediaAs::Upload, true), &mut sum).unwrap();
                    prop_assert_eq!(items(&mut store, ids[from]).len(), 0);
                    prop_assert_eq!(sum.spans + sum.known, before[from].len() as u64);
                    prop_assert_eq!(items(&mut store, ids[to]).len() as u64, before[to].len() as u64 + sum.spans);
                }
                Event::Moved(..) => {}
                Event::Dropped(at) => {
                    store.drop_waiting(ids[at]).unwrap();
                    prop_assert_eq!(items(&mut store, ids[at]).len(), 0);
                }
                Event::Forgotten(trace) => {
                    store.forget("s-1", &[[trace; 16]]).unwrap();
                    for (id, before) in ids.iter().zip(&before) {
                        let kept: Vec<_> = before.iter().filter(|item| item.trace_id() != [trace; 16]).cloned().collect();
                        prop_assert_eq!(items(&mut store, *id), kept);
                    }
                }
                Event::Restarted => {
                    drop(store);
                    store = opened(&dir);
                    for (id, before) in ids.iter().zip(&before) {
                        prop_assert_eq!(&items(&mut store, *id), before);
                    }
                }
            }
            check(&store);
            for other in untouched {
                prop_assert_eq!(&items(&mut store, ids[other]), &before[other], "{:?}", &event);
            }
            for id in &ids {
                // A span waits once, and so does its root, however often it was found.
                let found = items(&mut store, *id);
                let names: std::collections::BTreeSet<_> = found.iter().map(|item| (item.trace_id(), item.span_id())).collect();
                prop_assert!(is_any_buried || found.len() == names.len());
            }
        }
    }
}

fn items(store: &mut Store, to: DestinationId) -> Vec<Item> {
    store.claim(to, 1000, usize::MAX).unwrap().into_iter().map(|row| row.item).collect()
}
