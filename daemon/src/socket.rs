//! The daemon's place on this machine: its directory, its lock, its socket. Nobody but the user gets through.

use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::{
        fd::OwnedFd,
        unix::{
            fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt},
            net::UnixListener,
        },
    },
    path::{Path, PathBuf},
    time::Duration,
};

use interprocess::local_socket::{
    GenericFilePath, ListenerOptions, ToFsName,
    tokio::{Listener, Stream, prelude::*},
};
use interprocess::os::unix::{local_socket::ListenerOptionsExt, uds_local_socket};
use proto::paths::{Paths, UnsafeDir, check_private};

/// Why the daemon cannot take its place.
#[derive(Debug, thiserror::Error)]
pub enum Denied {
    /// Another daemon of this user holds the lock. Not an error: there is to be one.
    #[error("already running")]
    AlreadyRunning,
    /// A directory that others could tamper with.
    #[error(
        "{0} must be a directory of yours that nobody else may enter ({1:?}): chown it to yourself and chmod 700, or remove it"
    )]
    Unsafe(PathBuf, UnsafeDir),
    /// Something that is no socket lies where the socket belongs.
    #[error("{0} is in the way and is not a socket: remove it")]
    InTheWay(PathBuf),
    /// The service manager passed something else than the socket hooks connect to.
    #[error("what was passed by the service manager is not the listening socket {0} ({1}): correct the socket unit")]
    Passed(PathBuf, io::Error),
    /// The system said no.
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
}

/// Held while the daemon runs.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code, reason = "the lock lives as long as the file is open")] File);

/// Makes the state directory safe and takes the lock.
///
/// # Errors
/// [`Denied`].
pub fn claim(paths: &Paths) -> Result<Lock, Denied> {
    private_dir(&paths.state)?;
    private_dir(&paths.spool)?;
    let open = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&paths.lock);
    let file = open.map_err(|error| Denied::Io(paths.lock.clone(), error))?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(TryLockError::WouldBlock) => Err(Denied::AlreadyRunning),
        Err(TryLockError::Error(error)) => Err(Denied::Io(paths.lock.clone(), error)),
    }
}

/// Makes `dir` if need be. One of ours that is open to others is closed; any other doubt is an error.
fn private_dir(dir: &Path) -> Result<(), Denied> {
    let io = |error| Denied::Io(dir.to_path_buf(), error);
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io)?;
    match check_private(dir) {
        Ok(()) => Ok(()),
        Err(UnsafeDir::Open) => {
            tracing::warn!(dir = %dir.display(), "was open to other users; closed");
            std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).map_err(io)
        }
        Err(why) => Err(Denied::Unsafe(dir.to_path_buf(), why)),
    }
}

/// The listening socket, mode 0600: the one that was `passed`, else a new one. The lock must be held: another socket that
/// lies there is a dead daemon's.
///
/// # Errors
/// [`Denied`].
pub fn listen(paths: &Paths, _held: &Lock, passed: Option<UnixListener>) -> Result<Local, Denied> {
    let path = &paths.socket;
    let io = |error| Denied::Io(path.clone(), error);
    if let Some(dir) = path.parent() {
        private_dir(dir)?;
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

/// Is it a listening socket, bound to `path`, whichever way that is spelled?
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

/// The socket; removed on drop if it is still the one we made.
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

impl axum::serve::Listener for Local {
    type Io = Stream;
    type Addr = ();

    async fn accept(&mut self) -> (Stream, ()) {
        loop {
            match self.listener.accept().await {
                Ok(stream) => {
                    let ours = rustix::process::geteuid().as_raw();
                    match stream.peer_creds().ok().and_then(|peer| peer.euid()) {
                        Some(uid) if uid == ours => return (stream, ()),
                        uid => tracing::warn!(?uid, "a connection of another user was closed"),
                    }
                }
                Err(error) => {
                    // Out of file descriptors, most likely: wait for some to come back instead of spinning.
                    tracing::warn!(%error, "no connection can be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}
