//! What people type or paste when asked for a key or a server: recognises it, and what is wrong with it.

use cc_core::destination::address::base_url;

/// A recognised value, without quotes and variable names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Typed {
    /// A public key.
    Public(String),
    /// A secret key.
    Secret(String),
    /// An address.
    Server(String),
    /// None of these, as far as can be seen.
    Other(String),
}

/// Langfuse's public servers with their regions.
pub(super) const REGIONS: [(&str, &str); 4] = [
    ("https://cloud.langfuse.com", "Langfuse Cloud, EU"),
    ("https://us.cloud.langfuse.com", "Langfuse Cloud, US"),
    ("https://jp.cloud.langfuse.com", "Langfuse Cloud, Japan"),
    ("https://hipaa.cloud.langfuse.com", "Langfuse Cloud, HIPAA"),
];

/// The length of Langfuse's own keys: `pk-lf-` and a UUID.
const KEY_CHARS: usize = 42;

/// Paths of pages that are copied from a browser with the address.
const PAGES: [&str; 6] = ["/project/", "/project", "/organization/", "/organizations", "/auth/", "/setup"];

/// The values in `line`, which may have several, and may be several lines.
pub(super) fn typed(line: &str) -> Vec<Typed> {
    line.replace(" = ", "=")
        .split([' ', '\t', ';', ',', '\n', '\r'])
        .filter(|word| !word.is_empty() && *word != "export")
        .map(|word| {
            let value = word.split_once('=').filter(|(name, _)| is_name(name)).map_or(word, |(_, value)| value);
            let value = unquoted(value);
            match value {
                _ if value.starts_with("pk-") => Typed::Public(value.to_owned()),
                _ if value.starts_with("sk-") => Typed::Secret(value.to_owned()),
                _ if value.contains("://") => Typed::Server(value.to_owned()),
                _ => Typed::Other(value.to_owned()),
            }
        })
        .collect()
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

/// `text` without surrounding quotes.
pub(super) fn unquoted(text: &str) -> &str {
    text.trim().trim_matches(|c| "\"'`“”‘’<>".contains(c)).trim()
}

/// Why one of Langfuse's own keys looks incomplete; `None` if it looks complete, or has another form.
pub(super) fn cut_off(key: &str) -> Option<String> {
    let is_langfuse = ["pk-lf-", "sk-lf-"].iter().any(|head| key.starts_with(head));
    let rest = key.get(6..).unwrap_or_default();
    let is_of_uuid = rest.chars().all(|c| c.is_ascii_hexdigit() || c == '-') && rest.len() >= 8;
    let length = key.chars().count();
    (is_langfuse && is_of_uuid && length != KEY_CHARS)
        .then(|| format!("it has {length} characters, and Langfuse's keys have {KEY_CHARS}"))
}

/// The server's address in `text`, and whether it was typed exactly like that. A page's path is removed, and a
/// missing scheme added.
pub(super) fn server(text: &str) -> Option<(String, bool)> {
    let plain = unquoted(text.trim().trim_end_matches('/'));
    // `http:/host` lacks a slash.
    let plain = match plain.split_once(":/") {
        Some((scheme @ ("http" | "https"), host)) if !host.starts_with('/') => format!("{scheme}://{host}"),
        _ => plain.to_owned(),
    };
    let plain = &*plain;
    let local = ["localhost", "127.", "[::1]"].iter().any(|host| plain.starts_with(host));
    let whole = match plain.contains("://") {
        true => plain.to_owned(),
        false if plain.contains(['.', ':']) || local => format!("{}://{plain}", if local { "http" } else { "https" }),
        false => return None,
    };
    let host_end = whole.find("://").map_or(0, |at| at + 3);
    let page = PAGES
        .iter()
        .filter_map(|page| {
            let at = host_end + whole[host_end..].find(page)?;
            let end = at + page.len();
            (page.ends_with('/') || end == whole.len()).then_some(at)
        })
        .min();
    let address = base_url(page.map_or(&*whole, |at| &whole[..at]))?;
    let is_same = address == plain;
    Some((address, is_same))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_addresses_are_recognised_however_they_are_pasted() {
        let (public, secret) = (|key: &str| Typed::Public(key.into()), |key: &str| Typed::Secret(key.into()));
        for (line, expect) in [
            ("pk-lf-1", vec![public("pk-lf-1")]),
            ("  'sk-lf-1'  ", vec![secret("sk-lf-1")]),
            ("LANGFUSE_SECRET_KEY=\"sk-lf-1\"", vec![secret("sk-lf-1")]),
            (
                "export LANGFUSE_PUBLIC_KEY=pk-lf-1; export LANGFUSE_SECRET_KEY='sk-lf-1'",
                vec![public("pk-lf-1"), secret("sk-lf-1")],
            ),
            ("pk-lf-1 sk-lf-1", vec![public("pk-lf-1"), secret("sk-lf-1")]),
            ("“pk-lf-1”", vec![public("pk-lf-1")]),
            ("LANGFUSE_BASE_URL=\"https://x.example\"", vec![Typed::Server("https://x.example".into())]),
            ("key-of-another-making", vec![Typed::Other("key-of-another-making".into())]),
            ("", vec![]),
        ] {
            assert_eq!(typed(line), expect, "{line}");
        }
    }

    #[test]
    fn an_address_is_corrected() {
        for (text, expect, is_same) in [
            ("https://cloud.langfuse.com", "https://cloud.langfuse.com", true),
            ("https://cloud.langfuse.com/", "https://cloud.langfuse.com", true),
            ("https://cloud.langfuse.com/project/clx7/traces?x=1", "https://cloud.langfuse.com", false),
            ("https://cloud.langfuse.com/api/public/otel", "https://cloud.langfuse.com", false),
            ("https://cloud.langfuse.com/api/public/otel/v1/traces", "https://cloud.langfuse.com", false),
            ("https://x.example/langfuse/auth/sign-in", "https://x.example/langfuse", false),
            ("https://x.example/organization/o1/settings", "https://x.example", false),
            ("https://x.example/projects-of-mine", "https://x.example/projects-of-mine", true),
            ("\"https://x.example\"", "https://x.example", true),
            ("langfuse.example.org", "https://langfuse.example.org", false),
            ("localhost:3000", "http://localhost:3000", false),
            ("127.0.0.1:3000/project/p", "http://127.0.0.1:3000", false),
        ] {
            assert_eq!(server(text), Some((expect.to_owned(), is_same)), "{text}");
        }
        for text in ["", "x y", "cloud", "ftp://x.example", "://"] {
            assert_eq!(server(text), None, "{text}");
        }
    }

    #[test]
    fn a_key_that_was_cut_is_noticed_and_one_of_another_making_is_not() {
        let whole = "pk-lf-01628e54-f2e1-4452-8e4e-eede11a0a73e";
        assert_eq!(cut_off(whole), None);
        for key in [&whole[..41], &whole[..20], "sk-lf-01628e54-f2e1"] {
            assert!(cut_off(key).is_some_and(|why| why.contains("42")), "{key}");
        }
        for key in ["pk-lf-1", "pk-lf-dev", "lf_pk_1234567890", "pk-lf-my-own-key"] {
            assert_eq!(cut_off(key), None, "{key}");
        }
    }
}
