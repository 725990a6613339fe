//! A value that cannot be printed, logged or serialised (invariant 6).

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderValue};
use zeroize::Zeroizing;

/// A secret key, or a list of headers with keys. It can only be compared and turned into headers.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    pub fn new(key: &str) -> Self {
        Self(Zeroizing::new(key.to_owned()))
    }

    pub fn basic_auth(&self, user: &str) -> HeaderValue {
        use base64::Engine;
        let pair = Zeroizing::new(format!("{user}:{}", *self.0));
        let text =
            Zeroizing::new(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair.as_bytes())));
        // Base64 is always a valid header value.
        let mut value = HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""));
        value.set_sensitive(true);
        value
    }
}

impl Secret {
    /// `Basic` credentials with a secret user name.
    pub(crate) fn basic_auth_of(&self, user: &Self) -> HeaderValue {
        self.basic_auth(&user.0)
    }

    pub fn bearer(&self) -> HeaderValue {
        let text = Zeroizing::new(format!("Bearer {}", *self.0));
        let mut value = HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""));
        value.set_sensitive(true);
        value
    }

    /// The headers that `read` parses.
    ///
    /// # Errors
    /// Those of `read`, which must not repeat its input.
    pub(crate) fn headers(&self, read: impl FnOnce(&str) -> Result<HeaderMap, String>) -> Result<HeaderMap, String> {
        read(&self.0)
    }

    /// Every text that must not be shown: the whole secret; and if it is a list of names and values, each value,
    /// percent-encoded or not, with and without a prefix such as `Bearer`.
    fn forms(&self) -> Vec<Zeroizing<String>> {
        let mut forms = vec![self.0.clone()];
        for item in self.0.split(',').map(str::trim).filter(|item| item.len() < self.0.len() || item.contains('=')) {
            let value = item.split_once('=').map_or(item, |(_, value)| value.trim());
            let decoded = decoded(value);
            let bare = decoded.split_once(' ').map(|(_, bare)| Zeroizing::new(bare.trim().to_owned()));
            forms.extend([Some(Zeroizing::new(value.to_owned())), Some(decoded), bare].into_iter().flatten());
        }
        // Shorter texts occur inside ordinary words.
        forms.retain(|form| form.len() >= SHORTEST || form.len() == self.0.len() && !form.is_empty());
        forms.sort_by_key(|form| core::cmp::Reverse(form.len()));
        forms
    }
}

/// Minimum length of a part of a list that counts as secret, in bytes.
const SHORTEST: usize = 6;

/// `text` with `%XX` decoded; unchanged if the result is not UTF-8.
pub(crate) fn decoded(text: &str) -> Zeroizing<String> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|two| *first == b'%' && two.iter().all(u8::is_ascii_hexdigit));
        let byte = digits.and_then(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    Zeroizing::new(String::from_utf8(bytes.to_vec()).unwrap_or_else(|_| text.to_owned()))
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.bytes().zip(other.0.bytes()).fold(0, |diff, (a, b)| diff | (a ^ b)) == 0
    }
}

/// The secrets of one destination by variable, and how its server's identity is checked.
#[derive(Clone, Default, PartialEq)]
pub struct Secrets {
    all: BTreeMap<&'static str, Secret>,
    tls: Tls,
}

/// The user's TLS settings for one destination, which override the general ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// The only authorities accepted for its server: a file, or a directory of files.
    pub authorities: Option<String>,
    /// A file with the client certificate for the server, and its key.
    pub identity: Option<String>,
    /// The server's certificate is not checked.
    pub is_unproven: bool,
}

impl Secrets {
    pub fn get(&self, variable: &str) -> Option<&Secret> {
        self.all.get(variable)
    }

    pub(crate) fn insert(&mut self, variable: &'static str, secret: Secret) {
        self.all.insert(variable, secret);
    }

    /// How the server's identity is checked.
    pub fn tls(&self) -> &Tls {
        &self.tls
    }

    /// The same secrets with other TLS settings.
    #[must_use]
    pub fn with_tls(self, tls: Tls) -> Self {
        Self { tls, ..self }
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty() && self.tls == Tls::default()
    }

    pub fn has_no_key(&self) -> bool {
        self.all.is_empty()
    }

    /// The newer secrets where an event brought some, else those from `before`: an event without secrets does not
    /// withdraw known ones.
    #[must_use]
    pub fn after(self, before: Option<&Self>) -> Self {
        match before.filter(|_| self.all.is_empty()) {
            Some(before) => Self { tls: self.tls, ..before.clone() },
            None => self,
        }
    }

    /// `text` without the secrets and without credentials derived from them for `account`: a server may echo them.
    pub fn conceal(&self, account: &str, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in self.all.values() {
            let users = [account].into_iter().chain(self.all.values().map(|user| user.0.as_str()));
            let headers: Vec<HeaderValue> = users.map(|user| secret.basic_auth(user)).collect();
            let encoded = headers.iter().filter_map(|header| header.to_str().ok()?.strip_prefix("Basic "));
            let forms = secret.forms();
            for form in encoded.chain(forms.iter().map(|form| form.as_str())) {
                if !form.is_empty() && text.contains(form) {
                    text = text.replace(form, "[secret]");
                }
            }
        }
        text
    }
}

impl FromIterator<(&'static str, Secret)> for Secrets {
    fn from_iter<I: IntoIterator<Item = (&'static str, Secret)>>(secrets: I) -> Self {
        Self { all: secrets.into_iter().collect(), tls: Tls::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_and_parts_of_header_lists_are_concealed() {
        for (secret, said) in [
            ("sk-lf-1234567", "no such key: sk-lf-1234567"),
            ("authorization=Bearer%20abcdefgh", "Bearer abcdefgh is unknown, abcdefgh too, and Bearer%20abcdefgh"),
            ("x-a=hunter22,authorization=Basic dXNlcjpwYXNz==", "hunter22 or dXNlcjpwYXNz=="),
            ("onlyakey99==", "onlyakey99== is no key"),
            ("akey1234,Comet-Workspace=teamspace", "akey1234 may not enter teamspace"),
        ] {
            let secrets: Secrets = [("X", Secret::new(secret))].into_iter().collect();
            let shown = secrets.conceal("pk", said);
            for word in ["1234567", "abcdefgh", "hunter22", "dXNlcjpwYXNz", "onlyakey99", "akey1234", "teamspace"] {
                assert!(!shown.contains(word), "{shown}");
            }
            assert!(shown.contains("[secret]"), "{shown}");
        }
        let short: Secrets = [("X", Secret::new("x=a,y=is"))].into_iter().collect();
        assert_eq!(short.conceal("pk", "a key is wrong"), "a key is wrong");
    }

    #[test]
    fn invalid_percent_codes_are_kept() {
        for (text, expect) in
            [("a%20b", "a b"), ("100%", "100%"), ("%zz%2", "%zz%2"), ("%+1", "%+1"), ("%FF", "%FF"), ("%C3%A4", "ä")]
        {
            assert_eq!(*decoded(text), expect);
        }
    }
}
