//! The one way in for events, over the socket or from the spool: judge them, store them, and hand them to the engine.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::Sender,
    },
    time::Duration,
};

use tokio::sync::{Notify, mpsc::UnboundedSender, oneshot};

use crate::{
    clock,
    consent_files::Consent,
    delivery::supervisor::Order,
    engine::Input,
    files::{self, Rules},
    log::Level,
    store::{self, handle::Handle},
};
use cc_core::{
    consent::Chooser,
    hook::{self, Hint},
    route::{Env, Refused},
    settings::block::Vars,
};
use proto::frame::{Frame, FrameError};

/// The largest frame that is accepted: the payload's limit, and room for variables as long as Linux allows (128 KiB each).
pub const MAX_FRAME: usize = proto::MAX_PAYLOAD + (4 << 20);

/// An unfinished spool file is removed after this long.
const UNFINISHED_AFTER: Duration = Duration::from_secs(60);

/// Spooled events are stored together up to this number and this many bytes.
const MAX_BATCH: (usize, usize) = (256, 8 << 20);

#[derive(Clone)]
pub struct Intake {
    pub store: Handle,
    /// Gets the stored events.
    pub engine: Sender<Input>,
    /// Get the keys that events bring.
    pub orders: UnboundedSender<Order>,
    /// Judges who chose their destinations.
    pub consent: Consent,
    /// How detailed the log is; a project can ask for more.
    level: Level,
    /// Events that arrived together and are stored in one transaction.
    together: Arc<Mutex<Vec<Waiting>>>,
    /// How many events were stored, or refused.
    heard: Arc<AtomicU64>,
    /// How many events were evicted from the spool, as far as that is counted already.
    evicted: Arc<AtomicU64>,
    /// Spool files that are not taken, and why.
    left: Arc<Mutex<BTreeMap<PathBuf, &'static str>>>,
    /// A session has ended.
    pub ended: Arc<Notify>,
}

/// An event with the variables it brought, or why it is refused.
type Judged = Result<(Hint, Vars), &'static str>;

/// An event, and where to report whether it is committed.
type Waiting = (Judged, oneshot::Sender<bool>);

/// Why an event was not accepted; its sender keeps it.
#[derive(Debug, thiserror::Error)]
pub enum Untaken {
    /// Only another version of this daemon can read it.
    #[error("the event is of another version")]
    Version,
    /// Nothing was stored.
    #[error("the event could not be stored")]
    Store,
}

/// The state of a file in the spool.
enum Spooled {
    Event(Vec<u8>),
    /// An event that a hook has not finished; if it is this old, it never will be.
    Unfinished(Duration),
    /// A file that must not be touched, and why.
    Left(&'static str),
    Gone,
}

/// The reason for files that cannot be read, for now at least.
const UNREADABLE: &str = "unreadable";

/// The result of taking events from the spool.
#[derive(Clone, Copy, Debug)]
pub struct Drained {
    pub taken: usize,
    /// Some could not be taken for a temporary reason: no room in the database, no file descriptors.
    pub again: bool,
}

impl Intake {
    pub fn new(
        store: Handle,
        engine: Sender<Input>,
        orders: UnboundedSender<Order>,
        consent: Consent,
        level: Level,
    ) -> Self {
        let (together, heard, evicted, left, ended) = Default::default();
        Self { store, engine, orders, consent, level, together, heard, evicted, left, ended }
    }

    /// Takes one frame. `Ok` means that the event, or the reason why it is refused, is committed (invariant 4).
    ///
    /// # Errors
    /// [`Untaken`].
    pub async fn take(&self, bytes: &[u8]) -> Result<(), Untaken> {
        self.refresh();
        let Some(judged) = self.read(bytes) else {
            self.count("hook_version");
            return Err(Untaken::Version);
        };
        let (reply, committed) = oneshot::channel();
        let first = {
            let mut together = lock(&self.together);
            together.push((judged, reply));
            together.len() == 1
        };
        if first {
            // Runs after the requests that are ready already. In a task of its own, because this one ends with its connection.
            let intake = self.clone();
            tokio::spawn(async move {
                let (judged, replies): (_, Vec<_>) = std::mem::take(&mut *lock(&intake.together)).into_iter().unzip();
                let committed = intake.commit(judged, true);
                for reply in replies {
                    let _ = reply.send(committed.is_ok());
                }
                intake.hand_on(committed.unwrap_or_default());
            });
        }
        if committed.await.unwrap_or(false) { Ok(()) } else { Err(Untaken::Store) }
    }

    /// Reads `config.toml` again if it has changed; then its destinations become the user's own, and every
    /// worker checks again.
    pub fn refresh(&self) {
        let configured = self.consent.configured();
        if !configured.refresh() {
            return;
        }
        for (named, why) in configured.refused() {
            tracing::error!(destination = named.name, "nothing is sent there: {why}");
        }
        if let Err(error) = self.store.call(|store| store.configure(&configured.destinations())) {
            tracing::warn!(%error, "that the destinations of config.toml are the user's own cannot be stored");
        }
        let _ = self.orders.send(Order::Configured);
    }

    /// Reads a frame; `None` if it is of another version.
    fn read(&self, bytes: &[u8]) -> Option<Judged> {
        let join = |hint: &mut Hint| self.consent.configured().join(hint);
        Some(match Frame::decode(bytes) {
            Err(FrameError::UnknownVersion) => return None,
            Err(FrameError::Malformed) => Err(Refused::Frame.reason()),
            Ok(frame) => hook::read(frame, join).map_err(Refused::reason),
        })
    }

    /// Stores events in one transaction. Returns those that the engine must process. Those that are not `fresh` were on
    /// disk before, without what is kept in memory.
    fn commit(&self, judged: Vec<Judged>, fresh: bool) -> Result<Vec<Hint>, store::Error> {
        let (mut hints, mut secrets, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        let count = judged.len() as u64;
        for judged in judged {
            match judged {
                Ok((mut hint, vars)) => {
                    // A container's, whose directories are below other names here: the user's own is looked at.
                    hint.config_dir.take_if(|dir| !dir.exists());
                    self.level.debug(hint.debug);
                    self.consent.judge(&mut hint, &vars);
                    tracing::debug!(session = hint.session_id, event = ?kind(&hint.event), "event");
                    let vars = self.consent.own_tls(&hint, vars);
                    let (routes, others) = Env::of(&vars).routes();
                    secrets.push(routes.into_iter().map(|(_, secrets)| secrets).collect::<Vec<_>>());
                    refused.extend(others.into_iter().map(Refused::reason));
                    hints.push(hint);
                }
                Err(reason) => {
                    tracing::debug!(reason, "an event came to nothing");
                    refused.push(reason);
                }
            }
        }
        let destinations = self.store.call(|store| store.accept(&hints, &refused)).inspect_err(|error| {
            tracing::warn!(%error, "events could not be stored");
        })?;
        self.heard.fetch_add(count, Ordering::Relaxed);
        for ((hint, secrets), ids) in hints.iter().zip(secrets).zip(destinations) {
            for ((target, secrets), id) in hint.targets.iter().zip(secrets).zip(ids) {
                // A secret that others chose is not used for the user's own destination.
                let is_own = || self.store.call(|store| store.is_own(id)).unwrap_or(true);
                let is_meant = target.chooser == Some(Chooser::User) || !is_own();
                // An event without a needed secret can still reset the TLS settings.
                let says_something = || fresh && !target.destination.kind.backend().needs_secret(&target.destination);
                if (!secrets.is_empty() || says_something()) && is_meant {
                    let _ = self.orders.send(Order::Key(id, target.destination.clone(), secrets));
                }
            }
        }
        Ok(hints)
    }

    /// Hands events to the engine in a task that runs after those woken before: hooks get their answers before the engine
    /// starts to work.
    fn hand_on(&self, hints: Vec<Hint>) {
        if hints.iter().any(|hint| hint.event == hook::Event::Ended) {
            self.ended.notify_one();
        }
        let engine = self.engine.clone();
        tokio::spawn(async move { hints.into_iter().try_for_each(|hint| engine.send(Input::Hint(Box::new(hint)))) });
    }

    /// Counts an event that is not used.
    pub fn count(&self, reason: &'static str) {
        if let Err(error) = self.store.call(|store| store.accept(&[], &[reason])) {
            tracing::warn!(%error, reason, "could not be counted");
        }
    }

    /// Takes the events that hooks left in the spool directory, and removes what was stored. Returns how many files were taken.
    ///
    /// Events of another version stay for a daemon that knows it; files that others own or could change
    /// are not touched.
    pub fn drain(&self, spool: &Path) -> Drained {
        self.refresh();
        self.count_evicted(&spool.with_extension("evicted"));
        let entries = match std::fs::read_dir(spool) {
            Ok(entries) => entries,
            Err(error) => return Drained { taken: 0, again: error.kind() != std::io::ErrorKind::NotFound },
        };
        let mut files: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
        // Names begin with the time, so this is the order in which the hooks ran.
        files.sort();
        let known = std::mem::take(&mut *lock(&self.left));
        let mut left = BTreeMap::new();
        let (mut judged, mut paths, mut size, mut taken, mut again) = (Vec::new(), Vec::new(), 0, 0, false);
        let mut flush = |judged: &mut Vec<_>, paths: &mut Vec<PathBuf>| {
            let stored = self.commit(std::mem::take(judged), false).map(|hints| self.hand_on(hints)).is_ok();
            for path in paths.drain(..).filter(|_| stored) {
                let _ = std::fs::remove_file(path);
                taken += 1;
            }
            stored
        };
        for path in files {
            let spooled = match known.get(&path) {
                Some(&OTHER_VERSION) => Spooled::Left(OTHER_VERSION),
                _ => look(&path),
            };
            match spooled {
                Spooled::Event(bytes) => match self.read(&bytes) {
                    Some(event) => {
                        judged.push(event);
                        paths.push(path);
                        size += bytes.len();
                    }
                    None => drop(left.insert(path, OTHER_VERSION)),
                },
                Spooled::Unfinished(age) if age > UNFINISHED_AFTER => drop(std::fs::remove_file(&path)),
                Spooled::Left(why) => {
                    again |= why == UNREADABLE;
                    left.insert(path, why);
                }
                Spooled::Unfinished(_) | Spooled::Gone => {}
            }
            if paths.len() >= MAX_BATCH.0 || size >= MAX_BATCH.1 {
                size = 0;
                if !flush(&mut judged, &mut paths) {
                    again = true;
                    break;
                }
            }
        }
        if !paths.is_empty() {
            again |= !flush(&mut judged, &mut paths);
        }
        if left.keys().any(|path| !known.contains_key(path)) {
            tracing::warn!(files = left.len(), "not everything in the spool can be taken; status says why");
        }
        *lock(&self.left) = left;
        Drained { taken, again }
    }

    /// Counts events that hooks had to remove from the spool: each left a byte in this file.
    fn count_evicted(&self, evicted: &Path) {
        let Some(total) = std::fs::symlink_metadata(evicted).ok().filter(|meta| meta.is_file()).map(|meta| meta.len())
        else {
            return;
        };
        if total > self.evicted.load(Ordering::Relaxed)
            && self.store.call(|store| store.count_to(EVICTED, total)).is_ok()
        {
            self.evicted.store(total, Ordering::Relaxed);
        }
    }

    /// How many events were received.
    pub fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    /// How many spool files are not taken, by reason.
    pub fn left(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        lock(&self.left).values().for_each(|why| *counts.entry((*why).to_owned()).or_default() += 1);
        counts
    }
}

/// The name under which evicted events are counted.
const EVICTED: &str = "event_evicted";

/// The reason for events of another version.
const OTHER_VERSION: &str = "other_version";

/// Opens a file in the spool. Never blocks, whatever kind of file it is.
fn look(path: &Path) -> Spooled {
    // A hook's file has one name; one with more names is also something else.
    let rules = Rules { may_have_names: false, ..Rules::STRICT };
    let spooled = files::open(path, &rules).and_then(|opened| match path.extension().and_then(|ext| ext.to_str()) {
        // A hook leaves no larger file, so this one is discarded.
        Some("event") if opened.meta.len() > MAX_FRAME as u64 => Ok(Spooled::Event(Vec::new())),
        Some("event") => opened.read(MAX_FRAME as u64).map(Spooled::Event),
        Some("part") => {
            Ok(Spooled::Unfinished(clock::wall().duration_since(opened.meta.modified()?).unwrap_or_default()))
        }
        _ => Ok(Spooled::Left("unknown")),
    });
    spooled.unwrap_or_else(|refused| match refused {
        files::Refused::Missing => Spooled::Gone,
        files::Refused::NotAFile => Spooled::Left("not_a_file"),
        files::Refused::OtherOwner => Spooled::Left("other_owner"),
        files::Refused::HardLink => Spooled::Left("hard_link"),
        files::Refused::Shared | files::Refused::TooLarge | files::Refused::Io(_) => Spooled::Left(UNREADABLE),
    })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The kind of an event, without any text.
fn kind(event: &hook::Event) -> &'static str {
    match event {
        hook::Event::Stopped { .. } => "stopped",
        hook::Event::Ended => "ended",
        hook::Event::AgentStopped { .. } => "agent stopped",
        hook::Event::ToolEnded { .. } => "tool_ended",
        hook::Event::Other => "other",
    }
}
