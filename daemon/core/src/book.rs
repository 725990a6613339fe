//! Every call of a session and each of Claude Code's totals: which calls those totals include.
//!
//! Comes in: lines of the transcript, then turns. Goes out: [`Traced`] for each of the totals. A call counts once.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    reconcile::{Stated, Tokens, model, rows},
    telemetry, trace,
    transcript::record::{Nanos, Record},
    turn::{Happening, Past, Turn, hash::Hashes},
    usage,
};

mod remainder;

pub use remainder::{Remainder, Untraced, UntracedModel, events, untraced};

/// What is traced of a session, and what can make Claude Code's totals differ.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Traced {
    /// Of calls with a line, by model.
    pub models: BTreeMap<String, Tokens>,
    pub calls: u64,
    /// Of calls without a line that Claude Code's telemetry names, by model.
    pub telemetry: BTreeMap<String, Tokens>,
    pub telemetry_calls: u64,
    /// US dollars of those, as the telemetry says.
    pub telemetry_cost_usd: Option<f64>,
    /// Calls since Claude Code last wrote totals; not in `models`.
    pub later: u64,
    /// Calls that its totals do not include, because they were counted before these began: those of the session it was copied
    /// from, or of a run that ended without writing totals. Not in `models`.
    pub elsewhere: u64,
    /// Compactions, whose summaries leave no line.
    pub compactions: u64,
    /// Answers that were cut short; their lines lack the final count.
    pub cut: u64,
    /// Web searches and fetches, which are calls of their own.
    pub web: u64,
    /// It was forked from another session, whose subagents are not in its directory.
    pub is_fork: bool,
}

impl Traced {
    fn count(&mut self, call: &Call) {
        if call.is_hidden {
            self.telemetry_calls += 1;
            *self.telemetry.entry(call.model.clone()).or_default() += call.tokens;
            self.telemetry_cost_usd =
                call.cost.map(|cost| cost + self.telemetry_cost_usd.unwrap_or_default()).or(self.telemetry_cost_usd);
            return;
        }
        self.calls += u64::from(call.is_call);
        self.cut += u64::from(call.is_cut);
        self.web += call.web;
        *self.models.entry(call.model.clone()).or_default() += call.tokens;
    }

    /// What calls without a line used that Claude Code's telemetry names, as a row of a report.
    pub fn telemetry_row(&self) -> usage::Row {
        let mut row = usage::Row { key: "telemetry".to_owned(), calls: self.telemetry_calls, ..usage::Row::default() };
        self.telemetry.values().for_each(|tokens| row.tokens += *tokens);
        row.cost_usd = self.telemetry_cost_usd;
        row
    }

    /// Reasons, in words, why tokens may be missing in the transcript.
    pub fn causes(&self) -> Vec<String> {
        let some = |count: u64, one: &str, more: &str| match count {
            0 => None,
            1 => Some(format!("1 {one}")),
            _ => Some(format!("{count} {more}")),
        };
        let counted = [
            some(self.compactions, "compaction", "compactions"),
            some(self.cut, "answer cut short", "answers cut short"),
            some(self.web, "web search or fetch", "web searches and fetches"),
        ];
        let fork = self.is_fork.then(|| "subagents of the session it was forked from".to_owned());
        counted.into_iter().flatten().chain(fork).collect()
    }
}

/// A model call, or the advice of another model within it.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// When its first line was written.
    pub at: Option<Nanos>,
    pub model: String,
    pub tokens: Tokens,
    /// US dollars by list price; `None` if the model has none.
    pub cost: Option<f64>,
    /// False for advice.
    pub is_call: bool,
    /// It was cut short: its line lacks the final count.
    pub is_cut: bool,
    /// Web searches and fetches of the API.
    pub web: u64,
    /// It was copied from another session.
    pub is_copy: bool,
    /// It has no line: Claude Code's telemetry names it.
    pub is_hidden: bool,
}

impl From<&telemetry::Call> for Call {
    fn from(call: &telemetry::Call) -> Self {
        let usage = call.usage;
        Self {
            at: Some(call.end),
            model: model(&call.model).to_owned(),
            tokens: Tokens {
                input: usage.input,
                output: usage.output,
                cache_read: usage.cache_read,
                cache_write_5m: usage.cache_write_5m.saturating_add(usage.cache_write),
                cache_write_1h: usage.cache_write_1h,
            },
            cost: call.cost,
            is_call: true,
            is_cut: false,
            web: 0,
            is_copy: false,
            is_hidden: true,
        }
    }
}

/// A turn that an event can be added to.
#[derive(Clone, Debug, PartialEq)]
pub struct LastTurn {
    pub turn: Past,
    pub start: Option<Nanos>,
    pub end: Option<Nanos>,
}

/// What Claude Code counted until it ended, or until the session left its hands.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    pub stated: Stated,
    /// The time of the first line of the conversation before it.
    from: Option<Nanos>,
    /// The time of the first prompt or answer after it: calls from then on are not in it.
    until: Option<Nanos>,
}

impl Run {
    /// Calls from then on are not in it; `None` if there is no later line of the conversation.
    pub fn until(&self) -> Option<Nanos> {
        self.until
    }
}

/// Calls, turns and totals of one session.
#[derive(Debug, Default)]
pub struct Book {
    pub session_id: String,
    pub calls: Vec<Call>,
    /// Its own turns, in file order.
    pub turns: Vec<LastTurn>,
    /// Oldest first; several totals without a call in between are one.
    pub runs: Vec<Run>,
    /// The session it was forked from.
    pub forked_from: Option<String>,
    compactions: u64,
    /// The time of the latest prompt or answer so far.
    last: Option<Nanos>,
    known: Hashes,
}

impl Book {
    pub fn new(session_id: &str) -> Self {
        Self { session_id: session_id.to_owned(), ..Self::default() }
    }

    /// Takes a line of the transcript, with what it says of the conversation. All lines come before the first turn.
    pub fn line(&mut self, line: &[u8], record: Option<&Record>) {
        let at = match record {
            None => {
                if let Some(stated) = Stated::parse(line) {
                    if self.runs.last().is_some_and(|run| run.until.is_none()) {
                        self.runs.pop();
                    }
                    self.runs.push(Run { stated, from: self.last, until: None });
                }
                return;
            }
            Some(Record::Prompt(prompt)) if !prompt.stands_in() => prompt.at,
            Some(Record::Assistant(answer)) => answer.at,
            Some(_) => return,
        };
        self.last = at.or(self.last);
        if let Some(run) = self.runs.last_mut() {
            run.until = run.until.or(at);
        }
    }

    /// Takes a turn, or the work of a subagent.
    pub fn add(&mut self, turn: &Turn) {
        let from = turn.session.forked_from.as_ref().filter(|from| **from != self.session_id);
        self.forked_from = self.forked_from.take().or_else(|| from.cloned());
        self.take(turn);
        let is_own = !turn.generations.iter().all(|generation| generation.is_from_elsewhere)
            || turn.generations.is_empty() && from.is_none();
        if turn.place.is_none() && turn.is_answered() && is_own {
            let start = turn.prompt.at.or_else(|| turn.generations.iter().find_map(|call| call.first));
            self.turns.push(LastTurn { turn: Past::of(turn), start, end: turn.end.or(start) });
        }
    }

    fn take(&mut self, turn: &Turn) {
        let calls: Vec<_> = turn.generations.iter().map(trace::marks).collect();
        let known: Vec<bool> =
            calls.iter().map(|marks| marks.iter().flatten().any(|mark| self.known.contains(mark))).collect();
        // Within a turn, calls are different even if they look the same.
        self.known.extend(calls.iter().flatten().flatten());
        turn.agents.iter().for_each(|agent| self.take(agent));
        if !known.is_empty() && known.iter().all(|known| *known) {
            return;
        }
        self.compactions +=
            turn.notes.iter().filter(|note| matches!(note.what, Happening::Compacted { .. })).count() as u64;
        for (generation, _) in turn.generations.iter().zip(known).filter(|(_, known)| !known) {
            let service = &generation.service;
            let tokens = generation.usage.map(Into::into).unwrap_or_default();
            let call = Call {
                at: generation.first,
                model: model(&generation.model).to_owned(),
                tokens,
                cost: usage::cost(&generation.model, service.speed.as_deref(), tokens),
                is_call: true,
                is_cut: service.cut.is_some() || generation.stop_reason.is_none(),
                web: service.web.0 + service.web.1,
                is_copy: generation.is_from_elsewhere,
                is_hidden: false,
            };
            let advice = generation.advice.iter().map(|advice| {
                let tokens = advice.usage.into();
                let cost = usage::cost(&advice.model, None, tokens);
                let model = model(&advice.model).to_owned();
                Call { model, tokens, cost, is_call: false, is_cut: false, web: 0, ..call.clone() }
            });
            let advice: Vec<_> = advice.collect();
            self.calls.push(call);
            self.calls.extend(advice);
        }
    }

    /// The calls that the totals of `run` include.
    ///
    /// Those after it are not; nor those from before Claude Code began to count. A copy is not where the totals have no room for
    /// it, though the time does not show that.
    fn included<'b>(&'b self, run: &'b Run) -> Vec<&'b Call> {
        let is_in_time = |call: &&Call| {
            call.at.is_none_or(|at| {
                run.until.is_none_or(|until| at < until) && run.stated.since.is_none_or(|since| at >= since)
            })
        };
        let all: Vec<&Call> = self.calls.iter().filter(is_in_time).collect();
        let own = || all.iter().copied().filter(|call| !call.is_copy).collect::<Vec<_>>();
        if all.iter().all(|call| !call.is_copy) || fits(&all, &run.stated) { all } else { own() }
    }

    /// What is traced of the session until its last totals, or all of it if it has none.
    pub fn traced(&self) -> Traced {
        let mut traced =
            Traced { compactions: self.compactions, is_fork: self.forked_from.is_some(), ..Traced::default() };
        let Some(run) = self.runs.last() else {
            self.calls.iter().for_each(|call| traced.count(call));
            return traced;
        };
        let included = self.included(run);
        included.iter().for_each(|call| traced.count(call));
        let is_later = |call: &&Call| call.at.zip(run.until).is_some_and(|(at, until)| at >= until);
        let all = |calls: &mut dyn Iterator<Item = &Call>| {
            calls.filter(|call| call.is_call && !call.is_hidden).count() as u64
        };
        traced.later = all(&mut self.calls.iter().filter(is_later));
        traced.elsewhere = all(&mut self.calls.iter()) - traced.later - traced.calls;
        traced
    }
}

/// True if totals say at least what `calls` add up to, bucket by bucket.
fn fits(calls: &[&Call], stated: &Stated) -> bool {
    let mut traced = Traced::default();
    calls.iter().for_each(|call| traced.count(call));
    rows(&traced.models, &traced.telemetry, stated).iter().all(|row| row.excess.is_none())
}
