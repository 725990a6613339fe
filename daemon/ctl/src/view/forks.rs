//! Which sessions were forked from which, and the cost of abandoned turns.

use std::collections::{BTreeMap, BTreeSet};

use maud::{Markup, html};

use super::{
    Site,
    html::{cost, number, page as frame, time},
    query::{Query, encode},
    sessions::title,
    usage::{MAX_ROWS, more},
};
use cc_core::redact::Redactor;
use cc_langfuse::index::Listed;

pub(super) fn page(site: &Site, query: &Query) -> anyhow::Result<Markup> {
    let all: BTreeMap<String, Listed> =
        site.sessions().iter().map(|one| (one.session_id.clone(), one.clone())).collect();
    let mut below: BTreeMap<&str, Vec<&Listed>> = BTreeMap::new();
    for one in all.values() {
        if let Some(from) = &one.forked_from {
            below.entry(from).or_default().push(one);
        }
    }
    let is_below =
        |id: &str| all.get(id).is_some_and(|one| one.forked_from.as_ref().is_some_and(|from| all.contains_key(from)));
    let mut roots: Vec<&str> = below.keys().copied().filter(|id| !is_below(id)).collect();
    // The latest first, as in the list of sessions.
    roots.sort_by_key(|root| std::cmp::Reverse(below[root].iter().map(|fork| fork.last).max()));
    // Each has a line of its own, and at least one fork.
    let most = if query.get("all").is_some() { roots.len() } else { roots.len().min(MAX_ROWS / 2) };
    let rules = site.history().config.rules.clone();
    let main = html! {
        h1 { "Forks" }
        p .dim { "A fork copies the session it grew out of. Each call counts once, where it was made: the figures of a fork are those of its own." }
        @if roots.is_empty() { p { "No session was forked." } }
        ul .tree {
            @for root in &roots[..most] { (branch(site, root, &all, &below, &rules, &mut BTreeSet::new())) }
        }
        (more(roots.len() - most, "forks?all=1"))
    };
    Ok(frame("Forks", "", "Forks", site.version(), &main))
}

fn branch(
    site: &Site,
    id: &str,
    all: &BTreeMap<String, Listed>,
    below: &BTreeMap<&str, Vec<&Listed>>,
    rules: &Redactor,
    above: &mut BTreeSet<String>,
) -> Markup {
    // Whatever the transcripts say, the recursion ends.
    if !above.insert(id.to_owned()) {
        return html! {};
    }
    let line = match all.get(id) {
        None => html! { span .dim { (id) ": its transcript is gone" } },
        Some(one) => html! {
            a href={ "session/" (encode(id)) } { (title(one, rules)) }
            span .dim { " " (number(one.sum.turns)) " turns of its own, " (number(one.sum.calls)) " calls, " (cost(one.sum.cost_usd))
                ", last " (time(one.last, &site.zone)) }
        },
    };
    let forks = below.get(id).map_or(&[][..], Vec::as_slice);
    let made = html! {
        li { (line)
            @if !forks.is_empty() {
                ul { @for fork in forks { (branch(site, &fork.session_id, all, below, rules, above)) } }
            }
        }
    };
    above.remove(id);
    made
}
