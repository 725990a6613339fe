//! One step forward in a session: what it found enters the outbox of each destination, and the position passes it, in one
//! transaction (invariant 3).

use std::{
    collections::{BTreeMap, HashMap, HashSet, hash_map::Entry},
    ops::RangeInclusive,
    path::PathBuf,
    sync::Arc,
};

use rusqlite::{Connection, OptionalExtension, params};

use super::{
    DestinationId, Result, SessionRow, Store, checksum, count, followers, json, media, no_room, paused,
    sessions::{consume, found_elsewhere, targets},
    unknown::note_unknown,
};
use cc_core::{
    delivery::item,
    destination::{Destination, Manners, MediaAs},
    ids::{self, Call, SpanId, TraceId},
    observation::{Observation, TraceFacts},
    pipeline::Outgoing,
    route::Target,
    transcript::record::Nanos,
    turn::{Launch, Past},
};

/// The name under which turns are counted that were said while their project was paused.
const SUPPRESSED: &str = "turn_suppressed";

/// One step forward in a session; all of it happens, or none.
#[derive(Debug)]
pub struct Advance {
    /// Where the session stands afterwards.
    pub session: SessionRow,
    /// Spans found on the way.
    pub spans: Vec<Outgoing>,
    /// Traces of turns that began while tracing was off in their project: left out, unless history is asked for.
    pub off: Vec<TraceId>,
    /// Further spans of turns emitted before: left out where the root they stand below is not known to the destination.
    pub marks: Vec<Outgoing>,
    /// Turns that are over.
    pub turns: Vec<Past>,
    /// Calls that launched subagents, in turns that are passed.
    pub launches: Vec<Launch>,
    /// Subagents that are fully emitted, and how long their transcripts were.
    pub agents: Vec<(String, u64)>,
    /// Events that are dealt with.
    pub consumed: Vec<String>,
    /// Lines passed over, by reason.
    pub skipped: BTreeMap<&'static str, u64>,
    /// Of these, lines of a kind nobody knows, by kind and version of Claude Code.
    pub unknown: BTreeMap<(String, String), u64>,
    /// Secrets masked, by rule.
    pub redacted: BTreeMap<String, u64>,
    /// Destinations that take nothing now: they fall behind, and are read for again later.
    pub behind: Vec<Destination>,
    /// Unix time in milliseconds.
    pub now_ms: i64,
}

impl Advance {
    /// About how many bytes it adds to the outbox.
    pub fn bytes(&self) -> usize {
        self.spans.iter().chain(&self.marks).map(|out| out.bytes).sum()
    }
}

/// What one transaction adds to the outbox.
#[derive(Default)]
struct Queued {
    /// Bytes there is room for, once that was asked.
    room: Option<u64>,
    /// Bytes of spans, by destination.
    spans: HashMap<DestinationId, u64>,
    /// Bytes of spans that others took the place of.
    replaced: HashMap<DestinationId, u64>,
    /// Bytes of media that wait afterwards, by destination.
    media: HashMap<DestinationId, u64>,
    /// Where the step before went.
    targets: (Vec<Target>, Vec<DestinationId>),
    /// Directories of the step before that had something to emit, and what is or was paused there.
    pauses: Option<(Vec<PathBuf>, Paused)>,
}

/// Whether a project is paused now, and when it was, in nanoseconds since the epoch.
type Paused = (bool, Vec<RangeInclusive<Nanos>>);

/// What of a step goes nowhere, because its project is or was paused.
struct Suppressed<'s> {
    withheld: bool,
    meanwhile: &'s HashSet<TraceId>,
    in_pause: &'s dyn Fn(&Observation) -> bool,
}

impl Queued {
    /// Bytes added so far, where these waited `before`.
    fn bytes(&self, before: &HashMap<DestinationId, u64>) -> u64 {
        let media = self.media.iter().map(|(id, bytes)| bytes - before.get(id).copied().unwrap_or(0));
        self.spans.values().copied().chain(media).sum()
    }
}

/// What describes a trace, as it is stored: written once for all observations that have it in common.
#[derive(Default)]
struct Facts<'a>(Option<(&'a Arc<TraceFacts>, String)>);

impl<'a> Facts<'a> {
    fn of(&mut self, out: &'a Outgoing) -> &str {
        if self.0.as_ref().is_none_or(|(last, _)| !Arc::ptr_eq(last, &out.facts)) {
            self.0 = None;
        }
        &self.0.get_or_insert_with(|| (&out.facts, item::facts(&out.facts))).1
    }
}

impl Store {
    /// Moves a session forward: spans not seen before enter the outbox, the cursor passes what they came from, the events
    /// that led here are gone. A root enters again if another span of its trace is new and it says something else than before. Returns the destinations and
    /// the number of spans queued for each.
    ///
    /// # Errors
    /// If nothing was changed.
    pub fn advance(&mut self, step: &Advance) -> Result<Vec<(DestinationId, usize)>> {
        self.advance_all([step]).map(|stored| stored.into_iter().flatten().collect())
    }

    /// Moves several sessions forward in this order; all of it happens, or none.
    ///
    /// # Errors
    /// If nothing was changed.
    pub fn advance_all<'a>(
        &mut self,
        steps: impl IntoIterator<Item = &'a Advance>,
    ) -> Result<Vec<Vec<(DestinationId, usize)>>> {
        let mut queued = Queued::default();
        let tx = self.db.unchecked_transaction()?;
        self.claims.write(&tx)?;
        let stored = steps.into_iter().map(|step| self.advance_in(&tx, step, &mut queued)).collect::<Result<_>>()?;
        tx.commit()?;
        self.claims.are_stored();
        for (destination, bytes) in queued.spans {
            let replaced = queued.replaced.get(&destination).copied().unwrap_or(0);
            let waiting = self.waiting.entry(destination).or_default();
            *waiting = (*waiting + bytes).saturating_sub(replaced);
        }
        self.media_waiting.extend(queued.media);
        Ok(stored)
    }

    fn advance_in(&self, tx: &Connection, step: &Advance, sum: &mut Queued) -> Result<Vec<(DestinationId, usize)>> {
        // What is said while its project is paused is passed over for good, wherever it would go.
        let project_dirs = &step.session.hint.project_dirs;
        let tells = !step.spans.is_empty() || !step.marks.is_empty();
        let (withheld, pauses) = match &sum.pauses {
            _ if !tells => (false, Vec::new()),
            Some((dirs, known)) if dirs == project_dirs => known.clone(),
            _ => {
                let now = (self.is_paused(project_dirs)?, self.pauses(project_dirs)?);
                sum.pauses.insert((project_dirs.clone(), now)).1.clone()
            }
        };
        let in_pause = |span: &Observation| pauses.iter().any(|pause| pause.contains(&span.start));
        let meanwhile: HashSet<TraceId> = step
            .spans
            .iter()
            .map(|out| &out.observation)
            .filter(|span| in_pause(span))
            .map(|span| span.trace_id)
            .collect();
        let room = match sum.room {
            Some(room) => room,
            None if !tells => 0,
            None => *sum.room.insert(self.room()?),
        };
        if sum.targets.0 != step.session.hint.targets {
            let to = &step.session.hint.targets;
            sum.targets = (to.clone(), targets(tx, to)?);
        }
        let destinations = sum.targets.1.clone();
        for trace in &step.off {
            paused::leave_out(tx, trace)?;
        }
        let suppressed = Suppressed { withheld, meanwhile: &meanwhile, in_pause: &in_pause };
        let mut known = HashMap::new();
        let (mut stored, mut copied) = (Vec::with_capacity(destinations.len()), 0);
        for (target, id) in step.session.hint.targets.iter().zip(destinations) {
            if step.behind.contains(&target.destination) {
                followers::fall_behind(tx, &step.session.session_id, id)?;
                continue;
            }
            let manners = target.destination.kind.backend().manners(&target.destination);
            let (queued, copies) = self.queue(tx, step, id, manners, &suppressed, &mut known, (room, &mut *sum))?;
            stored.push((id, queued));
            copied = copies.max(copied);
        }
        if copied > 0 {
            count(tx, "copied_call", copied)?;
        }
        let s = &step.session;
        tx.prepare_cached(
            "INSERT INTO session (session_id, transcript, dev, ino, cursor, closed, turns, open_turn, hint, updated_ms, marker,
                unsettled, forked_from, title)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)
             ON CONFLICT (session_id) DO UPDATE SET transcript = ?2, dev = ?3, ino = ?4, cursor = ?5, closed = ?6,
                turns = ?7, open_turn = ?8, hint = ?9, updated_ms = ?10, marker = ?11, unsettled = ?12,
                forked_from = ?13, title = ?14",
        )?
        .execute(params![
            s.session_id,
            s.transcript.to_string_lossy(),
            s.cursor.identity.dev as i64,
            s.cursor.identity.ino as i64,
            s.cursor.offset as i64,
            s.closed,
            s.turns,
            s.open_turn,
            json(&s.hint),
            step.now_ms,
            s.cursor.marker.map(|marker| marker as i64),
            s.unsettled,
            s.forked_from,
            s.title,
        ])?;
        for launch in &step.launches {
            tx.prepare_cached("INSERT OR REPLACE INTO launch VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")?.execute(
                params![
                    s.session_id,
                    launch.turn.0,
                    launch.tool_id,
                    launch.id,
                    launch.message_id,
                    launch.agent_id,
                    launch.turn.1,
                    launch.returned,
                    launch.called.map(|at| at as i64),
                    launch.wakes
                ],
            )?;
        }
        for turn in &step.turns {
            tx.prepare_cached("INSERT OR REPLACE INTO turn VALUES (?, ?, ?, ?, ?, ?)")?.execute(params![
                s.session_id,
                turn.number,
                turn.key,
                turn.position,
                turn.follows,
                json(&turn.session)
            ])?;
        }
        for (agent_id, length) in &step.agents {
            tx.prepare_cached("INSERT OR REPLACE INTO agent VALUES (?, ?, ?)")?.execute(params![
                s.session_id,
                agent_id,
                *length as i64
            ])?;
        }
        consume(tx, &step.consumed)?;
        for (reason, n) in &step.skipped {
            count(tx, reason, *n)?;
        }
        for ((kind, version), n) in &step.unknown {
            note_unknown(tx, kind, version, *n)?;
        }
        for (rule, n) in &step.redacted {
            tx.prepare_cached(
                "INSERT INTO redacted VALUES (?1, ?2) ON CONFLICT (rule) DO UPDATE SET count = count + ?2",
            )?
            .execute(params![rule, *n as i64])?;
        }
        Ok(stored)
    }

    /// Queues for a destination what of a step is new there. Returns how many spans that are, and how many were copies of calls
    /// found elsewhere. `known` remembers which traces are suppressed.
    #[allow(clippy::too_many_arguments, reason = "one transaction's state, in one place")]
    fn queue(
        &self,
        tx: &Connection,
        step: &Advance,
        destination: DestinationId,
        manners: Manners,
        suppressed: &Suppressed<'_>,
        known: &mut HashMap<TraceId, bool>,
        (room, sum): (u64, &mut Queued),
    ) -> Result<(usize, u64)> {
        // History that the user asks for comes also from when tracing was off.
        let is_asked = step.session.hint.source.is_asked_for();
        let mut fresh = HashSet::new();
        let (mut queued, mut copies) = (0, HashMap::<TraceId, (u64, u64)>::new());
        let media_before = self.media_waiting.get(&destination).copied().unwrap_or(0);
        let mut media_bytes = sum.media.get(&destination).copied().unwrap_or(media_before);
        let (roots, others): (Vec<_>, Vec<_>) = step.spans.iter().partition(|out| out.observation.is_root());
        // Children first decide whether a root is news; a reader does not mind which comes first.
        let mut facts = Facts::default();
        let spans = others.into_iter().chain(roots).map(|span| (span, false));
        for (out, is_mark) in spans.chain(step.marks.iter().map(|mark| (mark, true))) {
            let span = &out.observation;
            // A mark that is suppressed takes nothing from the turn it stands in.
            if is_mark
                && (suppressed.withheld
                    || (suppressed.in_pause)(span)
                    || !is_told(tx, destination, span.trace_id, span.parent.unwrap_or_default())?)
            {
                continue;
            }
            if let Some(call) = &span.call {
                let own = is_own_call(tx, destination, call, span.trace_id)?;
                let (all, copied) = copies.entry(span.trace_id).or_default();
                *all += 1;
                *copied += u64::from(!own);
                if !own {
                    continue;
                }
            }
            // A turn all of whose calls were emitted elsewhere is a copy too.
            if span.is_root() && copies.get(&span.trace_id).is_some_and(|(all, copied)| all == copied) {
                continue;
            }
            let is_silent = match known.entry(span.trace_id) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(new) => {
                    let withheld = suppressed.withheld || suppressed.meanwhile.contains(&span.trace_id);
                    if withheld && paused::silence(tx, &span.trace_id)? {
                        count(tx, SUPPRESSED, 1)?;
                    }
                    *new.insert(withheld || paused::is_silent(tx, &span.trace_id, is_asked)?)
                }
            };
            if is_silent {
                continue;
            }
            let body = span.is_root().then(|| item::body(facts.of(out), span));
            let print = body.as_ref().map(|body| ids::fingerprint(body.as_bytes()));
            let first = tx
                .prepare_cached(
                    "INSERT OR IGNORE INTO exported (destination, trace_id, span_id, fingerprint) VALUES (?, ?, ?, ?)",
                )?
                .execute(params![destination, span.trace_id, span.span_id, print])?
                == 1;
            let grew = span.is_root() && manners.updates_roots && fresh.contains(&span.trace_id);
            if first || grew {
                fresh.insert(span.trace_id);
                if let Some(print) = print.filter(|_| !first)
                    && !note_root(tx, destination, span, print)?
                {
                    continue;
                }
                let body = body.unwrap_or_else(|| item::body(facts.of(out), span));
                if grew && !first {
                    let replaced: Option<i64> = tx
                        .prepare_cached(
                            "DELETE FROM outbox WHERE destination = ? AND span_id = ? RETURNING octet_length(body)",
                        )?
                        .query_row(params![destination, span.span_id], |row| row.get(0))
                        .optional()?;
                    *sum.replaced.entry(destination).or_default() += replaced.unwrap_or(0) as u64;
                }
                tx.prepare_cached(
                    "INSERT INTO outbox (destination, span_id, body, checksum, queued_ms) VALUES (?, ?, ?, ?, ?)",
                )?
                .execute(params![
                    destination,
                    span.span_id,
                    body,
                    checksum(destination, &span.span_id, body.as_bytes()),
                    step.now_ms
                ])?;
                queued += 1;
                *sum.spans.entry(destination).or_default() += body.len() as u64;
                for (field, media) in span.media.iter().filter(|_| manners.media == MediaAs::Upload) {
                    media::queue(tx, destination, span, *field, media, step.now_ms, &mut media_bytes)?;
                }
                sum.media.insert(destination, media_bytes);
                if sum.bytes(&self.media_waiting) > room {
                    return Err(no_room());
                }
            }
        }
        Ok((queued, copies.values().map(|(_, copied)| copied).sum()))
    }
}

/// Notes that the call was found in this trace. False if it was found in another one first.
fn is_own_call(db: &Connection, destination: DestinationId, call: &Call, trace: TraceId) -> Result<bool> {
    if found_elsewhere(db, destination, call, trace)? {
        return Ok(false);
    }
    let mut note = db.prepare_cached("INSERT OR IGNORE INTO call (destination, id, trace_id) VALUES (?, ?, ?)")?;
    call.proofs.iter().flatten().try_for_each(|proof| note.execute(params![destination, proof, trace]).map(drop))?;
    Ok(true)
}

/// Notes what a root that enters the outbox again says. False if that is what it said last: a server counts every copy until it has
/// merged them.
fn note_root(db: &Connection, destination: DestinationId, root: &Observation, fingerprint: [u8; 16]) -> Result<bool> {
    // What arrived is the version before.
    let changed = db
        .prepare_cached(
            "UPDATE exported SET fingerprint = ?4, delivered = 0
             WHERE destination = ?1 AND trace_id = ?2 AND span_id = ?3 AND fingerprint IS NOT ?4",
        )?
        .execute(params![destination, root.trace_id, root.span_id, fingerprint])?;
    Ok(changed > 0)
}

/// True if a span was delivered, or waits to be.
fn is_told(db: &Connection, destination: DestinationId, trace: TraceId, span: SpanId) -> Result<bool> {
    let sql = "SELECT 1 FROM exported WHERE destination = ?1 AND trace_id = ?2 AND span_id = ?3 AND
        (delivered OR EXISTS (SELECT 1 FROM outbox WHERE destination = ?1 AND span_id = ?3))";
    db.prepare_cached(sql)?.exists(params![destination, trace, span])
}
