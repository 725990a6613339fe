//! Decides which of several rows for the same model call counts: a fork, a resumed session and a rewound
//! one copy lines.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension, params};

/// Which calls of a session.
#[derive(Clone, Copy)]
pub(super) enum Of {
    All,
    Turn(i64),
    /// Those of subagents that belong to no turn.
    Unplaced,
}

/// The calls of a session that also occur in another turn or session, and those other rows.
pub(super) fn rivals(db: &Connection, session: i64, of: Of) -> rusqlite::Result<BTreeSet<i64>> {
    let mut found = BTreeSet::new();
    for mark in ["mark_1", "mark_2", "mark_3"] {
        let (its, row) = match of {
            Of::All => ("call.session = ?", session),
            Of::Turn(turn) => ("call.turn = ?", turn),
            Of::Unplaced => ("call.turn IS NULL AND call.session = ?", session),
        };
        let sql = format!(
            "SELECT call.id, other.id FROM call JOIN call AS other ON other.{mark} = call.{mark}
             WHERE {its} AND other.id <> call.id AND (other.session <> call.session OR other.turn IS NOT call.turn)"
        );
        let mut statement = db.prepare_cached(&sql)?;
        let mut rows = statement.query([row])?;
        while let Some(row) = rows.next()? {
            found.extend([row.get::<_, i64>(0)?, row.get(1)?]);
        }
    }
    Ok(found)
}

/// Decides for each of `calls` whether it counts. It does unless the same call is in a better place: where it is no
/// copy, then in the session whose id comes first, then where it comes first. Calls within one turn are always
/// different, whatever they have in common.
pub(super) fn settle(db: &Connection, calls: impl IntoIterator<Item = i64>) -> rusqlite::Result<()> {
    let mut better = db.prepare_cached(
        "SELECT 1 FROM call JOIN session ON session.id = call.session LEFT JOIN turn ON turn.id = call.turn
         WHERE (call.mark_1 = ?2 OR call.mark_2 = ?3 OR call.mark_3 = ?4) AND call.id <> ?1 AND call.is_call
           AND (call.session <> ?5 OR call.turn IS NOT ?6)
           AND (call.is_copied, session.session_id, session.path, COALESCE(turn.at_byte, ?11), call.id)
             < (?7, ?8, ?9, ?10, ?1)
         LIMIT 1",
    )?;
    let mut get = db.prepare_cached(
        "SELECT mark_1, mark_2, mark_3, call.session, turn, is_copied, session_id, path, COALESCE(at_byte, ?2), is_own
         FROM call JOIN session ON session.id = call.session LEFT JOIN turn ON turn.id = call.turn WHERE call.id = ?1",
    )?;
    let mut set = db.prepare_cached("UPDATE call SET is_own = ?2 WHERE id = ?1")?;
    for id in calls {
        type Mark = Option<i64>;
        type Row = ([Mark; 3], i64, Option<i64>, bool, [String; 2], i64, bool);
        let row: Option<Row> = get
            .query_row([id, i64::MAX], |row| {
                let marks = [row.get(0)?, row.get(1)?, row.get(2)?];
                let names = [row.get(6)?, row.get(7)?];
                Ok((marks, row.get(3)?, row.get(4)?, row.get(5)?, names, row.get(8)?, row.get(9)?))
            })
            .optional()?;
        let Some(([mark_1, mark_2, mark_3], session, turn, is_copied, [session_id, path], at_byte, was_own)) = row
        else {
            continue;
        };
        let values = params![id, mark_1, mark_2, mark_3, session, turn, is_copied, session_id, path, at_byte, i64::MAX];
        let other: Option<i64> = better.query_row(values, |row| row.get(0)).optional()?;
        if other.is_none() != was_own {
            set.execute(params![id, other.is_none()])?;
        }
    }
    Ok(())
}
