//! Any receiver of OTLP: Phoenix, an OpenTelemetry Collector, Datadog, Grafana and others. Spans follow OpenTelemetry's
//! conventions for generative AI, OpenInference, or both at once, which most receivers understand best.
//!
//! * Session, agent, provider and operation are on every span: some receivers filter by them and ignore the root.
//! * Tokens and model are on calls only, so that a sum over the tree counts nothing twice.
//! * The input of a call includes cache reads and writes. No convention distinguishes the two cache lifetimes; they are in this
//!   program's own attributes, below `claude_code.`.
//! * A root is sent once, when its turn is complete: of two spans with one id some receivers keep the first, others both.
//! * Images and documents appear as text with their size; no receiver shows the bytes.

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
    scoring::ScoreApi,
    wire::{Value, WireSpan},
};
use crate::{
    observation::{Body, Observation, TraceFacts},
    secret::{Secret, Secrets},
    vars::{Env, Refused},
};

mod annotations;
mod evaluations;
mod fit;
mod genai;
mod headers;
mod openinference;
mod phoenix;
pub mod presets;

/// The headers, which are its secret.
pub const HEADERS: &str = "CC_LANGFUSE_OTLP_HEADERS";

pub const PRESET: &str = "CC_LANGFUSE_OTLP_PRESET";

pub const DIALECT: &str = "CC_LANGFUSE_OTLP_DIALECT";

pub const MAX_VALUE_BYTES: &str = "CC_LANGFUSE_OTLP_MAX_VALUE_BYTES";

/// Added to an address without a path.
const PATH: &str = "/v1/traces";

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

/// The options of a destination, parsed from its account: `both`, `genai,max=4095,preset=newrelic,name=team a`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Form {
    dialect: Dialect,
    /// Maximum length of a value in bytes.
    limit: Option<usize>,
    preset: Option<&'static presets::Preset>,
    /// Distinguishes accounts at one address, and names a project if the preset has a header for it.
    name: Option<String>,
}

impl Form {
    /// Options from the variables. An invalid one keeps its default, so that tracing continues.
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
        // The name comes last because it may contain commas.
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

/// A number of bytes; `None` for 0 and for text that is not a number.
fn limit(text: &str) -> Option<usize> {
    text.trim().parse().ok().filter(|bytes| *bytes > 0)
}

/// The canonical form of an endpoint, with its path as it is.
fn endpoint(text: &str) -> Option<String> {
    let host = address::origin(text)?;
    let url = Url::parse(&proto::env::without_userinfo(unquoted(text))).ok()?;
    // A query may contain a key, and addresses are stored and shown.
    if url.query().is_some() || url.fragment().is_some() {
        return None;
    }
    let path = if url.path() == "/" { PATH } else { url.path() };
    let endpoint = format!("{host}{path}");
    endpoint.parse::<http::Uri>().is_ok().then_some(endpoint)
}

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

    /// Only Phoenix is known to support deletion; [`Deletion::identify`] asks whether the server is one.
    fn deletion(&self) -> Option<&'static dyn Deletion> {
        Some(&phoenix::Phoenix)
    }

    /// Phoenix has some, where it is named as one. Where the user chose OpenTelemetry's conventions alone, they are its events.
    fn scores(&self, to: &Destination) -> Option<&'static dyn ScoreApi> {
        let form = Form::of(to);
        if form.preset.is_some_and(|preset| preset.name == phoenix::NAME) {
            return Some(&annotations::Annotations);
        }
        let has_events = form.dialect == Dialect::Genai && evaluations::address(to).is_some();
        has_events.then_some(&evaluations::Evaluations as _)
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

/// The headers that a list as in `OTEL_EXPORTER_OTLP_HEADERS` names.
///
/// # Errors
/// What is wrong with the list, without repeating it.
pub fn headers_in(list: &str) -> Result<HeaderMap, String> {
    headers::headers(list, None, None)
}

/// The headers of a request that posts spans to `to`.
///
/// # Errors
/// What is wrong with the list of headers, without repeating it.
pub fn headers_of(to: &Destination, secrets: &Secrets) -> Result<HeaderMap, String> {
    let form = Form::of(to);
    let read = |list: &str| headers::headers(list, form.preset, form.name.as_deref());
    secrets.get(HEADERS).map_or_else(|| read(""), |list| list.headers(read)).map_err(|why| format!("{HEADERS}: {why}"))
}

/// The span of an observation in these conventions.
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
