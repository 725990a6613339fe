//! The daemon of a run: the resident one, or one that is started for the run and stopped after it.

use std::{
    io,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use rustix::{
    io::{FdFlags, fcntl_setfd},
    process::{Pid, Signal, kill_process},
};

use super::signals::Signals;
use crate::{
    client::{self, Client},
    delivered::{self, Outcome},
    programs,
};
use cc_core::{settings::quoted, status};
use cc_langfuse::{
    clock,
    files::{self, Rules},
};
use proto::paths::Paths;

/// How long a daemon may take to start or stop.
const TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) struct Daemon {
    pub paths: Paths,
    private: bool,
    /// The sessions in its last status.
    sessions: std::cell::RefCell<Vec<status::Session>>,
    /// What was waiting before the run, by destination.
    before: Vec<status::Destination>,
    /// The process, if this run started it.
    own: std::cell::RefCell<Option<Own>>,
}

impl Daemon {
    /// The resident daemon if it runs; if only its state exists, a new daemon with that state; else, or if `ephemeral`,
    /// one with its state in `dir`. A daemon of this run continues to deliver for `timeout` if the run is killed.
    pub(crate) fn find_or_start(ephemeral: bool, dir: &Path, timeout: Duration) -> anyhow::Result<Self> {
        let resident = client::paths()?;
        let running = !ephemeral && Client::at(&resident).answers();
        let private = ephemeral || !running && !resident.database.exists();
        let home = client::home()?;
        let paths = if private { Paths::new(&home, Some(dir.as_os_str())) } else { resident };
        let own = if running { None } else { Some(Own::start(&home, &paths, private, timeout)?) };
        let before = Client::at(&paths).status().map(|status| status.destinations).unwrap_or_default();
        Ok(Self { paths, private, sessions: Default::default(), before, own: own.into() })
    }

    /// Lets the next started program keep the daemon alive, in case it outlives this process.
    pub(crate) fn share(&self) -> io::Result<()> {
        let own = self.own.borrow();
        let Some(held) = own.as_ref().and_then(|own| own.0.stdin.as_ref()) else { return Ok(()) };
        Ok(fcntl_setfd(held, FdFlags::empty())?)
    }

    /// It keeps its state in a temporary directory.
    pub(crate) fn is_private(&self) -> bool {
        self.private
    }

    /// Waits until everything is delivered, and stops the daemon if this run started it; returns its sessions.
    ///
    /// # Errors
    /// What is left, and where.
    pub(crate) fn finish(&self, signals: &Signals, timeout: Duration) -> anyhow::Result<Vec<status::Session>> {
        let started = clock::monotonic();
        let mut left = self.flush(signals, timeout);
        if left.is_err() && !Client::at(&self.paths).answers() {
            // It was killed, or belonged to another run and was stopped with it.
            let own = Own::start(&client::home()?, &self.paths, self.private, timeout)?;
            self.own.replace(Some(own));
            left = self.flush(signals, timeout.saturating_sub(started.elapsed()));
        }
        let ended = self.own.take().is_some();
        let kept = match (self.private, ended) {
            (true, _) => format!(
                "kept in {}; to send it later, with the right keys in the environment or the settings: cc-langfusectl start && \
                 cc-langfusectl backfill{}",
                self.paths.state.display(),
                self.transcripts()
            ),
            (false, true) => "the daemon continues when it is started: cc-langfusectl start".to_owned(),
            (false, false) => "the daemon continues with it".to_owned(),
        };
        left.with_context(|| format!("not everything was delivered; {kept}"))?;
        Ok(self.sessions.take())
    }

    /// The transcripts of its sessions, as arguments.
    fn transcripts(&self) -> String {
        self.sessions
            .borrow()
            .iter()
            .map(|session| format!(" {}", quoted(&session.transcript.to_string_lossy())))
            .collect()
    }

    fn flush(&self, signals: &Signals, timeout: Duration) -> anyhow::Result<()> {
        let (paths, before) = (self.paths.clone(), self.before.clone());
        let answer = move || {
            let daemon = Client::at(&paths);
            let same = |one: &status::Destination, other: &status::Destination| {
                (&one.base_url, &one.public_key) == (&other.base_url, &other.public_key)
            };
            // What was waiting before the run does not belong to it.
            let waited =
                |row: &status::Destination| before.iter().find(|old| same(old, row)).map_or(0, |old| old.waiting);
            let outcome = delivered::wait(&daemon, timeout, |row| row.waiting > waited(row));
            (outcome, daemon.status().map(|status| status.sessions).unwrap_or_default())
        };
        let Some((outcome, sessions)) = signals.unless_one_comes(answer) else { bail!("interrupted") };
        self.sessions.replace(sessions);
        let left = match outcome? {
            Outcome::Delivered => return Ok(()),
            Outcome::Refused(why) => bail!("{}", why.join("; ")),
            Outcome::Late(left) => left,
        };
        let why = if left.why.is_empty() { String::new() } else { format!(" ({})", left.why.join("; ")) };
        let things = [(left.events, "hook event"), (left.spans, "observation"), (left.media, "image or document")];
        let things: Vec<String> = things
            .iter()
            .filter(|(n, _)| *n > 0)
            .map(|(n, thing)| format!("{n} {thing}{}", if *n > 1 { "s" } else { "" }))
            .collect();
        bail!("{} left after {timeout:?}{why}", things.join(", "))
    }
}

/// A daemon process that this run started; stopped on drop, or when everyone who holds its standard input
/// has closed it.
pub(crate) struct Own(Child);

impl Own {
    /// Starts it for the user whose home is `home`, and waits until it answers.
    ///
    /// # Errors
    /// If it does not.
    pub(crate) fn start(home: &Path, paths: &Paths, private: bool, timeout: Duration) -> anyhow::Result<Self> {
        let mut command = Command::new(programs::ours("cc-langfused")?);
        command.env("HOME", home).env(proto::env::STATE_DIR, &paths.state);
        if Paths::new(home, None) == *paths {
            command.env_remove(proto::env::STATE_DIR);
        }
        command.arg(format!("--until-stdin-ends={}", timeout.as_millis())).args(private.then_some("--ephemeral"));
        // In its own process group: keys typed at the terminal are not for it.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut own = Self(command.spawn()?);
        let deadline = clock::monotonic() + TIMEOUT;
        while !Client::at(paths).answers() {
            let ended = own.0.try_wait()?;
            if ended.is_some_and(|status| !status.success()) || clock::monotonic() > deadline {
                let log = files::read(&paths.log, &Rules::users(u64::MAX)).unwrap_or_default();
                let log = String::from_utf8_lossy(&log);
                bail!("the daemon did not start: {}", log.lines().last().unwrap_or("it gave no reason"));
            }
            // Another daemon was there, and may be stopping.
            if ended.is_some() && !Client::at(paths).answers() {
                own = Self(command.spawn()?);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(own)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let deadline = clock::monotonic() + TIMEOUT;
        if let Ok(None) = self.0.try_wait() {
            let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        }
        while let Ok(None) = self.0.try_wait() {
            if clock::monotonic() > deadline {
                let _ = self.0.kill();
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
