//! How times and totals are derived.

use std::collections::BTreeMap;

/// The variable for how times and totals are derived, and the value for which the server shows everything. Without it,
/// the specification is followed to the letter.
pub(super) const SEMANTICS: &str = "CC_LANGFUSE_SEMANTICS";
pub(super) const MEASURED: &str = "measured";

/// The semantics to write: those in a file's `own` variables, else `measured`; `None` if others are set `elsewhere`.
pub(super) fn semantics<'v>(
    own: &'v BTreeMap<String, String>,
    elsewhere: &BTreeMap<String, String>,
) -> Option<&'v str> {
    let chosen = |vars: &'v BTreeMap<String, String>| vars.get(SEMANTICS).filter(|value| !value.trim().is_empty());
    if let Some(own) = chosen(own) {
        return Some(own);
    }
    let other = elsewhere.get(SEMANTICS).filter(|value| !value.trim().is_empty());
    other.is_none_or(|value| value.eq_ignore_ascii_case(MEASURED)).then_some(MEASURED)
}
