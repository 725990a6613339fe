//! Lists of sessions, turns and calls for the pages of `view`.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    path::{Path, PathBuf},
};

use rusqlite::{OptionalExtension, Row, params};
use serde::{Serialize, Serializer};

use super::{Error, Index, query::names};
use cc_core::{
    ids::{TraceId, hex},
    reconcile::Tokens,
    transcript::record::Nanos,
    usage::{Prices, cost},
};

/// Usage, with each call counted once.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Sum {
    pub turns: u64,
    pub calls: u64,
    #[serde(flatten)]
    pub tokens: Tokens,
    /// US dollars; `None` if no call has a known price.
    pub cost_usd: Option<f64>,
}

impl Sum {
    fn add(&mut self, is_call: bool, tokens: Tokens, cost: Option<f64>) {
        self.calls += u64::from(is_call);
        self.tokens += tokens;
        if let Some(cost) = cost {
            *self.cost_usd.get_or_insert(0.0) += cost;
        }
    }
}

/// A session and its usage.
#[derive(Clone, Debug, Serialize)]
pub struct Listed {
    pub session_id: String,
    #[serde(skip)]
    pub path: PathBuf,
    pub title: Option<String>,
    pub project: Option<String>,
    pub branch: Option<String>,
    pub forked_from: Option<String>,
    pub models: BTreeSet<String>,
    /// When its first turn began, in nanoseconds since the epoch.
    #[serde(serialize_with = "time")]
    pub started: Option<Nanos>,
    /// Its last activity.
    #[serde(serialize_with = "time")]
    pub last: Option<Nanos>,
    /// All turns, including copied ones.
    pub all_turns: u64,
    pub agents: u64,
    pub tools: u64,
    pub failed_tools: u64,
    /// Turns that ended with an API error.
    pub errors: u64,
    pub interrupted: u64,
    /// The model is working, or was when the transcript ended.
    pub is_open: bool,
    #[serde(flatten)]
    pub sum: Sum,
    /// The byte offset of its first prompt.
    #[serde(skip)]
    pub first_prompt: Option<u64>,
}

/// A time in RFC 3339, UTC.
fn time<S: Serializer>(at: &Option<Nanos>, serializer: S) -> Result<S::Ok, S::Error> {
    at.and_then(|at| jiff::Timestamp::from_nanosecond(at.into()).ok()).map(|at| at.to_string()).serialize(serializer)
}

/// A turn and its usage.
#[derive(Clone, Debug)]
pub struct ListedTurn {
    pub trace: TraceId,
    pub number: u32,
    /// The byte offset of its prompt.
    pub at_byte: u64,
    pub start: Option<Nanos>,
    pub end: Option<Nanos>,
    pub tools: u64,
    pub failed_tools: u64,
    pub agents: u64,
    pub is_interrupted: bool,
    pub is_error: bool,
    pub is_open: bool,
    /// All its calls were copied from another session.
    pub is_copy: bool,
    pub sum: Sum,
}

impl ListedTurn {
    /// In hexadecimal.
    pub fn id(&self) -> String {
        hex(&self.trace)
    }
}

/// A model call.
#[derive(Clone, Debug)]
pub struct ListedCall {
    pub trace: Option<TraceId>,
    pub turn: Option<u32>,
    pub at: Option<Nanos>,
    pub model: String,
    pub speed: Option<String>,
    pub tokens: Tokens,
    pub agent: Option<String>,
    pub tools: Option<String>,
}

/// The position of a turn's prompt.
#[derive(Clone, Debug)]
pub struct PromptAt {
    pub trace: TraceId,
    pub number: u32,
    pub start: Option<Nanos>,
    /// The byte offset in the transcript.
    pub at_byte: u64,
}

pub(super) fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(|number| u64::try_from(number).unwrap_or_default())
}

pub(super) fn moment(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Nanos>> {
    row.get::<_, Option<i64>>(column).map(|at| at.and_then(|at| u64::try_from(at).ok()))
}

pub(super) fn tokens(row: &Row<'_>, first: usize) -> rusqlite::Result<Tokens> {
    Ok(Tokens {
        input: unsigned(row, first)?,
        output: unsigned(row, first + 1)?,
        cache_read: unsigned(row, first + 2)?,
        cache_write_5m: unsigned(row, first + 3)?,
        cache_write_1h: unsigned(row, first + 4)?,
    })
}

impl Index {
    /// Every session, the most recently active first.
    ///
    /// # Errors
    /// Those of SQLite.
    pub fn sessions(&self) -> Result<Vec<Listed>, Error> {
        let names = names(&self.db)?;
        let name = |id: Option<i64>| id.and_then(|id| names.get(&id)).cloned();
        let mut found: HashMap<i64, Listed> = HashMap::new();
        let mut statement =
            self.db.prepare_cached("SELECT id, session_id, path, title, project, branch, forked_from FROM session")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let listed = Listed {
                session_id: row.get(1)?,
                path: row.get::<_, String>(2)?.into(),
                title: name(row.get(3)?),
                project: name(row.get(4)?),
                branch: name(row.get(5)?),
                forked_from: row.get(6)?,
                models: BTreeSet::new(),
                started: None,
                last: None,
                all_turns: 0,
                agents: 0,
                tools: 0,
                failed_tools: 0,
                errors: 0,
                interrupted: 0,
                is_open: false,
                sum: Sum::default(),
                first_prompt: None,
            };
            found.insert(row.get(0)?, listed);
        }
        let mut statement = self.db.prepare_cached(
            "SELECT session, start, end, tools, failed_tools, agents, flags, at_byte FROM turn ORDER BY id",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let Some(listed) = found.get_mut(&row.get(0)?) else { continue };
            let (start, end, flags) = (moment(row, 1)?, moment(row, 2)?, unsigned(row, 6)?);
            listed.all_turns += 1;
            listed.started = listed.started.min(start).or(listed.started).or(start);
            listed.last = listed.last.max(start).max(end);
            listed.tools += unsigned(row, 3)?;
            listed.failed_tools += unsigned(row, 4)?;
            listed.agents += unsigned(row, 5)?;
            listed.interrupted += flags & 1;
            listed.errors += flags >> 1 & 1;
            listed.is_open = flags & 5 == 4;
            listed.first_prompt = listed.first_prompt.or(Some(unsigned(row, 7)?));
        }
        let mut statement = self.db.prepare_cached(
            "SELECT session, turn, model, speed, is_call, input, output, cache_read, cache_write_5m, cache_write_1h
             FROM call WHERE is_own ORDER BY id",
        )?;
        let mut rows = statement.query([])?;
        let (mut turns, mut last, mut prices): (HashSet<i64>, _, _) = (HashSet::new(), None, Prices::default());
        while let Some(row) = rows.next()? {
            let (session, turn): (i64, Option<i64>) = (row.get(0)?, row.get(1)?);
            let Some(listed) = found.get_mut(&session) else { continue };
            let (model_id, speed): (i64, Option<i64>) = (row.get(2)?, row.get(3)?);
            let model = names.get(&model_id).map_or("", String::as_str);
            let speed_name = || speed.and_then(|id| names.get(&id)).map(String::as_str);
            let tokens = tokens(row, 5)?;
            listed.sum.add(row.get(4)?, tokens, prices.cost((model_id, speed), || (model, speed_name()), tokens));
            if turn != last {
                listed.sum.turns += u64::from(turn.is_some_and(|turn| turns.insert(turn)));
                last = turn;
            }
            if !listed.models.contains(model) {
                listed.models.insert(model.to_owned());
            }
        }
        let mut found: Vec<Listed> = found.into_values().collect();
        found.sort_by(|one, other| (other.last, &other.session_id).cmp(&(one.last, &one.session_id)));
        Ok(found)
    }

    /// The traces of at most `limit` last turns of each of these transcripts.
    ///
    /// # Errors
    /// Those of SQLite.
    pub fn last_traces(&self, paths: &[&Path], limit: usize) -> Result<Vec<Vec<TraceId>>, Error> {
        let mut statement = self.db.prepare_cached(
            "SELECT asked.key, turn.trace FROM json_each(?) AS asked CROSS JOIN session ON session.path = asked.value
             CROSS JOIN turn ON turn.session = session.id ORDER BY asked.key, turn.at_byte DESC",
        )?;
        let mut found = vec![Vec::new(); paths.len()];
        let asked: Vec<Option<&str>> = paths.iter().map(|path| path.to_str()).collect();
        let mut rows = statement.query([serde_json::to_string(&asked).unwrap_or_default()])?;
        while let Some(row) = rows.next()? {
            if let Some(traces) = found.get_mut(row.get::<_, u32>(0)? as usize).filter(|traces| traces.len() < limit) {
                traces.push(row.get(1)?);
            }
        }
        Ok(found)
    }

    /// The turns of a session, in the order of its transcript.
    ///
    /// # Errors
    /// Those of SQLite.
    pub fn turns(&self, session_id: &str) -> Result<Vec<ListedTurn>, Error> {
        let names = names(&self.db)?;
        let mut found: Vec<(i64, ListedTurn)> = Vec::new();
        let mut statement = self.db.prepare_cached(
            "SELECT turn.id, trace, number, at_byte, start, end, tools, failed_tools, agents, flags
             FROM turn JOIN session ON session.id = turn.session WHERE session_id = ? ORDER BY at_byte",
        )?;
        let mut rows = statement.query([session_id])?;
        while let Some(row) = rows.next()? {
            let flags = unsigned(row, 9)?;
            let turn = ListedTurn {
                trace: row.get(1)?,
                number: row.get(2)?,
                at_byte: unsigned(row, 3)?,
                start: moment(row, 4)?,
                end: moment(row, 5)?,
                tools: unsigned(row, 6)?,
                failed_tools: unsigned(row, 7)?,
                agents: unsigned(row, 8)?,
                is_interrupted: flags & 1 != 0,
                is_error: flags & 2 != 0,
                is_open: flags & 5 == 4,
                is_copy: false,
                sum: Sum::default(),
            };
            found.push((row.get(0)?, turn));
        }
        let mut statement = self.db.prepare_cached(
            "SELECT model, speed, is_call, is_own, input, output, cache_read, cache_write_5m, cache_write_1h
             FROM call WHERE turn = ?",
        )?;
        for (id, turn) in &mut found {
            let (mut all, mut own) = (0, 0);
            let mut rows = statement.query([*id])?;
            while let Some(row) = rows.next()? {
                all += 1;
                if !row.get::<_, bool>(3)? {
                    continue;
                }
                own += 1;
                let name = |id: Option<i64>| id.and_then(|id| names.get(&id)).map(String::as_str);
                let tokens = tokens(row, 4)?;
                let cost = cost(name(row.get(0)?).unwrap_or_default(), name(row.get(1)?), tokens);
                turn.sum.add(row.get(2)?, tokens, cost);
            }
            turn.sum.turns = u64::from(own > 0);
            turn.is_copy = all > 0 && own == 0;
        }
        Ok(found.into_iter().map(|(_, turn)| turn).collect())
    }

    /// The calls of a session in the order of their times, without advice within calls.
    ///
    /// # Errors
    /// Those of SQLite.
    pub fn calls(&self, session_id: &str) -> Result<Vec<ListedCall>, Error> {
        let names = names(&self.db)?;
        let name = |id: Option<i64>| id.and_then(|id| names.get(&id)).cloned();
        let mut statement = self.db.prepare_cached(
            "SELECT turn.trace, turn.number, call.at, model, speed, input, output, cache_read, cache_write_5m, cache_write_1h,
                    call.agent, call.tools
             FROM call JOIN session ON session.id = call.session LEFT JOIN turn ON turn.id = call.turn
             WHERE session_id = ? AND is_own AND is_call ORDER BY call.at, call.id",
        )?;
        let rows = statement.query_map([session_id], |row| {
            Ok(ListedCall {
                trace: row.get(0)?,
                turn: row.get(1)?,
                at: moment(row, 2)?,
                model: name(row.get(3)?).unwrap_or_default(),
                speed: name(row.get(4)?),
                tokens: tokens(row, 5)?,
                agent: name(row.get(10)?),
                tools: name(row.get(11)?),
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The positions of a session's prompts, newest first.
    ///
    /// # Errors
    /// Those of SQLite.
    pub fn prompts(&self, session_id: &str) -> Result<Vec<PromptAt>, Error> {
        let mut statement = self.db.prepare_cached(
            "SELECT trace, number, start, at_byte FROM turn JOIN session ON session.id = turn.session
             WHERE session_id = ? ORDER BY at_byte DESC",
        )?;
        let rows = statement.query_map([session_id], |row| {
            Ok(PromptAt { trace: row.get(0)?, number: row.get(1)?, start: moment(row, 2)?, at_byte: unsigned(row, 3)? })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The session with a turn of this trace; if it was copied, the session that created it.
    ///
    /// # Errors
    /// Those of SQLite.
    pub fn session_of(&self, trace: &TraceId) -> Result<Option<String>, Error> {
        let sql = "SELECT session_id FROM turn JOIN session ON session.id = turn.session WHERE trace = ?
                   ORDER BY EXISTS (SELECT 1 FROM call WHERE call.turn = turn.id AND is_own) DESC LIMIT 1";
        Ok(self.db.query_row(sql, params![trace], |row| row.get(0)).optional()?)
    }

    /// A number that changes when another process changes the index.
    ///
    /// # Errors
    /// Those of SQLite.
    pub fn version(&self) -> Result<i64, Error> {
        Ok(self.db.query_row("PRAGMA data_version", [], |row| row.get(0))?)
    }
}
