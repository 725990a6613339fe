//! Reads the configuration file, if it can be trusted: its rules decide what is masked, its directories what is read.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::Path,
};

use rustix::fs::{Mode, OFlags};

use super::{BadConfig, Config};

/// Largest configuration file, in bytes.
const MAX_SIZE: u64 = 1 << 20;

/// Why the configuration file is not used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// A directory, FIFO, device or socket.
    #[error("is not a regular file: remove it")]
    NotAFile,
    /// Neither ours nor the administrator's.
    #[error("belongs to another user: chown it to yourself, or remove it")]
    OtherOwner,
    /// Group or others may write to it.
    #[error("can be changed by other users: chmod go-w it")]
    Writable,
    /// More than 1 MiB.
    #[error("is larger than 1 MiB: that is no configuration; mend or remove it")]
    TooLarge,
    /// The system says no.
    #[error("cannot be read: {0}; mend or remove it")]
    Io(#[from] io::Error),
    /// What it says.
    #[error("{0}; mend the line, or remove the file for the defaults")]
    Bad(#[from] BadConfig),
}

/// The configuration at `path`; the default one if there is no such file. Never blocks, whatever the path names.
///
/// # Errors
/// [`Unusable`].
pub fn load(path: &Path) -> Result<Config, Unusable> {
    // Settings are often symbolic links into a repository: the file behind the link counts.
    let file = match rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(Config::default()),
        Err(rustix::io::Errno::NXIO) => return Err(Unusable::NotAFile),
        Err(errno) => return Err(Unusable::Io(errno.into())),
    };
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(Unusable::NotAFile);
    }
    if ![0, rustix::process::geteuid().as_raw()].contains(&meta.uid()) {
        return Err(Unusable::OtherOwner);
    }
    if meta.mode() & 0o022 != 0 {
        return Err(Unusable::Writable);
    }
    let mut text = String::new();
    file.take(MAX_SIZE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_SIZE {
        return Err(Unusable::TooLarge);
    }
    Ok(Config::parse(&text)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn only_a_file_that_others_cannot_change_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let write = |name: &str, text: &[u8], mode| {
            std::fs::write(at(name), text).unwrap();
            std::fs::set_permissions(at(name), std::fs::Permissions::from_mode(mode)).unwrap();
        };
        write("good.toml", b"outbox_mib = 1", 0o644);
        write("group.toml", b"", 0o664);
        write("others.toml", b"", 0o602);
        write("large.toml", &vec![b'#'; 1 + (1 << 20)], 0o600);
        write("binary.toml", b"\xff", 0o600);
        write("bad.toml", b"outbox_mib = 0", 0o600);
        std::fs::create_dir(at("dir.toml")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, at("fifo.toml"), rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        std::os::unix::fs::symlink(at("good.toml"), at("link.toml")).unwrap();
        for (name, expect) in [
            ("none.toml", Ok(256)),
            ("good.toml/none.toml", Ok(256)),
            ("good.toml", Ok(1)),
            ("link.toml", Ok(1)),
            ("group.toml", Err("chmod go-w")),
            ("others.toml", Err("chmod go-w")),
            ("large.toml", Err("larger than 1 MiB")),
            ("binary.toml", Err("UTF-8")),
            ("bad.toml", Err("line 1: `outbox_mib`")),
            ("dir.toml", Err("not a regular file")),
            ("fifo.toml", Err("not a regular file")),
        ] {
            match (load(&at(name)), expect) {
                (Ok(config), Ok(mib)) => assert_eq!(config.outbox_bytes, mib << 20, "{name}"),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{name}: {error}"),
                (got, _) => panic!("{name}: {got:?}"),
            }
        }
    }
}
