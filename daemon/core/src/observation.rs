//! The neutral form of what is traced: an observation (a turn, subagent, model call, tool call or event) and the facts of its
//! trace, both as they wait to be sent. No backend's names occur here.
//!
//! Sizes have already replaced text where the project wants no text to leave, and secrets are masked: whatever is made of an
//! observation need not do either.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use crate::{
    ids::{Call, SpanId, SpanKey, TraceId},
    media::Media,
    project::Semantics,
    transcript::record::Nanos,
};

pub(crate) mod as_hex;
mod body;
mod shown;
mod text;

pub use body::{
    Agent, Answer, Caller, Closing, Content, Detail, Event, Generation, Measured, MediaRef, Message, Output, Part,
    Tool, ToolCall, Turn, Usage, Waited,
};
pub(crate) use text::{mask, masked};

/// The version of the stored form.
const VERSION: u32 = 1;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    #[serde(rename = "v")]
    pub version: Version,
    #[serde(with = "as_hex")]
    pub trace_id: TraceId,
    #[serde(with = "as_hex")]
    pub span_id: SpanId,
    /// `None` for the turn itself.
    #[serde(rename = "parent_id", with = "as_hex::optional", default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<SpanId>,
    /// The turn or subagent it belongs to, if its parent is a model call: for backends that show the two as siblings.
    #[serde(with = "as_hex::optional", default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<SpanId>,
    /// The name of the subagent that it is or belongs to; `None` in the turn itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    pub name: String,
    pub start: Nanos,
    /// Never before the start.
    pub end: Nanos,
    #[serde(default, skip_serializing_if = "is_default")]
    pub level: Level,
    /// Explains `level`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Set at level `Error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// A time was missing in the transcript and was derived from its neighbours.
    #[serde(default, skip_serializing_if = "is_default")]
    pub estimated: bool,
    /// Related observations of other traces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
    pub body: Body,
    /// The model call that it is or belongs to. Not stored.
    #[serde(skip)]
    pub call: Option<Call>,
    /// The images and documents it shows, with their bytes. Not stored.
    #[serde(skip)]
    pub media: Vec<(Field, Media)>,
}

/// Serialises as `VERSION`; any other value is an error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Version;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    #[default]
    Default,
    /// Interrupted or cut short.
    Warning,
    Error,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// A model API request that was not retried any more; with its HTTP status if there was an answer.
    Api(Option<u64>),
    /// A tool failed, or was not allowed to run.
    Tool,
    /// A tool never returned.
    NoResult,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    #[serde(rename = "trace", with = "as_hex")]
    pub trace_id: TraceId,
    #[serde(rename = "id", with = "as_hex")]
    pub span_id: SpanId,
}

/// A field that can show media.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    Input,
    Output,
}

impl Field {
    pub fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Output => "output",
        }
    }
}

/// The content of an observation, by kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Body {
    /// The root of a trace.
    Turn(Turn),
    Agent(Agent),
    Generation(Box<Generation>),
    Tool(Tool),
    /// A point in time.
    Event(Event),
}

/// The facts of a trace and its session, the same for every observation of a turn.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TraceFacts {
    #[serde(rename = "v")]
    pub version: Version,
    pub session_id: String,
    /// From 1.
    pub turn: u32,
    #[serde(skip_serializing_if = "is_default")]
    pub semantics: Semantics,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// From `CC_LANGFUSE_TAGS`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Such as `production`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// The version of the project's own software.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// The user's own metadata.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claude_version: Option<String>,
    /// Claude Code's name for the plan or session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slug: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub git_branch: Option<String>,
    /// The session it was forked from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forked_from: Option<String>,
    /// The session's title.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The team the session belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub team: Option<String>,
    /// The session's name in its team.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teammate: Option<String>,
    /// The session that leads the team.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lead: Option<String>,
}

impl Default for Body {
    fn default() -> Self {
        Self::Event(Event::default())
    }
}

impl Body {
    /// The name of its kind. A turn is an `agent` too.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Turn(_) | Self::Agent(_) => "agent",
            Self::Generation(_) => "generation",
            Self::Tool(_) => "tool",
            Self::Event(_) => "event",
        }
    }
}

impl Observation {
    pub fn key(&self) -> SpanKey {
        (self.trace_id, self.span_id, self.call)
    }

    pub fn is_root(&self) -> bool {
        self.parent.is_none()
    }

    /// Type and message of the exception it ended with, if it failed.
    pub fn exception(&self) -> Option<(&'static str, &str)> {
        let kind = match self.failure? {
            Failure::Api(_) => "api_error",
            Failure::Tool => "tool_error",
            Failure::NoResult => "no_result",
        };
        Some((kind, self.status.as_deref().unwrap_or_default()))
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(VERSION)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u32::deserialize(deserializer)? {
            VERSION => Ok(Self),
            other => Err(D::Error::custom(format_args!("written by another version, in form {other}"))),
        }
    }
}
