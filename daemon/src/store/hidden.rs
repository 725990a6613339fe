//! Calls without a line that Claude Code's telemetry named: a bounded table of their numbers, so that a restart does not lose them and the
//! balance of a session is the same without the daemon.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags, params};

use super::{Error, Result, Store, advance::Advance, count, json, suppressed};
use cc_core::{ids::TraceId, status::HiddenCalls, telemetry::Call};

/// How many calls are kept; the oldest make room. A row has about 300 bytes.
const MOST: i64 = 20_000;

/// The name under which calls are counted that made room.
const EVICTED: &str = "hidden_call_evicted";

/// How long a reader waits for a daemon that is just starting.
const WAIT: Duration = Duration::from_millis(500);

/// A call, and the trace that has it.
pub type Hidden = (TraceId, Call);

/// Stores the calls of a step, except those of forgotten traces.
pub(super) fn put(tx: &Connection, step: &Advance, is_paused: bool) -> Result<()> {
    let sql = "INSERT OR IGNORE INTO hidden_call (session_id, request_id, trace_id, call) VALUES (?, ?, ?, ?)";
    for (trace, call) in &step.hidden {
        // What a pause leaves out stays on this machine, where the commands count it like its other calls.
        if is_paused || !suppressed::is_suppressed(tx, trace, true)? {
            let values = params![step.session.session_id, call.request_id, trace, json(call)];
            tx.prepare_cached(sql)?.execute(values)?;
        }
    }
    if !step.hidden.is_empty() {
        let sql = "DELETE FROM hidden_call WHERE id <= (SELECT max(id) FROM hidden_call) - ?";
        let evicted = tx.prepare_cached(sql)?.execute([MOST])?;
        if evicted > 0 {
            count(tx, EVICTED, evicted as u64)?;
        }
    }
    Ok(())
}

/// Removes those of a trace of a session.
pub(super) fn forget(tx: &Connection, session_id: &str, trace: &TraceId) -> Result<()> {
    let sql = "DELETE FROM hidden_call WHERE session_id = ? AND trace_id = ?";
    tx.prepare_cached(sql)?.execute(params![session_id, trace]).map(drop)
}

/// Those of one session, or all, with the stamp of the table.
fn all(db: &Connection, session_id: Option<&str>, unless: &str) -> Result<HiddenCalls> {
    let stamp = "SELECT coalesce(max(id), 0) || '-' || count(*) FROM hidden_call";
    let stamp: String = db.query_row(stamp, [], |row| row.get(0))?;
    if stamp == unless {
        return Ok(HiddenCalls { stamp, calls: None });
    }
    let sql = "SELECT call FROM hidden_call WHERE ?1 IS NULL OR session_id = ?1 ORDER BY id";
    let mut rows = db.prepare_cached(sql)?;
    let rows = rows.query_map([session_id], |row| row.get::<_, String>(0))?;
    let mut calls = Vec::new();
    for row in rows {
        // One odd row costs that row.
        calls.extend(serde_json::from_str::<Call>(&row?).ok());
    }
    Ok(HiddenCalls { stamp, calls: Some(calls) })
}

impl Store {
    /// The calls of a session without a line that are traced.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn hidden_calls_of(&self, session_id: &str) -> Result<Vec<Call>> {
        all(&self.db, Some(session_id), "").map(|found| found.calls.unwrap_or_default())
    }

    /// Those of one session, or of all; no calls if nothing has changed since the stamp `unless`.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn hidden_calls(&self, session_id: Option<&str>, unless: &str) -> Result<HiddenCalls> {
        all(&self.db, session_id, unless)
    }
}

/// The same from the database at `path`, which no daemon has open. Nothing is changed there.
///
/// # Errors
/// If it cannot be read, or an earlier version wrote it.
pub fn read(path: &Path, session_id: Option<&str>, unless: &str) -> std::result::Result<HiddenCalls, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(WAIT)?;
    db.execute_batch("PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON;")?;
    Ok(all(&db, session_id, unless)?)
}
