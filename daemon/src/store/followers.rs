//! Followers: destinations that are behind their session. Each falls behind by itself and stops no other.

use rusqlite::{Connection, OptionalExtension, params};

use super::{DestinationId, Result, Store};
use cc_core::transcript::cursor::{Identity, Position};

/// Where to read again for the followers of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behind {
    pub session_id: String,
    /// The start of the oldest turn that is incomplete for one of them.
    pub cursor: Position,
    /// Answered turns before it.
    pub closed: u32,
}

/// A destination has no room for the current step: its position stays where the session is now, or where it was before.
pub(super) fn fall_behind(db: &Connection, session_id: &str, destination: DestinationId) -> Result<()> {
    let sql = "INSERT OR IGNORE INTO follower (session_id, destination, dev, ino, cursor, closed, marker)
               SELECT session_id, ?2, dev, ino, cursor, closed, marker FROM session WHERE session_id = ?1
               UNION ALL SELECT ?1, ?2, 0, 0, 0, 0, NULL LIMIT 1";
    db.prepare_cached(sql)?.execute(params![session_id, destination]).map(drop)
}

impl Store {
    /// True if any follower is behind its session.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn is_anything_behind(&self) -> Result<bool> {
        self.db.prepare_cached("SELECT 1 FROM follower")?.exists([])
    }

    /// At most `most` sessions with a follower that has room: fewer than `room` bytes wait for it. Each comes with the
    /// position that is furthest behind. There may be thousands, so the search starts after the session `after` and
    /// ends when there are enough.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn behind(&self, room: u64, most: usize, after: &str) -> Result<Vec<Behind>> {
        let mut found = Vec::new();
        self.behind_of(("session_id > ?", after), room, most, &mut found)?;
        self.behind_of(("session_id <= ?", after), room, most, &mut found)?;
        Ok(found)
    }

    fn behind_of(&self, (which, id): (&str, &str), room: u64, most: usize, found: &mut Vec<Behind>) -> Result<()> {
        let mut rows = self.db.prepare_cached(&format!(
            "SELECT session_id, destination, dev, ino, cursor, closed, marker FROM follower WHERE {which}
             ORDER BY session_id, cursor",
        ))?;
        let mut rows = rows.query([id])?;
        while found.len() < most
            && let Some(row) = rows.next()?
        {
            let destination: DestinationId = row.get(1)?;
            if self.waiting.get(&destination).copied().unwrap_or(0) >= room {
                continue;
            }
            let session_id: String = row.get(0)?;
            let cursor = Position {
                identity: Identity { dev: row.get::<_, i64>(2)? as u64, ino: row.get::<_, i64>(3)? as u64 },
                offset: row.get::<_, i64>(4)? as u64,
                marker: row.get::<_, Option<i64>>(6)?.map(|marker| marker as u64),
            };
            if found.last().is_none_or(|last| last.session_id != session_id) {
                found.push(Behind { session_id, cursor, closed: row.get(5)? });
            }
        }
        Ok(())
    }

    /// Moves a session back to where a follower is: the spans read from there are new to that follower only.
    ///
    /// # Errors
    /// If nothing was changed.
    pub fn go_back(&mut self, to: &Behind) -> Result<bool> {
        let tx = self.db.transaction()?;
        let known: Option<bool> = tx
            .prepare_cached(
                "UPDATE session SET dev = ?2, ino = ?3, cursor = ?4, closed = ?5, marker = ?6 WHERE session_id = ?1
                 RETURNING 1",
            )?
            .query_row(
                params![
                    to.session_id,
                    to.cursor.identity.dev as i64,
                    to.cursor.identity.ino as i64,
                    to.cursor.offset as i64,
                    to.closed,
                    to.cursor.marker.map(|marker| marker as i64)
                ],
                |row| row.get(0),
            )
            .optional()?;
        tx.prepare_cached("DELETE FROM agent WHERE session_id = ?")?.execute([&to.session_id])?;
        tx.prepare_cached("DELETE FROM follower WHERE session_id = ? AND cursor >= ?")?
            .execute(params![to.session_id, to.cursor.offset as i64])?;
        tx.commit()?;
        Ok(known.is_some())
    }
}
