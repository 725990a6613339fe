//! Opens transcripts. Everything about paths that a hook names is untrusted (the agent's own tools can reach the socket).

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::Path,
};

use rustix::fs::{Mode, OFlags};

/// How much is read at once, in bytes.
pub const CHUNK: usize = 256 << 10;

/// An open transcript.
#[derive(Debug)]
pub struct Transcript {
    file: File,
    /// Which file this is, whatever its name.
    pub identity: Identity,
    /// Its length in bytes when it was opened.
    pub length: u64,
}

/// A file's identity on this machine: it survives a rename, and a new file under the old name has another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Device.
    pub dev: u64,
    /// Inode.
    pub ino: u64,
}

/// Why a path is not read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// Nothing there, yet or any more.
    #[error("no such file")]
    Missing,
    /// A directory, FIFO, device, socket or symbolic link.
    #[error("not a regular file")]
    NotAFile,
    /// Another user's.
    #[error("belongs to another user")]
    OtherOwner,
    /// Something else.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl Unreadable {
    /// The name under which `status` counts it.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "transcript_missing",
            Self::NotAFile => "transcript_not_a_file",
            Self::OtherOwner => "transcript_other_owner",
            Self::Io(_) => "transcript_unreadable",
        }
    }
}

impl Transcript {
    /// Opens `path` if it is a regular file of ours. Never blocks, whatever the path names.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn open(path: &Path) -> Result<Self, Unreadable> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(rustix::io::Errno::NOENT) => return Err(Unreadable::Missing),
            Err(rustix::io::Errno::LOOP | rustix::io::Errno::NXIO) => return Err(Unreadable::NotAFile),
            Err(errno) => return Err(Unreadable::Io(errno.into())),
        };
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(Unreadable::NotAFile);
        }
        if meta.uid() != rustix::process::geteuid().as_raw() {
            return Err(Unreadable::OtherOwner);
        }
        Ok(Self { file, identity: Identity { dev: meta.dev(), ino: meta.ino() }, length: meta.len() })
    }

    /// Moves to `offset`, counted from the start of the file.
    ///
    /// # Errors
    /// As the system says.
    pub fn seek(&mut self, offset: u64) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(offset)).map(drop)
    }

    /// Reads the next piece into `buffer`; 0 at the end of the file.
    ///
    /// # Errors
    /// As the system says.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.file.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    /// The first line, if it ends within the first 64 KiB. Leaves the position at an unknown place.
    ///
    /// # Errors
    /// As the system says.
    pub fn first_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        self.seek(0)?;
        let mut head = Vec::new();
        (&mut self.file).take(64 << 10).read_to_end(&mut head)?;
        Ok(memchr::memchr(b'\n', &head).map(|end| head[..end].to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_are_opened_and_nothing_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("real.jsonl"), "a\nb").unwrap();
        std::fs::create_dir(at("dir.jsonl")).unwrap();
        std::os::unix::fs::symlink(at("real.jsonl"), at("link.jsonl")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, at("fifo.jsonl"), rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        let reason = |name: &str| Transcript::open(&at(name)).err().map(|error| error.reason());
        assert_eq!(reason("real.jsonl"), None);
        assert_eq!(reason("none.jsonl"), Some("transcript_missing"));
        for name in ["dir.jsonl", "link.jsonl", "fifo.jsonl"] {
            assert_eq!(reason(name), Some("transcript_not_a_file"), "{name}");
        }
        let mut real = Transcript::open(&at("real.jsonl")).unwrap();
        assert_eq!((real.length, real.first_line().unwrap()), (3, Some(b"a".to_vec())));
    }
}
