//! `completions` and `man`, generated from the commands.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use cc_langfuse::output;
use clap::CommandFactory;
use clap_complete::Shell;

const NAME: &str = "cc-langfusectl";

#[derive(clap::Args)]
#[command(after_help = "Examples:
  cc-langfusectl completions bash \\
    > ~/.local/share/bash-completion/completions/cc-langfusectl
  cc-langfusectl completions zsh > \"${fpath[1]}/_cc-langfusectl\"
  cc-langfusectl completions fish \\
    > ~/.config/fish/completions/cc-langfusectl.fish")]
pub(crate) struct Completions {
    /// For which shell
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut crate::Args::command(), NAME, &mut script);
        print(with_sessions(self.shell, &String::from_utf8(script)?).as_bytes())
    }
}

/// Commands whose arguments are sessions.
const OF_SESSIONS: &str = "show|reconcile|open|forget|score|replay|backfill";

/// `script` with the ids of sessions as completions where a command takes one.
fn with_sessions(shell: Shell, script: &str) -> String {
    match shell {
        Shell::Bash => format!(
            "{script}
_cc-langfusectl-sessions() {{
    local current=\"${{COMP_WORDS[COMP_CWORD]}}\"
    case \"${{COMP_WORDS[1]}}\" in
        {OF_SESSIONS})
            if [[ $current != -* && $current != */* ]]; then
                COMPREPLY=($(compgen -W \"$({NAME} sessions --ids 2>/dev/null)\" -- \"$current\"))
                [[ ${{#COMPREPLY[@]}} -gt 0 ]] && return
            fi ;;
    esac
    _cc__langfusectl \"$@\"
}}
complete -F _cc-langfusectl-sessions -o bashdefault -o default {NAME}
"
        ),
        Shell::Zsh => {
            let function = format!(
                "(( $+functions[_cc-langfusectl_ids] )) ||
_cc-langfusectl_ids() {{
    local -a ids
    ids=(${{(f)\"$({NAME} sessions --ids 2>/dev/null)\"}})
    compadd -a ids || _default
}}
"
            );
            let named = ["::session -- ", ":session -- ", "::which -- "];
            let lines = script.lines().map(|line| match named.iter().any(|name| line.contains(name)) {
                true => line.replacen(":_default'", ":_cc-langfusectl_ids'", 1),
                false => line.to_owned(),
            });
            let (head, rest): (Vec<String>, Vec<String>) =
                lines.enumerate().fold(Default::default(), |mut parts, (at, line)| {
                    if at == 0 {
                        parts.0.push(line)
                    } else {
                        parts.1.push(line)
                    }
                    parts
                });
            format!("{}\n\n{function}{}\n", head.join("\n"), rest.join("\n"))
        }
        Shell::Fish => {
            let commands = OF_SESSIONS.replace('|', " ");
            let seen = format!("__fish_seen_subcommand_from {commands}");
            format!("{script}complete -c {NAME} -n \"{seen}\" -a \"({NAME} sessions --ids 2>/dev/null)\"\n")
        }
        _ => script.to_owned(),
    }
}

#[derive(clap::Args)]
#[command(after_help = "Examples:
  cc-langfusectl man > cc-langfusectl.1 && man ./cc-langfusectl.1
  cc-langfusectl man ~/.local/share/man/man1")]
pub(crate) struct Man {
    /// Write the page of every command into this directory; without it, the main one is printed
    dir: Option<PathBuf>,
}

impl Man {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let command = crate::Args::command().disable_help_subcommand(true);
        let Some(dir) = self.dir else {
            let mut page = Vec::new();
            clap_mangen::Man::new(command).render(&mut page)?;
            return print(&page);
        };
        let written = std::fs::create_dir_all(&dir).and_then(|()| clap_mangen::generate_to(command, &dir));
        written.with_context(|| format!("{} cannot be written", dir.display()))?;
        out!("written to {}", dir.display());
        Ok(ExitCode::SUCCESS)
    }
}

fn print(text: &[u8]) -> anyhow::Result<ExitCode> {
    output::document(std::str::from_utf8(text)?);
    Ok(ExitCode::SUCCESS)
}
