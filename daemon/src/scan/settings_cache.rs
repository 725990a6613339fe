//! Caches what the settings files of a project ask for. A scan finds many sessions of one project at once: what was read for
//! one of them holds for the next ones, unless a file has changed.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{
    clock,
    credentials::layers::{self, Stamp},
};
use cc_core::hook::Hint;

/// How long an entry is valid: which files there are to read can change, too.
const FRESH: Duration = Duration::from_secs(1);

/// How many projects are cached.
const KNOWN: usize = 64;

#[derive(Clone, Debug)]
pub(super) struct ProjectSettings {
    pub(super) is_on: bool,
    /// The event for any session of the project, still without the session; `None` if there is no destination.
    pub(super) like: Option<Hint>,
}

/// By the project's directory and that of the user's settings.
#[derive(Debug, Default)]
pub struct SettingsCache(HashMap<(PathBuf, PathBuf), Known>);

#[derive(Debug)]
struct Known {
    read: Instant,
    stamps: Vec<(PathBuf, Stamp)>,
    project_settings: ProjectSettings,
}

impl SettingsCache {
    /// The settings of the project at `dir`, with the user's settings in `user`. `stamps` takes the stamps of all files that
    /// `read` reads.
    pub(super) fn of(
        &mut self,
        dir: &Path,
        user: &Path,
        stamps: impl FnOnce() -> Vec<(PathBuf, Stamp)>,
        read: impl FnOnce() -> ProjectSettings,
    ) -> ProjectSettings {
        let key = (dir.to_owned(), user.to_owned());
        if let Some(known) = self.0.get(&key)
            && known.read.elapsed() < FRESH
            && layers::are_as_before(&known.stamps)
        {
            return known.project_settings.clone();
        }
        // Before reading, so that a change meanwhile is noticed next time.
        let (now, stamps) = (clock::monotonic(), stamps());
        let project_settings = read();
        if self.0.len() >= KNOWN {
            self.0.clear();
        }
        self.0.insert(key, Known { read: now, stamps, project_settings: project_settings.clone() });
        project_settings
    }
}
