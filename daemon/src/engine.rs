//! Decides what to read and when: one loop, on a thread of its own, over one closed enum.
//!
//! A hint names a session. The engine reads what is new in its transcript, closes turns as prompts follow, and settles the
//! last one when the hint says that the model has stopped *and* the transcript shows it: Claude Code runs its Stop hooks
//! before it has written the last answer.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::mpsc::{self, RecvTimeoutError},
    time::{Duration, Instant},
};

use serde::de::IgnoredAny;
use tokio::sync::{mpsc::UnboundedSender, oneshot};

use crate::{
    agents::{self, Agents, Patience},
    config::Config,
    delivery::exporter::{Order, now_ms},
    dialect::{OutSpan, langfuse::Shared},
    hook::{Capture, Destination, Event, Hint},
    ids::{self, Print},
    redact::{Counts, Rules},
    store::{Advance, SessionRow, handle::Handle},
    trace,
    transcript::{
        cursor::Position,
        lines::{Line, Lines},
        reader::{self, CHUNK, SPILLED, Transcript, Unreadable},
        record::{self, Record, Skip},
    },
    turn::{Assembler, Launch, Scope, Turn},
    watch::Watch,
};

/// Claude Code writes in bursts; a turn is told when the burst is over.
const LULL: Duration = Duration::from_millis(20);

/// How long a transcript must be silent before a Stop is taken at its word although its answer is not there.
const QUIET: Duration = Duration::from_secs(2);

/// The same for versions of Claude Code that do not say what the answer was; those write it before they call the hook.
const QUIET_UNKNOWN: Duration = Duration::from_millis(300);

/// The same where no Stop is known at all, but the model has said that it is done.
const QUIET_FINISHED: Duration = Duration::from_secs(5);

/// How long a transcript may be missing before its events are given up. A later event of the session starts again.
const MISSING: Duration = Duration::from_secs(10);

/// How soon transcripts are looked at again while something waits for them, should no file event come.
const TICK: Duration = Duration::from_millis(10);

/// The same for the transcripts of subagents at work.
const AGENT_TICK: Duration = Duration::from_secs(1);

/// How long a subagent may be silent before it is no longer waited for.
const AGENT_LOST: Duration = Duration::from_secs(24 * 3600);

/// Sessions left in the middle longer ago than this are not looked at when the daemon starts.
const RECENT: Duration = Duration::from_secs(30 * 24 * 3600);

const PATIENCE: Patience = Patience { lull: LULL, quiet: QUIET, finished: QUIET_FINISHED };

/// How long a session is kept in memory after its last event.
const RETIRE: Duration = Duration::from_secs(600);

/// The name under which faults of this program are counted.
const PANICKED: &str = "reader_panicked";

/// How long to wait after the database refused a step, or was full.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// A Stop later than this after its turn's last line was not waiting for that line: the turn is being caught up with.
const LIVE: Duration = Duration::from_secs(60);

/// A turn is told in parts when more bytes of it than this are held.
const HELD: usize = 8 << 20;

/// Spans are stored in steps of about this many bytes.
const STEP: usize = 1 << 20;

/// How many answers of closed turns are remembered for Stops that are late.
const ANSWERS: usize = 32;

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
    buffer: Vec<u8>,
}

struct Session {
    row: SessionRow,
    /// What masks its secrets.
    rules: Rules,
    tail: Option<Tail>,
    /// Events not yet dealt with, oldest first, with when they came.
    waiting: Vec<(Hint, Instant)>,
    /// There may be something to read.
    dirty: bool,
    /// When the transcript last grew.
    grown: Instant,
    touched: Instant,
    /// Another session has followed it: nobody writes to it any more.
    superseded: bool,
    agents: Agents,
    /// When its subagents are to be looked at; `None` if none is at work.
    agents_due: Option<Instant>,
    /// One of them will be told to its end before long.
    agents_soon: bool,
    /// When it is looked at without being told, while an event waits.
    next_look: Instant,
    /// Reading it met a fault of ours: it is forgotten until its next event.
    lost: bool,
    /// Not before: the database refused the last step.
    not_before: Option<Instant>,
}

/// A transcript, followed.
struct Tail {
    /// How far it was read.
    read_to: Position,
    lines: Lines,
    assembler: Assembler,
    /// Bytes of the open turn that are held.
    held: usize,
    /// Answers of turns that were closed by the next prompt before a Stop was heard.
    unclaimed: VecDeque<Print>,
}

/// Spans and counts on their way to the store.
#[derive(Default)]
struct Found {
    spans: Vec<OutSpan>,
    bytes: usize,
    skipped: BTreeMap<&'static str, u64>,
    redacted: Counts,
    launches: Vec<Launch>,
    agents: Vec<(String, u64)>,
    /// Subagents whose end was reported.
    ended: Vec<String>,
}

impl Found {
    fn is_news(&self) -> bool {
        self.bytes > 0 || !self.skipped.is_empty() || !self.launches.is_empty() || !self.agents.is_empty()
    }

    /// Tells what was found of subagents to those who follow them; before it goes to the store.
    fn tell(&mut self, agents: &mut Agents) {
        agents.launched(self.launches.iter().cloned());
        self.ended.drain(..).for_each(|id| agents.has_ended(&id));
    }

    fn skip(&mut self, reason: &'static str) {
        *self.skipped.entry(reason).or_default() += 1;
    }
}

impl Engine {
    /// An engine that starts with what the store still has to do.
    pub fn new(store: Handle, orders: UnboundedSender<Order>, watch: Watch, config: Config, home: &Path) -> Self {
        let roots = config.roots(home);
        let sessions = HashMap::new();
        let mut engine =
            Self { store, orders, watch, config, roots, full: HashSet::new(), sessions, buffer: vec![0; CHUNK] };
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
            let is_agents = || session.agents.dir().is_some_and(|dir| path.starts_with(dir));
            session.dirty |= session.row.transcript == path || is_agents();
        }
    }

    fn take(&mut self, hint: Hint) {
        let now = Instant::now();
        if !self.sessions.contains_key(&hint.session_id) {
            let session = Session { dirty: false, ..self.load(&hint) };
            self.sessions.insert(hint.session_id.clone(), session);
        }
        if let Some(dir) = hint.transcript.parent() {
            self.watch.add(dir);
        }
        let Some(session) = self.sessions.get_mut(&hint.session_id) else { return };
        if session.waiting.iter().any(|(known, _)| known.id == hint.id) {
            return;
        }
        session.touched = now;
        // Nothing is told before the lull; until then a burst of events is one reason to look.
        let look = now + LULL;
        session.next_look = if session.waiting.is_empty() { look } else { session.next_look.min(look) };
        if let Event::AgentStopped { agent } = &hint.event {
            session.agents.has_ended(agent);
        }
        // Events can be heard out of order; the newest says where things are.
        if hint.fired_ns >= session.row.hint.fired_ns {
            session.row.transcript.clone_from(&hint.transcript);
            session.row.hint = hint.clone();
        }
        session.waiting.push((hint, now));
        session.waiting.sort_by_key(|(hint, _)| hint.fired_ns);
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
            own.into_iter().chain(session.agents.dir().map(Path::to_path_buf)).collect::<Vec<_>>()
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

    /// Reads what is new in a session and does what its events ask for.
    fn look(&mut self, session: &mut Session) {
        session.dirty = false;
        session.not_before = None;
        if self.is_full(session) {
            return session.retry();
        }
        let mut file = match self.open(&session.row.transcript, &session.row.hint) {
            Ok(file) => file,
            Err(error) => return self.unreadable(session, &error),
        };
        self.follow(session, &mut file);
        let Some(mut tail) = session.tail.take() else { return };
        let read = catch_unwind(AssertUnwindSafe(|| self.read(session, &mut tail, &mut file)));
        match read {
            Ok(Ok(())) => session.tail = Some(tail),
            Ok(Err(Stumble::Full)) => {
                session.tail = Some(tail);
                session.retry();
            }
            Ok(Err(Stumble::Read(error))) => {
                tracing::warn!(session = session.row.session_id, %error, "the transcript cannot be read");
                self.unreadable(session, &Unreadable::Io(error));
            }
            // What was read is not stored: it is read again from where the store knows.
            Ok(Err(Stumble::Store(error))) => {
                tracing::warn!(%error, "the database does not take what was read; trying again");
                session.agents = Agents::default();
                session.retry();
            }
            Err(_) => {
                session.lost = true;
                let (session_id, offset) = (&session.row.session_id, tail.lines.consumed());
                tracing::error!(
                    session = session_id,
                    offset,
                    "a fault in this program; the session is left until its next event"
                );
                let ids: Vec<String> = session.waiting.drain(..).map(|(hint, _)| hint.id).collect();
                self.give_up(&ids, PANICKED);
            }
        }
    }

    /// Opens a transcript if it lies where `hint` may point to.
    fn open(&self, path: &Path, hint: &Hint) -> Result<Transcript, Unreadable> {
        Transcript::open_beneath(path, &self.roots(hint))
    }

    fn roots(&self, hint: &Hint) -> Vec<PathBuf> {
        let own = hint.config_dir.iter().map(|dir| dir.join("projects"));
        self.roots.iter().cloned().chain(own).collect()
    }

    /// True if so much waits for the session's destination that nothing is added before some of it is delivered.
    fn is_full(&mut self, session: &Session) -> bool {
        let to = &session.row.hint.destination;
        let waiting = self.store.call(|store| store.waiting_bytes(to)).unwrap_or(0);
        if waiting < self.config.outbox_bytes {
            self.full.remove(to);
            return false;
        }
        if self.full.insert(to.clone()) {
            tracing::warn!(to = to.base_url, waiting, "as much waits as may; reading goes on when some is delivered");
        }
        true
    }

    /// Makes sure that the session's tail belongs to this file, and starts it where the store says otherwise.
    fn follow(&mut self, session: &mut Session, file: &mut Transcript) {
        let holds =
            |position: &Position| position.holds(file.identity, file.length, file.before(position.offset).as_deref());
        if session.tail.as_ref().is_some_and(|tail| holds(&tail.read_to)) {
            return;
        }
        let known = session.tail.is_none() && holds(&session.row.cursor);
        let (cursor, closed) = if known { (session.row.cursor.offset, session.row.closed) } else { (0, 0) };
        session.tail = Some(Tail {
            read_to: file.position(cursor),
            lines: Lines::at(cursor),
            assembler: Assembler::new(&session.row.session_id, closed)
                .resumed(session.row.forked_from.clone(), session.row.title.clone()),
            held: 0,
            unclaimed: VecDeque::new(),
        });
        if cursor == 0 {
            self.recover_previous(session, file);
        }
    }

    /// When a transcript begins with a line of another session whose own transcript lies beside it, that session may never
    /// have had a Stop: it is brought to its end first. Whatever goes wrong there does not concern this session.
    fn recover_previous(&mut self, session: &Session, file: &mut Transcript) {
        let first = file.first_line().ok().flatten();
        let Some(previous) = first.as_deref().and_then(record::session_id) else { return };
        if previous == session.row.session_id || !reader::is_name(&previous) || self.sessions.contains_key(&previous) {
            return;
        }
        let path = session.row.transcript.with_file_name(format!("{previous}.jsonl"));
        if self.open(&path, &session.row.hint).is_err() {
            return;
        }
        let hint = Hint {
            id: format!("recover-{previous}"),
            session_id: previous,
            transcript: path,
            event: Event::Ended,
            ..session.row.hint.clone()
        };
        let mut other = self.load(&hint);
        other.row.transcript.clone_from(&hint.transcript);
        other.superseded = true;
        other.waiting.push((hint, Instant::now()));
        self.look(&mut other);
    }

    fn unreadable(&mut self, session: &mut Session, error: &Unreadable) {
        let now = Instant::now();
        let patient = matches!(error, Unreadable::Missing | Unreadable::Io(_));
        // A session that is over does not write its first line any more.
        let patience = if session.is_over() { QUIET } else { MISSING };
        let (done, left): (Vec<_>, Vec<_>) =
            session.waiting.drain(..).partition(|(_, came)| !patient || now >= *came + patience);
        session.waiting = left;
        if done.is_empty() {
            return;
        }
        let reason = error.reason();
        tracing::debug!(session = session.row.session_id, reason, "nothing to read");
        let ids: Vec<String> = done.into_iter().map(|(hint, _)| hint.id).collect();
        self.give_up(&ids, reason);
    }

    fn give_up(&self, ids: &[String], reason: &'static str) {
        if let Err(error) = self.store.call(|store| store.give_up(ids, reason)) {
            tracing::warn!(%error, "an event cannot be removed");
        }
    }

    fn read(&mut self, session: &mut Session, tail: &mut Tail, file: &mut Transcript) -> Result<(), Stumble> {
        let mut found = Found::default();
        file.seek(tail.lines.read_to()).map_err(Stumble::Read)?;
        loop {
            let n = file.read(&mut self.buffer).map_err(Stumble::Read)?;
            if n == 0 {
                break;
            }
            session.grown = Instant::now();
            let Tail { lines, assembler, held, unclaimed, .. } = tail;
            lines.feed(&self.buffer[..n], |offset, line| {
                push_line(session, assembler, held, unclaimed, &mut found, offset, line);
            });
            if found.bytes > STEP {
                found.tell(&mut session.agents);
                tail.read_to = file.position(tail.lines.read_to());
                self.commit(session, tail, file, &mut found, Vec::new())?;
                if self.is_full(session) {
                    return Err(Stumble::Full);
                }
            }
        }
        tail.read_to = file.position(tail.lines.read_to());
        if session.is_over() && session.grown.elapsed() >= QUIET_FINISHED && tail.has_whole_rest() {
            let Tail { lines, assembler, held, unclaimed, .. } = tail;
            lines.finish(|offset, line| push_line(session, assembler, held, unclaimed, &mut found, offset, line));
        }
        let orphans = tail.assembler.take_orphans();
        if orphans > 0 {
            *found.skipped.entry("orphan").or_default() += orphans;
        }
        let over = session.is_over() || session.row.hint.event == Event::Ended;
        let consumed = settle(session, tail, &mut found);
        let mut agents = std::mem::take(&mut session.agents);
        let read = self.read_agents(session, &mut agents, tail, file, over, &mut found);
        session.agents = agents;
        read?;
        let at_work = u32::try_from(session.agents.at_work()).unwrap_or(u32::MAX);
        let unsettled = at_work != std::mem::replace(&mut session.row.unsettled, at_work);
        if !consumed.is_empty() || unsettled || found.is_news() {
            self.commit(session, tail, file, &mut found, consumed)?;
        }
        Ok(())
    }

    /// Reads what the session's subagents have written, and tells what is due of it.
    fn read_agents(
        &mut self,
        session: &mut Session,
        agents: &mut Agents,
        tail: &Tail,
        file: &Transcript,
        over: bool,
        found: &mut Found,
    ) -> Result<(), Stumble> {
        if agents.is_new() {
            let id = &session.row.session_id;
            let stored =
                self.store.call(|store| Ok((store.agents(id)?, store.launches(id)?))).map_err(Stumble::Store)?;
            agents.load(stored.0, stored.1);
        }
        found.tell(agents);
        let open = tail.assembler.open();
        agents.discover(&session.row.transcript, open);
        if let Some(dir) = agents.dir() {
            self.watch.add(dir);
        }
        let roots = self.roots(&session.row.hint);
        let now = Instant::now();
        session.agents_due = None;
        for id in agents.ids() {
            while let Some(agent) = agents.get(&id) {
                let more = agent.read(&roots, &mut self.buffer, |reason| found.skip(reason));
                if agent.is_warmup() {
                    found.skip("warmup_agent");
                    found.agents.extend(agents.finish(&id).map(|(done, _)| done));
                    break;
                }
                if agent.held > HELD
                    && let Some(turn) = agent.turn_mut().filter(|turn| turn.place.is_some())
                {
                    tell(session, turn, Scope::Part, None, found);
                    turn.mark_sent(Scope::Part);
                    agent.held = 0;
                }
                if found.bytes > STEP {
                    session.row.unsettled = u32::try_from(agents.at_work()).unwrap_or(u32::MAX);
                    self.commit(session, tail, file, found, Vec::new())?;
                    if self.is_full(session) {
                        return Err(Stumble::Full);
                    }
                }
                match more {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        found.skip(error.reason());
                        agents.leave(&id);
                        break;
                    }
                }
            }
        }
        agents.settle_places(open);
        session.agents_soon = false;
        for id in agents.ids() {
            let due = agents.due(&id, open, over, PATIENCE).filter(|_| !session.superseded);
            let is_due = due.is_some_and(|due| due <= now) || session.superseded;
            if !is_due {
                session.agents_soon |= due.is_some();
                let look = due.unwrap_or(now + AGENT_TICK).min(now + AGENT_TICK);
                session.agents_due = Some(session.agents_due.map_or(look, |earlier| earlier.min(look)));
                continue;
            }
            let placed = agents.get(&id).and_then(|agent| agent.turn()).is_some_and(|turn| turn.place.is_some())
                || agents.guess_place(&id, open);
            match agents.get(&id).and_then(|agent| agent.turn_mut()) {
                Some(turn) if placed => {
                    tell(session, turn, Scope::Final, None, found);
                    turn.mark_sent(Scope::Final);
                }
                _ => found.skip("agent_of_no_turn"),
            }
            if let Some((done, launches)) = agents.finish(&id) {
                found.agents.push(done);
                found.launches.extend(launches);
            }
        }
        Ok(())
    }

    fn commit(
        &mut self,
        session: &mut Session,
        tail: &Tail,
        file: &Transcript,
        found: &mut Found,
        consumed: Vec<String>,
    ) -> Result<(), Stumble> {
        let found = std::mem::take(found);
        let assembler = &tail.assembler;
        let (cursor, closed) = assembler.resume().unwrap_or((tail.lines.consumed(), assembler.closed()));
        // Where the session stands is known when it is stored.
        let mut row = session.row.clone();
        (row.cursor, row.closed, row.turns) = (file.position(cursor), closed, assembler.turns());
        row.forked_from = assembler.origin().cloned();
        row.title = assembler
            .title()
            .map(|title| session.rules.scrub(title, &mut Counts::new()).unwrap_or_else(|| title.to_owned()));
        row.open_turn = assembler.awaits_answer() || assembler.open().is_some_and(|turn| turn.has_news(Scope::Final));
        let step = Advance {
            session: row,
            spans: found.spans,
            launches: found.launches,
            agents: found.agents,
            consumed: consumed.clone(),
            skipped: found.skipped,
            redacted: found.redacted,
            now_ms: now_ms(),
        };
        let (destination, queued) = self.store.call(|store| store.advance(&step)).map_err(Stumble::Store)?;
        session.row = step.session;
        session.waiting.retain(|(hint, _)| !consumed.contains(&hint.id));
        if queued > 0 {
            tracing::debug!(session = session.row.session_id, queued, "spans stored");
            let _ = self.orders.send(Order::Wake(destination, session.row.hint.destination.clone()));
        }
        Ok(())
    }
}

/// Why a reading came to nothing.
enum Stumble {
    /// Enough waits to be sent; all that was read is stored.
    Full,
    Read(std::io::Error),
    Store(rusqlite::Error),
}

impl Session {
    fn new(row: SessionRow, rules: Rules) -> Self {
        let now = Instant::now();
        Self {
            row,
            rules,
            tail: None,
            waiting: Vec::new(),
            dirty: true,
            grown: now,
            touched: now,
            superseded: false,
            agents: Agents::default(),
            agents_due: None,
            agents_soon: false,
            next_look: now,
            lost: false,
            not_before: None,
        }
    }

    /// Often at first, then ever more rarely: file events tell what happens meanwhile, if any are lost the wait is half as long
    /// again at most.
    fn next_look(&self) -> Instant {
        let now = Instant::now();
        // Newer events have had a look of their own ordered for them.
        let oldest = self.waiting.iter().map(|(_, came)| *came).min().unwrap_or(now);
        let last = oldest.max(self.grown);
        now + (now.saturating_duration_since(last) / 2).max(TICK)
    }

    /// Looks again in a moment.
    fn retry(&mut self) {
        self.dirty = true;
        self.not_before = Some(Instant::now() + STORE_RETRY);
    }

    /// When the oldest event was fired that waits.
    fn first_fired(&self) -> Option<u64> {
        self.waiting.first().map(|(hint, _)| hint.fired_ns)
    }

    /// Claude Code has said that it writes no more.
    fn is_over(&self) -> bool {
        self.waiting.iter().any(|(hint, _)| hint.event == Event::Ended)
    }

    /// How much there is to do that will be done before long.
    fn pending(&self) -> usize {
        self.waiting.len() + usize::from(self.dirty) + usize::from(self.agents_soon)
    }

    /// The last turn has something untold, nobody waits for it, and the model has said that it is done: its Stop was lost.
    fn looks_finished(&self) -> bool {
        self.waiting.is_empty() && self.tail.as_ref().is_some_and(Tail::looks_finished)
    }
}

impl Tail {
    /// What follows the last newline is a line for which only that is missing.
    fn has_whole_rest(&self) -> bool {
        self.lines.unfinished().is_some_and(|rest| serde_json::from_slice::<IgnoredAny>(rest).is_ok())
    }

    fn looks_finished(&self) -> bool {
        self.assembler.open().is_some_and(|turn| turn.looks_finished() && turn.has_news(Scope::Settled))
    }
}

fn push_line(
    session: &Session,
    assembler: &mut Assembler,
    held: &mut usize,
    unclaimed: &mut VecDeque<Print>,
    found: &mut Found,
    offset: u64,
    line: Line<'_>,
) {
    #[cfg(test)]
    if let Line::Whole(bytes) = line {
        assert!(memchr::memmem::find(bytes, FAULT.as_bytes()).is_none(), "as ordered");
    }
    let (record, length) = match line {
        Line::TooLong(_) => (Err(Skip::TooLong), 0),
        Line::Whole(bytes) => (record::parse(bytes), bytes.len()),
    };
    match record {
        Err(skip) => {
            if let Some(reason) = skip.reason() {
                *found.skipped.entry(reason).or_default() += 1;
            }
        }
        Ok(record) => {
            if let Record::Prompt(prompt) = &record {
                found.ended.extend(prompt.ended_agent().map(str::to_owned));
            }
            let length = length + record.spilled() * SPILLED;
            if let Some(mut turn) = assembler.push(record, offset) {
                found.launches.extend(agents::closed_launches(&turn));
                *held = 0;
                if !turn.root_sent {
                    if unclaimed.len() == ANSWERS {
                        unclaimed.pop_front();
                    }
                    unclaimed.push_back(Print::of(&turn.output()));
                }
                tell(session, &mut turn, Scope::Final, None, found);
            }
            *held += length;
            if *held > HELD
                && let Some(turn) = assembler.open_mut()
            {
                tell(session, turn, Scope::Part, None, found);
                turn.mark_sent(Scope::Part);
                *held = 0;
            }
        }
    }
}

/// Decides which waiting events are dealt with, and tells the open turn if one of them, or its own state, says that it is
/// complete. Returns the ids of the events.
fn settle(session: &Session, tail: &mut Tail, found: &mut Found) -> Vec<String> {
    let now = Instant::now();
    let mut consumed = Vec::new();
    let mut scope = None;
    let mut fired = None;
    for (hint, came) in &session.waiting {
        let quiet = now.saturating_duration_since(session.grown.max(*came));
        let open = tail.assembler.open();
        let done = match &hint.event {
            Event::Other | Event::AgentStopped { .. } => true,
            // However busy the file is: a burst is short.
            Event::Ended | Event::Stopped { .. } if !session.superseded && quiet < LULL && now < *came + QUIET => false,
            // A last line may lack its newline.
            Event::Ended if !session.superseded && quiet < QUIET_FINISHED && tail.lines.unfinished().is_some() => false,
            Event::Ended => {
                scope = Some(Scope::Final);
                true
            }
            Event::Stopped { answer } => {
                let shown = answer.as_ref().is_some_and(|answer| {
                    open.is_some_and(|turn| turn.has_news(Scope::Settled) && turn.ends_with(answer))
                });
                let mut past = || {
                    let position = tail.unclaimed.iter().position(|past| answer.as_ref() == Some(past))?;
                    tail.unclaimed.remove(position)
                };
                if shown || quiet >= if answer.is_some() { QUIET } else { QUIET_UNKNOWN } {
                    scope = scope.max(Some(Scope::Settled));
                    fired = Some(hint.fired_ns);
                    true
                } else {
                    past().is_some()
                }
            }
        };
        if done {
            consumed.push(hint.id.clone());
        }
    }
    let quiet = now.saturating_duration_since(session.grown);
    let interrupted = tail.assembler.open().is_some_and(|turn| turn.is_interrupted);
    if interrupted {
        scope = Some(Scope::Final);
    } else if scope.is_none() && session.waiting.is_empty() && tail.looks_finished() && quiet >= QUIET_FINISHED {
        scope = Some(Scope::Settled);
    }
    if let Some(scope) = scope
        && let Some(turn) = tail.assembler.open_mut()
    {
        tell(session, turn, scope, fired, found);
        turn.mark_sent(scope);
        tail.held = 0;
    }
    consumed
}

/// Adds to `found` the spans of `turn` that are due.
fn tell(session: &Session, turn: &mut Turn, scope: Scope, fired: Option<u64>, found: &mut Found) {
    if !turn.has_news(scope) {
        return;
    }
    let options = &session.row.hint.options;
    if options.sample_rate.is_some_and(|rate| !ids::sampled(ids::trace_id(turn.trace_key()), rate)) {
        return;
    }
    if options.capture == Capture::Full {
        turn.complete(scope, &|path| reader::spilled(&session.row.transcript, path));
    }
    let turn = &*turn;
    let live = |fired: &u64| turn.end.is_some_and(|end| (end..=end + LIVE.as_nanos() as u64).contains(fired));
    let mut shared = Shared::new(turn, &session.row.session_id, options);
    let redactor = (!options.unredacted).then(|| &*session.rules);
    if let Some(redactor) = redactor {
        shared.redact(redactor, &mut found.redacted);
    }
    for span in trace::spans(turn, scope, options.semantics, fired.filter(live)) {
        let mut span = shared.encode(&span);
        if let Some(redactor) = redactor {
            span.redact(shared.len(), redactor, &mut found.redacted);
        }
        found.bytes += span.attributes.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        found.bytes += span.media.iter().map(|(_, media)| media.bytes.len()).sum::<usize>();
        found.spans.push(span);
    }
}

/// A line with this makes tests see what a fault in reading does.
#[cfg(test)]
const FAULT: &str = "a fault in the reader, please";

#[cfg(test)]
mod tests;
