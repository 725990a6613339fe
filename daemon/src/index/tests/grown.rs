//! However the transcripts grew, the index equals the one built at once.

use std::{collections::BTreeMap, io::Write, time::SystemTime};

use rusqlite::types::ValueRef;

use super::*;

/// Every row, with names in place of their numbers, in an order that does not depend on when it was written.
fn dump(index: &Index) -> Vec<String> {
    let name = |column: &str| format!("(SELECT text FROM name WHERE id = {column})");
    let names = |columns: &[&str]| columns.iter().map(|column| name(column)).collect::<Vec<_>>().join(", ");
    let tables = [
        format!(
            "SELECT 'session', path, bytes, session_id, {}, forked_from, parent, has_totals FROM session",
            names(&["title", "project", "branch"])
        ),
        "SELECT 'turn', path, at_byte, hex(trace), number, start, end, tools, failed_tools, agents, flags
         FROM turn JOIN session ON session.id = session"
            .to_owned(),
        format!(
            "SELECT 'call', path, at_byte, at, is_apart, input, output, cache_read, cache_write_5m, cache_write_1h, is_call,
                    is_copied, mark_1, mark_2, mark_3, is_own, {}
             FROM call JOIN session ON session.id = call.session LEFT JOIN turn ON turn.id = turn",
            names(&[
                "model", "speed", "call.agent", "call.skill", "call.mcp", "call.plugin", "call.tools", "call.project", "call.branch"
            ])
        ),
        format!(
            "SELECT 'untraced', path, at, input, output, cache_read, cache_write_5m, cache_write_1h, cost, {}
             FROM untraced JOIN session ON session.id = session",
            names(&["model", "untraced.project"])
        ),
    ];
    let mut rows = Vec::new();
    for sql in tables {
        let mut statement = index.db.prepare(&sql).unwrap();
        let columns = statement.column_count();
        let mut found = statement.query([]).unwrap();
        while let Some(row) = found.next().unwrap() {
            let cells = (0..columns).map(|column| match row.get_ref(column).unwrap() {
                ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
                other => format!("{other:?}"),
            });
            rows.push(cells.collect::<Vec<_>>().join(" | "));
        }
    }
    rows.sort();
    rows
}

/// A directory of transcripts that grow.
struct Growing {
    dir: tempfile::TempDir,
    /// What each file will hold, and how much of it is there.
    files: BTreeMap<PathBuf, (Vec<u8>, usize)>,
}

impl Growing {
    fn new(files: BTreeMap<PathBuf, Vec<u8>>) -> Self {
        let files = files.into_iter().map(|(path, bytes)| (path, (bytes, 0))).collect();
        Self { dir: tempfile::tempdir().unwrap(), files }
    }

    fn path(&self, file: &Path) -> PathBuf {
        self.dir.path().join(file)
    }

    /// Lets a file grow to its end, or up to that byte. False if it was there already.
    fn grow(&mut self, file: &Path, to: usize) -> bool {
        let path = self.path(file);
        let (bytes, written) = self.files.get_mut(file).unwrap();
        // Other files are written as a whole.
        let to = if file.extension().is_some_and(|ext| ext == "jsonl") { to.min(bytes.len()) } else { bytes.len() };
        if *written >= to && path.exists() {
            return false;
        }
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut out = fs::File::options().create(true).append(true).open(path).unwrap();
        out.write_all(&bytes[*written..to]).unwrap();
        *written = to;
        true
    }

    /// The end of the next line.
    fn next_line(&self, file: &Path) -> usize {
        let (bytes, written) = &self.files[file];
        memchr::memchr(b'\n', &bytes[*written..]).map_or(bytes.len(), |end| written + end + 1)
    }

    fn names(&self) -> Vec<PathBuf> {
        self.files.keys().cloned().collect()
    }

    fn is_complete(&self) -> bool {
        self.files.iter().all(|(file, (bytes, written))| *written == bytes.len() && self.path(file).exists())
    }

    /// The transcripts of sessions.
    fn sources(&self) -> Vec<Source> {
        let is_main = |file: &&PathBuf| {
            let name = file.file_name().unwrap().to_str().unwrap();
            file.components().count() == 2 && name.ends_with(".jsonl") && !name.starts_with("agent-")
        };
        let source = |path: PathBuf| Source::new(path.clone(), path.file_stem().unwrap().to_str().unwrap().to_owned());
        self.files.keys().filter(is_main).map(|file| self.path(file)).filter(|path| path.exists()).map(source).collect()
    }

    /// Updates the index. Returns the bytes that were read, and those that reading everything again takes.
    fn update(&self, index: &mut Index, what: &str) -> (u64, u64) {
        let sources = self.sources();
        let read = update(index, &sources).bytes;
        let mut rebuilt = Index::in_memory().unwrap();
        let all = update(&mut rebuilt, &sources).bytes;
        let (found, expect) = (dump(index), dump(&rebuilt));
        for (found, expect) in found.iter().zip(&expect) {
            assert_eq!(found, expect, "{what}");
        }
        assert_eq!(found.len(), expect.len(), "{what}");
        (read, all)
    }
}

/// The transcripts of a recording, by their paths below the directory of projects.
fn recording(name: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    fn walk(dir: &Path, root: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                walk(&entry, root, found);
            } else {
                found.insert(entry.strip_prefix(root).unwrap().to_path_buf(), fs::read(&entry).unwrap());
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name).join("projects");
    let mut found = BTreeMap::new();
    walk(&root, &root, &mut found);
    found
}

fn recordings() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
    let entries = fs::read_dir(root).unwrap().map(|entry| entry.unwrap());
    let mut names: Vec<String> = entries
        .filter(|entry| entry.path().join("projects").exists())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert!(names.len() > 40, "{names:?}");
    names
}

/// Numbers that look random, the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

#[test]
fn a_recording_that_grows_line_by_line_is_indexed_as_if_read_at_once() {
    let (mut read, mut all) = (0, 0);
    for name in recordings() {
        for reversed in [false, true] {
            let (mut growing, mut index) = (Growing::new(recording(&name)), Index::in_memory().unwrap());
            let mut files = growing.names();
            if reversed && files.len() == 1 {
                continue;
            }
            if reversed {
                files.reverse();
            }
            for file in files {
                while growing.grow(&file, growing.next_line(&file)) {
                    let what = format!("{name}, {} to {}", file.display(), growing.files[&file].1);
                    let (new, whole) = growing.update(&mut index, &what);
                    (read, all) = (read + new, all + whole);
                }
            }
        }
    }
    // Most recordings have one turn only.
    assert!(read < all, "{read} of {all} bytes");
}

#[test]
fn recordings_that_grow_in_any_pieces_and_any_order_are_indexed_as_if_read_at_once() {
    for (seed, name) in (1..).zip(recordings()) {
        for round in 0..2 {
            let mut dice = Dice(seed * 97 + round);
            let (mut growing, mut index) = (Growing::new(recording(&name)), Index::in_memory().unwrap());
            let files = growing.names();
            while !growing.is_complete() {
                let file = &files[dice.below(files.len())];
                let at = growing.files[file].1;
                let to = match dice.below(3) {
                    0 => growing.next_line(file),
                    1 => at + 1 + dice.below(400),
                    _ => at + 1 + dice.below(20_000),
                };
                if growing.grow(file, to) {
                    growing.update(&mut index, &format!("{name}, round {round}, {} to {to}", file.display()));
                }
            }
        }
    }
}

/// A session with this many turns.
fn turns(count: usize) -> String {
    (0..count).map(|n| turn(&format!("u{n}"), json!({"sessionId": "s"}))).collect()
}

fn at_once(source: &Source) -> Vec<String> {
    let mut index = Index::in_memory().unwrap();
    update(&mut index, std::slice::from_ref(source));
    dump(&index)
}

#[test]
fn an_append_costs_the_new_bytes_and_the_open_turn() {
    let (dir, mut index) = (Dir::new(), Index::in_memory().unwrap());
    let text = turns(2000);
    let one = text.len() as u64 / 2000;
    let source = dir.write("s", &text);
    let sources = std::slice::from_ref(&source);
    assert_eq!(update(&mut index, sources).bytes, text.len() as u64);
    for n in 0..3 {
        let more = turn(&format!("more{n}"), json!({}));
        fs::File::options().append(true).open(&source.path).unwrap().write_all(more.as_bytes()).unwrap();
        let updated = update(&mut index, sources);
        assert_eq!(updated.read, 1);
        assert!(updated.bytes < 3 * one, "{} bytes, a turn has {one}", updated.bytes);
    }
    assert_eq!(dump(&index), at_once(&source));
}

#[test]
fn subagents_of_closed_turns_are_not_read_again_unless_they_change() {
    let mut growing = Growing::new(recording("subagents_par"));
    let files = growing.names();
    for file in &files {
        while growing.grow(file, usize::MAX) {}
    }
    let main = files.iter().find(|file| file.components().count() == 2).unwrap().clone();
    let agents: Vec<&PathBuf> = files
        .iter()
        .filter(|file| file.components().count() > 2 && file.extension().is_some_and(|ext| ext == "jsonl"))
        .collect();
    assert!(agents.len() > 1);
    let mut index = Index::in_memory().unwrap();
    growing.update(&mut index, "at first");
    let add = |file: &Path, text: &str| {
        fs::File::options().append(true).open(file).unwrap().write_all(text.as_bytes()).unwrap();
    };
    let last = turn("u-later", json!({}));
    add(&growing.path(&main), &last);
    growing.update(&mut index, "the turn is closed");
    let more = turn("u-latest", json!({}));
    add(&growing.path(&main), &more);
    let (read, _) = growing.update(&mut index, "another turn");
    assert!(read <= (last.len() + more.len()) as u64, "{read}");
    let agent = growing.path(agents[0]);
    let text = fs::read_to_string(&agent).unwrap();
    let answer = text.lines().rev().find(|line| line.contains("\"assistant\"")).unwrap();
    add(&agent, &format!("{}\n", answer.replace("\"msg_", "\"msg_more_").replace("\"req_", "\"req_more_")));
    let (read, _) = growing.update(&mut index, "a subagent has gone on");
    assert!(read > 0);
    fs::remove_file(growing.path(agents[1])).unwrap();
    growing.update(&mut index, "a subagent is gone");
}

#[test]
fn a_transcript_that_was_replaced_truncated_or_rewritten_is_read_as_a_whole() {
    let (dir, mut index) = (Dir::new(), Index::in_memory().unwrap());
    let source = dir.write("s", &turns(50));
    let sources = std::slice::from_ref(&source);
    update(&mut index, sources);
    let text = turns(50);
    let change: [(&str, String); 4] = [
        ("longer, with other turns", turns(60).replace("u1", "x1")),
        ("shorter", turns(20)),
        ("the same length", turns(20).replace("u1", "y1")),
        ("as before, and grown", text + &turn("last", json!({}))),
    ];
    for (what, text) in change {
        for replace in [false, true] {
            if replace {
                let new = source.path.with_extension("new");
                fs::write(&new, &text).unwrap();
                fs::rename(&new, &source.path).unwrap();
            } else {
                fs::write(&source.path, &text).unwrap();
                // Even if the clock of the file system has not moved on.
                let file = fs::File::options().append(true).open(&source.path).unwrap();
                file.set_modified(SystemTime::now() + Duration::from_secs(1)).unwrap();
            }
            update(&mut index, sources);
            assert_eq!(dump(&index), at_once(&source), "{what}, replaced: {replace}");
        }
    }
}

#[test]
fn forks_and_their_origins_are_counted_once_in_whatever_order_they_come_and_grow() {
    let copied = json!({"forkedFrom": {"sessionId": "a", "messageUuid": "u1"}});
    let origin = turn("u1", json!({})) + &turn("u2", json!({})) + &turn("u3", json!({}));
    let fork =
        turn("u1", copied.clone()) + &turn("u2", copied.clone()) + &turn("f1", json!({})) + &turn("f2", json!({}));
    // Without a mark of its origin.
    let silent = turn("u1", json!({})) + &turn("g1", json!({}));
    let of_fork = turn("u1", copied)
        + &turn("f1", json!({"forkedFrom": {"sessionId": "b", "messageUuid": "f1"}}))
        + &turn("h1", json!({}));
    let files: BTreeMap<PathBuf, Vec<u8>> = [("a", origin), ("b", fork), ("c", silent), ("d", of_fork)]
        .map(|(name, text)| (PathBuf::from(format!("p/{name}.jsonl")), text.into_bytes()))
        .into();
    let names: Vec<PathBuf> = files.keys().cloned().collect();
    for seed in 0..60 {
        let mut dice = Dice(seed);
        let (mut growing, mut index) = (Growing::new(files.clone()), Index::in_memory().unwrap());
        while !growing.is_complete() {
            let file = &names[dice.below(names.len())];
            let to =
                if dice.below(2) == 0 { growing.next_line(file) } else { growing.files[file].1 + 1 + dice.below(900) };
            if growing.grow(file, to) {
                growing.update(&mut index, &format!("seed {seed}, {} to {to}", file.display()));
            }
        }
        let total = usage(&index, By::Model).pop().unwrap();
        assert_eq!((total.2, total.3), (7, 70), "seed {seed}");
    }
}
