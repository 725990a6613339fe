//! Where a destination's secret key comes from, and the type that keeps it from going anywhere else (invariant 6).
//!
//! A key is known from the hook that brought it. After a restart, or when the server refuses it, the `env` blocks of the
//! project's and the user's Claude Code settings are read again. A key is only used with the base URL and public key it was
//! found with.
//!
//! [`layers`] knows which files there are and who can write each; [`cc_core::consent`] decides who chose a destination.

use std::path::{Path, PathBuf};

use cc_core::{
    consent::{self, Chooser, chooser},
    destination::Destination,
    route::Env,
    secret::Secrets,
    settings::block::Vars,
};
use proto::env::Role;

use crate::files;

pub mod layers;
pub mod owner;
pub mod tracked;
pub use tracked::is_tracked;

/// Largest settings file that is read or written, in bytes.
pub const MAX_SETTINGS: u64 = 1 << 20;

/// The directory of the user's Claude Code settings. `config_dir` is the value of `CLAUDE_CONFIG_DIR`.
pub fn user_dir(config_dir: Option<&Path>, home: &Path) -> PathBuf {
    config_dir.map_or_else(|| home.join(".claude"), Path::to_owned)
}

/// Looks for the secret of `destination` in the settings files of the projects that use it and in the user's: in `home`, and in
/// the `config_dirs` of sessions that have one. Unless the user `trusts` the destination, both the key and its address must be
/// in files that no repository can write.
pub fn from_settings(
    destination: &Destination,
    project_dirs: &[PathBuf],
    config_dirs: &[PathBuf],
    home: &Path,
    trusts: bool,
) -> Option<Secrets> {
    let dirs = || project_dirs.iter().map(|dir| Some(dir.as_path())).chain([None]);
    let users = config_dirs.iter().map(|dir| Some(dir.as_path())).chain([None]);
    users.flat_map(|user| dirs().map(move |dir| (dir, user))).find_map(|(dir, config_dir)| {
        let vars = layers::for_hook(dir, &user_dir(config_dir, home));
        let own = own_tls(vars.clone(), &Vec::from_iter(dir.map(Path::to_owned)), config_dir, home);
        let env = Env::of(&own);
        // The key must have been meant for this server.
        let (to, secrets) = destination.kind.backend().route(&env).ok()??;
        let secrets = Some(secrets).filter(|secrets| to == *destination && !secrets.is_empty())?;
        let around = || layers::around(&Vec::from_iter(dir.map(Path::to_owned)), config_dir, home);
        (trusts || chooser(to.kind, &vars, &around()) == Chooser::User).then_some(secrets)
    })
}

/// `vars` of a session in `dirs` without the TLS settings that others chose.
pub fn own_tls(vars: Vars, dirs: &[PathBuf], config_dir: Option<&Path>, home: &Path) -> Vars {
    let says = |row: &&proto::env::Variable| row.role == Role::Tls && vars.contains_key(row.name);
    // These settings are rare, and without them no file needs to be read.
    match proto::env::VARIABLES.iter().any(|row| says(&row)) {
        true => consent::own_tls(&vars, &layers::around(dirs, config_dir, home)),
        false => vars,
    }
}

/// The settings files that apply in `dir`, weakest first; unreadable ones are left out.
pub fn settings_texts(dir: &Path, config_dir: Option<&Path>, home: &Path) -> Vec<String> {
    let files = layers::files(Some(dir), &user_dir(config_dir, home));
    files.iter().filter_map(|file| layers::text(file)).collect()
}

/// `secrets` for `to`, with missing ones filled in from the credentials file of the server's own client.
pub fn from_key_file(to: &Destination, secrets: Secrets, home: &Path) -> Secrets {
    let backend = to.kind.backend();
    let Some(file) = backend.key_file(to) else { return secrets };
    let rules = files::Rules { may_be_shared: false, ..files::Rules::users(MAX_SETTINGS) };
    match files::read(&home.join(file), &rules).map(String::from_utf8) {
        Ok(Ok(text)) => backend.fill(secrets, &zeroize::Zeroizing::new(text)),
        Ok(Err(_)) | Err(files::Refused::Missing) => secrets,
        Err(why) => {
            tracing::warn!(file, %why, "credentials are not read");
            secrets
        }
    }
}

#[cfg(test)]
mod tests;
