//! The spans of a turn, one by one, as they are sent.

use std::collections::HashMap;

use super::{Shared, message::tool_message};
use crate::{
    destination::{wire::Field, wire::OutSpan, wire::Value, wire::mask_text},
    ids::SpanId,
    media::Media,
    project::Semantics,
    redact::{Counts, Redactor},
    trace::{Body, Given, Span},
};

/// Encodes and masks spans. What a call was given is a span too, or was one: its text is masked once for both.
pub struct Encoder<'r> {
    shared: Shared,
    redactor: Option<&'r Redactor>,
    /// Messages for calls that are still to come, masked, by the span that each is made of.
    messages: HashMap<SpanId, String>,
}

impl<'r> Encoder<'r> {
    /// An encoder for the spans that have `shared` in common. Without `redactor` nothing is masked.
    pub fn new(mut shared: Shared, redactor: Option<&'r Redactor>, counts: &mut Counts) -> Self {
        if let Some(redactor) = redactor {
            shared.redact(redactor, counts);
        }
        Self { shared, redactor, messages: HashMap::new() }
    }

    /// `span` as it is sent. Spans come in the order of [`trace::spans`](crate::trace::spans): a tool before the call that was
    /// given its result.
    pub fn encode(&mut self, span: &Span<'_>, counts: &mut Counts) -> OutSpan {
        let mut out = self.shared.encode(span);
        if let Some(redactor) = self.redactor {
            out.redact(self.shared.len(), redactor, counts);
        }
        match &span.body {
            Body::Generation { given, .. } if !given.is_empty() => {
                let messages: Vec<String> = given.iter().filter_map(|given| self.message(given, counts)).collect();
                if !messages.is_empty() {
                    let input = Value::Text(format!("[{}]", messages.join(",")));
                    // Behind the type, where other spans have theirs.
                    out.attributes.insert(1, ("langfuse.observation.input".into(), input));
                }
                let media = given.iter().flat_map(|given| media(&given.body));
                out.media =
                    media.flat_map(|media| self.shared.shown(Field::Input, std::slice::from_ref(media))).collect();
            }
            Body::Tool(tool) if self.shared.semantics == Semantics::Measured && !tool.on_server => {
                let id = out.text(TOOL_ID).unwrap_or_default();
                if let Some(output) = out.text("langfuse.observation.output") {
                    let message = tool_message(id, &out.name, output, !out.media.is_empty());
                    self.messages.insert(out.span_id, message);
                }
            }
            Body::Event { said: Some(_), .. } if self.shared.semantics == Semantics::Measured => {
                let input =
                    out.text("langfuse.observation.input").and_then(|input| input.strip_prefix('[')?.strip_suffix(']'));
                if let Some(message) = input {
                    self.messages.insert(out.span_id, message.to_owned());
                }
            }
            _ => {}
        }
        out
    }

    /// The message that a call was given, masked. `None` if there is no text to it.
    fn message(&mut self, given: &Given<'_>, counts: &mut Counts) -> Option<String> {
        if let Some(message) = self.messages.remove(&given.span_id) {
            return Some(message);
        }
        // Its span was sent in an earlier step.
        let shared = &self.shared;
        let mut masked = |mut text: String| {
            if let Some(redactor) = self.redactor {
                mask_text(&mut text, redactor, counts);
            }
            text
        };
        match &given.body {
            Body::Tool(tool) => {
                let (result, _) = tool.result.as_ref()?;
                let has_media = !shared.shown(Field::Output, &result.media).is_empty();
                let output = masked(shared.output(result).into_owned());
                Some(tool_message(&masked(tool.id.clone()), &masked(given.name.to_owned()), &output, has_media))
            }
            Body::Event { said: Some((text, media)), .. } => Some(masked(shared.message("user", text, media))),
            _ => None,
        }
    }
}

const TOOL_ID: &str = "langfuse.observation.metadata.tool_id";

/// The images and documents in what a call was given.
fn media<'t>(body: &Body<'t>) -> &'t [Media] {
    match body {
        Body::Tool(tool) => tool.result.as_ref().map_or(&[], |(result, _)| &result.media),
        Body::Event { said: Some((_, media)), .. } => media,
        _ => &[],
    }
}
