//! What a project wants of its traces: how much of a conversation leaves, under which names, in which form.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How times and totals are derived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Semantics {
    /// As the cc-langfuse specification's tables say: a generation runs from its first line to the next generation, tools
    /// run one after another, `total` is input plus output.
    #[default]
    Spec,
    /// As things happened: a generation runs from its request to its last block, a tool from its call to its result; a later
    /// generation has what it was given as its input, and no `total` hides tokens of the cache.
    Measured,
}

/// What of a conversation leaves this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Capture {
    /// All of it.
    #[default]
    Full,
    /// Its shape: sizes in place of text.
    Metadata,
}

/// How a project wants its spans.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// How times and totals are derived.
    pub semantics: Semantics,
    /// Langfuse environment, already in the form the server accepts.
    pub environment: Option<String>,
    /// The version of the project's own software, from `LANGFUSE_RELEASE`.
    pub release: Option<String>,
    pub user_id: Option<String>,
    /// Labels of every trace, from `CC_LANGFUSE_TAGS`.
    pub tags: Vec<String>,
    /// Trace metadata of the user's own.
    pub metadata: BTreeMap<String, String>,
    /// Share of turns that are kept; `None` keeps all.
    pub sample_rate: Option<f64>,
    /// Text goes out as it is, secrets included.
    #[serde(default)]
    pub unredacted: bool,
    /// What of the text goes out at all.
    #[serde(default)]
    pub capture: Capture,
}
