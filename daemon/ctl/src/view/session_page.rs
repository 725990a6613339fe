//! A session to read, turn by turn, or as a tree with the usage of each part.

use maud::{Markup, html};

use super::{
    Site, delivery,
    html::{clean, cost, figure_heads, figures, number, page as frame, part, span, time},
    query::{Query, encode},
    sessions::{state, title},
    short,
    turn_page::{Node, Tree, read},
    usage::beyond,
};
use crate::history::prompt;
use cc_core::{observation::Body, redact::Redactor, visible};
use cc_langfuse::index::{Filter, Listed, ListedTurn};

/// Turns per page.
const SIZE: usize = 20;

/// Maximum length of a prompt in a list, in characters.
const PROMPT: usize = 120;

pub(super) fn page(site: &Site, id: &str, query: &Query) -> anyhow::Result<Option<Markup>> {
    let Some(one) = site.session(id) else { return Ok(None) };
    let history = site.history();
    let turns = history.index.turns(id)?;
    let rules = history.config.rules.clone();
    drop(history);
    let deliveries = delivery::of(site, &turns.iter().map(|turn| turn.trace).collect::<Vec<_>>());
    let is_tree = query.get("mode") == Some("tree");
    let (at, pages, shown) = part(&turns, query, SIZE);
    let trees = match shown.first() {
        Some(first) => read(&one, first, shown.len(), &rules)?,
        None => Vec::new(),
    };
    let main = html! {
        nav .up aria-label="Up" { a href="../" { "‹ sessions" } }
        h1 { (title(&one, &rules)) }
        (head(site, &one))
        (delivery::table(&deliveries))
        nav .tabs aria-label="Ways to look at it" {
            a href={ (encode(id)) (query.with("mode", "")) } aria-current=[(!is_tree).then_some("true")] { "read" }
            a href={ (encode(id)) (query.with("mode", "tree")) } aria-current=[is_tree.then_some("true")] { "tree" }
            a href={ (encode(id)) "/cache" } { "cache" }
            a href={ (encode(id)) "/export/session.html" } { "HTML file" }
            a href={ (encode(id)) "/export/session.json" } { "JSON" }
            a href={ (encode(id)) "/export/session.csv" } { "CSV" }
        }
        @if pages > 1 { (pager(id, query, at, pages)) }
        @if is_tree { (tree(id, shown, &trees)) } @else {
            @for turn in shown { (reading(id, turn, &trees, &one, &rules)) }
        }
        @if pages > 1 { (pager(id, query, at, pages)) }
    };
    Ok(Some(frame(&title(&one, &rules), "../", "", site.version(), &main)))
}

fn pager(id: &str, query: &Query, page: usize, pages: usize) -> Markup {
    let link =
        |to: usize, text: &str| html! { a href={ (encode(id)) (query.with("page", &to.to_string())) } { (text) } };
    html! {
        nav .pager aria-label="Parts of the session" {
            @if page > 1 { (link(page - 1, "‹ earlier")) }
            span { "part " (page) " of " (pages) }
            @if page < pages { (link(page + 1, "later ›")) }
        }
    }
}

/// The session's properties and usage.
pub(super) fn head(site: &Site, one: &Listed) -> Markup {
    let (filter, id) = (Filter::default(), Some(&*one.session_id));
    let history = site.history();
    let rows = history.index.telemetry(&filter, id).and_then(|row| Ok((row, history.index.untraced(&filter, id)?)));
    drop(history);
    html! {
        dl .facts {
            dt { "State" } dd { (state(one)) }
            @if let Some(project) = &one.project { dt { "Project" } dd { (clean(&short(project))) } }
            @if let Some(branch) = &one.branch { dt { "Branch" } dd { (clean(branch)) } }
            @if let Some(from) = &one.forked_from { dt { "Forked from" } dd { a href=(encode(from)) { (visible::clipped(from, 9)) } } }
            dt { "From" } dd { (time(one.started, &site.zone)) }
            dt { "To" } dd { (time(one.last, &site.zone)) }
            dt { "Resume" } dd { code .copy { "claude --resume " (visible::line(&one.session_id)) } }
        }
        div .wide { table {
            thead { tr { th .n scope="col" { "turns" } th .n scope="col" { "calls" } (figure_heads()) } }
            tbody { tr {
                td .n { (number(one.sum.turns)) } td .n { (number(one.sum.calls)) } (figures(one.sum.tokens, one.sum.cost_usd))
            } }
        } }
        @if let Ok((telemetry, untraced)) = rows { (beyond(&telemetry, &untraced)) }
        @if one.all_turns > one.sum.turns {
            p .dim { (number(one.all_turns - one.sum.turns)) " more turns have no model call of their own, or were copied from another session, which counts them." }
        }
    }
}

/// A turn as a conversation.
pub(super) fn reading(id: &str, turn: &ListedTurn, trees: &[Tree], one: &Listed, rules: &Redactor) -> Markup {
    let tree = trees.iter().find(|tree| tree.trace == turn.trace);
    html! {
        section .turn id={ "t" (turn.number) } {
            h2 {
                a href={ "../turn/" (encode(id)) "/" (turn.id()) } { "Turn " (turn.number) }
                span .dim { " " (span(turn.end.zip(turn.start).map_or(0, |(end, start)| end.saturating_sub(start))))
                    " · " (number(turn.sum.calls)) (if turn.sum.calls == 1 { " call" } else { " calls" }) " · " (cost(turn.sum.cost_usd))
                    @if turn.is_copy { " · copied from another session" }
                    @if turn.is_interrupted { " · interrupted" } @if turn.is_error { " · ended by an error" } }
            }
            @match tree {
                Some(tree) => (tree.conversation()),
                None => p { (prompt(&one.path, turn.at_byte, rules).map(|text| visible::glance(&text, PROMPT)).unwrap_or_default()) },
            }
        }
    }
}

/// The turns with the usage of each part, its own and in total.
fn tree(id: &str, turns: &[ListedTurn], trees: &[Tree]) -> Markup {
    html! {
        p .dim { "The figures of a row are those of all below it; a model call has its own." }
        div .wide { table .rows .nested {
            thead { tr { th scope="col" { "Part" } th .n scope="col" { "time" } th .n scope="col" { "calls" } (figure_heads()) } }
            tbody {
                @for turn in turns {
                    @if let Some(tree) = trees.iter().find(|tree| tree.trace == turn.trace) {
                        @for (depth, node) in tree.flat() { (tree_row(id, turn, depth, node)) }
                    }
                }
            }
        } }
    }
}

fn tree_row(id: &str, turn: &ListedTurn, depth: usize, node: &Node) -> Markup {
    let found = &node.observation;
    html! {
        tr data-depth=(depth) {
            th scope="row" {
                span .indent { (" · ".repeat(depth)) }
                @if matches!(found.body, Body::Turn(_)) {
                    a href={ "../turn/" (encode(id)) "/" (turn.id()) } { (clean(&found.name)) }
                } @else { (clean(&found.name)) }
                span .dim { " " (node.gist()) }
            }
            td .n { (span(found.end.saturating_sub(found.start))) }
            (node.figures())
        }
    }
}
