use super::*;

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
        config_dir: Some(PathBuf::from("/claude").join(id)),
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
    let of_users = store.config_dirs(&server("one")).unwrap();
    assert_eq!(of_users, ["/claude/e-3", "/claude/e-1", "/claude/e-0"].map(PathBuf::from));
}
