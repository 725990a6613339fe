//! The time of the daemon's first start, kept beside the database. If the database is lost, the transcripts written since then
//! are read again.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    files::{self, Rules},
    store::{self, FirstStart, handle::Handle},
};
use cc_core::transcript::record::nanos;

/// Transcripts older than this are not read again when the database was lost.
const MAX_AGE: Duration = Duration::from_secs(30 * 24 * 3600);

/// How many bytes of the log are read, and the maximum size of the marker.
const MAX_BYTES_READ: u64 = 4096;

/// What shows that a daemon ran here before the database was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// The marker of an earlier daemon.
    pub marker: Option<FirstStart>,
    /// The time of the oldest line of its log, Unix milliseconds.
    pub logged_ms: Option<i64>,
}

impl Evidence {
    /// Reads marker and log. To be called before anything is logged.
    pub fn find(marker: &Path, log: &Path) -> Self {
        let mut before = log.as_os_str().to_owned();
        before.push(".1");
        let logged_ms = [PathBuf::from(before), log.to_path_buf()].iter().find_map(|log| first_time(log));
        Self { marker: small(marker).as_deref().and_then(parse), logged_ms }
    }

    /// The first start to assume for a database that was created now; `None` if nothing was lost.
    fn since(self, now_ms: i64) -> Option<FirstStart> {
        let logged = self.logged_ms.map(|at_ms| FirstStart { at_ms, newest_ms: None });
        let first_start = self.marker.or(logged)?;
        let recent = now_ms - i64::try_from(MAX_AGE.as_millis()).unwrap_or(i64::MAX);
        Some(FirstStart { at_ms: first_start.at_ms.max(recent), newest_ms: first_start.newest_ms })
    }
}

/// Sets the first start of a database that `may_lack` the contents of an earlier one, and of one that is newer than the marker
/// says. True if there was an earlier one.
///
/// # Errors
/// If the database cannot be changed.
pub fn recover(store: &Handle, may_lack: bool, evidence: Evidence, now_ms: i64) -> Result<bool, store::Error> {
    let evidence = if may_lack { evidence } else { Evidence { logged_ms: None, ..evidence } };
    let Some(first_start) = evidence.since(now_ms) else { return Ok(false) };
    store.call(|store| {
        let is_earlier = first_start.at_ms < store.first_start()?.at_ms;
        if is_earlier {
            store.set_first_start(first_start)?;
        }
        Ok(is_earlier)
    })
}

/// Writes the marker.
///
/// # Errors
/// Those of the system.
pub fn remember(store: &Handle, marker: &Path) -> anyhow::Result<()> {
    let first_start = store.call(|store| store.first_start())?;
    if small(marker).as_deref().and_then(parse) == Some(first_start) {
        return Ok(());
    }
    let part = marker.with_extension("part");
    #[expect(clippy::disallowed_methods, reason = "in the state directory, where only we write")]
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
    let newest = first_start.newest_ms.map(|newest| format!(" {newest}")).unwrap_or_default();
    writeln!(file, "{}{newest}", first_start.at_ms)?;
    Ok(std::fs::rename(part, marker)?)
}

fn parse(text: &str) -> Option<FirstStart> {
    let mut numbers = text.split_whitespace().map(|number| number.parse::<i64>().ok().filter(|ms| *ms >= 0));
    let at_ms = numbers.next()??;
    Some(FirstStart { at_ms, newest_ms: numbers.next().flatten() })
}

fn small(path: &Path) -> Option<String> {
    String::from_utf8(files::read(path, &Rules::users(MAX_BYTES_READ)).ok()?).ok()
}

/// The time of the first line of a log that has one.
fn first_time(log: &Path) -> Option<i64> {
    let lines = BufReader::new(files::open(log, &Rules::users(u64::MAX)).ok()?.file.take(MAX_BYTES_READ)).split(b'\n');
    let mut times = lines.map_while(Result::ok).filter_map(|line| {
        let line = String::from_utf8_lossy(&line).into_owned();
        i64::try_from(nanos(line.split_whitespace().next()?)? / 1_000_000).ok()
    });
    times.next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    const DAY: i64 = 24 * 3_600_000;

    #[test]
    fn a_lost_database_is_known_by_what_it_left_and_a_first_start_by_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        assert_eq!(Evidence::find(&at("begun"), &at("x.log")), Evidence::default());
        std::fs::write(at("x.log"), "no time\n2026-11-28T10:00:00.5Z  INFO started\n").unwrap();
        let found = || Evidence::find(&at("begun"), &at("x.log"));
        let logged = |text| nanos(text).map(|ns| i64::try_from(ns / 1_000_000).unwrap());
        assert_eq!(found(), Evidence { marker: None, logged_ms: logged("2026-11-28T10:00:00.5Z") });
        std::fs::write(at("x.log.1"), "2026-11-20T10:00:00Z  INFO started\n").unwrap();
        assert_eq!(found().logged_ms, logged("2026-11-20T10:00:00Z"), "the one before it is older");
        for (text, marker) in [
            ("100 50\n", Some(FirstStart { at_ms: 100, newest_ms: Some(50) })),
            ("100\n", Some(FirstStart { at_ms: 100, newest_ms: None })),
            ("100 x", Some(FirstStart { at_ms: 100, newest_ms: None })),
            ("-1 5", None),
            ("", None),
            ("\u{fffd}", None),
        ] {
            std::fs::write(at("begun"), text).unwrap();
            assert_eq!(found().marker, marker, "{text}");
        }
    }

    #[test]
    fn what_waited_in_a_lost_database_is_looked_for_as_far_back_as_is_known() {
        let first_start = |at_ms| FirstStart { at_ms, newest_ms: None };
        // Long before the database of this test is created.
        let now = 10_000 * DAY;
        for (marker, logged_ms, since) in [
            (None, None, None),
            (None, Some(now - DAY), Some(now - DAY)),
            (Some(now - 3 * DAY), Some(now - DAY), Some(now - 3 * DAY)),
            (Some(now - 900 * DAY), None, Some(now - 30 * DAY)),
        ] {
            let evidence = Evidence { marker: marker.map(first_start), logged_ms };
            let dir = tempfile::tempdir().unwrap();
            let store = Handle::new(Store::open(&dir.path().join("state.db")).unwrap().store);
            let own = store.call(|store| store.first_start()).unwrap().at_ms;
            let is_marked = marker.is_some();
            assert_eq!(recover(&store, false, evidence, now).unwrap(), is_marked, "it was there");
            assert_eq!(recover(&store, true, evidence, now).unwrap(), since.is_some() && !is_marked);
            assert_eq!(store.call(|store| store.first_start()).unwrap().at_ms, since.unwrap_or(own));
        }
    }

    #[test]
    fn the_marker_says_what_the_database_says() {
        let dir = tempfile::tempdir().unwrap();
        let store = Handle::new(Store::open(&dir.path().join("state.db")).unwrap().store);
        let marker = dir.path().join("begun");
        for newest_ms in [None, Some(7)] {
            let first_start = FirstStart { at_ms: 5, newest_ms };
            store.call(|store| store.set_first_start(first_start)).unwrap();
            remember(&store, &marker).unwrap();
            assert_eq!(Evidence::find(&marker, &dir.path().join("x.log")).marker, Some(first_start));
        }
    }
}
