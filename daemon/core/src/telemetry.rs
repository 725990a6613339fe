//! What Claude Code's own telemetry says of calls and tools, which no transcript has: the time to the first token, attempts, exact
//! run times, permission waits, and calls without a line (compaction, titles, the inner call of a web search).
//!
//! Comes in: [`Record`]s, read from OTLP by `otlp`. Goes out: facts, held by session and request or tool id until the observation
//! they belong to is emitted. They are added to observations; they never make a tree of their own. Knows neither clock nor network.

use std::collections::{HashMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::{
    observation::{Body, Measured, Observation, Usage, Waited},
    transcript::record::Nanos,
};

mod calls;
pub mod otlp;

pub use otlp::Record;

/// How many calls, and how many tools, are held. The oldest make room.
const MAX_HELD: usize = 1024;

/// The longest id or name that is taken, in bytes. Claude Code's have at most 64.
const MAX_TEXT: usize = 200;

/// How long a fact is held. A turn of many hours is emitted in parts before.
const MAX_AGE: Nanos = 6 * 3600 * 1_000_000_000;

/// A call of the API, as its event `api_request` and its span `llm_request` have it (Claude Code 2.1.332).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Call {
    pub request_id: String,
    pub session_id: String,
    /// `promptId` of the turn's lines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_id: Option<String>,
    /// What it was for: `sdk`, `repl_main_thread`, `agent:…`, `compact`, `web_search_tool`, …; `None` until the event is here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Of the subagent whose call it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
    pub model: String,
    pub usage: Usage,
    /// In dollars, with fees such as those of web searches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_token_ms: Option<u64>,
    /// How often it was tried, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u64>,
    /// If it is not the usual one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed: Option<String>,
    /// When its answer was complete.
    pub end: Nanos,
    /// It has no line, and is traced.
    #[serde(skip)]
    pub is_taken: bool,
}

/// Facts of all sessions, bounded in number and age.
#[derive(Debug, Default)]
pub struct Facts {
    calls: Held<Call>,
    tools: Held<Waited>,
    /// Permission waits by the id of the tool's span, until that span comes.
    waits: Held<u64>,
    /// Sessions of which anything came.
    sessions: Held<()>,
    /// Calls whose event has come and that were not taken by [`Facts::hidden`], as session and request.
    fresh: VecDeque<Key>,
    /// Records that name no session.
    pub nameless: u64,
}

type Key = (String, String);

/// What is known of a call's line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It has none, and its turn was emitted.
    Hidden,
    HasLine,
    /// Its turn is in progress.
    Open,
}

#[derive(Debug)]
struct Held<T> {
    by_key: HashMap<Key, T>,
    /// With the time each came.
    order: VecDeque<(Nanos, Key)>,
}

impl<T> Default for Held<T> {
    fn default() -> Self {
        Self { by_key: HashMap::new(), order: VecDeque::new() }
    }
}

impl<T: Default> Held<T> {
    fn at(&mut self, key: Key, now: Nanos) -> &mut T {
        if !self.by_key.contains_key(&key) {
            let is_old = |(came, _): &(Nanos, Key)| *came + MAX_AGE < now;
            while self.order.len() >= MAX_HELD || self.order.front().is_some_and(is_old) {
                if let Some((_, old)) = self.order.pop_front() {
                    self.by_key.remove(&old);
                }
            }
            self.order.push_back((now, key.clone()));
        }
        self.by_key.entry(key).or_default()
    }

    fn get(&self, session: &str, id: &str) -> Option<&T> {
        // A borrowed pair cannot look up an owned one; ids are short.
        self.by_key.get(&(session.to_owned(), id.to_owned()))
    }
}

impl Facts {
    /// Takes what a record says. `now` is when it came, Unix nanoseconds. Returns the session it is of.
    pub fn add(&mut self, record: &Record, now: Nanos) -> Option<String> {
        let short = |name: &str| record.text(name).filter(|text| !text.is_empty() && text.len() <= MAX_TEXT);
        let Some(session) = short("session.id").map(str::to_owned) else {
            self.nameless += 1;
            return None;
        };
        self.sessions.at((session.clone(), String::new()), now);
        let key = |id: &str| (session.clone(), id.to_owned());
        match record.name.as_str() {
            "claude_code.api_request" => {
                let id = short("request_id")?;
                let call = self.calls.at(key(id), now);
                if call.source.is_none() {
                    self.fresh.push_back(key(id));
                    while self.fresh.len() > MAX_HELD {
                        self.fresh.pop_front();
                    }
                }
                calls::requested(call, record, &session);
            }
            "claude_code.llm_request" => {
                let call = self.calls.at(key(short("request_id")?), now);
                call.attempts = record.number("attempt").or(call.attempts);
                call.first_token_ms = call.first_token_ms.or(record.number("ttft_ms"));
            }
            "claude_code.tool_decision" => {
                let tool = self.tools.at(key(short("tool_use_id")?), now);
                tool.decision = short("decision").map(str::to_owned);
                tool.decided_by = short("source").map(str::to_owned);
            }
            "claude_code.tool.execution" => {
                self.tools.at(key(short("tool_use_id")?), now).ran_ms = record.number("duration_ms");
            }
            // It does not say of which tool it is, but its parent does.
            "claude_code.tool.blocked_on_user" => {
                let waited = record.number("duration_ms")?;
                *self.waits.at(key(&record.parent), now) = waited;
            }
            "claude_code.tool" => {
                let waited = self.waits.get(&session, &record.id).copied();
                let tool = self.tools.at(key(short("tool_use_id")?), now);
                tool.permission_ms = waited.or(tool.permission_ms);
            }
            _ => {}
        }
        Some(session)
    }

    /// Anything came of this session.
    pub fn knows(&self, session: &str) -> bool {
        self.sessions.get(session, "").is_some()
    }

    /// The event of this call has come.
    pub fn has_call(&self, session: &str, request_id: &str) -> bool {
        self.calls.get(session, request_id).is_some_and(|call| call.source.is_some())
    }

    /// Adds to an observation of `session` what is known of its call or tool. Id, start and end stay as they are.
    pub fn measure(&self, session: &str, observation: &mut Observation) {
        match &mut observation.body {
            // An advisor's call has the request id of the one that asked it.
            Body::Generation(generation) if generation.role.is_none() => {
                let call = generation.request_id.as_deref().and_then(|id| self.calls.get(session, id));
                generation.measured = call.map(calls::measured).filter(|measured| *measured != Measured::default());
                let first = generation.measured.as_ref().and_then(|measured| measured.first_token_ms);
                // The start of a call is that of its lines, which can be later than its request.
                let at = first.map(|ms| observation.start.saturating_add(ms.saturating_mul(1_000_000)));
                generation.first_block = at.filter(|at| *at <= observation.end).or(generation.first_block);
            }
            Body::Tool(tool) if !tool.on_server => tool.waited = self.tools.get(session, &tool.id).cloned(),
            _ => {}
        }
    }

    /// Offers again what was taken of `session`, because it was not stored, or not for every destination. `stored` was taken before a
    /// restart, or is not held any more.
    pub fn offer_again(&mut self, session: &str, stored: Vec<Call>, now: Nanos) {
        for call in stored {
            let key = (session.to_owned(), call.request_id.clone());
            *self.calls.at(key, now) = Call { is_taken: true, ..call };
        }
        let taken = self.calls.by_key.iter().filter(|(key, call)| key.0 == session && call.is_taken);
        let taken: Vec<Key> = taken.map(|(key, _)| key.clone()).collect();
        self.fresh.extend(taken);
    }

    /// Some call of `session` has come that may have no line.
    pub fn has_hidden(&self, session: &str) -> bool {
        self.fresh.iter().any(|key| key.0 == session)
    }

    /// Takes the calls of `session` that have no line, as `decide` says for each that is not plainly one of the conversation.
    pub fn hidden(&mut self, session: &str, mut decide: impl FnMut(&Call) -> Fate) -> Vec<Call> {
        let mut hidden = Vec::new();
        self.fresh.retain(|key| {
            let Some(call) = self.calls.by_key.get_mut(key) else { return false };
            if key.0 != session {
                return true;
            }
            match if calls::is_conversation(call) { Fate::HasLine } else { decide(call) } {
                Fate::Hidden => {
                    call.is_taken = true;
                    hidden.push(call.clone());
                }
                Fate::HasLine => {}
                Fate::Open => return true,
            }
            false
        });
        hidden
    }
}

#[cfg(test)]
mod tests;
