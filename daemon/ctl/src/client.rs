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

use cc_core::config::Config;
use cc_langfuse::{config_file, credentials};
use proto::paths::Paths;

/// No daemon answers on the socket.
#[derive(Debug, thiserror::Error)]
#[error("the daemon is not running (start cc-langfused, or its user service)")]
pub struct NotRunning;

/// The user's home.
pub fn home() -> anyhow::Result<PathBuf> {
    Ok(PathBuf::from(std::env::var_os("HOME").filter(|home| !home.is_empty()).context("HOME is not set")?))
}

/// Where Claude Code's own directory is, if not in the home.
pub fn config_dir() -> Option<PathBuf> {
    std::env::var_os("CLAUDE_CONFIG_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute())
}

/// Where Claude Code keeps the user's settings.
pub fn user_dir(home: &Path) -> PathBuf {
    credentials::user_dir(config_dir().as_deref(), home)
}

/// Where the daemon lives.
pub fn paths() -> anyhow::Result<Paths> {
    Ok(Paths::new(&home()?, std::env::var_os(proto::env::STATE_DIR).as_deref()))
}

/// The daemon's configuration, as it would read it now.
pub fn config() -> anyhow::Result<Config> {
    Ok(config_file::load(&paths()?.config)?)
}

/// What of this process's environment a hook would be given.
pub fn environment() -> Vec<(String, String)> {
    proto::env::forwarded().filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?))).collect()
}

/// One request, to be answered within `patience`.
///
/// # Errors
/// [`NotRunning`], or what went wrong.
pub fn request(paths: &Paths, method: Method, path: &str, body: Vec<u8>, patience: Duration) -> anyhow::Result<Bytes> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::time::timeout(patience, exchange(paths, method, path, body))
            .await
            .context("the daemon does not answer")?
    })
}

/// True if a daemon runs.
pub fn answers(paths: &Paths) -> bool {
    request(paths, Method::GET, "/v1/status", Vec::new(), Duration::from_secs(2)).is_ok()
}

async fn exchange(paths: &Paths, method: Method, path: &str, body: Vec<u8>) -> anyhow::Result<Bytes> {
    let name = paths.socket.as_path().to_fs_name::<GenericFilePath>()?;
    let stream: Stream = ConnectOptions::new().name(name).connect_tokio().await.map_err(|_| NotRunning)?;
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
        bail!("the daemon answered {status}: {}", String::from_utf8_lossy(&body));
    }
    Ok(body)
}
