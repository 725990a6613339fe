//! What Claude Code's own telemetry adds to what a session emits: facts of its calls and tools, and the calls that have no line.

use std::time::{Duration, Instant};

use super::{
    Engine,
    emit::Gathered,
    session::{Session, Tail},
};
use crate::{
    clock,
    store::{handle::Handle, hidden::Hidden},
    telemetry::Telemetry,
};
use cc_core::{
    book, ids,
    pipeline::{Outgoing, Pipeline},
    redact::Counts,
    telemetry::{Call, Fate},
    turn::Turn,
};

/// How long a complete turn waits for the facts of its calls. With `setup`, Claude Code sends them every 500 ms, and as it ends.
pub(super) const MAX_WAIT: Duration = Duration::from_millis(1500);

/// How often it is seen whether they have come.
const POLL: Duration = Duration::from_millis(50);

impl Engine {
    /// The same, with what others receive into `telemetry`.
    #[must_use]
    pub fn with_telemetry(mut self, telemetry: Telemetry) -> Self {
        self.telemetry = telemetry;
        self
    }

    /// Looks at a session again whose telemetry came: a call of it may have no line.
    pub(super) fn reconsider(&mut self, id: &str) {
        if !self.telemetry.facts().is_some_and(|facts| facts.has_hidden(id)) {
            return;
        }
        match self.sessions.get_mut(id) {
            Some(session) => session.phase.wake(),
            None => drop(self.resume(id)),
        }
    }
}

/// The wait of a session's complete turn.
#[derive(Debug, Default)]
pub(super) struct Wait {
    since: Option<Instant>,
    /// Nothing came of this session in all that time: it is not waited for again until something does.
    is_in_vain: bool,
}

impl Wait {
    /// When to look again for the facts of a complete turn of `session`; `None` if it is emitted now. `is_known` if they are here.
    pub(super) fn wait(
        &mut self,
        now: Instant,
        is_known: bool,
        telemetry: &Telemetry,
        session: &str,
    ) -> Option<Instant> {
        let has_any = telemetry.facts().is_some_and(|facts| facts.knows(session));
        if is_known || self.is_in_vain && !has_any {
            self.since = None;
            return None;
        }
        let since = *self.since.get_or_insert(now);
        if now >= since + MAX_WAIT {
            *self = Self { since: None, is_in_vain: !has_any };
            return None;
        }
        Some(now + POLL)
    }
}

/// Everything came that is to be waited for: the facts of all calls of `turn` that are to be emitted, or there is no telemetry.
pub(super) fn are_known(telemetry: &Telemetry, session: &str, turn: &Turn) -> bool {
    let Some(facts) = telemetry.facts() else { return true };
    let calls = turn.generations.iter().filter(|call| !call.sent && !call.is_copy);
    calls.filter_map(|call| call.request_id.as_deref()).all(|id| facts.has_call(session, id))
}

/// Adds what is known of them to `observations`.
pub(super) fn add(telemetry: &Telemetry, session: &str, observations: &mut [Outgoing]) {
    let Some(facts) = telemetry.facts().filter(|facts| facts.knows(session)) else { return };
    observations.iter_mut().for_each(|out| facts.measure(session, &mut out.observation));
}

/// What was read of `session` was not stored, or is read again for a destination that was behind: its calls without a line come
/// again, those of the `store` among them, and are queued only where they are new.
pub(super) fn again(telemetry: &Telemetry, store: &Handle, session: &str) {
    if telemetry.facts().is_none() {
        return;
    }
    let stored = store.call(|store| store.hidden_calls_of(session)).unwrap_or_else(|error| {
        tracing::warn!(session, %error, "calls without a line from before a restart are not known");
        Vec::new()
    });
    if let Some(mut facts) = telemetry.facts() {
        facts.offer_again(session, stored, clock::now_ns());
    }
}

/// Emits the calls without a line of turns that were emitted: below the turn of their prompt, else below the latest.
pub(super) fn add_hidden(session: &Session, tail: &Tail, found: &mut Gathered) {
    let row = &session.row;
    let Some(mut facts) = found.telemetry.facts().filter(|facts| facts.has_hidden(&row.session_id)) else { return };
    let turns: Vec<&Turn> = tail.assembler.at_work().filter(|turn| turn.is_answered()).collect();
    let has_line = |turn: &&Turn, id: &str| {
        let all = std::iter::once(*turn).chain(&turn.agents);
        all.flat_map(|turn| &turn.generations).any(|call| call.request_id.as_deref() == Some(id))
    };
    // A turn without an answer yet is that of its prompt all the same.
    let of = |prompt: Option<&str>| {
        let its = |turn: &&Turn| prompt.is_some() && turn.prompt.prompt_id.as_deref() == prompt;
        tail.assembler.at_work().find(its).or_else(|| turns.last().copied())
    };
    let calls = facts.hidden(&row.session_id, |call| {
        if turns.iter().any(|turn| has_line(turn, &call.request_id)) {
            Fate::HasLine
        } else if of(call.prompt_id.as_deref()).is_some_and(|turn| turn.root_sent) {
            Fate::Hidden
        } else {
            Fate::Open
        }
    });
    drop(facts);
    let pipeline = Pipeline { session_id: &row.session_id, options: &row.hint.options, rules: &session.rules };
    for call in calls {
        let Some(turn) = of(call.prompt_id.as_deref()) else { continue };
        let out = pipeline.hidden(turn, &call, &mut found.redacted);
        found.bytes += out.as_ref().map_or(0, |out| out.bytes);
        // Only where its turn is known.
        found.marks.extend(out);
        found.hidden.push((ids::trace_id(turn.trace_key()), masked(call, session)));
    }
}

/// Without its secrets, as it is stored.
fn masked(mut call: Call, session: &Session) -> Call {
    if !session.row.hint.options.unredacted {
        let Call { request_id, prompt_id, source, agent_id, model, speed, .. } = &mut call;
        let some = [prompt_id, source, agent_id, speed].into_iter().flatten();
        for text in some.chain([request_id, model]) {
            // Counted where its observation is masked.
            if let Some(masked) = session.rules.scrub(text, &mut Counts::new()) {
                *text = masked;
            }
        }
    }
    call
}

/// The calls of a session without a line that are traced, for its balance: those that were stored before, and `new` ones.
pub(super) fn hidden_calls(stored: &[Call], new: &[Hidden]) -> Vec<book::Call> {
    let is_new = |call: &&Call| !stored.iter().any(|known| known.request_id == call.request_id);
    stored.iter().chain(new.iter().map(|(_, call)| call).filter(is_new)).map(book::Call::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_waits_for_its_facts_for_a_limited_time_and_not_again_where_none_come() {
        let (now, telemetry) = (Instant::now(), Telemetry::on());
        let mut wait = Wait::default();
        assert_eq!(wait.wait(now, true, &telemetry, "s"), None);
        assert_eq!(wait.wait(now, false, &telemetry, "s"), Some(now + POLL));
        let later = now + MAX_WAIT;
        assert_eq!(wait.wait(later - POLL, false, &telemetry, "s"), Some(later));
        assert_eq!(wait.wait(later, false, &telemetry, "s"), None);
        assert_eq!(wait.wait(later, false, &telemetry, "s"), None, "in vain before");
    }
}
