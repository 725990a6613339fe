//! Queries to the index.

use std::{borrow::Cow, collections::HashMap, path::Path};

use jiff::tz::TimeZone;
use rusqlite::{Connection, params};

use super::{Error, Index};
use cc_core::{
    ids::TraceId,
    reconcile::Tokens,
    transcript::record::Nanos,
    usage::{By, Counted, Report, Row, Summing, period},
};

/// Selects calls.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Calls since then, in nanoseconds since the epoch.
    pub since: Option<Nanos>,
    /// Calls in this directory or below it.
    pub project: Option<String>,
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
            By::Day | By::Week | By::Month => "call.at",
            By::Project => "call.project",
            By::Model => "call.model",
            By::Session => "session.session_id",
            By::Tool => "call.tools",
            By::Skill => "call.skill",
            By::Agent => "call.agent",
            By::Mcp => "call.mcp",
            By::Branch => "call.branch",
        };
        let sql = format!(
            "SELECT {key}, turn.trace, call.model, call.speed, call.input, call.output, call.cache_read, call.cache_write_5m,
                    call.cache_write_1h, call.is_call, call.project
             FROM call JOIN session ON session.id = call.session LEFT JOIN turn ON turn.id = call.turn
             WHERE call.is_own AND (?1 IS NULL OR call.at >= ?1)"
        );
        let mut statement = self.db.prepare_cached(&sql)?;
        let since = filter.since.map(|at| i64::try_from(at).unwrap_or(i64::MAX));
        let mut rows = statement.query(params![since])?;
        while let Some(row) = rows.next()? {
            if let Some(wanted) = &filter.project
                && !name(row.get(10)?).is_some_and(|dir| Path::new(dir).starts_with(wanted))
            {
                continue;
            }
            let count =
                |column: usize| row.get::<_, i64>(column).map(|number| u64::try_from(number).unwrap_or_default());
            let counted = Counted {
                trace: row.get::<_, Option<TraceId>>(1)?,
                model: name(row.get(2)?).unwrap_or_default(),
                speed: name(row.get(3)?),
                tokens: Tokens {
                    input: count(4)?,
                    output: count(5)?,
                    cache_read: count(6)?,
                    cache_write_5m: count(7)?,
                    cache_write_1h: count(8)?,
                },
                is_call: row.get(9)?,
            };
            let key: Cow<'_, str> = match by {
                By::Session => row.get::<_, String>(0)?.into(),
                by if by.is_time() => match row.get::<_, Option<i64>>(0)? {
                    None => by.none().into(),
                    Some(at) => {
                        // A quarter of an hour is within one day in every time zone.
                        let quarter = at.div_euclid(900 * 1_000_000_000);
                        let name = || {
                            period(by, u64::try_from(at).unwrap_or_default(), zone)
                                .unwrap_or_else(|| by.none().to_owned())
                        };
                        periods.entry(quarter).or_insert_with(name).clone().into()
                    }
                },
                by => name(row.get(0)?).unwrap_or(by.none()).into(),
            };
            sums.add(key, &counted);
        }
        let untraced = self.untraced(filter, None)?;
        Ok(Report { untraced, ..sums.report(by) })
    }

    /// What calls without a line used, in all sessions or one, of those that `filter` means.
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
            if let Some(wanted) = &filter.project
                && !dir.is_some_and(|dir| Path::new(dir).starts_with(wanted))
            {
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
