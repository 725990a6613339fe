//! The body of an outbox row: an observation with the facts of its trace, or an encoded span as earlier versions stored it.

use crate::{
    destination::{Destination, size, wire::WireSpan},
    ids::{SpanId, TraceId},
    observation::{Observation, TraceFacts},
};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// Encoded when it is sent.
    Observation(Box<Stored>),
    /// A span already encoded for its destination by an earlier version; sent as it is.
    Span(WireSpan),
}

/// An observation with the facts of its trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// Shared by the observations of a trace that are parsed one after the other.
    pub facts: Arc<TraceFacts>,
    pub observation: Observation,
}

/// The first bytes of an [`Item::Observation`]'s body. A span's body begins with its trace.
const BEGIN: &str = "{\"facts\":";
/// What stands between the facts and the observation, and what after it.
const MIDDLE: &str = ",\"observation\":";
const END: &str = "}";

/// The body of an [`Item::Observation`] whose facts are not parsed yet.
#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(borrow)]
    facts: &'a RawValue,
    observation: Observation,
}

/// Parses the bodies of a batch, and what several in a row have in common once.
#[derive(Debug, Default)]
pub struct Parser {
    /// The facts of the last one, as text and parsed.
    facts: Option<(String, Arc<TraceFacts>)>,
}

impl Parser {
    /// Parses a body.
    ///
    /// # Errors
    /// If it is of no known form, or was written by a later version.
    pub fn parse(&mut self, body: &[u8]) -> serde_json::Result<Item> {
        let Some(rest) = body.strip_prefix(BEGIN.as_bytes()) else {
            return serde_json::from_slice(body).map(Item::Span);
        };
        if let Some((text, facts)) = &self.facts
            && let Some(rest) = rest.strip_prefix(text.as_bytes()).and_then(|rest| rest.strip_prefix(MIDDLE.as_bytes()))
            && let Some(observation) = rest.strip_suffix(END.as_bytes())
            && let Ok(observation) = serde_json::from_slice(observation)
        {
            return Ok(Item::Observation(Box::new(Stored { facts: facts.clone(), observation })));
        }
        let Raw { facts, observation } = serde_json::from_slice(body)?;
        let (_, facts) = self.facts.insert((facts.get().to_owned(), Arc::new(serde_json::from_str(facts.get())?)));
        Ok(Item::Observation(Box::new(Stored { facts: facts.clone(), observation })))
    }
}

/// The body of an observation; `facts` as [`facts`] serialises them.
pub fn body(facts: &str, observation: &Observation) -> String {
    let observation = serde_json::to_string(observation).unwrap_or_default();
    [BEGIN, facts, MIDDLE, &observation, END].concat()
}

/// The facts of a trace, serialised for [`body`].
pub fn facts(facts: &TraceFacts) -> String {
    serde_json::to_string(facts).unwrap_or_default()
}

impl Item {
    /// Parses a body, as [`Parser::parse`].
    ///
    /// # Errors
    /// As there.
    pub fn parse(body: &[u8]) -> serde_json::Result<Self> {
        Parser::default().parse(body)
    }

    pub fn body(&self) -> String {
        match self {
            Self::Observation(stored) => body(&facts(&stored.facts), &stored.observation),
            Self::Span(span) => serde_json::to_string(span).unwrap_or_default(),
        }
    }

    pub fn trace_id(&self) -> TraceId {
        match self {
            Self::Observation(stored) => stored.observation.trace_id,
            Self::Span(span) => span.trace_id,
        }
    }

    pub fn span_id(&self) -> SpanId {
        match self {
            Self::Observation(stored) => stored.observation.span_id,
            Self::Span(span) => span.span_id,
        }
    }

    /// True for the observation of a whole turn.
    pub fn is_root(&self) -> bool {
        match self {
            Self::Observation(stored) => stored.observation.is_root(),
            Self::Span(span) => span.is_root(),
        }
    }

    /// The span as it is sent to `to`.
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

    /// Like [`encode`](Self::encode), with type and size in place of each image and document.
    pub fn encode_without_media(&self, to: &Destination) -> WireSpan {
        match self {
            Self::Observation(stored) if self.shows_media() => {
                let Stored { facts, observation } = &**stored;
                to.kind.backend().encode(to, &observation.with_text_for_media(size), facts)
            }
            Self::Observation(_) | Self::Span(_) => self.encode(to),
        }
    }

    /// Calls `each` with every text, always in the same order.
    pub(super) fn each_text(&mut self, each: &mut impl FnMut(&mut String)) {
        match self {
            Self::Observation(stored) => {
                stored.observation.each_text(each);
                Arc::make_mut(&mut stored.facts).each_text(each);
            }
            Self::Span(span) => span.each_text(each),
        }
    }
}

#[cfg(test)]
mod tests;
