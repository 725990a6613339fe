//! Forgetting traces.

use rusqlite::params;

use super::{
    DestinationId, Result, Store, hidden,
    observations::{Seq, release},
    outbox::did_not_arrive,
    suppressed::suppress,
};
use cc_core::ids::{TraceId, hex};

impl Store {
    /// Removes the waiting spans of these traces, the title of their session, their dead letters and calls without a line, and suppresses
    /// the traces from now on. Returns how many spans were waiting.
    ///
    /// # Errors
    /// If nothing was changed.
    pub fn forget(&mut self, session_id: &str, traces: &[TraceId]) -> Result<usize> {
        let tx = self.db.transaction()?;
        let mut waiting = 0;
        for trace in traces {
            suppress(&tx, trace)?;
            // By key, which begins with the destination: scanning all of `exported` would be slow.
            let rows: Vec<(DestinationId, Seq)> = tx
                .prepare_cached(
                    "SELECT outbox.destination, seq FROM destination CROSS JOIN exported ON exported.destination = destination.id
                     CROSS JOIN outbox ON outbox.destination = destination.id AND seq = exported.observation
                     CROSS JOIN observation ON observation.id = seq
                        AND observation.trace_id = exported.trace_id AND observation.span_id = exported.span_id
                     WHERE exported.trace_id = ?",
                )?
                .query_map([trace], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<Result<_>>()?;
            for (destination, seq) in rows {
                did_not_arrive(&tx, destination, seq)?;
                waiting += release(&tx, destination, seq..=seq)?;
            }
            // Both forms of a body name their own trace like this, and linked traces differently.
            tx.prepare_cached("DELETE FROM dead_letter WHERE instr(body, ?)")?
                .execute([format!("\"trace_id\":\"{}\"", hex(trace))])?;
            tx.prepare_cached("DELETE FROM media_link WHERE trace_id = ?")?.execute([trace])?;
            tx.prepare_cached("DELETE FROM score WHERE trace_id = ?")?.execute([trace])?;
            hidden::forget(&tx, session_id, trace)?;
        }
        tx.execute(
            "DELETE FROM media WHERE (destination, hash) NOT IN (SELECT destination, hash FROM media_link)",
            [],
        )?;
        tx.execute("DELETE FROM turn WHERE session_id = ?", params![session_id])?;
        tx.execute("UPDATE session SET title = NULL WHERE session_id = ?", params![session_id])?;
        tx.commit()?;
        self.measure()?;
        Ok(waiting)
    }
}
