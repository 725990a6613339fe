use rusqlite_migration::Migrations;

use super::*;
use crate::store::{hidden, schema::MIGRATIONS};
use cc_core::telemetry::Call;

fn call(id: &str, output: u64) -> Call {
    let mut call = Call { request_id: id.into(), session_id: "s-1".into(), end: 7, ..Call::default() };
    (call.model, call.usage.output, call.cost) = ("m".into(), output, Some(0.5));
    call
}

fn with(calls: &[(u8, Call)]) -> Advance {
    let hidden = calls.iter().map(|(trace, call)| ([*trace; 16], call.clone())).collect();
    Advance { hidden, ..step(vec![]) }
}

#[test]
fn calls_without_a_line_are_kept_once_and_read_by_others_while_no_daemon_has_the_database() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let mut store = opened(&dir);
    let both = [(1, call("one", 3)), (2, call("two", 4))];
    store.advance(&with(&both)).unwrap();
    store.advance(&with(&both)).unwrap();
    let calls = both.map(|(_, call)| call);
    assert_eq!(store.hidden_calls_of("s-1").unwrap(), calls);
    assert_eq!(store.hidden_calls_of("s-2").unwrap(), []);
    let found = store.hidden_calls(None, "").unwrap();
    assert_eq!(store.hidden_calls(None, &found.stamp).unwrap().calls, None);
    assert!(hidden::read(&path, None, "").is_err(), "the daemon has it for itself");
    drop(store);
    assert_eq!(hidden::read(&path, None, "").unwrap(), found);
    assert_eq!(hidden::read(&path, Some("s-2"), "").unwrap().calls, Some(vec![]));
    // The daemon opens it as before, and another call is another stamp.
    let mut store = opened(&dir);
    store.forget("s-1", &[[2; 16]]).unwrap();
    store.advance(&with(&[(1, call("three", 5)), (2, call("two", 4))])).unwrap();
    let now = store.hidden_calls(None, &found.stamp).unwrap();
    let ids = now.calls.unwrap().into_iter().map(|call| call.request_id);
    assert_eq!(ids.collect::<Vec<_>>(), ["one", "three"], "what was forgotten does not come back");
    assert_ne!(now.stamp, found.stamp, "though there are two again");
}

#[test]
fn what_a_killed_daemon_left_in_its_log_is_read_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = opened(&dir);
    store.advance(&with(&[(1, call("one", 3))])).unwrap();
    let killed = tempfile::tempdir().unwrap();
    for name in ["state.db", "state.db-wal"] {
        std::fs::copy(dir.path().join(name), killed.path().join(name)).unwrap();
    }
    let found = hidden::read(&killed.path().join("state.db"), None, "").unwrap();
    assert_eq!(found.calls, Some(vec![call("one", 3)]));
    assert_eq!(opened(&killed).hidden_calls_of("s-1").unwrap(), [call("one", 3)]);
}

#[test]
fn the_oldest_make_room_and_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = opened(&dir);
    store.advance(&with(&[(1, call("old", 1)), (1, call("new", 2))])).unwrap();
    store.db.execute("UPDATE hidden_call SET id = 20001 WHERE request_id = 'new'", []).unwrap();
    store.db.execute("UPDATE sqlite_sequence SET seq = 20001", []).unwrap();
    store.advance(&with(&[(1, call("newest", 3))])).unwrap();
    let ids = store.hidden_calls_of("s-1").unwrap().into_iter().map(|call| call.request_id);
    assert_eq!(ids.collect::<Vec<_>>(), ["new", "newest"]);
    assert_eq!(store.counts().unwrap().skipped["hidden_call_evicted"], 1);
}

#[test]
fn those_of_a_paused_project_are_kept_for_its_balance() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = opened(&dir);
    store.pause(None, true).unwrap();
    store.advance(&Advance { spans: vec![outgoing(span(1, 1, 0))], ..with(&[(1, call("one", 3))]) }).unwrap();
    assert_eq!(store.hidden_calls_of("s-1").unwrap().len(), 1);
}

/// They came with the twelfth version.
#[test]
fn a_database_of_the_eleventh_version_has_none_and_takes_some() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let mut old = Connection::open(&path).unwrap();
    Migrations::from_slice(MIGRATIONS).to_version(&mut old, 11).unwrap();
    drop(old);
    assert!(hidden::read(&path, None, "").is_err());
    let mut store = opened(&dir);
    store.advance(&with(&[(1, call("one", 3))])).unwrap();
    assert_eq!(store.hidden_calls_of("s-1").unwrap().len(), 1);
    assert!(dir.path().join("state.v11.bak").exists());
}
