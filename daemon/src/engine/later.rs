//! The queue of sessions that can wait until live ones have had their turn: found by a scan, left half-read, or to be read
//! again. There may be very many, for instance after a home was restored; few are in memory at a time.

use std::collections::VecDeque;

use tokio::sync::oneshot;

use cc_core::{admit::MAX_UNHURRIED, hook::Hint};

/// The scan is asked for more when fewer sessions than this wait.
const LOW_WATER: usize = MAX_UNHURRIED;

/// A session to start when there is room.
#[derive(Debug)]
pub(super) enum Task {
    /// The session of the stored event with this id.
    Event(String),
    /// The session with this id, which was left half-read.
    Resume(String),
    /// A session found by a scan.
    Found(Box<Hint>),
}

/// The tasks in the order in which they are started: a session that copies another comes after it.
#[derive(Debug, Default)]
pub(super) struct Later {
    tasks: VecDeque<Task>,
    /// Found by the scan but not handed over yet.
    left: usize,
    /// Asks the scan for more.
    more: Option<oneshot::Sender<()>>,
}

impl Later {
    pub(super) fn extend(&mut self, tasks: impl IntoIterator<Item = Task>) {
        self.tasks.extend(tasks);
    }

    /// Takes sessions that a scan found. `left` others follow when `more` is used.
    pub(super) fn found(&mut self, hints: Vec<Hint>, left: usize, more: oneshot::Sender<()>) {
        self.extend(hints.into_iter().map(|hint| Task::Found(Box::new(hint))));
        (self.left, self.more) = (left, Some(more));
        self.ask();
    }

    pub(super) fn next(&mut self) -> Option<Task> {
        let task = self.tasks.pop_front();
        self.ask();
        task
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// How many sessions are still to be started, including those the scan holds.
    pub(super) fn len(&self) -> usize {
        self.tasks.len() + self.left
    }

    fn ask(&mut self) {
        if self.tasks.len() < LOW_WATER
            && let Some(more) = self.more.take()
        {
            let _ = more.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cc_core::hook::Source;

    #[test]
    fn the_search_is_asked_for_more_when_little_waits_and_once_for_each_answer() {
        let hint = |n: usize| Hint { source: Source::Scan, ..super::super::any_hint(&format!("s-{n}")) };
        let mut later = Later::default();
        let (more, mut asked) = oneshot::channel();
        later.found((0..LOW_WATER + 2).map(hint).collect(), 5, more);
        assert_eq!(later.len(), LOW_WATER + 2 + 5);
        for n in 0..3 {
            assert!(asked.try_recv().is_err(), "{n}");
            assert!(matches!(later.next(), Some(Task::Found(hint)) if hint.session_id == format!("s-{n}")));
        }
        assert_eq!(asked.try_recv(), Ok(()));
        let (more, mut asked) = oneshot::channel();
        later.found(Vec::new(), 0, more);
        assert_eq!(asked.try_recv(), Ok(()), "nothing waits");
        assert_eq!(later.len(), LOW_WATER - 1);
    }
}
