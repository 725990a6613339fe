//! `pause` and `resume`: turns in between are never sent.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;

use crate::client::Client;
use cc_core::status;

#[derive(clap::Args)]
pub(crate) struct Projects {
    /// The project's directory [default: the current one]
    #[arg(conflicts_with = "all")]
    dir: Option<PathBuf>,
    /// Every project
    #[arg(long)]
    all: bool,
}

impl Projects {
    /// Pauses or resumes them.
    pub(crate) fn set(self, paused: bool) -> anyhow::Result<ExitCode> {
        let dir = if self.all {
            None
        } else {
            let dir = self.dir.map_or_else(std::env::current_dir, Ok)?;
            Some(match dir.canonicalize() {
                Ok(dir) => dir,
                // A project that is gone can still be resumed.
                Err(_) if !paused => std::path::absolute(dir)?,
                Err(error) => return Err(error).with_context(|| format!("{} is not there", dir.display())),
            })
        };
        let all = Client::new()?.pause(&status::Pause { dir: dir.clone(), paused })?;
        let name = dir.as_ref().map_or_else(|| "every project".to_owned(), |dir| dir.display().to_string());
        if paused {
            out!("{name}: paused. What is said until you resume is never sent.");
            return Ok(ExitCode::SUCCESS);
        }
        let here = dir.as_deref().unwrap_or("/".as_ref());
        match all.iter().find(|other| here.starts_with(other)) {
            Some(other) => {
                let all = if other.parent().is_none() { " --all".to_owned() } else { format!(" {}", other.display()) };
                out!("{name} is still paused: cc-langfusectl resume{all}");
                Ok(ExitCode::FAILURE)
            }
            None if dir.is_none() && !all.is_empty() => {
                out!("every project is traced again, except those that have a pause of their own:");
                all.iter().for_each(|other| out!("  cc-langfusectl resume {}", other.display()));
                Ok(ExitCode::FAILURE)
            }
            None => {
                out!("{name}: traced again");
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}
