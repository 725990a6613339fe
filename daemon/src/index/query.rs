//! Queries to the index.

use std::{
    borrow::Cow,
    collections::{HashMap, hash_map::Entry},
    path::Path,
};

use jiff::tz::TimeZone;
use rusqlite::{Connection, params};

use super::{Error, Index};
use cc_core::{
    ids::TraceId,
    reconcile::Tokens,
    transcript::record::Nanos,
    usage::{By, Counted, Prices, Report, Row, Summing, period},
};

/// Selects calls.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Calls since then, in nanoseconds since the epoch.
    pub since: Option<Nanos>,
    /// Calls in this directory or below it.
    pub project: Option<String>,
}

impl Filter {
    /// True if calls in this directory are selected.
    pub(super) fn is_of(&self, dir: Option<&String>) -> bool {
        let is_within = |wanted: &String| dir.is_some_and(|dir| Path::new(dir).starts_with(wanted));
        self.project.as_ref().is_none_or(is_within)
    }
}

impl Index {
    /// The sums of all calls that `filter` selects, each counted once, by `by`. Days are those of `zone`.
    ///
    /// # Errors
    /// Those of SQLite.
    pub fn usage(&self, filter: &Filter, by: By, zone: &TimeZone) -> Result<Report, Error> {
        let names = names(&self.db)?;
        let name = |id: Option<i64>| id.and_then(|id| names.get(&id)).map(String::as_str);
        let mut sums = Summing::default();
        // Times come in any order, mostly within a few days.
        let mut periods: HashMap<i64, String> = HashMap::new();
        let key = match by {
            By::Day | By::Week | By::Month => "at",
            By::Project => "project",
            By::Model => "model",
            By::Session => "session",
            By::Tool => "tools",
            By::Skill => "skill",
            By::Agent => "agent",
            By::Mcp => "mcp",
            By::Plugin => "plugin",
            By::Branch => "branch",
        };
        let sql = format!(
            "SELECT {key}, turn, model, speed, input, output, cache_read, cache_write_5m, cache_write_1h, is_call, project
             FROM call WHERE is_own AND {}",
            if filter.since.is_some() { "at >= ?1" } else { "?1 IS NULL" }
        );
        let mut statement = self.db.prepare_cached(&sql)?;
        let since = filter.since.map(|at| i64::try_from(at).unwrap_or(i64::MAX));
        let mut rows = statement.query(params![since])?;
        let mut trace_of = self.db.prepare_cached("SELECT trace FROM turn WHERE id = ?")?;
        let mut session_of = self.db.prepare_cached("SELECT session_id FROM session WHERE id = ?")?;
        let (mut prices, mut turn, mut trace) = (Prices::default(), None, None);
        let mut sessions: HashMap<i64, String> = HashMap::new();
        while let Some(row) = rows.next()? {
            if let Some(wanted) = &filter.project
                && !name(row.get(10)?).is_some_and(|dir| Path::new(dir).starts_with(wanted))
            {
                continue;
            }
            let count =
                |column: usize| row.get::<_, i64>(column).map(|number| u64::try_from(number).unwrap_or_default());
            let tokens = Tokens {
                input: count(4)?,
                output: count(5)?,
                cache_read: count(6)?,
                cache_write_5m: count(7)?,
                cache_write_1h: count(8)?,
            };
            // The calls of a turn mostly come one after another.
            let its: Option<i64> = row.get(1)?;
            if its != turn {
                trace = its.map(|turn| trace_of.query_row([turn], |row| row.get::<_, TraceId>(0))).transpose()?;
                turn = its;
            }
            let (model, speed): (i64, Option<i64>) = (row.get(2)?, row.get(3)?);
            let named = || (name(Some(model)).unwrap_or_default(), name(speed));
            let cost = prices.cost((model, speed), named, tokens);
            let counted = Counted { trace, model: named().0, cost, tokens, is_call: row.get(9)? };
            let key: Cow<'_, str> = match by {
                By::Session => {
                    let session = row.get(0)?;
                    if let Entry::Vacant(entry) = sessions.entry(session) {
                        entry.insert(session_of.query_row([session], |row| row.get(0))?);
                    }
                    sessions[&session].as_str().into()
                }
                by if by.is_time() => match row.get::<_, Option<i64>>(0)? {
                    None => by.none().into(),
                    Some(at) => {
                        // A quarter of an hour is within one day in every time zone.
                        let quarter = at.div_euclid(900 * 1_000_000_000);
                        let name = || {
                            period(by, u64::try_from(at).unwrap_or_default(), zone)
                                .unwrap_or_else(|| by.none().to_owned())
                        };
                        periods.entry(quarter).or_insert_with(name).as_str().into()
                    }
                },
                by => name(row.get(0)?).unwrap_or(by.none()).into(),
            };
            sums.add(key, &counted);
        }
        let (telemetry, untraced) = (self.telemetry(filter, None)?, self.untraced(filter, None)?);
        Ok(Report { telemetry, untraced, ..sums.report(by) })
    }

    /// What calls without a line used that nothing else names, in all sessions or one, of those that `filter` means.
    ///
    /// # Errors
    /// As SQLite says.
    pub fn untraced(&self, filter: &Filter, session_id: Option<&str>) -> Result<Row, Error> {
        let names = names(&self.db)?;
        let mut statement = self.db.prepare_cached(
            "SELECT untraced.project, input, output, cache_read, cache_write_5m, cache_write_1h, cost
             FROM untraced JOIN session ON session.id = untraced.session
             WHERE (?1 IS NULL OR at >= ?1) AND (?2 IS NULL OR session.session_id = ?2)",
        )?;
        let since = filter.since.map(|at| i64::try_from(at).unwrap_or(i64::MAX));
        let mut rows = statement.query(params![since, session_id])?;
        let mut sum = Row { key: "untraced".to_owned(), ..Row::default() };
        while let Some(row) = rows.next()? {
            let dir = row.get::<_, Option<i64>>(0)?.and_then(|id| names.get(&id));
            if !filter.is_of(dir) {
                continue;
            }
            sum.tokens += super::lists::tokens(row, 1)?;
            if let Some(cost) = row.get::<_, Option<f64>>(6)? {
                *sum.cost_usd.get_or_insert(0.0) += cost;
            }
        }
        Ok(sum)
    }
}

/// Every name, by its row.
pub(super) fn names(db: &Connection) -> Result<HashMap<i64, String>, Error> {
    let mut statement = db.prepare_cached("SELECT id, text FROM name")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
