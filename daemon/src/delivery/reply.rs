//! Whether a 2xx comes from a receiver: captive portals, sign-in pages and applications that answer every path send
//! 2xx too. Pure.
//!
//! Receivers answer in many ways: nothing, an OTLP message, JSON of their own, one word. So an answer counts unless
//! something speaks against it: a type that no receiver sends, markup, prose, JSON that reports an error.

use std::io::Read;

use prost::Message;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;

/// How many bytes of a body are judged, after decompression.
const JUDGED: usize = 64 << 10;

/// Longest title of a page that is quoted, in characters.
const TITLE: usize = 80;

/// Which server was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// An API: OTLP, or a server's own.
    Api,
    /// A file store. These answer with nothing, some of it labelled `text/html`, or with XML.
    Storage,
}

/// The parts of a response that show where it comes from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Said<'a> {
    /// Status code, 2xx.
    pub status: u16,
    /// `Content-Type`.
    pub kind: Option<&'a str>,
    /// `Content-Encoding`.
    pub encoding: Option<&'a str>,
    /// `grpc-status`.
    pub grpc_status: Option<&'a str>,
    /// The body, or the part that arrived.
    pub body: &'a [u8],
}

/// What a 2xx means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Accepted; but the receiver did not keep this many spans, for this reason (OTLP partial success).
    Taken(Option<(u64, String)>),
    /// Not from a receiver: a page with this title, or something else.
    Foreign(String),
    /// An error in spite of the status.
    Error,
}

/// Reads a 2xx.
pub fn read(asked: Asked, said: &Said) -> Reply {
    let kind = said.kind.unwrap_or_default().split([';', ',']).next().unwrap_or_default().trim().to_ascii_lowercase();
    if said.grpc_status.is_some_and(|status| status.trim().parse() != Ok(0u32)) {
        return Reply::Error;
    }
    let (body, is_readable) = decompress(said);
    if body.is_empty() && (matches!(said.status, 204 | 205) || asked == Asked::Storage) {
        return Reply::Taken(None);
    }
    if let Some(partial) = otlp(&body) {
        return Reply::Taken(partial);
    }
    let text = text(&body);
    if asked == Asked::Storage {
        let lower = text.to_ascii_lowercase();
        return match is_markup(&lower) {
            true if lower.contains("<error") => Reply::Error,
            true if is_page(&lower) => Reply::Foreign(page(&text)),
            false if json(&text).is_some_and(|json| is_error(&json, 0)) => Reply::Error,
            _ => Reply::Taken(None),
        };
    }
    if is_of_another_kind(&kind) {
        return Reply::Foreign(if kind.contains("html") { page(&text) } else { format!("a body of type {kind}") });
    }
    let is_of_the_right_kind = kind.contains("json") || kind.contains("proto");
    if !is_readable && !is_of_the_right_kind {
        return Reply::Foreign("a compressed body that was not asked for".into());
    }
    // Some servers put this before JSON as a protection against hijacking.
    let text = text.strip_prefix(")]}'").map_or(text.as_str(), |rest| rest.trim_start_matches([',', '\n', ' ']));
    let lower = text.to_ascii_lowercase();
    if is_markup(&lower) {
        return Reply::Foreign(page(text));
    }
    match json(text) {
        Some(json) if is_error(&json, 0) => Reply::Error,
        Some(Value::String(text)) if is_markup(&text.to_ascii_lowercase()) => Reply::Foreign(page(&text)),
        Some(json) => Reply::Taken(rejected(&json)),
        None if is_page(&lower) => Reply::Foreign(page(text)),
        None if is_status_message(&body) => Reply::Error,
        // A binary body proves nothing.
        None if text.contains('\u{fffd}') => Reply::Taken(None),
        None => match tone(&lower) {
            Tone::No => Reply::Foreign(format!("the text \"{}\"", start(text))),
            Tone::Unclear if lower.split_whitespace().nth(1).is_some() && !is_of_the_right_kind => {
                Reply::Foreign(format!("the text \"{}\"", start(text)))
            }
            Tone::Yes | Tone::Unclear => Reply::Taken(None),
        },
    }
}

/// The start of the decoded body, and whether its encoding is known.
fn decompress(said: &Said) -> (Vec<u8>, bool) {
    let encoding = said.encoding.unwrap_or_default().trim().to_ascii_lowercase();
    let mut plain = Vec::new();
    let limit = JUDGED as u64;
    // A stream that breaks off is readable up to that point.
    if encoding.contains("gzip") || said.body.starts_with(&[0x1f, 0x8b]) {
        let _ = flate2::read::MultiGzDecoder::new(said.body).take(limit).read_to_end(&mut plain);
    } else if encoding == "deflate" {
        let _ = flate2::read::ZlibDecoder::new(said.body).take(limit).read_to_end(&mut plain);
        if plain.is_empty() {
            let _ = flate2::read::DeflateDecoder::new(said.body).take(limit).read_to_end(&mut plain);
        }
    } else {
        plain.extend(&said.body[..said.body.len().min(JUDGED)]);
    }
    let is_readable = matches!(&*encoding, "" | "identity" | "gzip" | "x-gzip" | "deflate") || plain.is_empty();
    (plain, is_readable)
}

/// The text in a form in which markup and JSON can be found: for UTF-16 and UTF-32, the ASCII characters.
fn text(body: &[u8]) -> String {
    let marks: [&[u8]; 3] = [b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff"];
    let body = marks.iter().find_map(|mark| body.strip_prefix(*mark)).unwrap_or(body);
    let text = match body.iter().take(64).any(|byte| *byte == 0) {
        true => {
            String::from_utf8_lossy(&body.iter().copied().filter(|byte| *byte != 0).collect::<Vec<_>>()).into_owned()
        }
        false => String::from_utf8_lossy(body).into_owned(),
    };
    text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}' || c.is_control()).to_owned()
}

/// Types that only servers of another kind send.
fn is_of_another_kind(kind: &str) -> bool {
    kind.contains("html")
        || kind.ends_with("xml")
        || kind.contains("javascript")
        || kind == "text/css"
        || ["image/", "audio/", "video/", "font/", "multipart/"].iter().any(|group| kind.starts_with(group))
        || kind == "application/pdf"
}

/// True if it begins like no receiver's answer.
fn is_markup(lower: &str) -> bool {
    lower.starts_with('<')
}

fn is_page(lower: &str) -> bool {
    ["<!doctype", "<html", "<head", "<body", "<script", "<meta", "<form", "<title"]
        .iter()
        .any(|tag| lower.contains(tag))
}

/// The title of a page, for people.
fn page(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let title = lower.find("<title").and_then(|at| {
        let from = at + lower[at..].find('>')? + 1;
        let to = from + lower[from..].find("</")?;
        Some(text[from..to].split_whitespace().collect::<Vec<_>>().join(" "))
    });
    match title.filter(|title| !title.is_empty()) {
        Some(title) => format!("the page \"{}\"", start(&title)),
        None => "a web page".into(),
    }
}

fn start(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(TITLE).collect()
}

/// An answer that is an OTLP message in protobuf and nothing else: the partial success in it, if any.
fn otlp(body: &[u8]) -> Option<Option<(u64, String)>> {
    if body.is_empty() {
        return None;
    }
    let answer = ExportTraceServiceResponse::decode(body).ok()?;
    // Decoding drops unknown fields, so a shorter re-encoding shows that it was another message, or text that looks like one.
    let is_all = answer.encoded_len() == body.len();
    let partial = answer.partial_success.filter(|_| is_all)?;
    let count = u64::try_from(partial.rejected_spans).unwrap_or(0);
    Some((count > 0).then_some((count, partial.error_message)))
}

/// `google.rpc.Status`, which is how OTLP reports errors in protobuf.
fn is_status_message(body: &[u8]) -> bool {
    #[derive(Clone, PartialEq, Message)]
    struct Status {
        #[prost(int32, tag = "1")]
        code: i32,
        #[prost(string, tag = "2")]
        message: String,
    }
    Status::decode(body).is_ok_and(|status| (1..=16).contains(&status.code))
}

/// The JSON in `text`; of an object that breaks off, the fields before that.
fn json(text: &str) -> Option<Value> {
    struct Beginning<'m>(&'m mut Map<String, Value>);
    impl<'de> Visitor<'de> for Beginning<'_> {
        type Value = ();
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            while let Some(key) = map.next_key::<String>()? {
                // Only the presence of a truncated value is known.
                self.0.insert(key.clone(), Value::String("…".into()));
                let value = map.next_value()?;
                self.0.insert(key, value);
            }
            Ok(())
        }
    }
    if let Ok(value) = serde_json::from_str(text) {
        return Some(value);
    }
    // The first of several, one on each line.
    if let Some(Ok(value @ (Value::Object(_) | Value::Array(_)))) =
        serde_json::Deserializer::from_str(text).into_iter().next()
    {
        return Some(value);
    }
    let mut map = Map::new();
    let _ = serde_json::Deserializer::from_str(text).deserialize_map(Beginning(&mut map));
    text.starts_with('{').then_some(Value::Object(map))
}

/// True if `json` reports an error, at the top or one level below.
fn is_error(json: &Value, depth: u8) -> bool {
    match json {
        Value::Object(map) => {
            let is_success = map.iter().any(|(key, value)| {
                matches!(&*name(key), "success" | "ok" | "succeeded") && *value == Value::Bool(true)
            });
            map.iter().any(|(key, value)| says_error(&name(key), value, is_success))
                || depth < 1
                    && map.iter().any(|(key, value)| {
                        value.is_object() && name(key) != "partialsuccess" && is_error(value, depth + 1)
                    })
        }
        Value::Array(items) => depth < 1 && items.iter().take(8).any(|item| is_error(item, depth + 1)),
        Value::String(text) => depth == 0 && tone(&text.to_lowercase()) == Tone::No,
        Value::Bool(yes) => depth == 0 && !yes,
        Value::Number(number) => depth == 0 && number.as_f64().is_some_and(|n| (400.0..600.0).contains(&n)),
        Value::Null => false,
    }
}

/// A field's name, normalised across APIs.
fn name(key: &str) -> String {
    key.chars().filter(|c| c.is_ascii_alphanumeric()).collect::<String>().to_ascii_lowercase()
}

/// True if a field reports an error. Ambiguous fields do not if another one reports success.
fn says_error(name: &str, value: &Value, is_success: bool) -> bool {
    match name {
        "success" | "ok" | "succeeded" | "authenticated" | "authorized" | "loggedin" | "valid" => is_false(value),
        "captive" | "loginrequired" | "authrequired" | "requireslogin" => *value == Value::Bool(true),
        "status" | "result" | "type" | "outcome" | "state" | "level" | "severity" => match value {
            Value::String(text) => tone(&text.to_lowercase()) == Tone::No || is_bad_number(text.trim().parse().ok()),
            Value::Number(number) => is_bad_number(number.as_f64()),
            Value::Bool(yes) => !yes && name != "type",
            _ => false,
        },
        "errcode" | "errno" | "errorcode" if value.is_number() => {
            !is_success && !value.as_f64().is_some_and(|code| code == 0.0 || (200.0..300.0).contains(&code))
        }
        "statuscode" | "httpstatus" | "httpcode" | "httpstatuscode" | "code" | "errcode" | "errno" | "errorcode" => {
            !is_success && is_bad_code(value)
        }
        "message" | "msg" | "detail" | "details" | "title" | "reason" | "description" | "errmsg" | "errormessage" => {
            let text = value.as_str().unwrap_or_default().to_lowercase();
            !is_success
                && (tone(&text) == Tone::No
                    || name.starts_with("err") && tone(&text) == Tone::Unclear && !text.is_empty())
        }
        "fault" | "faultstring" | "faultcode" | "exception" | "err" => is_something(value),
        "loginurl" | "signinurl" | "userportalurl" | "redirect" | "redirecturl" | "redirectto" => is_something(value),
        _ if name.starts_with("error") => !is_success && is_something(value) && !says_yes(value),
        _ => false,
    }
}

fn is_false(value: &Value) -> bool {
    match value {
        Value::Bool(yes) => !yes,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => matches!(&*text.to_lowercase(), "false" | "no" | "0"),
        _ => false,
    }
}

/// False for values that languages treat as empty.
fn is_something(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Bool(true) => true,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !matches!(&*text.trim().to_lowercase(), "" | "0" | "false" | "null" | "none" | "no"),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

fn says_yes(value: &Value) -> bool {
    value.as_str().is_some_and(|text| tone(&text.to_lowercase()) == Tone::Yes)
}

/// True if a code, as number or word, does not mean success.
fn is_bad_code(value: &Value) -> bool {
    match value {
        Value::Number(number) => is_bad_number(number.as_f64()),
        Value::String(text) => match text.trim().parse() {
            Ok(number) => is_bad_number(Some(number)),
            Err(_) => !text.is_empty() && !says_yes(value),
        },
        _ => false,
    }
}

/// True if a code of gRPC, HTTP or derived from these (40101) does not mean success.
fn is_bad_number(number: Option<f64>) -> bool {
    let Some(mut number) = number.map(f64::abs) else { return false };
    if !number.is_finite() {
        return true;
    }
    while number >= 1000.0 {
        number /= 10.0;
    }
    number >= 1.0 && !(100.0..300.0).contains(&number)
}

/// Rejected spans of an OTLP answer in JSON; a number or a string.
fn rejected(json: &Value) -> Option<(u64, String)> {
    let field = |value: &Value, camel: &str, snake: &str| value.get(camel).or_else(|| value.get(snake)).cloned();
    let partial = field(json, "partialSuccess", "partial_success")?;
    let count = match field(&partial, "rejectedSpans", "rejected_spans")? {
        Value::Number(number) => number.as_u64().or_else(|| number.as_f64().map(|number| number as u64)),
        Value::String(text) => text.parse().ok().or_else(|| text.parse::<f64>().ok().map(|number| number as u64)),
        _ => None,
    };
    let why = field(&partial, "errorMessage", "error_message");
    let why = why.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
    count.filter(|count| *count > 0).map(|count| (count, why))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tone {
    Yes,
    No,
    Unclear,
}

/// The first words of positive answers.
const YES: &[&str] = &[
    "ok",
    "okay",
    "success",
    "successful",
    "successfully",
    "succeeded",
    "accepted",
    "received",
    "created",
    "queued",
    "stored",
    "ingested",
    "processed",
    "done",
    "ack",
    "true",
    "thanks",
    "published",
    "enqueued",
    "saved",
];

/// Words found in refusals and invitations.
const NO: &[&str] = &[
    "unauth",
    "not auth",
    "authenticat",
    "authoriz",
    "forbidden",
    "denied",
    "deny",
    "not allowed",
    "not found",
    "notfound",
    "invalid",
    "error",
    "fail",
    "fault",
    "exception",
    "expired",
    "missing",
    "log in",
    "login",
    "log on",
    "logon",
    "sign in",
    "signin",
    "sign-in",
    "sign_in",
    "single sign",
    "sso",
    "password",
    "blocked",
    "refused",
    "rejected",
    "rate limit",
    "too many",
    "throttl",
    "quota",
    "unavailable",
    "timeout",
    "timed out",
    "maintenance",
    "redirect",
    "captive",
    "portal",
    "bad request",
    "bad gateway",
    "unsupported",
    "not implemented",
    "unimplemented",
    "exceed",
    "disabled",
    "suspended",
    "credential",
    "permission",
    "please",
    "no such",
    "cannot",
    "can't",
    "aborted",
    "cancelled",
    "unknown",
    "malformed",
    "not permitted",
    "no route",
    "unreachable",
    "required",
    "false",
    "fatal",
    "critical",
];

/// The tone of a text in lower case.
fn tone(lower: &str) -> Tone {
    let lower = lower.trim();
    let mut words = lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    let first = words.find(|word| !word.bytes().all(|byte| byte.is_ascii_digit())).unwrap_or_default();
    if YES.contains(&first) {
        return Tone::Yes;
    }
    if NO.iter().any(|no| lower.contains(no)) || matches!(first, "no" | "not") {
        return Tone::No;
    }
    if words.any(|word| YES.contains(&word)) { Tone::Yes } else { Tone::Unclear }
}

#[cfg(test)]
mod tests;
