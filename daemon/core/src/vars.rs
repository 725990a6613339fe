//! The variables that configure tracing, by name and role, and the reasons why an event is refused.

use std::collections::BTreeMap;

use proto::env::{Of, Role, rows};

/// Why an event is refused; counted under [`reason`](Self::reason).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The frame is damaged, or of a version that this daemon does not know.
    Frame,
    /// The payload is not a JSON object.
    NotJson,
    /// It lacks `session_id` or `transcript_path`.
    FieldsMissing,
    /// `transcript_path` is not absolute or does not end in `.jsonl`.
    TranscriptPath,
    /// Tracing is not on in the event's environment.
    NotEnabled,
    KeysMissing,
    /// The base URL is not an `http` or `https` address.
    BaseUrl,
    /// MLflow's tracking URI leads nowhere, or is relative to an unknown project.
    TrackingUri,
    /// The endpoint of an OTLP receiver is invalid, or has a query, which could contain a key.
    OtlpEndpoint,
    /// Tracing is on, but neither a variable nor `config.toml` names a destination for the project.
    NoDestination,
}

impl Refused {
    /// The name under which `status` counts it.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Frame => "hook_frame",
            Self::NotJson => "hook_not_json",
            Self::FieldsMissing => "hook_fields_missing",
            Self::TranscriptPath => "hook_transcript_path",
            Self::NotEnabled => "hook_not_enabled",
            Self::KeysMissing => "hook_keys_missing",
            Self::BaseUrl => "hook_base_url",
            Self::TrackingUri => "hook_tracking_uri",
            Self::OtlpEndpoint => "hook_otlp_endpoint",
            Self::NoDestination => "hook_no_destination",
        }
    }
}

/// The variables that Claude Code gives to a hook, or that its settings files set.
#[derive(Debug, Default)]
pub struct Env<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Env<'a> {
    /// From pairs of names and values; later ones win. An empty value counts as unset.
    pub fn new(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self(pairs.into_iter().filter(|(_, value)| !value.trim().is_empty()).collect())
    }

    pub fn of(vars: &'a BTreeMap<String, String>) -> Self {
        Self::new(vars.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    }

    /// Tracing is on for some kind of backend.
    pub fn enabled(&self) -> bool {
        proto::env::is_on(|name| self.get(name))
    }

    /// Tracing is on for this kind of backend.
    pub fn enables(&self, of: Of) -> bool {
        let mut own = proto::env::VARIABLES.iter().filter(|row| row.of == of && proto::env::is_switch(row));
        own.any(|row| self.get(row.name).is_some_and(|value| proto::env::switches_on(row, value)))
    }

    /// The variable that decides a setting, with its value: the strongest of its names that is set.
    pub fn decided(&self, of: Of, role: Role) -> Option<(&'static str, &'a str)> {
        rows(of, role).find_map(|row| Some((row.name, self.get(row.name)?)))
    }

    /// An empty value counts as unset.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).copied()
    }

    /// `CC_LANGFUSE_X`, else `LANGFUSE_X`.
    pub(crate) fn paired(&self, name: &str) -> Option<&'a str> {
        self.get(&format!("CC_LANGFUSE_{name}")).or_else(|| self.get(&format!("LANGFUSE_{name}")))
    }
}
