//! The time. Only this module asks the system for it; everything else is handed a value.

use std::time::{Duration, Instant, SystemTime};

/// The time of day. It can jump; two calls can be in the wrong order.
#[allow(clippy::disallowed_methods, reason = "this is the clock")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// A point of time for measuring durations: it never goes back, and means nothing outside this process.
#[allow(clippy::disallowed_methods, reason = "this is the clock")]
pub fn monotonic() -> Instant {
    Instant::now()
}

/// How far back a file's own time is believed when it says how long it has been silent.
const BELIEVED: Duration = Duration::from_secs(60);

/// Since when nothing was written to a file that was last `modified` at this time of day; a minute ago at the earliest.
pub fn since(modified: Option<SystemTime>) -> Instant {
    let now = monotonic();
    let age = modified.and_then(|modified| wall().duration_since(modified).ok()).unwrap_or_default();
    now.checked_sub(age.min(BELIEVED)).unwrap_or(now)
}

/// The time since 1970, UTC; zero where the clock stands before that.
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
