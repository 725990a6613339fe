//! A parsed line → its records, by type.

use serde::Deserialize;

use super::{Aside, By, Nanos, Record, Side, Skip, blocks, launched, typed::tag};
use crate::transcript::wire::{Content, Raw, Stamp, Text, Wire, WireAttachment, WireError, WireHook, read};

/// Reads the first record of a line.
///
/// # Errors
/// Why there is none.
pub fn parse(line: &[u8]) -> Result<Record, Skip> {
    let mut first = None;
    super::read(line, |_, found| {
        // Skipped fields and mere links do not count here.
        let better = matches!((&first, &found), (None, _) | (Some(Err(_) | Ok(Record::Link { .. })), Ok(_)));
        if better && !matches!(found, Err(Skip::Field(_))) {
            first = Some(found);
        }
    });
    match first {
        None | Some(Ok(Record::Link { .. })) => Err(Skip::Bookkeeping),
        Some(found) => found,
    }
}

pub fn session_id(line: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Head<'a> {
        #[serde(rename = "sessionId", borrow, default)]
        session_id: Option<Text<'a>>,
    }
    serde_json::from_slice::<Head>(line).ok()?.session_id.map(Text::into_owned)
}

/// `type` and `version` of a line of unknown kind, shortened for display.
pub fn kind(line: &[u8]) -> (String, Option<String>) {
    #[derive(Deserialize, Default)]
    struct Head<'a> {
        #[serde(rename = "type", borrow, default)]
        kind: Option<Text<'a>>,
        #[serde(borrow, default)]
        version: Option<Text<'a>>,
    }
    let head: Head<'_> = serde_json::from_slice(line).unwrap_or_default();
    (head.kind.map(|kind| shown(&kind.0)).unwrap_or_default(), head.version.map(|version| shown(&version.0)))
}

/// A name that others chose, shortened for display.
pub(super) fn shown(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_graphic()).take(64).collect()
}

/// The first `uuid` in the beginning of a transcript; a copy of it begins with the same.
pub fn first_uuid(head: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Line {
        uuid: String,
    }
    head.split(|byte| *byte == b'\n').find_map(|line| Some(serde_json::from_slice::<Line>(line).ok()?.uuid))
}

/// What was asked first, in the beginning of a transcript.
pub fn first_prompt(head: &[u8]) -> Option<String> {
    let prompts = head.split(|byte| *byte == b'\n').filter_map(|line| match parse(line) {
        Ok(Record::Prompt(prompt)) if !prompt.stands_in() && !prompt.is_warmup() => Some(prompt.text),
        _ => None,
    });
    prompts.map(|text| text.trim().to_owned()).find(|text| !text.is_empty())
}

/// The first `cwd` in the beginning of a transcript.
pub fn cwd(head: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Line<'a> {
        #[serde(borrow, default)]
        cwd: Option<Text<'a>>,
    }
    let lines = head.split(|byte| *byte == b'\n');
    let mut found = lines.filter_map(|line| serde_json::from_slice::<Line>(line).ok()?.cwd.map(Text::into_owned));
    found.find(|cwd| !cwd.is_empty())
}

/// `type`s that are not part of the conversation, in Claude Code 1.0.59 … 2.1.332.
pub(super) const BOOKKEEPING: [&[u8]; 16] = [
    b"agent-name",
    b"agent-setting",
    b"api-request-blob",
    b"api-request-shape",
    b"atis-latch",
    b"cost-state",
    b"file-history-delta",
    b"file-history-snapshot",
    b"last-prompt",
    b"mode",
    b"permission-mode",
    b"progress",
    b"queue-operation",
    b"relocated",
    b"tools-used",
    b"worktree-state",
];

/// Receives records and skip reasons.
pub(super) type Each<'e> = dyn FnMut(Result<Record, Skip>) + 'e;

/// Calls `each` with the records of a line; `text` is the line itself.
pub(super) fn records(mut wire: Box<Wire<'_>>, text: &[u8], each: &mut Each<'_>) {
    let odd = std::mem::take(&mut wire.odd);
    let mut any = false;
    if wire.is_sidechain.map_or(wire.agent_id.is_some(), |flag| flag.0) {
        let owned = |text: &Option<Text<'_>>| text.as_ref().map(|text| text.0.to_string());
        let (uuid, parent, agent_id) = (owned(&wire.uuid), parent(&wire), owned(&wire.agent_id));
        conversation(wire, text, &mut |found| {
            any |= found.is_ok();
            each(found.map(|record| {
                let (uuid, parent, agent_id) = (uuid.clone(), parent.clone(), agent_id.clone());
                Record::Side(Box::new(Side { uuid, parent, agent_id, record }))
            }));
        });
    } else {
        conversation(wire, text, &mut |found| {
            any |= found.is_ok();
            each(found);
        });
    }
    // Invalid fields of a line that is skipped anyway are not counted.
    odd.into_iter().filter(|_| any).for_each(|name| each(Err(Skip::Field(name))));
}

fn conversation(mut wire: Box<Wire<'_>>, text: &[u8], each: &mut Each<'_>) {
    let mut message = wire.message.take();
    let role = message.as_mut().and_then(|message| message.role.take());
    let kind = wire.kind.take().or(role).map(|kind| kind.0);
    // A line without a type may be recognised by its fields.
    let kind = kind.as_deref().unwrap_or_else(|| match &message {
        Some(message) if message.usage.is_some() || message.model.is_some() => "assistant",
        _ if wire.attachment.is_some() => "attachment",
        _ if wire.subtype.is_some() => "system",
        _ if wire.tool_use_result.is_some() || wire.prompt_id.is_some() => "user",
        _ => "",
    });
    let stamp = wire.timestamp.take().or_else(|| message.as_mut().and_then(|m| m.timestamp.take()));
    let at = stamp.as_ref().and_then(moment);
    if stamp.is_some() && at.is_none() && matches!(kind, "user" | "assistant") {
        each(Err(Skip::Field("field.timestamp")));
    }
    match kind {
        "user" => {
            let content = message.and_then(|m| m.content).or_else(|| wire.content.take());
            super::user::user(wire, at, content, each);
        }
        "assistant" => each(super::answer::answer(wire, at, message, text)),
        "attachment" => {
            link(&wire, each);
            each(attachment(wire.attachment, at));
        }
        "system" => {
            link(&wire, each);
            let content = message.and_then(|m| m.content).or_else(|| wire.content.take());
            each(system(wire, at, content));
        }
        "api-request" => each(Err(Skip::Bookkeeping)),
        "fork-context-ref" => each(Ok(Record::Inherits)),
        "custom-title" | "ai-title" | "summary" => {
            let title = wire.custom_title.or(wire.title).or(wire.summary).map(Text::into_owned);
            each(title.filter(|title| !title.trim().is_empty()).map(Record::Title).ok_or(Skip::Bookkeeping));
        }
        kind if BOOKKEEPING.binary_search(&kind.as_bytes()).is_ok() => {
            link(&wire, each);
            each(Err(Skip::Bookkeeping));
        }
        _ => each(Err(Skip::UnknownKind)),
    }
}

fn parent(wire: &Wire<'_>) -> Option<String> {
    wire.parent_uuid.as_ref().map(|parent| parent.0.to_string())
}

/// The line's links in the chain, if its record does not have them.
pub(super) fn link(wire: &Wire<'_>, each: &mut Each<'_>) {
    if let Some(uuid) = &wire.uuid {
        each(Ok(Record::Link { uuid: Some(uuid.0.to_string()), parent: parent(wire) }));
    }
}

fn attachment(attachment: Option<Box<WireAttachment<'_>>>, at: Option<Nanos>) -> Result<Record, Skip> {
    let Some(attachment) = attachment else { return Err(Skip::Bookkeeping) };
    match (attachment.kind.as_ref().map_or("", |kind| kind.0.as_ref()), attachment.prompt, attachment.content) {
        ("queued_command", Some(prompt), _) => {
            let (text, media) = blocks::said(&prompt);
            Ok(Record::Queued { at, text, media })
        }
        ("hook_additional_context", _, Some(content)) => {
            let text = content.text();
            let hook = attachment.hook_name.or(attachment.hook_event).map_or_else(String::new, Text::into_owned);
            if text.trim().is_empty() {
                return Err(Skip::Bookkeeping);
            }
            let ahead = hook.starts_with("SessionStart");
            Ok(Record::Aside(Aside { at, by: By::Hook(hook), text, ahead }))
        }
        ("hook_success", ..) => {
            let out = attachment.stdout.as_ref().and_then(|out| read::<WireHook<'_>>(out.0.trim()));
            let input = out.and_then(|out| out.specific?.updated_input);
            match (attachment.tool_use_id, input) {
                (Some(tool_use_id), Some(Raw(input))) => {
                    Ok(Record::Rewritten { tool_use_id: tool_use_id.into_owned(), input: input.to_owned() })
                }
                _ => Err(Skip::Bookkeeping),
            }
        }
        _ => Err(Skip::Bookkeeping),
    }
}

fn system(wire: Box<Wire<'_>>, at: Option<Nanos>, content: Option<Content<'_>>) -> Result<Record, Skip> {
    let owned = |text: Option<Text<'_>>| text.map_or_else(String::new, Text::into_owned);
    let says = |tag: &str| matches!(&content, Some(Content::Text(text)) if text.0.starts_with(tag));
    let subtype = wire.subtype.as_ref().map(|subtype| subtype.0.as_ref());
    // A line without a type may be recognised by its fields.
    let known = ["local_command", "api_error", "model_fallback", "compact_boundary"];
    let subtype = subtype.filter(|subtype| known.contains(subtype)).or_else(|| {
        let of = [
            (wire.compact.is_some(), "compact_boundary"),
            (wire.retry_attempt.is_some(), "api_error"),
            (wire.fallback_model.is_some(), "model_fallback"),
            (says("<local-command-stdout>") || says("<forked-skill-launch>"), "local_command"),
        ];
        of.into_iter().find(|(is_it, _)| *is_it).map(|(_, subtype)| subtype)
    });
    match subtype {
        Some("local_command") => {
            let text = content.map(|content| content.text()).unwrap_or_default();
            let launch = tag(&text, "forked-skill-launch").and_then(launched);
            Ok(Record::CommandOutput {
                at,
                parent: parent(&wire),
                agent_id: launch.map(|launch| launch.agent_id),
                text: tag(&text, "local-command-stdout").unwrap_or_default().to_owned(),
            })
        }
        Some("api_error") => Ok(Record::Retry {
            at,
            status: wire.error.and_then(|raw| read::<WireError<'_>>(raw.0)?.status).map(|n| n.0),
            attempt: wire.retry_attempt.map(|n| n.0),
        }),
        Some("model_fallback") => Ok(Record::Fallback {
            at,
            from: owned(wire.original_model),
            to: owned(wire.fallback_model),
            trigger: owned(wire.trigger),
        }),
        Some("compact_boundary") => {
            let compact = wire.compact;
            Ok(Record::Compacted {
                at,
                tokens: compact
                    .as_ref()
                    .map_or((None, None), |c| (c.pre_tokens.map(|n| n.0), c.post_tokens.map(|n| n.0))),
                trigger: owned(compact.and_then(|c| c.trigger)),
            })
        }
        _ => Err(Skip::Bookkeeping),
    }
}

/// A point in time, if OTLP can express it.
pub(super) fn moment(stamp: &Stamp<'_>) -> Option<Nanos> {
    match stamp {
        Stamp::Text(text) => nanos(text),
        Stamp::Milliseconds(ms) => ms.checked_mul(1_000_000).filter(|n| *n > 0 && i64::try_from(*n).is_ok()),
    }
}

/// An RFC 3339 time in Unix nanoseconds; `None` if it is invalid or outside 1970 … 2262 (the range of OTLP).
pub fn nanos(text: &str) -> Option<Nanos> {
    let time: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(time.as_nanosecond()).ok().filter(|n| *n > 0 && i64::try_from(*n).is_ok())
}
