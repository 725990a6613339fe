//! Shortens values to the length that a receiver keeps: cuts with a mark, and JSON stays valid JSON.

use serde_json::Value as Json;

use crate::destination::wire::{Status, Value, WireSpan};

/// The smallest limit that leaves room for a mark, in bytes.
pub(super) const SHORTEST: usize = 256;

/// Shortens every text of `span` to `limit` bytes, or to [`SHORTEST`] if that is more.
pub(super) fn fit(span: &mut WireSpan, limit: usize) {
    let limit = limit.max(SHORTEST);
    let events = span.events.iter_mut().flat_map(|event| &mut event.attributes);
    for (_, value) in span.attributes.iter_mut().chain(events) {
        match value {
            Value::Text(text) => shorten(text, limit),
            Value::List(items) => items.iter_mut().for_each(|text| shorten(text, limit)),
            Value::Bool(_) | Value::Int(_) | Value::Double(_) => {}
        }
    }
    shorten(&mut span.name, limit);
    if let Status::Error(message) = &mut span.status {
        shorten(message, limit);
    }
}

fn shorten(text: &mut String, limit: usize) {
    if text.len() <= limit {
        return;
    }
    let json = text.starts_with(['{', '[']).then(|| serde_json::from_str(text).ok()).flatten();
    *text = json.and_then(|json| shorter(&json, limit)).unwrap_or_else(|| cut(text, limit));
}

/// `json` with its longest strings cut so that it fits; `None` if it is too long even without them.
fn shorter(json: &Json, limit: usize) -> Option<String> {
    let fits = |longest: usize| {
        let mut json = json.clone();
        each_text(&mut json, &mut |text| *text = cut(text, longest));
        Some(json.to_string()).filter(|text| text.len() <= limit)
    };
    // Binary search for the longest cut that fits.
    let (mut low, mut high) = (MAX_MARK_BYTES, limit);
    let mut found = fits(low)?;
    while high - low > 1 {
        let middle = low.midpoint(high);
        match fits(middle) {
            Some(text) => (low, found) = (middle, text),
            None => high = middle,
        }
    }
    Some(found)
}

fn each_text(json: &mut Json, each: &mut impl FnMut(&mut String)) {
    match json {
        Json::String(text) => each(text),
        Json::Array(items) => items.iter_mut().for_each(|item| each_text(item, each)),
        Json::Object(members) => members.values_mut().for_each(|item| each_text(item, each)),
        Json::Null | Json::Bool(_) | Json::Number(_) => {}
    }
}

const MAX_MARK_BYTES: usize = 40;

/// `text`, or its beginning and the number of missing bytes, together at most `limit` bytes.
fn cut(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let kept = text.floor_char_boundary(limit.saturating_sub(MAX_MARK_BYTES));
    format!("{}… [cut, {} bytes in all]", &text[..kept], text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fitted(text: &str, limit: usize) -> String {
        let mut span = WireSpan { attributes: vec![("x".into(), Value::Text(text.to_owned()))], ..WireSpan::default() };
        fit(&mut span, limit);
        span.text("x").unwrap().to_owned()
    }

    #[test]
    fn only_texts_over_the_limit_are_cut_and_marked() {
        let whole = r#"{"a": [1,  "x"]}"#;
        assert_eq!(fitted(whole, 256), whole);
        for text in ["x".repeat(257), "ä".repeat(5000), format!("[{}", "y".repeat(9000)), "{}".repeat(4000)] {
            for limit in [256, 300, 4095] {
                let cut = fitted(&text, limit);
                assert!(cut.len() <= limit, "{} of {limit}", cut.len());
                assert!(
                    text.len() <= limit || cut.ends_with(&format!("… [cut, {} bytes in all]", text.len())),
                    "{cut}"
                );
            }
        }
        assert_eq!(fitted(&"x".repeat(300), 1).len(), fitted(&"x".repeat(300), SHORTEST).len());
    }

    #[test]
    fn shortened_json_is_valid_and_as_long_as_allowed() {
        let long = serde_json::json!([{"role": "user", "parts": [{"type": "text", "content": "\n\"q".repeat(9000)}, {"content": "kept"}]}]);
        for limit in [256, 1000, 4095] {
            let cut = fitted(&long.to_string(), limit);
            let read: Json = serde_json::from_str(&cut).unwrap();
            assert_eq!(read[0]["parts"][1]["content"], "kept");
            assert!(read[0]["parts"][0]["content"].as_str().unwrap().contains("[cut, 27000 bytes in all]"));
            assert!(cut.len() <= limit && cut.len() + 8 > limit, "{} of {limit}", cut.len());
        }
        // It has no strings to cut.
        let numbers = format!("[{}0]", "1,".repeat(2000));
        assert!(fitted(&numbers, 1000).len() <= 1000);
    }

    #[test]
    fn a_shortened_value_keeps_its_type() {
        let mut span = WireSpan {
            name: "n".repeat(1000),
            status: Status::Error("e".repeat(1000)),
            attributes: vec![
                ("list".into(), Value::List(vec!["l".repeat(1000), "s".into()])),
                ("n".into(), Value::Int(7)),
            ],
            events: vec![crate::destination::wire::SpanEvent::exception(1, "kind", &"m".repeat(1000))],
            ..WireSpan::default()
        };
        fit(&mut span, 256);
        assert!(span.name.len() <= 256 && span.status.error().unwrap().len() <= 256);
        assert!(matches!(&span.attributes[0].1, Value::List(items) if items[0].len() <= 256 && items[1] == "s"));
        assert_eq!(span.attributes[1].1, Value::Int(7));
        assert!(span.events[0].attributes.iter().all(|(_, value)| value.len() <= 256));
    }
}
