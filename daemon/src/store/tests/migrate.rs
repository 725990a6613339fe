use rusqlite_migration::Migrations;

use super::*;
use crate::store::schema::MIGRATIONS;
use cc_core::delivery::item;

/// The first version in which the outbox refers to observations.
const OBSERVATIONS: usize = 8;

/// An event as stored before version 7: with one destination, in Langfuse's terms.
const OLD_HINT: &str = r#"{"id":"e-1","fired_ns":18446744073709551615,"session_id":"s-1","transcript":"/home/dev/s-1.jsonl",
    "event":"Ended","project_dirs":["/home/dev/app"],
    "destination":{"kind":"langfuse","base_url":"https://one.example.org","public_key":"pk-1"},"chooser":"user",
    "options":{"semantics":"measured","environment":null,"release":null,"user_id":"me","tags":["a"],"metadata":{},
    "sample_rate":0.5},"debug":false}"#;

#[test]
fn what_each_earlier_version_left_waiting_is_delivered_once_with_the_same_ids() {
    for version in 1..OBSERVATIONS {
        let dir = tempfile::tempdir().unwrap();
        let mut old = Connection::open(dir.path().join("state.db")).unwrap();
        Migrations::from_slice(MIGRATIONS).to_version(&mut old, version).unwrap();
        let insert = |sql: &str, params: &[&dyn rusqlite::ToSql]| old.execute(sql, params).unwrap();
        insert(
            "INSERT INTO destination (id, kind, base_url, public_key) VALUES (1, 'langfuse', 'https://one.example.org', 'pk-1')",
            &[],
        );
        insert("INSERT INTO inbox (id, hint) VALUES ('e-1', ?)", &[&OLD_HINT]);
        insert(
            "INSERT INTO session (session_id, transcript, dev, ino, cursor, closed, turns, open_turn, hint, updated_ms)
             VALUES ('s-1', '/home/dev/s-1.jsonl', 1, 2, 100, 1, 2, 0, ?, 5)",
            &[&OLD_HINT],
        );
        insert("INSERT INTO exported (destination, trace_id, span_id) VALUES (1, ?, ?)", &[&[1u8; 16], &[2u8; 8]]);
        insert(
            "INSERT INTO outbox (destination, span_id, body) VALUES (1, ?, ?)",
            &[&[2u8; 8], &as_spans_were_stored(1, 2, 9)],
        );
        drop(old);
        let mut store = opened(&dir);
        assert!(dir.path().join(format!("state.v{version}.bak")).exists());
        let row = store.session("s-1").unwrap().unwrap_or_else(|| panic!("version {version}"));
        assert_eq!((row.cursor.offset, row.closed), (100, 1));
        for hint in [&row.hint, &store.inbox().unwrap()[0]] {
            assert_eq!(hint.destinations().collect::<Vec<_>>(), [&server("one")], "version {version}");
            assert_eq!(hint.targets[0].chooser, Some(cc_core::consent::Chooser::User));
            assert_eq!((hint.fired_ns, hint.options.sample_rate), (u64::MAX, Some(0.5)));
        }
        // Waiting spans still wait, and known ones are not new.
        assert_eq!(waiting(&mut store, 1), [(1, 2)]);
        let mut again = step(vec![span(1, 2, 9)]);
        again.session.hint = row.hint;
        assert_eq!(store.advance_one(&again).unwrap(), (1, 0), "version {version}");
        assert!(!store.is_anything_behind().unwrap());
    }
}

/// Several destinations with their own queues, as each version could leave them.
#[test]
fn each_destination_gets_what_waited_for_it_in_its_order() {
    for version in 1..OBSERVATIONS {
        let dir = tempfile::tempdir().unwrap();
        let mut old = Connection::open(dir.path().join("state.db")).unwrap();
        Migrations::from_slice(MIGRATIONS).to_version(&mut old, version).unwrap();
        for (id, name) in [(1, "one"), (2, "two")] {
            let to = server(name);
            old.execute(
                "INSERT INTO destination (id, kind, base_url, public_key) VALUES (?, 'langfuse', ?, 'pk-1')",
                params![id, to.address],
            )
            .unwrap();
        }
        let root = |end: u64| item::body("{}", &Observation { end, ..span(3, 1, 0) });
        let mut expect: HashMap<DestinationId, Vec<(i64, String)>> = HashMap::new();
        // The second destination was behind, and reads in another order than the first.
        for (seq, to, id) in [(3, 1, 1), (4, 1, 2), (7, 2, 2), (8, 1, 3), (9, 2, 1), (12, 2, 3)] {
            let body = if id == 3 { root(2) } else { as_spans_were_stored(3, id + 1, 1) };
            let span_id = if id == 3 { [1u8; 8] } else { [id + 1; 8] };
            old.execute(
                "INSERT INTO outbox (seq, destination, span_id, body) VALUES (?, ?, ?, ?)",
                params![seq, to, span_id, body],
            )
            .unwrap();
            if version > 1 {
                old.execute(
                    "UPDATE outbox SET checksum = ?, queued_ms = ? WHERE seq = ?",
                    params![checksum(to, &span_id, body.as_bytes()), 100 + seq, seq],
                )
                .unwrap();
            }
            old.execute(
                "INSERT INTO exported (destination, trace_id, span_id) VALUES (?, ?, ?)",
                params![to, [3u8; 16], span_id],
            )
            .unwrap();
            expect.entry(to).or_default().push((seq, body));
        }
        old.execute("INSERT INTO dead_letter VALUES (1, 2, '0505050505050505', '400', ?, 5)", [root(1)]).unwrap();
        drop(old);
        let mut store = opened(&dir);
        for (to, expect) in &expect {
            let rows = store.claim(*to, 9, usize::MAX).unwrap();
            let found: Vec<_> = rows.iter().map(|row| (row.seq, row.item.body())).collect();
            assert_eq!(
                found.iter().map(|(seq, _)| seq).collect::<Vec<_>>(),
                expect.iter().map(|(seq, _)| seq).collect::<Vec<_>>(),
                "version {version}"
            );
            for ((_, found), (_, stored)) in found.iter().zip(expect) {
                assert_eq!(Item::parse(found.as_bytes()).unwrap(), Item::parse(stored.as_bytes()).unwrap());
            }
        }
        let rows = store.destinations().unwrap();
        let oldest = |at: i64| Some(if version > 1 { at } else { 0 });
        assert_eq!(rows.iter().map(|row| row.waiting).collect::<Vec<_>>(), [3, 3]);
        assert_eq!(rows.iter().map(|row| row.oldest_ms).collect::<Vec<_>>(), [oldest(103), oldest(107)]);
        assert_eq!(store.dead_letter_count().unwrap(), 1);
        // A grown root replaces the waiting one, and new numbers come after all others.
        let mut grown = step(vec![Observation { end: 9, ..span(3, 1, 0) }, span(3, 7, 1)]);
        grown.session.hint.targets = vec![server("one").into(), server("two").into()];
        store.advance(&grown).unwrap();
        for to in [1, 2] {
            let rows = store.claim(to, 9, usize::MAX).unwrap();
            let roots: Vec<_> = rows.iter().filter(|row| row.item.span_id() == [1; 8]).map(|row| row.seq).collect();
            assert_eq!((rows.len(), roots.len(), roots[0] > 12), (4, 1, true), "version {version}");
            store.delivered(to, &rows, 0, 1).unwrap();
        }
        assert_eq!((count(&store, "observation"), count(&store, "outbox")), (0, 0));
    }
}

/// Delivered spans were recorded with each span only.
#[test]
fn what_had_arrived_by_the_eighth_version_has_and_what_waited_waits() {
    let dir = tempfile::tempdir().unwrap();
    let mut old = Connection::open(dir.path().join("state.db")).unwrap();
    Migrations::from_slice(MIGRATIONS).to_version(&mut old, OBSERVATIONS).unwrap();
    let to = server("one");
    let insert = "INSERT INTO destination (id, kind, base_url, public_key) VALUES (1, 'langfuse', ?, ?)";
    old.execute(insert, [&to.address, &to.account]).unwrap();
    for (seq, id, delivered) in [(5, 2, true), (6, 3, false), (7, 4, false)] {
        let (body, span_id) = (item::body("{}", &span(1, id, 1)), [id; 8]);
        let exported = "INSERT INTO exported (destination, trace_id, span_id, delivered, observation)
                        VALUES (1, ?, ?, ?, ?)";
        old.execute(exported, params![[1u8; 16], span_id, delivered, seq]).unwrap();
        // The second is a dead letter.
        if id == 4 {
            old.execute("INSERT INTO observation VALUES (?, ?, ?, ?, 9)", params![seq, [1u8; 16], span_id, body])
                .unwrap();
            let outbox = "INSERT INTO outbox (destination, seq, checksum) VALUES (1, ?, ?)";
            old.execute(outbox, params![seq, checksum(1, &span_id, body.as_bytes())]).unwrap();
        }
    }
    drop(old);
    let mut store = opened(&dir);
    let arrived = |store: &Store| {
        let has_arrived = crate::store::observations::HAS_ARRIVED;
        let sql = format!("SELECT group_concat(hex(substr(span_id, 1, 1))) FROM exported WHERE {has_arrived}");
        store.db.query_row(&sql, [], |row| row.get::<_, String>(0)).unwrap()
    };
    assert_eq!(arrived(&store), "02");
    let rows = store.claim(1, 9, usize::MAX).unwrap();
    assert_eq!(rows.iter().map(|row| row.seq).collect::<Vec<_>>(), [7]);
    store.delivered(1, &rows, 0, 1).unwrap();
    assert_eq!(arrived(&store), "02,04");
}

/// Of copies of calls: what each is known by is shorter since the tenth version.
#[test]
fn a_call_that_an_earlier_version_sent_is_known_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let mut old = Connection::open(dir.path().join("state.db")).unwrap();
    Migrations::from_slice(MIGRATIONS).to_version(&mut old, 9).unwrap();
    let call = Call::of("msg_1", Some(7), Some("req_1"), None);
    let calls: Vec<_> = call.proofs().copied().collect();
    assert_eq!(calls.len(), 2);
    old.execute(
        "INSERT INTO destination (id, kind, base_url, public_key) VALUES (1, 'langfuse', 'https://one.example.org', 'pk-1')",
        [],
    )
    .unwrap();
    for id in &calls {
        old.execute("INSERT INTO call (destination, id, trace_id) VALUES (1, ?, ?)", params![id, [1u8; 16]]).unwrap();
    }
    drop(old);
    let mut store = opened(&dir);
    let of = |trace: u8, id: u8| Observation { call: Some(call), ..span(trace, id, 9) };
    let (_, copied) = store.advance_one(&step(vec![of(2, 2)])).unwrap();
    let (_, own) = store.advance_one(&step(vec![of(1, 1)])).unwrap();
    assert_eq!((copied, own), (0, 1), "in another trace it is a copy, in its own it is not");
}

/// Scores came with the eleventh version.
#[test]
fn a_database_of_the_tenth_version_is_copied_and_takes_scores_of_turns_that_it_knows() {
    let dir = tempfile::tempdir().unwrap();
    let mut old = Connection::open(dir.path().join("state.db")).unwrap();
    Migrations::from_slice(MIGRATIONS).to_version(&mut old, 10).unwrap();
    let to = server("one");
    let insert = "INSERT INTO destination (id, kind, base_url, public_key, arrived) VALUES (1, 'langfuse', ?, ?, 5)";
    old.execute(insert, [&to.address, &to.account]).unwrap();
    let (waits, root) = (item::body("{}", &span(1, 2, 1)), [1u8; 8]);
    let exported = "INSERT INTO exported (destination, trace_id, span_id, observation) VALUES (1, ?, ?, ?)";
    for (id, seq) in [(root, 5), ([2u8; 8], 6)] {
        old.execute(exported, params![[1u8; 16], id, seq]).unwrap();
    }
    old.execute("INSERT INTO observation VALUES (6, ?, ?, ?, 9)", params![[1u8; 16], [2u8; 8], waits]).unwrap();
    let outbox = "INSERT INTO outbox (destination, seq, checksum) VALUES (1, 6, ?)";
    old.execute(outbox, [checksum(1, &[2; 8], waits.as_bytes())]).unwrap();
    old.execute("INSERT INTO dead_letter VALUES (1, 1, '0505050505050505', '400', '{}', 5)", []).unwrap();
    drop(old);
    let mut store = opened(&dir);
    let copy = Connection::open(dir.path().join("state.v10.bak")).unwrap();
    let version = |db: &Connection| db.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!((version(&copy), version(&store.db)), (10, MIGRATIONS.len() as i64));
    assert_eq!(waiting(&mut store, 1), [(1, 2)]);
    assert_eq!((store.dead_letter_count().unwrap(), store.next_scores(1, 9).unwrap().len()), (1, 0));
    // What arrived before the change counts as known.
    let score = scores::score("outcome", cc_core::score::Value::Category("completed".into()));
    store.advance(&scores::scored(cc_core::score::Due::WhereKnown, vec![score.clone()], vec![])).unwrap();
    let rows = store.next_scores(1, 9).unwrap();
    assert_eq!(rows.into_iter().map(|row| row.score).collect::<Vec<_>>(), [score]);
}

/// How long the daemon is away after an upgrade. `CC_LANGFUSE_LONG=1 cargo test -p daemon --lib -- --nocapture large_database` measures
/// what `docs/upgrade.md` says.
#[test]
#[allow(clippy::print_stderr, reason = "it reports a measurement")]
fn a_large_database_of_each_form_is_migrated_whole() {
    let spans: u64 = if std::env::var_os("CC_LANGFUSE_LONG").is_some() { 100_000 } else { 1000 };
    for version in [1, OBSERVATIONS - 1, MIGRATIONS.len() - 1] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        let mut old = Connection::open(&path).unwrap();
        Migrations::from_slice(MIGRATIONS).to_version(&mut old, version).unwrap();
        let tx = old.transaction().unwrap();
        let destination = "INSERT INTO destination (id, kind, base_url, public_key) VALUES (1, 'langfuse', 'https://one.example.org', 'pk-1')";
        tx.execute(destination, []).unwrap();
        for number in 1..=spans {
            let (trace, id) = ((number / 8).to_be_bytes().repeat(2), number.to_be_bytes());
            let exported = "INSERT INTO exported (destination, trace_id, span_id) VALUES (1, ?, ?)";
            tx.execute(exported, params![trace, id]).unwrap();
            let text = "text of a conversation, ".repeat(60);
            if version < OBSERVATIONS {
                let (trace, id) = (hex(&trace), hex(&id));
                let body = format!(
                    r#"{{"trace_id":"{trace}","span_id":"{id}","parent_id":"{}","name":"n","start_ns":1,"end_ns":2,"attributes":[["k","{text}"]]}}"#,
                    hex(&[9; 8])
                );
                let outbox = "INSERT INTO outbox (destination, span_id, body) VALUES (1, ?, ?)";
                tx.execute(outbox, params![number.to_be_bytes(), body]).unwrap();
            } else {
                let observation = Observation {
                    trace_id: trace.clone().try_into().unwrap(),
                    span_id: id,
                    status: Some(text),
                    ..span(1, 1, 9)
                };
                let body = item::body("{}", &observation);
                let insert = "INSERT INTO observation VALUES (?, ?, ?, ?, 9)";
                tx.execute(insert, params![number as i64, trace, id, body]).unwrap();
                let outbox = "INSERT INTO outbox (destination, seq, checksum) VALUES (1, ?, ?)";
                tx.execute(outbox, params![number as i64, checksum(1, &id, body.as_bytes())]).unwrap();
            }
        }
        tx.commit().unwrap();
        drop(old);
        let bytes = std::fs::metadata(&path).unwrap().len();
        let started = std::time::Instant::now();
        let store = opened(&dir);
        let took = started.elapsed();
        assert_eq!(store.destinations().unwrap()[0].waiting, spans, "version {version}");
        eprintln!("version {version}: {spans} waiting observations, {} MiB, migrated in {took:.1?}", bytes >> 20);
    }
}
