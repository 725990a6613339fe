//! Opens and reads transcripts. Paths from hooks are untrusted, because the agent's own tools can reach the socket. Knows
//! nothing of what the lines mean.

use std::{
    ffi::OsStr,
    fs::{File, Metadata},
    io::{self, Read, Seek, SeekFrom},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::{FileExt, MetadataExt},
    },
    path::{Component, Path, PathBuf},
    time::SystemTime,
};

use rustix::{
    fs::{CWD, OFlags},
    io::Errno,
};
use sha2::{Digest, Sha256};

use crate::files::{self, Opened, Refused, Rules, dir::Dir};
pub use agents::{loose_agents, names_session, subagents, subagents_dir};
use cc_core::{
    media::{self, Media},
    transcript::{
        cursor::{Identity, MARKED, Position, marker},
        record::Spilled,
    },
};
use packed::Packed;
use places::{directory, project};

mod agents;
pub mod packed;
pub mod places;

/// The largest file beside a transcript that is read as a whole, in bytes.
const MAX_SIDE_FILE_BYTES: u64 = 64 << 10;

/// How many pieces show that a file was rewritten.
const SAMPLES: u64 = 16;

/// How much is read of an output that is too long for the transcript, in bytes.
pub const MAX_SPILLED_BYTES: usize = 256 << 10;

/// How many bytes are read at once.
pub const CHUNK_BYTES: usize = 256 << 10;

/// How many bytes of a file may be holes. A crash leaves small ones; a file made of holes takes no disk space, but reading it
/// would take hours.
const MAX_HOLE_BYTES: u64 = 256 << 20;

/// How many holes are checked.
const MAX_HOLES_CHECKED: usize = 1000;

/// What holds the bytes of a transcript.
#[derive(Debug)]
enum Bytes {
    Plain(File),
    Packed(Packed),
}

/// An open transcript, or a compressed copy of one, which reads like it.
#[derive(Debug)]
pub struct Transcript {
    bytes: Bytes,
    /// Identifies the file, whatever its name.
    pub identity: Identity,
    /// In bytes, when it was opened.
    pub length: u64,
    /// When it was last modified before that.
    pub modified: Option<SystemTime>,
    /// Its beginning, once it was read.
    head: Option<Vec<u8>>,
}

#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It does not exist.
    #[error("no such file")]
    Missing,
    /// A directory, FIFO, device, socket or symbolic link.
    #[error("not a regular file")]
    NotAFile,
    #[error("belongs to another user")]
    OtherOwner,
    /// It is outside all directories where transcripts may be.
    #[error("lies in no directory of transcripts")]
    Outside,
    /// Its length is far larger than its contents.
    #[error("consists of holes")]
    Hollow,
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
            Self::Outside => "transcript_outside_roots",
            Self::Hollow => "transcript_hollow",
            Self::Io(_) => "transcript_unreadable",
        }
    }

    /// What the user can do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Missing => {
                "Claude Code wrote none there, as with --no-session-persistence, or it lies on another machine: share its directory with this one"
            }
            Self::Io(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                "make it readable for you, and each directory above it: chmod u+rX"
            }
            Self::Io(_) => "see whether the disk it is on works",
            Self::NotAFile => {
                "put the file itself there; of links only that of a project's directory is followed, if it and what it leads to are yours"
            }
            Self::OtherOwner => "make the file yours, and the directory and the link that lead to it",
            Self::Outside => {
                "name the directory in which the projects lie in transcript_roots of config.toml; then cc-langfusectl restart"
            }
            Self::Hollow => "remove the file: Claude Code did not write it",
        }
    }
}

impl From<Refused> for Unreadable {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Missing => Self::Missing,
            Refused::OtherOwner => Self::OtherOwner,
            Refused::Io(error) if error.kind() != io::ErrorKind::NotADirectory => Self::Io(error),
            _ => Self::NotAFile,
        }
    }
}

impl Transcript {
    /// Opens `path` if it is a regular file of the user's. Never blocks, whatever kind of file it is.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn open(path: &Path) -> Result<Self, Unreadable> {
        Self::open_at(CWD, path)
    }

    /// Opens the file `name` of that directory, in the same way.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn open_in(dir: &Dir, name: &str) -> Result<Self, Unreadable> {
        Self::open_at(dir.as_fd(), Path::new(name))
    }

    /// Like [`open`](Self::open), if `path` is below one of `roots`: each step down from there must lead into a real directory,
    /// not through a symbolic link and not upwards. Only the first step, the project's directory, may be a link of the user's
    /// own. (Linux has `openat2` for this; walking works everywhere.)
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn open_beneath(path: &Path, roots: &[PathBuf]) -> Result<Self, Unreadable> {
        Self::open_below(path, roots, project)
    }

    /// Like [`open_beneath`](Self::open_beneath), with `first` for the first step.
    fn open_below(
        path: &Path,
        roots: &[PathBuf],
        first: fn(BorrowedFd<'_>, &OsStr) -> Result<OwnedFd, Unreadable>,
    ) -> Result<Self, Unreadable> {
        // Of nested roots the innermost, which may be a link below the others.
        let below = roots.iter().filter_map(|root| Some((root, path.strip_prefix(root).ok()?)));
        let (root, below) = below.min_by_key(|(_, below)| below.components().count()).ok_or(Unreadable::Outside)?;
        let mut steps: Vec<&OsStr> = Vec::new();
        for step in below.components() {
            match step {
                Component::Normal(name) => steps.push(name),
                _ => return Err(Unreadable::Outside),
            }
        }
        let name = steps.pop().ok_or(Unreadable::NotAFile)?;
        // The root itself may be reached through a link: that is the user's own arrangement.
        let mut dir = directory(CWD, root.as_os_str(), OFlags::empty())?;
        for (index, step) in steps.into_iter().enumerate() {
            dir = if index == 0 { first(dir.as_fd(), step)? } else { real_directory(dir.as_fd(), step)? };
        }
        Self::open_at(dir.as_fd(), Path::new(name))
    }

    fn open_at(dir: BorrowedFd<'_>, path: &Path) -> Result<Self, Unreadable> {
        let Opened { file, meta } = files::open_at(dir, path, &Rules::STRICT)?;
        if is_hollow(&file, &meta)? {
            return Err(Unreadable::Hollow);
        }
        let identity = Identity { dev: meta.dev(), ino: meta.ino() };
        let (bytes, length) = match Packed::of(&file, meta.len())? {
            Some(packed) => {
                let length = packed.length();
                (Bytes::Packed(packed), length)
            }
            None => (Bytes::Plain(file), meta.len()),
        };
        Ok(Self { bytes, identity, length, modified: meta.modified().ok(), head: None })
    }

    /// The compressed copy that it is; `None` if it is none.
    pub fn packed(&self) -> Option<&Packed> {
        match &self.bytes {
            Bytes::Plain(_) => None,
            Bytes::Packed(packed) => Some(packed),
        }
    }

    /// The bytes before `offset` that its marker covers; `None` if they are missing.
    pub fn before(&self, offset: u64) -> Option<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(offset).map_or(MARKED, |offset| offset.min(MARKED))];
        let start = offset - bytes.len() as u64;
        match &self.bytes {
            Bytes::Plain(file) => file.read_exact_at(&mut bytes, start),
            Bytes::Packed(packed) => packed.read_exact_at(&mut bytes, start),
        }
        .ok()?;
        Some(bytes)
    }

    /// The position `offset` in this file, with its marker.
    pub fn position(&self, offset: u64) -> Position {
        Position { identity: self.identity, offset, marker: self.before(offset).map(|bytes| marker(&bytes)) }
    }

    /// A fingerprint of pieces from everywhere before `offset`, which shows that they were rewritten.
    pub fn sample(&self, offset: u64) -> Option<u64> {
        let mut pieces = Vec::with_capacity(SAMPLES as usize * MARKED);
        for at in 1..=SAMPLES {
            pieces.extend(self.before(offset / SAMPLES * at)?);
        }
        let digest = Sha256::digest(&pieces);
        digest.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
    }

    /// The offset after the first `count` lines; if there are fewer, after the last complete one. Blank lines before the first
    /// do not count. Afterwards the read position is undefined.
    ///
    /// # Errors
    /// As the system says.
    pub fn after_lines(&mut self, count: u64) -> io::Result<u64> {
        self.seek(0)?;
        let (mut left, mut behind, mut at, mut is_text) = (count, 0, 0, false);
        let mut buffer = vec![0; CHUNK_BYTES];
        while left > 0 {
            let n = self.read(&mut buffer)?;
            if n == 0 {
                break;
            }
            let mut from = 0;
            while left > 0
                && let Some(end) = memchr::memchr(b'\n', &buffer[from..n])
            {
                is_text |= buffer[from..from + end].iter().any(|byte| !byte.is_ascii_whitespace());
                from += end + 1;
                behind = at + from as u64;
                left -= u64::from(is_text);
            }
            is_text |= buffer[from..n].iter().any(|byte| !byte.is_ascii_whitespace());
            at += n as u64;
        }
        Ok(behind)
    }

    /// Moves to `offset`, counted from the start of the file.
    ///
    /// # Errors
    /// As the system says.
    pub fn seek(&mut self, offset: u64) -> io::Result<()> {
        match &mut self.bytes {
            Bytes::Plain(file) => file.seek(SeekFrom::Start(offset)).map(drop),
            Bytes::Packed(packed) => {
                packed.seek(offset);
                Ok(())
            }
        }
    }

    /// Reads the next piece into `buffer`; 0 at the end of the file.
    ///
    /// # Errors
    /// As the system says.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = match &mut self.bytes {
                Bytes::Plain(file) => file.read(buffer),
                Bytes::Packed(packed) => packed.read(buffer),
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    /// The whole contents, if the file is small.
    ///
    /// # Errors
    /// As the system says.
    pub fn whole(&mut self) -> io::Result<Option<Vec<u8>>> {
        let bytes = self.start(MAX_SIDE_FILE_BYTES as usize + 1)?;
        Ok((bytes.len() as u64 <= MAX_SIDE_FILE_BYTES).then_some(bytes))
    }

    /// The first 64 KiB, cached. Afterwards the read position is undefined.
    ///
    /// # Errors
    /// As the system says.
    pub fn head(&mut self) -> io::Result<&[u8]> {
        let head = match self.head.take() {
            Some(head) => head,
            None => {
                self.seek(0)?;
                self.start(MAX_SIDE_FILE_BYTES as usize)?
            }
        };
        Ok(self.head.insert(head))
    }

    /// The next `limit` bytes of it, or fewer at its end.
    ///
    /// # Errors
    /// As the system says.
    pub fn start(&mut self, limit: usize) -> io::Result<Vec<u8>> {
        // One byte more than the length, so that a full buffer shows that the file has grown.
        let mut bytes = vec![0; usize::try_from(self.length.saturating_add(1)).unwrap_or(limit).min(limit)];
        let mut filled = 0;
        loop {
            if filled == bytes.len() {
                if filled == limit {
                    break;
                }
                bytes.resize(limit.min(filled + CHUNK_BYTES), 0);
            }
            match self.read(&mut bytes[filled..])? {
                0 => break,
                more => filled += more,
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    /// The first line, if it ends within the first 64 KiB. Afterwards the read position is undefined.
    ///
    /// # Errors
    /// As the system says.
    pub fn first_line(&mut self) -> io::Result<Option<&[u8]>> {
        let head = self.head()?;
        Ok(memchr::memchr(b'\n', head).map(|end| &head[..end]))
    }
}

fn real_directory(at: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Unreadable> {
    directory(at, name, OFlags::NOFOLLOW)
}

/// Reads an output too long for `transcript` from `path`, which the transcript names. Only a file in the session's own
/// directory for such outputs is read, and only text or a type that backends show.
pub fn spilled(transcript: &Path, path: &Path) -> Option<Spilled> {
    let (session, name) = (transcript.file_stem()?, path.file_name()?);
    let dir = Path::new(session).join("tool-results");
    // The projects' directory may have moved since the path was written.
    path.parent()?.ends_with(&dir).then_some(())?;
    let projects = transcript.parent()?;
    let path = projects.join(dir).join(name);
    let mut file = Transcript::open_below(&path, &[projects.to_path_buf()], real_directory).ok()?;
    if let Some(kind) = name.to_str().and_then(media::kind_of) {
        return Media::new(kind, file.start(media::MAX_BYTES + 1).ok()?, 0).map(Spilled::Media);
    }
    let mut bytes = file.start(MAX_SPILLED_BYTES).ok()?;
    // A character may be split at the end.
    if let Err(error) = std::str::from_utf8(&bytes)
        && error.error_len().is_none()
    {
        bytes.truncate(error.valid_up_to());
    }
    let mut text = String::from_utf8_lossy(&bytes).into_owned();
    if (bytes.len() as u64) < file.length {
        text.push_str(&format!(" [TRUNCATED {} of {} bytes]", bytes.len(), file.length));
    }
    (!text.contains('\0')).then_some(Spilled::Text(text))
}

/// True if more than [`MAX_HOLE_BYTES`] of the file were never written. A compressed file also takes little disk space, but has
/// no holes.
fn is_hollow(mut file: &File, meta: &Metadata) -> io::Result<bool> {
    use rustix::fs::{
        SeekFrom::{Data, Hole},
        seek,
    };
    let length = meta.len();
    if length.saturating_sub(meta.blocks().saturating_mul(512)) <= MAX_HOLE_BYTES {
        return Ok(false);
    }
    let (mut at, mut hollow) = (0, 0);
    for _ in 0..MAX_HOLES_CHECKED {
        if at >= length || hollow > MAX_HOLE_BYTES {
            break;
        }
        // The end of a file counts as a hole.
        let hole = seek(file, Hole(at))?;
        at = match seek(file, Data(hole)) {
            Err(Errno::NXIO) => length,
            data => data?,
        };
        hollow += at.saturating_sub(hole);
    }
    file.rewind()?;
    Ok(hollow > MAX_HOLE_BYTES)
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
        rustix::fs::mknodat(rustix::fs::CWD, at("fifo.jsonl"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
            .unwrap();
        let reason = |name: &str| Transcript::open(&at(name)).err().map(|error| error.reason());
        assert_eq!(reason("real.jsonl"), None);
        assert_eq!(reason("none.jsonl"), Some("transcript_missing"));
        for name in ["dir.jsonl", "link.jsonl", "fifo.jsonl"] {
            assert_eq!(reason(name), Some("transcript_not_a_file"), "{name}");
        }
        let mut real = Transcript::open(&at("real.jsonl")).unwrap();
        assert_eq!((real.length, real.first_line().unwrap()), (3, Some(&b"a"[..])));
    }

    #[test]
    fn lines_are_counted_to_where_the_next_one_starts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.jsonl");
        let long = "x".repeat(3 * CHUNK_BYTES);
        for (text, count, expect) in [
            ("", 3, 0),
            ("a\nb\nc\n", 0, 0),
            ("a\nb\nc\n", 2, 4),
            ("a\n\nc\n", 2, 3),
            ("a\nb\nc\n", 3, 6),
            ("a\nb\nc\n", 9, 6),
            ("a\nb\nc", 3, 4),
            (" \n\na\nb\n", 1, 5),
            (&format!("{long}\nb\n"), 1, long.len() as u64 + 1),
            (&format!("{long}\nb\n"), 2, long.len() as u64 + 3),
        ] {
            std::fs::write(&path, text).unwrap();
            let found = Transcript::open(&path).unwrap().after_lines(count).unwrap();
            assert_eq!(found, expect, "{count} lines of {} bytes", text.len());
        }
    }

    #[test]
    fn a_file_of_holes_is_not_read_and_one_with_a_hole_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.jsonl");
        for (length, expect) in [
            (MAX_HOLE_BYTES, None),
            (2 * MAX_HOLE_BYTES, Some("transcript_hollow")),
            (1 << 40, Some("transcript_hollow")),
        ] {
            std::fs::write(&path, "a\nb").unwrap();
            std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length).unwrap();
            let opened = Transcript::open(&path);
            assert_eq!(opened.as_ref().err().map(Unreadable::reason), expect, "{length} bytes");
            if let Ok(mut file) = opened {
                let mut buffer = [0; 3];
                assert_eq!((file.read(&mut buffer).unwrap(), &buffer), (3, b"a\nb"), "from its start");
            }
        }
    }

    #[test]
    fn a_spilled_output_is_read_from_the_sessions_own_directory_and_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let projects = dir.path().join("projects/-work");
        let results = projects.join("s/tool-results");
        let put = |at: PathBuf, bytes: &[u8]| {
            std::fs::create_dir_all(at.parent().unwrap()).unwrap();
            std::fs::write(at, bytes).unwrap();
        };
        let long = "ü".repeat(MAX_SPILLED_BYTES);
        put(results.join("a.txt"), b"all of it");
        put(results.join("long.txt"), format!("x{long}").as_bytes());
        put(results.join("latin.txt"), b"caf\xe9 au lait");
        put(results.join("binary.txt"), b"a\0b");
        put(results.join("i.png"), b"png");
        put(results.join("below/a.txt"), b"x");
        put(projects.join("other/tool-results/a.txt"), b"x");
        put(dir.path().join("a.txt"), b"x");
        std::os::unix::fs::symlink(dir.path().join("a.txt"), results.join("link.txt")).unwrap();
        let transcript = projects.join("s.jsonl");
        let read = |path: &str| spilled(&transcript, Path::new(path));
        let text = |text: &str| Some(Spilled::Text(text.to_owned()));
        // The old path of the directory does not matter.
        assert_eq!(read("/home/dev/.claude/projects/-work/s/tool-results/a.txt"), text("all of it"));
        assert_eq!(read("s/tool-results/latin.txt"), text("caf\u{fffd} au lait"));
        let cut = format!(
            "x{} [TRUNCATED {} of {} bytes]",
            "ü".repeat(MAX_SPILLED_BYTES / 2 - 1),
            MAX_SPILLED_BYTES - 1,
            2 * MAX_SPILLED_BYTES + 1
        );
        assert_eq!(read("s/tool-results/long.txt"), text(&cut));
        let image = Media::new("image/png", b"png".to_vec(), 0).unwrap();
        assert_eq!(read("/x/s/tool-results/i.png"), Some(Spilled::Media(image)));
        for path in [
            "/x/s/tool-results/none.txt",
            "/x/s/tool-results/binary.txt",
            "/x/s/tool-results/link.txt",
            "/x/s/tool-results/below/a.txt",
            "/x/s/tool-results/below",
            "/x/s/tool-results/..",
            "/x/other/tool-results/a.txt",
            "/x/s/tool-results/../../other/tool-results/a.txt",
            "/x/s/a.txt",
            "a.txt",
            "",
        ] {
            assert_eq!(read(path), None, "{path}");
        }
        std::fs::rename(&results, dir.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &results).unwrap();
        assert_eq!(read("/x/s/tool-results/a.txt"), None);
    }

    #[test]
    fn no_way_leads_out_of_the_roots() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for (name, below) in [("root", "p/s.jsonl"), ("other", "p/s.jsonl"), ("rootx", "s.jsonl")] {
            std::fs::create_dir_all(at(name).join(below).parent().unwrap()).unwrap();
            std::fs::write(at(name).join(below), "a\n").unwrap();
        }
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(at(to), at(name)).unwrap();
        link("other/p", "root/linked");
        link("other/p", "root/p/linked");
        link("other/p/s.jsonl", "root/p/l.jsonl");
        link("root", "alias");
        link("other", "root/meant");
        let roots = [at("nowhere"), at("root"), at("alias"), at("root/meant")];
        for (path, expect) in [
            ("root/p/s.jsonl", None),
            ("root/./p//s.jsonl", None),
            ("alias/p/s.jsonl", None),
            ("root/meant/p/s.jsonl", None),
            ("root/p/none.jsonl", Some("transcript_missing")),
            ("nowhere/s.jsonl", Some("transcript_missing")),
            ("root/linked/s.jsonl", None),
            ("root/p/linked/s.jsonl", Some("transcript_not_a_file")),
            ("root/p/l.jsonl", Some("transcript_not_a_file")),
            ("root/p/s.jsonl/x.jsonl", Some("transcript_not_a_file")),
            ("root", Some("transcript_not_a_file")),
            ("root/p/../p/s.jsonl", Some("transcript_outside_roots")),
            ("root/../other/p/s.jsonl", Some("transcript_outside_roots")),
            ("rootx/s.jsonl", Some("transcript_outside_roots")),
            ("other/p/s.jsonl", Some("transcript_outside_roots")),
        ] {
            let opened = Transcript::open_beneath(&at(path), &roots);
            assert_eq!(opened.err().map(|error| error.reason()), expect, "{path}");
        }
    }
}
