//! What waits in the outbox: an observation with what describes its trace, or a span as earlier versions stored it.

use crate::{
    destination::{Destination, size, wire::WireSpan},
    ids::{SpanId, TraceId},
    observation::{Observation, TraceFacts},
};
use serde::{Deserialize, Serialize};

/// What waits.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// An observation: its span is made of it when it is sent.
    Observation(Box<Stored>),
    /// A span in the dialect of its destination, which goes out as it is.
    Span(WireSpan),
}

/// An observation with what describes its trace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stored {
    /// What describes its trace.
    pub facts: TraceFacts,
    /// The observation.
    pub observation: Observation,
}

/// How the body of an [`Item::Observation`] begins. That of a span begins with its trace.
const BEGIN: &str = "{\"facts\":";

/// The body of an observation, `facts` as [`facts`] writes them.
pub fn body(facts: &str, observation: &Observation) -> String {
    let observation = serde_json::to_string(observation).unwrap_or_default();
    [BEGIN, facts, ",\"observation\":", &observation, "}"].concat()
}

/// What describes a trace, for [`body`].
pub fn facts(facts: &TraceFacts) -> String {
    serde_json::to_string(facts).unwrap_or_default()
}

impl Item {
    /// What `body` holds.
    ///
    /// # Errors
    /// If it is neither, or was written by a later version.
    pub fn parse(body: &[u8]) -> serde_json::Result<Self> {
        if body.starts_with(BEGIN.as_bytes()) {
            return serde_json::from_slice(body).map(Self::Observation);
        }
        serde_json::from_slice(body).map(Self::Span)
    }

    /// Its body.
    pub fn body(&self) -> String {
        match self {
            Self::Observation(stored) => body(&facts(&stored.facts), &stored.observation),
            Self::Span(span) => serde_json::to_string(span).unwrap_or_default(),
        }
    }

    /// Its trace.
    pub fn trace_id(&self) -> TraceId {
        match self {
            Self::Observation(stored) => stored.observation.trace_id,
            Self::Span(span) => span.trace_id,
        }
    }

    /// Its own id.
    pub fn span_id(&self) -> SpanId {
        match self {
            Self::Observation(stored) => stored.observation.span_id,
            Self::Span(span) => span.span_id,
        }
    }

    /// The span that `to` is sent.
    pub fn encode(&self, to: &Destination) -> WireSpan {
        match self {
            Self::Observation(stored) => to.kind.backend().encode(to, &stored.observation, &stored.facts),
            Self::Span(span) => span.clone(),
        }
    }

    /// True if it shows an image or a document.
    pub fn shows_media(&self) -> bool {
        match self {
            Self::Observation(stored) => stored.observation.shows_media(),
            Self::Span(_) => false,
        }
    }

    /// The same as [`encode`](Self::encode), with type and size in the place of each image and document.
    pub fn encode_without_media(&self, to: &Destination) -> WireSpan {
        match self {
            Self::Observation(stored) if self.shows_media() => {
                let Stored { facts, observation } = &**stored;
                to.kind.backend().encode(to, &observation.with_text_for_media(size), facts)
            }
            Self::Observation(_) | Self::Span(_) => self.encode(to),
        }
    }

    /// Hands each text to `each`, in the same order every time.
    pub(super) fn each_text(&mut self, each: &mut impl FnMut(&mut String)) {
        match self {
            Self::Observation(stored) => {
                stored.observation.each_text(each);
                stored.facts.each_text(each);
            }
            Self::Span(span) => span.each_text(each),
        }
    }
}

#[cfg(test)]
mod tests;
