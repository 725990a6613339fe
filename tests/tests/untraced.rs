//! What Claude Code counted beyond the calls that leave a line is one event, named as such, once; every command shows the same balance.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::{Value, json};
use tests::{Home, Server, Span, Story, recording::Recording};

const MODEL: &str = "claude-sonnet-4-5-20250929";

/// Token buckets, as `usage` and `reconcile` name them.
const BUCKETS: [&str; 5] = ["input", "output", "cache_read", "cache_write_5m", "cache_write_1h"];

/// Totals of Claude Code for these counts of input, output and cache reads.
fn totals(story: &mut Story, [input, output, read]: [u64; 3], cost: f64) {
    let usage = json!({"inputTokens": input, "outputTokens": output, "cacheReadInputTokens": read, "costUSD": cost});
    let line =
        json!({"type": "cost-state", "sessionId": story.session, "totalCostUSD": cost, "modelUsage": {MODEL: usage}});
    story.raw(line.to_string().as_bytes());
}

/// Counts of a story's first `calls` calls, and these beyond.
fn counted(calls: u64, [input, output, read]: [u64; 3]) -> [u64; 3] {
    [10 * calls + input, calls * (calls + 1) / 2 + output, 7 * calls + read]
}

fn untraced(server: &Server) -> Vec<Span> {
    server.spans().into_iter().filter(|span| span.name == "untraced calls").collect()
}

fn number(span: &Span, key: &str) -> u64 {
    span.get(&format!("langfuse.observation.metadata.{key}")).parse().expect(key)
}

fn end(home: &Home, server: &Server, story: &Story) {
    home.hook(&story.event("SessionEnd"), &server.env());
    home.flush();
}

#[test]
fn a_session_that_used_more_than_its_lines_show_says_so_once() {
    let (home, server) = (Home::new(), Server::new());
    let daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s-1");
    story.turn("one", "first").turn("two", "second");
    home.hook(&story.stop("second"), &server.env());
    totals(&mut story, counted(2, [100, 20, 3]), 0.25);
    end(&home, &server, &story);
    let [event] = &untraced(&server)[..] else { panic!("one event: {:?}", server.spans()) };
    let root = server.spans().into_iter().rfind(|span| span.is_root() && span.content("input").contains("two"));
    assert_eq!(Some((&event.trace_id, &event.parent)), root.as_ref().map(|root| (&root.trace_id, &root.span_id)));
    assert_eq!(event.observation("type"), "event");
    let found = ["tokens", "input_tokens", "output_tokens", "cache_read_tokens"].map(|key| number(event, key));
    assert_eq!(found, [123, 100, 20, 3]);
    assert!(
        event.get("langfuse.observation.metadata.cost_usd").parse::<f64>().is_ok_and(|cost| cost > 0.2),
        "{event:?}"
    );
    assert!(!event.attrs.keys().any(|key| key.contains("usage") || key.contains("cost_details")), "{event:?}");

    // Neither a restart, nor the same end again, nor a kill says it twice.
    end(&home, &server, &story);
    daemon.kill();
    let daemon = home.daemon();
    end(&home, &server, &story);
    assert_eq!(untraced(&server).len(), 1);
    // The session is resumed: what it uses with a line is no news.
    story.turn("three", "third");
    home.hook(&story.stop("third"), &server.env());
    totals(&mut story, counted(3, [100, 20, 3]), 0.26);
    end(&home, &server, &story);
    assert_eq!(untraced(&server).len(), 1);
    // It is resumed again, and compacts: only the difference is news.
    story.turn("four", "fourth");
    totals(&mut story, counted(4, [150, 21, 3]), 0.36);
    daemon.kill();
    let _daemon = home.daemon();
    end(&home, &server, &story);
    let found: Vec<_> = untraced(&server).iter().map(|span| number(span, "tokens")).collect();
    assert_eq!(found, [123, 51]);
    let (ids, all) = (server.spans().into_iter().map(|span| span.id()).collect::<Vec<_>>(), server.spans());
    let traces: std::collections::BTreeSet<_> = ids.iter().collect();
    assert!(all.iter().filter(|span| !span.is_root()).count() <= traces.len(), "each observation once");
}

#[test]
fn totals_that_are_written_after_the_hook_are_waited_for() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s-1");
    story.turn("one", "first");
    home.hook(&story.stop("first"), &server.env());
    let mut payload = story.event("SessionEnd");
    payload["reason"] = "clear".into();
    home.hook(&payload, &server.env());
    server.wait_for(2);
    totals(&mut story, counted(1, [5, 6, 7]), 0.5);
    home.flush();
    assert_eq!(untraced(&server).iter().map(|span| number(span, "tokens")).collect::<Vec<_>>(), [18]);
}

#[test]
fn a_fork_says_only_what_its_parent_does_not() {
    let (home, server) = (Home::new(), Server::new());
    let _daemon = home.daemon();
    let mut parent = Story::new(&home, "work", "parent");
    parent.turn("one", "first");
    totals(&mut parent, counted(1, [100, 20, 3]), 0.25);
    end(&home, &server, &parent);
    let copied: String = fs::read_to_string(&parent.path)
        .expect("the parent")
        .lines()
        .filter(|line| !line.contains("cost-state"))
        .map(|line| {
            let mut line: Value = serde_json::from_str(line).expect("JSON");
            line["forkedFrom"] = json!({"sessionId": "parent", "messageUuid": line["uuid"]});
            line["sessionId"] = "fork".into();
            format!("{line}\n")
        })
        .collect();
    let mut fork = Story::new(&home, "work", "fork");
    fs::write(&fork.path, copied).expect("the fork");
    let mut own = Story::new(&home, "elsewhere", "fork");
    own.turn("before", "nothing").turn("two", "second");
    for line in fs::read_to_string(&own.path).expect("lines").lines().skip(2) {
        fork.raw(line.as_bytes());
    }
    // The copied call used 10, 1, 7 and its own 10, 2, 7; the parent used 100, 20, 3 without a line, and the fork 1, 2, 3 more.
    totals(&mut fork, [121, 25, 20], 0.5);
    end(&home, &server, &fork);
    assert_eq!(untraced(&server).iter().map(|span| number(span, "tokens")).collect::<Vec<_>>(), [123, 6]);
    let (code, found) = reconciled(&home, &fork.path);
    assert_eq!((code, sum(&found["untraced"])), (Some(0), 6), "{found}");

    // A branch counts from its own beginning: the copies are the parent's.
    let text = fs::read_to_string(&fork.path).expect("the fork");
    let lines: Vec<_> = text.lines().filter(|line| !line.contains("cost-state")).collect();
    fs::write(&fork.path, lines.join("\n") + "\n").expect("the branch");
    totals(&mut fork, [10, 2, 7], 0.1);
    let (code, found) = reconciled(&home, &fork.path);
    assert_eq!((code, &found["traced"]["elsewhere"], sum(&found["untraced"])), (Some(0), &json!(1), 0), "{found}");
    let said = home.ctl(&["reconcile", fork.path.to_str().expect("UTF-8")]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(!said.contains("twice") && said.contains("Both agree."), "{said}");
}

fn reconciled(home: &Home, path: &Path) -> (Option<i32>, Value) {
    let output = home.ctl(&["reconcile", path.to_str().expect("UTF-8"), "--json"]);
    (output.status.code(), serde_json::from_slice(&output.stdout).expect("JSON"))
}

fn sum(row: &Value) -> u64 {
    BUCKETS.iter().map(|bucket| row[bucket].as_u64().expect("a count")).sum()
}

#[test]
fn traced_and_untraced_are_what_claude_code_counted_in_every_view() {
    let home = Home::new();
    let (mut balanced, mut with_remainder) = (0, 0);
    for recording in Recording::all() {
        let sessions = recording.sessions();
        let mut stated = BTreeMap::new();
        for path in &sessions {
            let (_, found) = reconciled(&home, path);
            let of =
                |key: &str| -> u64 { found["models"].as_array().into_iter().flatten().map(|row| sum(&row[key])).sum() };
            if found["stated"].is_null() || found["traced"]["is_fork"] == true {
                continue;
            }
            assert_eq!(of("traced") + sum(&found["untraced"]), of("stated"), "{}: {found}", recording.name);
            stated.insert(path.clone(), (of("stated"), sum(&found["untraced"])));
            balanced += 1;
            with_remainder += usize::from(sum(&found["untraced"]) > 0);
        }
        // What `usage` says of a session is the same.
        for (path, (all, rest)) in stated.iter().filter(|_| sessions.len() == 1) {
            let output = home.ctl(&["usage", "--json", path.to_str().expect("UTF-8")]);
            let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
            let both = (sum(&found["total"]) + sum(&found["untraced"]), sum(&found["untraced"]));
            assert_eq!(both, (*all, *rest), "{}: {found}", recording.name);
        }
    }
    tests::say(&format!("{balanced} sessions balance, {with_remainder} of them with a remainder"));
    assert!(balanced >= 25 && with_remainder >= 3, "{balanced} {with_remainder}");
}
