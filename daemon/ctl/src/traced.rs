//! A session that a person means, its destinations and their keys.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

use crate::{
    client::{self, Client},
    kinds::{Names, To},
    session::{self, Found, Naming},
};
use cc_core::{
    consent::{self, Chooser, chooser},
    destination::{Destination, Kind},
    ids::{SpanKey, hex},
    project::{Capture, Options},
    route::Env,
    secret::Secrets,
    status::{
        self, Place, Session, Status,
        history::{Ask, SPANS},
    },
};
use cc_langfuse::{
    configured,
    credentials::{self, layers},
    environment, rebuild,
};

/// A session, as far as it is known.
pub(crate) struct TracedSession {
    pub session_id: String,
    pub transcript: PathBuf,
    pub dirs: Vec<PathBuf>,
    pub destination: Option<Destination>,
}

impl TracedSession {
    /// The session of this name, as [`session::find`] finds it, with the daemon's knowledge of it.
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
        // Text and masking do not matter here.
        let options = Options { capture: Capture::Metadata, unredacted: true, ..Options::default() };
        rebuild::turns(&self.transcript, &self.session_id, &options, &Default::default(), |found| {
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

    /// The destinations of its spans according to the daemon. If the daemon knows nothing, those of this environment or
    /// of the project's settings. Restricted to `wanted` if given; never empty.
    ///
    /// # Errors
    /// If there are none, or the daemon or the transcript cannot be read.
    pub(crate) fn destinations(
        &self,
        dirs: &[PathBuf],
        status: Option<&Status>,
        wanted: Option<&To>,
    ) -> anyhow::Result<Vec<Destination>> {
        let config = client::config()?;
        let names = Names::new(&config, status);
        wanted.map_or(Ok(()), |wanted| wanted.check(&names))?;
        let kind = wanted.and_then(To::kind);
        let mut found = Vec::from_iter(self.destination.clone());
        let known = status.map(|status| status.destinations.as_slice()).unwrap_or_default();
        let known = known.iter().filter_map(|row| {
            let kind = Kind::named(&row.kind)?;
            let to = Destination { kind, address: row.base_url.clone(), account: row.public_key.clone() };
            Some(to).filter(|to| self.destination.as_ref() != Some(to))
        });
        let known: Vec<Destination> = known.collect();
        let spans = if known.is_empty() { Vec::new() } else { self.spans()? };
        for to in known {
            if was_sent(&to, &spans)? {
                found.push(to);
            }
        }
        if found.is_empty() {
            let user = client::user_dir(&client::home()?);
            let of_projects = dirs.iter().rev().map(|dir| layers::for_hook(Some(dir), &user));
            let mut all = std::iter::once(own(dirs)).chain(of_projects).map(|vars| routes(&vars, kind));
            found = all.find(|found| !found.is_empty()).unwrap_or_default();
            let entries = config.destinations.iter().filter_map(|named| named.entry.as_ref().ok());
            let homes = [client::home()?];
            let taking = entries.filter(|entry| entry.takes(dirs.last().map(PathBuf::as_path), &homes));
            found.extend(taking.map(|entry| entry.destination.clone()));
        }
        found.retain(|to| wanted.is_none_or(|wanted| wanted.means(to, &names)));
        let named = wanted.map_or("spans", To::title);
        anyhow::ensure!(
            !found.is_empty(),
            "which server? Nothing of it is known to have gone to {named}, and neither the environment nor the project's settings name \
                one: set LANGFUSE_PUBLIC_KEY, LANGFUSE_SECRET_KEY and LANGFUSE_BASE_URL, or what your project sets"
        );
        Ok(found)
    }

    fn spans(&self) -> anyhow::Result<Vec<SpanKey>> {
        let options = Options { capture: Capture::Metadata, unredacted: true, ..Options::default() };
        let mut spans = Vec::new();
        rebuild::turns(&self.transcript, &self.session_id, &options, &Default::default(), |found| {
            spans.extend(found.iter().map(|out| (out.observation.trace_id, out.observation.span_id, None)));
        })
        .with_context(|| format!("{} cannot be read", self.transcript.display()))?;
        Ok(spans)
    }
}

/// True if any of `spans` was queued for `to`.
fn was_sent(to: &Destination, spans: &[SpanKey]) -> anyhow::Result<bool> {
    for some in spans.chunks(SPANS) {
        let ask = Ask { destination: to.clone(), spans: some.iter().map(Ask::span).collect(), events: Vec::new() };
        if Client::new()?.known(&ask)?.spans.contains('s') {
            return Ok(true);
        }
    }
    Ok(false)
}

/// This program's environment, for a session in the last of `dirs`.
fn own(dirs: &[PathBuf]) -> BTreeMap<String, String> {
    let mut vars: BTreeMap<String, String> = environment::forwarded().into_iter().collect();
    if let Some(dir) = dirs.last().and_then(|dir| dir.to_str()) {
        vars.entry("CLAUDE_PROJECT_DIR".to_owned()).or_insert_with(|| dir.to_owned());
    }
    vars
}

/// The destinations in `vars`: of the kinds that are switched on, else of the first that is configured.
fn routes(vars: &BTreeMap<String, String>, kind: Option<Kind>) -> Vec<Destination> {
    let env = Env::of(vars);
    let (on, _) = env.routes();
    let first = || match kind {
        Some(kind) => kind.backend().route(&env).ok().flatten(),
        None => env.destination().ok(),
    };
    let all = if on.is_empty() { Vec::from_iter(first()) } else { on };
    all.into_iter().map(|(to, _)| to).collect()
}

/// The secrets for `destination` if `config.toml` says where they are.
///
/// # Errors
/// Why they cannot be read.
fn of_config(destination: &Destination, home: &Path) -> anyhow::Result<Option<Secrets>> {
    let config = client::config()?;
    let entries = config.destinations.iter().filter_map(|named| named.entry.as_ref().ok());
    let mut entries = entries.filter(|entry| entry.destination == *destination);
    let found =
        entries.next().map(|entry| configured::secret::find(entry, home).map_err(anyhow::Error::msg)).transpose()?;
    Ok(found.filter(|secrets| !secrets.is_empty()))
}

/// The secrets for `destination`, if they may go there: if others chose it, only after the user has trusted it.
///
/// # Errors
/// Why there are none, or they may not.
pub(crate) fn secrets(destination: &Destination, dirs: &[PathBuf], status: Option<&Status>) -> anyhow::Result<Secrets> {
    let (home, backend) = (client::home()?, destination.kind.backend());
    let config_dirs: Vec<PathBuf> = client::config_dir().into_iter().collect();
    let vars = own(dirs);
    let is_trusted = is_trusted(status, destination);
    let own = backend.route(&Env::of(&vars)).ok().flatten();
    let own = own.filter(|(to, secrets)| to == destination && !secrets.is_empty()).map(|(_, secrets)| secrets);
    let configured = of_config(destination, &home)?;
    let is_configured = configured.is_some();
    let found = configured
        .or_else(|| own.clone())
        .or_else(|| credentials::from_settings(destination, dirs, &config_dirs, &home, true));
    let secrets = found.or_else(|| (!backend.needs_secret(destination)).then(Secrets::default)).with_context(|| {
        format!(
            "no {} for {} ({}) in the environment, the project's settings or config.toml",
            backend.words().secret,
            destination.address,
            destination.account
        )
    })?;
    let held = status.and_then(|status| status.destinations.iter().find(|known| is(known, destination)));
    if let Some(why) = held.and_then(|held| held.held_by.as_ref()) {
        bail!("nothing is sent to {}, not even your key: {}", destination.address, consent::held(destination, why));
    }
    if let Some(why) = consent::held_unencrypted(destination).filter(|_| !is_trusted) {
        bail!("nothing is sent to {}: {why}", destination.address);
    }
    let is_own = is_configured || own.is_some_and(|own| own == secrets);
    if let Some(why) =
        Some(()).filter(|()| !is_trusted && !is_own).and_then(|()| by_others(destination, dirs, &config_dirs, &home))
    {
        bail!("your key is not sent to {}: {}", destination.address, consent::held(destination, &why));
    }
    Ok(credentials::from_key_file(destination, secrets, &home))
}

/// What shows that others chose `destination` for sessions in `dirs`, by the present settings files.
pub(crate) fn by_others(to: &Destination, dirs: &[PathBuf], config_dirs: &[PathBuf], home: &Path) -> Option<String> {
    let user = credentials::user_dir(config_dirs.first().map(PathBuf::as_path), home);
    let judge = |dir: Option<&PathBuf>| {
        let mut vars = own(dir.map(std::slice::from_ref).unwrap_or_default());
        vars.extend(layers::for_hook(dir.map(PathBuf::as_path), &user));
        let (found, _) = to.kind.backend().route(&Env::of(&vars)).ok().flatten()?;
        if found != *to {
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

/// True if the user has trusted the destination.
pub(crate) fn is_trusted(status: Option<&Status>, destination: &Destination) -> bool {
    let to = |trust: &status::Trusted| trust.base_url == destination.address && trust.public_key == destination.account;
    status.is_some_and(|status| status.trusts.iter().any(to))
}
