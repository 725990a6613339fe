//! Recorded sessions with random damage: whatever it is, every intact call is counted once, in a complete trace.
//!
//! Each case is a recording and a seed, which determines the damage; a finding names both. `CC_LANGFUSE_LONG=1`
//! tries 10,000 cases.

#![allow(clippy::disallowed_methods, reason = "tests make and read their own files")]

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use cc_core::{
    destination::{
        langfuse::encode::encode,
        wire::{Value as Attribute, WireSpan},
    },
    project::Options,
    redact::Rules,
};
use cc_langfuse::rebuild;

/// Cases in the short run, and in the long one.
const CASES: [u64; 2] = [300, 10_000];

/// Longer bookkeeping lines are left out: they take time and prove nothing.
const LONG_LINE: usize = 4096;

/// Tokens by kind.
type Tokens = BTreeMap<String, u64>;

/// The files of one session: its own, then those of its subagents.
#[derive(Clone)]
struct Session {
    name: String,
    id: String,
    files: Vec<(PathBuf, Vec<Vec<u8>>)>,
    meta: Vec<(PathBuf, Vec<u8>)>,
}

/// A fixed sequence of numbers for each seed.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: usize) -> usize {
        // The generator SplitMix64.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % sides.max(1) as u64) as usize
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.throw(of.len())]
    }
}

fn below(dir: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() { below(&path, found) } else { found.push(path) }
    }
}

fn sessions() -> Vec<Session> {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures"));
    let mut found = Vec::new();
    let mut recordings: Vec<_> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    recordings.sort();
    for recording in recordings {
        let mut files = Vec::new();
        below(&recording.join("projects"), &mut files);
        let is = |path: &Path, ext: &str| path.extension().is_some_and(|found| found == ext);
        let name = |path: &Path| path.file_stem().unwrap().to_str().unwrap().to_owned();
        for main in files.iter().filter(|path| is(path, "jsonl") && !name(path).starts_with("agent-")) {
            let dir = main.with_extension("");
            let own = |path: &&PathBuf| *path == main || path.starts_with(&dir);
            let within = |path: &Path| path.strip_prefix(main.parent().unwrap()).unwrap().to_owned();
            let mut lines: Vec<(PathBuf, Vec<Vec<u8>>)> = files
                .iter()
                .filter(own)
                .filter(|path| is(path, "jsonl"))
                .map(|path| {
                    let text = fs::read(path).unwrap();
                    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec);
                    let short = |line: &Vec<u8>| line.len() < LONG_LINE || is_conversation(line);
                    (within(path), lines.filter(short).collect())
                })
                .collect();
            lines.sort_by_key(|(path, _)| path.components().count());
            let meta = files.iter().filter(own).filter(|path| is(path, "json"));
            found.push(Session {
                name: format!("{}/{}", recording.file_name().unwrap().to_str().unwrap(), name(main)),
                id: name(main),
                files: lines,
                meta: meta.map(|path| (within(path), fs::read(path).unwrap())).collect(),
            });
        }
    }
    assert!(found.len() > 50);
    found
}

fn is_conversation(line: &[u8]) -> bool {
    let kind = serde_json::from_slice::<Value>(line).ok().and_then(|line| Some(line["type"].as_str()?.to_owned()));
    matches!(kind.as_deref(), Some("user" | "assistant"))
}

// ---- damage ----

/// Damages one of the files; returns a description.
fn mutate(session: &mut Session, dice: &mut Dice) -> String {
    let file = dice.throw(session.files.len());
    let lines = &mut session.files[file].1;
    if lines.len() < 2 {
        return "nothing".into();
    }
    let at = dice.throw(lines.len());
    // The first prompt is spared, because everything after it belongs to it; in a subagent's transcript,
    // the first line.
    let spared = if file == 0 { first_prompt(lines) } else { 0 };
    let what = dice.throw(14);
    let result = match what {
        0..=5 => return change_field(lines, dice, spared).unwrap_or_else(|| "nothing".into()),
        6 if at != spared => {
            lines.remove(at);
            "dropped"
        }
        7 => {
            let (line, to) = (lines[at].clone(), at + dice.throw(lines.len() - at));
            lines.insert(to + 1, line);
            "doubled"
        }
        // Lines before its prompt belong to the previous turn.
        8 if at + 1 < lines.len() && !is_prompt(&lines[at]) && !is_prompt(&lines[at + 1]) => {
            lines.swap(at, at + 1);
            "swapped with the next"
        }
        9 if at != spared => {
            let cut = 1 + dice.throw(lines[at].len() - 1);
            lines[at].truncate(cut);
            "torn"
        }
        // The start of a line before another one.
        10 => {
            let from = lines[dice.throw(lines.len())].clone();
            let cut = 1 + dice.throw(from.len() - 1);
            lines[at].splice(..0, from[..cut].iter().copied());
            "glued behind a torn one"
        }
        11 if at + 1 < lines.len() => {
            let next = lines.remove(at + 1);
            lines[at].extend(next);
            "on one line with the next"
        }
        12 => {
            let paddings: [&[u8]; 4] = [b"\0\0\0\0\0\0\0\0", b"\xEF\xBB\xBF", b" \t", b"\0\xEF\xBB\xBF\0"];
            let padding = *dice.pick(&paddings);
            match dice.throw(2) {
                0 => drop(lines[at].splice(..0, padding.iter().copied())),
                _ => lines[at].extend_from_slice(padding),
            }
            "padded"
        }
        13 if at != spared => {
            let place = dice.throw(lines[at].len());
            lines[at][place] = *dice.pick(b"\0\xFF\"\\{}[],:x7 \x1b");
            "with another byte in it"
        }
        _ => return "nothing".into(),
    };
    format!("line {at} of file {file} is {result}")
}

/// True also if the prompt is not the first record on its line.
fn is_prompt(line: &[u8]) -> bool {
    let has = |text: &str| memchr::memmem::find(line, text.as_bytes()).is_some();
    has(r#""type":"user""#) && !has(r#""tool_result""#)
}

fn first_prompt(lines: &[Vec<u8>]) -> usize {
    let is_prompt = |line: &Vec<u8>| {
        serde_json::from_slice::<Value>(line).is_ok_and(|line| {
            let text = line["message"]["content"].as_str().or_else(|| line["message"]["content"][0]["text"].as_str());
            line["type"] == "user"
                && line["isMeta"] != true
                && text.is_some_and(|text| !text.starts_with("<command-name>"))
        })
    };
    lines.iter().position(is_prompt).unwrap_or(0)
}

/// Replaces or removes one field, at any depth.
fn change_field(lines: &mut [Vec<u8>], dice: &mut Dice, spared: usize) -> Option<String> {
    let said: Vec<usize> = (0..lines.len()).filter(|at| is_conversation(&lines[*at])).collect();
    let at = if said.is_empty() || dice.throw(4) == 0 { dice.throw(lines.len()) } else { *dice.pick(&said) };
    let mut line: Value = serde_json::from_slice(&lines[at]).ok()?;
    let mut paths = Vec::new();
    all_paths(&line, &mut Vec::new(), &mut paths);
    if paths.is_empty() {
        return None;
    }
    let path = dice.pick(&paths).clone();
    // The fields that identify the first prompt are kept.
    if at == spared
        && matches!(
            path[0].as_str(),
            "type"
                | "isSidechain"
                | "promptId"
                | "parentUuid"
                | "message"
                | "isMeta"
                | "isCompactSummary"
                | "isVisibleInTranscriptOnly"
        )
    {
        return None;
    }
    let (last, above) = path.split_last()?;
    let mut node = &mut line;
    for step in above {
        node = match node {
            Value::Array(items) => &mut items[step.parse::<usize>().ok()?],
            node => &mut node[step.as_str()],
        };
    }
    let is_number = |value: &Value| value.is_number();
    // Another id is still an id.
    let is_id = ["id", "uuid", "parentUuid", "requestId", "promptId", "tool_use_id"].contains(&last.as_str());
    let values = [
        json!(null),
        json!(true),
        json!(false),
        json!(-7),
        json!(0),
        json!("odd"),
        json!(""),
        json!([]),
        json!({}),
        json!([{"a": 1}, 7]),
        json!({"b": {"c": [2]}}),
        json!(1e30),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(0.25),
        json!({"type": "text", "text": "x"}),
        json!("\u{1f600}\u{0}\u{1b}[31m"),
    ];
    let how = match node {
        Value::Object(fields) if dice.throw(4) == 0 => {
            fields.remove(last);
            "removed".to_owned()
        }
        node => {
            let place = match node {
                Value::Array(items) => &mut items[last.parse::<usize>().ok()?],
                node => &mut node[last.as_str()],
            };
            if is_id && place.is_string() {
                *place = [json!(null), json!(true), json!([]), json!({"b": 1})][dice.throw(4)].clone();
                let how = place.to_string();
                lines[at] = line.to_string().into_bytes();
                return Some(format!("line {at}: {} is {how}", path.join(".")));
            }
            let value = if is_number(place) && dice.throw(3) == 0 {
                json!(place.to_string())
            } else {
                dice.pick(&values).clone()
            };
            *place = value.clone();
            value.to_string()
        }
    };
    let written = line.to_string();
    // Values that JSON cannot express but other writers produce.
    let written = match dice.throw(12) {
        0 => written.replacen("1e30", ["NaN", "-Infinity", "1e999", "None"][dice.throw(4)], 1),
        _ => written,
    };
    lines[at] = written.into_bytes();
    Some(format!("line {at}: {} is {how}", path.join(".")))
}

fn all_paths(value: &Value, path: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    let mut below = |step: String, value: &Value| {
        path.push(step);
        found.push(path.clone());
        all_paths(value, path, found);
        path.pop();
    };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| below(name.clone(), value)),
        Value::Array(items) => items.iter().enumerate().for_each(|(at, value)| below(at.to_string(), value)),
        _ => {}
    }
}

// ---- what must hold ----

fn spans(session: &Session, dir: &Path) -> Vec<WireSpan> {
    let root = dir.join("-work");
    let _ = fs::remove_dir_all(&root);
    for (path, lines) in &session.files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut text = lines.join(&b'\n');
        text.push(b'\n');
        fs::write(path, text).unwrap();
    }
    for (path, bytes) in &session.meta {
        fs::write(root.join(path), bytes).unwrap();
    }
    let (path, mut found) = (root.join(&session.files[0].0), Vec::new());
    let options = Options { unredacted: true, ..Options::default() };
    rebuild::turns(&path, &session.id, &options, &Rules::default(), |turn| {
        found.extend(turn.iter().map(|out| encode(&out.observation, &out.facts)));
    })
    .unwrap();
    found
}

fn text<'s>(span: &'s WireSpan, key: &str) -> Option<&'s str> {
    span.attributes.iter().find_map(|(known, value)| match value {
        Attribute::Text(text) if known == key => Some(text.as_str()),
        _ => None,
    })
}

fn used(span: &WireSpan) -> Option<Tokens> {
    text(span, "langfuse.observation.usage_details")
        .map(|usage| serde_json::from_str(usage).expect("counts, none negative"))
}

fn totals(spans: &[WireSpan]) -> Tokens {
    let mut totals = Tokens::new();
    for (kind, count) in spans.iter().filter_map(used).flatten() {
        // The lifetime of a cache write may be lost, but not the write itself.
        let kind = if kind.starts_with("input_cache_creation") { "written".into() } else { kind };
        let total = totals.entry(kind).or_default();
        *total = total.saturating_add(count);
    }
    totals
}

/// The usage of each model call of the recording, and the lines that have it.
fn calls(session: &Session, spans: &[WireSpan]) -> HashMap<String, (Tokens, Vec<Vec<u8>>)> {
    let mut calls: HashMap<String, (Tokens, Vec<Vec<u8>>)> = HashMap::new();
    for span in spans {
        if let Some((id, usage)) = text(span, "langfuse.observation.metadata.message_id").zip(used(span)) {
            calls.insert(id.to_owned(), (usage, Vec::new()));
        }
    }
    for line in session.files.iter().flat_map(|(_, lines)| lines) {
        let Ok(parsed) = serde_json::from_slice::<Value>(line) else { continue };
        if let Some((usage, lines)) = parsed["message"]["id"].as_str().and_then(|id| calls.get_mut(id))
            && parsed["message"]["usage"]["output_tokens"] == usage["output"]
        {
            lines.push(line.clone());
        }
    }
    calls
}

/// The lines of other files without which the turn of a subagent's line is unknown: those of its prompt, those that
/// name the subagent or the call that launched it, and the output of commands.
fn anchors<'s>(session: &'s Session, line: &[u8]) -> impl Iterator<Item = &'s Vec<u8>> {
    let line: Value = serde_json::from_slice(line).unwrap();
    let agent = line["agentId"].as_str().map(str::to_owned);
    let meta = agent.as_ref().and_then(|agent| {
        let mut meta =
            session.meta.iter().filter(|(path, _)| path.to_str().is_some_and(|path| path.contains(agent.as_str())));
        serde_json::from_slice::<Value>(&meta.next()?.1).ok()
    });
    let call = meta.and_then(|meta| Some(meta["toolUseId"].as_str()?.to_owned()));
    let is_side = line["isSidechain"] == true;
    // A subagent's lines in the session's own file all matter: nothing else places them.
    let is_inline = agent.is_none();
    let names = move |line: &[u8]| {
        let has = |name: &str| memchr::memmem::find(line, name.as_bytes()).is_some();
        let other = agent.as_ref().is_none_or(|agent| !has(&format!(r#""agentId":"{agent}","type""#)));
        is_inline
            || other && is_conversation(line) && !has(r#""isSidechain":true"#)
            || has("local_command")
            || call.as_ref().is_some_and(|call| has(call))
    };
    session.files.iter().flat_map(|(_, lines)| lines).filter(move |line| is_side && names(line))
}

fn check(original: &Session, mutated: &Session, dir: &Path) -> Result<(), String> {
    let before = spans(original, dir);
    let after = spans(mutated, dir);
    let mut ids = BTreeSet::new();
    for span in &after {
        if !ids.insert((span.trace_id, span.span_id)) {
            return Err(format!("two spans of one id: {}", span.name));
        }
        if span.end_ns < span.start_ns {
            return Err(format!("a span ends before it starts: {}", span.name));
        }
    }
    let mut orphans = after.iter().filter(|span| !span.is_root() && !ids.contains(&(span.trace_id, span.parent_id)));
    if let Some(orphan) = orphans.next() {
        return Err(format!("a span without its parent: {}", orphan.name));
    }
    let most = totals(&before);
    for (kind, count) in totals(&after) {
        if count > most.get(&kind).copied().unwrap_or(0) {
            return Err(format!("{count} {kind} tokens of {most:?}"));
        }
    }
    let found: BTreeMap<&str, Tokens> = after
        .iter()
        .filter_map(|span| Some((text(span, "langfuse.observation.metadata.message_id")?, used(span)?)))
        .collect();
    let written: Vec<Vec<u8>> = mutated.files.iter().map(|(_, lines)| lines.join(&b'\n')).collect();
    let is_intact = |line: &Vec<u8>| written.iter().any(|text| memchr::memmem::find(text, line).is_some());
    for (id, (usage, lines)) in calls(original, &before) {
        let is_placed = lines.iter().all(|line| anchors(original, line).all(is_intact));
        // A line that lost its id to a damaged byte may have given the call another one.
        let is_counted = found.get(id.as_str()) == Some(&usage) || found.values().any(|other| *other == usage);
        if is_placed && lines.iter().any(is_intact) && !is_counted {
            return Err(format!("the call {id} is counted as {:?} and used {usage:?}", found.get(id.as_str())));
        }
    }
    Ok(())
}

#[test]
fn every_intact_call_of_a_damaged_session_is_counted_once() {
    let sessions = sessions();
    let is_long = std::env::var_os("CC_LANGFUSE_LONG").is_some();
    let cases = CASES[usize::from(is_long)];
    let next = std::sync::atomic::AtomicU64::new(0);
    let findings = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from).min(8) {
            scope.spawn(|| {
                let dir = tempfile::tempdir().unwrap();
                loop {
                    let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if seed >= cases {
                        break;
                    }
                    let mut dice = Dice(seed);
                    let original = dice.pick(&sessions);
                    let mut mutated = original.clone();
                    let done: Vec<_> = (0..1 + dice.throw(3)).map(|_| mutate(&mut mutated, &mut dice)).collect();
                    let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                        check(original, &mutated, dir.path())
                    }));
                    if let Err(why) = found.unwrap_or_else(|_| Err("it panicked".into())) {
                        findings.lock().unwrap().push(format!("{seed} {}: {why}; {}", original.name, done.join("; ")));
                    }
                }
            });
        }
    });
    let findings = findings.into_inner().unwrap();
    assert!(findings.is_empty(), "{} of {cases}:\n{}", findings.len(), findings.join("\n"));
}
