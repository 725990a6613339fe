//! Since when transcripts are looked for.

use rusqlite::params;

use super::{Result, Store};

/// How far ahead of the clock a time may be without contradicting it, in milliseconds.
const CLOCK_TOLERANCE_MS: i64 = 60_000;

/// When the daemon first started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstStart {
    /// By its clock, Unix milliseconds.
    pub at_ms: i64,
    /// The time of the newest transcript that was there already, Unix milliseconds; `None` before the first search, 0 if there was
    /// none.
    pub newest_ms: Option<i64>,
}

impl FirstStart {
    /// What was written before this (Unix milliseconds) is not looked for unasked. The clock may have been wrong at the first
    /// start, or be wrong now: what was there then is known by its own times.
    pub fn since(self, now_ms: i64) -> i64 {
        let after = self.newest_ms.filter(|newest| !is_ahead(*newest, now_ms)).map(|newest| newest + 1);
        if is_ahead(self.at_ms, now_ms) { after.unwrap_or(now_ms) } else { self.at_ms.max(after.unwrap_or(0)) }
    }
}

/// True if it is not yet so late, by far.
pub fn is_ahead(at_ms: i64, now_ms: i64) -> bool {
    at_ms > now_ms.saturating_add(CLOCK_TOLERANCE_MS)
}

impl Store {
    /// When this database was first_start, or what it took over.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn first_start(&self) -> Result<FirstStart> {
        self.db.query_row("SELECT at_ms, newest_ms FROM begun ORDER BY at_ms LIMIT 1", [], |row| {
            Ok(FirstStart { at_ms: row.get(0)?, newest_ms: row.get(1)? })
        })
    }

    /// It was begun then.
    ///
    /// # Errors
    /// If nothing was changed.
    pub fn set_first_start(&mut self, first_start: FirstStart) -> Result<()> {
        let tx = self.db.transaction()?;
        tx.execute("DELETE FROM begun", [])?;
        tx.execute(
            "INSERT INTO begun (at_ms, newest_ms) VALUES (?, ?)",
            params![first_start.at_ms, first_start.newest_ms],
        )?;
        tx.commit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_clock_costs_no_session_and_finds_none_from_before() {
        const NOW: i64 = 1_800_000_000_000;
        const YEAR: i64 = 365 * 24 * 3_600_000;
        for (at_ms, newest_ms, since, case) in [
            (NOW, None, NOW, "just now"),
            (NOW - YEAR, None, NOW - YEAR, "begun by an earlier version"),
            (NOW - YEAR, Some(NOW - 2 * YEAR), NOW - YEAR, "the usual"),
            (NOW + CLOCK_TOLERANCE_MS, Some(5), NOW + CLOCK_TOLERANCE_MS, "a clock that was set back a little"),
            (NOW + YEAR, Some(NOW - 9), NOW - 8, "the clock was ahead then"),
            (NOW + YEAR, Some(0), 1, "and there was none"),
            (NOW + YEAR, None, NOW, "and no search before it was set right"),
            (NOW - YEAR, Some(NOW - 9), NOW - 8, "the clock was behind then"),
            (NOW - YEAR, Some(NOW + YEAR), NOW - YEAR, "it is behind now, or a file has a date of its own"),
            (NOW + YEAR, Some(NOW + YEAR), NOW, "nothing can be relied on"),
        ] {
            assert_eq!(FirstStart { at_ms, newest_ms }.since(NOW), since, "{case}");
        }
    }
}
