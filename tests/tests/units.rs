//! The units of the daemon: their content, and that it runs under every directive.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tests::{
    Home, Server, Story, bins, eventually, home, say, server, skipped,
    units::{SERVICE, directive, output},
};

/// Overall exposure as counted by `systemd-analyze security`.
const EXPOSURE: f64 = 4.0;

const NAMESPACES: &str = include_str!("../../systemd/cc-langfused.service.d/10-namespaces.conf");

const SOCKET: &str = include_str!("../../systemd/cc-langfused.socket");

const PLIST: &str = include_str!("../../launchd/cc-langfused.plist");

fn units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd")
}

#[test]
fn every_directive_has_a_comment() {
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
    say(&format!("exposure {hardened}, {plain} without the drop-in"));
    assert!(hardened <= EXPOSURE && hardened < plain && plain <= 6.5, "{hardened} {plain}");
}

/// Starts systemd user managers, which needs root; see `src/user-manager.sh`.
struct Manager {
    /// Its own control group, because a manager must manage one.
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

    /// The output of `script`, run by a user whose home `home` is mounted at `at`, a path below `/home`.
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

/// A home with programs and units installed as in the README, to be mounted at `at`, and a session for `server`, whose
/// name must be resolved.
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

/// Runs the hook like Claude Code.
const HOOK: &str = "env $(cat env) .local/bin/cc-langfuse-hook <stop.json";

/// How a process is confined, from its own files in /proc.
const LOOK: &str = "pid=$(systemctl --user show -P MainPID cc-langfused)
    grep -E '^(Seccomp|NoNewPrivs|CapBnd):' /proc/$pid/status | tr '\\t' ' '
    grep -E '^Max (core|open)' /proc/$pid/limits | tr -s ' '
    cut -d ' ' -f 5,6 /proc/$pid/mountinfo
    cut -d ' ' -f 19 /proc/$pid/stat | sed 's/^/nice /'";

fn one_line(said: &str, line: &str) {
    assert!(said.lines().any(|one| one == line || one.starts_with(&format!("{line},"))), "no {line:?} in\n{said}");
}

#[test]
fn as_a_user_service_the_daemon_is_started_by_the_first_hook() {
    let Some(manager) = Manager::new() else { return skipped(NO_MANAGER) };
    let server = Server::new();
    let home = installed(&server, "/home/dev", &ALL);
    // None of this program's files exist before the first start. The hook either waits for the daemon or leaves a file.
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
        "observations 0 waiting, 0 on their way, 0 undeliverable",
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
fn without_namespaces_the_daemon_runs_if_the_drop_in_is_left_out() {
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
fn a_socket_below_tmp_is_reachable_despite_a_private_tmp() {
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
fn the_plist_is_well_formed_and_complete() {
    let mut text = PLIST.to_owned();
    while let Some(start) = text.find("<!--") {
        let end = text[start..].find("-->").expect("a comment that ends") + start;
        assert!(!text[start + 4..end].contains("--"), "two hyphens in a comment");
        text.replace_range(start..end + 3, "");
    }
    // Leaves as `path value`, with the keys on the way joined.
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
