//! The daemon of a run: the resident one, or one that is started and ended with the program.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use cc_langfuse::api::Left;
use hyper::Method;
use proto::paths::Paths;
use rustix::process::{Pid, Signal, kill_process};

use super::signals::Signals;
use crate::{
    client::{self, NotRunning},
    programs,
};

/// How long a daemon may take to start, or to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// A daemon that hooks reach.
pub struct Daemon {
    /// Where it lives.
    pub paths: Paths,
    private: bool,
    /// The process, if it is ours.
    own: std::cell::RefCell<Option<Own>>,
}

impl Daemon {
    /// The resident daemon if it runs; where there is only what it left, a daemon that goes on with that; else, or if it is to be
    /// `ephemeral`, one that lives in `dir`.
    pub fn find_or_start(ephemeral: bool, dir: &Path) -> anyhow::Result<Self> {
        let resident = client::paths()?;
        let running = !ephemeral && client::answers(&resident);
        let private = ephemeral || !running && !resident.database.exists();
        let paths = if private { Paths::new(&client::home()?, Some(dir.join("state").as_os_str())) } else { resident };
        let own = if running { None } else { Some(Own::start(&paths)?) };
        Ok(Self { paths, private, own: own.into() })
    }

    /// It keeps its state in a temporary directory.
    pub fn is_private(&self) -> bool {
        self.private
    }

    /// Waits until everything is delivered, and ends the daemon if it is ours.
    ///
    /// # Errors
    /// What is left, and where.
    pub fn finish(&self, signals: &Signals, timeout: Duration) -> anyhow::Result<()> {
        let started = Instant::now();
        let mut left = self.flush(signals, timeout);
        if left.as_ref().is_err_and(anyhow::Error::is::<NotRunning>) && self.own.borrow().is_none() {
            // It may have been another run's, and ended with that.
            *self.own.borrow_mut() = Some(Own::start(&self.paths)?);
            left = self.flush(signals, timeout.saturating_sub(started.elapsed()));
        }
        drop(self.own.take());
        let kept = match self.private {
            true => format!("kept in {}", self.paths.state.display()),
            false => "the daemon goes on with it".to_owned(),
        };
        left.with_context(|| format!("not everything is delivered; {kept}"))
    }

    fn flush(&self, signals: &Signals, timeout: Duration) -> anyhow::Result<()> {
        let path = format!("/v1/flush?timeout_ms={}", timeout.as_millis());
        let paths = self.paths.clone();
        let patience = timeout + Duration::from_secs(5);
        let answer = move || client::request(&paths, Method::POST, &path, Vec::new(), patience);
        let Some(body) = signals.unless_one_comes(answer) else { bail!("interrupted") };
        let left: Left = serde_json::from_slice(&body?)?;
        if left == Left::default() {
            return Ok(());
        }
        let why = if left.why.is_empty() { String::new() } else { format!(" ({})", left.why.join("; ")) };
        let things = [(left.events, "event"), (left.spans, "span"), (left.media, "image or document")];
        let things: Vec<String> = things
            .iter()
            .filter(|(n, _)| *n > 0)
            .map(|(n, thing)| format!("{n} {thing}{}", if *n > 1 { "s" } else { "" }))
            .collect();
        bail!("{} left after {timeout:?}{why}", things.join(", "))
    }
}

/// A daemon process of ours; ended when this goes.
struct Own(Child);

impl Own {
    fn start(paths: &Paths) -> anyhow::Result<Self> {
        let mut command = Command::new(programs::ours("cc-langfused")?);
        command.env(proto::env::STATE_DIR, &paths.state);
        if Paths::new(&client::home()?, None) == *paths {
            command.env_remove(proto::env::STATE_DIR);
        }
        // In a group of its own: what is typed at the terminal is not for it.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut own = Self(command.spawn()?);
        let deadline = Instant::now() + PATIENCE;
        while !client::answers(paths) {
            let ended = own.0.try_wait()?.is_some();
            // Another one may have come first.
            if ended && client::answers(paths) {
                break;
            }
            if ended || Instant::now() > deadline {
                let log = fs::read_to_string(&paths.log).unwrap_or_default();
                bail!("the daemon did not start: {}", log.lines().last().unwrap_or("it left no word"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(own)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let deadline = Instant::now() + PATIENCE;
        while let Ok(None) = self.0.try_wait() {
            if Instant::now() > deadline {
                let _ = self.0.kill();
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
