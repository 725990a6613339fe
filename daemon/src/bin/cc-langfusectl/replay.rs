//! `replay`: a transcript through the running daemon.

use std::{
    path::Path,
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail};
use cc_langfuse::{
    hook::Env,
    offline,
    transcript::reader::{Transcript, Unreadable},
};
use hyper::Method;
use proto::frame::Frame;

use crate::{client, show, status};

pub fn replay(transcript: &Path, dry_run: bool) -> anyhow::Result<ExitCode> {
    let (mut path, session_id) = show::find(&transcript.to_string_lossy())?;
    let (mut turns, mut spans) = (0, 0);
    offline::turns(&path, &session_id, &show::options(), &client::config()?.rules, |turn| {
        turns += 1;
        spans += turn.len();
    })
    .with_context(|| format!("{} cannot be read", path.display()))?;
    let what = format!("{}, {}", crate::count(turns, "turn"), crate::count(spans, "span"));
    if dry_run {
        out!("{what} would be sent; those sent before would not be sent again");
        return Ok(ExitCode::SUCCESS);
    }
    let roots = show::roots()?;
    if let Err(Unreadable::Outside) = Transcript::open_beneath(&path, &roots) {
        path = show::reached(&path, &roots)?.swap_remove(0);
    }
    let mut env = client::environment();
    if Env::new(env.iter().map(|(k, v)| (k.as_str(), v.as_str()))).destination().is_err() {
        bail!("where to? Set LANGFUSE_PUBLIC_KEY, LANGFUSE_SECRET_KEY and LANGFUSE_BASE_URL as your project does");
    }
    env.retain(|(name, _)| name != proto::env::ENABLE);
    env.push((proto::env::ENABLE.to_owned(), "true".to_owned()));
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
    let payload = serde_json::json!({
        "session_id": session_id,
        "transcript_path": path.to_str().context("the transcript's path is not UTF-8")?,
        "cwd": std::env::current_dir()?.to_str(),
        "hook_event_name": "Replay",
    });
    let frame = Frame {
        id: format!("replay-{now:x}-{:x}", std::process::id()),
        fired_ns: u64::try_from(now)?,
        cut: false,
        env,
        payload: payload.to_string().into_bytes(),
    };
    client::request(&client::paths()?, Method::POST, proto::HOOK_PATH, frame.encode(), Duration::from_secs(5))?;
    out!("{what} handed over; those sent before are not sent again");
    status::flush(Duration::from_secs(60))
}
