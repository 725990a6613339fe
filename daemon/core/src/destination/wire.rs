//! A span in the words of its backend, as it goes over the wire.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    ids::{SpanId, TraceId},
    observation::as_hex,
};

/// A span in a backend's dialect. Versions that stored spans in this form wrote no status but an error, and neither kind nor events
/// nor links.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WireSpan {
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
    /// OTLP status.
    #[serde(default, rename = "error", skip_serializing_if = "Status::is_no_error")]
    pub status: Status,
    /// Attributes in the order they are sent.
    pub attributes: Vec<(Cow<'static, str>, Value)>,
    /// OTLP span kind.
    #[serde(skip)]
    pub kind: SpanKind,
    /// OTLP span events.
    #[serde(skip)]
    pub events: Vec<SpanEvent>,
    /// Spans that it has to do with.
    #[serde(skip)]
    pub links: Vec<(TraceId, SpanId)>,
}

/// OTLP status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Status {
    /// Nothing is said.
    #[default]
    Unset,
    /// It went well.
    Ok,
    /// It failed, with this message.
    Error(String),
}

impl Status {
    fn is_no_error(&self) -> bool {
        !matches!(self, Self::Error(_))
    }

    /// The message of an error.
    pub fn error(&self) -> Option<&str> {
        match self {
            Self::Unset | Self::Ok => None,
            Self::Error(message) => Some(message),
        }
    }
}

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.error().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::<String>::deserialize(deserializer)?.map_or(Self::Unset, Self::Error))
    }
}

/// OTLP span kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpanKind {
    /// Work of this process.
    #[default]
    Internal,
    /// A request to another one.
    Client,
}

/// An OTLP span event.
#[derive(Clone, Debug, PartialEq)]
pub struct SpanEvent {
    /// Its name.
    pub name: &'static str,
    /// When, nanoseconds since the epoch.
    pub at_ns: u64,
    /// Its attributes.
    pub attributes: Vec<(Cow<'static, str>, Value)>,
}

impl SpanEvent {
    /// The `exception` event of OpenTelemetry's conventions.
    pub fn exception(at_ns: u64, kind: &str, message: &str) -> Self {
        let text = |text: &str| Value::Text(text.to_owned());
        let attributes = vec![("exception.type".into(), text(kind)), ("exception.message".into(), text(message))];
        Self { name: "exception", at_ns, attributes }
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
    /// Yes or no.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Double(f64),
}

impl Value {
    /// Bytes of text in it.
    pub fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::List(items) => items.iter().map(String::len).sum(),
            Self::Bool(_) | Self::Int(_) | Self::Double(_) => 0,
        }
    }

    /// True if there is no text in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl WireSpan {
    /// True if it is the root of its trace.
    pub fn is_root(&self) -> bool {
        self.parent_id == [0; 8]
    }

    /// Hands each text to `each`, but for its name and lists.
    pub(crate) fn each_text(&mut self, each: &mut impl FnMut(&mut String)) {
        for (_, value) in &mut self.attributes {
            match value {
                Value::Text(text) => each(text),
                Value::List(_) | Value::Bool(_) | Value::Int(_) | Value::Double(_) => {}
            }
        }
        if let Status::Error(message) = &mut self.status {
            each(message);
        }
    }

    /// The attribute called `key`, if it is text.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.attributes.iter().find_map(|(k, value)| match value {
            Value::Text(text) if k == key => Some(text.as_str()),
            _ => None,
        })
    }
}
