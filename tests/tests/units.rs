//! The daemon as a service: what it tells its manager, the socket it is handed, and the units it runs under.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, Permissions},
    io::{ErrorKind, Read, Write},
    os::{
        fd::OwnedFd,
        unix::{
            fs::{MetadataExt, PermissionsExt},
            net::{UnixDatagram, UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use proto::frame::Frame;
use tests::{Home, Server, Story, bins, eventually, home, server, until};

/// Overall exposure as `systemd-analyze security` counts it.
const EXPOSURE: f64 = 4.0;

const SERVICE: &str = include_str!("../../systemd/cc-langfused.service");
const NAMESPACES: &str = include_str!("../../systemd/cc-langfused.service.d/10-namespaces.conf");
const SOCKET: &str = include_str!("../../systemd/cc-langfused.socket");
const PLIST: &str = include_str!("../../launchd/cc-langfused.plist");

fn units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd")
}

/// What a directive of the service says, if it is there once.
fn directive(name: &str) -> &'static str {
    let values: Vec<_> = SERVICE.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('=')).collect();
    let [value] = values[..] else { panic!("{name} is there {} times", values.len()) };
    value
}

#[allow(clippy::print_stderr, reason = "a test that does not run says so")]
fn skipped(why: &str) {
    eprintln!("SKIPPED: {why}");
}

#[allow(clippy::print_stderr, reason = "a figure is to be seen")]
fn figure(what: &str) {
    eprintln!("{what}");
}

/// What `program args` prints; `None` if it cannot be run or fails.
fn output(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn every_directive_says_why() {
    for (name, unit) in [("service", SERVICE), ("namespaces", NAMESPACES), ("socket", SOCKET)] {
        let lines: Vec<_> = unit.lines().collect();
        for pair in lines.windows(2) {
            let silent = pair[1].contains('=') && !pair[1].starts_with('#') && !pair[0].starts_with('#');
            assert!(!silent || pair[1].starts_with("Description="), "{name}: {}", pair[1]);
        }
    }
    let lines: Vec<_> = PLIST.lines().collect();
    for pair in lines.windows(2) {
        assert!(!pair[1].starts_with("    <key>") || pair[0].ends_with("-->"), "plist: {}", pair[1]);
    }
}

#[test]
fn systemd_accepts_the_units_and_finds_them_hardened() {
    if output("systemd-analyze", &["--version"]).is_none() {
        return skipped("no systemd-analyze");
    }
    let home = Home::new();
    let program = home.path().join(".local/bin/cc-langfused");
    fs::create_dir_all(program.parent().expect("a parent")).expect("made");
    fs::copy(&bins().daemon, &program).expect("installed");
    let analyze = |args: &[&str]| {
        let mut command = home.command(Path::new("systemd-analyze"));
        command.env("XDG_RUNTIME_DIR", home.path()).arg("--user").args(args).current_dir(units());
        let output = home::run(command, b"").0;
        assert!(output.status.success(), "{args:?}: {output:?}");
        (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (said, complained) = analyze(&["verify", "cc-langfused.service", "cc-langfused.socket"]);
    assert_eq!((&*said, &*complained), ("", ""));

    let exposure = |unit: &str| -> f64 {
        let report = analyze(&["security", "--offline=true", "--no-pager", unit]).0;
        let overall = report.lines().find(|line| line.contains("Overall exposure")).expect("an overall figure");
        overall.split_whitespace().find_map(|word| word.parse().ok()).expect("a number")
    };
    let hardened = exposure("./cc-langfused.service");
    let plain = home.path().join("cc-langfused.service");
    fs::write(&plain, SERVICE).expect("written");
    let plain = exposure(plain.to_str().expect("UTF-8"));
    figure(&format!("exposure {hardened}, {plain} without the drop-in"));
    assert!(hardened <= EXPOSURE && hardened < plain && plain <= 6.5, "{hardened} {plain}");
}

/// A manager's end of `NOTIFY_SOCKET`.
fn notified(home: &Home) -> (UnixDatagram, String) {
    let path = home.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("bound");
    socket.set_read_timeout(Some(tests::PATIENCE)).expect("set");
    (socket, path.to_str().expect("UTF-8").to_owned())
}

fn received(socket: &UnixDatagram) -> String {
    let mut state = [0; 256];
    let length = socket.recv(&mut state).expect("told in time");
    String::from_utf8_lossy(&state[..length]).into_owned()
}

#[test]
fn the_manager_is_told_when_the_socket_answers_and_when_the_end_begins() {
    for _ in 0..5 {
        let home = Home::new();
        let (manager, path) = notified(&home);
        let daemon = home.spawn_daemon(&[("NOTIFY_SOCKET", &path)]);
        assert_eq!(received(&manager), "READY=1");
        assert_eq!(home.status()["daemon"]["pid"], daemon.pid(), "at the first try");
        let mut second = home.spawn_daemon(&[("NOTIFY_SOCKET", &path)]);
        assert_eq!(received(&manager), "STATUS=another daemon of this user is running");
        assert!(second.ended().success());
        assert!(daemon.terminate().success());
        assert_eq!(received(&manager), "STOPPING=1");
        manager.set_nonblocking(true).expect("set");
        assert_eq!(manager.recv(&mut [0]).expect_err("nothing more").kind(), ErrorKind::WouldBlock);
    }
}

#[test]
fn a_manager_that_is_gone_is_no_reason_to_fail() {
    let home = Home::new();
    let daemon = home.daemon_with(&[("NOTIFY_SOCKET", "/nonexistent/notify")]);
    assert!(daemon.terminate().success());
}

/// A socket where hooks look for it, as a manager makes it.
fn activated(home: &Home) -> UnixListener {
    let paths = home.paths();
    fs::create_dir_all(&paths.state).expect("made");
    fs::set_permissions(&paths.state, Permissions::from_mode(0o700)).expect("closed");
    UnixListener::bind(&paths.socket).expect("bound")
}

/// The daemon, handed `socket` as systemd does it.
fn command_with(home: &Home, socket: impl Into<OwnedFd>) -> Command {
    let mut command = home.command(Path::new("sh"));
    command.args(["-c", r#"exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec "$0""#]).arg(&bins().daemon);
    command.stdin(Stdio::from(socket.into()));
    command
}

#[test]
fn who_knocks_before_the_daemon_runs_is_answered_by_it() {
    let (home, server) = (Home::new(), Server::new());
    let socket = activated(&home);
    let path = home.paths().socket;
    let inode = || fs::symlink_metadata(&path).expect("there").ino();
    let made = inode();

    // One event over the queued connection alone; one whose hook went away and left a file as well.
    let (mut patient, mut hasty) = (Story::new(&home, "work", "patient"), Story::new(&home, "work", "hasty"));
    patient.turn("q", "a");
    hasty.turn("q", "a");
    let frame = Frame {
        id: "0123456789abcdef".into(),
        fired_ns: 1_763_683_200_000_000_000,
        cut: false,
        env: server.env(),
        payload: patient.stop("a").to_string().into_bytes(),
    };
    let body = frame.encode();
    let mut waiting = UnixStream::connect(&path).expect("queued");
    write!(waiting, "POST /v1/hook HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len())
        .and_then(|()| waiting.write_all(&body))
        .expect("sent");
    home.hook(&hasty.stop("a"), &server.env());
    assert_eq!(home.spooled().len(), 1);

    let daemon = Home::spawn(command_with(&home, socket.try_clone().expect("cloned")));
    let mut answer = String::new();
    waiting.set_read_timeout(Some(tests::PATIENCE)).expect("set");
    waiting.read_to_string(&mut answer).expect("answered");
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    server.wait_for(4);
    home.flush();
    assert_eq!((server.spans().len(), home.spooled().len()), (4, 0));

    // Another one is refused by the lock, and leaves the socket to the first.
    assert!(Home::spawn(command_with(&home, socket.try_clone().expect("cloned"))).ended().success());
    assert_eq!(home.status()["daemon"]["pid"], daemon.pid());

    // The socket is the manager's: it stays, and serves the next.
    assert!(daemon.terminate().success());
    assert_eq!(inode(), made);
    let daemon = Home::spawn(command_with(&home, socket.try_clone().expect("cloned")));
    assert_eq!((&home.status()["daemon"]["pid"], inode()), (&daemon.pid().into(), made));
    daemon.kill();
    assert_eq!(inode(), made);
}

#[test]
fn a_passed_socket_that_nobody_can_reach_is_replaced_by_one_of_ours() {
    let home = Home::new();
    let socket = activated(&home);
    fs::remove_file(home.paths().socket).expect("removed");
    let mut daemon = Home::spawn(command_with(&home, socket));
    home.wait_for(&mut daemon);
    assert_eq!(home.status()["daemon"]["pid"], daemon.pid());
    assert!(daemon.terminate().success());
    assert!(!home.paths().socket.exists(), "this one was ours to remove");
}

#[test]
fn a_passed_socket_that_is_not_the_one_hooks_look_for_is_refused() {
    let home = Home::new();
    let right = activated(&home);
    let elsewhere = UnixListener::bind(home.path().join("elsewhere")).expect("bound");
    let datagrams = UnixDatagram::bind(home.path().join("datagrams")).expect("bound");
    let (nameless, _peer) = UnixStream::pair().expect("a pair");
    let silent = {
        fs::remove_file(home.paths().socket).expect("removed");
        let unix = rustix::net::AddressFamily::UNIX;
        let socket = rustix::net::socket(unix, rustix::net::SocketType::STREAM, None).expect("a socket");
        let address = rustix::net::SocketAddrUnix::new(&home.paths().socket).expect("short");
        rustix::net::bind(&socket, &address).expect("bound");
        socket
    };
    let file = fs::File::open(&bins().daemon).expect("open");
    let wrong: [(OwnedFd, &str); 5] = [
        (elsewhere.into(), "it is /"),
        (datagrams.into(), "not a valid unix stream socket"),
        (nameless.into(), "it has no path"),
        (silent, "it does not listen"),
        (file.into(), "not a socket"),
    ];
    for (socket, why) in wrong {
        let mut command = command_with(&home, socket);
        let said = home.path().join("said");
        command.stderr(fs::File::create(&said).expect("made"));
        let ended = Home::spawn(command).ended();
        let told = fs::read_to_string(said).expect("there");
        assert!(ended.code() == Some(1) && told.contains(why) && told.contains("socket unit"), "{why}: {told}");
        assert!(home.paths().socket.exists(), "{why}");
    }
    drop(right);
}

#[test]
fn sockets_meant_for_another_process_are_left_alone() {
    let home = Home::new();
    let daemon = home.daemon_with(&[("LISTEN_FDS", "1"), ("LISTEN_PID", "1")]);
    assert_eq!(home.status()["daemon"]["pid"], daemon.pid());
}

/// The system calls of a set, the sets in it unfolded.
fn calls(set: &str, found: &mut BTreeSet<String>) -> Option<()> {
    let Some(set) = set.strip_prefix('@') else {
        found.insert(set.to_owned());
        return Some(());
    };
    for line in output("systemd-analyze", &["--no-pager", "syscall-filter", &format!("@{set}")])?.lines().skip(1) {
        let line = line.trim();
        if !line.is_empty() && !line.starts_with('#') {
            calls(line, found)?;
        }
    }
    Some(())
}

/// What the service's `SystemCallFilter=` lines let through.
fn allowed() -> Option<BTreeSet<String>> {
    let mut allowed = BTreeSet::new();
    for line in SERVICE.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let mut named = BTreeSet::new();
        for set in line.trim_start_matches('~').split(' ') {
            calls(set, &mut named)?;
        }
        if line.starts_with('~') {
            allowed.retain(|call| !named.contains(call));
        } else {
            allowed.append(&mut named);
        }
    }
    Some(allowed)
}

#[test]
fn every_system_call_of_a_whole_life_passes_the_filter() {
    let Some(allowed) = allowed() else { return skipped("no systemd-analyze") };
    if output("strace", &["-qq", "-o", "/dev/null", "true"]).is_none() {
        return skipped("no strace, or it may not trace");
    }
    assert!(allowed.contains("read") && !allowed.contains("mount") && !allowed.contains("setpriority"));
    let (home, server) = (Home::new(), Server::new());
    let trace = home.path().join("trace");
    let (manager, notify) = notified(&home);
    let mut command = home.command(Path::new("strace"));
    // -D: the tracer is the grandchild, and what is started here is the daemon.
    command.args(["-D", "-f", "-q", "-o"]).arg(&trace).arg(&bins().daemon).env("NOTIFY_SOCKET", notify);
    let daemon = Home::spawn(command);
    assert_eq!(received(&manager), "READY=1");

    let mut story = Story::new(&home, "work", "s");
    story.prompt("q").thinking("hm");
    let named = |scheme: &str| {
        let port = server.url.rsplit(':').next().expect("a port");
        server::env(&format!("{scheme}://localhost:{port}"), "pk", "sk")
    };
    home.hook(&story.stop("a"), &named("http"));
    // Seen by inotify: the hook came before the line.
    story.rest("a");
    server.wait_for(2);
    // A server that speaks no TLS: far enough to have read the certificates and said hello.
    let mut other = Story::new(&home, "other", "t");
    other.turn("q", "a");
    home.hook(&other.stop("a"), &named("https"));
    home.status_until("the failed handshake", |status| {
        let all = status["destinations"].as_array();
        all.is_some_and(|all| {
            all.iter().any(|one| one["base_url"] == named("https")[3].1 && !one["last_error"].is_null())
        })
    });
    assert_eq!(home.ctl(&["flush", "--timeout", "50ms"]).status.code(), Some(1));
    let peak = daemon.peak_kib();
    assert!(daemon.terminate().success());

    let trace = until("the trace to end", || {
        let trace = fs::read_to_string(&trace).ok()?;
        let ended = trace.lines().filter(|line| line.ends_with("+++ exited with 0 +++")).count();
        let threads = trace.lines().filter_map(|line| line.split(' ').next()).collect::<BTreeSet<_>>().len();
        (ended == threads).then_some(trace)
    });
    let (mut used, mut wrong) = (BTreeMap::<&str, u32>::new(), Vec::new());
    for line in trace.lines() {
        let (_, call) = line.split_once(' ').expect("pid call");
        let call = call.trim_start();
        let Some((name, args)) = call.split_once('(').filter(|_| !call.starts_with(['<', '+', '-'])) else { continue };
        *used.entry(name).or_default() += 1;
        let both = matches!(name, "mmap" | "mprotect") && args.contains("PROT_WRITE") && args.contains("PROT_EXEC");
        let family = name == "socket" && !["AF_UNIX", "AF_INET", "AF_INET6"].iter().any(|one| args.starts_with(one));
        // glibc asks which addresses the machine has, and does without an answer: see the test under a manager.
        if both || family && !args.starts_with("AF_NETLINK") {
            wrong.push(line);
        }
    }
    assert_eq!(wrong, Vec::<&str>::new(), "memory to write and execute, or another kind of socket");
    for telling in ["inotify_add_watch", "connect", "sendto", "fsync", "accept4", "flock"] {
        assert!(used.contains_key(telling), "{telling}: not a whole life: {used:?}");
    }
    // SQLite gives its files to the database's owner when it runs as root, and does not mind if it may not.
    let root = rustix::process::geteuid().is_root();
    let refused: Vec<_> =
        used.keys().filter(|name| !(allowed.contains(**name) || root && **name == "fchown")).collect();
    figure(&format!("{} different system calls, {peak:?} KiB at most", used.len()));
    assert!(refused.is_empty(), "{refused:?}");
}

const NO_NAMESPACES: &str = "no unshare or ip, or namespaces are forbidden";

/// The daemon, started after `setup` in a user and mount namespace and in those `with` names; `None` if that cannot be had.
fn unshared(home: &Home, with: &str, setup: &str) -> Option<Command> {
    let command = |then: &str| {
        let mut command = home.command(Path::new("unshare"));
        command
            .args(["--map-root-user", "--mount", with, "sh", "-ec", &format!("{setup}\n{then}")])
            .arg(&bins().daemon);
        command.stdin(Stdio::null());
        command
    };
    let possible = command("exit 0").stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    possible.then(|| command("exec \"$0\""))
}

#[test]
fn a_home_it_may_only_read_will_do_but_for_the_state() {
    let (home, server) = (Home::new(), Server::new());
    fs::create_dir_all(home.path().join(".claude/state")).expect("made");
    home.settings("work", &server.env());
    // What ProtectHome= and ReadWritePaths= come to, for those who have no systemd.
    let mounts = r#"mount --bind "$HOME" "$HOME"
        mount --bind "$HOME/.claude/state" "$HOME/.claude/state"
        mount -o remount,bind,ro "$HOME""#;
    let mut story = Story::new(&home, "work", "s");
    for turn in 1..=2 {
        let Some(command) = unshared(&home, "--ipc", mounts) else { return skipped(NO_NAMESPACES) };
        let mut daemon = Home::spawn(command);
        home.wait_for(&mut daemon);
        let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", daemon.pid())).expect("Linux");
        assert!(mounts.contains(&format!(" {} ro,", home.path().display())), "{mounts}");
        story.turn("q", "a");
        home.hook(&story.stop("a"), &server.env());
        server.wait_for(2 * turn);
        home.flush();
        assert!(daemon.terminate().success());
    }
    assert!(home.log().contains("stopped"), "the log lies beside the state directory");
}

#[test]
fn a_name_server_that_hangs_takes_few_threads_and_delays_no_stop() {
    const SERVERS: usize = 12;
    let home = Home::new();
    fs::write(home.path().join("resolv.conf"), "nameserver 10.99.99.99\n").expect("written");
    // A network whose packets go nowhere.
    let network = "ip link set lo up && ip link add here type veth peer name there && ip link set here up && \
                   ip link set there up && ip addr add 10.99.99.1/24 dev here && \
                   ip neigh add 10.99.99.99 lladdr 02:00:00:00:00:01 dev here && \
                   mount --bind \"$HOME/resolv.conf\" /etc/resolv.conf";
    let Some(command) = unshared(&home, "--net", network) else { return skipped(NO_NAMESPACES) };
    let mut daemon = Home::spawn(command);
    home.wait_for(&mut daemon);
    for number in 0..SERVERS {
        let project = format!("p{number}");
        let mut story = Story::new(&home, &project, &project);
        story.turn("q", "a");
        home.hook(&story.stop("a"), &server::env(&format!("https://{project}.example"), "pk", "sk"));
    }
    home.status_until("all names to be looked up", |status| status["outbox"]["in_flight"] == 2 * SERVERS);
    let threads = fs::read_dir(format!("/proc/{}/task", daemon.pid())).expect("Linux").count();
    let most: usize = directive("TasksMax").parse().expect("a number");
    figure(&format!("{threads} threads with {SERVERS} lookups hanging, TasksMax={most}"));
    assert!(2 * threads <= most, "{threads}");
    let started = Instant::now();
    assert!(daemon.terminate().success());
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

/// Starts systemd user managers, for which root is needed; see `src/user-manager.sh`.
struct Manager {
    /// Of their own, for they insist on managing one.
    cgroup: PathBuf,
}

impl Manager {
    fn new() -> Option<Self> {
        let tools = "test $(id -u) = 0 && command -v unshare setpriv systemctl mount timeout && { test -x /lib/systemd/systemd || \
                     test -x /usr/lib/systemd/systemd; }";
        output("sh", &["-c", tools])?;
        let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
        let hierarchy = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"))?.split(' ').nth(1)?;
        let name = format!("cc-langfuse-{}-{:?}", std::process::id(), std::thread::current().id());
        let cgroup = Path::new(hierarchy).join(name.replace(['(', ')'], ""));
        fs::create_dir(&cgroup).ok()?;
        let manager = Self { cgroup };
        let owned = format!("chown -R 4242:4242 {}", manager.cgroup.display());
        output("sh", &["-c", &owned])?;
        Some(manager)
    }

    /// What `script` prints, run by a user whose home `home` is seen `at` a path below `/home`.
    fn run(&self, home: &Home, at: &str, namespaces: bool, script: &str) -> String {
        let mut command = Command::new("timeout");
        command.args(["-k", "1", "60", "sh", "-c"]);
        command.arg(r#"echo $$ >"$0" && exec unshare --mount --pid --cgroup --fork --kill-child sh "$@""#);
        command.arg(self.cgroup.join("cgroup.procs"));
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/user-manager.sh"));
        command.arg(home.path()).args([at, if namespaces { "yes" } else { "no" }, script]);
        let output = home::run(command, b"").0;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}\n{}\n{}", String::from_utf8_lossy(&output.stderr), home.log());
        said
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let empty = format!("find {} -depth -type d -exec rmdir {{}} ';'", self.cgroup.display());
        eventually("the processes to be gone", || output("sh", &["-c", &empty]).is_some() || !self.cgroup.exists());
    }
}

const NO_MANAGER: &str = "not root, or no systemd, or no cgroup to give it";

/// A home with programs and units installed as the README says, to be seen `at` a path; in it a session to be told to `server`, whose
/// name is to be looked up.
fn installed(server: &Server, at: &str, with: &[&str]) -> Home {
    let home = Home::new();
    let (programs, to) = (home.path().join(".local/bin"), home.path().join(".config/systemd/user"));
    fs::create_dir_all(&programs).expect("made");
    fs::create_dir_all(to.join("cc-langfused.service.d")).expect("made");
    for program in [&bins().daemon, &bins().hook, &bins().ctl] {
        fs::copy(program, programs.join(program.file_name().expect("a name"))).expect("installed");
    }
    for unit in with {
        fs::copy(units().join(unit), to.join(unit)).expect("installed");
    }
    let inside = |path: &Path| Path::new(at).join(path.strip_prefix(home.path()).expect("in the home"));
    let mut story = Story::new(&home, "work", "s");
    story.cwd = inside(&story.cwd);
    story.turn("q", "a");
    story.path = inside(&story.path);
    fs::write(home.path().join("stop.json"), story.stop("a").to_string()).expect("written");
    let url = server.url.replace("127.0.0.1", "localhost");
    let env: String = server::env(&url, "pk", "sk").iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    fs::write(home.path().join("env"), env).expect("written");
    home
}

const ALL: [&str; 3] = ["cc-langfused.service", "cc-langfused.service.d/10-namespaces.conf", "cc-langfused.socket"];

/// As Claude Code does.
const HOOK: &str = "env $(cat env) .local/bin/cc-langfuse-hook <stop.json";

/// What a process's own files say about how it is locked in.
const LOOK: &str = "pid=$(systemctl --user show -P MainPID cc-langfused)
    grep -E '^(Seccomp|NoNewPrivs|CapBnd):' /proc/$pid/status | tr '\\t' ' '
    grep -E '^Max (core|open)' /proc/$pid/limits | tr -s ' '
    cut -d ' ' -f 5,6 /proc/$pid/mountinfo
    cut -d ' ' -f 19 /proc/$pid/stat | sed 's/^/nice /'";

fn one_line(said: &str, line: &str) {
    assert!(said.lines().any(|one| one == line || one.starts_with(&format!("{line},"))), "no {line:?} in\n{said}");
}

#[test]
fn it_runs_as_a_user_service_under_every_directive_and_is_started_by_the_first_hook() {
    let Some(manager) = Manager::new() else { return skipped(NO_MANAGER) };
    let server = Server::new();
    let home = installed(&server, "/home/dev", &ALL);
    // Nothing of ours is there before the first start. The hook either waits for the daemon or leaves a file beside.
    let script = format!(
        "[ ! -e .claude/state ]
        systemctl --user enable --now cc-langfused.socket 2>/dev/null
        systemctl --user is-active cc-langfused || true
        {HOOK}
        systemctl --user start cc-langfused
        systemctl --user is-active cc-langfused
        .local/bin/cc-langfusectl flush --timeout 20s
        .local/bin/cc-langfusectl status
        {LOOK}
        systemctl --user stop cc-langfused.socket cc-langfused
        systemctl --user show -P Result cc-langfused
        [ ! -e .claude/state/cc-langfuse/daemon.sock ]"
    );
    let said = manager.run(&home, "/home/dev", true, &script);
    assert!(said.starts_with("inactive\nactive\n"), "{said}");
    assert_eq!((server.spans().len(), home.spooled().len()), (2, 0), "{said}");
    let expected = [
        "spans 0 waiting, 0 on their way, 0 undeliverable",
        "NoNewPrivs: 1",
        "Seccomp: 2",
        "CapBnd: 0000000000000000",
        "Max core file size 0 0 bytes ",
        "Max open files 1024 1024 files ",
        "nice 5",
        "/ ro",
        "/home ro",
        "/home/dev ro",
        "/home/dev/.claude/state rw",
        "/tmp rw",
        "/tmp/cc-langfuse-4242 rw",
        "success",
    ];
    let said =
        said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") + "\n").collect::<String>();
    expected.iter().for_each(|line| one_line(&said, line.trim()));
}

#[test]
fn it_runs_where_namespaces_are_forbidden_if_the_drop_in_is_left_out() {
    let Some(manager) = Manager::new() else { return skipped(NO_MANAGER) };
    let server = Server::new();
    let home = installed(&server, "/home/dev", &ALL);
    let script = format!(
        "! systemctl --user start cc-langfused 2>/dev/null
        systemctl --user show -P ExecMainStatus cc-langfused
        rm .config/systemd/user/cc-langfused.service.d/*
        systemctl --user daemon-reload
        systemctl --user restart cc-langfused
        {HOOK}
        .local/bin/cc-langfusectl flush --timeout 20s
        {LOOK}"
    );
    let said = manager.run(&home, "/home/dev", false, &script);
    assert!(said.starts_with("217\n"), "{said}");
    assert_eq!(server.spans().len(), 2);
    ["NoNewPrivs: 1", "Seccomp: 2", "/home rw", "nice 5"].iter().for_each(|line| one_line(&said, line));
}

#[test]
fn a_socket_below_tmp_is_reached_though_the_daemons_tmp_is_its_own() {
    let Some(manager) = Manager::new() else { return skipped(NO_MANAGER) };
    let server = Server::new();
    let at = format!("/home/{}", "d".repeat(60));
    let home = installed(&server, &at, &ALL[..2]);
    let script = format!(
        "systemctl --user start cc-langfused
        {HOOK}
        ls .claude/state/cc-langfuse/spool /tmp/cc-langfuse-4242
        .local/bin/cc-langfusectl flush --timeout 20s
        {LOOK}"
    );
    let said = manager.run(&home, &at, true, &script);
    assert_eq!(server.spans().len(), 2);
    assert!(said.contains(".sock\n") && !said.contains(".event"), "{said}");
    one_line(&said, "/tmp/cc-langfuse-4242 rw");
}

#[test]
fn the_plist_is_well_formed_and_says_what_launchd_is_to_do() {
    let mut text = PLIST.to_owned();
    while let Some(start) = text.find("<!--") {
        let end = text[start..].find("-->").expect("a comment that ends") + start;
        assert!(!text[start + 4..end].contains("--"), "two hyphens in a comment");
        text.replace_range(start..end + 3, "");
    }
    // Leaves as `path value`, elements on the way joined by their keys.
    let (mut open, mut keys, mut leaves) = (Vec::new(), vec![String::new()], BTreeMap::new());
    for part in text.split('<').skip(1) {
        let (tag, content) = part.split_once('>').expect("a tag that ends");
        let content = content.trim();
        if tag.starts_with(['?', '!']) {
            continue;
        }
        if let Some(closed) = tag.strip_suffix('/') {
            leaves.insert(keys.join("/"), closed.to_owned());
        } else if let Some(closed) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(closed));
            if matches!(closed, "dict" | "array") {
                keys.pop();
            }
        } else {
            let name = tag.split(' ').next().expect("a name");
            open.push(name);
            match name {
                "key" => *keys.last_mut().expect("in a dict") = content.to_owned(),
                "dict" | "array" => keys.push(String::new()),
                "plist" => {}
                _ => {
                    assert_eq!(leaves.insert(keys.join("/"), content.to_owned()), None, "{content} twice");
                }
            }
        }
    }
    assert_eq!(open, Vec::<&str>::new());
    let mask = format!("{}", 0o077);
    for (key, value) in [
        ("Label", "cc-langfused"),
        ("ProgramArguments/", "/Users/YOU/.local/bin/cc-langfused"),
        ("RunAtLoad", "true"),
        ("KeepAlive/SuccessfulExit", "false"),
        ("ThrottleInterval", "10"),
        ("ProcessType", "Background"),
        ("LowPriorityIO", "true"),
        ("Umask", &*mask),
        ("SoftResourceLimits/NumberOfFiles", directive("LimitNOFILE")),
        ("SoftResourceLimits/Core", directive("LimitCORE")),
        ("HardResourceLimits/Core", directive("LimitCORE")),
    ] {
        assert_eq!(leaves.get(&format!("/{key}")).map(String::as_str), Some(value), "{key}: {leaves:?}");
    }
}
