//! `score`: a person's own word on a turn or a session.

use std::process::ExitCode;

use anyhow::{Context, bail, ensure};

use crate::{
    client::{self, Client},
    session::Naming,
    traced::TracedSession,
};
use cc_core::{
    ids::{TraceId, from_hex},
    redact::Counts,
    score::{MAX_COMMENT, MAX_NAME, Value, is_fact},
    status::{GiveScore, Status},
};
use cc_langfuse::clock::now_ms;

#[derive(clap::Args)]
#[command(
    override_usage = "cc-langfusectl score [SESSION|TURN] NAME VALUE [--turn N] [--comment TEXT]",
    after_help = "Examples:
  cc-langfusectl score useful true
  cc-langfusectl score 01628e54 quality 0.8 --comment 'two of three tests'
  cc-langfusectl score 01628e54 --turn 3 verdict wrong"
)]
pub(crate) struct Score {
    /// The session or turn to score: a session by its id or the beginning of it, a part of its title, or its transcript; a turn by its
    /// trace id of 32 digits. Default: the last turn of this directory's latest session
    #[arg(value_name = "SESSION|TURN")]
    of: String,
    /// The name of the score
    #[arg(allow_negative_numbers = true)]
    name: String,
    /// The value of the score: a number, `true`, `false` or a word
    #[arg(allow_negative_numbers = true)]
    value: Option<String>,
    /// The number of a turn of that session
    #[arg(long, value_name = "N")]
    turn: Option<usize>,
    /// What the value means
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
}

/// What is meant: a session, or one of its turns.
struct Meant {
    /// Empty if it is not known.
    session_id: String,
    /// Newest first; the turn itself if one is meant.
    traces: Vec<String>,
    is_turn: bool,
}

impl Score {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        // Without the first of them the others move up.
        let (of, name, value) = match &self.value {
            Some(value) => (Some(self.of.as_str()), &self.name, value),
            None => (None, &self.of, &self.name),
        };
        let name = name.trim();
        let is_plain = |text: &str| !text.chars().any(char::is_control);
        ensure!(
            !name.is_empty() && name.len() <= MAX_NAME && is_plain(name),
            "a name has 1 to {MAX_NAME} bytes in one line"
        );
        ensure!(!is_fact(name), "{name} is the name of a fact that is sent by itself; choose another one");
        let value = parse(value)?;
        let status = Client::new()?.status()?;
        let Meant { session_id, traces, is_turn } = meant(of, self.turn, &status)?;
        let comment = self.comment.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        if let Some(text) = &comment {
            ensure!(
                text.len() <= MAX_COMMENT,
                "a comment has {MAX_COMMENT} bytes at most, and this one {}",
                text.len()
            );
        }
        // It is stored, and leaves this machine.
        let rules = client::config()?.rules;
        let masked = |text: String| rules.scrub(&text, &mut Counts::new()).unwrap_or(text);
        let value = match value {
            Value::Category(word) => Value::Category(masked(word)),
            other => other,
        };
        let (name, comment) = (masked(name.to_owned()), comment.map(masked));
        let request = GiveScore { session_id, traces, is_turn, name, value, comment, at_ms: now_ms() };
        let given = Client::new()?.score(&request)?;
        if given.is_empty() {
            bail!(
                "no destination that takes scores has {}: `cc-langfusectl status` says where traces go",
                if is_turn { "this turn" } else { "a turn of this session" }
            );
        }
        for address in given {
            out!("{}: {} waits to be sent to {address}", if is_turn { "turn" } else { "session" }, request.name);
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn meant(of: Option<&str>, turn: Option<usize>, status: &Status) -> anyhow::Result<Meant> {
    if let Some(trace) = of.filter(|of| from_hex::<16>(of).is_some_and(|_: TraceId| true)) {
        ensure!(turn.is_none(), "--turn goes with a session; {trace} is a turn already");
        return Ok(Meant { session_id: String::new(), traces: vec![trace.to_ascii_lowercase()], is_turn: true });
    }
    let session = TracedSession::meant(&status.sessions, of, Naming::Loose)?;
    let (mut traces, _) = session.turns()?;
    let count = traces.len();
    ensure!(count > 0, "{} has no answered turn", session.transcript.display());
    let is_turn = of.is_none() || turn.is_some();
    if is_turn {
        let number = turn.unwrap_or(count);
        let trace = number.checked_sub(1).and_then(|at| traces.get(at)).cloned();
        traces = vec![trace.with_context(|| format!("the session has turns 1 to {count}"))?];
    }
    traces.reverse();
    Ok(Meant { session_id: session.session_id, traces, is_turn })
}

/// A number, yes or no, or else a word.
fn parse(text: &str) -> anyhow::Result<Value> {
    let text = text.trim();
    Ok(match text {
        "true" => Value::Boolean(true),
        "false" => Value::Boolean(false),
        _ => match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Value::Number(number),
            _ => {
                let is_word = !text.is_empty() && text.len() <= MAX_NAME && !text.chars().any(char::is_control);
                ensure!(is_word, "a value is a number, true, false, or a word of at most {MAX_NAME} bytes");
                Value::Category(text.to_owned())
            }
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_a_number_yes_or_no_or_a_word() {
        for (text, expect) in [
            ("true", Some(Value::Boolean(true))),
            ("false", Some(Value::Boolean(false))),
            ("1", Some(Value::Number(1.0))),
            (" -0.5 ", Some(Value::Number(-0.5))),
            ("True", Some(Value::Category("True".into()))),
            ("nan", Some(Value::Category("nan".into()))),
            ("inf", Some(Value::Category("inf".into()))),
            ("so so", Some(Value::Category("so so".into()))),
            ("", None),
            ("a\nb", None),
        ] {
            assert_eq!(parse(text).ok(), expect, "{text:?}");
        }
        assert!(parse(&"x".repeat(MAX_NAME + 1)).is_err());
    }
}
