//! Presets by receiver: the headers for the key and the project's name, and the maximum length of a value. The receiver's
//! address and conventions have variables of their own.

#[derive(Debug, PartialEq, Eq)]
pub struct Preset {
    /// The value of the variable.
    pub name: &'static str,
    /// The header for the key, and the prefix of its value.
    pub key: (&'static str, &'static str),
    /// True if the receiver refuses requests without a key.
    pub is_keyed: bool,
    /// The header for the project's name, and the prefix of its value.
    pub project: Option<(&'static str, &'static str)>,
    /// Headers with constant values.
    pub fixed: &'static [(&'static str, &'static str)],
    /// Maximum length of an attribute's value in bytes.
    pub limit: Option<usize>,
}

const BEARER: (&str, &str) = ("authorization", "Bearer ");

const fn preset(
    name: &'static str,
    key: (&'static str, &'static str),
    project: Option<(&'static str, &'static str)>,
) -> Preset {
    Preset { name, key, is_keyed: true, project, fixed: &[], limit: None }
}

/// Sorted by name.
pub const PRESETS: &[Preset] = &[
    preset("amplitude", BEARER, None),
    preset("arize", ("api_key", ""), Some(("space_id", ""))),
    preset("braintrust", BEARER, Some(("x-bt-parent", "project_name:"))),
    Preset { is_keyed: false, ..preset("collector", BEARER, None) },
    preset("dash0", BEARER, Some(("dash0-dataset", ""))),
    Preset { fixed: &[("dd-otlp-source", "llmobs")], ..preset("datadog", ("dd-api-key", ""), None) },
    preset("grafana", ("authorization", "Basic "), None),
    preset("honeycomb", ("x-honeycomb-team", ""), Some(("x-honeycomb-dataset", ""))),
    preset("laminar", BEARER, None),
    preset("langsmith", ("x-api-key", ""), Some(("langsmith-project", ""))),
    preset("logfire", ("authorization", ""), None),
    // It cuts longer values silently. https://docs.newrelic.com: attribute limits
    Preset { limit: Some(4095), ..preset("newrelic", ("api-key", ""), None) },
    preset("observe", BEARER, None),
    preset("opik", ("authorization", ""), Some(("projectname", ""))),
    Preset { is_keyed: false, ..preset("phoenix", BEARER, Some(("x-project-name", ""))) },
    preset("posthog", BEARER, None),
    preset("signoz", ("signoz-ingestion-key", ""), None),
    preset("weave", ("wandb-api-key", ""), Some(("project_id", ""))),
];

/// Ignores letter case.
pub fn named(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| preset.name.eq_ignore_ascii_case(name.trim()))
}
