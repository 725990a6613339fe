//! What a project's hooks are given of this program's settings, and by whom. Pure.

use crate::destination::langfuse::DEFAULT_BASE_URL;
use std::collections::BTreeMap;

use serde::Serialize;

/// A setting, with what counts as its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// The variable that decides, or could.
    pub name: String,
    /// Its value; nothing of a secret but that it is set.
    pub value: Option<String>,
    /// Who said it; nobody if it is the default.
    pub from: Option<String>,
}

/// What stands in place of a secret.
const SET: &str = "set, not shown";

/// Each setting's variables, the first winning, and its default.
const SETTINGS: [(&[&str], Option<&str>); 15] = [
    (&[proto::env::ENABLE], Some("off")),
    (&["CC_LANGFUSE_PUBLIC_KEY", "LANGFUSE_PUBLIC_KEY"], None),
    (&["CC_LANGFUSE_SECRET_KEY", "LANGFUSE_SECRET_KEY"], None),
    (&proto::env::ADDRESS, Some(DEFAULT_BASE_URL)),
    (&["CC_LANGFUSE_TRACING_ENVIRONMENT", "LANGFUSE_TRACING_ENVIRONMENT"], None),
    (&["CC_LANGFUSE_RELEASE", "LANGFUSE_RELEASE"], None),
    (&["CC_LANGFUSE_USER_ID", "LANGFUSE_USER_ID"], None),
    (&["CC_LANGFUSE_SAMPLE_RATE", "LANGFUSE_SAMPLE_RATE"], Some("1")),
    (&["CC_LANGFUSE_TAGS"], None),
    (&["CC_LANGFUSE_METADATA"], None),
    (&["CC_LANGFUSE_SEMANTICS"], Some("spec")),
    (&["CC_LANGFUSE_CAPTURE"], Some("full")),
    (&["CC_LANGFUSE_REDACT"], Some("on")),
    (&["CC_LANGFUSE_DEBUG"], Some("off")),
    (&[proto::env::STATE_DIR], None),
];

/// Every setting as `layers` have it: who says it, and what; later ones win, and an empty value unsets.
pub fn settings(layers: &[(String, BTreeMap<String, String>)]) -> Vec<Setting> {
    let mut said: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
    for (from, vars) in layers {
        said.extend(vars.iter().map(|(name, value)| (name.as_str(), (value.as_str(), from.as_str()))));
    }
    said.retain(|_, (value, _)| !value.trim().is_empty());
    let setting = |(names, default): (&[&str], Option<&str>)| {
        let found = names.iter().find_map(|name| Some((*name, *said.get(name)?)));
        let Some((name, (value, from))) = found else {
            // The name in the documentation is the one without a prefix.
            let name = names.iter().find(|name| name.starts_with("LANGFUSE_")).unwrap_or(&names[0]);
            return Setting { name: (*name).to_owned(), value: default.map(str::to_owned), from: None };
        };
        let value = match name {
            name if proto::env::is_secret(name) => SET.to_owned(),
            name if name.ends_with("URL") || name.ends_with("_HOST") => proto::env::without_userinfo(value.trim()),
            _ => value.to_owned(),
        };
        Setting { name: name.to_owned(), value: Some(value), from: Some(from.to_owned()) }
    };
    SETTINGS.into_iter().map(setting).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(from: &str, vars: &[(&str, &str)]) -> (String, BTreeMap<String, String>) {
        (from.to_owned(), vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn later_layers_win_and_prefixed_names_do_so_always() {
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
    fn every_variable_a_hook_forwards_is_shown() {
        let shown: Vec<&str> = SETTINGS.iter().flat_map(|(names, _)| names.iter().copied()).collect();
        for name in proto::env::forwarded().filter(|name| !name.starts_with("CLAUDE_")) {
            assert!(shown.contains(&&*name), "{name}");
        }
    }
}
