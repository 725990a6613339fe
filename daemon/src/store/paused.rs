//! Projects of which the user wants nothing told for now.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::{Result, Store};

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
        paused(&self.db)
    }
}

fn paused(db: &Connection) -> Result<Vec<PathBuf>> {
    let mut dirs = db.prepare_cached("SELECT dir FROM paused ORDER BY 1")?;
    dirs.query_map([], |row| Ok(PathBuf::from(row.get::<_, String>(0)?)))?.collect()
}

/// True if a session of these directories is paused.
pub(super) fn is_paused(db: &Connection, project_dirs: &[PathBuf]) -> Result<bool> {
    let everything = Path::new("/");
    Ok(paused(db)?.iter().any(|paused| paused == everything || project_dirs.iter().any(|dir| dir.starts_with(paused))))
}
