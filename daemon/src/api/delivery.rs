//! What became of some traces, at each destination.

use axum::{Json, body::Bytes, extract::State, http::StatusCode};

use super::{Context, failed::Failed, parse_json};
use cc_core::{
    ids::{TraceId, from_hex},
    status::delivery::{AskDelivery, Delivery, TRACES},
};

pub(super) async fn delivery(State(context): State<Context>, body: Bytes) -> Result<Json<Vec<Delivery>>, Failed> {
    let ask: AskDelivery = parse_json(&body)?;
    if ask.traces.len() > TRACES {
        return Err(Failed(StatusCode::PAYLOAD_TOO_LARGE, format!("more than {TRACES} traces")));
    }
    let traces: Option<Vec<TraceId>> = ask.traces.iter().map(|trace| from_hex(trace)).collect();
    let traces = traces.ok_or_else(|| Failed::asked("a trace has no id that is one"))?;
    let found = context.intake.store.call(|store| store.arrived(&traces))?;
    let named = found.into_iter().map(|one| Delivery {
        name: context.configured.name(&one.destination).unwrap_or_else(|| one.called()),
        ..one.shown()
    });
    Ok(Json(named.collect()))
}
