//! A directory that is written to where others could have placed things: nothing in it is reached through a link, and a file is
//! there whole or not at all.

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

/// Rights of directories: nobody else's.
const PRIVATE_DIR: Mode = Mode::RWXU;

/// Rights of files: nobody else's.
const PRIVATE_FILE: Mode = Mode::RUSR.union(Mode::WUSR);

/// What a file is called until it is whole. One writer at a time has a directory, so one name is enough.
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
    /// The directory at `path`, links followed: its place is the user's choice.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?))
    }

    /// The directory called `name` in this one. `None` if there is nothing of that name.
    ///
    /// # Errors
    /// [`Refused::NotAFile`] for a link or a file of that name; what the system says.
    pub fn below(&self, name: &str) -> Result<Option<Self>, Refused> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(self, name, flags, Mode::empty()) {
            Ok(dir) => Ok(Some(Self(dir))),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::NOTDIR | Errno::LOOP) => Err(Refused::NotAFile),
            Err(errno) => Err(Refused::Io(errno.into())),
        }
    }

    /// The same, made if it is missing.
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

    /// Puts `content` in the place of the file `name` of `there`, a directory on the same file system. It is whole under that name or
    /// not there, whatever happens; that it is there lasts beyond a power cut once `there` was [synced](Self::sync). A link of that name
    /// is replaced, not followed.
    ///
    /// # Errors
    /// What the system says.
    pub fn put(&self, content: &[u8], there: &Self, name: &str) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || openat(self, UNFINISHED, flags, PRIVATE_FILE);
        let file = match open() {
            // What a writer left that was killed.
            Err(Errno::EXIST) => {
                unlinkat(self, UNFINISHED, AtFlags::empty())?;
                open()?
            }
            file => file?,
        };
        let mut file = File::from(file);
        let written = file.write_all(content).and_then(|()| file.sync_all());
        if let Err(error) = written.and_then(|()| Ok(renameat(self, UNFINISHED, there, name)?)) {
            let _ = unlinkat(self, UNFINISHED, AtFlags::empty());
            return Err(error);
        }
        Ok(())
    }

    /// Makes what was put into it and below last beyond a power cut.
    ///
    /// # Errors
    /// What the system says.
    pub fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(self)?)
    }

    /// The names in it, in no order. What is no text is left out.
    ///
    /// # Errors
    /// What the system says.
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
    /// What the system says.
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
    /// [`Refused::NotAFile`] if `name` is a link or a file; what the system says; then a part of it may be left.
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
    /// What the system says.
    pub fn append(&self, name: &str, line: &str) -> io::Result<()> {
        let flags =
            OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        File::from(openat(self, name, flags, PRIVATE_FILE)?).write_all(line.as_bytes())
    }
}

/// The directory at `path`, for the last `strict` names of which a link is refused. `None` if there is none.
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

/// The directory at `path`, made with those above it that are missing. From the first on that is made here, and for the last `strict`
/// names in any case, a link is refused.
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
