//! The body of a request: spans as OTLP has them.
//!
//! It is what OpenTelemetry's own exporter makes of the same spans, without its copies in between.

use std::borrow::Cow;

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, SpanFlags, Status, span, status},
};
use prost::Message;

use cc_core::{
    destination::{
        Destination,
        wire::{self, Value, WireSpan},
    },
    ids::{SpanId, TraceId},
};

/// Bytes of a body at most, before it is compressed.
const MAX_BYTES: usize = 64 << 20;

/// Of every span and link: sampled, and not from another process.
const FLAGS: u32 = 1 | SpanFlags::ContextHasIsRemoteMask as u32;

/// What all requests to a destination have in common.
pub(super) struct Requests {
    resource: Resource,
    scope: InstrumentationScope,
}

impl Requests {
    pub(super) fn to(destination: &Destination) -> Self {
        let backend = destination.kind.backend();
        let scope = InstrumentationScope {
            name: backend.scope().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        };
        Self {
            resource: Resource { attributes: attributes(backend.resource(destination)), ..Resource::default() },
            scope,
        }
    }

    /// The body of a request with these spans; `None` if that is larger than one may be.
    pub(super) fn body(&self, spans: Vec<WireSpan>) -> Option<Vec<u8>> {
        let spans = ScopeSpans {
            scope: Some(self.scope.clone()),
            spans: spans.into_iter().map(span).collect(),
            schema_url: String::new(),
        };
        let all = ResourceSpans {
            resource: Some(self.resource.clone()),
            scope_spans: vec![spans],
            schema_url: String::new(),
        };
        let body = ExportTraceServiceRequest { resource_spans: vec![all] }.encode_to_vec();
        (body.len() <= MAX_BYTES).then_some(body)
    }
}

fn span(from: WireSpan) -> Span {
    let parent = if from.is_root() { Vec::new() } else { from.parent_id.to_vec() };
    let (code, message) = match from.status {
        wire::Status::Unset => (status::StatusCode::Unset, String::new()),
        wire::Status::Ok => (status::StatusCode::Ok, String::new()),
        wire::Status::Error(message) => (status::StatusCode::Error, message),
    };
    let kind = match from.kind {
        wire::SpanKind::Internal => span::SpanKind::Internal,
        wire::SpanKind::Client => span::SpanKind::Client,
    };
    let event = |event: wire::SpanEvent| span::Event {
        time_unix_nano: event.at_ns,
        name: event.name.to_owned(),
        attributes: attributes(event.attributes),
        dropped_attributes_count: 0,
    };
    let link = |(trace, span): (TraceId, SpanId)| span::Link {
        trace_id: trace.to_vec(),
        span_id: span.to_vec(),
        flags: FLAGS,
        ..span::Link::default()
    };
    Span {
        trace_id: from.trace_id.to_vec(),
        span_id: from.span_id.to_vec(),
        parent_span_id: parent,
        flags: FLAGS,
        name: from.name,
        kind: kind.into(),
        start_time_unix_nano: from.start_ns,
        end_time_unix_nano: from.end_ns,
        attributes: attributes(from.attributes),
        events: from.events.into_iter().map(event).collect(),
        links: from.links.into_iter().map(link).collect(),
        status: Some(Status { message, code: code.into() }),
        ..Span::default()
    }
}

fn attributes(from: Vec<(Cow<'static, str>, Value)>) -> Vec<KeyValue> {
    let any = |value| Some(AnyValue { value: Some(value) });
    let text = |text| AnyValue { value: Some(any_value::Value::StringValue(text)) };
    let value = |value| match value {
        Value::Text(text) => any_value::Value::StringValue(text),
        Value::List(items) => {
            any_value::Value::ArrayValue(ArrayValue { values: items.into_iter().map(text).collect() })
        }
        Value::Bool(value) => any_value::Value::BoolValue(value),
        Value::Int(value) => any_value::Value::IntValue(value),
        Value::Double(value) => any_value::Value::DoubleValue(value),
    };
    from.into_iter()
        .map(|(key, found)| KeyValue { key: key.into_owned(), value: any(value(found)), ..KeyValue::default() })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use opentelemetry::trace::{self, SpanContext, TraceFlags, TraceState};
    use opentelemetry_proto::transform::{
        common::tonic::ResourceAttributesWithSchema, trace::tonic::group_spans_by_resource_and_scope,
    };
    use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
    use proptest::prelude::*;

    use super::*;
    use cc_core::destination::Kind;

    fn context(trace: TraceId, span: SpanId) -> SpanContext {
        let (trace, span) = (trace::TraceId::from_bytes(trace), trace::SpanId::from_bytes(span));
        SpanContext::new(trace, span, TraceFlags::SAMPLED, false, TraceState::default())
    }

    fn time(nanos: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos)
    }

    fn key_values(from: Vec<(Cow<'static, str>, Value)>) -> Vec<opentelemetry::KeyValue> {
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
        from.into_iter().map(|(key, found)| opentelemetry::KeyValue::new(key, value(found))).collect()
    }

    /// The same request as OpenTelemetry's SDK makes it.
    fn by_the_sdk(to: &Destination, spans: Vec<WireSpan>) -> Vec<u8> {
        let backend = to.kind.backend();
        let scope = opentelemetry::InstrumentationScope::builder(backend.scope())
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        let data = |from: WireSpan| {
            let mut events = SpanEvents::default();
            let event = |event: wire::SpanEvent| {
                trace::Event::new(event.name, time(event.at_ns), key_values(event.attributes), 0)
            };
            events.events = from.events.into_iter().map(event).collect();
            let mut links = SpanLinks::default();
            links.links =
                from.links.into_iter().map(|(of, span)| trace::Link::new(context(of, span), Vec::new(), 0)).collect();
            SpanData {
                span_context: context(from.trace_id, from.span_id),
                parent_span_id: trace::SpanId::from_bytes(from.parent_id),
                parent_span_is_remote: false,
                span_kind: match from.kind {
                    wire::SpanKind::Internal => trace::SpanKind::Internal,
                    wire::SpanKind::Client => trace::SpanKind::Client,
                },
                name: from.name.into(),
                start_time: time(from.start_ns),
                end_time: time(from.end_ns),
                attributes: key_values(from.attributes),
                dropped_attributes_count: 0,
                events,
                links,
                status: match from.status {
                    wire::Status::Unset => trace::Status::Unset,
                    wire::Status::Ok => trace::Status::Ok,
                    wire::Status::Error(message) => trace::Status::error(message),
                },
                instrumentation_scope: scope.clone(),
            }
        };
        let resource = opentelemetry_sdk::Resource::builder_empty().with_attributes(key_values(backend.resource(to)));
        let resource = ResourceAttributesWithSchema::from(&resource.build());
        let resource_spans = group_spans_by_resource_and_scope(spans.into_iter().map(data).collect(), &resource);
        ExportTraceServiceRequest { resource_spans }.encode_to_vec()
    }

    fn attribute() -> impl Strategy<Value = (Cow<'static, str>, Value)> {
        let value = prop_oneof![
            ".{0,20}".prop_map(Value::Text),
            proptest::collection::vec(".{0,5}", 1..3).prop_map(Value::List),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            any::<f64>().prop_map(Value::Double),
        ];
        ("[a-z.]{0,9}".prop_map(Cow::Owned), value)
    }

    prop_compose! {
        fn some_span()(
            ids in any::<([u8; 16], [u8; 8], [u8; 8])>(), is_root in any::<bool>(), name in ".{0,9}",
            times in (0..1u64 << 62, 0..1u64 << 62), attributes in proptest::collection::vec(attribute(), 0..5),
            status in prop_oneof![
                Just(wire::Status::Unset), Just(wire::Status::Ok), ".{0,9}".prop_map(wire::Status::Error)
            ],
            is_client in any::<bool>(),
            events in proptest::collection::vec((0..1u64 << 62, proptest::collection::vec(attribute(), 0..3)), 0..3),
            links in proptest::collection::vec(any::<([u8; 16], [u8; 8])>(), 0..3),
        ) -> WireSpan {
            let (trace_id, span_id, parent) = ids;
            WireSpan {
                trace_id, span_id, name, attributes, status, links,
                parent_id: if is_root { [0; 8] } else { parent },
                start_ns: times.0,
                end_ns: times.1,
                kind: if is_client { wire::SpanKind::Client } else { wire::SpanKind::Internal },
                events: events.into_iter()
                    .map(|(at_ns, attributes)| wire::SpanEvent { name: "exception", at_ns, attributes })
                    .collect(),
            }
        }
    }

    proptest! {
        #[test]
        fn a_request_has_the_bytes_that_the_sdk_of_opentelemetry_makes_of_its_spans(
            spans in proptest::collection::vec(some_span(), 0..5),
        ) {
            for &kind in Kind::ALL {
                let to = Destination { kind, address: "https://example.org".into(), account: "pk".into() };
                // The SDK keeps a resource's attributes in no order.
                prop_assume!(kind.backend().resource(&to).len() < 2);
                let body = Requests::to(&to).body(spans.clone()).unwrap();
                // It leaves out a scope without spans.
                if !spans.is_empty() {
                    prop_assert_eq!(body, by_the_sdk(&to, spans.clone()));
                }
            }
        }
    }

    #[test]
    fn a_body_that_is_larger_than_one_may_be_is_not_made() {
        let to = Destination { kind: Kind::ALL[0], address: "https://example.org".into(), account: "pk".into() };
        let text = |length| WireSpan { name: "x".repeat(length), ..WireSpan::default() };
        assert!(Requests::to(&to).body(vec![text(MAX_BYTES - 1000)]).is_some());
        assert!(Requests::to(&to).body(vec![text(MAX_BYTES / 2), text(MAX_BYTES / 2)]).is_none());
    }
}
