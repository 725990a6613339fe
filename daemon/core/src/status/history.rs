//! What `backfill` asks of what is known already.

use serde::{Deserialize, Serialize};

use super::Destination;
use crate::ids::{Call, SpanKey, from_hex, hex};

/// Most spans that can be asked for at once.
pub const SPANS: usize = 4000;

/// `POST /v1/known`: what is known of spans, what became of events, and how it stands with their destination.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ask {
    /// Where the spans go.
    pub destination: crate::destination::Destination,
    /// Each span in hex: its trace, its own id, and the model call it is part of: its id, what else it is known by, and when it was.
    #[serde(default)]
    pub spans: Vec<(String, String, Option<String>)>,
    /// Events, by id.
    #[serde(default)]
    pub events: Vec<String>,
}

/// The answer to that.
#[derive(Debug, Serialize, Deserialize)]
pub struct Known {
    /// One letter for each span: `s`ent before, part of a call emitted elsewhere (`c`opy), suppressed (`w`) because the user said so, or
    /// unknown (`-`).
    pub spans: String,
    /// Those of the events that are not dealt with.
    pub events: Vec<String>,
    /// The destination, if anything was ever to go there.
    pub destination: Option<Destination>,
    /// Spans that no server takes, wherever they were to go.
    pub dead_letters: u64,
    /// The daemon's process: another one knows nothing that was only in the memory of this one.
    pub pid: u32,
}

/// `POST /v1/imported`: what became of sessions that another tool has begun to send.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// Reading begins behind what was sent.
    pub imported: usize,
    /// They were read before and stay as they are.
    pub known: usize,
}

impl Ask {
    /// A span as it is asked for.
    pub fn span((trace, span, call): &SpanKey) -> (String, String, Option<String>) {
        (hex(trace), hex(span), call.as_ref().map(written))
    }
}

/// A call in one word.
fn written(call: &Call) -> String {
    let mut word = hex(&call.id);
    for proof in &call.proofs {
        word.push('.');
        word.extend(proof.iter().map(|proof| hex(proof)));
    }
    word.push('.');
    word.extend(call.at.map(|at| at.to_string()));
    word
}

/// The call that `written` wrote so; earlier versions write its id alone.
pub fn read_call(word: &str) -> Option<Call> {
    let mut parts = word.split('.');
    let id = from_hex(parts.next()?)?;
    let mut proof = || parts.next().and_then(from_hex);
    let proofs = [proof(), proof(), proof()];
    Some(Call { id, proofs, at: parts.next().and_then(|at| at.parse().ok()) })
}

/// What is known of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It never entered the outbox.
    Unknown,
    /// It entered the outbox once.
    Sent,
    /// It is part of a call that was emitted in another trace.
    Copy,
    /// The user has paused its project or forgotten its trace.
    Withheld,
}
