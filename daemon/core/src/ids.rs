//! Trace and span ids: functions of transcript content only (invariant 5).
//!
//! A fork copies lines into a new session, a restart reads them again, a retry sends them again. The ids are the same each
//! time, so that no work appears twice.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Id of a trace, which is one turn; 16 bytes as in OTLP.
pub type TraceId = [u8; 16];

/// Id of a span; 8 bytes as in OTLP.
pub type SpanId = [u8; 8];

/// A hash that recognises a model call.
pub type CallId = [u8; 16];

/// The identity of a model call, wherever its lines are copied to: two calls are the same if they share one of `proofs`. Each
/// proof combines `message.id` with something else, because some gateways use one id for every call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// `message.id` alone, which earlier versions used.
    pub id: CallId,
    /// `message.id` with the time of the first line, with the request id, and with content and usage.
    pub proofs: [Option<CallId>; 3],
    /// When its first line was written, Unix nanoseconds.
    pub at: Option<u64>,
}

impl Call {
    pub fn of(message_id: &str, at: Option<u64>, request: Option<&str>, content: Option<&str>) -> Self {
        let proof = |kind: &[u8], by: &[u8]| truncated(&[b"call\0", kind, message_id.as_bytes(), b"\0", by]);
        let id = truncated(&[b"message\0", message_id.as_bytes()]);
        let proofs = [
            at.map(|at| proof(b"at\0", &at.to_be_bytes())),
            request.map(|request| proof(b"request\0", request.as_bytes())),
            content.map(|content| proof(b"content\0", content.as_bytes())),
        ];
        // Without anything else, the id alone has to do.
        let proofs = if proofs.iter().any(Option::is_some) { proofs } else { [Some(id), None, None] };
        Self { id, proofs, at }
    }

    /// The proofs it has.
    pub fn proofs(&self) -> impl Iterator<Item = &CallId> {
        self.proofs.iter().flatten()
    }
}

/// The role of a span, which is part of its id because one source id may occur in two roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The root of a turn. Source: the turn's key.
    Turn,
    /// A model call. Source: `message.id`.
    Generation,
    /// A tool call. Source: `tool_use.id`.
    Tool,
    /// A subagent. Source: its id, or that of the call that launched it.
    Agent,
    /// An event. Source: that of its turn or subagent with the number of earlier events, or with a mark for the event that the
    /// turn was abandoned.
    Event,
}

/// The trace of the turn with this `key` (the `uuid` of its prompt line): the first 16 bytes of SHA-256, which is how
/// Langfuse's SDKs derive a trace id from a seed, so that scores can be attached from elsewhere.
pub fn trace_id(key: &str) -> TraceId {
    truncated(&[key.as_bytes()])
}

pub fn span_id(trace: TraceId, role: Role, source: &str) -> SpanId {
    let role: &[u8] = match role {
        Role::Turn => b"turn",
        Role::Generation => b"generation",
        Role::Tool => b"tool",
        Role::Agent => b"agent",
        Role::Event => b"event",
    };
    truncated(&[&trace, role, b"\0", source.as_bytes()])
}

/// In lower case, as ids are written everywhere.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    text.extend(bytes.iter().flat_map(|byte| pair(*byte)).map(char::from));
    text
}

/// The two digits of a byte.
pub(crate) fn pair(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]
}

/// The inverse of [`hex`]; `None` if `text` is not one of this length.
pub fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut id = [0; N];
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    for (byte, pair) in id.iter_mut().zip(digits.as_chunks::<2>().0) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(id)
}

/// A hash that recognises a text without revealing it. Ignores surrounding white space, because Claude Code trims what it gives
/// to hooks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint(String);

impl AsRef<str> for Fingerprint {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Fingerprint {
    pub fn of(text: &str) -> Self {
        Self(hex(&truncated::<16>(&[b"text\0", text.trim().as_bytes()])))
    }
}

/// The fingerprint of a span's content.
pub fn fingerprint(body: &[u8]) -> [u8; 16] {
    truncated(&[b"body\0", body])
}

/// Whether a trace is kept at a sampling `rate` of 0.0 to 1.0. The id decides, so a turn is kept or dropped as a whole.
pub fn sampled(trace: TraceId, rate: f64) -> bool {
    let position = u64::from_be_bytes(trace[..8].try_into().unwrap_or_default());
    (position as f64) < rate * 2f64.powi(64)
}

pub(crate) fn truncated<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    let mut id = [0; N];
    id.copy_from_slice(&hash.finalize()[..N]);
    // OTLP forbids ids of zeros only. This is not expected to occur, ever.
    if id.iter().all(|byte| *byte == 0) {
        id[N - 1] = 1;
    }
    id
}

/// A span as it is looked up: its trace, its id, and the model call it belongs to.
pub type SpanKey = (TraceId, SpanId, Option<Call>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_id_equals_what_langfuses_sdks_derive_from_the_seed() {
        // python: hashlib.sha256(b"my-external-id").hexdigest()[:32]
        assert_eq!(hex(&trace_id("my-external-id")), "46c3e19123fc3f7aa837533a768e53d7");
    }

    #[test]
    fn span_ids_differ_by_trace_role_and_source() {
        let (a, b) = (trace_id("a"), trace_id("b"));
        let ids = [
            span_id(a, Role::Turn, "x"),
            span_id(b, Role::Turn, "x"),
            span_id(a, Role::Generation, "x"),
            span_id(a, Role::Tool, "x"),
            span_id(a, Role::Tool, "y"),
        ];
        assert_eq!(ids.iter().collect::<std::collections::HashSet<_>>().len(), ids.len());
        assert_eq!(span_id(a, Role::Tool, "x"), ids[3]);
    }

    #[test]
    fn sampling_keeps_about_the_configured_share() {
        let kept = |rate| (0..2000).filter(|i| sampled(trace_id(&i.to_string()), rate)).count();
        assert_eq!((kept(0.0), kept(1.0)), (0, 2000));
        assert!((400..600).contains(&kept(0.25)), "{}", kept(0.25));
    }
}
