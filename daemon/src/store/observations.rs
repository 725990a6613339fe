//! Waiting observations: stored once for all destinations that wait for them, and removed with the last.

use std::ops::RangeInclusive;

use rusqlite::{Connection, OptionalExtension, params};

use super::{DestinationId, Result, checksum};
use cc_core::ids::{SpanId, TraceId};

/// The number of an observation. Later ones have larger numbers, and while the database is open no number is used
/// again, because batches in flight are acknowledged by these.
pub(super) type Seq = i64;

/// True for a row of `exported` if the span has arrived. A waiting span has not.
pub(super) const HAS_ARRIVED: &str = "(exported.delivered = 1 OR exported.delivered = 0
    AND exported.observation <= (SELECT arrived FROM destination WHERE destination.id = exported.destination))";

/// The number of the next observation in a newly opened database. Numbers of delivered observations are not used again,
/// because the new one would count as delivered.
pub(super) fn next(db: &Connection) -> Result<Seq> {
    let sql =
        "SELECT 1 + max(coalesce((SELECT max(id) FROM observation), 0), coalesce((SELECT max(seq) FROM outbox), 0),
                              coalesce((SELECT max(arrived) FROM destination), 0))";
    db.query_row(sql, [], |row| row.get(0))
}

/// Stores an observation. A destination must [`wait`] for it in the same transaction.
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

/// Makes a destination wait for a stored observation.
pub(super) fn wait(db: &Connection, destination: DestinationId, seq: Seq, span_id: &[u8], body: &str) -> Result<()> {
    db.prepare_cached("INSERT OR IGNORE INTO outbox (destination, seq, checksum) VALUES (?, ?, ?)")?
        .execute(params![destination, seq, checksum(destination, span_id, body.as_bytes())])
        .map(drop)
}

/// The observation with this body for which others already wait.
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

/// Makes a destination wait no longer for these observations, and removes those for which no other waits. Returns how
/// many it waited for.
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

/// The bytes of the observation with this number, if the destination waits for it.
pub(super) fn bytes(db: &Connection, destination: DestinationId, seq: Seq) -> Result<Option<u64>> {
    db.prepare_cached(
        "SELECT coalesce(octet_length(cut), octet_length(body)) FROM outbox CROSS JOIN observation ON id = seq
         WHERE destination = ? AND seq = ?",
    )?
    .query_row([destination, seq], |row| row.get::<_, i64>(0))
    .map(|bytes| bytes as u64)
    .optional()
}
