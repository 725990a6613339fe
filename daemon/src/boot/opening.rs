//! Opens the database. If that takes longer than a moment, the log says why, and a file says it to `cc-langfusectl`, because
//! nothing is served before the database is open.

use std::{
    fs::OpenOptions,
    io::{ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;

use crate::{
    clock,
    store::{Opened, Stage, Store, copy_of},
};
use proto::paths::Paths;

/// How often that file is updated.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// How often the log is.
const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// How soon opening is tried again if the disk is full or read-only.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Opens the database; waits while the disk is full or read-only. True if rows may have been lost.
pub(super) fn open_database(paths: &Paths) -> anyhow::Result<(Store, bool)> {
    let path = &paths.database;
    let mut said = None;
    loop {
        match open(paths) {
            Ok(Opened { store, damaged, made, again }) => {
                let _ = std::fs::remove_file(&paths.opening);
                if let Some(aside) = &damaged {
                    tracing::error!(moved_to = %aside.display(), "the database was damaged");
                }
                if again {
                    tracing::warn!("all known transcripts are read again; what was delivered is not sent again");
                }
                return Ok((store, made || damaged.is_some()));
            }
            Err(error) if error.is_passing() => {
                let why = format!("{error:#}");
                say(&paths.opening, &format!("its database cannot be opened yet: {why}"));
                // Once for each kind of reason: the free space in the text changes.
                if said.replace(std::mem::discriminant(&error)) != Some(std::mem::discriminant(&error)) {
                    tracing::error!(database = %path.display(), "cannot be written, waiting until it can: {why}");
                }
                thread::sleep(RETRY_INTERVAL);
            }
            Err(error) => {
                let _ = std::fs::remove_file(&paths.opening);
                return Err(error).with_context(|| format!("the database {}", path.display()));
            }
        }
    }
}

fn open(paths: &Paths) -> Result<Opened, crate::store::Error> {
    let stage = Mutex::new(Stage::Checking);
    let (opening, is_open) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(|| watch(paths, &stage, is_open));
        let opened =
            Store::open_saying(&paths.database, &|now| *stage.lock().unwrap_or_else(PoisonError::into_inner) = now);
        drop(opening);
        opened
    })
}

/// Reports the progress until the database is open.
fn watch(paths: &Paths, stage: &Mutex<Stage>, is_open: mpsc::Receiver<()>) {
    let mut logged: Option<Instant> = None;
    while is_open.recv_timeout(PROGRESS_INTERVAL) == Err(mpsc::RecvTimeoutError::Timeout) {
        let stage = *stage.lock().unwrap_or_else(PoisonError::into_inner);
        let length = |path: &Path| std::fs::metadata(path).map_or(0, |meta| meta.len());
        let made = match stage {
            Stage::Checking => 0,
            Stage::Copying(version) => length(&copy_of(&paths.database, version)),
            Stage::Changing => length(&paths.database.with_extension("db-wal")),
        };
        let text = text(stage, length(&paths.database), made);
        say(&paths.opening, &text);
        if logged.is_none_or(|logged| clock::monotonic() >= logged + LOG_INTERVAL) {
            tracing::info!("the daemon starts: {text}");
            logged = Some(clock::monotonic());
        }
    }
}

/// What is being done to a database of `size` bytes, of which `made` are written.
fn text(stage: Stage, size: u64, made: u64) -> String {
    let mb = |bytes: u64| bytes / 1_000_000;
    match stage {
        Stage::Checking => format!("its database of {} MB is looked through for damage", mb(size)),
        Stage::Copying(_) => {
            let share = (made.saturating_mul(100) / size.max(1)).min(99);
            format!("its database of {} MB is copied before it is changed for this version, {share} % done", mb(size))
        }
        Stage::Changing => {
            format!("its database of {} MB is changed for this version, {} MB written", mb(size), mb(made))
        }
    }
}

/// Writes a text for `cc-langfusectl`, after the id of this process.
fn say(opening: &Path, text: &str) {
    let part = opening.with_extension("part");
    let write = || {
        std::fs::remove_file(&part).or_else(|error| match error.kind() {
            ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })?;
        #[expect(
            clippy::disallowed_methods,
            reason = "the state directory is the user's alone, and the file is a new one"
        )]
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
        write!(file, "{}\n{text}\n", std::process::id())?;
        std::fs::rename(&part, opening)
    };
    let _ = write();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_how_far_it_is() {
        let mb = 1_000_000;
        for (stage, size, made, expect) in [
            (Stage::Checking, 700 * mb, 0, "its database of 700 MB is looked through for damage"),
            (
                Stage::Copying(3),
                700 * mb,
                350 * mb,
                "its database of 700 MB is copied before it is changed for this version, 50 % done",
            ),
            (Stage::Copying(3), 0, 0, "its database of 0 MB is copied before it is changed for this version, 0 % done"),
            (
                Stage::Copying(3),
                mb,
                9 * mb,
                "its database of 1 MB is copied before it is changed for this version, 99 % done",
            ),
            (Stage::Changing, 700 * mb, 20 * mb, "its database of 700 MB is changed for this version, 20 MB written"),
        ] {
            assert_eq!(text(stage, size, made), expect);
        }
    }
}
