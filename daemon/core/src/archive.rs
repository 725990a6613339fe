//! A line of a transcript without its secrets, for a copy that is kept: of the same structure, with the same figures.
//!
//! An id keeps what it distinguishes: one in which a rule finds a secret becomes a hash, the same wherever it occurs.

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::{
    ids::hex,
    redact::{Counts, Redactor},
};

/// A path of keys in a line; `*` is every element of a list.
type At = &'static [&'static str];

/// Where the ids of a line are.
const IDS: &[At] = &[
    &["uuid"],
    &["parentUuid"],
    &["logicalParentUuid"],
    &["leafUuid"],
    &["messageId"],
    &["requestId"],
    &["requestRef"],
    &["requestSessionId"],
    &["promptId"],
    &["agentId"],
    &["sessionId"],
    &["toolUseID"],
    &["toolUseId"],
    &["parentToolUseID"],
    &["sourceToolUseID"],
    &["sourceToolAssistantUUID"],
    &["forkedFrom", "sessionId"],
    &["forkedFrom", "messageUuid"],
    &["attachment", "toolUseID"],
    &["message", "id"],
    &["message", "content", "*", "id"],
    &["message", "content", "*", "tool_use_id"],
    &["toolUseResult", "agentId"],
    &["toolUseResult", "runId"],
    &["toolUseResult", "resumedAgentId"],
];

/// Where Claude Code and the model's API have words of their own, by which a line is understood.
const WORDS: &[At] = &[
    &["type"],
    &["subtype"],
    &["origin", "kind"],
    &["message", "type"],
    &["message", "role"],
    &["message", "model"],
    &["message", "stop_reason"],
    &["message", "content", "*", "type"],
    &["message", "content", "*", "name"],
    &["attachment", "type"],
];

/// How long a word may be, in bytes.
const MAX_WORD: usize = 64;

/// Where the bytes of images and documents are.
const MEDIA: &[At] = &[
    &["message", "content", "*", "source", "data"],
    &["message", "content", "*", "content", "*", "source", "data"],
    &["toolUseResult", "file", "base64"],
];

/// The line with secrets masked; `None` if it has none.
pub fn masked(line: &str, rules: &Redactor, counts: &mut Counts) -> Option<String> {
    let masked = rules.scrub_json(line, counts)?;
    let mut out = String::with_capacity(masked.len());
    restore(line, &masked, &[], &mut out);
    Some(out)
}

/// Writes `masked`, which is `original` with other strings, with the ids and media of the original. `at` is the path of both.
fn restore(original: &str, masked: &str, at: &[&str], out: &mut String) {
    let is_above = |path: &&At| path.len() >= at.len() && path.iter().zip(at).all(|(one, other)| one == other);
    let deepest = IDS.iter().chain(WORDS).chain(MEDIA).filter(is_above).map(|path| path.len() - at.len()).max();
    if original != masked && deepest.is_some() {
        if deepest == Some(0) && original.starts_with('"') {
            return restore_string(original, masked, at, out);
        }
        if let (Ok(Members(of_original)), Ok(Members(of_masked))) =
            (serde_json::from_str(original), serde_json::from_str(masked))
            && of_original.len() == of_masked.len()
        {
            return put(out, ['{', '}'], of_original.iter().zip(&of_masked), |out, ((key, one), (shown, other))| {
                out.push_str(&serde_json::Value::from(shown.as_str()).to_string());
                out.push(':');
                restore(one.get(), other.get(), &[at, &[key.as_str()]].concat(), out);
            });
        }
        if let (Ok(of_original), Ok(of_masked)) =
            (serde_json::from_str::<Vec<&RawValue>>(original), serde_json::from_str::<Vec<&RawValue>>(masked))
            && of_original.len() == of_masked.len()
        {
            return put(out, ['[', ']'], of_original.iter().zip(of_masked), |out, (one, other)| {
                restore(one.get(), other.get(), &[at, &["*"]].concat(), out);
            });
        }
    }
    out.push_str(masked);
}

fn put<T>(out: &mut String, around: [char; 2], items: impl Iterator<Item = T>, mut each: impl FnMut(&mut String, T)) {
    out.push(around[0]);
    for (n, item) in items.enumerate() {
        if n > 0 {
            out.push(',');
        }
        each(out, item);
    }
    out.push(around[1]);
}

/// Writes an id, a word, or an image in which a rule found something.
fn restore_string(original: &str, masked: &str, at: &[&str], out: &mut String) {
    if IDS.contains(&at) {
        let hash = hex(&Sha256::digest(original)[..8]);
        out.push_str(&format!("\"masked-{hash}\""));
        return;
    }
    let inside = original.trim_matches('"');
    let is_kept = if WORDS.contains(&at) {
        // No key of any service looks like one.
        inside.len() <= MAX_WORD && inside.bytes().all(|b| b.is_ascii_lowercase() || b"<>_-.".contains(&b))
    } else {
        // A rule for text found something in an image.
        inside.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b))
    };
    out.push_str(if is_kept { original } else { masked });
}

/// The members of an object, in order.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AsMembers;
        impl<'de> Visitor<'de> for AsMembers {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(AsMembers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ghp_0123456789abcdefghijABCDEFGHIJ012345";

    fn mask(line: &str) -> String {
        masked(line, Redactor::built_in(), &mut Counts::new()).unwrap_or_else(|| line.to_owned())
    }

    #[test]
    fn a_line_without_secrets_stays_as_it_is() {
        for line in [r#"{"type":"user", "uuid":"u1","n":1.50,"message":{"content":"hello"}}"#, "no JSON", "{", ""] {
            assert_eq!(mask(line), line);
        }
    }

    #[test]
    fn text_is_masked_and_ids_still_distinguish() {
        let line = |id: &str, text: &str| {
            format!(
                r#"{{"uuid":"{id}","n":1.50,"message":{{"id":"{id}","content":[{{"type":"tool_use","id":"{id}","input":{{"id":"{text}"}}}}]}}}}"#
            )
        };
        let shown = mask(&line("u1", KEY));
        assert_eq!(shown, line("u1", "[REDACTED:github]"), "ids and numbers as they are");
        let (one, again) = (mask(&line(KEY, "x")), mask(&line(KEY, "y")));
        let other = mask(&line(&KEY.replace("0123", "9876"), "x"));
        let id =
            |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["uuid"].as_str().unwrap().to_owned();
        assert!(!one.contains(KEY) && id(&one).starts_with("masked-"), "{one}");
        assert_eq!(id(&one), id(&again));
        assert_ne!(id(&one), id(&other));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&one).unwrap()["message"]["id"], id(&one));
    }

    #[test]
    fn a_rule_of_the_users_does_not_change_what_a_line_is() {
        let rules = Redactor::with_extra(&[("own".to_owned(), "the|user".to_owned())]).unwrap();
        let line = |text: &str| {
            format!(r#"{{"type":"user","message":{{"role":"user","model":"<synthetic>","content":"{text}"}}}}"#)
        };
        let shown = masked(&line("the user"), &rules, &mut Counts::new()).unwrap();
        assert_eq!(shown, line("[REDACTED:own] [REDACTED:own]"));
        assert!(!mask(&format!(r#"{{"type":"{KEY}"}}"#)).contains(KEY));
    }

    #[test]
    fn an_image_is_no_text() {
        let image = format!("AKIAIOSFODNN7EXAMPLE{}", "iVBORw0KGgo+/0123456789".repeat(4));
        let line = |data: &str| {
            format!(
                r#"{{"message":{{"content":[{{"type":"image","source":{{"type":"base64","data":"{data}"}}}},{{"type":"text","text":"{KEY}"}}]}}}}"#
            )
        };
        assert!(mask(&line(&image)).contains(&image));
        let fake = format!("not base64: {KEY}");
        assert!(!mask(&line(&fake)).contains(KEY));
    }

    #[test]
    fn an_odd_line_is_masked_as_text() {
        for line in
            [format!("{{\"uuid\": {KEY}"), format!("token {KEY} x"), format!("[\"{KEY}\"]"), format!("\"{KEY}\"")]
        {
            let shown = mask(&line);
            assert!(!shown.contains(KEY) && shown.contains("[REDACTED:"), "{line}: {shown}");
        }
    }
}
