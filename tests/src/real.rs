//! A real server of another project while a test needs it, and its HTTP API.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

/// How long such a server may take to start on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(180);

/// A server, stopped on drop.
pub struct Real {
    /// Where it listens, on loopback.
    pub port: u16,
    child: Child,
    _dir: TempDir,
}

impl Drop for Real {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

impl Real {
    /// Starts the command for a port and a directory, and waits until `ready` answers 200.
    ///
    /// # Panics
    /// If it does not start in time.
    pub fn start(ready: &str, command: impl FnOnce(u16, &Path) -> Command) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let port = crate::server::unused().port();
        let mut command = command(port, dir.path());
        command.current_dir(dir.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.envs([("DO_NOT_TRACK", "true")]);
        let real = Self { child: command.spawn().expect("it starts"), port, _dir: dir };
        let deadline = Instant::now() + TIMEOUT;
        while !real.try_ask("GET", ready, "").is_some_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            assert!(Instant::now() < deadline, "no answer within {TIMEOUT:?}");
            std::thread::sleep(Duration::from_millis(200));
        }
        real
    }

    /// MLflow 3.17.2, with its programs in the directory `programs`.
    ///
    /// # Panics
    /// If it does not start in time.
    pub fn mlflow(programs: &str) -> Self {
        Self::start("/health", |port, dir| {
            let at = |name: &str| dir.join(name).display().to_string();
            let mut command = Command::new(PathBuf::from(programs).join("mlflow"));
            command
                .args(["server", "--host", "127.0.0.1", "--port", &port.to_string(), "--workers", "1"])
                .args(["--backend-store-uri", &format!("sqlite:///{}", at("mlflow.db"))])
                .args(["--artifacts-destination", &at("artifacts")])
                .envs([("MLFLOW_DISABLE_TELEMETRY", "true"), ("MLFLOW_MODEL_CATALOG_URI", "")])
                .env("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false");
            command
        })
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn try_ask(&self, method: &str, path: &str, body: &str) -> Option<String> {
        Some(String::from_utf8_lossy(&self.exchange(method, path, body)?).into_owned())
    }

    fn exchange(&self, method: &str, path: &str, body: &str) -> Option<Vec<u8>> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        let head = format!(
            "{method} {path} HTTP/1.0\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all([head.as_bytes(), body.as_bytes()].concat().as_slice()).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        Some(answer)
    }

    /// The bytes at `path`; `None` unless it answers 200.
    pub fn bytes(&self, path: &str) -> Option<Vec<u8>> {
        let answer = self.exchange("GET", path, "").filter(|answer| answer.starts_with(b"HTTP/1.1 200"))?;
        let head = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
        Some(answer[head + 4..].to_vec())
    }

    /// Its answer as JSON; `null` if it is not JSON.
    ///
    /// # Panics
    /// If it does not answer.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Value {
        let answer = self.try_ask(method, path, body).expect("an answer");
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
        serde_json::from_str(body).unwrap_or_default()
    }
}

/// Runs the test `name` of this program in a network namespace with only loopback, because Phoenix's gRPC port
/// binds every address. Returns true inside the namespace, where the test must do its work; false outside, where
/// it is already done.
///
/// # Panics
/// If it fails inside.
pub fn is_apart(name: &str) -> bool {
    const INSIDE: &str = "CC_LANGFUSE_TEST_INSIDE";
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    crate::bins();
    let unshare = |command: &str| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--map-root-user", "--net", "--", "sh", "-c", command]);
        unshare
    };
    if !unshare("ip link set lo up").output().is_ok_and(|output| output.status.success()) {
        crate::skipped("no network of its own can be made here");
        return false;
    }
    let this = std::env::current_exe().expect("this program");
    let mut command = unshare("ip link set lo up && exec \"$0\" --exact \"$1\" --nocapture");
    let output = command.arg(&this).arg(name).env(INSIDE, "1").output().expect("it runs");
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    said.lines().filter(|line| line.starts_with("Phoenix")).for_each(crate::say);
    false
}

/// An Arize Phoenix with its programs in this directory; only inside [`is_apart`].
pub fn phoenix(programs: &str) -> Real {
    Real::start("/healthz", |port, dir| {
        let at = |name: &str| dir.join(name).display().to_string();
        let off = ["PHOENIX_TELEMETRY_ENABLED", "PHOENIX_ALLOW_EXTERNAL_RESOURCES"].map(|name| (name, "false"));
        let disabled =
            ["PHOENIX_DISABLE_AGENT_ASSISTANT", "PHOENIX_AGENTS_DISABLE_BASH", "PHOENIX_AGENTS_DISABLE_WEB_ACCESS"];
        let mut command = Command::new(Path::new(programs).join("python"));
        command
            .args(["-m", "phoenix.server.main", "serve"])
            .envs(off)
            .envs(disabled.map(|name| (name, "true")))
            .env("PHOENIX_HOST", "127.0.0.1")
            .env("PHOENIX_PORT", port.to_string())
            .env("PHOENIX_GRPC_PORT", crate::server::unused().port().to_string())
            .env("PHOENIX_WORKING_DIR", at(""))
            .env("PHOENIX_SQL_DATABASE_URL", format!("sqlite:///{}", at("phoenix.db")));
        command
    })
}
