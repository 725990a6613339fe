//! The log file: one line per change of state, never a secret, never a word of a conversation.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Mutex,
};

use tracing_subscriber::{EnvFilter, Registry, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt};

/// The log is rotated when it is larger than this; one predecessor is kept.
const MAX_SIZE: u64 = 5 << 20;

/// Lets the log become more talkative while it runs.
#[derive(Clone)]
pub struct Level(Option<reload::Handle<EnvFilter, Registry>>);

impl Level {
    /// For where nothing is logged.
    pub fn none() -> Self {
        Self(None)
    }

    /// Debug lines on, if `wanted`; they stay on.
    pub fn debug(&self, wanted: bool) {
        if wanted && let Some(handle) = &self.0 {
            let _ = handle.modify(|filter| {
                if filter.max_level_hint() != Some(tracing::level_filters::LevelFilter::DEBUG) {
                    *filter = filter_for(true);
                }
            });
        }
    }
}

/// Only this program's own lines: libraries would log addresses and headers.
fn filter_for(debug: bool) -> EnvFilter {
    EnvFilter::new(if debug {
        "off,cc_langfuse=debug,cc_langfused=debug"
    } else {
        "off,cc_langfuse=info,cc_langfused=info"
    })
}

/// Logs into `path` from now on.
///
/// # Errors
/// If the file cannot be opened.
pub fn start(path: &Path, debug: bool) -> io::Result<Level> {
    let file = Mutex::new(Rotating::open(path)?);
    let (filter, handle) = reload::Layer::new(filter_for(debug));
    let lines = fmt::layer().with_ansi(false).with_target(false).with_writer(file);
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
    Ok(Level(Some(handle)))
}

struct Rotating {
    path: PathBuf,
    file: File,
    size: u64,
}

impl Rotating {
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        Ok(Self { path: path.to_path_buf(), size: file.metadata()?.len(), file })
    }
}

impl Write for Rotating {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.size > MAX_SIZE {
            let mut before = self.path.as_os_str().to_owned();
            before.push(".1");
            std::fs::rename(&self.path, before)?;
            *self = Self::open(&self.path.clone())?;
        }
        let n = self.file.write(bytes)?;
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_rotated_once_it_is_large() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let mut log = Rotating::open(&path).unwrap();
        let line = vec![b'x'; 1 << 20];
        for _ in 0..7 {
            log.write_all(&line).unwrap();
        }
        let size = |path: &Path| std::fs::metadata(path).unwrap().len();
        assert_eq!((size(&path), size(&dir.path().join("x.log.1"))), (1 << 20, 6 << 20));
    }
}
