//! Suppressed projects and traces: paused or forgotten by the user.

use std::{
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, params};

use super::{Result, Store, count};
use cc_core::{ids::TraceId, transcript::record::Nanos};

/// The present time in SQL.
const NOW_MS: &str = "CAST(unixepoch('subsec') * 1000 AS INTEGER)";

impl Store {
    /// Pauses or resumes the project at `dir` with everything below it, or every project (`None`).
    ///
    /// # Errors
    /// If nothing was changed.
    pub fn pause(&mut self, dir: Option<&Path>, paused: bool) -> Result<()> {
        let dir = dir.map_or_else(|| "/".into(), Path::to_string_lossy);
        let tx = self.db.transaction()?;
        if paused {
            tx.execute(&format!("INSERT OR IGNORE INTO paused (dir, from_ms) VALUES (?, {NOW_MS})"), [dir])?;
        } else {
            let over =
                format!("INSERT OR REPLACE INTO was_paused SELECT dir, from_ms, {NOW_MS} FROM paused WHERE dir = ?");
            tx.execute(&over, [&dir])?;
            tx.execute("DELETE FROM paused WHERE dir = ?", [&dir])?;
        }
        tx.commit()
    }

    /// The paused directories of projects; `/` for every project.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn paused(&self) -> Result<Vec<PathBuf>> {
        let mut dirs = self.db.prepare_cached("SELECT dir FROM paused ORDER BY 1")?;
        dirs.query_map([], |row| Ok(PathBuf::from(row.get::<_, String>(0)?)))?.collect()
    }

    /// True if a session of these directories is paused.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn is_paused(&self, project_dirs: &[PathBuf]) -> Result<bool> {
        Ok(self.paused()?.iter().any(|paused| holds(paused, project_dirs)))
    }

    /// True if nothing is emitted of one of these traces, whether it was paused, forgotten, or said while tracing was off.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn suppresses(&self, traces: &[TraceId]) -> Result<bool> {
        for trace in traces {
            if is_suppressed(&self.db, trace, false)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// When a session of these directories was paused, in nanoseconds since the epoch.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub(super) fn pauses(&self, project_dirs: &[PathBuf]) -> Result<Vec<RangeInclusive<Nanos>>> {
        let mut pauses = self.db.prepare_cached("SELECT dir, from_ms, to_ms FROM was_paused")?;
        let nanos = |ms: i64| u64::try_from(ms).unwrap_or(0).saturating_mul(1_000_000);
        let all = pauses.query_map([], |row| {
            Ok((PathBuf::from(row.get::<_, String>(0)?), nanos(row.get(1)?)..=nanos(row.get(2)?)))
        })?;
        let own = all.filter(|pause| pause.as_ref().map_or(true, |(dir, _)| holds(dir, project_dirs)));
        own.map(|pause| pause.map(|(_, time)| time)).collect()
    }
}

/// True if one of these directories is within a paused one, which is stored as a canonical path; a session may
/// have used a link.
fn holds(paused: &Path, project_dirs: &[PathBuf]) -> bool {
    let is_within =
        |dir: &PathBuf| dir.starts_with(paused) || dir.canonicalize().is_ok_and(|real| real.starts_with(paused));
    paused == Path::new("/") || project_dirs.iter().any(is_within)
}

/// Suppresses a trace from now on. False if it was suppressed already.
pub(super) fn suppress(db: &Connection, trace: &TraceId) -> Result<bool> {
    db.prepare_cached(
        "INSERT INTO silent (trace_id, off) VALUES (?, 0) ON CONFLICT (trace_id) DO UPDATE SET off = 0 WHERE off",
    )?
    .execute([trace])
    .map(|new| new == 1)
}

/// Leaves out and counts, once, a trace that began while tracing was off in its project, until the user
/// asks for history.
pub(super) fn leave_out(db: &Connection, trace: &TraceId) -> Result<()> {
    let new = db.prepare_cached("INSERT OR IGNORE INTO silent (trace_id, off) VALUES (?, 1)")?.execute([trace])?;
    if new == 1 { count(db, "turn_while_off", 1) } else { Ok(()) }
}

/// True if nothing of this trace is emitted. If the user has asked for history, turns from while tracing was off are.
pub(super) fn is_suppressed(db: &Connection, trace: &TraceId, is_asked: bool) -> Result<bool> {
    db.prepare_cached("SELECT 1 FROM silent WHERE trace_id = ? AND NOT (off AND ?)")?.exists(params![trace, is_asked])
}
