//! A server for `try`: takes OTLP like Langfuse does, on loopback, and keeps what arrives.

use std::{io::Read, net::SocketAddr, sync::mpsc};

use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing::post};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, any_value},
};
use prost::Message;

use cc_core::destination::{wire::OutSpan, wire::Value};

/// Starts a sink on a thread of its own; every span that arrives comes out of the channel.
pub fn start() -> anyhow::Result<(SocketAddr, mpsc::Receiver<OutSpan>)> {
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

async fn take(State(sender): State<mpsc::Sender<OutSpan>>, body: Bytes) -> Result<&'static str, StatusCode> {
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut plain).map_err(|_| StatusCode::BAD_REQUEST)?;
    let request = ExportTraceServiceRequest::decode(&plain[..]).map_err(|_| StatusCode::BAD_REQUEST)?;
    let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
    for span in scopes.flat_map(|scope| scope.spans) {
        let attributes = span.attributes.into_iter().filter_map(|pair| Some((pair.key.into(), value(pair.value?)?)));
        let _ = sender.send(OutSpan {
            trace_id: span.trace_id.try_into().unwrap_or_default(),
            span_id: span.span_id.try_into().unwrap_or_default(),
            parent_id: span.parent_span_id.try_into().unwrap_or_default(),
            name: span.name,
            start_ns: span.start_time_unix_nano,
            end_ns: span.end_time_unix_nano,
            error: None,
            attributes: attributes.collect(),
            call: None,
            media: Vec::new(),
        });
    }
    Ok("{}")
}

fn value(value: AnyValue) -> Option<Value> {
    match value.value? {
        any_value::Value::StringValue(text) => Some(Value::Text(text)),
        any_value::Value::ArrayValue(items) => Some(Value::List(
            items
                .values
                .into_iter()
                .filter_map(|item| match item.value? {
                    any_value::Value::StringValue(text) => Some(text),
                    _ => None,
                })
                .collect(),
        )),
        _ => None,
    }
}
