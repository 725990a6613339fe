//! Which session owns a turn whose prompt line is in the transcripts of two.
//!
//! A fork begins with a copy of the session it was forked from, and may continue from a prompt that has no answer
//! there yet. Each turn belongs to the session that created it, whichever is read first; the fork's own answers have
//! a trace of their own.

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
};

use crate::{
    reader::{CHUNK_BYTES, Transcript, places},
    store::handle::Handle,
};
use cc_core::{ids::trace_id, transcript::is_name, turn::Elsewhere};

/// The key of a line's id. Claude Code writes no blanks after it; other programs do.
const UUID: &[u8] = b"\"uuid\"";

/// The longest `uuid` that is read, including what is between it and its key.
const MAX_UUID_BYTES: usize = 80;

/// What is known of other sessions: what was sent of them, and the transcripts in the same directory.
pub struct Beside {
    session_id: String,
    transcript: PathBuf,
    roots: Vec<PathBuf>,
    store: Option<Handle>,
    /// Copied turns are left to the session they were copied from.
    leaves_copies: bool,
    /// The last session that was read, and its lines.
    known: Option<(String, HashSet<u64>)>,
}

impl std::fmt::Debug for Beside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Beside").field("session_id", &self.session_id).finish_non_exhaustive()
    }
}

impl Beside {
    /// For the session with this transcript; reads transcripts below `roots`.
    pub fn new(session_id: &str, transcript: &Path, roots: Vec<PathBuf>) -> Self {
        Self {
            session_id: session_id.to_owned(),
            transcript: transcript.to_path_buf(),
            roots,
            store: None,
            leaves_copies: false,
            known: None,
        }
    }

    /// Also uses what was sent of other sessions.
    #[must_use]
    pub fn and_emitted(mut self, store: Handle) -> Self {
        self.store = Some(store);
        self
    }

    /// No further line is a copy of one of `session`.
    #[must_use]
    pub fn after(mut self, session: Option<String>) -> Self {
        self.known = session.map(|session| (session, HashSet::new()));
        self
    }

    /// Leaves copied turns to the session they were copied from, if that can be read.
    #[must_use]
    pub fn leaving_copies(mut self) -> Self {
        self.leaves_copies = true;
        self
    }

    fn lines(&self, session: &str) -> HashSet<u64> {
        let path = self.transcript.with_file_name(format!("{session}.jsonl"));
        let mut lines = HashSet::new();
        let Ok(mut file) = Transcript::open_beneath(&path, &self.roots) else { return lines };
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut kept = 0;
        // If the session cannot be read to its end, the lines read so far count.
        while let Ok(n) = file.read(&mut buffer[kept..]) {
            let filled = kept + n;
            for at in memchr::memmem::find_iter(&buffer[..filled], UUID) {
                let text = &buffer[at + UUID.len()..filled];
                lines.extend(value(&text[..text.len().min(MAX_UUID_BYTES)]).map(hash));
            }
            if n == 0 {
                break;
            }
            // A key or id may be split between two pieces.
            kept = filled.min(UUID.len() + MAX_UUID_BYTES);
            buffer.copy_within(filled - kept..filled, 0);
        }
        lines
    }
}

/// The string after a key.
fn value(text: &[u8]) -> Option<&[u8]> {
    let text = text.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start().strip_prefix(b"\"")?;
    memchr::memchr(b'"', text).map(|end| &text[..end])
}

fn hash(uuid: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    uuid.hash(&mut hasher);
    hasher.finish()
}

impl Elsewhere for Beside {
    fn leaves_copies(&self) -> bool {
        self.leaves_copies
    }

    fn has(&mut self, session: &str, uuid: &str) -> bool {
        if session == self.session_id || !is_name(session) {
            return false;
        }
        if self.known.as_ref().is_none_or(|(known, _)| known != session) {
            self.known = Some((session.to_owned(), self.lines(session)));
        }
        let found = self.known.as_ref().is_some_and(|(_, lines)| lines.contains(&hash(uuid.as_bytes())));
        if !found {
            // From here on the session stands alone: the other one is not searched again.
            self.known = Some((session.to_owned(), HashSet::new()));
        }
        found
    }

    fn begins_with(&mut self, letters: &str) -> Option<String> {
        let own = self.transcript.parent()?;
        // A teammate may work in another directory than the session that leads it.
        let beside = own.parent().filter(|root| self.roots.iter().any(|known| known == root));
        let dirs = beside.into_iter().flat_map(places::projects).map(|(dir, _)| dir).filter(|dir| dir != own);
        std::iter::once(own.to_path_buf()).chain(dirs).find_map(|dir| {
            let entries = std::fs::read_dir(dir).ok()?.filter_map(Result::ok).map(|entry| entry.path());
            let mut sessions = entries.filter(|path| path.extension().is_some_and(|ext| ext == "jsonl"));
            sessions.find_map(|path| {
                let id = path.file_stem()?.to_str()?;
                (id.starts_with(letters) && id != self.session_id && is_name(id)).then(|| id.to_owned())
            })
        })
    }

    fn left(&self) -> Option<&str> {
        self.known.as_ref().filter(|(_, lines)| lines.is_empty()).map(|(session, _)| session.as_str())
    }

    fn claim(&mut self, uuid: &str) -> bool {
        let Some(store) = &self.store else { return true };
        store.call(|store| store.claim_turn(&trace_id(uuid), &self.session_id)).unwrap_or_else(|error| {
            tracing::warn!(session = self.session_id, %error, "which session a turn belongs to is not known");
            true
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_another_session_are_found_wherever_they_stand() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        // Some uuids are split between two pieces, and some have blanks before them.
        let blank = |n: usize| [" ", "", "  "][n % 3];
        let line = |n: usize| format!("{{\"text\":\"{1}\",\"uuid\"{0}:{0}\"line-{n}\"}}\n", blank(n), "x".repeat(997));
        let text: String = (0..3 * CHUNK_BYTES / 1000).map(line).collect();
        std::fs::write(root.join("first.jsonl"), text).unwrap();
        let mut beside = Beside::new("fork", &root.join("fork.jsonl"), vec![root.clone()]);
        for n in 0..3 * CHUNK_BYTES / 1000 {
            assert!(beside.has("first", &format!("line-{n}")), "{n}");
        }
        for (session, uuid) in [("first", "line-x"), ("fork", "line-1"), ("gone", "line-1"), ("../first", "line-1")] {
            assert!(!beside.has(session, uuid), "{session} {uuid}");
        }
        assert!(beside.claim("line-1"), "nobody else is known");
    }

    #[test]
    fn a_session_is_found_by_the_first_letters_of_its_id_in_any_project() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        for path in ["-a/0a1b2c3d-mate.jsonl", "-a/11111111-near.jsonl", "-b/22222222-far.jsonl", "-b/33333333.txt"] {
            std::fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            std::fs::write(root.join(path), "").unwrap();
        }
        let mut beside = Beside::new("0a1b2c3d-mate", &root.join("-a/0a1b2c3d-mate.jsonl"), vec![root.clone()]);
        for (letters, expect) in [
            ("11111111", Some("11111111-near")),
            ("22222222", Some("22222222-far")),
            ("33333333", None),
            ("44444444", None),
            ("0a1b2c3d", None),
        ] {
            assert_eq!(beside.begins_with(letters).as_deref(), expect, "{letters}");
        }
    }
}
