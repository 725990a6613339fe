//! Rebuilds the traces of a session from its transcript alone, without daemon or database: the spans a replay would send, or
//! their sums.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
    io,
    ops::Range,
    path::{Path, PathBuf},
};

use crate::{
    agents,
    copies::Beside,
    reader::{self, CHUNK_BYTES, Transcript, Unreadable},
};
use cc_core::{
    book::{self, Book, Remainder},
    ids::{self, Call, CallId, SpanId, SpanKey, TraceId, trace_id},
    import_state::Imported,
    observation::Observation,
    pipeline::{self, Outgoing, Pipeline},
    project::Options,
    reconcile::{Stated, Tokens},
    redact::{Counts, Rules},
    trace,
    transcript::{
        is_name,
        lines::{Line, Lines},
        record::{Record, Skip},
    },
    turn::{Assembler, Launch, Scope, Turn, placement},
};

mod grown;
mod tail;

pub use grown::{Checkpoint, Grown, Part, grown};
pub use tail::{Tail, tail};

/// Reads the transcript at `path` and calls `each` with the observations of each turn: root first, then those of its subagents,
/// then the events for turns that it abandoned. A line that occurs twice counts once, so every span comes once, except a root
/// that comes again with something new below it.
///
/// # Errors
/// If the file cannot be read.
pub fn turns(
    path: &Path,
    session_id: &str,
    options: &Options,
    rules: &Rules,
    mut each: impl FnMut(Vec<Outgoing>),
) -> Result<(), Unreadable> {
    let pipeline = Pipeline { session_id, options, rules };
    let (mut emitted, mut roots) = (Emitted::default(), HashMap::new());
    let mut is_news = |root: &Outgoing| {
        let what = (&*root.facts, &root.observation);
        let fingerprint = ids::fingerprint(&serde_json::to_vec(&what).unwrap_or_default());
        roots.insert(root.observation.span_id, fingerprint) != Some(fingerprint)
    };
    session(
        path,
        session_id,
        None,
        || beside(path, session_id),
        |_, _| {},
        |turn, agents| {
            let mut abandoned = Vec::new();
            let emit = |turn: &mut Turn| {
                let spilled = |spilled: &Path| reader::spilled(path, spilled);
                let emitted = pipeline.emit(turn, Scope::Final, None, spilled, &mut Counts::new());
                abandoned.extend(emitted.abandoned);
                emitted.observations
            };
            let mut found: Vec<Outgoing> = std::iter::once(turn).chain(agents).flat_map(emit).collect();
            let keys: Vec<SpanKey> = found.iter().map(|out| out.observation.key()).collect();
            let mut fresh = emitted.fresh(&keys).into_iter();
            found.retain(|out| fresh.next().unwrap_or(true) && (!out.observation.is_root() || is_news(out)));
            found.extend(abandoned.into_iter().filter(|out| emitted.is_fresh_below(&out.observation)));
            if !found.is_empty() {
                each(found);
            }
        },
    )?;
    Ok(())
}

/// The calls of the session at `path` and Claude Code's totals of it.
///
/// # Errors
/// If the file cannot be read.
pub fn book(path: &Path, session_id: &str) -> Result<Book, Unreadable> {
    let book = RefCell::new(Book::new(session_id));
    session(
        path,
        session_id,
        None,
        || beside(path, session_id),
        |line, record| book.borrow_mut().line(line, record),
        |turn, agents| {
            let mut book = book.borrow_mut();
            book.add(turn);
            agents.iter().for_each(|agent| book.add(agent));
        },
    )?;
    Ok(book.into_inner())
}

/// What calls without a line used in the session of `book`, whose transcript is at `path`. A fork leaves to its parent what is the
/// parent's, if that one's transcript is beside it.
pub fn untraced(path: &Path, book: &Book) -> Vec<Remainder> {
    if book.runs.is_empty() {
        return Vec::new();
    }
    let beside = |from: &String| is_name(from).then(|| path.with_file_name(format!("{from}.jsonl")));
    let parent = book.forked_from.as_ref().and_then(|from| self::book(&beside(from)?, from).ok());
    book::untraced(book, parent.as_ref())
}

#[derive(Clone, Debug, PartialEq)]
pub struct Used {
    /// Of its own transcript and those of its subagents.
    pub tokens: Tokens,
    /// Claude Code's own total in US dollars if the session has not continued since it was written, otherwise by list price; `None` if a
    /// model has none.
    pub cost_usd: Option<f64>,
}

/// The usage of the session at `path`.
///
/// # Errors
/// If the file cannot be read.
pub fn used(path: &Path, session_id: &str) -> Result<Used, Unreadable> {
    let (mut tokens, mut stated_usd) = (Tokens::default(), None);
    let look = |line: &[u8], record: Option<&Record>| match record {
        None => {
            if let Some(stated) = Stated::parse(line) {
                stated_usd = Some(stated.cost_usd);
            }
        }
        Some(Record::Prompt(prompt)) if prompt.stands_in() => {}
        Some(Record::Prompt(_) | Record::Assistant(_)) => stated_usd = None,
        Some(_) => {}
    };
    let mut book = Book::new(session_id);
    session(
        path,
        session_id,
        None,
        || beside(path, session_id),
        look,
        |turn, agents| {
            std::iter::once(turn).chain(agents).for_each(|turn| book.add(turn));
        },
    )?;
    book.calls.iter().for_each(|call| tokens += call.tokens);
    let listed_usd = || book.calls.iter().map(|call| call.cost).sum();
    Ok(Used { tokens, cost_usd: stated_usd.or_else(listed_usd) })
}

/// Longest line that is read just for its prompt, in bytes.
const MAX_PROMPT_BYTES: usize = 256 << 10;

/// The unmasked text of the prompt whose line begins at `offset`; `None` if there is none, or the line is too long.
pub fn prompt(path: &Path, offset: u64) -> Option<String> {
    let mut file = Transcript::open(path).ok()?;
    file.seek(offset).ok()?;
    let (mut line, mut filled) = (vec![0; 4096], 0);
    loop {
        let n = file.read(&mut line[filled..]).ok()?;
        let end = memchr::memchr(b'\n', &line[filled..filled + n]).map(|at| filled + at);
        filled += n;
        match end {
            Some(end) => line.truncate(end),
            None if n == 0 => line.truncate(filled),
            None if filled == MAX_PROMPT_BYTES => return None,
            None => {
                if filled == line.len() {
                    line.resize((filled * 4).min(MAX_PROMPT_BYTES), 0);
                }
                continue;
            }
        }
        break;
    }
    let mut text = None;
    pipeline::records(0, Line::Whole(&line), |_, found| {
        if let Ok(Record::Prompt(prompt)) = found {
            text.get_or_insert(prompt.text);
        }
    });
    text.filter(|text| !text.trim().is_empty())
}

/// The start of a turn in a transcript: the offset of its prompt, and how many answered turns come before.
pub type Start = (u64, u32);

/// The observations of at most `limit` turns of a session from `start` on, including subagents and copied turns. Reads
/// no more of the transcript than necessary.
///
/// # Errors
/// If the file cannot be read.
pub fn turns_from(
    path: &Path,
    session_id: &str,
    start: Start,
    limit: usize,
    options: &Options,
    rules: &Rules,
) -> Result<Vec<Vec<Outgoing>>, Unreadable> {
    let (mut turns, is_enough) = (Vec::new(), Cell::new(limit == 0));
    let each = |turn| {
        if !is_enough.get() {
            turns.push(turn);
        }
        is_enough.set(is_enough.get() || turns.len() == limit);
    };
    let mut end = walk(path, session_id, |_| Ok(start), &is_enough, beside(path, session_id), |_, _| {}, each)?;
    let mut launches: Vec<Launch> = turns.iter().flat_map(placement::closed_launches).collect();
    let open: Vec<&Turn> = if is_enough.get() { Vec::new() } else { end.at_work().collect() };
    launches.extend(open.iter().flat_map(|turn| placement::closed_launches(turn)));
    let (mut agents, _) = agents::all(path, &roots(path), launches, &open);
    let pipeline = Pipeline { session_id, options, rules };
    let spilled = |spilled: &Path| reader::spilled(path, spilled);
    let mut emit = |turn: &mut Turn| {
        let of_agents = agents.remove(&turn.key).unwrap_or_default();
        let mut found = pipeline.emit(turn, Scope::Final, None, spilled, &mut Counts::new()).observations;
        for mut agent in of_agents {
            found.extend(pipeline.emit(&mut agent, Scope::Final, None, spilled, &mut Counts::new()).observations);
        }
        found
    };
    let mut found: Vec<Vec<Outgoing>> = turns.iter_mut().map(&mut emit).collect();
    if !is_enough.get() {
        found.extend(end.at_work_mut().map(emit).take(limit - found.len()));
    }
    Ok(found)
}

/// The traces of a session's own turns, without copied ones.
///
/// # Errors
/// If the file cannot be read.
pub fn traces(path: &Path, session_id: &str) -> Result<Vec<TraceId>, Unreadable> {
    let (mut traces, mut known) = (Vec::new(), HashSet::new());
    let mut own = |turn: &Turn| {
        let trace = trace_id(turn.trace_key());
        // Its answer to another session's prompt is its own.
        let is_own = turn.prompt.uuid.as_ref().is_some_and(|uuid| *uuid != turn.key)
            || turn.prompt.session.forked_from.as_deref().is_none_or(|from| from == session_id);
        if is_own && known.insert(trace) {
            traces.push(trace);
        }
    };
    let all = Cell::new(false);
    let end = walk(path, session_id, |_| Ok((0, 0)), &all, beside(path, session_id), |_, _| {}, |turn| own(&turn))?;
    end.at_work().for_each(own);
    Ok(traces)
}

/// The traces of all turns of a session, including copied ones.
///
/// # Errors
/// If the file cannot be read.
pub fn all_traces(path: &Path, session_id: &str) -> Result<Vec<TraceId>, Unreadable> {
    let (mut traces, all) = (HashSet::new(), Cell::new(false));
    let mut add = |turn: &Turn| traces.extend([trace_id(turn.trace_key())]);
    let end = walk(path, session_id, |_| Ok((0, 0)), &all, beside(path, session_id), |_, _| {}, |turn| add(&turn))?;
    end.at_work().for_each(add);
    Ok(traces.into_iter().collect())
}

/// What would be sent of a session, without text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    pub turns: Vec<TurnOutline>,
    /// The latest time among its turns, Unix nanoseconds.
    pub last: Option<u64>,
    /// Copied turns, which belong to the session that created them.
    pub copied: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TurnOutline {
    /// Root first.
    pub spans: Vec<SpanKey>,
    /// Input and output, including the cache.
    pub tokens: u64,
    /// Subagents took part in it.
    pub has_agents: bool,
}

/// The spans of a transcript so far. Applies the store's rule: each span once, and a model call only in the first trace it
/// occurs in.
#[derive(Default)]
struct Emitted {
    spans: HashSet<(TraceId, SpanId)>,
    calls: HashMap<CallId, TraceId>,
}

impl Emitted {
    /// Which of a turn's `spans`, root first, are to be emitted. The root is if it is new, or anything below it.
    fn fresh(&mut self, spans: &[SpanKey]) -> Vec<bool> {
        let (mut calls, mut copies) = (0, 0);
        let mut fresh: Vec<bool> = Vec::with_capacity(spans.len());
        for (trace, span, call) in spans.iter().skip(1) {
            let is_copy = call.is_some_and(|call| !self.is_own(&call, *trace));
            calls += usize::from(call.is_some());
            copies += usize::from(is_copy);
            fresh.push(!is_copy && self.spans.insert((*trace, *span)));
        }
        if let Some((trace, span, _)) = spans.first() {
            let is_copy = calls > 0 && calls == copies;
            fresh.insert(0, !is_copy && (self.spans.insert((*trace, *span)) || fresh.contains(&true)));
        }
        fresh
    }

    /// True if `event` is new and its root was emitted.
    fn is_fresh_below(&mut self, event: &Observation) -> bool {
        let root = event.parent.map(|root| (event.trace_id, root));
        root.is_some_and(|root| self.spans.contains(&root)) && self.spans.insert((event.trace_id, event.span_id))
    }

    /// Records that the call occurs in this trace. False if it occurred in another one first.
    fn is_own(&mut self, call: &Call, trace: TraceId) -> bool {
        let first: Vec<TraceId> = call.proofs().filter_map(|proof| self.calls.get(proof).copied()).collect();
        let is_own = first.is_empty() || first.contains(&trace);
        if is_own {
            for proof in call.proofs() {
                self.calls.entry(*proof).or_insert(trace);
            }
        }
        is_own
    }
}

/// Outlines what a replay of the transcript at `path` would send, without `sent`, which another tool has sent.
///
/// # Errors
/// If the file cannot be read.
pub fn outline(
    path: &Path,
    session_id: &str,
    sent: Option<&Imported>,
    options: &Options,
) -> Result<Outline, Unreadable> {
    let (mut outline, mut emitted) = (Outline::default(), Emitted::default());
    let pipeline = Pipeline { session_id, options, rules: &Rules::default() };
    let beside = || beside(path, session_id).leaving_copies();
    session(
        path,
        session_id,
        sent,
        beside,
        |_, _| {},
        |turn, agents| {
            if !turn.has_news(Scope::Final) {
                outline.copied += 1;
                return;
            }
            outline.last = outline.last.max(turn.end).max(turn.prompt.at);
            if !pipeline.keeps(trace_id(turn.trace_key())) {
                return;
            }
            let all: Vec<trace::Span> = std::iter::once(&*turn)
                .chain(agents.iter())
                .flat_map(|turn| trace::spans(turn, Scope::Final, options.semantics, None))
                .collect();
            let keys: Vec<SpanKey> = all.iter().map(|span| (span.trace_id, span.span_id, span.call)).collect();
            let (mut spans, mut tokens) = (Vec::new(), 0);
            for ((span, key), _) in all.iter().zip(keys.iter()).zip(emitted.fresh(&keys)).filter(|(_, fresh)| *fresh) {
                if let trace::Body::Generation { usage: Some(usage), .. } = &span.body {
                    tokens += Tokens::from(*usage).total();
                }
                spans.push(*key);
            }
            if spans.is_empty() {
                return;
            }
            outline.turns.push(TurnOutline {
                spans,
                tokens,
                has_agents: !agents.is_empty() || !turn.agents.is_empty(),
            });
        },
    )?;
    Ok(outline)
}

/// The other sessions in the same directory.
fn beside(path: &Path, session_id: &str) -> Beside {
    Beside::new(session_id, path, roots(path))
}

/// Calls `each` with every turn of a session and the work of its subagents, except turns that another tool has `sent`.
/// Calls `look` before with every line and its records. Returns the work that belongs to no turn.
fn session(
    path: &Path,
    session_id: &str,
    sent: Option<&Imported>,
    beside: impl Fn() -> Beside,
    look: impl FnMut(&[u8], Option<&Record>),
    mut each: impl FnMut(&mut Turn, &mut [Turn]),
) -> Result<Vec<Turn>, Unreadable> {
    let mut launches = Vec::new();
    let start = |file: &mut Transcript| {
        Ok(match sent {
            Some(sent) => (file.after_lines(sent.last_line)?, sent.turn_count),
            None => (0, 0),
        })
    };
    let all = Cell::new(false);
    let launched = |turn: Turn| launches.extend(placement::closed_launches(&turn));
    let end = walk(path, session_id, start, &all, beside(), look, launched)?;
    launches.extend(end.at_work().flat_map(placement::closed_launches));
    let (mut agents, unplaced) = agents::all(path, &roots(path), launches, &end.at_work().collect::<Vec<_>>());
    let mut emit = |turn: &mut Turn| {
        let of_agents = agents.get_mut(&turn.key).map_or(&mut [][..], Vec::as_mut_slice);
        each(turn, of_agents);
    };
    let mut end = walk(path, session_id, start, &all, beside(), |_, _| {}, |mut turn| emit(&mut turn))?;
    end.at_work_mut().for_each(emit);
    Ok(unplaced)
}

/// The directory of the transcript; those of its subagents are below it.
fn roots(path: &Path) -> Vec<PathBuf> {
    path.parent().map(Path::to_path_buf).into_iter().collect()
}

/// Calls `each` with every closed turn, and `look` with every line and its records; returns the state with the last
/// turn still open. Stops soon after `is_enough`.
fn walk(
    path: &Path,
    session_id: &str,
    start: impl FnOnce(&mut Transcript) -> io::Result<Start>,
    is_enough: &Cell<bool>,
    beside: Beside,
    mut look: impl FnMut(&[u8], Option<&Record>),
    mut each: impl FnMut(Turn),
) -> Result<Assembler, Unreadable> {
    let mut file = Transcript::open(path)?;
    let (at, closed) = start(&mut file)?;
    let mut assembler = Assembler::new(session_id, closed).beside(beside);
    records(&mut file, at..u64::MAX, is_enough, |bytes, offset, _, record| {
        look(bytes, record.as_ref());
        if let Some(turn) = record.and_then(|record| assembler.push(record, offset)) {
            each(turn);
        }
    })?;
    Ok(assembler)
}

/// Calls `each` with the lines in that range of a transcript and their records: the line, the record's offset, whether the line begins
/// with it, and the record if it can be read. Stops soon after `is_enough`.
fn records(
    file: &mut Transcript,
    range: Range<u64>,
    is_enough: &Cell<bool>,
    mut each: impl FnMut(&[u8], u64, bool, Option<Record>),
) -> Result<(), Unreadable> {
    file.seek(range.start)?;
    let mut lines = Lines::at(range.start);
    let mut left = range.end.saturating_sub(range.start);
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut push = |offset, line: Line<'_>| {
        let Line::Whole(bytes) = line else { return };
        let mut is_first = true;
        pipeline::records(offset, line, |at, found| {
            if !matches!(found, Err(Skip::Field(_))) {
                each(bytes, at, is_first && at == offset, found.ok());
                is_first = false;
            }
        });
    };
    loop {
        let n = file.read(&mut buffer)?.min(usize::try_from(left).unwrap_or(usize::MAX));
        left -= n as u64;
        if n == 0 || is_enough.get() {
            break;
        }
        lines.feed(&buffer[..n], &mut push);
    }
    if lines.unfinished().is_some() {
        lines.finish(&mut push);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_fresh_once_and_a_root_again_with_news_below_it() {
        let key = |trace: u8, span: u8, call: u8| {
            ([trace; 16], [span; 8], (call > 0).then(|| Call::of(&call.to_string(), None, None, None)))
        };
        let mut emitted = Emitted::default();
        for (spans, expect, why) in [
            (vec![key(1, 1, 0), key(1, 2, 7)], vec![true, true], "the first time"),
            (vec![key(1, 1, 0), key(1, 2, 7)], vec![false, false], "the same again"),
            (vec![key(1, 1, 0), key(1, 2, 7), key(1, 3, 0)], vec![true, false, true], "with news"),
            (vec![key(2, 1, 0), key(2, 2, 7)], vec![false, false], "a copy of its only call"),
            (vec![key(2, 1, 0), key(2, 2, 7), key(2, 3, 8)], vec![true, false, true], "a copy, and a call of its own"),
            (vec![key(3, 1, 0)], vec![true], "no calls"),
            (vec![], vec![], "nothing"),
        ] {
            assert_eq!(emitted.fresh(&spans), expect, "{why}");
        }
    }

    #[test]
    fn copied_turns_are_not_the_forks_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fork.jsonl");
        let turn = |uuid: &str, from: serde_json::Value| {
            let prompt =
                serde_json::json!({"type": "user", "uuid": uuid, "message": {"content": "q"}, "forkedFrom": from});
            let message = serde_json::json!({"id": format!("m-{uuid}"), "content": "a"});
            let answer = serde_json::json!({"type": "assistant", "message": message, "forkedFrom": from});
            format!("{prompt}\n{answer}\n")
        };
        let copied = turn("u1", serde_json::json!({"sessionId": "first", "messageUuid": "u1"}));
        let own = turn("u2", serde_json::Value::Null);
        std::fs::write(&path, copied + own.trim_end()).unwrap();
        assert_eq!(traces(&path, "fork").unwrap(), [trace_id("u2")]);
        assert_eq!(traces(&path, "first").unwrap(), ["u1", "u2"].map(trace_id));
        // A fork's answer to a copied prompt is its own, with its own trace.
        let copied = turn("u1", serde_json::json!({"sessionId": "first", "messageUuid": "u1"}));
        let (prompt, _) = copied.split_once('\n').unwrap();
        let answer = serde_json::json!({"type": "assistant", "message": {"id": "m-u3", "content": "a"}});
        std::fs::write(dir.path().join("other.jsonl"), format!("{prompt}\n{answer}\n")).unwrap();
        assert_eq!(traces(&dir.path().join("other.jsonl"), "other").unwrap(), [trace_id("u1@other")]);
        let mut answered = 0;
        turns(&path, "fork", &Options::default(), &Rules::default(), |_| answered += 1).unwrap();
        assert_eq!(answered, 2, "without the last newline too");
    }
}
