//! Programs: where they are, and running those of others within a time.

use std::{
    ffi::OsStr,
    io::{self, Read},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::mpsc,
    time::Duration,
};

use anyhow::{Context, bail};

use cc_core::claude::Version;
use cc_langfuse::environment;

/// How long `claude --version` may take.
const VERSION: Duration = Duration::from_secs(10);

/// What a program said.
pub(crate) struct Said {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

/// Runs `command`, which is killed with all that it started when it takes longer than `timeout`.
///
/// # Errors
/// If it cannot be started, or was killed.
pub(crate) fn run(mut command: Command, timeout: Duration) -> io::Result<Said> {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).spawn()?;
    let (tell, told) = mpsc::channel();
    let pipes: [Option<Box<dyn Read + Send>>; 2] =
        [child.stdout.take().map(|pipe| Box::new(pipe) as _), child.stderr.take().map(|pipe| Box::new(pipe) as _)];
    for (at, pipe) in pipes.into_iter().enumerate() {
        let tell = tell.clone();
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = pipe.map(|mut pipe| pipe.read_to_end(&mut bytes));
            let _ = tell.send((at, String::from_utf8_lossy(&bytes).into_owned()));
        });
    }
    let mut texts = [String::new(), String::new()];
    for _ in 0..texts.len() {
        let Ok((at, text)) = told.recv_timeout(timeout) else {
            let _ = rustix::process::kill_process_group(
                rustix::process::Pid::from_child(&child),
                rustix::process::Signal::KILL,
            );
            let _ = child.wait();
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("no end within {timeout:?}")));
        };
        texts[at] = text;
    }
    let status = child.wait()?;
    let [out, err] = texts;
    Ok(Said { status, out, err })
}

/// Claude Code, where a shell or its own installers put it.
pub(crate) fn claude(home: &Path) -> Option<PathBuf> {
    let own = [home.join(".local/bin/claude"), home.join(".claude/local/claude")];
    on_path("claude").or_else(|| own.into_iter().find(|path| is_executable(path)))
}

/// The version of Claude Code that `program` is; how it ended, if it says none.
///
/// # Errors
/// If it cannot be started, or was killed.
pub(crate) fn version(program: impl AsRef<OsStr>) -> io::Result<Result<Version, ExitStatus>> {
    let mut command = Command::new(program);
    command.arg("--version");
    let said = run(command, VERSION)?;
    Ok(Version::parse(&said.out).ok_or(said.status))
}

/// The program `name` on `PATH`.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let dirs = environment::raw("PATH")?;
    std::env::split_paths(&dirs).map(|dir| dir.join(name)).find(|path| path.is_absolute() && is_executable(path))
}

/// Our program `name`: beside this one, else on `PATH`. Its path can be written into files.
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
    let text = path.to_str().with_context(|| format!("{} is not UTF-8, as settings are", path.display()))?;
    Ok(text.to_owned())
}

/// True if `path` will not stay where it is.
pub(crate) fn is_fleeting(path: &Path) -> bool {
    let built = path.components().any(|part| part.as_os_str() == "target");
    built
        || [std::env::temp_dir(), PathBuf::from("/tmp"), PathBuf::from("/var/tmp")]
            .iter()
            .any(|dir| path.starts_with(dir))
}

/// True if it is a program.
pub(crate) fn is_executable(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}
