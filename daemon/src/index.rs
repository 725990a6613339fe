//! The index of transcripts: numbers, names, times and file offsets of every turn and model call on this machine, for `usage` and `view`.
//!
//! Comes in: transcripts, and the calls without a line in them. Goes out: sums and rows. It contains no text of a conversation, and
//! nothing that stands nowhere else: deleting it only costs the time to rebuild it. It knows neither the daemon nor its database.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsString,
    fs::Metadata,
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use crate::{clock, reader};
use cc_core::redact::Redactor;

mod glance;
mod hidden;
mod lists;
mod names;
mod own;
mod query;
mod read;
mod write;

pub use glance::{LastTurn, Seen, Spent};
pub use lists::{Listed, ListedCall, ListedTurn, PromptAt, Sum};
pub use query::Filter;

/// The form of the tables, and of what is read of transcripts: an index of another form is rebuilt.
const VERSION: i64 = 5;

const SCHEMA: &str = "
CREATE TABLE name (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);
CREATE TABLE session (
  id INTEGER PRIMARY KEY,
  session_id TEXT NOT NULL,
  path TEXT NOT NULL UNIQUE,
  -- What its files looked like when they were read.
  looks BLOB NOT NULL,
  bytes INTEGER NOT NULL,
  title INTEGER REFERENCES name,
  project INTEGER REFERENCES name,
  branch INTEGER REFERENCES name,
  forked_from TEXT,
  -- The transcript it was forked from: see `read::parent`.
  parent INTEGER,
  has_totals INTEGER NOT NULL
);
-- Of the sessions that changed last: what is needed to read on from the start of their last turn.
CREATE TABLE checkpoint (
  session INTEGER PRIMARY KEY REFERENCES session ON DELETE CASCADE,
  -- When the transcript was modified.
  modified INTEGER NOT NULL,
  -- Of the turns before.
  title INTEGER REFERENCES name,
  project INTEGER REFERENCES name,
  branch INTEGER REFERENCES name,
  -- The title of the turns that follow.
  next_title INTEGER REFERENCES name,
  state BLOB NOT NULL
);
CREATE TABLE turn (
  id INTEGER PRIMARY KEY,
  session INTEGER NOT NULL REFERENCES session ON DELETE CASCADE,
  trace BLOB NOT NULL,
  number INTEGER NOT NULL,
  -- Of its prompt, in the transcript.
  at_byte INTEGER NOT NULL,
  -- Nanoseconds since the epoch.
  start INTEGER,
  end INTEGER,
  tools INTEGER NOT NULL,
  failed_tools INTEGER NOT NULL,
  agents INTEGER NOT NULL,
  -- 1 interrupted, 2 ended by an error of the API, 4 not finished by its own account.
  flags INTEGER NOT NULL
);
CREATE INDEX turn_session ON turn (session);
CREATE INDEX turn_trace ON turn (trace);
CREATE INDEX session_name ON session (session_id);
CREATE TABLE call (
  id INTEGER PRIMARY KEY,
  session INTEGER NOT NULL REFERENCES session ON DELETE CASCADE,
  -- None where nobody knows for which turn a subagent worked.
  turn INTEGER REFERENCES turn ON DELETE CASCADE,
  at INTEGER,
  model INTEGER NOT NULL REFERENCES name,
  speed INTEGER REFERENCES name,
  input INTEGER NOT NULL,
  output INTEGER NOT NULL,
  cache_read INTEGER NOT NULL,
  cache_write_5m INTEGER NOT NULL,
  cache_write_1h INTEGER NOT NULL,
  -- Not so for advice that another model gave within a call.
  is_call INTEGER NOT NULL,
  agent INTEGER REFERENCES name,
  skill INTEGER REFERENCES name,
  mcp INTEGER REFERENCES name,
  plugin INTEGER REFERENCES name,
  tools INTEGER REFERENCES name,
  project INTEGER REFERENCES name,
  branch INTEGER REFERENCES name,
  -- Its line says that it was copied from another session.
  is_copied INTEGER NOT NULL,
  -- It is in the transcript of a subagent.
  is_apart INTEGER NOT NULL,
  -- What shows that it stands in another place as well.
  mark_1 INTEGER, mark_2 INTEGER, mark_3 INTEGER,
  -- It counts here, and nowhere else.
  is_own INTEGER NOT NULL
);
-- What Claude Code's totals say beyond the calls with a line.
CREATE TABLE untraced (
  session INTEGER NOT NULL REFERENCES session ON DELETE CASCADE,
  at INTEGER,
  model INTEGER NOT NULL REFERENCES name,
  project INTEGER REFERENCES name,
  input INTEGER NOT NULL,
  output INTEGER NOT NULL,
  cache_read INTEGER NOT NULL,
  cache_write_5m INTEGER NOT NULL,
  cache_write_1h INTEGER NOT NULL,
  cost REAL
);
CREATE INDEX untraced_session ON untraced (session);
CREATE INDEX call_session ON call (session);
CREATE INDEX call_turn ON call (turn);
CREATE INDEX call_at ON call (at);
CREATE INDEX call_mark_1 ON call (mark_1) WHERE mark_1 IS NOT NULL;
CREATE INDEX call_mark_2 ON call (mark_2) WHERE mark_2 IS NOT NULL;
CREATE INDEX call_mark_3 ON call (mark_3) WHERE mark_3 IS NOT NULL;
";

/// How many sessions share a transaction.
const BATCH: usize = 32;

/// The same where many are read. What shows copies of calls is at random places in its tables: each transaction writes most pages of
/// those again.
const LARGE_BATCH: usize = 128;

/// Memory for pages, in KiB, and the same while many sessions are read.
const CACHE_KIB: i64 = 8000;
const LARGE_CACHE_KIB: i64 = 10_000;

/// How many of the sessions that changed last are read on from their last turn; others are read as a whole.
const KEPT: usize = 64;

/// How long a reader waits for a writer, or one writer for another.
const WAIT: Duration = Duration::from_secs(10);

/// How soon it is tried again where SQLite does not wait.
const RETRY: Duration = Duration::from_millis(5);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the index: {0}")]
    Sql(#[from] rusqlite::Error),
    #[error("{path}: {error}", path = .0.display(), error = .1)]
    Io(PathBuf, #[source] io::Error),
    /// It is a link, or belongs to someone else.
    #[error("{} is no regular file of yours: remove it", .0.display())]
    NotOurs(PathBuf),
}

/// A session's transcript.
#[derive(Clone, Debug)]
pub struct Source {
    pub path: PathBuf,
    pub session_id: String,
    /// What the system said of it a moment ago.
    pub meta: Option<Metadata>,
    /// The session has no directory, in which subagents could have transcripts.
    pub is_alone: bool,
}

impl Source {
    /// A transcript of which no more is known.
    pub fn new(path: PathBuf, session_id: String) -> Self {
        Self { path, session_id, meta: None, is_alone: false }
    }
}

/// The result of an update.
#[derive(Debug, Default)]
pub struct Updated {
    /// Sessions that were read.
    pub read: usize,
    /// Bytes of transcripts that were read, each counted once.
    pub bytes: u64,
    /// Sessions that no longer exist.
    pub gone: usize,
    /// Another process has changed the index since the update before.
    pub by_others: bool,
    /// Transcripts that cannot be read, and why.
    pub unreadable: Vec<(PathBuf, reader::Unreadable)>,
}

/// The progress of an update.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes read.
    pub done: u64,
    /// Bytes to read.
    pub total: u64,
}

/// A session in the index.
struct Known {
    id: i64,
    /// The state of its files when they were read.
    looks: Vec<u8>,
    /// The session it was forked from, and the state of its transcript then.
    parent: Option<(String, i64)>,
    has_totals: bool,
}

impl Known {
    /// A fork depends on what it was forked from.
    fn parent_has_changed(&self, path: &Path) -> bool {
        self.parent.as_ref().is_some_and(|(from, parent)| read::parent(path, from, self.has_totals) != *parent)
    }
}

#[derive(Debug)]
pub struct Index {
    db: Connection,
    /// Its version after the last update.
    version: Option<i64>,
}

impl Index {
    /// The index at `path`, created if it is missing, damaged or of another version. Several processes
    /// may have it open.
    ///
    /// # Errors
    /// If it can neither be opened nor created.
    pub fn open(path: &Path) -> Result<Self, Error> {
        if let Ok(meta) = std::fs::symlink_metadata(path)
            && (!meta.is_file() || meta.uid() != rustix::process::geteuid().as_raw())
        {
            return Err(Error::NotOurs(path.to_path_buf()));
        }
        let until = clock::monotonic() + WAIT;
        let opened = loop {
            match Self::try_open(path) {
                // While another process makes it, SQLite does not wait by itself.
                Err(Error::Sql(rusqlite::Error::SqliteFailure(failure, _)))
                    if failure.code == rusqlite::ErrorCode::DatabaseBusy && clock::monotonic() < until =>
                {
                    std::thread::sleep(RETRY);
                }
                opened => break opened,
            }
        };
        match opened {
            Ok(Some(index)) => Ok(index),
            Ok(None) => Self::create(path),
            Err(Error::Sql(rusqlite::Error::SqliteFailure(failure, _)))
                if matches!(failure.code, rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) =>
            {
                Self::create(path)
            }
            Err(error) => Err(error),
        }
    }

    /// An index in memory.
    ///
    /// # Errors
    /// Those of SQLite.
    pub fn in_memory() -> Result<Self, Error> {
        let db = Connection::open_in_memory()?;
        db.execute_batch(SCHEMA)?;
        db.execute_batch(hidden::SCHEMA)?;
        Ok(Self { db, version: None })
    }

    fn create(path: &Path) -> Result<Self, Error> {
        for suffix in ["", "-wal", "-shm"] {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            match std::fs::remove_file(&name) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::Io(name.into(), error)),
                _ => {}
            }
        }
        Self::try_open(path)?.ok_or_else(|| Error::NotOurs(path.to_path_buf()))
    }

    /// `None` if it has another version.
    fn try_open(path: &Path) -> Result<Option<Self>, Error> {
        let mut db = Connection::open(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
            .map_err(|error| Error::Io(path.to_path_buf(), error))?;
        db.busy_timeout(WAIT)?;
        db.execute_batch(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON; PRAGMA trusted_schema=OFF;
             PRAGMA temp_store=MEMORY;",
        )?;
        db.pragma_update(None, "cache_size", -CACHE_KIB)?;
        db.set_prepared_statement_cache_capacity(64);
        // If two processes create it at the same time, only one does.
        let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let version: i64 = tx.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        match version {
            0 => {
                tx.execute_batch(SCHEMA)?;
                tx.execute_batch(hidden::SCHEMA)?;
                tx.pragma_update(None, "user_version", VERSION)?;
            }
            VERSION => {}
            _ => return Ok(None),
        }
        tx.commit()?;
        Ok(Some(Self { db, version: None }))
    }

    /// Updates the index: `sources` are all transcripts it is to contain. Reads only what has changed. Names are masked
    /// by `redactor`.
    ///
    /// # Errors
    /// If the index cannot be written. An unreadable transcript is only listed in the result.
    pub fn update(
        &mut self,
        sources: &[Source],
        redactor: &Redactor,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Updated, Error> {
        let mut updated = Updated::default();
        let mut known = self.known()?;
        let all = read::Looks::of_all(sources);
        let mut times: Vec<i64> = all.iter().map(|looks| looks.modified).collect();
        times.sort_unstable_by(|one, other| other.cmp(one));
        let oldest = times.get(KEPT - 1).copied().unwrap_or(i64::MIN);
        let mut changed = Vec::new();
        for (source, looks) in sources.iter().zip(all) {
            let keep = looks.modified >= oldest;
            changed.extend(self.job(source, looks, known.remove(source.path.as_os_str()), keep)?);
        }
        updated.gone = known.len();
        // One that is gone may be replaced by a copy, which takes its place at once.
        let mut gone: HashMap<String, PathBuf> = HashMap::new();
        let ids: HashSet<&str> = if known.is_empty() {
            HashSet::new()
        } else {
            sources.iter().map(|source| source.session_id.as_str()).collect()
        };
        for path in known.into_keys().map(PathBuf::from) {
            match path.file_stem().and_then(|name| name.to_str()) {
                Some(id) if ids.contains(id) => drop(gone.insert(id.to_owned(), path)),
                _ => self.remove(&path)?,
            }
        }
        let mut at = Progress { done: 0, total: changed.iter().map(|job| job.looks.bytes).sum() };
        // Several sessions share a transaction, but no other writer waits long for its end.
        let (mut batch, is_much) = (Vec::new(), changed.len() >= LARGE_BATCH);
        let batch_size = if is_much { LARGE_BATCH } else { BATCH };
        if is_much {
            self.db.pragma_update(None, "cache_size", -LARGE_CACHE_KIB)?;
        }
        read::all(&changed, |found, looks| {
            match found {
                Ok(session) => {
                    updated.read += 1;
                    updated.bytes += session.read;
                    batch.push(session);
                }
                Err((path, error)) => {
                    self.remove(&path)?;
                    updated.unreadable.push((path, error));
                }
            }
            if batch.len() == batch_size {
                self.put_all(&batch, &mut gone, redactor)?;
                batch.clear();
            }
            at.done += looks.bytes;
            progress(at);
            Ok::<_, Error>(())
        })?;
        self.put_all(&batch, &mut gone, redactor)?;
        for path in gone.into_values() {
            self.remove(&path)?;
        }
        if is_much {
            self.db.pragma_update(None, "cache_size", -CACHE_KIB)?;
            self.db.execute_batch("PRAGMA shrink_memory")?;
        }
        let version = self.version()?;
        updated.by_others = self.version.replace(version).is_some_and(|before| before != version);
        if updated.read > 0 {
            self.db.execute("DELETE FROM checkpoint WHERE modified < ?", [oldest])?;
        }
        Ok(updated)
    }

    /// What is to be read of a session; `None` if it is as `known`.
    fn job<'s>(
        &self,
        source: &'s Source,
        looks: read::Looks,
        known: Option<Known>,
        keep: bool,
    ) -> Result<Option<read::Job<'s>>, Error> {
        let state = match known {
            None => None,
            Some(known) if known.parent_has_changed(&source.path) => None,
            Some(known) if known.looks == looks.fingerprint() => return Ok(None),
            Some(known) => self.state(known.id)?.map(|state| (state, known.looks)),
        };
        let hidden = self.hidden_of(&source.session_id)?;
        Ok(Some(read::Job { source, looks, state, keep, hidden }))
    }

    /// Stores `sessions`, each in place of the one of its id that is `gone`.
    fn put_all(
        &mut self,
        sessions: &[read::Session],
        gone: &mut HashMap<String, PathBuf>,
        redactor: &Redactor,
    ) -> Result<(), Error> {
        let tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for session in sessions {
            Self::put(&tx, session, redactor)?;
            if let Some(path) = gone.remove(&session.session_id) {
                Self::remove_in(&tx, &path)?;
            }
        }
        Ok(tx.commit()?)
    }

    fn known(&self) -> Result<HashMap<OsString, Known>, Error> {
        self.known_at(None)
    }

    /// Those at one path, or all. A path as a key is hashed part by part, which takes several times as long.
    fn known_at(&self, path: Option<&Path>) -> Result<HashMap<OsString, Known>, Error> {
        let sql = "SELECT path, id, looks, forked_from, parent, has_totals FROM session WHERE ?1 IS NULL OR path = ?1";
        let mut statement = self.db.prepare(sql)?;
        let rows = statement.query_map([path.and_then(Path::to_str)], |row| {
            let parent = row.get::<_, Option<String>>(3)?.zip(row.get(4)?);
            let known = Known { id: row.get(1)?, looks: row.get(2)?, parent, has_totals: row.get(5)? };
            Ok((OsString::from(row.get::<_, String>(0)?), known))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// What is needed to read on in a session; `None` if there is nothing, or another version of the program wrote it.
    fn state(&self, session: i64) -> Result<Option<read::State>, Error> {
        let sql = "SELECT state, text FROM checkpoint LEFT JOIN name ON name.id = next_title WHERE session = ?";
        let found = self.db.query_row(sql, [session], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get(1)?))).optional()?;
        Ok(found.and_then(|(state, title)| {
            let mut state = write::decode(&state)?;
            state.checkpoint.set_title(title);
            Some(state)
        }))
    }

    /// Removes a session; calls that it shares with others count for them.
    fn remove(&mut self, path: &Path) -> Result<(), Error> {
        let tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        Self::remove_in(&tx, path)?;
        Ok(tx.commit()?)
    }

    fn remove_in(tx: &Transaction<'_>, path: &Path) -> Result<(), Error> {
        let found = tx.query_row("SELECT id FROM session WHERE path = ?", params![path.to_str()], |row| row.get(0));
        if let Some(id) = found.optional()? {
            let others = own::rivals(tx, id, own::Of::All)?;
            tx.execute("DELETE FROM session WHERE id = ?", [id])?;
            own::settle(tx, others)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
