//! Reports that files changed in watched directories. It is only a hint: code that waits for a file also polls it.
//!
//! On Linux only changes to a file are watched: this program opens and closes many of these files itself.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

#[cfg(target_os = "linux")]
use inotify::Watcher;
#[cfg(not(target_os = "linux"))]
use portable::Watcher;

#[cfg(target_os = "linux")]
mod inotify;
#[cfg(not(target_os = "linux"))]
mod portable;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A file was created, written or moved to this path.
    Changed(PathBuf),
    /// Events were lost: any file may have changed.
    Missed,
}

pub struct Watch {
    watcher: Option<Watcher>,
}

impl Watch {
    /// Calls `report` from a thread of its own. If the system offers no watch, nothing is reported.
    pub fn reporting(report: impl Fn(Seen) + Send + 'static) -> Self {
        let watcher = Watcher::new(report);
        if let Err(error) = &watcher {
            tracing::warn!(%error, "no file events: files are looked at by the clock");
        }
        Self { watcher: watcher.ok() }
    }

    /// Watches `dir` but not its subdirectories. True if it was not watched before.
    pub fn add(&mut self, dir: &Path) -> bool {
        let Some(watcher) = &mut self.watcher else { return false };
        watcher.add(dir).unwrap_or_else(|error| {
            tracing::debug!(%error, "a directory is not watched");
            false
        })
    }

    /// Stops watching all directories but `wanted`.
    pub fn keep(&mut self, wanted: &HashSet<PathBuf>) {
        if let Some(watcher) = &mut self.watcher {
            watcher.keep(wanted);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write, sync::mpsc, time::Duration};

    use super::*;

    /// Waits for at least `enough` events, then returns all until no more come.
    fn seen(receiver: &mpsc::Receiver<Seen>, enough: usize) -> Vec<Seen> {
        let mut seen = Vec::new();
        let wait = |n: usize| if n < enough { Duration::from_secs(20) } else { Duration::from_millis(100) };
        while let Ok(one) = receiver.recv_timeout(wait(seen.len())) {
            if seen.last() != Some(&one) {
                seen.push(one);
            }
        }
        seen
    }

    #[test]
    fn changes_are_reported_and_reads_are_not() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().canonicalize().unwrap().join("d");
        fs::create_dir(&dir).unwrap();
        let at = |name: &str| dir.join(name);
        fs::write(at("a.jsonl"), "1").unwrap();
        let (sender, receiver) = mpsc::channel();
        let mut watch = Watch::reporting(move |seen| drop(sender.send(seen)));
        assert!(watch.add(&dir), "new");
        assert!(!watch.add(&dir), "known");
        assert!(!watch.add(&at("nowhere")) && !watch.add(&at("a.jsonl")), "no directory");
        if cfg!(target_os = "linux") {
            for _ in 0..100 {
                fs::read(at("a.jsonl")).unwrap();
                fs::read_dir(&dir).unwrap().for_each(drop);
            }
            assert_eq!(seen(&receiver, 0), [], "opened, read and closed");
        }
        fs::File::options().append(true).open(at("a.jsonl")).unwrap().write_all(b"2").unwrap();
        assert_eq!(seen(&receiver, 1), [Seen::Changed(at("a.jsonl"))]);
        fs::write(base.path().join("b.jsonl"), "").unwrap();
        fs::rename(base.path().join("b.jsonl"), at("b.jsonl")).unwrap();
        assert_eq!(seen(&receiver, 1), [Seen::Changed(at("b.jsonl"))]);
        watch.keep(&HashSet::new());
        fs::write(at("c.jsonl"), "").unwrap();
        assert_eq!(seen(&receiver, 0), [], "not watched any more");
        assert!(watch.add(&dir), "watched again");
        fs::write(at("d.jsonl"), "").unwrap();
        assert!(seen(&receiver, 1).contains(&Seen::Changed(at("d.jsonl"))));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_replaced_directory_can_be_watched_again() {
        let base = tempfile::tempdir().unwrap();
        let (sender, receiver) = mpsc::channel();
        let mut watch = Watch::reporting(move |seen| drop(sender.send(seen)));
        let dir = base.path().join("d");
        for (n, away) in ["removed", "moved"].into_iter().enumerate() {
            fs::create_dir(&dir).unwrap();
            assert!(watch.add(&dir), "before it was {away}");
            if away == "removed" {
                fs::remove_dir_all(&dir).unwrap();
            } else {
                fs::rename(&dir, base.path().join("elsewhere")).unwrap();
            }
            fs::create_dir(&dir).unwrap();
            let deadline = std::time::Instant::now() + Duration::from_secs(20);
            while !watch.add(&dir) {
                assert!(std::time::Instant::now() < deadline, "{away}");
                std::thread::yield_now();
            }
            let file = dir.join(format!("{n}.jsonl"));
            fs::write(&file, "x").unwrap();
            assert!(seen(&receiver, 1).contains(&Seen::Changed(file)), "{away}");
            watch.keep(&HashSet::new());
            fs::remove_dir_all(&dir).unwrap();
            seen(&receiver, 0);
        }
    }
}
