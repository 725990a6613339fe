//! How Langfuse's pages show an observation: their rules, as seen on a real server.
//!
//! * An input is a conversation if it is an array of messages with one at least, or an object with such `messages`. A string is
//!   text; anything else is a table of paths and values.
//! * An output that is a message is part of the conversation if the input is one; else it is a table too.
//! * The page of a session shows what has an input and an output.
//! * Tokens are summed by name: all with `input` in it were the prompt, all with `output` the completion. The total is `total`,
//!   where that is given.

use serde_json::Value;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    pub input: View,
    pub output: View,
    /// It is on the page of its session.
    pub on_session_page: bool,
    /// Prompt, completion and total, if it has tokens.
    pub tokens: Option<[u64; 3]>,
}

/// How an input or output is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum View {
    /// It is missing.
    Nothing,
    Text,
    /// A table of paths and values.
    Table,
    /// Messages: role and kind of each.
    Chat(Vec<String>),
}

impl std::fmt::Display for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing"),
            Self::Text => f.write_str("text"),
            Self::Table => f.write_str("table"),
            Self::Chat(messages) => write!(f, "chat [{}]", messages.join(", ")),
        }
    }
}

/// How an observation with these attributes is shown.
pub fn shown<'a>(attribute: impl Fn(&str) -> Option<&'a str>) -> Shown {
    let get = |key: &str| attribute(&format!("langfuse.observation.{key}")).filter(|text| !text.is_empty());
    let (input, output) = (get("input"), get("output"));
    let on_session_page = input.is_some() && output.is_some();
    let input = input.map_or(View::Nothing, |text| view(text, false));
    let output = output.map_or(View::Nothing, |text| view(text, matches!(input, View::Chat(_))));
    Shown { input, output, on_session_page, tokens: get("usage_details").and_then(tokens) }
}

fn view(text: &str, is_answer: bool) -> View {
    let Ok(value) = serde_json::from_str::<Value>(text) else { return View::Text };
    let messages = match &value {
        Value::String(_) | Value::Number(_) => return View::Text,
        Value::Array(items) => Some(items.clone()),
        Value::Object(fields) if fields.contains_key("messages") => fields["messages"].as_array().cloned(),
        Value::Object(_) if is_answer => Some(vec![value]),
        _ => None,
    };
    let messages = messages.filter(|messages| !messages.is_empty());
    messages.and_then(|messages| messages.iter().map(message).collect()).map_or(View::Table, View::Chat)
}

/// Role and kind of a message; `None` if it is no message.
fn message(message: &Value) -> Option<String> {
    let role = message["role"].as_str()?;
    let content = match &message["content"] {
        Value::String(_) => String::new(),
        Value::Array(parts) => format!(": {}", parts.iter().map(part).collect::<Option<Vec<_>>>()?.join("+")),
        _ => return None,
    };
    let name = message["name"].as_str().map_or_else(String::new, |name| format!(" {name}"));
    let count = |key: &str| message[key].as_array().map_or(0, Vec::len);
    let more = [("tool_calls", "calls"), ("thinking", "thoughts")];
    let more = more.map(|(key, what)| (count(key), what)).into_iter().filter(|(count, _)| *count > 0);
    let more: String = more.map(|(count, what)| format!(" {what}:{count}")).collect();
    Some(format!("{role}{name}{content}{more}"))
}

fn part(part: &Value) -> Option<&'static str> {
    let text = part["text"].as_str().map(|_| "text");
    text.or_else(|| {
        let url = part["image_url"]["url"].as_str()?;
        Some(if url.starts_with("@@@langfuseMedia:") && url.ends_with("@@@") { "media" } else { "link" })
    })
}

fn tokens(details: &str) -> Option<[u64; 3]> {
    let details: serde_json::Map<String, Value> = serde_json::from_str(details).ok()?;
    let sum = |part: &str| {
        let of = details.iter().filter(|(key, _)| key.contains(part));
        of.filter_map(|(_, count)| count.as_u64()).sum::<u64>()
    };
    let all = details.values().filter_map(Value::as_u64).sum();
    Some([sum("input"), sum("output"), details.get("total").and_then(Value::as_u64).unwrap_or(all)])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// For tests: an observation with these attributes.
    fn of(pairs: &[(&str, Value)]) -> Shown {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let pairs: Vec<(String, String)> =
            pairs.iter().map(|(key, value)| (format!("langfuse.observation.{key}"), text(value))).collect();
        shown(|key| pairs.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str()))
    }

    #[test]
    fn observations_are_shown_by_the_pages_own_rules() {
        let (user, answer) = (json!({"role": "user", "content": "q"}), json!({"role": "assistant", "content": "a"}));
        let chat = |messages: &[&str]| View::Chat(messages.iter().map(|&message| message.to_owned()).collect());
        for (input, output) in
            [(user.clone(), View::Table), (json!([]), View::Table), (json!([1]), View::Table), ("q".into(), View::Text)]
        {
            let seen = of(&[("input", input.clone()), ("output", answer.clone())]);
            assert_eq!((&seen.input, &seen.output), (&output, &View::Table), "{input}");
            assert!(seen.on_session_page);
        }
        for input in [json!([user]), json!({"messages": [user]})] {
            let seen = of(&[("input", input), ("output", answer.clone())]);
            assert_eq!((seen.input, seen.output), (chat(&["user"]), chat(&["assistant"])));
        }
        let alone = of(&[("output", answer)]);
        assert_eq!((alone.input, alone.output, alone.on_session_page), (View::Nothing, View::Table, false));
        let media =
            json!({"type": "image_url", "image_url": {"url": "@@@langfuseMedia:type=image/png|id=x|source=bytes@@@"}});
        let tool = json!({"role": "tool", "tool_call_id": "t", "name": "Read", "content": [{"type": "text", "text": "x"}, media]});
        assert_eq!(of(&[("input", json!([tool]))]).input, chat(&["tool Read: text+media"]));
        let usage = json!({"input": 1, "output": 2, "cache_read_input_tokens": 30, "input_cache_creation_5m": 4});
        assert_eq!(of(&[("usage_details", usage.clone())]).tokens, Some([35, 2, 37]));
        let mut with_total = usage;
        with_total["total"] = json!(3);
        assert_eq!(of(&[("usage_details", with_total)]).tokens, Some([35, 2, 3]));
    }
}
