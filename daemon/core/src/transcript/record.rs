//! One line → its records. Comes in: bytes. Goes out: [`Record`]s, and a reason for everything that is skipped.
//!
//! More than 90 % of the bytes of a Claude Code 2.1.329 transcript are bookkeeping (`api-request-shape`, `attachment`, …), so a
//! line is first judged by its opening bytes and parsed only if it can matter. Parsing is one typed pass that builds nothing
//! for fields nobody reads. Each line stands alone, and so does each field of it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::media::Media;

mod answer;
mod blocks;
mod fields;
mod initiator;
mod line;
mod parse;
mod sniff;
mod typed;
mod user;

use blocks::put_media;
pub use fields::unknown_fields;
pub use initiator::launched;
pub use line::read;
pub use parse::{cwd, first_prompt, first_uuid, kind, nanos, parse, session_id};
use typed::tag;

/// Unix nanoseconds: the common unit for transcripts (milliseconds) and OTLP (nanoseconds).
pub type Nanos = u64;

#[derive(Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "there is one at a time")]
pub enum Record {
    /// A user line that starts a turn, or may turn out to.
    Prompt(Prompt),
    ToolResults {
        at: Option<Nanos>,
        /// One per `tool_result` block.
        results: Vec<ToolResult>,
    },
    /// One line of a model's answer; an answer has a line for every content block.
    Assistant(Box<Assistant>),
    /// Claude Code's error message in place of an answer, after its last retry.
    ApiError {
        at: Option<Nanos>,
        /// "API Error: …", as the user saw it.
        text: String,
        /// HTTP status, if there was an answer.
        status: Option<u64>,
    },
    /// The user pressed Esc; the turn ends without a Stop.
    Interrupted { at: Option<Nanos> },
    /// Output of a command that ran inside Claude Code: the preceding command was not a prompt.
    LocalOutput,
    /// The same in a line of its own kind (2.1.329). A skill with its own context that the user runs directly answers like
    /// this; its prompt is as it was typed.
    CommandOutput {
        at: Option<Nanos>,
        /// The `uuid` of the line it follows.
        parent: Option<String>,
        text: String,
        /// The subagent that continues in the background.
        agent_id: Option<String>,
    },
    /// A request was sent to the model; an answer line refers to it by `id`.
    Request {
        /// `api-request.id`, which is `requestRef` of the answer.
        id: String,
        at: Nanos,
    },
    /// A message that the user typed while the model worked; it becomes part of the running turn.
    Queued {
        /// When it joined the turn.
        at: Option<Nanos>,
        text: String,
        media: Vec<Media>,
    },
    Compacted {
        at: Option<Nanos>,
        /// `manual` or `auto`.
        trigger: String,
        /// Tokens before and, if known, after.
        tokens: (Option<u64>, Option<u64>),
    },
    /// The model was overloaded or unsuitable, and another one took over.
    Fallback {
        at: Option<Nanos>,
        /// The requested model.
        from: String,
        /// The model that answered.
        to: String,
        trigger: String,
    },
    /// A Stop hook returned a message, and the turn continued.
    HookFeedback { at: Option<Nanos>, text: String },
    /// Model input that is not a prompt, or that nobody typed.
    Aside(Aside),
    /// A hook changed the arguments of a tool call; the line of the call still has the model's.
    Rewritten {
        tool_use_id: String,
        /// The arguments it runs with, JSON as written.
        input: String,
    },
    /// A line that only links others in the chain, or precedes a record that does not say what it follows.
    Link {
        /// The line's `uuid`.
        uuid: Option<String>,
        /// `uuid` of the line it follows.
        parent: Option<String>,
    },
    /// The session's title from now on.
    Title(String),
    /// The file belongs to a forked subagent: the lines before its prompt are those of the conversation it was forked from
    /// (2.1.332).
    Inherits,
    /// A line of a subagent.
    Side(Box<Side>),
    /// A failed API request that was retried.
    Retry {
        at: Option<Nanos>,
        /// HTTP status.
        status: Option<u64>,
        /// From 1.
        attempt: Option<u64>,
    },
}

impl Record {
    /// How many outputs in it contain only the beginning of a file.
    pub fn spilled(&self) -> usize {
        match self {
            Self::ToolResults { results, .. } => results.iter().filter(|result| result.spilled.is_some()).count(),
            Self::Side(side) => side.record.spilled(),
            _ => 0,
        }
    }
}

/// Model input that is not a prompt, or that nobody typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aside {
    pub at: Option<Nanos>,
    pub by: By,
    pub text: String,
    /// It belongs to the next turn.
    pub ahead: bool,
}

/// Who added model input that is not a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// Claude Code itself.
    Harness,
    /// A hook, by name: `UserPromptSubmit`, `PostToolUse:Bash`, …
    Hook(String),
    /// A program that wanted no answer (`shouldQuery: false`).
    Silent,
}

/// A line of a subagent. Claude Code 1.x wrote these into the session's own file, later versions into separate files.
#[derive(Debug, PartialEq)]
pub struct Side {
    /// The line's `uuid`.
    pub uuid: Option<String>,
    /// `uuid` of the preceding line of its conversation; `None` on the first.
    pub parent: Option<String>,
    /// The subagent, if the line names it.
    pub agent_id: Option<String>,
    pub record: Record,
}

/// Why a line, or part of it, yields no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Skip {
    /// A known kind of line that is not part of the conversation.
    Bookkeeping,
    NotJson,
    /// JSON, but a field has a type that no known version writes.
    UnexpectedShape,
    /// A `type` that no examined version of Claude Code writes.
    UnknownKind,
    /// Longer than the limit.
    TooLong,
    /// One field with an invalid value; the rest of the line counts. Holds the field's name, prefixed with `field.`.
    Field(&'static str),
}

impl Skip {
    /// The name under which `status` counts it; `None` if it is not counted.
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
    /// The line it follows. If an earlier prompt followed the same line, the user went back to before that prompt.
    pub parent: Option<String>,
    /// The number of its turn by Claude Code's own count, from 1 (2.1.329): after going back, the count continues from there.
    pub position: Option<u32>,
    pub at: Option<Nanos>,
    /// How long it waited after it was typed because Claude Code was busy, in milliseconds (2.1.332).
    pub queued_ms: Option<u64>,
    /// What the user typed; a slash command in the form it was typed.
    pub text: String,
    /// Text around it for the model that nobody typed: open files in the editor, reminders. Empty if there is none.
    pub context: String,
    pub media: Vec<Media>,
    pub kind: PromptKind,
    /// `turnOrigin`, if neither a person nor a program on a person's behalf began the turn: `scheduled`, `peer`, …; for a
    /// subagent, who woke it (2.1.332).
    pub initiator: Option<String>,
    /// `permissionMode` at that time.
    pub permission_mode: Option<String>,
    /// The session that made the plan which this turn carries out.
    pub planned_in: Option<String>,
    /// `promptId`, which a subagent's lines share with the turn that launched it.
    pub prompt_id: Option<String>,
    pub session: SessionFacts,
}

/// Claude Code 2.0 and 2.1.3 start subagents with this prompt in each session; no turn asked for them.
const WARMUP: &str = "Warmup";

impl Prompt {
    /// True for the prompt of such a subagent.
    pub fn is_warmup(&self) -> bool {
        self.text.trim() == WARMUP
    }

    /// True if the real prompt is unknown.
    pub fn stands_in(&self) -> bool {
        matches!(self.kind, PromptKind::Blank | PromptKind::StandIn)
    }

    /// The subagent whose end this task notification reports.
    pub fn ended_agent(&self) -> Option<&str> {
        (self.kind == PromptKind::TaskNotification).then(|| tag(&self.text, "task-id")).flatten()
    }
}

/// How a prompt came about, and so how certain it is that it starts a turn.
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
    /// The task of a forked subagent.
    Fork,
    /// Unreadable or empty: a turn only if the model answers.
    Blank,
    /// Not a prompt but the best substitute for an answer that has none: a text of Claude Code's own, or the summary of a
    /// compaction.
    StandIn,
}

/// What a line's envelope says about its session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionFacts {
    pub version: Option<String>,
    pub cwd: Option<String>,
    pub git_branch: Option<String>,
    /// Claude Code's name for the plan or session.
    pub slug: Option<String>,
    /// The session this one was forked from.
    pub forked_from: Option<String>,
    /// The session's title.
    pub title: Option<String>,
    /// The session's team, named after the session that leads it (2.1.332).
    pub team: Option<String>,
    /// The session's name in its team.
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
    /// `message.id`, which all lines of an answer share.
    pub message_id: Option<String>,
    /// `unknown` if the line does not say.
    pub model: String,
    pub request_id: Option<String>,
    /// `requestRef`: the `id` of the `api-request` line.
    pub request_ref: Option<String>,
    /// `apiBlockIndex`: which block of the answer the line holds (2.1.329).
    pub block_index: Option<u64>,
    pub stop_reason: Option<String>,
    /// `usage`, which every line repeats for the whole answer.
    pub usage: Option<Usage>,
    /// Usage of other models that were asked within the answer; not part of `usage`. Every line repeats it.
    pub advice: Vec<Advice>,
    pub service: Service,
    /// Usually one.
    pub blocks: Vec<Block>,
    /// Claude Code's name for the plan or session.
    pub slug: Option<String>,
    /// The session it was copied from.
    pub forked_from: Option<String>,
}

/// How an answer came about, beyond its tokens. Usual values are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// `usage.service_tier`, unless it is `standard`.
    pub tier: Option<String>,
    /// `usage.speed`, unless it is `standard`; `fast` has a price of its own.
    pub speed: Option<String>,
    /// `usage.server_tool_use`: web searches and fetches that the API made.
    pub web: (u64, u64),
    /// `requestedModel`, if another one answered.
    pub requested_model: Option<String>,
    /// `streamCutCause`, or `aborted` if the user interrupted it.
    pub cut: Option<String>,
    /// `attributionSkill`: the skill during which the model was called (2.1.329).
    pub skill: Option<String>,
    /// `attributionPlugin`: the plugin that the skill or subagent is from.
    pub plugin: Option<String>,
    /// `attributionMcpServer`: the MCP server whose tool the answer is about (2.1.329).
    pub mcp_server: Option<String>,
}

/// A content block of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Block {
    /// Text the user sees.
    Text(String),
    /// Thinking; empty if the API withheld it.
    Thinking(String),
    ToolUse {
        /// `tool_use.id`.
        id: String,
        name: String,
        /// Its arguments, JSON as written.
        input: String,
    },
    /// A tool that runs in the API: web search, code execution, MCP, an advisor.
    ServerTool {
        id: String,
        name: String,
        /// Its arguments, JSON as written.
        input: String,
    },
    /// The result of such a tool.
    ServerResult(ToolResult),
    Other {
        kind: String,
        /// The block as written; empty if it is too long or has no content.
        json: String,
    },
}

/// Usage of another model that was asked within an answer (an `advisor`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// `unknown` if the line does not say.
    pub model: String,
    pub usage: Usage,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ToolResult {
    pub tool_use_id: String,
    /// Text, or the blocks as JSON if they are not all text.
    pub output: String,
    /// Images and documents among the blocks; an empty string in `output` replaces the bytes of each.
    pub media: Vec<Media>,
    /// The file with the complete output, if `output` is only its beginning.
    pub spilled: Option<PathBuf>,
    /// The tool failed or was refused.
    pub is_error: bool,
    /// The subagent the call launched.
    pub agent: Option<Launched>,
    /// `toolDenialKind`: who denied it.
    pub denied: Option<String>,
}

/// The content of the file of an output that was too long for the transcript.
#[derive(Clone, Debug, PartialEq)]
pub enum Spilled {
    /// Cut if it is long.
    Text(String),
    Media(Media),
}

impl ToolResult {
    /// Replaces the beginning of the output by the content of its file.
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

/// What a call's result says about the subagent it launched, or about the run of a workflow with its own subagents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launched {
    /// The subagent's id, or the run's.
    pub agent_id: String,
    /// It continues in the background: the result only says that it was started.
    pub is_async: bool,
    /// It had ended and was woken by a message.
    pub wakes: bool,
}

/// Token counts of one answer. Anthropic's `input` excludes cache reads and writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// The larger value of each count: a count that a line lacks is 0.
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

    /// Cache writes of unknown lifetime.
    pub fn cache_creation_rest(&self) -> u64 {
        self.cache_creation.saturating_sub(self.cache_creation_5m).saturating_sub(self.cache_creation_1h)
    }
}

#[cfg(test)]
mod tests;
