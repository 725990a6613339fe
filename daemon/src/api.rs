//! The HTTP/1.1 API on the local socket, for hooks and for `cc-langfusectl`.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Query, State},
    http::{HeaderName, StatusCode, header::CONTENT_TYPE},
    routing::{get, post},
};
use serde::Deserialize;
use tokio::sync::{Semaphore, oneshot};

use crate::{
    archive::Archive,
    clock::now_ms,
    configured::Configured,
    delivery::supervisor::{InFlight, Order},
    engine::{Input, Refused},
    files::Identity,
    intake::{Intake, MAX_FRAME, Untaken},
    store::{self, DestinationRow},
    telemetry::Telemetry,
};
use cc_core::{
    config::destination::Named,
    destination::Kind,
    metrics,
    status::{
        AskHidden, Daemon, DeadLetter, Destination, Forget, HiddenCalls, Inbox, Left, Media, Outbox, Pause, Scores,
        Session, Settle, Status, Trouble, Trust, TrustAnswer, Trusted, UnknownKind,
    },
};

mod delivery;
mod failed;
mod history;
mod redirect;
mod score;

use failed::Failed;

/// How many sessions `status` lists.
pub const SESSIONS: usize = 50;

/// How many events are held in memory while the database accepts none.
const MAX_HELD_EVENTS: usize = 256;

/// The largest event that is held, in bytes.
const MAX_HELD_BYTES: usize = 256 << 10;

#[derive(Clone)]
pub struct Context {
    pub intake: Intake,
    /// Spans in flight.
    pub in_flight: InFlight,
    pub configured: Configured,
    pub spool: PathBuf,
    /// Transcripts that are not read.
    pub refused: Refused,
    /// The limit of each destination's queue.
    pub outbox_bytes: u64,
    pub started: Instant,
    /// The program this is.
    pub program: Option<Identity>,
    /// Permits for events to hold in memory.
    pub room: Arc<Semaphore>,
    /// Claude Code's own telemetry, if it is received.
    pub telemetry: Telemetry,
    /// Copies of transcripts.
    pub archive: Archive,
}

impl Context {
    /// Permits for `MAX_HELD_EVENTS` events.
    pub fn room() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(MAX_HELD_EVENTS))
    }

    /// An event that could not be stored is kept by its sender, if the disk has room for that. In case it has not, the event is
    /// also held here and tried again; it counts once even if it comes twice.
    fn hold(&self, body: Bytes) {
        let room = self.room.clone().try_acquire_owned();
        let Some(room) = room.ok().filter(|_| body.len() <= MAX_HELD_BYTES) else { return };
        let intake = self.intake.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                if intake.take(&body).await.is_ok() {
                    return drop(room);
                }
            }
        });
    }
}

/// A database row as `status` shows it.
fn destination(row: DestinationRow, configured: &Configured, outbox_bytes: u64) -> Destination {
    let held = row.held_by.as_ref().map(|why| cc_core::consent::held(&row.destination, why));
    let name = configured.name(&row.destination);
    Destination {
        name: name.unwrap_or_else(|| format!("{}-{}", row.destination.kind.name(), row.id)),
        kind: row.destination.kind.name().to_owned(),
        base_url: row.destination.address,
        public_key: row.destination.account,
        state: if held.is_some() { "held".to_owned() } else { row.state },
        waiting: row.waiting,
        waiting_bytes: row.waiting_bytes,
        full: row.waiting_bytes >= outbox_bytes,
        oldest_waiting: row.oldest_ms.and_then(time),
        delivered: row.delivered,
        rejected: row.rejected,
        last_success: row.last_success_ms.and_then(time),
        last_error_at: row.last_error.as_ref().and_then(|(_, at)| time(*at)),
        last_error: held.or(row.last_error.map(|(why, _)| why)),
        held_by: row.held_by,
    }
}

/// An invalid `[[destination]]` table as `status` shows it.
fn refused((named, why): (Named, String)) -> Destination {
    Destination {
        name: named.name.clone(),
        kind: named.kind.clone(),
        base_url: named.address.clone(),
        public_key: String::new(),
        state: "parked".to_owned(),
        waiting: 0,
        waiting_bytes: 0,
        full: false,
        oldest_waiting: None,
        delivered: 0,
        rejected: 0,
        last_success: None,
        last_error: Some(format!("config.toml: {why}")),
        last_error_at: None,
        held_by: None,
    }
}

#[derive(Deserialize)]
struct Flush {
    timeout_ms: u64,
}

pub fn router(context: Context) -> Router {
    Router::new()
        .route(proto::HOOK_PATH, post(hook))
        .route("/v1/status", get(status))
        .route("/v1/flush", post(flush))
        .route("/v1/dead-letters", get(dead_letters).post(settle))
        .route("/v1/trust", post(trust))
        .route("/v1/destinations", post(redirect::redirect))
        .route("/v1/pause", post(pause))
        .route("/v1/forget", post(forget))
        .route("/v1/score", post(score::score))
        .route("/v1/hidden-calls", post(hidden_calls))
        .route("/v1/known", post(history::known))
        .route("/v1/delivery", post(delivery::delivery))
        .route("/v1/deliveries", post(delivery::deliveries))
        .route("/v1/imported", get(history::imported).post(history::import))
        .route("/metrics", get(metrics))
        .layer(DefaultBodyLimit::max(MAX_FRAME))
        .with_state(context)
}

/// The event is committed when this answers 204 (invariant 4).
async fn hook(State(context): State<Context>, body: Bytes) -> StatusCode {
    match context.intake.take(&body).await {
        Ok(()) => StatusCode::NO_CONTENT,
        Err(Untaken::Version) => StatusCode::BAD_REQUEST,
        Err(Untaken::Store) => {
            context.hold(body);
            StatusCode::SERVICE_UNAVAILABLE
        }
    }
}

async fn status(State(context): State<Context>) -> Result<Json<Status>, Failed> {
    // Who looks at it wants to know what the file says now.
    context.intake.refresh();
    report(&context).map(Json).map_err(Failed::from)
}

/// The status for Prometheus.
async fn metrics(State(context): State<Context>) -> Result<([(HeaderName, &'static str); 1], String), Failed> {
    let status = report(&context)?;
    Ok(([(CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::render(&status, now_ms())))
}

/// Parses a JSON body, whatever its content type.
fn parse_json<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, Failed> {
    serde_json::from_slice(body).map_err(|error| Failed::asked(format!("this is not understood here: {error}")))
}

fn time(ms: i64) -> Option<String> {
    jiff::Timestamp::from_millisecond(ms).ok().map(|at| at.to_string())
}

fn report(context: &Context) -> Result<Status, store::Error> {
    // Before the database is asked: an event that is stored meanwhile counts twice rather than not at all.
    let held = (MAX_HELD_EVENTS - context.room.available_permits()) as u64;
    let (counts, sessions, destinations, trouble, paused) = context.intake.store.call(|store| {
        let trouble = store.trouble().cloned();
        Ok((store.counts()?, store.sessions(SESSIONS)?, store.destinations()?, trouble, store.paused()?))
    })?;
    let (unknown, trusts, off) =
        context.intake.store.call(|store| Ok((store.unknown_kinds()?, store.trusted()?, store.seen_off()?)))?;
    Ok(Status {
        daemon: Daemon {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_s: context.started.elapsed().as_secs(),
            build: crate::VERSION.to_owned(),
            replaced: context.program.as_ref().is_some_and(Identity::is_gone),
        },
        inbox: Inbox { pending: counts.inbox + held, heard: context.intake.heard() },
        outbox: Outbox { pending: counts.outbox, in_flight: context.in_flight.load(Ordering::Relaxed) as u64 },
        dead_letters: counts.dead_letters,
        media: Media { pending: counts.media.0, last_error: counts.media.1 },
        scores: Scores { pending: counts.scores.0, last_error: counts.scores.1 },
        imported: counts.imported,
        config_error: context.configured.problem(),
        telemetry: context.telemetry.received(),
        archive: context.archive.status(),
        unread: context.refused.still(),
        store_error: trouble.map(|(error, since)| Trouble { error, since: time(since) }),
        sessions: sessions
            .into_iter()
            .map(|row| Session {
                session_id: row.session_id,
                transcript: row.transcript,
                turns: row.turns,
                open_turn: row.open_turn,
                title: row.title,
                project_dirs: row.hint.project_dirs,
                last_heard: i64::try_from(row.hint.fired_ns / 1_000_000).ok().filter(|ms| *ms > 0).and_then(time),
                destination: row.hint.targets.into_iter().next().map(|target| target.destination.into()),
            })
            .collect(),
        destinations: destinations
            .into_iter()
            .map(|row| destination(row, &context.configured, context.outbox_bytes))
            .chain(context.configured.refused().into_iter().map(refused))
            .collect(),
        skipped_lines: counts.skipped,
        unknown_kinds: unknown
            .into_iter()
            .map(|of| UnknownKind { kind: of.kind, version: of.version, lines: of.lines })
            .collect(),
        paused,
        off,
        redacted: counts.redacted,
        left_in_spool: context.intake.left(),
        trusted: trusts.iter().map(|(base_url, _)| base_url.clone()).collect(),
        trusts: trusts.into_iter().map(|(base_url, public_key)| Trusted { base_url, public_key }).collect(),
    })
}

async fn dead_letters(State(context): State<Context>) -> Result<Json<Vec<DeadLetter>>, Failed> {
    let letters = context.intake.store.call(|store| store.dead_letters());
    let letters = letters?.into_iter().map(|letter| DeadLetter {
        id: letter.id,
        base_url: letter.base_url,
        span_id: letter.span_id,
        reason: letter.reason,
        bytes: letter.bytes,
        since: time(letter.at_ms),
    });
    Ok(Json(letters.collect()))
}

/// Answers how many dead letters were retried or dropped.
async fn settle(State(context): State<Context>, body: Bytes) -> Result<Json<usize>, Failed> {
    let request: Settle = parse_json(&body)?;
    let settled = context.intake.store.call(|store| store.settle_dead_letters(request.id, request.fate, now_ms()));
    let (waiting, count) = settled?;
    for (id, destination) in waiting {
        let _ = context.intake.orders.send(Order::Wake(id, destination));
    }
    Ok(Json(count))
}

/// Answers 400 if the address is not valid.
async fn trust(State(context): State<Context>, body: Bytes) -> Result<Json<TrustAnswer>, Failed> {
    let request: Trust = parse_json(&body)?;
    // Requests name no kind: the known address counts, or else the first.
    let addresses = Kind::ALL.iter().filter_map(|kind| kind.backend().address(&request.base_url));
    let addresses = Vec::from_iter(addresses);
    let first = addresses.first().cloned().ok_or_else(|| Failed::asked("the address is none"))?;
    let answer = context.intake.store.call(|store| {
        let mut base_url = first;
        for address in addresses {
            if !store.accounts(&address)?.is_empty() {
                base_url = address;
                break;
            }
        }
        let known = store.accounts(&base_url)?;
        let meant = if request.trusted { known.held } else { known.trusted };
        let accounts = request.public_key.map_or(meant, |key| vec![key]);
        // Withdrawing trust is safe for all of them.
        if accounts.len() == 1 || !request.trusted {
            accounts.iter().try_for_each(|account| store.trust(&base_url, account, request.trusted, now_ms()))?;
        }
        Ok(TrustAnswer { base_url, accounts, is_own: !known.own.is_empty() })
    });
    let answer = answer?;
    let _ = context.intake.orders.send(Order::Trust(answer.base_url.clone()));
    Ok(Json(answer))
}

/// Answers which projects are paused now; 400 for a relative path.
async fn pause(State(context): State<Context>, body: Bytes) -> Result<Json<Vec<PathBuf>>, Failed> {
    let request: Pause = parse_json(&body)?;
    if request.dir.as_ref().is_some_and(|dir| !dir.is_absolute()) {
        return Err(Failed::asked("the directory has no absolute path"));
    }
    let paused = context.intake.store.call(|store| {
        store.pause(request.dir.as_deref(), request.paused)?;
        store.paused()
    });
    paused.map(Json).map_err(Failed::from)
}

/// Answers how many waiting spans were dropped.
async fn forget(State(context): State<Context>, body: Bytes) -> Result<Json<usize>, Failed> {
    let request: Forget = parse_json(&body)?;
    let traces: Option<Vec<_>> = request.traces.iter().map(|id| cc_core::ids::from_hex(id)).collect();
    let traces = traces.ok_or_else(|| Failed::asked("a trace has no id of 32 digits"))?;
    let forgotten = context.intake.store.call(|store| store.forget(&request.session_id, &traces))?;
    // A copy that is being made is finished first.
    let removed = tokio::task::spawn_blocking(move || context.archive.forget(&request.session_id)).await;
    match removed.unwrap_or_else(|panic| Err(std::io::Error::other(panic))) {
        Ok(_) => Ok(Json(forgotten)),
        Err(error) => Err(Failed(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("the copy in the archive cannot be removed: {error}; run it again"),
        )),
    }
}

/// Answers the calls without a line of one session, or of all.
async fn hidden_calls(State(context): State<Context>, body: Bytes) -> Result<Json<HiddenCalls>, Failed> {
    let ask: AskHidden = parse_json(&body)?;
    let found = context.intake.store.call(|store| store.hidden_calls(ask.session_id.as_deref(), &ask.unless));
    found.map(Json).map_err(Failed::from)
}

/// Answers when everything is delivered, or at the time limit.
async fn flush(State(context): State<Context>, Query(query): Query<Flush>) -> Result<Json<Left>, Failed> {
    let timeout = Duration::from_millis(query.timeout_ms.min(3_600_000));
    flushed(&context, timeout)
        .await
        .map(Json)
        .ok_or_else(|| Failed(StatusCode::SERVICE_UNAVAILABLE, "the daemon is coming to an end".into()))
}

/// Waits until everything known is processed and delivered, at most for `timeout`; returns what is left. `None` if the daemon
/// is stopping.
pub async fn flushed(context: &Context, timeout: Duration) -> Option<Left> {
    let deadline = tokio::time::Instant::now() + timeout;
    context.intake.drain(&context.spool);
    let _ = context.intake.orders.send(Order::Hurry);
    loop {
        let left = left(context).await?;
        if left == Left::default() || tokio::time::Instant::now() >= deadline {
            return Some(left);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What is left to do; `None` if the daemon is stopping.
async fn left(context: &Context) -> Option<Left> {
    let (reply, answer) = oneshot::channel();
    context.intake.engine.send(Input::Pending(reply)).ok()?;
    let engine = answer.await.ok()? as u64;
    let report = report(context).ok()?;
    let mut why: Vec<String> =
        report.store_error.map(|trouble| format!("the database: {}", trouble.error)).into_iter().collect();
    for to in report.destinations.into_iter().filter(|to| to.waiting > 0 && to.state != "ok") {
        let full = if to.full { ", its queue is full" } else { "" };
        let error = to.last_error.map_or_else(String::new, |why| format!(": {why}"));
        why.push(format!("{} ({}) is {}{full}{error}", to.base_url, to.public_key, to.state));
    }
    why.extend(report.media.last_error.map(|why| format!("images and documents: {why}")));
    let (events, spans) = (report.inbox.pending.max(engine), report.outbox.pending);
    Some(Left { events, spans, media: report.media.pending, why })
}
