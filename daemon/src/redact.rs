//! Masks secrets in text before it is stored or sent.
//!
//! One pass of an Aho-Corasick automaton over the keywords of all rules decides where a rule is tried at all; a rule is
//! then matched only at that place, never searched for. Text without keywords costs one table look-up per byte.
//!
//! Rules know a secret either by its own shape (`ghp_…`), which needs no further proof, or by its surroundings
//! (`password = …`, `Bearer …`), where the value must also look random: ordinary code is full of such surroundings.
//!
//! Masking is best effort. What has neither a shape nor a telling name is not found.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::{Deref, Range};
use std::sync::{Arc, LazyLock};

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind, StartKind};
use regex::Regex;
use serde::de::IgnoredAny;

use self::{
    rules::{ABOUT, OTHERS, PASSWORDS, SPECS},
    value::{could_be_secret, is_secret_value},
};

#[cfg(test)]
mod ordinary;
mod rules;
#[cfg(test)]
mod tests;
mod value;

/// How often each rule has masked something.
pub type Counts = BTreeMap<String, u64>;

/// An extra rule that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("redaction rule {name:?}: {reason}")]
pub struct BadRule {
    /// The rule's name as configured.
    pub name: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Opens every replacement; text that holds it is masked already.
const MARK: &str = "[REDACTED:";

/// Each round shortens what is not masked, so this is reached by no text but one made for it.
const MAX_ROUNDS: usize = 64;

/// How much of a value is looked at to decide whether it is one; keeps `token=token=token=…` linear.
const VALUE_WINDOW: usize = 256;

/// Longer names are not names.
const NAME_MAX: usize = 64;

const ASSIGNMENT: &str = "assignment";
const AUTHORIZATION: &str = "authorization";

#[derive(Clone, Copy, PartialEq)]
enum Name {
    /// Chosen by people: shorter and more like words.
    Password,
    Other,
}

struct Rule {
    name: String,
    regex: Regex,
    check: fn(&str) -> bool,
}

#[derive(Clone, Copy)]
struct Keyword {
    /// Index into the rules; `None` is the assignment rule.
    rule: Option<usize>,
    /// Must not continue a word.
    starts_word: bool,
}

/// The place of a secret and the index of the rule that found it.
type Found = (Range<usize>, usize);

/// The rules, compiled once. Cheap to share.
pub struct Redactor {
    /// Built-in rules, the assignment rule (of which only the name is used), extra rules.
    rules: Vec<Rule>,
    /// By pattern index of `automaton`.
    keywords: Vec<Keyword>,
    automaton: AhoCorasick,
    /// From the end of a name to the end of its value.
    assignment: Regex,
    marks: Regex,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.rules.iter().map(|rule| &rule.name)).finish()
    }
}

/// The rules in force: the built-in ones, compiled when first used, or a set of one's own. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Rules(Option<Arc<Redactor>>);

impl From<Redactor> for Rules {
    fn from(own: Redactor) -> Self {
        Self(Some(Arc::new(own)))
    }
}

impl Deref for Rules {
    type Target = Redactor;

    fn deref(&self) -> &Redactor {
        match &self.0 {
            Some(own) => own,
            None => Redactor::built_in(),
        }
    }
}

impl Default for Redactor {
    fn default() -> Self {
        Self::new()
    }
}

impl Redactor {
    /// The built-in rules, compiled at the first call.
    pub fn built_in() -> &'static Self {
        static RULES: LazyLock<Redactor> = LazyLock::new(Redactor::new);
        &RULES
    }

    /// The built-in rules.
    pub fn new() -> Self {
        let mut rules = Vec::new();
        let mut words = Vec::new();
        let mut keywords = Vec::new();
        for (index, spec) in SPECS.iter().enumerate() {
            let regex = Regex::new(&format!(r"\A(?:{})", spec.pattern)).expect("built-in rule");
            rules.push(Rule { name: spec.name.into(), regex, check: spec.check });
            for keyword in spec.keywords {
                words.push((*keyword).to_owned());
                let starts_word = keyword.as_bytes()[0].is_ascii_alphanumeric();
                keywords.push(Keyword { rule: Some(index), starts_word });
            }
        }
        for name in PASSWORDS.iter().chain(OTHERS) {
            for spelling in spellings(name) {
                words.push(spelling);
                keywords.push(Keyword { rule: None, starts_word: false });
            }
        }
        // Quotes may be escaped: source code and JSON quoted in text are common.
        let assignment = Regex::new(
            r#"(?x) \A \\{0,3}["'`]? [\x20\t]*
            (?: : [\x20\t]* &? (?:'static\x20)? (?: [A-Za-z]{1,16} [\x20\t]* | [A-Za-z_][A-Za-z0-9_]{0,63} [\x20\t]+ ) = | := | => | = | : )
            [\x20\t]*
            (?: [rbfuRBFU@]{0,2} (?: "(?<double>(?:[^"\\\r\n]|\\[^\r\n])*) | '(?<single>(?:[^'\\\r\n]|\\[^\r\n])*) | `(?<back>[^`\\\r\n]*) )
              | \\{1,3}["'] (?<escaped>[^"'\\\s]*)
              | (?<bare>[^\s"'`,;&|<>(){}\[\]\\]+) )"#,
        )
        .expect("built-in rule");
        rules.push(Rule { name: ASSIGNMENT.into(), regex: assignment.clone(), check: |_| true });
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::Standard)
            .start_kind(StartKind::Unanchored)
            .kind(Some(AhoCorasickKind::DFA))
            .build(words)
            .expect("built-in keywords");
        let marks = Regex::new(r"\[REDACTED:[A-Za-z0-9_.-]{1,64}\]").expect("built-in rule");
        Self { rules, keywords, automaton, assignment, marks }
    }

    /// The built-in rules and more: name and regular expression. If it has a group, only the first group is masked.
    /// Unlike the built-in ones these are searched for in all text.
    pub fn with_extra(extra: &[(String, String)]) -> Result<Self, BadRule> {
        let mut redactor = Self::new();
        for (name, pattern) in extra {
            let bad = |reason: &str| BadRule { name: name.clone(), reason: reason.into() };
            if name.is_empty() || name.len() > 64 || !name.bytes().all(is_name_byte) {
                return Err(bad("a name is 1 to 64 of A-Z a-z 0-9 _ . -"));
            }
            // Of several lines, the last says why.
            let why = |error: regex::Error| bad(error.to_string().lines().last().unwrap_or_default());
            let regex = Regex::new(pattern).map_err(why)?;
            if regex.is_match("") {
                return Err(bad("matches empty text"));
            }
            redactor.rules.push(Rule { name: name.clone(), regex, check: |_| true });
        }
        Ok(redactor)
    }

    /// The text with `[REDACTED:<rule>]` in place of each secret; `None` if there is none. Masking the result again finds
    /// nothing.
    pub fn scrub(&self, text: &str, counts: &mut Counts) -> Option<String> {
        let mut masked = self.scrub_once(text, counts)?;
        // A replacement can uncover a secret that had no word boundary before.
        for _ in 0..MAX_ROUNDS {
            match self.scrub_once(&masked, counts) {
                Some(again) => masked = again,
                None => break,
            }
        }
        Some(masked)
    }

    /// As [`scrub`](Self::scrub) for JSON: looks into decoded strings, takes the key of a member as the name of its value,
    /// and leaves every other byte as it is. What is not JSON is taken as text.
    pub fn scrub_json(&self, json: &str, counts: &mut Counts) -> Option<String> {
        if serde_json::from_str::<IgnoredAny>(json).is_err() {
            return self.scrub(json, counts);
        }
        let mut out = String::new();
        let mut copied = 0;
        let mut at = 0;
        let mut scratch = String::new();
        let mut key: Option<Cow<'_, str>> = None;
        while let Some(open) = memchr::memchr(b'"', &json.as_bytes()[at..]).map(|i| at + i) {
            // A member's value follows its colon at once; any other token in between makes the key meaningless.
            let named = key.take().filter(|_| json[at..open].trim_matches([' ', '\t', '\r', '\n', ':']).is_empty());
            let close = string_end(json.as_bytes(), open + 1);
            let raw = &json[open + 1..close];
            let text = if raw.contains('\\') {
                decode(raw, &mut scratch);
                scratch.as_str()
            } else {
                raw
            };
            let masked = self.scrub(text, counts);
            let member =
                named.as_deref().and_then(|key| self.scrub_member(key, masked.as_deref().unwrap_or(text), counts));
            let masked = member.or(masked);
            let is_key = json[close + 1..].trim_start().starts_with(':');
            if is_key {
                // The masked key, so that a second run sees the same name.
                key = Some(match &masked {
                    Some(masked) => masked.clone().into(),
                    None if raw.contains('\\') => text.to_owned().into(),
                    None => raw.into(),
                });
            }
            if let Some(masked) = masked {
                out.push_str(&json[copied..open]);
                out.push_str(&serde_json::to_string(&masked).expect("a string is JSON"));
                copied = close + 1;
            }
            at = close + 1;
        }
        (copied > 0).then(|| out + &json[copied..])
    }

    /// The value of a member, as far as no rule found anything in it by itself.
    fn scrub_member(&self, key: &str, value: &str, counts: &mut Counts) -> Option<String> {
        let (rule, secret) = if is_authorization(key) {
            let start = value.find(' ').map_or(0, |i| i + 1);
            (AUTHORIZATION, is_secret_value(Name::Password, &value[start..], true).then_some(start)?)
        } else {
            if !could_be_secret(value, true) {
                return None;
            }
            (ASSIGNMENT, is_secret_value(name_kind(key)?, value, true).then_some(0)?)
        };
        *counts.entry(rule.into()).or_default() += 1;
        Some(format!("{}{MARK}{rule}]", &value[..secret]))
    }

    fn scrub_once(&self, text: &str, counts: &mut Counts) -> Option<String> {
        let mut found = self.find(text);
        if found.is_empty() {
            return None;
        }
        found.sort_unstable_by_key(|(range, rule)| (range.start, *rule));
        let mut merged: Vec<Found> = Vec::with_capacity(found.len());
        for (range, rule) in found {
            match merged.last_mut() {
                Some((last, first_rule)) if range.start < last.end => {
                    last.end = last.end.max(range.end);
                    *first_rule = rule.min(*first_rule);
                }
                _ => merged.push((range, rule)),
            }
        }
        let mut out = String::with_capacity(text.len());
        let mut copied = 0;
        for (range, rule) in merged {
            let name = &self.rules[rule].name;
            out.push_str(&text[copied..range.start]);
            out.push_str(MARK);
            out.push_str(name);
            out.push(']');
            copied = range.end;
            *counts.entry(name.clone()).or_default() += 1;
        }
        out.push_str(&text[copied..]);
        Some(out)
    }

    fn find(&self, text: &str) -> Vec<Found> {
        let mut found = Vec::new();
        // A rule is not tried again inside its own match: `sk-ant-sk-ant-…` would take quadratic time.
        let mut until = [0; SPECS.len()];
        let mut named_until = 0;
        for hit in self.automaton.find_overlapping_iter(text) {
            let keyword = self.keywords[hit.pattern().as_usize()];
            match keyword.rule {
                Some(index) => {
                    let inside = hit.start() < until[index];
                    if inside || keyword.starts_word && continues_word(text.as_bytes(), hit.start()) {
                        continue;
                    }
                    let rule = &self.rules[index];
                    if let Some(range) = rule.match_at(text, hit.start()) {
                        until[index] = range.end;
                        found.push((range, index));
                    }
                }
                None if hit.start() >= named_until => {
                    named_until = name_end(text.as_bytes(), hit.end());
                    if let Some(range) = self.find_assigned(text, hit.start(), named_until) {
                        named_until = range.end;
                        found.push((range, SPECS.len()));
                    }
                }
                None => {}
            }
        }
        for (index, rule) in self.rules.iter().enumerate().skip(SPECS.len() + 1) {
            let mut start = 0;
            for end in self.marks.find_iter(text).map(|m| m.range()).chain(std::iter::once(text.len()..text.len())) {
                let part = &text[start..end.start];
                for whole in rule.regex.find_iter(part).map(|m| m.range()) {
                    if let Some(range) = rule.secret(part, whole).filter(|r| !r.is_empty()) {
                        found.push((start + range.start..start + range.end, index));
                    }
                }
                start = end.end;
            }
        }
        found
    }

    /// The value assigned to the name around a keyword.
    fn find_assigned(&self, text: &str, keyword: usize, end: usize) -> Option<Range<usize>> {
        // Most mentions are no assignment.
        let after = text.as_bytes()[end..].iter().take(12);
        after
            .copied()
            .find(|b| !matches!(b, b' ' | b'\t' | b'"' | b'\'' | b'`' | b'\\'))
            .filter(|b| b":=".contains(b))?;
        if text[end..].starts_with("::") {
            return None;
        }
        let window = &text[end..text.floor_char_boundary(end + VALUE_WINDOW)];
        // A value without digits counts only in quotes, and it ends with its line.
        let line = window.bytes().take_while(|b| !matches!(b, b'\r' | b'\n'));
        line.into_iter().find(|b| b.is_ascii_digit() || matches!(b, b'"' | b'\'' | b'`'))?;
        let head = &text.as_bytes()[keyword.saturating_sub(NAME_MAX)..keyword];
        let start = keyword - head.iter().rev().take_while(|b| is_name_byte(**b)).count();
        let kind = name_kind(&text[start..end])?;
        self.assignment.find(window)?;
        let value = |captures: &regex::Captures| -> Option<(Range<usize>, bool)> {
            let quoted = ["double", "single", "back", "escaped"].iter().find_map(|group| captures.name(group));
            let value = quoted.or_else(|| captures.name("bare"))?.range();
            Some((end + value.start..end + value.end, quoted.is_some()))
        };
        let (seen, quoted) = value(&self.assignment.captures(window)?)?;
        // Followed by more code it is an expression.
        let rest = &text.as_bytes()[seen.end..];
        let is_code =
            || rest.first().is_some_and(|b| b"([{<".contains(b)) || is_namesake(&text[start..end], &text[seen.clone()]);
        if !quoted && is_code() {
            return None;
        }
        if !is_secret_value(kind, &text[seen.clone()], quoted) {
            return None;
        }
        if seen.end < end + window.len() {
            return Some(seen);
        }
        value(&self.assignment.captures(&text[end..])?).map(|(whole, _)| whole)
    }
}

impl Rule {
    fn match_at(&self, text: &str, at: usize) -> Option<Range<usize>> {
        let text_at = &text[at..];
        let range = self.secret(text_at, self.regex.find(text_at)?.range())?;
        (self.check)(&text_at[range.clone()]).then(|| at + range.start..at + range.end)
    }

    /// The part of a match that is to be masked.
    fn secret(&self, text: &str, whole: Range<usize>) -> Option<Range<usize>> {
        if self.regex.captures_len() == 1 {
            return Some(whole);
        }
        self.regex.captures_at(text, whole.start)?.get(1).map(|group| group.range())
    }
}

/// The ways a name of several words is written.
fn spellings(words: &[&str]) -> Vec<String> {
    let capital = |word: &str| word[..1].to_uppercase() + &word[1..];
    let capitals: Vec<String> = words.iter().map(|word| capital(word)).collect();
    let mut all = Vec::new();
    for separator in ["", "_", "-"] {
        let lower = words.join(separator);
        all.extend([capital(&lower), lower.to_uppercase(), lower, capitals.join(separator)]);
    }
    all.push(words[0].to_owned() + &capitals[1..].concat());
    all.sort();
    all.dedup();
    all
}

fn is_name_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.')
}

fn name_end(text: &[u8], from: usize) -> usize {
    from + text[from..].iter().take(NAME_MAX).take_while(|b| is_name_byte(**b)).count()
}

/// Whether the character before belongs to the same word: not if it ends an escape (`\n`, `%3D`) of text quoted in text.
fn continues_word(text: &[u8], at: usize) -> bool {
    let before = &text[..at];
    match before {
        [.., b'\\', b'n' | b'r' | b't'] => false,
        [.., b'%', a, b] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => false,
        [.., last] => last.is_ascii_alphanumeric() || *last == b'_',
        [] => false,
    }
}

fn is_authorization(name: &str) -> bool {
    let end = name.len().saturating_sub(AUTHORIZATION.len());
    name.get(end..).is_some_and(|end| end.eq_ignore_ascii_case(AUTHORIZATION))
}

/// What kind of secret a name promises, if any.
fn name_kind(name: &str) -> Option<Name> {
    let mut lower = [0; 2 * NAME_MAX + 16];
    let lower = lower.get_mut(..name.len())?;
    let mut len = 0;
    // Without separators, so that one spelling is left.
    for b in name.bytes() {
        match b {
            b'_' | b'-' | b'.' | b' ' => {}
            _ if b.is_ascii_alphanumeric() => {
                lower[len] = b.to_ascii_lowercase();
                len += 1;
            }
            _ => return None,
        }
    }
    let lower = std::str::from_utf8(&lower[..len]).ok()?;
    // Both are short: a searcher costs more to set up than to compare.
    let find = |word: &str| lower.as_bytes().windows(word.len()).rposition(|part| part == word.as_bytes());
    let last = |words: &&[&str]| match words {
        [one] => find(one).map(|at| at + one.len()),
        [one, two] => find(two).filter(|at| lower[..*at].ends_with(one)).map(|at| at + two.len()),
        _ => None,
    };
    let password = PASSWORDS.iter().filter_map(last).max();
    let end = password.max(OTHERS.iter().filter_map(last).max())?;
    let rest = &lower[end..];
    let about = rest.starts_with("iz")
        || (!rest.is_empty() && ABOUT.iter().any(|word| rest.ends_with(word)))
        || ["public", "publish", "page", "next"].iter().any(|word| find(word).is_some());
    (!about).then_some(if password.is_some() { Name::Password } else { Name::Other })
}

/// Whether a value is called as its name is, as in `x.private_key_2 = private_key_2` and `private_key: ed25519.PrivateKey`.
fn is_namesake(name: &str, value: &str) -> bool {
    let letters = |text: &str| -> String {
        let kept = text.bytes().filter(|b| b.is_ascii_alphanumeric());
        kept.map(|b| char::from(b.to_ascii_lowercase())).collect()
    };
    let name = letters(name.rsplit('.').next().unwrap_or(name));
    // `password` ends many a password.
    name.len() > "password".len() && letters(value).ends_with(&name)
}

/// The closing quote of a string that began before `at`.
fn string_end(json: &[u8], mut at: usize) -> usize {
    while let Some(next) = memchr::memchr2(b'"', b'\\', &json[at..]) {
        at += next;
        if json[at] == b'"' {
            return at;
        }
        at += 2;
    }
    json.len()
}

/// Decodes the inside of a valid JSON string. Unlike serde_json it takes the half of a surrogate pair, which JavaScript
/// writes when it cuts a string.
fn decode(raw: &str, out: &mut String) {
    out.clear();
    let mut rest = raw;
    while let Some(escape) = memchr::memchr(b'\\', rest.as_bytes()) {
        out.push_str(&rest[..escape]);
        let kind = rest.as_bytes().get(escape + 1).copied().unwrap_or(b'\\');
        rest = rest.get(escape + 2..).unwrap_or("");
        out.push(match kind {
            b'n' => '\n',
            b't' => '\t',
            b'r' => '\r',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'u' => {
                let unit = |text: &str| text.get(..4).and_then(|hex| u16::from_str_radix(hex, 16).ok());
                let first = unit(rest).unwrap_or(0xfffd);
                rest = rest.get(4..).unwrap_or("");
                let second = rest.strip_prefix("\\u").and_then(unit);
                match char::decode_utf16([first].into_iter().chain(second)).next() {
                    Some(Ok(c)) => {
                        if c.len_utf16() == 2 {
                            rest = &rest[6..];
                        }
                        c
                    }
                    _ => char::REPLACEMENT_CHARACTER,
                }
            }
            plain => char::from(plain),
        });
    }
    out.push_str(rest);
}
