//! Too many clients, too slow clients, too few file descriptors: no event is lost, and no client is delayed by another.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use proto::frame::Frame;
use serde_json::json;
use tests::{Answer, Daemon, Home, Server, Story, bins, eventually, home, raw, skipped, tries};

/// How long a hook waits for its answer.
const DEADLINE: Duration = Duration::from_millis(250);

/// A session of one turn, and the only event that leads to it.
fn session(home: &Home, server: &Server, number: usize) -> Frame {
    let mut story = Story::new(home, "work", &format!("s-{number}"));
    story.turn("q", "a");
    raw::frame(&format!("{number:016x}"), &story.event("SessionEnd"), &server.env())
}

/// Leaves an event like a hook that got no answer.
fn spool(home: &Home, frame: &Frame) {
    let part = home.paths().spool.join(format!("{}.part", frame.id));
    fs::write(&part, frame.encode_for_disk()).expect("written");
    fs::rename(&part, part.with_extension("event")).expect("renamed");
}

/// Waits until everything is delivered, each of `sessions` once.
fn complete(home: &Home, server: &Server, sessions: usize) {
    home.flush();
    assert_eq!(home.spooled(), Vec::<std::path::PathBuf>::new());
    let spans = server.spans();
    let arrived: BTreeSet<&str> = spans.iter().map(|span| span.get("session.id")).collect();
    assert_eq!((arrived.len(), spans.len()), (sessions, 2 * sessions));
    assert_eq!(home.status()["skipped_lines"], json!({}));
}

fn bounded(daemon: &Daemon) {
    if let Some(peak) = daemon.peak_kib() {
        assert!(peak < 100 << 10, "the daemon held {peak} KiB");
    }
}

#[test]
fn a_flood_of_events_is_answered_or_spooled_and_none_is_lost() {
    const CLIENTS: usize = 16;
    let (home, server) = (Home::new(), Server::new());
    home.settings("work", &server.env());
    let daemon = home.daemon();
    let frames: Vec<Frame> = (0..tries(1_000, 20_000)).map(|number| session(&home, &server, number)).collect();
    let (next, answered) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while let Some(frame) = frames.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match raw::post(&home.paths().socket, &frame.encode(), DEADLINE) {
                        Ok(status) => {
                            assert_eq!(status, 204);
                            answered.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(_) => spool(&home, frame),
                    }
                }
            });
        }
        // With real hooks at the same time.
        scope.spawn(|| {
            for number in frames.len()..frames.len() + 20 {
                let mut story = Story::new(&home, "work", &format!("s-{number}"));
                story.turn("q", "a");
                home.hook(&story.event("SessionEnd"), &server.env());
            }
        });
    });
    assert!(answered.load(Ordering::Relaxed) > 0, "the daemon answered nobody");
    complete(&home, &server, frames.len() + 20);
    bounded(&daemon);
}

#[test]
fn without_a_daemon_the_spool_keeps_the_newest_events() {
    const MOST: usize = 1_000;
    let (home, server) = (Home::new(), Server::new());
    home.settings("work", &server.env());
    drop(home.daemon());
    let spool_dir = home.paths().spool;
    // The maximum number of files, the last unfinished, plus one that is no event.
    for number in 0..MOST - 1 {
        spool(&home, &session(&home, &server, number));
    }
    fs::write(spool_dir.join("0000000000000000.part"), "cc-lang").expect("written");
    fs::write(spool_dir.join("0.note"), "precious").expect("written");
    let last = 3;
    let mut before: BTreeSet<PathBuf> = home.spooled().into_iter().collect();
    before.remove(&spool_dir.join("0.note"));
    for number in MOST..MOST + last {
        let mut story = Story::new(&home, "work", &format!("s-{number}"));
        story.turn("q", "a");
        home.hook(&story.event("SessionEnd"), &server.env());
        assert_eq!(home.spooled().len(), MOST + 1);
    }
    assert!(spool_dir.join("0.note").exists());
    // The first to be removed were the unfinished one and the two oldest events.
    let stayed: BTreeSet<PathBuf> = home.spooled().into_iter().collect();
    assert_eq!(before.difference(&stayed).collect::<Vec<_>>(), before.iter().take(last).collect::<Vec<_>>());
    fs::remove_file(spool_dir.join("0.note")).expect("removed");
    let _daemon = home.daemon();
    home.flush();
    assert_eq!(home.spooled().len(), 0);
    let spans = server.spans();
    let arrived: BTreeSet<String> = spans.iter().map(|span| span.get("session.id").to_owned()).collect();
    // Their sessions are found by their transcripts.
    let expect = (0..MOST - 1).chain(MOST..MOST + last).map(|number| format!("s-{number}"));
    assert_eq!(arrived, expect.collect());
    assert_eq!(home.status()["skipped_lines"]["event_evicted"], last, "they are counted");
}

#[test]
fn a_spool_of_large_events_is_bounded_by_their_size() {
    const MOST: u64 = 16 << 20;
    let (home, server) = (Home::new(), Server::new());
    let mut event = Story::new(&home, "work", "s").event("PostToolUse");
    event["tool_response"] = "x".repeat(1 << 20).into();
    let size = |home: &Home| home.spooled().iter().map(|path| path.metadata().expect("there").len()).sum::<u64>();
    let mut seen = BTreeSet::new();
    for _ in 0..20 {
        home.hook(&event, &server.env());
        assert!(size(&home) <= MOST, "{} bytes", size(&home));
        let newest = home.spooled().into_iter().max().expect("the newest stays");
        assert!(seen.insert(newest), "the newest went");
    }
    assert!(size(&home) > MOST - (2 << 20), "{} bytes: more room was made than needed", size(&home));
}

/// Requests of clients that never finish.
const DRIBBLES: [&[u8]; 4] =
    [b"", b"POST /v1/hook HTTP/1.1\r\nhost: ", b"POST /v1/hook HTTP/1.1\r\ncontent-length: 1000\r\n\r\n", b"G"];

/// Holds `count` connections, sends a byte on each at times, and reconnects where one was closed, until `over`.
fn dribble(socket: &Path, count: usize, over: &AtomicBool, closed: &AtomicUsize) {
    let mut streams: Vec<Option<UnixStream>> = (0..count).map(|_| None).collect();
    while !over.load(Ordering::Relaxed) {
        for (number, slot) in streams.iter_mut().enumerate() {
            let alive = slot.as_mut().is_some_and(|stream| stream.write_all(b"X").is_ok());
            if !alive {
                if slot.take().is_some() {
                    closed.fetch_add(1, Ordering::Relaxed);
                }
                *slot = UnixStream::connect(socket).ok();
                if let Some(stream) = slot {
                    let _ = stream.write_all(DRIBBLES[number % DRIBBLES.len()]);
                }
            }
        }
        // As slowly as allowed.
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn clients_that_never_finish_delay_no_hook() {
    const HOOKS: usize = 20;
    let (home, server) = (Home::new(), Server::new());
    home.settings("work", &server.env());
    let daemon = home.daemon();
    let socket = home.paths().socket;
    let (over, closed) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut times = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| dribble(&socket, 100, &over, &closed));
        // The slow clients stop even if the test fails.
        let _over = Over(&over);
        eventually("the dribblers to be turned away", || closed.load(Ordering::Relaxed) > 0);
        for number in 0..HOOKS {
            let event = session(&home, &server, number).encode();
            let started = Instant::now();
            assert_eq!(raw::post(&socket, &event, Duration::from_secs(5)).expect("an answer"), 204);
            times.push(started.elapsed());
        }
        for number in HOOKS..2 * HOOKS {
            let mut story = Story::new(&home, "work", &format!("s-{number}"));
            story.turn("q", "a");
            home.hook(&story.event("SessionEnd"), &server.env());
        }
    });
    // Without reserved connections each would wait for a second; on a busy machine half of them may be unlucky.
    times.sort();
    assert!(times[HOOKS / 2] < Duration::from_millis(100), "{times:?}");
    complete(&home, &server, 2 * HOOKS);
    let log = home.log();
    let spooled = log.lines().filter_map(|line| line.split_once("from the spool taken=")?.1.parse::<usize>().ok());
    assert!(spooled.sum::<usize>() <= HOOKS / 2, "{log}");
    bounded(&daemon);
}

struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_request_must_be_complete_within_a_second() {
    let home = Home::new();
    let _daemon = home.daemon();
    for dribble in DRIBBLES {
        let started = Instant::now();
        let mut stream = UnixStream::connect(home.paths().socket).expect("connected");
        stream.write_all(dribble).expect("written");
        stream.set_read_timeout(Some(tests::TIMEOUT)).expect("set");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("it is closed");
        let took = started.elapsed();
        assert!(took > Duration::from_millis(900), "{took:?} for {dribble:?}");
        assert!(!answer.starts_with(b"HTTP/1.1 2"), "{answer:?}");
    }
}

#[test]
fn a_slow_request_is_answered_despite_other_clients() {
    let home = Home::new();
    let server = Server::answering(|_| Answer::status(503));
    home.settings("work", &server.env());
    let _daemon = home.daemon();
    let socket = home.paths().socket;
    let mut story = Story::new(&home, "work", "s");
    story.turn("q", "a");
    home.hook(&story.stop("a"), &server.env());
    server.wait_for_requests(1);
    let (over, closed) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let flush = scope.spawn(|| home.ctl(&["flush", "--timeout", "30s"]));
        scope.spawn(|| dribble(&socket, 100, &over, &closed));
        let _over = Over(&over);
        eventually("many to be turned away", || closed.load(Ordering::Relaxed) > 200);
        assert!(!flush.is_finished());
        server.change(|_| Answer::ok());
        let output = flush.join().expect("it ends");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    });
    assert_eq!(server.spans().len(), 2);
}

#[test]
fn five_hundred_clients_do_not_stop_a_daemon_with_32_files() {
    const CLIENTS: usize = 500;
    const HOOKS: usize = 10;
    let (home, server) = (Home::new(), Server::new());
    home.settings("work", &server.env());
    let mut command: Command = home.command(Path::new("/bin/sh"));
    command.arg("-c").arg("ulimit -n 32; exec \"$0\"").arg(&bins().daemon);
    let mut daemon = Home::spawn(command);
    home.wait_for(&mut daemon);
    let socket = home.paths().socket;
    let mut clients: Vec<UnixStream> = Vec::new();
    for _ in 0..CLIENTS {
        clients.extend(UnixStream::connect(&socket).ok());
    }
    assert!(clients.len() > 100, "only {} could connect", clients.len());
    for number in 0..HOOKS {
        let mut story = Story::new(&home, "work", &format!("s-{number}"));
        story.turn("q", "a");
        home.hook(&story.event("SessionEnd"), &server.env());
    }
    complete(&home, &server, HOOKS);
    let mut turned_away = 0;
    for client in &mut clients {
        client.set_read_timeout(Some(tests::TIMEOUT)).expect("set");
        turned_away += usize::from(client.read(&mut [0; 16]).is_ok_and(|n| n == 0));
    }
    assert_eq!(turned_away, clients.len());
    let said = |what: &str| home.log().matches(what).count();
    let (stuck, went_on) = (said("no connection can be accepted"), said("connections are accepted again"));
    assert!(stuck <= went_on + 1, "{stuck} times stuck, {went_on} times not: {}", home.log());
    bounded(&daemon);
}

#[cfg(target_os = "linux")]
#[test]
fn without_file_descriptors_the_daemon_waits_idly_and_recovers() {
    use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
    let (home, server) = (Home::new(), Server::new());
    home.settings("work", &server.env());
    let daemon = home.daemon();
    let Some(before) = daemon.busy() else {
        return skipped("the system does not tell a process's CPU time");
    };
    let limit = |to: Rlimit| {
        let pid = Pid::from_raw(i32::try_from(daemon.pid()).expect("a pid")).expect("a pid");
        prlimit(Some(pid), Resource::Nofile, to).expect("ours");
    };
    let usual = getrlimit(Resource::Nofile);
    limit(Rlimit { current: Some(3), ..usual });
    let logged = |what: &str| home.log().matches(what).count();
    let clients: Vec<_> = (0..10).map(|_| UnixStream::connect(home.paths().socket).expect("in the backlog")).collect();
    eventually("the shortage to be noticed", || logged("no connection can be accepted") > 0);
    let started = Instant::now();
    // Hooks keep their events meanwhile.
    const HOOKS: usize = 5;
    for number in 0..HOOKS {
        let mut story = Story::new(&home, "work", &format!("s-{number}"));
        story.turn("q", "a");
        home.hook(&story.event("SessionEnd"), &server.env());
    }
    assert_eq!(home.spooled().len(), HOOKS);
    let (busy, took) = (daemon.busy().expect("measured before") - before, started.elapsed());
    assert!(took > 4 * DEADLINE, "{took:?}");
    // 5 % of the time, and the cost of the start.
    assert!(busy <= took / 20 + Duration::from_millis(50), "{busy:?} in {took:?}");
    limit(usual);
    eventually("the shortage to be over", || logged("connections are accepted again") > 0);
    complete(&home, &server, HOOKS);
    assert_eq!((logged("no connection can be accepted"), logged("connections are accepted again")), (1, 1));
    drop(clients);
}

#[test]
fn an_endless_body_is_not_kept_in_memory() {
    let home = Home::new();
    let daemon = home.daemon();
    let sent: Vec<usize> = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut stream = UnixStream::connect(home.paths().socket).expect("connected");
                    stream.set_write_timeout(Some(tests::TIMEOUT)).expect("set");
                    let head =
                        format!("POST {} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\n", proto::HOOK_PATH);
                    let _ = stream.write_all(head.as_bytes());
                    let mut sent = 0;
                    while sent < 1_000_000_000 && stream.write_all(&[b'x'; 1 << 16]).is_ok() {
                        sent += 1 << 16;
                    }
                    sent
                })
            })
            .collect();
        senders.into_iter().map(|sender| sender.join().expect("it ends")).collect()
    });
    assert!(sent.iter().all(|sent| *sent < 100 << 20), "{sent:?}");
    bounded(&daemon);
    assert_eq!(home.status()["skipped_lines"], json!({}));
}

#[test]
fn hooks_of_a_frozen_daemon_end_by_their_deadline() {
    const HOOKS: usize = 40;
    let (home, server) = (Home::new(), Server::new());
    home.settings("work", &server.env());
    let daemon = home.daemon();
    daemon.signal(rustix::process::Signal::STOP);
    for number in 0..HOOKS {
        Story::new(&home, "work", &format!("s-{number}")).turn("q", "a");
    }
    std::thread::scope(|scope| {
        for number in 0..HOOKS {
            let (home, server) = (&home, &server);
            scope.spawn(move || {
                let event = Story::new(home, "work", &format!("s-{number}")).event("SessionEnd");
                let took = home.hook(&event, &server.env());
                assert!(took < Duration::from_secs(5), "{took:?}");
            });
        }
    });
    assert_eq!(home.spooled().len(), HOOKS);
    daemon.signal(rustix::process::Signal::CONT);
    complete(&home, &server, HOOKS);
    home::assert_silent(&home::run(home.command(&bins().hook), b"").0);
}
