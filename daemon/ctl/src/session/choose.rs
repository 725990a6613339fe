//! Which of several sessions a name means, and which are similar to it.

use std::{cmp::Reverse, path::PathBuf};

use jiff::Timestamp;

/// How a session may be named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    /// By its whole id, or the path of its transcript: for commands that do not ask before they act.
    Exact,
    /// A prefix of its id or part of its title suffices.
    Loose,
}

/// A session that a name may mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub id: String,
    pub transcript: PathBuf,
    pub title: Option<String>,
    /// Its latest event, or when its transcript was last written.
    pub at: Option<Timestamp>,
}

/// The result of looking up a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Choice {
    One(Candidate),
    /// More than one, the latest first.
    Several(Vec<Candidate>),
    /// No match; similar sessions, the most similar first.
    None(Vec<Candidate>),
}

/// Minimum similarity of a suggestion: one of two mistyped characters is too little.
const MIN_SIMILARITY: f64 = 0.6;

/// How many suggestions are shown.
const MAX_SUGGESTIONS: usize = 3;

/// The session that `name` means: the one with this id, else the one with this prefix of its id, else the one with this
/// text in its title.
pub(super) fn choose(name: &str, candidates: &[Candidate], naming: Naming) -> Choice {
    if let Some(found) = candidates.iter().find(|candidate| candidate.id == name) {
        return Choice::One(found.clone());
    }
    let wanted = name.trim().to_lowercase();
    let those = |is: &dyn Fn(&Candidate) -> bool| {
        let mut found: Vec<_> =
            candidates.iter().filter(|candidate| !wanted.is_empty() && is(candidate)).cloned().collect();
        found.sort_by_key(|candidate| Reverse(candidate.at));
        found
    };
    let begin = those(&|candidate| candidate.id.to_lowercase().starts_with(&wanted));
    let titled =
        || those(&|candidate| candidate.title.as_ref().is_some_and(|title| title.to_lowercase().contains(&wanted)));
    let mut found = if begin.is_empty() { titled() } else { begin };
    match (naming, found.len()) {
        (_, 0) => Choice::None(near(&wanted, candidates)),
        (Naming::Loose, 1) => Choice::One(found.swap_remove(0)),
        (Naming::Loose, _) => Choice::Several(found),
        (Naming::Exact, _) => {
            found.truncate(MAX_SUGGESTIONS);
            Choice::None(found)
        }
    }
}

/// The sessions with an id or title similar to `wanted`, which is in lower case.
pub(super) fn near(wanted: &str, candidates: &[Candidate]) -> Vec<Candidate> {
    if wanted.is_empty() {
        return Vec::new();
    }
    let likeness = |candidate: &Candidate| {
        let id = candidate.id.to_lowercase();
        let title = candidate.title.as_ref().map(|title| title.to_lowercase());
        [beginning(wanted, &id), title.map_or(0.0, |title| part(wanted, &title))].into_iter().fold(0.0, f64::max)
    };
    let scored = candidates.iter().map(|candidate| (likeness(candidate), candidate));
    let mut scored: Vec<_> = scored.filter(|(score, _)| *score >= MIN_SIMILARITY).collect();
    scored.sort_by(|(a, one), (b, other)| b.total_cmp(a).then(other.at.cmp(&one.at)));
    scored.into_iter().take(MAX_SUGGESTIONS).map(|(_, candidate)| candidate.clone()).collect()
}

/// The similarity of `wanted` to `text`, or to its beginning.
fn beginning(wanted: &str, text: &str) -> f64 {
    let start: String = text.chars().take(wanted.chars().count()).collect();
    strsim::normalized_damerau_levenshtein(wanted, &start).max(strsim::normalized_damerau_levenshtein(wanted, text))
}

/// The similarity of `wanted` to the most similar part of `text` with as many words.
fn part(wanted: &str, text: &str) -> f64 {
    let words: Vec<&str> = text.split_whitespace().collect();
    let count = wanted.split_whitespace().count().clamp(1, words.len().max(1));
    let runs = words.windows(count).map(|run| strsim::normalized_damerau_levenshtein(wanted, &run.join(" ")));
    runs.fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sessions by id and title, each later than the one before.
    fn sessions(rows: &[(&str, &str)]) -> Vec<Candidate> {
        let candidate = |(at, (id, title)): (usize, &(&str, &str))| Candidate {
            id: (*id).to_owned(),
            transcript: format!("/p/{id}.jsonl").into(),
            title: (!title.is_empty()).then(|| (*title).to_owned()),
            at: Timestamp::from_second(i64::try_from(at).unwrap()).ok(),
        };
        rows.iter().enumerate().map(candidate).collect()
    }

    fn ids(found: Vec<Candidate>) -> String {
        found.into_iter().map(|candidate| candidate.id).collect::<Vec<_>>().join(" ")
    }

    fn chosen(name: &str, candidates: &[Candidate], naming: Naming) -> String {
        match choose(name, candidates, naming) {
            Choice::One(found) => found.id,
            Choice::Several(found) => format!("several: {}", ids(found)),
            Choice::None(near) => format!("near: {}", ids(near)),
        }
    }

    #[test]
    fn a_name_means_one_session_several_or_none() {
        let known = sessions(&[
            ("01628e54-f2e1", "Fix the parser"),
            ("01628e99-0000", "Parser of dates"),
            ("abc", ""),
            ("abcdef", "Größe der Spalten"),
            ("s-1", "Release notes"),
        ]);
        for (name, loose, exact) in [
            ("01628e54-f2e1", "01628e54-f2e1", "01628e54-f2e1"),
            ("01628e54", "01628e54-f2e1", "near: 01628e54-f2e1"),
            ("01628E54-F", "01628e54-f2e1", "near: 01628e54-f2e1"),
            ("01628e", "several: 01628e99-0000 01628e54-f2e1", "near: 01628e99-0000 01628e54-f2e1"),
            // A whole id counts although it is a prefix of others.
            ("abc", "abc", "abc"),
            ("abcd", "abcdef", "near: abcdef"),
            ("release", "s-1", "near: s-1"),
            ("GRÖSSE", "near: abcdef", "near: abcdef"),
            ("größe DER", "abcdef", "near: abcdef"),
            ("parser", "several: 01628e99-0000 01628e54-f2e1", "near: 01628e99-0000 01628e54-f2e1"),
            // With a typing mistake, the nearest sessions are named.
            ("01682e54", "near: 01628e54-f2e1 01628e99-0000", "near: 01628e54-f2e1 01628e99-0000"),
            ("s-2", "near: s-1", "near: s-1"),
            ("relaese", "near: s-1", "near: s-1"),
            ("fix teh parser", "near: 01628e54-f2e1", "near: 01628e54-f2e1"),
            // Nothing similar, and nothing at all.
            ("zzzzzzzz", "near: ", "near: "),
            ("", "near: ", "near: "),
            ("  ", "near: ", "near: "),
        ] {
            assert_eq!(chosen(name, &known, Naming::Loose), loose, "{name:?}");
            assert_eq!(chosen(name, &known, Naming::Exact), exact, "{name:?}");
        }
        assert_eq!(chosen("x", &[], Naming::Loose), "near: ");
    }

    #[test]
    fn no_more_are_near_than_are_worth_showing() {
        let known = sessions(&[("aa01", ""), ("aa02", ""), ("aa03", ""), ("aa04", ""), ("aa05", "")]);
        assert_eq!(chosen("aa99", &known, Naming::Loose), "near: ");
        assert_eq!(chosen("aa0x", &known, Naming::Loose), "near: aa05 aa04 aa03");
        assert_eq!(chosen("aa", &known, Naming::Loose), "several: aa05 aa04 aa03 aa02 aa01");
    }
}
