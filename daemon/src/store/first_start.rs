//! The time since which transcripts are read without a request.

use rusqlite::params;

use super::{Result, Store};

/// A time that is ahead of the clock by up to this much is accepted, in milliseconds.
const CLOCK_TOLERANCE_MS: i64 = 60_000;

/// The daemon's first start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstStart {
    /// By its clock, Unix milliseconds.
    pub at_ms: i64,
    /// The modification time of the newest transcript at the first start, Unix milliseconds; `None` before the first scan, 0 if
    /// there was none.
    pub newest_ms: Option<i64>,
}

impl FirstStart {
    /// Transcripts that were last modified before this (Unix milliseconds) are not read unasked. The clock may have been wrong
    /// at the first start, or may be wrong now: what existed then is recognised by its own times.
    pub fn since(self, now_ms: i64) -> i64 {
        let after = self.newest_ms.filter(|newest| !is_ahead(*newest, now_ms)).map(|newest| newest + 1);
        if is_ahead(self.at_ms, now_ms) { after.unwrap_or(now_ms) } else { self.at_ms.max(after.unwrap_or(0)) }
    }
}

/// True if `at_ms` is clearly in the future.
pub fn is_ahead(at_ms: i64, now_ms: i64) -> bool {
    at_ms > now_ms.saturating_add(CLOCK_TOLERANCE_MS)
}

impl Store {
    /// The first start, or the one that was taken over.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn first_start(&self) -> Result<FirstStart> {
        self.db.query_row("SELECT at_ms, newest_ms FROM begun ORDER BY at_ms LIMIT 1", [], |row| {
            Ok(FirstStart { at_ms: row.get(0)?, newest_ms: row.get(1)? })
        })
    }

    /// Replaces the first start.
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
