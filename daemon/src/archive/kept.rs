//! What an archive has, and what must go because it has too much.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
};

use crate::{
    files::{Refused, dir},
    reader,
};
use cc_core::transcript::is_name;

/// The name of the archive in the daemon's directory.
pub const DIRECTORY: &str = "archive";

/// The file that says what was removed.
const MARK: &str = "removed";

/// How many levels of directories a session has.
const DEPTH: usize = 8;

/// The directory for the copy of a transcript.
pub(super) fn place(archive: &Path, transcript: &Path) -> Option<PathBuf> {
    transcript.parent().and_then(Path::file_name).map(|project| archive.join(project))
}

/// What was removed last because the archive had reached its limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// When the newest of it was written, Unix milliseconds. Nothing older is added under the same limit: it would be the next to go.
    newest: i64,
    /// The limit then, in bytes.
    limit: u64,
    /// How many sessions were removed in all.
    pub removed: u64,
}

impl Mark {
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split_whitespace();
        Some(Self {
            newest: numbers.next()?.parse().ok()?,
            limit: numbers.next()?.parse().ok()?,
            removed: numbers.next()?.parse().ok()?,
        })
    }
}

/// A session in the archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Copied {
    /// When its transcript was written, Unix milliseconds.
    written: i64,
    bytes: u64,
}

#[derive(Debug, Default)]
pub(super) struct Kept {
    sessions: BTreeMap<String, Copied>,
    pub(super) mark: Mark,
}

impl Kept {
    /// What is in this archive.
    pub(super) fn find(archive: &Path) -> Self {
        let mark = dir::there(archive, 1).ok().flatten().and_then(|dir| dir.read(MARK, 256).ok().flatten());
        let mark = mark.and_then(|text| Mark::parse(std::str::from_utf8(&text).ok()?)).unwrap_or_default();
        let mut kept = Self { sessions: BTreeMap::new(), mark };
        for project in directories(archive) {
            // Subagents beside the transcripts of all sessions count for none, but take room.
            for entry in std::fs::read_dir(&project).into_iter().flatten().filter_map(Result::ok) {
                let path = entry.path();
                let Some(id) = path.file_stem().and_then(OsStr::to_str).filter(|id| is_session(id)) else { continue };
                if path.extension().is_some_and(|ext| ext == "jsonl") {
                    kept.sessions.entry(id.to_owned()).or_default().add(&path);
                }
            }
        }
        kept
    }

    /// Looks again at a session.
    pub(super) fn look(&mut self, archive: &Path, id: &str) {
        self.sessions.remove(id);
        for project in directories(archive) {
            let path = project.join(format!("{id}.jsonl"));
            if path.exists() {
                self.sessions.entry(id.to_owned()).or_default().add(&path);
            }
        }
    }

    pub(super) fn sessions(&self) -> usize {
        self.sessions.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.sessions.values().map(|copied| copied.bytes).sum()
    }

    /// True if a session that was written then would be the next to go.
    pub(super) fn is_too_old(&self, id: &str, written: i64, limit: u64) -> bool {
        self.mark.limit == limit && written <= self.mark.newest && !self.sessions.contains_key(id)
    }

    /// Removes the oldest sessions until the others are within `limit`. Returns how many, if there are any.
    pub(super) fn shrink(&mut self, archive: &Path, limit: u64) -> Option<usize> {
        let mut removed = 0;
        let mut bytes = self.bytes();
        while bytes > limit {
            let oldest = self.sessions.iter().min_by_key(|(_, copied)| copied.written);
            let (id, copied) = oldest.map(|(id, copied)| (id.clone(), *copied))?;
            if let Err(error) = remove(archive, &id) {
                tracing::warn!(session = id, %error, "cannot be removed from the archive");
                break;
            }
            bytes -= copied.bytes;
            self.sessions.remove(&id);
            let newest = if self.mark.limit == limit { self.mark.newest.max(copied.written) } else { copied.written };
            self.mark = Mark { newest, limit, removed: self.mark.removed + 1 };
            removed += 1;
        }
        if removed == 0 {
            return None;
        }
        let Mark { newest, limit, removed: all } = self.mark;
        let written = dir::made(archive, 1).map_err(io::Error::other);
        let written = written.and_then(|dir| dir.put(format!("{newest} {limit} {all}\n").as_bytes(), &dir, MARK));
        if let Err(error) = written {
            tracing::warn!(%error, "what was removed from the archive cannot be noted");
        }
        Some(removed)
    }
}

impl Copied {
    fn add(&mut self, transcript: &Path) {
        let Ok(meta) = std::fs::symlink_metadata(transcript) else { return };
        let modified = meta.modified().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
        let modified = modified.and_then(|at| i64::try_from(at.as_millis()).ok()).unwrap_or_default();
        self.written = self.written.max(modified);
        self.bytes += meta.len() + size(&transcript.with_extension(""), DEPTH);
    }
}

fn is_session(id: &str) -> bool {
    is_name(id) && !id.starts_with("agent-")
}

/// The directories of projects in an archive.
fn directories(archive: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(archive).into_iter().flatten().filter_map(Result::ok);
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

/// Bytes of the files in a directory.
fn size(dir: &Path, depth: usize) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    let of = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() && depth > 0 => size(&entry.path(), depth - 1),
        Ok(meta) if meta.is_file() => meta.len(),
        _ => 0,
    };
    entries.map(of).sum()
}

/// Removes the copies of a session and of its subagents. False if there are none.
///
/// # Errors
/// If a file cannot be removed.
pub(super) fn remove(archive: &Path, id: &str) -> io::Result<bool> {
    if !is_session(id) {
        return Ok(false);
    }
    let mut removed = false;
    for project in directories(archive) {
        let its: Vec<PathBuf> =
            reader::loose_agents(&project).into_iter().filter(|path| reader::names_session(path, id)).collect();
        let Ok(Some(dir)) = dir::there(&project, 2) else { continue };
        removed |= dir.remove(&format!("{id}.jsonl"))?;
        match dir.remove_all(id, DEPTH) {
            Ok(_) | Err(Refused::NotAFile) => {}
            Err(refused) => return Err(io::Error::other(refused)),
        }
        for path in its {
            let description = path.with_extension("meta.json");
            for path in [&path, &description] {
                if let Some(name) = path.file_name().and_then(OsStr::to_str) {
                    dir.remove(name)?;
                }
            }
        }
        drop(dir);
        // Unless others are in it.
        let _ = std::fs::remove_dir(&project);
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An archive with sessions of 100 bytes each, the first written first.
    fn archive(ids: &[&str]) -> tempfile::TempDir {
        let base = tempfile::tempdir().unwrap();
        for (n, id) in ids.iter().enumerate() {
            let project = base.path().join(format!("-p{}", n % 2));
            std::fs::create_dir_all(project.join(id).join("subagents")).unwrap();
            std::fs::write(project.join(id).join("subagents/agent-x.jsonl"), vec![b'x'; 40]).unwrap();
            let path = project.join(format!("{id}.jsonl"));
            std::fs::write(&path, vec![b'x'; 60]).unwrap();
            let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1000 * (n as u64 + 1));
            std::fs::File::options().write(true).open(path).unwrap().set_modified(at).unwrap();
        }
        base
    }

    #[test]
    fn the_oldest_go_first_and_nothing_older_comes_back_under_the_same_limit() {
        let base = archive(&["a", "b", "c", "d"]);
        let mut kept = Kept::find(base.path());
        assert_eq!((kept.sessions(), kept.bytes()), (4, 400));
        assert_eq!(kept.shrink(base.path(), 400), None);
        assert_eq!(kept.shrink(base.path(), 250), Some(2));
        let mut kept = Kept::find(base.path());
        assert_eq!((kept.sessions(), kept.bytes(), kept.mark.removed), (2, 200, 2));
        for (id, written, limit, expect) in [
            ("a", 1_000_000, 250, true),
            ("b", 2_000_000, 250, true),
            ("e", 2_000_001, 250, false),
            ("a", 1_000_000, 251, false),
            ("c", 1_000_000, 250, false),
        ] {
            assert_eq!(kept.is_too_old(id, written, limit), expect, "{id} {written} {limit}");
        }
        assert_eq!(kept.shrink(base.path(), 0), Some(2));
        assert_eq!((Kept::find(base.path()).sessions(), Kept::find(base.path()).mark.removed), (0, 4));
        assert!(!base.path().join("-p0").exists(), "empty directories go too");
    }

    #[test]
    fn a_session_is_removed_with_its_subagents_and_no_other() {
        let base = archive(&["a", "b", "c"]);
        let project = base.path().join("-p0");
        let agent = |session: &str| format!("{{\"sessionId\":\"{session}\"}}\n");
        std::fs::write(project.join("agent-1.jsonl"), agent("a")).unwrap();
        std::fs::write(project.join("agent-1.meta.json"), "{}").unwrap();
        std::fs::write(project.join("agent-2.jsonl"), agent("c")).unwrap();
        assert!(remove(base.path(), "a").unwrap() && !remove(base.path(), "a").unwrap());
        for id in ["../-p1/b", "agent-2", "", "."] {
            assert!(!remove(base.path(), id).unwrap(), "{id}");
        }
        let mut left: Vec<_> = std::fs::read_dir(&project)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["agent-2.jsonl", "c", "c.jsonl"]);
        assert_eq!(Kept::find(base.path()).sessions(), 2);
    }
}
