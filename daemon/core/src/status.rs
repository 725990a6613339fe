//! The JSON on the daemon's socket, which `cc-langfusectl` and others read: the status, requests and answers. `skipped_lines`
//! counts everything that is skipped, by reason: count it where it is skipped, under a name of its own.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{score::Value, telemetry::Call};

pub mod delivery;
pub mod history;
pub mod reasons;

/// Reasons that only the user can remove; nothing is read until then.
const REFUSED: [&str; 4] =
    ["transcript_not_a_file", "transcript_other_owner", "transcript_outside_roots", "transcript_hollow"];

/// The reason for a transcript that does not exist.
const MISSING: &str = "transcript_missing";

/// `GET /v1/status`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    pub daemon: Daemon,
    pub inbox: Inbox,
    pub outbox: Outbox,
    /// Spans that no server accepts; see `GET /v1/dead-letters`.
    pub dead_letters: u64,
    /// Images and documents that are not uploaded yet.
    #[serde(default)]
    pub media: Media,
    #[serde(default)]
    pub scores: Scores,
    /// Why the present `config.toml` is not used; the previous one stays in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_error: Option<String>,
    /// Claude Code's own telemetry, if it is received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub telemetry: Option<Telemetry>,
    /// Masked copies of transcripts, if there are any or there shall be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<Archive>,
    /// Why the database refuses changes (most likely a full disk), and since when; `None` if it works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_error: Option<Trouble>,
    /// Sessions whose beginning another tool has sent.
    #[serde(default)]
    pub imported: u64,
    /// The most recent sessions.
    pub sessions: Vec<Session>,
    pub destinations: Vec<Destination>,
    /// Transcripts, and directories of them, that cannot be read: one for each directory and reason since the daemon started.
    #[serde(default)]
    pub unread: Vec<Unread>,
    /// Lines and events that were skipped, by reason.
    pub skipped_lines: BTreeMap<String, u64>,
    /// The unknown kinds among them.
    #[serde(default)]
    pub unknown_kinds: Vec<UnknownKind>,
    /// Masked secrets, by rule.
    pub redacted: BTreeMap<String, u64>,
    /// Directories of paused projects; `/` for all projects.
    #[serde(default)]
    pub paused: Vec<PathBuf>,
    /// Directories of projects in which tracing was last seen off.
    #[serde(default)]
    pub off: Vec<PathBuf>,
    /// Spool files that cannot be taken, by reason.
    #[serde(default)]
    pub left_in_spool: BTreeMap<String, u64>,
    /// Addresses with an account that the user trusts although others chose it.
    #[serde(default)]
    pub trusted: Vec<String>,
    /// The same with the accounts.
    #[serde(default)]
    pub trusts: Vec<Trusted>,
}

/// The archive of transcripts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archive {
    pub sessions: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// As many bytes it may have; `None` if it is off, so that nothing is added.
    pub limit_bytes: Option<u64>,
    /// Sessions that were removed because it had reached its limit.
    pub removed: u64,
    /// Sessions whose transcripts are not copied, by reason.
    pub left_out: BTreeMap<String, u64>,
}

/// What came of Claude Code's own telemetry since the daemon started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Telemetry {
    /// Why nothing is received.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Log records and spans of Claude Code.
    pub taken: u64,
    /// Those of other programs.
    pub foreign: u64,
    /// Requests without the token.
    pub refused: u64,
    /// Requests that cannot be read, or are too long.
    pub unreadable: u64,
    /// Records that name no session.
    pub nameless: u64,
    /// Requests that the user's own collector did not take.
    pub not_passed_on: u64,
}

/// `POST /v1/hidden-calls`: asks for the calls without a line that Claude Code's telemetry named.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct AskHidden {
    /// `None` for all sessions.
    pub session_id: Option<String>,
    /// The stamp of those that are known.
    #[serde(default)]
    pub unless: String,
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HiddenCalls {
    /// Another one after every change.
    pub stamp: String,
    /// `None` if nothing has changed since the stamp that was given.
    pub calls: Option<Vec<Call>>,
}

impl Status {
    /// Problems that someone must act on, each with the command that helps. Empty if nothing is wrong, or it will
    /// recover by itself.
    pub fn problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        if self.store_error.is_some() {
            found.push("the database cannot be written: make room on the disk, or make it writable".to_owned());
        }
        if self.daemon.replaced {
            found.push("the daemon's program was replaced since it started: cc-langfusectl restart".to_owned());
        }
        if let Some(why) = self.telemetry.as_ref().and_then(|telemetry| telemetry.error.as_ref()) {
            let remedy = "cc-langfusectl setup --native-otel chooses another port";
            found.push(format!("Claude Code's telemetry is not received: {why}: {remedy}"));
        }
        if let Some(why) = &self.config_error {
            found.push(format!("config.toml cannot be used: {why}"));
        }
        for to in self.destinations.iter().filter(|to| to.is_in_trouble()) {
            let name = to.called().unwrap_or(&to.base_url);
            found.push(match to.state.as_str() {
                "held" => format!("{name} is held: cc-langfusectl trust {} {}", to.base_url, to.public_key),
                "ok" if to.full => {
                    format!("the queue for {name} is full: reading continues when some of it is delivered")
                }
                state => format!("{name} is {state}: cc-langfusectl doctor says what to do"),
            });
        }
        if let [first, ..] = &*self.refused_now() {
            let path = first.path.display();
            found.push(format!("not read: {path} ({}): cc-langfusectl doctor says what to do", first.why));
        }
        if self.dead_letters > 0 {
            found.push(format!(
                "{} were refused for good: cc-langfusectl dead-letters",
                count(self.dead_letters, "observation")
            ));
        }
        found
    }

    /// What cannot be read until the user does something. A transcript that is missing may be meant to be: Claude Code can be
    /// started so that it writes none.
    pub fn refused_now(&self) -> Vec<&Unread> {
        self.unread.iter().filter(|unread| unread.reason != MISSING).collect()
    }

    /// Events whose transcripts are refused, by reason.
    pub fn refused(&self) -> BTreeMap<&str, u64> {
        let counts = self.skipped_lines.iter().map(|(reason, count)| (reason.as_str(), *count));
        counts.filter(|(reason, _)| REFUSED.contains(reason)).collect()
    }
}

/// A transcript that cannot be read, or a directory of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unread {
    pub path: PathBuf,
    /// The name under which its events are counted in `skipped_lines`.
    pub reason: String,
    /// For people.
    pub why: String,
    /// What the user can do about it.
    pub remedy: String,
}

/// Lines of a kind that this version does not know.
#[derive(Debug, Serialize, Deserialize)]
pub struct UnknownKind {
    /// Their `type`.
    pub kind: String,
    /// The version of Claude Code that wrote them; empty if unknown.
    pub version: String,
    pub lines: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Daemon {
    pub version: String,
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// Version, commit and date of the daemon's program; empty from earlier versions.
    #[serde(default)]
    pub build: String,
    /// The program on disk was replaced since the daemon started.
    #[serde(default)]
    pub replaced: bool,
}

impl Daemon {
    /// It runs an old program: one that was replaced since, or another build than `ours`.
    pub fn is_outdated(&self, ours: &str) -> bool {
        self.replaced || self.build != ours
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Trouble {
    /// As the database reports it.
    pub error: String,
    /// RFC 3339.
    pub since: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Inbox {
    /// Events that are not settled.
    pub pending: u64,
    /// Events received since the daemon started, including ignored ones.
    #[serde(default)]
    pub heard: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Outbox {
    /// Spans not delivered yet, including those in flight.
    pub pending: u64,
    /// Spans that were sent and are not answered yet.
    pub in_flight: u64,
}

/// Images and documents that are not uploaded yet.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Media {
    /// Counted once for each span that shows one.
    pub pending: u64,
    /// The error of the last upload that failed.
    pub last_error: Option<String>,
}

/// Scores that are not sent yet.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Scores {
    /// Counted once for each destination.
    pub pending: u64,
    /// The error of the last try that failed.
    pub last_error: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Session {
    pub session_id: String,
    pub transcript: PathBuf,
    /// Turns with an answer.
    pub turns: u32,
    /// The last turn is not fully emitted yet.
    pub open_turn: bool,
    /// With secrets masked.
    #[serde(default)]
    pub title: Option<String>,
    /// Its working directory, and the project's if Claude Code names it.
    #[serde(default)]
    pub project_dirs: Vec<PathBuf>,
    /// The time of its latest event, RFC 3339.
    #[serde(default)]
    pub last_heard: Option<String>,
    #[serde(default)]
    pub destination: Option<Place>,
}

impl Session {
    pub fn project(&self) -> Option<&PathBuf> {
        self.project_dirs.last()
    }
}

/// What identifies a destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Such as `langfuse`.
    pub kind: String,
    pub base_url: String,
    /// The account.
    pub public_key: String,
}

impl From<crate::destination::Destination> for Place {
    fn from(to: crate::destination::Destination) -> Self {
        Self { kind: to.kind.name().to_owned(), base_url: to.address, public_key: to.account }
    }
}

impl Place {
    /// `None` if this version does not know the kind.
    pub fn destination(self) -> Option<crate::destination::Destination> {
        let kind = crate::destination::Kind::named(&self.kind)?;
        Some(crate::destination::Destination { kind, address: self.base_url, account: self.public_key })
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Destination {
    /// Its name in `config.toml`, or its kind and a number.
    #[serde(default)]
    pub name: String,
    /// Such as `langfuse`.
    pub kind: String,
    pub base_url: String,
    /// The account.
    pub public_key: String,
    /// `ok`, `retrying`, `parked` (something must be fixed) or `held` (others chose it, see `cc-langfusectl trust`).
    pub state: String,
    pub waiting: u64,
    pub waiting_bytes: u64,
    /// The queue is full: nothing more is read for it until some spans are delivered.
    pub full: bool,
    /// RFC 3339.
    pub oldest_waiting: Option<String>,
    pub delivered: u64,
    /// Delivered spans that the server said it did not keep.
    pub rejected: u64,
    /// RFC 3339.
    pub last_success: Option<String>,
    pub last_error: Option<String>,
    /// RFC 3339.
    pub last_error_at: Option<String>,
    /// What shows that others chose it; nothing is sent before the user trusts it.
    #[serde(default)]
    pub held_by: Option<String>,
}

fn count(number: u64, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

impl Destination {
    /// Its state, and what follows from it.
    pub fn explained(&self) -> String {
        match self.state.as_str() {
            "parked" => "parked (nothing is sent until its error is fixed)".to_owned(),
            "held" => "held (nothing is sent until you trust it)".to_owned(),
            state => state.to_owned(),
        }
    }

    /// Something waits and cannot be sent now, or ever.
    pub fn is_in_trouble(&self) -> bool {
        self.is_nowhere() || self.full || self.state != "ok" && self.waiting > 0
    }

    /// Why nothing is sent, or why the last try failed; `None` after a success.
    pub fn current_error(&self) -> Option<&str> {
        let is_over = self.state == "ok" && self.last_success.is_some();
        self.last_error.as_deref().filter(|_| !is_over)
    }

    /// Its name in `config.toml`; `None` if it has none.
    pub fn called(&self) -> Option<&str> {
        let number = self.name.strip_prefix(&self.kind).and_then(|rest| rest.strip_prefix('-'));
        let is_given = number.is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit()));
        Some(self.name.as_str()).filter(|name| !name.is_empty() && !is_given)
    }

    /// True for a `[[destination]]` table that is not valid.
    pub fn is_nowhere(&self) -> bool {
        self.public_key.is_empty()
    }
}

/// `POST /v1/flush`: what was left when the time limit was reached.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    pub events: u64,
    pub spans: u64,
    #[serde(default)]
    pub media: u64,
    /// Reasons, by destination.
    pub why: Vec<String>,
}

/// `GET /v1/dead-letters`: a span that no server accepts.
#[derive(Debug, Serialize, Deserialize)]
pub struct DeadLetter {
    /// For retrying or dropping it.
    pub id: i64,
    pub base_url: String,
    /// In hex.
    pub span_id: String,
    /// The server's answer.
    pub reason: String,
    pub bytes: u64,
    /// RFC 3339.
    pub since: Option<String>,
}

/// `POST /v1/dead-letters`: retries or drops one dead letter, or all.
#[derive(Debug, Serialize, Deserialize)]
pub struct Settle {
    /// `None` for all.
    pub id: Option<i64>,
    pub fate: Fate,
}

/// `POST /v1/trust`: trusts an account at an address although others chose it, or withdraws that trust.
#[derive(Debug, Serialize, Deserialize)]
pub struct Trust {
    pub base_url: String,
    /// `None` stands for the one account that is held there, or for all that are trusted.
    #[serde(default)]
    pub public_key: Option<String>,
    /// False to withdraw trust.
    pub trusted: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct TrustAnswer {
    /// The address in canonical form.
    pub base_url: String,
    /// The accounts concerned. If there are several to choose from, none is trusted.
    pub accounts: Vec<String>,
    /// The user chose that address and account, so no trust is needed.
    pub is_own: bool,
}

/// A destination that the user trusts although others chose it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trusted {
    pub base_url: String,
    pub public_key: String,
}

/// `POST /v1/destinations`: hands what waits for one destination to another, or drops it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Redirect {
    pub from: Place,
    /// `None` to drop it.
    #[serde(default)]
    pub to: Option<Place>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redirected {
    /// Spans that were handed over or dropped.
    pub spans: u64,
    /// Images and documents that were handed over or dropped.
    pub media: u64,
    /// Spans that the new destination was sent before; they are not sent again.
    pub known: u64,
    /// Spans in an earlier version's form, which only the old destination can take.
    pub left: u64,
    /// Sessions of which more would have been read for the old destination.
    pub behind: u64,
}

/// `POST /v1/pause`: pauses a project or resumes it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Pause {
    /// `None` for every project.
    pub dir: Option<PathBuf>,
    /// False to resume it.
    pub paused: bool,
}

/// `POST /v1/forget`: traces were deleted on the server; drops what waits of them and never sends them again.
#[derive(Debug, Serialize, Deserialize)]
pub struct Forget {
    pub session_id: String,
    /// In hex.
    pub traces: Vec<String>,
}

/// `POST /v1/score`: a person's score. Answered with the addresses of the destinations for which it waits.
#[derive(Debug, Serialize, Deserialize)]
pub struct GiveScore {
    /// Empty if only the trace is known.
    pub session_id: String,
    /// The turn; of a session its turns, the newest first. In hex.
    pub traces: Vec<String>,
    /// It is of that turn, not of the session.
    pub is_turn: bool,
    pub name: String,
    pub value: Value,
    pub comment: Option<String>,
    /// Unix milliseconds.
    pub at_ms: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// Send it again.
    Retry,
    /// Delete it.
    Drop,
}

/// The body of an error response.
#[derive(Debug, Serialize, Deserialize)]
pub struct Failure {
    /// For the user.
    pub error: String,
}
