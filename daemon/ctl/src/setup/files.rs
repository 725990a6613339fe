//! The files that setup changes: backups are kept beside them, and every change is recorded, so that it can be undone.

use std::{
    fs::{self, File, Permissions, TryLockError},
    io::{ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use cc_core::settings::{Ours, undo};
use cc_langfuse::{
    credentials::MAX_SETTINGS,
    files::{self, Refused, Rules},
};
use proto::paths::Paths;

/// What was done, in enough detail to undo it. Contains no secrets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Record {
    /// Files, in the order in which they were changed.
    pub files: Vec<Written>,
    /// Directories that were created, the outermost first.
    pub dirs: Vec<PathBuf>,
    /// The service manager that runs the daemon.
    pub service: Option<String>,
    /// User namespaces are forbidden here, so the service works without them.
    pub plain: bool,
}

/// A file that was changed or created.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Written {
    /// Its path, with links resolved.
    pub path: PathBuf,
    /// The backup of an existing file; without this program's part if it was there already.
    pub backup: Option<PathBuf>,
    /// Its mode before.
    pub mode: Option<u32>,
    /// Hash of what was written.
    pub sha256: String,
    /// Hash of the previous content: the file still has it if setup was interrupted before the write.
    #[serde(default)]
    pub replaced: String,
    /// This program's part of it.
    pub part: Part,
}

/// The part of a file that belongs to this program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Part {
    /// Members of a settings file.
    Settings(Ours),
    Lines(Vec<String>),
    Whole,
}

/// A planned change to a file.
#[derive(Debug)]
pub(crate) struct Change {
    /// Its path, with links resolved.
    pub path: PathBuf,
    /// The present text; `None` if there is no file.
    pub current: Option<String>,
    /// The new text; `None` if the file is removed.
    pub new: Option<String>,
    /// The new mode.
    pub mode: u32,
    /// The text without this program's part.
    pub original: Option<String>,
    /// This program's part of the new text.
    pub part: Part,
}

impl Record {
    /// The record of earlier changes.
    ///
    /// # Errors
    /// If it exists but cannot be read.
    pub(crate) fn load(paths: &Paths) -> anyhow::Result<Self> {
        let path = Self::path(paths);
        let Some(text) = read(&path)? else { return Ok(Self::default()) };
        serde_json::from_str(&text)
            .with_context(|| format!("{} is damaged: remove it, then run this again", path.display()))
    }

    /// Writes the record; removes it if it is empty.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn save(&mut self, paths: &Paths) -> anyhow::Result<()> {
        let path = Self::path(paths);
        if self.files.is_empty() && self.service.is_none() {
            return remove(&path);
        }
        make_dirs(&paths.state, 0o700, &mut self.dirs)?;
        write(&path, &(serde_json::to_string_pretty(self)? + "\n"), 0o600)
    }

    fn path(paths: &Paths) -> PathBuf {
        paths.state.join("setup.json")
    }

    /// The record for `path`.
    pub(crate) fn of(&self, path: &Path) -> Option<&Written> {
        self.files.iter().find(|written| written.path == path)
    }

    /// The text at `path` that setup starts from: the `current` text without earlier changes.
    ///
    /// # Errors
    /// If it does not parse.
    pub(crate) fn original(&self, path: &Path, current: Option<&str>) -> anyhow::Result<Option<String>> {
        match self.of(path) {
            Some(written) => written.original(current),
            None => Ok(current.map(str::to_owned)),
        }
    }

    /// Records `change`, and carries it out: a change that was recorded but not carried out needs no undo.
    ///
    /// # Errors
    /// If the backup, the record or the file cannot be written.
    pub(crate) fn make(&mut self, change: &Change, paths: &Paths) -> anyhow::Result<()> {
        make_dirs(change.path.parent().context("no directory")?, 0o777, &mut self.dirs)?;
        let before = self.of(&change.path).cloned();
        let backup = match (&change.original, before.as_ref().and_then(|before| before.backup.clone())) {
            (None, None) => None,
            (None, Some(old)) => remove(&old).map(|()| None)?,
            (Some(original), old) => {
                let path = old.map_or_else(|| unused(&change.path), Ok)?;
                write(&path, original, 0o600)?;
                Some(path)
            }
        };
        let mode = match &before {
            Some(before) => before.mode,
            None => mode(&change.path),
        };
        let [sha256, replaced] = [&change.new, &change.current].map(|text| hash(text.as_deref().unwrap_or_default()));
        let written = Written { path: change.path.clone(), backup, mode, sha256, replaced, part: change.part.clone() };
        match self.files.iter_mut().find(|known| known.path == written.path) {
            Some(known) => *known = written,
            None => self.files.push(written),
        }
        self.save(paths)?;
        change.make()
    }

    /// Reverts `change`, which was just made, to the record `before`.
    ///
    /// # Errors
    /// If the file, its backup or the record cannot be written.
    pub(crate) fn unmake(&mut self, change: &Change, before: Self, paths: &Paths) -> anyhow::Result<()> {
        match &change.current {
            Some(text) => write(&change.path, text, change.mode)?,
            None => remove(&change.path)?,
        }
        let copy = |record: &Self| record.of(&change.path).and_then(|written| written.backup.clone());
        let (made, known) = (copy(self), copy(&before));
        let dirs: Vec<_> = self.dirs.iter().filter(|dir| !before.dirs.contains(*dir)).cloned().collect();
        *self = before;
        self.save(paths)?;
        if let Some(made) = made.filter(|made| Some(made) != known.as_ref()) {
            remove(&made)?;
        }
        // Directories that others use by now are kept.
        for dir in dirs.iter().rev() {
            let _ = fs::remove_dir(dir);
        }
        Ok(())
    }
}

impl Written {
    /// The `current` text of the file without the recorded change.
    ///
    /// # Errors
    /// If `current` is not in the expected form.
    pub(crate) fn original(&self, current: Option<&str>) -> anyhow::Result<Option<String>> {
        let Some(current) = current else { return Ok(None) };
        let backup = self.backup.as_deref().map(read).transpose()?.flatten();
        let is_known = [&self.sha256, &self.replaced].contains(&&hash(current));
        let original = match &self.part {
            _ if is_known && backup.is_some() == self.backup.is_some() => backup,
            Part::Whole => backup,
            Part::Settings(ours) => {
                let left = undo(current, backup.as_deref(), ours).with_context(|| self.path.display().to_string())?;
                left.or_else(|| self.backup.is_some().then(|| "{}\n".to_owned()))
            }
            Part::Lines(lines) => {
                let is_ours = |line: &&str| lines.iter().any(|ours| ours == line.trim_end_matches(['\r', '\n']));
                let left: String = current.split_inclusive('\n').filter(|line| !is_ours(line)).collect();
                (self.backup.is_some() || !left.is_empty()).then_some(left)
            }
        };
        Ok(original)
    }
}

impl Change {
    /// Carries out the change, unless the file was changed since it was read.
    ///
    /// # Errors
    /// If it cannot be carried out.
    pub(crate) fn make(&self) -> anyhow::Result<()> {
        let path = self.path.display();
        ensure!(read(&self.path)? == self.current, "{path} has changed in the meantime: run this again");
        match &self.new {
            Some(text) => write(&self.path, text, self.mode),
            None => remove(&self.path),
        }
    }
}

/// Waits until no other setup or uninstall runs in `home`; while the result is kept, none can start.
///
/// # Errors
/// If `home` does not exist.
#[expect(clippy::disallowed_methods, reason = "a directory, for its lock")]
pub(crate) fn alone(home: &Path) -> anyhow::Result<File> {
    let dir = File::open(home).with_context(|| home.display().to_string())?;
    if matches!(dir.try_lock(), Err(TryLockError::WouldBlock)) {
        out!("waiting       for another setup or uninstall to end");
        dir.lock()?;
    }
    Ok(dir)
}

/// The target of `path`, which need not exist.
///
/// # Errors
/// If it is a dangling link, or a name that the record cannot store.
pub(crate) fn real(path: &Path) -> anyhow::Result<PathBuf> {
    ensure!(path.to_str().is_some(), "{} is not UTF-8: another name is needed", path.display());
    match fs::canonicalize(path) {
        Ok(real) => Ok(real),
        Err(_) if fs::symlink_metadata(path).is_ok() => {
            bail!("the link {} points to nothing: fix or remove it", path.display())
        }
        Err(_) => {
            let (dir, name) = (path.parent().context("no directory")?, path.file_name().context("no name")?);
            Ok(real(dir)?.join(name))
        }
    }
}

/// The text at `path`; `None` if there is no file.
///
/// # Errors
/// If it is not a text file of the user.
pub(crate) fn read(path: &Path) -> anyhow::Result<Option<String>> {
    let name = path.display();
    let bytes = match files::read(path, &Rules::users(MAX_SETTINGS)) {
        Ok(bytes) => bytes,
        Err(refused) if refused.is_absence() => return Ok(None),
        Err(Refused::NotAFile) => bail!("{name} is not a file"),
        Err(Refused::OtherOwner) => bail!("{name} belongs to another user: run this as that user"),
        Err(Refused::TooLarge) => bail!("{name} is larger than {MAX_SETTINGS} bytes, too large for a settings file"),
        Err(refused) => return Err(refused).with_context(|| name.to_string()),
    };
    Ok(Some(String::from_utf8(bytes).map_err(|_| anyhow::anyhow!("{name} is not UTF-8: save it as UTF-8"))?))
}

/// The mode of the file at `path`.
pub(crate) fn mode(path: &Path) -> Option<u32> {
    fs::metadata(path).ok().map(|meta| meta.permissions().mode() & 0o7777)
}

/// Replaces the whole file at `path` atomically.
#[expect(clippy::disallowed_methods, reason = "a directory, to flush it")]
fn write(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let written = || -> anyhow::Result<()> {
        let dir = path.parent().context("no directory")?;
        let name = path.file_name().context("no name")?.to_string_lossy();
        // Mode 0600 from the start; after a kill, git treats the rest like any backup.
        let mut file = tempfile::Builder::new().prefix(&format!("{name}{BACKUP}-")).tempfile_in(dir)?;
        file.write_all(text.as_bytes())?;
        file.as_file().set_permissions(Permissions::from_mode(mode))?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(File::open(dir)?.sync_all()?)
    };
    written().with_context(|| format!("{} cannot be written", path.display()))
}

/// Removes a file if it exists.
pub(crate) fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if !is_absence(&error) => {
            Err(error).with_context(|| format!("{} cannot be removed", path.display()))
        }
        _ => Ok(()),
    }
}

/// The file does not exist, or something else has replaced its directory.
fn is_absence(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// A name beside `path` for a backup, created at once.
#[expect(clippy::disallowed_methods, reason = "a new file, or none")]
fn unused(path: &Path) -> anyhow::Result<PathBuf> {
    let name = path.file_name().context("no name")?.to_string_lossy();
    for suffix in std::iter::once(String::new()).chain((1..100).map(|number| format!(".{number}"))) {
        let copy = path.with_file_name(format!("{name}{BACKUP}{suffix}"));
        match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&copy) {
            Ok(_) => return Ok(copy),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| format!("{} cannot be written", copy.display())),
        }
    }
    bail!("too many earlier copies of {}: remove them", path.display())
}

/// The suffix of backups.
pub(crate) const BACKUP: &str = ".before-cc-langfuse";

/// Creates `dir`, and records the created directories in `made`.
fn make_dirs(dir: &Path, mode: u32, made: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    make_dirs(dir.parent().context("no directory")?, mode, made)?;
    fs::DirBuilder::new().mode(mode).create(dir).with_context(|| format!("{} cannot be created", dir.display()))?;
    made.retain(|known| known != dir);
    made.push(dir.to_owned());
    Ok(())
}

fn hash(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}
