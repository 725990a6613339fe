//! `--help`: the commands grouped by purpose, in the width of the terminal.

use clap::{Command, CommandFactory};

use crate::ui::terminal;
use cc_langfuse::output;

/// The commands by purpose. A command in no group comes at the end.
const GROUPS: [(&str, &[&str]); 6] = [
    ("Start here", &["try", "setup", "doctor", "run", "uninstall"]),
    ("See", &["status", "top", "sessions", "open", "show", "view", "usage", "reconcile", "logs"]),
    ("Send", &["flush", "backfill", "dead-letters", "destinations"]),
    ("Decide", &["config", "trust", "pause", "resume", "forget", "score"]),
    ("Run the daemon", &["start", "stop", "restart"]),
    ("More", &[]),
];

/// The width of help without a terminal.
const WIDTH: usize = 100;

/// The program's arguments, with this form of help.
pub(crate) fn command() -> Command {
    let width = terminal::width().unwrap_or(WIDTH).max(40);
    let command = crate::Args::command().term_width(width).mut_subcommands(|one| match one.get_after_help() {
        Some(text) => {
            let text = flowing(&text.to_string());
            one.after_help(text)
        }
        None => one,
    });
    let list = list(&command, width);
    command.help_template(format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\nCommands:\n{list}\n\nOptions:\n{{options}}"
    ))
}

/// `text` with each paragraph on one line, to be wrapped at any width; indented lines are examples and stay.
fn flowing(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let is_whole = line.is_empty() || line.starts_with(' ') || out.is_empty() || out.ends_with('\n');
        let follows_example = out.rsplit('\n').next().is_some_and(|last| last.starts_with(' ') || last.ends_with(':'));
        if is_whole || follows_example {
            if !out.is_empty() {
                out.push('\n');
            }
        } else {
            out.push(' ');
        }
        out.push_str(line);
    }
    out
}

fn list(command: &Command, width: usize) -> String {
    let all: Vec<&Command> = command.get_subcommands().filter(|one| !one.is_hide_set()).collect();
    let longest = all.iter().map(|one| one.get_name().len()).max().unwrap_or(0);
    let is_grouped = |name: &str| GROUPS.iter().any(|(_, names)| names.contains(&name));
    let mut lines = Vec::new();
    for (title, names) in GROUPS {
        lines.push(format!(" {title}"));
        let more = all.iter().filter(|one| names.is_empty() && !is_grouped(one.get_name()));
        let named = names.iter().filter_map(|name| all.iter().find(|one| one.get_name() == *name));
        for one in named.chain(more) {
            let about = one.get_about().map(ToString::to_string).unwrap_or_default();
            lines.push(output::wrapped(&format!("  {:<longest$}  {about}", one.get_name()), width));
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_flow_and_examples_stay() {
        let text = "Examples:\n  one\n  two\n\nA paragraph\nof two lines.\n\nAnother\none.";
        assert_eq!(flowing(text), "Examples:\n  one\n  two\n\nA paragraph of two lines.\n\nAnother one.");
    }

    #[test]
    fn examples_are_not_broken_on_a_terminal_of_80_columns() {
        for one in crate::Args::command().get_subcommands() {
            let text = one.get_after_help().map(ToString::to_string).unwrap_or_default();
            let wide: Vec<&str> =
                text.lines().filter(|line| line.starts_with(' ') && line.chars().count() > 80).collect();
            assert!(wide.is_empty(), "{}: {wide:#?}", one.get_name());
        }
    }

    #[test]
    fn every_command_is_listed_once_and_no_line_is_wider_than_the_terminal() {
        let command = crate::Args::command();
        for width in [60, 80, 200] {
            let list = list(&command, width);
            assert!(list.lines().all(|line| line.chars().count() <= width), "{list}");
            for one in command.get_subcommands() {
                let shown = list.lines().filter(|line| {
                    line.starts_with("  ")
                        && line.split_whitespace().next() == Some(one.get_name())
                        && !line.starts_with("   ")
                });
                assert_eq!(shown.count(), usize::from(!one.is_hide_set()), "{}", one.get_name());
            }
        }
    }
}
