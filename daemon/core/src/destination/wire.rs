//! A span in the words of its backend, as it lies in the outbox and goes over the wire.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::{
    ids::{Call, SpanId, TraceId},
    media::Media,
    redact::{Counts, Redactor},
};

/// A span as it lies in the outbox: in its destination's dialect, never changed after it was written, so that what is sent
/// again is byte for byte what was sent first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutSpan {
    /// Trace it belongs to.
    #[serde(with = "as_hex")]
    pub trace_id: TraceId,
    /// Its own id.
    #[serde(with = "as_hex")]
    pub span_id: SpanId,
    /// Its parent; all zeros for a root.
    #[serde(with = "as_hex")]
    pub parent_id: SpanId,
    /// Its name.
    pub name: String,
    /// Start, nanoseconds since the epoch.
    pub start_ns: u64,
    /// End, nanoseconds since the epoch.
    pub end_ns: u64,
    /// OTLP status `Error` with this message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Attributes in the order they are sent.
    pub attributes: Vec<(Cow<'static, str>, Value)>,
    /// The model call it is, or is part of; known until it enters the outbox.
    #[serde(skip)]
    pub call: Option<Call>,
    /// Images and documents it refers to, and in which field; known until it enters the outbox.
    #[serde(skip)]
    pub media: Vec<(Field, Media)>,
}

/// Where in a span something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// What came in.
    Input,
    /// What came out.
    Output,
}

impl Field {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Output => "output",
        }
    }
}

/// An attribute's value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// A string; objects travel as JSON in one.
    Text(String),
    /// A list of strings, never empty: an empty one arrives at Langfuse as a string of its own.
    List(Vec<String>),
}

impl Value {
    /// Bytes of text in it.
    pub fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::List(items) => items.iter().map(String::len).sum(),
        }
    }

    /// True if there is no text in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl OutSpan {
    /// True if it is the root of its trace.
    pub fn is_root(&self) -> bool {
        self.parent_id == [0; 8]
    }

    /// Masks secrets in everything that is text, but for the last `shared` attributes, which are masked once for all spans
    /// of a turn.
    pub fn redact(&mut self, shared: usize, redactor: &Redactor, counts: &mut Counts) {
        let own = self.attributes.len() - shared;
        let mut clean = Vec::with_capacity(own);
        for index in 0..own {
            // A turn says the same thing in several places.
            if !clean.iter().any(|earlier: &usize| self.attributes[*earlier].1 == self.attributes[index].1) {
                let before = counts.values().sum::<u64>();
                mask_key(&mut self.attributes[index].0, redactor, counts);
                mask(&mut self.attributes[index].1, redactor, counts);
                if before == counts.values().sum::<u64>() {
                    clean.push(index);
                }
            }
        }
        self.error.iter_mut().for_each(|text| mask_text(text, redactor, counts));
        mask_text(&mut self.name, redactor, counts);
    }

    /// The attribute called `key`, if it is text.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.attributes.iter().find_map(|(k, value)| match value {
            Value::Text(text) if k == key => Some(text.as_str()),
            _ => None,
        })
    }
}

/// Masks secrets in the name of an attribute that somebody chose.
pub(super) fn mask_key(key: &mut Cow<'static, str>, redactor: &Redactor, counts: &mut Counts) {
    if let Cow::Owned(key) = key {
        mask_text(key, redactor, counts);
    }
}

/// Masks secrets in an attribute.
pub(super) fn mask(value: &mut Value, redactor: &Redactor, counts: &mut Counts) {
    match value {
        Value::Text(text) => mask_text(text, redactor, counts),
        Value::List(items) => items.iter_mut().for_each(|text| mask_text(text, redactor, counts)),
    }
}

/// Masks secrets in `text`, which may be JSON.
pub(super) fn mask_text(text: &mut String, redactor: &Redactor, counts: &mut Counts) {
    let masked = match text.as_bytes().first() {
        Some(b'{' | b'[' | b'"') => redactor.scrub_json(text, counts),
        _ => redactor.scrub(text, counts),
    };
    if let Some(masked) = masked {
        *text = masked;
    }
}

mod as_hex {
    use crate::ids::{from_hex, hex};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer, const N: usize>(bytes: &[u8; N], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>, const N: usize>(deserializer: D) -> Result<[u8; N], D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        from_hex(&text).ok_or_else(|| D::Error::custom("not an id"))
    }
}
