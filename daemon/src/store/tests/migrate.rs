use rusqlite_migration::Migrations;

use super::*;
use crate::store::schema::MIGRATIONS;

/// An event as versions before the seventh stored it: with one destination, in Langfuse's words.
const OLD_HINT: &str = r#"{"id":"e-1","fired_ns":18446744073709551615,"session_id":"s-1","transcript":"/home/dev/s-1.jsonl",
    "event":"Ended","project_dirs":["/home/dev/app"],
    "destination":{"kind":"langfuse","base_url":"https://one.example.org","public_key":"pk-1"},"chooser":"user",
    "options":{"semantics":"measured","environment":null,"release":null,"user_id":"me","tags":["a"],"metadata":{},
    "sample_rate":0.5},"debug":false}"#;

#[test]
fn what_each_earlier_version_left_waiting_is_delivered_once_with_the_same_ids() {
    for version in 1..MIGRATIONS.len() {
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
        // What waited waits, and what was found before is not new.
        assert_eq!(waiting(&mut store, 1), [(1, 2)]);
        let mut again = step(vec![span(1, 2, 9)]);
        again.session.hint = row.hint;
        assert_eq!(store.advance_one(&again).unwrap(), (1, 0), "version {version}");
        assert!(!store.is_anything_behind().unwrap());
    }
}
