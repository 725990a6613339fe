//! What a verdict leads to. Pure: time and chance come in as values.

use std::time::Duration;

use super::verdict::Verdict;
use crate::dialect::{OutSpan, Value};

/// Most spans in one batch.
pub const BATCH_SPANS: usize = 512;

/// Most bytes of outbox rows in one batch, unless a single span is larger.
pub const BATCH_BYTES: usize = 4 << 20;

/// How often a parked destination is tried.
pub const PROBE: Duration = Duration::from_secs(300);

const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);

/// Attributes are not cut below this many bytes: a span that is still refused has another problem.
const SMALLEST_CUT: usize = 1024;

/// What an exporter remembers between two batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Most spans in the next batch.
    pub spans: usize,
    /// Failed tries in a row.
    pub failures: u32,
}

impl Default for Plan {
    fn default() -> Self {
        Self { spans: BATCH_SPANS, failures: 0 }
    }
}

/// What to do with the batch now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Forget it: it has arrived.
    Done,
    /// Keep it and wait.
    Wait(Duration, String),
    /// Keep it and wait for better keys, or [`PROBE`].
    Park(String),
    /// Send again at once, in a smaller piece.
    Split,
    /// It is one span: cut its largest attribute, or bury it if there is nothing left to cut.
    Shrink(String),
    /// It is one span: bury it.
    Bury(String),
}

/// The next step after `verdict` on a batch of `sent` spans. `chance` is uniform in 0 … 1.
pub fn next(plan: Plan, verdict: Verdict, sent: usize, chance: f64) -> (Plan, Step) {
    let calm = Plan { failures: 0, ..plan };
    match verdict {
        // After a batch had to be split, every piece that arrives makes the next one larger again.
        Verdict::Delivered => (Plan { spans: (plan.spans * 2).clamp(1, BATCH_SPANS), failures: 0 }, Step::Done),
        Verdict::Later(after, why) => {
            let wait = backoff(plan.failures, chance).max(after.unwrap_or_default());
            (Plan { failures: plan.failures.saturating_add(1), ..plan }, Step::Wait(wait, why))
        }
        Verdict::Park(why) => (calm, Step::Park(why)),
        Verdict::Refused(why) if sent <= 1 => (calm, Step::Bury(why)),
        Verdict::TooLarge(why) if sent <= 1 => (calm, Step::Shrink(why)),
        Verdict::Refused(_) | Verdict::TooLarge(_) => (Plan { spans: (sent / 2).max(1), failures: 0 }, Step::Split),
    }
}

/// Full jitter: somewhere between nothing and the bound, which doubles from 1 s to 5 min.
fn backoff(failures: u32, chance: f64) -> Duration {
    let bound = SHORTEST.saturating_mul(1u32.checked_shl(failures.min(16)).unwrap_or(u32::MAX)).min(LONGEST);
    bound.mul_f64(chance.clamp(0.0, 1.0))
}

/// Cuts the largest attribute of `span` to half, with a mark that says so. `false` if nothing worth cutting is left.
pub fn shrink(span: &mut OutSpan) -> bool {
    let largest = span.attributes.iter_mut().filter_map(|(_, value)| match value {
        Value::Text(text) => Some(text),
        Value::List(_) => None,
    });
    let Some(text) = largest.max_by_key(|text| text.len()).filter(|text| text.len() > SMALLEST_CUT) else {
        return false;
    };
    let before = text.len();
    let keep = text.floor_char_boundary(before / 2);
    text.truncate(keep);
    text.push_str(&format!(" [TRUNCATED {keep} of {before} bytes]"));
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_stay_within_their_bounds() {
        let mut plan = Plan::default();
        let mut bounds = Vec::new();
        for _ in 0..12 {
            let (after, step) = next(plan, Verdict::Later(None, String::new()), 1, 1.0);
            plan = after;
            match step {
                Step::Wait(wait, _) => bounds.push(wait.as_secs()),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(bounds, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        let later = Verdict::Later(Some(Duration::from_secs(7)), String::new());
        assert_eq!(next(Plan::default(), later, 1, 0.5).1, Step::Wait(Duration::from_secs(7), String::new()));
        assert_eq!(next(plan, Verdict::Delivered, 1, 0.0).0.failures, 0);
    }

    /// Sends spans 0..n, of which `bad` are refused, and returns (arrived, buried, requests).
    fn deliver(n: usize, bad: &[usize], verdict: fn(String) -> Verdict) -> (Vec<usize>, Vec<usize>, usize) {
        let mut queue: Vec<usize> = (0..n).collect();
        let (mut arrived, mut buried, mut requests, mut plan) = (vec![], vec![], 0, Plan::default());
        while !queue.is_empty() {
            let batch: Vec<usize> = queue.iter().take(plan.spans).copied().collect();
            requests += 1;
            let answer =
                if batch.iter().any(|i| bad.contains(i)) { verdict(String::new()) } else { Verdict::Delivered };
            let (after, step) = next(plan, answer, batch.len(), 0.0);
            plan = after;
            match step {
                Step::Done => arrived.extend(queue.drain(..batch.len())),
                Step::Bury(_) | Step::Shrink(_) => buried.extend(queue.drain(..1)),
                Step::Split => {}
                other => panic!("{other:?}"),
            }
        }
        (arrived, buried, requests)
    }

    #[test]
    fn a_poison_span_is_found_and_the_rest_arrives() {
        for bad in [vec![], vec![0], vec![511], vec![300], vec![7, 8, 400]] {
            for verdict in [Verdict::Refused as fn(String) -> Verdict, Verdict::TooLarge] {
                let (arrived, buried, requests) = deliver(600, &bad, verdict);
                assert_eq!(buried, bad);
                assert_eq!(arrived, (0..600).filter(|i| !bad.contains(i)).collect::<Vec<_>>());
                assert!(requests <= 2 + 40 * bad.len(), "{requests} requests for {bad:?}");
            }
        }
    }

    #[test]
    fn a_span_too_large_is_cut_at_its_largest_attribute_and_says_so() {
        let text = |n: usize| Value::Text("é".repeat(n));
        let mut span = OutSpan {
            trace_id: [1; 16],
            span_id: [1; 8],
            parent_id: [0; 8],
            name: String::new(),
            start_ns: 1,
            end_ns: 1,
            error: None,
            attributes: vec![("a".into(), text(10)), ("b".into(), text(1001)), ("c".into(), text(20))],
            events: vec![],
            call: None,
        };
        assert!(shrink(&mut span));
        assert_eq!(span.text("a").map(str::len), Some(20));
        assert_eq!(span.text("b"), Some(format!("{} [TRUNCATED 1000 of 2002 bytes]", "é".repeat(500)).as_str()));
        assert!(shrink(&mut span));
        assert!(!shrink(&mut span), "nothing above {SMALLEST_CUT} bytes is left");
    }
}
