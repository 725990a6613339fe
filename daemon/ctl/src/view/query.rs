//! The query of an address: filter, search and page number are in it, so that it can be bookmarked.

use std::collections::BTreeMap;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

/// Characters that must be encoded in a value.
const RESERVED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'<')
    .add(b'>')
    .add(b'&')
    .add(b'=')
    .add(b'+')
    .add(b'%')
    .add(b'?')
    .add(b'/');

/// Names and values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Query(BTreeMap<String, String>);

impl Query {
    /// Parses `a=b&c=d`. The last value of a name counts; values that are not UTF-8 are left out.
    pub(super) fn parse(text: &str) -> Self {
        let decode = |text: &str| {
            percent_decode_str(&text.replace('+', " ")).decode_utf8().ok().map(std::borrow::Cow::into_owned)
        };
        let pairs = text.split('&').filter_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(name)?, decode(value)?)).filter(|(_, value)| !value.is_empty())
        });
        Self(pairs.collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A number; zero if it is not a number.
    pub(super) fn number(&self, name: &str) -> u64 {
        self.get(name).and_then(|text| text.parse().ok()).unwrap_or_default()
    }

    /// The query with another value, encoded for an address; without the name if `value` is empty.
    pub(super) fn with(&self, name: &str, value: &str) -> String {
        let mut pairs = self.0.clone();
        if value.is_empty() {
            pairs.remove(name);
        } else {
            pairs.insert(name.to_owned(), value.to_owned());
        }
        let pairs: Vec<String> =
            pairs.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
        if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
    }
}

/// `text` encoded for an address.
pub(super) fn encode(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let odd = "a&b=c d+e%20/ü<\">?#";
        let query = Query::default();
        let written = query.with("q", odd);
        assert_eq!(Query::parse(written.strip_prefix('?').unwrap()).get("q"), Some(odd));
        let query = Query::parse("a=1&b=&a=2&c&%ff=1&d=x+y");
        assert_eq!((query.get("a"), query.get("b"), query.get("d")), (Some("2"), None, Some("x y")));
        assert_eq!(query.with("a", ""), "?d=x%20y");
        assert_eq!(Query::parse("n=12&m=x").number("n") + Query::parse("m=x").number("m"), 12);
    }
}
