//! This machine: Claude Code, the hook's program, the daemon, its files.

use std::path::{Path, PathBuf};

use proto::paths::UnsafeDir;

use super::{Finding, count, size};
use crate::{claude::Version, settings::HOOK, status::Status};

/// A disk is nearly full if fewer bytes than this are free,
const FEW_BYTES: u64 = 1 << 30;

/// or less than one part in this many.
const FEW_PARTS: u64 = 20;

/// The state of Claude Code's program.
pub enum Claude {
    /// No program `claude`.
    Missing,
    /// It does not report a version.
    Silent(PathBuf, String),
    /// Its path and version.
    Version(PathBuf, Version),
}

impl Claude {
    pub fn version(&self) -> Option<Version> {
        match self {
            Self::Version(_, version) => Some(*version),
            _ => None,
        }
    }

    /// Whether it was found.
    pub fn judge(&self) -> Finding {
        match self {
            Self::Missing => Finding::warning(
                "claude",
                "not found, so it is unknown which hook events it understands",
                "add the directory of `claude` to PATH",
            ),
            Self::Silent(path, why) => Finding::warning(
                "claude",
                format!("{} --version: {why}", path.display()),
                "reinstall Claude Code, or correct PATH",
            ),
            Self::Version(path, version) => Finding::ok("claude", format!("{version}, {}", path.display())),
        }
    }
}

/// The program of a registered hook.
pub struct Program {
    /// The path as it is registered.
    pub word: String,
    pub state: ProgramState,
}

/// The state of a hook's program.
pub enum ProgramState {
    /// It does not exist.
    Missing,
    /// Not a file.
    NotAFile,
    /// It is not executable.
    NotExecutable,
    /// It is another program, or a version with another protocol.
    Foreign,
    /// Users other than its owner can change it.
    Writable,
    /// It was run without tracing, where it does nothing, and failed.
    Fails(String),
    /// It looks right, but was not run.
    Untried,
    Good,
}

impl Program {
    /// Whether Claude Code can run it.
    pub fn judge(&self) -> Finding {
        let (check, word) = ("hook-program", &self.word);
        let install = format!("install {HOOK} there, or register it where it is: cc-langfusectl setup");
        match &self.state {
            ProgramState::Missing => Finding::problem(check, format!("{word} does not exist"), install),
            ProgramState::NotAFile => Finding::problem(check, format!("{word} is not a file"), install),
            ProgramState::NotExecutable => {
                Finding::problem(check, format!("{word} is not executable"), format!("chmod +x {word}"))
            }
            ProgramState::Foreign => Finding::problem(
                check,
                format!("{word} is not this version's {HOOK}"),
                "install it together with the daemon, from the same build".to_owned(),
            ),
            ProgramState::Writable => Finding::warning(
                check,
                format!("other users can replace {word}, and would get your keys"),
                format!("chmod go-w {word}"),
            ),
            ProgramState::Fails(why) => Finding::problem(check, format!("{word} does not run: {why}"), install),
            ProgramState::Good | ProgramState::Untried if !word.starts_with('/') => Finding::warning(
                check,
                format!("{word} is registered without its path: what runs depends on where Claude Code is started"),
                "register the absolute path: cc-langfusectl setup",
            ),
            ProgramState::Untried => Finding::ok(
                check,
                format!("{word} is there; it is not run here, because the project's settings name it"),
            ),
            ProgramState::Good => Finding::ok(check, format!("{word} runs")),
        }
    }
}

/// The daemon's answer.
pub enum Daemon {
    /// No daemon listens.
    NotRunning,
    /// It does this before it answers.
    Starting(String),
    /// Something listens that does not answer like a daemon.
    Odd(String),
    /// Its status.
    Running(Box<Status>),
}

impl Daemon {
    /// Its status, if it runs.
    pub fn status(&self) -> Option<&Status> {
        match self {
            Self::Running(status) => Some(status),
            _ => None,
        }
    }
}

/// The service that starts the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unit {
    /// No service manager answers.
    NoManager,
    /// The output of `systemctl --user is-enabled` and `is-active`.
    Systemd {
        /// Such as `enabled`, `disabled`, `not-found`.
        enabled: String,
        /// Such as `active`, `inactive`, `failed`.
        active: String,
    },
    /// What `launchctl print` says of our agent; `None` if launchd does not know it.
    Launchd(Option<Agent>),
}

/// The agent as launchd has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    pub is_running: bool,
    /// Its last exit code, if it is not 0.
    pub failed: Option<String>,
}

/// Whether the daemon runs now and will after the next login. `ours` is the version of the asking program.
pub fn judge_daemon(daemon: &Daemon, unit: &Unit, spooled: usize, ours: &str) -> Vec<Finding> {
    let start = match unit {
        Unit::Systemd { enabled, .. } if enabled == "not-found" => "cc-langfusectl setup",
        Unit::Systemd { .. } => {
            "systemctl --user enable --now cc-langfused; if that fails: journalctl --user -u cc-langfused"
        }
        Unit::Launchd(None) => "cc-langfusectl setup",
        Unit::Launchd(Some(_)) => "cc-langfusectl restart; if that fails: cc-langfusectl logs",
        Unit::NoManager => "cc-langfusectl start, which runs cc-langfused without a terminal",
    };
    let mut findings = Vec::new();
    match daemon {
        Daemon::NotRunning => {
            let waiting = match spooled {
                0 => String::new(),
                n => format!("; {} in the spool", count(n, "event")),
            };
            findings.push(Finding::problem("daemon", format!("not running{waiting}"), start));
        }
        Daemon::Starting(what) => findings.push(Finding::warning(
            "daemon",
            format!("starts: {what}"),
            "wait; if it lacks space, free some, and it continues by itself: hooks keep their events until then",
        )),
        Daemon::Odd(why) => findings.push(Finding::problem("daemon", why.clone(), RESTART)),
        Daemon::Running(status) => {
            let (version, pid) = (&status.daemon.version, status.daemon.pid);
            let build = if status.daemon.build.is_empty() { version } else { &status.daemon.build };
            findings.push(if status.daemon.replaced {
                let seen = format!("its program, version {build}, was replaced since it started");
                Finding::warning("daemon", seen, RESTART)
            } else if build != ours {
                Finding::warning("daemon", format!("runs version {build}, this is {ours}"), RESTART)
            } else {
                Finding::ok("daemon", format!("running, version {version}, pid {pid}"))
            });
        }
    }
    let running = daemon.status().is_some();
    findings.push(match unit {
        Unit::Launchd(None) => Finding::warning(
            "unit",
            "launchd does not know cc-langfused: nothing starts the daemon when you log in",
            "cc-langfusectl setup",
        ),
        Unit::Launchd(Some(Agent { failed: Some(code), is_running: false })) => Finding::problem(
            "unit",
            format!("launchd has started cc-langfused, and it ended with {code}"),
            "cc-langfusectl logs says why; then cc-langfusectl restart",
        ),
        Unit::Launchd(Some(agent)) if agent.is_running || !running => {
            let state = if agent.is_running { "running" } else { "loaded" };
            Finding::ok("unit", format!("cc-langfused is {state} under launchd"))
        }
        Unit::Launchd(Some(_)) => Finding::warning(
            "unit",
            "the daemon was started by hand: launchd does not restart it",
            "cc-langfusectl restart",
        ),
        Unit::Systemd { active, .. } if active == "failed" && !running => Finding::problem(
            "unit",
            "cc-langfused.service has failed",
            "systemctl --user status cc-langfused says why; then cc-langfusectl restart",
        ),
        Unit::NoManager => Finding::ok(
            "unit",
            "no service manager here: start it with cc-langfusectl start, or let hooks do it with start \
            = \"hook\" in config.toml",
        ),
        Unit::Systemd { enabled, active } if enabled == "enabled" && (active == "active" || !running) => {
            Finding::ok("unit", format!("cc-langfused.service is enabled, {active}"))
        }
        Unit::Systemd { enabled, .. } if enabled == "enabled" => Finding::warning(
            "unit",
            "the daemon was started by hand: the service does not restart it",
            "cc-langfusectl restart",
        ),
        Unit::Systemd { enabled, .. } if enabled == "not-found" => Finding::warning(
            "unit",
            "there is no cc-langfused.service: nothing starts the daemon when you log in",
            "cc-langfusectl setup",
        ),
        Unit::Systemd { enabled, .. } => Finding::warning(
            "unit",
            format!("cc-langfused.service is {enabled}: nothing starts the daemon when you log in"),
            "systemctl --user enable cc-langfused",
        ),
    });
    findings
}

/// Restarts the daemon, with or without a service manager.
const RESTART: &str = "cc-langfusectl restart";

/// The events that the daemon has received and accepted. `silent_since` is when the transcript of the latest session
/// was last written.
pub fn judge_events(status: &Status, silent_since: Option<&str>) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.push(match status.sessions.first() {
        None if !status.refused().is_empty() || status.inbox.pending > 0 => {
            Finding::warning("events", "events arrive, but no session was read", "see below, and cc-langfusectl logs")
        }
        None => Finding::warning(
            "events",
            "no event has arrived yet",
            "Claude Code reads its settings when it starts: start a new session, and write a prompt",
        ),
        Some(latest) => {
            let written = silent_since.map_or_else(String::new, |at| format!(", last written {at}"));
            let turns = count(latest.turns as usize, "turn");
            let waiting = match status.inbox.pending {
                0 => String::new(),
                n => format!("; {} waiting", count(n as usize, "event")),
            };
            Finding::ok(
                "events",
                format!("events arrive; latest session {}, {turns}{written}{waiting}", latest.session_id),
            )
        }
    });
    if !status.refused().is_empty() {
        let why: Vec<String> =
            status.refused().iter().map(|(why, n)| format!("{} {n}", why.replace('_', " "))).collect();
        findings.push(Finding::ok(
            "refused",
            format!("events that named a transcript which was not read: {}", why.join(", ")),
        ));
    }
    let refused = status.refused_now();
    for unread in &status.unread {
        let judge = if refused.contains(&unread) { Finding::problem } else { Finding::warning };
        let seen = format!("{}: {}", unread.path.display(), unread.why);
        findings.push(judge("unread", seen, unread.remedy.clone()));
    }
    if !status.left_in_spool.is_empty() {
        let left: Vec<String> = status.left_in_spool.iter().map(|(why, n)| format!("{why} {n}")).collect();
        findings.push(Finding::warning(
            "spool",
            format!("events that cannot be read: {}", left.join(", ")),
            "if hook and daemon are from the same build, remove the files that status names under `left in spool`",
        ));
    }
    if let Some(trouble) = &status.store_error {
        findings.push(Finding::problem(
            "database",
            format!("cannot be written: {}", trouble.error),
            "make room on the disk, or make it writable; work then continues by itself",
        ));
    }
    findings
}

/// The state of one of the daemon's files or directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// It does not exist.
    Missing,
    /// It does not exist, and the user cannot create it.
    Forbidden,
    /// Only the user can access it.
    Private,
    /// Group or others can access it.
    Open,
    /// It belongs to another user.
    OtherOwner,
    /// A file in place of a directory, or the reverse.
    WrongKind,
    /// The user cannot use it.
    Unusable,
}

impl From<Result<(), UnsafeDir>> for Access {
    fn from(checked: Result<(), UnsafeDir>) -> Self {
        match checked {
            Ok(()) => Self::Private,
            Err(UnsafeDir::Missing) => Self::Missing,
            Err(UnsafeDir::NotADirectory) => Self::WrongKind,
            Err(UnsafeDir::OtherOwner) => Self::OtherOwner,
            Err(UnsafeDir::Open) => Self::Open,
        }
    }
}

/// Whether a file or directory exists and is private to the user. `mode` is the right argument for chmod.
pub fn judge_access(check: &'static str, path: &Path, access: &Access, mode: &str, running: bool) -> Finding {
    let shown = path.display();
    match access {
        Access::Private => Finding::ok(check, format!("{shown}, yours alone")),
        Access::Missing if running => {
            Finding::problem(check, format!("{shown} was removed while the daemon runs"), RESTART)
        }
        Access::Missing => Finding::ok(check, format!("{shown} is created when the daemon starts")),
        Access::Forbidden => Finding::problem(
            check,
            format!("{shown} cannot be created: its parent directory is read-only for you"),
            "set CC_LANGFUSE_STATE_DIR, where the daemon starts and in Claude Code's settings, to the absolute path of a directory that \
                you can write",
        ),
        Access::Open => Finding::problem(
            check,
            format!("other users can open {shown}, so hooks do not use it"),
            format!("chmod {mode} {shown}"),
        ),
        Access::OtherOwner => Finding::problem(
            check,
            format!("{shown} belongs to another user, so it is not used"),
            format!("sudo chown -R \"$(id -un)\" {shown}, or remove it"),
        ),
        Access::WrongKind => Finding::problem(
            check,
            format!("{shown} is not what it should be"),
            format!("remove {shown}; then cc-langfusectl restart"),
        ),
        Access::Unusable => Finding::problem(
            check,
            format!("{shown} cannot be read and written by you"),
            format!("chmod {mode} {shown}"),
        ),
    }
}

/// Whether the disk has room for waiting spans. `free` and `total` are in bytes.
pub fn judge_disk(dir: &Path, free: u64, total: u64) -> Finding {
    let seen = format!("{} of {} free on the disk of {}", size(free), size(total), dir.display());
    if free < FEW_BYTES || free < total / FEW_PARTS {
        Finding::warning("disk", seen, "make room: with a full disk nothing new is traced until there is some")
    } else {
        Finding::ok("disk", seen)
    }
}

#[cfg(test)]
mod tests;
