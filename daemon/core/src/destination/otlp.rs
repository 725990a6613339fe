//! Any receiver of OTLP: Phoenix, an OpenTelemetry Collector, Datadog, Grafana and the like. Spans are in the conventions of
//! OpenTelemetry for generative AI, in those of OpenInference, or in both at once, which most receivers read best.
//!
//! * Session, agent, provider and operation stand on every span: some receivers filter by them and do not look at the root.
//! * Tokens and model stand on calls alone: sums along the tree count nothing twice.
//! * The input of a call includes what it read from and wrote to the cache. No convention has the two times for which the cache is
//!   written; they stand among our own attributes, below `claude_code.`.
//! * A root is sent once, when its turn is over: some receivers keep the first of two spans with one id, others both.
//! * An image or a document is named with its size; no receiver shows the bytes.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, Response};
use proto::env::{Of, Role};
use url::Url;

use super::{
    Backend, Connect, Destination, Endpoint, Kind, Manners, Words,
    address::{self, unquoted},
    deletion::Deletion,
    own::{self, Put},
    pages::Item,
    wire::{Value, WireSpan},
};
use crate::{
    observation::{Body, Observation, TraceFacts},
    secret::{Secret, Secrets},
    vars::{Env, Refused},
};

mod fit;
mod genai;
mod headers;
mod openinference;
mod phoenix;
pub mod presets;

/// The variable with the headers, its secret.
pub const HEADERS: &str = "CC_LANGFUSE_OTLP_HEADERS";

/// The variable that names a preset.
pub const PRESET: &str = "CC_LANGFUSE_OTLP_PRESET";

/// The variable that names the dialect.
pub const DIALECT: &str = "CC_LANGFUSE_OTLP_DIALECT";

/// The variable with the longest value that is kept.
pub const MAX_VALUE_BYTES: &str = "CC_LANGFUSE_OTLP_MAX_VALUE_BYTES";

/// Where OTLP over HTTP is received, if an address has no path.
const PATH: &str = "/v1/traces";

/// The conventions in which spans are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// Those of OpenTelemetry for generative AI.
    Genai,
    /// Those of OpenInference.
    OpenInference,
    /// Both at once.
    #[default]
    Both,
}

impl Dialect {
    const ALL: [(&str, Self); 3] =
        [("genai", Self::Genai), ("openinference", Self::OpenInference), ("both", Self::Both)];

    /// The one called `name`, in any letter case.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| known.eq_ignore_ascii_case(name.trim())).map(|(_, dialect)| *dialect)
    }

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, dialect)| *dialect == self).map_or("both", |(name, _)| name)
    }
}

/// What encoding needs to know of a destination, as its account has it: `both`, `genai,max=4095,preset=newrelic,name=team a`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Form {
    dialect: Dialect,
    /// Longest value, in bytes.
    limit: Option<usize>,
    preset: Option<&'static presets::Preset>,
    /// Tells accounts at one address apart, and names a project where the preset has a header for it.
    name: Option<String>,
}

impl Form {
    /// As the variables have it. What cannot be understood is left at its default: tracing goes on.
    fn wanted(env: &Env<'_>) -> Self {
        let value = |name| env.get(name).map(unquoted);
        let preset = value(PRESET).and_then(presets::named);
        let limit = value(MAX_VALUE_BYTES).and_then(limit);
        Self {
            dialect: value(DIALECT).and_then(Dialect::named).unwrap_or_default(),
            limit: limit.or(preset.and_then(|preset| preset.limit)),
            preset,
            name: env.decided(Of::Otlp, Role::Account).map(|(_, name)| unquoted(name).to_owned()),
        }
    }

    fn of(to: &Destination) -> Self {
        // A name may have commas and is the last.
        let (head, name) = match to.account.split_once(",name=") {
            Some((head, name)) => (head, Some(name.to_owned())),
            None => (to.account.as_str(), None),
        };
        let mut form = Self { name, ..Self::default() };
        for part in head.split(',') {
            match part.split_once('=') {
                Some(("max", number)) => form.limit = limit(number),
                Some(("preset", name)) => form.preset = presets::named(name),
                _ => form.dialect = Dialect::named(part).unwrap_or_default(),
            }
        }
        form
    }

    fn account(&self) -> String {
        let limit = self.limit.map(|limit| format!(",max={limit}")).unwrap_or_default();
        let preset = self.preset.map(|preset| format!(",preset={}", preset.name)).unwrap_or_default();
        let name = self.name.as_ref().map(|name| format!(",name={name}")).unwrap_or_default();
        [self.dialect.name(), &limit, &preset, &name].concat()
    }
}

/// A number of bytes; none if it is no number, or 0.
fn limit(text: &str) -> Option<usize> {
    text.trim().parse().ok().filter(|bytes| *bytes > 0)
}

/// An endpoint in the form in which endpoints are compared: its path as it is.
fn endpoint(text: &str) -> Option<String> {
    let host = address::origin(text)?;
    let url = Url::parse(&proto::env::without_userinfo(unquoted(text))).ok()?;
    // A query may hold a key, and an address is stored and shown.
    if url.query().is_some() || url.fragment().is_some() {
        return None;
    }
    let path = if url.path() == "/" { PATH } else { url.path() };
    let endpoint = format!("{host}{path}");
    endpoint.parse::<http::Uri>().is_ok().then_some(endpoint)
}

/// Any receiver.
pub struct Otlp;

impl Backend for Otlp {
    fn of(&self) -> Of {
        Of::Otlp
    }

    fn address(&self, text: &str) -> Option<String> {
        endpoint(text)
    }

    fn route(&self, env: &Env<'_>) -> Result<Option<(Destination, Secrets)>, Refused> {
        let Some((_, address)) = env.decided(Of::Otlp, Role::Address) else { return Ok(None) };
        let address = endpoint(address).ok_or(Refused::OtlpEndpoint)?;
        let secrets = env.decided(Of::Otlp, Role::Secret).map(|(_, list)| (HEADERS, Secret::new(unquoted(list))));
        let account = Form::wanted(env).account();
        Ok(Some((Destination { kind: Kind::Otlp, address, account }, secrets.into_iter().collect())))
    }

    fn takes_plain_http(&self) -> bool {
        true
    }

    fn needs_secret(&self, to: &Destination) -> bool {
        Form::of(to).preset.is_some_and(|preset| preset.is_keyed)
    }

    fn connect(&self, to: &Destination, secrets: &Secrets, _: &[Response<Bytes>]) -> Connect {
        match headers_of(to, secrets) {
            Ok(headers) => Connect::Ready(Endpoint { url: to.address.clone(), headers }),
            Err(why) => Connect::Park(why),
        }
    }

    fn encode(&self, to: &Destination, observation: &Observation, facts: &TraceFacts) -> WireSpan {
        let form = Form::of(to);
        let mut span = encode(form.dialect, observation, facts);
        if let Some(limit) = form.limit {
            fit::fit(&mut span, limit);
        }
        span
    }

    fn scope(&self) -> &'static str {
        "cc-langfuse"
    }

    fn manners(&self, _: &Destination) -> Manners {
        Manners { updates_roots: false, ..Manners::default() }
    }

    fn page(&self, to: &Destination, of: Item<'_>) -> Option<String> {
        Some(phoenix::page(to, of))
    }

    /// Only Phoenix is known to delete, which is asked whether it is that.
    fn deletion(&self) -> Option<&'static dyn Deletion> {
        Some(&phoenix::Phoenix)
    }

    fn trial(&self, name: &str, _: Option<&str>) -> Vec<(Cow<'static, str>, Value)> {
        let text = |key: &'static str, value: &str| (Cow::Borrowed(key), Value::Text(value.into()));
        vec![
            text("gen_ai.operation.name", "invoke_agent"),
            text("gen_ai.provider.name", "anthropic"),
            text("gen_ai.agent.name", name),
            text("openinference.span.kind", "AGENT"),
            text("input.value", "Does what is sent arrive?"),
            text("output.value", "It does."),
        ]
    }

    fn words(&self) -> Words {
        Words {
            kind: "otlp",
            title: "an OTLP receiver",
            secret: "list of headers",
            address: proto::env::OTLP_ENDPOINT,
            credentials: "correct CC_LANGFUSE_OTLP_HEADERS, or the key in it",
        }
    }
}

/// The headers with which spans are posted to `to`.
///
/// # Errors
/// What is wrong with the list of headers, which is not repeated.
pub fn headers_of(to: &Destination, secrets: &Secrets) -> Result<HeaderMap, String> {
    let form = Form::of(to);
    let read = |list: &str| headers::headers(list, form.preset, form.name.as_deref());
    secrets.get(HEADERS).map_or_else(|| read(""), |list| list.headers(read)).map_err(|why| format!("{HEADERS}: {why}"))
}

/// An observation in these conventions, with what describes its trace.
fn encode(dialect: Dialect, observation: &Observation, facts: &TraceFacts) -> WireSpan {
    let mut put = Put(Vec::with_capacity(48));
    put.text("session.id", facts.session_id.as_str());
    put.some("user.id", facts.user_id.as_deref());
    let mut own = if observation.is_root() { own::of_trace(facts) } else { own::Pairs::new() };
    own.extend(own::of_observation(observation));
    if dialect != Dialect::OpenInference {
        genai::put(&mut put, observation, facts);
    }
    if dialect != Dialect::Genai {
        openinference::put(&mut put, observation, facts, &own);
    }
    if let Body::Generation(generation) = &observation.body {
        put.some("anthropic.request.id", generation.request_id.as_deref());
        if let Some(usage) = generation.usage {
            put.int("claude_code.usage.cache_write_5m", usage.cache_write_5m);
            put.int("claude_code.usage.cache_write_1h", usage.cache_write_1h);
            if usage.cache_write > 0 {
                put.int("claude_code.usage.cache_write", usage.cache_write);
            }
        }
    }
    for (key, value) in own {
        put.value(format!("claude_code.{key}"), value);
    }
    if observation.is_root() {
        if !facts.tags.is_empty() {
            put.value("claude_code.tags", Value::List(facts.tags.iter().take(openinference::LIST).cloned().collect()));
        }
        for (key, value) in &facts.metadata {
            put.text(format!("claude_code.metadata.{key}"), value.as_str());
        }
    }
    own::span(observation, put.0)
}

#[cfg(test)]
mod tests;
