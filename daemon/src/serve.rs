//! Serves the local socket: one request per connection, few connections at a time, and short time limits.
//!
//! Anything that runs as the user can connect, and hooks wait for their answers. So a client that sends no complete request, or
//! does not read its answer, is dropped soon, and at once if its place is needed.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, response::IntoResponse};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use interprocess::local_socket::tokio::Stream;
use rustix::process::{Resource, getrlimit};
use tokio::{
    sync::Notify,
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep, sleep_until},
};
use tower_service::Service;

use crate::{
    intake::{Intake, MAX_FRAME},
    socket::{Local, is_ours},
};

/// Maximum number of open connections, if the process may have that many files open.
const MAX_CONNECTIONS: usize = 64;

/// The limit for receiving a request after its connection was accepted, and for sending its answer.
const TIME_LIMIT: Duration = Duration::from_secs(1);

/// A connection this young keeps its place although others wait: its request is probably on its way.
const GRACE: Duration = Duration::from_millis(20);

/// How long nothing is accepted after the system refused a connection, most likely for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers requests until it is dropped.
pub async fn serve(listener: Local, router: Router, intake: Intake) -> Infallible {
    let mut places = Places::new();
    let (mut refused, mut stuck) = (false, false);
    loop {
        let stream = match listener.accept().await {
            Ok(stream) => stream,
            Err(error) => {
                if !std::mem::replace(&mut stuck, true) {
                    tracing::warn!(%error, "no connection can be accepted");
                }
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if std::mem::take(&mut stuck) {
            tracing::info!("connections are accepted again");
        }
        if !is_ours(&stream) {
            if !std::mem::replace(&mut refused, true) {
                tracing::warn!("a connection of another user was closed; more of them are only counted");
            }
            drop(stream);
            intake.count("other_user");
            continue;
        }
        places.free().await;
        places.take(stream, &router);
        // Most requests arrive with their connection: read this one before accepting the next.
        tokio::task::yield_now().await;
    }
}

/// The open connections, oldest first.
struct Places {
    most: usize,
    open: VecDeque<Place>,
    tasks: JoinSet<()>,
}

struct Place {
    busy: Arc<AtomicBool>,
    since: Instant,
    task: AbortHandle,
}

impl Places {
    /// At most a quarter of the files this process may have open: transcripts and servers need some too.
    fn new() -> Self {
        let files = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |most| most as usize);
        Self { most: MAX_CONNECTIONS.min(files / 4).max(1), open: VecDeque::new(), tasks: JoinSet::new() }
    }

    /// Waits for a free place. The oldest connection without a complete request is dropped; one that is being answered never
    /// is.
    async fn free(&mut self) {
        loop {
            while self.tasks.try_join_next().is_some() {}
            self.open.retain(|place| !place.task.is_finished());
            if self.open.len() < self.most {
                return;
            }
            match self.open.iter().find(|place| !place.busy.load(Ordering::Relaxed)) {
                Some(oldest) if oldest.since.elapsed() >= GRACE => oldest.task.abort(),
                Some(oldest) => {
                    let grown = oldest.since + GRACE;
                    tokio::select! {
                        _ = self.tasks.join_next() => {}
                        () = sleep_until(grown) => {}
                    }
                    continue;
                }
                None => {}
            }
            self.tasks.join_next().await;
        }
    }

    fn take(&mut self, stream: Stream, router: &Router) {
        let busy = Arc::new(AtomicBool::new(false));
        let task = self.tasks.spawn(connection(stream, router.clone(), busy.clone()));
        self.open.push_back(Place { busy, since: Instant::now(), task });
    }
}

/// Serves one request; `busy` while it is complete and not answered yet.
async fn connection(stream: Stream, router: Router, busy: Arc<AtomicBool>) {
    let turned = Notify::new();
    let turn = |to| {
        busy.store(to, Ordering::Relaxed);
        turned.notify_one();
    };
    let service = service_fn(|request: Request<Incoming>| {
        let mut router = router.clone();
        async move {
            let (head, body) = request.into_parts();
            let Ok(body) = Limited::new(body, MAX_FRAME).collect().await else {
                return Ok::<_, Infallible>(StatusCode::PAYLOAD_TOO_LARGE.into_response());
            };
            turn(true);
            let answer = router.call(Request::from_parts(head, Full::new(body.to_bytes()))).await;
            turn(false);
            answer
        }
    });
    let connection = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    loop {
        tokio::select! {
            _ = &mut connection => return,
            () = turned.notified() => {}
            () = sleep(TIME_LIMIT), if !busy.load(Ordering::Relaxed) => return,
        }
    }
}
