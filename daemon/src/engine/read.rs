//! One step of reading a session: reads what is new in its transcript and in those of its subagents, and
//! stores the result.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Engine, MAX_RECOVERED, TICK,
    emit::{Gathered, MAX_HELD_BYTES, emit, emit_complete, push_line},
    facts::{self, Wait},
    session::{AgentsPoll, Session, Tail, Totals},
};
use crate::{
    agents::Agents,
    clock::{self, now_ms},
    copies::Beside,
    delivery::supervisor::Order,
    reader::{Transcript, Unreadable, places},
    store::{Advance, DestinationId, SessionRow},
};
use cc_core::{
    complete::{self, QUIET},
    destination::Destination,
    hook::{Event, Hint, Source},
    phase::Phase,
    redact::Counts,
    transcript::{cursor::Position, lines::Lines, record},
    turn::{
        Assembler, Past, Scope, Turn,
        placement::{self, Next},
    },
};

/// The name under which bugs of this program are counted.
pub(super) const PANICKED: &str = "reader_panicked";

/// Spans are stored in steps of about this many bytes.
pub(super) const STEP_BYTES: usize = 1 << 20;

/// How long a transcript may be missing before its events are given up. A later event of the session starts again.
const MISSING_TIMEOUT: Duration = Duration::from_secs(10);

/// The maximum length of a chain of sessions in which each begins with the one before and none was emitted.
pub(super) const MAX_CHAIN: usize = 16;

/// How many bytes of a transcript one step reads.
const READ_BYTES: usize = 1 << 20;

/// Why reading a session stopped early.
enum ReadStop {
    Read(std::io::Error),
    Store(crate::store::Error),
}

impl Engine {
    /// Reads what is new in a session and does what its events ask for. It takes effect when the session's step is stored.
    pub(super) fn look(&mut self, session: &mut Session) {
        if session.row.hint.targets.is_empty() {
            return self.is_nowhere(session);
        }
        if let Some(wait) = self.must_wait(session) {
            session.phase.hold(clock::monotonic() + wait.retry());
            return;
        }
        if self.is_off(session) {
            return;
        }
        let mut file = match self.open(&session.row.transcript, &session.row.hint) {
            Ok(file) => file,
            Err(Unreadable::Outside) if self.came_home(session) => return self.look(session),
            Err(error) => return self.unreadable(session, &error),
        };
        self.follow(session, &mut file);
        let Some(mut tail) = session.tail.take() else { return };
        let read = catch_unwind(AssertUnwindSafe(|| self.read(session, &mut tail, &mut file)));
        match read {
            Ok(Ok(step)) => {
                session.tail = Some(tail);
                session.step = step;
            }
            Ok(Err(ReadStop::Read(error))) => {
                tracing::warn!(session = session.row.session_id, %error, "the transcript cannot be read");
                self.unreadable(session, &Unreadable::Io(error));
            }
            // What was read is not stored, so it is read again from the stored position.
            Ok(Err(ReadStop::Store(error))) => {
                tracing::warn!(%error, "the database does not take what was read; trying again");
                facts::again(&self.telemetry, &self.store, &session.row.session_id);
                session.begin_again();
                session.retry();
            }
            Err(_) => {
                facts::again(&self.telemetry, &self.store, &session.row.session_id);
                session.begin_again();
                session.phase = Phase::Over;
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

    /// Opens a transcript if `hint` may refer to it.
    pub(super) fn open(&self, path: &Path, hint: &Hint) -> Result<Transcript, Unreadable> {
        Transcript::open_beneath(path, &self.roots(hint))
    }

    /// True if a transcript whose path is below no root has appeared at the corresponding path below one: it is followed there.
    fn came_home(&mut self, session: &mut Session) -> bool {
        let row = &session.row;
        let Some(path) = places::at_home(&row.transcript, &row.session_id, &self.roots(&row.hint)) else {
            return false;
        };
        if let Some(dir) = path.parent() {
            self.watch.add(dir);
        }
        session.row.hint.transcript.clone_from(&path);
        session.row.transcript = path;
        true
    }

    pub(super) fn roots(&self, hint: &Hint) -> Vec<PathBuf> {
        let own = hint.config_dir.iter().map(|dir| dir.join("projects"));
        self.roots.iter().cloned().chain(own).collect()
    }

    /// Makes sure that the session's tail belongs to this file, and restarts it if the store says otherwise.
    fn follow(&mut self, session: &mut Session, file: &mut Transcript) {
        let holds =
            |position: &Position| position.holds(file.identity, file.length, file.before(position.offset).as_deref());
        if session.tail.as_ref().is_some_and(|tail| holds(&tail.read_to)) {
            return;
        }
        let known = session.tail.is_none() && session.row.cursor.offset > 0 && holds(&session.row.cursor);
        let begin =
            if known { Some((session.row.cursor.offset, session.row.closed)) } else { self.begin(session, file) };
        let Some((cursor, closed)) = begin else { return };
        if cursor == 0 && self.recover_previous(session, file) {
            // The other session is emitted first.
            session.phase.hold(clock::monotonic() + TICK);
            return;
        }
        let turns = if known { self.past(&session.row) } else { Vec::new() };
        // The other tool completes the turn that it sent partly.
        let is_begun = cursor > 0 && (!known || self.is_behind_import(&session.row));
        session.tail = Some(Tail {
            read_to: file.position(cursor),
            first_line: file.head().ok().and_then(record::first_uuid),
            lines: Lines::at(cursor),
            assembler: Assembler::new(&session.row.session_id, closed)
                .resumed(session.row.forked_from.clone(), session.row.title.clone(), turns)
                .behind_another_tool(is_begun)
                .beside(
                    Beside::new(&session.row.session_id, &session.row.transcript, self.roots(&session.row.hint))
                        .and_emitted(self.store.clone())
                        .leaving_copies(),
                ),
            held: 0,
            unclaimed: VecDeque::new(),
            totals: Totals::default(),
            facts: Wait::default(),
        });
    }

    /// The turns before the position; empty if the store cannot be read: then abandoned turns get no event.
    fn past(&self, row: &SessionRow) -> Vec<Past> {
        self.store.call(|store| store.turns(&row.session_id, row.closed)).unwrap_or_else(|error| {
            tracing::warn!(session = row.session_id, %error, "earlier turns are not known");
            Vec::new()
        })
    }

    /// True if another tool sent what is known of the session so far.
    fn is_behind_import(&self, row: &SessionRow) -> bool {
        let imported = self.store.call(|store| store.imported(&row.session_id)).ok().flatten();
        imported.is_some_and(|imported| imported.turn_count == row.turns)
    }

    /// Where reading a transcript begins, and how many turns come before: at its start, or after what another tool has sent.
    /// `None` if that cannot be determined now.
    fn begin(&self, session: &mut Session, file: &mut Transcript) -> Option<(u64, u32)> {
        session.tail = None;
        let imported = match self.store.call(|store| store.imported(&session.row.session_id)) {
            Ok(None) => return Some((0, 0)),
            Ok(Some(imported)) => file.after_lines(imported.last_line).map(|at| (at, imported.turn_count)),
            Err(error) => Err(std::io::Error::other(error)),
        };
        imported
            .inspect_err(|error| {
                tracing::warn!(session = session.row.session_id, %error, "it is not known where reading begins; trying again");
                session.retry();
            })
            .ok()
    }

    /// If a transcript begins with a line of another session whose transcript is beside it, that session may never have had a
    /// Stop: it is read to its end first. Errors there do not concern this session. False if there is nothing to wait for.
    fn recover_previous(&mut self, session: &mut Session, file: &mut Transcript) -> bool {
        if session.previous.is_some() || session.depth == MAX_CHAIN {
            return false;
        }
        let first = file.first_line().ok().flatten();
        let Some(previous) = first.and_then(record::session_id) else { return false };
        session.previous = Some(previous.clone());
        if previous == session.row.session_id
            || !cc_core::transcript::is_name(&previous)
            || self.sessions.contains_key(&previous)
        {
            return false;
        }
        let path = session.row.transcript.with_file_name(format!("{previous}.jsonl"));
        let Ok(file) = self.open(&path, &session.row.hint) else { return false };
        // Many may begin with the same session, which needs to be read only once.
        if self.recovered.get(&previous) == Some(&file.length) {
            return false;
        }
        if self.recovered.len() == MAX_RECOVERED {
            self.recovered.clear();
        }
        self.recovered.insert(previous.clone(), file.length);
        let hint = Hint {
            id: Source::Recovery.id(&previous),
            source: Source::Recovery,
            session_id: previous.clone(),
            transcript: path,
            event: Event::Ended,
            ..session.row.hint.clone()
        };
        let mut other = self.load(&hint);
        other.row.transcript.clone_from(&hint.transcript);
        other.superseded = true;
        other.is_unhurried = session.is_unhurried;
        other.depth = session.depth + 1;
        other.waiting.push((hint, clock::monotonic()));
        self.sessions.insert(previous, other);
        true
    }

    fn unreadable(&mut self, session: &mut Session, error: &Unreadable) {
        let now = clock::monotonic();
        // What is due becomes due again after the same time, not at once.
        if session.looks_finished() {
            session.grown = now;
        }
        if let Some(poll) = &mut session.agents_poll {
            poll.at = poll.at.max(now + placement::POLL);
        }
        let row = &session.row;
        let may_come = match error {
            Unreadable::Missing | Unreadable::Io(_) => true,
            Unreadable::Outside => places::may_come(&row.transcript, &self.roots(&row.hint)),
            _ => false,
        };
        // An ended session does not write its first line any more.
        let limit = if session.is_over() { QUIET } else { MISSING_TIMEOUT };
        let (done, left): (Vec<_>, Vec<_>) =
            session.waiting.drain(..).partition(|(_, came)| !may_come || now >= *came + limit);
        session.waiting = left;
        session.rest(now);
        // The user can help at once; `status` does not list problems that pass by themselves for long.
        if matches!(error, Unreadable::Io(_)) {
            self.refused.name(&session.row.transcript, error);
        }
        if done.is_empty() {
            return;
        }
        let reason = error.reason();
        tracing::debug!(session = session.row.session_id, reason, "nothing to read");
        // If the model has answered, there should be a transcript; a session that has just started has none.
        let is_strange = !matches!(error, Unreadable::Missing)
            || done.iter().any(|(hint, _)| matches!(hint.event, Event::Stopped { .. }));
        if is_strange {
            self.refused.name(&session.row.transcript, error);
        }
        let ids: Vec<String> = done.into_iter().map(|(hint, _)| hint.id).collect();
        self.give_up(&ids, reason);
    }

    pub(super) fn give_up(&self, ids: &[String], reason: &'static str) {
        if let Err(error) = self.store.call(|store| store.give_up(ids, reason)) {
            tracing::warn!(%error, "an event cannot be removed");
        }
    }

    fn read(
        &mut self,
        session: &mut Session,
        tail: &mut Tail,
        file: &mut Transcript,
    ) -> Result<Option<Advance>, ReadStop> {
        let mut found = Gathered { telemetry: self.telemetry.clone(), ..Gathered::default() };
        file.seek(tail.lines.read_to()).map_err(ReadStop::Read)?;
        let mut room = READ_BYTES;
        loop {
            let n = file.read(&mut self.buffer).map_err(ReadStop::Read)?;
            if n == 0 {
                break;
            }
            room = room.saturating_sub(n);
            session.grown = if session.is_unhurried { clock::since(file.modified) } else { clock::monotonic() };
            let here = Lines::at(tail.lines.consumed());
            let mut lines = std::mem::replace(&mut tail.lines, here);
            lines.feed(&self.buffer[..n], |offset, line| push_line(session, tail, &mut found, offset, line));
            tail.lines = lines;
            if room == 0 || found.is_much() {
                // The rest is for a later step, after those of other sessions.
                session.phase.stop_early();
                found.inform(&mut session.agents);
                tail.read_to = file.position(tail.lines.read_to());
                return Ok(found.is_news().then(|| step(session, tail, file, found, Vec::new())));
            }
        }
        tail.read_to = file.position(tail.lines.read_to());
        if session.is_over()
            && complete::is_last_line_over(clock::monotonic(), session.grown)
            && tail.lines.has_whole_rest()
        {
            let here = Lines::at(tail.lines.consumed());
            let mut lines = std::mem::replace(&mut tail.lines, here);
            lines.finish(|offset, line| push_line(session, tail, &mut found, offset, line));
            tail.lines = lines;
        }
        let orphans = tail.assembler.take_orphans();
        if orphans > 0 {
            *found.skipped.entry("orphan").or_default() += orphans;
        }
        let over = session.is_over() || session.row.hint.event == Event::Ended;
        let stored = || self.store.call(|store| store.hidden_calls_of(&session.row.session_id));
        let (handled, awaits) = emit_complete(session, tail, stored, &mut found);
        let mut agents = std::mem::take(&mut session.agents);
        let read = self.read_agents(session, &mut agents, tail, over, room, &mut found);
        session.agents = agents;
        let is_all = read?;
        match is_all {
            true => session.phase = Phase::Read(awaits),
            false => session.phase.stop_early(),
        }
        let kept_before = session.kept.clone();
        let consumed = session.keep_permission(handled, !is_all || session.is_agent_ending());
        let is_kept = session.kept.is_some() && session.kept != kept_before;
        let at_work = u32::try_from(session.agents.at_work()).unwrap_or(u32::MAX);
        let unsettled = at_work != std::mem::replace(&mut session.row.unsettled, at_work);
        let is_news = !consumed.is_empty() || is_kept || unsettled || found.is_news();
        Ok(is_news.then(|| step(session, tail, file, found, consumed)))
    }

    /// Reads at most `room` bytes of what the session's subagents have written, and emits what is due. False if something is
    /// left.
    fn read_agents(
        &mut self,
        session: &mut Session,
        agents: &mut Agents,
        tail: &Tail,
        over: bool,
        mut room: usize,
        found: &mut Gathered,
    ) -> Result<bool, ReadStop> {
        if agents.is_new() {
            let id = &session.row.session_id;
            let stored =
                self.store.call(|store| Ok((store.agents(id)?, store.launches(id)?))).map_err(ReadStop::Store)?;
            agents.load(stored.0, stored.1);
        }
        found.inform(agents);
        let open: Vec<&Turn> = tail.assembler.at_work().collect();
        let now = clock::monotonic();
        let is_all = over || !session.waiting.is_empty();
        let (ids, swept) = agents.to_read(now, is_all, &session.row.transcript, &open);
        for dir in agents.dirs() {
            self.watch.add(dir);
        }
        session.agents_poll = None;
        for id in ids {
            if !self.read_agent(session, agents, &id, tail, &mut room, found)? {
                return Ok(false);
            }
        }
        agents.place_all(&open);
        let mut returned = agents.returned(&open);
        let grown = agents.grown().unwrap_or(now);
        for id in agents.ids() {
            // A run from before the subagent was woken again does not grow any more.
            let (past, launches) = agents.take_past(&id);
            for mut turn in past {
                emit(session, &mut turn, Scope::Final, None, found);
            }
            returned.add(&launches);
            found.launches.extend(launches);
            let due = agents.due(&id, &returned, over);
            let next = match placement::next(now, due, grown, session.superseded) {
                Next::Emit => {
                    let turn = agents.get(&id).and_then(|agent| agent.turn_mut());
                    let of = &session.row.session_id;
                    let is_known = turn.is_none_or(|turn| facts::are_known(&self.telemetry, of, turn));
                    let wait = session.agent_facts.entry(id.clone()).or_default();
                    let poll = wait.wait(now, is_known, &self.telemetry, of);
                    poll.map_or(Next::Emit, |at| Next::Poll { at, is_ending: true })
                }
                poll => poll,
            };
            if let Next::Poll { at, is_ending } = next {
                let poll = session.agents_poll.get_or_insert(AgentsPoll { at, is_ending });
                *poll = AgentsPoll { at: poll.at.min(at), is_ending: poll.is_ending || is_ending };
                continue;
            }
            let placed = agents.get(&id).is_some_and(|agent| agent.is_placed()) || agents.guess_place(&id, &open);
            if placed && !self.read_agent(session, agents, &id, tail, &mut room, found)? {
                return Ok(false);
            }
            if let Some(agent) = agents.get(&id) {
                agent.finish_line(|reason| found.skip(reason));
            }
            match agents.get(&id).and_then(|agent| agent.turn_mut()) {
                Some(turn) if placed => {
                    emit(session, turn, Scope::Final, None, found);
                    turn.mark_sent(Scope::Final);
                }
                _ => found.skip("agent_of_no_turn"),
            }
            session.agent_facts.remove(&id);
            if let Some((done, launches)) = agents.finish(&id) {
                found.agents.push(done);
                returned.add(&launches);
                found.launches.extend(launches);
            }
        }
        agents.were_read(swept);
        Ok(true)
    }

    /// Reads what one subagent has written, and emits it in parts if it is long. An unplaced one is not kept in memory beyond
    /// the same limit: the rest is read once its place is known. False if the step ended early.
    fn read_agent(
        &mut self,
        session: &mut Session,
        agents: &mut Agents,
        id: &str,
        tail: &Tail,
        room: &mut usize,
        found: &mut Gathered,
    ) -> Result<bool, ReadStop> {
        let roots = self.roots(&session.row.hint);
        while let Some(agent) = agents.get(id) {
            let is_long = agent.held > MAX_HELD_BYTES;
            if is_long && !agent.is_placed() {
                agents.place_all(&tail.assembler.at_work().collect::<Vec<_>>());
            }
            let Some(agent) = agents.get(id) else { break };
            if is_long {
                let Some(turn) = agent.turn_mut().filter(|turn| turn.place.is_some()) else { break };
                emit(session, turn, Scope::Part, None, found);
                turn.mark_sent(Scope::Part);
                agent.held = 0;
            }
            if !agent.has_changed() {
                break;
            }
            let more = agent.read(&roots, &mut self.buffer, |reason| found.skip(reason));
            if agent.is_warmup() {
                found.skip("warmup_agent");
                found.agents.extend(agents.finish(id).map(|(done, _)| done));
                break;
            }
            match more {
                Ok(true) => {
                    *room = room.saturating_sub(self.buffer.len());
                    if *room == 0 || found.is_much() {
                        return Ok(false);
                    }
                }
                Ok(false) => break,
                Err(error) => {
                    found.skip(error.reason());
                    agents.leave(id);
                    break;
                }
            }
        }
        Ok(true)
    }

    /// Stores the steps of these sessions in this order in one transaction; if the database refuses that, each on its own.
    pub(super) fn store_steps(&mut self, sessions: &mut [&mut Session]) {
        let steps: Vec<&Advance> = sessions.iter().filter_map(|session| session.step.as_ref()).collect();
        if steps.is_empty() {
            return;
        }
        let stored = self.store.call(|store| store.advance_all(steps));
        match stored {
            Ok(stored) => {
                let sessions = sessions.iter_mut().filter(|session| session.step.is_some());
                // A destination is woken once, however many steps queue for it.
                let mut wake = HashMap::new();
                for (session, queued) in sessions.zip(stored) {
                    self.is_any_behind |= stored_one(session, &queued, &mut wake);
                }
                for (id, to) in wake {
                    let _ = self.orders.send(Order::Wake(id, to));
                }
            }
            Err(_) if sessions.len() > 1 => {
                sessions.iter_mut().for_each(|session| self.store_steps(&mut [&mut **session]));
            }
            // What was read is not stored, so it is read again from the stored position.
            Err(error) => {
                tracing::warn!(%error, "the database does not take what was read; trying again");
                for session in sessions {
                    session.step = None;
                    facts::again(&self.telemetry, &self.store, &session.row.session_id);
                    session.begin_again();
                    session.retry();
                }
            }
        }
    }
}

/// A session's step was stored. Adds to `wake` the destinations that have something to send. True if a
/// destination fell behind.
fn stored_one(
    session: &mut Session,
    queued: &[(DestinationId, usize)],
    wake: &mut HashMap<DestinationId, Destination>,
) -> bool {
    let Some(step) = session.step.take() else { return false };
    session.row = step.session;
    let consumed: HashSet<String> = step.consumed.into_iter().collect();
    session.waiting.retain(|(hint, _)| !consumed.contains(&hint.id));
    let taking = session.row.hint.destinations().filter(|to| !step.behind.contains(to));
    for (to, (id, spans)) in taking.zip(queued).filter(|(_, (_, spans))| *spans > 0 || !step.scores.is_empty()) {
        tracing::debug!(session = session.row.session_id, spans, "spans stored");
        wake.entry(*id).or_insert_with(|| to.clone());
    }
    !step.behind.is_empty()
}

/// The step that stores what was found. The session's row is final only once it is stored.
fn step(session: &Session, tail: &Tail, file: &mut Transcript, mut found: Gathered, consumed: Vec<String>) -> Advance {
    if !session.row.hint.options.unredacted {
        found.mask(&session.rules);
    }
    let assembler = &tail.assembler;
    let (cursor, closed) = assembler.resume().unwrap_or((tail.lines.consumed(), assembler.closed()));
    let mut row = session.row.clone();
    (row.cursor, row.closed, row.turns) = (file.position(cursor), closed, assembler.turns());
    let mask = |text: &str| session.rules.scrub(text, &mut Counts::new()).unwrap_or_else(|| text.to_owned());
    row.forked_from = assembler.origin().map(|origin| mask(origin));
    row.title = assembler.title().map(mask);
    row.open_turn = assembler.awaits_answer() || assembler.at_work().any(|turn| turn.has_news(Scope::Final));
    Advance {
        session: row,
        spans: found.spans,
        off: found.off,
        marks: found.marks,
        hidden: found.hidden,
        turns: found.turns,
        scores: found.scores,
        launches: found.launches,
        agents: found.agents,
        consumed,
        kept: session.kept.clone(),
        skipped: found.skipped,
        unknown: found.unknown,
        redacted: found.redacted,
        behind: session.behind.clone(),
        now_ms: now_ms(),
    }
}
