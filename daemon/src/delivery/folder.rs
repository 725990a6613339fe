//! Writes spans to MLflow's file store, a directory in place of a server. [`filestore`] decides the contents; this module
//! writes them so that a reader finds each trace either complete or as it was before, whenever this program is killed.

use std::{fmt, io, path::Path};

use cc_core::{
    destination::{
        mlflow::filestore::{self, EXPERIMENT, Experiment, Place, SPANS, Which},
        wire::WireSpan,
    },
    ids::{TraceId, hex},
};

use crate::{
    files::{
        Refused,
        dir::{self, Dir},
    },
    git::exclude,
};

/// How many bytes of a trace's stored spans are read again at most, to add new spans to them.
const MAX_REREAD_BYTES: u64 = 256 << 20;

/// Where MLflow's integration with Claude Code keeps its runs, below a project.
const DEFAULT: &str = ".claude/mlflow/runs";

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Temporary: no room, a failing disk.
    Later(String),
    /// A person has to fix something.
    Park(String),
}

impl Trouble {
    fn at(what: impl fmt::Display, refused: &Refused) -> Self {
        let transient = [
            io::ErrorKind::StorageFull,
            io::ErrorKind::QuotaExceeded,
            io::ErrorKind::Interrupted,
            io::ErrorKind::Other,
            io::ErrorKind::ResourceBusy,
            io::ErrorKind::NotFound,
        ];
        match refused {
            Refused::NotAFile => Self::Park(format!("{what} is a link or of another sort than expected: remove it")),
            Refused::Io(error) if transient.contains(&error.kind()) || is_of_hardware(error) => {
                Self::Later(format!("{what}: {error}"))
            }
            refused => Self::Park(format!("{what}: {refused}")),
        }
    }
}

fn is_of_hardware(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
        || error.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error())
}

/// Writes `spans` below `root`, an absolute path, and creates what is missing there. Writing the same spans again
/// changes nothing. `now_ms` is in milliseconds since the epoch.
///
/// # Errors
/// [`Trouble`]; then nothing counts as written.
pub(super) fn write(root: &Path, which: &Which, spans: &[WireSpan], now_ms: u64) -> Result<(), Trouble> {
    let is_default = root.ends_with(DEFAULT);
    let private = root.parent().filter(|_| is_default).unwrap_or(root);
    // Nothing is written through a link, so nothing is read through one either.
    dir::there(root, strict(root)).map_err(|why| Trouble::at(root.display(), &why))?;
    exclude::keep_out(private).map_err(Trouble::Park)?;
    let store = dir::made(root, strict(root)).map_err(|why| Trouble::at(root.display(), &why))?;
    let failed = |what: &str| {
        let what = root.join(what).display().to_string();
        move |why: Refused| Trouble::at(what, &why)
    };
    let spoiled = |what: &str| {
        let failed = failed(what);
        move |why: io::Error| failed(Refused::Io(why))
    };
    if let Some(project) = root.parent().filter(|_| is_default) {
        keep_from_git(project).map_err(|why| Trouble::at(project.display(), &why))?;
    }
    store.made(".trash").map_err(failed(".trash"))?;
    let id = experiment(&store, root, which, now_ms)?;
    let experiment = store.made(&id).map_err(failed(&id))?;
    let traces = experiment.made("traces").map_err(failed("traces"))?;
    let url = url_of(&root.join(&id));
    let place = Place { experiment_url: &url, experiment: &id };

    let mut groups: Vec<(TraceId, Vec<WireSpan>)> = Vec::new();
    for span in spans {
        match groups.iter_mut().find(|(trace, _)| *trace == span.trace_id) {
            Some((_, group)) => group.push(span.clone()),
            None => groups.push((span.trace_id, vec![span.clone()])),
        }
    }
    for (trace, group) in &groups {
        let name = filestore::name(*trace);
        let dir = traces.made(&name).map_err(failed(&name))?;
        for file in files(&dir, group, &place).map_err(failed(&name))? {
            let (below, name) = file.path.split_once('/').unwrap_or(("", &file.path));
            let there = if below.is_empty() { None } else { Some(dir.made(below).map_err(failed(below))?) };
            let there = there.as_ref().unwrap_or(&dir);
            let is_same = |there: &Dir| {
                there.read(name, MAX_REREAD_BYTES).is_ok_and(|now| now.as_deref() == Some(file.content.as_bytes()))
            };
            if !is_same(there) {
                dir.put(file.content.as_bytes(), there, name).map_err(spoiled(name))?;
            }
        }
        dir.sync().map_err(spoiled(&name))?;
    }
    traces.sync().map_err(spoiled("traces"))?;
    if let Some(project) = root.parent().filter(|_| is_default) {
        log(project, &groups, now_ms);
    }
    Ok(())
}

/// How many of the last components of `root` must not be links.
pub(super) fn strict(root: &Path) -> usize {
    if root.ends_with(DEFAULT) { 3 } else { 1 }
}

/// The files to write for a trace. Unreadable stored spans are set aside.
fn files(dir: &Dir, spans: &[WireSpan], place: &Place<'_>) -> Result<Vec<filestore::File>, Refused> {
    let (below, name) = SPANS.split_once('/').unwrap_or(("", SPANS));
    let artifacts = dir.made(below)?;
    let stored = artifacts.read(name, MAX_REREAD_BYTES)?.map(String::from_utf8);
    let stored = stored.map(|text| text.unwrap_or_default());
    match filestore::merged(stored.as_deref(), spans, place) {
        Ok(files) => Ok(files),
        Err(error) => {
            tracing::warn!(trace = hex(&spans[0].trace_id), %error, "the stored spans of a trace are damaged; they are set aside");
            artifacts.put(stored.unwrap_or_default().as_bytes(), &artifacts, &format!("{name}.damaged"))?;
            filestore::merged(None, spans, place).map_err(|error| Refused::Io(error.into()))
        }
    }
}

/// The id of the experiment; creates its `meta.yaml` if it is missing.
fn experiment(store: &Dir, root: &Path, which: &Which, now_ms: u64) -> Result<String, Trouble> {
    let meta = |dir: &Dir| -> Result<Option<Experiment>, Refused> {
        let meta = dir.read(EXPERIMENT, 1 << 20)?;
        Ok(meta.and_then(|meta| Experiment::read(std::str::from_utf8(&meta).ok()?)))
    };
    let at = |name: &str, why: &Refused| Trouble::at(root.join(name).display(), why);
    let make = |id: &str, name: &str| -> Result<String, Trouble> {
        let dir = store.made(id).map_err(|why| at(id, &why))?;
        let url = url_of(&root.join(id));
        let content = filestore::experiment(&Place { experiment_url: &url, experiment: id }, name, now_ms);
        dir.put(content.as_bytes(), &dir, EXPERIMENT).map_err(|why| at(id, &Refused::Io(why)))?;
        Ok(id.to_owned())
    };
    let deleted = |what: &str| {
        Trouble::Park(format!("experiment {what} in {} was deleted: restore it, or name another", root.display()))
    };
    match which {
        Which::Id(id) => {
            if id.is_empty() || !id.bytes().all(|b| b.is_ascii_digit()) {
                return Err(Trouble::Park(format!(
                    "{id} is no id of an experiment: MLFLOW_EXPERIMENT_NAME takes names"
                )));
            }
            let there = store.below(id).map_err(|why| at(id, &why))?;
            match there.as_ref().map(&meta).transpose().map_err(|why| at(id, &why))?.flatten() {
                Some(experiment) if experiment.is_active => Ok(id.to_owned()),
                Some(_) => Err(deleted(id)),
                // In a new store, MLflow creates this experiment itself.
                None if id == "0" => make(id, "Default"),
                None => Err(Trouble::Park(format!("there is no experiment {id} in {}", root.display()))),
            }
        }
        Which::Name(name) => {
            let mut ids = store.names().map_err(|why| at("", &Refused::Io(why)))?;
            ids.sort_unstable();
            for id in ids.iter().filter(|id| id.bytes().all(|b| b.is_ascii_digit())) {
                let Ok(Some(dir)) = store.below(id) else { continue };
                match meta(&dir) {
                    Ok(Some(there)) if there.name == *name && there.is_active => return Ok(id.clone()),
                    Ok(Some(there)) if there.name == *name => return Err(deleted(name)),
                    _ => {}
                }
            }
            let trash = store.below(".trash").map_err(|why| at(".trash", &why))?;
            for id in trash.iter().flat_map(|trash| trash.names().unwrap_or_default()) {
                let dir = trash.as_ref().and_then(|trash| trash.below(&id).ok().flatten());
                if dir.and_then(|dir| meta(&dir).ok().flatten()).is_some_and(|there| there.name == *name) {
                    return Err(deleted(name));
                }
            }
            make(&filestore::new_id(name), name)
        }
    }
}

/// Makes git ignore `dir` and everything below it.
fn keep_from_git(dir: &Path) -> Result<(), Refused> {
    let dir = Dir::open(dir)?;
    if dir.read(".gitignore", 1 << 16)?.is_none() {
        dir.put(b"*\n", &dir, ".gitignore")?;
    }
    Ok(())
}

/// Adds a line for each turn to `claude_tracing.log`, like MLflow's own integration.
fn log(dir: &Path, groups: &[(TraceId, Vec<WireSpan>)], now_ms: u64) {
    let at = i64::try_from(now_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()).unwrap_or_default();
    for (trace, spans) in groups {
        let Some(root) = spans.iter().find(|span| span.is_root()) else { continue };
        let session = cc_core::visible::line(root.text("session.id").unwrap_or_default()).into_owned();
        let name = cc_core::visible::line(&root.name);
        let line = format!("{at} INFO traced {name} of session {session}: {}\n", filestore::name(*trace));
        if let Err(error) = Dir::open(dir).and_then(|dir| dir.append("claude_tracing.log", &line)) {
            tracing::debug!(%error, "claude_tracing.log cannot be written");
        }
    }
}

fn url_of(path: &Path) -> String {
    url::Url::from_file_path(path).map_or_else(|()| format!("file://{}", path.display()), String::from)
}

#[cfg(test)]
mod tests {
    use std::{
        borrow::Cow,
        collections::BTreeSet,
        fs,
        os::unix::fs::{PermissionsExt, symlink},
        path::PathBuf,
    };

    use cc_core::destination::{
        mlflow::filestore::INFO,
        wire::{Status, Value},
    };

    use super::*;

    const NOW: u64 = 1_795_855_143_182;

    fn span(trace: u8, id: u8, parent: u8) -> WireSpan {
        let text = |text: &str| Value::Text(text.to_owned());
        WireSpan {
            trace_id: [trace; 16],
            span_id: [id; 8],
            parent_id: [parent; 8],
            name: "Turn 1".to_owned(),
            start_ns: NOW * 1_000_000,
            end_ns: NOW * 1_000_000 + 5_000_000,
            status: Status::Ok,
            attributes: vec![(Cow::from("session.id"), text("s\nt")), ("mlflow.traceTag.k".into(), text("v"))],
            ..WireSpan::default()
        }
    }

    /// Every path below `dir`, with its permissions.
    fn tree(dir: &Path) -> BTreeSet<(PathBuf, u32)> {
        let mut all = BTreeSet::new();
        let mut dirs = vec![dir.to_owned()];
        while let Some(at) = dirs.pop() {
            for entry in fs::read_dir(at).unwrap().map(Result::unwrap) {
                let meta = entry.metadata().unwrap();
                all.insert((entry.path().strip_prefix(dir).unwrap().to_owned(), meta.permissions().mode() & 0o777));
                dirs.extend(meta.is_dir().then(|| entry.path()));
            }
        }
        all
    }

    #[test]
    fn writing_the_same_spans_again_changes_nothing() {
        let project = tempfile::tempdir().unwrap();
        let root = project.path().join(DEFAULT);
        let spans = [span(1, 1, 0), span(2, 3, 2)];
        write(&root, &Which::Id("0".into()), &spans, NOW).unwrap();
        let made = tree(project.path());
        for (path, mode) in &made {
            let is_file = project.path().join(path).is_file();
            assert_eq!(*mode, if is_file { 0o600 } else { 0o700 }, "{}", path.display());
        }
        let trace = format!("0/traces/tr-{}", "01".repeat(16));
        for path in
            [&format!("{trace}/{INFO}"), &format!("{trace}/{SPANS}"), &format!("{trace}/tags/k"), &"0/meta.yaml".into()]
        {
            assert!(root.join(path).is_file(), "{path}");
        }
        assert_eq!(fs::read_to_string(root.parent().unwrap().join(".gitignore")).unwrap(), "*\n");
        let log = fs::read_to_string(root.parent().unwrap().join("claude_tracing.log")).unwrap();
        assert_eq!(log.lines().count(), 1, "{log}");
        assert!(log.contains("traced Turn 1 of session s\\nt: tr-0101"), "{log}");
        let content = |root: &Path| fs::read_to_string(root.join(&trace).join(SPANS)).unwrap();
        let before = content(&root);
        write(&root, &Which::Id("0".into()), &spans, NOW + 1).unwrap();
        assert_eq!((tree(project.path()), content(&root)), (made, before));
    }

    #[test]
    fn an_experiment_is_found_by_name_unless_it_is_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("runs");
        let experiments = || {
            let names = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            names.filter(|name| name != ".trash").collect::<Vec<_>>()
        };
        write(&root, &Which::Name("mine: \"1\"".into()), &[span(1, 1, 0)], NOW).unwrap();
        let made = experiments();
        assert_eq!(made.len(), 1);
        write(&root, &Which::Name("mine: \"1\"".into()), &[span(2, 1, 0)], NOW).unwrap();
        assert_eq!(experiments(), made);
        write(&root, &Which::Id(made[0].clone()), &[span(3, 1, 0)], NOW).unwrap();
        assert_eq!(fs::read_dir(root.join(&made[0]).join("traces")).unwrap().count(), 3);
        fs::rename(root.join(&made[0]), root.join(".trash").join(&made[0])).unwrap();
        for which in [
            &Which::Name("mine: \"1\"".into()),
            &Which::Id("7".into()),
            &Which::Id("../x".into()),
            &Which::Id("".into()),
        ] {
            assert!(matches!(write(&root, which, &[span(1, 1, 0)], NOW), Err(Trouble::Park(_))), "{which:?}");
        }
    }

    #[test]
    fn a_link_anywhere_in_the_store_is_refused_and_its_target_is_kept() {
        let base = tempfile::tempdir().unwrap();
        let elsewhere = base.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        let trace = format!("tr-{}", "01".repeat(16));
        for at in [
            ".claude",
            ".claude/mlflow",
            DEFAULT,
            &format!("{DEFAULT}/0"),
            &format!("{DEFAULT}/0/traces"),
            &format!("{DEFAULT}/0/traces/{trace}/tags"),
        ] {
            let project = tempfile::tempdir_in(&base).unwrap();
            let link = project.path().join(at);
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            symlink(&elsewhere, &link).unwrap();
            let written = write(&project.path().join(DEFAULT), &Which::Id("0".into()), &[span(1, 1, 0)], NOW);
            assert!(matches!(written, Err(Trouble::Park(_))), "{at} {written:?}");
            assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0, "{at}");
        }
    }

    #[test]
    fn damaged_spans_are_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("runs");
        write(&root, &Which::Id("0".into()), &[span(1, 1, 0)], NOW).unwrap();
        let artifacts = root.join(format!("0/traces/tr-{}/artifacts", "01".repeat(16)));
        fs::write(artifacts.join("traces.json"), "{\"spans\":[{").unwrap();
        write(&root, &Which::Id("0".into()), &[span(1, 2, 1)], NOW).unwrap();
        assert_eq!(fs::read_to_string(artifacts.join("traces.json.damaged")).unwrap(), "{\"spans\":[{");
        assert!(fs::read_to_string(artifacts.join("traces.json")).unwrap().contains("AgICAgICAgI="));
    }
}
