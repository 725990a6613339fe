//! The subagents of a session: reads their transcripts and finds out where they belong.
//!
//! From Claude Code 2.0 on each has a file of its own, which names neither the turn nor the tool call that launched it. That
//! is known from the call's result, which names the subagent, or from the `.meta.json` beside the file, which names the call
//! (2.1.176 and later). Those of subagents' own subagents lie in the same directory, those of a workflow in a directory
//! `workflows/RUN` below it, whose name the result of the call has.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::Deserialize;

use crate::{
    transcript::{
        cursor::Position,
        lines::{Line, Lines},
        reader::{self, Transcript, Unreadable},
        record,
    },
    turn::{Launch, Place, Run, Turn},
};

/// Claude Code 2.0 and 2.1.3 start subagents of this prompt with each session; no turn asked for them.
const WARMUP: &str = "Warmup";

/// What a `.meta.json` says. It is rewritten while the subagent lives.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta {
    agent_type: Option<String>,
    description: Option<String>,
    tool_use_id: Option<String>,
    finished: bool,
}

/// A subagent whose transcript is being read.
#[derive(Debug)]
pub struct Agent {
    path: PathBuf,
    meta: Meta,
    read_to: Position,
    lines: Lines,
    run: Run,
    /// Bytes read since something was last told.
    pub held: usize,
    grown: Instant,
}

/// How long a subagent's transcript must be silent before it is told to its end.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// If it looks finished and something else says that it is.
    pub lull: Duration,
    /// If only something else says so.
    pub quiet: Duration,
    /// If only it looks so.
    pub finished: Duration,
}

/// The subagents of one session.
#[derive(Debug, Default)]
pub struct Agents {
    at_work: BTreeMap<String, Agent>,
    /// Those told to their end, with the length of their transcripts; `None` until it is looked up.
    done: Option<HashMap<String, u64>>,
    launches: Vec<Launch>,
    /// Those of which a hook or a notification said that they ended.
    ended: HashSet<String>,
    dirs: BTreeSet<PathBuf>,
}

impl Agents {
    /// True if what was stored of them is still to be given to [`load`](Self::load).
    pub fn is_new(&self) -> bool {
        self.done.is_none()
    }

    /// Takes what was stored of them.
    pub fn load(&mut self, done: HashMap<String, u64>, launches: Vec<Launch>) {
        self.done = Some(done);
        self.launches = launches;
    }

    /// Calls of a turn that is closed.
    pub fn launched(&mut self, launches: impl IntoIterator<Item = Launch>) {
        self.launches.extend(launches);
    }

    /// Something says that this one has ended.
    pub fn has_ended(&mut self, id: &str) {
        self.ended.insert(id.to_owned());
    }

    /// How many are not told to their end.
    pub fn at_work(&self) -> usize {
        self.at_work.len()
    }

    /// The directories of their transcripts: one for the session, one for each run of a workflow.
    pub fn dirs(&self) -> impl Iterator<Item = &Path> {
        self.dirs.iter().map(PathBuf::as_path)
    }

    /// Looks for transcripts that are new, or that grew after they had been told.
    pub fn discover(&mut self, transcript: &Path, open: Option<&Turn>) {
        let dir = reader::subagents_dir(transcript);
        let mut files = reader::subagents(&dir);
        self.dirs = files.iter().filter_map(|(_, path)| path.parent()).map(Path::to_path_buf).collect();
        if !files.is_empty() {
            self.dirs.insert(dir);
        }
        // Claude Code 2.0 puts them beside the session's transcript, among those of all sessions.
        for launch in open.into_iter().flat_map(Turn::launches).chain(self.launches.iter().cloned()) {
            if let Some(id) = launch.agent_id.filter(|id| reader::is_name(id))
                && !self.at_work.contains_key(&id)
            {
                files.push((format!("agent-{id}"), transcript.with_file_name(format!("agent-{id}.jsonl"))));
            }
        }
        for (name, path) in files {
            let id = name.strip_prefix("agent-").unwrap_or(&name).to_owned();
            if self.at_work.contains_key(&id) {
                continue;
            }
            let Ok(meta) = std::fs::symlink_metadata(&path) else { continue };
            if self.done.as_ref().and_then(|done| done.get(&id)) == Some(&meta.len()) {
                continue;
            }
            self.at_work.insert(id, Agent::new(path));
        }
    }

    /// The ids of those at work.
    pub fn ids(&self) -> Vec<String> {
        self.at_work.keys().cloned().collect()
    }

    /// One of those at work.
    pub fn get(&mut self, id: &str) -> Option<&mut Agent> {
        self.at_work.get_mut(id)
    }

    /// Finds out where those belong of which it is not known yet. `open` is the session's open turn.
    pub fn settle_places(&mut self, open: Option<&Turn>) {
        let unplaced = |agents: &Self| {
            let turns = agents.at_work.values().filter_map(Agent::turn);
            turns.filter(|turn| turn.place.is_none()).count()
        };
        // A subagent's place shows that of its own subagents.
        let mut before = usize::MAX;
        while unplaced(self) < before {
            before = unplaced(self);
            self.ids().iter().for_each(|id| self.settle_place(id, open));
        }
    }

    fn settle_place(&mut self, id: &str, open: Option<&Turn>) {
        let Some(agent) = self.at_work.get(id) else { return };
        let Some(turn) = agent.run.turn() else { return };
        if turn.place.is_some() {
            return;
        }
        let meta = agent.meta.clone();
        let others = self.at_work.values().filter_map(|agent| agent.run.turn()).filter(|turn| turn.place.is_some());
        let sources: Vec<&Turn> = open.into_iter().chain(others).collect();
        // Subagents of such a subagent have the same prompt id, and a call that launched them.
        let by_prompt = turn.prompt.prompt_id.as_deref().filter(|_| meta.tool_use_id.is_none()).map(Turn::launch_id);
        let launches = || sources.iter().flat_map(|turn| turn.launches()).chain(self.launches.iter().cloned());
        let launch = launches()
            .find(|launch| {
                launch.agent_id.as_deref().is_some_and(|named| named == id || Some(named) == agent.workflow())
            })
            .or_else(|| launches().find(|launch| meta.tool_use_id.as_deref() == Some(&launch.tool_id)))
            .or_else(|| launches().find(|launch| by_prompt.as_ref() == Some(&launch.tool_id)));
        let Some(launch) = launch else { return };
        let order = sources.iter().find_map(|turn| turn.order(&launch.tool_id));
        let place = Place {
            agent_id: id.to_owned(),
            agent_type: meta.agent_type.or_else(|| order.and_then(|order| order.subagent_type.clone())),
            description: meta.description.or_else(|| order.and_then(|order| order.description.clone())),
            run: agent.workflow().map(str::to_owned),
            turn: launch.turn,
            tool_id: Some(launch.tool_id).filter(|id| by_prompt.as_ref() != Some(id)),
        };
        self.put(id, place);
    }

    /// The last resort, when nothing more will come that could tell: the call of the open turn that asked for what the
    /// subagent was asked for, else the open turn itself if the subagent began during it. False if it is neither.
    pub fn guess_place(&mut self, id: &str, open: Option<&Turn>) -> bool {
        let Some((agent, open)) = self.at_work.get(id).zip(open) else { return false };
        let Some(turn) = agent.run.turn().filter(|turn| !turn.generations.is_empty()) else { return false };
        let tool_id = open.tool_for(&turn.prompt.text).map(str::to_owned);
        let same_prompt = turn.prompt.prompt_id.is_some() && turn.prompt.prompt_id == open.prompt.prompt_id;
        if tool_id.is_none() && !same_prompt && turn.prompt.at < open.prompt.at {
            return false;
        }
        let order = tool_id.as_ref().and_then(|id| open.order(id));
        let place = Place {
            turn: (open.key.clone(), open.number),
            agent_id: id.to_owned(),
            agent_type: agent.meta.agent_type.clone().or_else(|| order.and_then(|order| order.subagent_type.clone())),
            description: agent.meta.description.clone().or_else(|| order.and_then(|order| order.description.clone())),
            run: agent.workflow().map(str::to_owned),
            tool_id,
        };
        self.put(id, place);
        true
    }

    fn put(&mut self, id: &str, place: Place) {
        if let Some(turn) = self.at_work.get_mut(id).and_then(|agent| agent.run.turn_mut()) {
            turn.number = place.turn.1;
            turn.place = Some(place);
        }
    }

    /// When the subagent can be told to its end if its transcript does not grow until then; `None` if it works on. `over`: the
    /// session has ended.
    pub fn due(&self, id: &str, open: Option<&Turn>, over: bool, patience: Patience) -> Option<Instant> {
        let agent = self.at_work.get(id)?;
        let turn = agent.run.turn();
        let place = turn.and_then(|turn| turn.place.as_ref());
        if place.is_none() {
            return over.then_some(agent.grown + patience.quiet);
        }
        let returned = || {
            let tool_id = place.and_then(|place| place.tool_id.as_deref());
            let others = self.at_work.values().filter_map(|agent| agent.run.turn()).chain(open);
            let mut launches = others.flat_map(Turn::launches).chain(self.launches.iter().cloned());
            launches.any(|launch| launch.returned && Some(&*launch.tool_id) == tool_id)
        };
        let said = over || self.ended.contains(id) || returned();
        match turn.is_some_and(Turn::looks_finished) {
            true if said || agent.meta.finished => Some(agent.grown + patience.lull),
            true => Some(agent.grown + patience.finished),
            false if said => Some(agent.grown + patience.quiet),
            false => None,
        }
    }

    /// Its transcript cannot be read: it is left until that changes its length.
    pub fn leave(&mut self, id: &str) {
        if let Some(agent) = self.at_work.remove(id) {
            let length = std::fs::symlink_metadata(&agent.path).map_or(0, |meta| meta.len());
            self.done.get_or_insert_default().insert(id.to_owned(), length);
        }
    }

    /// The subagent is told to its end. Returns what is to be stored of it.
    pub fn finish(&mut self, id: &str) -> Option<((String, u64), Vec<Launch>)> {
        let agent = self.at_work.remove(id)?;
        let length = agent.lines.read_to();
        self.done.get_or_insert_default().insert(id.to_owned(), length);
        // Its own subagents may outlive it.
        let launches: Vec<Launch> = agent.run.turn().into_iter().flat_map(closed_launches).collect();
        self.launches.extend(launches.iter().cloned());
        Some(((id.to_owned(), length), launches))
    }
}

/// The launches of a turn to which nothing is added any more: what has not returned by now never will, unless it works in
/// the background.
pub fn closed_launches(turn: &Turn) -> impl Iterator<Item = Launch> {
    let tools = turn.generations.iter().flat_map(|generation| &generation.tools);
    let waiting: HashSet<&str> = tools.filter(|tool| tool.result.is_none()).map(|tool| tool.id.as_str()).collect();
    turn.launches()
        .map(move |launch| Launch { returned: launch.returned || waiting.contains(&*launch.tool_id), ..launch })
}

impl Agent {
    fn new(path: PathBuf) -> Self {
        Self {
            path,
            meta: Meta::default(),
            read_to: Position::default(),
            lines: Lines::at(0),
            run: Run::default(),
            held: 0,
            grown: Instant::now(),
        }
    }

    /// What it did so far.
    pub fn turn(&self) -> Option<&Turn> {
        self.run.turn()
    }

    /// As [`turn`](Self::turn), to mark what was sent.
    pub fn turn_mut(&mut self) -> Option<&mut Turn> {
        self.run.turn_mut()
    }

    /// The run of a workflow that it is part of: the name of its directory.
    fn workflow(&self) -> Option<&str> {
        let dir = self.path.parent().filter(|dir| dir.parent().is_some_and(|above| above.ends_with("workflows")))?;
        dir.file_name()?.to_str()
    }

    /// It is known where it belongs.
    pub fn is_placed(&self) -> bool {
        self.turn().is_some_and(|turn| turn.place.is_some())
    }

    /// No turn asked for it.
    pub fn is_warmup(&self) -> bool {
        self.turn().is_some_and(|turn| turn.prompt.text.trim() == WARMUP)
    }

    /// Reads at most one piece of what is new; `skipped` hears of lines that say nothing. False if that was all.
    ///
    /// # Errors
    /// If the transcript cannot be read.
    pub fn read(
        &mut self,
        roots: &[PathBuf],
        buffer: &mut [u8],
        mut skipped: impl FnMut(&'static str),
    ) -> Result<bool, Unreadable> {
        let mut file = Transcript::open_beneath(&self.path, roots)?;
        if !self.read_to.holds(file.identity, file.length, file.before(self.read_to.offset).as_deref()) {
            *self = Self::new(self.path.clone());
        }
        if let Ok(mut meta) = Transcript::open_beneath(&self.path.with_extension("meta.json"), roots)
            && let Some(read) = meta.whole()?.and_then(|bytes| serde_json::from_slice(&bytes).ok())
        {
            self.meta = read;
        }
        file.seek(self.lines.read_to())?;
        let n = file.read(buffer)?;
        let Self { lines, run, held, .. } = self;
        lines.feed(&buffer[..n], |offset, line| take_line(run, held, offset, line, &mut skipped));
        if n > 0 {
            self.grown = Instant::now();
        }
        self.read_to = file.position(self.lines.read_to());
        Ok(n == buffer.len())
    }

    /// Nothing more is expected: a last line that lacks its newline counts, if it is whole.
    pub fn finish_line(&mut self, mut skipped: impl FnMut(&'static str)) {
        let Self { lines, run, held, .. } = self;
        if lines.has_whole_rest() {
            lines.finish(|offset, line| take_line(run, held, offset, line, &mut skipped));
        }
    }
}

fn take_line(run: &mut Run, held: &mut usize, offset: u64, line: Line<'_>, skipped: &mut impl FnMut(&'static str)) {
    let Line::Whole(bytes) = line else { return skipped("too_long") };
    *held += bytes.len();
    match record::parse(bytes) {
        Err(skip) => skip.reason().into_iter().for_each(skipped),
        Ok(record) => {
            *held += record.spilled() * reader::SPILLED;
            if !run.push(record, offset) {
                skipped("orphan");
            }
        }
    }
}

/// Everything subagents did in a session whose turns launched `launches`, by the key of the turn; for a session nobody
/// writes to.
pub fn all(
    transcript: &Path,
    roots: &[PathBuf],
    launches: Vec<Launch>,
    last: Option<&Turn>,
) -> HashMap<String, Vec<Turn>> {
    let mut agents = Agents::default();
    agents.load(HashMap::new(), launches);
    agents.discover(transcript, None);
    let mut buffer = vec![0; reader::CHUNK];
    for agent in agents.at_work.values_mut() {
        while agent.read(roots, &mut buffer, |_| {}).unwrap_or(false) {}
    }
    agents.settle_places(last);
    let mut found: HashMap<String, Vec<Turn>> = HashMap::new();
    for id in agents.ids() {
        let placed = agents.get(&id).is_some_and(|agent| agent.is_placed());
        if (placed || agents.guess_place(&id, last))
            && let Some(turn) = agents.at_work.remove(&id).and_then(|agent| agent.run.into_turn())
        {
            found.entry(turn.trace_key().to_owned()).or_default().push(turn);
        }
    }
    found
}
