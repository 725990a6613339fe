//! Copies the files of a session: its transcript, and those of its subagents.

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::kept::place;
use crate::{
    files::{self, dir},
    reader::{self, CHUNK_BYTES, Transcript, Unreadable, packed},
};
use cc_core::{
    archive::masked,
    redact::{Counts, Redactor},
    transcript::lines::{Line, Lines},
};

/// How much text a block has, in bytes: enough to compress well, little enough to read a turn quickly.
const BLOCK: usize = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    #[error(transparent)]
    Refused(#[from] files::Refused),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The transcripts of a session, main one first, each with the names below the directory of its project.
fn files(transcript: &Path, id: &str) -> Vec<(PathBuf, Vec<String>)> {
    let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    let mut found: Vec<(PathBuf, Vec<String>)> =
        vec![(transcript.to_path_buf(), name(transcript).into_iter().collect())];
    let project = transcript.parent().unwrap_or(Path::new("/"));
    for (_, path) in reader::subagents(&reader::subagents_dir(transcript)) {
        let below = path.strip_prefix(project).ok();
        let names = below.and_then(|below| below.iter().map(|name| name.to_str().map(str::to_owned)).collect());
        found.extend(names.map(|names| (path, names)));
    }
    found.extend(reader::loose_agents(project).into_iter().filter_map(|path| {
        let is_its = reader::names_session(&path, id);
        name(&path).filter(|_| is_its).map(|name| (path, vec![name]))
    }));
    found
}

/// True if every transcript of the session has a whole copy.
pub(super) fn is_current(archive: &Path, transcript: &Path, id: &str) -> bool {
    let Some(project) = place(archive, transcript) else { return false };
    files(transcript, id).into_iter().all(|(path, names)| {
        let Ok(original) = Transcript::open(&path) else { return false };
        let copy = Transcript::open(&project.join(names.iter().collect::<PathBuf>())).ok();
        let at = copy.and_then(|copy| copy.packed().and_then(packed::Packed::original));
        original.length == 0 || at.is_some_and(|at| original.identity == at.identity && original.length == at.offset)
    })
}

/// A session to be copied.
pub(super) struct Session<'s> {
    pub transcript: &'s Path,
    pub id: &'s str,
    /// Of the transcript, as far as it may be copied.
    pub length: u64,
    pub roots: &'s [PathBuf],
    pub rules: &'s Redactor,
}

impl Session<'_> {
    /// Copies what is new of its files.
    ///
    /// # Errors
    /// If its transcript cannot be read, or a copy not be written.
    pub(super) fn copy_to(&self, archive: &Path) -> Result<(), Failed> {
        let project = place(archive, self.transcript).ok_or(Unreadable::NotAFile)?;
        for (index, (path, names)) in files(self.transcript, self.id).into_iter().enumerate() {
            let Some((name, dirs)) = names.split_last() else { continue };
            let there = dir::made(&project.join(dirs.iter().collect::<PathBuf>()), dirs.len() + 2)?;
            let limit = if index == 0 { self.length } else { u64::MAX };
            match self.file(&path, limit, &there, name) {
                Err(Failed::Unreadable(_)) if index > 0 => continue,
                done => done?,
            }
            if index > 0 {
                self.description(&path, &there, name)?;
            }
        }
        Ok(())
    }

    /// Copies what is new of a transcript.
    fn file(&self, path: &Path, limit: u64, there: &dir::Dir, name: &str) -> Result<(), Failed> {
        let mut original = Transcript::open_beneath(path, self.roots)?;
        let limit = limit.min(original.length);
        let known = Transcript::open_in(there, name).ok();
        let known = known.and_then(|copy| copy.packed().and_then(packed::Packed::original));
        let known = known.filter(|at| {
            at.offset <= limit && at.holds(original.identity, original.length, original.before(at.offset).as_deref())
        });
        if known.is_some_and(|at| at.offset == limit) {
            return Ok(());
        }
        let mut file = match known {
            Some(_) => there.to_append(name)?,
            None => there.unfinished()?,
        };
        let from = known.map_or(0, |at| at.offset);
        let written = self.lines(&mut original, from, limit, &mut file);
        let modified = original.modified.unwrap_or(SystemTime::UNIX_EPOCH);
        let written = written.and_then(|()| file.set_modified(modified).and_then(|()| file.sync_data()));
        if known.is_none() {
            match written {
                Ok(()) => there.finished(there, name)?,
                Err(_) => there.abandoned(),
            }
        }
        Ok(written?)
    }

    /// Appends the masked lines from `from` on to `out`, in blocks.
    fn lines(&self, original: &mut Transcript, from: u64, limit: u64, out: &mut File) -> io::Result<()> {
        original.seek(from)?;
        let (mut lines, mut left) = (Lines::at(from), limit - from);
        let (mut buffer, mut plain) = (vec![0; CHUNK_BYTES], Vec::new());
        let mut to = from;
        while left > 0 {
            let n = original.read(&mut buffer)?.min(usize::try_from(left).unwrap_or(usize::MAX));
            if n == 0 {
                break;
            }
            left -= n as u64;
            let mut ready = Vec::new();
            lines.feed(&buffer[..n], |offset, line| {
                to = offset + self.mask(line, &mut plain) + 1;
                if plain.len() >= BLOCK {
                    ready.push((std::mem::take(&mut plain), to));
                }
            });
            for (plain, to) in ready {
                out.write_all(&packed::block(&plain, original.position(to))?)?;
            }
        }
        if lines.has_whole_rest() {
            lines.finish(|offset, line| to = offset + self.mask(line, &mut plain));
        }
        // A block without lines says up to where there were none.
        if !plain.is_empty() || to > from {
            out.write_all(&packed::block(&plain, original.position(to))?)?;
        }
        Ok(())
    }

    /// Adds a line to `plain`, if it is not too long to be read at all. Returns its length.
    fn mask(&self, line: Line<'_>, plain: &mut Vec<u8>) -> u64 {
        let bytes = match line {
            Line::Whole(bytes) => bytes,
            Line::TooLong(length) => return length as u64,
        };
        let text = String::from_utf8_lossy(bytes);
        let masked = masked(&text, self.rules, &mut Counts::new());
        plain.extend_from_slice(masked.as_deref().unwrap_or(&text).as_bytes());
        plain.push(b'\n');
        bytes.len() as u64
    }

    /// Copies the description beside a subagent's transcript.
    fn description(&self, path: &Path, there: &dir::Dir, name: &str) -> Result<(), Failed> {
        let path = path.with_extension("meta.json");
        let Ok(mut file) = Transcript::open_beneath(&path, self.roots) else { return Ok(()) };
        let Some(bytes) = file.whole()? else { return Ok(()) };
        let text = String::from_utf8_lossy(&bytes);
        let masked = masked(&text, self.rules, &mut Counts::new());
        let text = masked.as_deref().unwrap_or(&text);
        let name = format!("{}.meta.json", name.trim_end_matches(".jsonl"));
        if there.read(&name, bytes.len() as u64 * 4 + 1024).ok().flatten().as_deref() != Some(text.as_bytes()) {
            there.put(text.as_bytes(), there, &name)?;
        }
        Ok(())
    }
}
