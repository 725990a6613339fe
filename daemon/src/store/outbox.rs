//! Waiting spans, and those that no server accepts.

use rusqlite::{Connection, OptionalExtension, params};

use super::{
    DestinationId, Result, Store,
    advance::queue::note,
    bytes_of, checksum, is_whole,
    observations::{self, Seq},
    scores,
};
use cc_core::{
    delivery::item::{Item, Parser},
    destination::Destination,
    status::Fate,
};

/// The waiting rows of a destination, in the columns that [`read_row`] expects.
pub(super) const SELECT: &str = "SELECT seq, destination, span_id, coalesce(cut, body), checksum
    FROM outbox CROSS JOIN observation ON id = seq WHERE destination = ?";

/// An outbox row.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its position in the queue.
    pub seq: i64,
    pub item: Item,
    /// The size of its body in bytes.
    pub bytes: usize,
}

/// A span that no server accepts.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    /// Used to retry or drop it.
    pub id: i64,
    /// Its destination.
    pub base_url: String,
    /// In hex.
    pub span_id: String,
    /// The server's answer.
    pub reason: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// When it became one, in Unix milliseconds.
    pub at_ms: i64,
}

/// The reason for a span that was damaged.
const DAMAGED: &str = "damaged in the database";

/// The reason for an intact one in a form that this version does not know.
const LATER: &str = "written by a later version, which can send it: install that and retry";

/// A row of `seq, destination, span_id, body, checksum`, or why it cannot be read.
pub(super) fn read_row(row: &rusqlite::Row, parser: &mut Parser) -> Result<std::result::Result<Row, &'static str>> {
    let (seq, body) = (row.get(0)?, bytes_of(row, 3)?);
    if !is_whole(row)? {
        return Ok(Err(DAMAGED));
    }
    // Version 1 of the tables had no checksums.
    let is_known_whole = row.get::<_, Option<i64>>(4)?.is_some();
    let why = if is_known_whole { LATER } else { DAMAGED };
    Ok(parser.parse(body).map(|item| Row { seq, item, bytes: body.len() }).map_err(|_| why))
}

impl Store {
    /// The oldest waiting spans of a destination: at most `rows`, and at most `bytes` unless the first alone is larger.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn claim(&mut self, destination: DestinationId, rows: usize, bytes: usize) -> Result<Vec<Row>> {
        let (mut batch, mut broken, mut parser) = (Vec::new(), Vec::new(), Parser::default());
        let mut total = 0;
        {
            let mut statement = self.db.prepare_cached(&format!("{SELECT} ORDER BY seq LIMIT ?"))?;
            let mut found = statement.query(params![destination, rows as i64])?;
            while let Some(row) = found.next()? {
                let body = bytes_of(row, 3)?;
                total += body.len();
                if total > bytes && !batch.is_empty() {
                    break;
                }
                match read_row(row, &mut parser)? {
                    Ok(row) => batch.push(row),
                    Err(why) => broken.push((row.get(0)?, why)),
                }
            }
        }
        for (seq, why) in broken {
            tracing::warn!(why, "a span that waits cannot be read; see `cc-langfusectl dead-letters`");
            self.bury(destination, seq, why, crate::clock::now_ms())?;
        }
        Ok(batch)
    }

    /// The oldest waiting span of a destination with a body of fewer than `bytes`.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn claim_smaller(&mut self, destination: DestinationId, bytes: usize) -> Result<Option<Row>> {
        let seq: Option<i64> = self
            .db
            .prepare_cached(
                "SELECT seq FROM outbox CROSS JOIN observation ON id = seq
                 WHERE destination = ? AND coalesce(octet_length(cut), octet_length(body)) < ? ORDER BY seq LIMIT 1",
            )?
            .query_row(params![destination, i64::try_from(bytes).unwrap_or(i64::MAX)], |row| row.get(0))
            .optional()?;
        let Some(seq) = seq else { return Ok(None) };
        let mut statement = self.db.prepare_cached(&format!("{SELECT} AND seq = ?"))?;
        let found = statement.query_row([destination, seq], |row| read_row(row, &mut Parser::default()))?;
        drop(statement);
        match found {
            Ok(row) => Ok(Some(row)),
            Err(why) => self.bury(destination, seq, why, crate::clock::now_ms()).map(|()| None),
        }
    }

    /// Acknowledges these rows; the server said that it did not keep `rejected` of their spans.
    ///
    /// # Errors
    /// If nothing was changed.
    pub fn delivered(&mut self, destination: DestinationId, rows: &[Row], rejected: u64, now_ms: i64) -> Result<()> {
        let tx = self.db.transaction()?;
        let left = acknowledge(&tx, destination, rows)?;
        // Older versions accepted every number.
        tx.prepare_cached(
            "UPDATE destination SET state = 'ok', next_at_ms = 0, last_success_ms = ?, delivered = delivered + ?,
                rejected = min(rejected, delivered) + ? WHERE id = ?",
        )?
        .execute(params![now_ms, rows.len() as i64, rejected.min(rows.len() as u64) as i64, destination])?;
        tx.commit()?;
        self.leaves(destination, left);
        Ok(())
    }

    /// Makes a span a dead letter: no server will accept it as it is.
    ///
    /// # Errors
    /// If nothing was changed.
    pub fn bury(&mut self, destination: DestinationId, seq: i64, reason: &str, now_ms: i64) -> Result<()> {
        let tx = self.db.transaction()?;
        let bytes = observations::bytes(&tx, destination, seq)?.unwrap_or(0);
        tx.execute(
            "INSERT INTO dead_letter (destination, span_id, reason, body, at_ms)
             SELECT destination, lower(hex(span_id)), ?3, coalesce(cut, body), ?4
             FROM outbox CROSS JOIN observation ON id = seq WHERE destination = ?1 AND seq = ?2",
            params![destination, seq, reason, now_ms],
        )?;
        did_not_arrive(&tx, destination, seq)?;
        observations::release(&tx, destination, seq..=seq)?;
        tx.commit()?;
        self.leaves(destination, bytes);
        Ok(())
    }

    /// Replaces a span that is too large for its server by a smaller one; other destinations get it unchanged.
    ///
    /// # Errors
    /// If nothing was changed.
    pub fn replace(&mut self, destination: DestinationId, row: &Row) -> Result<()> {
        let body = row.item.body();
        let waits = self.db.execute(
            "UPDATE outbox SET cut = ?, checksum = ? WHERE destination = ? AND seq = ?",
            params![body, checksum(destination, &row.item.span_id(), body.as_bytes()), destination, row.seq],
        )?;
        if waits > 0 {
            self.leaves(destination, (row.bytes as u64).saturating_sub(body.len() as u64));
        }
        Ok(())
    }

    fn leaves(&mut self, destination: DestinationId, bytes: u64) {
        let waiting = self.waiting.entry(destination).or_default();
        *waiting = waiting.saturating_sub(bytes);
    }

    /// How many spans no server accepts.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn dead_letter_count(&self) -> Result<u64> {
        let count =
            self.db.prepare_cached("SELECT count(*) FROM dead_letter")?.query_row([], |row| row.get::<_, i64>(0));
        count.map(|count| count as u64)
    }

    /// The spans that no server accepts, oldest first.
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

    /// Retries or drops a dead letter, or all. Returns the destinations that now have something to send, and how
    /// many there were.
    ///
    /// # Errors
    /// If nothing was changed.
    pub fn settle_dead_letters(
        &mut self,
        id: Option<i64>,
        fate: Fate,
        now_ms: i64,
    ) -> Result<(Vec<(DestinationId, Destination)>, usize)> {
        let mut next = self.next;
        let tx = self.db.transaction()?;
        if fate == Fate::Retry {
            let mut letters =
                tx.prepare("SELECT destination, unhex(span_id), body FROM dead_letter WHERE ?1 IS NULL OR id = ?1")?;
            let mut letters = letters.query([id])?;
            while let Some(row) = letters.next()? {
                let (to, span_id, body): (i64, Vec<u8>, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
                if scores::retry(&tx, to, &body, now_ms)? {
                    continue;
                }
                // The trace of an unreadable span is unknown.
                let known = Item::parse(body.as_bytes()).map(|item| (item.trace_id(), item.span_id())).ok();
                let (trace_id, _) = known.unwrap_or_default();
                observations::insert(&tx, next, (trace_id, &span_id), &body, now_ms)?;
                observations::wait(&tx, to, next, &span_id, &body)?;
                if let Some(span) = known {
                    note(&tx, to, span, next)?;
                }
                next += 1;
            }
        }
        let settled = tx.execute("DELETE FROM dead_letter WHERE ?1 IS NULL OR id = ?1", [id])?;
        tx.commit()?;
        self.next = next;
        self.measure()?;
        let waiting = self.destinations()?.into_iter().filter(|row| row.waiting + row.scores > 0);
        Ok((waiting.map(|row| (row.id, row.destination)).collect(), settled))
    }
}

/// Removes rows that arrived from the outbox. Returns their bytes.
fn acknowledge(db: &Connection, destination: DestinationId, rows: &[Row]) -> Result<u64> {
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(0) };
    let waiting: Vec<Seq> = db
        .prepare_cached("SELECT seq FROM outbox WHERE destination = ? AND seq BETWEEN ? AND ? ORDER BY seq")?
        .query_map([destination, first.seq, last.seq], |row| row.get(0))?
        .collect::<Result<_>>()?;
    // A root that has grown meanwhile is queued again, and was not delivered.
    let arrived = || rows.iter().filter(|row| waiting.binary_search(&row.seq).is_ok());
    let bytes = arrived().map(|row| row.bytes as u64).sum();
    let is_all = arrived().count() == waiting.len();
    // For the oldest spans one number per destination is enough: a row for each span would be an additional write.
    let sql = "UPDATE destination SET arrived = ?3 WHERE id = ?1 AND arrived < ?2
               AND NOT EXISTS (SELECT 1 FROM outbox WHERE destination = ?1 AND seq < ?2)";
    let is_noted = is_all && db.prepare_cached(sql)?.execute([destination, first.seq, last.seq])? > 0;
    if is_all {
        observations::release(db, destination, first.seq..=last.seq)?;
    } else {
        arrived().try_for_each(|row| observations::release(db, destination, row.seq..=row.seq).map(drop))?;
    }
    if !is_noted {
        let sql = "UPDATE exported SET delivered = 1 WHERE destination = ? AND trace_id = ? AND span_id = ?";
        let mut deliver = db.prepare_cached(sql)?;
        for row in arrived() {
            deliver.execute(params![destination, row.item.trace_id(), row.item.span_id()])?;
        }
    }
    Ok(bytes)
}

/// Records that an observation that leaves the outbox has not arrived at this destination.
pub(super) fn did_not_arrive(db: &Connection, destination: DestinationId, seq: Seq) -> Result<()> {
    db.prepare_cached(
        "UPDATE exported SET delivered = -1 WHERE destination = ?1
         AND trace_id = (SELECT trace_id FROM observation WHERE id = ?2)
         AND span_id = (SELECT span_id FROM observation WHERE id = ?2)",
    )?
    .execute([destination, seq])
    .map(drop)
}
