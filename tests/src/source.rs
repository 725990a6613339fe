//! Rust sources in the form that the layering test needs: named paths, literals, lines; without comments and test code.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// One source file of a crate.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its path below the repository's root, such as `daemon/src/engine/read.rs`.
    pub path: String,
    pub text: String,
    /// Its code: comments, the insides of literals and items under `#[cfg(test)]` are blank. As long as the text.
    pub code: String,
    /// Its string literals outside test code: line number and content.
    pub literals: Vec<(usize, String)>,
    /// It is compiled for tests only.
    pub is_test: bool,
    paths: Vec<(usize, String)>,
}

impl Source {
    /// Reads `text` as the file `path`.
    pub fn new(path: &str, text: &str) -> Self {
        let (mut code, literals) = blank(text);
        let tests = test_items(&code);
        for (from, to) in &tests {
            let blank: String = code[*from..*to].chars().map(|c| if c == '\n' { c } else { ' ' }).collect();
            code.replace_range(from..to, &blank);
        }
        let is_outside = |at: &usize| !tests.iter().any(|(from, to)| (from..to).contains(&at));
        let literals = literals.into_iter().filter(|(at, _)| is_outside(at));
        let lines = Lines::of(text);
        let literals = literals.map(|(at, literal)| (lines.number(at), literal)).collect();
        let is_test = path.contains("/tests/") || path.ends_with("/tests.rs");
        let paths = paths(&code, &lines);
        Self { path: path.to_owned(), text: text.to_owned(), code, literals, is_test, paths }
    }

    /// The module of the file, from the crate's root `src`: `["engine", "read"]`. Empty for the root itself.
    pub fn module(&self) -> Vec<&str> {
        let below = self.path.split_once("/src/").map_or("", |(_, below)| below).trim_end_matches(".rs");
        let mut steps: Vec<&str> = below.split('/').collect();
        if matches!(steps.last(), Some(&("mod" | "lib" | "main"))) {
            steps.pop();
        }
        steps
    }

    /// Every path in its code, such as `std::fs::read`, with its line number; `use` trees are split into single paths.
    pub fn paths(&self) -> &[(usize, String)] {
        &self.paths
    }

    /// The other top-level modules of its own crate that its code names, by `crate` or `super`.
    pub fn imports(&self) -> Vec<(usize, String)> {
        let module = self.module();
        let own = module.first().copied();
        let resolved = self.paths.iter().filter_map(|(line, path)| {
            let mut steps = path.split("::").peekable();
            let mut at: Vec<&str> = match steps.next()? {
                "crate" => Vec::new(),
                "super" => module.split_last().map(|(_, above)| above.to_vec())?,
                _ => return None,
            };
            while steps.next_if_eq(&"super").is_some() {
                at.pop();
            }
            let target = at.first().copied().or_else(|| steps.next())?;
            (Some(target) != own && !target.is_empty()).then(|| (*line, target.to_owned()))
        });
        resolved.collect::<BTreeSet<_>>().into_iter().collect()
    }
}

/// All sources below `dirs` of the repository at `root`, except generated ones (`target`).
///
/// # Panics
/// If they cannot be read.
pub fn sources(root: &Path, dirs: &[&str]) -> Vec<Source> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path()) {
            if entry.is_dir() && entry.file_name().is_none_or(|name| name != "target") {
                walk(&entry, found);
            } else if entry.extension().is_some_and(|ext| ext == "rs") {
                found.push(entry);
            }
        }
    }
    let mut files = Vec::new();
    dirs.iter().for_each(|dir| walk(&root.join(dir), &mut files));
    files.sort();
    files.dedup();
    let read = |file: &PathBuf| {
        let path = file.strip_prefix(root).expect("below the root").to_string_lossy().into_owned();
        Source::new(&path, &fs::read_to_string(file).expect("a source"))
    };
    let mut sources: Vec<Source> = files.iter().map(read).collect();
    mark_test_modules(&mut sources);
    sources
}

/// `#[cfg(test)] mod x;` makes `x.rs` and everything below it test code.
fn mark_test_modules(sources: &mut [Source]) {
    let mut tests = Vec::new();
    for source in sources.iter() {
        let mut after = source.text.split("#[cfg(test)]\n").skip(1);
        let named = after.by_ref().filter_map(|item| {
            let item = item.trim_start().trim_start_matches("pub ").trim_start_matches("pub(crate) ");
            let (name, _) = item.strip_prefix("mod ")?.lines().next()?.split_once(';')?;
            Some(name.to_owned())
        });
        let dir = source.path.trim_end_matches(".rs").trim_end_matches("/mod").trim_end_matches("/lib");
        tests.extend(named.map(|name| format!("{dir}/{name}")));
    }
    for source in sources {
        let path = source.path.trim_end_matches(".rs");
        source.is_test |= tests.iter().any(|test| path == test || path.starts_with(&format!("{test}/")));
    }
}

/// The offsets at which the lines of a text begin.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect())
    }

    /// The number of the line that contains the byte `at`, from 1.
    fn number(&self, at: usize) -> usize {
        self.0.partition_point(|start| *start <= at)
    }
}

fn paths(code: &str, lines: &Lines) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut rest = 0;
    while let Some(at) = next_path(code, rest) {
        let (end, paths) = path_tree(code, at);
        let line = lines.number(at);
        found.extend(paths.into_iter().filter(|path| path.contains("::")).map(|path| (line, path)));
        rest = end.max(at + 1);
    }
    found
}

/// The code without comments and literals, of the same length, and the string literals with their offsets.
fn blank(text: &str) -> (String, Vec<(usize, String)>) {
    let bytes = text.as_bytes();
    let (mut code, mut literals, mut at) = (bytes.to_vec(), Vec::new(), 0);
    let mut wipe = |from: usize, to: usize| {
        code[from..to].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
    };
    while at < bytes.len() {
        let rest = &text.as_bytes()[at..];
        let is_new_word = at == 0 || !(bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
        let end = if rest.starts_with(b"//") {
            at + rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())
        } else if rest.starts_with(b"/*") {
            at + rest.windows(2).position(|two| two == b"*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(hashes) = raw_hashes(rest).filter(|_| is_new_word) {
            let open = at + rest.iter().position(|byte| *byte == b'"').unwrap_or(0) + 1;
            let close = format!("\"{}", "#".repeat(hashes));
            let inner = text[open..].find(&close).map_or(text.len(), |end| open + end);
            literals.push((at, text[open..inner].to_owned()));
            (inner + close.len()).min(text.len())
        } else if rest[0] == b'"' {
            let mut end = at + 1;
            while end < bytes.len() && bytes[end] != b'"' {
                end += if bytes[end] == b'\\' { 2 } else { 1 };
            }
            let end = end.min(bytes.len());
            literals.push((at, text[at + 1..end].to_owned()));
            (end + 1).min(bytes.len())
        } else if rest[0] == b'\'' {
            character(rest).map_or(at, |length| at + length)
        } else {
            at
        };
        wipe(at, end);
        at = end.max(at + 1);
    }
    (String::from_utf8(code).expect("text with blanks"), literals)
}

/// The number of hashes of a raw string literal at the start of `rest`; `None` if there is none.
fn raw_hashes(rest: &[u8]) -> Option<usize> {
    let rest = rest.strip_prefix(b"b").unwrap_or(rest).strip_prefix(b"r")?;
    let hashes = rest.iter().take_while(|byte| **byte == b'#').count();
    (rest.get(hashes) == Some(&b'"')).then_some(hashes)
}

/// The length of the character literal at the start of `rest`; `None` for a lifetime.
fn character(rest: &[u8]) -> Option<usize> {
    if rest.get(1) == Some(&b'\\') {
        let close = rest.iter().skip(3).position(|byte| *byte == b'\'')?;
        return Some(close + 4);
    }
    let width = std::str::from_utf8(&rest[1..rest.len().min(5)]).map_or_else(
        |error| std::str::from_utf8(&rest[1..=error.valid_up_to()]).ok().and_then(|text| text.chars().next()),
        |text| text.chars().next(),
    )?;
    let end = 1 + width.len_utf8();
    (rest.get(end) == Some(&b'\'')).then_some(end + 1)
}

/// The ranges of items under `#[cfg(test)]` in `code`.
fn test_items(code: &str) -> Vec<(usize, usize)> {
    let mut found: Vec<(usize, usize)> = Vec::new();
    for (from, mark) in code.match_indices("#[cfg(test)]") {
        if found.last().is_some_and(|(_, end)| from < *end) {
            continue;
        }
        let is_use = code[from + mark.len()..].trim_start().trim_start_matches("pub ").starts_with("use ");
        let (mut depth, mut end) = (0, code.len());
        for (at, byte) in code.bytes().enumerate().skip(from + mark.len()) {
            match byte {
                b'{' | b'(' | b'[' => depth += 1,
                b'}' | b')' | b']' => depth -= 1,
                _ => {}
            }
            if depth == 0 && (byte == b';' || byte == b'}' && !is_use) {
                end = at + 1;
                break;
            }
        }
        found.push((from, end));
    }
    found
}

/// Where the next path begins, at or after `from`.
fn next_path(code: &str, from: usize) -> Option<usize> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = code.as_bytes();
    (from..bytes.len()).find(|at| is_word(bytes[*at]) && (*at == 0 || !is_word(bytes[at - 1])))
}

/// The paths of the tree that begins at `at`, and where it ends: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn path_tree(code: &str, at: usize) -> (usize, Vec<String>) {
    let bytes = code.as_bytes();
    let skip = |mut at: usize| {
        while bytes.get(at).is_some_and(u8::is_ascii_whitespace) {
            at += 1;
        }
        at
    };
    let word = code[at..].find(|c: char| !c.is_ascii_alphanumeric() && c != '_').map_or(code.len(), |end| at + end);
    let name = &code[at..word];
    let mut end = skip(word);
    if !code[end..].starts_with("::") {
        return (word, vec![name.to_owned()]);
    }
    end = skip(end + 2);
    if code[end..].starts_with('*') {
        return (end + 1, vec![format!("{name}::*")]);
    }
    if !code[end..].starts_with('{') {
        let is_step = bytes.get(end).is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_');
        if !is_step {
            return (end.max(word), vec![name.to_owned()]);
        }
        let (end, below) = path_tree(code, end);
        return (end, below.into_iter().map(|path| format!("{name}::{path}")).collect());
    }
    let mut paths = Vec::new();
    end = skip(end + 1);
    while end < code.len() && !code[end..].starts_with('}') {
        if bytes[end].is_ascii_alphanumeric() || bytes[end] == b'_' {
            let (after, below) = path_tree(code, end);
            paths.extend(below.into_iter().map(|path| format!("{name}::{path}")));
            end = skip(after);
            // `a as b`
            if code[end..].starts_with("as ") {
                end = code[end..].find([',', '}']).map_or(code.len(), |more| end + more);
            }
        } else {
            end = skip(end + code[end..].chars().next().map_or(1, char::len_utf8));
        }
    }
    ((end + 1).min(code.len()), paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_comments_and_test_code_are_blank() {
        let text = r##"
use std::{fs, io::{self, Read as _}}; // std::env
/* std::net */
fn f<'a>(x: &'a str) -> char { let _ = ("std::thread", r#"raw "std::x""#, b"bytes", '"', '\'', 'é'); g::<u8>(); '\u{2028}' }
#[cfg(test)]
use std::{process, thread};
#[cfg(test)]
mod tests { fn g() { std::time::Instant::now(); "SELECT"; } }
const AFTER: &str = "after";
"##;
        let source = Source::new("daemon/core/src/a/b.rs", text);
        let paths: Vec<String> = source.paths().iter().map(|(_, path)| path.clone()).collect();
        assert_eq!(paths, ["std::fs", "std::io::self", "std::io::Read"]);
        let literals: Vec<&str> = source.literals.iter().map(|(_, literal)| literal.as_str()).collect();
        assert_eq!(literals, ["std::thread", "raw \"std::x\"", "bytes", "after"]);
        assert_eq!(source.literals.last().unwrap().0, 9);
        assert_eq!(source.code.len(), text.len());
    }

    #[test]
    fn imports_are_resolved_relative_to_their_module() {
        for (path, text, expect) in [
            ("daemon/src/a.rs", "use crate::{b::C, a::d, e};", vec!["b", "e"]),
            ("daemon/src/a.rs", "use super::b::C; use super::a::X;", vec!["b"]),
            ("daemon/src/a/b.rs", "use super::c; use super::super::d::E; fn f() { crate::g::h() }", vec!["d", "g"]),
            ("daemon/src/a/mod.rs", "use super::b;", vec!["b"]),
            ("daemon/src/a.rs", "use std::fs; fn f() { self::x::y() }", vec![]),
        ] {
            let found: BTreeSet<String> = Source::new(path, text).imports().into_iter().map(|(_, name)| name).collect();
            assert_eq!(found, expect.into_iter().map(str::to_owned).collect(), "{path} {text}");
        }
    }
}
