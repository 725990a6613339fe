//! One task per destination: uploads images and documents beside the spans, which never wait for it.
//!
//! Langfuse is asked for an address, gets the bytes there, and is told how that went. The question alone links an image or
//! document it has already to one more observation.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Method, Request, Response, Uri, header, request::Builder};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{
    access::Access,
    client::{AGENT, Hyper, Limits, client},
    exchange::exchange,
    exporter::{IDLE, Signals, chance},
    reply::Asked,
};
use crate::{
    clock::{self, now_ms},
    store::{DestinationId, Store, media::Link},
};
use cc_core::{
    delivery::policy::{PROBE, backoff},
    destination::{
        Destination, is_loopback,
        langfuse::{self, encode::media_id},
    },
    ids::hex,
    media::Hash,
    secret::Secrets,
    verdict::{Answer, Verdict, judge},
};

/// A storage may need a while for what is large.
const LIMITS: Limits =
    Limits { connect: Duration::from_secs(10), stall: Duration::from_secs(30), answer: Duration::from_secs(60) };

/// What an address was given for may be refused this often: addresses expire.
const REFUSALS: u32 = 5;

/// What a server has answered, and not taken, for this long it never will.
const PATIENCE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Counted when a server does not take an image or document.
const REFUSED: &str = "media_refused";

/// Counted when a server knows nothing of media.
const UNKNOWN: &str = "media_unsupported";

/// Counted when the bytes are not there, or not those that were stored.
const LOST: &str = "media_lost";

pub(super) struct Uploader {
    id: DestinationId,
    access: Access,
    signals: Signals,
    way: Option<Way>,
    failures: u32,
    /// The wait at hand is the server's wish, so nobody hurries it.
    asked_to_wait: bool,
    /// A change of that is worth a line in the log.
    well: bool,
}

/// What became of a try.
enum Outcome {
    Done,
    /// Try again, not before this long. The server has said something.
    Later(Option<Duration>, String),
    /// The same; it could not be reached.
    Away(String),
    /// Nothing will get better by itself.
    Park(String),
    /// It is never taken; counted under this name.
    Never(&'static str, String),
}

impl Uploader {
    pub(super) fn new(id: DestinationId, access: Access, signals: Signals) -> Self {
        Self { id, access, signals, way: None, failures: 0, asked_to_wait: false, well: true }
    }

    /// Runs until its task is dropped.
    pub(super) async fn run(mut self) {
        loop {
            let id = self.id;
            let link = match self.access.store.call(|store| store.next_media(id)) {
                Ok(Some(link)) => link,
                Ok(None) => {
                    if tokio::time::timeout(IDLE, self.signals.wake.notified()).await.is_err() {
                        self.way = None;
                        self.signals.wake.notified().await;
                    }
                    continue;
                }
                Err(error) => {
                    tracing::warn!(%error, "what is to be uploaded cannot be read");
                    tokio::time::sleep(Duration::from_secs(5)).await;
                    continue;
                }
            };
            if self.access.has_changed() {
                self.way = None;
            }
            let outcome = match self.connect() {
                Ok(()) => self.upload(&link).await,
                Err(why) => Outcome::Park(why),
            };
            self.act(&link, outcome).await;
        }
    }

    fn connect(&mut self) -> Result<(), String> {
        if self.way.is_none() {
            let secrets = self.access.secrets().map_err(|(_, why)| why)?;
            let way = Way::new(&self.access.destination, secrets).map_err(|error| format!("{error:#}"))?;
            self.way = Some(way);
        }
        Ok(())
    }

    async fn upload(&self, link: &Link) -> Outcome {
        let Some(way) = &self.way else { return Outcome::Away(String::new()) };
        let outcome = way.upload(link, || {
            let bytes = self.access.store.call(|store| store.media_bytes(self.id, &link.hash)).ok().flatten();
            bytes.filter(|bytes| Hash::from(Sha256::digest(bytes)) == link.hash)
        });
        match outcome.await {
            // Where nothing else arrives either, the server may be another one, or not yet itself.
            Outcome::Never(UNKNOWN, why) if !self.takes_spans() => Outcome::Later(None, why),
            Outcome::Later(_, why) if now_ms().saturating_sub(link.queued_ms) > PATIENCE.as_millis() as i64 => {
                Outcome::Never(REFUSED, why)
            }
            outcome => outcome,
        }
    }

    fn takes_spans(&self) -> bool {
        let row = self.access.store.call(|store| store.destination(self.id)).ok().flatten();
        row.is_some_and(|row| row.state == "ok" && row.last_success_ms.is_some())
    }

    async fn act(&mut self, link: &Link, outcome: Outcome) {
        let (id, to) = (self.id, self.access.destination.address.clone());
        self.asked_to_wait = matches!(&outcome, Outcome::Later(Some(wait), _) if !wait.is_zero());
        let (wait, why) = match outcome {
            Outcome::Done => {
                if !std::mem::replace(&mut self.well, true) {
                    tracing::info!(to, "uploading again");
                }
                self.failures = 0;
                return self.change(|store| store.media_settled(id, link, None)).await;
            }
            Outcome::Never(reason, why) => {
                if std::mem::replace(&mut self.well, false) {
                    let span = format!("{}/{}", hex(&link.trace_id), hex(&link.span_id));
                    tracing::warn!(to, span, why, "an image or document is not taken");
                }
                self.failures = 0;
                return self.change(|store| store.media_settled(id, link, Some(reason))).await;
            }
            Outcome::Later(after, why) => (backoff(self.failures, chance()).max(after.unwrap_or_default()), why),
            Outcome::Away(why) => (backoff(self.failures, chance()), why),
            Outcome::Park(why) => {
                self.access.was_refused();
                self.way = None;
                (PROBE, why)
            }
        };
        self.failures = self.failures.saturating_add(1);
        if std::mem::replace(&mut self.well, false) {
            tracing::warn!(to, why, "images and documents cannot be uploaded; trying again, spans do not wait");
        }
        self.change(|store| store.media_postponed(link, &why)).await;
        self.pause(wait).await;
    }

    /// Repeats a change until the database takes it.
    async fn change(&self, work: impl Fn(&mut Store) -> crate::store::Result<()> + Send) {
        while let Err(error) = self.access.store.call(&work) {
            tracing::warn!(%error, "what is to be uploaded cannot be changed; trying again");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Waits, but not longer than it takes for somebody to hurry or to bring another key, unless the server asked to wait.
    async fn pause(&self, wait: Duration) {
        let (mut trust, mut key) = (self.access.trust.clone(), self.access.key.clone());
        let hurried = async {
            self.signals.hurry.notified().await;
            if self.asked_to_wait {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = hurried => {}
            Ok(()) = trust.changed(), if !self.asked_to_wait => {}
            Ok(()) = key.changed(), if !self.asked_to_wait => {}
        }
    }
}

/// The way to one destination's media.
struct Way {
    client: Hyper,
    destination: Destination,
    secrets: Secrets,
}

impl Way {
    fn new(destination: &Destination, secrets: Secrets) -> anyhow::Result<Self> {
        Ok(Self { client: client(destination, LIMITS)?, destination: destination.clone(), secrets })
    }

    async fn upload(&self, link: &Link, bytes: impl FnOnce() -> Option<Vec<u8>>) -> Outcome {
        let hash = STANDARD.encode(link.hash);
        let question = json!({
            "contentType": link.kind, "contentLength": link.length, "sha256Hash": hash,
            "traceId": hex(&link.trace_id), "observationId": hex(&link.span_id), "field": link.field,
        });
        let answer = match self.ask(Method::POST, "", &question).await {
            Ok(body) => body,
            Err(outcome) => return outcome,
        };
        let to = match serde_json::from_slice(&answer) {
            Ok(serde_json::Value::Object(answer)) => answer.get("uploadUrl").cloned().unwrap_or_default(),
            // A receiver that says yes to whatever comes: an OTLP collector, a relay.
            _ => return Outcome::Never(UNKNOWN, "its answer does not come from Langfuse's media API".into()),
        };
        let Some(to) = to.as_str() else { return Outcome::Done };
        let Some(to) = to.parse::<Uri>().ok().filter(|to| self.is_private(to)) else {
            return Outcome::Never(REFUSED, "the address to upload to is not one with https".into());
        };
        let Some(bytes) = bytes() else {
            return Outcome::Never(LOST, "its bytes are not there any more".into());
        };
        let started = clock::monotonic();
        let uploaded = self.put(to, link, &hash, bytes).await;
        let Answer::Response { status, .. } = uploaded else { return outcome(&uploaded) };
        let taken = (200..300).contains(&status);
        if let Answer::Response { denial: Some(why), .. } = &uploaded {
            return Outcome::Later(None, format!("the storage: HTTP {status}, but {why}"));
        }
        let report = json!({
            "uploadedAt": jiff::Timestamp::from_millisecond(now_ms()).map(|at| at.to_string()).unwrap_or_default(),
            "uploadHttpStatus": status,
            "uploadHttpError": (!taken).then(|| format!("HTTP {status}")),
            "uploadTimeMs": started.elapsed().as_millis() as u64,
        });
        let told = self.ask(Method::PATCH, &format!("/{}", media_id(&link.hash)), &report).await;
        match judge(&uploaded) {
            // Without the report the server does not show what it has.
            Verdict::Delivered => told.map_or_else(|outcome| outcome, |_| Outcome::Done),
            Verdict::Later(wait, why) => Outcome::Later(wait, format!("the storage: {why}")),
            _ if link.tries + 1 < REFUSALS => Outcome::Later(None, format!("the storage: HTTP {status}")),
            _ => Outcome::Never(REFUSED, format!("the storage: HTTP {status}")),
        }
    }

    /// Says something to the media API.
    async fn ask(&self, method: Method, path: &str, body: &serde_json::Value) -> Result<Bytes, Outcome> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}/api/public/media{path}", self.destination.address))
            .header(header::AUTHORIZATION, langfuse::auth(&self.destination, &self.secrets))
            .header(header::CONTENT_TYPE, "application/json");
        let (answer, response) = self.send(request, body.to_string().into(), Asked::Api).await;
        match (outcome(&answer), response) {
            (Outcome::Done, Some(response)) => Ok(response.into_body()),
            (outcome, _) => Err(outcome),
        }
    }

    /// Puts the bytes where the server wants them. That is no business of the key's, and what is said there of nobody else's.
    async fn put(&self, to: Uri, link: &Link, hash: &str, bytes: Vec<u8>) -> Answer {
        let host = to.host().unwrap_or_default();
        let of_google = host == "storage.googleapis.com" || host.ends_with(".storage.googleapis.com");
        let mut request = Request::put(to).header(header::CONTENT_TYPE, &link.kind);
        if !of_google {
            request = request.header("x-amz-checksum-sha256", hash).header("x-ms-blob-type", "BlockBlob");
        }
        match self.send(request, bytes.into(), Asked::Storage).await.0 {
            Answer::Response { status, retry_after, date, denial, .. } => {
                let denial = denial.map(|_| "that is not what a storage says".to_owned());
                Answer::Response { status, retry_after, date, rejected: None, denial, body: String::new() }
            }
            answer => answer,
        }
    }

    async fn send(&self, request: Builder, body: Bytes, asked: Asked) -> (Answer, Option<Response<Bytes>>) {
        let request = match request.header(header::USER_AGENT, AGENT).body(body) {
            Ok(request) => request,
            Err(error) => return (Answer::Unreachable(error.to_string()), None),
        };
        let key = (self.destination.account.clone(), self.secrets.clone());
        match exchange(&self.client, request, &key, LIMITS, asked).await {
            Ok(done) => (done.answer, Some(done.response)),
            Err(failed) => (failed.answer(), None),
        }
    }

    /// Nobody reads along on the way there: over TLS, or as the server itself without leaving this machine.
    fn is_private(&self, to: &Uri) -> bool {
        let own = self.destination.address.parse::<Uri>();
        to.scheme_str() == Some("https")
            || to.scheme_str() == Some("http") && is_loopback(to) && own.is_ok_and(|own| is_loopback(&own))
    }
}

/// What an answer of the media API means.
fn outcome(answer: &Answer) -> Outcome {
    let status = if let Answer::Response { status, .. } = answer { *status } else { 0 };
    match (judge(answer), status) {
        (Verdict::Delivered, _) => Outcome::Done,
        (Verdict::Later(_, why), 0) | (Verdict::Silent(why), _) => Outcome::Away(why),
        (Verdict::Later(wait, why), _) => Outcome::Later(wait, why),
        // A page in place of an answer: that may be over soon, or the server knows nothing of media.
        (Verdict::Park(why), 200..=299) => Outcome::Later(None, why),
        (Verdict::Park(why), 404 | 405) => Outcome::Never(UNKNOWN, why),
        (Verdict::Park(why), 0 | 300..=399 | 401 | 403) => Outcome::Park(why),
        (Verdict::Park(why) | Verdict::Refused(why) | Verdict::TooLarge(why), _) => Outcome::Never(REFUSED, why),
    }
}
