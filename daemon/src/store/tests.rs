use tempfile::TempDir;

use super::*;
use crate::{
    dialect::{Field, Value},
    hook::{Event, Options},
    ids::{Print, SpanId, TraceId},
    media::Media,
};

fn opened(dir: &TempDir) -> Store {
    let Opened { store, damaged, again } = Store::open(&dir.path().join("state.db")).unwrap();
    assert_eq!((damaged, again), (None, false));
    store
}

fn fresh() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = opened(&dir);
    (dir, store)
}

fn server(name: &str) -> Destination {
    Destination { kind: Kind::Langfuse, base_url: format!("https://{name}.example.org"), public_key: "pk-1".into() }
}

fn hint(id: &str, fired_ns: u64) -> Hint {
    Hint {
        id: id.into(),
        fired_ns,
        session_id: "s-1".into(),
        transcript: "/home/dev/s-1.jsonl".into(),
        event: Event::Stopped { answer: Some(Print::of("done")) },
        project_dirs: vec!["/home/dev/app".into()],
        config_dir: None,
        destination: server("one"),
        options: Options::default(),
        debug: false,
    }
}

fn span(trace: u8, id: u8, parent: u8) -> OutSpan {
    OutSpan {
        trace_id: [trace; 16],
        span_id: [id; 8],
        parent_id: [parent; 8],
        name: format!("{trace}/{id}"),
        start_ns: 1,
        end_ns: 2,
        error: None,
        attributes: vec![("k".into(), Value::Text("v".into()))],
        events: Vec::new(),
        call: None,
        media: Vec::new(),
    }
}

fn session(id: &str) -> SessionRow {
    SessionRow {
        session_id: id.into(),
        transcript: "/home/dev/s-1.jsonl".into(),
        cursor: Position { identity: Identity { dev: u64::MAX, ino: 7 }, offset: 100, marker: Some(u64::MAX) },
        closed: 1,
        turns: 2,
        open_turn: true,
        unsettled: 1,
        forked_from: Some("s-0".into()),
        title: Some("a name".into()),
        hint: hint("e-1", 1),
    }
}

fn step(spans: Vec<OutSpan>) -> Advance {
    Advance {
        session: session("s-1"),
        spans,
        launches: Vec::new(),
        agents: Vec::new(),
        consumed: Vec::new(),
        skipped: BTreeMap::new(),
        redacted: BTreeMap::new(),
        now_ms: 10,
    }
}

/// Trace and span of everything that waits for `destination`, oldest first.
fn waiting(store: &mut Store, destination: DestinationId) -> Vec<(u8, u8)> {
    let rows = store.claim(destination, 1000, usize::MAX).unwrap();
    rows.iter().map(|row| (row.span.trace_id[0], row.span.span_id[0])).collect()
}

fn count(store: &Store, table: &str) -> u64 {
    store.db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0)).unwrap() as u64
}

// ---- events ----

#[test]
fn an_event_accepted_twice_counts_once() {
    let (_dir, mut store) = fresh();
    let one = store.accept(&[hint("e-1", 1)], &[]).unwrap();
    let again = store.accept(&[hint("e-1", 1), hint("e-1", 9)], &[]).unwrap();
    assert_eq!(again, [one[0], one[0]]);
    assert_eq!(store.inbox().unwrap(), [hint("e-1", 1)]);
    assert_eq!(store.counts().unwrap().inbox, 1);
}

#[test]
fn events_come_back_oldest_first_and_as_they_were() {
    let (_dir, mut store) = fresh();
    let ended = Hint { event: Event::Ended, ..hint("a", 3) };
    store.accept(&[ended.clone(), hint("c", 1)], &[]).unwrap();
    store.accept(&[hint("b", 2)], &[]).unwrap();
    assert_eq!(store.inbox().unwrap(), [hint("c", 1), hint("b", 2), ended]);
}

#[test]
fn an_accepted_event_survives_the_process() {
    let (dir, mut store) = fresh();
    store.accept(&[hint("e-1", 1)], &["hook_not_json"]).unwrap();
    store.advance(&step(vec![span(1, 1, 0)])).unwrap();
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
    store.accept(&[], &["hook_not_json", "hook_base_url", "hook_not_json"]).unwrap();
    store.accept(&[], &["hook_not_json"]).unwrap();
    let expect = [("hook_base_url".to_owned(), 1), ("hook_not_json".to_owned(), 3)].into();
    assert_eq!(store.counts().unwrap().skipped, expect);
}

#[test]
fn events_that_came_to_nothing_are_dropped_and_counted() {
    let (_dir, mut store) = fresh();
    store.accept(&[hint("e-1", 1), hint("e-2", 2)], &[]).unwrap();
    store.give_up(&["e-1".into()], "transcript_missing").unwrap();
    assert_eq!(store.inbox().unwrap(), [hint("e-2", 2)]);
    assert_eq!(store.counts().unwrap().skipped, [("transcript_missing".to_owned(), 1)].into());
}

#[test]
fn an_event_that_cannot_be_read_does_not_hide_the_others() {
    let (_dir, mut store) = fresh();
    store.accept(&[hint("e-1", 1), hint("e-2", 2)], &[]).unwrap();
    store.db.execute("UPDATE inbox SET hint = '{}' WHERE id = 'e-1'", []).unwrap();
    assert_eq!(store.inbox().unwrap(), [hint("e-2", 2)]);
}

// ---- sessions ----

#[test]
fn a_session_comes_back_as_it_was_left() {
    let (_dir, mut store) = fresh();
    assert!(store.session("s-1").unwrap().is_none());
    store.advance(&step(Vec::new())).unwrap();
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
    store.advance(&Advance { session: later.clone(), ..step(Vec::new()) }).unwrap();
    assert_eq!(store.session("s-1").unwrap().map(shown), Some(shown(later)));
    assert!(store.session("s-2").unwrap().is_none());
}

#[test]
fn the_sessions_seen_last_come_first() {
    let (_dir, mut store) = fresh();
    for (id, now_ms) in [("a", 1), ("b", 3), ("c", 2), ("a", 4)] {
        store.advance(&Advance { session: session(id), now_ms, ..step(Vec::new()) }).unwrap();
    }
    let seen = |limit| -> Vec<String> {
        store.sessions(limit).unwrap().into_iter().map(|session| session.session_id).collect()
    };
    assert_eq!((seen(10), seen(2)), (vec!["a".into(), "b".into(), "c".into()], vec!["a".into(), "b".into()]));
}

#[test]
fn a_session_whose_row_cannot_be_read_starts_again() {
    let (_dir, mut store) = fresh();
    store.advance(&step(Vec::new())).unwrap();
    store.db.execute("UPDATE session SET hint = '{}'", []).unwrap();
    assert!(store.session("s-1").unwrap().is_none());
    assert!(store.sessions(10).unwrap().is_empty());
}

#[test]
fn a_step_takes_events_spans_and_counts_along() {
    let (_dir, mut store) = fresh();
    store.accept(&[hint("e-1", 1), hint("e-2", 2)], &[]).unwrap();
    let step = Advance {
        consumed: vec!["e-1".into(), "never seen".into()],
        skipped: [("not_json", 2), ("sidechain", 1)].into(),
        ..step(vec![span(1, 1, 0), span(1, 2, 1)])
    };
    assert_eq!(store.advance(&step).unwrap(), (1, 2));
    store.advance(&Advance { skipped: [("not_json", 3)].into(), ..step }).unwrap();
    let counts = store.counts().unwrap();
    assert_eq!((counts.inbox, counts.outbox, counts.dead_letters), (1, 2, 0));
    assert_eq!(counts.skipped, [("not_json".to_owned(), 5), ("sidechain".to_owned(), 1)].into());
}

#[test]
fn a_step_happens_whole_or_not_at_all() {
    let (_dir, mut store) = fresh();
    store.accept(&[hint("e-1", 1)], &[]).unwrap();
    // The last thing a step does is to count what it passed over.
    store.db.execute("DROP TABLE skipped", []).unwrap();
    let step = Advance { consumed: vec!["e-1".into()], skipped: [("not_json", 1)].into(), ..step(vec![span(1, 1, 0)]) };
    assert!(store.advance(&step).is_err());
    assert_eq!(["inbox", "outbox", "exported", "session"].map(|table| count(&store, table)), [1, 0, 0, 0]);
}

// ---- spans enter the outbox once ----

#[test]
fn the_same_spans_enter_once_however_often_they_are_found() {
    let (_dir, mut store) = fresh();
    let found = step(vec![span(1, 1, 0), span(1, 2, 1), span(1, 3, 2)]);
    let (destination, queued) = store.advance(&found).unwrap();
    assert_eq!(queued, 3);
    assert_eq!(store.advance(&found).unwrap(), (destination, 0));
    let rows = store.claim(destination, 10, usize::MAX).unwrap();
    assert_eq!(rows.len(), 3);
    store.delivered(destination, &rows, 0, 20).unwrap();
    assert_eq!(store.advance(&found).unwrap(), (destination, 0), "not even when they are gone");
    assert_eq!(count(&store, "outbox"), 0);
}

#[test]
fn a_root_enters_again_only_with_news_of_its_own_trace() {
    let (_dir, mut store) = fresh();
    let root = span(1, 1, 0);
    for (spans, expect) in [
        (vec![root.clone(), span(1, 2, 1)], 2),
        (vec![root.clone()], 0),
        (vec![root.clone(), span(1, 2, 1)], 0),
        (vec![root.clone(), span(1, 3, 1)], 2),
        (vec![root.clone(), span(2, 9, 8)], 1),
        (vec![span(1, 4, 1)], 1),
        (vec![root, span(1, 4, 1)], 0),
    ] {
        let named = format!("{:?}", spans.iter().map(|span| &span.name).collect::<Vec<_>>());
        assert_eq!(store.advance(&step(spans)).unwrap().1, expect, "{named}");
    }
}

#[test]
fn a_call_found_again_in_another_trace_is_a_copy_with_all_that_belongs_to_it() {
    let (_dir, mut store) = fresh();
    let of = |call: u8, span: OutSpan| OutSpan { call: Some([call; 16]), ..span };
    let original = vec![span(1, 1, 0), of(7, span(1, 2, 1)), of(7, span(1, 3, 2))];
    let (destination, queued) = store.advance(&step(original.clone())).unwrap();
    assert_eq!(queued, 3);
    let copy = vec![span(2, 1, 0), of(7, span(2, 2, 1)), of(7, span(2, 3, 2))];
    assert_eq!(store.advance(&step(copy.clone())).unwrap().1, 0, "a turn of copies only");
    let half = [copy, vec![of(8, span(2, 4, 1))]].concat();
    assert_eq!(store.advance(&step(half)).unwrap().1, 2, "the new call and its root");
    assert_eq!(store.advance(&step(original)).unwrap().1, 0, "the original is still its own");
    assert_eq!(waiting(&mut store, destination), [(1, 2), (1, 3), (1, 1), (2, 4), (2, 1)]);
    assert_eq!(store.counts().unwrap().skipped["copied_call"], 4);
}

#[test]
fn launches_and_finished_subagents_come_back_and_sessions_left_in_the_middle_are_known() {
    let (_dir, mut store) = fresh();
    let launch = |tool: &str, agent: Option<&str>, returned| Launch {
        tool_id: tool.into(),
        agent_id: agent.map(Into::into),
        turn: ("p-1".into(), 3),
        returned,
    };
    let launches = vec![launch("t-1", None, false), launch("t-2", Some("a-2"), true)];
    let agents = vec![("a-2".to_owned(), 70)];
    store.advance(&Advance { launches: launches.clone(), agents, ..step(Vec::new()) }).unwrap();
    let done = SessionRow { open_turn: false, unsettled: 0, ..session("s-2") };
    store.advance(&Advance { session: done, ..step(Vec::new()) }).unwrap();
    assert_eq!(store.launches("s-1").unwrap(), launches);
    assert_eq!(store.agents("s-1").unwrap(), [("a-2".to_owned(), 70)].into());
    assert!(store.launches("s-2").unwrap().is_empty() && store.agents("s-2").unwrap().is_empty());
    let ids = |since| store.unsettled(since).unwrap().into_iter().map(|row| row.session_id).collect::<Vec<_>>();
    assert_eq!((ids(10), ids(11)), (vec!["s-1".to_owned()], vec![]));
    store.advance(&Advance { launches: vec![launch("t-1", Some("a-1"), true)], ..step(Vec::new()) }).unwrap();
    assert_eq!(store.launches("s-1").unwrap()[0], launch("t-1", Some("a-1"), true));
}

#[test]
fn the_same_span_goes_to_every_destination_once() {
    let (_dir, mut store) = fresh();
    let other = Hint { destination: server("two"), ..hint("e-2", 2) };
    let to_other = Advance { session: SessionRow { hint: other, ..session("s-1") }, ..step(vec![span(1, 1, 0)]) };
    let (one, first) = store.advance(&step(vec![span(1, 1, 0)])).unwrap();
    let (two, second) = store.advance(&to_other).unwrap();
    assert_eq!((first, second, store.advance(&to_other).unwrap().1), (1, 1, 0));
    assert_ne!(one, two);
    assert_eq!((waiting(&mut store, one), waiting(&mut store, two)), (vec![(1, 1)], vec![(1, 1)]));
}

#[test]
fn a_span_is_known_by_trace_and_id_together() {
    let (_dir, mut store) = fresh();
    let (destination, queued) = store.advance(&step(vec![span(1, 5, 9), span(2, 5, 9), span(1, 6, 9)])).unwrap();
    assert_eq!((queued, waiting(&mut store, destination)), (3, vec![(1, 5), (2, 5), (1, 6)]));
}

// ---- spans leave the outbox ----

#[test]
fn a_claim_is_the_oldest_spans_within_its_limits() {
    let (_dir, mut store) = fresh();
    let (destination, _) = store.advance(&step((1..=5).map(|id| span(1, id, 9)).collect())).unwrap();
    let size = store.claim(destination, 1, usize::MAX).unwrap()[0].bytes;
    for (rows, bytes, expect) in [
        (10, usize::MAX, 5),
        (3, usize::MAX, 3),
        (0, usize::MAX, 0),
        (10, 2 * size, 2),
        (10, 2 * size + 1, 2),
        (10, 3 * size - 1, 2),
        (10, size - 1, 1),
        (10, 0, 1),
    ] {
        let claimed = store.claim(destination, rows, bytes).unwrap();
        let ids: Vec<_> = claimed.iter().map(|row| row.span.span_id[0]).collect();
        assert_eq!(ids, (1..=expect).collect::<Vec<_>>(), "{rows} rows, {bytes} bytes");
    }
    assert!(store.claim(destination + 1, 10, usize::MAX).unwrap().is_empty());
}

#[test]
fn a_claimed_span_stays_until_it_is_delivered() {
    let (_dir, mut store) = fresh();
    let (destination, _) = store.advance(&step(vec![span(1, 1, 9), span(1, 2, 9)])).unwrap();
    let first = store.claim(destination, 1, usize::MAX).unwrap();
    assert_eq!(store.claim(destination, 1, usize::MAX).unwrap()[0].seq, first[0].seq);
    assert_eq!(first[0].span, span(1, 1, 9));
    store.delivered(destination, &first[..1], 2, 77).unwrap();
    assert_eq!(waiting(&mut store, destination), [(1, 2)]);
    let row = store.destinations().unwrap().remove(0);
    assert_eq!((row.last_success_ms, row.waiting, row.delivered, row.rejected), (Some(77), 1, 1, 2));
}

#[test]
fn spans_queued_later_do_not_take_the_number_of_one_that_waits() {
    let (_dir, mut store) = fresh();
    let (destination, _) = store.advance(&step(vec![span(1, 1, 9), span(1, 2, 9)])).unwrap();
    let rows = store.claim(destination, 2, usize::MAX).unwrap();
    store.delivered(destination, &rows[..1], 0, 1).unwrap();
    store.advance(&step(vec![span(1, 3, 9)])).unwrap();
    assert_eq!(waiting(&mut store, destination), [(1, 2), (1, 3)]);
}

#[test]
fn a_span_no_server_takes_leaves_visibly() {
    let (_dir, mut store) = fresh();
    let (destination, _) = store.advance(&step(vec![span(1, 1, 9), span(1, 0xab, 9)])).unwrap();
    let seq = store.claim(destination, 2, usize::MAX).unwrap()[1].seq;
    store.bury(destination, seq, "HTTP 413", 50).unwrap();
    assert_eq!(waiting(&mut store, destination), [(1, 1)]);
    let letter: (String, String, String, i64) = store
        .db
        .query_row("SELECT span_id, reason, body, at_ms FROM dead_letter", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })
        .unwrap();
    assert_eq!((letter.0.as_str(), letter.1.as_str(), letter.3), ("abababababababab", "HTTP 413", 50));
    assert_eq!(serde_json::from_str::<OutSpan>(&letter.2).unwrap(), span(1, 0xab, 9));
    assert_eq!(store.counts().unwrap().dead_letters, 1);
    assert_eq!(store.advance(&step(vec![span(1, 0xab, 9)])).unwrap().1, 0, "and does not come back");
}

#[test]
fn a_span_that_was_cut_keeps_its_place() {
    let (_dir, mut store) = fresh();
    let (destination, _) = store.advance(&step(vec![span(1, 1, 9), span(1, 2, 9)])).unwrap();
    let row = store.claim(destination, 1, usize::MAX).unwrap().remove(0);
    let smaller = Row { span: OutSpan { attributes: Vec::new(), ..span(1, 1, 9) }, ..row };
    store.replace(destination, &smaller).unwrap();
    let rows = store.claim(destination, 2, usize::MAX).unwrap();
    assert_eq!((rows[0].seq, &rows[0].span, &rows[1].span), (smaller.seq, &smaller.span, &span(1, 2, 9)));
    assert!(rows[0].bytes < rows[1].bytes);
}

#[test]
fn a_row_that_cannot_be_read_is_put_aside_and_the_rest_goes_out() {
    let (_dir, mut store) = fresh();
    let (destination, _) = store.advance(&step((1..=3).map(|id| span(1, id, 9)).collect())).unwrap();
    store.db.execute("UPDATE outbox SET body = '{' WHERE span_id = ?", [[2u8; 8]]).unwrap();
    assert_eq!(waiting(&mut store, destination), [(1, 1), (1, 3)]);
    let counts = store.counts().unwrap();
    assert_eq!((counts.outbox, counts.dead_letters), (2, 1));
}

#[test]
fn the_bytes_that_wait_are_known_at_every_moment() {
    let (dir, mut store) = fresh();
    let stored = |store: &Store| -> u64 {
        let sum = "SELECT coalesce(sum(octet_length(body)), 0) FROM outbox";
        store.db.query_row(sum, [], |row| row.get::<_, i64>(0)).unwrap() as u64
    };
    let check = |store: &Store| {
        let waiting = store.waiting_bytes(&server("one")).unwrap();
        assert_eq!((waiting, store.waiting_bytes(&server("two")).unwrap()), (stored(store), 0));
        waiting
    };
    assert_eq!(check(&store), 0);
    let (destination, _) = store.advance(&step((1..=5).map(|id| span(1, id, 9)).collect())).unwrap();
    assert!(check(&store) > 0);
    store.advance(&step((1..=6).map(|id| span(1, id, 9)).collect())).unwrap();
    check(&store);
    let rows = store.claim(destination, 10, usize::MAX).unwrap();
    store.delivered(destination, &rows[..2], 0, 1).unwrap();
    check(&store);
    store.bury(destination, rows[2].seq, "HTTP 400", 1).unwrap();
    check(&store);
    let smaller = Row { span: OutSpan { attributes: Vec::new(), ..rows[3].span.clone() }, ..rows[3] };
    store.replace(destination, &smaller).unwrap();
    check(&store);
    store.settle_dead_letters(None, Fate::Retry, 1).unwrap();
    let before = check(&store);
    drop(store);
    assert_eq!(check(&opened(&dir)), before);
}

#[test]
fn a_dead_letter_is_sent_again_or_dropped_as_its_owner_says() {
    let (_dir, mut store) = fresh();
    let (destination, _) = store.advance(&step((1..=3).map(|id| span(1, id, 9)).collect())).unwrap();
    for row in store.claim(destination, 10, usize::MAX).unwrap() {
        store.bury(destination, row.seq, "HTTP 400", 50).unwrap();
    }
    let letters = store.dead_letters().unwrap();
    assert_eq!(
        letters.iter().map(|letter| &*letter.span_id).collect::<Vec<_>>(),
        ["01", "02", "03"].map(|id| id.repeat(8))
    );
    assert_eq!(
        (&*letters[0].base_url, &*letters[0].reason, letters[0].at_ms),
        ("https://one.example.org", "HTTP 400", 50)
    );
    assert_eq!(
        store.settle_dead_letters(Some(letters[1].id), Fate::Retry, 60).unwrap().0,
        [(destination, server("one"))]
    );
    assert_eq!(waiting(&mut store, destination), [(1, 2)]);
    assert_eq!(store.settle_dead_letters(Some(letters[1].id), Fate::Retry, 60).unwrap().1, 0, "it is none any more");
    assert_eq!(store.settle_dead_letters(None, Fate::Drop, 60).unwrap().1, 2);
    assert_eq!((store.dead_letters().unwrap(), waiting(&mut store, destination)), (vec![], vec![(1, 2)]));
}

#[test]
fn trust_is_given_and_taken_back() {
    let (_dir, mut store) = fresh();
    assert!(!store.trusts("https://a").unwrap());
    store.trust("https://a", true, 1).unwrap();
    store.trust("https://a", true, 2).unwrap();
    assert!(store.trusts("https://a").unwrap() && !store.trusts("https://b").unwrap());
    store.trust("https://a", false, 3).unwrap();
    assert!(!store.trusts("https://a").unwrap());
}

#[test]
fn a_change_that_fails_is_noted_until_one_succeeds() {
    let (_dir, store) = fresh();
    let handle = handle::Handle::new(store);
    let trouble = || handle.call(|store| Ok(store.trouble().map(|(why, _)| why.clone()))).unwrap();
    handle.call(|store| store.db.pragma_update(None, "max_page_count", 1)).unwrap();
    let big = hint(&"x".repeat(1 << 20), 1);
    assert!(handle.call(|store| store.accept(std::slice::from_ref(&big), &[])).is_err());
    assert!(trouble().is_some_and(|why| why.contains("full")), "{:?}", trouble());
    handle.call(|store| store.db.pragma_update(None, "max_page_count", 1 << 20)).unwrap();
    handle.call(|store| store.counts()).unwrap();
    assert!(trouble().is_some(), "reading proves nothing");
    handle.call(|store| store.accept(std::slice::from_ref(&big), &[])).unwrap();
    assert_eq!(trouble(), None);
}

// ---- destinations ----

#[test]
fn a_destination_is_an_address_with_a_key() {
    let (_dir, mut store) = fresh();
    let key = Destination { public_key: "pk-2".into(), ..server("one") };
    let hints = [server("one"), server("two"), key, server("one")]
        .into_iter()
        .zip(0..)
        .map(|(destination, n)| Hint { destination, ..hint(&n.to_string(), n) });
    let ids = store.accept(&hints.collect::<Vec<_>>(), &[]).unwrap();
    assert_eq!(ids[0], ids[3]);
    assert_eq!(ids.iter().collect::<std::collections::BTreeSet<_>>().len(), 3);
    let rows = store.destinations().unwrap();
    assert_eq!(rows.iter().map(|row| row.id).collect::<Vec<_>>(), ids[..3]);
    assert!(rows.iter().all(|row| row.state == "ok" && row.waiting == 0 && row.last_success_ms.is_none()));
    assert_eq!(rows[1].destination, server("two"));
}

#[test]
fn what_went_wrong_is_noted_and_forgotten_with_the_next_success() {
    let (_dir, mut store) = fresh();
    let (id, _) = store.advance(&step(vec![span(1, 1, 9)])).unwrap();
    store.postpone(id, "retrying", 500, "HTTP 503", 100).unwrap();
    let row = store.destinations().unwrap().remove(0);
    assert_eq!((row.state.as_str(), row.next_at_ms, row.waiting), ("retrying", 500, 1));
    assert_eq!((row.last_error, row.last_success_ms), (Some(("HTTP 503".to_owned(), 100)), None));
    store.delivered(id, &[], 0, 200).unwrap();
    let row = store.destinations().unwrap().remove(0);
    assert_eq!((row.state.as_str(), row.next_at_ms, row.last_success_ms), ("ok", 0, Some(200)));
}

#[test]
fn keys_are_looked_for_where_the_latest_events_and_sessions_of_a_destination_were() {
    let (_dir, mut store) = fresh();
    let at = |id: &str, fired, name: &str, dirs: &[&str]| Hint {
        destination: server(name),
        project_dirs: dirs.iter().map(PathBuf::from).collect(),
        ..hint(id, fired)
    };
    let old = SessionRow { hint: at("e-0", 0, "one", &["/old", "/a"]), ..session("s-0") };
    store.advance(&Advance { session: old, ..step(Vec::new()) }).unwrap();
    let events = [at("e-1", 1, "one", &["/b", "/a"]), at("e-2", 2, "two", &["/c"]), at("e-3", 3, "one", &["/d"])];
    store.accept(&events, &[]).unwrap();
    let dirs = |name: &str| store.project_dirs(&server(name)).unwrap();
    assert_eq!(dirs("one"), ["/d", "/b", "/a", "/old"].map(PathBuf::from));
    assert_eq!(dirs("two"), ["/c"].map(PathBuf::from));
    assert!(dirs("three").is_empty());
}

// ---- the file ----

#[test]
fn a_new_database_is_empty() {
    let (_dir, store) = fresh();
    let counts = store.counts().unwrap();
    assert_eq!((counts.inbox, counts.outbox, counts.dead_letters), (0, 0, 0));
    assert!(counts.skipped.is_empty());
    assert!(store.inbox().unwrap().is_empty() && store.sessions(10).unwrap().is_empty());
    assert!(store.destinations().unwrap().is_empty());
}

#[test]
fn a_damaged_file_is_set_aside_and_a_new_one_begun() {
    let garbage: &[u8] = &[b'x'; 8192];
    let mut header_only = b"SQLite format 3\0".to_vec();
    header_only.resize(4096, 0xff);
    for damage in [garbage, &header_only] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        std::fs::write(&path, damage).unwrap();
        let Opened { mut store, damaged, .. } = Store::open(&path).unwrap();
        let aside = damaged.unwrap();
        assert_eq!(std::fs::read(aside.join("state.db")).unwrap(), damage, "kept as it was");
        store.accept(&[hint("e-1", 1)], &[]).unwrap();
        drop(store);
        assert_eq!(opened(&dir).inbox().unwrap(), [hint("e-1", 1)]);
    }
}

#[test]
fn damage_within_a_database_of_ours_is_found_when_it_is_opened() {
    let (dir, mut store) = fresh();
    store.advance(&step((1..=200).map(|id| span(1, id, 9)).collect())).unwrap();
    drop(store);
    let path = dir.path().join("state.db");
    let mut bytes = std::fs::read(&path).unwrap();
    assert!(bytes.len() > 20 * 4096);
    bytes[8192..].fill(0x5a);
    std::fs::write(&path, &bytes).unwrap();
    let Opened { store, damaged, .. } = Store::open(&path).unwrap();
    assert_eq!(std::fs::read(damaged.unwrap().join("state.db")).unwrap(), bytes);
    assert_eq!(store.counts().unwrap().outbox, 0);
}

/// A database with three sessions, 40 spans of which 20 are delivered, and an event, written to disk.
fn used() -> (TempDir, Vec<u8>) {
    let (dir, mut store) = fresh();
    for id in ["s-1", "s-2", "s-3"] {
        store.advance(&Advance { session: session(id), ..step((1..=40).map(|id| span(1, id, 9)).collect()) }).unwrap();
    }
    let destination = store.destinations().unwrap()[0].id;
    let rows = store.claim(destination, 20, usize::MAX).unwrap();
    store.delivered(destination, &rows, 0, 1).unwrap();
    store.accept(&[hint("e-9", 9)], &[]).unwrap();
    drop(store);
    let bytes = std::fs::read(dir.path().join("state.db")).unwrap();
    (dir, bytes)
}

#[test]
fn whatever_is_damaged_nothing_undelivered_is_taken_for_delivered() {
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
    let (dir, whole) = used();
    let path = dir.path().join("state.db");
    let (salvaged, again) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    let seed = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner =
        TestRunner::new_with_rng(Config { cases: 300, failure_persistence: None, ..Config::default() }, seed);
    let damage = (0..whole.len(), 1usize..9000, 0u8..3, proptest::bool::ANY);
    runner
        .run(&damage, |(at, length, kind, fill)| {
            let mut bytes = whole.clone();
            let end = (at + length).min(bytes.len());
            match kind {
                0 => bytes[at..(at + 16).min(end)].iter_mut().for_each(|byte| *byte ^= 0x41),
                1 => bytes[at..end].fill(if fill { 0xff } else { 0 }),
                _ => bytes.truncate(at),
            }
            std::fs::write(&path, &bytes).unwrap();
            let opened = Store::open(&path).unwrap();
            let mut store = opened.store;
            salvaged.set(salvaged.get() + usize::from(opened.damaged.is_some()));
            again.set(again.get() + usize::from(opened.again));
            // The transcripts supply all spans again: what was not delivered must enter, what waits must be whole.
            for id in ["s-1", "s-2", "s-3"] {
                store
                    .advance(&Advance { session: session(id), ..step((1..=40).map(|id| span(1, id, 9)).collect()) })
                    .unwrap();
            }
            let waiting: Vec<Vec<_>> = (1..9).map(|destination| waiting(&mut store, destination)).collect();
            let waiting = waiting.concat();
            for id in 21..=40 {
                assert!(waiting.contains(&(1, id)), "span {id} is lost: {waiting:?}");
            }
            drop(store);
            for entry in std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()) {
                if entry.is_dir() { std::fs::remove_dir_all(entry) } else { std::fs::remove_file(entry) }.unwrap();
            }
            Ok(())
        })
        .unwrap();
    let (salvaged, again) = (salvaged.get(), again.get());
    assert!(salvaged > 50 && again >= salvaged, "{salvaged} of 300 were set aside, {again} read again");
}

#[test]
fn what_can_be_read_of_a_damaged_database_is_taken_over() {
    for cut_off in [false, true] {
        let (dir, mut bytes) = used();
        let path = dir.path().join("state.db");
        // The last page holds outbox or exported rows: the sessions come before.
        let last = bytes.len() - 4096;
        if cut_off {
            bytes.truncate(last);
        } else {
            bytes[last..].fill(0xee);
        }
        std::fs::write(&path, &bytes).unwrap();
        let Opened { mut store, damaged, again } = Store::open(&path).unwrap();
        assert!(damaged.is_some() && again);
        let sessions = store.sessions(10).unwrap();
        assert_eq!(sessions.iter().map(|row| (row.cursor.offset, row.closed)).collect::<Vec<_>>(), [(0, 0); 3]);
        let inbox: Vec<String> = store.inbox().unwrap().into_iter().map(|hint| hint.id).collect();
        for id in ["e-9", "again-s-1", "again-s-2", "again-s-3"] {
            assert!(inbox.iter().any(|known| known == id), "{id} is not in {inbox:?}");
        }
        let (_, queued) = store.advance(&step((1..=40).map(|id| span(1, id, 9)).collect())).unwrap();
        assert!((20..40).contains(&queued), "{queued}: some of the delivered ones are known");
    }
}

#[test]
fn a_span_whose_bytes_changed_on_disk_is_made_again() {
    let (dir, mut store) = fresh();
    let (_, queued) = store.advance(&step((1..=3).map(|id| span(1, id, 9)).collect())).unwrap();
    assert_eq!(queued, 3);
    store.db.execute("UPDATE outbox SET body = replace(body, '1/2', '1/3') WHERE span_id = ?", [[2u8; 8]]).unwrap();
    drop(store);
    let Opened { mut store, damaged, again } = Store::open(&dir.path().join("state.db")).unwrap();
    assert_eq!((damaged, again, store.inbox().unwrap().len()), (None, true, 1));
    let (destination, queued) = store.advance(&step((1..=3).map(|id| span(1, id, 9)).collect())).unwrap();
    assert_eq!((queued, waiting(&mut store, destination)), (1, vec![(1, 1), (1, 3), (1, 2)]));
}

#[test]
fn a_database_of_version_1_is_brought_up_to_date_and_a_copy_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let old = Connection::open(&path).unwrap();
    old.execute_batch(SCHEMA).unwrap();
    let body = json(&span(1, 2, 9));
    old.execute_batch(
        "INSERT INTO destination (kind, base_url, public_key) VALUES ('langfuse', 'https://one.example.org', 'pk-1')",
    )
    .unwrap();
    for id in [1u8, 2] {
        old.execute("INSERT INTO exported VALUES (1, ?, ?)", params![[1u8; 16], [id; 8]]).unwrap();
    }
    old.execute("INSERT INTO outbox (destination, span_id, body) VALUES (1, ?, ?)", params![[2u8; 8], body]).unwrap();
    old.execute(
        "INSERT INTO session VALUES ('s-1', '/home/dev/s-1.jsonl', 1, 2, 100, 1, 2, 0, ?, 5)",
        [json(&hint("e-1", 1))],
    )
    .unwrap();
    old.pragma_update(None, "user_version", 1).unwrap();
    drop(old);
    let mut store = opened(&dir);
    assert_eq!(waiting(&mut store, 1), [(1, 2)]);
    let cursor = store.session("s-1").unwrap().unwrap().cursor;
    assert_eq!(cursor, Position { identity: Identity { dev: 1, ino: 2 }, offset: 100, marker: None });
    let delivered = "SELECT count(*) FROM exported WHERE delivered AND span_id = x'0101010101010101'";
    assert_eq!(store.db.query_row(delivered, [], |row| row.get::<_, i64>(0)).unwrap(), 1);
    assert_eq!(count(&store, "exported WHERE delivered"), 1);
    let copy = Connection::open(dir.path().join("state.v1.bak")).unwrap();
    assert_eq!(copy.query_row("SELECT count(*) FROM outbox", [], |row| row.get::<_, i64>(0)).unwrap(), 1);
}

#[test]
fn the_directory_for_damaged_files_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    for (name, text) in
        [("state.db", "not a database, but long enough to be looked at"), ("state.db-wal", "w"), ("other", "o")]
    {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let aside = Store::open(&path).unwrap().damaged.unwrap();
    assert_eq!(std::fs::metadata(&aside).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(aside.join("state.db").exists() && !aside.join("other").exists());
    assert!(dir.path().join("other").exists());
}

#[test]
fn a_database_of_a_newer_version_is_left_alone() {
    let (dir, store) = fresh();
    store.db.pragma_update(None, "user_version", 99).unwrap();
    drop(store);
    let path = dir.path().join("state.db");
    let before = std::fs::read(&path).unwrap();
    assert!(Store::open(&path).is_err());
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert!(
        std::fs::read_dir(dir.path())
            .unwrap()
            .all(|entry| { !entry.unwrap().file_name().to_string_lossy().starts_with("corrupt") })
    );
}

#[test]
fn a_place_where_no_file_can_be_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Store::open(&dir.path().join("missing/state.db")).is_err());
    assert!(Store::open(dir.path()).is_err());
}

#[test]
fn a_span_is_named_by_its_ids() {
    let (trace, id): (TraceId, SpanId) = ([0x0a; 16], [0xf0; 8]);
    let span = OutSpan { trace_id: trace, span_id: id, ..span(1, 1, 0) };
    assert_eq!(span_name(&span), format!("{}/{}", "0a".repeat(16), "f0".repeat(8)));
}

// ---- images and documents ----

fn image(bytes: &[u8]) -> (Field, Media) {
    (Field::Input, Media::new("image/png", bytes.to_vec(), 0).unwrap())
}

fn showing(trace: u8, id: u8, media: &[(Field, Media)]) -> OutSpan {
    OutSpan { media: media.to_vec(), ..span(trace, id, 9) }
}

/// Hash and span of everything to be uploaded, in the order of its turn; all of it settled then.
fn uploads(store: &mut Store, destination: DestinationId) -> Vec<([u8; 32], u8)> {
    let mut found = Vec::new();
    while let Some(link) = store.next_media(destination).unwrap() {
        store.media_settled(destination, &link, None).unwrap();
        found.push((link.hash, link.span_id[0]));
    }
    found
}

#[test]
fn an_image_waits_once_however_many_spans_show_it_and_goes_with_the_last() {
    let (dir, mut store) = fresh();
    let (one, two) = (image(&[1; 1000]), image(&[2; 500]));
    let both = [one.clone(), two.clone(), one.clone()];
    let step = step(vec![showing(1, 1, &both), showing(1, 2, std::slice::from_ref(&one))]);
    let (to, _) = store.advance(&step).unwrap();
    store.advance(&step).unwrap();
    assert_eq!((count(&store, "media"), count(&store, "media_link")), (2, 3));
    assert_eq!(store.media_waiting[&to], 1500);
    drop(store);
    let mut store = opened(&dir);
    assert_eq!((store.media_waiting[&to], store.destinations().unwrap()[0].media), (1500, 3));
    assert_eq!(store.media_bytes(to, &one.1.hash).unwrap().unwrap(), [1; 1000]);
    // What fails makes room for what was not tried yet.
    let first = store.next_media(to).unwrap().unwrap();
    store.media_postponed(&first, "busy").unwrap();
    assert_eq!(store.counts().unwrap().media, (3, Some("busy".into())));
    assert_eq!(uploads(&mut store, to), [(two.1.hash, 1), (one.1.hash, 2), (one.1.hash, 1)]);
    assert_eq!((store.media_waiting[&to], count(&store, "media")), (0, 0));
    assert_eq!(store.waiting_bytes(&hint("e-1", 1).destination).unwrap(), store.waiting[&to]);
}

#[test]
fn an_image_whose_bytes_were_let_go_is_linked_all_the_same() {
    let (_dir, mut store) = fresh();
    let (field, whole) = image(&[1; 1000]);
    let bare = (field, Media { bytes: Default::default(), ..whole.clone() });
    let (to, _) = store.advance(&step(vec![showing(1, 1, &[bare])])).unwrap();
    assert_eq!(store.media_bytes(to, &whole.hash).unwrap(), None);
    store.advance(&step(vec![showing(1, 2, &[(field, whole.clone())])])).unwrap();
    assert_eq!(
        (store.media_bytes(to, &whole.hash).unwrap().map(|b| b.len()), store.media_waiting[&to]),
        (Some(1000), 1000)
    );
    assert_eq!(uploads(&mut store, to).len(), 2);
}

#[test]
fn images_have_room_of_their_own_and_what_finds_none_is_counted() {
    let (_dir, mut store) = fresh();
    let large = |n: u8| image(&vec![n; 20 << 20]);
    let spans = (1..=4).map(|n| showing(1, n, &[large(n)])).collect();
    let (to, queued) = store.advance(&step(spans)).unwrap();
    assert_eq!((queued, count(&store, "media"), store.counts().unwrap().skipped["media_no_room"]), (4, 3, 1));
    assert!(store.media_waiting[&to] <= media::ROOM && store.waiting[&to] < 10_000);
    let link = store.next_media(to).unwrap().unwrap();
    store.media_settled(to, &link, Some("media_refused")).unwrap();
    assert_eq!(store.counts().unwrap().skipped["media_refused"], 1);
    store.advance(&step(vec![showing(1, 5, &[large(5)])])).unwrap();
    assert_eq!(count(&store, "media"), 3);
}
