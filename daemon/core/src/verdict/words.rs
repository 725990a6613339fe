//! The text of a server's answer: the message in its JSON, or the title of its page.

use serde_json::Value;

/// Longest title of a page that is worth quoting, in characters.
const TITLE: usize = 80;

/// Names under which servers put the error, the most specific first.
const NAMES: [&str; 7] = ["message", "error_description", "detail", "details", "error", "errors", "title"];

/// `text` with its JSON or page replaced by the message in it. Text without a message is unchanged.
pub fn words(text: &str) -> String {
    let Some(at) = text.find(['{', '[', '<']) else { return text.to_owned() };
    let (before, body) = text.split_at(at);
    let found = if body.starts_with('<') { page(body) } else { json(body) };
    match found {
        Some((words, after)) => format!("{before}{}{after}", words.trim()),
        None => text.to_owned(),
    }
}

/// The message at the start of `body`, and the text after the JSON. The JSON may be cut off.
fn json(body: &str) -> Option<(String, &str)> {
    let mut values = serde_json::Deserializer::from_str(body).into_iter::<Value>();
    match values.next() {
        Some(Ok(value)) => message(&value).map(|words| (words, &body[values.byte_offset()..])),
        _ => NAMES.iter().find_map(|name| cut_off(body, name)).map(|words| (words, "")),
    }
}

fn message(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()).filter(|text| !text.trim().is_empty()),
        Value::Array(all) => all.first().and_then(message),
        Value::Object(all) => NAMES.iter().find_map(|name| all.get(*name).and_then(message)),
        _ => None,
    }
}

/// The string that follows `name` in JSON that was cut off.
fn cut_off(body: &str, name: &str) -> Option<String> {
    let (_, rest) = body.split_once(&format!("\"{name}\""))?;
    let text = rest.trim_start().strip_prefix(':')?.trim_start();
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    match values.next() {
        Some(Ok(value)) => message(&value),
        _ => text.strip_prefix('"').map(|part| format!("{part}…")),
    }
}

/// The title of a page, and the text that this program added after it.
fn page(body: &str) -> Option<(String, &str)> {
    let lower = body.to_ascii_lowercase();
    let is_page = ["<!doctype html", "<html", "<head"].iter().any(|start| lower.starts_with(start));
    let inner = || {
        let start = lower.find("<title")? + lower[lower.find("<title")?..].find('>')? + 1;
        let end = start + lower[start..].find("</title")?;
        let title = body[start..end].split_whitespace().collect::<Vec<_>>().join(" ");
        Some(title.chars().take(TITLE).collect::<String>()).filter(|title| !title.is_empty())
    };
    // After the page, only the part in brackets is this program's.
    let after = body.rfind('>').map_or("", |end| &body[end + 1..]);
    let after = if after.starts_with(" (") { after } else { "" };
    is_page.then(|| (inner().map_or_else(|| "a web page".to_owned(), |title| format!("a web page, “{title}”")), after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_own_message_is_extracted() {
        for (text, expect) in [
            (r#"HTTP 401: {"message":"Invalid credentials"}"#, "HTTP 401: Invalid credentials"),
            (r#"HTTP 401: {"error":"no such key"} (check the keys)"#, "HTTP 401: no such key (check the keys)"),
            (r#"HTTP 403: {"error":{"code":7,"message":"expired"}}"#, "HTTP 403: expired"),
            (r#"HTTP 422: {"detail":[{"loc":["x"],"message":"too short"}]}"#, "HTTP 422: too short"),
            (r#"HTTP 500: {"errors":["first","second"]}"#, "HTTP 500: first"),
            (r#"HTTP 500: [{"message":"in a list"}]"#, "HTTP 500: in a list"),
            (r#"HTTP 404: {"message":"it goes on and"#, "HTTP 404: it goes on and…"),
            (r#"HTTP 404: {"a":1,"message":"whole","b":"it is cu"#, "HTTP 404: whole"),
            (r#"HTTP 500: {"code":13}"#, r#"HTTP 500: {"code":13}"#),
            (r#"HTTP 500: {"message":""}"#, r#"HTTP 500: {"message":""}"#),
            (
                "HTTP 502: <html><head><TITLE>Bad\n Gateway</TITLE></head>x</html>",
                "HTTP 502: a web page, “Bad Gateway”",
            ),
            ("HTTP 200: <!DOCTYPE html><p>cut", "HTTP 200: a web page"),
            ("HTTP 404: <html></html> (check the base URL)", "HTTP 404: a web page (check the base URL)"),
            ("HTTP 500: x < y", "HTTP 500: x < y"),
            ("HTTP 503", "HTTP 503"),
            ("", ""),
        ] {
            assert_eq!(words(text), expect);
        }
    }
}
