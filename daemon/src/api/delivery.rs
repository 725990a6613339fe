//! What became of some traces, at each destination.

use axum::{Json, body::Bytes, extract::State, http::StatusCode};

use super::{Context, failed::Failed, parse_json};
use crate::store::Arrived;
use cc_core::{
    ids::{TraceId, from_hex},
    status::delivery::{AskDelivery, Delivery, TRACES},
};

pub(super) async fn delivery(State(context): State<Context>, body: Bytes) -> Result<Json<Vec<Delivery>>, Failed> {
    let ask: AskDelivery = parse_json(&body)?;
    Ok(Json(found(&context, &[ask.traces])?.pop().unwrap_or_default()))
}

/// The same for several groups of traces.
pub(super) async fn deliveries(
    State(context): State<Context>,
    body: Bytes,
) -> Result<Json<Vec<Vec<Delivery>>>, Failed> {
    let groups: Vec<Vec<String>> = parse_json(&body)?;
    found(&context, &groups).map(Json)
}

fn found(context: &Context, groups: &[Vec<String>]) -> Result<Vec<Vec<Delivery>>, Failed> {
    if groups.len() + groups.iter().map(Vec::len).sum::<usize>() > 2 * TRACES
        || groups.iter().any(|traces| traces.len() > TRACES)
    {
        return Err(Failed(StatusCode::PAYLOAD_TOO_LARGE, format!("more than {TRACES} traces")));
    }
    let ids = |traces: &Vec<String>| traces.iter().map(|trace| from_hex(trace)).collect::<Option<Vec<TraceId>>>();
    let groups: Option<Vec<Vec<TraceId>>> = groups.iter().map(ids).collect();
    let groups = groups.ok_or_else(|| Failed::asked("a trace has no id that is one"))?;
    let found = context.intake.store.call(|store| store.arrived(&groups))?;
    let name = |one: Arrived| {
        let name = context.configured.name(&one.destination).unwrap_or_else(|| one.called());
        Delivery { name, ..one.shown() }
    };
    Ok(found.into_iter().map(|group| group.into_iter().map(name).collect()).collect())
}
