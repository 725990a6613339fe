//! Whose choice a destination is (one that others chose is held until the user trusts it), and how much of a conversation may
//! leave. Pure: variables and layers in, judgement out.
//!
//! Claude Code gives the `env` blocks of a project's settings to hooks, and a repository can bring such files. A destination
//! is the user's own only if every variable that determines it comes from a place no repository can write.

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

/// What says where spans go, each setting by itself.
const ROLES: [Role; 4] = [Role::Enable, Role::Address, Role::Account, Role::Secret];

const CAPTURE: &str = "CC_LANGFUSE_CAPTURE";
const REDACT: &str = "CC_LANGFUSE_REDACT";

/// Who can write a settings file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The user, or an administrator of the machine; nobody else.
    User,
    /// Others too: a repository brought it, an archive, or it is the file that a project shares.
    Repository,
}

/// What one settings file says.
#[derive(Clone, Debug)]
pub struct Layer {
    /// The file, whether it exists or not.
    pub file: PathBuf,
    /// Who can write it.
    pub owner: Owner,
    /// Its variables, or that it cannot be read with certainty.
    pub env: Result<Vars, Unclear>,
}

/// Who chose a destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Chooser {
    /// The user: every variable came from the environment or a file nobody else can write.
    User,
    /// The user, in `config.toml`, and by no variable.
    Config,
    /// Others may have.
    Repository(Evidence),
}

/// What shows that others may have chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// A settings file that a repository, an archive or a project's members can write.
    pub file: PathBuf,
    /// The variable it sets; `None` if the file cannot be read with certainty.
    pub variable: Option<String>,
}

impl std::fmt::Display for Evidence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let file = self.file.display();
        match &self.variable {
            Some(variable) => write!(f, "{file}, which others can write, sets {variable}"),
            None => write!(f, "{file}, which others can write, cannot be read and may set anything"),
        }
    }
}

/// The least privacy that every project keeps, from `config.toml`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Floor {
    /// No more than this leaves.
    pub capture: Capture,
    /// Secrets are masked whatever a project says.
    pub redact: bool,
}

/// Who chose where `received`, the variables a hook was given, leads to among backends of this `kind`. `layers` are the settings
/// files that may have said so, weakest first.
pub fn chooser(kind: Kind, received: &Vars, layers: &[Layer]) -> Chooser {
    let get = |name: &str| received.get(name).map(|value| value.trim()).unwrap_or_default();
    let by_others = || layers.iter().filter(|layer| layer.owner == Owner::Repository);
    if let Some(layer) = by_others().find(|layer| layer.env.is_err()) {
        return Chooser::Repository(Evidence { file: layer.file.clone(), variable: None });
    }
    let rows: Vec<_> = ROLES.iter().flat_map(|role| rows(kind.backend().of(), *role)).collect();
    for group in rows.chunk_by(|one, other| one.setting == other.setting) {
        // Strongest first: the first with a value decides.
        let decides = group.iter().position(|row| !get(row.name).is_empty());
        // An event from the spool has no secrets.
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

/// `received` as far as others say nothing of TLS: a repository chooses neither by which authority a server proves itself nor with which
/// key it is asked, whatever the user trusts. Where it does, what the user's own files say counts.
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

/// Tightens `options`, made of `received`, to what the user and `floor` allow: a file others can write never loosens what the
/// user's own say.
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
}

fn value<'l>(layer: &'l Layer, name: &str) -> Option<&'l str> {
    layer.env.as_ref().ok()?.get(name).map(|value| value.trim())
}

/// Why nothing is sent to `to` before the user trusts it, though nobody else chose it: others could read it on the way.
pub fn held_unencrypted(to: &Destination) -> Option<String> {
    let is_held = !to.is_private() && to.kind.backend().takes_plain_http();
    is_held.then(|| held(to, "conversations and credentials would travel there unencrypted"))
}

/// What `status` and the log say of a destination that others chose, as `why` says: it gets nothing yet, and what changes that.
pub fn held(to: &Destination, why: &str) -> String {
    format!("{why}; if spans are to go there: cc-langfusectl trust {} {}", quoted(&to.address), quoted(&to.account))
}

#[cfg(test)]
mod tests;
