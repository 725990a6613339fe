//! Scores that wait for a destination, and what is known of those that were sent: each has one row for ever, so that the same score
//! is not sent twice, however often its turn is read.

use rusqlite::{Connection, OptionalExtension, params};

use super::{
    DestinationId, Result, Store, advance::queue::is_emitted, bytes_of, checksum, count, observations::HAS_ARRIVED,
    suppressed,
};
use cc_core::{
    ids::{TraceId, hex},
    score::{Score, ScoreId},
};

/// The name under which scores are counted that damage has made unreadable.
const DAMAGED: &str = "score_damaged";

/// The name under which scores are counted whose server has no API for them.
const UNSUPPORTED: &str = "score_unsupported";

/// A waiting score.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreRow {
    pub score: Score,
    /// What it says: another value may take its place while it is sent.
    pub says: Vec<u8>,
    /// Since when it waits, in Unix milliseconds.
    pub queued_ms: i64,
}

/// How many scores wait, and the last error.
pub(super) fn pending(db: &Connection) -> Result<(u64, Option<String>)> {
    let waiting = "SELECT count(*) FROM score WHERE body IS NOT NULL";
    let waiting: i64 = db.query_row(waiting, [], |row| row.get(0))?;
    let error = "SELECT error FROM score WHERE body IS NOT NULL AND error IS NOT NULL ORDER BY seq DESC LIMIT 1";
    Ok((waiting as u64, db.query_row(error, [], |row| row.get(0)).optional()?))
}

/// Makes a score wait for a destination, unless that has it or waits for it already. One that says that nothing happened only
/// takes back what an earlier one said. Returns the bytes that it adds.
pub(super) fn queue(db: &Connection, destination: DestinationId, score: &Score, now_ms: i64) -> Result<u64> {
    let (body, says) = (score.body(), score.says());
    let is_known = || {
        let sql = "SELECT 1 FROM score WHERE destination = ? AND id = ?";
        db.prepare_cached(sql)?.exists(params![destination, score.id])
    };
    if score.value.is_nothing() && !score.by_person && !is_known()? {
        return Ok(0);
    }
    let changed = db
        .prepare_cached(
            "INSERT INTO score (destination, id, trace_id, says, body, checksum, queued_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (destination, id) DO UPDATE SET trace_id = ?3, says = ?4, body = ?5, checksum = ?6, queued_ms = ?7,
                tries = 0, error = NULL WHERE says <> ?4",
        )?
        .execute(params![destination, score.id, score.trace_id, says, body, checksum(0, &score.id, body.as_bytes()), now_ms])?;
    Ok(if changed > 0 { body.len() as u64 } else { 0 })
}

/// True if nothing forbids a score of a turn at this destination: it has the turn's root `span`, or waits for it.
pub(super) fn is_wanted(db: &Connection, destination: DestinationId, score: &Score, is_asked: bool) -> Result<bool> {
    let suppressed = suppressed::is_suppressed(db, &score.trace_id, is_asked)?;
    Ok(!suppressed && is_emitted(db, destination, score.trace_id, score.root)?)
}

impl Store {
    /// Makes a person's score wait for a destination that has one of these `traces`, of the first of them. False if it has none.
    ///
    /// # Errors
    /// If nothing was changed.
    pub fn give_score(
        &mut self,
        destination: DestinationId,
        traces: &[TraceId],
        make: &dyn Fn(TraceId) -> Score,
    ) -> Result<bool> {
        let tx = self.db.transaction()?;
        let mut known = None;
        for trace in traces {
            if !suppressed::is_suppressed(&tx, trace, true)? && knows(&tx, destination, trace)? {
                known = Some(*trace);
                break;
            }
        }
        let Some(trace) = known else { return Ok(false) };
        queue(&tx, destination, &make(trace), crate::clock::now_ms())?;
        tx.commit().map(|()| true)
    }

    /// The session that a trace belongs to.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn owner(&self, trace: &TraceId) -> Result<Option<String>> {
        let mut owner = self.db.prepare_cached("SELECT session_id FROM owner WHERE trace_id = ?")?;
        owner.query_row([trace], |row| row.get(0)).optional()
    }

    /// The next scores of a destination: at most `most`, the oldest of those with the fewest tries.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn next_scores(&mut self, destination: DestinationId, most: usize) -> Result<Vec<ScoreRow>> {
        let (mut found, mut broken) = (Vec::new(), Vec::new());
        {
            let mut rows = self.db.prepare_cached(
                "SELECT seq, id, says, body, checksum, queued_ms FROM score
                 WHERE destination = ? AND body IS NOT NULL ORDER BY tries, seq LIMIT ?",
            )?;
            let mut rows = rows.query(params![destination, most as i64])?;
            while let Some(row) = rows.next()? {
                let body = bytes_of(row, 3)?;
                let is_whole = row.get::<_, i64>(4)? == checksum(0, bytes_of(row, 1)?, body);
                match Score::parse(body).filter(|_| is_whole) {
                    Some(score) => found.push(ScoreRow { score, says: row.get(2)?, queued_ms: row.get(5)? }),
                    None => broken.push(row.get::<_, i64>(0)?),
                }
            }
        }
        if !broken.is_empty() {
            let tx = self.db.transaction()?;
            for seq in &broken {
                tx.execute("DELETE FROM score WHERE seq = ?", [seq])?;
            }
            count(&tx, DAMAGED, broken.len() as u64)?;
            tx.commit()?;
        }
        Ok(found)
    }

    /// True if something of this trace waits to be sent to a destination.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn does_trace_wait(&self, destination: DestinationId, trace: &TraceId) -> Result<bool> {
        let sql = "SELECT 1 FROM exported WHERE destination = ?1 AND trace_id = ?2
                   AND EXISTS (SELECT 1 FROM outbox WHERE outbox.destination = ?1 AND seq = exported.observation)";
        self.db.prepare_cached(sql)?.exists(params![destination, trace])
    }

    /// The server has these, as they were sent: a score that changed meanwhile still waits.
    ///
    /// # Errors
    /// If nothing was changed.
    pub fn scores_taken(&mut self, destination: DestinationId, rows: &[&ScoreRow]) -> Result<()> {
        let tx = self.db.transaction()?;
        rows.iter().try_for_each(|row| settle(&tx, destination, row).map(drop))?;
        tx.commit()
    }

    /// Makes a score a dead letter: the server will not accept it as it is.
    ///
    /// # Errors
    /// If nothing was changed.
    pub fn bury_score(&mut self, destination: DestinationId, row: &ScoreRow, why: &str, now_ms: i64) -> Result<()> {
        let tx = self.db.transaction()?;
        if settle(&tx, destination, row)? {
            tx.execute(
                "INSERT INTO dead_letter (destination, span_id, reason, body, at_ms) VALUES (?, ?, ?, ?, ?)",
                params![destination, hex(&row.score.id), why, row.score.body(), now_ms],
            )?;
        }
        tx.commit()
    }

    /// Records a failed try: others come first.
    ///
    /// # Errors
    /// If nothing was changed.
    pub fn scores_postponed(&mut self, destination: DestinationId, rows: &[ScoreRow], error: &str) -> Result<()> {
        let tx = self.db.transaction()?;
        for row in rows {
            tx.prepare_cached("UPDATE score SET tries = tries + 1, error = ? WHERE destination = ? AND id = ?")?
                .execute(params![error, destination, row.score.id])?;
        }
        tx.commit()
    }

    /// Drops and counts what waits for a destination whose server has no API for scores.
    ///
    /// # Errors
    /// If nothing was changed.
    pub fn scores_unsupported(&mut self, destination: DestinationId) -> Result<()> {
        let tx = self.db.transaction()?;
        let dropped = drop_waiting(&tx, destination)?;
        if dropped > 0 {
            count(&tx, UNSUPPORTED, dropped)?;
        }
        tx.commit()
    }
}

/// True if a destination has a span of this trace, or waits for one.
fn knows(db: &Connection, destination: DestinationId, trace: &TraceId) -> Result<bool> {
    let sql = format!(
        "SELECT 1 FROM exported WHERE destination = ?1 AND trace_id = ?2
         AND ({HAS_ARRIVED} OR EXISTS (SELECT 1 FROM outbox WHERE outbox.destination = ?1 AND seq = exported.observation))"
    );
    db.prepare_cached(&sql)?.exists(params![destination, trace])
}

/// Removes what waits for a destination. Returns how many scores.
pub(super) fn drop_waiting(db: &Connection, destination: DestinationId) -> Result<u64> {
    let dropped = db.execute("DELETE FROM score WHERE destination = ? AND body IS NOT NULL", [destination])?;
    Ok(dropped as u64)
}

/// Hands what waits for `from` to `to`, which keeps what it has.
pub(super) fn hand_over(db: &Connection, from: DestinationId, to: DestinationId) -> Result<()> {
    db.execute(
        "INSERT OR IGNORE INTO score (destination, id, trace_id, says, body, checksum, queued_ms)
         SELECT ?2, id, trace_id, says, body, checksum, queued_ms FROM score
         WHERE destination = ?1 AND body IS NOT NULL ORDER BY seq",
        [from, to],
    )?;
    drop_waiting(db, from).map(drop)
}

/// Makes a dead letter wait again. False if it is no score.
pub(super) fn retry(db: &Connection, destination: DestinationId, body: &str, now_ms: i64) -> Result<bool> {
    let Some(score) = Score::parse(body.as_bytes()) else { return Ok(false) };
    // What was said of it later counts.
    db.execute(
        "INSERT INTO score (destination, id, trace_id, says, body, checksum, queued_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (destination, id) DO UPDATE SET body = ?5, checksum = ?6, queued_ms = ?7, tries = 0 WHERE says = ?4",
        params![
            destination,
            score.id,
            score.trace_id,
            score.says(),
            body,
            checksum(0, &score.id, body.as_bytes()),
            now_ms
        ],
    )?;
    Ok(true)
}

/// A score no longer waits. False if it says something else by now, or is gone.
fn settle(db: &Connection, destination: DestinationId, row: &ScoreRow) -> Result<bool> {
    let id: &ScoreId = &row.score.id;
    let sql = "UPDATE score SET body = NULL, checksum = NULL, error = NULL
               WHERE destination = ? AND id = ? AND says = ? AND body IS NOT NULL";
    Ok(db.prepare_cached(sql)?.execute(params![destination, id, row.says])? > 0)
}
