//! Who began a turn that nobody typed, and which subagent a call set to work.

use serde_json::value::RawValue;

use super::Launched;
use crate::transcript::wire::{Text, WireLaunched, WireOrigin};

/// What the prompt of a forked subagent begins with.
pub(super) const FORK: &str = "<fork-boilerplate>";

/// Who began the turn, if that was a machine: `turnOrigin`, and in a subagent's transcript the kind of `origin`, which says who woke it.
pub(super) fn begun_by(turn_origin: Option<&RawValue>, origin: Option<&RawValue>, is_side: bool) -> Option<String> {
    let machine = |by: &String| !by.is_empty() && !matches!(by.as_str(), "human" | "sdk" | "task_notification");
    let word = |raw: &RawValue| serde_json::from_str::<Text<'_>>(raw.get()).ok().map(Text::into_owned);
    let kind = |raw: &RawValue| serde_json::from_str::<WireOrigin<'_>>(raw.get()).ok()?.kind.map(Text::into_owned);
    let origin = || origin.filter(|_| is_side).and_then(kind).filter(machine);
    turn_origin.and_then(word).filter(machine).or_else(origin)
}

/// The subagent, or the workflow run, that a `toolUseResult` names. Runs are always in the background (2.1.329).
pub fn launched(raw: &str) -> Option<Launched> {
    let names = |key: &[u8]| memchr::memmem::find(raw.as_bytes(), key).is_some();
    let may_be = raw.starts_with('{') && (names(b"\"agentId\"") || names(b"\"runId\"") || names(b"\"resumedAgentId\""));
    let wire: WireLaunched = may_be.then(|| serde_json::from_str(raw).ok()).flatten()?;
    let is_async = wire.is_async == Some(true) || wire.agent_id.is_none();
    let wakes = wire.resumed_agent_id.is_some();
    let agent_id = wire.resumed_agent_id.or(wire.agent_id).or(wire.run_id)?.into_owned();
    Some(Launched { agent_id, is_async: is_async || wakes, wakes })
}

/// What a forked subagent is to do, without what every fork is told.
pub(super) fn directive(text: &str) -> &str {
    let said = text.split_once("</fork-boilerplate>").map_or(text, |(_, said)| said).trim();
    said.strip_prefix("Your directive:").map_or(said, str::trim_start)
}
