//! What people see at a server, and what can be asked of it beside sending: who it takes us for, whether a trace shows, what it is.
//! Delivery makes the requests, a backend says which, and reads the answers.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, header};
use serde_json::Value as Json;

use super::Destination;
use crate::secret::Secrets;

/// The pages and APIs of a kind of server.
pub trait Pages: Sync {
    /// Asks for the project of the credentials, or for the one in which traces are kept there.
    fn whose(&self, to: &Destination, secrets: &Secrets) -> Request<Bytes>;

    /// The id and the name of the project in the answer.
    ///
    /// # Errors
    /// What is wrong with the answer or the project, for people.
    fn project(&self, answer: &Json) -> Result<(String, String), String>;

    /// True if this 404 to [`whose`](Self::whose) means that the project is made with the first span.
    fn is_yet_to_come(&self, _to: &Destination, _said: &str) -> bool {
        false
    }

    /// What the server is asked about itself, once.
    fn about(&self, _to: &Destination, _secrets: &Secrets) -> Vec<Request<Bytes>> {
        Vec::new()
    }

    /// What the bodies of the answers say; `None` for one that did not come.
    fn remarks(&self, _bodies: &[Option<Bytes>]) -> Vec<Remark> {
        Vec::new()
    }

    /// Address of the page of a trace.
    fn trace(&self, to: &Destination, project: &Project, trace_id: &str) -> String;

    /// Address of the page of a session.
    fn session(&self, to: &Destination, project: &Project, session_id: &str) -> String;

    /// Names of the APIs that show a trace. A server may have only some of them.
    fn views(&self) -> &'static [&'static str];

    /// Asks one of them for a trace.
    fn view(&self, view: usize, to: &Destination, secrets: &Secrets, trace_id: &str) -> Request<Bytes>;

    /// True if this 200 shows the trace.
    fn shows(&self, view: usize, trace_id: &str, answer: &Json) -> bool;

    /// True if this 404 means that the server does not have this API, rather than not yet the trace.
    fn lacks(&self, view: usize, said: &str) -> bool;
}

/// What a page shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A trace, by its id in hex.
    Trace(&'a str),
    /// A session.
    Session(&'a str),
}

/// What is noteworthy about a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// What was seen.
    pub seen: String,
    /// What to do about it; `None` if all is well.
    pub remedy: Option<String>,
    /// Nothing arrives until that is done.
    pub is_grave: bool,
}

/// The project that credentials belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    /// Part of the addresses of its pages.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// The server's clock, in seconds since the epoch.
    pub date: Option<u64>,
}

/// What one API shows of a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It is there, so long after it was sent.
    Shown(Duration),
    /// Not, so far.
    NotYet,
    /// The server does not have this API.
    NoSuchApi,
    /// It cannot be asked.
    Failed(String),
}

/// A segment of an address.
pub(super) fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// A request to `address`; what is no address is refused when it is connected to.
pub(super) fn request(method: Method, address: &str, headers: header::HeaderMap, body: Bytes) -> Request<Bytes> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = address.parse().unwrap_or_default();
    *request.headers_mut() = headers;
    request
}
