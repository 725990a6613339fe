//! Passes sessions to the daemon, no faster than their spans are delivered.

use std::time::{Duration, Instant, UNIX_EPOCH};

use serde_json::json;

use crate::ui::{amount, progress::Progress};

use super::{Job, daemon, find::Routes, known, since, tally};
use cc_core::{
    destination::Destination,
    hook::Source,
    status::history::{Ask, Known},
};
use cc_langfuse::{clock, rebuild::TurnOutline};
use proto::frame::Frame;

/// How many sessions are with the daemon at the same time; more while their transcripts have fewer bytes.
const SESSIONS_AT_ONCE: usize = 8;
const BYTES_AT_ONCE: u64 = 16 << 20;

/// The same, whatever their size.
const MAX_SESSIONS_AT_ONCE: usize = 64;

/// No session is passed on while this many spans, or bytes of them, wait for a destination.
const MAX_WAITING: (u64, u64) = (2000, 16 << 20);

/// How long the daemon may be unreachable before the run is given up.
const DAEMON_TIMEOUT: Duration = Duration::from_secs(15);

/// How long to wait for a parked destination, where someone must fix something.
const PARKED_TIMEOUT: Duration = Duration::from_secs(30);

/// The same for a destination that the user must trust first.
const HELD_TIMEOUT: Duration = Duration::from_secs(3);

/// A session that is silent for this long has ended.
const SILENCE_OF_ENDED_SESSION: Duration = Duration::from_secs(6 * 3600);

/// The longest time from the first to the last block of an answer.
const MAX_ANSWER_TIME: Duration = Duration::from_secs(600);

/// How long after the start the rest of a session may arrive: a turn that looks finished, subagents.
const MAX_LATENESS: Duration = Duration::from_secs(10);

const POLL: Duration = Duration::from_millis(20);

/// A session that the daemon processes.
struct Given {
    event: String,
    turns: Vec<TurnOutline>,
    bytes: u64,
    at: Instant,
    /// Its last turn, or its subagents, may arrive later.
    is_late: bool,
    /// How many of its spans were known before.
    before: usize,
}

/// How many spans were queued, and what was left undone.
type Outcome = (usize, Vec<String>);

pub(super) struct Sender<'r> {
    routes: &'r Routes,
    progress: &'r mut Progress,
    idle_limit: Duration,
    number: u64,
    run: u128,
    /// Completed sessions and turns.
    done: (usize, usize),
    /// The last progress, and when it was made.
    moved: ((u64, usize), Instant),
    /// The daemon that answered last: another one has lost what only memory held.
    pid: Option<u32>,
    last_frame: Option<Vec<u8>>,
    said: Option<String>,
}

/// True if a session with a transcript of `next` bytes may be handed over while others are with the daemon, of `bytes` together.
fn may_follow(sessions: usize, bytes: u64, next: u64) -> bool {
    sessions < SESSIONS_AT_ONCE || sessions < MAX_SESSIONS_AT_ONCE && bytes.saturating_add(next) <= BYTES_AT_ONCE
}

fn sent(states: &str) -> usize {
    states.chars().filter(|state| *state == 's').count()
}

impl<'r> Sender<'r> {
    pub(super) fn new(routes: &'r Routes, progress: &'r mut Progress, idle_limit: Duration) -> Self {
        let run = clock::wall().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos());
        Self {
            routes,
            progress,
            idle_limit,
            number: 0,
            run,
            done: (0, 0),
            moved: ((0, 0), clock::monotonic()),
            pid: None,
            last_frame: None,
            said: None,
        }
    }

    /// Passes everything on, one destination after another, the oldest session first.
    pub(super) fn run(mut self, mut jobs: Vec<Job>) -> anyhow::Result<Outcome> {
        self.progress.begin("sending", jobs.iter().map(|job| job.candidate.bytes).sum());
        let (mut queued, mut left) = (0, Vec::new());
        let routes = self.routes;
        while let Some(first) = jobs.first() {
            let to = routes.get(first.route).destination.clone();
            let (own, others): (Vec<_>, Vec<_>) =
                jobs.into_iter().partition(|job| routes.get(job.route).destination == to);
            jobs = others;
            self.moved.1 = clock::monotonic();
            let (more, why) = self.destination(&to, own)?;
            queued += more;
            left.extend(why);
        }
        self.progress.end();
        Ok((queued, left))
    }

    fn destination(&mut self, to: &Destination, jobs: Vec<Job>) -> anyhow::Result<Outcome> {
        let (mut queued, mut given, mut late) = (0, Vec::<Given>::new(), Vec::<Given>::new());
        let buried = self.ask(to, &[])?.dead_letters;
        // Postponed spans are tried now: the user may have fixed the cause and repeated the command.
        self.patiently(|| daemon()?.flush(Duration::ZERO))?;
        let mut jobs = jobs.into_iter().peekable();
        let mut left = Vec::new();
        loop {
            let events: Vec<String> = given.iter().map(|given| given.event.clone()).collect();
            let state = self.ask(to, &events)?;
            let (waiting, done): (Vec<_>, Vec<_>) =
                given.into_iter().partition(|given| state.events.contains(&given.event));
            given = waiting;
            for mut session in done {
                self.done = (self.done.0 + 1, self.done.1 + session.turns.len());
                queued += self.added(to, &mut session)?;
                if session.is_late && !session.turns.is_empty() {
                    late.push(session);
                } else {
                    self.show(session.bytes, &state);
                }
            }
            // Late parts are checked when they are due.
            let mut still = Vec::new();
            for mut session in std::mem::take(&mut late) {
                if session.at.elapsed() < MAX_LATENESS {
                    still.push(session);
                    continue;
                }
                queued += self.added(to, &mut session)?;
                self.show(session.bytes, &state);
            }
            late = still;
            let row = state.destination.as_ref();
            let wait = row.map_or(0, |row| row.waiting);
            let is_over = jobs.peek().is_none() && given.is_empty() && late.is_empty();
            if is_over && wait == 0 {
                break;
            }
            if self.is_hopeless(&state, given.len() + late.len()) {
                let row = state.destination;
                let count = jobs.count() + given.len();
                let why = row.as_ref().map_or_else(String::new, |row| {
                    let error = row.last_error.as_ref().map_or_else(String::new, |error| format!(": {error}"));
                    let remedy = if row.state == "held" { " (see cc-langfusectl trust)" } else { "" };
                    format!(" is {}{remedy}{error}", row.state)
                });
                let (sessions, spans) = (amount::count(count, "session"), amount::count(wait as usize, "observation"));
                left.push(format!("{sessions} still to read and {spans} still to deliver: {}{why}", to.address));
                break;
            }
            let room = row.is_none_or(|row| row.waiting < MAX_WAITING.0 && row.waiting_bytes < MAX_WAITING.1);
            let bytes = given.iter().map(|given| given.bytes).sum();
            if room && let Some(job) = jobs.next_if(|job| may_follow(given.len(), bytes, job.candidate.bytes)) {
                given.push(self.give(job)?);
                continue;
            }
            self.show(0, &state);
            std::thread::sleep(POLL);
        }
        let buried = self.ask(to, &[])?.dead_letters.saturating_sub(buried);
        if buried > 0 {
            left.push(format!("{buried} observations were refused for good: see cc-langfusectl dead-letters"));
        }
        Ok((queued, left))
    }

    /// How many of a session's spans became known; keeps only the turns with unknown ones.
    fn added(&mut self, to: &Destination, session: &mut Given) -> anyhow::Result<usize> {
        let states = self.patiently(|| known(to, &session.turns))?;
        let added = sent(&states).saturating_sub(session.before);
        let mut rest = states.as_str();
        session.before = 0;
        session.turns.retain(|turn| {
            let (own, after) = rest.split_at(turn.spans.len());
            rest = after;
            let known = tally(&turn.spans, own);
            let is_open = known.all() < own.len();
            session.before += if is_open { known.sent } else { 0 };
            is_open
        });
        Ok(added)
    }

    /// The destination does not deliver, and that is not expected to change soon.
    fn is_hopeless(&mut self, state: &Known, with_daemon: usize) -> bool {
        let Some(row) = &state.destination else { return self.moved.1.elapsed() > self.idle_limit };
        let now = (row.delivered, with_daemon);
        if now != self.moved.0 || row.waiting == 0 && with_daemon == 0 {
            self.moved = (now, clock::monotonic());
        }
        if row.state == "ok" {
            self.said = None;
        } else if self.said.as_deref() != Some(&row.state) {
            let why = row.last_error.as_deref().unwrap_or("no reason given");
            self.progress.say(&format!("{} is {}: {why}", row.base_url, row.state));
            self.said = Some(row.state.clone());
        }
        let still = self.moved.1.elapsed();
        match row.state.as_str() {
            // The state from before the user's trust is shown until something is delivered.
            "held" => row.waiting > 0 && still > HELD_TIMEOUT.min(self.idle_limit),
            "parked" => still > PARKED_TIMEOUT.min(self.idle_limit),
            _ => still > self.idle_limit,
        }
    }

    /// Passes a session on like a hook.
    fn give(&mut self, job: Job) -> anyhow::Result<Given> {
        let written = UNIX_EPOCH + Duration::from_nanos(job.last.unwrap_or(0));
        let silent = since(if job.last.is_some() { written } else { job.candidate.written });
        // A turn that may continue is not sent as if it had ended.
        let event = if job.turns.is_empty() {
            "Backfill"
        } else if silent >= SILENCE_OF_ENDED_SESSION {
            "Replay"
        } else if silent >= MAX_ANSWER_TIME {
            "Stop"
        } else {
            "Backfill"
        };
        self.number += 1;
        let now = clock::wall().duration_since(UNIX_EPOCH)?.as_nanos();
        let id = Source::Backfill.id(format_args!("{:x}-{:x}", self.run, self.number));
        let payload = json!({
            "session_id": job.candidate.id, "transcript_path": job.candidate.path, "cwd": job.cwd, "hook_event_name": event,
        });
        let frame = Frame {
            id: id.clone(),
            fired_ns: u64::try_from(now)?,
            cut: false,
            env: self.routes.get(job.route).env.clone(),
            payload: payload.to_string().into_bytes(),
        };
        let to = &self.routes.get(job.route).destination;
        let before = self.patiently(|| known(to, &job.turns))?;
        let before = sent(&before);
        let bytes = frame.encode();
        self.last_frame = Some(bytes.clone());
        self.patiently(|| daemon()?.hook(bytes.clone()))?;
        let is_late = event != "Replay" || job.turns.iter().any(|turn| turn.has_agents);
        Ok(Given { event: id, turns: job.turns, bytes: job.candidate.bytes, at: clock::monotonic(), is_late, before })
    }

    fn ask(&mut self, to: &Destination, events: &[String]) -> anyhow::Result<Known> {
        let ask = Ask { destination: to.clone(), spans: Vec::new(), events: events.to_vec() };
        let state = self.patiently(|| super::ask(&ask))?;
        let known = self.pid.replace(state.pid);
        if known.is_some_and(|pid| pid != state.pid)
            && let Some(frame) = self.last_frame.clone()
        {
            // The key came with a frame and was only in memory.
            self.patiently(|| daemon()?.hook(frame.clone()))?;
        }
        Ok(state)
    }

    /// Repeats `work` while the daemon is being restarted.
    fn patiently<T>(&mut self, mut work: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let started = clock::monotonic();
        loop {
            match work() {
                Ok(done) => return Ok(done),
                Err(error) if started.elapsed() > DAEMON_TIMEOUT => {
                    self.progress.end();
                    return Err(error);
                }
                Err(_) => std::thread::sleep(Duration::from_millis(200)),
            }
        }
    }

    fn show(&mut self, bytes: u64, state: &Known) {
        let waiting = state.destination.as_ref().map_or(0, |row| row.waiting);
        let (sessions, turns) = self.done;
        let detail = format!(
            "{}, {}, {waiting} observations on their way",
            amount::count(sessions, "session"),
            amount::count(turns, "turn")
        );
        self.progress.step(bytes, &detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_small_sessions_are_handed_over_at_once_and_few_large_ones() {
        const LARGE: u64 = 1 << 30;
        for (sessions, bytes, next, expect) in [
            (0, 0, LARGE, true),
            (7, 7 * LARGE, LARGE, true),
            (8, 8 * LARGE, 1, false),
            (8, 8, LARGE, false),
            (8, 8 << 10, 1 << 10, true),
            (63, BYTES_AT_ONCE - 10, 10, true),
            (63, BYTES_AT_ONCE - 10, 11, false),
            (64, 64, 1, false),
            (8, u64::MAX, u64::MAX, false),
        ] {
            assert_eq!(may_follow(sessions, bytes, next), expect, "{sessions} of {bytes} bytes, then {next}");
        }
    }
}
