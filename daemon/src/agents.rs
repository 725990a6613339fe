//! The subagents of a session: reads their transcripts and finds out where they belong.
//!
//! From Claude Code 2.0 on each has a file of its own, which names neither the turn nor the tool call that launched it. That
//! is known from the call's result, which names the subagent, or from the `.meta.json` beside the file, which names the call
//! (2.1.176 and later). Those of subagents' own subagents lie in the same directory, those of a workflow in a directory
//! `workflows/RUN` below it, whose name the result of the call has.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::Deserialize;

use crate::reader::{self, Transcript, Unreadable};
use cc_core::{
    transcript::{
        cursor::Position,
        lines::{Line, Lines},
        record,
    },
    turn::{Launch, Order, Place, Runs, Turn},
};

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
    runs: Runs,
    /// Where each of its runs belongs, as far as that is known.
    places: Vec<Place>,
    /// Bytes read since something was last told.
    pub held: usize,
    grown: Instant,
    /// What its files looked like when it was last read to its end.
    seen: Option<[Option<Look>; 2]>,
}

/// What a file looks like from outside: its length, when it was last written to (seconds, nanoseconds), and which it is.
type Look = (u64, (i64, i64), u64);

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

    /// When the transcript of one of those at work last grew.
    pub fn grown(&self) -> Option<Instant> {
        self.at_work.values().map(|agent| agent.grown).max()
    }

    /// As if that had been earlier, for tests.
    #[cfg(test)]
    pub fn backdate(&mut self, by: Duration) {
        self.at_work.values_mut().for_each(|agent| agent.grown -= by);
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
    pub fn discover(&mut self, transcript: &Path, open: &[&Turn]) {
        let dir = reader::subagents_dir(transcript);
        let mut files = reader::subagents(&dir);
        self.dirs = files.iter().filter_map(|(_, path)| path.parent()).map(Path::to_path_buf).collect();
        if !files.is_empty() {
            self.dirs.insert(dir);
        }
        // Claude Code 2.0 puts them beside the session's transcript, among those of all sessions.
        for launch in open.iter().flat_map(|turn| turn.launches()).chain(self.launches.iter().cloned()) {
            if let Some(id) = launch.agent_id.filter(|id| cc_core::transcript::is_name(id))
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

    /// Finds out where those belong of which it is not known yet. `open` are the session's open turns.
    pub fn settle_places(&mut self, open: &[&Turn]) {
        let places = |agents: &Self| agents.at_work.values().map(|agent| agent.places.len()).sum::<usize>();
        // A subagent's place shows that of its own subagents.
        let mut before = usize::MAX;
        while places(self) != before {
            before = places(self);
            for id in self.ids() {
                while let Some(place) = self.place(&id, open) {
                    self.put(&id, place);
                }
            }
        }
    }

    /// Where the first of its runs belongs whose place is not known yet.
    fn place(&self, id: &str, open: &[&Turn]) -> Option<Place> {
        let agent = self.at_work.get(id)?;
        let turn = agent.unplaced()?;
        let meta = &agent.meta;
        let others = self.at_work.values().flat_map(|agent| agent.runs.iter()).filter(|turn| turn.place.is_some());
        let sources: Vec<&Turn> = open.iter().copied().chain(others).collect();
        let launches = || sources.iter().flat_map(|turn| turn.launches()).chain(self.launches.iter().cloned());
        let names = |launch: &Launch| {
            launch.agent_id.as_deref().is_some_and(|named| named == id || Some(named) == agent.workflow())
        };
        // Subagents of such a subagent have the same prompt id, and a call that launched them.
        let by_prompt = turn.prompt.prompt_id.as_deref().filter(|_| meta.tool_use_id.is_none()).map(Turn::launch_id);
        let before = |launch: &Launch| launch.called.zip(turn.prompt.at).is_none_or(|(called, at)| called <= at);
        let launch = if agent.places.is_empty() {
            // Of several calls with one id the latest that names no other subagent.
            let asked = |launch: &Launch| {
                meta.tool_use_id.as_deref() == Some(&launch.id) && (launch.agent_id.is_none() || names(launch))
            };
            launches()
                .filter(|launch| names(launch) && !launch.wakes)
                .min_by_key(|launch| launch.called)
                .or_else(|| {
                    launches().filter(|launch| asked(launch) && before(launch)).max_by_key(|launch| launch.called)
                })
                .or_else(|| launches().find(|launch| by_prompt.as_ref() == Some(&launch.tool_id)))?
        } else {
            let used = |launch: &Launch| agent.places.iter().any(|place| place.is_below(launch));
            let woke = |launch: &Launch| names(launch) && !used(launch) && before(launch);
            launches().filter(woke).max_by_key(|launch| launch.called)?
        };
        let order = sources
            .iter()
            .filter(|turn| turn.trace_key() == launch.turn.0)
            .find_map(|turn| turn.order(&launch.tool_id));
        let is_call = by_prompt.as_ref() != Some(&launch.tool_id);
        Some(agent.place_in(id, launch.turn.clone(), is_call.then_some(&launch), order))
    }

    /// The last resort, when nothing more will come that could tell: the call of the open turn that asked for what the
    /// subagent was asked for, else the open turn itself if the subagent began during it; for a later run the turn that goes on,
    /// or that of the run before; where the call that launched it cannot be read, the turn that launched another one last. False
    /// if it is none of these.
    pub fn guess_place(&mut self, id: &str, open: &[&Turn]) -> bool {
        while let Some(agent) = self.at_work.get(id)
            && let Some(turn) = agent.unplaced()
        {
            let open = open.last().copied().filter(|_| !turn.generations.is_empty());
            let same_prompt = open
                .is_some_and(|open| turn.prompt.prompt_id.is_some() && turn.prompt.prompt_id == open.prompt.prompt_id);
            let call = open.and_then(|open| open.launch_for(&turn.prompt.text));
            let began = open.is_some_and(|open| call.is_some() || same_prompt || turn.prompt.at >= open.prompt.at);
            let before = agent.places.last().map(|place| place.turn.clone());
            let turn = match open {
                Some(open) if same_prompt || before.is_none() && began => (open.key.clone(), open.number),
                _ => match before.or_else(|| self.launched_before(turn)) {
                    Some(turn) => turn,
                    None => return false,
                },
            };
            let call = call.filter(|call| call.turn == turn);
            let order = call.as_ref().and_then(|call| open?.order(&call.tool_id));
            let place = agent.place_in(id, turn, call.as_ref(), order);
            self.put(id, place);
        }
        self.at_work.get(id).is_some_and(Agent::is_placed)
    }

    /// The turn that launched a subagent last before `run` began.
    fn launched_before(&self, run: &Turn) -> Option<(String, u32)> {
        let launches = self.launches.iter().filter(|launch| launch.called.is_some() && launch.called <= run.prompt.at);
        launches.max_by_key(|launch| launch.called).map(|launch| launch.turn.clone())
    }

    fn put(&mut self, id: &str, place: Place) {
        let Some(agent) = self.at_work.get_mut(id) else { return };
        if let Some(turn) = agent.runs.iter_mut().find(|turn| turn.place.is_none()) {
            turn.number = place.turn.1;
            turn.place = Some(place.clone());
            agent.places.push(place);
        }
    }

    /// Runs of the subagent that are over since it was woken again, and what is to be stored of their own launches.
    pub fn take_past(&mut self, id: &str) -> (Vec<Turn>, Vec<Launch>) {
        let past = self.at_work.get_mut(id).map(|agent| agent.runs.take_past()).unwrap_or_default();
        let launches: Vec<Launch> = past.iter().flat_map(closed_launches).collect();
        self.launches.extend(launches.iter().cloned());
        (past, launches)
    }

    /// When the subagent can be told to its end if its transcript does not grow until then; `None` if it works on. `over`: the
    /// session has ended.
    pub fn due(&self, id: &str, open: &[&Turn], over: bool, patience: Patience) -> Option<Instant> {
        let agent = self.at_work.get(id)?;
        let turn = agent.runs.last();
        let place = turn.and_then(|turn| turn.place.as_ref());
        if place.is_none() {
            // What woke it again may be said nowhere.
            let said = over || self.ended.contains(id) && !agent.places.is_empty();
            return said.then_some(agent.grown + patience.quiet);
        }
        let returned = || {
            let others = self.at_work.values().flat_map(|agent| agent.runs.iter()).chain(open.iter().copied());
            let mut launches = others.flat_map(Turn::launches).chain(self.launches.iter().cloned());
            launches.any(|launch| launch.returned && place.is_some_and(|place| place.is_below(&launch)))
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
        let launches: Vec<Launch> = agent.runs.iter().flat_map(closed_launches).collect();
        self.launches.extend(launches.iter().cloned());
        Some(((id.to_owned(), length), launches))
    }
}

/// The launches of a turn to which nothing is added any more: what has not returned by now never will, unless it works in
/// the background.
pub fn closed_launches(turn: &Turn) -> impl Iterator<Item = Launch> {
    let tools = turn.generations.iter().flat_map(|generation| &generation.tools);
    let waiting: HashSet<_> = tools.filter(|tool| tool.result.is_none()).map(|tool| turn.tool_source(tool)).collect();
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
            runs: Runs::default(),
            places: Vec::new(),
            held: 0,
            grown: Instant::now(),
            seen: None,
        }
    }

    /// False if its files look as they did when they were last read to their end.
    pub fn has_changed(&self) -> bool {
        self.seen.as_ref() != Some(&self.looks())
    }

    fn looks(&self) -> [Option<Look>; 2] {
        [self.path.clone(), self.path.with_extension("meta.json")].map(|path| {
            let meta = std::fs::symlink_metadata(path).ok()?;
            Some((meta.len(), (meta.mtime(), meta.mtime_nsec()), meta.ino()))
        })
    }

    /// What it did last.
    pub fn turn(&self) -> Option<&Turn> {
        self.runs.last()
    }

    /// As [`turn`](Self::turn), to mark what was sent.
    pub fn turn_mut(&mut self) -> Option<&mut Turn> {
        self.runs.last_mut()
    }

    /// The first of its runs whose place is not known.
    fn unplaced(&self) -> Option<&Turn> {
        self.runs.iter().find(|turn| turn.place.is_none())
    }

    /// The place of its next run: in `turn`, below the call that launched it, if one did.
    fn place_in(&self, id: &str, turn: (String, u32), call: Option<&Launch>, order: Option<&Order>) -> Place {
        let meta = &self.meta;
        Place {
            agent_id: id.to_owned(),
            agent_type: meta.agent_type.clone().or_else(|| order.and_then(|order| order.subagent_type.clone())),
            description: meta.description.clone().or_else(|| order.and_then(|order| order.description.clone())),
            run: self.workflow().map(str::to_owned),
            round: u32::try_from(self.places.len() + 1).unwrap_or(u32::MAX),
            turn,
            launch_ids: [call.map(|call| call.id.clone()), call.and_then(|call| call.message_id.clone())],
            tool_id: call.map(|call| call.tool_id.clone()),
        }
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
        self.turn().is_some_and(|turn| turn.prompt.is_warmup())
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
        let looks = self.looks();
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
        let Self { lines, runs, held, .. } = self;
        lines.feed(&buffer[..n], |offset, line| take_line(runs, held, offset, line, &mut skipped));
        if n > 0 {
            self.grown = Instant::now();
        }
        self.read_to = file.position(self.lines.read_to());
        self.seen = (n < buffer.len()).then_some(looks);
        Ok(n == buffer.len())
    }

    /// Nothing more is expected: a last line that lacks its newline counts, if it is whole.
    pub fn finish_line(&mut self, mut skipped: impl FnMut(&'static str)) {
        let Self { lines, runs, held, .. } = self;
        if lines.has_whole_rest() {
            lines.finish(|offset, line| take_line(runs, held, offset, line, &mut skipped));
        }
    }
}

fn take_line(runs: &mut Runs, held: &mut usize, offset: u64, line: Line<'_>, skipped: &mut impl FnMut(&'static str)) {
    let Line::Whole(bytes) = line else { return skipped("too_long") };
    *held += bytes.len();
    record::read(bytes, |within, found| match found {
        Err(skip) => skip.reason().into_iter().for_each(&mut *skipped),
        Ok(record) => {
            *held += record.spilled() * reader::SPILLED;
            if !runs.push(record, offset + within as u64) {
                skipped("orphan");
            }
        }
    });
}

/// Everything subagents did in a session whose turns launched `launches`, by the key of the turn; for a session nobody
/// writes to.
pub fn all(transcript: &Path, roots: &[PathBuf], launches: Vec<Launch>, last: &[&Turn]) -> HashMap<String, Vec<Turn>> {
    let mut agents = Agents::default();
    agents.load(HashMap::new(), launches);
    agents.discover(transcript, &[]);
    let mut buffer = vec![0; reader::CHUNK];
    for agent in agents.at_work.values_mut() {
        while agent.read(roots, &mut buffer, |_| {}).unwrap_or(false) {}
    }
    agents.settle_places(last);
    let mut found: HashMap<String, Vec<Turn>> = HashMap::new();
    for id in agents.ids() {
        let placed = agents.get(&id).is_some_and(|agent| agent.is_placed());
        if (placed || agents.guess_place(&id, last))
            && let Some(agent) = agents.at_work.remove(&id)
        {
            for turn in agent.runs.into_turns() {
                found.entry(turn.trace_key().to_owned()).or_default().push(turn);
            }
        }
    }
    found
}
