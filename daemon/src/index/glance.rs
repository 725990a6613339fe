//! What the status line asks of the index: answers within milliseconds, from an index that may be behind its transcripts.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use super::{Error, Index, Source, Updated, VERSION, lists, lists::Sum, read};
use cc_core::{ids::TraceId, reconcile::Tokens, redact::Redactor, transcript::record::Nanos, usage::cost};

/// What the index has of a transcript.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    row: i64,
    /// Bytes of it and of its subagents' transcripts when they were read.
    pub bytes: u64,
    /// Its last turn, which may have grown since.
    pub last: Option<LastTurn>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastTurn {
    pub number: u32,
    /// The byte offset of its prompt.
    pub at_byte: u64,
    pub start: Option<Nanos>,
    pub trace: TraceId,
}

/// Selects the calls of a [`Sum`].
#[derive(Clone, Copy, Debug)]
pub enum Spent<'s> {
    /// Those of a session, by its id.
    Session(&'s str),
    Since(Nanos),
}

/// Calls in the last turn of a transcript.
const IN_LAST_TURN: &str =
    "(call.session = ?2 AND call.turn IN (SELECT id FROM turn WHERE session = ?2 AND at_byte >= ?3))";

impl Index {
    /// The index at `path`, for reading only. `None` if there is none, or one of another version.
    ///
    /// # Errors
    /// Those of SQLite.
    pub fn glance(path: &Path) -> Result<Option<Self>, Error> {
        if std::fs::symlink_metadata(path).is_err() {
            return Ok(None);
        }
        let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        let version: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        Ok((version == VERSION).then_some(Self { db, version: None }))
    }

    /// What it has of the transcript at `path`.
    ///
    /// # Errors
    /// Those of SQLite.
    pub fn seen(&self, path: &Path) -> Result<Option<Seen>, Error> {
        let Some(path) = path.to_str() else { return Ok(None) };
        let sql = "SELECT session.id, bytes, number, at_byte, start, trace
                   FROM session LEFT JOIN turn ON turn.session = session.id WHERE path = ? ORDER BY at_byte DESC LIMIT 1";
        let seen = self.db.query_row(sql, [path], |row| {
            let last = match row.get::<_, Option<u32>>(2)? {
                None => None,
                Some(number) => Some(LastTurn {
                    number,
                    at_byte: lists::unsigned(row, 3)?,
                    start: lists::moment(row, 4)?,
                    trace: row.get(5)?,
                }),
            };
            Ok(Seen { row: row.get(0)?, bytes: lists::unsigned(row, 1)?, last })
        });
        Ok(seen.optional()?)
    }

    /// The sum of the calls that `what` selects, each counted once, without those in the last turn of `seen`.
    ///
    /// # Errors
    /// Those of SQLite.
    pub fn spent(&self, what: Spent<'_>, seen: Option<&Seen>) -> Result<Sum, Error> {
        let (session, since) = match what {
            Spent::Session(id) => (Some(id), None),
            Spent::Since(at) => (None, Some(i64::try_from(at).unwrap_or(i64::MAX))),
        };
        let selected = match what {
            Spent::Session(_) => "call.session IN (SELECT id FROM session WHERE session_id = ?1)",
            Spent::Since(_) => "call.at >= ?1",
        };
        let sql = format!(
            "SELECT model, speed, is_call, input, output, cache_read, cache_write_5m, cache_write_1h, turn
             FROM call WHERE is_own AND {selected} AND NOT coalesce({IN_LAST_TURN}, 0)"
        );
        let mut statement = self.db.prepare(&sql)?;
        let (row, from) = last_turn(seen);
        let mut rows = match session {
            Some(id) => statement.query(params![id, row, from])?,
            None => statement.query(params![since, row, from])?,
        };
        let mut sum = Sum::default();
        // A price is the same for every token, so each model is summed first. There are few.
        let mut models: Vec<((i64, Option<i64>), Tokens)> = Vec::new();
        let (mut turns, mut last) = (HashSet::new(), None);
        while let Some(row) = rows.next()? {
            let (model, tokens) = ((row.get(0)?, row.get(1)?), lists::tokens(row, 3)?);
            sum.calls += lists::unsigned(row, 2)?;
            sum.tokens += tokens;
            let turn: Option<i64> = row.get(8)?;
            // The calls of a turn mostly come one after another.
            if turn != last {
                turns.extend(turn);
                last = turn;
            }
            match models.iter_mut().find(|(known, _)| *known == model) {
                Some((_, all)) => *all += tokens,
                None => models.push((model, tokens)),
            }
        }
        sum.turns = turns.len() as u64;
        let mut name = self.db.prepare("SELECT text FROM name WHERE id = ?")?;
        for ((model, speed), tokens) in models {
            let mut text = |id: i64| name.query_row([id], |row| row.get::<_, String>(0));
            let (model, speed) = (text(model)?, speed.map(&mut text).transpose()?);
            if let Some(cost) = cost(&model, speed.as_deref(), tokens) {
                *sum.cost_usd.get_or_insert(0.0) += cost;
            }
        }
        Ok(sum)
    }

    /// True if it counts the call with these marks, outside the last turn of `seen`.
    ///
    /// # Errors
    /// Those of SQLite.
    pub fn counts(&self, marks: [Option<u64>; 3], seen: Option<&Seen>) -> Result<bool, Error> {
        let (row, from) = last_turn(seen);
        for (name, mark) in ["mark_1", "mark_2", "mark_3"].iter().zip(marks) {
            let Some(mark) = mark else { continue };
            let sql = format!("SELECT 1 FROM call WHERE {name} = ?1 AND is_own AND NOT coalesce({IN_LAST_TURN}, 0)");
            if self.db.prepare_cached(&sql)?.exists(params![mark.cast_signed(), row, from])? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reads one session if it has changed, and leaves all others as they are. Names are masked by `redactor`.
    ///
    /// # Errors
    /// If the index cannot be written.
    pub fn update_one(&mut self, source: &Source, redactor: &Redactor) -> Result<Updated, Error> {
        let mut loose = read::Loose::default();
        let looks = read::Looks::of(source, loose.beside(&source.path));
        let known = self.known_at(Some(&source.path))?.remove(source.path.as_os_str());
        let mut updated = Updated::default();
        let Some(job) = self.job(source, looks, known, true)? else { return Ok(updated) };
        read::all(&[job], |found, _| {
            match found {
                Ok(session) => {
                    (updated.read, updated.bytes) = (1, session.read);
                    self.put_all(&[session], &mut HashMap::new(), redactor)?;
                }
                Err(failed) => updated.unreadable.push(failed),
            }
            Ok::<_, Error>(())
        })?;
        Ok(updated)
    }
}

fn last_turn(seen: Option<&Seen>) -> (Option<i64>, Option<i64>) {
    let last = seen.and_then(|seen| seen.last.as_ref());
    (seen.map(|seen| seen.row), last.map(|last| i64::try_from(last.at_byte).unwrap_or(i64::MAX)))
}
