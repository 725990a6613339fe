use super::*;
use crate::{
    doctor::State,
    verdict::{Answer, judge},
};

#[test]
fn clocks_may_differ_by_a_minute() {
    for (now, state, seen) in [
        (1000, State::Ok, "within 1 s"),
        (1060, State::Ok, "within 60 s"),
        (1061, State::Warning, "61 s ahead of"),
        (900, State::Warning, "100 s behind"),
    ] {
        let project = Project { id: "i".into(), name: "p".into(), date: Some(1000) };
        let clock = judge_project("u", &Ok(project), now).pop().unwrap();
        assert!(clock.state == state && clock.seen.contains(seen), "{clock:?}");
    }
    assert_eq!(judge_project("u", &Err(Failure::Unreachable(String::new())), 0).len(), 1, "no clock without an answer");
}

#[test]
fn a_trace_has_arrived_if_either_api_shows_it() {
    let taken = Answer::Response {
        status: 200,
        retry_after: None,
        date: None,
        rejected: None,
        denial: None,
        body: String::new(),
    };
    let shown = || Seen::Shown(Duration::from_millis(300));
    for (sent, seen, state, text) in [
        (&taken, Some((shown(), Seen::NotYet)), State::Ok, "v4 API: after 0.3 s; older API: not there"),
        (&taken, Some((Seen::NoSuchApi, shown())), State::Ok, "v4 API: no such API; older API: after 0.3 s"),
        (&taken, Some((Seen::NoSuchApi, Seen::NotYet)), State::Problem, "does not show it within 30 s"),
        (&taken, Some((Seen::Failed("HTTP 403".into()), Seen::NotYet)), State::Problem, "v4 API: HTTP 403"),
        (&Answer::Unreachable("gone".into()), None, State::Problem, "could not be sent: gone"),
    ] {
        let seen = seen.map(|(one, two)| vec![("v4 API", one), ("older API", two)]);
        let probe = Probe { trace_id: "t".into(), sent: judge(sent), waited: Duration::from_secs(30), seen };
        let finding = probe.judge();
        assert!(finding.state == state && finding.seen.contains(text), "{finding:?}");
    }
}

#[test]
fn transcripts_are_old_five_days_before_they_are_removed() {
    for (days, cleanup, expect) in [(24, 30, false), (25, 30, true), (40, 30, true), (0, 3, true), (84, 90, false)] {
        assert_eq!(is_old(days, cleanup), expect, "{days} of {cleanup}");
    }
}
