//! `forget`: a session's traces leave the server.

use std::{io::IsTerminal, process::ExitCode, time::Duration};

use anyhow::{Context, bail};

use crate::{
    client::Client,
    seen::{self, Seen},
    session::Naming,
    ui::{amount, terminal},
};
use cc_core::{ids::hex, status};
use cc_langfuse::{
    clock,
    delivery::{readback::Readback, transport::Limits},
    offline,
};

/// How long spans on their way are waited for: longer than a request may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// `forget`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cc-langfusectl forget 01628e54-f2e1-4452-8e4e-eede11a0a73e
  cc-langfusectl forget --yes session.jsonl")]
pub(crate) struct Forget {
    /// A session: its id, or the path of its transcript; where it is asked, the beginning of its id or a part of its title will do
    session: String,
    /// Assume yes
    #[arg(long)]
    yes: bool,
}

impl Forget {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let status = Client::new()?.status()?;
        let naming = if self.yes { Naming::Exact } else { Naming::Loose };
        let seen = Seen::meant(&status.sessions, Some(&self.session), naming)?;
        let traces = offline::traces(&seen.transcript, &seen.session_id).with_context(|| {
            format!(
                "which traces are session {}'s is only known from its transcript, and {} cannot be read; delete them in Langfuse",
                seen.session_id,
                seen.transcript.display()
            )
        })?;
        let traces: Vec<String> = traces.iter().map(|id| hex(id)).collect();
        anyhow::ensure!(!traces.is_empty(), "no turn of its own in {}", seen.transcript.display());
        let (_, dirs) = seen.last_turn()?;
        let destination = seen.destination(&dirs)?;
        let secrets = seen::secrets(&destination, &dirs, Some(&status))?;
        let what = format!("{} of session {}", amount::count(traces.len(), "trace"), seen.session_id);
        if !self.yes {
            if !std::io::stdin().is_terminal() {
                err!("cc-langfusectl: this would delete {what} on {}; say --yes", destination.address);
                return Ok(ExitCode::from(2));
            }
            if !terminal::confirms(&format!("Delete {what} on {} for good?", destination.address))? {
                out!("nothing was deleted");
                return Ok(ExitCode::FAILURE);
            }
        }
        let wish = status::Forget { session_id: seen.session_id.clone(), traces: traces.clone() };
        let waiting = Client::new()?.patient(Duration::from_secs(30)).forget(&wish)?;
        arrived()?;
        let readback = Readback::new(&destination, &secrets, Limits::default())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(readback.delete(&traces)).map_err(|(done, failure)| {
            anyhow::anyhow!("{} after {done} of {what}: {failure}; run it again", destination.address)
        })?;
        if waiting > 0 {
            out!("{} that waited will not be sent", amount::count(waiting, "span"));
        }
        out!("{what}: {} was asked to delete them; nothing of them is sent again", destination.address);
        Ok(ExitCode::SUCCESS)
    }
}

/// Waits until nothing is on its way: what arrived after its deletion would stay.
fn arrived() -> anyhow::Result<()> {
    let deadline = clock::monotonic() + PATIENCE;
    while Client::new()?.status()?.outbox.in_flight > 0 {
        if clock::monotonic() >= deadline {
            bail!("spans are still on their way to the server; try again later");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
