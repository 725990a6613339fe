//! Logs transcripts that are not read: each directory once, with what to do about it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::reader::{Transcript, Unreadable, places};
use cc_core::status::Unread;

/// How many directories are named at most, because events may name any.
const MAX_NAMED: usize = 64;

/// Directories that were named, by reason, each with the first path in it.
type Named = BTreeMap<(&'static str, PathBuf), PathBuf>;

/// Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Refused {
    named: Arc<Mutex<Named>>,
    /// The directories of transcripts.
    roots: Arc<[PathBuf]>,
}

impl Refused {
    /// With nothing logged yet, for transcripts below `roots`.
    pub fn below(roots: &[PathBuf]) -> Self {
        Self { named: Arc::default(), roots: roots.into() }
    }

    /// Logs `path`, a transcript or a project's directory, unless its directory was named for this reason before. True if it did.
    pub fn name(&self, path: &Path, error: &Unreadable) -> bool {
        let dir = if is_transcript(path) { path.parent().unwrap_or(path) } else { path };
        let mut named = self.lock();
        let key = (error.reason(), dir.to_path_buf());
        let is_new = named.len() < MAX_NAMED && !named.contains_key(&key);
        if is_new {
            named.insert(key, path.to_owned());
            tracing::warn!(?path, why = %error, remedy = error.remedy(), "transcripts here are not read");
        }
        is_new
    }

    /// The logged paths that still cannot be read. The rest is forgotten, and logged again if it fails again.
    pub fn still(&self) -> Vec<Unread> {
        let mut unread = Vec::new();
        self.lock().retain(|(reason, _), path| {
            let Some(error) = self.why_not(path, reason) else { return false };
            let (why, remedy) = (error.to_string(), error.remedy().to_owned());
            unread.push(Unread { path: path.clone(), reason: error.reason().to_owned(), why, remedy });
            true
        });
        unread
    }

    /// Why `path`, which was not read for `reason`, is not read now.
    fn why_not(&self, path: &Path, reason: &str) -> Option<Unreadable> {
        if !is_transcript(path) {
            return if self.roots.iter().any(|root| root == path) {
                places::projects(path).into_iter().find(|(dir, _)| dir == path).and_then(|(_, why)| why)
            } else {
                places::why_not(path)
            };
        }
        let session = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if places::at_home(path, session, &self.roots).is_some() {
            return None;
        }
        // A session may have a directory of its own, which counts as a root for its events.
        let own = path.ancestors().nth(2).filter(|_| reason != Unreadable::Outside.reason());
        let roots = Vec::from_iter(self.roots.iter().cloned().chain(own.map(Path::to_owned)));
        Transcript::open_beneath(path, &roots).err()
    }

    fn lock(&self) -> MutexGuard<'_, Named> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_transcript(path: &Path) -> bool {
    path.extension().is_some_and(|ext| ext == "jsonl")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_directory_is_named_once_for_each_reason_and_not_without_bound() {
        let refused = Refused::default();
        let name = |path: &str, error| refused.name(Path::new(path), &error);
        assert!(name("/a/s.jsonl", Unreadable::Outside));
        assert!(!name("/a/t.jsonl", Unreadable::Outside), "the same directory");
        assert!(!name("/a", Unreadable::Outside), "the directory itself");
        assert!(name("/a/t.jsonl", Unreadable::NotAFile), "another reason");
        let more = (0..2 * MAX_NAMED).filter(|n| name(&format!("/c{n}/s.jsonl"), Unreadable::Outside)).count();
        assert_eq!(more, MAX_NAMED - 2);
    }

    #[test]
    fn what_can_be_read_by_now_is_forgotten_and_named_again_when_it_happens_again() {
        let dir = tempfile::tempdir().unwrap();
        let (root, file) = (dir.path().join("root"), dir.path().join("root/-p/s.jsonl"));
        std::fs::create_dir_all(root.join("-p")).unwrap();
        std::os::unix::fs::symlink("nowhere", &file).unwrap();
        let refused = Refused::below(std::slice::from_ref(&root));
        let paths = || refused.still().into_iter().map(|unread| (unread.path, unread.reason)).collect::<Vec<_>>();
        let outside = PathBuf::from("/elsewhere/-p/other.jsonl");
        assert!(refused.name(&file, &Unreadable::NotAFile));
        assert!(refused.name(&outside, &Unreadable::Outside));
        let expect = |path: &Path, reason: &str| (path.to_owned(), reason.to_owned());
        let both = [expect(&file, "transcript_not_a_file"), expect(&outside, "transcript_outside_roots")];
        assert_eq!(paths(), both);
        std::fs::remove_file(&file).unwrap();
        std::fs::write(&file, "a\n").unwrap();
        std::fs::write(root.join("-p/other.jsonl"), "a\n").unwrap();
        assert_eq!(paths(), []);
        assert!(refused.name(&file, &Unreadable::NotAFile), "again");
    }
}
