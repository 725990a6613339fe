//! The destinations of `config.toml`, which is read again when it has changed: which of them a session has, and their secrets.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
    thread,
};

use tokio::sync::{Mutex, oneshot};

use crate::{
    config_file,
    credentials::layers::{self, Stamp},
};
use cc_core::{
    config::{
        Config,
        destination::{self, Entry, Named},
    },
    consent::Floor,
    destination::Destination,
    hook::Hint,
    secret::Secrets,
};

pub mod secret;

/// The destinations and the privacy floor from the present files. Cheap to clone.
#[derive(Clone, Default)]
pub struct Configured(Arc<Inner>);

#[derive(Default)]
struct Inner {
    home: PathBuf,
    /// All paths of the user's home.
    homes: Vec<PathBuf>,
    /// The user's file; `None` if it is not read again.
    file: Option<PathBuf>,
    said: RwLock<Said>,
}

/// The last valid content of the files.
#[derive(Clone, Default)]
struct Said {
    stamps: Vec<Stamp>,
    all: Arc<Vec<Known>>,
    floor: Floor,
    /// Why the present content is not used.
    problem: Option<String>,
}

struct Known {
    named: Named,
    /// Its secret, if it was looked up already.
    secrets: Arc<Mutex<Option<Secrets>>>,
}

impl Known {
    fn entry(&self) -> Option<&Entry> {
        self.named.entry.as_ref().ok()
    }
}

/// The stamps of the user's file at `file` and the administrator's, taken before they are read; equal stamps show that
/// nothing has changed.
pub fn stamps(file: &Path) -> Vec<Stamp> {
    [Path::new(config_file::FLEET_FILE), file].map(layers::stamp).to_vec()
}

impl Configured {
    /// The destinations of the user whose home is `home`; never read again.
    pub fn new(home: &Path, config: &Config) -> Self {
        Self::made(home, None, Said::of(config, Vec::new(), &[]))
    }

    /// The same, read from `file` when it had these `stamps`, and read again when it has changed.
    pub fn of_file(home: &Path, file: &Path, config: &Config, stamps: Vec<Stamp>) -> Self {
        Self::made(home, Some(file.to_owned()), Said::of(config, stamps, &[]))
    }

    fn made(home: &Path, file: Option<PathBuf>, said: Said) -> Self {
        let real = home.canonicalize().ok().filter(|real| real != home);
        let homes = std::iter::once(home.to_owned()).chain(real).collect();
        Self(Arc::new(Inner { home: home.to_owned(), homes, file, said: RwLock::new(said) }))
    }

    fn said(&self) -> RwLockReadGuard<'_, Said> {
        self.0.said.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn all(&self) -> Arc<Vec<Known>> {
        self.said().all.clone()
    }

    /// Reads the files again if they have changed. True if the new content is in force; invalid content
    /// changes nothing.
    pub fn refresh(&self) -> bool {
        let Some(file) = &self.0.file else { return false };
        let now = stamps(file);
        if self.said().stamps == now {
            return false;
        }
        let loaded = config_file::load(file);
        let mut said = self.0.said.write().unwrap_or_else(PoisonError::into_inner);
        match loaded {
            _ if said.stamps == now => false,
            Ok(config) => {
                *said = Said::of(&config, now, &said.all);
                true
            }
            Err(failed) => {
                let why = anyhow::Error::new(failed);
                tracing::warn!("the configuration is left as it was: {why:#}");
                (said.stamps, said.problem) = (now, Some(format!("{why:#}")));
                false
            }
        }
    }

    /// Why the present content of the files is not used.
    pub fn problem(&self) -> Option<String> {
        self.said().problem.clone()
    }

    /// The privacy that every project keeps at least.
    pub fn floor(&self) -> Floor {
        self.said().floor
    }

    /// Brings the destinations of an event up to date with the file. History goes only where the user sends it.
    pub fn join(&self, hint: &mut Hint) {
        if !hint.source.is_asked_for() {
            let dir = hint.project_dirs.last().map(PathBuf::as_path);
            destination::join(self.all().iter().filter_map(Known::entry), dir, &self.0.homes, &mut hint.targets);
        }
    }

    pub fn destinations(&self) -> Vec<Destination> {
        self.all().iter().filter_map(Known::entry).map(|entry| entry.destination.clone()).collect()
    }

    pub fn refused(&self) -> Vec<(Named, String)> {
        let all = self.all();
        all.iter().filter_map(|known| Some((known.named.clone(), known.named.entry.as_ref().err()?.clone()))).collect()
    }

    /// The name of a destination; `None` if it is not in the file.
    pub fn name(&self, to: &Destination) -> Option<String> {
        let all = self.all();
        let is_it = |known: &&Known| known.entry().is_some_and(|entry| entry.destination == *to);
        all.iter().find(is_it).map(|known| known.named.name.clone())
    }

    /// The secrets of a destination; `None` if the file does not name their source. They are looked up once, and again if the
    /// server has `refused` these.
    ///
    /// # Errors
    /// Why they cannot be found and what to do, for people.
    pub async fn secrets(&self, to: &Destination, refused: Option<&Secrets>) -> Option<Result<Secrets, String>> {
        let all = self.all();
        let mut entries = all.iter().filter_map(|known| Some((known, known.entry()?)));
        let (known, entry) = entries.find(|(_, entry)| entry.destination == *to)?;
        if entry.secret.is_none() {
            return Some(entry.open_secrets()).filter(|secrets| !secrets.is_empty()).map(Ok);
        }
        // The lanes of one destination ask at the same time.
        let mut secrets = known.secrets.lock().await;
        if let Some(secrets) = secrets.as_ref().filter(|secrets| refused != Some(*secrets)) {
            return Some(Ok(secrets.clone()));
        }
        let found = in_a_thread(entry.clone(), self.0.home.clone()).await;
        if let Ok(found) = &found {
            *secrets = Some(found.clone());
        }
        Some(found)
    }
}

impl Said {
    /// The destinations of `config`, with the known secrets of those that have not changed since `before`.
    fn of(config: &Config, stamps: Vec<Stamp>, before: &[Known]) -> Self {
        let known = |named: &Named| {
            let is_same = |other: &&Known| match (other.entry(), named.entry.as_ref()) {
                (Some(one), Ok(other)) => {
                    (&one.destination, &one.secret, &one.vars) == (&other.destination, &other.secret, &other.vars)
                }
                _ => false,
            };
            let secrets = before.iter().find(is_same).map(|known| known.secrets.clone()).unwrap_or_default();
            Known { named: named.clone(), secrets }
        };
        Self {
            stamps,
            all: Arc::new(config.destinations.iter().map(known).collect()),
            floor: config.floor,
            problem: None,
        }
    }
}

/// A command may take long, and the calling thread also serves hooks.
async fn in_a_thread(entry: Entry, home: PathBuf) -> Result<Secrets, String> {
    let (reply, answer) = oneshot::channel();
    let look = move || drop(reply.send(secret::find(&entry, &home)));
    thread::Builder::new().name("secret".into()).spawn(look).map_err(|error| format!("its secret: {error}"))?;
    answer.await.unwrap_or_else(|_| Err("its secret: a fault in this program".to_owned()))
}
