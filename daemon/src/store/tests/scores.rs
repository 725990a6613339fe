use cc_core::score::{Due, Of, Score, Scored, Value};
use cc_core::status::Fate;

use super::*;

/// A score of trace 1, whose root is span 1.
pub(super) fn score(name: &str, value: Value) -> Score {
    Score {
        id: [name.as_bytes()[0]; 16],
        trace_id: [1; 16],
        root: [1; 8],
        session_id: "s-1".into(),
        of: Of::Trace,
        name: name.into(),
        value,
        comment: None,
        environment: None,
        at: 5,
        by_person: false,
    }
}

pub(super) fn scored(due: Due, scores: Vec<Score>, spans: Vec<Observation>) -> Advance {
    Advance { scores: scores.into_iter().map(|score| Scored { due, score }).collect(), ..step(spans) }
}

fn names(store: &mut Store, to: DestinationId) -> Vec<String> {
    store.next_scores(to, 9).unwrap().into_iter().map(|row| row.score.name).collect()
}

fn take_all(store: &mut Store, to: DestinationId) {
    let rows = store.next_scores(to, 9).unwrap();
    store.scores_taken(to, &rows.iter().collect::<Vec<_>>()).unwrap();
}

#[test]
fn a_score_waits_once_with_the_news_of_its_turn_and_again_only_with_another_value() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = opened(&dir);
    let failures = |n: f64| vec![score("failures", Value::Number(n))];
    store.advance(&scored(Due::WithNews, failures(1.0), vec![])).unwrap();
    assert_eq!(names(&mut store, 1), [""; 0], "nothing of its turn was queued");
    store.advance(&scored(Due::WithNews, failures(1.0), vec![span(1, 1, 0), span(1, 2, 1)])).unwrap();
    assert_eq!(names(&mut store, 1), ["failures"]);
    take_all(&mut store, 1);
    drop(store);
    let mut store = opened(&dir);
    store.advance(&scored(Due::WithNews, failures(1.0), vec![span(1, 3, 1)])).unwrap();
    assert_eq!(names(&mut store, 1), [""; 0], "it says the same");
    store.advance(&scored(Due::WithNews, failures(2.0), vec![span(1, 4, 1)])).unwrap();
    // What was sent before it changed does not settle it.
    let sent = store.next_scores(1, 9).unwrap();
    store.advance(&scored(Due::WithNews, failures(3.0), vec![span(1, 5, 1)])).unwrap();
    store.scores_taken(1, &sent.iter().collect::<Vec<_>>()).unwrap();
    let rows = store.next_scores(1, 9).unwrap();
    assert_eq!(rows.iter().map(|row| &row.score.value).collect::<Vec<_>>(), [&Value::Number(3.0)]);
}

#[test]
fn that_nothing_happened_is_said_only_to_take_back_an_earlier_word() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = opened(&dir);
    let error = |yes: bool| vec![score("error", Value::Boolean(yes)), score("failures", Value::Number(0.0))];
    store.advance(&scored(Due::WithNews, error(false), vec![span(1, 1, 0)])).unwrap();
    assert_eq!(names(&mut store, 1), [""; 0]);
    store.advance(&scored(Due::WithNews, error(true), vec![span(1, 2, 1)])).unwrap();
    take_all(&mut store, 1);
    store.advance(&scored(Due::WithNews, error(false), vec![span(1, 3, 1)])).unwrap();
    let rows = store.next_scores(1, 9).unwrap();
    assert_eq!(
        rows.iter().map(|row| (&*row.score.name, &row.score.value)).collect::<Vec<_>>(),
        [("error", &Value::Boolean(false))]
    );
}

#[test]
fn a_score_of_a_session_waits_where_its_turn_is_known_and_not_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = opened(&dir);
    let outcome = |word: &str| vec![score("outcome", Value::Category(word.into()))];
    store.advance(&scored(Due::WhereKnown, outcome("completed"), vec![])).unwrap();
    assert_eq!(names(&mut store, 1), [""; 0], "no turn of it is known");
    store.advance(&step(vec![span(1, 1, 0)])).unwrap();
    store.advance(&scored(Due::WhereKnown, outcome("completed"), vec![])).unwrap();
    assert_eq!(names(&mut store, 1), ["outcome"]);
    store.pause(None, true).unwrap();
    store.advance(&scored(Due::WhereKnown, outcome("errored"), vec![])).unwrap();
    store.pause(None, false).unwrap();
    assert_eq!(store.next_scores(1, 9).unwrap()[0].score.value, Value::Category("completed".into()));
    store.forget("s-1", &[[1; 16]]).unwrap();
    store.advance(&scored(Due::WhereKnown, outcome("errored"), vec![])).unwrap();
    assert_eq!((names(&mut store, 1).len(), count(&store, "score")), (0, 0));
}

#[test]
fn a_score_that_fails_comes_after_others_and_one_that_is_refused_can_be_retried() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = opened(&dir);
    let both = vec![score("first", Value::Boolean(true)), score("other", Value::Boolean(true))];
    store.advance(&scored(Due::WithNews, both, vec![span(1, 1, 0)])).unwrap();
    let rows = store.next_scores(1, 1).unwrap();
    store.scores_postponed(1, &rows, "HTTP 500").unwrap();
    assert_eq!(names(&mut store, 1), ["other", "first"]);
    assert_eq!(store.counts().unwrap().scores, (2, Some("HTTP 500".into())));
    store.bury_score(1, &rows[0], "HTTP 400", 7).unwrap();
    assert_eq!((names(&mut store, 1), store.dead_letter_count().unwrap()), (vec!["other".to_owned()], 1));
    let (to, settled) = store.settle_dead_letters(None, Fate::Retry, 8).unwrap();
    assert_eq!((to.len(), settled, names(&mut store, 1).len()), (1, 1, 2));
    assert_eq!(store.next_scores(1, 9).unwrap()[0].score, rows[0].score);
    // A forgotten trace has no dead letters.
    store.bury_score(1, &rows[0], "HTTP 400", 7).unwrap();
    store.forget("s-1", &[[1; 16]]).unwrap();
    assert_eq!(store.dead_letter_count().unwrap(), 0);
}

#[test]
fn a_damaged_score_and_those_that_a_server_does_not_know_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = opened(&dir);
    let all = ["a", "b", "c"].map(|name| score(name, Value::Boolean(true)));
    store.advance(&scored(Due::WithNews, all.to_vec(), vec![span(1, 1, 0)])).unwrap();
    store.db.execute("UPDATE score SET body = replace(body, 'true', 'false') WHERE seq = 1", []).unwrap();
    assert_eq!(names(&mut store, 1), ["b", "c"]);
    store.scores_unsupported(1).unwrap();
    store.scores_unsupported(1).unwrap();
    let skipped = store.counts().unwrap().skipped;
    assert_eq!((skipped.get("score_damaged"), skipped.get("score_unsupported")), (Some(&1), Some(&2)), "{skipped:?}");
}

#[test]
fn a_trace_waits_as_long_as_one_of_its_spans_does() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = opened(&dir);
    assert!(!store.does_trace_wait(1, &[1; 16]).unwrap());
    store.advance(&scored(Due::WithNews, vec![score("failures", Value::Number(1.0))], vec![span(1, 1, 0)])).unwrap();
    assert!(store.does_trace_wait(1, &[1; 16]).unwrap() && !store.does_trace_wait(1, &[2; 16]).unwrap());
    let rows = store.claim(1, 9, usize::MAX).unwrap();
    store.delivered(1, &rows, 0, 1).unwrap();
    assert!(!store.does_trace_wait(1, &[1; 16]).unwrap());
    let [row] = &store.next_scores(1, 9).unwrap()[..] else { panic!("the score waits") };
    assert_eq!(row.queued_ms, 10);
}
