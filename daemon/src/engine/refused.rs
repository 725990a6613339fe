//! Logs transcripts that are not read: each directory once, with what to do about it.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use crate::reader::Unreadable;

/// How many directories are named at most, because events may name any.
const MAX_NAMED: usize = 64;

/// Directories that were named, by reason.
#[derive(Clone, Debug, Default)]
pub struct Refused(Arc<Mutex<HashSet<(&'static str, PathBuf)>>>);

impl Refused {
    /// Logs `path`, a transcript or a project's directory, unless its directory was named for this reason before. A missing one
    /// is not logged, because it may never have been written. True if it was logged.
    pub fn name(&self, path: &Path, error: &Unreadable) -> bool {
        let dir = if path.extension().is_some_and(|ext| ext == "jsonl") { path.parent().unwrap_or(path) } else { path };
        let mut named = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = !matches!(error, Unreadable::Missing)
            && named.len() < MAX_NAMED
            && named.insert((error.reason(), dir.to_path_buf()));
        if is_new {
            tracing::warn!(?path, why = %error, remedy = error.remedy(), "transcripts here are not read");
        }
        is_new
    }
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
        assert!(!name("/b/s.jsonl", Unreadable::Missing), "it may never have been there");
        let more = (0..2 * MAX_NAMED).filter(|n| name(&format!("/c{n}/s.jsonl"), Unreadable::Outside)).count();
        assert_eq!(more, MAX_NAMED - 2);
    }
}
