//! Other programs: finding them, and running them within a time limit.

use std::{
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Duration,
};

use anyhow::{Context, bail};

use cc_core::claude::Version;
pub(crate) use cc_langfuse::command::{is_executable, on_path, run};
use cc_langfuse::environment;

/// How long `claude --version` may take.
const VERSION: Duration = Duration::from_secs(10);

/// Claude Code, where a shell or its installers put it.
pub(crate) fn claude(home: &Path) -> Option<PathBuf> {
    let own = [home.join(".local/bin/claude"), home.join(".claude/local/claude")];
    on_path("claude").or_else(|| own.into_iter().find(|path| is_executable(path)))
}

/// The version of Claude Code at `program`; its exit status if it prints none.
///
/// # Errors
/// If it cannot be started, or was killed.
pub(crate) fn version(program: impl AsRef<OsStr>) -> io::Result<Result<Version, ExitStatus>> {
    let mut command = Command::new(program);
    command.arg("--version");
    let said = run(command, VERSION)?;
    Ok(Version::parse(&said.out).ok_or(said.status))
}

/// The path of this project's program `name`, beside this one or on `PATH`; suitable for writing into files.
///
/// # Errors
/// If there is none.
pub(crate) fn ours(name: &str) -> anyhow::Result<String> {
    let own = std::env::current_exe()?;
    let beside = own.parent().context("no directory")?.join(name);
    let path = match is_executable(&beside) {
        true => beside,
        false if beside.exists() => bail!("{0} cannot be executed: chmod +x {0}", beside.display()),
        false => on_path(name)
            .with_context(|| format!("{name} is neither at {} nor on PATH: install it there", beside.display()))?,
    };
    let text = path.to_str().with_context(|| format!("{} is not UTF-8, which settings require", path.display()))?;
    Ok(text.to_owned())
}

/// True if `path` is not a permanent location.
pub(crate) fn is_fleeting(path: &Path) -> bool {
    // What `npx` fetches, too, does not stay.
    if environment::home().is_some_and(|home| path.parent() == Some(&home.join(".local/bin"))) {
        return false;
    }
    let built = path.components().any(|part| part.as_os_str() == "target" || part.as_os_str() == "_npx");
    built
        || [std::env::temp_dir(), PathBuf::from("/tmp"), PathBuf::from("/var/tmp")]
            .iter()
            .any(|dir| path.starts_with(dir))
}
