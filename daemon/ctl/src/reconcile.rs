//! `reconcile`: compares a session's traced tokens with Claude Code's own totals.

use std::process::ExitCode;

use anyhow::Context;
use serde_json::json;

use crate::{
    hidden,
    session::{self, Found},
    ui::{amount::count, table},
};
use cc_core::{
    book::Untraced,
    reconcile::{self, Row, Tokens},
};
use cc_langfuse::{output, rebuild};

const COLUMNS: [&str; 5] = ["input", "output", "cache read", "write 5m", "write 1h"];

/// Maximum length of a model's name in the output, in characters.
const NAME: usize = 100;

/// Usage that leaves no line in a transcript.
const UNSEEN: &str = "compactions, titles, web searches, answers without content or cut short \
                      (Claude Code writes no line for these, or not their tokens)";

pub(crate) fn reconcile(session: Option<&str>, json: bool) -> anyhow::Result<ExitCode> {
    let Found { id, transcript: path } = session::offline(session)?;
    let mut book = rebuild::book(&path, &id).with_context(|| format!("{} cannot be read", path.display()))?;
    let hidden = hidden::calls(Some(&id), "").and_then(|found| found.calls).unwrap_or_default();
    book.calls.extend(hidden.iter().map(Into::into));
    let mut untraced = Untraced::default();
    rebuild::untraced(&path, &book).iter().for_each(|found| untraced.add(&found.untraced));
    let traced = book.traced();
    let stated = book.runs.last().map(|run| run.stated.clone());
    let rows = stated.as_ref().map(|stated| reconcile::rows(&traced.models, &traced.telemetry, stated));
    let exceeds = rows.iter().flatten().any(|row| !row.excess.is_none());
    let code = if exceeds { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    if json {
        let report = json!({
            "session_id": id, "transcript": path, "traced": traced, "stated": stated, "models": rows, "exceeds": exceeds,
            "telemetry": traced.telemetry_row(), "untraced": untraced.row(),
        });
        output::json(&report, true)?;
        return Ok(code);
    }
    let (Some(rows), Some(stated)) = (rows, stated) else {
        out!("{} traced, with nothing to compare them to: the transcript has no totals.", count_calls(traced.calls));
        out!("Claude Code 2.1.302 and later writes them when it ends.");
        traced.models.iter().for_each(|(model, tokens)| {
            out!("{}", header(model));
            out!("{}", line("traced", tokens));
        });
        return Ok(code);
    };
    for row in &rows {
        out!("{}", header(&row.model));
        out!("{}", line("traced", &row.traced));
        if !row.telemetry.is_none() {
            out!("{}", line("from telemetry", &row.telemetry));
        }
        out!("{}", line("Claude Code says", &row.stated));
        if !row.unseen.is_none() {
            out!("{}", line("in no line", &row.unseen));
        }
        if !row.excess.is_none() {
            out!("{}", line("too many", &row.excess));
        }
    }
    out!("{} traced; Claude Code says they cost ${:.4}.", count_calls(traced.calls), stated.cost_usd);
    if traced.telemetry_calls > 0 {
        out!("{} of them without a line, which Claude Code's telemetry names.", count_calls(traced.telemetry_calls));
    }
    if traced.later > 0 {
        out!("{} made after Claude Code wrote its totals: not compared.", count_calls(traced.later));
    }
    if traced.elsewhere > 0 {
        out!(
            "{} made before Claude Code started these totals, or by the session this one was copied from: not \
                compared.",
            count_calls(traced.elsewhere)
        );
    }
    for row in rows.iter().filter(|row| !row.unseen.is_none()) {
        out!("{} are in no line of a transcript: {UNSEEN}.", what(row));
    }
    let causes = traced.causes();
    if !causes.is_empty() && rows.iter().any(|row| !row.unseen.is_none()) {
        out!("In this session: {}.", causes.join(", "));
    }
    if exceeds {
        out!(
            "More is traced than Claude Code counted: an earlier run ended without writing its totals. No call is \
                counted twice."
        );
    } else if rows.iter().all(|row| row.unseen.is_none()) {
        out!("Both agree.");
    }
    if !untraced.is_none() {
        let of_parent =
            rows.iter().map(|row| row.unseen.total()).sum::<u64>().saturating_sub(untraced.tokens().total());
        out!(
            "{} tokens of this session are untraced{}: the event `untraced calls` below its last turn lists them.",
            untraced.tokens().total(),
            untraced.cost_usd().map_or_else(String::new, |cost| format!(", ${cost:.4}"))
        );
        if of_parent > 0 {
            out!("{of_parent} more belong to the session it was forked from.");
        }
    } else if traced.is_fork && rows.iter().any(|row| !row.unseen.is_none()) {
        out!("They belong to the session it was forked from, or cannot be separated from them.");
    }
    Ok(code)
}

fn count_calls(calls: u64) -> String {
    count(usize::try_from(calls).unwrap_or(usize::MAX), "call")
}

/// How many tokens of a model are in no line; the output tokens, if there are any.
fn what(row: &Row) -> String {
    let (kind, tokens) = match row.unseen.output {
        0 => ("", row.unseen.counts().iter().sum()),
        output => ("output ", output),
    };
    format!("{tokens} {kind}tokens of {}", table::clip(&row.model, NAME))
}

fn header(model: &str) -> String {
    COLUMNS.iter().fold(format!("{:<32}", table::clip(model, NAME)), |line, column| format!("{line}{column:>12}"))
}

fn line(name: &str, tokens: &Tokens) -> String {
    tokens.counts().iter().fold(format!("  {name:<30}"), |line, count| format!("{line}{count:>12}"))
}
