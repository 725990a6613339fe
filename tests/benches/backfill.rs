//! A year of history: 5,000 sessions of 2 GB together, and what it takes to bring them in.
//!
//! `cargo bench -p tests --bench backfill` (a twentieth of it; all with `CC_LANGFUSE_LONG=1`, which needs 2.1 GB of temporary
//! space)

#![allow(clippy::print_stdout, clippy::expect_used, reason = "a benchmark prints")]

use std::{
    fs,
    io::{BufWriter, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

#[path = "../src/generate.rs"]
#[allow(dead_code, reason = "each benchmark needs a part of it")]
mod generate;

use generate::Mix;

/// Turns of a session, by kind: one as Claude Code writes them for each that is conversation only.
const TURNS: u32 = 4;

fn main() {
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let built =
        Command::new(cargo).args(["build", "--release", "--workspace", "--bins"]).stderr(Stdio::null()).status();
    assert!(built.expect("cargo").success());
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

    let exe = std::env::current_exe().expect("a path");
    let target = exe.parent().and_then(Path::parent).expect("target/release");
    let mut daemon =
        Command::new(target.join("cc-langfused")).env_clear().env("HOME", home.path()).spawn().expect("starts");
    let socket = home.path().join(".claude/state/cc-langfuse/daemon.sock");
    let deadline = Instant::now() + Duration::from_secs(10);
    while std::os::unix::net::UnixStream::connect(&socket).is_err() {
        assert!(Instant::now() < deadline, "the daemon starts");
        std::thread::yield_now();
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream));
        }
    });
    for run in ["first", "again"] {
        let started = Instant::now();
        let mut ctl = Command::new(target.join("cc-langfusectl"))
            .args(["backfill", "--yes", "--json"])
            .env_clear()
            .env("HOME", home.path())
            .env("LANGFUSE_PUBLIC_KEY", "pk-lf-bench")
            .env("LANGFUSE_SECRET_KEY", "sk-lf-bench")
            .env("LANGFUSE_BASE_URL", &url)
            .stdout(Stdio::piped())
            .spawn()
            .expect("ctl");
        let mut peak = 0.0;
        let status = loop {
            peak = peak_of(&ctl).unwrap_or(peak);
            if let Some(status) = ctl.try_wait().expect("ours") {
                break status;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let took = started.elapsed().as_secs_f64();
        let mut told = String::new();
        ctl.stdout.take().expect("piped").read_to_string(&mut told).expect("text");
        let told: serde_json::Value = serde_json::from_str(told.trim()).expect("JSON");
        println!(
            "{run}: {took:.1} s, {:.0} MB/s, {} spans queued, {} known, exit {:?}; peak ctl {peak:.1} MB, daemon {:.1} MB",
            bytes as f64 / 1e6 / took,
            told["spans_queued"],
            told["spans_already_sent"],
            status.code(),
            peak_of(&daemon).unwrap_or(0.0),
        );
    }
    daemon.kill().and_then(|()| daemon.wait()).expect("ours");
}

/// The greatest resident size of a process so far, in MB.
fn peak_of(process: &Child) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<f64>().ok()? / 1024.0)
}

/// Answers every request with 200.
fn serve(mut stream: TcpStream) {
    let mut held = Vec::new();
    let mut chunk = [0; 64 << 10];
    while let Ok(n @ 1..) = stream.read(&mut chunk) {
        held.extend_from_slice(&chunk[..n]);
        while let Some(head) = held.windows(4).position(|window| window == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&held[..head]).to_lowercase();
            let length =
                text.split("content-length:").nth(1).and_then(|rest| rest.lines().next()?.trim().parse::<usize>().ok());
            let whole = head + 4 + length.unwrap_or(0);
            if held.len() < whole {
                break;
            }
            held.drain(..whole);
            let _ =
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}");
        }
    }
}
