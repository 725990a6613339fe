//! `statusline`: one line for Claude Code's `statusLine` setting. Claude Code runs it after every answer and shows what it prints,
//! so it is quick, and silent if anything is wrong.

use std::{
    collections::BTreeSet,
    io::{self, Read},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    client::{self, Client},
    history,
    usage::midnight,
};
use cc_core::{
    ids::{hex, trace_id},
    price,
    reconcile::Tokens,
    status::delivery::Delivery,
    transcript::record::Nanos,
    turn::Turn,
    usage::{self, Used, cost},
};
use cc_langfuse::{
    config_file, files,
    index::{Index, Seen, Source, Spent, Sum},
    output::{self, Look},
    rebuild,
};

/// The longest input that is read, in bytes. Claude Code writes about 2 KB.
const INPUT: u64 = 256 << 10;

/// How many bytes of transcripts are read at most.
const TAIL: u64 = 1 << 20;

/// How long the daemon may take to answer.
const ANSWER: Duration = Duration::from_millis(4);

/// How many bytes the index may be behind before it is brought up to date.
const BEHIND: u64 = 64 << 10;

/// Context used, in percent, from which it is shown as a warning, and as an alarm.
const CONTEXT: [f64; 2] = [70.0, 90.0];

/// Show this session in Claude Code's status line: cost, today's cost, cache, context, delivery
///
/// Claude Code runs it and gives it JSON on the standard input. `setup --statusline` writes it into the settings.
#[derive(Default, clap::Args)]
#[command(after_help = "In ~/.claude/settings.json:
  \"statusLine\": {\"type\": \"command\", \"command\": \"cc-langfusectl statusline\"}

It prints nothing while it has no figures. The cost is that of `usage`: subagents included, copies not. `+` says that more was used than
is counted yet.")]
pub(crate) struct Statusline {
    /// The same figures as one JSON object, for a line of your own
    #[arg(long)]
    json: bool,
    /// Bring the index up to date with this transcript, and print nothing
    #[arg(long, value_name = "TRANSCRIPT", hide = true)]
    refresh: Option<PathBuf>,
}

/// What Claude Code says, as far as it is used. One odd field costs that field.
#[derive(Debug, Default)]
struct Given {
    transcript: Option<PathBuf>,
    /// By its own account.
    cost_usd: Option<f64>,
    /// In percent.
    context: Option<f64>,
}

/// What is known of the session and the day.
#[derive(Debug, Default)]
struct Known {
    session: Option<Sum>,
    /// Of all sessions in the index.
    today: Option<Sum>,
    /// More was used than is counted.
    is_behind: bool,
    deliveries: Vec<Delivery>,
}

/// The figures of the line.
#[derive(Serialize)]
struct Figures<'k> {
    session: Option<&'k Sum>,
    today: Option<&'k Sum>,
    cache_percent: Option<f64>,
    context_percent: Option<f64>,
    /// For each day.
    budget_usd: Option<f64>,
    is_behind: bool,
    destinations: &'k [Delivery],
}

impl<'k> Figures<'k> {
    fn new(given: &Given, known: &'k Known, budget_usd: Option<f64>) -> Self {
        Self {
            session: known.session.as_ref(),
            today: known.today.as_ref(),
            cache_percent: known.session.as_ref().and_then(|sum| hit_rate(sum.tokens)),
            context_percent: given.context,
            budget_usd,
            is_behind: known.is_behind,
            destinations: &known.deliveries,
        }
    }
}

impl Statusline {
    pub(crate) fn run(self) -> ExitCode {
        let _ = match self.refresh {
            Some(path) => refresh(&path),
            None => show(self.json),
        };
        ExitCode::SUCCESS
    }
}

/// Prints the line, if there is anything to show.
fn show(is_json: bool) -> anyhow::Result<()> {
    let mut input = Vec::new();
    io::stdin().lock().take(INPUT).read_to_end(&mut input)?;
    let given = Given::parse(&input);
    let config = client::paths().ok().and_then(|paths| config_file::load(&paths.config).ok()).unwrap_or_default();
    price::set(config.prices.clone());
    let known = given.transcript.as_deref().and_then(|path| look(path).ok()).unwrap_or_default();
    if is_json {
        return Ok(output::json(&Figures::new(&given, &known, config.day_budget()), false)?);
    }
    let segments = segments(&given, &known, config.day_budget());
    if segments.is_empty() {
        return Ok(());
    }
    let mut parts: Vec<(Look, &str)> = Vec::new();
    for (look, text) in &segments {
        if !parts.is_empty() {
            parts.push((Look::Dim, " · "));
        }
        parts.push((*look, text));
    }
    Ok(output::status_line(&parts)?)
}

impl Given {
    fn parse(input: &[u8]) -> Self {
        let Ok(value) = serde_json::from_slice::<Value>(input) else { return Self::default() };
        let window = &value["context_window"];
        let percent = |value: &Value| value.as_f64().filter(|percent| (0.0..=1000.0).contains(percent));
        // Earlier versions say only how many tokens there are.
        let counted = || {
            #[derive(Deserialize)]
            struct Usage {
                #[serde(default)]
                input_tokens: u64,
                #[serde(default)]
                cache_creation_input_tokens: u64,
                #[serde(default)]
                cache_read_input_tokens: u64,
            }
            let usage = Usage::deserialize(&window["current_usage"]).ok()?;
            let used = usage.input_tokens as f64
                + usage.cache_creation_input_tokens as f64
                + usage.cache_read_input_tokens as f64;
            window["context_window_size"].as_u64().filter(|size| *size > 0).map(|size| used / size as f64 * 100.0)
        };
        Self {
            transcript: value["transcript_path"].as_str().map(PathBuf::from).filter(|path| path.is_absolute()),
            cost_usd: value["cost"]["total_cost_usd"].as_f64().filter(|cost| cost.is_finite()),
            context: percent(&window["used_percentage"]).or_else(counted),
        }
    }
}

/// What the index, the end of the session and the daemon say.
fn look(transcript: &Path) -> anyhow::Result<Known> {
    let paths = client::paths()?;
    let index = Index::glance(&paths.state.join(history::INDEX)).ok().flatten();
    let seen = index.as_ref().and_then(|index| index.seen(transcript).ok()).flatten();
    let session_id = transcript.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
    let last = seen.as_ref().and_then(|seen| seen.last.as_ref());
    let start = last.map_or((0, 0), |last| (last.at_byte, last.number.saturating_sub(1)));
    let tail = rebuild::tail(transcript, session_id, start, last.and_then(|last| last.start), TAIL)?;
    let growth = tail.total.saturating_sub(seen.as_ref().map_or(0, |seen| seen.bytes));
    if seen.is_none() || growth > BEHIND {
        refresh_aside(transcript);
    }
    let mut known = Known { is_behind: !tail.is_whole, ..Known::default() };
    let new = if tail.is_whole { new_calls(index.as_ref(), seen.as_ref(), &tail) } else { Vec::new() };
    // Where the end is not read, the index has some of it.
    let without = seen.as_ref().filter(|_| tail.is_whole);
    let add = |sum: &mut Sum, since: Nanos| {
        let mut turns = BTreeSet::new();
        for (turn, call) in new.iter().filter(|(_, call)| call.at.is_some_and(|at| at >= since) || since == 0) {
            turns.extend(*turn);
            sum.calls += u64::from(call.is_call);
            sum.tokens += call.tokens;
            if let Some(cost) = cost(call.model, call.speed, call.tokens) {
                *sum.cost_usd.get_or_insert(0.0) += cost;
            }
        }
        sum.turns += turns.len() as u64;
    };
    let spent = |what| index.as_ref().map_or(Ok(Sum::default()), |index| index.spent(what, without));
    let mut session = spent(Spent::Session(session_id))?;
    add(&mut session, 0);
    known.session = Some(session).filter(|sum| sum.calls > 0);
    // Without an index nothing is known of other sessions.
    if let (Some(_), Some(midnight)) = (&index, midnight(&TimeZone::system())) {
        let mut today = spent(Spent::Since(midnight))?;
        add(&mut today, midnight);
        known.today = Some(today).filter(|sum| sum.calls > 0);
    }
    let traces =
        last.map(|last| last.trace).into_iter().chain(tail.turns.iter().map(|turn| trace_id(turn.trace_key())));
    let mut traces: Vec<String> = traces.map(|trace| hex(&trace)).collect();
    traces.dedup();
    if !traces.is_empty() && paths.socket.exists() {
        known.deliveries = Client::at(&paths).with_timeout(ANSWER).delivery(traces).unwrap_or_default();
    }
    Ok(known)
}

/// The calls at the end of the session that the index does not count elsewhere, each with the number of its turn there.
fn new_calls<'t>(
    index: Option<&Index>,
    seen: Option<&Seen>,
    tail: &'t rebuild::Tail,
) -> Vec<(Option<usize>, Used<'t>)> {
    let turns = tail.turns.iter().enumerate().map(|(at, turn)| (Some(at), turn));
    // The last one that launched any, unless all of them work for earlier turns.
    let launcher = tail.turns.iter().rposition(|turn| turn.launches().next().is_some());
    let turns = turns.chain(tail.agents.iter().map(|turn| (launcher, turn)));
    let of = |(at, turn): (Option<usize>, &'t Turn)| usage::calls(turn).into_iter().map(move |call| (at, call));
    let mut calls: Vec<(Option<usize>, Used<'t>)> = turns.flat_map(of).collect();
    let is_elsewhere = |call: &Used<'_>| index.is_some_and(|index| index.counts(call.marks, seen).unwrap_or(false));
    calls.retain(|(_, call)| !call.is_copy && !is_elsewhere(call));
    calls
}

/// Brings the index up to date with a transcript in another process, which outlives this one.
fn refresh_aside(transcript: &Path) {
    let Ok(program) = std::env::current_exe() else { return };
    let mut command = Command::new(program);
    command.args(["statusline", "--refresh"]).arg(transcript).process_group(0).current_dir("/");
    let _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
}

/// Reads a transcript into the index, unless another process is at it.
fn refresh(transcript: &Path) -> anyhow::Result<()> {
    let opened = files::open(transcript, &files::Rules::STRICT)?;
    if opened.file.try_lock().is_err() {
        return Ok(());
    }
    let _ = rustix::process::nice(10);
    let session_id = transcript.file_stem().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let mut history = history::History::open(&[])?;
    let source = Source::new(transcript.to_owned(), session_id);
    history.index.update_one(&source, &history.config.rules)?;
    Ok(())
}

/// The parts of the line.
fn segments(given: &Given, known: &Known, budget: Option<f64>) -> Vec<(Look, String)> {
    let mut found = Vec::new();
    let more = if known.is_behind { "+" } else { "" };
    let counted = known.session.as_ref().and_then(|sum| sum.cost_usd);
    if let Some(cost) = counted.or(given.cost_usd) {
        found.push((Look::Plain, format!("{}{more} session", cents(cost))));
    }
    if let Some(cost) = known.today.as_ref().and_then(|sum| sum.cost_usd) {
        let of = budget.map_or_else(String::new, |budget| format!(" of {}", cents(budget)));
        let over = budget.is_some_and(|budget| cost > budget);
        let (look, label) = if over { (Look::Red, ", over budget") } else { (Look::Plain, "") };
        found.push((look, format!("{}{more}{of} today{label}", cents(cost))));
    }
    if let Some(share) = known.session.as_ref().and_then(|sum| hit_rate(sum.tokens)) {
        found.push((Look::Plain, format!("cache {share:.0} %")));
    }
    if let Some(percent) = given.context {
        let [warning, alarm] = CONTEXT.map(|limit| percent >= limit);
        let look = if alarm {
            Look::Red
        } else if warning {
            Look::Yellow
        } else {
            Look::Plain
        };
        found.push((look, format!("context {percent:.0} %")));
    }
    let is_alone = known.deliveries.len() == 1;
    for one in &known.deliveries {
        let stuck = one.refused > 0 || one.waiting > 0 && ["parked", "held"].contains(&one.state.as_str());
        let look = if stuck {
            Look::Red
        } else if one.waiting > 0 {
            Look::Yellow
        } else {
            Look::Green
        };
        let name = if is_alone { String::new() } else { format!("{}: ", one.name) };
        found.push((look, format!("{name}{}", one.words())));
    }
    found
}

/// The share of the input that came from the cache, in percent.
fn hit_rate(tokens: Tokens) -> Option<f64> {
    let all = tokens.total() - tokens.output;
    (all > 0).then(|| tokens.cache_read as f64 / all as f64 * 100.0)
}

/// "$0.84": in a status line nothing is smaller than a cent.
fn cents(amount: f64) -> String {
    format!("${amount:.2}")
}
