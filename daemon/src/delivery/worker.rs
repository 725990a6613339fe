//! The loop of one lane of a destination: claim what waits, send it, acknowledge it or wait. What a lane carries is behind [`Lane`].

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;

use super::{
    client::Limits,
    connect::{self, Known, Route},
    keyring::{KeyRing, PARKED},
};
use crate::store::{self, DestinationId, Store};
use cc_core::{delivery::policy::PROBE, destination::Destination, secret::Secrets, verdict::Verdict};

/// Where nothing is to be done for this long, the connection is given up: there may be thousands of destinations.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// How a worker hears that there is something to do, or that somebody waits for it.
#[derive(Clone, Default)]
pub(super) struct Signals {
    pub(super) wake: Arc<Notify>,
    pub(super) hurry: Arc<Notify>,
}

/// What waits for a destination and is delivered on its own: a lane never waits for another one.
pub(super) trait Lane: Send {
    /// What is sent at a time.
    type Batch: Send;
    /// The way to the server.
    type Way: Send + Sync;

    /// What it carries, for the log.
    const WHAT: &str;

    /// How long a server may be silent.
    fn limits(&self) -> Limits;

    /// The way to the server.
    ///
    /// # Errors
    /// Why there is none.
    fn way(&self, route: Route, to: &Destination, secrets: &Secrets) -> Result<Self::Way, String>;

    /// A wait from before a restart, and whether the server asked for it.
    fn resumed(&self, _at: &At) -> Option<(Duration, bool)> {
        None
    }

    /// What is to be sent next, oldest first.
    ///
    /// # Errors
    /// If the database cannot be read.
    fn claim(&self, at: &At) -> Result<Option<Self::Batch>, store::Error>;

    /// Sends it, and acknowledges what the server has taken, or never will.
    fn send(&mut self, at: &At, way: &Self::Way, batch: &mut Self::Batch) -> impl Future<Output = After> + Send;

    /// What follows from there being no way to the server.
    fn no_way(&mut self, verdict: Verdict) -> After;

    /// Notes that it has to wait in this state, and logs it if that is `news`.
    fn postpone(&mut self, at: &At, batch: &Self::Batch, state: &'static str, wait: Duration, why: &str, news: bool);
}

/// What follows a try.
#[derive(Debug)]
pub(super) enum After {
    /// On with the next; the server has taken this one.
    Delivered,
    /// On with the next.
    Next,
    /// Wait this long; true if the server asked for it.
    Wait(Duration, bool, String),
    /// Wait for somebody to fix something; true if the server says that what was asked of it is not there.
    Park(bool, String),
}

/// Which destination a worker works for.
pub(super) struct At {
    pub(super) id: DestinationId,
    pub(super) keys: KeyRing,
    pub(super) stopping: Arc<AtomicBool>,
}

impl At {
    /// Repeats a change until the database takes it: without it the same would go out again.
    pub(super) async fn keep_trying(&self, what: &str, work: impl Fn(&mut Store) -> store::Result<()> + Send) {
        while let Err(error) = self.keys.store.call(&work) {
            tracing::warn!(%error, "the queue of {what} cannot be changed; trying again");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

/// Works on one lane.
pub(super) struct Worker<L: Lane> {
    at: At,
    lane: L,
    signals: Signals,
    way: Option<L::Way>,
    /// Where the destination takes spans, and with which secrets; longer than the connection lasts.
    known: Option<(Secrets, Known)>,
    /// Nothing was delivered since that was found out.
    is_new: bool,
    /// The wait at hand is the server's wish, so nobody hurries it.
    asked_to_wait: bool,
    /// The last answer was a good one, or there was none yet: a change of that is worth a line in the log.
    healthy: bool,
}

impl<L: Lane> Worker<L> {
    pub(super) fn new(at: At, lane: L, signals: Signals) -> Self {
        Self { at, lane, signals, way: None, known: None, is_new: false, asked_to_wait: false, healthy: true }
    }

    /// Runs until its task is dropped or the daemon comes to its end.
    pub(super) async fn run(mut self) {
        // It is kept, whatever key comes.
        if let Some((left, asked)) = self.lane.resumed(&self.at) {
            self.asked_to_wait = asked;
            tokio::select! {
                () = tokio::time::sleep(left) => {}
                () = self.hurried() => {}
            }
        }
        while !self.at.is_stopping() {
            let mut batch = match self.lane.claim(&self.at) {
                Ok(Some(batch)) => batch,
                Ok(None) => {
                    if tokio::time::timeout(IDLE_TIMEOUT, self.signals.wake.notified()).await.is_err() {
                        self.way = None;
                        self.signals.wake.notified().await;
                    }
                    continue;
                }
                Err(error) => {
                    tracing::warn!(%error, "the queue of {} cannot be read", L::WHAT);
                    tokio::time::sleep(Duration::from_secs(5)).await;
                    continue;
                }
            };
            if self.at.keys.has_changed() {
                self.way = None;
            }
            let connected = Box::pin(self.connect()).await;
            match (connected, &self.way) {
                (Ok(()), Some(way)) => {
                    let after = Box::pin(self.lane.send(&self.at, way, &mut batch)).await;
                    self.act(batch, after).await;
                }
                (Ok(()), None) => {}
                (Err((state, Verdict::Park(why))), _) => self.park(&batch, state, why).await,
                (Err((_, verdict)), _) => {
                    let after = self.lane.no_way(verdict);
                    self.act(batch, after).await;
                }
            }
        }
    }

    /// Finds the way to the server, unless it is known, or the destination's state without one and why.
    async fn connect(&mut self) -> Result<(), (&'static str, Verdict)> {
        if self.way.is_some() {
            return Ok(());
        }
        let park = |why| (PARKED, Verdict::Park(why));
        let secrets = self.at.keys.secrets().await.map_err(|(state, why)| (state, Verdict::Park(why)))?;
        let to = &self.at.keys.destination;
        let mut known = self.known.take().filter(|(of, _)| *of == secrets).map(|(_, known)| known);
        self.is_new |= known.is_none();
        let route = connect::open(to, &secrets, self.lane.limits(), &mut known).await;
        let route = route.map_err(|verdict| (PARKED, verdict))?;
        self.way = Some(self.lane.way(route, to, &secrets).map_err(park)?);
        self.known = known.map(|known| (secrets, known));
        Ok(())
    }

    async fn act(&mut self, batch: L::Batch, after: After) {
        match after {
            After::Delivered => {
                self.is_new = false;
                if !std::mem::replace(&mut self.healthy, true) {
                    tracing::info!(to = self.at.keys.destination.address, "delivering {} again", L::WHAT);
                }
            }
            After::Next => {}
            After::Wait(wait, asked, why) => {
                self.asked_to_wait = asked;
                self.postpone(&batch, "retrying", wait, &why).await;
            }
            After::Park(is_gone, why) => {
                self.way = None;
                let known = self.known.take();
                // What was asked a while ago may be out of date; what was asked just now is not.
                let is_old = known.is_some_and(|(_, known)| known.was_asked) && !std::mem::take(&mut self.is_new);
                if is_gone && is_old {
                    return;
                }
                self.at.keys.was_refused();
                self.park(&batch, PARKED, why).await;
            }
        }
    }

    async fn park(&mut self, batch: &L::Batch, state: &'static str, why: String) {
        self.asked_to_wait = false;
        self.postpone(batch, state, PROBE, &why).await;
    }

    /// Waits, but not longer than it takes for somebody to hurry or to bring another key, unless the server asked to wait.
    async fn postpone(&mut self, batch: &L::Batch, state: &'static str, wait: Duration, why: &str) {
        let news = std::mem::replace(&mut self.healthy, false);
        self.lane.postpone(&self.at, batch, state, wait, why, news);
        let (mut trust, mut key) = (self.at.keys.trust.clone(), self.at.keys.key.clone());
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
}

/// Somewhere between 0 and 1; good enough to keep clients apart.
pub(super) fn chance() -> f64 {
    (RandomState::new().hash_one(0) >> 11) as f64 / (1u64 << 53) as f64
}
