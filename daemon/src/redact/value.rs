//! Whether the value of something that is called a secret is one.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};

use super::{MARK, Name};

/// Whether a value is long and mixed enough to be worth a look at its name.
pub(super) fn could_be_secret(value: &str, quoted: bool) -> bool {
    let digit = || value.bytes().any(|b| b.is_ascii_digit());
    let letters = || value.bytes().filter(u8::is_ascii_alphabetic).count();
    value.len() >= 8 && (quoted || digit()) && letters() >= 3 && !value.contains(char::is_whitespace)
}

/// Whether a value is a secret rather than a reference to one, a placeholder, a name or a piece of code.
pub(super) fn is_secret_value(name: Name, value: &str, quoted: bool) -> bool {
    if !could_be_secret(value, quoted) {
        return false;
    }
    if value.contains(MARK) || is_interpolated(value) || is_reference(value) || is_placeholder(value) {
        return false;
    }
    if !quoted && is_code(value) {
        return false;
    }
    // Sixteen digits cannot be more mixed than this: random ones lie between 3.3 and 3.9.
    let is_hex = value.len() >= 32 && value.bytes().all(|b| b.is_ascii_hexdigit());
    let entropy = entropy(value) + if is_hex { 0.5 } else { 0.0 };
    let digit = value.bytes().any(|b| b.is_ascii_digit());
    match name {
        Name::Password => (entropy >= 3.5 || (entropy >= 2.75 && digit)) && wordiness(value) < 0.8,
        Name::Other => entropy >= 3.5 && wordiness(value) < 0.65,
    }
}

/// A number or a name of a programming language: `0xC000027A_u32`, `user_password2`, `CIPHER_CHACHA20_POLY1305`.
fn is_code(value: &str) -> bool {
    let is_number = value.len() <= 24 && (value.starts_with("0x") || value.starts_with("0X"));
    let one_case = !value.bytes().any(|b| b.is_ascii_lowercase()) || !value.bytes().any(|b| b.is_ascii_uppercase());
    // Words, some of them numbered.
    let is_part = |part: &str| {
        let letters = part.trim_end_matches(|c: char| c.is_ascii_digit());
        !letters.is_empty() && part.len() <= letters.len() + 4 && letters.bytes().all(|b| b.is_ascii_alphabetic())
    };
    let mut parts = value.trim_start_matches('_').split('_');
    let is_name = one_case
        && value.contains('_')
        && parts.clone().all(is_part)
        && parts.any(|part| is_wordlike(part.trim_end_matches(|c: char| c.is_ascii_digit()).as_bytes()));
    is_number || is_name
}

/// Filled in by a shell, a template or a format string.
pub(super) fn is_interpolated(value: &str) -> bool {
    value.starts_with(['$', '%', '<', '=', '@'])
        || ["${", "$(", "%(", "#{", "%s"].iter().any(|open| value.contains(open))
        || (value.contains('{') && value.contains('}'))
        || (value.contains('<') && value.contains('>'))
}

/// Says where the secret is, or is the hash of something.
pub(super) fn is_reference(value: &str) -> bool {
    const STARTS: &[&str] = &[
        "/",
        "./",
        "../",
        "~/",
        "arn:",
        "urn:",
        "env:",
        "env.",
        "file:",
        "data:",
        "vault:",
        "projects/",
        "secrets.",
        "process.",
        "import.",
        "os.",
        "self.",
        "props.",
        "params.",
        "state.",
        "this.",
        "req.",
        "request.",
        "config.",
        "cfg.",
        "ctx.",
        "args.",
        "opts.",
        "options.",
        "settings.",
        "vars.",
        "var.",
        "std::",
        "crate::",
        "sha1-",
        "sha1:",
        "sha256-",
        "sha256:",
        "sha384-",
        "sha512-",
        "sha512:",
        "md5:",
        "h1:",
        "AWS4-HMAC-",
    ];
    value.contains("://") || STARTS.iter().any(|start| value.starts_with(start))
}

pub(super) fn is_placeholder(value: &str) -> bool {
    const WORDS: &[&str] = &[
        "your",
        "example",
        "placeholder",
        "changeme",
        "change_me",
        "change-me",
        "dummy",
        "redacted",
        "-here",
        "_here",
        "replace",
        "insert",
        "xxxx",
        "****",
        "...",
        "…",
        "••",
    ];
    WORDS.iter().any(|word| contains_ignoring_case(value, word))
}

pub(super) fn contains_ignoring_case(text: &str, word: &str) -> bool {
    text.as_bytes().windows(word.len()).any(|window| window.eq_ignore_ascii_case(word.as_bytes()))
}

/// What manuals write where a password goes.
pub(super) fn is_password_word(value: &str) -> bool {
    ["pass", "passwd", "password", "pw", "pwd", "secret", "token", "port"].iter().any(|w| value.eq_ignore_ascii_case(w))
}

pub(super) fn is_basic_credentials(value: &str) -> bool {
    let value = value.trim_end_matches('=');
    // Three quarters of a long header say as much as all of it; decoding must not allocate.
    let value = value.get(..value.len().min(256)).unwrap_or(value);
    let mut decoded = [0; 192];
    let len = STANDARD_NO_PAD
        .decode_slice(value, &mut decoded)
        .or_else(|_| URL_SAFE_NO_PAD.decode_slice(value, &mut decoded));
    len.is_ok_and(|len| decoded[..len].contains(&b':') && decoded[..len].iter().all(|b| *b >= b' '))
}

/// Bits per byte.
pub(super) fn entropy(value: &str) -> f64 {
    let mut counts = [0u32; 256];
    for b in value.bytes() {
        counts[usize::from(b)] += 1;
    }
    let len = value.len() as f64;
    let share = |count: &u32| f64::from(*count) / len;
    counts.iter().filter(|count| **count > 0).map(|count| -share(count) * share(count).log2()).sum()
}

/// The share of letters and digits that are in runs which could be words: identifiers have high entropy too, but are
/// pronounceable.
pub(super) fn wordiness(value: &str) -> f64 {
    let bytes = value.as_bytes();
    let (mut word, mut all, mut at) = (0, 0, 0);
    while at < bytes.len() {
        let start = at;
        at += 1;
        if !bytes[start].is_ascii_alphanumeric() {
            continue;
        }
        // Foo, foo or FOO.
        while at < bytes.len()
            && (bytes[at].is_ascii_lowercase() && (at - start == 1 || bytes[at - 1].is_ascii_lowercase())
                || bytes[at].is_ascii_uppercase() && bytes[at - 1].is_ascii_uppercase())
            && bytes[start].is_ascii_alphabetic()
        {
            at += 1;
        }
        all += at - start;
        if is_wordlike(&bytes[start..at]) {
            word += at - start;
        }
    }
    if all == 0 { 0.0 } else { word as f64 / all as f64 }
}

pub(super) fn is_wordlike(run: &[u8]) -> bool {
    let vowel = |b: &u8| b"aeiouyAEIOUY".contains(b);
    let vowels = run.iter().filter(|b| vowel(b)).count();
    run.len() >= 3 && vowels * 6 >= run.len() && run.split(vowel).all(|consonants| consonants.len() <= 3)
}
