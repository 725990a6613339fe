//! Where secrets are: one pass finds the keywords of all rules, and tries at each keyword the rule it belongs to.

use std::{ops::Range, sync::OnceLock};

use regex::Regex;

use super::{
    assign::Named,
    call::CALLS,
    command,
    command::piped,
    listed, name,
    name::{Name, name_end, name_kind, name_start},
    pem::Keys,
    places,
    rules::{OTHERS, PARTS, PASSWORDS, SESSIONS, SPECS},
    services::{Body, TOKENS, Token},
    words::{Bytes, Entry, Words},
};

/// The range of a secret and the index of the rule that found it.
pub(super) type Found = (Range<usize>, usize);

/// Rules written as code; in an overlap, the lower number names the result.
pub(super) const PEM: usize = 0;
const FIRST_SPEC: usize = 1;
const FIRST_TOKEN: usize = FIRST_SPEC + SPECS.len();
const TOKEN: usize = FIRST_TOKEN + TOKENS.len();
const COOKIE: usize = TOKEN + 1;
pub(super) const KUBERNETES: usize = TOKEN + 2;
const PASSWORD_FILE: usize = TOKEN + 3;
const PARAMETER: usize = TOKEN + 4;
const URL: usize = TOKEN + 5;
const COMMAND: usize = TOKEN + 6;
pub(super) const NAMED: usize = TOKEN + 7;
/// The number of built-in rules.
pub(super) const BUILT_IN: usize = NAMED + 1;

pub(super) fn rule_name(index: usize) -> &'static str {
    match index {
        PEM => "pem",
        TOKEN => "token",
        COOKIE => "cookie",
        KUBERNETES => "kubernetes",
        PASSWORD_FILE => "pgpass",
        PARAMETER => "parameter",
        URL => "url",
        COMMAND => "command",
        NAMED => super::ASSIGNMENT,
        index if index < FIRST_TOKEN => SPECS[index - FIRST_SPEC].name,
        index => TOKENS[index - FIRST_TOKEN].service,
    }
}

/// The rule to try at a keyword.
#[derive(Clone, Copy)]
enum Rule {
    Spec(usize),
    Token(usize),
    Name,
    Program(&'static str),
    Odd(&'static str),
    Discord,
    PrivateKey,
    Putty,
    BareKey,
    Wrapped,
    Address,
    PasswordFile,
    Parameter(&'static str),
    Cookie,
    Kubernetes,
    Call(usize),
    HereString,
    Logins,
    Literals,
    Sent,
    CookieJar,
    StaticKey,
    DataSource,
    Columns,
    ShortOption,
}

#[derive(Clone, Copy)]
struct Keyword {
    rule: Rule,
    /// Must not continue a word.
    starts_word: bool,
}

/// The built-in rules, compiled.
pub(super) struct Finder {
    words: Words<Keyword>,
    /// By index of `SPECS`; compiled when its keyword is first found. All of them together take 20 ms.
    patterns: [OnceLock<Regex>; SPECS.len()],
}

/// `password`, `PRIVATE KEY` and `private_key` in base64, at each of the three alignments.
const ENCODED: &[&str] = &[
    "UFJJVkFURSBLRV",
    "BSSVZBVEUgS0VZ",
    "QUklWQVRFIEtFW",
    "cHJpdmF0ZV9rZX",
    "ByaXZhdGVfa2V5",
    "wcml2YXRlX2tle",
    "cGFzc3dvcm",
    "Bhc3N3b3Jk",
    "wYXNzd29yZ",
    "UEFTU1dPUk",
    "BBU1NXT1JE",
    "QQVNTV09SR",
    "U0VDUkVU",
    "NFQ1JFV",
    "TRUNSRV",
    "LWtleS1kYXRh",
    "a2V5LWRhdG",
    "1rZXktZGF0Y",
    "X0tFWT",
    "9LRVk9",
    "fS0VZP",
    "VE9LRU49",
    "RPS0VOP",
    "UT0tFTj",
    "c2VjcmV0",
    "NlY3JldD",
    "zZWNyZXQ6",
];

/// The ways to write a name of several words.
pub(super) fn spellings(words: &[&str]) -> Vec<String> {
    let capital = |word: &str| word[..1].to_uppercase() + &word[1..];
    let capitals: Vec<String> = words.iter().map(|word| capital(word)).collect();
    let mut all = Vec::new();
    for separator in ["", "_", "-", " "] {
        let lower = words.join(separator);
        all.extend([capital(&lower), lower.to_uppercase(), lower, capitals.join(separator)]);
    }
    all.push(words[0].to_owned() + &capitals[1..].concat());
    all.sort();
    all.dedup();
    all
}

/// What must follow a keyword for its rule to find anything.
fn follows(word: &str, rule: Rule) -> Vec<Bytes> {
    match rule {
        Rule::Token(index) => {
            let Token { prefixes, body, .. } = &TOKENS[index];
            let place = |at: usize| {
                let prefixes = prefixes.iter().filter(|prefix| prefix.starts_with(word));
                let sets = prefixes.map(|prefix| match prefix.as_bytes().get(at) {
                    Some(b) => Bytes::from(*b),
                    None => Bytes::of(|b| body.has(b)),
                });
                sets.reduce(Bytes::or)
            };
            (word.len()..8).filter_map(place).collect()
        }
        Rule::Program(name) if word == name => vec![Bytes::of(ends_program)],
        Rule::Discord => vec![Bytes::of(|b| Body::Slug.has(b)); 5],
        _ => Vec::new(),
    }
}

/// What follows the name of a program when it is called.
fn ends_program(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'"' | b'\'' | b'\\')
}

/// Every keyword and its rule.
fn keywords() -> Vec<Entry<Keyword>> {
    let mut words = Vec::new();
    let mut add = |word: &str, rule: Rule, starts_word: bool| {
        let follows = follows(word, rule);
        words.push(Entry {
            word: word.to_owned(),
            starts: starts_word,
            follows,
            meaning: Keyword { rule, starts_word },
        })
    };
    let starts = |word: &str| word.as_bytes()[0].is_ascii_alphanumeric();
    for (index, spec) in SPECS.iter().enumerate() {
        spec.keywords.iter().for_each(|word| add(word, Rule::Spec(index), starts(word)));
    }
    for (index, token) in TOKENS.iter().enumerate() {
        // Only the first bytes serve as the keyword; the rest is compared afterwards.
        let mut heads: Vec<&str> = token.prefixes.iter().map(|prefix| &prefix[..prefix.len().min(6)]).collect();
        heads.dedup();
        heads.into_iter().for_each(|head| add(head, Rule::Token(index), true));
    }
    // A name of two words is found by its second word and the joint before it.
    let single = PASSWORDS.iter().chain(OTHERS).chain(SESSIONS).filter(|words| words.len() == 1);
    let mut names: Vec<String> = single.flat_map(|name| spellings(name)).collect();
    let capital = |word: &str| {
        let at = word.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(0);
        word[..at].to_owned() + &word[at..=at].to_uppercase() + &word[at + 1..]
    };
    names.extend(PARTS.iter().flat_map(|part| [(*part).to_owned(), part.to_uppercase(), capital(part)]));
    names.sort();
    names.dedup();
    names.sort_by_key(String::len);
    // A name that contains another is found by the shorter one.
    let mut kept: Vec<String> = Vec::new();
    for name in names {
        if !kept.iter().any(|short| name.contains(short.as_str())) {
            add(&name, Rule::Name, false);
            kept.push(name);
        }
    }
    for (program, second) in command::programs() {
        let word = match second {
            Some(second) => format!("{program} {second}"),
            // Short names occur inside too many words.
            None if program.len() < 4 => format!("{program} "),
            None => program.to_owned(),
        };
        add(&word, Rule::Program(program), true);
    }
    places::ODD_SIGNS.iter().for_each(|sign| add(sign, Rule::Odd(sign), false));
    for first in ["MD", "MT", "Mj", "Mz", "ND", "NT", "Nj", "Nz", "OD", "OT"] {
        for low in ["A", "E", "I", "M", "Q", "U", "Y", "c", "g", "k"] {
            add(&format!("{first}{low}"), Rule::Discord, true);
        }
    }
    add("PRIVATE KEY", Rule::PrivateKey, false);
    add("Private-Lines:", Rule::Putty, true);
    for head in ["MII", "MIG", "MIH", "MHc", "MHQ", "MC4", "MFE", "b3BlbnNzaC1rZXkt"] {
        add(head, Rule::BareKey, false);
    }
    ENCODED.iter().for_each(|word| add(word, Rule::Wrapped, false));
    add("://", Rule::Address, false);
    for port in [":5432:", ":*:", ":5433:", ":6432:", ":5434:", ":5439:", ":26257:", ":15432:"] {
        add(port, Rule::PasswordFile, false);
    }
    for name in ["key", "sig", "code", "signature", "X-Amz-Signature", "X-Goog-Signature", "Signature", "hmac", "sas"] {
        add(&format!("{name}="), Rule::Parameter(name), true);
        add(&format!("{name}%3D"), Rule::Parameter(name), false);
    }
    for word in ["ookie", "OOKIE"] {
        add(word, Rule::Cookie, false);
    }
    for (index, call) in CALLS.iter().enumerate() {
        call.names.iter().for_each(|name| add(name, Rule::Call(index), false));
    }
    add("<<<", Rule::HereString, false);
    add("chpasswd", Rule::Logins, true);
    add("literals:\n", Rule::Literals, true);
    for word in ["send \"", "send -- \"", "New value: ", "sendline('", "sendline(\""] {
        add(word, Rule::Sent, true);
    }
    for word in ["\tTRUE\t", "\tFALSE\t"] {
        add(word, Rule::CookieJar, false);
    }
    add("OpenVPN Static key V1", Rule::StaticKey, true);
    for word in ["@tcp(", "@unix(", "@udp("] {
        add(word, Rule::DataSource, false);
    }
    for word in [") VALUES", ") values"] {
        add(word, Rule::Columns, false);
    }
    for word in ["\"-p\", \"", "'-p', '", "\"-p\",\"", "'-p','"] {
        add(word, Rule::ShortOption, false);
    }
    for kind in ["kind: Secret\n", "kind: Secret\r\n", "kind: Secret$\n", "\"kind\": \"Secret\"", "kind: Secret\\n"] {
        add(kind, Rule::Kubernetes, true);
    }
    words
}

/// Whether the character before `at` belongs to the same word: not if it ends an escape (`\n`, `%3D`) in quoted text.
pub(super) fn continues_word(text: &[u8], at: usize) -> bool {
    let before = &text[..at];
    match before {
        [.., b'\\', b'n' | b'r' | b't'] => false,
        [.., b'%', a, b] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => false,
        [.., last] => last.is_ascii_alphanumeric() || *last == b'_',
        [] => false,
    }
}

/// A cache of what the latest names suggest: the same names come again and again.
#[derive(Default)]
struct Names<'t>([(&'t str, Option<Name>); 32]);

impl<'t> Names<'t> {
    fn kind(&mut self, name: &'t str) -> Option<Name> {
        let (first, last) = (name.as_bytes()[0], name.as_bytes()[name.len() - 1]);
        let place = (name.len() * 7 + usize::from(first) + usize::from(last) * 3) % self.0.len();
        let known = &mut self.0[place];
        if known.0 != name {
            *known = (name, name_kind(name));
        }
        known.1
    }
}

/// What the rules have learnt about the text so far.
struct State<'t> {
    /// By rule, the position from which it is tried again: without this, `sk-ant-sk-ant-…` would take quadratic time.
    until: [usize; BUILT_IN],
    program_until: usize,
    programs_inside: usize,
    listed_until: usize,
    keys: Keys,
    names: Names<'t>,
}

impl Default for State<'_> {
    fn default() -> Self {
        Self {
            until: [0; BUILT_IN],
            program_until: 0,
            programs_inside: 0,
            listed_until: 0,
            keys: Keys::default(),
            names: Names::default(),
        }
    }
}

impl Finder {
    pub(super) fn new() -> Self {
        Self { words: Words::new(keywords()), patterns: [const { OnceLock::new() }; SPECS.len()] }
    }

    /// By index of `SPECS`.
    pub(super) fn pattern(&self, index: usize) -> &Regex {
        self.patterns[index]
            .get_or_init(|| Regex::new(&format!(r"\A(?:{})", SPECS[index].pattern)).expect("built-in rule"))
    }

    pub(super) fn find(&self, text: &str) -> Vec<Found> {
        self.find_in(text, 0)
    }

    /// `depth` is how many levels of encoding the text was wrapped in.
    fn find_in(&self, text: &str, depth: usize) -> Vec<Found> {
        let mut found = Vec::new();
        let mut some: Vec<Range<usize>> = Vec::new();
        // Most texts are short and hold no keyword.
        let mut state: Option<State<'_>> = None;
        let bytes = text.as_bytes();
        self.words.each(bytes, |start, len, keyword| {
            let end = start + len;
            if keyword.starts_word && continues_word(bytes, start) {
                return;
            }
            let state = state.get_or_insert_with(State::default);
            match keyword.rule {
                Rule::Name => {
                    if start < state.until[NAMED] {
                        return;
                    }
                    let done = self.named(text, start, end, &mut state.names, &mut some);
                    state.until[NAMED] = done.max(some.last().map_or(0, |range| range.end));
                    found.extend(some.drain(..).map(|range| (range, NAMED)));
                }
                Rule::Spec(index) => {
                    let rule = FIRST_SPEC + index;
                    if start < state.until[rule] {
                        return;
                    }
                    if let Some(range) = self.spec(index, text, start) {
                        state.until[rule] = range.end;
                        found.push((range, rule));
                    }
                }
                Rule::Token(index) => {
                    let rule = FIRST_TOKEN + index;
                    if start < state.until[rule] {
                        return;
                    }
                    if let Some(end) = TOKENS[index].end(bytes, start) {
                        state.until[rule] = end;
                        found.push((start..end, rule));
                    }
                }
                Rule::Program(name) => {
                    let end = start + name.len();
                    let ends_word = bytes.get(end).is_some_and(|b| ends_program(*b));
                    // Few commands contain further commands.
                    state.programs_inside = if start < state.program_until { state.programs_inside + 1 } else { 0 };
                    let mark = matches!(bytes[..start], [b'-'] | [.., b'\n', b'-']);
                    if !ends_word
                        || state.programs_inside > 4
                        || !mark && start > 0 && matches!(bytes[start - 1], b'-' | b'.' | b'=')
                    {
                        return;
                    }
                    state.program_until = state.program_until.max(command::arguments(text, name, end, &mut some));
                    found.extend(some.drain(..).map(|range| (range, COMMAND)));
                }
                Rule::Odd(sign) => {
                    if start >= state.until[TOKEN] {
                        let range = places::odd_token(text, start, sign);
                        state.until[TOKEN] = range.as_ref().map_or(state.until[TOKEN], |range| range.end);
                        found.extend(range.map(|range| (range, TOKEN)));
                    }
                }
                Rule::Discord => found.extend(places::discord(text, start).map(|range| (range, TOKEN))),
                Rule::PrivateKey => found.extend(state.keys.around(text, start).map(|range| (range, PEM))),
                Rule::Putty => found.extend(state.keys.putty(text, end).map(|range| (range, PEM))),
                Rule::BareKey => found.extend(state.keys.bare(text, start).map(|range| (range, PEM))),
                Rule::Wrapped if depth == 0 => {
                    let secret = |inner: &str| !self.find_in(inner, 1).is_empty();
                    found.extend(state.keys.wrapped(text, start, &secret).map(|range| (range, PEM)));
                }
                Rule::Wrapped => {}
                Rule::Address => {
                    if start >= state.until[URL] {
                        let range = places::address(text, start);
                        state.until[URL] = range.as_ref().map_or(0, |range| range.end);
                        found.extend(range.map(|range| (range, URL)));
                    }
                }
                Rule::PasswordFile => {
                    found.extend(places::password_file(text, start).map(|range| (range, PASSWORD_FILE)))
                }
                Rule::Parameter(name) => {
                    found.extend(places::parameter(text, start, name).map(|range| (range, PARAMETER)))
                }
                Rule::Cookie => {
                    if start >= state.until[COOKIE] {
                        state.until[COOKIE] = places::cookie_header(text, end, &mut some);
                        found.extend(some.drain(..).map(|range| (range, COOKIE)));
                    }
                }
                Rule::Call(index) => found.extend(CALLS[index].secret(text, end).map(|range| (range, NAMED))),
                Rule::HereString => {
                    piped::here(text, end, &mut some);
                    found.extend(some.drain(..).map(|range| (range, COMMAND)));
                }
                Rule::Logins | Rule::Literals => {
                    if start >= state.listed_until {
                        let sign = if matches!(keyword.rule, Rule::Logins) { b':' } else { b'=' };
                        state.listed_until = listed::lines(text, end, sign, &mut some);
                        found.extend(some.drain(..).map(|range| (range, NAMED)));
                    }
                }
                Rule::Sent => found.extend(listed::sent(text, start, end).map(|range| (range, NAMED))),
                Rule::CookieJar => found.extend(listed::cookie_line(text, end).map(|range| (range, COOKIE))),
                Rule::StaticKey => found.extend(listed::hex_lines(text, end).map(|range| (range, PEM))),
                Rule::DataSource => found.extend(listed::data_source(text, start).map(|range| (range, URL))),
                Rule::Columns => found.extend(listed::columns(text, start, end).map(|range| (range, NAMED))),
                Rule::ShortOption => found.extend(listed::short_option(text, end).map(|range| (range, NAMED))),
                Rule::Kubernetes => {
                    state.until[KUBERNETES] = places::kubernetes(text, end, state.until[KUBERNETES], &mut some);
                    found.extend(some.drain(..).map(|range| (range, KUBERNETES)));
                }
            }
        });
        found.retain(|(range, _)| !range.is_empty());
        found
    }

    /// The values of the name around a keyword, and how far the text was read.
    fn named<'t>(
        &self,
        text: &'t str,
        at: usize,
        end: usize,
        names: &mut Names<'t>,
        found: &mut Vec<Range<usize>>,
    ) -> usize {
        let bytes = text.as_bytes();
        // A keyword may end in a byte that is no part of the name.
        let end = end - bytes[at..end].iter().rev().take_while(|b| !name::is_name_byte(**b)).count();
        let at =
            at + bytes[at..end].iter().take_while(|b| !name::is_name_byte(**b) || matches!(b, b'-' | b'.')).count();
        if at >= end {
            return at;
        }
        let end = name_end(bytes, end);
        if !Named::may_follow(bytes, end) {
            return end;
        }
        let start = name_start(bytes, at);
        let mut named = Named { text, start, end, kind: Name::Other };
        let column = named.heads_column();
        let wide = !column && named.heads_wide_column();
        let link = named.link();
        if link.is_none() && !column && !wide {
            return end;
        }
        let Some(name) = text.get(start..end) else { return end };
        let kind = match names.kind(name) {
            None if name.eq_ignore_ascii_case("key") && named.is_in_secret() => Some(Name::Key),
            kind => kind,
        };
        let Some(kind) = kind else { return end };
        named.kind = kind;
        named.values(link, found);
        if found.is_empty() && column && matches!(kind, Name::Password | Name::Other) {
            return places::column(text, start..end, kind, found);
        }
        if found.is_empty() && wide && matches!(kind, Name::Password | Name::Other) {
            return places::wide_column(text, start..end, kind, found);
        }
        end
    }

    fn spec(&self, index: usize, text: &str, at: usize) -> Option<Range<usize>> {
        let (regex, text_at) = (self.pattern(index), &text[at..]);
        let whole = regex.find(text_at)?.range();
        let range = if regex.captures_len() == 1 { whole } else { regex.captures(text_at)?.get(1)?.range() };
        (SPECS[index].check)(&text_at[range.clone()]).then(|| at + range.start..at + range.end)
    }
}
