//! A process tree in which Claude Code is traced, whichever program starts it: this program's own `claude` comes first
//! on its `PATH`.

use std::{
    ffi::{OsStr, OsString},
    fs,
    io::{Error, ErrorKind, Write},
    os::unix::{
        fs::{DirBuilderExt, OpenOptionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::Context;

use super::{Way, cannot_start, say};
use crate::{client, programs};
use cc_core::{claude::Version, settings::quoted};
use cc_langfuse::environment;

/// The directory of that `claude` in the run's directory.
pub(super) const BIN: &str = "bin";

/// True if `program` is Claude Code itself by its name, rather than a program that may start it.
pub(super) fn is_claude(program: &OsStr) -> bool {
    Path::new(program).file_name().is_some_and(|name| name.to_string_lossy().starts_with("claude"))
}

/// Whether `program` can be started, as far as that can be seen.
///
/// # Errors
/// The error that the system would report.
pub(super) fn is_there(program: &OsStr) -> std::io::Result<()> {
    let path = Path::new(program);
    match program.to_string_lossy().contains('/') {
        true if programs::is_executable(path) => Ok(()),
        true if path.exists() => Err(Error::from(ErrorKind::PermissionDenied)),
        false if programs::on_path(&program.to_string_lossy()).is_some() => Ok(()),
        _ => Err(Error::from(ErrorKind::NotFound)),
    }
}

/// `PATH` with this program's `claude` first, which is created. Warns if there is no Claude Code.
///
/// # Errors
/// If it cannot be created.
pub(super) fn path(way: Way<'_>) -> anyhow::Result<OsString> {
    let inherited = environment::raw("PATH").unwrap_or_default();
    let Some(claude) = programs::claude(&client::home()?) else {
        say("there is no claude on PATH: a claude that this program starts by its path is not traced");
        return Ok(inherited);
    };
    let version = programs::version(&claude).ok().and_then(Result::ok);
    let bin = way.dir.join(BIN);
    fs::DirBuilder::new().mode(0o700).create(&bin)?;
    let text = |path: &Path| Ok::<_, anyhow::Error>(quoted(path.to_str().context("a path is not UTF-8")?));
    let mut script = format!(
        "#!/bin/sh\nexec {} run-claude --switch {} --dir {} --state {}",
        text(&std::env::current_exe()?)?,
        way.switch,
        text(way.dir)?,
        text(way.state)?
    );
    if way.private {
        script.push_str(" --private");
    }
    if let Some(version) = version {
        script.push_str(&format!(" --version-of-claude {version}"));
    }
    script.push_str(&format!(" -- {} \"$@\"\n", text(&claude)?));
    #[expect(clippy::disallowed_methods, reason = "a new file in a directory of this run")]
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o700).open(bin.join("claude"))?;
    file.write_all(script.as_bytes())?;
    Ok(std::env::join_paths(std::iter::once(bin).chain(std::env::split_paths(&inherited)))?)
}

/// The command behind the `claude` of a run: becomes Claude Code, with settings that register the hook.
#[derive(clap::Args)]
pub(crate) struct RunClaude {
    #[arg(long)]
    switch: String,
    #[arg(long)]
    dir: PathBuf,
    #[arg(long)]
    state: PathBuf,
    #[arg(long)]
    private: bool,
    #[arg(long)]
    version_of_claude: Option<String>,
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

impl RunClaude {
    /// Returns only if Claude Code cannot be started.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let Some((program, args)) = self.command.split_first() else { anyhow::bail!("no program") };
        let way = Way {
            switch: &self.switch,
            version: self.version_of_claude.as_deref().and_then(Version::parse),
            dir: &self.dir,
            state: &self.state,
            private: self.private,
        };
        // Processes may outlive their run.
        let args = if self.dir.is_dir() { way.with_settings(args)? } else { args.to_vec() };
        Ok(cannot_start(program, &Command::new(program).args(args).exec()))
    }
}
