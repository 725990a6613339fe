//! The variables that configure tracing, by name and role, and why they or the event beside them are refused.

use std::collections::BTreeMap;

use proto::env::{Of, Role, rows};

/// Why an event is not a hint; counted under [`reason`](Self::reason).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The frame itself is broken or of a version this daemon does not know.
    Frame,
    /// The payload is not a JSON object.
    NotJson,
    /// It lacks `session_id` or `transcript_path`.
    FieldsMissing,
    /// `transcript_path` is not absolute or does not end in `.jsonl`.
    TranscriptPath,
    /// Tracing is not on in the event's environment.
    NotEnabled,
    /// No public key.
    KeysMissing,
    /// The base URL is not an `http` or `https` address.
    BaseUrl,
    /// MLflow's tracking URI leads nowhere, or is below a project that is not known.
    TrackingUri,
    /// The endpoint of an OTLP receiver is none, or has a query in which a key might stand.
    OtlpEndpoint,
    /// Tracing is on, and neither a variable nor `config.toml` says where traces of the project go.
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

/// Settings as Claude Code gives them to a hook, or as its settings files hold them.
#[derive(Debug, Default)]
pub struct Env<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Env<'a> {
    /// From name and value pairs, later ones winning. An empty value counts as unset.
    pub fn new(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self(pairs.into_iter().filter(|(_, value)| !value.trim().is_empty()).collect())
    }

    /// The same, of variables by name.
    pub fn of(vars: &'a BTreeMap<String, String>) -> Self {
        Self::new(vars.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    }

    /// Tracing is on: for some kind of backend.
    pub fn enabled(&self) -> bool {
        proto::env::is_on(|name| self.get(name))
    }

    /// Tracing to this kind of backend is on.
    pub fn enables(&self, of: Of) -> bool {
        let mut own = proto::env::VARIABLES.iter().filter(|row| row.of == of && proto::env::is_switch(row));
        own.any(|row| self.get(row.name).is_some_and(|value| proto::env::switches_on(row, value)))
    }

    /// What decides `setting`: the strongest of its spellings that has a value, with its name.
    pub fn decided(&self, of: Of, role: Role) -> Option<(&'static str, &'a str)> {
        rows(of, role).find_map(|row| Some((row.name, self.get(row.name)?)))
    }

    /// The value of a variable; an empty one counts as none.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).copied()
    }

    /// `CC_LANGFUSE_X`, else `LANGFUSE_X`.
    pub(crate) fn paired(&self, name: &str) -> Option<&'a str> {
        self.get(&format!("CC_LANGFUSE_{name}")).or_else(|| self.get(&format!("LANGFUSE_{name}")))
    }
}
