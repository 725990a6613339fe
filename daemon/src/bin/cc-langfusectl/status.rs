//! `status` and `flush`.

#![allow(clippy::print_stderr, reason = "output is for people")]

use std::{process::ExitCode, time::Duration};

use cc_langfuse::api::{Left, Status};
use hyper::Method;

use crate::client;

pub fn status(json: bool) -> anyhow::Result<ExitCode> {
    let body = client::request(&client::paths()?, Method::GET, "/v1/status", Vec::new(), Duration::from_secs(5))?;
    let status: Status = serde_json::from_slice(&body)?;
    if json {
        out!("{}", serde_json::to_string_pretty(&status)?);
        return Ok(ExitCode::SUCCESS);
    }
    let Status { daemon, inbox, outbox, dead_letters, sessions, destinations, skipped_lines, redacted } = status;
    out!("daemon        {} · pid {} · up {}", daemon.version, daemon.pid, uptime(daemon.uptime_s));
    out!("events        {} waiting", inbox.pending);
    out!("spans         {} waiting, {} on their way, {dead_letters} undeliverable", outbox.pending, outbox.in_flight);
    for to in destinations {
        out!("destination   {} ({})", to.base_url, to.public_key);
        out!(
            "              {}, {} spans waiting, last success {}",
            to.state,
            to.waiting,
            to.last_success.as_deref().unwrap_or("never")
        );
        if let (Some(why), Some(at)) = (to.last_error, to.last_error_at) {
            out!("              last error {at}: {why}");
        }
    }
    for (index, session) in sessions.iter().take(10).enumerate() {
        let label = if index == 0 { "sessions" } else { "" };
        let open = if session.open_turn { ", one open" } else { "" };
        out!("{label:<14}{} {}{open}", session.session_id, crate::count(session.turns as usize, "turn"));
    }
    for (label, counts) in [("skipped", skipped_lines), ("masked", redacted)] {
        for (index, (what, count)) in counts.iter().enumerate() {
            out!("{:<14}{what} {count}", if index == 0 { label } else { "" });
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub fn flush(timeout: Duration) -> anyhow::Result<ExitCode> {
    let path = format!("/v1/flush?timeout_ms={}", timeout.as_millis());
    let body = client::request(&client::paths()?, Method::POST, &path, Vec::new(), timeout + Duration::from_secs(5))?;
    let left: Left = serde_json::from_slice(&body)?;
    if left == Left::default() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("left after {timeout:?}: {} events, {} spans", left.events, left.spans);
    left.why.iter().for_each(|why| eprintln!("  {why}"));
    Ok(ExitCode::FAILURE)
}

fn uptime(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86400, seconds / 3600 % 24),
    }
}
