//! Checks of a directory in place of a server: whether it is writable, private, and ignored by git.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use rustix::fs::{Access, access};

use cc_core::{destination::Folder, doctor::Finding, settings::quoted};
use cc_langfuse::git::fate::{self as git, Fate};

const CHECK: &str = "store";

/// Checks it, and its parents if it does not exist yet. Writes nothing.
pub(super) fn examine(folder: &Folder) -> Vec<Finding> {
    let root = Path::new(&folder.root);
    let mut findings = vec![judge(root)];
    findings.extend(judge_git(folder));
    findings
}

fn judge(root: &Path) -> Finding {
    let shown = root.display();
    let there = root.ancestors().find(|dir| fs::symlink_metadata(dir).is_ok()).unwrap_or(Path::new("/"));
    let Ok(meta) = fs::symlink_metadata(there) else {
        return Finding::problem(CHECK, format!("{shown} cannot be read"), "make it a directory that you own");
    };
    let exists = there == root;
    // A link above the store is the user's own; the store itself is never one.
    if exists && !meta.is_dir() {
        let seen = format!("{shown} is a link or not a directory; nothing is written through a link");
        return Finding::problem(CHECK, seen, format!("remove {shown}"));
    }
    if access(there, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        let seen = format!("{} cannot be written to, where traces go to {shown}", there.display());
        return Finding::problem(CHECK, seen, format!("chmod u+wx {}", quoted(&there.display().to_string())));
    }
    if !exists {
        return Finding::ok(CHECK, format!("{shown} is created with the first trace"));
    }
    if meta.uid() != rustix::process::geteuid().as_raw() {
        let seen = format!("{shown} belongs to another user, who can read what is traced");
        return Finding::warning(CHECK, seen, "name a directory of your own in MLFLOW_TRACKING_URI");
    }
    // Without access to a parent directory, others can read nothing below it.
    let is_closed = |dir: &Path| fs::metadata(dir).is_ok_and(|meta| meta.mode() & 0o077 == 0);
    if !root.ancestors().any(is_closed) {
        let seen = format!("{shown} can be read by other users of this machine");
        return Finding::warning(CHECK, seen, format!("chmod -R go= {}", quoted(&shown.to_string())));
    }
    Finding::ok(CHECK, format!("{shown} is writable, and only for you"))
}

/// What git would do with a trace there; `None` outside of repositories.
fn judge_git(folder: &Folder) -> Option<Finding> {
    let shown = &folder.root;
    let dir = git::followed(&folder.private());
    git::tree(&dir.join("_"))?;
    Some(match git::fate_below(&dir) {
        Fate::Safe => Finding::ok(CHECK, format!("git ignores {shown}")),
        // The first trace adds the line to the exclude file.
        Fate::Taken { .. } if !Path::new(shown).exists() => Finding::ok(CHECK, format!("git will ignore {shown}")),
        Fate::Taken { exclude, line } => Finding::warning(
            CHECK,
            format!("`git add .` would add the conversations in {shown}"),
            format!("add the line {line} to {}", exclude.display()),
        ),
        Fate::Wanted { rule } => Finding::warning(
            CHECK,
            format!("`git add .` would add the conversations in {shown}, because of {rule}"),
            "remove that line",
        ),
        Fate::Unknown(why) => Finding::warning(
            CHECK,
            format!("git cannot say whether it ignores {shown}: {why}"),
            "repair that, then run this again",
        ),
    })
}
