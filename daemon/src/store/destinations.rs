//! Where spans go: its state, and whom the user trusts.

use rusqlite::{Connection, OptionalExtension, params};

use super::{DestinationId, Result, Store};
use crate::hook::{Destination, Kind};

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

impl Store {
    /// Bytes that wait for a destination.
    pub fn waiting_bytes(&self, destination: &Destination) -> Result<u64> {
        let id = find(&self.db, destination)?;
        Ok(id.and_then(|id| self.waiting.get(&id).copied()).unwrap_or(0))
    }

    /// True if a destination takes what waits for it: spans arrived there after `since_ms` (Unix milliseconds), and nothing has
    /// gone wrong.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn is_delivering(&self, destination: &Destination, since_ms: i64) -> Result<bool> {
        let Some(id) = find(&self.db, destination)? else { return Ok(false) };
        let sql = "SELECT state = 'ok' AND coalesce(last_success_ms, 0) > ? FROM destination WHERE id = ?";
        self.db.prepare_cached(sql)?.query_row([since_ms, id], |row| row.get(0))
    }

    /// Every destination.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn destinations(&self) -> Result<Vec<DestinationRow>> {
        self.destinations_where(None)
    }

    /// One destination, if there is such a row.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn destination(&self, id: DestinationId) -> Result<Option<DestinationRow>> {
        Ok(self.destinations_where(Some(id))?.pop())
    }

    fn destinations_where(&self, id: Option<DestinationId>) -> Result<Vec<DestinationRow>> {
        let condition = if id.is_some() { "id = ?1" } else { "?1 IS NULL" };
        self.db
            .prepare_cached(&format!(
                "SELECT id, base_url, public_key, state, next_at_ms, last_success_ms, last_error, last_error_ms,
                    (SELECT count(*) FROM outbox WHERE outbox.destination = destination.id),
                    (SELECT queued_ms FROM outbox WHERE outbox.destination = destination.id ORDER BY seq LIMIT 1),
                    delivered, rejected,
                    (SELECT count(*) FROM media_link WHERE media_link.destination = destination.id)
                 FROM destination WHERE {condition} ORDER BY id",
            ))?
            .query_map([id], |row| {
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

    /// True if the user said that spans may go to `base_url` although a repository chose it.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn trusts(&self, base_url: &str) -> Result<bool> {
        self.db.prepare_cached("SELECT 1 FROM trusted WHERE base_url = ?")?.exists([base_url])
    }

    /// Every address that is trusted so.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn trusted(&self) -> Result<Vec<String>> {
        let mut trusted = self.db.prepare_cached("SELECT base_url FROM trusted ORDER BY 1")?;
        trusted.query_map([], |row| row.get(0))?.collect()
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
}

pub(super) fn find(db: &Connection, destination: &Destination) -> Result<Option<DestinationId>> {
    let Destination { kind: Kind::Langfuse, base_url, public_key } = destination;
    db.prepare_cached("SELECT id FROM destination WHERE kind = 'langfuse' AND base_url = ? AND public_key = ?")?
        .query_row([base_url, public_key], |row| row.get(0))
        .optional()
}

pub(super) fn ensure(db: &Connection, destination: &Destination) -> Result<DestinationId> {
    if let Some(id) = find(db, destination)? {
        return Ok(id);
    }
    let Destination { kind: Kind::Langfuse, base_url, public_key } = destination;
    db.prepare_cached("INSERT INTO destination (kind, base_url, public_key) VALUES ('langfuse', ?, ?)")?
        .execute([base_url, public_key])?;
    Ok(db.last_insert_rowid())
}
