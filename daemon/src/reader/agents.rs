//! Where the transcripts of subagents are.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

use super::Transcript;

/// How many levels below a session's directory are searched for them.
const MAX_DEPTH: usize = 3;

/// How many bytes of one are searched for its session.
const HEAD: usize = 256 << 10;

/// Where Claude Code 2.1 puts those of a session.
pub fn subagents_dir(transcript: &Path) -> PathBuf {
    transcript.with_extension("").join("subagents")
}

/// Name (`agent-<id>`) and path of every transcript in that directory and below.
pub fn subagents(dir: &Path) -> Vec<(String, PathBuf)> {
    fn walk(dir: &Path, depth: usize, found: &mut Vec<(String, PathBuf)>) {
        let Ok(entries) = std::fs::read_dir(dir) else { return };
        for entry in entries.filter_map(Result::ok) {
            let (path, kind) = (entry.path(), entry.file_type());
            let name = path.file_stem().and_then(OsStr::to_str).unwrap_or_default();
            if kind.as_ref().is_ok_and(std::fs::FileType::is_dir) {
                if depth > 1 {
                    walk(&path, depth - 1, found);
                }
            } else if name.starts_with("agent-") && path.extension().is_some_and(|ext| ext == "jsonl") {
                found.push((name.to_owned(), path));
            }
        }
    }
    let mut found = Vec::new();
    walk(dir, MAX_DEPTH, &mut found);
    found.sort();
    found
}

/// Those beside the transcripts of all sessions of a project, where Claude Code 2.0 writes them.
pub fn loose_agents(project: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(project).into_iter().flatten().filter_map(Result::ok);
    let is_agent = |name: &OsStr| {
        let name = name.as_encoded_bytes();
        name.starts_with(b"agent-") && name.ends_with(b".jsonl")
    };
    let mut found: Vec<PathBuf> =
        entries.filter(|entry| is_agent(&entry.file_name())).map(|entry| entry.path()).collect();
    found.sort();
    found
}

/// True if a subagent's transcript names this session.
pub fn names_session(path: &Path, session_id: &str) -> bool {
    let head = Transcript::open(path).ok().and_then(|mut file| file.start(HEAD).ok()).unwrap_or_default();
    memchr::memmem::find(&head, format!("\"sessionId\":\"{session_id}\"").as_bytes()).is_some()
}
