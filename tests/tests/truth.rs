//! The output of `show` and `reconcile` for recorded sessions, offline.

use std::path::Path;

use serde_json::{Value, json};
use tests::{Home, Story, recording::Recording};

fn run(home: &Home, args: &[&str]) -> (Option<i32>, String) {
    let output = home.ctl(args);
    (output.status.code(), String::from_utf8(output.stdout).expect("text"))
}

/// The output of `show` for the only session of a recording.
fn shown(name: &str) -> String {
    let sessions = Recording::load(name).sessions();
    let [path] = &sessions[..] else { panic!("{name} has {} sessions", sessions.len()) };
    let (code, report) = run(&Home::new(), &["show", path.to_str().expect("UTF-8")]);
    assert_eq!(code, Some(0), "{report}");
    report
}

#[test]
fn show_has_a_subagents_work_below_the_call_that_launched_it() {
    assert_eq!(
        shown("subagent_err"),
        "\
Turn 1 909 ms please do SCN:subagent_err
├── claude-sonnet-4-5-20250929 40 ms  in 101 · out 201 · cache read 4001 · cache write 301
│   └── Agent 675 ms  {\"description\":\"Failing\",\"prompt\":\"fail SCN:sub_err\",\"subage…  ERROR Agent terminated early due to an API error: API Error: 400 m…
│       └── general-purpose 619 ms  Failing  ERROR API Error: 400 mock bad request in subagent
│           └── claude-sonnet-4-5-20250929 35 ms  in 102 · out 202 · cache read 4002 · cache write 302
│               └── Bash 80 ms  {\"command\":\"echo x\",\"description\":\"x\"}
└── claude-sonnet-4-5-20250929 25 ms  in 109 · out 209 · cache read 4009 · cache write 309
   The subagent failed.
"
    );
    let background = shown("subagent_bg");
    assert!(background.contains("\nTurn 2 67 ms Agent \"Slow bg\" finished\n"), "{background}");
}

#[test]
fn show_has_the_events_of_a_turn_in_their_place() {
    assert_eq!(
        shown("err529"),
        "\
Turn 1 1.8 s SCN:err529  ERROR API Error: 529 Overloaded. This is a server-side issue, usua…
├─• API retry  status 529 · attempt 1
└─• API retry  status 529 · attempt 2
   API Error: 529 Overloaded. This is a server-side issue, usually temporary — …
"
    );
    assert_eq!(
        shown("i_queue"),
        "\
Turn 1 6.4 s start SCN:slowtool
├── claude-sonnet-4-5-20250929 48 ms  in 101 · out 201 · cache read 4001 · cache write 301
│   └── Bash 6.1 s  {\"command\":\"sleep 6; echo slow-done\",\"description\":\"Sleep\"}
├─• queued prompt  queued prompt while busy
└── claude-sonnet-4-5-20250929 19 ms  in 102 · out 202 · cache read 4002 · cache write 302
   Slow tool finished.
"
    );
    let compacted = shown("compact");
    assert!(
        compacted.contains("└─• compaction  trigger manual · tokens before 4608 · tokens after 2683\n"),
        "{compacted}"
    );
    let blocked = shown("stopblock");
    assert!(blocked.contains("├─• hook feedback  [/opt/mock/blockonce.sh]: keep going please\n"), "{blocked}");
}

fn reconciled(home: &Home, path: &Path) -> (Option<i32>, Value) {
    let (code, report) = run(home, &["reconcile", path.to_str().expect("UTF-8"), "--json"]);
    (code, serde_json::from_str(&report).expect("JSON"))
}

fn sum(tokens: &Value) -> u64 {
    tokens.as_object().expect("tokens").values().map(|count| count.as_u64().expect("a count")).sum()
}

#[test]
fn traced_tokens_equal_claude_codes_totals_except_for_calls_without_a_line() {
    let home = Home::new();
    let (mut equal, mut less, mut silent) = (0, 0, 0);
    for recording in Recording::all() {
        let truth = recording.truth();
        let is_all_seen = truth.unseen.is_empty() && truth.cut.is_empty();
        for path in recording.sessions() {
            let (code, report) = reconciled(&home, &path);
            assert_eq!(code, Some(0), "{}: {report}", recording.name);
            if report["stated"].is_null() {
                assert_ne!(truth.version, "2.1.329", "{} has totals", recording.name);
                silent += 1;
                continue;
            }
            let mut unseen = 0;
            for row in report["models"].as_array().expect("a list") {
                assert_eq!(sum(&row["excess"]), 0, "{}: {row}", recording.name);
                assert_eq!(sum(&row["traced"]) + sum(&row["unseen"]), sum(&row["stated"]), "{}: {row}", recording.name);
                unseen += sum(&row["unseen"]);
            }
            // A whole model may be missing: another one decides what may run in auto mode.
            assert_eq!(unseen == 0, is_all_seen, "{}: {report}", recording.name);
            equal += usize::from(is_all_seen);
            less += usize::from(!is_all_seen);
        }
    }
    tests::say(&format!(
        "traced and counted are equal in {equal} sessions, less is traced in {less}, {silent} have no totals"
    ));
    assert!(equal >= 25 && less >= 3 && silent >= 8, "{equal} {less} {silent}");
}

#[test]
fn reconcile_reports_differences_and_their_causes() {
    let (home, path) = (Home::new(), Recording::load("compact").sessions().remove(0));
    let (code, report) = run(&home, &["reconcile", path.to_str().expect("UTF-8")]);
    assert_eq!(
        (code, report.as_str()),
        (
            Some(0),
            "\
claude-sonnet-4-5-20250929             input      output  cache read    write 5m    write 1h
  traced                                 307         607       12007         307         600
  Claude Code says                       410         810       16010         410         800
  in no line                             103         203        4003         103         200
3 calls traced; Claude Code says they cost $0.0245.
203 output tokens of claude-sonnet-4-5-20250929 are in no line of a transcript: compactions, titles, web searches, answers \
without content or cut short (Claude Code writes no line for these, or not their tokens).
In this session: 1 compaction.
4612 tokens of this session are untraced, $0.0061: the event `untraced calls` below its last turn lists them.
"
        )
    );
}

#[test]
fn reconcile_reports_excess_tokens_and_ignores_later_calls() {
    let home = Home::new();
    let mut story = Story::new(&home, "project", "s");
    let totals = |calls: u64, output: u64| {
        let usage = json!({"inputTokens": 10 * calls, "outputTokens": output, "cacheReadInputTokens": 7 * calls});
        let models = json!({"claude-sonnet-4-5-20250929": usage});
        json!({"type": "cost-state", "sessionId": "s", "totalCostUSD": 0.25, "modelUsage": models}).to_string()
    };
    story.turn("one", "first").turn("two", "second").raw(totals(2, 3).as_bytes()).turn("three", "third");
    let path = story.path.clone();
    let (code, found) = reconciled(&home, &path);
    let traced = &found["traced"];
    assert_eq!((code, &traced["calls"], &traced["later"]), (Some(0), &json!(2), &json!(1)), "{found}");
    assert_eq!(sum(&found["models"][0]["unseen"]), 0);

    story.raw(totals(3, 5).as_bytes());
    let (code, found) = reconciled(&home, &path);
    assert_eq!((code, &found["exceeds"], &found["models"][0]["excess"]["output"]), (Some(1), &json!(true), &json!(1)));
    let (code, said) = run(&home, &["reconcile", path.to_str().expect("UTF-8")]);
    assert!(code == Some(1) && said.contains("More is traced than Claude Code counted"), "{said}");
    assert_eq!(run(&home, &["reconcile", "unheard-of"]).0, Some(1));
}
