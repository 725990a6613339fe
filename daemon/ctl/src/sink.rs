//! A server for `try` on loopback: accepts OTLP like Langfuse, and reports the spans that arrive.

use std::{io::Read, net::SocketAddr, sync::mpsc};

use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing::post};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;

use cc_core::ids::{SpanId, TraceId};

/// Trace and span id of a span that arrived.
pub(crate) type Arrived = (TraceId, SpanId);

/// Starts a sink on its own thread; the channel returns every span that arrives.
pub(crate) fn start() -> anyhow::Result<(SocketAddr, mpsc::Receiver<Arrived>)> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let (sender, spans) = mpsc::channel();
    std::thread::Builder::new().name("sink".into()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let app = Router::new().route("/api/public/otel/v1/traces", post(take)).with_state(sender);
            axum::serve(tokio::net::TcpListener::from_std(listener)?, app).await
        })
    })?;
    Ok((address, spans))
}

async fn take(State(sender): State<mpsc::Sender<Arrived>>, body: Bytes) -> Result<&'static str, StatusCode> {
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut plain).map_err(|_| StatusCode::BAD_REQUEST)?;
    let request = ExportTraceServiceRequest::decode(&plain[..]).map_err(|_| StatusCode::BAD_REQUEST)?;
    let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
    for span in scopes.flat_map(|scope| scope.spans) {
        let ids = (span.trace_id.try_into().unwrap_or_default(), span.span_id.try_into().unwrap_or_default());
        let _ = sender.send(ids);
    }
    Ok("{}")
}
