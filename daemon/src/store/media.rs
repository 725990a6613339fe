//! Images and documents that wait to be uploaded: each once for its destination, however many spans show it.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::{DestinationId, Result, Store, count};
use cc_core::{
    ids::{SpanId, TraceId},
    media::{Hash, Media},
    observation::{Field, Observation},
};

/// Most bytes of images and documents that wait for a destination. Spans do not wait for them, so they have room of their
/// own; what finds none is counted, and its span goes without.
pub const MAX_WAITING_BYTES: u64 = 64 << 20;

/// A span that shows an image or document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// By which it is known.
    pub seq: i64,
    /// The hash of its bytes.
    pub hash: Hash,
    /// Its media type.
    pub kind: String,
    /// How many bytes it has.
    pub length: u64,
    /// The trace.
    pub trace_id: TraceId,
    /// The span.
    pub span_id: SpanId,
    /// Where in the span it stands.
    pub field: String,
    /// Since when it waits, Unix milliseconds.
    pub queued_ms: i64,
    /// How often it was tried in vain.
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

/// `span`, which enters the outbox, shows `media`. `waiting` is how many bytes wait for the destination.
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
    /// What is to be uploaded next: of those least often tried the oldest.
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

    /// The server has it and knows of the span, or never will, for a reason that is counted.
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

    /// It did not work this time: others come first.
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
