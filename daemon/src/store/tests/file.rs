use super::*;
use crate::store::open::PAGE_BYTES;

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
        store.accept_one(&[hint("e-1", 1)], &[]).unwrap();
        drop(store);
        assert_eq!(opened(&dir).inbox().unwrap(), [hint("e-1", 1)]);
    }
}

#[test]
fn damage_within_a_database_of_ours_is_found_when_it_is_opened() {
    let (dir, mut store) = fresh();
    store.advance_one(&step((1..=200).map(|id| span(1, id, 9)).collect())).unwrap();
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
    for spans in [0, 40] {
        for id in ["s-1", "s-2", "s-3"] {
            let spans = (1..=spans).map(|id| span(1, id, 9)).collect();
            store.advance_one(&Advance { session: session(id), ..step(spans) }).unwrap();
        }
    }
    let destination = store.destinations().unwrap()[0].id;
    let rows = store.claim(destination, 20, usize::MAX).unwrap();
    store.delivered(destination, &rows, 0, 1).unwrap();
    store.accept_one(&[hint("e-9", 9)], &[]).unwrap();
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
            // The transcripts supply all spans again: undelivered ones must be queued, and waiting ones must be intact.
            for id in ["s-1", "s-2", "s-3"] {
                store
                    .advance_one(&Advance { session: session(id), ..step((1..=40).map(|id| span(1, id, 9)).collect()) })
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
        let last = bytes.len() - usize::try_from(PAGE_BYTES).unwrap();
        if cut_off {
            bytes.truncate(last);
        } else {
            bytes[last..].fill(0xee);
        }
        std::fs::write(&path, &bytes).unwrap();
        let Opened { mut store, damaged, again, .. } = Store::open(&path).unwrap();
        assert!(damaged.is_some() && again);
        let sessions = store.sessions(10).unwrap();
        assert_eq!(sessions.iter().map(|row| (row.cursor.offset, row.closed)).collect::<Vec<_>>(), [(0, 0); 3]);
        let inbox: Vec<String> = store.inbox().unwrap().into_iter().map(|hint| hint.id).collect();
        for id in ["e-9", "again-s-1", "again-s-2", "again-s-3"] {
            assert!(inbox.iter().any(|known| known == id), "{id} is not in {inbox:?}");
        }
        let (_, queued) = store.advance_one(&step((1..=40).map(|id| span(1, id, 9)).collect())).unwrap();
        assert!((20..40).contains(&queued), "{queued}: some of the delivered ones are known");
    }
}

#[test]
fn a_span_whose_bytes_changed_on_disk_is_made_again() {
    let (dir, mut store) = fresh();
    let emitted = Advance { agents: vec![("a-1".into(), 9)], ..step((1..=3).map(|id| span(1, id, 9)).collect()) };
    let (_, queued) = store.advance_one(&emitted).unwrap();
    assert_eq!((queued, store.agents("s-1").unwrap().len()), (3, 1));
    store
        .db
        .execute("UPDATE observation SET body = replace(body, '1/2', '1/3') WHERE span_id = ?", [[2u8; 8]])
        .unwrap();
    drop(store);
    let Opened { mut store, damaged, again, .. } = Store::open(&dir.path().join("state.db")).unwrap();
    assert_eq!((damaged, again, store.inbox().unwrap().len()), (None, true, 1));
    assert_eq!(store.agents("s-1").unwrap(), [].into(), "subagents are read again, too");
    let (destination, queued) = store.advance_one(&step((1..=3).map(|id| span(1, id, 9)).collect())).unwrap();
    assert_eq!((queued, waiting(&mut store, destination)), (1, vec![(1, 1), (1, 3), (1, 2)]));
}

#[test]
fn damage_does_not_bring_back_what_no_server_takes() {
    for salvaged in [false, true] {
        let (dir, mut store) = fresh();
        let path = dir.path().join("state.db");
        let both = || step(vec![span(1, 1, 9), span(2, 2, 9)]);
        let (destination, _) = store.advance_one(&both()).unwrap();
        let refused = store.claim(destination, 1, usize::MAX).unwrap().remove(0);
        store.bury(destination, refused.seq, "400", 1).unwrap();
        store.db.execute("UPDATE observation SET body = replace(body, '2/2', '2/3')", []).unwrap();
        if salvaged {
            // The last page belongs to an unimportant table.
            store.db.execute_batch("CREATE TABLE lost (id INTEGER); INSERT INTO lost VALUES (1);").unwrap();
        }
        drop(store);
        if salvaged {
            let mut bytes = std::fs::read(&path).unwrap();
            let last = bytes.len() - usize::try_from(PAGE_BYTES).unwrap();
            bytes[last..].fill(0xee);
            std::fs::write(&path, &bytes).unwrap();
        }
        let Opened { mut store, damaged, again, .. } = Store::open(&path).unwrap();
        assert_eq!((damaged.is_some(), again, store.dead_letter_count().unwrap()), (salvaged, true, 1));
        store.advance_one(&both()).unwrap();
        assert_eq!(waiting(&mut store, destination), [(2, 2)], "salvaged: {salvaged}");
    }
}

#[test]
fn a_database_of_version_1_is_brought_up_to_date_and_a_copy_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let old = Connection::open(&path).unwrap();
    old.execute_batch(schema::SCHEMA).unwrap();
    let body = as_spans_were_stored(1, 2, 9);
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
fn a_database_of_version_2_is_brought_up_to_date_with_all_that_waits_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let old = Connection::open(&path).unwrap();
    old.execute_batch(&[schema::SCHEMA, schema::SCHEMA_2].concat()).unwrap();
    let insert = |table: &str, values: &str, params: &[&dyn rusqlite::ToSql]| {
        old.execute(&format!("INSERT INTO {table} VALUES ({values})"), params).unwrap()
    };
    let body = as_spans_were_stored(1, 2, 9);
    insert("destination", "1, 'langfuse', 'https://one.example.org', 'pk-1', 'ok', 0, NULL, NULL, NULL, 5, 0", &[]);
    insert("exported", "1, ?1, ?2, 0", &[&[1u8; 16], &[2u8; 8]]);
    insert("outbox", "1, 1, ?1, ?2, ?3, 7", &[&[2u8; 8], &body, &checksum(1, &[2; 8], body.as_bytes())]);
    insert("media", "1, ?1, 'image/png', 3, x'010203'", &[&[7u8; 32]]);
    insert("media_link", "1, 1, ?1, ?2, ?3, 'input', 7, 0, NULL", &[&[7u8; 32], &[1u8; 16], &[2u8; 8]]);
    insert("inbox", "1, 'e-1', ?1", &[&json(&hint("e-1", 1))]);
    insert(
        "session",
        "'s-1', '/home/dev/s-1.jsonl', 1, 2, 100, 1, 2, 1, ?1, 5, 77, 1, 's-0', 'a name'",
        &[&json(&hint("e-0", 1))],
    );
    insert("launch", "'s-1', 't-1', 'a-1', 'u-1', 1, 0", &[]);
    insert("agent", "'s-1', 'a-2', 9", &[]);
    insert("trusted", "'https://one.example.org', 3", &[]);
    old.pragma_update(None, "user_version", 2).unwrap();
    drop(old);
    let mut store = opened(&dir);
    assert_eq!((waiting(&mut store, 1), store.inbox().unwrap()), (vec![(1, 2)], vec![hint("e-1", 1)]));
    let row = store.session("s-1").unwrap().unwrap();
    let cursor = Position { identity: Identity { dev: 1, ino: 2 }, offset: 100, marker: Some(77) };
    assert_eq!((row.cursor, row.unsettled, row.forked_from.as_deref()), (cursor, 1, Some("s-0")));
    assert_eq!((store.launches("s-1").unwrap().len(), store.agents("s-1").unwrap()["a-2"]), (1, 9));
    assert_eq!(store.media_bytes(1, &[7; 32]).unwrap(), Some(vec![1, 2, 3]));
    assert!(store.trusts(&server("one")).unwrap() && store.seeks_import().unwrap());
    assert!(store.paused().unwrap().is_empty() && store.unknown_kinds().unwrap().is_empty());
    assert!(dir.path().join("state.v2.bak").exists());
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
    let span = Observation { trace_id: trace, span_id: id, ..span(1, 1, 0) };
    assert_eq!(span_name(&waits(span)), format!("{}/{}", "0a".repeat(16), "f0".repeat(8)));
}
