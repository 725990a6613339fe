//! Receives Claude Code's own telemetry over OTLP/HTTP on loopback, if `config.toml` says so. Facts of calls and tools are held for
//! the engine; nothing is stored, and nothing becomes a trace of its own. A sender must know the token, which only the user's
//! settings hold.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io::Read,
    net::Ipv4Addr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use sha2::{Digest, Sha256};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};

use crate::{clock::now_ms, delivery::forward::Forward};
use cc_core::{
    config::telemetry::Receiver,
    ids::hex,
    status,
    telemetry::{Facts, otlp},
};

mod protobuf;

/// How many connections are served at a time; the oldest makes room. Claude Code has two in each session, now and then.
const MAX_CONNECTIONS: usize = 64;

/// The largest request, compressed or not, in bytes. Claude Code sends at most 512 records at once, of about 1 KB each.
const MAX_BODY: usize = 4 << 20;

/// For a whole request and its answer.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// How long nothing is accepted after the system refused a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What came, shared by the receiver and the engine. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Telemetry(Option<Arc<Shared>>);

#[derive(Debug, Default)]
struct Shared {
    facts: Mutex<Facts>,
    /// Why nothing is received.
    error: Mutex<Option<String>>,
    taken: AtomicU64,
    foreign: AtomicU64,
    refused: AtomicU64,
    unreadable: AtomicU64,
    not_passed_on: Arc<AtomicU64>,
}

impl Telemetry {
    /// One that holds facts.
    pub fn on() -> Self {
        Self(Some(Arc::default()))
    }

    /// The facts; `None` if no telemetry is received.
    pub fn facts(&self) -> Option<MutexGuard<'_, Facts>> {
        self.0.as_ref().map(|shared| shared.facts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What `status` shows; `None` if no telemetry is received.
    pub fn received(&self) -> Option<status::Telemetry> {
        let shared = self.0.as_ref()?;
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Some(status::Telemetry {
            error: shared.error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            taken: of(&shared.taken),
            foreign: of(&shared.foreign),
            refused: of(&shared.refused),
            unreadable: of(&shared.unreadable),
            nameless: shared.facts.lock().unwrap_or_else(PoisonError::into_inner).nameless,
            not_passed_on: of(&shared.not_passed_on),
        })
    }
}

/// Receives until it is dropped. `news` is called with each session of which something came. Without a port, the daemon does
/// without telemetry.
pub async fn receive(receiver: Receiver, telemetry: Telemetry, news: impl Fn(String) + Send + Sync + 'static) {
    let Some(shared) = telemetry.0 else { return };
    let listener = match TcpListener::bind((Ipv4Addr::LOCALHOST, receiver.port)).await {
        Ok(listener) => listener,
        Err(error) => {
            let why = format!("port {} cannot be listened on: {error}", receiver.port);
            tracing::error!("Claude Code's telemetry is not received: {why}");
            *shared.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
            return;
        }
    };
    tracing::info!(port = receiver.port, "Claude Code's telemetry is received");
    let forward = receiver.forward.as_ref().and_then(|to| {
        Forward::new(to, shared.not_passed_on.clone())
            .inspect_err(|error| tracing::error!("telemetry is not passed on: {error:#}"))
            .ok()
    });
    let of = Arc::new(Of { token: receiver.token_sha256, shared, forward, news });
    let (mut tasks, mut open) = (JoinSet::new(), VecDeque::<AbortHandle>::new());
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(_) => {
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        while tasks.try_join_next().is_some() {}
        open.retain(|task| !task.is_finished());
        if open.len() >= MAX_CONNECTIONS {
            open.pop_front().inspect(AbortHandle::abort);
        }
        open.push_back(tasks.spawn(connection(stream, of.clone())));
    }
}

struct Of<N> {
    /// In hexadecimal.
    token: String,
    shared: Arc<Shared>,
    forward: Option<Forward>,
    news: N,
}

async fn connection<N: Fn(String) + Send + Sync + 'static>(stream: TcpStream, of: Arc<Of<N>>) {
    let service = service_fn(|request| {
        let of = of.clone();
        async move { Ok::<_, Infallible>(of.answer(request).await) }
    });
    let served = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service);
    let _ = timeout(TIME_LIMIT, served).await;
}

impl<N: Fn(String)> Of<N> {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let status = |status: StatusCode| {
            let mut response = Response::new(Full::default());
            *response.status_mut() = status;
            response
        };
        if !self.is_allowed(&head.headers) {
            self.shared.refused.fetch_add(1, Ordering::Relaxed);
            return status(StatusCode::UNAUTHORIZED);
        }
        let path = head.uri.path();
        if head.method != Method::POST || !["/v1/logs", "/v1/traces", "/v1/metrics"].contains(&path) {
            return status(StatusCode::NOT_FOUND);
        }
        let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
            self.shared.unreadable.fetch_add(1, Ordering::Relaxed);
            return status(StatusCode::PAYLOAD_TOO_LARGE);
        };
        let body = body.to_bytes();
        let is_json = media_type(&head.headers) == "application/json";
        let read = match path {
            "/v1/metrics" => Some(otlp::Request::default()),
            _ => self.read(path, &head.headers, &body, is_json),
        };
        match read {
            Some(read) => self.take(&read),
            None => drop(self.shared.unreadable.fetch_add(1, Ordering::Relaxed)),
        }
        // Whatever it is, and whatever comes of it: the user had it sent there before.
        if let Some(forward) = &self.forward {
            forward.send(path, &head.headers, body);
        }
        let mut response = Response::new(Full::from(if is_json { "{}" } else { "" }));
        let kind = if is_json { "application/json" } else { "application/x-protobuf" };
        response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
        response
    }

    /// The sender has the token. Hashes are compared, so how long it takes says nothing about it.
    fn is_allowed(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = given.and_then(|given| given.strip_prefix("Bearer ")).unwrap_or_default();
        hex(&Sha256::digest(token)) == self.token
    }

    fn read(&self, path: &str, headers: &HeaderMap, body: &Bytes, is_json: bool) -> Option<otlp::Request> {
        let plain = match headers.get(header::CONTENT_ENCODING).map(http::HeaderValue::as_bytes) {
            None | Some(b"identity") => body.clone(),
            Some(b"gzip") => {
                let mut plain = Vec::new();
                let limit = MAX_BODY as u64 + 1;
                flate2::read::GzDecoder::new(&**body).take(limit).read_to_end(&mut plain).ok()?;
                (plain.len() <= MAX_BODY).then(|| plain.into())?
            }
            Some(_) => return None,
        };
        if is_json { otlp::read(&plain) } else { protobuf::read(path, &plain) }
    }

    fn take(&self, read: &otlp::Request) {
        let now = u64::try_from(now_ms()).unwrap_or_default().saturating_mul(1_000_000);
        let mut sessions: Vec<String> = {
            let mut facts = self.shared.facts.lock().unwrap_or_else(PoisonError::into_inner);
            read.records.iter().filter_map(|record| facts.add(record, now)).collect()
        };
        self.shared.taken.fetch_add(read.records.len() as u64, Ordering::Relaxed);
        self.shared.foreign.fetch_add(read.foreign, Ordering::Relaxed);
        sessions.sort_unstable();
        sessions.dedup();
        sessions.into_iter().for_each(&self.news);
    }
}

fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}
