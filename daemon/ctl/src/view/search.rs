//! Search: names from the index, and prompts from the transcripts as many as a short time allows, newest first.

use std::time::Duration;

use maud::{Markup, html};

use super::{
    Site,
    html::{clean, number, page as frame, time},
    query::{Query, encode},
    sessions::title,
    short,
};
use crate::history::prompt;
use cc_core::{ids::hex, visible};
use cc_langfuse::{
    clock,
    index::{Listed, PromptAt},
};

/// Hits per page.
const HITS: usize = 50;

/// How long prompts are searched for one page.
const LIMIT: Duration = Duration::from_millis(900);

/// How many characters around a hit are shown.
const AROUND: usize = 80;

/// A prompt that contains the searched text.
struct Hit {
    session: usize,
    trace: String,
    turn: u32,
    at: Option<u64>,
    text: String,
}

pub(super) fn page(site: &Site, query: &Query) -> anyhow::Result<Markup> {
    let wanted = query.get("q").map(str::to_lowercase).unwrap_or_default();
    let all = site.sessions();
    let sessions: &[Listed] = if wanted.is_empty() { &[] } else { &all };
    let rules = site.history().config.rules.clone();
    let from = usize::try_from(query.number("from")).unwrap_or_default();
    let named: Vec<&Listed> = sessions.iter().filter(|one| from == 0 && is_named(one, &wanted)).take(HITS).collect();
    let until = clock::monotonic() + LIMIT;
    let (mut hits, mut next) = (Vec::new(), None);
    for (at, one) in sessions.iter().enumerate().skip(from) {
        if hits.len() >= HITS || clock::monotonic() >= until {
            next = Some(at);
            break;
        }
        let prompts = site.history().index.prompts(&one.session_id)?;
        for PromptAt { trace, number, start, at_byte } in prompts {
            if let Some(text) = prompt(&one.path, at_byte, &rules).filter(|text| text.to_lowercase().contains(&wanted))
            {
                hits.push(Hit {
                    session: at,
                    trace: hex(&trace),
                    turn: number,
                    at: start,
                    text: around(&text, &wanted, AROUND),
                });
            }
        }
    }
    let main = html! {
        h1 { "Search" }
        form role="search" {
            label for="q" { "Titles, projects, branches and prompts " }
            input #q type="search" name="q" value=(query.get("q").unwrap_or_default()) autofocus;
            button { "Search" }
        }
        @if !named.is_empty() {
            h2 { "Sessions" }
            ul .rows { @for one in &named { li {
                a href={ "session/" (encode(&one.session_id)) } { (title(one, &rules)) }
                span .dim { " " (clean(&one.project.as_deref().map(short).unwrap_or_default())) " " (time(one.last, &site.zone)) }
            } } }
        }
        @if !wanted.is_empty() {
            h2 { "Prompts" }
            @if hits.is_empty() && next.is_none() { p { "No prompt holds this text." } }
            ul .rows { @for hit in &hits {
                @let one = &sessions[hit.session];
                li {
                    a href={ "turn/" (encode(&one.session_id)) "/" (hit.trace) } { (hit.text) }
                    span .dim { " turn " (hit.turn) " of " (title(one, &rules)) ", " (time(hit.at, &site.zone)) }
                }
            } }
            @if let Some(next) = next {
                p { (number(next as u64)) " of " (number(sessions.len() as u64)) " sessions searched. "
                    a href={ "search" (query.with("from", &next.to_string())) } { "Go on" } }
            }
        }
    };
    Ok(frame("Search", "", "Search", site.version(), &main))
}

fn is_named(one: &Listed, wanted: &str) -> bool {
    let has = |text: &Option<String>| text.as_ref().is_some_and(|text| text.to_lowercase().contains(wanted));
    has(&one.title) || has(&one.project) || has(&one.branch) || one.session_id.to_lowercase().contains(wanted)
}

/// The text around the first hit, on one line, with `most` characters on each side.
pub(crate) fn around(text: &str, wanted: &str, most: usize) -> String {
    // Lower case can take more bytes than upper case, so the position is found by counting characters.
    let lower = text.to_lowercase();
    let at = lower.find(wanted).map_or(0, |at| lower[..at].chars().count());
    let start = at.saturating_sub(most);
    let cut: String = text.chars().skip(start).take(most * 2 + wanted.chars().count()).collect();
    let line = visible::glance(&cut, most * 3 + wanted.len());
    if start > 0 { format!("…{line}") } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hit_is_shown_with_what_stands_around_it() {
        let long = format!("{}Needle{}", "a".repeat(300), "b".repeat(300));
        let shown = around(&long, "needle", AROUND);
        assert!(shown.starts_with('…') && shown.contains("Needle") && shown.chars().count() < 300, "{shown}");
        assert_eq!(around("İstanbul <b>\u{1b}", "istanbul", AROUND), "İstanbul <b> ");
        assert_eq!(around("", "x", AROUND), "");
    }
}
