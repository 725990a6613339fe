//! The state file of the Node tool that traced before: which lines of each session it has sent.
//!
//! ```json
//! { "<session id>": { "last_line": 42, "turn_count": 3, "updated": "2026-11-20T08:00:00Z" } }
//! ```

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::transcript::is_name;

/// Relative to the user's home.
pub const STATE: &str = ".claude/state/cc-langfuse_state.json";

/// How much of a session was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    pub session_id: String,
    /// Lines of the transcript.
    pub last_line: u64,
    /// Turns in these lines.
    pub turn_count: u32,
}

/// Parses the state. It is refused as a whole if any value is invalid.
///
/// # Errors
/// What is wrong, and where.
pub fn parse(text: &[u8]) -> Result<Vec<Imported>, String> {
    let state: Value = serde_json::from_slice(text).map_err(|error| format!("it is not JSON: {error}"))?;
    let Value::Object(sessions) = state else { return Err("it is not a JSON object of sessions".to_owned()) };
    let mut found = Vec::with_capacity(sessions.len());
    for (session_id, entry) in sessions {
        if !is_name(&session_id) || session_id.len() > 128 {
            return Err(format!("{session_id:?} is not a session id"));
        }
        let number = |field: &str| {
            let value = entry.get(field).ok_or_else(|| format!("session {session_id} has no `{field}`"))?;
            let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
            number.ok_or_else(|| {
                format!("`{field}` of session {session_id} is {value}, which is not a number of lines or turns")
            })
        };
        let (last_line, turn_count) = (number("last_line")?.into(), number("turn_count")?);
        found.push(Imported { session_id, last_line, turn_count });
    }
    found.sort_by(|a, b| a.session_id.cmp(&b.session_id));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_valid_state_is_parsed() {
        let text = br#"{"b":{"last_line":12,"turn_count":3,"updated":"2026-11-20T08:00:00Z"},"a-1":{"last_line":0,"turn_count":0}}"#;
        let expect = [("a-1", 0, 0), ("b", 12, 3)].map(|(id, last_line, turn_count)| Imported {
            session_id: id.into(),
            last_line,
            turn_count,
        });
        assert_eq!(parse(text), Ok(expect.into()));
        assert_eq!(parse(b"{}"), Ok(vec![]));
    }

    #[test]
    fn one_invalid_value_refuses_the_whole_state_and_is_named() {
        let entry = |fields: &str| format!(r#"{{"good":{{"last_line":1,"turn_count":1}},"s":{fields}}}"#);
        for (text, part) in [
            ("", "not JSON"),
            ("{", "not JSON"),
            ("[]", "not a JSON object of sessions"),
            (&entry("5"), "session s has no `last_line`"),
            (&entry(r#"{"last_line":1}"#), "session s has no `turn_count`"),
            (&entry(r#"{"last_line":-1,"turn_count":1}"#), "`last_line` of session s is -1"),
            (&entry(r#"{"last_line":1.5,"turn_count":1}"#), "is 1.5"),
            (&entry(r#"{"last_line":"7","turn_count":1}"#), "is \"7\""),
            (&entry(r#"{"last_line":1,"turn_count":4294967296}"#), "`turn_count` of session s is 4294967296"),
            (r#"{"../x":{"last_line":1,"turn_count":1}}"#, "\"../x\" is not a session id"),
        ] {
            let error = parse(text.as_bytes()).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
