//! `forget`: deletes a session's traces wherever they were sent.

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail};

use crate::{
    client::Client,
    kinds::{self, To},
    open,
    session::Naming,
    traced::{self, TracedSession},
    ui::{amount, terminal},
};
use cc_core::{
    destination::{Destination, Folder, deletion::Deleted},
    ids::{TraceId, hex},
    secret::Secrets,
    status,
};
use cc_langfuse::{
    clock,
    delivery::{erase, readback::Readback, transport::Limits},
    rebuild,
};

/// How long to wait for spans in flight: longer than a request may take.
const TIME_LIMIT: Duration = Duration::from_secs(60);

#[derive(clap::Args)]
#[command(after_help = "Examples:
  cc-langfusectl forget 01628e54-f2e1-4452-8e4e-eede11a0a73e
  cc-langfusectl forget --yes session.jsonl")]
pub(crate) struct Forget {
    /// A session: its id, or the path of its transcript. Where you can confirm it on a terminal, the beginning of the id or a part of
    /// the title is enough. Default: the latest session of this directory
    session: Option<String>,
    /// Delete only at destinations of this kind (langfuse, mlflow, otlp), or at the one of this name; nothing of the session is sent again,
    /// wherever it would go
    #[arg(long, value_name = "KIND or NAME", value_parser = kinds::to)]
    to: Option<To>,
    /// Assume yes
    #[arg(long)]
    yes: bool,
}

impl Forget {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        if self.yes && self.session.is_none() {
            err!("cc-langfusectl: without a terminal to ask on, name the session");
            return Ok(ExitCode::from(2));
        }
        let status = Client::new()?.status()?;
        let naming = if self.yes { Naming::Exact } else { Naming::Loose };
        let session = TracedSession::meant(&status.sessions, self.session.as_deref(), naming)?;
        let traces = rebuild::traces(&session.transcript, &session.session_id).with_context(|| {
            format!(
                "only its transcript says which traces belong to session {}, and {} cannot be read; delete them on \
                    the server",
                session.session_id,
                session.transcript.display()
            )
        })?;
        anyhow::ensure!(!traces.is_empty(), "{} has no turns of its own", session.transcript.display());
        let (_, dirs) = session.last_turn()?;
        let mut failures = Vec::new();
        let mut ways = Vec::new();
        for to in session.destinations(&dirs, Some(&status), self.to.as_ref())? {
            match way(&to, &dirs, &status) {
                Ok(way) => ways.push((to, way)),
                Err(why) => failures.push(why),
            }
        }
        if let (true, Some(why)) = (ways.is_empty(), failures.pop()) {
            return Err(why);
        }
        let what = format!("{} of session {}", amount::count(traces.len(), "trace"), session.session_id);
        let places = ways.iter().map(|(to, _)| &*to.address).collect::<Vec<_>>().join(" and ");
        if !self.yes {
            if !std::io::stdin().is_terminal() {
                err!("cc-langfusectl: this would delete {what} on {places}; say --yes");
                return Ok(ExitCode::from(2));
            }
            if !terminal::confirms(&format!("Delete {what} on {places} for good?"))? {
                out!("nothing was deleted");
                return Ok(ExitCode::FAILURE);
            }
        }
        let ids: Vec<String> = traces.iter().map(|id| hex(id)).collect();
        let request = status::Forget { session_id: session.session_id.clone(), traces: ids.clone() };
        let waiting = Client::new()?.with_timeout(Duration::from_secs(30)).forget(&request)?;
        arrived()?;
        if waiting > 0 {
            out!("{} that were waiting will not be sent", amount::count(waiting, "observation"));
        }
        for (to, way) in &ways {
            let address = &to.address;
            match delete(to, way, &traces, &ids, &session.session_id) {
                Ok(Some(Deleted { gone: 0, absent: 0, .. })) => {
                    out!("{what}: {address} was asked to delete them; they are not sent again");
                }
                Ok(Some(Deleted { gone, absent: 0, .. })) => {
                    out!("{what}: {gone} deleted at {address}; they are not sent again");
                }
                Ok(Some(Deleted { gone, absent, .. })) => out!(
                    "{what}: {gone} deleted at {address}, {absent} were not there; they are not sent again"
                ),
                Ok(None) => failures.push(anyhow::anyhow!(
                    "{address} has no way to delete that is known here: delete {what} there with its own tools, by session.id = {}; they \
                        are not sent again",
                    session.session_id
                )),
                Err(why) => failures.push(why.context(format!("{what} at {address}"))),
            }
        }
        if failures.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        let failures: Vec<String> = failures.iter().map(|why| format!("{why:#}")).collect();
        bail!("{}", failures.join("\n"))
    }
}

/// How to reach a destination's traces.
enum Way {
    Server(Secrets),
    Files(Folder),
}

fn way(to: &Destination, dirs: &[PathBuf], status: &status::Status) -> anyhow::Result<Way> {
    Ok(match open::folder(to) {
        Some(folder) => Way::Files(folder),
        None => Way::Server(traced::secrets(to, dirs, Some(status))?),
    })
}

/// Deletes traces there; `None` if no deletion is known for it.
fn delete(
    to: &Destination,
    way: &Way,
    traces: &[TraceId],
    ids: &[String],
    session_id: &str,
) -> anyhow::Result<Option<Deleted>> {
    let secrets = match way {
        Way::Server(secrets) => secrets,
        Way::Files(folder) => {
            let gone = erase::erase(Path::new(&folder.root), traces).context("some may be left; run it again")?;
            return Ok(Some(Deleted { gone, absent: traces.len().saturating_sub(gone), asked: 0 }));
        }
    };
    let readback = Readback::new(to, secrets, Limits::default())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        if !readback.deletes().await? {
            return Ok(None);
        }
        readback.delete_session(session_id).await.context("run it again")?;
        let deleted = readback.delete(ids, TIME_LIMIT).await;
        deleted.map(Some).map_err(|(done, failure)| anyhow::anyhow!("after {done} of them: {failure}; run it again"))
    })
}

/// Waits until nothing is in flight: a span that arrives after the deletion would stay.
fn arrived() -> anyhow::Result<()> {
    let deadline = clock::monotonic() + TIME_LIMIT;
    while Client::new()?.status()?.outbox.in_flight > 0 {
        if clock::monotonic() >= deadline {
            bail!("observations are still on their way to the server; try again later");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
