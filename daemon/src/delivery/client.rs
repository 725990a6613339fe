//! Clients for HTTP over TLS: which certificates are trusted, and how long a server may be silent.

use std::{sync::Arc, time::Duration};

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};

use super::{
    exchange::Upload,
    proxies::{Proxied, Rules},
    tls,
};
use cc_core::{
    destination::Destination,
    secret::{Secrets, Tls},
};

/// Time limits without progress.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For establishing a connection.
    pub connect: Duration,
    /// Without progress while sending a request, and for receiving the body of an answer.
    pub stall: Duration,
    /// From the end of the request to the beginning of the answer.
    pub answer: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let thirty = Duration::from_secs(30);
        Self { connect: Duration::from_secs(10), stall: thirty, answer: thirty }
    }
}

/// The `User-Agent`.
pub(super) const AGENT: &str = concat!("cc-langfuse/", env!("CARGO_PKG_VERSION"));

/// How many bytes the system may buffer for a connection: buffered bytes look like progress. At a round trip of 100 ms this
/// allows 2.5 MB/s.
const SEND_BUFFER: usize = 128 << 10;

/// When an idle connection is probed, how often, and how many probes may fail.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(15), Duration::from_secs(10), 3);

pub(super) type Hyper = Client<HttpsConnector<Proxied>, Upload>;

/// A client for `destination`, over connections on which a secret is safe: unencrypted only if the traffic does not
/// leave this machine, or if this kind of backend allows it and the caller has checked that the user trusts it.
///
/// TLS comes from [`tls`], or from what the user says beside the `secrets`; proxies from `HTTPS_PROXY`,
/// `ALL_PROXY`, `NO_PROXY`.
///
/// # Errors
/// If a secret is not safe there, or TLS cannot be set up.
pub(super) fn client_of_allowed(destination: &Destination, secrets: &Secrets, limits: Limits) -> anyhow::Result<Hyper> {
    anyhow::ensure!(destination.is_private() || destination.kind.backend().takes_plain_http(), UNENCRYPTED);
    open(secrets.tls(), limits)
}

const UNENCRYPTED: &str = "the secret key would travel unencrypted: set the base URL to one with https \
     (http is for localhost, 127.0.0.0/8 and [::1])";

pub(super) fn open(own: &Tls, limits: Limits) -> anyhow::Result<Hyper> {
    let (of_proxy, of_server) = (tls::shared()?, tls::for_server(own)?);
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(limits.connect));
    tcp.set_send_buffer_size(Some(SEND_BUFFER));
    let (after, interval, retries) = KEEPALIVE;
    tcp.set_keepalive(Some(after));
    tcp.set_keepalive_interval(Some(interval));
    tcp.set_keepalive_retries(Some(retries));
    let https = |tls: &rustls::ClientConfig| {
        HttpsConnectorBuilder::new().with_tls_config(tls.clone()).https_or_http().enable_http1()
    };
    let to_proxy = https(&of_proxy).wrap_connector(tcp.clone());
    let https = https(&of_server).wrap_connector(Proxied { to_proxy, tcp, rules: Arc::new(Rules::from_env()) });
    Ok(Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).pool_max_idle_per_host(1).build(https))
}
