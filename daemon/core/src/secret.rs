//! A value that cannot be printed, logged or serialised (invariant 6).

use std::collections::BTreeMap;

use http::HeaderValue;
use zeroize::Zeroizing;

/// A secret key. It can be compared and turned into an `Authorization` header, and nothing else: there is no way to print,
/// log or serialise it.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the key into custody.
    pub fn new(key: &str) -> Self {
        Self(Zeroizing::new(key.to_owned()))
    }

    /// `Basic` credentials of `user`.
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

#[cfg(feature = "toy")]
impl Secret {
    /// A bearer token.
    pub fn bearer(&self) -> HeaderValue {
        let text = Zeroizing::new(format!("Bearer {}", *self.0));
        let mut value = HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""));
        value.set_sensitive(true);
        value
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.bytes().zip(other.0.bytes()).fold(0, |diff, (a, b)| diff | (a ^ b)) == 0
    }
}

/// The secrets of one destination, by the variable that has them.
#[derive(Clone, Default, PartialEq)]
pub struct Secrets(BTreeMap<&'static str, Secret>);

impl Secrets {
    /// The one that this variable has.
    pub fn get(&self, variable: &str) -> Option<&Secret> {
        self.0.get(variable)
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `text` without the secrets, and without the credentials made of them for `account`: a server may repeat what it was sent.
    pub fn conceal(&self, account: &str, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in self.0.values() {
            let header = secret.basic_auth(account);
            let encoded = header.to_str().unwrap_or_default().trim_start_matches("Basic ");
            for form in [encoded, &secret.0].into_iter().filter(|form| !form.is_empty()) {
                if text.contains(form) {
                    text = text.replace(form, "[secret]");
                }
            }
        }
        text
    }
}

impl FromIterator<(&'static str, Secret)> for Secrets {
    fn from_iter<I: IntoIterator<Item = (&'static str, Secret)>>(secrets: I) -> Self {
        Self(secrets.into_iter().collect())
    }
}
