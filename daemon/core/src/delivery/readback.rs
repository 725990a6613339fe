//! Why a server did not answer a question.

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The server refused.
    #[error("{}", crate::verdict::words(said))]
    Status {
        status: u16,
        /// Status and body, for people.
        said: String,
        /// The server's clock.
        date: Option<u64>,
    },
    /// An answer that no server of this kind would give.
    #[error("{}", crate::verdict::words(said))]
    Odd {
        said: String,
        /// The server's clock.
        date: Option<u64>,
    },
    #[error("{0}")]
    Unreachable(String),
    /// Its certificate is not trusted.
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
