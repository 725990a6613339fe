//! Private keys as text: whole, cut at either end, without their first line, after line numbers, paths and quotes, and
//! encoded in base64 again.

use std::ops::Range;

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};

/// What is known about the text so far, so that nothing is searched for twice.
#[derive(Default)]
pub(super) struct Keys {
    /// Everything before this position has been judged.
    until: usize,
    /// The next `-----END` after a position, if it was searched for.
    next_end: Option<(usize, usize)>,
}

const END: &[u8] = b"-----END ";

fn is_base64(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=')
}

/// The end of a line that begins at `at`: a real one or an escaped one, and where the next begins.
fn line_end(bytes: &[u8], at: usize) -> (usize, usize) {
    const MAX: usize = 400;
    let limit = bytes.len().min(at + MAX);
    let mut end = at;
    while end < limit {
        match bytes[end] {
            b'\n' => return (end, end + 1),
            b'\\' => {
                let run = bytes[end..limit].iter().take_while(|b| **b == b'\\').count();
                match bytes.get(end + run) {
                    Some(b'n') => return (end, end + run + 1),
                    Some(b'r') => return (end, end + run + 1),
                    _ => end += run,
                }
            }
            _ => end += 1,
        }
    }
    (limit, limit)
}

/// The base64 at the end of a line, after the line's lead and before the characters that close it.
fn payload(line: &[u8]) -> Option<Range<usize>> {
    let tail = line
        .iter()
        .rev()
        .take_while(|b| {
            matches!(
                b,
                b' ' | b'\t' | b'\r' | b'"' | b'\'' | b',' | b'+' | b'$' | b'|' | b'\\' | b';' | b')' | b'`' | b'.'
            )
        })
        .count();
    let mut end = line.len() - tail;
    // A plus sign may be part of the key.
    while end < line.len() && line[end] == b'+' {
        end += 1;
    }
    let len = line[..end].iter().rev().take_while(|b| is_base64(**b)).count();
    (len > 0).then(|| end - len..end)
}

/// Whether base64 looks like part of a key and not like a word.
fn is_key_line(part: &[u8], last: bool) -> bool {
    let digit = part.iter().any(u8::is_ascii_digit);
    let upper = part.iter().any(u8::is_ascii_uppercase);
    let lower = part.iter().any(u8::is_ascii_lowercase);
    if part.len() >= 32 {
        return upper && lower && (digit || part.len() >= 60);
    }
    last && (part.ends_with(b"=")
        || part.len() >= 2 && (u8::from(upper) + u8::from(lower) + u8::from(digit) >= 2 || part.len() <= 4))
        || part.len() >= 16 && upper && lower && digit
}

/// The end of the key's lines from `at` on.
fn lines_from(bytes: &[u8], from: usize) -> Option<usize> {
    let (mut at, mut end, mut full) = (from, None, 0);
    let mut blank = 0;
    while at < bytes.len() {
        let (stop, next) = line_end(bytes, at);
        let line = &bytes[at..stop];
        let header = [&b"Proc-Type:"[..], b"DEK-Info:", b"Version:", b"Comment:", b"Charset:", b"Hash:"]
            .iter()
            .any(|h| find(line, h).is_some());
        match payload(line) {
            _ if header && end.is_none() => {}
            Some(part) if is_key_line(&line[part.clone()], end.is_some() && part.len() < full) => {
                full = full.max(part.len());
                let short = part.len() < full && part.len() < 48;
                end = Some(at + part.end);
                if short {
                    break;
                }
            }
            _ if line.iter().filter(|b| b.is_ascii_alphanumeric()).count() <= 5 && end.is_none() && blank < 3 => {
                blank += 1
            }
            _ => break,
        }
        if next == stop {
            break;
        }
        at = next;
    }
    end
}

fn find(text: &[u8], word: &[u8]) -> Option<usize> {
    memchr::memmem::find(text, word)
}

/// Where the key's lines above `to` begin.
fn lines_before(bytes: &[u8], to: usize, floor: usize) -> Option<usize> {
    let (mut start, mut full) = (None, false);
    let mut end = to;
    let mut last = true;
    while end > floor {
        // The line that ends at `end`, without its line end.
        let head = &bytes[floor..end];
        let head = head.strip_suffix(b"\n").unwrap_or(head);
        let escape = |head: &[u8]| {
            let head = head.strip_suffix(b"\\n")?;
            Some(head.len() - head.iter().rev().take_while(|b| **b == b'\\').count())
        };
        let stop = floor + escape(head).unwrap_or(head.len());
        let from = floor.max(stop.saturating_sub(300));
        let window = &bytes[from..stop];
        let real = memchr::memrchr(b'\n', window).map(|i| i + 1);
        let escaped = memchr::memmem::rfind(window, b"\\n").map(|i| i + 2);
        let open = from + real.max(escaped).unwrap_or(0);
        let line = &bytes[open..stop];
        match payload(line) {
            Some(part) if is_key_line(&line[part.clone()], last) => {
                full |= part.len() >= 40;
                start = Some(open + part.start);
            }
            // The rest of the line that the end is on: its number, a path, nothing.
            _ if last && start.is_none() && line.len() < 120 && open > floor && end == to => {
                end = open;
                continue;
            }
            _ => break,
        }
        last = false;
        if open <= floor || open >= end {
            break;
        }
        end = open;
    }
    start.filter(|_| full)
}

impl Keys {
    /// The key around `PRIVATE KEY` at `at`.
    pub(super) fn around(&mut self, text: &str, at: usize) -> Option<Range<usize>> {
        if at < self.until {
            return None;
        }
        let bytes = text.as_bytes();
        let head = &bytes[at.saturating_sub(48)..at];
        let name =
            head.iter().rev().take_while(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || **b == b' ').count();
        let open = at - name;
        let rest = &bytes[at + "PRIVATE KEY".len()..];
        let dashes = |rest: &[u8]| rest.starts_with(b"-----") || rest.starts_with(b" BLOCK-----");
        if !dashes(rest) {
            return None;
        }
        let after = at + "PRIVATE KEY".len() + if rest.starts_with(b" ") { 11 } else { 5 };
        let words = &bytes[open..at];
        let before = &bytes[..open];
        if words.starts_with(b"BEGIN ") && before.ends_with(b"-----") {
            let start = open - 5;
            if let Some(close) = self.end_of(bytes, after) {
                self.until = close;
                return Some(start..close);
            }
            let end = lines_from(bytes, after)?;
            self.until = end;
            return Some(start..end);
        }
        if words.starts_with(b"END ") && before.ends_with(b"-----") {
            let floor = self.until;
            let start = lines_before(bytes, open - 5, floor)?;
            self.until = after;
            return Some(start..after);
        }
        None
    }

    /// The end of the key block whose first line ends at `at`; `None` if another block begins in it, or
    /// it holds no key.
    fn end_of(&mut self, bytes: &[u8], at: usize) -> Option<usize> {
        const MAX: usize = 64 << 10;
        let end = match self.next_end {
            Some((from, end)) if from <= at && at <= end => end,
            _ => {
                let end = find(&bytes[at..], END).map_or(bytes.len(), |i| at + i);
                self.next_end = Some((at, end));
                end
            }
        };
        let body = bytes.get(at..end).filter(|body| body.len() <= MAX && end < bytes.len())?;
        if find(body, b"-----BEGIN ").is_some() {
            return None;
        }
        let tail = &bytes[end..bytes.len().min(end + 80)];
        let key = find(tail, b"PRIVATE KEY")?;
        let dashes = find(&tail[key..], b"-----")?;
        let mut run = 0;
        let long = body.iter().any(|b| {
            run = if is_base64(*b) { run + 1 } else { 0 };
            run >= 40
        });
        long.then_some(end + key + dashes + 5)
    }

    /// What follows `Private-Lines: 8` of a PuTTY key, and its MAC.
    pub(super) fn putty(&mut self, text: &str, at: usize) -> Option<Range<usize>> {
        if at < self.until {
            return None;
        }
        let bytes = text.as_bytes();
        let (_, next) = line_end(bytes, at);
        let (stop, _) = line_end(bytes, next);
        let first = payload(&bytes[next..stop])?;
        let end = lines_from(bytes, next)?;
        self.until = end;
        Some(next + first.start..end)
    }

    /// A key without its first line: base64 of DER or of OpenSSH's form that begins at `at`.
    pub(super) fn bare(&mut self, text: &str, at: usize) -> Option<Range<usize>> {
        let bytes = text.as_bytes();
        let mark = matches!(bytes[..at], [b'+'] | [.., b'\n', b'+']);
        if at < self.until
            || at > 0
                && is_base64(bytes[at - 1])
                && !mark
                && !bytes[..at].ends_with(b"\\n")
                && !bytes[..at].ends_with(b"=")
        {
            return None;
        }
        let head = bytes.get(at..at + 40)?;
        if !head.iter().all(|b| is_base64(*b)) || !is_private(&decode(head)) {
            return None;
        }
        let run = bytes[at..].iter().take_while(|b| is_base64(**b)).count();
        // From the start of its line, so that the line's length counts.
        let end = lines_from(bytes, at).unwrap_or(at + run).max(at + run);
        self.until = end;
        Some(at..end)
    }

    /// A run of base64, over several lines, around a word that was found encoded in it, if the decoded text
    /// holds a secret.
    pub(super) fn wrapped(&mut self, text: &str, at: usize, is_secret: &dyn Fn(&str) -> bool) -> Option<Range<usize>> {
        const MAX: usize = 64 << 10;
        if at < self.until {
            return None;
        }
        let bytes = text.as_bytes();
        let floor = self.until.max(at.saturating_sub(MAX));
        let part = |b: &u8| is_base64(*b) || matches!(b, b'\n' | b'\r' | b' ');
        // The lines of a run start in the same column.
        let mut start = at;
        while start > floor && is_base64(bytes[start - 1]) {
            start -= 1;
        }
        loop {
            let gap = bytes[floor..start].iter().rev().take(24).take_while(|b| b.is_ascii_whitespace()).count();
            let above = start - gap;
            let run = bytes[floor..above].iter().rev().take_while(|b| is_base64(**b)).count();
            if gap == 0 || run < 48 || !bytes[above..start].contains(&b'\n') {
                break;
            }
            start = above - run;
        }
        // The mark of a diff.
        start += usize::from(bytes[start] == b'+' && (start == 0 || bytes[start - 1] == b'\n'));
        let mut end = at;
        let limit = bytes.len().min(at + MAX);
        while end < limit && is_base64(bytes[end]) {
            end += 1;
        }
        loop {
            let gap = bytes[end..limit].iter().take(24).take_while(|b| b.is_ascii_whitespace()).count();
            let run = bytes[end + gap..limit].iter().take_while(|b| is_base64(**b)).count();
            if gap == 0
                || !bytes[end..end + gap].contains(&b'\n')
                || !is_key_line(&bytes[end + gap..end + gap + run], true)
            {
                break;
            }
            end += gap + run;
            if run < 48 {
                break;
            }
        }
        self.until = end;
        if end - start < 40 || bytes[..start].ends_with(b"base64,") || !bytes[start..end].iter().all(part) {
            return None;
        }
        let clean: Vec<u8> = bytes[start..end].iter().copied().filter(|b| is_base64(*b) && *b != b'=').collect();
        let decoded = decode(&clean);
        let decoded = String::from_utf8_lossy(&decoded);
        is_secret(&decoded).then_some(start..end)
    }
}

fn decode(text: &[u8]) -> Vec<u8> {
    // A single last character encodes nothing.
    let len = text.len() - usize::from(text.len() % 4 == 1);
    let engine = base64::engine::GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        base64::engine::GeneralPurposeConfig::new()
            .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent)
            .with_decode_allow_trailing_bits(true),
    );
    engine.decode(&text[..len]).or_else(|_| STANDARD_NO_PAD.decode(&text[..len])).unwrap_or_default()
}

/// The first bytes of a private key in DER (PKCS #1, PKCS #8, SEC 1) or OpenSSH's form.
fn is_private(bytes: &[u8]) -> bool {
    if bytes.starts_with(b"openssh-key-v1") {
        return true;
    }
    let Some((0x30, rest)) = bytes.split_first().map(|(first, rest)| (*first, rest)) else { return false };
    let length = match rest.first() {
        Some(len) if *len < 0x80 => 1,
        Some(0x81) => 2,
        Some(0x82) => 3,
        _ => return false,
    };
    let Some(rest) = rest.get(length..) else { return false };
    // The version, then a number of the key, the algorithm or the key itself.
    rest.starts_with(&[2, 1, 0, 2]) && matches!(rest.get(4), Some(0x81 | 0x82 | 0x40..=0x42))
        || rest.starts_with(&[2, 1, 0, 0x30])
        || rest.starts_with(&[2, 1, 1, 4])
        || rest.starts_with(&[2, 1, 1, 0x30])
}
