//! What the user wants gone.

use rusqlite::params;

use super::{Result, Store, paused::silence};
use cc_core::ids::{TraceId, hex};

impl Store {
    /// Removes what waits of these traces, the title of their session, and what no server took of them. Nothing of them is told
    /// from now on. Returns how many spans were waiting.
    ///
    /// # Errors
    /// If nothing was changed.
    pub fn forget(&mut self, session_id: &str, traces: &[TraceId]) -> Result<usize> {
        let tx = self.db.transaction()?;
        let mut waiting = 0;
        for trace in traces {
            silence(&tx, trace)?;
            // By the key, which begins with the destination: all of `exported` is much.
            waiting += tx
                .prepare_cached(
                    "DELETE FROM outbox WHERE (destination, span_id) IN
                        (SELECT id, span_id FROM destination CROSS JOIN exported ON destination = id WHERE trace_id = ?)",
                )?
                .execute([trace])?;
            // A body of either form names its own trace so, and one that it links to otherwise.
            tx.prepare_cached("DELETE FROM dead_letter WHERE instr(body, ?)")?
                .execute([format!("\"trace_id\":\"{}\"", hex(trace))])?;
            tx.prepare_cached("DELETE FROM media_link WHERE trace_id = ?")?.execute([trace])?;
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
