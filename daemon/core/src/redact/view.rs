//! Text as people see it: without colours and invisible characters, with plain blanks, symbols and quotes.

use std::ops::Range;

/// A piece of the view and its origin.
struct Piece {
    seen: usize,
    original: usize,
    /// Length in bytes of the character this replaces; 0 if the piece is a copy.
    replaced: usize,
}

/// Text to examine, and the way back to the original.
pub(super) struct View {
    pub(super) text: String,
    pieces: Vec<Piece>,
}

enum Change {
    Remove(usize),
    Replace(char, usize),
}

/// The next byte that can begin something to change.
fn next_special(bytes: &[u8], from: usize) -> Option<usize> {
    const STEP: usize = 32;
    let special = |b: u8| b >= 0x80 || b == 0x1b;
    let mut at = from;
    for chunk in bytes[from..].chunks(STEP) {
        if chunk.iter().fold(false, |any, b| any | special(*b)) {
            return chunk.iter().position(|b| special(*b)).map(|i| at + i);
        }
        at += chunk.len();
    }
    None
}

/// The length of a terminal's escape sequence.
fn escape_len(bytes: &[u8]) -> usize {
    match bytes.get(1) {
        Some(b'[') => {
            let body = bytes[2..].iter().take(64).take_while(|b| (0x20..0x40).contains(*b)).count();
            2 + body + usize::from(bytes.len() > 2 + body)
        }
        Some(b']') => {
            let body = bytes[2..].iter().take(512).take_while(|b| !matches!(b, 7 | 0x1b | b'\n')).count();
            let end = &bytes[2 + body..];
            2 + body + if end.starts_with(b"\x1b\\") { 2 } else { usize::from(end.first() == Some(&7)) }
        }
        Some(b'(' | b')') if bytes.len() > 2 => 3,
        _ => 1,
    }
}

fn change(text: &str, at: usize) -> Option<Change> {
    let bytes = &text.as_bytes()[at..];
    if bytes[0] == 0x1b {
        let len = escape_len(bytes);
        // Never ends inside a character.
        return Some(Change::Remove(text.ceil_char_boundary(at + len) - at));
    }
    if !matches!(bytes[0], 0xc2 | 0xe1 | 0xe2 | 0xe3 | 0xef) {
        return None;
    }
    let c = text[at..].chars().next()?;
    let plain = match c {
        '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' => {
            return Some(Change::Remove(c.len_utf8()));
        }
        '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}' => ' ',
        '\u{201c}'..='\u{201f}' => '"',
        '\u{2018}'..='\u{201b}' => '\'',
        '│' | '┃' | '║' => '|',
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(c as u32 - 0xfee0)?,
        _ => return None,
    };
    Some(Change::Replace(plain, c.len_utf8()))
}

impl View {
    /// `None` if the text needs no change.
    pub(super) fn of(text: &str) -> Option<Self> {
        let mut view: Option<Self> = None;
        let mut copied = 0;
        let mut at = 0;
        while let Some(special) = next_special(text.as_bytes(), at) {
            let Some(change) = change(text, special) else {
                // Continue at the next character.
                at = text.ceil_char_boundary(special + 1);
                continue;
            };
            let view = view.get_or_insert_with(|| Self { text: String::with_capacity(text.len()), pieces: Vec::new() });
            view.copy(text, copied..special);
            let len = match change {
                Change::Remove(len) => len,
                Change::Replace(plain, len) => {
                    view.pieces.push(Piece { seen: view.text.len(), original: special, replaced: len });
                    view.text.push(plain);
                    len
                }
            };
            copied = special + len;
            at = copied;
        }
        let mut view = view?;
        view.copy(text, copied..text.len());
        Some(view)
    }

    fn copy(&mut self, text: &str, range: Range<usize>) {
        if !range.is_empty() {
            self.pieces.push(Piece { seen: self.text.len(), original: range.start, replaced: 0 });
            self.text.push_str(&text[range]);
        }
    }

    fn piece(&self, at: usize) -> Option<&Piece> {
        self.pieces[..self.pieces.partition_point(|piece| piece.seen <= at)].last()
    }

    /// The range of the original that a range of the view stands for.
    pub(super) fn original(&self, seen: Range<usize>) -> Range<usize> {
        let start = self.piece(seen.start).map_or(0, |piece| piece.original + (seen.start - piece.seen));
        let last = seen.end.saturating_sub(1);
        let end = self.piece(last).map_or(start, |piece| match piece.replaced {
            0 => piece.original + (seen.end - piece.seen),
            len => piece.original + len,
        });
        start..end.max(start)
    }
}
