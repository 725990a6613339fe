//! Finds the session that a person means: by its id or a prefix of it, by part of its title, by its transcript, or
//! without a name the latest one of the current directory. Every command that takes a session uses this.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use jiff::Timestamp;

use self::choose::{Candidate, Choice, choose, near};
use crate::{
    client::{self, Client},
    ui::{
        table::{self, Fit},
        terminal,
    },
};
use cc_core::{
    redact, status,
    transcript::{is_name, record},
};
use cc_langfuse::{
    archive,
    reader::{Transcript, Unreadable, places},
};

mod choose;

pub(crate) use choose::Naming;

/// How many candidates are shown if a name may mean several.
const MAX_SHOWN: usize = 10;

/// A session, and the path of its transcript.
#[derive(Debug)]
pub(crate) struct Found {
    pub id: String,
    pub transcript: PathBuf,
}

impl Found {
    /// The same, unless only a copy of its transcript is left.
    ///
    /// # Errors
    /// If only the archive has its transcript, from which nothing is sent; if the home directory is unknown.
    pub(crate) fn original(self) -> anyhow::Result<Self> {
        if self.transcript.starts_with(archive()?) {
            bail!(
                "the transcript of session {} is gone: the archive has a copy to look at, from which nothing is sent",
                self.id
            );
        }
        Ok(self)
    }
}

/// The name matches no session, or more than one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Miss {
    #[error(
        "no session {name}{}", if near.is_empty() { ": `cc-langfusectl sessions` lists the traced ones; the path of \
            a transcript works too" } else { "; did you mean" }
    )]
    Unknown { name: String, near: Vec<Candidate> },
    /// There is no such file.
    #[error("no transcript {}{}", path.display(), if near.is_empty() { "" } else { "; did you mean" })]
    NoFile { path: PathBuf, near: Vec<Candidate> },
    /// It matches more than one.
    #[error("{name} names {} sessions: type more of its id", found.len())]
    Several { name: String, found: Vec<Candidate> },
    /// No session belongs to the directory.
    #[error("no session is known in {}; name one from `cc-langfusectl sessions`, or give the path of a transcript", .0.display())]
    NotHere(PathBuf),
}

impl Miss {
    /// A table of the candidates.
    fn lines(&self) -> Vec<String> {
        let (Self::Unknown { near: those, .. } | Self::NoFile { near: those, .. } | Self::Several { found: those, .. }) =
            self
        else {
            return Vec::new();
        };
        let (home, now) = (client::home().unwrap_or_default(), Timestamp::now());
        let rules = client::config().map(|config| config.rules).unwrap_or_default();
        let row = |candidate: &Candidate| {
            let title = candidate.title.clone().or_else(|| first_prompt(&candidate.transcript, &rules));
            vec![
                table::clip(&candidate.id, 36),
                table::ago(candidate.at.map(|at| at.to_string()).as_deref(), now),
                title.map_or_else(|| "-".to_owned(), |title| table::clip(&title, 40)),
                table::path(&candidate.transcript, &home),
            ]
        };
        let mut rows: Vec<_> = those.iter().take(MAX_SHOWN).map(row).collect();
        if let Some(width) = terminal::width() {
            // The lines are indented.
            rows = table::fitted(rows, &[Fit::Whole, Fit::Whole, Fit::End, Fit::Spare], width.saturating_sub(2));
        }
        let more = those.len().saturating_sub(MAX_SHOWN);
        table::lines(&rows).into_iter().chain((more > 0).then(|| format!("and {more} more"))).collect()
    }
}

/// Prints what went wrong, and the candidates.
pub(crate) fn report(error: &anyhow::Error) {
    err!("cc-langfusectl: {error:#}");
    let lines = error.downcast_ref().map(Miss::lines);
    lines.iter().flatten().for_each(|line| err!("  {line}"));
}

/// Of this many sessions the first prompt is read to find one by it.
const MAX_PROMPTS: usize = 500;

/// The session that `name` means, whether or not a daemon runs. The daemon, which knows titles, is asked only if the
/// files do not decide.
pub(crate) fn offline(name: Option<&str>) -> anyhow::Result<Found> {
    let missed = match find(name, Naming::Loose, &[]) {
        Err(error) if matches!(error.downcast_ref(), Some(Miss::Unknown { .. } | Miss::NotHere(_))) => error,
        found => return found,
    };
    match Client::new().and_then(|daemon| daemon.status()) {
        Ok(status) => find(name, Naming::Loose, &status.sessions),
        Err(_) => Err(missed),
    }
}

/// The session that `name` means, among those `known` to the daemon and those in Claude Code's directories.
pub(crate) fn find(name: Option<&str>, naming: Naming, known: &[status::Session]) -> anyhow::Result<Found> {
    let found = find_any(name, naming, known)?;
    Ok(Found { transcript: copy(&found.transcript).unwrap_or(found.transcript), ..found })
}

/// The same, perhaps with a transcript that is gone.
fn find_any(name: Option<&str>, naming: Naming, known: &[status::Session]) -> anyhow::Result<Found> {
    let Some(name) = name else { return latest(known) };
    let candidates = || -> anyhow::Result<Vec<Candidate>> {
        let mut all: Vec<_> = known.iter().map(candidate).collect();
        let others = on_disk(&all_roots()?);
        all.extend(others.into_iter().filter(|other| known.iter().all(|known| known.session_id != other.id)));
        Ok(all)
    };
    if is_path(name) {
        return by_path(Path::new(name), known, candidates);
    }
    let mut all = candidates()?;
    let mut chosen = choose(name, &all, naming);
    if matches!((&chosen, naming), (Choice::None(_), Naming::Loose)) {
        name_by_prompt(&mut all);
        chosen = choose(name, &all, naming);
    }
    match chosen {
        Choice::One(found) => Ok(Found { id: found.id, transcript: found.transcript }),
        Choice::Several(found) => Err(Miss::Several { name: name.to_owned(), found }.into()),
        Choice::None(near) => Err(Miss::Unknown { name: name.to_owned(), near }.into()),
    }
}

/// True if `name` looks like a file rather than a session.
pub(crate) fn is_path(name: &str) -> bool {
    name.contains('/') || Path::new(name).extension().is_some_and(|ext| ext == "jsonl")
}

fn by_path(
    path: &Path,
    known: &[status::Session],
    candidates: impl Fn() -> anyhow::Result<Vec<Candidate>>,
) -> anyhow::Result<Found> {
    let path = std::path::absolute(path)?;
    if let Some(session) = known.iter().find(|session| session.transcript == path) {
        return Ok(Found { id: session.session_id.clone(), transcript: path });
    }
    let id = path.file_stem().context("not a transcript")?.to_string_lossy().into_owned();
    match fs::symlink_metadata(&path) {
        Ok(meta) if meta.is_dir() => bail!("{} is a directory: name a transcript in it", path.display()),
        Err(_) if let Some(transcript) = elsewhere(&path)?.filter(|path| path.is_file()) => {
            Ok(Found { id, transcript })
        }
        Err(_) => {
            let near = near(&id.to_lowercase(), &candidates()?);
            Err(Miss::NoFile { path, near }.into())
        }
        Ok(_) => Ok(Found { id, transcript: path }),
    }
}

/// The latest session of the current directory: of those known, else of those with a transcript.
fn latest(known: &[status::Session]) -> anyhow::Result<Found> {
    let dir = std::env::current_dir()?;
    let heard = |session: &status::Session| session.last_heard.as_ref()?.parse::<Timestamp>().ok();
    let of_known =
        known.iter().filter_map(|session| Some((depth(&dir, &session.project_dirs)?, heard(session), session)));
    if let Some((.., session)) = of_known.max_by_key(|(depth, heard, _)| (*depth, *heard)) {
        return Ok(Found { id: session.session_id.clone(), transcript: session.transcript.clone() });
    }
    let roots = roots()?;
    let around = |path: &Path| depth(&dir, cwd(path, &roots).ok().flatten().as_slice());
    let of_projects = roots.iter().flat_map(|root| places::projects(root)).filter_map(|(project, why)| {
        // All transcripts in a project's directory have the same working directory: the newest one shows it.
        let newest = in_project(&project, why).into_iter().max_by_key(|candidate| candidate.at)?;
        Some((around(&newest.transcript)?, newest.at, newest))
    });
    let found = of_projects.max_by_key(|(depth, at, _)| (*depth, *at));
    let (.., found) = found.ok_or(Miss::NotHere(dir))?;
    Ok(Found { id: found.id, transcript: found.transcript })
}

/// The depth of the deepest of `dirs` that contains `dir`.
fn depth(dir: &Path, dirs: &[PathBuf]) -> Option<usize> {
    let dirs = dirs.iter().map(|dir| dir.canonicalize().unwrap_or_else(|_| dir.clone()));
    dirs.filter(|around| dir.starts_with(around)).map(|around| around.components().count()).max()
}

/// The name of a session: its title, else its first prompt, masked.
pub(crate) fn title(known: &status::Session, rules: &redact::Rules) -> Option<String> {
    known.title.clone().or_else(|| first_prompt(&known.transcript, rules))
}

fn first_prompt(transcript: &Path, rules: &redact::Rules) -> Option<String> {
    let copy = copy(transcript);
    let prompt = record::first_prompt(Transcript::open(copy.as_deref().unwrap_or(transcript)).ok()?.head().ok()?)?;
    Some(rules.scrub(&prompt, &mut Default::default()).unwrap_or(prompt))
}

/// Gives the latest sessions without a title their first prompt in its place, as the lists do.
fn name_by_prompt(all: &mut [Candidate]) {
    let rules = client::config().map(|config| config.rules).unwrap_or_default();
    all.sort_by_key(|candidate| std::cmp::Reverse(candidate.at));
    for candidate in all.iter_mut().filter(|candidate| candidate.title.is_none()).take(MAX_PROMPTS) {
        candidate.title = first_prompt(&candidate.transcript, &rules);
    }
}

fn candidate(known: &status::Session) -> Candidate {
    Candidate {
        id: known.session_id.clone(),
        transcript: known.transcript.clone(),
        title: known.title.clone(),
        at: known.last_heard.as_ref().and_then(|at| at.parse().ok()),
    }
}

/// The ids of all sessions that can be named: those the daemon knows, and those with a transcript.
pub(crate) fn ids() -> anyhow::Result<Vec<String>> {
    let known = Client::new()?.status().map(|status| status.sessions).unwrap_or_default();
    let known = known.into_iter().map(|session| session.session_id);
    let mut all: Vec<String> = known.chain(on_disk(&all_roots()?).into_iter().map(|candidate| candidate.id)).collect();
    all.sort();
    all.dedup();
    Ok(all)
}

/// The sessions with a transcript below `roots`. If there are two, the one written last counts.
fn on_disk(roots: &[PathBuf]) -> Vec<Candidate> {
    let mut all: Vec<Candidate> = roots
        .iter()
        .flat_map(|root| places::projects(root))
        .flat_map(|(project, why)| in_project(&project, why))
        .collect();
    all.sort_by(|one, other| one.id.cmp(&other.id).then(other.at.cmp(&one.at)));
    all.dedup_by(|later, first| later.id == first.id);
    all
}

/// The sessions of a project's directory, unless there is a reason not to read it.
fn in_project(dir: &Path, why_not: Option<Unreadable>) -> Vec<Candidate> {
    let entries = why_not.is_none().then(|| fs::read_dir(dir).ok()).flatten().into_iter().flatten();
    let found = entries.filter_map(Result::ok).filter_map(|entry| {
        let path = entry.path();
        let id = path.file_stem()?.to_str().filter(|id| is_name(id) && !id.starts_with("agent-"))?.to_owned();
        let meta = entry
            .metadata()
            .ok()
            .filter(|meta| path.extension().is_some_and(|ext| ext == "jsonl") && meta.is_file())?;
        let at = meta.modified().ok().and_then(|at| Timestamp::try_from(at).ok());
        Some(Candidate { id, transcript: path, title: None, at })
    });
    found.collect()
}

/// The directory of a session.
///
/// # Errors
/// If the daemon would not read its transcript.
pub(crate) fn cwd(transcript: &Path, roots: &[PathBuf]) -> Result<Option<PathBuf>, Unreadable> {
    let mut file = Transcript::open_beneath(transcript, roots)?;
    Ok(record::cwd(file.head()?).map(PathBuf::from).filter(|dir| dir.is_absolute()))
}

/// The directories where transcripts may be.
pub(crate) fn roots() -> anyhow::Result<Vec<PathBuf>> {
    let custom = client::config_dir().map(|dir| dir.join("projects"));
    Ok(custom.into_iter().chain(client::config()?.roots(&client::home()?)).collect())
}

/// The same, and the archive.
fn all_roots() -> anyhow::Result<Vec<PathBuf>> {
    Ok(roots()?.into_iter().chain([archive()?]).collect())
}

/// The directory of the archive, whose projects have copies of transcripts.
pub(crate) fn archive() -> anyhow::Result<PathBuf> {
    Ok(client::paths()?.state.join(archive::DIRECTORY))
}

/// The copy of a transcript that is gone; `None` if it is there, or there is no copy.
fn copy(transcript: &Path) -> Option<PathBuf> {
    let copy = archive().ok()?.join(transcript.parent()?.file_name()?).join(transcript.file_name()?);
    (!transcript.exists() && copy.is_file()).then_some(copy)
}

/// The transcript or the project's directory that `path`, which does not exist, means: a container's name for it.
///
/// # Errors
/// If the configuration cannot be read.
pub(crate) fn elsewhere(path: &Path) -> anyhow::Result<Option<PathBuf>> {
    let roots = roots()?;
    let session = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    Ok(places::at_home(path, session, &roots).or_else(|| places::directory_at_home(path, &roots)))
}

/// `path`, however it was named, as it lies below one of `roots`; of a directory around them those in it.
///
/// # Errors
/// If the daemon reads nothing there.
pub(crate) fn reached(path: &Path, roots: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let real = path.canonicalize().with_context(|| path.display().to_string())?;
    let roots = || roots.iter().filter_map(|root| Some((root, root.canonicalize().ok()?)));
    if let Some((root, below)) = roots().find_map(|(root, at)| Some((root, real.strip_prefix(at).ok()?))) {
        return Ok(vec![root.components().chain(below.components()).collect()]);
    }
    let linked = || {
        let projects = roots().flat_map(|(root, _)| places::projects(root)).filter(|(dir, _)| dir.is_symlink());
        projects.filter_map(|(dir, why)| Some((dir.canonicalize().ok()?, dir, why)))
    };
    if let Some((to, dir, why)) = linked().find(|(to, ..)| real.starts_with(to)) {
        if let Some(error) = why {
            bail!("{}: {error}; {}", dir.display(), error.remedy());
        }
        return Ok(vec![dir.components().chain(real.strip_prefix(to)?.components()).collect()]);
    }
    let within = roots().filter(|(_, at)| at.starts_with(&real)).map(|(root, _)| root.clone());
    let within = within.chain(linked().filter(|(to, ..)| to.starts_with(&real)).map(|(_, dir, _)| dir));
    let within: Vec<PathBuf> = within.collect();
    if within.is_empty() {
        let dir = if real.is_dir() { &*real } else { real.parent().unwrap_or(&real) };
        bail!(
            "the daemon reads no transcripts in {}: name that directory in {} (transcript_roots = [\"…\"]); then \
                cc-langfusectl restart",
            dir.display(),
            client::paths()?.config.display()
        );
    }
    Ok(within)
}
