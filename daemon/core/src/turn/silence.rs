//! How long a transcript must be silent before that says something.

use std::time::Duration;

/// Claude Code writes in bursts: nothing is decided before the transcript has been silent for this long, unless the burst lasts
/// longer than [`QUIET`].
pub const BURST: Duration = Duration::from_millis(20);

/// How long a transcript must be silent before a Stop is taken at its word although its answer is not there.
pub const QUIET: Duration = Duration::from_secs(2);

/// The same for versions of Claude Code that do not say what the answer was; those write it before they call the hook.
pub const QUIET_UNKNOWN: Duration = Duration::from_millis(300);

/// The same where no Stop is known at all, but the model has said that it is done.
pub const QUIET_FINISHED: Duration = Duration::from_secs(5);
