//! `start`, `stop` and `restart`: the resident daemon, through the service manager if it is set up there,
//! else directly.

use std::{path::Path, process::ExitCode};

use crate::{
    client::{self, Client},
    detached,
    setup::service::Manager,
};
use proto::paths::Paths;

/// Starts the daemon, and reports it.
pub(crate) fn start() -> anyhow::Result<ExitCode> {
    let (home, paths) = (client::home()?, client::paths()?);
    let daemon = Client::at(&paths);
    if let Ok(status) = daemon.status() {
        let old = if is_outdated(&status) {
            "; its program was replaced since it started: cc-langfusectl restart"
        } else {
            ""
        };
        out!("already running, pid {}{old}", status.daemon.pid);
        return Ok(ExitCode::SUCCESS);
    }
    bring_up(&home, &paths, false)
}

/// Stops the daemon: the next one sends what waits.
pub(crate) fn stop() -> anyhow::Result<ExitCode> {
    let (home, paths) = (client::home()?, client::paths()?);
    let was_there = Client::at(&paths).answers();
    if let Some(manager) = managed(&home) {
        manager.halt(&home)?;
    }
    detached::end(&paths)?;
    out!(
        "{}",
        if was_there { "stopped; hooks keep their events until the daemon runs again" } else { "it was not running" }
    );
    Ok(ExitCode::SUCCESS)
}

/// Stops the daemon, if it runs, and starts the installed program.
pub(crate) fn restart() -> anyhow::Result<ExitCode> {
    let (home, paths) = (client::home()?, client::paths()?);
    if managed(&home).is_none() {
        detached::end(&paths)?;
    }
    bring_up(&home, &paths, true)
}

/// The service manager, if the daemon is set up there.
fn managed(home: &Path) -> Option<Manager> {
    Manager::find().filter(|manager| manager.is_set_up(home))
}

fn bring_up(home: &Path, paths: &Paths, anew: bool) -> anyhow::Result<ExitCode> {
    if let Some(manager) = managed(home) {
        if anew {
            manager.halt(home)?;
            // A daemon that was started by hand does not belong to the manager.
            detached::end(paths)?;
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
    let pid = detached::start(paths)?;
    out!("started, pid {pid}; it keeps running when this terminal is closed. Its log: {}", paths.log.display());
    Ok(ExitCode::SUCCESS)
}

/// True if the daemon's program was replaced since it started, or is another build than this program.
pub(crate) fn is_outdated(status: &cc_core::status::Status) -> bool {
    status.daemon.is_outdated(cc_langfuse::VERSION)
}
