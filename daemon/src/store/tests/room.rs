use super::*;

/// Bytes of the database's file, after what its log holds is in it.
fn length(dir: &TempDir, store: &Store) -> u64 {
    store.empty_log();
    std::fs::metadata(dir.path().join("state.db")).unwrap().len()
}

#[test]
fn an_outage_leaves_a_small_file_when_all_of_it_is_delivered_and_nothing_is_forgotten() {
    let (dir, mut store) = fresh();
    let spans: Vec<_> =
        (1..=20).map(|id| Observation { name: format!("{id}").repeat(1 << 19), ..span(1, id, 9) }).collect();
    let found = step(spans);
    let (destination, _) = store.advance_one(&found).unwrap();
    let grown = length(&dir, &store);
    assert!(grown > 10 << 20, "{grown}");
    assert_eq!(store.give_back().unwrap(), None, "all of it waits");
    while let rows = store.claim(destination, 19, usize::MAX).unwrap()
        && let [first, rest @ ..] = &*rows
    {
        store.delivered(destination, rest, 0, 20).unwrap();
        assert_eq!(store.give_back().unwrap(), None, "one waits");
        store.delivered(destination, std::slice::from_ref(first), 0, 20).unwrap();
    }
    assert_eq!(length(&dir, &store), grown);
    let given = store.give_back().unwrap().unwrap();
    let left = length(&dir, &store);
    assert!(given > 10 << 20 && left < 1 << 20, "{given} given back, {left} left");
    assert_eq!(store.give_back().unwrap(), None, "once");
    assert_eq!(store.advance_one(&found).unwrap(), (destination, 0), "what was sent is known");
    drop(store);
    assert_eq!(opened(&dir).advance_one(&found).unwrap(), (destination, 0));
}
