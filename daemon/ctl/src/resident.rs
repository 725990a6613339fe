//! `start`, `stop` and `restart`: the resident daemon, by the service manager where it has been set up there, else by itself.

use std::{
    path::Path,
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    client::{self, Client},
    programs,
    setup::service::Manager,
};
use cc_langfuse::{
    clock,
    files::{self, Rules},
};
use proto::paths::Paths;

/// How long a daemon may take to answer, or to end. One that opens a large database answers later.
const TIME_LIMIT: Duration = Duration::from_secs(15);

/// How often it is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Starts the daemon, and says so.
pub(crate) fn start() -> anyhow::Result<ExitCode> {
    let (home, paths) = (client::home()?, client::paths()?);
    let daemon = Client::at(&paths);
    if let Ok(status) = daemon.status() {
        let old = if is_outdated(&status) { "; its program was replaced since: cc-langfusectl restart" } else { "" };
        out!("it is running already, pid {}{old}", status.daemon.pid);
        return Ok(ExitCode::SUCCESS);
    }
    bring_up(&home, &paths, false)
}

/// Stops the daemon: what waits is sent by the next one.
pub(crate) fn stop() -> anyhow::Result<ExitCode> {
    let (home, paths) = (client::home()?, client::paths()?);
    let was_there = Client::at(&paths).answers();
    if let Some(manager) = managed(&home) {
        manager.halt(&home)?;
    }
    end(&paths)?;
    out!("{}", if was_there { "stopped; hooks keep their events until it runs again" } else { "it was not running" });
    Ok(ExitCode::SUCCESS)
}

/// Stops the daemon, if it runs, and starts the program that is installed now.
pub(crate) fn restart() -> anyhow::Result<ExitCode> {
    let (home, paths) = (client::home()?, client::paths()?);
    if managed(&home).is_none() {
        end(&paths)?;
    }
    bring_up(&home, &paths, true)
}

/// The service manager, if the daemon has been set up there.
fn managed(home: &Path) -> Option<Manager> {
    Manager::find().filter(|manager| manager.is_set_up(home))
}

fn bring_up(home: &Path, paths: &Paths, anew: bool) -> anyhow::Result<ExitCode> {
    if let Some(manager) = managed(home) {
        if anew {
            manager.halt(home)?;
            // One that was started by hand is not the manager's.
            end(paths)?;
        }
        return Ok(match manager.start(home, anew)? {
            Ok(how) => {
                out!("{how}");
                ExitCode::SUCCESS
            }
            Err(why) => {
                err!("cc-langfusectl: {why}");
                ExitCode::FAILURE
            }
        });
    }
    let pid = detached(paths)?;
    out!("started, pid {pid}; it goes on when this terminal is closed. Its log: {}", paths.log.display());
    Ok(ExitCode::SUCCESS)
}

/// Starts a daemon that has no terminal and outlives this one; its process id, when it answers.
///
/// # Errors
/// Why it does not.
pub(crate) fn detached(paths: &Paths) -> anyhow::Result<u32> {
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
            bail!("it starts, and is not ready yet: {what}");
        }
        if ended.is_some_and(|status| !status.success()) || clock::monotonic() > deadline {
            let log = files::read(&paths.log, &Rules::users(u64::MAX)).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            bail!("the daemon did not start: {}", log.lines().last().unwrap_or("it left no word"));
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Ends the daemon of `paths`, whoever started it, and waits until its place is free.
///
/// # Errors
/// If it does not end.
pub(crate) fn end(paths: &Paths) -> anyhow::Result<()> {
    let Ok(pid) = Client::at(paths).pid() else { return Ok(()) };
    let pid = Pid::from_raw(pid).context("the daemon does not say its process id")?;
    // It may have ended just now.
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

/// True if the daemon runs from a program that was replaced since, or from another build than this program.
pub(crate) fn is_outdated(status: &cc_core::status::Status) -> bool {
    status.daemon.is_outdated(cc_langfuse::VERSION)
}
