//! Reads the configuration files, provided that nobody else can write them: their rules decide what is masked, their
//! directories what is read.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::files::{self, Owner, Refused, Rules};
use cc_core::config::{BadConfig, Config, Layers};

/// The administrator's file for all users of a machine.
pub const FLEET_FILE: &str = "/etc/cc-langfuse/config.toml";

/// Largest configuration file, in bytes.
const MAX_SIZE: u64 = 1 << 20;

/// Why the configuration file is not used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// A directory, FIFO, device or socket.
    #[error("is not a regular file: remove it")]
    NotAFile,
    /// Neither the user's nor root's.
    #[error("belongs to another user: chown it to yourself, or remove it")]
    OtherOwner,
    /// It is for all users but not root's.
    #[error("must belong to root: chown it to root, or remove it")]
    NotOfRoot,
    /// Group or others may write to it.
    #[error("can be changed by other users: chmod go-w it")]
    Writable,
    /// More than 1 MiB.
    #[error("is larger than 1 MiB: that is no configuration; fix or remove it")]
    TooLarge,
    #[error("cannot be read: {0}; fix or remove it")]
    Io(io::Error),
    #[error("{0}; fix the line, or remove the file for the defaults")]
    Bad(BadConfig),
}

/// A configuration file, and why it cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}", file.display())]
pub struct Failed {
    pub file: PathBuf,
    #[source]
    pub why: Unusable,
}

/// A file that may exist.
#[derive(Clone, Copy, Debug)]
pub enum Source<'p> {
    /// The administrator's; it must belong to root.
    Fleet(&'p Path),
    /// The user's; it may belong to root too.
    User(&'p Path),
}

impl Source<'_> {
    fn path(&self) -> &Path {
        match self {
            Self::Fleet(path) | Self::User(path) => path,
        }
    }
}

/// The configuration: the user's file at `user` on top of the administrator's; the default if there are none.
///
/// # Errors
/// [`Failed`].
pub fn load(user: &Path) -> Result<Config, Failed> {
    Ok(layers(&[Source::Fleet(Path::new(FLEET_FILE)), Source::User(user)])?.config())
}

/// Reads `sources`, each on top of those before it. Never blocks, whatever kind of file it finds.
///
/// # Errors
/// [`Failed`].
pub fn layers(sources: &[Source<'_>]) -> Result<Layers, Failed> {
    let mut layers = Layers::default();
    for source in sources {
        let failed = |why: Unusable| Failed { file: source.path().to_path_buf(), why };
        if let Some(text) = read(*source).map_err(failed)? {
            layers.lay(source.path(), &text).map_err(|error| failed(Unusable::Bad(error)))?;
        }
    }
    Ok(layers)
}

/// The text of a file; `None` if there is none.
fn read(source: Source<'_>) -> Result<Option<String>, Unusable> {
    // Settings are often symbolic links into a repository: the file behind the link counts.
    let rules = Rules { may_be_shared: false, ..Rules::users(MAX_SIZE) };
    let (owner, stranger) = match source {
        Source::Fleet(_) => (Owner::Root, Unusable::NotOfRoot),
        Source::User(_) => (Owner::UserOrRoot, Unusable::OtherOwner),
    };
    let bytes = match files::read(source.path(), &Rules { owner, ..rules }) {
        Ok(bytes) => bytes,
        Err(refused) if refused.is_absence() => return Ok(None),
        Err(Refused::OtherOwner) => return Err(stranger),
        Err(Refused::Shared) => return Err(Unusable::Writable),
        Err(Refused::TooLarge) => return Err(Unusable::TooLarge),
        Err(Refused::NotAFile) => return Err(Unusable::NotAFile),
        Err(Refused::Io(error)) => return Err(Unusable::Io(error)),
        Err(refused @ (Refused::Missing | Refused::HardLink)) => return Err(Unusable::Io(io::Error::other(refused))),
    };
    let text = String::from_utf8(bytes);
    Ok(Some(text.map_err(|_| Unusable::Io(io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8")))?))
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
        rustix::fs::mknodat(rustix::fs::CWD, at("fifo.toml"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
            .unwrap();
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
        let dir = tempfile::tempdir().unwrap();
        let (fleet, own) = (dir.path().join("fleet.toml"), dir.path().join("own.toml"));
        for path in [&fleet, &own] {
            std::fs::write(path, "outbox_mib = 5").unwrap();
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
        }
        let loaded = layers(&[Source::Fleet(&fleet), Source::User(&own)]);
        if rustix::process::geteuid().is_root() {
            assert_eq!(loaded.unwrap().outbox_mib.location.unwrap().file, own);
            rustix::fs::chown(&fleet, Some(rustix::fs::Uid::from_raw(1000)), None).unwrap();
        } else {
            assert!(matches!(loaded, Err(Failed { why: Unusable::NotOfRoot, .. })), "{loaded:?}");
        }
        let error = layers(&[Source::Fleet(&fleet)]).unwrap_err();
        assert!(matches!(error.why, Unusable::NotOfRoot) && error.file == fleet, "{error:?}");
        assert_eq!(layers(&[Source::User(&own)]).unwrap().outbox_mib.value, 5);
    }
}
