//! Whether a session may be read now, and for which of its destinations. Asks `cc_core::admit` with the state of store and
//! settings.

use super::{Engine, facts, session::Session};
use crate::clock::{self, now_ms, now_ns};
use cc_core::{
    admit::{self, DELIVERING, Reader, Wait},
    destination::Destination,
    hook::{Hint, Source},
    phase::Phase,
    vars::Refused,
};

impl Engine {
    /// True if nothing more of the session is read: no event permits it, and its project's settings do not turn tracing on.
    /// Records that, and when tracing was off before.
    pub(super) fn is_off(&mut self, session: &mut Session) -> bool {
        let hint = &session.row.hint;
        let Some(dir) = hint.project_dirs.last() else { return false };
        let is_permitted = session.waiting.iter().any(|(hint, _)| hint.source.is_permission());
        let project = (hint.project_dirs.clone(), hint.config_dir.clone());
        let known = self.seen.get(&project).filter(|_| session.is_unhurried && !is_permitted);
        let is_off = if let Some((is_off, off)) = known {
            session.off.clone_from(off);
            *is_off
        } else {
            let is_off = !is_permitted && !self.consent.is_on(&hint.project_dirs, hint.config_dir.as_deref());
            let seen = self
                .store
                .call(|store| if is_permitted { store.off(dir) } else { store.see_and_off(dir, !is_off, now_ns()) });
            match seen {
                Ok(off) => session.off = off,
                Err(error) => {
                    tracing::warn!(%error, "whether tracing was on cannot be read; trying again");
                    session.retry();
                    return true;
                }
            }
            if !is_permitted {
                self.seen.insert(project, (is_off, session.off.clone()));
            }
            is_off
        };
        if is_off {
            session.phase = Phase::Over;
            let ids: Vec<String> = session.waiting.drain(..).map(|(hint, _)| hint.id).collect();
            if !ids.is_empty() {
                self.give_up(&ids, "project_off");
            }
        }
        is_off
    }

    /// Stops reading the session: its destinations are no longer in `config.toml`.
    pub(super) fn is_nowhere(&mut self, session: &mut Session) {
        session.phase = Phase::Over;
        let ids: Vec<String> = session.waiting.drain(..).map(|(hint, _)| hint.id).collect();
        if !ids.is_empty() {
            self.give_up(&ids, Refused::NoDestination.reason());
        }
    }

    /// Why the session may not be read now, if so. Records which of its destinations fall behind.
    pub(super) fn must_wait(&mut self, session: &mut Session) -> Option<Wait> {
        let hint = &session.row.hint;
        let targets: Vec<&Destination> = hint.destinations().collect();
        let bytes = |to: &&Destination| self.store.call(|store| store.waiting_bytes(to)).unwrap_or(0);
        let waiting: Vec<u64> = targets.iter().map(bytes).collect();
        let limit = self.config.outbox_bytes;
        for (to, waiting) in targets.iter().zip(&waiting) {
            if *waiting < limit {
                self.full.remove(*to);
            } else if self.full.insert((*to).clone()) {
                tracing::warn!(
                    to = to.address,
                    waiting,
                    "the queue is full; reading for it continues when some of it is delivered"
                );
            }
        }
        let reader = Reader { source: hint.source, can_wait: session.is_unhurried || session.phase.has_more() };
        let since = now_ms() - i64::try_from(DELIVERING.as_millis()).unwrap_or(0);
        let admission = admit::admit(
            reader,
            limit,
            &waiting,
            || self.store.call(|store| store.is_paused(&hint.project_dirs)).unwrap_or(true),
            |to| self.store.call(|store| store.is_delivering(targets[to], since)).unwrap_or(false),
        );
        session.behind = admission.behind.into_iter().map(|to| targets[to].clone()).collect();
        admission.wait
    }

    /// Moves sessions back to where followers are behind that have room again. Destinations that already have the
    /// following part get nothing twice.
    pub(super) fn go_back(&mut self) {
        let room = admit::limit(Source::Backfill, self.config.outbox_bytes) / 2;
        let after = self.went_back_to.clone();
        let behind = self
            .store
            .call(|store| Ok((store.is_anything_behind()?, store.behind(room, admit::MAX_UNHURRIED, &after)?)));
        let Ok((is_any, behind)) = behind else { return };
        self.is_any_behind = is_any;
        for to in behind {
            self.went_back_to.clone_from(&to.session_id);
            let session = self.sessions.get_mut(&to.session_id);
            if session.as_ref().is_some_and(|session| session.step.is_some()) {
                continue;
            }
            match self.store.call(|store| store.go_back(&to)) {
                Ok(true) => tracing::debug!(session = to.session_id, "read again for a destination that was behind"),
                Ok(false) => continue,
                Err(error) => {
                    tracing::warn!(%error, "a session cannot be brought back; trying again");
                    return;
                }
            }
            facts::again(&self.telemetry, &self.store, &to.session_id);
            match session {
                Some(session) => {
                    session.begin_again();
                    (session.row.cursor, session.row.closed) = (to.cursor, to.closed);
                    session.phase.wake();
                }
                None => drop(self.resume(&to.session_id)),
            }
            // The Stop of its last turn was processed before. It permits nothing that is not permitted now.
            if let Some(session) = self.sessions.get_mut(&to.session_id).filter(|session| session.waiting.is_empty()) {
                let source = Source::Reread;
                let hint = Hint { id: source.id(&to.session_id), source, ..session.row.hint.clone() };
                session.waiting.push((hint, clock::monotonic()));
            }
        }
    }
}
