//! The data of a turn: generations, tools, subagent launches, events.

use std::{borrow::Cow, sync::Arc};

use serde::{Deserialize, Serialize};

use super::answer::Trail;
use crate::{
    media::Media,
    transcript::record::{Advice, By, Launched, Nanos, Service, ToolResult, Usage},
};

/// Where the work of a subagent belongs, and which subagent it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Key and number of the turn that launched it.
    pub turn: (String, u32),
    /// The source of the span id of the call that launched it; `None` if unknown.
    pub tool_id: Option<String>,
    /// The ids of that tool call and of its model call.
    pub launch_ids: [Option<String>; 2],
    pub agent_id: String,
    pub agent_type: Option<String>,
    /// Its task in a few words.
    pub description: Option<String>,
    /// The workflow run it belongs to.
    pub run: Option<String>,
    /// Counts the runs of the subagent, from 1: each message that wakes it begins another.
    pub round: u32,
}

impl Place {
    /// True if `launch` is the call above it.
    pub fn is_below(&self, launch: &Launch) -> bool {
        self.turn.0 == launch.turn.0 && self.tool_id.as_deref() == Some(&launch.tool_id)
    }

    /// The source of its span id, and of those of its events.
    pub fn source(&self) -> Cow<'_, str> {
        match self.round {
            ..=1 => self.agent_id.as_str().into(),
            round => format!("{}#{round}", self.agent_id).into(),
        }
    }
}

/// The output of a skill that ran in a context of its own: its calls are those of a subagent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkillOutput {
    pub text: String,
    /// The subagent that continues in the background.
    pub agent_id: Option<String>,
}

/// A tool call that launched a subagent, or may have; or a prompt that did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// The source of the call's span id, or [`Turn::launch_id`](super::Turn::launch_id) of a prompt.
    pub tool_id: String,
    /// The call's own id, or the launch id of a prompt.
    pub id: String,
    pub message_id: Option<String>,
    /// The subagent or workflow run, once the call's result has named it.
    pub agent_id: Option<String>,
    /// Key and number.
    pub turn: (String, u32),
    /// The call has returned with the subagent's report, or never will.
    pub returned: bool,
    /// When the call was written.
    pub called: Option<Nanos>,
    /// It is a message that woke the subagent again.
    pub wakes: bool,
}

#[derive(Debug)]
pub struct Generation {
    /// `message.id`, or the uuid of its first line.
    pub id: String,
    /// How many earlier calls of the turn have the same id.
    pub repeats: u32,
    /// Index of the latest of these.
    pub(super) earlier: Option<usize>,
    /// Fingerprint of its first block.
    pub opening: Option<u64>,
    /// From the line that `usage` is from.
    pub model: String,
    /// `requestId`.
    pub request_id: Option<String>,
    /// When the request was sent, if the transcript says so.
    pub requested: Option<Nanos>,
    /// Time of the latest earlier line of the turn: the best estimate for the request if its time is unknown.
    pub previous: Option<Nanos>,
    /// When the first block was complete.
    pub first: Option<Nanos>,
    /// When the last block was complete.
    pub last: Option<Nanos>,
    pub stop_reason: Option<String>,
    /// From the line with most output.
    pub usage: Option<Usage>,
    /// Usage of other models that were asked within it; from the same line.
    pub advice: Vec<Advice>,
    /// From the same line.
    pub service: Service,
    /// In file order.
    pub texts: Vec<String>,
    /// In file order, including empty ones.
    pub thinking: Vec<String>,
    /// In file order.
    pub tools: Vec<Tool>,
    /// Blocks of other kinds: type, and the block as written.
    pub other: Vec<(String, String)>,
    pub sent: bool,
    /// Another session owns it, from which it was copied.
    pub is_copy: bool,
    /// Its lines say that they were copied from another session, whichever owns it.
    pub is_from_elsewhere: bool,
    pub(super) trail: Arc<Trail>,
}

#[derive(Debug)]
pub struct Tool {
    /// `tool_use.id`.
    pub id: String,
    /// How many earlier calls of the turn have the same id.
    pub repeats: u32,
    /// Indexes of the latest of these: generation and tool.
    pub(super) earlier: Option<(usize, usize)>,
    pub name: String,
    /// JSON as written.
    pub input: String,
    /// The arguments, if it launches a subagent.
    pub order: Option<Order>,
    /// When the call was written.
    pub called: Option<Nanos>,
    /// Run time in milliseconds, if a hook reported it.
    pub took_ms: Option<u64>,
    /// The arguments it ran with as JSON, if a hook replaced the model's.
    pub rewritten: Option<String>,
    /// It ran in the API, as part of the answer.
    pub on_server: bool,
    /// The result and the time it was written; `None` until it returns.
    pub result: Option<(ToolResult, Option<Nanos>)>,
    /// The index of the call that was given the result: the first one that began after it. `usize::MAX` without a result, or if
    /// the tool ran in the API.
    pub given_to: usize,
    pub sent: bool,
}

/// The arguments that launch a subagent: of the tools `Agent` and, up to Claude Code 2.1.3, `Task`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Order {
    #[serde(default)]
    pub prompt: String,
    /// The task in a few words.
    #[serde(default)]
    pub description: Option<String>,
    #[serde(default)]
    pub subagent_type: Option<String>,
}

/// An API error after Claude Code's last retry.
#[derive(Debug)]
pub struct Failure {
    /// As the user saw it.
    pub text: String,
    /// HTTP status, if there was an answer.
    pub status: Option<u64>,
    pub at: Option<Nanos>,
}

/// An event within a turn: anything that is neither a call nor a tool.
#[derive(Debug)]
pub struct Note {
    pub at: Option<Nanos>,
    pub what: Happening,
    /// How many model calls came before it.
    pub after: usize,
    /// It was sent, and its text was freed.
    pub sent: bool,
}

/// The kind of a [`Note`].
#[derive(Debug)]
pub enum Happening {
    /// A message that the user typed while the model worked; it joined the running turn.
    Queued(String, Vec<Media>),
    Compacted {
        /// `manual` or `auto`.
        trigger: String,
        /// Tokens before and, if known, after.
        tokens: (Option<u64>, Option<u64>),
    },
    /// The model could not answer, and another one took over.
    Fallback { from: String, to: String, trigger: String },
    /// A Stop hook returned a message, and the turn went on.
    HookFeedback(String),
    /// A background task reported its end to the running turn.
    Notification(String),
    /// Model input that nobody typed.
    Aside { by: By, text: String },
    /// A request failed and was retried.
    Retry {
        /// HTTP status.
        status: Option<u64>,
        attempt: Option<u64>,
    },
}

impl Tool {
    /// True if nothing more will come of it.
    pub(super) fn has_returned(&self) -> bool {
        self.result.is_some() || self.on_server
    }

    /// The subagent that its result names.
    pub(super) fn launched(&self) -> Option<&Launched> {
        self.result.as_ref().and_then(|(result, _)| result.agent.as_ref())
    }

    /// True if the subagent that it launched has ended: one in the background continues after the result.
    pub(super) fn is_launch_over(&self) -> bool {
        self.result.is_some() && self.launched().is_none_or(|agent| !agent.is_async)
    }
}

impl Generation {
    /// Its text blocks joined by newlines.
    pub fn text(&self) -> String {
        self.texts.join("\n")
    }
}
