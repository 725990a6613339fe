//! Records of one session or subagent, in file order → turns.
//!
//! The work of a subagent is a turn too; its [`Place`] is below the tool call that launched it.
//!
//! A turn is one prompt and everything up to the next one. It stays open, and can grow, until the next prompt: background work
//! and blocking Stop hooks add to a turn after its Stop. What was sent is marked, so that the same turn can be emitted again
//! with only what is new.
//!
//! Knows neither bytes nor OTLP nor the time of day.

use std::{collections::HashMap, path::Path};

use crate::{
    ids::Fingerprint,
    transcript::record::{Nanos, Prompt, PromptKind, Record, SessionFacts, Side, Spilled},
};

mod answer;
mod assembler;
mod chain;
pub(crate) mod hash;
mod history;
mod items;
mod launches;
mod memory;
pub mod placement;
mod run;
pub mod silence;
mod sources;

pub use assembler::{Assembler, Elsewhere, TEAM_OF};
pub use history::{BACK, Past};
pub use items::{Failure, Generation, Happening, Launch, Note, Order, Place, SkillOutput, Tool};
pub use memory::Memory;
pub use run::Runs;

use hash::ById;

/// How much of an open turn is emitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Only calls that are past, without the root. For turns too large to keep in memory.
    Part,
    /// Everything except running tools: the model has stopped but might go on.
    Settled,
    /// Everything: nothing more will come.
    Final,
}

/// One prompt and everything that followed from it.
#[derive(Debug)]
pub struct Turn {
    /// The source of its ids: the `uuid` of the prompt line, or session id and offset if a line has none.
    pub key: String,
    /// Position among the answered turns of the transcript, from 1.
    pub number: u32,
    /// Offset of the prompt line.
    pub offset: u64,
    pub prompt: Prompt,
    /// In the order of their first lines.
    pub generations: Vec<Generation>,
    /// The output of a skill that ran in a context of its own, in place of answers.
    pub skill: Option<SkillOutput>,
    /// The error in place of the last answer.
    pub error: Option<Failure>,
    pub interrupted: Option<Nanos>,
    /// The user interrupted it, even if the time is unknown.
    pub is_interrupted: bool,
    /// Other events, in file order.
    pub notes: Vec<Note>,
    /// Latest time among answers and tool results.
    pub end: Option<Nanos>,
    /// Version, directory, branch and slug, each from the first line that has it.
    pub session: SessionFacts,
    /// Its root was sent. It is sent again only with something new below it.
    pub root_sent: bool,
    /// The number of the turn that this one replaces: the user went back to before it, abandoning it and those after it.
    pub instead_of: Option<u32>,
    /// The turns it abandoned, until their traces have the event.
    pub left: Vec<Past>,
    /// Set if it is the work of a subagent.
    pub place: Option<Place>,
    /// Subagents whose lines are among its own (Claude Code 1.x).
    pub agents: Vec<Turn>,
    /// Line → index of its subagent; `None` for subagents that no turn asked for.
    sides: HashMap<String, Option<usize>>,
    /// The latest call with each id; it links to the earlier ones.
    by_message: ById<usize>,
    by_tool: ById<(usize, usize)>,
    /// The call with the latest line of the turn.
    at_tail: Option<usize>,
    /// Counts the turns begun since reading started.
    serial: u32,
    /// Where reading must start again to rebuild it, and how many answered turns come before.
    reach: (u64, u32),
    /// How many prompts came since its last line, while it was aside.
    passed: u32,
    /// The session that owns it is known.
    is_settled: bool,
    /// Its prompt was copied from another session, which owns the answers copied with it.
    is_copied: bool,
    /// It consists of lines of subagents whose calls are missing.
    of_sides: bool,
}

impl Turn {
    fn new(prompt: Prompt, session_id: &str, offset: u64) -> Self {
        Self {
            key: prompt.uuid.clone().unwrap_or_else(|| format!("{session_id}:{offset}")),
            number: 0,
            offset,
            session: prompt.session.clone(),
            prompt,
            generations: Vec::new(),
            skill: None,
            error: None,
            interrupted: None,
            is_interrupted: false,
            notes: Vec::new(),
            end: None,
            root_sent: false,
            instead_of: None,
            left: Vec::new(),
            place: None,
            agents: Vec::new(),
            sides: HashMap::new(),
            by_message: ById::default(),
            by_tool: ById::default(),
            at_tail: None,
            serial: 0,
            reach: (offset, 0),
            passed: 0,
            is_settled: false,
            is_copied: false,
            of_sides: false,
        }
    }

    /// Records how long a tool ran. False if the turn has no such call.
    pub fn tool_took(&mut self, tool_id: &str, took_ms: u64) -> bool {
        let mut next = self.by_tool.get(tool_id).copied();
        // If several calls share an id, the one that ran last is reported last.
        while let Some((generation, tool)) = next {
            let tool = &mut self.generations[generation].tools[tool];
            if tool.took_ms.is_none() || tool.earlier.is_none() {
                tool.took_ms = Some(took_ms);
                return true;
            }
            next = tool.earlier;
        }
        false
    }

    /// Assigns its number once it has an answer.
    fn count(&mut self, answered: &mut u32) {
        if self.number == 0 && !(self.of_sides && self.prompt.is_warmup()) {
            *answered += 1;
            self.number = *answered;
        }
    }

    /// Determines which session owns it when session `session_id` is about to answer its prompt, or has copied an answer `from`
    /// another session. Answers of this session to another session's prompt get a key of their own.
    fn settle_owner(
        &mut self,
        session_id: &str,
        forked_from: Option<&str>,
        from: Option<&str>,
        elsewhere: &mut dyn Elsewhere,
    ) {
        let Some(uuid) = self.prompt.uuid.clone().filter(|_| self.prompt.kind != PromptKind::StandIn) else { return };
        match from {
            Some(from) if self.generations.is_empty() => {
                self.is_copied = elsewhere.leaves_copies() && elsewhere.has(from, &uuid);
            }
            None if !self.is_settled => {
                self.is_settled = true;
                let says_so = self.prompt.session.forked_from.as_deref().is_some_and(|from| from != session_id);
                let mut stands_there = || forked_from.is_some_and(|from| elsewhere.has(from, &uuid));
                if says_so || stands_there() || !elsewhere.claim(&uuid) {
                    self.key = format!("{uuid}@{session_id}");
                }
            }
            _ => {}
        }
    }

    /// True if another session owns all of it.
    fn is_copy(&self) -> bool {
        !self.generations.is_empty() && self.generations.iter().all(|generation| generation.is_copy)
    }

    /// The model has answered, or an error took the answer's place: there is something to emit.
    pub fn is_answered(&self) -> bool {
        let has_end = self.skill.is_some() || self.error.is_some() || self.is_interrupted;
        // Subagents that Claude Code starts by itself belong to no turn.
        (has_end || !self.generations.is_empty()) && !(self.of_sides && self.prompt.is_warmup())
    }

    /// What the user saw last: the text of the last answer, or the error in its place.
    pub fn output(&self) -> String {
        match (&self.error, self.generations.last(), &self.skill) {
            (Some(error), ..) => error.text.clone(),
            (None, Some(generation), _) => generation.text(),
            (None, None, Some(skill)) => skill.text.clone(),
            (None, None, None) => String::new(),
        }
    }

    /// True if the turn ends with exactly this answer. Claude Code trims what it gives to a Stop hook; how it would join
    /// several text blocks is unknown.
    pub fn ends_with(&self, answer: &Fingerprint) -> bool {
        let is_it = |text: &str| Fingerprint::of(text) == *answer;
        if self.error.as_ref().is_some_and(|error| is_it(&error.text)) {
            return true;
        }
        let Some(last) = self.generations.last() else {
            return self.skill.as_ref().is_some_and(|skill| is_it(&skill.text));
        };
        last.texts.last().is_some_and(|text| is_it(text))
            || last.texts.len() > 1 && ["\n", "", "\n\n"].iter().any(|by| is_it(&last.texts.join(by)))
    }

    /// True if the generation at `index` is to be sent now.
    pub fn generation_due(&self, index: usize, scope: Scope) -> bool {
        let generation = &self.generations[index];
        !generation.sent
            && !generation.is_copy
            && match scope {
                Scope::Part => self.is_past(index),
                Scope::Settled | Scope::Final => true,
            }
    }

    /// True if the tool at `tool` of the generation at `index` is to be sent now.
    pub fn tool_due(&self, index: usize, tool: usize, scope: Scope) -> bool {
        let tools = &self.generations[index].tools;
        !tools[tool].sent
            && !self.generations[index].is_copy
            && match scope {
                Scope::Part => self.is_past(index),
                // The times of a tool depend on the tools before it.
                Scope::Settled => tools[..=tool].iter().all(Tool::has_returned),
                Scope::Final => true,
            }
    }

    /// True if the event is to be sent now.
    pub fn note_due(&self, note: &Note, scope: Scope) -> bool {
        !note.sent && scope != Scope::Part && self.is_answered() && !self.is_copy()
    }

    /// True if anything is to be sent now.
    pub fn is_due(&self, scope: Scope) -> bool {
        self.has_news(scope) || self.has_notes(scope)
    }

    /// True if any event is to be sent now.
    pub fn has_notes(&self, scope: Scope) -> bool {
        self.notes.iter().any(|note| self.note_due(note, scope))
            || self.agents.iter().any(|agent| agent.has_notes(scope))
    }

    /// True if any work of the model is to be sent now.
    pub fn has_news(&self, scope: Scope) -> bool {
        let due = |index: usize| {
            self.generation_due(index, scope)
                || (0..self.generations[index].tools.len()).any(|tool| self.tool_due(index, tool, scope))
        };
        self.is_answered()
            && !self.is_copy()
            && (scope != Scope::Part && !self.root_sent || (0..self.generations.len()).any(due))
            || self.agents.iter().any(|agent| agent.has_news(scope))
    }

    /// The source of its trace id.
    pub fn trace_key(&self) -> &str {
        self.place.as_ref().map_or(&self.key, |place| &place.turn.0)
    }

    /// The model has said that it is done, or has failed.
    pub fn looks_finished(&self) -> bool {
        let said = self.generations.last().and_then(|generation| generation.stop_reason.as_deref());
        matches!(said, Some("end_turn" | "stop_sequence"))
            || self.error.is_some()
            || said.is_none() && self.skill.is_some()
    }

    /// The model has stopped for whatever reason: the next request begins something new.
    pub(crate) fn is_over(&self) -> bool {
        // Up to 2.1.94 the last line need not say that the model has stopped.
        let said_all = self.generations.last().is_some_and(|last| last.tools.is_empty() && last.stop_reason.is_none());
        self.is_answered() && (self.looks_finished() || self.is_interrupted || said_all)
    }

    /// The call with exactly this prompt, unless it was found before.
    fn call_for(&self, prompt: &str) -> Option<(&Generation, &Tool, &Order)> {
        self.untaken().find(|(_, _, order)| order.prompt.trim() == prompt.trim())
    }

    /// Calls that ask for a subagent none of whose lines were found yet.
    fn untaken(&self) -> impl Iterator<Item = (&Generation, &Tool, &Order)> {
        let taken = |tool: &Tool| {
            let source = self.tool_source(tool);
            self.agents.iter().any(|agent| agent.place.as_ref().is_some_and(|place| place.agent_id == source))
        };
        let tools = self.generations.iter().flat_map(|g| g.tools.iter().map(move |tool| (g, tool)));
        let asked = tools.filter_map(|(generation, tool)| Some((generation, tool, tool.order.as_ref()?)));
        asked.filter(move |(_, tool, _)| !taken(tool))
    }

    /// The call with exactly this prompt as a launch, unless it was found before.
    pub fn launch_for(&self, prompt: &str) -> Option<Launch> {
        let (_, tool, _) = self.call_for(prompt)?;
        let source = self.tool_source(tool);
        self.launches().find(|launch| launch.tool_id == source)
    }

    /// The arguments of the subagent call whose span id is derived from `source`.
    pub fn order(&self, source: &str) -> Option<&Order> {
        let mut tools = self.generations.iter().flat_map(|generation| &generation.tools);
        tools.find(|tool| tool.order.is_some() && self.tool_source(tool) == source)?.order.as_ref()
    }

    /// Takes a subagent's line from among the turn's own. False if it belongs to no subagent of the turn.
    fn side(&mut self, side: Side) -> bool {
        let known = side.parent.as_ref().and_then(|parent| self.sides.get(parent).copied());
        let index = match (known, side.record) {
            (Some(None), _) => None,
            (Some(Some(known)), record) => {
                // The call may come after the subagent's prompt.
                self.place_side(known);
                self.agents[known].take(record, None);
                Some(known)
            }
            // No call asks for subagents that Claude Code starts by itself.
            (None, Record::Prompt(prompt)) if prompt.is_warmup() && self.call_for(&prompt.text).is_none() => None,
            (None, Record::Prompt(prompt)) => self.begin_side(prompt),
            // Lines without content are not counted as orphans.
            (None, Record::Link { .. } | Record::Aside(_)) => return true,
            // The preceding line or the prompt is lost: the line continues the last subagent, or one that was asked for.
            (None, record @ (Record::Assistant(_) | Record::ToolResults { .. })) => {
                let agent = self.agents.len().checked_sub(1).or_else(|| {
                    let (_, _, order) = self.untaken().next()?;
                    let prompt = Prompt { text: order.prompt.clone(), ..Prompt::default() };
                    self.begin_side(prompt)
                });
                if let Some(agent) = agent {
                    self.agents[agent].take(record, None);
                }
                agent
            }
            _ => return false,
        };
        if let Some(uuid) = side.uuid {
            self.sides.insert(uuid, index);
        }
        index.is_some()
    }

    /// Starts a subagent whose lines are among the turn's own, with its `prompt`. `None` if neither a call nor a line
    /// identifies it.
    fn begin_side(&mut self, prompt: Prompt) -> Option<usize> {
        let place = self.place_for(&prompt.text).or_else(|| {
            Some(Place {
                turn: (self.key.clone(), self.number),
                launch_ids: [None, None],
                agent_id: prompt.uuid.clone()?,
                tool_id: None,
                agent_type: None,
                description: None,
                run: None,
                round: 1,
            })
        })?;
        let mut agent = Self::new(prompt, "", 0);
        (agent.number, agent.place) = (self.number, Some(place));
        self.agents.push(agent);
        Some(self.agents.len() - 1)
    }

    /// Places the subagent at `index` below its call, if that is found only now and nothing of the subagent was sent.
    fn place_side(&mut self, index: usize) {
        let agent = &self.agents[index];
        let is_unplaced = agent.place.as_ref().is_some_and(|place| place.tool_id.is_none());
        let was_sent = agent.root_sent || agent.generations.first().is_some_and(|generation| generation.sent);
        if is_unplaced
            && !was_sent
            && let Some(place) = self.place_for(&agent.prompt.text)
        {
            self.agents[index].place = Some(place);
        }
    }

    /// The place below the call with exactly this prompt.
    fn place_for(&self, prompt: &str) -> Option<Place> {
        let (generation, tool, order) = self.call_for(prompt)?;
        let source = self.tool_source(tool).into_owned();
        Some(Place {
            turn: (self.key.clone(), self.number),
            launch_ids: [Some(tool.id.clone()), Some(generation.id.clone())],
            agent_id: source.clone(),
            tool_id: Some(source),
            agent_type: order.subagent_type.clone(),
            description: order.description.clone(),
            run: None,
            round: 1,
        })
    }

    /// Takes a record of this turn. False if it belongs to none of its calls.
    fn take(&mut self, record: Record, requested: Option<Nanos>) -> bool {
        if !matches!(
            record,
            Record::Assistant(_) | Record::Link { .. } | Record::Request { .. } | Record::Title(_) | Record::Side(_)
        ) {
            self.at_tail = None;
        }
        match record {
            Record::Assistant(line) => self.answer(*line, requested),
            Record::ToolResults { at, results } => {
                let mut all = true;
                for result in results {
                    all &= self.result(result, at);
                }
                return all;
            }
            Record::ApiError { at, text, status } => {
                self.end = self.end.max(at);
                self.error = Some(Failure { text, status, at });
            }
            Record::Interrupted { at } => {
                self.is_interrupted = true;
                self.interrupted = at;
                self.end = self.end.max(at);
            }
            Record::Prompt(prompt) if prompt.stands_in() => {}
            // Subagents are emitted while they work.
            Record::Prompt(prompt) => self.note(prompt.at, Happening::Queued(prompt.text, prompt.media)),
            Record::Queued { at, text, .. } if text.trim_start().starts_with("<task-notification>") => {
                self.note(at, Happening::Notification(text));
            }
            Record::Queued { at, text, media } => self.note(at, Happening::Queued(text, media)),
            Record::Fallback { at, from, to, trigger } => self.note(at, Happening::Fallback { from, to, trigger }),
            Record::HookFeedback { at, text } => self.note(at, Happening::HookFeedback(text)),
            Record::Compacted { at, trigger, tokens } => self.note(at, Happening::Compacted { trigger, tokens }),
            Record::Retry { at, status, attempt } => self.note(at, Happening::Retry { status, attempt }),
            Record::Side(side) => return self.side(*side),
            Record::Aside(aside) => self.note(aside.at, Happening::Aside { by: aside.by, text: aside.text }),
            Record::Rewritten { tool_use_id, input } => {
                let Some(&(generation, tool)) = self.by_tool.get(&tool_use_id) else { return false };
                self.generations[generation].tools[tool].rewritten = Some(input);
            }
            Record::LocalOutput
            | Record::CommandOutput { .. }
            | Record::Request { .. }
            | Record::Title(_)
            | Record::Link { .. }
            | Record::Inherits => {}
        }
        true
    }

    fn note(&mut self, at: Option<Nanos>, what: Happening) {
        self.notes.push(Note { at, what, after: self.generations.len(), sent: false });
    }

    /// Replaces outputs that are only the beginning of a file by what `read` returns, where they are due.
    pub fn complete(&mut self, scope: Scope, read: &impl Fn(&Path) -> Option<Spilled>) {
        for index in 0..self.generations.len() {
            for tool in 0..self.generations[index].tools.len() {
                if self.tool_due(index, tool, scope)
                    && let Some((result, _)) = &mut self.generations[index].tools[tool].result
                    && let Some(spilled) = result.spilled.take().and_then(|path| read(&path))
                {
                    result.take_spilled(spilled);
                }
            }
        }
        self.agents.iter_mut().for_each(|agent| agent.complete(scope, read));
    }

    /// Marks what is due as sent, and frees its text.
    pub fn mark_sent(&mut self, scope: Scope) {
        let last = self.generations.len().saturating_sub(1);
        for index in 0..self.generations.len() {
            for tool in 0..self.generations[index].tools.len() {
                if self.tool_due(index, tool, scope) {
                    let tool = &mut self.generations[index].tools[tool];
                    tool.sent = true;
                    tool.input = String::new();
                    if let Some((result, _)) = &mut tool.result {
                        // The call that was given the result refers to the stored copy.
                        result.media.iter_mut().for_each(|media| media.bytes.clear());
                    }
                }
            }
            if self.generation_due(index, scope) {
                let generation = &mut self.generations[index];
                generation.sent = true;
                generation.thinking = Vec::new();
                if index < last {
                    generation.texts = Vec::new();
                }
                // There may be tens of thousands of generations with one tool each.
                generation.tools.shrink_to_fit();
            }
        }
        if scope != Scope::Part && self.is_answered() {
            for note in &mut self.notes {
                note.sent = true;
                if let Happening::Queued(_, media) = &mut note.what {
                    media.iter_mut().for_each(|media| media.bytes.clear());
                }
            }
        }
        self.drop_given();
        if scope != Scope::Part {
            self.left.clear();
        }
        self.root_sent |= scope != Scope::Part;
        if self.root_sent || self.generations.first().is_some_and(|generation| generation.sent) {
            // The root, if it is emitted later, refers to the stored copy.
            self.prompt.media.iter_mut().for_each(|media| media.bytes.clear());
        }
        self.agents.iter_mut().for_each(|agent| agent.mark_sent(scope));
    }

    /// Frees results and other input that were sent both as spans and as input of the next call.
    fn drop_given(&mut self) {
        let generations = &self.generations;
        let is_sent = |index: usize| index == 0 || generations.get(index).is_some_and(|generation| generation.sent);
        for note in self.notes.iter_mut().filter(|note| note.sent && is_sent(note.after)) {
            match &mut note.what {
                Happening::Queued(text, media) => (*text, *media) = (String::new(), Vec::new()),
                Happening::Aside { text, .. } | Happening::HookFeedback(text) | Happening::Notification(text) => {
                    *text = String::new();
                }
                Happening::Compacted { .. } | Happening::Fallback { .. } | Happening::Retry { .. } => {}
            }
        }
        let sent: Vec<bool> = self.generations.iter().map(|generation| generation.sent).collect();
        for tool in self.generations.iter_mut().flat_map(|generation| &mut generation.tools).filter(|tool| tool.sent) {
            if let Some((result, _)) = &mut tool.result
                && (tool.on_server || sent.get(tool.given_to).copied().unwrap_or_default())
            {
                (result.output, result.media) = (String::new(), Vec::new());
            }
        }
    }

    /// True if the model has gone on to another call and every tool of this one has returned.
    fn is_past(&self, index: usize) -> bool {
        index + 1 < self.generations.len() && self.generations[index].tools.iter().all(Tool::has_returned)
    }
}

#[cfg(test)]
mod tests;
