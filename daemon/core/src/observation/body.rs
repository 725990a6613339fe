//! What observations of each kind say.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{as_hex, is_default};
use crate::{
    media::{Hash, Media},
    transcript::record::{self, Nanos},
};

/// One turn: a prompt and all that followed from it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Turn {
    /// What the user said.
    pub input: Content,
    /// The last answer, or the error in its place.
    pub output: String,
    /// What began it, where that was no person at the prompt: `command`, `task-notification`, `scheduled`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trigger: Option<String>,
    /// The command that was called, without its arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// What stood around the prompt and nobody typed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// Nobody knows what was asked: the input is the best there is.
    #[serde(skip_serializing_if = "is_default")]
    pub stands_in: bool,
    /// The permission mode in which the prompt was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permission_mode: Option<String>,
    /// The number of the turn to before which the user went back to begin this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instead_of: Option<u32>,
    /// The session in which the plan was made that it carries out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub planned_in: Option<String>,
}

/// The work of a subagent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Agent {
    /// What it was to do.
    pub input: Content,
    /// What it reported, or the error in its place.
    pub output: String,
    /// What stood around its prompt and nobody typed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
    /// What kind of agent it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_type: Option<String>,
    /// The run of a workflow that it is part of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflow_run: Option<String>,
    /// What it was to do, in a few words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// A model call.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Generation {
    /// What it was given that no call before it had: the prompt of the turn, or, in `measured` only, results of tools and other
    /// input.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub input: Vec<Message>,
    /// The answer; none where it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Answer>,
    /// What the turn says, on its last call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closes: Option<Closing>,
    /// The model that answered.
    pub model: String,
    /// Its tokens, where they are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// When the first block was there; in `measured` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_block: Option<Nanos>,
    /// How many tools it called; none on the call of an advisor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_count: Option<u64>,
    /// `message.id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// The API's id of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Why the model stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_reason: Option<String>,
    /// Its speed, where that is not the usual one; it has a price of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed: Option<String>,
    /// Its service tier, where that is not the usual one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<String>,
    /// The model that was asked for, if another one answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requested_model: Option<String>,
    /// Blocks of the answer of other kinds, each as JSON.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub other_blocks: Vec<String>,
    /// Web searches that the model made by itself.
    #[serde(skip_serializing_if = "is_default")]
    pub web_searches: u64,
    /// Pages of the web that it fetched.
    #[serde(skip_serializing_if = "is_default")]
    pub web_fetches: u64,
    /// Whom it was asked by, if that was another model: `advisor`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
}

/// What a turn says, as its last call has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Closing {
    /// The text of the call's own answer.
    Answer,
    /// This, in its place.
    Text(String),
}

/// An answer of a model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Answer {
    pub text: String,
    /// Tools that it called.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<ToolCall>,
    /// What it thought.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub thinking: Vec<String>,
}

/// A call of a tool, as it stands in an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    pub id: String,
    pub name: String,
    /// Its arguments: JSON as written, or their size.
    pub arguments: String,
}

/// A message that a call was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Whose result it is; none where the user, or somebody in their place, said it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<Caller>,
    /// What it says.
    pub content: Content,
}

/// The call of a tool that a message is the result of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// The id of the call.
    pub id: String,
    pub name: String,
}

/// Text, or text with images and documents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Content {
    Text(String),
    /// Pieces in their order, at least one of them an image or a document.
    Parts(Vec<Part>),
}

impl Default for Content {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

impl Content {
    /// Its text, with `[image]` in the place of each image or document.
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => text.into(),
            Self::Parts(parts) => {
                let text = |part: &'_ Part| match part {
                    Part::Text(text) => text.clone(),
                    Part::Media(_) => "[image]".to_owned(),
                };
                parts.iter().map(text).collect::<Vec<_>>().join(" ").into()
            }
        }
    }
}

/// A piece of content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// What was said, masked.
    Text(String),
    /// An image or a document.
    Media(MediaRef),
}

/// An image or a document, by its hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaRef {
    /// Its media type.
    #[serde(rename = "type")]
    pub kind: String,
    /// SHA-256 of its bytes.
    #[serde(with = "as_hex")]
    pub hash: Hash,
    /// How many bytes it has.
    pub length: usize,
}

impl From<&Media> for MediaRef {
    fn from(media: &Media) -> Self {
        Self { kind: media.kind.to_owned(), hash: media.hash, length: media.length }
    }
}

/// A tool call.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tool {
    /// The id of the call.
    pub id: String,
    /// The API ran it, within the answer.
    #[serde(skip_serializing_if = "is_default")]
    pub on_server: bool,
    /// Its arguments: JSON as written, or their size.
    pub input: String,
    /// What it put out; none if it never came back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Output>,
    /// The arguments it ran with, JSON as written, where a hook gave others than the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewritten: Option<String>,
    /// How long it ran, in milliseconds, where a hook said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
    /// Who did not let it run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub denied: Option<String>,
}

/// What a tool put out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Output {
    /// Text, or blocks as JSON where they are not all text.
    pub text: String,
    /// Images and documents among the blocks, each with its place in `text`, in bytes: an empty string stands there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub media: Vec<(usize, MediaRef)>,
}

/// Something that happened.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// What the model was given by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub said: Option<Content>,
    /// Numbers, and names of models and triggers; never what somebody said.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<(Cow<'static, str>, Detail)>,
}

/// A detail of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Detail {
    Number(u64),
    Name(String),
}

impl std::fmt::Display for Detail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// Token counts: each token in exactly one bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Input that neither came from the cache nor went to it.
    pub input: u64,
    /// Tokens that the model wrote, thinking included.
    pub output: u64,
    /// Read from the cache.
    #[serde(skip_serializing_if = "is_default")]
    pub cache_read: u64,
    /// Written to the cache for five minutes.
    #[serde(skip_serializing_if = "is_default")]
    pub cache_write_5m: u64,
    /// Written to the cache for an hour.
    #[serde(skip_serializing_if = "is_default")]
    pub cache_write_1h: u64,
    /// Written to the cache for a time that is not known.
    #[serde(skip_serializing_if = "is_default")]
    pub cache_write: u64,
}

impl From<record::Usage> for Usage {
    fn from(usage: record::Usage) -> Self {
        Self {
            input: usage.input,
            output: usage.output,
            cache_read: usage.cache_read,
            cache_write_5m: usage.cache_creation_5m,
            cache_write_1h: usage.cache_creation_1h,
            cache_write: usage.cache_creation_rest(),
        }
    }
}
