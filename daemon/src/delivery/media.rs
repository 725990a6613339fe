//! The lane of images and documents: uploads them one by one beside the spans, which never wait for it. The backend decides
//! each request and what its answer means.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, header};
use sha2::{Digest, Sha256};

use super::{
    client::{AGENT, Hyper, Limits},
    connect::Route,
    exchange::exchange,
    reply::Asked,
    worker::{After, At, Lane, chance},
};
use crate::{
    clock::{monotonic, now_ms},
    store::{self, media::Link},
};
use cc_core::{
    delivery::policy::backoff,
    destination::{
        Destination, Endpoint,
        upload::{self, Answered, MOST_REQUESTS, Next, Outcome, Place, Reason, Upload},
    },
    ids::hex,
    media::Hash,
    secret::Secrets,
    verdict::{Answer, Verdict},
};

/// A storage may take a while for a large upload.
const LIMITS: Limits =
    Limits { connect: Duration::from_secs(10), stall: Duration::from_secs(30), answer: Duration::from_secs(60) };

/// Spans wait for this question, so it gets little time.
const QUESTION: Limits =
    Limits { connect: Duration::from_secs(5), stall: Duration::from_secs(5), answer: Duration::from_secs(5) };

/// How long a server may answer without accepting an upload before that is given up.
const MAX_WAIT: Duration = Duration::from_secs(7 * 24 * 3600);

#[derive(Default)]
pub(super) struct Media {
    /// Failed tries in a row.
    failures: u32,
    /// The last one was refused, and that was logged.
    was_refused: bool,
}

pub(super) struct Way {
    client: Hyper,
    endpoint: Endpoint,
    key: (String, Secrets),
}

impl Lane for Media {
    type Batch = Link;
    type Way = Way;

    const WHAT: &str = "images and documents";

    fn limits(&self) -> Limits {
        LIMITS
    }

    fn way(&self, route: Route, to: &Destination, secrets: &Secrets) -> Result<Way, String> {
        match route {
            Route::Server(server) => {
                let (client, endpoint) = *server;
                Ok(Way::new(client, endpoint, to, secrets))
            }
            Route::Files(_) => Err("nothing is uploaded to a directory".into()),
        }
    }

    fn claim(&self, at: &At) -> Result<Option<Link>, store::Error> {
        at.keys.store.call(|store| store.next_media(at.id))
    }

    async fn send(&mut self, at: &At, way: &Way, link: &mut Link) -> After {
        let to = &at.keys.destination;
        let outcome = match way.upload(at, link).await {
            // If spans do not arrive either, it may be another server, or one that is starting up.
            Outcome::Never(Reason::Unsupported, why) if !Way::takes_spans(at) => Outcome::Later(None, why),
            Outcome::Later(_, why) if now_ms().saturating_sub(link.queued_ms) > MAX_WAIT.as_millis() as i64 => {
                Outcome::Never(Reason::Refused, why)
            }
            outcome => outcome,
        };
        match outcome {
            Outcome::Done => {
                (self.failures, self.was_refused) = (0, false);
                at.keep_trying(Self::WHAT, |store| store.media_settled(at.id, link, None)).await;
                After::Delivered
            }
            Outcome::Never(reason, why) => {
                self.failures = 0;
                if !std::mem::replace(&mut self.was_refused, true) {
                    let span = format!("{}/{}", hex(&link.trace_id), hex(&link.span_id));
                    tracing::warn!(to = to.address, span, why, "an image or document is not taken");
                }
                at.keep_trying(Self::WHAT, |store| store.media_settled(at.id, link, Some(reason.name()))).await;
                After::Next
            }
            Outcome::Later(after, why) => self.wait(after, why),
            Outcome::Away(why) => self.wait(None, why),
            Outcome::Park(why) => After::Park(false, why),
        }
    }

    fn no_way(&mut self, verdict: Verdict) -> After {
        match verdict {
            Verdict::Delivered | Verdict::Elsewhere(_) => After::Next,
            Verdict::Later(after, why) => self.wait(after, why),
            Verdict::Silent(why) => self.wait(None, why),
            Verdict::Park(why) | Verdict::Refused(why) | Verdict::TooLarge(why) => After::Park(false, why),
        }
    }

    fn postpone(&mut self, at: &At, link: &Link, _: &'static str, _: Duration, why: &str, news: bool) {
        if news && !self.was_refused {
            let to = &at.keys.destination.address;
            tracing::warn!(to, why, "images and documents cannot be uploaded; trying again, spans do not wait");
        }
        if let Err(error) = at.keys.store.call(|store| store.media_postponed(link, why)) {
            tracing::warn!(%error, "why an image or document waits cannot be stored");
        }
    }
}

impl Media {
    fn wait(&mut self, after: Option<Duration>, why: String) -> After {
        let wait = backoff(self.failures, chance()).max(after.unwrap_or_default());
        self.failures = self.failures.saturating_add(1);
        After::Wait(wait, after.is_some_and(|after| !after.is_zero()), why)
    }
}

impl Way {
    pub(super) fn new(client: Hyper, endpoint: Endpoint, to: &Destination, secrets: &Secrets) -> Self {
        Self { client, endpoint, key: (to.account.clone(), secrets.clone()) }
    }

    pub(super) fn place<'a>(&'a self, to: &'a Destination) -> Place<'a> {
        Place { to, secrets: &self.key.1, endpoint: &self.endpoint }
    }

    /// True if spans arrive there.
    pub(super) fn takes_spans(at: &At) -> bool {
        let row = at.keys.store.call(|store| store.destination(at.id)).ok().flatten();
        row.is_some_and(|row| row.state == "ok" && row.last_success_ms.is_some())
    }

    /// False if the server never accepts uploads, and whether that is certain.
    pub(super) async fn takes(&self, to: &Destination) -> (bool, bool) {
        let Some(api) = to.kind.backend().media() else { return (true, true) };
        let place = self.place(to);
        let Some(question) = api.question(&place) else { return (true, true) };
        let answer = self.exchange(question, Asked::Api, QUESTION).await;
        let is_certain = matches!(upload::outcome(&answer.answer), Outcome::Done | Outcome::Never(..));
        (api.takes(&answer), is_certain)
    }

    async fn upload(&self, at: &At, link: &Link) -> Outcome {
        let to = &at.keys.destination;
        let Some(api) = to.kind.backend().media() else {
            return Outcome::Never(Reason::Unsupported, "its kind of server takes none".into());
        };
        let upload = Upload {
            hash: link.hash,
            kind: link.kind.clone(),
            length: link.length,
            trace_id: link.trace_id,
            span_id: link.span_id,
            field: link.field.clone(),
            tries: link.tries,
        };
        let place = self.place(to);
        let mut answers = Vec::new();
        while answers.len() < MOST_REQUESTS {
            let (request, asked) = match api.next(&place, &upload, &answers) {
                Next::End(outcome) => return outcome,
                Next::Ask(request) => (request, Asked::Api),
                Next::Send(request) => match bytes(at, link) {
                    Some(bytes) => (request.map(|()| bytes), Asked::Api),
                    None => return lost(),
                },
                Next::Store(request) => match bytes(at, link) {
                    Some(bytes) => (request.map(|()| bytes), Asked::Storage),
                    None => return lost(),
                },
            };
            answers.push(self.exchange(request, asked, LIMITS).await);
        }
        Outcome::Later(None, format!("{MOST_REQUESTS} requests came to no end"))
    }

    pub(super) async fn exchange(&self, mut request: Request<Bytes>, asked: Asked, limits: Limits) -> Answered {
        request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static(AGENT));
        let started = monotonic();
        let (mut answer, response) = match exchange(&self.client, request, &self.key, limits, asked).await {
            Ok(done) => (done.answer, Some(done.response)),
            Err(failed) => (failed.answer(), None),
        };
        if let (Asked::Storage, Answer::Response { body, .. }) = (asked, &mut answer) {
            body.clear();
        }
        Answered { answer, response, took: started.elapsed(), at_ms: now_ms() }
    }
}

/// The bytes, unless they are damaged.
fn bytes(at: &At, link: &Link) -> Option<Bytes> {
    let bytes = at.keys.store.call(|store| store.media_bytes(at.id, &link.hash)).ok().flatten()?;
    (Hash::from(Sha256::digest(&bytes)) == link.hash).then(|| bytes.into())
}

fn lost() -> Outcome {
    Outcome::Never(Reason::Lost, "its bytes are not there any more".into())
}
