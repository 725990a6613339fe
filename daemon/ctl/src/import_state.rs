//! `import-state`: imports the Node tool's state, so that what it has sent is not sent again.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::bail;

use crate::{
    client::{self, Client},
    ui::amount::count,
};
use cc_core::{
    import_state::{self, Imported},
    status::history::Taken,
};
use cc_langfuse::output;

/// How many sessions one request contains.
const SESSIONS_PER_REQUEST: usize = 5000;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  cc-langfusectl import-state
  cc-langfusectl import-state ~/old-machine/cc-langfuse_state.json

The daemon does this by itself when it is started for the first time. Sessions it has read already stay as they are. A turn that
the Node tool had partly sent is left to that tool.")]
pub(crate) struct ImportState {
    /// The Node tool's state [default: ~/.claude/state/cc-langfuse_state.json]
    file: Option<PathBuf>,
    /// One JSON object: `imported`, `known`
    #[arg(long)]
    json: bool,
}

impl ImportState {
    /// Reads the state and sends it to the daemon.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let path = match self.file {
            Some(path) => path,
            None => client::home()?.join(import_state::STATE),
        };
        let sessions = match cc_langfuse::import_state_file::load(&path) {
            Ok(Some(sessions)) => sessions,
            Ok(None) => bail!("there is no {}: give the Node tool's cc-langfuse_state.json", path.display()),
            Err(error) => bail!("nothing was imported from {}: {error}", path.display()),
        };
        let mut taken = Taken { imported: 0, known: 0 };
        for some in sessions.chunks(SESSIONS_PER_REQUEST) {
            let some = import(some)?;
            (taken.imported, taken.known) = (taken.imported + some.imported, taken.known + some.known);
        }
        if self.json {
            output::json(&taken, false)?;
            return Ok(ExitCode::SUCCESS);
        }
        out!("{} imported: what the Node tool has sent of them is not sent again", count(taken.imported, "session"));
        if taken.known > 0 {
            out!("{} left as it is: the daemon has read them already", count(taken.known, "session"));
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn import(sessions: &[Imported]) -> anyhow::Result<Taken> {
    Client::new()?.with_timeout(Duration::from_secs(30)).import(sessions)
}
