//! The sessions on this machine, from the index of their transcripts: without daemon and network.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

use crate::{
    backfill::find,
    client, hidden, session,
    ui::{amount::count, progress::Progress},
};
use cc_core::{
    config::Config,
    price,
    redact::{Counts, Redactor},
};
use cc_langfuse::{
    index::{self, Index, Source},
    rebuild, socket,
};

/// The file name of the index in the state directory.
pub(crate) const INDEX: &str = "index.db";

/// The user's history, or the transcripts at given paths.
pub(crate) struct History {
    pub index: Index,
    pub config: Config,
    /// The paths of its transcripts.
    paths: Vec<PathBuf>,
    /// Unreadable transcripts are already reported.
    quiet: bool,
}

/// The prompt that begins at this byte of a transcript, masked.
pub(crate) fn prompt(path: &Path, at_byte: u64, rules: &Redactor) -> Option<String> {
    let text = rebuild::prompt(path, at_byte)?;
    Some(rules.scrub(&text, &mut Counts::new()).unwrap_or(text))
}

fn source(found: find::Candidate) -> Source {
    Source { path: found.path, session_id: found.id, meta: Some(found.meta), is_alone: found.is_alone }
}

impl History {
    /// Opens the index of the user's own transcripts; for `paths`, an index in memory.
    ///
    /// # Errors
    /// If one of `paths` does not exist, or the index can be neither opened nor created.
    pub(crate) fn open(paths: &[PathBuf]) -> anyhow::Result<Self> {
        let config = client::config()?;
        price::set(config.prices.clone());
        for path in paths {
            path.metadata().with_context(|| path.display().to_string())?;
        }
        let state = client::paths()?.state;
        let index = if paths.is_empty() {
            socket::private_dir(&state)?;
            Index::open(&state.join(INDEX))?
        } else {
            Index::in_memory()?
        };
        Ok(Self { index, config, paths: paths.to_vec(), quiet: false })
    }

    /// False for transcripts at given paths.
    pub(crate) fn is_users(&self) -> bool {
        self.paths.is_empty()
    }

    /// US dollars that a day may cost; `None` for transcripts at given paths.
    pub(crate) fn budget(&self) -> Option<f64> {
        self.config.day_budget().filter(|_| self.paths.is_empty())
    }

    /// Reports nothing and shows no progress.
    pub(crate) fn say_nothing(&mut self) {
        self.quiet = true;
    }

    /// Reads what is new. On a terminal it shows its progress if that takes long.
    ///
    /// # Errors
    /// If the index cannot be written.
    pub(crate) fn update(&mut self) -> anyhow::Result<index::Updated> {
        let found = hidden::calls(None, &self.index.stamp()?);
        if let Some((calls, stamp)) = found.and_then(|found| Some((found.calls?, found.stamp))) {
            self.index.know(&calls, &stamp, &self.config.rules)?;
        }
        let roots = session::roots()?;
        let paths = if self.paths.is_empty() { &roots } else { &self.paths };
        let (mut skipped, mut refused) = Default::default();
        let mut found = find::candidates(paths, &roots, None, find::Sides::PassOver, &mut skipped, &mut refused);
        if self.paths.is_empty() {
            // A copy counts where the transcript is gone.
            let (mut passed, mut unread) = Default::default();
            let (archive, sides) = ([session::archive()?], find::Sides::PassOver);
            let copies = find::candidates(&archive, &archive, None, sides, &mut passed, &mut unread);
            let known: HashSet<String> = found.iter().map(|found| found.id.clone()).collect();
            found.extend(copies.into_iter().filter(|copy| !known.contains(&copy.id)));
        }
        if found.is_empty() && !self.paths.is_empty() && self.paths.iter().any(|path| path.is_file()) {
            bail!("{} is not a session's transcript", self.paths[0].display());
        }
        let sources: Vec<Source> = found.into_iter().map(source).collect();
        let mut progress = Progress::new(self.quiet);
        let mut last = 0;
        let updated = self.index.update(&sources, &self.config.rules, &mut |at| {
            if last == 0 {
                progress.begin("reading transcripts", at.total);
            }
            progress.step(at.done - last, "");
            last = at.done;
        });
        progress.end();
        let updated = updated?;
        if !self.quiet {
            for (path, error) in &updated.unreadable {
                err!("not read: {}: {error}; {}", path.display(), error.remedy());
            }
            for (dir, error) in &refused {
                err!("not read: {}: {error}; {}", dir.display(), error.remedy());
            }
            if let Some(more) = skipped.get("not_utf8") {
                err!("not read: {}: the name is not UTF-8", count(*more as usize, "transcript"));
            }
        }
        self.quiet = true;
        Ok(updated)
    }
}
