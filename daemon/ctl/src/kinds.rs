//! Kinds of destinations as people name them.

use cc_core::destination::Kind;

/// The kind called so.
///
/// # Errors
/// Which there are.
pub(crate) fn named(name: &str) -> Result<Kind, String> {
    let known = || Kind::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ");
    Kind::named(&name.trim().to_ascii_lowercase()).ok_or_else(|| format!("there are {}", known()))
}
