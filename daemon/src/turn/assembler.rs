//! Where a turn begins and ends: a session's records, or a subagent's, one by one.

use std::{
    collections::{HashMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
};

use super::{
    SkillOutput, Turn,
    answer::Trail,
    history::{BACK, History, Past},
};
use crate::transcript::record::{Aside, Assistant, Nanos, PromptKind, Record};

/// How many requests are remembered until their answer comes.
pub(super) const REQUESTS: usize = 64;

/// How many things are remembered that belong to the turn that comes.
const AHEAD: usize = 64;

/// How many lines of answers are remembered.
const LINES: usize = 4096;

/// How many calls of the turn before are remembered.
const LATE: usize = 64;

/// Builds turns from records pushed in file order.
#[derive(Debug)]
pub struct Assembler {
    session_id: String,
    /// Answered turns before the open one.
    closed: u32,
    pub(super) open: Option<Turn>,
    /// A command that becomes a turn if the model answers it.
    candidate: Option<Turn>,
    requests: Requests,
    /// The session this one was forked from.
    forked_from: Option<String>,
    /// What the session is called.
    title: Option<String>,
    /// The last calls of the turn before: a late line of them must not count again.
    before: HashMap<String, Trail>,
    /// The turns before, to which the user may go back.
    history: History,
    /// The version of Claude Code that wrote the latest prompt.
    version: Option<String>,
    /// Lines of a conversation whose prompt is nowhere.
    orphans: u64,
    /// The prompts of the latest turns that were read and are over.
    prompts: VecDeque<String>,
    /// Lines of answers in turns that are over.
    written: Written,
    /// What belongs to the turn that comes, and the offset of its line.
    ahead: Vec<(Aside, u64)>,
}

impl Assembler {
    /// For the session `session_id`, whose transcript has `closed` answered turns before the first record pushed.
    pub fn new(session_id: &str, closed: u32) -> Self {
        Self {
            session_id: session_id.to_owned(),
            closed,
            open: None,
            candidate: None,
            requests: Requests::default(),
            forked_from: None,
            title: None,
            before: HashMap::new(),
            history: History::default(),
            version: None,
            orphans: 0,
            prompts: VecDeque::new(),
            written: Written::default(),
            ahead: Vec::new(),
        }
    }

    /// Takes the record of the line at `offset`. Returns the turn it closed, if that had an answer.
    pub fn push(&mut self, record: Record, offset: u64) -> Option<Turn> {
        match record {
            // A line that was written twice begins nothing.
            Record::Prompt(prompt) if prompt.uuid.as_ref().is_some_and(|uuid| self.was_prompt(uuid)) => {}
            Record::Prompt(prompt) => {
                if prompt.session.forked_from.as_ref().is_some_and(|from| *from != self.session_id) {
                    self.forked_from.clone_from(&prompt.session.forked_from);
                }
                if prompt.session.version.is_some() {
                    self.version.clone_from(&prompt.session.version);
                }
                let mut turn = Turn::new(prompt, &self.session_id, offset);
                turn.session.forked_from.clone_from(&self.forked_from);
                turn.session.title.clone_from(&self.title);
                if matches!(turn.prompt.kind, PromptKind::Local | PromptKind::Blank) {
                    self.candidate = Some(turn);
                    return None;
                }
                return self.start(turn);
            }
            Record::LocalOutput => self.candidate = None,
            Record::CommandOutput { at, parent, text, agent_id } => {
                self.candidate = None;
                let ran = |turn: &&mut Turn| {
                    !turn.is_answered()
                        && turn.prompt.text.starts_with('/')
                        && parent.is_some()
                        && turn.prompt.uuid == parent
                };
                if let Some(turn) = self.open.as_mut().filter(ran) {
                    turn.prompt.kind = PromptKind::Command;
                    turn.skill = Some(SkillOutput { text, agent_id });
                    turn.end = turn.end.max(at);
                    turn.number = self.closed + 1;
                }
            }
            Record::Request { id, at } => self.requests.put(id, at),
            Record::Assistant(line) => {
                let known = |turn: &Turn| turn.call_of(&line).is_some();
                let closed = match self.candidate.take() {
                    // A command typed while the model works does not interrupt the turn at work.
                    Some(candidate) if self.open.as_ref().is_some_and(known) => {
                        self.candidate = Some(candidate);
                        None
                    }
                    Some(candidate) => self.start(candidate),
                    None => None,
                };
                let before = line.message_id.as_ref().and_then(|id| self.before.get(id));
                let late = before.is_some_and(|call| call.has(&line) || call.goes_on(&line, false))
                    || self.open.as_ref().is_some_and(|turn| self.written.has(&line, turn.offset));
                match &mut self.open {
                    Some(turn) if !late => {
                        let requested = self.requests.sent(line.request_ref.as_deref());
                        turn.number = self.closed + 1;
                        if let Some(from) = line.forked_from.as_ref().filter(|from| **from != self.session_id) {
                            self.forked_from = Some(from.clone());
                        }
                        self.written.add(&line, turn.offset);
                        turn.take(Record::Assistant(line), requested);
                    }
                    _ => self.orphans += 1,
                }
                return closed;
            }
            Record::ToolResults { at, results } => {
                for result in results {
                    if !self.open.as_mut().is_some_and(|turn| turn.result(result, at)) {
                        self.orphans += 1;
                    }
                }
            }
            Record::ApiError { .. } => {
                let closed = self.candidate.take().and_then(|candidate| self.start(candidate));
                if let Some(turn) = &mut self.open {
                    turn.take(record, None);
                    turn.number = self.closed + 1;
                }
                return closed;
            }
            Record::Interrupted { .. } => {
                if let Some(turn) = &mut self.open {
                    turn.take(record, None);
                    turn.number = self.closed + 1;
                }
            }
            Record::Inherits | Record::Link { .. } => {}
            // Where a subagent has a file of its own, its lines are read there.
            Record::Side(side) if side.agent_id.is_some() => {}
            Record::Side(side) => {
                if !self.open.as_mut().is_some_and(|turn| turn.side(*side)) {
                    self.orphans += 1;
                }
            }
            Record::Title(title) => {
                if let Some(turn) = &mut self.open {
                    turn.session.title = Some(title.clone());
                }
                self.title = Some(title);
            }
            Record::Aside(aside) if aside.ahead || self.open.is_none() => {
                if self.ahead.len() < AHEAD {
                    self.ahead.push((aside, offset));
                }
            }
            Record::Queued { .. }
            | Record::Aside(_)
            | Record::Rewritten { .. }
            | Record::Compacted { .. }
            | Record::Fallback { .. }
            | Record::HookFeedback { .. }
            | Record::Retry { .. } => {
                if let Some(turn) = &mut self.open {
                    turn.take(record, None);
                }
            }
        }
        None
    }

    /// As [`new`](Self::new), with what earlier lines said of the session: which one it was forked from, its title, and the latest
    /// of its turns.
    #[must_use]
    pub fn resumed(mut self, forked_from: Option<String>, title: Option<String>, turns: Vec<Past>) -> Self {
        (self.forked_from, self.title, self.history) = (forked_from, title, History::of(turns));
        self
    }

    /// The version of Claude Code that writes the session, as far as it is known.
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// What the session is called.
    pub fn title(&self) -> Option<&str> {
        self.title.as_deref()
    }

    /// The session this one was forked from.
    pub fn origin(&self) -> Option<&String> {
        self.forked_from.as_ref()
    }

    /// The turn that is open, if it has an answer.
    pub fn open(&self) -> Option<&Turn> {
        self.open.as_ref().filter(|turn| turn.is_answered())
    }

    /// The turn that was begun last, whether it was answered or not.
    pub fn newest(&self) -> Option<&Turn> {
        self.open.as_ref()
    }

    /// As [`open`](Self::open), to mark what was sent.
    pub fn open_mut(&mut self) -> Option<&mut Turn> {
        self.open.as_mut().filter(|turn| turn.is_answered())
    }

    /// A prompt is waiting for its first answer.
    pub fn awaits_answer(&self) -> bool {
        self.open.as_ref().is_some_and(|turn| !turn.is_answered())
    }

    /// Answered turns of the transcript so far, the open one included.
    pub fn turns(&self) -> u32 {
        self.closed + u32::from(self.open().is_some())
    }

    /// Where reading must start again to rebuild what is open, and how many turns come before; `None` if nothing is open.
    pub fn resume(&self) -> Option<(u64, u32)> {
        let open = self.open.as_ref().or(self.candidate.as_ref()).map(|turn| turn.offset);
        let ahead = self.ahead.first().map(|(_, offset)| *offset);
        Some((open.into_iter().chain(ahead).min()?, self.closed))
    }

    /// Answered turns before the open one.
    pub fn closed(&self) -> u32 {
        self.closed
    }

    /// Lines whose prompt is nowhere, since the last time this was asked.
    pub fn take_orphans(&mut self) -> u64 {
        std::mem::take(&mut self.orphans)
    }

    /// The line is the prompt of the open turn, or of one that was read lately.
    fn was_prompt(&self, uuid: &str) -> bool {
        let open = [&self.open, &self.candidate].into_iter().flatten().any(|turn| turn.key == uuid);
        open || self.prompts.iter().any(|known| known == uuid)
    }

    fn start(&mut self, mut turn: Turn) -> Option<Turn> {
        self.candidate = None;
        let closed = self.open.take().filter(Turn::is_answered);
        if let Some(closed) = &closed {
            self.closed += 1;
            self.history.push(Past::of(closed));
            if self.prompts.len() == BACK {
                self.prompts.pop_front();
            }
            self.prompts.push_back(closed.key.clone());
            let first = closed.generations.len().saturating_sub(LATE);
            let calls = closed.generations.iter().enumerate().skip(first);
            self.before = calls.map(|(index, generation)| (generation.id.clone(), closed.trail(index))).collect();
        }
        for (aside, offset) in self.ahead.drain(..) {
            // Where the turn is read again, so is this.
            turn.offset = turn.offset.min(offset);
            turn.take(Record::Aside(aside), None);
        }
        turn.left = self.history.left_by(&turn.prompt);
        turn.instead_of = turn.left.first().map(|left| left.number);
        self.open = Some(turn);
        closed
    }
}

/// The lines of answers that were read last, each with the offset of its turn: a line that was written twice counts once.
#[derive(Debug, Default)]
struct Written {
    order: VecDeque<u64>,
    turns: HashMap<u64, u64>,
}

impl Written {
    fn of(line: &Assistant) -> Option<u64> {
        let mut hasher = DefaultHasher::new();
        (line.uuid.as_ref()?, &line.message_id, line.at).hash(&mut hasher);
        Some(hasher.finish())
    }

    fn add(&mut self, line: &Assistant, turn: u64) {
        let Some(line) = Self::of(line) else { return };
        if self.turns.insert(line, turn).is_none() {
            self.order.push_back(line);
        }
        if self.order.len() > LINES
            && let Some(oldest) = self.order.pop_front()
        {
            self.turns.remove(&oldest);
        }
    }

    /// True if the line was read as one of another turn than that at `open`.
    fn has(&self, line: &Assistant, open: u64) -> bool {
        Self::of(line).and_then(|line| self.turns.get(&line)).is_some_and(|turn| *turn != open)
    }
}

/// The requests that went out last, by id: when each was sent.
#[derive(Debug, Default)]
pub(super) struct Requests(VecDeque<(String, Nanos)>);

impl Requests {
    pub(super) fn put(&mut self, id: String, at: Nanos) {
        if self.0.len() == REQUESTS {
            self.0.pop_front();
        }
        self.0.push_back((id, at));
    }

    pub(super) fn sent(&self, id: Option<&str>) -> Option<Nanos> {
        self.0.iter().find(|(known, _)| Some(known.as_str()) == id).map(|(_, at)| *at)
    }
}
