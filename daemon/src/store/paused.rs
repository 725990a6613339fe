//! What the user wants nothing told of: projects for now, traces for good.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::{Result, Store};
use crate::ids::TraceId;

impl Store {
    /// Pauses the project at `dir`, with all below it, or every project (`None`); or no longer.
    ///
    /// # Errors
    /// If nothing was changed.
    pub fn pause(&mut self, dir: Option<&Path>, paused: bool) -> Result<()> {
        let dir = dir.map_or_else(|| "/".into(), Path::to_string_lossy);
        let change =
            if paused { "INSERT OR IGNORE INTO paused VALUES (?)" } else { "DELETE FROM paused WHERE dir = ?" };
        self.db.execute(change, [dir]).map(drop)
    }

    /// What is paused: directories of projects; `/` for every project.
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
        let paused = self.paused()?;
        let within = |dir: &Path| paused.iter().any(|paused| dir.starts_with(paused));
        // What is paused is named as the file system does; a session may have come by a link.
        let is_paused = |dir: &PathBuf| within(dir) || dir.canonicalize().is_ok_and(|real| within(&real));
        Ok(!paused.is_empty() && (within("/".as_ref()) || project_dirs.iter().any(is_paused)))
    }
}

/// Nothing of this trace is told from now on.
pub(super) fn silence(db: &Connection, trace: &TraceId) -> Result<()> {
    db.prepare_cached("INSERT OR IGNORE INTO silent VALUES (?)")?.execute([trace]).map(drop)
}

/// True if nothing of this trace is told.
pub(super) fn is_silent(db: &Connection, trace: &TraceId) -> Result<bool> {
    db.prepare_cached("SELECT 1 FROM silent WHERE trace_id = ?")?.exists([trace])
}
