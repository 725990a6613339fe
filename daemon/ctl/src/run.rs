//! `run`: tracing for one process tree, without changing anyone's settings.

use std::{
    ffi::{OsStr, OsString},
    fs,
    io::{ErrorKind, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context, bail};
use serde_json::Value;
use tempfile::TempDir;

use crate::{client, programs};
use cc_core::{
    claude::{Version, events},
    route::{Env, Refused},
    settings::{Desired, apply},
};
use cc_langfuse::{credentials::layers, environment};
use proto::env::{ENABLE, MLFLOW_ENABLE, STATE_DIR};

pub(crate) mod daemon;
mod signals;
mod traced;
pub(crate) mod tree;

use daemon::Daemon;
use signals::Signals;

/// A link or copy of this program with this name runs Claude Code traced to MLflow.
const WRAPPER: &str = "claude-mlflow";

/// The flag by which Claude Code takes settings.
const FLAG: &str = "--settings";

#[derive(clap::Args)]
#[command(after_help = "Examples:
  cc-langfusectl run claude
  cc-langfusectl run -- timeout 60 claude -p 'Why do the tests fail?'
  cc-langfusectl run -- claude -p 'Why do the tests fail?'
  cc-langfusectl run --mlflow -- claude
  LANGFUSE_PUBLIC_KEY=… LANGFUSE_SECRET_KEY=… \\
    cc-langfusectl run --ephemeral -- claude -p 'In CI, for example'

A link to cc-langfusectl that is called claude-mlflow runs Claude Code traced to MLflow.")]
pub(crate) struct Run {
    /// Start a daemon for this run only: its state is temporary, and it ends with the program
    ///
    /// This is the default where no daemon was ever started.
    #[arg(long)]
    ephemeral: bool,
    /// Trace to MLflow: to MLFLOW_TRACKING_URI, or else to files in .claude/mlflow/runs of the project
    #[arg(long)]
    mlflow: bool,
    /// How long to wait at the end until everything is delivered: 500ms, 30s, 5m
    #[arg(long, default_value = "30s", value_parser = crate::ui::amount::duration)]
    timeout: Duration,
    /// Claude Code and its arguments, or a program that starts it
    #[arg(trailing_var_arg = true, required = true, value_name = "PROGRAM")]
    command: Vec<OsString>,
}

/// The arguments for `args`, whose first is the program's name: everything after the wrapper's name is for Claude Code.
pub(crate) fn as_called(args: Vec<OsString>) -> Vec<OsString> {
    let name = args.first().map(Path::new).and_then(Path::file_name);
    if name != Some(OsStr::new(WRAPPER)) {
        return args;
    }
    let run = ["cc-langfusectl", "run", "--mlflow", "--", "claude"].map(OsString::from);
    run.into_iter().chain(args.into_iter().skip(1)).collect()
}

impl Run {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let Some((program, args)) = self.command.split_first() else { bail!("no program") };
        let signals = Signals::listen()?;
        let started = jiff::Timestamp::now();
        let is_claude = tree::is_claude(program);
        // It is unknown what other programs do with `--version`.
        let version = if is_claude { programs::version(program).map(Result::ok) } else { Ok(None) };
        let version = match version.and_then(|version| tree::is_there(program).map(|()| version)) {
            Ok(version) => version,
            Err(error) if error.kind() == ErrorKind::TimedOut => None,
            Err(error) => return Ok(cannot_start(program, &error)),
        };
        let private = tempfile::Builder::new()
            .prefix("cc-langfuse-run-")
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir()?;
        let daemon = Daemon::find_or_start(self.ephemeral, private.path(), self.timeout)?;
        let mut command = Command::new(program);
        let way = Way {
            switch: self.switch(),
            version,
            dir: private.path(),
            state: &daemon.paths.state,
            private: daemon.is_private(),
        };
        if is_claude {
            command.args(way.with_settings(args)?);
        } else {
            command.args(args).env("PATH", tree::path(way)?);
        }
        if daemon.is_private() {
            command.env(STATE_DIR, &daemon.paths.state);
        }
        if let Some(why) = untraceable(self.switch()) {
            say(&why);
        }
        daemon.share()?;
        let code = match signals.early() {
            Some(signal) => signals::code(signal),
            None => match command.spawn() {
                Ok(child) => signals.wait(&child)?,
                Err(error) => return Ok(cannot_start(program, &error)),
            },
        };
        match daemon.finish(&signals, self.timeout) {
            Ok(sessions) => traced::say(sessions, started),
            Err(problem) => {
                say(&format!("{problem:#}"));
                keep(private, &daemon);
            }
        }
        Ok(ExitCode::from(code))
    }

    /// The variable that is set to `true` for the program.
    fn switch(&self) -> &'static str {
        if self.mlflow { MLFLOW_ENABLE } else { ENABLE }
    }
}

/// Keeps what a private daemon did not deliver, and removes the settings.
fn keep(private: TempDir, daemon: &Daemon) {
    if daemon.is_private() {
        let files = fs::read_dir(private.path()).into_iter().flatten().filter_map(Result::ok);
        for file in files.filter(|file| file.file_name().to_string_lossy().starts_with("settings")) {
            let _ = fs::remove_file(file.path());
        }
        let _ = fs::remove_dir_all(private.path().join(tree::BIN));
        let _ = private.keep();
    }
}

/// Prints a line for the user, beside the program's output.
fn say(text: &str) {
    err!("cc-langfusectl: {text}");
}

/// The exit code of a shell: 127 if there is no such program, 126 if it cannot be executed.
fn cannot_start(program: &OsStr, error: &std::io::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::NotFound => say(&format!("there is no program {}", program.display())),
        _ => say(&format!("{}: {error}", program.display())),
    }
    ExitCode::from(if error.kind() == ErrorKind::NotFound { 127 } else { 126 })
}

/// Why nothing will be traced, as far as it can be known in advance.
fn untraceable(switch: &str) -> Option<String> {
    let (cwd, home) = (std::env::current_dir().ok()?, client::home().ok()?);
    let entries = client::config().ok()?.destinations.into_iter().filter_map(|named| named.entry.ok());
    if entries.into_iter().any(|entry| entry.takes(Some(&cwd), std::slice::from_ref(&home))) {
        return None;
    }
    let mut vars = environment::forwarded();
    vars.extend(layers::for_hook(Some(&cwd), &client::user_dir(&home)));
    vars.push((switch.to_owned(), "true".to_owned()));
    let env = Env::new(vars.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let (routes, refused) = env.routes();
    if routes.iter().any(|(to, secrets)| !(secrets.is_empty() && to.kind.backend().needs_secret(to))) {
        return None;
    }
    if switch == MLFLOW_ENABLE {
        return Some(
            "not traced: MLFLOW_TRACKING_URI is neither a server, such as http://127.0.0.1:5000, nor a directory"
                .into(),
        );
    }
    let why = match refused.first() {
        Some(refused) if !matches!(refused, Refused::KeysMissing) => format!(" ({})", refused.reason()),
        _ => String::new(),
    };
    Some(format!(
        "not traced{why}: set LANGFUSE_PUBLIC_KEY, LANGFUSE_SECRET_KEY and LANGFUSE_BASE_URL here or in the \
            project's settings"
    ))
}

fn settings_file(dir: &Path) -> PathBuf {
    dir.join("settings.json")
}

/// How Claude Code is traced in a run.
#[derive(Clone, Copy)]
struct Way<'a> {
    /// The variable that turns tracing on.
    switch: &'a str,
    /// The version of Claude Code, if known.
    version: Option<Version>,
    /// The directory of this run.
    dir: &'a Path,
    /// The state directory of its daemon.
    state: &'a Path,
    /// The daemon belongs only to this run.
    private: bool,
}

impl Way<'_> {
    /// `args` with settings that register the hook. Settings that the user passes in this way are merged into them.
    fn with_settings(self, args: &[OsString]) -> anyhow::Result<Vec<OsString>> {
        let hook = programs::ours("cc-langfuse-hook")?;
        let state = self.state.to_str().context("the state directory's name is not UTF-8")?;
        let mut env = vec![(self.switch, "true")];
        if self.private {
            env.push((STATE_DIR, state));
        }
        let (given, mut args) = take_settings(args)?;
        let given = given.as_deref().map(read_settings).transpose()?.unwrap_or_default();
        let desired = Desired {
            hook: &hook,
            events: &events(self.version),
            env: &env,
            elsewhere: &Default::default(),
            replaces_mlflow: None,
            status_line: None,
        };
        let (settings, _) =
            apply(&given, desired).with_context(|| format!("the value of {FLAG} is not a JSON object"))?;
        let settings: Value = serde_json::from_str(settings.trim_start_matches('\u{feff}'))?;
        let path = self.write(&settings)?;
        args.splice(0..0, [FLAG.into(), path.into()]);
        Ok(args)
    }

    /// Writes settings into the directory of this run; each Claude Code of the run has its own file.
    fn write(self, settings: &Value) -> anyhow::Result<PathBuf> {
        let first = settings_file(self.dir);
        let others = (0..u32::MAX).map(|number| self.dir.join(format!("settings-{number}.json")));
        for path in std::iter::once(first).chain(others) {
            #[expect(clippy::disallowed_methods, reason = "a new file in a directory of this run")]
            let mut file = match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                file => file.with_context(|| path.display().to_string())?,
            };
            serde_json::to_writer(&mut file, settings)?;
            file.flush()?;
            return Ok(path);
        }
        bail!("no name is left in {}", self.dir.display())
    }
}

/// Removes `--settings X` or `--settings=X` from `args`. As in Claude Code, the last one counts.
fn take_settings(args: &[OsString]) -> anyhow::Result<(Option<OsString>, Vec<OsString>)> {
    let (mut given, mut rest) = (None, Vec::new());
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let text = arg.to_str().unwrap_or_default();
        if text == "--" {
            rest.push(arg.clone());
            rest.extend(args.by_ref().cloned());
        } else if text == FLAG {
            given = Some(args.next().with_context(|| format!("{FLAG} without settings"))?.clone());
        } else if let Some(value) = text.strip_prefix(FLAG).and_then(|rest| rest.strip_prefix('=')) {
            given = Some(value.into());
        } else {
            rest.push(arg.clone());
        }
    }
    Ok((given, rest))
}

/// Settings in either form that Claude Code accepts: a file, or the JSON itself.
#[expect(clippy::disallowed_methods, reason = "the user names it, as to Claude Code; a pipe will do")]
fn read_settings(given: &OsStr) -> anyhow::Result<String> {
    match given.to_str().map(str::trim) {
        Some(text) if text.starts_with('{') => Ok(text.to_owned()),
        _ => fs::read_to_string(given).with_context(|| format!("{FLAG} {}", given.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wrappers_arguments_are_all_for_claude_code() {
        let called = |args: &[&str]| {
            let args = as_called(args.iter().map(OsString::from).collect());
            args.into_iter().map(|arg| arg.into_string().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(
            called(&["/usr/bin/claude-mlflow", "--help", "--", "-p"]),
            ["cc-langfusectl", "run", "--mlflow", "--", "claude", "--help", "--", "-p"]
        );
        assert_eq!(called(&["claude-mlflow"]), ["cc-langfusectl", "run", "--mlflow", "--", "claude"]);
        assert_eq!(called(&["cc-langfusectl", "claude-mlflow"]), ["cc-langfusectl", "claude-mlflow"]);
        assert!(called(&[]).is_empty());
    }
}
