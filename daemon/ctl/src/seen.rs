//! A session somebody means, where its spans go, and the key for that.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::{
    client,
    session::{self, Found, Naming},
};
use cc_core::{
    consent::{Chooser, chooser},
    destination::Destination,
    ids::hex,
    project::{Capture, Options},
    route::Env,
    secret::Secrets,
    status::{self, Place, Session, Status},
};
use cc_langfuse::{
    credentials::{self, layers},
    environment, offline,
};

/// A session, as far as it is known.
pub(crate) struct Seen {
    pub session_id: String,
    pub transcript: PathBuf,
    pub dirs: Vec<PathBuf>,
    pub destination: Option<Destination>,
}

impl Seen {
    /// The session of this name, as [`session::find`] finds it, with what the daemon knows of it.
    pub(crate) fn meant(known: &[Session], name: Option<&str>, naming: Naming) -> anyhow::Result<Self> {
        let Found { id, transcript } = session::find(name, naming, known)?;
        let is_known = |session: &&Session| session.session_id == id && session.transcript == transcript;
        Ok(match known.iter().find(is_known) {
            Some(session) => Self::of(session),
            None => Self { session_id: id, transcript, dirs: Vec::new(), destination: None },
        })
    }

    fn of(session: &Session) -> Self {
        Self {
            session_id: session.session_id.clone(),
            transcript: session.transcript.clone(),
            dirs: session.project_dirs.clone(),
            destination: session.destination.clone().and_then(Place::destination),
        }
    }

    /// The trace of the last answered turn, and the directories of the project.
    pub(crate) fn last_turn(&self) -> anyhow::Result<(Option<String>, Vec<PathBuf>)> {
        let (mut traces, dirs) = self.turns()?;
        Ok((traces.pop(), dirs))
    }

    /// The traces of the answered turns, and the directories of the project.
    pub(crate) fn turns(&self) -> anyhow::Result<(Vec<String>, Vec<PathBuf>)> {
        let (mut traces, mut dirs) = (Vec::new(), self.dirs.clone());
        // Neither text nor masks matter.
        let options = Options { capture: Capture::Metadata, unredacted: true, ..Options::default() };
        offline::turns(&self.transcript, &self.session_id, &options, &Default::default(), |found| {
            let Some(root) = found.iter().find(|out| out.observation.is_root()) else { return };
            traces.push(hex(&root.observation.trace_id));
            if self.dirs.is_empty() {
                let cwd = root.facts.cwd.as_deref().map(PathBuf::from);
                dirs.extend(cwd.filter(|cwd| cwd.is_absolute() && !dirs.contains(cwd)));
            }
        })
        .with_context(|| format!("{} cannot be read", self.transcript.display()))?;
        Ok((traces, dirs))
    }

    /// Where its spans go: what the daemon knows, or this environment says, or the project's settings.
    pub(crate) fn destination(&self, dirs: &[PathBuf]) -> anyhow::Result<Destination> {
        if let Some(destination) = &self.destination {
            return Ok(destination.clone());
        }
        let user = client::user_dir(&client::home()?);
        let own = environment::forwarded().into_iter().collect();
        let of_projects = dirs.iter().rev().map(|dir| layers::resolve(Some(dir), &user));
        let found = std::iter::once(own).chain(of_projects).find_map(|vars| Env::of(&vars).destination().ok());
        found.map(|(to, _)| to).context(
            "which server? Set LANGFUSE_PUBLIC_KEY, LANGFUSE_SECRET_KEY and LANGFUSE_BASE_URL as your project does",
        )
    }
}

/// The key for `destination`, if it may go there: where others chose it, only if the user trusts it.
pub(crate) fn secrets(destination: &Destination, dirs: &[PathBuf], status: Option<&Status>) -> anyhow::Result<Secrets> {
    let (home, vars) = (client::home()?, environment::forwarded().into_iter().collect());
    let config_dirs: Vec<PathBuf> = client::config_dir().into_iter().collect();
    let own = Env::of(&vars);
    let is_trusted = is_trusted(status, destination);
    let own = own.destination().ok().filter(|(to, secrets)| to == destination && !secrets.is_empty());
    let own = own.map(|(_, secrets)| secrets);
    let secrets = own
        .clone()
        .or_else(|| credentials::from_settings(destination, dirs, &config_dirs, &home, true))
        .with_context(|| {
            format!(
                "no secret key for {} ({}) in the environment or the project's settings",
                destination.address, destination.account
            )
        })?;
    let held = status.and_then(|status| status.destinations.iter().find(|known| is(known, destination)));
    if let Some(why) = held.and_then(|held| held.held_by.as_ref()) {
        bail!("your key is not sent to {}: {}", destination.address, cc_core::consent::held(destination, why));
    }
    if is_trusted || own.is_some_and(|own| own == secrets) {
        return Ok(secrets);
    }
    match by_others(destination, dirs, &config_dirs, &home) {
        Some(why) => {
            bail!("your key is not sent to {}: {}", destination.address, cc_core::consent::held(destination, &why))
        }
        None => Ok(secrets),
    }
}

/// What shows that others chose `destination` for sessions in `dirs`, as the settings files are now.
pub(crate) fn by_others(to: &Destination, dirs: &[PathBuf], config_dirs: &[PathBuf], home: &Path) -> Option<String> {
    let user = credentials::user_dir(config_dirs.first().map(PathBuf::as_path), home);
    let own: std::collections::BTreeMap<_, _> = environment::forwarded().into_iter().collect();
    let judge = |dir: Option<&PathBuf>| {
        let mut vars = own.clone();
        vars.extend(layers::resolve(dir.map(PathBuf::as_path), &user));
        let env = Env::of(&vars);
        if env.destination().ok().is_none_or(|(found, _)| found != *to) {
            return None;
        }
        let dirs: Vec<PathBuf> = dir.into_iter().cloned().collect();
        Some(chooser(to.kind, &vars, &layers::around(&dirs, config_dirs.first().map(PathBuf::as_path), home)))
    };
    let judged: Vec<Chooser> = dirs.iter().map(Some).chain([None]).filter_map(judge).collect();
    if judged.contains(&Chooser::User) {
        return None;
    }
    judged.into_iter().find_map(|chooser| match chooser {
        Chooser::Repository(evidence) => Some(evidence.to_string()),
        Chooser::User | Chooser::Config => None,
    })
}

fn is(known: &status::Destination, to: &Destination) -> bool {
    known.base_url == to.address && known.public_key == to.account
}

/// The user has said that spans may go there.
pub(crate) fn is_trusted(status: Option<&Status>, destination: &Destination) -> bool {
    let to = |trust: &status::Trusted| trust.base_url == destination.address && trust.public_key == destination.account;
    status.is_some_and(|status| status.trusts.iter().any(to))
}
