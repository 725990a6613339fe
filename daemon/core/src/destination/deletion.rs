//! How traces are deleted at a server: which requests that takes, and what is known afterwards. Delivery makes the requests.

use bytes::Bytes;
use http::{Request, Response};
use serde_json::Value as Json;

use super::Destination;
use crate::secret::Secrets;

/// How a kind of server deletes traces. Traces are named by their ids in hex.
pub trait Deletion: Sync {
    /// Asks whether this is a server that deletes; `None` if every one of the kind does.
    fn identify(&self, _to: &Destination, _secrets: &Secrets) -> Option<Request<Bytes>> {
        None
    }

    /// True if such a server gave this answer.
    fn is_known(&self, _answer: &Response<Bytes>) -> bool {
        true
    }

    /// Asks where a trace is, if its deletion has to name that.
    fn find(&self, _to: &Destination, _secrets: &Secrets, _trace: &str) -> Option<Request<Bytes>> {
        None
    }

    /// The place in the answer.
    fn place(&self, _answer: &Json) -> Option<String> {
        None
    }

    /// True if this 404 means that there is no such trace, rather than no such API.
    fn is_absent(&self, _said: &str) -> bool {
        true
    }

    /// Asks for the deletion of traces at `place`, which is empty where none has to be named; at most [`most`](Self::most) of them.
    fn delete(&self, to: &Destination, secrets: &Secrets, place: &str, traces: &[String]) -> Request<Bytes>;

    /// How many traces one request can delete.
    fn most(&self) -> usize;

    /// Asks for the deletion of the files that were stored beside a trace, if there may be any. A server that has none, or keeps them
    /// elsewhere, may refuse.
    fn files(&self, _to: &Destination, _secrets: &Secrets, _place: &str, _trace: &str) -> Option<Request<Bytes>> {
        None
    }

    /// What is known once that is answered.
    fn certainty(&self) -> Certainty;
}

/// What is known of traces whose deletion was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certainty {
    /// The server deletes in its own time.
    Asked,
    /// It has deleted, which [`Deletion::find`] shows.
    Found,
    /// It stores in its own time, so that a trace may come after its deletion: that is asked for until the server knows of none.
    Repeated,
}

/// What became of traces that were to be deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// They were there and are gone.
    pub gone: usize,
    /// The server did not know them.
    pub absent: usize,
    /// The server was asked, and deletes in its own time.
    pub asked: usize,
}
