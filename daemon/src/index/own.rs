//! Decides which of several rows for the same model call counts: a fork, a resumed session and a rewound
//! one copy lines.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension, params};

/// The calls of a session that also occur in another turn or session, and those other rows.
pub(super) fn rivals(db: &Connection, session: i64) -> rusqlite::Result<Vec<i64>> {
    let mut found = BTreeSet::new();
    for mark in ["mark_1", "mark_2", "mark_3"] {
        let sql = format!(
            "SELECT call.id, other.id FROM call JOIN call AS other ON other.{mark} = call.{mark}
             WHERE call.session = ? AND other.id <> call.id AND (other.session <> call.session OR other.turn IS NOT call.turn)"
        );
        let mut statement = db.prepare_cached(&sql)?;
        let mut rows = statement.query([session])?;
        while let Some(row) = rows.next()? {
            found.extend([row.get::<_, i64>(0)?, row.get(1)?]);
        }
    }
    Ok(found.into_iter().collect())
}

/// Decides for each of `calls` whether it counts. It does unless the same call is in a better place: where it is no
/// copy, then in the session whose id comes first, then where it comes first. Calls within one turn are always
/// different, whatever they have in common.
pub(super) fn settle(db: &Connection, calls: Vec<i64>) -> rusqlite::Result<()> {
    let mut better = db.prepare_cached(
        "SELECT 1 FROM call JOIN session ON session.id = call.session
         WHERE (call.mark_1 = ?2 OR call.mark_2 = ?3 OR call.mark_3 = ?4) AND call.id <> ?1 AND call.is_call
           AND (call.session <> ?5 OR call.turn IS NOT ?6)
           AND (call.is_copied, session.session_id, call.id) < (?7, ?8, ?1)
         LIMIT 1",
    )?;
    let mut get = db.prepare_cached(
        "SELECT mark_1, mark_2, mark_3, call.session, turn, is_copied, session_id, is_own
         FROM call JOIN session ON session.id = call.session WHERE call.id = ?",
    )?;
    let mut set = db.prepare_cached("UPDATE call SET is_own = ?2 WHERE id = ?1")?;
    for id in calls {
        type Row = (Option<i64>, Option<i64>, Option<i64>, i64, Option<i64>, bool, String, bool);
        let row: Option<Row> = get
            .query_row([id], |row| {
                let marks = (row.get(0)?, row.get(1)?, row.get(2)?);
                Ok((marks.0, marks.1, marks.2, row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?, row.get(7)?))
            })
            .optional()?;
        let Some((mark_1, mark_2, mark_3, session, turn, is_copied, session_id, was_own)) = row else { continue };
        let other: Option<i64> = better
            .query_row(params![id, mark_1, mark_2, mark_3, session, turn, is_copied, session_id], |row| row.get(0))
            .optional()?;
        if other.is_none() != was_own {
            set.execute(params![id, other.is_none()])?;
        }
    }
    Ok(())
}
