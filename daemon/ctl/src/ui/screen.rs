//! The whole screen of a terminal, temporarily.

use std::{io::Read, time::Duration};

use anyhow::Context;
use rustix::termios::{LocalModes, OptionalActions};
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::terminal::Without;
use cc_langfuse::output::{self, Look};

/// What ends a wait: keys and signals.
pub(crate) struct Wake {
    keys: mpsc::Receiver<u8>,
    term: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    resized: tokio::signal::unix::Signal,
}

impl Wake {
    /// Listens to keys and signals from now on.
    ///
    /// # Errors
    /// Of the system.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let (sender, keys) = mpsc::channel(16);
        std::thread::Builder::new().name("keys".into()).spawn(move || {
            let mut key = [0];
            while std::io::stdin().read(&mut key).is_ok_and(|n| n > 0) && sender.blocking_send(key[0]).is_ok() {}
        })?;
        Ok(Self {
            keys,
            term: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            resized: signal(SignalKind::window_change())?,
        })
    }

    /// True after `interval`, or when the screen must be drawn again; false at the end.
    pub(crate) fn wait(&mut self, runtime: &Runtime, interval: Duration) -> bool {
        const CTRL_C: u8 = 3;
        runtime.block_on(async {
            let over = tokio::time::sleep(interval);
            tokio::pin!(over);
            loop {
                tokio::select! {
                    () = &mut over => return true,
                    _ = self.resized.recv() => return true,
                    _ = self.term.recv() => return false,
                    _ = self.hangup.recv() => return false,
                    _ = self.interrupt.recv() => return false,
                    key = self.keys.recv() => if matches!(key, None | Some(b'q' | b'Q' | CTRL_C)) { return false },
                }
            }
        })
    }
}

/// The terminal's alternate screen, without echo; restored on drop.
pub(crate) struct Screen {
    shown: output::Screen,
    _raw: Without,
}

impl Screen {
    /// Switches to it.
    ///
    /// # Errors
    /// If there is no terminal.
    pub(crate) fn open() -> anyhow::Result<Self> {
        // Keys send no signals either: a suspended program would leave the screen as it is.
        let modes = LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
        let raw = Without::modes(modes, OptionalActions::Now).context("the terminal")?;
        Ok(Self { shown: output::Screen::open()?, _raw: raw })
    }

    /// Columns and rows.
    pub(crate) fn size(&self) -> (usize, usize) {
        self.shown.size()
    }

    /// Shows as many of `lines` as fit.
    ///
    /// # Errors
    /// If nothing can be written.
    pub(crate) fn draw(&self, lines: &[(Look, String)]) -> anyhow::Result<()> {
        Ok(self.shown.draw(lines)?)
    }
}
