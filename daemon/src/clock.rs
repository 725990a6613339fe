//! The time. Only this module asks the system for it; everything else is given it as a value.

use std::time::{Duration, Instant, SystemTime};

/// The time of day. It can jump; two calls can be in the wrong order.
#[allow(clippy::disallowed_methods, reason = "this is the clock")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// For measuring durations: never goes back, and means nothing outside this process.
#[allow(clippy::disallowed_methods, reason = "this is the clock")]
pub fn monotonic() -> Instant {
    Instant::now()
}

/// The longest silence that is derived from a file's own modification time.
const BELIEVED: Duration = Duration::from_secs(60);

/// The monotonic time at which a file was last `modified`; at the earliest a minute ago.
pub fn since(modified: Option<SystemTime>) -> Instant {
    let now = monotonic();
    let age = modified.and_then(|modified| wall().duration_since(modified).ok()).unwrap_or_default();
    now.checked_sub(age.min(BELIEVED)).unwrap_or(now)
}

/// The time since 1970 in UTC; zero if the clock is set before that.
pub fn since_1970() -> Duration {
    wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// The same in milliseconds.
pub fn now_ms() -> i64 {
    i64::try_from(since_1970().as_millis()).unwrap_or(i64::MAX)
}

/// The same in nanoseconds.
pub fn now_ns() -> u64 {
    u64::try_from(since_1970().as_nanos()).unwrap_or(u64::MAX)
}
