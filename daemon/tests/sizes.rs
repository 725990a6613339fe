//! `CC_LANGFUSE_CAPTURE=metadata`: no word of any recorded session is sent.

#![allow(clippy::disallowed_methods, reason = "it reads recordings")]

use std::collections::BTreeSet;

use serde_json::Value as Json;

use cc_core::{
    destination::{
        langfuse::encode::encode,
        wire::{Value, WireSpan},
    },
    pipeline::Outgoing,
    project::{Capture, Options, Semantics},
    redact::Rules,
};
use cc_langfuse::{reader, rebuild};

fn sizes_only() -> Options {
    Options { capture: Capture::Metadata, ..Options::default() }
}

/// Words of six letters or more.
fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphabetic()).filter(|word| word.chars().count() >= 6).map(str::to_lowercase)
}

fn strings<'j>(json: &'j Json, each: &mut impl FnMut(&'j str)) {
    match json {
        Json::String(text) => each(text),
        Json::Array(items) => items.iter().for_each(|item| strings(item, each)),
        Json::Object(members) => members.iter().for_each(|(key, value)| {
            each(key);
            strings(value, each);
        }),
        _ => {}
    }
}

/// Everything in a span except the names of its attributes.
fn sent(span: &WireSpan) -> String {
    let mut texts = vec![span.name.as_str(), span.status.error().unwrap_or_default()];
    for (_, value) in &span.attributes {
        match value {
            Value::Text(text) => texts.push(text),
            Value::List(items) => texts.extend(items.iter().map(String::as_str)),
            Value::Bool(_) | Value::Int(_) | Value::Double(_) => {}
        }
    }
    texts.join("\n")
}

#[test]
fn in_metadata_mode_no_word_of_any_recorded_session_is_sent() {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures");
    let below = |dir: std::path::PathBuf| std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let transcripts: Vec<_> = below(fixtures.into())
        .filter(|fixture| fixture.is_dir())
        .flat_map(|fixture| below(fixture.join("projects")))
        .flat_map(below)
        .filter(|path| path.extension().is_some_and(|ext| ext == "jsonl"))
        // An empty session; and up to Claude Code 2.0, subagents' files are beside their sessions and read with them.
        .filter(|path| path.metadata().unwrap().len() > 0 && !path.to_str().unwrap().contains("/agent-"))
        .collect();
    assert!(transcripts.len() >= 40, "{transcripts:?}");
    for path in transcripts {
        let (mut said, mut known) = (BTreeSet::new(), BTreeSet::new());
        // Words of the message format, and of this program's own status messages and events.
        known.extend(words("assistant function thinking arguments content characters interrupted result"));
        known.extend(words(
            "tool_calls output cache_read_input_tokens input_cache_creation queued prompt compaction manual",
        ));
        known.extend(words("claude-code estimated command stop_sequence feedback notification fallback stopped"));
        known.extend(words("workflow-subagent general-purpose"));
        let agents = reader::subagents(&reader::subagents_dir(&path)).into_iter().map(|(_, path)| path);
        let texts = agents.chain([path.clone()]).map(|path| std::fs::read_to_string(path).unwrap());
        for line in texts.collect::<String>().lines() {
            let line: Json = serde_json::from_str(line).unwrap();
            let mut names = vec![&line["cwd"], &line["gitBranch"], &line["slug"], &line["message"]["model"]];
            names.extend([
                &line["sessionId"],
                &line["requestId"],
                &line["message"]["id"],
                &line["message"]["stop_reason"],
                &line["toolDenialKind"],
                &line["permissionMode"],
                &line["turnOrigin"],
            ]);
            let blocks = line["message"]["content"].as_array().into_iter().flatten();
            for block in blocks.clone().filter(|block| block["type"] == "tool_use") {
                names.extend([&block["name"], &block["id"], &block["input"]["subagent_type"]]);
            }
            names.into_iter().filter_map(Json::as_str).for_each(|name| known.extend(words(name)));
            // The name of a command.
            let asked = line["message"]["content"].as_str().filter(|text| text.starts_with('/'));
            known.extend(asked.and_then(|text| text.split(' ').next()).into_iter().flat_map(words));
            let mut hear = |json| strings(json, &mut |text| said.extend(words(text)));
            blocks.for_each(|block| {
                ["text", "thinking", "input", "content"].iter().for_each(|field| hear(&block[field]));
            });
            [&line["toolUseResult"], &line["attachment"], &line["content"], &line["error"]].into_iter().for_each(hear);
            said.extend(line["message"]["content"].as_str().into_iter().flat_map(words));
        }
        let new: BTreeSet<String> = said.difference(&known).cloned().collect();
        let leaves = |options: &Options| {
            let mut sent_words = BTreeSet::new();
            let count = |found: Vec<Outgoing>| {
                assert!(!found.is_empty());
                found.iter().for_each(|out| sent_words.extend(words(&sent(&encode(&out.observation, &out.facts)))));
            };
            rebuild::turns(&path, "s", options, &Rules::default(), count).unwrap();
            sent_words.intersection(&new).cloned().collect::<Vec<_>>()
        };
        assert_eq!(leaves(&sizes_only()), [""; 0], "{}", path.display());
        let measured = Options { semantics: Semantics::Measured, ..sizes_only() };
        assert_eq!(leaves(&measured), [""; 0], "{}", path.display());
        assert!(!leaves(&Options::default()).is_empty(), "{}: nothing to leave", path.display());
    }
}
