//! The hook from exec to exit, against a do-nothing static C program and `/bin/true`, interleaved in one run.
//!
//! `cargo bench -p tests --bench hook` — builds the release binaries and the static hook first, as the README's install
//! command does.

#![allow(clippy::print_stdout, clippy::expect_used, reason = "a benchmark prints")]

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const RUNS: usize = 400;

fn main() {
    // `cargo test` runs benchmarks too, with this argument missing.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    let target = build();
    let dir = tempfile::tempdir().expect("a directory");
    let floor = dir.path().join("floor");
    fs::write(dir.path().join("floor.c"), "int main(void) { return 0; }").expect("a file");
    let compiled =
        Command::new("cc").args(["-O2", "-static", "-o"]).arg(&floor).arg(dir.path().join("floor.c")).status();
    assert!(compiled.is_ok_and(|status| status.success()), "cc -static works here");
    let payload = dir.path().join("payload.json");
    fs::write(&payload, payload_json(dir.path())).expect("a file");
    let mut daemon = daemon(&target, dir.path());

    let hook = target.join("cc-langfuse-hook");
    let programs =
        [("static C, does nothing", floor), ("/bin/true", PathBuf::from("/bin/true")), ("cc-langfuse-hook", hook)];
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); programs.len()];
    for round in 0..=RUNS {
        for ((_, program), times) in programs.iter().zip(&mut times) {
            let took = run(program, &payload, dir.path());
            if round > 0 {
                times.push(took);
            }
        }
    }
    daemon.kill().expect("the daemon");
    let _ = daemon.wait();
    times.iter_mut().for_each(|times| times.sort());
    let median = |i: usize| times[i][RUNS / 2].as_secs_f64() * 1e6;
    println!("{:26}{:>10}{:>10}{:>10}{:>12}{:>12}", "", "min µs", "p50 µs", "p90 µs", "× static C", "× true");
    for (i, (name, _)) in programs.iter().enumerate() {
        let at = |n: usize| times[i][n].as_secs_f64() * 1e6;
        println!(
            "{name:26}{:>10.0}{:>10.0}{:>10.0}{:>12.2}{:>12.2}",
            at(0),
            at(RUNS / 2),
            at(RUNS * 9 / 10),
            median(i) / median(0),
            median(i) / median(1)
        );
    }
}

fn run(program: &Path, payload: &Path, home: &Path) -> Duration {
    let mut command = Command::new(program);
    command.env_clear().stdin(File::open(payload).expect("the payload")).stdout(Stdio::null()).stderr(Stdio::null());
    for (name, value) in [
        ("TRACE_TO_LANGFUSE", "true"),
        ("LANGFUSE_PUBLIC_KEY", "pk-lf-bench"),
        ("LANGFUSE_SECRET_KEY", "sk-lf-bench"),
        ("LANGFUSE_BASE_URL", "http://127.0.0.1:9"),
    ] {
        command.env(name, value);
    }
    let started = Instant::now();
    let status = command.env("HOME", home).status().expect("it runs");
    assert!(status.success());
    started.elapsed()
}

/// An ordinary Stop for a session without a new line: accepted, stored, acknowledged.
fn payload_json(home: &Path) -> String {
    let transcript = home.join(".claude/projects/-bench/bench.jsonl");
    fs::create_dir_all(transcript.parent().expect("a parent")).expect("a directory");
    fs::write(&transcript, "").expect("a file");
    serde_json::json!({
        "session_id": "bench", "transcript_path": transcript, "cwd": home, "hook_event_name": "UserPromptSubmit",
        "prompt": "All tests pass now. ".repeat(80),
    })
    .to_string()
}

fn daemon(target: &Path, home: &Path) -> Child {
    let daemon = Command::new(target.join("cc-langfused")).env_clear().env("HOME", home).spawn().expect("the daemon");
    let socket = home.join(".claude/state/cc-langfuse/daemon.sock");
    let deadline = Instant::now() + Duration::from_secs(10);
    while std::os::unix::net::UnixStream::connect(&socket).is_err() {
        assert!(Instant::now() < deadline, "the daemon starts");
        std::thread::yield_now();
    }
    daemon
}

/// Builds what is measured; returns `target/release`.
fn build() -> PathBuf {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    for args in [
        &["build", "--release", "--workspace", "--bins"][..],
        &["rustc", "-p", "hook-client", "--release", "--", "-C", "target-feature=+crt-static"],
    ] {
        let status = Command::new(&cargo).args(args).stderr(Stdio::null()).status().expect("cargo");
        assert!(status.success(), "cargo {args:?}");
    }
    let exe = std::env::current_exe().expect("a path");
    exe.parent().and_then(Path::parent).expect("target/release").to_path_buf()
}
