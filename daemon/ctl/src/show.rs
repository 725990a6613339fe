//! `show`: a session's turns from its transcript alone.

use std::{
    collections::{HashMap, hash_map::Entry},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use serde_json::json;

use crate::{
    client,
    session::{self, Found},
    ui::tree,
};
use cc_core::{
    destination::{
        langfuse::encode::encode,
        wire::{Value, WireSpan},
    },
    ids::hex,
    project::{Options, Semantics},
    route::Env,
    transcript::record,
};
use cc_langfuse::{credentials::layers, environment, git, output, reader::Transcript, rebuild};

pub(crate) fn show(session: Option<&str>, json: bool) -> anyhow::Result<ExitCode> {
    let Found { id, transcript: path } = session::offline(session)?;
    let mut turns = 0;
    let (mut spans, mut known) = (Vec::new(), HashMap::new());
    let mut options = options();
    // People want to know how long a call took, whatever is sent.
    options.semantics = if json { semantics(&path).unwrap_or(options.semantics) } else { Semantics::Measured };
    rebuild::turns(&path, &id, &options, &client::config()?.rules, |turn| {
        turns += 1;
        if json {
            for out in turn {
                let span = as_json(out.observation.body.kind(), encode(&out.observation, &out.facts));
                // A root that comes again replaces the earlier one, as at a server.
                match known.entry((out.observation.trace_id, out.observation.span_id)) {
                    Entry::Occupied(at) => spans[*at.get()] = span,
                    Entry::Vacant(new) => {
                        new.insert(spans.len());
                        spans.push(span);
                    }
                }
            }
        } else {
            tree::print(&turn.iter().map(|out| &out.observation).collect::<Vec<_>>());
        }
    })
    .with_context(|| format!("{} cannot be read", path.display()))?;
    if json {
        output::json(&spans, true)?;
    } else if turns == 0 {
        out!("{} has no answered turn", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// The options from this process's environment: what the project's hooks would get.
pub(crate) fn options() -> Options {
    let vars = environment::all();
    let mut options = Env::new(vars.iter().map(|(name, value)| (name.as_str(), value.as_str()))).options();
    if options.user_id.as_deref() == Some(git::EMAIL) {
        options.user_id = git::email(&std::env::current_dir().into_iter().collect::<Vec<_>>());
    }
    options
}

/// The semantics that the settings of the session's project choose, if they choose any.
fn semantics(transcript: &Path) -> Option<Semantics> {
    let cwd = record::cwd(Transcript::open(transcript).ok()?.head().ok()?).map(PathBuf::from)?;
    let vars = layers::resolve(Some(&cwd), &client::user_dir(&client::home().ok()?));
    vars.contains_key("CC_LANGFUSE_SEMANTICS").then(|| Env::of(&vars).options().semantics)
}

fn as_json(kind: &str, span: WireSpan) -> serde_json::Value {
    let (ids, parent) = ((hex(&span.trace_id), hex(&span.span_id)), (!span.is_root()).then(|| hex(&span.parent_id)));
    let value = |value: Value| match value {
        Value::Text(text) => text.into(),
        Value::List(items) => items.into(),
        Value::Bool(value) => value.into(),
        Value::Int(number) => number.into(),
        Value::Double(number) => number.into(),
    };
    let attributes = span.attributes.into_iter().map(|(key, found)| (key.into_owned(), value(found)));
    let attributes: serde_json::Map<String, serde_json::Value> = attributes.collect();
    json!({
        "trace_id": ids.0,
        "span_id": ids.1,
        "parent_id": parent,
        "type": kind,
        "name": span.name,
        "start_ns": span.start_ns,
        "end_ns": span.end_ns,
        "attributes": attributes,
    })
}
