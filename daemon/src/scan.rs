//! Scans for sessions without a hook event: Claude Code was killed, or the hook is not registered for the event. Checks
//! every transcript written since the daemon's first start, if the settings files of its project turn tracing on.

use std::{
    collections::{HashMap, VecDeque},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{
    clock::now_ns,
    consent_files::Consent,
    credentials::{layers, user_dir},
    engine::Refused,
    reader::{Transcript, Unreadable, places::projects},
    store::{self, FirstStart, handle::Handle},
};
use cc_core::{
    complete::QUIET_FINISHED,
    hook::{Event, Hint, Source},
    route::Env,
    transcript::record,
};

mod settings_cache;

use settings_cache::ProjectSettings;
pub use settings_cache::SettingsCache;

/// A session whose transcript has been silent for longer than this is not waited for.
const ABANDONED_AFTER: Duration = Duration::from_secs(6 * 3600);

/// A session that a scan found. There may be very many, so its event is made only when it is its turn.
#[derive(Clone, Debug)]
pub struct Candidate {
    dir: Arc<Path>,
    id: Box<str>,
    /// The modification time of its transcript, Unix milliseconds.
    written: i64,
}

impl Candidate {
    fn is_over(&self, now_ms: i64) -> bool {
        now_ms - self.written > millis(ABANDONED_AFTER)
    }

    /// True if its transcript has been silent for so long that there is nothing to wait for; also if its time contradicts the
    /// clock.
    pub fn is_silent(&self, now_ms: i64) -> bool {
        !(0..millis(QUIET_FINISHED)).contains(&(now_ms - self.written))
    }
}

#[derive(Clone)]
pub struct Scan {
    pub store: Handle,
    /// The directories of transcripts.
    pub roots: Vec<PathBuf>,
    pub home: PathBuf,
    /// Decides whether tracing is on, and who chose the destinations.
    pub consent: Consent,
    /// The log of transcripts that are not read.
    pub refused: Refused,
    /// Settings of projects that were read a moment ago.
    pub settings: Arc<Mutex<SettingsCache>>,
}

impl Scan {
    /// Every session that may have something unread, oldest modification first: a copy is written to after its original.
    /// `now_ms` is Unix milliseconds.
    pub fn run(&self, now_ms: i64) -> VecDeque<Candidate> {
        let Ok(first_start) = self.store.call(|store| store.first_start()) else { return VecDeque::new() };
        let since = first_start.since(now_ms);
        // The newest transcript from before the first start, whatever the clock said then.
        let mut newest = 0;
        let mut found = Vec::new();
        for (dir, why) in self.roots.iter().flat_map(|root| projects(root)) {
            if let Some(error) = why {
                self.refused.name(&dir, &error);
                continue;
            }
            let files = entries(&dir);
            let dir: Arc<Path> = dir.into();
            for path in files {
                let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
                if name.starts_with("agent-") || path.extension().is_none_or(|ext| ext != "jsonl") {
                    continue;
                }
                let Some(written) = written(&path) else { continue };
                if first_start.newest_ms.is_none() && (written < first_start.at_ms || store::is_ahead(written, now_ms))
                {
                    newest = newest.max(written);
                    continue;
                }
                let was_there = first_start.newest_ms.is_some_and(|newest| written <= newest);
                if written < since || was_there && store::is_ahead(written, now_ms) {
                    continue;
                }
                let candidate = Candidate { dir: dir.clone(), id: name.into(), written };
                if self.is_unread(&candidate, now_ms) {
                    found.push(candidate);
                }
            }
        }
        let first_start = match first_start.newest_ms {
            None => FirstStart { newest_ms: Some(newest), ..first_start },
            Some(_) => FirstStart { at_ms: since.min(first_start.at_ms), ..first_start },
        };
        if let Err(error) = self
            .store
            .call(|store| if store.first_start()? == first_start { Ok(()) } else { store.set_first_start(first_start) })
        {
            tracing::warn!(%error, "what was there at the first search cannot be stored");
        }
        found.sort_unstable_by(|a, b| (a.written, &a.id).cmp(&(b.written, &b.id)));
        found.into()
    }

    /// Removes sessions with silent transcripts from the front of `found`, the oldest, and returns events for up to `count` of
    /// them. One that got a hook event meanwhile is removed without an event when it is the oldest: asking for all of them
    /// on each call would cost more than reading them.
    pub fn take(&self, found: &mut VecDeque<Candidate>, count: usize, now_ms: i64) -> Vec<Hint> {
        let mut hints = Vec::with_capacity(count);
        let mut seen = Seen::new();
        while hints.len() < count
            && let Some(candidate) = found.front()
        {
            if !candidate.is_silent(now_ms) && self.is_unread(candidate, now_ms) {
                break;
            }
            hints.extend(self.event_of(candidate, now_ms, &mut seen));
            found.pop_front();
        }
        hints
    }

    /// True if the session may have something unread.
    pub fn is_unread(&self, candidate: &Candidate, now_ms: i64) -> bool {
        self.unread(candidate, now_ms).is_some()
    }

    /// Whether the session is known; `None` if all of it was read, or that cannot be determined.
    fn unread(&self, candidate: &Candidate, now_ms: i64) -> Option<bool> {
        let Some((read, open)) = self.store.call(|store| store.stand(&candidate.id)).ok()? else { return Some(false) };
        // It was read while the clock was ahead.
        let is_unknown = store::is_ahead(read, now_ms);
        (is_unknown || read < candidate.written || open && candidate.is_over(now_ms)).then_some(true)
    }

    /// The event for a session; `None` if its project does not want it traced, or it was read meanwhile.
    pub fn event(&self, candidate: &Candidate, now_ms: i64) -> Option<Hint> {
        self.event_of(candidate, now_ms, &mut Seen::new())
    }

    fn event_of(&self, candidate: &Candidate, now_ms: i64, seen: &mut Seen) -> Option<Hint> {
        let known = match self.unread(candidate, now_ms)? {
            true => self.store.call(|store| store.session(&candidate.id)).ok()?,
            false => None,
        };
        let path = candidate.dir.join(format!("{}.jsonl", candidate.id));
        let mut like = match known {
            Some(row) => self.is_on(&row.hint).then_some(row.hint)?,
            None => self.settings_of(&path, seen)?,
        };
        like.source = Source::Scan;
        self.consent.configured().join(&mut like);
        if like.targets.is_empty() {
            return None;
        }
        let (id, written, is_over) = (&*candidate.id, candidate.written, candidate.is_over(now_ms));
        Some(Hint {
            id: Source::Scan.id(format_args!("{id}-{written}")),
            source: Source::Scan,
            fired_ns: u64::try_from(written).ok()?.saturating_mul(1_000_000),
            session_id: id.to_owned(),
            transcript: path,
            event: if is_over { Event::Ended } else { Event::Other },
            ..like
        })
    }

    /// True if the settings files still turn tracing on for a known session; records that.
    fn is_on(&self, hint: &Hint) -> bool {
        let is_on = self.consent.is_on(&hint.project_dirs, hint.config_dir.as_deref());
        self.see(hint.project_dirs.last().map(PathBuf::as_path), is_on) && is_on
    }

    /// Records whether tracing was seen on in a project. False if that cannot be stored: then nothing may be read.
    fn see(&self, dir: Option<&Path>, is_on: bool) -> bool {
        let Some(dir) = dir else { return true };
        let seen = self.store.call(|store| store.see(dir, is_on, now_ns()));
        seen.inspect_err(|error| tracing::warn!(%error, "whether tracing is on cannot be stored")).is_ok()
    }

    /// The event template for the project of a transcript by its settings files; `None` if they do not turn tracing on. `seen`
    /// caches results.
    fn settings_of(&self, transcript: &Path, seen: &mut Seen) -> Option<Hint> {
        let opened = Transcript::open_beneath(transcript, &self.roots);
        // One that is gone was removed a moment ago.
        if let Err(error) = &opened
            && !matches!(error, Unreadable::Missing)
        {
            self.refused.name(transcript, error);
        }
        let mut file = opened.ok()?;
        let cwd = file.head().ok().and_then(record::cwd)?;
        // In Claude Code's own directory, transcripts and user settings are together.
        let root = self.roots.iter().find(|root| root.ends_with("projects") && transcript.starts_with(root));
        let user = root.and_then(|root| root.parent()).map_or_else(|| user_dir(None, &self.home), Path::to_owned);
        let key = (PathBuf::from(cwd), user);
        if let Some(like) = seen.get(&key) {
            return like.clone();
        }
        let like = self.settings_in(&key.0, &key.1);
        seen.insert(key, like.clone());
        like
    }

    /// The same for the project in `cwd`, with the user's settings in `user`.
    fn settings_in(&self, cwd: &Path, user: &Path) -> Option<Hint> {
        let cwd = cwd.canonicalize().ok()?;
        let default = user_dir(None, &self.home);
        let user = user.to_owned();
        let config_dir = Some(&user).filter(|user| **user != default);
        let project_settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner).of(
            &cwd,
            &user,
            || layers::stamps(std::slice::from_ref(&cwd), config_dir.map(PathBuf::as_path), &self.home),
            || self.project_settings(&cwd, &user, config_dir),
        );
        if self.see(Some(&cwd), project_settings.is_on) && project_settings.is_on {
            project_settings.like
        } else {
            None
        }
    }

    fn project_settings(&self, cwd: &Path, user: &Path, config_dir: Option<&PathBuf>) -> ProjectSettings {
        let vars = layers::for_hook(Some(cwd), user);
        let env = Env::of(&vars);
        let is_on = env.enabled();
        let targets = || env.routes().0.into_iter().map(|(destination, _)| destination.into()).collect::<Vec<_>>();
        // None if only `config.toml` says where.
        let like = is_on.then(targets).map(|targets| {
            let mut hint = Hint {
                id: String::new(),
                source: Source::Scan,
                fired_ns: 0,
                session_id: String::new(),
                transcript: PathBuf::new(),
                event: Event::Other,
                project_dirs: vec![cwd.to_owned()],
                config_dir: config_dir.cloned(),
                targets,
                former: Vec::new(),
                settings_on: true,
                options: env.options(),
                debug: false,
                totals_follow: false,
            };
            self.consent.judge(&mut hint, &vars);
            hint
        });
        ProjectSettings { is_on, like }
    }
}

/// Event templates by the project's directory and that of the user's settings, for the sessions of one call.
type Seen = HashMap<(PathBuf, PathBuf), Option<Hint>>;

/// The modification time of a transcript in Unix milliseconds; `None` if it is not a transcript, or empty.
fn written(path: &Path) -> Option<i64> {
    let meta = std::fs::symlink_metadata(path).ok().filter(|meta| meta.is_file() && meta.len() > 0)?;
    Some(meta.mtime() * 1000 + meta.mtime_nsec() / 1_000_000)
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// The entries of a directory; empty if it is missing.
fn entries(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    const HOUR: i64 = 3_600_000;

    #[test]
    fn sessions_of_projects_that_are_traced_are_found_if_they_were_written_to_since() {
        let base = tempfile::tempdir().unwrap();
        let home = base.path().canonicalize().unwrap();
        let at = |name: &str| home.join(name);
        for (project, enabled) in [("on", "true"), ("off", "false")] {
            std::fs::create_dir_all(at(project).join(".claude")).unwrap();
            let env = format!(r#"{{"env":{{"TRACE_TO_LANGFUSE":"{enabled}","LANGFUSE_PUBLIC_KEY":"pk"}}}}"#);
            std::fs::write(at(project).join(".claude/settings.local.json"), env).unwrap();
            let dir = at(".claude/projects").join(project);
            std::fs::create_dir_all(&dir).unwrap();
            let line = format!("{{\"type\":\"mode\"}}\n{{\"type\":\"user\",\"cwd\":{:?}}}\n", at(project));
            for name in ["s-1.jsonl", "agent-a.jsonl", "notes.txt"] {
                std::fs::write(dir.join(name), &line).unwrap();
            }
            std::fs::write(dir.join("empty.jsonl"), "").unwrap();
        }
        let store = Handle::new(Store::open(&at("state.db")).unwrap().store);
        let since = store.call(|store| store.first_start()).unwrap().at_ms;
        let scan = Scan {
            store: store.clone(),
            roots: vec![at(".claude/projects")],
            home: home.clone(),
            consent: Consent::new(&home, Default::default()),
            refused: Refused::default(),
            settings: Default::default(),
        };
        let found = |now| -> Vec<_> {
            let hints = scan.run(now).into_iter().filter_map(|candidate| scan.event(&candidate, now));
            hints.map(|hint| (hint.session_id, hint.transcript, hint.event, hint.project_dirs)).collect()
        };
        let transcript = at(".claude/projects/on/s-1.jsonl");
        let written = |at: i64| {
            let time = std::time::SystemTime::UNIX_EPOCH + Duration::from_millis(at as u64);
            std::fs::File::options().write(true).open(&transcript).unwrap().set_modified(time).unwrap();
        };
        written(since);
        let expect = |event| vec![("s-1".to_owned(), transcript.clone(), event, vec![at("on")])];
        assert_eq!(found(since), expect(Event::Other));
        assert_eq!(found(since + 7 * HOUR), expect(Event::Ended), "silent for long");
        written(since - 1);
        assert_eq!(found(since), [], "written before");
    }

    /// A home with one project that is traced, a database begun at `begun` and the sessions `at` that were written to then.
    fn searched(first_start: i64, at: &[(&str, i64)]) -> (tempfile::TempDir, Scan, impl Fn(&str, i64)) {
        let base = tempfile::tempdir().unwrap();
        let home = base.path().canonicalize().unwrap();
        let (project, dir) = (home.join("on"), home.join(".claude/projects/on"));
        std::fs::create_dir_all(project.join(".claude")).unwrap();
        std::fs::create_dir_all(&dir).unwrap();
        let env = r#"{"env":{"TRACE_TO_LANGFUSE":"true","LANGFUSE_PUBLIC_KEY":"pk"}}"#;
        std::fs::write(project.join(".claude/settings.local.json"), env).unwrap();
        let write = move |id: &str, written: i64| {
            let path = dir.join(format!("{id}.jsonl"));
            std::fs::write(&path, format!("{{\"type\":\"user\",\"cwd\":{project:?}}}\n")).unwrap();
            let time = std::time::SystemTime::UNIX_EPOCH + Duration::from_millis(written as u64);
            std::fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
        };
        at.iter().for_each(|(id, written)| write(id, *written));
        let store = Handle::new(Store::open(&home.join("state.db")).unwrap().store);
        store.call(|store| store.set_first_start(FirstStart { at_ms: first_start, newest_ms: None })).unwrap();
        let consent = Consent::new(&home, Default::default());
        (
            base,
            Scan {
                store,
                roots: vec![home.join(".claude/projects")],
                home,
                consent,
                refused: Refused::default(),
                settings: Default::default(),
            },
            write,
        )
    }

    #[test]
    fn a_first_start_with_a_wrong_clock_heals_when_it_is_right() {
        const NOW: i64 = 1_800_000_000_000;
        for wrong in [400 * 24 * HOUR, 2 * HOUR, -2 * HOUR, -400 * 24 * HOUR] {
            let (_base, scan, write) = searched(NOW + wrong, &[("before", NOW - HOUR)]);
            let ids = |now| scan.run(now).into_iter().map(|found| found.id.into_string()).collect::<Vec<_>>();
            assert_eq!(ids(NOW + wrong), [""; 0], "{wrong}: the first search");
            assert_eq!(ids(NOW + wrong + HOUR / 4), [""; 0], "{wrong}: and the next");
            write("after", NOW + HOUR);
            assert_eq!(ids(NOW + HOUR + HOUR / 4), ["after"], "{wrong}");
        }
    }

    #[test]
    fn the_oldest_come_first_and_those_that_are_written_to_wait() {
        const NOW: i64 = 1_800_000_000_000;
        let quiet = millis(QUIET_FINISHED);
        let at = [("still", NOW - 10), ("third", NOW - quiet), ("first", NOW - HOUR), ("second", NOW - HOUR / 2)];
        let (_base, scan, write) = searched(NOW - 2 * HOUR, &at);
        write("late", NOW - quiet + 1);
        let mut found = scan.run(NOW);
        let mut take = |count, now| {
            let hints = scan.take(&mut found, count, now).into_iter().map(|hint| hint.session_id);
            (hints.collect::<Vec<_>>().join(" "), found.len())
        };
        assert_eq!(take(2, NOW), ("first second".into(), 3));
        assert_eq!(take(9, NOW), ("third".into(), 2));
        assert_eq!(take(9, NOW), (String::new(), 2));
        assert_eq!(take(9, NOW + quiet), ("late still".into(), 0));
    }

    #[test]
    fn one_that_was_read_meanwhile_holds_up_no_other() {
        const NOW: i64 = 1_800_000_000_000;
        let at = [("a", NOW - 30), ("b", NOW - 20), ("c", NOW - 10)];
        let (_base, scan, _) = searched(NOW - HOUR, &at);
        let mut found = scan.run(NOW);
        assert_eq!(scan.take(&mut found, 9, NOW), [], "all are written to");
        let mut step = store::tests::step(Vec::new());
        (step.session.session_id, step.session.open_turn, step.now_ms) = ("a".into(), false, NOW);
        scan.store.call(|store| store.advance(&step)).unwrap();
        assert_eq!(scan.take(&mut found, 9, NOW), []);
        assert_eq!(found.iter().map(|one| &*one.id).collect::<Vec<_>>(), ["b", "c"], "the first is done");
    }

    #[test]
    fn each_session_of_a_search_is_judged_by_the_settings_files_of_its_moment() {
        const NOW: i64 = 1_800_000_000_000;
        let ids: Vec<String> = (0..12).map(|n| format!("s-{n:02}")).collect();
        let at: Vec<_> = ids.iter().map(|id| (id.as_str(), NOW - HOUR)).collect();
        let (_base, scan, _) = searched(NOW - 2 * HOUR, &at);
        let file = scan.home.join("on/.claude/settings.local.json");
        let says = |text: &str| std::fs::write(&file, text).unwrap();
        let on = |key: &str| format!(r#"{{"env":{{"TRACE_TO_LANGFUSE":"true","LANGFUSE_PUBLIC_KEY":"{key}"}}}}"#);
        let mut found = scan.run(NOW).into_iter();
        let mut next = || {
            let hint = scan.event(&found.next().unwrap(), NOW);
            hint.map(|hint| hint.targets[0].destination.account.clone())
        };
        assert_eq!([next(), next()], [Some("pk".into()), Some("pk".into())]);
        says(&on("other"));
        assert_eq!([next(), next()], [Some("other".into()), Some("other".into())]);
        says("{}");
        assert_eq!([next(), next()], [None, None]);
        assert!(!scan.store.call(|store| store.off(&scan.home.join("on"))).unwrap().is_empty(), "seen off");
        std::fs::remove_file(&file).unwrap();
        assert_eq!(next(), None);
        // Another file that has not been there, and one behind a link.
        std::fs::write(file.with_file_name("settings.json"), on("shared")).unwrap();
        assert_eq!([next(), next()], [Some("shared".into()), Some("shared".into())]);
        std::os::unix::fs::symlink(file.with_file_name("settings.json"), &file).unwrap();
        assert_eq!(next(), Some("shared".into()));
        std::fs::write(file.with_file_name("settings.json"), "{}").unwrap();
        assert_eq!([next(), next()], [None, None]);
    }
}
