//! Replaces what the index has of a session, or of its last turns, by what was read.

use std::collections::BTreeSet;

use rusqlite::{OptionalExtension, Transaction, params};

use super::{
    Error, Index,
    names::Names,
    own::{self, Of},
    read::{CallRow, EarlierRow, Facts, Session, State, TurnRow, UntracedRow},
};
use cc_core::{redact::Redactor, transcript::record::Nanos};

/// Clamped to SQLite's integers.
fn int(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

fn time(at: Option<Nanos>) -> Option<i64> {
    at.map(int)
}

/// The version of the program, which alone reads the states it wrote.
const PROGRAM: &str = env!("CARGO_PKG_VERSION");

fn encode(state: &State) -> Option<Vec<u8>> {
    serde_json::to_vec(&(PROGRAM, state)).ok()
}

pub(super) fn decode(bytes: &[u8]) -> Option<State> {
    let (program, state): (String, &serde_json::value::RawValue) = serde_json::from_slice(bytes).ok()?;
    (program == PROGRAM).then(|| serde_json::from_str(state.get()).ok()).flatten()
}

/// The rows of names for facts of a session: title, project, branch.
type FactRows = [Option<i64>; 3];

fn fact_rows(tx: &Transaction<'_>, names: &mut Names<'_>, facts: &Facts) -> rusqlite::Result<FactRows> {
    Ok([
        names.some(tx, facts.title.as_deref())?,
        names.some(tx, facts.project.as_deref())?,
        names.some(tx, facts.branch.as_deref())?,
    ])
}

/// Those of all turns, from those of the former and the later ones.
fn joined(former: FactRows, later: FactRows) -> FactRows {
    [later[0].or(former[0]), former[1].or(later[1]), later[2].or(former[2])]
}

impl Index {
    /// Stores `session`.
    pub(super) fn put(tx: &Transaction<'_>, session: &Session, redactor: &Redactor) -> Result<(), Error> {
        let Some(path) = session.path.to_str() else { return Ok(()) };
        let mut names = Names::new(redactor);
        let before: Option<(i64, Vec<u8>)> = tx
            .query_row("SELECT id, looks FROM session WHERE path = ?", [path], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let mut others = BTreeSet::new();
        let (mut facts, mut closed) =
            (fact_rows(tx, &mut names, &session.facts)?, fact_rows(tx, &mut names, &session.closed)?);
        let id = match (&session.from, before) {
            (Some((from, looks)), Some((id, known))) if *looks == known => {
                let sql = "SELECT title, project, branch FROM checkpoint WHERE session = ?";
                let former = tx.query_row(sql, [id], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?]))?;
                (facts, closed) = (joined(former, facts), joined(former, closed));
                others.extend(cut(tx, id, *from)?);
                for turn in &session.earlier {
                    others.extend(replace(tx, &mut names, id, turn)?);
                }
                id
            }
            // Another process has changed it since: what was read does not fit, and is read again next time.
            (Some(_), _) => return Ok(()),
            (None, before) => {
                if let Some((id, _)) = before {
                    others = own::rivals(tx, id, Of::All)?;
                    tx.execute("DELETE FROM session WHERE id = ?", [id])?;
                }
                let sql = "INSERT INTO session (session_id, path, looks, bytes, has_totals)
                           VALUES (?, ?, x'', 0, 0) RETURNING id";
                tx.prepare_cached(sql)?.query_row(params![session.session_id, path], |row| row.get(0))?
            }
        };
        tx.prepare_cached(
            "UPDATE session SET looks = ?, bytes = ?, title = ?, project = ?, branch = ?, forked_from = ?, parent = ?,
             has_totals = ? WHERE id = ?",
        )?
        .execute(params![
            session.looks,
            int(session.bytes),
            facts[0],
            facts[1],
            facts[2],
            session.facts.forked_from,
            session.parent,
            session.has_totals,
            id,
        ])?;
        let mut written = Vec::new();
        for turn in &session.turns {
            let row = put_turn(tx, id, turn)?;
            for call in &turn.calls {
                put_call(tx, &mut names, id, Some(row), call)?;
            }
            written.push(row);
        }
        for call in &session.unplaced {
            put_call(tx, &mut names, id, None, call)?;
        }
        if let Some(untraced) = &session.untraced {
            tx.execute("DELETE FROM untraced WHERE session = ?", [id])?;
            untraced.iter().try_for_each(|found| put_untraced(tx, &mut names, id, found))?;
        }
        tx.execute("DELETE FROM checkpoint WHERE session = ?", [id])?;
        if let Some((kept, state)) = session.state.as_ref().and_then(|state| Some((state, encode(state)?))) {
            let next = names.some(tx, kept.checkpoint.title())?;
            tx.prepare_cached("INSERT INTO checkpoint VALUES (?, ?, ?, ?, ?, ?, ?)")?.execute(params![
                id,
                session.modified,
                closed[0],
                closed[1],
                closed[2],
                next,
                state
            ])?;
        }
        if session.from.is_some() {
            for row in written {
                others.extend(own::rivals(tx, id, Of::Turn(row))?);
            }
            others.extend(own::rivals(tx, id, Of::Unplaced)?);
        } else {
            others.extend(own::rivals(tx, id, Of::All)?);
        }
        own::settle(tx, others)?;
        Ok(())
    }
}

/// Removes the turns of a session from that byte on, and the calls that belong to no turn. Returns the calls that may count now.
fn cut(tx: &Transaction<'_>, session: i64, from: u64) -> rusqlite::Result<BTreeSet<i64>> {
    let mut others = own::rivals(tx, session, Of::Unplaced)?;
    let mut statement = tx.prepare_cached("SELECT id FROM turn WHERE session = ? AND at_byte >= ?")?;
    let turns = statement.query_map(params![session, int(from)], |row| row.get(0))?;
    for turn in turns.collect::<Result<Vec<i64>, _>>()? {
        others.extend(own::rivals(tx, session, Of::Turn(turn))?);
        tx.prepare_cached("DELETE FROM turn WHERE id = ?")?.execute([turn])?;
    }
    tx.prepare_cached("DELETE FROM call WHERE session = ? AND turn IS NULL")?.execute([session])?;
    Ok(others)
}

/// Replaces the calls that subagents made for a turn. Returns the calls that may count now.
fn replace(
    tx: &Transaction<'_>,
    names: &mut Names<'_>,
    session: i64,
    turn: &EarlierRow,
) -> rusqlite::Result<BTreeSet<i64>> {
    let sql = "SELECT id FROM turn WHERE session = ? AND at_byte = ?";
    let found = tx.query_row(sql, params![session, int(turn.at_byte)], |row| row.get(0)).optional()?;
    let Some(row) = found else { return Ok(BTreeSet::new()) };
    let mut others = own::rivals(tx, session, Of::Turn(row))?;
    tx.prepare_cached("DELETE FROM call WHERE turn = ? AND is_apart")?.execute([row])?;
    tx.prepare_cached("UPDATE turn SET end = ?, tools = ?, failed_tools = ?, agents = ? WHERE id = ?")?
        .execute(params![time(turn.end), int(turn.tools), int(turn.failed_tools), int(turn.agents), row])?;
    for call in &turn.calls {
        put_call(tx, names, session, Some(row), call)?;
    }
    others.extend(own::rivals(tx, session, Of::Turn(row))?);
    Ok(others)
}

fn put_turn(tx: &Transaction<'_>, session: i64, turn: &TurnRow) -> rusqlite::Result<i64> {
    let sql = "INSERT INTO turn (session, trace, number, at_byte, start, end, tools, failed_tools, agents, flags)
               VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id";
    let values = params![
        session,
        turn.trace,
        turn.number,
        int(turn.at_byte),
        time(turn.start),
        time(turn.end),
        int(turn.tools),
        int(turn.failed_tools),
        int(turn.agents),
        turn.flags,
    ];
    tx.prepare_cached(sql)?.query_row(values, |row| row.get(0))
}

fn put_untraced(
    tx: &Transaction<'_>,
    names: &mut Names<'_>,
    session: i64,
    found: &UntracedRow,
) -> rusqlite::Result<()> {
    let (model, project) = (names.id(tx, &found.model)?, names.some(tx, found.project.as_deref())?);
    let [input, output, read, five, hour] = found.tokens.counts().map(int);
    let sql = "INSERT INTO untraced VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    let values = params![session, time(found.at), model, project, input, output, read, five, hour, found.cost_usd];
    tx.prepare_cached(sql)?.execute(values).map(drop)
}

fn put_call(
    tx: &Transaction<'_>,
    names: &mut Names<'_>,
    session: i64,
    turn: Option<i64>,
    call: &CallRow,
) -> rusqlite::Result<()> {
    let model = names.id(tx, &call.model)?;
    let mut some = |name: &Option<String>| names.some(tx, name.as_deref());
    let (speed, agent, skill) = (some(&call.speed)?, some(&call.agent)?, some(&call.skill)?);
    let (mcp, plugin, tools) = (some(&call.mcp_server)?, some(&call.plugin)?, some(&call.tools)?);
    let (project, branch) = (some(&call.project)?, some(&call.branch)?);
    let [input, output, cache_read, cache_write_5m, cache_write_1h] = call.tokens.counts().map(int);
    let [mark_1, mark_2, mark_3] = call.marks.map(|mark| mark.map(u64::cast_signed));
    tx.prepare_cached(
        "INSERT INTO call (session, turn, at, model, speed, input, output, cache_read, cache_write_5m, cache_write_1h, is_call,
         agent, skill, mcp, plugin, tools, project, branch, is_copied, is_apart, mark_1, mark_2, mark_3, is_own)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1)",
    )?
    .execute(params![
            session,
            turn,
            time(call.at),
            model,
            speed,
            input,
            output,
            cache_read,
            cache_write_5m,
            cache_write_1h,
            call.is_call,
            agent,
            skill,
            mcp,
            plugin,
            tools,
            project,
            branch,
            call.is_copied,
            call.is_apart,
            mark_1,
            mark_2,
            mark_3,
        ])
    .map(drop)
}
