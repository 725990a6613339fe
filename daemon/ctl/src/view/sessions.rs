//! The first page: every session, the most recently active first.

use std::path::Path;

use maud::{Markup, html};

use super::{
    Site, delivery,
    html::{clean, cost, number, page as frame, pager, part, time},
    query::{Query, encode},
    short,
};
use crate::{history::prompt, usage};
use cc_core::visible;
use cc_langfuse::{clock, index::Listed};

/// Sessions per page.
const SIZE: usize = 50;

/// Of this many last turns of a session the list says what is delivered.
const TURNS: usize = 80;

/// Maximum length of a title or prompt, in characters.
const TITLE: usize = 100;

/// After a silence of this many nanoseconds, a session that stopped in the middle of a turn counts as abandoned.
const SILENT: u64 = 10 * 60 * 1_000_000_000;

pub(super) fn page(site: &Site, query: &Query) -> anyhow::Result<Markup> {
    let all = site.sessions();
    let (projects, models) = (
        choices(&all, |one| one.project.iter().cloned().collect()),
        choices(&all, |one| one.models.iter().cloned().collect()),
    );
    let count = all.len();
    let found: Vec<&Listed> = all.iter().filter(|one| is_wanted(one, query)).collect();
    let (at, pages, shown) = part(&found, query, SIZE);
    let (rules, traces) = {
        let history = site.history();
        let paths: Vec<&Path> = shown.iter().map(|one| one.path.as_path()).collect();
        (history.config.rules.clone(), history.index.last_traces(&paths, TURNS)?)
    };
    let deliveries = delivery::of_all(site, &traces);
    let is_sent = deliveries.iter().any(|found| !found.is_empty());
    let main = html! {
        h1 { "Sessions" }
        (over_budget(site))
        form .filters {
            label { "Project " (select("project", &projects, query, short)) }
            label { "Model " (select("model", &models, query, str::to_owned)) }
            label { "State " select name="state" {
                option value="" { "all" }
                @for state in ["working", "waiting", "with errors", "with subagents"] {
                    option value=(state) selected[query.get("state") == Some(state)] { (state) }
                }
            } }
            label { "Title or branch " input type="search" name="q" value=(query.get("q").unwrap_or_default()); }
            button { "Filter" }
        }
        p .dim aria-live="polite" { (number(found.len() as u64)) " of " (number(count as u64)) (if count == 1 { " session" } else { " sessions" }) }
        @if count == 0 {
            p { "No transcripts yet. Claude Code writes one for each session, below " code { "~/.claude/projects" } "." }
        }
        div .wide { table .rows {
            thead { tr {
                th scope="col" { "Session" } th scope="col" { "Project" } th scope="col" { "Last" }
                th .n scope="col" { "turns" } th .n scope="col" { "calls" } th .n scope="col" { "agents" }
                th .n scope="col" { "errors" } th .n scope="col" { "tokens" } th .n scope="col" { "cost" } th scope="col" { "State" }
                @if is_sent { th scope="col" { "Delivery" } }
            } }
            tbody {
                @for (index, one) in shown.iter().enumerate() {
                    tr {
                        th scope="row" {
                            a href={ "session/" (encode(&one.session_id)) } { (title(one, &rules)) }
                            div .dim { (visible::clipped(&one.session_id, 9)) " · " (models_of(one)) }
                        }
                        td { (clean(&one.project.as_deref().map(short).unwrap_or_default()))
                            @if let Some(branch) = &one.branch { div .dim { (clean(branch)) } } }
                        td { (time(one.last, &site.zone)) }
                        td .n { (number(one.sum.turns)) }
                        td .n { (number(one.sum.calls)) }
                        td .n { (number(one.agents)) }
                        td .n { (number(one.errors + one.failed_tools)) }
                        td .n { (number(one.sum.tokens.total())) }
                        td .n { (cost(one.sum.cost_usd)) }
                        td { (state(one)) }
                        @if is_sent { td { (delivery::brief(deliveries.get(index).map_or(&[], Vec::as_slice))) } }
                    }
                }
            }
        } }
        (pager(query, at, pages))
    };
    Ok(frame("Sessions", "", "Sessions", site.version(), &main))
}

/// Says so if this day has cost more than the user wants.
pub(super) fn over_budget(site: &Site) -> Markup {
    let history = site.history();
    let over = history.budget().and_then(|budget| usage::over_budget(&history.index, budget, &site.zone));
    html! { @if let Some(over) = over { p .error role="status" { (over) } } }
}

/// The name of a session: its title, its first prompt, or its id.
pub(super) fn title(one: &Listed, rules: &cc_core::redact::Redactor) -> String {
    let prompt = || one.first_prompt.and_then(|at| prompt(&one.path, at, rules));
    let text = one.title.clone().or_else(prompt).filter(|text| !text.trim().is_empty());
    visible::glance(text.as_deref().unwrap_or(&one.session_id), TITLE)
}

fn models_of(one: &Listed) -> String {
    let models: Vec<String> = one.models.iter().map(|model| clean(model)).collect();
    models.join(", ")
}

/// Whether the model is working, waits for the user, or the session was abandoned in a turn.
pub(super) fn state(one: &Listed) -> &'static str {
    let is_silent = one.last.is_none_or(|last| clock::now_ns().saturating_sub(last) > SILENT);
    match (one.is_open, is_silent) {
        (true, false) => "working",
        (true, true) => "left in a turn",
        (false, false) => "waiting",
        (false, true) => "ended",
    }
}

fn is_wanted(one: &Listed, query: &Query) -> bool {
    let is = |name: &str, value: &Option<String>| query.get(name).is_none_or(|wanted| value.as_deref() == Some(wanted));
    let wanted = query.get("q").map(str::to_lowercase);
    let has = |text: &Option<String>| {
        text.as_ref().zip(wanted.as_ref()).is_some_and(|(text, wanted)| text.to_lowercase().contains(wanted))
    };
    is("project", &one.project)
        && query.get("model").is_none_or(|model| one.models.contains(model))
        && (wanted.is_none() || has(&one.title) || has(&one.branch) || has(&Some(one.session_id.clone())))
        && match query.get("state") {
            Some("with errors") => one.errors + one.failed_tools > 0,
            Some("with subagents") => one.agents > 0,
            Some(wanted) => state(one) == wanted,
            None => true,
        }
}

fn choices(all: &[Listed], of: impl Fn(&Listed) -> Vec<String>) -> Vec<String> {
    let mut found: Vec<String> = all.iter().flat_map(of).collect();
    found.sort();
    found.dedup();
    found
}

fn select(name: &str, choices: &[String], query: &Query, shown: impl Fn(&str) -> String) -> Markup {
    html! {
        select name=(name) {
            option value="" { "all" }
            @for choice in choices {
                option value=(choice) selected[query.get(name) == Some(choice.as_str())] { (clean(&shown(choice))) }
            }
        }
    }
}
