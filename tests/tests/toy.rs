//! A session feeds several destinations, and none delays another: with a second kind of backend, which is one file
//! behind a feature.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tests::{
    Answer, Home, Server, Span, Story, eventually, ids,
    recording::{Mode, Recording},
    toys,
};

/// How many recordings are played in parallel.
const AT_ONCE: usize = 4;

/// The environment of a project whose traces go to both servers.
fn both(langfuse: &Server, toy: &Server) -> Vec<(String, String)> {
    let toy = [
        ("CC_LANGFUSE_TOY", "true"),
        ("CC_LANGFUSE_TOY_ADDRESS", &toy.url),
        ("CC_LANGFUSE_TOY_NAME", "shelf"),
        ("CC_LANGFUSE_TOY_TOKEN", "toy-token"),
    ];
    langfuse.env().into_iter().chain(toy.map(|(name, value)| (name.to_owned(), value.to_owned()))).collect()
}

/// Ids that came more than once, except roots, which are sent again when their turn has grown.
fn repeated(spans: &[Span]) -> Vec<(String, String)> {
    let mut seen = BTreeSet::new();
    spans.iter().filter(|span| !span.is_root()).map(Span::id).filter(|id| !seen.insert(id.clone())).collect()
}

#[test]
fn every_recorded_session_arrives_completely_and_once_at_both() {
    let recordings = Recording::all();
    let (next, wrong) = (Mutex::new(recordings.iter()), Mutex::new(Vec::new()));
    let arrived = AtomicUsize::new(0);
    toys();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(recording) = next.lock().unwrap().next() else { return };
                    let (langfuse, toy) = (Server::new(), Server::new());
                    let home = Home::new().running(toys());
                    recording.play_in(&home, &both(&langfuse, &toy), Mode::Plain, || {});
                    let (one, two) = (langfuse.spans(), toy.spans());
                    if ids(&one) != ids(&two) || !repeated(&one).is_empty() || !repeated(&two).is_empty() {
                        wrong.lock().unwrap().push(format!("{}: {} and {}", recording.name, one.len(), two.len()));
                    }
                    arrived.fetch_add(one.len(), Ordering::Relaxed);
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let arrived = arrived.into_inner();
    assert!(arrived > 300, "the recordings are there: {arrived}");
}

#[test]
fn a_destination_that_is_down_delays_no_other_and_gets_everything_once() {
    let (langfuse, toy) = (Server::new(), Server::answering(|_| Answer::status(503).header("retry-after", "0")));
    let home = Home::new().running(toys());
    // Small enough that the waiting spans for the one that is down fill its queue.
    home.configure("outbox_mib = 1");
    let env = both(&langfuse, &toy);
    home.settings("work", &env);
    let daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    let long = "what was said, at length; ".repeat(8 << 10);
    for turn in 0..12 {
        let answer = format!("{turn} {long}");
        story.turn("q", &answer);
        home.hook(&story.stop(&answer), &env);
        eventually("the other one to have the turn", || ids(&langfuse.spans()).len() == 2 * (turn + 1));
    }
    let waiting = |status: &serde_json::Value| {
        let rows = status["destinations"].as_array().expect("a list").clone();
        let row = rows.into_iter().find(|row| row["kind"] == "toy").expect("the toy");
        (row["full"] == true, row["waiting"].as_u64().expect("a number"))
    };
    let (is_full, waits) = waiting(&home.status());
    assert!(is_full && waits < 24, "its queue is full and holds less than all: {waits}");
    // A restart must not lose what it has not read yet, either.
    daemon.kill();
    let _daemon = home.daemon();
    assert_eq!(toy.spans(), []);
    toy.change(|_| Answer::ok());
    home.flush();
    assert_eq!(ids(&toy.spans()), ids(&langfuse.spans()));
    assert_eq!((repeated(&toy.spans()), repeated(&langfuse.spans())), (vec![], vec![]));
    assert!(toy.requests().iter().all(|request| request.header("authorization") == Some("Bearer toy-token")));
    let keys: BTreeSet<String> = langfuse.requests().iter().map(tests::Request::key).collect();
    assert_eq!(keys, BTreeSet::from(["pk-lf-test:sk-lf-test".to_owned()]), "no secret goes to the other one");
}

#[test]
fn an_added_destination_starts_at_the_present_and_a_removed_one_ends() {
    let (langfuse, toy) = (Server::new(), Server::new());
    let home = Home::new().running(toys());
    let (one, two) = (langfuse.env(), both(&langfuse, &toy));
    let _daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    let mut turn = |name: &str, env: &[(String, String)]| {
        home.settings("work", env);
        story.turn("q", name);
        home.hook(&story.stop(name), env);
        home.flush();
    };
    turn("first", &one);
    turn("second", &one);
    turn("third", &two);
    let began = Instant::now();
    turn("fourth", &one);
    assert!(began.elapsed() < Duration::from_secs(20));
    assert_eq!((ids(&langfuse.spans()).len(), repeated(&langfuse.spans())), (8, vec![]));
    let answers: Vec<String> = toy.spans().iter().map(|span| span.get("output").to_owned()).collect();
    assert!(answers.iter().any(|answer| answer.contains("third")), "{answers:?}");
    assert!(!answers.iter().any(|answer| answer.contains("first") || answer.contains("fourth")), "{answers:?}");
}
