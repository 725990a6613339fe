//! `start`, `stop` and `restart`: the resident daemon, through the service manager if it is set up there,
//! else directly.

use std::{path::Path, process::ExitCode};

use anyhow::Context;

use crate::{
    client::{self, Client},
    detached,
    setup::service::Manager,
};
use cc_langfuse::config_file::{self, Source};
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
    let sources = [Source::Fleet(Path::new(config_file::FLEET_FILE)), Source::User(&paths.config)];
    let by_hook = config_file::layers(&sources).is_ok_and(|layers| layers.start_by_hook.value);
    out!(
        "{}",
        match (was_there, by_hook) {
            (false, _) => "it was not running",
            (true, false) => "stopped; hooks keep their events until the daemon runs again",
            (true, true) =>
                "stopped; the next hook starts it again, as start = \"hook\" says in config.toml. To send nothing: cc-langfusectl pause",
        }
    );
    Ok(ExitCode::SUCCESS)
}

/// Stops the daemon, if it runs, and starts the installed program.
pub(crate) fn restart() -> anyhow::Result<ExitCode> {
    let (home, paths) = (client::home()?, client::paths()?);
    // One that runs must not end for one that cannot start.
    client::config().context("the daemon was left as it is")?;
    if managed(&home).is_none() {
        detached::end(&paths)?;
    }
    bring_up(&home, &paths, true)
}

/// The service manager, if the daemon is set up there.
fn managed(home: &Path) -> Option<Manager> {
    Manager::find().filter(|manager| manager.is_set_up(home))
}

fn bring_up(home: &Path, paths: &Paths, restarts: bool) -> anyhow::Result<ExitCode> {
    if let Some(manager) = managed(home) {
        if restarts {
            manager.halt(home)?;
            // A daemon that was started by hand does not belong to the manager.
            detached::end(paths)?;
        }
        return Ok(match manager.start(home, restarts)? {
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
