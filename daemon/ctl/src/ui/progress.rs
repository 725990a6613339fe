//! Progress: a bar on a terminal, an occasional line elsewhere.

use std::time::{Duration, Instant};

use cc_langfuse::{clock, output};

use super::amount::size;

/// The width of the bar in columns.
const WIDTH: usize = 20;

/// The progress of a job, in bytes of transcripts that are done.
pub(crate) struct Progress {
    every: Option<Duration>,
    bar: bool,
    what: &'static str,
    total: u64,
    done: u64,
    started: Instant,
    shown: Option<Instant>,
}

impl Progress {
    /// Shown on stderr, unless `quiet`.
    pub(crate) fn new(quiet: bool) -> Self {
        let bar = output::is_seen_aside();
        let every = (!quiet).then_some(if bar { Duration::from_millis(100) } else { Duration::from_secs(10) });
        Self { every, bar, what: "", total: 0, done: 0, started: clock::monotonic(), shown: None }
    }

    /// Starts a job of `total` bytes.
    pub(crate) fn begin(&mut self, what: &'static str, total: u64) {
        (self.what, self.total, self.done, self.started) = (what, total, 0, clock::monotonic());
        self.shown = (!self.bar).then_some(self.started);
    }

    /// Adds `bytes` to what is done.
    pub(crate) fn step(&mut self, bytes: u64, detail: &str) {
        self.done += bytes;
        let Some(every) = self.every else { return };
        if self.shown.is_some_and(|shown| shown.elapsed() < every) {
            return;
        }
        self.shown = Some(clock::monotonic());
        let line = line(self.what, self.done, self.total, self.started.elapsed(), detail);
        if self.bar {
            output::progress(Some(&line));
        } else {
            err!("{line}");
        }
    }

    /// Prints a message in between.
    pub(crate) fn say(&mut self, text: &str) {
        self.end();
        err!("{text}");
    }

    /// Removes the bar.
    pub(crate) fn end(&mut self) {
        if self.bar && self.every.is_some() && self.shown.take().is_some() {
            output::progress(None);
        }
    }
}

/// A short message on a terminal for something that takes a moment; removed on drop.
pub(crate) struct Busy(bool);

impl Busy {
    /// Shows `what` is being done.
    pub(crate) fn with(what: String) -> Self {
        let is_seen = output::is_seen_aside();
        if is_seen {
            output::progress(Some(&format!("{what} …")));
        }
        Self(is_seen)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if self.0 {
            output::progress(None);
        }
    }
}

fn line(what: &str, done: u64, total: u64, took: Duration, detail: &str) -> String {
    let part = if total == 0 { 1.0 } else { done as f64 / total as f64 }.min(1.0);
    let full = (part * WIDTH as f64) as usize;
    let rate = done as f64 / took.as_secs_f64().max(0.001);
    let left = if done == 0 || took < Duration::from_secs(1) {
        String::new()
    } else {
        let seconds = total.saturating_sub(done) as f64 / rate.max(1.0);
        format!(", {} left", span(seconds.ceil() as u64))
    };
    let bar = format!("{}{}", "#".repeat(full), ".".repeat(WIDTH - full));
    format!("{what} [{bar}] {:>3} %  {detail}  {}/s{left}", (part * 100.0) as u32, size(rate as u64))
}

fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_says_what_is_done_and_how_long_the_rest_takes_at_this_rate() {
        let at = |done, seconds| line("sending", done, 4096, Duration::from_secs(seconds), "x");
        assert_eq!(at(1024, 2), "sending [#####...............]  25 %  x  512 B/s, 6 s left");
        assert_eq!(at(4096, 4), "sending [####################] 100 %  x  1.0 KiB/s, 0 s left");
        assert_eq!(at(0, 5), "sending [....................]   0 %  x  0 B/s");
        assert_eq!(span(3725), "1 h 2 min");
    }
}
