//! A user's history of 5,000 sessions and 160,000 calls: its index beside the pipeline, and what an append costs.
//!
//! `cargo bench -p daemon --bench history` (a tenth of it; all of it with `CC_LANGFUSE_LONG=1`). For the programs there is
//! `cargo bench -p tests --bench history`.

#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a benchmark makes its own files and prints")]

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Instant,
};

use cc_core::{
    project::Options,
    redact::{Redactor, Rules},
    usage::By,
};
use cc_langfuse::{
    index::{Filter, Index, Source},
    rebuild,
};
use divan::black_box;

#[path = "../../tests/src/history.rs"]
mod history;

fn main() {
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    let sessions = if std::env::var("CC_LANGFUSE_LONG").is_ok_and(|value| value == "1") { 5000 } else { 500 };
    let temporary = tempfile::tempdir().expect("a directory");
    let made = history::history(&temporary.path().join("projects"), sessions).expect("room");
    let calls = made.main.calls + made.agents.calls;
    println!(
        "{sessions} sessions, {calls} calls, {} copies of calls, {:.0} MB",
        made.copies.calls,
        made.bytes as f64 / 1e6
    );
    for (name, sum) in [("main", made.main), ("subagents", made.agents), ("copies", made.copies)] {
        println!("  {name}: {} calls, input, output, cache read, write 5m, write 1h: {:?}", sum.calls, sum.tokens);
    }
    let source = |path: &PathBuf| {
        Source::new(path.clone(), path.file_stem().and_then(|name| name.to_str()).unwrap_or_default().to_owned())
    };
    let sources: Vec<Source> = made.sessions.iter().map(source).collect();
    index(&sources, made.bytes, calls, temporary.path());
    append(temporary.path());
}

/// Returns how many bytes were read.
fn update(index: &mut Index, sources: &[Source]) -> u64 {
    index.update(sources, Redactor::built_in(), &mut |_| {}).expect("an index").bytes
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

/// CPU seconds of this process so far.
fn cpu() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    fields[11..13].iter().filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Every session through the pipeline, on all processors.
fn read(sources: &[Source]) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(source) = sources.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let options = Options::default();
                    rebuild::turns(&source.path, &source.session_id, &options, &Rules::default(), |turn| {
                        black_box(turn);
                    })
                    .expect("a transcript");
                }
            });
        }
    });
}

fn index(sources: &[Source], bytes: u64, calls: u64, dir: &Path) {
    read(&sources[..sources.len() / 10]);
    let mut figures = Vec::new();
    let file = dir.join("bench.db");
    for round in 0..2 {
        let before = cpu();
        let pipeline = seconds(|| read(sources));
        let pipeline_cpu = cpu() - before;
        fs::remove_file(&file).ok();
        let mut index = Index::open(&file).expect("an index");
        let before = cpu();
        let build = seconds(|| _ = update(&mut index, sources));
        figures.push((pipeline / build, pipeline_cpu / (cpu() - before)));
        println!(
            "round {round}: pipeline {pipeline:.2} s ({:.0} MB/s), index built in {build:.2} s ({:.0} MB/s): {:.2} × its speed by the clock, {:.2} × by processor time",
            bytes as f64 / 1e6 / pipeline,
            bytes as f64 / 1e6 / build,
            figures[round].0,
            figures[round].1,
        );
        if round == 1 {
            let zone = jiff::tz::TimeZone::UTC;
            let total = index.usage(&Filter::default(), By::Day, &zone).expect("sums").total;
            assert_eq!(total.calls, calls, "each call once");
            println!("nothing changed: {:.1} ms", median(|| _ = update(&mut index, sources)) * 1e3);
            for (name, by) in By::ALL {
                println!(
                    "  sums by {name}: {:.1} ms",
                    median(|| drop(index.usage(&Filter::default(), by, &zone))) * 1e3
                );
            }
            println!("  list of sessions: {:.1} ms", median(|| drop(index.sessions())) * 1e3);
        }
    }
    println!("index: {:.1} MB", fs::metadata(&file).expect("an index").len() as f64 / 1e6);
}

/// A turn is appended to a long session.
fn append(dir: &Path) {
    let path = dir.join("00000000-1111-4111-8111-111111111111.jsonl");
    let mut text: String = (0..2000).map(|turn| history::one_more(0, turn)).collect();
    fs::write(&path, &text).expect("room");
    let source = Source::new(path.clone(), "00000000-1111-4111-8111-111111111111".to_owned());
    let sources = std::slice::from_ref(&source);
    let mut index = Index::open(&dir.join("append.db")).expect("an index");
    update(&mut index, sources);
    let (mut grown, mut whole, mut bytes) = (Vec::new(), Vec::new(), 0);
    for turn in 2000..2007 {
        let more = history::one_more(0, turn);
        fs::File::options()
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(more.as_bytes()))
            .expect("room");
        text += &more;
        grown.push(seconds(|| bytes = update(&mut index, sources)));
        // The same rows as for a file that was replaced.
        let copy = path.with_extension("new");
        fs::write(&copy, &text).expect("room");
        let mut other = Index::open(&dir.join("whole.db")).expect("an index");
        fs::rename(&copy, &path).expect("renamed");
        whole.push(seconds(|| _ = update(&mut other, sources)));
        update(&mut index, sources);
    }
    grown.sort_by(f64::total_cmp);
    whole.sort_by(f64::total_cmp);
    println!(
        "append of a turn to {:.1} MB: {:.2} ms for {bytes} bytes, as a whole {:.1} ms: {:.0} ×",
        text.len() as f64 / 1e6,
        grown[3] * 1e3,
        whole[3] * 1e3,
        whole[3] / grown[3]
    );
}
