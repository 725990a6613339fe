//! The log file: one line per change of state, never a secret, never text of a conversation.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Mutex,
};

use tracing_subscriber::{EnvFilter, Registry, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt};

use cc_core::visible;

/// The log is rotated when it is larger than this; one predecessor is kept.
const MAX_SIZE: u64 = 5 << 20;

/// The longest line in characters; the rest is cut.
const MAX_LINE_CHARS: usize = 8192;

/// Makes the log more detailed while the daemon runs.
#[derive(Clone)]
pub struct Level(Option<reload::Handle<EnvFilter, Registry>>);

impl Level {
    /// For programs that log nothing.
    pub fn none() -> Self {
        Self(None)
    }

    /// Turns debug lines on if `wanted`; they stay on.
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
    let lines = fmt::layer().with_ansi(false).with_target(false).log_internal_errors(false).with_writer(file);
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
        #[expect(clippy::disallowed_methods, reason = "in the state directory, where only we write")]
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
        // The subscriber writes each event, including its final line break, in one call. Any other line break
        // came with a value.
        let event = String::from_utf8_lossy(bytes);
        let mut line = visible::clipped(event.strip_suffix('\n').unwrap_or(&event), MAX_LINE_CHARS);
        line.push('\n');
        self.file.write_all(line.as_bytes())?;
        self.size += line.len() as u64;
        Ok(bytes.len())
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
        let line = vec![b'x'; 1 << 13];
        for _ in 0..(MAX_SIZE >> 13) + 3 {
            log.write_all(&line).unwrap();
        }
        let size = |path: &Path| std::fs::metadata(path).unwrap().len();
        let one = line.len() as u64 + 1;
        let before = size(&dir.path().join("x.log.1"));
        assert!(before > MAX_SIZE && before <= MAX_SIZE + one, "{before}");
        assert_eq!(size(&path), ((MAX_SIZE >> 13) + 3) * one - before);
    }

    #[test]
    fn an_event_is_one_line_whatever_its_values_are() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let mut log = Rotating::open(&path).unwrap();
        log.write_all("a session=\"x\n2026 ERROR forged\x1b]0;t\x07\u{9b}2J\u{202e}\r\"\n".as_bytes()).unwrap();
        log.write_all(&[&b"b"[..], &vec![b'y'; 1 << 20], b"\n"].concat()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let [first, second] = lines[..] else { panic!("{}", lines.len()) };
        assert_eq!(first, r#"a session="x\n2026 ERROR forged\u{1b}]0;t\u{7}\u{9b}2J\u{202e}\r""#);
        assert_eq!((second.chars().count(), second.ends_with('…')), (MAX_LINE_CHARS, true));
    }
}
