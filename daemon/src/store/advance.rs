//! One step of a session: its spans are queued for each destination and its position moves on, in one transaction
//! (invariant 3).

use std::collections::BTreeMap;

use rusqlite::{Connection, params};

use super::{
    DestinationId, Result, SessionRow, Store, count,
    hidden::{self, Hidden},
    json,
    sessions::consume,
    suppressed,
    unknown_kinds::note_unknown,
};
use cc_core::{
    destination::Destination,
    ids::TraceId,
    pipeline::Outgoing,
    score::Scored,
    turn::{Launch, Past},
};
use queue::Queued;

pub(super) mod queue;

/// A step; it is stored completely or not at all.
#[derive(Debug)]
pub struct Advance {
    /// The session's row after the step.
    pub session: SessionRow,
    /// Its spans.
    pub spans: Vec<Outgoing>,
    /// Traces of turns that began while tracing was off: left out unless the user asks for history.
    pub off: Vec<TraceId>,
    /// Events for turns emitted before: left out if the destination does not know their root.
    pub marks: Vec<Outgoing>,
    /// Calls without a line, whose observations are among them.
    pub hidden: Vec<Hidden>,
    pub turns: Vec<Past>,
    /// What else is known of them, and of the session.
    pub scores: Vec<Scored>,
    /// Launches in turns that are closed.
    pub launches: Vec<Launch>,
    /// Fully emitted subagents, and the length of their transcripts.
    pub agents: Vec<(String, u64)>,
    /// Events that are settled.
    pub consumed: Vec<String>,
    /// A settled event that stays, because it permits reading what ends with it.
    pub kept: Option<String>,
    /// Skipped lines, by reason.
    pub skipped: BTreeMap<&'static str, u64>,
    /// The lines of unknown kinds among them, by kind and version of Claude Code.
    pub unknown: BTreeMap<(String, String), u64>,
    /// Masked secrets, by rule.
    pub redacted: BTreeMap<String, u64>,
    /// Destinations without room: they fall behind, and the session is read again for them later.
    pub behind: Vec<Destination>,
    /// Unix milliseconds.
    pub now_ms: i64,
}

impl Advance {
    /// Approximate number of bytes it adds to the outbox.
    pub fn bytes(&self) -> usize {
        self.spans.iter().chain(&self.marks).map(|out| out.bytes).sum()
    }
}

impl Store {
    /// Stores a step of a session: queues new spans, moves the position past their lines, and removes the settled
    /// events. A root is queued again if another span of its trace is new and its content has changed. Returns the
    /// destinations and the number of spans queued for each.
    ///
    /// # Errors
    /// If nothing was changed.
    pub fn advance(&mut self, step: &Advance) -> Result<Vec<(DestinationId, usize)>> {
        self.advance_all([step]).map(|stored| stored.into_iter().flatten().collect())
    }

    /// Stores steps of several sessions in this order, all or none.
    ///
    /// # Errors
    /// If nothing was changed.
    pub fn advance_all<'a>(
        &mut self,
        steps: impl IntoIterator<Item = &'a Advance>,
    ) -> Result<Vec<Vec<(DestinationId, usize)>>> {
        let mut queued = Queued::new(self.next);
        let tx = self.db.unchecked_transaction()?;
        self.claims.write(&tx)?;
        let stored = steps.into_iter().map(|step| self.advance_in(&tx, step, &mut queued)).collect::<Result<_>>()?;
        tx.commit()?;
        self.claims.are_stored();
        self.next = queued.next;
        for (destination, bytes) in queued.waits {
            let replaced = queued.replaced.get(&destination).copied().unwrap_or(0);
            let waiting = self.waiting.entry(destination).or_default();
            *waiting = (*waiting + bytes).saturating_sub(replaced);
        }
        self.media_waiting.extend(queued.media);
        Ok(stored)
    }

    fn advance_in(&self, tx: &Connection, step: &Advance, sum: &mut Queued) -> Result<Vec<(DestinationId, usize)>> {
        step.off.iter().try_for_each(|trace| suppressed::leave_out(tx, trace))?;
        let stored = self.queue_for_all(tx, step, sum)?;
        if !step.hidden.is_empty() {
            hidden::put(tx, step, self.is_paused(&step.session.hint.project_dirs)?)?;
        }
        move_session(tx, step)?;
        note_turns(tx, step)?;
        consume(tx, &step.consumed, step.kept.as_deref())?;
        count_all(tx, step)?;
        Ok(stored)
    }
}

/// Stores the session's new row.
fn move_session(tx: &Connection, step: &Advance) -> Result<()> {
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
        ])
    .map(drop)
}

/// Stores closed turns, their launches, and fully emitted subagents.
fn note_turns(tx: &Connection, step: &Advance) -> Result<()> {
    let s = &step.session;
    for launch in &step.launches {
        tx.prepare_cached("INSERT OR REPLACE INTO launch VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")?.execute(params![
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
        ])?;
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
    Ok(())
}

/// Counts what was skipped, unknown, or masked.
fn count_all(tx: &Connection, step: &Advance) -> Result<()> {
    for (reason, n) in &step.skipped {
        count(tx, reason, *n)?;
    }
    for ((kind, version), n) in &step.unknown {
        note_unknown(tx, kind, version, *n)?;
    }
    for (rule, n) in &step.redacted {
        tx.prepare_cached("INSERT INTO redacted VALUES (?1, ?2) ON CONFLICT (rule) DO UPDATE SET count = count + ?2")?
            .execute(params![rule, *n as i64])?;
    }
    Ok(())
}
