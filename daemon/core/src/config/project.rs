//! The effective settings of a project's hooks, and which layer each comes from.

use crate::destination::langfuse::DEFAULT_BASE_URL;
use std::collections::BTreeMap;

use proto::env::{Role, VARIABLES, Variable};
use serde::Serialize;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// The variable that decides.
    pub name: String,
    /// For a secret only that it is set.
    pub value: Option<String>,
    /// The layer that sets it; `None` if it is the default.
    pub from: Option<String>,
}

/// Shown in place of a secret.
const SET: &str = "set, not shown";

/// Defaults by the variable's name in the documentation.
const DEFAULTS: [(&str, &str); 10] = [
    (proto::env::TRACE, "off"),
    (proto::env::ENABLE, "off"),
    ("LANGFUSE_BASE_URL", DEFAULT_BASE_URL),
    ("LANGFUSE_SAMPLE_RATE", "1"),
    ("CC_LANGFUSE_SEMANTICS", "spec"),
    ("CC_LANGFUSE_CAPTURE", "full"),
    ("CC_LANGFUSE_REDACT", "on"),
    ("CC_LANGFUSE_SCORES", "on"),
    ("CC_LANGFUSE_DEBUG", "off"),
    ("CC_LANGFUSE_TOY", "off"),
];

/// Every setting with its effective value and source. Later layers win, and an empty value unsets.
pub fn settings(layers: &[(String, BTreeMap<String, String>)]) -> Vec<Setting> {
    let mut said: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
    for (from, vars) in layers {
        said.extend(vars.iter().map(|(name, value)| (name.as_str(), (value.as_str(), from.as_str()))));
    }
    said.retain(|_, (value, _)| !value.trim().is_empty());
    let settings = VARIABLES.chunk_by(|a, b| a.setting == b.setting).filter(|rows| rows[0].role != Role::Place);
    let setting = |rows: &[Variable]| {
        let found = rows.iter().find_map(|row| Some((row, *said.get(row.name)?)));
        let Some((row, (value, from))) = found else {
            let default = DEFAULTS.iter().find(|(name, _)| *name == rows[0].setting);
            let value = default.map(|(_, value)| (*value).to_owned());
            return Setting { name: rows[0].setting.to_owned(), value, from: None };
        };
        let value = match row.role {
            Role::Secret => SET.to_owned(),
            Role::Address => proto::env::without_userinfo(value.trim()),
            _ => value.to_owned(),
        };
        Setting { name: row.name.to_owned(), value: Some(value), from: Some(from.to_owned()) }
    };
    settings.map(setting).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(from: &str, vars: &[(&str, &str)]) -> (String, BTreeMap<String, String>) {
        (from.to_owned(), vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn later_layers_win_and_prefixed_names_always_win() {
        let settings = settings(&[
            layer("env", &[("CC_LANGFUSE_BASE_URL", "https://me:pw@a"), ("LANGFUSE_RELEASE", "1"), ("OTHER", "x")]),
            layer("user", &[("LANGFUSE_BASE_URL", "https://b"), ("LANGFUSE_RELEASE", "2"), ("LANGFUSE_USER_ID", "me")]),
            layer("local", &[("LANGFUSE_SECRET_KEY", "sk-lf-1"), ("LANGFUSE_USER_ID", " ")]),
        ]);
        let of = |wanted: &str| {
            let found = settings.iter().find(|setting| setting.name == wanted).map(|it| (&it.value, &it.from));
            found.map(|(value, from)| (value.as_deref(), from.as_deref()))
        };
        assert_eq!(of("CC_LANGFUSE_BASE_URL"), Some((Some("https://a"), Some("env"))));
        assert_eq!(of("LANGFUSE_BASE_URL"), None);
        assert_eq!(of("LANGFUSE_RELEASE"), Some((Some("2"), Some("user"))));
        assert_eq!(of("LANGFUSE_USER_ID"), Some((None, None)));
        assert_eq!(of("LANGFUSE_SECRET_KEY"), Some((Some(SET), Some("local"))));
        assert_eq!(of("CC_LANGFUSE_CAPTURE"), Some((Some("full"), None)));
        assert!(!format!("{settings:?}").contains("sk-lf-1"));
    }

    #[test]
    fn every_setting_is_shown_once_and_every_default_belongs_to_one() {
        let shown: Vec<String> = settings(&[]).into_iter().map(|setting| setting.name).collect();
        for row in VARIABLES.iter().filter(|row| row.role != Role::Place) {
            assert_eq!(shown.iter().filter(|name| *name == row.setting).count(), 1, "{}", row.name);
        }
        for (name, _) in DEFAULTS.iter().filter(|(name, _)| !name.contains("TOY")) {
            assert!(shown.iter().any(|setting| setting == name), "{name}");
        }
    }
}
