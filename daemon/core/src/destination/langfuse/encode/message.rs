//! Messages in the shape that Langfuse's chat view renders. An input is an array of them, an output is one.

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;

use super::Shared;
use crate::{
    destination::wire::Field,
    media::{Hash, Media},
    project::Capture,
    transcript::record::ToolResult,
    turn::Generation,
};

impl Shared {
    /// Text of the conversation as far as it may leave this machine.
    pub(super) fn words<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match self.capture {
            Capture::Full => text.into(),
            Capture::Metadata if text.is_empty() => text.into(),
            Capture::Metadata => format!("[{} characters]", text.chars().count()).into(),
        }
    }

    /// The media to upload beside a span that shows them in `field`.
    pub(super) fn shown(&self, field: Field, media: &[Media]) -> Vec<(Field, Media)> {
        let leaves = self.capture == Capture::Full;
        media.iter().filter(|_| leaves).map(|media| (field, media.clone())).collect()
    }

    /// An input of one message of the user. The server takes an input for a conversation only if it is an array.
    pub(super) fn input(&self, text: &str, media: &[Media]) -> String {
        format!("[{}]", self.message("user", text, media))
    }

    /// One message.
    pub(super) fn message(&self, role: &str, text: &str, media: &[Media]) -> String {
        let content = match self.capture {
            Capture::Full if !media.is_empty() => Content::Parts(parts(text, media)),
            Capture::Full | Capture::Metadata => Content::Text(sized(self.words(text), self.capture, media)),
        };
        json(&Message { content, ..Message::of(role) })
    }

    /// The output of a tool: its text, or its blocks with references in the place of images and documents.
    pub(super) fn output<'t>(&self, result: &'t ToolResult) -> Cow<'t, str> {
        if self.capture == Capture::Metadata || result.media.is_empty() {
            return sized(self.words(&result.output), self.capture, &result.media);
        }
        let mut output = result.output.clone();
        for media in result.media.iter().rev().filter(|media| result.output.is_char_boundary(media.at)) {
            output.insert_str(media.at, &reference(media));
        }
        output.into()
    }

    /// An answer: text, tool calls, thinking.
    pub(super) fn answer(&self, generation: &Generation) -> String {
        json(&Message {
            content: Content::Text(self.words(&generation.text())),
            tool_calls: generation
                .tools
                .iter()
                .map(|tool| Call {
                    id: &tool.id,
                    r#type: "function",
                    function: Function { name: &tool.name, arguments: self.words(&tool.input) },
                })
                .collect(),
            thinking: generation
                .thinking
                .iter()
                .filter(|text| !text.is_empty())
                .map(|text| Thinking { r#type: "thinking", content: self.words(text) })
                .collect(),
            ..Message::of("assistant")
        })
    }
}

/// The result of the call `id` of the tool `name` as it is given to the model. `output` is the text of the tool's span, in which
/// references may stand for media.
pub(super) fn tool_message(id: &str, name: &str, output: &str, has_media: bool) -> String {
    let blocks: Option<Vec<serde_json::Value>> = has_media.then(|| serde_json::from_str(output).ok()).flatten();
    let content = match &blocks {
        None => Content::Text(output.into()),
        Some(blocks) => Content::Parts(blocks.iter().map(part).collect()),
    };
    json(&Message { tool_call_id: Some(id), name: Some(name), content, ..Message::of("tool") })
}

/// A block of a result: its text, the reference that stands in it, or all of it as JSON.
fn part(block: &serde_json::Value) -> Part<'_> {
    let reference = block["source"]["data"].as_str().filter(|data| data.starts_with(REFERENCE));
    match (block["type"].as_str(), block["text"].as_str(), reference) {
        (Some("text"), Some(text), _) => Part::Text { text: text.into() },
        (_, _, Some(reference)) => Part::ImageUrl { image_url: Url { url: reference.to_owned() } },
        _ => Part::Text { text: block.to_string().into() },
    }
}

/// The id by which Langfuse knows an image or document, made of the hash of its bytes.
pub fn media_id(hash: &Hash) -> String {
    let mut id = URL_SAFE_NO_PAD.encode(hash);
    id.truncate(22);
    id
}

/// The beginning of a reference.
const REFERENCE: &str = "@@@langfuseMedia:";

/// The text that stands in a span in the place of an image or document.
pub(super) fn reference(media: &Media) -> String {
    format!("{REFERENCE}type={}|id={}|source=bytes@@@", media.kind, media_id(&media.hash))
}

/// A text and the media that stand in it, in their order.
fn parts<'a>(text: &'a str, media: &[Media]) -> Vec<Part<'a>> {
    let (mut parts, mut from) = (Vec::new(), 0);
    let mut add = |parts: &mut Vec<Part<'a>>, to: usize| {
        // A newline joins the texts of two blocks.
        let text = text.get(from..to).unwrap_or_default();
        let text = if from > 0 { text.strip_prefix('\n').unwrap_or(text) } else { text };
        if !text.is_empty() {
            parts.push(Part::Text { text: text.into() });
        }
        from = to;
    };
    for media in media {
        add(&mut parts, media.at);
        parts.push(Part::ImageUrl { image_url: Url { url: reference(media) } });
    }
    add(&mut parts, text.len());
    parts
}

/// `text` with the sizes of media that do not leave this machine.
fn sized<'t>(text: Cow<'t, str>, capture: Capture, media: &[Media]) -> Cow<'t, str> {
    if capture == Capture::Full || media.is_empty() {
        return text;
    }
    let sizes = media.iter().map(|media| format!("[{}, {} bytes]", media.kind, media.length));
    let text = Some(text.into_owned()).filter(|text| !text.is_empty());
    text.into_iter().chain(sizes).collect::<Vec<_>>().join(" ").into()
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    content: Content<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Call<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    thinking: Vec<Thinking<'a>>,
}

impl<'a> Message<'a> {
    fn of(role: &'a str) -> Self {
        let content = Content::Text("".into());
        Self { role, tool_call_id: None, name: None, content, tool_calls: Vec::new(), thinking: Vec::new() }
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum Content<'a> {
    Text(Cow<'a, str>),
    Parts(Vec<Part<'a>>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Part<'a> {
    Text { text: Cow<'a, str> },
    ImageUrl { image_url: Url },
}

#[derive(Serialize)]
struct Url {
    url: String,
}

#[derive(Serialize)]
struct Call<'a> {
    id: &'a str,
    r#type: &'a str,
    function: Function<'a>,
}

#[derive(Serialize)]
struct Function<'a> {
    name: &'a str,
    arguments: Cow<'a, str>,
}

#[derive(Serialize)]
struct Thinking<'a> {
    r#type: &'a str,
    content: Cow<'a, str>,
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
