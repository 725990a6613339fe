//! Narrow connections and slow servers: what fits is delivered, and nothing is sent twice without need.

use std::collections::BTreeSet;

use tests::{Answer, Home, Request, Server, Story, noise};

/// A firewall in front of a server: it silently breaks the connection of larger requests.
fn firewall(request: &Request, limit: usize) -> Answer {
    if request.raw.len() > limit { Answer::broken() } else { Answer::ok() }
}

#[test]
fn everything_arrives_through_a_firewall_that_breaks_large_requests() {
    const LIMIT: usize = 1 << 20;
    let home = Home::new();
    let _daemon = home.daemon();
    let server = Server::answering(|request| firewall(request, LIMIT));
    let mut story = Story::new(&home, "work", "large");
    let outputs: Vec<String> = (1..=40).map(|n| noise(150_000, n)).collect();
    story.prompt("q");
    outputs.iter().for_each(|output| _ = story.tool(output));
    story.answer("done");
    home.hook(&story.stop("done"), &server.env());
    home.flush();
    let spans = server.spans();
    let ids: BTreeSet<_> = spans.iter().map(|span| &span.span_id).collect();
    assert_eq!((spans.len(), ids.len()), (82, 82), "each once");
    assert!(outputs.iter().all(|output| spans.iter().any(|span| span.observation("output").contains(output))), "uncut");
    let broken = server.requests().iter().filter(|request| request.status == 0).count();
    assert!((1..=6).contains(&broken), "{broken} requests were broken");
    assert_eq!(home.status()["dead_letters"], 0);
}

#[test]
fn a_span_too_large_for_the_connection_is_cut_and_delays_nothing() {
    const LIMIT: usize = 300_000;
    let home = Home::new();
    let _daemon = home.daemon();
    let server = Server::answering(|request| firewall(request, LIMIT));
    let mut story = Story::new(&home, "work", "large");
    let output = noise(600_000, 1);
    story.prompt("q").tool(&output);
    for n in 0..6 {
        story.tool(&format!("small {n}"));
    }
    story.answer("done");
    home.hook(&story.stop("done"), &server.env());
    home.flush();
    let spans = server.spans();
    let ids: BTreeSet<_> = spans.iter().map(|span| &span.span_id).collect();
    assert_eq!((spans.len(), ids.len()), (16, 16), "each once");
    let cut: Vec<_> = spans.iter().filter(|span| span.observation("output").contains("[TRUNCATED ")).collect();
    let [cut] = cut.as_slice() else { panic!("{} were cut", cut.len()) };
    assert!(cut.observation("output").contains(&output[..100_000]), "what fits is kept");
    assert_eq!(home.status()["dead_letters"], 0);
}
