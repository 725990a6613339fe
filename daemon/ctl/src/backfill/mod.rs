//! `backfill`: sends history to the current destinations.
//!
//! It plans first: what each session would add, by the ids of its spans. Then it passes one session after another
//! to the daemon as a hook would, so the same rules apply as for hooks. It keeps no state of its own: a second
//! run continues.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, SystemTime},
};

use serde_json::json;

use self::{
    find::{Candidate, Refused, Routes, Skipped},
    send::Sender,
};
use crate::{
    client::{self, Client},
    kinds::{self, To},
    session::{self, Naming},
    ui::{amount::count, progress::Progress, terminal},
};
use cc_core::{
    destination::Destination,
    ids::{SpanId, SpanKey, TraceId},
    import_state::Imported,
    status::history::{Ask, Known, SPANS},
};
use cc_langfuse::{
    output,
    reader::Unreadable,
    rebuild::{self, Outline},
};

pub(crate) mod find;
mod send;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  cc-langfusectl backfill --dry-run
  cc-langfusectl backfill --since 30d
  cc-langfusectl backfill --project ~/app --yes
  cc-langfusectl backfill --to mlflow --dry-run
  LANGFUSE_PUBLIC_KEY=… LANGFUSE_SECRET_KEY=… \\
    cc-langfusectl backfill --yes --json

Sessions go where the settings of their project and config.toml say, to each destination; those of projects that are not traced are left out. With LANGFUSE_PUBLIC_KEY,
LANGFUSE_SECRET_KEY and LANGFUSE_BASE_URL set, all go there. What was sent before is not sent again, so it can be
interrupted at any time and run again.")]
pub(crate) struct Backfill {
    /// Sessions, transcripts, or directories of them [default: wherever Claude Code keeps them]
    paths: Vec<PathBuf>,
    /// Only sessions written to within this time: 12h, 30d, 4w
    #[arg(long, value_parser = age)]
    since: Option<Duration>,
    /// Only sessions in this directory, or below it
    #[arg(long, value_name = "DIR")]
    project: Option<PathBuf>,
    /// Send only to destinations of this kind (langfuse, mlflow, otlp), or to the one of this name
    #[arg(long, value_name = "KIND or NAME", value_parser = kinds::to)]
    to: Option<To>,
    /// Only show what would be sent
    #[arg(long)]
    dry_run: bool,
    /// Assume yes
    #[arg(long)]
    yes: bool,
    /// One JSON object: `sessions`, `turns`, `spans_queued`, `spans_already_sent`, `skipped`
    #[arg(long)]
    json: bool,
    /// Give up when nothing has moved for this long
    #[arg(long = "patience", value_name = "TIME", default_value = "10m", value_parser = age)]
    idle_limit: Duration,
}

/// The work for one session.
struct Job {
    candidate: Candidate,
    cwd: Option<PathBuf>,
    route: usize,
    /// Its turns with spans that are not all known.
    turns: Vec<rebuild::TurnOutline>,
    /// When its last turn ended.
    last: Option<u64>,
}

/// Counts of spans that are not to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    /// Sent before.
    sent: usize,
    /// Copies of sent spans.
    copies: usize,
    /// Paused or forgotten by the user.
    withheld: usize,
}

/// The work, and what exists.
#[derive(Default)]
struct Plan {
    jobs: Vec<Job>,
    sessions: usize,
    turns: usize,
    tokens: u64,
    /// Of these, what lacks spans somewhere: sessions, turns and their tokens.
    lacking: (usize, usize, u64),
    /// The spans of the sessions so far, by destination.
    seen: HashMap<Destination, HashSet<(TraceId, SpanId)>>,
    /// For each route, one session without anything to add.
    done: BTreeMap<usize, Job>,
    /// At most this many spans would be added, and this many are known.
    fresh: usize,
    others: Tally,
    skipped: Skipped,
    refused: Refused,
}

impl Backfill {
    /// One transcript, to the destinations in `to`, without asking.
    pub(crate) fn of_one(transcript: &Path, to: To, dry_run: bool) -> Self {
        Self {
            paths: vec![transcript.to_owned()],
            since: None,
            project: None,
            to: Some(to),
            dry_run,
            yes: true,
            json: false,
            idle_limit: Duration::from_secs(60),
        }
    }

    /// Plans, asks, passes the sessions on, and waits until everything is delivered.
    pub(crate) fn run(mut self) -> anyhow::Result<ExitCode> {
        let naming = if self.yes { Naming::Exact } else { Naming::Loose };
        for path in self.paths.iter_mut().filter(|path| !path.exists()) {
            match path.to_str().filter(|name| !session::is_path(name)) {
                Some(name) => match session::find(Some(name), naming, &daemon()?.status()?.sessions)
                    .and_then(session::Found::original)
                {
                    Ok(found) => *path = found.transcript,
                    Err(error) => {
                        session::report(&error);
                        return Ok(ExitCode::from(2));
                    }
                },
                None => match session::elsewhere(path)? {
                    Some(found) => *path = found,
                    None => return usage(&format!("there is no {}, here or under another name", path.display())),
                },
            }
        }
        let asks = !self.yes && !self.dry_run;
        if asks && (self.json || !std::io::stdin().is_terminal() || !output::is_seen_aside()) {
            return usage("there is no terminal to ask on: look at it with --dry-run, then add --yes");
        }
        let mut progress = Progress::new(self.json);
        let mut routes = match Routes::new(client::home()?, self.to.clone()) {
            Ok(routes) => routes,
            Err(error) => return usage(&format!("{error:#}")),
        };
        let mut plan = self.plan(&mut routes, &mut progress)?;
        if self.dry_run {
            self.report(&plan, 0, &[])?;
            return Ok(plan.code(&[]));
        }
        if !plan.jobs.is_empty() {
            if !self.json {
                plan.say();
            }
            if asks && !terminal::confirms("Go on?")? {
                out!("nothing was sent");
                return Ok(ExitCode::FAILURE);
            }
        }
        let jobs = plan.jobs(&routes)?;
        let (queued, left) = Sender::new(&routes, &mut progress, self.idle_limit).run(jobs)?;
        self.report(&plan, queued, &left)?;
        Ok(plan.code(&left))
    }

    fn plan(&self, routes: &mut Routes, progress: &mut Progress) -> anyhow::Result<Plan> {
        let imported: HashMap<String, Imported> =
            daemon()?.imported()?.into_iter().map(|session| (session.session_id.clone(), session)).collect();
        let paused = daemon()?.status()?.paused;
        let roots = session::roots()?;
        let mut paths = Vec::new();
        for path in &self.paths {
            paths.extend(session::reached(path, &roots)?);
        }
        let paths = if self.paths.is_empty() { &roots } else { &paths };
        let project = self.project.as_ref().map(std::path::absolute).transpose()?.map(|dir| find::real(&dir));
        let mut plan = Plan::default();
        let candidates =
            find::candidates(paths, &roots, self.since, find::Sides::Count, &mut plan.skipped, &mut plan.refused);
        progress.begin("reading", candidates.iter().map(|candidate| candidate.bytes).sum());
        for candidate in candidates {
            let bytes = candidate.bytes;
            if let Err(reason) = plan.add(candidate, &roots, project.as_deref(), &paused, routes, &imported)? {
                *plan.skipped.entry(reason).or_default() += 1;
            }
            progress.step(bytes, &format!("{}, {}", count(plan.sessions, "session"), count(plan.turns, "turn")));
        }
        progress.end();
        Ok(plan)
    }

    fn report(&self, plan: &Plan, queued: usize, left: &[String]) -> anyhow::Result<()> {
        if self.json {
            let report = json!({
                "sessions": plan.sessions, "turns": plan.turns, "tokens": plan.tokens, "spans_queued": queued,
                "spans_already_sent": plan.others.sent, "spans_copied": plan.others.copies,
                "spans_withheld": plan.others.withheld, "spans_to_add": plan.fresh,
                "skipped": plan.skipped.values().sum::<u64>(), "skipped_by_reason": plan.skipped, "left": left,
            });
            output::json(&report, false)?;
        } else if self.dry_run || plan.fresh == 0 {
            plan.say();
        } else {
            out!("{} added, {} were there already", count(queued, "observation"), plan.others.sent);
        }
        for (dir, error) in &plan.refused {
            say(&format!("not read: {}: {error}; {}", dir.display(), error.remedy()));
        }
        if !left.is_empty() {
            say("not finished; run it again to continue:");
            left.iter().for_each(|why| say(&format!("  {why}")));
        }
        Ok(())
    }
}

impl Plan {
    /// A failure if something could not be read, or is `left` undone.
    fn code(&self, left: &[String]) -> ExitCode {
        if self.refused.is_empty() && left.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    /// Takes a session in; `Err` with the reason if there is nothing to be done for it.
    fn add(
        &mut self,
        candidate: Candidate,
        roots: &[PathBuf],
        project: Option<&Path>,
        paused: &[PathBuf],
        routes: &mut Routes,
        imported: &HashMap<String, Imported>,
    ) -> anyhow::Result<Result<(), &'static str>> {
        let cwd = match session::cwd(&candidate.path, roots) {
            Ok(cwd) => cwd,
            Err(error) => {
                let reason = error.reason();
                if !matches!(error, Unreadable::Missing) {
                    self.refused.push((candidate.path, error));
                }
                return Ok(Err(reason));
            }
        };
        if project.is_some_and(|dir| !cwd.as_ref().is_some_and(|cwd| find::real(cwd).starts_with(dir))) {
            return Ok(Err("other_project"));
        }
        let dir = cwd.as_ref().map_or_else(|| "/".into(), |cwd| find::real(cwd));
        if paused.iter().any(|paused| dir.starts_with(paused)) {
            return Ok(Err("paused"));
        }
        let all = routes.of(cwd.as_deref());
        let Some(first) = all.first() else { return Ok(Err("not_traced")) };
        let sent = imported.get(&candidate.id);
        let Outline { turns, last, copied } =
            match rebuild::outline(&candidate.path, &candidate.id, sent, &routes.get(*first).options) {
                Ok(outline) => outline,
                Err(error) => return Ok(Err(error.reason())),
            };
        if turns.is_empty() {
            return Ok(Err(match sent {
                Some(_) => "sent_by_the_node_tool",
                None if copied > 0 => "copies_of_another_session",
                None => "no_turns",
            }));
        }
        self.sessions += 1;
        let (mut most, mut lacking) = ((0, 0), (0, 0));
        for index in all {
            let (to, mut turns) = (&routes.get(index).destination, turns.clone());
            // Spans that another session has are counted for that one.
            let seen = self.seen.entry(to.clone()).or_default();
            for turn in &mut turns {
                let all = turn.spans.len();
                turn.spans.retain(|(trace, span, _)| seen.insert((*trace, *span)));
                self.others.copies += all - turn.spans.len();
            }
            turns.retain(|turn| !turn.spans.is_empty());
            most = most.max((turns.len(), turns.iter().map(|turn| turn.tokens).sum::<u64>()));
            let turns = self.unknown(to, turns)?;
            lacking = lacking.max((turns.len(), turns.iter().map(|turn| turn.tokens).sum::<u64>()));
            let job = Job { candidate: candidate.clone(), cwd: cwd.clone(), route: index, turns, last };
            if job.turns.is_empty() {
                self.done.insert(index, job);
            } else {
                self.jobs.push(job);
            }
        }
        self.turns += most.0;
        self.tokens += most.1;
        self.lacking.0 += usize::from(lacking.0 > 0);
        self.lacking.1 += lacking.0;
        self.lacking.2 += lacking.1;
        Ok(Ok(()))
    }

    /// The sessions to pass on. If spans still wait although all were sent before, that includes one of their sessions,
    /// which brings the key.
    fn jobs(&mut self, routes: &Routes) -> anyhow::Result<Vec<Job>> {
        let mut jobs = std::mem::take(&mut self.jobs);
        for (route, job) in std::mem::take(&mut self.done) {
            let to = &routes.get(route).destination;
            let ask = Ask { destination: to.clone(), spans: Vec::new(), events: Vec::new() };
            if jobs.iter().all(|job| routes.get(job.route).destination != *to)
                && self::ask(&ask)?.destination.is_some_and(|row| row.waiting > 0)
            {
                jobs.push(job);
            }
        }
        Ok(jobs)
    }

    /// Counts the known spans of `turns`, and returns the turns with unknown ones.
    fn unknown(
        &mut self,
        to: &Destination,
        turns: Vec<rebuild::TurnOutline>,
    ) -> anyhow::Result<Vec<rebuild::TurnOutline>> {
        let states = known(to, &turns)?;
        let mut rest = states.as_str();
        let mut left = Vec::new();
        for turn in turns {
            let (own, after) = rest.split_at(turn.spans.len());
            rest = after;
            let others = tally(&turn.spans, own);
            let fresh = own.len() - others.all();
            self.fresh += fresh;
            self.others.sent += others.sent;
            self.others.copies += others.copies;
            self.others.withheld += others.withheld;
            if fresh > 0 {
                left.push(turn);
            }
        }
        Ok(left)
    }

    fn say(&self) {
        let there = self.others.sent + self.others.copies;
        if self.fresh == 0 {
            out!("nothing to add: {} are there already", count(there, "observation"));
        } else {
            out!(
                "would add at most {} in {} of {} ({} tokens); {} are there already",
                count(self.fresh, "observation"),
                count(self.lacking.1, "turn"),
                count(self.lacking.0, "session"),
                self.lacking.2,
                there,
            );
        }
        if self.others.withheld > 0 {
            out!(
                "left out, as they were said during a pause or were forgotten: {}",
                count(self.others.withheld, "observation")
            );
        }
        let skipped: Vec<String> =
            self.skipped.iter().map(|(reason, count)| format!("{count} {}", reason.replace('_', " "))).collect();
        if !skipped.is_empty() {
            out!("left out: {}", skipped.join(", "));
        }
    }
}

impl Tally {
    fn all(self) -> usize {
        self.sent + self.copies + self.withheld
    }
}

/// Counts the known spans of a turn. A root is a copy if all calls below it are.
fn tally(spans: &[SpanKey], states: &str) -> Tally {
    let of = |letter: char| states.chars().filter(|state| *state == letter).count();
    let (sent, copies, withheld) = (of('s'), of('c'), of('w'));
    let calls = spans.iter().filter(|(.., call)| call.is_some()).count();
    let root = usize::from(calls > 0 && copies == calls && states.starts_with('-'));
    Tally { sent, copies: copies + root, withheld }
}

/// The daemon's state of each span of `turns`, as one letter.
fn known(to: &Destination, turns: &[rebuild::TurnOutline]) -> anyhow::Result<String> {
    let spans: Vec<_> = turns.iter().flat_map(|turn| &turn.spans).map(Ask::span).collect();
    let mut states = String::with_capacity(spans.len());
    for some in spans.chunks(SPANS) {
        let answer = ask(&Ask { destination: to.clone(), spans: some.to_vec(), events: Vec::new() })?;
        anyhow::ensure!(
            answer.spans.is_ascii() && answer.spans.len() == some.len(),
            "the daemon is of another version"
        );
        states.push_str(&answer.spans);
    }
    Ok(states)
}

fn ask(ask: &Ask) -> anyhow::Result<Known> {
    daemon()?.known(ask)
}

fn daemon() -> anyhow::Result<Client> {
    Ok(Client::new()?.with_timeout(Duration::from_secs(30)))
}

fn usage(what: &str) -> anyhow::Result<ExitCode> {
    say(&format!("cc-langfusectl backfill: {what}"));
    Ok(ExitCode::from(2))
}

/// Prints a message on stderr, whatever stdout is used for.
fn say(text: &str) {
    err!("{text}");
}

/// How long ago that was; zero if it is in the future.
fn since(time: SystemTime) -> Duration {
    time.elapsed().unwrap_or_default()
}

/// A duration with a unit.
fn age(text: &str) -> Result<Duration, String> {
    if text.ends_with(|c: char| c.is_ascii_digit()) {
        return Err("a number and a unit, such as 30d".to_owned());
    }
    crate::ui::amount::duration(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cc_core::ids::Call;

    #[test]
    fn a_root_is_a_copy_if_all_below_it_is() {
        let root = ([1; 16], [1; 8], None);
        let call = |id: u8| ([1; 16], [id; 8], Some(Call::of(&id.to_string(), None, None, None)));
        let counts = |spans: &[SpanKey], states| {
            let Tally { sent, copies, withheld } = tally(spans, states);
            (sent, copies, withheld)
        };
        for (states, expect) in [
            ("---", (0, 0, 0)),
            ("-cc", (0, 3, 0)),
            ("-c-", (0, 1, 0)),
            ("sss", (3, 0, 0)),
            ("ssc", (2, 1, 0)),
            ("swc", (1, 1, 1)),
        ] {
            assert_eq!(counts(&[root, call(2), call(3)], states), expect, "{states}");
        }
        assert_eq!(counts(&[root], "-"), (0, 0, 0), "no calls");
    }
}
