//! The requests of `backfill` and `import-state`: what is known of spans, events and sessions.

use serde::{Deserialize, Serialize};

use super::Destination;
use crate::ids::{Call, SpanKey, from_hex, hex};

/// How many spans one request may ask for at most.
pub const SPANS: usize = 4000;

/// `POST /v1/known`: asks for the state of spans, events and a destination.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ask {
    /// The destination of the spans.
    pub destination: crate::destination::Destination,
    /// For each span in hex: trace, span id, and the model call it belongs to, as `written` encodes it.
    #[serde(default)]
    pub spans: Vec<(String, String, Option<String>)>,
    /// Event ids.
    #[serde(default)]
    pub events: Vec<String>,
}

/// The answer.
#[derive(Debug, Serialize, Deserialize)]
pub struct Known {
    /// One letter for each span: `s`ent before, `c`opy of a call emitted elsewhere, `w` for suppressed, `-` for unknown.
    pub spans: String,
    /// Those that are still pending.
    pub events: Vec<String>,
    /// `None` if nothing was ever queued for it.
    pub destination: Option<Destination>,
    /// Spans that no server accepts, of all destinations.
    pub dead_letters: u64,
    /// The daemon's process id: a new process has lost what only the old one's memory held.
    pub pid: u32,
}

/// `POST /v1/imported`: how many sessions of another tool were taken over.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// Reading starts after what that tool sent.
    pub imported: usize,
    /// These were read before and stay as they are.
    pub known: usize,
}

impl Ask {
    /// A span in the form of [`Ask::spans`].
    pub fn span((trace, span, call): &SpanKey) -> (String, String, Option<String>) {
        (hex(trace), hex(span), call.as_ref().map(written))
    }
}

/// A call as one word.
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

/// Parses a call that `written` encoded. Earlier versions write only its id.
pub fn read_call(word: &str) -> Option<Call> {
    let mut parts = word.split('.');
    let id = from_hex(parts.next()?)?;
    let mut proof = || parts.next().and_then(from_hex);
    let proofs = [proof(), proof(), proof()];
    Some(Call { id, proofs, at: parts.next().and_then(|at| at.parse().ok()) })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It was never queued.
    Unknown,
    /// It was queued before.
    Sent,
    /// Its call was emitted in another trace.
    Copy,
    /// The user has paused its project or forgotten its trace.
    Suppressed,
}
