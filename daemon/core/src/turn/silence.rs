//! How long a transcript must be silent before the silence means something.

use std::time::Duration;

/// Claude Code writes in bursts: nothing is decided before a silence of this length, unless the burst lasts longer than
/// [`QUIET`].
pub const BURST: Duration = Duration::from_millis(20);

/// After this silence a Stop counts although its answer was not seen.
pub const QUIET: Duration = Duration::from_secs(2);

/// The same for versions of Claude Code whose Stop does not include the answer; they write it before they call the hook.
pub const QUIET_UNKNOWN: Duration = Duration::from_millis(300);

/// The same without any Stop, if the model has said that it is done.
pub const QUIET_FINISHED: Duration = Duration::from_secs(5);
