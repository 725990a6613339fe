use super::*;
use cc_core::status::Fate;

// ---- spans enter the outbox once ----

#[test]
fn the_same_spans_enter_once_however_often_they_are_found() {
    let (_dir, mut store) = fresh();
    let found = step(vec![span(1, 1, 0), span(1, 2, 1), span(1, 3, 2)]);
    let (destination, queued) = store.advance_one(&found).unwrap();
    assert_eq!(queued, 3);
    assert_eq!(store.advance_one(&found).unwrap(), (destination, 0));
    let rows = store.claim(destination, 10, usize::MAX).unwrap();
    assert_eq!(rows.len(), 3);
    store.delivered(destination, &rows, 0, 20).unwrap();
    assert_eq!(store.advance_one(&found).unwrap(), (destination, 0), "not even when they are gone");
    assert_eq!(count(&store, "outbox"), 0);
}

#[test]
fn a_root_enters_again_only_with_news_of_its_own_trace_and_in_itself() {
    let (_dir, mut store) = fresh();
    let root = |name: &str| Observation { name: name.into(), ..span(1, 1, 0) };
    for (spans, expect) in [
        (vec![root("a"), span(1, 2, 1)], 2),
        (vec![root("a")], 0),
        (vec![root("b"), span(1, 2, 1)], 0),
        (vec![root("b"), span(1, 3, 1)], 2),
        (vec![root("c"), span(2, 9, 8)], 1),
        (vec![span(1, 4, 1)], 1),
        (vec![root("c"), span(1, 4, 1)], 0),
        // It is unchanged since it was last queued.
        (vec![root("b"), span(1, 5, 1)], 1),
        (vec![root("a"), span(1, 6, 1)], 2),
        (vec![root("a"), span(1, 7, 1)], 1),
    ] {
        let named = format!("{:?}", spans.iter().map(|span| &span.name).collect::<Vec<_>>());
        assert_eq!(store.advance_one(&step(spans)).unwrap().1, expect, "{named}");
    }
}

#[test]
fn a_root_that_was_lost_on_its_way_enters_again() {
    let (dir, mut store) = fresh();
    let root = |name: &str| Observation { name: name.into(), ..span(1, 1, 0) };
    let (destination, _) = store.advance_one(&step(vec![root("a"), span(1, 2, 1)])).unwrap();
    let rows = store.claim(destination, 9, usize::MAX).unwrap();
    store.delivered(destination, &rows, 0, 5).unwrap();
    assert_eq!(store.advance_one(&step(vec![root("b"), span(1, 3, 1)])).unwrap().1, 2);
    drop(store);
    let path = dir.path().join("state.db");
    rusqlite::Connection::open(&path).unwrap().execute("UPDATE observation SET body = 'x'", []).unwrap();
    let mut store = Store::open(&path).unwrap().store;
    assert_eq!(
        store.advance_one(&step(vec![root("b"), span(1, 2, 1), span(1, 3, 1)])).unwrap().1,
        2,
        "both that were lost"
    );
}

#[test]
fn a_call_found_again_in_another_trace_is_a_copy_with_all_that_belongs_to_it() {
    let (_dir, mut store) = fresh();
    let of = |call: u8, span: Observation| Observation {
        call: Some(Call::of("msg", Some(u64::from(call)), None, None)),
        ..span
    };
    let original = vec![span(1, 1, 0), of(7, span(1, 2, 1)), of(7, span(1, 3, 2))];
    let (destination, queued) = store.advance_one(&step(original.clone())).unwrap();
    assert_eq!(queued, 3);
    let copy = vec![span(2, 1, 0), of(7, span(2, 2, 1)), of(7, span(2, 3, 2))];
    assert_eq!(store.advance_one(&step(copy.clone())).unwrap().1, 0, "a turn of copies only");
    let half = [copy, vec![of(8, span(2, 4, 1))]].concat();
    assert_eq!(store.advance_one(&step(half)).unwrap().1, 2, "the new call and its root");
    assert_eq!(store.advance_one(&step(original)).unwrap().1, 0, "the original is still its own");
    assert_eq!(waiting(&mut store, destination), [(1, 2), (1, 3), (1, 1), (2, 4), (2, 1)]);
    assert_eq!(store.counts().unwrap().skipped["copied_call"], 4);
}

#[test]
fn launches_and_finished_subagents_come_back_and_sessions_left_in_the_middle_are_known() {
    let (_dir, mut store) = fresh();
    let launch = |tool: &str, agent: Option<&str>, returned| Launch {
        tool_id: tool.into(),
        id: tool.into(),
        message_id: Some("msg".into()),
        called: Some(9),
        wakes: false,
        agent_id: agent.map(Into::into),
        turn: ("p-1".into(), 3),
        returned,
    };
    let launches = vec![launch("t-1", None, false), launch("t-2", Some("a-2"), true)];
    let agents = vec![("a-2".to_owned(), 70)];
    store.advance_one(&Advance { launches: launches.clone(), agents, ..step(Vec::new()) }).unwrap();
    let done = SessionRow { open_turn: false, unsettled: 0, ..session("s-2") };
    store.advance_one(&Advance { session: done, ..step(Vec::new()) }).unwrap();
    assert_eq!(store.launches("s-1").unwrap(), launches);
    assert_eq!(store.agents("s-1").unwrap(), [("a-2".to_owned(), 70)].into());
    assert!(store.launches("s-2").unwrap().is_empty() && store.agents("s-2").unwrap().is_empty());
    let ids = |since| store.unsettled(since).unwrap();
    assert_eq!((ids(10), ids(11)), (vec!["s-1".to_owned()], vec![]));
    store.advance_one(&Advance { launches: vec![launch("t-1", Some("a-1"), true)], ..step(Vec::new()) }).unwrap();
    assert_eq!(store.launches("s-1").unwrap()[0], launch("t-1", Some("a-1"), true));
}

#[test]
fn the_same_span_goes_to_every_destination_once() {
    let (_dir, mut store) = fresh();
    let other = hint_to(server("two"), None, "e-2", 2);
    let to_other = Advance { session: SessionRow { hint: other, ..session("s-1") }, ..step(vec![span(1, 1, 0)]) };
    let (one, first) = store.advance_one(&step(vec![span(1, 1, 0)])).unwrap();
    let (two, second) = store.advance_one(&to_other).unwrap();
    assert_eq!((first, second, store.advance_one(&to_other).unwrap().1), (1, 1, 0));
    assert_ne!(one, two);
    assert_eq!((waiting(&mut store, one), waiting(&mut store, two)), (vec![(1, 1)], vec![(1, 1)]));
}

#[test]
fn a_span_is_known_by_trace_and_id_together() {
    let (_dir, mut store) = fresh();
    let (destination, queued) = store.advance_one(&step(vec![span(1, 5, 9), span(2, 5, 9), span(1, 6, 9)])).unwrap();
    assert_eq!((queued, waiting(&mut store, destination)), (3, vec![(1, 5), (2, 5), (1, 6)]));
}

// ---- spans leave the outbox ----

#[test]
fn a_claim_is_the_oldest_spans_within_its_limits() {
    let (_dir, mut store) = fresh();
    let (destination, _) = store.advance_one(&step((1..=5).map(|id| span(1, id, 9)).collect())).unwrap();
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
        let ids: Vec<_> = claimed.iter().map(|row| row.item.span_id()[0]).collect();
        assert_eq!(ids, (1..=expect).collect::<Vec<_>>(), "{rows} rows, {bytes} bytes");
    }
    assert!(store.claim(destination + 1, 10, usize::MAX).unwrap().is_empty());
}

#[test]
fn a_claimed_span_stays_until_it_is_delivered() {
    let (_dir, mut store) = fresh();
    let (destination, _) = store.advance_one(&step(vec![span(1, 1, 9), span(1, 2, 9)])).unwrap();
    let first = store.claim(destination, 1, usize::MAX).unwrap();
    assert_eq!(store.claim(destination, 1, usize::MAX).unwrap()[0].seq, first[0].seq);
    assert_eq!(first[0].item, waits(span(1, 1, 9)));
    store.delivered(destination, &first[..1], 2, 77).unwrap();
    assert_eq!(waiting(&mut store, destination), [(1, 2)]);
    let row = store.destinations().unwrap().remove(0);
    assert_eq!(
        (row.last_success_ms, row.waiting, row.delivered, row.rejected),
        (Some(77), 1, 1, 1),
        "no more than were sent"
    );
}

#[test]
fn spans_queued_later_do_not_take_the_number_of_one_that_waits() {
    let (_dir, mut store) = fresh();
    let (destination, _) = store.advance_one(&step(vec![span(1, 1, 9), span(1, 2, 9)])).unwrap();
    let rows = store.claim(destination, 2, usize::MAX).unwrap();
    store.delivered(destination, &rows[..1], 0, 1).unwrap();
    store.advance_one(&step(vec![span(1, 3, 9)])).unwrap();
    assert_eq!(waiting(&mut store, destination), [(1, 2), (1, 3)]);
}

#[test]
fn a_span_no_server_takes_leaves_visibly() {
    let (_dir, mut store) = fresh();
    let (destination, _) = store.advance_one(&step(vec![span(1, 1, 9), span(1, 0xab, 9)])).unwrap();
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
    assert_eq!(Item::parse(letter.2.as_bytes()).unwrap(), waits(span(1, 0xab, 9)));
    assert_eq!(store.counts().unwrap().dead_letters, 1);
    assert_eq!(store.advance_one(&step(vec![span(1, 0xab, 9)])).unwrap().1, 0, "and does not come back");
}

#[test]
fn a_span_that_was_cut_keeps_its_place() {
    let (_dir, mut store) = fresh();
    let (destination, _) = store.advance_one(&step(vec![span(1, 1, 9), span(1, 2, 9)])).unwrap();
    let row = store.claim(destination, 1, usize::MAX).unwrap().remove(0);
    let smaller = Row { item: waits(Observation { status: None, ..span(1, 1, 9) }), ..row };
    store.replace(destination, &smaller).unwrap();
    let rows = store.claim(destination, 2, usize::MAX).unwrap();
    assert_eq!((rows[0].seq, &rows[0].item, &rows[1].item), (smaller.seq, &smaller.item, &waits(span(1, 2, 9))));
    assert!(rows[0].bytes < rows[1].bytes);
}

#[test]
fn a_row_that_cannot_be_read_is_put_aside_and_the_rest_goes_out() {
    let (_dir, mut store) = fresh();
    let (destination, _) = store.advance_one(&step((1..=3).map(|id| span(1, id, 9)).collect())).unwrap();
    store.db.execute("UPDATE observation SET body = '{' WHERE span_id = ?", [[2u8; 8]]).unwrap();
    assert_eq!(waiting(&mut store, destination), [(1, 1), (1, 3)]);
    let counts = store.counts().unwrap();
    assert_eq!((counts.outbox, counts.dead_letters), (2, 1));
}

#[test]
fn a_row_of_a_later_form_is_put_aside_by_its_own_name_and_one_that_is_damaged_by_another() {
    let (_dir, mut store) = fresh();
    let (destination, _) = store.advance_one(&step((1..=5).map(|id| span(1, id, 9)).collect())).unwrap();
    let set = |id: u8, body: &str, sum: Option<i64>| {
        put(&store, destination, id, body, sum);
    };
    let whole = |id: u8, body: &str| set(id, body, Some(checksum(destination, &[id; 8], body.as_bytes())));
    whole(1, r#"{"facts":{},"observation":{"form":9}}"#);
    whole(2, r#"[9,"compact"]"#);
    set(3, r#"{"facts":{},"observation":{"form":9}}"#, Some(1));
    set(4, "{", None);
    assert_eq!(waiting(&mut store, destination), [(1, 5)]);
    let reasons: Vec<String> = store.dead_letters().unwrap().into_iter().map(|letter| letter.reason).collect();
    let is_later: Vec<bool> = reasons.iter().map(|reason| reason.contains("later version")).collect();
    assert_eq!(is_later, [true, true, false, false], "{reasons:?}");
    assert!(reasons[2..].iter().all(|reason| reason.contains("damaged")), "{reasons:?}");
    // The version that knows it sends it.
    assert_eq!(store.settle_dead_letters(None, cc_core::status::Fate::Retry, 1).unwrap().1, 4);
    assert_eq!(store.counts().unwrap().outbox, 5);
}

#[test]
fn the_bytes_that_wait_are_known_at_every_moment() {
    let (dir, mut store) = fresh();
    let stored = |store: &Store| -> u64 {
        let sum = "SELECT coalesce(sum(octet_length(coalesce(cut, body))), 0) FROM outbox JOIN observation ON id = seq";
        store.db.query_row(sum, [], |row| row.get::<_, i64>(0)).unwrap() as u64
    };
    let check = |store: &mut Store| {
        let waiting = store.waiting_bytes(&server("one")).unwrap();
        assert_eq!((waiting, store.waiting_bytes(&server("two")).unwrap()), (stored(store), 0));
        waiting
    };
    assert_eq!(check(&mut store), 0);
    let (destination, _) = store.advance_one(&step((1..=5).map(|id| span(1, id, 9)).collect())).unwrap();
    assert!(check(&mut store) > 0);
    store.advance_one(&step((1..=6).map(|id| span(1, id, 9)).collect())).unwrap();
    check(&mut store);
    let rows = store.claim(destination, 10, usize::MAX).unwrap();
    store.delivered(destination, &rows[..2], 0, 1).unwrap();
    check(&mut store);
    store.bury(destination, rows[2].seq, "HTTP 400", 1).unwrap();
    check(&mut store);
    let smaller = Row { item: waits(Observation { status: None, ..span(1, 4, 9) }), ..rows[3] };
    store.replace(destination, &smaller).unwrap();
    check(&mut store);
    store.settle_dead_letters(None, Fate::Retry, 1).unwrap();
    let before = check(&mut store);
    drop(store);
    assert_eq!(check(&mut opened(&dir)), before);
}

#[test]
fn a_dead_letter_is_sent_again_or_dropped_as_its_owner_says() {
    let (_dir, mut store) = fresh();
    let (destination, _) = store.advance_one(&step((1..=3).map(|id| span(1, id, 9)).collect())).unwrap();
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
fn a_change_that_fails_is_noted_until_one_succeeds() {
    let (_dir, store) = fresh();
    let handle = handle::Handle::new(store);
    let trouble = || handle.call(|store| Ok(store.trouble().map(|(why, _)| why.clone()))).unwrap();
    handle.call(|store| store.db.pragma_update(None, "max_page_count", 1)).unwrap();
    let big = hint(&"x".repeat(1 << 20), 1);
    assert!(handle.call(|store| store.accept_one(std::slice::from_ref(&big), &[])).is_err());
    assert!(trouble().is_some_and(|why| why.contains("full")), "{:?}", trouble());
    handle.call(|store| store.db.pragma_update(None, "max_page_count", 1 << 20)).unwrap();
    handle.call(|store| store.counts()).unwrap();
    assert!(trouble().is_some(), "reading proves nothing");
    handle.call(|store| store.accept_one(std::slice::from_ref(&big), &[])).unwrap();
    assert_eq!(trouble(), None);
}

#[test]
fn what_is_said_while_a_project_is_paused_is_told_nowhere() {
    for dir in [None, Some("/home/dev"), Some("/home/dev/app")] {
        let (_dir, mut store) = fresh();
        let dir = dir.map(std::path::Path::new);
        store.pause(dir, true).unwrap();
        let spans = vec![span(1, 1, 0), span(1, 2, 1)];
        let (to, queued) = store.advance_one(&step(spans.clone())).unwrap();
        assert_eq!((queued, waiting(&mut store, to)), (0, vec![]));
        store.pause(dir, false).unwrap();
        assert_eq!(store.paused().unwrap(), [""; 0].map(PathBuf::from));
        let (_, queued) = store.advance_one(&step([spans, vec![span(2, 1, 0)]].concat())).unwrap();
        assert_eq!((queued, waiting(&mut store, to)), (1, vec![(2, 1)]));
        let mut elsewhere = step(vec![span(1, 1, 0), span(1, 3, 1), span(2, 1, 0)]);
        elsewhere.session.hint.targets = vec![server("two").into()];
        assert_eq!(store.advance_one(&elsewhere).unwrap().1, 1, "nothing more for another server");
    }
    let (_dir, mut store) = fresh();
    store.pause(Some("/home/dev/ap".as_ref()), true).unwrap();
    assert_eq!(store.advance_one(&step(vec![span(1, 1, 0)])).unwrap().1, 1, "another project");
    let real = tempfile::tempdir().unwrap();
    let link = real.path().with_extension("link");
    std::os::unix::fs::symlink(real.path(), &link).unwrap();
    assert!(!store.is_paused(std::slice::from_ref(&link)).unwrap());
    store.pause(Some(&real.path().canonicalize().unwrap()), true).unwrap();
    assert!(store.is_paused(std::slice::from_ref(&link)).unwrap(), "by a link");
    std::fs::remove_file(link).unwrap();
}

#[test]
fn what_is_forgotten_waits_no_more_and_does_not_come_again() {
    let (_dir, mut store) = fresh();
    let spans = vec![span(1, 1, 0), span(1, 2, 1), span(1, 3, 1), span(2, 4, 0)];
    let (to, _) = store.advance_one(&step(spans.clone())).unwrap();
    let row = store.claim(to, 1, usize::MAX).unwrap().remove(0);
    store.bury(to, row.seq, "no", 1).unwrap();
    let link = Link { trace_id: [1; 16], span_id: [1; 8] };
    store.advance_one(&step(vec![Observation { links: vec![link], ..span(3, 5, 0) }])).unwrap();
    let linked = store.claim(to, 9, usize::MAX).unwrap().pop().unwrap();
    store.bury(to, linked.seq, "no", 1).unwrap();
    assert_eq!(store.forget("s-1", &[[1; 16]]).unwrap(), 2);
    let letters: Vec<_> = store.dead_letters().unwrap().into_iter().map(|letter| letter.span_id).collect();
    assert_eq!(
        (waiting(&mut store, to), letters),
        (vec![(2, 4)], vec!["05".repeat(8)]),
        "a link is not the trace itself"
    );
    assert_eq!(store.waiting_bytes(&server("one")).unwrap(), store.claim(to, 9, usize::MAX).unwrap()[0].bytes as u64);
    assert_eq!(store.session("s-1").unwrap().unwrap().title, None);
    assert_eq!(store.advance_one(&step(spans)).unwrap().1, 0);
    assert_eq!(store.advance_one(&step(vec![span(1, 9, 1)])).unwrap().1, 0, "what was not emitted yet");
}

#[test]
fn kinds_of_lines_nobody_knows_are_told_apart_by_version_up_to_a_bound() {
    let (_dir, mut store) = fresh();
    let met = |kind: &str, lines| ((kind.to_owned(), "2.1.400".to_owned()), lines);
    let unknown = |of| UnknownKind { kind: of, version: "2.1.400".into(), lines: 5 };
    for lines in [2, 3] {
        store.advance_one(&Advance { unknown: [met("brand-new", lines)].into(), ..step(vec![]) }).unwrap();
    }
    assert_eq!(store.unknown_kinds().unwrap(), [unknown("brand-new".into())]);
    let many = (0..1000).map(|n| met(&format!("kind-{n}"), 1)).collect();
    store.advance_one(&Advance { unknown: many, ..step(vec![]) }).unwrap();
    store.advance_one(&Advance { unknown: [met("brand-new", 1)].into(), ..step(vec![]) }).unwrap();
    let met = store.unknown_kinds().unwrap();
    assert_eq!((met.len(), met[0].lines), (200, 6));
}

#[test]
fn what_was_said_in_a_pause_is_told_nowhere_though_it_is_read_when_that_is_over() {
    let (_dir, mut store) = fresh();
    const SECOND: u64 = 1_000_000_000;
    // In milliseconds, like in transcripts.
    let now = || std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64 * 1_000_000;
    let at = |start_ns: u64, span: Observation| Observation { start: start_ns, end: start_ns, ..span };
    store.pause(Some("/home/dev/app".as_ref()), true).unwrap();
    let meanwhile = now();
    store.pause(Some("/home/dev/app".as_ref()), false).unwrap();
    let later = now() + SECOND;
    let spans = [(1, meanwhile - SECOND), (2, meanwhile), (3, later)];
    let turns = spans.iter().flat_map(|(trace, time)| [at(*time, span(*trace, 1, 0)), at(later, span(*trace, 2, 1))]);
    let destination = store.advance_one(&step(turns.collect())).unwrap().0;
    let queued: std::collections::BTreeSet<_> =
        waiting(&mut store, destination).into_iter().map(|(trace, _)| trace).collect();
    assert_eq!(queued, [1, 3].into());
    // Another project has a turn at the same time.
    let mut other = step(vec![at(meanwhile, span(4, 1, 0))]);
    other.session.hint.project_dirs = vec!["/home/dev/apple".into()];
    store.advance_one(&other).unwrap();
    assert!(waiting(&mut store, destination).contains(&(4, 1)));
}
