//! A day that costs more than `[budget]` is marked, and a bad budget spoils nothing else.

use std::{fs, path::PathBuf, process::Stdio};

use serde_json::{Value, json};
use tests::{Home, bins, home::run, setup::succeeds};

/// A session of now with a million tokens, which cost 3 dollars.
fn session(home: &Home) -> PathBuf {
    let dir = home.path().join(".claude/projects/-p");
    fs::create_dir_all(&dir).expect("a directory");
    let at = jiff::Timestamp::now().to_string();
    let lines = [
        json!({"type": "user", "uuid": "u", "timestamp": at, "sessionId": "s", "message": {"role": "user", "content": "go"}}),
        json!({"type": "assistant", "uuid": "a", "parentUuid": "u", "timestamp": at, "sessionId": "s", "message": {
            "id": "m", "model": "claude-sonnet-4-5", "usage": {"input_tokens": 1_000_000, "output_tokens": 0},
            "stop_reason": "end_turn", "content": [{"type": "text", "text": "ok"}]}}),
    ];
    let path = dir.join("s.jsonl");
    fs::write(&path, lines.map(|line| format!("{line}\n")).concat()).expect("a transcript");
    path
}

fn status_line(home: &Home, transcript: &std::path::Path) -> String {
    let mut command = home.command(&bins().ctl);
    command.arg("statusline");
    succeeds(&run(command, json!({"transcript_path": transcript}).to_string().as_bytes()).0)
}

/// The first page of `view` and the page of usage.
fn pages(home: &Home) -> [String; 2] {
    use std::io::{BufRead, BufReader, Read, Write};
    let mut command = home.command(&bins().ctl);
    command.args(["view", "--no-open"]).stdout(Stdio::piped()).stdin(Stdio::null()).current_dir("/");
    let mut child = command.spawn().expect("it starts");
    let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let url = lines.map_while(Result::ok).find(|line| line.starts_with("http://")).expect("an address");
    let (host, path) = url.strip_prefix("http://").and_then(|rest| rest.split_once('/')).expect("a path");
    let get = |page: &str| {
        let mut stream = std::net::TcpStream::connect(host).expect("it listens");
        write!(stream, "GET /{path}{page} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").expect("a request");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer");
        text
    };
    let found = [get(""), get("usage")];
    let _ = child.kill();
    let _ = child.wait();
    found
}

#[test]
fn a_day_over_budget_is_marked_everywhere() {
    let home = Home::new();
    let transcript = session(&home);
    let usage = |args: &[&str]| succeeds(&home.ctl(&[&["usage"], args].concat()));
    for (budget, is_over) in [("", false), ("[budget]\nday = 3.5\n", false), ("[budget]\nday = 2\n", true)] {
        home.configure(budget);
        let text = usage(&[]);
        assert_eq!(text.contains("  over budget"), is_over, "{budget}: {text}");
        assert_eq!(text.contains("Over budget: $3.00 today, of $2.00 a day."), is_over, "{budget}: {text}");
        assert_eq!(usage(&["--by", "model"]).contains("Over budget: $3.00 today"), is_over);
        // Programs get the same as ever.
        assert!(!usage(&["--json"]).contains("budget") && !usage(&["--csv"]).contains("budget"));
        let line = status_line(&home, &transcript);
        let today = match budget {
            "" => "$3.00 today\u{1b}[2m",
            _ if is_over => "\u{1b}[31m$3.00 of $2.00 today, over budget\u{1b}[0m",
            _ => "$3.00 of $3.50 today\u{1b}[2m",
        };
        assert!(line.contains(today), "{budget}: {line:?}");
        let [sessions, day] = pages(&home);
        assert_eq!(sessions.contains("Over budget: $3.00 today"), is_over, "{budget}: {sessions}");
        assert_eq!(day.contains("> over budget<") && day.contains("rect class=\"error\""), is_over, "{budget}: {day}");
    }
    // Transcripts of others have no budget.
    let other = transcript.to_str().expect("UTF-8");
    assert!(!usage(&[other]).to_lowercase().contains("over budget"));
}

#[test]
fn a_bad_budget_is_said_and_spoils_nothing_else() {
    let home = Home::new();
    let transcript = session(&home);
    home.configure("outbox_mib = 7\n[budget]\nday = \"twenty\"\n");
    let _daemon = home.daemon();
    assert!(home.status()["config_error"].is_null());
    assert!(succeeds(&home.ctl(&["usage"])).contains("$3.00"));
    assert!(status_line(&home, &transcript).contains("$3.00 session"));
    let shown = succeeds(&home.ctl(&["config"]));
    assert!(shown.contains("`day` must be US dollars") && shown.contains("config.toml:2"), "{shown}");
    let json: Value = serde_json::from_str(&succeeds(&home.ctl(&["config", "--json"]))).expect("JSON");
    assert_eq!((&json["daemon"]["outbox_mib"]["value"], &json["daemon"]["budget"]["day"]), (&json!(7), &Value::Null));
    let found = home.ctl(&["doctor", "--json", "--no-probe"]);
    let found: Value = serde_json::from_slice(&found.stdout).expect("JSON");
    let finding = found["findings"].as_array().expect("findings").iter().find(|finding| finding["check"] == "budget");
    let finding = finding.expect("a finding");
    assert_eq!(finding["state"], "warning");
    assert!(finding["seen"].as_str().expect("text").contains("US dollars"), "{finding}");
}
