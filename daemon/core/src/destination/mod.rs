//! Where spans go: one file for each kind of backend, none of which knows another one, HTTP or the database. Each implements
//! [`Backend`] and has its arm in [`Kind::backend`] and its rows in `proto::env::VARIABLES`.

use core::net::{Ipv4Addr, Ipv6Addr};
use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use proto::env::Of;
use serde::{Deserialize, Serialize};

use self::{
    deletion::Deletion,
    mlflow::filestore::Which,
    pages::{Item, Pages},
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
#[cfg(feature = "toy")]
pub mod toy;
pub mod upload;
pub mod wire;

pub(crate) use own::media as size;

/// A place spans are delivered to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub struct Destination {
    /// What kind of server it is.
    pub kind: Kind,
    /// Its address, in the form in which addresses are compared.
    pub address: String,
    /// Which account or project there; never secret. Langfuse: the public key. MLflow: the experiment. OTLP: what its spans are like,
    /// and a name.
    pub account: String,
}

/// A destination as it was stored, maybe by a version that had other names or compared addresses otherwise.
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
    /// True if a secret can be sent there unread by others: over TLS, or without leaving this machine. Where no request is ever made to,
    /// nobody reads any.
    pub fn is_private(&self) -> bool {
        let Some(rest) = self.address.strip_prefix("http://") else { return true };
        !rest.is_empty() && self.address.parse::<http::Uri>().is_ok_and(|address| is_loopback(&address))
    }
}

/// True for `localhost`, 127.0.0.0/8 and `[::1]`. Whatever else may lead to this machine depends on who is asked.
pub fn is_loopback(address: &http::Uri) -> bool {
    let host = address.host().unwrap_or_default();
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(host) => host.parse() == Ok(Ipv6Addr::LOCALHOST),
        None => host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|ip: Ipv4Addr| ip.is_loopback()),
    }
}

/// What kind of server a destination is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A Langfuse server.
    Langfuse,
    /// A tracking server or a file store of MLflow's.
    Mlflow,
    /// Any receiver of OTLP.
    Otlp,
    /// A receiver for tests.
    #[cfg(feature = "toy")]
    Toy,
}

impl Kind {
    /// All of them, in the order in which they are listed.
    pub const ALL: &[Self] = &[
        Self::Langfuse,
        Self::Mlflow,
        Self::Otlp,
        #[cfg(feature = "toy")]
        Self::Toy,
    ];

    /// What knows about it: the only match over the kinds.
    pub fn backend(self) -> &'static dyn Backend {
        match self {
            Self::Langfuse => &langfuse::Langfuse,
            Self::Mlflow => &mlflow::Mlflow,
            Self::Otlp => &otlp::Otlp,
            #[cfg(feature = "toy")]
            Self::Toy => &toy::Toy,
        }
    }

    /// What an answer of such a server means.
    pub fn judge(self, answer: &Answer) -> Verdict {
        self.backend().verdict(answer).unwrap_or_else(|| judge(answer))
    }

    /// Its name, as it is stored and shown.
    pub fn name(self) -> &'static str {
        self.backend().words().kind
    }

    /// The kind with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }
}

/// A kind of server: what it needs to know, and in which words. Holds no state, does no I/O.
pub trait Backend: Sync {
    /// Whose rows of the table of variables are its own.
    fn of(&self) -> Of;

    /// An address in the one form in which those of this kind are compared; `None` if it is none.
    fn address(&self, text: &str) -> Option<String> {
        address::base_url(text)
    }

    /// Where `env` leads, with the secrets for it; `None` if nothing there is about this kind.
    ///
    /// # Errors
    /// Why what is there leads nowhere.
    fn route(&self, env: &Env<'_>) -> Result<Option<(Destination, Secrets)>, Refused>;

    /// True if nothing can be sent there without a secret.
    fn needs_secret(&self, _to: &Destination) -> bool {
        true
    }

    /// True if spans may travel unencrypted to another machine once the user trusts it: servers of this kind often have no TLS.
    fn takes_plain_http(&self) -> bool {
        false
    }

    /// The file in which its own client keeps credentials for servers such as `to`, below the user's home.
    fn key_file(&self, _to: &Destination) -> Option<&'static str> {
        None
    }

    /// `secrets` with those that they lack and that stand in that file.
    fn fill(&self, secrets: Secrets, _key_file: &str) -> Secrets {
        secrets
    }

    /// Where spans are posted to and with which headers, or what must be asked first. `answers` are those to the requests it made
    /// so far, in their order: 2xx and 4xx, but none that means to wait or that the credentials are wrong.
    fn connect(&self, to: &Destination, secrets: &Secrets, answers: &[Response<Bytes>]) -> Connect;

    /// An observation as `to` is sent it, with what describes its trace, and no value longer than `to` takes.
    fn encode(&self, to: &Destination, observation: &Observation, facts: &TraceFacts) -> WireSpan;

    /// Attributes of the OTLP resource.
    fn resource(&self, _to: &Destination) -> Vec<(Cow<'static, str>, Value)> {
        vec![("service.name".into(), Value::Text("claude-code".into()))]
    }

    /// Name of the instrumentation scope of its spans.
    fn scope(&self) -> &'static str;

    /// What an answer means where that is not what it means elsewhere.
    fn verdict(&self, _answer: &Answer) -> Option<Verdict> {
        None
    }

    /// What else may send the same there; nothing is sent while it is active for a project.
    fn rival(&self) -> Option<Rival> {
        None
    }

    /// What `to` can take.
    fn manners(&self, to: &Destination) -> Manners;

    /// How it takes images and documents, where its manners say that they are uploaded.
    fn media(&self) -> Option<&'static dyn MediaApi> {
        None
    }

    /// What people see there, and what else can be asked of it.
    fn pages(&self) -> Option<&'static dyn Pages> {
        None
    }

    /// The page of something at a server that [`Deletion::is_known`] recognises, of a kind whose other servers have no
    /// [`pages`](Self::pages) that are known.
    fn page(&self, _to: &Destination, _of: Item<'_>) -> Option<String> {
        None
    }

    /// How traces are deleted there.
    fn deletion(&self) -> Option<&'static dyn Deletion> {
        None
    }

    /// Attributes of a span that is sent to see whether it arrives: it costs nothing and belongs to no session.
    fn trial(&self, _name: &str, _environment: Option<&str>) -> Vec<(Cow<'static, str>, Value)> {
        Vec::new()
    }

    /// What things are called there.
    fn words(&self) -> Words;
}

/// Another program that may send the same.
#[derive(Clone, Copy, Debug)]
pub struct Rival {
    /// True if the texts of a project's settings files, weakest first, turn it on.
    pub is_active: fn(&[String]) -> bool,
    /// Why nothing is sent then and what to do, for people.
    pub why: &'static str,
}

/// The way to a destination, as far as it is known.
#[derive(Debug)]
pub enum Connect {
    /// All is known. It holds until the credentials change or the server answers 404.
    Ready(Endpoint),
    /// The server must answer this first.
    Ask(Request<Bytes>),
    /// It is no server: what is sent there is written to files.
    Files(Folder),
    /// Somebody has to fix something first, for people.
    Park(String),
}

/// A file store of MLflow's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    /// Its directory, an absolute path.
    pub root: String,
    /// The experiment there.
    pub experiment: Which,
}

impl Folder {
    /// The command that shows what is in it.
    pub fn viewer(&self) -> String {
        format!("MLFLOW_ALLOW_FILE_STORE=true mlflow ui --backend-store-uri {}", crate::settings::quoted(&self.root))
    }
}

/// Most requests for one way to a destination.
pub const MOST_ASKS: usize = 8;

/// Where spans are posted to.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The whole address.
    pub url: String,
    /// Headers, credentials among them.
    pub headers: HeaderMap,
}

/// What a backend can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manners {
    /// A turn's root may be sent again when the turn has grown. Elsewhere the first write stays.
    pub updates_roots: bool,
    /// What becomes of images and documents.
    pub media: MediaAs,
    /// Most spans in one request.
    pub batch_spans: usize,
    /// Most bytes of outbox rows in one request, unless a single span is larger.
    pub batch_bytes: usize,
}

/// What becomes of images and documents at a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaAs {
    /// They are uploaded beside the spans.
    Upload,
    /// Only their type and size are sent, as text.
    Size,
}

impl Default for Manners {
    fn default() -> Self {
        Self { updates_roots: true, media: MediaAs::Size, batch_spans: 512, batch_bytes: 4 << 20 }
    }
}

/// What things are called at a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Words {
    /// The kind, in lower case, as it is stored.
    pub kind: &'static str,
    /// The kind, for people.
    pub title: &'static str,
    /// Its secret, for people.
    pub secret: &'static str,
    /// The variable with its address.
    pub address: &'static str,
    /// What to do if it does not take the credentials, for people.
    pub credentials: &'static str,
}
