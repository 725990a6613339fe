//! A value that cannot be printed, logged or serialised (invariant 6).

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

    /// `Basic` credentials for Langfuse.
    pub fn basic_auth(&self, public_key: &str) -> http::HeaderValue {
        use base64::Engine;
        let pair = Zeroizing::new(format!("{public_key}:{}", *self.0));
        let text =
            Zeroizing::new(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair.as_bytes())));
        // Base64 is always a valid header value.
        let mut value = http::HeaderValue::from_str(&text).unwrap_or(http::HeaderValue::from_static(""));
        value.set_sensitive(true);
        value
    }

    /// `text` without the key, and without the credentials made of it: a server may repeat what it was sent.
    pub fn conceal(&self, public_key: &str, text: &str) -> String {
        let header = self.basic_auth(public_key);
        let encoded = header.to_str().unwrap_or_default().trim_start_matches("Basic ");
        [encoded, &self.0].into_iter().filter(|secret| !secret.is_empty()).fold(text.to_owned(), |text, secret| {
            if text.contains(secret) { text.replace(secret, "[secret]") } else { text }
        })
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.bytes().zip(other.0.bytes()).fold(0, |diff, (a, b)| diff | (a ^ b)) == 0
    }
}
