//! The way to a destination: to a server, or to a directory in the place of one.

use std::{path::PathBuf, time::Duration};

use super::{
    connect::Known,
    folder::{self, Trouble},
    transport::{Limits, Transport},
};
use crate::clock::now_ms;
use cc_core::{
    destination::{Connect, Destination, Folder, wire::WireSpan},
    secret::Secrets,
    verdict::{Answer, Verdict},
};

/// What takes spans.
pub(super) enum Link {
    Server(Box<Transport>),
    Files(Folder),
}

impl Link {
    /// To `destination` with `secrets`. A server is asked where it takes spans only if that is not `known`, and it is afterwards.
    ///
    /// # Errors
    /// The verdict on why there is no way.
    pub(super) async fn known(
        destination: &Destination,
        secrets: &Secrets,
        limits: Limits,
        known: &mut Option<Known>,
    ) -> Result<Self, Verdict> {
        match destination.kind.backend().connect(destination, secrets, &[]) {
            Connect::Files(folder) => Ok(Self::Files(folder)),
            Connect::Ready(_) | Connect::Ask(_) | Connect::Park(_) => {
                Transport::known(destination, secrets, limits, known).await.map(|to| Self::Server(Box::new(to)))
            }
        }
    }

    /// Sends a batch that may be answered within `patience` of its last byte; says what came back, and how long after that.
    pub(super) async fn send_with(&self, spans: Vec<WireSpan>, patience: Duration) -> (Answer, Duration) {
        match self {
            Self::Server(transport) => transport.send_with(spans, patience).await,
            Self::Files(folder) => (write(folder.clone(), spans).await, Duration::ZERO),
        }
    }
}

async fn write(Folder { root, experiment }: Folder, spans: Vec<WireSpan>) -> Answer {
    let now = u64::try_from(now_ms()).unwrap_or_default();
    let written =
        tokio::task::spawn_blocking(move || folder::write(&PathBuf::from(root), &experiment, &spans, now)).await;
    match written {
        Ok(Ok(())) => Answer::Response {
            status: 200,
            retry_after: None,
            date: None,
            rejected: None,
            denial: None,
            body: String::new(),
        },
        Ok(Err(Trouble::Later(why))) => Answer::Unreachable(why),
        Ok(Err(Trouble::Park(why))) => Answer::Unwritable(why),
        Err(error) => Answer::Unreachable(error.to_string()),
    }
}
