use super::*;

/// A second, in nanoseconds.
const S: u64 = 1_000_000_000;
use cc_core::consent::{Chooser, Evidence};

fn by_repository(id: &str) -> Hint {
    let evidence = Evidence { file: "/repo/.claude/settings.json".into(), variable: Some("LANGFUSE_HOST".into()) };
    hint_to(server("one"), Some(Chooser::Repository(evidence)), id, 1)
}

fn by_user(id: &str) -> Hint {
    hint_to(server("one"), Some(Chooser::User), id, 2)
}

#[test]
fn what_others_chose_is_held_until_the_user_trusts_that_account_there() {
    let (_dir, mut store) = fresh();
    let to = server("one");
    store.accept_one(&[by_repository("e-1")], &[]).unwrap();
    let why = store.held_by(&to).unwrap().unwrap();
    assert!(why.contains("/repo/.claude/settings.json") && why.contains("LANGFUSE_HOST"), "{why}");
    // Nothing found later changes that: neither the user's own choice of the same destination nor an unjudged event.
    store.accept_one(&[by_user("e-2"), hint("e-3", 3)], &[]).unwrap();
    store.trust(&to.address, "pk-other", true, 1).unwrap();
    store.trust("https://other.example.org", &to.account, true, 1).unwrap();
    assert_eq!(store.held_by(&to).unwrap(), Some(why.clone()));
    assert_eq!(store.accounts(&to.address).unwrap().held, std::slice::from_ref(&to.account));
    for _ in 0..2 {
        store.trust(&to.address, &to.account, true, 2).unwrap();
        assert_eq!(store.held_by(&to).unwrap(), None);
        store.accept_one(&[by_repository("e-4")], &[]).unwrap();
        assert_eq!((store.held_by(&to).unwrap(), store.accounts(&to.address).unwrap().held), (None, vec![]));
        store.trust(&to.address, &to.account, false, 3).unwrap();
        assert_eq!(store.held_by(&to).unwrap(), Some(why.clone()), "the word is taken back");
    }
}

#[test]
fn what_the_user_chose_stays_the_users_whoever_names_it_too() {
    let (_dir, mut store) = fresh();
    let id = store.accept_one(&[by_user("e-1")], &[]).unwrap()[0];
    store.accept_one(&[by_repository("e-2")], &[]).unwrap();
    assert_eq!(store.held_by(&hint("e-0", 1).targets[0].destination).unwrap(), None);
    assert!(store.is_own(id).unwrap());
}

#[test]
fn what_was_said_between_seen_off_and_seen_on_is_known() {
    // Sightings: on or off, and when. Then the times that count as off.
    for (from_now, sightings, off) in [
        (false, &[][..], &[][..]),
        (false, &[(true, 10)], &[]),
        (false, &[(true, 10), (true, 20)], &[]),
        // The time before the first sighting counts like it.
        (false, &[(false, 10)], &[(0, u64::MAX)]),
        (false, &[(false, 10), (false, 20), (true, 30)], &[(0, 30 * S - 1)]),
        // Off since it was last seen on: the exact time it was turned off is unknown.
        (false, &[(true, 10), (true, 20), (false, 30)], &[(20 * S + 1, u64::MAX)]),
        (
            false,
            &[(true, 10), (false, 30), (true, 40), (false, 50)],
            &[(10 * S + 1, 40 * S - 1), (40 * S + 1, u64::MAX)],
        ),
        // A clock that was set back.
        (false, &[(true, 10), (false, 5), (true, 7)], &[(10 * S + 1, 10 * S + 1)]),
        (true, &[(true, 10), (true, 20)], &[(0, 10 * S - 1)]),
        (true, &[(false, 10), (true, 20)], &[(0, 20 * S - 1)]),
    ] {
        let (dir, mut store) = fresh();
        store.trace_from_now(from_now);
        for (on, at) in sightings {
            store.see(dir.path(), *on, at * S).unwrap();
        }
        let found: Vec<_> = store.off(dir.path()).unwrap().into_iter().map(|off| (*off.start(), *off.end())).collect();
        assert_eq!(found, off, "{from_now} {sightings:?}");
        assert_eq!(store.off(&dir.path().join("other")).unwrap(), []);
    }
}

#[test]
fn a_hook_with_tracing_on_in_its_environment_alone_is_a_sight_where_there_was_none() {
    let by_environment = |dir: &Path, at: u64| Hint {
        project_dirs: vec![dir.to_owned()],
        former: Vec::new(),
        settings_on: false,
        ..hint(&at.to_string(), at * S)
    };
    for (name, seen_before, off) in [
        ("its own sight is the first", None, vec![]),
        ("settings were seen off before", Some(false), vec![(0, u64::MAX)]),
        ("settings were seen on before", Some(true), vec![]),
    ] {
        let (dir, mut store) = fresh();
        if let Some(on) = seen_before {
            store.see(dir.path(), on, 5 * S).unwrap();
        }
        for at in [10, 20, 30] {
            store.accept(&[by_environment(dir.path(), at)], &[]).unwrap();
        }
        let found = |store: &mut Store| -> Vec<_> {
            store.off(dir.path()).unwrap().into_iter().map(|off| (*off.start(), *off.end())).collect()
        };
        assert_eq!(found(&mut store), off, "{name}");
        // Turns up to then count as on; later ones as off, however many such hooks run.
        if seen_before.is_none() {
            store.see(dir.path(), false, 40 * S).unwrap();
            store.accept(&[by_environment(dir.path(), 50)], &[]).unwrap();
            store.see(dir.path(), false, 60 * S).unwrap();
            assert_eq!(found(&mut store), [(10 * S + 1, u64::MAX)], "{name}");
        }
    }
    let (dir, mut store) = fresh();
    let history = Hint { source: cc_core::hook::Source::Backfill, ..by_environment(dir.path(), 10) };
    store.accept(&[history], &[]).unwrap();
    store.see(dir.path(), false, 20 * S).unwrap();
    assert_eq!(store.off(dir.path()).unwrap(), [0..=u64::MAX], "who asks for history says nothing of the project");
}

#[test]
fn what_is_kept_of_sights_is_what_the_database_has() {
    let (dir, mut store) = fresh();
    let dirs = ["a", "b"].map(|name| dir.path().join(name));
    // A simple generator: the project, what is seen, and in which way.
    let mut state = 7u64;
    let mut next = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for n in 0..400u64 {
        let (project, on, at) = (&dirs[next(2) as usize], next(3) > 0, (n + next(6)) * S / 2);
        match next(3) {
            0 => store.see(project, on, at).unwrap(),
            1 => drop(store.see_and_off(project, on, at).unwrap()),
            _ => {
                let hint = Hint { project_dirs: vec![project.clone()], settings_on: true, ..hint(&n.to_string(), at) };
                drop(store.accept(&[hint], &[]).unwrap());
            }
        }
        let kept = dirs.clone().map(|project| store.off(&project).unwrap());
        store.sightings = Default::default();
        assert_eq!(kept, dirs.clone().map(|project| store.off(&project).unwrap()), "after {n}");
        if next(2) == 0 {
            store.sightings = Default::default();
        }
    }
}

#[test]
fn what_is_left_out_while_off_comes_when_history_is_asked_for() {
    let (_dir, mut store) = fresh();
    let off = Advance { off: vec![span(1, 1, 0).trace_id], ..step(vec![span(1, 1, 0), span(1, 2, 1), span(2, 1, 0)]) };
    let destination = store.advance_one(&off).unwrap().0;
    assert_eq!(waiting(&mut store, destination), [(2, 1)]);
    store.advance_one(&off).unwrap();
    assert_eq!(store.counts().unwrap().skipped["turn_while_off"], 1, "counted once");
    let mut asked = step(vec![span(1, 1, 0), span(1, 2, 1)]);
    asked.session.hint.source = cc_core::hook::Source::Backfill;
    store.advance_one(&asked).unwrap();
    assert_eq!(waiting(&mut store, destination).len(), 3);
}

#[test]
fn what_the_users_own_file_names_is_never_held_and_known_to_be_by_that_file_alone() {
    let to = server("one");
    let by_file = |id: &str| hint_to(server("one"), Some(Chooser::Config), id, 1);
    for (name, events, held, by_file_alone) in [
        ("the file", vec![by_file("e-1")], false, true),
        ("the file, then others", vec![by_file("e-1"), by_repository("e-2")], false, true),
        ("others, then the file", vec![by_repository("e-1"), by_file("e-2")], false, true),
        ("the file, then a variable of the user's", vec![by_file("e-1"), by_user("e-2")], false, false),
        ("a variable of the user's, then the file", vec![by_user("e-1"), by_file("e-2")], false, false),
        ("others", vec![by_repository("e-1")], true, false),
        ("nobody knows", vec![hint("e-1", 1)], false, false),
    ] {
        let (_dir, mut store) = fresh();
        for event in events {
            store.accept_one(&[event], &[]).unwrap();
        }
        assert_eq!(store.held_by(&to).unwrap().is_some(), held, "{name}");
        assert_eq!(store.is_configured(&to).unwrap(), by_file_alone, "{name}");
    }
    let (_dir, mut store) = fresh();
    let id = store.accept_one(&[by_repository("e-1")], &[]).unwrap()[0];
    store.postpone(id, "held", 0, "others chose it", 1).unwrap();
    store.configure(&[to.clone(), server("two")]).unwrap();
    let states: Vec<_> = store.destinations().unwrap().into_iter().map(|row| (row.state, row.held_by)).collect();
    assert_eq!(states, [("ok".to_owned(), None), ("ok".to_owned(), None)], "known from the start on");
    assert!(store.is_configured(&to).unwrap() && !store.is_configured(&server("three")).unwrap());
}
