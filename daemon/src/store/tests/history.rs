use super::*;
use cc_core::{import_state::Imported, status::history::Found};

#[test]
fn of_each_span_it_is_known_whether_it_was_sent_or_is_a_copy() {
    let (_dir, mut store) = fresh();
    let call = Some(Call::of("msg", Some(7), None, None));
    let own = Observation { call, ..span(1, 2, 1) };
    store.advance_one(&step(vec![span(1, 1, 0), own])).unwrap();
    let asked = [
        ([1; 16], [1; 8], None),
        ([1; 16], [2; 8], call),
        ([2; 16], [2; 8], call),
        ([2; 16], [1; 8], None),
        ([1; 16], [3; 8], call),
    ];
    use Found::{Copy, Sent, Suppressed, Unknown};
    assert_eq!(store.known(&server("one"), &asked).unwrap(), [Sent, Sent, Copy, Unknown, Unknown]);
    assert_eq!(store.known(&server("two"), &asked).unwrap(), [Unknown; 5]);
    store.forget("s-1", &[[2; 16]]).unwrap();
    assert_eq!(store.known(&server("two"), &asked).unwrap(), [Unknown, Unknown, Suppressed, Suppressed, Unknown]);
    store.accept_one(&[hint("e-2", 2)], &[]).unwrap();
    assert_eq!(store.waiting_events(&["e-1".into(), "e-2".into()]).unwrap(), ["e-2"]);
}

#[test]
fn what_another_tool_has_sent_is_taken_for_sessions_that_were_not_read() {
    let (dir, mut store) = fresh();
    let sent = |id: &str, last_line| Imported { session_id: id.into(), last_line, turn_count: 3 };
    assert!(store.seeks_import().unwrap());
    store.advance_one(&step(vec![])).unwrap();
    assert_eq!(store.import(&[sent("s-1", 5), sent("s-2", 6)]).unwrap(), 1);
    assert_eq!(store.import(&[sent("s-2", 9)]).unwrap(), 1, "newer");
    store.import_was_sought(1).unwrap();
    drop(store);
    let store = opened(&dir);
    assert!(!store.seeks_import().unwrap());
    assert_eq!(store.imported("s-1").unwrap(), None);
    assert_eq!(store.imported("s-2").unwrap(), Some(sent("s-2", 9)));
    assert_eq!((store.all_imported().unwrap().len(), store.counts().unwrap().imported), (1, 1));
}
