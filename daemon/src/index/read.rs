//! A session's transcript and those of its subagents → the rows of the index.

use std::{
    collections::{HashMap, HashSet},
    fs::Metadata,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Source;
use crate::{
    agents,
    reader::{self, Unreadable},
    rebuild::{self, Checkpoint, Grown, Part},
    threads,
};
use cc_core::{
    book::{Book, Call, Run},
    ids::TraceId,
    reconcile::Tokens,
    transcript::{is_name, record::Nanos},
    turn::{Tool, Turn},
    usage,
};

/// How many sessions wait to be written at most.
const AHEAD: usize = 16;

/// For fewer sessions a second thread is not worth its start.
const MANY: usize = 250;

/// The state of a session's files.
pub(super) struct Looks {
    hash: Sha256,
    /// Their total length in bytes.
    pub bytes: u64,
    /// When the transcript itself was last modified, in nanoseconds since the epoch.
    pub modified: i64,
    /// Subagents of the session may have transcripts.
    has_agents: bool,
    /// Transcripts of subagents beside it, which may belong to other sessions.
    loose: Vec<PathBuf>,
}

impl Looks {
    /// Those of all sources, in their order.
    pub(super) fn of_all(sources: &[Source]) -> Vec<Self> {
        let mut loose = Loose::default();
        for source in sources {
            loose.beside(&source.path);
        }
        // Most of the time the system looks for files.
        threads::each(sources, MANY, |one| Self::of(one, loose.known(&one.path)))
    }

    /// The state of a transcript and of its subagents' transcripts, including `loose` ones.
    pub(super) fn of(source: &Source, loose: &[PathBuf]) -> Self {
        let (hash, has_agents) = (Sha256::new(), !loose.is_empty());
        let mut looks = Self { hash, bytes: 0, modified: 0, has_agents, loose: loose.to_vec() };
        looks.modified = match &source.meta {
            Some(meta) => looks.put(&source.path, meta),
            None => looks.add(&source.path),
        };
        let dir = (!source.is_alone).then(|| reader::subagents_dir(&source.path));
        for (_, agent) in dir.map(|dir| reader::subagents(&dir)).unwrap_or_default() {
            looks.add(&agent);
            looks.add(&agent.with_extension("meta.json"));
            looks.has_agents = true;
        }
        for agent in loose {
            looks.add(agent);
        }
        looks
    }

    fn add(&mut self, path: &Path) -> i64 {
        std::fs::symlink_metadata(path).map_or(0, |meta| self.put(path, &meta))
    }

    fn put(&mut self, path: &Path, meta: &Metadata) -> i64 {
        self.hash.update(path.as_os_str().as_encoded_bytes());
        let seconds = meta.mtime().to_be_bytes();
        for number in
            [meta.dev(), meta.ino(), meta.len(), u64::from_be_bytes(seconds), meta.mtime_nsec().unsigned_abs()]
        {
            self.hash.update(number.to_be_bytes());
        }
        self.bytes += meta.len();
        meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec())
    }

    pub(super) fn fingerprint(&self) -> Vec<u8> {
        self.hash.clone().finalize().to_vec()
    }
}

/// The state of the transcript that a session was forked from: whether it is there, and its length if what the session
/// used without a line depends on it.
pub(super) fn parent(path: &Path, forked_from: &str, has_totals: bool) -> i64 {
    let meta = is_name(forked_from)
        .then(|| std::fs::symlink_metadata(path.with_file_name(format!("{forked_from}.jsonl"))).ok())
        .flatten();
    match meta {
        None => 0,
        Some(meta) if has_totals => i64::try_from(meta.len()).unwrap_or(i64::MAX).saturating_add(1),
        Some(_) => 1,
    }
}

/// Transcripts of subagents beside those of sessions, as Claude Code 2.0 writes them: each directory is listed once.
#[derive(Default)]
pub(super) struct Loose(HashMap<PathBuf, Vec<PathBuf>>);

impl Loose {
    /// Those in the directory of the transcript at `path`, if it was listed.
    fn known(&self, path: &Path) -> &[PathBuf] {
        path.parent().and_then(|dir| self.0.get(dir)).map_or(&[], Vec::as_slice)
    }

    /// Those in the directory of the transcript at `path`.
    pub(super) fn beside(&mut self, path: &Path) -> &[PathBuf] {
        let dir = path.parent().unwrap_or(Path::new("/"));
        if !self.0.contains_key(dir) {
            self.0.insert(dir.to_path_buf(), reader::loose_agents(dir));
        }
        self.0.get(dir).map_or(&[], Vec::as_slice)
    }
}

/// A session to be read.
pub(super) struct Job<'s> {
    pub source: &'s Source,
    pub looks: Looks,
    /// To read on from, and the fingerprint that the session had then.
    pub state: Option<(State, Vec<u8>)>,
    /// Whether it is to be read on next time.
    pub keep: bool,
    /// Its calls without a line that Claude Code's telemetry names.
    pub hidden: Vec<Call>,
}

/// What is remembered of a session to read on from its last turn.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct State {
    pub checkpoint: Checkpoint,
    /// The turns before that launched subagents.
    launchers: Vec<Launcher>,
    /// The session has totals of Claude Code; the time until which they count, if that is known.
    totals: Option<Option<Nanos>>,
    forked_from: Option<String>,
}

/// A closed turn without its subagents.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Launcher {
    key: String,
    is_copied: bool,
    at_byte: u64,
    end: Option<Nanos>,
    tools: u64,
    failed_tools: u64,
    agents: u64,
}

/// Facts of a session that its turns state.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    pub title: Option<String>,
    pub project: Option<String>,
    pub branch: Option<String>,
    pub forked_from: Option<String>,
}

impl Facts {
    fn add(&mut self, turn: &Turn, session_id: &str) {
        let facts = &turn.session;
        self.project = self.project.take().or_else(|| facts.cwd.clone());
        self.branch = facts.git_branch.clone().or(self.branch.take());
        self.title = facts.title.clone().or(self.title.take());
        let from = facts.forked_from.as_ref().filter(|from| **from != session_id);
        self.forked_from = self.forked_from.take().or_else(|| from.cloned());
    }
}

/// A session as the index stores it.
#[derive(Debug, Default)]
pub(super) struct Session {
    pub path: PathBuf,
    pub session_id: String,
    pub looks: Vec<u8>,
    pub bytes: u64,
    pub modified: i64,
    /// Bytes that were read.
    pub read: u64,
    /// Of the turns that were read.
    pub facts: Facts,
    /// Of those before the state.
    pub closed: Facts,
    pub parent: Option<i64>,
    pub has_totals: bool,
    /// If only what is new was read: from where, and the fingerprint that the session had before.
    pub from: Option<(u64, Vec<u8>)>,
    pub turns: Vec<TurnRow>,
    /// Turns before, with new calls of their subagents in place of the former.
    pub earlier: Vec<EarlierRow>,
    /// Calls of subagents that belong to no turn.
    pub unplaced: Vec<CallRow>,
    /// `None`: as before.
    pub untraced: Option<Vec<UntracedRow>>,
    pub state: Option<State>,
}

/// A turn whose subagents have changed.
#[derive(Debug)]
pub(super) struct EarlierRow {
    pub at_byte: u64,
    pub end: Option<Nanos>,
    pub tools: u64,
    pub failed_tools: u64,
    pub agents: u64,
    pub calls: Vec<CallRow>,
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
    pub plugin: Option<String>,
    pub tools: Option<String>,
    pub project: Option<String>,
    pub branch: Option<String>,
    pub is_copied: bool,
    /// It is in a subagent's transcript.
    pub is_apart: bool,
    pub marks: [Option<u64>; 3],
}

/// Reads every session of `jobs` on several processors and calls `each` with each of them, in any order.
///
/// # Errors
/// The first error of `each`, which is then not called again.
pub(super) fn all<E: Send>(
    jobs: &[Job<'_>],
    mut each: impl FnMut(Result<Session, (PathBuf, Unreadable)>, &Looks) -> Result<(), E>,
) -> Result<(), E> {
    let next = AtomicUsize::new(0);
    let threads = thread::available_parallelism().map_or(1, usize::from).min(jobs.len()).min(8);
    thread::scope(|scope| {
        let (sender, receiver) = mpsc::sync_channel(AHEAD);
        for _ in 0..threads {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let read = session(job).map_err(|error| (job.source.path.clone(), error));
                    if sender.send((read, &job.looks)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        receiver.iter().try_for_each(|(read, looks)| each(read, looks))
    })
}

fn session(job: &Job<'_>) -> Result<Session, Unreadable> {
    if let Some((state, looks)) = &job.state
        && let Some(session) = read(job, Some((state, looks)))?
    {
        return Ok(session);
    }
    read(job, None).map(Option::unwrap_or_default)
}

/// `None` if what is new cannot be joined to what was read before.
fn read(job: &Job<'_>, before: Option<(&State, &Vec<u8>)>) -> Result<Option<Session>, Unreadable> {
    let Source { path, session_id, .. } = job.source;
    let (mut turns, mut known) = (Vec::new(), HashSet::new());
    let (mut facts, mut closed, mut launchers) = (Facts::default(), Facts::default(), Vec::new());
    let checkpoint = before.map(|(state, _)| &state.checkpoint);
    let grown =
        rebuild::grown(path, session_id, checkpoint, job.keep, !job.looks.has_agents, &mut |turn, of_agents, part| {
            known.extend(of_agents.iter().filter_map(agent_id));
            turns.push(turn_row(turn, of_agents, session_id));
            facts.add(turn, session_id);
            if part == Part::Closed {
                closed = facts.clone();
                launchers.extend(turn.launches().next().map(|_| launcher(turn, session_id)));
            }
        })?;
    let Grown { from, mut book, unplaced, earlier, checkpoint, settled, bytes } = grown;
    known.extend(unplaced.iter().filter_map(agent_id));
    known.extend(settled);
    let mut calls = Vec::new();
    for path in &job.looks.loose {
        let id = path.file_stem().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix("agent-"));
        if id.is_none_or(|id| !known.contains(id)) && reader::names_session(path, session_id) {
            let roots: Vec<PathBuf> = path.parent().map(Path::to_path_buf).into_iter().collect();
            let alone = agents::alone(path, &roots)?;
            calls.extend(alone.iter().flat_map(|turn| call_rows(turn, true)));
        }
    }
    calls.extend(unplaced.iter().flat_map(|turn| call_rows(turn, false)));
    let before = before.filter(|_| from > 0);
    let mut session = Session {
        path: path.clone(),
        session_id: session_id.clone(),
        looks: job.looks.fingerprint(),
        bytes: job.looks.bytes,
        modified: job.looks.modified,
        read: bytes,
        turns,
        unplaced: calls,
        from: before.map(|(_, looks)| (from, looks.clone())),
        ..Session::default()
    };
    let (totals, forked_from) = match before {
        Some((state, _)) => {
            let Some(earlier) = rows(earlier, &state.launchers) else { return Ok(None) };
            session.earlier = earlier;
            if !is_after(&session, state) {
                return Ok(None);
            }
            launchers.splice(0..0, state.launchers.iter().cloned());
            (state.totals, state.forked_from.clone().or_else(|| facts.forked_from.clone()))
        }
        None => {
            // Here they count, though no trace has them.
            unplaced.iter().for_each(|turn| book.add(turn));
            book.calls.extend(job.hidden.iter().cloned());
            session.untraced = Some(untraced(path, &book));
            (book.runs.last().map(Run::until), facts.forked_from.clone())
        }
    };
    session.parent = forked_from.as_ref().map(|from| parent(path, from, totals.is_some()));
    session.has_totals = totals.is_some();
    let from = before.and_then(|(state, _)| state.forked_from.clone()).or_else(|| closed.forked_from.clone());
    session.state = checkpoint.map(|checkpoint| State { checkpoint, launchers, totals, forked_from: from });
    (session.facts, session.closed) = (Facts { forked_from, ..facts }, closed);
    Ok(Some(session))
}

/// The turns before whose subagents have changed; `None` if one is not known.
fn rows(earlier: HashMap<String, Vec<Turn>>, launchers: &[Launcher]) -> Option<Vec<EarlierRow>> {
    let mut rows = Vec::new();
    for (key, agents) in earlier {
        let its: Vec<&Launcher> = launchers.iter().filter(|launcher| launcher.key == key).collect();
        if its.is_empty() && !agents.is_empty() {
            return None;
        }
        rows.extend(its.into_iter().map(|turn| {
            let mut calls: Vec<CallRow> = agents.iter().flat_map(|turn| call_rows(turn, false)).collect();
            calls.iter_mut().for_each(|call| (call.is_apart, call.is_copied) = (true, call.is_copied | turn.is_copied));
            EarlierRow {
                at_byte: turn.at_byte,
                end: agents.iter().filter_map(|agent| agent.end).chain(turn.end).max(),
                tools: turn.tools + tools(&agents).count() as u64,
                failed_tools: turn.failed_tools + tools(&agents).filter(|tool| failed(tool)).count() as u64,
                agents: turn.agents + agents.len() as u64,
                calls,
            }
        }));
    }
    Some(rows)
}

/// True if what is new comes after the time of Claude Code's totals, so that it does not change what they say beyond the calls before.
fn is_after(session: &Session, state: &State) -> bool {
    let Some(until) = state.totals else { return true };
    let Some(until) = until.filter(|_| state.forked_from.is_none() && session.facts.forked_from.is_none()) else {
        return false;
    };
    let is_later = |at: Option<Nanos>| at.is_some_and(|at| at >= until);
    let calls = session.turns.iter().flat_map(|turn| &turn.calls).chain(&session.unplaced);
    session.turns.iter().all(|turn| is_later(turn.start))
        && calls.chain(session.earlier.iter().flat_map(|turn| &turn.calls)).all(|call| is_later(call.at))
}

fn untraced(path: &Path, book: &Book) -> Vec<UntracedRow> {
    let mut rows = Vec::new();
    for found in rebuild::untraced(path, book) {
        let project = found.turn.session.cwd;
        rows.extend(found.untraced.models.into_iter().map(|(model, used)| UntracedRow {
            at: found.at,
            model,
            tokens: used.tokens,
            cost_usd: used.cost_usd,
            project: project.clone(),
        }));
    }
    rows
}

fn agent_id(turn: &Turn) -> Option<String> {
    turn.place.as_ref().map(|place| place.agent_id.clone())
}

fn tools<'t>(turns: impl IntoIterator<Item = &'t Turn>) -> impl Iterator<Item = &'t Tool> {
    turns.into_iter().flat_map(|turn| &turn.generations).flat_map(|generation| &generation.tools)
}

fn failed(tool: &Tool) -> bool {
    tool.result.as_ref().is_some_and(|(result, _)| result.is_error)
}

fn is_copied(turn: &Turn, session_id: &str) -> bool {
    turn.prompt.session.forked_from.as_deref().is_some_and(|from| from != session_id)
}

fn launcher(turn: &Turn, session_id: &str) -> Launcher {
    let row = turn_row(turn, &[], session_id);
    Launcher {
        key: turn.key.clone(),
        is_copied: is_copied(turn, session_id),
        at_byte: row.at_byte,
        end: row.end,
        tools: row.tools,
        failed_tools: row.failed_tools,
        agents: row.agents,
    }
}

fn turn_row(turn: &Turn, agents: &[Turn], session_id: &str) -> TurnRow {
    let all = || std::iter::once(turn).chain(agents);
    let mut calls = call_rows(turn, false);
    let own = calls.len();
    calls.extend(agents.iter().flat_map(|turn| call_rows(turn, false)));
    calls[own..].iter_mut().for_each(|call| call.is_apart = true);
    let is_copied = is_copied(turn, session_id);
    calls.iter_mut().for_each(|call| call.is_copied |= is_copied);
    let flags = [turn.is_interrupted, turn.error.is_some(), !turn.looks_finished()];
    TurnRow {
        trace: cc_core::ids::trace_id(turn.trace_key()),
        number: turn.number,
        at_byte: turn.offset,
        start: turn.prompt.at.or_else(|| turn.generations.iter().find_map(|call| call.first)),
        end: all().filter_map(|turn| turn.end).max(),
        tools: tools(all()).count() as u64,
        failed_tools: tools(all()).filter(|tool| failed(tool)).count() as u64,
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
        plugin: used.plugin.map(str::to_owned),
        tools: Some(used.tools).filter(|tools| !tools.is_empty()),
        project: facts.cwd.clone(),
        branch: facts.git_branch.clone(),
        is_copied: used.is_copy,
        is_apart: false,
        marks: used.marks,
    };
    usage::calls(turn).into_iter().map(row).collect()
}
