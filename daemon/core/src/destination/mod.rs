//! Where spans go: one file for each kind of backend. Comes in: a neutral observation. Goes out: the span in the attributes of
//! its backend. A backend knows no other backend, no HTTP client and no database. Each implements [`Backend`] and has its arm
//! in [`Kind::backend`] and its rows in `proto::env::VARIABLES`.

use core::net::{Ipv4Addr, Ipv6Addr};
use std::{
    borrow::Cow,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use proto::env::Of;
use serde::{Deserialize, Serialize};

use self::{
    deletion::Deletion,
    mlflow::filestore::Which,
    pages::{Item, Pages},
    scoring::ScoreApi,
    upload::MediaApi,
    wire::{Value, WireSpan},
};
use crate::{
    observation::{Observation, TraceFacts},
    secret::Secrets,
    vars::{Env, Refused},
    verdict::{Answer, Verdict, judge},
};

pub mod address;
pub mod deletion;
pub mod langfuse;
pub mod mlflow;
pub mod otlp;
mod own;
pub mod pages;
pub mod scoring;
#[cfg(feature = "toy")]
pub mod toy;
pub mod upload;
pub mod wire;

pub(crate) use own::media as size;

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub struct Destination {
    pub kind: Kind,
    /// In canonical form.
    pub address: String,
    /// The account or project there; never secret. Langfuse: the public key. MLflow: the experiment. OTLP: encoding options and
    /// a name.
    pub account: String,
}

/// A destination in its stored form, possibly written by a version with other names or another canonical form of addresses.
#[derive(Deserialize)]
struct Stored {
    kind: Kind,
    #[serde(alias = "base_url")]
    address: String,
    #[serde(alias = "public_key")]
    account: String,
}

impl From<Stored> for Destination {
    fn from(Stored { kind, address, account }: Stored) -> Self {
        Self { kind, address: kind.backend().address(&address).unwrap_or(address), account }
    }
}

impl Destination {
    /// True if others cannot read a secret on its way: TLS, this machine, or no network at all.
    pub fn is_private(&self) -> bool {
        let Some(rest) = self.address.strip_prefix("http://") else { return true };
        !rest.is_empty() && self.address.parse::<http::Uri>().is_ok_and(|address| is_loopback(&address))
    }
}

/// True for `localhost`, 127.0.0.0/8 and `[::1]`. Other names may lead to this machine too, but that depends on the resolver.
pub fn is_loopback(address: &http::Uri) -> bool {
    let host = address.host().unwrap_or_default();
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(host) => host.parse() == Ok(Ipv6Addr::LOCALHOST),
        None => host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|ip: Ipv4Addr| ip.is_loopback()),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Langfuse,
    /// A tracking server or a file store.
    Mlflow,
    Otlp,
    /// A receiver for tests.
    #[cfg(feature = "toy")]
    Toy,
}

impl Kind {
    /// In the order in which they are listed.
    pub const ALL: &[Self] = &[
        Self::Langfuse,
        Self::Mlflow,
        Self::Otlp,
        #[cfg(feature = "toy")]
        Self::Toy,
    ];

    /// Its implementation: the only match over the kinds.
    pub fn backend(self) -> &'static dyn Backend {
        match self {
            Self::Langfuse => &langfuse::Langfuse,
            Self::Mlflow => &mlflow::Mlflow,
            Self::Otlp => &otlp::Otlp,
            #[cfg(feature = "toy")]
            Self::Toy => &toy::Toy,
        }
    }

    /// The meaning of a server's answer.
    pub fn judge(self, answer: &Answer) -> Verdict {
        self.backend().verdict(answer).unwrap_or_else(|| judge(answer))
    }

    /// As stored and shown.
    pub fn name(self) -> &'static str {
        self.backend().words().kind
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }
}

/// A kind of backend: what it needs to know and how observations are encoded. Stateless, without I/O.
pub trait Backend: Sync {
    /// Selects its own rows of the table of variables.
    fn of(&self) -> Of;

    /// The canonical form of an address; `None` if it is not valid.
    fn address(&self, text: &str) -> Option<String> {
        address::base_url(text)
    }

    /// The destination that `env` configures, and its secrets; `None` if this kind is not configured.
    ///
    /// # Errors
    /// Why the configuration is not usable.
    fn route(&self, env: &Env<'_>) -> Result<Option<(Destination, Secrets)>, Refused>;

    /// True if nothing can be sent without a secret.
    fn needs_secret(&self, _to: &Destination) -> bool {
        true
    }

    /// True if spans may travel unencrypted to another machine once the user trusts it: servers of this kind often lack TLS.
    fn takes_plain_http(&self) -> bool {
        false
    }

    /// The credentials file of the backend's own client, relative to the user's home.
    fn key_file(&self, _to: &Destination) -> Option<&'static str> {
        None
    }

    /// `secrets`, with missing ones filled in from the text of that file.
    fn fill(&self, secrets: Secrets, _key_file: &str) -> Secrets {
        secrets
    }

    /// The endpoint and headers that spans are posted to, or the request that must be answered first. `answers` has the answers
    /// to the earlier requests in order: 2xx and 4xx, except those that ask to wait or refuse the credentials.
    fn connect(&self, to: &Destination, secrets: &Secrets, answers: &[Response<Bytes>]) -> Connect;

    /// The span of an observation, with the facts of its trace and no value longer than `to` accepts.
    fn encode(&self, to: &Destination, observation: &Observation, facts: &TraceFacts) -> WireSpan;

    /// Attributes of the OTLP resource.
    fn resource(&self, _to: &Destination) -> Vec<(Cow<'static, str>, Value)> {
        vec![("service.name".into(), Value::Text("claude-code".into()))]
    }

    /// Name of the instrumentation scope of its spans.
    fn scope(&self) -> &'static str;

    /// Exceptions from the common table of answers.
    fn verdict(&self, _answer: &Answer) -> Option<Verdict> {
        None
    }

    /// Another program that may send the same traces; nothing is sent for a project in which it is active.
    fn rival(&self) -> Option<Rival> {
        None
    }

    /// The limits of `to`.
    fn manners(&self, to: &Destination) -> Manners;

    /// Its upload API, if [`Manners::media`] says that media are uploaded.
    fn media(&self) -> Option<&'static dyn MediaApi> {
        None
    }

    /// Its API for scores, if `to` has one.
    fn scores(&self, _to: &Destination) -> Option<&'static dyn ScoreApi> {
        None
    }

    /// Its web pages and read API.
    fn pages(&self) -> Option<&'static dyn Pages> {
        None
    }

    /// The page of something on a server that [`Deletion::is_known`] recognises, for a kind without [`pages`](Self::pages) of
    /// its own.
    fn page(&self, _to: &Destination, _of: Item<'_>) -> Option<String> {
        None
    }

    /// The page of a trace, where its address is known without a question to the server.
    fn shortcut(&self, _to: &Destination, _trace_id: &str) -> Option<String> {
        None
    }

    fn deletion(&self) -> Option<&'static dyn Deletion> {
        None
    }

    /// Attributes of a test span without cost or session.
    fn trial(&self, _name: &str, _environment: Option<&str>) -> Vec<(Cow<'static, str>, Value)> {
        Vec::new()
    }

    fn words(&self) -> Words;
}

/// Another program that may send the same traces.
#[derive(Clone, Copy, Debug)]
pub struct Rival {
    /// True if a project's settings files, weakest first, turn it on.
    pub is_active: fn(&[String]) -> bool,
    /// Why nothing is sent, and what to do.
    pub why: &'static str,
}

/// How to reach a destination, as far as it is known.
#[derive(Debug)]
pub enum Connect {
    /// Valid until the credentials change or the server answers 404.
    Ready(Endpoint),
    /// The server must answer this request first.
    Ask(Request<Bytes>),
    /// The destination is a directory: spans are written to files.
    Files(Folder),
    /// Someone has to fix something first; the text says what.
    Park(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    /// An absolute path.
    pub root: String,
    pub experiment: Which,
}

impl Folder {
    /// The directory that holds only traces: everything that MLflow's integration with Claude Code keeps below a
    /// project, or the store.
    pub fn private(&self) -> PathBuf {
        let root = Path::new(&self.root);
        root.parent().filter(|_| root.ends_with(".claude/mlflow/runs")).unwrap_or(root).to_owned()
    }

    /// The command that opens it in MLflow's UI.
    pub fn viewer(&self) -> String {
        format!("MLFLOW_ALLOW_FILE_STORE=true mlflow ui --backend-store-uri {}", crate::settings::quoted(&self.root))
    }
}

/// How many requests [`Backend::connect`] may make at most.
pub const MOST_ASKS: usize = 8;

#[derive(Clone, Debug)]
pub struct Endpoint {
    pub url: String,
    /// Including credentials.
    pub headers: HeaderMap,
}

/// What a backend accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manners {
    /// A turn's root may be sent again when the turn has grown. Other backends keep the first version.
    pub updates_roots: bool,
    pub media: MediaAs,
    /// Spans per request.
    pub batch_spans: usize,
    /// Bytes of outbox rows per request, unless a single span is larger.
    pub batch_bytes: usize,
}

/// How images and documents are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaAs {
    /// Uploaded beside the spans.
    Upload,
    /// As text with their type and size.
    Size,
}

impl Default for Manners {
    fn default() -> Self {
        Self { updates_roots: true, media: MediaAs::Size, batch_spans: 512, batch_bytes: 4 << 20 }
    }
}

/// The names that a backend uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Words {
    /// In lower case, as stored.
    pub kind: &'static str,
    /// The kind, for people.
    pub title: &'static str,
    /// Its secret, for people.
    pub secret: &'static str,
    /// The variable for its address.
    pub address: &'static str,
    /// What to do if it refuses the credentials.
    pub credentials: &'static str,
}
