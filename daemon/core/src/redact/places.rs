//! Secrets known by the form of the text around them: addresses, password files, tables, Kubernetes Secrets, headers.

use std::ops::Range;

use super::{
    MARK,
    assign::{line_lead, mark_lead},
    command::cookies,
    name::{Name, is_name_byte, name_kind},
    value::{Trust, entropy, is_interpolated, is_password_word, is_placeholder, is_secret, is_uuid, wordiness},
};

fn window(text: &str, at: usize, len: usize) -> usize {
    text.floor_char_boundary((at + len).min(text.len()))
}

fn line_start(text: &str, at: usize, max: usize) -> usize {
    let from = text.floor_char_boundary(at.saturating_sub(max));
    memchr::memrchr(b'\n', &text.as_bytes()[from..at]).map_or(from, |i| from + i + 1)
}

fn line_end(text: &str, at: usize, max: usize) -> usize {
    let to = window(text, at, max);
    memchr::memchr(b'\n', &text.as_bytes()[at..to]).map_or(to, |i| at + i)
}

fn is_host_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'[' | b':' | b'$' | b'{' | b'}')
}

/// The password in `://user:password@host`, whatever characters it has, or a token in place of the user.
pub(super) fn address(text: &str, at: usize) -> Option<Range<usize>> {
    const MAX: usize = 320;
    let start = at + "://".len();
    let limit = window(text, start, MAX);
    let bytes = &text.as_bytes()[..limit];
    let is_end = |b: u8| b.is_ascii_whitespace() || b"\"'`<>\\|".contains(&b);
    let run = start + bytes[start..].iter().take_while(|b| !is_end(**b)).count();
    let stop = start + bytes[start..run].iter().take_while(|b| !b"/?#@:[]".contains(b)).count();
    if bytes.get(stop) == Some(&b'@') {
        // No password: a token alone.
        let token = &text[start..stop];
        let sentry = text[stop..run].contains("sentry");
        return (token.len() >= 20 && !sentry && is_secret(Name::Other, token, true, Trust::Code))
            .then_some(start..stop);
    }
    if stop >= run || bytes[stop] != b':' {
        return None;
    }
    let start = stop + 1;
    // A port and what comes after it.
    let digits = bytes[start..run].iter().take_while(|b| b.is_ascii_digit()).count();
    if digits > 0 && digits <= 5 && matches!(bytes.get(start + digits), None | Some(b'/' | b'?' | b'#')) {
        return None;
    }
    let next_at = |from: usize, to: usize| memchr::memchr(b'@', &bytes[from..to]).map(|i| from + i);
    let authority = start + bytes[start..run].iter().take_while(|b| !b"/?#".contains(b)).count();
    let host = |at: usize| bytes[at + 1..run].iter().take_while(|b| is_host_byte(**b)).count();
    let certain = |at: usize| {
        let host = &text[at + 1..at + 1 + host(at)];
        host.contains(['.', ':', '$', '{']) || host == "localhost"
    };
    // The last `@` of the authority, as in browsers; or the first that is followed by a host.
    let mut end = memchr::memrchr(b'@', &bytes[start..authority]).map(|i| start + i).or_else(|| {
        let mut at = authority;
        while let Some(next) = next_at(at, run) {
            if host(next) > 0 {
                return Some(next);
            }
            at = next + 1;
        }
        None
    })?;
    if !certain(end) {
        let mut at = end + 1;
        while let Some(next) = next_at(at, run) {
            if certain(next) {
                end = next;
                break;
            }
            at = next + 1;
        }
    }
    let value = &text[start..end];
    let open = value.contains(char::is_alphanumeric)
        && !value.contains(MARK)
        && !is_interpolated(value)
        && !is_placeholder(value)
        && !is_password_word(value)
        && !value.contains(',');
    open.then_some(start..end)
}

/// The password of a line `host:5432:database:user:password`; `at` is the colon before the port.
pub(super) fn password_file(text: &str, at: usize) -> Option<Range<usize>> {
    let start = line_start(text, at, 120);
    let end = line_end(text, at, 300);
    let lead = line_lead(&text[start..at]);
    let host = text[start + lead..at].trim_start();
    if host.is_empty() && lead == 0 || host.contains([' ', '/', '"']) {
        return None;
    }
    let mut fields = text[at + 1..end].trim_end_matches(['\r', '$']).splitn(4, ':');
    let (port, database, user, password) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let name = |text: &str| {
        text == "*" || text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && text.bytes().all(is_name_byte)
    };
    let port = port == "*" || !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let start = at + 1 + (text[at + 1..end].len() - text[at + 1..end].splitn(4, ':').last()?.len());
    let plain =
        !password.is_empty() && !password.contains([' ', '/']) && !is_placeholder(password) && !password.contains(MARK);
    (port && name(database) && name(user) && plain && !is_password_word(password))
        .then(|| start..start + password.len())
}

/// `?key=x`, `&sig=x`, `&code=x`: `at` is the first letter of the parameter.
pub(super) fn parameter(text: &str, at: usize, name: &str) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let before = &bytes[..at];
    if !(before.ends_with(b"?") || before.ends_with(b"&") || before.ends_with(b";") || before.ends_with(b"%26")) {
        return None;
    }
    let mut start = at + name.len();
    if bytes.get(start) == Some(&b'=') {
        start += 1;
    } else if bytes[start..].starts_with(b"%3D") {
        start += 3;
    } else {
        return None;
    }
    let len =
        bytes[start..].iter().take(512).take_while(|b| b.is_ascii_alphanumeric() || b"-_.~+/%=".contains(b)).count();
    let value = text.get(start..start + len)?;
    let random = value.len() >= 16
        && !is_uuid(value)
        && !is_placeholder(value)
        && entropy(value) >= 3.2
        && wordiness(value) < 0.5;
    (random && value.bytes().any(|b| b.is_ascii_digit()) && !value.contains(MARK)).then_some(start..start + len)
}

/// The cookies of `Cookie: a=b; c=d`; `at` is the end of the word. Returns how far the header was read.
pub(super) fn cookie_header(text: &str, at: usize, found: &mut Vec<Range<usize>>) -> usize {
    let end = line_end(text, at, 4096);
    let rest = &text[at..end];
    let skip = rest.len() - rest.trim_start_matches(['"', '\'', '\\', ']']).len();
    let rest = rest[skip..].trim_start();
    if !rest.starts_with([':', '=', ',']) {
        return at;
    }
    let rest = rest[1..].trim_start_matches([' ', '\\']);
    let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''));
    let rest = rest.trim_start_matches(['"', '\'', '\\', '(']);
    let start = end - rest.len();
    let close =
        rest.find(|c| quote.map_or(matches!(c, '"' | '\'' | '`'), |q| c == q || c == '\\')).unwrap_or(rest.len());
    cookies(text, start..start + close, found);
    start + close
}

/// The values of `data:` and `stringData:` of a Kubernetes Secret whose `kind: Secret` ends at `at`; the text before
/// `floor` is already done. Returns the new end of the done part.
pub(super) fn kubernetes(text: &str, at: usize, floor: usize, found: &mut Vec<Range<usize>>) -> usize {
    const MAX: usize = 32 << 10;
    if at <= floor {
        return floor;
    }
    let from = text.ceil_char_boundary(floor.max(at.saturating_sub(MAX)));
    let to = window(text, at, MAX);
    // Its own document only.
    let open = text[from..at].rfind("\n---").map_or(from, |i| from + i + 4);
    let close = text[at..to].find("\n---").map_or(to, |i| at + i);
    let mut block: Option<usize> = None;
    let mut pos = open;
    let mut scalar: Option<usize> = None;
    for raw in text[open..close].split_inclusive('\n') {
        let start = pos;
        pos += raw.len();
        let lead = line_lead(raw);
        let line = raw[lead..].trim_end_matches(['\n', '\r', '$', ' ']);
        let body = line.trim_start();
        let indent = line.len() - body.len();
        if body.is_empty() {
            continue;
        }
        if let Some(outer) = scalar {
            if indent > outer {
                let value = start + lead + indent;
                found.push(value..value + body.len());
                continue;
            }
            scalar = None;
        }
        let plain = body.trim_start_matches(['"', '\'']);
        if plain.starts_with("data\":") || plain.starts_with("stringData\":") || matches!(body, "data:" | "stringData:")
        {
            block = Some(indent);
            continue;
        }
        let Some(outer) = block else { continue };
        if indent <= outer {
            block = None;
            continue;
        }
        let Some(colon) = body.find(": ").map(|i| i + 2).or_else(|| body.find("\":").map(|i| i + 2)) else { continue };
        let value = body[colon..].trim_start();
        let value_start = start + lead + indent + (body.len() - value.len());
        if matches!(value.trim_end_matches(['-', '+']), "|" | ">") {
            scalar = Some(indent);
            continue;
        }
        let value = value.trim_end_matches(',');
        let inner = value.trim_matches(['"', '\'']);
        let value_start = value_start + (value.len() - value.trim_start_matches(['"', '\'']).len());
        if inner.len() >= 4
            && !inner.contains(MARK)
            && !is_interpolated(inner)
            && !inner.contains(": ")
            && !inner.starts_with(['{', '['])
        {
            found.push(value_start..value_start + inner.len());
        }
    }
    close
}

/// The cells of a password column, in a table like `user | password` whose heading line ends at `end`. Returns how far
/// the table was read.
pub(super) fn column(text: &str, name: Range<usize>, kind: Name, found: &mut Vec<Range<usize>>) -> usize {
    let start = line_start(text, name.start, 400);
    let end = line_end(text, name.end, 400);
    let header = &text[start..end];
    let header = &header[mark_lead(header)..];
    let Some(sign) = ['|', '\t', ','].into_iter().find(|sign| header.contains(*sign)) else { return name.end };
    // The line holds names and nothing else.
    let cells = header.split(sign).map(|cell| cell.trim().trim_matches(['"', '*', '`']));
    let is_names = cells.clone().all(|cell| cell.len() <= 40 && cell.bytes().all(|b| is_name_byte(b) || b == b' '))
        && cells.clone().filter(|cell| !cell.is_empty()).count() >= 2
        && (sign == '|'
            || cells.clone().all(|cell| {
                !cell.is_empty() && !cell.contains([' ', '-', '.']) && !cell.bytes().any(|b| b.is_ascii_digit())
            }));
    if !is_names {
        return name.end;
    }
    let cells: Vec<&str> = cells.collect();
    let place = name.start - (end - header.len());
    let index = header[..place.min(header.len())].matches(sign).count();
    if !cells.get(index).is_some_and(|cell| name_kind(cell) == Some(kind)) {
        return name.end;
    }
    let mut at = end + 1;
    for _ in 0..200 {
        if at >= text.len() {
            break;
        }
        let stop = line_end(text, at, 2000);
        let raw = &text[at..stop];
        let lead = mark_lead(raw);
        let line = &raw[lead..];
        let rule = !line.trim().is_empty() && line.bytes().all(|b| b"+-|=: \r".contains(&b));
        if !rule {
            let mut pos = at + lead;
            let row: Vec<&str> = line.split(sign).collect();
            if row.len() != cells.len() {
                break;
            }
            for (number, cell) in row.iter().enumerate() {
                if number == index {
                    let value = cell.trim().trim_matches(['"', '`']);
                    let inside = cell.find(value).unwrap_or(0);
                    if !value.is_empty()
                        && name_kind(value).is_none()
                        && is_secret(kind, value, false, if sign == '|' { Trust::Option } else { Trust::Code })
                    {
                        found.push(pos + inside..pos + inside + value.len());
                    }
                }
                pos += cell.len() + 1;
            }
        }
        at = stop + 1;
    }
    at.min(text.len())
}

/// The same for columns separated by blanks only.
pub(super) fn wide_column(text: &str, name: Range<usize>, kind: Name, found: &mut Vec<Range<usize>>) -> usize {
    let start = line_start(text, name.start, 400);
    let end = line_end(text, name.end, 400);
    let lead = mark_lead(&text[start..end]);
    let header = &text[start + lead..end];
    // The line holds names and nothing else, all in one case.
    let words = header.split_whitespace();
    let is_names =
        words.clone().count() >= 2 && words.clone().all(|word| word.len() <= 40 && word.bytes().all(is_name_byte));
    let one_case = !header.bytes().any(|b| b.is_ascii_lowercase()) || !header.bytes().any(|b| b.is_ascii_uppercase());
    if !is_names || !one_case {
        return name.end;
    }
    let column = name.start - (start + lead);
    let mut at = end + 1;
    for _ in 0..200 {
        if at >= text.len() {
            break;
        }
        let stop = line_end(text, at, 2000);
        let raw = &text[at..stop];
        let cell = at + mark_lead(raw) + column;
        if raw.trim().is_empty() {
            break;
        }
        let begins = cell < stop && text.is_char_boundary(cell) && matches!(text.as_bytes()[cell - 1], b' ' | b'\t');
        if begins {
            let len = text[cell..stop].find([' ', '\r']).unwrap_or(stop - cell);
            let value = &text[cell..cell + len];
            let trust = if kind == Name::Password { Trust::Option } else { Trust::Code };
            if name_kind(value).is_none() && is_secret(kind, value, false, trust) {
                found.push(cell..cell + len);
            }
        }
        at = stop + 1;
    }
    at.min(text.len())
}

/// A token whose form has no fixed prefix: its range around `sign` at `at`, and the service.
pub(super) fn odd_token(text: &str, at: usize, sign: &str) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let back = |test: fn(&u8) -> bool| bytes[at.saturating_sub(160)..at].iter().rev().take_while(|b| test(b)).count();
    let after = at + sign.len();
    let ahead = |test: fn(&u8) -> bool| bytes[after..].iter().take(260).take_while(|b| test(b)).count();
    let slug = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    match sign {
        // Telegram: the bot's number before, 35 characters from `AA` on.
        ":AA" => {
            let (digits, rest) = (back(u8::is_ascii_digit), ahead(slug));
            ((7..=11).contains(&digits) && (32..=34).contains(&rest)).then(|| at - digits..after + rest)
        }
        // A key of Firebase.
        ":APA91b" => {
            let (head, rest) = (back(slug), ahead(slug));
            ((8..=40).contains(&head) && rest >= 100).then(|| at - head..after + rest)
        }
        // A client secret of Azure: three characters before the digit.
        _ if sign.ends_with("Q~") => {
            let test: fn(&u8) -> bool = |b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'~');
            let (head, rest) = (back(test), ahead(test));
            ((3..=5).contains(&head) && (31..=36).contains(&rest)).then(|| at - head..after + rest)
        }
        // Azure keys, which contain a fixed mark so that scanners find them.
        "AZDO" | "JQQJ99" | "+ASt" | "+ABa" | "+AMC" | "+AIo" | "+ARm" | "+AEh" | "ACDb" | "AzCa" | "AzSe" | "AzFu"
        | "+ACR" => {
            let test: fn(&u8) -> bool = |b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=' | b'_' | b'-');
            let (head, rest) = (back(test), ahead(test));
            let len = head + sign.len() + rest;
            let value = text.get(at - head..after + rest)?;
            (matches!(len, 44 | 52 | 56 | 80 | 84 | 86 | 88)
                && head >= 32
                && entropy(value) >= 4.2
                && wordiness(value) < 0.4)
                .then(|| at - head..after + rest)
        }
        // Mailchimp: 32 digits before the data centre.
        "-us" => {
            let hex = |b: &u8| b.is_ascii_hexdigit();
            let (head, rest) = (back(hex), ahead(u8::is_ascii_digit));
            (head == 32 && (1..=2).contains(&rest)).then(|| at - head..after + rest)
        }
        // HashiCorp: 14 characters before.
        ".atlasv1." => {
            let (head, rest) = (back(slug), ahead(slug));
            (head >= 10 && rest >= 50).then(|| at - head..after + rest)
        }
        _ => None,
    }
}

/// A bot of Discord: its number in base64, six characters of time, a signature.
pub(super) fn discord(text: &str, at: usize) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let slug = |b: &&u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    let part = |from: usize| bytes.get(from..).map_or(0, |rest| rest.iter().take(80).take_while(slug).count());
    let id = part(at);
    if !(23..=28).contains(&id) || bytes.get(at + id) != Some(&b'.') {
        return None;
    }
    let time = part(at + id + 1);
    if !(5..=7).contains(&time) || bytes.get(at + id + 1 + time) != Some(&b'.') {
        return None;
    }
    let signature = part(at + id + time + 2);
    (27..=45).contains(&signature).then(|| at..at + id + time + 2 + signature)
}

/// The signs that lead to tokens without a fixed prefix.
pub(super) const ODD_SIGNS: &[&str] = &[
    ":AA",
    ":APA91b",
    "0Q~",
    "1Q~",
    "2Q~",
    "3Q~",
    "4Q~",
    "5Q~",
    "6Q~",
    "7Q~",
    "8Q~",
    "9Q~",
    "AZDO",
    "JQQJ99",
    "+ASt",
    "+ABa",
    "+AMC",
    "+AIo",
    "+ARm",
    "+AEh",
    "ACDb",
    "AzCa",
    "AzSe",
    "AzFu",
    "+ACR",
    "-us",
    ".atlasv1.",
];
