//! Waits for delivery, but not where a person has to do something first.

use std::{thread, time::Duration};

use jiff::Timestamp;

use crate::{client::Client, ui::amount};
use cc_core::{
    status::{Destination, Left},
    verdict::words,
};
use cc_langfuse::clock;

/// How often it checks whether there is anything to wait for.
const LOOK: Duration = Duration::from_millis(300);

/// After this time, what was parked has been tried again.
const RETRIED: Duration = Duration::from_secs(5);

/// How the wait ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Everything is delivered.
    Delivered,
    /// The time ran out, and this is left.
    Late(Left),
    /// Everything left waits for a person: the reasons.
    Refused(Vec<String>),
}

/// Waits until everything for the destinations that `meant` selects is delivered, at most until `limit`; ends at once
/// when all of it waits for a person.
///
/// # Errors
/// If the daemon does not answer.
pub(crate) fn wait(daemon: &Client, limit: Duration, meant: impl Fn(&Destination) -> bool) -> anyhow::Result<Outcome> {
    let (since, started) = (Timestamp::now(), clock::monotonic());
    loop {
        let left = daemon.flush(LOOK.min(limit.saturating_sub(started.elapsed())))?;
        if left == Left::default() {
            return Ok(Outcome::Delivered);
        }
        let status = daemon.status()?;
        let waiting: Vec<_> = status.destinations.iter().filter(|row| row.waiting > 0 && meant(row)).collect();
        if left.events == 0 && waiting.is_empty() && left.media == 0 {
            return Ok(Outcome::Delivered);
        }
        if left.events == 0 && !waiting.is_empty() && waiting.iter().all(|row| is_stuck(row, since, started.elapsed()))
        {
            return Ok(Outcome::Refused(waiting.into_iter().map(why).collect()));
        }
        if started.elapsed() >= limit {
            return Ok(Outcome::Late(left));
        }
        // It returned early because the daemon has nothing to send.
        thread::sleep(Duration::from_millis(10));
    }
}

/// Which destination waits for a person, and why.
fn why(row: &Destination) -> String {
    let why = row.last_error.as_deref().map_or_else(|| "see cc-langfusectl doctor".to_owned(), words);
    let spans = amount::count(usize::try_from(row.waiting).unwrap_or(usize::MAX), "observation");
    format!("{} is {}, and {spans} wait until that is fixed: {why}", row.base_url, row.state)
}

/// True if nothing can be sent to a destination before a person acts, as far as it is known `waited` after `since`. A
/// state from before `since` may just be tried with another key.
fn is_stuck(row: &Destination, since: Timestamp, waited: Duration) -> bool {
    let tried = row.last_error_at.as_ref().and_then(|at| at.parse::<Timestamp>().ok()).is_some_and(|at| at >= since);
    match row.state.as_str() {
        "held" => true,
        "parked" => tried || waited >= RETRIED,
        _ => false,
    }
}
