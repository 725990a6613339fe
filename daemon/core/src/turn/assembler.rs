//! Where a turn begins and ends: a session's records one by one.

use std::{collections::VecDeque, fmt::Debug, sync::Arc};

use super::{
    SkillOutput, Turn,
    answer::Trail,
    chain::{Chain, Link},
    hash::{ByHash, ById, hash},
    history::{BACK, History, Past},
};
use crate::transcript::record::{Aside, Assistant, Nanos, Prompt, PromptKind, Record, Side, ToolResult};

/// How many requests are remembered until their answer comes.
pub(super) const MAX_OPEN_REQUESTS: usize = 64;

/// How many things are remembered that belong to the turn that comes.
const MAX_EARLY_ITEMS: usize = 64;

/// How many lines of answers are remembered.
const MAX_ANSWER_LINES: usize = 4096;

/// How many calls of the turn before are remembered.
const PREVIOUS_CALLS: usize = 64;

/// How many letters of its lead's id a teammate's session knows.
const LEAD_ID_LETTERS: usize = 8;

/// How many prompts may pass before a turn that stands aside is over.
const MAX_PROMPTS_ASIDE: u32 = 3;

/// What precedes the first letters of the id of the session that leads a team, in the team's name.
pub const TEAM_OF: &str = "session-";

/// What is known of other sessions, which may have the same prompt lines.
pub trait Elsewhere: Debug + Send {
    /// Turns that were copied are left to the session they are from.
    fn leaves_copies(&self) -> bool;

    /// The transcript of `session` has the line `uuid`.
    fn has(&mut self, session: &str, uuid: &str) -> bool;

    /// This session answers the prompt `uuid`. False if another one did so before.
    fn claim(&mut self, uuid: &str) -> bool;

    /// The one other session whose id begins with `letters`.
    fn begins_with(&mut self, letters: &str) -> Option<String>;
}

/// Builds turns from records pushed in file order.
#[derive(Debug)]
pub struct Assembler {
    session_id: String,
    /// Answered turns so far.
    answered: u32,
    /// How many turns were begun, answered or not.
    begun: u32,
    pub(super) open: Option<Turn>,
    /// Turns that are at work in other terminals.
    aside: Vec<Turn>,
    /// A command that becomes a turn if the model answers it.
    candidate: Option<Turn>,
    chain: Chain,
    /// The line that the next record stands on, if that does not say it.
    link: Link,
    requests: Requests,
    /// The session this one was forked from.
    forked_from: Option<String>,
    /// What the session is called.
    title: Option<String>,
    /// The last calls of the turn before: a late line of them must not count again.
    before: ById<(Arc<Trail>, bool)>,
    /// The turns before, to which the user may go back.
    history: History,
    /// The version of Claude Code that wrote the latest prompt.
    version: Option<String>,
    /// Lines of a conversation that belong to nothing.
    orphans: u64,
    /// The prompts of the latest turns that were read and are over, by hash.
    prompts: VecDeque<u64>,
    /// Lines of answers in turns that are over.
    written: Written,
    /// What belongs to the turn that comes, and the offset of its line.
    ahead: Vec<(Aside, u64)>,
    elsewhere: Option<Box<dyn Elsewhere>>,
    /// Up to the next prompt all belongs to another tool.
    is_begun: bool,
    /// The team of the latest prompt, and the session that leads it.
    lead: Option<(String, Option<String>)>,
}

impl Assembler {
    /// For the session `session_id`, whose transcript has `closed` answered turns before the first record pushed.
    pub fn new(session_id: &str, closed: u32) -> Self {
        Self {
            session_id: session_id.to_owned(),
            answered: closed,
            begun: 0,
            open: None,
            aside: Vec::new(),
            candidate: None,
            chain: Chain::default(),
            link: Link::default(),
            requests: Requests::default(),
            forked_from: None,
            title: None,
            before: ById::default(),
            history: History::default(),
            version: None,
            orphans: 0,
            prompts: VecDeque::new(),
            written: Written::default(),
            ahead: Vec::new(),
            elsewhere: None,
            is_begun: false,
            lead: None,
        }
    }

    /// As [`new`](Self::new), with what earlier lines said of the session: which one it was forked from, its title, and the latest
    /// of its turns.
    #[must_use]
    pub fn resumed(mut self, forked_from: Option<String>, title: Option<String>, turns: Vec<Past>) -> Self {
        (self.forked_from, self.title, self.history) = (forked_from, title, History::of(turns));
        self
    }

    /// As [`new`](Self::new), where another tool sent what stands before, and goes on with the turn it had begun: nothing is read
    /// up to the next prompt.
    #[must_use]
    pub fn behind_another_tool(mut self, is_begun: bool) -> Self {
        self.is_begun = is_begun;
        self
    }

    /// As [`new`](Self::new), with what is known of other sessions.
    #[must_use]
    pub fn beside(mut self, elsewhere: impl Elsewhere + 'static) -> Self {
        self.elsewhere = Some(Box::new(elsewhere));
        self
    }

    /// Takes the record of the line at `offset`. Returns a turn that it closed, if that had an answer.
    pub fn push(&mut self, record: Record, offset: u64) -> Option<Turn> {
        let link = match &record {
            Record::Link { uuid, parent } => {
                // Others may follow it.
                self.link = Link::new(uuid.as_deref(), parent.as_deref());
                let home = self.chain.home(&self.link).or_else(|| self.open.as_ref().map(|turn| turn.serial));
                home.into_iter().for_each(|turn| self.chain.put(&self.link, turn));
                return None;
            }
            Record::Prompt(prompt) => Link::new(prompt.uuid.as_deref(), prompt.parent.as_deref()),
            Record::Assistant(line) => Link::new(line.uuid.as_deref(), line.parent.as_deref()),
            _ => std::mem::take(&mut self.link),
        };
        self.link = Link::default();
        // A line that was written twice begins nothing.
        if let Record::Prompt(Prompt { uuid: Some(uuid), .. }) = &record
            && self.was_prompt(uuid)
        {
            return None;
        }
        let home = self.chain.home(&link);
        let begins = matches!(&record, Record::Prompt(prompt) if !prompt.stands_in());
        let closed = self.take(home, record, offset).or_else(|| self.overdue());
        let begun = self.candidate.as_ref().or(self.open.as_ref()).map(|turn| turn.serial).filter(|_| begins);
        if let Some(turn) = begun.or(home).or(self.open.as_ref().map(|turn| turn.serial)) {
            self.chain.put(&link, turn);
        }
        closed
    }

    fn take(&mut self, home: Option<u32>, record: Record, offset: u64) -> Option<Turn> {
        match record {
            Record::Prompt(prompt) => return self.prompt(home, prompt, offset),
            Record::LocalOutput => self.candidate = None,
            Record::CommandOutput { at, parent, text, agent_id } => {
                self.candidate = None;
                self.turn_to(home);
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
                    turn.count(&mut self.answered);
                }
            }
            Record::Request { id, at } => self.requests.put(id, at),
            Record::Assistant(line) => return self.answer(home, *line, offset),
            Record::ToolResults { at, results } => {
                self.turn_to(home);
                let is_home = self.open.as_ref().is_some_and(|turn| Some(turn.serial) == home);
                results.into_iter().for_each(|result| self.result(is_home, result, at));
            }
            Record::ApiError { .. } => {
                self.turn_to(home);
                let closed = self.candidate.take().and_then(|candidate| self.start(candidate, None));
                if let Some(turn) = &mut self.open {
                    turn.take(record, None);
                    turn.count(&mut self.answered);
                }
                return closed;
            }
            Record::Interrupted { .. } => {
                self.turn_to(home);
                if let Some(turn) = &mut self.open {
                    turn.take(record, None);
                    turn.count(&mut self.answered);
                }
            }
            Record::Inherits | Record::Link { .. } => {}
            // Where a subagent has a file of its own, its lines are read there.
            Record::Side(side) if side.agent_id.is_some() => {}
            Record::Side(side) if self.open.as_ref().is_none_or(|turn| turn.of_sides) => {
                return self.sides(home, *side, offset);
            }
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
                if self.ahead.len() < MAX_EARLY_ITEMS {
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
                self.turn_to(home);
                if let Some(turn) = &mut self.open {
                    turn.take(record, None);
                }
            }
        }
        None
    }

    fn prompt(&mut self, home: Option<u32>, prompt: Prompt, offset: u64) -> Option<Turn> {
        if prompt.session.forked_from.as_ref().is_some_and(|from| *from != self.session_id) {
            self.forked_from.clone_from(&prompt.session.forked_from);
        }
        if prompt.session.version.is_some() {
            self.version.clone_from(&prompt.session.version);
        }
        if prompt.stands_in() {
            if !self.is_begun {
                self.stand_in_for(prompt, offset);
            }
            return None;
        }
        self.is_begun = false;
        let turn = self.turn(prompt, offset);
        if turn.prompt.kind == PromptKind::Local {
            self.candidate = Some(turn);
            return None;
        }
        self.start(turn, home)
    }

    /// Lines of subagents (Claude Code 1.x) without a turn that they could belong to are one.
    fn sides(&mut self, home: Option<u32>, side: Side, offset: u64) -> Option<Turn> {
        if let Record::Prompt(prompt) = side.record {
            let mut turn = self.turn(Prompt { kind: PromptKind::StandIn, ..prompt }, offset);
            turn.of_sides = true;
            self.candidate = Some(turn);
            return None;
        }
        let closed = self.take(home, side.record, offset);
        self.open
            .iter_mut()
            .filter(|turn| turn.prompt.kind == PromptKind::StandIn)
            .for_each(|turn| turn.of_sides = true);
        closed
    }

    /// What stands where a prompt should be: it is taken for one if an answer follows and there is no other.
    fn stand_in_for(&mut self, prompt: Prompt, offset: u64) {
        // What cannot be read, behind a turn that is over, asks for something, whatever it was.
        let is_own = prompt.kind == PromptKind::Blank && self.open.as_ref().is_some_and(Turn::is_over);
        if let Some(turn) = self.open.as_mut().filter(|_| !is_own) {
            turn.at_tail = None;
        } else if self.candidate.as_ref().is_none_or(|known| known.prompt.stands_in()) {
            // Reading may start again here.
            self.requests = Requests::default();
            self.candidate = Some(self.turn(prompt, offset));
        }
    }

    /// A turn that begins with `prompt`.
    fn turn(&mut self, prompt: Prompt, offset: u64) -> Turn {
        let mut turn = Turn::new(prompt, &self.session_id, offset);
        self.begun += 1;
        (turn.serial, turn.reach) = (self.begun, (offset, self.answered));
        turn.session.forked_from.clone_from(&self.forked_from);
        turn.session.title.clone_from(&self.title);
        if let Some(team) = &turn.session.team {
            if self.lead.as_ref().is_none_or(|(of, _)| of != team) {
                let letters = team.strip_prefix(TEAM_OF).filter(|letters| letters.len() >= LEAD_ID_LETTERS);
                let lead = letters.and_then(|letters| self.elsewhere.as_mut()?.begins_with(letters));
                self.lead = Some((team.clone(), lead));
            }
            turn.session.lead = self.lead.as_ref().and_then(|(_, lead)| lead.clone());
        }
        turn
    }

    fn answer(&mut self, home: Option<u32>, line: Assistant, offset: u64) -> Option<Turn> {
        if self.is_begun {
            self.orphans += 1;
            return None;
        }
        self.turn_to(home);
        let known = |turn: &Turn| turn.call_of(&line).is_some();
        let mut closed = match self.candidate.take() {
            // A command typed while the model works does not interrupt the turn at work. What stands below it is its answer,
            // however much it looks like an earlier one.
            Some(candidate) if home != Some(candidate.serial) && self.open.as_ref().is_some_and(known) => {
                self.candidate = Some(candidate);
                None
            }
            Some(candidate) => self.start(candidate, None),
            None => None,
        };
        let is_home = home.is_some() && self.open.as_ref().map(|turn| turn.serial) == home;
        let before = line.message_id.as_ref().and_then(|id| self.before.get(id)).filter(|_| !is_home);
        let is_late = before.is_some_and(|(call, waits)| call.has(&line) || call.goes_on(&line, false, || *waits));
        if is_late || self.open.as_ref().is_some_and(|turn| self.written.has(&line, turn.serial)) {
            self.orphans += 1;
            return closed;
        }
        if self.open.is_none() {
            let mut turn = self.turn(Prompt { kind: PromptKind::StandIn, at: line.at, ..Prompt::default() }, offset);
            turn.key = line.uuid.clone().unwrap_or(turn.key);
            // Reading may start again here.
            self.requests = Requests::default();
            closed = closed.or(self.start(turn, None));
        }
        if let Some(from) = line.forked_from.as_ref().filter(|from| **from != self.session_id) {
            self.forked_from = Some(from.clone());
        }
        let Some(turn) = &mut self.open else { return closed };
        let requested = self.requests.sent(line.request_ref.as_deref());
        turn.count(&mut self.answered);
        self.written.add(&line, turn.serial);
        let copied_from = line.forked_from.clone().filter(|from| *from != self.session_id);
        let calls = turn.generations.len();
        if let Some(elsewhere) = &mut self.elsewhere {
            turn.settle_owner(&self.session_id, self.forked_from.as_deref(), copied_from.as_deref(), &mut **elsewhere);
        }
        turn.take(Record::Assistant(Box::new(line)), requested);
        if turn.is_copied && copied_from.is_some() {
            turn.generations[calls..].iter_mut().for_each(|generation| generation.is_copy = true);
        }
        closed
    }

    /// A result belongs to the turn its line follows, else to one that waits for it.
    fn result(&mut self, is_home: bool, result: ToolResult, at: Option<Nanos>) {
        let id = &result.tool_use_id;
        let is_its = |turn: &Turn| is_home && turn.has_call(id) || turn.awaits(id);
        if !self.open.as_ref().is_some_and(is_its)
            && let Some(turn) = self.aside.iter_mut().find(|turn| turn.awaits(id))
        {
            turn.result(result, at);
        } else if !self.open.as_mut().is_some_and(|turn| turn.result(result, at)) {
            self.orphans += 1;
        }
    }

    /// Lines go on in the turn `home`, if it is open.
    fn turn_to(&mut self, home: Option<u32>) {
        if let Some(index) = self.aside.iter().position(|turn| Some(turn.serial) == home) {
            let mut turn = self.aside.remove(index);
            turn.passed = 0;
            self.aside.extend(self.open.replace(turn));
        }
    }

    /// `turn` begins, behind a line of the turn `home`. That is over, and so is the one at work, unless its lines go on elsewhere.
    fn start(&mut self, mut turn: Turn, home: Option<u32>) -> Option<Turn> {
        self.candidate = None;
        let mut closed = self.open.take();
        let parent = turn.prompt.parent.as_deref();
        // Which line that is may have been read long ago, but not that another prompt followed it.
        let is_old = |open: &Turn| match parent {
            Some(line) => open.prompt.parent.as_deref() == Some(line) || self.history.has_followed(line),
            // Two terminals can each begin a session that has no line yet.
            None => is_first(&open.prompt) && is_first(&turn.prompt) && !open.is_answered(),
        };
        let stays = |open: &mut Turn| {
            let goes_elsewhere = home.map_or_else(|| is_old(open), |home| home != open.serial);
            goes_elsewhere && (!open.is_over() || self.aside.iter().any(Turn::is_answered))
        };
        if let Some(aside) = closed.take_if(stays) {
            let follows = self.aside.iter().position(|turn| Some(turn.serial) == home);
            closed = follows.map(|index| self.aside.remove(index));
            self.aside.push(aside);
        }
        self.aside.iter_mut().for_each(|turn| turn.passed += 1);
        let closed = closed.and_then(|closed| self.close(closed));
        turn.left = self.history.left_by(&turn.prompt);
        turn.instead_of = turn.left.first().map(|left| left.number);
        for (aside, offset) in self.ahead.drain(..) {
            // Where the turn is read again, so is this.
            turn.reach.0 = turn.reach.0.min(offset);
            turn.take(Record::Aside(aside), None);
        }
        // A turn that goes on meanwhile is read again with this one.
        turn.reach.1 = self.answered;
        turn.reach = self.aside.iter().map(|turn| turn.reach).fold(turn.reach, std::cmp::min);
        self.open = Some(turn);
        closed
    }

    /// A turn at which nobody has worked for long.
    fn overdue(&mut self) -> Option<Turn> {
        let index = self.aside.iter().position(|turn| turn.passed > MAX_PROMPTS_ASIDE)?;
        let turn = self.aside.remove(index);
        self.close(turn)
    }

    fn close(&mut self, turn: Turn) -> Option<Turn> {
        if !turn.is_answered() {
            return None;
        }
        self.history.push(Past::of(&turn));
        if let Some(uuid) = &turn.prompt.uuid {
            if self.prompts.len() == BACK {
                self.prompts.pop_front();
            }
            self.prompts.push_back(hash(uuid));
        }
        let first = turn.generations.len().saturating_sub(PREVIOUS_CALLS);
        let calls = turn.generations.iter().enumerate().skip(first);
        self.before = calls.map(|(index, generation)| (generation.id.clone(), turn.trail(index))).collect();
        Some(turn)
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

    /// The same with those at which other terminals work; the one written to last comes last.
    pub fn at_work(&self) -> impl DoubleEndedIterator<Item = &Turn> {
        self.aside.iter().chain(&self.open).filter(|turn| turn.is_answered())
    }

    /// As [`at_work`](Self::at_work), to mark what was sent.
    pub fn at_work_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut Turn> {
        self.aside.iter_mut().chain(&mut self.open).filter(|turn| turn.is_answered())
    }

    /// A prompt is waiting for its first answer.
    pub fn awaits_answer(&self) -> bool {
        self.open.as_ref().is_some_and(|turn| !turn.is_answered())
    }

    /// Answered turns of the transcript so far, those at work included.
    pub fn turns(&self) -> u32 {
        self.answered
    }

    /// Where reading must start again to rebuild what is open, and how many turns come before; `None` if nothing is open.
    pub fn resume(&self) -> Option<(u64, u32)> {
        let own = self.open.as_ref().or(self.candidate.as_ref()).map(|turn| turn.reach);
        let ahead = self.ahead.first().map(|(_, offset)| (*offset, self.answered));
        self.aside.iter().map(|turn| turn.reach).chain(own).chain(ahead).min()
    }

    /// Answered turns that are over.
    pub fn closed(&self) -> u32 {
        self.answered.saturating_sub(u32::try_from(self.at_work().count()).unwrap_or(u32::MAX))
    }

    /// Lines that belong to nothing, since the last time this was asked.
    pub fn take_orphans(&mut self) -> u64 {
        std::mem::take(&mut self.orphans)
    }

    /// The line is the prompt of a turn that is at work, or of one that was read lately.
    fn was_prompt(&self, uuid: &str) -> bool {
        let mut at_work = self.aside.iter().chain(&self.open).chain(&self.candidate);
        at_work.any(|turn| turn.prompt.uuid.as_deref() == Some(uuid)) || self.prompts.contains(&hash(uuid))
    }
}

/// True if the prompt says of itself that it is the first of a session.
fn is_first(prompt: &Prompt) -> bool {
    prompt.parent.is_none() && prompt.uuid.is_some() && !prompt.stands_in()
}

/// The lines of answers that were read last, each with the serial number of its turn: a line that was written twice counts once.
#[derive(Debug, Default)]
struct Written {
    order: VecDeque<u64>,
    turns: ByHash<u32>,
}

impl Written {
    fn of(line: &Assistant) -> Option<u64> {
        Some(hash((line.uuid.as_ref()?, &line.message_id, line.at)))
    }

    fn add(&mut self, line: &Assistant, turn: u32) {
        let Some(line) = Self::of(line) else { return };
        if self.turns.insert(line, turn).is_none() {
            self.order.push_back(line);
        }
        if self.order.len() > MAX_ANSWER_LINES
            && let Some(oldest) = self.order.pop_front()
        {
            self.turns.remove(&oldest);
        }
    }

    /// True if the line was read as one of another turn than `open`.
    fn has(&self, line: &Assistant, open: u32) -> bool {
        Self::of(line).and_then(|line| self.turns.get(&line)).is_some_and(|turn| *turn != open)
    }
}

/// The requests that went out last, by id: when each was sent.
#[derive(Debug, Default)]
pub(super) struct Requests(VecDeque<(String, Nanos)>);

impl Requests {
    pub(super) fn put(&mut self, id: String, at: Nanos) {
        if self.0.len() == MAX_OPEN_REQUESTS {
            self.0.pop_front();
        }
        self.0.push_back((id, at));
    }

    pub(super) fn sent(&self, id: Option<&str>) -> Option<Nanos> {
        self.0.iter().find(|(known, _)| Some(known.as_str()) == id).map(|(_, at)| *at)
    }
}
