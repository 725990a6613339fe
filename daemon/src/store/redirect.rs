//! Moves the waiting spans of an unusable destination to another one, or drops them.

use rusqlite::{Transaction, params};

use super::{
    DestinationId, Result, Store, bytes_of, checksum, count,
    observations::{HAS_ARRIVED, release},
    outbox::{SELECT, did_not_arrive, read_row},
    scores,
};
use cc_core::{
    delivery::item::{Item, Parser},
    destination::{Destination, MediaAs},
    status::Redirected,
};

/// How many spans are moved in one transaction, so that others can use the database in between.
const SPANS_PER_TRANSACTION: i64 = 500;

impl Store {
    /// The row of a destination, if there is one.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn destination_id(&mut self, destination: &Destination) -> Result<Option<DestinationId>> {
        self.row_of(destination)
    }

    /// Records at `to` the model calls whose spans wait for `from`, so that no copy of them is emitted there. Must run
    /// before [`Self::move_spans`].
    ///
    /// # Errors
    /// If nothing was changed.
    pub fn move_calls(&mut self, from: DestinationId, to: DestinationId) -> Result<()> {
        let sql = format!(
            "INSERT OR IGNORE INTO call (destination, id, trace)
             SELECT ?2, id, trace FROM call WHERE destination = ?1 AND trace IN
                (SELECT substr(trace_id, 1, 4) FROM exported WHERE destination = ?1 AND NOT coalesce({HAS_ARRIVED}, 0))"
        );
        self.db.execute(&sql, [from, to]).map(drop)
    }

    /// Moves some of the spans that wait for `from` to `to`, the oldest first, and adds the result to `sum`. A span
    /// that `to` was sent before is removed and not sent again; a span in a form that only `from` accepts stays.
    /// `after` is the last row examined; returns `None` when there are no more.
    ///
    /// # Errors
    /// If nothing was changed.
    pub fn move_spans(
        &mut self,
        from: DestinationId,
        (to, is_same_kind): (DestinationId, bool),
        after: i64,
        sum: &mut Redirected,
    ) -> Result<Option<i64>> {
        let tx = self.db.transaction()?;
        let rows: Vec<i64> = tx
            .prepare_cached("SELECT seq FROM outbox WHERE destination = ? AND seq > ? ORDER BY seq LIMIT ?")?
            .query_map([from, after, SPANS_PER_TRANSACTION], |row| row.get(0))?
            .collect::<Result<_>>()?;
        let (mut found, mut broken, mut parser) = (Redirected::default(), Vec::new(), Parser::default());
        for seq in &rows {
            let (row, sum) = tx.prepare_cached(&format!("{SELECT} AND seq = ?"))?.query_row([from, *seq], |row| {
                // Of the stored bytes: this version may encode the same differently.
                Ok((read_row(row, &mut parser)?, checksum(to, bytes_of(row, 2)?, bytes_of(row, 3)?)))
            })?;
            match row.map(|row| row.item) {
                Err(why) => broken.push((*seq, why)),
                Ok(Item::Span(_)) if !is_same_kind => found.left += 1,
                Ok(item) if move_span(&tx, (from, to), *seq, &item, sum)? => found.spans += 1,
                Ok(_) => found.known += 1,
            }
        }
        tx.commit()?;
        for (seq, why) in broken {
            self.bury(from, seq, why, 0)?;
        }
        sum.spans += found.spans;
        sum.known += found.known;
        sum.left += found.left;
        Ok(rows.last().copied())
    }

    /// The last step: moves images and documents, and scores if the flag says that `to` takes them; sessions that `from` is behind are no
    /// longer read for it.
    ///
    /// # Errors
    /// If nothing was changed.
    pub fn move_rest(
        &mut self,
        from: DestinationId,
        to: (DestinationId, MediaAs, bool),
        sum: &mut Redirected,
    ) -> Result<()> {
        let tx = self.db.transaction()?;
        if to.2 {
            scores::hand_over(&tx, from, to.0)?;
        }
        if to.1 == MediaAs::Upload {
            tx.execute(
                "INSERT OR IGNORE INTO media (destination, hash, kind, length, bytes)
                 SELECT ?2, hash, kind, length, bytes FROM media WHERE destination = ?1",
                [from, to.0],
            )?;
            // New rows, because one in flight may still be acknowledged.
            let moved = tx.execute(
                "INSERT OR IGNORE INTO media_link (destination, hash, trace_id, span_id, field, queued_ms)
                 SELECT ?2, hash, trace_id, span_id, field, queued_ms FROM media_link WHERE destination = ?1 ORDER BY seq",
                [from, to.0],
            )?;
            sum.media += moved as u64;
            tx.execute("DELETE FROM media_link WHERE destination = ?", [from])?;
        }
        clear(&tx, from, sum)?;
        tx.commit()?;
        self.measure()
    }

    /// Drops and counts what waits for a destination. Dead letters stay: they have their own command.
    ///
    /// # Errors
    /// If nothing was changed.
    pub fn drop_waiting(&mut self, destination: DestinationId) -> Result<Redirected> {
        let mut sum = Redirected::default();
        let tx = self.db.transaction()?;
        tx.prepare_cached(
            "UPDATE exported SET delivered = -1 WHERE destination = ?1 AND delivered = 0
             AND observation IN (SELECT seq FROM outbox WHERE destination = ?1)",
        )?
        .execute([destination])?;
        sum.spans = release(&tx, destination, i64::MIN..=i64::MAX)? as u64;
        dropped(&tx, "dropped_spans", sum.spans)?;
        sum.media = clear(&tx, destination, &mut sum)?;
        tx.commit()?;
        self.measure()?;
        Ok(sum)
    }
}

/// True if `to` was never sent this span, so that it waits there now.
fn move_span(
    tx: &Transaction<'_>,
    (from, to): (DestinationId, DestinationId),
    seq: i64,
    item: &Item,
    checksum: i64,
) -> Result<bool> {
    let (trace, span) = (item.trace_id(), item.span_id());
    let is_new = tx
        .prepare_cached(
            "INSERT OR IGNORE INTO exported (destination, trace_id, span_id, delivered, fingerprint, observation)
             VALUES (?2, ?3, ?4, (SELECT -(arrived >= ?5) FROM destination WHERE id = ?2), (SELECT fingerprint FROM exported WHERE destination = ?1 AND trace_id = ?3 AND span_id = ?4), ?5)",
        )?
        .execute(params![from, to, trace, span, seq])?
        > 0;
    if is_new {
        tx.prepare_cached(
            "INSERT OR IGNORE INTO outbox (destination, seq, checksum, cut)
             SELECT ?2, seq, ?4, cut FROM outbox WHERE destination = ?1 AND seq = ?3",
        )?
        .execute(params![from, to, seq, checksum])?;
    }
    did_not_arrive(tx, from, seq)?;
    // A span in flight is acknowledged by its destination and number.
    release(tx, from, seq..=seq)?;
    Ok(is_new)
}

fn dropped(tx: &Transaction<'_>, name: &str, number: u64) -> Result<()> {
    if number > 0 { count(tx, name, number) } else { Ok(()) }
}

/// Removes all remaining work and errors of a destination, and counts what is lost; returns how many images
/// and documents.
fn clear(tx: &Transaction<'_>, destination: DestinationId, sum: &mut Redirected) -> Result<u64> {
    let media = tx.execute("DELETE FROM media_link WHERE destination = ?", [destination])? as u64;
    dropped(tx, "dropped_media", media)?;
    tx.execute("DELETE FROM media WHERE destination = ?", [destination])?;
    dropped(tx, "dropped_scores", scores::drop_waiting(tx, destination)?)?;
    sum.behind += tx.execute("DELETE FROM follower WHERE destination = ?", [destination])? as u64;
    tx.execute(
        "UPDATE destination SET state = 'ok', next_at_ms = 0, last_error = NULL, last_error_ms = NULL
         WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM outbox WHERE destination = ?1)",
        [destination],
    )?;
    Ok(media)
}
