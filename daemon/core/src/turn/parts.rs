//! What a turn consists of.

use std::{borrow::Cow, sync::Arc};

use serde::Deserialize;

use super::answer::Trail;
use crate::{
    media::Media,
    transcript::record::{Advice, By, Nanos, Service, ToolResult, Usage},
};

/// Where the work of a subagent belongs, and who it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Key and number of the turn during which it was launched.
    pub turn: (String, u32),
    /// What the span of the call that launched it has its id from; none where that is not known.
    pub tool_id: Option<String>,
    /// The ids of that tool call and of the model call that made it.
    pub launch_ids: [Option<String>; 2],
    pub agent_id: String,
    /// What kind of agent it is.
    pub agent_type: Option<String>,
    /// What it was to do, in a few words.
    pub description: Option<String>,
    /// The run of a workflow that it is part of.
    pub run: Option<String>,
    /// Which run of the subagent it is, from 1: each message that wakes it again begins one.
    pub round: u32,
}

impl Place {
    /// True if `launch` is the call above it.
    pub fn is_below(&self, launch: &Launch) -> bool {
        self.turn.0 == launch.turn.0 && self.tool_id.as_deref() == Some(&launch.tool_id)
    }

    /// What the id of its span is made of, and those of what happened in it.
    pub fn source(&self) -> Cow<'_, str> {
        match self.round {
            ..=1 => self.agent_id.as_str().into(),
            round => format!("{}#{round}", self.agent_id).into(),
        }
    }
}

/// What a skill put out that ran in a context of its own: its calls are those of a subagent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkillOutput {
    pub text: String,
    /// The subagent that goes on in the background.
    pub agent_id: Option<String>,
}

/// A tool call that launched a subagent, or may have; or a prompt that did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// What the call's span has its id from, or [`Turn::launch_id`](super::Turn::launch_id) of a prompt.
    pub tool_id: String,
    /// The call's own id, or the same of a prompt.
    pub id: String,
    /// The model call that made it.
    pub message_id: Option<String>,
    /// The subagent, or the run of a workflow, once the call's result has named it.
    pub agent_id: Option<String>,
    /// Key and number of the turn.
    pub turn: (String, u32),
    /// The call has returned with what the subagent had to say, or never will.
    pub returned: bool,
    /// When the call was written.
    pub called: Option<Nanos>,
    /// It is a message that woke the subagent again.
    pub wakes: bool,
}

/// One model call.
#[derive(Debug)]
pub struct Generation {
    /// `message.id`, or the uuid of its first line.
    pub id: String,
    /// How many calls of the turn had the same id before.
    pub repeats: u32,
    /// The latest of these.
    pub(super) earlier: Option<usize>,
    /// Fingerprint of its first block.
    pub opening: Option<u64>,
    /// The model that answered, from the line that `usage` is from.
    pub model: String,
    /// `requestId`.
    pub request_id: Option<String>,
    /// When the request was sent, where the transcript says so.
    pub requested: Option<Nanos>,
    /// Time of the latest earlier line of the turn: the best guess of the request where nothing better is known.
    pub previous: Option<Nanos>,
    /// When the first block was complete.
    pub first: Option<Nanos>,
    /// When the last block was complete.
    pub last: Option<Nanos>,
    /// Why the model stopped.
    pub stop_reason: Option<String>,
    /// Token counts: those of the line with most output.
    pub usage: Option<Usage>,
    /// What other models used that were asked within it; from the same line.
    pub advice: Vec<Advice>,
    /// How it came about, beyond its tokens; from the same line.
    pub service: Service,
    /// Text blocks in file order.
    pub texts: Vec<String>,
    /// Thinking blocks in file order, empty ones included.
    pub thinking: Vec<String>,
    /// Tool calls in file order.
    pub tools: Vec<Tool>,
    /// Blocks of other kinds: what they are, and each as it is written.
    pub other: Vec<(String, String)>,
    /// Its span has been sent.
    pub sent: bool,
    /// It is another session's, which it was copied from.
    pub is_copy: bool,
    pub(super) trail: Arc<Trail>,
}

/// One tool call.
#[derive(Debug)]
pub struct Tool {
    /// `tool_use.id`.
    pub id: String,
    /// How many calls of the turn had the same id before.
    pub repeats: u32,
    /// The latest of these: generation and tool.
    pub(super) earlier: Option<(usize, usize)>,
    /// The tool's name.
    pub name: String,
    /// Arguments, JSON as written.
    pub input: String,
    /// The arguments, if it launches a subagent.
    pub order: Option<Order>,
    /// When the call was written.
    pub called: Option<Nanos>,
    /// How long it ran, in milliseconds, where a hook said so.
    pub took_ms: Option<u64>,
    /// The arguments it ran with, JSON as written, where a hook gave others than the model.
    pub rewritten: Option<String>,
    /// The API ran it, within the answer.
    pub on_server: bool,
    /// Its result and when that was written; `None` while it runs, and for ever if it never came back.
    pub result: Option<(ToolResult, Option<Nanos>)>,
    /// The index of the call of the turn that was given the result: the first to begin after it. Beyond all of them without
    /// a result, and where the API ran the tool within its call.
    pub given_to: usize,
    /// Its span has been sent.
    pub sent: bool,
}

/// What a subagent is launched with: the arguments of the tools `Agent` and, up to Claude Code 2.1.3, `Task`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Order {
    /// What it is to do.
    #[serde(default)]
    pub prompt: String,
    /// The same in a few words.
    #[serde(default)]
    pub description: Option<String>,
    /// What kind of agent it is.
    #[serde(default)]
    pub subagent_type: Option<String>,
}

/// An API error that Claude Code gave up on.
#[derive(Debug)]
pub struct Failure {
    /// As the user saw it.
    pub text: String,
    /// HTTP status, where there was an answer.
    pub status: Option<u64>,
    pub at: Option<Nanos>,
}

/// Something that happened within a turn and is neither call nor tool.
#[derive(Debug)]
pub struct Note {
    pub at: Option<Nanos>,
    pub what: Happening,
    /// How many model calls came before it.
    pub after: usize,
    /// It was sent; what was said in it is gone.
    pub sent: bool,
}

/// What a [`Note`] says.
#[derive(Debug)]
pub enum Happening {
    /// The user typed this while the model worked, and the running turn took it up.
    Queued(String, Vec<Media>),
    /// The conversation was compacted.
    Compacted {
        /// `manual` or `auto`.
        trigger: String,
        /// Tokens before and, where known, after.
        tokens: (Option<u64>, Option<u64>),
    },
    /// The model could not answer, and another took over.
    Fallback {
        /// The model that was asked for.
        from: String,
        /// The one that answered.
        to: String,
        trigger: String,
    },
    /// A Stop hook had something to say, and the turn went on.
    HookFeedback(String),
    /// A background task reported its end, and the running turn took it up.
    Notification(String),
    /// The model was given something that nobody typed.
    Aside { by: By, text: String },
    /// A request failed and was tried again.
    Retry {
        /// HTTP status.
        status: Option<u64>,
        attempt: Option<u64>,
    },
}

impl Tool {
    /// Nothing more comes of it.
    pub(super) fn has_returned(&self) -> bool {
        self.result.is_some() || self.on_server
    }
}

impl Generation {
    /// Its text blocks joined by a newline.
    pub fn text(&self) -> String {
        self.texts.join("\n")
    }
}
