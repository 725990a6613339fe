//! One task per destination: takes spans from the outbox, sends them, does what the answer asks for.
//!
//! Batches of a destination go out one after another; rows leave the outbox when the server has answered 2xx and not
//! before, so whatever happens in between, the same bytes go out again.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Notify, Semaphore, mpsc, watch};

use super::{
    access::{Access, PARKED},
    connect::Known,
    link::Link,
    media::Uploader,
    proxies,
    transport::Limits,
};
use crate::{
    clock::now_ms,
    store::{DestinationId, Row, Store, handle::Handle},
};
use cc_core::{
    delivery::{
        item::Item,
        policy::{self, PROBE, Plan, Sent, Step},
    },
    destination::Destination,
    secret::Secrets,
    verdict::{Answer, Verdict},
};

/// Where nothing is to be done for this long, the connection is given up: there may be thousands of destinations.
pub(super) const IDLE: Duration = Duration::from_secs(15);

/// Most destinations at one address that send at the same time.
const AT_ONCE: usize = 16;

/// What the exporters are told.
pub enum Order {
    /// A hook brought this destination's key.
    Key(DestinationId, Destination, Secrets),
    /// There is something to send.
    Wake(DestinationId, Destination),
    /// The daemon comes to its end: nothing more is sent.
    Stop,
    /// Somebody waits: try everything now, whatever was postponed (but not what a server asked to postpone).
    Hurry,
    /// The user trusts this base URL, or no longer: who may be sent to is judged again.
    Trust(String),
}

/// Spans on their way, over all destinations.
pub type InFlight = Arc<AtomicUsize>;

struct Line {
    base_url: String,
    trust: watch::Sender<()>,
    key: watch::Sender<Option<Secrets>>,
    spans: Signals,
    media: Signals,
}

/// How a task is told that there is something to do, or that somebody waits for it.
#[derive(Clone, Default)]
pub(super) struct Signals {
    pub(super) wake: Arc<Notify>,
    pub(super) hurry: Arc<Notify>,
}

/// Runs an exporter, and what uploads media beside it, for every destination that is named, until `orders` ends.
pub async fn supervise(store: Handle, home: PathBuf, in_flight: InFlight, mut orders: mpsc::UnboundedReceiver<Order>) {
    proxies::check();
    let mut lines: HashMap<DestinationId, Line> = HashMap::new();
    let mut turns: HashMap<String, Arc<Semaphore>> = HashMap::new();
    let mut tasks = tokio::task::JoinSet::new();
    let stopping = Arc::new(AtomicBool::new(false));
    while let Some(order) = orders.recv().await {
        let (id, destination, key) = match order {
            Order::Stop => {
                stopping.store(true, Ordering::Relaxed);
                continue;
            }
            Order::Hurry => {
                lines.values().flat_map(|line| [&line.spans, &line.media]).for_each(|task| task.hurry.notify_one());
                continue;
            }
            Order::Trust(base_url) => {
                let concerned = lines.values().filter(|line| line.base_url == base_url);
                concerned.for_each(|line| line.trust.send_replace(()));
                continue;
            }
            Order::Key(id, destination, key) => (id, destination, Some(key)),
            Order::Wake(id, destination) => (id, destination, None),
        };
        let line = lines.entry(id).or_insert_with(|| {
            let line = Line {
                base_url: destination.address.clone(),
                trust: watch::Sender::new(()),
                key: watch::Sender::new(None),
                spans: Signals::default(),
                media: Signals::default(),
            };
            let access = || {
                let (trust, key) = (line.trust.subscribe(), line.key.subscribe());
                Access::new(destination.clone(), store.clone(), home.clone(), trust, key)
            };
            tasks.spawn(Uploader::new(id, access(), line.media.clone()).run());
            let turns = turns.entry(line.base_url.clone()).or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE)));
            tasks.spawn(
                Exporter {
                    id,
                    turns: turns.clone(),
                    access: access(),
                    in_flight: in_flight.clone(),
                    stopping: stopping.clone(),
                    signals: line.spans.clone(),
                    link: None,
                    known: None,
                    is_new: false,
                    plan: Plan::new(destination.kind.backend().manners(&destination)),
                    asked_to_wait: false,
                    well: true,
                }
                .run(),
            );
            line
        });
        if let Some(key) = key {
            line.key.send_if_modified(|held| {
                let news = held.as_ref() != Some(&key);
                *held = Some(key);
                news
            });
        }
        [&line.spans, &line.media].iter().for_each(|task| task.wake.notify_one());
    }
}

struct Exporter {
    id: DestinationId,
    /// Shared by the destinations at one address.
    turns: Arc<Semaphore>,
    access: Access,
    in_flight: InFlight,
    stopping: Arc<AtomicBool>,
    signals: Signals,
    link: Option<Link>,
    /// Where spans are taken, and with which secrets; longer than the connection lasts.
    known: Option<(Secrets, Known)>,
    /// Nothing was delivered since that was found out.
    is_new: bool,
    plan: Plan,
    /// The wait at hand is the server's wish, so nobody hurries it.
    asked_to_wait: bool,
    /// The last answer was a good one, or there was none yet: a change of that is worth a line in the log.
    well: bool,
}

impl Exporter {
    /// Runs until its task is dropped.
    async fn run(mut self) {
        self.resume_wait().await;
        loop {
            if self.stopping.load(Ordering::Relaxed) {
                return;
            }
            let batch = match self.claim() {
                Ok(batch) => batch,
                Err(error) => {
                    tracing::warn!(%error, "the outbox cannot be read");
                    tokio::time::sleep(Duration::from_secs(5)).await;
                    continue;
                }
            };
            if batch.is_empty() {
                if tokio::time::timeout(IDLE, self.signals.wake.notified()).await.is_err() {
                    self.link = None;
                    self.signals.wake.notified().await;
                }
                continue;
            }
            if self.access.has_changed() {
                self.link = None;
            }
            if self.link.is_none() {
                match Box::pin(self.connect()).await {
                    Ok(link) => self.link = Some(link),
                    Err((state, verdict)) => {
                        self.wait_for_a_way(state, verdict).await;
                        continue;
                    }
                }
            }
            let Some(link) = &self.link else { continue };
            // Never closed, so this waits for its turn and nothing else.
            let turn = self.turns.clone().acquire_owned().await;
            if self.stopping.load(Ordering::Relaxed) {
                return;
            }
            self.in_flight.fetch_add(batch.len(), Ordering::Relaxed);
            let patience = self.plan.patience(batch.len());
            let spans = batch.iter().map(|row| row.item.encode(&self.access.destination)).collect();
            let (answer, took) = Box::pin(link.send_with(spans, patience)).await;
            self.in_flight.fetch_sub(batch.len(), Ordering::Relaxed);
            drop(turn);
            self.act(batch, &answer, took).await;
        }
    }

    /// What is to be sent next, oldest first.
    fn claim(&self) -> Result<Vec<Row>, crate::store::Error> {
        let (id, plan) = (self.id, self.plan);
        self.access.store.call(|store| {
            if let Some(bytes) = plan.smaller_than()
                && let Some(row) = store.claim_smaller(id, bytes)?
            {
                return Ok(vec![row]);
            }
            store.claim(id, plan.batch(), plan.bytes.now)
        })
    }

    /// A wait that was promised before a restart is kept, whatever key comes.
    async fn resume_wait(&mut self) {
        let id = self.id;
        let row = self.access.store.call(|store| store.destination(id));
        if let Some(row) = row.ok().flatten().filter(|row| row.state == "retrying") {
            let (left, asked) = policy::resume(row.next_at_ms, now_ms());
            self.asked_to_wait = asked;
            tokio::select! {
                () = tokio::time::sleep(left) => {}
                () = self.hurried() => {}
            }
        }
    }

    async fn act(&mut self, batch: Vec<Row>, answer: &Answer, took: Duration) {
        let verdict = self.access.destination.kind.judge(answer);
        let sent = Sent { spans: batch.len(), bytes: batch.iter().map(|row| row.bytes).sum(), took };
        let id = self.id;
        match self.decide(verdict, sent) {
            Step::Done => {
                self.is_new = false;
                let mut rejected = 0;
                if let Answer::Response { rejected: Some((count, why)), .. } = answer {
                    rejected = (*count).min(batch.len() as u64);
                    tracing::warn!(count = rejected, why, "the server took the batch but not all of its spans");
                }
                if !std::mem::replace(&mut self.well, true) {
                    tracing::info!(to = self.access.destination.address, "delivering again");
                }
                tracing::debug!(spans = batch.len(), to = self.access.destination.address, "delivered");
                self.keep_trying(|store| store.delivered(id, &batch, rejected, now_ms())).await;
            }
            Step::Wait(wait, why) => self.wait(wait, why).await,
            Step::Park(why) => {
                self.link = None;
                let known = self.known.take();
                let is_gone = matches!(answer, Answer::Response { status: 404, .. });
                // What was asked a while ago may be out of date; what was asked just now is not.
                if is_gone && known.is_some_and(|(_, known)| known.was_asked) && !std::mem::take(&mut self.is_new) {
                    return;
                }
                self.access.was_refused();
                self.park(PARKED, why).await;
            }
            Step::Split => {}
            Step::Shrink(why) => {
                let Some(mut row) = batch.into_iter().next() else { return };
                if policy::shrink(&mut row.item) {
                    tracing::info!(
                        span = crate::store::span_name(&row.item),
                        "cut, because its server takes no larger one"
                    );
                    self.keep_trying(|store| store.replace(id, &row)).await;
                } else {
                    self.bury(row.seq, row.item, why).await;
                }
            }
            Step::Bury(why) => {
                let Some(Row { seq, item, .. }) = batch.into_iter().next() else { return };
                self.bury(seq, item, why).await;
            }
        }
    }

    /// What follows from `verdict` on what was `sent`.
    fn decide(&mut self, verdict: Verdict, sent: Sent) -> Step {
        self.asked_to_wait = matches!(&verdict, Verdict::Later(Some(wait), _) if !wait.is_zero());
        let (plan, step) = policy::next(self.plan, verdict, sent, chance());
        self.plan = plan;
        step
    }

    async fn wait(&mut self, wait: Duration, why: String) {
        if self.well {
            tracing::warn!(to = self.access.destination.address, why, "not delivered; trying again until it is");
        }
        tracing::debug!(to = self.access.destination.address, why, ?wait, "not delivered");
        self.note("retrying", wait, why);
        self.pause(wait).await;
    }

    async fn bury(&mut self, seq: i64, item: Item, why: String) {
        let id = self.id;
        tracing::warn!(
            span = crate::store::span_name(&item),
            why,
            "no server takes this span; see `cc-langfusectl status`"
        );
        self.keep_trying(|store| store.bury(id, seq, &why, now_ms())).await;
    }

    /// Repeats a change until the database takes it: without it the same spans would go out again.
    async fn keep_trying(&self, work: impl Fn(&mut Store) -> crate::store::Result<()> + Send) {
        loop {
            match self.access.store.call(&work) {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(%error, "the outbox cannot be changed; trying again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    fn note(&mut self, state: &'static str, wait: Duration, why: String) {
        self.well = false;
        let (id, now) = (self.id, now_ms());
        let until = now.saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX));
        let noted = self.access.store.call(|store| store.postpone(id, state, until, &why, now));
        if let Err(error) = noted {
            tracing::warn!(%error, "the state of a destination cannot be stored");
        }
    }

    async fn park(&mut self, state: &'static str, why: String) {
        if self.well {
            tracing::warn!(to = self.access.destination.address, why, "{state}; nothing is lost");
        }
        self.asked_to_wait = false;
        self.note(state, PROBE, why);
        self.pause(PROBE).await;
    }

    /// Waits, but not longer than it takes for somebody to hurry or to bring another key, unless the server asked to wait.
    async fn pause(&mut self, wait: Duration) {
        let (mut trust, mut key) = (self.access.trust.clone(), self.access.key.clone());
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.hurried() => {}
            Ok(()) = trust.changed(), if !self.asked_to_wait => {}
            Ok(()) = key.changed(), if !self.asked_to_wait => {}
        }
    }

    /// Returns when somebody hurries, unless the server asked to wait.
    async fn hurried(&self) {
        loop {
            self.signals.hurry.notified().await;
            if !self.asked_to_wait {
                return;
            }
        }
    }

    /// The way to the server, or the destination's state without one and why.
    async fn connect(&mut self) -> Result<Link, (&'static str, Verdict)> {
        let secrets = self.access.secrets().map_err(|(state, why)| (state, Verdict::Park(why)))?;
        let to = &self.access.destination;
        let mut known = self.known.take().filter(|(of, _)| *of == secrets).map(|(_, known)| known);
        self.is_new |= known.is_none();
        let link = Link::known(to, &secrets, Limits::default(), &mut known).await;
        self.known = known.map(|known| (secrets, known));
        link.map_err(|verdict| (PARKED, verdict))
    }

    /// There is no way to the server: parks, or waits if that may be over soon.
    async fn wait_for_a_way(&mut self, state: &'static str, verdict: Verdict) {
        match self.decide(verdict, Sent::default()) {
            Step::Wait(wait, why) => self.wait(wait, why).await,
            Step::Park(why) | Step::Shrink(why) | Step::Bury(why) => self.park(state, why).await,
            Step::Done | Step::Split => {}
        }
    }
}

/// Somewhere between 0 and 1; good enough to keep clients apart.
pub(super) fn chance() -> f64 {
    (RandomState::new().hash_one(0) >> 11) as f64 / (1u64 << 53) as f64
}
