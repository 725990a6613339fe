//! How the daemon is started after `setup`: by the service manager, or without one by hooks.

use std::{path::Path, process::ExitCode};

use crate::{client::Client, detached, ui::progress::Busy};
use cc_core::config::{Layers, telemetry::FORWARD_HEADERS};
use proto::paths::Paths;

use super::{
    apart::MARK,
    files::{self, Change, Part, Record},
    service::Manager,
};

/// What `config.toml` is to say, unless it does: that hooks start the daemon, that what was said before is left out, how Claude Code's
/// own telemetry is received, and the `table` of a destination; without one the one that is there stays.
pub(super) fn of_config(
    by_hook: bool,
    from_now: bool,
    telemetry: Option<&str>,
    table: Option<Vec<String>>,
    paths: &Paths,
    record: &Record,
) -> anyhow::Result<Option<Change>> {
    const BY_HOOK: &str = "start = \"hook\"";
    const FROM_NOW: &str = "from_now = true";
    let path = files::real(&paths.config)?;
    let written = match record.of(&path).map(|written| &written.part) {
        Some(Part::Lines(lines)) => lines.clone(),
        _ => Vec::new(),
    };
    let (known, mut lines): (Vec<_>, Vec<_>) = written.iter().cloned().partition(|line| line.ends_with(MARK));
    let table = table.unwrap_or(known);
    if !(by_hook || from_now || telemetry.is_some()) && table.is_empty() && written.is_empty() {
        return Ok(None);
    }
    let current = files::read(&path)?;
    let mut layers = Layers::default();
    // The doctor reports what is wrong with the file.
    if layers.lay(&path, current.as_deref().unwrap_or_default()).is_err() {
        anyhow::ensure!(
            table.is_empty(),
            "{} is not valid, so nothing can be added: cc-langfusectl doctor says why",
            path.display()
        );
        return Ok(None);
    }
    if by_hook && layers.start_by_hook.location.is_none() {
        lines.push(BY_HOOK.to_owned());
    }
    if from_now && layers.from_now.location.is_none() {
        lines.push(FROM_NOW.to_owned());
    }
    lines.extend(telemetry.map(str::to_owned));
    let original = record.original(&path, current.as_deref())?;
    // Before the first table, and after the last.
    let block = |lines: &[String]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    let mut new = block(&lines) + original.as_deref().unwrap_or_default();
    if !(table.is_empty() || new.is_empty() || new.ends_with('\n')) {
        new.push('\n');
    }
    new += &block(&table);
    lines.extend(table);
    if lines == written || current.as_ref() == Some(&new) {
        return Ok(None);
    }
    let mut then = Layers::default();
    let is_valid = then.lay(&path, &new).is_ok() && then.config().destinations.iter().all(|named| named.entry.is_ok());
    anyhow::ensure!(
        is_valid || !lines.iter().any(|line| line.ends_with(MARK)),
        "{} has a destination that does not go with the one to be added: cc-langfusectl doctor says what is wrong; another one \
         must not be called langfuse",
        path.display()
    );
    // The headers for a collector are like a key.
    let is_secret = lines.iter().any(|line| line.contains(FORWARD_HEADERS));
    let mode = files::mode(&path).unwrap_or(0o600) & if is_secret { 0o600 } else { 0o7777 };
    let part = Part::Lines(lines);
    Ok(Some(Change { path, current, new: Some(new), mode, original, part }))
}

/// Starts the daemon, or explains how.
pub(super) fn serve(
    manager: Option<Manager>,
    home: &Path,
    paths: &Paths,
    record: &mut Record,
    changed: bool,
    declined: bool,
) -> anyhow::Result<ExitCode> {
    let running = Client::at(paths).status();
    let is_outdated = running.as_ref().is_ok_and(|status| status.daemon.is_outdated(cc_langfuse::VERSION));
    let Some(manager) = manager else {
        match (declined, running) {
            (true, Ok(_)) if is_outdated => out!("daemon        runs from another build: cc-langfusectl restart"),
            (_, Ok(status)) if !is_outdated && (declined || !changed) => {
                out!("daemon        running, pid {}", status.daemon.pid)
            }
            (true, _) => out!("daemon        not a service, as you asked: cc-langfusectl start starts it"),
            (false, _) => {
                let busy = Busy::with("starting the daemon".to_owned());
                detached::end(paths)?;
                let pid = detached::start(paths)?;
                drop(busy);
                out!("daemon        started, pid {pid}");
                out!("              there is no service manager here, so hooks start it when it is not running");
            }
        }
        return Ok(ExitCode::SUCCESS);
    };
    if is_outdated {
        // Also a daemon that was started by hand.
        detached::end(paths)?;
    }
    let changed = changed || is_outdated;
    record.service = Some(manager.name().to_owned());
    record.save(paths)?;
    let outcome = {
        let _busy = Busy::with("starting the daemon".to_owned());
        manager.start(home, changed)?
    };
    if manager.is_plain(home) && !record.plain {
        record.plain = true;
        record.save(paths)?;
    }
    Ok(match outcome {
        Ok(how) => {
            out!("daemon        {how}");
            ExitCode::SUCCESS
        }
        Err(_) if Client::at(paths).answers() => {
            out!(
                "daemon        another one of yours is running; the service takes over when it ends and you log in \
                    again"
            );
            ExitCode::SUCCESS
        }
        Err(why) => {
            out!("daemon        {why}");
            ExitCode::from(1)
        }
    })
}
