//! The lane of scores: beside the spans, which never wait for it. The backend decides each request and what its answer means.
//!
//! A score leaves its table only after the server has said yes to it. After a kill it is sent again with the same id, which makes it
//! an update with the same value.

use std::time::Duration;

use super::{
    client::Limits,
    connect::Route,
    media::Way,
    reply::Asked,
    worker::{After, At, Lane, chance},
};
use crate::{
    clock::now_ms,
    store::{self, scores::ScoreRow},
};
use cc_core::{
    delivery::policy::backoff,
    destination::{
        Destination,
        scoring::{self, Fate, MOST_REQUESTS, Next, Reply},
    },
    score::Score,
    secret::Secrets,
    verdict::Verdict,
};

#[derive(Default)]
pub(super) struct Scores {
    /// Failed tries in a row.
    failures: u32,
    /// The server refused a batch for one of its scores: they go one by one until all that waited are settled.
    one_by_one: bool,
}

impl Lane for Scores {
    type Batch = Vec<ScoreRow>;
    type Way = Way;

    const WHAT: &str = "scores";

    fn limits(&self) -> Limits {
        Limits::default()
    }

    fn way(&self, route: Route, to: &Destination, secrets: &Secrets) -> Result<Way, String> {
        match route {
            Route::Server(server) => {
                let (client, endpoint) = *server;
                Ok(Way::new(client, endpoint, to, secrets))
            }
            Route::Files(_) => Err("no scores are written to a directory".into()),
        }
    }

    fn claim(&self, at: &At) -> Result<Option<Vec<ScoreRow>>, store::Error> {
        let to = &at.keys.destination;
        let Some(api) = to.kind.backend().scores(to) else { return Ok(None) };
        let most = if self.one_by_one { 1 } else { api.most() };
        let rows = at.keys.store.call(|store| store.next_scores(at.id, most))?;
        Ok(Some(rows).filter(|rows| !rows.is_empty()))
    }

    async fn send(&mut self, at: &At, way: &Way, batch: &mut Vec<ScoreRow>) -> After {
        match self.exchange(at, way, batch).await {
            Reply::Each(fates) => self.settle(at, batch, &fates).await,
            Reply::Later(after, why) => self.wait(after, why),
            Reply::Absent(why) => self.absent(at, batch, &why).await,
            Reply::Park(why) => After::Park(false, why),
            Reply::Refused(_) if batch.len() > 1 => {
                self.one_by_one = true;
                After::Next
            }
            Reply::Refused(why) => self.settle(at, batch, &[Fate::Refused(why)]).await,
            // If spans do not arrive either, it may be another server, or one that is starting up.
            Reply::Unsupported(why) if !Way::takes_spans(at) => self.wait(None, why),
            Reply::Unsupported(why) => {
                tracing::warn!(to = at.keys.destination.address, why, "the server takes no scores");
                at.keep_trying(Self::WHAT, |store| store.scores_unsupported(at.id)).await;
                After::Next
            }
        }
    }

    fn no_way(&mut self, verdict: Verdict) -> After {
        match verdict {
            Verdict::Delivered | Verdict::Elsewhere(_) => After::Next,
            Verdict::Later(after, why) => self.wait(after, why),
            Verdict::Silent(why) => self.wait(None, why),
            Verdict::Park(why) | Verdict::Refused(why) | Verdict::TooLarge(why) => After::Park(false, why),
        }
    }

    fn postpone(&mut self, at: &At, batch: &Vec<ScoreRow>, _: &'static str, _: Duration, why: &str, news: bool) {
        if news {
            let to = &at.keys.destination.address;
            tracing::warn!(to, why, "scores cannot be sent; trying again, spans do not wait");
        }
        if let Err(error) = at.keys.store.call(|store| store.scores_postponed(at.id, batch, why)) {
            tracing::warn!(%error, "why scores wait cannot be stored");
        }
    }
}

impl Scores {
    async fn exchange(&self, at: &At, way: &Way, batch: &[ScoreRow]) -> Reply {
        let to = &at.keys.destination;
        let Some(api) = to.kind.backend().scores(to) else {
            return Reply::Unsupported("its kind of server takes none".into());
        };
        let scores: Vec<Score> = batch.iter().map(|row| row.score.clone()).collect();
        let mut answers = Vec::new();
        while answers.len() < MOST_REQUESTS {
            match api.next(&way.place(to), &scores, &answers) {
                Next::End(reply) => return reply,
                Next::Ask(request) => answers.push(way.exchange(*request, Asked::Api, self.limits()).await),
            }
        }
        Reply::Later(None, format!("{MOST_REQUESTS} requests came to no end"))
    }

    /// The server does not have the traces of these: they wait, but not for ever.
    async fn absent(&mut self, at: &At, batch: &[ScoreRow], why: &str) -> After {
        let fate = |row: &ScoreRow| {
            let waited = Duration::from_millis(u64::try_from(now_ms() - row.queued_ms).unwrap_or_default());
            let waits = at.keys.store.call(|store| store.does_trace_wait(at.id, &row.score.trace_id));
            scoring::absent(waited, waits.unwrap_or(true), why)
        };
        let fates: Vec<Fate> = batch.iter().map(fate).collect();
        self.settle(at, batch, &fates).await
    }

    async fn settle(&mut self, at: &At, batch: &[ScoreRow], fates: &[Fate]) -> After {
        let mut later = None;
        let mut taken = Vec::new();
        for (row, fate) in batch.iter().zip(fates) {
            match fate {
                Fate::Taken => taken.push(row),
                Fate::Later(why) => later = Some(why.clone()),
                Fate::Refused(why) => {
                    tracing::warn!(score = row.score.name, why, "the server does not take this score");
                    at.keep_trying(Self::WHAT, |store| store.bury_score(at.id, row, why, now_ms())).await;
                }
            }
        }
        at.keep_trying(Self::WHAT, |store| store.scores_taken(at.id, &taken)).await;
        if let Some(why) = later {
            return self.wait(None, why);
        }
        (self.failures, self.one_by_one) = (0, self.one_by_one && taken.is_empty());
        After::Delivered
    }

    fn wait(&mut self, after: Option<Duration>, why: String) -> After {
        let wait = backoff(self.failures, chance()).max(after.unwrap_or_default());
        self.failures = self.failures.saturating_add(1);
        After::Wait(wait, after.is_some_and(|after| !after.is_zero()), why)
    }
}
