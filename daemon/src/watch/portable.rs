//! Watches by the system's own means, where that is not inotify.

use std::{
    collections::HashSet,
    io,
    path::{Path, PathBuf},
};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use super::Seen;

/// Watches directories until it is dropped.
pub(super) struct Watcher {
    watcher: RecommendedWatcher,
    dirs: HashSet<PathBuf>,
}

impl Watcher {
    pub(super) fn new(report: impl Fn(Seen) + Send + 'static) -> io::Result<Self> {
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| match event {
            Err(_) => report(Seen::Missed),
            Ok(event) if event.need_rescan() => report(Seen::Missed),
            // Reading a file causes events too; they are ignored.
            Ok(event) if matches!(event.kind, EventKind::Access(_) | EventKind::Remove(_)) => {}
            Ok(event) => event.paths.into_iter().for_each(|path| report(Seen::Changed(path))),
        });
        Ok(Self { watcher: watcher.map_err(io::Error::other)?, dirs: HashSet::new() })
    }

    /// True if it was not watched before. A path that is no directory is not watched; that is no error.
    pub(super) fn add(&mut self, dir: &Path) -> io::Result<bool> {
        if self.dirs.contains(dir) || !dir.is_dir() {
            return Ok(false);
        }
        self.watcher.watch(dir, RecursiveMode::NonRecursive).map_err(io::Error::other)?;
        Ok(self.dirs.insert(dir.to_path_buf()))
    }

    pub(super) fn keep(&mut self, wanted: &HashSet<PathBuf>) {
        let Self { watcher, dirs } = self;
        dirs.retain(|dir| {
            let keep = wanted.contains(dir);
            if !keep {
                let _ = watcher.unwatch(dir);
            }
            keep
        });
    }
}
