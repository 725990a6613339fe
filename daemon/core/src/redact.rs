//! Masks secrets in text before it is stored or sent.
//!
//! One pass that looks for the keywords of all rules decides where a rule is tried; a rule is matched only at that
//! place, never searched for. Text without keywords costs one table look-up per byte.
//!
//! Rules know a secret either by its own shape (`ghp_…`), which needs no further proof, or by its surroundings
//! (`password = …`, `Bearer …`), where the value must also look random: ordinary code is full of such surroundings.
//!
//! Masking is best effort. A secret with neither a known shape nor a telling name is not found.

use std::collections::BTreeMap;
use std::ops::{Deref, Range};
use std::sync::{Arc, LazyLock};

use regex::Regex;
use serde::de::IgnoredAny;

use self::{
    find::{BUILT_IN, Finder, Found, KUBERNETES, NAMED},
    json::{Owner, Place, decode, is_kubernetes_secret, string_end},
    name::{Name, name_kind},
    value::{Trust, is_secret, is_secret_value},
    view::View,
};

mod assign;
mod call;
mod command;
mod find;
mod json;
#[cfg(test)]
mod kinds;
mod listed;
mod name;
#[cfg(test)]
mod ordinary;
mod pem;
mod places;
mod rules;
mod services;
#[cfg(test)]
mod tests;
mod value;
mod view;
mod words;

/// How many secrets each rule has masked.
pub type Counts = BTreeMap<String, u64>;

/// An extra rule that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("redaction rule {name:?}: {reason}")]
pub struct BadRule {
    pub name: String,
    pub reason: String,
}

/// Opens every replacement; text that contains it is already masked.
const MARK: &str = "[REDACTED:";

/// Each round shortens the text that is not yet masked, so only text made for the purpose reaches this limit.
const MAX_ROUNDS: usize = 64;

/// A text of up to this many bytes gets all rounds; a longer one gets fewer.
const ROUNDS_OF: usize = 1 << 20;

/// How many levels of JSON inside JSON strings are decoded.
const MAX_DEPTH: usize = 4;

const ASSIGNMENT: &str = "assignment";
const AUTHORIZATION: &str = "authorization";

/// A rule that the user added.
struct Extra {
    name: String,
    regex: Regex,
}

/// The rules, compiled once. Cheap to share.
pub struct Redactor {
    finder: Finder,
    extra: Vec<Extra>,
    marks: Regex,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries((0..BUILT_IN + self.extra.len()).map(|rule| self.rule_name(rule))).finish()
    }
}

/// The rules in force: the built-in ones, compiled at first use, or a custom set. Cheap to clone.
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

    pub fn new() -> Self {
        let marks = Regex::new(r"\[REDACTED:[A-Za-z0-9_.-]{1,64}\]").expect("built-in rule");
        Self { finder: Finder::new(), extra: Vec::new(), marks }
    }

    fn rule_name(&self, index: usize) -> &str {
        match index.checked_sub(BUILT_IN) {
            Some(extra) => &self.extra[extra].name,
            None => find::rule_name(index),
        }
    }

    /// The built-in rules and `extra`, each a name and a regular expression. If it has a group, only the first group is
    /// masked. Unlike the built-in ones these are searched for in all text.
    pub fn with_extra(extra: &[(String, String)]) -> Result<Self, BadRule> {
        let mut redactor = Self::new();
        for (name, pattern) in extra {
            let bad = |reason: &str| BadRule { name: name.clone(), reason: reason.into() };
            if name.is_empty() || name.len() > 64 || !name.bytes().all(name::is_name_byte) {
                return Err(bad("a name is 1 to 64 of A-Z a-z 0-9 _ . -"));
            }
            // Of a message of several lines, the last gives the reason.
            let why = |error: regex::Error| bad(error.to_string().lines().last().unwrap_or_default());
            let regex = Regex::new(pattern).map_err(why)?;
            if regex.is_match("") {
                return Err(bad("matches empty text"));
            }
            redactor.extra.push(Extra { name: name.clone(), regex });
        }
        Ok(redactor)
    }

    /// The text with `[REDACTED:<rule>]` in place of each secret; `None` if there is none. Masking the result again finds
    /// nothing.
    pub fn scrub(&self, text: &str, counts: &mut Counts) -> Option<String> {
        let mut masked = self.scrub_once(text, counts)?;
        // A replacement can uncover a secret that had no word boundary before. Text made for it could need many rounds;
        // a long text gets only a few.
        for _ in 0..(ROUNDS_OF / text.len().max(1)).clamp(3, MAX_ROUNDS) {
            match self.scrub_once(&masked, counts) {
                Some(again) => masked = again,
                None => break,
            }
        }
        Some(masked)
    }

    /// As [`scrub`](Self::scrub) for JSON: looks into decoded strings, uses a member's key as the name of its value,
    /// and leaves every other byte unchanged. Invalid JSON is treated as text.
    pub fn scrub_json(&self, json: &str, counts: &mut Counts) -> Option<String> {
        self.scrub_nested(json, counts, 0)
    }

    /// A decoded string can be JSON again, as in requests and logs.
    fn scrub_inner(&self, text: &str, counts: &mut Counts, depth: usize) -> Option<String> {
        match text.as_bytes().first() {
            Some(b'{' | b'[' | b'"') if depth < MAX_DEPTH => self.scrub_nested(text, counts, depth + 1),
            _ => self.scrub(text, counts),
        }
    }

    fn scrub_nested(&self, json: &str, counts: &mut Counts, depth: usize) -> Option<String> {
        if serde_json::from_str::<IgnoredAny>(json).is_err() {
            return self.scrub(json, counts);
        }
        let mut out = String::new();
        let mut copied = 0;
        let mut at = 0;
        let mut scratch = String::new();
        let mut place = Place::new(is_kubernetes_secret(json));
        while let Some(open) = memchr::memchr(b'"', &json.as_bytes()[at..]).map(|i| at + i) {
            let named = place.enter(&json.as_bytes()[at..open]);
            let close = string_end(json.as_bytes(), open + 1);
            let raw = &json[open + 1..close];
            let text = if raw.contains('\\') {
                decode(raw, &mut scratch);
                scratch.as_str()
            } else {
                raw
            };
            let masked = self.scrub_inner(text, counts, depth);
            let left = masked.as_deref().unwrap_or(text);
            let member = match &named {
                Some(Owner::Name(key)) => self.scrub_member(key, left, counts),
                Some(Owner::Kubernetes) if left.len() >= 4 && !left.contains(MARK) => {
                    *counts.entry(find::rule_name(KUBERNETES).into()).or_default() += 1;
                    Some(format!("{MARK}{}]", find::rule_name(KUBERNETES)))
                }
                _ => None,
            };
            let masked = member.or(masked);
            // The masked text, so that a second run sees the same names.
            let seen = masked.as_deref().unwrap_or(text);
            place.leave(seen, json[close.min(json.len() - 1) + 1..].trim_start().starts_with(':'));
            if let Some(masked) = masked {
                out.push_str(&json[copied..open]);
                out.push_str(&serde_json::to_string(&masked).expect("a string is JSON"));
                copied = close + 1;
            }
            at = close + 1;
        }
        (copied > 0).then(|| out + &json[copied..])
    }

    /// Masks the value of a member if no rule found anything in the value by itself.
    fn scrub_member(&self, key: &str, value: &str, counts: &mut Counts) -> Option<String> {
        let (rule, secret) = if is_authorization(key) {
            let start = value.find(' ').map_or(0, |i| i + 1);
            (AUTHORIZATION, is_secret_value(Name::Password, &value[start..], true).then_some(start)?)
        } else {
            if value.len() < 4 {
                return None;
            }
            (find::rule_name(NAMED), is_secret(name_kind(key)?, value, true, Trust::Setting).then_some(0)?)
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
            let name = self.rule_name(rule);
            out.push_str(&text[copied..range.start]);
            out.push_str(MARK);
            out.push_str(name);
            out.push(']');
            copied = range.end;
            *counts.entry(name.to_owned()).or_default() += 1;
        }
        out.push_str(&text[copied..]);
        Some(out)
    }

    fn find(&self, text: &str) -> Vec<Found> {
        let mut found = match View::of(text) {
            None => self.finder.find(text),
            Some(view) => {
                let seen = self.finder.find(&view.text);
                seen.into_iter().map(|(range, rule)| (view.original(range), rule)).collect()
            }
        };
        if !self.extra.is_empty() {
            self.find_extra(text, &mut found);
        }
        found
    }

    fn find_extra(&self, text: &str, found: &mut Vec<Found>) {
        for (index, rule) in self.extra.iter().enumerate() {
            let mut start = 0;
            for end in self.marks.find_iter(text).map(|m| m.range()).chain(std::iter::once(text.len()..text.len())) {
                let part = &text[start..end.start];
                for whole in rule.regex.find_iter(part).map(|m| m.range()) {
                    if let Some(range) = rule.secret(part, whole).filter(|r| !r.is_empty()) {
                        found.push((start + range.start..start + range.end, BUILT_IN + index));
                    }
                }
                start = end.end;
            }
        }
    }
}

impl Extra {
    /// The part of a match to mask.
    fn secret(&self, text: &str, whole: Range<usize>) -> Option<Range<usize>> {
        if self.regex.captures_len() == 1 {
            return Some(whole);
        }
        self.regex.captures_at(text, whole.start)?.get(1).map(|group| group.range())
    }
}

fn is_authorization(name: &str) -> bool {
    let end = name.len().saturating_sub(AUTHORIZATION.len());
    name.get(end..).is_some_and(|end| end.eq_ignore_ascii_case(AUTHORIZATION))
}
