//! The cost of turning bytes into spans, compared in one run with reading the same file and splitting it into lines.
//!
//! `cargo bench -p daemon --bench transcript`

#![allow(clippy::disallowed_methods, reason = "it reads what it made")]

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use divan::{Bencher, black_box, counter::BytesCount};

use cc_core::{project::Options, redact::Rules, transcript::lines::Lines};
use cc_langfuse::rebuild;

#[path = "../../tests/src/generate.rs"]
#[allow(dead_code, reason = "each benchmark needs a part of it")]
mod generate;

fn main() {
    divan::main();
    for file in [mixed(), conversation()] {
        let _ = std::fs::remove_file(file);
    }
}

const BYTES: u64 = 200 << 20;

fn mixed() -> &'static PathBuf {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| generate("mixed", generate::Mix::ClaudeCode))
}

fn conversation() -> &'static PathBuf {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| generate("conversation", generate::Mix::Conversation))
}

fn generate(name: &str, mix: generate::Mix) -> PathBuf {
    let path = std::env::temp_dir().join(format!("cc-langfuse-bench-{name}-{}.jsonl", std::process::id()));
    generate::transcript(&path, BYTES, mix).expect("room for the sample");
    path
}

/// The baseline: reads 256 KiB at a time and splits at newlines.
fn split(path: &Path) -> usize {
    let mut file = File::open(path).expect("the sample");
    let mut buffer = vec![0; 256 << 10];
    let (mut lines, mut count) = (Lines::at(0), 0);
    loop {
        match file.read(&mut buffer).expect("the sample") {
            0 => return count,
            n => lines.feed(&buffer[..n], |_, line| {
                black_box(line);
                count += 1;
            }),
        }
    }
}

/// The baseline with the standard library: a buffer of 256 KiB, each line copied out of it.
fn read_until(path: &Path) -> usize {
    let mut file = BufReader::with_capacity(256 << 10, File::open(path).expect("the sample"));
    let (mut line, mut count) = (Vec::new(), 0);
    while file.read_until(b'\n', &mut line).expect("the sample") > 0 {
        black_box(&line);
        line.clear();
        count += 1;
    }
    count
}

fn spans(path: &Path) -> usize {
    count(path, Options::default())
}

/// Without masking.
fn spans_unmasked(path: &Path) -> usize {
    count(path, Options { unredacted: true, ..Options::default() })
}

fn count(path: &Path, options: Options) -> usize {
    let mut count = 0;
    rebuild::turns(path, "bench", &options, &Rules::default(), |turn| count += black_box(turn).len())
        .expect("the sample");
    count
}

fn bench(bencher: Bencher<'_, '_>, path: &'static Path, work: fn(&Path) -> usize) {
    bencher.counter(BytesCount::new(std::fs::metadata(path).expect("the sample").len())).bench(|| work(path));
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn a_split_mixed(bencher: Bencher<'_, '_>) {
    bench(bencher, mixed(), split);
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn a_read_until_mixed(bencher: Bencher<'_, '_>) {
    bench(bencher, mixed(), read_until);
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn b_spans_unmasked_mixed(bencher: Bencher<'_, '_>) {
    bench(bencher, mixed(), spans_unmasked);
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn b_spans_mixed(bencher: Bencher<'_, '_>) {
    bench(bencher, mixed(), spans);
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn c_split_conversation(bencher: Bencher<'_, '_>) {
    bench(bencher, conversation(), split);
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn c_read_until_conversation(bencher: Bencher<'_, '_>) {
    bench(bencher, conversation(), read_until);
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn d_spans_unmasked_conversation(bencher: Bencher<'_, '_>) {
    bench(bencher, conversation(), spans_unmasked);
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn d_spans_conversation(bencher: Bencher<'_, '_>) {
    bench(bencher, conversation(), spans);
}
