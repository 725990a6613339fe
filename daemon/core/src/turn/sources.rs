//! The sources of span ids.
//!
//! Some gateways use ids that are unique at best within an answer or a turn: `call_0`, or always the same one. In the trace
//! each span needs an id of its own; an id that does not repeat stays as it is.

use std::borrow::Cow;

use super::{Generation, Tool, Turn};

/// Maximum length of an id with several numbers that is taken for a counter.
const MAX_COUNT_LENGTH: usize = 12;

/// Maximum number of digits of a counter.
const DIGITS: usize = 6;

impl Turn {
    /// The source of a tool's span id.
    pub fn tool_source<'t>(&self, tool: &'t Tool) -> Cow<'t, str> {
        self.source(&tool.id, tool.repeats, 0)
    }

    /// The source of a generation's span id.
    pub fn generation_source<'t>(&self, generation: &'t Generation) -> Cow<'t, str> {
        self.source(&generation.id, generation.repeats, 1)
    }

    /// The source of an event's span id; `number` counts the events of the turn.
    pub fn event_source(&self, number: usize) -> String {
        let turn = self.place.as_ref().map_or_else(|| self.key.as_str().into(), super::Place::source);
        format!("{turn}/{number}")
    }

    /// `id` with the number of its earlier occurrences in the turn. For a subagent, whose spans are in the trace of another
    /// turn, also with the subagent's id if others may use the same id: because it is a counter, or because the call that
    /// launched the subagent has it (`which` selects the id to compare with).
    fn source<'t>(&self, id: &'t str, repeats: u32, which: usize) -> Cow<'t, str> {
        let shared = |place: &&super::Place| is_count(id) || place.launch_ids[which].as_deref() == Some(id);
        match (self.place.as_ref().filter(shared), repeats) {
            (None, 0) => id.into(),
            (None, _) => format!("{id}#{}", repeats + 1).into(),
            (Some(place), 0) => format!("{}/{id}", place.source()).into(),
            (Some(place), _) => format!("{}/{id}#{}", place.source(), repeats + 1).into(),
        }
    }
}

/// True for an id that counts up, such as `call_0`, `msg_12`, `functions.Bash:3` or `call_1_0`.
fn is_count(id: &str) -> bool {
    let digits = id.bytes().filter(u8::is_ascii_digit).count();
    let last = id.bytes().rev().take_while(u8::is_ascii_digit).count();
    id.is_empty() || last > 0 && digits <= DIGITS && (digits == last || id.len() <= MAX_COUNT_LENGTH)
}

#[cfg(test)]
mod tests {
    use super::is_count;

    #[test]
    fn counters_are_distinguished_from_unique_ids() {
        for count in ["call_0", "call_1", "msg_4", "functions.Bash:12", "0", "tool-3", "call_1_0", ""] {
            assert!(is_count(count), "{count}");
        }
        for id in [
            "toolu_01A09q90qw90lq917835lq9",
            "toolu_mock_subagent_fg_0002_1",
            "call_9pw4qnYScqvGrCH58HWCvFH6",
            "chatcmpl-tool-3c1a",
            "msg_proxy_stream",
            "tool_call",
        ] {
            assert!(!is_count(id), "{id}");
        }
    }
}
