//! `open`: shows a session on its server.

use std::{
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, bail};

use crate::{
    client::{self, Client},
    kinds::{self, To},
    session::Naming,
    traced::{self, TracedSession},
};
use cc_core::{
    delivery::readback::Failure,
    destination::{
        Connect, Destination, Folder,
        pages::{Item, Project},
    },
    secret::Secrets,
};
use cc_langfuse::{
    delivery::{erase, readback::Readback, transport::Limits},
    output,
};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  cc-langfusectl open
  cc-langfusectl open --to mlflow
  cc-langfusectl open --session --print 01628e54-f2e1-4452-8e4e-eede11a0a73e")]
pub(crate) struct Open {
    /// A session: its id or the beginning of it, a part of its title, or the path of its transcript; without it, the
    /// latest session of this directory's project
    #[arg(value_name = "SESSION")]
    which: Option<String>,
    /// The page of the session, not of its last turn
    #[arg(long = "session")]
    whole: bool,
    /// The destination of this kind (langfuse, mlflow, otlp) or of this name
    #[arg(long, value_name = "KIND or NAME", value_parser = kinds::to)]
    to: Option<To>,
    /// Only print the address
    #[arg(long)]
    print: bool,
}

impl Open {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let status = match Client::new().and_then(|daemon| daemon.status()) {
            Ok(status) => Some(status),
            // The transcript alone may say where the session was sent.
            Err(error) if self.which.is_some() && error.is::<client::NotRunning>() => None,
            Err(error) => return Err(error),
        };
        let known = status.as_ref().map_or(&[][..], |status| &status.sessions);
        let session = TracedSession::meant(known, self.which.as_deref(), Naming::Loose)?;
        let (trace, dirs) = session.last_turn()?;
        let to = session.destinations(&dirs, status.as_ref(), self.to.as_ref())?.swap_remove(0);
        let item = match &trace {
            _ if self.whole => Item::Session(&session.session_id),
            Some(trace) => Item::Trace(trace),
            None => bail!("{} has no answered turn", session.transcript.display()),
        };
        if let Some(folder) = folder(&to) {
            return self.show_files(&folder, item);
        }
        let secrets = traced::secrets(&to, &dirs, status.as_ref())?;
        let url = page(&to, &secrets, item).with_context(|| {
            format!("session {} is at {}, but its page is not known", session.session_id, to.address)
        })?;
        let address = url.as_ref().unwrap_or(&to.address);
        out!("{address}");
        if url.is_none() {
            err!(
                "cc-langfusectl: this receiver's pages are not known: look there for session.id = {}",
                session.session_id
            );
        } else if !self.print && output::is_seen() {
            show_in_browser(address);
        }
        Ok(ExitCode::SUCCESS)
    }

    fn show_files(&self, folder: &Folder, item: Item<'_>) -> anyhow::Result<ExitCode> {
        let root = Path::new(&folder.root);
        match item {
            Item::Session(_) => out!("{}", root.display()),
            Item::Trace(id) => {
                let trace = cc_core::ids::from_hex(id).context("the trace has no id")?;
                let found = erase::find(root, trace).with_context(|| format!("{} cannot be read", root.display()))?;
                let found = found.with_context(|| format!("trace {id} is not in {}", root.display()))?;
                out!("{}", found.display());
            }
        }
        if !self.print {
            out!("to look at it: {}", folder.viewer());
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The directory in place of a server, if it is one.
pub(crate) fn folder(to: &Destination) -> Option<Folder> {
    match to.kind.backend().connect(to, &Secrets::default(), &[]) {
        Connect::Files(folder) => Some(folder),
        _ => None,
    }
}

/// The address of a page; `None` if no page is known for this server.
///
/// # Errors
/// [`Failure`], or why the server cannot be asked.
pub(crate) fn page(to: &Destination, secrets: &Secrets, item: Item<'_>) -> anyhow::Result<Option<String>> {
    let backend = to.kind.backend();
    if let Some(pages) = backend.pages() {
        let project = project(to, secrets)?;
        return Ok(Some(match item {
            Item::Trace(id) => pages.trace(to, &project, id),
            Item::Session(id) => pages.session(to, &project, id),
        }));
    }
    let Some(page) = backend.page(to, item) else { return Ok(None) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let server = Readback::new(to, secrets, Limits::default())?;
    Ok(runtime.block_on(server.deletes())?.then_some(page))
}

/// Asks the server which project the key is for.
///
/// # Errors
/// [`Failure`], or why it cannot be asked.
pub(crate) fn project(server: &Destination, secrets: &Secrets) -> anyhow::Result<Project> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let name = server.kind.backend().words().title;
    let server = Readback::new(server, secrets, Limits::default())?;
    runtime.block_on(server.project()).map_err(|why| match &why {
        Failure::Status { status: 401, .. } => anyhow::Error::new(why).context(
            "the server does not know these keys: they may belong to another server or region, or be \
                deleted",
        ),
        Failure::Status { status: 403, .. } => anyhow::Error::new(why).context(
            "the server refuses these keys: an organisation's keys do not work here, create some in the project's \
                settings",
        ),
        // A problem with the project itself is reported.
        Failure::Odd { said, .. } if !said.starts_with("the answer") => why.into(),
        Failure::Status { .. } | Failure::Odd { .. } => {
            anyhow::Error::new(why).context(format!("is this the address of a {name} server? It answered"))
        }
        Failure::Unreachable(_) | Failure::Untrusted(_) => why.into(),
    })
}

/// The address is printed already, so nothing is lost without a browser.
fn show_in_browser(url: &str) {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let mut command = Command::new(program);
    let _ = command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
}
