//! `try`: a sample session through the real hook and a private daemon.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use tempfile::TempDir;

use crate::{
    client::Client,
    delivered::{self, Outcome},
    open, programs,
    run::daemon::Own,
    show, sink,
    ui::tree,
    view,
};
use cc_core::{
    destination::{Destination, pages::Item},
    ids::hex,
    observation::Observation,
    redact::Rules,
    route::{Env, narrow},
    secret::Secrets,
};
use cc_langfuse::{clock, environment, rebuild};
use proto::paths::Paths;

/// A recorded session; its times and ids are replaced in every run.
const SAMPLE: &str = include_str!("sample.jsonl");

/// How many of its lines were written when the Stop hook ran: all but the answer and what follows it.
const WRITTEN_AT_STOP: usize = 12;

/// The answer in the payload of the Stop hook.
const ANSWER: &str =
    "All 3 tests pass now. The bug was an off-by-one in `slice_end`: the range left out the last element.";

/// How long everything may take to be delivered.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);

/// When the rest is written: Claude Code's usual delay.
const REST_WRITTEN_AFTER: Duration = Duration::from_millis(100);

/// What to do with the sample.
#[derive(clap::Args)]
pub(crate) struct Try {
    /// Then show it in the browser, as `view` shows your own sessions
    #[arg(long)]
    view: bool,
    /// With --view: print the address only
    #[arg(long, requires = "view")]
    no_open: bool,
}

/// The sample, until it is dropped.
struct Played {
    home: TempDir,
    project: PathBuf,
    session_id: String,
}

impl Try {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let played = play()?;
        if !self.view {
            return Ok(ExitCode::SUCCESS);
        }
        out!();
        let first = format!("session/{}", played.session_id);
        view::serve(&[played.project], Some(&first), (!self.no_open).then_some(played.home.path()))
    }
}

/// Traces the sample.
fn play() -> anyhow::Result<Played> {
    let hook = programs::ours("cc-langfuse-hook")?;
    let home = tempfile::Builder::new().prefix("cc-langfuse-try-").tempdir()?;
    let paths = Paths::new(home.path(), None);

    let vars = environment::forwarded();
    let own = Env::new(vars.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let is_meant = |(to, secrets): &(Destination, Secrets)| {
        let backend = to.kind.backend();
        !secrets.is_empty() || own.enables(backend.of()) && !backend.needs_secret(to)
    };
    let server = own.destination().ok().filter(is_meant);
    let (env, spans): (Vec<(String, String)>, _) = match &server {
        Some((to, _)) => {
            let mut vars: BTreeMap<String, String> = vars.iter().cloned().collect();
            narrow(&mut vars, to.kind);
            (vars.into_iter().collect(), None)
        }
        None => {
            let (address, spans) = sink::start()?;
            let env = [
                ("LANGFUSE_PUBLIC_KEY", "pk-lf-try".to_owned()),
                ("LANGFUSE_SECRET_KEY", "sk-lf-try".to_owned()),
                ("LANGFUSE_BASE_URL", format!("http://{address}")),
                (proto::env::ENABLE, "true".to_owned()),
            ];
            (env.map(|(name, value)| (name.to_owned(), value)).to_vec(), Some(spans))
        }
    };
    let _daemon = Own::start(home.path(), &paths, false, DELIVERY_TIMEOUT)?;

    let (session_id, sample) = sample();
    let lines: Vec<&str> = sample.split_inclusive('\n').collect();
    let project = home.path().join(".claude/projects/-try");
    fs::create_dir_all(&project)?;
    let transcript = project.join(format!("{session_id}.jsonl"));
    #[expect(clippy::disallowed_methods, reason = "in a home made for this")]
    fs::write(&transcript, lines[..WRITTEN_AT_STOP].concat())?;

    let payload = serde_json::json!({
        "session_id": session_id,
        "transcript_path": transcript,
        "cwd": home.path(),
        "hook_event_name": "Stop",
        "last_assistant_message": ANSWER,
    });
    let took = call(hook.as_ref(), home.path(), &env, &payload.to_string())?;
    std::thread::sleep(REST_WRITTEN_AFTER);
    let written = clock::monotonic();
    #[expect(clippy::disallowed_methods, reason = "in a home made for this")]
    fs::OpenOptions::new().append(true).open(&transcript)?.write_all(lines[WRITTEN_AT_STOP..].concat().as_bytes())?;

    let mut expected = Vec::new();
    rebuild::turns(&transcript, &session_id, &show::options(), &Rules::default(), |turn| {
        expected.extend(turn.into_iter().map(|out| out.observation));
    })?;
    let expected: Vec<&Observation> = expected.iter().collect();
    out!(
        "hook          returned after {:.2} ms; the answer was written {} ms later",
        took.as_secs_f64() * 1e3,
        REST_WRITTEN_AFTER.as_millis()
    );
    let Some(spans) = spans else {
        flush(&paths)?;
        let Some((server, secret)) = server else { bail!("no server") };
        out!("sent          {} observations to {}", expected.len(), server.address);
        print_traces(&expected);
        if let Some(folder) = open::folder(&server) {
            out!("look          {}", folder.viewer());
            return Ok(Played { home, project, session_id });
        }
        for root in expected.iter().filter(|span| span.is_root()) {
            if let Ok(Some(page)) = open::page(&server, &secret, Item::Trace(&hex(&root.trace_id))) {
                out!("look          {page}");
            }
        }
        match open::page(&server, &secret, Item::Session(&session_id)) {
            Ok(Some(page)) => out!("session       {page}"),
            Ok(None) => out!("session       {session_id}"),
            Err(error) => out!("session       {session_id}, under Sessions in {} ({error:#})", server.address),
        }
        return Ok(Played { home, project, session_id });
    };
    let mut arrived = Vec::new();
    while arrived.len() < expected.len() {
        let timeout = Duration::from_secs(10).saturating_sub(written.elapsed());
        match spans.recv_timeout(timeout) {
            Ok(ids) => match expected.iter().find(|expected| (expected.trace_id, expected.span_id) == ids) {
                Some(observation) => arrived.push(*observation),
                None => bail!("observation {} arrived and does not belong to this session", hex(&ids.1)),
            },
            Err(_) => {
                bail!("{} of {} observations arrived; see {}", arrived.len(), expected.len(), paths.log.display())
            }
        }
    }
    out!(
        "arrived       {} observations, {} ms after the answer was written",
        arrived.len(),
        written.elapsed().as_millis()
    );
    out!();
    tree::print(&arrived);
    out!();
    print_traces(&arrived);
    out!(
        "look          cc-langfusectl try --view shows such a sample in the browser, cc-langfusectl view your own sessions"
    );
    out!("next          see \"Install\" in the README to trace your own sessions");
    Ok(Played { home, project, session_id })
}

fn print_traces(found: &[&Observation]) {
    found
        .iter()
        .filter(|span| span.is_root())
        .for_each(|root| out!("trace         {} {}", hex(&root.trace_id), root.name));
}

fn flush(paths: &Paths) -> anyhow::Result<()> {
    match delivered::wait(&Client::at(paths), DELIVERY_TIMEOUT, |_| true)? {
        Outcome::Delivered => Ok(()),
        Outcome::Late(left) => bail!("{} observations were not delivered: {}", left.spans, left.why.join("; ")),
        Outcome::Refused(why) => {
            bail!("{}. Nothing of the sample is kept: fix that, then run cc-langfusectl try again", why.join("; "))
        }
    }
}

/// The sample with a new id and new times: sent twice, it is two sessions.
fn sample() -> (String, String) {
    let now = jiff::Timestamp::now();
    let nonce = format!("{:012x}", now.as_nanosecond() & 0xffff_ffff_ffff);
    let mut text = SAMPLE.replace("000000000000", &nonce);
    // The recording counts seconds from 00:00:00 of a day long ago; the last line is written now.
    for second in (0..60).rev() {
        let at = now - jiff::SignedDuration::from_secs(i64::from(10 - second));
        text = text.replace(&format!("2000-01-01T00:00:{second:02}.000Z"), &format!("{at:.3}"));
    }
    (format!("5a3b1e00-0000-4000-8000-{nonce}"), text)
}

/// Runs the hook like Claude Code; returns how long it took.
fn call(hook: &Path, home: &Path, env: &[(String, String)], payload: &str) -> anyhow::Result<Duration> {
    let started = clock::monotonic();
    let mut child = Command::new(hook)
        .env_clear()
        .envs(env.iter().map(|(name, value)| (name, value)))
        .env("HOME", home)
        .stdin(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("no stdin")?.write_all(payload.as_bytes())?;
    let status = child.wait()?;
    if !status.success() {
        bail!("the hook ended with {status}");
    }
    Ok(started.elapsed())
}
