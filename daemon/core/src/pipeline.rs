//! line → record → turn → masked observations: one way for live sessions, their subagents and whole transcripts.

use std::{path::Path, sync::Arc, time::Duration};

use crate::{
    ids::{TraceId, sampled, trace_id},
    observation::{Observation, TraceFacts},
    observe,
    project::{Capture, Options},
    redact::{Counts, Redactor},
    telemetry,
    trace::Span,
    transcript::{
        lines::Line,
        record::{self, Nanos, Record, SessionFacts, Skip, Spilled},
    },
    turn::{Past, Scope, Turn},
};

/// If a Stop came later than this after its turn's last line, it did not wait for that line: the session is being caught up
/// with.
const LIVE: Duration = Duration::from_secs(60);

/// The records of a line at `offset`, each with its own offset, and the reasons why others are missing or incomplete.
pub fn records(offset: u64, line: Line<'_>, mut each: impl FnMut(u64, Result<Record, Skip>)) {
    match line {
        Line::Whole(bytes) => record::read(bytes, |within, record| each(offset + within as u64, record)),
        Line::TooLong(_) => each(offset, Err(Skip::TooLong)),
    }
}

/// How the turns of a session become observations.
#[derive(Clone, Copy, Debug)]
pub struct Pipeline<'a> {
    pub session_id: &'a str,
    pub options: &'a Options,
    /// Ignored if the project wants no masking.
    pub rules: &'a Redactor,
}

/// An observation to be queued, with the facts of its trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Outgoing {
    pub facts: Arc<TraceFacts>,
    pub observation: Observation,
    /// Approximate memory of both, including images and documents, in bytes.
    pub bytes: usize,
}

#[derive(Debug, Default)]
pub struct Emitted {
    /// Root first.
    pub observations: Vec<Outgoing>,
    /// Events for the traces of turns that it abandoned; useful only where the roots of those are known.
    pub abandoned: Vec<Outgoing>,
}

impl Pipeline<'_> {
    /// False if sampling drops the turns of `trace`.
    pub fn keeps(&self, trace: TraceId) -> bool {
        self.options.sample_rate.is_none_or(|rate| sampled(trace, rate))
    }

    /// Emits what is due of `turn` in `scope`. `fired` is when the Stop hook ran that completed it, if one did. `spilled` reads
    /// the file of an output that was too long for the transcript. `counts` counts masked secrets.
    pub fn emit(
        &self,
        turn: &mut Turn,
        scope: Scope,
        fired: Option<Nanos>,
        spilled: impl Fn(&Path) -> Option<Spilled>,
        counts: &mut Counts,
    ) -> Emitted {
        if !turn.is_due(scope) || !self.keeps(trace_id(turn.trace_key())) {
            return Emitted::default();
        }
        if self.options.capture == Capture::Full {
            turn.complete(scope, &spilled);
        }
        let turn = &*turn;
        let live = |fired: &Nanos| turn.end.is_some_and(|end| (end..=end + LIVE.as_nanos() as u64).contains(fired));
        let facts = Facts::of(self, turn.number, &turn.session, counts);
        let redactor = self.redactor();
        let found = observe::observations(turn, scope, fired.filter(live), self.options, redactor, counts);
        let mut emitted = Emitted { observations: facts.join(found), abandoned: Vec::new() };
        if scope != Scope::Part {
            for left in turn.left.iter().filter(|left| self.keeps(trace_id(&left.key))) {
                emitted.abandoned.extend(self.abandoned(turn, left, counts));
            }
        }
        emitted
    }

    /// The observation of a call of `turn` that has no line.
    pub fn hidden(&self, turn: &Turn, call: &telemetry::Call, counts: &mut Counts) -> Option<Outgoing> {
        let trace = trace_id(turn.trace_key());
        if !self.keeps(trace) {
            return None;
        }
        let mut observation = call.observation(trace, turn.trace_key());
        if let Some(redactor) = self.redactor() {
            observation.redact(redactor, counts);
        }
        Facts::of(self, turn.number, &turn.session, counts).join(vec![observation]).pop()
    }

    /// The facts of a trace of which nothing but the session is known.
    pub fn facts(&self, counts: &mut Counts) -> Arc<TraceFacts> {
        Facts::of(self, 0, &SessionFacts::default(), counts).facts
    }

    fn abandoned(&self, turn: &Turn, left: &Past, counts: &mut Counts) -> Vec<Outgoing> {
        let session = SessionFacts { title: turn.session.title.clone(), ..left.session.clone() };
        let facts = Facts::of(self, left.number, &session, counts);
        facts.join(vec![observe::abandoned(turn, left, self.options, self.redactor(), counts)])
    }

    /// The event `span` for the trace of a turn that was closed before.
    pub fn event(&self, turn: &Past, span: Span<'static>, counts: &mut Counts) -> Vec<Outgoing> {
        let facts = Facts::of(self, turn.number, &turn.session, counts);
        facts.join(vec![observe::event(span, self.options, self.redactor(), counts)])
    }

    fn redactor(&self) -> Option<&Redactor> {
        (!self.options.unredacted).then_some(self.rules)
    }
}

/// The facts of a trace, masked.
struct Facts {
    facts: Arc<TraceFacts>,
    bytes: usize,
}

impl Facts {
    fn of(pipeline: &Pipeline<'_>, number: u32, session: &SessionFacts, counts: &mut Counts) -> Self {
        let mut facts = observe::facts(number, session, pipeline.session_id, pipeline.options);
        if let Some(redactor) = pipeline.redactor() {
            facts.redact(redactor, counts);
        }
        let mut bytes = 0;
        facts.each_text(&mut |text| bytes += text.len());
        Self { facts: Arc::new(facts), bytes }
    }

    fn join(&self, observations: Vec<Observation>) -> Vec<Outgoing> {
        let outgoing = |mut observation: Observation| {
            let mut bytes = self.bytes + observation.media.iter().map(|(_, media)| media.bytes.len()).sum::<usize>();
            observation.each_text(&mut |text| bytes += text.len());
            Outgoing { facts: self.facts.clone(), observation, bytes }
        };
        observations.into_iter().map(outgoing).collect()
    }
}
