//! A daemon without a terminal, started and stopped directly, where no service manager does it.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    client::{self, Client},
    programs,
};
use cc_langfuse::{
    clock,
    files::{self, Rules},
};
use proto::paths::Paths;

/// How long a daemon may take to answer, or to exit. It answers later if it opens a large database.
const TIME_LIMIT: Duration = Duration::from_secs(15);

const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Starts a daemon without a terminal that outlives this process; returns its process id when it answers.
///
/// # Errors
/// Why it does not.
pub(crate) fn start(paths: &Paths) -> anyhow::Result<u32> {
    let mut command = Command::new(programs::ours("cc-langfused")?);
    command.arg("--detached").current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().context("cc-langfused does not start")?;
    let deadline = clock::monotonic() + TIME_LIMIT;
    loop {
        let answer = Client::at(paths).status();
        if let Ok(status) = answer {
            return Ok(status.daemon.pid);
        }
        let ended = child.try_wait()?;
        if let (Some(client::NotRunning::Starting(what)), None) =
            (answer.err().and_then(|why| why.downcast().ok()), ended)
            && clock::monotonic() > deadline
        {
            bail!("it is starting and not ready yet: {what}");
        }
        if ended.is_some_and(|status| !status.success()) || clock::monotonic() > deadline {
            let log = files::read(&paths.log, &Rules::users(u64::MAX)).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            bail!("the daemon did not start: {}", log.lines().last().unwrap_or("it gave no reason"));
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Stops the daemon of `paths`, however it was started, and waits until its lock is free.
///
/// # Errors
/// If it does not exit.
pub(crate) fn end(paths: &Paths) -> anyhow::Result<()> {
    let Ok(pid) = Client::at(paths).pid() else { return Ok(()) };
    let pid = Pid::from_raw(pid).context("the daemon does not report its process id")?;
    // It may have exited just now.
    let _ = kill_process(pid, Signal::TERM);
    let deadline = clock::monotonic() + TIME_LIMIT;
    while !client::is_free(paths) {
        if clock::monotonic() > deadline {
            bail!("the daemon, pid {}, does not end: kill -9 {0} loses nothing", pid.as_raw_nonzero());
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    Ok(())
}
