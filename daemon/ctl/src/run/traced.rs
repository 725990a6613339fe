//! Prints at the end of a run where its sessions can be seen.

use std::{sync::mpsc, thread, time::Duration};

use jiff::Timestamp;

use crate::{
    open,
    session::Naming,
    traced::{self, TracedSession},
};
use cc_core::{destination::pages::Item, status::Session};

/// How long the servers may take to name the project of a key.
const TIME_LIMIT: Duration = Duration::from_secs(3);

/// How many sessions get a line.
const SHOWN: usize = 3;

/// Prints where the last turns of the sessions with events after `since` can be seen, if their servers have pages.
pub(super) fn say(sessions: Vec<Session>, since: Timestamp) {
    let is_new = |session: &Session| {
        session.last_heard.as_ref().and_then(|at| at.parse::<Timestamp>().ok()).is_some_and(|at| at >= since)
    };
    let mine: Vec<Session> = sessions.into_iter().filter(is_new).take(SHOWN).collect();
    if mine.is_empty() {
        return;
    }
    let (found, pages) = mpsc::channel();
    // A server that does not answer delays nothing.
    thread::spawn(move || {
        mine.iter().filter_map(|session| page(session, &mine).ok().flatten()).try_for_each(|page| found.send(page))
    });
    while let Ok(page) = pages.recv_timeout(TIME_LIMIT) {
        super::say(&format!("traced: {page}"));
    }
}

fn page(session: &Session, all: &[Session]) -> anyhow::Result<Option<String>> {
    let chosen = TracedSession::meant(all, Some(&session.session_id), Naming::Exact)?;
    let (Some(trace), dirs) = chosen.last_turn()? else { return Ok(None) };
    let Some(to) = chosen.destination.clone().filter(|to| open::folder(to).is_none()) else { return Ok(None) };
    let secrets = traced::secrets(&to, &dirs, None)?;
    open::page(&to, &secrets, Item::Trace(&trace))
}
