//! The subagents of a session: finds and reads their transcripts. [`placement`] decides where they belong and when they have
//! ended.
//!
//! From Claude Code 2.0 on each subagent has a file of its own. Nested subagents are in the same directory; those of a workflow
//! are in a directory `workflows/RUN` below it, whose name is in the call's result.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    ffi::OsStr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Instant,
};

use serde::{Deserialize, Serialize};

use crate::{
    clock,
    reader::{self, Transcript, Unreadable},
};
use cc_core::{
    pipeline,
    transcript::{
        cursor::Position,
        lines::{Line, Lines},
    },
    turn::{
        Launch, Runs, Turn,
        placement::{self, POLL, Returned, Subagent},
    },
};

/// A subagent whose transcript is being read.
#[derive(Debug)]
pub struct Agent {
    path: PathBuf,
    read_to: Position,
    lines: Lines,
    work: Subagent,
    /// Bytes read since something was last emitted.
    pub held: usize,
    grown: Instant,
    /// The state of its files when it was last read to the end.
    seen: Option<[Option<Look>; 2]>,
}

/// Length, modification time (seconds, nanoseconds) and inode of a file.
type Look = (u64, (i64, i64), u64);

/// The subagents of one session.
#[derive(Debug, Default)]
pub struct Agents {
    at_work: BTreeMap<String, Agent>,
    /// The fully emitted ones, with the length of their transcripts; `None` until they are looked up.
    done: Option<HashMap<String, u64>>,
    launches: Vec<Launch>,
    /// Subagents whose end a hook or notification reported.
    ended: HashSet<String>,
    dirs: BTreeSet<PathBuf>,
    /// The transcripts for which a file event came since they were read.
    changed: BTreeSet<PathBuf>,
    /// When all files were last looked at; `None` if the next look is at all.
    swept: Option<Instant>,
}

impl Agents {
    /// True until [`load`](Self::load) was called.
    pub fn is_new(&self) -> bool {
        self.done.is_none()
    }

    /// Takes what the store knows of them.
    pub fn load(&mut self, done: HashMap<String, u64>, launches: Vec<Launch>) {
        self.done = Some(done);
        self.launches = launches;
    }

    /// Adds the launches of a closed turn.
    pub fn launched(&mut self, launches: impl IntoIterator<Item = Launch>) {
        self.launches.extend(launches);
    }

    /// A hook or notification reported this one's end.
    pub fn has_ended(&mut self, id: &str) {
        self.ended.insert(id.to_owned());
    }

    /// When the transcript of a running one last grew.
    pub fn grown(&self) -> Option<Instant> {
        self.at_work.values().map(|agent| agent.grown).max()
    }

    /// Pretends that this was earlier, for tests.
    #[cfg(test)]
    pub fn backdate(&mut self, by: std::time::Duration) {
        self.at_work.values_mut().for_each(|agent| agent.grown -= by);
    }

    /// How many are not fully emitted.
    pub fn at_work(&self) -> usize {
        self.at_work.len()
    }

    /// The directories of their transcripts: the session's, and one for each workflow run.
    pub fn dirs(&self) -> impl Iterator<Item = &Path> {
        self.dirs.iter().map(PathBuf::as_path)
    }

    /// A file changed. True if it is in one of their directories.
    pub fn change(&mut self, path: &Path) -> bool {
        let is_theirs = path.parent().is_some_and(|dir| self.dirs.contains(dir));
        if is_theirs
            && let Some((stem, _)) = path.file_name().and_then(OsStr::to_str).and_then(|name| name.split_once('.'))
        {
            self.changed.insert(path.with_file_name(format!("{stem}.jsonl")));
        }
        is_theirs
    }

    /// The next look is at all files, whatever file events say.
    pub fn sweep(&mut self) {
        self.swept = None;
    }

    /// The subagents that must be read: all, or if the last look at all of them was just now, those with a file event. A thousand
    /// may be at work while one of them writes. The time is for [`were_read`](Self::were_read), without which the next look is
    /// at all.
    pub fn to_read(&mut self, now: Instant, is_all: bool, transcript: &Path, open: &[&Turn]) -> (Vec<String>, Instant) {
        let swept = self.swept.take().filter(|swept| !is_all && !self.dirs.is_empty() && now < *swept + POLL);
        let changed = std::mem::take(&mut self.changed);
        let Some(swept) = swept else {
            self.discover(transcript, open);
            return (self.ids(), now);
        };
        let changed = changed.into_iter().filter_map(|path| Some((path.file_stem()?.to_str()?.to_owned(), path)));
        let changed = changed.filter(|(name, _)| name.starts_with("agent-"));
        (changed.filter_map(|(name, path)| self.consider(&name, path)).collect(), swept)
    }

    /// All of them were read. `swept` is when all files were last looked at.
    pub fn were_read(&mut self, swept: Instant) {
        self.swept = Some(swept);
    }

    /// Looks for new transcripts, and for those that grew after they were emitted.
    pub fn discover(&mut self, transcript: &Path, open: &[&Turn]) {
        let dir = reader::subagents_dir(transcript);
        let mut files = reader::subagents(&dir);
        self.dirs = files.iter().filter_map(|(_, path)| path.parent()).map(Path::to_path_buf).collect();
        if !files.is_empty() {
            self.dirs.insert(dir);
        }
        // Claude Code 2.0 writes them beside the transcripts of all sessions.
        for launch in open.iter().flat_map(|turn| turn.launches()).chain(self.launches.iter().cloned()) {
            if let Some(id) = launch.agent_id.filter(|id| cc_core::transcript::is_name(id))
                && !self.at_work.contains_key(&id)
            {
                files.push((format!("agent-{id}"), transcript.with_file_name(format!("agent-{id}.jsonl"))));
            }
        }
        for (name, path) in files {
            self.consider(&name, path);
        }
    }

    /// The id of the subagent with this transcript, if it is running: a new one is, and one that grew after it was emitted.
    fn consider(&mut self, name: &str, path: PathBuf) -> Option<String> {
        let id = name.strip_prefix("agent-").unwrap_or(name).to_owned();
        if !self.at_work.contains_key(&id) {
            let meta = std::fs::symlink_metadata(&path).ok()?;
            if self.done.as_ref().and_then(|done| done.get(&id)) == Some(&meta.len()) {
                return None;
            }
            self.at_work.insert(id.clone(), Agent::new(id.clone(), path));
        }
        Some(id)
    }

    /// The ids of the running ones.
    pub fn ids(&self) -> Vec<String> {
        self.at_work.keys().cloned().collect()
    }

    /// A running one.
    pub fn get(&mut self, id: &str) -> Option<&mut Agent> {
        self.at_work.get_mut(id)
    }

    /// Places the unplaced ones. `open` are the session's open turns.
    pub fn place_all(&mut self, open: &[&Turn]) {
        let mut agents: Vec<&mut Subagent> = self.at_work.values_mut().map(|agent| &mut agent.work).collect();
        placement::place_all(&mut agents, open, &self.launches);
    }

    /// The last resort once nothing more will come that says where a subagent belongs. False if nothing does.
    pub fn guess_place(&mut self, id: &str, open: &[&Turn]) -> bool {
        self.at_work.get_mut(id).is_some_and(|agent| agent.work.guess(open, &self.launches))
    }

    /// The subagent's completed runs from before it was woken again, and their launches to be stored.
    pub fn take_past(&mut self, id: &str) -> (Vec<Turn>, Vec<Launch>) {
        let past = self.at_work.get_mut(id).map(|agent| agent.work.runs.take_past()).unwrap_or_default();
        let launches: Vec<Launch> = past.iter().flat_map(placement::closed_launches).collect();
        self.launches.extend(launches.iter().cloned());
        (past, launches)
    }

    /// The calls that launched subagents and have returned. `open` are the session's open turns.
    pub fn returned(&self, open: &[&Turn]) -> Returned {
        let runs = self.at_work.values().flat_map(|agent| agent.work.runs.iter());
        Returned::of(runs.chain(open.iter().copied()), &self.launches)
    }

    /// When all of the subagent can be emitted, provided that its transcript does not grow until then; `None` while it is
    /// running. `is_over`: the session has ended.
    pub fn due(&self, id: &str, returned: &Returned, is_over: bool) -> Option<Instant> {
        let agent = self.at_work.get(id)?;
        agent.work.due(returned, agent.grown, is_over, self.ended.contains(id))
    }

    /// Its transcript cannot be read: ignores it until its length changes.
    pub fn leave(&mut self, id: &str) {
        if let Some(agent) = self.at_work.remove(id) {
            let length = std::fs::symlink_metadata(&agent.path).map_or(0, |meta| meta.len());
            self.done.get_or_insert_default().insert(id.to_owned(), length);
        }
    }

    /// The subagent was fully emitted. Returns what is to be stored of it.
    pub fn finish(&mut self, id: &str) -> Option<((String, u64), Vec<Launch>)> {
        let agent = self.at_work.remove(id)?;
        let length = agent.lines.read_to();
        self.done.get_or_insert_default().insert(id.to_owned(), length);
        // Its own subagents may outlive it.
        let launches: Vec<Launch> = agent.work.runs.iter().flat_map(placement::closed_launches).collect();
        self.launches.extend(launches.iter().cloned());
        Some(((id.to_owned(), length), launches))
    }
}

impl Agent {
    fn new(id: String, path: PathBuf) -> Self {
        let workflow = workflow(&path).map(str::to_owned);
        Self {
            path,
            read_to: Position::default(),
            lines: Lines::at(0),
            work: Subagent::new(id, workflow),
            held: 0,
            grown: clock::monotonic(),
            seen: None,
        }
    }

    /// False if its files are as they were when it was last read to the end.
    pub fn has_changed(&self) -> bool {
        self.seen.as_ref() != Some(&self.looks())
    }

    fn looks(&self) -> [Option<Look>; 2] {
        [self.path.clone(), self.path.with_extension("meta.json")].map(|path| {
            let meta = std::fs::symlink_metadata(path).ok()?;
            Some((meta.len(), (meta.mtime(), meta.mtime_nsec()), meta.ino()))
        })
    }

    /// Its last run, to mark what was sent.
    pub fn turn_mut(&mut self) -> Option<&mut Turn> {
        self.work.runs.last_mut()
    }

    pub fn is_placed(&self) -> bool {
        self.work.is_placed()
    }

    /// True if no turn asked for it.
    pub fn is_warmup(&self) -> bool {
        self.work.is_warmup()
    }

    /// Reads at most one piece of what is new, and calls `skipped` with reasons. False if nothing is left.
    ///
    /// # Errors
    /// If the transcript cannot be read.
    pub fn read(
        &mut self,
        roots: &[PathBuf],
        buffer: &mut [u8],
        mut skipped: impl FnMut(&'static str),
    ) -> Result<bool, Unreadable> {
        let looks = self.looks();
        let mut file = Transcript::open_beneath(&self.path, roots)?;
        if !self.read_to.holds(file.identity, file.length, file.before(self.read_to.offset).as_deref()) {
            *self = Self::new(self.work.id().to_owned(), self.path.clone());
        }
        if let Ok(mut meta) = Transcript::open_beneath(&self.path.with_extension("meta.json"), roots)
            && let Some(read) = meta.whole()?.and_then(|bytes| serde_json::from_slice(&bytes).ok())
        {
            self.work.meta = Some(read);
        }
        file.seek(self.lines.read_to())?;
        let n = file.read(buffer)?;
        let Self { lines, work: Subagent { runs, .. }, held, .. } = self;
        lines.feed(&buffer[..n], |offset, line| take_line(runs, held, offset, line, &mut skipped));
        if n > 0 {
            self.grown = clock::monotonic();
        }
        self.read_to = file.position(self.lines.read_to());
        self.seen = (n < buffer.len()).then_some(looks);
        Ok(n == buffer.len())
    }

    /// `None` if it worked for no turn of `closed`.
    fn settled(&self, is_placed: bool, closed: &HashSet<&str>) -> Option<Settled> {
        let runs = || self.work.runs.iter();
        let is_closed = |turn: &Turn| turn.place.is_some() && closed.contains(turn.trace_key());
        let turns: Vec<String> =
            runs().filter(|turn| is_closed(turn)).map(|turn| turn.trace_key().to_owned()).collect();
        if turns.is_empty() {
            return None;
        }
        let looks = self.seen.filter(|_| is_placed && runs().all(is_closed));
        Some(Settled { looks, turns, launches: runs().flat_map(placement::closed_launches).collect() })
    }

    /// Nothing more will come: a complete last line counts even without its newline.
    pub fn finish_line(&mut self, mut skipped: impl FnMut(&'static str)) {
        let Self { lines, work: Subagent { runs, .. }, held, .. } = self;
        if lines.has_whole_rest() {
            lines.finish(|offset, line| take_line(runs, held, offset, line, &mut skipped));
        }
    }
}

/// The workflow run of a subagent: the name of its transcript's directory.
fn workflow(path: &Path) -> Option<&str> {
    let dir = path.parent().filter(|dir| dir.parent().is_some_and(|above| above.ends_with("workflows")))?;
    dir.file_name()?.to_str()
}

fn take_line(runs: &mut Runs, held: &mut usize, offset: u64, line: Line<'_>, skipped: &mut impl FnMut(&'static str)) {
    if let Line::Whole(bytes) = line {
        *held += bytes.len();
    }
    pipeline::records(offset, line, |at, found| match found {
        Err(skip) => skip.reason().into_iter().for_each(&mut *skipped),
        Ok(record) => {
            *held += record.spilled() * reader::MAX_SPILLED_BYTES;
            if !runs.push(record, at) {
                skipped("orphan");
            }
        }
    });
}

/// The runs of the subagent with this transcript, without their place.
///
/// # Errors
/// If the transcript cannot be read.
pub fn alone(path: &Path, roots: &[PathBuf]) -> Result<Vec<Turn>, Unreadable> {
    let mut agent = Agent::new(String::new(), path.to_path_buf());
    let mut buffer = vec![0; reader::CHUNK_BYTES];
    while agent.read(roots, &mut buffer, |_| {})? {}
    agent.finish_line(|_| {});
    Ok(agent.work.runs.into_turns().collect())
}

/// The runs of all subagents of a session that nobody writes to, by the key of the turn that launched them, and those that
/// belong to no turn. `launches` are the launches of the session's turns.
pub fn all(
    transcript: &Path,
    roots: &[PathBuf],
    launches: Vec<Launch>,
    last: &[&Turn],
) -> (HashMap<String, Vec<Turn>>, Vec<Turn>) {
    let found = unsettled(transcript, roots, &launches, last, &BTreeMap::new(), &HashSet::new());
    (found.placed, found.unplaced)
}

/// What is remembered of a subagent that a closed turn launched.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settled {
    /// It is not read again while its files look like this; `None` if its place may still change.
    looks: Option<[Option<Look>; 2]>,
    /// The keys of the closed turns it worked for.
    turns: Vec<String>,
    /// Those of its own subagents.
    launches: Vec<Launch>,
}

/// The subagents of a session that have to be read.
#[derive(Debug, Default)]
pub struct Unsettled {
    /// Their runs, by the key of the turn that launched them.
    pub placed: HashMap<String, Vec<Turn>>,
    /// Those that belong to no turn.
    pub unplaced: Vec<Turn>,
    /// The turns of settled ones that have changed or are gone.
    pub changed: BTreeSet<String>,
    /// What is to be remembered of them, and of those that were not read.
    pub settled: BTreeMap<String, Settled>,
    /// Bytes in their transcripts.
    pub bytes: u64,
}

/// Like [`all`], without those `settled` ones that look as before and whose turn has no other subagent that is read. `closed` are the
/// keys of turns that will not be read again.
pub fn unsettled(
    transcript: &Path,
    roots: &[PathBuf],
    launches: &[Launch],
    last: &[&Turn],
    settled: &BTreeMap<String, Settled>,
    closed: &HashSet<&str>,
) -> Unsettled {
    let mut left: BTreeMap<&String, &Settled> = settled.iter().collect();
    let mut buffer = vec![0; reader::CHUNK_BYTES];
    loop {
        let mut agents = Agents::default();
        let of_left = left.values().flat_map(|settled| &settled.launches);
        agents.load(HashMap::new(), launches.iter().chain(of_left).cloned().collect());
        agents.discover(transcript, &[]);
        left.retain(|id, settled| agents.at_work.get(*id).is_some_and(|agent| Some(agent.looks()) == settled.looks));
        agents.at_work.retain(|id, _| !left.contains_key(id));
        for agent in agents.at_work.values_mut() {
            while agent.read(roots, &mut buffer, |_| {}).unwrap_or(false) {}
        }
        agents.place_all(last);
        let mut found = Unsettled::default();
        for id in agents.ids() {
            let is_placed = agents.get(&id).is_some_and(|agent| agent.is_placed());
            let is_known = is_placed || agents.guess_place(&id, last);
            let Some(agent) = agents.at_work.remove(&id) else { continue };
            found.bytes += agent.read_to.offset;
            found.settled.extend(agent.settled(is_placed, closed).map(|settled| (id.clone(), settled)));
            for turn in agent.work.runs.into_turns() {
                if is_known {
                    found.placed.entry(turn.trace_key().to_owned()).or_default().push(turn);
                } else {
                    found.unplaced.push(turn);
                }
            }
        }
        let again = settled.iter().filter(|(id, _)| !left.contains_key(id)).flat_map(|(_, settled)| &settled.turns);
        found.changed = again.cloned().collect();
        let before = left.len();
        left.retain(|_, settled| {
            !settled.turns.iter().any(|turn| found.changed.contains(turn) || found.placed.contains_key(turn))
        });
        if left.len() == before {
            found.settled.extend(left.into_iter().map(|(id, settled)| (id.clone(), settled.clone())));
            return found;
        }
    }
}
