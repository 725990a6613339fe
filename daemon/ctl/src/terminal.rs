//! Questions to a person, and what is shown to one.

use std::io::{self, BufRead, IsTerminal};

use anyhow::bail;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::setup::files::Change;
use cc_core::{
    redact::Redactor,
    settings::{
        diff::{Line, diff},
        edit, masked,
    },
};
use cc_langfuse::output::{self, Look};

/// True if there is somebody to ask.
pub fn is_there() -> bool {
    io::stdin().is_terminal() && output::is_seen()
}

/// Asks for a line; `default` if it is empty. Until there is one.
///
/// # Errors
/// At the end of the input.
pub fn ask(question: &str, default: Option<&str>) -> anyhow::Result<String> {
    loop {
        let hint = default.map(|default| format!(" [{default}]")).unwrap_or_default();
        output::question(&format!("{question}{hint}: "))?;
        let line = line()?;
        match (line.trim(), default) {
            ("", Some(default)) => return Ok(default.to_owned()),
            ("", None) => {}
            (text, _) => return Ok(text.to_owned()),
        }
    }
}

/// Asks for a line that is not shown.
///
/// # Errors
/// At the end of the input.
pub fn ask_hidden(question: &str) -> anyhow::Result<Zeroizing<String>> {
    loop {
        output::question(&format!("{question} (not shown): "))?;
        let hidden = Without::modes(LocalModes::ECHO, OptionalActions::Flush)?;
        let line = line();
        drop(hidden);
        out!();
        let line = line?;
        if !line.trim().is_empty() {
            return Ok(Zeroizing::new(line.trim().to_owned()));
        }
    }
}

/// The terminal without some of its modes; put back when this goes.
pub struct Without(Termios);

impl Without {
    /// Takes them from it.
    ///
    /// # Errors
    /// If there is no terminal.
    pub fn modes(modes: LocalModes, when: OptionalActions) -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut less = before.clone();
        less.local_modes.remove(modes);
        tcsetattr(io::stdin(), when, &less)?;
        Ok(Self(before))
    }
}

impl Drop for Without {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// Yes, unless said otherwise.
///
/// # Errors
/// At the end of the input.
pub fn agrees(question: &str) -> anyhow::Result<bool> {
    output::question(&format!("{question} [Y/n]: "))?;
    Ok(matches!(line()?.trim().to_lowercase().as_str(), "" | "y" | "yes"))
}

/// No, unless said otherwise; asked beside the output.
///
/// # Errors
/// At the end of the input.
pub fn confirms(question: &str) -> anyhow::Result<bool> {
    output::question_aside(&format!("{question} [y/N] "))?;
    Ok(matches!(line()?.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// The first line of the standard input.
///
/// # Errors
/// At its end.
pub fn line() -> anyhow::Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(String::new());
    if io::stdin().lock().read_line(&mut line)? == 0 {
        bail!("the input has ended");
    }
    Ok(line)
}

/// Shows what `change` does to its file, without secrets.
pub fn show(change: &Change) {
    let paint = |look: Look, text: String| {
        let _ = output::painted(look, format_args!("{text}"));
    };
    let path = change.path.display();
    let (old, new) = (change.current.as_deref(), change.new.as_deref());
    let mut secrets: Vec<_> = old.into_iter().chain(new).flat_map(secrets_in).collect();
    // One may be the beginning of another.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    paint(Look::Bold, format!("--- {}", if old.is_some() { path.to_string() } else { "(no file)".into() }));
    paint(Look::Bold, format!("+++ {}", if new.is_some() { path.to_string() } else { "(no file)".into() }));
    for line in diff(old.unwrap_or_default(), new.unwrap_or_default()) {
        match line {
            Line::Same(text) => out!(" {}", conceal(text.trim_end_matches('\r'), &secrets)),
            Line::Old("") | Line::New("") if old.is_none() || new.is_none() => {}
            Line::Old(text) => paint(Look::Red, format!("-{}", conceal(text.trim_end_matches('\r'), &secrets))),
            Line::New(text) => paint(Look::Green, format!("+{}", conceal(text.trim_end_matches('\r'), &secrets))),
            Line::Gap => out!(" …"),
        }
    }
    out!();
}

/// The secret keys in the `env` of a settings file, as they are written there.
pub fn secrets_in(text: &str) -> Vec<Zeroizing<String>> {
    let text = text.trim_start_matches('\u{feff}');
    let Ok(root) = edit::parse(text) else { return Vec::new() };
    let envs = root.members().iter().filter(|member| member.key == "env");
    envs.flat_map(|env| env.value.members())
        .filter(|member| proto::env::is_secret(&member.key))
        .map(|member| Zeroizing::new(text[member.value.span.clone()].trim_matches('"').to_owned()))
        .filter(|secret| !secret.is_empty())
        .collect()
}

/// `line` with keys that can be recognised and not used, and without anything else that looks secret.
fn conceal(line: &str, secrets: &[Zeroizing<String>]) -> String {
    match secrets.split_first() {
        Some((secret, others)) if !secret.is_empty() => {
            let parts: Vec<String> = line.split(secret.as_str()).map(|part| conceal(part, others)).collect();
            parts.join(&masked(secret))
        }
        Some((_, others)) => conceal(line, others),
        None => Redactor::built_in().scrub(line, &mut Default::default()).unwrap_or_else(|| line.to_owned()),
    }
}
