//! Content blocks: text, tools and their results, images and documents.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Block, ToolResult, typed::typed};
use crate::{
    media::Media,
    transcript::wire::{Content, Output, Raw, Text, WireBlock, WireSource, Word, read},
};

/// Maximum length of a kept block of unknown kind, in bytes.
const UNKNOWN: usize = 16 << 10;

/// The content of a prompt.
#[derive(Default)]
pub(super) struct Said {
    /// What the user typed, followed by the text of documents; blocks are joined by newlines.
    pub typed: String,
    /// What Claude Code or an editor added around it; sections are joined by newlines.
    pub context: String,
    /// Images and documents with their offsets in `typed`.
    pub media: Vec<Media>,
    /// There is an image or document, possibly only its name.
    pub has_media: bool,
}

impl Said {
    pub(super) fn of(content: &Content<'_>) -> Self {
        let mut said = Self::default();
        match content {
            Content::Text(text) => said.add(&text.0),
            Content::Blocks(blocks) => {
                let mut any = false;
                for block in blocks {
                    said.has_media |= block.is_media();
                    if let Some(text) = block.text.as_ref().filter(|_| block.is("text")) {
                        any |= said.block(&text.0, any);
                    } else if let Some(source) = block.source.as_ref().filter(|_| block.is_media()) {
                        match source.media(said.typed.len()) {
                            Some(media) => said.media.push(media),
                            None => {
                                if let Some(text) = document(block, source) {
                                    any |= said.block(&text, any);
                                }
                            }
                        }
                    }
                }
            }
        }
        said
    }

    /// Adds a text block, after earlier ones if there are `any`. False if nobody typed it.
    fn block(&mut self, text: &str, any: bool) -> bool {
        let before = self.typed.len();
        if any {
            self.typed.push('\n');
        }
        let from = self.typed.len();
        let sections = self.context.len();
        self.add(text);
        let is_typed = self.typed.len() > from || self.context.len() == sections;
        if !is_typed {
            self.typed.truncate(before);
        }
        is_typed
    }

    fn add(&mut self, text: &str) {
        let (text, sections) = typed(text);
        self.typed.push_str(text);
        for section in sections {
            if !self.context.is_empty() {
                self.context.push('\n');
            }
            self.context.push_str(section);
        }
    }
}

/// The text and media of `content`; if nobody typed it, the whole text.
pub(super) fn said(content: &Content<'_>) -> (String, Vec<Media>) {
    let said = Said::of(content);
    if said.typed.is_empty() { (content.text(), said.media) } else { (said.typed, said.media) }
}

/// A document's text, or where it is.
fn document(block: &WireBlock<'_>, source: &WireSource<'_>) -> Option<String> {
    let title = block.title.as_ref().map(|title| title.0.as_ref()).filter(|title| !title.trim().is_empty());
    let kind = source.kind.as_ref().map_or("", |kind| kind.0.as_ref());
    let text = match kind {
        "text" => source.data.as_ref().map(|data| data.0.to_string()),
        "content" => source.content.and_then(|raw| read::<Content<'_>>(raw.0)).map(|content| content.text()),
        _ => None,
    };
    let what = if block.is("image") { "image" } else { "document" };
    match (title, text) {
        (Some(title), Some(text)) => Some(format!("[{what}: {title}]\n{text}")),
        (None, Some(text)) => Some(text),
        (title, None) => {
            let place = source.url.as_ref().or(source.file_id.as_ref()).map(|place| place.0.as_ref());
            // Bytes of a document type that no backend shows are not kept.
            let kind = source.media_type.as_ref().map(|kind| kind.0.as_ref()).filter(|_| what == "document");
            let name = title.or(place).or(kind);
            name.map(|name| format!("[{what}: {name}]"))
        }
    }
}

impl WireSource<'_> {
    fn media(&self, at: usize) -> Option<Media> {
        Media::decode(&self.media_type.as_ref()?.0, &self.data.as_ref()?.0, at)
    }
}

impl Content<'_> {
    /// Text blocks joined by a newline.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Text(text) => text.0.clone().into_owned(),
            Self::Blocks(blocks) => {
                let texts: Vec<_> =
                    blocks.iter().filter(|b| b.is("text")).filter_map(|b| Some(b.text.as_ref()?.0.as_ref())).collect();
                texts.join("\n")
            }
        }
    }
}

impl WireBlock<'_> {
    /// Its type; if missing, the type that its fields imply.
    fn kind(&self) -> &str {
        match &self.kind {
            Some(Word(kind)) => kind,
            None if self.text.is_some() => "text",
            None if self.thinking.is_some() => "thinking",
            None if self.tool_use_id.is_some() => "tool_result",
            None if self.id.is_some() && self.input.is_some() => "tool_use",
            None => "",
        }
    }

    fn is(&self, kind: &str) -> bool {
        self.kind() == kind
    }

    fn is_media(&self) -> bool {
        self.is("image") || self.is("document")
    }

    pub(super) fn take_result(&mut self) -> Option<ToolResult> {
        if !self.is("tool_result") {
            return None;
        }
        self.result()
    }

    fn result(&mut self) -> Option<ToolResult> {
        let tool_use_id = self.tool_use_id.take()?.into_owned();
        let (output, media): (String, _) = match self.content.take() {
            None => Default::default(),
            Some(Output::Text(text)) => (text.into_owned(), Vec::new()),
            Some(Output::Parts(parts)) => read_parts(&parts),
            Some(Output::Other(written)) => (plain(&written).unwrap_or(written), Vec::new()),
        };
        Some(ToolResult {
            tool_use_id,
            spilled: spilled(&output),
            output,
            media,
            is_error: self.is_error.is_some_and(|flag| flag.0),
            ..ToolResult::default()
        })
    }

    /// `None` if the block is empty.
    pub(super) fn into_block(mut self) -> Option<Block> {
        let kind = self.kind().to_owned();
        Some(match kind.as_str() {
            "" => return None,
            "text" => Block::Text(self.text?.into_owned()),
            "thinking" => Block::Thinking(self.thinking.map_or_else(String::new, Text::into_owned)),
            "tool_use" => Block::ToolUse { id: self.id.take()?.into_owned(), name: self.name(), input: self.input() },
            _ if kind.ends_with("_tool_use") && self.id.is_some() => {
                Block::ServerTool { id: self.id.take()?.into_owned(), name: self.name(), input: self.input() }
            }
            _ if kind.ends_with("_tool_result") && self.tool_use_id.is_some() => {
                let failed = matches!(&self.content, Some(Output::Other(written)) if is_failure(written));
                let result = self.result()?;
                Block::ServerResult(ToolResult { is_error: result.is_error || failed, ..result })
            }
            _ => Block::Other { kind, json: String::new() },
        })
    }

    fn name(&mut self) -> String {
        self.name.take().map_or_else(|| "unknown".to_owned(), Text::into_owned)
    }

    fn input(&self) -> String {
        self.input.map_or_else(|| "{}".to_owned(), |Raw(raw)| raw.to_owned())
    }
}

/// The result of a tool that ran in the API: an object with a type.
#[derive(Deserialize)]
struct ServerSaid {
    r#type: String,
    #[serde(default)]
    text: Option<String>,
}

/// The text of an object with no other field.
fn plain(written: &str) -> Option<String> {
    let fields: std::collections::BTreeMap<String, &RawValue> = serde_json::from_str(written).ok()?;
    let said: ServerSaid = serde_json::from_str(written).ok()?;
    said.text.filter(|_| fields.len() == 2)
}

fn is_failure(written: &str) -> bool {
    serde_json::from_str(written).is_ok_and(|said: ServerSaid| said.r#type.ends_with("_error"))
}

/// Keeps blocks of unknown kinds as they are written in `line`.
pub(super) fn keep_unknown(blocks: &mut [Block], line: &[u8]) {
    #[derive(Deserialize)]
    struct Line<'a> {
        #[serde(borrow)]
        message: Message<'a>,
    }
    #[derive(Deserialize)]
    struct Message<'a> {
        #[serde(borrow)]
        content: Vec<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Typed {
        r#type: String,
    }
    // Redacted thinking is of no use.
    let unknown = |block: &Block| matches!(block, Block::Other { kind, .. } if kind != "redacted_thinking");
    if !blocks.iter().any(unknown) {
        return;
    }
    let Ok(Line { message }) = serde_json::from_slice::<Line<'_>>(line) else { return };
    let mut written = message.content.into_iter();
    for block in blocks {
        let Block::Other { kind, json } = block else { continue };
        let is_it = |raw: &&RawValue| serde_json::from_str(raw.get()).is_ok_and(|block: Typed| block.r#type == *kind);
        if kind != "redacted_thinking"
            && let Some(raw) = written.find(is_it).filter(|raw| raw.get().len() <= UNKNOWN)
        {
            raw.get().clone_into(json);
        }
    }
}

/// The text of a result's blocks if all are text, else the blocks as JSON without the bytes of images and documents. Where
/// those are not uploaded, their number of bytes takes their place.
fn read_parts(parts: &[&str]) -> (String, Vec<Media>) {
    let read: Vec<Option<WireBlock>> = parts.iter().map(|raw| read(raw)).collect();
    let text = |part: &WireBlock<'_>| {
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
        let Some(WireBlock { kind, source: Some(WireSource { media_type, data: Some(data), .. }), .. }) = part else {
            written.push_str(raw);
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

/// Adds an image or document block, with an empty string in place of the bytes.
pub(super) fn put_media(written: &mut String, found: &mut Vec<Media>, kind: &str, media: Media) {
    let media_type = media.kind;
    written.push_str(&format!(r#"{{"type":"{kind}","source":{{"type":"base64","media_type":"{media_type}","data":""#));
    found.push(Media { at: written.len(), ..media });
    written.push_str(r#""}}"#);
}

/// The file that holds an output too long for the transcript, according to Claude Code's note.
fn spilled(output: &str) -> Option<PathBuf> {
    let (_, rest) = output.strip_prefix("<persisted-output>")?.split_once("Full output saved to: ")?;
    rest.lines().next().map(|path| PathBuf::from(path.trim()))
}
