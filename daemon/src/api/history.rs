//! What `backfill` and `import-state` ask.

use axum::{Json, body::Bytes, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};

use super::{Context, Destination, wish};
use crate::{
    hook,
    ids::{Call, from_hex, hex},
    import_state::Imported,
    store::{Found, SpanKey},
};

/// Most spans that can be asked for at once.
pub const SPANS: usize = 4000;

/// `POST /v1/known`: what is known of spans, what became of events, and how it stands with their destination.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ask {
    /// Where the spans go.
    pub destination: hook::Destination,
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
    /// One letter for each span: `s`ent before, part of a call told elsewhere (`c`opy), `w`ithheld because the user said so, or
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

/// The call that [`written`] wrote so; earlier versions write its id alone.
fn read(word: &str) -> Option<Call> {
    let mut parts = word.split('.');
    let id = from_hex(parts.next()?)?;
    let mut proof = || parts.next().and_then(from_hex);
    let proofs = [proof(), proof(), proof()];
    Some(Call { id, proofs, at: parts.next().and_then(|at| at.parse().ok()) })
}

fn key((trace, span, call): &(String, String, Option<String>)) -> Option<SpanKey> {
    let call = match call {
        Some(call) => Some(read(call)?),
        None => None,
    };
    Some((from_hex(trace)?, from_hex(span)?, call))
}

pub(super) async fn known(State(context): State<Context>, body: Bytes) -> Result<Json<Known>, StatusCode> {
    let ask: Ask = wish(&body)?;
    let keys: Vec<SpanKey> = ask.spans.iter().map(key).collect::<Option<_>>().ok_or(StatusCode::BAD_REQUEST)?;
    if keys.len() > SPANS || ask.events.len() > SPANS {
        return Err(StatusCode::PAYLOAD_TOO_LARGE);
    }
    let found = context.intake.store.call(|store| {
        let rows = store.destinations()?;
        let row = rows.into_iter().find(|row| row.destination == ask.destination);
        let dead = store.dead_letter_count()?;
        Ok((store.known(&ask.destination, &keys)?, store.waiting_events(&ask.events)?, row, dead))
    });
    let (found, events, row, dead_letters) = found.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    let letter = |found| match found {
        Found::Sent => 's',
        Found::Copy => 'c',
        Found::Withheld => 'w',
        Found::Unknown => '-',
    };
    Ok(Json(Known {
        spans: found.into_iter().map(letter).collect(),
        events,
        destination: row.map(|row| Destination::of(row, context.outbox_bytes)),
        dead_letters,
        pid: std::process::id(),
    }))
}

pub(super) async fn imported(State(context): State<Context>) -> Result<Json<Vec<Imported>>, StatusCode> {
    let all = context.intake.store.call(|store| store.all_imported());
    all.map(Json).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

pub(super) async fn import(State(context): State<Context>, body: Bytes) -> Result<Json<Taken>, StatusCode> {
    let sessions: Vec<Imported> = wish(&body)?;
    let imported = context.intake.store.call(|store| store.import(&sessions));
    let imported = imported.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(Json(Taken { imported, known: sessions.len() - imported }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_understood_and_nothing_else() {
        for (at, request) in [(Some(7), None), (None, Some("req_1"))] {
            let asked: SpanKey = ([0xab; 16], [1; 8], Some(Call::of("msg_1", at, request, None)));
            assert_eq!(key(&Ask::span(&asked)), Some(asked));
        }
        let asked: SpanKey = ([0xab; 16], [1; 8], Some(Call { id: [0xff; 16], proofs: [None; 3], at: None }));
        let old = (hex(&asked.0), hex(&asked.1), Some(hex(&[0xff; 16])));
        assert_eq!(key(&old), Some(asked), "from an earlier version");
        assert_eq!(key(&Ask::span(&(asked.0, asked.1, None))), Some((asked.0, asked.1, None)));
        for bad in ["", "0", &"g".repeat(16), &"0".repeat(17), "äääääääää"] {
            assert_eq!(from_hex::<8>(bad), None, "{bad}");
        }
    }
}
