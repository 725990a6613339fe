//! The loop of one lane of a destination: claim what waits, send it, acknowledge it or wait. [`Lane`] says what a lane carries.

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

/// An idle connection is closed after this time: there may be thousands of destinations.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// Wakes a worker: there is something to send, or someone is waiting for it.
#[derive(Clone, Default)]
pub(super) struct Signals {
    pub(super) wake: Arc<Notify>,
    pub(super) hurry: Arc<Notify>,
}

/// A kind of item that waits for a destination and is delivered on its own: lanes never wait for each other.
pub(super) trait Lane: Send {
    /// What is sent at once.
    type Batch: Send;
    /// A connection to the server.
    type Way: Send + Sync;

    /// What it carries, for the log.
    const WHAT: &str;

    /// How long a server may be silent.
    fn limits(&self) -> Limits;

    /// Connects to the server.
    ///
    /// # Errors
    /// Why that is not possible.
    fn way(&self, route: Route, to: &Destination, secrets: &Secrets) -> Result<Self::Way, String>;

    /// A wait from before a restart, and whether the server asked for it.
    fn resumed(&self, _at: &At) -> Option<(Duration, bool)> {
        None
    }

    /// What to send next, oldest first.
    ///
    /// # Errors
    /// If the database cannot be read.
    fn claim(&self, at: &At) -> Result<Option<Self::Batch>, store::Error>;

    /// Sends a batch, and acknowledges what the server has accepted or never will.
    fn send(&mut self, at: &At, way: &Self::Way, batch: &mut Self::Batch) -> impl Future<Output = After> + Send;

    /// What follows if there is no connection to the server.
    fn no_way(&mut self, verdict: Verdict) -> After;

    /// Records this state and the wait, and logs it if `news`.
    fn postpone(&mut self, at: &At, batch: &Self::Batch, state: &'static str, wait: Duration, why: &str, news: bool);
}

/// What follows a try.
#[derive(Debug)]
pub(super) enum After {
    /// Continue; the server has accepted this one.
    Delivered,
    /// Continue with the next.
    Next,
    /// Wait this long; true if the server asked for it.
    Wait(Duration, bool, String),
    /// Wait for the user to fix something; true if the server says that the endpoint does not exist.
    Park(bool, String),
}

/// Which destination a worker works for.
pub(super) struct At {
    pub(super) id: DestinationId,
    pub(super) keys: KeyRing,
    pub(super) stopping: Arc<AtomicBool>,
}

impl At {
    /// Repeats a change until the database accepts it: otherwise the same items would be sent again.
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

pub(super) struct Worker<L: Lane> {
    at: At,
    lane: L,
    signals: Signals,
    way: Option<L::Way>,
    /// The endpoint and secrets, which outlast the connection.
    known: Option<(Secrets, Known)>,
    /// Nothing was delivered since the endpoint was looked up.
    is_new: bool,
    /// The server asked for the current wait, so nobody can shorten it.
    asked_to_wait: bool,
    /// The last answer was good, or there was none yet; changes are logged.
    healthy: bool,
}

impl<L: Lane> Worker<L> {
    pub(super) fn new(at: At, lane: L, signals: Signals) -> Self {
        Self { at, lane, signals, way: None, known: None, is_new: false, asked_to_wait: false, healthy: true }
    }

    /// Runs until its task is dropped or the daemon stops.
    pub(super) async fn run(mut self) {
        // This wait is kept even if another key comes.
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

    /// Connects to the server unless that is done; or returns the destination's state and why there is no connection.
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
                // An old answer may be out of date; one from just now is not.
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

    /// Waits. The wait ends early if someone hurries or brings another key, unless the server asked for it.
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

    /// Returns when someone hurries, unless the server asked for the wait.
    async fn hurried(&self) {
        loop {
            self.signals.hurry.notified().await;
            if !self.asked_to_wait {
                return;
            }
        }
    }
}

/// A number between 0 and 1, random enough to keep clients apart.
pub(super) fn chance() -> f64 {
    (RandomState::new().hash_one(0) >> 11) as f64 / (1u64 << 53) as f64
}
