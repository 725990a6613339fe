//! One HTTP request and its response. Time limits apply to silence, not to slow progress.

use std::{
    convert::Infallible,
    error::Error,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, Response, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Instant;

use super::{
    client::{Hyper, Limits},
    failure,
    reply::{self, Asked, Reply, Said},
};
use cc_core::{secret::Secrets, verdict::Answer};

/// Maximum length of an answer that is read, in bytes.
const ANSWER: usize = 1 << 20;

/// How many bytes of a request are passed on at a time.
const PIECE: usize = 16 << 10;

/// Maximum length of an answer that is shown, in characters.
const MAX_SHOWN: usize = 300;

/// A response and its body.
pub(super) struct Exchanged {
    pub(super) answer: Answer,
    pub(super) response: Response<Bytes>,
    /// From the end of the request to the beginning of the answer.
    pub(super) took: Duration,
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
#[error("{}", failure::plain(cause.as_ref(), server))]
pub(super) struct Failed {
    cause: Box<dyn Error + Send + Sync>,
    /// Host and port, as in the address.
    server: String,
    /// Part of the request was sent, so the server may have it.
    started: bool,
}

impl Failed {
    /// The same as an [`Answer`].
    pub(super) fn answer(&self) -> Answer {
        match self.to_string() {
            why if is_tls(self.cause.as_ref()) => Answer::Untrusted(why),
            why if self.started => Answer::Silent(why),
            why => Answer::Unreachable(why),
        }
    }
}

/// Sends a request and reads the response.
pub(super) async fn exchange(
    client: &Hyper,
    request: Request<Bytes>,
    (account, secrets): &(String, Secrets),
    limits: Limits,
    asked: Asked,
) -> Result<Exchanged, Failed> {
    let progress = Progress::default();
    let server = request.uri().authority().map(ToString::to_string).unwrap_or_default();
    let response = {
        let mut response =
            std::pin::pin!(client.request(request.map(|rest| Upload { rest, progress: progress.clone() })));
        loop {
            let until = progress.until(limits);
            tokio::select! {
                response = &mut response => break response.map_err(Into::into),
                () = tokio::time::sleep_until(until) => {}
            }
            if progress.until(limits) <= Instant::now() {
                let why = match progress.is_complete() {
                    true => format!("no answer within {:?}", limits.answer),
                    false if progress.has_started() => format!("nothing could be sent for {:?}", limits.stall),
                    false => format!("no answer within {:?}", limits.stall),
                };
                break Err(why.into());
            }
        }
    };
    let response = response.map_err(|cause| Failed { cause, server, started: progress.has_started() })?;
    let took = progress.since();
    let (parts, body) = response.into_parts();
    let body = read(body, limits.stall).await;
    let said = Said {
        status: parts.status.as_u16(),
        kind: value(&parts.headers, header::CONTENT_TYPE),
        encoding: value(&parts.headers, header::CONTENT_ENCODING),
        grpc_status: value(&parts.headers, HeaderName::from_static("grpc-status")),
        body: &body,
    };
    let safe = |text: &str| secrets.conceal(account, text);
    let shown = safe(&String::from_utf8_lossy(&body)).chars().filter(|c| !c.is_control()).take(MAX_SHOWN).collect();
    let (rejected, denial) = match parts.status.is_success().then(|| reply::read(asked, &said)) {
        None | Some(Reply::Taken(None)) => (None, None),
        Some(Reply::Taken(Some((count, why)))) => (Some((count, safe(&why))), None),
        Some(Reply::Foreign(what)) => (None, Some(safe(&foreign(&what)))),
        Some(Reply::Error) => {
            (None, Some(format!("the answer reports an error: {shown} (check the keys and the base URL)")))
        }
    };
    let answer = Answer::Response {
        status: parts.status.as_u16(),
        retry_after: value(&parts.headers, header::RETRY_AFTER).map(str::to_owned),
        date: value(&parts.headers, header::DATE)
            .map(str::to_owned)
            .or_else(|| Some(httpdate::fmt_http_date(crate::clock::wall()))),
        rejected,
        denial,
        body: shown,
    };
    Ok(Exchanged { answer, response: Response::from_parts(parts, body), took })
}

fn foreign(what: &str) -> String {
    format!(
        "{what} came in place of a receiver's answer: a network or proxy that wants a sign-in, or another application \
         (sign in there, or check the base URL)"
    )
}

fn value(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The part of a body that arrives in time. The status decides; a body that breaks off or stalls does not change that.
async fn read(mut body: Incoming, limit: Duration) -> Bytes {
    let mut read = Vec::new();
    let until = Instant::now() + limit;
    while let Ok(Some(Ok(frame))) = tokio::time::timeout_at(until, body.frame()).await {
        let piece = frame.into_data().unwrap_or_default();
        read.extend_from_slice(&piece[..piece.len().min(ANSWER - read.len())]);
        if read.len() == ANSWER {
            break;
        }
    }
    read.into()
}

/// The progress of a request.
#[derive(Clone)]
struct Progress(Arc<Mutex<At>>);

struct At {
    last: Instant,
    started: bool,
    complete: bool,
}

impl Default for Progress {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(At { last: Instant::now(), started: false, complete: false })))
    }
}

impl Progress {
    fn at(&self) -> MutexGuard<'_, At> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, complete: bool) {
        *self.at() = At { last: Instant::now(), started: true, complete };
    }

    fn has_started(&self) -> bool {
        self.at().started
    }

    fn is_complete(&self) -> bool {
        self.at().complete
    }

    fn since(&self) -> Duration {
        self.at().last.elapsed()
    }

    /// When the time limit ends unless there is progress.
    fn until(&self, limits: Limits) -> Instant {
        let at = self.at();
        at.last + if at.complete { limits.answer } else { limits.stall }
    }
}

/// The body of a request, in pieces.
pub(super) struct Upload {
    rest: Bytes,
    progress: Progress,
}

impl Upload {
    /// All of `body`; its progress is of no interest.
    pub(super) fn whole(body: Bytes) -> Self {
        Self { rest: body, progress: Progress::default() }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.rest.len().min(PIECE);
        let piece = self.rest.split_to(length);
        self.progress.note(self.rest.is_empty());
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

/// True if TLS was the problem, mostly a certificate.
fn is_tls(error: &(dyn Error + 'static)) -> bool {
    if error.is::<rustls::Error>() {
        return true;
    }
    // An I/O error's `source` skips the error it wraps.
    let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    inner.is_some_and(|inner| is_tls(inner)) || error.source().is_some_and(is_tls)
}
