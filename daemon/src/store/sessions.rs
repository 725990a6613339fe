//! Incoming events, and the position of each session.

use std::{collections::HashMap, path::PathBuf};

use rusqlite::{Connection, OptionalExtension, params};

use super::{
    DestinationId, Result, Store, count,
    destinations::{ensure, note_chooser},
    json, sightings,
};
use cc_core::{
    destination::Destination,
    hook::Hint,
    ids::{Call, CallId, TraceId},
    route::Target,
    transcript::cursor::{Identity, Position},
    turn::{BACK, Launch, Past},
};

/// The state of a session.
#[derive(Clone, Debug)]
pub struct SessionRow {
    pub session_id: String,
    /// Its transcript, when it was last seen.
    pub transcript: PathBuf,
    /// Where reading continues: always the start of a line.
    pub cursor: Position,
    /// Answered turns before the cursor.
    pub closed: u32,
    /// All answered turns.
    pub turns: u32,
    /// Part of the last turn was not emitted.
    pub open_turn: bool,
    /// Subagents that are not fully emitted.
    pub unsettled: u32,
    /// The session it was forked from.
    pub forked_from: Option<String>,
    /// Its title, masked.
    pub title: Option<String>,
    /// The latest hint, which has its destinations and options.
    pub hint: Hint,
}

impl Store {
    /// Stores hints, and counts refused events. Returns the rows of each hint's destinations. Stored events are
    /// not stored again.
    ///
    /// # Errors
    /// If nothing was stored.
    pub fn accept(&mut self, hints: &[Hint], refused: &[&'static str]) -> Result<Vec<Vec<DestinationId>>> {
        let from_now = self.from_now;
        let mut seen_on = Vec::with_capacity(hints.len());
        for hint in hints {
            seen_on.push(self.seen_on_by(hint)?);
        }
        let tx = self.db.transaction()?;
        let mut ids = Vec::with_capacity(hints.len());
        for (hint, seen_on) in hints.iter().zip(seen_on) {
            ids.push(targets(&tx, &hint.targets)?);
            if let Some(dir) = seen_on {
                self.sightings.forget(&dir);
                sightings::see(&tx, &dir, true, hint.fired_ns, from_now)?;
            }
            tx.prepare_cached("INSERT OR IGNORE INTO inbox (id, hint) VALUES (?, ?)")?
                .execute(params![hint.id, json(hint)])?;
        }
        for reason in refused {
            count(&tx, reason, 1)?;
        }
        tx.commit()?;
        Ok(ids)
    }

    /// Every stored hint, oldest first.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn inbox(&self) -> Result<Vec<Hint>> {
        let mut hints: Vec<Hint> = self
            .db
            .prepare_cached("SELECT hint FROM inbox")?
            .query_map([], |row| row.get::<_, String>(0))?
            .filter_map(|text| text.ok().and_then(|text| serde_json::from_str(&text).ok()))
            .collect();
        hints.sort_by_key(|hint| hint.fired_ns);
        Ok(hints)
    }

    /// Drops events that led to nothing, and counts them by `reason`.
    ///
    /// # Errors
    /// If nothing was changed.
    pub fn give_up(&mut self, ids: &[String], reason: &'static str) -> Result<()> {
        let tx = self.db.transaction()?;
        consume(&tx, ids, None)?;
        count(&tx, reason, ids.len() as u64)?;
        tx.commit()
    }

    /// The state of a session; `None` if it was never seen.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn session(&self, session_id: &str) -> Result<Option<SessionRow>> {
        self.db
            .prepare_cached(&format!("{SELECT_SESSION} WHERE session_id = ?"))?
            .query_row([session_id], session_row)
            .optional()
            .map(Option::flatten)
    }

    /// When a session's last step was stored, in Unix milliseconds, and whether part of its last turn was not emitted.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn stand(&self, session_id: &str) -> Result<Option<(i64, bool)>> {
        self.db
            .prepare_cached("SELECT updated_ms, open_turn FROM session WHERE session_id = ?")?
            .query_row([session_id], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()
    }

    /// The sessions seen last.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn sessions(&self, limit: usize) -> Result<Vec<SessionRow>> {
        let mut statement = self.db.prepare_cached(&format!("{SELECT_SESSION} ORDER BY updated_ms DESC LIMIT ?"))?;
        let rows = statement.query_map([limit as i64], session_row)?;
        Ok(rows.filter_map(|row| row.ok().flatten()).collect())
    }

    /// The ids of all sessions with a step since `since_ms` (Unix milliseconds), latest first.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn session_ids(&self, since_ms: i64) -> Result<Vec<String>> {
        let sql = "SELECT session_id FROM session WHERE updated_ms >= ? ORDER BY updated_ms DESC";
        self.db.prepare_cached(sql)?.query_map([since_ms], |row| row.get(0))?.collect()
    }

    /// The sessions that were forked from this one, from one of those, and so on.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn forks(&self, session_id: &str) -> Result<Vec<String>> {
        let sql = "WITH RECURSIVE fork (id) AS (
                SELECT session_id FROM session WHERE forked_from = ?1
                UNION SELECT session_id FROM session JOIN fork ON forked_from = fork.id)
             SELECT id FROM fork WHERE id <> ?1";
        self.db.prepare_cached(sql)?.query_map([session_id], |row| row.get(0))?.collect()
    }

    /// The calls of a session's closed turns that launched subagents.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn launches(&self, session_id: &str) -> Result<Vec<Launch>> {
        self.db
            .prepare_cached(
                "SELECT tool_id, agent_id, turn_key, turn, returned, id, message_id, called, wakes FROM launch
                 WHERE session_id = ?",
            )?
            .query_map([session_id], |row| {
                Ok(Launch {
                    tool_id: row.get(0)?,
                    agent_id: row.get(1)?,
                    turn: (row.get(2)?, row.get(3)?),
                    returned: row.get(4)?,
                    id: row.get(5)?,
                    message_id: row.get(6)?,
                    called: row.get::<_, Option<i64>>(7)?.map(|at| at as u64),
                    wakes: row.get(8)?,
                })
            })?
            .collect()
    }

    /// The latest of the first `closed` turns of a session, oldest first.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn turns(&self, session_id: &str, closed: u32) -> Result<Vec<Past>> {
        let mut turns: Vec<Past> = self
            .db
            .prepare_cached(
                "SELECT key, number, position, follows, facts FROM turn WHERE session_id = ? AND number <= ? ORDER BY number DESC LIMIT ?",
            )?
            .query_map(params![session_id, closed, BACK as i64], |row| {
                let facts: String = row.get(4)?;
                Ok(Past {
                    key: row.get(0)?,
                    number: row.get(1)?,
                    position: row.get(2)?,
                    follows: row.get(3)?,
                    session: serde_json::from_str(&facts).unwrap_or_default(),
                })
            })?
            .collect::<Result<_>>()?;
        turns.reverse();
        Ok(turns)
    }

    /// The fully emitted subagents of a session, with the length of their transcripts.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn agents(&self, session_id: &str) -> Result<HashMap<String, u64>> {
        self.db
            .prepare_cached("SELECT agent_id, length FROM agent WHERE session_id = ?")?
            .query_map([session_id], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as u64)))?
            .collect()
    }

    /// The ids of sessions with a step since `since_ms` (Unix milliseconds) that are not fully emitted, latest first.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn unsettled(&self, since_ms: i64) -> Result<Vec<String>> {
        let sql = "SELECT session_id FROM session WHERE (open_turn OR unsettled > 0) AND updated_ms >= ? ORDER BY updated_ms DESC";
        self.db.prepare_cached(sql)?.query_map([since_ms], |row| row.get(0))?.collect()
    }

    /// Directories of projects that send to a destination, latest first: its key may be in their settings.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn project_dirs(&self, destination: &Destination) -> Result<Vec<PathBuf>> {
        self.dirs(destination, |hint| hint.project_dirs)
    }

    /// Directories with user settings of sessions that send to a destination, latest first.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn config_dirs(&self, destination: &Destination) -> Result<Vec<PathBuf>> {
        self.dirs(destination, |hint| hint.config_dir.into_iter().collect())
    }

    fn dirs(&self, destination: &Destination, of: impl Fn(Hint) -> Vec<PathBuf>) -> Result<Vec<PathBuf>> {
        let mut dirs: Vec<PathBuf> = Vec::new();
        let sessions = self.sessions(500)?.into_iter().map(|session| session.hint);
        for hint in self
            .inbox()?
            .into_iter()
            .rev()
            .chain(sessions)
            .filter(|hint| hint.destinations().any(|to| to == destination))
        {
            let new: Vec<_> = of(hint).into_iter().filter(|dir| !dirs.contains(dir)).collect();
            dirs.extend(new);
        }
        Ok(dirs)
    }
}

/// The rows of these destinations, and who chose each.
pub(super) fn targets(db: &Connection, targets: &[Target]) -> Result<Vec<DestinationId>> {
    let row = |target: &Target| {
        let id = ensure(db, &target.destination)?;
        note_chooser(db, id, target.chooser.as_ref())?;
        Ok(id)
    };
    targets.iter().map(row).collect()
}

const SELECT_SESSION: &str =
    "SELECT session_id, transcript, dev, ino, cursor, closed, turns, open_turn, hint, marker, unsettled, forked_from,
        title
     FROM session";

/// `None` for a row whose hint cannot be read (written by another version): the session is read again from its start.
fn session_row(row: &rusqlite::Row<'_>) -> Result<Option<SessionRow>> {
    let hint: String = row.get(8)?;
    let Ok(hint) = serde_json::from_str(&hint) else { return Ok(None) };
    Ok(Some(SessionRow {
        session_id: row.get(0)?,
        transcript: PathBuf::from(row.get::<_, String>(1)?),
        cursor: Position {
            identity: Identity { dev: row.get::<_, i64>(2)? as u64, ino: row.get::<_, i64>(3)? as u64 },
            offset: row.get::<_, i64>(4)? as u64,
            marker: row.get::<_, Option<i64>>(9)?.map(|marker| marker as u64),
        },
        closed: row.get(5)?,
        turns: row.get(6)?,
        open_turn: row.get(7)?,
        unsettled: row.get(10)?,
        forked_from: row.get(11)?,
        title: row.get(12)?,
        hint,
    }))
}

/// What of a call's hash is stored. Among a million calls, two share it with a probability of one in a million.
pub(super) fn short_call(id: &CallId) -> &[u8] {
    &id[..8]
}

/// What of its trace is stored beside it, to distinguish traces.
pub(super) fn short_trace(trace: &TraceId) -> &[u8] {
    &trace[..4]
}

/// True if the call was found in another trace first.
pub(super) fn found_elsewhere(
    db: &Connection,
    destination: DestinationId,
    call: &Call,
    trace: TraceId,
) -> Result<bool> {
    // Each is somewhere else in the table; one statement asks for all.
    let sql = "SELECT (SELECT trace = ?6 FROM call WHERE destination = ?1 AND id = ?2),
                      (SELECT trace = ?6 FROM call WHERE destination = ?1 AND id = ?3),
                      (SELECT trace = ?6 FROM call WHERE destination = ?1 AND id = ?4),
                      (SELECT trace = ?6 FROM call WHERE destination = ?1 AND id = ?5)";
    let [one, two, three] = call.proofs.each_ref().map(|proof| proof.as_ref().map(short_call));
    let known = params![destination, one, two, three, short_call(&call.id), short_trace(&trace)];
    // Whether it was found in this trace; `None` if nowhere.
    let (by_proof, by_id): ([Option<bool>; 3], Option<bool>) =
        db.prepare_cached(sql)?.query_row(known, |row| Ok(([row.get(0)?, row.get(1)?, row.get(2)?], row.get(3)?)))?;
    // One that is of this trace decides.
    if by_proof.contains(&Some(true)) {
        return Ok(false);
    }
    if by_proof.contains(&Some(false)) {
        return Ok(true);
    }
    // What an earlier version sent is known by the id alone.
    let Some(is_here) = by_id else { return Ok(false) };
    let since: i64 = db.prepare_cached("SELECT min(at_ms) FROM proofs_since")?.query_row([], |row| row.get(0))?;
    Ok(!is_here && call.at.is_none_or(|at| at / 1_000_000 < since.unsigned_abs()))
}

pub(super) fn consume(db: &Connection, ids: &[String], kept: Option<&str>) -> Result<()> {
    let mut statement = db.prepare_cached("DELETE FROM inbox WHERE id = ?")?;
    ids.iter().try_for_each(|id| statement.execute([id]).map(drop))?;
    // Processed again after a restart it must end nothing: another turn may have started.
    if let Some(kept) = kept {
        db.prepare_cached("UPDATE inbox SET hint = json_set(hint, '$.event', 'Other') WHERE id = ?")?
            .execute([kept])?;
    }
    Ok(())
}
