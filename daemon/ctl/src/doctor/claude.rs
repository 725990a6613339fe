//! Claude Code, its settings files, and the programs in them.

use std::{fs, io::Read, os::unix::fs::MetadataExt, path::Path, process::Command, time::Duration};

use crate::{client, programs};
use cc_core::{
    doctor::{
        Finding,
        local::{Claude, Program, ProgramState},
        settings::{self, Content, Place, Settings},
    },
    settings::{HOOK, program},
};
use cc_langfuse::{
    credentials::{MAX_SETTINGS, is_tracked, layers},
    environment,
    files::{self, Owner, Refused, Rules},
};
use proto::frame::Frame;

/// Largest program that is examined, in bytes.
const MAX_PROGRAM: u64 = 64 << 20;

/// How long the hook may take without tracing.
const PROMPT: Duration = Duration::from_secs(2);

/// Claude Code, where a shell or its own installers put it.
pub(super) fn installed(home: &Path) -> Claude {
    let Some(path) = programs::claude(home) else { return Claude::Missing };
    match programs::version(&path) {
        Err(why) => Claude::Silent(path, why.to_string()),
        Ok(Err(status)) => Claude::Silent(path, format!("no version, {status}")),
        Ok(Ok(version)) => Claude::Version(path, version),
    }
}

/// The settings files that Claude Code reads in `project`, weakest first, without missing ones of the directories around it.
pub(super) fn files(project: &Path, home: &Path) -> Vec<settings::File> {
    let user_dir = client::user_dir(home);
    let user = user_dir.join("settings.json");
    let mut seen = Vec::new();
    let mut files = Vec::new();
    for path in layers::files(Some(project), &user_dir) {
        let is_own = path.parent().and_then(Path::parent) == Some(project);
        let place = match path.file_name().and_then(|name| name.to_str()) {
            _ if path == user => Place::User,
            Some("settings.json") => Place::Project,
            Some("settings.local.json") => Place::Local,
            _ => Place::Managed,
        };
        if seen.contains(&path) || place == Place::Local && !is_own && !path.exists() {
            continue;
        }
        let tracked = matches!(place, Place::Project | Place::Local) && path.exists() && is_tracked(&path);
        files.push(settings::File { place, content: content(&path), path: path.clone(), tracked });
        seen.push(path);
    }
    files
}

/// Files beside the settings that people take for settings but Claude Code never opens.
pub(super) fn unread(project: &Path, home: &Path) -> Vec<Finding> {
    let user = client::user_dir(home);
    let mut dirs = vec![project.join(".claude")];
    dirs.extend(Some(user).filter(|user| *user != dirs[0]));
    let there = dirs.iter().map(|dir| dir.join("hooks.json")).filter(|file| file.exists());
    there.map(|file| settings::judge_hooks_file(&file)).collect()
}

fn content(path: &Path) -> Content {
    // It is only shown to the user, who can read it, so its owner does not matter.
    let rules = Rules { owner: Owner::Anybody, ..Rules::users(MAX_SETTINGS) };
    let bytes = match files::read(path, &rules) {
        Ok(bytes) => bytes,
        Err(refused) if refused.is_absence() => return Content::Missing,
        Err(Refused::NotAFile | Refused::TooLarge) => {
            return Content::Unreadable("it is not a file, or is larger than 1 MiB".into());
        }
        Err(refused) => return Content::Unreadable(refused.to_string()),
    };
    match String::from_utf8(bytes) {
        Ok(text) => Content::Text(text.into()),
        Err(_) => Content::Unreadable("it is not UTF-8".into()),
    }
}

/// The programs registered as this program's hook, each once.
pub(super) fn programs(settings: &Settings, project: &Path, home: &Path) -> Vec<Program> {
    let user = client::user_dir(home).join("settings.json");
    let ours = programs::ours(HOOK).ok();
    let mut seen: Vec<Program> = Vec::new();
    for hook in settings.own_hooks() {
        let Some(word) = program(&hook.command) else { continue };
        let word = expand(&word, project, home);
        if seen.iter().any(|program| program.word == word) {
            continue;
        }
        let found = if word.contains('/') { Some(project.join(&word)) } else { programs::on_path(&word) };
        // Any other program that a project names is examined but not run: someone else may have put it there.
        let may_run = ours.as_ref() == Some(&word) || hook.file == user && !is_tracked(&user);
        let state = found.map_or(ProgramState::Missing, |path| state(&path, may_run));
        seen.push(Program { word, state });
    }
    if seen.is_empty() && settings.plugin().is_some() {
        seen.push(of_plugin(home));
    }
    seen
}

/// The program that the plugin's script finds: on PATH, else where people install programs.
fn of_plugin(home: &Path) -> Program {
    let cargo = environment::absolute("CARGO_HOME").unwrap_or_else(|| home.join(".cargo"));
    let mut places = [home.join(".local/bin"), cargo.join("bin")].into_iter().map(|dir| dir.join(HOOK));
    let found = programs::on_path(HOOK).or_else(|| places.find(|path| programs::is_executable(path)));
    match found {
        Some(path) => Program { word: path.display().to_string(), state: state(&path, true) },
        None => {
            Program { word: home.join(".local/bin").join(HOOK).display().to_string(), state: ProgramState::Missing }
        }
    }
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
    if !programs::is_executable(path) {
        return ProgramState::NotExecutable;
    }
    // Every hook contains its protocol version in the first field of what it sends.
    let frame = Frame { id: "x".into(), fired_ns: 0, cut: false, env: vec![], payload: vec![] }.encode();
    let language = frame.split(|byte| *byte == 0).next().unwrap_or_default();
    let mut bytes = Vec::new();
    let rules = Rules { owner: Owner::Anybody, ..Rules::users(u64::MAX) };
    let read = files::open(path, &rules).ok().map(|opened| opened.file.take(MAX_PROGRAM).read_to_end(&mut bytes));
    if matches!(read, Some(Ok(_))) && memchr::memmem::find(&bytes, language).is_none() {
        return ProgramState::Foreign;
    }
    if meta.mode() & 0o022 != 0 || ![0, rustix::process::geteuid().as_raw()].contains(&meta.uid()) {
        return ProgramState::Writable;
    }
    if !may_run {
        return ProgramState::Untried;
    }
    // Without tracing it exits before it reads or sends anything.
    let mut command = Command::new(path);
    command.env_clear();
    match programs::run(command, PROMPT) {
        Err(why) => ProgramState::Fails(why.to_string()),
        Ok(said) if !said.status.success() => ProgramState::Fails(said.status.to_string()),
        Ok(_) => ProgramState::Good,
    }
}
