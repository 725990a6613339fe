//! `run` traces one process tree and leaves nothing else behind.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tests::{Answer, Home, Server, Story, bins, eventually, home, until};

/// Does with hooks what Claude Code does: takes commands and variables from the given settings, and runs the hook for
/// each `*.event` in its directory. Then it does what `after` says.
const CLAUDE: &str = r#"#!/bin/sh
if [ "$1" = --version ]; then echo '2.1.329 (Claude Code)'; exit; fi
dir=$(dirname "$0")
for arg; do printf '%s\n' "$arg"; done > "$dir/args"
settings=$2
cp "$settings" "$dir/settings"
stat -c %a "$settings" "$(dirname "$settings")" > "$dir/modes" 2>/dev/null
hook=$(sed 's/.*"Stop":\[{"hooks":\[{"command":"\([^"]*\)".*/\1/' "$settings")
vars=$(sed 's/.*"env":{\([^}]*\)}.*/\1/' "$settings" | tr , '\n' | sed 's/"\([^"]*\)":"\(.*\)"/\1=\2/')
for event in "$dir"/*.event; do
    [ -f "$event" ] && env $vars sh -c "$hook" < "$event"
done
. "$dir/after"
"#;

/// A home with a program that acts as Claude Code.
struct Scene {
    home: Home,
    dir: PathBuf,
    tmp: PathBuf,
}

impl Scene {
    /// `after` is what it does at the end.
    fn new(after: &str) -> Self {
        let home = Home::new();
        let (dir, tmp) = (home.project("claude"), home.project("tmp"));
        executable(&dir.join("claude"), CLAUDE);
        fs::write(dir.join("after"), after).expect("written");
        Self { home, dir, tmp }
    }

    /// It will have a turn.
    fn with_a_turn(self) -> Self {
        let mut story = Story::new(&self.home, "work", "s-run");
        story.turn("hello", "hi");
        fs::write(self.dir.join("stop.event"), story.stop("hi").to_string()).expect("written");
        fs::write(self.dir.join("x-end.event"), story.event("SessionEnd").to_string()).expect("written");
        self
    }

    fn command(&self, options: &[&str], args: &[&str], env: &[(String, String)]) -> Command {
        let mut command = self.home.command(&bins().ctl);
        command.arg("run").args(options).arg("--").arg(self.dir.join("claude")).args(args);
        command.envs(env.iter().map(|(name, value)| (name, value))).env("TMPDIR", &self.tmp).current_dir(&self.dir);
        command
    }

    fn run(&self, options: &[&str], args: &[&str], env: &[(String, String)]) -> Output {
        home::run(self.command(options, args, env), b"").0
    }

    fn said(&self, name: &str) -> String {
        fs::read_to_string(self.dir.join(name)).unwrap_or_default()
    }

    /// The files that `run` left in the temporary directory.
    fn left(&self) -> Vec<PathBuf> {
        fs::read_dir(&self.tmp).expect("a directory").map(|entry| entry.expect("an entry").path()).collect()
    }
}

fn executable(path: &Path, text: &str) {
    fs::write(path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("its mode");
}

/// Only the keys: `run` itself must turn tracing on.
fn keys(server: &Server) -> Vec<(String, String)> {
    server.env().into_iter().filter(|(name, _)| name != "TRACE_TO_LANGFUSE").collect()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The rest of the output beside the address of the trace, which must be there.
fn besides_the_trace(output: &Output, server: &Server) -> String {
    let said = stderr(output);
    let page = format!("cc-langfusectl: traced: {}/project/", server.url);
    assert_eq!(said.lines().filter(|line| line.starts_with(&page)).count(), 1, "{said}");
    said.lines().filter(|line| !line.starts_with(&page)).collect()
}

#[test]
fn a_session_is_traced_by_a_daemon_that_leaves_nothing_behind() {
    let scene = Scene::new("echo out; echo err >&2; cat; exit 7").with_a_turn();
    let server = Server::new();
    let env = keys(&server);
    let (output, _) = home::run(scene.command(&[], &["-p", "two words"], &env), b"typed");
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert_eq!((&*output.stdout, &*besides_the_trace(&output, &server)), (&b"out\ntyped"[..], "err"));
    let spans = server.spans();
    assert_eq!(spans.iter().filter(|span| span.is_root()).count(), 1, "{spans:?}");
    assert!(spans.iter().any(tests::Span::is_generation));

    assert_eq!(scene.left(), [] as [PathBuf; 0]);
    assert!(!scene.home.paths().state.exists(), "no state but the temporary one");
    assert!(!scene.home.path().join(".claude/settings.json").exists());
    assert!(scene.said("args").ends_with("-p\ntwo words\n"), "{}", scene.said("args"));
    assert_eq!(scene.said("modes").split_whitespace().collect::<Vec<_>>(), ["600", "700"]);
    let settings: Value = serde_json::from_str(&scene.said("settings")).expect("JSON");
    assert_eq!(settings["env"]["TRACE_TO_LANGFUSE"], "true");
    assert!(!scene.said("settings").contains("sk-lf-test"), "the key is in the environment only");
    assert_eq!(settings["hooks"]["StopFailure"], settings["hooks"]["Stop"]);
}

#[test]
fn run_uses_the_resident_daemon_unless_told_otherwise() {
    let server = Server::new();
    for (options, resident_told) in [(&[][..], true), (&["--ephemeral"], false)] {
        let scene = Scene::new("exit 0").with_a_turn();
        let before = server.spans().len();
        let _daemon = scene.home.daemon();
        let output = scene.run(options, &[], &keys(&server));
        assert_eq!((output.status.code(), &*besides_the_trace(&output, &server)), (Some(0), ""));
        assert!(server.spans().len() > before, "delivered when it returns");
        let printed = !scene.home.status()["sessions"].as_array().expect("a list").is_empty();
        assert_eq!(printed, resident_told);
        assert_eq!(scene.left(), [] as [PathBuf; 0]);
    }
}

#[test]
fn a_stopped_daemon_continues_with_its_own_state() {
    let scene = Scene::new("exit 0").with_a_turn();
    let server = Server::new();
    scene.home.daemon().terminate();
    let output = scene.run(&[], &[], &keys(&server));
    assert_eq!((output.status.code(), &*besides_the_trace(&output, &server)), (Some(0), ""));
    let sent = server.spans().len();
    assert!(sent > 0);
    let _daemon = scene.home.daemon();
    let status = scene.home.status();
    assert_eq!(status["sessions"][0]["session_id"], "s-run", "{status}");
    scene.home.flush();
    assert_eq!(server.spans().len(), sent, "nothing is sent twice");
}

#[test]
fn undelivered_spans_are_kept_and_the_exit_code_is_unchanged() {
    let scene = Scene::new("exit 5").with_a_turn();
    let server = Server::answering(|_| Answer::status(503));
    let output = scene.run(&["--timeout", "300ms"], &[], &keys(&server));
    assert_eq!(output.status.code(), Some(5));
    let said = stderr(&output);
    assert_eq!(said.lines().count(), 1, "{said}");
    let left = scene.left();
    let [state] = &*left else { panic!("{left:?}") };
    assert!(said.contains(&format!("kept in {}", state.display())), "{said}");
    assert!(!state.join("settings.json").exists());

    // Nothing is lost: a daemon with that state sends it once it has the key.
    server.change(|_| Answer::ok());
    scene.home.settings("work", &server.env());
    let mut daemon = scene.home.command(&bins().daemon);
    daemon.env("CC_LANGFUSE_STATE_DIR", state).stdin(Stdio::null());
    let _daemon = Home::spawn(daemon);
    eventually("the spans", || server.spans().iter().any(tests::Span::is_root));
}

#[test]
fn settings_that_the_user_passes_are_kept() {
    let given = r#"{"model":"opus","env":{"A":"1"},"hooks":{"Stop":[{"hooks":[{"type":"command","command":"x"}]}]}}"#;
    let scene = Scene::new("exit 0");
    let file = scene.dir.join("mine.json");
    fs::write(&file, given).expect("written");
    let file = file.to_str().expect("text");
    let equals = format!("--settings={file}");
    for args in [&["--settings", file, "-p"][..], &[&equals, "-p"], &["-p", "--settings", given]] {
        let output = scene.run(&["--ephemeral"], args, &[]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let settings: Value = serde_json::from_str(&scene.said("settings")).expect("JSON");
        assert_eq!((&settings["model"], &settings["env"]["A"]), (&"opus".into(), &"1".into()));
        let stop = settings["hooks"]["Stop"].as_array().expect("a list");
        assert_eq!((stop.len(), &stop[0]["hooks"][0]["command"]), (2, &"x".into()));
        assert_eq!(scene.said("args").lines().filter(|arg| *arg == "--settings").count(), 1);
        assert_eq!(scene.said("args").lines().last(), Some("-p"));
    }
    assert_eq!(fs::read_to_string(file).expect("readable"), given);
    let output = scene.run(&["--ephemeral"], &["--settings", "{no"], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("not a JSON object"), "{output:?}");
    let output = scene.run(&["--ephemeral"], &["--", "--settings", "x"], &[]);
    assert_eq!(output.status.code(), Some(0), "what follows -- is the program's own: {output:?}");
}

#[test]
fn a_program_that_cannot_be_started_gives_the_exit_code_of_a_shell() {
    let scene = Scene::new("");
    let plain = scene.dir.join("after");
    for (program, code) in [(&*scene.dir.join("nowhere"), 127), (&plain, 126), (Path::new("no-such-program"), 127)] {
        let mut command = scene.home.command(&bins().ctl);
        command.args(["run", "--"]).arg(program).env("TMPDIR", &scene.tmp);
        let (output, _) = home::run(command, b"");
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert_eq!(stderr(&output).lines().count(), 1, "{output:?}");
    }
    assert_eq!(scene.left(), [] as [PathBuf; 0]);
}

#[test]
fn without_keys_run_warns_that_nothing_is_traced() {
    let scene = Scene::new("exit 3");
    let output = scene.run(&[], &[], &[]);
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("LANGFUSE_PUBLIC_KEY"), "{output:?}");
}

#[test]
fn a_killed_daemon_is_replaced_at_the_end() {
    let kill = r#"state=$(sed 's/.*"CC_LANGFUSE_STATE_DIR":"\([^"]*\)".*/\1/' "$settings")
kill -9 "$(sed -n 's/.* pid=\([0-9]*\).*/\1/p' "$state/cc-langfuse_hook.log")"; exit 9"#;
    let scene = Scene::new(kill).with_a_turn();
    let server = Server::new();
    scene.home.settings("work", &server.env());
    let output = scene.run(&["--ephemeral"], &[], &keys(&server));
    assert_eq!((output.status.code(), &*besides_the_trace(&output, &server)), (Some(9), ""));
    assert!(server.spans().iter().any(tests::Span::is_root));
    assert_eq!(scene.left(), [] as [PathBuf; 0]);
}

/// Runs until a file appears.
const WAITS: &str = ": > \"$dir/ready\"; while [ ! -f \"$dir/go\" ]; do sleep 0.02; done";

#[test]
fn after_a_killed_run_the_daemon_ends_with_the_program() {
    let scene = Scene::new(&format!("{WAITS}; env $vars sh -c \"$hook\" < \"$dir/late\"")).with_a_turn();
    let server = Server::new();
    let mut child = started_with(&scene, &[], &keys(&server));
    child.kill().expect("killed");
    child.wait().expect("it ends");
    let [dir] = &*scene.left() else { panic!("{:?}", scene.left()) };
    let state = [("CC_LANGFUSE_STATE_DIR".to_owned(), dir.display().to_string())];
    for _ in 0..3 {
        let flushed = scene.home.ctl_with(&["flush"], &state);
        assert_eq!(flushed.status.code(), Some(0), "hooks still reach it: {flushed:?}");
    }
    let mut late = Story::new(&scene.home, "work", "s-late");
    late.turn("hello", "hi");
    fs::write(scene.dir.join("late"), late.stop("hi").to_string()).expect("written");
    fs::write(scene.dir.join("go"), "").expect("written");
    eventually("everything to be gone", || scene.left().is_empty());
    let roots = server.spans().into_iter().filter(tests::Span::is_root);
    assert_eq!(roots.map(|root| root.get("session.id").to_owned()).collect::<Vec<_>>(), ["s-run", "s-late"]);
}

#[test]
fn after_a_killed_run_undelivered_spans_are_kept() {
    let scene = Scene::new(WAITS).with_a_turn();
    let server = Server::answering(|_| Answer::status(503));
    let mut child = started_with(&scene, &["--timeout", "100ms"], &keys(&server));
    child.kill().expect("killed");
    child.wait().expect("it ends");
    fs::write(scene.dir.join("go"), "").expect("written");
    let [dir] = &*scene.left() else { panic!("{:?}", scene.left()) };
    eventually("the daemon to end", || {
        let log = fs::read_to_string(dir.join("cc-langfuse_hook.log")).unwrap_or_default();
        log.lines().last().is_some_and(|line| line.contains("stopped"))
    });
    assert!(dir.join("state.db").exists());
}

/// Starts it in its own process group, without a terminal, and waits until the program runs.
fn started(scene: &Scene) -> Child {
    started_with(scene, &[], &[])
}

fn started_with(scene: &Scene, options: &[&str], env: &[(String, String)]) -> Child {
    let mut command = scene.command(&[&["--ephemeral"], options].concat(), &[], env);
    let child = command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    eventually("the program to run", || scene.dir.join("ready").exists());
    child
}

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("sent");
}

/// True if this process ignores the signal, which its children inherit.
fn is_ignored(signal: Signal) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap_or_default();
    u64::from_str_radix(mask.trim(), 16).unwrap_or_default() & (1 << (signal.as_raw() - 1)) != 0
}

#[test]
fn a_signal_to_run_alone_reaches_the_program() {
    let ends = [(Signal::TERM, "TERM"), (Signal::INT, "INT"), (Signal::HUP, "HUP"), (Signal::QUIT, "QUIT")];
    for (signal, name) in ends.into_iter().chain([(Signal::USR1, "USR1"), (Signal::USR2, "USR2")]) {
        if is_ignored(signal) {
            tests::say(&format!("SKIPPED a_signal_to_run_alone_reaches_the_program with {name}: it is ignored here"));
            continue;
        }
        // A shell runs traps only between commands.
        let scene = Scene::new(&format!("trap 'exit 42' {name}; : > \"$dir/ready\"; while :; do sleep 0.02; done"));
        let mut child = started(&scene);
        send(&child, signal);
        assert_eq!(child.wait().expect("it ends").code(), Some(42), "{name}");
        assert_eq!(scene.left(), [] as [PathBuf; 0], "{name}");
    }
}

#[test]
fn a_program_ended_by_a_signal_gives_its_number_and_128() {
    for (signal, code) in [("KILL", 137), ("TERM", 143), ("SEGV", 139)] {
        let scene = Scene::new(&format!("ulimit -c 0; kill -{signal} $$"));
        assert_eq!(scene.run(&["--ephemeral"], &[], &[]).status.code(), Some(code));
    }
}

#[test]
fn run_stops_and_continues_with_the_program() {
    let scene = Scene::new(
        "echo $$ > \"$dir/pid\"; : > \"$dir/ready\"; while [ ! -f \"$dir/go\" ]; do sleep 0.02; done; exit 4",
    );
    let mut child = started(&scene);
    let state = |pid: &str| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().and_then(|rest| rest.chars().next())
    };
    if state("self").is_none() {
        tests::say("SKIPPED run_stops_and_continues_with_the_program: needs /proc");
        send(&child, Signal::TERM);
        child.wait().expect("it ends");
        return;
    }
    let (own, program) = (child.id().to_string(), until("its id", || Some(scene.said("pid").trim().to_owned())));
    // STOP, because TSTP has no effect on a group without a job-control shell.
    let stop = Pid::from_raw(program.parse().expect("a number")).expect("an id");
    kill_process(stop, Signal::STOP).expect("sent");
    eventually("the program to sleep", || state(&program) == Some('T'));
    assert_ne!(state(&own), Some('T'), "without a terminal nobody would wake it");
    send(&child, Signal::CONT);
    eventually("the program to wake", || state(&program) != Some('T'));
    fs::write(scene.dir.join("go"), "").expect("written");
    assert_eq!(child.wait().expect("it ends").code(), Some(4));
}

#[test]
fn an_ignored_signal_stays_ignored() {
    let scene = Scene::new(": > \"$dir/ready\"; while [ ! -f \"$dir/go\" ]; do sleep 0.02; done; exit 6");
    let mut command = scene.home.command(Path::new("sh"));
    let inner = scene.command(&["--ephemeral"], &[], &[]);
    command.args(["-c", "trap '' HUP; exec \"$@\"", "sh"]).arg(inner.get_program()).args(inner.get_args());
    command.env("TMPDIR", &scene.tmp).stdin(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("it starts");
    eventually("the program to run", || scene.dir.join("ready").exists());
    send(&child, Signal::HUP);
    fs::write(scene.dir.join("go"), "").expect("written");
    assert_eq!(child.wait().expect("it ends").code(), Some(6));
}
