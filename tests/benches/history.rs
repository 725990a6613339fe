//! A user's history of 5,000 sessions and 160,000 calls in `usage` and `view`.
//!
//! `cargo bench -p tests --bench history` (a tenth of it; all of it with `CC_LANGFUSE_LONG=1`). `CC_LANGFUSE_HISTORY=DIR` keeps
//! the home it generates in an empty DIR, so that other programs can be compared.

#![allow(clippy::print_stdout, clippy::expect_used, reason = "a benchmark prints")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Instant,
};

#[path = "../src/history.rs"]
#[allow(dead_code, reason = "each benchmark needs a part of it")]
mod history;
#[path = "../src/release.rs"]
#[allow(dead_code, reason = "each benchmark needs a part of it")]
mod release;

fn main() {
    if !release::wanted() {
        return;
    }
    let sessions = if std::env::var("CC_LANGFUSE_LONG").is_ok_and(|value| value == "1") { 5000 } else { 500 };
    let temporary = tempfile::tempdir().expect("a directory");
    let home = std::env::var_os("CC_LANGFUSE_HISTORY").map_or_else(|| temporary.path().to_path_buf(), PathBuf::from);
    let made = history::history(&home.join(".claude/projects"), sessions).expect("room");
    println!("{sessions} sessions, {:.0} MB", made.bytes as f64 / 1e6);
    for (name, sum) in [("main", made.main), ("subagents", made.agents), ("copies", made.copies)] {
        println!("  {name}: {} calls, input, output, cache read, write 5m, write 1h: {:?}", sum.calls, sum.tokens);
    }
    programs(&home, &made.sessions);
}

/// Seconds that `work` takes.
fn seconds(work: impl FnOnce()) -> f64 {
    let started = Instant::now();
    work();
    started.elapsed().as_secs_f64()
}

/// The median of five.
fn median(mut work: impl FnMut()) -> f64 {
    let mut took: Vec<f64> = (0..5).map(|_| seconds(&mut work)).collect();
    took.sort_by(f64::total_cmp);
    took[2]
}

fn programs(home: &Path, sessions: &[PathBuf]) {
    let exe = std::env::current_exe().expect("a path");
    let ctl = exe.parent().and_then(Path::parent).expect("target/release").join("cc-langfusectl");
    let command = |args: &[&str]| {
        let mut command = Command::new(&ctl);
        command.env_clear().env("HOME", home).args(args).stdout(Stdio::null());
        command
    };
    let run = |args: &[&str]| assert!(command(args).status().expect("ctl").success());
    println!("usage, first: {:.2} s", seconds(|| run(&["usage"])));
    println!("usage, again: {:.1} ms", median(|| run(&["usage"])) * 1e3);
    println!("usage --since 30d: {:.1} ms", median(|| run(&["usage", "--since", "30d"])) * 1e3);
    println!("usage --by session --json: {:.1} ms", median(|| run(&["usage", "--by", "session", "--json"])) * 1e3);
    let mut view = command(&["view", "--no-open"]).stdout(Stdio::piped()).spawn().expect("ctl");
    let lines = BufReader::new(view.stdout.take().expect("piped")).lines();
    let url = lines.map_while(Result::ok).find(|line| line.starts_with("http://")).expect("an address");
    let id = sessions[sessions.len() / 2].file_stem().and_then(|name| name.to_str()).expect("an id");
    for page in ["", "usage", "usage?by=model", "usage?by=session", "usage?days=30", "forks", &format!("session/{id}")]
    {
        get(&url, page);
        let mut bytes = 0;
        let took = median(|| bytes = get(&url, page)) * 1e3;
        println!("view /{page}: {took:.1} ms, {:.0} KB", bytes as f64 / 1e3);
    }
    println!("view: {:.1} MB now, {:.1} MB at most", memory(&view, "VmRSS"), memory(&view, "VmHWM"));
    view.kill().and_then(|()| view.wait()).expect("ours");
}

fn memory(process: &Child, field: &str) -> f64 {
    release::memory(process, field).unwrap_or_default()
}

fn get(url: &str, page: &str) -> usize {
    let rest = url.strip_prefix("http://").expect("an address");
    let (host, path) = rest.split_once('/').expect("a path");
    let mut stream = TcpStream::connect(host).expect("it listens");
    write!(stream, "GET /{path}{page} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").expect("a request");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    assert!(
        answer.starts_with(b"HTTP/1.1 200"),
        "{page}: {}",
        String::from_utf8_lossy(&answer[..answer.len().min(200)])
    );
    answer.len()
}
