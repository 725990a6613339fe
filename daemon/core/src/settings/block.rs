//! The `env` block of a settings file, read as Claude Code reads it. Comes in: bytes. Goes out: variables.
//!
//! Claude Code 2.1.329 reads UTF-8 and UTF-16LE, with or without a byte order mark, and passes every value through JavaScript's
//! `String()`: `["x"]` is `x`. Reading anything differently here would be a way to hide a variable.

use std::collections::BTreeMap;

use serde_json::Value;

pub type Vars = BTreeMap<String, String>;

/// The file cannot be read reliably here, but Claude Code may be able to read it: it may set anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unclear;

/// The variables that a settings file with these bytes sets.
///
/// # Errors
/// [`Unclear`] if the text is not JSON and may still contain one of this program's variables.
pub fn env_block(bytes: &[u8]) -> Result<Vars, Unclear> {
    let text = decode(bytes)?;
    if text.trim().is_empty() {
        return Ok(Vars::new());
    }
    let mut settings: Value = match serde_json::from_str(&text) {
        Ok(settings) => settings,
        Err(_) if ["LANGFUSE", "\\u", "CLAUDE_CONFIG_DIR"].iter().any(|part| text.contains(part)) => {
            return Err(Unclear);
        }
        // However it is read, it contains none of this program's variables.
        Err(_) => return Ok(Vars::new()),
    };
    let Some(Value::Object(env)) = settings.get_mut("env").map(Value::take) else { return Ok(Vars::new()) };
    Ok(env.into_iter().map(|(name, value)| (name, js_string(value))).collect())
}

fn decode(bytes: &[u8]) -> Result<String, Unclear> {
    match bytes {
        [0xff, 0xfe, rest @ ..] => utf16(rest),
        // The recorded versions of Claude Code do not read it; others may.
        [0xfe, 0xff, ..] => Err(Unclear),
        _ => {
            let text = String::from_utf8_lossy(bytes);
            let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
            // UTF-16 or UTF-32 without a byte order mark.
            if text.contains('\0') { Err(Unclear) } else { Ok(text.to_owned()) }
        }
    }
}

fn utf16(bytes: &[u8]) -> Result<String, Unclear> {
    let units = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    let text: String = char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
    if text.contains('\0') { Err(Unclear) } else { Ok(text) }
}

/// JavaScript's `String(value)`.
fn js_string(value: Value) -> String {
    match value {
        Value::String(text) => text,
        Value::Null => "null".to_owned(),
        Value::Bool(_) => value.to_string(),
        Value::Number(number) => match number.as_f64() {
            Some(float) if float.fract() == 0.0 && float.abs() < 1e15 => format!("{float:.0}"),
            _ => number.to_string(),
        },
        Value::Array(items) => {
            let text = |item| if item == Value::Null { String::new() } else { js_string(item) };
            items.into_iter().map(text).collect::<Vec<_>>().join(",")
        }
        Value::Object(_) => "[object Object]".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(bytes: &[u8]) -> Result<Option<String>, Unclear> {
        env_block(bytes).map(|vars| vars.get("LANGFUSE_HOST").cloned())
    }

    #[test]
    fn values_are_converted_like_in_javascript() {
        for (json, expect) in [
            (r#""x""#, "x"),
            (r#"["x"]"#, "x"),
            (r#"[[["x"]]]"#, "x"),
            (r#"["a",null,["b",1]]"#, "a,,b,1"),
            ("[]", ""),
            ("true", "true"),
            ("null", "null"),
            ("1.0", "1"),
            ("-7", "-7"),
            ("0.5", "0.5"),
            (r#"{"0":"x"}"#, "[object Object]"),
            (r#""\u0078""#, "x"),
        ] {
            let text = format!(r#"{{"env":{{"LANGFUSE_HOST":{json}}}}}"#);
            assert_eq!(value(text.as_bytes()), Ok(Some(expect.to_owned())), "{json}");
        }
    }

    #[test]
    fn every_encoding_is_read_or_reported_as_unclear() {
        let text = r#"{"env":{"LANGFUSE_HOST":"x"}}"#;
        let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
        let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        let found = Ok(Some("x".to_owned()));
        assert_eq!(value(text.as_bytes()), found);
        assert_eq!(value(format!("\u{feff}{text}").as_bytes()), found);
        assert_eq!(value(&[&[0xff, 0xfe][..], &utf16(text)].concat()), found);
        for unclear in
            [utf16(text), [&[0xfe, 0xff][..], &big].concat(), big, [&[0xff, 0xfe, 0, 0][..], &utf16("x")].concat()]
        {
            assert_eq!(value(&unclear), Err(Unclear), "{unclear:?}");
        }
        assert_eq!(value(b"{\"env\":{\"LANGFUSE_HOST\":\"\xff\"}}"), Ok(Some("\u{fffd}".to_owned())));
    }

    #[test]
    fn invalid_json_is_unclear_if_it_may_name_a_variable() {
        let env = r#""env":{"LANGFUSE_HOST":"x"}"#;
        for text in [
            format!("{{{env}}} // comment"),
            format!("{{{env},}}"),
            format!(r#"{{"x":"\ud800",{env}}}"#),
            r#"{"env":{"LANGF\u0055SE_HOST":"x"},}"#.to_owned(),
            r#"{'env':{"CLAUDE_CONFIG_DIR":'x'}}"#.to_owned(),
        ] {
            assert_eq!(value(text.as_bytes()), Err(Unclear), "{text}");
        }
        for text in ["", " \n", "{", "// nothing", "[]", "3", r#"{"env":[1]}"#, r#"{"env":null}"#, r#"{"hooks":{}}"#] {
            assert_eq!(env_block(text.as_bytes()), Ok(Vars::new()), "{text}");
        }
        // The last of two equal keys counts, as in JavaScript.
        assert_eq!(value(format!(r#"{{"env":{{"LANGFUSE_HOST":"y"}},{env}}}"#).as_bytes()), Ok(Some("x".to_owned())));
    }
}
