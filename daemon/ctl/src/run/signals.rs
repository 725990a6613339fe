//! Between terminal, shell and program: signals reach the program as if it ran directly.
//!
//! The program stays in this process group, so it can read the terminal, and the terminal's signals (Ctrl-C, Ctrl-\,
//! Ctrl-Z) reach it directly. Signals sent to this process alone are passed on.

use std::{fs::File, future::poll_fn, process::Child, task::Poll};

use anyhow::Context;
use rustix::process::{Pid, Signal, WaitOptions, getpgrp, getpid, kill_process, waitpid};
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
};

/// The signals that are passed on, and whether a terminal sends them to the program as well.
const PASSED: [(Signal, bool); 8] = [
    (Signal::INT, true),
    (Signal::QUIT, true),
    (Signal::TSTP, true),
    (Signal::TERM, false),
    (Signal::HUP, false),
    (Signal::CONT, false),
    (Signal::USR1, false),
    (Signal::USR2, false),
];

/// The signals that this process receives, which no longer end it.
pub(crate) struct Signals {
    runtime: Runtime,
    streams: std::cell::RefCell<Vec<(Signal, tokio::signal::unix::Signal)>>,
}

impl Signals {
    /// Starts listening. Ignored signals stay ignored, here and in the program: the caller wants both to survive them.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let _entered = runtime.enter();
        let ignored = ignored();
        let wanted = PASSED.iter().map(|(which, _)| *which).chain([Signal::CHILD]);
        let streams = wanted
            .filter(|which| *which == Signal::CHILD || ignored & (1 << (which.as_raw() - 1)) == 0)
            .map(|which| Ok((which, signal(SignalKind::from_raw(which.as_raw()))?)))
            .collect::<std::io::Result<Vec<_>>>()?;
        drop(_entered);
        Ok(Self { runtime, streams: streams.into() })
    }

    /// The next signal.
    async fn next(&self) -> Signal {
        poll_fn(|context| {
            for (which, stream) in self.streams.borrow_mut().iter_mut() {
                if stream.poll_recv(context).is_ready() {
                    return Poll::Ready(*which);
                }
            }
            Poll::Pending
        })
        .await
    }

    /// A signal to stop that came before the program was started.
    pub(crate) fn early(&self) -> Option<Signal> {
        let next = async {
            loop {
                tokio::select! {
                    biased;
                    which = self.next() => if ends(which) { return Some(which) },
                    () = tokio::task::yield_now() => return None,
                }
            }
        };
        self.runtime.block_on(next)
    }

    /// The result of `work` in its own thread; `None` if a signal to stop comes first.
    pub(crate) fn unless_one_comes<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (done, result) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || done.send(work()));
        let interrupted = async { while !ends(self.next().await) {} };
        self.runtime.block_on(async {
            tokio::select! {
                result = result => result.ok(),
                () = interrupted => None,
            }
        })
    }

    /// Waits for the program to exit, and passes signals on; returns its exit code in a shell's form.
    pub(crate) fn wait(&self, child: &Child) -> anyhow::Result<u8> {
        let pid = Pid::from_child(child);
        loop {
            // Also once before the first signal: it may have exited already.
            if let Some((_, status)) = waitpid(Some(pid), WaitOptions::NOHANG | WaitOptions::UNTRACED)? {
                if status.stopped() {
                    // The program has stopped itself, and the shell must notice.
                    if in_foreground() {
                        let _ = kill_process(getpid(), Signal::STOP);
                    }
                    continue;
                }
                let code = status.exit_status().or(status.terminating_signal().map(|signal| 128 + signal));
                return Ok(u8::try_from(code.context("it has not ended")?)?);
            }
            let which = self.runtime.block_on(self.next());
            let Some((_, typed)) = PASSED.iter().find(|(passed, _)| *passed == which) else { continue };
            if !typed || !in_foreground() {
                let _ = kill_process(pid, which);
            }
            if which == Signal::TSTP {
                let _ = kill_process(getpid(), Signal::STOP);
            }
        }
    }
}

/// A shell's exit code for a program that was ended by a signal.
pub(super) fn code(signal: Signal) -> u8 {
    u8::try_from(128 + signal.as_raw()).unwrap_or(u8::MAX)
}

fn ends(which: Signal) -> bool {
    [Signal::INT, Signal::QUIT, Signal::TERM, Signal::HUP].contains(&which)
}

/// The terminal sends its signals to this process group.
#[expect(clippy::disallowed_methods, reason = "a device of the system's")]
fn in_foreground() -> bool {
    File::open("/dev/tty").is_ok_and(|tty| rustix::termios::tcgetpgrp(tty).is_ok_and(|group| group == getpgrp()))
}

/// The signals that this process was started to ignore, one bit each; 0 if the system does not report them.
#[expect(clippy::disallowed_methods, reason = "the kernel wrote it")]
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
}
