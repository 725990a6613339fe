//! Where spans go: one file for each kind of backend, none of which knows another one, HTTP or the database. Each implements
//! [`Backend`] and has its arm in [`Kind::backend`] and its rows in `proto::env::VARIABLES`.

use core::net::{Ipv4Addr, Ipv6Addr};

use http::HeaderMap;
use proto::env::Of;
use serde::{Deserialize, Serialize};

use self::wire::WireSpan;
use crate::{
    observation::{Observation, TraceFacts},
    secret::Secrets,
    vars::{Env, Refused},
};

pub mod address;
pub mod langfuse;
#[cfg(feature = "toy")]
pub mod toy;
pub mod wire;

/// A place spans are delivered to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Destination {
    /// What kind of server it is.
    pub kind: Kind,
    /// Its address, in the form in which addresses are compared.
    #[serde(alias = "base_url", deserialize_with = "address::stored")]
    pub address: String,
    /// Which account or project there; never secret. Langfuse: the public key.
    #[serde(alias = "public_key")]
    pub account: String,
}

impl Destination {
    /// True if a secret can be sent there unread by others: over TLS, or without leaving this machine.
    pub fn is_private(&self) -> bool {
        let address = self.address.parse::<http::Uri>();
        address.is_ok_and(|address| address.scheme_str() == Some("https") || is_loopback(&address))
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
    /// A receiver for tests.
    #[cfg(feature = "toy")]
    Toy,
}

impl Kind {
    /// All of them, in the order in which they are listed.
    pub const ALL: &[Self] = &[
        Self::Langfuse,
        #[cfg(feature = "toy")]
        Self::Toy,
    ];

    /// What knows about it: the only match over the kinds.
    pub fn backend(self) -> &'static dyn Backend {
        match self {
            Self::Langfuse => &langfuse::Langfuse,
            #[cfg(feature = "toy")]
            Self::Toy => &toy::Toy,
        }
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

    /// Where `env` leads, with the secrets for it; `None` if nothing there is about this kind.
    ///
    /// # Errors
    /// Why what is there leads nowhere.
    fn route(&self, env: &Env<'_>) -> Result<Option<(Destination, Secrets)>, Refused>;

    /// Where spans are posted to, and with which headers.
    ///
    /// # Errors
    /// What is missing, for people.
    fn endpoint(&self, to: &Destination, secrets: &Secrets) -> Result<Endpoint, String>;

    /// An observation as `to` is sent it, with what describes its trace.
    fn encode(&self, to: &Destination, observation: &Observation, facts: &TraceFacts) -> WireSpan;

    /// Name of the instrumentation scope of its spans.
    fn scope(&self) -> &'static str;

    /// What it can take.
    fn manners(&self) -> Manners;

    /// What things are called there.
    fn words(&self) -> Words;
}

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
    /// Images and documents are uploaded beside the spans.
    pub uploads_media: bool,
}

/// What things are called at a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Words {
    /// The kind, in lower case, as it is stored.
    pub kind: &'static str,
    /// Its secret, for people.
    pub secret: &'static str,
}
