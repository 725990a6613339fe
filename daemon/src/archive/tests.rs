use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use jiff::tz::TimeZone;

use super::{copy, kept};
use crate::{
    index::{Filter, Index, Source},
    reader::{Transcript, Unreadable},
};
use cc_core::{
    redact::Redactor,
    usage::{By, Report},
};

/// Every transcript of a session below `dir`.
fn sessions(dir: &Path) -> Vec<Source> {
    let mut found = Vec::new();
    for project in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()) {
        for path in fs::read_dir(&project).unwrap().map(|entry| entry.unwrap().path()) {
            let id = path.file_stem().unwrap().to_str().unwrap().to_owned();
            if path.extension().is_some_and(|ext| ext == "jsonl") && !id.starts_with("agent-") {
                found.push(Source::new(path, id));
            }
        }
    }
    found.sort_by(|one, other| one.session_id.cmp(&other.session_id));
    found
}

/// All that `usage` says of the sessions below `dir`.
fn figures(dir: &Path, rules: &Redactor) -> Vec<Report> {
    let mut index = Index::in_memory().unwrap();
    index.update(&sessions(dir), rules, &mut |_| {}).unwrap();
    let all =
        [By::Day, By::Project, By::Model, By::Session, By::Tool, By::Skill, By::Agent, By::Mcp, By::Plugin, By::Branch];
    let report = |by: &By| {
        let mut report = index.usage(&Filter::default(), *by, &TimeZone::UTC).unwrap();
        // In which order costs are added depends on which session was read first.
        let rows = report.rows.iter_mut().chain([&mut report.total, &mut report.untraced]);
        rows.flat_map(|row| &mut row.cost_usd).for_each(|cost| *cost = (*cost * 1e9).round());
        report
    };
    all.iter().map(report).collect()
}

fn copy_all(from: &Path, to: &Path, rules: &Redactor) {
    for Source { path, session_id, .. } in sessions(from) {
        let length = fs::metadata(&path).unwrap().len();
        let roots = [from.to_path_buf()];
        copy::Session { transcript: &path, id: &session_id, length, roots: &roots, rules }.copy_to(to).unwrap();
    }
}

fn recordings() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").canonicalize().unwrap();
    let entries = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path().join("projects"));
    let mut found: Vec<PathBuf> = entries.filter(|path| path.exists()).collect();
    found.sort();
    assert!(found.len() > 40, "{found:?}");
    found
}

/// Copies the files below `from` to `to`, each up to `share` quarters.
fn grow(from: &Path, to: &Path, share: usize) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        let there = to.join(entry.file_name());
        if entry.path().is_dir() {
            grow(&entry.path(), &there, share);
            continue;
        }
        let bytes = fs::read(entry.path()).unwrap();
        let known = fs::metadata(&there).map_or(0, |meta| meta.len() as usize);
        let cut = if entry.path().extension().is_some_and(|ext| ext == "jsonl") {
            bytes.len() * share / 4
        } else {
            bytes.len()
        };
        let mut file = fs::File::options().create(true).append(true).open(&there).unwrap();
        std::io::Write::write_all(&mut file, &bytes[known.min(cut)..cut]).unwrap();
    }
}

fn text(path: &Path) -> Vec<u8> {
    let mut file = Transcript::open(path).unwrap();
    file.start(usize::MAX).unwrap()
}

#[test]
fn the_figures_of_the_copies_are_those_of_every_recording() {
    let own: Vec<(String, String)> = ["msg_[A-Za-z0-9]+", "req_[A-Za-z0-9]+", "toolu_[A-Za-z0-9]+", "(?i)the"]
        .iter()
        .enumerate()
        .map(|(n, pattern)| (format!("own-{n}"), (*pattern).to_owned()))
        .collect();
    let own = Redactor::with_extra(&own).unwrap();
    let mut calls = 0;
    for recording in recordings() {
        for rules in [Redactor::built_in(), &own] {
            let archive = tempfile::tempdir().unwrap();
            copy_all(&recording, archive.path(), rules);
            let (expect, is) = (figures(&recording, rules), figures(archive.path(), rules));
            calls += expect[0].total.calls;
            assert_eq!(is, expect, "{}", recording.display());
        }
    }
    assert!(calls > 300, "{calls}");
}

#[test]
fn a_copy_that_grows_is_the_copy_of_the_whole() {
    for recording in recordings() {
        let (base, archive, whole) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let projects = base.path().canonicalize().unwrap().join("projects");
        for share in 1..=4 {
            grow(&recording, &projects, share);
            copy_all(&projects, archive.path(), Redactor::built_in());
        }
        copy_all(&projects, whole.path(), Redactor::built_in());
        for Source { path, session_id, .. } in sessions(&projects) {
            let copied = |dir: &Path| text(&kept::place(dir, &path).unwrap().join(path.file_name().unwrap()));
            let (grown, whole) = (copied(archive.path()), copied(whole.path()));
            assert!(grown == whole, "{}: {} of {}", path.display(), grown.len(), whole.len());
            assert!(copy::is_current(archive.path(), &path, &session_id), "{}", path.display());
        }
        let (expect, is) = (figures(&recording, Redactor::built_in()), figures(archive.path(), Redactor::built_in()));
        assert_eq!(is, expect, "{}", recording.display());
    }
}

/// A project with a session of `lines` lines of 1 kB, an archive, and the path of the copy.
struct One {
    _base: tempfile::TempDir,
    projects: PathBuf,
    archive: PathBuf,
    path: PathBuf,
    copy: PathBuf,
}

impl One {
    fn new(lines: usize) -> Self {
        let base = tempfile::tempdir().unwrap();
        let root = base.path().canonicalize().unwrap();
        let (projects, archive) = (root.join("projects"), root.join("archive"));
        fs::create_dir_all(projects.join("-p")).unwrap();
        let (path, copy) = (projects.join("-p/s.jsonl"), archive.join("-p/s.jsonl"));
        let one = Self { _base: base, projects, archive, path, copy };
        one.write(0..lines);
        one
    }

    fn write(&self, lines: std::ops::Range<usize>) {
        let mut file = fs::File::options().create(true).append(true).open(&self.path).unwrap();
        for n in lines {
            let line = format!("{{\"type\":\"user\",\"uuid\":\"u{n}\",\"text\":\"{}\"}}\n", "x".repeat(1000));
            std::io::Write::write_all(&mut file, line.as_bytes()).unwrap();
        }
    }

    fn copy(&self) {
        copy_all(&self.projects, &self.archive, Redactor::built_in());
    }

    fn is_current(&self) -> bool {
        copy::is_current(&self.archive, &self.path, "s")
    }
}

#[test]
fn only_what_is_new_is_written_and_any_piece_can_be_read() {
    let one = One::new(3000);
    assert!(!one.is_current());
    one.copy();
    let (original, before) = (fs::read(&one.path).unwrap(), fs::metadata(&one.copy).unwrap());
    assert!(one.is_current() && text(&one.copy) == original);
    assert!(before.len() < original.len() as u64 / 20, "{} of {}", before.len(), original.len());
    let mut file = Transcript::open(&one.copy).unwrap();
    for at in [0, 1, 999_999, 1_048_576, 2_500_000, original.len() - 64, original.len()] {
        file.seek(at as u64).unwrap();
        let mut piece = [0; 64];
        let read = file.read(&mut piece).unwrap();
        assert_eq!(piece[..read], original[at..at + read], "{at}");
        assert_eq!(read == 0, at == original.len(), "{at}");
        let from = at.saturating_sub(64);
        assert_eq!(file.before(at as u64).as_deref(), Some(&original[from..at]), "{at}");
    }
    // A short read would be taken for the end.
    file.seek(0).unwrap();
    let mut most = vec![0; original.len() - 10];
    assert_eq!(file.read(&mut most).unwrap(), most.len());
    let packed = fs::read(&one.copy).unwrap();
    one.write(3000..3001);
    assert!(!one.is_current());
    one.copy();
    let after = fs::metadata(&one.copy).unwrap();
    assert_eq!(after.ino(), before.ino());
    assert!(fs::read(&one.copy).unwrap().starts_with(&packed) && after.len() - before.len() < 400, "{after:?}");
    assert!(one.is_current() && text(&one.copy) == fs::read(&one.path).unwrap());
    assert_eq!(after.modified().unwrap(), fs::metadata(&one.path).unwrap().modified().unwrap());
    assert_eq!((after.mode() & 0o777, fs::metadata(&one.archive).unwrap().mode() & 0o777), (0o600, 0o700));
}

#[test]
fn a_torn_or_damaged_copy_is_made_again_and_reads_as_far_as_it_is_whole() {
    let one = One::new(2500);
    one.copy();
    let (original, whole) = (fs::read(&one.path).unwrap(), fs::read(&one.copy).unwrap());
    // Some cuts are within the header of a block, some within its frame, and one is between two.
    for cut in [whole.len() - 1, whole.len() - 300, whole.len() / 2, 100, 57, 56, 30] {
        fs::write(&one.copy, &whole[..cut]).unwrap();
        assert!(!one.is_current(), "{cut}");
        if cut > 56 {
            let left = text(&one.copy);
            assert!(original.starts_with(&left) && left.len() < original.len(), "{cut}");
            assert!(left.is_empty() || left.ends_with(b"\n"), "{cut}");
        }
        one.copy();
        assert!(one.is_current() && text(&one.copy) == original, "{cut}");
    }
    // A bit that the disk turned, in a header or in a frame.
    for at in [13, 17, 21, 45, 53, 60, whole.len() - 10] {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs::write(&one.copy, &damaged).unwrap();
        let read = Transcript::open(&one.copy).and_then(|mut file| Ok::<_, Unreadable>(file.start(usize::MAX)?));
        assert!(
            read.is_err() || read.is_ok_and(|text| original.starts_with(&text) && text.len() < original.len()),
            "{at}"
        );
    }
    // What was left by a writer that was killed.
    fs::remove_file(&one.copy).unwrap();
    fs::write(one.copy.with_file_name(".unfinished"), &whole[..500]).unwrap();
    one.copy();
    assert!(one.is_current() && text(&one.copy) == original);
    assert!(!one.copy.with_file_name(".unfinished").exists());
}

#[test]
fn a_transcript_that_was_rewritten_is_copied_as_a_whole() {
    let one = One::new(100);
    one.copy();
    fs::remove_file(&one.path).unwrap();
    one.write(50..200);
    one.copy();
    assert_eq!(text(&one.copy), fs::read(&one.path).unwrap());
    // An unfinished line waits for its end.
    let whole = fs::read(&one.path).unwrap();
    fs::write(&one.path, [&whole[..], b"{\"type\":\"user\""].concat()).unwrap();
    one.copy();
    assert_eq!(text(&one.copy), whole);
    fs::write(&one.path, [&whole[..], b"{\"type\":\"user\"}"].concat()).unwrap();
    one.copy();
    assert_eq!(text(&one.copy), [&whole[..], b"{\"type\":\"user\"}\n"].concat(), "complete without its newline");
    assert!(one.is_current());
}
