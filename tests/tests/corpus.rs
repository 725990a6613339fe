//! Recorded sessions arrive complete, exact and once, whatever is killed or down meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
};

use serde_json::Value;
use tests::{
    Span,
    recording::{Mode, Recording, THE_TURN, Tokens, Truth},
};

/// How many recordings are played in parallel.
const AT_ONCE: usize = 6;

#[test]
fn recorded_sessions_arrive_completely_and_once_if_the_daemon_starts_at_the_end() {
    play_all(Mode::Away);
}

const BEGIN: &str = "<!-- captured:begin -->";
const END: &str = "<!-- captured:end -->";

#[test]
fn recorded_sessions_arrive_completely_and_once() {
    // docs/coverage.md has the table.
    let captured = captured(&play_all(Mode::Plain));
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/coverage.md");
    let page = std::fs::read_to_string(&path).expect("the page");
    let (before, rest) = page.split_once(BEGIN).expect("the beginning of the table");
    let (block, after) = rest.split_once(END).expect("its end");
    if std::env::var_os("CC_LANGFUSE_UPDATE").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}\n{}\n{END}{after}", captured.trim())).expect("written");
    } else {
        assert!(
            block.trim() == captured.trim(),
            "{} should say, between {BEGIN} and {END}:\n\n{captured}",
            path.display()
        );
    }
}

#[test]
fn recorded_sessions_arrive_completely_and_once_if_the_daemon_is_killed_after_every_hook() {
    play_all(Mode::Restart);
}

#[test]
fn recorded_sessions_arrive_completely_and_once_if_the_server_is_down_until_the_end() {
    play_all(Mode::Outage);
}

/// A table of what was captured in `played`, by version of Claude Code.
fn captured(played: &[(Truth, Vec<Span>)]) -> String {
    use std::fmt::Write;
    let mut versions: BTreeMap<Vec<u32>, Vec<&(Truth, Vec<Span>)>> = BTreeMap::new();
    for recording in played {
        let version = recording.0.version.split('.').map(|part| part.parse().expect("a number")).collect();
        versions.entry(version).or_default().push(recording);
    }
    let mut table = String::from(
        "| Claude Code | turns | model calls | with exact tokens | tools | subagents | calls copied to other sessions |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for recordings in versions.values() {
        let count = |is_so: fn(&Span) -> bool| {
            let spans = recordings.iter().flat_map(|(_, spans)| spans).filter(|span| is_so(span));
            spans.map(|span| (&span.trace_id, &span.span_id)).collect::<BTreeSet<_>>().len()
        };
        let some = |count: usize| if count == 0 { "–".to_owned() } else { count.to_string() };
        let made = || recordings.iter().flat_map(|(truth, _)| truth.calls.values());
        let (calls, exact) = (made().count(), made().filter(|call| !call.is_placeholder).count());
        let _ = writeln!(
            table,
            "| {} | {} | {calls} | {exact} of {calls} | {} | {} | {} |",
            recordings[0].0.version,
            some(count(Span::is_root)),
            some(count(|span| span.observation("type") == "tool")),
            some(count(|span| span.observation("type") == "agent" && !span.is_root())),
            some(recordings.iter().map(|(truth, _)| truth.copied.len()).sum()),
        );
    }
    table
}

fn play_all(mode: Mode) -> Vec<(Truth, Vec<Span>)> {
    let recordings = Recording::all();
    assert!(recordings.len() >= 50, "the recordings are there");
    let next = Mutex::new(recordings.iter());
    let (played, wrong) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(recording) = next.lock().unwrap().next() else { return };
                    let (truth, mut spans) = (recording.truth(), recording.play(mode));
                    let mut found = judge(&truth, &spans, mode);
                    // Recordings are dated in the past: the time of a late end, after a kill, does not show that it
                    // belongs to an earlier turn. That is printed, and must not happen twice.
                    if matches!(mode, Mode::Restart) && !found.is_empty() {
                        tests::say(&format!("{}: played again, because of {}", recording.name, found.join("; ")));
                        spans = recording.play(mode);
                        found = judge(&truth, &spans, mode);
                    }
                    if recording.name != "rewind" && spans.iter().any(|span| span.name == "left behind") {
                        found.push("nobody went back".to_owned());
                    }
                    wrong.lock().unwrap().extend(found.into_iter().map(|what| format!("{}: {what}", recording.name)));
                    played.lock().unwrap().push((truth, spans));
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{mode:?}:\n{}", wrong.join("\n"));
    played.into_inner().unwrap()
}

/// What is wrong with `spans`.
fn judge(truth: &Truth, spans: &[Span], mode: Mode) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut by_id: BTreeMap<(&str, &str), &Span> = BTreeMap::new();
    for span in spans {
        let Some(before) = by_id.insert((&span.trace_id, &span.span_id), span) else { continue };
        if span.is_root() {
            // Roots are sent again when the turn has grown.
            if mode == Mode::Plain && !truth.grows {
                wrong.push(format!("{} was sent before it was complete", span.name));
            }
            if span.start != before.start {
                wrong.push(format!("{} started at {} and at {}", span.name, before.start, span.start));
            }
        } else if mode != Mode::Restart {
            wrong.push(format!("{} was sent twice", span.name));
        } else if before != span {
            // A daemon that was killed between the server's answer and recording it sends the same again.
            wrong.push(format!("{} was sent twice, and not the same", span.name));
        }
    }
    let above = |span: &Span| by_id.get(&(&*span.trace_id, &*span.parent)).copied();
    let traces: BTreeSet<&str> = by_id.keys().map(|(trace, _)| *trace).collect();
    for trace in traces {
        let of = || by_id.iter().filter(|((of, _), _)| *of == trace).map(|(_, span)| span);
        let roots = of().filter(|span| span.is_root()).count();
        if roots != 1 {
            wrong.push(format!("trace {trace} has {roots} roots"));
        }
        if !of().any(|span| span.is_generation() || !span.observation("level").is_empty()) {
            wrong.push(format!("nothing happens in trace {trace}"));
        }
    }
    for span in by_id.values() {
        if !span.is_root() && above(span).is_none() {
            wrong.push(format!("the parent of {} never arrived", span.name));
        }
        if span.start == 0 || span.end < span.start {
            wrong.push(format!("{} runs from {} to {}", span.name, span.start, span.end));
        }
        if span.get("session.id").is_empty() {
            wrong.push(format!("{} has no session", span.name));
        }
        if !span.is_generation() && !span.observation("usage_details").is_empty() {
            wrong.push(format!("{} is no call, and has tokens", span.name));
        }
    }

    // The tool call above it, if it belongs to a subagent.
    let place = |span: &Span| match above(span) {
        Some(root) if root.is_root() => Ok(None),
        Some(agent) if agent.observation("type") == "agent" => match above(agent) {
            Some(tool) if tool.observation("type") == "tool" => {
                Ok(Some(tool.observation("metadata.tool_id").to_owned()))
            }
            Some(root) if root.is_root() => Ok(Some(THE_TURN.to_owned())),
            other => Err(format!("the subagent is below {:?}", other.map(|span| &span.name))),
        },
        other => Err(format!("it is below {:?}", other.map(|span| &span.name))),
    };
    let mut calls: BTreeMap<&str, Vec<&Span>> = BTreeMap::new();
    for span in by_id.values().filter(|span| span.is_generation()) {
        calls.entry(span.observation("metadata.message_id")).or_default().push(span);
    }
    for (id, call) in &truth.calls {
        let spans = calls.remove(id.as_str()).unwrap_or_default();
        let [span] = spans[..] else {
            wrong.push(format!("call {id} should be there once, not {} times", spans.len()));
            continue;
        };
        if tokens(span) != call.tokens {
            wrong.push(format!("call {id} should have {:?} tokens, not {:?}", call.tokens, tokens(span)));
        }
        if place(span).as_ref() != Ok(&call.below) {
            wrong.push(format!("call {id} should be below {:?}: {:?}", call.below, place(span)));
        }
        if call.session.as_ref().is_some_and(|session| span.get("session.id") != session) {
            wrong.push(format!("call {id} was made in {:?}, not {}", call.session, span.get("session.id")));
        }
        let origin = span.get("langfuse.trace.metadata.forked_from");
        if call.session.is_some() && origin != call.forked_from.as_deref().unwrap_or_default() {
            wrong.push(format!("call {id} is of a fork of {:?}, not {origin:?}", call.forked_from));
        }
    }
    calls.retain(|id, got| !(got.len() == 1 && truth.cut.iter().any(|cut| cut == id)));
    if !calls.is_empty() {
        wrong.push(format!("calls nobody made: {:?}", calls.keys()));
    }

    let mut tools: BTreeMap<&str, Vec<&Span>> = BTreeMap::new();
    for span in by_id.values().filter(|span| span.observation("type") == "tool") {
        tools.entry(span.observation("metadata.tool_id")).or_default().push(span);
    }
    for (id, tool) in &truth.tools {
        let spans = tools.remove(id.as_str()).unwrap_or_default();
        let [span] = spans[..] else {
            wrong.push(format!("tool {id} should be there once, not {} times", spans.len()));
            continue;
        };
        if (span.observation("level") == "ERROR") != tool.failed {
            wrong.push(format!("tool {id} (failed: {}) has level {:?}", tool.failed, span.observation("level")));
        }
        if above(span).is_none_or(|call| call.observation("metadata.message_id") != tool.message) {
            wrong.push(format!("tool {id} should be below call {}", tool.message));
        }
    }
    if !tools.is_empty() {
        wrong.push(format!("tools nobody called: {:?}", tools.keys()));
    }

    // Only requests that Claude Code makes for itself leave no line: summaries, titles, quota checks.
    let own = |purpose: &&String| purpose.starts_with("aux") || *purpose == "compaction summary";
    for purpose in truth.unseen.iter().filter(|purpose| !own(purpose)) {
        wrong.push(format!("a call that leaves no line: {purpose}"));
    }
    for call in truth.calls.values().filter(|call| call.is_placeholder) {
        // Up to 2.1.94 a slow answer's final count is never written.
        if !truth.keeps_placeholders() {
            wrong.push(format!("the tokens of {call:?} are in no line"));
        }
    }

    for answer in &truth.last_answers {
        let is_error = answer.starts_with("API Error");
        let said = |span: &&&Span| span.content("output").trim() == answer.trim();
        if !is_error && !by_id.values().filter(said).any(|span| span.is_generation()) {
            wrong.push(format!("{answer:?} is in no generation"));
        }
        if !by_id.values().filter(said).any(|span| span.is_root()) {
            wrong.push(format!("{answer:?} is no turn's output"));
        }
    }
    wrong
}

fn tokens(span: &Span) -> Tokens {
    let usage: Value = serde_json::from_str(span.observation("usage_details")).unwrap_or_default();
    ["input", "output", "cache_read_input_tokens", "input_cache_creation_5m", "input_cache_creation_1h"]
        .map(|bucket| usage[bucket].as_u64().unwrap_or(0))
}

/// Name, type and level of every span, children below their parents in order of time.
fn outline(spans: &[Span]) -> Vec<String> {
    fn below(spans: &[Span], parent: &str, depth: usize, out: &mut Vec<String>) {
        let mut children: Vec<&Span> = spans.iter().filter(|span| span.parent == parent).collect();
        children.sort_by_key(|span| (span.start, span.end));
        for span in children {
            let level = span.observation("level");
            let mark = if level.is_empty() { String::new() } else { format!(" {level}") };
            out.push(format!("{}{} ({}){mark}", "  ".repeat(depth), span.name, span.observation("type")));
            below(spans, &span.span_id, depth + 1, out);
        }
    }
    // A root that was sent again is one span.
    let last: BTreeMap<_, _> = spans.iter().map(|span| (&span.span_id, span.clone())).collect();
    let mut out = Vec::new();
    below(&last.into_values().collect::<Vec<_>>(), "", 0, &mut out);
    out
}

#[test]
fn a_turn_is_a_tree_of_agent_generations_and_tools() {
    const MODEL: &str = "claude-sonnet-4-5-20250929 (generation)";
    let model = format!("  {MODEL}");
    let retry = "  API retry (event) WARNING";
    for (name, expect) in [
        ("plain", vec!["Turn 1 (agent)", &model]),
        ("bash1", vec!["Turn 1 (agent)", &model, "    Bash (tool)", &model]),
        ("i_plain", vec!["Turn 1 (agent)", &model, "Turn 2 (agent)", &model, "    Bash (tool)", &model]),
        ("err529", vec!["Turn 1 (agent) ERROR", retry, retry]),
        ("err_then_ok", vec!["Turn 1 (agent) ERROR", "Turn 2 (agent)", &model]),
        ("stopblock", vec!["Turn 1 (agent)", &model, "  hook feedback (event)", &model]),
    ] {
        assert_eq!(outline(&Recording::load(name).play(Mode::Plain)), expect, "{name}");
    }
}

#[test]
fn abandoned_turns_name_their_replacement_after_any_restart() {
    // Back to before the second of three prompts, then to before the first, and on from there.
    let recording = Recording::load("rewind");
    for mode in [Mode::Plain, Mode::Restart, Mode::Away] {
        let spans = recording.play(mode);
        let turns: BTreeMap<_, _> =
            spans.iter().filter(|span| span.is_root()).map(|span| (&span.trace_id, span)).collect();
        let left: BTreeSet<_> = spans
            .iter()
            .filter(|span| span.name == "left behind")
            .map(|span| {
                let turn = turns[&span.trace_id];
                assert_eq!((&span.parent, span.get("langfuse.trace.name")), (&turn.span_id, &*turn.name));
                (turn.name.as_str(), span.observation("metadata.for_turn"))
            })
            .collect();
        let expect = [("Turn 1", "5"), ("Turn 2", "4"), ("Turn 3", "4"), ("Turn 4", "5")];
        assert_eq!(left, expect.into(), "{mode:?}");
        let instead: BTreeSet<_> =
            turns.values().map(|turn| (turn.name.as_str(), turn.observation("metadata.instead_of_turn"))).collect();
        let expect = [("Turn 1", ""), ("Turn 2", ""), ("Turn 3", ""), ("Turn 4", "2"), ("Turn 5", "1"), ("Turn 6", "")];
        assert_eq!(instead, expect.into(), "{mode:?}");
    }
}

#[test]
fn every_span_has_its_trace_and_session() {
    let spans = Recording::load("i_plain").play(Mode::Plain);
    for span in &spans {
        let turn = spans.iter().find(|root| root.is_root() && root.trace_id == span.trace_id).expect("a root");
        let meta = |key: &str| span.get(&format!("langfuse.trace.metadata.{key}"));
        assert_eq!(span.get("langfuse.trace.name"), turn.name);
        assert_eq!(format!("Turn {}", meta("turn_number")), turn.name);
        assert_eq!(span.get("session.id"), meta("session_id"));
        assert_eq!(meta("source"), "claude-code");
        assert_eq!(meta("version"), span.get("langfuse.version"));
        assert!(meta("cwd").ends_with("/project"), "{}", meta("cwd"));
    }
    let tool = spans.iter().find(|span| span.observation("type") == "tool").expect("a tool");
    assert_eq!(tool.observation("metadata.tool_name"), "Bash");
    let parent = spans.iter().find(|span| span.span_id == tool.parent).expect("its parent");
    assert_eq!((parent.is_generation(), parent.observation("metadata.tool_count")), (true, "1"));
    let first = spans.iter().find(|span| span.is_root() && span.name == "Turn 1").expect("a root");
    assert_eq!(first.observation("input"), r#"[{"role":"user","content":"hello SCN:plain"}]"#);
    assert_eq!(first.observation("output"), r#"{"role":"assistant","content":"Hello! This is the plain answer."}"#);
}
