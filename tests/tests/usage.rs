//! `usage` counts every call that has a line once, whatever key it sums by.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::{Value, json};
use tests::{Home, recording::Recording};

/// The token buckets, as `usage` names them.
const BUCKETS: [&str; 5] = ["input", "output", "cache_read", "cache_write_5m", "cache_write_1h"];

const KEYS: [&str; 12] =
    ["day", "week", "month", "project", "model", "session", "tool", "skill", "agent", "mcp", "plugin", "branch"];

fn fixture(name: &str) -> String {
    format!("{}/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn usage(home: &Home, args: &[&str]) -> Value {
    let output = home.ctl(&[&["usage", "--json"], args].concat());
    assert_eq!(output.status.code(), Some(0), "{args:?}: {output:?}");
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

fn numbers(row: &Value) -> [u64; 6] {
    let mut found = [0; 6];
    found[0] = row["calls"].as_u64().expect("calls");
    for (slot, name) in found[1..].iter_mut().zip(BUCKETS) {
        *slot = row[name].as_u64().expect(name);
    }
    found
}

fn lines(dir: &Path, each: &mut impl FnMut(&Value)) {
    for entry in fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            lines(&entry, each);
        } else if entry.extension().is_some_and(|ext| ext == "jsonl") {
            let text = fs::read_to_string(&entry).expect("UTF-8");
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).for_each(|line| each(&line));
        }
    }
}

fn tokens(usage: &Value) -> [u64; 5] {
    let count = |value: &Value| value.as_u64().unwrap_or(0);
    let (five, hour) = (
        count(&usage["cache_creation"]["ephemeral_5m_input_tokens"]),
        count(&usage["cache_creation"]["ephemeral_1h_input_tokens"]),
    );
    let rest = count(&usage["cache_creation_input_tokens"]).saturating_sub(five + hour);
    [
        count(&usage["input_tokens"]),
        count(&usage["output_tokens"]),
        count(&usage["cache_read_input_tokens"]),
        five + rest,
        hour,
    ]
}

/// Calls and tokens of a recording: the API's counts, for calls with a line; if no line has the last output count, as
/// for a truncated answer, the best count of a line.
fn truth(name: &str) -> [u64; 6] {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name);
    let (mut seen, mut asides) = (BTreeMap::new(), BTreeMap::new());
    lines(&dir.join("projects"), &mut |line| {
        let message = &line["message"];
        if line["type"] != "assistant" || message["model"] == "<synthetic>" {
            return;
        }
        let id = message["id"].as_str().expect("an id").to_owned();
        let found = tokens(&message["usage"]);
        let best = seen.entry(id.clone()).or_insert(found);
        if found[1] > best[1] {
            *best = found;
        }
        for (at, part) in message["usage"]["iterations"].as_array().into_iter().flatten().enumerate() {
            if part["type"] == "advisor_message" {
                asides.insert((id.clone(), at), tokens(part));
            }
        }
    });
    let calls: Value = serde_json::from_slice(&fs::read(dir.join("calls.json")).expect("calls")).expect("JSON");
    for call in calls.as_array().expect("calls") {
        if let Some(best) = call["message_id"].as_str().and_then(|id| seen.get_mut(id)) {
            let output = best[1];
            *best = tokens(&call["usage"]);
            best[1] = best[1].min(output);
        }
    }
    let mut sum = [seen.len() as u64, 0, 0, 0, 0, 0];
    for tokens in seen.values().chain(asides.values()) {
        sum[1..].iter_mut().zip(tokens).for_each(|(sum, count)| *sum += count);
    }
    sum
}

#[test]
fn every_call_with_a_line_counts_once_in_every_recording() {
    let home = Home::new();
    for recording in Recording::all() {
        let name = &recording.name;
        let found = usage(&home, &["--by", "session", &fixture(name)]);
        assert_eq!(numbers(&found["total"]), truth(name), "{name}");
    }
}

#[test]
fn the_rows_add_up_to_the_same_total_for_every_key() {
    let home = Home::new();
    let all = fixture("");
    let mut total = None;
    for key in KEYS {
        let found = usage(&home, &["--utc", "--by", key, &all]);
        let rows = found["rows"].as_array().expect("rows");
        assert!(!rows.is_empty() && rows.iter().all(|row| row["key"].is_string()));
        let mut sum = [0; 6];
        rows.iter().for_each(|row| sum.iter_mut().zip(numbers(row)).for_each(|(sum, count)| *sum += count));
        assert_eq!(sum, numbers(&found["total"]), "{key}");
        let cost: f64 = rows.iter().filter_map(|row| row["cost_usd"].as_f64()).sum();
        assert!((cost - found["total"]["cost_usd"].as_f64().expect("a cost")).abs() < 1e-6, "{key}");
        assert_eq!(*total.get_or_insert(sum), sum, "{key}");
        assert!(rows.iter().all(|row| row["turns"].as_u64() <= found["total"]["turns"].as_u64()), "{key}");
    }
}

#[test]
fn names_of_agents_servers_and_tools_are_those_of_the_calls() {
    let home = Home::new();
    let keys = |name: &str, by: &str| -> Vec<String> {
        let found = usage(&home, &["--by", by, &fixture(name)]);
        let rows = found["rows"].as_array().expect("rows").iter();
        let mut keys: Vec<_> = rows.map(|row| row["key"].as_str().expect("a key").to_owned()).collect();
        keys.sort();
        keys
    };
    assert_eq!(keys("subagent_fg", "agent"), ["general-purpose", "main"]);
    assert_eq!(keys("bash1", "tool"), ["(no tool)", "Bash"]);
    assert_eq!(keys("bash1", "mcp"), ["(no MCP server)"]);
    assert_eq!(keys("bash1", "model"), ["claude-sonnet-4-5-20250929"]);
}

#[test]
fn every_call_of_a_plugin_counts_for_it_whatever_names_it() {
    let home = Home::new();
    let said = [
        (json!({}), "plain", "(no plugin)", 1),
        (json!({"attributionSkill": "greet"}), "own skill", "(no plugin)", 2),
        (json!({"attributionSkill": "tools:greet"}), "skill", "tools", 4),
        (json!({"attributionSkill": "greet", "attributionPlugin": "tools"}), "said", "tools", 8),
        (json!({"attributionMcpServer": "plugin_db_main"}), "server", "db", 16),
        (json!({}), "mcp__plugin_db_main__query", "db", 32),
    ];
    let mut text = String::new();
    for (at, (more, tool, _, input)) in said.iter().enumerate() {
        let stamp = json!({"sessionId": "s", "timestamp": "2026-11-20T10:00:00.000Z", "cwd": "/app"});
        let prompt = json!({"type": "user", "uuid": format!("u{at}"), "message": {"role": "user", "content": "q"}});
        let block = json!({"type": "tool_use", "id": format!("t{at}"), "name": tool, "input": {}});
        let message = json!({"id": format!("m{at}"), "model": "claude-sonnet-4-5", "content": [block],
            "usage": {"input_tokens": input, "output_tokens": 1}, "stop_reason": "tool_use"});
        let answer =
            json!({"type": "assistant", "uuid": format!("a{at}"), "parentUuid": format!("u{at}"), "message": message});
        for mut line in [prompt, answer] {
            let fields = line.as_object_mut().expect("an object");
            fields.extend(stamp.as_object().expect("an object").clone());
            fields.extend(more.as_object().expect("an object").clone());
            text += &format!("{line}\n");
        }
    }
    let file = home.path().join("s.jsonl");
    fs::write(&file, text).expect("a transcript");
    let found = usage(&home, &["--by", "plugin", file.to_str().expect("UTF-8")]);
    let rows: BTreeMap<&str, u64> = found["rows"]
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| (row["key"].as_str().expect("a key"), row["input"].as_u64().expect("a count")))
        .collect();
    let mut expect = BTreeMap::new();
    said.iter().for_each(|(_, _, key, input)| *expect.entry(*key).or_default() += *input);
    assert_eq!(rows, expect);
    assert_eq!(found["total"]["input"], 63);
}

#[test]
fn the_index_of_the_users_history_follows_its_growth() {
    let home = Home::new();
    let projects = home.path().join(".claude/projects/-app");
    fs::create_dir_all(&projects).expect("a directory");
    assert_eq!(numbers(&usage(&home, &[])["total"]), [0; 6], "nothing yet");
    let [path] = &Recording::load("longturn").sessions()[..] else { panic!("one session") };
    let text = fs::read_to_string(path).expect("a transcript");
    let (whole, target) = (truth("longturn"), projects.join(path.file_name().expect("a name")));
    // Every prefix that ends with a line, in order, as the file grows.
    let mut before = 0;
    for (at, _) in text.match_indices('\n') {
        fs::write(&target, &text[..=at]).expect("a part");
        let calls = numbers(&usage(&home, &[])["total"])[0];
        assert!(calls >= before, "{calls} calls after {before}");
        before = calls;
    }
    assert_eq!(numbers(&usage(&home, &[])["total"]), whole);
    // Directories and the day are those of the lines.
    let found = usage(&home, &["--by", "project"]);
    assert_eq!(found["rows"][0]["key"], "/home/dev/project");
    assert_eq!(numbers(&usage(&home, &["--project", "/home/dev"])["total"]), whole);
    assert_eq!(numbers(&usage(&home, &["--project", "/home/de"])["total"]), [0; 6], "a path, no text");
    assert_eq!(numbers(&usage(&home, &["--since", "2099-01-01"])["total"]), [0; 6]);
    fs::remove_file(&target).expect("the transcript");
    assert_eq!(numbers(&usage(&home, &[])["total"]), [0; 6], "what is gone counts no more");
}

#[test]
fn usage_reports_what_it_cannot_count() {
    let home = Home::new();
    for (args, code, says) in [
        (&["usage", "--by", "mood"][..], 2, "possible values: day"),
        (&["usage", "--since", "yesterday"], 2, "as in 30d"),
        (&["usage", "/nowhere/at/all"], 1, "/nowhere/at/all"),
        (&["usage", "--json", "--csv"], 2, "cannot be used with"),
    ] {
        let output = home.ctl(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), said.contains(says)), (Some(code), true), "{args:?}: {said}");
    }
    let output = home.ctl(&["usage"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "no model calls yet\n");
}

#[test]
fn several_may_make_the_index_at_the_same_time() {
    for round in 0..tests::tries(15, 100) {
        let home = Home::new();
        Recording::load("plain").write_in(&home);
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..6).map(|_| scope.spawn(|| usage(&home, &[])["total"]["calls"].clone())).collect();
            let calls: Vec<Value> = all.into_iter().map(|one| one.join().expect("its figures")).collect();
            assert!(calls.iter().all(|one| *one == calls[0] && *one != 0), "round {round}: {calls:?}");
        });
    }
}
