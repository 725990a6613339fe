//! Why a server did not answer what it was asked.

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The server says no.
    #[error("{}", crate::verdict::words(said))]
    Status {
        /// Status code.
        status: u16,
        /// Status and body, for people.
        said: String,
        /// The server's clock.
        date: Option<u64>,
    },
    /// An answer that no server of its kind gives.
    #[error("{}", crate::verdict::words(said))]
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
