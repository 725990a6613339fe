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
        AskHidden, DeadLetter, Failure, Forget, GiveScore, HiddenCalls, Left, Pause, Redirect, Redirected, Settle,
        Status, Trust, TrustAnswer,
        delivery::{AskDelivery, Delivery},
        history::{Ask, Known, Taken},
    },
    visible,
};
use cc_langfuse::{config_file, credentials, environment, files};
use proto::paths::Paths;

/// No daemon answers on the socket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotRunning {
    /// It does not run.
    #[error("the daemon is not running: cc-langfusectl start")]
    Absent,
    /// It never ran for this state directory.
    #[error(
        "the daemon is not running, and never was: cc-langfusectl setup, or cc-langfusectl start if you set it up by hand"
    )]
    NeverStarted,
    /// It runs but does not answer yet; the text says what it is doing.
    #[error("the daemon is starting: {0}")]
    Starting(String),
}

/// Maximum length of that text in bytes.
const OPENING: u64 = 4096;

/// What the daemon of these paths is doing before it answers; `None` if it does not run or does not say.
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

/// Claude Code's own directory, if it is not the default one.
pub(crate) fn config_dir() -> Option<PathBuf> {
    environment::absolute("CLAUDE_CONFIG_DIR")
}

/// The directory of the user's settings of Claude Code.
pub(crate) fn user_dir(home: &Path) -> PathBuf {
    credentials::user_dir(config_dir().as_deref(), home)
}

/// True if no daemon holds the lock.
pub(crate) fn is_free(paths: &Paths) -> bool {
    files::open(&paths.lock, &files::Rules::users(u64::MAX)).map_or(true, |lock| lock.file.try_lock().is_ok())
}

/// The daemon's files.
pub(crate) fn paths() -> anyhow::Result<Paths> {
    Ok(environment::paths(&home()?))
}

/// The daemon's configuration as it is on disk.
pub(crate) fn config() -> anyhow::Result<Config> {
    Ok(config_file::load(&paths()?.config)?)
}

/// The daemon of a state directory, and its API. Every request may fail with [`NotRunning`].
#[derive(Clone, Debug)]
pub(crate) struct Client {
    paths: Paths,
    timeout: Duration,
}

impl Client {
    /// The user's daemon, with 5 s for each answer.
    ///
    /// # Errors
    /// If there is no home.
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self::at(&paths()?))
    }

    /// The daemon with these files.
    pub(crate) fn at(paths: &Paths) -> Self {
        Self { paths: paths.clone(), timeout: Duration::from_secs(5) }
    }

    /// The same with another time limit for each answer.
    pub(crate) fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    pub(crate) fn status(&self) -> anyhow::Result<Status> {
        self.get("/v1/status")
    }

    /// True if it runs, in any version.
    pub(crate) fn answers(&self) -> bool {
        let quick = self.clone().with_timeout(Duration::from_secs(2));
        quick.request(Method::GET, "/v1/status", Vec::new()).is_ok()
    }

    /// Its process id, in any version.
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

    /// Waits until everything is delivered, for at most `timeout`; returns what is left.
    pub(crate) fn flush(&self, timeout: Duration) -> anyhow::Result<Left> {
        let patient = self.clone().with_timeout(timeout + self.timeout);
        patient.answer(Method::POST, &format!("/v1/flush?timeout_ms={}", timeout.as_millis()), Vec::new())
    }

    /// Delivers a hook event like a hook; when this returns, it is stored.
    pub(crate) fn hook(&self, frame: Vec<u8>) -> anyhow::Result<()> {
        self.request(Method::POST, proto::HOOK_PATH, frame).map(drop)
    }

    /// Trusts an address and account, or withdraws that trust.
    pub(crate) fn trust(&self, request: &Trust) -> anyhow::Result<TrustAnswer> {
        self.post("/v1/trust", request)
    }

    /// Moves the waiting spans of a destination to another, or drops them.
    pub(crate) fn redirect(&self, request: &Redirect) -> anyhow::Result<Redirected> {
        self.post("/v1/destinations", request)
    }

    /// Pauses or resumes a project; returns what is paused afterwards.
    pub(crate) fn pause(&self, request: &Pause) -> anyhow::Result<Vec<PathBuf>> {
        self.post("/v1/pause", request)
    }

    /// Forgets traces; returns how many of their spans were waiting.
    pub(crate) fn forget(&self, request: &Forget) -> anyhow::Result<usize> {
        self.post("/v1/forget", request)
    }

    /// Gives a score; returns the addresses of the destinations that get it.
    pub(crate) fn score(&self, request: &GiveScore) -> anyhow::Result<Vec<String>> {
        self.post("/v1/score", request)
    }

    /// The state of spans and events.
    pub(crate) fn known(&self, ask: &Ask) -> anyhow::Result<Known> {
        self.post("/v1/known", ask)
    }

    /// What became of the spans of `traces`, at each destination that has some.
    pub(crate) fn delivery(&self, traces: Vec<String>) -> anyhow::Result<Vec<Delivery>> {
        self.post("/v1/delivery", &AskDelivery { traces })
    }

    /// The same for several groups of traces.
    pub(crate) fn deliveries(&self, groups: &[Vec<String>]) -> anyhow::Result<Vec<Vec<Delivery>>> {
        self.post("/v1/deliveries", groups)
    }

    /// Sessions whose beginning another tool has sent.
    pub(crate) fn imported(&self) -> anyhow::Result<Vec<Imported>> {
        self.get("/v1/imported")
    }

    /// Imports such sessions; returns how many were new.
    pub(crate) fn import(&self, sessions: &[Imported]) -> anyhow::Result<Taken> {
        self.post("/v1/imported", sessions)
    }

    /// The calls without a line of one session, or of all, unless nothing has changed since that stamp.
    pub(crate) fn hidden_calls(&self, session_id: Option<&str>, unless: &str) -> anyhow::Result<HiddenCalls> {
        let ask = AskHidden { session_id: session_id.map(str::to_owned), unless: unless.to_owned() };
        self.post("/v1/hidden-calls", &ask)
    }

    /// Spans that no server accepts.
    pub(crate) fn dead_letters(&self) -> anyhow::Result<Vec<DeadLetter>> {
        self.get("/v1/dead-letters")
    }

    /// Retries or drops dead letters; returns how many.
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
        serde_json::from_slice(&body).context("this version does not understand the daemon's answer")
    }

    fn request(&self, method: Method, path: &str, body: Vec<u8>) -> anyhow::Result<Bytes> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let exchange = exchange(&self.paths, method, path, body);
            let answer = tokio::time::timeout(self.timeout, exchange).await.context("the daemon does not answer");
            // It does not answer before its database is open.
            answer.flatten().map_err(|error| opening(&self.paths).map_or(error, anyhow::Error::from))
        })
    }
}

async fn exchange(paths: &Paths, method: Method, path: &str, body: Vec<u8>) -> anyhow::Result<Bytes> {
    let name = paths.socket.as_path().to_fs_name::<GenericFilePath>()?;
    let stream: Stream =
        ConnectOptions::new().name(name).connect_tokio().await.map_err(|_| match paths.database.exists() {
            true => NotRunning::Absent,
            false => NotRunning::NeverStarted,
        })?;
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
        // Earlier versions of the daemon do not give a reason.
        let why = serde_json::from_slice::<Failure>(&body).map(|failure| failure.error);
        bail!("the daemon answered {status}: {}", why.unwrap_or_else(|_| String::from_utf8_lossy(&body).into_owned()));
    }
    Ok(body)
}
