//! The dialogue with a server about uploading one image or document. A backend decides each step; delivery makes the requests.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};

use super::{Destination, Endpoint, is_loopback};
use crate::{
    ids::{SpanId, TraceId},
    media::Hash,
    secret::Secrets,
    verdict::{Answer, Verdict, judge},
};

/// How many requests one image or document may take at most.
pub const MOST_REQUESTS: usize = 8;

/// How a kind of server accepts images and documents.
pub trait MediaApi: Sync {
    /// A question that must be answered before a span can refer to an upload; `None` if there is none.
    fn question(&self, _at: &Place<'_>) -> Option<Request<Bytes>> {
        None
    }

    /// False if the answer says that the server never accepts uploads.
    fn takes(&self, _answer: &Answered) -> bool {
        true
    }

    /// The next step after these answers.
    fn next(&self, at: &Place<'_>, upload: &Upload, answers: &[Answered]) -> Next;
}

/// Where it is uploaded to.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    pub to: &'a Destination,
    pub secrets: &'a Secrets,
    /// The endpoint for spans.
    pub endpoint: &'a Endpoint,
}

/// An image or document that a span shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// SHA-256 of its bytes.
    pub hash: Hash,
    /// Media type.
    pub kind: String,
    /// In bytes.
    pub length: u64,
    pub trace_id: TraceId,
    pub span_id: SpanId,
    /// The field of the span that shows it.
    pub field: String,
    /// Failed tries so far.
    pub tries: u32,
}

#[derive(Debug)]
pub enum Next {
    /// Make this API request.
    Ask(Request<Bytes>),
    /// Make this API request, with the bytes of the image or document as its body.
    Send(Request<()>),
    /// Put the bytes into a storage that others may run: without credentials, and without showing its answers.
    Store(Request<()>),
    /// Stop: the try has ended.
    End(Outcome),
}

/// The answer to a request.
#[derive(Debug)]
pub struct Answered {
    /// The answer as [`judge`] takes it.
    pub answer: Answer,
    /// `None` if none came.
    pub response: Option<Response<Bytes>>,
    /// From the start of the request to the end of the response.
    pub took: Duration,
    /// Unix milliseconds.
    pub at_ms: i64,
}

/// How a try ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server has it.
    Done,
    /// The server answered. Try again, after this time if it says so.
    Later(Option<Duration>, String),
    /// The server could not be reached. Try again.
    Away(String),
    /// Someone has to fix something first.
    Park(String),
    /// The server will never accept it.
    Never(Reason, String),
}

/// Why it is never accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The server does not want it.
    Refused,
    /// The server has no media API.
    Unsupported,
    /// The stored bytes are missing or damaged.
    Lost,
}

impl Reason {
    /// The name under which `status` counts it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refused => "media_refused",
            Self::Unsupported => "media_unsupported",
            Self::Lost => "media_lost",
        }
    }
}

/// The meaning of a media API's answer if nothing more specific is known.
pub fn outcome(answer: &Answer) -> Outcome {
    let status = if let Answer::Response { status, .. } = answer { *status } else { 0 };
    match (judge(answer), status) {
        (Verdict::Delivered | Verdict::Elsewhere(_), _) => Outcome::Done,
        (Verdict::Later(_, why), 0) | (Verdict::Silent(why), _) => Outcome::Away(why),
        (Verdict::Later(wait, why), _) => Outcome::Later(wait, why),
        // A web page in place of an answer: either temporary, or the server has no media API.
        (Verdict::Park(why), 200..=299) => Outcome::Later(None, why),
        (Verdict::Park(why), 404 | 405) => Outcome::Never(Reason::Unsupported, why),
        (Verdict::Park(why), 0 | 300..=399 | 401 | 403) => Outcome::Park(why),
        (Verdict::Park(why) | Verdict::Refused(why) | Verdict::TooLarge(why), _) => {
            Outcome::Never(Reason::Refused, why)
        }
    }
}

/// True if nobody can read the traffic to `address`: it uses TLS, or stays on this machine as that to `to` does.
pub fn is_private(address: &Uri, to: &Destination) -> bool {
    let own = to.address.parse::<Uri>();
    address.scheme_str() == Some("https")
        || address.scheme_str() == Some("http") && is_loopback(address) && own.is_ok_and(|own| is_loopback(&own))
}
