//! Opens files that others could have placed. Never blocks, whatever kind of file it is; checks the open file, not its name.

use std::{
    fs::{File, Metadata},
    io::{self, Read},
    os::{fd::BorrowedFd, unix::fs::MetadataExt},
    path::Path,
};

pub mod dir;

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::Errno,
};

/// Who may own a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The user this program runs as.
    User,
    /// That user, or root on the user's behalf.
    UserOrRoot,
    Root,
    /// Any owner: the content is only shown to the user.
    Anybody,
}

/// The conditions for reading a file.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub owner: Owner,
    /// Its name may be a symbolic link; the target is checked.
    pub may_be_link: bool,
    /// It may have several names (hard links).
    pub may_have_names: bool,
    /// Group and others may have write permission.
    pub may_be_shared: bool,
    /// Maximum size in bytes.
    pub limit: u64,
}

impl Rules {
    /// A file of the user's, of any size, under a name that is not a link.
    pub const STRICT: Self =
        Self { owner: Owner::User, may_be_link: false, may_have_names: true, may_be_shared: true, limit: u64::MAX };

    /// A file of the user's of at most `limit` bytes, or a link to one.
    pub const fn users(limit: u64) -> Self {
        Self { may_be_link: true, limit, ..Self::STRICT }
    }
}

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("no such file")]
    Missing,
    /// A directory, FIFO, device or socket; a link where there may be none.
    #[error("not a regular file")]
    NotAFile,
    #[error("belongs to another user")]
    OtherOwner,
    /// It has several names.
    #[error("has another name as well")]
    HardLink,
    /// Group or others may write to it.
    #[error("can be changed by other users")]
    Shared,
    /// Larger than the limit.
    #[error("too large")]
    TooLarge,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Refused {
    /// True if nothing of that name exists.
    pub fn is_absence(&self) -> bool {
        match self {
            Self::Missing => true,
            Self::Io(error) => error.kind() == io::ErrorKind::NotADirectory,
            _ => false,
        }
    }
}

/// Identifies the file at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    path: std::path::PathBuf,
    /// Device, inode, length, and modification time in seconds and nanoseconds.
    of: (u64, u64, u64, i64, i64),
}

impl Identity {
    /// The identity of the file at `path`; `None` if there is none.
    pub fn of(path: &Path) -> Option<Self> {
        let meta = std::fs::metadata(path).ok()?;
        let of = (meta.dev(), meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec());
        Some(Self { path: path.to_owned(), of })
    }

    /// True if another file or none is at the path now.
    pub fn is_gone(&self) -> bool {
        Self::of(&self.path).as_ref() != Some(self)
    }
}

/// An open file that meets the rules.
#[derive(Debug)]
pub struct Opened {
    pub file: File,
    /// Of the open file.
    pub meta: Metadata,
}

/// Opens the file at `path`.
///
/// # Errors
/// [`Refused`].
pub fn open(path: &Path, rules: &Rules) -> Result<Opened, Refused> {
    open_at(CWD, path, rules)
}

/// Opens the file at `path` below `dir`.
///
/// # Errors
/// [`Refused`].
pub fn open_at(dir: BorrowedFd<'_>, path: &Path, rules: &Rules) -> Result<Opened, Refused> {
    let link = if rules.may_be_link { OFlags::empty() } else { OFlags::NOFOLLOW };
    // Opening a FIFO that nobody writes to would block the process.
    let flags = link | OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(openat(dir, path, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::NOENT => Refused::Missing,
        Errno::NXIO => Refused::NotAFile,
        Errno::LOOP if !rules.may_be_link => Refused::NotAFile,
        errno => Refused::Io(errno.into()),
    })?);
    let meta = file.metadata()?;
    rules.judge(&meta)?;
    Ok(Opened { file, meta })
}

/// The bytes of the file at `path`.
///
/// # Errors
/// [`Refused`].
pub fn read(path: &Path, rules: &Rules) -> Result<Vec<u8>, Refused> {
    open(path, rules)?.read(rules.limit)
}

impl Opened {
    /// Its bytes, at most `limit`.
    ///
    /// # Errors
    /// [`Refused::TooLarge`] if it has grown beyond that; errors of the system.
    pub fn read(self, limit: u64) -> Result<Vec<u8>, Refused> {
        let mut bytes = Vec::new();
        self.file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit { Err(Refused::TooLarge) } else { Ok(bytes) }
    }
}

impl Rules {
    fn judge(&self, meta: &Metadata) -> Result<(), Refused> {
        let user = rustix::process::geteuid().as_raw();
        let has_owner = match self.owner {
            Owner::User => meta.uid() == user,
            Owner::UserOrRoot => [0, user].contains(&meta.uid()),
            Owner::Root => is_root(meta.uid(), &mapping()),
            Owner::Anybody => true,
        };
        match () {
            () if !meta.is_file() => Err(Refused::NotAFile),
            () if !has_owner => Err(Refused::OtherOwner),
            () if !self.may_have_names && meta.nlink() > 1 => Err(Refused::HardLink),
            () if !self.may_be_shared && meta.mode() & 0o022 != 0 => Err(Refused::Shared),
            () if meta.len() > self.limit => Err(Refused::TooLarge),
            () => Ok(()),
        }
    }
}

/// The user id mapping of this process; empty if the system has none.
#[expect(clippy::disallowed_methods, reason = "the kernel wrote it")]
fn mapping() -> String {
    std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default()
}

/// True for root. In a service with its own user namespace (`PrivateUsers=`) root appears as nobody, like every unmapped user;
/// `mapping` shows whether nobody itself is mapped.
fn is_root(uid: u32, mapping: &str) -> bool {
    const NOBODY: u32 = 65534;
    let known = |line: &str| {
        let mut fields = line.split_whitespace().map(|field| field.parse::<u32>().ok());
        let (first, _, count) = (fields.next()??, fields.next()??, fields.next()??);
        Some(NOBODY.checked_sub(first)? < count)
    };
    let mut lines = mapping.lines().peekable();
    uid == 0 || uid == NOBODY && lines.peek().is_some() && !lines.any(|line| known(line).unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt, path::PathBuf};

    use super::*;

    /// A directory with one file of each kind.
    fn zoo() -> (tempfile::TempDir, impl Fn(&str) -> PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().to_path_buf();
        let at = move |name: &str| base.join(name);
        for (name, mode) in [("plain", 0o600), ("shared", 0o664), ("named", 0o600)] {
            std::fs::write(at(name), "12345678").unwrap();
            std::fs::set_permissions(at(name), std::fs::Permissions::from_mode(mode)).unwrap();
        }
        std::fs::hard_link(at("named"), at("other name")).unwrap();
        std::fs::create_dir(at("dir")).unwrap();
        for (name, to) in [("link", "plain"), ("dangling", "nothing"), ("loop", "loop"), ("to fifo", "fifo")] {
            std::os::unix::fs::symlink(at(to), at(name)).unwrap();
        }
        rustix::fs::mknodat(CWD, at("fifo"), rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        drop(std::os::unix::net::UnixListener::bind(at("socket")).unwrap());
        (dir, at)
    }

    #[test]
    fn each_rule_refuses_what_breaks_it_and_nothing_else() {
        let (_dir, at) = zoo();
        let (strict, loose) = (Rules::STRICT, Rules::users(u64::MAX));
        let private = Rules { may_be_shared: false, ..loose };
        let only = Rules { may_have_names: false, ..loose };
        let what = |name: &str, rules: &Rules| match read(&at(name), rules) {
            Ok(bytes) => bytes.len().to_string(),
            Err(Refused::Io(error)) => format!("{:?}", error.kind()),
            Err(refused) => format!("{refused:?}"),
        };
        for (name, rules, expect) in [
            ("plain", &strict, "8"),
            ("plain", &private, "8"),
            ("plain", &Rules::users(8), "8"),
            ("plain", &Rules::users(7), "TooLarge"),
            ("link", &strict, "NotAFile"),
            ("link", &loose, "8"),
            ("link", &Rules::users(7), "TooLarge"),
            ("dangling", &strict, "NotAFile"),
            ("dangling", &loose, "Missing"),
            ("loop", &strict, "NotAFile"),
            ("loop", &loose, "FilesystemLoop"),
            ("nothing", &strict, "Missing"),
            ("plain/below", &strict, "NotADirectory"),
            ("dir", &strict, "NotAFile"),
            ("dir", &loose, "NotAFile"),
            ("fifo", &strict, "NotAFile"),
            ("fifo", &loose, "NotAFile"),
            ("to fifo", &loose, "NotAFile"),
            ("socket", &loose, "NotAFile"),
            ("named", &loose, "8"),
            ("named", &only, "HardLink"),
            ("plain", &only, "8"),
            ("shared", &loose, "8"),
            ("shared", &private, "Shared"),
        ] {
            assert_eq!(what(name, rules), expect, "{name} {rules:?}");
        }
    }

    #[test]
    fn an_owner_is_judged_by_who_may_be_it() {
        let (_dir, at) = zoo();
        let rules = |owner| Rules { owner, ..Rules::users(u64::MAX) };
        let is_root = rustix::process::geteuid().is_root();
        // Every system has this file, and it belongs to root.
        let (own, roots) = (at("plain"), PathBuf::from("/etc/passwd"));
        for (path, owner, expect) in [
            (&own, Owner::User, true),
            (&own, Owner::UserOrRoot, true),
            (&own, Owner::Root, is_root),
            (&own, Owner::Anybody, true),
            (&roots, Owner::User, is_root),
            (&roots, Owner::UserOrRoot, true),
            (&roots, Owner::Root, true),
            (&roots, Owner::Anybody, true),
        ] {
            let opened = open(path, &rules(owner));
            assert!(matches!(&opened, Ok(_) | Err(Refused::OtherOwner)), "{opened:?}");
            assert_eq!(opened.is_ok(), expect, "{} {owner:?}", path.display());
        }
    }

    #[test]
    fn what_grows_while_it_is_read_is_not_read_in_part() {
        let (_dir, at) = zoo();
        let opened = open(&at("plain"), &Rules::users(8)).unwrap();
        std::fs::write(at("plain"), "123456789").unwrap();
        assert!(matches!(opened.read(8), Err(Refused::TooLarge)));
    }

    #[test]
    fn what_is_for_every_user_is_roots() {
        let (initial, service, container) = ("0 0 4294967295\n", "1000 1000 1\n", "0 1000 1\n1 100000 65536\n");
        for (uid, mapping, expect) in [
            (0, initial, true),
            (0, "", true),
            (1000, initial, false),
            (65534, initial, false),
            (65534, "", false),
            (65534, service, true),
            (1000, service, false),
            (65534, container, false),
            (0, container, true),
        ] {
            assert_eq!(is_root(uid, mapping), expect, "{uid} in {mapping:?}");
        }
    }
}
