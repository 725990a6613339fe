//! Transcripts that Claude Code is about to remove.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::client;
use cc_core::{
    doctor::{
        Finding,
        server::{Old, is_old, judge_old},
    },
    route::Env,
    status::Status,
    transcript::record,
};
use cc_langfuse::{
    api::SESSIONS,
    clock,
    credentials::layers::resolve,
    reader::{Transcript, places},
};

/// The transcripts below `roots` that are affected, of traced projects.
pub(super) fn judge(mut roots: Vec<PathBuf>, home: &Path, cleanup_days: u64, status: Option<&Status>) -> Finding {
    roots.extend(client::config_dir().map(|dir| dir.join("projects")));
    roots.sort();
    roots.dedup();
    let mut old = Vec::new();
    for dir in roots.iter().flat_map(|root| entries(root)) {
        let found: Vec<Old> = entries(&dir).into_iter().filter_map(|path| look(path, cleanup_days)).collect();
        if found.iter().find_map(|old| is_traced(&old.path, home)) == Some(true) {
            old.extend(found);
        }
    }
    judge_old(&old, status, status.is_some_and(|status| status.sessions.len() < SESSIONS), cleanup_days)
}

/// The directories of projects below `roots` that are not read, except those that the daemon names.
pub(super) fn refused(roots: &[PathBuf], status: Option<&Status>) -> Vec<Finding> {
    let projects = roots.iter().flat_map(|root| places::projects(root));
    let is_named = |dir: &Path| status.is_some_and(|status| status.unread.iter().any(|unread| unread.path == dir));
    let refused = projects.filter_map(|(dir, why)| Some((dir, why?))).filter(|(dir, _)| !is_named(dir));
    refused.map(|(dir, why)| Finding::problem("projects", format!("{}: {why}", dir.display()), why.remedy())).collect()
}

/// When the transcript of the latest session was last written.
pub(super) fn last_written(status: &Status) -> Option<String> {
    let written = fs::metadata(&status.sessions.first()?.transcript).ok()?.modified().ok()?;
    Some(format!("{:.0}", jiff::Timestamp::try_from(written).ok()?))
}

/// A transcript with content that has been silent for long.
fn look(path: PathBuf, cleanup_days: u64) -> Option<Old> {
    let session_id = path.file_stem()?.to_str().filter(|name| !name.starts_with("agent-"))?.to_owned();
    let meta = fs::symlink_metadata(&path).ok()?;
    if path.extension()? != "jsonl" || !meta.is_file() || meta.len() == 0 {
        return None;
    }
    let days = clock::wall().duration_since(meta.modified().ok()?).ok()?.as_secs() / 86_400;
    is_old(days, cleanup_days).then_some(Old { session_id, path, days })
}

/// Whether the settings of a transcript's project turn tracing on; `None` if the project is unknown.
fn is_traced(transcript: &Path, home: &Path) -> Option<bool> {
    let cwd = record::cwd(Transcript::open(transcript).ok()?.head().ok()?)?;
    Some(Env::of(&resolve(Some(Path::new(&cwd)), &client::user_dir(home))).enabled())
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    entries.map(|entry| entry.path()).collect()
}
