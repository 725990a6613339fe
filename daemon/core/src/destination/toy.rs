//! A further kind of backend, for tests: takes OTLP at any address, with a bearer token.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header};
use proto::env::{Of, Role};

use super::{
    Backend, Connect, Destination, Endpoint, Kind, Manners, Words,
    address::{base_url, unquoted},
    wire::{SpanEvent, SpanKind, Status, Value, WireSpan},
};
use crate::{
    observation::{Body, Level, Observation, TraceFacts},
    secret::{Secret, Secrets},
    vars::{Env, Refused},
};

const TOKEN: &str = "CC_LANGFUSE_TOY_TOKEN";

pub struct Toy;

impl Backend for Toy {
    fn of(&self) -> Of {
        Of::Toy
    }

    fn route(&self, env: &Env<'_>) -> Result<Option<(Destination, Secrets)>, Refused> {
        let value = |role| env.decided(Of::Toy, role).map(|(_, value)| unquoted(value));
        let Some(address) = value(Role::Address) else { return Ok(None) };
        let address = base_url(address).ok_or(Refused::BaseUrl)?;
        let secrets = value(Role::Secret).map(|token| (TOKEN, Secret::new(token))).into_iter().collect();
        let account = value(Role::Account).unwrap_or_default().to_owned();
        Ok(Some((Destination { kind: Kind::Toy, address, account }, secrets)))
    }

    fn connect(&self, to: &Destination, secrets: &Secrets, _: &[Response<Bytes>]) -> Connect {
        let Some(token) = secrets.get(TOKEN) else { return Connect::Park("there is no token".into()) };
        let headers = HeaderMap::from_iter([
            (header::AUTHORIZATION, token.bearer()),
            (header::ACCEPT, HeaderValue::from_static("application/x-protobuf")),
        ]);
        Connect::Ready(Endpoint { url: format!("{}/v1/traces", to.address), headers })
    }

    fn encode(&self, _: &Destination, observation: &Observation, facts: &TraceFacts) -> WireSpan {
        let mut attributes = vec![
            ("kind".into(), Value::Text(observation.body.kind().to_owned())),
            ("session".into(), Value::Text(facts.session_id.clone())),
            ("turn".into(), Value::Int(facts.turn.into())),
            ("estimated".into(), Value::Bool(observation.estimated)),
            ("seconds".into(), Value::Double((observation.end - observation.start) as f64 / 1e9)),
        ];
        let mut kind = SpanKind::Internal;
        match &observation.body {
            Body::Turn(turn) => attributes.push(("output".into(), Value::Text(turn.output.clone()))),
            Body::Generation(generation) => {
                kind = SpanKind::Client;
                let usage = generation.usage.unwrap_or_default();
                attributes.push(("tokens.out".into(), Value::Int(i64::try_from(usage.output).unwrap_or(i64::MAX))));
            }
            Body::Agent(_) | Body::Tool(_) | Body::Event(_) => {}
        }
        let exception = observation.exception();
        let status = match (exception, observation.level) {
            (Some((_, message)), _) => Status::Error(message.to_owned()),
            (None, Level::Default) => Status::Ok,
            (None, _) => Status::Unset,
        };
        WireSpan {
            trace_id: observation.trace_id,
            span_id: observation.span_id,
            parent_id: observation.parent.unwrap_or_default(),
            name: observation.name.clone(),
            start_ns: observation.start,
            end_ns: observation.end,
            status,
            attributes,
            kind,
            events: exception.map(|(kind, why)| SpanEvent::exception(observation.end, kind, why)).into_iter().collect(),
            links: observation.links.iter().map(|link| (link.trace_id, link.span_id)).collect(),
        }
    }

    fn scope(&self) -> &'static str {
        "toy"
    }

    fn manners(&self, _: &Destination) -> Manners {
        Manners::default()
    }

    fn words(&self) -> Words {
        Words {
            kind: "toy",
            title: "the toy",
            secret: "token",
            address: "CC_LANGFUSE_TOY_ADDRESS",
            credentials: "correct CC_LANGFUSE_TOY_TOKEN",
        }
    }
}
