//! Clients for HTTP over TLS: which certificates are trusted, and how long a server may be silent.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{clock, environment};

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};

use super::{
    exchange::Upload,
    proxies::{Proxied, Rules},
};
use cc_core::destination::Destination;

/// How long nothing may happen.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest a connection may take to come about.
    pub connect: Duration,
    /// Longest without progress until all of a request is on its way, and longest for the body of an answer.
    pub stall: Duration,
    /// Longest from there until an answer begins.
    pub answer: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let thirty = Duration::from_secs(30);
        Self { connect: Duration::from_secs(10), stall: thirty, answer: thirty }
    }
}

/// What this program calls itself.
pub(super) const AGENT: &str = concat!("cc-langfuse/", env!("CARGO_PKG_VERSION"));

/// Most bytes of a request that the system holds for a connection: what it holds looks like progress. At a round trip of
/// 100 ms this allows 2.5 MB/s.
const SEND_BUFFER: usize = 128 << 10;

/// How soon a connection on which nothing happens is asked whether it still is one, and how often before it counts as gone.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(15), Duration::from_secs(10), 3);

/// Certificates are read again after this long: somebody may have added one.
const CERTIFICATES_REREAD_AFTER: Duration = Duration::from_secs(60);

pub(super) type Hyper = Client<HttpsConnector<Proxied>, Upload>;

/// The way to `destination`, which is no other than one on which a secret is safe: unencrypted only if it does not leave this machine, or
/// if its kind has no secret of ours for which that is never right and the caller has seen that the user trusts it.
///
/// TLS with the well-known roots, those of the system, and those of `SSL_CERT_FILE` and `NODE_EXTRA_CA_CERTS` (which users
/// behind an inspecting proxy have set for Claude Code already); proxies from `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`.
///
/// # Errors
/// If a secret is not safe there, or TLS cannot be set up.
pub(super) fn client_of_allowed(destination: &Destination, limits: Limits) -> anyhow::Result<Hyper> {
    anyhow::ensure!(destination.is_private() || destination.kind.backend().takes_plain_http(), UNENCRYPTED);
    open(limits)
}

const UNENCRYPTED: &str = "the secret key would travel unencrypted: set the base URL to one with https \
     (http is for localhost, 127.0.0.0/8 and [::1])";

fn open(limits: Limits) -> anyhow::Result<Hyper> {
    let tls = tls()?;
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(limits.connect));
    tcp.set_send_buffer_size(Some(SEND_BUFFER));
    let (after, interval, retries) = KEEPALIVE;
    tcp.set_keepalive(Some(after));
    tcp.set_keepalive_interval(Some(interval));
    tcp.set_keepalive_retries(Some(retries));
    let https = || HttpsConnectorBuilder::new().with_tls_config((*tls).clone()).https_or_http().enable_http1();
    let proxied = Proxied { to_proxy: https().wrap_connector(tcp.clone()), tcp, rules: Arc::new(Rules::from_env()) };
    let https = https().wrap_connector(proxied);
    Ok(Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).pool_max_idle_per_host(1).build(https))
}

/// What is trusted, shared by all clients: there may be thousands, and reading hundreds of certificates takes milliseconds.
fn tls() -> anyhow::Result<Arc<rustls::ClientConfig>> {
    static SHARED: Mutex<Option<(Instant, Arc<rustls::ClientConfig>)>> = Mutex::new(None);
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, tls)) = shared.as_ref().filter(|(read, _)| read.elapsed() < CERTIFICATES_REREAD_AFTER) {
        return Ok(tls.clone());
    }
    let tls = Arc::new(read_certificates()?);
    *shared = Some((clock::monotonic(), tls.clone()));
    Ok(tls)
}

fn read_certificates() -> anyhow::Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    // Includes SSL_CERT_FILE and SSL_CERT_DIR.
    let mut found = vec![rustls_native_certs::load_native_certs()];
    if let Some(path) = environment::raw("NODE_EXTRA_CA_CERTS").filter(|path| !path.is_empty()) {
        found.push(rustls_native_certs::load_certs_from_paths(Some(path.as_ref()), None));
    }
    for found in found {
        if let Some(error) = found.errors.first() {
            tracing::warn!(%error, and_others = found.errors.len() - 1, "certificates cannot be read");
        }
        roots.add_parsable_certificates(found.certs);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}
