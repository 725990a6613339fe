//! One destination's HTTP: OpenTelemetry's exporter over a client of our own that sees the whole answer.
//!
//! The exporter reports a failure as a string; what to do about it depends on status, `Retry-After` and body, so the client
//! keeps them. It also rebuilds the headers: the exporter merges `OTEL_EXPORTER_OTLP_HEADERS` of the environment over its
//! own, which would replace our `Authorization` or hand another collector's token to Langfuse.

use std::{
    collections::HashMap,
    error::Error,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::{
        legacy::{
            Client,
            connect::{HttpConnector, proxy::Tunnel},
        },
        proxy::matcher::Matcher,
    },
    rt::{TokioExecutor, TokioTimer},
};
use opentelemetry::{
    InstrumentationScope, KeyValue,
    trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState},
};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Compression, RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_sdk::{
    Resource,
    trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks},
};
use prost::Message;

use super::verdict::Answer;
use crate::{
    credentials::Secret,
    dialect::{OutSpan, Value},
    hook::{Destination, is_loopback},
};

/// How long a server may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest a connection may take to come about.
    pub connect: Duration,
    /// Longest it may take until an answer begins, connection included, and from there to its end.
    pub request: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), request: Duration::from_secs(30) }
    }
}

/// What this program calls itself.
pub(super) const AGENT: &str = concat!("cc-langfuse/", env!("CARGO_PKG_VERSION"));

/// Most bytes of an answer that are read.
const ANSWER: usize = 1 << 20;

/// Instrumentation scope. Langfuse copies every attribute of a scope whose name does not start with `langfuse-sdk` into the
/// metadata of each observation.
const SCOPE: &str = "langfuse-sdk.cc-langfuse";

/// Sends spans to one destination.
pub struct Transport {
    exporter: SpanExporter,
    last: Arc<Mutex<Option<Answer>>>,
    scope: InstrumentationScope,
}

impl Transport {
    /// For `destination`, reached with `secret`.
    ///
    /// # Errors
    /// If the secret must not be sent there, TLS cannot be set up or the address is none.
    pub fn new(destination: &Destination, secret: &Secret, limits: Limits) -> anyhow::Result<Self> {
        let client = client(destination, limits)?;
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, secret.basic_auth(&destination.public_key));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(AGENT));
        headers.insert("x-langfuse-sdk-name", HeaderValue::from_static("cc-langfuse"));
        headers.insert("x-langfuse-sdk-version", HeaderValue::from_static(env!("CARGO_PKG_VERSION")));
        headers.insert("x-langfuse-ingestion-version", HeaderValue::from_static("4"));
        headers.insert("x-langfuse-public-key", HeaderValue::from_str(&destination.public_key)?);
        let last = Arc::new(Mutex::new(None));
        let key = (destination.public_key.clone(), secret.clone());
        let client = Observed { client, headers, key, limit: limits.request, last: last.clone() };
        let mut exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_endpoint(format!("{}/api/public/otel/v1/traces", destination.base_url))
            .with_timeout(limits.request)
            .with_headers(HashMap::new())
            .with_compression(Compression::Gzip)
            .with_retry_policy(RetryPolicy::disabled())
            .build()?;
        exporter.set_resource(
            &Resource::builder_empty().with_attributes([KeyValue::new("service.name", "claude-code")]).build(),
        );
        let scope = InstrumentationScope::builder(SCOPE).with_version(env!("CARGO_PKG_VERSION")).build();
        Ok(Self { exporter, last, scope })
    }

    /// Sends a batch; says what came back.
    pub async fn send(&self, spans: Vec<OutSpan>) -> Answer {
        let batch = spans.into_iter().map(|span| self.data(span)).collect();
        let result = self.exporter.export(batch).await;
        let seen = self.last.lock().ok().and_then(|mut last| last.take());
        match (seen, result) {
            (Some(answer), _) => answer,
            (None, Err(_)) => Answer::NotSent,
            (None, Ok(())) => Answer::Unreachable("the exporter sent nothing".into()),
        }
    }

    fn data(&self, span: OutSpan) -> SpanData {
        let attributes = span.attributes.into_iter().map(|(key, value)| match value {
            Value::Text(text) => KeyValue::new(key, text),
            Value::List(items) => {
                let items: Vec<opentelemetry::StringValue> = items.into_iter().map(Into::into).collect();
                KeyValue::new(key, opentelemetry::Value::Array(items.into()))
            }
        });
        SpanData {
            span_context: SpanContext::new(
                TraceId::from_bytes(span.trace_id),
                SpanId::from_bytes(span.span_id),
                TraceFlags::SAMPLED,
                false,
                TraceState::default(),
            ),
            parent_span_id: SpanId::from_bytes(span.parent_id),
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: span.name.into(),
            start_time: time(span.start_ns),
            end_time: time(span.end_ns),
            attributes: attributes.collect(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: span.error.map_or(Status::Unset, Status::error),
            instrumentation_scope: self.scope.clone(),
        }
    }
}

fn time(nanos: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos)
}

pub(super) type Hyper = Client<HttpsConnector<Proxied>, Full<Bytes>>;

/// The way to `destination`, which is no other than one on which a secret is safe.
///
/// TLS with the well-known roots, those of the system, and those of `SSL_CERT_FILE` and `NODE_EXTRA_CA_CERTS` (which users
/// behind an inspecting proxy have set for Claude Code already); proxies from `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`.
pub(super) fn client(destination: &Destination, limits: Limits) -> anyhow::Result<Hyper> {
    anyhow::ensure!(
        destination.is_private(),
        "the secret key would travel unencrypted: set the base URL to one with https \
         (http is for localhost, 127.0.0.0/8 and [::1])"
    );
    let mut roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    // Includes SSL_CERT_FILE and SSL_CERT_DIR.
    let mut found = vec![rustls_native_certs::load_native_certs()];
    if let Some(path) = std::env::var_os("NODE_EXTRA_CA_CERTS").filter(|path| !path.is_empty()) {
        found.push(rustls_native_certs::load_certs_from_paths(Some(path.as_ref()), None));
    }
    for found in found {
        if let Some(error) = found.errors.first() {
            tracing::warn!(%error, and_others = found.errors.len() - 1, "certificates cannot be read");
        }
        roots.add_parsable_certificates(found.certs);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(limits.connect));
    let proxied = Proxied { tcp, rules: Arc::new(Matcher::from_env()) };
    let https =
        HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(proxied);
    Ok(Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).pool_max_idle_per_host(1).build(https))
}

/// Connects directly, or through a proxy where the environment names one. What is on this machine is reached directly: a
/// proxy cannot do that, and would read what is not encrypted.
#[derive(Clone)]
pub(super) struct Proxied {
    tcp: HttpConnector,
    rules: Arc<Matcher>,
}

impl tower_service::Service<http::Uri> for Proxied {
    type Response = <HttpConnector as tower_service::Service<http::Uri>>::Response;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: http::Uri) -> Self::Future {
        let mut tcp = self.tcp.clone();
        match self.rules.intercept(&to).filter(|_| !is_loopback(&to)) {
            None => Box::pin(async move { Ok(tower_service::Service::call(&mut tcp, to).await?) }),
            Some(proxy) if proxy.uri().scheme() != Some(&http::uri::Scheme::HTTP) => {
                let why = format!("the proxy {} is of a kind that is not supported, use one with http://", proxy.uri());
                Box::pin(async move { Err(why.into()) })
            }
            Some(proxy) => {
                let at = proxy.uri().authority().map(ToString::to_string).unwrap_or_default();
                let mut tunnel = Tunnel::new(proxy.uri().clone(), tcp);
                if let Some(auth) = proxy.basic_auth() {
                    tunnel = tunnel.with_auth(auth.clone());
                }
                Box::pin(async move {
                    let tunnel = tower_service::Service::call(&mut tunnel, to).await;
                    tunnel.map_err(|error| format!("the proxy {at}: {}", chain(&error)).into())
                })
            }
        }
    }
}

/// An HTTP client that remembers what came back.
struct Observed {
    client: Hyper,
    headers: HeaderMap,
    key: (String, Secret),
    limit: Duration,
    last: Arc<Mutex<Option<Answer>>>,
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
        *request.headers_mut() = headers;
        let outcome = exchange(&self.client, request, &self.key, self.limit).await;
        let (answer, result) = match outcome {
            Ok((answer, response)) => (answer, Ok(response)),
            Err(error) => (failure(error.as_ref()), Err(chain(error.as_ref()).into())),
        };
        if let Ok(mut last) = self.last.lock() {
            *last = Some(answer);
        }
        result
    }
}

/// Sends a request and reads what comes back.
pub(super) async fn exchange(
    client: &Hyper,
    request: Request<Bytes>,
    (public_key, secret): &(String, Secret),
    limit: Duration,
) -> Result<(Answer, Response<Bytes>), Box<dyn Error + Send + Sync>> {
    let response = tokio::time::timeout(limit, client.request(request.map(Full::new))).await;
    let (parts, body) = response.map_err(|_| format!("no answer within {limit:?}"))??.into_parts();
    // The status decides; a body that breaks off or stalls does not undo it.
    let body = tokio::time::timeout(limit, Limited::new(body, ANSWER).collect()).await;
    let body = body.ok().and_then(Result::ok).map(|body| body.to_bytes()).unwrap_or_default();
    let text = |name| parts.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let answer = Answer::Response {
        status: parts.status.as_u16(),
        retry_after: text(header::RETRY_AFTER),
        date: text(header::DATE).or_else(|| Some(httpdate::fmt_http_date(SystemTime::now()))),
        rejected: parts
            .status
            .is_success()
            .then(|| rejected(&text(header::CONTENT_TYPE), &body))
            .flatten()
            .map(|(count, why)| (count, secret.conceal(public_key, &why))),
        body: secret
            .conceal(public_key, &String::from_utf8_lossy(&body))
            .chars()
            .filter(|c| !c.is_control())
            .take(300)
            .collect(),
    };
    Ok((answer, Response::from_parts(parts, body)))
}

/// What it means that nothing came back.
pub(super) fn failure(error: &(dyn Error + 'static)) -> Answer {
    let why = chain(error);
    if is_tls(error) { Answer::Untrusted(why) } else { Answer::Unreachable(why) }
}

/// OTLP partial success, in either encoding. Langfuse answers JSON of its own to protobuf: that is none.
fn rejected(content_type: &Option<String>, body: &Bytes) -> Option<(i64, String)> {
    if content_type.as_deref().is_some_and(|kind| kind.contains("json")) {
        let body: serde_json::Value = serde_json::from_slice(body).ok()?;
        let partial = &body["partialSuccess"];
        let count = &partial["rejectedSpans"];
        let count = count.as_i64().or_else(|| count.as_str()?.parse().ok()).filter(|n| *n > 0)?;
        return Some((count, partial["errorMessage"].as_str().unwrap_or_default().to_owned()));
    }
    let partial = ExportTraceServiceResponse::decode(body.clone()).ok()?.partial_success?;
    (partial.rejected_spans > 0).then_some((partial.rejected_spans, partial.error_message))
}

fn chain(error: &(dyn Error + 'static)) -> String {
    let mut said = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        said.push(error.to_string());
        cause = error.source();
    }
    said.dedup();
    said.join(": ")
}

/// True if TLS was the problem, mostly a certificate.
fn is_tls(error: &(dyn Error + 'static)) -> bool {
    if error.is::<rustls::Error>() {
        return true;
    }
    // An I/O error does not name the error it was made of as its source, but that one's source.
    let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    inner.is_some_and(|inner| is_tls(inner)) || error.source().is_some_and(is_tls)
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
    use crate::hook::Kind;

    fn to(base_url: String) -> Destination {
        Destination { kind: Kind::Langfuse, base_url, public_key: "pk".into() }
    }

    fn span() -> OutSpan {
        OutSpan {
            trace_id: [1; 16],
            span_id: [1; 8],
            parent_id: [0; 8],
            name: "turn".into(),
            start_ns: 1,
            end_ns: 2,
            error: None,
            attributes: vec![],
            call: None,
            media: Vec::new(),
        }
    }

    /// The whole of a request.
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
    async fn a_server_that_stops_answering_is_left_in_time_and_gets_the_same_bytes_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let limits = Limits { request: Duration::from_millis(150), ..Limits::default() };
        let transport = Transport::new(&to(url), &Secret::new("sk"), limits).unwrap();
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
            // A status that has come counts, whatever becomes of the body.
            match (&answer, expect) {
                (Answer::Unreachable(why), None) => assert_eq!(why, "no answer within 150ms"),
                (Answer::Response { status, .. }, Some(expect)) => assert_eq!(*status, expect),
                other => panic!("{other:?}"),
            }
            assert!(started.elapsed() >= limits.request);
        }
        let (requests, _open) = server.await.unwrap();
        assert!(requests.iter().all(|request| *request == requests[0]), "{requests:?}");
    }

    #[tokio::test]
    async fn a_secret_is_not_sent_unencrypted_to_another_machine() {
        let (secret, limits) = (Secret::new("sk"), Limits::default());
        for url in ["http://lf.example.org", "http://127.0.0.1.evil.example", "http://0.0.0.0:1"] {
            let to = to(url.into());
            let why = Transport::new(&to, &secret, limits).err().unwrap().to_string();
            assert!(why.contains("unencrypted") && why.contains("https"), "{why}");
            assert_eq!(Readback::new(&to, &secret, limits).err().unwrap().to_string(), why);
        }
    }
}
