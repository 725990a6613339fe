//! What can be asked over the local socket: HTTP/1.1, for hooks and for `cc-langfusectl`.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Query, State},
    http::StatusCode,
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::{
    delivery::exporter::{InFlight, Order},
    engine::Input,
    intake::{Intake, MAX_FRAME},
};

/// How many sessions `status` lists.
const SESSIONS: usize = 50;

/// What the handlers share.
#[derive(Clone)]
pub struct Context {
    /// The way in for events.
    pub intake: Intake,
    /// Spans on their way.
    pub in_flight: InFlight,
    /// Where hooks leave events.
    pub spool: PathBuf,
    /// When the daemon started.
    pub started: Instant,
}

/// `GET /v1/status`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    /// The process.
    pub daemon: Daemon,
    /// Events waiting.
    pub inbox: Inbox,
    /// Spans waiting.
    pub outbox: Outbox,
    /// Spans that no server takes.
    pub dead_letters: u64,
    /// The sessions seen last.
    pub sessions: Vec<Session>,
    /// Everywhere spans go.
    pub destinations: Vec<Destination>,
    /// Lines and events passed over, by reason.
    pub skipped_lines: BTreeMap<String, u64>,
    /// Secrets masked, by rule.
    pub redacted: BTreeMap<String, u64>,
}

/// The daemon's process.
#[derive(Debug, Serialize, Deserialize)]
pub struct Daemon {
    /// Its version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_s: u64,
}

/// Events stored and not yet dealt with.
#[derive(Debug, Serialize, Deserialize)]
pub struct Inbox {
    /// Their number.
    pub pending: u64,
}

/// Spans stored and not yet delivered.
#[derive(Debug, Serialize, Deserialize)]
pub struct Outbox {
    /// Their number, those in flight included.
    pub pending: u64,
    /// Those a server has been sent and has not answered for.
    pub in_flight: u64,
}

/// A session.
#[derive(Debug, Serialize, Deserialize)]
pub struct Session {
    /// Its id.
    pub session_id: String,
    /// Its transcript.
    pub transcript: PathBuf,
    /// Answered turns.
    pub turns: u32,
    /// The last turn is not told to its end.
    pub open_turn: bool,
}

/// A place spans go.
#[derive(Debug, Serialize, Deserialize)]
pub struct Destination {
    /// `langfuse`.
    pub kind: crate::hook::Kind,
    /// Its address.
    pub base_url: String,
    /// Which project.
    pub public_key: String,
    /// `ok`, `retrying` or `parked`.
    pub state: String,
    /// Spans waiting for it.
    pub waiting: u64,
    /// When spans last arrived, RFC 3339.
    pub last_success: Option<String>,
    /// What last went wrong.
    pub last_error: Option<String>,
    /// When that was, RFC 3339.
    pub last_error_at: Option<String>,
}

/// `POST /v1/flush`: what is left when the time was over, or nothing.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// Events.
    pub events: u64,
    /// Spans.
    pub spans: u64,
    /// Why the spans are still here, by destination.
    pub why: Vec<String>,
}

#[derive(Deserialize)]
struct Flush {
    timeout_ms: u64,
}

/// The routes.
pub fn router(context: Context) -> Router {
    Router::new()
        .route(proto::HOOK_PATH, post(hook))
        .route("/v1/status", get(status))
        .route("/v1/flush", post(flush))
        .layer(DefaultBodyLimit::max(MAX_FRAME))
        .with_state(context)
}

/// Committed when this answers 204 (invariant 4).
async fn hook(State(context): State<Context>, body: Bytes) -> StatusCode {
    match context.intake.take(&body) {
        Ok(()) => StatusCode::NO_CONTENT,
        // Whoever sent it keeps it.
        Err(error) => {
            tracing::warn!(%error, "an event could not be stored");
            StatusCode::SERVICE_UNAVAILABLE
        }
    }
}

async fn status(State(context): State<Context>) -> Result<Json<Status>, StatusCode> {
    let read = context.intake.store.call(|store| -> crate::store::Result<_> {
        Ok((store.counts()?, store.sessions(SESSIONS)?, store.destinations()?))
    });
    let (counts, sessions, destinations) = read.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    let time = |ms: i64| jiff::Timestamp::from_millisecond(ms).ok().map(|at| at.to_string());
    Ok(Json(Status {
        daemon: Daemon {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_s: context.started.elapsed().as_secs(),
        },
        inbox: Inbox { pending: counts.inbox },
        outbox: Outbox { pending: counts.outbox, in_flight: context.in_flight.load(Ordering::Relaxed) as u64 },
        dead_letters: counts.dead_letters,
        sessions: sessions
            .into_iter()
            .map(|row| Session {
                session_id: row.session_id,
                transcript: row.transcript,
                turns: row.turns,
                open_turn: row.open_turn,
            })
            .collect(),
        destinations: destinations
            .into_iter()
            .map(|row| Destination {
                kind: row.destination.kind,
                base_url: row.destination.base_url,
                public_key: row.destination.public_key,
                state: row.state,
                waiting: row.waiting,
                last_success: row.last_success_ms.and_then(time),
                last_error_at: row.last_error.as_ref().and_then(|(_, at)| time(*at)),
                last_error: row.last_error.map(|(why, _)| why),
            })
            .collect(),
        skipped_lines: counts.skipped,
        redacted: counts.redacted,
    }))
}

/// Answers when everything known is processed and delivered, or the time is over.
async fn flush(State(context): State<Context>, Query(query): Query<Flush>) -> Result<Json<Left>, StatusCode> {
    let deadline = tokio::time::Instant::now() + Duration::from_millis(query.timeout_ms.min(3_600_000));
    context.intake.drain(&context.spool);
    let _ = context.intake.orders.send(Order::Hurry);
    loop {
        let left = left(&context).await.ok_or(StatusCode::SERVICE_UNAVAILABLE)?;
        if left == Left::default() || tokio::time::Instant::now() >= deadline {
            return Ok(Json(left));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What is left to do; `None` if the daemon is coming to an end.
async fn left(context: &Context) -> Option<Left> {
    let (reply, answer) = oneshot::channel();
    context.intake.engine.send(Input::Pending(reply)).ok()?;
    let engine = answer.await.ok()? as u64;
    let read =
        context.intake.store.call(|store| -> crate::store::Result<_> { Ok((store.counts()?, store.destinations()?)) });
    let (counts, destinations) = read.ok()?;
    let why = destinations.into_iter().filter(|row| row.waiting > 0 && row.state != "ok").map(|row| {
        let error = row.last_error.map_or_else(String::new, |(why, _)| format!(": {why}"));
        format!("{} ({}) is {}{error}", row.destination.base_url, row.destination.public_key, row.state)
    });
    Some(Left { events: counts.inbox.max(engine), spans: counts.outbox, why: why.collect() })
}
