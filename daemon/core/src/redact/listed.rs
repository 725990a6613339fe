//! Secrets in lists and files of special forms: logins, literals, cookie jars, static keys, inserted rows.

use std::ops::Range;

use super::{
    MARK,
    assign::{line_lead, quote_at},
    command::is_cookie,
    name::{Name, name_kind},
    value::{Trust, is_password_word, is_placeholder, is_secret, is_stopword},
};

/// How many bytes of a list are read.
const LIST_MAX: usize = 4 << 10;

fn window(text: &str, at: usize, len: usize) -> usize {
    text.floor_char_boundary((at + len).min(text.len()))
}

fn is_given(value: &str) -> bool {
    !is_stopword(value)
        && !is_password_word(value)
        && !is_placeholder(value)
        && !value.contains(MARK)
        && is_secret(Name::Password, value, true, Trust::Option)
}

/// The secrets in lines like `user:X` or `name=X` below a word that ends at `at`; returns how far the lines were read.
pub(super) fn lines(text: &str, at: usize, sign: u8, found: &mut Vec<Range<usize>>) -> usize {
    let bytes = text.as_bytes();
    // `chpasswd:` and `chpasswd <<EOF`; a bare `chpasswd` is handled with the commands.
    let opens = bytes[..at].ends_with(b"\n") || matches!(bytes.get(at), Some(b':')) || bytes[at..].starts_with(b" <<");
    if !opens || bytes[at..].starts_with(b" <<<") {
        return at;
    }
    let limit = window(text, at, LIST_MAX);
    let from = if bytes[..at].ends_with(b"\n") {
        at
    } else {
        memchr::memchr(b'\n', &bytes[at..limit]).map_or(limit, |i| at + i + 1)
    };
    let mut at = from;
    let mut others = 0;
    for raw in text[from..limit].split_inclusive('\n').take(64) {
        let lead = line_lead(raw);
        let line = raw[lead..].trim_end_matches(['\n', '\r', '$', ' ']);
        let body = line.trim_start().trim_start_matches("- ").trim_start_matches(['"', '\'']);
        let value_at = body.bytes().position(|b| b == sign).map(|i| i + 1);
        let start = at + lead + (line.len() - body.len());
        at += raw.len();
        let name = value_at.map(|value| &body[..value - 1]);
        let plain = name.is_some_and(|name| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.@$\\".contains(&b))
        });
        let value = value_at.map_or("", |value| body[value..].trim_end_matches(['"', '\'']));
        if !plain || value.contains(' ') {
            others += 1;
            if others > 3 {
                break;
            }
            continue;
        }
        if is_given(value) {
            let value_start = start + value_at.unwrap_or(0);
            found.push(value_start..value_start + value.len());
        }
    }
    at
}

/// `send "X\r"` and `New value: X` after a prompt for a password.
pub(super) fn sent(text: &str, start: usize, end: usize) -> Option<Range<usize>> {
    let from = text.floor_char_boundary(start.saturating_sub(160));
    let asked = &text[from..start];
    if !(asked.contains("assword") || asked.contains("assphrase")) {
        return None;
    }
    let limit = window(text, end, 160);
    let rest = &text[end..limit];
    let len = rest.find(['"', '\'', '\n', '\r']).unwrap_or(rest.len());
    let value = rest[..len].trim_end_matches(['\\', ' ', '$']);
    let value = ["\\r", "\\n"].iter().fold(value, |value, end| value.strip_suffix(end).unwrap_or(value));
    let value = value.trim_end_matches('\\');
    is_given(value).then(|| end..end + value.len())
}

/// The value in a line of a cookie jar: `host TRUE / FALSE 0 name value`; `at` is after one of its flags.
pub(super) fn cookie_line(text: &str, at: usize) -> Option<Range<usize>> {
    let limit = window(text, at, 4096);
    let line = &text[at..limit];
    let line = &line[..line.find(['\n', '\r']).unwrap_or(line.len())];
    let mut fields = line.split('\t');
    let (time, name, value) = (fields.next()?, fields.next()?, fields.next()?);
    let value = value.trim_end();
    let numbered = !time.is_empty() && time.bytes().all(|b| b.is_ascii_digit());
    let start = at + time.len() + name.len() + 2;
    (numbered && fields.next().is_none() && is_cookie(name, value)).then(|| start..start + value.len())
}

/// All hex lines of an OpenVPN static key.
pub(super) fn hex_lines(text: &str, at: usize) -> Option<Range<usize>> {
    let limit = window(text, at, LIST_MAX);
    let first = at + text[at..limit].find('\n')? + 1;
    let (mut at, mut end) = (first, first);
    let mut start = None;
    for raw in text[first..limit].split_inclusive('\n') {
        let lead = line_lead(raw);
        let line = raw[lead..].trim();
        if line.is_empty() || !line.bytes().all(|b| b.is_ascii_hexdigit()) {
            break;
        }
        start = start.or_else(|| Some(at + raw.find(line).unwrap_or(0)));
        end = at + raw.trim_end().len();
        at += raw.len();
    }
    start.map(|start| start..end)
}

/// `user:X@tcp(host:3306)/db`; `at` is the `@` before the network.
pub(super) fn data_source(text: &str, at: usize) -> Option<Range<usize>> {
    let from = text.floor_char_boundary(at.saturating_sub(120));
    let head = &text[from..at];
    let open = head.rfind(['"', '\'', '`', ' ', '\n', '=']).map_or(0, |i| i + 1);
    let login = &head[open..];
    let colon = login.find(':').filter(|colon| *colon > 0)?;
    let value = &login[colon + 1..];
    let open = value.len() >= 4
        && !is_placeholder(value)
        && !is_password_word(value)
        && !is_stopword(value)
        && !value.contains(MARK)
        && !value.contains(['$', '{', '<'])
        && !value.contains("%s")
        && !value.contains("%v");
    open.then(|| at - value.len()..at)
}

/// `(name, password) VALUES ('bob', 'X')`: the value of the first row; `start` is the opening bracket.
pub(super) fn columns(text: &str, start: usize, end: usize) -> Option<Range<usize>> {
    let from = text.floor_char_boundary(start.saturating_sub(300));
    let head = &text[from..start];
    let names = &head[head.rfind('(')? + 1..];
    let trim = |name: &str| -> String { name.trim().trim_matches(['`', '"', '\\', '[', ']']).to_owned() };
    let place = names.split(',').position(|name| name_kind(&trim(name)) == Some(Name::Password))?;
    let limit = window(text, end, 600);
    let bytes = &text.as_bytes()[..limit];
    let mut at = end + text[end..limit].find('(')? + 1;
    let mut number = 0;
    while at < limit {
        if let Some((quote, open)) = quote_at(bytes, at) {
            let close = quote.end(bytes, open);
            if number == place {
                return is_given(&text[open..close]).then_some(open..close);
            }
            at = close + quote.depth + 1;
            continue;
        }
        match bytes[at] {
            b',' => number += 1,
            b')' => return None,
            _ => {}
        }
        at += 1;
    }
    None
}

/// `["-p", "X"]` of an unknown program: a value that cannot be a port, a name or a path; `at` is where
/// the value begins.
pub(super) fn short_option(text: &str, at: usize) -> Option<Range<usize>> {
    let limit = window(text, at, 80);
    let rest = &text[at..limit];
    let value = &rest[..rest.find(['"', '\'', '\\', '\n'])?];
    let signs = value.bytes().filter(|b| b"!@#$%^&*?+~".contains(b)).count();
    let has = |test: fn(&u8) -> bool| value.bytes().any(|b| test(&b));
    let mixed = has(u8::is_ascii_digit) && has(u8::is_ascii_lowercase) && (has(u8::is_ascii_uppercase) || signs > 0);
    (mixed && !value.contains(['/', ':', '=']) && is_given(value)).then(|| at..at + value.len())
}
