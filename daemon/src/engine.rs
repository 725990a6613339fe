//! Decides what to read and when: one loop, on a thread of its own, over one closed enum.
//!
//! A hint names a session. The engine reads what is new in its transcript, closes turns as prompts follow, and settles the
//! last one when the hint says that the model has stopped *and* the transcript shows it: Claude Code runs its Stop hooks
//! before it has written the last answer.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::mpsc::{self, RecvTimeoutError},
    time::{Duration, Instant},
};

use tokio::sync::{mpsc::UnboundedSender, oneshot};

use crate::{
    config::Config,
    delivery::exporter::{Order, now_ms},
    git,
    hook::{Destination, Event, Hint},
    store::{SessionRow, handle::Handle},
    transcript::{cursor::Position, reader::CHUNK},
    watch::Watch,
};

mod read;
mod session;
mod tell;

use session::Session;

/// Claude Code writes in bursts; a turn is told when the burst is over.
const LULL: Duration = Duration::from_millis(20);

/// The same for events that end nothing: a busy session has many of them, and one look deals with all.
const LINGER: Duration = Duration::from_millis(200);

/// How long a transcript must be silent before a Stop is taken at its word although its answer is not there.
const QUIET: Duration = Duration::from_secs(2);

/// The same for versions of Claude Code that do not say what the answer was; those write it before they call the hook.
const QUIET_UNKNOWN: Duration = Duration::from_millis(300);

/// The same where no Stop is known at all, but the model has said that it is done.
const QUIET_FINISHED: Duration = Duration::from_secs(5);

/// How soon transcripts are looked at again while something waits for them, should no file event come.
const TICK: Duration = Duration::from_millis(10);

/// The same for the transcripts of subagents at work.
const AGENT_TICK: Duration = Duration::from_secs(1);

/// How long a subagent may be silent before it is no longer waited for.
const AGENT_LOST: Duration = Duration::from_secs(24 * 3600);

/// Sessions left in the middle longer ago than this are not looked at when the daemon starts.
const RECENT: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long a session is kept in memory after its last event.
const RETIRE: Duration = Duration::from_secs(600);

/// How many bytes may wait for a destination when a backfill adds to them: what live sessions send comes behind these.
const BACKFILL: u64 = 16 << 20;

/// What the ids of events begin with that hand over history.
pub const BACKFILL_ID: &str = "backfill-";

fn is_backfill(hint: &Hint) -> bool {
    hint.id.starts_with(BACKFILL_ID)
}

/// What the engine hears.
#[derive(Debug)]
pub enum Input {
    /// A hook event, stored already.
    Hint(Box<Hint>),
    /// Something changed at this path.
    Changed(PathBuf),
    /// Is anything left to do? Answered when the loop has nothing at hand.
    Pending(oneshot::Sender<usize>),
    /// Come to an end.
    Stop,
}

/// The engine's state.
pub struct Engine {
    store: Handle,
    orders: UnboundedSender<Order>,
    watch: Watch,
    config: Config,
    /// Where transcripts may lie, whatever the event.
    roots: Vec<PathBuf>,
    /// Destinations for which as much waits as may.
    full: HashSet<Destination>,
    sessions: HashMap<String, Session>,
    /// Those that wait for the one they were begun with to be told first.
    behind: Vec<String>,
    /// What git calls the user, by directories of the project.
    users: HashMap<Vec<PathBuf>, Option<String>>,
    buffer: Vec<u8>,
}

impl Engine {
    /// An engine that starts with what the store still has to do.
    pub fn new(store: Handle, orders: UnboundedSender<Order>, watch: Watch, config: Config, home: &Path) -> Self {
        let roots = config.roots(home);
        let sessions = HashMap::new();
        let mut engine = Self {
            store,
            orders,
            watch,
            config,
            roots,
            full: HashSet::new(),
            sessions,
            behind: Vec::new(),
            users: HashMap::new(),
            buffer: vec![0; CHUNK],
        };
        match engine.store.call(|store| store.inbox()) {
            Ok(hints) => hints.into_iter().for_each(|hint| engine.take(hint)),
            Err(error) => tracing::error!(%error, "the events stored earlier cannot be read"),
        }
        let since = now_ms() - i64::try_from(RECENT.as_millis()).unwrap_or(i64::MAX);
        match engine.store.call(|store| store.unsettled(since)) {
            Ok(rows) => rows.into_iter().for_each(|row| engine.resume(row)),
            Err(error) => tracing::error!(%error, "the sessions left in the middle cannot be read"),
        }
        engine
    }

    /// Goes on with a session that was left in the middle and of which no event waits.
    fn resume(&mut self, row: SessionRow) {
        if self.sessions.contains_key(&row.session_id) {
            return;
        }
        if let Some(dir) = row.transcript.parent() {
            self.watch.add(dir);
        }
        self.sessions.insert(row.session_id.clone(), Session::new(row, self.config.rules.clone()));
    }

    /// Runs until [`Input::Stop`] or until nobody can send any more.
    pub fn run(mut self, inputs: &mpsc::Receiver<Input>) {
        let mut asked: Vec<oneshot::Sender<usize>> = Vec::new();
        loop {
            let mut input = match self.pause() {
                None => inputs.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(wait) => inputs.recv_timeout(wait),
            };
            loop {
                match input {
                    Ok(Input::Hint(hint)) => self.take(*hint),
                    Ok(Input::Changed(path)) => self.changed(&path),
                    Ok(Input::Pending(reply)) => {
                        // Whoever asks wants to know of what was written just now, too.
                        let at_work = self.sessions.values_mut().filter(|session| session.agents_due.is_some());
                        at_work.for_each(|session| session.dirty = true);
                        let soon = Instant::now() + LULL;
                        self.sessions.values_mut().for_each(|session| session.next_look = session.next_look.min(soon));
                        asked.push(reply);
                    }
                    Ok(Input::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => break,
                }
                input = inputs.try_recv().map_err(|_| RecvTimeoutError::Timeout);
            }
            self.look_at_all();
            let pending = self.sessions.values().map(Session::pending).sum();
            for reply in asked.drain(..) {
                let _ = reply.send(pending);
            }
        }
    }

    /// How long until there is something to do without being told; `None` if never.
    fn pause(&self) -> Option<Duration> {
        let now = Instant::now();
        let until = |at: Instant| at.saturating_duration_since(now).max(Duration::from_millis(1));
        let next = |session: &Session| {
            let own = match session.not_before {
                Some(at) => return until(at),
                None if session.dirty => return Duration::ZERO,
                None if !session.waiting.is_empty() => until(session.next_look),
                None if session.looks_finished() => until(session.grown + QUIET_FINISHED),
                None if session.agents_due.is_some() => AGENT_TICK,
                None => until(session.touched + RETIRE),
            };
            session.agents_due.map_or(own, |due| own.min(until(due)))
        };
        self.sessions.values().map(next).min()
    }

    fn changed(&mut self, path: &Path) {
        for session in self.sessions.values_mut() {
            let is_agents = || session.agents.dirs().any(|dir| path.starts_with(dir));
            session.dirty |= session.row.transcript == path || is_agents();
        }
    }

    fn take(&mut self, mut hint: Hint) {
        let now = Instant::now();
        if hint.options.user_id.as_deref() == Some(git::EMAIL) {
            let known = self.users.entry(hint.project_dirs.clone());
            hint.options.user_id = known.or_insert_with(|| git::email(&hint.project_dirs)).clone();
        }
        if !self.sessions.contains_key(&hint.session_id) {
            let session = Session { dirty: false, ..self.load(&hint) };
            self.sessions.insert(hint.session_id.clone(), session);
        }
        if let Some(dir) = hint.transcript.parent() {
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
        // Nothing is told before the lull; until then a burst of events is one reason to look.
        let look = now + if matches!(hint.event, Event::Stopped { .. } | Event::Ended) { LULL } else { LINGER };
        session.next_look = if session.waiting.is_empty() { look } else { session.next_look.min(look) };
        if let Event::AgentStopped { agent } = &hint.event {
            session.agents.has_ended(agent);
        }
        // Events can be heard out of order; the newest says where things are.
        let newest = hint.fired_ns >= session.row.hint.fired_ns;
        if newest && (!is_backfill(&hint) || session.may_be_told_to(&hint.destination, &self.store)) {
            session.row.transcript.clone_from(&hint.transcript);
            session.row.hint = hint.clone();
        }
        session.waiting.insert(at, (hint, now));
    }

    fn load(&self, hint: &Hint) -> Session {
        let row = match self.store.call(|store| store.session(&hint.session_id)) {
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

    fn look_at_all(&mut self) {
        let now = Instant::now();
        for session in self.sessions.values_mut().filter(|session| session.agents_due.is_some_and(|due| due <= now)) {
            session.dirty = true;
        }
        let due = |session: &Session| match session.not_before {
            Some(at) => at <= now,
            None => {
                session.dirty
                    || !session.waiting.is_empty() && now >= session.next_look
                    || session.looks_finished() && now >= session.grown + QUIET_FINISHED
            }
        };
        let mut ids: Vec<String> = self.sessions.iter().filter(|(_, s)| due(s)).map(|(id, _)| id.clone()).collect();
        ids.sort_by_key(|id| self.sessions[id].first_fired());
        for id in ids {
            let Some(mut session) = self.sessions.remove(&id) else { continue };
            if self.may_copy_another(&session, now) {
                session.not_before = Some(now + TICK);
                self.sessions.insert(id, session);
                continue;
            }
            self.look(&mut session);
            session.next_look = session.next_look();
            let over = session.waiting.is_empty() && session.row.hint.event == Event::Ended && !session.dirty;
            if !session.lost && (!over || session.agents_due.is_some()) {
                self.sessions.insert(id, session);
            }
        }
        self.sessions.retain(|_, session| {
            let patience = if session.agents_due.is_some() { AGENT_LOST } else { RETIRE };
            !session.waiting.is_empty() || now < session.touched + patience
        });
        let dirs = |session: &Session| {
            let own = session.row.transcript.parent().map(Path::to_path_buf);
            own.into_iter().chain(session.agents.dirs().map(Path::to_path_buf)).collect::<Vec<_>>()
        };
        self.watch.keep(&self.sessions.values().flat_map(dirs).collect());
    }

    /// True if `session`, of which nothing was read yet, may begin with a copy of one beside it that has yet to be told: a turn
    /// belongs to the session that had it first.
    fn may_copy_another(&self, session: &Session, now: Instant) -> bool {
        let is_new = session.tail.is_none() && session.row.cursor.offset == 0;
        let Some(fired) = session.first_fired().filter(|_| is_new) else { return false };
        let earlier = |(hint, came): &(Hint, Instant)| hint.fired_ns < fired && now < *came + QUIET;
        self.sessions.values().any(|other| {
            other.row.transcript.parent() == session.row.transcript.parent() && other.waiting.iter().any(earlier)
        })
    }
}

#[cfg(test)]
mod tests;
