//! A session's transcript and those of its subagents → the rows of the index.

use std::{
    collections::{HashMap, HashSet},
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use sha2::{Digest, Sha256};

use super::Source;
use crate::{
    agents,
    files::{self, Rules},
    reader::{self, Unreadable},
    rebuild,
};
use cc_core::{ids::TraceId, reconcile::Tokens, transcript::record::Nanos, turn::Turn, usage};

/// How many sessions wait to be written at most.
const AHEAD: usize = 8;

/// How many bytes of a subagent's transcript are searched for its session.
const HEAD: u64 = 256 << 10;

/// The state of a session's files.
pub(super) struct Looks {
    hash: Sha256,
    /// Their total length in bytes.
    pub bytes: u64,
    /// Transcripts of subagents beside it, which may belong to other sessions.
    loose: Vec<PathBuf>,
}

impl Looks {
    /// The state of the transcript at `path` and of its subagents' transcripts, including `loose` ones.
    pub(super) fn of(path: &Path, loose: &[PathBuf]) -> Self {
        let mut looks = Self { hash: Sha256::new(), bytes: 0, loose: loose.to_vec() };
        looks.add(path);
        for (_, agent) in reader::subagents(&reader::subagents_dir(path)) {
            looks.add(&agent);
            looks.add(&agent.with_extension("meta.json"));
        }
        loose.iter().for_each(|agent| looks.add(agent));
        looks
    }

    fn add(&mut self, path: &Path) {
        let Ok(meta) = std::fs::symlink_metadata(path) else { return };
        self.hash.update(path.as_os_str().as_encoded_bytes());
        let seconds = meta.mtime().to_be_bytes();
        for number in
            [meta.dev(), meta.ino(), meta.len(), u64::from_be_bytes(seconds), meta.mtime_nsec().unsigned_abs()]
        {
            self.hash.update(number.to_be_bytes());
        }
        self.bytes += meta.len();
    }

    pub(super) fn fingerprint(&self) -> Vec<u8> {
        self.hash.clone().finalize().to_vec()
    }
}

/// Transcripts of subagents beside those of sessions, as Claude Code 2.0 writes them: each directory is listed once.
#[derive(Default)]
pub(super) struct Loose(HashMap<PathBuf, Vec<PathBuf>>);

impl Loose {
    /// Those in the directory of the transcript at `path`.
    pub(super) fn beside(&mut self, path: &Path) -> &[PathBuf] {
        let dir = path.parent().unwrap_or(Path::new("/"));
        if !self.0.contains_key(dir) {
            let entries = std::fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
            let is_agent = |name: &std::ffi::OsStr| {
                name.as_encoded_bytes().starts_with(b"agent-") && name.as_encoded_bytes().ends_with(b".jsonl")
            };
            let mut found: Vec<PathBuf> =
                entries.filter(|entry| is_agent(&entry.file_name())).map(|entry| entry.path()).collect();
            found.sort();
            self.0.insert(dir.to_path_buf(), found);
        }
        self.0.get(dir).map_or(&[], Vec::as_slice)
    }
}

/// A session as the index stores it.
#[derive(Debug, Default)]
pub(super) struct Session {
    pub path: PathBuf,
    pub session_id: String,
    pub looks: Vec<u8>,
    pub bytes: u64,
    pub title: Option<String>,
    pub project: Option<String>,
    pub branch: Option<String>,
    pub forked_from: Option<String>,
    pub turns: Vec<TurnRow>,
    /// Calls of subagents that belong to no turn.
    pub unplaced: Vec<CallRow>,
    pub untraced: Vec<UntracedRow>,
}

/// What calls of one model without a line used.
#[derive(Debug)]
pub(super) struct UntracedRow {
    pub at: Option<Nanos>,
    pub model: String,
    pub tokens: Tokens,
    pub cost_usd: Option<f64>,
    pub project: Option<String>,
}

#[derive(Debug)]
pub(super) struct TurnRow {
    pub trace: TraceId,
    pub number: u32,
    pub at_byte: u64,
    pub start: Option<Nanos>,
    pub end: Option<Nanos>,
    pub tools: u64,
    pub failed_tools: u64,
    pub agents: u64,
    pub flags: i64,
    pub calls: Vec<CallRow>,
}

#[derive(Debug)]
pub(super) struct CallRow {
    pub at: Option<Nanos>,
    pub model: String,
    pub speed: Option<String>,
    pub tokens: Tokens,
    pub is_call: bool,
    pub agent: Option<String>,
    pub skill: Option<String>,
    pub mcp_server: Option<String>,
    pub tools: Option<String>,
    pub project: Option<String>,
    pub branch: Option<String>,
    pub is_copied: bool,
    pub marks: [Option<u64>; 3],
}

/// Reads every session of `sources` on several processors and calls `each` with each of them, in any order.
///
/// # Errors
/// The first error of `each`, which is then not called again.
pub(super) fn all<E: Send>(
    sources: &[(&Source, Looks)],
    mut each: impl FnMut(Result<Session, (PathBuf, Unreadable)>, &Looks) -> Result<(), E>,
) -> Result<(), E> {
    let next = AtomicUsize::new(0);
    let threads = thread::available_parallelism().map_or(1, usize::from).min(sources.len()).min(8);
    thread::scope(|scope| {
        let (sender, receiver) = mpsc::sync_channel(AHEAD);
        for _ in 0..threads {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                while let Some((source, looks)) = sources.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let read = session(source, looks).map_err(|error| (source.path.clone(), error));
                    if sender.send((read, looks)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        receiver.iter().try_for_each(|(read, looks)| each(read, looks))
    })
}

fn session(source: &Source, looks: &Looks) -> Result<Session, Unreadable> {
    let mut session = Session {
        path: source.path.clone(),
        session_id: source.session_id.clone(),
        looks: looks.fingerprint(),
        bytes: looks.bytes,
        ..Session::default()
    };
    let mut known = HashSet::new();
    let (unplaced, mut book) = rebuild::work(&source.path, &source.session_id, |turn, of_agents| {
        known.extend(of_agents.iter().filter_map(agent_id));
        session.turns.push(turn_row(turn, of_agents, &source.session_id));
        let facts = &turn.session;
        session.project = session.project.take().or_else(|| facts.cwd.clone());
        session.branch = facts.git_branch.clone().or(session.branch.take());
        session.title = facts.title.clone().or(session.title.take());
        let from = facts.forked_from.as_ref().filter(|from| **from != source.session_id);
        session.forked_from = session.forked_from.take().or_else(|| from.cloned());
    })?;
    known.extend(unplaced.iter().filter_map(agent_id));
    for path in &looks.loose {
        let id = path.file_stem().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix("agent-"));
        if id.is_none_or(|id| !known.contains(id)) && belongs(path, &source.session_id) {
            let roots: Vec<PathBuf> = path.parent().map(Path::to_path_buf).into_iter().collect();
            let alone = agents::alone(path, &roots)?;
            session.unplaced.extend(alone.iter().flat_map(|turn| call_rows(turn, true)));
        }
    }
    session.unplaced.extend(unplaced.iter().flat_map(|turn| call_rows(turn, false)));
    // Here they count, though no trace has them.
    unplaced.iter().for_each(|turn| book.add(turn));
    for found in rebuild::untraced(&source.path, &book) {
        let project = found.turn.session.cwd;
        session.untraced.extend(found.untraced.models.into_iter().map(|(model, used)| UntracedRow {
            at: found.at,
            model,
            tokens: used.tokens,
            cost_usd: used.cost_usd,
            project: project.clone(),
        }));
    }
    Ok(session)
}

fn agent_id(turn: &Turn) -> Option<String> {
    turn.place.as_ref().map(|place| place.agent_id.clone())
}

/// True if a subagent's transcript names this session.
fn belongs(path: &Path, session_id: &str) -> bool {
    let Ok(opened) = files::open(path, &Rules::STRICT) else { return false };
    let mut head = Vec::new();
    let _ = opened.file.take(HEAD).read_to_end(&mut head);
    memchr::memmem::find(&head, format!("\"sessionId\":\"{session_id}\"").as_bytes()).is_some()
}

fn turn_row(turn: &Turn, agents: &[Turn], session_id: &str) -> TurnRow {
    let all = || std::iter::once(turn).chain(agents);
    let tools = || all().flat_map(|turn| &turn.generations).flat_map(|generation| &generation.tools);
    let failed = |result: &Option<(cc_core::transcript::record::ToolResult, _)>| match result {
        Some((result, _)) => result.is_error,
        None => false,
    };
    let is_copied = turn.prompt.session.forked_from.as_deref().is_some_and(|from| from != session_id);
    let mut calls: Vec<CallRow> = all().flat_map(|turn| call_rows(turn, false)).collect();
    calls.iter_mut().for_each(|call| call.is_copied |= is_copied);
    let flags = [turn.is_interrupted, turn.error.is_some(), !turn.looks_finished()];
    TurnRow {
        trace: cc_core::ids::trace_id(turn.trace_key()),
        number: turn.number,
        at_byte: turn.offset,
        start: turn.prompt.at.or_else(|| turn.generations.iter().find_map(|call| call.first)),
        end: all().filter_map(|turn| turn.end).max(),
        tools: tools().count() as u64,
        failed_tools: tools().filter(|tool| failed(&tool.result)).count() as u64,
        agents: (agents.len() + turn.agents.len()) as u64,
        flags: flags.iter().rev().fold(0, |flags, set| flags << 1 | i64::from(*set)),
        calls,
    }
}

/// The calls of a turn. `is_agent`: it is that of a subagent of unknown type.
fn call_rows(turn: &Turn, is_agent: bool) -> Vec<CallRow> {
    let facts = &turn.session;
    let row = |used: usage::Used<'_>| CallRow {
        at: used.at,
        model: used.model.to_owned(),
        speed: used.speed.map(str::to_owned),
        tokens: used.tokens,
        is_call: used.is_call,
        agent: used.agent.or(is_agent.then_some("agent")).map(str::to_owned),
        skill: used.skill.map(str::to_owned),
        mcp_server: used.mcp_server.map(str::to_owned),
        tools: Some(used.tools).filter(|tools| !tools.is_empty()),
        project: facts.cwd.clone(),
        branch: facts.git_branch.clone(),
        is_copied: used.is_copy,
        marks: used.marks,
    };
    usage::calls(turn).into_iter().map(row).collect()
}
