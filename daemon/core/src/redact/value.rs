//! Whether the value of a name like `password` is a secret.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};

use super::{MARK, name::Name};

/// How much a value's context proves: the more, the less the value itself must look like a secret.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Trust {
    /// Anywhere, mostly code.
    Code,
    /// `name: value` or `name = value` on a line of its own.
    Setting,
    /// `NAME=value`, as in the environment and in shells.
    Variable,
    /// The value of an option, an element or a cell with a secret's name.
    Option,
    /// Where a known program expects a secret and nothing else.
    Certain,
}

/// Whether the value of `name` is a secret.
pub(super) fn is_secret(name: Name, value: &str, quoted: bool, trust: Trust) -> bool {
    // A list of names and values is no value.
    let joints = value.trim_end_matches('=').bytes().filter(|b| matches!(b, b'=' | b':')).count();
    if value.len() < 4
        || joints > 4
        || value.contains(MARK)
        || !quoted && name != Name::Password && is_expression(value)
    {
        return false;
    }
    match name {
        Name::Login => return is_basic_credentials(value),
        Name::Phrase => return is_phrase(value) || is_secret_value(Name::Other, value, quoted),
        Name::Session => {
            let hex = value.bytes().all(|b| b.is_ascii_hexdigit());
            return value.len() >= 16
                && !hex
                && !is_uuid(value)
                && (quoted || !is_member_path(value))
                && is_secret_value(Name::Other, value, quoted);
        }
        Name::Key => {
            return value.len() >= 20
                && value.bytes().any(|b| b.is_ascii_digit())
                && !is_uuid(value)
                && is_secret_value(Name::Other, value, quoted)
                && wordiness(value) < if trust == Trust::Variable { 0.6 } else { 0.4 };
        }
        Name::Password | Name::Other => {}
    }
    if is_secret_value(name, value, quoted) {
        return true;
    }
    let shell = matches!(trust, Trust::Variable | Trust::Certain);
    if is_filled_in(value, shell)
        || is_reference(value) && wordiness(value) >= 0.4
        || is_placeholder(value)
        || is_stopword(value)
    {
        return false;
    }
    // The entropy of a short text is limited by its length.
    let mixed = entropy(value) >= (0.87 * (value.len() as f64).log2()).min(3.5) && wordiness(value) < 0.5;
    if value.contains(char::is_whitespace) || !value.is_ascii() || value.contains('\\') {
        // Words with a number between them: quoted prose has no such number, or is longer.
        let digit = value.bytes().any(|b| b.is_ascii_digit()) && value.bytes().any(|b| b.is_ascii_lowercase());
        let few = value.split(' ').count() <= 5 && !value.contains('\\');
        let given = matches!(trust, Trust::Option | Trust::Variable);
        return trust == Trust::Certain || quoted && digit && few && name == Name::Password && given;
    }
    let has = |test: fn(&u8) -> bool| value.bytes().filter(test).count();
    let (digits, lower, upper) = (has(u8::is_ascii_digit), has(u8::is_ascii_lowercase), has(u8::is_ascii_uppercase));
    let signs =
        value.len() - digits - lower - upper - value.bytes().filter(|b| matches!(b, b'_' | b'-' | b'.')).count();
    let password = name == Name::Password;
    // A word or an identifier, in any language.
    let identifier = signs == 0 && !value.contains('-') && !value.as_bytes()[0].is_ascii_digit();
    match trust {
        Trust::Certain => true,
        Trust::Code => false,
        _ if entropy(value) < 2.0 => false,
        Trust::Variable => {
            let all_upper = lower == 0 && digits == 0;
            let enough = if password { 6 } else { 10 };
            value.len() >= enough
                && !all_upper
                && !is_member_path(value)
                && !is_expression(value)
                && (password
                    || digits > 0 && wordiness(value) < 0.8
                    || mixed
                    || value.contains('-') && !looks_like_name(value))
                && (digits < value.len() || password)
        }
        Trust::Setting | Trust::Option => {
            let number = digits == value.len() && digits >= 6 && trust == Trust::Option;
            if is_expression(value)
                || lower + upper == 0 && !number && (signs < 3 || digits == 0)
                || is_version(value)
                || is_member_path(value)
            {
                return false;
            }
            if !password {
                return digits > 0 && value.len() >= 10 && mixed && !is_name(value)
                    || trust == Trust::Option
                        && digits > 0
                        && value.len() >= 8
                        && wordiness(value) < 0.8
                        && !is_name(value);
            }
            let mentions = ["password", "passwd", "secret", "token", "string", "credential"]
                .iter()
                .any(|word| contains_ignoring_case(value, word));
            let humps = value
                .as_bytes()
                .windows(2)
                .filter(|pair| pair[0].is_ascii_lowercase() && pair[1].is_ascii_uppercase())
                .count();
            if identifier {
                if value.contains(['_', '.']) {
                    return digits > 0
                        && signs == 0
                        && value.len() >= 8
                        && trust == Trust::Option
                        && !is_member_path(value);
                }
                return !mentions
                    && (digits > 0
                        && value.len() >= 6
                        && lower + upper > 0
                        && (!quoted || trust == Trust::Option || wordiness(value) < 0.9)
                        || digits == 0 && value.len() >= 12 && (upper == 0 || humps >= 2 && lower > 0));
            }
            let joints = value.matches(['-', '_', '.']).count();
            (signs > 0 && value.len() >= 6 && (digits > 0 || signs < value.len() / 2 && value.len() >= 8))
                || (joints >= 2 && value.len() >= 12 && !mentions && lower + upper > 0)
                || (digits > 0 && value.len() >= 8 && lower + upper > 0)
                || number
        }
    }
}

/// Whether people choose passwords like this: one or two words with a number, and perhaps another word or symbol. In
/// code, values with fewer digits are names.
pub(super) fn is_human(value: &str) -> bool {
    const TECHNICAL: &[&str] = &[
        "chacha",
        "curve",
        "prime",
        "secp",
        "argon",
        "bcrypt",
        "scrypt",
        "pbkdf",
        "passw",
        "secret",
        "token",
        "test",
        "example",
        "column",
        "version",
        "windows",
        "linux",
        "ubuntu",
        "debian",
        "ripemd",
        "camellia",
        "whirlpool",
        "keccak",
        "poly",
        "blake",
        "ed25",
        "latin",
        "color",
        "server",
        "client",
        "apikey",
        "access",
        "field",
        "input",
        "users",
        "encrypt",
        "sha256",
        "hmac",
        "base",
        "number",
        "value",
        "string",
        "uint",
        "float",
        "label",
        "param",
    ];
    let letters = value.bytes().take_while(u8::is_ascii_alphabetic).count();
    let rest = &value[letters..];
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let tail = &rest[digits..];
    let sign = tail.bytes().take_while(|b| b"!@#$%^&*?+~-".contains(b)).count();
    let plain = sign <= 1 && tail[sign..].bytes().all(|b| b.is_ascii_alphanumeric());
    letters >= 5
        && (2..=6).contains(&digits)
        && plain
        && value.len() <= 32
        && (value.len() >= 10 || sign > 0)
        && !is_placeholder(value)
        && !TECHNICAL.iter().any(|word| contains_ignoring_case(value, word))
}

/// Filled in by a shell, a template or a format string; a password may begin or end with such characters.
fn is_filled_in(value: &str, shell: bool) -> bool {
    let rest = value.get(1..).unwrap_or_default();
    let named = rest.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '{' | '(' | '_' | '*' | '@'));
    let variable = value.starts_with('$') && named
        || value.starts_with('%') && value.ends_with('%')
        || value.starts_with(['<', '[']) && value.ends_with(['>', ']'])
        || value.starts_with('@') && (!shell || rest.contains('/'))
        || value.starts_with(['=', '*', '&']);
    variable
        || value.bytes().any(|b| matches!(b, b'$' | b'%' | b'#' | b'{'))
            && ["${", "$(", "%(", "#{", "{{", "$1"].iter().any(|open| value.contains(open))
        || (value.starts_with('{') && value.ends_with('}'))
}

/// `tests/ui/some_file.rs`.
fn is_path(value: &str) -> bool {
    value.contains('/')
        && wordiness(value) > 0.5
        && value
            .split('/')
            .all(|part| part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.')))
}

/// `a.b`, `a.b_c.d`.
fn is_member_path(value: &str) -> bool {
    value.contains('.')
        && value.split('.').all(|part| {
            part.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
                && (part.len() <= 2 || wordiness(part) > 0.6)
        })
}

/// Code that computes something.
fn is_expression(value: &str) -> bool {
    let call = value.find(['(', '[']).is_some_and(|at| at > 0 && value.as_bytes()[at - 1].is_ascii_alphanumeric());
    call && value.ends_with([')', ']', '?', ';', '(', '['])
        || value.bytes().any(|b| matches!(b, b':' | b'>' | b'=' | b'&' | b'|' | b'(' | b'?'))
            && ["::", "->", "=>", "==", "&&", "||", "()", "&self", "?."]
                .iter()
                .any(|sign| value.trim_end_matches('=').contains(sign))
        || value.ends_with(['(', '{', '[', '<'])
        || value.starts_with(['(', '[', '{', '|', '&', '!', ')', ']', '}', '.', ':', '?'])
        || value.contains('<') && value.contains('>')
}

/// Words in lower case, like an identifier: `my-app-secret`.
fn looks_like_name(value: &str) -> bool {
    let parts: Vec<&str> = value.split(['-', '_']).collect();
    parts.len() < 4 && parts.iter().all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase()))
}

fn is_name(value: &str) -> bool {
    value.contains('_') && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && wordiness(value) > 0.5
}

fn is_version(value: &str) -> bool {
    let digits = value.trim_start_matches(['v', '^', '~', '=', '>', '<']);
    digits.split('.').count() >= 2
        && digits.split('.').take(2).all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
}

/// Twelve or more plain words, like the recovery phrase of a wallet.
fn is_phrase(value: &str) -> bool {
    let words = value.split_whitespace();
    words.clone().count() >= 12
        && words.clone().count() <= 25
        && words.clone().all(|word| (3..=8).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_lowercase()))
}

pub(super) fn is_uuid(value: &str) -> bool {
    let value = value.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    value.len() == 36
        && value
            .bytes()
            .enumerate()
            .all(|(i, b)| if matches!(i, 8 | 13 | 18 | 23) { b == b'-' } else { b.is_ascii_hexdigit() })
}

/// Placeholders: types, empty values, and what manuals write.
pub(super) fn is_stopword(value: &str) -> bool {
    const WORDS: &[&str] = &[
        "string",
        "str",
        "text",
        "bytes",
        "null",
        "none",
        "nil",
        "undefined",
        "true",
        "false",
        "required",
        "optional",
        "default",
        "prompt",
        "disabled",
        "enabled",
        "unset",
        "empty",
        "missing",
        "invalid",
        "unknown",
        "number",
        "integer",
        "boolean",
        "object",
        "hidden",
        "masked",
        "encrypted",
        "redacted",
        "sensitive",
        "secure",
        "stdin",
        "varchar",
        "the",
        "and",
        "for",
        "file",
        "from",
        "with",
        "this",
        "that",
        "value",
        "user",
        "username",
        "login",
        "secret",
        "token",
        "password",
        "passwd",
        "pass",
        "credentials",
        "credential",
        "apikey",
        "key",
        "auth",
        "authentication",
        "authorization",
        "unspecified",
        "deprecated",
        "interactive",
        "environment",
        "configuration",
        "notrequired",
        "optionalstring",
        "charsequence",
        "securestring",
        "secretstring",
        "base64",
        "sha256",
        "md5",
        "plaintext",
        "plain",
        "publickey",
        "keyboard-interactive",
        "inherit",
        "whatever",
        "something",
        "password1",
        "password2",
        "password123",
        "passw0rd",
        "secret1",
        "token1",
        "token2",
        "user:password",
        "user:pass",
        "utf-8",
        "utf8",
    ];
    let value = value.trim_matches(['.', ',', ';', ':', '(', ')', '?', '!', '*', '`']);
    value.is_empty() || WORDS.iter().any(|word| value.eq_ignore_ascii_case(word))
}

/// Whether a value is long and mixed enough to be worth checking its name.
pub(super) fn could_be_secret(value: &str, quoted: bool) -> bool {
    let digit = || value.bytes().any(|b| b.is_ascii_digit());
    let letters = || value.bytes().filter(u8::is_ascii_alphabetic).count();
    value.len() >= 8 && (quoted || digit()) && letters() >= 3 && !value.contains(char::is_whitespace)
}

/// Whether a value is a secret rather than a reference to one, a placeholder, a name or a piece of code,
/// whatever its context.
pub(super) fn is_secret_value(name: Name, value: &str, quoted: bool) -> bool {
    // The rest of a long value adds nothing.
    let value = value.get(..value.len().min(160)).unwrap_or(value);
    if !could_be_secret(value, quoted) {
        return false;
    }
    if value.contains(MARK) || is_interpolated(value) || is_reference(value) || is_placeholder(value) || is_path(value)
    {
        return false;
    }
    if !quoted && is_code(value) {
        return false;
    }
    // The entropy of sixteen hex digits has a limit: random ones are between 3.3 and 3.9.
    let is_hex = is_uuid(value) || value.len() >= 32 && value.bytes().all(|b| b.is_ascii_hexdigit());
    let entropy = entropy(value) + if is_hex { 0.5 } else { 0.0 };
    let digit = value.bytes().any(|b| b.is_ascii_digit());
    match name {
        Name::Password => (entropy >= 3.5 || (entropy >= 2.5 && digit)) && wordiness(value) < 0.8,
        _ => entropy >= 3.5 && wordiness(value) < 0.65,
    }
}

/// A number or a name of a programming language: `0xC000027A_u32`, `user_password2`, `CIPHER_CHACHA20_POLY1305`.
pub(super) fn is_code(value: &str) -> bool {
    let number = value.strip_prefix("0x").or_else(|| value.strip_prefix("0X")).unwrap_or_default();
    let is_number = value.len() <= 24 && number.bytes().take(4).filter(u8::is_ascii_hexdigit).count() == 4;
    let one_case = !value.bytes().any(|b| b.is_ascii_lowercase()) || !value.bytes().any(|b| b.is_ascii_uppercase());
    // Words, some of them with numbers.
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

/// Says where the secret is, or is a hash of something.
pub(super) fn is_reference(value: &str) -> bool {
    const STARTS: &[&str] = &[
        "./",
        "../",
        "~/",
        "arn:",
        "urn:",
        "env:",
        "env.",
        "file:",
        "data:",
        "dep:",
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
    value.starts_with('/') && (value.len() < 20 || wordiness(value) > 0.4)
        || value.contains("://")
        || STARTS.iter().any(|start| value.starts_with(start))
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
    let value = value.get(..value.len().min(160)).unwrap_or(value);
    WORDS.iter().any(|word| contains_ignoring_case(value, word))
}

pub(super) fn contains_ignoring_case(text: &str, word: &str) -> bool {
    text.as_bytes().windows(word.len()).any(|window| window.eq_ignore_ascii_case(word.as_bytes()))
}

/// What manuals write in place of a password.
pub(super) fn is_password_word(value: &str) -> bool {
    ["pass", "passwd", "password", "pw", "pwd", "secret", "token", "port"].iter().any(|w| value.eq_ignore_ascii_case(w))
}

pub(super) fn is_basic_credentials(value: &str) -> bool {
    let value = value.trim_end_matches('=');
    // Three quarters of a long header are enough; decoding must not allocate.
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

/// The share of letters and digits in runs that could be words: identifiers have high entropy too, but can
/// be pronounced.
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
