//! Waiting for delivery, as long as it can come: not for a person to do something first, without whom nothing leaves.

use std::{thread, time::Duration};

use jiff::Timestamp;

use crate::{client::Client, ui::amount};
use cc_core::{
    status::{Destination, Left},
    verdict::words,
};
use cc_langfuse::clock;

/// How often it is looked at whether there is anything to wait for.
const LOOK: Duration = Duration::from_millis(300);

/// After this time, what was parked before has been tried again.
const RETRIED: Duration = Duration::from_secs(5);

/// How the wait ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Everything is delivered.
    Delivered,
    /// The time was over, and this is left.
    Late(Left),
    /// Nothing more leaves until somebody does something: where what waits, and why.
    Refused(Vec<String>),
}

/// Waits until all that waits for the destinations that are `meant` is delivered, at most until `limit`; ends at once when all
/// of it waits for somebody.
///
/// # Errors
/// If the daemon does not say.
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
        // It came back early where the daemon has nothing that could leave.
        thread::sleep(Duration::from_millis(10));
    }
}

/// Where something waits for somebody, and for what.
fn why(row: &Destination) -> String {
    let why = row.last_error.as_deref().map_or_else(|| "see cc-langfusectl doctor".to_owned(), words);
    let spans = amount::count(usize::try_from(row.waiting).unwrap_or(usize::MAX), "span");
    format!("{} is {}, and {spans} wait for you: {why}", row.base_url, row.state)
}

/// True if nothing leaves for a destination until somebody does something, as far as is known `waited` after `since`. What was
/// so before may just be tried with another key.
fn is_stuck(row: &Destination, since: Timestamp, waited: Duration) -> bool {
    let tried = row.last_error_at.as_ref().and_then(|at| at.parse::<Timestamp>().ok()).is_some_and(|at| at >= since);
    match row.state.as_str() {
        "held" => true,
        "parked" => tried || waited >= RETRIED,
        _ => false,
    }
}
