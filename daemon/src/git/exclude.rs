//! Keeps this program's files out of commits by a line in the repository's own exclude file, which is never committed.

use std::{
    collections::HashSet,
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use super::fate::{self, Fate};
use crate::files::dir;

/// Makes git ignore everything in `dir`, whether or not it exists. Repeating it for a directory costs nothing.
///
/// # Errors
/// Why git would commit it anyway, and what to do, for people.
pub fn keep_out(dir: &Path) -> Result<(), String> {
    static KEPT: Mutex<Option<HashSet<PathBuf>>> = Mutex::new(None);
    let kept = || KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if kept().as_ref().is_some_and(|kept| kept.contains(dir)) {
        return Ok(());
    }
    let real = fate::followed(dir);
    // Git is asked only inside a repository.
    if fate::tree(&real.join("x")).is_some() {
        keep(&real)?;
    }
    kept().get_or_insert_default().insert(dir.to_owned());
    Ok(())
}

fn keep(dir: &Path) -> Result<(), String> {
    match fate::fate_below(dir) {
        Fate::Safe => return Ok(()),
        Fate::Taken { exclude, line } => {
            if let Err(error) = add(&exclude, &line) {
                tracing::warn!(file = %exclude.display(), %error, "a line that keeps traces out of commits cannot be added");
            }
        }
        // A `.gitignore` in the directory itself may outrank that rule, or help if git cannot be asked.
        Fate::Wanted { .. } | Fate::Unknown(_) => {}
    }
    // Only in a directory that belongs to this program alone.
    if dir.ends_with(OURS) {
        let made = dir::made(dir, 2).and_then(|dir| match dir.read(IGNORE, 1 << 16)? {
            None => Ok(dir.put(b"*\n", &dir, IGNORE)?),
            Some(_) => Ok(()),
        });
        made.map_err(|why| format!("{}: {why}", dir.join(IGNORE).display()))?;
    }
    match fate::fate_below(dir) {
        Fate::Safe => Ok(()),
        Fate::Unknown(why) => {
            tracing::warn!(dir = %dir.display(), why, "git cannot say whether it would commit traces");
            Ok(())
        }
        Fate::Wanted { .. } | Fate::Taken { .. } => Err(fate::objection_below(dir).unwrap_or_default()),
    }
}

/// The directory of MLflow's integration with Claude Code, below a project.
const OURS: &str = ".claude/mlflow";

const IGNORE: &str = ".gitignore";

/// Adds a line to a file that may be missing. Follows no link.
fn add(file: &Path, line: &str) -> io::Result<()> {
    let parts = file.parent().zip(file.file_name().and_then(|name| name.to_str()));
    let (parent, name) = parts.ok_or(io::ErrorKind::InvalidInput)?;
    let there = dir::made(parent, 1).map_err(io::Error::other)?;
    let known = there.read(name, 1 << 20).map_err(io::Error::other)?.unwrap_or_default();
    let begin = if known.is_empty() || known.ends_with(b"\n") { "" } else { "\n" };
    there.append(name, &format!("{begin}{line}\n"))
}
