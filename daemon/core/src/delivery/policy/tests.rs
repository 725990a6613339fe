use std::time::SystemTime;

use super::*;
use crate::{
    delivery::item::Stored,
    destination::{
        Destination, Kind,
        wire::{Status, Value, WireSpan},
    },
    observation::{Body, Observation, Output, Tool, TraceFacts},
    verdict::{Answer, judge},
};

fn langfuse() -> Destination {
    Destination { kind: Kind::Langfuse, address: "https://lf.example.org".into(), account: "pk".into() }
}

#[test]
fn a_trace_stored_elsewhere_counts_as_delivered_and_delays_no_other() {
    // How many spans each trace has, in queue order, and whether the server stores it elsewhere.
    let traces = [(3, false), (4, true), (1, true), (200, false), (1, false), (300, true), (2, false)];
    let waiting: Vec<usize> = traces.iter().enumerate().flat_map(|(trace, (spans, _))| vec![trace; *spans]).collect();
    let (mut rest, mut taken, mut requests) = (&waiting[..], Vec::<&usize>::new(), 0);
    let mut plan = Plan::new(Manners::default());
    while !rest.is_empty() {
        requests += 1;
        assert!(requests < 60, "{requests} requests for {} spans", waiting.len());
        let batch = &rest[..plan.batch().min(rest.len())];
        let verdict = match batch.iter().any(|trace| traces[*trace].1) {
            true => Verdict::Elsewhere(String::new()),
            false => Verdict::Delivered,
        };
        let of_one_trace = batch.iter().take_while(|trace| *trace == &batch[0]).count();
        let step;
        (plan, step) = next(plan, verdict.clone(), Sent { of_one_trace, ..sent(batch.len()) }, 0.5);
        match step {
            Step::Done => {
                // Nothing is acknowledged that the server neither took nor has.
                assert!(verdict == Verdict::Delivered || batch.iter().all(|trace| traces[*trace].1), "{batch:?}");
                taken.extend(batch.iter());
                rest = &rest[batch.len()..];
            }
            Step::Split => assert!(plan.batch() < batch.len(), "{batch:?}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(taken, waiting.iter().collect::<Vec<_>>());
}

fn sent(spans: usize) -> Sent {
    Sent { spans, ..Sent::default() }
}

#[test]
fn back_off_grows_within_its_bounds() {
    let mut plan = Plan::new(Manners::default());
    let mut bounds = Vec::new();
    for _ in 0..12 {
        let (after, step) = next(plan, Verdict::Later(None, String::new()), sent(1), 1.0);
        plan = after;
        match step {
            Step::Wait(wait, _) => bounds.push(wait.as_secs()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(bounds, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
    let later = Verdict::Later(Some(Duration::from_secs(7)), String::new());
    assert_eq!(
        next(Plan::new(Manners::default()), later, sent(1), 0.5).1,
        Step::Wait(Duration::from_secs(7), String::new())
    );
    assert_eq!(next(plan, Verdict::Delivered, sent(1), 0.0).0.failures, 0);
}

/// Sends spans 0..n, of which `bad` are refused, and returns (arrived, buried, requests).
fn deliver(n: usize, bad: &[usize], verdict: fn(String) -> Verdict) -> (Vec<usize>, Vec<usize>, usize) {
    let mut queue: Vec<usize> = (0..n).collect();
    let (mut arrived, mut buried, mut requests, mut plan) = (vec![], vec![], 0, Plan::new(Manners::default()));
    while !queue.is_empty() {
        let batch: Vec<usize> = queue.iter().take(plan.spans.now).copied().collect();
        requests += 1;
        let answer = if batch.iter().any(|i| bad.contains(i)) { verdict(String::new()) } else { Verdict::Delivered };
        let (after, step) = next(plan, answer, sent(batch.len()), 0.0);
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
fn a_refused_span_is_isolated_and_all_others_are_delivered() {
    for bad in [vec![], vec![0], vec![511], vec![300], vec![7, 8, 400]] {
        for verdict in [Verdict::Refused as fn(String) -> Verdict, Verdict::TooLarge] {
            let (arrived, buried, requests) = deliver(600, &bad, verdict);
            assert_eq!(buried, bad);
            assert_eq!(arrived, (0..600).filter(|i| !bad.contains(i)).collect::<Vec<_>>());
            assert!(requests <= 2 + 40 * bad.len(), "{requests} requests for {bad:?}");
        }
    }
}

/// Spans and bytes of each batch.
type Batches = Vec<(usize, usize)>;

/// Delivers spans of `sizes` bytes to a server that answers `(spans, bytes)` after the time `answer` returns, or never. Returns
/// the delivered batches, the unanswered ones, and how often a span was cut.
fn deliver_to(sizes: &[usize], answer: impl Fn(usize, usize) -> Option<Duration>) -> (Batches, Batches, usize) {
    let mut queue: Vec<usize> = sizes.to_vec();
    let (mut arrived, mut unanswered, mut cut, mut plan) = (vec![], vec![], 0, Plan::new(Manners::default()));
    while !queue.is_empty() {
        let smaller = plan.smaller_than().and_then(|bytes| queue.iter().position(|size| *size < bytes));
        let range = match smaller {
            Some(at) => at..at + 1,
            None => {
                let mut total = 0;
                let fits = |size: &&usize| {
                    total += **size;
                    total <= plan.bytes.now
                };
                0..queue.iter().take(plan.batch()).take_while(fits).count().max(1)
            }
        };
        let (spans, bytes) = (range.len(), queue[range.clone()].iter().sum());
        let took = answer(spans, bytes).filter(|took| *took <= plan.answer_limit(spans));
        let verdict = if took.is_some() { Verdict::Delivered } else { Verdict::Silent("reset".into()) };
        let (after, step) = next(plan, verdict, Sent { bytes, took: took.unwrap_or_default(), ..sent(spans) }, 0.0);
        plan = after;
        match step {
            Step::Done => {
                queue.drain(range);
                arrived.push((spans, bytes));
            }
            Step::Wait(..) => unanswered.push((spans, bytes)),
            Step::Shrink(_) => {
                queue[range.start] /= 2;
                cut += 1;
            }
            other => panic!("{other:?}"),
        }
        assert!(unanswered.len() + arrived.len() < 100_000, "no end");
    }
    (arrived, unanswered, cut)
}

#[test]
fn a_connection_that_resets_large_bodies_costs_few_extra_spans() {
    const KB: usize = 1 << 10;
    for limit in [100 * KB, 1000 * KB, 3000 * KB] {
        for size in [KB, 20 * KB, 90 * KB] {
            let (arrived, unanswered, cut) =
                deliver_to(&vec![size; 4000], |_, bytes| (bytes <= limit).then_some(Duration::ZERO));
            assert_eq!(arrived.iter().map(|(spans, _)| spans).sum::<usize>(), 4000);
            assert!(unanswered.len() <= 6 + arrived.len() / 8, "{} of {}", unanswered.len(), arrived.len());
            assert!(
                arrived.len() <= 4000 * size * 6 / limit + 60,
                "{} requests of {size} below {limit}",
                arrived.len()
            );
            assert_eq!(cut, 0);
        }
    }
}

#[test]
fn a_span_too_large_for_the_connection_is_cut_once_smaller_ones_arrive() {
    let through = |_: usize, bytes: usize| (bytes <= 1 << 20).then_some(Duration::ZERO);
    let mut sizes = vec![3000; 20];
    sizes[0] = 5 << 20;
    sizes[7] = (1 << 20) + 1;
    let (arrived, _, cut) = deliver_to(&sizes, through);
    assert_eq!((arrived.iter().map(|(spans, _)| spans).sum::<usize>(), cut), (20, 3 + 1));
    // Nothing is cut because a server is down, however long.
    let mut plan = Plan::new(Manners::default());
    for _ in 0..1000 {
        let (after, step) =
            next(plan, Verdict::Silent("reset".into()), Sent { spans: 1, bytes: 5 << 20, ..sent(1) }, 0.0);
        assert!(matches!(step, Step::Wait(..)), "{step:?}");
        plan = after;
    }
}

#[test]
fn a_server_that_is_slow_per_span_is_not_sent_spans_again() {
    for each in [1, 10, 100, 250, 1000, 5000] {
        let took = |spans: usize, _| Some(Duration::from_millis(each * spans as u64));
        let (arrived, unanswered, cut) = deliver_to(&[2000; 2000], took);
        assert_eq!((arrived.iter().map(|(spans, _)| spans).sum::<usize>(), cut), (2000, 0));
        // Spans sent more than once: at most those in flight when the server turned out to be slow.
        let again: usize = unanswered.iter().map(|(spans, _)| spans).sum();
        assert!(again == 0 || each >= 250, "{again} again at {each} ms each");
        assert!(again <= 1024 + 512, "{again} again at {each} ms each");
        let longest = arrived.iter().rev().take(8).map(|(spans, _)| *spans as u64 * each).max().unwrap();
        assert!(longest <= 20_000, "{longest} ms at {each} ms each");
    }
}

#[test]
fn a_busy_server_gets_minutes_to_answer() {
    for seconds in [70, 89, 100, 300, 600] {
        let (_, unanswered, cut) = deliver_to(&[2000; 20], |_, _| Some(Duration::from_secs(seconds)));
        assert_eq!(cut, 0);
        assert!(unanswered.len() <= 3, "{} at {seconds} s", unanswered.len());
        assert!(seconds >= 90 || unanswered.is_empty(), "{} at {seconds} s", unanswered.len());
    }
}

#[test]
fn batches_grow_again_after_an_outage() {
    let mut plan = Plan::new(Manners::default());
    for _ in 0..50 {
        let spans = plan.batch();
        plan = next(plan, Verdict::Silent("reset".into()), Sent { spans, bytes: spans * 3000, ..sent(1) }, 0.0).0;
    }
    assert_eq!(plan.batch(), 1);
    let mut batches = 0;
    while plan.batch() < Manners::default().batch_spans {
        let spans = plan.batch();
        plan = next(plan, Verdict::Delivered, Sent { spans, bytes: spans * 3000, ..sent(1) }, 0.0).0;
        batches += 1;
    }
    assert!(batches <= 60, "{batches}");
}

/// A server with every kind of failure that is not the batch's fault, for as long as it is down.
fn trouble(hour: u64, now: u64) -> Answer {
    let date = |at: u64| httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(at));
    let response = |status, retry_after: Option<String>| Answer::Response {
        status,
        retry_after,
        // Its clock is a year slow.
        date: Some(date(1_700_000_000 + now)),
        rejected: None,
        denial: None,
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
fn a_week_of_failures_takes_few_requests_and_loses_no_span() {
    const HOUR: u64 = 3_600_000;
    const WEEK: u64 = 7 * 24 * HOUR;
    for seed in 1..=50u64 {
        let mut state = seed;
        let mut chance = move || {
            // The generator xorshift64.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1u64 << 53) as f64
        };
        let (mut now, mut plan, mut produced, mut requests, mut longest) =
            (0u64, Plan::new(Manners::default()), 0usize, 0, 0);
        // A span each minute, the oldest first.
        let mut queue = std::collections::VecDeque::new();
        let mut arrived = Vec::new();
        let mut first_success = None;
        while now < WEEK || !queue.is_empty() {
            while (produced as u64) * 60_000 <= now.min(WEEK) {
                queue.push_back(produced);
                produced += 1;
            }
            let count = queue.len().min(plan.spans.now);
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
                    denial: None,
                    body: String::new(),
                },
                false => trouble(now / HOUR, now / 1000),
            };
            let (after, step) = next(plan, judge(&answer), sent(count), chance());
            plan = after;
            // The duration of an exchange.
            now += 50;
            let wait = match step {
                Step::Done => {
                    first_success = first_success.or(Some(now));
                    arrived.extend(queue.drain(..count));
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
                plan = Plan::new(Manners::default());
                now += half + left.as_millis() as u64;
            } else {
                now += wait;
            }
        }
        assert_eq!(arrived, (0..produced).collect::<Vec<_>>(), "each once, in order");
        assert!(longest <= LONGEST_WAIT.as_millis() as u64);
        let late = first_success.unwrap() - WEEK;
        assert!(late <= LONGEST_WAIT.as_millis() as u64 + 50, "{late} ms");
        // Full jitter up to 5 min comes to a request every 150 s, 4032 in a week, but for those after a restart.
        assert!((1000..5000).contains(&requests), "{requests} requests");
    }
}

#[test]
fn a_wait_survives_a_restart_but_not_a_changed_clock() {
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
fn shrinking_a_span_halves_its_largest_text_and_leaves_a_mark() {
    let text = |n: usize| Value::Text("é".repeat(n));
    let span = WireSpan {
        status: Status::Error("x".repeat(1500)),
        attributes: vec![("a".into(), text(10)), ("b".into(), text(1001)), ("c".into(), text(20))],
        ..WireSpan::default()
    };
    let mut item = Item::Span(span);
    let get = |item: &Item, key: &str| item.encode(&langfuse()).text(key).unwrap().to_owned();
    assert!(shrink(&mut item));
    assert_eq!(get(&item, "a").len(), 20);
    assert_eq!(get(&item, "b"), format!("{} [TRUNCATED 1000 of 2002 bytes]", "é".repeat(500)));
    assert!(shrink(&mut item));
    let error = item.encode(&langfuse()).status;
    assert_eq!(error.error(), Some(&*format!("{} [TRUNCATED 750 of 1500 bytes]", "x".repeat(750))));
    assert!(shrink(&mut item));
    let twice = get(&item, "b");
    assert!(twice.starts_with('é') && twice.ends_with("é [TRUNCATED 514 of 2002 bytes]"), "{twice}");
    assert!(!shrink(&mut item), "nothing above {SMALLEST_CUT} bytes is left");
}

#[test]
fn shrinking_an_observation_halves_its_largest_text_in_any_field() {
    let tool = Tool {
        input: "i".repeat(3000),
        output: Some(Output { text: "o".repeat(8000), media: vec![] }),
        ..Tool::default()
    };
    let observation = Observation { body: Body::Tool(tool), ..Observation::default() };
    let facts = TraceFacts { session_id: "s".into(), cwd: Some("d".repeat(2500)), ..TraceFacts::default() };
    let mut item = Item::Observation(Box::new(Stored { facts: facts.into(), observation }));
    assert!(shrink(&mut item), "there is enough to cut");
    while shrink(&mut item) {}
    let span = item.encode(&langfuse());
    for (key, before) in [
        ("langfuse.observation.output", 8000),
        ("langfuse.observation.input", 3000),
        ("langfuse.trace.metadata.cwd", 2500),
    ] {
        let text = span.text(key).unwrap();
        assert!(text.len() <= SMALLEST_CUT && text.ends_with(&format!(" of {before} bytes]")), "{key}: {text}");
    }
    assert_eq!(Item::parse(item.body().as_bytes()).unwrap(), item);
}
