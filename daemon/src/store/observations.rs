//! What waits to be sent: stored once for however many destinations wait for it, and gone with the last of them.

use std::ops::RangeInclusive;

use rusqlite::{Connection, OptionalExtension, params};

use super::{DestinationId, Result, checksum};
use cc_core::ids::{SpanId, TraceId};

/// The number of an observation: one that is stored later has a larger one, and while the database is open none is used again,
/// because a batch that is on its way is acknowledged by these.
pub(super) type Seq = i64;

/// True of a row of `exported` if the span has arrived. Nothing that waits has.
pub(super) const HAS_ARRIVED: &str = "(exported.delivered = 1 OR exported.delivered = 0
    AND exported.observation <= (SELECT arrived FROM destination WHERE destination.id = exported.destination))";

/// A number for the next observation, of a database that was just opened. None is used again that arrived, because by its number it
/// would seem to have.
pub(super) fn next(db: &Connection) -> Result<Seq> {
    let sql =
        "SELECT 1 + max(coalesce((SELECT max(id) FROM observation), 0), coalesce((SELECT max(seq) FROM outbox), 0),
                              coalesce((SELECT max(arrived) FROM destination), 0))";
    db.query_row(sql, [], |row| row.get(0))
}

/// Stores an observation. Somebody must [`wait`] for it in the same transaction.
pub(super) fn insert(
    db: &Connection,
    seq: Seq,
    (trace_id, span_id): (TraceId, &[u8]),
    body: &str,
    now_ms: i64,
) -> Result<()> {
    db.prepare_cached("INSERT INTO observation (id, trace_id, span_id, body, queued_ms) VALUES (?, ?, ?, ?, ?)")?
        .execute(params![seq, trace_id, span_id, body, now_ms])
        .map(drop)
}

/// A destination waits for an observation that is stored.
pub(super) fn wait(db: &Connection, destination: DestinationId, seq: Seq, span_id: &[u8], body: &str) -> Result<()> {
    db.prepare_cached("INSERT OR IGNORE INTO outbox (destination, seq, checksum) VALUES (?, ?, ?)")?
        .execute(params![destination, seq, checksum(destination, span_id, body.as_bytes())])
        .map(drop)
}

/// The observation with this body that others wait for already.
pub(super) fn find(
    db: &Connection,
    destination: DestinationId,
    (trace, span): (TraceId, SpanId),
    body: &str,
) -> Result<Option<Seq>> {
    db.prepare_cached(
        "SELECT observation.id FROM destination
         CROSS JOIN exported ON exported.destination = destination.id
            AND exported.trace_id = ?2 AND exported.span_id = ?3
         CROSS JOIN observation ON observation.id = exported.observation
            AND observation.trace_id = ?2 AND observation.span_id = ?3
         WHERE destination.id <> ?1 AND body = ?4 LIMIT 1",
    )?
    .query_row(params![destination, trace, span, body], |row| row.get(0))
    .optional()
}

/// A destination waits no more for these observations; those that nobody else waits for are gone. Returns how many it waited for.
pub(super) fn release(db: &Connection, destination: DestinationId, range: RangeInclusive<Seq>) -> Result<usize> {
    let (first, last) = range.into_inner();
    let released = db.prepare_cached("DELETE FROM outbox WHERE destination = ? AND seq BETWEEN ? AND ?")?.execute([
        destination,
        first,
        last,
    ])?;
    if released == 0 {
        return Ok(0);
    }
    // Most users have one destination.
    let others = "SELECT EXISTS (SELECT 1 FROM outbox WHERE destination < ?1) OR EXISTS (SELECT 1 FROM outbox WHERE destination > ?1)";
    let sql = if db.prepare_cached(others)?.query_row([destination], |row| row.get(0))? {
        "DELETE FROM observation WHERE id BETWEEN ? AND ? AND NOT EXISTS
            (SELECT 1 FROM destination CROSS JOIN outbox ON outbox.destination = destination.id AND seq = observation.id)"
    } else {
        "DELETE FROM observation WHERE id BETWEEN ? AND ?"
    };
    db.prepare_cached(sql)?.execute([first, last])?;
    Ok(released)
}

/// Bytes of what a destination waits for under this number, if it does.
pub(super) fn bytes(db: &Connection, destination: DestinationId, seq: Seq) -> Result<Option<u64>> {
    db.prepare_cached(
        "SELECT coalesce(octet_length(cut), octet_length(body)) FROM outbox CROSS JOIN observation ON id = seq
         WHERE destination = ? AND seq = ?",
    )?
    .query_row([destination, seq], |row| row.get::<_, i64>(0))
    .map(|bytes| bytes as u64)
    .optional()
}
