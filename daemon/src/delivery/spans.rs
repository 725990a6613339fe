//! The lane of spans: batches as large as the server accepts. Spans it accepts in no size are cut, or become dead letters.
//!
//! Rows leave the outbox only after a 2xx, so what is sent again after a kill is the same bytes.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::sync::Semaphore;

use super::{
    client::Limits,
    connect::Route,
    link::Link,
    supervisor::InFlight,
    worker::{After, At, Lane, chance},
};
use crate::{
    clock::now_ms,
    store::{self, Row, span_name},
};
use cc_core::{
    delivery::policy::{self, Plan, Sent, Step},
    destination::Destination,
    ids::hex,
    secret::Secrets,
    verdict::{Answer, Verdict},
};

pub(super) struct Spans {
    /// Shared by the destinations at one address.
    turns: Arc<Semaphore>,
    in_flight: InFlight,
    plan: Plan,
}

impl Spans {
    pub(super) fn new(to: &Destination, turns: Arc<Semaphore>, in_flight: InFlight) -> Self {
        Self { turns, in_flight, plan: Plan::new(to.kind.backend().manners(to)) }
    }

    /// The next step after `verdict` on what was `sent`, and whether the server asked to wait.
    fn decide(&mut self, verdict: Verdict, sent: Sent) -> (Step, bool) {
        let asked = matches!(&verdict, Verdict::Later(Some(wait), _) if !wait.is_zero());
        let (plan, step) = policy::next(self.plan, verdict, sent, chance());
        self.plan = plan;
        (step, asked)
    }
}

async fn bury(at: &At, row: &Row, why: String) -> After {
    tracing::warn!(span = span_name(&row.item), why, "no server takes this span; see `cc-langfusectl status`");
    at.keep_trying(Spans::WHAT, |store| store.bury(at.id, row.seq, &why, now_ms())).await;
    After::Next
}

/// Logs each turn in a batch that was delivered, so that the log shows what becomes of them.
fn say_turns(to: &Destination, batch: &[Row]) {
    for row in batch.iter().filter(|row| row.item.is_root()) {
        let trace = hex(&row.item.trace_id());
        match to.kind.backend().shortcut(to, &trace) {
            Some(url) => tracing::info!(url, "turn delivered"),
            None => tracing::info!(trace, to = to.address, "turn delivered"),
        }
    }
}

impl Lane for Spans {
    type Batch = Vec<Row>;
    type Way = Link;

    const WHAT: &str = "spans";

    fn limits(&self) -> Limits {
        Limits::default()
    }

    fn way(&self, route: Route, to: &Destination, secrets: &Secrets) -> Result<Link, String> {
        Link::new(route, to, secrets, self.limits()).map_err(|error| format!("{error:#}"))
    }

    fn resumed(&self, at: &At) -> Option<(Duration, bool)> {
        let row = at.keys.store.call(|store| store.destination(at.id)).ok()??;
        (row.state == "retrying").then(|| policy::resume(row.next_at_ms, now_ms()))
    }

    fn claim(&self, at: &At) -> Result<Option<Vec<Row>>, store::Error> {
        let plan = self.plan;
        at.keys.store.call(|store| {
            if let Some(bytes) = plan.smaller_than()
                && let Some(row) = store.claim_smaller(at.id, bytes)?
            {
                return Ok(Some(vec![row]));
            }
            Ok(Some(store.claim(at.id, plan.batch(), plan.bytes.now)?).filter(|batch| !batch.is_empty()))
        })
    }

    async fn send(&mut self, at: &At, way: &Link, batch: &mut Vec<Row>) -> After {
        let to = &at.keys.destination;
        // The semaphore is never closed, so this only waits.
        let turn = self.turns.clone().acquire_owned().await;
        if at.is_stopping() {
            return After::Next;
        }
        self.in_flight.fetch_add(batch.len(), Ordering::Relaxed);
        let limit = self.plan.answer_limit(batch.len());
        let shows_media = batch.iter().any(|row| row.item.shows_media());
        let names_media = !shows_media || Box::pin(way.takes_media(to)).await;
        let encode = |row: &Row| if names_media { row.item.encode(to) } else { row.item.encode_without_media(to) };
        let spans = batch.iter().map(encode).collect();
        let (answer, took) = Box::pin(way.send_with(spans, limit)).await;
        self.in_flight.fetch_sub(batch.len(), Ordering::Relaxed);
        drop(turn);
        let trace = batch.first().map(|row| row.item.trace_id());
        let of_one_trace = batch.iter().take_while(|row| Some(row.item.trace_id()) == trace).count();
        let bytes = batch.iter().map(|row| row.bytes).sum();
        let sent = Sent { spans: batch.len(), of_one_trace, bytes, took };
        let (step, asked) = self.decide(to.kind.judge(&answer), sent);
        match step {
            Step::Done => {
                let mut rejected = 0;
                if let Answer::Response { rejected: Some((count, why)), .. } = &answer {
                    rejected = (*count).min(batch.len() as u64);
                    tracing::warn!(count = rejected, why, "the server took the batch but not all of its spans");
                }
                tracing::debug!(spans = batch.len(), to = to.address, "delivered");
                at.keep_trying(Self::WHAT, |store| store.delivered(at.id, batch, rejected, now_ms())).await;
                say_turns(to, batch);
                After::Delivered
            }
            Step::Wait(wait, why) => After::Wait(wait, asked, why),
            Step::Park(why) => After::Park(matches!(answer, Answer::Response { status: 404, .. }), why),
            Step::Split => After::Next,
            Step::Shrink(why) => {
                let Some(row) = batch.first_mut() else { return After::Next };
                if !policy::shrink(&mut row.item) {
                    return bury(at, row, why).await;
                }
                tracing::info!(span = span_name(&row.item), "cut, because its server takes no larger one");
                at.keep_trying(Self::WHAT, |store| store.replace(at.id, row)).await;
                After::Next
            }
            Step::Bury(why) => {
                let Some(row) = batch.first() else { return After::Next };
                bury(at, row, why).await
            }
        }
    }

    fn no_way(&mut self, verdict: Verdict) -> After {
        match self.decide(verdict, Sent::default()) {
            (Step::Wait(wait, why), asked) => After::Wait(wait, asked, why),
            (Step::Park(why) | Step::Shrink(why) | Step::Bury(why), _) => After::Park(false, why),
            (Step::Done | Step::Split, _) => After::Next,
        }
    }

    fn postpone(&mut self, at: &At, _: &Vec<Row>, state: &'static str, wait: Duration, why: &str, news: bool) {
        let to = &at.keys.destination.address;
        match state {
            "retrying" if news => tracing::warn!(to, why, "not delivered; trying again until it is"),
            "retrying" => tracing::debug!(to, why, ?wait, "not delivered"),
            _ if news => tracing::warn!(to, why, "{state}; nothing is lost"),
            _ => {}
        }
        let now = now_ms();
        let until = now.saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX));
        let noted = at.keys.store.call(|store| store.postpone(at.id, state, until, why, now));
        if let Err(error) = noted {
            tracing::warn!(%error, "the state of a destination cannot be stored");
        }
    }
}
