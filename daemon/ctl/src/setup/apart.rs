//! Keys outside Claude Code's settings, for people whose settings are in a repository: a table of `config.toml`, and the secret in a
//! file of its own or from a command.

use std::path::{Path, PathBuf};

use anyhow::Context;
use zeroize::Zeroizing;

use crate::{
    client,
    ui::{table, terminal},
};
use cc_core::{
    config::destination::{Entry, SecretFrom},
    destination::langfuse::SECRET_KEY,
    settings::words,
};
use cc_langfuse::configured::secret;
use proto::paths::Paths;

use super::{
    choice::Keys,
    files::{self, Part, Record},
    keys::Before,
};

/// How each line ends that is written here, so that it differs from lines of people.
pub(super) const MARK: &str = "  # by cc-langfusectl setup";

/// The destination's name in `config.toml`.
const NAME: &str = "langfuse";

/// `--keys-in`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum KeysIn {
    /// `env` of Claude Code's settings
    Settings,
    /// config.toml of cc-langfuse, and the secret beside it in a file that only you can read
    Config,
}

/// Where keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In the `env` block of Claude Code's settings.
    Settings,
    /// In `config.toml`, and the secret in a file beside it.
    File,
    /// In `config.toml`, with a command that writes the secret.
    Command(Vec<String>),
}

impl Place {
    /// Asks where, because `settings` is tracked by git.
    ///
    /// # Errors
    /// At the end of the input.
    pub(super) fn ask(settings: &Path, paths: &Paths) -> anyhow::Result<Self> {
        let home = client::home()?;
        out!("git tracks {}, so the keys do not belong there:", table::path(settings, &home));
        out!("1  into {}, which only you can read", table::path(&secret_file(paths), &home));
        out!("2  a command writes the secret key when it is needed, such as `pass show langfuse`");
        loop {
            match terminal::ask("Where are the keys to be?", Some("1"))?.as_str() {
                "1" => return Ok(Self::File),
                "2" => {
                    let words = words(&terminal::ask("Command", None)?);
                    if !words.is_empty() {
                        return Ok(Self::Command(words));
                    }
                }
                _ => {}
            }
        }
    }

    /// Where an earlier setup put them, if that was not into settings.
    pub(super) fn of_record(record: &Record, paths: &Paths) -> Option<Self> {
        let written = record.files.iter().any(|written| {
            matches!(&written.part, Part::Lines(lines) if lines.iter().any(|line| line.ends_with(MARK)))
                && written.path.file_name() == paths.config.file_name()
        });
        match entry().filter(|_| written)?.secret? {
            SecretFrom::File(_) => Some(Self::File),
            SecretFrom::Command(words) => Some(Self::Command(words)),
        }
    }

    pub(super) fn is_settings(&self) -> bool {
        *self == Self::Settings
    }

    /// What is set up there already.
    pub(super) fn before(&self, paths: &Paths) -> Before {
        let Some(entry) = entry().filter(|_| !self.is_settings()) else { return Before::default() };
        let text = files::read(&secret_file(paths)).ok().flatten().map(Zeroizing::new);
        let secret = text.filter(|_| *self == Self::File).and_then(|text| key_in(&text));
        Before {
            server: Some(entry.destination.address),
            public: Some(entry.destination.account),
            secret,
            is_of_any_server: false,
        }
    }

    /// What the command writes; `None` where there is none.
    ///
    /// # Errors
    /// Why it writes no key.
    pub(super) fn secret(&self, home: &Path) -> anyhow::Result<Option<Zeroizing<String>>> {
        let Self::Command(words) = self else { return Ok(None) };
        let bytes = secret::written_by(words, home).map_err(anyhow::Error::msg)?;
        let text = std::str::from_utf8(&bytes).context("the secret command gives something that is no text")?;
        key_in(text).map(Some).context("the secret command writes no key: it must be in the first line")
    }

    /// The lines of the table for `keys`, of one `project` or all.
    pub(super) fn table(&self, keys: &Keys, project: Option<&Path>, paths: &Paths) -> Vec<String> {
        let (key, value) = match self {
            Self::Settings => return Vec::new(),
            Self::File => ("secret_file", quoted(&secret_file(paths).to_string_lossy())),
            Self::Command(words) => (
                "secret_command",
                format!("[{}]", words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(", ")),
            ),
        };
        let mut lines = vec![
            "[[destination]]".to_owned(),
            format!("name = {}", quoted(NAME)),
            "kind = \"langfuse\"".to_owned(),
            format!("address = {}", quoted(&keys.destination.address)),
            format!("LANGFUSE_PUBLIC_KEY = {}", quoted(&keys.destination.account)),
            format!("{key} = {value}"),
        ];
        lines.extend(project.map(|dir| format!("projects = [{}]", quoted(&format!("{}/**", dir.display())))));
        lines.iter_mut().for_each(|line| line.push_str(MARK));
        lines
    }
}

/// Where the secret is, if it is in a file.
pub(super) fn secret_file(paths: &Paths) -> PathBuf {
    paths.config.with_file_name("langfuse.secret")
}

/// What stands in that file.
pub(super) fn secret_text(keys: &Keys) -> String {
    format!("{SECRET_KEY}={}\n", keys.secret.as_str())
}

/// The key in `text`: in a line with its name, else the first line.
fn key_in(text: &str) -> Option<Zeroizing<String>> {
    let named = text.lines().find_map(|line| line.trim().strip_prefix(SECRET_KEY)?.strip_prefix('='));
    let key = named.or_else(|| text.lines().next())?.trim();
    (!key.is_empty()).then(|| Zeroizing::new(key.to_owned()))
}

/// The destination of our name in `config.toml`.
fn entry() -> Option<Entry> {
    let config = client::config().ok()?;
    config.destinations.into_iter().find(|named| named.name == NAME)?.entry.ok()
}

/// A string of TOML, whose escapes those of JSON are too.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
