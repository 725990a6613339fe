//! The daemon works within the limits of its unit: system calls, a read-only home, few threads.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use tests::{
    Home, Server, Story, bins, say, server, skipped,
    units::{SERVICE, directive, notified, output, received},
    until,
};

/// The system calls of a set, including those of nested sets.
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

/// The system calls that the service's `SystemCallFilter=` allows.
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
fn every_system_call_of_a_daemon_passes_the_filter() {
    let Some(allowed) = allowed() else { return skipped("no systemd-analyze") };
    if output("strace", &["-qq", "-o", "/dev/null", "true"]).is_none() {
        return skipped("no strace, or it may not trace");
    }
    assert!(allowed.contains("read") && !allowed.contains("mount") && !allowed.contains("setpriority"));
    let (home, server) = (Home::new(), Server::new());
    let trace = home.path().join("trace");
    let (manager, notify) = notified(&home);
    let mut command = home.command(Path::new("strace"));
    // -D makes the tracer the grandchild, so the process started here is the daemon.
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
    // A server without TLS: reading the certificates and the first message are enough.
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
        // glibc asks for the machine's addresses, and works without an answer: see the test under a manager.
        if both || family && !args.starts_with("AF_NETLINK") {
            wrong.push(line);
        }
    }
    assert_eq!(wrong, Vec::<&str>::new(), "memory to write and execute, or another kind of socket");
    for telling in ["inotify_add_watch", "connect", "sendto", "fsync", "accept4", "flock"] {
        assert!(used.contains_key(telling), "{telling}: not a whole life: {used:?}");
    }
    // As root, SQLite gives its files to the database's owner, and continues if it may not.
    let root = rustix::process::geteuid().is_root();
    let refused: Vec<_> =
        used.keys().filter(|name| !(allowed.contains(**name) || root && **name == "fchown")).collect();
    say(&format!("{} different system calls, {peak:?} KiB at most", used.len()));
    assert!(refused.is_empty(), "{refused:?}");
}

const NO_NAMESPACES: &str = "no unshare or ip, or namespaces are forbidden";

/// The daemon, started after `setup` in a user and mount namespace and those of `with`; `None` if that is
/// not permitted.
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
fn a_read_only_home_suffices_except_for_the_state_directory() {
    let (home, server) = (Home::new(), Server::new());
    fs::create_dir_all(home.path().join(".claude/state")).expect("made");
    home.settings("work", &server.env());
    // The effect of ProtectHome= and ReadWritePaths=, for machines without systemd.
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
    // A network that drops all packets.
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
    say(&format!("{threads} threads with {SERVERS} lookups hanging, TasksMax={most}"));
    assert!(2 * threads <= most, "{threads}");
    let started = Instant::now();
    assert!(daemon.terminate().success());
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}
