//! What people see at a server, and what can be asked of it beside sending: who it takes us for, whether a trace shows, that traces
//! be deleted. Delivery makes the requests, a backend says which, and reads the answers.

use std::{borrow::Cow, time::Duration};

use bytes::Bytes;
use http::Request;
use serde_json::Value as Json;

use super::{Destination, wire::Value};
use crate::secret::Secrets;

/// The pages and APIs of a kind of server.
pub trait Pages: Sync {
    /// Asks which project the credentials belong to.
    fn whose(&self, to: &Destination, secrets: &Secrets) -> Request<Bytes>;

    /// The id and the name of the project in the answer, if there is one.
    fn project(&self, answer: &Json) -> Option<(String, String)>;

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

    /// Asks for the deletion of traces, by their ids in hex; at most [`Self::most_deleted`] of them.
    fn delete(&self, to: &Destination, secrets: &Secrets, traces: &[String]) -> Request<Bytes>;

    /// How many traces one request can delete.
    fn most_deleted(&self) -> usize;

    /// Attributes of a span that is sent to see whether it arrives: it costs nothing and belongs to no session.
    fn trial(&self, name: &str, environment: Option<&str>) -> Vec<(Cow<'static, str>, Value)>;
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
