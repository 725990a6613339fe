//! Finds sessions, and the destination of each.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ffi::OsStr,
    fs::{self, FileType, Metadata},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use crate::{
    client::{self, Client},
    kinds::{Names, To},
};
use cc_core::{
    config::destination::Entry,
    destination::{Destination, Kind},
    project::Options,
    route::{Env, narrow},
    transcript::is_name,
};
use cc_langfuse::{
    clock,
    credentials::layers,
    environment,
    reader::{Transcript, Unreadable, places},
    threads,
};
use proto::env::{Role, VARIABLES};

/// How many levels of subdirectories are searched for transcripts.
const MAX_DEPTH: usize = 8;

/// So few files are not worth a thread.
const MANY: usize = 512;

/// Directories beside a transcript that belong to its session.
const SIDE_DIRECTORIES: [&str; 2] = ["subagents", "tool-results"];

/// Counts of what is left out, by reason.
pub(crate) type Skipped = BTreeMap<&'static str, u64>;

/// A transcript.
#[derive(Clone)]
pub(crate) struct Candidate {
    pub path: PathBuf,
    /// Its session.
    pub id: String,
    /// When it was last written.
    pub written: SystemTime,
    /// Its length in bytes.
    pub bytes: u64,
    pub meta: Metadata,
    /// No directory beside it has its name: no subagent has a transcript there.
    pub is_alone: bool,
}

/// Where the sessions of a project go, and how.
pub(crate) struct Route {
    pub destination: Destination,
    pub options: Options,
    /// The variables for the daemon.
    pub env: Vec<(String, String)>,
}

/// Project directories and transcripts that are not read, and why.
pub(crate) type Refused = Vec<(PathBuf, Unreadable)>;

/// Whether the directory of a session, with its subagents' transcripts, is searched too: they are counted then, and
/// never candidates. Only Claude Code's own directories are known to have them beside the transcript of their session.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Sides {
    Count,
    PassOver,
}

/// Every transcript at or below `paths` that was written within `since`, oldest first. Below `roots` the user's own
/// links are followed.
pub(crate) fn candidates(
    paths: &[PathBuf],
    roots: &[PathBuf],
    since: Option<Duration>,
    sides: Sides,
    skipped: &mut Skipped,
    refused: &mut Refused,
) -> Vec<Candidate> {
    let mut files: Vec<(PathBuf, bool)> = Vec::new();
    for path in paths {
        match fs::metadata(path) {
            Ok(meta) if meta.is_dir() && roots.contains(path) => {
                for (dir, why) in places::projects(path) {
                    match why {
                        None => walk(&dir, MAX_DEPTH - 1, sides, &mut files),
                        Some(error) => {
                            *skipped.entry(error.reason()).or_default() += 1;
                            refused.push((dir, error));
                        }
                    }
                }
            }
            Ok(meta) if meta.is_dir() => walk(path, MAX_DEPTH, Sides::Count, &mut files),
            Ok(_) => files.push((path.clone(), false)),
            Err(_) => {}
        }
    }
    let oldest = since.and_then(|since| clock::wall().checked_sub(since));
    let mut found: HashMap<String, Candidate> = HashMap::new();
    let mut seen = HashSet::new();
    let mut skip = |reason| *skipped.entry(reason).or_default() += 1;
    let metas = threads::each(&files, MANY, |(path, _)| fs::symlink_metadata(path).ok());
    for ((path, is_alone), meta) in files.into_iter().zip(metas) {
        let id = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let dirs = || path.parent().into_iter().flat_map(Path::components);
        if id.starts_with("agent-") || dirs().any(|dir| SIDE_DIRECTORIES.iter().any(|name| dir.as_os_str() == *name)) {
            skip("subagent");
            continue;
        }
        let meta = meta.filter(Metadata::is_file);
        let identity = meta.as_ref().map(|meta| (meta.dev(), meta.ino()));
        let Some((bytes, written, meta)) = meta.and_then(|meta| Some((meta.len(), meta.modified().ok()?, meta))) else {
            skip("not_a_file");
            refused.extend(Transcript::open_beneath(&path, roots).err().map(|error| (path.clone(), error)));
            continue;
        };
        if !seen.insert((id.clone(), identity)) {
            // The same file under another path, for example because one project's directory is a link to another's.
            continue;
        }
        if bytes == 0 {
            skip("empty");
        } else if oldest.is_some_and(|oldest| written < oldest) {
            skip("older");
        } else if path.to_str().is_none() {
            // The daemon could not be given this path.
            skip("not_utf8");
        } else if !is_name(&id) {
            skip("not_a_session");
        } else {
            let candidate = Candidate { path, id, written, bytes, meta, is_alone };
            match found.get_mut(&candidate.id) {
                None => drop(found.insert(candidate.id.clone(), candidate)),
                Some(known) if known.path == candidate.path => {}
                // A session is in the transcript that was written last.
                Some(known) => {
                    skip("found_twice");
                    if known.written < candidate.written {
                        *known = candidate;
                    }
                }
            }
        }
    }
    let mut found: Vec<Candidate> = found.into_values().collect();
    found.sort_by(|a, b| (a.written, &a.path).cmp(&(b.written, &b.path)));
    found
}

/// Adds the transcripts in `dir` and below, each with whether no directory beside it has its name.
fn walk(dir: &Path, depth: usize, sides: Sides, files: &mut Vec<(PathBuf, bool)>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    let (mut dirs, mut names, first) = (Vec::new(), HashSet::new(), files.len());
    for entry in entries.filter_map(Result::ok) {
        let kind = entry.file_type();
        if kind.as_ref().is_ok_and(|kind| kind.is_dir() || kind.is_symlink()) {
            names.insert(entry.file_name());
        }
        let path = entry.path();
        if kind.as_ref().is_ok_and(FileType::is_dir) {
            dirs.push(path);
        } else if path.extension().is_some_and(|ext| ext == "jsonl") {
            files.push((path, true));
        }
    }
    for (file, is_alone) in &mut files[first..] {
        *is_alone = file.file_stem().is_none_or(|name| !names.contains(name));
    }
    if depth == 1 {
        return;
    }
    if sides == Sides::PassOver {
        let sessions: HashSet<&OsStr> = files[first..].iter().filter_map(|(file, _)| file.file_stem()).collect();
        dirs.retain(|dir| dir.file_name().is_none_or(|name| !sessions.contains(name)));
    }
    dirs.iter().for_each(|dir| walk(dir, depth - 1, sides, files));
}

/// The canonical path of a directory; `dir` itself if it no longer exists.
pub(super) fn real(dir: &Path) -> PathBuf {
    dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf())
}

/// The destinations of sessions, by the directory they were in.
pub(crate) struct Routes {
    home: PathBuf,
    /// Restricts the destinations.
    to: Option<To>,
    names: Names,
    /// The variables of this process's environment.
    own: Vec<(String, String)>,
    /// The destinations of `config.toml`.
    entries: Vec<Entry>,
    known: Vec<Route>,
    by_dir: HashMap<Option<PathBuf>, Vec<usize>>,
}

impl Routes {
    /// Routes for a user whose home is `home`, to all destinations or only to `to`.
    ///
    /// # Errors
    /// If `to` matches none, or the configuration cannot be read.
    pub(crate) fn new(home: PathBuf, to: Option<To>) -> anyhow::Result<Self> {
        let own = environment::forwarded().into_iter();
        let own = own.filter(|(name, value)| name != "CLAUDE_PROJECT_DIR" && !value.trim().is_empty()).collect();
        let config = client::config()?;
        let status = Client::new().and_then(|daemon| daemon.status()).ok();
        let names = Names::new(&config, status.as_ref());
        to.as_ref().map_or(Ok(()), |to| to.check(&names))?;
        let entries = config.destinations.into_iter().filter_map(|named| named.entry.ok()).collect();
        Ok(Self { home, to, names, own, entries, known: Vec::new(), by_dir: HashMap::new() })
    }

    /// True if this process's environment names the destination of everything.
    pub(super) fn are_given(&self) -> bool {
        let own = Env::new(pairs(&self.own));
        match &self.to {
            Some(To::Kind(kind)) => matches!(kind.backend().route(&own), Ok(Some(_))),
            Some(To::Name(_)) => false,
            None => own.destination().is_ok(),
        }
    }

    pub(crate) fn get(&self, route: usize) -> &Route {
        &self.known[route]
    }

    /// The routes of sessions in `cwd`, one for each destination; empty if they are not traced.
    pub(crate) fn of(&mut self, cwd: Option<&Path>) -> Vec<usize> {
        let cwd = cwd.map(real);
        if let Some(known) = self.by_dir.get(&cwd) {
            return known.clone();
        }
        let found = self.find(cwd.as_deref());
        let first = self.known.len();
        self.known.extend(found);
        let routes = Vec::from_iter(first..self.known.len());
        self.by_dir.insert(cwd, routes.clone());
        routes
    }

    fn find(&self, cwd: Option<&Path>) -> Vec<Route> {
        let are_given = self.are_given();
        let mut vars = layers::resolve(cwd, &crate::client::user_dir(&self.home));
        vars.retain(|name, _| proto::env::forwarded().any(|known| known == *name) && !name.starts_with("CLAUDE_"));
        if are_given {
            // A project's options apply wherever its spans go; only the destination is decided here.
            vars.retain(|name, _| !is_address(name));
            vars.extend(self.own.iter().cloned());
            vars.insert(proto::env::ENABLE.to_owned(), "true".to_owned());
        } else {
            // The daemon finds the key itself, in the file that chose the server.
            let own = self.own.iter().filter(|(name, _)| name == "CLAUDE_CONFIG_DIR");
            vars.extend(own.cloned());
        }
        // Paths relative to a project need its directory.
        vars.extend(cwd.and_then(Path::to_str).map(|dir| ("CLAUDE_PROJECT_DIR".to_owned(), dir.to_owned())));
        if !Env::of(&vars).enabled() {
            return Vec::new();
        }
        let narrowed = |mut vars: BTreeMap<String, String>, kind: Kind| {
            narrow(&mut vars, kind);
            vars
        };
        let env = Env::of(&vars);
        let mut kinds: Vec<Kind> = match (&self.to, are_given) {
            // A requested kind counts whether or not it is switched on.
            (Some(To::Kind(kind)), true) => vec![*kind],
            _ => env.routes().0.into_iter().map(|(to, _)| to.kind).collect(),
        };
        if kinds.is_empty() && are_given {
            kinds.extend(env.destination().ok().map(|(to, _)| to.kind));
        }
        let mut all: Vec<BTreeMap<String, String>> =
            kinds.into_iter().map(|kind| narrowed(vars.clone(), kind)).collect();
        if !are_given {
            let homes = [self.home.clone(), real(&self.home)];
            for entry in self.entries.iter().filter(|entry| entry.takes(cwd, &homes)) {
                let kind = entry.destination.kind;
                let mut vars = vars.clone();
                vars.retain(|name, _| !is_address(name));
                // Certificates are found with the secret, in the settings files.
                let own = entry.vars.iter().filter(|(name, _)| !proto::env::is_kept_in_memory(name));
                vars.extend(own.map(|(name, value)| ((*name).to_owned(), value.clone())));
                all.push(narrowed(vars, kind));
            }
        }
        let mut routes: Vec<Route> = Vec::new();
        for vars in all {
            let env: Vec<(String, String)> = vars.into_iter().collect();
            let read = Env::new(pairs(&env));
            let Ok((destination, _)) = read.destination() else { continue };
            let is_meant = self.to.as_ref().is_none_or(|to| to.means(&destination, &self.names));
            if !is_meant || routes.iter().any(|route| route.destination == destination) {
                continue;
            }
            let options = read.options();
            let env = env.into_iter().filter(|(name, _)| are_given || !proto::env::is_secret(name)).collect();
            routes.push(Route { destination, options, env });
        }
        routes
    }
}

fn is_address(name: &str) -> bool {
    let says_where = |role| matches!(role, Role::Address | Role::Account | Role::Secret | Role::Tls);
    VARIABLES.iter().any(|row| row.name == name && says_where(row.role))
}

fn pairs(env: &[(String, String)]) -> impl Iterator<Item = (&str, &str)> {
    env.iter().map(|(name, value)| (name.as_str(), value.as_str()))
}
