//! Unknown fields of a conversation line.
//!
//! Checked if the version of Claude Code is newer than the recorded ones: a new field may hold something that a trace should
//! have. `status` names it; it is never an error.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::parse::shown;

/// Fields of user and assistant lines in Claude Code 1.0.59 … 2.1.332.
pub(super) const LINE: [&str; 85] = [
    "advisorModel",
    "agentId",
    "agentName",
    "apiBlockIndex",
    "apiErrorStatus",
    "apiErrorType",
    "attributionAgent",
    "attributionMcpServer",
    "attributionMcpTool",
    "attributionPlugin",
    "attributionSkill",
    "cwd",
    "effort",
    "entrypoint",
    "error",
    "failedResponseHadNoToolCall",
    "forkedFrom",
    "gitBranch",
    "hookText",
    "hookTextLead",
    "imagePasteIds",
    "interruptedMessageId",
    "isAbortedMidStream",
    "isApiErrorMessage",
    "isCompactSummary",
    "isMeta",
    "isSidechain",
    "isVisibleInTranscriptOnly",
    "madeBy",
    "mcpCallNotReadOnly",
    "mcpMeta",
    "message",
    "origin",
    "ownNote",
    "parentUuid",
    "perTurnEffort",
    "permissionDecision",
    "permissionMode",
    "planContent",
    "promptCacheRequested",
    "promptId",
    "promptSource",
    "queuePriority",
    "queueSkipAttachments",
    "queueSkipSlashCommands",
    "queueTranscriptOnly",
    "refusalRetry",
    "refusedMessageId",
    "repeatsCompactSummary",
    "requestId",
    "requestRef",
    "requestSessionId",
    "requestedModel",
    "rowSource",
    "sandboxed",
    "scheduledFireId",
    "scheduledTaskId",
    "sentAtMs",
    "serverClassifierRequest",
    "sessionId",
    "sessionKind",
    "session_id",
    "slug",
    "sourceToolAssistantUUID",
    "sourceToolUseID",
    "streamCutCause",
    "summarizeMetadata",
    "teamName",
    "thinkingDisplay",
    "thinkingDurationMs",
    "timestamp",
    "toolDenialBeforeRun",
    "toolDenialKind",
    "toolEndsTurn",
    "toolInputStreamMs",
    "toolUseResult",
    "turnAttributionKey",
    "turnCompanion",
    "turnOrigin",
    "turnPosition",
    "type",
    "userType",
    "uuid",
    "version",
    "wakeupSource",
];

/// Fields of `message`.
pub(super) const MESSAGE: [&str; 12] = [
    "container",
    "content",
    "context_management",
    "diagnostics",
    "id",
    "model",
    "role",
    "stop_details",
    "stop_reason",
    "stop_sequence",
    "type",
    "usage",
];

/// Fields of `message.usage`.
pub(super) const USAGE: [&str; 12] = [
    "cache_creation",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "fallback_credit",
    "inference_geo",
    "input_tokens",
    "iterations",
    "output_tokens",
    "output_tokens_details",
    "server_tool_use",
    "service_tier",
    "speed",
];

type Object<'a> = BTreeMap<String, &'a RawValue>;

/// The paths of unknown fields: `user.newField`, `assistant.message.usage.newTokens`. Empty if the line is neither the user's
/// nor the model's.
pub fn unknown_fields(line: &[u8]) -> Vec<String> {
    let mut unknown = Vec::new();
    let Ok(line) = serde_json::from_slice::<Object<'_>>(line) else { return unknown };
    let kind = match line.get("type").map(|kind| kind.get()) {
        Some("\"user\"") => "user",
        Some("\"assistant\"") => "assistant",
        _ => return unknown,
    };
    let mut look = |at: &str, object: &Object<'_>, known: &[&str]| {
        let strange = object.keys().filter(|name| known.binary_search(&name.as_str()).is_err());
        unknown.extend(strange.map(|name| shown(&format!("{at}.{name}"))));
    };
    look(kind, &line, &LINE);
    let message = within(&line, "message");
    look(&format!("{kind}.message"), &message, &MESSAGE);
    look(&format!("{kind}.message.usage"), &within(&message, "usage"), &USAGE);
    unknown
}

fn within<'a>(object: &Object<'a>, name: &str) -> Object<'a> {
    object.get(name).and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
}
