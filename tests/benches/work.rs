//! The work of a Stop that brings 8 spans, in numbers that are the same on a busy machine: instructions of the daemon (by callgrind),
//! bytes written to the disk, bytes kept for ever.
//!
//! `cargo bench -p tests --bench work` prints them; with `-- --gate` it fails where one is beyond its limit.

#![allow(clippy::print_stdout, clippy::expect_used, reason = "a benchmark prints")]

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::Path,
    process::{Command, ExitCode, Stdio},
    sync::mpsc,
    time::Duration,
};

#[path = "../src/release.rs"]
#[allow(dead_code, reason = "each benchmark needs a part of it")]
mod release;

use release::Release;

/// One turn of four calls and three tools, one of which fails: it gets a score.
const SAMPLE: &str = include_str!("../../daemon/ctl/src/sample.jsonl");

/// The spans of such a turn.
const SPANS: u64 = 8;

/// What a Stop may cost: a little more than measured (4.5, 51 and 133).
const LIMITS: [(&str, f64); 3] = [
    ("instructions of a Stop, millions", 5.0),
    ("bytes written by a Stop, KB", 56.0),
    ("bytes kept for a span", 140.0),
];

fn main() -> ExitCode {
    if !release::wanted() {
        return ExitCode::SUCCESS;
    }
    let gate = std::env::args().any(|arg| arg == "--gate");
    let mut is_good = true;
    for ((what, limit), measured) in LIMITS.iter().zip([instructions(), written(), kept()]) {
        let Some(measured) = measured else {
            println!("{what:36} not measured: valgrind is missing");
            continue;
        };
        let is_beyond = measured > *limit;
        is_good &= !is_beyond;
        println!("{what:36} {measured:>8.2}   limit {limit}{}", if is_beyond { "   BEYOND" } else { "" });
    }
    if gate && !is_good { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Instructions of one more Stop, in millions: those of 40, less those of 10, so that start and end do not count.
fn instructions() -> Option<f64> {
    if !Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success()) {
        return None;
    }
    let count = |stops: u64| {
        let home = tempfile::tempdir().expect("a directory");
        let file = home.path().join("callgrind");
        let out = format!("--callgrind-out-file={}", file.display());
        let (bench, _) = Bench::start(home, &["valgrind", "--quiet", "--tool=callgrind", &out]);
        (0..stops).for_each(|number| bench.stop(number));
        let _home = bench.daemon.stop();
        let text = fs::read_to_string(&file).expect("its report");
        let total = text.lines().find_map(|line| line.strip_prefix("summary: ").or(line.strip_prefix("totals: ")));
        total.expect("a total").trim().parse::<f64>().expect("a number")
    };
    Some((count(40) - count(10)) / 30.0 / 1e6)
}

/// KB written to the disk by one more Stop.
fn written() -> Option<f64> {
    const STOPS: u64 = 100;
    let (bench, _) = Bench::start(tempfile::tempdir().expect("a directory"), &[]);
    bench.stop(0);
    let before = bench.daemon.written();
    (1..=STOPS).for_each(|number| bench.stop(number));
    Some((bench.daemon.written() - before) as f64 / STOPS as f64 / 1e3)
}

/// Bytes by which the database grows for a span that was delivered.
fn kept() -> Option<f64> {
    const STOPS: u64 = 150;
    let size = |home: &Path| fs::metadata(home.join(".claude/state/cc-langfuse/state.db")).expect("it").len();
    let (bench, url) = Bench::start(tempfile::tempdir().expect("a directory"), &[]);
    (0..STOPS).for_each(|number| bench.stop(number));
    let home = bench.daemon.stop();
    let before = size(home.path());
    let (daemon, requests) = (Release::start_in(home), bench.requests);
    let bench = Bench { daemon, url, requests };
    (STOPS..2 * STOPS).for_each(|number| bench.stop(number));
    let home = bench.daemon.stop();
    Some((size(home.path()) - before) as f64 / (STOPS * SPANS) as f64)
}

struct Bench {
    daemon: Release,
    url: String,
    requests: mpsc::Receiver<()>,
}

impl Bench {
    fn start(home: tempfile::TempDir, under: &[&str]) -> (Self, String) {
        let (sender, requests) = mpsc::channel();
        let url = release::server(move || {
            let _ = sender.send(());
        });
        (Self { daemon: Release::start_under(home, under), url: url.clone(), requests }, url)
    }

    /// Writes turn `number`, runs the hook as Claude Code does, and waits until the server has the turn.
    fn stop(&self, number: u64) {
        let path = self.daemon.transcript("work");
        let text = turn(number);
        let mut file = OpenOptions::new().append(true).create(true).open(&path).expect("a file");
        file.write_all(text.as_bytes()).expect("written");
        let payload = serde_json::json!({
            "session_id": "work", "transcript_path": path, "cwd": self.daemon.home.path(), "hook_event_name": "Stop",
            // Without it the daemon waits a little for lines that are not written yet.
            "last_assistant_message": last_answer(&text),
        });
        let mut hook = self.daemon.command("cc-langfuse-hook");
        let mut child = hook.envs(release::env(&self.url)).stdin(Stdio::piped()).spawn().expect("the hook");
        child.stdin.take().expect("stdin").write_all(payload.to_string().as_bytes()).expect("stdin");
        assert!(child.wait().expect("the hook").success());
        self.requests.recv_timeout(Duration::from_secs(60)).expect("the turn arrives");
    }
}

/// The text of the last call of a turn.
fn last_answer(lines: &str) -> String {
    let lines = lines.lines().rev().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    let mut texts = lines.filter_map(|line| line["message"]["content"][0]["text"].as_str().map(str::to_owned));
    texts.next().expect("the sample ends with an answer")
}

/// The sample as turn `number` of a session: its own ids and times.
fn turn(number: u64) -> String {
    let at = number * 60;
    let time = format!("2000-01-01T{:02}:{:02}:", at / 3600, at / 60 % 60);
    let text = SAMPLE.replace("5a3b1e00-0000-4000-8000-000000000000", "work");
    let text = text.replace("5a3b1e", &format!("{number:06x}")).replace("2000-01-01T00:00:", &time);
    let text = text.replace("\"id\":\"msg_", &format!("\"id\":\"msg_{number}_"));
    text.replace("toolu_", &format!("toolu_{number}_")).replace("req_", &format!("req_{number}_"))
}
