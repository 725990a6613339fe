//! How a line is judged and read.

use std::{borrow::Cow, path::PathBuf};

use serde::{
    Deserialize, Deserializer as _,
    de::{self, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    begun::{FORK, begun_by, directive, launched},
    *,
};
use crate::transcript::wire::{
    Content, Output, Text, Wire, WireAttachment, WireBlock, WireError, WireMessage, WireSource, WireTurnPosition,
};

/// Reads one line.
///
/// # Errors
/// Why the line is not a record.
pub fn parse(line: &[u8]) -> Result<Record, Skip> {
    // A hole left by a crash is read as NUL bytes.
    let line = line.trim_ascii();
    let line = &line[line.iter().position(|byte| *byte != 0).unwrap_or(line.len())..];
    if line.is_empty() {
        return Err(Skip::Bookkeeping);
    }
    match sniff(line) {
        Some(Sniffed::Skip(skip)) => return Err(skip),
        Some(Sniffed::Request) => return request(line),
        None => {}
    }
    match serde_json::from_slice::<Wire>(line) {
        Ok(wire) => wire.into_record(),
        Err(_) => {
            // Invalid UTF-8 breaks raw values only; everything else has been read lossily already.
            let text = String::from_utf8_lossy(line);
            if matches!(text, Cow::Owned(_))
                && let Ok(wire) = serde_json::from_str::<Wire>(&text)
            {
                return wire.into_record();
            }
            let is_json = serde_json::from_str::<IgnoredAny>(&text).is_ok();
            Err(if is_json { Skip::UnexpectedShape } else { Skip::NotJson })
        }
    }
}

/// `sessionId` of a line, if it has one.
pub fn session_id(line: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Head<'a> {
        #[serde(rename = "sessionId", borrow, default)]
        session_id: Option<Text<'a>>,
    }
    serde_json::from_slice::<Head>(line).ok()?.session_id.map(Text::into_owned)
}

/// `type` and `version` of a line of a kind that is not known, cut to what can be shown.
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

/// A name somebody else has given, cut to what can be shown.
pub(super) fn shown(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_graphic()).take(64).collect()
}

/// The first `uuid` of a line in the beginning of a transcript: a copy of it begins with the same.
pub fn first_uuid(head: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Line {
        uuid: String,
    }
    head.split(|byte| *byte == b'\n').find_map(|line| Some(serde_json::from_slice::<Line>(line).ok()?.uuid))
}

/// `cwd` of the first line that has one, in the beginning of a transcript.
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

// ---- judging a line by its opening bytes ----

enum Sniffed {
    Skip(Skip),
    Request,
}

/// `type`s that say nothing about the conversation, in Claude Code 1.0.59 … 2.1.329.
pub(super) const BOOKKEEPING: [&[u8]; 15] = [
    b"agent-name",
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

/// Claude Code writes the keys of a line in a fixed order, so the first hundred bytes tell most lines apart. `None` if
/// they do not, or if the line is conversation.
fn sniff(line: &[u8]) -> Option<Sniffed> {
    let quoted = |rest: &'_ [u8]| -> Option<usize> { memchr::memchr(b'"', &rest[..rest.len().min(64)]) };
    if let Some(rest) = line.strip_prefix(b"{\"type\":\"") {
        let kind = &rest[..quoted(rest)?];
        return match kind {
            b"api-request" => Some(Sniffed::Request),
            _ if BOOKKEEPING.binary_search(&kind).is_ok() => Some(Sniffed::Skip(Skip::Bookkeeping)),
            _ => None,
        };
    }
    let mut rest = line.strip_prefix(b"{\"parentUuid\":")?;
    rest = match rest.strip_prefix(b"null,") {
        Some(rest) => rest,
        None => {
            let rest = rest.strip_prefix(b"\"")?;
            rest[quoted(rest)? + 1..].strip_prefix(b",")?
        }
    };
    rest = rest.strip_prefix(b"\"isSidechain\":")?;
    rest = rest.strip_prefix(b"false,").or_else(|| rest.strip_prefix(b"true,"))?;
    let rest = rest.strip_prefix(b"\"attachment\":{\"type\":\"")?;
    let kind = &rest[..quoted(rest)?];
    (kind != b"queued_command").then_some(Sniffed::Skip(Skip::Bookkeeping))
}

/// `api-request` lines carry the whole message list; the two fields wanted come before it, so the rest is not read.
fn request(line: &[u8]) -> Result<Record, Skip> {
    #[derive(Default)]
    struct Head {
        id: Option<String>,
        at: Option<Nanos>,
    }
    struct Collect<'h>(&'h mut Head);
    impl<'de> Visitor<'de> for Collect<'_> {
        type Value = ();
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            while self.0.id.is_none() || self.0.at.is_none() {
                match map.next_key::<Text>()?.as_ref().map(|key| key.0.as_ref()) {
                    None => return Ok(()),
                    Some("id") => self.0.id = Some(map.next_value::<Text>()?.into_owned()),
                    Some("timestamp") => self.0.at = nanos(&map.next_value::<Text>()?.0),
                    Some(_) => drop(map.next_value::<IgnoredAny>()?),
                }
            }
            Err(de::Error::custom("enough"))
        }
    }
    let mut head = Head::default();
    let _ = serde_json::Deserializer::from_slice(line).deserialize_map(Collect(&mut head));
    match head {
        Head { id: Some(id), at: Some(at) } => Ok(Record::Request { id, at }),
        _ => Err(Skip::UnexpectedShape),
    }
}

// ---- what it means ----

impl<'a> Wire<'a> {
    fn into_record(mut self) -> Result<Record, Skip> {
        let mut message = self.message.take();
        let kind = self.kind.take().or_else(|| message.as_mut().and_then(|m| m.role.take()));
        let kind = kind.as_ref().map_or("", |kind| kind.0.as_ref());
        let stamp = self.timestamp.take().or_else(|| message.as_mut().and_then(|m| m.timestamp.take()));
        let at = stamp.and_then(|text| nanos(&text.0));
        let content = message.as_mut().and_then(|m| m.content.take());
        let side = (self.is_sidechain == Some(true)).then(|| {
            let owned = |text: &Option<Text<'_>>| text.as_ref().map(|text| text.0.to_string());
            (owned(&self.uuid), owned(&self.parent_uuid), owned(&self.agent_id))
        });
        let record = self.conversation(kind, at, message, content)?;
        Ok(match side {
            None => record,
            Some((uuid, parent, agent_id)) => Record::Side(Box::new(Side { uuid, parent, agent_id, record })),
        })
    }

    fn conversation(
        mut self,
        kind: &str,
        at: Option<Nanos>,
        message: Option<WireMessage<'a>>,
        content: Option<Content<'a>>,
    ) -> Result<Record, Skip> {
        match kind {
            "user" => {
                let content = content.or_else(|| self.content.take());
                self.user(at, content)
            }
            "assistant" => {
                let content = content.or_else(|| self.content.take());
                self.assistant(at, message, content)
            }
            "attachment" => match self.attachment {
                Some(WireAttachment { kind: Some(kind), prompt: Some(prompt) }) if kind.0 == "queued_command" => {
                    Ok(Record::Queued { at, text: prompt.text(), media: prompt.media() })
                }
                _ => Err(Skip::Bookkeeping),
            },
            "system" => match self.subtype.as_ref().map(|subtype| subtype.0.as_ref()) {
                Some("local_command") => {
                    let text =
                        content.or_else(|| self.content.take()).map(|content| content.text()).unwrap_or_default();
                    let launch = tag(&text, "forked-skill-launch").and_then(launched);
                    Ok(Record::CommandOutput {
                        at,
                        parent: self.parent_uuid.map(Text::into_owned),
                        agent_id: launch.map(|launch| launch.agent_id),
                        text: tag(&text, "local-command-stdout").unwrap_or_default().to_owned(),
                    })
                }
                Some("api_error") => Ok(Record::Retry {
                    at,
                    status: self
                        .error
                        .and_then(|raw| serde_json::from_str::<WireError>(raw.get()).ok()?.status)
                        .map(|n| n.0),
                    attempt: self.retry_attempt.map(|n| n.0),
                }),
                Some("model_fallback") => {
                    let owned = |text: Option<Text<'_>>| text.map_or_else(String::new, Text::into_owned);
                    Ok(Record::Fallback {
                        at,
                        from: owned(self.original_model),
                        to: owned(self.fallback_model),
                        trigger: owned(self.trigger),
                    })
                }
                Some("compact_boundary") => {
                    let compact = self.compact;
                    Ok(Record::Compacted {
                        at,
                        tokens: compact
                            .as_ref()
                            .map_or((None, None), |c| (c.pre_tokens.map(|n| n.0), c.post_tokens.map(|n| n.0))),
                        trigger: compact.and_then(|c| c.trigger).map_or_else(String::new, Text::into_owned),
                    })
                }
                _ => Err(Skip::Bookkeeping),
            },
            "api-request" => Err(Skip::Bookkeeping),
            "fork-context-ref" => Ok(Record::Inherits),
            "custom-title" | "ai-title" | "summary" => {
                let title = self.custom_title.or(self.title).or(self.summary).map(Text::into_owned);
                title.filter(|title| !title.trim().is_empty()).map(Record::Title).ok_or(Skip::Bookkeeping)
            }
            kind if BOOKKEEPING.binary_search(&kind.as_bytes()).is_ok() => Err(Skip::Bookkeeping),
            _ => Err(Skip::UnknownKind),
        }
    }

    fn user(self, at: Option<Nanos>, content: Option<Content<'a>>) -> Result<Record, Skip> {
        let Some(mut content) = content else { return Err(Skip::Bookkeeping) };
        // What a skill tells a subagent of its own is no human's word, and yet what it begins with.
        let begins_agent = self.is_sidechain == Some(true) && self.parent_uuid.is_none();
        let position = self.turn_position.and_then(|raw| {
            let position: WireTurnPosition = serde_json::from_str(raw.get()).ok()?;
            u32::try_from(position.turn_index?.0).ok()
        });
        // Nor are these a human's words: a schedule, another session, a program, or what wakes a subagent again.
        let begun_by = begun_by(self.turn_origin, self.origin, self.is_sidechain == Some(true));
        let begins_turn = self.is_meta == Some(true) && (begun_by.is_some() || position.is_some());
        if self.is_meta == Some(true) && !begins_agent && !begins_turn {
            let text = content.text();
            let said = text.trim_start().strip_prefix("Stop hook feedback:").map(|text| text.trim().to_owned());
            return said.map(|text| Record::HookFeedback { at, text }).ok_or(Skip::Bookkeeping);
        }
        if self.is_compact_summary == Some(true) || self.is_visible_only == Some(true) {
            return Err(Skip::Bookkeeping);
        }
        if let Content::Blocks(blocks) = &mut content {
            let mut results: Vec<_> = blocks.iter_mut().filter_map(WireBlock::take_result).collect();
            if let [result] = &mut results[..] {
                result.agent = self.tool_use_result.and_then(|raw| launched(raw.get()));
                result.denied = self.tool_denial_kind.map(Text::into_owned);
            }
            // A forked subagent begins with the result of the call that launched it, and with what it is to do.
            let is_fork = || content.text().trim_start().starts_with(FORK);
            if !(results.is_empty() || self.is_sidechain == Some(true) && is_fork()) {
                return Ok(Record::ToolResults { at, results });
            }
        }
        let text = content.text();
        let head = text.trim_start();
        let starts = |tags: &[&str]| tags.iter().any(|tag| head.starts_with(tag));
        let (kind, text) = if head.is_empty() && !content.has_media() {
            return Err(Skip::Bookkeeping);
        } else if starts(&["[Request interrupted by user"]) {
            return Ok(Record::Interrupted { at });
        } else if starts(&["<local-command-caveat>", "<bash-stdout>", "<bash-stderr>"]) {
            // Output of `!shell` does not say that the model stays silent: 2.1.329 has it answer.
            return Err(Skip::Bookkeeping);
        } else if starts(&["<local-command-std"]) {
            return Ok(Record::LocalOutput);
        } else if starts(&["<command-message>"]) {
            (PromptKind::Command, command(head))
        } else if starts(&["<command-name>"]) {
            (PromptKind::Local, command(head))
        } else if starts(&["<bash-input>"]) {
            (PromptKind::Local, format!("!{}", tag(head, "bash-input").unwrap_or_default()))
        } else if starts(&["<task-notification>"]) {
            (PromptKind::TaskNotification, text)
        } else if starts(&[FORK]) {
            (PromptKind::Fork, directive(head).to_owned())
        } else {
            (PromptKind::Plain, text)
        };
        let mut media = content.media();
        if kind != PromptKind::Plain {
            media.iter_mut().for_each(|media| media.at = text.len());
        }
        Ok(Record::Prompt(Prompt {
            at,
            media,
            permission_mode: self.permission_mode.map(Text::into_owned),
            planned_in: self.plan_content.and_then(|_| planning_session(&text)),
            text,
            kind,
            uuid: self.uuid.map(Text::into_owned),
            begun_by,
            position,
            parent: self.parent_uuid.map(Text::into_owned),
            prompt_id: self.prompt_id.map(Text::into_owned),
            session: SessionFacts {
                version: self.version.map(Text::into_owned),
                cwd: self.cwd.map(Text::into_owned),
                git_branch: self.git_branch.map(Text::into_owned),
                slug: self.slug.map(Text::into_owned),
                forked_from: self.forked_from.and_then(|from| from.session_id).map(Text::into_owned),
                title: None,
            },
        }))
    }

    fn assistant(
        self,
        at: Option<Nanos>,
        message: Option<WireMessage<'a>>,
        content: Option<Content<'a>>,
    ) -> Result<Record, Skip> {
        if self.is_meta == Some(true) {
            return Err(Skip::Bookkeeping);
        }
        let (id, model, stop_reason, usage) = match message {
            Some(m) => (m.id, m.model, m.stop_reason, m.usage),
            None => (None, None, None, None),
        };
        if model.as_ref().is_some_and(|model| model.0 == "<synthetic>") {
            // Claude Code's own words: an error the user saw, or filler it wrote when a session was resumed.
            return match self.is_api_error {
                Some(true) => Ok(Record::ApiError {
                    at,
                    text: content.map_or_else(String::new, |content| content.text()),
                    status: self.api_error_status.map(|n| n.0),
                }),
                _ => Err(Skip::Bookkeeping),
            };
        }
        let blocks = match content {
            None => Vec::new(),
            Some(Content::Text(text)) => vec![Block::Text(text.into_owned())],
            Some(Content::Blocks(blocks)) => blocks.into_iter().filter_map(WireBlock::into_block).collect(),
        };
        let filled = |text: Option<Text<'_>>| text.map(Text::into_owned).filter(|text| !text.is_empty());
        let unusual = |text: Option<&Text<'_>>| {
            text.map(|text| text.0.to_string()).filter(|text| !matches!(text.as_str(), "" | "standard"))
        };
        let tools = usage.as_ref().and_then(|usage| usage.server_tool_use.as_ref());
        let service = Service {
            tier: unusual(usage.as_ref().and_then(|usage| usage.service_tier.as_ref())),
            speed: unusual(usage.as_ref().and_then(|usage| usage.speed.as_ref())),
            web: tools.map_or((0, 0), |tools| (tools.web_search_requests.0, tools.web_fetch_requests.0)),
            requested_model: filled(self.requested_model).filter(|asked| model.as_ref().is_some_and(|m| m.0 != *asked)),
            cut: filled(self.stream_cut_cause)
                .or_else(|| (self.is_aborted == Some(true)).then(|| "aborted".to_owned())),
        };
        Ok(Record::Assistant(Box::new(Assistant {
            at,
            blocks,
            service,
            uuid: filled(self.uuid),
            message_id: filled(id),
            model: filled(model).unwrap_or_else(|| "unknown".to_owned()),
            request_id: filled(self.request_id),
            request_ref: filled(self.request_ref),
            stop_reason: filled(stop_reason),
            slug: filled(self.slug),
            forked_from: filled(self.forked_from.and_then(|from| from.session_id).or(self.request_session_id)),
            usage: usage.map(|u| Usage {
                input: u.input_tokens.0,
                output: u.output_tokens.0,
                cache_read: u.cache_read_input_tokens.0,
                cache_creation: u.cache_creation_input_tokens.0,
                cache_creation_5m: u.cache_creation.as_ref().map_or(0, |c| c.ephemeral_5m_input_tokens.0),
                cache_creation_1h: u.cache_creation.as_ref().map_or(0, |c| c.ephemeral_1h_input_tokens.0),
            }),
        })))
    }
}

impl Content<'_> {
    /// Text blocks joined by a newline.
    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.0.clone().into_owned(),
            Self::Blocks(blocks) => {
                let texts: Vec<_> =
                    blocks.iter().filter(|b| b.is("text")).filter_map(|b| Some(b.text.as_ref()?.0.as_ref())).collect();
                texts.join("\n")
            }
        }
    }

    fn has_media(&self) -> bool {
        matches!(self, Self::Blocks(blocks) if blocks.iter().any(WireBlock::is_media))
    }

    /// Images and documents, and where they stand in [`text`](Self::text).
    fn media(&self) -> Vec<Media> {
        let Self::Blocks(blocks) = self else { return Vec::new() };
        let mut found = Vec::new();
        let mut at = None;
        for block in blocks {
            if let Some(text) = block.text.as_ref().filter(|_| block.is("text")) {
                at = Some(at.map_or(0, |at| at + 1) + text.0.len());
            } else if let Some(source) = block.source.filter(|_| block.is_media())
                && let Ok(WireSource { media_type: Some(kind), data: Some(data) }) = serde_json::from_str(source.get())
            {
                found.extend(Media::decode(&kind.0, &data.0, at.unwrap_or(0)));
            }
        }
        found
    }
}

impl<'a> WireBlock<'a> {
    fn is(&self, kind: &str) -> bool {
        self.kind.as_ref().is_some_and(|k| k.0 == kind)
    }

    fn is_media(&self) -> bool {
        self.is("image") || self.is("document")
    }

    fn take_result(&mut self) -> Option<ToolResult> {
        if !self.is("tool_result") {
            return None;
        }
        let tool_use_id = self.tool_use_id.take()?.into_owned();
        let (output, media): (String, _) = match self.content.take() {
            None => Default::default(),
            Some(Output::Text(text)) => (text.into_owned(), Vec::new()),
            Some(Output::Parts(parts)) => read_parts(&parts),
        };
        Some(ToolResult {
            tool_use_id,
            spilled: spilled(&output),
            output,
            media,
            is_error: self.is_error == Some(true),
            ..ToolResult::default()
        })
    }

    fn into_block(self) -> Option<Block> {
        let kind = self.kind?;
        Some(match kind.0.as_ref() {
            "text" => Block::Text(self.text?.into_owned()),
            "thinking" => Block::Thinking(self.thinking.map_or_else(String::new, Text::into_owned)),
            "tool_use" => Block::ToolUse {
                id: self.id?.into_owned(),
                name: self.name.map_or_else(|| "unknown".to_owned(), Text::into_owned),
                input: self.input.map_or_else(|| "{}".to_owned(), |raw| raw.get().to_owned()),
            },
            _ => Block::Other(kind.into_owned()),
        })
    }
}

/// The text of a result's blocks if all are text, else the blocks as JSON with the bytes of images and documents left
/// out. Of those that are not taken along, the number of bytes stands in their place.
fn read_parts(parts: &[&RawValue]) -> (String, Vec<Media>) {
    #[derive(Deserialize)]
    struct Part<'a> {
        #[serde(rename = "type", borrow, default)]
        kind: Option<Text<'a>>,
        #[serde(borrow, default)]
        text: Option<Text<'a>>,
        #[serde(borrow, default)]
        source: Option<WireSource<'a>>,
    }
    let read: Vec<Option<Part>> = parts.iter().map(|raw| serde_json::from_str(raw.get()).ok()).collect();
    let text = |part: &Part| {
        part.kind.as_ref().is_some_and(|kind| kind.0 == "text").then(|| part.text.as_ref().map(|t| t.0.to_string()))?
    };
    let texts: Option<Vec<String>> = read.iter().map(|part| text(part.as_ref()?)).collect();
    if let Some(texts) = texts {
        return (texts.join("\n"), Vec::new());
    }
    let (mut written, mut found) = (String::from("["), Vec::new());
    for (index, (raw, part)) in parts.iter().zip(&read).enumerate() {
        if index > 0 {
            written.push(',');
        }
        let Some(Part { kind, source: Some(WireSource { media_type, data: Some(data) }), .. }) = part else {
            written.push_str(raw.get());
            continue;
        };
        let kind = kind.as_ref().map(|kind| kind.0.as_ref());
        let media_type = media_type.as_ref().map(|kind| kind.0.as_ref());
        let media = media_type.and_then(|media_type| Media::decode(media_type, &data.0, 0));
        if let Some(media) = media.filter(|_| matches!(kind, Some("image" | "document"))) {
            put_media(&mut written, &mut found, kind.unwrap_or_default(), media);
        } else {
            let source = serde_json::json!({ "media_type": media_type, "base64_bytes": data.0.len() });
            written.push_str(&serde_json::json!({ "type": kind, "source": source }).to_string());
        }
    }
    written.push(']');
    (written, found)
}

/// A block that is an image or a document, with an empty string for the bytes.
pub(super) fn put_media(written: &mut String, found: &mut Vec<Media>, kind: &str, media: Media) {
    let media_type = media.kind;
    written.push_str(&format!(r#"{{"type":"{kind}","source":{{"type":"base64","media_type":"{media_type}","data":""#));
    found.push(Media { at: written.len(), ..media });
    written.push_str(r#""}}"#);
}

/// The file Claude Code says it has written an output to that is too long for the transcript.
fn spilled(output: &str) -> Option<PathBuf> {
    let (_, rest) = output.strip_prefix("<persisted-output>")?.split_once("Full output saved to: ")?;
    rest.lines().next().map(|path| PathBuf::from(path.trim()))
}

/// The session whose transcript the text of a plan refers to: the only link between planning and doing where the context was
/// cleared in between.
fn planning_session(text: &str) -> Option<String> {
    let (_, rest) = text.rsplit_once("read the full transcript at: ")?;
    let path = rest.split_whitespace().next()?.trim_end_matches('.');
    let name = std::path::Path::new(path).file_name()?.to_str()?;
    Some(name.strip_suffix(".jsonl")?.to_owned())
}

/// `/name args`, as typed, from the tags Claude Code wraps a command in.
fn command(text: &str) -> String {
    let name = tag(text, "command-name").unwrap_or_default();
    let args = tag(text, "command-args").unwrap_or_default();
    match (name, args) {
        ("", _) => text.to_owned(),
        (name, "") => name.to_owned(),
        (name, args) => format!("{name} {args}"),
    }
}

pub(super) fn tag<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    Some(rest.split_once(&format!("</{name}>"))?.0.trim())
}

/// An RFC 3339 time in nanoseconds since the epoch; `None` if it is not one or lies outside 1970 … 2262 (what OTLP can say).
pub fn nanos(text: &str) -> Option<Nanos> {
    let time: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(time.as_nanosecond()).ok().filter(|n| *n > 0 && i64::try_from(*n).is_ok())
}
