//! A stand-in for a Langfuse server on loopback: stores what arrives, and answers as a test wants.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value},
};
use prost::Message;
use rustls::{ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion};
use serde_json::Value;

use crate::{
    Authority, Identity,
    langfuse::{self, Project},
    scores::{self, Scores},
};

/// A span as it arrived.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Trace id, in hex.
    pub trace_id: String,
    /// Span id, in hex.
    pub span_id: String,
    /// Its parent's id, in hex; empty for a root.
    pub parent: String,
    pub name: String,
    /// Start, in nanoseconds since the epoch.
    pub start: u64,
    /// End, in nanoseconds since the epoch.
    pub end: u64,
    /// Its status is an error.
    pub is_error: bool,
    /// Attributes; lists as JSON.
    pub attrs: BTreeMap<String, String>,
    /// Name of the instrumentation scope.
    pub scope: String,
    /// Attributes of the resource.
    pub resource: BTreeMap<String, String>,
    /// The span as it was encoded.
    pub encoded: Vec<u8>,
}

impl Span {
    /// Trace id and span id.
    pub fn id(&self) -> (String, String) {
        (self.trace_id.clone(), self.span_id.clone())
    }

    /// Attribute `key`; empty if there is none.
    pub fn get(&self, key: &str) -> &str {
        self.attrs.get(key).map_or("", String::as_str)
    }

    /// Attribute `langfuse.observation.KEY`.
    pub fn observation(&self, key: &str) -> &str {
        self.get(&format!("langfuse.observation.{key}"))
    }

    /// True for the root of a trace.
    pub fn is_root(&self) -> bool {
        self.parent.is_empty()
    }

    /// True for a model call.
    pub fn is_generation(&self) -> bool {
        self.observation("type") == "generation"
    }

    /// `content` of the message in attribute `langfuse.observation.KEY`; of an input, that of its first message.
    pub fn content(&self, key: &str) -> String {
        let said: serde_json::Value = serde_json::from_str(self.observation(key)).unwrap_or_default();
        let message = if key == "input" { &said[0] } else { &said };
        message["content"].as_str().unwrap_or_default().to_owned()
    }
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET`, `POST`, ….
    pub method: String,
    pub path: String,
    /// Header names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body as it arrived.
    pub raw: Vec<u8>,
    /// The body, decompressed.
    pub plain: Vec<u8>,
    pub spans: Vec<Span>,
    /// When it had arrived completely.
    pub at: Instant,
    /// The status of the answer; 0 if the connection was closed instead.
    pub status: u16,
}

impl Request {
    /// The value of a header; panics if it is there more than once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str());
        let value = values.next();
        assert_eq!(values.next(), None, "{name} is there twice");
        value
    }

    /// The key of the request: `public:secret`.
    pub fn key(&self) -> String {
        use base64::Engine;
        let encoded = self.header("authorization").and_then(|value| value.strip_prefix("Basic ")).unwrap_or_default();
        let pair = base64::engine::general_purpose::STANDARD.decode(encoded).unwrap_or_default();
        String::from_utf8_lossy(&pair).into_owned()
    }
}

/// How to answer a request.
#[derive(Clone, Debug)]
pub struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Option<String>,
    stores: bool,
    stalls: bool,
    late: Duration,
}

impl Answer {
    /// Accepted. Questions to a Langfuse server's API are answered from the stored spans.
    pub fn ok() -> Self {
        Self::status(200)
    }

    /// An answer with this status; with a 2xx the spans are stored.
    pub fn status(status: u16) -> Self {
        let stores = (200..300).contains(&status);
        Self { status, headers: Vec::new(), body: None, stores, stalls: false, late: Duration::ZERO }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: &str) -> Self {
        self.body = Some(body.to_owned());
        self
    }

    /// The same after a delay, as if a queue or storage behind the server hangs: the spans are stored only then.
    #[must_use]
    pub fn late(mut self, late: Duration) -> Self {
        self.late = late;
        self
    }

    /// Stores no spans, whatever the status.
    #[must_use]
    pub fn unheard(mut self) -> Self {
        self.stores = false;
        self
    }

    /// Stores nothing, and closes the connection without an answer.
    pub fn broken() -> Self {
        Self::status(0)
    }

    /// Stores the spans, and closes the connection before the answer.
    pub fn lost() -> Self {
        Self { status: 0, stores: true, ..Self::ok() }
    }

    /// Stores and answers nothing; the connection stays open as long as the server runs.
    pub fn never() -> Self {
        Self { status: 0, stalls: true, stores: false, ..Self::ok() }
    }
}

type Plan = Box<dyn FnMut(&Request) -> Answer + Send>;

#[derive(Default)]
struct Seen {
    requests: Vec<Request>,
    project: Project,
    score_requests: Vec<Request>,
    scores: Scores,
    /// Open connections, and the other ends of those that were closed.
    open: usize,
    ended: BTreeSet<SocketAddr>,
}

struct Shared {
    seen: Mutex<Seen>,
    plan: Mutex<Plan>,
    score_plan: Mutex<Plan>,
    closed: AtomicBool,
}

/// The server, stopped on drop.
pub struct Server {
    pub url: String,
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

impl Server {
    /// A server that accepts everything.
    pub fn new() -> Self {
        Self::answering(|_| Answer::ok())
    }

    /// A server that answers by `plan`.
    pub fn answering(plan: impl FnMut(&Request) -> Answer + Send + 'static) -> Self {
        Self::at("127.0.0.1:0".parse().expect("an address"), plan)
    }

    /// A server at `address`, which [`unused`] may have found.
    pub fn at(address: SocketAddr, plan: impl FnMut(&Request) -> Answer + Send + 'static) -> Self {
        Self::start(address, None, plan)
    }

    /// A server at `address` that accepts everything over one version of TLS.
    pub fn secure(address: SocketAddr, identity: &Identity, version: &'static SupportedProtocolVersion) -> Self {
        Self::start(address, Some(identity.config(version)), |_| Answer::ok())
    }

    /// A server on any port that accepts everything over TLS from clients with a certificate of `clients`.
    pub fn secure_for(identity: &Identity, clients: &Authority) -> Self {
        Self::start(SocketAddr::from(([127, 0, 0, 1], 0)), Some(identity.config_for(clients)), |_| Answer::ok())
    }

    fn start(
        address: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
        plan: impl FnMut(&Request) -> Answer + Send + 'static,
    ) -> Self {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let listener = crate::until("the address to be free", || TcpListener::bind(address).ok());
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared {
            seen: Mutex::default(),
            plan: Mutex::new(Box::new(plan)),
            score_plan: Mutex::new(Box::new(|_| Answer::ok())),
            closed: AtomicBool::new(false),
        });
        let accept = shared.clone();
        std::thread::spawn(move || {
            while let Ok((stream, peer)) = listener.accept() {
                if accept.closed.load(Ordering::SeqCst) {
                    return;
                }
                lock(&accept.seen).open += 1;
                let (shared, tls) = (accept.clone(), tls.clone());
                std::thread::spawn(move || {
                    match tls.map(ServerConnection::new) {
                        None => shared.serve(stream),
                        Some(tls) => shared.serve(StreamOwned::new(tls.expect("TLS"), stream)),
                    }
                    let mut seen = lock(&shared.seen);
                    seen.open -= 1;
                    seen.ended.insert(peer);
                });
            }
        });
        Self { url: format!("{scheme}://{address}"), address, shared }
    }

    /// Answers by `plan` from now on.
    pub fn change(&self, plan: impl FnMut(&Request) -> Answer + Send + 'static) {
        *lock(&self.shared.plan) = Box::new(plan);
    }

    /// Answers requests with scores by `plan` from now on; before that, every valid score is taken.
    pub fn change_scores(&self, plan: impl FnMut(&Request) -> Answer + Send + 'static) {
        *lock(&self.shared.score_plan) = Box::new(plan);
    }

    /// Every request with scores so far.
    pub fn score_requests(&self) -> Vec<Request> {
        lock(&self.shared.seen).score_requests.clone()
    }

    /// Every event that brought a score, as often as it was taken.
    pub fn score_events(&self) -> Vec<Value> {
        lock(&self.shared.seen).scores.events()
    }

    /// Every score with its latest value.
    pub fn scores(&self) -> Vec<Value> {
        lock(&self.shared.seen).scores.all()
    }

    /// Every assessment of MLflow with its latest value.
    pub fn assessments(&self) -> Vec<Value> {
        lock(&self.shared.seen).scores.assessments()
    }

    /// Waits for `count` scores, and returns all of them.
    pub fn wait_for_scores(&self, count: usize) -> Vec<Value> {
        crate::until(&format!("{count} scores"), || Some(self.scores()).filter(|scores| scores.len() >= count))
    }

    /// Every request so far, except those with scores.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.shared.seen).requests.clone()
    }

    /// Every stored span that is not deleted, as often as it was sent.
    pub fn spans(&self) -> Vec<Span> {
        lock(&self.shared.seen).project.spans()
    }

    /// The output that a v3 server shows for a trace of a project with [`env`](Self::env).
    pub fn older_output(&self, trace_id: &str) -> String {
        lock(&self.shared.seen).project.of_trace("pk-lf-test", trace_id, "output").to_owned()
    }

    /// Does what a real server does asynchronously: deletes what it was asked to delete, and merges versions of a span.
    pub fn work(&self) {
        lock(&self.shared.seen).project.work();
    }

    /// Waits for `count` stored spans, and returns all of them.
    pub fn wait_for(&self, count: usize) -> Vec<Span> {
        crate::until(&format!("{count} spans"), || Some(self.spans()).filter(|spans| spans.len() >= count))
    }

    /// Waits for `count` requests, and returns all of them.
    pub fn wait_for_requests(&self, count: usize) -> Vec<Request> {
        crate::until(&format!("{count} requests"), || Some(self.requests()).filter(|seen| seen.len() >= count))
    }

    /// Waits until everything is read that closed clients have sent; there must be no open ones.
    pub fn drained(&self) {
        // Connections are accepted in order: when this one has ended, all earlier ones are known.
        let last = TcpStream::connect(self.address).and_then(|stream| stream.local_addr()).expect("it listens");
        crate::eventually("the last requests to be read", || {
            let seen = lock(&self.shared.seen);
            seen.ended.contains(&last) && seen.open == 0
        });
    }

    /// The environment of a project that sends here.
    pub fn env(&self) -> Vec<(String, String)> {
        env(&self.url, "pk-lf-test", "sk-lf-test")
    }
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts, so that the address is free again.
        drop(TcpStream::connect(self.address));
    }
}

/// The environment of a project that sends to `url`.
pub fn env(url: &str, public_key: &str, secret_key: &str) -> Vec<(String, String)> {
    [
        ("TRACE_TO_LANGFUSE", "true"),
        ("LANGFUSE_PUBLIC_KEY", public_key),
        ("LANGFUSE_SECRET_KEY", secret_key),
        ("LANGFUSE_BASE_URL", url),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

/// An address where nothing listens.
pub fn unused() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

impl Shared {
    fn serve(&self, stream: impl Read + Write) {
        let mut input = BufReader::new(stream);
        while let Some(mut request) = read(&mut input) {
            if self.closed.load(Ordering::SeqCst) {
                return;
            }
            let is_score = request.path == scores::PATH || request.path.contains("/assessments");
            let mut answer = (lock(if is_score { &self.score_plan } else { &self.plan }))(&request);
            request.status = answer.status;
            let mut seen = lock(&self.seen);
            if is_score { &mut seen.score_requests } else { &mut seen.requests }.push(request.clone());
            drop(seen);
            let due = Instant::now() + answer.late;
            while Instant::now() < due && !self.closed.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(20));
            }
            let mut seen = lock(&self.seen);
            if answer.stores {
                seen.scores.delete(&request.method, &request.path);
            }
            if answer.stores && !is_score {
                seen.project.take(&request);
            }
            if answer.stores && is_score && answer.body.is_none() {
                let (status, body) = seen.scores.take(&request);
                if answer.status == 200 {
                    (answer.status, answer.body) = (status, Some(body));
                }
            }
            if let (200, None) = (answer.status, &answer.body)
                && let Some((status, body)) = langfuse::answer(&request, &mut seen.project)
            {
                (answer.status, answer.body) = (status, Some(body));
            }
            if answer.body.is_none() {
                answer.body = langfuse::refusal(answer.status).filter(|_| request.path.starts_with("/api/public/"));
            }
            drop(seen);
            while answer.stalls && !self.closed.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(20));
            }
            if answer.status == 0 {
                return;
            }
            let body = answer.body.unwrap_or_else(|| "{}".into());
            let mut head = format!("HTTP/1.1 {} X\r\ncontent-length: {}\r\n", answer.status, body.len());
            let says = |name: &str| answer.headers.iter().any(|(said, _)| *said == name);
            if !says("content-type") {
                head.push_str("content-type: application/json\r\n");
            }
            if !says("date") {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                head.push_str(&format!("date: {}\r\n", langfuse::http_date(now)));
            }
            for (name, value) in &answer.headers {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
            let out = input.get_mut();
            if out.write_all(format!("{head}\r\n{body}").as_bytes()).and_then(|()| out.flush()).is_err() {
                return;
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// One request; `None` at the end of the connection.
fn read(input: &mut impl BufRead) -> Option<Request> {
    let mut line = || {
        let mut text = String::new();
        input.read_line(&mut text).ok().filter(|n| *n > 0).map(|_| text.trim_end().to_owned())
    };
    let first = line()?;
    let (method, rest) = first.split_once(' ')?;
    let (method, path) = (method.to_owned(), rest.split(' ').next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let header = line()?;
        if header.is_empty() {
            break;
        }
        let (name, value) = header.split_once(':')?;
        headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
    let get = |wanted: &str| headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone());
    let mut raw = vec![0; get("content-length").map_or(Some(0), |length| length.parse().ok())?];
    input.read_exact(&mut raw).ok()?;
    let mut plain = Vec::new();
    if get("content-encoding").as_deref() == Some("gzip") {
        flate2::read::GzDecoder::new(&raw[..]).read_to_end(&mut plain).ok()?;
    } else {
        plain.clone_from(&raw);
    }
    let spans = decode(&plain);
    Some(Request { method, path, headers, raw, plain, spans, at: Instant::now(), status: 0 })
}

fn decode(body: &[u8]) -> Vec<Span> {
    let request = ExportTraceServiceRequest::decode(body).unwrap_or_default();
    let mut spans = Vec::new();
    for resource in request.resource_spans {
        let of_resource = attributes(resource.resource.map(|resource| resource.attributes).unwrap_or_default());
        for scope in resource.scope_spans {
            let name = scope.scope.map(|scope| scope.name).unwrap_or_default();
            spans.extend(scope.spans.into_iter().map(|span| Span {
                encoded: span.encode_to_vec(),
                trace_id: hex(&span.trace_id),
                span_id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                name: span.name,
                start: span.start_time_unix_nano,
                end: span.end_time_unix_nano,
                is_error: span.status.is_some_and(|status| status.code == 2),
                attrs: attributes(span.attributes),
                scope: name.clone(),
                resource: of_resource.clone(),
            }));
        }
    }
    spans
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attributes(pairs: Vec<KeyValue>) -> BTreeMap<String, String> {
    pairs.into_iter().map(|pair| (pair.key, pair.value.map(text).unwrap_or_default())).collect()
}

fn text(value: AnyValue) -> String {
    match value.value {
        Some(any_value::Value::StringValue(text)) => text,
        Some(any_value::Value::ArrayValue(list)) => {
            serde_json::Value::from(list.values.into_iter().map(text).collect::<Vec<_>>()).to_string()
        }
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        Some(any_value::Value::DoubleValue(number)) => number.to_string(),
        Some(any_value::Value::BoolValue(is_so)) => is_so.to_string(),
        other => format!("{other:?}"),
    }
}
