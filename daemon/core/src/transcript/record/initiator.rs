//! Who began a turn that nobody typed, and which subagent a call launched.

use super::Launched;
use crate::transcript::wire::{Wire, WireLaunched, read};

/// The beginning of a forked subagent's prompt.
pub(super) const FORK: &str = "<fork-boilerplate>";

/// `turnOrigin` if a machine began the turn; in a subagent's transcript the kind of `origin`, which says who woke it.
pub(super) fn initiator(wire: &Wire<'_>, is_side: bool) -> Option<String> {
    let machine = |by: &&str| !matches!(*by, "" | "human" | "sdk" | "task_notification");
    let origin = wire.origin.as_ref().filter(|_| is_side).and_then(|origin| origin.kind.as_ref());
    let word = |word: &'_ crate::transcript::wire::Word<'_>| word.0.to_string();
    let named = |by: String| Some(by).filter(|by| machine(&by.as_str()));
    wire.turn_origin.as_ref().map(word).and_then(named).or_else(|| origin.map(word).and_then(named))
}

/// The subagent or workflow run that a `toolUseResult` names. Runs are always in the background (2.1.329).
pub fn launched(raw: &str) -> Option<Launched> {
    let names = |key: &[u8]| memchr::memmem::find(raw.as_bytes(), key).is_some();
    // `agentId`, `resumedAgentId`, `runId`.
    let may_be = raw.starts_with('{') && (names(b"gentId\"") || names(b"\"runId\""));
    let wire: WireLaunched<'_> = may_be.then(|| read(raw)).flatten()?;
    let is_async = wire.is_async.is_some_and(|flag| flag.0) || wire.agent_id.is_none();
    let wakes = wire.resumed_agent_id.is_some();
    let agent_id = wire.resumed_agent_id.or(wire.agent_id).or(wire.run_id)?.into_owned();
    Some(Launched { agent_id, is_async: is_async || wakes, wakes })
}

/// The task of a forked subagent, without the boilerplate that every fork is given.
pub(super) fn directive(text: &str) -> &str {
    let said = text.split_once("</fork-boilerplate>").map_or(text, |(_, said)| said).trim();
    said.strip_prefix("Your directive:").map_or(said, str::trim_start)
}
