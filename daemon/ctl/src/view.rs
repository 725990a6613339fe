//! `view`: every session on this machine in the browser, without daemon, account and network.
//!
//! It runs a server on a random port of the loopback address, in the foreground, until Ctrl-C. Numbers come from the
//! index, text from the transcripts, masked; pages are rendered here and can be read without scripts.

use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use tokio::signal::unix::{SignalKind, signal};

use self::{
    guard::{Guard, HEADERS},
    pages::Page,
    query::Query,
};
use crate::{
    client,
    history::History,
    session::{self, Naming},
};
use cc_langfuse::{clock, index::Listed, output};

mod cache;
mod delivery;
mod export;
mod forks;
mod guard;
mod html;
mod markdown;
mod pages;
mod query;
mod search;
mod session_page;
mod sessions;
mod turn_page;
mod usage;

pub(crate) use search::around;
pub(crate) use turn_page::{Node, read};

/// The server ends after this time without a request.
const IDLE: Duration = Duration::from_secs(3600);

/// How long a page waits for changes before it asks again.
const NEWS: Duration = Duration::from_secs(25);

/// How often transcripts are checked while a page waits for changes.
const LOOK: Duration = Duration::from_secs(1);

/// The pause between two checks, as a multiple of the last one's duration: a long history takes at most 5 %
/// of a processor.
const REST: u32 = 20;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  cc-langfusectl view
  cc-langfusectl view 7c1283ae
  cc-langfusectl view --no-open ~/.claude/projects/-home-me-app

The address holds a secret: it alone gives access to your transcripts, for as long as this runs. It ends with Ctrl-C, or after an
hour without a request.")]
pub(crate) struct View {
    /// A session to open first, as for `show`; or transcripts or directories of transcripts, to show instead of your own
    which: Vec<PathBuf>,
    /// Print the address only
    #[arg(long)]
    no_open: bool,
}

/// The data for the pages.
pub(crate) struct Site {
    guard: Guard,
    history: Mutex<History>,
    /// Incremented with each change of the index that was noticed.
    version: AtomicU64,
    /// Every session, after the latest change.
    sessions: Mutex<Arc<Vec<Listed>>>,
    last_request: Mutex<Instant>,
    zone: jiff::tz::TimeZone,
}

impl View {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let (paths, first) = self.meant()?;
        let state = client::paths()?.state;
        if !self.no_open {
            cc_langfuse::socket::private_dir(&state)?;
        }
        serve(&paths, first.as_deref(), (!self.no_open).then_some(&*state))
    }

    /// The paths whose transcripts are shown, and the first page.
    fn meant(&self) -> anyhow::Result<(Vec<PathBuf>, Option<String>)> {
        match &self.which[..] {
            [name] if !name.exists() => {
                let name = name.to_str().context("a session's name is text")?;
                let found = session::find(Some(name), Naming::Loose, &[])?;
                Ok((Vec::new(), Some(format!("session/{}", found.id))))
            }
            paths => Ok((paths.to_vec(), None)),
        }
    }
}

/// Serves the sessions below `paths`, or all of the user's, until it is interrupted. Opens the browser if there is a directory
/// that only the user can enter, in which the address can be handed over.
pub(crate) fn serve(paths: &[PathBuf], first: Option<&str>, by_way_of: Option<&Path>) -> anyhow::Result<ExitCode> {
    let mut history = History::open(paths)?;
    history.update()?;
    let sessions = Arc::new(history.index.sessions()?);
    let listener = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let guard = Guard::new(listener.local_addr()?.port())?;
    let url = format!("{}{}", guard.url(), first.unwrap_or_default());
    let site = Arc::new(Site {
        guard,
        history: Mutex::new(history),
        version: AtomicU64::new(1),
        sessions: Mutex::new(sessions),
        last_request: Mutex::new(clock::monotonic()),
        zone: jiff::tz::TimeZone::system(),
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build()?;
    let result = runtime.block_on(async {
        // The signal may come as soon as the address is printed.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        out!("Your sessions are at this address until Ctrl-C:");
        out!("{url}");
        let redirect = by_way_of.filter(|_| output::is_seen()).and_then(|dir| open_browser(&url, dir));
        let app = Router::new().fallback(answer).with_state(site.clone());
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let served = tokio::select! {
            served = axum::serve(listener, app).into_future() => served,
            () = idle(&site) => {
                err!("ended: no request for an hour");
                Ok(())
            }
            _ = interrupt.recv() => Ok(()),
            _ = terminate.recv() => Ok(()),
        };
        redirect.iter().for_each(|file| drop(fs::remove_file(file)));
        served
    });
    // Does not wait for pages that wait for changes.
    runtime.shutdown_background();
    result.map(|()| ExitCode::SUCCESS).map_err(Into::into)
}

/// Opens `url` in the browser through a file in `dir` that only the user can read: everyone can see the arguments of programs.
fn open_browser(url: &str, dir: &Path) -> Option<PathBuf> {
    let file = dir.join("view.html");
    let write = || -> std::io::Result<()> {
        let _ = fs::remove_file(&file);
        #[expect(clippy::disallowed_methods, reason = "a new file in a directory that is closed to others")]
        let mut out = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file)?;
        write!(out, "<!doctype html><meta charset=utf-8><meta http-equiv=refresh content=\"0;url={url}\">")
    };
    write().ok()?;
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let mut command = Command::new(program);
    let _ = command.arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    Some(file)
}

async fn idle(site: &Site) {
    loop {
        let last = *site.last_request.lock().unwrap_or_else(PoisonError::into_inner);
        match (last + IDLE).checked_duration_since(clock::monotonic()) {
            Some(rest) => tokio::time::sleep(rest + Duration::from_millis(1)).await,
            None => return,
        }
    }
}

async fn answer(State(site): State<Arc<Site>>, request: Request) -> Response {
    let mut response = match site.guard.judge(request.method(), request.uri(), request.headers()) {
        Err(status) => plain(status, "text/plain; charset=utf-8", status.canonical_reason().unwrap_or("refused")),
        Ok(parts) => {
            *site.last_request.lock().unwrap_or_else(PoisonError::into_inner) = clock::monotonic();
            let query = Query::parse(request.uri().query().unwrap_or_default());
            if parts == ["news"] {
                news(&site, query.number("since")).await
            } else {
                // The thread that listens must not read files.
                let made = tokio::task::spawn_blocking(move || pages::make(&site, &parts, &query)).await;
                made.map_or_else(|_| failed("the page could not be made"), respond)
            }
        }
    };
    let headers = response.headers_mut();
    headers.extend(HEADERS);
    response
}

fn respond(page: anyhow::Result<Option<Page>>) -> Response {
    match page {
        Ok(Some(page)) => {
            let mut response = plain(StatusCode::OK, page.kind, page.body);
            if let Some(to) = page.location.and_then(|to| HeaderValue::from_str(&to).ok()) {
                *response.status_mut() = StatusCode::SEE_OTHER;
                response.headers_mut().insert(header::LOCATION, to);
            }
            if let Some(name) =
                page.file_name.and_then(|name| HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")).ok())
            {
                response.headers_mut().insert(header::CONTENT_DISPOSITION, name);
            }
            response
        }
        Ok(None) => plain(StatusCode::NOT_FOUND, "text/html; charset=utf-8", html::missing().into_string()),
        Err(error) => failed(&format!("{error:#}")),
    }
}

fn failed(why: &str) -> Response {
    let mut response =
        plain(StatusCode::INTERNAL_SERVER_ERROR, "text/html; charset=utf-8", html::failed(why).into_string());
    response.headers_mut().extend(HEADERS);
    response
}

fn plain(status: StatusCode, kind: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// Waits for a limited time until the index is newer than `since`.
async fn news(site: &Arc<Site>, since: u64) -> Response {
    let until = clock::monotonic() + NEWS;
    let mut pause = LOOK;
    loop {
        let version = site.version.load(Ordering::Relaxed);
        if version > since || clock::monotonic() >= until {
            return plain(StatusCode::OK, "application/json", format!("{{\"version\":{version}}}"));
        }
        tokio::time::sleep(pause).await;
        let (site, started) = (site.clone(), clock::monotonic());
        let _ = tokio::task::spawn_blocking(move || site.refresh()).await;
        pause = LOOK.max(started.elapsed() * REST);
    }
}

impl Site {
    /// Updates the index.
    fn refresh(&self) -> anyhow::Result<()> {
        let mut history = self.history();
        let updated = history.update()?;
        if updated.read + updated.gone > 0 || updated.by_others {
            *self.sessions.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(history.index.sessions()?);
            self.version.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Every session, the most recently active first.
    fn sessions(&self) -> Arc<Vec<Listed>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The session with this id.
    fn session(&self, id: &str) -> Option<Listed> {
        self.sessions().iter().find(|one| one.session_id == id).cloned()
    }

    /// The index; one page at a time can use it.
    fn history(&self) -> std::sync::MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `path` with `~` for the user's home.
fn short(path: &str) -> String {
    let home = client::home().unwrap_or_default();
    crate::ui::table::path(Path::new(path), &home)
}
