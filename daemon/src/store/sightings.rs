//! When tracing was seen on or off in a project, and so which of its turns began while it was off.

use std::{
    collections::HashMap,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OptionalExtension, params};

use super::{Result, Store};
use cc_core::{hook::Hint, transcript::record::Nanos};

/// How far apart two equal sightings must be, in nanoseconds, for the later one to be stored.
const MIN_DISTANCE: Nanos = 1_000_000_000;

impl Store {
    /// Records whether the settings files turned tracing on in the project at `dir` at the time `at`.
    ///
    /// # Errors
    /// If nothing was stored.
    pub fn see(&mut self, dir: &Path, on: bool, at: Nanos) -> Result<()> {
        let dir = name(dir);
        self.see_named(&dir, on, at)
    }

    /// Like [`see`](Self::see), and then [`off`](Self::off).
    ///
    /// # Errors
    /// If nothing was stored, or the database cannot be read.
    pub fn see_and_off(&mut self, dir: &Path, on: bool, at: Nanos) -> Result<Vec<RangeInclusive<Nanos>>> {
        let dir = name(dir);
        self.see_named(&dir, on, at)?;
        self.off_named(&dir)
    }

    fn see_named(&mut self, dir: &str, on: bool, at: Nanos) -> Result<()> {
        self.off_named(dir)?;
        let last = self.sightings.0.get(dir).and_then(|known| known.last);
        if last.is_some_and(|(was_on, to)| was_on == on && at < to.saturating_add(MIN_DISTANCE)) {
            return Ok(());
        }
        self.sightings.forget(dir);
        let from_now = self.from_now;
        let tx = self.db.transaction()?;
        see(&tx, dir, on, at, from_now)?;
        tx.commit()
    }

    /// The project that this event shows as on, in the form in which sightings name it. If only Claude Code's
    /// environment turns tracing on, the settings will soon contradict it: then it counts only if the project was
    /// never seen before.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub(super) fn seen_on_by(&mut self, hint: &Hint) -> Result<Option<String>> {
        let Some(dir) = hint.project_dirs.last().filter(|_| hint.settings_on || hint.source.is_hook()) else {
            return Ok(None);
        };
        let dir = name(dir);
        if !hint.settings_on {
            self.off_named(&dir)?;
            if self.sightings.0.get(&dir).is_some_and(|known| known.last.is_some()) {
                return Ok(None);
            }
        }
        Ok(Some(dir))
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

    /// When tracing was off in the project at `dir`, in nanoseconds since the epoch. The time before the first sighting
    /// counts like it; empty if the project was never seen.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn off(&mut self, dir: &Path) -> Result<Vec<RangeInclusive<Nanos>>> {
        self.off_named(&name(dir))
    }

    fn off_named(&mut self, dir: &str) -> Result<Vec<RangeInclusive<Nanos>>> {
        if let Some(known) = self.sightings.0.get(dir) {
            return Ok(known.off.clone());
        }
        let mut runs =
            self.db.prepare_cached("SELECT is_on, from_ns, to_ns FROM sight WHERE dir = ? ORDER BY from_ns")?;
        let runs: Vec<(bool, Nanos, Nanos)> = runs
            .query_map([dir], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as Nanos, row.get::<_, i64>(2)? as Nanos)))?
            .collect::<Result<_>>()?;
        let ends = runs.iter().skip(1).map(|(_, from, _)| from.saturating_sub(1)).chain([Nanos::MAX]);
        let off: Vec<_> =
            runs.iter().zip(ends).filter(|((on, ..), _)| !on).map(|((_, from, _), end)| *from..=end).collect();
        self.sightings.keep(dir, Project { last: runs.last().map(|(on, _, to)| (*on, *to)), off: off.clone() });
        Ok(off)
    }
}

/// How many projects' sightings are cached.
const MAX_CACHED_PROJECTS: usize = 512;

/// Cached sightings of some projects, by the projects' names.
#[derive(Debug, Default)]
pub(super) struct Known(HashMap<String, Project>);

#[derive(Debug)]
struct Project {
    last: Option<(bool, Nanos)>,
    off: Vec<RangeInclusive<Nanos>>,
}

impl Known {
    /// The row of this project is about to change.
    pub(super) fn forget(&mut self, dir: &str) {
        self.0.remove(dir);
    }

    fn keep(&mut self, dir: &str, project: Project) {
        if self.0.len() >= MAX_CACHED_PROJECTS {
            self.0.clear();
        }
        self.0.insert(dir.to_owned(), project);
    }
}

/// A sighting equal to the last one extends its run; another one begins a new run: an off run where it was last seen
/// on, an on run where it is seen. With `from_now` nothing counts as on before the first sighting.
pub(super) fn see(db: &Connection, dir: &str, on: bool, at: Nanos, from_now: bool) -> Result<()> {
    let last = db
        .prepare_cached("SELECT is_on, from_ns, to_ns FROM sight WHERE dir = ? ORDER BY from_ns DESC LIMIT 1")?
        .query_row([dir], |row| {
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
            if at < to.saturating_add(MIN_DISTANCE) {
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

/// The canonical path of a directory, if it still exists.
pub(super) fn name(dir: &Path) -> String {
    dir.canonicalize().as_deref().unwrap_or(dir).to_string_lossy().into_owned()
}
