//! Selects the page for an address.

use std::sync::atomic::Ordering;

use axum::body::Bytes;
use maud::Markup;

use super::{Site, cache, delivery, export, forks, query::Query, search, session_page, sessions, turn_page, usage};

const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";

/// A complete answer.
pub(super) struct Page {
    pub kind: &'static str,
    pub body: Bytes,
    /// The file name if it is a download.
    pub file_name: Option<String>,
    /// Where the browser is to go instead.
    pub location: Option<String>,
}

impl Page {
    fn html(markup: Markup) -> Self {
        Self { kind: HTML, body: markup.into_string().into(), file_name: None, location: None }
    }

    fn json(value: &impl serde::Serialize) -> anyhow::Result<Self> {
        Ok(Self { kind: JSON, body: serde_json::to_vec(value)?.into(), file_name: None, location: None })
    }

    fn kept(kind: &'static str, name: String, text: String) -> Self {
        Self { kind, body: text.into(), file_name: Some(name), location: None }
    }

    /// Leads the browser to another address.
    pub(super) fn leading_to(address: String) -> Self {
        Self { kind: HTML, body: Bytes::new(), file_name: None, location: Some(address) }
    }
}

/// The page at `parts`; `None` if there is no such page.
///
/// # Errors
/// If the index or a transcript cannot be read.
pub(super) fn make(site: &Site, parts: &[String], query: &Query) -> anyhow::Result<Option<Page>> {
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let html = |page: Option<Markup>| Ok(page.map(Page::html));
    match parts[..] {
        ["style.css"] => Ok(Some(asset("text/css; charset=utf-8", include_str!("style.css")))),
        ["page.js"] => Ok(Some(asset("text/javascript; charset=utf-8", include_str!("page.js")))),
        [] => html(Some(sessions::page(site, query)?)),
        ["usage"] => html(Some(usage::page(site, query)?)),
        ["forks"] => html(Some(forks::page(site, query)?)),
        ["search"] => html(Some(search::page(site, query)?)),
        ["session", id] => html(session_page::page(site, id, query)?),
        ["session", id, "cache"] => html(cache::page(site, id)?),
        ["session", id, "export", name] => export::page(site, id, name),
        ["turn", session, trace] => html(turn_page::page(site, session, trace)?),
        ["go", session, trace, at] => delivery::go(site, session, trace, at),
        ["api", "sessions.json"] => Page::json(&*site.sessions()).map(Some),
        ["api", "usage.json"] => Page::json(&usage::report(site, query)?).map(Some),
        _ => Ok(None),
    }
}

fn asset(kind: &'static str, text: &'static str) -> Page {
    Page { kind, body: Bytes::from_static(text.as_bytes()), file_name: None, location: None }
}

/// A download.
pub(super) fn kept(kind: &'static str, name: String, text: String) -> Page {
    Page::kept(kind, name, text)
}

impl Site {
    /// The version of the index for a page.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Relaxed)
    }
}
