//! The connection to a destination: to a server, or to a directory in place of one.

use std::{path::PathBuf, sync::OnceLock, time::Duration};

use super::{
    connect::Route,
    folder::{self, Trouble},
    media,
    transport::{Limits, Transport},
};
use crate::clock::now_ms;
use cc_core::{
    destination::{Destination, Folder, wire::WireSpan},
    secret::Secrets,
    verdict::Answer,
};

pub(super) enum Link {
    Server(Box<Server>),
    Files(Folder),
}

/// A server while it is connected.
pub(super) struct Server {
    transport: Transport,
    media: media::Way,
    /// Whether spans may refer to uploads; unset until the server was asked.
    takes_media: OnceLock<bool>,
}

impl Link {
    /// Over this `route` to `destination`, with `secrets`.
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
                let media = media::Way::new(client.clone(), endpoint.clone(), destination, secrets);
                let transport = Transport::new(client, destination, endpoint, secrets, limits)?;
                Self::Server(Box::new(Server { transport, media, takes_media: OnceLock::new() }))
            }
        })
    }

    /// Sends a batch, which the server may answer within `limit` after the last byte. Returns the answer and how long after the
    /// last byte it came.
    pub(super) async fn send_with(&self, spans: Vec<WireSpan>, limit: Duration) -> (Answer, Duration) {
        match self {
            Self::Server(server) => server.transport.send_with(spans, limit).await,
            Self::Files(folder) => (write(folder.clone(), spans).await, Duration::ZERO),
        }
    }

    /// False if `to` never accepts the images and documents that spans show. Asks only if a span shows one; a server that does
    /// not answer does not delay spans.
    pub(super) async fn takes_media(&self, to: &Destination) -> bool {
        let Self::Server(server) = self else { return true };
        if let Some(known) = server.takes_media.get() {
            return *known;
        }
        let (takes, is_certain) = server.media.takes(to).await;
        match is_certain {
            true => *server.takes_media.get_or_init(|| takes),
            false => takes,
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
