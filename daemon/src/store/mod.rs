//! The database, and all SQL. Each complete change is one transaction; this module does not interpret the
//! stored bodies.
//!
//! One connection, one user at a time ([`handle`]). WAL with `synchronous=NORMAL`: a killed process loses nothing; after a
//! power cut the last moments may be missing, and the transcripts supply them again with the same ids.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use rusqlite::{Connection, params};

use cc_core::{delivery::item::Item, destination::Destination, ids::hex};

mod advance;
mod claims;
mod delivery;
mod destinations;
mod error;
mod first_start;
mod followers;
mod forget;
pub mod handle;
pub mod hidden;
mod history;
mod inbox;
pub mod media;
mod observations;
mod open;
mod outbox;
mod redirect;
mod room;
mod salvage;
mod schema;
pub mod scores;
mod sessions;
mod sightings;
mod spellings;
mod suppressed;
mod unknown_kinds;
mod upgrade;

pub use advance::Advance;
pub use delivery::{Arrived, arrived_at};
pub use destinations::{Accounts, DestinationRow};
pub use error::Error;
pub use first_start::{FirstStart, is_ahead};
pub use followers::Behind;
pub use inbox::Inbox;
pub use open::Opened;
pub use outbox::{DeadLetter, Row};
pub use sessions::SessionRow;
pub use unknown_kinds::UnknownKind;
pub use upgrade::{Stage, copy_of};

/// The result of a step while the database is open; callers of [`handle::Handle::call`] get an [`Error`].
pub type Result<T> = std::result::Result<T, rusqlite::Error>;

pub type DestinationId = i64;

/// Spans are stored only if this many bytes remain free: removing them later needs some.
const SPARE_BYTES: u64 = 1 << 20;

pub struct Store {
    db: Connection,
    path: PathBuf,
    /// It was created when it was opened.
    made: bool,
    /// The number of the next stored observation.
    next: observations::Seq,
    /// Bytes of waiting bodies, by destination.
    waiting: HashMap<DestinationId, u64>,
    rows: HashMap<Destination, DestinationId>,
    /// Bytes of waiting images and documents, by destination.
    media_waiting: HashMap<DestinationId, u64>,
    /// Why the last change failed, and since when changes fail, in Unix milliseconds.
    trouble: Option<(String, i64)>,
    /// Turns from before a project was first seen are left out.
    from_now: bool,
    /// Claims of turns that are not in the database yet.
    claims: claims::Claims,
    /// A cache of some projects' sightings.
    sightings: sightings::Known,
}

/// The other figures in `status`.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Waiting events.
    pub inbox: u64,
    /// Waiting spans.
    pub outbox: u64,
    /// Spans that no server accepts.
    pub dead_letters: u64,
    /// Waiting images and documents, and the last error of an upload.
    pub media: (u64, Option<String>),
    /// Waiting scores, and the last error of sending one.
    pub scores: (u64, Option<String>),
    /// Sessions whose beginning another tool has sent.
    pub imported: u64,
    /// Skipped lines and events, by reason.
    pub skipped: BTreeMap<String, u64>,
    /// Masked secrets, by rule.
    pub redacted: BTreeMap<String, u64>,
}

impl Store {
    /// From now on leaves out turns from before a project was first seen.
    pub fn trace_from_now(&mut self, from_now: bool) {
        self.from_now = from_now;
    }

    /// Counts what waits; later changes keep these counts.
    fn measure(&mut self) -> Result<()> {
        let mut statement = self.db.prepare(
            "SELECT destination, sum(coalesce(octet_length(cut), octet_length(body)))
             FROM outbox CROSS JOIN observation ON id = seq GROUP BY 1",
        )?;
        let sums = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as u64)))?;
        self.waiting = sums.collect::<Result<_>>()?;
        self.media_waiting = media::measure(&self.db)?;
        Ok(())
    }

    /// How many bytes of spans there is room for. They are written to the log and then to the database, so the log's
    /// own bytes count as free.
    fn room(&self) -> Result<u64> {
        let Some(free) = free(&self.path) else { return Ok(u64::MAX) };
        let log = std::fs::metadata(self.path.with_extension("db-wal")).map_or(0, |meta| meta.len());
        let left = free.saturating_sub(log + SPARE_BYTES);
        let unused = "SELECT freelist_count * page_size FROM pragma_freelist_count, pragma_page_size";
        let unused = self.db.prepare_cached(unused)?.query_row([], |row| row.get::<_, i64>(0))? as u64;
        Ok(if unused < left { left.midpoint(unused) } else { left })
    }

    /// Moves as much of the log as possible into the database, and frees its space.
    pub fn empty_log(&self) {
        let _ = self.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    }

    /// Records that a change failed, until one succeeds, and logs each reason once until then.
    fn note(&mut self, changes_before: u64, error: Option<&Error>) {
        match error {
            Some(error) => {
                let (error, now_ms) = (error.to_string(), crate::clock::now_ms());
                let said = self.trouble.as_ref().is_some_and(|(said, _)| *said == error);
                if !said {
                    tracing::error!(error, "the database does not do what it is asked for");
                }
                let since = self.trouble.take().map_or(now_ms, |(_, since)| since);
                self.trouble = Some((error, since));
            }
            None if self.db.total_changes() != changes_before && self.trouble.take().is_some() => {
                tracing::info!("the database takes changes again");
            }
            None => {}
        }
    }

    /// Why the database accepts no changes, and since when, in Unix milliseconds.
    pub fn trouble(&self) -> Option<&(String, i64)> {
        self.trouble.as_ref()
    }

    fn counted(&self, sql: &str) -> Result<BTreeMap<String, u64>> {
        let mut statement = self.db.prepare_cached(sql)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as u64)))?;
        rows.collect()
    }

    /// Sets the count of `reason` to `total`.
    ///
    /// # Errors
    /// If nothing was changed.
    pub fn count_to(&mut self, reason: &'static str, total: u64) -> Result<()> {
        let sql = "INSERT INTO skipped VALUES (?1, ?2) ON CONFLICT (reason) DO UPDATE SET count = max(count, ?2)";
        self.db.prepare_cached(sql)?.execute(params![reason, total as i64]).map(drop)
    }

    /// What waits and what was skipped.
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
            scores: scores::pending(&self.db)?,
            imported: one("SELECT count(*) FROM imported")?,
            skipped: self.counted("SELECT reason, count FROM skipped")?,
            redacted: self.counted("SELECT rule, count FROM redacted")?,
        })
    }
}

/// Free bytes on the disk of `path`; `None` if the file system does not report them.
fn free(path: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(path).ok().filter(|disk| disk.f_blocks > 0)?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

fn count(db: &Connection, reason: &str, n: u64) -> Result<()> {
    db.prepare_cached("INSERT INTO skipped VALUES (?1, ?2) ON CONFLICT (reason) DO UPDATE SET count = count + ?2")?
        .execute(params![reason, n as i64])
        .map(drop)
}

/// Detects a damaged observation, or one in another's place: SQLite's own checks do not cover values.
fn checksum(destination: DestinationId, span_id: &[u8], body: &[u8]) -> i64 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&destination.to_le_bytes());
    sum.update(span_id);
    sum.update(body);
    i64::from(sum.finalize())
}

/// True if the row (`seq, destination, span_id, body, checksum`) is unchanged. Rows of version 1 have no checksum.
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

fn no_room() -> rusqlite::Error {
    let full = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
    rusqlite::Error::SqliteFailure(full, Some("the disk is full, but for what it takes to deliver what waits".into()))
}

/// The ids of a span, for log lines.
pub fn span_name(span: &Item) -> String {
    format!("{}/{}", hex(&span.trace_id()), hex(&span.span_id()))
}

#[cfg(test)]
pub(crate) mod tests;
