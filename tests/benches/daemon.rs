//! The daemon at work: from Stop to span, the cost of the n-th Stop as a session grows, and memory.
//!
//! `cargo bench -p tests --bench daemon` (needs 1.2 GB of temporary space)

#![allow(clippy::print_stdout, clippy::expect_used, reason = "a benchmark prints")]

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::Path,
    process::Stdio,
    sync::mpsc,
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

fn main() {
    if !release::wanted() {
        return;
    }
    let bench = Bench::start();
    println!("daemon idle                      {:>8.1} MB RSS", bench.daemon.memory("VmRSS"));
    bench.stop_to_span();
    bench.growing();
    bench.large();
}

struct Bench {
    daemon: Release,
    url: String,
    requests: mpsc::Receiver<Instant>,
}

impl Bench {
    fn start() -> Self {
        let (sender, requests) = mpsc::channel();
        let url = release::server(move || {
            let _ = sender.send(Instant::now());
        });
        Self { daemon: Release::start(), url, requests }
    }

    /// Runs the hook as Claude Code does.
    fn hook(&self, session: &str, event: &str, answer: Option<&str>) {
        let payload = serde_json::json!({
            "session_id": session, "transcript_path": self.daemon.transcript(session), "cwd": self.daemon.home.path(),
            "hook_event_name": event, "last_assistant_message": answer,
        });
        let mut child = self
            .daemon
            .command("cc-langfuse-hook")
            .envs(release::env(&self.url))
            .stdin(Stdio::piped())
            .spawn()
            .expect("the hook");
        child.stdin.take().expect("stdin").write_all(payload.to_string().as_bytes()).expect("stdin");
        assert!(child.wait().expect("the hook").success());
    }

    fn flush(&self) {
        let status = self.daemon.command("cc-langfusectl").args(["flush", "--timeout", "10m"]).status();
        assert!(status.expect("ctl").success());
        while self.requests.try_recv().is_ok() {}
    }

    /// Claude Code writes its last line 100 ms after the Stop: measures how long after the Stop the span is
    /// at the server.
    fn stop_to_span(&self) {
        let mut times = Vec::new();
        for number in 0..40 {
            let session = format!("live{number}");
            let text = generate::turn(number, Mix::ClaudeCode);
            let last =
                text.rfind("{\"parentUuid\"").and_then(|end| text[..end].rfind("{\"parentUuid\"")).expect("two lines");
            fs::write(self.daemon.transcript(&session), &text[..last]).expect("a file");
            let answer = generate::answer();
            let stopped = Instant::now();
            self.hook(&session, "Stop", Some(&answer));
            std::thread::sleep(Duration::from_millis(100).saturating_sub(stopped.elapsed()));
            append(&self.daemon.transcript(&session), &text[last..]);
            let arrived = self.requests.recv_timeout(Duration::from_secs(10)).expect("a span");
            times.push(arrived.duration_since(stopped));
            self.flush();
        }
        times.sort();
        let ms = |n: usize| times[n].as_secs_f64() * 1e3;
        println!(
            "Stop to span, line after 100 ms  {:>8.0} ms p50 {:>8.0} ms p90",
            ms(times.len() / 2),
            ms(times.len() * 9 / 10)
        );
    }

    /// CPU time of the daemon for one more turn of the same size at the end of an ever larger session.
    fn growing(&self) {
        let mut first = None;
        for megabytes in [1, 3, 10, 30, 100] {
            let session = format!("growing{megabytes}");
            let turns = generate::transcript(&self.daemon.transcript(&session), megabytes << 20, Mix::ClaudeCode)
                .expect("room");
            self.hook(&session, "Other", None);
            self.flush();
            let before = self.daemon.cpu();
            const STOPS: u32 = 50;
            for number in turns..turns + STOPS {
                append(&self.daemon.transcript(&session), &generate::turn(number, Mix::ClaudeCode));
                self.hook(&session, "Stop", Some(&generate::answer()));
                self.flush();
            }
            let each = (self.daemon.cpu() - before) / f64::from(STOPS);
            let base = *first.get_or_insert(each);
            println!("one Stop at {megabytes:>4} MB              {:>8.2} ms CPU × {:.2}", each * 1e3, each / base);
            fs::remove_file(self.daemon.transcript(&session)).expect("the file");
        }
    }

    fn large(&self) {
        let path = self.daemon.transcript("large");
        generate::transcript(&path, 1 << 30, Mix::ClaudeCode).expect("room");
        let started = Instant::now();
        self.hook("large", "SessionEnd", None);
        self.flush();
        println!(
            "1 GB read and delivered          {:>8.1} s, {:.1} MB peak RSS",
            started.elapsed().as_secs_f64(),
            self.daemon.memory("VmHWM")
        );
    }
}

fn append(path: &Path, text: &str) {
    OpenOptions::new().append(true).open(path).and_then(|mut file| file.write_all(text.as_bytes())).expect("the file");
}
