//! The daemon, its service and its files.

use std::{fs, os::unix::fs::FileTypeExt, os::unix::fs::MetadataExt, path::Path, process::Command, time::Duration};

use crate::{
    client::{self, Client},
    programs,
};
use cc_core::doctor::{
    Finding,
    local::{Access, Agent, Daemon, Unit, judge_access, judge_disk},
};
use cc_langfuse::environment;
use proto::paths::{Paths, check_private};

/// How long the daemon, or the service manager, may take to answer.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// The daemon's answer.
pub(super) fn daemon(paths: &Paths) -> Daemon {
    match Client::at(paths).with_timeout(TIME_LIMIT).status() {
        Ok(status) => Daemon::Running(Box::new(status)),
        Err(error) if error.is::<client::NotRunning>() => match error.downcast() {
            Ok(client::NotRunning::Starting(what)) => Daemon::Starting(what),
            _ => Daemon::NotRunning,
        },
        Err(error) if error.is::<serde_json::Error>() => {
            Daemon::Odd("runs, but this version does not understand its answer".into())
        }
        Err(error) => Daemon::Odd(format!("{error:#}")),
    }
}

/// The service manager's answer.
pub(super) fn unit() -> Unit {
    let mut command = Command::new("systemctl");
    command.args(["--user", "show", "--property=LoadState,ActiveState,UnitFileState"]);
    command.args(["cc-langfused.service", "cc-langfused.socket"]);
    let Some(said) = programs::run(command, TIME_LIMIT).ok().filter(|said| said.status.success()) else {
        return launchd();
    };
    let (service, socket) = said.out.split_once("\n\n").unwrap_or((&said.out, ""));
    let get = |unit: &str, name: &str| {
        unit.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default().to_owned()
    };
    let enabled = |unit: &str| get(unit, "UnitFileState") == "enabled";
    Unit::Systemd {
        enabled: if get(service, "LoadState") == "not-found" {
            "not-found".into()
        } else if enabled(service) || enabled(socket) {
            "enabled".into()
        } else {
            get(service, "UnitFileState")
        },
        active: get(service, "ActiveState"),
    }
}

/// What launchd says, where there is one.
fn launchd() -> Unit {
    let domain = format!("gui/{}", rustix::process::getuid().as_raw());
    let print = |what: &str| {
        let mut command = Command::new("launchctl");
        command.args(["print", what]);
        programs::run(command, TIME_LIMIT).ok().filter(|said| said.status.success())
    };
    if print(&domain).is_none() {
        return Unit::NoManager;
    }
    Unit::Launchd(print(&format!("{domain}/cc-langfused")).map(|said| {
        let get = |name: &str| {
            said.out.lines().find_map(|line| line.trim().strip_prefix(name)?.trim().strip_prefix('=')).map(str::trim)
        };
        let failed = get("last exit code").filter(|code| !["0", "(never exited)"].contains(code));
        Agent { is_running: get("state") == Some("running"), failed: failed.map(str::to_owned) }
    }))
}

/// How many events wait in the spool.
pub(super) fn spooled(paths: &Paths) -> usize {
    let entries = fs::read_dir(&paths.spool).into_iter().flatten().filter_map(Result::ok);
    entries.filter(|entry| entry.path().extension().is_some_and(|ext| ext == "event")).count()
}

/// The daemon's files.
pub(super) fn files(paths: &Paths, running: bool) -> Vec<Finding> {
    let dir = |dir: &Path| match Access::from(check_private(dir)) {
        Access::Private
            if rustix::fs::access(dir, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK).is_err() =>
        {
            Access::Unusable
        }
        Access::Missing if !can_make(dir) => Access::Forbidden,
        access => access,
    };
    let ignored = environment::text(proto::env::STATE_DIR).filter(|given| !given.is_empty() && !given.starts_with('/'));
    if let Some(given) = ignored {
        return vec![Finding::problem(
            "state-directory",
            format!("{} is {given}, which is not an absolute path, so it is not used", proto::env::STATE_DIR),
            "set it to an absolute path, for the daemon and for hooks",
        )];
    }
    let state = dir(&paths.state);
    let is_private = state == Access::Private;
    let mut findings = vec![judge_access("state-directory", &paths.state, &state, "700", running)];
    if !is_private {
        return findings;
    }
    if let Some(parent) = paths.socket.parent().filter(|parent| *parent != paths.state) {
        findings.push(judge_access("socket-directory", parent, &dir(parent), "700", running));
    }
    findings.push(judge_access("socket", &paths.socket, &file(&paths.socket, true), "600", running));
    findings.push(judge_access("spool-directory", &paths.spool, &dir(&paths.spool), "700", running));
    findings.push(judge_access("database-file", &paths.database, &file(&paths.database, false), "600", running));
    findings
}

/// True if the nearest existing parent can be written.
fn can_make(dir: &Path) -> bool {
    let above = dir.ancestors().skip(1).find(|above| above.exists());
    above.is_some_and(|above| rustix::fs::access(above, rustix::fs::Access::WRITE_OK).is_ok())
}

fn file(path: &Path, is_socket: bool) -> Access {
    let Ok(meta) = fs::symlink_metadata(path) else { return Access::Missing };
    let kind = meta.file_type();
    if !(if is_socket { kind.is_socket() } else { kind.is_file() }) {
        Access::WrongKind
    } else if meta.uid() != rustix::process::geteuid().as_raw() {
        Access::OtherOwner
    } else if meta.mode() & 0o077 != 0 {
        Access::Open
    } else if meta.mode() & 0o600 != 0o600 {
        Access::Unusable
    } else {
        Access::Private
    }
}

/// The disk that `dir` is on, or will be.
pub(super) fn disk(dir: &Path) -> Option<Finding> {
    let there = dir.ancestors().find(|dir| dir.exists())?;
    let disk = rustix::fs::statvfs(there).ok()?;
    let [free, total] = [disk.f_bavail, disk.f_blocks].map(|blocks| blocks.saturating_mul(disk.f_frsize));
    Some(judge_disk(dir, free, total))
}
