//! The queue is bounded, the user decides about spans that no server accepts, and all of it can be monitored.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::Duration,
};

use serde_json::Value;
use tests::{Answer, Home, Request, Server, Story, ids, say, server};

const MIB: u64 = 1 << 20;

fn text(output: &std::process::Output) -> (Option<i32>, String) {
    let said = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat();
    (output.status.code(), said)
}

#[test]
fn reading_stops_at_a_full_queue_and_continues_by_itself() {
    const TURNS: usize = 50;
    let home = Home::new();
    home.configure("outbox_mib = 1");
    let away = Server::answering(|_| Answer::status(503).header("retry-after", "1"));
    let (other, daemon) = (Server::new(), home.daemon());
    let mut story = Story::new(&home, "away", "s");
    let filler = "so much to say ".repeat(4000);
    for turn in 0..TURNS {
        story.turn(&format!("q{turn} {filler}"), &format!("a{turn}"));
    }
    home.hook(&story.stop(&format!("a{}", TURNS - 1)), &away.env());
    let status = home.status_until("the outbox to be full", |status| status["destinations"][0]["full"] == true);
    // One step may exceed the limit: the excess is the bytes of that step.
    let waiting = status["destinations"][0]["waiting_bytes"].as_u64().expect("bytes");
    assert!((MIB..3 * MIB).contains(&waiting), "{waiting} bytes wait");
    let pending = status["outbox"]["pending"].as_u64().expect("spans");
    assert!(pending < 2 * TURNS as u64, "all {pending} spans were read");

    // No other project is delayed.
    let mut neighbour = Story::new(&home, "other", "t");
    neighbour.turn("q", "a");
    home.hook(&neighbour.stop("a"), &server::env(&other.url, "pk-other", "sk-other"));
    other.wait_for(2);

    for args in [&["status"][..], &["flush", "--timeout", "1500ms"]] {
        let (code, said) = text(&home.ctl(args));
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("queue is full") && said.contains(&away.url), "{said}");
    }
    // More events of the same session change nothing.
    home.hook(&story.event("SessionEnd"), &away.env());
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(home.status()["outbox"]["pending"], pending);
    let size = |name: &str| fs::metadata(home.paths().state.join(name)).map_or(0, |meta| meta.len());
    let disk = size("state.db") + size("state.db-wal");
    assert!(disk < 10 * MIB, "{disk} bytes on disk");
    say(&format!(
        "with 1 MiB allowed: {waiting} bytes wait, {disk} bytes on disk, {:?} KiB of memory at most",
        daemon.peak_kib()
    ));
    if let Some(peak) = daemon.peak_kib() {
        assert!(peak < 60 << 10, "the daemon held {peak} KiB");
    }

    away.change(|_| Answer::ok());
    home.flush();
    let spans = away.spans();
    assert_eq!((spans.len(), ids(&spans).len()), (2 * TURNS, 2 * TURNS));
    let roots: Vec<String> = spans.iter().filter(|span| span.is_root()).map(|span| span.content("output")).collect();
    assert_eq!(roots, (0..TURNS).map(|turn| format!("a{turn}")).collect::<Vec<_>>(), "oldest first");
    assert_eq!(home.status()["destinations"][0]["full"], false);
}

/// Refuses every batch with a span whose output says one of `words`.
fn refusing(words: &'static [&'static str]) -> impl FnMut(&Request) -> Answer + Send + 'static {
    move |request| {
        let bad = request.spans.iter().any(|span| words.contains(&span.content("output").as_str()) && span.is_root());
        if bad { Answer::status(400).body("no such trace, thank you") } else { Answer::ok() }
    }
}

fn letters(home: &Home) -> Vec<Value> {
    let (code, said) = text(&home.ctl(&["dead-letters", "--json"]));
    assert_eq!(code, Some(0), "{said}");
    serde_json::from_str(&said).expect("a list")
}

#[test]
fn refused_spans_are_listed_and_retried_or_dropped_by_the_user() {
    let home = Home::new();
    let server = Server::answering(refusing(&["bad1", "bad2", "bad3"]));
    let _daemon = home.daemon();
    assert_eq!(text(&home.ctl(&["dead-letters"])), (Some(0), "none\n".to_owned()));
    let mut story = Story::new(&home, "work", "s");
    for answer in ["good1", "bad1", "good2", "bad2", "bad3"] {
        story.turn("q", answer);
    }
    home.hook(&story.stop("bad3"), &server.env());
    home.flush();
    assert_eq!(server.spans().len(), 7);
    let list = letters(&home);
    assert_eq!(list.len(), 3);
    let id = |number: usize| list[number]["id"].as_i64().expect("a number").to_string();
    let (code, said) = text(&home.ctl(&["dead-letters"]));
    assert_eq!(code, Some(0));
    for letter in &list {
        assert!(letter["bytes"].as_u64().is_some_and(|bytes| bytes > 0) && letter["since"].is_string(), "{letter}");
        for what in ["span_id", "base_url", "reason"] {
            assert!(said.contains(letter[what].as_str().expect("text")), "{said}");
        }
    }
    assert!(said.contains("400") && said.contains("no such trace"), "{said}");
    let (_, said) = text(&home.ctl(&["status"]));
    assert!(said.contains("3 undeliverable") && said.contains("dead-letters"), "{said}");

    // A server that still refuses it does not make a second dead letter.
    assert_eq!(home.ctl(&["dead-letters", "--retry", &id(0)]).status.code(), Some(0));
    home.status_until("it to be refused again", |status| {
        status["dead_letters"] == 3 && status["outbox"]["pending"] == 0
    });
    let list = letters(&home);
    let id = |number: usize| list[number]["id"].as_i64().expect("a number").to_string();

    server.change(|_| Answer::ok());
    let wanted = list[0]["span_id"].clone();
    assert_eq!(home.ctl(&["dead-letters", "--retry", &id(0)]).status.code(), Some(0));
    home.flush();
    assert_eq!(server.spans().len(), 8);
    assert_eq!(server.spans().last().map(|span| Value::from(span.span_id.clone())), Some(wanted));
    assert_eq!(home.ctl(&["dead-letters", "--drop", &id(1)]).status.code(), Some(0));
    assert_eq!(letters(&home), list[2..]);
    for args in [["--retry", "4711"], ["--drop", "4711"], ["--retry", &id(0)], ["--drop", &id(1)]] {
        let (code, said) = text(&home.ctl(&[&["dead-letters"], &args[..]].concat()));
        assert_eq!(code, Some(1), "{args:?}: {said}");
    }
    for args in [&["--retry", "x"][..], &["--drop"], &["--retry", "1", "--drop", "1"], &["--retry", "-1"], &["4711"]] {
        let (code, said) = text(&home.ctl(&[&["dead-letters"], args].concat()));
        assert_eq!(code, Some(2), "{args:?}: {said}");
    }
    assert_eq!(letters(&home), list[2..]);
    assert_eq!(home.ctl(&["dead-letters", "--retry", "all"]).status.code(), Some(0));
    home.flush();
    let spans = server.spans();
    assert_eq!((spans.len(), ids(&spans).len()), (9, 9));
    assert_eq!(letters(&home), Vec::<Value>::new());
    assert_eq!(home.ctl(&["dead-letters", "--drop", "all"]).status.code(), Some(0), "none is all there are");
}

/// The samples in Prometheus' text format, by name with labels.
///
/// # Panics
/// If the text is not in that format.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let is_name = |name: &str| {
        !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
    };
    let mut types: BTreeSet<&str> = BTreeSet::new();
    let mut samples = BTreeMap::new();
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (kind, name, rest) = (words.next(), words.next().expect("a name"), words.next().expect("the rest"));
            assert!(is_name(name), "{line}");
            match kind {
                Some("TYPE") => assert!(types.insert(name) && ["counter", "gauge"].contains(&rest), "{line}"),
                Some("HELP") => assert!(!types.contains(name), "{line}"),
                _ => panic!("{line}"),
            }
            assert!(!samples.keys().any(|sample: &String| sample.starts_with(&format!("{name}{{")) || sample == name));
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect("a value");
        let name = series.split('{').next().expect("a name");
        assert!(types.contains(name), "{line} has no type");
        if let Some(labels) = series.strip_prefix(name).and_then(|labels| labels.strip_prefix('{')) {
            let mut rest = labels;
            while rest != "}" {
                let (label, value) = rest.split_once("=\"").expect("a label");
                assert!(is_name(label), "{line}");
                let mut escaped = false;
                let end = value.find(|c| {
                    let ends = c == '"' && !escaped;
                    escaped = c == '\\' && !escaped;
                    ends
                });
                rest = &value[end.expect("a closing quote") + 1..];
                rest = rest.strip_prefix(',').unwrap_or(rest);
            }
        }
        assert_eq!(samples.insert(series.to_owned(), value.parse().expect("a number")), None, "{line} is there twice");
    }
    assert!(text.ends_with('\n'));
    samples
}

#[test]
fn the_metrics_have_the_figures_of_status_in_prometheus_format() {
    let home = Home::new();
    let server = Server::answering(refusing(&["bad"]));
    let away = Server::answering(|_| Answer::status(503));
    let daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    let token = ["gh", "p_", "9fK2xQ7mZ4tR8wL1cV6bN3pD5sH0jG2aYeUo"].concat();
    story.turn(&format!("use {token}"), "good").raw(b"not JSON").turn("q", "bad");
    home.hook(&story.stop("bad"), &server.env());
    home.flush();
    let mut other = Story::new(&home, "other", "t");
    other.turn("q", "a");
    home.hook(&other.stop("a"), &server::env(&away.url, "pk \"quoted\" \\ and ü", "sk"));
    home.status_until("spans to wait", |status| {
        status["outbox"]["pending"] == 2 && status["destinations"][1]["state"] == "retrying"
    });

    let answer = home.ask("/metrics");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a body");
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/plain; version=0.0.4"), "{head}");
    let samples = samples(body);
    let status = home.status();
    let number = |value: &Value| value.as_f64().expect("a number");
    let mut expected: BTreeMap<String, f64> = BTreeMap::from([
        ("cc_langfuse_inbox_events".into(), number(&status["inbox"]["pending"])),
        ("cc_langfuse_outbox_spans".into(), number(&status["outbox"]["pending"])),
        ("cc_langfuse_in_flight_spans".into(), 0.0),
        ("cc_langfuse_events_total".into(), number(&status["inbox"]["heard"])),
        ("cc_langfuse_media_pending".into(), number(&status["media"]["pending"])),
        ("cc_langfuse_scores_pending".into(), number(&status["scores"]["pending"])),
        ("cc_langfuse_dead_letter_spans".into(), number(&status["dead_letters"])),
        ("cc_langfuse_store_failing".into(), 0.0),
        (format!("cc_langfuse_build_info{{version={}}}", status["daemon"]["version"]), 1.0),
    ]);
    for to in status["destinations"].as_array().expect("a list") {
        let labels = format!("{{base_url={},public_key={}}}", to["base_url"], to["public_key"]);
        let info = format!("{{name={},kind={},{}", to["name"], to["kind"], &labels[1..]);
        expected.insert(format!("cc_langfuse_destination_info{info}"), 1.0);
        for (name, value) in [
            ("up", f64::from(u8::from(to["state"] == "ok"))),
            ("full", 0.0),
            ("waiting_spans", number(&to["waiting"])),
            ("waiting_bytes", number(&to["waiting_bytes"])),
            ("delivered_spans_total", number(&to["delivered"])),
            ("rejected_spans_total", number(&to["rejected"])),
        ] {
            expected.insert(format!("cc_langfuse_destination_{name}{labels}"), value);
        }
    }
    for (name, label, counts) in
        [("skipped", "reason", &status["skipped_lines"]), ("redacted", "rule", &status["redacted"])]
    {
        for (what, count) in counts.as_object().expect("counts") {
            expected.insert(format!("cc_langfuse_{name}_total{{{label}=\"{what}\"}}"), number(count));
        }
    }
    assert_eq!((number(&status["dead_letters"]), number(&status["destinations"][0]["delivered"])), (1.0, 3.0));
    assert_eq!((number(&status["skipped_lines"]["not_json"]), status["redacted"]["github"].is_number()), (1.0, true));
    for (series, value) in &expected {
        assert_eq!(samples.get(series), Some(value), "{series} in\n{body}");
    }
    let (aged, rest): (Vec<&String>, Vec<&String>) = samples
        .keys()
        .filter(|series| !expected.contains_key(*series))
        .partition(|series| series.starts_with("cc_langfuse_destination_oldest_waiting_seconds{"));
    assert_eq!((aged.len(), rest), (1, vec![&"cc_langfuse_uptime_seconds".to_owned()]), "one destination waits");
    drop(daemon);
}
