//! Starts the workers: for each destination one for spans, one for images and documents, and one for scores.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use tokio::sync::{Semaphore, mpsc, watch};

use super::{
    keyring::KeyRing,
    media::Media,
    proxies,
    scores::Scores,
    spans::Spans,
    worker::{At, Signals, Worker},
};
use crate::{
    configured::Configured,
    store::{DestinationId, handle::Handle},
};
use cc_core::{destination::Destination, secret::Secrets};

/// How many destinations at one address send at the same time.
const MAX_SENDERS_PER_ADDRESS: usize = 16;

pub enum Order {
    /// A hook brought this destination's key.
    Key(DestinationId, Destination, Secrets),
    /// There is something to send.
    Wake(DestinationId, Destination),
    /// The daemon is stopping: send nothing more.
    Stop,
    /// Someone is waiting: try everything now, except where a server asked for a delay.
    Hurry,
    /// `config.toml` has changed: decide again whether, and with which secret, to send.
    Configured,
    /// The user trusts this base URL, or no longer does: judge its destinations again.
    Trust(String),
}

/// Spans in flight, over all destinations.
pub type InFlight = Arc<AtomicUsize>;

/// The lanes of one destination.
struct Lanes {
    base_url: String,
    trust: watch::Sender<()>,
    key: watch::Sender<Option<Secrets>>,
    spans: Signals,
    media: Signals,
    scores: Signals,
}

impl Lanes {
    fn all(&self) -> impl Iterator<Item = &Signals> {
        [&self.spans, &self.media, &self.scores].into_iter()
    }
}

/// Runs the workers of every destination named in `orders`, until the channel closes.
pub async fn supervise(
    store: Handle,
    home: PathBuf,
    configured: Configured,
    in_flight: InFlight,
    mut orders: mpsc::UnboundedReceiver<Order>,
) {
    proxies::check();
    let mut known: HashMap<DestinationId, Lanes> = HashMap::new();
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
                known.values().flat_map(Lanes::all).for_each(|task| task.hurry.notify_one());
                continue;
            }
            Order::Configured => {
                for lanes in known.values() {
                    lanes.trust.send_replace(());
                    lanes.all().for_each(|task| task.wake.notify_one());
                }
                continue;
            }
            Order::Trust(base_url) => {
                let concerned = known.values().filter(|lanes| lanes.base_url == base_url);
                concerned.for_each(|lanes| lanes.trust.send_replace(()));
                continue;
            }
            Order::Key(id, destination, key) => (id, destination, Some(key)),
            Order::Wake(id, destination) => (id, destination, None),
        };
        let lanes = known.entry(id).or_insert_with(|| {
            let lanes = Lanes {
                base_url: destination.address.clone(),
                trust: watch::Sender::new(()),
                key: watch::Sender::new(None),
                spans: Signals::default(),
                media: Signals::default(),
                scores: Signals::default(),
            };
            let at = || {
                let (trust, key) = (lanes.trust.subscribe(), lanes.key.subscribe());
                let (store, home, configured) = (store.clone(), home.clone(), configured.clone());
                let keys = KeyRing::new(destination.clone(), store, home, configured, trust, key);
                At { id, keys, stopping: stopping.clone() }
            };
            let turns = turns
                .entry(lanes.base_url.clone())
                .or_insert_with(|| Arc::new(Semaphore::new(MAX_SENDERS_PER_ADDRESS)));
            let spans = Spans::new(&destination, turns.clone(), in_flight.clone());
            tasks.spawn(Worker::new(at(), spans, lanes.spans.clone()).run());
            tasks.spawn(Worker::new(at(), Media::default(), lanes.media.clone()).run());
            if destination.kind.backend().scores(&destination).is_some() {
                tasks.spawn(Worker::new(at(), Scores::default(), lanes.scores.clone()).run());
            }
            lanes
        });
        if let Some(key) = key {
            lanes.key.send_if_modified(|held| {
                // A hook that names no variable leaves the secrets to the settings files.
                let key = Some(key.after(held.as_ref())).filter(|key| !key.is_empty());
                let news = *held != key;
                *held = key;
                news
            });
        }
        lanes.all().for_each(|task| task.wake.notify_one());
    }
}
