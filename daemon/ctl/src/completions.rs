//! `completions` and `man`: made of the commands themselves.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use cc_langfuse::output;
use clap::CommandFactory;
use clap_complete::Shell;

const NAME: &str = "cc-langfusectl";

/// `completions`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cc-langfusectl completions bash > ~/.local/share/bash-completion/completions/cc-langfusectl
  cc-langfusectl completions zsh > \"${fpath[1]}/_cc-langfusectl\"
  cc-langfusectl completions fish > ~/.config/fish/completions/cc-langfusectl.fish")]
pub(crate) struct Completions {
    /// For which shell
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut crate::Args::command(), NAME, &mut script);
        print(&script)
    }
}

/// `man`.
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
