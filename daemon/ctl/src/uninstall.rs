//! `uninstall`: reverts what `setup` did, and nothing else.

use std::{
    collections::HashSet,
    io::Read,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail};

use crate::{
    client::{self, Client},
    detached, history,
    setup::{
        files::{self, Change, Part, Record, Written},
        plan, project_dir,
        service::Manager,
        usage,
    },
    ui::{diff::secrets_in, table, terminal},
};
use cc_core::settings::{Ours, registered, undo};
use cc_langfuse::{
    archive, clock,
    files::{Rules, open},
};
use proto::paths::Paths;

/// How long a daemon may take to exit.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// The page through which `view` gives the browser its address.
const PAGE: &str = "view.html";

/// The suffixes of a database's files.
const DATABASE: [&str; 4] = ["", "-wal", "-shm", "-journal"];

/// The first bytes of a database file.
const MAGIC: &[u8] = b"SQLite format 3\0";

/// What to take back.
#[derive(clap::Args)]
#[command(after_help = "\
Settings files that were not changed since are restored byte for byte; from others only what `setup` wrote is removed. The programs stay: remove them yourself.

Examples:
  cc-langfusectl uninstall
  cc-langfusectl uninstall --dry-run
  cc-langfusectl uninstall --yes --purge")]
pub(crate) struct Uninstall {
    /// Assume yes to every question
    #[arg(long, short)]
    yes: bool,
    /// Also remove the daemon's data and log: what was not delivered is lost
    #[arg(long)]
    purge: bool,
    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
}

impl Uninstall {
    /// Runs the whole removal.
    ///
    /// # Errors
    /// If something prevents it.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        if !self.yes && !self.dry_run && !terminal::is_there() {
            return Ok(usage("there is no terminal to ask on: add --yes or --dry-run"));
        }
        let (home, paths) = (client::home()?, client::paths()?);
        let _alone = files::alone(&home)?;
        let mut record = Record::load(&paths)?;
        let mut changes = Vec::new();
        let project = project_dir(&home)?.join(".claude");
        // Another project that was set up is no renamed one, and one directory stands for one record.
        let mut known: HashSet<PathBuf> = record.files.iter().map(|written| written.path.clone()).collect();
        for written in &mut record.files {
            if let Some(moved) = moved(written, &project).filter(|moved| known.insert(moved.path.clone())) {
                out!("moved         {} is now {}", written.path.display(), moved.path.display());
                record.dirs.extend(moved.path.parent().map(Path::to_path_buf));
                *written = moved;
            }
        }
        // What cannot be taken back now stays in the record.
        let (mut left, mut code) = (Vec::new(), ExitCode::SUCCESS);
        for written in record.files.iter().rev() {
            let is_gone = matches!(written.part, Part::Settings(_)) && !written.path.exists();
            match change_of(written) {
                _ if is_gone && self.purge => {
                    out!(
                        "not found     {}: if its project was renamed, hook and keys are still in it: remove them by hand",
                        written.path.display()
                    );
                }
                _ if is_gone => {
                    out!(
                        "not found     {}: if its project was renamed, hook and keys are still in it: run this again in its new \
                            directory. If it is gone, --purge forgets it",
                        written.path.display()
                    );
                    left.push(written.clone());
                    code = ExitCode::FAILURE;
                }
                Ok(change) => changes.extend(change),
                Err(why) => {
                    out!("left          {why:#}");
                    left.push(written.clone());
                    code = ExitCode::FAILURE;
                }
            }
        }
        record.files.retain(|written| !left.contains(written));
        // What setup found elsewhere and left is not setup's.
        if record == Record::default() && left.is_empty() {
            let user = client::user_dir(&home).join("settings.json");
            for file in [user, project.join("settings.local.json"), project.join("settings.json")] {
                match unknown(&file) {
                    Ok(found) => {
                        changes.extend(found.filter(|new| changes.iter().all(|change| change.path != new.path)))
                    }
                    // Nothing of this program can be seen in it.
                    Err(why) => out!("left          {why:#}"),
                }
            }
        }
        let manager = record.service.as_deref().and_then(Manager::named);
        match self.dry_run {
            true => plan::show_whole(&changes),
            false => plan::show_undone(&changes, &home),
        }
        let data = self.purge && (paths.state.exists() || paths.log.exists());
        if changes.is_empty() && record == Record::default() && !data {
            out!("nothing to undo");
            return Ok(code);
        }
        if manager.is_some() {
            out!("stop          the service, which is then no longer started");
        }
        // Nothing else would ever end it; projects that are left still need it.
        let is_alone = manager.is_none() && left.is_empty() && record != Record::default();
        let pid = Client::at(&paths).pid().ok().filter(|_| is_alone && !data);
        if let Some(pid) = pid {
            out!("stop          the daemon, pid {pid}");
        }
        if data {
            out!("remove        {}, with everything that is not delivered yet", table::path(&paths.state, &home));
        }
        if self.dry_run {
            out!("dry run: nothing was changed");
            return Ok(code);
        }
        if !self.yes && !plan::agrees(&mut changes, &home, |changes, _| plan::show_whole(changes), None)? {
            out!("nothing was changed");
            return Ok(ExitCode::from(1));
        }
        // The service is determined by its files.
        if let Some(manager) = manager {
            manager.stop(&home);
        }
        changes.iter().filter(|change| record.of(&change.path).is_none()).try_for_each(Change::make)?;
        while let Some(written) = record.files.pop() {
            changes.iter().filter(|change| change.path == written.path).try_for_each(Change::make)?;
            // Before the copy, without which all that is there would be taken for ours.
            record.files.extend(left.iter().cloned());
            record.save(&paths)?;
            record.files.truncate(record.files.len() - left.len());
            written.backup.as_deref().map_or(Ok(()), files::remove)?;
        }
        record.service = None;
        record.files = left;
        record.save(&paths)?;
        if let Some(manager) = manager {
            manager.forget();
        }
        if pid.is_some() {
            detached::end(&paths)?;
        }
        if data {
            purge(&paths)?;
        }
        // Directories that others use by now are kept.
        for dir in record.dirs.iter().rev() {
            let _ = std::fs::remove_dir(dir);
        }
        out!("done");
        if !data && paths.database.exists() {
            out!("data          kept in {}; --purge removes it", paths.state.display());
        }
        if !data && Client::at(&paths).answers() {
            out!("daemon        still running: cc-langfusectl stop");
        }
        Ok(code)
    }
}

/// What is to become of a file that was changed; `None` if nothing.
///
/// # Errors
/// If the file is not what it should be.
fn change_of(written: &Written) -> anyhow::Result<Option<Change>> {
    let current = files::read(&written.path)?;
    let new = written.original(current.as_deref())?;
    let (mode, part) = (written.mode.unwrap_or(0o600), written.part.clone());
    let is_new = new != current;
    Ok(is_new.then(|| Change { path: written.path.clone(), current, original: new.clone(), new, mode, part }))
}

/// The settings file that `written` is now, if its project is the one with the directory `dir` by now: it is missing where it was, and
/// the one here has the hook.
fn moved(written: &Written, dir: &Path) -> Option<Written> {
    if !matches!(written.part, Part::Settings(_)) || written.path.exists() {
        return None;
    }
    let path = files::real(&dir.join(written.path.file_name()?)).ok()?;
    let text = files::read(&path).ok()??;
    let has_hook = registered(&text).is_ok_and(|ours| !ours.events.is_empty());
    // The copy of what it was lies beside it.
    let backup = written.backup.as_ref().and_then(|backup| Some(path.with_file_name(backup.file_name()?)));
    has_hook.then(|| Written { path, backup, ..written.clone() })
}

/// Registrations of the hook in a settings file that stand in no record.
fn unknown(file: &Path) -> anyhow::Result<Option<Change>> {
    let Ok(path) = files::real(file) else { return Ok(None) };
    let Some(current) = files::read(&path)? else { return Ok(None) };
    let ours = registered(&current).with_context(|| path.display().to_string())?;
    if ours == Ours::default() {
        return Ok(None);
    }
    if !secrets_in(&current).is_empty() {
        out!("keys          stay in {}: remove them from its env by hand", path.display());
    }
    let new = undo(&current, None, &ours)?.unwrap_or_else(|| "{}\n".to_owned());
    let mode = files::mode(&path).unwrap_or(0o600);
    let part = Part::Settings(ours);
    Ok(Some(Change { path, current: Some(current), original: Some(new.clone()), new: Some(new), mode, part }))
}

/// Removes the daemon's data once no daemon runs.
fn purge(paths: &Paths) -> anyhow::Result<()> {
    match Client::at(paths).pid() {
        Ok(pid) => {
            let pid = rustix::process::Pid::from_raw(pid).context("the daemon does not report its process id")?;
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        }
        // It runs, and must not lose its data.
        Err(error) if error.is::<serde_json::Error>() => return Err(error),
        Err(_) => {}
    }
    let deadline = clock::monotonic() + STOP_TIMEOUT;
    while !client::is_free(paths) {
        if clock::monotonic() > deadline {
            bail!("the daemon does not stop: end it, then run this again");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut rotated = paths.log.clone().into_os_string();
    rotated.push(".1");
    files::remove(&paths.log)?;
    files::remove(&PathBuf::from(rotated))?;
    files::remove(&paths.socket)?;
    for path in data(paths) {
        files::remove(&path)?;
        // Directories that are only for this program; others may contain something else.
        if let Some(dir) = path.parent().filter(|dir| *dir != paths.state) {
            let _ = std::fs::remove_dir(dir);
        }
    }
    let _ = std::fs::remove_dir(&paths.spool);
    match std::fs::remove_dir_all(paths.state.join(archive::DIRECTORY)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).context("the archive of transcripts cannot be removed");
        }
        _ => {}
    }
    if paths.state.exists() && std::fs::remove_dir(&paths.state).is_err() {
        out!("data          {} stays: it holds other files", paths.state.display());
    }
    Ok(())
}

/// The files of hooks, daemon and `setup` in the daemon's directory, where others may have put files too;
/// the lock last.
fn data(paths: &Paths) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for (name, path) in entries(&paths.state) {
        match name.strip_prefix("corrupt-") {
            Some(stamp) if is_number(stamp, 10) && path.is_dir() => {
                found.extend(entries(&path).filter(|(name, _)| is_database(name)).map(|(_, path)| path));
            }
            _ if is_database(&name) || name == PAGE || is_record(&name) || is_copy(&name, &path) => found.push(path),
            _ => {}
        }
    }
    found.extend(entries(&paths.spool).filter(|(name, _)| is_event(name)).map(|(_, path)| path));
    // Some of these rarely exist.
    for file in [&paths.begun, &paths.opening] {
        found.extend([file.clone(), file.with_extension("part")]);
    }
    found.extend([paths.evicted.clone(), paths.lock.clone()]);
    found
}

/// Names and paths of the files in `dir`; names that are not UTF-8 are not this program's.
fn entries(dir: &Path) -> impl Iterator<Item = (String, PathBuf)> + use<> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
}

/// The database, one that was salvaged from a damaged one, or the index of `usage` and `view`.
fn is_database(name: &str) -> bool {
    let state = name.strip_prefix("state.db").map(|rest| rest.strip_prefix(".new").unwrap_or(rest));
    let rest = state.or_else(|| name.strip_prefix(history::INDEX));
    rest.is_some_and(|rest| DATABASE.contains(&rest))
}

/// The record of `setup`, or its temporary file.
fn is_record(name: &str) -> bool {
    let part = name.strip_prefix("setup.json").map(|rest| rest.strip_prefix(files::BACKUP).unwrap_or(rest));
    part.is_some_and(|rest| {
        rest.is_empty() && name == "setup.json"
            || rest
                .strip_prefix('-')
                .is_some_and(|random| random.len() == 6 && random.bytes().all(|b| b.is_ascii_alphanumeric()))
    })
}

/// The database from before an upgrade: `state.v2.bak`.
fn is_copy(name: &str, path: &Path) -> bool {
    let version = name.strip_prefix("state.v").and_then(|rest| rest.strip_suffix(".bak"));
    let mut start = [0; MAGIC.len()];
    version.is_some_and(|version| is_number(version, 10))
        && open(path, &Rules::users(u64::MAX)).is_ok_and(|mut opened| opened.file.read_exact(&mut start).is_ok())
        && start == MAGIC
}

/// An event that a hook left, complete or not: time and process in hexadecimal.
fn is_event(name: &str) -> bool {
    let id = name.strip_suffix(".event").or_else(|| name.strip_suffix(".part"));
    id.and_then(|id| id.split_once('-')).is_some_and(|(time, process)| is_number(time, 16) && is_number(process, 16))
}

fn is_number(text: &str, radix: u32) -> bool {
    !text.is_empty() && text.chars().all(|digit| digit.is_digit(radix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_ours_by_its_whole_name() {
        for (name, record, event) in [
            ("setup.json", true, false),
            ("setup.json.before-cc-langfuse-aB3dE9", true, false),
            ("setup.json.before-cc-langfuse", false, false),
            ("setup.json.before-cc-langfuse-notes1234", false, false),
            ("setup.json-aB3dE9.bak", false, false),
            ("setup.jsonl", false, false),
            ("18a2f-3e.event", false, true),
            ("18a2f-3e.part", false, true),
            ("18a2f.event", false, false),
            ("my-own.event", false, false),
            ("-.event", false, false),
            ("readme", false, false),
        ] {
            assert_eq!((is_record(name), is_event(name)), (record, event), "{name}");
        }
        for (name, expect) in [
            ("state.db", true),
            ("state.db-wal", true),
            ("state.db.new-journal", true),
            ("state.db.backup", false),
            ("state.db-old", false),
            ("state.dbx", false),
        ] {
            assert_eq!(is_database(name), expect, "{name}");
        }
    }
}
