use super::*;

#[test]
fn a_destination_is_an_address_with_a_key() {
    let (_dir, mut store) = fresh();
    let key = Destination { account: "pk-2".into(), ..server("one") };
    let hints = [server("one"), server("two"), key, server("one")]
        .into_iter()
        .zip(0..)
        .map(|(destination, n)| hint_to(destination, None, &n.to_string(), n));
    let ids = store.accept_one(&hints.collect::<Vec<_>>(), &[]).unwrap();
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
    let (id, _) = store.advance_one(&step(vec![span(1, 1, 9)])).unwrap();
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
        targets: vec![server(name).into()],
        project_dirs: dirs.iter().map(PathBuf::from).collect(),
        config_dir: Some(PathBuf::from("/claude").join(id)),
        ..hint(id, fired)
    };
    let old = SessionRow { hint: at("e-0", 0, "one", &["/old", "/a"]), ..session("s-0") };
    store.advance_one(&Advance { session: old, ..step(Vec::new()) }).unwrap();
    let events = [at("e-1", 1, "one", &["/b", "/a"]), at("e-2", 2, "two", &["/c"]), at("e-3", 3, "one", &["/d"])];
    store.accept_one(&events, &[]).unwrap();
    let dirs = |name: &str| store.project_dirs(&server(name)).unwrap();
    assert_eq!(dirs("one"), ["/d", "/b", "/a", "/old"].map(PathBuf::from));
    assert_eq!(dirs("two"), ["/c"].map(PathBuf::from));
    assert!(dirs("three").is_empty());
    let of_users = store.config_dirs(&server("one")).unwrap();
    assert_eq!(of_users, ["/claude/e-3", "/claude/e-1", "/claude/e-0"].map(PathBuf::from));
}

#[test]
fn what_was_stored_under_several_spellings_of_an_address_is_one_destination() {
    let (dir, mut store) = fresh();
    let spelled =
        |base_url: &str, key: &str| Destination { address: base_url.into(), account: key.into(), ..server("one") };
    let to = |destination: Destination, trace: u8, id: &str| {
        let mut step = step(vec![span(trace, 1, 0), span(trace, 2, 1)]);
        step.session.hint = hint_to(destination, None, id, 1);
        step
    };
    // As an older version compared them.
    let ways = ["https://one.example.org:443", "https://one.example.org", "https://ONE.example.org./"];
    let mut ids = Vec::new();
    for (trace, way) in (1..).zip(ways) {
        let (id, _) = store.advance_one(&to(spelled(way, "pk-1"), trace, way)).unwrap();
        ids.push(id);
        let rows = store.claim(id, 1, 1 << 20).unwrap();
        store.delivered(id, &rows, 0, 100 * i64::from(trace)).unwrap();
        store.trust(way, "pk-1", true, 5).unwrap();
    }
    let (other, _) = store.advance_one(&to(spelled("https://one.example.org:443", "pk-2"), 9, "other")).unwrap();
    assert_eq!((ids[0] != ids[1] && ids[1] != ids[2], store.destinations().unwrap().len()), (true, 4));
    drop(store);
    for _ in 0..2 {
        let mut store = opened(&dir);
        let rows = store.destinations().unwrap();
        let found: Vec<_> =
            rows.iter().map(|row| (row.id, row.destination.clone(), row.waiting, row.delivered)).collect();
        assert_eq!(
            found,
            [
                (ids[0], spelled("https://one.example.org", "pk-1"), 3, 3),
                (other, spelled("https://one.example.org", "pk-2"), 2, 0)
            ]
        );
        assert_eq!((rows[0].last_success_ms, rows[0].waiting_bytes > 0), (Some(300), true));
        assert_eq!(store.trusted().unwrap(), [("https://one.example.org".to_owned(), "pk-1".to_owned())]);
        assert_eq!(store.claim(ids[0], 9, 1 << 20).unwrap().len(), 3, "whole");
        // A span delivered under any spelling is not stored again.
        let (id, _) = store.advance_one(&to(spelled("https://one.example.org", "pk-1"), 3, "again")).unwrap();
        assert_eq!((id, store.claim(id, 9, 1 << 20).unwrap().len()), (ids[0], 3));
    }
}

#[test]
fn a_number_an_older_version_believed_wedges_nothing() {
    let (dir, mut store) = fresh();
    let (id, _) = store.advance_one(&step(vec![span(1, 1, 0), span(1, 2, 1)])).unwrap();
    store.db.execute("UPDATE destination SET rejected = 9223372036854775807, delivered = 5", []).unwrap();
    drop(store);
    let mut store = opened(&dir);
    let rows = store.claim(id, 9, 1 << 20).unwrap();
    store.delivered(id, &rows, u64::MAX, 7).unwrap();
    let row = store.destination(id).unwrap().unwrap();
    assert_eq!((row.waiting, row.delivered, row.rejected), (0, 7, 5 + 2));
}
