//! Langfuse, by OpenTelemetry: attributes below `langfuse.`.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header};
use proto::env::{Of, Role};

use super::{
    Backend, Connect, Destination, Endpoint, Kind, Manners, MediaAs, Words,
    address::{base_url, unquoted},
    deletion::Deletion,
    pages::Pages,
    scoring::ScoreApi,
    upload::MediaApi,
    wire::{Value, WireSpan},
};
use crate::{
    observation::{Observation, TraceFacts},
    secret::{Secret, Secrets},
    vars::{Env, Refused},
};

pub mod encode;
mod media;
mod pages;
mod scores;

/// Used when a project names no server.
pub const DEFAULT_BASE_URL: &str = "https://cloud.langfuse.com";

/// The name under which [`Secrets`] holds its secret key.
pub const SECRET_KEY: &str = "LANGFUSE_SECRET_KEY";

/// The `Authorization` header of its APIs: account and secret key.
pub fn auth(to: &Destination, secrets: &Secrets) -> HeaderValue {
    secrets.get(SECRET_KEY).map_or(HeaderValue::from_static(""), |secret| secret.basic_auth(&to.account))
}

pub struct Langfuse;

impl Backend for Langfuse {
    fn of(&self) -> Of {
        Of::Langfuse
    }

    fn route(&self, env: &Env<'_>) -> Result<Option<(Destination, Secrets)>, Refused> {
        let value = |role| env.decided(Of::Langfuse, role).map(|(_, value)| unquoted(value));
        let account = value(Role::Account).filter(|key| !key.is_empty()).ok_or(Refused::KeysMissing)?.to_owned();
        let address = base_url(value(Role::Address).unwrap_or(DEFAULT_BASE_URL)).ok_or(Refused::BaseUrl)?;
        let secrets = value(Role::Secret).map(|key| (SECRET_KEY, Secret::new(key))).into_iter().collect();
        Ok(Some((Destination { kind: Kind::Langfuse, address, account }, secrets)))
    }

    fn connect(&self, to: &Destination, secrets: &Secrets, _: &[Response<Bytes>]) -> Connect {
        if secrets.get(SECRET_KEY).is_none() {
            return Connect::Park("there is no secret key".into());
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, auth(to, secrets));
        headers.insert("x-langfuse-sdk-name", HeaderValue::from_static("cc-langfuse"));
        headers.insert("x-langfuse-sdk-version", HeaderValue::from_static(env!("CARGO_PKG_VERSION")));
        headers.insert("x-langfuse-ingestion-version", HeaderValue::from_static("4"));
        match HeaderValue::from_str(&to.account) {
            Ok(account) => headers.insert("x-langfuse-public-key", account),
            Err(error) => return Connect::Park(format!("the public key: {error}")),
        };
        Connect::Ready(Endpoint { url: format!("{}/api/public/otel/v1/traces", to.address), headers })
    }

    fn encode(&self, _: &Destination, observation: &Observation, facts: &TraceFacts) -> WireSpan {
        encode::encode(observation, facts)
    }

    /// Langfuse copies every attribute of a scope whose name does not start with `langfuse-sdk` into the metadata of each
    /// observation.
    fn scope(&self) -> &'static str {
        "langfuse-sdk.cc-langfuse"
    }

    fn manners(&self, _: &Destination) -> Manners {
        Manners { media: MediaAs::Upload, ..Manners::default() }
    }

    fn media(&self) -> Option<&'static dyn MediaApi> {
        Some(&media::Media)
    }

    fn scores(&self, _: &Destination) -> Option<&'static dyn ScoreApi> {
        Some(&scores::Scores)
    }

    fn pages(&self) -> Option<&'static dyn Pages> {
        Some(&pages::Site)
    }

    /// It leads on to the trace in its project.
    fn shortcut(&self, to: &Destination, trace_id: &str) -> Option<String> {
        Some(format!("{}/trace/{trace_id}", to.address))
    }

    fn deletion(&self) -> Option<&'static dyn Deletion> {
        Some(&pages::Site)
    }

    fn trial(&self, name: &str, environment: Option<&str>) -> Vec<(Cow<'static, str>, Value)> {
        let text = |key: &'static str, value: &str| (Cow::Borrowed(key), Value::Text(value.into()));
        let mut attributes = vec![
            text("langfuse.observation.type", "span"),
            text("langfuse.observation.input", "Does what is sent arrive?"),
            text("langfuse.observation.output", "It does."),
            text("langfuse.trace.name", name),
        ];
        attributes.extend(environment.map(|name| text("langfuse.environment", name)));
        attributes
    }

    fn words(&self) -> Words {
        Words {
            kind: "langfuse",
            title: "Langfuse",
            secret: "secret key",
            address: "LANGFUSE_BASE_URL",
            credentials: "correct LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY (in Langfuse: Project settings, API keys), or \
                          LANGFUSE_BASE_URL if the project lives in another region",
        }
    }
}
