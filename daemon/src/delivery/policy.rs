//! What a verdict leads to. Pure: time and chance come in as values.

use std::time::Duration;

use super::verdict::{LONGEST_WAIT, Verdict};
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
pub(super) fn backoff(failures: u32, chance: f64) -> Duration {
    let bound = SHORTEST.saturating_mul(1u32.checked_shl(failures.min(16)).unwrap_or(u32::MAX)).min(LONGEST);
    bound.mul_f64(chance.clamp(0.0, 1.0))
}

/// What is left at `now_ms` of a wait until `next_at_ms` that was promised before a restart, and whether it was the server's
/// wish. Nothing, if it is further ahead than any wait can be: the clock was changed.
pub fn resume(next_at_ms: i64, now_ms: i64) -> (Duration, bool) {
    let left = Duration::from_millis(u64::try_from(next_at_ms.saturating_sub(now_ms)).unwrap_or(0));
    // Our own waits are never longer.
    if left > LONGEST_WAIT { (Duration::ZERO, false) } else { (left, left > LONGEST) }
}

/// Cuts the largest text of `span` to half, with a mark that says so. `false` if nothing worth cutting is left.
pub fn shrink(span: &mut OutSpan) -> bool {
    let attributes = span.attributes.iter_mut().filter_map(|(_, value)| match value {
        Value::Text(text) => Some(text),
        Value::List(_) => None,
    });
    let all = attributes.chain(&mut span.error);
    let Some(text) = all.max_by_key(|text| text.len()).filter(|text| text.len() > SMALLEST_CUT) else {
        return false;
    };
    let before = cut_before(text).unwrap_or(text.len());
    let keep = text.floor_char_boundary(text.len() / 2);
    text.truncate(keep);
    text.push_str(&format!(" [TRUNCATED {keep} of {before} bytes]"));
    true
}

/// How long a text was that has been cut already.
fn cut_before(text: &str) -> Option<usize> {
    let (_, mark) = text.rsplit_once(" [TRUNCATED ")?;
    mark.strip_suffix(" bytes]")?.split_once(" of ")?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::delivery::verdict::{Answer, judge};

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

    /// A server that fails in every way that is not the batch's fault, for as long as it is away.
    fn trouble(hour: u64, now: u64) -> Answer {
        let date = |at: u64| httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(at));
        let response = |status, retry_after: Option<String>| Answer::Response {
            status,
            retry_after,
            // Its clock is a year slow.
            date: Some(date(1_700_000_000 + now)),
            rejected: None,
            body: String::new(),
        };
        match hour % 12 {
            0 | 1 => Answer::Unreachable("refused".into()),
            2 => response(503, None),
            3 => response(500, Some("86400".into())),
            4 => response(429, Some("120".into())),
            5 => response(429, Some(date(1_700_000_000 + now + 900))),
            6 => response(429, Some("tomorrow, perhaps".into())),
            7 => response(503, Some("1000000000".into())),
            8 => response(408, None),
            9 => response(401, None),
            10 => Answer::Untrusted("expired".into()),
            _ => response(502, Some("-1".into())),
        }
    }

    #[test]
    fn a_week_without_a_server_costs_few_requests_and_no_span() {
        const HOUR: u64 = 3_600_000;
        const WEEK: u64 = 7 * 24 * HOUR;
        for seed in 1..=50u64 {
            let mut state = seed;
            let mut chance = move || {
                // xorshift64
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 11) as f64 / (1u64 << 53) as f64
            };
            let (mut now, mut plan, mut told, mut requests, mut longest) = (0u64, Plan::default(), 0usize, 0, 0);
            // A span each minute, the oldest first.
            let mut queue = std::collections::VecDeque::new();
            let mut arrived = Vec::new();
            let mut first_success = None;
            while now < WEEK || !queue.is_empty() {
                while (told as u64) * 60_000 <= now.min(WEEK) {
                    queue.push_back(told);
                    told += 1;
                }
                let sent = queue.len().min(plan.spans);
                let up = now >= WEEK;
                if !up {
                    requests += 1;
                }
                let answer = match up {
                    true => Answer::Response {
                        status: 207,
                        retry_after: None,
                        date: None,
                        rejected: None,
                        body: String::new(),
                    },
                    false => trouble(now / HOUR, now / 1000),
                };
                let (after, step) = next(plan, judge(&answer), sent, chance());
                plan = after;
                // What an exchange takes.
                now += 50;
                let wait = match step {
                    Step::Done => {
                        first_success = first_success.or(Some(now));
                        arrived.extend(queue.drain(..sent));
                        continue;
                    }
                    Step::Wait(wait, _) => wait,
                    Step::Park(_) => PROBE,
                    other => panic!("{other:?} because the server was away"),
                };
                let wait = wait.as_millis() as u64;
                longest = longest.max(wait);
                // Now and then the daemon is restarted half-way through its wait, and sometimes the clock has jumped.
                if requests % 20 == 0 {
                    let half = wait / 2;
                    let jump = [0, 0, 10, -10][requests / 20 % 4] * 365 * 24 * HOUR as i64;
                    let (left, _) = resume((now + wait) as i64, (now + half) as i64 + jump);
                    assert!(left <= LONGEST_WAIT);
                    assert!(jump != 0 || left == Duration::from_millis(wait - half));
                    plan = Plan::default();
                    now += half + left.as_millis() as u64;
                } else {
                    now += wait;
                }
            }
            assert_eq!(arrived, (0..told).collect::<Vec<_>>(), "each once, in order");
            assert!(longest <= LONGEST_WAIT.as_millis() as u64);
            let late = first_success.unwrap() - WEEK;
            assert!(late <= LONGEST_WAIT.as_millis() as u64 + 50, "{late} ms");
            // Full jitter up to 5 min comes to a request every 150 s, 4032 in a week, but for those after a restart.
            assert!((1000..5000).contains(&requests), "{requests} requests");
        }
    }

    #[test]
    fn a_promised_wait_outlives_a_restart_but_not_a_changed_clock() {
        let s = Duration::from_secs;
        for (next_at, now, expect) in [
            (10_000, 4_000, (s(6), false)),
            (300_000, 0, (s(300), false)),
            (301_000, 0, (s(301), true)),
            (3_600_000, 0, (s(3600), true)),
            (3_600_001, 0, (s(0), false)),
            (4_000, 10_000, (s(0), false)),
            (0, i64::MAX, (s(0), false)),
            (i64::MAX, i64::MIN, (s(0), false)),
            (i64::MIN, i64::MAX, (s(0), false)),
        ] {
            assert_eq!(resume(next_at, now), expect, "until {next_at} at {now}");
        }
    }

    #[test]
    fn a_span_too_large_is_cut_at_its_largest_text_and_says_so() {
        let text = |n: usize| Value::Text("é".repeat(n));
        let mut span = OutSpan {
            trace_id: [1; 16],
            span_id: [1; 8],
            parent_id: [0; 8],
            name: String::new(),
            start_ns: 1,
            end_ns: 1,
            error: Some("x".repeat(1500)),
            attributes: vec![("a".into(), text(10)), ("b".into(), text(1001)), ("c".into(), text(20))],
            call: None,
            media: Vec::new(),
        };
        assert!(shrink(&mut span));
        assert_eq!(span.text("a").map(str::len), Some(20));
        assert_eq!(span.text("b"), Some(format!("{} [TRUNCATED 1000 of 2002 bytes]", "é".repeat(500)).as_str()));
        assert!(shrink(&mut span));
        assert_eq!(span.error, Some(format!("{} [TRUNCATED 750 of 1500 bytes]", "x".repeat(750))));
        assert!(shrink(&mut span));
        let twice = span.text("b").unwrap();
        assert!(twice.starts_with('é') && twice.ends_with("é [TRUNCATED 514 of 2002 bytes]"), "{twice}");
        assert!(!shrink(&mut span), "nothing above {SMALLEST_CUT} bytes is left");
    }
}
