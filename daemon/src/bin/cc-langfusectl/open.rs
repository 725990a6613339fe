//! `open`: where a session is to be seen in Langfuse.

use std::{
    io::IsTerminal,
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, bail};
use cc_langfuse::{credentials::Secret, delivery::transport, hook::Destination};

use crate::{
    client,
    seen::{self, Seen},
    sessions,
};

/// `open`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cc-langfusectl open
  cc-langfusectl open --session --print 01628e54-f2e1-4452-8e4e-eede11a0a73e")]
pub struct Open {
    /// A session id, or the path of a transcript; without it, the one heard of last in this directory's project
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
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let status = match sessions::status() {
            Ok(status) => Some(status),
            // A transcript tells where it belongs, too.
            Err(error) if self.which.is_some() && error.is::<client::NotRunning>() => None,
            Err(error) => return Err(error),
        };
        let known = status.as_ref().map_or(&[][..], |status| &status.sessions);
        let seen = Seen::meant(known, self.which.as_deref())?;
        let (trace, dirs) = seen.last_turn()?;
        let destination = seen.destination(&dirs)?;
        let secret = seen::secret(&destination, &dirs, status.as_ref())?;
        let project = project(&destination, &secret).with_context(|| {
            format!("the page of session {} is in {}, but which project it is", seen.session_id, destination.base_url)
        })?;
        let url = match trace {
            _ if self.whole => project.session(&seen.session_id),
            Some(trace) => project.trace(&trace),
            None => bail!("no answered turn in {}", seen.transcript.display()),
        };
        out!("{url}");
        if !self.print && std::io::stdout().is_terminal() {
            show_in_browser(&url);
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// A project on its server.
pub struct Project {
    base_url: String,
    id: String,
}

impl Project {
    /// The page of a session.
    pub fn session(&self, session_id: &str) -> String {
        format!("{}/project/{}/sessions/{}", self.base_url, encoded(&self.id), encoded(session_id))
    }

    /// The page of a turn.
    fn trace(&self, trace_id: &str) -> String {
        format!("{}/project/{}/traces/{}", self.base_url, encoded(&self.id), encoded(trace_id))
    }
}

/// Asks the server which project the key is for.
pub fn project(destination: &Destination, secret: &Secret) -> anyhow::Result<Project> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let id = runtime.block_on(transport::project(destination, secret))?.id;
    Ok(Project { base_url: destination.base_url.clone(), id })
}

/// A segment of an address.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// The address is printed already, so nothing is lost where there is no browser.
fn show_in_browser(url: &str) {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let mut command = Command::new(program);
    let _ = command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
}
