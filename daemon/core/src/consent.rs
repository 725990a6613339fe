//! Who chose a destination (one chosen by others is held until the user trusts it), and how much of a conversation may leave.
//!
//! Claude Code gives the `env` blocks of a project's settings to hooks, and a repository can contain such files. A destination
//! is the user's own only if every variable that determines it comes from a place no repository can write.
//!
//! Comes in: variables and settings layers. Goes out: a judgement. Reads no files.

use std::path::PathBuf;

use proto::env::{Role, rows};
use serde::{Deserialize, Serialize};

use crate::{
    destination::{Destination, Kind},
    project::{Capture, Options},
    settings::{
        block::{Unclear, Vars},
        quoted,
    },
};

/// The roles that determine where spans go.
const ROLES: [Role; 4] = [Role::Enable, Role::Address, Role::Account, Role::Secret];

const CAPTURE: &str = "CC_LANGFUSE_CAPTURE";
const REDACT: &str = "CC_LANGFUSE_REDACT";
const SCORES: &str = "CC_LANGFUSE_SCORES";

/// Who can write a settings file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Only the user or an administrator of the machine.
    User,
    /// Others too: it came with a repository or an archive, or is the project's shared file.
    Repository,
}

/// The variables of one settings file.
#[derive(Clone, Debug)]
pub struct Layer {
    /// The file may be missing.
    pub file: PathBuf,
    pub owner: Owner,
    /// Its variables, or why they cannot be read reliably.
    pub env: Result<Vars, Unclear>,
}

/// Who chose a destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Chooser {
    /// The user: every variable came from the environment or a file nobody else can write.
    User,
    /// The user, in `config.toml` and by no variable.
    Config,
    /// Possibly others.
    Repository(Evidence),
}

/// What shows that others may have chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// A settings file that a repository, an archive or other members of the project can write.
    pub file: PathBuf,
    /// The variable it sets; `None` if the file cannot be read reliably.
    pub variable: Option<String>,
}

impl std::fmt::Display for Evidence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let file = self.file.display();
        match &self.variable {
            Some(variable) => write!(f, "{file}, which others can write, sets {variable}"),
            None => write!(f, "{file}, which others can write, cannot be read, so it may set anything"),
        }
    }
}

/// The privacy that no project can loosen, from `config.toml`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Floor {
    /// The most that may leave.
    pub capture: Capture,
    /// Secrets are masked whatever a project says.
    pub redact: bool,
}

/// Who chose the destination of this `kind` that `received`, a hook's variables, lead to. `layers` are the settings files that
/// may have set them, weakest first.
pub fn chooser(kind: Kind, received: &Vars, layers: &[Layer]) -> Chooser {
    let get = |name: &str| received.get(name).map(|value| value.trim()).unwrap_or_default();
    let by_others = || layers.iter().filter(|layer| layer.owner == Owner::Repository);
    if let Some(layer) = by_others().find(|layer| layer.env.is_err()) {
        return Chooser::Repository(Evidence { file: layer.file.clone(), variable: None });
    }
    let rows: Vec<_> = ROLES.iter().flat_map(|role| rows(kind.backend().of(), *role)).collect();
    for group in rows.chunk_by(|one, other| one.setting == other.setting) {
        // The strongest variable with a value decides.
        let decides = group.iter().position(|row| !get(row.name).is_empty());
        // Spooled events carry no secrets.
        if group[0].role == Role::Secret && decides.is_none() {
            continue;
        }
        for name in group.iter().take(decides.map_or(group.len(), |at| at + 1)).map(|row| row.name) {
            let mut own =
                layers.iter().filter(|layer| layer.owner == Owner::User).filter_map(|layer| value(layer, name));
            if own.any(|value| value == get(name)) {
                continue;
            }
            if let Some(layer) = by_others().find(|layer| value(layer, name).is_some()) {
                return Chooser::Repository(Evidence { file: layer.file.clone(), variable: Some(name.to_owned()) });
            }
        }
    }
    Chooser::User
}

/// `received` without the TLS variables that others set: a repository chooses neither the authorities for a
/// server's certificate nor the client key, whatever the user trusts. Where it tries to, the values in the user's
/// own files count.
pub fn own_tls(received: &Vars, layers: &[Layer]) -> Vars {
    let mut vars = received.clone();
    for name in proto::env::VARIABLES.iter().filter(|row| row.role == Role::Tls).map(|row| row.name) {
        let says = |layer: &&Layer| layer.env.is_err() || value(layer, name).is_some();
        let mut others = layers.iter().filter(|layer| layer.owner == Owner::Repository);
        let own = || layers.iter().filter(|l| l.owner == Owner::User).filter_map(|layer| value(layer, name));
        let got = received.get(name).map(|value| value.trim()).unwrap_or_default();
        if others.any(|layer| says(&layer)) && !own().any(|value| value == got) {
            match own().next_back() {
                Some(value) => vars.insert(name.to_owned(), value.to_owned()),
                None => vars.remove(name),
            };
        }
    }
    vars
}

/// Tightens `options`, parsed from `received`, to the limits of the user and `floor`: a file that others can write
/// never loosens the user's own settings.
pub fn tighten(options: &mut Options, received: &Vars, layers: &[Layer], floor: Floor) {
    let own = |name| layers.iter().rev().filter(|l| l.owner == Owner::User).find_map(|layer| value(layer, name));
    let said_by_others = |name| {
        let mut others = layers.iter().filter(|layer| layer.owner == Owner::Repository);
        others.any(|layer| layer.env.is_err() || value(layer, name).is_some())
    };
    let is = |value: Option<&str>, word: &str| value.is_some_and(|value| value.eq_ignore_ascii_case(word));
    let user_wants_less = is(own(CAPTURE), "metadata");
    if user_wants_less || floor.capture == Capture::Metadata {
        options.capture = Capture::Metadata;
    }
    let received_off = is(received.get(REDACT).map(|value| value.trim()), "off");
    let allowed = is(own(REDACT), "off") || own(REDACT).is_none_or(str::is_empty) && !said_by_others(REDACT);
    options.unredacted &= received_off && allowed && !floor.redact;
    options.unscored |= is(own(SCORES), "off");
}

fn value<'l>(layer: &'l Layer, name: &str) -> Option<&'l str> {
    layer.env.as_ref().ok()?.get(name).map(|value| value.trim())
}

/// Why `to` is held although nobody else chose it: its traffic is not encrypted.
pub fn held_unencrypted(to: &Destination) -> Option<String> {
    let is_held = !to.is_private() && to.kind.backend().takes_plain_http();
    is_held.then(|| held(to, "conversations and credentials would travel there unencrypted"))
}

/// The text `status` and the log show for a held destination. `why` says who chose it.
pub fn held(to: &Destination, why: &str) -> String {
    format!("{why}; if spans are to go there: cc-langfusectl trust {} {}", quoted(&to.address), quoted(&to.account))
}

#[cfg(test)]
mod tests;
