//! Our plugin as Claude Code keeps it: can it load it?

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::client;
use cc_core::doctor::settings::{PLUGIN, Settings};
use cc_langfuse::{
    credentials::MAX_SETTINGS,
    files::{self, Rules},
};

/// Why Claude Code cannot load our plugin although it is on, and what to do; `None` if it can, or is off.
pub(super) fn why_dead(settings: &Settings, home: &Path) -> Option<(String, String)> {
    let (name, _) = settings.plugin()?;
    let dir = client::user_dir(home).join("plugins");
    let marketplace = name.split_once('@').map_or(PLUGIN, |(_, marketplace)| marketplace);
    let known = json(&dir.join("known_marketplaces.json"))?;
    let again = |what: &str| {
        format!(
            "{what}: claude plugin marketplace add DIR, where DIR is the directory plugin in your clone of cc-langfuse"
        )
    };
    let Some(known) = known.get(marketplace) else {
        let why = format!("Claude Code knows no marketplace {marketplace}");
        return Some((why, again(&format!("add it, then claude plugin install {name}"))));
    };
    let place = known["installLocation"].as_str().map(PathBuf::from).unwrap_or_default();
    if !place.join(".claude-plugin/marketplace.json").is_file() {
        let why = format!("its marketplace is no longer at {} (cache-miss)", place.display());
        return Some((
            why,
            again(&format!("claude plugin marketplace remove {marketplace}, then add it where it is now")),
        ));
    }
    let installed = json(&dir.join("installed_plugins.json")).unwrap_or_default();
    let copies = installed["plugins"][name].as_array().into_iter().flatten();
    let mut copies = copies.filter_map(|copy| copy["installPath"].as_str());
    // That of a directory is read in place.
    let is_there = |dir: &Path| dir.join("hooks/hooks.json").is_file();
    let is_loaded = copies.any(|copy| is_there(Path::new(copy)) || is_there(&place.join(PLUGIN)));
    (!is_loaded).then(|| ("it is not installed".to_owned(), format!("claude plugin install {name}")))
}

/// A file of Claude Code's as JSON; `Null` if it is missing, `None` if it cannot be read or is none.
fn json(path: &Path) -> Option<Value> {
    if fs::symlink_metadata(path).is_err() {
        return Some(Value::Null);
    }
    serde_json::from_slice(&files::read(path, &Rules::users(MAX_SETTINGS)).ok()?).ok()
}
