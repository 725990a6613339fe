//! The daemon waits for a disk that refuses writes: it does not crash, spin or lose anything.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use tests::{
    Answer, Home, Server, Span, Story, eventually, say,
    scene::{Fault, Scene, play_all, points},
    skipped,
    strace::{self, Order, Point},
    tries,
};

/// How many scenes are played in parallel: they wait more than they work.
const AT_ONCE: usize = 8;

#[test]
fn everything_arrives_once_if_any_single_write_fails() {
    if !strace::works() {
        return;
    }
    let started = Instant::now();
    let mut all: Vec<(Point, &str)> = Vec::new();
    for point in points(&Scene::day()) {
        let errors: &[&str] = match point.call.as_str() {
            "pwrite64" | "ftruncate" | "write" => &["ENOSPC", "EIO"],
            "openat" | "mkdir" | "mkdirat" => &["ENOSPC", "EROFS"],
            "fsync" | "fdatasync" | "unlink" | "unlinkat" => &["EIO"],
            _ => &[],
        };
        all.extend(errors.iter().map(|error| (point.clone(), *error)));
    }
    let count = tries(120, all.len()).min(all.len());
    let tally = play_all(AT_ONCE, count, Scene::day, |scene, index| {
        let (point, error) = &all[index * all.len() / count];
        let order = scene.order(point, &format!("error={error}"));
        (format!("{error} at {point:?}"), scene.play(Fault::Strace(point.thread, order)))
    });
    say(&format!(
        "one write fails: {count} of {} faults, {} daemons did not start with it, {} needed a flush: {}; {:.0?}",
        all.len(),
        tally.refusals,
        tally.asked,
        tally.figures(),
        started.elapsed(),
    ));
    assert_eq!(tally.deaths, 0);
    tally.assert_right();
}

#[test]
fn everything_arrives_once_after_a_full_disk() {
    if !strace::works() || !strace::attaches() {
        skipped("strace may not attach to a daemon here");
        return;
    }
    for error in ["ENOSPC", "EIO"] {
        let home = Home::new();
        let [came, may_answer] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let (comes, answers) = (came.clone(), may_answer.clone());
        let server = Server::answering(move |_| {
            comes.store(true, SeqCst);
            eventually("the answer to be due", || answers.load(SeqCst));
            Answer::ok()
        });
        home.settings("work", &server.env());
        let daemon = home.daemon();
        let mut story = Story::new(&home, "work", "s");
        story.turn("q1", "a1");
        home.hook(&story.stop("a1"), &server.env());
        eventually("a batch to be in flight", || came.load(SeqCst));
        let mut other = Story::new(&home, "work", "t");
        other.prompt("q3");
        home.hook(&other.stop("a3"), &server.env());

        let calls = "pwrite64,ftruncate,fsync,fdatasync,?mkdir,mkdirat,?rename,renameat,renameat2";
        let full = strace::on_running(&daemon, Order::fail(calls, error)).expect("attached");
        // The server has the batch, but neither that nor the newly read turn can be recorded.
        other.answer("a3");
        may_answer.store(true, SeqCst);
        server.wait_for(2);
        story.turn("q2", "a2");
        let took = home.hook(&story.stop("a2"), &server.env());
        assert!(took < Duration::from_secs(1), "the hook took {took:?}");
        assert_eq!(home.spooled().len(), 1, "an event that cannot be stored stays where it is");
        let (busy, lines) = (daemon.busy(), home.log().lines().count());
        std::thread::sleep(Duration::from_secs(3));
        let busy = daemon.busy().zip(busy).map(|(after, before)| after - before).expect("Linux");
        let lines = home.log().lines().count() - lines;
        assert!(busy < Duration::from_millis(600) && lines < 30, "{busy:?} at work, {lines} lines in the log, in 3 s");
        assert_eq!(home.status()["outbox"]["pending"], 2);

        strace::end(full);
        home.flush();
        assert!(daemon.terminate().success());
        let (spans, mut ids) = (server.spans(), server.spans().iter().map(Span::id).collect::<Vec<_>>());
        ids.sort();
        ids.dedup();
        assert_eq!((spans.len(), ids.len()), (6, 6), "{error}");
        say(&format!(
            "disk full for 3 s ({error}): {busy:.0?} of work and {lines} lines in the log meanwhile, then 6 of 6 spans, once"
        ));
    }
}
