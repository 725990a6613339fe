//! Reads on in a session that has grown: from where its last turn begins, with what is remembered of those before.

use std::{
    cell::Cell,
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::{beside, records, roots};
use crate::{
    agents::{self, Settled},
    reader::{Transcript, Unreadable},
};
use cc_core::{
    book::Book,
    reconcile::Stated,
    transcript::{cursor::Position, record::Record},
    turn::{Assembler, Launch, Memory, Turn, placement},
};

/// What is remembered of a session up to its last turn: numbers, ids and hashes, no text.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Where that turn begins.
    position: Position,
    /// See [`Transcript::sample`].
    sample: u64,
    memory: Memory,
    /// The launches of the turns before.
    launches: Vec<Launch>,
    agents: BTreeMap<String, Settled>,
}

impl Checkpoint {
    /// The offset at which the last turn begins.
    pub fn offset(&self) -> u64 {
        self.position.offset
    }

    /// The session's title until then; it is not stored with the rest.
    pub fn title(&self) -> Option<&str> {
        self.memory.title.as_deref()
    }

    pub fn set_title(&mut self, title: Option<String>) {
        self.memory.title = title;
    }

    /// True if this file has only grown since.
    fn holds(&self, file: &Transcript) -> bool {
        let Position { offset, .. } = self.position;
        self.position.holds(file.identity, file.length, file.before(offset).as_deref())
            && file.sample(offset) == Some(self.sample)
    }
}

/// Where a turn stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Before the new checkpoint.
    Closed,
    /// After it.
    Open,
}

/// What was read of a session.
#[derive(Debug)]
pub struct Grown {
    /// Where reading began.
    pub from: u64,
    pub book: Book,
    /// The work of subagents that belongs to no turn.
    pub unplaced: Vec<Turn>,
    /// All work of subagents for turns before `from` of which some has changed, by the key of the turn.
    pub earlier: HashMap<String, Vec<Turn>>,
    pub checkpoint: Option<Checkpoint>,
    /// The ids of subagents that the checkpoint `from` knew.
    pub settled: Vec<String>,
    /// Bytes of transcripts that were read, each counted once.
    pub bytes: u64,
}

/// Calls `each` with every turn of a session that begins at the checkpoint `from` or later, with the work of its subagents, or with
/// every turn if the transcript was rewritten, or has totals of Claude Code since. Copied turns come as well. If `keep`, the
/// result has a new checkpoint. `alone`: no subagent of the session can have a transcript.
///
/// # Errors
/// If the file cannot be read.
pub fn grown(
    path: &Path,
    session_id: &str,
    from: Option<&Checkpoint>,
    keep: bool,
    alone: bool,
    each: &mut dyn FnMut(&Turn, &[Turn], Part),
) -> Result<Grown, Unreadable> {
    let file = Transcript::open(path)?;
    let (end, from) = (file.length, from.filter(|from| from.holds(&file)));
    drop(file);
    let reading = Reading { path, session_id, from, end };
    if from.is_none() && !keep && alone {
        return reading.at_once(each);
    }
    let survey = reading.survey()?;
    if survey.has_totals && from.is_some() {
        let reading = Reading { from: None, ..reading };
        let survey = reading.survey()?;
        return reading.read(survey, keep, each);
    }
    reading.read(survey, keep, each)
}

struct Reading<'a> {
    path: &'a Path,
    session_id: &'a str,
    from: Option<&'a Checkpoint>,
    /// What is written behind it meanwhile is left for the next time.
    end: u64,
}

/// What must be known before the first turn.
struct Survey {
    /// Of closed turns, each with the number of turns that were closed before.
    launches: Vec<(usize, Launch)>,
    /// Where the last turn begins, and how many turns were closed by its prompt and before.
    last: Option<(u64, usize)>,
    has_totals: bool,
    book: Book,
    assembler: Assembler,
}

impl Reading<'_> {
    fn offset(&self) -> u64 {
        self.from.map_or(0, Checkpoint::offset)
    }

    fn assembler(&self) -> Assembler {
        let beside = beside(self.path, self.session_id);
        match self.from {
            None => Assembler::new(self.session_id, 0).beside(beside),
            Some(from) => {
                let left = from.memory.left.clone();
                Assembler::after(self.session_id, from.memory.clone()).beside(beside.after(left))
            }
        }
    }

    fn records(&self, each: impl FnMut(&[u8], u64, bool, Option<Record>)) -> Result<Transcript, Unreadable> {
        let mut file = Transcript::open(self.path)?;
        records(&mut file, self.offset()..self.end, &Cell::new(false), each)?;
        Ok(file)
    }

    /// Without subagents, once is enough.
    fn at_once(&self, each: &mut dyn FnMut(&Turn, &[Turn], Part)) -> Result<Grown, Unreadable> {
        let (mut assembler, mut book) = (self.assembler(), Book::new(self.session_id));
        self.records(|line, offset, _, record| {
            book.line(line, record.as_ref());
            if let Some(turn) = record.and_then(|record| assembler.push(record, offset)) {
                book.add(&turn);
                each(&turn, &[], Part::Closed);
            }
        })?;
        for turn in assembler.at_work() {
            book.add(turn);
            each(turn, &[], Part::Open);
        }
        Ok(Grown {
            from: 0,
            book,
            unplaced: Vec::new(),
            earlier: HashMap::new(),
            checkpoint: None,
            settled: Vec::new(),
            bytes: self.end,
        })
    }

    fn survey(&self) -> Result<Survey, Unreadable> {
        let mut survey = Survey {
            launches: Vec::new(),
            last: None,
            has_totals: false,
            book: Book::new(self.session_id),
            assembler: self.assembler(),
        };
        let mut closed = 0;
        self.records(|line, offset, is_first, record| {
            survey.has_totals |= record.is_none() && Stated::parse(line).is_some();
            survey.book.line(line, record.as_ref());
            let Some(record) = record else { return };
            if let Some(turn) = survey.assembler.push(record, offset) {
                survey.launches.extend(placement::closed_launches(&turn).map(|launch| (closed, launch)));
                closed += 1;
            }
            if is_first && survey.assembler.begins_at(offset) {
                survey.last = Some((offset, closed));
            }
        })?;
        Ok(survey)
    }

    fn read(
        &self,
        survey: Survey,
        keep: bool,
        each: &mut dyn FnMut(&Turn, &[Turn], Part),
    ) -> Result<Grown, Unreadable> {
        let Survey { launches, last, mut book, assembler: end, .. } = survey;
        let (last, before) = last.filter(|_| keep).unzip();
        let before = before.unwrap_or_default();
        let remembered = self.from.map_or(&[][..], |from| &from.launches);
        let closed =
            || remembered.iter().chain(launches.iter().filter(|(at, _)| *at < before).map(|(_, launch)| launch));
        let all: Vec<Launch> = remembered
            .iter()
            .chain(launches.iter().map(|(_, launch)| launch))
            .cloned()
            .chain(end.at_work().flat_map(placement::closed_launches))
            .collect();
        let open: Vec<&Turn> = end.at_work().collect();
        let settled = BTreeMap::new();
        let settled = self.from.map_or(&settled, |from| &from.agents);
        let later = launches.iter().filter(|(at, _)| *at >= before).map(|(_, launch)| &*launch.turn.0);
        let later: HashSet<&str> = later.chain(open.iter().map(|turn| &*turn.key)).collect();
        let keys = closed().map(|launch| &*launch.turn.0).filter(|key| !later.contains(key)).collect();
        let mut found = agents::unsettled(self.path, &roots(self.path), &all, &open, settled, &keys);
        let mut emitted = HashSet::new();
        let mut emit = |turn: &Turn, part| {
            let agents = found.placed.get(&turn.key).map_or(&[][..], Vec::as_slice);
            emitted.insert(turn.key.clone());
            book.add(turn);
            agents.iter().for_each(|agent| book.add(agent));
            each(turn, agents, part);
        };
        let (mut assembler, mut memory, mut count) = (self.assembler(), None, 0);
        let file = self.records(|_, offset, is_first, record| {
            let Some(record) = record else { return };
            if is_first && last == Some(offset) {
                memory = Some(assembler.memory());
            }
            if let Some(turn) = assembler.push(record, offset) {
                emit(&turn, if count < before { Part::Closed } else { Part::Open });
                count += 1;
            }
        })?;
        assembler.at_work().for_each(|turn| emit(turn, Part::Open));
        let checkpoint = last.zip(memory).and_then(|(offset, memory)| {
            Some(Checkpoint {
                position: file.position(offset),
                sample: file.sample(offset)?,
                memory,
                launches: closed().cloned().collect(),
                agents: std::mem::take(&mut found.settled),
            })
        });
        let mut earlier = found.placed;
        earlier.retain(|key, _| !emitted.contains(key));
        for key in found.changed.into_iter().filter(|key| !emitted.contains(key)) {
            earlier.entry(key).or_default();
        }
        Ok(Grown {
            from: self.offset(),
            book,
            unplaced: found.unplaced,
            earlier,
            checkpoint,
            settled: settled.keys().cloned().collect(),
            bytes: self.end - self.offset() + found.bytes,
        })
    }
}
