//! Tells the engine that a transcript grew. A hint, no more: whoever waits for a file also looks at it by himself.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::mpsc::Sender,
};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};

use crate::engine::Input;

/// The directories of the sessions at work.
pub struct Watch {
    watcher: Option<RecommendedWatcher>,
    dirs: HashSet<PathBuf>,
}

impl Watch {
    /// A watch that reports to `engine`. Where the system has none to give, nothing is reported.
    pub fn new(engine: Sender<Input>) -> Self {
        let report = move |event: notify::Result<notify::Event>| {
            // Reading makes events too: those are not news.
            if let Ok(event) = event.map_err(|error| tracing::debug!(%error, "file events are lost"))
                && !matches!(event.kind, EventKind::Access(_))
            {
                for path in event.paths.into_iter().filter(|path| path.extension().is_some_and(|ext| ext == "jsonl")) {
                    let _ = engine.send(Input::Changed(path));
                }
            }
        };
        let watcher = notify::recommended_watcher(report);
        if let Err(error) = &watcher {
            tracing::warn!(%error, "no file events: transcripts are looked at by the clock");
        }
        Self { watcher: watcher.ok(), dirs: HashSet::new() }
    }

    /// Watches `dir`, not what lies below it. True if it was not watched before.
    pub fn add(&mut self, dir: &Path) -> bool {
        if let Some(watcher) = &mut self.watcher
            && !self.dirs.contains(dir)
            && dir.is_dir()
        {
            match watcher.watch(dir, RecursiveMode::NonRecursive) {
                Ok(()) => return self.dirs.insert(dir.to_path_buf()),
                Err(error) => tracing::debug!(%error, "a directory is not watched"),
            }
        }
        false
    }

    /// Ends the watch of all directories but these.
    pub fn keep(&mut self, wanted: &HashSet<PathBuf>) {
        let Some(watcher) = &mut self.watcher else { return };
        self.dirs.retain(|dir| {
            let keep = wanted.contains(dir);
            if !keep {
                let _ = watcher.unwatch(dir);
            }
            keep
        });
    }
}
