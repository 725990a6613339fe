//! An observation: a turn, a subagent, a model call, a tool call or an event, in the words of no backend, and what describes its
//! trace. Both as they wait to be sent.
//!
//! Where the project wants no text to leave, sizes stand here in its place; and secrets are masked here: whatever is made of an
//! observation needs to do neither.

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
    Agent, Answer, Caller, Closing, Content, Detail, Event, Generation, MediaRef, Message, Output, Part, Tool,
    ToolCall, Turn, Usage,
};
pub(crate) use text::{mask, masked};

/// The form in which both are stored. A later form has a higher number.
const VERSION: u32 = 1;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    #[serde(rename = "v")]
    pub version: Version,
    /// Its trace: the turn.
    #[serde(with = "as_hex")]
    pub trace_id: TraceId,
    /// Its own id.
    #[serde(with = "as_hex")]
    pub span_id: SpanId,
    /// The observation above it; none above the turn itself.
    #[serde(rename = "parent_id", with = "as_hex::optional", default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<SpanId>,
    /// The turn or subagent that it is part of, where its parent is a model call: for backends that show the two side by side.
    #[serde(with = "as_hex::optional", default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<SpanId>,
    /// What the subagent is called that it is, or is part of; none within the turn itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    pub name: String,
    /// Start, nanoseconds since the epoch.
    pub start: Nanos,
    /// End, nanoseconds since the epoch, never before the start.
    pub end: Nanos,
    /// How it went.
    #[serde(default, skip_serializing_if = "is_default")]
    pub level: Level,
    /// What there is to say about `level`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// What failed, at level `Error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// A time that the transcript does not have was filled in from its neighbours.
    #[serde(default, skip_serializing_if = "is_default")]
    pub estimated: bool,
    /// Observations of other traces that it has to do with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
    /// What it is.
    pub body: Body,
    /// The model call that it is, or is part of. Not stored.
    #[serde(skip)]
    pub call: Option<Call>,
    /// Images and documents that it shows, with their bytes. Not stored.
    #[serde(skip)]
    pub media: Vec<(Field, Media)>,
}

/// The form of what is stored: `VERSION` is written, and nothing else can be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Version;

/// How an observation went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing went wrong.
    #[default]
    Default,
    /// Cut short.
    Warning,
    Error,
}

/// What failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// The model API, for good; its HTTP status where there was an answer.
    Api(Option<u64>),
    /// A tool, or it was not allowed to run.
    Tool,
    /// A tool that never came back.
    NoResult,
}

/// An observation of another trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    #[serde(rename = "trace", with = "as_hex")]
    pub trace_id: TraceId,
    #[serde(rename = "id", with = "as_hex")]
    pub span_id: SpanId,
}

/// Where in an observation something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// What came in.
    Input,
    /// What came out.
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

/// What an observation is, with the content that belongs to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Body {
    /// The root of a trace: one turn.
    Turn(Turn),
    /// The work of a subagent.
    Agent(Agent),
    /// A model call.
    Generation(Box<Generation>),
    /// A tool call.
    Tool(Tool),
    /// Something that happened at one point in time.
    Event(Event),
}

/// What describes a trace and its session: the same for every observation of a turn.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TraceFacts {
    #[serde(rename = "v")]
    pub version: Version,
    pub session_id: String,
    /// The number of the turn, from 1.
    pub turn: u32,
    /// How times and totals are derived.
    #[serde(skip_serializing_if = "is_default")]
    pub semantics: Semantics,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// Labels that the project gives its traces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Such as `production`: what a backend keeps traces apart by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// The version of the project's own software.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// What the user adds.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// The version of Claude Code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claude_version: Option<String>,
    /// Claude Code's name for the plan or session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slug: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub git_branch: Option<String>,
    /// The session that this one was forked from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forked_from: Option<String>,
    /// What the session is called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The team that the session is part of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub team: Option<String>,
    /// What the session is called in its team.
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
    /// What it is called: a turn is the work of an agent, too.
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
    /// As it is asked for.
    pub fn key(&self) -> SpanKey {
        (self.trace_id, self.span_id, self.call)
    }

    /// True if it is the root of its trace.
    pub fn is_root(&self) -> bool {
        self.parent.is_none()
    }

    /// The type and the message of the exception that it ended with, if it failed.
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
