//! OTLP/HTTP's protobuf → records, as the core reads them from JSON.

use std::collections::HashMap;

use opentelemetry_proto::tonic::{
    collector::{logs::v1::ExportLogsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::{KeyValue, any_value::Value as Any},
    logs::v1::LogRecord,
    resource::v1::Resource,
    trace::v1::Span,
};
use prost::Message;

use cc_core::{
    ids::hex,
    telemetry::otlp::{self, Record, Request, Value},
};

/// Reads a request to `path`; `None` if it cannot be decoded.
pub(super) fn read(path: &str, body: &[u8]) -> Option<Request> {
    let mut request = Request::default();
    if path == "/v1/logs" {
        for of in ExportLogsServiceRequest::decode(body).ok()?.resource_logs {
            let all = of.scope_logs.into_iter().flat_map(|scope| scope.log_records);
            add(&mut request, of.resource.as_ref(), all.map(log));
        }
    } else {
        for of in ExportTraceServiceRequest::decode(body).ok()?.resource_spans {
            let all = of.scope_spans.into_iter().flat_map(|scope| scope.spans);
            add(&mut request, of.resource.as_ref(), all.map(span));
        }
    }
    Some(request)
}

fn add(request: &mut Request, resource: Option<&Resource>, all: impl Iterator<Item = Option<Record>>) {
    let of = resource.map(|resource| attributes(&resource.attributes)).unwrap_or_default();
    match of.get("service.name") {
        Some(Value::Text(name)) if otlp::is_claude_code(name) => request.records.extend(all.flatten()),
        _ => request.foreign += all.count() as u64,
    }
}

fn log(record: LogRecord) -> Option<Record> {
    let body = record.body.and_then(|body| match body.value {
        Some(Any::StringValue(text)) => Some(text),
        _ => None,
    });
    Record::of_log(body, record.time_unix_nano, attributes(&record.attributes))
}

fn span(span: Span) -> Option<Record> {
    (!span.name.is_empty()).then(|| Record {
        name: span.name,
        end: span.end_time_unix_nano,
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        values: attributes(&span.attributes),
    })
}

fn attributes(all: &[KeyValue]) -> HashMap<String, Value> {
    let one = |attribute: &KeyValue| {
        let value = match attribute.value.as_ref()?.value.as_ref()? {
            Any::StringValue(text) => Value::Text(text.clone()),
            Any::IntValue(number) => Value::Number(*number as f64),
            Any::DoubleValue(number) => Value::Number(*number),
            Any::BoolValue(is) => Value::Text(is.to_string()),
            _ => return None,
        };
        Some((attribute.key.clone(), value))
    };
    all.iter().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::{
        common::v1::AnyValue,
        logs::v1::{ResourceLogs, ScopeLogs},
        trace::v1::{ResourceSpans, ScopeSpans},
    };

    use super::*;

    fn attribute(key: &str, value: Any) -> KeyValue {
        KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
    }

    fn resource(service: &str) -> Option<Resource> {
        let name = attribute("service.name", Any::StringValue(service.into()));
        Some(Resource { attributes: vec![name], ..Resource::default() })
    }

    #[test]
    fn protobuf_says_the_same_as_json() {
        let log = LogRecord {
            time_unix_nano: 9,
            body: Some(AnyValue { value: Some(Any::StringValue("claude_code.api_request".into())) }),
            attributes: vec![attribute("cost_usd", Any::DoubleValue(0.5)), attribute("input_tokens", Any::IntValue(7))],
            ..LogRecord::default()
        };
        let of = |service: &str| ResourceLogs {
            resource: resource(service),
            scope_logs: vec![ScopeLogs { log_records: vec![log.clone()], ..ScopeLogs::default() }],
            ..ResourceLogs::default()
        };
        let logs = ExportLogsServiceRequest { resource_logs: vec![of("claude-code"), of("another")] };
        let json = br#"{"resourceLogs": [{"resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "claude-code"}}]},
            "scopeLogs": [{"logRecords": [{"timeUnixNano": "9", "body": {"stringValue": "claude_code.api_request"}, "attributes": [
            {"key": "cost_usd", "value": {"doubleValue": 0.5}}, {"key": "input_tokens", "value": {"intValue": "7"}}]}]}]}]}"#;
        let read = read("/v1/logs", &logs.encode_to_vec()).unwrap();
        assert_eq!((&read.records, read.foreign), (&otlp::read(json).unwrap().records, 1));

        let span = Span {
            name: "claude_code.tool".into(),
            span_id: vec![3; 8],
            parent_span_id: vec![5; 8],
            end_time_unix_nano: 9,
            attributes: vec![attribute("success", Any::BoolValue(true))],
            ..Span::default()
        };
        let scope_spans = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
        let spans = ResourceSpans { resource: resource("claude-code"), scope_spans, ..ResourceSpans::default() };
        let json = br#"{"resourceSpans": [{"resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "claude-code"}}]},
            "scopeSpans": [{"spans": [{"name": "claude_code.tool", "spanId": "0303030303030303", "parentSpanId": "0505050505050505",
            "endTimeUnixNano": 9, "attributes": [{"key": "success", "value": {"boolValue": true}}]}]}]}]}"#;
        let spans = ExportTraceServiceRequest { resource_spans: vec![spans] };
        assert_eq!(super::read("/v1/traces", &spans.encode_to_vec()), otlp::read(json));
        assert_eq!(super::read("/v1/traces", b"\xff\xff"), None);
    }
}
