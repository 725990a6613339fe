use super::*;
use cc_core::{destination::MediaAs, status::Redirected};

/// A step of a session whose spans go to `name`.
fn step_to(name: &str, spans: Vec<Observation>) -> Advance {
    let mut step = step(spans);
    step.session.hint.targets = vec![server(name).into()];
    step
}

/// Moves everything that waits, like a request does.
fn moved(
    store: &mut Store,
    (from, to): (DestinationId, DestinationId),
    is_same_kind: bool,
    media: MediaAs,
) -> Redirected {
    let mut sum = Redirected::default();
    store.move_calls(from, to).unwrap();
    let mut after = Some(i64::MIN);
    while let Some(row) = after {
        after = store.move_spans(from, (to, is_same_kind), row, &mut sum).unwrap();
    }
    store.move_rest(from, (to, media, true), &mut sum).unwrap();
    sum
}

fn spans(count: u64) -> Redirected {
    Redirected { spans: count, ..Redirected::default() }
}

#[test]
fn what_waits_moves_in_its_order_and_enters_neither_destination_again() {
    let (dir, mut store) = fresh();
    let many: Vec<_> = (0..6).flat_map(|trace| (1..=200).map(move |id| span(trace, id, id - 1))).collect();
    let (old, queued) = store.advance_one(&step_to("old", many.clone())).unwrap();
    assert_eq!(queued, 1200, "more than is moved at once");
    let (new, _) = store.advance_one(&step_to("new", vec![span(9, 1, 0)])).unwrap();
    let before = waiting(&mut store, old);
    let bytes = store.waiting[&old];
    assert_eq!(moved(&mut store, (old, new), true, MediaAs::Upload), spans(1200));
    assert_eq!(store.claim(new, 5000, usize::MAX).unwrap().len(), 1201);
    assert_eq!((&waiting(&mut store, new), before.len()), (&before, 1000), "the oldest first");
    assert_eq!((store.waiting.get(&old), store.waiting[&new] > bytes), (None, true));
    for name in ["old", "new"] {
        assert_eq!(store.advance_one(&step_to(name, many.clone())).unwrap().1, 0, "{name}");
    }
    // Each is intact after a restart: its checksum is for the new destination.
    drop(store);
    let mut store = opened(&dir);
    assert_eq!(store.claim(new, 5000, usize::MAX).unwrap().len(), 1201);
    assert_eq!(count(&store, "dead_letter"), 0);
}

#[test]
fn what_was_sent_there_before_leaves_and_a_copy_of_a_moved_call_is_none() {
    let (_dir, mut store) = fresh();
    let call = |span: Observation| Observation { call: Some(Call::of("msg", Some(7), None, None)), ..span };
    let (new, _) = store.advance_one(&step_to("new", vec![span(1, 1, 0), span(1, 2, 1)])).unwrap();
    let rows = store.claim(new, 10, usize::MAX).unwrap();
    store.delivered(new, &rows, 0, 20).unwrap();
    let turn = vec![span(1, 1, 0), span(1, 2, 1), span(2, 1, 0), call(span(2, 2, 1))];
    let (old, queued) = store.advance_one(&step_to("old", turn)).unwrap();
    assert_eq!(queued, 4);
    assert_eq!(moved(&mut store, (old, new), true, MediaAs::Upload), Redirected { known: 2, ..spans(2) });
    assert_eq!(waiting(&mut store, new).len(), 2);
    let copy = vec![span(3, 1, 0), call(span(3, 2, 1))];
    assert_eq!(store.advance_one(&step_to("new", copy)).unwrap().1, 0, "the call is known there by now");
}

#[test]
fn what_cannot_move_stays_or_is_counted() {
    let (_dir, mut store) = fresh();
    let image = (Field::Input, Media::new("image/png", vec![1; 100], 0).unwrap());
    let showing = Observation { media: vec![image], ..span(1, 2, 1) };
    let (old, _) =
        store.advance_one(&step_to("old", vec![span(1, 1, 0), showing, span(1, 3, 1), span(1, 4, 1)])).unwrap();
    let (new, _) = store.advance_one(&step_to("new", vec![span(9, 1, 0)])).unwrap();
    // One is damaged, and one is in the form of earlier versions.
    store.db.execute("UPDATE observation SET body = 'x' WHERE span_id = ?", [[3u8; 8]]).unwrap();
    let body = as_spans_were_stored(1, 4, 1);
    put(&store, old, 4, &body, Some(checksum(old, &[4; 8], body.as_bytes())));
    let found = moved(&mut store, (old, new), false, MediaAs::Size);
    assert_eq!(found, Redirected { left: 1, ..spans(2) });
    assert_eq!(waiting(&mut store, old), [(1, 4)], "in words that only the first understands");
    assert_eq!(count(&store, "dead_letter"), 1, "the damaged one");
    let counts = store.counts().unwrap();
    assert_eq!((counts.skipped["dropped_media"], counts.media.0), (1, 0));
    assert_eq!(moved(&mut store, (old, new), true, MediaAs::Size), spans(1));
    assert_eq!(waiting(&mut store, new).len(), 4);
}

#[test]
fn what_is_dropped_is_counted_and_nothing_else_goes() {
    let (_dir, mut store) = fresh();
    let image = (Field::Input, Media::new("image/png", vec![1; 100], 0).unwrap());
    let turn = |trace| vec![span(trace, 1, 0), Observation { media: vec![image.clone()], ..span(trace, 2, 1) }];
    let (old, _) = store.advance_one(&step_to("old", turn(1))).unwrap();
    let (other, _) = store.advance_one(&step_to("other", turn(2))).unwrap();
    let first = store.claim(old, 1, usize::MAX).unwrap()[0].seq;
    store.bury(old, first, "400", 1).unwrap();
    store.postpone(old, "parked", 5, "401", 1).unwrap();
    let dropped = store.drop_waiting(old).unwrap();
    assert_eq!(dropped, Redirected { media: 1, ..spans(1) });
    let counts = store.counts().unwrap();
    assert_eq!((counts.skipped["dropped_spans"], counts.skipped["dropped_media"]), (1, 1));
    assert_eq!((counts.dead_letters, counts.media.0, waiting(&mut store, other).len()), (1, 1, 2));
    let row = store.destination(old).unwrap().unwrap();
    assert_eq!((row.waiting, &*row.state, row.last_error), (0, "ok", None));
    assert_eq!(store.advance_one(&step_to("old", turn(1))).unwrap().1, 0, "what was dropped does not come again");
    assert_eq!(store.drop_waiting(old).unwrap(), Redirected::default());
}

#[test]
fn what_moves_stays_as_it_was_stored() {
    let (dir, mut store) = fresh();
    let (old, _) = store.advance_one(&step_to("old", vec![span(1, 1, 0)])).unwrap();
    let (new, _) = store.advance_one(&step_to("new", vec![span(9, 1, 0)])).unwrap();
    // As another version may encode it.
    let body: String = store.db.query_row("SELECT body FROM observation WHERE id = 1", [], |row| row.get(0)).unwrap();
    let body = body.replacen("\"observation\":", "\"observation\" : ", 1);
    assert!(body.contains(" : "));
    store.db.execute("UPDATE observation SET body = ? WHERE id = 1", [&body]).unwrap();
    let sum = checksum(old, &[1; 8], body.as_bytes());
    store.db.execute("UPDATE outbox SET checksum = ? WHERE seq = 1", [sum]).unwrap();
    assert_eq!(moved(&mut store, (old, new), true, MediaAs::Upload), spans(1));
    drop(store);
    let mut store = opened(&dir);
    assert_eq!(waiting(&mut store, new), [(1, 1), (9, 1)]);
    assert_eq!(store.claim(new, 1, usize::MAX).unwrap()[0].bytes, body.len());
}
