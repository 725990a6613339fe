//! What is known without reading a transcript: spans sent before, and sessions whose beginning another tool has sent.

use rusqlite::{OptionalExtension, params};

use super::{Result, Store, destinations::find, sessions::found_elsewhere, suppressed::is_suppressed};
use cc_core::{destination::Destination, ids::SpanKey, import_state::Imported, status::history::Found};

impl Store {
    /// The state of each of `spans` at a destination.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn known(&self, destination: &Destination, spans: &[SpanKey]) -> Result<Vec<Found>> {
        // An unknown destination has no row.
        let id = find(&self.db, destination)?;
        let mut sent =
            self.db.prepare_cached("SELECT 1 FROM exported WHERE destination = ? AND trace_id = ? AND span_id = ?")?;
        let mut of = |(trace, span, call): &SpanKey| {
            if sent.exists(params![id, trace, span])? {
                return Ok(Found::Sent);
            }
            // Only history asks this.
            if is_suppressed(&self.db, trace, true)? {
                return Ok(Found::Suppressed);
            }
            let Some(call) = call else { return Ok(Found::Unknown) };
            let Some(id) = id else { return Ok(Found::Unknown) };
            Ok(if found_elsewhere(&self.db, id, call, *trace)? { Found::Copy } else { Found::Unknown })
        };
        spans.iter().map(&mut of).collect()
    }

    /// Those of `events` that are still pending.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn waiting_events(&self, events: &[String]) -> Result<Vec<String>> {
        let mut waits = self.db.prepare_cached("SELECT 1 FROM inbox WHERE id = ?")?;
        let mut waiting = Vec::new();
        for id in events {
            if waits.exists([id])? {
                waiting.push(id.clone());
            }
        }
        Ok(waiting)
    }

    /// Stores how much of sessions another tool has sent. A session that was read already is not changed. Returns how
    /// many were imported.
    ///
    /// # Errors
    /// If nothing was changed.
    pub fn import(&mut self, sessions: &[Imported]) -> Result<usize> {
        let tx = self.db.transaction()?;
        let mut taken = 0;
        for session in sessions {
            taken += tx
                .prepare_cached(
                    "INSERT OR REPLACE INTO imported SELECT ?1, ?2, ?3
                     WHERE NOT EXISTS (SELECT 1 FROM session WHERE session_id = ?1)",
                )?
                .execute(params![session.session_id, session.last_line as i64, session.turn_count])?;
        }
        tx.commit()?;
        Ok(taken)
    }

    /// True if this database has never looked for another tool's state.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn seeks_import(&self) -> Result<bool> {
        Ok(!self.db.prepare_cached("SELECT 1 FROM import_sought")?.exists([])?)
    }

    /// Records that the state was looked for, and [`import`](Self::import)ed if it was there.
    ///
    /// # Errors
    /// If nothing was changed.
    pub fn import_was_sought(&mut self, now_ms: i64) -> Result<()> {
        self.db.execute("INSERT INTO import_sought VALUES (?)", [now_ms]).map(drop)
    }

    /// How much of a session another tool has sent.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn imported(&self, session_id: &str) -> Result<Option<Imported>> {
        self.db
            .prepare_cached("SELECT session_id, last_line, turn_count FROM imported WHERE session_id = ?")?
            .query_row([session_id], imported)
            .optional()
    }

    /// The same for every session.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn all_imported(&self) -> Result<Vec<Imported>> {
        self.db
            .prepare_cached("SELECT session_id, last_line, turn_count FROM imported")?
            .query_map([], imported)?
            .collect()
    }

    /// Forgets which subagents of a session were fully emitted: it is to be read from its start.
    ///
    /// # Errors
    /// If nothing was changed.
    pub fn forget_agents(&mut self, session_id: &str) -> Result<()> {
        self.db.execute("DELETE FROM agent WHERE session_id = ?", [session_id]).map(drop)
    }
}

fn imported(row: &rusqlite::Row<'_>) -> Result<Imported> {
    Ok(Imported { session_id: row.get(0)?, last_line: row.get::<_, i64>(1)? as u64, turn_count: row.get(2)? })
}
