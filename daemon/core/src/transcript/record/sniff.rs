//! Judges a line by its opening bytes, so that most lines need no parsing.

use std::sync::LazyLock;

use memchr::{
    arch::all::packedpair::HeuristicFrequencyRank,
    memmem::{self, Finder, FinderBuilder},
};
use serde::{
    Deserializer as _,
    de::{self, IgnoredAny, MapAccess, Visitor},
};

use super::{
    Nanos, Record, Skip,
    parse::{BOOKKEEPING, moment},
};
use crate::transcript::wire::{Found, Kind, Stamp, Text};

pub(super) enum Sniffed {
    /// It is not read.
    Skip,
    /// It only links others in the chain.
    Link {
        uuid: Option<String>,
        parent: Option<String>,
        /// No other line repeats its id further on.
        is_alone: bool,
    },
    /// A request to the model.
    Request,
}

/// Attachments that are part of the conversation.
const MEANINGFUL_ATTACHMENTS: [&[u8]; 3] = [b"hook_additional_context", b"hook_success", b"queued_command"];

/// Claude Code writes the keys of a line in a fixed order, so the first hundred bytes distinguish most kinds. `None` if they do
/// not, or if the line is part of the conversation.
pub(super) fn sniff(line: &[u8]) -> Option<Sniffed> {
    let quoted = |rest: &'_ [u8]| -> Option<usize> { memchr::memchr(b'"', &rest[..rest.len().min(64)]) };
    if let Some(rest) = line.strip_prefix(b"{\"type\":\"") {
        let kind = &rest[..quoted(rest)?];
        return match kind {
            b"api-request" => Some(Sniffed::Request),
            _ if BOOKKEEPING.binary_search(&kind).is_ok() => Some(Sniffed::Skip),
            _ => None,
        };
    }
    let mut rest = line.strip_prefix(b"{\"parentUuid\":")?;
    let mut parent = None;
    rest = match rest.strip_prefix(b"null,") {
        Some(rest) => rest,
        None => {
            let (name, after) = rest.strip_prefix(b"\"")?.split_at_checked(quoted(rest.strip_prefix(b"\"")?)?)?;
            parent = Some(name);
            after.strip_prefix(b"\",")?
        }
    };
    rest = rest.strip_prefix(b"\"isSidechain\":")?;
    rest = rest.strip_prefix(b"false,").or_else(|| rest.strip_prefix(b"true,"))?;
    if let Some(agent) = rest.strip_prefix(b"\"agentId\":\"") {
        rest = agent[quoted(agent)?..].strip_prefix(b"\",")?;
    }
    let rest = rest.strip_prefix(b"\"attachment\":{\"type\":\"")?;
    let kind = &rest[..quoted(rest)?];
    let says = MEANINGFUL_ATTACHMENTS.contains(&kind)
        && (kind != b"hook_success" || memmem::find(rest, b"updatedInput").is_some());
    (!says).then(|| {
        let first = uuid_key(rest).filter(|at| rest[..*at].ends_with(ATTACHMENT));
        let is_alone = first.is_some_and(|at| uuid_key(&rest[at + UUID.len()..]).is_none());
        // Text may contain the same words.
        let own = first.filter(|at| rest[at + UUID.len()..].starts_with(b":\"")).or_else(|| {
            let at = memmem::find(rest, b"\"type\":\"attachment\",\"uuid\":\"")?;
            Some(at + ATTACHMENT.len())
        });
        let uuid = own.and_then(|at| {
            let name = &rest[at + UUID.len() + 2..];
            Some(&name[..quoted(name)?])
        });
        let owned = |name: &[u8]| std::str::from_utf8(name).ok().map(str::to_owned);
        Sniffed::Link { uuid: uuid.and_then(owned), parent: parent.and_then(owned), is_alone }
    })
}

/// Precedes the id in an attachment line.
const ATTACHMENT: &[u8] = b"\"type\":\"attachment\",";

/// The key of a line's id.
const UUID: &[u8] = b"\"uuid\"";

/// The first position of [`UUID`] in `text`. Most bytes of a transcript are searched for it, and few byte sequences are as rare
/// as its two `u`.
pub(super) fn uuid_key(text: &[u8]) -> Option<usize> {
    struct ByU;
    impl HeuristicFrequencyRank for ByU {
        fn rank(&self, byte: u8) -> u8 {
            if byte == b'u' { 0 } else { u8::MAX }
        }
    }
    static KEY: LazyLock<Finder<'static>> =
        LazyLock::new(|| FinderBuilder::new().build_forward_with_ranker(ByU, &UUID[1..]));
    KEY.find_iter(text).find(|at| text[..*at].ends_with(b"\"")).map(|at| at - 1)
}

/// Reads an `api-request` line, which contains the whole message list. The two fields needed come before it, so the rest is not
/// read.
pub(super) fn request(line: &[u8]) -> Result<Record, Skip> {
    #[derive(Default)]
    struct Head {
        id: Option<String>,
        at: Option<Nanos>,
    }
    struct Collect<'h>(&'h mut Head);
    impl<'de> Visitor<'de> for Collect<'_> {
        type Value = ();
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            while self.0.id.is_none() || self.0.at.is_none() {
                match map.next_key::<Text>()?.as_ref().map(|key| key.0.as_ref()) {
                    None => return Ok(()),
                    Some("id") => {
                        if let Found::Value(id) = Text::next(&mut map)? {
                            self.0.id = Some(id.into_owned());
                        }
                    }
                    Some("timestamp") => {
                        if let Found::Value(stamp) = Stamp::next(&mut map)? {
                            self.0.at = moment(&stamp);
                        }
                    }
                    Some(_) => drop(map.next_value::<IgnoredAny>()?),
                }
            }
            Err(de::Error::custom("enough"))
        }
    }
    let mut head = Head::default();
    let _ = serde_json::Deserializer::from_slice(line).deserialize_map(Collect(&mut head));
    match head {
        Head { id: Some(id), at: Some(at) } => Ok(Record::Request { id, at }),
        _ => Err(Skip::UnexpectedShape),
    }
}
