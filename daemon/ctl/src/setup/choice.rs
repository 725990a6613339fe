//! The destination that `setup` was given, and its variables.

use zeroize::Zeroizing;

use super::{mlflow, otlp};
use cc_core::destination::{Destination, pages::Project};

/// The destination of traces.
pub(super) enum Choice {
    Langfuse(Keys),
    Mlflow(mlflow::Mlflow),
    Otlp(otlp::Otlp),
}

/// The keys and their server.
pub(super) struct Keys {
    pub(super) destination: Destination,
    pub(super) secret: Zeroizing<String>,
    /// The keys' project according to the server, if it was asked.
    pub(super) project: Option<Project>,
}

impl Choice {
    /// The variables for this destination.
    pub(super) fn env(&self) -> Vec<(&str, &str)> {
        match self {
            Self::Langfuse(keys) => vec![
                (proto::env::ENABLE, "true"),
                ("LANGFUSE_PUBLIC_KEY", &keys.destination.account),
                ("LANGFUSE_SECRET_KEY", &keys.secret),
                ("LANGFUSE_BASE_URL", &keys.destination.address),
            ],
            Self::Mlflow(mlflow) => mlflow.env(),
            Self::Otlp(otlp) => otlp.env(),
        }
    }
}
