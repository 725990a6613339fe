//! A flood of hook events: how many the daemon accepts, how long a client waits, the CPU time per event, and the
//! daemon's memory.
//!
//! `cargo bench -p tests --bench flood`

#![allow(clippy::print_stdout, clippy::expect_used, reason = "a benchmark prints")]

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use proto::frame::Frame;

#[path = "../src/release.rs"]
#[allow(dead_code, reason = "each benchmark needs a part of it")]
mod release;

use release::Release;

/// Sessions the events belong to.
const SESSIONS: usize = 200;

/// No server: only intake is measured.
const NOWHERE: &str = "http://127.0.0.1:9";

fn main() {
    if !release::wanted() {
        return;
    }
    println!(
        "{:34}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}",
        "", "asked/s", "taken/s", "p50 ms", "p99 ms", "not", "CPU µs", "RSS MB"
    );
    for (clients, rate) in [(1, None), (8, Some(1_000)), (8, Some(5_000)), (16, Some(10_000)), (16, None), (64, None)] {
        Bench::start().frames(clients, rate);
    }
    Bench::start().processes(4);
}

struct Bench(Release);

impl Bench {
    fn start() -> Self {
        let bench = Self(Release::start());
        for session in 0..SESSIONS {
            fs::write(bench.transcript(session), "").expect("a file");
        }
        bench
    }

    fn transcript(&self, session: usize) -> PathBuf {
        self.0.transcript(&session.to_string())
    }

    /// Of usual size.
    fn payload(&self, number: usize) -> String {
        let session = number % SESSIONS;
        serde_json::json!({
            "session_id": format!("s{session}"), "transcript_path": self.transcript(session), "cwd": self.0.home.path(),
            "hook_event_name": "PostToolUse", "tool_response": "All tests pass now. ".repeat(80),
        })
        .to_string()
    }

    /// Requests like the hook's, without the processes: the rate that the daemon can accept. With a `rate` per second,
    /// a client's time counts from when its request was due, so a daemon that falls behind cannot hide it.
    fn frames(&self, clients: usize, rate: Option<usize>) {
        const FOR: Duration = Duration::from_secs(5);
        let requests: Vec<(Vec<u8>, Vec<u8>)> = (0..SESSIONS).map(|n| self.request(n)).collect();
        let next = AtomicUsize::new(0);
        let socket = self.0.paths().socket;
        let started = Instant::now();
        let mut results: Vec<(Duration, bool)> = std::thread::scope(|scope| {
            let client = || {
                let mut results = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let due = match rate {
                        Some(rate) => started + Duration::from_secs_f64(number as f64 / rate as f64),
                        None => Instant::now(),
                    };
                    if due.duration_since(started) >= FOR {
                        return results;
                    }
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    let (before, after) = &requests[number % SESSIONS];
                    // A unique id of the same length for each.
                    let request = [&before[..], format!("{number:016x}").as_bytes(), after].concat();
                    results.push((exchange(&socket, &request), due.elapsed()));
                }
            };
            let threads: Vec<_> = (0..clients).map(|_| scope.spawn(client)).collect();
            let each = threads.into_iter().flat_map(|thread| thread.join().expect("a client"));
            each.map(|(taken, took)| (took, taken)).collect()
        });
        let took = started.elapsed();
        results.sort();
        let name = format!("{clients} clients, {}", if rate.is_some() { "at a rate" } else { "one after another" });
        self.report(&name, results, took);
    }

    /// The request of one session's event, split where the event's id goes.
    fn request(&self, number: usize) -> (Vec<u8>, Vec<u8>) {
        const ID: &str = "################";
        let frame = Frame {
            id: ID.into(),
            fired_ns: 1,
            cut: false,
            env: release::env(NOWHERE).to_vec(),
            payload: self.payload(number).into_bytes(),
        };
        let body = frame.encode();
        let head = format!(
            "POST {} HTTP/1.1\r\nhost: cc-langfuse\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            proto::HOOK_PATH,
            body.len()
        );
        let mut request = head.into_bytes();
        request.extend_from_slice(&body);
        let at = request.windows(ID.len()).position(|window| window == ID.as_bytes()).expect("the id");
        (request[..at].to_vec(), request[at + ID.len()..].to_vec())
    }

    /// The real hook, as often per second as this machine can start it.
    fn processes(&self, clients: usize) {
        const FOR: Duration = Duration::from_secs(5);
        let payload = self.0.home.path().join("payload.json");
        fs::write(&payload, self.payload(0)).expect("a file");
        let started = Instant::now();
        let mut results: Vec<(Duration, bool)> = std::thread::scope(|scope| {
            let client = || {
                let mut results = Vec::new();
                while started.elapsed() < FOR {
                    let began = Instant::now();
                    let status = self
                        .0
                        .command("cc-langfuse-hook")
                        .envs(release::env(NOWHERE))
                        .stdin(File::open(&payload).expect("the payload"))
                        .status();
                    results.push((began.elapsed(), status.expect("the hook").success()));
                }
                results
            };
            let threads: Vec<_> = (0..clients).map(|_| scope.spawn(client)).collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("a client")).collect()
        });
        let took = started.elapsed();
        results.sort();
        self.report(&format!("{clients} × hook processes"), results, took);
    }

    fn report(&self, name: &str, results: Vec<(Duration, bool)>, took: Duration) {
        let taken = results.iter().filter(|(_, taken)| *taken).count();
        let ms = |n: usize| results[n.min(results.len() - 1)].0.as_secs_f64() * 1e3;
        println!(
            "{name:34}{:>9.0}{:>9.0}{:>9.2}{:>9.2}{:>9}{:>9.0}{:>9.1}",
            results.len() as f64 / took.as_secs_f64(),
            taken as f64 / took.as_secs_f64(),
            ms(results.len() / 2),
            ms(results.len() * 99 / 100),
            results.len() - taken,
            self.0.cpu() / taken as f64 * 1e6,
            self.0.memory("VmHWM")
        );
    }
}

/// True if the daemon said 2xx.
fn exchange(socket: &Path, request: &[u8]) -> bool {
    let Ok(mut stream) = UnixStream::connect(socket) else { return false };
    let mut answer = Vec::new();
    stream.write_all(request).and_then(|()| stream.read_to_end(&mut answer)).is_ok()
        && answer.starts_with(b"HTTP/1.1 2")
}
