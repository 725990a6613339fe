//! A daemon killed at any moment loses nothing, and repeats at most the spans in flight.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tests::{
    Random, say,
    scene::{Fault, Scene, play_all, points},
    strace, tries,
};

/// How many scenes are played in parallel: they wait more than they work.
const AT_ONCE: usize = 6;

#[test]
fn a_daemon_killed_at_any_system_call_of_a_day_loses_nothing() {
    sweep("day", Scene::day);
}

#[test]
fn a_daemon_killed_at_any_system_call_of_its_recovery_loses_nothing() {
    sweep("recovery", Scene::recovery);
}

#[test]
fn a_daemon_killed_at_any_system_call_of_a_migration_loses_nothing() {
    sweep("migration", || Scene::migration(&v1()));
}

#[test]
fn a_daemon_killed_at_any_system_call_of_a_salvage_loses_nothing() {
    sweep("salvage", Scene::salvage);
}

fn sweep(name: &str, scene: impl Fn() -> Scene + Sync) {
    if !strace::works() {
        return;
    }
    let started = Instant::now();
    let all = points(&scene());
    let count = tries(120, all.len()).min(all.len());
    let tally = play_all(AT_ONCE, count, scene, |scene, index| {
        let point = &all[index * all.len() / count];
        (format!("{point:?}"), scene.play(Fault::Strace(point.thread, scene.order(point, "signal=SIGKILL"))))
    });
    say(&format!(
        "kill -9 at every system call, {name}: {count} of {} points, {} kills ({} did not come about): {}; {:.0?}",
        all.len(),
        tally.deaths,
        tally.undisturbed,
        tally.figures(),
        started.elapsed(),
    ));
    tally.assert_right();
    assert!(tally.deaths * 3 >= count * 2, "{name}: only {} of {count} kills came about", tally.deaths);
}

/// The number of turns in a story in which no daemon lives for long.
const TURNS: usize = 25;

#[test]
fn a_daemon_killed_at_random_moments_loses_nothing() {
    let started = Instant::now();
    let rounds = tries(500, 5_000) / TURNS;
    let tally = play_all(
        AT_ONCE,
        rounds,
        || Scene::serial(TURNS),
        |scene, round| {
            let mut random = Random::new(round as u64);
            let mut moment = |_| (random.below(2) == 0, Duration::from_micros(random.below(50_000)));
            let moments: Vec<(bool, Duration)> = (0..TURNS).map(&mut moment).collect();
            (format!("round {round}"), scene.play_serial(Some(&moments)))
        },
    );
    say(&format!("kill -9 at random: {} kills: {}; {:.0?}", tally.deaths, tally.figures(), started.elapsed()));
    tally.assert_right();
    assert_eq!(tally.deaths, rounds * TURNS);
}

fn v1() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("databases/v1.db")
}

/// To be run by hand, and no longer once the schema has a second version.
#[test]
#[ignore = "writes the database of the first version"]
fn write_a_database_of_the_first_version() {
    std::fs::write(v1(), Scene::carried_database()).expect("written");
}
