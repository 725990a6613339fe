//! Receivers by name: in which headers each wants its key and the name of a project, and how long a value may be. Nothing else: where
//! a receiver is, and in which conventions it is sent spans, is said by variables of their own.

/// A receiver.
#[derive(Debug, PartialEq, Eq)]
pub struct Preset {
    /// As it is named in the variable.
    pub name: &'static str,
    /// The header with the key, and what stands before the key there.
    pub key: (&'static str, &'static str),
    /// A key is needed.
    pub is_keyed: bool,
    /// The header with the name of the project, and what stands before the name there.
    pub project: Option<(&'static str, &'static str)>,
    /// Headers that are always the same.
    pub fixed: &'static [(&'static str, &'static str)],
    /// Longest value of an attribute that is kept whole, in bytes.
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

/// All of them, by name.
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
    // It cuts values without a word. https://docs.newrelic.com: attribute limits
    Preset { limit: Some(4095), ..preset("newrelic", ("api-key", ""), None) },
    preset("observe", BEARER, None),
    preset("opik", ("authorization", ""), Some(("projectname", ""))),
    Preset { is_keyed: false, ..preset("phoenix", BEARER, Some(("x-project-name", ""))) },
    preset("posthog", BEARER, None),
    preset("signoz", ("signoz-ingestion-key", ""), None),
    preset("weave", ("wandb-api-key", ""), Some(("project_id", ""))),
];

/// The one called `name`, in any letter case.
pub fn named(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| preset.name.eq_ignore_ascii_case(name.trim()))
}
