//! Where does a subagent belong, and when has it ended?
//!
//! Its transcript names neither the turn nor the tool call that launched it. The call's result names the subagent, or the
//! `.meta.json` beside its transcript names the call (2.1.176 and later). For a workflow's subagents the call's result names
//! the workflow run.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use serde::Deserialize;

use super::{
    Launch, Order, Place, Runs, Turn,
    silence::{BURST, QUIET, QUIET_FINISHED},
};

/// The shortest interval between two reads of a running subagent's transcript while no file event comes.
pub const POLL: Duration = Duration::from_secs(1);
/// The longest such interval, after a long silence.
pub const POLL_LATER: Duration = Duration::from_secs(600);

/// The contents of a `.meta.json`, which is rewritten while the subagent runs.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta {
    pub agent_type: Option<String>,
    /// Its task in a few words.
    pub description: Option<String>,
    /// The call that launched it.
    pub tool_use_id: Option<String>,
    pub finished: bool,
}

/// A subagent, as far as its transcript was read.
#[derive(Debug)]
pub struct Subagent {
    id: String,
    /// The workflow run it belongs to.
    workflow: Option<String>,
    /// `None` until the file was read completely. It may appear later than the transcript, and is incomplete while it is
    /// rewritten.
    pub meta: Option<Meta>,
    /// Its runs: the first for its launch, and one for each message that woke it again.
    pub runs: Runs,
    /// The places of its first runs, as far as they are known.
    places: Vec<Place>,
}

/// What shows where a subagent belongs.
#[derive(Clone, Debug)]
struct Known<'a> {
    /// The session's turns in progress.
    pub open: &'a [&'a Turn],
    /// The runs of all its running subagents.
    pub runs: Vec<&'a Turn>,
    /// Launches of closed turns.
    pub launches: &'a [Launch],
}

impl<'a> Known<'a> {
    /// Every call that launched a subagent, those of turns whose place is known first.
    fn launches(&self) -> impl Iterator<Item = Launch> + '_ {
        self.sources().flat_map(Turn::launches).chain(self.launches.iter().cloned())
    }

    /// Turns whose own place is known: the place of a subagent leads to that of its own subagents.
    fn sources(&self) -> impl Iterator<Item = &'a Turn> + Clone + '_ {
        self.open.iter().copied().chain(self.runs.iter().copied().filter(|turn| turn.place.is_some()))
    }
}

/// The calls that launched subagents and have returned, by turn. Collected once for all subagents of a session: each of
/// thousands may ask.
#[derive(Debug, Default)]
pub struct Returned(HashMap<String, HashSet<String>>);

impl Returned {
    /// Those of `turns`, which are open or runs of subagents, and of closed turns.
    pub fn of<'a>(turns: impl Iterator<Item = &'a Turn>, launches: &[Launch]) -> Self {
        let mut all = Self::default();
        for turn in turns {
            let (key, tools) = turn.returned();
            for tool in tools {
                all.put(key, tool.into_owned());
            }
        }
        all.add(launches);
        all
    }

    /// Adds those of a turn that was closed meanwhile.
    pub fn add(&mut self, launches: &[Launch]) {
        for launch in launches.iter().filter(|launch| launch.returned) {
            self.put(&launch.turn.0, launch.tool_id.clone());
        }
    }

    fn put(&mut self, turn: &str, tool: String) {
        match self.0.get_mut(turn) {
            Some(tools) => drop(tools.insert(tool)),
            None => drop(self.0.insert(turn.to_owned(), HashSet::from([tool]))),
        }
    }

    /// True if the call above the subagent at `place` is one of them.
    fn has(&self, place: &Place) -> bool {
        let tool = place.tool_id.as_deref();
        self.0.get(&place.turn.0).zip(tool).is_some_and(|(tools, tool)| tools.contains(tool))
    }
}

impl Subagent {
    /// A subagent of which nothing was read yet.
    pub fn new(id: String, workflow: Option<String>) -> Self {
        Self { id, workflow, meta: None, runs: Runs::default(), places: Vec::new() }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// True if the place of its last run is known.
    pub fn is_placed(&self) -> bool {
        self.runs.last().is_some_and(|turn| turn.place.is_some())
    }

    /// True if no turn asked for it.
    pub fn is_warmup(&self) -> bool {
        self.runs.last().is_some_and(|turn| turn.prompt.is_warmup())
    }

    /// The first run whose place is not known.
    fn unplaced(&self) -> Option<&Turn> {
        self.runs.iter().find(|turn| turn.place.is_none())
    }

    /// The place of the first unplaced run; `None` if nothing says where it is.
    fn placement(&self, known: &Known<'_>) -> Option<Place> {
        let turn = self.unplaced()?;
        let meta = self.meta.as_ref();
        let asked_by = meta.and_then(|meta| meta.tool_use_id.as_deref());
        let launches = || known.launches();
        let names = |launch: &Launch| {
            let named = launch.agent_id.as_deref();
            named.is_some_and(|named| named == self.id || Some(named) == self.workflow.as_deref())
        };
        // Its own subagents have the same prompt id and a call that launched them, so it must be certain
        // that this one has no such call.
        let is_without_call = meta.is_some() && asked_by.is_none();
        let by_prompt = turn.prompt.prompt_id.as_deref().filter(|_| is_without_call).map(Turn::launch_id);
        let before = |launch: &Launch| launch.called.zip(turn.prompt.at).is_none_or(|(called, at)| called <= at);
        let launch = if self.places.is_empty() {
            // Of several calls with one id, the latest that names no other subagent.
            let asked = |launch: &Launch| asked_by == Some(&launch.id) && (launch.agent_id.is_none() || names(launch));
            launches()
                .filter(|launch| names(launch) && !launch.wakes)
                .min_by_key(|launch| launch.called)
                .or_else(|| {
                    launches().filter(|launch| asked(launch) && before(launch)).max_by_key(|launch| launch.called)
                })
                .or_else(|| launches().find(|launch| by_prompt.as_ref() == Some(&launch.tool_id)))?
        } else {
            let used = |launch: &Launch| self.places.iter().any(|place| place.is_below(launch));
            let woke = |launch: &Launch| names(launch) && !used(launch) && before(launch);
            launches().filter(woke).max_by_key(|launch| launch.called)?
        };
        let own = known.sources().filter(|turn| turn.trace_key() == launch.turn.0);
        let order = own.filter_map(|turn| turn.order(&launch.tool_id)).next();
        let is_call = by_prompt.as_ref() != Some(&launch.tool_id);
        Some(self.place_in(launch.turn.clone(), is_call.then_some(&launch), order))
    }

    /// The last resort once nothing more will come that says where it belongs. In this order: the call of the open turn that
    /// asked for the same; the open turn itself if the subagent began during it; for a later run the turn in progress, or that
    /// of the run before; if the call that launched it is unreadable, the turn that launched another subagent last. False if
    /// none applies. `launches` are the calls of closed turns.
    pub fn guess(&mut self, open: &[&Turn], launches: &[Launch]) -> bool {
        while let Some(turn) = self.unplaced() {
            let open = open.last().copied().filter(|_| !turn.generations.is_empty());
            let same_prompt = open
                .is_some_and(|open| turn.prompt.prompt_id.is_some() && turn.prompt.prompt_id == open.prompt.prompt_id);
            let call = open.and_then(|open| open.launch_for(&turn.prompt.text));
            let began = open.is_some_and(|open| call.is_some() || same_prompt || turn.prompt.at >= open.prompt.at);
            let before = self.places.last().map(|place| place.turn.clone());
            let turn = match open {
                Some(open) if same_prompt || before.is_none() && began => (open.key.clone(), open.number),
                _ => match before.or_else(|| launched_before(turn, launches)) {
                    Some(turn) => turn,
                    None => return false,
                },
            };
            let call = call.filter(|call| call.turn == turn);
            let order = call.as_ref().and_then(|call| open?.order(&call.tool_id));
            let place = self.place_in(turn, call.as_ref(), order);
            self.put(place);
        }
        self.is_placed()
    }

    /// The place of its next run: in `turn`, below the call that launched it, if one did.
    fn place_in(&self, turn: (String, u32), call: Option<&Launch>, order: Option<&Order>) -> Place {
        let meta = self.meta.clone().unwrap_or_default();
        Place {
            agent_id: self.id.clone(),
            agent_type: meta.agent_type.or_else(|| order.and_then(|order| order.subagent_type.clone())),
            description: meta.description.or_else(|| order.and_then(|order| order.description.clone())),
            run: self.workflow.clone(),
            round: u32::try_from(self.places.len() + 1).unwrap_or(u32::MAX),
            turn,
            launch_ids: [call.map(|call| call.id.clone()), call.and_then(|call| call.message_id.clone())],
            tool_id: call.map(|call| call.tool_id.clone()),
        }
    }

    fn put(&mut self, place: Place) {
        if let Some(turn) = self.runs.iter_mut().find(|turn| turn.place.is_none()) {
            turn.number = place.turn.1;
            turn.place = Some(place.clone());
            self.places.push(place);
        }
    }

    /// When all of it can be emitted, provided that its transcript, which last grew at `grown`, does not grow until then;
    /// `None` while it is running. `returned`: the calls that have. `is_over`: the session has ended. `has_ended`: a hook or
    /// notification reported the subagent's end.
    pub fn due(&self, returned: &Returned, grown: Instant, is_over: bool, has_ended: bool) -> Option<Instant> {
        let turn = self.runs.last();
        let Some(place) = turn.and_then(|turn| turn.place.as_ref()) else {
            // The transcript may not say what woke it again.
            let is_said = is_over || has_ended && !self.places.is_empty();
            return is_said.then_some(grown + QUIET);
        };
        let is_said = is_over || has_ended || returned.has(place);
        match turn.is_some_and(Turn::looks_finished) {
            true if is_said || self.meta.as_ref().is_some_and(|meta| meta.finished) => Some(grown + BURST),
            true => Some(grown + QUIET_FINISHED),
            false if is_said => Some(grown + QUIET),
            false => None,
        }
    }
}

/// Finds the places of all subagents that have none yet.
pub fn place_all(agents: &mut [&mut Subagent], open: &[&Turn], launches: &[Launch]) {
    // The place of a subagent leads to that of its own subagents.
    let mut is_news = true;
    while std::mem::take(&mut is_news) {
        let mut next = 0;
        loop {
            // Collected again only after a change: most of thousands may have no place.
            let runs = agents.iter().flat_map(|agent| agent.runs.iter()).collect();
            let known = Known { open, runs, launches };
            let found = (next..agents.len()).find_map(|index| Some((index, agents[index].placement(&known)?)));
            let Some((index, place)) = found else { break };
            agents[index].put(place);
            (next, is_news) = (index, true);
        }
    }
}

/// What to do next for a subagent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It has ended, or nobody waits for its end: emit all of it.
    Emit,
    /// Read its transcript again at that time if no file event comes before.
    Poll {
        /// Monotonic time.
        at: Instant,
        /// It has ended if its transcript has not grown by then.
        is_ending: bool,
    },
}

/// What to do next for a subagent that is [`due`](Subagent::due) at that time. `grown` is when the transcript of one of the
/// session's subagents last grew. `is_superseded`: another session continues this one, and nobody writes to it any more.
pub fn next(now: Instant, due: Option<Instant>, grown: Instant, is_superseded: bool) -> Next {
    if is_superseded || due.is_some_and(|due| due <= now) {
        return Next::Emit;
    }
    // File events say when it continues. Should they get lost, that is noticed after at most half as long again.
    let poll = now + (now.saturating_duration_since(grown) / 2).clamp(POLL, POLL_LATER);
    Next::Poll { at: due.unwrap_or(poll).min(poll), is_ending: due.is_some() }
}

/// The launches of a closed turn: what has not returned by now never will, unless it runs in the background.
pub fn closed_launches(turn: &Turn) -> impl Iterator<Item = Launch> {
    let tools = turn.generations.iter().flat_map(|generation| &generation.tools);
    let waiting: HashSet<_> = tools.filter(|tool| tool.result.is_none()).map(|tool| turn.tool_source(tool)).collect();
    turn.launches()
        .map(move |launch| Launch { returned: launch.returned || waiting.contains(&*launch.tool_id), ..launch })
}

/// The turn that launched a subagent with the prompt of `run`, else the one that last launched any before it began.
fn launched_before(run: &Turn, launches: &[Launch]) -> Option<(String, u32)> {
    let by_prompt = run.prompt.prompt_id.as_deref().map(Turn::launch_id);
    if let Some(launch) = launches.iter().find(|launch| by_prompt.as_ref() == Some(&launch.tool_id)) {
        return Some(launch.turn.clone());
    }
    let launches = launches.iter().filter(|launch| launch.called.is_some() && launch.called <= run.prompt.at);
    launches.max_by_key(|launch| launch.called).map(|launch| launch.turn.clone())
}
