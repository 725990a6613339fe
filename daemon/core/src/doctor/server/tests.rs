use super::*;
use crate::{
    doctor::State,
    verdict::{Answer, judge},
};

fn langfuse() -> To {
    To { kind: crate::destination::Kind::Langfuse, address: "u".into(), account: "pk".into() }
}

#[test]
fn clocks_may_differ_by_a_minute() {
    for (now, state, seen) in [
        (1000, State::Ok, "within 1 s"),
        (1060, State::Ok, "within 60 s"),
        (1061, State::Warning, "61 s ahead of"),
        (900, State::Warning, "100 s behind"),
    ] {
        let project = Project { id: "i".into(), name: "p".into(), date: Some(1000) };
        let clock = judge_project(&langfuse(), &Ok(project), now).pop().unwrap();
        assert!(clock.state == state && clock.seen.contains(seen), "{clock:?}");
    }
    assert_eq!(
        judge_project(&langfuse(), &Err(Failure::Unreachable(String::new())), 0).len(),
        1,
        "no clock without an answer"
    );
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
        let probe = Probe {
            trace_id: "t".into(),
            sent: judge(sent),
            waited: Duration::from_secs(30),
            seen,
            deleted: None,
            variable: "V",
        };
        let finding = probe.judge();
        assert!(finding.state == state && finding.seen.contains(text), "{finding:?}");
    }
}

#[test]
fn a_test_trace_is_deleted_again_if_possible() {
    let gone = Deleted { gone: 1, ..Deleted::default() };
    for (deleted, state, text) in [
        (None, State::Ok, "was sent and taken; this receiver is not read back"),
        (Some(Ok(gone)), State::Ok, "and deleted again"),
        (Some(Ok(Deleted { absent: 1, ..Deleted::default() })), State::Warning, "did not know it"),
        (Some(Err("HTTP 500".to_owned())), State::Warning, "could not be deleted again: HTTP 500"),
    ] {
        let (sent, waited) = (Verdict::Delivered, Duration::ZERO);
        let finding = Probe { trace_id: "t".into(), sent, waited, seen: None, deleted, variable: "V" }.judge();
        assert!(finding.state == state && finding.seen.contains(text), "{finding:?}");
    }
}

#[test]
fn each_kind_of_server_has_its_own_words() {
    use crate::destination::Kind::{Langfuse, Mlflow, Otlp};
    for (kind, variable, credentials) in [
        (Langfuse, "LANGFUSE_BASE_URL", "LANGFUSE_SECRET_KEY"),
        (Mlflow, "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_TOKEN"),
        (Otlp, "CC_LANGFUSE_OTLP_ENDPOINT", "CC_LANGFUSE_OTLP_HEADERS"),
    ] {
        let to = To { kind, ..langfuse() };
        let remedy = |failure| judge_project(&to, &Err(failure), 0).remove(0).remedy.unwrap();
        let status = |status| Failure::Status { status, said: String::new(), date: None };
        assert!(remedy(status(401)).contains(credentials), "{kind:?}");
        for failure in [status(302), status(404), Failure::Unreachable("x".into())] {
            assert!(remedy(failure).contains(variable), "{kind:?}");
        }
    }
}

#[test]
fn transcripts_are_old_five_days_before_they_are_removed() {
    for (days, cleanup, expect) in [(24, 30, false), (25, 30, true), (40, 30, true), (0, 3, true), (84, 90, false)] {
        assert_eq!(is_old(days, cleanup), expect, "{days} of {cleanup}");
    }
}
