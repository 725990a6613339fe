//! What a server says of what it was sent, and of who sent it.

use std::time::Duration;

/// The project that keys belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    /// Part of the addresses of its pages.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// The server's clock, in seconds since the epoch.
    pub date: Option<u64>,
}

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The server says no.
    #[error("{said}")]
    Status {
        /// Status code.
        status: u16,
        /// Status and body, for people.
        said: String,
        /// The server's clock.
        date: Option<u64>,
    },
    /// An answer that is none of Langfuse's.
    #[error("{said}")]
    Odd {
        /// What is odd.
        said: String,
        /// The server's clock.
        date: Option<u64>,
    },
    /// No answer.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    /// It cannot prove who it is.
    #[error("it cannot prove who it is: {0}")]
    Untrusted(String),
}

impl Failure {
    /// The server's clock, in seconds since the epoch.
    pub fn date(&self) -> Option<u64> {
        match self {
            Self::Status { date, .. } | Self::Odd { date, .. } => *date,
            _ => None,
        }
    }
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
