//! What is known of a turn or session beyond its spans, as values with a name that servers filter by: facts, never a grade.
//!
//! A value that says that nothing happened (no, zero) is not worth a score of its own: it is sent only to correct an earlier one
//! of the same id.

use serde::{Deserialize, Serialize};

use crate::{
    ids::{self, Role, SpanId, TraceId, span_id, trace_id},
    observation::{Observation, TraceFacts, as_hex},
    pipeline::Emitted,
    transcript::record::Nanos,
    turn::{Assembler, Happening, Turn},
};

/// Says what the value is of: the same id is the same score, and a later value replaces the earlier one.
pub type ScoreId = [u8; 16];

/// `toolDenialKind` of a call that the user stopped while it ran.
const INTERRUPTED: &str = "interrupted";

/// The name of the score that says how a session ended.
const OUTCOME: &str = "outcome";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    #[serde(with = "as_hex")]
    pub id: ScoreId,
    /// Of a session: its last turn that was answered.
    #[serde(with = "as_hex")]
    pub trace_id: TraceId,
    /// The root of that trace.
    #[serde(with = "as_hex")]
    pub root: SpanId,
    pub session_id: String,
    pub of: Of,
    pub name: String,
    pub value: Value,
    /// What the value means, or what a person says of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// When what it says was so.
    pub at: Nanos,
    /// A person gave it.
    #[serde(default)]
    pub by_person: bool,
}

/// What a score is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Of {
    /// A turn.
    Trace,
    /// A subagent.
    Span(#[serde(with = "as_hex")] SpanId),
    Session,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    Boolean(bool),
    Number(f64),
    Category(String),
}

impl Value {
    /// True if it says that nothing happened.
    pub fn is_nothing(&self) -> bool {
        match self {
            Self::Boolean(yes) => !yes,
            Self::Number(number) => *number == 0.0,
            Self::Category(word) => word.is_empty(),
        }
    }
}

impl Score {
    /// The fingerprint of what it says, without its time: a turn that continues does not make it another one.
    pub fn says(&self) -> [u8; 16] {
        let Self { value, comment, environment, .. } = self;
        ids::fingerprint(serde_json::to_string(&(value, comment, environment)).unwrap_or_default().as_bytes())
    }

    /// The stored form.
    pub fn body(&self) -> String {
        serde_json::to_string(&Stored { score: self }).unwrap_or_default()
    }

    /// What [`body`](Self::body) stored; `None` if it is something else.
    pub fn parse(body: &[u8]) -> Option<Self> {
        serde_json::from_slice::<Stored<Self>>(body).ok().map(|stored| stored.score)
    }
}

/// Tells a score from what else is a dead letter.
#[derive(Serialize, Deserialize)]
struct Stored<S> {
    score: S,
}

/// When a score is queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// With something new of its trace.
    WithNews,
    /// Where its trace is known.
    WhereKnown,
}

/// A score to be queued.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    pub due: Due,
    pub score: Score,
}

/// A score of what `of` names, whose `id` follows from that and from the name alone.
fn score(
    of: Of,
    (trace_id, root): (TraceId, SpanId),
    facts: &TraceFacts,
    name: &str,
    value: Value,
    at: Nanos,
) -> Score {
    let id = match of {
        Of::Trace => ids::truncated(&[b"score\0", &trace_id, b"\0", name.as_bytes()]),
        Of::Span(span) => ids::truncated(&[b"score\0", &trace_id, &span, b"\0", name.as_bytes()]),
        Of::Session => of_session_id(&facts.session_id, name),
    };
    Score {
        id,
        trace_id,
        root,
        session_id: facts.session_id.clone(),
        of,
        name: name.to_owned(),
        value,
        comment: None,
        environment: facts.environment.clone(),
        at,
        by_person: false,
    }
}

fn of_session_id(session_id: &str, name: &str) -> ScoreId {
    ids::truncated(&[b"session score\0", session_id.as_bytes(), b"\0", name.as_bytes()])
}

/// The id of the score that says how a session ended.
pub fn outcome_id(session_id: &str) -> ScoreId {
    of_session_id(session_id, OUTCOME)
}

/// The trace and the root of the turn with this key.
fn root(key: &str) -> (TraceId, SpanId) {
    let trace = trace_id(key);
    (trace, span_id(trace, Role::Turn, key))
}

/// The scores of `turn`, which can be a subagent's run, with what was `emitted` of it: nothing if that is nothing.
pub fn of_turn(turn: &Turn, emitted: &Emitted) -> Vec<Scored> {
    let left = emitted.abandoned.iter().map(|mark| {
        let Observation { trace_id, start, parent, .. } = mark.observation;
        let score = score(
            Of::Trace,
            (trace_id, parent.unwrap_or_default()),
            &mark.facts,
            "rewound",
            Value::Boolean(true),
            start,
        );
        Score { comment: Some("the user went back to before this turn".to_owned()), ..score }
    });
    let mut found: Vec<Score> = left.collect();
    if let Some(first) = emitted.observations.first() {
        let turn_of = root(turn.trace_key());
        let (trace, _) = turn_of;
        let of = turn.place.as_ref().map_or(Of::Trace, |place| Of::Span(span_id(trace, Role::Agent, &place.source())));
        let at = turn.end.or(turn.prompt.at).unwrap_or(first.observation.end);
        let values = facts(turn).into_iter();
        found.extend(values.map(|(name, value)| score(of, turn_of, &first.facts, name, value, at)));
    }
    found.into_iter().map(|score| Scored { due: Due::WithNews, score }).collect()
}

/// Names and values, as the lines say them.
fn facts(turn: &Turn) -> [(&'static str, Value); 5] {
    let calls = turn.generations.iter().filter(|call| !call.is_copy);
    let results = || calls.clone().flat_map(|call| &call.tools).filter_map(|tool| Some(&tool.result.as_ref()?.0));
    let denied = results().filter(|result| result.denied.as_deref().is_some_and(|kind| kind != INTERRUPTED));
    let failed = results().filter(|result| result.is_error && result.denied.is_none());
    let retries = turn.notes.iter().filter(|note| matches!(note.what, Happening::Retry { .. }));
    let number = |count: usize| Value::Number(count as f64);
    [
        ("interrupted", Value::Boolean(turn.is_interrupted)),
        ("api_error", Value::Boolean(turn.error.is_some())),
        ("permission_denied", number(denied.count())),
        ("tool_failures", number(failed.count())),
        ("retries", number(retries.count())),
    ]
}

/// The maximum length of a person's name for a score, and of a word as its value, in bytes.
pub const MAX_NAME: usize = 200;

/// The maximum length of a comment in bytes.
pub const MAX_COMMENT: usize = 2000;

/// True for the names of what is sent without a person.
pub fn is_fact(name: &str) -> bool {
    ["interrupted", "api_error", "rewound", "permission_denied", "tool_failures", "retries", OUTCOME].contains(&name)
}

/// A person's score: `word` is of the turn of `trace_id`, or of the whole session.
pub fn given(word: Word<'_>, trace_id: TraceId, facts: &TraceFacts) -> Score {
    let of = if word.is_turn { Of::Trace } else { Of::Session };
    let at = u64::try_from(word.at_ms).unwrap_or(0).saturating_mul(1_000_000);
    let score = score(of, (trace_id, SpanId::default()), facts, word.name, word.value.clone(), at);
    Score { comment: word.comment.map(str::to_owned), by_person: true, ..score }
}

/// What a person says.
#[derive(Clone, Copy, Debug)]
pub struct Word<'a> {
    /// It is of a turn, not of the session.
    pub is_turn: bool,
    pub name: &'a str,
    pub value: &'a Value,
    pub comment: Option<&'a str>,
    /// Unix milliseconds.
    pub at_ms: i64,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// The model said that it was done, or there was nothing to do.
    Completed,
    /// The user interrupted the last turn.
    Interrupted,
    /// An API error took the place of the last answer.
    Errored,
    /// The last prompt has no answer, or the model was still at work on it.
    Abandoned,
}

impl Outcome {
    fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Interrupted => "interrupted",
            Self::Errored => "errored",
            Self::Abandoned => "abandoned",
        }
    }

    /// The rule that gave it, for people.
    fn rule(self) -> &'static str {
        match self {
            Self::Completed => "the last turn ended with an answer",
            Self::Interrupted => "the user interrupted the last turn",
            Self::Errored => "an API error ended the last turn",
            Self::Abandoned => "the session ended before the last prompt was answered",
        }
    }

    fn of(last: &Turn) -> Self {
        if last.error.is_some() {
            Self::Errored
        } else if last.is_interrupted {
            Self::Interrupted
        } else if last.is_over() {
            Self::Completed
        } else {
            Self::Abandoned
        }
    }
}

/// How a session ended whose transcript was read to its end, with `facts` of its traces. `None` without an answered turn.
pub fn of_session(assembler: &Assembler, facts: &TraceFacts) -> Option<Scored> {
    let newest = assembler.newest()?;
    let answered = assembler.at_work().next_back().map(Turn::trace_key);
    let key = answered.or_else(|| assembler.closed_last().map(|past| &*past.key))?;
    let (outcome, at) = (Outcome::of(newest), newest.end.or(newest.prompt.at)?);
    let value = Value::Category(outcome.name().to_owned());
    let score = score(Of::Session, root(key), facts, OUTCOME, value, at);
    Some(Scored { due: Due::WhereKnown, score: Score { comment: Some(outcome.rule().to_owned()), ..score } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(session: &str) -> TraceFacts {
        TraceFacts { session_id: session.to_owned(), environment: Some("e".to_owned()), ..TraceFacts::default() }
    }

    fn made(of: Of, key: &str, session: &str, name: &str, value: Value, at: Nanos) -> Score {
        score(of, root(key), &facts(session), name, value, at)
    }

    #[test]
    fn the_id_follows_from_what_it_is_of_and_the_name() {
        let yes = || Value::Boolean(true);
        let ids = [
            made(Of::Trace, "a", "s", "x", yes(), 1).id,
            made(Of::Trace, "b", "s", "x", yes(), 1).id,
            made(Of::Trace, "a", "s", "y", yes(), 1).id,
            made(Of::Span([1; 8]), "a", "s", "x", yes(), 1).id,
            made(Of::Span([2; 8]), "a", "s", "x", yes(), 1).id,
            made(Of::Session, "a", "s", "x", yes(), 1).id,
            made(Of::Session, "a", "t", "x", yes(), 1).id,
        ];
        assert_eq!(ids.iter().collect::<std::collections::HashSet<_>>().len(), ids.len());
        assert_eq!(made(Of::Trace, "a", "t", "x", Value::Number(2.0), 9).id, ids[0], "neither value nor session");
        assert_eq!(made(Of::Session, "b", "s", "x", yes(), 9).id, ids[5], "whichever turn was the last");
    }

    #[test]
    fn a_later_time_says_nothing_new_and_another_value_does() {
        let of = |value, at| made(Of::Trace, "a", "s", "x", value, at).says();
        assert_eq!(of(Value::Number(2.0), 1), of(Value::Number(2.0), 9));
        assert_ne!(of(Value::Number(2.0), 1), of(Value::Number(3.0), 1));
        assert_ne!(of(Value::Boolean(true), 1), of(Value::Boolean(false), 1));
    }

    #[test]
    fn the_stored_form_is_read_as_it_was_and_nothing_else_is() {
        for value in
            [Value::Boolean(true), Value::Number(2.0), Value::Number(0.5), Value::Category("a \" b".to_owned())]
        {
            for of in [Of::Trace, Of::Span([7; 8]), Of::Session] {
                let score = Score { comment: Some("c".to_owned()), ..made(of, "a", "s", "x", value.clone(), u64::MAX) };
                assert_eq!(Score::parse(score.body().as_bytes()), Some(score));
            }
        }
        for body in ["", "{}", "{\"facts\":{},\"observation\":{}}", "{\"score\":{}}", "\"score\""] {
            assert_eq!(Score::parse(body.as_bytes()), None, "{body}");
        }
    }
}
