//! Where an event comes from, and what follows: whether it permits reading, and whether anyone waits for its spans.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// A hook of Claude Code ran with tracing on in its environment.
    #[default]
    Hook,
    /// A scan found the session.
    Scan,
    /// Another session begins with this one, which may never have had a Stop.
    Recovery,
    /// The database was damaged: the session is read again from its start.
    Reread,
    /// The user runs `backfill`.
    Backfill,
    /// The user runs `replay`.
    Replay,
}

/// How the event ids of each source other than hooks begin.
const PREFIXES: [(&str, Source); 5] = [
    ("scan-", Source::Scan),
    ("recover-", Source::Recovery),
    ("again-", Source::Reread),
    ("backfill-", Source::Backfill),
    ("replay-", Source::Replay),
];

impl Source {
    /// The source of an event that is only known by its id: an incoming frame, or an event stored without source, as hook
    /// events and those of earlier versions are.
    pub fn of_id(id: &str) -> Self {
        PREFIXES.iter().find(|(prefix, _)| id.starts_with(prefix)).map_or(Self::Hook, |(_, source)| *source)
    }

    /// An event id for this source, as unique as `unique`. A frame carries its source in its id, which daemons of every version
    /// understand.
    pub fn id(self, unique: impl std::fmt::Display) -> String {
        let prefix = PREFIXES.iter().find(|(_, source)| *source == self).map_or("", |(prefix, _)| prefix);
        format!("{prefix}{unique}")
    }

    /// A hook of Claude Code ran with tracing on in its environment.
    pub fn is_hook(&self) -> bool {
        *self == Self::Hook
    }

    /// The user asked for this session's history.
    pub fn is_asked_for(self) -> bool {
        matches!(self, Self::Backfill | Self::Replay)
    }

    /// It proves that tracing is on or wanted. An event from the daemon's own search only says that there may be something to
    /// read.
    pub fn is_permission(self) -> bool {
        !matches!(self, Self::Scan | Self::Reread)
    }

    /// Nobody waits for its spans.
    pub fn is_unhurried(self) -> bool {
        matches!(self, Self::Scan | Self::Reread | Self::Backfill)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Source; 6] =
        [Source::Hook, Source::Scan, Source::Recovery, Source::Reread, Source::Backfill, Source::Replay];

    #[test]
    fn a_source_decides_what_an_event_permits_and_who_waits_for_it() {
        for (source, is_hook, is_asked_for, is_permission, is_unhurried) in [
            (Source::Hook, true, false, true, false),
            (Source::Scan, false, false, false, true),
            (Source::Recovery, false, false, true, false),
            (Source::Reread, false, false, false, true),
            (Source::Backfill, false, true, true, true),
            (Source::Replay, false, true, true, false),
        ] {
            let is = (source.is_hook(), source.is_asked_for(), source.is_permission(), source.is_unhurried());
            assert_eq!(is, (is_hook, is_asked_for, is_permission, is_unhurried), "{source:?}");
        }
    }

    #[test]
    fn an_event_stored_without_a_source_has_it_in_its_id() {
        for (id, source) in [
            ("1f-2a", Source::Hook),
            ("scan-s-1-1795204729201", Source::Scan),
            ("recover-s-1", Source::Recovery),
            ("again-s-1", Source::Reread),
            ("backfill-18c-1", Source::Backfill),
            ("replay-18c-4d2", Source::Replay),
            ("", Source::Hook),
            ("backfill", Source::Hook),
            ("Replay-1", Source::Hook),
            (" replay-1", Source::Hook),
            ("e-replay-1", Source::Hook),
            ("1f-backfill-2", Source::Hook),
        ] {
            assert_eq!(Source::of_id(id), source, "{id:?}");
        }
        for source in ALL {
            assert_eq!(Source::of_id(&source.id("1f-2a")), source);
        }
        assert_eq!(Source::Hook.id("1f-2a"), "1f-2a");
    }
}
