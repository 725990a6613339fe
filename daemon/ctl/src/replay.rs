//! `replay`: sends a transcript through the running daemon.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, UNIX_EPOCH},
};

use crate::{
    backfill::{Backfill, find::Routes},
    client::{self, Client},
    delivered::{self, Outcome},
    kinds::To,
    session::{self, Found},
    show,
    ui::amount,
};
use anyhow::{Context, bail};
use cc_core::{
    destination::{Destination, Kind},
    hook::Source,
    route::Env,
    status,
};
use cc_langfuse::{
    clock, environment,
    reader::{Transcript, Unreadable},
    rebuild,
};
use proto::frame::Frame;

/// How long to wait for delivery.
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn replay(session: Option<&str>, dry_run: bool, to: Option<To>) -> anyhow::Result<ExitCode> {
    let Found { id: session_id, transcript: mut path } = session::offline(session)?.original()?;
    if let Some(to) = to {
        let roots = session::roots()?;
        path = readable(path, &roots)?;
        return to_those(to, &path, &roots, dry_run);
    }
    let (mut turns, mut spans) = (HashSet::new(), HashSet::new());
    rebuild::turns(&path, &session_id, &show::options(), &client::config()?.rules, |turn| {
        let found = || turn.iter().map(|out| &out.observation);
        turns.extend(found().filter(|found| found.is_root()).map(|root| root.trace_id));
        spans.extend(found().map(|found| (found.trace_id, found.span_id)));
    })
    .with_context(|| format!("{} cannot be read", path.display()))?;
    let what = format!("{}, {}", amount::count(turns.len(), "turn"), amount::count(spans.len(), "observation"));
    if dry_run {
        out!("{what} would be sent; those sent before would not be sent again");
        return Ok(ExitCode::SUCCESS);
    }
    path = readable(path, &session::roots()?)?;
    let before = Client::new()?.status()?;
    let (to, env) = of_environment()?;
    let now = clock::wall().duration_since(UNIX_EPOCH)?.as_nanos();
    let payload = serde_json::json!({
        "session_id": session_id,
        "transcript_path": path.to_str().context("the transcript's path is not UTF-8")?,
        "cwd": std::env::current_dir()?.to_str(),
        "hook_event_name": "Replay",
    });
    let frame = Frame {
        id: Source::Replay.id(format_args!("{now:x}-{:x}", std::process::id())),
        fired_ns: u64::try_from(now)?,
        cut: false,
        env,
        payload: payload.to_string().into_bytes(),
    };
    Client::new()?.hook(frame.encode())?;
    out!("{what} given to the daemon; those sent before are not sent again");
    let is_meant = |row: &status::Destination| (&row.base_url, &row.public_key) == (&to.address, &to.account);
    let code = match delivered::wait(&Client::new()?, LIMIT, is_meant)? {
        Outcome::Delivered => ExitCode::SUCCESS,
        Outcome::Late(left) => crate::status::late(LIMIT, &left),
        Outcome::Refused(why) => bail!("{}", why.join("; ")),
    };
    let (before, after) = (before.refused(), Client::new()?.status()?);
    let more = |(reason, count): &(&str, u64)| before.get(reason).is_none_or(|before| before < count);
    if let Some((reason, _)) = after.refused().into_iter().find(more) {
        bail!("the daemon refused a transcript ({}): cc-langfusectl logs names it", reason.replace('_', " "));
    }
    Ok(code)
}

/// `path` in the form that the daemon can read.
fn readable(mut path: PathBuf, roots: &[PathBuf]) -> anyhow::Result<PathBuf> {
    if let Err(Unreadable::Outside) = Transcript::open_beneath(&path, roots) {
        path = session::reached(&path, roots)?.swap_remove(0);
    }
    if let Err(error) = Transcript::open_beneath(&path, roots) {
        bail!("the daemon cannot read {}: {error}; {}", path.display(), error.remedy());
    }
    Ok(path)
}

/// The destination in this environment, and the variables for the daemon.
fn of_environment() -> anyhow::Result<(Destination, Vec<(String, String)>)> {
    let mut env = environment::forwarded();
    let Ok((to, _)) = Env::new(env.iter().map(|(k, v)| (k.as_str(), v.as_str()))).destination() else {
        bail!(
            "no destination: set LANGFUSE_PUBLIC_KEY, LANGFUSE_SECRET_KEY and LANGFUSE_BASE_URL as your project does"
        );
    };
    if to.kind == Kind::Langfuse {
        env.retain(|(name, _)| name != proto::env::ENABLE);
        env.push((proto::env::ENABLE.to_owned(), "true".to_owned()));
    }
    Ok((to, env))
}

/// Sends a transcript as history to the destinations in `to`, from the environment or else from the project's settings
/// and `config.toml`. Sends it from its start even if it went elsewhere before.
fn to_those(to: To, path: &Path, roots: &[PathBuf], dry_run: bool) -> anyhow::Result<ExitCode> {
    let cwd = session::cwd(path, roots)?;
    if Routes::new(client::home()?, Some(to.clone()))?.of(cwd.as_deref()).is_empty() {
        let remedy = match to.kind() {
            Some(kind) => format!("set {} as the project needs it", kind.backend().words().address),
            None => "its `projects` in config.toml must include the project, and tracing must be on there".to_owned(),
        };
        bail!(
            "neither the environment nor the settings of {} send traces to {}: {remedy}",
            cwd.as_deref().unwrap_or(Path::new("its project")).display(),
            to.title(),
        );
    }
    Backfill::of_one(path, to, dry_run).run()
}
