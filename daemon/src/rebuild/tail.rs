//! The end of a session, for the status line: what an index does not have yet, if that is little.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use super::{
    Assembler, CHUNK_BYTES, Line, Lines, Skip, Start, Transcript, Turn, Unreadable, agents, pipeline, reader, roots,
};
use cc_core::transcript::{is_name, record::Nanos};

/// The last turns of a session.
#[derive(Debug, Default)]
pub struct Tail {
    pub turns: Vec<Turn>,
    /// The work of subagents whose transcripts have changed, with their earlier work. Which turn they belong to is not known.
    pub agents: Vec<Turn>,
    /// False if it is longer than the limit: then it has neither.
    pub is_whole: bool,
    /// Bytes of all transcripts of the session.
    pub total: u64,
}

/// The turns of the session at `path` from `start` on, and the subagents whose transcripts changed at `since` or later, if that is
/// at most `limit` bytes. Reads no other session's transcript.
///
/// # Errors
/// If a transcript cannot be read.
pub fn tail(path: &Path, session_id: &str, start: Start, since: Option<Nanos>, limit: u64) -> Result<Tail, Unreadable> {
    let mut file = Transcript::open(path)?;
    let mut tail = Tail { total: file.length, ..Tail::default() };
    let changed = changed(path, since, &mut tail.total);
    let bytes: u64 = changed.iter().map(|(_, length)| length).sum::<u64>() + file.length.saturating_sub(start.0);
    if bytes > limit || file.length < start.0 {
        return Ok(tail);
    }
    file.seek(start.0)?;
    let (mut lines, mut assembler) = (Lines::at(start.0), Assembler::new(session_id, start.1));
    let mut push = |offset, line: Line<'_>| {
        pipeline::records(offset, line, |at, found| {
            if matches!(found, Err(Skip::Field(_))) {
                return;
            }
            tail.turns.extend(found.ok().and_then(|record| assembler.push(record, at)));
        });
    };
    let mut buffer = vec![0; CHUNK_BYTES];
    // It may grow while it is read.
    let mut left = limit;
    while left > 0 {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        lines.feed(&buffer[..n], &mut push);
        left = left.saturating_sub(n as u64);
    }
    if lines.unfinished().is_some() {
        lines.finish(&mut push);
    }
    tail.turns.extend(assembler.into_at_work());
    // Claude Code 2.0 writes them beside the transcripts of all sessions.
    let named = tail.turns.iter().flat_map(Turn::launches).filter_map(|launch| launch.agent_id);
    let beside = named.filter(|id| is_name(id)).map(|id| path.with_file_name(format!("agent-{id}.jsonl")));
    let beside: BTreeSet<PathBuf> = beside.filter(|path| path.exists()).collect();
    let roots = roots(path);
    for path in changed.into_iter().map(|(path, _)| path).chain(beside) {
        tail.agents.extend(agents::alone(&path, &roots)?);
    }
    tail.is_whole = true;
    Ok(tail)
}

/// The transcripts of subagents that changed at `since` or later, with their lengths. Adds those of all to `total`.
fn changed(path: &Path, since: Option<Nanos>, total: &mut u64) -> Vec<(PathBuf, u64)> {
    let since = since.map(|at| UNIX_EPOCH + Duration::from_nanos(at));
    let found = reader::subagents(&reader::subagents_dir(path)).into_iter().filter_map(|(_, path)| {
        let meta = std::fs::symlink_metadata(&path).ok()?;
        *total += meta.len();
        let is_new = since.is_none_or(|since| meta.modified().is_ok_and(|at| at >= since));
        is_new.then_some((path, meta.len()))
    });
    found.collect()
}
