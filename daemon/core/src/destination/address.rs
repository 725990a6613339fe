//! Addresses and keys as people write them → the canonical form in which they are compared.

use url::{Host, Url};

const MAX_ADDRESS_BYTES: usize = 2048;

/// Paths that other exporters expect in the address; they are removed, because the backend adds its own.
const ENDPOINTS: [&str; 4] = ["/api/public/otel/v1/traces", "/api/public/otel", "/api/public/ingestion", "/api/public"];

/// The canonical form of an address: without credentials, query, fragment, default port, trailing dot of the host, trailing
/// slash or API path; the host in lower-case ASCII, IP addresses in canonical form.
pub fn base_url(text: &str) -> Option<String> {
    let host = origin(text)?;
    let url = Url::parse(&proto::env::without_userinfo(unquoted(text))).ok()?;
    let mut path = url.path().trim_end_matches('/');
    while let Some(rest) = ENDPOINTS.iter().find_map(|endpoint| path.strip_suffix(endpoint)) {
        path = rest.trim_end_matches('/');
    }
    let address = format!("{host}{path}");
    // Requests are made with `http::Uri`, so that must be able to express it.
    address.parse::<http::Uri>().is_ok().then_some(address)
}

/// Scheme, host and port only.
pub(super) fn origin(text: &str) -> Option<String> {
    let text = proto::env::without_userinfo(unquoted(text));
    if text.len() > MAX_ADDRESS_BYTES {
        return None;
    }
    let url = Url::parse(&text).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    let host = match url.host()? {
        Host::Domain(name) => name.trim_end_matches('.').to_owned(),
        address => address.to_string(),
    };
    if host.is_empty() {
        return None;
    }
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    Some(format!("{}://{host}{port}", url.scheme()))
}

/// A value without surrounding quotes and blanks.
pub(crate) fn unquoted(text: &str) -> &str {
    let mut text = text.trim();
    let pairs = [('"', '"'), ('\'', '\''), ('`', '`'), ('“', '”'), ('‘', '’'), ('<', '>')];
    while let Some(inner) =
        pairs.iter().find_map(|(open, close)| text.strip_prefix(*open).and_then(|rest| rest.strip_suffix(*close)))
    {
        text = inner.trim();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_spellings_of_an_address_have_one_canonical_form() {
        for (expect, spellings) in [
            (
                "https://a.example",
                &[
                    "https://a.example",
                    "https://a.example:443",
                    "https://a.example:0443/",
                    "https://a.example:/",
                    "https://A.Example.",
                    "HTTPS://a.example.:443//",
                    " https://a.example\n",
                    "\"https://a.example\"",
                    "'https://a.example/'",
                    "“https://a.example”",
                    "\" 'https://a.example' \"",
                    "<https://a.example>",
                    "https://me:pw@a.example",
                    "https://a.example?x#y",
                    "https://a.example/.",
                    "https://a.example/b/..",
                    "https:a.example",
                    "https:\\\\a.example\\",
                    "https://a%2Eexample",
                    "https://ａ.example",
                    "https://a。example",
                    "https://a.example/api/public/otel",
                    "https://a.example/api/public/otel/",
                    "https://a.example:443/api/public/otel/v1/traces",
                    "\"https://a.example/api/public/otel/v1/traces/\"",
                    "https://a.example/api/public/ingestion",
                    "https://a.example/api/public/",
                ][..],
            ),
            ("http://a.example", &["http://a.example:80", "http://A.EXAMPLE./", "http://a.example:080"]),
            ("http://a.example:443", &["http://a.example:443", "http://a.example.:0443"]),
            ("https://a.example:80", &["https://a.example:80/"]),
            ("https://a.example/sub", &["https://a.example:443/sub/", "https://a.example/sub/api/public/otel"]),
            ("https://a.example/Sub", &["https://A.example/Sub"]),
            ("https://a.example/api", &["https://a.example/api/"]),
            ("http://[::1]:3000", &["http://[::1]:3000", "http://[0:0:0:0:0:0:0:1]:3000/", "http://[0000::0001]:3000"]),
            ("https://[2001:db8::a]", &["https://[2001:DB8:0:0::A]:443"]),
            ("http://127.0.0.1:3000", &["http://127.1:3000", "http://2130706433:3000", "http://0x7f.0.0.1:3000/"]),
            (
                "https://xn--bcher-kva.example",
                &["https://bücher.example", "https://BÜCHER.example:443", "https://xn--bcher-kva.example"],
            ),
        ] {
            for spelling in spellings {
                assert_eq!(base_url(spelling).as_deref(), Some(expect), "{spelling:?}");
                let stored = serde_json::json!({"kind": "langfuse", "base_url": spelling, "public_key": "pk"});
                let stored: crate::destination::Destination = serde_json::from_value(stored).unwrap();
                assert_eq!(stored.address, expect);
            }
            assert_eq!(base_url(expect).as_deref(), Some(expect));
        }
    }

    #[test]
    fn invalid_addresses_are_refused() {
        let long = format!("https://a.example/{}", "x".repeat(MAX_ADDRESS_BYTES));
        for text in [
            "",
            " ",
            "\"\"",
            "a.example",
            "a.example:443",
            "localhost:3000",
            "ftp://a.example",
            "file:///etc",
            "https://",
            "https://.",
            "https://..",
            "https://a b",
            "https://a.example:99999",
            "https://[::1",
            "https://a.example:x",
            "https://[fe80::1%25eth0]",
            "javascript:alert(1)",
            "data:,x",
            "//a.example",
            "https://1.2.3.256",
            &long,
        ] {
            assert_eq!(base_url(text), None, "{text:?}");
        }
    }

    #[test]
    fn surrounding_quotes_are_removed_from_a_value() {
        for (text, expect) in [
            ("pk-lf-x", "pk-lf-x"),
            (" \"pk-lf-x\"\r\n", "pk-lf-x"),
            ("'pk-lf-x'", "pk-lf-x"),
            ("\"'pk-lf-x '\"", "pk-lf-x"),
            ("\"\"", ""),
            ("\"", "\""),
            ("pk\"x", "pk\"x"),
            ("\"pk", "\"pk"),
        ] {
            assert_eq!(unquoted(text), expect);
        }
    }
}
