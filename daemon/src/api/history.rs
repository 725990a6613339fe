//! The requests of `backfill` and `import-state`.

use axum::{Json, body::Bytes, extract::State, http::StatusCode};

use super::{Context, failed::Failed, parse_json};
use cc_core::{
    ids::{SpanKey, from_hex},
    import_state::Imported,
    status::history::{Ask, Found, Known, SPANS, Taken, read_call},
};

fn key((trace, span, call): &(String, String, Option<String>)) -> Option<SpanKey> {
    let call = match call {
        Some(call) => Some(read_call(call)?),
        None => None,
    };
    Some((from_hex(trace)?, from_hex(span)?, call))
}

pub(super) async fn known(State(context): State<Context>, body: Bytes) -> Result<Json<Known>, Failed> {
    let ask: Ask = parse_json(&body)?;
    let keys: Vec<SpanKey> = ask
        .spans
        .iter()
        .map(key)
        .collect::<Option<_>>()
        .ok_or_else(|| Failed::asked("a span has no id that is one"))?;
    if keys.len() > SPANS || ask.events.len() > SPANS {
        return Err(Failed(StatusCode::PAYLOAD_TOO_LARGE, format!("more than {SPANS} spans or events")));
    }
    let found = context.intake.store.call(|store| {
        let rows = store.destinations()?;
        let row = rows.into_iter().find(|row| row.destination == ask.destination);
        let dead = store.dead_letter_count()?;
        Ok((store.known(&ask.destination, &keys)?, store.waiting_events(&ask.events)?, row, dead))
    });
    let (found, events, row, dead_letters) = found?;
    let letter = |found| match found {
        Found::Sent => 's',
        Found::Copy => 'c',
        Found::Suppressed => 'w',
        Found::Unknown => '-',
    };
    Ok(Json(Known {
        spans: found.into_iter().map(letter).collect(),
        events,
        destination: row.map(|row| super::destination(row, &context.configured, context.outbox_bytes)),
        dead_letters,
        pid: std::process::id(),
    }))
}

pub(super) async fn imported(State(context): State<Context>) -> Result<Json<Vec<Imported>>, Failed> {
    let all = context.intake.store.call(|store| store.all_imported());
    all.map(Json).map_err(Failed::from)
}

pub(super) async fn import(State(context): State<Context>, body: Bytes) -> Result<Json<Taken>, Failed> {
    let sessions: Vec<Imported> = parse_json(&body)?;
    let imported = context.intake.store.call(|store| store.import(&sessions));
    let imported = imported?;
    Ok(Json(Taken { imported, known: sessions.len() - imported }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cc_core::ids::{Call, hex};

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
