//! `[telemetry]`: whether Claude Code's own telemetry is received, by whose word, and where it is passed on. `cc-langfusectl setup
//! --native-otel` writes it.

use http::HeaderMap;
use toml::{Spanned, de::DeValue};
use url::Url;

use super::{Problem, entries};
use crate::{destination, secret::Secret};

pub(super) const TELEMETRY: &str = "telemetry";

const PORT: &str = "port";
const TOKEN: &str = "token_sha256";
const FORWARD: &str = "forward_to";
/// The key of a secret.
pub const FORWARD_HEADERS: &str = "forward_headers";
const KEYS: [&str; 4] = [PORT, TOKEN, FORWARD, FORWARD_HEADERS];

/// How telemetry is received.
#[derive(Clone, Debug)]
pub struct Receiver {
    /// On loopback.
    pub port: u16,
    /// SHA-256 of the token that a sender must know, in lower-case hexadecimal.
    pub token_sha256: String,
    /// Where it is passed on.
    pub forward: Option<Forward>,
}

/// A collector of the user's own.
#[derive(Clone)]
pub struct Forward {
    /// As in `OTEL_EXPORTER_OTLP_ENDPOINT`: without `/v1/…`.
    pub address: String,
    /// As in `OTEL_EXPORTER_OTLP_HEADERS`.
    headers: Option<Secret>,
}

impl std::fmt::Debug for Forward {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forward").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Forward {
    /// The headers that its requests carry besides those of the sender.
    ///
    /// # Errors
    /// What is wrong with the list, without repeating it.
    pub fn header_map(&self) -> Result<HeaderMap, String> {
        self.headers.as_ref().map_or_else(|| Ok(HeaderMap::new()), |list| list.headers(destination::otlp::headers_in))
    }
}

/// Reads the table.
pub(super) fn read(value: &Spanned<DeValue<'_>>) -> Result<Receiver, Problem> {
    let bad = |why: &str| (value.span(), format!("`[{TELEMETRY}]`: {why}"));
    let table = value.get_ref().as_table().ok_or_else(|| bad("it must be a table"))?;
    let (mut port, mut token, mut address, mut headers) = (None, None, None, None);
    for (key, value) in entries(table, &KEYS)? {
        let wrong = |why: &str| (value.span(), format!("`[{TELEMETRY}]`: `{key}` {why}"));
        if key == PORT {
            let number =
                value.get_ref().as_integer().and_then(|int| u16::from_str_radix(int.as_str(), int.radix()).ok());
            port =
                Some(number.filter(|port| *port > 0).ok_or_else(|| wrong("must be a whole number from 1 to 65535"))?);
            continue;
        }
        let text = value.get_ref().as_str().ok_or_else(|| wrong("must be a string"))?;
        match key {
            TOKEN => {
                let is_hash = text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
                token = Some(text.to_owned()).filter(|_| is_hash);
                token
                    .as_ref()
                    .ok_or_else(|| wrong("must be the SHA-256 of a token, 64 lower-case hexadecimal digits"))?;
            }
            FORWARD => {
                let is_http =
                    Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
                address = Some(text.to_owned()).filter(|_| is_http);
                address.as_ref().ok_or_else(|| wrong("must be an address with http or https"))?;
            }
            _ => headers = Some(Secret::new(text)),
        }
    }
    let forward = address.map(|address| Forward { address, headers });
    match (port, token) {
        (Some(port), Some(token_sha256)) => Ok(Receiver { port, token_sha256, forward }),
        (None, _) => Err(bad(&format!("`{PORT}` is missing; `cc-langfusectl setup --native-otel` writes it"))),
        (_, None) => Err(bad(&format!("`{TOKEN}` is missing; `cc-langfusectl setup --native-otel` writes it"))),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    #[test]
    fn a_receiver_has_a_port_and_the_hash_of_a_token() {
        let hash = "0f".repeat(32);
        let read = |text: &str| Config::parse(text).map(|config| config.telemetry);
        let telemetry = read(&format!("telemetry = {{ port = 20001, token_sha256 = \"{hash}\" }}")).unwrap().unwrap();
        assert_eq!((telemetry.port, telemetry.token_sha256, telemetry.forward.is_none()), (20001, hash.clone(), true));
        assert!(read("").unwrap().is_none());
        for (text, word) in [
            ("telemetry = 1", "must be a table"),
            ("[telemetry]", "`port` is missing"),
            ("[telemetry]\nport = 1", "`token_sha256` is missing"),
            ("[telemetry]\nport = 0", "from 1 to 65535"),
            ("[telemetry]\nport = 65536", "from 1 to 65535"),
            ("[telemetry]\ntoken_sha256 = \"secret\"", "SHA-256"),
            ("[telemetry]\nforward_to = \"collector:4318\"", "http or https"),
            ("[telemetry]\nforward = \"x\"", "unknown key `forward`"),
        ] {
            let why = read(text).err().unwrap_or_else(|| panic!("{text}")).problem;
            assert!(why.contains(word), "{text}: {why}");
        }
    }
}
