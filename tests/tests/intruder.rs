//! Other users get no access: not through directories, files or sockets that they prepare, nor through this
//! program's own.

#![cfg(target_os = "linux")] // what is put in the way is made with its system calls

use std::{
    fs::{self, Permissions},
    io::{Read, Write},
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown, symlink},
        net::{UnixListener, UnixStream},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use proto::paths::Paths;
use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    process::Uid,
};
use serde_json::json;
use tests::{Home, Server, Story, bins, eventually, home, home::mode, root, server, skipped};

/// Another user, who owns no other files.
const OTHER: u32 = 61_234;

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("ours");
}

fn fifo(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("made");
}

/// Creates a private directory, including its parents.
fn private(dir: &Path) {
    fs::create_dir_all(dir).expect("made");
    chmod(dir, 0o700);
}

/// Gives a file or directory to another user; `false` if that is not permitted.
fn give_away(path: &Path) -> bool {
    rustix::process::geteuid().is_root() && chown(path, Some(OTHER), Some(OTHER)).is_ok()
}

/// What another user prepared.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Thing {
    File,
    Directory,
    LinkToDirectory,
    LinkToFile,
    LinkToNothing,
    Fifo,
    /// A directory of another user.
    OthersDirectory,
    /// A file of another user.
    OthersFile,
}

/// Puts `thing` at `path`; links lead to `precious`. `false` if that is not permitted.
fn put(thing: Thing, path: &Path, precious: &Path) -> bool {
    fs::create_dir_all(precious.join("dir")).expect("made");
    chmod(&precious.join("dir"), 0o700);
    fs::write(precious.join("file"), "precious").expect("written");
    match thing {
        Thing::File => fs::write(path, "precious").expect("written"),
        Thing::Directory => fs::create_dir(path).expect("made"),
        Thing::LinkToDirectory => symlink(precious.join("dir"), path).expect("linked"),
        Thing::LinkToFile => symlink(precious.join("file"), path).expect("linked"),
        Thing::LinkToNothing => symlink(precious.join("nothing"), path).expect("linked"),
        Thing::Fifo => fifo(path),
        Thing::OthersDirectory => {
            fs::create_dir(path).expect("made");
            chmod(path, 0o700);
            return give_away(path);
        }
        Thing::OthersFile => {
            fs::write(path, "precious").expect("written");
            return give_away(path);
        }
    }
    true
}

/// Fails if anything was written to the target of a link.
fn untouched(precious: &Path, case: &str) {
    assert_eq!(fs::read_dir(precious.join("dir")).expect("there").count(), 0, "{case}");
    assert_eq!(fs::read_to_string(precious.join("file")).expect("there"), "precious", "{case}");
    assert!(!precious.join("nothing").exists(), "{case}");
}

type Place = (&'static str, fn(&Paths) -> PathBuf);

#[test]
fn a_daemon_does_not_start_in_a_place_that_others_prepared() {
    use Thing::*;
    let dirs: [Place; 2] = [("state", |paths| paths.state.clone()), ("spool", |paths| paths.spool.clone())];
    let files: [Place; 4] = [
        ("lock", |paths| paths.lock.clone()),
        ("database", |paths| paths.database.clone()),
        ("wal", |paths| paths.database.with_extension("db-wal")),
        ("log", |paths| paths.log.clone()),
    ];
    let socket: [Place; 1] = [("socket", |paths| paths.socket.clone())];
    let in_place_of_dirs = [File, LinkToDirectory, LinkToFile, LinkToNothing, Fifo, OthersDirectory];
    let in_place_of_files = [Directory, LinkToDirectory, LinkToFile, LinkToNothing, Fifo, OthersFile];
    let in_place_of_sockets = [Directory, LinkToDirectory, LinkToFile, LinkToNothing, Fifo];
    let table = [
        (&dirs[..], &in_place_of_dirs[..], "must be a directory of yours"),
        (&files, &in_place_of_files, "is in the way"),
        (&socket, &in_place_of_sockets, "is in the way"),
    ];
    let program = &bins().daemon;
    for (places, things, expect) in table {
        for ((name, place), thing) in places.iter().flat_map(|place| things.iter().map(move |thing| (place, *thing))) {
            let case = format!("{thing:?} in place of {name}");
            let home = Home::new();
            let (path, precious) = (place(&home.paths()), home.path().join("precious"));
            let parent = path.parent().expect("a parent");
            private(parent);
            if !put(thing, &path, &precious) {
                skipped(&format!("{case}: needs root"));
                continue;
            }
            let before = fs::symlink_metadata(&path).expect("there");
            let started = Instant::now();
            let output = home::run(home.command(program), b"").0;
            let printed = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{case}: {printed}");
            assert!(printed.contains(expect) && printed.contains("remove it"), "{case}: {printed}");
            assert!(started.elapsed() < Duration::from_secs(10), "{case}: {:?}", started.elapsed());
            untouched(&precious, &case);
            let after = fs::symlink_metadata(&path).expect("still there");
            assert_eq!((after.ino(), after.mode(), after.uid()), (before.ino(), before.mode(), before.uid()), "{case}");
        }
    }
}

#[test]
fn files_open_to_others_are_made_private_and_logged() {
    let home = Home::new();
    let paths = home.paths();
    assert!(home.daemon().terminate().success());
    let open = [(&paths.state, 0o755), (&paths.spool, 0o777), (&paths.database, 0o644), (&paths.lock, 0o666)];
    for (path, mode) in open.into_iter().chain([(&paths.log, 0o644)]) {
        chmod(path, mode);
    }
    let _daemon = home.daemon();
    for (path, open) in open.into_iter().chain([(&paths.log, 0o644)]) {
        assert_eq!(mode(path), open & 0o700, "{}", path.display());
        let printed = format!("path={}", path.display());
        assert!(home.log().lines().any(|line| line.contains("was open to other users") && line.ends_with(&printed)));
    }
}

#[test]
fn files_are_private_with_any_umask() {
    let (home, server) = (Home::new(), Server::new());
    let lax = |program: &Path| {
        let mut command = home.command(Path::new("/bin/sh"));
        command.arg("-c").arg("umask 0; exec \"$0\"").arg(program);
        command
    };
    let mut story = Story::new(&home, "work", "s");
    story.turn("q", "a");
    let mut hook = lax(&bins().hook);
    hook.envs(server.env());
    home::assert_silent(&home::run(hook, story.stop("a").to_string().as_bytes()).0);
    let paths = home.paths();
    assert_eq!((home.spooled().len(), mode(&paths.state), mode(&paths.spool)), (1, 0o700, 0o700));
    assert_eq!(mode(&home.spooled()[0]), 0o600);

    let mut daemon = Home::spawn(lax(&bins().daemon));
    home.wait_for(&mut daemon);
    home.hook(&story.stop("a"), &server.env());
    server.wait_for(2);
    let wal = paths.database.with_extension("db-wal");
    for file in [&paths.socket, &paths.lock, &paths.database, &wal, &paths.log] {
        assert_eq!(mode(file), 0o600, "{}", file.display());
    }
    if let Ok(limits) = fs::read_to_string(format!("/proc/{}/limits", daemon.pid())) {
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a limit");
        let fields: Vec<&str> = core.split_whitespace().collect();
        assert_eq!(fields[4..6], ["0", "0"], "{core}");
    }
}

#[test]
fn a_hook_writes_nothing_where_others_could_read_or_replace_it() {
    use Thing::*;
    let places: [Place; 2] = [("state", |paths| paths.state.clone()), ("spool", |paths| paths.spool.clone())];
    let things = [File, LinkToDirectory, LinkToFile, LinkToNothing, Fifo, OthersDirectory];
    let payload = |home: &Home| Story::new(home, "work", "s").stop("a");
    let env = server::env("http://127.0.0.1:1", "pk", "sk-secret");
    for ((name, place), thing) in places.iter().flat_map(|place| things.map(move |thing| (place, thing))) {
        let case = format!("{thing:?} in place of {name}");
        let home = Home::new();
        let (path, precious) = (place(&home.paths()), home.path().join("precious"));
        private(path.parent().expect("a parent"));
        if !put(thing, &path, &precious) {
            skipped(&format!("{case}: needs root"));
            continue;
        }
        home.hook(&payload(&home), &env);
        untouched(&precious, &case);
        assert_eq!(home.spooled(), Vec::<PathBuf>::new(), "{case}");
    }
    for ((name, place), open) in places.iter().flat_map(|place| [0o701, 0o710, 0o755, 0o777].map(|mode| (place, mode)))
    {
        let home = Home::new();
        let path = place(&home.paths());
        private(path.parent().expect("a parent"));
        private(&path);
        chmod(&path, open);
        home.hook(&payload(&home), &env);
        assert_eq!(home.spooled().iter().filter(|path| path.is_file()).count(), 0, "{name} with {open:o}");
        assert_eq!(mode(&path), open);
        chmod(&path, 0o700);
        home.hook(&payload(&home), &env);
        assert_eq!(home.spooled().iter().filter(|path| path.is_file()).count(), 1, "{name} closed again");
    }
}

#[test]
fn spool_files_of_other_users_are_counted_and_not_read() {
    let (home, server) = (Home::new(), Server::new());
    home.settings("work", &server.env());
    let mut story = Story::new(&home, "work", "s");
    story.turn("q", "a");
    home.hook(&story.stop("a"), &server.env());
    let event = fs::read(&home.spooled()[0]).expect("an event");
    let spool = home.paths().spool;
    let at = |name: &str| spool.join(name);
    fs::write(home.path().join("elsewhere"), &event).expect("written");
    fs::hard_link(home.path().join("elsewhere"), at("1.event")).expect("linked");
    symlink(home.path().join("elsewhere"), at("2.event")).expect("linked");
    fs::create_dir(at("3.event")).expect("made");
    fifo(&at("4.event"));
    fs::write(at("notes.txt"), "precious").expect("written");
    let mut expect = json!({"hard_link": 1, "not_a_file": 3, "unknown": 1});
    fs::write(at("5.event"), &event).expect("written");
    if give_away(&at("5.event")) {
        expect["other_owner"] = 1.into();
    } else {
        skipped("a spool file of another owner: needs root");
        fs::remove_file(at("5.event")).expect("removed");
    }
    let before = home.spooled().len();
    let _daemon = home.daemon();
    server.wait_for(2);
    home.flush();
    let status = home.status_until("the files to be counted", |status| status["left_in_spool"] == expect);
    assert_eq!(status["skipped_lines"], json!({}));
    assert_eq!(home.spooled().len(), before - 1, "only our own event is taken");
    assert_eq!(fs::read(home.path().join("elsewhere")).expect("there"), event);
    assert_eq!(home.log().matches("not everything in the spool").count(), 1, "{}", home.log());
}

/// Runs `work` as another user. Only this thread changes its user, which is what the system checks.
fn as_another<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let other = Uid::from_raw(OTHER);
            rustix::thread::set_thread_res_uid(other, other, other).expect("root may");
            work()
        });
        other.join().expect("it ends")
    })
}

#[test]
fn another_users_connection_is_closed_unread_and_counted() {
    if !root() {
        return;
    }
    let (home, server) = (Home::new(), Server::new());
    let daemon = home.daemon();
    let paths = home.paths();
    let refused = as_another(|| UnixStream::connect(&paths.socket).expect_err("the directory is closed"));
    assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
    // Every directory is open to all.
    let mut dir = paths.state.as_path();
    while dir.starts_with(home.path()) {
        chmod(dir, 0o755);
        dir = dir.parent().expect("a parent");
    }
    chmod(&paths.socket, 0o666);
    for count in 1..=3 {
        let answer = as_another(|| {
            let mut stream = UnixStream::connect(&paths.socket).expect("the doors are open");
            let _ = stream.write_all(b"GET /v1/status HTTP/1.1\r\nhost: x\r\n\r\n");
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            answer
        });
        assert_eq!(answer, b"");
        home.status_until("it to be counted", |status| status["skipped_lines"] == json!({"other_user": count}));
    }
    assert_eq!(home.log().matches("another user").count(), 1, "{}", home.log());
    chmod(&paths.state, 0o700);
    let mut story = Story::new(&home, "work", "s");
    story.turn("q", "a");
    home.hook(&story.stop("a"), &server.env());
    server.wait_for(2);
    drop(daemon);
}

#[test]
fn a_hook_sends_nothing_to_another_users_daemon() {
    if !root() {
        return;
    }
    let home = Home::new();
    let paths = home.paths();
    private(&paths.state);
    chmod(&paths.state, 0o777);
    let mut dir = paths.state.parent().expect("a parent");
    while dir.starts_with(home.path()) {
        chmod(dir, 0o755);
        dir = dir.parent().expect("a parent");
    }
    let listener = as_another(|| UnixListener::bind(&paths.socket).expect("the directory is open"));
    chmod(&paths.state, 0o700);
    let read = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut read = Vec::new();
            let _ = listener.accept().expect("the hook").0.read_to_end(&mut read);
            read
        });
        home.hook(&Story::new(&home, "work", "s").stop("a"), &server::env("http://127.0.0.1:1", "pk", "sk-secret"));
        reader.join().expect("it ends")
    });
    assert_eq!(read, b"");
    assert_eq!(home.spooled().len(), 1, "the event waits for our own daemon");
}

/// The daemon where another user can run it, with that user's home; without root, the present user is that user.
fn others_daemon(home: &Home) -> Command {
    let program = home.path().join("cc-langfused");
    // By another process: a fork of a parallel test would keep this copy open for writing (ETXTBSY).
    assert!(Command::new("cp").arg(&bins().daemon).arg(&program).status().expect("cp").success());
    let mut command = home.command(&program);
    if give_away(home.path()) {
        command.uid(OTHER).gid(OTHER);
    }
    command
}

#[test]
fn other_programs_of_the_user_cannot_read_the_daemons_memory() {
    let home = Home::new();
    let daemon = Home::spawn(others_daemon(&home));
    eventually("the daemon to listen", || UnixStream::connect(home.paths().socket).is_ok());
    // Linux makes root the owner of such a process's files in /proc.
    match fs::metadata(format!("/proc/{}/mem", daemon.pid())) {
        Ok(memory) => assert_eq!(memory.uid(), 0),
        Err(error) => skipped(&error.to_string()),
    }
}

#[test]
fn a_short_socket_directory_created_by_another_user_is_not_used() {
    if !root() {
        return;
    }
    let home = Home::new();
    let state = home.path().join("x".repeat(100));
    let short = PathBuf::from(format!("/tmp/cc-langfuse-{OTHER}"));
    for mode in [0o700, 0o777] {
        let _ = fs::remove_dir_all(&short);
        fs::create_dir(&short).expect("made");
        chmod(&short, mode);
        let mut command = others_daemon(&home);
        command.env("CC_LANGFUSE_STATE_DIR", &state).current_dir("/");
        let output = home::run(command, b"").0;
        let printed = String::from_utf8_lossy(&output.stderr).into_owned();
        let found = fs::read_dir(&short).expect("there").count();
        fs::remove_dir_all(&short).expect("removed");
        assert_eq!((output.status.code(), found), (Some(1), 0), "{printed}");
        assert!(printed.contains("must be a directory of yours"), "{printed}");
    }
}
