//! The conversation with a server about one image or document beside its spans. Delivery makes the requests, a backend says which.

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

/// Most requests for one image or document.
pub const MOST_REQUESTS: usize = 8;

/// How a kind of server takes images and documents.
pub trait MediaApi: Sync {
    /// What the server must be asked before a span can name an image or document that is uploaded; `None` if nothing.
    fn question(&self, _at: &Place<'_>) -> Option<Request<Bytes>> {
        None
    }

    /// False if the answer to that says that the server never takes any.
    fn takes(&self, _answer: &Answered) -> bool {
        true
    }

    /// What comes next, after these answers to what came before.
    fn next(&self, at: &Place<'_>, upload: &Upload, answers: &[Answered]) -> Next;
}

/// Where it goes, and how to get in.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// The destination.
    pub to: &'a Destination,
    /// Its secrets.
    pub secrets: &'a Secrets,
    /// Where it takes spans.
    pub endpoint: &'a Endpoint,
}

/// An image or document that a span shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// The hash of its bytes.
    pub hash: Hash,
    /// Its media type.
    pub kind: String,
    /// How many bytes it has.
    pub length: u64,
    /// The trace.
    pub trace_id: TraceId,
    /// The span.
    pub span_id: SpanId,
    /// Where in the span it stands.
    pub field: String,
    /// How often it was tried in vain.
    pub tries: u32,
}

/// The next step.
#[derive(Debug)]
pub enum Next {
    /// This request of the server's API.
    Ask(Request<Bytes>),
    /// The same, with the bytes of the image or document as its body.
    Send(Request<()>),
    /// The bytes, to a storage that somebody else may run: it is sent no credentials, and is not quoted.
    Store(Request<()>),
    /// The end.
    End(Outcome),
}

/// What came back for a request.
#[derive(Debug)]
pub struct Answered {
    /// What it says.
    pub answer: Answer,
    /// The response, if one came.
    pub response: Option<Response<Bytes>>,
    /// From the beginning of the request to the end of the response.
    pub took: Duration,
    /// When the response came, Unix milliseconds.
    pub at_ms: i64,
}

/// What became of a try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server has it.
    Done,
    /// Try again, not before this long. The server has said something.
    Later(Option<Duration>, String),
    /// The same; it could not be reached.
    Away(String),
    /// Somebody has to fix something first.
    Park(String),
    /// It is never taken.
    Never(Reason, String),
}

/// Why an image or document is never taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The server does not want it.
    Refused,
    /// The server knows nothing of media.
    Unsupported,
    /// Its bytes are not there, or not those that were stored.
    Lost,
}

impl Reason {
    /// The name under which it is counted.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refused => "media_refused",
            Self::Unsupported => "media_unsupported",
            Self::Lost => "media_lost",
        }
    }
}

/// What an answer of an API for media means by itself.
pub fn outcome(answer: &Answer) -> Outcome {
    let status = if let Answer::Response { status, .. } = answer { *status } else { 0 };
    match (judge(answer), status) {
        (Verdict::Delivered | Verdict::Elsewhere(_), _) => Outcome::Done,
        (Verdict::Later(_, why), 0) | (Verdict::Silent(why), _) => Outcome::Away(why),
        (Verdict::Later(wait, why), _) => Outcome::Later(wait, why),
        // A page in place of an answer: that may be over soon, or the server knows nothing of media.
        (Verdict::Park(why), 200..=299) => Outcome::Later(None, why),
        (Verdict::Park(why), 404 | 405) => Outcome::Never(Reason::Unsupported, why),
        (Verdict::Park(why), 0 | 300..=399 | 401 | 403) => Outcome::Park(why),
        (Verdict::Park(why) | Verdict::Refused(why) | Verdict::TooLarge(why), _) => {
            Outcome::Never(Reason::Refused, why)
        }
    }
}

/// Nobody reads along on the way to `address`: it goes over TLS, or, as to `to` itself, without leaving this machine.
pub fn is_private(address: &Uri, to: &Destination) -> bool {
    let own = to.address.parse::<Uri>();
    address.scheme_str() == Some("https")
        || address.scheme_str() == Some("http") && is_loopback(address) && own.is_ok_and(|own| is_loopback(&own))
}
