//! Watches by inotify.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsStr,
    io::{self, PipeReader, PipeWriter},
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags},
    io::Errno,
};

use super::Seen;

/// Changes to a file, and the removal of the directory from its path.
const EVENTS: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);

/// Room for a few hundred events, in bytes.
const BUFFER_BYTES: usize = 16 << 10;

#[derive(Debug)]
struct Shared {
    inotify: OwnedFd,
    dirs: Mutex<HashMap<i32, PathBuf>>,
}

impl Shared {
    fn dirs(&self) -> MutexGuard<'_, HashMap<i32, PathBuf>> {
        self.dirs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Watches directories until it is dropped.
#[derive(Debug)]
pub(super) struct Watcher {
    shared: Arc<Shared>,
    /// The thread ends when this is closed.
    _alive: PipeWriter,
}

impl Watcher {
    pub(super) fn new(report: impl Fn(Seen) + Send + 'static) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let shared = Arc::new(Shared { inotify, dirs: Mutex::default() });
        let (ended, _alive) = io::pipe()?;
        let own = shared.clone();
        std::thread::Builder::new().name("watch".into()).spawn(move || watch(&own, &ended, report))?;
        Ok(Self { shared, _alive })
    }

    /// True if it was not watched before. A path that is no directory is not watched; that is no error.
    pub(super) fn add(&mut self, dir: &Path) -> io::Result<bool> {
        let mut dirs = self.shared.dirs();
        if dirs.values().any(|known| known == dir) {
            return Ok(false);
        }
        match inotify::add_watch(&self.shared.inotify, dir, EVENTS) {
            // One directory can have two paths; the latest one counts.
            Ok(watch) => Ok(dirs.insert(watch, dir.to_path_buf()).is_none()),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn keep(&mut self, wanted: &HashSet<PathBuf>) {
        self.shared.dirs().retain(|watch, dir| {
            let keep = wanted.contains(dir);
            if !keep {
                let _ = inotify::remove_watch(&self.shared.inotify, *watch);
            }
            keep
        });
    }
}

fn watch(shared: &Shared, ended: &PipeReader, report: impl Fn(Seen)) {
    let mut room = [MaybeUninit::uninit(); BUFFER_BYTES];
    let mut events = Reader::new(&shared.inotify, &mut room);
    loop {
        let mut ready = [PollFd::new(&shared.inotify, PollFlags::IN), PollFd::new(ended, PollFlags::IN)];
        match poll(&mut ready, None) {
            Err(Errno::INTR) => continue,
            Ok(_) if ready[1].revents().is_empty() => {}
            _ => return,
        }
        loop {
            let event = match events.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => continue,
                Err(error) => {
                    return tracing::warn!(%error, "no more file events: files are looked at by the clock");
                }
            };
            let flags = event.events();
            if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                report(Seen::Missed);
            } else if flags.intersects(ReadFlags::IGNORED | ReadFlags::MOVE_SELF) {
                // The directory has left this path. Whatever is there now can be watched again.
                if shared.dirs().remove(&event.wd()).is_some() && flags.contains(ReadFlags::MOVE_SELF) {
                    let _ = inotify::remove_watch(&shared.inotify, event.wd());
                }
            } else if let Some(name) = event.file_name() {
                let dir = shared.dirs().get(&event.wd()).cloned();
                if let Some(dir) = dir {
                    report(Seen::Changed(dir.join(OsStr::from_bytes(name.to_bytes()))));
                }
            }
        }
    }
}
