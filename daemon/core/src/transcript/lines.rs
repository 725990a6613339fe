//! Bytes → lines, in whatever pieces the bytes arrive.
//!
//! Lines end at `\n` only: other separators occur inside JSON strings. Text without its `\n` is not a line yet. A line longer
//! than the limit is skipped without being kept in memory.

use serde::de::IgnoredAny;

/// Maximum length of a line in bytes. The longest that Claude Code is known to write contain an image or document twice in
/// base64.
pub const MAX_LINE: usize = 32 << 20;

/// Splits a stream into lines. `feed` it pieces in order; a line's offset is that of its first byte in the file.
#[derive(Debug)]
pub struct Lines {
    /// Offset of the first byte of the unfinished line.
    start: u64,
    /// Bytes of the unfinished line from earlier pieces.
    held: Vec<u8>,
    /// Length of the unfinished line, whether it is kept or not.
    length: usize,
    limit: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// Without the `\n`.
    Whole(&'a [u8]),
    /// Its length in bytes.
    TooLong(usize),
}

impl Lines {
    /// Starts at `offset`, which must be the start of a line.
    pub fn at(offset: u64) -> Self {
        Self::with_limit(offset, MAX_LINE)
    }

    /// Like [`at`](Self::at), with another limit.
    pub fn with_limit(offset: u64, limit: usize) -> Self {
        Self { start: offset, held: Vec::new(), length: 0, limit }
    }

    /// Offset after the last complete line: where reading can start again.
    pub fn consumed(&self) -> u64 {
        self.start
    }

    /// Offset after the last byte that was fed.
    pub fn read_to(&self) -> u64 {
        self.start + self.length as u64
    }

    /// Takes the next piece of the file and calls `each` with every line that is now complete, and its offset.
    pub fn feed(&mut self, mut piece: &[u8], mut each: impl FnMut(u64, Line<'_>)) {
        while let Some(end) = memchr::memchr(b'\n', piece) {
            let (head, rest) = (&piece[..end], &piece[end + 1..]);
            let length = self.length + head.len();
            if length > self.limit {
                each(self.start, Line::TooLong(length));
            } else if self.held.is_empty() {
                each(self.start, Line::Whole(head));
            } else {
                self.held.extend_from_slice(head);
                each(self.start, Line::Whole(&self.held));
            }
            self.start += length as u64 + 1;
            self.length = 0;
            self.release();
            piece = rest;
        }
        self.length += piece.len();
        if self.length > self.limit {
            self.held = Vec::new();
        } else {
            self.held.extend_from_slice(piece);
        }
    }

    /// The unfinished line, if there is one and it is kept.
    pub fn unfinished(&self) -> Option<&[u8]> {
        (self.length > 0 && self.length <= self.limit).then_some(&self.held)
    }

    /// True if the text after the last newline is a complete JSON line.
    pub fn has_whole_rest(&self) -> bool {
        self.unfinished().is_some_and(|rest| serde_json::from_slice::<IgnoredAny>(rest).is_ok())
    }

    /// Treats the unfinished line as complete: nothing more will be written to the file.
    pub fn finish(&mut self, each: impl FnOnce(u64, Line<'_>)) {
        each(self.start, Line::Whole(&self.held));
        self.start += self.length as u64;
        self.length = 0;
        self.release();
    }

    /// Drops the unfinished line, and frees the memory of an unusually long one.
    fn release(&mut self) {
        if self.held.capacity() > 1 << 20 {
            self.held = Vec::new();
        } else {
            self.held.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Cut = Vec<(u64, Result<Vec<u8>, usize>)>;

    fn cut(pieces: &[&[u8]], limit: usize) -> (Cut, u64) {
        let mut lines = Lines::with_limit(7, limit);
        let mut out = Vec::new();
        for piece in pieces {
            lines.feed(piece, |at, line| {
                out.push((
                    at,
                    match line {
                        Line::Whole(bytes) => Ok(bytes.to_vec()),
                        Line::TooLong(n) => Err(n),
                    },
                ));
            });
        }
        (out, lines.consumed())
    }

    #[test]
    fn a_line_is_complete_only_with_its_newline() {
        assert_eq!(cut(&[b"a"], 9), (vec![], 7));
        assert_eq!(
            cut(&[b"a\n\nb\xE2\x80\xA8c\nd"], 9),
            (vec![(7, Ok(b"a".to_vec())), (9, Ok(vec![])), (10, Ok(b"b\xE2\x80\xA8c".to_vec()))], 16)
        );
    }

    #[test]
    fn a_too_long_line_is_skipped_and_the_next_one_kept() {
        assert_eq!(cut(&[b"12", b"345", b"6\nab\n"], 4), (vec![(7, Err(6)), (14, Ok(b"ab".to_vec()))], 17));
    }

    #[test]
    fn finish_completes_a_last_line_without_newline() {
        let mut lines = Lines::with_limit(0, 4);
        lines.feed(b"ab\ncd", |_, _| {});
        assert_eq!(lines.unfinished(), Some(&b"cd"[..]));
        lines.finish(|at, line| assert_eq!((at, line), (3, Line::Whole(b"cd"))));
        assert_eq!((lines.unfinished(), lines.consumed(), lines.read_to()), (None, 5, 5));
        lines.feed(b"too long", |_, _| {});
        assert_eq!(lines.unfinished(), None);
    }

    proptest! {
        #[test]
        fn the_lines_do_not_depend_on_the_pieces(
            text in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..200),
            cuts in proptest::collection::vec(0usize..200, 0..8),
            limit in 1usize..40,
        ) {
            let mut cuts: Vec<_> = cuts.into_iter().map(|c| c.min(text.len())).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for to in cuts.into_iter().chain([text.len()]) {
                pieces.push(&text[from..to]);
                from = to;
            }
            prop_assert_eq!(cut(&pieces, limit), cut(&[&text], limit));
        }
    }
}
