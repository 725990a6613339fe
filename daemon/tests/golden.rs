//! What Langfuse gets of every recorded session equals `tests/golden/langfuse.txt`: ids, parents, times, attributes.

#![allow(clippy::disallowed_methods, reason = "tests make and read their own files")]

use std::{
    collections::BTreeMap,
    fmt::Write,
    path::{Path, PathBuf},
};

use cc_core::{
    destination::{
        langfuse::encode::encode,
        wire::{Value, WireSpan},
    },
    ids::{fingerprint, hex},
    pipeline::Outgoing,
    project::{Capture, Options, Semantics},
    redact::{Redactor, Rules},
};
use cc_langfuse::rebuild;

/// To accept a wanted change: `GOLDEN=write cargo test -p daemon --test golden`.
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/langfuse.txt");

/// The head of the file.
const HEADER: &str = "# Of each span of each transcript: trace, id, parent, name, and in each of five configurations a hash of its name, times, \
status, attributes and images (- where it is not sent): spec, measured, each with text and with sizes only, and measured where a rule \
masks common words and a share of turns is sampled out.\n";

/// The options that are compared, each with its masking rules.
fn configurations() -> Vec<(Options, Rules)> {
    let of = |semantics, capture| Options {
        semantics,
        capture,
        environment: Some("staging".into()),
        release: Some("v7".into()),
        user_id: Some("ada".into()),
        tags: vec!["one".into(), "two".into()],
        metadata: [("team", "core"), ("source", "mine")].map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        ..Options::default()
    };
    let words = r"\b(the|hello|echo|Hello|SCN:\w+|main|core)\b";
    let masks = Redactor::with_extra(&[("word".to_owned(), words.to_owned())]).unwrap();
    vec![
        (of(Semantics::Spec, Capture::Full), Rules::default()),
        (of(Semantics::Measured, Capture::Full), Rules::default()),
        (of(Semantics::Spec, Capture::Metadata), Rules::default()),
        (of(Semantics::Measured, Capture::Metadata), Rules::default()),
        (Options { sample_rate: Some(0.9), ..of(Semantics::Measured, Capture::Full) }, masks.into()),
    ]
}

fn below(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

/// A hash of everything in `span` that a server reads, except its ids.
fn digest(span: &WireSpan, out: &Outgoing) -> String {
    let mut attributes: Vec<_> = span.attributes.iter().collect();
    attributes.sort_by_key(|(key, _)| key.as_ref());
    let mut all = format!("{}\n{}\n{}\n{:?}\n", span.name, span.start_ns, span.end_ns, span.status.error());
    for (key, value) in attributes {
        let value = match value {
            Value::Text(text) => format!("{text:?}"),
            Value::List(items) => format!("{items:?}"),
            other => format!("{other:?}"),
        };
        let _ = writeln!(all, "{key} {value}");
    }
    for (field, media) in &out.observation.media {
        let _ = writeln!(all, "{} {} {}", field.name(), media.kind, hex(&media.hash));
    }
    hex(&fingerprint(all.as_bytes())[..4])
}

/// The file's lines for one transcript.
fn lines(transcript: &Path, configurations: &[(Options, Rules)]) -> Vec<String> {
    let session = transcript.file_stem().unwrap().to_str().unwrap();
    let mut found: BTreeMap<(String, String, usize), (String, Vec<String>)> = BTreeMap::new();
    for (column, (options, rules)) in configurations.iter().enumerate() {
        let mut times: BTreeMap<(String, String), usize> = BTreeMap::new();
        rebuild::turns(transcript, session, options, rules, |turn| {
            for out in turn {
                let span = encode(&out.observation, &out.facts);
                let id = (hex(&span.trace_id), hex(&span.span_id));
                // A root may come again.
                let time = times.entry(id.clone()).or_default();
                let (_, digests) = found.entry((id.0, id.1, *time)).or_insert_with(|| {
                    let parent = if span.is_root() { "-".to_owned() } else { hex(&span.parent_id) };
                    (format!("{parent} {:?}", span.name), vec!["-".to_owned(); configurations.len()])
                });
                digests[column] = digest(&span, &out);
                *time += 1;
            }
        })
        .unwrap();
    }
    found
        .into_iter()
        .map(|((trace, id, _), (rest, digests))| format!("{trace} {id} {rest} {}", digests.join(" ")))
        .collect()
}

#[test]
fn every_recorded_session_reaches_langfuse_unchanged() {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures");
    let transcripts = below(fixtures.as_ref())
        .into_iter()
        .filter(|fixture| fixture.is_dir())
        .flat_map(|fixture| below(&fixture.join("projects")))
        .flat_map(|project| below(&project))
        .filter(|path| path.extension().is_some_and(|ext| ext == "jsonl"));
    let configurations = configurations();
    let (mut found, mut spans) = (HEADER.to_owned(), 0);
    for transcript in transcripts {
        let lines = lines(&transcript, &configurations);
        spans += lines.len();
        let _ = writeln!(found, "# {}\n{}", transcript.strip_prefix(fixtures).unwrap().display(), lines.join("\n"));
    }
    assert!(spans > 300, "{spans}");
    if std::env::var("GOLDEN").is_ok_and(|value| value == "write") {
        std::fs::write(GOLDEN, &found).unwrap();
    }
    let golden = std::fs::read_to_string(GOLDEN).unwrap();
    let different: Vec<_> =
        found.lines().zip(golden.lines()).filter(|(found, golden)| found != golden).take(20).collect();
    assert!(found == golden, "{} spans; different (found, expected): {different:#?}", spans);
}
