//! A disk that is full or read-only, and a database that is damaged, old or too new.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    hash::{BuildHasher, RandomState},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use serde_json::Value;
use tests::{Answer, Daemon, Home, Random, Server, Span, Story, bins, eventually, home, ids, say, server};

/// Runs the test `name` of this file in namespaces of its own, where file systems can be mounted. Returns true inside,
/// where the test must do its work; false outside, where it is already done.
fn may_mount(name: &str) -> bool {
    const INSIDE: &str = "CC_LANGFUSE_TEST_INSIDE";
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    bins();
    let unshare = |command: &[&str]| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--map-root-user", "--mount", "--"]).args(command);
        unshare
    };
    let trial = unshare(&["mount", "-t", "tmpfs", "tmpfs", "/tmp"]).output();
    if !trial.is_ok_and(|output| output.status.success()) {
        say("skipped: no file system can be mounted here");
        return false;
    }
    let this = std::env::current_exe().expect("this program");
    let this = this.to_str().expect("text");
    let output = unshare(&[this, "--exact", name, "--nocapture"]).env(INSIDE, "1").output().expect("it runs");
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    false
}

/// Mounts a disk of `kib` KiB in `home` for all files of the programs.
fn mount(home: &Home, kib: usize) -> PathBuf {
    let at = home.path().join(".claude/state");
    fs::create_dir_all(&at).expect("a directory");
    let options = format!("size={kib}k,mode=700");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&at).status();
    assert!(mounted.expect("mount").success());
    at
}

/// Uses up the free space of a disk, until the file is removed.
fn fill(disk: &Path) -> PathBuf {
    let path = disk.join("filler");
    let mut file = File::create(&path).expect("a file");
    while file.write_all(&[0x55; 512]).is_ok() {}
    path
}

/// The daemon, started by `command`.
fn start(home: &Home, command: Command) -> Daemon {
    let mut daemon = Home::spawn(command);
    home.wait_for(&mut daemon);
    daemon
}

/// The daemon's CPU time during one second.
fn work(daemon: &Daemon) -> Duration {
    let before = daemon.busy();
    std::thread::sleep(Duration::from_secs(1));
    daemon.busy().zip(before).map_or(Duration::ZERO, |(after, before)| after - before)
}

fn trouble(status: &Value) -> &Value {
    &status["store_error"]
}

#[test]
fn a_full_disk_stops_no_hook_and_everything_arrives_once_there_is_room() {
    if !may_mount("a_full_disk_stops_no_hook_and_everything_arrives_once_there_is_room") {
        return;
    }
    let (home, server) = (Home::new(), Server::new());
    let disk = mount(&home, 6 << 10);
    let daemon = home.daemon();
    // Turned on by its settings: what is written before its event can be stored must not count as from a
    // project that is off.
    home.settings("work", &server.env());
    let mut known = Story::new(&home, "work", "known");
    known.turn("q1", "a1");
    home.hook(&known.stop("a1"), &server.env());
    home.flush();
    let filler = fill(&disk);
    known.turn(&"q2 ".repeat(20_000), &"a2 ".repeat(20_000)).turn("q3", "a3");
    let mut new = Story::new(&home, "work", "new");
    new.turn("q", "a");
    for story in [&known, &new] {
        let took = home.hook(&story.event("SessionEnd"), &server.env());
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
    home.status_until("the trouble to be reported", |status| trouble(status)["since"].is_string());
    let printed = home.ctl(&["status"]);
    let printed = String::from_utf8_lossy(&printed.stdout).into_owned();
    assert!(printed.contains("cannot be written since") && printed.contains("full"), "{printed}");
    let worked = work(&daemon);
    assert!(worked < Duration::from_millis(250), "{worked:?} of work in a second");
    say(&format!("waiting for the disk: {worked:?} of work in a second"));
    fs::remove_file(filler).expect("removed");
    home.status_until("the trouble to be over", |status| trouble(status).is_null());
    home.flush();
    let spans = server.spans();
    assert_eq!((spans.len(), ids(&spans).len()), (8, 8), "{}", home.log());
}

#[test]
fn a_disk_full_of_waiting_spans_is_emptied_by_sending_them() {
    if !may_mount("a_disk_full_of_waiting_spans_is_emptied_by_sending_them") {
        return;
    }
    let home = Home::new();
    let server = Server::answering(|_| Answer::status(503));
    mount(&home, 4 << 10);
    let daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    const TURNS: usize = 14;
    for turn in 0..TURNS {
        story.turn(&format!("q{turn} {}", "x y ".repeat(25_000)), &format!("a{turn}"));
    }
    home.hook(&story.event("SessionEnd"), &server.env());
    home.status_until("the disk to be full", |status| trouble(status)["since"].is_string());
    let worked = work(&daemon);
    say(&format!("waiting for the server: {worked:?} of work in a second"));
    assert!(worked < Duration::from_millis(250), "{worked:?} of work in a second");
    server.change(|_| Answer::ok());
    home.flush();
    let spans = server.spans();
    assert_eq!((spans.len(), ids(&spans).len()), (2 * TURNS, 2 * TURNS));
}

#[test]
fn the_daemon_waits_while_a_quota_refuses_writes() {
    const TURNS: usize = 12;
    let (home, server) = (Home::new(), Server::new());
    // Units of 512 bytes.
    let mut shell = home.command(Path::new("/bin/sh"));
    shell.args(["-c", "trap '' XFSZ; ulimit -S -f 2048; exec \"$0\""]).arg(&bins().daemon);
    let daemon = start(&home, shell);
    let mut story = Story::new(&home, "work", "s");
    for turn in 0..TURNS {
        story.turn(&format!("q{turn} {}", "x y ".repeat(25_000)), &format!("a{turn}"));
    }
    home.hook(&story.event("SessionEnd"), &server.env());
    home.status_until("the trouble to be reported", |status| trouble(status)["since"].is_string());
    let worked = work(&daemon);
    assert!(worked < Duration::from_millis(500), "{worked:?} of work in a second");
    say(&format!("at the limit: {worked:?} of work in a second"));
    let mut more = Story::new(&home, "work", "more");
    more.turn("q", "a");
    assert!(home.hook(&more.stop("a"), &server.env()) < Duration::from_secs(2));
    let pid = Pid::from_raw(i32::try_from(daemon.pid()).expect("a pid"));
    let none = Rlimit { current: None, maximum: None };
    prlimit(pid, Resource::Fsize, none).expect("the limit is raised");
    home.status_until("the trouble to be over", |status| trouble(status).is_null());
    home.flush();
    let spans = server.spans();
    assert_eq!((spans.len(), ids(&spans).len()), (2 * TURNS + 2, 2 * TURNS + 2), "{}", home.log());
}

#[test]
fn a_daemon_starts_as_soon_as_it_can_write() {
    if !may_mount("a_daemon_starts_as_soon_as_it_can_write") {
        return;
    }
    let home = Home::new();
    let server = Server::answering(|_| Answer::status(503));
    home.settings("work", &server.env());
    let disk = mount(&home, 4 << 10);
    fs::create_dir(home.paths().state).expect("a directory");
    let filler = fill(&disk);
    let mut daemon = home.spawn_daemon(&[]);
    let mut story = Story::new(&home, "work", "s");
    story.turn("q", "a");
    assert!(home.hook(&story.stop("a"), &server.env()) < Duration::from_secs(2));
    let worked = work(&daemon);
    assert!(worked < Duration::from_millis(500), "{worked:?} of work in a second");
    fs::remove_file(filler).expect("removed");
    home.wait_for(&mut daemon);
    drop(daemon);

    let daemon = home.daemon();
    home.hook(&story.stop("a"), &server.env());
    server.wait_for_requests(1);
    daemon.kill();
    let remount = |how: &str| {
        assert!(Command::new("mount").args(["-o", how]).arg(&disk).status().expect("mount").success());
    };
    remount("remount,bind,ro");
    let (output, took) = home::run(home.command(&bins().daemon), b"");
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && printed.to_lowercase().contains("read-only"), "{output:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(home.hook(&story.stop("a"), &server.env()) < Duration::from_secs(2));
    remount("remount,bind,rw");
    server.change(|_| Answer::ok());
    let _daemon = home.daemon();
    home.flush();
    assert_eq!((server.spans().len(), ids(&server.spans()).len()), (2, 2));
}

/// The damaged databases that were set aside.
fn aside(home: &Home) -> Vec<PathBuf> {
    let entries = fs::read_dir(home.paths().state).expect("the state directory");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("corrupt-"))).collect()
}

fn sessions(home: &Home) -> BTreeSet<String> {
    let status = home.status();
    let sessions = status["sessions"].as_array().cloned().unwrap_or_default();
    sessions.iter().filter_map(|session| session["session_id"].as_str().map(str::to_owned)).collect()
}

#[test]
fn a_damaged_database_is_kept_and_all_sessions_are_completed() {
    const TURNS: usize = 12;
    let seed = RandomState::new().hash_one(0);
    let mut random = Random::new(seed);
    let mut below = |limit: usize| random.below(limit as u64) as usize;
    let names = ["delivered", "waiting", "unread"];
    let (mut alone, mut repeated, mut slowest) = (0, 0, Duration::ZERO);
    let rounds = tests::tries(8, 200);
    for round in 0..rounds {
        let (home, server) = (Home::new(), Server::new());
        let daemon = home.daemon();
        let mut stories: Vec<Story> = names.iter().map(|name| Story::new(&home, "work", name)).collect();
        for (story, name) in stories.iter_mut().zip(names) {
            for turn in 0..TURNS {
                story.prompt(&format!("q{turn}")).tool(&"out ".repeat(300)).answer(&format!("a{turn}"));
            }
            if name == "waiting" {
                home.flush();
                server.change(|_| Answer::status(503));
            }
            if name != "unread" {
                home.hook(&story.stop(&format!("a{}", TURNS - 1)), &server.env());
            }
        }
        home.status_until("the spans to wait", |status| status["outbox"]["pending"] == 4 * TURNS);
        // A known session with more lines than were read.
        let unread = &stories[2];
        home.hook(&unread.event("PostToolUse"), &server.env());
        home.status_until("the third session to be read", |status| status["outbox"]["pending"] == 8 * TURNS - 4);
        // Not earlier: the scan at the daemon's start would find the third session by itself.
        home.settings("work", &server.env());
        if round % 8 == 3 {
            // Its work is still in the log.
            daemon.kill();
        } else {
            assert!(daemon.terminate().success());
        }
        stories[2].turn("q-last", "a-last");
        let database = home.paths().database;
        let log = database.with_extension("db-wal");
        let logged = log.exists();
        let target = if logged { &log } else { &database };
        let mut bytes = fs::read(target).expect("the database");
        let pages = bytes.len() / 4096;
        match round % 8 {
            0 => bytes = b"this was never a database, however much it looks like one ".repeat(2000),
            1 => bytes.clear(),
            2 => bytes.truncate(bytes.len() / 2),
            _ => {
                let page = 1 + below(pages - 1);
                let (at, length) = (page * 4096 + below(2048), 16 + below(2000));
                bytes[at..(at + length).min((page + 1) * 4096)].fill(0x5a);
            }
        }
        fs::write(target, &bytes).expect("written");
        server.change(|_| Answer::ok());
        let before = server.spans().len();
        let started = Instant::now();
        let _daemon = home.daemon();
        slowest = slowest.max(started.elapsed());
        let kept = aside(&home);
        if matches!(round % 8, 0 | 2) {
            assert_eq!(kept.len(), 1, "round {round}, seed {seed}");
        }
        for dir in &kept {
            let name = target.file_name().expect("a name");
            // SQLite itself truncates a damaged log.
            assert!(logged || fs::read(dir.join(name)).is_ok_and(|found| found == bytes), "round {round}, seed {seed}");
        }
        home.flush();
        let known = sessions(&home);
        let complete = |session: &str| {
            let spans: Vec<Span> =
                server.spans().into_iter().filter(|span| span.get("session.id") == session).collect();
            ids(&spans).len() >= 4 * TURNS
        };
        // Unnoticed damage is no reason to read anything again.
        for session in known.iter().filter(|session| !kept.is_empty() || *session != "unread") {
            eventually(&format!("{session} to be complete, round {round}, seed {seed}"), || complete(session));
        }
        alone += usize::from(known.len() == names.len());
        // A session that was lost comes back with the next hook.
        for story in &stories {
            home.hook(&story.event("SessionEnd"), &server.env());
        }
        home.flush();
        let spans = server.spans();
        assert_eq!(ids(&spans).len(), 12 * TURNS + 2, "round {round}, seed {seed}");
        assert!(spans[before..].len() <= 12 * TURNS + 2, "round {round}, seed {seed}");
        let twice = spans.len() - ids(&spans).len();
        say(&format!(
            "round {round}: {pages} pages, log: {logged}, set aside: {}, known: {known:?}, {twice} spans sent twice",
            kept.len()
        ));
        repeated += twice;
    }
    say(&format!(
        "{rounds} damaged databases: {alone} times all sessions were known still, {repeated} spans sent twice, slowest start {slowest:?}"
    ));
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");
    assert!(alone > 0);
}

#[test]
fn spans_waiting_in_a_database_of_an_earlier_version_are_delivered() {
    // Version 1 with the six spans of a session that wait for a server at a port of five digits.
    let old = include_bytes!("../databases/v1-waiting.db");
    let server = Server::new();
    let home = Home::new();
    let port: u16 = server.url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let (from, to) = ("127.0.0.1:00000", format!("127.0.0.1:{port:05}"));
    let mut bytes = old.to_vec();
    let mut found = 0;
    for at in 0..bytes.len() - from.len() {
        if &bytes[at..at + from.len()] == from.as_bytes() {
            bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
            found += 1;
        }
    }
    assert!(found > 0);
    let state = home.paths().state;
    fs::create_dir_all(&state).expect("a directory");
    fs::write(home.paths().database, &bytes).expect("written");
    let env = server::env(&format!("http://{to}"), "pk-lf-test", "sk-lf-test");
    home::settings(&home.path().join(".claude/settings.json"), &env);
    let _daemon = home.daemon();
    home.flush();
    let spans = server.spans();
    assert_eq!((spans.len(), ids(&spans).len()), (6, 6));
    assert!(spans.iter().any(|span| span.content("output") == "the last answer"), "{spans:?}");
    assert_eq!(fs::read(state.join("state.v1.bak")).expect("a copy").get(..16), Some(&b"SQLite format 3\0"[..]));
}

#[test]
fn a_database_is_migrated_only_if_there_is_room_for_a_copy() {
    if !may_mount("a_database_is_migrated_only_if_there_is_room_for_a_copy") {
        return;
    }
    let home = Home::new();
    let disk = mount(&home, 4 << 10);
    let state = home.paths().state;
    fs::create_dir(&state).expect("a directory");
    fs::set_permissions(&state, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("private");
    let database = home.paths().database;
    fs::write(&database, include_bytes!("../databases/v1-waiting.db")).expect("written");
    let filler = fill(&disk);
    // Room for the log, but not for the change.
    let file = File::options().write(true).open(&filler).expect("a file");
    file.set_len(file.metadata().expect("its length").len() - (256 << 10)).expect("shorter");
    drop(file);
    let before = fs::read(&database).expect("there");
    let mut daemon = home.spawn_daemon(&[]);
    let where_to = format!("MB must be free in {}", state.display());
    eventually("`status` to say what is missing", || {
        let said = String::from_utf8_lossy(&home.ctl(&["status"]).stderr).into_owned();
        said.contains("the daemon is starting") && said.contains(&where_to)
    });
    assert_eq!(home.ctl(&["status"]).status.code(), Some(3));
    let doctor = home.ctl(&["doctor", "--no-probe"]);
    assert!(String::from_utf8_lossy(&doctor.stdout).contains(&where_to), "{doctor:?}");
    assert_eq!(home.log().matches(&where_to).count(), 1, "{}", home.log());
    // The schema version, in SQLite's file format.
    let now = fs::read(&database).expect("there");
    assert!(now.len() == before.len() && now[60..64] == before[60..64] && before[63] == 1);
    assert!(!state.join("state.v1.bak").exists());
    fs::remove_file(filler).expect("removed");
    home.wait_for(&mut daemon);
    assert!(state.join("state.v1.bak").exists() && !home.paths().opening.exists());
}

#[test]
fn a_database_of_a_later_version_is_not_changed() {
    let home = Home::new();
    assert!(home.daemon().terminate().success());
    let database = home.paths().database;
    let mut bytes = fs::read(&database).expect("a database");
    // The schema version, in SQLite's file format.
    bytes[60..64].copy_from_slice(&99u32.to_be_bytes());
    fs::write(&database, &bytes).expect("written");
    let (output, _) = home::run(home.command(&bins().daemon), b"");
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && printed.contains("newer version: install that again"), "{output:?}");
    assert!(home.log().contains("newer version"), "{}", home.log());
    assert_eq!(fs::read(&database).expect("there"), bytes);
    assert_eq!(aside(&home), Vec::<PathBuf>::new());
}
