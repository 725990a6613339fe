//! Replaces what the index has of a session by what was read.

use rusqlite::{OptionalExtension, Transaction, params};

use super::{
    Error, Index,
    names::Names,
    own,
    read::{CallRow, Session, UntracedRow},
};
use cc_core::{redact::Redactor, transcript::record::Nanos};

/// Clamped to SQLite's integers.
fn int(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

fn time(at: Option<Nanos>) -> Option<i64> {
    at.map(int)
}

impl Index {
    /// Stores `session`.
    pub(super) fn put(tx: &Transaction<'_>, session: &Session, redactor: &Redactor) -> Result<(), Error> {
        let Some(path) = session.path.to_str() else { return Ok(()) };
        let mut names = Names::new(redactor);
        let before = tx.query_row("SELECT id FROM session WHERE path = ?", [path], |row| row.get(0)).optional()?;
        let mut others = Vec::new();
        if let Some(id) = before {
            others = own::rivals(tx, id)?;
            tx.execute("DELETE FROM session WHERE id = ?", [id])?;
        }
        let id: i64 = tx
            .prepare_cached(
                "INSERT INTO session (session_id, path, looks, bytes, title, project, branch, forked_from)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
            )?
            .query_row(
                params![
                    session.session_id,
                    path,
                    session.looks,
                    int(session.bytes),
                    names.some(tx, session.title.as_deref())?,
                    names.some(tx, session.project.as_deref())?,
                    names.some(tx, session.branch.as_deref())?,
                    session.forked_from,
                ],
                |row| row.get(0),
            )?;
        for turn in &session.turns {
            let row: i64 = tx
                .prepare_cached(
                    "INSERT INTO turn (session, trace, number, at_byte, start, end, tools, failed_tools, agents, flags)
                     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
                )?
                .query_row(
                    params![
                        id,
                        turn.trace,
                        turn.number,
                        int(turn.at_byte),
                        time(turn.start),
                        time(turn.end),
                        int(turn.tools),
                        int(turn.failed_tools),
                        int(turn.agents),
                        turn.flags,
                    ],
                    |row| row.get(0),
                )?;
            for call in &turn.calls {
                put_call(tx, &mut names, id, Some(row), call)?;
            }
        }
        for call in &session.unplaced {
            put_call(tx, &mut names, id, None, call)?;
        }
        for found in &session.untraced {
            put_untraced(tx, &mut names, id, found)?;
        }
        others.extend(own::rivals(tx, id)?);
        own::settle(tx, others)?;
        Ok(())
    }
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
    let (mcp, tools, project, branch) =
        (some(&call.mcp_server)?, some(&call.tools)?, some(&call.project)?, some(&call.branch)?);
    let [input, output, cache_read, cache_write_5m, cache_write_1h] = call.tokens.counts().map(int);
    let [mark_1, mark_2, mark_3] = call.marks.map(|mark| mark.map(u64::cast_signed));
    tx.prepare_cached(
        "INSERT INTO call (session, turn, at, model, speed, input, output, cache_read, cache_write_5m, cache_write_1h, is_call,
         agent, skill, mcp, tools, project, branch, is_copied, mark_1, mark_2, mark_3, is_own)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1)",
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
            tools,
            project,
            branch,
            call.is_copied,
            mark_1,
            mark_2,
            mark_3,
        ])
    .map(drop)
}
