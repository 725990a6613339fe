//! Writes to a directory in which others could have placed things: never follows a link, and every file appears complete or not
//! at all.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, mkdirat, openat, renameat, unlinkat},
    io::Errno,
};

use super::{Refused, Rules, open_at};

/// Permissions of directories: only the user.
const PRIVATE_DIR: Mode = Mode::RWXU;

/// Permissions of files: only the user.
const PRIVATE_FILE: Mode = Mode::RUSR.union(Mode::WUSR);

/// The name of a file until it is complete. A directory has one writer at a time, so one name is enough.
const UNFINISHED: &str = ".unfinished";

/// An open directory.
#[derive(Debug)]
pub struct Dir(OwnedFd);

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Dir {
    /// The directory at `path`. Follows links: its place is the user's choice.
    ///
    /// # Errors
    /// Those of the system.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?))
    }

    /// The directory called `name` in this one. `None` if there is nothing of that name.
    ///
    /// # Errors
    /// [`Refused::NotAFile`] for a link or a file of that name; errors of the system.
    pub fn below(&self, name: &str) -> Result<Option<Self>, Refused> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(self, name, flags, Mode::empty()) {
            Ok(dir) => Ok(Some(Self(dir))),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::NOTDIR | Errno::LOOP) => Err(Refused::NotAFile),
            Err(errno) => Err(Refused::Io(errno.into())),
        }
    }

    /// The same, created if it is missing.
    ///
    /// # Errors
    /// As [`Self::below`].
    pub fn made(&self, name: &str) -> Result<Self, Refused> {
        if let Some(dir) = self.below(name)? {
            return Ok(dir);
        }
        match mkdirat(self, name, PRIVATE_DIR) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(Refused::Io(errno.into())),
        }
        self.below(name)?.ok_or(Refused::Missing)
    }

    /// The bytes of the file `name`, `limit` at most. `None` if there is none.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, Refused> {
        match open_at(self.as_fd(), Path::new(name), &Rules { limit, ..Rules::STRICT }) {
            Ok(opened) => opened.read(limit).map(Some),
            Err(Refused::Missing) => Ok(None),
            Err(refused) => Err(refused),
        }
    }

    /// Replaces the file `name` in `there`, a directory on the same file system, by `content`. The file is complete under that
    /// name or absent, whatever happens; it survives a power cut once `there` was [synced](Self::sync). A link of that name is
    /// replaced, not followed.
    ///
    /// # Errors
    /// Those of the system.
    pub fn put(&self, content: &[u8], there: &Self, name: &str) -> io::Result<()> {
        let mut file = self.unfinished()?;
        let written = file.write_all(content).and_then(|()| file.sync_all());
        if let Err(error) = written.and_then(|()| self.finished(there, name)) {
            self.abandoned();
            return Err(error);
        }
        Ok(())
    }

    /// A new file, which has no name of its own until it is [finished](Self::finished).
    ///
    /// # Errors
    /// Those of the system.
    pub fn unfinished(&self) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || openat(self, UNFINISHED, flags, PRIVATE_FILE);
        let file = match open() {
            // Left by a writer that was killed.
            Err(Errno::EXIST) => {
                unlinkat(self, UNFINISHED, AtFlags::empty())?;
                open()?
            }
            file => file?,
        };
        Ok(File::from(file))
    }

    /// Gives the unfinished file its name in `there`, in place of the one that had it.
    ///
    /// # Errors
    /// Those of the system.
    pub fn finished(&self, there: &Self, name: &str) -> io::Result<()> {
        Ok(renameat(self, UNFINISHED, there, name)?)
    }

    /// Removes the unfinished file.
    pub fn abandoned(&self) {
        let _ = unlinkat(self, UNFINISHED, AtFlags::empty());
    }

    /// Opens the file `name` to append to it. It must exist, and not be a link.
    ///
    /// # Errors
    /// Those of the system.
    pub fn to_append(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(File::from(openat(self, name, flags, PRIVATE_FILE)?))
    }

    /// Makes everything that was written to it survive a power cut.
    ///
    /// # Errors
    /// Those of the system.
    pub fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(self)?)
    }

    /// The names in it, unsorted. Names that are not UTF-8 are left out.
    ///
    /// # Errors
    /// Those of the system.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(self)? {
            if let Ok(name) = entry?.file_name().to_str()
                && name != "."
                && name != ".."
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// Removes the file or link called `name`. False if there is nothing of that name.
    ///
    /// # Errors
    /// Those of the system.
    pub fn remove(&self, name: &str) -> io::Result<bool> {
        match unlinkat(self, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Removes the directory called `name` with all that is in it, at most `depth` levels deep. A link is removed, and not followed. False
    /// if there is nothing of that name.
    ///
    /// # Errors
    /// [`Refused::NotAFile`] if `name` is a link or a file; errors of the system; then a part of it may be left.
    pub fn remove_all(&self, name: &str, depth: usize) -> Result<bool, Refused> {
        let Some(dir) = self.below(name)? else { return Ok(false) };
        if depth == 0 {
            return Err(Refused::Io(Errno::NOTEMPTY.into()));
        }
        for entry in dir.names()? {
            match dir.remove_all(&entry, depth - 1) {
                Ok(_) => {}
                Err(Refused::NotAFile) => drop(dir.remove(&entry)?),
                Err(refused) => return Err(refused),
            }
        }
        unlinkat(self, name, AtFlags::REMOVEDIR).map_err(io::Error::from)?;
        Ok(true)
    }

    /// Appends `line` to the file `name`, which is made if it is missing and never a link.
    ///
    /// # Errors
    /// Those of the system.
    pub fn append(&self, name: &str, line: &str) -> io::Result<()> {
        let flags =
            OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        File::from(openat(self, name, flags, PRIVATE_FILE)?).write_all(line.as_bytes())
    }
}

/// The directory at `path`; `None` if it is missing. Refuses links for the last `strict` names.
///
/// # Errors
/// As [`Dir::below`].
pub fn there(path: &Path, strict: usize) -> Result<Option<Dir>, Refused> {
    let names: Vec<_> = path.components().collect();
    let (above, rest) = names.split_at(names.len().saturating_sub(strict.max(1)));
    let mut dir = match Dir::open(&above.iter().collect::<PathBuf>()) {
        Ok(dir) => dir,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    for name in rest {
        let name = name.as_os_str().to_str().ok_or(Refused::NotAFile)?;
        match dir.below(name)? {
            Some(below) => dir = below,
            None => return Ok(None),
        }
    }
    Ok(Some(dir))
}

/// The directory at `path`, created with all missing parents. Refuses links for the last `strict` names, and below the first
/// directory that it creates.
///
/// # Errors
/// As [`Dir::below`].
pub fn made(path: &Path, strict: usize) -> Result<Dir, Refused> {
    let names: Vec<_> = path.components().collect();
    let above: PathBuf = names[..names.len().saturating_sub(strict.max(1))].iter().collect();
    let mut above = above.as_path();
    let mut dir = loop {
        match Dir::open(above) {
            Ok(dir) => break dir,
            Err(error) if error.kind() == io::ErrorKind::NotFound => match above.parent() {
                Some(parent) => above = parent,
                None => return Err(error.into()),
            },
            Err(error) => return Err(error.into()),
        }
    };
    for name in path.strip_prefix(above).unwrap_or(path).components() {
        let name = name.as_os_str().to_str().ok_or(Refused::NotAFile)?;
        dir = dir.made(name)?;
    }
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt, symlink},
    };

    use super::*;

    #[test]
    fn a_link_is_never_followed_and_what_is_made_is_private() {
        let base = tempfile::tempdir().unwrap();
        let at = |path: &str| base.path().join(path);
        fs::create_dir(at("elsewhere")).unwrap();
        fs::create_dir(at("project")).unwrap();
        symlink(at("elsewhere"), at("project/link")).unwrap();
        symlink(at("project"), at("home")).unwrap();
        assert!(matches!(made(&at("project/link/runs"), 2), Err(Refused::NotAFile)));
        assert!(fs::read_dir(at("elsewhere")).unwrap().next().is_none());
        let dir = made(&at("home/a/b/c"), 3).unwrap();
        assert_eq!(fs::metadata(at("project/a/b/c")).unwrap().mode() & 0o777, 0o700);

        fs::write(at("elsewhere/victim"), "whole").unwrap();
        for name in ["x", UNFINISHED] {
            symlink(at("elsewhere/victim"), at("project/a/b/c").join(name)).unwrap();
        }
        assert!(dir.append("x", "line").is_err());
        assert!(dir.read("x", 9).is_err());
        dir.put(b"new", &dir, "x").unwrap();
        assert_eq!(fs::read_to_string(at("elsewhere/victim")).unwrap(), "whole");
        assert_eq!(dir.read("x", 9).unwrap().as_deref(), Some(&b"new"[..]));
        assert_eq!(fs::symlink_metadata(at("project/a/b/c/x")).unwrap().mode() & 0o777, 0o600);
        assert_eq!(dir.names().unwrap(), ["x"]);
        assert!(dir.below("nothing").unwrap().is_none());
        assert!(matches!(dir.below("x"), Err(Refused::NotAFile)));
    }
}
