//! Finds and removes traces in MLflow's file store. Touches only directories named after the requested traces, and none through
//! a link. A trace that cannot be removed completely is no longer a trace to MLflow.

use std::path::{Path, PathBuf};

use cc_core::{
    destination::mlflow::filestore::{self, INFO},
    ids::TraceId,
};

use super::folder::strict;
use crate::files::{
    Refused,
    dir::{self, Dir},
};

/// Maximum depth of directories below a trace's.
const MAX_DEPTH: usize = 8;

/// The directory of deleted experiments.
const TRASH: &str = ".trash";

/// The directory of a trace below `root`, an absolute path; `None` if there is none.
///
/// # Errors
/// [`Refused`].
pub fn find(root: &Path, trace: TraceId) -> Result<Option<PathBuf>, Refused> {
    let name = filestore::name(trace);
    for (place, traces) in places(root)? {
        if traces.below(&name)?.is_some() {
            return Ok(Some(root.join(place).join("traces").join(name)));
        }
    }
    Ok(None)
}

/// Removes the traces below `root`, an absolute path; returns how many there were.
///
/// # Errors
/// [`Refused`]; some may then be left.
pub fn erase(root: &Path, traces: &[TraceId]) -> Result<usize, Refused> {
    let mut gone = 0;
    for (_, place) in places(root)? {
        for trace in traces {
            let name = filestore::name(*trace);
            let Some(dir) = place.below(&name)? else { continue };
            // Without this file, MLflow ignores the directory, whatever happens to the rest.
            dir.remove(INFO)?;
            place.remove_all(&name, MAX_DEPTH)?;
            gone += 1;
        }
        place.sync()?;
    }
    Ok(gone)
}

/// The trace directories below `root`, by the path of their experiment, including deleted experiments.
fn places(root: &Path) -> Result<Vec<(PathBuf, Dir)>, Refused> {
    let mut found = Vec::new();
    let Some(store) = dir::there(root, strict(root))? else { return Ok(found) };
    let trash = store.below(TRASH)?.map(|trash| (PathBuf::from(TRASH), trash));
    for (above, dir) in [(PathBuf::new(), store)].into_iter().chain(trash) {
        for id in dir.names()?.into_iter().filter(|id| id.bytes().all(|b| b.is_ascii_digit())) {
            let experiment = match dir.below(&id) {
                Ok(Some(experiment)) => experiment,
                // Not made by the daemon.
                Ok(None) | Err(Refused::NotAFile) => continue,
                Err(refused) => return Err(refused),
            };
            match experiment.below("traces") {
                Ok(Some(traces)) => found.push((above.join(&id), traces)),
                Ok(None) | Err(Refused::NotAFile) => {}
                Err(refused) => return Err(refused),
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    const OURS: TraceId = [1; 16];
    const OTHER: TraceId = [2; 16];

    fn store(root: &Path) -> [PathBuf; 3] {
        let at = |place: &str, trace| root.join(place).join("traces").join(filestore::name(trace));
        let dirs = [at("0", OURS), at("0", OTHER), at(".trash/7", OURS)];
        for dir in &dirs {
            fs::create_dir_all(dir.join("artifacts/attachments")).unwrap();
            fs::write(dir.join(INFO), "x").unwrap();
            fs::write(dir.join("artifacts/attachments/a"), "x").unwrap();
        }
        dirs
    }

    #[test]
    fn erase_removes_exactly_the_requested_traces() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join(".claude/mlflow/runs");
        assert_eq!(erase(&root, &[OURS]).unwrap(), 0, "no store");
        let [ours, other, deleted] = store(&root);
        assert_eq!(find(&root, OURS).unwrap(), Some(ours.clone()));
        assert_eq!(erase(&root, &[OURS, [3; 16]]).unwrap(), 2);
        assert_eq!([ours.exists(), other.join(INFO).exists(), deleted.exists()], [false, true, false]);
        assert_eq!((find(&root, OURS).unwrap(), erase(&root, &[OURS]).unwrap()), (None, 0));
    }

    #[test]
    fn nothing_is_removed_through_a_link() {
        let base = tempfile::tempdir().unwrap();
        let trace = filestore::name(OURS);
        for at in [".claude", ".claude/mlflow/runs", ".claude/mlflow/runs/0", ".claude/mlflow/runs/0/traces"] {
            let project = tempfile::tempdir_in(&base).unwrap();
            let elsewhere = tempfile::tempdir_in(&base).unwrap();
            let [ours, ..] = store(&elsewhere.path().join("project/.claude/mlflow/runs"));
            let link = project.path().join(at);
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            symlink(elsewhere.path().join("project").join(at), &link).unwrap();
            let erased = erase(&project.path().join(".claude/mlflow/runs"), &[OURS]);
            assert!(!matches!(erased, Ok(1..)), "{at} {erased:?}");
            assert!(ours.join(INFO).exists(), "{at}");
        }
        // A link inside a trace is removed; its target stays.
        let root = base.path().join("own/.claude/mlflow/runs");
        let [ours, ..] = store(&root);
        let kept = base.path().join("kept");
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), "x").unwrap();
        symlink(&kept, ours.join("artifacts/link")).unwrap();
        assert_eq!(erase(&root, &[OURS]).unwrap(), 2);
        assert!(kept.join("file").exists() && !root.join("0/traces").join(&trace).exists());
        // A directory that is a link itself is refused.
        symlink(&kept, root.join("0/traces").join(&trace)).unwrap();
        assert!(matches!(erase(&root, &[OURS]), Err(Refused::NotAFile)));
        assert!(kept.join("file").exists());
    }
}
