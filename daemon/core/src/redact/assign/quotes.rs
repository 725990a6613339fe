//! Values with quotes, however the quotes are escaped, and without.

use std::ops::Range;

/// A value in its text.
#[derive(Debug)]
pub(super) struct Value {
    pub(super) range: Range<usize>,
    /// The quote around it, with its backslashes.
    pub(super) quote: Option<Quote>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(in super::super) struct Quote {
    pub(in super::super) byte: u8,
    /// How many backslashes come before it.
    pub(in super::super) depth: usize,
}

/// By byte, whether it ends a value without quotes.
const ENDS_BARE: [bool; 256] = {
    let mut ends = [false; 256];
    let (signs, mut at) = (b" \t\n\x0c\r\"'`,;&|<>(){}[]\\", 0);
    while at < signs.len() {
        ends[signs[at] as usize] = true;
        at += 1;
    }
    ends
};

/// The end of the blanks from `at` on; `at` itself if there are more of them than in a table.
pub(super) fn blanks(bytes: &[u8], at: usize) -> usize {
    at + bytes[at..].iter().take(80).take_while(|b| matches!(b, b' ' | b'\t')).count()
}

/// A quote at `at`, however it is escaped, and where it ends.
pub(in super::super) fn quote_at(bytes: &[u8], at: usize) -> Option<(Quote, usize)> {
    let depth = bytes[at..].iter().take(8).take_while(|b| **b == b'\\').count();
    match bytes.get(at + depth) {
        Some(byte @ (b'"' | b'\'' | b'`')) => Some((Quote { byte: *byte, depth }, at + depth + 1)),
        _ if bytes[at..].starts_with(b"&quot;") => Some((Quote { byte: b'&', depth: 0 }, at + 6)),
        _ if bytes[at..].starts_with(b"&#34;") || bytes[at..].starts_with(b"&#39;") => {
            Some((Quote { byte: b'&', depth: 0 }, at + 5))
        }
        _ => None,
    }
}

impl Value {
    /// The value that begins at `at`, read up to `limit`.
    pub(super) fn at(text: &str, at: usize, limit: usize) -> Option<Self> {
        let bytes = &text.as_bytes()[..limit];
        let prefix = bytes[at.min(limit)..].iter().take(2).take_while(|b| b"rbfuRBFU@L".contains(b)).count();
        let quoted = quote_at(bytes, at).or_else(|| quote_at(bytes, at + prefix).filter(|_| prefix > 0));
        if let Some((quote, start)) = quoted {
            return Some(Self { range: start..quote.end(bytes, start), quote: Some(quote) });
        }
        let len = bytes.get(at..)?.iter().take_while(|b| !ENDS_BARE[usize::from(**b)]).count();
        (len > 0).then(|| Self { range: at..at + len, quote: None })
    }

    pub(super) fn text<'t>(&self, text: &'t str) -> &'t str {
        &text[self.range.clone()]
    }
}

impl Quote {
    /// The end of the quoted text that begins at `start`: the closing quote, the end of the line or of `bytes`.
    pub(in super::super) fn end(self, bytes: &[u8], start: usize) -> usize {
        let mut at = start;
        while let Some(b) = bytes.get(at) {
            match b {
                b'\r' | b'\n' => return at,
                b'&' if self.byte == b'&'
                    && [&b"&quot;"[..], b"&#34;", b"&#39;"].iter().any(|q| bytes[at..].starts_with(q)) =>
                {
                    return at;
                }
                b'\\' => {
                    let run = bytes[at..].iter().take_while(|b| **b == b'\\').count();
                    let closes = bytes.get(at + run) == Some(&self.byte) && run <= self.depth;
                    if closes
                        || self.depth > 0
                            && bytes.get(at + run).is_some_and(|b| matches!(b, b'n' | b'r'))
                            && run >= self.depth
                    {
                        return at;
                    }
                    at += run + usize::from(run % 2 == 1 || self.depth > 0);
                }
                _ if *b == self.byte && self.depth == 0 => return at,
                // The surrounding text has ended.
                b'"' if self.depth > 0 => return at,
                _ => at += 1,
            }
        }
        bytes.len()
    }
}
