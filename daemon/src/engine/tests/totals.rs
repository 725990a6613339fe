//! A session whose totals say more than its lines.

use super::*;
use crate::engine::emit::{MAX_COMPARED_BYTES, NOT_COMPARED};

#[test]
fn a_transcript_is_compared_with_the_totals_unless_it_is_too_long() {
    for (padding, events, skipped) in [(0, 1, None), (MAX_COMPARED_BYTES, 0, Some(1))] {
        let (base, dir) = home();
        let usage = serde_json::json!({"input_tokens": 10, "output_tokens": 1});
        let mut answer = line("assistant", "a1", &"hello".into());
        answer["message"]["usage"] = usage;
        answer["message"]["model"] = "claude-opus-4-5".into();
        let totals = serde_json::json!({"claude-opus-4-5": {"inputTokens": 15, "outputTokens": 1, "costUSD": 1.0}});
        let totals =
            serde_json::json!({"type": "cost-state", "sessionId": "s", "totalCostUSD": 1.0, "modelUsage": totals});
        let mut lines = vec![line("user", "q1", &"go".into()), answer];
        // Lines of progress, which are skipped.
        let fill = serde_json::json!({"type": "progress", "data": "x".repeat(1 << 20)});
        lines.extend(std::iter::repeat_n(fill, usize::try_from(padding >> 20).unwrap()));
        lines.push(totals);
        write(&dir.join("s.jsonl"), &lines);
        let engine = Running::new(base.path());
        engine.hear(ended(&dir, "s"));
        let counts = engine.until(|counts| counts.inbox == 0);
        assert_eq!((counts.outbox, counts.skipped.get(NOT_COMPARED).copied()), (2 + events, skipped));
    }
}
