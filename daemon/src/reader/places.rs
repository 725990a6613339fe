//! The directories of projects: which links are followed, and which transcript is meant by a path through another name of a
//! root.

use std::{
    ffi::OsStr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, fstat, openat, statat},
    io::Errno,
};

use super::{Transcript, Unreadable};
use cc_core::transcript::is_name;

/// Opens a directory. A link in `name` itself is followed unless `flags` forbid it.
pub(super) fn directory(at: BorrowedFd<'_>, name: &OsStr, flags: OFlags) -> Result<OwnedFd, Unreadable> {
    let flags = flags | OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    openat(at, Path::new(name), flags, Mode::empty()).map_err(unreadable)
}

/// Opens the directory `name` of a project below a root. Users link these (Stow, worktrees that share sessions): a link is
/// followed if both it and its target belong to the user.
pub(super) fn project(root: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Unreadable> {
    let error = match directory(root, name, OFlags::NOFOLLOW) {
        Err(Unreadable::NotAFile) => Unreadable::NotAFile,
        opened => return opened,
    };
    let user = rustix::process::geteuid().as_raw();
    let link = statat(root, Path::new(name), AtFlags::SYMLINK_NOFOLLOW).map_err(unreadable)?;
    if FileType::from_raw_mode(link.st_mode) != FileType::Symlink {
        return Err(error);
    }
    if link.st_uid != user {
        return Err(Unreadable::OtherOwner);
    }
    let dir = directory(root, name, OFlags::empty())?;
    if fstat(&dir).map_err(unreadable)?.st_uid != user { Err(Unreadable::OtherOwner) } else { Ok(dir) }
}

pub(super) fn unreadable(errno: Errno) -> Unreadable {
    match errno {
        Errno::NOENT => Unreadable::Missing,
        Errno::LOOP | Errno::NXIO | Errno::NOTDIR => Unreadable::NotAFile,
        errno => Unreadable::Io(errno.into()),
    }
}

/// The path below one of `roots` of the same session in the same project, if `path` reaches the root under another name: a
/// container's home, a linked home. `None` if the session does not exist yet.
pub fn at_home(path: &Path, session_id: &str, roots: &[PathBuf]) -> Option<PathBuf> {
    let named = |path: &PathBuf| path.file_stem() == Some(OsStr::new(session_id)) && is_name(session_id);
    homes(path, roots).filter(named).find(|path| Transcript::open_beneath(path, roots).is_ok())
}

/// True if one of `roots` has the project of `path`, so that its session may still appear there.
pub fn may_come(path: &Path, roots: &[PathBuf]) -> bool {
    homes(path, roots).any(|path| path.parent().is_some_and(Path::is_dir))
}

/// Every path below `roots` that `path`, which is below none, may mean. A path with `..` is below none.
fn homes<'a>(path: &'a Path, roots: &'a [PathBuf]) -> impl Iterator<Item = PathBuf> + 'a {
    let goes_up = path.components().any(|step| step == Component::ParentDir);
    let is_below = !goes_up && roots.iter().any(|root| path.starts_with(root));
    let project = path.parent().and_then(Path::file_name).filter(|_| !is_below);
    let below = project.zip(path.file_name()).map(|(project, name)| Path::new(project).join(name));
    below.into_iter().flat_map(move |below| roots.iter().map(move |root| root.join(&below)))
}

/// The directory that `path`, which does not exist, may mean: the one of the same name below one of `roots`.
pub fn directory_at_home(path: &Path, roots: &[PathBuf]) -> Option<PathBuf> {
    let name = path.file_name()?;
    roots.iter().map(|root| root.join(name)).find(|dir| why_not(dir).is_none())
}

/// Why the directory `dir` of a project below a root is not read; `None` if it is.
pub fn why_not(dir: &Path) -> Option<Unreadable> {
    let open = |root: &Path| directory(CWD, root.as_os_str(), OFlags::empty());
    match dir.parent().zip(dir.file_name()) {
        Some((root, name)) => open(root).and_then(|root| project(root.as_fd(), name)).err(),
        None => open(dir).err(),
    }
}

/// The directories of projects in `root`, each with the reason if it is not read; `root` itself if it cannot be read. Other entries
/// are left out.
pub fn projects(root: &Path) -> Vec<(PathBuf, Option<Unreadable>)> {
    let dir = match directory(CWD, root.as_os_str(), OFlags::empty()) {
        Ok(dir) => dir,
        Err(Unreadable::Missing) => return Vec::new(),
        Err(error) => return vec![(root.to_owned(), Some(error))],
    };
    let entries = std::fs::read_dir(root).into_iter().flatten().filter_map(Result::ok);
    let mut found = Vec::new();
    for entry in entries {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            let opened = directory(dir.as_fd(), &entry.file_name(), OFlags::NOFOLLOW);
            found.push((entry.path(), opened.err()));
        } else if kind.is_symlink() {
            match project(dir.as_fd(), &entry.file_name()) {
                // A link to a file, or to nothing.
                Err(Unreadable::NotAFile | Unreadable::Missing) => {}
                opened => found.push((entry.path(), opened.err())),
            }
        }
    }
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(to: impl AsRef<Path>, at: impl AsRef<Path>) {
        std::os::unix::fs::symlink(to, at).unwrap();
    }

    fn put(path: &Path) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "a\n").unwrap();
    }

    #[test]
    fn a_path_by_another_way_means_the_same_session_of_the_same_project() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let roots = [at("home/.claude/projects"), at("custom")];
        for path in
            ["home/.claude/projects/-p/s.jsonl", "custom/-q/t.jsonl", "elsewhere/-p/s.jsonl", "elsewhere/x.jsonl"]
        {
            put(&at(path));
        }
        link(at("home"), at("alias"));
        link(at("elsewhere/x.jsonl"), at("custom/-q/link.jsonl"));
        for (path, session, expect) in [
            ("alias/.claude/projects/-p/s.jsonl", "s", Some("home/.claude/projects/-p/s.jsonl")),
            ("vscode/.claude/projects/-p/s.jsonl", "s", Some("home/.claude/projects/-p/s.jsonl")),
            ("elsewhere/-p/s.jsonl", "s", Some("home/.claude/projects/-p/s.jsonl")),
            ("vscode/.claude/projects/-q/t.jsonl", "t", Some("custom/-q/t.jsonl")),
            // Another session than the event's, another project, a missing one, and one in its own place.
            ("vscode/.claude/projects/-p/s.jsonl", "t", None),
            ("vscode/.claude/projects/-q/s.jsonl", "s", None),
            ("vscode/.claude/projects/-p/none.jsonl", "none", None),
            ("vscode/-q/link.jsonl", "link", None),
            ("vscode/../s.jsonl", "s", None),
            // Upwards and down again.
            ("custom/../home/.claude/projects/-p/s.jsonl", "s", Some("home/.claude/projects/-p/s.jsonl")),
            ("home/.claude/projects/../projects/-p/s.jsonl", "s", Some("home/.claude/projects/-p/s.jsonl")),
            ("custom/-q/t.jsonl", "t", None),
        ] {
            assert_eq!(at_home(&at(path), session, &roots), expect.map(at), "{path} {session}");
        }
        assert!(may_come(&at("vscode/.claude/projects/-p/new.jsonl"), &roots));
        for path in ["vscode/.claude/projects/-x/new.jsonl", "custom/-q/new.jsonl", "new.jsonl"] {
            assert!(!may_come(&at(path), &roots), "{path}");
        }
    }

    #[test]
    fn a_link_of_ours_is_a_project_and_a_file_or_nothing_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for path in ["root/-p/s.jsonl", "shared/-w/s.jsonl", "file"] {
            put(&at(path));
        }
        link(at("shared/-w"), at("root/out"));
        link("-p", at("root/neighbour"));
        link("out", at("root/twice"));
        link("round", at("root/round"));
        link(at("file"), at("root/to-file"));
        link(at("none"), at("root/to-nothing"));
        put(&at("root/plain"));
        let found: Vec<_> = projects(&at("root")).into_iter().map(|(path, why)| (path, why.is_none())).collect();
        assert_eq!(found, ["-p", "neighbour", "out", "twice"].map(|name| (at("root").join(name), true)));
        let roots = [at("root")];
        for (path, expect) in [
            ("root/out/s.jsonl", None),
            ("root/twice/s.jsonl", None),
            ("root/neighbour/s.jsonl", None),
            ("root/round/s.jsonl", Some("transcript_not_a_file")),
            ("root/to-file/s.jsonl", Some("transcript_not_a_file")),
            ("root/to-nothing/s.jsonl", Some("transcript_missing")),
        ] {
            let opened = Transcript::open_beneath(&at(path), &roots);
            assert_eq!(opened.err().map(|error| error.reason()), expect, "{path}");
        }
    }

    #[test]
    fn a_link_of_or_to_another_user_is_not_followed() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for path in ["root/-p/s.jsonl", "ours/s.jsonl", "theirs/s.jsonl"] {
            put(&at(path));
        }
        link(at("ours"), at("root/by-them"));
        link(at("theirs"), at("root/to-them"));
        std::os::unix::fs::lchown(at("root/by-them"), Some(4321), None).unwrap();
        std::os::unix::fs::chown(at("theirs"), Some(4321), None).unwrap();
        for name in ["by-them", "to-them"] {
            let opened = Transcript::open_beneath(&at("root").join(name).join("s.jsonl"), &[at("root")]);
            assert_eq!(opened.err().map(|error| error.reason()), Some("transcript_other_owner"), "{name}");
        }
        let refused: Vec<_> = projects(&at("root")).into_iter().map(|(_, why)| why.map(|why| why.reason())).collect();
        assert_eq!(refused, [None, Some("transcript_other_owner"), Some("transcript_other_owner")]);
    }
}
