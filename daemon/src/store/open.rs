//! Opens the database: creates, migrates and checks it, and salvages a damaged one.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, config::DbConfig, params};

use super::{
    DestinationId, Error, Result, SessionRow, Store, is_whole, json,
    observations::{self, HAS_ARRIVED},
    salvage,
    schema::MIGRATIONS,
    spellings,
    upgrade::{Stage, upgrade},
};
use cc_core::hook::{Hint, Source};

/// More than the number of the store's statements.
const STATEMENTS: usize = 128;

/// The page size of a new database. Ids are random, so each row of a turn is on another page: small pages mean
/// less to write.
pub(super) const PAGE_BYTES: i64 = 1024;

/// When the log has this many bytes it is moved into the database: a page that was written often is then copied once.
const LOG_BYTES: i64 = 4 << 20;

/// An opened database, and what was done to it.
pub struct Opened {
    pub store: Store,
    /// It was damaged: its files were moved here, and its readable rows were copied.
    pub damaged: Option<PathBuf>,
    /// It did not exist, or was empty.
    pub made: bool,
    /// How many damaged spans must be emitted again.
    pub again: bool,
}

impl Store {
    /// Like [`open_saying`](Self::open_saying), without reports.
    ///
    /// # Errors
    /// The same.
    pub fn open(path: &Path) -> std::result::Result<Opened, Error> {
        Self::open_saying(path, &|_| {})
    }

    /// Opens the database, and creates or migrates it if necessary. A damaged database is moved aside, never deleted,
    /// and a new one is created with its readable rows; the transcripts supply the rest, with the same ids. Before a
    /// migration the old file is copied to `state.v<version>.bak`. `say` is called with each stage.
    ///
    /// # Errors
    /// If not even a new database can be created; if this one was written by a newer version; if there is no room to
    /// migrate an earlier version, which then stays unchanged.
    pub fn open_saying(path: &Path, say: &dyn Fn(Stage)) -> std::result::Result<Opened, Error> {
        finish_salvage(path)?;
        let (mut store, damaged) = match Self::try_open(path, say) {
            Ok(store) => (store, None),
            Err(Error::Damaged(_)) => {
                let aside = Self::salvage(path)?;
                (Self::try_open(path, say)?, Some(aside))
            }
            Err(error) => return Err(error),
        };
        let again = store.drop_damaged_rows()? > 0 || damaged.is_some();
        store.measure()?;
        let made = store.made;
        Ok(Opened { store, damaged, made, again })
    }

    /// Replaces a damaged database by a new one with its readable rows. The new one is complete before the old one is
    /// moved: after a kill in between, the next start begins again, or continues here.
    fn salvage(path: &Path) -> std::result::Result<PathBuf, Error> {
        let new = salvaged(path);
        remove(&new)?;
        remove(&with_suffix(&new, "-wal"))?;
        let mut store = Self::try_open(&new, &|_| {})?;
        salvage::take_over(&mut store.db, path)?;
        let sessions = store.sessions(usize::MAX >> 1)?;
        let tx = store.db.transaction()?;
        read_again(&tx, sessions)?;
        tx.commit()?;
        // Everything is in the single file that replaces the other.
        store.db.pragma_update(None, "journal_mode", "DELETE")?;
        store.db.close().map_err(|(_, error)| error)?;
        let aside = quarantine(path)?;
        std::fs::rename(&new, path)?;
        Ok(aside)
    }

    fn try_open(path: &Path, say: &dyn Fn(Stage)) -> std::result::Result<Self, Error> {
        let mut db = Connection::open(path)?;
        db.pragma_update(None, "page_size", PAGE_BYTES)?;
        db.execute_batch(
            "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON;
             PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON; PRAGMA journal_size_limit=8388608; PRAGMA cache_size=-2000;
             PRAGMA temp_store=MEMORY;",
        )?;
        // An existing database keeps its page size.
        let page: i64 = db.query_row("PRAGMA page_size", [], |row| row.get(0))?;
        db.pragma_update(None, "wal_autocheckpoint", LOG_BYTES / page.max(1))?;
        // Parsing SQL costs more than running it: every statement of the store is parsed once, whatever is bound to it.
        db.set_prepared_statement_cache_capacity(STATEMENTS);
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        say(Stage::Checking);
        let check: String = db.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        if check != "ok" {
            let corrupt = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
            return Err(rusqlite::Error::SqliteFailure(corrupt, Some(check)).into());
        }
        let version: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        let version = usize::try_from(version).unwrap_or(usize::MAX);
        if version > MIGRATIONS.len() {
            return Err(Error::Newer);
        }
        upgrade(&mut db, path, version, say)?;
        spellings::unite(&mut db)?;
        let next = observations::next(&db)?;
        Ok(Self {
            db,
            next,
            path: path.to_path_buf(),
            made: version == 0,
            waiting: HashMap::new(),
            rows: HashMap::new(),
            media_waiting: HashMap::new(),
            trouble: None,
            from_now: false,
            claims: Default::default(),
            sightings: Default::default(),
        })
    }

    /// Removes damaged spans, which then count as never found and are emitted again. Returns how many.
    fn drop_damaged_rows(&mut self) -> Result<usize> {
        let mut damaged = Vec::new();
        {
            let mut rows = self.db.prepare(
                "SELECT seq, destination, span_id, coalesce(cut, body), checksum, id
                 FROM outbox LEFT JOIN observation ON id = seq",
            )?;
            let mut rows = rows.query([])?;
            while let Some(row) = rows.next()? {
                if row.get::<_, Option<i64>>(5)?.is_none() || !is_whole(row)? {
                    damaged.push((row.get::<_, DestinationId>(1)?, row.get::<_, i64>(0)?));
                }
            }
        }
        // An observation without a waiting destination has lost its row in the outbox.
        let lost = "SELECT count(*) FROM observation WHERE id NOT IN (SELECT seq FROM outbox)";
        let lost: usize = self.db.query_row(lost, [], |row| row.get::<_, i64>(0))?.try_into().unwrap_or(0);
        if damaged.len() + lost == 0 {
            return Ok(0);
        }
        let sessions = self.sessions(usize::MAX >> 1)?;
        let tx = self.db.transaction()?;
        for (destination, seq) in &damaged {
            tx.execute("DELETE FROM outbox WHERE destination = ? AND seq = ?", [destination, seq])?;
        }
        tx.execute("DELETE FROM observation WHERE id NOT IN (SELECT seq FROM outbox)", [])?;
        // Damage hides which spans those were: all that neither wait nor arrived nor are dead letters.
        tx.execute(
            &format!(
                "DELETE FROM exported WHERE NOT coalesce({HAS_ARRIVED}, 0) AND (destination, trace_id, span_id) NOT IN
                    (SELECT destination, trace_id, span_id FROM outbox JOIN observation ON id = seq)
                    AND lower(hex(span_id)) NOT IN (SELECT span_id FROM dead_letter)"
            ),
            [],
        )?;
        read_again(&tx, sessions)?;
        tx.commit()?;
        Ok(damaged.len() + lost)
    }
}

/// Makes every known session be read again from its start, as if an event had come for it; spans that are stored are
/// not stored again.
fn read_again(db: &Connection, sessions: Vec<SessionRow>) -> Result<()> {
    db.execute_batch(
        "UPDATE session SET cursor = 0, closed = 0, marker = NULL; DELETE FROM agent; DELETE FROM follower;",
    )?;
    for session in sessions {
        let id = Source::Reread.id(&session.session_id);
        let hint = Hint { id, source: Source::Reread, ..session.hint };
        db.execute("INSERT OR IGNORE INTO inbox (id, hint) VALUES (?, ?)", params![hint.id, json(&hint)])?;
    }
    Ok(())
}

/// The file in which a salvaged database is built.
fn salvaged(path: &Path) -> PathBuf {
    with_suffix(path, ".new")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    path.with_file_name(name)
}

/// Completes a salvage that was interrupted after the damaged database had been moved, and before the new one
/// took its place.
fn finish_salvage(path: &Path) -> std::io::Result<()> {
    let new = salvaged(path);
    if !path.exists() && new.exists() {
        // The log of another database must not be applied to this one.
        quarantine(path)?;
        std::fs::rename(new, path)?;
    }
    Ok(())
}

fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Moves a damaged database and its other files into a directory of its own, the database first.
fn quarantine(path: &Path) -> std::io::Result<PathBuf> {
    let stamp = crate::clock::now_ms();
    let aside = path.with_file_name(format!("corrupt-{stamp}"));
    std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700).create(&aside)?;
    for suffix in ["", "-wal", "-shm"] {
        let from = with_suffix(path, suffix);
        match std::fs::rename(&from, aside.join(from.file_name().unwrap_or_default())) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(aside)
}
