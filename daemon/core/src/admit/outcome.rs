//! Whether an observation is queued for a destination, and if not, why.

/// The properties of an observation that decide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub is_root: bool,
    /// It belongs to a turn that was emitted before, and is queued only where that turn is known.
    pub is_mark: bool,
    /// It is a call of the model's API, which can be recognised in another trace.
    pub is_call: bool,
}

/// What happens to an observation at one destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is queued for the first time.
    New,
    /// It was queued before and has changed: it replaces the version that may still wait.
    Again,
    /// It was queued before and has not changed.
    Known,
    /// It is a copy of an observation in another trace.
    Copied,
    /// Its turn is paused or forgotten.
    Suppressed,
    /// It was queued for a destination that the session had before.
    Elsewhere,
    /// The turn it would add to is unknown there.
    LeftOut,
}

impl Outcome {
    pub fn is_queued(self) -> bool {
        matches!(self, Self::New | Self::Again)
    }
}

/// What a destination knows of an observation. Each question is asked at most once, and only if its answer matters, because it
/// can cost a database query. Some answers record something, as each method says.
pub trait Known {
    /// Why a question could not be answered.
    type Error;

    /// Its project is paused, or was when the turn took place.
    fn is_in_pause(&mut self) -> bool;

    /// Its parent was emitted there.
    ///
    /// # Errors
    /// If that cannot be known.
    fn has_parent(&mut self) -> Result<bool, Self::Error>;

    /// The call was not found in another trace before. Records this trace as its owner.
    ///
    /// # Errors
    /// If that cannot be known, or recorded.
    fn is_own(&mut self) -> Result<bool, Self::Error>;

    /// Every call of its turn was found in another trace before.
    fn is_turn_copied(&mut self) -> bool;

    /// Its turn is suppressed. Records that where a pause is the reason.
    ///
    /// # Errors
    /// If that cannot be known, or recorded.
    fn is_suppressed(&mut self) -> Result<bool, Self::Error>;

    /// It was queued for a destination that the session had before and no longer has; nothing below it is queued now.
    ///
    /// # Errors
    /// If that cannot be known.
    fn is_elsewhere(&mut self) -> Result<bool, Self::Error>;

    /// It was never queued. Records that it is.
    ///
    /// # Errors
    /// If that cannot be known, or recorded.
    fn is_new(&mut self) -> Result<bool, Self::Error>;

    /// Something below it is queued now, and the destination accepts an update of a root.
    fn has_grown(&mut self) -> bool;

    /// Its content differs from when it was last queued. Records the new fingerprint.
    ///
    /// # Errors
    /// If that cannot be known, or recorded.
    fn has_changed(&mut self) -> Result<bool, Self::Error>;
}

/// Decides what happens to an observation.
///
/// # Errors
/// The first error of `known`.
pub fn outcome<K: Known>(found: Found, known: &mut K) -> Result<Outcome, K::Error> {
    // A suppressed marker must not suppress the turn it belongs to.
    if found.is_mark && (known.is_in_pause() || !known.has_parent()?) {
        return Ok(Outcome::LeftOut);
    }
    if known.is_elsewhere()? {
        return Ok(Outcome::Elsewhere);
    }
    if found.is_call && !known.is_own()? {
        return Ok(Outcome::Copied);
    }
    if found.is_root && known.is_turn_copied() {
        return Ok(Outcome::Copied);
    }
    if known.is_suppressed()? {
        return Ok(Outcome::Suppressed);
    }
    if known.is_new()? {
        return Ok(Outcome::New);
    }
    let is_news = found.is_root && known.has_grown() && known.has_changed()?;
    Ok(if is_news { Outcome::Again } else { Outcome::Known })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// Answers yes to the questions in `yes`, and records which were asked.
    struct Answers {
        yes: &'static [&'static str],
        asked: Vec<&'static str>,
    }

    impl Answers {
        fn says(&mut self, question: &'static str) -> bool {
            self.asked.push(question);
            self.yes.contains(&question)
        }
    }

    impl Known for Answers {
        type Error = Infallible;

        fn is_in_pause(&mut self) -> bool {
            self.says("in pause")
        }

        fn has_parent(&mut self) -> Result<bool, Infallible> {
            Ok(self.says("parent"))
        }

        fn is_own(&mut self) -> Result<bool, Infallible> {
            Ok(self.says("own"))
        }

        fn is_turn_copied(&mut self) -> bool {
            self.says("turn copied")
        }

        fn is_suppressed(&mut self) -> Result<bool, Infallible> {
            Ok(self.says("suppressed"))
        }

        fn is_elsewhere(&mut self) -> Result<bool, Infallible> {
            Ok(self.says("elsewhere"))
        }

        fn is_new(&mut self) -> Result<bool, Infallible> {
            Ok(self.says("new"))
        }

        fn has_grown(&mut self) -> bool {
            self.says("grown")
        }

        fn has_changed(&mut self) -> Result<bool, Infallible> {
            Ok(self.says("changed"))
        }
    }

    const ROOT: Found = Found { is_root: true, is_mark: false, is_call: false };
    const CALL: Found = Found { is_root: false, is_mark: false, is_call: true };
    const TOOL: Found = Found { is_root: false, is_mark: false, is_call: false };
    const MARKER: Found = Found { is_root: false, is_mark: true, is_call: false };

    #[test]
    fn outcome_asks_and_records_only_what_matters() {
        type Row = (&'static str, Found, &'static [&'static str], Outcome, &'static [&'static str]);
        let rows: [Row; 18] = [
            ("a tool is new", TOOL, &["new"], Outcome::New, &["elsewhere", "suppressed", "new"]),
            ("a tool is known", TOOL, &["grown", "changed"], Outcome::Known, &["elsewhere", "suppressed", "new"]),
            (
                "a tool of a turn that is suppressed",
                TOOL,
                &["suppressed", "new"],
                Outcome::Suppressed,
                &["elsewhere", "suppressed"],
            ),
            ("a tool that went elsewhere", TOOL, &["elsewhere", "new"], Outcome::Elsewhere, &["elsewhere"]),
            ("a call of this trace", CALL, &["own", "new"], Outcome::New, &["elsewhere", "own", "suppressed", "new"]),
            ("a call that was known", CALL, &["own"], Outcome::Known, &["elsewhere", "own", "suppressed", "new"]),
            ("a call of another trace", CALL, &["new", "suppressed"], Outcome::Copied, &["elsewhere", "own"]),
            (
                "a call that is suppressed",
                CALL,
                &["own", "suppressed"],
                Outcome::Suppressed,
                &["elsewhere", "own", "suppressed"],
            ),
            ("a root is new", ROOT, &["new"], Outcome::New, &["elsewhere", "turn copied", "suppressed", "new"]),
            ("a root of a copy", ROOT, &["turn copied", "new"], Outcome::Copied, &["elsewhere", "turn copied"]),
            (
                "a root that is suppressed",
                ROOT,
                &["suppressed"],
                Outcome::Suppressed,
                &["elsewhere", "turn copied", "suppressed"],
            ),
            (
                "a root has nothing new",
                ROOT,
                &["changed"],
                Outcome::Known,
                &["elsewhere", "turn copied", "suppressed", "new", "grown"],
            ),
            (
                "a root has something new below it and says the same",
                ROOT,
                &["grown"],
                Outcome::Known,
                &["elsewhere", "turn copied", "suppressed", "new", "grown", "changed"],
            ),
            (
                "a root has something new below it and says so",
                ROOT,
                &["grown", "changed"],
                Outcome::Again,
                &["elsewhere", "turn copied", "suppressed", "new", "grown", "changed"],
            ),
            ("a mark in a pause", MARKER, &["in pause", "parent", "new"], Outcome::LeftOut, &["in pause"]),
            ("a mark of a turn that is not known", MARKER, &["new"], Outcome::LeftOut, &["in pause", "parent"]),
            (
                "a mark",
                MARKER,
                &["parent", "new"],
                Outcome::New,
                &["in pause", "parent", "elsewhere", "suppressed", "new"],
            ),
            (
                "a mark that was known",
                MARKER,
                &["parent"],
                Outcome::Known,
                &["in pause", "parent", "elsewhere", "suppressed", "new"],
            ),
        ];
        for (name, found, yes, expect, questions) in rows {
            let mut answers = Answers { yes, asked: Vec::new() };
            let Ok(is) = outcome(found, &mut answers);
            assert_eq!((is, &*answers.asked), (expect, questions), "{name}");
            assert_eq!(is.is_queued(), matches!(expect, Outcome::New | Outcome::Again), "{name}");
        }
    }

    #[test]
    fn copied_suppressed_and_known_observations_are_never_queued() {
        const ALL: [&str; 9] =
            ["in pause", "parent", "own", "turn copied", "suppressed", "elsewhere", "new", "grown", "changed"];
        for kind in [ROOT, CALL, TOOL, MARKER] {
            for answers in 0..1u32 << ALL.len() {
                let yes: Vec<&str> = (0..ALL.len()).filter(|at| answers >> at & 1 == 1).map(|at| ALL[at]).collect();
                let has = |question: &str| yes.contains(&question);
                let mut answers = Answers { yes: Vec::leak(yes.clone()), asked: Vec::new() };
                let Ok(is) = outcome(kind, &mut answers);
                let is_kept = has("suppressed")
                    || has("elsewhere")
                    || kind.is_call && !has("own")
                    || kind.is_root && has("turn copied")
                    || kind.is_mark && (has("in pause") || !has("parent"));
                let is_news = has("new") || kind.is_root && has("grown") && has("changed");
                assert_eq!(is.is_queued(), !is_kept && is_news, "{kind:?} {yes:?}");
                let mut once = answers.asked.clone();
                once.sort_unstable();
                once.dedup();
                assert_eq!(once.len(), answers.asked.len(), "asked twice: {:?}", answers.asked);
            }
        }
    }
}
