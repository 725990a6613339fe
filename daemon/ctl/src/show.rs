//! `show`: a session's turns from its transcript alone.

use std::{
    collections::{HashMap, hash_map::Entry},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use serde_json::json;

use crate::{client, ui::tree};
use cc_core::{
    destination::{
        langfuse::encode::encode,
        wire::{Value, WireSpan},
    },
    ids::hex,
    project::Options,
    route::Env,
};
use cc_langfuse::{environment, git, offline, output, reader::places};

pub(crate) fn show(session: &str, json: bool) -> anyhow::Result<ExitCode> {
    let (path, id) = find(session)?;
    let mut turns = 0;
    let (mut spans, mut known) = (Vec::new(), HashMap::new());
    offline::turns(&path, &id, &options(), &client::config()?.rules, |turn| {
        turns += 1;
        if json {
            for out in turn {
                let span = as_json(out.observation.body.kind(), encode(&out.observation, &out.facts));
                // A root that comes again takes the place of the one before, as at a server.
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
        out!("no answered turn in {}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// How spans are made, from this process's environment: what the project's hooks would be given.
pub(crate) fn options() -> Options {
    let vars = environment::all();
    let mut options = Env::new(vars.iter().map(|(name, value)| (name.as_str(), value.as_str()))).options();
    if options.user_id.as_deref() == Some(git::EMAIL) {
        options.user_id = git::email(&std::env::current_dir().into_iter().collect::<Vec<_>>());
    }
    options
}

/// Where transcripts may lie.
pub(crate) fn roots() -> anyhow::Result<Vec<PathBuf>> {
    let custom = client::config_dir().map(|dir| dir.join("projects"));
    Ok(custom.into_iter().chain(client::config()?.roots(&client::home()?)).collect())
}

/// `path`, however it was named, as it lies below one of `roots`; of a directory around them those in it.
///
/// # Errors
/// If the daemon reads nothing there.
pub(crate) fn reached(path: &Path, roots: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let real = path.canonicalize().with_context(|| path.display().to_string())?;
    let roots = || roots.iter().filter_map(|root| Some((root, root.canonicalize().ok()?)));
    if let Some((root, below)) = roots().find_map(|(root, at)| Some((root, real.strip_prefix(at).ok()?))) {
        return Ok(vec![root.components().chain(below.components()).collect()]);
    }
    let linked = || {
        let projects = roots().flat_map(|(root, _)| places::projects(root)).filter(|(dir, _)| dir.is_symlink());
        projects.filter_map(|(dir, why)| Some((dir.canonicalize().ok()?, dir, why)))
    };
    if let Some((to, dir, why)) = linked().find(|(to, ..)| real.starts_with(to)) {
        if let Some(error) = why {
            bail!("{}: {error}; {}", dir.display(), error.remedy());
        }
        return Ok(vec![dir.components().chain(real.strip_prefix(to)?.components()).collect()]);
    }
    let within = roots().filter(|(_, at)| at.starts_with(&real)).map(|(root, _)| root.clone());
    let within = within.chain(linked().filter(|(to, ..)| to.starts_with(&real)).map(|(_, dir, _)| dir));
    let within: Vec<PathBuf> = within.collect();
    if within.is_empty() {
        let dir = if real.is_dir() { &*real } else { real.parent().unwrap_or(&real) };
        bail!(
            "the daemon reads no transcripts in {}: name that directory in {} (transcript_roots = [\"…\"]) and restart it",
            dir.display(),
            client::paths()?.config.display()
        );
    }
    Ok(within)
}

/// The transcript of a session id or path, and the session's id.
pub(crate) fn find(session: &str) -> anyhow::Result<(PathBuf, String)> {
    let path = Path::new(session);
    if path.extension().is_some_and(|ext| ext == "jsonl") || session.contains('/') {
        let path = std::path::absolute(path)?;
        let id = path.file_stem().context("not a transcript")?.to_string_lossy().into_owned();
        return Ok((path, id));
    }
    let roots = roots()?;
    let projects = roots.iter().filter_map(|root| std::fs::read_dir(root).ok()).flatten().filter_map(Result::ok);
    let found = projects.map(|dir| dir.path().join(format!("{session}.jsonl"))).find(|path| path.is_file());
    match found {
        Some(path) => Ok((path, session.to_owned())),
        None => bail!("no session {session} under ~/.claude/projects; give the path of its transcript instead"),
    }
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
