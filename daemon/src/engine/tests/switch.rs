//! A session that changes its destination.

use super::*;

const FORMER: &str = "pk";
const NEW: &str = "pk-new";

/// The session's event number `n`, with `account` in its environment.
fn event(dir: &Path, n: u64, account: &str) -> Hint {
    let destination = Destination { kind: Kind::Langfuse, address: "https://a".into(), account: account.into() };
    Hint { id: format!("e-{n}"), fired_ns: n, targets: vec![destination.into()], ..ended(dir, "s") }
}

fn turn(n: u32) -> [serde_json::Value; 2] {
    [line("user", &format!("q{n}"), &"go".into()), line("assistant", &format!("a{n}"), &"hello".into())]
}

/// Processes `event`, and returns how many spans are queued for each account afterwards.
fn queued(engine: &Running, event: Hint) -> [u64; 2] {
    engine.hear(event);
    engine.until(|counts| counts.inbox == 0);
    let all = engine.store.call(|store| store.destinations()).unwrap();
    [FORMER, NEW]
        .map(|account| all.iter().filter(|row| row.destination.account == account).map(|row| row.waiting).sum())
}

#[test]
fn a_turn_that_went_to_the_former_destination_is_not_sent_to_the_new_one_after_a_restart_or_without() {
    for is_restarted in [false, true] {
        let (base, dir) = home();
        let path = dir.join("s.jsonl");
        let mut engine = Running::new(base.path());
        let restart = |engine: Running| {
            if is_restarted {
                drop(engine);
                Running::new(base.path())
            } else {
                engine
            }
        };
        write(&path, &turn(1));
        assert_eq!(queued(&engine, event(&dir, 1, FORMER)), [2, 0]);
        engine = restart(engine);
        assert_eq!(queued(&engine, event(&dir, 2, NEW)), [2, 0], "nothing new was said");
        engine = restart(engine);
        assert_eq!(queued(&engine, event(&dir, 3, NEW)), [2, 0], "nor now");
        engine = restart(engine);
        write(&path, &[turn(1), turn(2)].concat());
        assert_eq!(queued(&engine, event(&dir, 4, NEW)), [2, 2]);
    }
}

#[test]
fn a_turn_that_grows_under_the_new_destination_has_its_root_there_too() {
    for is_restarted in [false, true] {
        let (base, dir) = home();
        let path = dir.join("s.jsonl");
        let mut engine = Running::new(base.path());
        write(&path, &turn(1));
        assert_eq!(queued(&engine, event(&dir, 1, FORMER)), [2, 0]);
        if is_restarted {
            drop(engine);
            engine = Running::new(base.path());
        }
        let [question, answer] = turn(1);
        write(&path, &[question, answer, line("assistant", "more", &"and more".into())]);
        assert_eq!(queued(&engine, event(&dir, 2, NEW)), [2, 2], "the new call and the root");
    }
}

#[test]
fn history_that_the_user_sent_elsewhere_takes_nothing_from_the_sessions_own_destination() {
    let (base, dir) = home();
    write(&dir.join("s.jsonl"), &turn(1));
    let engine = Running::new(base.path());
    assert_eq!(queued(&engine, Hint { source: Source::Backfill, ..event(&dir, 1, NEW) }), [0, 2]);
    drop(engine);
    let engine = Running::new(base.path());
    assert_eq!(queued(&engine, event(&dir, 2, FORMER)), [2, 2]);
    drop(engine);
    let engine = Running::new(base.path());
    let asked = Hint { source: Source::Backfill, ..event(&dir, 3, "pk-third") };
    assert_eq!(queued(&engine, asked), [2, 2]);
    assert_eq!(engine.store.call(|store| store.counts()).unwrap().outbox, 6, "a third one, if asked for");
}
