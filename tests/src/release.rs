//! A daemon of the release build, for benchmarks.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use proto::paths::Paths;

/// True if this is run as a benchmark, for which the release build is needed. `cargo test` runs benchmarks, too.
pub(crate) fn wanted() -> bool {
    if !std::env::args().any(|arg| arg == "--bench") {
        return false;
    }
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let built =
        Command::new(cargo).args(["build", "--release", "--workspace", "--bins"]).stderr(Stdio::null()).status();
    assert!(built.expect("cargo").success());
    true
}

/// A daemon with a home of its own, stopped on drop.
pub(crate) struct Release {
    pub(crate) home: tempfile::TempDir,
    /// The directory of the programs.
    pub(crate) target: PathBuf,
    daemon: Child,
}

impl Drop for Release {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

impl Release {
    /// Starts it and waits until it listens.
    pub(crate) fn start() -> Self {
        Self::start_in(tempfile::tempdir().expect("a directory"))
    }

    /// The same in an existing home.
    pub(crate) fn start_in(home: tempfile::TempDir) -> Self {
        Self::start_under(home, &[])
    }

    /// The same as the last argument of another program.
    pub(crate) fn start_under(home: tempfile::TempDir, program: &[&str]) -> Self {
        let exe = std::env::current_exe().expect("a path");
        let target = exe.parent().and_then(Path::parent).expect("target/release").to_path_buf();
        let daemon = target.join("cc-langfused");
        let words: Vec<&str> = program.iter().copied().chain(daemon.to_str()).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).env_clear().env("HOME", home.path()).env("PATH", "/usr/bin:/bin");
        let daemon = command.spawn().expect("starts");
        let release = Self { home, target, daemon };
        let deadline = Instant::now() + Duration::from_secs(60);
        while UnixStream::connect(release.paths().socket).is_err() {
            assert!(Instant::now() < deadline, "the daemon starts");
            std::thread::yield_now();
        }
        release
    }

    /// Ends it as a service manager does, and gives its home back.
    pub(crate) fn stop(mut self) -> tempfile::TempDir {
        let pid = rustix::process::Pid::from_child(&self.daemon);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
        assert!(self.daemon.wait().expect("it ends").success());
        std::mem::replace(&mut self.home, tempfile::tempdir().expect("a directory"))
    }

    /// The bytes that the daemon has handed to the disk so far.
    pub(crate) fn written(&self) -> u64 {
        let io = fs::read_to_string(format!("/proc/{}/io", self.daemon.id())).expect("Linux");
        let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).expect("the field");
        line.parse().expect("a number")
    }

    /// Its files.
    pub(crate) fn paths(&self) -> Paths {
        Paths::new(self.home.path(), None)
    }

    /// One of its programs, with only its home in the environment.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.target.join(program));
        command.env_clear().env("HOME", self.home.path());
        command
    }

    /// The transcript of a session; creates its directory if it is missing.
    pub(crate) fn transcript(&self, session: &str) -> PathBuf {
        let path = self.home.path().join(format!(".claude/projects/-bench/{session}.jsonl"));
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        path
    }

    /// A field of the daemon's `/proc/PID/status`, in MB.
    pub(crate) fn memory(&self, field: &str) -> f64 {
        memory(&self.daemon, field).expect("the field")
    }

    /// CPU seconds of the daemon so far.
    pub(crate) fn cpu(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.daemon.id())).expect("Linux");
        let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
        fields[11..13].iter().filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / 100.0
    }
}

/// The environment of a project that sends its traces to `url`.
pub(crate) fn env(url: &str) -> [(String, String); 4] {
    [
        ("TRACE_TO_LANGFUSE", "true"),
        ("LANGFUSE_PUBLIC_KEY", "pk-lf-bench"),
        ("LANGFUSE_SECRET_KEY", "sk-lf-bench"),
        ("LANGFUSE_BASE_URL", url),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
}

/// A field of `/proc/PID/status`, in MB; `None` when the process has ended.
pub(crate) fn memory(process: &Child, field: &str) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    Some(line.trim().trim_end_matches(" kB").parse::<f64>().ok()? / 1024.0)
}

/// A server that accepts everything, and calls `arrived` for every request with spans; returns its URL.
pub(crate) fn server(arrived: impl Fn() + Clone + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let arrived = arrived.clone();
            std::thread::spawn(move || serve(stream, arrived));
        }
    });
    url
}

fn serve(mut stream: TcpStream, arrived: impl Fn()) {
    let mut held = Vec::new();
    let mut chunk = [0; 64 << 10];
    while let Ok(n @ 1..) = stream.read(&mut chunk) {
        held.extend_from_slice(&chunk[..n]);
        while let Some(head) = held.windows(4).position(|window| window == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&held[..head]).to_lowercase();
            let length =
                text.split("content-length:").nth(1).and_then(|rest| rest.lines().next()?.trim().parse::<usize>().ok());
            let whole = head + 4 + length.unwrap_or(0);
            if held.len() < whole {
                break;
            }
            held.drain(..whole);
            if text.lines().next().is_some_and(|line| line.contains("/traces")) {
                arrived();
            }
            let _ =
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}");
        }
    }
}
