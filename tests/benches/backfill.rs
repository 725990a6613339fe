//! A year of history: 5,000 sessions of 2 GB in total, and the time and memory to backfill them.
//!
//! `cargo bench -p tests --bench backfill` (a twentieth of it; all of it with `CC_LANGFUSE_LONG=1`, which needs 2.1 GB
//! of temporary space)

#![allow(clippy::print_stdout, clippy::expect_used, reason = "a benchmark prints")]

use std::{
    fs,
    io::{BufWriter, Read, Write},
    process::Stdio,
    time::{Duration, Instant},
};

#[path = "../src/generate.rs"]
#[allow(dead_code, reason = "each benchmark needs a part of it")]
mod generate;
#[path = "../src/release.rs"]
#[allow(dead_code, reason = "each benchmark needs a part of it")]
mod release;

use generate::Mix;
use release::Release;

/// Turns of a session, by kind: one as Claude Code writes them for each that is conversation only.
const TURNS: u32 = 4;

fn main() {
    if !release::wanted() {
        return;
    }
    let sessions = if std::env::var("CC_LANGFUSE_LONG").is_ok_and(|value| value == "1") { 5000 } else { 250 };
    let home = tempfile::tempdir().expect("a directory");
    let mut bytes = 0;
    for session in 0..sessions {
        let path = home.path().join(format!(".claude/projects/-p{}/s{session}.jsonl", session % 20));
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        let mut file = BufWriter::new(fs::File::create(&path).expect("a file"));
        for turn in 0..TURNS {
            for (kind, mix) in [Mix::ClaudeCode, Mix::Conversation].into_iter().enumerate() {
                let text = generate::turn((session * TURNS + turn) * 2 + kind as u32, mix);
                bytes += text.len() as u64;
                file.write_all(text.as_bytes()).expect("room");
            }
        }
        file.flush().expect("room");
    }
    println!("{sessions} sessions, {} turns, {:.2} GB", sessions * TURNS * 2, bytes as f64 / 1e9);

    let daemon = Release::start_in(home);
    let url = release::server(|| ());
    for run in ["first", "again"] {
        let started = Instant::now();
        let mut ctl = daemon
            .command("cc-langfusectl")
            .args(["backfill", "--yes", "--json"])
            .envs(release::env(&url))
            .stdout(Stdio::piped())
            .spawn()
            .expect("ctl");
        let mut peak = 0.0;
        let status = loop {
            peak = release::memory(&ctl, "VmHWM").unwrap_or(peak);
            if let Some(status) = ctl.try_wait().expect("ours") {
                break status;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let took = started.elapsed().as_secs_f64();
        let mut report = String::new();
        ctl.stdout.take().expect("piped").read_to_string(&mut report).expect("text");
        let report: serde_json::Value = serde_json::from_str(report.trim()).expect("JSON");
        println!(
            "{run}: {took:.1} s, {:.0} MB/s, {} spans queued, {} known, exit {:?}; peak ctl {peak:.1} MB, daemon {:.1} MB",
            bytes as f64 / 1e6 / took,
            report["spans_queued"],
            report["spans_already_sent"],
            status.code(),
            daemon.memory("VmHWM"),
        );
    }
}
