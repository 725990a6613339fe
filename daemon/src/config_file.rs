//! Reads the configuration files, if they can be trusted: their rules decide what is masked, their directories what is read.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::fs::{Mode, OFlags};

use cc_core::config::{BadConfig, Config, Layers};

/// What an administrator says for every user of a machine.
pub const FLEET: &str = "/etc/cc-langfuse/config.toml";

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
    /// It is for every user, and one of them wrote it.
    #[error("must belong to root: chown it to root, or remove it")]
    NotOfRoot,
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

/// A configuration file, and why it cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}", file.display())]
pub struct Failed {
    /// Which.
    pub file: PathBuf,
    /// Why.
    #[source]
    pub why: Unusable,
}

/// A file that may be there.
#[derive(Clone, Copy, Debug)]
pub enum Source<'p> {
    /// The administrator's: it must be root's.
    Fleet(&'p Path),
    /// The user's own, or put there by the administrator.
    User(&'p Path),
}

impl Source<'_> {
    fn path(&self) -> &Path {
        match self {
            Self::Fleet(path) | Self::User(path) => path,
        }
    }
}

/// The daemon's configuration: the user's file at `user` on top of the administrator's; the default if there are none.
///
/// # Errors
/// [`Failed`].
pub fn load(user: &Path) -> Result<Config, Failed> {
    Ok(layers(&[Source::Fleet(Path::new(FLEET)), Source::User(user)])?.config())
}

/// Reads `sources`, each on top of those before it. Never blocks, whatever lies there.
///
/// # Errors
/// [`Failed`].
pub fn layers(sources: &[Source<'_>]) -> Result<Layers, Failed> {
    let mut layers = Layers::default();
    for source in sources {
        let failed = |why: Unusable| Failed { file: source.path().to_path_buf(), why };
        if let Some(text) = read(*source).map_err(failed)? {
            layers.lay(source.path(), &text).map_err(|error| failed(error.into()))?;
        }
    }
    Ok(layers)
}

/// The text of a file; nothing if there is none.
fn read(source: Source<'_>) -> Result<Option<String>, Unusable> {
    let path = source.path();
    // Settings are often symbolic links into a repository: the file behind the link counts.
    let file = match rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
        Err(rustix::io::Errno::NXIO) => return Err(Unusable::NotAFile),
        Err(errno) => return Err(Unusable::Io(errno.into())),
    };
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(Unusable::NotAFile);
    }
    let ours = rustix::process::geteuid().as_raw();
    match source {
        Source::Fleet(_) if !is_root(meta.uid(), &mapping()) => return Err(Unusable::NotOfRoot),
        Source::User(_) if ![0, ours].contains(&meta.uid()) => return Err(Unusable::OtherOwner),
        _ => {}
    }
    if meta.mode() & 0o022 != 0 {
        return Err(Unusable::Writable);
    }
    let mut text = String::new();
    file.take(MAX_SIZE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_SIZE {
        return Err(Unusable::TooLarge);
    }
    Ok(Some(text))
}

/// How this process sees users; empty where the system does not say.
fn mapping() -> String {
    std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default()
}

/// True for root. In a service with a user namespace of its own (`PrivateUsers=`) root appears as nobody, like everybody that is
/// not known there; that nobody itself is not then shows in `mapping`.
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
            match (layers(&[Source::User(&at(name))]), expect) {
                (Ok(layers), Ok(mib)) => assert_eq!(layers.outbox_mib.value, mib, "{name}"),
                (Err(Failed { file, why }), Err(part)) => {
                    assert!(why.to_string().contains(part) && file == at(name), "{name}: {why}");
                }
                (got, _) => panic!("{name}: {got:?}"),
            }
        }
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
        let dir = tempfile::tempdir().unwrap();
        let (fleet, own) = (dir.path().join("fleet.toml"), dir.path().join("own.toml"));
        for path in [&fleet, &own] {
            std::fs::write(path, "outbox_mib = 5").unwrap();
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
        }
        let loaded = layers(&[Source::Fleet(&fleet), Source::User(&own)]);
        if rustix::process::geteuid().is_root() {
            assert_eq!(loaded.unwrap().outbox_mib.place.unwrap().file, own);
            rustix::fs::chown(&fleet, Some(rustix::fs::Uid::from_raw(1000)), None).unwrap();
        } else {
            assert!(matches!(loaded, Err(Failed { why: Unusable::NotOfRoot, .. })), "{loaded:?}");
        }
        let error = layers(&[Source::Fleet(&fleet)]).unwrap_err();
        assert!(matches!(error.why, Unusable::NotOfRoot) && error.file == fleet, "{error:?}");
        assert_eq!(layers(&[Source::User(&own)]).unwrap().outbox_mib.value, 5);
    }
}
