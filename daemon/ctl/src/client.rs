//! Requests to the daemon over its socket.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, body::Bytes};
use hyper_util::rt::TokioIo;
use interprocess::local_socket::{
    ConnectOptions, GenericFilePath, ToFsName,
    tokio::{Stream, prelude::*},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use cc_core::{
    config::Config,
    import_state::Imported,
    status::{
        DeadLetter, Failure, Forget, Left, Pause, Redirect, Redirected, Settle, Status, Trust, TrustAnswer,
        history::{Ask, Known, Taken},
    },
    visible,
};
use cc_langfuse::{config_file, credentials, environment, files};
use proto::paths::Paths;

/// No daemon answers on the socket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotRunning {
    /// There is none.
    #[error("the daemon is not running: cc-langfusectl start")]
    Absent,
    /// There is one, which does this before it answers.
    #[error("the daemon starts: {0}")]
    Starting(String),
}

/// Longest text, in bytes, in which a daemon says what it does before it answers.
const OPENING: u64 = 4096;

/// What the daemon of these paths does before it answers, if it says so and is there.
fn opening(paths: &Paths) -> Option<NotRunning> {
    let bytes = files::read(&paths.opening, &files::Rules { limit: OPENING, ..files::Rules::STRICT }).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let (pid, what) = text.split_once('\n')?;
    let pid = rustix::process::Pid::from_raw(pid.parse().ok()?)?;
    rustix::process::test_kill_process(pid).ok()?;
    Some(NotRunning::Starting(visible::line(what.trim()).into_owned()))
}

/// The user's home.
pub(crate) fn home() -> anyhow::Result<PathBuf> {
    environment::home().context("HOME is not set")
}

/// Where Claude Code's own directory is, if not in the home.
pub(crate) fn config_dir() -> Option<PathBuf> {
    environment::absolute("CLAUDE_CONFIG_DIR")
}

/// Where Claude Code keeps the user's settings.
pub(crate) fn user_dir(home: &Path) -> PathBuf {
    credentials::user_dir(config_dir().as_deref(), home)
}

/// True if no daemon holds the lock.
pub(crate) fn is_free(paths: &Paths) -> bool {
    files::open(&paths.lock, &files::Rules::users(u64::MAX)).map_or(true, |lock| lock.file.try_lock().is_ok())
}

/// Where the daemon lives.
pub(crate) fn paths() -> anyhow::Result<Paths> {
    Ok(environment::paths(&home()?))
}

/// The daemon's configuration, as it would read it now.
pub(crate) fn config() -> anyhow::Result<Config> {
    Ok(config_file::load(&paths()?.config)?)
}

/// The daemon of a state directory, and what can be asked of it. Every question may fail with [`NotRunning`].
#[derive(Clone, Debug)]
pub(crate) struct Client {
    paths: Paths,
    timeout: Duration,
}

impl Client {
    /// The user's daemon; each answer may take 5 s.
    ///
    /// # Errors
    /// If there is no home.
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self::at(&paths()?))
    }

    /// The daemon that lives at `paths`.
    pub(crate) fn at(paths: &Paths) -> Self {
        Self { paths: paths.clone(), timeout: Duration::from_secs(5) }
    }

    /// The same; each answer may take this long.
    pub(crate) fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// How it is.
    pub(crate) fn status(&self) -> anyhow::Result<Status> {
        self.get("/v1/status")
    }

    /// True if it runs, whatever its version.
    pub(crate) fn answers(&self) -> bool {
        let quick = self.clone().with_timeout(Duration::from_secs(2));
        quick.request(Method::GET, "/v1/status", Vec::new()).is_ok()
    }

    /// Its process id, whatever its version.
    pub(crate) fn pid(&self) -> anyhow::Result<i32> {
        #[derive(Deserialize)]
        struct Brief {
            daemon: Process,
        }
        #[derive(Deserialize)]
        struct Process {
            pid: i32,
        }
        Ok(self.get::<Brief>("/v1/status")?.daemon.pid)
    }

    /// Waits until everything is delivered, `timeout` at most: what is left then.
    pub(crate) fn flush(&self, timeout: Duration) -> anyhow::Result<Left> {
        let patient = self.clone().with_timeout(timeout + self.timeout);
        patient.answer(Method::POST, &format!("/v1/flush?timeout_ms={}", timeout.as_millis()), Vec::new())
    }

    /// Hands a hook event over, as a hook does: it is stored when this comes back.
    pub(crate) fn hook(&self, frame: Vec<u8>) -> anyhow::Result<()> {
        self.request(Method::POST, proto::HOOK_PATH, frame).map(drop)
    }

    /// Trusts an address and account, or no longer.
    pub(crate) fn trust(&self, request: &Trust) -> anyhow::Result<TrustAnswer> {
        self.post("/v1/trust", request)
    }

    /// Moves what waits for a destination to another, or drops it.
    pub(crate) fn redirect(&self, request: &Redirect) -> anyhow::Result<Redirected> {
        self.post("/v1/destinations", request)
    }

    /// Pauses a project or lets it go on: what is paused then.
    pub(crate) fn pause(&self, request: &Pause) -> anyhow::Result<Vec<PathBuf>> {
        self.post("/v1/pause", request)
    }

    /// Forgets traces: how many spans of them were waiting.
    pub(crate) fn forget(&self, request: &Forget) -> anyhow::Result<usize> {
        self.post("/v1/forget", request)
    }

    /// What it knows of spans and events.
    pub(crate) fn known(&self, ask: &Ask) -> anyhow::Result<Known> {
        self.post("/v1/known", ask)
    }

    /// Sessions whose beginning another tool has sent.
    pub(crate) fn imported(&self) -> anyhow::Result<Vec<Imported>> {
        self.get("/v1/imported")
    }

    /// Hands such sessions over: how many were new.
    pub(crate) fn import(&self, sessions: &[Imported]) -> anyhow::Result<Taken> {
        self.post("/v1/imported", sessions)
    }

    /// What no server takes.
    pub(crate) fn dead_letters(&self) -> anyhow::Result<Vec<DeadLetter>> {
        self.get("/v1/dead-letters")
    }

    /// Retries or drops dead letters: how many.
    pub(crate) fn settle(&self, request: &Settle) -> anyhow::Result<usize> {
        self.post("/v1/dead-letters", request)
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.answer(Method::GET, path, Vec::new())
    }

    fn post<T: DeserializeOwned>(&self, path: &str, request: &(impl Serialize + ?Sized)) -> anyhow::Result<T> {
        self.answer(Method::POST, path, serde_json::to_vec(request)?)
    }

    fn answer<T: DeserializeOwned>(&self, method: Method, path: &str, body: Vec<u8>) -> anyhow::Result<T> {
        let body = self.request(method, path, body)?;
        serde_json::from_slice(&body).context("the daemon answers what this version does not understand")
    }

    fn request(&self, method: Method, path: &str, body: Vec<u8>) -> anyhow::Result<Bytes> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let exchange = exchange(&self.paths, method, path, body);
            let answer = tokio::time::timeout(self.timeout, exchange).await.context("the daemon does not answer");
            // It answers nobody before its database is open.
            answer.flatten().map_err(|error| opening(&self.paths).map_or(error, anyhow::Error::from))
        })
    }
}

async fn exchange(paths: &Paths, method: Method, path: &str, body: Vec<u8>) -> anyhow::Result<Bytes> {
    let name = paths.socket.as_path().to_fs_name::<GenericFilePath>()?;
    let stream: Stream = ConnectOptions::new().name(name).connect_tokio().await.map_err(|_| NotRunning::Absent)?;
    let ours = rustix::process::geteuid().as_raw();
    if stream.peer_creds()?.euid() != Some(ours) {
        bail!("another user's process answers on {}", paths.socket.display());
    }
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request =
        Request::builder().method(method).uri(path).header("host", "cc-langfuse").body(Full::new(Bytes::from(body)))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    if !status.is_success() {
        // Earlier versions of the daemon do not say why.
        let why = serde_json::from_slice::<Failure>(&body).map(|failure| failure.error);
        bail!("the daemon answered {status}: {}", why.unwrap_or_else(|_| String::from_utf8_lossy(&body).into_owned()));
    }
    Ok(body)
}
