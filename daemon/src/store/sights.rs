//! When tracing was seen on or off in a project, and so which of its turns began while it was off.

use std::{
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OptionalExtension, params};

use super::{Result, Store};
use cc_core::transcript::record::Nanos;

/// How far apart two equal sights must be, in nanoseconds, for the later one to be stored.
const APART: Nanos = 1_000_000_000;

impl Store {
    /// Notes whether tracing is on in the project at `dir`, as its settings files say at `at`.
    ///
    /// # Errors
    /// If nothing was stored.
    pub fn see(&mut self, dir: &Path, on: bool, at: Nanos) -> Result<()> {
        let from_now = self.from_now;
        let tx = self.db.transaction()?;
        see(&tx, dir, on, at, from_now)?;
        tx.commit()
    }

    /// The projects in which tracing was off when they were last seen.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn seen_off(&self) -> Result<Vec<PathBuf>> {
        let sql =
            "SELECT dir FROM (SELECT dir, is_on, max(from_ns) FROM sight GROUP BY dir) WHERE NOT is_on ORDER BY 1";
        let mut dirs = self.db.prepare_cached(sql)?;
        dirs.query_map([], |row| Ok(PathBuf::from(row.get::<_, String>(0)?)))?.collect()
    }

    /// When tracing was off in the project at `dir`, in nanoseconds since the epoch. What lies before the first sight counts as
    /// that says; nothing, if the project was never seen.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn off(&self, dir: &Path) -> Result<Vec<RangeInclusive<Nanos>>> {
        let mut runs = self.db.prepare_cached("SELECT is_on, from_ns FROM sight WHERE dir = ? ORDER BY from_ns")?;
        let runs: Vec<(bool, Nanos)> = runs
            .query_map([name(dir)], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as Nanos)))?
            .collect::<Result<_>>()?;
        let ends = runs.iter().skip(1).map(|(_, from)| from.saturating_sub(1)).chain([Nanos::MAX]);
        Ok(runs.iter().zip(ends).filter(|((on, _), _)| !on).map(|((_, from), end)| *from..=end).collect())
    }
}

/// A sight like the last one makes its run longer; another one begins a run: of being off where it was last seen on, of being on
/// where it is seen. With `from_now` nothing counts as on before the first sight.
pub(super) fn see(db: &Connection, dir: &Path, on: bool, at: Nanos, from_now: bool) -> Result<()> {
    let dir = name(dir);
    let last = db
        .prepare_cached("SELECT is_on, from_ns, to_ns FROM sight WHERE dir = ? ORDER BY from_ns DESC LIMIT 1")?
        .query_row([&dir], |row| {
            Ok((row.get::<_, bool>(0)?, row.get::<_, i64>(1)? as Nanos, row.get::<_, i64>(2)? as Nanos))
        })
        .optional()?;
    let insert = |on: bool, from: Nanos, to: Nanos| {
        let (from, to) = (signed(from), signed(to.max(from)));
        db.prepare_cached("INSERT OR REPLACE INTO sight (dir, is_on, from_ns, to_ns) VALUES (?, ?, ?, ?)")?
            .execute(params![dir, on, from, to])
            .map(drop)
    };
    match last {
        None if on && from_now => {
            insert(false, 0, 0)?;
            insert(true, at, at)
        }
        None => insert(on, 0, at),
        Some((was_on, from, to)) if was_on == on => {
            if at < to.saturating_add(APART) {
                return Ok(());
            }
            db.prepare_cached("UPDATE sight SET to_ns = ? WHERE dir = ? AND from_ns = ?")?
                .execute(params![signed(at), dir, signed(from)])
                .map(drop)
        }
        Some((.., from, to)) => insert(on, if on { at } else { to.saturating_add(1) }.max(from.saturating_add(1)), at),
    }
}

fn signed(at: Nanos) -> i64 {
    i64::try_from(at).unwrap_or(i64::MAX)
}

/// A directory by its one name, as far as it still has one.
fn name(dir: &Path) -> String {
    dir.canonicalize().as_deref().unwrap_or(dir).to_string_lossy().into_owned()
}
