//! The calls without a line that Claude Code's telemetry named. No transcript has them: they are passed in when the index is opened.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::{Error, Filter, Index, names::Names, query};
use cc_core::{
    book,
    redact::Redactor,
    telemetry,
    usage::{self, Row},
};

pub(super) const SCHEMA: &str = "
-- Calls without a line in a transcript, by what Claude Code's telemetry says.
CREATE TABLE hidden (
  session_id TEXT NOT NULL,
  at INTEGER NOT NULL,
  model INTEGER NOT NULL REFERENCES name,
  input INTEGER NOT NULL,
  output INTEGER NOT NULL,
  cache_read INTEGER NOT NULL,
  cache_write_5m INTEGER NOT NULL,
  cache_write_1h INTEGER NOT NULL,
  cost REAL
);
CREATE INDEX hidden_session ON hidden (session_id);
-- Which state of them these are.
CREATE TABLE hidden_stamp (stamp TEXT NOT NULL);
";

/// What distinguishes the calls of a session from what they were before.
fn digests(db: &Connection) -> rusqlite::Result<BTreeMap<String, (i64, i64, i64)>> {
    let sql = "SELECT session_id, count(*), max(at), sum(input + output + cache_read) FROM hidden GROUP BY 1";
    let mut rows = db.prepare(sql)?;
    rows.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?, row.get(3)?))))?.collect()
}

impl Index {
    /// The stamp that came with the calls that it has; empty if none ever came.
    ///
    /// # Errors
    /// Those of SQLite.
    pub fn stamp(&self) -> Result<String, Error> {
        let found = self.db.query_row("SELECT stamp FROM hidden_stamp", [], |row| row.get(0)).optional()?;
        Ok(found.unwrap_or_default())
    }

    /// Replaces all calls without a line by `calls`. Sessions whose remainder depends on them are read again at the next update.
    ///
    /// # Errors
    /// If the index cannot be written.
    pub fn know(&mut self, calls: &[telemetry::Call], stamp: &str, redactor: &Redactor) -> Result<(), Error> {
        let tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let before = digests(&tx)?;
        tx.execute("DELETE FROM hidden", [])?;
        let mut names = Names::new(redactor);
        for hidden in calls {
            let call = book::Call::from(hidden);
            let model = names.id(&tx, &call.model)?;
            let int = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
            let [input, output, read, five, hour] = call.tokens.counts().map(int);
            let values = params![hidden.session_id, int(hidden.end), model, input, output, read, five, hour, call.cost];
            tx.prepare_cached("INSERT INTO hidden VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)")?.execute(values)?;
        }
        let after = digests(&tx)?;
        let changed = before.keys().chain(after.keys()).filter(|session| before.get(*session) != after.get(*session));
        for session in changed {
            let sql = "UPDATE session SET looks = x'' WHERE session_id = ? AND has_totals RETURNING id";
            let ids: Vec<i64> =
                tx.prepare_cached(sql)?.query_map([session], |row| row.get(0))?.collect::<Result<_, _>>()?;
            for id in ids {
                tx.execute("DELETE FROM checkpoint WHERE session = ?", [id])?;
            }
        }
        tx.execute("DELETE FROM hidden_stamp", [])?;
        tx.execute("INSERT INTO hidden_stamp VALUES (?)", [stamp])?;
        Ok(tx.commit()?)
    }

    /// Those of a session.
    pub(super) fn hidden_of(&self, session_id: &str) -> Result<Vec<book::Call>, Error> {
        let sql = "SELECT at, text, input, output, cache_read, cache_write_5m, cache_write_1h, cost
                   FROM hidden JOIN name ON name.id = model WHERE session_id = ?";
        let mut rows = self.db.prepare_cached(sql)?;
        let rows = rows.query_map([session_id], |row| {
            Ok(book::Call {
                at: u64::try_from(row.get::<_, i64>(0)?).ok(),
                model: row.get(1)?,
                tokens: super::lists::tokens(row, 2)?,
                cost: row.get(7)?,
                is_call: true,
                is_cut: false,
                web: 0,
                is_copy: false,
                is_hidden: true,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// What they used, in all sessions of the index or one, of those that `filter` means.
    ///
    /// # Errors
    /// As SQLite says.
    pub fn telemetry(&self, filter: &Filter, session_id: Option<&str>) -> Result<Row, Error> {
        let names = query::names(&self.db)?;
        let mut statement = self.db.prepare_cached(
            "SELECT (SELECT max(project) FROM session WHERE session.session_id = hidden.session_id), model,
                input, output, cache_read, cache_write_5m, cache_write_1h, cost FROM hidden
             WHERE (?1 IS NULL OR at >= ?1) AND (?2 IS NULL OR session_id = ?2)
                AND session_id IN (SELECT session_id FROM session)",
        )?;
        let since = filter.since.map(|at| i64::try_from(at).unwrap_or(i64::MAX));
        let mut rows = statement.query(params![since, session_id])?;
        let mut sum = Row { key: "telemetry".to_owned(), ..Row::default() };
        while let Some(row) = rows.next()? {
            if !filter.is_of(row.get::<_, Option<i64>>(0)?.and_then(|id| names.get(&id))) {
                continue;
            }
            let tokens = super::lists::tokens(row, 2)?;
            sum.calls += 1;
            sum.tokens += tokens;
            let model = names.get(&row.get(1)?).map(String::as_str).unwrap_or_default();
            let cost = row.get::<_, Option<f64>>(7)?.or_else(|| usage::cost(model, None, tokens));
            if let Some(cost) = cost {
                *sum.cost_usd.get_or_insert(0.0) += cost;
            }
        }
        Ok(sum)
    }
}
