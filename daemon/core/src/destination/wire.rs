//! A span as it is sent, in the attributes of its backend.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    ids::{SpanId, TraceId},
    observation::as_hex,
};

/// Stored spans from earlier versions have an error status or none, and no kind, events or links.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WireSpan {
    #[serde(with = "as_hex")]
    pub trace_id: TraceId,
    #[serde(with = "as_hex")]
    pub span_id: SpanId,
    /// All zeros for a root.
    #[serde(with = "as_hex")]
    pub parent_id: SpanId,
    pub name: String,
    /// Unix nanoseconds.
    pub start_ns: u64,
    /// Unix nanoseconds.
    pub end_ns: u64,
    #[serde(default, rename = "error", skip_serializing_if = "Status::is_no_error")]
    pub status: Status,
    /// In the order they are sent.
    pub attributes: Vec<(Cow<'static, str>, Value)>,
    #[serde(skip)]
    pub kind: SpanKind,
    #[serde(skip)]
    pub events: Vec<SpanEvent>,
    /// Related spans.
    #[serde(skip)]
    pub links: Vec<(TraceId, SpanId)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Status {
    #[default]
    Unset,
    Ok,
    /// With its message.
    Error(String),
}

impl Status {
    fn is_no_error(&self) -> bool {
        !matches!(self, Self::Error(_))
    }

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

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpanKind {
    #[default]
    Internal,
    /// A request to another process.
    Client,
}

#[derive(Clone, Debug, PartialEq)]
pub struct SpanEvent {
    pub name: &'static str,
    /// Unix nanoseconds.
    pub at_ns: u64,
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
    /// Also objects, as JSON.
    Text(String),
    /// Never empty: Langfuse shows an empty list as a string.
    List(Vec<String>),
    Bool(bool),
    Int(i64),
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

    /// True if it contains no text.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl WireSpan {
    pub fn is_root(&self) -> bool {
        self.parent_id == [0; 8]
    }

    /// Calls `each` with every text except the name and lists.
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

    /// The attribute `key`, if it is text.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.attributes.iter().find_map(|(k, value)| match value {
            Value::Text(text) if k == key => Some(text.as_str()),
            _ => None,
        })
    }
}
