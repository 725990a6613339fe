//! Whether a server is reached directly or through a proxy from the environment.

use std::{error::Error, sync::Arc, task::Context, task::Poll};

use http::uri::Scheme;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::{
    client::{
        legacy::connect::{HttpConnector, proxy::Tunnel},
        proxy::matcher::{Intercept, Matcher},
    },
    rt::TokioIo,
};

use crate::environment;
use tokio::net::TcpStream;
use tower_service::Service;

use cc_core::destination::is_loopback;

/// The proxies of the environment, and their exceptions.
pub(super) struct Rules {
    proxies: Matcher,
    direct: Exceptions,
    /// Exceptions for one port only.
    direct_at: Vec<(u16, Exceptions)>,
}

impl Rules {
    /// From `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, in capitals or not.
    pub(super) fn from_env() -> Self {
        let variable = |name: &str| {
            let value = [name.to_owned(), name.to_lowercase()].iter().find_map(|name| environment::text(name));
            value.unwrap_or_default().trim().to_owned()
        };
        Self::new(&variable("HTTPS_PROXY"), &variable("HTTP_PROXY"), &variable("ALL_PROXY"), &variable("NO_PROXY"))
    }

    /// `no` lists names (with all below them), addresses and networks, each with a port or not, after commas or spaces.
    pub(super) fn new(https: &str, http: &str, all: &str, no: &str) -> Self {
        let (mut direct, mut direct_at) = (Vec::new(), Vec::new());
        for entry in no.split([',', ';', ' ', '\t', '\n']).filter(|entry| !entry.is_empty()) {
            match entry_of(entry) {
                // An empty name is below every other.
                (host, _) if host.is_empty() => {}
                (host, None) => direct.push(host),
                (host, Some(port)) => direct_at.push((port, Exceptions::new(&host))),
            }
        }
        let proxies = Matcher::builder().https(https).http(http).all(all).build();
        Self { proxies, direct: Exceptions::new(&direct.join(",")), direct_at }
    }

    /// The proxy for `to`; `None` if it is reached directly. This machine always is: a proxy cannot reach it, and would read
    /// what is not encrypted.
    pub(super) fn proxy(&self, to: &http::Uri) -> Option<Intercept> {
        let port = to.port_u16().unwrap_or(if to.scheme() == Some(&Scheme::HTTP) { 80 } else { 443 });
        let is_direct = is_loopback(to)
            || self.direct.hold(to)
            || self.direct_at.iter().any(|(at, hosts)| *at == port && hosts.hold(to));
        self.proxies.intercept(to).filter(|_| !is_direct)
    }
}

/// Hosts that are reached directly.
struct Exceptions(Matcher);

impl Exceptions {
    fn new(hosts: &str) -> Self {
        // The library knows the rules; which proxy they are exceptions from does not matter.
        Self(Matcher::builder().all("http://proxy.invalid").no(hosts).build())
    }

    fn hold(&self, to: &http::Uri) -> bool {
        self.0.intercept(to).is_none()
    }
}

/// An entry of `NO_PROXY` as the library reads it, and its port. People write `*.example.org`, `example.org:8443`,
/// `[::1]:8443`, `https://example.org/` and `10.1.*` too.
fn entry_of(entry: &str) -> (String, Option<u16>) {
    let entry = entry.split_once("://").map_or(entry, |(_, rest)| rest);
    let is_network = entry.rsplit_once('/').is_some_and(|(_, bits)| bits.parse::<u8>().is_ok());
    let entry = if is_network { entry } else { entry.split('/').next().unwrap_or_default() };
    let (host, port) = match entry.rsplit_once(':') {
        Some((host, port)) if host.ends_with(']') || !host.contains(':') => match port.parse() {
            Ok(port) => (host, Some(port)),
            Err(_) => (entry, None),
        },
        _ => (entry, None),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if let Some(network) = ipv4_network(host) {
        return (network, port);
    }
    let name = if host == "*" { host } else { host.trim_start_matches('*').trim_matches('.') };
    (name.to_owned(), port)
}

/// `10.1.*` and `10.1.*.*` as `10.1.0.0/16`.
fn ipv4_network(host: &str) -> Option<String> {
    let known: Vec<&str> = host.split('.').take_while(|part| *part != "*").collect();
    let is_one = host.split('.').skip(known.len()).all(|part| part == "*");
    if !(1..4).contains(&known.len()) || !is_one || !host.ends_with('*') {
        return None;
    }
    let mut octets = [0; 4];
    for (octet, part) in octets.iter_mut().zip(&known) {
        *octet = part.parse().ok()?;
    }
    Some(format!("{}/{}", std::net::Ipv4Addr::from(octets), 8 * known.len()))
}

/// Logs which proxies of the environment cannot be used, before anything waits for them.
pub(super) fn check() {
    let rules = Rules::from_env();
    for scheme in ["https", "http"] {
        let anywhere = format!("{scheme}://host.invalid");
        let Some(proxy) = anywhere.parse().ok().and_then(|to| rules.proxies.intercept(&to)) else { continue };
        if let Err(why) = usable(&proxy) {
            tracing::error!(why, "a proxy of the environment cannot be used");
        }
    }
    for name in ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"] {
        let value = [name.to_owned(), name.to_lowercase()].iter().find_map(|name| environment::text(name));
        let value = value.unwrap_or_default();
        let target = "https://host.invalid".parse().unwrap_or_default();
        if !value.trim().is_empty() && Matcher::builder().all(value.trim()).build().intercept(&target).is_none() {
            tracing::error!(name, "a proxy of the environment is no address, so servers are reached without it");
        }
    }
}

/// Why a proxy cannot be used.
fn usable(proxy: &Intercept) -> Result<(), String> {
    match proxy.uri().scheme_str() {
        Some("http" | "https") => Ok(()),
        _ => Err(format!(
            "the proxy {} is of a kind that is not supported: set HTTPS_PROXY to one with http:// or https://",
            proxy.uri()
        )),
    }
}

/// Connects directly or through a proxy.
#[derive(Clone)]
pub(super) struct Proxied {
    pub(super) tcp: HttpConnector,
    /// To a proxy, over TLS if its address says so.
    pub(super) to_proxy: HttpsConnector<HttpConnector>,
    pub(super) rules: Arc<Rules>,
}

impl Service<http::Uri> for Proxied {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: http::Uri) -> Self::Future {
        let Some(proxy) = self.rules.proxy(&to) else {
            let mut tcp = self.tcp.clone();
            return Box::pin(async move { Ok(MaybeHttpsStream::Http(Service::call(&mut tcp, to).await?)) });
        };
        if let Err(why) = usable(&proxy) {
            return Box::pin(async move { Err(why.into()) });
        }
        let at = proxy.uri().authority().map(ToString::to_string).unwrap_or_default();
        let mut tunnel = Tunnel::new(proxy.uri().clone(), self.to_proxy.clone());
        if let Some(auth) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(auth.clone());
        }
        Box::pin(async move {
            let tunnel = Service::call(&mut tunnel, to).await;
            // Kept as the cause, so that a TLS error on the way to the proxy is recognised.
            tunnel.map_err(|error| -> Self::Error { Box::new(ProxyFailed { at, cause: Box::new(error) }) })
        })
    }
}

/// A failed connection through a proxy.
#[derive(Debug, thiserror::Error)]
#[error("the proxy {at}")]
struct ProxyFailed {
    at: String,
    #[source]
    cause: Box<dyn Error + Send + Sync>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_direct(no: &str, to: &str) -> bool {
        Rules::new("http://proxy:3128", "", "", no).proxy(&to.parse().unwrap()).is_none()
    }

    #[test]
    fn hosts_in_no_proxy_are_reached_directly_in_every_spelling() {
        for (no, to, expect) in [
            ("", "https://lf.corp.example", false),
            ("*", "https://lf.corp.example", true),
            ("corp.example", "https://lf.corp.example", true),
            ("corp.example", "https://corp.example:8443", true),
            ("corp.example", "https://notcorp.example", false),
            ("corp.example", "https://corp.example.evil.example", false),
            (".corp.example", "https://lf.corp.example", true),
            ("*.corp.example", "https://lf.corp.example", true),
            ("*.corp.example", "https://a.lf.corp.example", true),
            ("*.corp.example", "https://lf.notcorp.example", false),
            ("*.CORP.Example", "https://lf.corp.example", true),
            ("*corp.example", "https://lf.corp.example", true),
            ("corp.example.", "https://lf.corp.example", true),
            ("other.example, *.corp.example ,x", "https://lf.corp.example", true),
            ("other.example *.corp.example", "https://lf.corp.example", true),
            ("other.example;corp.example", "https://lf.corp.example", true),
            ("https://lf.corp.example/", "https://lf.corp.example", true),
            ("lf.corp.example:3000", "https://lf.corp.example:3000", true),
            ("lf.corp.example:3000", "https://lf.corp.example", false),
            ("lf.corp.example:443", "https://lf.corp.example", true),
            ("lf.corp.example:80", "https://lf.corp.example", false),
            (".corp.example:3000", "https://lf.corp.example:3000", true),
            ("*.corp.example:3000", "https://lf.corp.example:3001", false),
            ("*:3000", "https://lf.corp.example:3000", true),
            ("*:3000", "https://lf.corp.example", false),
            ("10.0.0.0/8", "https://10.1.2.3", true),
            ("10.0.0.0/8", "https://11.1.2.3", false),
            ("10.1.2.3", "https://10.1.2.3:8443", true),
            ("10.1.2.3:8443", "https://10.1.2.3:8443", true),
            ("10.1.2.3:8443", "https://10.1.2.3", false),
            ("10.*", "https://10.1.2.3", true),
            ("10.1.*.*", "https://10.1.2.3", true),
            ("10.1.*", "https://10.2.2.3", false),
            ("fd00::/8", "https://[fd00::1]", true),
            ("fd00::/8", "https://[fe00::1]", false),
            ("[fd00::1]", "https://[fd00::1]:3000", true),
            ("[fd00::1]:3000", "https://[fd00::1]:3000", true),
            ("[fd00::1]:3000", "https://[fd00::1]", false),
            ("fd00::1", "https://[fd00::1]", true),
            (":3000,/,*.,[,:", "https://lf.corp.example", false),
        ] {
            assert_eq!(is_direct(no, to), expect, "NO_PROXY={no:?}, {to}");
        }
    }

    #[test]
    fn this_machine_is_reached_directly_and_each_scheme_has_its_proxy() {
        let rules = Rules::new("", "http://plain:1", "http://all:2", "");
        for (to, expect) in [
            ("https://lf.example", Some("http://all:2/")),
            ("http://lf.example", Some("http://plain:1/")),
            ("http://127.0.0.1:3000", None),
            ("https://localhost", None),
            ("http://[::1]:3000", None),
        ] {
            let proxy = rules.proxy(&to.parse().unwrap()).map(|proxy| proxy.uri().to_string());
            assert_eq!(proxy.as_deref(), expect, "{to}");
        }
    }

    #[test]
    fn an_unsupported_proxy_is_refused_without_showing_its_password() {
        for (proxy, expect) in [
            ("http://me:canary@proxy:3128", true),
            ("https://me:canary@proxy:3128", true),
            ("proxy:3128", true),
            ("socks5://me:canary@proxy:1080", false),
            ("socks5h://me:canary@proxy:1080", false),
            ("socks4a://proxy", false),
        ] {
            let rules = Rules::new(proxy, "", "", "");
            let proxy = rules.proxy(&"https://lf.example".parse().unwrap()).unwrap();
            let usable = usable(&proxy);
            assert_eq!(usable.is_ok(), expect, "{}", proxy.uri());
            assert!(usable.err().is_none_or(|why| !why.contains("canary") && why.contains("HTTPS_PROXY")));
        }
    }
}
