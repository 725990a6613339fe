//! What git would do with a file.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, bail};

use crate::programs;

/// How long git may think about one file.
const PATIENCE: Duration = Duration::from_secs(20);

/// What becomes of a file that git does not track yet.
#[derive(Debug, PartialEq, Eq)]
pub enum Fate {
    /// No repository is around it, or it ignores the file.
    Safe,
    /// `git add .` would take it. This line in this file, which is part of no commit, prevents that.
    Taken { exclude: PathBuf, line: String },
    /// Git cannot be asked.
    Unknown(String),
}

/// The working tree around `file`.
pub fn tree(file: &Path) -> Option<&Path> {
    file.ancestors().skip(1).find(|dir| dir.join(".git").exists())
}

/// What becomes of `file`, which is absolute and need not exist.
pub fn fate(file: &Path) -> Fate {
    let Some(tree) = tree(file) else { return Fate::Safe };
    asked(tree, file).unwrap_or_else(|why| Fate::Unknown(format!("{why:#}")))
}

fn asked(tree: &Path, file: &Path) -> anyhow::Result<Fate> {
    let name = file.strip_prefix(tree)?.to_str().context("not UTF-8")?;
    let said = git(tree, &["check-ignore", "-q", "--", name])?;
    match said.status.code() {
        Some(0) => return Ok(Fate::Safe),
        Some(1) => {}
        _ => bail!("{}", said.err.trim()),
    }
    let said = git(tree, &["rev-parse", "--git-path", "info/exclude"])?;
    if !said.status.success() {
        bail!("{}", said.err.trim());
    }
    let exclude = tree.join(said.out.trim_end_matches('\n'));
    let special = |c: char| r"\*?[".contains(c) || c == ' ';
    let escaped: String = name.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect();
    Ok(Fate::Taken { exclude, line: format!("/{escaped}") })
}

fn git(tree: &Path, args: &[&str]) -> anyhow::Result<programs::Said> {
    let git = programs::on_path("git").context("git is not on PATH")?;
    let mut command = Command::new(git);
    // Nothing that the repository names is to be run.
    command.arg("-C").arg(tree).args(["-c", "core.fsmonitor=false"]).args(args);
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX"] {
        command.env_remove(name);
    }
    Ok(programs::run(command, PATIENCE)?)
}
