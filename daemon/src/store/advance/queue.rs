//! Which spans of a step enter the outbox of each destination. The core decides; this module answers its questions and
//! carries out the decision.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    ops::RangeInclusive,
    path::PathBuf,
    sync::Arc,
};

use rusqlite::{Connection, OptionalExtension, params};

use super::{
    super::{
        DestinationId, Result, Store, count,
        destinations::find,
        followers, media, no_room,
        observations::{self, HAS_ARRIVED, Seq},
        scores,
        sessions::{found_elsewhere, short_call, short_trace, targets},
        suppressed,
    },
    Advance,
};
use cc_core::{
    admit::outcome::{Found, Known, Outcome, outcome},
    delivery::item,
    destination::{Manners, MediaAs, scoring::ScoreApi},
    ids::{self, Call, SpanId, TraceId},
    observation::{Observation, TraceFacts},
    pipeline::Outgoing,
    route::Target,
    score::{Due, Scored},
    transcript::record::Nanos,
};

/// The name under which turns from a pause of their project are counted.
const SUPPRESSED: &str = "turn_suppressed";

/// What one transaction adds to the outbox.
pub(super) struct Queued {
    /// The number of the next observation.
    pub(super) next: Seq,
    /// The first number of the transaction.
    first: Seq,
    /// The free room in bytes, once it was determined.
    room: Option<u64>,
    /// Bytes of stored observations, each counted once.
    stored: u64,
    /// Additional waiting bytes, by destination.
    pub(super) waits: HashMap<DestinationId, u64>,
    /// Bytes of replaced observations, by destination.
    pub(super) replaced: HashMap<DestinationId, u64>,
    /// Bytes of media that wait afterwards, by destination.
    pub(super) media: HashMap<DestinationId, u64>,
    /// The targets of the previous step, and their rows.
    targets: (Vec<Target>, Vec<DestinationId>),
    /// The directories of the previous step that had spans, and their pauses.
    pauses: Option<(Vec<PathBuf>, Paused)>,
}

/// Whether a project is paused now, and when it was, in nanoseconds since the epoch.
type Paused = (bool, Vec<RangeInclusive<Nanos>>);

impl Queued {
    pub(super) fn new(next: Seq) -> Self {
        Self {
            next,
            first: next,
            room: None,
            stored: 0,
            waits: HashMap::new(),
            replaced: HashMap::new(),
            media: HashMap::new(),
            targets: Default::default(),
            pauses: None,
        }
    }

    /// Bytes added so far, given that these bytes of media waited `before`.
    fn bytes(&self, before: &HashMap<DestinationId, u64>) -> u64 {
        let media = self.media.iter().map(|(id, bytes)| bytes - before.get(id).copied().unwrap_or(0));
        self.stored + media.sum::<u64>()
    }
}

/// The suppressed part of a step, because its project is or was paused: all of it, or what happened during the pauses.
struct Suppressed {
    is_paused: bool,
    pauses: Vec<RangeInclusive<Nanos>>,
    /// Traces with something that happened during them.
    meanwhile: HashSet<TraceId>,
}

impl Suppressed {
    fn of(step: &Advance, (is_paused, pauses): Paused) -> Self {
        let mut suppressed = Self { is_paused, pauses, meanwhile: HashSet::new() };
        let spans = step.spans.iter().map(|out| &out.observation);
        suppressed.meanwhile = spans.filter(|span| suppressed.is_in_pause(span)).map(|span| span.trace_id).collect();
        suppressed
    }

    fn is_in_pause(&self, span: &Observation) -> bool {
        self.pauses.iter().any(|pause| pause.contains(&span.start))
    }
}

/// The stored facts of a trace: written once for all observations that share them.
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

/// The stored form of an observation: made once for all destinations of a step.
#[derive(Default)]
struct Body {
    text: Option<String>,
    fingerprint: Option<[u8; 16]>,
    /// Its number, once it is stored.
    seq: Option<Seq>,
}

impl Body {
    fn text<'a>(&mut self, facts: &mut Facts<'a>, out: &'a Outgoing) -> &str {
        self.text.get_or_insert_with(|| item::body(facts.of(out), &out.observation))
    }

    fn fingerprint<'a>(&mut self, facts: &mut Facts<'a>, out: &'a Outgoing) -> [u8; 16] {
        if let Some(known) = self.fingerprint {
            return known;
        }
        let fingerprint = ids::fingerprint(self.text(facts, out).as_bytes());
        *self.fingerprint.insert(fingerprint)
    }
}

/// The spans of a step, roots last, so that it is known by then whether anything below them is new; receivers
/// accept any order.
struct Spans<'a> {
    found: Vec<(&'a Outgoing, Found)>,
    bodies: Vec<Body>,
    facts: Facts<'a>,
}

impl<'a> Spans<'a> {
    fn of(step: &'a Advance) -> Self {
        let (roots, others): (Vec<_>, Vec<_>) = step.spans.iter().partition(|out| out.observation.is_root());
        let spans = others.into_iter().chain(roots).map(|out| (out, false));
        let found: Vec<_> = spans
            .chain(step.marks.iter().map(|mark| (mark, true)))
            .map(|(out, is_mark)| {
                let (is_root, is_call) = (out.observation.is_root(), out.observation.call.is_some());
                (out, Found { is_root, is_mark, is_call })
            })
            .collect();
        let bodies = found.iter().map(|_| Body::default()).collect();
        Self { found, bodies, facts: Facts::default() }
    }
}

/// The state of one destination of a step.
struct Line<'a> {
    tx: &'a Connection,
    destination: DestinationId,
    manners: Manners,
    suppressed: &'a Suppressed,
    /// History that the user asks for includes turns from while tracing was off.
    is_asked: bool,
    /// Destinations that the session had before.
    former: &'a [DestinationId],
    /// Others wait for something.
    is_shared: bool,
    /// The last destination of the step.
    is_last: bool,
    /// Traces that are suppressed for all destinations.
    suppressed_traces: &'a mut HashMap<TraceId, bool>,
    /// Traces with new spans in the outbox.
    fresh: HashSet<TraceId>,
    /// The number of calls in each trace, and how many of them were copies.
    copies: HashMap<TraceId, (u64, u64)>,
}

/// What a destination knows of an observation.
struct At<'l, 'd, 'a> {
    line: &'l mut Line<'d>,
    out: &'a Outgoing,
    body: &'l mut Body,
    facts: &'l mut Facts<'a>,
    /// Its number, if it is queued and not stored yet.
    next: Seq,
}

impl Known for At<'_, '_, '_> {
    type Error = rusqlite::Error;

    fn is_in_pause(&mut self) -> bool {
        self.line.suppressed.is_paused || self.line.suppressed.is_in_pause(&self.out.observation)
    }

    fn has_parent(&mut self) -> Result<bool> {
        let span = &self.out.observation;
        is_emitted(self.line.tx, self.line.destination, span.trace_id, span.parent.unwrap_or_default())
    }

    fn is_own(&mut self) -> Result<bool> {
        let span = &self.out.observation;
        let Some(call) = &span.call else { return Ok(true) };
        let own = is_own_call(self.line.tx, self.line.destination, call, span.trace_id)?;
        let (all, copied) = self.line.copies.entry(span.trace_id).or_default();
        *all += 1;
        *copied += u64::from(!own);
        Ok(own)
    }

    fn is_turn_copied(&mut self) -> bool {
        self.line.copies.get(&self.out.observation.trace_id).is_some_and(|(all, copied)| all == copied)
    }

    fn is_suppressed(&mut self) -> Result<bool> {
        let trace = self.out.observation.trace_id;
        let Line { tx, suppressed, is_asked, suppressed_traces, .. } = &mut *self.line;
        match suppressed_traces.entry(trace) {
            Entry::Occupied(known) => Ok(*known.get()),
            Entry::Vacant(new) => {
                let is_paused = suppressed.is_paused || suppressed.meanwhile.contains(&trace);
                if is_paused && suppressed::suppress(tx, &trace)? {
                    count(tx, SUPPRESSED, 1)?;
                }
                Ok(*new.insert(is_paused || suppressed::is_suppressed(tx, &trace, *is_asked)?))
            }
        }
    }

    fn is_elsewhere(&mut self) -> Result<bool> {
        let span = &self.out.observation;
        if self.line.former.is_empty() || self.line.fresh.contains(&span.trace_id) && span.is_root() {
            return Ok(false);
        }
        let sql = "SELECT 1 FROM exported WHERE destination = ? AND trace_id = ? AND span_id = ?";
        let mut known = self.line.tx.prepare_cached(sql)?;
        for former in self.line.former {
            if known.exists(params![former, span.trace_id, span.span_id])? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn is_new(&mut self) -> Result<bool> {
        let span = &self.out.observation;
        let fingerprint = span.is_root().then(|| self.body.fingerprint(self.facts, self.out));
        let seq = self.body.seq.unwrap_or(self.next);
        let sql = "INSERT OR IGNORE INTO exported (destination, trace_id, span_id, fingerprint, observation)
                   VALUES (?, ?, ?, ?, ?)";
        let new = self.line.tx.prepare_cached(sql)?.execute(params![
            self.line.destination,
            span.trace_id,
            span.span_id,
            fingerprint,
            seq
        ])?;
        Ok(new == 1)
    }

    fn has_grown(&mut self) -> bool {
        self.line.manners.updates_roots && self.line.fresh.contains(&self.out.observation.trace_id)
    }

    /// A server counts every version until it has merged them.
    fn has_changed(&mut self) -> Result<bool> {
        let root = &self.out.observation;
        let fingerprint = self.body.fingerprint(self.facts, self.out);
        // The earlier version is the one that arrived.
        let sql = "UPDATE exported SET fingerprint = ?4, delivered = 0
                   WHERE destination = ?1 AND trace_id = ?2 AND span_id = ?3 AND fingerprint IS NOT ?4";
        let changed = self.line.tx.prepare_cached(sql)?.execute(params![
            self.line.destination,
            root.trace_id,
            root.span_id,
            fingerprint
        ])?;
        Ok(changed > 0)
    }
}

impl Store {
    /// Queues a step for its destinations, except those that are behind. Returns the number of spans for each.
    pub(super) fn queue_for_all(
        &self,
        tx: &Connection,
        step: &Advance,
        sum: &mut Queued,
    ) -> Result<Vec<(DestinationId, usize)>> {
        let emits = !step.spans.is_empty() || !step.marks.is_empty();
        let says = emits || !step.scores.is_empty();
        let suppressed = Suppressed::of(step, if says { self.pauses_of(step, sum)? } else { Paused::default() });
        let room = match sum.room {
            Some(room) => room,
            None if !emits => 0,
            None => *sum.room.insert(self.room()?),
        };
        if sum.targets.0 != step.session.hint.targets {
            let to = &step.session.hint.targets;
            sum.targets = (to.clone(), targets(tx, to)?);
        }
        let destinations = sum.targets.1.clone();
        let last = destinations.last().copied();
        let former =
            step.session.hint.former.iter().filter_map(|to| find(tx, to).transpose()).collect::<Result<Vec<_>>>()?;
        let (mut spans, mut suppressed_traces) = (Spans::of(step), HashMap::new());
        let (mut stored, mut copied) = (Vec::with_capacity(destinations.len()), 0);
        for (target, destination) in step.session.hint.targets.iter().zip(destinations) {
            if step.behind.contains(&target.destination) {
                followers::fall_behind(tx, &step.session.session_id, destination)?;
                continue;
            }
            let mut line = Line {
                tx,
                destination,
                manners: target.destination.kind.backend().manners(&target.destination),
                suppressed: &suppressed,
                is_asked: step.session.hint.source.is_asked_for(),
                former: &former,
                is_shared: self.waiting.iter().any(|(id, bytes)| *id != destination && *bytes > 0),
                is_last: Some(destination) == last,
                suppressed_traces: &mut suppressed_traces,
                fresh: HashSet::new(),
                copies: HashMap::new(),
            };
            stored.push((destination, self.queue(&mut line, &mut spans, step.now_ms, room, sum)?));
            if let Some(api) = target.destination.kind.backend().scores(&target.destination) {
                sum.stored += queue_scores(&line, step, api)?;
            }
            copied = copied.max(line.copies.values().map(|(_, copied)| copied).sum());
        }
        if copied > 0 {
            count(tx, "copied_call", copied)?;
        }
        Ok(stored)
    }

    /// Whether the project of a step is paused, and when it was; consecutive steps are often of one project.
    fn pauses_of(&self, step: &Advance, sum: &mut Queued) -> Result<Paused> {
        let dirs = &step.session.hint.project_dirs;
        match &sum.pauses {
            Some((known, paused)) if known == dirs => Ok(paused.clone()),
            _ => {
                let now = (self.is_paused(dirs)?, self.pauses(dirs)?);
                Ok(sum.pauses.insert((dirs.clone(), now)).1.clone())
            }
        }
    }

    /// Queues the new spans of a step for a destination. Returns how many.
    fn queue(
        &self,
        line: &mut Line<'_>,
        spans: &mut Spans<'_>,
        now_ms: i64,
        room: u64,
        sum: &mut Queued,
    ) -> Result<usize> {
        let Spans { found, bodies, facts } = spans;
        let mut queued = 0;
        for ((out, found), body) in found.iter().zip(bodies) {
            let mut at = At { line: &mut *line, out, body: &mut *body, facts: &mut *facts, next: sum.next };
            let outcome = outcome(*found, &mut at)?;
            if outcome.is_queued() {
                body.text(facts, out);
                self.enter(line, &out.observation, body, outcome, now_ms, sum)?;
                line.fresh.insert(out.observation.trace_id);
                queued += 1;
                if sum.bytes(&self.media_waiting) > room {
                    return Err(no_room());
                }
            }
            if line.is_last {
                body.text = None;
            }
        }
        Ok(queued)
    }

    /// Adds an observation to the outbox, and its media to the uploads.
    fn enter(
        &self,
        line: &Line<'_>,
        span: &Observation,
        body: &mut Body,
        outcome: Outcome,
        now_ms: i64,
        sum: &mut Queued,
    ) -> Result<()> {
        let Line { tx, destination, manners, is_shared, .. } = *line;
        let text = body.text.as_deref().unwrap_or_default();
        if outcome == Outcome::Again {
            *sum.replaced.entry(destination).or_default() += leave(tx, destination, span)?;
        }
        let noted = body.seq.unwrap_or(sum.next);
        if body.seq.is_none() && is_shared {
            body.seq = observations::find(tx, destination, (span.trace_id, span.span_id), text)?;
        }
        let seq = match body.seq {
            Some(seq) => seq,
            None => {
                observations::insert(tx, sum.next, (span.trace_id, &span.span_id), text, now_ms)?;
                sum.stored += text.len() as u64;
                sum.next += 1;
                *body.seq.insert(sum.next - 1)
            }
        };
        if outcome == Outcome::Again || seq != noted || seq < sum.first {
            note(tx, destination, (span.trace_id, span.span_id), seq)?;
        }
        observations::wait(tx, destination, seq, &span.span_id, text)?;
        *sum.waits.entry(destination).or_default() += text.len() as u64;
        let before = self.media_waiting.get(&destination).copied().unwrap_or(0);
        let bytes = sum.media.entry(destination).or_insert(before);
        for (field, media) in span.media.iter().filter(|_| manners.media == MediaAs::Upload) {
            media::queue(tx, destination, span, *field, media, now_ms, bytes)?;
        }
        Ok(())
    }
}

/// Queues the scores of a step for a destination: they belong to what it was sent. Returns their bytes.
fn queue_scores(line: &Line<'_>, step: &Advance, api: &dyn ScoreApi) -> Result<u64> {
    let mut bytes = 0;
    for Scored { due, score } in step.scores.iter().filter(|scored| api.takes(&scored.score)) {
        let is_due = match due {
            Due::WithNews => line.fresh.contains(&score.trace_id),
            Due::WhereKnown => {
                !line.suppressed.is_paused && scores::is_wanted(line.tx, line.destination, score, line.is_asked)?
            }
        };
        if is_due {
            bytes += scores::queue(line.tx, line.destination, score, step.now_ms)?;
        }
    }
    Ok(bytes)
}

/// Removes the waiting version of a root from the outbox. Returns its bytes.
fn leave(db: &Connection, destination: DestinationId, root: &Observation) -> Result<u64> {
    let Some(seq) = waits_as(db, destination, root.trace_id, root.span_id)? else { return Ok(0) };
    let bytes = observations::bytes(db, destination, seq)?.unwrap_or(0);
    observations::release(db, destination, seq..=seq)?;
    Ok(bytes)
}

/// The number of the observation that waits for a destination as this span.
fn waits_as(db: &Connection, destination: DestinationId, trace: TraceId, span: SpanId) -> Result<Option<Seq>> {
    // A number that no longer waits may belong to another span by now.
    let sql = "SELECT seq FROM exported
               CROSS JOIN outbox ON outbox.destination = exported.destination AND seq = exported.observation
               CROSS JOIN observation ON observation.id = seq AND observation.trace_id = ?2 AND observation.span_id = ?3
               WHERE exported.destination = ?1 AND exported.trace_id = ?2 AND exported.span_id = ?3";
    db.prepare_cached(sql)?.query_row(params![destination, trace, span], |row| row.get(0)).optional()
}

/// Records that a span waits for a destination as this observation.
pub(in crate::store) fn note(
    db: &Connection,
    destination: DestinationId,
    (trace, span): (TraceId, SpanId),
    seq: Seq,
) -> Result<()> {
    // An observation that others wait for can be older than the one that arrived there.
    let sql = "UPDATE exported SET observation = ?1,
                   delivered = (SELECT -(arrived >= ?1) FROM destination WHERE id = ?2)
               WHERE destination = ?2 AND trace_id = ?3 AND span_id = ?4";
    db.prepare_cached(sql)?.execute(params![seq, destination, trace, span]).map(drop)
}

/// Records that the call was found in this trace. False if it was found in another one first.
fn is_own_call(db: &Connection, destination: DestinationId, call: &Call, trace: TraceId) -> Result<bool> {
    if found_elsewhere(db, destination, call, trace)? {
        return Ok(false);
    }
    // A proof that there is none of is no row.
    let sql = "INSERT OR IGNORE INTO call (destination, id, trace) VALUES (?1, ?2, ?5), (?1, ?3, ?5), (?1, ?4, ?5)";
    let [one, two, three] = call.proofs.each_ref().map(|proof| proof.as_ref().map(short_call));
    db.prepare_cached(sql)?.execute(params![destination, one, two, three, short_trace(&trace)])?;
    Ok(true)
}

/// True if a span was delivered, or is waiting.
pub(in crate::store) fn is_emitted(
    db: &Connection,
    destination: DestinationId,
    trace: TraceId,
    span: SpanId,
) -> Result<bool> {
    let sql =
        format!("SELECT 1 FROM exported WHERE destination = ? AND trace_id = ? AND span_id = ? AND {HAS_ARRIVED}");
    let has_arrived = db.prepare_cached(&sql)?.exists(params![destination, trace, span])?;
    Ok(has_arrived || waits_as(db, destination, trace, span)?.is_some())
}
