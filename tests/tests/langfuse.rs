//! Behaviour of a real Langfuse server: asynchronous storage, and what it shows in the end.

use serde_json::json;
use tests::{Answer, Home, Server, Span, Story, langfuse};

fn roots(spans: &[Span]) -> Vec<String> {
    spans.iter().filter(|span| span.is_root()).map(|span| span.content("output")).collect()
}

/// A Stop hook makes the model continue: the turn grows.
fn grows(story: &mut Story, answer: &str) {
    story.raw(
        json!({
            "type": "user", "isMeta": true, "uuid": format!("feedback-{answer}"), "sessionId": story.session,
            "timestamp": "2026-11-20T08:30:00.000Z",
            "message": {"role": "user", "content": "Stop hook feedback:\ngo on"},
        })
        .to_string()
        .as_bytes(),
    );
    story.answer(answer);
}

#[test]
fn older_servers_show_the_newest_output_of_a_grown_turn() {
    let (home, server) = (Home::new(), Server::answering(langfuse::v3));
    home.settings("work", &server.env());
    let _daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    story.prompt("q").tool("x").answer("first");
    home.hook(&story.stop("first"), &server.env());
    home.flush();
    let trace = server.spans()[0].trace_id.clone();
    let shown = |text: &str| assert_eq!(server.older_output(&trace), json_message(text));
    shown("first");
    for answer in ["second", "third"] {
        grows(&mut story, answer);
        home.hook(&story.stop(answer), &server.env());
        home.flush();
        shown(answer);
    }
    assert_eq!(roots(&server.spans()), ["first", "second", "third"]);
}

fn json_message(text: &str) -> String {
    format!(r#"{{"role":"assistant","content":"{text}"}}"#)
}

#[test]
fn an_unchanged_root_is_not_sent_again() {
    let (home, server) = (Home::new(), Server::new());
    home.settings("work", &server.env());
    let daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    story.turn("q", "a");
    home.hook(&story.stop("a"), &server.env());
    home.flush();
    compacts(&mut story, 1);
    home.hook(&story.event("SessionEnd"), &server.env());
    home.flush();
    assert_eq!((roots(&server.spans()), server.spans().len()), (vec!["a".to_owned()], 3));
    // A daemon that reads the turn again finds the same.
    daemon.kill();
    let _daemon = home.daemon();
    compacts(&mut story, 2);
    home.hook(&story.event("SessionEnd"), &server.env());
    home.flush();
    assert_eq!((roots(&server.spans()), server.spans().len()), (vec!["a".to_owned()], 4));
    grows(&mut story, "b");
    home.hook(&story.stop("b"), &server.env());
    home.flush();
    assert_eq!(roots(&server.spans()), ["a", "b"]);
}

/// A manual `/compact`.
fn compacts(story: &mut Story, number: u64) {
    let boundary = json!({
        "type": "system", "subtype": "compact_boundary", "uuid": format!("compact-{number}"), "sessionId": story.session,
        "timestamp": "2026-11-20T08:20:00.000Z", "compactMetadata": {"trigger": "manual", "preTokens": number},
    });
    story.raw(boundary.to_string().as_bytes());
}

#[test]
fn a_server_that_is_silent_for_70_s_gets_each_span_once() {
    let (home, server) = (Home::new(), Server::new());
    let mut is_first = true;
    server.change(move |request| {
        let is_stuck = !request.spans.is_empty() && std::mem::take(&mut is_first);
        if is_stuck { langfuse::stuck(request) } else { Answer::ok() }
    });
    home.settings("work", &server.env());
    let _daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    story.turn("q", "a");
    home.hook(&story.stop("a"), &server.env());
    let first = server.wait_for_requests(1)[0].at;
    story.turn("q", "b");
    home.hook(&story.stop("b"), &server.env());
    let done = home.ctl(&["flush", "--timeout", "110s"]);
    assert!(done.status.success(), "{done:?}");
    assert!(first.elapsed().as_secs() >= 70, "it was waited for: {:?}", first.elapsed());
    assert_eq!((server.spans().len(), roots(&server.spans())), (4, vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!(home.status()["destinations"][0]["delivered"], 4);
}
