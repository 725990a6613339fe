//! Where things are on disk: one function for both sides of the socket.

use std::{
    ffi::OsStr,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

/// Longest socket path used as it is; `sun_path` holds 104 bytes on macOS and 108 on Linux.
const MAX_SOCKET_PATH: usize = 100;

/// The files of one user's daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// The state directory itself, mode 0700.
    pub state: PathBuf,
    /// The socket that hooks and ctl connect to.
    pub socket: PathBuf,
    /// Held locked by the running daemon; never removed.
    pub lock: PathBuf,
    pub database: PathBuf,
    /// Events that hooks left while no daemon answered.
    pub spool: PathBuf,
    /// One byte for each event that was removed from the spool before a daemon read it.
    pub evicted: PathBuf,
    /// The time tracing started, in case the database is lost.
    pub begun: PathBuf,
    /// The daemon's progress while it opens its database; removed once the database is open.
    pub opening: PathBuf,
    /// Log file; the one rotated predecessor has the same name with `.1` appended.
    pub log: PathBuf,
    /// The daemon's own settings; `CC_LANGFUSE_STATE_DIR` does not move them.
    pub config: PathBuf,
}

impl Paths {
    /// Paths of a user whose home is `home`. `moved` is the value of `CC_LANGFUSE_STATE_DIR`; anything but an absolute
    /// path counts as unset.
    pub fn new(home: &Path, moved: Option<&OsStr>) -> Self {
        let moved = moved.map(Path::new).filter(|path| path.is_absolute());
        let state = moved.map_or_else(|| home.join(".claude/state/cc-langfuse"), Path::to_path_buf);
        let log = match moved {
            None => home.join(".claude/state/cc-langfuse_hook.log"),
            Some(dir) => dir.join("cc-langfuse_hook.log"),
        };
        let mut socket = state.join("daemon.sock");
        if socket.as_os_str().len() > MAX_SOCKET_PATH {
            // `TMPDIR` differs between a login shell and a service manager, so this is always /tmp.
            let uid = rustix::process::geteuid().as_raw();
            socket = PathBuf::from(format!("/tmp/cc-langfuse-{uid}/{:016x}.sock", fnv1a(state.as_os_str().as_bytes())));
        }
        Self {
            lock: state.join("daemon.lock"),
            database: state.join("state.db"),
            spool: state.join("spool"),
            evicted: state.join("spool.evicted"),
            begun: state.join("begun"),
            opening: state.join("opening"),
            socket,
            config: home.join(".config/cc-langfuse/config.toml"),
            log,
            state,
        }
    }
}

/// Why a directory must not be trusted with a socket or with events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnsafeDir {
    /// It does not exist, or cannot be examined.
    Missing,
    /// It is a file, or a symbolic link that another user could have placed.
    NotADirectory,
    /// It belongs to another user, who could read or replace its files.
    OtherOwner,
    /// Group or others may enter it.
    Open,
}

/// Checks that `dir` is a directory (not a link), owned by this user, and closed to everybody else.
///
/// # Errors
/// What is wrong with it.
pub fn check_private(dir: &Path) -> Result<(), UnsafeDir> {
    let meta = std::fs::symlink_metadata(dir).map_err(|_| UnsafeDir::Missing)?;
    if !meta.is_dir() {
        Err(UnsafeDir::NotADirectory)
    } else if meta.uid() != rustix::process::geteuid().as_raw() {
        Err(UnsafeDir::OtherOwner)
    } else if meta.mode() & 0o077 != 0 {
        Err(UnsafeDir::Open)
    } else {
        Ok(())
    }
}

/// 64-bit FNV-1a: stable between builds, which the standard library's hasher does not promise.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_state_directory_is_in_home_unless_the_variable_moves_it() {
        let home = Path::new("/home/dev");
        for (moved, state, log) in [
            (None, "/home/dev/.claude/state/cc-langfuse", "/home/dev/.claude/state/cc-langfuse_hook.log"),
            (Some(""), "/home/dev/.claude/state/cc-langfuse", "/home/dev/.claude/state/cc-langfuse_hook.log"),
            (Some("rel"), "/home/dev/.claude/state/cc-langfuse", "/home/dev/.claude/state/cc-langfuse_hook.log"),
            (Some("/s"), "/s", "/s/cc-langfuse_hook.log"),
        ] {
            let paths = Paths::new(home, moved.map(OsStr::new));
            assert_eq!((paths.state.to_str(), paths.log.to_str()), (Some(state), Some(log)));
            assert_eq!(paths.socket, paths.state.join("daemon.sock"));
            assert_eq!(paths.config, Path::new("/home/dev/.config/cc-langfuse/config.toml"));
        }
    }

    #[test]
    fn a_long_state_path_gets_a_short_socket_path() {
        let long = |c: char| Paths::new(Path::new(&format!("/{}", c.to_string().repeat(120))), None).socket;
        assert!(long('a').as_os_str().len() <= MAX_SOCKET_PATH);
        assert!(long('a').starts_with("/tmp") && long('a') != long('b') && long('a') == long('a'));
    }

    #[test]
    fn only_a_private_directory_of_the_user_is_trusted() {
        let base = std::env::temp_dir().join(format!("proto-paths-{}", std::process::id()));
        let (dir, file, link) = (base.join("d"), base.join("f"), base.join("l"));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&dir, &link).unwrap();
        let chmod = |mode| std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(mode)).unwrap();
        chmod(0o700);
        assert_eq!(check_private(&dir), Ok(()));
        chmod(0o711);
        assert_eq!(check_private(&dir), Err(UnsafeDir::Open));
        assert_eq!(check_private(&file), Err(UnsafeDir::NotADirectory));
        assert_eq!(check_private(&link), Err(UnsafeDir::NotADirectory));
        assert_eq!(check_private(&base.join("none")), Err(UnsafeDir::Missing));
        std::fs::remove_dir_all(&base).unwrap();
    }
}
