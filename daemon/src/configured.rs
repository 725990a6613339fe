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

/// The destinations, and the least privacy, as the file says them now. Cheap to clone.
#[derive(Clone, Default)]
pub struct Configured(Arc<Inner>);

#[derive(Default)]
struct Inner {
    home: PathBuf,
    /// All paths of the user's home.
    homes: Vec<PathBuf>,
    /// The user's file; none where it is not read again.
    file: Option<PathBuf>,
    said: RwLock<Said>,
}

/// What the files said when they were last read and could be used.
#[derive(Clone, Default)]
struct Said {
    stamps: Vec<Stamp>,
    all: Arc<Vec<Known>>,
    floor: Floor,
    /// Why what they say now is not used.
    problem: Option<String>,
}

struct Known {
    named: Named,
    /// Its secret, once it was asked for.
    secrets: Arc<Mutex<Option<Secrets>>>,
}

impl Known {
    fn entry(&self) -> Option<&Entry> {
        self.named.entry.as_ref().ok()
    }
}

/// What shows that the user's file at `file` and the administrator's are as they were. Taken before they are read.
pub fn stamps(file: &Path) -> Vec<Stamp> {
    [Path::new(config_file::FLEET_FILE), file].map(layers::stamp).to_vec()
}

impl Configured {
    /// Those of the user whose home is `home`, for good.
    pub fn new(home: &Path, config: &Config) -> Self {
        Self::made(home, None, Said::of(config, Vec::new(), &[]))
    }

    /// The same, read from `file` when that was as `stamps` say, and again when it has changed.
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

    /// Reads the files again if they have changed. True if what they say counts from now on; what cannot be used leaves all as it was.
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

    /// Why what the files say now is not used.
    pub fn problem(&self) -> Option<String> {
        self.said().problem.clone()
    }

    /// The least privacy that every project keeps.
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

    /// The valid ones.
    pub fn destinations(&self) -> Vec<Destination> {
        self.all().iter().filter_map(Known::entry).map(|entry| entry.destination.clone()).collect()
    }

    /// The invalid ones, with what is wrong.
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
    /// Why they cannot be had and what to do, for people.
    pub async fn secrets(&self, to: &Destination, refused: Option<&Secrets>) -> Option<Result<Secrets, String>> {
        let all = self.all();
        let mut entries = all.iter().filter_map(|known| Some((known, known.entry()?)));
        let (known, entry) = entries.find(|(_, entry)| entry.destination == *to)?;
        if entry.secret.is_none() {
            return Some(entry.open_secrets()).filter(|secrets| !secrets.is_empty()).map(Ok);
        }
        // Spans and images of one destination ask at the same time.
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
    /// What `config` says, with the secrets of those that are as they were `before`.
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
