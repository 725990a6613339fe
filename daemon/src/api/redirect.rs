//! Hands what waits for a destination to another one, or drops it.

use axum::{Json, body::Bytes, extract::State};

use super::{Context, failed::Failed, parse_json};
use crate::{delivery::supervisor::Order, store::DestinationId};
use cc_core::{
    destination::Destination,
    status::{Place, Redirect, Redirected},
};

/// Answers how much was handed over; 400 for an unknown destination.
pub(super) async fn redirect(State(context): State<Context>, body: Bytes) -> Result<Json<Redirected>, Failed> {
    let request: Redirect = parse_json(&body)?;
    let (from, place) = known(&context, request.from)?;
    let Some(to) = request.to else {
        let dropped = context.intake.store.call(|store| store.drop_waiting(from));
        return dropped.map(Json).map_err(Failed::from);
    };
    let (to, destination) = known(&context, to)?;
    if from == to {
        return Err(Failed::asked("both are the same destination"));
    }
    let is_same_kind = place.kind == destination.kind;
    let backend = destination.kind.backend();
    let (media, takes_scores) = (backend.manners(&destination).media, backend.scores(&destination).is_some());
    let mut sum = Redirected::default();
    context.intake.store.call(|store| store.move_calls(from, to))?;
    let mut after = Some(i64::MIN);
    while let Some(row) = after {
        after = context.intake.store.call(|store| store.move_spans(from, (to, is_same_kind), row, &mut sum))?;
    }
    context.intake.store.call(|store| store.move_rest(from, (to, media, takes_scores), &mut sum))?;
    let _ = context.intake.orders.send(Order::Wake(to, destination));
    Ok(Json(sum))
}

fn known(context: &Context, place: Place) -> Result<(DestinationId, Destination), Failed> {
    let unknown = |place: &str| Failed::asked(format!("no destination at {place} is known"));
    let address = place.base_url.clone();
    let destination = place.destination().ok_or_else(|| unknown(&address))?;
    let id = context.intake.store.call(|store| store.destination_id(&destination))?;
    Ok((id.ok_or_else(|| unknown(&address))?, destination))
}
