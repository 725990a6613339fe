//! Which call an answer line or a tool result belongs to.
//!
//! The lines of an answer share `message.id`, but the id alone proves nothing: some gateways use one id for all answers, or
//! count from 1 in each session. A line belongs to a call with its id if it follows it directly, or if request, time or content
//! agree too.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    Generation, Tool, Turn,
    hash::{Hashes, hash, stable},
};
use crate::transcript::record::{Assistant, Block, Nanos, Service, ToolResult, Usage, launched};

/// The tool that wakes a subagent again.
const WAKES: &str = "SendMessage";

/// How many recent calls are compared by properties other than their id.
const RECENT_CALLS: usize = 64;

/// The model of a line that does not name it.
const UNKNOWN: &str = "unknown";

/// What identifies further lines of a call.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Trail {
    request_id: Option<String>,
    usage: Option<Usage>,
    /// The model has said why it stopped.
    stopped: bool,
    at: [Option<Nanos>; 2],
    lines: Hashes,
    /// None of its lines names its answer.
    pub(super) is_nameless: bool,
    blocks: Hashes,
}

fn waits(generation: &Generation) -> bool {
    generation.tools.iter().any(|tool| !tool.has_returned())
}

/// The fingerprint of a call's first block. It is stored, so it must not change.
fn opening(block: &Block) -> u64 {
    let of = |kind: &str, id: &str, name: &str, text: &str| stable(&[kind, id, name, text]);
    match block {
        Block::Text(text) => of("text", "", "", text),
        Block::Thinking(text) => of("thinking", "", "", text),
        Block::ToolUse { id, name, input } => of("tool", id, name, input),
        Block::ServerTool { id, name, input } => of("server", id, name, input),
        Block::ServerResult(result) => of("result", &result.tool_use_id, "", &result.output),
        Block::Other { kind, .. } => of("other", kind, "", ""),
    }
}

fn block_hash(block: &Block) -> u64 {
    match block {
        Block::Text(text) => hash((0, text)),
        Block::Thinking(text) => hash((1, text)),
        Block::ToolUse { id, name, input } => hash((2, id, name, input)),
        other => hash((3, format!("{other:?}"))),
    }
}

impl Trail {
    /// True if the same line was read before.
    pub(super) fn has(&self, line: &Assistant) -> bool {
        line.uuid.as_ref().is_some_and(|uuid| self.lines.contains(&hash(uuid)))
    }

    /// True if the same line was read before and adds nothing: a damaged line may occur once more, intact.
    fn says(&self, line: &Assistant) -> bool {
        let has_blocks = line.blocks.iter().all(|block| self.blocks.contains(&block_hash(block)));
        self.has(line) && has_blocks && (line.usage.is_none() || self.usage.is_some())
    }

    /// True if `line`, which has the same `message.id`, belongs to the same call. `follows`: it comes directly after the call's
    /// last line. `waits`: a tool of the call has not returned.
    pub(super) fn goes_on(&self, line: &Assistant, follows: bool, waits: impl Fn() -> bool) -> bool {
        let requests = self.request_id.as_ref().zip(line.request_id.as_ref()).map(|(known, new)| known == new);
        match requests {
            Some(true) => true,
            // Another model took over in mid-stream.
            Some(false) if follows && !self.stopped => true,
            Some(false) => self.repeats(line) || self.is_followed_by(line),
            None => {
                follows
                    || line.at.is_some() && self.at.contains(&line.at)
                    || self.repeats(line)
                    || self.has_usage_of(line, waits)
            }
        }
    }

    /// True if `line` belongs to the same call although a `message.id` is missing: it has the same request, or it follows a
    /// line of the call and repeats its usage.
    fn is_of(&self, line: &Assistant) -> bool {
        let requests = self.request_id.as_ref().zip(line.request_id.as_ref()).map(|(known, new)| known == new);
        match requests {
            // Two answers to one request are the same answer, whatever their ids.
            Some(true) => self.is_nameless || line.message_id.is_none() || self.is_followed_by(line),
            Some(false) => false,
            None => (self.is_nameless || line.message_id.is_none()) && self.is_followed_by(line),
        }
    }

    /// `line` follows one of the call's lines in the chain and repeats its usage.
    fn is_followed_by(&self, line: &Assistant) -> bool {
        let follows = line.parent.as_ref().is_some_and(|parent| self.lines.contains(&hash(parent)));
        follows && line.usage.is_some_and(|usage| usage != Usage::default()) && line.usage == self.usage
    }

    /// Everything in `line` was read before.
    fn repeats(&self, line: &Assistant) -> bool {
        !line.blocks.is_empty()
            && line.blocks.iter().all(|block| self.blocks.contains(&block_hash(block)))
            && (line.usage.is_none() || line.usage == self.usage)
    }

    /// Every line of an answer repeats its usage, with a placeholder for the output until the model has stopped. Without any
    /// counts, only a tool that has not returned shows that the answer continues.
    fn has_usage_of(&self, line: &Assistant, waits: impl Fn() -> bool) -> bool {
        // Claude Code 2.1.332 numbers the blocks of an answer: block 0 begins a new one.
        if line.block_index == Some(0) {
            return false;
        }
        let input = |usage: &Usage| (usage.input, usage.cache_read, usage.cache_creation);
        match (&self.usage, &line.usage) {
            (Some(known), Some(new)) if *known == Usage::default() && *new == *known => !self.stopped || waits(),
            (Some(known), Some(new)) if self.stopped => known == new,
            (Some(known), Some(new)) => input(known) == input(new) || *known == Usage::default(),
            _ => !self.stopped || waits(),
        }
    }

    fn add(&mut self, line: &Assistant) {
        self.lines.extend(line.uuid.iter().map(hash));
        self.blocks.extend(line.blocks.iter().map(block_hash));
        self.request_id = self.request_id.take().or_else(|| line.request_id.clone());
        self.at = [self.at[0].or(line.at), line.at.or(self.at[1])];
        self.stopped |= line.stop_reason.is_some();
        if let Some(usage) = line.usage
            && self.usage.is_none_or(|best| usage.output >= best.output)
        {
            self.usage = Some(usage);
        }
    }
}

impl Turn {
    /// The call with the id of `line` that this line continues or repeats.
    pub(super) fn call_of(&self, line: &Assistant) -> Option<usize> {
        let mut next = line.message_id.as_ref().or(line.uuid.as_ref()).and_then(|id| self.by_message.get(id)).copied();
        while let Some(index) = next {
            let generation = &self.generations[index];
            let follows = self.at_tail == Some(index);
            if generation.trail.has(line) || generation.trail.goes_on(line, follows, || waits(generation)) {
                return Some(index);
            }
            next = generation.earlier;
        }
        let recent = self.generations.iter().enumerate().rev().take(RECENT_CALLS);
        let mut of = recent.filter(|(_, generation)| generation.trail.is_of(line)).map(|(index, _)| index);
        of.next()
    }

    /// The trail of the call at `index`, and whether one of its tools has not returned.
    pub(super) fn trail(&self, index: usize) -> (Arc<Trail>, bool) {
        let generation = &self.generations[index];
        (Arc::clone(&generation.trail), waits(generation))
    }

    pub(super) fn answer(&mut self, line: Assistant, requested: Option<Nanos>) {
        // A later answer shows that the error was not final.
        self.error = None;
        let known = self.call_of(&line);
        let id = line
            .message_id
            .clone()
            .or_else(|| line.uuid.clone())
            .unwrap_or_else(|| format!("{}#{}", self.key, self.generations.len()));
        let previous = self.end.max(self.prompt.at);
        let index = known.unwrap_or(self.generations.len());
        if known.is_none() {
            let earlier = self.by_message.insert(id.clone(), index);
            let trail = Arc::new(Trail { is_nameless: line.message_id.is_none(), ..Trail::default() });
            self.generations.push(Generation {
                id,
                repeats: earlier.map_or(0, |earlier| self.generations[earlier].repeats + 1),
                earlier,
                opening: line.blocks.first().map(opening),
                model: line.model.clone(),
                request_id: None,
                requested,
                previous,
                first: line.at,
                last: None,
                stop_reason: None,
                usage: None,
                advice: Vec::new(),
                service: Service::default(),
                texts: Vec::new(),
                thinking: Vec::new(),
                tools: Vec::new(),
                other: Vec::new(),
                sent: false,
                is_copy: false,
                is_from_elsewhere: false,
                trail,
            });
        }
        let generation = &mut self.generations[index];
        if let Some(id) = line.message_id.as_ref().filter(|_| generation.trail.is_nameless && !generation.sent) {
            // Earlier lines did not name their answer.
            generation.id.clone_from(id);
            Arc::make_mut(&mut generation.trail).is_nameless = false;
            let earlier = self.by_message.insert(id.clone(), index).filter(|earlier| *earlier != index);
            let repeats = earlier.map_or(0, |earlier| self.generations[earlier].repeats + 1);
            let generation = &mut self.generations[index];
            (generation.earlier, generation.repeats) = (earlier, repeats);
        }
        if self.generations[index].trail.says(&line) {
            return;
        }
        self.at_tail = Some(index);
        let generation = &mut self.generations[index];
        Arc::make_mut(&mut generation.trail).add(&line);
        generation.first = generation.first.or(line.at);
        generation.last = generation.last.max(line.at);
        generation.requested = generation.requested.or(requested);
        generation.request_id = generation.request_id.take().or(line.request_id);
        self.session.slug = self.session.slug.take().or(line.slug);
        // Every line repeats the usage of the whole answer; up to 2.1.94 early lines hold a placeholder. Model and usage are
        // taken from one line: a fallback in mid-stream puts two models under one id.
        if let Some(usage) = line.usage
            && generation.usage.is_none_or(|best| usage.output >= best.output)
        {
            // A count that one line lacks may be in another.
            let same = generation.usage.filter(|best| best.output == usage.output && generation.model == line.model);
            generation.usage = Some(same.map_or(usage, |best| best.or_larger(usage)));
            if line.advice.len() >= generation.advice.len() {
                generation.advice = line.advice;
            }
            if line.model != UNKNOWN {
                generation.model = line.model;
            }
            generation.service = line.service;
        }
        generation.stop_reason = line.stop_reason.or(generation.stop_reason.take());
        self.end = self.end.max(line.at);
        // A snapshot may repeat or extend earlier blocks; within one line every block is distinct.
        let (mut text_at, mut thought_at) = (0, 0);
        let first_tool = self.generations[index].tools.len();
        for block in line.blocks {
            let generation = &mut self.generations[index];
            match block {
                Block::Text(text) => put(&mut generation.texts, &mut text_at, text),
                Block::Thinking(text) => put(&mut generation.thinking, &mut thought_at, text),
                Block::ToolUse { id, name, input } => self.call(index, first_tool, (id, false), name, input, line.at),
                Block::ServerTool { id, name, input } => {
                    self.call(index, first_tool, (id, true), name, input, line.at);
                }
                Block::ServerResult(result) => {
                    let waits =
                        |tool: &&mut Tool| tool.on_server && tool.id == result.tool_use_id && tool.result.is_none();
                    if let Some(tool) = generation.tools.iter_mut().rev().find(waits) {
                        tool.result = Some((result, line.at));
                    }
                }
                Block::Other { kind, json } => {
                    if !generation.other.iter().any(|(_, known)| !json.is_empty() && *known == json) {
                        generation.other.push((kind, json));
                    }
                }
            }
        }
    }

    /// Finds or adds a tool call of the generation at `index`; its first `before` tools are from earlier lines.
    fn call(
        &mut self,
        index: usize,
        before: usize,
        (id, on_server): (String, bool),
        name: String,
        input: String,
        at: Option<Nanos>,
    ) {
        let launches = !on_server && (name == "Agent" || name == "Task");
        let earlier = self.by_tool.get(&id).copied();
        if let Some((generation, tool)) = earlier.filter(|(generation, tool)| *generation == index && *tool < before) {
            let tool = &mut self.generations[generation].tools[tool];
            if !tool.sent && input.len() > tool.input.len() {
                tool.order = launches.then(|| serde_json::from_str(&input).unwrap_or_default());
                tool.input = input;
            }
            return;
        }
        let repeats = earlier.map_or(0, |(generation, tool)| self.generations[generation].tools[tool].repeats + 1);
        let tools = &mut self.generations[index].tools;
        self.by_tool.insert(id.clone(), (index, tools.len()));
        tools.push(Tool {
            order: launches.then(|| serde_json::from_str(&input).unwrap_or_default()),
            id,
            repeats,
            earlier,
            name,
            input,
            called: at,
            took_ms: None,
            rewritten: None,
            on_server,
            result: None,
            given_to: usize::MAX,
            sent: false,
        });
    }

    pub fn has_call(&self, tool_id: &str) -> bool {
        self.by_tool.contains_key(tool_id)
    }

    /// True if a call waits for this result.
    pub(super) fn awaits(&self, tool_id: &str) -> bool {
        self.open_call(tool_id).is_some()
    }

    /// The latest call with this id that has no result yet; within one answer the first.
    fn open_call(&self, tool_id: &str) -> Option<(usize, usize)> {
        let mut next = self.by_tool.get(tool_id).copied();
        let mut found: Option<(usize, usize)> = None;
        while let Some((generation, index)) = next
            && found.is_none_or(|(known, _)| known == generation)
        {
            let tool = &self.generations[generation].tools[index];
            if tool.result.is_none() {
                found = next;
            }
            next = tool.earlier;
        }
        found
    }

    /// Stores a tool result. If several calls share its id, it belongs to the nearest that waits. False if none does.
    pub(super) fn result(&mut self, mut result: ToolResult, at: Option<Nanos>) -> bool {
        self.at_tail = None;
        let Some((generation, tool)) = self.open_call(&result.tool_use_id) else {
            return self.has_call(&result.tool_use_id);
        };
        let next = self.generations.len();
        let tool = &mut self.generations[generation].tools[tool];
        tool.given_to = next;
        if tool.name == WAKES && result.agent.is_none() {
            // A subagent's own transcript says this nowhere else.
            result.agent = launched(&result.output).filter(|agent| agent.wakes);
        }
        tool.result = Some((result, at));
        self.end = self.end.max(at);
        true
    }
}

/// Adds `text` unless it equals one of `texts` from `at` on, or the beginning of one. If it extends one of them, that one is
/// replaced.
fn put(texts: &mut Vec<String>, at: &mut usize, text: String) {
    let same = |known: &String| {
        let both = !known.is_empty() && !text.is_empty();
        both && (known.starts_with(text.as_str()) || text.starts_with(known.as_str()))
    };
    // A snapshot repeats or extends the text at this position, or the latest one.
    let last = (*at).max(texts.len().saturating_sub(RECENT_CALLS));
    let next = (*at..texts.len().min(*at + RECENT_CALLS)).chain(last..texts.len());
    match next.into_iter().find(|index| same(&texts[*index])) {
        Some(index) => {
            let known = &mut texts[index];
            if text.len() > known.len() {
                *known = text;
            }
            *at = index + 1;
        }
        None => {
            texts.push(text);
            *at = texts.len();
        }
    }
}
