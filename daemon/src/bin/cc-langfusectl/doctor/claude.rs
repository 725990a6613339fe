//! Claude Code, its settings files, and the programs they name.

use std::{
    fs::{self, File},
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::mpsc,
    time::Duration,
};

use cc_langfuse::{
    credentials::is_tracked,
    doctor::{
        local::{Claude, Program, ProgramState},
        settings::{self, Content, Place, Settings},
    },
};
use proto::frame::Frame;
use rustix::fs::{Access, Mode, OFlags};

/// Largest settings file that is looked at.
const MAX_SETTINGS: u64 = 1 << 20;

/// Largest program that is looked into.
const MAX_PROGRAM: u64 = 64 << 20;

/// How long `claude --version` may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the hook may take to do nothing.
const PROMPT: Duration = Duration::from_secs(2);

#[cfg(target_os = "macos")]
const MANAGED: &str = "/Library/Application Support/ClaudeCode/managed-settings.json";
#[cfg(not(target_os = "macos"))]
const MANAGED: &str = "/etc/claude-code/managed-settings.json";

/// Claude Code, where a shell or its own installers put it.
pub fn installed(home: &Path) -> Claude {
    let own = [home.join(".local/bin/claude"), home.join(".claude/local/claude")];
    let Some(path) = on_path("claude").or_else(|| own.into_iter().find(|path| is_executable(path))) else {
        return Claude::Missing;
    };
    let mut command = Command::new(&path);
    command.arg("--version");
    match output(command, PATIENCE) {
        Err(why) => Claude::Silent(path, why),
        Ok(output) => match settings::version(&String::from_utf8_lossy(&output.stdout)) {
            Some(version) => Claude::Version(path, version),
            None => Claude::Silent(path, format!("no version, {}", output.status)),
        },
    }
}

/// The settings files that Claude Code reads in `project`, weakest first.
pub fn files(project: &Path, home: &Path) -> Vec<settings::File> {
    let moved = std::env::var_os("CLAUDE_CONFIG_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let user = moved.unwrap_or_else(|| home.join(".claude")).join("settings.json");
    let at = |name: &str| project.join(".claude").join(name);
    let shared = at("settings.json");
    let is_home = shared == user;
    let places = [
        (Place::User, user, false),
        (Place::Project, shared, is_home),
        (Place::Local, at("settings.local.json"), false),
        (Place::Managed, PathBuf::from(MANAGED), false),
    ];
    let places = places.into_iter().filter(|(.., is_known)| !is_known);
    places
        .map(|(place, path, _)| {
            let tracked = matches!(place, Place::Project | Place::Local) && path.exists() && is_tracked(&path);
            settings::File { place, content: content(&path), path, tracked }
        })
        .collect()
}

/// What of this environment Claude Code would hand to hooks, and they to the daemon.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    proto::env::forwarded().filter_map(|name| Some((name.clone(), std::env::var(&name).ok()?)))
}

fn content(path: &Path) -> Content {
    use rustix::io::Errno;
    let file = match rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(Errno::NOENT | Errno::NOTDIR) => return Content::Missing,
        Err(errno) => return Content::Unreadable(errno.to_string()),
    };
    if !file.metadata().is_ok_and(|meta| meta.is_file() && meta.len() <= MAX_SETTINGS) {
        return Content::Unreadable("it is no file, or larger than 1 MiB".into());
    }
    let mut text = String::new();
    match file.take(MAX_SETTINGS).read_to_string(&mut text) {
        Ok(_) => Content::Text(text.into()),
        Err(error) => Content::Unreadable(error.to_string()),
    }
}

/// The programs that are registered as our hook, each once.
pub fn programs(settings: &Settings, project: &Path, home: &Path) -> Vec<Program> {
    let mut seen: Vec<Program> = Vec::new();
    for hook in settings.own_hooks() {
        let Some(word) = settings::own_program(&hook.command) else { continue };
        let word = expand(&word, project, home);
        if seen.iter().any(|program| program.word == word) {
            continue;
        }
        let found = if word.contains('/') { Some(project.join(&word)) } else { on_path(&word) };
        // What a repository names is looked at and not run.
        let may_run = !is_tracked(&hook.file);
        let state = found.map_or(ProgramState::Missing, |path| state(&path, may_run));
        seen.push(Program { word, state });
    }
    seen
}

fn expand(word: &str, project: &Path, home: &Path) -> String {
    let at_home = ["~", "$HOME", "${HOME}"].map(|name| (name, home));
    let in_project = ["$CLAUDE_PROJECT_DIR", "${CLAUDE_PROJECT_DIR}"].map(|name| (name, project));
    let mut known = at_home.into_iter().chain(in_project);
    known
        .find_map(|(name, dir)| Some(format!("{}{}", dir.display(), word.strip_prefix(name)?)))
        .unwrap_or_else(|| word.to_owned())
}

fn state(path: &Path, may_run: bool) -> ProgramState {
    let Ok(meta) = fs::metadata(path) else { return ProgramState::Missing };
    if !meta.is_file() {
        return ProgramState::NotAFile;
    }
    if !is_executable(path) {
        return ProgramState::NotExecutable;
    }
    // Every hook says which language it speaks in the first field of what it sends.
    let frame = Frame { id: "x".into(), fired_ns: 0, cut: false, env: vec![], payload: vec![] }.encode();
    let language = frame.split(|byte| *byte == 0).next().unwrap_or_default();
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_PROGRAM).read_to_end(&mut bytes));
    if read.is_ok() && memchr::memmem::find(&bytes, language).is_none() {
        return ProgramState::Foreign;
    }
    if meta.mode() & 0o022 != 0 || ![0, rustix::process::geteuid().as_raw()].contains(&meta.uid()) {
        return ProgramState::Writable;
    }
    if !may_run {
        return ProgramState::Good;
    }
    // Where tracing is not on it ends before it reads or sends anything.
    let mut command = Command::new(path);
    command.env_clear();
    match output(command, PROMPT) {
        Err(why) => ProgramState::Fails(why),
        Ok(output) if !output.status.success() => ProgramState::Fails(output.status.to_string()),
        Ok(_) => ProgramState::Good,
    }
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|path| fs::metadata(path).is_ok_and(|meta| meta.is_file()) && is_executable(path))
}

fn is_executable(path: &Path) -> bool {
    rustix::fs::access(path, Access::EXEC_OK).is_ok()
}

/// Runs a program that needs no input, for so long at most.
pub fn output(mut command: Command, patience: Duration) -> Result<Output, String> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let child = child.map_err(|error| error.to_string())?;
    let pid = rustix::process::Pid::from_child(&child);
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || tell.send(child.wait_with_output()));
    match told.recv_timeout(patience) {
        Ok(ended) => ended.map_err(|error| error.to_string()),
        Err(_) => {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            Err(format!("it does not end within {patience:?}"))
        }
    }
}
