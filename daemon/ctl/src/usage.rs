//! `usage`: the tokens and cost of model calls, by day, project, model and other keys.

use std::{fmt::Write, path::PathBuf, process::ExitCode, time::Duration};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use jiff::{Timestamp, civil::Date, tz::TimeZone};

use crate::{
    client,
    history::History,
    ui::{
        amount::{count, dollars, short},
        table, terminal,
    },
};
use cc_core::{
    transcript::record::Nanos,
    usage::{By, Report, Row},
};
use cc_langfuse::{
    clock,
    index::{Filter, Index, Spent},
    output::{self, Look},
};

/// Maximum length of a key that is shown, in characters.
const KEY: usize = 48;

/// Marks a day that cost more than the budget.
const OVER: &str = "  over budget";

#[derive(clap::Args)]
#[command(after_help = "Examples:
  cc-langfusectl usage
  cc-langfusectl usage --by project --since 30d
  cc-langfusectl usage --by model --since 2026-11-01 --csv
  cc-langfusectl usage --by session --json ~/.claude/projects/-home-me-app

Every model call with a line in a transcript counts once, however often it was copied by forks and resumed sessions; subagents count for the
session that launched them. Calls without a line (titles, compactions, web searches) are `telemetry` where setup --native-otel brought them; what Claude Code itself counted beyond both is `untraced`. Costs are those of Anthropic's list prices; config.toml can name others.")]
pub(crate) struct Usage {
    /// Transcripts or directories of transcripts, to read instead of your own
    paths: Vec<PathBuf>,
    /// Group by this
    #[arg(long, value_name = "KEY", value_parser = by(), default_value = "day")]
    by: By,
    /// Only calls since then: 12h, 30d, 4w, or a day such as 2026-11-01
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Since>,
    /// Only calls in this directory, or below it
    #[arg(long, value_name = "DIR")]
    project: Option<PathBuf>,
    /// Use UTC for days and weeks instead of local time
    #[arg(long)]
    utc: bool,
    /// One JSON object: `rows`, `total`, `telemetry`, `untraced`
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Comma-separated values, with a header line
    #[arg(long)]
    csv: bool,
}

/// The names of the keys.
fn by() -> impl TypedValueParser<Value = By> {
    let names = PossibleValuesParser::new(By::ALL.map(|(name, _)| name));
    names.map(|given| By::ALL.iter().find(|(name, _)| *name == given).map_or(By::Day, |(_, by)| *by))
}

/// The start of the period.
#[derive(Clone, Copy)]
enum Since {
    Before(Duration),
    Day(Date),
}

const WRONG: &str = "a number and a unit, as in 30d, or a day, as in 2026-11-01";

fn since(text: &str) -> Result<Since, String> {
    if let Ok(day) = text.parse() {
        return Ok(Since::Day(day));
    }
    if text.ends_with(|c: char| c.is_ascii_digit()) {
        return Err(WRONG.to_owned());
    }
    crate::ui::amount::duration(text).map(Since::Before).map_err(|_| WRONG.to_owned())
}

/// The moment that `text` means as a value of `--since`.
pub(crate) fn since_of(text: &str, zone: &TimeZone) -> anyhow::Result<Nanos> {
    start(since(text).map_err(anyhow::Error::msg)?, zone)
}

impl Usage {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let zone = if self.utc { TimeZone::UTC } else { TimeZone::system() };
        let project = self.project.as_ref().map(std::path::absolute).transpose()?;
        let filter = Filter {
            since: self.since.map(|since| start(since, &zone)).transpose()?,
            project: project.map(|dir| dir.to_string_lossy().into_owned()),
        };
        let by = self.by;
        let mut history = History::open(&self.paths)?;
        history.update()?;
        let report = history.index.usage(&filter, by, &zone)?;
        if self.json {
            output::json(&report, false)?;
        } else if self.csv {
            output::document(&csv(&report)?);
        } else if report.rows.is_empty() {
            out!("no model calls{}", if filter.since.is_some() { " since then" } else { " yet" });
        } else {
            let home = client::home()?;
            let named = |row: &Row| match by {
                By::Project => table::path(row.key.as_ref(), &home),
                _ => row.key.clone(),
            };
            let budget = history.budget();
            for (line, look) in table(&report, by, budget, named) {
                let _ = output::painted(look, format_args!("{line}"));
            }
            if let Some(over) = budget.and_then(|budget| over_budget(&history.index, budget, &zone)) {
                let _ = output::painted(Look::Red, format_args!("{over}"));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn start(since: Since, zone: &TimeZone) -> anyhow::Result<Nanos> {
    Ok(match since {
        Since::Before(time) => clock::now_ns().saturating_sub(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)),
        Since::Day(day) => {
            let midnight: Timestamp = zone.to_zoned(day.at(0, 0, 0, 0))?.timestamp();
            u64::try_from(midnight.as_nanosecond()).unwrap_or_default()
        }
    })
}

/// The start of this day, in nanoseconds since the epoch.
pub(crate) fn midnight(zone: &TimeZone) -> Option<Nanos> {
    let now = Timestamp::from_nanosecond(clock::now_ns().into()).ok()?;
    let start = now.to_zoned(zone.clone()).start_of_day().ok()?;
    Nanos::try_from(start.timestamp().as_nanosecond()).ok()
}

/// What to say if this day has cost more than `budget` dollars.
pub(crate) fn over_budget(index: &Index, budget: f64, zone: &TimeZone) -> Option<String> {
    let midnight = midnight(zone)?;
    let spent = index.spent(Spent::Since(midnight), None).ok()?.cost_usd?;
    (spent > budget).then(|| format!("Over budget: {} today, of {} a day.", dollars(spent), dollars(budget)))
}

/// True for a day that has cost more than `budget`.
pub(crate) fn is_over(row: &Row, by: By, budget: Option<f64>) -> bool {
    by == By::Day && budget.zip(row.cost_usd).is_some_and(|(budget, cost)| cost > budget)
}

/// The lines of the table, with whole numbers if there is room for them. Days over `budget` are marked.
fn table(report: &Report, by: By, budget: Option<f64>, named: impl Fn(&Row) -> String) -> Vec<(String, Look)> {
    let width = terminal::width();
    // Without as many of these columns as it takes, the least needed first.
    const SPARE: [usize; 2] = [9, 1];
    let build = |number: fn(u64) -> String, key: usize, without: &[usize]| {
        let heads = ["", "turns", "calls", "input", "output", "cache read", "write 5m", "write 1h", "cost", "share"];
        let mut rows = vec![heads.map(str::to_owned).to_vec()];
        rows[0][0] =
            By::ALL.iter().find(|(_, known)| *known == by).map(|(name, _)| (*name).to_owned()).unwrap_or_default();
        let whole = report.total.cost_usd.unwrap_or_default();
        for row in report.rows.iter().chain([&report.total]) {
            let share = row.cost_usd.filter(|_| whole > 0.0).map(|cost| format!("{:.0} %", cost / whole * 100.0));
            let mut cells = vec![table::clip(&named(row), key)];
            cells.extend([row.turns, row.calls].map(number));
            cells.extend(row.tokens.counts().map(number));
            cells.push(row.cost_usd.map_or_else(|| "-".to_owned(), dollars));
            cells.push(share.unwrap_or_else(|| "-".to_owned()));
            rows.push(cells);
        }
        let keeps = |row: Vec<String>| {
            let cells = row.into_iter().enumerate().filter(|(column, _)| !without.contains(column));
            cells.map(|(_, cell)| cell).collect::<Vec<_>>()
        };
        let mut lines = table::right_aligned(&rows.into_iter().map(keeps).collect::<Vec<_>>());
        for (line, _) in lines.iter_mut().skip(1).zip(&report.rows).filter(|(_, row)| is_over(row, by, budget)) {
            line.push_str(OVER);
        }
        lines
    };
    let fits = |lines: &[String]| width.is_none_or(|width| lines.iter().all(|line| table::width(line) <= width));
    let mut lines = build(|number| number.to_string(), KEY, &[]);
    for (key, without) in [(KEY, 0), (KEY / 3, 0), (KEY / 3, 1), (KEY / 3, 2)] {
        if fits(&lines) {
            break;
        }
        lines = build(short, key, &SPARE[..without]);
    }
    let beyond = [
        (&report.telemetry, "From telemetry", "calls without a line, such as titles, compactions and web searches"),
        (&report.untraced, "Untraced", "Claude Code counted them, but wrote no line for their calls"),
    ];
    for (Row { tokens, cost_usd, .. }, name, what) in beyond.into_iter().filter(|(row, ..)| !row.tokens.is_none()) {
        let cost = cost_usd.map_or_else(|| "no known price".to_owned(), dollars);
        let (input, output) = (tokens.total() - tokens.output, tokens.output);
        lines.push(format!("{name}, in no row above: {input} tokens in, {output} out, {cost}: {what}."));
    }
    if !report.unpriced.is_empty() {
        let models =
            report.unpriced.iter().map(|(model, calls)| format!("{model} ({})", count(*calls as usize, "call")));
        lines.push(format!("Without a known price, in no cost above: {}.", models.collect::<Vec<_>>().join(", ")));
    }
    let looks = |at: usize| match at.checked_sub(1).and_then(|at| report.rows.get(at)) {
        Some(row) if is_over(row, by, budget) => Look::Red,
        _ => Look::Plain,
    };
    lines.into_iter().enumerate().map(|(at, line)| (line, looks(at))).collect()
}

fn csv(report: &Report) -> anyhow::Result<String> {
    let mut text = "key,turns,calls,input,output,cache_read,cache_write_5m,cache_write_1h,cost_usd\n".to_owned();
    for row in report.rows.iter().chain([&report.total]) {
        let key = row.key.replace('"', "\"\"");
        let key = if key.contains([',', '"', '\n', '\r']) { format!("\"{key}\"") } else { key };
        // A spreadsheet would run it as a formula.
        let key = if key.starts_with(['=', '+', '-', '@', '\t']) { format!("'{key}") } else { key };
        write!(text, "{key},{},{}", row.turns, row.calls)?;
        row.tokens.counts().iter().try_for_each(|number| write!(text, ",{number}"))?;
        writeln!(text, ",{}", row.cost_usd.map(|cost| cost.to_string()).unwrap_or_default())?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cc_core::reconcile::Tokens;

    #[test]
    fn a_key_is_one_cell_and_no_formula() {
        let row = |key: &str| Row {
            key: key.into(),
            turns: 1,
            calls: 2,
            tokens: Tokens { input: 3, ..Tokens::default() },
            cost_usd: Some(0.5),
        };
        let report = Report {
            rows: vec![row("a,b\"c"), row("=cmd()"), Row { cost_usd: None, ..row("plain") }],
            total: row("total"),
            telemetry: Row::default(),
            untraced: Row::default(),
            unpriced: Default::default(),
        };
        let text = csv(&report).unwrap();
        let lines: Vec<_> = text.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "\"a,b\"\"c\",1,2,3,0,0,0,0,0.5",
                "'=cmd(),1,2,3,0,0,0,0,0.5",
                "plain,1,2,3,0,0,0,0,",
                "total,1,2,3,0,0,0,0,0.5"
            ]
        );
    }

    #[test]
    fn a_start_is_a_span_or_a_day() {
        for (text, is_good) in
            [("30d", true), ("12h", true), ("2026-11-01", true), ("30", false), ("", false), ("2026-13-01", false)]
        {
            assert_eq!(since(text).is_ok(), is_good, "{text}");
        }
    }
}
