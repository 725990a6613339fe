//! The cost of looking for secrets in text that has none, compared in one run with looking at each byte and with reading the
//! text from a file.
//!
//! `cargo bench -p cc-core --bench redact`

#![allow(clippy::disallowed_methods, reason = "it reads what it made")]

use std::{fmt::Write as _, fs::File, io::Read, path::PathBuf, sync::OnceLock};

use divan::{Bencher, black_box, counter::BytesCount};

use cc_core::redact::{Counts, Redactor};

fn main() {
    Redactor::built_in();
    divan::main();
    let _ = std::fs::remove_file(file());
}

/// Small enough that some runs are undisturbed on a busy machine.
const SIZE: usize = 1 << 20;

#[derive(Clone, Copy, Debug)]
enum Text {
    /// Natural language.
    Prose,
    /// Ordinary source code, not about secrets.
    Source,
    /// Logs, listings, diffs, test results.
    Output,
    /// JSON as tools print it.
    Json,
    /// Code that handles tokens and passwords but contains none.
    NearMisses,
}

const ALL: [Text; 5] = [Text::Prose, Text::Source, Text::Output, Text::Json, Text::NearMisses];

fn text(kind: Text) -> &'static str {
    static TEXTS: OnceLock<Vec<String>> = OnceLock::new();
    let texts = TEXTS.get_or_init(|| ALL.map(make).into());
    &texts[kind as usize]
}

fn make(kind: Text) -> String {
    let sources =
        [include_str!("../src/turn.rs"), include_str!("../src/trace.rs"), include_str!("../src/transcript/record.rs")];
    let piece = match kind {
        Text::Prose => include_str!("../../../README.md").to_owned(),
        Text::Source => sources.concat(),
        Text::Output => {
            let mut text = String::new();
            for (n, line) in sources.concat().lines().enumerate() {
                let _ = match n % 5 {
                    0 => writeln!(text, "-rw-r--r-- 1 dev dev {:>8} Nov 20 08:{:02} src/file{n}.rs", n * 977, n % 60),
                    1 => writeln!(text, "test parse::case_{n}_of_many ... ok"),
                    2 => {
                        writeln!(text, "2026-11-20T08:00:{:02}Z  INFO request{{id={n:08x}}}: status=200 ms={n}", n % 60)
                    }
                    3 => writeln!(text, "+{line}"),
                    _ => writeln!(text, "src/file{n}.rs:{n}:{line}"),
                };
            }
            text
        }
        Text::Json => {
            let lines: Vec<_> = sources.concat().lines().map(str::to_owned).collect();
            let items: Vec<_> = lines
                .iter()
                .enumerate()
                .map(|(n, line)| serde_json::json!({"path": format!("src/{n}.rs"), "line": n, "match": line}))
                .collect();
            serde_json::to_string_pretty(&items).expect("JSON")
        }
        Text::NearMisses => [include_str!("../src/consent.rs"), include_str!("../src/redact/value.rs")].concat(),
    };
    let mut text = piece.repeat(1 + SIZE / piece.len());
    if matches!(kind, Text::Json) {
        text = format!("[{}]", vec![piece.as_str(); 1 + SIZE / piece.len()].join(","));
    }
    text
}

fn file() -> PathBuf {
    std::env::temp_dir().join(format!("redact-bench-{}", std::process::id()))
}

fn bench(bencher: Bencher<'_, '_>, kind: Text, work: fn(&str) -> bool) {
    let text = text(kind);
    bencher.counter(BytesCount::of_str(text)).bench(|| assert!(!work(black_box(text)), "something was masked"));
}

#[divan::bench(args = ALL, sample_count = 200, sample_size = 1)]
fn a_memchr(bencher: Bencher<'_, '_>, kind: Text) {
    bench(bencher, kind, |text| memchr::memchr(0, text.as_bytes()).is_some());
}

#[divan::bench(sample_count = 200, sample_size = 1)]
fn b_read(bencher: Bencher<'_, '_>) {
    std::fs::write(file(), text(Text::Source)).expect("a file");
    let mut buffer = vec![0; 256 << 10];
    bencher.counter(BytesCount::of_str(text(Text::Source))).bench_local(|| {
        let mut file = File::open(file()).expect("the file");
        while file.read(&mut buffer).expect("the file") > 0 {
            black_box(&buffer);
        }
    });
}

#[divan::bench(args = ALL, sample_count = 200, sample_size = 1)]
fn c_scrub(bencher: Bencher<'_, '_>, kind: Text) {
    bench(bencher, kind, |text| Redactor::built_in().scrub(text, &mut Counts::new()).is_some());
}

#[divan::bench(args = [Text::Json], sample_count = 200, sample_size = 1)]
fn d_scrub_json(bencher: Bencher<'_, '_>, kind: Text) {
    bench(bencher, kind, |text| Redactor::built_in().scrub_json(text, &mut Counts::new()).is_some());
}
