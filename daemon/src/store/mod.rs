//! All SQL. Each change of meaning is one transaction; what the bodies mean is for others to know.
//!
//! One connection, one user at a time ([`handle`]). WAL with `synchronous=NORMAL`: a killed process loses nothing; after a
//! power cut the last instants may be missing, and the transcripts supply them again with the same ids.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OptionalExtension, params};
use rusqlite_migration::{M, Migrations};

use crate::{
    dialect::OutSpan,
    hook::{Destination, Hint, Kind},
    ids::{CallId, TraceId, hex},
    transcript::cursor::{Identity, Position},
    turn::Launch,
};

pub mod handle;
pub mod media;
mod salvage;

/// What can go wrong with the database.
pub type Result<T> = std::result::Result<T, rusqlite::Error>;

/// A destination's row.
pub type DestinationId = i64;

const SCHEMA: &str = "
CREATE TABLE inbox (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    hint TEXT NOT NULL
) STRICT;
CREATE TABLE destination (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    base_url TEXT NOT NULL,
    public_key TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'ok',
    next_at_ms INTEGER NOT NULL DEFAULT 0,
    last_success_ms INTEGER,
    last_error TEXT,
    last_error_ms INTEGER,
    UNIQUE (kind, base_url, public_key)
) STRICT;
-- Where reading a transcript continues: the start of its last turn, which can still grow.
CREATE TABLE session (
    session_id TEXT PRIMARY KEY,
    transcript TEXT NOT NULL,
    dev INTEGER NOT NULL,
    ino INTEGER NOT NULL,
    cursor INTEGER NOT NULL,
    closed INTEGER NOT NULL,
    turns INTEGER NOT NULL,
    open_turn INTEGER NOT NULL,
    hint TEXT NOT NULL,
    updated_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE outbox (
    seq INTEGER PRIMARY KEY,
    destination INTEGER NOT NULL REFERENCES destination,
    span_id BLOB NOT NULL,
    body TEXT NOT NULL
) STRICT;
CREATE INDEX outbox_by_destination ON outbox (destination, seq);
-- Every span id that ever entered the outbox of a destination.
CREATE TABLE exported (
    destination INTEGER NOT NULL,
    trace_id BLOB NOT NULL,
    span_id BLOB NOT NULL,
    PRIMARY KEY (destination, trace_id, span_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE dead_letter (
    id INTEGER PRIMARY KEY,
    destination INTEGER NOT NULL,
    span_id TEXT NOT NULL,
    reason TEXT NOT NULL,
    body TEXT NOT NULL,
    at_ms INTEGER NOT NULL
) STRICT;
CREATE TABLE redacted (
    rule TEXT PRIMARY KEY,
    count INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE skipped (
    reason TEXT PRIMARY KEY,
    count INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
";

/// What version 2 added: what shows that a transcript was rewritten or a row damaged, what was delivered, whom the user trusts,
/// what is to be uploaded.
const SCHEMA_2: &str = "
ALTER TABLE session ADD COLUMN marker INTEGER;
ALTER TABLE outbox ADD COLUMN checksum INTEGER;
ALTER TABLE outbox ADD COLUMN queued_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE destination ADD COLUMN delivered INTEGER NOT NULL DEFAULT 0;
ALTER TABLE destination ADD COLUMN rejected INTEGER NOT NULL DEFAULT 0;
ALTER TABLE exported ADD COLUMN delivered INTEGER NOT NULL DEFAULT 0;
UPDATE exported SET delivered = 1 WHERE (destination, span_id) NOT IN (SELECT destination, span_id FROM outbox);
ALTER TABLE session ADD COLUMN unsettled INTEGER NOT NULL DEFAULT 0;
ALTER TABLE session ADD COLUMN forked_from TEXT;
ALTER TABLE session ADD COLUMN title TEXT;
-- Tool calls of closed turns that launched subagents, or may have.
CREATE TABLE launch (
    session_id TEXT NOT NULL,
    tool_id TEXT NOT NULL,
    agent_id TEXT,
    turn_key TEXT NOT NULL,
    turn INTEGER NOT NULL,
    returned INTEGER NOT NULL,
    PRIMARY KEY (session_id, tool_id)
) STRICT, WITHOUT ROWID;
-- Subagents that are told to their end, and how long their transcripts were.
CREATE TABLE agent (
    session_id TEXT NOT NULL,
    agent_id TEXT NOT NULL,
    length INTEGER NOT NULL,
    PRIMARY KEY (session_id, agent_id)
) STRICT, WITHOUT ROWID;
-- The trace in which each model call was first found: copies of it are not told again.
CREATE TABLE call (
    destination INTEGER NOT NULL,
    id BLOB NOT NULL,
    trace_id BLOB NOT NULL,
    PRIMARY KEY (destination, id)
) STRICT, WITHOUT ROWID;
-- When this database was begun, or brought to version 2.
CREATE TABLE begun (
    at_ms INTEGER NOT NULL
) STRICT;
INSERT INTO begun VALUES (CAST(unixepoch('subsec') * 1000 AS INTEGER));
CREATE TABLE trusted (
    base_url TEXT PRIMARY KEY,
    at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- Images and documents that wait to be uploaded; gone with the last of their links.
CREATE TABLE media (
    destination INTEGER NOT NULL,
    hash BLOB NOT NULL,
    kind TEXT NOT NULL,
    length INTEGER NOT NULL,
    bytes BLOB,
    UNIQUE (destination, hash)
) STRICT;
-- Spans that show them, until the server has been told.
CREATE TABLE media_link (
    seq INTEGER PRIMARY KEY,
    destination INTEGER NOT NULL,
    hash BLOB NOT NULL,
    trace_id BLOB NOT NULL,
    span_id BLOB NOT NULL,
    field TEXT NOT NULL,
    queued_ms INTEGER NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0,
    error TEXT,
    UNIQUE (destination, hash, trace_id, span_id, field)
) STRICT;
CREATE INDEX media_link_by_tries ON media_link (destination, tries, seq);
";

/// Each version's change, applied in one transaction.
const MIGRATIONS: &[M<'static>] = &[M::up(SCHEMA), M::up(SCHEMA_2)];

/// Spans are stored where this much room is left behind them, in bytes: to take them out again needs some.
const MARGIN: u64 = 1 << 20;

/// The database, open for writing.
pub struct Store {
    db: Connection,
    path: PathBuf,
    /// Bytes of the bodies that wait, by destination.
    waiting: HashMap<DestinationId, u64>,
    /// The same of images and documents.
    media_waiting: HashMap<DestinationId, u64>,
    /// Why the last change failed and since when they do, Unix milliseconds.
    trouble: Option<(String, i64)>,
}

/// A database that was opened, and what had to be done to it.
pub struct Opened {
    /// The database.
    pub store: Store,
    /// It was damaged: its files were moved here, and what could be read of them was taken over.
    pub damaged: Option<PathBuf>,
    /// Spans that wait to be made again, because theirs were damaged.
    pub again: bool,
}

/// Where a session's transcript stands.
#[derive(Clone, Debug)]
pub struct SessionRow {
    /// The session.
    pub session_id: String,
    /// Its file, when last seen.
    pub transcript: PathBuf,
    /// Where reading continues: always the start of a line.
    pub cursor: Position,
    /// Answered turns before the cursor.
    pub closed: u32,
    /// Answered turns altogether.
    pub turns: u32,
    /// The last turn has not been told to its end.
    pub open_turn: bool,
    /// Subagents that are not told to their end.
    pub unsettled: u32,
    /// The session it was forked from.
    pub forked_from: Option<String>,
    /// What it is called, masked.
    pub title: Option<String>,
    /// The latest hint: where its spans go and how they are made.
    pub hint: Hint,
}

/// One step forward in a session; all of it happens, or none.
#[derive(Debug)]
pub struct Advance {
    /// Where the session stands afterwards.
    pub session: SessionRow,
    /// Spans found on the way.
    pub spans: Vec<OutSpan>,
    /// Calls that launched subagents, in turns that are passed.
    pub launches: Vec<Launch>,
    /// Subagents told to their end, and how long their transcripts were.
    pub agents: Vec<(String, u64)>,
    /// Events that are dealt with.
    pub consumed: Vec<String>,
    /// Lines passed over, by reason.
    pub skipped: BTreeMap<&'static str, u64>,
    /// Secrets masked, by rule.
    pub redacted: BTreeMap<String, u64>,
    /// Unix time in milliseconds.
    pub now_ms: i64,
}

/// An outbox row.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its place in the queue.
    pub seq: i64,
    /// The span.
    pub span: OutSpan,
    /// Size of its body in bytes.
    pub bytes: usize,
}

/// What `status` shows of a destination.
#[derive(Clone, Debug)]
pub struct DestinationRow {
    /// Its row.
    pub id: DestinationId,
    /// Where it is.
    pub destination: Destination,
    /// `ok`, `retrying` or `parked`.
    pub state: String,
    /// Not before this Unix time in milliseconds.
    pub next_at_ms: i64,
    /// When spans last arrived there, Unix milliseconds.
    pub last_success_ms: Option<i64>,
    /// What last went wrong, and when.
    pub last_error: Option<(String, i64)>,
    /// Spans waiting.
    pub waiting: u64,
    /// Their bytes.
    pub waiting_bytes: u64,
    /// When the oldest of them was stored, Unix milliseconds.
    pub oldest_ms: Option<i64>,
    /// Spans delivered so far.
    pub delivered: u64,
    /// Of these, spans the server said it did not keep.
    pub rejected: u64,
    /// Images and documents to be uploaded.
    pub media: u64,
}

/// A span that no server takes.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    /// By which it is retried or dropped.
    pub id: i64,
    /// Where it was to go.
    pub base_url: String,
    /// In hex.
    pub span_id: String,
    /// What the server said.
    pub reason: String,
    /// Its size.
    pub bytes: u64,
    /// Since when, Unix milliseconds.
    pub at_ms: i64,
}

/// What is to become of a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// It is sent again.
    Retry,
    /// It is gone.
    Drop,
}

/// What `status` shows of everything else.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Events waiting.
    pub inbox: u64,
    /// Spans waiting.
    pub outbox: u64,
    /// Spans that no server will take.
    pub dead_letters: u64,
    /// Images and documents to be uploaded, and what last kept one from it.
    pub media: (u64, Option<String>),
    /// Lines and events passed over, by reason.
    pub skipped: BTreeMap<String, u64>,
    /// Secrets masked, by rule.
    pub redacted: BTreeMap<String, u64>,
}

impl Store {
    /// Opens the database, making or migrating it. A database that is damaged is moved aside, never deleted, and a new one
    /// begun with what could be read of the old one; the transcripts supply the rest, with the same ids. Before a migration
    /// the old file is copied to `state.v<version>.bak`.
    ///
    /// # Errors
    /// If not even a new database can be made, or this one was written by a newer version.
    pub fn open(path: &Path) -> anyhow::Result<Opened> {
        finish_salvage(path)?;
        let (mut store, damaged) = match Self::try_open(path) {
            Ok(store) => (store, None),
            Err(error) if is_damage(&error) => {
                let aside = Self::salvage(path)?;
                (Self::try_open(path)?, Some(aside))
            }
            Err(error) => return Err(error),
        };
        let again = store.drop_damaged_rows()? > 0 || damaged.is_some();
        store.measure()?;
        Ok(Opened { store, damaged, again })
    }

    /// Puts a new database, with what could be read of the damaged one, in its place. The new one is whole before the old one
    /// leaves: whoever is killed in between begins again, or goes on where this was.
    fn salvage(path: &Path) -> anyhow::Result<PathBuf> {
        let new = salvaged(path);
        remove(&new)?;
        remove(&with_suffix(&new, "-wal"))?;
        let mut store = Self::try_open(&new)?;
        salvage::take_over(&mut store.db, path)?;
        let sessions = store.sessions(usize::MAX >> 1)?;
        let tx = store.db.transaction()?;
        read_again(&tx, sessions)?;
        tx.commit()?;
        // Everything is in the one file that takes the place of the other.
        store.db.pragma_update(None, "journal_mode", "DELETE")?;
        store.db.close().map_err(|(_, error)| error)?;
        let aside = quarantine(path)?;
        std::fs::rename(&new, path)?;
        Ok(aside)
    }

    fn try_open(path: &Path) -> anyhow::Result<Self> {
        let mut db = Connection::open(path)?;
        db.execute_batch(
            "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON;
             PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON; PRAGMA journal_size_limit=8388608; PRAGMA cache_size=-2000;
             PRAGMA temp_store=MEMORY;",
        )?;
        let check: String = db.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        if check != "ok" {
            anyhow::bail!(rusqlite::Error::SqliteFailure(
                rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT),
                Some(check)
            ));
        }
        let version: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        let version = usize::try_from(version).unwrap_or(usize::MAX);
        if version > MIGRATIONS.len() {
            anyhow::bail!("it was written by a newer version: install that again, or move the file away to begin anew");
        }
        if version > 0 && version < MIGRATIONS.len() {
            let copy = path.with_extension(format!("v{version}.bak"));
            let _ = std::fs::remove_file(&copy);
            db.execute("VACUUM INTO ?", [copy.to_string_lossy()])?;
        }
        Migrations::from_slice(MIGRATIONS).to_latest(&mut db)?;
        Ok(Self { db, path: path.to_path_buf(), waiting: HashMap::new(), media_waiting: HashMap::new(), trouble: None })
    }

    /// Removes spans whose bytes are not what was stored; they are as if never found, and looked for again. Returns how many.
    fn drop_damaged_rows(&mut self) -> Result<usize> {
        let mut damaged = Vec::new();
        {
            let mut rows = self.db.prepare("SELECT seq, destination, span_id, body, checksum FROM outbox")?;
            let mut rows = rows.query([])?;
            while let Some(row) = rows.next()? {
                if !is_whole(row)? {
                    damaged.push(row.get::<_, i64>(0)?);
                }
            }
        }
        if damaged.is_empty() {
            return Ok(0);
        }
        let sessions = self.sessions(usize::MAX >> 1)?;
        let tx = self.db.transaction()?;
        for seq in &damaged {
            tx.execute("DELETE FROM outbox WHERE seq = ?", [seq])?;
        }
        // Which spans those were cannot be told from what is damaged: all that neither wait nor arrived nor are dead.
        tx.execute(
            "DELETE FROM exported WHERE NOT delivered AND (destination, span_id) NOT IN (SELECT destination, span_id FROM outbox)
                AND lower(hex(span_id)) NOT IN (SELECT span_id FROM dead_letter)",
            [],
        )?;
        read_again(&tx, sessions)?;
        tx.commit()?;
        Ok(damaged.len())
    }

    /// Counts what waits; from then on it is kept in step.
    fn measure(&mut self) -> Result<()> {
        let mut statement = self.db.prepare("SELECT destination, sum(octet_length(body)) FROM outbox GROUP BY 1")?;
        let sums = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as u64)))?;
        self.waiting = sums.collect::<Result<_>>()?;
        self.media_waiting = media::measure(&self.db)?;
        Ok(())
    }

    /// Bytes that wait for a destination.
    pub fn waiting_bytes(&self, destination: &Destination) -> Result<u64> {
        let id = find_destination(&self.db, destination)?;
        Ok(id.and_then(|id| self.waiting.get(&id).copied()).unwrap_or(0))
    }

    /// How many bytes of spans there is room for. They are written to the log and from there to the database, which takes in
    /// what the log holds already.
    fn room(&self) -> Result<u64> {
        let Ok(disk) = rustix::fs::statvfs(&self.path) else { return Ok(u64::MAX) };
        if disk.f_blocks == 0 {
            // A file system that does not say.
            return Ok(u64::MAX);
        }
        let log = std::fs::metadata(self.path.with_extension("db-wal")).map_or(0, |meta| meta.len());
        let left = disk.f_bavail.saturating_mul(disk.f_frsize).saturating_sub(log + MARGIN);
        let unused = "SELECT freelist_count * page_size FROM pragma_freelist_count, pragma_page_size";
        let unused = self.db.prepare_cached(unused)?.query_row([], |row| row.get::<_, i64>(0))? as u64;
        Ok(if unused < left { left.midpoint(unused) } else { left })
    }

    /// Moves what is in the log into the database, as far as that goes, and gives back the log's room.
    pub fn empty_log(&self) {
        let _ = self.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    }

    /// Remembers that a change failed, until one succeeds.
    fn note(&mut self, changes_before: u64, error: Option<&rusqlite::Error>) {
        match error {
            Some(error) if self.trouble.is_none() => {
                self.trouble = Some((error.to_string(), crate::delivery::exporter::now_ms()));
            }
            None if self.db.total_changes() != changes_before => self.trouble = None,
            _ => {}
        }
    }

    /// Why the database takes no changes, and since when, Unix milliseconds.
    pub fn trouble(&self) -> Option<&(String, i64)> {
        self.trouble.as_ref()
    }

    /// Stores hints, and counts events that were none. Returns the destination row of each hint. Events already stored
    /// are not stored again.
    ///
    /// # Errors
    /// If nothing was stored.
    pub fn accept(&mut self, hints: &[Hint], refused: &[&'static str]) -> Result<Vec<DestinationId>> {
        let tx = self.db.transaction()?;
        let mut ids = Vec::with_capacity(hints.len());
        for hint in hints {
            ids.push(ensure_destination(&tx, &hint.destination)?);
            tx.prepare_cached("INSERT OR IGNORE INTO inbox (id, hint) VALUES (?, ?)")?
                .execute(params![hint.id, json(hint)])?;
        }
        for reason in refused {
            count(&tx, reason, 1)?;
        }
        tx.commit()?;
        Ok(ids)
    }

    /// Every stored hint, oldest first.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn inbox(&self) -> Result<Vec<Hint>> {
        let mut hints: Vec<Hint> = self
            .db
            .prepare_cached("SELECT hint FROM inbox")?
            .query_map([], |row| row.get::<_, String>(0))?
            .filter_map(|text| text.ok().and_then(|text| serde_json::from_str(&text).ok()))
            .collect();
        hints.sort_by_key(|hint| hint.fired_ns);
        Ok(hints)
    }

    /// Drops events that came to nothing, and says why.
    ///
    /// # Errors
    /// If nothing was changed.
    pub fn give_up(&mut self, ids: &[String], reason: &'static str) -> Result<()> {
        let tx = self.db.transaction()?;
        consume(&tx, ids)?;
        count(&tx, reason, ids.len() as u64)?;
        tx.commit()
    }

    /// Where a session stands; `None` if it was never seen.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn session(&self, session_id: &str) -> Result<Option<SessionRow>> {
        self.db
            .prepare_cached(&format!("{SELECT_SESSION} WHERE session_id = ?"))?
            .query_row([session_id], session_row)
            .optional()
            .map(Option::flatten)
    }

    /// As [`session`](Self::session), with when it was last moved forward, Unix milliseconds.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn session_and_time(&self, session_id: &str) -> Result<Option<(SessionRow, i64)>> {
        let time = self
            .db
            .prepare_cached("SELECT updated_ms FROM session WHERE session_id = ?")?
            .query_row([session_id], |row| row.get(0))
            .optional()?;
        Ok(self.session(session_id)?.zip(time))
    }

    /// When this database was begun, Unix milliseconds: what was written before is not looked for unasked.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn since(&self) -> Result<i64> {
        self.db.query_row("SELECT min(at_ms) FROM begun", [], |row| row.get(0))
    }

    /// The sessions seen last.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn sessions(&self, limit: usize) -> Result<Vec<SessionRow>> {
        let mut statement = self.db.prepare_cached(&format!("{SELECT_SESSION} ORDER BY updated_ms DESC LIMIT ?"))?;
        let rows = statement.query_map([limit as i64], session_row)?;
        Ok(rows.filter_map(|row| row.ok().flatten()).collect())
    }

    /// Moves a session forward: spans not seen before enter the outbox, the cursor passes what they came from, the events
    /// that led here are gone. A root enters again if another span of its trace is new. Returns the destination and the number
    /// of spans queued for it.
    ///
    /// # Errors
    /// If nothing was changed.
    pub fn advance(&mut self, step: &Advance) -> Result<(DestinationId, usize)> {
        let room = if step.spans.is_empty() { 0 } else { self.room()? };
        let tx = self.db.transaction()?;
        let destination = ensure_destination(&tx, &step.session.hint.destination)?;
        let mut fresh = HashSet::new();
        let (mut queued, mut bytes, mut copies) = (0, 0, HashMap::<TraceId, (u64, u64)>::new());
        let media_before = self.media_waiting.get(&destination).copied().unwrap_or(0);
        let mut media_bytes = media_before;
        let (roots, others): (Vec<_>, Vec<_>) = step.spans.iter().partition(|span| span.is_root());
        // Children first decide whether a root is news; a reader does not mind which comes first.
        for span in others.into_iter().chain(roots) {
            if let Some(call) = span.call {
                let own = is_own_call(&tx, destination, call, span.trace_id)?;
                let (all, copied) = copies.entry(span.trace_id).or_default();
                *all += 1;
                *copied += u64::from(!own);
                if !own {
                    continue;
                }
            }
            // A turn all of whose calls were told elsewhere is a copy too.
            if span.is_root() && copies.get(&span.trace_id).is_some_and(|(all, copied)| all == copied) {
                continue;
            }
            let first = tx
                .prepare_cached("INSERT OR IGNORE INTO exported (destination, trace_id, span_id) VALUES (?, ?, ?)")?
                .execute(params![destination, span.trace_id, span.span_id])?
                == 1;
            if first || span.is_root() && fresh.contains(&span.trace_id) {
                fresh.insert(span.trace_id);
                let body = json(span);
                tx.prepare_cached(
                    "INSERT INTO outbox (destination, span_id, body, checksum, queued_ms) VALUES (?, ?, ?, ?, ?)",
                )?
                .execute(params![
                    destination,
                    span.span_id,
                    body,
                    checksum(destination, &span.span_id, body.as_bytes()),
                    step.now_ms
                ])?;
                queued += 1;
                bytes += body.len() as u64;
                for (field, media) in &span.media {
                    media::queue(&tx, destination, span, *field, media, step.now_ms, &mut media_bytes)?;
                }
                if bytes + media_bytes - media_before > room {
                    return Err(no_room());
                }
            }
        }
        let copied = copies.values().map(|(_, copied)| copied).sum();
        if copied > 0 {
            count(&tx, "copied_call", copied)?;
        }
        let s = &step.session;
        tx.prepare_cached(
            "INSERT INTO session (session_id, transcript, dev, ino, cursor, closed, turns, open_turn, hint, updated_ms, marker,
                unsettled, forked_from, title)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)
             ON CONFLICT (session_id) DO UPDATE SET transcript = ?2, dev = ?3, ino = ?4, cursor = ?5, closed = ?6,
                turns = ?7, open_turn = ?8, hint = ?9, updated_ms = ?10, marker = ?11, unsettled = ?12,
                forked_from = ?13, title = ?14",
        )?
        .execute(params![
            s.session_id,
            s.transcript.to_string_lossy(),
            s.cursor.identity.dev as i64,
            s.cursor.identity.ino as i64,
            s.cursor.offset as i64,
            s.closed,
            s.turns,
            s.open_turn,
            json(&s.hint),
            step.now_ms,
            s.cursor.marker.map(|marker| marker as i64),
            s.unsettled,
            s.forked_from,
            s.title,
        ])?;
        for launch in &step.launches {
            tx.prepare_cached("INSERT OR REPLACE INTO launch VALUES (?, ?, ?, ?, ?, ?)")?.execute(params![
                s.session_id,
                launch.tool_id,
                launch.agent_id,
                launch.turn.0,
                launch.turn.1,
                launch.returned
            ])?;
        }
        for (agent_id, length) in &step.agents {
            tx.prepare_cached("INSERT OR REPLACE INTO agent VALUES (?, ?, ?)")?.execute(params![
                s.session_id,
                agent_id,
                *length as i64
            ])?;
        }
        consume(&tx, &step.consumed)?;
        for (reason, n) in &step.skipped {
            count(&tx, reason, *n)?;
        }
        for (rule, n) in &step.redacted {
            tx.prepare_cached(
                "INSERT INTO redacted VALUES (?1, ?2) ON CONFLICT (rule) DO UPDATE SET count = count + ?2",
            )?
            .execute(params![rule, *n as i64])?;
        }
        tx.commit()?;
        *self.waiting.entry(destination).or_default() += bytes;
        self.media_waiting.insert(destination, media_bytes);
        Ok((destination, queued))
    }

    /// The calls of a session's closed turns that launched subagents.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn launches(&self, session_id: &str) -> Result<Vec<Launch>> {
        self.db
            .prepare_cached("SELECT tool_id, agent_id, turn_key, turn, returned FROM launch WHERE session_id = ?")?
            .query_map([session_id], |row| {
                Ok(Launch {
                    tool_id: row.get(0)?,
                    agent_id: row.get(1)?,
                    turn: (row.get(2)?, row.get(3)?),
                    returned: row.get(4)?,
                })
            })?
            .collect()
    }

    /// The subagents of a session that are told to their end, and how long their transcripts were.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn agents(&self, session_id: &str) -> Result<HashMap<String, u64>> {
        self.db
            .prepare_cached("SELECT agent_id, length FROM agent WHERE session_id = ?")?
            .query_map([session_id], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as u64)))?
            .collect()
    }

    /// Sessions touched since `since_ms` (Unix milliseconds) of which something is not told to its end.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn unsettled(&self, since_ms: i64) -> Result<Vec<SessionRow>> {
        let sql = format!("{SELECT_SESSION} WHERE (open_turn OR unsettled > 0) AND updated_ms >= ?");
        let mut statement = self.db.prepare_cached(&sql)?;
        let rows = statement.query_map([since_ms], session_row)?;
        Ok(rows.filter_map(|row| row.ok().flatten()).collect())
    }

    /// The oldest spans waiting for a destination: at most `rows` of them, and at most `bytes` unless the first alone is
    /// larger.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn claim(&mut self, destination: DestinationId, rows: usize, bytes: usize) -> Result<Vec<Row>> {
        let mut batch = Vec::new();
        let mut broken = Vec::new();
        let mut total = 0;
        {
            let mut statement = self.db.prepare_cached(
                "SELECT seq, destination, span_id, body, checksum FROM outbox WHERE destination = ? ORDER BY seq LIMIT ?",
            )?;
            let mut found = statement.query(params![destination, rows as i64])?;
            while let Some(row) = found.next()? {
                let body = bytes_of(row, 3)?;
                total += body.len();
                if total > bytes && !batch.is_empty() {
                    break;
                }
                let seq = row.get(0)?;
                match serde_json::from_slice(body) {
                    Ok(span) if is_whole(row)? => batch.push(Row { seq, span, bytes: body.len() }),
                    _ => broken.push(seq),
                }
            }
        }
        for seq in broken {
            self.bury(destination, seq, "damaged in the database", 0)?;
        }
        Ok(batch)
    }

    /// The server has taken these rows; of `rejected` spans it said that it did not keep them.
    ///
    /// # Errors
    /// If nothing was changed.
    pub fn delivered(&mut self, destination: DestinationId, rows: &[Row], rejected: u64, now_ms: i64) -> Result<()> {
        let tx = self.db.transaction()?;
        for row in rows {
            tx.prepare_cached("DELETE FROM outbox WHERE seq = ?")?.execute([row.seq])?;
            tx.prepare_cached(
                "UPDATE exported SET delivered = 1 WHERE destination = ? AND trace_id = ? AND span_id = ?",
            )?
            .execute(params![destination, row.span.trace_id, row.span.span_id])?;
        }
        tx.prepare_cached(
            "UPDATE destination SET state = 'ok', next_at_ms = 0, last_success_ms = ?, delivered = delivered + ?,
                rejected = rejected + ? WHERE id = ?",
        )?
        .execute(params![now_ms, rows.len() as i64, rejected as i64, destination])?;
        tx.commit()?;
        self.leaves(destination, rows.iter().map(|row| row.bytes as u64).sum());
        Ok(())
    }

    /// No server will take this span as it is: it leaves the outbox, visibly.
    ///
    /// # Errors
    /// If nothing was changed.
    pub fn bury(&mut self, destination: DestinationId, seq: i64, reason: &str, now_ms: i64) -> Result<()> {
        let tx = self.db.transaction()?;
        tx.execute(
            "INSERT INTO dead_letter (destination, span_id, reason, body, at_ms)
             SELECT destination, lower(hex(span_id)), ?2, body, ?3 FROM outbox WHERE seq = ?1 AND destination = ?4",
            params![seq, reason, now_ms, destination],
        )?;
        let bytes: Option<i64> = tx
            .query_row(
                "DELETE FROM outbox WHERE seq = ? AND destination = ? RETURNING octet_length(body)",
                [seq, destination],
                |row| row.get(0),
            )
            .optional()?;
        tx.commit()?;
        self.leaves(destination, bytes.unwrap_or(0) as u64);
        Ok(())
    }

    /// Puts a smaller span in the place of one that is too large for its server.
    ///
    /// # Errors
    /// If nothing was changed.
    pub fn replace(&mut self, destination: DestinationId, row: &Row) -> Result<()> {
        let body = json(&row.span);
        self.db.execute(
            "UPDATE outbox SET body = ?, checksum = ? WHERE seq = ?",
            params![body, checksum(destination, &row.span.span_id, body.as_bytes()), row.seq],
        )?;
        self.leaves(destination, (row.bytes as u64).saturating_sub(body.len() as u64));
        Ok(())
    }

    fn leaves(&mut self, destination: DestinationId, bytes: u64) {
        let waiting = self.waiting.entry(destination).or_default();
        *waiting = waiting.saturating_sub(bytes);
    }

    /// The spans no server takes, oldest first.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn dead_letters(&self) -> Result<Vec<DeadLetter>> {
        self.db
            .prepare(
                "SELECT dead_letter.id, base_url, span_id, reason, octet_length(body), at_ms
                 FROM dead_letter LEFT JOIN destination ON destination.id = destination ORDER BY 1",
            )?
            .query_map([], |row| {
                Ok(DeadLetter {
                    id: row.get(0)?,
                    base_url: row.get::<_, Option<String>>(1)?.unwrap_or_default(),
                    span_id: row.get(2)?,
                    reason: row.get(3)?,
                    bytes: row.get::<_, i64>(4)? as u64,
                    at_ms: row.get(5)?,
                })
            })?
            .collect()
    }

    /// Retries or drops a dead letter, or all of them. Returns where there is something to send now, and how many it were.
    ///
    /// # Errors
    /// If nothing was changed.
    pub fn settle_dead_letters(
        &mut self,
        id: Option<i64>,
        fate: Fate,
        now_ms: i64,
    ) -> Result<(Vec<(DestinationId, Destination)>, usize)> {
        let tx = self.db.transaction()?;
        if fate == Fate::Retry {
            let mut letters =
                tx.prepare("SELECT destination, unhex(span_id), body FROM dead_letter WHERE ?1 IS NULL OR id = ?1")?;
            let mut letters = letters.query([id])?;
            while let Some(row) = letters.next()? {
                let (to, span_id, body): (i64, Vec<u8>, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
                tx.execute(
                    "INSERT INTO outbox (destination, span_id, body, checksum, queued_ms) VALUES (?, ?, ?, ?, ?)",
                    params![to, span_id, body, checksum(to, &span_id, body.as_bytes()), now_ms],
                )?;
            }
        }
        let settled = tx.execute("DELETE FROM dead_letter WHERE ?1 IS NULL OR id = ?1", [id])?;
        tx.commit()?;
        self.measure()?;
        let waiting = self.destinations()?.into_iter().filter(|row| row.waiting > 0);
        Ok((waiting.map(|row| (row.id, row.destination)).collect(), settled))
    }

    /// True if the user said that spans may go to `base_url` although a repository chose it.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn trusts(&self, base_url: &str) -> Result<bool> {
        self.db.prepare_cached("SELECT 1 FROM trusted WHERE base_url = ?")?.exists([base_url])
    }

    /// Trusts `base_url`, or no longer.
    ///
    /// # Errors
    /// If nothing was changed.
    pub fn trust(&mut self, base_url: &str, trusted: bool, now_ms: i64) -> Result<()> {
        if trusted {
            self.db.execute("INSERT OR IGNORE INTO trusted VALUES (?, ?)", params![base_url, now_ms]).map(drop)
        } else {
            self.db.execute("DELETE FROM trusted WHERE base_url = ?", [base_url]).map(drop)
        }
    }

    /// Notes what went wrong with a destination and when it is tried again.
    ///
    /// # Errors
    /// If nothing was changed.
    pub fn postpone(
        &mut self,
        destination: DestinationId,
        state: &str,
        next_at_ms: i64,
        error: &str,
        now_ms: i64,
    ) -> Result<()> {
        self.db
            .prepare_cached(
                "UPDATE destination SET state = ?, next_at_ms = ?, last_error = ?, last_error_ms = ? WHERE id = ?",
            )?
            .execute(params![state, next_at_ms, error, now_ms, destination])
            .map(drop)
    }

    /// Every destination.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn destinations(&self) -> Result<Vec<DestinationRow>> {
        self.db
            .prepare_cached(
                "SELECT id, base_url, public_key, state, next_at_ms, last_success_ms, last_error, last_error_ms,
                    (SELECT count(*) FROM outbox WHERE outbox.destination = destination.id),
                    (SELECT queued_ms FROM outbox WHERE outbox.destination = destination.id ORDER BY seq LIMIT 1),
                    delivered, rejected,
                    (SELECT count(*) FROM media_link WHERE media_link.destination = destination.id)
                 FROM destination ORDER BY id",
            )?
            .query_map([], |row| {
                let error: Option<String> = row.get(6)?;
                let id = row.get(0)?;
                Ok(DestinationRow {
                    id,
                    destination: Destination { kind: Kind::Langfuse, base_url: row.get(1)?, public_key: row.get(2)? },
                    state: row.get(3)?,
                    next_at_ms: row.get(4)?,
                    last_success_ms: row.get(5)?,
                    last_error: error.zip(row.get(7)?),
                    waiting: row.get::<_, i64>(8)? as u64,
                    waiting_bytes: self.waiting.get(&id).copied().unwrap_or(0),
                    oldest_ms: row.get(9)?,
                    delivered: row.get::<_, i64>(10)? as u64,
                    rejected: row.get::<_, i64>(11)? as u64,
                    media: row.get::<_, i64>(12)? as u64,
                })
            })?
            .collect()
    }

    /// Directories of the projects that send to a destination, latest first: where its key may be found.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn project_dirs(&self, destination: &Destination) -> Result<Vec<PathBuf>> {
        let mut dirs: Vec<PathBuf> = Vec::new();
        let waiting = self.inbox()?;
        let sessions = self.sessions(500)?;
        for hint in waiting.iter().rev().chain(sessions.iter().map(|session| &session.hint)) {
            if &hint.destination == destination {
                let new: Vec<_> = hint.project_dirs.iter().filter(|dir| !dirs.contains(dir)).cloned().collect();
                dirs.extend(new);
            }
        }
        Ok(dirs)
    }

    fn counted(&self, sql: &str) -> Result<BTreeMap<String, u64>> {
        let mut statement = self.db.prepare_cached(sql)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as u64)))?;
        rows.collect()
    }

    /// What is waiting and what was passed over.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn counts(&self) -> Result<Counts> {
        let one = |sql: &str| self.db.query_row(sql, [], |row| row.get::<_, i64>(0)).map(|n| n as u64);
        Ok(Counts {
            inbox: one("SELECT count(*) FROM inbox")?,
            outbox: one("SELECT count(*) FROM outbox")?,
            dead_letters: one("SELECT count(*) FROM dead_letter")?,
            media: media::pending(&self.db)?,
            skipped: self.counted("SELECT reason, count FROM skipped")?,
            redacted: self.counted("SELECT rule, count FROM redacted")?,
        })
    }
}

const SELECT_SESSION: &str =
    "SELECT session_id, transcript, dev, ino, cursor, closed, turns, open_turn, hint, marker, unsettled, forked_from,
        title
     FROM session";

/// `None` for a row whose hint cannot be read (written by another version): the session starts again.
fn session_row(row: &rusqlite::Row<'_>) -> Result<Option<SessionRow>> {
    let hint: String = row.get(8)?;
    let Ok(hint) = serde_json::from_str(&hint) else { return Ok(None) };
    Ok(Some(SessionRow {
        session_id: row.get(0)?,
        transcript: PathBuf::from(row.get::<_, String>(1)?),
        cursor: Position {
            identity: Identity { dev: row.get::<_, i64>(2)? as u64, ino: row.get::<_, i64>(3)? as u64 },
            offset: row.get::<_, i64>(4)? as u64,
            marker: row.get::<_, Option<i64>>(9)?.map(|marker| marker as u64),
        },
        closed: row.get(5)?,
        turns: row.get(6)?,
        open_turn: row.get(7)?,
        unsettled: row.get(10)?,
        forked_from: row.get(11)?,
        title: row.get(12)?,
        hint,
    }))
}

fn find_destination(db: &Connection, destination: &Destination) -> Result<Option<DestinationId>> {
    let Destination { kind: Kind::Langfuse, base_url, public_key } = destination;
    db.prepare_cached("SELECT id FROM destination WHERE kind = 'langfuse' AND base_url = ? AND public_key = ?")?
        .query_row([base_url, public_key], |row| row.get(0))
        .optional()
}

fn ensure_destination(db: &Connection, destination: &Destination) -> Result<DestinationId> {
    if let Some(id) = find_destination(db, destination)? {
        return Ok(id);
    }
    let Destination { kind: Kind::Langfuse, base_url, public_key } = destination;
    db.prepare_cached("INSERT INTO destination (kind, base_url, public_key) VALUES ('langfuse', ?, ?)")?
        .execute([base_url, public_key])?;
    Ok(db.last_insert_rowid())
}

/// Notes that the call was found in this trace. False if it was found in another one first.
fn is_own_call(db: &Connection, destination: DestinationId, call: CallId, trace: TraceId) -> Result<bool> {
    let noted = db
        .prepare_cached("INSERT OR IGNORE INTO call (destination, id, trace_id) VALUES (?, ?, ?)")?
        .execute(params![destination, call, trace])?;
    if noted == 1 {
        return Ok(true);
    }
    db.prepare_cached("SELECT trace_id FROM call WHERE destination = ? AND id = ?")?
        .query_row(params![destination, call], |row| Ok(row.get::<_, TraceId>(0)? == trace))
}

fn consume(db: &Connection, ids: &[String]) -> Result<()> {
    let mut statement = db.prepare_cached("DELETE FROM inbox WHERE id = ?")?;
    ids.iter().try_for_each(|id| statement.execute([id]).map(drop))
}

fn count(db: &Connection, reason: &str, n: u64) -> Result<()> {
    db.prepare_cached("INSERT INTO skipped VALUES (?1, ?2) ON CONFLICT (reason) DO UPDATE SET count = count + ?2")?
        .execute(params![reason, n as i64])
        .map(drop)
}

/// Notices a damaged outbox row: SQLite's own checks do not look into values.
fn checksum(destination: DestinationId, span_id: &[u8], body: &[u8]) -> i64 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&destination.to_le_bytes());
    sum.update(span_id);
    sum.update(body);
    i64::from(sum.finalize())
}

/// True if the row (`seq, destination, span_id, body, checksum`) is what was stored. Those of version 1 have no checksum.
fn is_whole(row: &rusqlite::Row<'_>) -> Result<bool> {
    let noted: Option<i64> = row.get(4)?;
    let found = checksum(row.get(1)?, bytes_of(row, 2)?, bytes_of(row, 3)?);
    Ok(noted.is_none_or(|noted| noted == found))
}

fn bytes_of<'r>(row: &'r rusqlite::Row<'_>, column: usize) -> Result<&'r [u8]> {
    Ok(row.get_ref(column)?.as_bytes_or_null()?.unwrap_or_default())
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// True if the disk is the problem: full, read-only or failing. Nothing is wrong with the database then.
pub fn is_passing(error: &anyhow::Error) -> bool {
    error.chain().find_map(|cause| cause.downcast_ref()).is_some_and(is_of_the_disk)
}

fn is_of_the_disk(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DiskFull, ReadOnly, SystemIoFailure};
    matches!(error.sqlite_error_code(), Some(DiskFull | ReadOnly | SystemIoFailure))
}

fn no_room() -> rusqlite::Error {
    let full = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
    rusqlite::Error::SqliteFailure(full, Some("the disk is full, but for what it takes to deliver what waits".into()))
}

fn is_damage(error: &anyhow::Error) -> bool {
    let code =
        error.chain().find_map(|cause| cause.downcast_ref::<rusqlite::Error>()).and_then(|e| e.sqlite_error_code());
    matches!(code, Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase))
}

/// Every known session is read from its start again, as if an event had come for it; what was stored of it is not stored
/// again.
fn read_again(db: &Connection, sessions: Vec<SessionRow>) -> Result<()> {
    db.execute_batch("UPDATE session SET cursor = 0, closed = 0, marker = NULL; DELETE FROM agent;")?;
    for session in sessions {
        let hint = Hint { id: format!("again-{}", session.session_id), ..session.hint };
        db.execute("INSERT OR IGNORE INTO inbox (id, hint) VALUES (?, ?)", params![hint.id, json(&hint)])?;
    }
    Ok(())
}

/// Where a database grows that is to take a damaged one's place.
fn salvaged(path: &Path) -> PathBuf {
    with_suffix(path, ".new")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    path.with_file_name(name)
}

/// A salvage that was interrupted after the damaged database had left, and before the new one came.
fn finish_salvage(path: &Path) -> std::io::Result<()> {
    let new = salvaged(path);
    if !path.exists() && new.exists() {
        // Another database's log must not be applied to this one.
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

/// Moves a damaged database and what belongs to it into a directory of its own, the database first.
fn quarantine(path: &Path) -> std::io::Result<PathBuf> {
    let stamp = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_millis());
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

/// Ids of a span, for log lines.
pub fn span_name(span: &OutSpan) -> String {
    format!("{}/{}", hex(&span.trace_id), hex(&span.span_id))
}

#[cfg(test)]
mod tests;
