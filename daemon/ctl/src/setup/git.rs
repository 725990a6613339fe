//! What git would do with a file.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, bail};

use super::files;
use crate::programs;
use cc_langfuse::environment;

/// How long git may think about one file.
const TIME_LIMIT: Duration = Duration::from_secs(20);

/// What directs git to a repository that lies elsewhere.
const REPOSITORY_VARIABLES: [&str; 2] = ["GIT_DIR", "GIT_WORK_TREE"];

/// What would have it answer for another index or from another place.
const INDEX_VARIABLES: [&str; 4] = ["GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX", "GIT_CEILING_DIRECTORIES"];

/// What becomes of a file that git does not track yet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// No repository has it in its working tree, or the one that has ignores it.
    Safe,
    /// `git add .` would take it. This line in this file, which is part of no commit, prevents that.
    Taken { exclude: PathBuf, line: String },
    /// `git add .` would take it, and the rule that says so, as `file:line:pattern`, outranks such a line.
    Wanted { rule: String },
    /// Git cannot be asked.
    Unknown(String),
}

/// The working tree around `file`.
pub(crate) fn tree(file: &Path) -> Option<&Path> {
    file.ancestors().skip(1).find(|dir| dir.join(".git").exists())
}

/// What becomes of `file`, which is absolute, without links, and need not exist: in the repository around it, and in one that
/// this program's environment names.
pub(crate) fn fate(file: &Path) -> Fate {
    let around = tree(file).map(|_| false);
    let named = REPOSITORY_VARIABLES.iter().any(|name| environment::raw(name).is_some()).then_some(true);
    let fates = around.into_iter().chain(named).map(|named| Repository { file, named }.fate());
    fates.into_iter().find(|fate| *fate != Fate::Safe).unwrap_or(Fate::Safe)
}

/// The repository that is asked about a file.
struct Repository<'a> {
    file: &'a Path,
    /// It is the one that the environment names, not the one around the file.
    named: bool,
}

impl Repository<'_> {
    fn fate(&self) -> Fate {
        self.asked().unwrap_or_else(|why| Fate::Unknown(format!("{why:#}")))
    }

    fn asked(&self) -> anyhow::Result<Fate> {
        let dir = self.file.ancestors().skip(1).find(|dir| dir.is_dir()).context("no directory")?;
        let top = self.path(dir, &["rev-parse", "--show-toplevel"])?;
        // A repository whose working tree is elsewhere takes nothing from here.
        let Ok(name) = self.file.strip_prefix(&top) else { return Ok(Fate::Safe) };
        let (name, file) = (name.to_str().context("not UTF-8")?, self.file.to_str().context("not UTF-8")?);
        // From here, not from the top: that may be another repository's, or in none.
        let said = self.git(dir, &["check-ignore", "-q", "--", file])?;
        match said.status.code() {
            Some(0) => return Ok(Fate::Safe),
            Some(1) => {}
            _ => bail!("{}", said.err.trim()),
        }
        if let Some(rule) = self.rule(dir, file)?.filter(|rule| rule.outranks()) {
            return Ok(Fate::Wanted { rule: rule.text });
        }
        let exclude = files::real(&self.path(dir, &["rev-parse", "--git-path", "info/exclude"])?)?;
        let special = |c: char| r"\*?[".contains(c) || c == ' ';
        let escaped: String = name.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect();
        Ok(Fate::Taken { exclude, line: format!("/{escaped}") })
    }

    /// The rule that decides about `file`, if there is one.
    fn rule(&self, dir: &Path, file: &str) -> anyhow::Result<Option<Rule>> {
        let said = self.git(dir, &["check-ignore", "-v", "--no-index", "--", file])?;
        Ok(said
            .out
            .lines()
            .next()
            .and_then(|line| line.rsplit_once('\t'))
            .map(|(rule, _)| Rule { text: rule.to_owned() }))
    }

    /// A path that git says, as seen from `dir`.
    fn path(&self, dir: &Path, args: &[&str]) -> anyhow::Result<PathBuf> {
        let said = self.git(dir, args)?;
        if !said.status.success() {
            bail!("{}", said.err.trim());
        }
        Ok(dir.join(said.out.trim_end_matches('\n')))
    }

    fn git(&self, dir: &Path, args: &[&str]) -> anyhow::Result<programs::Said> {
        let git = programs::on_path("git").context("git is not on PATH")?;
        let mut command = Command::new(git);
        // Nothing that the repository names is to be run.
        command.arg("-C").arg(dir).args(["-c", "core.fsmonitor=false", "-c", "core.quotePath=false"]).args(args);
        let without = if self.named { &[][..] } else { &REPOSITORY_VARIABLES };
        without.iter().chain(&INDEX_VARIABLES).for_each(|name| {
            command.env_remove(name);
        });
        Ok(programs::run(command, TIME_LIMIT)?)
    }
}

/// A line of an ignore file, as `file:line:pattern`.
struct Rule {
    text: String,
}

impl Rule {
    /// True if it wants a file, and stands in the working tree: those of a repository's own `info/exclude` and of the user's
    /// file come after what is written there.
    fn outranks(&self) -> bool {
        let parts: Vec<&str> = self.text.splitn(3, ':').collect();
        let [file, _, pattern] = parts[..] else { return false };
        pattern.starts_with('!') && file.ends_with(".gitignore") && !Path::new(file).is_absolute()
    }
}

/// Why a secret must not be written to `file`, and what to do instead; `None` if git does not take it.
pub(super) fn objection(file: &Path, instead: &str) -> Option<String> {
    let why = match fate(file) {
        Fate::Safe => return None,
        Fate::Wanted { rule } => format!("git would commit it: {rule} outranks .git/info/exclude; remove that line"),
        Fate::Taken { exclude, .. } => format!("git would commit it in spite of {}", exclude.display()),
        Fate::Unknown(why) => format!("git cannot say whether it would commit it ({why}); repair that"),
    };
    Some(format!("the secret key must not be written to {}: {why}, or {instead}", file.display()))
}
