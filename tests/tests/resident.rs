//! The daemon without a service manager: commands start, stop and restart it, hooks start it if the user wants that,
//! there is never more than one, and a replaced program is noticed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, getsid, kill_process, test_kill_process};
use tests::{Home, Server, Story, bins, eventually, home, setup};

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// True while it runs: a process that has exited may still be in the process table.
fn lives(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    test_kill_process(pid).is_ok() && !stat.contains(") Z ")
}

/// A home with copies of the programs; a daemon that still runs there at the end is killed.
struct Place {
    home: Home,
    bin: PathBuf,
}

impl Place {
    fn new() -> Self {
        let home = Home::new();
        let bin = home.install();
        Self { home, bin }
    }

    /// `cc-langfusectl` without a service manager.
    fn ctl(&self, args: &[&str]) -> Output {
        let mut command = self.home.command(&self.bin.join("cc-langfusectl"));
        let path = self.home.project("path");
        command.args(args).env("PATH", path).current_dir(self.home.project("work"));
        home::run(command, b"").0
    }

    fn done(&self, args: &[&str]) -> String {
        let output = self.ctl(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {output:?}");
        said(&output)
    }

    /// The process id of the daemon that answers.
    fn pid(&self) -> Option<Pid> {
        let output = self.ctl(&["status", "--json"]);
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        Pid::from_raw(status["daemon"]["pid"].as_i64()?.try_into().ok()?)
    }

    /// Runs the hook like Claude Code, in the directory of a project with its own environment.
    fn hook(&self, story: &Story, server: &Server, env: &[(&str, &Path)]) -> Duration {
        let mut command = self.home.command(&self.bin.join("cc-langfuse-hook"));
        command.envs(server.env()).envs(env.iter().copied()).current_dir(&story.cwd);
        let (output, took) = home::run(command, story.stop("a").to_string().as_bytes());
        assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
        took
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(pid) = self.pid() {
            let _ = kill_process(pid, Signal::TERM);
            let deadline = Instant::now() + Duration::from_secs(20);
            while lives(pid) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

#[test]
fn the_daemon_is_started_stopped_and_restarted_without_a_terminal() {
    let place = Place::new();
    let missing = place.ctl(&["status"]);
    assert_eq!(missing.status.code(), Some(3), "{missing:?}");
    assert!(said(&missing).contains("cc-langfusectl start"), "{missing:?}");
    assert!(place.done(&["start"]).contains("started, pid"));
    let first = place.pid().expect("it runs");
    assert_eq!(getsid(Some(first)).expect("a session"), first, "it leads a session of its own");
    let env = fs::read_link(format!("/proc/{}/cwd", first.as_raw_nonzero()));
    assert!(env.is_err() || env.is_ok_and(|cwd| cwd == Path::new("/")));
    assert!(place.done(&["start"]).contains("already"));
    assert_eq!(place.pid(), Some(first));
    place.done(&["restart"]);
    let second = place.pid().expect("it runs");
    assert!(second != first && !lives(first));
    assert!(place.done(&["stop"]).contains("stopped"));
    assert!(!lives(second));
    assert!(place.done(&["stop"]).contains("not running"));
    place.done(&["restart"]);
    assert!(place.pid().is_some());
}

#[test]
fn restart_leaves_the_daemon_alone_if_its_configuration_is_broken() {
    let place = Place::new();
    place.done(&["start"]);
    let first = place.pid().expect("it runs");
    let config = place.home.paths().config;
    for (bytes, why) in [(&b"outbox_mib = = 3\n"[..], "line 1"), (b"\xff\xfe", "it is not UTF-8")] {
        place.home.configure("");
        fs::write(&config, bytes).expect("written");
        let refused = place.ctl(&["restart"]);
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        let said = said(&refused);
        assert!(said.contains("the daemon was left as it is") && said.matches(why).count() == 1, "{said}");
        assert!(lives(first) && place.pid() == Some(first));
    }
}

#[test]
fn starting_a_second_daemon_reports_the_running_one() {
    let place = Place::new();
    place.done(&["start"]);
    let mut command = place.home.command(&place.bin.join("cc-langfused"));
    command.current_dir(place.home.path());
    let second = home::run(command, b"").0;
    assert_eq!(second.status.code(), Some(0), "{second:?}");
    assert!(said(&second).contains("already running") && said(&second).contains("cc-langfusectl"), "{second:?}");
}

#[test]
fn a_replaced_program_is_reported_until_the_restart() {
    for is_moved in [true, false] {
        let place = Place::new();
        place.done(&["start"]);
        place.done(&["status"]);
        let (program, fresh) = (place.bin.join("cc-langfused"), place.bin.join("fresh"));
        fs::copy(&bins().daemon, &fresh).expect("a copy");
        if is_moved {
            fs::rename(&fresh, &program).expect("replaced");
        } else {
            fs::remove_file(&program).and_then(|()| fs::copy(&fresh, &program)).expect("replaced");
        }
        let seen = place.ctl(&["status"]);
        assert_eq!(seen.status.code(), Some(1), "{seen:?}");
        assert!(said(&seen).contains("was replaced") && said(&seen).contains("cc-langfusectl restart"), "{seen:?}");
        let doctor = said(&place.ctl(&["doctor", "--no-probe"]));
        assert!(doctor.contains("was replaced") && doctor.contains("cc-langfusectl restart"), "{doctor}");
        let before = place.pid();
        if is_moved {
            place.done(&["restart"]);
        } else {
            place.done(&[&["setup", "--user"][..], &setup::KEYS, &["--yes", "--no-check"]].concat());
        }
        assert_ne!(place.pid(), before);
        place.done(&["status"]);
    }
}

#[test]
fn hooks_start_one_daemon_if_the_user_wants_that() {
    let (place, server) = (Place::new(), Server::new());
    // A project that contains its own daemon, and wants hooks to start it.
    let project = place.home.project("work");
    setup::script(&project, "cc-langfused", "touch \"$0.ran\"");
    let story = |id: &str| {
        let mut story = Story::new(&place.home, "work", id);
        story.turn("q", "a");
        story
    };
    for text in ["", "# start = \"hook\"\n", "start = \"service\"\n", "[other]\nstart = \"hook\"\n"] {
        place.home.configure(text);
        place.hook(&story("none"), &server, &[]);
        assert!(!place.home.paths().socket.exists(), "{text}");
    }
    place.home.configure("outbox_mib = 64\nstart = \"hook\" # where nothing else does\n");
    let path = place.home.paths().config;
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).expect("its mode");
    place.hook(&story("open"), &server, &[]);
    assert!(!place.home.paths().socket.exists(), "a file that others may change is not believed");
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).expect("its mode");
    std::thread::scope(|scope| {
        for id in ["one", "two", "three", "four"] {
            let (place, server, story) = (&place, &server, story(id));
            let project = &project;
            scope.spawn(move || place.hook(&story, server, &[("PATH", project), ("LD_LIBRARY_PATH", project)]));
        }
    });
    eventually("it to answer", || place.pid().is_some());
    let pid = place.pid().expect("it runs").as_raw_nonzero();
    if let Ok(environ) = fs::read(format!("/proc/{pid}/environ")) {
        let environ = String::from_utf8_lossy(&environ).into_owned();
        assert!(!environ.contains("LANGFUSE"), "{environ}");
    }
    assert_eq!(place.home.log().matches("INFO started").count(), 1, "{}", place.home.log());
    assert!(!project.join("cc-langfused.ran").exists());
    place.home.settings("work", &server.env());
    eventually("all of them to arrive", || server.spans().iter().filter(|span| span.is_root()).count() >= 4);
}

#[test]
fn without_a_service_manager_setup_lets_hooks_start_the_daemon() {
    let place = Place::new();
    let config = place.home.paths().config;
    place.home.configure("# mine\noutbox_mib = 64\n");
    let go = [&["setup", "--user"][..], &setup::KEYS, &["--yes", "--no-check"]].concat();
    let shown = place.done(&go);
    assert!(shown.contains("started, pid"), "{shown}");
    assert_eq!(fs::read_to_string(&config).expect("there"), "start = \"hook\"\n# mine\noutbox_mib = 64\n");
    assert!(place.pid().is_some());
    let again = place.done(&go);
    assert!(again.contains("nothing to change") && again.contains("running, pid"), "{again}");
    assert!(place.done(&["config"]).lines().any(|line| line.starts_with("start") && line.contains("hook")));
    place.done(&["uninstall", "--yes"]);
    assert_eq!(fs::read_to_string(&config).expect("there"), "# mine\noutbox_mib = 64\n");
}

#[test]
fn an_older_daemon_names_the_remedy_for_a_newer_database() {
    let place = Place::new();
    place.done(&["start"]);
    place.done(&["stop"]);
    let Ok(output) =
        Command::new("sqlite3").arg(place.home.paths().database).arg("PRAGMA user_version = 9999").output()
    else {
        return tests::say("SKIPPED: no sqlite3");
    };
    assert!(output.status.success(), "{output:?}");
    let refused = place.ctl(&["start"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(said(&refused).contains("newer version: install that again"), "{refused:?}");
}
