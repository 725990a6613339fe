//! How a kind of server deletes traces: which requests that takes, and what is certain afterwards. Delivery makes the requests.

use bytes::Bytes;
use http::{Request, Response};
use serde_json::Value as Json;

use super::Destination;
use crate::secret::Secrets;

/// Traces are named by their ids in hex.
pub trait Deletion: Sync {
    /// Asks whether the server at `to` can delete; `None` if every server of the kind can.
    fn identify(&self, _to: &Destination, _secrets: &Secrets) -> Option<Request<Bytes>> {
        None
    }

    /// True if the answer to [`identify`](Self::identify) says so.
    fn is_known(&self, _answer: &Response<Bytes>) -> bool {
        true
    }

    /// Asks which place a trace is in, if deleting it must name one (MLflow: the experiment).
    fn find(&self, _to: &Destination, _secrets: &Secrets, _trace: &str) -> Option<Request<Bytes>> {
        None
    }

    /// The place in that answer.
    fn place(&self, _answer: &Json) -> Option<String> {
        None
    }

    /// True if a 404 with this body means that there is no such trace, rather than no such API.
    fn is_absent(&self, _said: &str) -> bool {
        true
    }

    /// Asks for the deletion of at most [`most`](Self::most) traces in `place`, which is empty where none is needed.
    fn delete(&self, to: &Destination, secrets: &Secrets, place: &str, traces: &[String]) -> Request<Bytes>;

    /// Asks for the deletion of what the server has of the session itself, beside its traces.
    fn beside(&self, _to: &Destination, _secrets: &Secrets, _session_id: &str) -> Option<Request<Bytes>> {
        None
    }

    /// How many traces one request can delete.
    fn most(&self) -> usize;

    /// Asks for the deletion of files stored beside a trace, if it may have some. The server may refuse.
    fn files(&self, _to: &Destination, _secrets: &Secrets, _place: &str, _trace: &str) -> Option<Request<Bytes>> {
        None
    }

    /// What is certain once these are answered.
    fn certainty(&self) -> Certainty;
}

/// What is certain about traces after the server was asked to delete them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certainty {
    /// The server will delete them in its own time.
    Asked,
    /// They are deleted, and [`Deletion::find`] proves it.
    Found,
    /// The server also stores in its own time, so a trace can arrive after its deletion: deletion is repeated
    /// until nothing is left.
    Repeated,
}

/// How many traces were deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// They existed and are deleted.
    pub gone: usize,
    /// The server did not have them.
    pub absent: usize,
    /// The server has accepted the request and deletes in its own time.
    pub asked: usize,
}
