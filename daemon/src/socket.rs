//! The daemon's directory, lock and socket. Nobody but the user gets access.
//!
//! Everything relies on a directory that only the user may enter: nobody else can change what a name in it stands for between a
//! check and its use.

use std::{
    fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io,
    os::{
        fd::OwnedFd,
        unix::{
            fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt},
            net::UnixListener,
        },
    },
    path::{Path, PathBuf},
};

use interprocess::local_socket::{
    GenericFilePath, ListenerOptions, ToFsName,
    tokio::{Listener, Stream, prelude::*},
};
use interprocess::os::unix::{local_socket::ListenerOptionsExt, uds_local_socket};
use proto::paths::{Paths, UnsafeDir, check_private};
use rustix::process::geteuid;

/// Why the daemon cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Denied {
    /// Another daemon of this user holds the lock. Not an error: one is enough.
    #[error("already running")]
    AlreadyRunning,
    /// A directory that others could tamper with.
    #[error(
        "{0} must be a directory of yours that nobody else may enter ({1:?}): chown it to yourself and chmod 700, or remove it"
    )]
    Unsafe(PathBuf, UnsafeDir),
    /// Something other than this program's file is in its place.
    #[error("{0} is in the way and is not a file of yours: remove it")]
    NotOurs(PathBuf),
    /// Something other than a socket is where the socket belongs.
    #[error("{0} is in the way and is not a socket: remove it")]
    InTheWay(PathBuf),
    /// The service manager passed something other than the socket hooks connect to.
    #[error("what was passed by the service manager is not the listening socket {0} ({1}): correct the socket unit")]
    Passed(PathBuf, io::Error),
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
}

/// Held while the daemon runs.
#[derive(Debug)]
pub struct Lock {
    /// The lock lives as long as the file is open.
    _file: File,
    /// What was open to other users and was made private; logged once there is a log.
    closed: Vec<PathBuf>,
}

/// Creates the state directory, makes it and its contents private, and takes the lock.
///
/// # Errors
/// [`Denied`].
pub fn claim(paths: &Paths) -> Result<Lock, Denied> {
    let mut closed = Vec::new();
    for dir in [&paths.state, &paths.spool] {
        closed.extend(private_dir(dir)?);
    }
    let beside = |suffix: &str| {
        let mut name = paths.database.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    // The directory may have been open until now, so anyone could have put these there.
    for file in [paths.lock.clone(), paths.log.clone(), beside(""), beside("-wal"), beside("-shm"), beside("-journal")]
    {
        closed.extend(private_file(&file)?);
    }
    #[expect(clippy::disallowed_methods, reason = "what lay there was judged just now")]
    let open = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&paths.lock);
    let file = open.map_err(|error| Denied::Io(paths.lock.clone(), error))?;
    match file.try_lock() {
        Ok(()) => Ok(Lock { _file: file, closed }),
        Err(TryLockError::WouldBlock) => Err(Denied::AlreadyRunning),
        Err(TryLockError::Error(error)) => Err(Denied::Io(paths.lock.clone(), error)),
    }
}

/// Creates `dir` if it is missing. If it is ours but open to others, closes it and returns it; any other problem is an error.
///
/// # Errors
/// [`Denied`].
pub fn private_dir(dir: &Path) -> Result<Option<PathBuf>, Denied> {
    let io = |error| Denied::Io(dir.to_path_buf(), error);
    if check_private(dir) == Err(UnsafeDir::Missing) {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io)?;
    }
    match check_private(dir) {
        Ok(()) => Ok(None),
        Err(UnsafeDir::Open) => {
            std::fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(io)?;
            Ok(Some(dir.to_path_buf()))
        }
        Err(why) => Err(Denied::Unsafe(dir.to_path_buf(), why)),
    }
}

/// The same for a file that may be missing.
fn private_file(file: &Path) -> Result<Option<PathBuf>, Denied> {
    match std::fs::symlink_metadata(file) {
        Err(_) => Ok(None),
        Ok(meta) if !meta.is_file() || meta.uid() != geteuid().as_raw() => Err(Denied::NotOurs(file.to_path_buf())),
        Ok(meta) if meta.mode() & 0o077 == 0 => Ok(None),
        Ok(_) => {
            let closed = std::fs::set_permissions(file, Permissions::from_mode(0o600));
            closed.map_err(|error| Denied::Io(file.to_path_buf(), error))?;
            Ok(Some(file.to_path_buf()))
        }
    }
}

/// The listening socket, mode 0600: the one that was `passed`, or a new one. The lock must be held: any other socket there
/// belongs to a dead daemon.
///
/// # Errors
/// [`Denied`].
pub fn listen(paths: &Paths, held: &Lock, passed: Option<UnixListener>) -> Result<Local, Denied> {
    let path = &paths.socket;
    let io = |error| Denied::Io(path.clone(), error);
    let closed = path.parent().map_or(Ok(None), private_dir)?;
    for path in held.closed.iter().chain(&closed) {
        tracing::warn!(path = %path.display(), "was open to other users; closed");
    }
    if let Some(passed) = passed {
        check_passed(&passed, path).map_err(|error| Denied::Passed(path.clone(), error))?;
        if path.exists() {
            let listener = uds_local_socket::tokio::Listener::try_from(OwnedFd::from(passed)).map_err(io)?;
            return Ok(Local { listener: listener.into(), path: path.clone(), inode: None });
        }
        tracing::warn!("the service manager's socket was removed; listening on a new one");
    }
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.file_type().is_socket() => std::fs::remove_file(path).map_err(io)?,
        Ok(_) => return Err(Denied::InTheWay(path.clone())),
        Err(_) => {}
    }
    let name = path.as_path().to_fs_name::<GenericFilePath>().map_err(io)?;
    let options = ListenerOptions::new().name(name).mode(0o600).reclaim_name(false);
    let listener = options.create_tokio().map_err(io)?;
    let inode = std::fs::symlink_metadata(path).map_err(io)?.ino();
    Ok(Local { listener, path: path.clone(), inode: Some(inode) })
}

/// Checks that it is a listening socket bound to `path`, however that is spelled.
fn check_passed(passed: &UnixListener, path: &Path) -> io::Result<()> {
    let bound = passed.local_addr()?;
    let bound = bound.as_pathname().ok_or_else(|| io::Error::other("it has no path"))?;
    let file = |path: &Path| std::fs::metadata(path).map(|meta| (meta.dev(), meta.ino()));
    if bound != path && !matches!((file(bound), file(path)), (Ok(theirs), Ok(ours)) if theirs == ours) {
        return Err(io::Error::other(format!("it is {}", bound.display())));
    }
    match rustix::net::sockopt::socket_acceptconn(passed)? {
        true => Ok(()),
        false => Err(io::Error::other("it does not listen")),
    }
}

/// The socket; removed on drop if it is still the same one.
pub struct Local {
    listener: Listener,
    path: PathBuf,
    inode: Option<u64>,
}

impl Drop for Local {
    fn drop(&mut self) {
        if std::fs::symlink_metadata(&self.path).is_ok_and(|meta| Some(meta.ino()) == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Local {
    /// The next connection, from any user.
    ///
    /// # Errors
    /// If the system has none, for instance for lack of file descriptors.
    pub async fn accept(&self) -> io::Result<Stream> {
        self.listener.accept().await
    }
}

/// True if the peer is a process of this user.
pub fn is_ours(stream: &Stream) -> bool {
    stream.peer_creds().is_ok_and(|peer| peer.euid() == Some(geteuid().as_raw()))
}
