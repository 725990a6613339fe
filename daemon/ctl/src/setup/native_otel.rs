//! `setup --native-otel`: has Claude Code send its own telemetry to the daemon, and passes it on to where it went before.

use std::{collections::BTreeMap, net::TcpListener};

use anyhow::{Context, bail};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::client;
use cc_core::{
    config::{Config, telemetry::FORWARD_HEADERS},
    ids::hex,
};

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";
const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";

/// The variables besides address and token. Its own delays are 5 s; with these a turn's facts come in time.
const FIXED: [(&str, &str); 7] = [
    ("CLAUDE_CODE_ENABLE_TELEMETRY", "1"),
    ("CLAUDE_CODE_ENHANCED_TELEMETRY_BETA", "1"),
    ("OTEL_LOGS_EXPORTER", "otlp"),
    ("OTEL_TRACES_EXPORTER", "otlp"),
    (PROTOCOL, "http/json"),
    ("OTEL_BLRP_SCHEDULE_DELAY", "500"),
    ("OTEL_BSP_SCHEDULE_DELAY", "500"),
];

/// Where ports are chosen: below those that systems give to outgoing connections.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// How the telemetry is received.
pub(super) struct NativeOtel {
    endpoint: String,
    headers: Zeroizing<String>,
    /// The line of `config.toml`; `None` if it is there.
    pub(super) line: Option<String>,
    /// Where it is passed on.
    forward: Option<String>,
}

impl NativeOtel {
    /// The variables that say so.
    pub(super) fn env(&self) -> Vec<(&str, &str)> {
        FIXED.into_iter().chain([(ENDPOINT, self.endpoint.as_str()), (HEADERS, self.headers.as_str())]).collect()
    }
}

/// How the telemetry is received, if it is already or `is_wanted`; says so. `env` are the variables of the settings file.
///
/// # Errors
/// Those of [`new`].
pub(super) fn choose(env: &BTreeMap<String, String>, is_wanted: bool) -> anyhow::Result<Option<NativeOtel>> {
    let config = client::config().unwrap_or_default();
    let chosen = match present(env, &config) {
        None if is_wanted => Some(new(env, &config)?),
        known => known,
    };
    if let Some(NativeOtel { forward, .. }) = &chosen {
        let to = forward.as_ref().map_or_else(String::new, |to| format!(", and passed on to {to}"));
        out!("telemetry     Claude Code's own is received by the daemon{to}");
    }
    Ok(chosen)
}

/// What is set up, if it is: `env` are the variables of the settings file, `config` is the daemon's.
fn present(env: &BTreeMap<String, String>, config: &Config) -> Option<NativeOtel> {
    let receiver = config.telemetry.as_ref()?;
    let (endpoint, headers) = (env.get(ENDPOINT)?, env.get(HEADERS)?);
    let token = headers.strip_prefix(BEARER)?;
    let is_ours = *endpoint == address(receiver.port) && hex(&Sha256::digest(token)) == receiver.token_sha256;
    is_ours.then(|| NativeOtel {
        endpoint: endpoint.clone(),
        headers: Zeroizing::new(headers.clone()),
        line: None,
        forward: receiver.forward.as_ref().map(|forward| forward.address.clone()),
    })
}

/// A port and a token of its own. What `env` sends elsewhere is passed on to there.
///
/// # Errors
/// If `config.toml` says otherwise, or what was sent before cannot be passed on.
fn new(env: &BTreeMap<String, String>, config: &Config) -> anyhow::Result<NativeOtel> {
    if config.telemetry.is_some() {
        bail!(
            "config.toml has `telemetry` already, and these settings do not send there: remove it, and run this again"
        );
    }
    let own: Vec<&str> = env
        .keys()
        .map(String::as_str)
        .filter(|name| name.starts_with("OTEL_EXPORTER_OTLP_") && !KNOWN.contains(name))
        .collect();
    if let Some(name) = own.first() {
        bail!(
            "{name} sends part of Claude Code's telemetry elsewhere, which cannot be passed on: remove it from the \
                settings first"
        );
    }
    let before = env
        .get(ENDPOINT)
        .filter(|_| env.contains_key("OTEL_LOGS_EXPORTER") || env.contains_key("OTEL_METRICS_EXPORTER"));
    if before.is_some() && env.get(PROTOCOL).is_none_or(|protocol| !protocol.starts_with("http/")) {
        bail!(
            "these settings send Claude Code's telemetry over gRPC, which cannot be passed on: set {PROTOCOL} to \
                http/protobuf first"
        );
    }
    let port = free_port()?;
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|error| anyhow::anyhow!("no random numbers: {error}"))?;
    let token = Zeroizing::new(hex(&random));
    let mut line = format!("{TABLE}port = {port}, token_sha256 = \"{}\"", hex(&Sha256::digest(token.as_str())));
    if let Some(to) = before {
        line += &format!(", forward_to = {}", toml_text(to));
        if let Some(headers) = env.get(HEADERS) {
            line += &format!(", {FORWARD_HEADERS} = {}", toml_text(headers));
        }
    }
    Ok(NativeOtel {
        endpoint: address(port),
        headers: Zeroizing::new(format!("{BEARER}{}", *token)),
        line: Some(line + " }"),
        forward: before.cloned(),
    })
}

const TABLE: &str = "telemetry = { ";
const BEARER: &str = "authorization=Bearer ";
const KNOWN: [&str; 3] = [ENDPOINT, HEADERS, PROTOCOL];

fn address(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

/// A basic string of TOML.
fn toml_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn free_port() -> anyhow::Result<u16> {
    for _ in 0..100 {
        let mut random = [0; 2];
        getrandom::fill(&mut random).map_err(|error| anyhow::anyhow!("no random numbers: {error}"))?;
        let port = PORTS.start + u16::from_be_bytes(random) % (PORTS.end - PORTS.start);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(anyhow::anyhow!("no port on 127.0.0.1 is free")).context("nothing was changed")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn none() -> Config {
        Config::default()
    }

    #[test]
    fn what_was_set_up_is_known_again_and_its_line_is_valid() {
        let chosen = new(&env(&[]), &none()).expect("a port");
        let line = chosen.line.as_ref().expect("a line");
        let config = Config::parse(line).expect("valid");
        let written: BTreeMap<_, _> =
            chosen.env().iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let again = present(&written, &config).expect("known");
        assert_eq!((again.env(), again.line.is_none()), (chosen.env(), true));
        assert!(!line.contains(chosen.headers.strip_prefix(BEARER).expect("a token")), "only its hash");
        assert!(present(&env(&[]), &config).is_none() && present(&written, &none()).is_none());
        assert!(new(&env(&[]), &config).is_err(), "the settings do not send there");
    }

    #[test]
    fn a_collector_of_the_users_own_stays_in_use() {
        let own = [
            ("OTEL_LOGS_EXPORTER", "otlp"),
            (PROTOCOL, "http/protobuf"),
            (ENDPOINT, "https://otel.example:4318/\"x"),
            (HEADERS, "x-key=secret"),
        ];
        let chosen = new(&env(&own), &none()).expect("it can be passed on");
        let config = Config::parse(chosen.line.as_ref().expect("a line"));
        let forward = config.expect("valid").telemetry.expect("it is set").forward.expect("it is passed on");
        assert_eq!(Some(&forward.address), chosen.forward.as_ref());
        assert_eq!(forward.header_map().expect("headers")["x-key"], "secret");
    }

    #[test]
    fn what_cannot_be_passed_on_is_refused_with_a_remedy() {
        for (own, word) in [
            (&[("OTEL_LOGS_EXPORTER", "otlp"), (ENDPOINT, "http://c:4317")][..], "gRPC"),
            (&[("OTEL_LOGS_EXPORTER", "otlp"), (ENDPOINT, "http://c:4317"), (PROTOCOL, "grpc")], "gRPC"),
            (&[("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://c:4318/v1/logs")], "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"),
        ] {
            let why = new(&env(own), &none()).err().expect("refused").to_string();
            assert!(why.contains(word), "{why}");
        }
    }
}
