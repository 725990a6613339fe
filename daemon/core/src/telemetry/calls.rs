//! A call in Claude Code's telemetry, and the observation that is made of one without a line.

use super::{Call, Record};
use crate::{
    ids::{self, Role, TraceId},
    observation::{Body, Generation, Level, Measured, Observation, Usage},
};

/// Takes what the event `api_request` says.
pub(super) fn requested(call: &mut Call, record: &Record, session: &str) {
    let text = |name: &str| record.text(name).filter(|text| text.len() <= super::MAX_TEXT).map(str::to_owned);
    let number = |name: &str| record.number(name);
    let tokens = |name: &str| number(name).unwrap_or_default();
    let (five, hour) = (tokens("cache_creation_5m_tokens"), tokens("cache_creation_1h_tokens"));
    *call = Call {
        request_id: text("request_id").unwrap_or_default(),
        session_id: session.to_owned(),
        prompt_id: text("prompt.id"),
        source: Some(text("query_source").unwrap_or_default()),
        agent_id: text("agent_id"),
        model: text("model").unwrap_or_default(),
        usage: Usage {
            input: tokens("input_tokens"),
            output: tokens("output_tokens"),
            cache_read: tokens("cache_read_tokens"),
            cache_write_5m: five,
            cache_write_1h: hour,
            // 2.1.329 does not say for how long it was written.
            cache_write: tokens("cache_creation_tokens").saturating_sub(five.saturating_add(hour)),
        },
        cost: record.real("cost_usd").filter(|cost| cost.is_finite() && *cost >= 0.0),
        duration_ms: number("duration_ms"),
        first_token_ms: number("ttft_ms").or(call.first_token_ms),
        attempts: number("attempt").or(call.attempts),
        speed: text("speed").filter(|speed| speed != "normal"),
        end: record.end,
        is_taken: call.is_taken,
    };
}

/// What its generation gets.
pub(super) fn measured(call: &Call) -> Measured {
    Measured {
        first_token_ms: call.first_token_ms,
        duration_ms: call.duration_ms,
        attempts: call.attempts,
        ..Measured::default()
    }
}

/// Calls that never have a line, also within a subagent, and what they are for.
const WITHOUT_LINE: [(&str, &str); 4] = [
    ("compact", "compaction"),
    ("web_search_tool", "web search"),
    ("generate_session_title", "title"),
    ("session_title", "title"),
];

/// True if the answer of such a call is in a transcript: of the session, or of a subagent. Of a subagent, any call counts as one
/// that is not known to have no line.
pub(super) fn is_conversation(call: &Call) -> bool {
    let source = call.source.as_deref().unwrap_or_default();
    let has_none = WITHOUT_LINE.iter().any(|(name, _)| *name == source);
    !has_none
        && (call.agent_id.is_some()
            || source.is_empty()
            || source == "sdk"
            || source.starts_with("repl_main_thread")
            || source.starts_with("agent:"))
}

impl Call {
    /// What it was for, in words.
    fn purpose(&self) -> String {
        let source = self.source.as_deref().unwrap_or_default();
        let known = WITHOUT_LINE.iter().find(|(name, _)| *name == source);
        known.map_or_else(|| source.replace(['_', ':'], " ").trim().to_owned(), |(_, purpose)| (*purpose).to_owned())
    }

    /// The observation of a call without a line, below the turn with this `trace`. Its id depends on the request alone; its times
    /// are those of the telemetry.
    pub fn observation(&self, trace: TraceId, root: &str) -> Observation {
        let start = self.end.saturating_sub(self.duration_ms.unwrap_or_default().saturating_mul(1_000_000));
        let generation = Generation {
            model: self.model.clone(),
            usage: Some(self.usage),
            request_id: Some(self.request_id.clone()),
            speed: self.speed.clone(),
            role: Some(self.purpose()),
            measured: Some(Measured { is_all: true, cost: self.cost, ..measured(self) }),
            ..Generation::default()
        };
        Observation {
            trace_id: trace,
            span_id: ids::span_id(trace, Role::Generation, &format!("telemetry:{}", self.request_id)),
            parent: Some(ids::span_id(trace, Role::Turn, root)),
            name: self.purpose(),
            start,
            end: self.end.max(start),
            level: Level::Default,
            body: Body::Generation(Box::new(generation)),
            ..Observation::default()
        }
    }
}
