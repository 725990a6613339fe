//! Which spans of the open turn are due, by its lines, events and silence.

use std::{collections::BTreeMap, path::Path};

use super::{
    facts,
    read::STEP_BYTES,
    session::{Session, Tail, Totals},
};
use crate::{
    agents::Agents,
    clock,
    reader::{self, MAX_SPILLED_BYTES},
    rebuild,
    store::{self, hidden::Hidden},
    telemetry::Telemetry,
};
use cc_core::{
    book,
    claude::Version,
    complete::{self, Awaits, Decision, Emission, Situation, Waiting},
    hook::{Event, Hint},
    ids::{self, Fingerprint, TraceId},
    pipeline::{self, Outgoing, Pipeline},
    reconcile::Stated,
    redact::{Counts, Redactor},
    score::{self, Scored},
    telemetry,
    transcript::{
        lines::Line,
        record::{self, Nanos, Record, SessionFacts, Skip},
    },
    turn::{Launch, Past, Scope, Turn, placement},
};

/// A turn is emitted in parts once it takes more memory than this, in bytes.
pub(super) const MAX_HELD_BYTES: usize = 8 << 20;

/// The memory of a line besides its text, including the spans made of it until they are stored, in bytes.
pub(super) const BYTES_PER_LINE: usize = 8 << 10;

/// How many answers of closed turns are remembered for Stops that come late.
const MAX_ANSWERS: usize = 32;

/// The longest transcript that is read again at its end, to compare it with Claude Code's totals, in bytes. That takes half a
/// second, in which no other session is read.
pub(super) const MAX_COMPARED_BYTES: u64 = 64 << 20;

/// The name under which sessions are counted that are not compared with Claude Code's totals.
pub(super) const NOT_COMPARED: &str = "totals_not_compared";

/// How many spans one step stores, plus those of one more piece of a transcript.
const SPANS: usize = 512;

/// Spans and counts to be stored.
#[derive(Default)]
pub(super) struct Gathered {
    pub(super) spans: Vec<Outgoing>,
    /// Traces of turns that began while tracing was off.
    pub(super) off: Vec<TraceId>,
    /// Events for the traces of turns that the user abandoned.
    pub(super) marks: Vec<Outgoing>,
    /// Calls without a line, whose observations are among them.
    pub(super) hidden: Vec<Hidden>,
    /// Turns that have ended.
    pub(super) turns: Vec<Past>,
    /// What else is known of turns, and of the session.
    pub(super) scores: Vec<Scored>,
    pub(super) bytes: usize,
    pub(super) skipped: BTreeMap<&'static str, u64>,
    /// Lines of an unknown kind, by kind and version.
    pub(super) unknown: BTreeMap<(String, String), u64>,
    pub(super) redacted: Counts,
    pub(super) launches: Vec<Launch>,
    pub(super) agents: Vec<(String, u64)>,
    pub(super) ended: Vec<String>,
    /// What Claude Code's own telemetry says of calls and tools.
    pub(super) telemetry: Telemetry,
}

impl Gathered {
    /// True if it is time to store it.
    pub(super) fn is_much(&self) -> bool {
        self.bytes > STEP_BYTES || self.spans.len() + self.marks.len() > SPANS
    }

    pub(super) fn is_news(&self) -> bool {
        self.bytes > 0
            || !self.hidden.is_empty()
            || !self.off.is_empty()
            || !self.skipped.is_empty()
            || !self.launches.is_empty()
            || !self.agents.is_empty()
    }

    /// Records in `agents` which subagents were launched and have ended, before that is stored.
    pub(super) fn inform(&mut self, agents: &mut Agents) {
        agents.launched(self.launches.iter().cloned());
        self.ended.drain(..).for_each(|id| agents.has_ended(&id));
    }

    /// Masks secrets in the data stored beside the spans: facts of turns, ids from the transcript, and unknown names.
    /// If an id contains a secret, what it refers to is not found again after a restart.
    pub(super) fn mask(&mut self, redactor: &Redactor) {
        let mask = |text: &mut String| {
            // Counted where the spans are masked.
            if let Some(masked) = redactor.scrub(text, &mut Counts::new()) {
                *text = masked;
            }
        };
        for launch in &mut self.launches {
            let Launch { tool_id, id, message_id, agent_id, turn, .. } = launch;
            [tool_id, id, &mut turn.0].into_iter().for_each(mask);
            [message_id, agent_id].into_iter().flatten().for_each(mask);
        }
        self.agents.iter_mut().for_each(|(id, _)| mask(id));
        for turn in &mut self.turns {
            mask(&mut turn.key);
            turn.follows.iter_mut().for_each(mask);
        }
        for facts in self.turns.iter_mut().map(|turn| &mut turn.session) {
            let SessionFacts { version, cwd, git_branch, slug, forked_from, title, team, teammate, lead } = facts;
            [version, cwd, git_branch, slug, forked_from, title, team, teammate, lead]
                .into_iter()
                .flatten()
                .for_each(mask);
        }
        for ((mut kind, mut version), lines) in std::mem::take(&mut self.unknown) {
            mask(&mut kind);
            mask(&mut version);
            *self.unknown.entry((kind, version)).or_default() += lines;
        }
    }

    /// True if `turn` is left out because tracing was off when it began; records that. `next` is when the following turn began.
    fn leaves_out(&mut self, session: &Session, turn: &Turn, next: Option<Nanos>) -> bool {
        // A turn without any time may have been at any time.
        let start = began(turn).or(session.off.first().map(|off| *off.start()));
        let out = !turn.root_sent && start.is_some_and(|start| session.leaves_out(start, next));
        if out {
            self.off.push(ids::trace_id(turn.trace_key()));
        }
        out
    }

    pub(super) fn skip(&mut self, reason: &'static str) {
        *self.skipped.entry(reason).or_default() += 1;
    }
}

/// When a turn began, if its lines say so.
fn began(turn: &Turn) -> Option<Nanos> {
    turn.prompt.at.or(turn.end)
}

pub(super) fn push_line(session: &Session, tail: &mut Tail, found: &mut Gathered, offset: u64, line: Line<'_>) {
    let Tail { assembler, held, unclaimed, totals, .. } = tail;
    #[cfg(test)]
    if let Line::Whole(bytes) = line {
        assert!(memchr::memmem::find(bytes, FAULT.as_bytes()).is_none(), "as ordered");
    }
    let bytes = match line {
        Line::Whole(bytes) => bytes,
        Line::TooLong(_) => &[],
    };
    let mut length = bytes.len();
    let mut any = false;
    pipeline::records(offset, line, |at, record| match record {
        Err(skip) => {
            if skip == Skip::Bookkeeping && Stated::parse(bytes).is_some() {
                *totals = Totals::Latest;
            }
            if let Some(reason) = skip.reason() {
                found.skip(reason);
            }
            if skip == Skip::UnknownKind {
                let (kind, version) = record::kind(bytes);
                let version = version.or_else(|| assembler.version().map(str::to_owned)).unwrap_or_default();
                *found.unknown.entry((kind, version)).or_default() += 1;
            }
        }
        Ok(record) => {
            any |= !matches!(record, Record::Link { .. });
            if *totals == Totals::Latest && matches!(record, Record::Prompt(_) | Record::Assistant(_)) {
                *totals = Totals::Earlier;
            }
            if let Record::Prompt(prompt) = &record {
                found.ended.extend(prompt.ended_agent().map(str::to_owned));
            }
            length += record.spilled() * MAX_SPILLED_BYTES;
            if let Some(mut turn) = assembler.push(record, at) {
                found.launches.extend(placement::closed_launches(&turn));
                found.turns.push(Past::of(&turn));
                *held = 0;
                if !turn.root_sent {
                    if unclaimed.len() == MAX_ANSWERS {
                        unclaimed.pop_front();
                    }
                    unclaimed.push_back(Fingerprint::of(&turn.output()));
                }
                let next = assembler.newest().and_then(began);
                if !found.leaves_out(session, &turn, next) {
                    emit(session, &mut turn, Scope::Final, None, found);
                }
            }
        }
    });
    if !any {
        return;
    }
    if let Some(version) = assembler.version().filter(|v| Version::parse(v).is_some_and(Version::is_new)) {
        for field in record::unknown_fields(bytes) {
            *found.unknown.entry((field, version.to_owned())).or_default() += 1;
        }
    }
    *held += length + BYTES_PER_LINE;
    if *held > MAX_HELD_BYTES
        && let Some(turn) = assembler.open_mut()
    {
        if !found.leaves_out(session, turn, None) {
            emit(session, turn, Scope::Part, None, found);
        }
        turn.mark_sent(Scope::Part);
        *held = 0;
    }
}

/// Emits the turns that are complete. Returns the ids of the settled events, and what the session waits for. `stored` are its calls
/// without a line from before.
pub(super) fn emit_complete(
    session: &Session,
    tail: &mut Tail,
    stored: impl FnOnce() -> Result<Vec<telemetry::Call>, store::Error>,
    found: &mut Gathered,
) -> (Vec<String>, Awaits) {
    let events: Vec<_> = session.to_deal_with().collect();
    let waiting = events.iter();
    let waiting: Vec<_> = waiting
        .map(|(hint, came)| Waiting {
            event: &hint.event,
            fired_ns: fired(hint),
            came: *came,
            awaits_totals: hint.totals_follow && tail.totals != Totals::Latest,
        })
        .collect();
    let decision = complete::decide(
        clock::monotonic(),
        &Situation {
            waiting: &waiting,
            grown: session.grown,
            is_line_unfinished: tail.lines.unfinished().is_some(),
            is_superseded: session.superseded,
            turns: &tail.assembler.at_work().collect::<Vec<_>>(),
            open: tail.assembler.open().map(|_| tail.assembler.at_work().count() - 1),
            unclaimed: tail.unclaimed.make_contiguous(),
        },
    );
    if let Some(Emission { turns, .. }) = &decision.emission {
        // Calls that come with Claude Code's end are part of its totals.
        let is_end = |index: &usize| *waiting[*index].event == Event::Ended;
        let has_totals = tail.totals != Totals::None && decision.handled.iter().any(is_end);
        let mut due = tail.assembler.at_work().enumerate().filter(|(index, _)| turns.contains(index));
        let of = &session.row.session_id;
        let is_known = due.all(|(_, turn)| facts::are_known(&found.telemetry, of, turn))
            && !(has_totals && found.telemetry.facts().is_some_and(|facts| facts.knows(of)));
        if let Some(poll) = tail.facts.wait(clock::monotonic(), is_known, &found.telemetry, of) {
            return (Vec::new(), Awaits::Events { poll });
        }
    }
    let Decision { handled, claimed, emission, awaits } = decision;
    for index in &handled {
        if let Event::ToolEnded { tool, took_ms } = waiting[*index].event {
            let _ = tail.assembler.at_work_mut().any(|turn| turn.tool_took(tool, *took_ms));
        }
    }
    let mut position = 0..;
    tail.unclaimed.retain(|_| position.next().is_none_or(|position| !claimed.contains(&position)));
    if let Some(Emission { scope, fired_ns, turns }) = emission {
        for (_, turn) in tail.assembler.at_work_mut().enumerate().filter(|(index, _)| turns.contains(index)) {
            if !found.leaves_out(session, turn, None) {
                emit(session, turn, scope, fired_ns, found);
            }
            turn.mark_sent(scope);
        }
        tail.held = 0;
    }
    facts::add_hidden(session, tail, found);
    let is_over = handled.iter().any(|index| *waiting[*index].event == Event::Ended);
    if is_over && !session.row.hint.options.unscored {
        let row = &session.row;
        let pipeline = Pipeline { session_id: &row.session_id, options: &row.hint.options, rules: &session.rules };
        found.scores.extend(score::of_session(&tail.assembler, &pipeline.facts(&mut found.redacted)));
    }
    if tail.totals != Totals::None && is_over {
        match tail.read_to.offset {
            ..=MAX_COMPARED_BYTES => untraced(session, stored, found),
            _ => found.skip(NOT_COMPARED),
        }
    }
    (handled.into_iter().map(|index| events[index].0.id.clone()).collect(), awaits)
}

/// Adds events for what Claude Code's totals say beyond what is traced of a session that has ended. All of them are found each time:
/// an event that was queued before is not queued again.
fn untraced(
    session: &Session,
    stored: impl FnOnce() -> Result<Vec<telemetry::Call>, store::Error>,
    found: &mut Gathered,
) {
    let row = &session.row;
    let read = rebuild::book(&row.transcript, &row.session_id).map_err(|error| error.to_string());
    let (mut calls, stored) = match read.and_then(|book| Ok((book, stored().map_err(|error| error.to_string())?))) {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(session = row.session_id, error, "the totals of the session cannot be compared");
            return found.skip(NOT_COMPARED);
        }
    };
    calls.calls.extend(facts::hidden_calls(&stored, &found.hidden));
    let remainders = rebuild::untraced(&row.transcript, &calls);
    let pipeline = Pipeline { session_id: &row.session_id, options: &row.hint.options, rules: &session.rules };
    let events = book::events(&pipeline, &calls, &remainders, &mut found.redacted);
    found.bytes += events.iter().map(|out| out.bytes).sum::<usize>();
    found.marks.extend(events);
}

/// When an event was fired. An end that no hook reports is that of everything in the transcript.
fn fired(hint: &Hint) -> Nanos {
    if hint.event == Event::Ended && !hint.source.is_hook() { Nanos::MAX } else { hint.fired_ns }
}

/// Adds to `found` what is due of `turn`.
pub(super) fn emit(session: &Session, turn: &mut Turn, scope: Scope, fired: Option<u64>, found: &mut Gathered) {
    let row = &session.row;
    let pipeline = Pipeline { session_id: &row.session_id, options: &row.hint.options, rules: &session.rules };
    let spilled = |path: &Path| reader::spilled(&row.transcript, path);
    let mut emitted = pipeline.emit(turn, scope, fired, spilled, &mut found.redacted);
    facts::add(&found.telemetry, &row.session_id, &mut emitted.observations);
    if scope != Scope::Part && !row.hint.options.unscored {
        found.scores.extend(score::of_turn(turn, &emitted));
    }
    found.bytes += emitted.observations.iter().map(|out| out.bytes).sum::<usize>();
    found.spans.extend(emitted.observations);
    found.marks.extend(emitted.abandoned);
}

/// A line with this text makes the reader panic, for tests.
#[cfg(test)]
pub(super) const FAULT: &str = "a fault in the reader, please";
