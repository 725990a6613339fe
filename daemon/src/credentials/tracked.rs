//! Is a file part of a git repository? Read from the repository's index: running `git` in a stranger's directory would run
//! what that directory configures.

use std::path::{Path, PathBuf};

use crate::files::{self, Refused, Rules};

/// Largest index that is read; about a million files.
const MAX_INDEX: u64 = 128 << 20;

/// True if git tracks `file` (absolute) in any repository around it, or if that cannot be determined.
pub fn is_tracked(file: &Path) -> bool {
    let real = std::fs::canonicalize(file).ok().filter(|real| real != file);
    std::iter::once(file).chain(real.as_deref()).any(|file| {
        file.ancestors().skip(1).any(|tree| {
            let name = file.strip_prefix(tree).unwrap_or(file);
            git_dir(tree).is_some_and(|dir| tracks(&dir, name).unwrap_or(true))
        })
    })
}

/// The repository of the working tree `tree`. In linked trees and submodules `.git` is a file that names it.
fn git_dir(tree: &Path) -> Option<PathBuf> {
    let dot_git = tree.join(".git");
    let meta = std::fs::metadata(&dot_git).ok()?;
    if meta.is_dir() {
        return Some(dot_git);
    }
    let text = files::read(&dot_git, &Rules::users(4096)).ok()?;
    let path = std::str::from_utf8(&text).ok()?.strip_prefix("gitdir:")?.trim().to_owned();
    Some(tree.join(path))
}

/// `None` if the index cannot be understood.
fn tracks(git_dir: &Path, name: &Path) -> Option<bool> {
    let bytes = match files::read(&git_dir.join("index"), &Rules::users(MAX_INDEX)) {
        Err(Refused::Missing) => return Some(false),
        read => read.ok()?,
    };
    let name = name.as_os_str().as_encoded_bytes();
    let index = Index::parse(&bytes, name)?;
    let Some(shared) = index.shared else { return Some(index.lists) };
    let shared = files::read(&git_dir.join(format!("sharedindex.{shared}")), &Rules::users(MAX_INDEX)).ok()?;
    Some(index.lists || Index::parse(&shared, name)?.lists)
}

struct Index {
    /// The index lists the name, or a directory around it that is not expanded (a sparse index).
    lists: bool,
    /// The hash of another index file with more entries.
    shared: Option<String>,
}

impl Index {
    /// `None` unless `bytes` is an index of version 2, 3 or 4.
    fn parse(bytes: &[u8], name: &[u8]) -> Option<Self> {
        // The index does not say which hash the repository uses; only the right length reaches the end of the entries.
        [20, 32].into_iter().find_map(|hash| Self::with_hash(bytes, name, hash))
    }

    fn with_hash(bytes: &[u8], name: &[u8], hash: usize) -> Option<Self> {
        let number = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let version = number(4).filter(|_| bytes.starts_with(b"DIRC")).filter(|version| (2..=4).contains(version))?;
        let mut at = 12;
        let mut lists = false;
        let mut path: Vec<u8> = Vec::new();
        for _ in 0..number(8)? {
            let start = at;
            at += 40 + hash;
            let extended = bytes.get(at)? & 0x40 != 0;
            at += if extended { 4 } else { 2 };
            if version == 4 {
                // Only the difference to the previous entry's name is written.
                let mut cut = 0usize;
                for first in [true].into_iter().chain(std::iter::repeat(false)) {
                    let byte = *bytes.get(at)?;
                    at += 1;
                    cut = (cut + usize::from(!first)).checked_mul(128)? + usize::from(byte & 0x7f);
                    if byte & 0x80 == 0 {
                        break;
                    }
                }
                path.truncate(path.len().checked_sub(cut)?);
            } else {
                path.clear();
            }
            let length = memchr::memchr(0, bytes.get(at..)?)?;
            path.extend_from_slice(&bytes[at..at + length]);
            at += length + 1;
            if version < 4 {
                at = start + (at - start).next_multiple_of(8);
            }
            // An entry that replaces one of a shared index has no name.
            let around = path.ends_with(b"/") && name.len() > path.len();
            // A link on the way is the repository's, wherever it leads.
            let is_link = number(start + 24)? & 0o170_000 == 0o120_000 && name.get(path.len()) == Some(&b'/');
            // File systems that ignore case are common.
            let same = |name: &[u8]| name.eq_ignore_ascii_case(&path);
            lists |= same(name) || (around || is_link) && same(&name[..path.len()]);
        }
        let end = bytes.len().checked_sub(hash)?;
        let mut shared = None;
        while at < end {
            let (kind, size) = (bytes.get(at..at + 4)?, usize::try_from(number(at + 4)?).ok()?);
            at += 8;
            let data = bytes.get(at..at.checked_add(size)?)?;
            if kind == b"link" {
                shared = Some(data.get(..hash)?.iter().map(|byte| format!("{byte:02x}")).collect());
            }
            at += size;
        }
        (at == end).then_some(Self { lists, shared })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Runs git in `dir`; `None` where there is no git.
    fn git(dir: &Path, args: &[&str]) -> Option<()> {
        let output = Command::new("git").current_dir(dir).env("HOME", dir).args(args).output().ok()?;
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        Some(())
    }

    #[test]
    #[allow(clippy::print_stdout, reason = "a test that is skipped says so")]
    fn what_git_tracks_is_known_in_every_form_of_its_index() {
        for (setting, object_format) in [
            ("index.version=2", "sha1"),
            ("index.version=3", "sha1"),
            ("index.version=4", "sha1"),
            ("core.splitIndex=true", "sha1"),
            ("index.version=4", "sha256"),
        ] {
            let base = tempfile::tempdir().unwrap();
            let root = base.path().canonicalize().unwrap();
            let at = |name: &str| root.join(name);
            std::fs::create_dir_all(at("deep/.claude")).unwrap();
            std::fs::create_dir_all(at(".claude")).unwrap();
            for name in ["a", "deep/.claude/settings.json", ".claude/settings.json", ".claude/settings.local.json", "z"]
            {
                std::fs::write(at(name), name).unwrap();
            }
            assert!(!is_tracked(&at("a")), "no repository");
            if git(&root, &["init", "-q", "--object-format", object_format]).is_none() {
                println!("skipped: no git here");
                return;
            }
            assert!(!is_tracked(&at("a")), "nothing added yet");
            let files = ["a", "deep/.claude/settings.json", ".claude/settings.json", "z"];
            git(&root, &[&["-c", setting, "add"], &files[..]].concat());
            if setting.starts_with("core.split") {
                git(&root, &["update-index", "--split-index"]);
            }
            for name in files {
                assert!(is_tracked(&at(name)), "{setting} {object_format}: {name}");
            }
            for name in [".claude/settings.local.json", "settings.json", "deep/.claude/settings.jso", "none"] {
                assert!(!is_tracked(&at(name)), "{setting} {object_format}: {name}");
            }
            assert!(is_tracked(&at(".Claude/Settings.json")), "by another spelling");
            std::os::unix::fs::symlink(at("deep"), at("link")).unwrap();
            assert!(is_tracked(&at("link/.claude/settings.json")), "by a link");
        }
    }

    #[test]
    fn an_index_that_is_not_understood_is_no_excuse() {
        let base = tempfile::tempdir().unwrap();
        std::fs::create_dir(base.path().join(".git")).unwrap();
        for bytes in [&b""[..], b"DIRC", b"DIRC\0\0\0\x05\0\0\0\0", b"DIRC\0\0\0\x02\0\0\0\x09", &[0xff; 300]] {
            std::fs::write(base.path().join(".git/index"), bytes).unwrap();
            assert!(is_tracked(&base.path().join("a")), "{bytes:?}");
        }
    }
}
