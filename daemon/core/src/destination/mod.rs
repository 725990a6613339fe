//! Where spans go: one file for each kind of backend, none of which knows another one, HTTP or the database.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

pub mod address;
pub mod langfuse;
pub mod wire;

/// A place spans are delivered to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Destination {
    /// What kind of server it is.
    pub kind: Kind,
    /// Its address, as [`address::base_url`] makes it.
    #[serde(deserialize_with = "address::stored")]
    pub base_url: String,
    /// Which project's key it is reached with.
    pub public_key: String,
}

impl Destination {
    /// True if a secret can be sent there unread by others: over TLS, or without leaving this machine.
    pub fn is_private(&self) -> bool {
        let address = self.base_url.parse::<http::Uri>();
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
}
