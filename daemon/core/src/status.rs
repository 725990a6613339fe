//! What the daemon says of itself over its socket, and what it is asked: the JSON that `cc-langfusectl` and others read. What is
//! skipped is counted by reason in `skipped_lines`: count it where it is skipped, under a name of its own.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

pub mod history;

/// Reasons for which nothing is read until the user does something about it.
const REFUSED: [&str; 4] =
    ["transcript_not_a_file", "transcript_other_owner", "transcript_outside_roots", "transcript_hollow"];

/// `GET /v1/status`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    /// The process.
    pub daemon: Daemon,
    /// Events waiting.
    pub inbox: Inbox,
    /// Spans waiting.
    pub outbox: Outbox,
    /// Spans that no server takes; see `GET /v1/dead-letters`.
    pub dead_letters: u64,
    /// Images and documents stored and not yet uploaded.
    #[serde(default)]
    pub media: Media,
    /// Why the database takes no changes (a full disk, most likely), and since when; nothing if all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_error: Option<Trouble>,
    /// Sessions whose beginning another tool has sent.
    #[serde(default)]
    pub imported: u64,
    /// The sessions seen last.
    pub sessions: Vec<Session>,
    /// Everywhere spans go.
    pub destinations: Vec<Destination>,
    /// Lines and events passed over, by reason.
    pub skipped_lines: BTreeMap<String, u64>,
    /// Of these, kinds of lines that this version does not know.
    #[serde(default)]
    pub unknown_kinds: Vec<UnknownKind>,
    /// Secrets masked, by rule.
    pub redacted: BTreeMap<String, u64>,
    /// Directories of projects of which nothing is emitted for now; `/` for all of them.
    #[serde(default)]
    pub paused: Vec<PathBuf>,
    /// Directories of projects in which tracing was off when they were last seen.
    #[serde(default)]
    pub off: Vec<PathBuf>,
    /// Files in the spool that are not taken, by reason.
    #[serde(default)]
    pub left_in_spool: BTreeMap<String, u64>,
    /// Addresses at which an account is trusted although others chose it.
    #[serde(default)]
    pub trusted: Vec<String>,
    /// The same with the accounts.
    #[serde(default)]
    pub trusts: Vec<Trusted>,
}

impl Status {
    /// What somebody has to do something about, with the command that helps. Empty while all is well or gets well by itself.
    pub fn problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        if self.store_error.is_some() {
            found.push("the database takes no changes: make room on the disk, or make it writable".to_owned());
        }
        for to in self.destinations.iter().filter(|to| to.is_in_trouble()) {
            let name = to.called().unwrap_or(&to.base_url);
            found.push(match to.state.as_str() {
                "held" => format!("{name} is held: cc-langfusectl trust {} {}", to.base_url, to.public_key),
                state => format!("{name} is {state}: cc-langfusectl doctor says what to do"),
            });
        }
        if self.dead_letters > 0 {
            found.push(format!(
                "{} that no server takes: cc-langfusectl dead-letters",
                count(self.dead_letters, "span")
            ));
        }
        found
    }

    /// Events whose transcripts are refused, by reason.
    pub fn refused(&self) -> BTreeMap<&str, u64> {
        let counts = self.skipped_lines.iter().map(|(reason, count)| (reason.as_str(), *count));
        counts.filter(|(reason, _)| REFUSED.contains(reason)).collect()
    }
}

/// Lines of a kind that this version does not know.
#[derive(Debug, Serialize, Deserialize)]
pub struct UnknownKind {
    /// Their `type`.
    pub kind: String,
    /// The version of Claude Code that wrote them; empty if it is not known.
    pub version: String,
    /// How many were passed over.
    pub lines: u64,
}

/// The daemon's process.
#[derive(Debug, Serialize, Deserialize)]
pub struct Daemon {
    /// Its version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_s: u64,
}

/// Something that is wrong.
#[derive(Debug, Serialize, Deserialize)]
pub struct Trouble {
    /// The error as the database reports it.
    pub error: String,
    /// Since when, RFC 3339.
    pub since: Option<String>,
}

/// Events not yet dealt with.
#[derive(Debug, Serialize, Deserialize)]
pub struct Inbox {
    /// Their number.
    pub pending: u64,
    /// Events heard since the daemon started, those of no use included.
    #[serde(default)]
    pub heard: u64,
}

/// Spans stored and not yet delivered.
#[derive(Debug, Serialize, Deserialize)]
pub struct Outbox {
    /// Their number, those in flight included.
    pub pending: u64,
    /// Those a server has been sent and has not answered for.
    pub in_flight: u64,
}

/// Images and documents stored and not yet uploaded.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Media {
    /// How often spans show them.
    pub pending: u64,
    /// What last kept one from it.
    pub last_error: Option<String>,
}

/// A session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Session {
    /// Its id.
    pub session_id: String,
    /// Its transcript.
    pub transcript: PathBuf,
    /// Answered turns.
    pub turns: u32,
    /// The last turn is not fully emitted.
    pub open_turn: bool,
    /// What it is called, masked.
    #[serde(default)]
    pub title: Option<String>,
    /// Its working directory, and the project's where Claude Code says it.
    #[serde(default)]
    pub project_dirs: Vec<PathBuf>,
    /// When its latest event happened, RFC 3339.
    #[serde(default)]
    pub last_heard: Option<String>,
    /// Where its spans go.
    #[serde(default)]
    pub destination: Option<Place>,
}

impl Session {
    /// The directory of its project.
    pub fn project(&self) -> Option<&PathBuf> {
        self.project_dirs.last()
    }
}

/// Where a destination is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// `langfuse`.
    pub kind: String,
    /// Its address.
    pub base_url: String,
    /// Which project.
    pub public_key: String,
}

impl From<crate::destination::Destination> for Place {
    fn from(to: crate::destination::Destination) -> Self {
        Self { kind: to.kind.name().to_owned(), base_url: to.address, public_key: to.account }
    }
}

impl Place {
    /// The destination that is there; `None` if this version does not know its kind.
    pub fn destination(self) -> Option<crate::destination::Destination> {
        let kind = crate::destination::Kind::named(&self.kind)?;
        Some(crate::destination::Destination { kind, address: self.base_url, account: self.public_key })
    }
}

/// A place spans go.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Destination {
    /// By which people name it: its kind and a number, or what `config.toml` calls it.
    #[serde(default)]
    pub name: String,
    /// `langfuse`.
    pub kind: String,
    /// Its address.
    pub base_url: String,
    /// Which project.
    pub public_key: String,
    /// `ok`, `retrying`, `parked` (something must be fixed) or `held` (a repository chose it, see `cc-langfusectl trust`).
    pub state: String,
    /// Spans waiting for it.
    pub waiting: u64,
    /// Their bytes.
    pub waiting_bytes: u64,
    /// As many bytes wait as may: nothing more is read for it until some are delivered.
    pub full: bool,
    /// Since when the oldest of them waits, RFC 3339.
    pub oldest_waiting: Option<String>,
    /// Spans delivered so far.
    pub delivered: u64,
    /// Of these, spans the server said it did not keep.
    pub rejected: u64,
    /// When spans last arrived, RFC 3339.
    pub last_success: Option<String>,
    /// What last went wrong.
    pub last_error: Option<String>,
    /// When that was, RFC 3339.
    pub last_error_at: Option<String>,
    /// What shows that others chose it; nothing is sent there before the user trusts it.
    #[serde(default)]
    pub held_by: Option<String>,
}

fn count(number: u64, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

impl Destination {
    /// Something waits that does not leave, or never could.
    pub fn is_in_trouble(&self) -> bool {
        self.is_nowhere() || self.full || self.state != "ok" && self.waiting > 0
    }

    /// Why nothing leaves, or left at last; `None` since something did.
    pub fn current_error(&self) -> Option<&str> {
        let is_over = self.state == "ok" && self.last_success.is_some();
        self.last_error.as_deref().filter(|_| !is_over)
    }

    /// What `config.toml` calls it; `None` if its name is but its kind and a number.
    pub fn called(&self) -> Option<&str> {
        let number = self.name.strip_prefix(&self.kind).and_then(|rest| rest.strip_prefix('-'));
        let is_given = number.is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit()));
        Some(self.name.as_str()).filter(|name| !name.is_empty() && !is_given)
    }

    /// It is a table of `config.toml` that leads nowhere.
    pub fn is_nowhere(&self) -> bool {
        self.public_key.is_empty()
    }
}

/// `POST /v1/flush`: what is left when the time was over, or nothing.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// Hook events that are not dealt with.
    pub events: u64,
    /// Spans that are not delivered.
    pub spans: u64,
    /// Images and documents.
    #[serde(default)]
    pub media: u64,
    /// Why they are still here, by destination.
    pub why: Vec<String>,
}

/// `GET /v1/dead-letters`: a span that no server takes.
#[derive(Debug, Serialize, Deserialize)]
pub struct DeadLetter {
    /// By which it is retried or dropped.
    pub id: i64,
    /// Where it was to go.
    pub base_url: String,
    /// Its id, in hex.
    pub span_id: String,
    /// What the server said.
    pub reason: String,
    /// Its size.
    pub bytes: u64,
    /// Since when, RFC 3339.
    pub since: Option<String>,
}

/// `POST /v1/dead-letters`: what is to become of one, or of all.
#[derive(Debug, Serialize, Deserialize)]
pub struct Settle {
    /// Which; all if it is not said.
    pub id: Option<i64>,
    /// Whether it is sent again or dropped.
    pub fate: Fate,
}

/// `POST /v1/trust`: spans may go to an account at an address although others chose it, or no longer.
#[derive(Debug, Serialize, Deserialize)]
pub struct Trust {
    /// The address.
    pub base_url: String,
    /// The account's public key. Without it the one account is meant that is held there, or all that are trusted.
    #[serde(default)]
    pub public_key: Option<String>,
    /// They may.
    pub trusted: bool,
}

/// What became of that.
#[derive(Debug, Serialize, Deserialize)]
pub struct TrustAnswer {
    /// The address in the form in which addresses are compared.
    pub base_url: String,
    /// The accounts that were meant, by public key. Where several may have been, none is trusted.
    pub accounts: Vec<String>,
    /// The user chose that address for an account already, which needs no trust.
    pub is_own: bool,
}

/// A destination that the user trusts although others chose it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trusted {
    /// Its address.
    pub base_url: String,
    /// Its account.
    pub public_key: String,
}

/// `POST /v1/destinations`: what waits for one destination goes to another, or is dropped.
#[derive(Debug, Serialize, Deserialize)]
pub struct Redirect {
    /// The one.
    pub from: Place,
    /// The other; nothing if it is dropped.
    #[serde(default)]
    pub to: Option<Place>,
}

/// What became of that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redirected {
    /// Spans that wait for the other now, or are dropped.
    pub spans: u64,
    /// Images and documents likewise.
    pub media: u64,
    /// Spans that the other was sent before: they are not sent again.
    pub known: u64,
    /// Spans that only the first can take, in the words of an earlier version.
    pub left: u64,
    /// Sessions of which more would have been read for the first.
    pub behind: u64,
}

/// `POST /v1/pause`: nothing is emitted of a project for now, or no longer so.
#[derive(Debug, Serialize, Deserialize)]
pub struct Pause {
    /// The project's directory; every project if it is not said.
    pub dir: Option<PathBuf>,
    /// It is paused.
    pub paused: bool,
}

/// `POST /v1/forget`: traces are gone from the server, or will be; nothing of them is kept or sent.
#[derive(Debug, Serialize, Deserialize)]
pub struct Forget {
    /// The session they belong to.
    pub session_id: String,
    /// Their ids, in hex.
    pub traces: Vec<String>,
}

/// What is to become of a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// It is sent again.
    Retry,
    /// It is gone.
    Drop,
}

/// The answer to a request that came to nothing.
#[derive(Debug, Serialize, Deserialize)]
pub struct Failure {
    /// Why, in words for the user.
    pub error: String,
}
