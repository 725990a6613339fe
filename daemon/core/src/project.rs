//! A project's options for its traces: how much of a conversation leaves, with which labels, in which form.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How times and totals are derived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Semantics {
    /// As in the tables of the cc-langfuse specification: a generation runs from its first line to the next generation, tools
    /// run one after another, `total` is input plus output.
    #[default]
    Spec,
    /// As it happened: a generation runs from its request to its last block, a tool from its call to its result. Later
    /// generations have their input. There is no `total` that would hide cached tokens.
    Measured,
}

/// How much of a conversation leaves this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Capture {
    #[default]
    Full,
    /// Sizes in place of text.
    Metadata,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// How times and totals are derived.
    pub semantics: Semantics,
    /// Langfuse environment, in the form the server accepts.
    pub environment: Option<String>,
    /// The version of the project's own software, from `LANGFUSE_RELEASE`.
    pub release: Option<String>,
    pub user_id: Option<String>,
    /// From `CC_LANGFUSE_TAGS`.
    pub tags: Vec<String>,
    /// From `CC_LANGFUSE_METADATA`.
    pub metadata: BTreeMap<String, String>,
    /// Share of turns that are kept; `None` keeps all.
    pub sample_rate: Option<f64>,
    /// Secrets are not masked.
    #[serde(default)]
    pub unredacted: bool,
    #[serde(default)]
    pub capture: Capture,
    /// No scores are sent.
    #[serde(default)]
    pub unscored: bool,
}
