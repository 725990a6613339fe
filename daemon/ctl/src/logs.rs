//! `logs`: shows and follows the daemon's log.

use std::{
    collections::VecDeque,
    fs::{File, Metadata},
    io::{self, Read, Seek},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::mpsc::{SyncSender, sync_channel},
    time::Duration,
};

use anyhow::{Context, bail};
use cc_langfuse::{
    files::{self, Refused, Rules},
    output::{self, Look},
};
use notify::Watcher;

use crate::client;

/// How often the file is read without a file event.
const RESCAN: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
#[command(after_help = "Examples:
  cc-langfusectl logs -n 200
  cc-langfusectl logs -f --level warn")]
pub(crate) struct Logs {
    /// Follow the log
    #[arg(short, long)]
    follow: bool,
    /// Show the last N lines
    #[arg(short = 'n', long, default_value_t = 50, value_name = "N")]
    lines: usize,
    /// Minimum level
    #[arg(long, value_enum)]
    level: Option<Level>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

impl Level {
    /// The level of a line; a line without one belongs to the line before it.
    fn of(line: &str) -> Option<Self> {
        match line.split_whitespace().nth(1)? {
            "DEBUG" => Some(Self::Debug),
            "INFO" => Some(Self::Info),
            "WARN" => Some(Self::Warn),
            "ERROR" => Some(Self::Error),
            _ => None,
        }
    }
}

impl Logs {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let path = client::paths()?.log;
        // Started before the first read, so that nothing is missed in between.
        let (sender, changed) = sync_channel(1);
        let _watcher = watch(&path, sender.clone());
        let Some(mut log) = Log::open(&path)? else {
            bail!("no log yet: {} appears when cc-langfused is first started", path.display());
        };
        let mut choice = Choice { least: self.level, shows: self.level.is_none() };
        let mut last = VecDeque::new();
        for line in log.earlier()?.into_iter().chain(log.news()?).filter(|line| choice.takes(line)) {
            if last.len() == self.lines {
                last.pop_front();
            }
            if self.lines > 0 {
                last.push_back(line);
            }
        }
        let mut shown = show(last);
        while shown && self.follow && output::is_read() {
            let _ = changed.recv_timeout(RESCAN);
            shown = show(log.news()?.into_iter().filter(|line| choice.takes(line)));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Selects lines.
struct Choice {
    least: Option<Level>,
    shows: bool,
}

impl Choice {
    fn takes(&mut self, line: &str) -> bool {
        if let (Some(least), Some(level)) = (self.least, Level::of(line)) {
            self.shows = level >= least;
        }
        self.shows
    }
}

/// Prints lines; false if the reader has closed the pipe.
fn show(lines: impl IntoIterator<Item = String>) -> bool {
    let look = |line: &str| match Level::of(line) {
        Some(Level::Error) => Look::Red,
        Some(Level::Warn) => Look::Yellow,
        Some(Level::Debug) => Look::Dim,
        Some(Level::Info) | None => Look::Plain,
    };
    lines.into_iter().try_for_each(|line| output::painted(look(&line), format_args!("{line}"))).is_ok()
}

/// Reports changes beside `path`: rotation replaces the file that is followed.
fn watch(path: &Path, changed: SyncSender<()>) -> notify::Result<notify::RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !matches!(event.kind, notify::EventKind::Access(_))) {
            let _ = changed.try_send(());
        }
    })?;
    watcher.watch(path.parent().unwrap_or(path), notify::RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// The log file, across rotations.
struct Log {
    path: PathBuf,
    file: File,
    read: u64,
    /// An incomplete line.
    rest: Vec<u8>,
}

impl Log {
    /// `None` if there is no log yet.
    fn open(path: &Path) -> anyhow::Result<Option<Self>> {
        match files::open(path, &Rules::users(u64::MAX)) {
            Ok(opened) => Ok(Some(Self { path: path.to_path_buf(), file: opened.file, read: 0, rest: Vec::new() })),
            Err(Refused::Missing) => Ok(None),
            Err(refused) => Err(refused).with_context(|| path.display().to_string()),
        }
    }

    /// The lines of the rotated file before it.
    fn earlier(&self) -> anyhow::Result<Vec<String>> {
        let mut before = self.path.as_os_str().to_owned();
        before.push(".1");
        match Self::open(Path::new(&before))? {
            // It was rotated just now and is the open one.
            Some(log) if is_same(&log.file.metadata()?, &self.file.metadata()?) => Ok(Vec::new()),
            Some(mut log) => Ok(log.appended()?),
            None => Ok(Vec::new()),
        }
    }

    /// The lines since the last call.
    fn news(&mut self) -> anyhow::Result<Vec<String>> {
        let mut lines = self.appended()?;
        while let Some(next) = Self::open(&self.path)?
            && !is_same(&next.file.metadata()?, &self.file.metadata()?)
        {
            // A rotated file is not written to any more.
            lines.extend(self.appended()?);
            *self = next;
            lines.extend(self.appended()?);
        }
        Ok(lines)
    }

    fn appended(&mut self) -> io::Result<Vec<String>> {
        if self.file.metadata()?.len() < self.read {
            // The file was truncated.
            self.file.rewind()?;
            self.read = 0;
            self.rest.clear();
        }
        self.read += self.file.read_to_end(&mut self.rest)? as u64;
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else { return Ok(Vec::new()) };
        let rest = self.rest.split_off(end + 1);
        let whole = std::mem::replace(&mut self.rest, rest);
        Ok(String::from_utf8_lossy(&whole).lines().map(str::to_owned).collect())
    }
}

fn is_same(a: &Metadata, b: &Metadata) -> bool {
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}
