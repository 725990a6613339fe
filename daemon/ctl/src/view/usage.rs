//! The usage as a chart and a table; each row links to its sessions.

use maud::{Markup, html};

use super::{
    Site,
    html::{clean, cost, figure_heads, figures, number, page as frame},
    query::{Query, encode},
    sessions::over_budget,
    short,
};
use crate::{ui::amount::dollars, usage::is_over};
use cc_core::usage::{By, Report, Row};
use cc_langfuse::{clock, index::Filter};

/// Maximum number of bars: the latest, or the largest.
const BARS: usize = 60;

/// The size of the drawing, in its own units.
const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 160.0;

/// How many rows a page has, unless all are asked for: a long history has thousands of sessions.
pub(super) const MAX_ROWS: usize = 250;

fn by(query: &Query) -> By {
    By::ALL.iter().find(|(name, _)| query.get("by") == Some(name)).map_or(By::Day, |(_, by)| *by)
}

/// The sums that the query asks for.
pub(super) fn report(site: &Site, query: &Query) -> anyhow::Result<Report> {
    let days = query.number("days");
    let filter = Filter {
        since: (days > 0).then(|| clock::now_ns().saturating_sub(days.saturating_mul(86_400_000_000_000))),
        project: query.get("project").map(str::to_owned),
    };
    Ok(site.history().index.usage(&filter, by(query), &site.zone)?)
}

pub(super) fn page(site: &Site, query: &Query) -> anyhow::Result<Markup> {
    let (by, report) = (by(query), report(site, query)?);
    let key = |row: &Row| match by {
        By::Project => clean(&short(&row.key)),
        _ => clean(&row.key),
    };
    let budget = site.history().budget();
    let whole = report.total.cost_usd.unwrap_or_default();
    let share = |row: &Row| row.cost_usd.filter(|_| whole > 0.0).map(|cost| format!("{:.1} %", cost / whole * 100.0));
    let all = report.rows.len();
    let most = if query.get("all").is_some() { all } else { all.min(MAX_ROWS) };
    // The latest days, else what cost most.
    let rows = if by.is_time() { &report.rows[all - most..] } else { &report.rows[..most] };
    let main = html! {
        h1 { "Usage" }
        (over_budget(site))
        nav .tabs aria-label="Sums by" {
            @for (name, choice) in By::ALL {
                a href={ "usage" (query.with("by", name)) } aria-current=[(choice == by).then_some("true")] { (name) }
            }
        }
        nav .tabs aria-label="How far back" {
            @for (days, text) in [("", "all"), ("1", "24 hours"), ("7", "7 days"), ("30", "30 days")] {
                a href={ "usage" (query.with("days", days)) }
                    aria-current=[(query.get("days").unwrap_or_default() == days).then_some("true")] { (text) }
            }
        }
        @if let Some(project) = query.get("project") {
            p { "Only in " (clean(&short(project))) ". " a href={ "usage" (query.with("project", "")) } { "All projects" } }
        }
        (chart(&report, by, budget))
        div .wide { table .rows {
            caption .dim { (number(report.total.calls)) (if report.total.calls == 1 { " call" } else { " calls" }) " in " (number(report.total.turns)) (if report.total.turns == 1 { " turn, " } else { " turns, " })
                (report.total.cost_usd.map(dollars).unwrap_or_else(|| "no known price".to_owned())) " by list prices" }
            thead { tr {
                th scope="col" { (By::ALL.iter().find(|(_, known)| *known == by).map(|(name, _)| *name).unwrap_or_default()) }
                th .n scope="col" { "turns" } th .n scope="col" { "calls" } (figure_heads()) th .n scope="col" { "share" }
            } }
            tbody {
                @for row in rows {
                    tr .over[is_over(row, by, budget)] {
                        th scope="row" { (link(by, row, &key(row)))
                            @if is_over(row, by, budget) { span .error { " over budget" } } }
                        td .n { (number(row.turns)) } td .n { (number(row.calls)) }
                        (figures(row.tokens, row.cost_usd))
                        td .n { (share(row).unwrap_or_else(|| "–".to_owned())) }
                    }
                }
            }
            tfoot { tr {
                th scope="row" { "total" }
                td .n { (number(report.total.turns)) } td .n { (number(report.total.calls)) }
                (figures(report.total.tokens, report.total.cost_usd)) td .n { "" }
            } }
        } }
        (more(all - most, &format!("usage{}", query.with("all", "1"))))
        (beyond(&report.telemetry, &report.untraced))
        @if !report.unpriced.is_empty() {
            p { "Without a known price, in no cost above: "
                @for (at, (model, calls)) in report.unpriced.iter().enumerate() {
                    @if at > 0 { ", " } (clean(model)) " (" (number(*calls)) " calls)"
                } "." }
        }
    };
    Ok(frame("Usage", "", "Usage", site.version(), &main))
}

/// That `rows` more are not shown, and where they are.
pub(super) fn more(rows: usize, all: &str) -> Markup {
    html! {
        @if rows > 0 { p { (number(rows as u64)) " more are not shown. " a href=(all) { "Show all" } } }
    }
}

/// What no line in a transcript shows: what Claude Code's telemetry names, and the rest.
pub(super) fn beyond(telemetry: &Row, untraced: &Row) -> Markup {
    let why = [
        "These calls have no line in a transcript: titles, compactions, web searches.",
        "Claude Code counted them, but wrote no line for their calls: titles, compactions, web searches.",
    ];
    html! {
        @for ((row, name), why) in [(telemetry, "From telemetry"), (untraced, "Untraced")].into_iter().zip(why) {
            @if !row.tokens.is_none() {
                p { (name) ", in no row above: " (number(row.tokens.total())) " tokens, " (number(row.tokens.output)) " of them output, "
                    (row.cost_usd.map(dollars).unwrap_or_else(|| "no known price".to_owned()))
                    ". " (why) }
            }
        }
    }
}

/// A row's name, which leads to what it is of.
fn link(by: By, row: &Row, name: &str) -> Markup {
    let to = match by {
        By::Session => format!("session/{}", encode(&row.key)),
        By::Project => format!("./?project={}", encode(&row.key)),
        By::Model => format!("./?model={}", encode(&row.key)),
        _ => return html! { (name) },
    };
    html! { a href=(to) { (name) } }
}

/// A bar for each row, as high as its cost, or its tokens if nothing has a price.
fn chart(report: &Report, by: By, budget: Option<f64>) -> Markup {
    let rows = &report.rows;
    let shown = if by.is_time() { &rows[rows.len().saturating_sub(BARS)..] } else { &rows[..rows.len().min(BARS)] };
    let has_cost = report.total.cost_usd.is_some_and(|cost| cost > 0.0);
    let weight = |row: &Row| if has_cost { row.cost_usd.unwrap_or_default() } else { row.tokens.total() as f64 };
    let most = shown.iter().map(weight).fold(0.0, f64::max);
    if shown.is_empty() || most <= 0.0 {
        return html! {};
    }
    let step = WIDTH / shown.len() as f64;
    html! {
        svg .chart viewBox={ "0 0 " (WIDTH) " " (HEIGHT + 4.0) } role="img" aria-label={ "Cost by row; the table below says the same" } {
            @for (at, row) in shown.iter().enumerate() {
                @let height = (weight(row) / most * HEIGHT).max(1.0);
                rect .error[is_over(row, by, budget)] x=(format!("{:.1}", at as f64 * step + step * 0.1)) y=(format!("{:.1}", HEIGHT - height))
                    width=(format!("{:.1}", step * 0.8)) height=(format!("{height:.1}")) {
                    title { (clean(&row.key)) ": " (cost(row.cost_usd)) ", " (number(row.tokens.total())) " tokens" }
                }
            }
        }
    }
}
