//! Messages in the shape that Langfuse's chat view renders: an input is an array of messages, an output is one.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;

use crate::{
    media::Hash,
    observation::{self, Answer, Content, MediaRef, Output},
};

/// One user message. The server treats an input as a conversation only if it is an array.
pub(super) fn input(content: &Content) -> String {
    json(&[Message { content: content.into(), ..Message::of("user") }])
}

/// The input of a call.
pub(super) fn given(messages: &[observation::Message]) -> String {
    json(&messages.iter().map(Message::given).collect::<Vec<_>>())
}

/// One message of text.
pub(super) fn message(role: &str, text: &str) -> String {
    json(&Message { content: Said::Text(text), ..Message::of(role) })
}

/// An answer: text, tool calls, thinking.
pub(super) fn answer(answer: &Answer) -> String {
    json(&Message {
        content: Said::Text(&answer.text),
        tool_calls: answer
            .calls
            .iter()
            .map(|call| Call {
                id: &call.id,
                r#type: "function",
                function: Function { name: &call.name, arguments: &call.arguments },
            })
            .collect(),
        thinking: answer.thinking.iter().map(|text| Thinking { r#type: "thinking", content: text }).collect(),
        ..Message::of("assistant")
    })
}

/// The output of a tool: its text, or its blocks with references in place of images and documents.
pub(super) fn output(output: &Output) -> String {
    output.with(reference)
}

/// Langfuse's id of an image or document, derived from the hash of its bytes.
pub fn media_id(hash: &Hash) -> String {
    let mut id = URL_SAFE_NO_PAD.encode(hash);
    id.truncate(22);
    id
}

/// The reference that stands in a span in place of an image or document.
pub(super) fn reference(media: &MediaRef) -> String {
    format!("@@@langfuseMedia:type={}|id={}|source=bytes@@@", media.kind, media_id(&media.hash))
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    content: Said<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Call<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    thinking: Vec<Thinking<'a>>,
}

impl<'a> Message<'a> {
    fn of(role: &'a str) -> Self {
        Self {
            role,
            tool_call_id: None,
            name: None,
            content: Said::Text(""),
            tool_calls: Vec::new(),
            thinking: Vec::new(),
        }
    }

    fn given(message: &'a observation::Message) -> Self {
        let content = Said::from(&message.content);
        match &message.tool {
            None => Self { content, ..Self::of("user") },
            Some(tool) => Self { tool_call_id: Some(&tool.id), name: Some(&tool.name), content, ..Self::of("tool") },
        }
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum Said<'a> {
    Text(&'a str),
    Parts(Vec<Part<'a>>),
}

impl<'a> From<&'a Content> for Said<'a> {
    fn from(content: &'a Content) -> Self {
        match content {
            Content::Text(text) => Self::Text(text),
            Content::Parts(parts) => Self::Parts(
                parts
                    .iter()
                    .map(|part| match part {
                        observation::Part::Text(text) => Part::Text { text },
                        observation::Part::Media(media) => Part::ImageUrl { image_url: Url { url: reference(media) } },
                    })
                    .collect(),
            ),
        }
    }
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Part<'a> {
    Text { text: &'a str },
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
    arguments: &'a str,
}

#[derive(Serialize)]
struct Thinking<'a> {
    r#type: &'a str,
    content: &'a str,
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
