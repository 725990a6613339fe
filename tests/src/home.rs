//! A user's home, and the programs that run in it.

use std::{
    fs,
    io::{Read, Write},
    os::unix::{
        fs::{DirBuilderExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

use proto::paths::Paths;
use rustix::process::{Pid, Signal};
use serde_json::Value;
use tempfile::TempDir;

use crate::{Bins, TIMEOUT, bins, eventually, until};

/// A temporary home directory, removed on drop.
pub struct Home {
    _dir: TempDir,
    path: PathBuf,
    bins: Option<&'static Bins>,
}

/// The files of a home at one moment, with their modes; `None` in place of content for the socket of a dead daemon.
pub struct Kept(Vec<(PathBuf, u32, Option<Vec<u8>>)>);

impl Home {
    pub fn new() -> Self {
        let dir = tempdir();
        Self { path: dir.path().to_owned(), bins: None, _dir: dir }
    }

    /// An empty home whose path has this many bytes, so that it can replace another path in a binary file.
    ///
    /// # Panics
    /// If the temporary directory's path is too long for that.
    pub fn of_length(length: usize) -> Self {
        let dir = tempdir();
        let room = length.checked_sub(dir.path().as_os_str().len() + 2).expect("a short temporary directory");
        let path = dir.path().join("p".repeat(room + 1));
        fs::create_dir(&path).expect("a directory");
        Self { _dir: dir, path, bins: None }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The daemon's files.
    pub fn paths(&self) -> Paths {
        Paths::new(self.path(), None)
    }

    /// The directory of a project, created if it is missing.
    pub fn project(&self, name: &str) -> PathBuf {
        let dir = self.path().join(name);
        fs::create_dir_all(&dir).expect("a project");
        dir
    }

    /// Writes the `env` block of a project's `.claude/settings.local.json`.
    pub fn settings(&self, project: &str, env: &[(String, String)]) {
        settings(&self.project(project).join(".claude/settings.local.json"), env);
    }

    /// Writes the daemon's own settings.
    pub fn configure(&self, text: &str) {
        let path = self.paths().config;
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(&path, text).expect("the configuration");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its mode");
    }

    /// The same home with other programs.
    pub fn running(self, bins: &'static Bins) -> Self {
        Self { bins: Some(bins), ..self }
    }

    fn bins(&self) -> &'static Bins {
        self.bins.unwrap_or_else(bins)
    }

    /// Starts the daemon and waits until it listens.
    pub fn daemon(&self) -> Daemon {
        self.daemon_with(&[])
    }

    /// The same with additional variables.
    pub fn daemon_with(&self, env: &[(&str, &str)]) -> Daemon {
        let mut daemon = self.spawn_daemon(env);
        self.wait_for(&mut daemon);
        daemon
    }

    /// Waits until `daemon` listens.
    ///
    /// # Panics
    /// If it exits instead.
    pub fn wait_for(&self, daemon: &mut Daemon) {
        let socket = self.paths().socket;
        eventually("the daemon to listen", || {
            if let Ok(Some(status)) = daemon.child.try_wait() {
                panic!("the daemon ended with {status}: {}", self.log());
            }
            UnixStream::connect(&socket).is_ok()
        });
    }

    /// Starts the daemon without waiting.
    pub fn spawn_daemon(&self, env: &[(&str, &str)]) -> Daemon {
        let mut command = self.command(&self.bins().daemon);
        command.envs(env.iter().copied()).stdin(Stdio::null());
        Self::spawn(command)
    }

    /// Starts the daemon by `command`.
    pub fn spawn(mut command: Command) -> Daemon {
        Daemon { child: command.current_dir("/").spawn().expect("the daemon starts") }
    }

    /// Starts the daemon through a program that becomes it. Its output is not shown.
    pub fn spawn_daemon_under(&self, program: &str, args: &[String]) -> Daemon {
        let mut command = self.command(Path::new(program));
        command.args(args).arg(&self.bins().daemon).stdin(Stdio::null()).stderr(Stdio::null());
        Self::spawn(command)
    }

    /// `program` with only `PATH` and `HOME` in its environment.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(std::env::vars_os().filter(|(name, _)| name == "PATH")).env("HOME", self.path());
        command
    }

    /// Runs the hook like Claude Code; returns how long it took.
    pub fn hook(&self, payload: &Value, env: &[(String, String)]) -> Duration {
        self.hook_with(payload.to_string().as_bytes(), env)
    }

    /// The same with any bytes.
    ///
    /// # Panics
    /// If the hook does not exit 0, or prints anything.
    pub fn hook_with(&self, payload: &[u8], env: &[(String, String)]) -> Duration {
        let mut command = self.command(&self.bins().hook);
        command.envs(env.iter().map(|(name, value)| (name, value)));
        let (output, took) = run(command, payload);
        assert_silent(&output);
        took
    }

    /// Copies the programs to where people install them; returns that directory.
    pub fn install(&self) -> PathBuf {
        let (bin, bins) = (self.path().join(".local/bin"), self.bins());
        fs::create_dir_all(&bin).expect("a directory");
        for program in [&bins.hook, &bins.daemon, &bins.ctl] {
            // In another process: while this one has a program open for writing, one that another thread starts inherits that, and
            // the program cannot be executed.
            let copied = Command::new("cp").arg(program).arg(&bin).status().expect("cp runs");
            assert!(copied.success(), "{}", program.display());
        }
        bin
    }

    /// Runs `cc-langfusectl`.
    pub fn ctl(&self, args: &[&str]) -> Output {
        self.ctl_with(args, &[])
    }

    /// The same with additional variables.
    pub fn ctl_with(&self, args: &[&str], env: &[(String, String)]) -> Output {
        let mut command = self.command(&self.bins().ctl);
        command.args(args).envs(env.iter().map(|(name, value)| (name, value))).current_dir(self.path());
        run(command, b"").0
    }

    /// `status --json`, whose exit code says whether there is a problem.
    pub fn status(&self) -> Value {
        let output = self.ctl(&["status", "--json"]);
        assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
        serde_json::from_slice(&output.stdout).expect("status is JSON")
    }

    /// Waits until `status --json` satisfies `is_so`, and returns it.
    pub fn status_until(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let status = self.status();
            if is_so(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "waited {TIMEOUT:?} for {what}: {status:#}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until everything is delivered.
    pub fn flush(&self) {
        let output = self.ctl(&["flush", "--timeout", "40s"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}\n{}", self.log());
    }

    /// The daemon's answer to a `GET` of `path` over its socket, including headers.
    pub fn ask(&self, path: &str) -> String {
        let mut socket = UnixStream::connect(self.paths().socket).expect("the daemon");
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let mut answer = String::new();
        socket.write_all(request.as_bytes()).and_then(|()| socket.read_to_string(&mut answer)).expect("an answer");
        answer
    }

    /// The daemon's log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.paths().log).unwrap_or_default()
    }

    /// Its whole content, to be restored later.
    pub fn keep(&self) -> Kept {
        let mut kept = Vec::new();
        collect(self.path(), &mut kept);
        Kept(kept)
    }

    /// Restores the content. Files that still exist keep their identity, except the daemon's own. No daemon
    /// may be running.
    pub fn put_back(&self, Kept(kept): &Kept) {
        let _ = fs::remove_dir_all(self.paths().state);
        for (path, ..) in self.keep().0 {
            if !kept.iter().any(|(wanted, ..)| *wanted == path) {
                fs::remove_file(path).expect("removed");
            }
        }
        for (path, mode, content) in kept {
            let dir = path.parent().expect("in the home");
            if !dir.exists() {
                fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).expect("a directory");
            }
            match content {
                Some(bytes) => {
                    fs::write(path, bytes).expect("written");
                    fs::set_permissions(path, fs::Permissions::from_mode(*mode)).expect("a mode");
                }
                None => drop(UnixListener::bind(path).expect("a socket")),
            }
        }
    }

    /// The files in the spool.
    pub fn spooled(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.paths().spool) else { return Vec::new() };
        entries.map(|entry| entry.expect("an entry").path()).collect()
    }
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

fn tempdir() -> TempDir {
    tempfile::Builder::new().prefix("h").tempdir().expect("a temporary directory")
}

fn collect(dir: &Path, kept: &mut Vec<(PathBuf, u32, Option<Vec<u8>>)>) {
    for entry in fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry")) {
        let (path, meta) = (entry.path(), entry.metadata().expect("metadata"));
        if meta.is_dir() {
            collect(&path, kept);
        } else {
            let content = meta.is_file().then(|| fs::read(&path).expect("readable"));
            kept.push((path, meta.permissions().mode() & 0o7777, content));
        }
    }
}

/// Writes a settings file of Claude Code with this `env` block.
pub fn settings(path: &Path, env: &[(String, String)]) {
    fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
    let env: serde_json::Map<String, Value> = env.iter().map(|(k, v)| (k.clone(), v.clone().into())).collect();
    fs::write(path, serde_json::json!({ "env": env }).to_string()).expect("settings");
}

/// The permissions of a file itself, not of its target.
///
/// # Panics
/// If it does not exist.
pub fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).permissions().mode()
        & 0o7777
}

/// Runs `command` with `input` on its stdin.
pub fn run(mut command: Command, input: &[u8]) -> (Output, Duration) {
    let started = Instant::now();
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    // A program may end without reading its input.
    let _ = child.stdin.take().expect("piped").write_all(input);
    let output = child.wait_with_output().expect("it ends");
    (output, started.elapsed())
}

/// A hook exits 0 and prints nothing.
///
/// # Panics
/// If it does anything else.
pub fn assert_silent(output: &Output) {
    let said = (output.status.code(), &*output.stdout, &*output.stderr);
    assert_eq!(said, (Some(0), &b""[..], &b""[..]), "the hook must be silent");
}

/// A running daemon, killed on drop.
pub struct Daemon {
    child: Child,
}

impl Daemon {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
    }

    /// Sends SIGTERM; returns the exit status.
    pub fn terminate(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended()
    }

    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).expect("it takes signals");
    }

    /// Waits for its exit; returns the status.
    pub fn ended(&mut self) -> ExitStatus {
        until("the daemon to end", || self.child.try_wait().expect("it is ours"))
    }

    /// Its exit status, if it has exited.
    pub fn end(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it is ours")
    }

    /// How much CPU time it has used, if the system reports it.
    pub fn busy(&self) -> Option<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).ok()?;
        // The fields after the name, which may contain anything; times are in hundredths of a second.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split(' ').collect();
        let ticks = fields.get(12)?.parse::<u64>().ok()? + fields.get(13)?.parse::<u64>().ok()?;
        Some(Duration::from_millis(ticks * 10))
    }

    /// Its peak resident size so far, in KiB, if the system reports it.
    pub fn peak_kib(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().strip_suffix(" kB")?.parse().ok()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
