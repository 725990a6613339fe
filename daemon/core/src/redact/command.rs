//! Secrets passed to programs on the command line: `mysql -pX`, `curl -u user:X`, `sshpass -p X`.

use std::ops::Range;

use self::programs::{ORACLE, PLACES, PLAIN_WORDS, PROGRAMS, STORES};
use super::{
    MARK,
    name::Name,
    value::{Trust, is_password_word, is_secret, is_stopword},
};

pub(super) mod piped;
mod programs;

/// Which part of an argument is the secret.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Whole,
    /// The text after the first occurrence of this byte: `user:X`.
    After(u8),
    /// The text after the last occurrence of this byte.
    AfterLast(u8),
    /// `pass:X`.
    Source,
    /// The values of cookies.
    Cookies,
}
use Part::*;

/// The options of a program that take a secret, and whether the value may be joined to the option.
struct Program {
    names: &'static [&'static str],
    options: &'static [(&'static str, Part)],
    joined: Joined,
    /// Without one of these words in the command, the options have another meaning.
    only_with: &'static [&'static str],
}

/// Where the value of a short option is.
#[derive(Clone, Copy, PartialEq)]
enum Joined {
    May,
    /// Joined to the option; a separate word has another meaning.
    Only,
    /// Separate: the program's long options have one dash too.
    Never,
}

/// How many bytes of a command are read.
const COMMAND_MAX: usize = 600;

/// The programs' names, each once; a name that matters only with a certain next word comes with that word.
pub(super) fn programs() -> impl Iterator<Item = (&'static str, Option<&'static str>)> {
    let options: Vec<&str> = PROGRAMS.iter().flat_map(|program| program.names).copied().collect();
    let places =
        PLACES.iter().map(|(command, ..)| (command[0], command.get(1).copied().filter(|word| !word.starts_with('-'))));
    // Options may come between these programs and the word.
    let loose = ["redis-cli", "rabbitmqctl", "nmcli", "mc", "ansible-vault", "smbpasswd", "chamber"];
    let places = places.map(|(name, word)| (name, word.filter(|_| !loose.contains(&name))));
    let places: Vec<_> = places.filter(|(name, _)| !options.contains(name)).collect();
    let others = ORACLE.iter().chain(piped::PRODUCERS).map(|name| (*name, None));
    let mut names: Vec<_> = options.iter().map(|name| (*name, None)).chain(places).chain(others).collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter()
}

/// A word of a command, without its quotes.
#[derive(Clone)]
struct Word {
    range: Range<usize>,
    /// Not a placeholder in brackets, as manuals write it.
    plain: bool,
}

/// The words from `from` to the end of the command.
fn words(text: &str, from: usize) -> (Vec<Word>, usize) {
    let limit = text.floor_char_boundary((from + COMMAND_MAX).min(text.len()));
    let bytes = &text.as_bytes()[..limit];
    let mut words = Vec::new();
    let mut at = from;
    while at < limit && words.len() < 60 {
        match bytes[at] {
            b' ' | b'\t' | b',' | b'[' | b'(' => at += 1,
            b'\\' if matches!(bytes.get(at + 1), Some(b'\n')) => at += 2,
            b'\\' if bytes[at..].starts_with(b"\\\r\n") => at += 3,
            b'\\' if bytes[at..].starts_with(b"\\\\\\n") => at += 4,
            b'\\' if matches!(bytes.get(at + 1), Some(b'"' | b'\'')) => at += 1,
            b'\n' | b'\r' | b'|' | b';' | b')' | b']' | b'&' | b'`' => break,
            b'\\' if matches!(bytes.get(at + 1), Some(b'n' | b'r')) => break,
            quote @ (b'"' | b'\'') => {
                let start = at + 1;
                let escaped = at > 0 && bytes[at - 1] == b'\\';
                let len = bytes[start..].iter().take_while(|b| **b != quote && **b != b'\n').count();
                let mut end = start + len;
                if bytes.get(end) != Some(&quote) {
                    // The surrounding text ends here.
                    at = start;
                    continue;
                }
                at = end + 1;
                if escaped {
                    end -= usize::from(bytes[..end].ends_with(b"\\"));
                }
                words.push(Word { range: start..end, plain: true });
            }
            _ => {
                let start = at;
                let mut quote = None;
                while at < limit {
                    match (bytes[at], quote) {
                        (b, Some(open)) if b == open => quote = None,
                        (b'\n', _) => break,
                        (_, Some(_)) => {}
                        (b @ (b'"' | b'\''), None)
                            if at > start
                                && matches!(bytes[at - 1], b'=' | b'p' | b'P' | b'u' | b'U' | b':' | b'/') =>
                        {
                            quote = Some(b)
                        }
                        (b' ' | b'\t' | b'"' | b'\'' | b'`' | b';' | b'|' | b')' | b'\r', None) => break,
                        (b'\\', None) if matches!(bytes.get(at + 1), Some(b'"' | b'\'' | b'\n' | b'n')) => break,
                        _ => {}
                    }
                    at += 1;
                }
                if at == start {
                    break;
                }
                words.push(Word { range: start..at, plain: !matches!(bytes[start], b'<' | b'{') });
            }
        }
    }
    (words, at)
}

fn take(text: &str, range: Range<usize>, part: Part, sure: bool, found: &mut Vec<Range<usize>>) {
    let mut range = range;
    // Quotes inside the word: -p'x'.
    if let Some(quote) = text[range.clone()].chars().next().filter(|c| matches!(c, '"' | '\'')) {
        range.start += 1;
        range.end -= usize::from(text[range.clone()].ends_with(quote));
    }
    let value = &text[range.clone()];
    let start = match part {
        Whole => 0,
        After(sign) => match value.bytes().position(|b| b == sign) {
            Some(at) if at > 0 || sign == b':' => at + 1,
            _ => return,
        },
        AfterLast(sign) => match value.bytes().rposition(|b| b == sign) {
            Some(at) => at + 1,
            None => return,
        },
        Source => match ["pass:", "plain:"].iter().find_map(|source| value.strip_prefix(source)) {
            Some(rest) => value.len() - rest.len(),
            None => return,
        },
        Cookies => return cookies(text, range, found),
    };
    let secret = &value[start..];
    let trust = if sure { Trust::Certain } else { Trust::Option };
    let known = is_stopword(secret)
        || is_password_word(secret)
        || secret.contains(MARK)
        || secret.starts_with(['-', '/', '<', '[', '{', '(']);
    let name = secret.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    if !known && !name && is_secret(Name::Password, secret, false, trust) {
        found.push(range.start + start..range.end);
    }
}

/// Masks the values of `a=x; b=y` that look like more than a setting.
pub(super) fn cookies(text: &str, range: Range<usize>, found: &mut Vec<Range<usize>>) {
    let mut at = range.start;
    for pair in text[range].split(';').take(64) {
        let (start, next) = (at, at + pair.len() + 1);
        at = next;
        let Some(equals) = pair.find('=') else { continue };
        let (name, value) = (pair[..equals].trim(), &pair[equals + 1..]);
        if ["path", "domain", "expires", "max-age", "samesite", "version"]
            .iter()
            .any(|own| name.eq_ignore_ascii_case(own))
        {
            continue;
        }
        let value = value.trim_end_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ',' | '\\'));
        if is_cookie(name, value) {
            found.push(start + equals + 1..start + equals + 1 + value.len());
        }
    }
}

/// Whether the value of a cookie is more than a setting.
pub(super) fn is_cookie(name: &str, value: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let known = ["sess", "sid", "auth", "token", "csrf", "xsrf", "remember", "jwt", "login", "user", "identity"]
        .iter()
        .any(|word| lower.contains(word));
    let trust = if known { Trust::Option } else { Trust::Code };
    let long = value.len() >= if known { 8 } else { 16 };
    let encoded = known && value.contains('%') && value.len() >= 20 && value.bytes().any(|b| b.is_ascii_digit());
    long && !value.contains(MARK)
        && (encoded || is_secret(if known { Name::Password } else { Name::Other }, value, true, trust))
}

/// The secrets in the arguments of the program whose name ends at `from`, and how far the arguments were read.
pub(super) fn arguments(text: &str, name: &str, from: usize, found: &mut Vec<Range<usize>>) -> usize {
    if piped::PRODUCERS.contains(&name) {
        return piped::written(text, from, found);
    }
    let (words, end) = words(text, from);
    let word = |index: usize| words.get(index).map(|word: &Word| &text[word.range.clone()]);
    for program in PROGRAMS.iter().filter(|program| program.names.contains(&name)) {
        let command = &text[from..end];
        if !program.only_with.is_empty() && !program.only_with.iter().any(|word| command.contains(word)) {
            continue;
        }
        for (index, at) in words.iter().enumerate() {
            let this = &text[at.range.clone()];
            for (option, part) in program.options {
                let Some(rest) = this.strip_prefix(option) else { continue };
                let short = option.len() == 2;
                if rest.is_empty() {
                    let Some(next) = words.get(index + 1).filter(|next| next.plain) else { continue };
                    let next_text = &text[next.range.clone()];
                    if !next_text.starts_with('-') {
                        take(text, next.range.clone(), *part, program.joined != Joined::Only, found);
                    }
                } else if short && program.joined != Joined::Never && !rest.starts_with(['=', '-']) {
                    take(text, at.range.start + 2..at.range.end, *part, true, found);
                } else if let Some(value) = rest.strip_prefix('=') {
                    take(text, at.range.end - value.len()..at.range.end, *part, true, found);
                }
            }
        }
    }
    for (command, place, part) in PLACES.iter().filter(|place| place.0[0] == name) {
        let found_at = match command.get(1) {
            None => Some(0),
            Some(second) => (0..words.len()).find(|index| word(*index) == Some(second)).map(|index| index + 1),
        };
        // Options, and the digit that gives the encoding of what follows, do not count as words.
        let skipped = |word: &&Word| {
            let text = &text[word.range.clone()];
            !(text.starts_with('-') || text.len() == 1 && text.as_bytes()[0].is_ascii_digit())
        };
        let rest = found_at.and_then(|at| words.get(at..)).unwrap_or_default();
        if let Some(secret) = rest.iter().filter(skipped).nth(*place).filter(|word| word.plain) {
            // Sentences contain these words as well.
            let digit = text[secret.range.clone()].bytes().any(|b| b.is_ascii_digit());
            if !digit && PLAIN_WORDS.contains(&name) {
                continue;
            }
            take(text, secret.range.clone(), *part, false, found);
        }
    }
    if ORACLE.contains(&name) {
        let login = words.iter().find(|word| text[word.range.clone()].contains('/'));
        found.extend(login.and_then(|word| oracle(text, word.range.clone())));
    }
    for (_, verbs) in STORES.iter().filter(|store| store.0 == name) {
        if words.iter().take(6).any(|word| verbs.contains(&&text[word.range.clone()])) {
            for word in words.iter().skip(2).filter(|word| !text[word.range.clone()].starts_with('-')) {
                take(text, word.range.clone(), After(b'='), false, found);
            }
        }
    }
    end
}

/// The password of `user/X@database`, in quotes or not.
fn oracle(text: &str, range: Range<usize>) -> Option<Range<usize>> {
    let word = &text[range.clone()];
    let slash = word.find('/')?;
    let user = word[..slash].trim_start_matches(['"', '\'', '\\']);
    let named = user.starts_with(|c: char| c.is_ascii_alphabetic())
        && user.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'$');
    let rest = &word[slash + 1..];
    let end = rest.rfind('@').filter(|at| *at > 0).unwrap_or(rest.len());
    let inner = rest[..end].trim_end_matches(['"', '\\']);
    let open = inner.len() - inner.trim_start_matches(['"', '\\']).len();
    let start = range.start + slash + 1 + open;
    let secret = &inner[open..];
    (named && !is_password_word(secret) && is_secret(Name::Password, secret, false, Trust::Option))
        .then(|| start..start + secret.len())
}
