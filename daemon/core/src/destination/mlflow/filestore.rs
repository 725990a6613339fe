//! MLflow's file store: the spans of a trace → its files. Comes in: the stored spans and new ones. Goes out: paths and contents
//! of files, in the order in which they must be written. Opens no files.
//!
//! The layout is that of MLflow 3.12 to 3.17 (`FileStore`). MLflow computes nothing when it reads them, so sums are written
//! too. It skips a trace without `trace_info.yaml`; an empty one breaks the list of the whole experiment.

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use crate::destination::wire::{SpanEvent, Status, Value, WireSpan};
use crate::{
    ids::{SpanId, TraceId, hex},
    visible::is_hidden,
};

/// The spans of a trace, relative to its directory.
pub const SPANS: &str = "artifacts/traces.json";

/// The file that makes a directory a trace.
pub const INFO: &str = "trace_info.yaml";

/// The file that makes a directory an experiment.
pub const EXPERIMENT: &str = "meta.yaml";

/// Maximum length of a preview in characters, as in MLflow.
const PREVIEW: usize = 1_000;

/// Maximum length of a tag's value in characters.
const TAG: usize = 4_096;

/// Maximum length of a key that becomes a file name, in bytes.
const KEY: usize = 200;

/// Prefix of root attributes that become tags.
const TAG_PREFIX: &str = "mlflow.traceTag.";

/// Attributes whose text already is JSON.
const JSON: &[&str] = &["mlflow.spanInputs", "mlflow.spanOutputs", USAGE, COST];

const USAGE: &str = "mlflow.chat.tokenUsage";
const COST: &str = "mlflow.llm.cost";

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// The id is the name of its directory.
    Id(String),
    /// Created if it is missing.
    Name(String),
}

/// A file of a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Relative to the trace's directory, with `/` and without `..`.
    pub path: String,
    pub content: String,
}

/// The location of a trace.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// A `file://` URL without trailing slash.
    pub experiment_url: &'a str,
    pub experiment: &'a str,
}

/// The name of a trace's directory below `traces`.
pub fn name(trace: TraceId) -> String {
    format!("tr-{}", hex(&trace))
}

/// The `meta.yaml` of a new experiment. `now_ms` is Unix milliseconds.
pub fn experiment(place: &Place<'_>, title: &str, now_ms: u64) -> String {
    format!(
        "artifact_location: {}\ncreation_time: {now_ms}\nexperiment_id: {}\nlast_update_time: {now_ms}\nlifecycle_stage: active\nname: {}\n",
        yaml(place.experiment_url),
        yaml(place.experiment),
        yaml(title),
    )
}

/// The id of a new experiment: 18 digits like MLflow's, derived from the name, so that two processes that create it at the same
/// time create the same one.
pub fn new_id(name: &str) -> String {
    let hash = u64::from_be_bytes(crate::ids::truncated(&[b"experiment\0", name.as_bytes()]));
    (100_000_000_000_000_000 + hash % 900_000_000_000_000_000).to_string()
}

/// The contents of an experiment's `meta.yaml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Experiment {
    pub name: String,
    /// False if it was deleted.
    pub is_active: bool,
}

impl Experiment {
    /// Parses `meta.yaml`: only plain and quoted scalars, which is all MLflow writes.
    pub fn read(meta: &str) -> Option<Self> {
        let value = |key: &str| {
            let line = meta.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?.trim();
            match line.as_bytes() {
                [b'"', ..] => serde_json::from_str(line).ok(),
                [b'\'', inner @ .., b'\''] => Some(std::str::from_utf8(inner).ok()?.replace("''", "'")),
                _ => Some(line.to_owned()),
            }
        };
        Some(Self { name: value("name")?, is_active: value("lifecycle_stage").is_none_or(|stage| stage == "active") })
    }
}

/// A span as `traces.json` holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Stored {
    trace_id: String,
    span_id: String,
    parent_span_id: Option<String>,
    name: String,
    start_time_unix_nano: u64,
    end_time_unix_nano: u64,
    #[serde(default)]
    events: Vec<Json>,
    status: StoredStatus,
    #[serde(default)]
    attributes: Map<String, Json>,
    /// Fields that another program has added.
    #[serde(flatten)]
    others: Map<String, Json>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct StoredStatus {
    code: String,
    #[serde(default)]
    message: String,
}

#[derive(Default, Serialize, Deserialize)]
struct Spans {
    spans: Vec<Stored>,
}

/// The files of a trace after adding `new` spans to `stored`, the present content of [`SPANS`]. A new span replaces a stored
/// one with the same id. Write the files in this order: [`INFO`], which makes the directory a trace, comes last.
///
/// # Errors
/// What is wrong with `stored`.
pub fn merged(stored: Option<&str>, new: &[WireSpan], place: &Place<'_>) -> Result<Vec<File>, serde_json::Error> {
    let mut spans = stored.map(serde_json::from_str::<Spans>).transpose()?.unwrap_or_default().spans;
    let Some(trace) = new.first().map(|span| span.trace_id) else { return Ok(Vec::new()) };
    for span in new.iter().filter(|span| span.trace_id == trace) {
        let span = Stored::of(span);
        match spans.iter_mut().find(|there| there.span_id == span.span_id) {
            Some(there) => *there = span,
            None => spans.push(span),
        }
    }
    spans.sort_by(|a, b| {
        let key = |span: &Stored| (span.parent_span_id.is_some(), span.start_time_unix_nano);
        key(a).cmp(&key(b)).then_with(|| a.span_id.cmp(&b.span_id))
    });
    let name = name(trace);
    let mut files = Vec::new();
    for (key, value) in metadata(&spans) {
        files.push(File { path: format!("request_metadata/{key}"), content: value });
    }
    let artifacts = format!("{}/traces/{name}/artifacts", place.experiment_url);
    for (key, value) in tags(&spans, artifacts) {
        files.push(File { path: format!("tags/{key}"), content: value });
    }
    let info = info(&name, &spans, place);
    files.push(File { path: SPANS.to_owned(), content: serde_json::to_string(&Spans { spans })? });
    files.push(File { path: INFO.to_owned(), content: info });
    Ok(files)
}

impl Stored {
    fn of(span: &WireSpan) -> Self {
        let mut attributes: Map<String, Json> =
            span.attributes.iter().map(|(key, value)| (key.clone().into_owned(), as_stored(key, value))).collect();
        attributes.insert("mlflow.traceRequestId".to_owned(), quoted(&name(span.trace_id)).into());
        let (code, message) = match &span.status {
            Status::Unset => ("STATUS_CODE_UNSET", ""),
            Status::Ok => ("STATUS_CODE_OK", ""),
            Status::Error(message) => ("STATUS_CODE_ERROR", message.as_str()),
        };
        Self {
            trace_id: STANDARD.encode(span.trace_id),
            span_id: id(span.span_id),
            parent_span_id: (!span.is_root()).then(|| id(span.parent_id)),
            name: span.name.clone(),
            start_time_unix_nano: span.start_ns,
            end_time_unix_nano: span.end_ns,
            events: span.events.iter().map(event).collect(),
            status: StoredStatus { code: code.to_owned(), message: message.to_owned() },
            attributes,
            others: Map::new(),
        }
    }

    /// An attribute parsed as JSON.
    fn json(&self, key: &str) -> Option<Json> {
        serde_json::from_str(self.attributes.get(key)?.as_str()?).ok()
    }

    /// An attribute as text.
    fn text(&self, key: &str) -> Option<String> {
        match self.json(key)? {
            Json::String(text) => Some(text),
            _ => None,
        }
    }
}

fn id(id: SpanId) -> String {
    STANDARD.encode(id)
}

/// `text` as a quoted YAML scalar. PyYAML refuses a whole file for one raw control character, and folds line separators.
fn yaml(text: &str) -> String {
    let mut yaml = String::new();
    for c in quoted(text).chars() {
        let number = u32::from(c);
        match number {
            _ if !is_hidden(c) && number & 0xfffe != 0xfffe => yaml.push(c),
            ..=0xffff => yaml += &format!("\\u{number:04x}"),
            _ => yaml += &format!("\\U{number:08x}"),
        }
    }
    yaml
}

/// `text` as a JSON string.
fn quoted(text: &str) -> String {
    Json::from(text).to_string()
}

/// MLflow stores every attribute as a string that holds JSON.
fn as_stored(key: &str, value: &Value) -> Json {
    match value {
        Value::Text(text)
            if JSON.contains(&key) && serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok() =>
        {
            text.as_str().into()
        }
        Value::Text(text) => quoted(text).into(),
        Value::List(items) => Json::from(items.as_slice()).to_string().into(),
        Value::Bool(yes) => yes.to_string().into(),
        Value::Int(number) => number.to_string().into(),
        Value::Double(number) => Json::from(*number).to_string().into(),
    }
}

fn event(event: &SpanEvent) -> Json {
    let plain = |value: &Value| match value {
        Value::Text(text) => Json::from(text.as_str()),
        Value::List(items) => Json::from(items.as_slice()),
        Value::Bool(yes) => Json::from(*yes),
        Value::Int(number) => Json::from(*number),
        Value::Double(number) => Json::from(*number),
    };
    let attributes: Map<String, Json> =
        event.attributes.iter().map(|(key, value)| (key.clone().into_owned(), plain(value))).collect();
    serde_json::json!({"name": event.name, "time_unix_nano": event.at_ns, "attributes": attributes})
}

fn root(spans: &[Stored]) -> Option<&Stored> {
    spans.iter().find(|span| span.parent_span_id.is_none())
}

/// The files in `request_metadata`, one for each key.
fn metadata(spans: &[Stored]) -> Vec<(&'static str, String)> {
    let mut all = vec![("mlflow.trace_schema.version", "3".to_owned())];
    let first = |key: &str| spans.iter().find_map(|span| span.text(key));
    all.extend(first("session.id").map(|session| ("mlflow.trace.session", session)));
    all.extend(first("user.id").map(|user| ("mlflow.trace.user", user)));
    all.extend(sum(spans, USAGE).map(|usage| ("mlflow.trace.tokenUsage", usage)));
    all.extend(sum(spans, COST).map(|cost| ("mlflow.trace.cost", cost)));
    if let Some(root) = root(spans) {
        let given = |key: &str| root.attributes.get(key).and_then(Json::as_str).map(|text| cut(text, PREVIEW));
        all.extend(given("mlflow.spanInputs").map(|text| ("mlflow.traceInputs", text)));
        all.extend(given("mlflow.spanOutputs").map(|text| ("mlflow.traceOutputs", text)));
    }
    all
}

/// The sum of the numbers in the objects that the spans hold under `key`; `None` if there are none.
fn sum(spans: &[Stored], key: &str) -> Option<String> {
    let mut sums: BTreeMap<String, f64> = BTreeMap::new();
    for usage in spans.iter().filter_map(|span| span.json(key)) {
        for (bucket, value) in usage.as_object().into_iter().flatten() {
            *sums.entry(bucket.clone()).or_default() += value.as_f64().unwrap_or_default();
        }
    }
    let number = |sum: f64| if sum.fract() == 0.0 { Json::from(sum as u64) } else { Json::from(sum) };
    let sums: Map<String, Json> = sums.into_iter().map(|(bucket, sum)| (bucket, number(sum))).collect();
    (!sums.is_empty()).then(|| Json::from(sums).to_string())
}

/// The files in `tags`, one for each key.
fn tags(spans: &[Stored], artifacts: String) -> Vec<(String, String)> {
    let mut all = vec![("mlflow.artifactLocation".to_owned(), artifacts)];
    let mut taken: BTreeSet<String> = BTreeSet::from(["mlflow.artifactlocation".to_owned()]);
    let attributes = root(spans).into_iter().flat_map(|root| root.attributes.keys().map(move |key| (root, key)));
    for (root, key) in attributes {
        let Some(tag) = key.strip_prefix(TAG_PREFIX).map(file_name) else { continue };
        let Some(value) = root.text(key) else { continue };
        // Case-insensitive file systems have room for only one of them.
        if taken.insert(tag.to_ascii_lowercase()) {
            all.push((tag, cut(&value, TAG)));
        }
    }
    all
}

/// `key` as a file name: characters that MLflow allows, except `/`; never hidden, never a path.
fn file_name(key: &str) -> String {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ' ');
    let name: String = key.chars().map(|c| if is_allowed(c) { c } else { '_' }).take(KEY).collect();
    match name.trim() {
        "" => "_".to_owned(),
        name if name.starts_with('.') => format!("_{name}"),
        name => name.to_owned(),
    }
}

fn info(name: &str, spans: &[Stored], place: &Place<'_>) -> String {
    let start = spans.iter().map(|span| span.start_time_unix_nano).min().unwrap_or_default();
    let end = spans.iter().map(|span| span.end_time_unix_nano).max().unwrap_or_default();
    let at = Timestamp::from_nanosecond(i128::from(start)).unwrap_or_default();
    let root = root(spans);
    let state = match root.map(|root| root.status.code.as_str()) {
        None => "IN_PROGRESS",
        Some("STATUS_CODE_ERROR") => "ERROR",
        Some(_) => "OK",
    };
    let preview = |key: &str, role: &str| {
        root.and_then(|root| said(&root.json(key)?, role)).map(|text| yaml(&cut(&text, PREVIEW)))
    };
    let mut info = format!("execution_duration_ms: {}\n", end.saturating_sub(start) / 1_000_000);
    if let Some(request) = preview("mlflow.spanInputs", "user") {
        info += &format!("request_preview: {request}\n");
    }
    info += &format!("request_time: '{at:.3}'\n");
    if let Some(response) = preview("mlflow.spanOutputs", "assistant") {
        info += &format!("response_preview: {response}\n");
    }
    info + &format!(
        "state: {state}\ntrace_id: {name}\ntrace_location:\n  mlflow_experiment:\n    experiment_id: {}\n  type: MLFLOW_EXPERIMENT\n",
        yaml(place.experiment)
    )
}

/// The last text of `role` among the messages in `value`.
fn said(value: &Json, role: &str) -> Option<String> {
    let messages = value.get("messages")?.as_array()?;
    let message = messages.iter().rev().find(|message| message.get("role").and_then(Json::as_str) == Some(role))?;
    match message.get("content")? {
        Json::String(text) => Some(text.clone()),
        Json::Array(blocks) => {
            let texts: Vec<&str> = blocks.iter().filter_map(|block| block.get("text")?.as_str()).collect();
            (!texts.is_empty()).then(|| texts.join("\n"))
        }
        _ => None,
    }
}

fn cut(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    const PLACE: Place<'_> = Place { experiment_url: "file:///w/.claude/mlflow/runs/0", experiment: "0" };

    fn span(id: u8, parent: u8, attributes: &[(&'static str, &str)]) -> WireSpan {
        let text = |(key, text): &(&'static str, &str)| (Cow::from(*key), Value::Text((*text).to_owned()));
        WireSpan {
            trace_id: [7; 16],
            span_id: [id; 8],
            parent_id: [parent; 8],
            name: format!("span {id}"),
            start_ns: 1_795_204_729_062_000_000 + u64::from(id) * 1_000_000,
            end_ns: 1_795_204_729_179_000_000,
            status: Status::Ok,
            attributes: attributes.iter().map(text).collect(),
            ..WireSpan::default()
        }
    }

    fn turn() -> WireSpan {
        span(
            1,
            0,
            &[
                ("session.id", "s"),
                ("mlflow.spanInputs", r#"{"messages":[{"role":"user","content":"a\u007fb\u2028c"}]}"#),
                ("mlflow.spanOutputs", r#"{"messages":[{"role":"assistant","content":[{"type":"text","text":"R"}]}]}"#),
                ("mlflow.traceTag.mlflow.traceName", "Turn 1"),
                ("mlflow.traceTag.../x", "up"),
                ("mlflow.traceTag..hidden", "h"),
                ("mlflow.traceTag.A", "1"),
                ("mlflow.traceTag.a", "2"),
            ],
        )
    }

    fn call(id: u8, output: u64, cost: f64) -> WireSpan {
        let usage = format!(r#"{{"input_tokens":10,"output_tokens":{output},"total_tokens":{}}}"#, 10 + output);
        let cost = format!(r#"{{"input_cost":0.5,"output_cost":{cost},"total_cost":{}}}"#, 0.5 + cost);
        span(id, 1, &[("mlflow.chat.tokenUsage", &usage), ("mlflow.llm.cost", &cost)])
    }

    fn content<'a>(files: &'a [File], path: &str) -> &'a str {
        files.iter().find(|file| file.path == path).map_or("", |file| &file.content)
    }

    #[test]
    fn the_files_of_a_trace_have_sums_and_tags_and_the_info_comes_last() {
        let files = merged(None, &[turn(), call(2, 5, 0.25), call(3, 7, 0.5)], &PLACE).unwrap();
        let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths[paths.len() - 2..], [SPANS, INFO]);
        assert_eq!(
            content(&files, "request_metadata/mlflow.trace.tokenUsage"),
            r#"{"input_tokens":20,"output_tokens":12,"total_tokens":32}"#
        );
        assert_eq!(
            content(&files, "request_metadata/mlflow.trace.cost"),
            r#"{"input_cost":1,"output_cost":0.75,"total_cost":1.75}"#
        );
        assert_eq!(content(&files, "request_metadata/mlflow.trace.session"), "s");
        assert_eq!(content(&files, "tags/mlflow.traceName"), "Turn 1");
        assert_eq!(
            content(&files, "tags/mlflow.artifactLocation"),
            "file:///w/.claude/mlflow/runs/0/traces/tr-07070707070707070707070707070707/artifacts"
        );
        assert_eq!(
            content(&files, INFO),
            "execution_duration_ms: 116\nrequest_preview: \"a\\u007fb\\u2028c\"\nrequest_time: '2026-11-20T19:58:49.063Z'\n\
             response_preview: \"R\"\nstate: OK\ntrace_id: tr-07070707070707070707070707070707\ntrace_location:\n  \
             mlflow_experiment:\n    experiment_id: \"0\"\n  type: MLFLOW_EXPERIMENT\n"
        );
    }

    #[test]
    fn tag_keys_become_safe_file_names() {
        let files = merged(None, &[turn()], &PLACE).unwrap();
        let mut tags: Vec<&str> = files.iter().filter_map(|file| file.path.strip_prefix("tags/")).collect();
        tags.sort_unstable();
        assert_eq!(tags, ["A", "_.._x", "_.hidden", "mlflow.artifactLocation", "mlflow.traceName"]);
        assert_eq!(file_name(&"x".repeat(999)).len(), KEY);
        assert_eq!(file_name(" "), "_");
    }

    #[test]
    fn late_and_updated_spans_are_merged_and_a_repeat_changes_nothing() {
        let first = merged(None, &[call(3, 7, 0.5)], &PLACE).unwrap();
        assert!(content(&first, INFO).contains("state: IN_PROGRESS"));
        let failed = WireSpan { status: Status::Error("529".into()), ..turn() };
        let second = merged(Some(content(&first, SPANS)), &[failed, call(2, 5, 0.25)], &PLACE).unwrap();
        assert!(content(&second, INFO).contains("state: ERROR"));
        let third = merged(Some(content(&second, SPANS)), &[call(2, 5, 0.25), turn()], &PLACE).unwrap();
        assert_eq!(third, merged(None, &[call(3, 7, 0.5), turn(), call(2, 5, 0.25)], &PLACE).unwrap());
        assert_eq!(third, merged(Some(content(&third, SPANS)), &[turn()], &PLACE).unwrap());
    }

    #[test]
    fn fields_of_other_writers_are_kept() {
        let stored = r#"{"spans":[{"trace_id":"BwcHBwcHBwcHBwcHBwcHBw==","span_id":"CQkJCQkJCQk=","parent_span_id":null,"name":"n",
            "start_time_unix_nano":1,"end_time_unix_nano":2,"events":[],"status":{"code":"STATUS_CODE_OK","message":""},
            "attributes":{"mlflow.spanType":"\"AGENT\""},"links":[{"x":1}]}]}"#;
        let files = merged(Some(stored), &[call(2, 5, 0.25)], &PLACE).unwrap();
        assert!(content(&files, SPANS).contains(r#""links":[{"x":1}]"#));
        assert!(merged(Some("{\"spans\":[{"), &[turn()], &PLACE).is_err());
    }

    #[test]
    fn a_written_experiment_is_read_back() {
        for title in ["Default", "a: b \"c\"", "größe\u{7f}"] {
            let read = Experiment::read(&experiment(&PLACE, title, 5)).unwrap();
            assert_eq!(read, Experiment { name: title.to_owned(), is_active: true });
        }
        let deleted = Experiment::read("artifact_location: x\nlifecycle_stage: deleted\nname: 'it''s'\n").unwrap();
        assert_eq!(deleted, Experiment { name: "it's".to_owned(), is_active: false });
        assert_eq!(Experiment::read(""), None);
    }

    #[test]
    fn a_preview_is_cut_by_characters() {
        let long = "ß".repeat(PREVIEW + 5);
        let inputs = serde_json::json!({"messages": [{"role": "user", "content": long}]}).to_string();
        let files = merged(None, &[span(1, 0, &[("mlflow.spanInputs", &inputs)])], &PLACE).unwrap();
        let request = content(&files, INFO).lines().find_map(|line| line.strip_prefix("request_preview: ")).unwrap();
        assert_eq!(request.chars().filter(|c| *c == 'ß').count(), PREVIEW);
    }
}
