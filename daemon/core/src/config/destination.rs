//! The user's own destinations: `[[destination]]` tables. An invalid table affects only its own destination.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use proto::env::{Role, VARIABLES, Variable, rows, without_userinfo};
use toml::{Spanned, de::DeValue};

use super::{Location, glob::Glob, unknown};
use crate::{
    consent::Chooser,
    destination::{Destination, Kind},
    route::Target,
    secret::Secrets,
    vars::{Env, Refused},
};

pub(super) const DESTINATION: &str = "destination";

const NAME: &str = "name";
const KIND: &str = "kind";
const ADDRESS: &str = "address";
const PROJECTS: &str = "projects";
const SECRET_FILE: &str = "secret_file";
const SECRET_COMMAND: &str = "secret_command";
const KEYS: [&str; 6] = [NAME, KIND, ADDRESS, PROJECTS, SECRET_FILE, SECRET_COMMAND];

const MAX_NAME_BYTES: usize = 64;

/// One table, valid or not.
#[derive(Clone, Debug)]
pub struct Named {
    /// The user's name for the destination, unique.
    pub name: String,
    /// As written.
    pub kind: String,
    /// As written, without credentials.
    pub address: String,
    /// The line on which the table begins.
    pub location: Option<Location>,
    /// The destination, or what is wrong with the table and how to fix it.
    pub entry: Result<Entry, String>,
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub destination: Destination,
    /// The projects it is for; `None` for all.
    projects: Option<Vec<Glob>>,
    /// Where its secret is; `None` if it needs none.
    pub secret: Option<SecretFrom>,
    /// Its further settings by the names of their variables; never the secret.
    pub vars: BTreeMap<&'static str, String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretFrom {
    /// In this file, whose path is absolute or begins with `~/`.
    File(PathBuf),
    /// The output of this command: the program and its arguments.
    Command(Vec<String>),
}

impl Entry {
    /// True if it is for a project in `dir`. `homes` are all paths of the user's home.
    pub fn takes(&self, dir: Option<&Path>, homes: &[PathBuf]) -> bool {
        match (&self.projects, dir) {
            (None, _) => true,
            (Some(globs), Some(dir)) => globs.iter().any(|glob| glob.matches(dir, homes)),
            (Some(_), None) => false,
        }
    }

    /// What it is reached with where no secret is needed.
    pub fn open_secrets(&self) -> Secrets {
        let route = self.destination.kind.backend().route(&Env::new(self.vars.iter().map(|(k, v)| (*k, v.as_str()))));
        route.ok().flatten().map(|(_, secrets)| secrets).unwrap_or_default()
    }

    /// The secrets in `text`: lines `NAME=value` for this kind's secret variables, or the one secret in the first line; for
    /// MLflow that is the token.
    pub fn secrets_in(&self, text: &str) -> Option<Secrets> {
        let of = self.destination.kind.backend().of();
        let named = |line| {
            let (name, value): (&str, &str) = str::split_once(line, '=')?;
            rows(of, Role::Secret).find(|row| row.name == name.trim()).map(|row| (row.name, value.trim()))
        };
        let mut said: Vec<(&str, &str)> = text.lines().filter_map(named).collect();
        if said.is_empty() {
            said.extend(rows(of, Role::Secret).last().map(|row| row.name).zip(text.lines().next().map(str::trim)));
        }
        let vars = self.vars.iter().map(|(name, value)| (*name, value.as_str()));
        let (to, secrets) = self.destination.kind.backend().route(&Env::new(vars.chain(said))).ok()??;
        Some(secrets).filter(|secrets| to == self.destination && !secrets.is_empty())
    }
}

/// Brings the `targets` of a session in project `dir` up to date with `entries`: removes those that only an earlier file named,
/// and adds those that are missing. A target that variables name too stays as it is.
pub fn join<'e>(
    entries: impl Iterator<Item = &'e Entry> + Clone,
    dir: Option<&Path>,
    homes: &[PathBuf],
    targets: &mut Vec<Target>,
) {
    let mut joining = entries.filter(|entry| entry.takes(dir, homes)).map(|entry| &entry.destination);
    let is_by_file = |target: &Target| target.chooser == Some(Chooser::Config);
    targets.retain(|target| !is_by_file(target) || joining.clone().any(|to| *to == target.destination));
    for to in joining.by_ref() {
        if targets.iter().all(|target| target.destination != *to) {
            targets.push(Target { destination: to.clone(), chooser: Some(Chooser::Config) });
        }
    }
}

/// Reads the tables of a file, after those `known` from other files.
pub(super) fn read(
    known: &mut Vec<Named>,
    value: &Spanned<DeValue<'_>>,
    location: &dyn Fn(std::ops::Range<usize>) -> Option<Location>,
) {
    let alone = std::slice::from_ref(value);
    let tables = value.get_ref().as_array().map_or(alone, |array| array);
    for table in tables {
        let mut named = one(known.len() + 1, table.get_ref(), location(table.span()));
        if let Ok(entry) = &named.entry {
            let is_same = |other: &&Named| other.entry.as_ref().is_ok_and(|it| it.destination == entry.destination);
            let same = known.iter().find(is_same).map(|other| other.name.clone());
            if let Some(other) = same {
                named.entry = Err(format!(
                    "{other} has the same address and account: merge the two tables, or name another account"
                ));
            }
        }
        if known.iter().any(|other| other.name == named.name) {
            let why = format!("another destination is called {}: give each its own name", named.name);
            named.name = unnamed(known.len() + 1);
            named.entry = Err(why);
        }
        known.push(named);
    }
}

fn unnamed(number: usize) -> String {
    format!("unnamed-{number}")
}

fn one(number: usize, value: &DeValue<'_>, location: Option<Location>) -> Named {
    let table = value.as_table();
    let text = |key| table.and_then(|table| table.get(key)).and_then(|value| value.get_ref().as_str());
    let (kind, address) = (text(KIND).unwrap_or_default().trim(), text(ADDRESS).unwrap_or_default().trim());
    let name = name(text(NAME));
    let entry = match (table, &name) {
        (None, _) => Err(format!("each must be a table under `[[{DESTINATION}]]`")),
        (Some(_), Err(why)) => Err(why.clone()),
        (Some(table), Ok(_)) => {
            let members: Vec<(&str, &DeValue<'_>)> =
                table.iter().map(|(key, value)| (&**key.get_ref(), value.get_ref())).collect();
            entry(kind, &members)
        }
    };
    Named {
        name: name.unwrap_or_else(|_| unnamed(number)),
        kind: kind.to_owned(),
        address: without_userinfo(address),
        location,
        entry,
    }
}

fn name(text: Option<&str>) -> Result<String, String> {
    let name = text.ok_or_else(|| format!("needs a `{NAME}` for commands to refer to it"))?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.chars().all(is_plain) || name.starts_with('-') {
        return Err(format!("`{NAME}` must be 1 to {MAX_NAME_BYTES} letters, digits, `.`, `_` or `-`"));
    }
    let given = |kind: &Kind| name.strip_prefix(kind.name()).and_then(|rest| rest.strip_prefix('-'));
    let is_given = |rest: &str| !rest.is_empty() && rest.chars().all(|c| c.is_ascii_digit());
    if Kind::ALL.iter().filter_map(given).chain(name.strip_prefix("unnamed-")).any(is_given) {
        return Err(format!("`{NAME}`: names like {name} are given automatically: choose another one"));
    }
    Ok(name.to_owned())
}

fn entry(kind: &str, members: &[(&str, &DeValue<'_>)]) -> Result<Entry, String> {
    let kinds = || Kind::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>();
    let kind = Kind::named(kind).ok_or_else(|| match kind {
        "" => format!("needs a `{KIND}`: one of {}", kinds().join(", ")),
        _ => format!("unknown `{KIND}` {kind:?}: write one of {}", kinds().join(", ")),
    })?;
    let backend = kind.backend();
    let of = |role| rows(backend.of(), role);
    let settings = || of(Role::Account).chain(of(Role::Tls)).chain(of(Role::Option));
    let (mut vars, mut projects, mut secret) = (BTreeMap::new(), None, None);
    for (key, value) in members {
        match *key {
            NAME | KIND => {}
            ADDRESS => {
                let text = scalar(key, value)?;
                if without_userinfo(&text) != text {
                    return Err(format!("`{ADDRESS}` must hold no credentials: put them into a `{SECRET_FILE}`"));
                }
                vars.extend(of(Role::Address).find(|row| row.name == row.setting).map(|row| (row.name, text)));
            }
            PROJECTS => projects = Some(globs(value)?),
            SECRET_FILE | SECRET_COMMAND if secret.is_some() => {
                return Err(format!("has both `{SECRET_FILE}` and `{SECRET_COMMAND}`: leave one"));
            }
            SECRET_FILE => secret = Some(SecretFrom::File(file(value)?)),
            SECRET_COMMAND => secret = Some(SecretFrom::Command(command(value)?)),
            key => match settings().find(|row| row.name == key) {
                Some(row) => drop(vars.insert(row.name, scalar(key, value)?)),
                None => return Err(refused(key, &Vec::from_iter(settings()))),
            },
        }
    }
    if !vars.keys().any(|name| of(Role::Address).any(|row| row.name == *name)) {
        return Err(format!("needs an `{ADDRESS}`"));
    }
    let route = backend.route(&Env::new(vars.iter().map(|(name, value)| (*name, value.as_str()))));
    let (destination, _) =
        route.map_err(|why| leads_nowhere(why, kind))?.ok_or_else(|| format!("needs an `{ADDRESS}`"))?;
    // The value is not repeated in the message: it may be the secret.
    if destination.account.starts_with("sk-") {
        return Err("there is a secret key in place of the public one: move it to a file, and create a new key if \
            others can read this one"
            .to_owned());
    }
    if secret.is_none() && backend.needs_secret(&destination) {
        let word = backend.words().secret;
        return Err(format!("needs its {word}: name it with `{SECRET_FILE}` or `{SECRET_COMMAND}`"));
    }
    Ok(Entry { destination, projects, secret, vars })
}

/// Why a key is not allowed in this table.
fn refused(key: &str, settings: &[&'static Variable]) -> String {
    let row = VARIABLES.iter().find(|row| row.name == key);
    match row.map(|row| row.role) {
        Some(Role::Secret) => format!(
            "`{key}` must not be in this file, which may be shared: move it to a file of mode 0600 and name that as `{SECRET_FILE}`, or \
                use `{SECRET_COMMAND}`; create a new key if others can read this one"
        ),
        Some(Role::Address) => format!("`{key}`: say `{ADDRESS}`"),
        _ => {
            let settings = settings.iter().filter(|row| row.name == row.setting).map(|row| row.name);
            unknown(key, &KEYS.into_iter().chain(settings).collect::<Vec<_>>())
        }
    }
}

fn leads_nowhere(why: Refused, kind: Kind) -> String {
    match why {
        Refused::KeysMissing => {
            let account = rows(kind.backend().of(), Role::Account).find(|row| row.name == row.setting);
            format!("needs `{}`", account.map_or(ADDRESS, |row| row.name))
        }
        Refused::TrackingUri => {
            format!(
                "`{ADDRESS}` is not usable: write http://…, https://… or file:///… with an absolute path; for a path inside each project, \
                    set MLFLOW_TRACKING_URI there"
            )
        }
        Refused::OtlpEndpoint => {
            format!(
                "`{ADDRESS}` is not an address: write https://HOST/PATH without a query; a key belongs in a \
                    `{SECRET_FILE}`"
            )
        }
        _ => format!("`{ADDRESS}` is not an address such as https://cloud.langfuse.com"),
    }
}

fn scalar(key: &str, value: &DeValue<'_>) -> Result<String, String> {
    let number = value.as_integer().map(|int| int.as_str().to_owned());
    let text = value.as_str().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    text.or(number).or(value.as_bool().map(|is| is.to_string())).ok_or_else(|| format!("`{key}` must be a string"))
}

fn texts<'v>(key: &str, value: &'v DeValue<'_>) -> Result<Vec<&'v str>, String> {
    let bad = || format!("`{key}` must be a list of strings");
    let array = value.as_array().ok_or_else(bad)?;
    array.iter().map(|item| item.get_ref().as_str().ok_or_else(bad)).collect()
}

fn globs(value: &DeValue<'_>) -> Result<Vec<Glob>, String> {
    let texts = texts(PROJECTS, value)?;
    if texts.is_empty() {
        return Err(format!("`{PROJECTS}` is empty: remove it to include all projects"));
    }
    let read = |text: &&str| Glob::read(text).map_err(|why| format!("`{PROJECTS}`: {text:?} {why}"));
    texts.iter().map(read).collect()
}

fn file(value: &DeValue<'_>) -> Result<PathBuf, String> {
    let text = value.as_str().unwrap_or_default();
    match text.starts_with('/') || text.starts_with("~/") {
        true => Ok(PathBuf::from(text)),
        false => Err(format!("`{SECRET_FILE}` must be a path that begins with `/` or `~/`")),
    }
}

fn command(value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let wanted = || format!("`{SECRET_COMMAND}` must be a list of strings, such as [\"pass\", \"show\", \"team\"]");
    let words = texts(SECRET_COMMAND, value).map_err(|_| wanted())?;
    if words.first().is_none_or(|program| program.trim().is_empty()) || words.iter().any(|word| word.contains('\0')) {
        return Err(wanted());
    }
    Ok(words.into_iter().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests;
