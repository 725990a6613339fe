//! One way in for events, whether they come over the socket or from the spool: judge, store, tell the engine.

use std::{
    os::unix::fs::MetadataExt,
    path::Path,
    sync::mpsc::Sender,
    time::{Duration, SystemTime},
};

use proto::frame::Frame;
use tokio::sync::mpsc::UnboundedSender;

use crate::{
    delivery::exporter::Order,
    engine::Input,
    hook::{self, Refused},
    log::Level,
    store::{self, handle::Handle},
};

/// Largest frame that is taken: the payload's limit, and room for variables as long as Linux lets them be (128 KiB each).
pub const MAX_FRAME: usize = proto::MAX_PAYLOAD + (4 << 20);

/// A spool file that was never finished is removed after this long.
const ABANDONED: Duration = Duration::from_secs(60);

/// Takes events in.
#[derive(Clone)]
pub struct Intake {
    /// Where they are stored.
    pub store: Handle,
    /// Who is told of them.
    pub engine: Sender<Input>,
    /// Who is told of the keys they bring.
    pub orders: UnboundedSender<Order>,
    /// How talkative the log is; a project can ask for more.
    pub level: Level,
}

impl Intake {
    /// Takes one frame. `Ok` means that it, or the reason why it is none, is committed.
    ///
    /// # Errors
    /// If nothing was stored; whoever sent it keeps it.
    pub fn take(&self, bytes: &[u8]) -> store::Result<()> {
        let read = Frame::decode(bytes).map_err(|_| Refused::Frame).and_then(hook::read);
        let (hint, secret) = match read {
            Ok(read) => read,
            Err(refused) => {
                tracing::debug!(reason = refused.reason(), "an event came to nothing");
                return self.store.call(|store| store.accept(&[], &[refused.reason()])).map(drop);
            }
        };
        self.level.debug(hint.debug);
        tracing::debug!(session = hint.session_id, event = ?kind(&hint.event), "event");
        let destination = self.store.call(|store| store.accept(std::slice::from_ref(&hint), &[]))?;
        if let (Some(secret), Some(&destination)) = (secret, destination.first()) {
            let _ = self.orders.send(Order::Key(destination, hint.destination.clone(), secret));
        }
        // Told from a task of its own, so that the hook has its answer before the engine starts to work.
        let engine = self.engine.clone();
        tokio::spawn(async move { engine.send(Input::Hint(Box::new(hint))) });
        Ok(())
    }

    /// Takes what hooks left in the spool directory, and removes what is stored. Returns how many files were taken.
    pub fn drain(&self, spool: &Path) -> usize {
        let Ok(entries) = std::fs::read_dir(spool) else { return 0 };
        let mut files: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
        // Names begin with the time: the order in which things happened.
        files.sort();
        let mut taken = 0;
        for path in files {
            let Ok(meta) = std::fs::symlink_metadata(&path) else { continue };
            if !meta.is_file() || meta.uid() != rustix::process::geteuid().as_raw() {
                continue;
            }
            let age = meta.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok()).unwrap_or_default();
            let is_event = path.extension().is_some_and(|ext| ext == "event");
            if is_event {
                let bytes = if meta.len() as usize <= MAX_FRAME {
                    std::fs::read(&path).unwrap_or_default()
                } else {
                    Vec::new()
                };
                if self.take(&bytes).is_err() {
                    return taken;
                }
                taken += 1;
            }
            if is_event || age > ABANDONED {
                let _ = std::fs::remove_file(&path);
            }
        }
        taken
    }
}

/// The kind of an event, without what the model said.
fn kind(event: &hook::Event) -> &'static str {
    match event {
        hook::Event::Stopped { .. } => "stopped",
        hook::Event::Ended => "ended",
        hook::Event::AgentStopped { .. } => "agent stopped",
        hook::Event::Other => "other",
    }
}
