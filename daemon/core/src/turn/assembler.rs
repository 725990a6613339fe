//! Where turns begin and end. Takes a session's records one by one, and returns turns that are closed.

use std::{collections::VecDeque, fmt::Debug, sync::Arc};

use super::{
    SkillOutput, Turn,
    answer::Trail,
    chain::{Chain, Link},
    hash::{ById, hash},
    history::{History, Past},
    memory::{Memory, Requests, Written, last_calls, remember},
};
use crate::transcript::record::{Aside, Assistant, Nanos, Prompt, PromptKind, Record, Side, ToolResult};

/// How many items are kept for the next turn.
const MAX_EARLY_ITEMS: usize = 64;

/// How many characters of its lead's session id a teammate knows.
const LEAD_ID_LETTERS: usize = 8;

/// A turn that another terminal works on is closed after this many prompts without a line of its own.
const MAX_PROMPTS_ASIDE: u32 = 3;

/// A team's name is this prefix and the first characters of its lead's session id.
pub const TEAM_OF: &str = "session-";

/// What is known of other sessions, which may contain the same prompt lines.
pub trait Elsewhere: Debug + Send {
    /// True if copied turns are left to the session they were copied from.
    fn leaves_copies(&self) -> bool;

    /// True if the transcript of `session` has the line `uuid`.
    fn has(&mut self, session: &str, uuid: &str) -> bool;

    /// Claims the prompt `uuid` for this session. False if another session has claimed it before.
    fn claim(&mut self, uuid: &str) -> bool;

    /// The other session whose id begins with `letters`, if there is exactly one.
    fn begins_with(&mut self, letters: &str) -> Option<String>;

    /// The session of which no further line is copied.
    fn left(&self) -> Option<&str> {
        None
    }
}

/// Builds turns from records pushed in file order.
#[derive(Debug)]
pub struct Assembler {
    session_id: String,
    /// Answered turns so far.
    answered: u32,
    /// Turns begun, answered or not.
    begun: u32,
    pub(super) open: Option<Turn>,
    /// Turns that other terminals work on.
    aside: Vec<Turn>,
    /// A command that becomes a turn if the model answers it.
    candidate: Option<Turn>,
    chain: Chain,
    /// The chain link for the next record, if that has none.
    link: Link,
    requests: Requests,
    /// The session this one was forked from.
    forked_from: Option<String>,
    /// The session's title.
    title: Option<String>,
    /// The last calls of the previous turn: a late line of one of them must not count again.
    before: ById<(Arc<Trail>, bool)>,
    /// Earlier turns that the user may go back to.
    history: History,
    /// The version of Claude Code that wrote the latest prompt.
    version: Option<String>,
    /// Conversation lines that belong to no turn.
    orphans: u64,
    /// Prompts of recently closed turns, by hash.
    prompts: VecDeque<u64>,
    /// Answer lines of closed turns.
    written: Written,
    /// Items for the next turn, with the offsets of their lines.
    ahead: Vec<(Aside, u64)>,
    elsewhere: Option<Box<dyn Elsewhere>>,
    /// Another tool has sent the beginning of this turn: skip to the next prompt.
    is_begun: bool,
    /// The team of the latest prompt, and the session that leads it.
    lead: Option<(String, Option<String>)>,
}

impl Assembler {
    /// For the session `session_id`, with `closed` answered turns before the first record that will be pushed.
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

    /// Like [`new`](Self::new), with facts from earlier lines: the session it was forked from, its title, and its latest turns.
    #[must_use]
    pub fn resumed(mut self, forked_from: Option<String>, title: Option<String>, turns: Vec<Past>) -> Self {
        (self.forked_from, self.title, self.history) = (forked_from, title, History::of(turns));
        self
    }

    /// Like [`new`](Self::new), after another tool that has sent the earlier lines. If `is_begun`, the current turn is that
    /// tool's, and reading skips to the next prompt.
    #[must_use]
    pub fn behind_another_tool(mut self, is_begun: bool) -> Self {
        self.is_begun = is_begun;
        self
    }

    /// Like [`new`](Self::new), with knowledge of other sessions.
    #[must_use]
    pub fn beside(mut self, elsewhere: impl Elsewhere + 'static) -> Self {
        self.elsewhere = Some(Box::new(elsewhere));
        self
    }

    /// For the session `session_id`, after the lines that `memory` is of.
    pub fn after(session_id: &str, memory: Memory) -> Self {
        let Memory { answered, begun, forked_from, title, lines, requests, before, turns, prompts, written, .. } =
            memory;
        let before = before.into_iter().map(|(id, trail, waits)| (id, (Arc::new(trail), waits))).collect();
        Self {
            answered,
            begun,
            forked_from,
            title,
            chain: Chain::of(lines),
            requests: Requests(requests.into()),
            before,
            history: History::marked(turns),
            prompts: prompts.into(),
            written: Written::of(written),
            ..Self::new(session_id, 0)
        }
    }

    /// What is remembered once the open turn is closed. Together with the lines from there on, it makes up for those before.
    pub fn memory(&self) -> Memory {
        let (mut history, mut prompts) = (self.history.turns(), self.prompts.clone());
        let mut before: Vec<_> = self.before.iter().map(|(id, call)| (id.clone(), call.clone())).collect();
        if let Some(turn) = self.open() {
            let mut with = History::marked(history);
            with.push(Past::of(turn));
            history = with.turns();
            remember(&mut prompts, turn);
            before = last_calls(turn).collect();
        }
        Memory {
            answered: self.answered,
            begun: self.begun,
            forked_from: self.forked_from.clone(),
            title: self.title.clone(),
            left: self.elsewhere.as_ref().and_then(|elsewhere| elsewhere.left()).map(str::to_owned),
            lines: self.chain.lines().collect(),
            requests: self.requests.0.iter().cloned().collect(),
            before: before.into_iter().map(|(id, (trail, waits))| (id, (*trail).clone(), waits)).collect(),
            turns: history,
            prompts: prompts.into(),
            written: self.written.lines().collect(),
        }
    }

    /// True if the prompt at `offset` was pushed last, and nothing but its turn is open.
    pub fn begins_at(&self, offset: u64) -> bool {
        let is_it = |turn: &Turn| (turn.offset, turn.reach.0) == (offset, offset) && !turn.prompt.stands_in();
        self.open.as_ref().is_some_and(|turn| is_it(turn) && turn.generations.is_empty())
            && self.aside.is_empty()
            && self.ahead.is_empty()
            && self.candidate.is_none()
    }

    /// Takes the record of the line at `offset`. Returns a turn that it closed, if that has an answer.
    pub fn push(&mut self, record: Record, offset: u64) -> Option<Turn> {
        let link = match &record {
            Record::Link { uuid, parent } => {
                // Later lines may follow this one.
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
        // A prompt line that was written twice does not begin a second turn.
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
            // A subagent with a file of its own is read there.
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

    /// Lines of subagents (Claude Code 1.x) that fit into no turn form one of their own.
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

    /// Keeps a substitute for a prompt: it is used if an answer follows and there is no real prompt.
    fn stand_in_for(&mut self, prompt: Prompt, offset: u64) {
        // An unreadable line after a turn that is over must have been a prompt.
        let is_own = prompt.kind == PromptKind::Blank && self.open.as_ref().is_some_and(Turn::is_over);
        if let Some(turn) = self.open.as_mut().filter(|_| !is_own) {
            turn.at_tail = None;
        } else if self.candidate.as_ref().is_none_or(|known| known.prompt.stands_in()) {
            // Reading may start again here.
            self.requests = Requests::default();
            self.candidate = Some(self.turn(prompt, offset));
        }
    }

    /// A new turn that begins with `prompt`.
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
            // A command typed while the model works does not interrupt the turn in progress. Lines below the command answer it,
            // however similar they are to an earlier answer.
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
        if copied_from.is_some() {
            let is_copy = turn.is_copied;
            for generation in &mut turn.generations[calls..] {
                generation.is_from_elsewhere = true;
                generation.is_copy |= is_copy;
            }
        }
        closed
    }

    /// A result belongs to the turn of the line it follows, else to one that waits for it.
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

    /// Makes `home` the open turn, if it is in progress.
    fn turn_to(&mut self, home: Option<u32>) {
        if let Some(index) = self.aside.iter().position(|turn| Some(turn.serial) == home) {
            let mut turn = self.aside.remove(index);
            turn.passed = 0;
            self.aside.extend(self.open.replace(turn));
        }
    }

    /// Begins `turn` after a line of the turn `home`. That turn is over, and so is the open one unless its lines continue
    /// elsewhere.
    fn start(&mut self, mut turn: Turn, home: Option<u32>) -> Option<Turn> {
        self.candidate = None;
        let mut closed = self.open.take();
        let parent = turn.prompt.parent.as_deref();
        // The line it follows may have been read long ago, but not the fact that another prompt followed it too.
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
            // A restart that rebuilds that turn rebuilds this one too.
            turn.reach.0 = turn.reach.0.min(offset);
            turn.take(Record::Aside(aside), None);
        }
        // A turn that continues meanwhile is rebuilt together with this one.
        turn.reach.1 = self.answered;
        turn.reach = self.aside.iter().map(|turn| turn.reach).fold(turn.reach, std::cmp::min);
        self.open = Some(turn);
        closed
    }

    /// A turn that nobody has worked on for long.
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
        remember(&mut self.prompts, &turn);
        self.before = last_calls(&turn).collect();
        Some(turn)
    }

    /// The version of Claude Code that writes the session, if known.
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// The session's title.
    pub fn title(&self) -> Option<&str> {
        self.title.as_deref()
    }

    /// The session this one was forked from.
    pub fn origin(&self) -> Option<&String> {
        self.forked_from.as_ref()
    }

    /// The open turn, if it has an answer.
    pub fn open(&self) -> Option<&Turn> {
        self.open.as_ref().filter(|turn| turn.is_answered())
    }

    /// The latest turn, answered or not.
    pub fn newest(&self) -> Option<&Turn> {
        self.open.as_ref()
    }

    /// The latest turn that is closed.
    pub fn closed_last(&self) -> Option<&Past> {
        self.history.last()
    }

    /// Like [`open`](Self::open), to mark what was sent.
    pub fn open_mut(&mut self) -> Option<&mut Turn> {
        self.open.as_mut().filter(|turn| turn.is_answered())
    }

    /// The open turn and those that other terminals work on; the one written to last comes last.
    pub fn at_work(&self) -> impl DoubleEndedIterator<Item = &Turn> {
        self.aside.iter().chain(&self.open).filter(|turn| turn.is_answered())
    }

    /// Like [`at_work`](Self::at_work), to mark what was sent.
    pub fn at_work_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut Turn> {
        self.aside.iter_mut().chain(&mut self.open).filter(|turn| turn.is_answered())
    }

    /// Those turns themselves.
    pub fn into_at_work(self) -> impl Iterator<Item = Turn> {
        self.aside.into_iter().chain(self.open).filter(Turn::is_answered)
    }

    /// A prompt waits for its first answer.
    pub fn awaits_answer(&self) -> bool {
        self.open.as_ref().is_some_and(|turn| !turn.is_answered())
    }

    /// Answered turns so far, including those in progress.
    pub fn turns(&self) -> u32 {
        self.answered
    }

    /// Where reading must start again to rebuild what is open, and how many turns come before; `None` if nothing is open.
    pub fn resume(&self) -> Option<(u64, u32)> {
        let own = self.open.as_ref().or(self.candidate.as_ref()).map(|turn| turn.reach);
        let ahead = self.ahead.first().map(|(_, offset)| (*offset, self.answered));
        self.aside.iter().map(|turn| turn.reach).chain(own).chain(ahead).min()
    }

    /// Closed turns with an answer.
    pub fn closed(&self) -> u32 {
        self.answered.saturating_sub(u32::try_from(self.at_work().count()).unwrap_or(u32::MAX))
    }

    /// Lines that belong to no turn, since the last call.
    pub fn take_orphans(&mut self) -> u64 {
        std::mem::take(&mut self.orphans)
    }

    /// True if the line is the prompt of a turn in progress, or of a recent one.
    fn was_prompt(&self, uuid: &str) -> bool {
        let mut at_work = self.aside.iter().chain(&self.open).chain(&self.candidate);
        at_work.any(|turn| turn.prompt.uuid.as_deref() == Some(uuid)) || self.prompts.contains(&hash(uuid))
    }
}

/// True if the prompt says that it is the first of a session.
fn is_first(prompt: &Prompt) -> bool {
    prompt.parent.is_none() && prompt.uuid.is_some() && !prompt.stands_in()
}
