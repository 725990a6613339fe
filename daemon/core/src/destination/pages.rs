//! What a server can be asked besides storing spans: the project of the credentials, whether a trace is there, its version; and
//! the addresses of its web pages. A backend builds requests and reads answers; delivery makes the requests.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, header};
use serde_json::Value as Json;

use super::Destination;
use crate::secret::Secrets;

/// The pages and APIs of a kind of server.
pub trait Pages: Sync {
    /// Asks for the project of the credentials, or the one that stores the traces.
    fn whose(&self, to: &Destination, secrets: &Secrets) -> Request<Bytes>;

    /// Id and name of the project in that answer.
    ///
    /// # Errors
    /// What is wrong with the answer or the project, for people.
    fn project(&self, answer: &Json) -> Result<(String, String), String>;

    /// True if this 404 means that the project is created with the first span.
    fn is_yet_to_come(&self, _to: &Destination, _said: &str) -> bool {
        false
    }

    /// Questions about the server itself.
    fn about(&self, _to: &Destination, _secrets: &Secrets) -> Vec<Request<Bytes>> {
        Vec::new()
    }

    /// Remarks on the answers; `None` for a question without an answer.
    fn remarks(&self, _bodies: &[Option<Bytes>]) -> Vec<Remark> {
        Vec::new()
    }

    /// Address of the page of a trace.
    fn trace(&self, to: &Destination, project: &Project, trace_id: &str) -> String;

    /// Address of the page of a session.
    fn session(&self, to: &Destination, project: &Project, session_id: &str) -> String;

    /// Names of the APIs that show a trace. A server may have only some of them.
    fn views(&self) -> &'static [&'static str];

    /// Asks one of these APIs for a trace.
    fn view(&self, view: usize, to: &Destination, secrets: &Secrets, trace_id: &str) -> Request<Bytes>;

    /// True if this 200 shows the trace.
    fn shows(&self, view: usize, trace_id: &str, answer: &Json) -> bool;

    /// True if this 404 means that the server lacks the API, rather than that the trace has not arrived.
    fn lacks(&self, view: usize, said: &str) -> bool;
}

/// Something that has a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// By its id in hex.
    Trace(&'a str),
    /// By its id.
    Session(&'a str),
}

/// A noteworthy fact about a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    pub seen: String,
    /// What to do about it; `None` if nothing.
    pub remedy: Option<String>,
    /// Nothing arrives until that is done.
    pub is_grave: bool,
}

/// The project that credentials belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    /// Part of its pages' addresses.
    pub id: String,
    pub name: String,
    /// The server's clock, in seconds since the epoch.
    pub date: Option<u64>,
}

/// Whether one API shows a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It does, this long after the trace was sent.
    Shown(Duration),
    NotYet,
    /// The server lacks this API.
    NoSuchApi,
    /// The API could not be asked.
    Failed(String),
}

/// `text` as one segment of an address, percent-encoded.
pub(super) fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// A request to `address`. An invalid address is refused when the connection is made.
pub(super) fn request(method: Method, address: &str, headers: header::HeaderMap, body: Bytes) -> Request<Bytes> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = address.parse().unwrap_or_default();
    *request.headers_mut() = headers;
    request
}
