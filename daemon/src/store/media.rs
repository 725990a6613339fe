//! Images and documents that wait for their upload: each once for its destination, however many spans show it.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::{DestinationId, Result, Store, count};
use cc_core::{
    ids::{SpanId, TraceId},
    media::{Hash, Media},
    observation::{Field, Observation},
};

/// How many bytes of images and documents may wait for a destination. Spans do not wait for them, so they have a limit
/// of their own; beyond it they are counted, and their spans are sent without them.
pub const MAX_WAITING_BYTES: u64 = 64 << 20;

/// A span that shows an image or document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The row id.
    pub seq: i64,
    pub hash: Hash,
    pub kind: String,
    /// In bytes.
    pub length: u64,
    pub trace_id: TraceId,
    pub span_id: SpanId,
    /// The field of the span that shows it.
    pub field: String,
    /// Unix milliseconds.
    pub queued_ms: i64,
    /// Failed tries so far.
    pub tries: u32,
}

pub(super) fn measure(db: &Connection) -> Result<HashMap<DestinationId, u64>> {
    let mut statement = db.prepare("SELECT destination, sum(octet_length(bytes)) FROM media GROUP BY 1")?;
    let sums = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, Option<i64>>(1)?.unwrap_or(0) as u64)))?;
    sums.collect()
}

pub(super) fn pending(db: &Connection) -> Result<(u64, Option<String>)> {
    let count: i64 = db.query_row("SELECT count(*) FROM media_link", [], |row| row.get(0))?;
    let error = db
        .query_row("SELECT error FROM media_link WHERE error IS NOT NULL ORDER BY seq DESC LIMIT 1", [], |row| {
            row.get(0)
        })
        .optional()?;
    Ok((count as u64, error))
}

/// Queues the `media` of `span`, which is being queued. `waiting` is the number of bytes that wait for the destination.
pub(super) fn queue(
    db: &Connection,
    destination: DestinationId,
    span: &Observation,
    field: Field,
    media: &Media,
    now_ms: i64,
    waiting: &mut u64,
) -> Result<()> {
    let known = db
        .prepare_cached("SELECT bytes IS NOT NULL FROM media WHERE destination = ? AND hash = ?")?
        .query_row(params![destination, media.hash], |row| row.get::<_, bool>(0))
        .optional()?;
    let bytes = (known != Some(true) && !media.bytes.is_empty()).then_some(&media.bytes[..]);
    let more = bytes.map_or(0, |bytes| bytes.len() as u64);
    if *waiting + more > MAX_WAITING_BYTES {
        return count(db, "media_no_room", 1);
    }
    *waiting += more;
    if known.is_none() || bytes.is_some() {
        db.prepare_cached(
            "INSERT INTO media (destination, hash, kind, length, bytes) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO UPDATE SET bytes = ?5",
        )?
        .execute(params![destination, media.hash, media.kind, media.length as i64, bytes])?;
    }
    db.prepare_cached(
        "INSERT OR IGNORE INTO media_link (destination, hash, trace_id, span_id, field, queued_ms) VALUES (?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![destination, media.hash, span.trace_id, span.span_id, field.name(), now_ms])?;
    Ok(())
}

impl Store {
    /// The next upload: the oldest of those with the fewest tries.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn next_media(&self, destination: DestinationId) -> Result<Option<Link>> {
        self.db
            .prepare_cached(
                "SELECT seq, hash, coalesce(kind, ''), coalesce(length, 0), trace_id, span_id, field, queued_ms, tries
                 FROM media_link LEFT JOIN media USING (destination, hash)
                 WHERE destination = ? ORDER BY tries, seq LIMIT 1",
            )?
            .query_row([destination], |row| {
                Ok(Link {
                    seq: row.get(0)?,
                    hash: row.get(1)?,
                    kind: row.get(2)?,
                    length: row.get::<_, i64>(3)? as u64,
                    trace_id: row.get(4)?,
                    span_id: row.get(5)?,
                    field: row.get(6)?,
                    queued_ms: row.get(7)?,
                    tries: row.get(8)?,
                })
            })
            .optional()
    }

    /// The bytes of an image or document, if they are there.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn media_bytes(&self, destination: DestinationId, hash: &Hash) -> Result<Option<Vec<u8>>> {
        self.db
            .prepare_cached("SELECT bytes FROM media WHERE destination = ? AND hash = ?")?
            .query_row(params![destination, hash], |row| row.get(0))
            .optional()
            .map(Option::flatten)
    }

    /// Removes an upload that is done, or has failed for good for a counted reason.
    ///
    /// # Errors
    /// If nothing was changed.
    pub fn media_settled(&mut self, destination: DestinationId, link: &Link, failed: Option<&str>) -> Result<()> {
        let tx = self.db.transaction()?;
        tx.execute("DELETE FROM media_link WHERE seq = ?", [link.seq])?;
        let freed: Option<i64> = tx
            .prepare_cached(
                "DELETE FROM media WHERE destination = ?1 AND hash = ?2
                    AND NOT EXISTS (SELECT 1 FROM media_link WHERE destination = ?1 AND hash = ?2)
                 RETURNING coalesce(octet_length(bytes), 0)",
            )?
            .query_row(params![destination, link.hash], |row| row.get(0))
            .optional()?;
        if let Some(reason) = failed {
            count(&tx, reason, 1)?;
        }
        tx.commit()?;
        let waiting = self.media_waiting.entry(destination).or_default();
        *waiting = waiting.saturating_sub(freed.unwrap_or(0) as u64);
        Ok(())
    }

    /// Records a failed try: others come first.
    ///
    /// # Errors
    /// If nothing was changed.
    pub fn media_postponed(&mut self, link: &Link, error: &str) -> Result<()> {
        self.db
            .prepare_cached("UPDATE media_link SET tries = tries + 1, error = ? WHERE seq = ?")?
            .execute(params![error, link.seq])
            .map(drop)
    }
}
