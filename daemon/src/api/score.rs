//! Takes a person's score of a turn or session, for every destination that has it.

use axum::{Json, body::Bytes, extract::State};

use super::{Context, failed::Failed, parse_json};
use crate::delivery::supervisor::Order;
use cc_core::{
    ids::{TraceId, from_hex},
    observation::TraceFacts,
    score::{Word, given},
    status::GiveScore,
};

/// Answers the addresses of the destinations for which it waits; 400 if the project is paused, or an id is none.
pub(super) async fn score(State(context): State<Context>, body: Bytes) -> Result<Json<Vec<String>>, Failed> {
    let request: GiveScore = parse_json(&body)?;
    let traces: Option<Vec<TraceId>> = request.traces.iter().map(|id| from_hex(id)).collect();
    let traces = traces.ok_or_else(|| Failed::asked("a trace has no id of 32 digits"))?;
    let store = &context.intake.store;
    let mut session_id = request.session_id.clone();
    if let (true, Some(trace)) = (session_id.is_empty(), traces.first()) {
        session_id = store.call(|store| store.owner(trace))?.unwrap_or_default();
    }
    let session = store.call(|store| store.session(&session_id))?;
    let dirs = session.as_ref().map(|session| session.hint.project_dirs.clone()).unwrap_or_default();
    if store.call(|store| store.is_paused(&dirs))? {
        return Err(Failed::asked("its project is paused: cc-langfusectl resume"));
    }
    let environment = session.and_then(|session| session.hint.options.environment);
    let facts = TraceFacts { session_id, environment, ..TraceFacts::default() };
    let GiveScore { is_turn, name, value, comment, at_ms, .. } = &request;
    let word = Word { is_turn: *is_turn, name, value, comment: comment.as_deref(), at_ms: *at_ms };
    let mut addresses = Vec::new();
    for row in store.call(|store| store.destinations())? {
        let api = row.destination.kind.backend().scores(&row.destination);
        if !api.is_some_and(|api| traces.first().is_some_and(|trace| api.takes(&given(word, *trace, &facts)))) {
            continue;
        }
        let make = |trace: TraceId| given(word, trace, &facts);
        if store.call(|store| store.give_score(row.id, &traces, &make))? {
            addresses.push(row.destination.address.clone());
            let _ = context.intake.orders.send(Order::Wake(row.id, row.destination));
        }
    }
    Ok(Json(addresses))
}
