//! What a name promises: `DB_PASSWORD`, `apiKey`, `connect.sid`, `token_count`.

use super::rules::{ABOUT, OTHERS, PASSWORDS, SESSIONS};

/// Longer names are not names.
pub(super) const NAME_MAX: usize = 64;

/// What the value of a name is, if it is a secret.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Name {
    /// Chosen by people: shorter and more like words.
    Password,
    /// Made by machines.
    Other,
    /// Names a session: random and long, and never a UUID, of which logs are full.
    Session,
    /// Base64 of `user:password`.
    Login,
    /// Some key: only of what looks as random as can be.
    Key,
    /// Words that stand for a key.
    Phrase,
}

/// By byte, whether it can be part of a name.
const NAME_BYTES: [bool; 256] = {
    let mut part = [false; 256];
    let mut b = 0;
    while b < 128 {
        part[b] = (b as u8).is_ascii_alphanumeric() || matches!(b as u8, b'_' | b'-' | b'.');
        b += 1;
    }
    part
};

pub(super) fn is_name_byte(b: u8) -> bool {
    NAME_BYTES[usize::from(b)]
}

pub(super) fn name_end(text: &[u8], from: usize) -> usize {
    from + text[from..].iter().take(NAME_MAX).take_while(|b| is_name_byte(**b)).count()
}

/// Where the name begins that goes on at `at`.
pub(super) fn name_start(text: &[u8], at: usize) -> usize {
    let head = &text[at.saturating_sub(NAME_MAX)..at];
    let mut start = at - head.iter().rev().take_while(|b| is_name_byte(**b)).count();
    // Dashes of an option, and the letter of an escape (`\npassword`) or a percent code.
    while start < at && matches!(text[start], b'-' | b'.') {
        start += 1;
    }
    let before = &text[..start];
    if before.ends_with(b"\\") && matches!(text[start], b'n' | b'r' | b't') && start < at {
        start += 1;
    }
    if before.ends_with(b"%") && at - start >= 2 && text[start..start + 2].iter().all(u8::is_ascii_hexdigit) {
        start += 2;
    }
    start
}

/// A name without separators and in small letters, so that one spelling is left, and where its words begin.
struct Letters {
    text: [u8; 2 * NAME_MAX + 16],
    len: usize,
    /// By bit.
    starts: u128,
    /// The letters there are, by their last five bits.
    has: u32,
}

impl Letters {
    fn new(name: &str) -> Option<Self> {
        let mut letters = Self { text: [0; 2 * NAME_MAX + 16], len: 0, starts: 1, has: 0 };
        let (mut before, mut fresh) = (0, true);
        for b in name.bytes() {
            match b {
                b'_' | b'-' | b'.' | b' ' | b':' => fresh = true,
                _ if b.is_ascii_alphanumeric() => {
                    *letters.text.get_mut(letters.len)? = b.to_ascii_lowercase();
                    let hump = b.is_ascii_uppercase() && !u8::is_ascii_uppercase(&before);
                    if (fresh || hump || b.is_ascii_digit() != u8::is_ascii_digit(&before)) && letters.len < 128 {
                        letters.starts |= 1 << letters.len;
                    }
                    letters.has |= 1 << (b & 31);
                    letters.len += 1;
                    fresh = false;
                }
                _ => return None,
            }
            before = b;
        }
        Some(letters)
    }

    fn as_bytes(&self) -> &[u8] {
        &self.text[..self.len]
    }

    fn is_start(&self, at: usize) -> bool {
        at >= self.len || at < 128 && self.starts & (1 << at) != 0
    }

    /// Both are short: a searcher costs more to set up than to compare.
    fn find(&self, word: &str) -> Option<usize> {
        let (first, rest) = word.as_bytes().split_first()?;
        // Most words begin or end with a letter that is not there.
        let there = |b: &u8| self.has & (1 << (b & 31)) != 0;
        if !there(first) || rest.last().is_some_and(|last| !there(last)) {
            return None;
        }
        let text = self.as_bytes();
        let last = text.len().checked_sub(word.len())?;
        (0..=last).rev().find(|at| text[*at] == *first && text[at + 1..].iter().zip(rest).all(|(a, b)| a == b))
    }

    /// The end of a whole word.
    fn word(&self, word: &str) -> Option<usize> {
        let at = self.find(word)?;
        let end = at + word.len();
        let plural = self.text.get(end) == Some(&b's') && self.is_start(end + 1);
        (self.is_start(at) && (self.is_start(end) || plural)).then_some(end)
    }

    /// The last end of any of the names; `letters` are those of each, which most lack.
    fn last_of(&self, names: &[&[&str]], letters: &[u32]) -> Option<usize> {
        let there = names.iter().zip(letters).filter(|(_, letters)| *letters & !self.has == 0);
        there.filter_map(|(words, _)| self.words(words)).max()
    }

    /// The end of words in a row.
    fn words(&self, words: &[&str]) -> Option<usize> {
        match words {
            [one] => self.find(one).map(|at| at + one.len()),
            [one, two] => {
                let at = self.find(two)?;
                self.as_bytes()[..at].ends_with(one.as_bytes()).then_some(at + two.len())
            }
            _ => None,
        }
    }
}

/// The letters of words, by their last five bits.
const fn letters_of(words: &[&str]) -> u32 {
    let (mut letters, mut word) = (0, 0);
    while word < words.len() {
        let (bytes, mut at) = (words[word].as_bytes(), 0);
        while at < bytes.len() {
            letters |= 1 << (bytes[at] & 31);
            at += 1;
        }
        word += 1;
    }
    letters
}

const fn letters_of_each<const N: usize>(names: &[&[&str]]) -> [u32; N] {
    let (mut letters, mut name) = ([0; N], 0);
    while name < N {
        letters[name] = letters_of(names[name]);
        name += 1;
    }
    letters
}

const PASSWORD_LETTERS: [u32; PASSWORDS.len()] = letters_of_each(PASSWORDS);
const OTHER_LETTERS: [u32; OTHERS.len()] = letters_of_each(OTHERS);
const SESSION_LETTERS: [u32; SESSIONS.len()] = letters_of_each(SESSIONS);

/// Words that end like a short name for a password.
const NO_PASS: &[&str] = &[
    "bypass",
    "compass",
    "encompass",
    "surpass",
    "trespass",
    "overpass",
    "underpass",
    "subpass",
    "renderpass",
    "multipass",
    "buypass",
    "onepass",
    "singlepass",
    "twopass",
];

/// What may follow the short name of a password: which one it is.
fn goes_with_pass(rest: &[u8]) -> bool {
    const MORE: &[&str] = &[
        "prod",
        "production",
        "staging",
        "stage",
        "dev",
        "test",
        "qa",
        "admin",
        "root",
        "user",
        "db",
        "new",
        "old",
        "env",
        "main",
        "live",
    ];
    let rest = std::str::from_utf8(rest).unwrap_or_default().trim_end_matches(|c: char| c.is_ascii_digit());
    rest.is_empty() || MORE.contains(&rest)
}

/// What kind of secret a name promises, if any.
pub(super) fn name_kind(name: &str) -> Option<Name> {
    let letters = Letters::new(name)?;
    let lower = letters.as_bytes();
    let long = letters.last_of(PASSWORDS, &PASSWORD_LETTERS);
    let short = || {
        let words = ["pass", "pwd", "psk", "pw", "pswd", "pword"].iter().filter_map(|word| letters.word(word));
        // A compiler's pass and what belongs to it are more common.
        let whole = words.filter(|end| goes_with_pass(&lower[*end..])).max();
        let tail = || {
            let known = ["pass", "pwd", "psk"].iter().any(|tail| lower.ends_with(tail.as_bytes()));
            (known && !NO_PASS.iter().any(|word| lower.ends_with(word.as_bytes()))).then_some(lower.len())
        };
        whole.filter(|_| !NO_PASS.iter().any(|word| lower.ends_with(word.as_bytes()))).or_else(tail)
    };
    let password = long.or_else(short);
    let other = letters.last_of(OTHERS, &OTHER_LETTERS).or_else(|| letters.word("cred"));
    let about = |end: usize| {
        let rest = &lower[end..];
        rest.starts_with(b"iz")
            || (!rest.is_empty()
                && ABOUT.iter().any(|word| rest.last() == word.as_bytes().last() && rest.ends_with(word.as_bytes())))
            || [
                "public",
                "publish",
                "page",
                "allow",
                "continuation",
                "idempoten",
                "starting",
                "clienttoken",
                "requesttoken",
                "changetoken",
            ]
            .iter()
            .any(|word| letters.find(word).is_some())
            || letters.find("next").is_some() && letters.find("nextauth").is_none()
    };
    if let Some(end) = password.max(other) {
        let kind = if password.is_some() { Name::Password } else { Name::Other };
        return (!about(end)).then_some(kind);
    }
    if let Some(end) = letters.last_of(SESSIONS, &SESSION_LETTERS).or_else(|| letters.word("sid")) {
        return (end == lower.len()).then_some(Name::Session);
    }
    if letters.find("mnemonic").is_some()
        || letters.find("seedphrase").is_some()
        || letters.find("recoveryphrase").is_some()
    {
        return Some(Name::Phrase);
    }
    if lower == b"auth" {
        return Some(Name::Login);
    }
    let ends_in_key = letters.word("key") == Some(lower.len());
    let known = [
        "public",
        "cache",
        "primary",
        "foreign",
        "sort",
        "partition",
        "hash",
        "row",
        "map",
        "index",
        "lookup",
        "dedup",
        "idempotency",
        "object",
        "group",
        "host",
        "websocket",
    ];
    (ends_in_key && lower.len() > 3 && !known.iter().any(|word| letters.find(word).is_some())).then_some(Name::Key)
}

/// Whether a value is called as its name is, as in `x.private_key_2 = private_key_2` and `private_key: ed25519.PrivateKey`.
pub(super) fn is_namesake(name: &str, value: &str) -> bool {
    let letters = |text: &str| -> String {
        let kept = text.bytes().filter(|b| b.is_ascii_alphanumeric());
        kept.map(|b| char::from(b.to_ascii_lowercase())).collect()
    };
    let name = letters(name.rsplit('.').next().unwrap_or(name));
    // `password` ends many a password.
    name.len() > "password".len() && letters(value).ends_with(&name)
}

/// Written as variables of the environment are.
pub(super) fn is_upper(name: &str) -> bool {
    name.len() >= 3
        && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
        && name.bytes().any(|b| b.is_ascii_uppercase())
}
