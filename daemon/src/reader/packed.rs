//! A compressed copy of a transcript: blocks, each a header and whole lines as one frame of zstd. Any block can be read without those
//! before it, and more can be appended. `zstdcat` shows the lines: to zstd the header is a frame to skip.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::{Mutex, PoisonError},
};

use cc_core::transcript::{
    cursor::{Identity, Position},
    lines::MAX_LINE,
};

/// How a skippable frame of zstd begins.
const MAGIC: [u8; 4] = 0x184D_2A5C_u32.to_le_bytes();

/// What follows the magic number and the length: the first version of this format.
const VERSION: [u8; 4] = *b"ccl1";

/// Bytes of a header: magic number, length of the rest, version, two lengths, four numbers, checksum.
const HEADER: usize = 4 + 4 + 4 + 2 * 4 + 4 * 8 + 4;

/// The largest block before compression, in bytes. A line can be longer masked than it was.
const MAX_PLAIN: usize = 2 * MAX_LINE;

/// The effort of compression: more gains little on text like this, and takes much longer.
const LEVEL: i32 = 3;

/// A block of a copy.
#[derive(Clone, Copy, Debug)]
struct Block {
    /// Where its frame begins in the file.
    at: u64,
    packed: u32,
    /// Where its lines begin in the whole text.
    starts: u64,
    plain: u32,
    /// Up to where the original was copied.
    original: Position,
    checksum: u32,
}

impl Block {
    fn end(&self) -> u64 {
        self.starts + u64::from(self.plain)
    }

    fn header(&self) -> [u8; HEADER] {
        let Position { identity, offset, marker } = self.original;
        let length = (HEADER as u32 - 8).to_le_bytes();
        let lengths = [self.packed.to_le_bytes(), self.plain.to_le_bytes()];
        let numbers = [offset, identity.dev, identity.ino, marker.unwrap_or_default()].map(u64::to_le_bytes);
        let mut header = [0; HEADER];
        let parts = [&MAGIC[..], &length, &VERSION].into_iter();
        let parts = parts.chain(lengths.iter().map(|part| &part[..])).chain(numbers.iter().map(|part| &part[..]));
        let mut filled = 0;
        for part in parts {
            header[filled..filled + part.len()].copy_from_slice(part);
            filled += part.len();
        }
        header[filled..].copy_from_slice(&self.checksum.to_le_bytes());
        header
    }

    fn parse(header: &[u8; HEADER], at: u64, starts: u64) -> Option<Self> {
        let short = |at: usize| header.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
        let long = |at: usize| header.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
        let identity = Identity { dev: long(28)?, ino: long(36)? };
        let block = Self {
            at: at + HEADER as u64,
            packed: short(12)?,
            starts,
            plain: short(16)?,
            original: Position { identity, offset: long(20)?, marker: Some(long(44)?) },
            checksum: short(52)?,
        };
        let is_ours = header[..4] == MAGIC && header[8..12] == VERSION && block.plain as usize <= MAX_PLAIN;
        is_ours.then_some(block)
    }

    /// Of all that the header says, and of the frame.
    fn sum(&self, frame: &[u8]) -> u32 {
        let header = Self { checksum: 0, ..*self }.header();
        let mut sum = crc32fast::Hasher::new();
        sum.update(&header);
        sum.update(frame);
        sum.finalize()
    }
}

/// The bytes of a block with these lines, up to `original` of the transcript they are from.
///
/// # Errors
/// Those of zstd; if the lines are too long for a block.
pub fn block(lines: &[u8], original: Position) -> io::Result<Vec<u8>> {
    let frame = zstd::bulk::compress(lines, LEVEL)?;
    let too_long = |_| io::Error::from(io::ErrorKind::FileTooLarge);
    let (packed, plain) = (frame.len().try_into().map_err(too_long)?, lines.len().try_into().map_err(too_long)?);
    if lines.len() > MAX_PLAIN {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut block = Block { at: 0, packed, starts: 0, plain, original, checksum: 0 };
    block.checksum = block.sum(&frame);
    Ok([&block.header()[..], &frame].concat())
}

/// A copy that is open for reading.
#[derive(Debug)]
pub struct Packed {
    file: File,
    blocks: Vec<Block>,
    /// The block that was read last.
    last: Mutex<Option<(usize, Vec<u8>)>>,
    /// Where the next read begins.
    at: u64,
    /// Something follows the last whole block: writing it was interrupted.
    is_torn: bool,
}

impl Packed {
    /// `None` if the file is none.
    ///
    /// # Errors
    /// As the system says.
    pub(super) fn of(file: &File, length: u64) -> io::Result<Option<Self>> {
        let (mut blocks, mut at, mut starts) = (Vec::new(), 0, 0);
        let mut header = [0; HEADER];
        while at + HEADER as u64 <= length {
            file.read_exact_at(&mut header, at)?;
            let Some(block) = Block::parse(&header, at, starts) else { break };
            let next = block.at + u64::from(block.packed);
            if next > length {
                break;
            }
            (at, starts) = (next, block.end());
            blocks.push(block);
        }
        let mut magic = [0; 12];
        let is_ours = !blocks.is_empty()
            || file.read_exact_at(&mut magic, 0).is_ok() && magic[..4] == MAGIC && magic[8..] == VERSION;
        let is_torn = at < length;
        Ok(is_ours.then_some(Self { file: file.try_clone()?, blocks, last: Mutex::new(None), at: 0, is_torn }))
    }

    /// Bytes of text.
    pub fn length(&self) -> u64 {
        self.blocks.last().map_or(0, Block::end)
    }

    /// Up to where the original was copied; `None` if the copy is damaged, or has nothing.
    pub fn original(&self) -> Option<Position> {
        let last = self.blocks.last().filter(|_| !self.is_torn)?;
        self.frame(last).ok().map(|_| last.original)
    }

    fn frame(&self, block: &Block) -> io::Result<Vec<u8>> {
        let mut frame = vec![0; block.packed as usize];
        self.file.read_exact_at(&mut frame, block.at)?;
        if block.sum(&frame) == block.checksum { Ok(frame) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    fn lines(&self, block: &Block) -> io::Result<Vec<u8>> {
        let lines = zstd::bulk::decompress(&self.frame(block)?, block.plain as usize)?;
        if lines.len() == block.plain as usize { Ok(lines) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    /// Reads from `offset` on into `buffer`, not beyond the end of a block; 0 at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let index = self.blocks.partition_point(|block| block.end() <= offset);
        let Some(block) = self.blocks.get(index) else { return Ok(0) };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref().is_none_or(|(known, _)| *known != index) {
            *last = Some((index, self.lines(block)?));
        }
        let lines = last.as_ref().map_or(&[][..], |(_, lines)| lines);
        let from = &lines[usize::try_from(offset - block.starts).unwrap_or(usize::MAX).min(lines.len())..];
        let length = from.len().min(buffer.len());
        buffer[..length].copy_from_slice(&from[..length]);
        Ok(length)
    }

    /// The same, beyond blocks: a read that does not fill the buffer is at the end, as with any file.
    fn fill_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read_at(&mut buffer[filled..], offset + filled as u64)? {
                0 => break,
                more => filled += more,
            }
        }
        Ok(filled)
    }

    pub(super) fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let filled = self.fill_at(buffer, offset)?;
        if filled == buffer.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }

    pub(super) fn seek(&mut self, offset: u64) {
        self.at = offset;
    }
}
