//! The change to a file, line by line.

use std::path::Path;

use zeroize::Zeroizing;

use cc_core::{
    config::telemetry::FORWARD_HEADERS,
    redact::Redactor,
    settings::{
        diff::{Line, diff},
        edit, masked,
    },
};
use cc_langfuse::output::{self, Look};

/// Shows the change to the file at `path` from `old` to `new`, without secrets.
pub(crate) fn show(path: &Path, old: Option<&str>, new: Option<&str>) {
    let paint = |look: Look, text: String| {
        let _ = output::painted(look, format_args!("{text}"));
    };
    let path = path.display();
    let mut secrets: Vec<_> = old.into_iter().chain(new).flat_map(secrets_in).collect();
    // One may be a prefix of another.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    paint(Look::Bold, format!("--- {}", if old.is_some() { path.to_string() } else { "(no file)".into() }));
    paint(Look::Bold, format!("+++ {}", if new.is_some() { path.to_string() } else { "(no file)".into() }));
    for line in diff(old.unwrap_or_default(), new.unwrap_or_default()) {
        match line {
            Line::Same(text) => paint(Look::Plain, format!(" {}", conceal(text.trim_end_matches('\r'), &secrets))),
            Line::Old("") | Line::New("") if old.is_none() || new.is_none() => {}
            Line::Old(text) => paint(Look::Red, format!("-{}", conceal(text.trim_end_matches('\r'), &secrets))),
            Line::New(text) => paint(Look::Green, format!("+{}", conceal(text.trim_end_matches('\r'), &secrets))),
            Line::Gap => out!(" …"),
        }
    }
    out!();
}

/// The secret keys in the `env` of a settings file, or in lines `NAME=value` of another one, as they are written there.
pub(crate) fn secrets_in(text: &str) -> Vec<Zeroizing<String>> {
    let text = text.trim_start_matches('\u{feff}');
    let Ok(root) = edit::parse(text) else {
        let lines = text.lines().filter_map(|line| line.split_once('='));
        let secrets = lines.filter(|(name, value)| proto::env::is_secret(name.trim()) && !value.trim().is_empty());
        let headers = text
            .lines()
            .filter_map(|line| line.split_once(FORWARD_HEADERS))
            .map(|(_, value)| value.trim_start_matches([' ', '=', '"']).trim_end_matches([' ', '}', '"']).to_owned());
        let secrets = secrets.map(|(_, value)| value.trim().to_owned()).chain(headers);
        return secrets.filter(|secret| !secret.is_empty()).map(Zeroizing::new).collect();
    };
    let envs = root.members().iter().filter(|member| member.key == "env");
    envs.flat_map(|env| env.value.members())
        .filter(|member| proto::env::is_secret(&member.key) || member.key.ends_with("_HEADERS"))
        .map(|member| Zeroizing::new(text[member.value.span.clone()].trim_matches('"').to_owned()))
        .filter(|secret| !secret.is_empty())
        .collect()
}

/// `line` with masked keys that can be recognised but not used, and without anything else that looks secret.
pub(crate) fn conceal(line: &str, secrets: &[Zeroizing<String>]) -> String {
    match secrets.split_first() {
        Some((secret, others)) if !secret.is_empty() => {
            let parts: Vec<String> = line.split(secret.as_str()).map(|part| conceal(part, others)).collect();
            parts.join(&masked(secret))
        }
        Some((_, others)) => conceal(line, others),
        None => Redactor::built_in().scrub(line, &mut Default::default()).unwrap_or_else(|| line.to_owned()),
    }
}
