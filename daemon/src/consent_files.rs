//! Judges each event and each session by the present settings files, which are read again only when one has changed.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    configured::Configured,
    credentials::{
        self,
        layers::{self, Stamp},
        user_dir,
    },
};
use cc_core::{
    consent::{Chooser, Floor, chooser, tighten},
    destination::Kind,
    hook::Hint,
    project::{Capture, Options},
    route::Env,
    settings::block::Vars,
};

/// How many judgements are remembered.
const MAX_REMEMBERED: usize = 512;

/// Directories of a session, its `CLAUDE_CONFIG_DIR`, and a hash of the variables it was given.
type Key = (Vec<PathBuf>, Option<PathBuf>, u64);

/// The judgement for one project and one set of variables.
#[derive(Clone)]
struct Known {
    stamps: Vec<(PathBuf, Stamp)>,
    floor: Floor,
    choosers: Vec<(Kind, Chooser)>,
    unredacted: bool,
    unscored: bool,
    metadata: bool,
    is_on: bool,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Consent {
    home: PathBuf,
    configured: Configured,
    known: Arc<Mutex<HashMap<Key, Known>>>,
    hasher: RandomState,
}

impl Consent {
    /// A judge for the user whose home is `home`, who has these destinations in `config.toml`.
    pub fn new(home: &Path, configured: Configured) -> Self {
        Self { home: home.to_owned(), configured, known: Arc::default(), hasher: RandomState::new() }
    }

    pub fn configured(&self) -> &Configured {
        &self.configured
    }

    /// Judges an event that came with these variables: sets who chose each destination, tightens its options to what the user
    /// allows, and records whether the settings files turn tracing on.
    pub fn judge(&self, hint: &mut Hint, received: &Vars) {
        let known = self.known(&hint.project_dirs, hint.config_dir.as_deref(), Some(received), Known::clone);
        // A destination in the user's own file is the user's choice.
        for target in hint.targets.iter_mut().filter(|target| target.chooser != Some(Chooser::Config)) {
            let of_kind = |(kind, _): &&(Kind, Chooser)| *kind == target.destination.kind;
            target.chooser = known.choosers.iter().find(of_kind).map(|(_, chooser)| chooser.clone());
            // Whatever a repository chooses for others of the kind.
            if matches!(target.chooser, Some(Chooser::Repository(_)))
                && self.configured.name(&target.destination).is_some()
            {
                target.chooser = Some(Chooser::Config);
            }
        }
        hint.options.unredacted &= known.unredacted;
        if known.metadata {
            hint.options.capture = Capture::Metadata;
        }
        hint.options.unscored |= known.unscored;
        hint.settings_on = known.is_on;
    }

    /// The variables of an event without the TLS settings that others chose.
    pub fn own_tls(&self, hint: &Hint, vars: Vars) -> Vars {
        credentials::own_tls(vars, &hint.project_dirs, hint.config_dir.as_deref(), &self.home)
    }

    /// True if the settings files turn tracing on for a session in `dirs`.
    pub fn is_on(&self, dirs: &[PathBuf], config_dir: Option<&Path>) -> bool {
        self.known(dirs, config_dir, None, |known| known.is_on)
    }

    fn known<R>(
        &self,
        dirs: &[PathBuf],
        config_dir: Option<&Path>,
        received: Option<&Vars>,
        of: impl Fn(&Known) -> R,
    ) -> R {
        let key = (dirs.to_vec(), config_dir.map(Path::to_owned), self.hasher.hash_one(received));
        let lock = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().get(&key)
            && known.floor == self.configured.floor()
            && layers::are_as_before(&known.stamps)
        {
            return of(known);
        }
        let judged = self.look(dirs, config_dir, received);
        let mut known = lock();
        if known.len() >= MAX_REMEMBERED {
            known.clear();
        }
        let found = of(&judged);
        known.insert(key, judged);
        found
    }

    fn look(&self, dirs: &[PathBuf], config_dir: Option<&Path>, received: Option<&Vars>) -> Known {
        let user = user_dir(config_dir, &self.home);
        let project = dirs.last().map(PathBuf::as_path);
        // Taken before reading, so that a change meanwhile is noticed next time.
        let stamps = layers::stamps(dirs, config_dir, &self.home);
        let layers = layers::around(dirs, config_dir, &self.home);
        let settings = layers::resolve(project, &user);
        let is_on = Env::of(&settings).enabled();
        let received = received.unwrap_or(&settings);
        let floor = self.configured.floor();
        let mut options = Env::of(received).options();
        tighten(&mut options, received, &layers, floor);
        let metadata = options.capture == Capture::Metadata;
        let choosers = Kind::ALL.iter().map(|kind| (*kind, chooser(*kind, received, &layers))).collect();
        let Options { unredacted, unscored, .. } = options;
        Known { stamps, floor, choosers, unredacted, unscored, metadata, is_on }
    }
}
