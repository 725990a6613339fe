//! Keeps what holds a secret, or what was said, out of commits.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::files::{self, Change, Part, Record};
use cc_langfuse::{credentials::is_tracked, git::fate as git};

/// What keeps `file` and its copies, and a `store` of traces, out of commits, if git would take them.
///
/// # Errors
/// If nothing does, or that is not known.
pub(super) fn exclude(
    file: Option<&Path>,
    store: Option<&Path>,
    record: &Record,
    instead: &str,
) -> anyhow::Result<Option<Change>> {
    let (mut lines, mut path) = (Vec::new(), None);
    for (file, more) in secret_files(file)?.into_iter().zip(["", "*"]) {
        match git::fate(&file) {
            git::Fate::Safe => {}
            git::Fate::Taken { exclude, line } => {
                out!("git           would commit {}: a line in {} prevents it", file.display(), exclude.display());
                lines.push(line + more);
                path = Some(exclude);
            }
            git::Fate::Wanted { .. } | git::Fate::Unknown(_) => refuse(&file, instead)?,
        }
    }
    match store.map(git::fate_below) {
        Some(git::Fate::Taken { exclude, line }) => {
            out!("git           would commit {line}: a line in {} prevents it", exclude.display());
            lines.push(line);
            path = Some(exclude);
        }
        Some(git::Fate::Wanted { .. } | git::Fate::Unknown(_)) => refuse_store(store)?,
        Some(git::Fate::Safe) | None => {}
    }
    let Some(path) = path else { return Ok(None) };
    let path = files::real(&path)?;
    let current = files::read(&path)?;
    let original = record.original(&path, current.as_deref())?;
    let mut ours = match record.of(&path).map(|written| &written.part) {
        Some(Part::Lines(lines)) => lines.clone(),
        _ => Vec::new(),
    };
    ours.extend(lines);
    let mut new = original.clone().unwrap_or_default();
    if !new.is_empty() && !new.ends_with('\n') {
        new.push('\n');
    }
    new.extend(ours.iter().map(|line| format!("{line}\n")));
    let mode = files::mode(&path).unwrap_or(0o644);
    Ok(Some(Change { path, current, new: Some(new), mode, original, part: Part::Lines(ours) }))
}

/// Where a secret comes to lie: its file, a copy of that, and what they are for a moment while they are written.
pub(super) fn secret_files(file: Option<&Path>) -> anyhow::Result<Vec<PathBuf>> {
    let Some(file) = file else { return Ok(Vec::new()) };
    let name = file.file_name().context("no name")?.to_string_lossy();
    let beside = |more: &str| file.with_file_name(format!("{name}{}{more}", files::BACKUP));
    Ok(vec![file.to_owned(), beside(""), beside("-new")])
}

/// An error if git tracks `file`, or a link on the way there: what stands in it is the repository's choice, too.
pub(super) fn refuse_tracked(file: &Path, instead: &str) -> anyhow::Result<()> {
    if is_tracked(file) {
        bail!(
            "{} is tracked by git, so the secret key must not be written there: `git rm --cached` it, or {instead}",
            file.display(),
        );
    }
    Ok(())
}

/// An error if git would take `file`.
pub(super) fn refuse(file: &Path, instead: &str) -> anyhow::Result<()> {
    git::objection(file, instead).map_or(Ok(()), |why| Err(anyhow::Error::msg(why)))
}

/// An error if git would take what is in `store`.
pub(super) fn refuse_store(store: Option<&Path>) -> anyhow::Result<()> {
    store.and_then(git::objection_below).map_or(Ok(()), |why| Err(anyhow::Error::msg(why)))
}
