//! line → record → turn → masked observations: one way for live sessions, their subagents and whole transcripts.

use std::{path::Path, sync::Arc, time::Duration};

use crate::{
    ids::{TraceId, sampled, trace_id},
    observation::{Observation, TraceFacts},
    observe,
    project::{Capture, Options},
    redact::{Counts, Redactor},
    transcript::{
        lines::Line,
        record::{self, Nanos, Record, SessionFacts, Skip, Spilled},
    },
    turn::{Past, Scope, Turn},
};

/// A Stop later than this after its turn's last line was not waiting for that line: the turn is being caught up with.
const LIVE: Duration = Duration::from_secs(60);

/// What a line at `offset` says: each record with its own offset, and why there is none or one lacks a field.
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
    /// What its project wants.
    pub options: &'a Options,
    /// The rules by which secrets are masked, unless the project wants none masked.
    pub rules: &'a Redactor,
}

/// An observation on its way out, with what describes its trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Outgoing {
    /// What describes its trace.
    pub facts: Arc<TraceFacts>,
    pub observation: Observation,
    /// About how much room both take, images and documents included, in bytes.
    pub bytes: usize,
}

/// What is emitted of a turn.
#[derive(Debug, Default)]
pub struct Emitted {
    /// Its observations, the root first.
    pub observations: Vec<Outgoing>,
    /// Events in the traces of turns that it abandoned: of no use where their roots are not known.
    pub abandoned: Vec<Outgoing>,
}

impl Pipeline<'_> {
    /// True if the turns of `trace` are kept, or sampled out.
    pub fn keeps(&self, trace: TraceId) -> bool {
        self.options.sample_rate.is_none_or(|rate| sampled(trace, rate))
    }

    /// What is due of `turn` in `scope`. `fired` is when the Stop hook ran that completed it, if one did. `spilled` reads the file of an
    /// output that is too long for the transcript. `counts` counts what is masked.
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

    fn abandoned(&self, turn: &Turn, left: &Past, counts: &mut Counts) -> Vec<Outgoing> {
        let session = SessionFacts { title: turn.session.title.clone(), ..left.session.clone() };
        let facts = Facts::of(self, left.number, &session, counts);
        facts.join(vec![observe::abandoned(turn, left, self.options, self.redactor(), counts)])
    }

    fn redactor(&self) -> Option<&Redactor> {
        (!self.options.unredacted).then_some(self.rules)
    }
}

/// What describes a trace, masked.
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
