//! Variables → a project's destinations and options, or why they cannot be used.

use std::collections::BTreeMap;

use proto::env::Role;

use serde::{Deserialize, Serialize};

use crate::{
    consent::Chooser,
    destination::{Destination, Kind, address::unquoted, langfuse::encode::environment},
    project::{Capture, Options, Semantics},
    secret::{Secret, Secrets},
};

pub use crate::vars::{Env, Refused};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    pub destination: Destination,
    /// Judged when the event arrived; `None` if it has not been judged yet.
    #[serde(default)]
    pub chooser: Option<Chooser>,
}

impl From<Destination> for Target {
    fn from(destination: Destination) -> Self {
        Self { destination, chooser: None }
    }
}

/// Turns tracing on in `vars` for this kind of backend and off for all others.
pub fn narrow(vars: &mut BTreeMap<String, String>, kind: Kind) {
    let of = kind.backend().of();
    for row in proto::env::VARIABLES.iter().filter(|row| proto::env::is_switch(row)) {
        if row.of != of {
            vars.remove(row.name);
        } else if row.role == Role::Enable {
            vars.insert(row.name.to_owned(), "true".to_owned());
        }
    }
}

impl Env<'_> {
    /// The destinations of every kind that is switched on, with their secrets, and why others cannot be used.
    pub fn routes(&self) -> (Vec<(Destination, Secrets)>, Vec<Refused>) {
        let (mut found, mut refused) = (Vec::new(), Vec::new());
        for kind in Kind::ALL {
            let backend = kind.backend();
            match self.enables(backend.of()).then(|| backend.route(self)) {
                Some(Ok(Some(route))) => found.push(route),
                Some(Err(why)) => refused.push(why),
                Some(Ok(None)) | None => {}
            }
        }
        (found, refused)
    }

    /// The first destination with its secrets; if nothing is switched on, the first that is configured.
    ///
    /// # Errors
    /// Why the variables of a configured backend cannot be used.
    pub fn destination(&self) -> Result<(Destination, Secrets), Refused> {
        let mut found = Err(Refused::KeysMissing);
        let enabled = |kind: &&Kind| self.enables(kind.backend().of());
        let (on, off): (Vec<&Kind>, Vec<&Kind>) = Kind::ALL.iter().partition(enabled);
        // `CC_LANGFUSE_TRACE` turns tracing on without turning a kind on.
        let is_traced = self.get(proto::env::TRACE).is_some_and(proto::env::enabled);
        let off = off.into_iter().filter(|_| !is_traced);
        for kind in on.into_iter().chain(off) {
            match kind.backend().route(self) {
                Ok(Some(route)) => return Ok(route),
                Ok(None) => {}
                Err(why) => found = Err(why),
            }
        }
        found
    }

    /// All secrets in the variables, including those that other variables override.
    pub fn secrets(&self) -> Secrets {
        let rows = proto::env::VARIABLES.iter().filter(|row| row.role == Role::Secret);
        rows.filter_map(|row| Some((row.name, Secret::new(unquoted(self.get(row.name)?))))).collect()
    }

    /// Options from the variables. An invalid one keeps its default, so that tracing continues.
    pub fn options(&self) -> Options {
        let metadata: BTreeMap<String, serde_json::Value> =
            self.get("CC_LANGFUSE_METADATA").and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let list = self.get("CC_LANGFUSE_TAGS").unwrap_or_default().split(',').map(str::trim);
        Options {
            semantics: match self.get("CC_LANGFUSE_SEMANTICS") {
                Some(name) if name.eq_ignore_ascii_case("measured") => Semantics::Measured,
                _ => Semantics::Spec,
            },
            environment: self.paired("TRACING_ENVIRONMENT").and_then(environment),
            release: self.paired("RELEASE").map(str::to_owned),
            user_id: self.paired("USER_ID").map(str::to_owned),
            tags: list.filter(|tag| !tag.is_empty()).map(str::to_owned).collect(),
            metadata: metadata
                .into_iter()
                .map(|(key, value)| match value {
                    serde_json::Value::String(text) => (key, text),
                    other => (key, other.to_string()),
                })
                .collect(),
            unredacted: self.get("CC_LANGFUSE_REDACT").is_some_and(|value| value.eq_ignore_ascii_case("off")),
            capture: match self.get("CC_LANGFUSE_CAPTURE") {
                Some(name) if name.eq_ignore_ascii_case("metadata") => Capture::Metadata,
                _ => Capture::Full,
            },
            unscored: self.get("CC_LANGFUSE_SCORES").is_some_and(|value| value.eq_ignore_ascii_case("off")),
            sample_rate: self
                .paired("SAMPLE_RATE")
                .and_then(|rate| rate.parse().ok())
                .filter(|r| (0.0..1.0).contains(r)),
        }
    }
}
