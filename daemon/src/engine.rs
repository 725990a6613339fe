//! Decides what to read and when: one loop, on a thread of its own, over one closed enum.
//!
//! A hint names a session. The engine reads what is new in its transcript, closes turns as prompts follow, and emits the last
//! one when the hint says that the model has stopped *and* the transcript shows it: Claude Code runs its Stop hooks before it
//! has written the last answer. What is decided is in `cc_core`; what is stored, in [`store`].

use std::{
    collections::{HashMap, HashSet},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::mpsc::{self, RecvTimeoutError},
    time::{Duration, Instant},
};

use tokio::sync::{mpsc::UnboundedSender, oneshot};

use crate::{
    clock::{self, now_ms},
    configured::Configured,
    consent_files::Consent,
    delivery::supervisor::Order,
    reader::{CHUNK_BYTES, places},
    store::{self, Advance, SessionRow, Store, handle::Handle},
    telemetry::Telemetry,
    watch::{Seen, Watch},
};
use cc_core::{
    admit,
    complete::{self, BURST, QUIET, QUIET_FINISHED},
    config::Config,
    destination::Destination,
    hook::{Event, Hint, Source},
    phase::Phase,
    transcript::{
        cursor::Position,
        record::{self, Nanos},
    },
};

mod admission;
mod emit;
mod facts;
mod later;
mod read;
mod refused;
mod session;
mod users;

use later::{Later, Task};
use read::STEP_BYTES;
pub use refused::Refused;
use session::{Session, Tail};
use users::Users;

/// The shortest interval between two reads of a transcript while something waits for it and no file event comes.
const TICK: Duration = Duration::from_millis(10);

/// A time that is ahead of the clock by up to this much is accepted: clocks are adjusted at times.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(1);

/// Sessions that were left partly read longer ago than this are not resumed when the daemon starts.
const RECOVERY_WINDOW: Duration = Duration::from_secs(30 * 24 * 3600);

/// How many sessions are kept in memory that only wait for their next event.
const MAX_IDLE_SESSIONS: usize = 64;

/// After this long, a pass over the sessions is interrupted to take inputs; the sessions it did not reach come first in the
/// next pass.
const PASS_TIME: Duration = Duration::from_millis(50);

/// How many inputs are taken before the sessions are processed.
const MAX_INPUTS_PER_PASS: usize = 1024;

/// How often the engine checks whether followers that are behind have room again.
const FOLLOWER_POLL: Duration = Duration::from_secs(1);

/// How often unneeded file watches are ended.
const UNWATCH_INTERVAL: Duration = Duration::from_secs(1);

/// How many sessions are remembered that were read to their end because others begin with them.
const MAX_RECOVERED: usize = 1000;

#[derive(Debug)]
pub enum Input {
    /// A hook event that is stored already.
    Hint(Box<Hint>),
    /// Some of the sessions that a scan found; it keeps `left` others until `more` is used.
    Found {
        hints: Vec<Hint>,
        left: usize,
        /// Asks for the next ones.
        more: oneshot::Sender<()>,
    },
    /// Claude Code's telemetry said something of this session.
    Telemetry(String),
    /// A file changed.
    Changed(PathBuf),
    /// File events were lost.
    Missed,
    /// The user's address according to git in these directories.
    Email(Vec<PathBuf>, Option<String>),
    /// Asks how much is left to do. Answered once no input is left.
    Pending(oneshot::Sender<usize>),
    /// Ends the loop.
    Stop,
}

impl Input {
    /// The input for a file event, if it concerns a transcript or a file beside one.
    fn of(seen: Seen) -> Option<Self> {
        match seen {
            Seen::Changed(path) if path.extension().is_some_and(|ext| ext == "jsonl" || ext == "json") => {
                Some(Self::Changed(path))
            }
            Seen::Changed(_) => None,
            Seen::Missed => Some(Self::Missed),
        }
    }
}

/// When tracing was off in a project, in Unix nanoseconds.
type Off = Vec<RangeInclusive<Nanos>>;

pub struct Engine {
    store: Handle,
    orders: UnboundedSender<Order>,
    watch: Watch,
    config: Config,
    /// Decides whether tracing is on if no hook says so.
    consent: Consent,
    /// The directories where transcripts may be.
    roots: Vec<PathBuf>,
    refused: Refused,
    /// Destinations whose queue is full.
    full: HashSet<Destination>,
    sessions: HashMap<String, Session>,
    /// Sessions that can wait.
    later: Later,
    /// Sessions that were read to their end because others begin with them, with the length of their transcripts.
    recovered: HashMap<String, u64>,
    /// Whether and when tracing was off in a project, by its directories, for the current pass. For many unhurried
    /// sessions of a project, one check of its settings is enough.
    seen: HashMap<(Vec<PathBuf>, Option<PathBuf>), (bool, Off)>,
    /// Counts the reads of sessions.
    looks: u64,
    /// Some follower is behind its session.
    is_any_behind: bool,
    /// When sessions were last brought back for such followers.
    went_back: Instant,
    /// The last session that was brought back.
    went_back_to: String,
    /// Whether some watches may no longer be needed, and when that was last checked.
    unwatch: (bool, Instant),
    users: Users,
    /// What Claude Code's own telemetry says.
    telemetry: Telemetry,
    buffer: Vec<u8>,
}

impl Engine {
    /// The same with `consent`, which others share.
    #[must_use]
    pub fn with_consent(mut self, consent: Consent) -> Self {
        self.consent = consent;
        self
    }

    /// An engine that starts with the unfinished work in the store. `own` is a sender for its inputs.
    pub fn new(
        store: Handle,
        orders: UnboundedSender<Order>,
        own: mpsc::Sender<Input>,
        config: Config,
        home: &Path,
    ) -> Self {
        let seen = own.clone();
        let watch = Watch::reporting(move |change| drop(Input::of(change).map(|input| seen.send(input))));
        let roots = config.roots(home);
        let consent = Consent::new(home, Configured::new(home, &config));
        let sessions = HashMap::new();
        let mut engine = Self {
            store,
            orders,
            watch,
            config,
            consent,
            refused: Refused::below(&roots),
            roots,
            full: HashSet::new(),
            sessions,
            later: Later::default(),
            recovered: HashMap::new(),
            seen: HashMap::new(),
            looks: 0,
            is_any_behind: false,
            went_back: clock::monotonic(),
            went_back_to: String::new(),
            unwatch: (false, clock::monotonic()),
            users: Users::new(own),
            telemetry: Telemetry::default(),
            buffer: vec![0; CHUNK_BYTES],
        };
        match engine.store.call(Store::sort_inbox) {
            Ok(inbox) => {
                engine.later.extend(inbox.again.into_iter().map(Task::Event));
                inbox.hints.into_iter().for_each(|hint| engine.hear(hint));
            }
            Err(error) => tracing::error!(%error, "the events stored earlier cannot be read"),
        }
        engine.is_any_behind = engine.store.call(|store| store.is_anything_behind()).unwrap_or(true);
        let since = now_ms() - i64::try_from(RECOVERY_WINDOW.as_millis()).unwrap_or(i64::MAX);
        match engine.store.call(|store| store.unsettled(since)) {
            Ok(ids) => engine.later.extend(ids.into_iter().map(Task::Resume)),
            Err(error) => tracing::error!(%error, "the sessions left in the middle cannot be read"),
        }
        engine
    }

    /// Starts unhurried sessions, as many as there is room for.
    fn admit(&mut self, now: Instant) {
        let mut room = if self.later.is_empty() { 0 } else { self.room(now) };
        while room > 0
            && let Some(task) = self.later.next()
        {
            room -= usize::from(match task {
                Task::Found(hint) => self.begin_with(*hint),
                Task::Resume(id) => self.resume(&id),
                Task::Event(id) => match self.store.call(|store| store.event(&id)) {
                    Ok(hint) => hint.is_some_and(|hint| self.begin_with(hint)),
                    Err(error) => {
                        tracing::error!(%error, "an event stored earlier cannot be read");
                        false
                    }
                },
            });
        }
    }

    /// How many such sessions may be started now.
    fn room(&self, now: Instant) -> usize {
        let unhurried = self.sessions.values().filter(|session| session.is_unhurried && session.is_busy());
        let (held, busy): (Vec<_>, Vec<_>) = unhurried.partition(|session| session.phase.is_held(now));
        admit::room(held.len(), busy.len())
    }

    fn begin_with(&mut self, hint: Hint) -> bool {
        tracing::debug!(session = hint.session_id, "started without a hook event");
        self.hear(hint);
        true
    }

    /// Resumes a session that was left partly read and has no pending event. False if there is none.
    fn resume(&mut self, id: &str) -> bool {
        if self.sessions.contains_key(id) {
            return false;
        }
        match self.row(id) {
            Ok(Some(row)) => {
                let session = Session { is_unhurried: true, ..Session::new(row, self.config.rules.clone()) };
                self.sessions.insert(id.to_owned(), session);
                true
            }
            Ok(None) => false,
            Err(error) => {
                tracing::error!(session = id, %error, "a session left in the middle cannot be read");
                false
            }
        }
    }

    /// Runs until [`Input::Stop`] or until all senders are gone.
    pub fn run(mut self, inputs: &mpsc::Receiver<Input>) {
        let mut asked: Vec<oneshot::Sender<usize>> = Vec::new();
        loop {
            let mut input = match self.pause() {
                None => inputs.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(wait) => inputs.recv_timeout(wait),
            };
            let mut changed = HashSet::new();
            for _ in 0..MAX_INPUTS_PER_PASS {
                match input {
                    Ok(Input::Hint(hint)) => self.hear(*hint),
                    Ok(Input::Found { hints, left, more }) => self.later.found(hints, left, more),
                    Ok(Input::Telemetry(id)) => self.reconsider(&id),
                    Ok(Input::Changed(path)) => drop(changed.insert(path)),
                    Ok(Input::Missed) => self.sessions.values_mut().for_each(Session::look_at_everything),
                    Ok(Input::Email(dirs, email)) => {
                        self.users.answered(dirs, email).into_iter().for_each(|hint| self.hear(hint));
                    }
                    Ok(Input::Pending(reply)) => {
                        // The answer includes what was written just now.
                        let at_work = self.sessions.values_mut().filter(|session| session.agents_poll.is_some());
                        at_work.for_each(Session::look_at_everything);
                        let soon = clock::monotonic() + BURST;
                        self.sessions.values_mut().for_each(|session| session.phase.hurry(soon));
                        asked.push(reply);
                    }
                    Ok(Input::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => break,
                }
                input = inputs.try_recv().map_err(|_| RecvTimeoutError::Timeout);
            }
            self.changed(&changed);
            if self.is_any_behind && (!asked.is_empty() || self.went_back.elapsed() >= FOLLOWER_POLL) {
                self.go_back();
                self.went_back = clock::monotonic();
            }
            self.look_at_all();
            let pending =
                self.later.len() + self.users.len() + self.sessions.values().map(Session::pending).sum::<usize>();
            // Turns that a follower has missed still have to be read for it.
            let pending = pending + usize::from(self.is_any_behind);
            for reply in asked.drain(..) {
                let _ = reply.send(pending);
            }
        }
    }

    /// How long until there is something to do without an input; `None` if never.
    fn pause(&self) -> Option<Duration> {
        let now = clock::monotonic();
        let until = |at: Instant| at.saturating_duration_since(now).max(Duration::from_millis(1));
        let next = |session: &Session| session.phase.pause(now, session.touched, session.agents_due());
        let next = self.sessions.values().map(next).min();
        let next = match self.is_any_behind {
            true => Some(next.map_or_else(
                || until(self.went_back + FOLLOWER_POLL),
                |next| next.min(until(self.went_back + FOLLOWER_POLL)),
            )),
            false => next,
        };
        if self.later.is_empty() || self.room(now) == 0 { next } else { Some(Duration::ZERO) }
    }

    /// Wakes the sessions of these files.
    fn changed(&mut self, paths: &HashSet<PathBuf>) {
        if paths.is_empty() {
            return;
        }
        for session in self.sessions.values_mut() {
            let of_agents = paths.iter().filter(|path| session.agents.change(path)).count();
            if of_agents > 0 || paths.contains(&session.row.transcript) {
                session.phase.wake();
            }
        }
    }

    /// The log of transcripts that are not read.
    pub fn refused(&self) -> Refused {
        self.refused.clone()
    }

    /// Takes an event once the user's name is known.
    fn hear(&mut self, hint: Hint) {
        if let Some(hint) = self.users.name(hint) {
            self.take(hint);
        }
    }

    fn take(&mut self, mut hint: Hint) {
        let now = clock::monotonic();
        // `config.toml` may have named other destinations when it was stored.
        self.consent.configured().join(&mut hint);
        if let Some(path) = places::at_home(&hint.transcript, &hint.session_id, &self.roots(&hint)) {
            hint.transcript = path;
        }
        let is_unhurried = hint.source.is_unhurried();
        if !self.sessions.contains_key(&hint.session_id) {
            let session = Session { phase: Phase::NEW, is_unhurried, ..self.load(&hint) };
            self.sessions.insert(hint.session_id.clone(), session);
        }
        if let Some(dir) = hint.transcript.parent().filter(|_| !is_unhurried) {
            self.watch.add(dir);
        }
        let Some(session) = self.sessions.get_mut(&hint.session_id) else { return };
        // There may be very many.
        let at = session.waiting.partition_point(|(known, _)| known.fired_ns <= hint.fired_ns);
        let mut same = session.waiting[..at].iter().rev().take_while(|(known, _)| known.fired_ns == hint.fired_ns);
        if same.any(|(known, _)| known.id == hint.id) {
            return;
        }
        session.touched = now;
        session.is_unhurried &= is_unhurried;
        session.superseded = false;
        let poll = complete::first_poll(now, &hint.event, !is_unhurried);
        session.phase.event(poll);
        if let Event::AgentStopped { agent } = &hint.event {
            session.agents.has_ended(agent);
        }
        let newest = is_newer(hint.fired_ns, session.row.hint.fired_ns, u64::try_from(now_ms()).unwrap_or(0));
        // Turns that were left out while tracing was off are before the position.
        let was_off = |hint: &Hint| {
            let dir = hint.project_dirs.last();
            dir.is_some_and(|dir| self.store.call(|store| store.off(dir)).is_ok_and(|off| !off.is_empty()))
        };
        let again = hint.source.is_asked_for() && was_off(&hint);
        let may = hint.source != Source::Backfill && !again || session.may_go_to(&hint.targets, again, &self.store);
        // An event that was kept for its subagents comes again without its kind: its meaning still applies.
        let is_known = session.row.hint.id == hint.id && hint.event == Event::Other;
        if newest && may && !is_known {
            session.row.transcript.clone_from(&hint.transcript);
            session.row.hint = hint.clone().after(&session.row.hint);
        }
        let earlier = match hint.source {
            // A session found by a scan has been silent for longer than anything is waited for.
            Source::Scan => QUIET_FINISHED,
            // Only hook events come with a burst of lines. The transcript's own times still count.
            Source::Backfill | Source::Reread => BURST,
            Source::Hook | Source::Recovery | Source::Replay => Duration::ZERO,
        };
        let came = now.checked_sub(earlier).unwrap_or(now);
        session.waiting.insert(at, (hint, came));
    }

    /// A session's stored row with its present destinations: `config.toml` may have named others when it was stored.
    fn row(&self, session_id: &str) -> Result<Option<SessionRow>, store::Error> {
        let mut row = self.store.call(|store| store.session(session_id))?;
        if let Some(row) = &mut row {
            self.consent.configured().join(&mut row.hint);
        }
        Ok(row)
    }

    fn load(&self, hint: &Hint) -> Session {
        let row = match self.row(&hint.session_id) {
            Ok(row) => row,
            Err(error) => {
                tracing::error!(%error, "a session's position cannot be read; reading it from the start");
                None
            }
        };
        let row = row.unwrap_or_else(|| SessionRow {
            session_id: hint.session_id.clone(),
            transcript: hint.transcript.clone(),
            cursor: Position::default(),
            closed: 0,
            turns: 0,
            open_turn: false,
            unsettled: 0,
            forked_from: None,
            title: None,
            hint: hint.clone(),
        });
        Session::new(row, self.config.rules.clone())
    }

    /// Processes one step of every session that is due: live ones first, then those that have waited longest, until
    /// the time is up.
    fn look_at_all(&mut self) {
        let began = clock::monotonic();
        self.seen.clear();
        let (mut looked, mut bytes) = (Vec::new(), 0);
        'pass: loop {
            self.admit(clock::monotonic());
            let now = clock::monotonic();
            for id in self.due(now) {
                if began.elapsed() >= PASS_TIME {
                    break 'pass;
                }
                let Some(mut session) = self.sessions.remove(&id) else { continue };
                if self.may_copy_another(&mut session, now) || self.awaits_previous(&session) {
                    session.phase.hold(now + TICK);
                    self.sessions.insert(id, session);
                    continue;
                }
                self.looks += 1;
                session.looked = self.looks;
                self.look(&mut session);
                // Sessions found by a scan are unhurried: the steps of many are stored together, in the
                // order of reading.
                bytes += session.step.as_ref().map_or(0, Advance::bytes);
                let is_unhurried = session.is_unhurried;
                self.sessions.insert(id.clone(), session);
                looked.push(id);
                if !is_unhurried || bytes > STEP_BYTES {
                    self.finish_looks(std::mem::take(&mut looked));
                    bytes = 0;
                }
            }
            if self.later.is_empty() || self.room(now) == 0 {
                break;
            }
        }
        self.finish_looks(looked);
        self.retire(clock::monotonic());
    }

    /// The sessions to read now, in this order.
    fn due(&mut self, now: Instant) -> Vec<String> {
        let is_due = |session: &Session| session.step.is_none() && session.phase.is_due(now, session.agents_due());
        let order = |session: &Session| (session.is_unhurried, session.looked, session.first_fired());
        let due = self.sessions.iter().filter(|(_, session)| is_due(session));
        let mut due: Vec<_> = due.map(|(id, session)| (order(session), id.clone())).collect();
        due.sort_unstable();
        due.into_iter().map(|(_, id)| id).collect()
    }

    /// Stores what reading these sessions found, and drops sessions that need no more reading.
    fn finish_looks(&mut self, ids: Vec<String>) {
        let sessions = ids.into_iter().filter_map(|id| self.sessions.remove_entry(&id));
        let mut sessions: Vec<(String, Session)> = sessions.collect();
        self.store_steps(&mut sessions.iter_mut().map(|(_, session)| session).collect::<Vec<_>>());
        for (id, mut session) in sessions {
            if session.is_done_with() {
                self.unwatch.0 = true;
                continue;
            }
            if let Some(dir) = session.row.transcript.parent()
                && self.watch.add(dir)
            {
                // A file watch does not report what was written before it started.
                session.phase.wake();
            }
            self.sessions.insert(id, session);
        }
    }

    /// Drops sessions that have been silent for long, and the longest silent ones if there are many.
    fn retire(&mut self, now: Instant) {
        let before = self.sessions.len();
        self.sessions.retain(|_, session| {
            !session.waiting.is_empty() || !Phase::is_retired(now, session.touched, session.agents_due())
        });
        let idle = self.sessions.iter().filter(|(_, session)| session.is_idle());
        let mut idle: Vec<_> = idle.map(|(id, session)| (!session.is_unhurried, session.touched, id.clone())).collect();
        if idle.len() > MAX_IDLE_SESSIONS {
            idle.sort_unstable();
            for (_, _, id) in &idle[..idle.len() - MAX_IDLE_SESSIONS] {
                self.sessions.remove(id);
            }
        }
        self.unwatch.0 |= self.sessions.len() < before;
        if self.unwatch.0 && now >= self.unwatch.1 + UNWATCH_INTERVAL {
            self.unwatch = (false, now);
            let dirs = |session: &Session| {
                let own = session.row.transcript.parent().map(Path::to_path_buf);
                own.into_iter().chain(session.agents.dirs().map(Path::to_path_buf)).collect::<Vec<_>>()
            };
            self.watch.keep(&self.sessions.values().flat_map(dirs).collect());
        }
    }

    /// True if `session`, which was not read yet, may begin with a copy of a session in memory that is not emitted yet:
    /// a turn belongs to the session that had it first.
    fn may_copy_another(&self, session: &mut Session, now: Instant) -> bool {
        let Some(fired) = session.first_fired().filter(|_| session.is_new()) else { return false };
        let dir = session.row.transcript.parent().map(Path::to_path_buf);
        for other in self.sessions.values() {
            // What a step that waits to be stored is done with is stored before this session's.
            let is_done = |hint: &Hint| other.step.as_ref().is_some_and(|step| step.consumed.contains(&hint.id));
            let is_earlier = |(hint, _): &&(Hint, Instant)| hint.fired_ns < fired && !is_done(hint);
            let Some((_, came)) = other.to_deal_with().find(is_earlier) else { continue };
            let read = other.tail.as_ref().filter(|_| matches!(other.phase, Phase::Due { .. }));
            // There may be many, and comparing directories takes longest.
            let may_be_waited_for = read.is_some() || now < *came + QUIET;
            if !may_be_waited_for || other.row.transcript.parent() != dir.as_deref() {
                continue;
            }
            // A transcript that is read in steps can take long: only a copy waits for it.
            let waits = read.is_none_or(|tail| self.begins_like(session, tail));
            if waits {
                return true;
            }
        }
        false
    }

    /// True if a session that was not read yet begins with the same line as `other`, or cannot be read.
    fn begins_like(&self, session: &mut Session, other: &Tail) -> bool {
        if session.first_line.is_none() {
            let file = self.open(&session.row.transcript, &session.row.hint);
            session.first_line = file.ok().and_then(|mut file| record::first_uuid(file.head().ok()?));
        }
        session.first_line.as_ref().is_none_or(|own| other.first_line.as_ref() == Some(own))
    }

    /// True if the session that this one begins with is being read to its end.
    fn awaits_previous(&self, session: &Session) -> bool {
        let previous = session.previous.as_ref().and_then(|id| self.sessions.get(id));
        previous.is_some_and(|other| other.superseded && other.is_busy() && !matches!(other.phase, Phase::Held { .. }))
    }
}

/// Events can arrive out of order, and the newest has the present paths. True if an event fired at `fired_ns` is newer
/// than the newest so far, fired at `known_ns`. If the newest is in the future by the clock (`now_ms`, Unix
/// milliseconds), it was fired while the clock was ahead: then the later arrival is newer.
fn is_newer(fired_ns: u64, known_ns: u64, now_ms: u64) -> bool {
    let ahead = now_ms.saturating_mul(1_000_000).saturating_add(CLOCK_TOLERANCE.as_nanos() as u64);
    fired_ns >= known_ns || known_ns > ahead
}

/// An event of an ended session, for tests.
#[cfg(test)]
pub fn any_hint(id: &str) -> Hint {
    Hint { id: id.into(), ..tests::ended(Path::new("/nowhere"), id) }
}

#[cfg(test)]
mod tests;
