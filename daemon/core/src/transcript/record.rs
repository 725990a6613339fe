//! One line → what it says about the conversation.
//!
//! More than 90 % of the bytes of a Claude Code 2.1.329 transcript are bookkeeping (`api-request-shape`, `attachment`, …), so
//! a line is first judged by its opening bytes and parsed only if it can matter. Parsing is one typed pass that builds
//! nothing for fields nobody reads. Each line stands alone, and so does each field of it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::media::Media;

mod answer;
mod begun;
mod blocks;
mod fields;
mod parse;
mod sniff;
mod user;
mod whole;
mod words;

pub use begun::launched;
use blocks::put_media;
pub use fields::unknown_fields;
pub use parse::{cwd, first_prompt, first_uuid, kind, nanos, parse, session_id};
pub use whole::read;
use words::tag;

/// Nanoseconds since the Unix epoch, as transcripts (milliseconds) and OTLP (nanoseconds) have them in common.
pub type Nanos = u64;

/// What one line says.
#[derive(Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "there is one at a time")]
pub enum Record {
    /// A user line that starts a turn, or may turn out to.
    Prompt(Prompt),
    /// Results of tool calls.
    ToolResults {
        /// When they were written.
        at: Option<Nanos>,
        /// One per `tool_result` block.
        results: Vec<ToolResult>,
    },
    /// One line of a model's answer; an answer has a line for every content block.
    Assistant(Box<Assistant>),
    /// Claude Code's own words in place of an answer that failed for good.
    ApiError {
        at: Option<Nanos>,
        /// "API Error: …", as the user saw it.
        text: String,
        /// HTTP status, where there was an answer.
        status: Option<u64>,
    },
    /// The user pressed Esc; the turn ends without a Stop.
    Interrupted { at: Option<Nanos> },
    /// Output of a command that ran inside Claude Code: the command before it was no prompt.
    LocalOutput,
    /// The same in a line of Claude Code's own (2.1.329). A skill with a context of its own, run directly, answers so: its prompt stands
    /// as it was typed.
    CommandOutput {
        at: Option<Nanos>,
        /// The line it follows.
        parent: Option<String>,
        /// What was put out.
        text: String,
        /// The subagent that goes on in the background.
        agent_id: Option<String>,
    },
    /// A request went to the model; an answer line refers to it by `id`.
    Request {
        /// `api-request.id`, which is `requestRef` of the answer.
        id: String,
        /// When it was sent.
        at: Nanos,
    },
    /// Text the user typed while the model worked, taken up within the running turn.
    Queued {
        /// When it was taken up.
        at: Option<Nanos>,
        text: String,
        /// Images and documents in it.
        media: Vec<Media>,
    },
    /// The conversation was compacted.
    Compacted {
        at: Option<Nanos>,
        /// `manual` or `auto`.
        trigger: String,
        /// Tokens before and, where known, after.
        tokens: (Option<u64>, Option<u64>),
    },
    /// The model was overloaded or unfit, and another took over.
    Fallback {
        at: Option<Nanos>,
        /// The model that was asked for.
        from: String,
        /// The model that answered.
        to: String,
        trigger: String,
    },
    /// A Stop hook had something to say, and the turn went on.
    HookFeedback {
        at: Option<Nanos>,
        /// What it said.
        text: String,
    },
    /// Something the model was given that is no prompt, or that nobody typed.
    Aside(Aside),
    /// A hook has a tool run with other arguments than the model gave; the line of the call does not say so.
    Rewritten {
        tool_use_id: String,
        /// The arguments it runs with, JSON as written.
        input: String,
    },
    /// A line that only stands in the chain between others, or precedes a record that does not say where it stands.
    Link {
        /// The line's `uuid`.
        uuid: Option<String>,
        /// `uuid` of the line it follows.
        parent: Option<String>,
    },
    /// What the session is called from now on.
    Title(String),
    /// The file is that of a forked subagent: up to its prompt, lines are those of the conversation it was forked from (2.1.332).
    Inherits,
    /// A line of a subagent.
    Side(Box<Side>),
    /// An API request failed and was tried again.
    Retry {
        at: Option<Nanos>,
        /// HTTP status.
        status: Option<u64>,
        /// Which try this was, from 1.
        attempt: Option<u64>,
    },
}

impl Record {
    /// How many outputs in it are no more than the beginning of a file.
    pub fn spilled(&self) -> usize {
        match self {
            Self::ToolResults { results, .. } => results.iter().filter(|result| result.spilled.is_some()).count(),
            Self::Side(side) => side.record.spilled(),
            _ => 0,
        }
    }
}

/// Something the model was given that is no prompt, or that nobody typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aside {
    pub at: Option<Nanos>,
    /// Who gave it.
    pub by: By,
    /// What it says.
    pub text: String,
    /// It belongs to the turn that follows.
    pub ahead: bool,
}

/// Who gave the model something that is no prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// Claude Code itself.
    Harness,
    /// A hook, by name: `UserPromptSubmit`, `PostToolUse:Bash`, …
    Hook(String),
    /// A program that wanted no answer to it (`shouldQuery: false`).
    Silent,
}

/// A line of a subagent. Claude Code 1.x wrote these into the session's own file, later versions into files of their own.
#[derive(Debug, PartialEq)]
pub struct Side {
    /// The line's `uuid`.
    pub uuid: Option<String>,
    /// `uuid` of the line before it in its conversation; none on the first.
    pub parent: Option<String>,
    /// The subagent, where the line names it.
    pub agent_id: Option<String>,
    /// What the line says.
    pub record: Record,
}

/// Why a line is not a record. Only reasons that a person might want to know have a name of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Skip {
    /// Known, and says nothing about the conversation.
    Bookkeeping,
    NotJson,
    /// JSON, but a field has a type that no known version writes.
    UnexpectedShape,
    /// A `type` that is not known to any version of Claude Code looked at.
    UnknownKind,
    /// Longer than the limit.
    TooLong,
    /// No line, but one field of a record: it held what it cannot. Its name, with `field.` before it.
    Field(&'static str),
}

impl Skip {
    /// The name under which `status` counts it; `None` for what is not worth counting.
    pub fn reason(self) -> Option<&'static str> {
        match self {
            Self::Bookkeeping => None,
            Self::NotJson => Some("not_json"),
            Self::UnexpectedShape => Some("unexpected_shape"),
            Self::UnknownKind => Some("unknown_kind"),
            Self::TooLong => Some("too_long"),
            Self::Field(name) => Some(name),
        }
    }
}

/// A user line that starts a turn, or may turn out to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prompt {
    /// The line's `uuid`; the turn's key.
    pub uuid: Option<String>,
    /// The line it follows; one that another prompt followed already if the user went back to before that.
    pub parent: Option<String>,
    /// Which turn of its conversation it begins by Claude Code's own count, from 1 (2.1.329): a user who goes back counts from there.
    pub position: Option<u32>,
    /// When it was written.
    pub at: Option<Nanos>,
    /// What the user said; a slash command in the form it was typed.
    pub text: String,
    /// What stood around it for the model and nobody typed: what is open in the editor, reminders. Empty if nothing.
    pub context: String,
    /// Images and documents that came with it.
    pub media: Vec<Media>,
    /// How it came about.
    pub kind: PromptKind,
    /// `turnOrigin` where no human and no program that speaks for one began it: `scheduled`, `peer`, …; for a subagent who woke it (2.1.332).
    pub begun_by: Option<String>,
    /// `permissionMode` in which it was given.
    pub permission_mode: Option<String>,
    /// The session in which the plan was made that it carries out.
    pub planned_in: Option<String>,
    /// `promptId`, which a subagent's lines share with the turn that launched it.
    pub prompt_id: Option<String>,
    /// What the line says about the session.
    pub session: SessionFacts,
}

/// Claude Code 2.0 and 2.1.3 start subagents of this prompt with each session; no turn asked for them.
const WARMUP: &str = "Warmup";

impl Prompt {
    /// True if it is that of a subagent that nobody asked for.
    pub fn is_warmup(&self) -> bool {
        self.text.trim() == WARMUP
    }

    /// True if nobody knows what was asked.
    pub fn stands_in(&self) -> bool {
        matches!(self.kind, PromptKind::Blank | PromptKind::StandIn)
    }

    /// The subagent whose end a task notification reports.
    pub fn ended_agent(&self) -> Option<&str> {
        (self.kind == PromptKind::TaskNotification).then(|| tag(&self.text, "task-id")).flatten()
    }
}

/// How a prompt came about, and so how sure it is that it starts a turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PromptKind {
    /// Typed, piped in, or continued by Claude Code itself.
    #[default]
    Plain,
    /// A slash command or skill that expands to a prompt.
    Command,
    /// A command that usually runs inside Claude Code (`/cost`, `/clear`), or `!shell`: a turn only if the model answers.
    Local,
    /// A background task reports its end.
    TaskNotification,
    /// What a forked subagent is to do.
    Fork,
    /// What was asked cannot be read, or was nothing: a turn only if the model answers.
    Blank,
    /// No prompt, but the best there is where an answer has none: words of Claude Code's own, or the summary of a compaction.
    StandIn,
}

/// What a line's envelope says about its session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionFacts {
    /// Claude Code's version.
    pub version: Option<String>,
    pub cwd: Option<String>,
    pub git_branch: Option<String>,
    /// Claude Code's name for the plan or session.
    pub slug: Option<String>,
    /// The session this one was forked from.
    pub forked_from: Option<String>,
    /// What the session is called.
    pub title: Option<String>,
    /// The team that the session is part of, named after the session that leads it (2.1.332).
    pub team: Option<String>,
    /// What the session is called in its team.
    pub teammate: Option<String>,
    /// The session that leads the team, if its transcript is found.
    pub lead: Option<String>,
}

/// One line of a model's answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Assistant {
    /// The line's `uuid`.
    pub uuid: Option<String>,
    /// `uuid` of the line it follows.
    pub parent: Option<String>,
    /// When its block was complete.
    pub at: Option<Nanos>,
    /// `message.id`: what the lines of one answer have in common.
    pub message_id: Option<String>,
    /// The model, `unknown` if the line does not say.
    pub model: String,
    /// `requestId`.
    pub request_id: Option<String>,
    /// `requestRef`: the `id` of the `api-request` line.
    pub request_ref: Option<String>,
    /// `apiBlockIndex`: which block of the answer the line holds (2.1.329).
    pub block_index: Option<u64>,
    /// `stop_reason`.
    pub stop_reason: Option<String>,
    /// `usage`, which every line repeats for the whole answer.
    pub usage: Option<Usage>,
    /// What other models used that were asked within the answer; not part of `usage`. Every line repeats it.
    pub advice: Vec<Advice>,
    /// How the answer came about, beyond its tokens.
    pub service: Service,
    /// Its content blocks, usually one.
    pub blocks: Vec<Block>,
    /// Claude Code's name for the plan or session.
    pub slug: Option<String>,
    /// The session it was copied from.
    pub forked_from: Option<String>,
}

/// How an answer came about, beyond its tokens. What is usual is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// `usage.service_tier`, unless it is `standard`.
    pub tier: Option<String>,
    /// `usage.speed`, unless it is `standard`; `fast` has a price of its own.
    pub speed: Option<String>,
    /// `usage.server_tool_use`: web searches and fetches the model made by itself.
    pub web: (u64, u64),
    /// `requestedModel`, if another one answered.
    pub requested_model: Option<String>,
    /// `streamCutCause`, or `aborted` if the user cut it short.
    pub cut: Option<String>,
    /// `attributionSkill`: the skill during which the model was called (2.1.329).
    pub skill: Option<String>,
    /// `attributionMcpServer`: the MCP server whose tool the answer is about (2.1.329).
    pub mcp_server: Option<String>,
}

/// A content block of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Block {
    /// Text the user sees.
    Text(String),
    /// Thinking; empty where the model kept it to itself.
    Thinking(String),
    /// A call of a tool; `input` is JSON as written.
    ToolUse {
        /// `tool_use.id`.
        id: String,
        /// The tool's name.
        name: String,
        /// Its arguments, JSON as written.
        input: String,
    },
    /// A call of a tool that the API runs: web search, code execution, MCP, an advisor.
    ServerTool {
        id: String,
        /// The tool's name.
        name: String,
        /// Its arguments, JSON as written.
        input: String,
    },
    /// What a tool put out that the API ran.
    ServerResult(ToolResult),
    Other {
        kind: String,
        /// The block as written; empty if that is too long or says nothing.
        json: String,
    },
}

/// What another model used that was asked within an answer (an `advisor`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// The model; `unknown` if the line does not say.
    pub model: String,
    /// What it used.
    pub usage: Usage,
}

/// Result of one tool call.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ToolResult {
    /// `tool_use_id`.
    pub tool_use_id: String,
    /// Text, or the blocks as JSON where they are not all text.
    pub output: String,
    /// Images and documents among the blocks; in `output` an empty string stands for the bytes of each.
    pub media: Vec<Media>,
    /// The file that holds all of it, where `output` is no more than its beginning.
    pub spilled: Option<PathBuf>,
    /// The tool failed or was refused.
    pub is_error: bool,
    /// The subagent the call launched.
    pub agent: Option<Launched>,
    /// `toolDenialKind`: who did not let it run.
    pub denied: Option<String>,
}

/// What is in the file of an output too long for the transcript.
#[derive(Clone, Debug, PartialEq)]
pub enum Spilled {
    /// Text, cut where it is long.
    Text(String),
    /// An image or a document.
    Media(Media),
}

impl ToolResult {
    /// Puts what was found in the file in the place of its beginning.
    pub fn take_spilled(&mut self, spilled: Spilled) {
        match spilled {
            Spilled::Text(text) => self.output = text,
            Spilled::Media(media) => {
                let kind = if media.kind.starts_with("image/") { "image" } else { "document" };
                self.output = String::from("[");
                put_media(&mut self.output, &mut self.media, kind, media);
                self.output.push(']');
            }
        }
    }
}

/// What the result of a call says about the subagent it launched, or about the run of a workflow with subagents of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launched {
    /// Its id, or that of the run.
    pub agent_id: String,
    /// It goes on in the background: the result says no more than that it was started.
    pub is_async: bool,
    /// It had ended, and was woken by a message.
    pub wakes: bool,
}

/// Token counts of one answer. Anthropic's `input` excludes what came from or went to the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// `input_tokens`.
    pub input: u64,
    /// `output_tokens`.
    pub output: u64,
    /// `cache_read_input_tokens`.
    pub cache_read: u64,
    /// `cache_creation_input_tokens`.
    pub cache_creation: u64,
    /// `cache_creation.ephemeral_5m_input_tokens`.
    pub cache_creation_5m: u64,
    /// `cache_creation.ephemeral_1h_input_tokens`.
    pub cache_creation_1h: u64,
}

impl Usage {
    /// The larger of each count: one that a line does not say is 0.
    #[must_use]
    pub fn or_larger(self, other: Self) -> Self {
        Self {
            input: self.input.max(other.input),
            output: self.output.max(other.output),
            cache_read: self.cache_read.max(other.cache_read),
            cache_creation: self.cache_creation.max(other.cache_creation),
            cache_creation_5m: self.cache_creation_5m.max(other.cache_creation_5m),
            cache_creation_1h: self.cache_creation_1h.max(other.cache_creation_1h),
        }
    }

    /// Cache writes without a breakdown by lifetime.
    pub fn cache_creation_rest(&self) -> u64 {
        self.cache_creation.saturating_sub(self.cache_creation_5m).saturating_sub(self.cache_creation_1h)
    }
}

#[cfg(test)]
mod tests;
