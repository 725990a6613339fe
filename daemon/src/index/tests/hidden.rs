use super::*;
use cc_core::{observation::Usage, telemetry::Call};

const MODEL: &str = "claude-sonnet-4-5";

fn totals(input: u64) -> String {
    let usage = json!({MODEL: {"inputTokens": input, "outputTokens": 20, "cacheReadInputTokens": 30, "costUSD": 0.5}});
    format!("{}\n", json!({"type": "cost-state", "totalCostUSD": 0.5, "modelUsage": usage}))
}

fn call(session: &str, id: &str, at: &str, input: u64) -> Call {
    let end = at.parse::<jiff::Timestamp>().unwrap().as_nanosecond();
    Call {
        request_id: id.into(),
        session_id: session.into(),
        model: MODEL.into(),
        usage: Usage { input, ..Usage::default() },
        cost: Some(0.25),
        end: u64::try_from(end).unwrap(),
        ..Call::default()
    }
}

/// Calls and input tokens from telemetry, its cost, and untraced input tokens, of one session or all.
fn beyond(index: &Index, session: Option<&str>) -> (u64, u64, Option<f64>, u64) {
    let telemetry = index.telemetry(&Filter::default(), session).unwrap();
    let untraced = index.untraced(&Filter::default(), session).unwrap();
    (telemetry.calls, telemetry.tokens.input, telemetry.cost_usd, untraced.tokens.input)
}

#[test]
fn a_call_without_a_line_leaves_the_remainder_when_it_becomes_known_and_returns_when_it_is_forgotten() {
    let (dir, mut index) = (Dir::new(), Index::in_memory().unwrap());
    // `open` has no totals yet; what it used later is in none.
    let sources = [dir.write("a", &(turn("u1", json!({})) + &totals(17))), dir.write("open", &turn("u2", json!({})))];
    assert_eq!(update(&mut index, &sources).read, 2);
    assert_eq!(beyond(&index, None), (0, 0, None, 7));
    let calls = [
        call("a", "r-1", "2026-11-20T10:00:01Z", 4),
        call("open", "r-2", "2026-11-20T10:00:01Z", 5),
        call("another", "r-3", "2026-11-20T10:00:01Z", 6),
    ];
    index.know(&calls, "1", Redactor::built_in()).unwrap();
    assert_eq!(update(&mut index, &sources).read, 1, "the one with totals");
    assert_eq!(beyond(&index, Some("a")), (1, 4, Some(0.25), 3));
    assert_eq!(beyond(&index, None), (2, 9, Some(0.5), 3), "that of a session without a transcript is left out");
    index.know(&calls, "2", Redactor::built_in()).unwrap();
    assert_eq!((index.stamp().unwrap().as_str(), update(&mut index, &sources).read), ("2", 0));
    index.know(&calls[1..], "3", Redactor::built_in()).unwrap();
    assert_eq!(update(&mut index, &sources).read, 1);
    assert_eq!(beyond(&index, Some("a")), (0, 0, None, 7));
}

#[test]
fn a_call_after_the_totals_is_no_part_of_them() {
    let (dir, mut index) = (Dir::new(), Index::in_memory().unwrap());
    let later = json!({"timestamp": "2026-11-20T11:00:00.000Z"});
    let sources = [dir.write("a", &(turn("u1", json!({})) + &totals(17) + &turn("u2", later)))];
    let calls = [call("a", "r-1", "2026-11-20T11:00:01Z", 4)];
    index.know(&calls, "1", Redactor::built_in()).unwrap();
    update(&mut index, &sources);
    assert_eq!(beyond(&index, Some("a")), (1, 4, Some(0.25), 7));
}

#[test]
fn they_are_filtered_by_time_and_project_as_others_are() {
    let (dir, mut index) = (Dir::new(), Index::in_memory().unwrap());
    let sources = [dir.write("a", &turn("u1", json!({})))];
    index.know(&[call("a", "r-1", "2026-11-20T10:00:01Z", 4)], "1", Redactor::built_in()).unwrap();
    update(&mut index, &sources);
    let calls = |since: &str, project: &str| {
        let since = u64::try_from(since.parse::<jiff::Timestamp>().unwrap().as_nanosecond()).ok();
        let filter = Filter { since, project: Some(project.to_owned()) };
        let report = index.usage(&filter, By::Day, &TimeZone::UTC).unwrap();
        (report.telemetry.calls, report.telemetry.tokens.input)
    };
    assert_eq!(calls("2026-11-20T10:00:00Z", "/home/dev"), (1, 4));
    assert_eq!(calls("2026-11-20T10:00:02Z", "/home/dev"), (0, 0));
    assert_eq!(calls("2026-11-20T10:00:00Z", "/home/other"), (0, 0));
}
