//! Access control. A transcript contains source code and secrets, and any web page can send requests to a loopback
//! address: a request must have the secret in its path, name this server exactly, and not come from another site.

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use percent_encoding::percent_decode_str;
use subtle::ConstantTimeEq;

use cc_core::ids::hex;

/// What a browser may do with a page: show it, with this server's style and script only.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      frame-ancestors 'none'; base-uri 'none'";

/// The headers of every answer, including refusals.
pub(super) const HEADERS: [(header::HeaderName, HeaderValue); 7] = [
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (header::HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    (header::HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
];

/// The required properties of a request.
pub(super) struct Guard {
    /// This server's address: `127.0.0.1` and the port.
    host: String,
    /// 128 random bits in hexadecimal.
    secret: String,
}

impl Guard {
    /// For the server at `port`, with a new secret.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub(super) fn new(port: u16) -> anyhow::Result<Self> {
        let mut secret = [0; 16];
        getrandom::fill(&mut secret).map_err(|error| anyhow::anyhow!("no random numbers: {error}"))?;
        Ok(Self { host: format!("127.0.0.1:{port}"), secret: hex(&secret) })
    }

    /// The address of the first page.
    pub(super) fn url(&self) -> String {
        format!("http://{}/{}/", self.host, self.secret)
    }

    /// The segments of the path after the secret, decoded.
    ///
    /// # Errors
    /// The status of the refusal.
    pub(super) fn judge(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<Vec<String>, StatusCode> {
        // A host name that someone points at this address is not this server's.
        let mut hosts = headers.get_all(header::HOST).iter();
        let is_host = |host: &str| host == self.host;
        let named = hosts.next().and_then(|host| host.to_str().ok()).is_some_and(is_host) && hosts.next().is_none();
        if !named || !uri.authority().is_none_or(|authority| is_host(authority.as_str())) {
            return Err(StatusCode::MISDIRECTED_REQUEST);
        }
        if method != Method::GET {
            return Err(StatusCode::METHOD_NOT_ALLOWED);
        }
        let says = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        let is_visit = says("sec-fetch-mode") == Some("navigate") && says("sec-fetch-dest") == Some("document");
        if !matches!(says("sec-fetch-site"), None | Some("same-origin" | "none")) && !is_visit {
            return Err(StatusCode::FORBIDDEN);
        }
        let mut parts = parts(uri.path()).ok_or(StatusCode::BAD_REQUEST)?;
        let is_known = parts.first().is_some_and(|first| first.as_bytes().ct_eq(self.secret.as_bytes()).into());
        if !is_known {
            return Err(StatusCode::NOT_FOUND);
        }
        parts.remove(0);
        Ok(parts)
    }
}

/// The segments of a path; `None` if one is unsafe: empty, `..`, or with an encoded slash.
fn parts(path: &str) -> Option<Vec<String>> {
    let path = path.strip_prefix('/')?;
    let mut parts = Vec::new();
    let mut encoded = path.split('/').peekable();
    while let Some(part) = encoded.next() {
        // The path may end with a slash.
        if part.is_empty() && encoded.peek().is_none() {
            break;
        }
        let part = percent_decode_str(part).decode_utf8().ok()?;
        let is_odd = part.is_empty() || part == "." || part == ".." || part.contains(['/', '\\', '%']);
        if is_odd || part.contains(char::is_control) {
            return None;
        }
        parts.push(part.into_owned());
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> Guard {
        Guard { host: "127.0.0.1:4711".into(), secret: "5ec4e7".into() }
    }

    fn judged(method: &str, uri: &str, headers: &[(&'static str, &str)]) -> Result<Vec<String>, u16> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let judged = guard().judge(&method.parse().unwrap(), &uri.parse().unwrap(), &map);
        judged.map_err(|status| status.as_u16())
    }

    const HOST: (&str, &str) = ("host", "127.0.0.1:4711");

    #[test]
    fn a_path_is_what_it_seems_or_nothing() {
        for (uri, expect) in [
            ("/5ec4e7/", Ok(vec![])),
            ("/5ec4e7", Ok(vec![])),
            ("/5ec4e7/session/a%20b", Ok(vec!["session".to_owned(), "a b".to_owned()])),
            ("/5ec4e7/style.css?x=/../..", Ok(vec!["style.css".to_owned()])),
            ("/", Err(404)),
            ("/5ec4e8/", Err(404)),
            ("/5EC4E7/", Err(404)),
            ("/5ec4e/", Err(404)),
            ("/x/../5ec4e7/", Err(400)),
            ("/5ec4e7/../5ec4e7/", Err(400)),
            ("/5ec4e7/%2e%2e/x", Err(400)),
            ("/5ec4e7/a%2fb", Err(400)),
            ("/5ec4e7/a%5cb", Err(400)),
            ("/5ec4e7/a%252fb", Err(400)),
            ("/5ec4e7//x", Err(400)),
            ("//5ec4e7/", Err(400)),
            ("/5ec4e7/%00", Err(400)),
            ("/5ec4e7/%ff", Err(400)),
        ] {
            assert_eq!(judged("GET", uri, &[HOST]), expect, "{uri}");
        }
    }

    #[test]
    fn only_this_server_is_meant() {
        for headers in [
            &[][..],
            &[("host", "localhost:4711")],
            &[("host", "127.0.0.1")],
            &[("host", "127.0.0.1:4712")],
            &[("host", "[::1]:4711")],
            &[("host", "evil.example:4711")],
            &[("host", "127.0.0.1:4711.evil.example")],
            &[HOST, HOST],
        ] {
            assert_eq!(judged("GET", "/5ec4e7/", headers), Err(421), "{headers:?}");
        }
        assert_eq!(judged("GET", "http://127.0.0.1:4711/5ec4e7/", &[HOST]), Ok(vec![]));
        assert_eq!(judged("GET", "http://evil.example/5ec4e7/", &[HOST]), Err(421));
    }

    #[test]
    fn other_sites_may_lead_here_and_nothing_else() {
        let site = |site: &'static str, mode: &'static str, dest: &'static str| {
            let headers = [HOST, ("sec-fetch-site", site), ("sec-fetch-mode", mode), ("sec-fetch-dest", dest)];
            judged("GET", "/5ec4e7/", &headers).map(|_| ())
        };
        for (from, mode, dest, expect) in [
            ("none", "navigate", "document", Ok(())),
            ("same-origin", "cors", "empty", Ok(())),
            ("cross-site", "navigate", "document", Ok(())),
            ("same-site", "navigate", "document", Ok(())),
            ("cross-site", "navigate", "iframe", Err(403)),
            ("cross-site", "no-cors", "image", Err(403)),
            ("cross-site", "cors", "empty", Err(403)),
            ("same-site", "cors", "empty", Err(403)),
            ("cross-site", "no-cors", "script", Err(403)),
            ("whatever", "cors", "empty", Err(403)),
        ] {
            assert_eq!(site(from, mode, dest), expect, "{from} {mode} {dest}");
        }
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE"] {
            assert_eq!(judged(method, "/5ec4e7/", &[HOST]), Err(405), "{method}");
        }
    }

    #[test]
    fn secrets_differ() {
        let (one, other) = (Guard::new(1).unwrap(), Guard::new(1).unwrap());
        assert!(one.secret != other.secret && one.secret.len() == 32);
        assert_eq!(one.url(), format!("http://127.0.0.1:1/{}/", one.secret));
    }
}
