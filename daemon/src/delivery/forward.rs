//! Passes Claude Code's telemetry on to where the user had it sent before this daemon received it, unchanged. Nothing waits for
//! that: what is not taken is counted and forgotten, as by Claude Code itself.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderMap, Request, Uri, header};
use tokio::sync::Semaphore;

use super::{
    client::{self, Hyper, Limits},
    exchange::Upload,
};
use cc_core::config::telemetry;

/// How many requests may be on their way.
const MAX_ON_THE_WAY: usize = 16;

/// A collector of the user's own. Cheap to clone.
#[derive(Clone)]
pub struct Forward {
    client: Hyper,
    base: String,
    headers: HeaderMap,
    room: Arc<Semaphore>,
    lost: Arc<AtomicU64>,
}

impl Forward {
    /// To the collector `to`. What it does not take is counted in `lost`.
    ///
    /// # Errors
    /// If its address or headers cannot be used, or TLS cannot be set up.
    pub fn new(to: &telemetry::Forward, lost: Arc<AtomicU64>) -> anyhow::Result<Self> {
        let client = client::open(&Default::default(), Limits::default())?;
        let base = to.address.trim_end_matches('/').to_owned();
        base.parse::<Uri>().with_context(|| format!("`{base}` is not an address"))?;
        let headers = to.header_map().map_err(anyhow::Error::msg)?;
        Ok(Self { client, base, headers, room: Arc::new(Semaphore::new(MAX_ON_THE_WAY)), lost })
    }

    /// Sends `body`, which came to `path` with `headers`, in a task of its own.
    pub fn send(&self, path: &str, headers: &HeaderMap, body: Bytes) {
        let Ok(room) = self.room.clone().try_acquire_owned() else {
            return self.count();
        };
        let mut request = Request::post(format!("{}{path}", self.base));
        if let Some(own) = request.headers_mut() {
            own.extend(self.headers.clone());
            for name in [header::CONTENT_TYPE, header::CONTENT_ENCODING] {
                if let Some(value) = headers.get(&name) {
                    own.insert(name, value.clone());
                }
            }
        }
        let this = self.clone();
        tokio::spawn(async move {
            let _room = room;
            let Ok(request) = request.body(Upload::whole(body)) else { return this.count() };
            let answer = tokio::time::timeout(Limits::default().answer, this.client.request(request)).await;
            if !matches!(answer, Ok(Ok(answer)) if answer.status().is_success()) {
                this.count();
            }
        });
    }

    fn count(&self) {
        if self.lost.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(to = self.base, "telemetry could not be passed on; more of it is only counted");
        }
    }
}
