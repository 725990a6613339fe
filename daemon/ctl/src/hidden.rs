//! The calls without a line that Claude Code's telemetry named: from the daemon, or from its database while it does not run.

use std::time::Duration;

use crate::client::{self, Client};
use cc_core::status::HiddenCalls;
use cc_langfuse::store::hidden;

/// How long the daemon has to answer; after that the caller continues without them.
const WAIT: Duration = Duration::from_secs(2);

/// Those of one session, or of all; `None` if they cannot be read now. No calls if nothing has changed since the stamp `unless`.
pub(crate) fn calls(session_id: Option<&str>, unless: &str) -> Option<HiddenCalls> {
    let paths = client::paths().ok()?;
    let answer = Client::at(&paths).with_timeout(WAIT).hidden_calls(session_id, unless);
    answer.ok().or_else(|| {
        // A daemon holds its database for itself.
        let is_there = client::is_free(&paths) && paths.database.is_file();
        is_there.then(|| hidden::read(&paths.database, session_id, unless).ok()).flatten()
    })
}
