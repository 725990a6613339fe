//! What git would do with a file, or with everything in a directory.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, bail};

use crate::{
    command, environment,
    files::{self, Rules},
};

/// How long git may take for one file.
const TIME_LIMIT: Duration = Duration::from_secs(20);

/// Largest file of rules that is read, in bytes.
const LARGEST: u64 = 1 << 20;

/// Variables that lead git to a repository elsewhere.
const REPOSITORY_VARIABLES: [&str; 2] = ["GIT_DIR", "GIT_WORK_TREE"];

/// Variables that would make git answer for another index or another place.
const INDEX_VARIABLES: [&str; 4] = ["GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX", "GIT_CEILING_DIRECTORIES"];

/// What git would do with an untracked file.
#[derive(Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is in no repository's working tree, or ignored there.
    Safe,
    /// `git add .` would add it. This line in this file, which is never committed, prevents that.
    Taken { exclude: PathBuf, line: String },
    /// `git add .` would add it, because this rule, as `file:line:pattern`, outranks such a line.
    Wanted { rule: String },
    /// Git cannot be asked.
    Unknown(String),
}

/// The working tree around `file`.
pub fn tree(file: &Path) -> Option<&Path> {
    file.ancestors().skip(1).find(|dir| dir.join(".git").exists())
}

/// What git would do with `file`, which is absolute, without links, and need not exist: in the repository around it,
/// and in the one that this program's environment names.
pub fn fate(file: &Path) -> Fate {
    ask(file, None)
}

/// The same for all files in `dir`. The line that prevents it names the whole directory.
pub fn fate_below(dir: &Path) -> Fate {
    // No rule is about just this name.
    ask(&dir.join("_"), Some(dir))
}

/// `path` with its links resolved, as far as it exists.
pub fn followed(path: &Path) -> PathBuf {
    let there = path.ancestors().find_map(|dir| Some((dir, dir.canonicalize().ok()?)));
    there.map_or_else(
        || path.to_owned(),
        |(dir, real)| match path.strip_prefix(dir) {
            Ok(rest) if !rest.as_os_str().is_empty() => real.join(rest),
            _ => real,
        },
    )
}

fn ask(file: &Path, whole: Option<&Path>) -> Fate {
    let around = tree(file).map(|_| false);
    let named = REPOSITORY_VARIABLES.iter().any(|name| environment::raw(name).is_some()).then_some(true);
    let fates = around.into_iter().chain(named).map(|named| Repository { file, whole, named }.fate());
    fates.into_iter().find(|fate| *fate != Fate::Safe).unwrap_or(Fate::Safe)
}

/// The repository that is asked about a file.
struct Repository<'a> {
    file: &'a Path,
    /// The directory that the line names in place of the file.
    whole: Option<&'a Path>,
    /// The environment names this repository; it is not the one around the file.
    named: bool,
}

impl Repository<'_> {
    fn fate(&self) -> Fate {
        self.asked().unwrap_or_else(|why| Fate::Unknown(format!("{why:#}")))
    }

    fn asked(&self) -> anyhow::Result<Fate> {
        let dir = self.file.ancestors().skip(1).find(|dir| dir.is_dir()).context("no directory")?;
        let top = self.path(dir, &["rev-parse", "--show-toplevel"])?;
        // A repository whose working tree is elsewhere contains nothing from here.
        if !self.file.starts_with(&top) {
            return Ok(Fate::Safe);
        }
        let file = self.file.to_str().context("not UTF-8")?;
        // From this directory, not from the top, which may belong to another repository or to none.
        let said = self.git(dir, &["check-ignore", "-q", "--", file])?;
        match said.status.code() {
            Some(0) => return Ok(Fate::Safe),
            Some(1) => {}
            _ => bail!("{}", said.err.trim()),
        }
        if let Some(rule) = self.rule(dir, file)?.filter(|rule| rule.outranks()) {
            return Ok(Fate::Wanted { rule: rule.text });
        }
        let exclude = self.path(dir, &["rev-parse", "--git-path", "info/exclude"])?;
        let name = self.whole.unwrap_or(self.file).strip_prefix(&top)?.to_str().context("not UTF-8")?;
        let end = if self.whole.is_some() { "/" } else { "" };
        if name.is_empty() {
            bail!("{} is a whole repository: name a directory below it", top.display());
        }
        if name.contains(char::is_control) {
            bail!("no line can name {}", name.escape_debug());
        }
        let special = |c: char| r"\*?[".contains(c) || c == ' ';
        let escaped: String = name.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect();
        Ok(Fate::Taken { exclude, line: format!("/{escaped}{end}") })
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

    /// A path that git returns, as seen from `dir`.
    fn path(&self, dir: &Path, args: &[&str]) -> anyhow::Result<PathBuf> {
        let said = self.git(dir, args)?;
        if !said.status.success() {
            bail!("{}", said.err.trim());
        }
        Ok(dir.join(said.out.trim_end_matches('\n')))
    }

    fn git(&self, dir: &Path, args: &[&str]) -> anyhow::Result<command::Said> {
        let git = command::on_path("git").context("git is not on PATH")?;
        let mut command = Command::new(git);
        // Nothing that the repository configures may run: no file system monitor, and no download of missing objects.
        let harmless = ["core.fsmonitor=false", "protocol.allow=never", "core.quotePath=false"];
        command.arg("-C").arg(dir).args(harmless.iter().flat_map(|setting| ["-c", setting])).args(args);
        command.env("GIT_NO_LAZY_FETCH", "1").env("GIT_OPTIONAL_LOCKS", "0").env("GIT_TERMINAL_PROMPT", "0");
        let without = if self.named { &[][..] } else { &REPOSITORY_VARIABLES };
        without.iter().chain(&INDEX_VARIABLES).for_each(|name| {
            command.env_remove(name);
        });
        Ok(command::run(command, TIME_LIMIT)?)
    }
}

/// A line of an ignore file, as `file:line:pattern`.
struct Rule {
    text: String,
}

impl Rule {
    /// True if it includes files and is in the working tree: rules there override the repository's own `info/exclude`
    /// and the user's file.
    fn outranks(&self) -> bool {
        let parts: Vec<&str> = self.text.splitn(3, ':').collect();
        let [file, _, pattern] = parts[..] else { return false };
        pattern.starts_with('!') && file.ends_with(".gitignore") && !Path::new(file).is_absolute()
    }
}

/// Why a secret must not be written to `file`, and what to do instead; `None` if git would not commit it.
pub fn objection(file: &Path, instead: &str) -> Option<String> {
    let why = against(fate(file), file)?;
    Some(format!("the secret key must not be written to {}: {why}, or {instead}", file.display()))
}

/// Why conversations must not be written to `dir`; `None` if git would not commit them.
pub fn objection_below(dir: &Path) -> Option<String> {
    let why = against(fate_below(dir), dir)?;
    Some(format!(
        "conversations must not be written to {}: {why}, or name another place in MLFLOW_TRACKING_URI",
        dir.display()
    ))
}

fn against(fate: Fate, path: &Path) -> Option<String> {
    Some(match fate {
        Fate::Safe => return None,
        Fate::Wanted { rule } => format!("git would commit it: {rule} outranks .git/info/exclude; remove that line"),
        Fate::Taken { exclude, .. } => {
            let rule = wanting(path).map_or_else(String::new, |rule| format!(" by {rule}: remove that line"));
            format!("git would commit it in spite of {}{rule}", exclude.display())
        }
        Fate::Unknown(why) => format!("git cannot say whether it would commit it ({why}); repair that"),
    })
}

/// The last line that includes a directory on the path to `path`. Git reports no rule for a directory that does
/// not exist yet.
fn wanting(path: &Path) -> Option<String> {
    let top = tree(path)?;
    path.ancestors().skip(1).take_while(|dir| dir.starts_with(top)).find_map(|dir| {
        let rules = files::read(&dir.join(".gitignore"), &Rules::users(LARGEST)).ok()?;
        let rules = String::from_utf8_lossy(&rules).into_owned();
        let wants = |line: &str| {
            let name = line.strip_prefix('!')?.trim_end().trim_start_matches("**/").trim_matches('/');
            let ways = path.ancestors().take_while(|way| *way != dir).filter_map(|way| way.strip_prefix(dir).ok());
            let is_meant = |way: &Path| way == Path::new(name) || !name.contains('/') && way.ends_with(name);
            (name.contains('*') || ways.into_iter().any(is_meant)).then_some(())
        };
        let (number, line) = rules.lines().enumerate().filter(|(_, line)| wants(line).is_some()).last()?;
        let file = dir.strip_prefix(top).unwrap_or(dir).join(".gitignore");
        Some(format!("{}:{}:{line}", file.display(), number + 1))
    })
}
