//! Arize Phoenix, one of the OTLP receivers: how to recognise it, its trace pages, its deletion.
//!
//! Whatever a preset says, the server itself decides: Phoenix sends its version in a header of every answer.

use bytes::Bytes;
use http::{Method, Request, Response};

use super::{PATH, headers_of};
use crate::{
    destination::{
        Destination,
        deletion::{Certainty, Deletion},
        pages::{Item, encoded, request},
    },
    secret::Secrets,
};

/// Its preset.
pub(super) const NAME: &str = "phoenix";

/// The header with its version.
const VERSION: &str = "x-phoenix-server-version";

/// The address of its web pages: the receiver's address without path.
pub(super) fn base(to: &Destination) -> &str {
    to.address.strip_suffix(PATH).unwrap_or(&to.address)
}

/// The page of a trace or a session, which Phoenix finds by id.
pub(super) fn page(to: &Destination, of: Item<'_>) -> String {
    let (kind, id) = match of {
        Item::Trace(id) => ("traces", id),
        Item::Session(id) => ("sessions", id),
    };
    format!("{}/redirects/{kind}/{}", base(to), encoded(id))
}

pub(super) struct Phoenix;

impl Deletion for Phoenix {
    fn identify(&self, to: &Destination, secrets: &Secrets) -> Option<Request<Bytes>> {
        Some(ask(Method::GET, to, secrets, "healthz"))
    }

    fn is_known(&self, answer: &Response<Bytes>) -> bool {
        answer.headers().contains_key(VERSION)
    }

    fn delete(&self, to: &Destination, secrets: &Secrets, _: &str, traces: &[String]) -> Request<Bytes> {
        let id = traces.first().map(String::as_str).unwrap_or_default();
        ask(Method::DELETE, to, secrets, &format!("v1/traces/{}", encoded(id)))
    }

    fn most(&self) -> usize {
        1
    }

    fn certainty(&self) -> Certainty {
        Certainty::Repeated
    }
}

/// Headers that cannot be sent were refused earlier.
fn ask(method: Method, to: &Destination, secrets: &Secrets, path: &str) -> Request<Bytes> {
    request(method, &format!("{}/{path}", base(to)), headers_of(to, secrets).unwrap_or_default(), Bytes::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        destination::{Kind, otlp::HEADERS},
        secret::Secret,
    };

    fn to(address: &str) -> Destination {
        Destination { kind: Kind::Otlp, address: address.into(), account: "both,preset=phoenix,name=p".into() }
    }

    #[test]
    fn deletion_requests_use_the_receivers_host_and_headers() {
        let secrets: Secrets = [(HEADERS, Secret::new("k-123456"))].into_iter().collect();
        for (address, base) in [
            ("http://127.0.0.1:6006/v1/traces", "http://127.0.0.1:6006"),
            ("https://px.example/s/team/v1/traces", "https://px.example/s/team"),
            ("https://px.example/elsewhere", "https://px.example/elsewhere"),
        ] {
            let to = to(address);
            let asked = Phoenix.identify(&to, &secrets).unwrap();
            assert_eq!((asked.method(), asked.uri().to_string()), (&Method::GET, format!("{base}/healthz")));
            let deletes = Phoenix.delete(&to, &secrets, "", &["0a/..".into()]);
            let path = format!("{base}/v1/traces/0a%2F..");
            assert_eq!((deletes.method(), deletes.uri().to_string()), (&Method::DELETE, path));
            for request in [asked, deletes] {
                assert_eq!(request.headers()["authorization"], "Bearer k-123456");
            }
            assert_eq!(page(&to, Item::Session("a b")), format!("{base}/redirects/sessions/a%20b"));
        }
    }

    #[test]
    fn phoenix_is_recognised_by_its_version_header_only() {
        let answer = |name: &str| Response::builder().header(name, "20.26.1").body(Bytes::new()).unwrap();
        assert!(Phoenix.is_known(&answer("X-Phoenix-Server-Version")));
        assert!(!Phoenix.is_known(&answer("server")));
    }
}
