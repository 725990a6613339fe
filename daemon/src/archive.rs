//! Copies of traced transcripts, masked and compressed: Claude Code deletes its own after a month. Off by default.
//!
//! A copy has the name of its original, below a directory with the name of its project's. What reads transcripts reads copies
//! too. Nothing is copied of a session of which anything was left out of its traces.

use std::{
    collections::{BTreeMap, HashSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::UNIX_EPOCH,
};

use crate::{
    clock::now_ms,
    consent_files::Consent,
    rebuild,
    store::{SessionRow, handle::Handle},
};
use cc_core::{destination::Destination, project::Capture, redact::Rules, status};

mod copy;
mod kept;

pub use kept::DIRECTORY;
use kept::Kept;

/// How long a transcript must have been silent, in milliseconds.
const QUIET_MS: i64 = 1000;

/// Archives the transcripts of sessions, and removes what must go. Cheap to clone.
#[derive(Clone)]
pub struct Archive {
    dir: PathBuf,
    /// `None`: nothing is added.
    limit: Option<u64>,
    rules: Rules,
    store: Handle,
    consent: Consent,
    roots: Vec<PathBuf>,
    /// The result of the last pass. Held while files change.
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    kept: Kept,
    left_out: BTreeMap<&'static str, u64>,
}

/// What a pass looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    All,
    /// Sessions that were read after this time, Unix milliseconds.
    Since(i64),
}

/// The settings of an archive.
#[derive(Clone)]
pub struct Settings {
    /// The daemon's directory.
    pub state: PathBuf,
    /// In bytes; `None` if it is off.
    pub limit: Option<u64>,
    pub rules: Rules,
    /// The directories of transcripts.
    pub roots: Vec<PathBuf>,
}

impl Archive {
    pub fn new(settings: Settings, store: Handle, consent: Consent) -> Self {
        let Settings { state, limit, rules, roots } = settings;
        let dir = state.join(DIRECTORY);
        Self { dir, limit, rules, store, consent, roots, state: Arc::default() }
    }

    pub fn is_on(&self) -> bool {
        self.limit.is_some()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it has; `None` if it is off and has nothing.
    pub fn status(&self) -> Option<status::Archive> {
        let state = self.state();
        let is_there = self.is_on() || state.kept.sessions() > 0;
        is_there.then(|| status::Archive {
            sessions: state.kept.sessions() as u64,
            bytes: state.kept.bytes(),
            limit_bytes: self.limit,
            removed: state.kept.mark.removed,
            left_out: state.left_out.iter().map(|(why, count)| ((*why).to_owned(), *count)).collect(),
        })
    }

    /// Copies what is new. Returns how many sessions are still being read or written, so that their turn comes later.
    pub fn run(&self, pass: Pass) -> usize {
        let kept = Kept::find(&self.dir);
        self.state().kept = kept;
        let Some(limit) = self.limit else { return 0 };
        let since = match pass {
            Pass::All => 0,
            Pass::Since(at) => at,
        };
        let (ids, held) = match self.store.call(|store| Ok((store.session_ids(since)?, store.held()?))) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "the sessions to be archived are not known");
                return 0;
            }
        };
        let (mut left_out, mut later) = (BTreeMap::<&str, u64>::new(), 0);
        for id in ids {
            match self.session(&id, limit, &held) {
                Outcome::Done => {}
                Outcome::Later => later += 1,
                Outcome::LeftOut(why) => *left_out.entry(why).or_default() += 1,
            }
        }
        if pass == Pass::All {
            self.state().left_out = left_out;
        }
        later
    }

    fn session(&self, id: &str, limit: u64, held: &HashSet<Destination>) -> Outcome {
        let Ok(Some(row)) = self.store.call(|store| store.session(id)) else { return Outcome::Done };
        let Some((length, written)) = looks(&row.transcript) else { return Outcome::Done };
        if copy::is_current(&self.dir, &row.transcript, id) {
            return Outcome::Done;
        }
        if let Some(why) = self.why_not(&row, held) {
            return Outcome::LeftOut(why);
        }
        // What was said last may be left out: the engine has to have seen it.
        let stand = self.store.call(|store| store.stand(id)).ok().flatten();
        if stand.is_none_or(|(read, is_open)| is_open || read < written) || now_ms() < written.saturating_add(QUIET_MS)
        {
            return Outcome::Later;
        }
        if self.state().kept.is_too_old(id, written, limit) {
            return Outcome::LeftOut("no_room");
        }
        let Ok(traces) = rebuild::all_traces(&row.transcript, id) else { return Outcome::LeftOut("unreadable") };
        let mut state = self.state();
        // Asked with the lock held: what is forgotten from now on is removed afterwards.
        match self.store.call(|store| store.suppresses(&traces)) {
            Ok(false) => {}
            Ok(true) => return Outcome::LeftOut("left_out_of_traces"),
            Err(_) => return Outcome::Later,
        }
        let found = copy::Session { transcript: &row.transcript, id, length, roots: &self.roots, rules: &self.rules };
        match found.copy_to(&self.dir) {
            Ok(()) => {}
            Err(error) => {
                tracing::warn!(session = id, %error, "its transcript is not archived");
                return Outcome::LeftOut("unreadable");
            }
        }
        state.kept.look(&self.dir, id);
        if let Some(mark) = state.kept.shrink(&self.dir, limit) {
            tracing::info!(sessions = mark, "removed from the archive, which has reached its limit");
        }
        Outcome::Done
    }

    /// The reason for which nothing of a session may be kept now.
    fn why_not(&self, row: &SessionRow, held: &HashSet<Destination>) -> Option<&'static str> {
        let hint = &row.hint;
        let is_off = hint.settings_on && !self.consent.is_on(&hint.project_dirs, hint.config_dir.as_deref());
        if is_off {
            Some("off")
        } else if self.store.call(|store| store.is_paused(&hint.project_dirs)).unwrap_or(true) {
            Some("paused")
        } else if hint.destinations().all(|to| held.contains(to)) {
            Some("held")
        } else if hint.options.capture == Capture::Metadata
            || self.consent.configured().floor().capture == Capture::Metadata
        {
            Some("capture_metadata")
        } else {
            None
        }
    }

    /// Removes the copies of a session, and of those that begin with a copy of it. Returns how many.
    ///
    /// # Errors
    /// If a file cannot be removed.
    pub fn forget(&self, session_id: &str) -> std::io::Result<usize> {
        let mut state = self.state();
        let forks = self.store.call(|store| store.forks(session_id)).unwrap_or_default();
        let mut removed = 0;
        for id in forks.iter().map(String::as_str).chain([session_id]) {
            removed += usize::from(kept::remove(&self.dir, id)?);
            state.kept.look(&self.dir, id);
        }
        Ok(removed)
    }
}

/// What came of a session.
enum Outcome {
    Done,
    Later,
    LeftOut(&'static str),
}

/// Length and modification time (Unix milliseconds) of a transcript that has something.
fn looks(path: &Path) -> Option<(u64, i64)> {
    let meta = std::fs::symlink_metadata(path).ok().filter(|meta| meta.is_file() && meta.len() > 0)?;
    let written = meta.modified().ok()?.duration_since(UNIX_EPOCH).ok()?.as_millis();
    Some((meta.len(), i64::try_from(written).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests;
