//! A session somebody means, where its spans go, and the key for that.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use cc_langfuse::{
    api::{Session, Status},
    credentials::{self, Origin, Secret},
    hook::{Capture, Destination, Env, Options},
    ids::hex,
    offline,
};

use crate::{client, show};

/// A session, as far as it is known.
pub struct Seen {
    pub session_id: String,
    pub transcript: PathBuf,
    pub dirs: Vec<PathBuf>,
    pub destination: Option<Destination>,
}

impl Seen {
    /// The session of this name, be it an id or the path of a transcript; without one, that heard of last in this directory's
    /// project.
    pub fn meant(known: &[Session], name: Option<&str>) -> anyhow::Result<Self> {
        let Some(name) = name else {
            let dir = std::env::current_dir()?;
            let here = of_directory(known, &dir).with_context(|| {
                format!("no session known in {}; name one of `cc-langfusectl sessions`", dir.display())
            })?;
            return Ok(Self::of(here));
        };
        match known.iter().find(|session| is_meant(session, name)) {
            Some(session) => Ok(Self::of(session)),
            None => Self::find(name),
        }
    }

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
    pub fn last_turn(&self) -> anyhow::Result<(Option<String>, Vec<PathBuf>)> {
        let (mut traces, dirs) = self.turns()?;
        Ok((traces.pop(), dirs))
    }

    /// The traces of the answered turns, and the directories of the project.
    pub fn turns(&self) -> anyhow::Result<(Vec<String>, Vec<PathBuf>)> {
        let (mut traces, mut dirs) = (Vec::new(), self.dirs.clone());
        // Neither text nor masks matter.
        let options = Options { capture: Capture::Metadata, unredacted: true, ..Options::default() };
        offline::turns(&self.transcript, &self.session_id, &options, &Default::default(), |spans| {
            let Some(root) = spans.iter().find(|span| span.is_root()) else { return };
            traces.push(hex(&root.trace_id));
            if self.dirs.is_empty() {
                let cwd = root.text("langfuse.trace.metadata.cwd").map(PathBuf::from);
                dirs.extend(cwd.filter(|cwd| cwd.is_absolute() && !dirs.contains(cwd)));
            }
        })
        .with_context(|| format!("{} cannot be read", self.transcript.display()))?;
        Ok((traces, dirs))
    }

    /// Where its spans go: what the daemon knows, or this environment says, or the project's settings.
    pub fn destination(&self, dirs: &[PathBuf]) -> anyhow::Result<Destination> {
        if let Some(destination) = &self.destination {
            return Ok(destination.clone());
        }
        let user = client::user_dir(&client::home()?);
        let own = client::environment().into_iter().collect();
        let of_projects = dirs.iter().rev().map(|dir| credentials::settings_env(Some(dir), &user));
        let found = std::iter::once(own).chain(of_projects).find_map(|vars| env(&vars).destination().ok());
        found.context(
            "which server? Set LANGFUSE_PUBLIC_KEY, LANGFUSE_SECRET_KEY and LANGFUSE_BASE_URL as your project does",
        )
    }
}

fn env(vars: &std::collections::BTreeMap<String, String>) -> Env<'_> {
    Env::new(vars.iter().map(|(name, value)| (name.as_str(), value.as_str())))
}

/// The key for `destination`, if it may go there: to where a repository sends it, it does only if that is trusted.
pub fn secret(destination: &Destination, dirs: &[PathBuf], status: Option<&Status>) -> anyhow::Result<Secret> {
    let (home, vars) = (client::home()?, client::environment().into_iter().collect());
    let config_dirs: Vec<PathBuf> = client::config_dir().into_iter().collect();
    let own = env(&vars);
    let secret = own.secret().filter(|_| own.destination().as_ref() == Ok(destination));
    let secret =
        secret.or_else(|| credentials::from_settings(destination, dirs, &config_dirs, &home)).with_context(|| {
            format!(
                "no secret key for {} ({}) in the environment or the project's settings",
                destination.base_url, destination.public_key
            )
        })?;
    match credentials::origin(destination, &secret, dirs, &config_dirs, &home) {
        Origin::Repository(file) if !is_trusted(status, destination) => bail!(
            "{} was chosen by {}, which git tracks: your key is not sent there before `cc-langfusectl trust {}`",
            destination.base_url,
            file.display(),
            destination.base_url
        ),
        _ => Ok(secret),
    }
}

/// The user has said that spans may go there.
pub fn is_trusted(status: Option<&Status>, destination: &Destination) -> bool {
    status.is_some_and(|status| status.trusted.contains(&destination.base_url))
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
