//! Which session owns the turn of a prompt: the first one that claims it.
//!
//! Nothing of a turn is emitted before its session has claimed it, and emitted spans are stored with a step. So a claim
//! is stored with the next step of any session, because a transaction of its own would be expensive. A claim that is
//! lost with the process is made again.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::{Result, Store};
use cc_core::ids::TraceId;

/// How many claims may wait for a step.
const MAX_WAITING: usize = 256;

/// Claims that wait for the next step.
#[derive(Debug, Default)]
pub(super) struct Claims(HashMap<TraceId, String>);

impl Claims {
    /// Writes the waiting claims. They are kept until the transaction is committed.
    pub(super) fn write(&self, db: &Connection) -> Result<()> {
        let mut insert = db.prepare_cached("INSERT OR IGNORE INTO owner (trace_id, session_id) VALUES (?, ?)")?;
        self.0.iter().try_for_each(|(trace, session_id)| insert.execute(params![trace, session_id]).map(drop))
    }

    /// The written claims are committed.
    pub(super) fn are_stored(&mut self) {
        self.0.clear();
    }
}

impl Store {
    /// Claims the turn of a trace for a session. False if another session has claimed it before.
    ///
    /// # Errors
    /// If the database cannot be read or written.
    pub fn claim_turn(&mut self, trace: &TraceId, session_id: &str) -> Result<bool> {
        if let Some(owner) = self.claims.0.get(trace) {
            return Ok(owner == session_id);
        }
        let is_own = self
            .db
            .prepare_cached("SELECT session_id = ? FROM owner WHERE trace_id = ?")?
            .query_row(params![session_id, trace], |row| row.get(0))
            .optional()?;
        if let Some(is_own) = is_own {
            return Ok(is_own);
        }
        if self.claims.0.len() >= MAX_WAITING {
            let tx = self.db.unchecked_transaction()?;
            self.claims.write(&tx)?;
            tx.commit()?;
            self.claims.are_stored();
        }
        self.claims.0.insert(*trace, session_id.to_owned());
        Ok(true)
    }
}
