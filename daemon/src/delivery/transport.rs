//! HTTP to one destination: OpenTelemetry's exporter over a client of our own that sees the whole answer.
//!
//! The exporter reports a failure as a string, but what to do depends on status, `Retry-After` and body, so the client keeps
//! them. It also rebuilds the headers: the exporter merges `OTEL_EXPORTER_OTLP_HEADERS` of the environment over its own, which
//! would replace our `Authorization` or send another collector's token to this server.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use opentelemetry::{
    InstrumentationScope, KeyValue,
    trace::{Event, Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState},
};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{
    Compression, ExporterBuildError, RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig,
};
use opentelemetry_sdk::{
    Resource,
    trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks},
};

pub use super::client::Limits;
use super::{
    client::{AGENT, Hyper},
    connect::{self, Route},
    exchange::exchange,
    gzip::Gzip,
    reply::Asked,
};
use cc_core::{
    destination::{
        Destination, Endpoint,
        wire::{self, Value, WireSpan},
    },
    ids,
    secret::Secrets,
    verdict::{Answer, Verdict},
};

/// The exporter's own limit must not end a request that makes progress.
const NO_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// Sends spans to one destination.
pub struct Transport {
    exporter: SpanExporter,
    exchange: Arc<Mutex<Exchange>>,
    scope: InstrumentationScope,
}

/// The client's input for the current exchange, and its result.
struct Exchange {
    limits: Limits,
    answer: Option<Answer>,
    took: Duration,
}

impl Transport {
    /// Connects to `destination` with `secrets`, after asking its server whatever must be known first.
    ///
    /// # Errors
    /// The verdict on why there is no connection: the secret must not be sent there, TLS cannot be set up, or the
    /// server's answer.
    pub async fn connect(destination: &Destination, secrets: &Secrets, limits: Limits) -> Result<Self, Verdict> {
        match connect::open(destination, secrets, limits, &mut None).await? {
            Route::Files(_) => Err(Verdict::Park("it is a directory, and no server".into())),
            Route::Server(server) => {
                let (client, endpoint) = *server;
                let new = Self::new(client, destination, endpoint, secrets, limits);
                new.map_err(|error| Verdict::Park(format!("{error:#}")))
            }
        }
    }

    /// Over `client`, to the endpoint of `destination`.
    pub(super) fn new(
        client: Hyper,
        destination: &Destination,
        Endpoint { url, mut headers }: Endpoint,
        secrets: &Secrets,
        limits: Limits,
    ) -> anyhow::Result<Self> {
        let backend = destination.kind.backend();
        headers.insert(header::USER_AGENT, HeaderValue::from_static(AGENT));
        let exchange = Arc::new(Mutex::new(Exchange { limits, answer: None, took: Duration::ZERO }));
        let key = (destination.account.clone(), secrets.clone());
        let client = Observed { client, headers, key, gzip: Gzip::shared(), exchange: exchange.clone() };
        // The client compresses. The environment may ask the exporter for it in a way that it does not know.
        let built = exporter(client.clone(), &url, None);
        let mut exporter = built.or_else(|_| exporter(client, &url, Some(Compression::Gzip)))?;
        let resource = attributes(backend.resource(destination));
        exporter.set_resource(&Resource::builder_empty().with_attributes(resource).build());
        let scope = InstrumentationScope::builder(backend.scope()).with_version(env!("CARGO_PKG_VERSION")).build();
        Ok(Self { exporter, exchange, scope })
    }

    /// Sends a batch and returns the answer.
    pub async fn send(&self, spans: Vec<WireSpan>) -> Answer {
        let limits = self.exchange.lock().unwrap_or_else(PoisonError::into_inner).limits;
        self.send_with(spans, limits.answer).await.0
    }

    /// Sends a batch, which the server may answer within `limit` after the last byte. Returns the answer and how long after the
    /// last byte it came.
    pub async fn send_with(&self, spans: Vec<WireSpan>, limit: Duration) -> (Answer, Duration) {
        let batch = spans.into_iter().map(|span| self.data(span)).collect();
        {
            let mut exchange = self.exchange.lock().unwrap_or_else(PoisonError::into_inner);
            exchange.answer = None;
            exchange.limits.answer = limit;
        }
        let result = self.exporter.export(batch).await;
        let mut seen = self.exchange.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = match (seen.answer.take(), result) {
            (Some(answer), _) => answer,
            (None, Err(_)) => Answer::NotSent,
            (None, Ok(())) => Answer::Unreachable("the exporter sent nothing".into()),
        };
        (answer, seen.took)
    }

    fn data(&self, span: WireSpan) -> SpanData {
        let mut events = SpanEvents::default();
        events.events = span
            .events
            .into_iter()
            .map(|event| Event::new(event.name, time(event.at_ns), attributes(event.attributes), 0))
            .collect();
        let mut links = SpanLinks::default();
        links.links =
            span.links.into_iter().map(|(trace, span)| Link::new(context(trace, span), Vec::new(), 0)).collect();
        SpanData {
            span_context: context(span.trace_id, span.span_id),
            parent_span_id: SpanId::from_bytes(span.parent_id),
            parent_span_is_remote: false,
            span_kind: match span.kind {
                wire::SpanKind::Internal => SpanKind::Internal,
                wire::SpanKind::Client => SpanKind::Client,
            },
            name: span.name.into(),
            start_time: time(span.start_ns),
            end_time: time(span.end_ns),
            attributes: attributes(span.attributes),
            dropped_attributes_count: 0,
            events,
            links,
            status: match span.status {
                wire::Status::Unset => Status::Unset,
                wire::Status::Ok => Status::Ok,
                wire::Status::Error(message) => Status::error(message),
            },
            instrumentation_scope: self.scope.clone(),
        }
    }
}

fn exporter(client: Observed, url: &str, compression: Option<Compression>) -> Result<SpanExporter, ExporterBuildError> {
    let builder = SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_endpoint(url)
        .with_timeout(NO_LIMIT)
        .with_headers(HashMap::new())
        .with_retry_policy(RetryPolicy::disabled());
    match compression {
        Some(compression) => builder.with_compression(compression).build(),
        None => builder.build(),
    }
}

fn context(trace: ids::TraceId, span: ids::SpanId) -> SpanContext {
    let (trace, span) = (TraceId::from_bytes(trace), SpanId::from_bytes(span));
    SpanContext::new(trace, span, TraceFlags::SAMPLED, false, TraceState::default())
}

fn attributes(attributes: Vec<(Cow<'static, str>, Value)>) -> Vec<KeyValue> {
    let value = |value| match value {
        Value::Text(text) => text.into(),
        Value::List(items) => {
            let items: Vec<opentelemetry::StringValue> = items.into_iter().map(Into::into).collect();
            opentelemetry::Value::Array(items.into())
        }
        Value::Bool(value) => value.into(),
        Value::Int(value) => value.into(),
        Value::Double(value) => value.into(),
    };
    attributes.into_iter().map(|(key, found)| KeyValue::new(key, value(found))).collect()
}

fn time(nanos: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos)
}

/// An HTTP client that compresses what it sends and keeps the answer.
#[derive(Clone)]
struct Observed {
    client: Hyper,
    headers: HeaderMap,
    key: (String, Secrets),
    gzip: Gzip,
    exchange: Arc<Mutex<Exchange>>,
}

impl std::fmt::Debug for Observed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Observed")
    }
}

#[async_trait::async_trait]
impl HttpClient for Observed {
    async fn send_bytes(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let mut headers = self.headers.clone();
        for name in [header::CONTENT_TYPE, header::CONTENT_ENCODING] {
            if let Some(value) = request.headers().get(&name) {
                headers.insert(name, value.clone());
            }
        }
        if !headers.contains_key(header::CONTENT_ENCODING)
            && let Some(body) = self.gzip.of(request.body())
        {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            *request.body_mut() = body.into();
        }
        *request.headers_mut() = headers;
        let limits = self.exchange.lock().unwrap_or_else(PoisonError::into_inner).limits;
        let outcome = exchange(&self.client, request, &self.key, limits, Asked::Api).await;
        let (answer, took, result) = match outcome {
            Ok(done) => (done.answer, done.took, Ok(done.response)),
            Err(failed) => (failed.answer(), Duration::ZERO, Err(failed.into())),
        };
        let mut seen = self.exchange.lock().unwrap_or_else(PoisonError::into_inner);
        (seen.answer, seen.took) = (Some(answer), took);
        result
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::delivery::readback::Readback;
    use cc_core::secret::Secret;

    fn secrets() -> Secrets {
        [(cc_core::destination::langfuse::SECRET_KEY, Secret::new("sk"))].into_iter().collect()
    }

    fn to(address: String) -> Destination {
        Destination { kind: cc_core::destination::Kind::Langfuse, address, account: "pk".into() }
    }

    fn span() -> WireSpan {
        WireSpan {
            trace_id: [1; 16],
            span_id: [1; 8],
            name: "turn".into(),
            start_ns: 1,
            end_ns: 2,
            ..WireSpan::default()
        }
    }

    /// Reads a whole request.
    async fn read(stream: &mut TcpStream) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            stream.read_buf(&mut bytes).await.unwrap();
            let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            if bytes.len() >= end + 4 + length.parse::<usize>().unwrap() {
                return bytes;
            }
        }
    }

    #[tokio::test]
    async fn a_request_to_a_silent_server_ends_in_time_and_the_next_has_the_same_bytes() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let limits =
            Limits { stall: Duration::from_millis(150), answer: Duration::from_millis(150), ..Limits::default() };
        let transport = Transport::connect(&to(url), &secrets(), limits).await.unwrap();
        let server = tokio::spawn(async move {
            let (mut requests, mut open) = (Vec::new(), Vec::new());
            let said = [
                "",
                "HTTP/1.1 200 X\r\nx",
                "HTTP/1.1 503 X\r\ncontent-length: 10\r\n\r\nbusy",
                "HTTP/1.1 200 X\r\ncontent-length: 10\r\n\r\n{}",
            ];
            for said in said {
                let (mut stream, _) = listener.accept().await.unwrap();
                requests.push(read(&mut stream).await);
                stream.write_all(said.as_bytes()).await.unwrap();
                open.push(stream);
            }
            (requests, open)
        });
        for expect in [None, None, Some(503), Some(200)] {
            let started = Instant::now();
            let answer = transport.send(vec![span()]).await;
            // The status counts even if the body breaks off.
            match (&answer, expect) {
                (Answer::Silent(why), None) => assert_eq!(why, "no answer within 150ms"),
                (Answer::Response { status, .. }, Some(expect)) => assert_eq!(*status, expect),
                other => panic!("{other:?}"),
            }
            assert!(started.elapsed() >= limits.stall);
        }
        let (requests, _open) = server.await.unwrap();
        assert!(requests.iter().all(|request| *request == requests[0]), "{requests:?}");
    }

    /// A span with text that hardly compresses.
    fn large(length: usize) -> WireSpan {
        let mut state = 1u64;
        let text = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            char::from(b'!' + ((state >> 33) % 90) as u8)
        });
        WireSpan { attributes: vec![("x".into(), Value::Text(text.take(length).collect()))], ..span() }
    }

    #[tokio::test]
    async fn a_slow_request_is_not_cut_off_while_it_makes_progress() {
        let listener = tokio::net::TcpSocket::new_v4().unwrap();
        listener.set_recv_buffer_size(16 << 10).unwrap();
        listener.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = listener.listen(8).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let limit = Duration::from_millis(1500);
        let limits = Limits { stall: limit, ..Limits::default() };
        let transport = Transport::connect(&to(url), &secrets(), limits).await.unwrap();
        let server = tokio::spawn(async move {
            let pause = || tokio::time::sleep(Duration::from_millis(100));
            let mut open = Vec::new();
            for is_slow in [true, false] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut bytes = Vec::with_capacity(4 << 20);
                let mut piece = vec![0; 64 << 10];
                let mut length = usize::MAX;
                while is_slow && bytes.len() < length {
                    let n = stream.read(&mut piece).await.unwrap();
                    bytes.extend_from_slice(&piece[..n]);
                    if let Some(end) =
                        bytes.windows(4).position(|four| four == b"\r\n\r\n").filter(|_| length == usize::MAX)
                    {
                        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
                        let said = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
                        length = end + 4 + said.parse::<usize>().unwrap();
                    }
                    pause().await;
                }
                if is_slow {
                    tokio::time::sleep(Duration::from_millis(400)).await;
                    stream
                        .write_all(b"HTTP/1.1 200 X\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
                        .await
                        .unwrap();
                }
                open.push(stream);
            }
            // The second request is not read.
            tokio::time::sleep(Duration::from_secs(30)).await;
        });
        let started = Instant::now();
        let (answer, took) = transport.send_with(vec![large(3 << 20)], Duration::from_secs(20)).await;
        assert!(matches!(answer, Answer::Response { status: 200, .. }), "{answer:?}");
        assert!(started.elapsed() > limit * 2, "it took longer than any limit: {:?}", started.elapsed());
        assert!(took >= Duration::from_millis(400), "{took:?}");
        let answer = transport.send(vec![large(3 << 20)]).await;
        assert_eq!(answer, Answer::Silent("nothing could be sent for 1.5s".into()));
        server.abort();
    }

    #[tokio::test]
    async fn a_secret_is_not_sent_unencrypted_to_another_machine() {
        let limits = Limits::default();
        for url in ["http://lf.example.org", "http://127.0.0.1.evil.example", "http://0.0.0.0:1"] {
            let to = to(url.into());
            let Some(Verdict::Park(why)) = Transport::connect(&to, &secrets(), limits).await.err() else { panic!() };
            assert!(why.contains("unencrypted") && why.contains("https"), "{why}");
            assert_eq!(Readback::new(&to, &secrets(), limits).err().unwrap().to_string(), why);
        }
    }
}
