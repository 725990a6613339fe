//! `config`: the effective settings and their sources.

use std::{collections::BTreeMap, path::Path, process::ExitCode};

use serde_json::json;

use crate::{
    client,
    ui::{amount::dollars, table},
};
use cc_core::{
    config::{
        Layers, Location, Sourced,
        destination::Named,
        project::{self, Setting},
    },
    price::Own,
    project::Capture,
};
use cc_langfuse::{
    config_file::{self as file, Source},
    configured::secret,
    credentials::layers,
    environment,
    output::{self, Look},
};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  cc-langfusectl config
  cd ~/project && cc-langfusectl config --json | jq .project")]
pub(crate) struct Config {
    /// One JSON object
    #[arg(long)]
    json: bool,
}

impl Config {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let (paths, home, dir) = (client::paths()?, client::home()?, std::env::current_dir()?);
        let layers = file::layers(&[Source::Fleet(Path::new(file::FLEET_FILE)), Source::User(&paths.config)])?;
        let settings = project::settings(&given(&dir, &home));
        if self.json {
            output::json(&as_json(&layers, &dir, &home, &settings), true)?;
            return Ok(ExitCode::SUCCESS);
        }
        heading("The daemon, when it starts");
        table::lines(&daemon(&layers, &home)).iter().for_each(|line| out!("{line}"));
        out!();
        heading(&format!("A session started in {}", table::path(&dir, &home)));
        let rows: Vec<_> = settings.iter().map(|setting| row(setting, &home)).collect();
        table::lines(&rows).iter().for_each(|line| out!("{line}"));
        Ok(ExitCode::SUCCESS)
    }
}

fn heading(text: &str) {
    let _ = output::painted(Look::Bold, format_args!("{text}"));
}

/// The variables of a hook in `dir`, by source; Claude Code puts its settings over its environment.
fn given(dir: &Path, home: &Path) -> Vec<(String, BTreeMap<String, String>)> {
    let moved = environment::text(proto::env::STATE_DIR).map(|value| (proto::env::STATE_DIR.to_owned(), value));
    let own = ("environment".to_owned(), environment::forwarded().into_iter().chain(moved).collect());
    let files = layers::files(Some(dir), &client::user_dir(home));
    let of_files =
        files.iter().map(|file| (file.to_string_lossy().into_owned(), layers::read(file).unwrap_or_default()));
    std::iter::once(own).chain(of_files).collect()
}

/// What starts the daemon.
fn start(layers: &Layers) -> &'static str {
    if layers.start_by_hook.value { "hook" } else { "service" }
}

fn daemon(layers: &Layers, home: &Path) -> Vec<Vec<String>> {
    let at = |location: &Option<Location>| match location {
        Some(Location { file, line }) => format!("{}:{line}", table::path(file, home)),
        None => "default".to_owned(),
    };
    let roots: Vec<String> = layers.transcript_roots.value.iter().map(|root| table::path(root, home)).collect();
    let roots = if roots.is_empty() { "none".to_owned() } else { roots.join(", ") };
    let capture = match layers.capture_at_most.value {
        Capture::Full => "full",
        Capture::Metadata => "metadata",
    };
    let mut rows = vec![
        vec!["transcript_roots".to_owned(), roots, at(&layers.transcript_roots.location)],
        vec!["outbox_mib".to_owned(), layers.outbox_mib.value.to_string(), at(&layers.outbox_mib.location)],
        vec!["from_now".to_owned(), layers.from_now.value.to_string(), at(&layers.from_now.location)],
        vec!["start".to_owned(), start(layers).to_owned(), at(&layers.start_by_hook.location)],
        vec!["capture_at_most".to_owned(), capture.to_owned(), at(&layers.capture_at_most.location)],
        vec!["always_redact".to_owned(), layers.always_redact.value.to_string(), at(&layers.always_redact.location)],
        vec!["archive".to_owned(), layers.archive.value.to_string(), at(&layers.archive.location)],
    ];
    // Alone it does nothing.
    if layers.archive.value || layers.archive_mib.location.is_some() {
        let Sourced { value, location } = &layers.archive_mib;
        rows.push(vec!["archive_mib".to_owned(), value.to_string(), at(location)]);
    }
    rows.extend(layers.redact.iter().map(|rule| {
        let text = format!("{}: {}", rule.value.name, rule.value.pattern);
        vec!["redact".to_owned(), table::clip(&text, 60), at(&rule.location)]
    }));
    rows.extend(layers.prices.iter().map(|price| {
        let Own { model, speed, rates } = &price.value;
        let speed = speed.as_ref().map_or_else(String::new, |speed| format!(" ({speed})"));
        let text = format!("{model}{speed}: {} in, {} out", rates.input, rates.output);
        vec!["price".to_owned(), table::clip(&text, 60), at(&price.location)]
    }));
    rows.extend(layers.budget.as_ref().map(|Sourced { value, location }| {
        let text = match value {
            Ok(day) => format!("{} a day", dollars(*day)),
            Err(why) => format!("none: {why}"),
        };
        vec!["budget".to_owned(), text, at(location)]
    }));
    rows.extend(layers.destinations.iter().map(|named| {
        let text = match problem(named, home) {
            Some(why) => format!("nothing is sent to {}: {why}", named.name),
            None => format!("{}: {} at {}", named.name, named.kind, named.address),
        };
        vec!["destination".to_owned(), table::clip(&text, 300), at(&named.location)]
    }));
    rows.extend(layers.telemetry.as_ref().map(|Sourced { value, location }| {
        let forward = value.forward.as_ref().map_or_else(String::new, |to| format!(", passed on to {}", to.address));
        vec!["telemetry".to_owned(), table::clip(&format!("port {}{forward}", value.port), 60), at(location)]
    }));
    if layers.redact.is_empty() {
        rows.push(["redact", "only the built-in rules", "default"].map(str::to_owned).to_vec());
    }
    rows
}

/// Why a destination gets nothing, as far as it can be seen without the daemon.
fn problem(named: &Named, home: &Path) -> Option<String> {
    match &named.entry {
        Err(why) => Some(why.clone()),
        Ok(entry) => secret::find(entry, home).err(),
    }
}

fn row(setting: &Setting, home: &Path) -> Vec<String> {
    let value = setting.value.as_deref().unwrap_or("not set");
    let from = match &setting.from {
        Some(from) => table::path(Path::new(from), home),
        None if setting.value.is_some() => "default".to_owned(),
        None => String::new(),
    };
    vec![setting.name.clone(), table::clip(value, 60), from]
}

fn as_json(layers: &Layers, dir: &Path, home: &Path, settings: &[Setting]) -> serde_json::Value {
    let price = |Sourced { value: Own { model, speed, rates }, location }: &Sourced<Own>| {
        json!({
            "model": model, "speed": speed, "input": rates.input, "output": rates.output, "cache_read": rates.cache_read,
            "cache_write_5m": rates.cache_write_5m, "cache_write_1h": rates.cache_write_1h, "place": location,
        })
    };
    let destination = |named: &Named| {
        json!({
            "name": named.name, "kind": named.kind, "address": named.address, "place": named.location,
            "account": named.entry.as_ref().ok().map(|entry| &entry.destination.account),
            "problem": problem(named, home),
        })
    };
    json!({
        "daemon": {
            "transcript_roots": layers.transcript_roots,
            "outbox_mib": layers.outbox_mib,
            "from_now": layers.from_now,
            "start": {"value": start(layers), "place": layers.start_by_hook.location},
            "capture_at_most": layers.capture_at_most,
            "always_redact": layers.always_redact,
            "archive": layers.archive,
            "archive_mib": layers.archive_mib,
            "redact": layers.redact,
            "price": layers.prices.iter().map(price).collect::<Vec<_>>(),
            "budget": layers.budget.as_ref().map(|budget| json!({
                "day": budget.value.as_ref().ok(), "problem": budget.value.as_ref().err(), "place": budget.location,
            })),
            "telemetry": layers.telemetry.as_ref().map(|telemetry| json!({
                "port": telemetry.value.port, "place": telemetry.location,
                "forward_to": telemetry.value.forward.as_ref().map(|to| &to.address),
            })),
            "destination": layers.destinations.iter().map(destination).collect::<Vec<_>>(),
        },
        "project": {"dir": dir, "settings": settings},
    })
}
