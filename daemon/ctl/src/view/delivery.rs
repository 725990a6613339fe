//! What became of a session's spans at each destination, and the way to a trace there.

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use maud::{Markup, html};

use super::{
    Site,
    html::{clean, number},
    pages::Page,
    query::encode,
};
use crate::{
    client::{self, Client},
    open, traced,
};
use cc_core::{
    config::destination::Named,
    destination::{Destination, pages::Item},
    ids::{TraceId, from_hex, hex},
    status::{
        Place,
        delivery::{Delivery, TRACES},
    },
};
use cc_langfuse::{
    index::Listed,
    store::{self, Arrived},
};

/// How long the daemon may take to answer.
const ANSWER: Duration = Duration::from_millis(500);

/// What became of the spans of `traces`, at each destination that has some: from the daemon, or from its database if none runs. Empty
/// if neither knows.
pub(super) fn of(site: &Site, traces: &[TraceId]) -> Vec<Delivery> {
    // Of a very long session its end.
    of_all(site, &[traces[traces.len().saturating_sub(TRACES)..].to_vec()]).pop().unwrap_or_default()
}

/// The same for groups of traces, which are asked for together.
pub(super) fn of_all(site: &Site, groups: &[Vec<TraceId>]) -> Vec<Vec<Delivery>> {
    let Ok(paths) = client::paths() else { return Vec::new() };
    if groups.iter().all(Vec::is_empty) || !site.history().is_users() {
        return Vec::new();
    }
    let ids = |traces: &Vec<TraceId>| traces.iter().map(|trace| hex(trace)).collect();
    let asked = Client::at(&paths).with_timeout(ANSWER).deliveries(&groups.iter().map(ids).collect::<Vec<_>>());
    match asked {
        Ok(found) => found,
        Err(error) if error.is::<client::NotRunning>() => {
            let found = store::arrived_at(&paths.database, groups).unwrap_or_default();
            let history = site.history();
            let destinations = &history.config.destinations;
            let named = |one: Arrived| {
                let is_it =
                    |named: &&Named| named.entry.as_ref().is_ok_and(|entry| entry.destination == one.destination);
                let name = destinations.iter().find(is_it).map_or_else(|| one.called(), |named| named.name.clone());
                Delivery { name, ..one.shown() }
            };
            found.into_iter().map(|group| group.into_iter().map(named).collect()).collect()
        }
        Err(_) => Vec::new(),
    }
}

/// In a list: each destination, and what is not delivered there.
pub(super) fn brief(found: &[Delivery]) -> Markup {
    html! {
        @for one in found {
            div {
                (clean(&one.name)) ": "
                @if one.refused > 0 { span .error { (one.words()) } } @else { (one.words()) }
            }
        }
    }
}

/// A table of them.
pub(super) fn table(found: &[Delivery]) -> Markup {
    html! {
        @if !found.is_empty() {
            div .wide { table {
                caption { "Spans by destination" }
                thead { tr {
                    th scope="col" { "Destination" } th scope="col" { "State" }
                    th .n scope="col" { "delivered" } th .n scope="col" { "waiting" } th .n scope="col" { "refused" }
                } }
                tbody { @for one in found { tr {
                    th scope="row" { (clean(&one.name)) div .dim { (clean(&one.base_url)) } }
                    td { (clean(&one.state)) }
                    td .n { (number(one.delivered)) } td .n { (number(one.waiting)) }
                    td .n { @if one.refused > 0 { span .error { (number(one.refused)) } } @else { "0" } }
                } } }
            } }
        }
    }
}

/// Where a turn is, and how to look at it there.
pub(super) fn links(found: &[Delivery], session: &str, trace: &str) -> Markup {
    html! {
        @for (at, one) in found.iter().enumerate() {
            dt { "At " (clean(&one.name)) }
            dd {
                (one.words())
                @if one.delivered > 0 {
                    @match destination(one).and_then(|to| open::folder(&to)) {
                        Some(folder) => { ": " code .copy { (clean(&folder.viewer())) } }
                        None => { ", " a href={ "../../go/" (encode(session)) "/" (trace) "/" (at) } { "look at it there" } }
                    }
                }
            }
        }
    }
}

/// Leads to the trace at the destination with this number among those of its spans. Only now is that server asked for its project.
///
/// # Errors
/// Why its page is not known.
pub(super) fn go(site: &Site, session: &str, trace: &str, at: &str) -> anyhow::Result<Option<Page>> {
    let (Some(one), Some(id), Ok(at)) = (site.session(session), from_hex(trace), at.parse::<usize>()) else {
        return Ok(None);
    };
    let found = of(site, &[id]);
    let Some(to) = found.get(at).and_then(destination) else { return Ok(None) };
    let status = Client::new()?.status().ok();
    let dirs = dirs(&one, status.as_ref());
    let secrets = traced::secrets(&to, &dirs, status.as_ref())?;
    let page = open::page(&to, &secrets, Item::Trace(trace))?;
    let page = page.with_context(|| format!("{} has no pages that are known here", to.address))?;
    anyhow::ensure!(
        page.starts_with("https://") || page.starts_with("http://"),
        "{page} is not an address for a browser"
    );
    Ok(Some(Page::leading_to(page)))
}

fn destination(one: &Delivery) -> Option<Destination> {
    let place = Place { kind: one.kind.clone(), base_url: one.base_url.clone(), public_key: one.public_key.clone() };
    place.destination()
}

/// The directories of a session's project.
fn dirs(one: &Listed, status: Option<&cc_core::status::Status>) -> Vec<PathBuf> {
    let known = status.and_then(|status| status.sessions.iter().find(|known| known.session_id == one.session_id));
    let own = || one.project.iter().map(PathBuf::from).filter(|dir| dir.is_absolute()).collect();
    known.map(|known| known.project_dirs.clone()).filter(|dirs| !dirs.is_empty()).unwrap_or_else(own)
}
