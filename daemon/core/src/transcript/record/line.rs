//! One line → its records. Normally that is one; after a crash there may also be a torn record, NUL bytes, or several records
//! glued together.

use std::{borrow::Cow, sync::LazyLock};

use memchr::memmem;
use serde::de::IgnoredAny;

use super::{
    Record, Skip,
    parse::{BOOKKEEPING, records},
    sniff::{Sniffed, request, sniff, uuid_key},
};
use crate::transcript::wire::{Found, Whole, Wire};

/// How often a record is looked for after the beginning of one that does not end. Each try scans the rest of the line.
const MAX_TRIES: usize = 64;

/// A bookkeeping line up to this length is searched completely for glued records, in bytes.
const MAX_WHOLE_LINE_BYTES: usize = 4096;

/// Calls `each` with every record of `line` and every reason for skipping something, each with the offset in the line at which
/// reading could start again.
pub fn read(line: &[u8], mut each: impl FnMut(usize, Result<Record, Skip>)) {
    let text = &line[padding(line)..];
    let text = &text[..text.len() - padding_behind(text)];
    if text.is_empty() {
        return;
    }
    let sniffed = sniff(text).filter(|sniffed| !may_be_glued(text, sniffed) || whole(text) == Some(text.len()));
    match sniffed {
        Some(Sniffed::Skip) => return each(0, Err(Skip::Bookkeeping)),
        Some(Sniffed::Link { uuid, parent, .. }) => return each(0, Ok(Record::Link { uuid, parent })),
        Some(Sniffed::Request) => return each(0, request(text)),
        None => {}
    }
    let text = paired(text);
    if record(&text, &mut |found| each(0, found)) {
        return;
    }
    let lead = line.len() - line[padding(line)..].len();
    if split(&text, &mut |at, found| each(if at == 0 { 0 } else { lead + at }, found)) {
        return;
    }
    if !tame_record(&text, &mut |found| each(0, found)) {
        each(0, Err(Skip::NotJson));
    }
}

/// Like [`record`], after replacing values that are not valid JSON.
fn tame_record(text: &[u8], each: &mut dyn FnMut(Result<Record, Skip>)) -> bool {
    let tame = tamed(text).filter(|_| text.starts_with(b"{"));
    tame.is_some_and(|text| record(&text, each))
}

/// Calls `each` with the records of one JSON text. False if it is not JSON.
fn record(text: &[u8], each: &mut dyn FnMut(Result<Record, Skip>)) -> bool {
    // Validating UTF-8 once for the line is cheaper than for each string in it.
    if let Ok(line) = std::str::from_utf8(text) {
        return serde_json::from_str(line).map(|wire| emit(wire, text, each)).is_ok();
    }
    if let Ok(wire) = serde_json::from_slice(text) {
        emit(wire, text, each);
        return true;
    }
    // Bytes that are not UTF-8 are replaced.
    let lossy = String::from_utf8_lossy(text);
    serde_json::from_str(&lossy).map(|wire| emit(wire, lossy.as_bytes(), each)).is_ok()
}

fn emit(wire: Whole<Box<Wire<'_>>>, text: &[u8], each: &mut dyn FnMut(Result<Record, Skip>)) {
    match wire.0 {
        Found::Value(wire) if wire.kind.as_ref().is_some_and(|kind| kind.0 == "api-request") => each(request(text)),
        Found::Value(wire) => records(wire, text, each),
        Found::Nothing | Found::Odd => each(Err(Skip::UnexpectedShape)),
    }
}

/// Finds complete records in `text`, which as a whole is not JSON. False if there are none.
fn split(text: &[u8], each: &mut dyn FnMut(usize, Result<Record, Skip>)) -> bool {
    let (mut at, mut any, mut tries) = (0, false, 0);
    // The start of a record that has no end.
    let mut stub = None;
    while at < text.len() {
        let rest = &text[at..];
        let end = if begins(rest) { whole(rest) } else { None };
        let found = end.filter(|end| match stub {
            None => true,
            // A nested object of a torn record is followed by more of that record.
            Some(_) => ends(&rest[*end..]) && is_record(&rest[..*end]),
        });
        if let Some(end) = found {
            if let Some(start) = stub.take() {
                each(start, Err(Skip::NotJson));
            }
            let emitted = record(&rest[..end], &mut |found| each(at, found))
                || tame_record(&rest[..end], &mut |found| each(at, found));
            any = true;
            if !emitted {
                each(at, Err(Skip::NotJson));
            }
            at += end + padding(&rest[end..]);
            continue;
        }
        stub = stub.or(Some(at));
        tries += usize::from(end.is_none() && begins(rest));
        if tries > MAX_TRIES {
            break;
        }
        let from = end.unwrap_or(1);
        at = memchr::memchr(b'{', &rest[from..]).map_or(text.len(), |next| at + from + next);
    }
    if let Some(start) = stub.filter(|_| any) {
        each(start, Err(Skip::NotJson));
    }
    any
}

/// The length of the JSON value that `text` begins with, if it is complete.
fn whole(text: &[u8]) -> Option<usize> {
    let mut texts = serde_json::Deserializer::from_slice(text).into_iter::<IgnoredAny>();
    texts.next()?.ok()?;
    Some(texts.byte_offset())
}

/// True if it may be a non-empty object.
fn begins(text: &[u8]) -> bool {
    text.first() == Some(&b'{') && text[1..].trim_ascii_start().first() == Some(&b'"')
}

/// True if only another record follows.
fn ends(text: &[u8]) -> bool {
    matches!(text[padding(text)..].first(), None | Some(b'{'))
}

/// True if it has the fields of a line, and so is not a part of one.
fn is_record(text: &[u8]) -> bool {
    let Ok(Whole(Found::Value(wire))) = serde_json::from_slice::<Whole<Box<Wire>>>(text) else { return false };
    match wire.kind.as_ref().map_or("", |kind| kind.0.as_ref()) {
        "user" | "assistant" | "system" | "attachment" => {
            wire.uuid.is_some() || wire.parent_uuid.is_some() || wire.timestamp.is_some()
        }
        "custom-title" | "ai-title" | "summary" | "api-request" => true,
        kind => BOOKKEEPING.binary_search(&kind.as_bytes()).is_ok(),
    }
}

/// True if a line that is skipped by its opening bytes may contain a record further on. Not all of it is searched: most bytes
/// of a transcript are in such lines.
fn may_be_glued(text: &[u8], sniffed: &Sniffed) -> bool {
    static TYPE: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(b"{\"type\""));
    match sniffed {
        Sniffed::Link { is_alone, .. } => !is_alone,
        Sniffed::Skip | Sniffed::Request => {
            uuid_key(text).is_some() || text.len() < MAX_WHOLE_LINE_BYTES && TYPE.find(&text[1..]).is_some()
        }
    }
}

/// The number of meaningless bytes before a record: NUL bytes after a crash, and byte order marks of editors.
fn padding(text: &[u8]) -> usize {
    let mut at = 0;
    loop {
        match text.get(at) {
            Some(byte) if *byte == 0 || byte.is_ascii_whitespace() => at += 1,
            Some(0xEF) if text[at..].starts_with(b"\xEF\xBB\xBF") => at += 3,
            _ => return at,
        }
    }
}

/// The same after a record.
fn padding_behind(text: &[u8]) -> usize {
    let mut end = text.len();
    loop {
        match text[..end].last() {
            Some(byte) if *byte == 0 || byte.is_ascii_whitespace() => end -= 1,
            Some(0xBF) if text[..end].ends_with(b"\xEF\xBB\xBF") => end -= 3,
            _ => return text.len() - end,
        }
    }
}

/// `text` with a replacement character for each lone half of a surrogate pair: JavaScript cuts strings in the middle of one.
/// The length stays the same.
fn paired(text: &[u8]) -> Cow<'_, [u8]> {
    let Some(first) = escapes(text).find(|at| matches!(text.get(at + 2), Some(b'd' | b'D'))) else {
        return text.into();
    };
    // The backslash may itself be escaped: an odd number of them counts.
    let mut at = first - text[..first].iter().rev().take_while(|byte| **byte == b'\\').count();
    let mut paired = Cow::Borrowed(text);
    while let Some(next) = memchr::memchr(b'\\', &text[at..]) {
        at += next;
        match (unit(&text[at..]), text.get(at + 6..).and_then(unit)) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => at += 12,
            (Some(0xD800..=0xDFFF), _) => {
                paired.to_mut()[at..at + 6].copy_from_slice(b"\\ufffd");
                at += 6;
            }
            _ => at = (at + 2).min(text.len()),
        }
    }
    paired
}

/// The positions of `\\u` in `text`.
fn escapes(text: &[u8]) -> impl Iterator<Item = usize> + use<'_> {
    static ESCAPE: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(b"\\u"));
    ESCAPE.find_iter(text)
}

/// The UTF-16 unit of the escape at the start of `text`.
fn unit(text: &[u8]) -> Option<u16> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// `text` as valid JSON, if its only fault are values that JSON cannot express: `NaN`, a number too large for a float, a
/// control character in a string. `None` if it has none of these.
fn tamed(text: &[u8]) -> Option<Vec<u8>> {
    let mut tame = Vec::with_capacity(text.len());
    let (mut at, mut changed) = (0, false);
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => {
                tame.push(b'"');
                at += 1;
                while let Some(byte) = text.get(at) {
                    tame.push(if *byte < b' ' { b' ' } else { *byte });
                    changed |= *byte < b' ';
                    at += 1;
                    match byte {
                        b'"' => break,
                        b'\\' => {
                            tame.extend(text.get(at));
                            at += 1;
                        }
                        _ => {}
                    }
                }
            }
            b'{' | b'}' | b'[' | b']' | b':' | b',' | b' ' | b'\t' | b'\r' => {
                tame.push(*byte);
                at += 1;
            }
            _ => {
                let length = text[at..].iter().take_while(|b| !b"{}[]:, \t\r\"".contains(b)).count();
                let token = &text[at..at + length];
                // A typed reader refuses a number too large for a float.
                if serde_json::from_slice::<serde_json::Value>(token).is_ok() {
                    tame.extend_from_slice(token);
                } else {
                    tame.extend_from_slice(b"null");
                    changed = true;
                }
                at += length;
            }
        }
    }
    changed.then_some(tame)
}
