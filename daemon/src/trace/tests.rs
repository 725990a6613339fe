use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    transcript::{
        lines::{Line, Lines},
        record,
    },
    turn::Assembler,
};

const MILLI: Nanos = 1_000_000;

/// `at` milliseconds past an hour of 2026.
fn nanos(at: u64) -> Nanos {
    1_772_359_200_000 * MILLI + at * MILLI
}

fn stamp(at: u64) -> String {
    format!("2026-03-01T10:{:02}:{:02}.{:03}Z", at / 60_000, at / 1000 % 60, at % 1000)
}

fn user(uuid: &str, at: u64, text: &str) -> Value {
    json!({"type": "user", "uuid": uuid, "timestamp": stamp(at), "message": {"role": "user", "content": text}})
}

fn answer(id: &str, at: u64, blocks: Value) -> Value {
    json!({"type": "assistant", "uuid": format!("{id}-{at}"), "timestamp": stamp(at), "requestRef": format!("req-{id}"),
        "message": {"id": id, "role": "assistant", "model": "claude-haiku-4-5", "content": blocks,
            "usage": {"input_tokens": 1, "output_tokens": at}}})
}

fn says(id: &str, at: u64, text: &str) -> Value {
    answer(id, at, json!([{"type": "text", "text": text}]))
}

fn calls(id: &str, at: u64, tools: &[&str]) -> Value {
    let blocks: Vec<_> = tools
        .iter()
        .map(|tool| json!({"type": "tool_use", "id": tool, "name": "Bash", "input": {"of": tool}}))
        .collect();
    answer(id, at, json!(blocks))
}

fn returns(tool: &str, at: u64) -> Value {
    json!({"type": "user", "timestamp": stamp(at),
        "message": {"content": [{"type": "tool_result", "tool_use_id": tool, "content": format!("of {tool}")}]}})
}

fn request(id: &str, at: u64) -> Value {
    json!({"type": "api-request", "id": format!("req-{id}"), "timestamp": stamp(at)})
}

/// `line` without its time.
fn untimed(mut line: Value) -> Value {
    line["timestamp"] = Value::Null;
    line
}

/// `line` with its type first, which is where Claude Code writes it.
fn written(line: &Value) -> String {
    let mut rest = line.clone();
    match rest.as_object_mut().and_then(|fields| fields.remove("type")) {
        Some(kind) => format!("{{\"type\":{kind},{}", &rest.to_string()[1..]),
        None => line.to_string(),
    }
}

fn file(lines: &[Value]) -> Vec<u8> {
    lines.iter().flat_map(|line| format!("{}\n", written(line)).into_bytes()).collect()
}

/// The one turn that `lines` tell, still open.
fn assembled(lines: &[Value]) -> Assembler {
    let mut assembler = Assembler::new("session-1", 0);
    for (line, offset) in lines.iter().zip(0..) {
        let record = record::parse(written(line).as_bytes()).unwrap();
        assert!(assembler.push(record, offset).is_none(), "one turn");
    }
    assembler
}

/// Name, start and end in milliseconds of every span of `lines`, told at their end.
fn times(lines: &[Value], semantics: Semantics, fired: Option<u64>) -> Vec<(String, u64, u64)> {
    let assembler = assembled(lines);
    let found = spans(assembler.open().unwrap(), Scope::Final, semantics, fired.map(nanos));
    let milli = |at: Nanos| at.saturating_sub(nanos(0)) / MILLI;
    found.iter().map(|span| (label(span), milli(span.start), milli(span.end))).collect()
}

fn label(span: &Span<'_>) -> String {
    match &span.body {
        Body::Turn { .. } | Body::Agent { .. } => span.name.clone(),
        Body::Generation { generation, .. } => generation.id.clone(),
        Body::Tool(tool) => tool.id.clone(),
    }
}

fn expected(spans: &[(&str, u64, u64)]) -> Vec<(String, u64, u64)> {
    spans.iter().map(|(name, start, end)| ((*name).to_owned(), *start, *end)).collect()
}

/// Two model calls; the first asks for three tools, of which the second is done before the first.
fn conversation() -> Vec<Value> {
    vec![
        user("p1", 1000, "do it"),
        request("a", 1200),
        says("a", 2000, "let me see"),
        calls("a", 2500, &["t1", "t2"]),
        calls("a", 2600, &["t3"]),
        returns("t2", 3000),
        returns("t1", 4000),
        returns("t3", 5000),
        request("b", 5100),
        says("b", 6000, "there"),
        says("b", 7000, "done"),
    ]
}

// ---- the tree ----

#[test]
fn a_turn_is_a_root_with_its_answers_below_and_their_tools_below_those() {
    let assembler = assembled(&conversation());
    let turn = assembler.open().unwrap();
    let found = spans(turn, Scope::Final, Semantics::Spec, None);
    let names: Vec<_> = found.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["Turn 1", "claude-haiku-4-5", "Bash", "Bash", "Bash", "claude-haiku-4-5"]);
    let id = |role, source| span_id(trace_id("p1"), role, source);
    let root = id(Role::Turn, "p1");
    let expect = [
        (root, None),
        (id(Role::Generation, "a"), Some(root)),
        (id(Role::Tool, "t1"), Some(id(Role::Generation, "a"))),
        (id(Role::Tool, "t2"), Some(id(Role::Generation, "a"))),
        (id(Role::Tool, "t3"), Some(id(Role::Generation, "a"))),
        (id(Role::Generation, "b"), Some(root)),
    ];
    assert_eq!(found.iter().map(|span| (span.span_id, span.parent)).collect::<Vec<_>>(), expect);
    assert!(found.iter().all(|span| span.trace_id == trace_id("p1")));
}

#[test]
fn the_users_words_stand_on_the_root_and_the_first_answer_only() {
    let assembler = assembled(&conversation());
    let found = spans(assembler.open().unwrap(), Scope::Final, Semantics::Spec, None);
    let inputs: Vec<_> = found
        .iter()
        .filter_map(|span| match &span.body {
            Body::Turn { input, .. } | Body::Agent { input, .. } => Some(Some(*input)),
            Body::Generation { input, .. } => Some(input.map(|prompt| prompt.text.as_str())),
            Body::Tool(_) => None,
        })
        .collect();
    assert_eq!(inputs, [Some("do it"), Some("do it"), None]);
    assert!(matches!(&found[0].body, Body::Turn { output, .. } if output == "there\ndone"));
}

#[test]
fn each_scope_tells_its_own_spans() {
    let lines = [
        user("p1", 1, "go"),
        calls("a", 2, &["t1"]),
        returns("t1", 3),
        calls("b", 4, &["t2"]),
        says("c", 5, "meanwhile"),
    ];
    let mut assembler = assembled(&lines);
    let turn = assembler.open_mut().unwrap();
    let told =
        |turn: &Turn, scope| -> Vec<String> { spans(turn, scope, Semantics::Spec, None).iter().map(label).collect() };
    assert_eq!(told(turn, Scope::Part), ["a", "t1"]);
    turn.mark_sent(Scope::Part);
    assert_eq!(told(turn, Scope::Settled), ["Turn 1", "b", "c"]);
    turn.mark_sent(Scope::Settled);
    assert_eq!(told(turn, Scope::Final), ["Turn 1", "t2"]);
}

// ---- times ----

#[test]
fn spec_times_follow_the_table_of_the_specification() {
    let expect = [
        ("Turn 1", 1000, 7000), // the prompt … the latest answer or result
        ("a", 2000, 6000),      // its first line … the next answer
        ("t1", 2000, 4000),     // its answer … its result
        ("t2", 4000, 4000),     // the tool before … its result, but not before its start
        ("t3", 4000, 5000),     // the tool before … its result
        ("b", 6000, 7000),      // its first line … the end of the turn
    ];
    assert_eq!(times(&conversation(), Semantics::Spec, None), expected(&expect));
}

#[test]
fn in_spec_the_last_answer_ends_when_the_hook_fired() {
    for (fired, end) in [(7500, 7500), (6500, 6500), (10, 6000)] {
        let found = times(&conversation(), Semantics::Spec, Some(fired));
        assert_eq!(found[5], ("b".into(), 6000, end), "fired at {fired}");
        assert_eq!(found[0], ("Turn 1".into(), 1000, 7000), "the turn has its own end");
        assert_eq!(found[1].2, 6000, "and so have earlier answers");
    }
}

#[test]
fn measured_times_are_what_happened() {
    let expect = [
        ("Turn 1", 1000, 7000),
        ("a", 1200, 2600), // its request … its last block
        ("t1", 2500, 4000),
        ("t2", 2500, 3000), // beside the other
        ("t3", 2600, 5000),
        ("b", 5100, 7000),
    ];
    for fired in [None, Some(7500)] {
        assert_eq!(times(&conversation(), Semantics::Measured, fired), expected(&expect));
    }
}

#[test]
fn measured_without_requests_starts_at_the_line_before() {
    let lines = [user("p1", 1000, "go"), calls("a", 2000, &["t1"]), returns("t1", 4000), says("b", 5000, "done")];
    let expect = [("Turn 1", 1000, 5000), ("a", 1000, 2000), ("t1", 2000, 4000), ("b", 4000, 5000)];
    assert_eq!(times(&lines, Semantics::Measured, None), expected(&expect));
}

#[test]
fn only_measured_says_when_the_first_block_was_there() {
    let assembler = assembled(&conversation());
    for (semantics, expect) in
        [(Semantics::Spec, [None, None]), (Semantics::Measured, [Some(nanos(2000)), Some(nanos(6000))])]
    {
        let found = spans(assembler.open().unwrap(), Scope::Final, semantics, None);
        let starts = found.iter().filter_map(|span| match &span.body {
            Body::Generation { completion_start, .. } => Some(*completion_start),
            _ => None,
        });
        assert_eq!(starts.collect::<Vec<_>>(), expect);
    }
}

#[test]
fn a_missing_time_is_the_nearest_known_one_and_marked_so() {
    let marked = |lines: &[Value], fired: Option<u64>| -> Vec<(String, u64, u64, bool)> {
        let assembler = assembled(lines);
        let found = spans(assembler.open().unwrap(), Scope::Final, Semantics::Spec, fired.map(nanos));
        let estimated: Vec<_> = found.iter().map(|span| span.estimated).collect();
        let times = times(lines, Semantics::Spec, fired);
        times.into_iter().zip(estimated).map(|((name, start, end), estimated)| (name, start, end, estimated)).collect()
    };
    let of = |spans: &[(&str, u64, u64, bool)]| -> Vec<(String, u64, u64, bool)> {
        spans.iter().map(|(name, start, end, guess)| ((*name).to_owned(), *start, *end, *guess)).collect()
    };
    let (p, a, t, b) =
        (user("p1", 1000, "go"), calls("a", 2000, &["t1"]), returns("t1", 3000), says("b", 4000, "done"));
    let all = [p.clone(), a.clone(), t.clone(), b.clone()];
    for (lines, expect) in [
        (
            all.to_vec(),
            [
                ("Turn 1", 1000, 4000, false),
                ("a", 2000, 4000, false),
                ("t1", 2000, 3000, false),
                ("b", 4000, 4000, false),
            ],
        ),
        (
            vec![untimed(p.clone()), a.clone(), t.clone(), b.clone()],
            [
                ("Turn 1", 2000, 4000, true),
                ("a", 2000, 4000, false),
                ("t1", 2000, 3000, false),
                ("b", 4000, 4000, false),
            ],
        ),
        (
            vec![p.clone(), untimed(a.clone()), t.clone(), b.clone()],
            [
                ("Turn 1", 1000, 4000, false),
                ("a", 1000, 4000, true),
                ("t1", 1000, 3000, false),
                ("b", 4000, 4000, false),
            ],
        ),
        (
            vec![p.clone(), a.clone(), untimed(t.clone()), b.clone()],
            [
                ("Turn 1", 1000, 4000, false),
                ("a", 2000, 4000, false),
                ("t1", 2000, 4000, true),
                ("b", 4000, 4000, false),
            ],
        ),
        (
            vec![p.clone(), a.clone(), t.clone(), untimed(b.clone())],
            [
                ("Turn 1", 1000, 3000, false),
                ("a", 2000, 3000, false),
                ("t1", 2000, 3000, false),
                ("b", 3000, 3000, true),
            ],
        ),
    ] {
        assert_eq!(marked(&lines, None), of(&expect), "{lines:?}");
    }
    let none = all.map(untimed);
    let expect =
        [("Turn 1", 9000, 9000, true), ("a", 9000, 9000, true), ("t1", 9000, 9000, true), ("b", 9000, 9000, true)];
    assert_eq!(marked(&none, Some(9000)), of(&expect), "the hook is all that is known");
}

#[test]
fn no_time_at_all_is_still_a_time() {
    let lines = [user("p1", 0, "go"), calls("a", 0, &["t1"]), returns("t1", 0)].map(untimed);
    let assembler = assembled(&lines);
    for semantics in [Semantics::Spec, Semantics::Measured] {
        for span in spans(assembler.open().unwrap(), Scope::Final, semantics, None) {
            assert_eq!((span.start, span.end, span.estimated), (1, 1, true), "OTLP takes 0 for none");
        }
    }
}

#[test]
fn a_clock_that_went_back_makes_no_span_end_before_its_start() {
    let lines = [
        user("p1", 9000, "go"),
        request("a", 8000),
        calls("a", 7000, &["t1", "t2"]),
        returns("t1", 3000),
        says("b", 5000, "done"),
        says("b", 1000, "and gone"),
    ];
    let expect = [("Turn 1", 9000, 9000), ("a", 7000, 7000), ("t1", 7000, 7000), ("t2", 7000, 9000), ("b", 5000, 9000)];
    assert_eq!(times(&lines, Semantics::Spec, None), expected(&expect));
    let expect = [("Turn 1", 9000, 9000), ("a", 7000, 7000), ("t1", 7000, 7000), ("t2", 7000, 9000), ("b", 5000, 5000)];
    assert_eq!(times(&lines, Semantics::Measured, Some(10)), expected(&expect));
}

// ---- how it went ----

fn levels(lines: &[Value]) -> Vec<(String, Level, Option<String>)> {
    let assembler = assembled(lines);
    let found = spans(assembler.open().unwrap(), Scope::Final, Semantics::Spec, None);
    found.iter().map(|span| (label(span), span.level, span.status.clone())).collect()
}

#[test]
fn a_tool_that_failed_is_an_error_and_one_that_never_returned_a_warning() {
    let mut bad = returns("t1", 3);
    bad["message"]["content"][0]["is_error"] = json!(true);
    let found = levels(&[user("p1", 1, "go"), calls("a", 2, &["t1", "t2", "t3"]), bad, returns("t2", 4)]);
    let expect = [
        ("Turn 1", Level::Default, None),
        ("a", Level::Default, None),
        ("t1", Level::Error, Some("of t1")),
        ("t2", Level::Default, None),
        ("t3", Level::Warning, Some("no result")),
    ];
    assert_eq!(found, expect.map(|(name, level, status)| (name.to_owned(), level, status.map(str::to_owned))));
}

#[test]
fn an_error_in_place_of_the_answer_is_the_roots() {
    let error = json!({"type": "assistant", "isApiErrorMessage": true, "timestamp": stamp(3),
        "message": {"model": "<synthetic>", "content": [{"type": "text", "text": "API Error: 529"}]}});
    let found = levels(&[user("p1", 1, "go"), says("a", 2, "x"), error.clone()]);
    let expect = [
        ("Turn 1".to_owned(), Level::Error, Some("API Error: 529".to_owned())),
        ("a".to_owned(), Level::Default, None),
    ];
    assert_eq!(found, expect);
    assert_eq!(levels(&[user("p1", 1, "go"), error, says("a", 4, "back")])[0].1, Level::Default);
}

#[test]
fn an_interrupt_is_a_warning_on_the_root_and_on_an_answer_cut_short() {
    let stop = user("i", 9, "[Request interrupted by user]");
    let mut complete = says("a", 2, "x");
    complete["message"]["stop_reason"] = json!("tool_use");
    let why = Some("interrupted by the user".to_owned());
    for (answers, expect) in [
        (vec![says("a", 2, "I was ab")], vec![Level::Warning, Level::Warning]),
        (vec![complete.clone()], vec![Level::Warning, Level::Default]),
        (vec![says("a", 2, "x"), says("b", 3, "I was ab")], vec![Level::Warning, Level::Default, Level::Warning]),
        (vec![], vec![Level::Warning]),
    ] {
        let found = levels(&[vec![user("p1", 1, "go")], answers, vec![stop.clone()]].concat());
        assert_eq!(found.iter().map(|(_, level, _)| *level).collect::<Vec<_>>(), expect);
        for (_, level, status) in found {
            assert_eq!(status, if level == Level::Warning { why.clone() } else { None });
        }
    }
}

#[test]
fn what_happened_meanwhile_becomes_events_of_the_root() {
    let lines = [
        user("p1", 1, "go"),
        json!({"type": "system", "subtype": "api_error", "timestamp": stamp(2), "retryAttempt": 3}),
        json!({"type": "attachment", "timestamp": stamp(3), "attachment": {"type": "queued_command", "prompt": "also"}}),
        json!({"type": "system", "subtype": "compact_boundary", "compactMetadata": {"trigger": "auto", "preTokens": 900, "postTokens": 80}}),
        says("a", 4, "x"),
    ];
    let assembler = assembled(&lines);
    let found = spans(assembler.open().unwrap(), Scope::Final, Semantics::Spec, None);
    let Body::Turn { events, .. } = &found[0].body else { panic!("the root comes first") };
    let event = |name: &str, at, attributes: &[(&str, &str)]| Event {
        name: name.into(),
        at: nanos(at),
        attributes: attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
    };
    let expect = [
        event("API retry", 2, &[("attempt", "3")]),
        event("queued prompt", 3, &[("text", "also")]),
        event("compaction", 1, &[("trigger", "auto"), ("tokens_before", "900"), ("tokens_after", "80")]),
    ];
    assert_eq!(events[..], expect, "a time that is missing is the turn's start");
}

#[test]
fn the_start_of_a_tool_does_not_depend_on_when_it_is_told() {
    let mut assembler = assembled(&[
        user("p1", 0, "go"),
        calls("a", 1000, &["t1", "t2"]),
        returns("t2", 2000),
        says("b", 9000, "meanwhile"),
    ]);
    let start = |assembler: &Assembler| {
        let found = spans(assembler.open().unwrap(), Scope::Settled, Semantics::Spec, None);
        found.iter().find(|span| label(span) == "t2").map(|span| span.start)
    };
    let before = start(&assembler);
    assembler.push(record::parse(returns("t1", 10_000).to_string().as_bytes()).unwrap(), 900);
    assert_eq!((before, start(&assembler)), (None, Some(nanos(10_000))), "told once the tool before it is back");
}

// ---- however it is read ----

/// What is compared of a span: everything that must not depend on how the transcript was read.
type Seen = (String, String, Option<String>, String, Nanos, Nanos, Level);

fn seen(turn: &Turn) -> impl Iterator<Item = Seen> {
    let found = spans(turn, Scope::Final, Semantics::Measured, None);
    let seen: Vec<_> = found
        .iter()
        .map(|span| {
            let hex = crate::ids::hex;
            let ids = (hex(&span.trace_id), hex(&span.span_id), span.parent.map(|id| hex(&id)));
            (ids.0, ids.1, ids.2, span.name.clone(), span.start, span.end, span.level)
        })
        .collect();
    seen.into_iter()
}

/// Reads `bytes` from the start, in pieces that end at `cuts`; behind the lines numbered in `restarts` everything is
/// forgotten and reading starts again where the assembler says. Returns the spans in the order of their ids.
fn read(bytes: &[u8], cuts: &[usize], restarts: &[usize]) -> Vec<Seen> {
    let mut all = Vec::new();
    let (mut offset, mut before) = (0, 0);
    let mut ends: Vec<usize> = memchr::memchr_iter(b'\n', bytes).map(|at| at + 1).collect();
    ends = restarts.iter().map(|restart| ends[restart % ends.len()]).collect();
    ends.sort_unstable();
    ends.push(bytes.len());
    for (run, until) in ends.iter().enumerate() {
        let mut lines = Lines::at(offset);
        let mut assembler = Assembler::new("session-1", before);
        let mut at = offset as usize;
        let mut pieces: Vec<usize> =
            cuts.iter().map(|cut| cut % bytes.len()).filter(|cut| (at..*until).contains(cut)).collect();
        pieces.sort_unstable();
        pieces.push(*until);
        for end in pieces {
            lines.feed(&bytes[at..end], |offset, line| {
                if let Line::Whole(line) = line
                    && let Ok(record) = record::parse(line)
                    && let Some(turn) = assembler.push(record, offset)
                {
                    all.extend(seen(&turn));
                }
            });
            at = end;
        }
        if run + 1 == ends.len() {
            all.extend(assembler.open().into_iter().flat_map(seen));
        }
        (offset, before) = assembler.resume().unwrap_or((lines.consumed(), assembler.closed()));
    }
    all.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    all
}

/// One thing that happens in a session; `n` numbers it.
#[derive(Clone, Copy, Debug)]
enum Step {
    Prompt,
    Anonymous,
    Meta,
    Local,
    Shown,
    Asks,
    Says,
    Calls,
    Returns,
    Interleaves,
    Interrupted,
    Fails,
    Notes,
    Garbage,
}

fn transcript(steps: &[Step]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (mut message, mut tools, mut asked) = (0, Vec::new(), false);
    for (step, n) in steps.iter().zip(1u64..) {
        let at = n * 700;
        let current = format!("m{message}");
        let mut new = || {
            message += 1;
            format!("m{message}")
        };
        // The lines of an answer are never split by a prompt, nor is its request: ids start afresh with each.
        if matches!(step, Step::Prompt | Step::Anonymous | Step::Local) {
            new();
            new();
            asked = true;
        }
        let text = format!("words {n} \u{1f600}\u{2028}");
        let line = match step {
            Step::Prompt => user(&format!("p{n}"), at, &text),
            Step::Anonymous => {
                let mut line = user("", at, &text);
                line["uuid"] = Value::Null;
                line
            }
            Step::Meta => {
                let mut line = user(&format!("p{n}"), at, &text);
                line["isMeta"] = json!(true);
                line
            }
            Step::Local => user(&format!("p{n}"), at, "<command-name>/cost</command-name>"),
            Step::Shown => user(&format!("p{n}"), at, "<local-command-stdout>0</local-command-stdout>"),
            Step::Asks => request(&format!("m{}", message + 1), at),
            Step::Says => says(&if n % 2 == 0 && asked { current } else { new() }, at, &text),
            Step::Calls => {
                tools.push(format!("t{n}"));
                calls(&new(), at, &[&format!("t{n}"), &format!("s{n}")])
            }
            Step::Returns => returns(&tools.pop().unwrap_or_default(), at),
            Step::Interleaves => {
                let (a, b) = (new(), new());
                bytes.extend_from_slice(&file(&[says(&a, at, "a1"), says(&b, at + 1, "b1")]));
                says(&a, at + 2, "a2")
            }
            Step::Interrupted => user(&format!("p{n}"), at, "[Request interrupted by user]"),
            Step::Fails => json!({"type": "assistant", "isApiErrorMessage": true, "timestamp": stamp(at),
                "message": {"model": "<synthetic>", "content": [{"type": "text", "text": "API Error"}]}}),
            Step::Notes => json!({"type": "system", "subtype": "api_error", "timestamp": stamp(at)}),
            Step::Garbage => json!("x"),
        };
        bytes.extend_from_slice(&file(&[line]));
        if matches!(step, Step::Garbage) {
            bytes.extend_from_slice(b"{\"type\":\"user\",\xff\n\n");
        }
    }
    bytes
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    use Step::*;
    let step = proptest::sample::select(vec![
        Prompt,
        Prompt,
        Prompt,
        Anonymous,
        Meta,
        Local,
        Shown,
        Asks,
        Says,
        Says,
        Says,
        Calls,
        Calls,
        Returns,
        Returns,
        Interleaves,
        Interrupted,
        Fails,
        Notes,
        Garbage,
    ]);
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #[test]
    fn the_spans_do_not_depend_on_pieces_or_restarts(
        steps in steps(),
        cuts in proptest::collection::vec(any::<usize>(), 0..12),
        restarts in proptest::collection::vec(any::<usize>(), 0..6),
    ) {
        let bytes = transcript(&steps);
        let whole = read(&bytes, &[], &[]);
        prop_assert_eq!(&read(&bytes, &cuts, &[]), &whole);
        prop_assert_eq!(&read(&bytes, &cuts, &restarts), &whole);
        let mut ids: Vec<_> = whole.iter().map(|span| (&span.0, &span.1)).collect();
        ids.dedup();
        prop_assert_eq!(ids.len(), whole.len(), "every id is there once");
    }

    #[test]
    fn a_turn_told_in_parts_tells_every_span_and_no_answer_or_tool_twice(
        steps in steps(),
        told in proptest::collection::vec((any::<usize>(), any::<bool>()), 0..8),
    ) {
        let bytes = transcript(&steps);
        let mut parts = Vec::new();
        let mut lines = Lines::at(0);
        let mut assembler = Assembler::new("session-1", 0);
        let mut number = 0;
        let count = memchr::memchr_iter(b'\n', &bytes).count();
        let tell = |turn: &Turn, scope, parts: &mut Vec<_>| {
            let found = spans(turn, scope, Semantics::Measured, None);
            parts.extend(found.iter().map(|span| (span.parent.is_none(), span.trace_id, span.span_id)));
        };
        lines.feed(&bytes, |offset, line| {
            let Line::Whole(line) = line else { return };
            if let Ok(record) = record::parse(line)
                && let Some(turn) = assembler.push(record, offset)
                && turn.has_news(Scope::Final)
            {
                tell(&turn, Scope::Final, &mut parts);
            }
            for (_, settled) in told.iter().filter(|(when, _)| when % count == number) {
                let scope = if *settled { Scope::Settled } else { Scope::Part };
                if let Some(turn) = assembler.open_mut().filter(|turn| turn.has_news(scope)) {
                    tell(turn, scope, &mut parts);
                    turn.mark_sent(scope);
                }
            }
            number += 1;
        });
        if let Some(turn) = assembler.open().filter(|turn| turn.has_news(Scope::Final)) {
            tell(turn, Scope::Final, &mut parts);
        }
        let mut children: Vec<_> = parts.iter().filter(|(root, ..)| !root).collect();
        let all = children.len();
        children.sort_unstable();
        children.dedup();
        prop_assert_eq!(children.len(), all, "no answer or tool is told twice");
        let ids: std::collections::BTreeSet<_> =
            parts.iter().map(|(_, trace, span)| (crate::ids::hex(trace), crate::ids::hex(span))).collect();
        let whole: std::collections::BTreeSet<_> =
            read(&bytes, &[], &[]).into_iter().map(|span| (span.0, span.1)).collect();
        prop_assert_eq!(ids, whole);
    }

    #[test]
    fn no_span_ends_before_it_starts_or_at_no_time(
        stamps in proptest::collection::vec(proptest::option::of(0u64..9_000), 6),
        fired in proptest::option::of(0u64..9_000),
    ) {
        let lines = [
            user("p1", stamps[0].unwrap_or(0), "go"),
            calls("a", stamps[1].unwrap_or(0), &["t1", "t2", "t3"]),
            returns("t2", stamps[2].unwrap_or(0)),
            says("a", stamps[3].unwrap_or(0), "more"),
            returns("t1", stamps[4].unwrap_or(0)),
            says("b", stamps[5].unwrap_or(0), "done"),
        ];
        let lines: Vec<_> =
            lines.into_iter().zip(&stamps).map(|(line, at)| if at.is_none() { untimed(line) } else { line }).collect();
        let assembler = assembled(&lines);
        for semantics in [Semantics::Spec, Semantics::Measured] {
            for span in spans(assembler.open().unwrap(), Scope::Final, semantics, fired.map(nanos)) {
                prop_assert!(span.start > 0 && span.end >= span.start, "{}: {} … {}", label(&span), span.start, span.end);
            }
        }
    }
}
