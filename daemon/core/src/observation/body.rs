//! The content of observations, by kind.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, SeqAccess, Visitor, value::SeqAccessDeserializer},
};

use super::{as_hex, is_default};
use crate::{
    media::{Hash, Media},
    transcript::record::{self, Nanos},
};

/// A prompt and all that followed from it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Turn {
    /// The prompt.
    pub input: Content,
    /// The last answer, or the error in its place.
    pub output: String,
    /// What began the turn if nobody typed it: `command`, `task-notification`, `scheduled`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trigger: Option<String>,
    /// The command without its arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Text around the prompt that nobody typed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// The prompt is unknown; the input is the best substitute.
    #[serde(skip_serializing_if = "is_default")]
    pub stands_in: bool,
    /// When the prompt was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permission_mode: Option<String>,
    /// How long the prompt waited after it was typed because Claude Code was busy, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queued_ms: Option<u64>,
    /// The number of the turn that this one replaces: the user went back to before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instead_of: Option<u32>,
    /// The session that made the plan which this turn carries out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub planned_in: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Agent {
    /// Its task.
    pub input: Content,
    /// Its report, or the error in its place.
    pub output: String,
    /// Text around its prompt that nobody typed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_type: Option<String>,
    /// The workflow run it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflow_run: Option<String>,
    /// Its task in a few words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Generation {
    /// Input that no earlier call had: the turn's prompt and, in `measured` semantics only, tool results and other input.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub input: Vec<Message>,
    /// `None` if it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Answer>,
    /// The turn's output, on its last call only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closes: Option<Closing>,
    /// The model that answered.
    pub model: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// When the first block was complete; in `measured` semantics only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_block: Option<Nanos>,
    /// How many tools it called; `None` for an advisor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// The API's request id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_reason: Option<String>,
    /// If it is not the usual one; it has a price of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed: Option<String>,
    /// If it is not the usual one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<String>,
    /// The requested model, if another one answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requested_model: Option<String>,
    /// Blocks of other kinds, each as JSON.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub other_blocks: Vec<String>,
    /// Web searches made by the API.
    #[serde(skip_serializing_if = "is_default")]
    pub web_searches: u64,
    /// Web pages fetched by the API.
    #[serde(skip_serializing_if = "is_default")]
    pub web_fetches: u64,
    /// What it was for if it is not the conversation: `advisor` if another model asked it, `compaction`, `title`, `web search`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// What Claude Code's own telemetry says of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured: Option<Measured>,
}

/// A call in Claude Code's own telemetry.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Measured {
    /// From the request to the first token, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_token_ms: Option<u64>,
    /// Of the attempt that was answered, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// How often it was tried, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u64>,
    /// All that is known of the call is from there: it has no line.
    #[serde(skip_serializing_if = "is_default")]
    pub is_all: bool,
    /// In dollars; only of a call without a line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
}

impl Measured {
    /// Its numbers, by the names that backends show.
    pub fn details(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let all = [
            ("time_to_first_token_ms", self.first_token_ms),
            ("api_duration_ms", self.duration_ms),
            ("attempts", self.attempts),
        ];
        all.into_iter().filter_map(|(name, number)| Some((name, number?)))
    }

    /// Where it comes from, if not from a line.
    pub fn source(&self) -> Option<&'static str> {
        self.is_all.then_some("telemetry")
    }
}

/// The turn's output as its last call has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Closing {
    /// The text of the call's own answer.
    Answer,
    /// This text instead.
    Text(String),
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Answer {
    pub text: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<ToolCall>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub thinking: Vec<String>,
}

/// A tool call in an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    pub id: String,
    pub name: String,
    /// JSON as written, or its size.
    pub arguments: String,
}

/// A message of a call's input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The tool whose result it is; `None` for a message of the user, or on the user's behalf.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<Caller>,
    pub content: Content,
}

/// The tool call that a message answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    pub id: String,
    pub name: String,
}

/// Text, with or without images and documents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Content {
    Text(String),
    /// In order; at least one is an image or document.
    Parts(Vec<Part>),
}

impl Default for Content {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Content;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text, or parts")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Content, E> {
                Ok(Content::Text(text.to_owned()))
            }

            fn visit_string<E: Error>(self, text: String) -> Result<Content, E> {
                Ok(Content::Text(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, parts: A) -> Result<Content, A::Error> {
                Deserialize::deserialize(SeqAccessDeserializer::new(parts)).map(Content::Parts)
            }
        }

        // Derived, it would read the text into a tree first.
        deserializer.deserialize_any(Either)
    }
}

impl Content {
    /// Its text, with `[image]` in place of each image and document.
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

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// Text with secrets masked.
    Text(String),
    Media(MediaRef),
}

/// An image or document by its hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaRef {
    /// Media type.
    #[serde(rename = "type")]
    pub kind: String,
    /// SHA-256 of the bytes.
    #[serde(with = "as_hex")]
    pub hash: Hash,
    /// In bytes.
    pub length: usize,
}

impl From<&Media> for MediaRef {
    fn from(media: &Media) -> Self {
        Self { kind: media.kind.to_owned(), hash: media.hash, length: media.length }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tool {
    pub id: String,
    /// It ran in the API, as part of the answer.
    #[serde(skip_serializing_if = "is_default")]
    pub on_server: bool,
    /// JSON as written, or its size.
    pub input: String,
    /// `None` if it never returned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Output>,
    /// The arguments it ran with as JSON, if a hook replaced the model's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewritten: Option<String>,
    /// Run time in milliseconds, if a hook reported it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
    /// Who denied it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub denied: Option<String>,
    /// What Claude Code's own telemetry says of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waited: Option<Waited>,
}

/// A tool in Claude Code's own telemetry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Waited {
    /// How long it ran, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ran_ms: Option<u64>,
    /// How long it waited for permission, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permission_ms: Option<u64>,
    /// `accept` or `reject`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<String>,
    /// Who decided: `config`, `hook`, `user_temporary`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<String>,
}

impl Tool {
    /// How long it ran, in milliseconds, by a hook or by the telemetry.
    pub fn ran_ms(&self) -> Option<u64> {
        self.took_ms.or_else(|| self.waited.as_ref()?.ran_ms)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Output {
    /// Text, or blocks as JSON if they are not all text.
    pub text: String,
    /// The images and documents among the blocks, each with the offset in `text` of the empty string that replaces it, in
    /// bytes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub media: Vec<(usize, MediaRef)>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// What it added to the model's input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub said: Option<Content>,
    /// Numbers, and names of models and triggers; never text of the conversation.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<(Cow<'static, str>, Detail)>,
}

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

/// Each token counts in exactly one bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Neither read from the cache nor written to it.
    pub input: u64,
    /// Including thinking.
    pub output: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub cache_read: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub cache_write_5m: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub cache_write_1h: u64,
    /// For an unknown lifetime.
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
