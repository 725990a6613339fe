//! The way to a destination: to a server, or to a directory in the place of one.

use std::{path::PathBuf, time::Duration};

use super::{
    connect::Route,
    folder::{self, Trouble},
    transport::{Limits, Transport},
};
use crate::clock::now_ms;
use cc_core::{
    destination::{Destination, Folder, wire::WireSpan},
    secret::Secrets,
    verdict::Answer,
};

/// What takes spans.
pub(super) enum Link {
    Server(Box<Transport>),
    Files(Folder),
}

impl Link {
    /// On this route to `destination`, with `secrets`.
    ///
    /// # Errors
    /// Why nothing can be sent there.
    pub(super) fn new(
        route: Route,
        destination: &Destination,
        secrets: &Secrets,
        limits: Limits,
    ) -> anyhow::Result<Self> {
        Ok(match route {
            Route::Files(folder) => Self::Files(folder),
            Route::Server(server) => {
                let (client, endpoint) = *server;
                Self::Server(Box::new(Transport::new(client, destination, endpoint, secrets, limits)?))
            }
        })
    }

    /// Sends a batch that may be answered within `limit` of its last byte; says what came back, and how long after that.
    pub(super) async fn send_with(&self, spans: Vec<WireSpan>, limit: Duration) -> (Answer, Duration) {
        match self {
            Self::Server(transport) => transport.send_with(spans, limit).await,
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
