//! `open`: where a session is to be seen in Langfuse.

use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, bail};

use crate::{
    client::{self, Client},
    seen::{self, Seen},
    session::Naming,
};
use cc_core::{
    delivery::readback::Failure,
    destination::{
        Destination,
        pages::{Pages, Project},
    },
    secret::Secrets,
};
use cc_langfuse::{
    delivery::{readback::Readback, transport::Limits},
    output,
};

/// `open`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cc-langfusectl open
  cc-langfusectl open --session --print 01628e54-f2e1-4452-8e4e-eede11a0a73e")]
pub(crate) struct Open {
    /// A session: its id or the beginning of it, a part of its title, or the path of its transcript; without it, the one heard of
    /// last in this directory's project
    #[arg(value_name = "SESSION")]
    which: Option<String>,
    /// The page of the session, not of its last turn
    #[arg(long = "session")]
    whole: bool,
    /// Only print the address
    #[arg(long)]
    print: bool,
}

impl Open {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let status = match Client::new().and_then(|daemon| daemon.status()) {
            Ok(status) => Some(status),
            // A transcript tells where it belongs, too.
            Err(error) if self.which.is_some() && error.is::<client::NotRunning>() => None,
            Err(error) => return Err(error),
        };
        let known = status.as_ref().map_or(&[][..], |status| &status.sessions);
        let seen = Seen::meant(known, self.which.as_deref(), Naming::Loose)?;
        let (trace, dirs) = seen.last_turn()?;
        let destination = seen.destination(&dirs)?;
        let secrets = seen::secrets(&destination, &dirs, status.as_ref())?;
        let pages = pages(&destination)?;
        let project = project(&destination, &secrets).with_context(|| {
            format!("the page of session {} is in {}, but which project it is", seen.session_id, destination.address)
        })?;
        let url = match trace {
            _ if self.whole => pages.session(&destination, &project, &seen.session_id),
            Some(trace) => pages.trace(&destination, &project, &trace),
            None => bail!("no answered turn in {}", seen.transcript.display()),
        };
        out!("{url}");
        if !self.print && output::is_seen() {
            show_in_browser(&url);
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The pages of a server.
///
/// # Errors
/// If it has none.
pub(crate) fn pages(server: &Destination) -> anyhow::Result<&'static dyn Pages> {
    let backend = server.kind.backend();
    backend.pages().with_context(|| format!("{} has no pages to look at", backend.words().title))
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
        Failure::Status { status: 401, .. } => anyhow::Error::new(why)
            .context("the server does not know these keys: they may be of another server or region, or deleted"),
        Failure::Status { status: 403, .. } => anyhow::Error::new(why).context(
            "the server refuses these keys: an organisation's will not do, make some in the project's settings",
        ),
        Failure::Status { .. } | Failure::Odd { .. } => {
            anyhow::Error::new(why).context(format!("is this the address of a {name} server? It answered"))
        }
        Failure::Unreachable(_) | Failure::Untrusted(_) => why.into(),
    })
}

/// The address is printed already, so nothing is lost where there is no browser.
fn show_in_browser(url: &str) {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let mut command = Command::new(program);
    let _ = command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
}
