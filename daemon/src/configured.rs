//! The destinations of `config.toml` while the process runs: which of them a session has, and their secrets.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use tokio::sync::{Mutex, oneshot};

use cc_core::{
    config::destination::{self, Entry, Named},
    destination::Destination,
    hook::Hint,
    secret::Secrets,
};

pub mod secret;

/// Cheap to clone.
#[derive(Clone, Default)]
pub struct Configured(Arc<Inner>);

#[derive(Default)]
struct Inner {
    home: PathBuf,
    /// All paths of the user's home.
    homes: Vec<PathBuf>,
    all: Vec<Known>,
}

struct Known {
    named: Named,
    /// Its secret, once it was looked up.
    secrets: Mutex<Option<Secrets>>,
}

impl Configured {
    pub fn new(home: &Path, all: Vec<Named>) -> Self {
        let real = home.canonicalize().ok().filter(|real| real != home);
        let homes = std::iter::once(home.to_owned()).chain(real).collect();
        let all = all.into_iter().map(|named| Known { named, secrets: Mutex::default() }).collect();
        Self(Arc::new(Inner { home: home.to_owned(), homes, all }))
    }

    fn entries(&self) -> impl Iterator<Item = (&Known, &Entry)> + Clone {
        self.0.all.iter().filter_map(|known| Some((known, known.named.entry.as_ref().ok()?)))
    }

    fn entry(&self, to: &Destination) -> Option<(&Known, &Entry)> {
        self.entries().find(|(_, entry)| entry.destination == *to)
    }

    /// Brings the destinations of an event up to date with the file. History goes only where the user sends it.
    pub fn join(&self, hint: &mut Hint) {
        if !hint.source.is_asked_for() {
            let dir = hint.project_dirs.last().map(PathBuf::as_path);
            destination::join(self.entries().map(|(_, entry)| entry), dir, &self.0.homes, &mut hint.targets);
        }
    }

    /// The valid ones.
    pub fn destinations(&self) -> impl Iterator<Item = &Destination> {
        self.entries().map(|(_, entry)| &entry.destination)
    }

    /// The invalid ones, with what is wrong.
    pub fn refused(&self) -> impl Iterator<Item = (&Named, &str)> {
        self.0.all.iter().filter_map(|known| Some((&known.named, known.named.entry.as_ref().err()?.as_str())))
    }

    /// The name of a destination; `None` if it is not in the file.
    pub fn name(&self, to: &Destination) -> Option<&str> {
        self.entry(to).map(|(known, _)| known.named.name.as_str())
    }

    /// The secrets of a destination; `None` if the file does not name their source. They are looked up once, and again if the
    /// server has `refused` these.
    ///
    /// # Errors
    /// Why they cannot be had and what to do, for people.
    pub async fn secrets(&self, to: &Destination, refused: Option<&Secrets>) -> Option<Result<Secrets, String>> {
        let (known, entry) = self.entry(to)?;
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

/// A command may take long, and the calling thread also serves hooks.
async fn in_a_thread(entry: Entry, home: PathBuf) -> Result<Secrets, String> {
    let (reply, answer) = oneshot::channel();
    let look = move || drop(reply.send(secret::find(&entry, &home)));
    thread::Builder::new().name("secret".into()).spawn(look).map_err(|error| format!("its secret: {error}"))?;
    answer.await.unwrap_or_else(|_| Err("its secret: a fault in this program".to_owned()))
}
