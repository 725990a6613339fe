//! `open`: where a session is to be seen in Langfuse.

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, bail};
use cc_langfuse::{
    api::{self, Session},
    credentials::{self, Origin, Secret},
    delivery::transport::project_id,
    hook::{Capture, Destination, Env, Options},
    ids::hex,
    offline,
};

use crate::{client, sessions, show};

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
        let seen = match &self.which {
            Some(name) => match known.iter().find(|session| is_meant(session, name)) {
                Some(session) => Seen::of(session),
                None => Seen::find(name)?,
            },
            None => {
                let dir = std::env::current_dir()?;
                let here = of_directory(known, &dir).with_context(|| {
                    format!("no session known in {}; name one of `cc-langfusectl sessions`", dir.display())
                })?;
                Seen::of(here)
            }
        };
        let (trace, dirs) = seen.last_turn()?;
        let destination = seen.destination(&dirs)?;
        let delivers = status.iter().flat_map(|status| &status.destinations).any(|to| delivers(to, &destination));
        let secret = secret(&destination, &dirs, delivers)?;
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
    let id = runtime.block_on(project_id(destination, secret))?;
    Ok(Project { base_url: destination.base_url.clone(), id })
}

/// A segment of an address.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// A session, as far as it is known.
struct Seen {
    session_id: String,
    transcript: PathBuf,
    dirs: Vec<PathBuf>,
    destination: Option<Destination>,
}

impl Seen {
    fn of(session: &Session) -> Self {
        Self {
            session_id: session.session_id.clone(),
            transcript: session.transcript.clone(),
            dirs: session.project_dirs.clone(),
            destination: session.destination.clone(),
        }
    }

    /// One the daemon does not know.
    fn find(name: &str) -> anyhow::Result<Self> {
        let (transcript, session_id) = show::find(name)?;
        Ok(Self { session_id, transcript, dirs: Vec::new(), destination: None })
    }

    /// The trace of the last answered turn, and the directories of the project.
    fn last_turn(&self) -> anyhow::Result<(Option<String>, Vec<PathBuf>)> {
        let (mut trace, mut dirs) = (None, self.dirs.clone());
        // Neither text nor masks matter.
        let options = Options { capture: Capture::Metadata, unredacted: true, ..Options::default() };
        offline::turns(&self.transcript, &self.session_id, &options, &Default::default(), |spans| {
            let Some(root) = spans.iter().find(|span| span.is_root()) else { return };
            trace = Some(hex(&root.trace_id));
            if self.dirs.is_empty() {
                let cwd = root.text("langfuse.trace.metadata.cwd").map(PathBuf::from);
                dirs.extend(cwd.filter(|cwd| cwd.is_absolute() && !dirs.contains(cwd)));
            }
        })
        .with_context(|| format!("{} cannot be read", self.transcript.display()))?;
        Ok((trace, dirs))
    }

    /// Where its spans go: what the daemon knows, or this environment says, or the project's settings.
    fn destination(&self, dirs: &[PathBuf]) -> anyhow::Result<Destination> {
        if let Some(destination) = &self.destination {
            return Ok(destination.clone());
        }
        let home = client::home()?;
        let own = client::environment().into_iter().collect();
        let of_projects = dirs.iter().rev().map(|dir| credentials::settings_env(Some(dir), &home));
        let found = std::iter::once(own).chain(of_projects).find_map(|vars| env(&vars).destination().ok());
        found.context(
            "which server? Set LANGFUSE_PUBLIC_KEY, LANGFUSE_SECRET_KEY and LANGFUSE_BASE_URL as your project does",
        )
    }
}

fn env(vars: &std::collections::BTreeMap<String, String>) -> Env<'_> {
    Env::new(vars.iter().map(|(name, value)| (name.as_str(), value.as_str())))
}

/// The key for `destination`, if it may go there: to where a repository sends it, it does only if the daemon `delivers` there.
fn secret(destination: &Destination, dirs: &[PathBuf], delivers: bool) -> anyhow::Result<Secret> {
    let (home, vars) = (client::home()?, client::environment().into_iter().collect());
    let own = env(&vars);
    let secret = own.secret().filter(|_| own.destination().as_ref() == Ok(destination));
    let secret = secret.or_else(|| credentials::from_settings(destination, dirs, &home)).with_context(|| {
        format!(
            "no secret key for {} ({}) in the environment or the project's settings",
            destination.base_url, destination.public_key
        )
    })?;
    match credentials::origin(destination, &secret, dirs, &home) {
        Origin::Repository(file) if !delivers => bail!(
            "{} was chosen by {}, which git tracks: your key is not sent there before `cc-langfusectl trust {}`",
            destination.base_url,
            file.display(),
            destination.base_url
        ),
        _ => Ok(secret),
    }
}

/// Spans arrive there: that is trusted.
fn delivers(to: &api::Destination, destination: &Destination) -> bool {
    (&to.base_url, &to.public_key) == (&destination.base_url, &destination.public_key)
        && to.state == "ok"
        && to.last_success.is_some()
}

fn is_meant(session: &Session, name: &str) -> bool {
    session.session_id == name || std::path::absolute(name).is_ok_and(|path| path == session.transcript)
}

/// The session heard of last, of those whose project lies closest around `dir`.
fn of_directory<'s>(sessions: &'s [Session], dir: &Path) -> Option<&'s Session> {
    let depth = |session: &Session| {
        let dirs = session.project_dirs.iter().map(|dir| dir.canonicalize().unwrap_or_else(|_| dir.clone()));
        dirs.filter(|around| dir.starts_with(around)).map(|around| around.components().count()).max()
    };
    let heard = |session: &Session| session.last_heard.as_ref()?.parse::<jiff::Timestamp>().ok();
    let here = sessions.iter().filter_map(|session| Some((depth(session)?, heard(session), session)));
    here.max_by_key(|(depth, heard, _)| (*depth, *heard)).map(|(.., session)| session)
}

/// The address is printed already, so nothing is lost where there is no browser.
fn show_in_browser(url: &str) {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let mut command = Command::new(program);
    let _ = command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
}
